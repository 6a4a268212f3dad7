/* SPDX-License-Identifier: MIT */
/*
 * dump.c - prints JSON as indented lines for people.
 */
#include "common/tool.h"

#include <inttypes.h>
#include <stdio.h>

static void print_value(JsonNode *value, unsigned depth);

char *tool_printable(const char *name)
{
    char *text = g_strdup(name);

    for (char *p = text; *p; p++) {
        if (g_ascii_iscntrl(*p)) {
            *p = '?';
        }
    }
    return text;
}

void tool_print_members(JsonObject *object, unsigned depth)
{
    JsonObjectIter iter;
    const char *name;
    JsonNode *value;

    json_object_iter_init_ordered(&iter, object);
    while (json_object_iter_next_ordered(&iter, &name, &value)) {
        g_autofree char *label = g_strdelimit(g_strdup(name), "-", ' ');

        printf("%*s%s:", depth * 4, "", label);
        print_value(value, depth);
    }
}

static void print_elements(JsonArray *array, unsigned depth)
{
    for (unsigned i = 0; i < json_array_get_length(array); i++) {
        printf("%*s[%u]:", depth * 4, "", i);
        print_value(json_array_get_element(array, i), depth);
    }
}

/* The rest of the line that begins with the label, and what is below it. */
static void print_value(JsonNode *value, unsigned depth)
{
    if (JSON_NODE_HOLDS_OBJECT(value)) {
        putchar('\n');
        tool_print_members(json_node_get_object(value), depth + 1);
    } else if (JSON_NODE_HOLDS_ARRAY(value)) {
        putchar('\n');
        print_elements(json_node_get_array(value), depth + 1);
    } else if (JSON_NODE_HOLDS_NULL(value)) {
        printf(" null\n");
    } else if (json_node_get_value_type(value) == G_TYPE_STRING) {
        g_autofree char *text = tool_printable(json_node_get_string(value));

        printf(" %s\n", text);
    } else if (json_node_get_value_type(value) == G_TYPE_BOOLEAN) {
        printf(" %s\n", json_node_get_boolean(value) ? "true" : "false");
    } else {
        printf(" %" PRId64 "\n", (int64_t)json_node_get_int(value));
    }
}
