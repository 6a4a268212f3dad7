/* SPDX-License-Identifier: MIT */
/*
 * aio_threads.c - the I/O engine that works everywhere: blocking system calls on the context's I/O threads.
 *
 * Limitation: no more operations in flight than the pool has threads.
 */
#include "core/loop.h"

#include <fcntl.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

/* The engine's state is the context. */
static void *threads_create(BlkContext *ctx, GError **error)
{
    return ctx;
}

static void threads_destroy(void *state)
{
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

static void threads_submit(void *state, BlkAioRequest *req)
{
    BlkContext *ctx = state;

    req->job = (BlkJob){ .fn = perform, .arg = req, .co = req->co };
    blk_pool_submit(ctx->io_threads, &req->job);
}

static void threads_poll(void *state, int64_t timeout_ns)
{
    BlkContext *ctx = state;
    struct pollfd pfd = { .fd = ctx->event_fd, .events = POLLIN };
    struct timespec ts = { .tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000 };
    uint64_t count;

    if (timeout_ns == 0 || ppoll(&pfd, 1, timeout_ns < 0 ? NULL : &ts, NULL) <= 0) {
        return;     /* finished jobs are found in the context's list, not here */
    }
    if (read(ctx->event_fd, &count, sizeof(count)) < 0) {
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
