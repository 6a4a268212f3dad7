/* SPDX-License-Identifier: MIT */
/*
 * aio_threads.c - the I/O engine that works everywhere: blocking system calls on the context's I/O threads.
 *
 * File descriptors are watched by ppoll(), in every turn of the loop as long as there is one.
 *
 * Limitations: no more operations in flight than the pool has threads; a turn costs time for each one that is watched.
 */
#include "core/loop.h"

#include <fcntl.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

typedef struct ThreadsState {
    BlkContext *ctx;
    GArray *fds;            /* of struct pollfd: the context's event_fd, then those that are watched */
    GPtrArray *polls;       /* NULL, then the BlkPoll of each: its place is the index */
} ThreadsState;

static void *threads_create(BlkContext *ctx, GError **error)
{
    ThreadsState *s = g_new0(ThreadsState, 1);
    struct pollfd event = { .fd = ctx->event_fd, .events = POLLIN };

    s->ctx = ctx;
    s->fds = g_array_new(false, false, sizeof(struct pollfd));
    s->polls = g_ptr_array_new();
    g_array_append_val(s->fds, event);
    g_ptr_array_add(s->polls, NULL);
    return s;
}

static void threads_destroy(void *state)
{
    ThreadsState *s = state;

    g_assert(s->polls->len == 1);
    g_array_unref(s->fds);
    g_ptr_array_unref(s->polls);
    g_free(s);
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
    BlkContext *ctx = ((ThreadsState *)state)->ctx;

    req->work = (BlkWork){ .fn = perform, .arg = req, .co = req->co };
    blk_pool_submit(ctx->io_threads, &req->work);
}

static void threads_watch(void *state, BlkPoll *poll)
{
    ThreadsState *s = state;
    struct pollfd pfd = { .fd = poll->fd, .events = poll->events };

    poll->place = s->polls->len;
    g_array_append_val(s->fds, pfd);
    g_ptr_array_add(s->polls, poll);
}

/* The last one takes its place. */
static void forget(ThreadsState *s, BlkPoll *poll)
{
    BlkPoll *last = s->polls->pdata[s->polls->len - 1];

    last->place = poll->place;
    g_array_remove_index_fast(s->fds, poll->place);
    g_ptr_array_remove_index_fast(s->polls, poll->place);
}

static void threads_unwatch(void *state, BlkPoll *poll)
{
    forget(state, poll);
    blk_poll_end(poll, -ECANCELED);
}

static void reap_polls(ThreadsState *s)
{
    for (unsigned i = s->polls->len - 1; i > 0; i--) {
        short revents = g_array_index(s->fds, struct pollfd, i).revents;
        BlkPoll *poll = s->polls->pdata[i];

        if (revents != 0) {
            forget(s, poll);
            blk_poll_end(poll, revents & POLLNVAL ? -EBADF : revents);
        }
    }
}

static void threads_poll(void *state, int64_t timeout_ns)
{
    ThreadsState *s = state;
    struct pollfd *event = &g_array_index(s->fds, struct pollfd, 0);
    struct timespec ts = { .tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000 };
    uint64_t count;

    if (timeout_ns == 0 && s->fds->len == 1) {
        return;     /* finished work is found in the context's list, not here */
    }
    if (ppoll(event, s->fds->len, timeout_ns < 0 ? NULL : &ts, NULL) <= 0) {
        return;
    }
    if (event->revents != 0 && read(s->ctx->event_fd, &count, sizeof(count)) < 0) {
        g_assert(errno == EINTR);
    }
    reap_polls(s);
}

const BlkAioEngine blk_aio_threads = {
    .name    = "threads",
    .create  = threads_create,
    .destroy = threads_destroy,
    .submit  = threads_submit,
    .poll    = threads_poll,
    .watch   = threads_watch,
    .unwatch = threads_unwatch,
};
