/* SPDX-License-Identifier: MIT */
/*
 * commit.h - writes what the upper images of a chain hold into an image below them.
 */
#ifndef BLKSTACK_JOBS_COMMIT_H
#define BLKSTACK_JOBS_COMMIT_H

#include <blkstack/driver.h>

typedef struct BlkCommit {
    BlkNode *top;               /* its chain has the base; with BLK_PERM_WRITE and BLK_PERM_RESIZE if it is emptied */
    BlkNode *base;              /* with BLK_PERM_WRITE and BLK_PERM_RESIZE */
    bool empty_top;             /* the top holds nothing afterwards; only if the base is its own backing */
    bool compressed;            /* what is written to the base is stored compressed */
    bool fua;
    uint64_t rate;              /* bytes a second; 0: no limit */
    void (*progress)(double fraction, void *opaque);    /* (nullable) */
    void *opaque;
} BlkCommit;

/**
 * blk_co_commit:
 *
 * Afterwards the base has the content of the top, and is as long if it was shorter. The top has the same content at any
 * time, also after an error, of which part of the copy stays in the base; images in between that the top does not hide
 * change what they show. The top is emptied only when the base is stable.
 * Context: coroutine; may yield. Returns: 0; -ENOTSUP: the base has no compressed clusters; others from below.
 */
int blk_co_commit(const BlkCommit *commit, GError **error);

#endif
