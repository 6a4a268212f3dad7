/* SPDX-License-Identifier: MIT */
/*
 * pool.c - a bounded pool of threads.
 *
 * Items of work wait in a list; a thread is started for an item that finds none idle, up to the maximum. Threads stay until
 * the pool is freed. All signals are blocked in them, so that handlers run in the threads of the program.
 *
 * To wake the loop takes a thread from its work, twice if it sleeps on the same processor. So in a pool of CPU work, a
 * thread that has finished a short item goes on in silence while the list is long enough to keep all busy until the loop
 * has woken: it hears of a batch at once. It never waits for long, since a thread that ends a long item, or finds
 * the list nearly empty, wakes it.
 *
 * Where processors are few, a loop that has nothing to do takes short items itself, rather than to sleep while a thread runs
 * in its place: there is one thread less for them, and neither has to wake the other.
 */
#include "core/loop.h"

#include <pthread.h>
#include <signal.h>

enum {
    BUSY_ITEMS = 8,             /* waiting items for each thread that keep it busy until the loop brings others */
    SHORT_WORK_NS = 1000000,    /* beside longer work, waking the loop is nothing */
    HELP_THREADS = 4,           /* with more the loop's own share of the work is small, and it has more to do */
};

struct BlkPool {
    BlkContext *ctx;
    const char *name;
    bool here;                  /* blk_co_pool_run() uses no thread */
    unsigned batch;             /* items for each thread of whose end the loop may hear together */
    GPtrArray *threads;         /* of the loop's thread */

    pthread_mutex_t lock;       /* for what follows */
    pthread_cond_t work;
    unsigned max_threads;
    BlkWork *head, *tail;
    atomic_uint waiting;        /* items in the list; the loop looks at it without the lock */
    unsigned waiting_short;     /* ... that are short */
    unsigned idle;              /* threads in pthread_cond_wait() */
    unsigned silent;            /* items that have ended since the loop was woken */
    bool stop;
};

/* The first of the list, or the first short one; NULL: there is none. Context: the lock is held. */
static BlkWork *pop_work(BlkPool *pool, bool only_short)
{
    BlkWork *before = NULL, *work = pool->head;

    while (work && only_short && !work->is_short) {
        before = work;
        work = work->next;
    }
    if (work == NULL) {
        return NULL;
    }
    *(before ? &before->next : &pool->head) = work->next;
    pool->tail = work->next ? pool->tail : before;
    pool->waiting--;
    pool->waiting_short -= work->is_short;
    return work;
}

static BlkWork *take_work(BlkPool *pool)
{
    BlkWork *work;

    pthread_mutex_lock(&pool->lock);
    while (pool->head == NULL && !pool->stop) {
        pool->idle++;
        pthread_cond_wait(&pool->work, &pool->lock);
        pool->idle--;
    }
    work = pop_work(pool, false);
    pthread_mutex_unlock(&pool->lock);
    return work;
}

static bool loop_helps(const BlkPool *pool)
{
    return pool->batch > 0 && pool->max_threads <= HELP_THREADS;
}

bool blk_pool_has_work(const BlkPool *pool)
{
    return pool->waiting > 0 && loop_helps(pool);
}

bool blk_pool_help(BlkPool *pool)
{
    BlkWork *work;

    pthread_mutex_lock(&pool->lock);
    work = pool->waiting_short > 0 ? pop_work(pool, true) : NULL;
    pthread_mutex_unlock(&pool->lock);
    if (work) {
        work->ret = work->fn(work->arg);
        blk_context_complete(pool->ctx, work->co);
    }
    return work != NULL;
}

/* Whoever finds that another item waits may keep silent, for the one who ends that item comes here after him. */
static bool must_wake_loop(BlkPool *pool, bool was_short)
{
    pthread_mutex_lock(&pool->lock);
    pool->silent++;
    bool wake = !was_short || pool->waiting <= BUSY_ITEMS * pool->max_threads ||
                pool->silent >= pool->batch * pool->max_threads;
    if (wake) {
        pool->silent = 0;
    }
    pthread_mutex_unlock(&pool->lock);
    return wake;
}

/* Returns: false when the pool has stopped. */
static bool run_work(BlkPool *pool)
{
    BlkWork *work = take_work(pool);

    if (work) {
        uint64_t begin_ns = pool->batch > 0 ? blk_clock_ns() : 0;
        work->ret = work->fn(work->arg);
        bool was_short = pool->batch > 0 && blk_clock_ns() - begin_ns < SHORT_WORK_NS;
        blk_context_finish_work(pool->ctx, work);
        if (must_wake_loop(pool, was_short)) {
            blk_context_kick(pool->ctx);
        }
    }
    return work != NULL;
}

static void *pool_thread(void *opaque)
{
    while (run_work(opaque)) {
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

/* Of threads, for what is in the list; one at least, since the loop may be busy for long. Context: the lock is held. */
static unsigned threads_wanted(const BlkPool *pool)
{
    bool helped = pool->waiting == pool->waiting_short && loop_helps(pool);

    return helped ? MAX(pool->max_threads, 2) - 1 : pool->max_threads;
}

void blk_pool_submit(BlkPool *pool, BlkWork *work)
{
    bool need_thread, wake_thread;

    work->next = NULL;
    pthread_mutex_lock(&pool->lock);
    if (pool->head) {
        pool->tail->next = work;
    } else {
        pool->head = work;
    }
    pool->tail = work;
    pool->waiting++;
    pool->waiting_short += work->is_short;
    unsigned wanted = threads_wanted(pool);
    need_thread = pool->waiting > pool->idle && pool->threads->len < wanted;
    wake_thread = pool->idle > 0 && pool->threads->len - pool->idle < wanted;
    pthread_mutex_unlock(&pool->lock);
    if (wake_thread) {
        pthread_cond_signal(&pool->work);       /* here, since who wakes needs the lock */
    }
    if (need_thread && !start_thread(pool) && pool->threads->len == 0) {
        run_work(pool);     /* slow, but better than not at all */
    }
}

static int run_and_wait(BlkPool *pool, int (*fn)(void *arg), void *arg, bool is_short)
{
    if (pool->here) {
        return fn(arg);
    }

    BlkWork work = { .fn = fn, .arg = arg, .is_short = is_short, .co = blk_co_self() };

    pool->ctx->outstanding++;
    blk_pool_submit(pool, &work);
    blk_co_yield();
    return work.ret;
}

int blk_co_pool_run(BlkPool *pool, int (*fn)(void *arg), void *arg)
{
    return run_and_wait(pool, fn, arg, false);
}

int blk_co_offload(int (*fn)(void *arg), void *arg)
{
    return blk_co_pool_run(blk_co_context()->workers, fn, arg);
}

int blk_co_offload_short(int (*fn)(void *arg), void *arg)
{
    BlkContext *ctx = blk_co_context();

    return blk_context_is_alone(ctx) ? fn(arg) : run_and_wait(ctx->workers, fn, arg, true);
}
