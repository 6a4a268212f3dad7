/* SPDX-License-Identifier: MIT */
/*
 * coroutine.h - the machine below the coroutines of blkstack.h: stacks and switches, without a scheduler.
 *
 * Only the event loop enters coroutines. A coroutine is used for one function after another; it is freed only when none
 * runs in it.
 */
#ifndef BLKSTACK_CORE_COROUTINE_H
#define BLKSTACK_CORE_COROUTINE_H

#include <blkstack/blkstack.h>
#include <setjmp.h>
#include <ucontext.h>

typedef enum BlkCoState {
    BLK_CO_IDLE,        /* without a function */
    BLK_CO_READY,       /* in the ready list */
    BLK_CO_RUNNING,
    BLK_CO_ASLEEP,
} BlkCoState;

struct BlkCo {
    BlkContext *ctx;
    BlkCoFn *fn;            /* NULL when entered: the coroutine is about to be freed */
    void *opaque;
    BlkCoGroup *group;      /* (nullable): hears the result */
    int ret;
    BlkCoState state;
    bool started;
    BlkCo *next;            /* in the ready list or the idle list */
    void (*on_sleep)(void *opaque);     /* (nullable): see blk_co_on_sleep() */
    void *on_sleep_opaque;
    ucontext_t *beginning;  /* until it has started */
    sigjmp_buf env;         /* where it left off */
    sigjmp_buf *back;       /* the loop that entered it */
    void *mapping;          /* guard page, then the stack */
    void *fake_stack, *loop_fake_stack;     /* of the sanitizers, as all that follows */
    const void *loop_stack;
    size_t loop_stack_bytes;
    void *fibre, *loop_fibre;
};

/* Aborts when memory is short. */
BlkCo *blk_coroutine_new(BlkContext *ctx);
void blk_coroutine_free(BlkCo *co);

/* Runs @co until it leaves. Context: the loop. Returns: true if its function has returned, and put its value in ->ret. */
bool blk_coroutine_enter(BlkCo *co);

/* From the running coroutine back to the loop; returns when it is entered again. */
void blk_coroutine_leave(void);

#endif
