/* SPDX-License-Identifier: MIT */
/*
 * test_range_lock.c - order and exclusion of range locks.
 */
#include "core/range_lock.h"
#include "test.h"

typedef struct Locker {
    BlkRangeLock *lock;
    uint64_t offset, bytes;
    bool exclusive;
    BlkRangeHold hold;
    bool has;
} Locker;

static int locker_run(void *opaque)
{
    Locker *locker = opaque;

    blk_co_range_lock(locker->lock, &locker->hold, locker->offset, locker->bytes, locker->exclusive);
    locker->has = true;
    return 0;
}

static void start(Locker *locker)
{
    blk_co_spawn(blk_co_context(), locker_run, locker);
    blk_co_reschedule();
    blk_co_reschedule();
}

static void stop(Locker *locker)
{
    ck_assert(locker->has);
    locker->has = false;
    blk_range_unlock(locker->lock, &locker->hold);
    for (int i = 0; i < 10; i++) {
        blk_co_reschedule();
    }
}

static int shared_overlap(void *opaque)
{
    BlkRangeLock lock = { NULL, NULL };
    Locker a = { &lock, 0, 100, false }, b = { &lock, 50, 100, false }, c = { &lock, 99, 1, true };
    Locker d = { &lock, 100, 50, true };

    start(&a);
    start(&b);
    start(&c);
    start(&d);
    ck_assert(a.has && b.has && !c.has && !d.has);
    stop(&a);
    ck_assert(!c.has && !d.has);
    stop(&b);
    ck_assert(c.has && d.has);
    stop(&c);
    stop(&d);
    ck_assert(lock.first == NULL && lock.last == NULL);
    return 0;
}

/* A shared request that comes after a waiting exclusive one waits too. */
static int first_in_first_out(void *opaque)
{
    BlkRangeLock lock = { NULL, NULL };
    Locker a = { &lock, 0, 10, false }, b = { &lock, 5, 10, true }, c = { &lock, 0, 10, false };
    Locker apart = { &lock, 15, 10, true };

    start(&a);
    start(&b);
    start(&c);
    start(&apart);
    ck_assert(a.has && !b.has && !c.has && apart.has);
    stop(&a);
    ck_assert(b.has && !c.has);
    stop(&b);
    ck_assert(c.has);
    stop(&c);
    stop(&apart);
    return 0;
}

static int try_lock(void *opaque)
{
    BlkRangeLock lock = { NULL, NULL };
    BlkRangeHold a, b;

    ck_assert(blk_range_try_lock(&lock, &a, 0, 10, false));
    ck_assert(!blk_range_try_lock(&lock, &b, 9, 1, true));
    ck_assert(blk_range_try_lock(&lock, &b, 10, 1, true));
    blk_range_unlock(&lock, &b);
    blk_range_unlock(&lock, &a);
    ck_assert(blk_range_try_lock(&lock, &a, 0, UINT64_MAX, true));
    ck_assert(!blk_range_try_lock(&lock, &b, UINT64_MAX - 1, 1, true));
    blk_range_unlock(&lock, &a);
    ck_assert(lock.first == NULL);
    return 0;
}

static void run(BlkCoFn *fn)
{
    g_autoptr(BlkContext) ctx = blk_context_new(NULL, NULL);

    ck_assert(ctx != NULL);
    blk_run(ctx, fn, NULL);
}

START_TEST(test_shared_overlap)
{
    run(shared_overlap);
}
END_TEST

START_TEST(test_first_in_first_out)
{
    run(first_in_first_out);
}
END_TEST

START_TEST(test_try_lock)
{
    run(try_lock);
}
END_TEST

BLK_TEST_MAIN("range_lock", test_shared_overlap, test_first_in_first_out, test_try_lock)
