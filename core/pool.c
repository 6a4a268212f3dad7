/* SPDX-License-Identifier: MIT */
/*
 * pool.c - a bounded pool of threads.
 *
 * Jobs wait in a list; a thread is started for a job that finds none idle, up to the maximum. Threads stay until the pool
 * is freed. All signals are blocked in them, so that handlers run in the threads of the program.
 */
#include "core/loop.h"

#include <pthread.h>
#include <signal.h>

struct BlkPool {
    BlkContext *ctx;
    const char *name;
    unsigned max_threads;
    bool here;                  /* blk_co_pool_run() uses no thread */
    GPtrArray *threads;         /* of the loop's thread */

    pthread_mutex_t lock;       /* for what follows */
    pthread_cond_t work;
    BlkJob *head, *tail;
    unsigned waiting;           /* jobs in the list */
    unsigned idle;              /* threads in pthread_cond_wait() */
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

/* Returns: false when the pool has stopped. */
static bool run_job(BlkPool *pool)
{
    BlkJob *job = take_job(pool);

    if (job) {
        job->ret = job->fn(job->arg);
        blk_context_finish_job(pool->ctx, job);
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

BlkPool *blk_pool_new(BlkContext *ctx, const char *name, unsigned max_threads)
{
    BlkPool *pool = g_new0(BlkPool, 1);

    g_assert(max_threads > 0);
    pool->ctx = ctx;
    pool->name = name;
    pool->max_threads = max_threads;
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
    pool->max_threads = MAX(pool->max_threads, max_threads);
}

void blk_pool_set_here(BlkPool *pool, bool here)
{
    pool->here = here;
}

void blk_pool_submit(BlkPool *pool, BlkJob *job)
{
    bool need_thread;

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
    if (pool->idle > 0) {
        pthread_cond_signal(&pool->work);
    }
    pthread_mutex_unlock(&pool->lock);
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
