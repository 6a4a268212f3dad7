/* SPDX-License-Identifier: MIT */
/*
 * tool.c - the messages of the tools.
 */
#include "common/tool.h"

#include <stdio.h>

void tool_set_program(const char *argv0)
{
    g_autofree char *base = g_path_get_basename(argv0 ? argv0 : "blkstack");

    g_set_prgname(base);
}

const char *tool_program(void)
{
    return g_get_prgname();
}

static void G_GNUC_PRINTF(2, 0) print_message(const char *kind, const char *format, va_list args)
{
    g_autofree char *text = g_strdup_vprintf(format, args);

    fflush(stdout);
    fprintf(stderr, "%s: %s%s\n", tool_program(), kind, text);
}

void tool_error(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    print_message("", format, args);
    va_end(args);
}

void tool_warning(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    print_message("warning: ", format, args);
    va_end(args);
}

void tool_node_message(BlkNode *node, const char *text, void *unused)
{
    tool_error("%s", text);
}

void tool_report(GError *error)
{
    tool_error("%s", error->message);
    g_error_free(error);
}

void tool_option_error(int c, char **argv)
{
    const char *word = argv[optind - 1];

    if (c == ':') {
        tool_error("missing argument for option '%s'", word);
    } else {
        tool_error("unrecognized option '%s'", word);
    }
}
