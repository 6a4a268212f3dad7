/* SPDX-License-Identifier: MIT */
/* test_pool.c - work and blocking calls on other threads. */
#include "core/loop.h"
#include "test.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

static BlkContext *new_context(void)
{
    g_autoptr(GError) error = NULL;
    BlkContext *ctx = blk_context_new(NULL, &error);

    ck_assert_msg(ctx != NULL, "%s", error ? error->message : "no message");
    return ctx;
}

typedef struct Job {
    unsigned number;
    GThread *thread;
    atomic_uint *running, *most;
    unsigned done;
} Job;

static int square(void *arg)
{
    Job *job = arg;
    unsigned running = atomic_fetch_add(job->running, 1) + 1;
    unsigned most = atomic_load(job->most);

    while (running > most && !atomic_compare_exchange_weak(job->most, &most, running)) {
    }
    job->thread = g_thread_self();
    ck_assert_ptr_null(blk_co_self());
    job->done++;
    atomic_fetch_sub(job->running, 1);
    return (int)(job->number * job->number);
}

static int offload_task(void *opaque)
{
    Job *job = opaque;

    for (unsigned i = 0; i < 3; i++) {
        ck_assert_int_eq(blk_co_offload(square, job), (int)(job->number * job->number));
    }
    return 0;
}

enum { N_JOBS = 1000 };

static int offload_main(void *opaque)
{
    BlkCoGroup group = BLK_CO_GROUP_INIT(N_JOBS);
    Job *jobs = opaque;

    for (unsigned i = 0; i < N_JOBS; i++) {
        ck_assert_int_eq(blk_co_group_run(&group, offload_task, &jobs[i]), 0);
    }
    return blk_co_group_wait(&group);
}

static void run_offload(unsigned max_threads)
{
    g_autoptr(BlkContext) ctx = new_context();
    g_autofree Job *jobs = g_new0(Job, N_JOBS);
    atomic_uint running = 0, most = 0;

    for (unsigned i = 0; i < N_JOBS; i++) {
        jobs[i] = (Job){ .number = i, .running = &running, .most = &most };
    }
    ck_assert_int_eq(blk_run(ctx, offload_main, jobs), 0);
    for (unsigned i = 0; i < N_JOBS; i++) {
        ck_assert_uint_eq(jobs[i].done, 3);
        ck_assert_ptr_ne(jobs[i].thread, g_thread_self());
    }
    ck_assert_uint_ge(most, 1);
    ck_assert_uint_le(most, max_threads);
}

START_TEST(offload_from_a_thousand_coroutines)
{
    g_unsetenv("BLKSTACK_WORKERS");
    run_offload(g_get_num_processors());
}
END_TEST

static int note_thread(void *arg)
{
    *(GThread **)arg = g_thread_self();
    return 7;
}

static int short_task(void *opaque)
{
    ck_assert_int_eq(blk_co_offload_short(note_thread, opaque), 7);
    return 0;
}

static int short_main(void *opaque)
{
    BlkCoGroup group = BLK_CO_GROUP_INIT(3);
    GThread *alone, *threads[3] = { NULL };

    ck_assert_int_eq(blk_co_offload_short(note_thread, &alone), 7);
    ck_assert_ptr_eq(alone, g_thread_self());
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++) {
        ck_assert_int_eq(blk_co_group_run(&group, short_task, &threads[i]), 0);
    }
    ck_assert_int_eq(blk_co_offload_short(note_thread, &alone), 7);     /* the tasks are ready */
    ck_assert_ptr_ne(alone, g_thread_self());
    ck_assert_int_eq(blk_co_group_wait(&group), 0);
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++) {
        ck_assert_ptr_ne(threads[i], g_thread_self());                  /* this one's job is in flight, or those of others */
    }
    return 0;
}

static BlkContext *new_context_with_workers(const char *workers)
{
    g_setenv("BLKSTACK_WORKERS", workers, true);

    BlkContext *ctx = new_context();

    g_unsetenv("BLKSTACK_WORKERS");
    return ctx;
}

/* Nobody waits for short work that is done in the loop's thread; where there are many workers, none else is. */
START_TEST(short_work_is_done_here_if_nobody_waits)
{
    g_autoptr(BlkContext) ctx = new_context_with_workers("8");

    ck_assert_int_eq(blk_run(ctx, short_main, NULL), 0);
}
END_TEST

/* ---- a loop that has nothing to do helps ---- */

enum { HELPED_JOBS = 8, PATIENCE_US = 5000000 };

typedef struct Helping {
    atomic_uint done;           /* short jobs */
    GThread *threads[HELPED_JOBS];
    bool gave_up;               /* the long job did */
} Helping;

/* Keeps the only worker until the short jobs are done. */
static int hold_worker(void *arg)
{
    Helping *h = arg;
    gint64 until = g_get_monotonic_time() + PATIENCE_US;

    while (atomic_load(&h->done) < HELPED_JOBS && !h->gave_up) {
        g_usleep(100);
        h->gave_up = g_get_monotonic_time() > until;
    }
    return 0;
}

