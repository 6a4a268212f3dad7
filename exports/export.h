/* SPDX-License-Identifier: MIT */
/*
 * export.h - what an export of any kind has: a node that it may use, names, and the dirty bitmaps that it shows.
 */
#ifndef BLKSTACK_EXPORTS_EXPORT_H
#define BLKSTACK_EXPORTS_EXPORT_H

#include <blkstack/blkstack.h>

/* Found again by name each time: bitmaps may be removed while they are shown. */
typedef struct BlkExportBitmap {
    char *name;
    BlkNode *node;              /* a reference */
} BlkExportBitmap;

typedef struct BlkExport {
    char *id;
    char *name;
    char *description;          /* (nullable) */
    bool writable;
    BlkChild *user;             /* the edge to the node; requests go to blk_export_node() */
    GArray *bitmaps;            /* BlkExportBitmap */
} BlkExport;

typedef struct BlkExportOptions {
    const char *id, *name;
    const char *description;    /* (nullable) */
    bool writable;
    const char *const *bitmaps; /* (nullable): NULL-terminated */
} BlkExportOptions;

/**
 * blk_co_export_init:
 * @export: zeroed
 *
 * Becomes a user of @node and loads the bitmaps, which belong to it or to a node of its backing chain.
 * Context: coroutine; may yield. Returns: 0; -ENOENT: no such bitmap; others. After an error @export is empty again.
 */
int blk_co_export_init(BlkExport *export, BlkNode *node, const BlkExportOptions *options, GError **error);

/* Flushes what was written, and gives all back. May yield. Returns: 0; the error of the flush, with @error set. */
int blk_co_export_clear(BlkExport *export, GError **error);

static inline BlkNode *blk_export_node(const BlkExport *export)
{
    return blk_child_node(export->user);
}

/* Its bitmap number @index, loaded; NULL: it is gone, or cannot be read. To be used before the next yield. May yield.
 * */
BlkDirtyBitmap *blk_co_export_bitmap(const BlkExport *export, unsigned index);

#endif
