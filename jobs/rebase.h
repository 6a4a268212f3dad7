/* SPDX-License-Identifier: MIT */
/*
 * rebase.h - lets an image stand on another backing file, with the same content.
 */
#ifndef BLKSTACK_JOBS_REBASE_H
#define BLKSTACK_JOBS_REBASE_H

#include <blkstack/driver.h>

typedef struct BlkRebase {
    BlkNode *overlay;           /* with BLK_PERM_WRITE and BLK_PERM_RESIZE; it has its old backing */
    BlkNode *backing;           /* (nullable): the new backing, as it will be opened; NULL: none */
    const char *filename, *format;      /* (nullable): as the image is to name it */
    bool compressed;            /* what is copied is stored compressed */
    void (*progress)(double fraction, void *opaque);    /* (nullable) */
    void *opaque;
} BlkRebase;

/**
 * blk_co_rebase:
 *
 * Copies into the overlay what the new backing does not have the same, makes it stable, and only then lets the image name
 * the new backing file. The content is the same at any time, also after an error, of which part of the copy may stay.
 * Context: coroutine; may yield. Returns: 0; -ENOTSUP: no backing files or no compressed clusters; others from below.
 */
int blk_co_rebase(const BlkRebase *rebase, GError **error);

#endif
