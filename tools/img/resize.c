/* SPDX-License-Identifier: MIT */
/*
 * resize.c - blkstack-img resize.
 */
#include "img/img.h"

#include <stdio.h>

typedef struct ResizeArgs {
    ImgArgs common;
    BlkPrealloc prealloc;
    bool shrink;
    char sign;              /* '+' or '-': the size is relative; 0: it is not */
    uint64_t size;
} ResizeArgs;

static bool parse_prealloc(ResizeArgs *args, const char *text)
{
    static const char *const modes[] = { "off", "metadata", "falloc", "full" };

    for (unsigned i = 0; i < G_N_ELEMENTS(modes); i++) {
        if (strcmp(text, modes[i]) == 0) {
            args->prealloc = BLK_PREALLOC_OFF + i;
            return true;
        }
    }
    tool_error("Invalid preallocation mode '%s'", text);
    args->common.status = 1;
    return false;
}

static bool parse_new_size(ResizeArgs *args, const char *text)
{
    int ret;

    if (*text == '+' || *text == '-') {
        args->sign = *text++;
    }
    ret = tool_parse_size(text, &args->size);
    if (ret == -ERANGE) {
        tool_error("New image size must be at most %" G_GUINT64_FORMAT " bytes", BLK_MAX_LENGTH);
    } else if (ret < 0) {
        tool_error("Parameter 'size' expects a non-negative number below 2^64\n"
                   "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
                   "and exabytes, respectively.");
    }
    if (ret < 0) {
        args->common.status = 1;
        return false;
    }
    return true;
}

static bool parse_args(ResizeArgs *args, int argc, char **argv)
{
    enum { OPTION_PREALLOCATION = IMG_OPTION_OWN, OPTION_SHRINK };
    static const struct option long_options[] = {
        IMG_LONG_COMMON, IMG_LONG_FORMAT, IMG_LONG_IMAGE_OPTS,
        { "preallocation", required_argument, NULL, OPTION_PREALLOCATION },
        { "shrink", no_argument, NULL, OPTION_SHRINK },
        IMG_LONG_END,
    };
    const char *size;
    int c;

    if (argc < 3 && !(argc == 2 && (strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0))) {
        args->common.status = img_usage_error("Not enough arguments");
        return false;
    }
    /* The last argument is the size, also where it looks like an option: -1G. */
    size = argc >= 3 ? argv[--argc] : NULL;
    while ((c = img_next_option(&args->common, argc, argv, ":f:hq", long_options)) != -1) {
        if (c == IMG_STOP || (c == OPTION_PREALLOCATION && !parse_prealloc(args, optarg))) {
            return false;
        }
        if (c == OPTION_SHRINK) {
            args->shrink = true;
        }
    }
    if (optind != argc - 1) {
        args->common.status = img_usage_error("Expecting image file name and size");
        return false;
    }
    args->common.open.name = argv[optind];
    args->common.open.writable = args->common.open.resizable = true;
    return img_args_valid(&args->common, 1) && parse_new_size(args, size);
}

/* The length asked for: 0 if it were negative. Both operands are below 2^63. */
static uint64_t new_length(const ResizeArgs *args, uint64_t old_length)
{
    if (args->sign == '-') {
        return args->size < old_length ? old_length - args->size : 0;
    }
    return args->sign == '+' ? old_length + args->size : args->size;
}

static int resize_node(BlkNode *node, const ResizeArgs *args)
{
    uint64_t old_length = blk_node_length(node);
    uint64_t length = new_length(args, old_length);
    GError *error = NULL;

    if (length == 0) {
        tool_error("New image size must be positive");
        return 1;
    }
    if (length > BLK_MAX_LENGTH) {
        tool_error("New image size must be at most %" G_GUINT64_FORMAT " bytes", BLK_MAX_LENGTH);
        return 1;
    }
    if (length <= old_length && args->prealloc != BLK_PREALLOC_OFF) {
        tool_error("Preallocation can only be used for growing images");
        return 1;
    }
    if (length < old_length && !args->shrink) {
        tool_error("Use the --shrink option to perform a shrink operation.");
        tool_warning("What lies beyond the new end of the image is lost.");
        return 1;
    }
    if (blk_co_truncate(node, length, args->prealloc, &error) < 0) {
        tool_report(error);
        return 1;
    }
    if (!args->common.quiet) {
        printf("Image resized.\n");
    }
    return 0;
}

static int flush_node(BlkNode *node)
{
    int ret = blk_co_flush(node);

    if (ret < 0) {
        tool_error("Could not flush '%s': %s", blk_node_filename(node), g_strerror(-ret));
        return 1;
    }
    return 0;
}

static int resize_and_flush(BlkNode *node, void *opaque)
{
    int status = resize_node(node, opaque);

    return status == 0 ? flush_node(node) : status;
}

int img_resize(BlkContext *ctx, int argc, char **argv)
{
    ResizeArgs args = { .prealloc = BLK_PREALLOC_OFF };

    return parse_args(&args, argc, argv) ? img_co_on_image(ctx, &args.common, resize_and_flush, &args)
                                         : args.common.status;
}
