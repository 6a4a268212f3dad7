/* SPDX-License-Identifier: MIT */
/*
 * bitmap.h - dirty bitmaps of nodes: what the request path and drivers that store them need beyond the public calls.
 */
#ifndef BLKSTACK_CORE_BITMAP_H
#define BLKSTACK_CORE_BITMAP_H

#include "core/dirty_bitmap.h"
#include "core/node.h"

/*
 * How a format keeps bitmaps in its image. @stored is what the driver knows about one of them, from
 * blk_bitmap_attach_stored() or blk_bitmap_set_stored() on.
 */
struct BlkBitmapOps {
    bool (*supported)(const BlkNode *node);
    /* May the image keep a new one? Its name and granularity are valid. Does not yield. */
    int (*check_add)(BlkNode *node, const char *name, uint64_t granularity, GError **error);
    /* Reads it into @bits, which are clean and as long as the node. -EINVAL: what the image has is damaged; after others
     * it can be tried again. May yield. */
    int (*co_load)(BlkNode *node, void *stored, BlkDirtyBits *bits, GError **error);
    /* The bitmap is removed: the next store leaves it out. @stored belongs to the driver alone from here on. */
    void (*forget)(BlkNode *node, void *stored);
    /* The node is about to change: bitmaps that are enabled or touched (all, if @length, which it is to have, is another)
     * are loaded and, in the image, in use. May yield. */
    int (*co_before_change)(BlkNode *node, uint64_t length, GError **error);
    int (*co_store)(BlkNode *node, GError **error);     /* see blk_co_bitmaps_store() */
};

/* ---- for request.c and node.c ---- */

/* Before a change of @node, which is to have @length afterwards, gets to its driver. Failure: nothing may be changed.
 * May yield. */
int blk_bitmaps_co_before_change(BlkNode *node, uint64_t length, GError **error);
static inline int blk_bitmaps_co_before_write(BlkNode *node)
{
    return node->core->bitmaps ? blk_bitmaps_co_before_change(node, node->length, NULL) : 0;
}

/* A change of the range is through, or has failed. */
void blk_bitmaps_mark_list(BlkNode *node, uint64_t offset, uint64_t bytes);
static inline void blk_bitmaps_mark(BlkNode *node, uint64_t offset, uint64_t bytes)
{
    if (node->core->bitmaps) {
        blk_bitmaps_mark_list(node, offset, bytes);
    }
}

void blk_bitmaps_length_changed(BlkNode *node);
void blk_bitmaps_free(BlkNode *node);           /* without storing them */

/* For what takes persistent bitmaps away and brings them back: -EBUSY if somebody has claimed one. */
int blk_bitmaps_check_unclaimed(const BlkNode *node, GError **error);

/* ---- for drivers ---- */

/* A bitmap that the image has: @name is not taken. */
BlkDirtyBitmap *blk_bitmap_attach_stored(BlkNode *node, const char *name, uint64_t granularity, bool enabled,
                                         bool inconsistent, void *stored);
/* Takes it away without telling the driver; nobody has claimed it. */
void blk_bitmap_detach_stored(BlkDirtyBitmap *bitmap);
void *blk_bitmap_stored(const BlkDirtyBitmap *bitmap);      /* (nullable) */
/* It was stored as it is. */
void blk_bitmap_set_stored(BlkDirtyBitmap *bitmap, void *stored);
bool blk_bitmap_changed(const BlkDirtyBitmap *bitmap);      /* since it was loaded or stored */
bool blk_bitmap_touched(const BlkDirtyBitmap *bitmap);      /* it is about to be changed: blk_co_bitmap_touch() */
void blk_bitmap_set_inconsistent(BlkDirtyBitmap *bitmap);
/* It could not be loaded now: from here on it notes what is written, until it is. false: no memory. */
bool blk_bitmap_set_pending(BlkDirtyBitmap *bitmap);
bool blk_bitmap_pending(const BlkDirtyBitmap *bitmap);
const BlkDirtyBits *blk_bitmap_bits(const BlkDirtyBitmap *bitmap);      /* (nullable): not loaded */

#endif
