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
    const BlkOption *const *tables;
    const char *path;           /* of the object, with a dot at its end; "" at the top */
    bool words;                 /* of a command line: numbers and truth values may be text */
    GError **error;
} Checker;

static int check_node(Daemon *d, JsonObject *tree, const char *path, bool words, GError **error);

/* ---- one value ---- */

static const char *expected_type(const BlkOption *option)
{
    static const char *const names[] = {
        [BLK_OPTION_STRING] = "string", [BLK_OPTION_BOOL] = "boolean", [BLK_OPTION_UINT] = "integer",
        [BLK_OPTION_SIZE] = "integer", [BLK_OPTION_ENUM] = "string", [BLK_OPTION_NODE] = "BlockdevRef",
        [BLK_OPTION_JSON] = "value",
    };

    return names[option->type];
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
        return type == G_TYPE_STRING || JSON_NODE_HOLDS_OBJECT(value) || JSON_NODE_HOLDS_NULL(value);
    case BLK_OPTION_JSON:
        break;
    }
    return true;
}

static int check_node_value(Checker *c, const BlkOption *option, JsonNode *value)
{
    g_autofree char *path = g_strconcat(c->path, option->name, NULL);

    if (JSON_NODE_HOLDS_OBJECT(value)) {
        return check_node(c->d, json_node_get_object(value), path, c->words, c->error);
    }
    if (JSON_NODE_HOLDS_NULL(value)) {
        return 0;
    }
    return daemon_find_node(c->d, json_node_get_string(value), json_node_get_string(value), c->error) ? 0 : -ENOENT;
}

static bool is_switch(JsonNode *value)
{
    static const char *const words[] = { "on", "off", "yes", "no", "true", "false", NULL };

    return json_node_get_value_type(value) != G_TYPE_STRING || g_strv_contains(words, json_node_get_string(value));
}

static int check_value(Checker *c, const BlkOption *option, JsonNode *value)
{
    if (!type_matches(c, option, value)) {
        return blk_error(c->error, -EINVAL, "Invalid parameter type for '%s%s', expected: %s", c->path, option->name,
                         expected_type(option));
    }
    if ((option->type == BLK_OPTION_UINT || option->type == BLK_OPTION_SIZE) && json_node_get_value_type(value) == G_TYPE_INT64 &&
        json_node_get_int(value) < 0) {
        return blk_error(c->error, -EINVAL, "Parameter '%s%s' expects a non-negative value", c->path, option->name);
    }
    if (option->type == BLK_OPTION_BOOL && !is_switch(value)) {
        return blk_error(c->error, -EINVAL, "Parameter '%s%s' expects 'on' or 'off'", c->path, option->name);
    }
    if (option->type == BLK_OPTION_ENUM && !g_strv_contains(option->values, json_node_get_string(value))) {
        return blk_error(c->error, -EINVAL, "Parameter '%s' does not accept value '%.*s'", option->name, 64,
                         json_node_get_string(value));
    }
    return option->type == BLK_OPTION_NODE && c->d ? check_node_value(c, option, value) : 0;
}

/* ---- one option of a table ---- */

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
    int ret = look_up(c, object, option->name, &value, &missing);

    if (ret == 0 && value) {
        ret = check_value(c, option, value);
    } else if (ret == 0 && option->required) {
        ret = blk_error(c->error, -EINVAL, "Parameter '%s%s' is missing", c->path, missing);
    }
    return ret;
}

/* ---- what is in no table ---- */

static bool is_known(const Checker *c, const char *name, bool *group)
{
    size_t length = strlen(name);

    *group = false;
    for (const BlkOption *const *table = c->tables; *table; table++) {
        for (const BlkOption *option = *table; option->name; option++) {
            if (strcmp(option->name, name) == 0) {
                return true;
            }
            *group |= strncmp(option->name, name, length) == 0 && option->name[length] == '.';
        }
    }
    return false;
}

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

        if (!known && group && JSON_NODE_HOLDS_OBJECT(value)) {
            g_autofree char *inner = g_strconcat(name, ".", NULL);

            ret = check_keys(c, json_node_get_object(value), inner);
        } else if (!known) {
            ret = blk_error(c->error, -EINVAL, "Parameter '%s%.*s' is unexpected", c->path, 64, name);
        }
    }
    return ret;
}

/* ---- whole objects ---- */

static int check_object(Daemon *d, const BlkOption *const *tables, JsonObject *object, const char *path, bool words,
                        GError **error)
{
    g_autofree char *prefix = path ? g_strconcat(path, ".", NULL) : g_strdup("");
    Checker c = { .d = d, .tables = tables, .path = prefix, .words = words, .error = error };

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

int daemon_check_arguments(const BlkOption *const *tables, JsonObject *object, const char *path, GError **error)
{
    return check_object(NULL, tables, object, path, false, error);
}

BlkOptions *daemon_parse_arguments(const BlkOption *const *tables, JsonObject *object, const char *path, GError **error)
{
    if (daemon_check_arguments(tables, object, path, error) < 0) {
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
    } else if (!table) {
        blk_error(error, -EINVAL, "Parameter '%s' does not accept value '%.*s'", variants->tag, 64, text);
    }
    return table;
}

BlkOptions *daemon_parse_variants(Daemon *d, const BlkOption *table, const DaemonVariants *variants, JsonObject *object,
                                  const char *path, bool words, GError **error)
{
    const BlkOption *variant = variants ? daemon_find_variant(d, variants, object, path, error) : NULL;
    const BlkOption *tables[] = { table ? table : variant, table ? variant : NULL, NULL };

    if ((variants && !variant) || check_object(NULL, tables, object, path, words, error) < 0) {
        return NULL;
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

static int check_node(Daemon *d, JsonObject *tree, const char *path, bool words, GError **error)
{
    const BlkOption *variant = daemon_find_variant(d, &daemon_driver_variants, tree, path, error);
    const BlkOption *tables[] = { blk_node_options, variant, NULL };

    return variant ? check_object(d, tables, tree, path, words, error) : -EINVAL;
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

/* ---- lists ---- */

JsonArray *daemon_options_array(const BlkOptions *args, const char *name, GError **error)
{
    JsonNode *value = blk_options_json(args, name);

    if (value && !JSON_NODE_HOLDS_ARRAY(value)) {
        blk_error(error, -EINVAL, "Invalid parameter type for '%s', expected: array", name);
    }
    return value && JSON_NODE_HOLDS_ARRAY(value) ? json_node_get_array(value) : NULL;
}
