/* SPDX-License-Identifier: MIT */
/*
 * arguments.c - arguments of commands against option tables, as strictly as clients of the peer know it: JSON types are not
 * converted, dotted keys are not taken, and messages say where in the arguments something is wrong.
 *
 * A table is looked at in its order, then what is in no table is found. What is right then goes through blk_options_parse(),
 * which checks bounds and hands out typed values.
 */
#include "daemon/daemon.h"

#include "core/options.h"

#include <string.h>

typedef struct Checker {
    Daemon *d;                  /* (nullable): nodes are not looked into */
    bool names;                 /* those of nodes must be there; else he who uses them looks for them */
    const BlkOption *const *tables;
    const char *path;           /* of the object, with a dot at its end; "" at the top */
    bool words;                 /* of a command line: numbers and truth values may be text */
    GError **error;
} Checker;

static int check_union(const Checker *outer, const BlkOption *table, const DaemonVariants *variants, JsonObject *object,
                       const char *path);
static int check_value(const Checker *c, const BlkOption *option, const char *path, JsonNode *value);

/* ---- one value ---- */

static const char *expected_json(const BlkType *type)
{
    static const char *const names[] = {
        [BLK_TYPE_ANY] = "value", [BLK_TYPE_INTEGER] = "integer", [BLK_TYPE_ARRAY] = "array", [BLK_TYPE_OBJECT] = "object",
    };

    return !type ? names[BLK_TYPE_ANY] : type->kind == BLK_TYPE_ALTERNATE ? type->name : names[type->kind];
}

static const char *expected_type(const BlkOption *option)
{
    static const char *const names[] = {
        [BLK_OPTION_STRING] = "string", [BLK_OPTION_BOOL] = "boolean", [BLK_OPTION_UINT] = "integer",
        [BLK_OPTION_SIZE] = "integer", [BLK_OPTION_ENUM] = "string", [BLK_OPTION_NODE] = "BlockdevRef",
    };

    return option->type == BLK_OPTION_JSON ? expected_json(option->json) : names[option->type];
}

static bool type_matches(const Checker *c, const BlkOption *option, JsonNode *value);

/* (nullable): the one of an alternate's that @value is. */
static const BlkOption *find_alternative(const Checker *c, const BlkType *type, JsonNode *value)
{
    const BlkOption *option = type->members;

    while (option->name && !type_matches(c, option, value)) {
        option++;
    }
    return option->name ? option : NULL;
}

static bool json_matches(const Checker *c, const BlkType *type, JsonNode *value)
{
    switch (type->kind) {
    case BLK_TYPE_INTEGER:
        return json_node_get_value_type(value) == G_TYPE_INT64;
    case BLK_TYPE_ARRAY:
        return JSON_NODE_HOLDS_ARRAY(value);
    case BLK_TYPE_OBJECT:
        return JSON_NODE_HOLDS_OBJECT(value);
    case BLK_TYPE_ALTERNATE:
        return find_alternative(c, type, value);
    case BLK_TYPE_ANY:
        break;
    }
    return true;
}

static bool type_matches(const Checker *c, const BlkOption *option, JsonNode *value)
{
    GType type = json_node_get_value_type(value);
    bool word = c->words && type == G_TYPE_STRING;

    switch (option->type) {
    case BLK_OPTION_STRING:
    case BLK_OPTION_ENUM:
        return type == G_TYPE_STRING;
    case BLK_OPTION_BOOL:
        return word || type == G_TYPE_BOOLEAN;
    case BLK_OPTION_UINT:
    case BLK_OPTION_SIZE:
        return word || type == G_TYPE_INT64;
    case BLK_OPTION_NODE:
        return type == G_TYPE_STRING || JSON_NODE_HOLDS_OBJECT(value) || (JSON_NODE_HOLDS_NULL(value) && !option->required);
    case BLK_OPTION_JSON:
        break;
    }
    return !option->json || json_matches(c, option->json, value);
}

