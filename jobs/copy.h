/* SPDX-License-Identifier: MIT */
/*
 * copy.h - the copy engine: what convert, commit, rebase and all jobs that move data have in common.
 */
#ifndef BLKSTACK_JOBS_COPY_H
#define BLKSTACK_JOBS_COPY_H

#include <blkstack/driver.h>

typedef struct BlkCopy {
    BlkSource *source;
    BlkNode *target;            /* at least as long as the source */
    BlkNode *reference;         /* (nullable): what reads the same there is not written, since it will be
                                 * the target's backing; zeroes behind its end */
    bool target_is_zero;        /* what is not written reads as zeroes */
    bool compressed;            /* write whole clusters compressed; the target must have BLK_CAP_COMPRESSED_WRITE */
    unsigned compression;       /* how: blk_req_compression() */
    bool in_order;              /* plain writes begin in the order of the offsets; compressed ones nearly so */
    bool fua;
    uint64_t sparse;            /* runs of zeroes of this length, in bytes, become zeroes of the target; 0: none */
    unsigned workers;           /* requests in flight, at least 1 */
    uint64_t rate;              /* bytes read a second; 0: no limit */
    bool cancel;                /* set by anybody at any time: the copy ends with -ECANCELED */
    void (*progress)(double fraction, void *opaque);    /* (nullable): 0..1, never less than before */
    void *opaque;
} BlkCopy;

/**
 * blk_co_copy:
 *
 * Copies everything and flushes the target. After an error the target holds part of it; nothing is in flight any more.
 * Context: coroutine of the nodes' context; may yield.
 * Returns: 0; -ECANCELED; -ENOTSUP if the target cannot hold compressed clusters; others from the source and the target, with the place in @error.
 */
int blk_co_copy(BlkCopy *copy, GError **error);

/* Can the copy be stored there so? -ENOTSUP with the reason, which blk_co_copy() finds too, but not before other work. */
int blk_copy_check_target(const BlkNode *target, bool compressed, GError **error);

#endif
