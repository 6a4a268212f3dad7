/* SPDX-License-Identifier: MIT */
/*
 * help.c - what there is for each option that makes something: `--blockdev help`, `--blockdev qcow2,help`. Made from the
 * tables by which the options are parsed.
 */
#include "daemon/chardev.h"
#include "daemon/monitor.h"

#include "core/object.h"
#include "core/options.h"

#include <stdio.h>
#include <string.h>

typedef struct Topic {
    const char *key;                /* that names the type: "driver" */
    const char *title;              /* (nullable): of the list of types; NULL: there are none */
    const BlkOption *common;        /* options of all types */
    /* Type number @index: its name, help (out), and its own options (out) (nullable). NULL ends the list. */
    const char *(*nth)(BlkContext *ctx, unsigned index, const char **help, const BlkOption **options);
} Topic;

static const char *nth_driver(BlkContext *ctx, unsigned index, const char **help, const BlkOption **options)
{
    const BlkDriver *driver = blk_driver_nth(ctx, index);

    *help = driver ? driver->help : NULL;
    *options = driver ? driver->options : NULL;
    return driver ? driver->name : NULL;
}

static const char *nth_chardev(BlkContext *ctx, unsigned index, const char **help, const BlkOption **options)
{
    const ChardevType *type = chardev_type_nth(index);

    *help = type ? type->help : NULL;
    *options = type ? type->options : NULL;
    return type ? type->name : NULL;
}

static const char *nth_object(BlkContext *ctx, unsigned index, const char **help, const BlkOption **options)
{
    const BlkObjectType *type = blk_object_type_nth(index);

    *help = type ? type->help : NULL;
    *options = type ? type->options : NULL;
    return type ? type->name : NULL;
}

static const char *nth_export(BlkContext *ctx, unsigned index, const char **help, const BlkOption **options)
{
    const char *name = daemon_export_variants.nth(NULL, index);

    *help = "a node for NBD clients; needs --nbd-server";
    *options = name ? daemon_export_variants.table(NULL, name) : NULL;
    return name;
}

static const Topic topics[] = {
    [DAEMON_OPTION_BLOCKDEV]   = { "driver", "Drivers", blk_node_options, nth_driver },
    [DAEMON_OPTION_CHARDEV]    = { "backend", "Available chardev backend types", chardev_options, nth_chardev },
    [DAEMON_OPTION_EXPORT]     = { "type", "Types of exports", daemon_export_options, nth_export },
    [DAEMON_OPTION_MONITOR]    = { NULL, NULL, monitor_options, NULL },
    [DAEMON_OPTION_NBD_SERVER] = { NULL, NULL, daemon_nbd_server_options, NULL },
    [DAEMON_OPTION_OBJECT]     = { "qom-type", "List of user creatable objects", blk_object_options, nth_object },
};

static void print_table(const char *title, const BlkOption *table)
{
    g_autoptr(GString) text = g_string_new(NULL);

    blk_options_describe(table, text);
    printf("%s:\n%s", title, text->str);
}

static void print_types(const Topic *topic, BlkContext *ctx)
{
    const char *name, *help;
    const BlkOption *options;

    printf("%s:\n", topic->title);
    for (unsigned i = 0; (name = topic->nth(ctx, i, &help, &options)); i++) {
        printf("  %-18s - %s\n", name, help);
    }
}

/* false: there is no such type. */
static bool print_type(const Topic *topic, BlkContext *ctx, const char *wanted)
{
    g_autofree char *title = g_strdup_printf("%s options", wanted);
    const char *name, *help;
    const BlkOption *options;

    for (unsigned i = 0; (name = topic->nth(ctx, i, &help, &options)); i++) {
        if (strcmp(name, wanted) == 0) {
            print_table("Options of all types", topic->common);
            if (options) {
                print_table(title, options);
            }
            return true;
        }
    }
    return false;
}

/* The type that is asked about: (transfer full); NULL: none is. */
static char *help_subject(const Topic *topic, const char *text)
{
    g_autoptr(JsonObject) options = *text == '{' || !topic->key ? NULL : blk_options_parse_keyval(text, topic->key, NULL);

    const char *type = options ? json_object_get_string_member_with_default(options, topic->key, "") : "";

    if (!options || !(json_object_has_member(options, "help") || json_object_has_member(options, "?") || tool_is_help(type))) {
        return NULL;
    }
    return g_strdup(type);
}

bool daemon_print_help(const DaemonOption *option)
{
    const Topic *topic = &topics[option->kind];
    g_autofree char *subject = help_subject(topic, option->text);
    g_autoptr(BlkContext) ctx = NULL;

    if (!subject && !tool_is_help(option->text)) {
        return false;
    }
    ctx = blk_context_new("threads", NULL);
    if (!topic->nth) {
        print_table("Options", topic->common);
        return true;
    }
    if (!subject || tool_is_help(subject)) {
        print_types(topic, ctx);
        return true;
    }
    return print_type(topic, ctx, subject);
}
