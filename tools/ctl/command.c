/* SPDX-License-Identifier: MIT */
/*
 * command.c - a command as a user writes it: its words become JSON, whose types the schema knows.
 *
 *     blockdev-add null-co node-name=n,size=1M read-only=on file.driver=...     or one JSON object
 *
 * Words are read as key=value,... of the tools' other options are: one list, whose commas the spaces between words are.
 */
#include "ctl/ctl.h"

#include "core/options.h"

/* ---- values ---- */

static JsonNode *string_node(const char *text)
{
    return json_node_init_string(json_node_alloc(), text);
}

/* A value whose type nobody knows: JSON if it is some, a size if it looks like one, else a string. */
static JsonNode *guess(const char *text)
{
    JsonNode *node = *text == '\'' ? NULL : blk_json_parse(text, strlen(text), "value", NULL);
    uint64_t size;

    if (!node && g_ascii_isdigit(*text) && tool_parse_size(text, &size) == 0) {
        node = json_node_init_int(json_node_alloc(), (gint64)size);
    }
    return node ? node : string_node(text);
}

static JsonNode *convert_bool(const char *key, const char *text, GError **error)
{
    static const char *const yes[] = { "on", "true", "yes", NULL }, *const no[] = { "off", "false", "no", NULL };
    bool truth = g_strv_contains(yes, text);

    if (!truth && !g_strv_contains(no, text)) {
        blk_error(error, -EINVAL, "'%s' is on or off, not '%s'", key, text);
        return NULL;
    }
    return json_node_init_boolean(json_node_alloc(), truth);
}

static JsonNode *convert_int(const char *key, const char *text, GError **error)
{
    uint64_t number;
    gint64 negative;

    if (g_ascii_string_to_signed(text, 10, G_MININT64, -1, &negative, NULL)) {
        return json_node_init_int(json_node_alloc(), negative);
    }
    if (tool_parse_size(text, &number) < 0) {
        blk_error(error, -EINVAL, "'%s' is a number, with k, M, G, T, P or E for powers of 1024, not '%s'", key, text);
        return NULL;
    }
    return json_node_init_int(json_node_alloc(), (gint64)number);
}

/* @key: for messages. */
static JsonNode *convert_text(const CtlSchema *schema, const char *type, const char *key, const char *text,
                              GError **error)
{
    const char *json_type = ctl_schema_json_type(schema, type);
    JsonObject *entity = ctl_schema_find(schema, type);
    bool is_alternate = ctl_schema_is(entity, "alternate"), is_json = *text == '{' || *text == '[';

    if (strcmp(json_type, "boolean") == 0) {
        return convert_bool(key, text, error);
    }
    if (strcmp(json_type, "int") == 0) {
        return convert_int(key, text, error);
    }
    if (ctl_schema_is(entity, "object") || ctl_schema_is(entity, "array") || (is_alternate && is_json)) {
        return blk_json_parse(text, strlen(text), key, error);
    }
    if (strcmp(json_type, "string") == 0 || ctl_schema_is(entity, "enum") ||
        (is_alternate && strcmp(text, "null") != 0)) {
        return string_node(text);
    }
    return guess(text);
}

static JsonObject *convert_object(const CtlSchema *schema, const char *type, const char *path, JsonObject *object,
                                  GError **error);

/* @node: a text, or an object or list of such. */
static JsonNode *convert(const CtlSchema *schema, const char *type, const char *key, JsonNode *node, GError **error)
{
    JsonObject *object;
    JsonArray *array;

    if (JSON_NODE_HOLDS_OBJECT(node)) {
        object = convert_object(schema, type, key, json_node_get_object(node), error);
        return object ? json_node_init_object(json_node_alloc(), object) : NULL;
    }
    if (!JSON_NODE_HOLDS_ARRAY(node)) {
        return convert_text(schema, type, key, json_node_get_string(node), error);
    }
    array = json_array_new();
    for (guint i = 0; i < json_array_get_length(json_node_get_array(node)); i++) {
        JsonNode *element = json_array_get_element(json_node_get_array(node), i);
        g_autofree char *name = g_strdup_printf("%s.%u", key, i);
        JsonNode *converted = convert(schema, ctl_schema_step(schema, type, name, NULL), name, element, error);

        if (!converted) {
            json_array_unref(array);
            return NULL;
        }
        json_array_add_element(array, converted);
    }
    node = json_node_new(JSON_NODE_ARRAY);
    json_node_take_array(node, array);
    return node;
}

/* @path: where it stands, for messages. (transfer full) */
static JsonObject *convert_object(const CtlSchema *schema, const char *type, const char *path, JsonObject *object,
                                  GError **error)
{
    g_autoptr(JsonObject) converted = json_object_new();
    JsonObjectIter iter;
    const char *name;
    JsonNode *value;

    json_object_iter_init_ordered(&iter, object);
    while (json_object_iter_next_ordered(&iter, &name, &value)) {
        g_autofree char *key = *path ? g_strdup_printf("%s.%s", path, name) : g_strdup(name);
        JsonNode *node = convert(schema, ctl_schema_step(schema, type, name, object), key, value, error);

        if (!node) {
            return NULL;
        }
        json_object_set_member(converted, name, node);
    }
    return g_steal_pointer(&converted);
}

/* ---- words ---- */

/* The words as one list; a value that is JSON has commas of its own. (transfer full) */
static char *join(char **words)
{
    GString *text = g_string_new(NULL);

    for (; *words; words++) {
        const char *equals = strchr(*words, '=');
        bool is_json = equals && (equals[1] == '{' || equals[1] == '[');

        g_string_append(text, text->len > 0 ? "," : "");
        for (const char *p = *words; *p; p++) {
            g_string_append(text, is_json && *p == ',' ? ",," : (char[]) { *p, '\0' });
        }
    }
    return g_string_free(text, FALSE);
}

JsonObject *ctl_words_to_texts(const CtlSchema *schema, const char *command, char **words, GError **error)
{
    g_autofree char *text = join(words);

    return blk_options_parse_keyval(text, ctl_schema_implied_key(schema, command), error);
}

JsonObject *ctl_parse_arguments(const CtlSchema *schema, const char *command, char **words, GError **error)
{
    g_autoptr(JsonObject) texts = NULL;

    if (words[0] && words[0][0] == '{') {
        if (words[1]) {
            blk_error(error, -EINVAL, "nothing can follow the arguments in JSON, but '%s' does", words[1]);
            return NULL;
        }
        return blk_json_parse_object(words[0], -1, "arguments", error);
    }
    texts = ctl_words_to_texts(schema, command, words, error);
    return texts ? convert_object(schema, ctl_schema_arguments(schema, command), "", texts, error) : NULL;
}
