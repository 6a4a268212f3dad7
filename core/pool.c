/* SPDX-License-Identifier: MIT */
/*
 * pool.c - a bounded pool of threads.
 *
 * Jobs wait in a list; a thread is started for a job that finds none idle, up to the maximum. Threads stay until the pool
 * is freed. All signals are blocked in them, so that handlers run in the threads of the program.
 *
 * To wake the loop takes a thread from its work, twice if it sleeps on the same processor. So in a pool of CPU work, a
 * thread that has finished a short job goes on in silence while the list is long enough to keep all busy until the loop
 * has woken: it hears of a batch at once. It never waits for long, since a thread that ends a long job, or finds
 * the list nearly empty, wakes it.
 */
#include "core/loop.h"

#include <pthread.h>
#include <signal.h>

enum {
    BUSY_JOBS = 8,              /* waiting jobs for each thread that keep it busy until the loop brings others */
    SHORT_JOB_NS = 1000000,     /* beside a longer job, waking the loop is nothing */
};

struct BlkPool {
    BlkContext *ctx;
    const char *name;
    bool here;                  /* blk_co_pool_run() uses no thread */
    unsigned batch;             /* jobs for each thread of whose end the loop may hear together */
    GPtrArray *threads;         /* of the loop's thread */

    pthread_mutex_t lock;       /* for what follows */
    pthread_cond_t work;
    unsigned max_threads;
    BlkJob *head, *tail;
    unsigned waiting;           /* jobs in the list */
    unsigned idle;              /* threads in pthread_cond_wait() */
    unsigned silent;            /* jobs that have ended since the loop was woken */
    bool stop;
};

static BlkJob *take_job(BlkPool *pool)
{
    BlkJob *job;

    pthread_mutex_lock(&pool->lock);
    while (pool->head == NULL && !pool->stop) {
        pool->idle++;
        pthread_cond_wait(&pool->work, &pool->lock);
        pool->idle--;
    }
    job = pool->head;
    if (job) {
        pool->head = job->next;
        pool->waiting--;
    }
    pthread_mutex_unlock(&pool->lock);
    return job;
}

/* Whoever finds that another job waits may keep silent, for the one who ends that job comes here after him. */
static bool must_wake_loop(BlkPool *pool, bool was_short)
{
    pthread_mutex_lock(&pool->lock);
    pool->silent++;
    bool wake = !was_short || pool->waiting <= BUSY_JOBS * pool->max_threads ||
                pool->silent >= pool->batch * pool->max_threads;
    if (wake) {
        pool->silent = 0;
    }
    pthread_mutex_unlock(&pool->lock);
    return wake;
}

/* Returns: false when the pool has stopped. */
static bool run_job(BlkPool *pool)
{
    BlkJob *job = take_job(pool);

    if (job) {
        uint64_t begin_ns = pool->batch > 0 ? blk_clock_ns() : 0;
        job->ret = job->fn(job->arg);
        bool was_short = pool->batch > 0 && blk_clock_ns() - begin_ns < SHORT_JOB_NS;
        blk_context_finish_job(pool->ctx, job);
        if (must_wake_loop(pool, was_short)) {
            blk_context_kick(pool->ctx);
        }
    }
    return job != NULL;
}

static void *pool_thread(void *opaque)
{
    while (run_job(opaque)) {
    }
    return NULL;
}

static bool start_thread(BlkPool *pool)
{
    sigset_t all, old;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);

    GThread *thread = g_thread_try_new(pool->name, pool_thread, pool, NULL);

    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (thread) {
        g_ptr_array_add(pool->threads, thread);
    }
    return thread != NULL;
}

BlkPool *blk_pool_new(BlkContext *ctx, const char *name, unsigned max_threads, unsigned batch)
{
    BlkPool *pool = g_new0(BlkPool, 1);

    g_assert(max_threads > 0);
    pool->ctx = ctx;
    pool->name = name;
    pool->max_threads = max_threads;
    pool->batch = batch;
    pool->threads = g_ptr_array_new();
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    return pool;
}

void blk_pool_free(BlkPool *pool)
{
    if (pool == NULL) {
        return;
    }
    pthread_mutex_lock(&pool->lock);
    g_assert(pool->head == NULL);
    pool->stop = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->threads->len; i++) {
        g_thread_join(pool->threads->pdata[i]);
    }
    g_ptr_array_unref(pool->threads);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    g_free(pool);
}

unsigned blk_pool_threads(const BlkPool *pool)
{
    return pool->max_threads;
}

void blk_pool_allow(BlkPool *pool, unsigned max_threads)
{
    pthread_mutex_lock(&pool->lock);
    pool->max_threads = MAX(pool->max_threads, max_threads);
    pthread_mutex_unlock(&pool->lock);
}

void blk_pool_set_here(BlkPool *pool, bool here)
{
    pool->here = here;
}

void blk_pool_submit(BlkPool *pool, BlkJob *job)
{
    bool need_thread, is_idle;

    job->next = NULL;
    pthread_mutex_lock(&pool->lock);
    if (pool->head) {
        pool->tail->next = job;
    } else {
        pool->head = job;
    }
    pool->tail = job;
    pool->waiting++;
    need_thread = pool->waiting > pool->idle;
    is_idle = pool->idle > 0;
    pthread_mutex_unlock(&pool->lock);
    if (is_idle) {
        pthread_cond_signal(&pool->work);       /* here, since who wakes needs the lock */
    }
    if (need_thread && pool->threads->len < pool->max_threads && !start_thread(pool) && pool->threads->len == 0) {
        run_job(pool);      /* slow, but better than not at all */
    }
}

int blk_co_pool_run(BlkPool *pool, int (*fn)(void *arg), void *arg)
{
    if (pool->here) {
        return fn(arg);
    }

    BlkJob job = { .fn = fn, .arg = arg, .co = blk_co_self() };

    pool->ctx->outstanding++;
    blk_pool_submit(pool, &job);
    blk_co_yield();
    return job.ret;
}

int blk_co_offload(int (*fn)(void *arg), void *arg)
{
    return blk_co_pool_run(blk_co_context()->workers, fn, arg);
}

int blk_co_offload_short(int (*fn)(void *arg), void *arg)
{
    return blk_context_is_alone(blk_co_context()) ? fn(arg) : blk_co_offload(fn, arg);
}
