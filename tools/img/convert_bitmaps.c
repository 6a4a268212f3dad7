/* SPDX-License-Identifier: MIT */
/*
 * convert_bitmaps.c - convert --bitmaps: the source's persistent dirty bitmaps go to the target, with name,
 * granularity, bits, and whether they record.
 */
#include "img/convert_bitmaps.h"

int convert_check_bitmaps(BlkNode *top, bool skip_broken, GError **error)
{
    BlkNode *source = blk_node_skip_filters(top);
    BlkDirtyBitmap *bitmap;

    if (!source->driver->bitmaps) {
        return blk_error(error, -ENOTSUP, "Source lacks bitmap support");
    }
    for (unsigned i = 0; !skip_broken && (bitmap = blk_bitmap_nth(source, i)); i++) {
        if (blk_bitmap_persistent(bitmap) && blk_bitmap_inconsistent(bitmap)) {
            return blk_error(error, -EINVAL, "Cannot copy inconsistent bitmap '%s'\nTry --skip-broken-bitmaps, or use "
                             "'%s bitmap --remove' to delete it", blk_bitmap_name(bitmap), tool_program());
        }
    }
    return 0;
}

static int copy_bitmap(BlkNode *target, BlkDirtyBitmap *source, GError **error)
{
    const char *name = blk_bitmap_name(source);
    BlkDirtyBitmap *bitmap = blk_bitmap_add(target, name, blk_bitmap_granularity(source), true, error);
    int ret;

    if (!bitmap) {
        g_prefix_error(error, "Failed to create bitmap %s: ", name);
        return -EINVAL;
    }
    ret = blk_co_bitmap_merge(bitmap, source, error);
    if (ret < 0) {
        g_prefix_error(error, "Failed to populate bitmap %s: ", name);
        blk_bitmap_remove(bitmap);
        return ret;
    }
    blk_bitmap_enable(bitmap, blk_bitmap_enabled(source));
    return 0;
}

int convert_co_copy_bitmaps(BlkNode *top, BlkNode *target_top, GError **error)
{
    BlkNode *source = blk_node_skip_filters(top), *target = blk_node_skip_filters(target_top);
    BlkDirtyBitmap *bitmap;
    int ret = 0;

    for (unsigned i = 0; ret == 0 && (bitmap = blk_bitmap_nth(source, i)); i++) {
        if (!blk_bitmap_persistent(bitmap)) {
            continue;
        }
        if (blk_bitmap_inconsistent(bitmap)) {
            tool_warning("Skipping inconsistent bitmap '%s'", blk_bitmap_name(bitmap));
        } else {
            ret = copy_bitmap(target, bitmap, error);
        }
    }
    if (ret == 0) {
        ret = blk_co_bitmaps_store(target, error);
        if (ret < 0) {
            g_prefix_error(error, "Could not store the bitmaps: ");
        }
    }
    return ret;
}
