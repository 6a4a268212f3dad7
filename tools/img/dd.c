/* SPDX-License-Identifier: MIT */
/*
 * dd.c - blkstack-img dd: copies part of an image into a new one, with the operands of dd.
 */
#include "img/img.h"

#include "jobs/copy.h"

#include <inttypes.h>

typedef struct DdArgs {
    ImgArgs common;                     /* the source */
    const char *format;                 /* -O */
    const char *target;
    uint64_t block, count, skip;
    bool has_count;
} DdArgs;

/* A window of the source, which always takes up space in the target: dd looks for no zeroes. */
typedef struct Window {
    BlkSource source;
    BlkNode *node;
    uint64_t start;
} Window;

static bool set_operand(DdArgs *args, const char *operand)
{
    const char *value = strchr(operand, '=');
    g_autofree char *name = value ? g_strndup(operand, value - operand) : g_strdup(operand);

    if (value && strcmp(name, "if") == 0) {
        args->common.open.name = value + 1;
    } else if (value && strcmp(name, "of") == 0) {
        args->target = value + 1;
    } else if (value && strcmp(name, "bs") == 0) {
        return img_parse_size("bs", value + 1, 1, INT32_MAX, &args->block);
    } else if (value && strcmp(name, "count") == 0) {
        args->has_count = true;
        return img_parse_size("count", value + 1, 0, INT64_MAX, &args->count);
    } else if (value && strcmp(name, "skip") == 0) {
        return img_parse_size("skip", value + 1, 0, INT64_MAX, &args->skip);
    } else {
        tool_error("unrecognized operand %s", name);
        return false;
    }
    return true;
}

static bool parse_args(DdArgs *args, int argc, char **argv)
{
    static const struct option long_options[] = {
        IMG_LONG_COMMON, IMG_LONG_IMAGE_OPTS, IMG_LONG_FORCE_SHARE, IMG_LONG_END,
    };
    int c;

    while ((c = img_next_option(&args->common, argc, argv, ":hf:O:U", long_options)) != -1) {
        if (c == IMG_STOP) {
            return false;
        }
        args->format = optarg;
    }
    args->common.status = 1;
    for (; optind < argc; optind++) {
        if (!set_operand(args, argv[optind])) {
            return false;
        }
    }
    if (!args->common.open.name || !args->target) {
        tool_error("Must specify both input and output files");
        return false;
    }
    return img_args_valid(&args->common, 1);
}

static int window_co_extent(BlkSource *source, uint64_t offset, uint64_t bytes, BlkExtent *extent, GError **error)
{
    *extent = (BlkExtent) { .kind = BLK_EXTENT_DATA, .bytes = bytes };
    return 0;
}

static int window_co_read(BlkSource *source, uint64_t offset, uint64_t bytes, void *buf, GError **error)
{
    Window *w = (Window *)source;
    int ret = blk_co_pread(w->node, w->start + offset, bytes, buf, 0);

    return ret < 0 ? blk_error_errno(error, ret, "error while reading input image file") : 0;
}

/* The product, or the largest number. */
static uint64_t blocks_to_bytes(const DdArgs *args, uint64_t blocks)
{
    uint64_t bytes;

    return g_uint64_checked_mul(&bytes, blocks, args->block) ? bytes : UINT64_MAX;
}

static void set_window(Window *window, const DdArgs *args)
{
    uint64_t length = blk_node_length(window->node);

    window->start = blocks_to_bytes(args, args->skip);
    if (window->start > length) {
        tool_error("%s: cannot skip to specified offset", args->common.open.name);
        window->start = length;
    }
    window->source.length = length - window->start;
    if (args->has_count) {
        window->source.length = MIN(window->source.length, blocks_to_bytes(args, args->count));
    }
}

static int copy_into(BlkContext *ctx, const DdArgs *args, Window *window, GError **error)
{
    g_autoptr(JsonObject) options = json_object_new();
    ToolOpen open = { .name = args->target, .format = args->format, .writable = true };
    BlkChild *target;
    int ret;

    json_object_set_int_member(options, "size", (gint64)((window->source.length + 511) & ~UINT64_C(511)));
    ret = blk_co_create(ctx, args->target, args->format, options, error);
    if (ret < 0) {
        g_prefix_error(error, "%s: error while creating output image of type '%s': ", args->target, args->format);
        return ret;
    }
    target = tool_co_open(ctx, &open, error);
    if (!target) {
        return -EINVAL;
    }
    BlkCopy copy = {
        .source = &window->source,
        .target = target,
        .in_order = true,
        .workers = 8,
    };
    ret = blk_co_copy(&copy, error);
    blk_co_detach(target);
    return ret;
}

static int dd(BlkNode *node, void *opaque)
{
    const DdArgs *args = opaque;
    Window window = {
        .source = { .co_extent = window_co_extent, .co_read = window_co_read },
        .node = node,
    };
    GError *error = NULL;

    set_window(&window, args);
    if (copy_into(blk_node_context(node), args, &window, &error) < 0) {
        tool_report(error);
        return 1;
    }
    return 0;
}

int img_dd(BlkContext *ctx, int argc, char **argv)
{
    DdArgs args = { .format = "raw", .block = 512 };

    return parse_args(&args, argc, argv) ? img_co_on_image(ctx, &args.common, dd, &args) : args.common.status;
}
