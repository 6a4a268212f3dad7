/* SPDX-License-Identifier: MIT */
/*
 * output.c - JSON and progress on standard output.
 *
 * Who sends SIGUSR1 is told the progress on standard error, whether -p was given or not. The signal is blocked and asked
 * for whenever there is progress, so no handler and no global state is needed.
 */
#include "img/img.h"

#include <signal.h>
#include <stdio.h>
#include <time.h>

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

void img_print_json(JsonNode *node)
{
    g_autoptr(GString) text = g_string_new(NULL);

    append_node(text, node, 0);
    puts(text->str);
}

static void show(ImgProgress *progress, double percent)
{
    if (progress->enabled) {
        printf("    (%3.2f/100%%)\r", percent);
        fflush(stdout);
    }
    progress->shown = percent;
}

static sigset_t progress_signals(void)
{
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    return signals;
}

static bool progress_asked(void)
{
    const sigset_t signals = progress_signals();
    const struct timespec at_once = { 0 };

    return sigtimedwait(&signals, NULL, &at_once) == SIGUSR1;
}

void img_progress_begin(ImgProgress *progress, bool enabled)
{
    const sigset_t signals = progress_signals();

    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    progress->enabled = enabled;
    show(progress, 0);
}

void img_progress_report(double fraction, void *opaque)
{
    ImgProgress *progress = opaque;
    double percent = CLAMP(fraction, 0, 1) * 100;

    if (percent >= progress->shown + 1 || (percent >= 100 && progress->shown < 100)) {
        show(progress, percent);
    }
    if (progress_asked()) {
        fprintf(stderr, "    (%3.2f/100%%)\n", percent);
    }
}

void img_progress_end(ImgProgress *progress)
{
    if (progress->enabled) {
        putchar('\n');
        fflush(stdout);
    }
}