static int check_node_value(const Checker *c, const char *path, JsonNode *value)
{
    if (JSON_NODE_HOLDS_OBJECT(value)) {
        return check_union(c, blk_node_options, &daemon_driver_variants, json_node_get_object(value), path);
    }
    if (JSON_NODE_HOLDS_NULL(value) || !c->names) {
        return 0;
    }
    return daemon_find_node(c->d, json_node_get_string(value), json_node_get_string(value), c->error) ? 0 : -ENOENT;
}

static int check_elements(const Checker *c, const BlkOption *element, const char *path, JsonArray *array)
{
    int ret = 0;

    for (guint i = 0; ret == 0 && i < json_array_get_length(array); i++) {
        g_autofree char *name = g_strdup_printf("%s[%u]", path, i);
        BlkOption option = *element;

        option.name = name;
        ret = check_value(c, &option, name, json_array_get_element(array, i));
    }
    return ret;
}

/* @value is of the kind that the type is. */
static int check_json(const Checker *c, const BlkType *type, const char *path, JsonNode *value)
{
    switch (type->kind) {
    case BLK_TYPE_ARRAY:
        return check_elements(c, type->members, path, json_node_get_array(value));
    case BLK_TYPE_OBJECT:
        return check_union(c, type->members, type->variants, json_node_get_object(value), path);
    case BLK_TYPE_ALTERNATE:
        return check_value(c, find_alternative(c, type, value), path, value);
    case BLK_TYPE_ANY:
    case BLK_TYPE_INTEGER:
        break;
    }
    return 0;
}

static bool is_switch(JsonNode *value)
{
    static const char *const words[] = { "on", "off", "yes", "no", "true", "false", NULL };

    return json_node_get_value_type(value) != G_TYPE_STRING || g_strv_contains(words, json_node_get_string(value));
}

/* @path: of the value. */
static int check_value(const Checker *c, const BlkOption *option, const char *path, JsonNode *value)
{
    if (!type_matches(c, option, value)) {
        return blk_error(c->error, -EINVAL, "Invalid parameter type for '%s', expected: %s", path, expected_type(option));
    }
    if ((option->type == BLK_OPTION_UINT || option->type == BLK_OPTION_SIZE) && json_node_get_value_type(value) == G_TYPE_INT64 &&
        json_node_get_int(value) < 0) {
        return blk_error(c->error, -EINVAL, "Parameter '%s' expects a non-negative value", path);
    }
    if (option->type == BLK_OPTION_BOOL && !is_switch(value)) {
        return blk_error(c->error, -EINVAL, "Parameter '%s' expects 'on' or 'off'", path);
    }
    if (option->type == BLK_OPTION_ENUM && !g_strv_contains(option->values, json_node_get_string(value))) {
        return blk_error(c->error, -EINVAL, "Parameter '%s' does not accept value '%.*s'", option->name, 64,
                         json_node_get_string(value));
    }
    if (option->type == BLK_OPTION_JSON) {
        return option->json ? check_json(c, option->json, path, value) : 0;
    }
    return option->type == BLK_OPTION_NODE && c->d ? check_node_value(c, path, value) : 0;
}

/* ---- one option of a table ---- */

/* *group: (out): do names of options begin so? */
static bool is_known(const Checker *c, const char *name, bool *group)
{
    size_t length = strlen(name);
    bool known = false;

    *group = false;
    for (const BlkOption *const *table = c->tables; *table; table++) {
        for (const BlkOption *option = *table; option->name; option++) {
            known |= strcmp(option->name, name) == 0;
            *group |= strncmp(option->name, name, length) == 0 && option->name[length] == '.';
        }
    }
    return known;
}

/* Finds the value of a name with dots in nested objects. *value: (out): NULL: there is none. *missing: (out) (transfer full):
 * the part of the name that is not there. */
