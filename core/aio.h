/* SPDX-License-Identifier: MIT */
/*
 * aio.h - I/O engines: how a context reads and writes files and how its loop waits.
 *
 * An engine does one operation at a time for a request, like the system call of that name: it may be short, interrupted or
 * refused. What that means is decided once for all engines, in aio.c.
 */
#ifndef BLKSTACK_CORE_AIO_H
#define BLKSTACK_CORE_AIO_H

#include "core/pool.h"

#include <blkstack/driver.h>

typedef enum BlkAioOp { BLK_AIO_READ, BLK_AIO_WRITE, BLK_AIO_FDATASYNC, BLK_AIO_FALLOCATE } BlkAioOp;

/* Lives on the stack of the coroutine that waits for it. */
typedef struct BlkAioRequest {
    BlkAioOp op;
    int fd;
    uint64_t offset;
    uint64_t bytes;                 /* of reads and writes: those of vec */
    const struct iovec *vec;
    unsigned count;                 /* at most BLK_AIO_MAX_VECTORS */
    int mode;                       /* of fallocate */
    bool dsync;                     /* write: stable when it ends */
    int result;                     /* bytes done, 0 or -errno */
    BlkCo *co;
    struct BlkAioRequest *next;     /* the engine's own */
    BlkJob job;
} BlkAioRequest;

#define BLK_AIO_MAX_VECTORS 64

typedef struct BlkAioEngine {
    const char *name;
    void *(*create)(BlkContext *ctx, GError **error);
    void (*destroy)(void *state);           /* nothing is in flight */
    /* Begins @req; may yield. true: it has ended already, false: blk_context_complete() will tell. */
    bool (*submit)(void *state, BlkAioRequest *req);
    /* Sends what was submitted and ends what is done; waits for the first end, a write to the context's event_fd or
     * the time, whatever comes first. @timeout_ns: 0 does not wait, <0 is without limit. May end early. */
    void (*poll)(void *state, int64_t timeout_ns);
} BlkAioEngine;

extern const BlkAioEngine blk_aio_uring;
extern const BlkAioEngine blk_aio_threads;

#endif
