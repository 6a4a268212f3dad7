/* SPDX-License-Identifier: MIT */
/*
 * copy_todo.h - what is still to be copied of a node that changes meanwhile, shared by all who copy parts of it.
 *
 * A bit is cleared only by who copies its range next, and who copies holds the range exclusively; a copy that fails sets the
 * bits again. So where a bit is clean and nobody holds the range, the copy has what the node had when the bit was set last.
 */
#ifndef BLKSTACK_CORE_COPY_TODO_H
#define BLKSTACK_CORE_COPY_TODO_H

#include "core/range_lock.h"

typedef struct BlkCopyTodo {
    BlkDirtyBitmap *bitmap;     /* the user's. Marks of writes, if it records, come when they end */
    BlkRangeLock lock;
} BlkCopyTodo;

#endif