static int look_up(Checker *c, JsonObject *object, const char *name, JsonNode **value, char **missing)
{
    const char *rest = name, *dot;

    *missing = NULL;
    for (;;) {
        g_autofree char *key = NULL;

        dot = strchr(rest, '.');
        key = g_strndup(rest, dot ? (size_t)(dot - rest) : strlen(rest));
        *value = json_object_get_member(object, key);
        if (!*value) {
            *missing = g_strndup(name, (size_t)(rest - name) + strlen(key));
            return 0;
        }
        if (!dot) {
            return 0;
        }
        if (!JSON_NODE_HOLDS_OBJECT(*value)) {
            g_autofree char *outer = g_strndup(name, (size_t)(dot - name));
            bool group;

            if (is_known(c, outer, &group)) {       /* it may be a group, too: this is the other */
                *value = NULL;
                return 0;
            }
            return blk_error(c->error, -EINVAL, "Invalid parameter type for '%s%.*s', expected: object", c->path,
                             (int)(dot - name), name);
        }
        object = json_node_get_object(*value);
        rest = dot + 1;
    }
}

static int check_option(Checker *c, const BlkOption *option, JsonObject *object)
{
    g_autofree char *missing = NULL;
    JsonNode *value;
    bool group;
    int ret = look_up(c, object, option->name, &value, &missing);

    if (ret == 0 && value && !(is_known(c, option->name, &group) && group && JSON_NODE_HOLDS_OBJECT(value))) {
        g_autofree char *path = g_strconcat(c->path, option->name, NULL);

        ret = check_value(c, option, path, value);
    } else if (ret == 0 && !value && option->required) {
        ret = blk_error(c->error, -EINVAL, "Parameter '%s%s' is missing", c->path, missing);
    }
    return ret;
}

/* ---- what is in no table ---- */

/* @prefix: of the keys of @object: the groups that it stands in, with a dot at the end. */
static int check_keys(Checker *c, JsonObject *object, const char *prefix)
{
    JsonObjectIter iter;
    const char *key;
    JsonNode *value;
    int ret = 0;

    json_object_iter_init_ordered(&iter, object);
    while (ret == 0 && json_object_iter_next_ordered(&iter, &key, &value)) {
        g_autofree char *name = g_strconcat(prefix, key, NULL);
        bool group, known = is_known(c, name, &group) && !strchr(key, '.');

        if (group && JSON_NODE_HOLDS_OBJECT(value)) {
            g_autofree char *inner = g_strconcat(name, ".", NULL);

            ret = check_keys(c, json_node_get_object(value), inner);
        } else if (!known) {
            ret = blk_error(c->error, -EINVAL, "Parameter '%s%.*s' is unexpected", c->path, 64, name);
        }
    }
    return ret;
}

/* ---- whole objects ---- */

/* @outer: the object that this one stands in, or what says how it is looked at; its tables and path are not used. */
static int check_object(const Checker *outer, const BlkOption *const *tables, JsonObject *object, const char *path)
{
    g_autofree char *prefix = path ? g_strconcat(path, ".", NULL) : g_strdup("");
    Checker c = *outer;

    c.tables = tables;
    c.path = prefix;
    for (const BlkOption *const *table = tables; *table; table++) {
        for (const BlkOption *option = *table; option->name; option++) {
            int ret = check_option(&c, option, object);

            if (ret < 0) {
                return ret;
            }
        }
    }
    return check_keys(&c, object, "");
}

BlkOptions *daemon_parse_arguments(const BlkOption *const *tables, JsonObject *object, const char *path, GError **error)
{
    const Checker c = { .error = error };

    if (check_object(&c, tables, object, path) < 0) {
        return NULL;
    }
    return blk_options_parse(tables, object, path ? path : "arguments", error);
}

/* ---- what depends on the value of one argument ---- */

const BlkOption *daemon_find_variant(Daemon *d, const DaemonVariants *variants, JsonObject *object, const char *path,
                                     GError **error)
{
    JsonNode *value = json_object_get_member(object, variants->tag);
    const char *text = value && json_node_get_value_type(value) == G_TYPE_STRING ? json_node_get_string(value) : NULL;
    const char *prefix = path ? path : "", *dot = path ? "." : "";
    const BlkOption *table = text ? variants->table(d, text) : NULL;

    if (!value) {
        blk_error(error, -EINVAL, "Parameter '%s%s%s' is missing", prefix, dot, variants->tag);
    } else if (!text) {
        blk_error(error, -EINVAL, "Invalid parameter type for '%s%s%s', expected: string", prefix, dot, variants->tag);
    } else if (!table && !(variants->refuse && variants->refuse(d, text, error))) {
        blk_error(error, -EINVAL, "Parameter '%s' does not accept value '%.*s'", variants->tag, 64, text);
    }
    return table;
}

