/* SPDX-License-Identifier: MIT */
/*
 * amend.c - blkstack-img amend.
 */
#include "img/img.h"

#include <stdio.h>

typedef struct AmendArgs {
    ImgArgs common;
    const char *cache_mode;     /* -t */
    bool has_options, help;
    JsonObject *options;        /* -o */
    ImgProgress progress;
} AmendArgs;

static bool add_options(AmendArgs *args, const char *text)
{
    args->has_options = true;
    return img_take_create_options(&args->common, args->options, text, &args->help);
}

static bool parse_args(AmendArgs *args, int argc, char **argv)
{
    enum { OPTION_FORCE = IMG_OPTION_OWN };
    static const struct option long_options[] = {
        IMG_LONG_COMMON, IMG_LONG_FORMAT, IMG_LONG_IMAGE_OPTS,
        { "force", no_argument, NULL, OPTION_FORCE },
        IMG_LONG_END,
    };
    int c;

    while ((c = img_next_option(&args->common, argc, argv, ":f:ho:pqt:", long_options)) != -1) {
        if (c == IMG_STOP || (c == 'o' && !add_options(args, optarg))) {
            return false;
        }
        if (c == 't') {
            args->cache_mode = optarg;
        }
    }
    args->common.status = 1;
    if (!args->has_options) {
        img_usage_error("Must specify options (-o)");
        return false;
    }
    if (optind == argc && args->help && args->common.open.format) {
        return true;            /* the format is all that help needs */
    }
    if (optind != argc - 1) {
        tool_error("Expecting one image file name");
        return false;
    }
    if (args->cache_mode && !tool_parse_cache(args->cache_mode, &args->common.open.cache)) {
        tool_error("Invalid cache option: %s", args->cache_mode);
        return false;
    }
    args->common.open.name = argv[optind];
    args->common.open.writable = args->common.open.resizable = true;
    return img_args_valid(&args->common, 1);
}

static int print_help(BlkContext *ctx, const char *format)
{
    const BlkDriver *driver = blk_driver_find(ctx, format);

    if (!driver) {
        tool_error("Unknown file format '%s'", format);
        return 1;
    }
    if (!driver->amend_options) {
        tool_error("Format driver '%s' does not support option amendment", driver->name);
        return 1;
    }
    printf("Amend options for '%s':\n", driver->name);
    img_print_options((const BlkOption *const[]) { driver->amend_options, NULL });
    return 0;
}

static int amend(BlkNode *node, void *opaque)
{
    AmendArgs *args = opaque;
    BlkAmendOptions options = { .options = args->options, .progress = img_progress_report, .opaque = &args->progress };
    GError *error = NULL;
    int ret;

    if (args->help) {
        return print_help(blk_node_context(node), blk_node_driver_name(node));
    }
    img_progress_begin(&args->progress, args->common.progress && !args->common.quiet);
    ret = blk_co_amend(node, &options, &error);
    if (ret == 0) {
        img_progress_report(1, &args->progress);
    }
    img_progress_end(&args->progress);
    if (ret < 0) {
        tool_report(error);
        return 1;
    }
    return 0;
}

int img_amend(BlkContext *ctx, int argc, char **argv)
{
    g_autoptr(JsonObject) options = json_object_new();
    AmendArgs args = { .options = options };

    if (!parse_args(&args, argc, argv)) {
        return args.common.status;
    }
    if (!args.common.open.name) {
        return print_help(ctx, args.common.open.format);
    }
    return img_co_on_image(ctx, &args.common, amend, &args);
}
