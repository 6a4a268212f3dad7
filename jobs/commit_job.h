/* SPDX-License-Identifier: MIT */
/*
 * commit_job.h - the job "commit" of images that nobody writes to: what lies between two images of a chain goes into the lower
 * one. See docs/chain-jobs.md. (The job that commits an image in use is a mirror: jobs/mirror.h; commit.h is the tool's.)
 */
#ifndef BLKSTACK_JOBS_COMMIT_JOB_H
#define BLKSTACK_JOBS_COMMIT_JOB_H

#include "jobs/chain.h"

#include <blkstack/job.h>

typedef struct BlkCommitJobOptions {
    BlkNode *top;                   /* an image, or a filter above it, that has overlays */
    BlkNode *base;                  /* an image in the chain below, or a filter above it */
    BlkChainName name;              /* how the overlays are to name the base */
    const char *filter_node_name;   /* (nullable): of the filter below the top, while the job is there */
    bool compress;                  /* a compress filter stands above the base meanwhile */
} BlkCommitJobOptions;

/**
 * blk_co_commit_job_new:
 *
 * What lies above the base, down from the top, is copied into the base, through the filters that stand above it in this chain.
 * When the job is finalized all overlays of the top have the base as their backing. They read the same at any time; what lies
 * between does not, and is not to be used any more. The base is made writable for that time, and grows to the top's length.
 * Nothing is kept of @commit but nodes. Context: coroutine; may yield. Returns: (transfer none): the job, to be started; NULL
 * with @error set: -EBUSY: an image is used by a job; -EPERM, -EACCES: others read what changes, or the base cannot be
 * written; -ENOTSUP: an overlay cannot store backing file names, or the base compressed clusters.
 */
BlkJob *blk_co_commit_job_new(const BlkCommitJobOptions *commit, const BlkJobOptions *options, GError **error);

#endif
