/* SPDX-License-Identifier: MIT */
/* test_poll.c - waiting for file descriptors and times, and calling it off; the heap of timers. */
#include "core/loop.h"
#include "test.h"

#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define MS(n) ((uint64_t)(n) * 1000000)

static int run(int (*fn)(void *opaque), void *opaque)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BlkContext) ctx = blk_context_new(NULL, &error);
    int ret;

    ck_assert_msg(ctx != NULL, "%s", error ? error->message : "no message");
    ret = blk_run(ctx, fn, opaque);
    ck_assert_uint_eq(ctx->polling, 0);
    return ret;
}

/* One that waits, and what came of it. */
typedef struct Waiter {
    BlkPoll poll;
    int fds[2];
    short events;
    uint64_t deadline_ns;
    int result;
    unsigned ended;
} Waiter;

static void waiter_init(Waiter *w)
{
    *w = (Waiter){ .events = POLLIN, .deadline_ns = UINT64_MAX };
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, w->fds), 0);
}

static void waiter_clear(Waiter *w)
{
    close(w->fds[0]);
    if (w->fds[1] >= 0) {
        close(w->fds[1]);
    }
    memset(w, 0xaa, sizeof(*w));    /* who still knows it must not care */
}

static int waiter_co_wait(void *opaque)
{
    Waiter *w = opaque;

    w->result = blk_co_poll(&w->poll, w->fds[0], w->events, w->deadline_ns);
    w->ended++;
    return 0;
}

static void co_let_others_run(unsigned turns)
{
    for (unsigned i = 0; i < turns; i++) {
        blk_co_reschedule();
    }
}

static void co_wait_for_end(const Waiter *w)
{
    while (w->ended == 0) {
        blk_co_sleep_ns(MS(1));
    }
    co_let_others_run(5);
    ck_assert_uint_eq(w->ended, 1);
}

static int co_ready_before(void *opaque)
{
    Waiter w;

    waiter_init(&w);
    ck_assert_int_eq(write(w.fds[1], "x", 1), 1);
    ck_assert_int_eq(blk_co_poll(&w.poll, w.fds[0], POLLIN, UINT64_MAX), POLLIN);
    /* A deadline that has passed asks once. */
    ck_assert_int_eq(blk_co_poll(&w.poll, w.fds[0], POLLIN, 0), POLLIN);
    ck_assert_int_eq(blk_co_poll(&w.poll, w.fds[0], POLLOUT, UINT64_MAX), POLLOUT);
    waiter_clear(&w);
    return 0;
}

START_TEST(what_is_ready_is_told)
{
    run(co_ready_before, NULL);
}
END_TEST

static int co_ready_later(void *opaque)
{
    Waiter w;

    waiter_init(&w);
    blk_co_spawn(blk_co_context(), waiter_co_wait, &w);
    co_let_others_run(5);
    ck_assert_uint_eq(w.ended, 0);
    ck_assert(blk_context_is_alone(blk_co_context()));     /* who polls is in nobody's way */
    ck_assert_int_eq(write(w.fds[1], "x", 1), 1);
    co_wait_for_end(&w);
    ck_assert_int_eq(w.result, POLLIN);
    waiter_clear(&w);
    return 0;
}

START_TEST(what_becomes_ready_is_told)
{
    run(co_ready_later, NULL);
}
END_TEST

static int co_hang_up(void *opaque)
{
    Waiter w;

    waiter_init(&w);
    blk_co_spawn(blk_co_context(), waiter_co_wait, &w);
    co_let_others_run(5);
    close(w.fds[1]);
    w.fds[1] = -1;
    co_wait_for_end(&w);
    ck_assert(w.result & POLLHUP);
    waiter_clear(&w);
    return 0;
}

START_TEST(the_other_end_closes)
{
    run(co_hang_up, NULL);
}
END_TEST

static int co_bad_descriptor(void *opaque)
{
    BlkPoll poll = { .co = NULL };
    int fd = dup(0);

    ck_assert_int_ge(fd, 0);
    close(fd);
    ck_assert_int_eq(blk_co_poll(&poll, fd, POLLIN, UINT64_MAX), -EBADF);
    return 0;
}

