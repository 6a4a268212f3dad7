/* SPDX-License-Identifier: MIT */
/*
 * pool.h - a bounded pool of threads that do work for the coroutines of one context.
 */
#ifndef BLKSTACK_CORE_POOL_H
#define BLKSTACK_CORE_POOL_H

#include <blkstack/blkstack.h>

typedef struct BlkPool BlkPool;

/* Lives on the stack of the coroutine that waits for it. */
typedef struct BlkWork {
    struct BlkWork *next;
    int (*fn)(void *arg);
    void *arg;
    int ret;
    bool is_short;          /* the loop may run it itself: other coroutines can wait for so long */
    BlkCo *co;
} BlkWork;

/* Threads start when they are needed. @batch: while others keep the threads busy, the loop hears of so many short items
 * for each thread together; 0: of each item when it ends, which blocking calls need. */
BlkPool *blk_pool_new(BlkContext *ctx, const char *name, unsigned max_threads, unsigned batch);
void blk_pool_free(BlkPool *pool);      /* no item may be left; NULL is ignored */

unsigned blk_pool_threads(const BlkPool *pool);     /* at most */
/* Raises that, if it is less. Context: the loop's thread. */
void blk_pool_allow(BlkPool *pool, unsigned max_threads);

/* From now on blk_co_pool_run() calls the function in the loop's thread, and does not yield, or no longer so. Tests that look
 * at thousands of small images do: handing a cluster over costs more than decompressing it. Context: the loop's thread. */
void blk_pool_set_here(BlkPool *pool, bool here);

/* Runs @work->fn on a thread, first in, first out; ends with blk_context_finish_work(). Context: the loop's thread. */
void blk_pool_submit(BlkPool *pool, BlkWork *work);

/* The same, and waits. Context: coroutine; yields. Returns: what @fn returned. */
int blk_co_pool_run(BlkPool *pool, int (*fn)(void *arg), void *arg);

/* Is there work that the loop should look at, before it waits? Only where processors are few. Context: the loop. */
bool blk_pool_has_work(const BlkPool *pool);
/* Runs the first short item here and now, and ends it. Returns: false: there is none. Context: the loop. */
bool blk_pool_help(BlkPool *pool);

#endif
