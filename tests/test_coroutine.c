/* SPDX-License-Identifier: MIT */
/* test_coroutine.c - switches, stacks, reuse, ready order, timers. */
#include "core/loop.h"
#include "test.h"

#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static BlkContext *new_context(void)
{
    g_autoptr(GError) error = NULL;
    BlkContext *ctx = blk_context_new(NULL, &error);

    ck_assert_msg(ctx != NULL, "%s", error ? error->message : "no message");
    return ctx;
}

static int return_opaque(void *opaque)
{
    ck_assert_ptr_nonnull(blk_co_self());
    return GPOINTER_TO_INT(opaque);
}

static int run_nested(void *opaque)
{
    BlkContext *ctx = blk_co_context();
    BlkCo *self = blk_co_self();
    int ret = blk_run(ctx, return_opaque, GINT_TO_POINTER(7));

    ck_assert_ptr_eq(blk_co_self(), self);
    return ret + 1;
}

START_TEST(run_returns_value)
{
    g_autoptr(BlkContext) ctx = new_context();

    ck_assert_ptr_null(blk_co_self());
    ck_assert_ptr_null(blk_co_context());
    ck_assert_int_eq(blk_run(ctx, return_opaque, GINT_TO_POINTER(-5)), -5);
    ck_assert_int_eq(blk_run(ctx, run_nested, NULL), 8);
    ck_assert_ptr_null(blk_co_self());
}
END_TEST

static int reschedule_often(void *opaque)
{
    unsigned *count = opaque;

    for (unsigned i = 0; i < 100000; i++) {
        ++*count;
        blk_co_reschedule();
    }
    return 0;
}

START_TEST(hundred_thousand_switches)
{
    g_autoptr(BlkContext) ctx = new_context();
    unsigned count = 0;

    ck_assert_int_eq(blk_run(ctx, reschedule_often, &count), 0);
    ck_assert_uint_eq(count, 100000);
}
END_TEST

/* Both write to one log: A and B take turns although neither knows of the other. */
typedef struct Turns {
    GString *log;
    char name;
    unsigned n;
    unsigned *finished;
} Turns;

static int take_turns(void *opaque)
{
    Turns *t = opaque;

    for (unsigned i = 0; i < t->n; i++) {
        g_string_append_c(t->log, t->name);
        blk_co_reschedule();
    }
    ++*t->finished;
    return 0;
}

static int spawn_turns(void *opaque)
{
    Turns *t = opaque;

    blk_co_spawn(blk_co_context(), take_turns, &t[0]);
    blk_co_spawn(blk_co_context(), take_turns, &t[1]);
    g_string_append(t->log, "main ");
    while (*t->finished < 2) {
        blk_co_reschedule();
    }
    return 0;
}

START_TEST(spawned_run_in_order)
{
    g_autoptr(BlkContext) ctx = new_context();
    unsigned finished = 0;
    GString *log = g_string_new(NULL);
    Turns t[2] = { { log, 'a', 4, &finished }, { log, 'b', 4, &finished } };

    blk_run(ctx, spawn_turns, t);
    ck_assert_str_eq(log->str, "main abababab");
    g_string_free(log, true);
}
END_TEST

static int sleeper(void *opaque)
{
    BlkCo **co = opaque;

    *co = blk_co_self();
    blk_co_yield();
    *co = NULL;
    return 0;
}

static int wake_sleeper(void *opaque)
{
    BlkCo *co = NULL;

    blk_co_spawn(blk_co_context(), sleeper, &co);
    ck_assert_ptr_null(co);
    blk_co_reschedule();
    ck_assert_ptr_nonnull(co);
    for (unsigned i = 0; i < 10; i++) {
        blk_co_reschedule();
        ck_assert_ptr_nonnull(co);
    }
    blk_co_wake(co);
    ck_assert_ptr_nonnull(co);
    blk_co_reschedule();
    ck_assert_ptr_null(co);
    return 0;
}

START_TEST(wake_runs_later)
{
    g_autoptr(BlkContext) ctx = new_context();

    ck_assert_int_eq(blk_run(ctx, wake_sleeper, NULL), 0);
}
END_TEST

static int count_deep(unsigned depth, unsigned *reached)
{
    volatile char frame[1024];

    memset((char *)frame, (int)depth, sizeof(frame));
    ++*reached;
    if (depth == 0) {
        blk_co_reschedule();
        return 0;
    }

    int sum = count_deep(depth - 1, reached);

    for (unsigned i = 0; i < sizeof(frame); i++) {
        sum += frame[i] != (char)depth;
    }
    return sum;
}

static int deep(void *opaque)
{
    return count_deep(80, opaque);
}

START_TEST(deep_stack_survives_a_switch)
{
    g_autoptr(BlkContext) ctx = new_context();
    unsigned reached = 0;

    ck_assert_int_eq(blk_run(ctx, deep, &reached), 0);
    ck_assert_uint_eq(reached, 81);
}
END_TEST

typedef struct Many {
    BlkCoQueue queue;
    unsigned n, asleep, done;
    uint64_t sum, damaged;
} Many;