static int hold_task(void *opaque)
{
    return blk_co_offload(hold_worker, opaque);
}

static int helped_job(void *arg)
{
    Helping *h = arg;

    h->threads[atomic_fetch_add(&h->done, 1)] = g_thread_self();
    return 7;
}

static int helped_task(void *opaque)
{
    ck_assert_int_eq(blk_co_offload_short(helped_job, opaque), 7);
    return 0;
}

static int helping_main(void *opaque)
{
    BlkCoGroup group = BLK_CO_GROUP_INIT(HELPED_JOBS + 1);

    ck_assert_int_eq(blk_co_group_run(&group, hold_task, opaque), 0);
    for (unsigned i = 0; i < HELPED_JOBS; i++) {
        ck_assert_int_eq(blk_co_group_run(&group, helped_task, opaque), 0);
    }
    return blk_co_group_wait(&group);
}

/* The worker is kept by a job that waits for the others, so only the loop can do them. */
START_TEST(the_loop_does_short_jobs_itself)
{
    g_autoptr(BlkContext) ctx = new_context_with_workers("1");
    Helping h = { .gave_up = false };

    ck_assert_int_eq(blk_run(ctx, helping_main, &h), 0);
    ck_assert(!h.gave_up);
    for (unsigned i = 0; i < HELPED_JOBS; i++) {
        ck_assert_ptr_eq(h.threads[i], g_thread_self());
    }
}
END_TEST

static int stay_busy(void *opaque)
{
    Helping *h = opaque;
    gint64 until = g_get_monotonic_time() + PATIENCE_US;

    while (atomic_load(&h->done) < HELPED_JOBS && !h->gave_up) {
        blk_co_reschedule();
        h->gave_up = g_get_monotonic_time() > until;
    }
    return 0;
}

static int busy_main(void *opaque)
{
    BlkCoGroup group = BLK_CO_GROUP_INIT(HELPED_JOBS + 1);

    ck_assert_int_eq(blk_co_group_run(&group, stay_busy, opaque), 0);
    for (unsigned i = 0; i < HELPED_JOBS; i++) {
        ck_assert_int_eq(blk_co_group_run(&group, helped_task, opaque), 0);
    }
    return blk_co_group_wait(&group);
}

/* A loop that never waits does not help: a thread must. */
START_TEST(short_jobs_do_not_wait_for_a_busy_loop)
{
    g_autoptr(BlkContext) ctx = new_context_with_workers("1");
    Helping h = { .gave_up = false };

    ck_assert_int_eq(blk_run(ctx, busy_main, &h), 0);
    ck_assert(!h.gave_up);
}
END_TEST

static int here_main(void *opaque)
{
    GThread *thread;

    blk_pool_set_here(blk_co_context()->workers, true);
    ck_assert_int_eq(blk_co_offload(note_thread, &thread), 7);
    ck_assert_ptr_eq(thread, g_thread_self());
    blk_pool_set_here(blk_co_context()->workers, false);
    ck_assert_int_eq(blk_co_offload(note_thread, &thread), 7);
    ck_assert_ptr_ne(thread, g_thread_self());
    return 0;
}

START_TEST(a_test_may_do_without_workers)
{
    g_autoptr(BlkContext) ctx = new_context();

    ck_assert_int_eq(blk_run(ctx, here_main, NULL), 0);
}
END_TEST

START_TEST(workers_can_be_limited)
{
    g_setenv("BLKSTACK_WORKERS", "1", true);
    run_offload(1);
    g_unsetenv("BLKSTACK_WORKERS");
}
END_TEST

START_TEST(bad_number_of_workers_is_refused)
{
    static const char *const bad[] = { "0", "-1", "many", "257", "1x", "99999999999999999999" };

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;

        g_setenv("BLKSTACK_WORKERS", bad[i], true);
        ck_assert_ptr_null(blk_context_new(NULL, &error));
        ck_assert_ptr_nonnull(error);
        ck_assert_int_eq(error->code, EINVAL);
        ck_assert_ptr_nonnull(strstr(error->message, bad[i]));
    }
    g_unsetenv("BLKSTACK_WORKERS");
}
END_TEST

/* ---- blocking calls ---- */

typedef struct Rendezvous {
    int pipe[2];
    char got;
    bool read_done;
} Rendezvous;

static int blocking_read(void *arg)
{
    Rendezvous *r = arg;

    return read(r->pipe[0], &r->got, 1) == 1 ? 0 : -EIO;
}

static int reader(void *opaque)
{
    Rendezvous *r = opaque;
    int ret = blk_aio_co_call(blk_co_context(), blocking_read, r);

    r->read_done = true;
    return ret;
}