START_TEST(no_file_descriptor)
{
    run(co_bad_descriptor, NULL);
}
END_TEST

static int co_time_out(void *opaque)
{
    Waiter w;
    uint64_t begin_ns = blk_clock_ns();

    waiter_init(&w);
    ck_assert_int_eq(blk_co_poll(&w.poll, w.fds[0], POLLIN, begin_ns + MS(20)), -ETIMEDOUT);
    ck_assert_uint_ge(blk_clock_ns(), begin_ns + MS(20));
    ck_assert_int_eq(blk_co_poll(&w.poll, w.fds[0], POLLIN, 0), -ETIMEDOUT);
    /* The timer of one that was ready in time is gone. */
    ck_assert_int_eq(write(w.fds[1], "x", 1), 1);
    ck_assert_int_eq(blk_co_poll(&w.poll, w.fds[0], POLLIN, begin_ns + MS(3600000)), POLLIN);
    ck_assert_ptr_null(blk_timer_heap_first(&blk_co_context()->timers));
    waiter_clear(&w);
    return 0;
}

START_TEST(time_runs_out)
{
    run(co_time_out, NULL);
}
END_TEST

/* @turns: of the loop between beginning and cancel: at 0 the waiter has not begun, at 1 the kernel has not heard. */
static void co_cancel_after(unsigned turns, bool ready, bool with_deadline)
{
    Waiter w;

    waiter_init(&w);
    w.deadline_ns = with_deadline ? blk_clock_ns() + MS(3600000) : UINT64_MAX;
    blk_co_spawn(blk_co_context(), waiter_co_wait, &w);
    co_let_others_run(turns);
    if (ready) {
        ck_assert_int_eq(write(w.fds[1], "x", 1), 1);
    }
    ck_assert_uint_eq(w.ended, 0);
    blk_poll_cancel(&w.poll);
    blk_poll_cancel(&w.poll);
    ck_assert_uint_eq(w.ended, 0);
    if (turns == 0) {       /* nobody waited */
        co_let_others_run(3);
        if (!ready) {
            ck_assert_uint_eq(w.ended, 0);
            blk_poll_cancel(&w.poll);
        }
    }
    co_wait_for_end(&w);
    ck_assert_int_eq(w.result, turns == 0 && ready ? POLLIN : -ECANCELED);
    blk_poll_cancel(&w.poll);
    /* The same one can be used again at once. */
    ck_assert_int_eq(blk_co_poll(&w.poll, w.fds[0], POLLOUT, UINT64_MAX), POLLOUT);
    ck_assert_ptr_null(blk_timer_heap_first(&blk_co_context()->timers));
    waiter_clear(&w);
}

static int co_cancels(void *opaque)
{
    for (unsigned i = 0; i < 16; i++) {
        co_cancel_after(i / 4, i & 1, i & 2);
    }
    return 0;
}

START_TEST(cancel_at_every_moment)
{
    run(co_cancels, NULL);
}
END_TEST

/* It is ready, and the engine has said so, but its coroutine has not run: still -ECANCELED. */
static int co_cancel_woken(void *opaque)
{
    Waiter first, second;

    waiter_init(&first);
    waiter_init(&second);
    for (unsigned i = 0; i < 2; i++) {
        Waiter *w = i ? &first : &second;

        blk_co_spawn(blk_co_context(), waiter_co_wait, w);
    }
    co_let_others_run(3);
    ck_assert_int_eq(write(first.fds[1], "x", 1), 1);
    ck_assert_int_eq(write(second.fds[1], "x", 1), 1);
    /* This coroutine polls as well, and may run between them. */
    while (first.poll.watched) {
        blk_co_reschedule();
    }
    ck_assert_uint_eq(first.ended, 0);
    blk_poll_cancel(&first.poll);
    co_wait_for_end(&first);
    ck_assert_int_eq(first.result, -ECANCELED);
    co_wait_for_end(&second);
    waiter_clear(&first);
    waiter_clear(&second);
    return 0;
}

START_TEST(cancel_of_one_that_was_woken)
{
    run(co_cancel_woken, NULL);
}
END_TEST

enum { MANY = 700 };

