/* SPDX-License-Identifier: MIT */
/*
 * schema.c - query-qmp-schema: what commands and events there are, in the SchemaInfo form that clients of the peer read. It is
 * made from the option tables by which arguments are parsed, so it cannot differ from them. Members "x-help" and
 * "x-default" say what else the tables know, for people.
 *
 * What no table describes, as the value of a property, is of type "any".
 */
#include "daemon/schema.h"

#include "daemon/results.h"

#include "core/options.h"

#include <string.h>

typedef struct Schema {
    Daemon *d;
    JsonArray *list;
    GHashTable *enums;          /* values -> name of the type */
    GHashTable *names;          /* of types that were made when they were first asked for */
} Schema;

/* ---- entities ---- */

/* (transfer none): of the list. */
static JsonObject *add_entity(Schema *s, const char *name, const char *meta_type)
{
    JsonObject *entity = json_object_new();

    json_object_set_string_member(entity, "name", name);
    json_object_set_string_member(entity, "meta-type", meta_type);
    json_array_add_object_element(s->list, entity);
    return entity;
}

static void add_builtins(Schema *s)
{
    static const char *const types[][2] = {
        { "str", "string" }, { "int", "int" }, { "number", "number" }, { "bool", "boolean" }, { "null", "null" },
        { "any", "value" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(types); i++) {
        json_object_set_string_member(add_entity(s, types[i][0], "builtin"), "json-type", types[i][1]);
    }
}

static void add_enum(Schema *s, const char *name, const char *const *values)
{
    JsonArray *texts = json_array_new(), *members = json_array_new();
    JsonObject *entity = add_entity(s, name, "enum");

    for (; *values; values++) {
        JsonObject *member = json_object_new();

        json_object_set_string_member(member, "name", *values);
        json_array_add_object_element(members, member);
        json_array_add_string_element(texts, *values);
    }
    json_object_set_array_member(entity, "members", members);
    json_object_set_array_member(entity, "values", texts);
}

/* The name of the type of these values, which is made when it is first asked for. */
static const char *enum_of(Schema *s, const char *const *values)
{
    char *name = g_hash_table_lookup(s->enums, values);

    if (!name) {
        name = g_strdup_printf("enum-%u", g_hash_table_size(s->enums));
        g_hash_table_insert(s->enums, (gpointer)values, name);
        add_enum(s, name, values);
    }
    return name;
}

/* (transfer none): of the list. */
static JsonObject *add_member(JsonArray *members, const char *name, const char *type, bool optional)
{
    JsonObject *member = json_object_new();

    json_object_set_string_member(member, "name", name);
    json_object_set_string_member(member, "type", type);
    if (optional) {
        json_object_set_null_member(member, "default");
    }
    json_array_add_object_element(members, member);
    return member;
}

/* What SchemaInfo has no place for. Both: (nullable) */
static void add_help(JsonObject *entity, const char *help, const char *default_text)
{
    if (help) {
        json_object_set_string_member(entity, "x-help", help);
    }
    if (default_text) {
        json_object_set_string_member(entity, "x-default", default_text);
    }
}

/* ---- tables ---- */

static const char *name_of_type(Schema *s, const BlkType *type);

/* (transfer none): lives as long as the schema is made. */
static const char *type_of(Schema *s, const BlkOption *option)
{
    switch (option->type) {
    case BLK_OPTION_STRING:
        return "str";
    case BLK_OPTION_BOOL:
        return "bool";
    case BLK_OPTION_UINT:
    case BLK_OPTION_SIZE:
        return "int";
    case BLK_OPTION_ENUM:
        return enum_of(s, option->values);
    case BLK_OPTION_NODE:
        return option->required ? "BlockdevRef" : "BlockdevRefOrNull";
    case BLK_OPTION_JSON:
        break;
    }
    return option->json ? name_of_type(s, option->json) : "any";
}

/* false: it is there already. *kept: (out): @name, which lives as long as the schema is made. */
static bool is_new(Schema *s, const char *name, const char **kept)
{
    gpointer there;
    bool found = g_hash_table_lookup_extended(s->names, name, &there, NULL);

    if (!found) {
        there = g_strdup(name);
        g_hash_table_add(s->names, there);
    }
    *kept = there;
    return !found;
}

static void add_type_members(JsonObject *entity, const char *const *types, unsigned count)
{
    JsonArray *members = json_array_new();

    for (unsigned i = 0; i < count; i++) {
        JsonObject *member = json_object_new();

        json_object_set_string_member(member, "type", types[i]);
        json_array_add_object_element(members, member);
    }
    json_object_set_array_member(entity, "members", members);
}

/* Of what @option is. */
static const char *array_of(Schema *s, const BlkOption *option)
{
    const char *element = type_of(s, option), *kept;
    g_autofree char *name = g_strdup_printf("[%s]", element);

    if (is_new(s, name, &kept)) {
        json_object_set_string_member(add_entity(s, kept, "array"), "element-type", element);
    }
    return kept;
}

static void add_object(Schema *s, const char *name, const BlkOption *table, const DaemonVariants *variants);

static void add_alternate(Schema *s, const char *name, const BlkOption *table)
{
    g_autoptr(GPtrArray) types = g_ptr_array_new();

    for (; table->name; table++) {
        g_ptr_array_add(types, (gpointer)type_of(s, table));
    }
    add_type_members(add_entity(s, name, "alternate"), (const char *const *)types->pdata, types->len);
}

static const char *name_of_type(Schema *s, const BlkType *type)
{
    const char *kept = type->name;

    switch (type->kind) {
    case BLK_TYPE_ANY:
        return "any";
    case BLK_TYPE_INTEGER:
        return "int";
    case BLK_TYPE_ARRAY:
        return array_of(s, type->members);
    case BLK_TYPE_ALTERNATE:
        if (is_new(s, type->name, &kept)) {
            add_alternate(s, kept, type->members);
        }
        break;
    case BLK_TYPE_OBJECT:
        if (is_new(s, type->name, &kept)) {
            add_object(s, kept, type->members, type->variants);
        }
        break;
    }
    return kept;
}

static JsonArray *members_of(Schema *s, const char *owner, const BlkOption *table, size_t skip, const DaemonVariants *variants);

/* The options of @table that begin with @prefix, which has a dot at its end. */
static void add_group(Schema *s, const char *name, const BlkOption *table, const char *prefix)
{
    g_autoptr(GArray) group = g_array_new(TRUE, TRUE, sizeof(BlkOption));
    JsonArray *members;

    for (; table->name; table++) {
        if (g_str_has_prefix(table->name, prefix)) {
            g_array_append_val(group, *table);
        }
    }
    members = members_of(s, name, (const BlkOption *)group->data, strlen(prefix), NULL);
    json_object_set_array_member(add_entity(s, name, "object"), "members", members);
}

static bool is_first_of_group(const BlkOption *table, const BlkOption *option, const char *prefix)
{
    for (; table < option; table++) {
        if (g_str_has_prefix(table->name, prefix)) {
            return false;
        }
    }
    return true;
}

/* "a" and "a.b" in one table: either a value or an object. */
static bool is_value_too(const BlkOption *table, const char *prefix)
{
    size_t length = strlen(prefix) - 1;

    for (; table->name; table++) {
        if (strncmp(table->name, prefix, length) == 0 && table->name[length] == '\0') {
            return true;
        }
    }
    return false;
}

static bool is_group_too(const BlkOption *table, const BlkOption *option)
{
    size_t length = strlen(option->name);

    for (; table->name; table++) {
        if (strncmp(table->name, option->name, length) == 0 && table->name[length] == '.') {
            return true;
        }
    }
    return false;
}

/* @owner: name of the type; @skip: bytes of each name, which say the group that the members are in. */
static JsonArray *members_of(Schema *s, const char *owner, const BlkOption *table, size_t skip, const DaemonVariants *variants)
{
    JsonArray *members = json_array_new();

    for (const BlkOption *option = table; option && option->name; option++) {
        const char *name = option->name + skip, *dot = strchr(name, '.');

        if (dot) {
            g_autofree char *prefix = g_strndup(option->name, (size_t)(dot - option->name) + 1);
            g_autofree char *key = g_strndup(name, (size_t)(dot - name));
            g_autofree char *type = g_strdup_printf("%s-%s", owner, key);

            if (is_first_of_group(table, option, prefix)) {
                add_group(s, type, table, prefix);
            }
            if (is_first_of_group(table, option, prefix) && !is_value_too(table, prefix)) {
                add_member(members, key, type, !option->required);
            }
        } else if (is_group_too(table, option)) {
            g_autofree char *group = g_strdup_printf("%s-%s", owner, name), *type = g_strdup_printf("%s-or-value", group);
            const char *types[] = { type_of(s, option), group };

            add_type_members(add_entity(s, type, "alternate"), types, G_N_ELEMENTS(types));
            add_help(add_member(members, name, type, !option->required), option->help, option->default_text);
        } else if (variants && strcmp(name, variants->tag) == 0) {
            g_autofree char *type = g_strdup_printf("%s-%s", owner, name);

            add_help(add_member(members, name, type, false), option->help, NULL);
        } else {
            add_help(add_member(members, name, type_of(s, option), !option->required), option->help,
                     option->default_text);
        }
    }
    return members;
}

static JsonArray *variant_members(Schema *s, const char *type, const DaemonVariants *variants, const char *value)
{
    const BlkOption *table = variants->table(s->d, value);
    g_autofree char *inner = g_strdup_printf("%s-%s", type, variants->wrapper);
    JsonArray *members;

    if (!variants->wrapper) {
        return members_of(s, type, table, 0, NULL);
    }
    add_object(s, inner, table, NULL);
    members = json_array_new();
    add_member(members, variants->wrapper, inner, false);
    return members;
}

/* What each value of the tag adds; makes the type of the tag, too. */
static JsonArray *variants_of(Schema *s, const char *owner, const DaemonVariants *variants)
{
    JsonArray *list = json_array_new();
    g_autoptr(GPtrArray) values = g_ptr_array_new();
    g_autofree char *tag_type = g_strdup_printf("%s-%s", owner, variants->tag);
    const char *value;

    for (unsigned i = 0; (value = variants->nth(s->d, i)); i++) {
        g_autofree char *type = g_strdup_printf("%s-%s-of-%s", owner, variants->tag, value);
        JsonArray *members = variant_members(s, type, variants, value);
        JsonObject *variant = json_object_new();

        json_object_set_array_member(add_entity(s, type, "object"), "members", members);
        json_object_set_string_member(variant, "case", value);
        json_object_set_string_member(variant, "type", type);
        json_array_add_object_element(list, variant);
        g_ptr_array_add(values, (gpointer)value);
    }
    g_ptr_array_add(values, NULL);
    add_enum(s, tag_type, (const char *const *)values->pdata);
    return list;
}

static void add_object(Schema *s, const char *name, const BlkOption *table, const DaemonVariants *variants)
{
    JsonArray *members = members_of(s, name, table, 0, variants);
    JsonArray *list = variants ? variants_of(s, name, variants) : NULL;
    JsonObject *entity = add_entity(s, name, "object");

    json_object_set_array_member(entity, "members", members);
    if (variants) {
        json_object_set_string_member(entity, "tag", variants->tag);
        json_object_set_array_member(entity, "variants", list);
    }
}

/* ---- what there is ---- */

static void add_nodes(Schema *s)
{
    static const char *const types[] = { "BlockdevOptions", "str", "null" };

    name_of_type(s, &daemon_node_type);
    add_type_members(add_entity(s, "BlockdevRef", "alternate"), types, 2);
    add_type_members(add_entity(s, "BlockdevRefOrNull", "alternate"), types, 3);
}

static void add_command(Schema *s, const DaemonCommand *command)
{
    bool is_node = command->variants == &daemon_driver_variants;
    g_autofree char *type = is_node ? g_strdup(daemon_node_type.name) : g_strdup_printf("%s-arg", command->name);
    const BlkType *result_type = daemon_result_type(command->name);
    const char *result = result_type ? name_of_type(s, result_type) : "Empty";
    JsonObject *entity;

    if (!is_node) {
        add_object(s, type, command->args, command->variants);
    }
    entity = add_entity(s, command->name, "command");
    json_object_set_string_member(entity, "arg-type", type);
    json_object_set_string_member(entity, "ret-type", result);
    add_help(entity, command->help, NULL);
}

static const BlkOption export_deleted_data[] = {
    { "id", BLK_OPTION_STRING, "the export", .required = true },
    { NULL },
};

static const BlkOption corrupted_data[] = {
    { "device", BLK_OPTION_STRING, "empty: there are no devices", .required = true },
    { "node-name", BLK_OPTION_STRING, "the node" },
    { "msg", BLK_OPTION_STRING, "what was found", .required = true },
    { "offset", BLK_OPTION_SIZE, "in the file: where, if that is known" },
    { "size", BLK_OPTION_SIZE, "bytes there" },
    { "fatal", BLK_OPTION_BOOL, "nothing is written to the image any more", .required = true },
    { NULL },
};

static const char *const io_operations[] = { "read", "write", NULL };
static const char *const io_actions[] = { "ignore", "report", "stop", NULL };

static const BlkOption io_error_data[] = {
    { "device", BLK_OPTION_STRING, "empty: there are no devices", .required = true },
    { "node-name", BLK_OPTION_STRING, "the node" },
    { "operation", BLK_OPTION_ENUM, "what failed", .values = io_operations, .required = true },
    { "action", BLK_OPTION_ENUM, "what was done about it", .values = io_actions, .required = true },
    { "nospace", BLK_OPTION_BOOL, "no space was left" },
    { "reason", BLK_OPTION_STRING, "the error", .required = true },
    { NULL },
};

static const BlkOption threshold_data[] = {
    { "node-name", BLK_OPTION_STRING, "the node", .required = true },
    { "amount-exceeded", BLK_OPTION_SIZE, "bytes beyond the threshold", .required = true },
    { "write-threshold", BLK_OPTION_SIZE, "it was, and is none any more", .required = true },
    { NULL },
};

static const BlkOption job_status_data[] = {
    { "id", BLK_OPTION_STRING, "the job", .required = true },
    { "status", BLK_OPTION_ENUM, "the state that it is in now", .values = daemon_job_statuses, .required = true },
    { NULL },
};

#define BLOCK_JOB_DATA                                                                                          \
    { "type", BLK_OPTION_ENUM, "what the job does", .values = daemon_job_types, .required = true },             \
    { "device", BLK_OPTION_STRING, "the job", .required = true },                                               \
    { "len", BLK_OPTION_UINT, "bytes to do", .required = true },                                                \
    { "offset", BLK_OPTION_UINT, "bytes done", .required = true },                                              \
    { "speed", BLK_OPTION_UINT, "bytes a second; 0: no limit", .required = true }
static const BlkOption block_job_data[] = { BLOCK_JOB_DATA, { NULL } };
static const BlkOption block_job_end_data[] = { BLOCK_JOB_DATA, { "error", BLK_OPTION_STRING, "why it failed" }, { NULL } };

static const BlkOption block_job_error_data[] = {
    { "device", BLK_OPTION_STRING, "the job", .required = true },
    { "operation", BLK_OPTION_ENUM, "what failed", .values = io_operations, .required = true },
    { "action", BLK_OPTION_ENUM, "what was done about it", .values = io_actions, .required = true },
    { NULL },
};

static const BlkOption block_job_pending_data[] = {
    { "type", BLK_OPTION_ENUM, "what the job does", .values = daemon_job_types, .required = true },
    { "id", BLK_OPTION_STRING, "the job", .required = true },
    { NULL },
};

/* What blk_notify() tells of. */
static const struct {
    const char *name;
    const BlkOption *data;
} events[] = {
    { "BLOCK_EXPORT_DELETED", export_deleted_data },
    { "BLOCK_IMAGE_CORRUPTED", corrupted_data },
    { "BLOCK_IO_ERROR", io_error_data },
    { "BLOCK_WRITE_THRESHOLD", threshold_data },
    { "BLOCK_JOB_CANCELLED", block_job_data },
    { "BLOCK_JOB_COMPLETED", block_job_end_data },
    { "BLOCK_JOB_ERROR", block_job_error_data },
    { "BLOCK_JOB_PENDING", block_job_pending_data },
    { "BLOCK_JOB_READY", block_job_data },
    { "JOB_STATUS_CHANGE", job_status_data },
};

static void add_event(Schema *s, const char *name, const BlkOption *data)
{
    g_autofree char *type = g_strdup_printf("%s-data", name);

    add_object(s, type, data, NULL);
    json_object_set_string_member(add_entity(s, name, "event"), "arg-type", type);
}

JsonArray *daemon_make_schema(Daemon *d)
{
    Schema s = {
        .d = d,
        .list = json_array_new(),
        .enums = g_hash_table_new_full(NULL, NULL, NULL, g_free),
        .names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL),
    };
    const DaemonCommand *command;

    add_builtins(&s);
    add_object(&s, "Empty", NULL, NULL);
    add_nodes(&s);
    for (unsigned i = 0; (command = daemon_command_nth(i)); i++) {
        add_command(&s, command);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(events); i++) {
        add_event(&s, events[i].name, events[i].data);
    }
    g_hash_table_unref(s.enums);
    g_hash_table_unref(s.names);
    return s.list;
}
