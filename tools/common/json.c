/* SPDX-License-Identifier: MIT */
/*
 * json.c - JSON over several lines, as the peer prints it: for people, and for scripts that compare its text.
 */
#include "common/tool.h"

static void append_char(GString *out, gunichar c)
{
    if (c == '"' || c == '\\') {
        g_string_append_printf(out, "\\%c", (char)c);
    } else if (c == '\n') {
        g_string_append(out, "\\n");
    } else if (c == '\t') {
        g_string_append(out, "\\t");
    } else if (c >= 0x20 && c < 0x7f) {
        g_string_append_c(out, (char)c);
    } else if (c < 0x10000) {
        g_string_append_printf(out, "\\u%04X", c);
    } else {
        g_string_append_printf(out, "\\u%04X\\u%04X", 0xd800 + ((c - 0x10000) >> 10), 0xdc00 + (c & 0x3ff));
    }
}

static void append_string(GString *out, const char *text)
{
    g_autofree char *valid = g_utf8_make_valid(text, -1);

    g_string_append_c(out, '"');
    for (const char *p = valid; *p; p = g_utf8_next_char(p)) {
        append_char(out, g_utf8_get_char(p));
    }
    g_string_append_c(out, '"');
}

static void append_line(GString *out, unsigned depth, bool first)
{
    g_string_append_printf(out, "%s\n%*s", first ? "" : ",", depth * 4, "");
}

static void append_node(GString *out, JsonNode *node, unsigned depth);

static void append_object(GString *out, JsonObject *object, unsigned depth)
{
    JsonObjectIter iter;
    const char *name;
    JsonNode *value;
    bool first = true;

    g_string_append_c(out, '{');
    json_object_iter_init_ordered(&iter, object);
    while (json_object_iter_next_ordered(&iter, &name, &value)) {
        append_line(out, depth + 1, first);
        append_string(out, name);
        g_string_append(out, ": ");
        append_node(out, value, depth + 1);
        first = false;
    }
    append_line(out, depth, true);
    g_string_append_c(out, '}');
}

static void append_array(GString *out, JsonArray *array, unsigned depth)
{
    g_string_append_c(out, '[');
    for (unsigned i = 0; i < json_array_get_length(array); i++) {
        append_line(out, depth + 1, i == 0);
        append_node(out, json_array_get_element(array, i), depth + 1);
    }
    append_line(out, depth, true);
    g_string_append_c(out, ']');
}

static void append_value(GString *out, JsonNode *node)
{
    GType type = json_node_get_value_type(node);

    if (type == G_TYPE_STRING) {
        append_string(out, json_node_get_string(node));
    } else if (type == G_TYPE_BOOLEAN) {
        g_string_append(out, json_node_get_boolean(node) ? "true" : "false");
    } else if (type == G_TYPE_DOUBLE) {
        char text[G_ASCII_DTOSTR_BUF_SIZE];

        g_string_append(out, g_ascii_dtostr(text, sizeof(text), json_node_get_double(node)));
    } else {
        g_string_append_printf(out, "%" G_GINT64_FORMAT, json_node_get_int(node));
    }
}

static void append_node(GString *out, JsonNode *node, unsigned depth)
{
    switch (json_node_get_node_type(node)) {
    case JSON_NODE_OBJECT:
        append_object(out, json_node_get_object(node), depth);
        break;
    case JSON_NODE_ARRAY:
        append_array(out, json_node_get_array(node), depth);
        break;
    case JSON_NODE_NULL:
        g_string_append(out, "null");
        break;
    case JSON_NODE_VALUE:
        append_value(out, node);
        break;
    }
}

void tool_json_pretty(GString *out, JsonNode *node)
{
    append_node(out, node, 0);
}
