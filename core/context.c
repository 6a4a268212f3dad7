/* SPDX-License-Identifier: MIT */
/*
 * context.c - the context: one thread, one event loop, its coroutines.
 *
 * One turn of the loop:
 *
 *     run every coroutine that is ready  ->  the engine sends and reaps I/O, sleeping if nobody is ready
 *       ->  finished work of the pools and expired timers make coroutines ready  ->  next turn
 *
 * When nobody is ready and nothing is outstanding, nothing can ever happen again: that is a bug in this program, and the
 * loop aborts with a message rather than sleep for ever.
 *
 * Limitations: only polls and sleeps can be cancelled, by who owns them; freeing a context waits for all coroutines.
 */
#include "core/loop.h"
#include "core/object.h"

#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define MAX_IDLE_COROUTINES 256
#define MAX_IO_THREADS      16
#define MAX_WORKERS         256
#define WORKER_BATCH        8

/* ---- coroutines ---- */

static void make_ready(BlkContext *ctx, BlkCo *co)
{
    co->state = BLK_CO_READY;
    co->next = NULL;
    if (ctx->ready_tail) {
        ctx->ready_tail->next = co;
    } else {
        ctx->ready_head = co;
    }
    ctx->ready_tail = co;
}

void blk_context_spawn(BlkContext *ctx, BlkCoFn *fn, void *opaque, BlkCoGroup *group)
{
    BlkCo *co = ctx->idle;

    if (co) {
        ctx->idle = co->next;
        ctx->n_idle--;
    } else {
        co = blk_coroutine_new(ctx);
    }
    co->fn = fn;
    co->opaque = opaque;
    co->group = group;
    ctx->n_live++;
    make_ready(ctx, co);
}

void blk_co_spawn(BlkContext *ctx, BlkCoFn *fn, void *opaque)
{
    blk_context_spawn(ctx, fn, opaque, NULL);
}

static void retire(BlkContext *ctx, BlkCo *co)
{
    if (co->group) {
        blk_co_group_task_done(co->group, co->ret);
    }
    ctx->n_live--;
    co->state = BLK_CO_IDLE;
    if (ctx->n_idle < MAX_IDLE_COROUTINES) {
        co->next = ctx->idle;
        ctx->idle = co;
        ctx->n_idle++;
    } else {
        blk_coroutine_free(co);
    }
}

/* Those that become ready meanwhile wait for the next turn, so that I/O and timers get theirs. */
static void run_ready(BlkContext *ctx)
{
    BlkCo *co = ctx->ready_head;

    ctx->ready_head = ctx->ready_tail = NULL;
    while (co) {
        ctx->turn_next = co->next;
        co->state = BLK_CO_RUNNING;
        ctx->inline_ops = 0;
        if (blk_coroutine_enter(co)) {
            retire(ctx, co);
        }
        co = ctx->turn_next;
    }
}

void blk_co_yield(void)
{
    BlkCo *co = blk_co_self();

    g_assert(co != NULL);
    if (co->on_sleep) {
        void (*fn)(void *opaque) = co->on_sleep;

        co->on_sleep = NULL;
        fn(co->on_sleep_opaque);
    }
    co->state = BLK_CO_ASLEEP;
    blk_coroutine_leave();
}

void blk_co_on_sleep(void (*fn)(void *opaque), void *opaque)
{
    BlkCo *co = blk_co_self();

    co->on_sleep = fn;
    co->on_sleep_opaque = opaque;
}

void blk_co_wake(BlkCo *co)
{
    g_assert(co->state == BLK_CO_ASLEEP);
    make_ready(co->ctx, co);
}

void blk_co_reschedule(void)
{
    BlkCo *co = blk_co_self();

    g_assert(co != NULL);
    make_ready(co->ctx, co);
    blk_coroutine_leave();
}

void blk_context_complete(BlkContext *ctx, BlkCo *co)
{
    g_assert(ctx->outstanding > 0);
    ctx->outstanding--;
    blk_co_wake(co);
}