/* More than the rings have places; some become ready, some run out of time, the rest is cancelled. */
static int co_many(void *opaque)
{
    g_autofree Waiter *w = g_new(Waiter, MANY);
    char buf[4096] = { 0 };
    BlkAioFile file = { .fd = open("/dev/zero", O_RDONLY | O_CLOEXEC) };
    struct iovec vec = { buf, sizeof(buf) };
    BlkPoll last = { .co = NULL };
    uint64_t soon_ns;

    for (unsigned i = 0; i < MANY; i++) {
        waiter_init(&w[i]);
    }
    soon_ns = blk_clock_ns() + MS(20);
    for (unsigned i = 0; i < MANY; i++) {
        w[i].deadline_ns = i % 3 == 1 ? soon_ns : UINT64_MAX;
        blk_co_spawn(blk_co_context(), waiter_co_wait, &w[i]);
    }
    co_let_others_run(1);
    /* Who comes last need not wait for those before him. */
    ck_assert_int_eq(blk_co_poll(&last, w[0].fds[0], POLLOUT, UINT64_MAX), POLLOUT);
    ck_assert_int_eq(blk_aio_co_preadv(blk_co_context(), &file, 0, sizeof(buf), (BlkIov){ &vec, 1, 0 }), 0);
    for (unsigned i = 0; i < MANY; i += 3) {
        ck_assert_int_eq(write(w[i].fds[1], "x", 1), 1);
    }
    blk_co_sleep_until_ns(blk_co_context(), soon_ns + MS(1));
    for (unsigned i = 2; i < MANY; i += 3) {
        ck_assert_uint_eq(w[i].ended, 0);
        blk_poll_cancel(&w[i].poll);
    }
    for (unsigned i = 0; i < MANY; i++) {
        static const int expected[] = { POLLIN, -ETIMEDOUT, -ECANCELED };

        co_wait_for_end(&w[i]);
        ck_assert_msg(w[i].result == expected[i % 3], "%u: %d", i, w[i].result);
        waiter_clear(&w[i]);
    }
    close(file.fd);
    return 0;
}

START_TEST(many_at_once)
{
    struct rlimit limit;

    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = MIN(limit.rlim_max, 4096);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    run(co_many, NULL);
}
END_TEST

/* Two that hand a byte to and fro, beside one that never gets anything. */
static int echo_co_run(void *opaque)
{
    Waiter *w = opaque;
    char c;

    for (unsigned i = 0; i < 1000; i++) {
        while (read(w->fds[0], &c, 1) != 1) {
            ck_assert_int_eq(blk_co_poll(&w->poll, w->fds[0], POLLIN, UINT64_MAX), POLLIN);
        }
        ck_assert_int_eq(write(w->fds[0], &c, 1), 1);
    }
    return 0;
}

static int co_ping_pong(void *opaque)
{
    Waiter idle, echo;
    BlkPoll poll = { .co = NULL };
    BlkCoGroup group = { .limit = 2 };
    char c = 'a';

    waiter_init(&idle);
    waiter_init(&echo);
    ck_assert_int_eq(blk_co_group_run(&group, waiter_co_wait, &idle), 0);
    ck_assert_int_eq(blk_co_group_run(&group, echo_co_run, &echo), 0);
    for (unsigned i = 0; i < 1000; i++) {
        ck_assert_int_eq(write(echo.fds[1], &c, 1), 1);
        while (read(echo.fds[1], &c, 1) != 1) {
            ck_assert_int_eq(blk_co_poll(&poll, echo.fds[1], POLLIN, UINT64_MAX), POLLIN);
        }
    }
    blk_poll_cancel(&idle.poll);
    ck_assert_int_eq(blk_co_group_wait(&group), 0);
    ck_assert_int_eq(idle.result, -ECANCELED);
    waiter_clear(&idle);
    waiter_clear(&echo);
    return 0;
}

START_TEST(to_and_fro)
{
    run(co_ping_pong, NULL);
}
END_TEST

/* ---- sleeping ---- */

typedef struct Sleeper {
    BlkSleep sleep;
    uint64_t deadline_ns;
    int result;
    unsigned ended;
} Sleeper;

static int sleeper_co_sleep(void *opaque)
{
    Sleeper *s = opaque;

    s->result = blk_co_sleep_cancellable(&s->sleep, s->deadline_ns);
    s->ended++;
    return 0;
}

