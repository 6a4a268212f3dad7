/* SPDX-License-Identifier: MIT */
/*
 * schema.c - what query-qmp-schema says of commands. See schema.h.
 */
#include "ctl/schema.h"

static int compare_names(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

int ctl_schema_init(CtlSchema *schema, CtlClient *client, GError **error)
{
    g_autoptr(GError) refused = NULL;
    JsonObject *entity;
    JsonArray *list;

    *schema = (CtlSchema) {
        .root = ctl_call(client, "query-qmp-schema", NULL, &refused),
        .entities = g_hash_table_new(g_str_hash, g_str_equal),
        .commands = g_ptr_array_new(),
    };
    list = schema->root && JSON_NODE_HOLDS_ARRAY(schema->root) ? json_node_get_array(schema->root) : NULL;
    for (guint i = 0; (entity = ctl_nth_object(list, i)); i++) {
        const char *name = ctl_text_of(entity, "name");

        if (name && g_hash_table_insert(schema->entities, (gpointer)name, entity) && ctl_schema_is(entity, "command")) {
            g_ptr_array_add(schema->commands, (gpointer)name);
        }
    }
    g_ptr_array_sort(schema->commands, compare_names);
    if (client->why) {
        return blk_error(error, -EPIPE, "%s", client->why);
    }
    return 0;
}

void ctl_schema_clear(CtlSchema *schema)
{
    g_clear_pointer(&schema->entities, g_hash_table_unref);
    g_clear_pointer(&schema->commands, g_ptr_array_unref);
    g_clear_pointer(&schema->root, json_node_unref);
}

JsonObject *ctl_schema_find(const CtlSchema *schema, const char *name)
{
    return name ? g_hash_table_lookup(schema->entities, name) : NULL;
}

bool ctl_schema_is(JsonObject *entity, const char *meta_type)
{
    return g_strcmp0(ctl_text_of(entity, "meta-type"), meta_type) == 0;
}

const char *ctl_schema_arguments(const CtlSchema *schema, const char *command)
{
    JsonObject *entity = ctl_schema_find(schema, command);

    return ctl_schema_is(entity, "command") ? ctl_text_of(entity, "arg-type") : NULL;
}

/* ---- members ---- */

/* The object that @type is, or may be. */
static JsonObject *object_of(const CtlSchema *schema, const char *type)
{
    JsonObject *entity = ctl_schema_find(schema, type), *choice;

    if (ctl_schema_is(entity, "object")) {
        return entity;
    }
    for (guint i = 0; (choice = ctl_nth_object(ctl_array_of(entity, "members"), i)); i++) {
        JsonObject *chosen = ctl_schema_find(schema, ctl_text_of(choice, "type"));

        if (ctl_schema_is(chosen, "object")) {
            return chosen;
        }
    }
    return NULL;
}

static void add_members(JsonObject *object, GArray *members)
{
    JsonObject *member;

    for (guint i = 0; (member = ctl_nth_object(ctl_array_of(object, "members"), i)); i++) {
        CtlMember m = {
            .name = ctl_text_of(member, "name"),
            .type = ctl_text_of(member, "type"),
            .help = ctl_text_of(member, "x-help"),
            .default_text = ctl_text_of(member, "x-default"),
            .optional = json_object_has_member(member, "default"),
        };

        if (m.name && m.type) {
            g_array_append_val(members, m);
        }
    }
}

GArray *ctl_schema_members(const CtlSchema *schema, const char *type, JsonObject *given)
{
    GArray *members = g_array_new(FALSE, FALSE, sizeof(CtlMember));
    JsonObject *object = object_of(schema, type), *variant;
    const char *tag = ctl_text_of(object, "tag"), *value = tag ? ctl_text_of(given, tag) : NULL;

    add_members(object, members);
    for (guint i = 0; value && (variant = ctl_nth_object(ctl_array_of(object, "variants"), i)); i++) {
        if (g_strcmp0(ctl_text_of(variant, "case"), value) == 0) {
            add_members(ctl_schema_find(schema, ctl_text_of(variant, "type")), members);
        }
    }
    return members;
}

const char *ctl_schema_step(const CtlSchema *schema, const char *type, const char *name, JsonObject *given)
{
    JsonObject *entity = ctl_schema_find(schema, type);
    g_autoptr(GArray) members = NULL;

    if (ctl_schema_is(entity, "array")) {
        return ctl_text_of(entity, "element-type");
    }
    members = ctl_schema_members(schema, type, given);
    for (guint i = 0; i < members->len; i++) {
        const CtlMember *member = &g_array_index(members, CtlMember, i);

        if (strcmp(member->name, name) == 0) {
            return member->type;
        }
    }
    return NULL;
}

const char *ctl_schema_implied_key(const CtlSchema *schema, const char *command)
{
    const char *type = ctl_schema_arguments(schema, command), *tag = ctl_text_of(ctl_schema_find(schema, type), "tag");
    g_autoptr(GArray) members = ctl_schema_members(schema, type, NULL);

    for (guint i = 0; i < members->len && !tag; i++) {
        const CtlMember *member = &g_array_index(members, CtlMember, i);

        tag = member->optional ? NULL : member->name;
    }
    return tag;
}

/* ---- kinds of values ---- */

GPtrArray *ctl_schema_values(const CtlSchema *schema, const char *type)
{
    JsonObject *entity = ctl_schema_find(schema, type);
    JsonArray *values = ctl_array_of(entity, "values");
    GPtrArray *list;

    if (!ctl_schema_is(entity, "enum") || !values) {
        return NULL;
    }
    list = g_ptr_array_new();
    for (guint i = 0; i < json_array_get_length(values); i++) {
        JsonNode *value = json_array_get_element(values, i);

        if (json_node_get_value_type(value) == G_TYPE_STRING) {
            g_ptr_array_add(list, (gpointer)json_node_get_string(value));
        }
    }
    g_ptr_array_add(list, NULL);
    return list;
}

const char *ctl_schema_json_type(const CtlSchema *schema, const char *type)
{
    JsonObject *entity = ctl_schema_find(schema, type);
    const char *json_type = ctl_schema_is(entity, "builtin") ? ctl_text_of(entity, "json-type") : NULL;

    return json_type ? json_type : "";
}

char *ctl_schema_describe(const CtlSchema *schema, const char *type)
{
    g_autoptr(GPtrArray) values = ctl_schema_values(schema, type);
    JsonObject *entity = ctl_schema_find(schema, type);
    const char *json_type = ctl_schema_json_type(schema, type);

    if (values) {
        return g_strjoinv("|", (char **)values->pdata);
    }
    if (ctl_schema_is(entity, "array")) {
        const char *element = ctl_text_of(entity, "element-type");
        const char *element_type = ctl_schema_json_type(schema, element);

        return g_strdup_printf("list of %s", *element_type ? element_type : "objects");
    }
    return g_strdup(ctl_schema_is(entity, "alternate") ? "name or object" : ctl_schema_is(entity, "object") ? "object" :
                    *json_type ? json_type : "value");
}
