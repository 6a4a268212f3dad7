/* SPDX-License-Identifier: MIT */
/*
 * aio_threads.c - the I/O engine that works everywhere: blocking system calls on the context's I/O threads.
 *
 * Handing an operation to a thread costs far more than copying a few pages, so small reads are first tried on the spot,
 * without leave to block: what lies in the page cache needs no thread. Every INLINE_READS such reads the others get a turn.
 *
 * Limitations: no more operations in flight than the pool has threads; writes always take a thread.
 */
#include "core/loop.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

#define INLINE_BYTES ((uint64_t)128 * 1024)
#define INLINE_READS 64

typedef struct ThreadsState {
    BlkContext *ctx;
    unsigned inline_reads;      /* since the loop had its turn */
} ThreadsState;

static void *threads_create(BlkContext *ctx, GError **error)
{
    ThreadsState *s = g_new0(ThreadsState, 1);

    s->ctx = ctx;
    return s;
}

static void threads_destroy(void *state)
{
    g_free(state);
}

static int perform(void *opaque)
{
    BlkAioRequest *req = opaque;
    ssize_t ret = -1;

    switch (req->op) {
    case BLK_AIO_READ:
        ret = preadv(req->fd, req->vec, (int)req->count, (off_t)req->offset);
        break;
    case BLK_AIO_WRITE:
        ret = pwritev2(req->fd, req->vec, (int)req->count, (off_t)req->offset, req->dsync ? RWF_DSYNC : 0);
        break;
    case BLK_AIO_FDATASYNC:
        ret = fdatasync(req->fd);
        break;
    case BLK_AIO_FALLOCATE:
        ret = fallocate(req->fd, req->mode, (off_t)req->offset, (off_t)req->bytes);
        break;
    }
    req->result = ret < 0 ? -errno : (int)ret;
    return 0;
}

/* Direct reads would wait for the device here. */
static bool try_inline_read(ThreadsState *s, BlkAioRequest *req)
{
    if (req->bytes > INLINE_BYTES || (fcntl(req->fd, F_GETFL) & O_DIRECT)) {
        return false;
    }
    if (s->inline_reads >= INLINE_READS) {
        blk_co_reschedule();
    }

    ssize_t ret = preadv2(req->fd, req->vec, (int)req->count, (off_t)req->offset, RWF_NOWAIT);

    if (ret < 0) {
        return false;
    }
    s->inline_reads++;
    req->result = (int)ret;
    return true;
}

static bool threads_submit(void *state, BlkAioRequest *req)
{
    ThreadsState *s = state;

    if (req->op == BLK_AIO_READ && try_inline_read(s, req)) {
        return true;
    }
    req->job = (BlkJob){ .fn = perform, .arg = req, .co = req->co };
    blk_pool_submit(s->ctx->io_threads, &req->job);
    return false;
}

static void threads_poll(void *state, int64_t timeout_ns)
{
    ThreadsState *s = state;
    struct pollfd pfd = { .fd = s->ctx->event_fd, .events = POLLIN };
    struct timespec ts = { .tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000 };
    uint64_t count;

    s->inline_reads = 0;
    if (timeout_ns == 0 || ppoll(&pfd, 1, timeout_ns < 0 ? NULL : &ts, NULL) <= 0) {
        return;     /* finished jobs are found in the context's list, not here */
    }
    if (read(s->ctx->event_fd, &count, sizeof(count)) < 0) {
        g_assert(errno == EINTR);
    }
}

const BlkAioEngine blk_aio_threads = {
    .name    = "threads",
    .create  = threads_create,
    .destroy = threads_destroy,
    .submit  = threads_submit,
    .poll    = threads_poll,
};
