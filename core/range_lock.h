/* SPDX-License-Identifier: MIT */
/*
 * range_lock.h - shared and exclusive locks on byte ranges, among coroutines of one context.
 *
 * First in, first out: a request waits for every earlier overlapping one (holding or waiting) unless both are shared, so
 * nobody starves. There are no upgrades: who holds a shared range and needs it exclusively unlocks and locks again.
 * Holds live on the stack of their owner; nothing is allocated.
 */
#ifndef BLKSTACK_CORE_RANGE_LOCK_H
#define BLKSTACK_CORE_RANGE_LOCK_H

#include <blkstack/driver.h>

typedef struct BlkRangeHold {
    uint64_t offset, bytes;
    bool exclusive;
    struct BlkRangeHold *prev, *next;
    BlkCoQueue waiters;
} BlkRangeHold;

/* Zero-initialised is empty. */
typedef struct BlkRangeLock {
    BlkRangeHold *first, *last;
} BlkRangeLock;

void blk_co_range_lock(BlkRangeLock *lock, BlkRangeHold *hold, uint64_t offset, uint64_t bytes, bool exclusive);
/* Takes the range only if that needs no waiting. */
bool blk_range_try_lock(BlkRangeLock *lock, BlkRangeHold *hold, uint64_t offset, uint64_t bytes, bool exclusive);
void blk_range_unlock(BlkRangeLock *lock, BlkRangeHold *hold);

#endif
