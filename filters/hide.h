/* SPDX-License-Identifier: MIT */
/*
 * hide.h - the filter below an image that hides what a job changes there. See docs/chain-jobs.md.
 *
 *     image ──backing──> hide ──> what was its backing      for the time in which the job writes to a node below
 */
#ifndef BLKSTACK_FILTERS_HIDE_H
#define BLKSTACK_FILTERS_HIDE_H

#include <blkstack/driver.h>

/**
 * blk_co_hide_insert:
 * @image: has a backing
 * @node_name: (nullable): of the filter
 *
 * Puts the filter between @image and its backing, for @image alone: as far as @image is concerned others may write below, and resize.
 * The caller sees to it that what they write reads the same through @image. Other users of the nodes below mind as before.
 * Context: coroutine; may yield. Returns: (transfer full): for blk_co_hide_remove(); NULL with @error set.
 */
BlkNode *blk_co_hide_insert(BlkNode *image, const char *node_name, GError **error);

/* Takes it out, if it is there still, and gives it back. Nobody may write below it any more. NULL is ignored. May yield. */
void blk_co_hide_remove(BlkNode *filter);

#endif
