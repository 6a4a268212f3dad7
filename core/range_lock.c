/* SPDX-License-Identifier: MIT */
/*
 * range_lock.c - shared and exclusive locks on byte ranges.
 *
 * All holds, those that have the range and those that still wait, stand in one list in order of arrival. A hold waits
 * on the queue of an earlier one that stands in its way, and looks again when that one is gone.
 */
#include "core/range_lock.h"

static bool conflicts(const BlkRangeHold *a, const BlkRangeHold *b)
{
    if (!a->exclusive && !b->exclusive) {
        return false;
    }
    /* Without sums, which could overflow. */
    return a->offset < b->offset ? b->offset - a->offset < a->bytes : a->offset - b->offset < b->bytes;
}

static BlkRangeHold *obstacle(const BlkRangeHold *hold)
{
    for (BlkRangeHold *earlier = hold->prev; earlier; earlier = earlier->prev) {
        if (conflicts(earlier, hold)) {
            return earlier;
        }
    }
    return NULL;
}

static void append(BlkRangeLock *lock, BlkRangeHold *hold, uint64_t offset, uint64_t bytes, bool exclusive)
{
    *hold = (BlkRangeHold) { .offset = offset, .bytes = bytes, .exclusive = exclusive, .prev = lock->last };
    if (lock->last) {
        lock->last->next = hold;
    } else {
        lock->first = hold;
    }
    lock->last = hold;
}

void blk_co_range_lock(BlkRangeLock *lock, BlkRangeHold *hold, uint64_t offset, uint64_t bytes, bool exclusive)
{
    BlkRangeHold *earlier;

    append(lock, hold, offset, bytes, exclusive);
    while ((earlier = obstacle(hold))) {
        blk_co_queue_wait(&earlier->waiters);
    }
}

bool blk_range_try_lock(BlkRangeLock *lock, BlkRangeHold *hold, uint64_t offset, uint64_t bytes, bool exclusive)
{
    append(lock, hold, offset, bytes, exclusive);
    if (obstacle(hold)) {
        blk_range_unlock(lock, hold);
        return false;
    }
    return true;
}

void blk_range_unlock(BlkRangeLock *lock, BlkRangeHold *hold)
{
    if (hold->prev) {
        hold->prev->next = hold->next;
    } else {
        lock->first = hold->next;
    }
    if (hold->next) {
        hold->next->prev = hold->prev;
    } else {
        lock->last = hold->prev;
    }
    blk_co_queue_wake_all(&hold->waiters);
}
