/* SPDX-License-Identifier: MIT */
/*
 * loop.h - the inside of a context, for the files that make it up: the loop, the pools and the I/O engines.
 *
 * A coroutine that waits for the world registers one operation (an engine's request, an item of work, a poll or a timer)
 * that lives on its stack, and sleeps. When the operation has ended the loop puts the coroutine on the ready list.
 */
#ifndef BLKSTACK_CORE_LOOP_H
#define BLKSTACK_CORE_LOOP_H

#include "core/aio.h"
#include "core/context.h"
#include "core/coroutine.h"
#include "core/poll.h"
#include "core/pool.h"

#include <stdatomic.h>

struct BlkContext {
    GThread *owner;
    BlkGraph *graph;
    struct BlkObjects *objects;
    GPtrArray *jobs;            /* (nullable): see blk_context_jobs() */
    BlkMessageFn *message;      /* (nullable) */
    void *message_opaque;
    BlkNoticeFn *notice;        /* (nullable) */
    void *notice_opaque;

    BlkCo *ready_head, *ready_tail;
    BlkCo *turn_next;           /* runs next in this turn; no more on the ready list */
    BlkCo *idle;                /* without a function, to be used again */
    unsigned n_idle;
    unsigned n_live;            /* with a function */
    unsigned outstanding;       /* operations of engine and pools that have not ended */
    unsigned polling;           /* those that wait for a file descriptor: they hold up nobody */
    BlkTimerHeap timers;        /* of those who wait */
    BlkTimerHeap chores;        /* what is done at a time if the loop still runs; nobody waits for it */
    uint64_t spin_ns;           /* see idle.c */
    unsigned inline_ops;        /* of the running coroutine since it was entered; see aio_inline.c */

    const BlkAioEngine *engine;
    void *engine_state;
    BlkPool *workers;           /* CPU work */
    BlkPool *io_threads;        /* blocking calls */

    /* The only part that other threads touch. */
    _Atomic(BlkWork *) finished; /* last in, first out */
    atomic_bool asleep;         /* who wants it awake must write to event_fd */
    int event_fd;
};

/* Like blk_co_spawn(); @group (nullable) hears the result. */
void blk_context_spawn(BlkContext *ctx, BlkCoFn *fn, void *opaque, BlkCoGroup *group);

/* Sleeps until that time of CLOCK_MONOTONIC, which may have passed. Context: coroutine. */
void blk_co_sleep_until_ns(BlkContext *ctx, uint64_t deadline_ns);

/* idle.c: waits until something has ended, or the time (<0: without limit) is over. Context: the loop; nobody is ready. */
void blk_context_wait(BlkContext *ctx, int64_t timeout_ns);

/* Calls @fn (NULL: nothing) once, when the running coroutine next goes to sleep, just before it does: so who works for
 * many can hand over to somebody else if it has to wait, and only then. @fn must not yield. */
void blk_co_on_sleep(void (*fn)(void *opaque), void *opaque);

/* Nobody else is ready or waits for an operation: the running coroutine holds up none. */
static inline bool blk_context_is_alone(const BlkContext *ctx)
{
    return !ctx->ready_head && !ctx->turn_next && ctx->outstanding == 0;
}

/* Ends an operation of sleeping @co. Context: the loop. */
void blk_context_complete(BlkContext *ctx, BlkCo *co);

/* Ends @poll, whose engine has forgotten it; @result: what is ready, or -errno. Context: the context's thread. */
void blk_poll_end(BlkPoll *poll, int result);

/* Ends @work, which is not touched afterwards: its coroutine may go on at once. The loop sees it when it next looks,
 * which blk_context_kick() makes it do if it sleeps. Context: any thread. */
void blk_context_finish_work(BlkContext *ctx, BlkWork *work);
void blk_context_kick(BlkContext *ctx);

/* The end of a task of @group. Context: the loop. */
void blk_co_group_task_done(BlkCoGroup *group, int ret);

#endif