/* @table: (nullable); @variants: (nullable) */
static int check_union(const Checker *outer, const BlkOption *table, const DaemonVariants *variants, JsonObject *object,
                       const char *path)
{
    const BlkOption *variant = variants ? daemon_find_variant(outer->d, variants, object, path, outer->error) : NULL;
    const BlkType inner = { .kind = BLK_TYPE_OBJECT, .members = variant };
    const BlkOption wrapper[] = {
        { variants ? variants->wrapper : NULL, BLK_OPTION_JSON, .required = true, .json = &inner },
        { NULL },
    };
    const BlkOption *tables[] = { table, wrapper->name ? wrapper : variant, NULL };

    return variants && !variant ? -EINVAL : check_object(outer, table ? tables : &tables[1], object, path);
}

BlkOptions *daemon_parse_variants(Daemon *d, const BlkOption *table, const DaemonVariants *variants, JsonObject *object,
                                  const char *path, bool words, GError **error)
{
    const BlkOption *tables[] = { table, NULL, NULL };
    const Checker c = { .d = d, .words = words, .error = error };

    if (check_union(&c, table, variants, object, path) < 0) {
        return NULL;
    }
    if (variants) {
        tables[table ? 1 : 0] = daemon_find_variant(d, variants, object, path, error);
    }
    return blk_options_parse(tables, object, path ? path : "arguments", error);
}

BlkOptions *daemon_parse_text(Daemon *d, const BlkOption *table, const DaemonVariants *variants, const char *text,
                              const char *implied_key, GError **error)
{
    g_autoptr(JsonObject) given = blk_options_parse_keyval(text, implied_key, error);

    return given ? daemon_parse_variants(d, table, variants, given, NULL, *text != '{', error) : NULL;
}

/* ---- trees of nodes ---- */

static const char *nth_driver(Daemon *d, unsigned index)
{
    const BlkDriver *driver = blk_driver_nth(d->ctx, index);

    return driver ? driver->name : NULL;
}

static const BlkOption *driver_options(Daemon *d, const char *name)
{
    static const BlkOption none[] = { { NULL } };
    const BlkDriver *driver = blk_driver_find(d->ctx, name);

    return !driver ? NULL : driver->options ? driver->options : none;
}

const DaemonVariants daemon_driver_variants = { "driver", nth_driver, driver_options };

const BlkType daemon_node_type = { "BlockdevOptions", BLK_TYPE_OBJECT, blk_node_options, &daemon_driver_variants };

static int check_node(Daemon *d, JsonObject *tree, const char *path, bool words, GError **error)
{
    const Checker c = { .d = d, .names = true, .words = words, .error = error };

    return check_union(&c, blk_node_options, &daemon_driver_variants, tree, path);
}

int daemon_check_node(Daemon *d, JsonObject *tree, const char *path, GError **error)
{
    return check_node(d, tree, path, false, error);
}

JsonObject *daemon_parse_node_text(Daemon *d, const char *text, GError **error)
{
    g_autoptr(JsonObject) tree = blk_options_parse_keyval(text, "driver", error);

    return tree && check_node(d, tree, NULL, *text != '{', error) == 0 ? g_steal_pointer(&tree) : NULL;
}

/* ---- tables that are made ---- */

const BlkOption *daemon_find_table(Daemon *d, const char *key)
{
    GArray *table = d->tables ? g_hash_table_lookup(d->tables, key) : NULL;

    return table ? (const BlkOption *)(const void *)table->data : NULL;
}

const BlkOption *daemon_keep_table(Daemon *d, const char *key, GArray *table)
{
    if (!d->tables) {
        d->tables = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, (GDestroyNotify)g_array_unref);
    }
    g_hash_table_insert(d->tables, g_strdup(key), table);
    return daemon_find_table(d, key);
}

/* ---- lists ---- */

JsonArray *daemon_options_array(const BlkOptions *args, const char *name)
{
    JsonNode *value = blk_options_json(args, name);

    return value ? json_node_get_array(value) : NULL;
}
