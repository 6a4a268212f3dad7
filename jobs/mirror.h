/* SPDX-License-Identifier: MIT */
/*
 * mirror.h - job "mirror": makes a target the same as a source that guests write to, keeps it so, and lets them use it
 * when told to complete. The active commit is a mirror of what lies above a base into the base. See docs/mirror.md.
 */
#ifndef BLKSTACK_JOBS_MIRROR_H
#define BLKSTACK_JOBS_MIRROR_H

#include <blkstack/driver.h>
#include <blkstack/job.h>

typedef enum BlkMirrorSync {
    BLK_MIRROR_FULL,            /* all that the source reads as */
    BLK_MIRROR_TOP,             /* what the source has itself: the target reads the rest from a backing like the source's */
    BLK_MIRROR_NONE,            /* what is written from now on */
} BlkMirrorSync;

#define BLK_MIRROR_MAX_GRANULARITY (UINT64_C(64) << 20)     /* bytes */

typedef struct BlkMirrorOptions {
    BlkJobOptions job;
    BlkNode *source, *target;       /* of the same length when the job runs */
    BlkMirrorSync sync;
    bool commit;                    /* @target is in the backing chain of @source: gets what lies above it, and the job is
                                     * called "commit". It grows to the length of the source. sync and replaces do not matter */
    bool write_blocking;            /* a guest's write returns when the target has it, too */
    uint64_t granularity;           /* bytes, BLK_BITMAP_MIN_GRANULARITY.., power of two; 0: that of the target's clusters */
    uint64_t buf_size;              /* bytes: of the buffers of the copy, at least a cluster of the target; 0: as it is good */
    bool keep_space;                /* zeroes of the source become allocated zeroes of the target */
    const char *filter_node_name;   /* (nullable): of the filter above the source */
    BlkNode *replaces;              /* (nullable): @source, or below it through filters: what the target replaces in the end */
    bool compress;                  /* store what is copied compressed */
} BlkMirrorOptions;

/**
 * blk_co_mirror_job_new:
 *
 * Context: coroutine; may yield. Returns: (transfer none): the job, not started; NULL with @error set, and the graph as it was.
 */
BlkJob *blk_co_mirror_job_new(const BlkMirrorOptions *options, GError **error);

#endif