/* ---- work that other threads have finished ---- */

void blk_context_finish_work(BlkContext *ctx, BlkWork *work)
{
    BlkWork *head = atomic_load(&ctx->finished);

    do {
        work->next = head;
    } while (!atomic_compare_exchange_weak(&ctx->finished, &head, work));
}

void blk_context_kick(BlkContext *ctx)
{
    if (atomic_exchange(&ctx->asleep, false)) {
        uint64_t one = 1;

        while (write(ctx->event_fd, &one, sizeof(one)) < 0) {
            g_assert(errno == EINTR);
        }
    }
}

static void reap_work(BlkContext *ctx)
{
    BlkWork *work = atomic_load(&ctx->finished) ? atomic_exchange(&ctx->finished, NULL) : NULL;
    BlkWork *in_order = NULL;

    while (work) {
        BlkWork *next = work->next;

        work->next = in_order;
        in_order = work;
        work = next;
    }
    while (in_order) {
        BlkWork *next = in_order->next;

        blk_context_complete(ctx, in_order->co);
        in_order = next;
    }
}

/* ---- the loop ---- */

static bool can_progress(const BlkContext *ctx)
{
    return ctx->ready_head || ctx->outstanding > 0 || ctx->polling > 0 || blk_timer_heap_first(&ctx->timers);
}

static int64_t time_to_sleep(const BlkContext *ctx)
{
    const BlkTimer *first = blk_timer_heap_first(&ctx->timers), *chore = blk_timer_heap_first(&ctx->chores);
    uint64_t deadline_ns = MIN(first ? first->deadline_ns : UINT64_MAX, chore ? chore->deadline_ns : UINT64_MAX), now;

    if (ctx->ready_head) {
        return 0;
    }
    if (deadline_ns == UINT64_MAX) {
        return -1;
    }
    now = blk_clock_ns();
    return deadline_ns > now ? (int64_t)MIN(deadline_ns - now, (uint64_t)INT64_MAX) : 0;
}

/* @done: (nullable): what is waited for has ended, and with it the turn. */
static void turn(BlkContext *ctx, const bool *done)
{
    int64_t timeout_ns;

    if (!can_progress(ctx)) {
        g_error("deadlock: %u coroutines are asleep and nothing is outstanding that could wake one", ctx->n_live);
    }
    run_ready(ctx);
    if ((done && *done) || !can_progress(ctx)) {
        return;     /* the caller knows whether that is the end */
    }
    timeout_ns = time_to_sleep(ctx);
    if (timeout_ns == 0) {
        ctx->engine->poll(ctx->engine_state, 0);
    } else {
        blk_context_wait(ctx, timeout_ns);
    }
    reap_work(ctx);
    blk_timer_heap_expire(&ctx->timers);
    blk_timer_heap_expire(&ctx->chores);
}

typedef struct RunState {
    BlkCoFn *fn;
    void *opaque;
    int ret;
    bool done;
} RunState;

static int run_entry(void *opaque)
{
    RunState *run = opaque;

    run->ret = run->fn(run->opaque);
    run->done = true;
    return 0;
}

int blk_run(BlkContext *ctx, BlkCoFn *fn, void *opaque)
{
    RunState run = { .fn = fn, .opaque = opaque };

    if (blk_co_self()) {
        g_assert(blk_co_context() == ctx);
        return fn(opaque);
    }
    g_assert(g_thread_self() == ctx->owner);
    blk_co_spawn(ctx, run_entry, &run);
    while (!run.done) {
        turn(ctx, &run.done);
    }
    return run.ret;
}

/* ---- making and freeing ---- */

