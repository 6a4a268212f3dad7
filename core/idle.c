/* SPDX-License-Identifier: MIT */
/*
 * idle.c - how the loop waits when nobody is ready.
 *
 *     do a short item of the pool  ->  look for what has ended, again and again, up to spin_ns  ->  sleep in the kernel
 *
 * Who waits for work that nobody has begun does it: that beats being woken when another thread has.
 *
 * To fall asleep and be woken costs more than many a wait: a client on another processor that has got its reply sends the
 * next request sooner than that. So a loop that serves others looks around for a while first, as long as that was worth
 * it: spin_ns is set to the most when a wait was short, and halved when it was long. A loop that nobody sends to sleeps at
 * once.
 */
#include "core/loop.h"

#include <sched.h>

enum {
    MAX_SPIN_NS = 50000,        /* about what it costs to sleep and be woken */
    MIN_SPIN_NS = 3000,         /* less is not worth the trouble */
};

static bool something_ended(const BlkContext *ctx)
{
    return ctx->ready_head || atomic_load_explicit(&ctx->finished, memory_order_relaxed);
}

/* Returns: true if something has ended. */
static bool spin(BlkContext *ctx, uint64_t until_ns)
{
    sched_yield();      /* whom we wait for may need this very processor */
    do {
        ctx->engine->poll(ctx->engine_state, 0);
    } while (!something_ended(ctx) && blk_clock_ns() < until_ns);
    return something_ended(ctx);
}

static void sleep_in_kernel(BlkContext *ctx, int64_t timeout_ns)
{
    atomic_store(&ctx->asleep, true);
    ctx->engine->poll(ctx->engine_state, atomic_load(&ctx->finished) ? 0 : timeout_ns);
    if (atomic_load(&ctx->asleep)) {
        atomic_store(&ctx->asleep, false);
    }
}

/* Returns: true if an item was done, or something else has ended. */
static bool help(BlkContext *ctx)
{
    if (!blk_pool_has_work(ctx->workers)) {
        return false;
    }
    ctx->engine->poll(ctx->engine_state, 0);        /* what is to be read meanwhile is on its way */
    return something_ended(ctx) || blk_pool_help(ctx->workers);
}

void blk_context_wait(BlkContext *ctx, int64_t timeout_ns)
{
    if (help(ctx)) {
        return;
    }

    uint64_t begin_ns = blk_clock_ns();

    if (ctx->polling == 0) {
        sleep_in_kernel(ctx, timeout_ns);
        return;
    }
    if (timeout_ns >= 0 && timeout_ns < MAX_SPIN_NS) {
        ctx->spin_ns = 0;
    }
    if (ctx->spin_ns == 0 || !spin(ctx, begin_ns + ctx->spin_ns)) {
        sleep_in_kernel(ctx, timeout_ns);
    }
    if (blk_clock_ns() - begin_ns <= 2 * MAX_SPIN_NS) {
        ctx->spin_ns = MAX_SPIN_NS;
    } else {
        ctx->spin_ns = ctx->spin_ns / 2 < MIN_SPIN_NS ? 0 : ctx->spin_ns / 2;
    }
}
