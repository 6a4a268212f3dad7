/* SPDX-License-Identifier: MIT */
/*
 * export.h - what an export of any kind has: a node that it may use, names, and the dirty bitmaps that it shows.
 */
#ifndef BLKSTACK_EXPORTS_EXPORT_H
#define BLKSTACK_EXPORTS_EXPORT_H

#include <blkstack/blkstack.h>

typedef struct BlkExportBitmap {
    const char *name;           /* the bitmap's own */
    BlkDirtyBitmap *bitmap;     /* claimed */
    BlkNode *node;              /* whose it is: a reference */
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
    bool allow_inactive;        /* the node may be inactive, and become so: requests fail meanwhile */
    const BlkBitmapRef *bitmaps;    /* (nullable): a NULL name ends them */
} BlkExportOptions;

/**
 * blk_co_export_init:
 * @export: zeroed
 *
 * Becomes a user of @node and claims and loads the bitmaps.
 * Context: coroutine; may yield. Returns: 0; -ENOENT: no such bitmap; others. After an error @export is empty again.
 */
int blk_co_export_init(BlkExport *export, BlkNode *node, const BlkExportOptions *options, GError **error);

/* Flushes what was written, and gives all back. May yield. Returns: 0; the error of the flush, with @error set. */
int blk_co_export_clear(BlkExport *export, GError **error);

/* A client's request has failed with @ret, which the client is told as well: the notice BLOCK_IO_ERROR. */
void blk_export_tell_error(const BlkExport *export, bool write, int ret);

static inline BlkNode *blk_export_node(const BlkExport *export)
{
    return blk_child_node(export->user);
}

/* Its bitmap number @index, loaded; NULL: it cannot be used any more. May yield. */
BlkDirtyBitmap *blk_co_export_bitmap(const BlkExport *export, unsigned index);

#endif
