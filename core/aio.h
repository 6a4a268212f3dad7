/* SPDX-License-Identifier: MIT */
/*
 * aio.h - I/O engines: how a context reads and writes files, watches file descriptors, and how its loop waits.
 *
 * An engine does one operation at a time for a request, like the system call of that name: it may be short, interrupted or
 * refused. What that means is decided once for all engines, in aio.c.
 */
#ifndef BLKSTACK_CORE_AIO_H
#define BLKSTACK_CORE_AIO_H

#include "core/poll.h"
#include "core/pool.h"

#include <blkstack/driver.h>

typedef enum BlkAioOp { BLK_AIO_READ, BLK_AIO_WRITE, BLK_AIO_FDATASYNC, BLK_AIO_FALLOCATE } BlkAioOp;

/* Lives on the stack of the coroutine that waits for it. */
typedef struct BlkAioRequest {
    BlkAioOp op;
    int fd;
    BlkAioFile *file;               /* of reads and writes: that of fd */
    uint64_t offset;
    uint64_t bytes;                 /* of reads and writes: those of vec */
    const struct iovec *vec;
    unsigned count;                 /* at most BLK_AIO_MAX_VECTORS */
    int mode;                       /* of fallocate */
    bool dsync;                     /* write: stable when it ends */
    int result;                     /* bytes done, 0 or -errno */
    BlkCo *co;
    struct BlkAioRequest *next;     /* the engine's own */
    BlkWork work;
} BlkAioRequest;

#define BLK_AIO_MAX_VECTORS 64

typedef struct BlkAioEngine {
    const char *name;
    void *(*create)(BlkContext *ctx, GError **error);
    void (*destroy)(void *state);           /* nothing is in flight */
    void (*submit)(void *state, BlkAioRequest *req);    /* begins @req; its end is told by blk_context_complete() */
    /* Sends what was submitted and ends what is done; waits for the first end, a write to the context's event_fd or
     * the time, whatever comes first. @timeout_ns: 0 does not wait, <0 is without limit. May end early. */
    void (*poll)(void *state, int64_t timeout_ns);
    /* Waits for a file descriptor until it is ready or unwatched; blk_poll_end() tells it, within unwatch or later. */
    void (*watch)(void *state, BlkPoll *poll);
    void (*unwatch)(void *state, BlkPoll *poll);        /* once at most, not after the end */
} BlkAioEngine;

/* aio_inline.c: does a read or write at once, if that is better than to hand it to the engine. May yield, before it does.
 * Returns: false if it was not done. */
bool blk_aio_co_try_inline(BlkContext *ctx, BlkAioRequest *req);

extern const BlkAioEngine blk_aio_uring;
extern const BlkAioEngine blk_aio_threads;

#endif
