/* SPDX-License-Identifier: MIT */
/*
 * job_top.h - the filter that stands above a node for the time of a job. See docs/chain-jobs.md.
 *
 *     guests ──> job_top ──> node          inserted when the job begins, removed when it ends
 */
#ifndef BLKSTACK_FILTERS_JOB_TOP_H
#define BLKSTACK_FILTERS_JOB_TOP_H

#include <blkstack/driver.h>

/* A guest has changed the range, or failed to, and waits until this returns. May yield; may not send requests to the filter
 * or above. Also told of by several guests at a time, for ranges that overlap, too. */
typedef void BlkJobTopChanged(void *opaque, uint64_t offset, uint64_t bytes);

/**
 * blk_co_job_top_insert:
 * @node_name: (nullable): of the filter
 *
 * Puts the filter above @node, for all its users and parents but those that stay (blk_child_stay()). While it is there
 * nobody else may write to @node. What is written through it with BLK_REQ_UNCHANGED, which is what the job sends, is a *fill*: only
 * what @node does not have itself by then is written, zeroes are stored as such, and no guest changes the range meanwhile.
 * Context: coroutine; may yield.
 * Returns: (transfer full): for blk_co_job_top_remove(); NULL with @error set, and the graph is as it was.
 */
BlkNode *blk_co_job_top_insert(BlkNode *node, const char *node_name, GError **error);

/* From now on @co_changed (nullable: nobody) is told of changes of guests. Those under way may be told of, or not. */
void blk_job_top_watch(BlkNode *filter, BlkJobTopChanged *co_changed, void *opaque);

/**
 * blk_co_job_top_remove:
 * @filter: (nullable): given back by this
 *
 * Its users, if it still has any, use the node below. If that cannot be, since a node above holds data that could not be
 * written, it stays for them, and does nothing any more. Nobody is told of changes when this returns. May yield.
 */
void blk_co_job_top_remove(BlkNode *filter);

#endif
