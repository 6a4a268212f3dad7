/* SPDX-License-Identifier: MIT */
/*
 * stack.c - the nodes that are served:
 *
 *     -o, -P: raw, from the offset on, or a partition
 *     --compress: the compress filter
 *     -s: a temporary overlay; else the image itself, or its internal snapshot -l
 */
#include "nbd/nbd.h"

#include <glib/gstdio.h>

/* What the command line says about the image, whichever of both it is. */
static JsonObject *image_options(const NbdArgs *args)
{
    JsonObject *options = json_object_new();

    if (args->detect_zeroes) {
        json_object_set_string_member(options, "detect-zeroes", args->detect_zeroes);
    }
    return options;
}

static BlkNode *co_open_image(BlkContext *ctx, const NbdArgs *args, GError **error)
{
    g_autoptr(JsonObject) options = image_options(args);
    ToolOpen open = args->open;

    open.options = options;
    return tool_co_open_node(ctx, &open, error);
}

/* (transfer full): the tree of an overlay, opened as the image would be. */
static JsonObject *co_overlay_tree(BlkContext *ctx, const NbdArgs *args, char **path, GError **error)
{
    ToolOpen open = args->open;
    g_autoptr(JsonObject) base = NULL;
    JsonObject *tree;

    open.writable = false;
    base = tool_open_options(ctx, &open, error);
    tree = base ? tool_co_make_overlay(ctx, base, path, error) : NULL;
    if (!tree) {
        return NULL;
    }
    json_object_set_boolean_member(tree, "read-only", args->read_only);
    json_object_set_string_member(tree, "discard", args->open.unmap ? "unmap" : "ignore");
    json_object_set_string_member(tree, "detect-zeroes", args->detect_zeroes ? args->detect_zeroes : "off");
    return tree;
}

static BlkNode *co_open_overlay(NbdStack *stack, BlkContext *ctx, const NbdArgs *args, GError **error)
{
    g_autoptr(JsonObject) tree = co_overlay_tree(ctx, args, &stack->overlay, error);
    BlkNode *node = tree ? blk_co_open(ctx, tree, error) : NULL;

    if (!node) {
        g_prefix_error(error, "Could not open '%s' with a temporary overlay: ", args->open.name);
    }
    return node;
}

/* Puts a node of @options, which it takes, above the top. */
static int co_put_above(NbdStack *stack, BlkContext *ctx, const NbdArgs *args, JsonObject *options, GError **error)
{
    BlkNode *above;

    json_object_set_string_member(options, "file", blk_node_name(stack->top));
    json_object_set_boolean_member(options, "read-only", args->read_only);
    if (args->open.unmap) {
        json_object_set_string_member(options, "discard", "unmap");
    }
    above = blk_co_open(ctx, options, error);
    json_object_unref(options);
    if (!above) {
        return -EINVAL;
    }
    blk_co_unref(stack->top);
    stack->top = above;
    return 0;
}

static int co_put_compress(NbdStack *stack, BlkContext *ctx, const NbdArgs *args, GError **error)
{
    const char *text = args->compress_options ? args->compress_options : "";
    JsonObject *options = blk_options_parse_keyval(text, NULL, error);

    if (!options) {
        g_prefix_error(error, "--compress: ");
        return -EINVAL;
    }
    json_object_set_string_member(options, "driver", "compress");
    return co_put_above(stack, ctx, args, options, error);
}

/* @bytes: 0: up to the end. */
static int co_put_window(NbdStack *stack, BlkContext *ctx, const NbdArgs *args, uint64_t offset, uint64_t bytes,
                         GError **error)
{
    JsonObject *options = json_object_new();

    json_object_set_string_member(options, "driver", "raw");
    json_object_set_int_member(options, "offset", (gint64)offset);
    if (bytes > 0) {
        json_object_set_int_member(options, "size", (gint64)bytes);
    }
    return co_put_above(stack, ctx, args, options, error);
}

static int co_put_partition(NbdStack *stack, BlkContext *ctx, const NbdArgs *args, GError **error)
{
    BlkPartition partition;
    int ret = blk_co_find_partition(stack->top, args->partition, &partition, error);

    if (ret < 0) {
        g_prefix_error(error, "Could not find partition %u of '%s': ", args->partition, args->open.name);
        return ret;
    }
    return co_put_window(stack, ctx, args, partition.offset, partition.bytes, error);
}

int nbd_co_stack_open(NbdStack *stack, BlkContext *ctx, const NbdArgs *args, GError **error)
{
    int ret = 0;

    stack->top = args->snapshot ? co_open_overlay(stack, ctx, args, error) : co_open_image(ctx, args, error);
    if (!stack->top) {
        ret = -EINVAL;
    }
    if (ret == 0) {
        ret = tool_co_load_snapshot(stack->top, &args->load, error);
    }
    if (ret == 0 && args->compress) {
        ret = co_put_compress(stack, ctx, args, error);
    }
    if (ret == 0 && args->offset > 0) {
        ret = co_put_window(stack, ctx, args, args->offset, 0, error);
    }
    if (ret == 0 && args->partition > 0) {
        ret = co_put_partition(stack, ctx, args, error);
    }
    if (ret < 0) {
        nbd_co_stack_close(stack);
    }
    return ret;
}

void nbd_co_stack_close(NbdStack *stack)
{
    blk_co_unref(stack->top);
    stack->top = NULL;
    if (stack->overlay) {
        g_unlink(stack->overlay);
        g_clear_pointer(&stack->overlay, g_free);
    }
}