static int choose_engine(BlkContext *ctx, const char *aio, GError **error)
{
    static const BlkAioEngine *const engines[] = { &blk_aio_uring, &blk_aio_threads };
    const char *wanted = aio ? aio : g_getenv("BLKSTACK_AIO");

    if (wanted && *wanted == '\0') {
        wanted = NULL;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(engines); i++) {
        bool last = i + 1 == G_N_ELEMENTS(engines);

        if (wanted && !g_str_equal(wanted, engines[i]->name)) {
            continue;
        }
        ctx->engine_state = engines[i]->create(ctx, wanted || last ? error : NULL);
        ctx->engine = engines[i];
        if (ctx->engine_state) {
            return 0;
        }
        if (wanted || last) {
            return -EIO;
        }
    }
    return blk_error(error, -EINVAL, "unknown I/O engine '%s': use 'io_uring' or 'threads'", wanted);
}

static int count_workers(unsigned *workers, GError **error)
{
    const char *text = g_getenv("BLKSTACK_WORKERS");
    guint64 n = CLAMP(g_get_num_processors(), 1, MAX_WORKERS);

    if (text && *text && !g_ascii_string_to_unsigned(text, 10, 1, MAX_WORKERS, &n, NULL)) {
        return blk_error(error, -EINVAL, "BLKSTACK_WORKERS is '%s': it must be a number from 1 to %d", text, MAX_WORKERS);
    }
    *workers = (unsigned)n;
    return 0;
}

static void free_runtime(BlkContext *ctx)
{
    while (ctx->idle) {
        BlkCo *co = ctx->idle;

        ctx->idle = co->next;
        blk_coroutine_free(co);
    }
    blk_pool_free(ctx->workers);
    blk_pool_free(ctx->io_threads);
    if (ctx->engine_state) {
        ctx->engine->destroy(ctx->engine_state);
    }
    if (ctx->event_fd >= 0) {
        close(ctx->event_fd);
    }
    blk_timer_heap_clear(&ctx->timers);
    blk_timer_heap_clear(&ctx->chores);
    g_free(ctx);
}

BlkContext *blk_context_new(const char *aio, GError **error)
{
    BlkContext *ctx = g_new0(BlkContext, 1);
    unsigned workers = 0;

    ctx->owner = g_thread_self();
    blk_timer_heap_init(&ctx->timers);
    blk_timer_heap_init(&ctx->chores);
    ctx->event_fd = eventfd(0, EFD_CLOEXEC);
    if (ctx->event_fd < 0) {
        blk_error_errno(error, -errno, "cannot make an eventfd for the event loop");
        free_runtime(ctx);
        return NULL;
    }
    if (count_workers(&workers, error) < 0 || choose_engine(ctx, aio, error) < 0) {
        free_runtime(ctx);
        return NULL;
    }
    ctx->workers = blk_pool_new(ctx, "blk-worker", workers, WORKER_BATCH);
    ctx->io_threads = blk_pool_new(ctx, "blk-io", MAX_IO_THREADS, 0);
    ctx->graph = blk_graph_new(ctx);
    ctx->objects = blk_objects_new();
    return ctx;
}

void blk_context_need_workers(BlkContext *ctx, unsigned workers)
{
    blk_pool_allow(ctx->workers, MIN(workers, MAX_WORKERS));
}

void blk_context_free(BlkContext *ctx)
{
    if (ctx == NULL) {
        return;
    }
    g_assert(blk_co_self() == NULL && g_thread_self() == ctx->owner);
    while (ctx->n_live > 0) {
        turn(ctx, NULL);
    }
    g_clear_pointer(&ctx->jobs, g_ptr_array_unref);
    blk_graph_free(ctx->graph);
    blk_objects_free(ctx->objects);
    free_runtime(ctx);
}

const char *blk_context_aio_name(const BlkContext *ctx)
{
    return ctx->engine->name;
}

unsigned blk_context_workers(const BlkContext *ctx)
{
    return blk_pool_threads(ctx->workers);
}

BlkGraph *blk_context_graph(const BlkContext *ctx)
{
    return ctx->graph;
}

GPtrArray **blk_context_jobs(BlkContext *ctx)
{
    return &ctx->jobs;
}
