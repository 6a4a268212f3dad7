/* SPDX-License-Identifier: MIT */
/*
 * create.c - blkstack-img create.
 */
#include "img/img.h"

#include "core/options.h"

#include <inttypes.h>
#include <stdio.h>

typedef struct CreateArgs {
    ImgArgs common;
    const char *format;             /* -f */
    const char *filename;
    const char *backing, *backing_format;
    bool unsafe;                    /* -u: the backing file need not be there */
    bool help;                      /* -o help */
    bool has_size;
    uint64_t size;
    JsonObject *options;            /* -o */
} CreateArgs;

static bool fail(CreateArgs *args, int status)
{
    args->common.status = status;
    return false;
}

static bool parse_options(CreateArgs *args, int argc, char **argv)
{
    static const struct option long_options[] = { IMG_LONG_COMMON, IMG_LONG_END };
    int c;

    while ((c = img_next_option(&args->common, argc, argv, ":F:b:f:ho:qu", long_options)) != -1) {
        switch (c) {
        case IMG_STOP:
            return false;
        case 'F':
            args->backing_format = optarg;
            break;
        case 'b':
            args->backing = optarg;
            break;
        case 'o':
            if (!img_take_create_options(&args->common, args->options, optarg, &args->help)) {
                return false;
            }
            break;
        default:
            args->unsafe = true;
            break;
        }
    }
    args->format = args->common.open.format ? args->common.open.format : "raw";
    return true;
}

static bool parse_args(CreateArgs *args, int argc, char **argv)
{
    if (!parse_options(args, argc, argv)) {
        return false;
    }
    args->filename = optind < argc ? argv[optind++] : NULL;
    if (args->help) {
        return true;
    }
    if (!args->filename) {
        return fail(args, img_usage_error("Expecting image file name"));
    }
    if (optind < argc) {
        args->has_size = true;
        if (!img_parse_size("image size", argv[optind++], 0, INT64_MAX, &args->size)) {
            return fail(args, 1);
        }
    }
    if (optind < argc) {
        return fail(args, img_usage_error("Unexpected argument: %s", argv[optind]));
    }
    return true;
}

/* Puts -b, -F and the size where the format expects them. */
static int merge_options(const CreateArgs *args, const BlkDriver *driver, GError **error)
{
    if (args->has_size) {
        if (json_object_has_member(args->options, "size")) {
            return blk_error(error, -EINVAL, "The image size must be specified only once");
        }
        json_object_set_int_member(args->options, "size", args->size);
    }
    if (args->backing) {
        if (!img_has_create_option(driver, "backing_file")) {
            return blk_error(error, -ENOTSUP, "Backing file not supported for file format '%s'", driver->name);
        }
        json_object_set_string_member(args->options, "backing_file", args->backing);
    }
    if (args->backing_format) {
        if (!img_has_create_option(driver, "backing_fmt")) {
            return blk_error(error, -ENOTSUP, "Backing file format not supported for file format '%s'", driver->name);
        }
        json_object_set_string_member(args->options, "backing_fmt", args->backing_format);
    }
    return 0;
}

static const char *string_option(const BlkDriver *driver, const BlkOptions *options, const char *name)
{
    return img_has_create_option(driver, name) && blk_options_has(options, name) ? blk_options_string(options, name)
                                                                                 : NULL;
}

/* Opens the backing file as the new image will: its length, and what its format turned out to be. */
static int look_at_backing(BlkContext *ctx, const CreateArgs *args, const char *backing, const char *format,
                           uint64_t *length, char **found_format, GError **error)
{
    g_autofree char *name = blk_filename_resolve(args->filename, backing, error);
    ToolOpen open = { .name = name, .format = format };
    g_autoptr(JsonObject) tree = name ? tool_open_options(ctx, &open, error) : NULL;
    BlkNode *node = tree ? blk_co_open(ctx, tree, error) : NULL;

    if (!node) {
        if (error && *error) {
            g_autofree char *text = g_strconcat((*error)->message, "\nCould not open backing image.", NULL);

            g_free((*error)->message);
            (*error)->message = g_steal_pointer(&text);
        }
        return -EINVAL;
    }
    *length = blk_node_length(node);
    *found_format = g_strdup(blk_node_driver_name(node));
    blk_co_unref(node);
    return 0;
}

