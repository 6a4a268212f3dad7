/* SPDX-License-Identifier: MIT */
/*
 * object.c - the option --object of all tools.
 */
#include "common/tool.h"

#include "core/object.h"
#include "core/options.h"

#include <stdio.h>

static void print_types(void)
{
    const BlkObjectType *type;

    printf("List of user creatable objects:\n");
    for (unsigned i = 0; (type = blk_object_type_nth(i)); i++) {
        printf("  %-16s - %s\n", type->name, type->help);
    }
}

static void print_type(const BlkObjectType *type)
{
    g_autoptr(GString) text = g_string_new(NULL);

    blk_options_describe(type->options, text);
    printf("%s options:\n%s", type->name, text->str);
}

/* "help", and "TYPE,help" for a type that is known. */
bool tool_print_object_help(const char *text)
{
    const char *comma = strchr(text, ',');
    g_autofree char *name = g_strndup(text, comma ? comma - text : 0);
    const BlkObjectType *type = comma && tool_is_help(comma + 1) ? blk_object_type_find(name) : NULL;

    if (tool_is_help(text)) {
        print_types();
    } else if (type) {
        print_type(type);
    }
    return tool_is_help(text) || type;
}

int tool_add_object(BlkContext *ctx, const char *text)
{
    g_autoptr(JsonObject) options = NULL;
    GError *error = NULL;

    if (tool_print_object_help(text)) {
        return 1;
    }
    options = blk_options_parse_keyval(text, "qom-type", &error);
    if (!options || blk_object_add(ctx, options, &error) < 0) {
        tool_report(error);
        return -1;
    }
    return 0;
}

int tool_add_objects(BlkContext *ctx, const GPtrArray *texts)
{
    int ret = 0;

    for (guint i = 0; i < texts->len && ret == 0; i++) {
        ret = tool_add_object(ctx, texts->pdata[i]);
    }
    return ret;
}