static int co_sleep(void *opaque)
{
    enum { SLEEPERS = 101 };
    Sleeper s[SLEEPERS] = { { .ended = 0 } };
    uint64_t now = blk_clock_ns();

    for (unsigned i = 0; i < SLEEPERS; i++) {
        s[i].deadline_ns = i % 2 ? now + MS(3600000) + i * 7919 % 101 : now + MS(10);
        blk_co_spawn(blk_co_context(), sleeper_co_sleep, &s[i]);
    }
    blk_co_sleep_ns(MS(11));
    for (unsigned i = 0; i < SLEEPERS; i++) {
        blk_sleep_cancel(&s[i].sleep);
        blk_sleep_cancel(&s[i].sleep);
    }
    co_let_others_run(3);
    for (unsigned i = 0; i < SLEEPERS; i++) {
        ck_assert_uint_eq(s[i].ended, 1);
        ck_assert_int_eq(s[i].result, i % 2 ? -ECANCELED : 0);
    }
    ck_assert_ptr_null(blk_timer_heap_first(&blk_co_context()->timers));
    return 0;
}

static int co_nothing(void *opaque)
{
    return 7;
}

static void chore(BlkTimer *timer)
{
    ck_abort_msg("an hour is not over");
}

/* Whoever else sleeps, or has something to do in an hour: what was to be run has ended. */
START_TEST(others_do_not_hold_up_the_end)
{
    g_autoptr(BlkContext) ctx = blk_context_new(NULL, NULL);
    Sleeper s = { .deadline_ns = blk_clock_ns() + MS(3600000) };
    BlkTimer timer = { 0 };

    blk_timer_start(&ctx->chores, &timer, s.deadline_ns, chore);
    ck_assert_int_eq(blk_run(ctx, co_nothing, NULL), 7);
    blk_co_spawn(ctx, sleeper_co_sleep, &s);
    ck_assert_int_eq(blk_run(ctx, co_nothing, NULL), 7);
    ck_assert_int_eq(blk_run(ctx, co_nothing, NULL), 7);
    blk_sleep_cancel(&s.sleep);
    blk_timer_stop(&ctx->chores, &timer);
}
END_TEST

START_TEST(sleep_that_is_called_off)
{
    run(co_sleep, NULL);
}
END_TEST

static void never(BlkTimer *timer)
{
    ck_abort_msg("expired");
}

/* Any may be stopped, and the others stay in order. */
static void check_stopped_timers(uint32_t seed)
{
    enum { TIMERS = 100 };
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    BlkTimer timers[TIMERS] = { { .place = 0 } };
    BlkTimerHeap heap = { .timers = NULL };
    uint64_t last_ns = 0;

    blk_timer_heap_init(&heap);
    for (unsigned i = 0; i < TIMERS; i++) {
        blk_timer_start(&heap, &timers[i], (uint64_t)g_rand_int_range(rand, 0, 1000), never);
    }
    for (unsigned i = 0; i < TIMERS; i++) {
        if (g_rand_boolean(rand)) {
            blk_timer_stop(&heap, &timers[i]);
            blk_timer_stop(&heap, &timers[i]);
        }
    }
    for (const BlkTimer *first = blk_timer_heap_first(&heap); first; first = blk_timer_heap_first(&heap)) {
        ck_assert_msg(first->deadline_ns >= last_ns, "seed %u", seed);
        last_ns = first->deadline_ns;
        blk_timer_stop(&heap, &timers[first - timers]);
    }
    blk_timer_heap_clear(&heap);
}

START_TEST(timers_that_are_stopped)
{
    uint32_t seed = g_random_int();

    for (unsigned i = 0; i < 200; i++) {
        check_stopped_timers(seed + i);
    }
}
END_TEST

BLK_TEST_MAIN("poll", what_is_ready_is_told, what_becomes_ready_is_told, the_other_end_closes, no_file_descriptor,
              time_runs_out, cancel_at_every_moment, cancel_of_one_that_was_woken, many_at_once, to_and_fro,
              others_do_not_hold_up_the_end, sleep_that_is_called_off, timers_that_are_stopped)