static int check_backing(BlkContext *ctx, const CreateArgs *args, const BlkDriver *driver, const BlkOptions *options,
                         GError **error)
{
    const char *backing = string_option(driver, options, "backing_file");
    const char *format = string_option(driver, options, "backing_fmt");
    g_autofree char *found_format = NULL;
    uint64_t length;

    if (!backing) {
        return 0;
    }
    if (*backing == '\0') {
        return blk_error(error, -EINVAL, "Expected backing file name, got empty string");
    }
    if (strcmp(backing, args->filename) == 0) {
        return blk_error(error, -EINVAL, "Error: Trying to create an image with the same filename as the backing file");
    }
    if (!args->unsafe) {
        if (look_at_backing(ctx, args, backing, format, &length, &found_format, error) < 0) {
            return -EINVAL;
        }
        if (format && !json_object_has_member(args->options, "size")) {
            json_object_set_int_member(args->options, "size", length);
        }
    }
    if (!format) {
        return blk_error(error, -EINVAL, "Backing file specified without backing format%s%s%s",
                         found_format ? "\nDetected format of " : "", found_format ? found_format : "",
                         found_format ? "." : "");
    }
    return 0;
}

static void append_value(GString *out, const BlkOption *option, const BlkOptions *options)
{
    switch (option->type) {
    case BLK_OPTION_BOOL:
        g_string_append(out, blk_options_bool(options, option->name) ? "on" : "off");
        break;
    case BLK_OPTION_UINT:
    case BLK_OPTION_SIZE:
        g_string_append_printf(out, "%" PRIu64, blk_options_uint(options, option->name));
        break;
    case BLK_OPTION_STRING:
    case BLK_OPTION_ENUM:
        for (const char *p = blk_options_string(options, option->name); *p; p++) {
            g_string_append(out, *p == ',' ? ",," : (char[]) { *p, '\0' });
        }
        break;
    case BLK_OPTION_NODE:
    case BLK_OPTION_JSON:
        g_string_append(out, "{...}");
        break;
    }
}

/* Defaults that scripts do not expect in the line. */
static bool is_silent_default(const char *name)
{
    static const char *const names[] = { "compat", "data_file_raw", "encryption", "extent_size_hint", "nocow", "preallocation",
                                        NULL };

    return g_strv_contains(names, name);
}

/* All that is given or has a default, in the order of the table. */
static void append_options(GString *text, const BlkOption *table, const BlkOptions *options)
{
    for (const BlkOption *option = table; option->name; option++) {
        if (blk_options_has(options, option->name) || (option->default_text && !is_silent_default(option->name))) {
            g_string_append_printf(text, " %s=", option->name);
            append_value(text, option, options);
        }
    }
}

static void print_formatting(BlkContext *ctx, const CreateArgs *args, const BlkDriver *driver, const BlkOptions *options)
{
    g_autoptr(GString) text = g_string_new(NULL);

    append_options(text, driver->create_options, options);
    append_options(text, img_protocol_options(ctx, args->filename, driver), options);
    printf("Formatting '%s', fmt=%s%s\n", args->filename, driver->name, text->str);
    fflush(stdout);
}

/* The options before it is known how long the image will be. */
static BlkOptions *parse_given(BlkContext *ctx, const CreateArgs *args, const BlkDriver *driver, GError **error)
{
    bool has_size = json_object_has_member(args->options, "size");
    BlkOptions *given;

    if (!has_size) {
        json_object_set_int_member(args->options, "size", 0);       /* the table may require one */
    }
    given = img_parse_create_options(ctx, driver, args->filename, args->options, error);
    if (!has_size) {
        json_object_remove_member(args->options, "size");
    }
    return given;
}

static int create_image(BlkContext *ctx, const CreateArgs *args, GError **error)
{
    const BlkDriver *driver = img_find_create_driver(ctx, args->format, error);
    g_autoptr(BlkOptions) given = NULL;
    g_autoptr(BlkOptions) complete = NULL;

    if (!driver || merge_options(args, driver, error) < 0) {
        return -EINVAL;
    }
    given = parse_given(ctx, args, driver, error);
    if (!given || check_backing(ctx, args, driver, given, error) < 0) {
        return -EINVAL;
    }
    if (!json_object_has_member(args->options, "size")) {
        return blk_error(error, -EINVAL, "Image creation needs a size parameter");
    }
    complete = img_parse_create_options(ctx, driver, args->filename, args->options, error);
    if (!complete) {
        return -EINVAL;
    }
    if (!args->common.quiet) {
        print_formatting(ctx, args, driver, complete);
    }
    return blk_co_create(ctx, args->filename, args->format, args->options, error);
}

int img_create(BlkContext *ctx, int argc, char **argv)
{
    g_autoptr(JsonObject) options = json_object_new();
    CreateArgs args = { .options = options };
    GError *error = NULL;

    if (!parse_args(&args, argc, argv)) {
        return args.common.status;
    }
    if (args.help) {
        return img_print_create_help(ctx, args.format, args.filename);
    }
    if (create_image(ctx, &args, &error) < 0) {
        g_prefix_error(&error, "%s: ", args.filename);
        tool_report(error);
        return 1;
    }
    return 0;
}
