/* SPDX-License-Identifier: MIT */
/* test_sync.c - queue, mutex, group. */
#include "test.h"

static int run(BlkCoFn *fn, void *opaque)
{
    g_autoptr(GError) error = NULL;
    BlkContext *ctx = blk_context_new(NULL, &error);
    int ret;

    ck_assert_msg(ctx != NULL, "%s", error ? error->message : "no message");
    ret = blk_run(ctx, fn, opaque);
    blk_context_free(ctx);
    return ret;
}

/* ---- queue ---- */

typedef struct Line {
    BlkCoQueue queue;
    BlkCoMutex mutex;
    unsigned next, woken;
    unsigned order[32];
    unsigned inside, most_inside;
} Line;

static int stand_in_line(void *opaque)
{
    Line *line = opaque;
    unsigned number = line->next++;

    blk_co_queue_wait(&line->queue);
    line->order[line->woken++] = number;
    return 0;
}

static int queue_main(void *opaque)
{
    Line line = { 0 };
    BlkCoGroup group = BLK_CO_GROUP_INIT(10);

    ck_assert(!blk_co_queue_wake_one(&line.queue));
    for (unsigned i = 0; i < 5; i++) {
        blk_co_group_run(&group, stand_in_line, &line);
    }
    blk_co_reschedule();
    ck_assert_uint_eq(line.next, 5);
    ck_assert_uint_eq(line.woken, 0);
    ck_assert(blk_co_queue_wake_one(&line.queue));
    ck_assert_uint_eq(line.woken, 0);
    blk_co_reschedule();
    ck_assert_uint_eq(line.woken, 1);
    blk_co_queue_wake_all(&line.queue);
    blk_co_group_wait(&group);
    ck_assert_uint_eq(line.woken, 5);
    for (unsigned i = 0; i < 5; i++) {
        ck_assert_uint_eq(line.order[i], i);
    }
    ck_assert(!blk_co_queue_wake_one(&line.queue));
    return 0;
}

START_TEST(queue_is_first_in_first_out)
{
    ck_assert_int_eq(run(queue_main, NULL), 0);
}
END_TEST

/* ---- mutex ---- */

static int hold_mutex(void *opaque)
{
    Line *line = opaque;
    unsigned number = line->next++;

    blk_co_mutex_lock(&line->mutex);
    line->order[line->woken++] = number;
    line->inside++;
    line->most_inside = MAX(line->most_inside, line->inside);
    blk_co_reschedule();
    blk_co_reschedule();
    line->inside--;
    blk_co_mutex_unlock(&line->mutex);
    return 0;
}

static int mutex_main(void *opaque)
{
    Line line = { 0 };
    BlkCoGroup group = BLK_CO_GROUP_INIT(32);

    for (unsigned i = 0; i < 20; i++) {
        blk_co_group_run(&group, hold_mutex, &line);
    }
    blk_co_group_wait(&group);
    ck_assert_uint_eq(line.most_inside, 1);
    ck_assert_uint_eq(line.woken, 20);
    for (unsigned i = 0; i < 20; i++) {
        ck_assert_uint_eq(line.order[i], i);
    }
    ck_assert(!line.mutex.locked);
    return 0;
}

START_TEST(mutex_excludes_in_order)
{
    ck_assert_int_eq(run(mutex_main, NULL), 0);
}
END_TEST

static int hand_over_main(void *opaque)
{
    Line line = { 0 };
    BlkCoGroup group = BLK_CO_GROUP_INIT(2);

    /* Who unlocks and locks again at once must not overtake the one that waits. */
    blk_co_mutex_lock(&line.mutex);
    blk_co_group_run(&group, hold_mutex, &line);
    blk_co_reschedule();
    blk_co_mutex_unlock(&line.mutex);
    ck_assert(line.mutex.locked);
    blk_co_mutex_lock(&line.mutex);
    ck_assert_uint_eq(line.woken, 1);
    ck_assert_uint_eq(line.inside, 0);
    blk_co_mutex_unlock(&line.mutex);
    return blk_co_group_wait(&group);
}

START_TEST(mutex_hands_over)
{
    ck_assert_int_eq(run(hand_over_main, NULL), 0);
}
END_TEST

/* ---- group ---- */

typedef struct Work {
    unsigned started, running, most;
    unsigned fail_at;       /* number of the task that fails; 0: none */
    int error;
} Work;

static int work(void *opaque)
{
    Work *w = opaque;
    unsigned number = ++w->started;

    w->running++;
    w->most = MAX(w->most, w->running);
    for (unsigned i = 0; i < 1 + number % 5; i++) {
        blk_co_reschedule();
    }
    w->running--;
    return w->fail_at > 0 && number >= w->fail_at ? w->error - (int)(number - w->fail_at) : 0;
}

static int group_main(void *opaque)
{
    Work *w = opaque;
    BlkCoGroup group = BLK_CO_GROUP_INIT(4);
    unsigned asked = 0;
    int ret = 0;

    while (asked < 100 && (ret = blk_co_group_run(&group, work, w)) == 0) {
        asked++;
    }
    ck_assert_uint_le(asked, w->fail_at ? w->fail_at + 8 : 100);

    int waited = blk_co_group_wait(&group);

    ck_assert_uint_eq(w->running, 0);
    ck_assert_uint_eq(group.running, 0);
    ck_assert_uint_eq(w->started, asked);
    ck_assert(ret == 0 || ret == waited);
    return waited;
}

START_TEST(group_keeps_its_limit)
{
    Work w = { 0 };

    ck_assert_int_eq(run(group_main, &w), 0);
    ck_assert_uint_eq(w.started, 100);
    ck_assert_uint_eq(w.most, 4);
}
END_TEST

START_TEST(group_stops_at_the_first_error)
{
    Work w = { .fail_at = 10, .error = -EIO };
    int ret = run(group_main, &w);

    ck_assert_int_le(ret, -EIO);
    ck_assert_int_ge(ret, -EIO - 8);
    ck_assert_uint_lt(w.started, 20);
}
END_TEST

static int fail_at_once(void *opaque)
{
    return GPOINTER_TO_INT(opaque);
}

static int group_error_main(void *opaque)
{
    BlkCoGroup group = BLK_CO_GROUP_INIT(1);

    ck_assert_int_eq(blk_co_group_wait(&group), 0);
    ck_assert_int_eq(blk_co_group_run(&group, fail_at_once, GINT_TO_POINTER(-ENOSPC)), 0);
    ck_assert_int_eq(blk_co_group_run(&group, fail_at_once, GINT_TO_POINTER(-EIO)), -ENOSPC);
    ck_assert_int_eq(group.running, 0);
    ck_assert_int_eq(blk_co_group_wait(&group), -ENOSPC);

    BlkCoGroup two = BLK_CO_GROUP_INIT(2);

    ck_assert_int_eq(blk_co_group_run(&two, fail_at_once, GINT_TO_POINTER(-ENOSPC)), 0);
    ck_assert_int_eq(blk_co_group_run(&two, fail_at_once, GINT_TO_POINTER(-EIO)), 0);
    ck_assert_int_eq(blk_co_group_wait(&two), -ENOSPC);
    return 0;
}

START_TEST(group_keeps_the_first_error)
{
    ck_assert_int_eq(run(group_error_main, NULL), 0);
}
END_TEST

BLK_TEST_MAIN("sync", queue_is_first_in_first_out, mutex_excludes_in_order, mutex_hands_over, group_keeps_its_limit,
              group_stops_at_the_first_error, group_keeps_the_first_error)