static int rendezvous_main(void *opaque)
{
    BlkCoGroup group = BLK_CO_GROUP_INIT(1);
    Rendezvous *r = opaque;

    /* The loop goes on while a thread of the pool is blocked. */
    blk_co_group_run(&group, reader, r);
    blk_co_sleep_ns(2000000);
    ck_assert(!r->read_done);
    ck_assert_int_eq(write(r->pipe[1], "x", 1), 1);
    ck_assert_int_eq(blk_co_group_wait(&group), 0);
    ck_assert_int_eq(r->got, 'x');
    return 0;
}

START_TEST(blocking_call_does_not_block_the_loop)
{
    g_autoptr(BlkContext) ctx = new_context();
    Rendezvous r = { 0 };

    ck_assert_int_eq(pipe(r.pipe), 0);
    ck_assert_int_eq(blk_run(ctx, rendezvous_main, &r), 0);
    close(r.pipe[0]);
    close(r.pipe[1]);
}
END_TEST

static int refuse(void *arg)
{
    return -ENXIO;
}

static int call_fails(void *opaque)
{
    ck_assert_int_eq(blk_aio_co_call(blk_co_context(), refuse, NULL), -ENXIO);
    return blk_co_offload(refuse, NULL);
}

START_TEST(result_is_passed_on)
{
    g_autoptr(BlkContext) ctx = new_context();

    ck_assert_int_eq(blk_run(ctx, call_fails, NULL), -ENXIO);
}
END_TEST

static int signals_are_blocked(void *arg)
{
    sigset_t mask;

    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    return sigismember(&mask, SIGTERM) == 1 && sigismember(&mask, SIGUSR1) == 1;
}

static int check_signals(void *opaque)
{
    return blk_co_offload(signals_are_blocked, NULL);
}

START_TEST(threads_take_no_signals)
{
    g_autoptr(BlkContext) ctx = new_context();

    ck_assert_int_eq(signals_are_blocked(NULL), 0);
    ck_assert_int_eq(blk_run(ctx, check_signals, NULL), 1);
    ck_assert_int_eq(signals_are_blocked(NULL), 0);
}
END_TEST

static int nothing(void *opaque)
{
    return 0;
}

static int ping(void *opaque)
{
    for (unsigned i = 0; i < 2000; i++) {
        ck_assert_int_eq(blk_co_offload(nothing, NULL), 0);
    }
    return 0;
}

/* One job at a time: a lost wake-up would stop here. */
START_TEST(no_wake_up_is_lost)
{
    g_autoptr(BlkContext) ctx = new_context();

    ck_assert_int_eq(blk_run(ctx, ping, NULL), 0);
}
END_TEST

/* ---- when the loop hears of jobs that have ended ---- */

enum { MANY_WAIT = 100 };       /* jobs for one thread, more than keep it busy while the loop wakes */

typedef struct Hearing {
    unsigned asker;             /* the job that waits until the loop has heard of the first one */
    uint64_t first_us;          /* how long that one takes */
    unsigned next;
    atomic_bool heard;
} Hearing;

static int first_job(void *arg)
{
    Hearing *h = arg;

    g_usleep(h->first_us);
    return 0;
}

static int asking_job(void *arg)
{
    Hearing *h = arg;

    while (!atomic_load(&h->heard)) {
        g_usleep(100);
    }
    return 0;
}

static int hearing_task(void *opaque)
{
    Hearing *h = opaque;
    unsigned number = h->next++;
    int ret = blk_co_offload(number == 0 ? first_job : number == h->asker ? asking_job : nothing, h);

    if (number == 0) {
        atomic_store(&h->heard, true);
    }
    return ret;
}

static int hearing_main(void *opaque)
{
    BlkCoGroup group = BLK_CO_GROUP_INIT(MANY_WAIT);

    for (unsigned i = 0; i < MANY_WAIT; i++) {
        ck_assert_int_eq(blk_co_group_run(&group, hearing_task, opaque), 0);
    }
    return blk_co_group_wait(&group);
}

static void run_hearing(unsigned asker, uint64_t first_us)
{
    g_autoptr(BlkContext) ctx = new_context_with_workers("1");
    Hearing h = { .asker = asker, .first_us = first_us };

    ck_assert_int_eq(blk_run(ctx, hearing_main, &h), 0);
}

/* The thread is busy for long yet. If the loop did not hear, this would not end. */
START_TEST(loop_hears_of_a_batch_of_short_jobs)
{
    run_hearing(MANY_WAIT / 2, 0);
}
END_TEST

START_TEST(loop_hears_of_a_long_job_at_once)
{
    run_hearing(1, 3000);
}
END_TEST

BLK_TEST_MAIN("pool", offload_from_a_thousand_coroutines, short_work_is_done_here_if_nobody_waits,
              the_loop_does_short_jobs_itself, short_jobs_do_not_wait_for_a_busy_loop,
              a_test_may_do_without_workers, workers_can_be_limited, bad_number_of_workers_is_refused,
              blocking_call_does_not_block_the_loop, result_is_passed_on, threads_take_no_signals, no_wake_up_is_lost,
              loop_hears_of_a_batch_of_short_jobs, loop_hears_of_a_long_job_at_once)
