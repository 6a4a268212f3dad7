/* SPDX-License-Identifier: MIT */
/*
 * copy_before_write.h - what backup.c and snapshot_access.c do with a copy-before-write filter.
 *
 * The *point in time* is what the filtered node held when the filter was opened, and put above all who write to it.
 */
#ifndef BLKSTACK_FILTERS_COPY_BEFORE_WRITE_H
#define BLKSTACK_FILTERS_COPY_BEFORE_WRITE_H

#include "core/copy_todo.h"

bool blk_is_copy_before_write(const BlkNode *node);

/* ---- for a job that copies the rest; @node is such a filter ---- */

/* What was not copied yet. Its granules are whole units of the target, so that no copy of one touches another. */
BlkCopyTodo *blk_cbw_todo(BlkNode *node);
/* (transfer none): the edge to the target, which may write there. */
BlkChild *blk_cbw_target(BlkNode *node);
/* @copied (nullable) is told how many bytes were copied for a guest. Does not yield. */
void blk_cbw_watch(BlkNode *node, void (*copied)(uint64_t bytes, void *opaque), void *opaque);

/* ---- the point in time, for readers ---- */

/* Context: coroutine, within a request to a node above; may yield. -EACCES: the range is no part of it, or it is lost. */
int blk_cbw_co_read(BlkNode *node, uint64_t offset, uint64_t bytes, BlkIov iov);
int blk_cbw_co_status(BlkNode *node, uint64_t offset, uint64_t bytes, BlkStatus *status);
/* Nobody will read whole granules of the range again: they need no copy, and cannot be read any more. */
int blk_cbw_co_discard(BlkNode *node, uint64_t offset, uint64_t bytes);

#endif
