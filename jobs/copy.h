/* SPDX-License-Identifier: MIT */
/*
 * copy.h - the copy engine: what convert, commit, rebase and all jobs that move data have in common.
 */
#ifndef BLKSTACK_JOBS_COPY_H
#define BLKSTACK_JOBS_COPY_H

#include <blkstack/driver.h>

#include "core/copy_todo.h"
#include "jobs/job.h"

typedef struct BlkCopy {
    BlkJob *job;                /* (nullable): whose work this is: the coroutine of blk_co_copy() has entered it */
    BlkSource *source;
    BlkCopyTodo *todo;          /* (nullable): only what is dirty there is copied, in whole clusters of the target; no reference */
    BlkChild *target;           /* a node at least as long as the source; filters may come and go above it meanwhile */
    BlkNode *reference;         /* (nullable): what reads the same there is not written, since it will be
                                 * the target's backing; zeroes behind its end */
    bool target_is_zero;        /* what is not written reads as zeroes */
    bool compressed;            /* write whole clusters compressed; the target must have BLK_CAP_COMPRESSED_WRITE */
    unsigned compression;       /* how: blk_req_compression() */
    bool unchanged;             /* what is written changes nothing that a reader of the target sees */
    bool in_order;              /* plain writes begin in the order of the offsets; compressed ones nearly so */
    bool fua;
    bool keep_space;            /* zeroes are written so that their place in the target stays allocated */
    uint64_t sparse;            /* runs of zeroes of this length, in bytes, become zeroes of the target; 0: none */
    unsigned workers;           /* requests in flight, at least 1 */
    uint64_t memory;            /* bytes: so large are all buffers together, but for what one cluster needs; 0: no limit */
    uint64_t rate;              /* without a job: bytes read a second; 0: no limit */
    void (*progress)(double fraction, void *opaque);    /* (nullable): 0..1, never less than before */
    void *opaque;
} BlkCopy;

/**
 * blk_co_copy:
 *
 * Copies everything and flushes the target. After an error the target holds part of it; nothing is in flight any more.
 * A job is told of the bytes done (all of the source's, or with a todo those that were dirty), limits the speed, and says
 * what happens when a request fails. Context: coroutine of the nodes' context; may yield.
 * Returns: 0; -ECANCELED: the job was; -ENOTSUP if the target cannot hold compressed clusters; others from the source and the target, with the place in @error.
 */
int blk_co_copy(BlkCopy *copy, GError **error);

/**
 * blk_co_copy_range:
 * @copy: with a todo; may be under way by blk_co_copy() too
 *
 * Copies what is dirty in the clusters of the range, in this coroutine, and waits for others that copy parts of it. Nothing
 * is flushed. The job neither pauses nor limits it, nor tries it again. Context and errors as of blk_co_copy().
 */
int blk_co_copy_range(BlkCopy *copy, uint64_t offset, uint64_t bytes, GError **error);

/* Can the copy be stored there so? -ENOTSUP with the reason, which blk_co_copy() finds too, but not before other work. */
int blk_copy_check_target(const BlkNode *target, bool compressed, GError **error);

#endif
