/* SPDX-License-Identifier: MIT */
/*
 * stream.h - the job "stream": copies into an image what it reads from the images below it. See docs/chain-jobs.md.
 */
#ifndef BLKSTACK_JOBS_STREAM_H
#define BLKSTACK_JOBS_STREAM_H

#include "jobs/chain.h"

#include <blkstack/job.h>

typedef struct BlkStreamOptions {
    BlkNode *device;                /* an image, or a filter above it */
    BlkNode *base;                  /* (nullable): below the device: what lies there is not copied; NULL: the whole chain is */
    BlkChainName name;              /* how the image is to name the base */
    const char *filter_node_name;   /* (nullable): of the filter above the device, while the job is there */
    bool compress;                  /* a compress filter stands above the device meanwhile */
} BlkStreamOptions;

/**
 * blk_co_stream_new:
 *
 * When the job is finalized the base (or nothing) is the backing of the device's image; the images between are not used by it
 * any more. The device reads the same at any time. It is made writable for that time. Nothing is kept of @stream but nodes.
 * Context: coroutine; may yield. Returns: (transfer none): the job, to be started; NULL with @error set: -EBUSY: an image is
 * used by a job; -EPERM, -EACCES: somebody writes to an image between; -ENOTSUP: the device cannot store backing file names,
 * or compressed clusters.
 */
BlkJob *blk_co_stream_new(const BlkStreamOptions *stream, const BlkJobOptions *options, GError **error);

#endif
