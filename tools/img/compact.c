/* SPDX-License-Identifier: MIT */
/*
 * compact.c - blkstack-img compact.
 */
#include "img/img.h"

#include <stdio.h>

typedef struct CompactArgs {
    ImgArgs common;
    BlkCompactOptions options;
} CompactArgs;

static bool parse_args(CompactArgs *args, int argc, char **argv)
{
    enum { OPTION_NO_COMPRESS = IMG_OPTION_OWN };
    static const struct option long_options[] = {
        IMG_LONG_COMMON, IMG_LONG_FORMAT, IMG_LONG_IMAGE_OPTS,
        { "no-compress", no_argument, NULL, OPTION_NO_COMPRESS },
        IMG_LONG_END,
    };
    int c;

    while ((c = img_next_option(&args->common, argc, argv, ":f:hpqT:", long_options)) != -1) {
        if (c == IMG_STOP) {
            return false;
        }
        if (c == OPTION_NO_COMPRESS) {
            args->options.no_compress = true;
        }
    }
    if (optind != argc - 1) {
        args->common.status = img_usage_error("Expecting one image file name");
        return false;
    }
    args->common.open.name = argv[optind];
    args->common.open.writable = args->common.open.resizable = true;
    return img_args_valid(&args->common, 1);
}

/* What the image takes on the host; 0 if nobody knows. */
static uint64_t allocated_bytes(BlkNode *node)
{
    BlkInfo info = { 0 };
    uint64_t bytes = 0;

    if (blk_co_info(node, &info, NULL) == 0) {
        bytes = info.has_allocated ? info.allocated_bytes : 0;
        blk_info_clear(&info);
    }
    return bytes;
}

static int compact_node(BlkNode *node, void *opaque)
{
    CompactArgs *args = opaque;
    ImgProgress progress;
    GError *error = NULL;
    uint64_t before = allocated_bytes(node);

    img_progress_begin(&progress, args->common.progress);
    args->options.progress = img_progress_report;
    args->options.opaque = &progress;
    int ret = blk_co_compact(node, &args->options, &error);
    img_progress_end(&progress);
    if (ret < 0) {
        g_prefix_error(&error, "Could not compact '%s': ", blk_node_filename(node));
        tool_report(error);
        return 1;
    }
    if (!args->common.quiet) {
        g_autofree char *old = tool_size_text(before), *new = tool_size_text(allocated_bytes(node));
        printf("Image compacted: %s before, %s now.\n", old, new);
    }
    return 0;
}

int img_compact(BlkContext *ctx, int argc, char **argv)
{
    CompactArgs args = { .options.no_compress = false };

    return parse_args(&args, argc, argv) ? img_co_on_image(ctx, &args.common, compact_node, &args) : args.common.status;
}
