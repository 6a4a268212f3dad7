/* SPDX-License-Identifier: MIT */
/*
 * poll.c - waiting for a file descriptor, a time, or both.
 *
 *     blk_co_poll -> engine watches fd -+- ready ------------------------------+-> engine: blk_poll_end() -> waiter
 *                                       `- time or cancel: engine unwatches it -'
 *
 * Only the engine's end wakes the waiter, so it is woken once, and the kernel knows nothing of a BlkPoll whose waiter
 * runs again. What came first, the time or the cancel, is the result; a file that became ready meanwhile still is.
 */
#include "core/loop.h"

static void stop_watching(BlkPoll *poll, int result)
{
    poll->result = result;
    poll->ctx->engine->unwatch(poll->ctx->engine_state, poll);
}

static void poll_timed_out(BlkTimer *timer)
{
    BlkPoll *poll = (BlkPoll *)((char *)timer - G_STRUCT_OFFSET(BlkPoll, timer));

    stop_watching(poll, -ETIMEDOUT);
}

int blk_co_poll(BlkPoll *poll, int fd, short events, uint64_t deadline_ns)
{
    BlkContext *ctx = blk_co_context();

    g_assert(poll->co == NULL);
    poll->co = blk_co_self();
    poll->ctx = ctx;
    poll->fd = fd;
    poll->events = events;
    poll->result = 0;
    if (deadline_ns != UINT64_MAX) {
        blk_timer_start(&ctx->timers, &poll->timer, deadline_ns, poll_timed_out);
    }
    ctx->polling++;
    poll->watched = true;
    ctx->engine->watch(ctx->engine_state, poll);
    blk_co_yield();
    poll->co = NULL;
    return poll->result;
}

void blk_poll_end(BlkPoll *poll, int result)
{
    g_assert(poll->watched);
    poll->watched = false;
    poll->ctx->polling--;
    blk_timer_stop(&poll->ctx->timers, &poll->timer);
    if (poll->result == 0) {
        poll->result = result;
    }
    blk_co_wake(poll->co);
}

void blk_poll_cancel(BlkPoll *poll)
{
    if (poll->co && poll->watched && poll->result == 0) {
        stop_watching(poll, -ECANCELED);
    } else if (poll->co) {
        poll->result = -ECANCELED;
    }
}

/* ---- a time alone ---- */

static void sleep_over(BlkTimer *timer)
{
    BlkSleep *sleep = (BlkSleep *)((char *)timer - G_STRUCT_OFFSET(BlkSleep, timer));

    blk_co_wake(sleep->co);
}

int blk_co_sleep_cancellable(BlkSleep *sleep, uint64_t deadline_ns)
{
    g_assert(sleep->co == NULL);
    sleep->co = blk_co_self();
    sleep->ctx = blk_co_context();
    sleep->result = 0;
    blk_timer_start(&sleep->ctx->timers, &sleep->timer, deadline_ns, sleep_over);
    blk_co_yield();
    sleep->co = NULL;
    return sleep->result;
}

void blk_sleep_cancel(BlkSleep *sleep)
{
    if (sleep->co == NULL) {
        return;
    }
    sleep->result = -ECANCELED;
    if (sleep->timer.place > 0) {
        blk_timer_stop(&sleep->ctx->timers, &sleep->timer);
        blk_co_wake(sleep->co);
    }
}

void blk_co_sleep_until_ns(BlkContext *ctx, uint64_t deadline_ns)
{
    BlkSleep sleep = { .co = NULL };

    blk_co_sleep_cancellable(&sleep, deadline_ns);
}

void blk_co_sleep_ns(uint64_t ns)
{
    uint64_t deadline_ns;

    if (!g_uint64_checked_add(&deadline_ns, blk_clock_ns(), ns)) {
        deadline_ns = UINT64_MAX;
    }
    blk_co_sleep_until_ns(blk_co_context(), deadline_ns);
}