static int one_of_many(void *opaque)
{
    Many *m = opaque;
    unsigned number = m->asleep++;
    char filled[256];

    memset(filled, (int)number, sizeof(filled));
    blk_co_queue_wait(&m->queue);
    for (unsigned i = 0; i < sizeof(filled); i++) {
        m->damaged += filled[i] != (char)number;
    }
    m->sum += number;
    m->done++;
    return 0;
}

static int run_many(void *opaque)
{
    Many *m = opaque;

    for (unsigned i = 0; i < m->n; i++) {
        blk_co_spawn(blk_co_context(), one_of_many, m);
    }
    while (m->asleep < m->n) {
        blk_co_reschedule();
    }
    ck_assert_uint_eq(m->done, 0);
    blk_co_queue_wake_all(&m->queue);
    while (m->done < m->n) {
        blk_co_reschedule();
    }
    return 0;
}

START_TEST(ten_thousand_at_once)
{
    g_autoptr(BlkContext) ctx = new_context();

    /* The second round runs on what the first one left in the pool, and on new ones. */
    for (unsigned round = 0; round < 2; round++) {
        Many m = { .n = 10000 };

        ck_assert_int_eq(blk_run(ctx, run_many, &m), 0);
        ck_assert_uint_eq(m.sum, (uint64_t)10000 * 9999 / 2);
        ck_assert_uint_eq(m.damaged, 0);
    }
}
END_TEST

/* ---- timers ---- */

typedef struct Nap {
    uint64_t deadline_ns;
    unsigned number;
    GArray *order;
} Nap;

static int nap(void *opaque)
{
    Nap *n = opaque;

    blk_co_sleep_until_ns(blk_co_context(), n->deadline_ns);
    g_array_append_val(n->order, n->number);
    return 0;
}

enum { NAPS = 200 };

static int run_naps(void *opaque)
{
    BlkCoGroup group = BLK_CO_GROUP_INIT(NAPS);
    Nap *naps = opaque;

    for (unsigned i = 0; i < NAPS; i++) {
        ck_assert_int_eq(blk_co_group_run(&group, nap, &naps[i]), 0);
    }
    return blk_co_group_wait(&group);
}

/* All deadlines have passed when the loop first looks, so the heap alone decides. Two naps share each deadline. */
START_TEST(timers_end_in_order)
{
    g_autoptr(BlkContext) ctx = new_context();
    GArray *order = g_array_new(false, false, sizeof(unsigned));
    Nap naps[NAPS];

    for (unsigned i = 0; i < NAPS; i++) {
        unsigned place = i * 7 % (NAPS / 2);

        naps[i] = (Nap){ .deadline_ns = 1000 + place, .number = 2 * place + i / (NAPS / 2), .order = order };
    }
    ck_assert_int_eq(blk_run(ctx, run_naps, naps), 0);
    ck_assert_uint_eq(order->len, NAPS);
    for (unsigned i = 0; i < NAPS; i++) {
        ck_assert_uint_eq(g_array_index(order, unsigned, i), i);
    }
    g_array_free(order, true);
}
END_TEST

static int sleep_a_bit(void *opaque)
{
    gint64 before = g_get_monotonic_time();

    blk_co_sleep_ns(0);
    blk_co_sleep_ns(3000000);
    ck_assert_int_ge(g_get_monotonic_time() - before, 3000);
    return 0;
}

START_TEST(sleep_is_not_too_short)
{
    g_autoptr(BlkContext) ctx = new_context();

    ck_assert_int_eq(blk_run(ctx, sleep_a_bit, NULL), 0);
}
END_TEST

static int finish_later(void *opaque)
{
    blk_co_sleep_ns(1000000);
    *(bool *)opaque = true;
    return 0;
}

static int leave_one_behind(void *opaque)
{
    blk_co_spawn(blk_co_context(), finish_later, opaque);
    return 0;
}

START_TEST(free_waits_for_coroutines)
{
    BlkContext *ctx = new_context();
    bool finished = false;

    blk_run(ctx, leave_one_behind, &finished);
    ck_assert(!finished);
    blk_context_free(ctx);
    ck_assert(finished);
}
END_TEST

/* ---- what must abort ---- */

static int sleep_for_ever(void *opaque)
{
    blk_co_yield();
    return 0;
}

START_TEST(deadlock_aborts_with_a_message)
{
    int fds[2], status;
    char text[512];
    ssize_t length = 0, n;
    pid_t child;

    ck_assert_int_eq(pipe(fds), 0);
    child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        dup2(fds[1], STDERR_FILENO);
        dup2(fds[1], STDOUT_FILENO);
        close(fds[0]);
        close(fds[1]);
        blk_run(blk_context_new(NULL, NULL), sleep_for_ever, NULL);
        _exit(0);
    }
    close(fds[1]);
    while ((n = read(fds[0], text + length, sizeof(text) - 1 - (size_t)length)) > 0) {
        length += n;
    }
    text[length] = '\0';
    close(fds[0]);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status));
    ck_assert_ptr_nonnull(strstr(text, "deadlock: 1 coroutines are asleep"));
}
END_TEST

BLK_TEST_MAIN("coroutine", run_returns_value, hundred_thousand_switches, spawned_run_in_order, wake_runs_later,
              deep_stack_survives_a_switch, ten_thousand_at_once, timers_end_in_order, sleep_is_not_too_short,
              free_waits_for_coroutines, deadlock_aborts_with_a_message)
