/* SPDX-License-Identifier: MIT */
/*
 * pool.h - a bounded pool of threads that run jobs for the coroutines of one context.
 */
#ifndef BLKSTACK_CORE_POOL_H
#define BLKSTACK_CORE_POOL_H

#include <blkstack/blkstack.h>

typedef struct BlkPool BlkPool;

/* Lives on the stack of the coroutine that waits for it. */
typedef struct BlkJob {
    struct BlkJob *next;
    int (*fn)(void *arg);
    void *arg;
    int ret;
    BlkCo *co;
} BlkJob;

/* Threads start when they are needed. @batch: while others keep the threads busy, the loop hears of so many short jobs for
 * each thread together; 0: of each job when it ends, which blocking calls need. */
BlkPool *blk_pool_new(BlkContext *ctx, const char *name, unsigned max_threads, unsigned batch);
void blk_pool_free(BlkPool *pool);      /* no job may be left; NULL is ignored */

unsigned blk_pool_threads(const BlkPool *pool);     /* at most */
/* Raises that, if it is less. Context: the loop's thread. */
void blk_pool_allow(BlkPool *pool, unsigned max_threads);

/* From now on blk_co_pool_run() calls the function in the loop's thread, and does not yield, or no longer so. Tests that look
 * at thousands of small images do: handing a cluster over costs more than decompressing it. Context: the loop's thread. */
void blk_pool_set_here(BlkPool *pool, bool here);

/* Runs @job->fn on a thread, first in, first out; ends with blk_context_finish_job(). Context: the loop's thread. */
void blk_pool_submit(BlkPool *pool, BlkJob *job);

/* The same, and waits. Context: coroutine; yields. Returns: what @fn returned. */
int blk_co_pool_run(BlkPool *pool, int (*fn)(void *arg), void *arg);

#endif
