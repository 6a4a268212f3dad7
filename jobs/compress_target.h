/* SPDX-License-Identifier: MIT */
/*
 * compress_target.h - `compress: true` of a job: a compress filter above its target, for the job's time.
 *
 *     job, guests ──> target        job, guests ──> compress ──> target
 */
#ifndef BLKSTACK_JOBS_COMPRESS_TARGET_H
#define BLKSTACK_JOBS_COMPRESS_TARGET_H

#include <blkstack/driver.h>

/**
 * blk_co_compress_target:
 *
 * Puts the filter above @target, for all its users and parents but those that stay (blk_child_stay()): whatever they write is
 * stored compressed. A job attaches to the filter, or before it without staying.
 * Context: coroutine; may yield.
 * Returns: (transfer full): the filter, for blk_co_compress_target_end(); NULL with @error set: the filter's own message
 * where @target cannot rewrite compressed clusters.
 */
BlkNode *blk_co_compress_target(BlkNode *target, GError **error);

/**
 * blk_co_compress_target_end:
 * @filter: (nullable): given back by this
 *
 * Writes what the filter still holds and takes it out: its users use the target. If something cannot be written, the
 * filter stays for them, with its data, and the message handler is told so. To be called whatever the end of the job. May yield.
 */
void blk_co_compress_target_end(BlkNode *filter);

#endif
