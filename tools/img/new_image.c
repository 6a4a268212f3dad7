/* SPDX-License-Identifier: MIT */
/*
 * new_image.c - the creation options of a format, for create and convert.
 */
#include "img/img.h"

#include "core/options.h"

#include <inttypes.h>
#include <stdio.h>

bool img_is_help(const char *text)
{
    g_auto(GStrv) words = g_strsplit(text, ",", -1);

    return g_strv_contains((const char *const *)words, "help") || g_strv_contains((const char *const *)words, "?");
}

const BlkDriver *img_find_create_driver(BlkContext *ctx, const char *format, GError **error)
{
    const BlkDriver *driver = blk_driver_find(ctx, format);

    if (!driver) {
        blk_error(error, -EINVAL, "Unknown file format '%s'", format);
        return NULL;
    }
    if (!driver->create_options || (driver->kind == BLK_FORMAT && !driver->co_create)) {
        blk_error(error, -ENOTSUP, "Format driver '%s' does not support image creation", driver->name);
        return NULL;
    }
    return driver;
}

static const char *type_text(BlkOptionType type)
{
    switch (type) {
    case BLK_OPTION_BOOL:
        return "bool (on/off)";
    case BLK_OPTION_UINT:
        return "num";
    case BLK_OPTION_SIZE:
        return "size";
    default:
        return "str";
    }
}

static int compare_lines(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void add_lines(GPtrArray *lines, const BlkOption *table)
{
    for (const BlkOption *option = table; option->name; option++) {
        g_autofree char *word = g_strdup_printf("%s=<%s>", option->name, type_text(option->type));

        g_ptr_array_add(lines, g_strdup_printf("  %-22s - %s", word, option->help));
    }
}

void img_print_options(const BlkOption *const *tables)
{
    g_autoptr(GPtrArray) lines = g_ptr_array_new_with_free_func(g_free);

    for (; *tables; tables++) {
        add_lines(lines, *tables);
    }
    g_ptr_array_sort(lines, compare_lines);
    for (unsigned i = 0; i < lines->len; i++) {
        puts(g_ptr_array_index(lines, i));
    }
}

const BlkOption *img_protocol_options(BlkContext *ctx, const char *filename, const BlkDriver *format)
{
    static const BlkOption none[] = { { NULL } };
    g_autoptr(JsonObject) tree = blk_filename_parse_protocol(ctx, filename, NULL);
    const BlkDriver *driver = tree ? blk_driver_find(ctx, json_object_get_string_member(tree, "driver")) : NULL;
    const BlkOption *option = driver && driver->create_options ? driver->create_options : none;

    /* Those that formats have too, of other meaning, come first. */
    while (option->name && img_has_create_option(format, option->name)) {
        option++;
    }
    return option;
}

int img_print_create_help(BlkContext *ctx, const char *format, const char *filename)
{
    GError *error = NULL;
    const BlkDriver *driver = img_find_create_driver(ctx, format, &error);

    if (!driver) {
        tool_report(error);
        return 1;
    }
    const BlkOption *tables[] = { driver->create_options, NULL, NULL };
    if (filename) {
        printf("Supported options:\n");
        tables[1] = img_protocol_options(ctx, filename, driver);
    } else {
        printf("Supported %s options:\n", driver->name);
    }
    img_print_options(tables);
    return 0;
}

static void replace_member(JsonObject *object, const char *key, JsonNode *value, gpointer opaque)
{
    JsonObject *options = opaque;

    json_object_set_member(options, key, json_node_copy(value));
}

/* A comma that is doubled belongs to a value. */
static bool is_option_list(const char *text)
{
    size_t commas = 0;

    for (const char *p = text + strlen(text); p > text && p[-1] == ','; p--) {
        commas++;
    }
    return *text != '\0' && *text != ',' && commas % 2 == 0;
}

bool img_take_create_options(ImgArgs *args, JsonObject *options, const char *text, bool *help)
{
    g_autoptr(JsonObject) more = NULL;
    GError *error = NULL;

    if (help && (*help |= img_is_help(text))) {
        return true;
    }
    if (!is_option_list(text)) {
        blk_error(&error, -EINVAL, "Invalid option list: %s", text);
    } else {
        more = blk_options_parse_keyval(text, NULL, &error);
    }
    if (!more) {
        tool_report(error);
        args->status = 1;
        return false;
    }
    json_object_foreach_member(more, replace_member, options);
    return true;
}

/* The old way to write `lazy_refcounts=off` is `nolazy_refcounts`. */
static void expand_negations(JsonObject *options, const BlkOption *const *tables)
{
    for (; *tables; tables++) {
        for (const BlkOption *option = *tables; option->name; option++) {
            g_autofree char *negated = g_strconcat("no", option->name, NULL);

            if (option->type == BLK_OPTION_BOOL && json_object_has_member(options, negated)) {
                json_object_remove_member(options, negated);
                json_object_set_string_member(options, option->name, "off");
            }
        }
    }
}

BlkOptions *img_parse_create_options(BlkContext *ctx, const BlkDriver *driver, const char *filename, JsonObject *options,
                                     GError **error)
{
    const BlkOption *const tables[] = { driver->create_options, img_protocol_options(ctx, filename, driver), NULL };
    g_autofree char *what = g_strdup_printf("format '%s'", driver->name);

    expand_negations(options, tables);
    return blk_options_parse(tables, options, what, error);
}

bool img_has_create_option(const BlkDriver *driver, const char *name)
{
    return blk_options_table_has(driver->create_options, name);
}
