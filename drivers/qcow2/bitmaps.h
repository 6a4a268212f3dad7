/* SPDX-License-Identifier: MIT */
/*
 * bitmaps.h - the dirty bitmaps of an open qcow2 image.
 *
 *   bitmap_directory.c  what directory and tables look like: reading, judging and building them
 *   bitmaps.c           opening, loading, marking as in use; the ops table
 *   bitmaps_store.c     making the image agree with memory
 *
 * What the driver knows about a bitmap ("stored") is the Qcow2BitmapEntry that the directory in the file has for it. A
 * bitmap that was added and not stored yet has none.
 */
#ifndef BLKSTACK_QCOW2_BITMAPS_H
#define BLKSTACK_QCOW2_BITMAPS_H

#include "core/bitmap.h"
#include "drivers/qcow2/qcow2.h"

extern const BlkBitmapOps qcow2_bitmap_ops;

/* Bytes that the persistent bitmaps of @source would take in an image with clusters of @cluster_size, if all is
 * mixed. */
uint64_t qcow2_bitmaps_measure(const BlkNode *source, uint64_t cluster_size);

/**
 * qcow2_co_bitmaps_store:
 *
 * Makes the bitmaps in the file those that are in memory, stable: see bitmaps_store.c. The caller makes sure that
 * nobody writes to the node meanwhile. Does nothing if they agree already.
 * Returns: 0; after an error the file has the bitmaps that it had, or all but those that could not be read, or nobody knows
 * and the node refuses all changes. It can be tried again.
 */
int qcow2_co_bitmaps_store(BlkNode *node, GError **error);

#endif
