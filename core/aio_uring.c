/* SPDX-License-Identifier: MIT */
/*
 * aio_uring.c - the I/O engine on io_uring.
 *
 *     submit() -> queue -> (poll: as many as fit) -> submission ring -> kernel -> completion ring -> coroutine
 *
 * Requests wait in a list on the stacks of their coroutines until the loop polls; then they go to the kernel together, with
 * one system call that also waits. What a device has to do (O_DIRECT) goes earlier: as soon as as many wait as are with the
 * kernel (1, 1, 2, 4, ...), so that the device begins while the loop prepares the rest. No more are in the ring than the
 * completion ring can hold. Polls, which may stay for ever, do not count among them; if too many end at once, the kernel
 * keeps their completions until there is room. While the loop sleeps, a read of the context's eventfd is in the ring as
 * well: other threads wake the loop by it.
 *
 * A poll that is given up is cancelled in the kernel and ends with its completion, as any other. A cancel finds only what
 * was sent before it: the kernel takes entries in order.
 *
 * Needs Linux 5.11; on 6.1 and later completions are delivered only when the loop asks for them.
 */
#include "config.h"
#include "core/loop.h"

#ifdef HAVE_LIBURING

#include <fcntl.h>
#include <liburing.h>
#include <unistd.h>

#define RING_ENTRIES 256

typedef struct UringState {
    BlkContext *ctx;
    struct io_uring ring;
    BlkAioRequest *head, *tail;     /* not yet in the ring, */
    unsigned queued;                /* and how many these are */
    unsigned in_ring;               /* requests whose completion has not been seen */
    GQueue polls;                   /* BlkPoll: not yet in the ring, to be watched or, if given up, to be cancelled */
    bool event_armed;
    uint64_t event_value;
} UringState;

static bool supports_operations(struct io_uring *ring)
{
    static const int needed[] = {
        IORING_OP_READ, IORING_OP_READV, IORING_OP_WRITE, IORING_OP_WRITEV, IORING_OP_FSYNC, IORING_OP_FALLOCATE,
        IORING_OP_POLL_ADD, IORING_OP_ASYNC_CANCEL,
    };
    struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
    bool all = probe != NULL;

    for (unsigned i = 0; all && i < G_N_ELEMENTS(needed); i++) {
        all = io_uring_opcode_supported(probe, needed[i]);
    }
    io_uring_free_probe(probe);
    return all && (ring->features & IORING_FEAT_EXT_ARG) && (ring->features & IORING_FEAT_NODROP);
}

static void *uring_create(BlkContext *ctx, GError **error)
{
    g_autofree UringState *s = g_new0(UringState, 1);
    unsigned best = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN |
                    IORING_SETUP_TASKRUN_FLAG;
    int ret = io_uring_queue_init(RING_ENTRIES, &s->ring, best);

    if (ret == -EINVAL) {
        ret = io_uring_queue_init(RING_ENTRIES, &s->ring, 0);
    }
    if (ret < 0) {
        blk_error_errno(error, ret, "cannot use the I/O engine 'io_uring' (BLKSTACK_AIO=threads works without it)");
        return NULL;
    }
    if (!supports_operations(&s->ring)) {
        io_uring_queue_exit(&s->ring);
        blk_error(error, -ENOTSUP, "cannot use the I/O engine 'io_uring': this kernel's is too old "
                  "(BLKSTACK_AIO=threads works without it)");
        return NULL;
    }
    s->ctx = ctx;
    return g_steal_pointer(&s);
}

static void prepare(struct io_uring_sqe *sqe, BlkAioRequest *req)
{
    const struct iovec *vec = req->vec;

    switch (req->op) {
    case BLK_AIO_READ:
        if (req->count == 1) {
            io_uring_prep_read(sqe, req->fd, vec->iov_base, (unsigned)vec->iov_len, req->offset);
        } else {
            io_uring_prep_readv(sqe, req->fd, vec, req->count, req->offset);
        }
        break;
    case BLK_AIO_WRITE:
        if (req->count == 1) {
            io_uring_prep_write(sqe, req->fd, vec->iov_base, (unsigned)vec->iov_len, req->offset);
        } else {
            io_uring_prep_writev(sqe, req->fd, vec, req->count, req->offset);
        }
        sqe->rw_flags = req->dsync ? RWF_DSYNC : 0;
        break;
    case BLK_AIO_FDATASYNC:
        io_uring_prep_fsync(sqe, req->fd, IORING_FSYNC_DATASYNC);
        break;
    case BLK_AIO_FALLOCATE:
        io_uring_prep_fallocate(sqe, req->fd, req->mode, (off_t)req->offset, (off_t)req->bytes);
        break;
    }
    io_uring_sqe_set_data(sqe, req);
}

/* ---- polls: their pointers are marked in the completions ---- */

enum { POLL_MARK = 1, CANCEL_MARK = 2 };

static void *marked(BlkPoll *poll)
{
    return (char *)poll + POLL_MARK;
}

static void queue_poll(UringState *s, BlkPoll *poll)
{
    poll->link.data = poll;
    poll->queued = true;
    g_queue_push_tail_link(&s->polls, &poll->link);
}

static void unqueue_poll(UringState *s, BlkPoll *poll)
{
    if (poll->queued) {
        g_queue_unlink(&s->polls, &poll->link);
        poll->queued = false;
    }
}

static void uring_watch(void *state, BlkPoll *poll)
{
    poll->sent = false;
    queue_poll(state, poll);
}

static void uring_unwatch(void *state, BlkPoll *poll)
{
    if (poll->sent) {
        queue_poll(state, poll);
    } else {
        unqueue_poll(state, poll);
        blk_poll_end(poll, -ECANCELED);
    }
}

static void end_poll(UringState *s, BlkPoll *poll, int result)
{
    unqueue_poll(s, poll);
    blk_poll_end(poll, result);
}

/* One place is the eventfd's. NULL: the ring is full. */
static struct io_uring_sqe *get_entry(UringState *s)
{
    return io_uring_sq_space_left(&s->ring) > 1 ? io_uring_get_sqe(&s->ring) : NULL;
}

/* Returns: false if some are left: no time to sleep. */
static bool send_polls(UringState *s)
{
    while (s->polls.head) {
        BlkPoll *poll = s->polls.head->data;
        struct io_uring_sqe *sqe = get_entry(s);

        if (sqe == NULL) {
            return false;
        }
        if (poll->sent) {
            io_uring_prep_cancel(sqe, marked(poll), 0);
            io_uring_sqe_set_data(sqe, (void *)(uintptr_t)CANCEL_MARK);
        } else {
            io_uring_prep_poll_add(sqe, poll->fd, (unsigned short)poll->events);
            io_uring_sqe_set_data(sqe, marked(poll));
            poll->sent = true;
        }
        unqueue_poll(s, poll);
    }
    return true;
}

/* Returns: false if some are left that need not wait for others to end: no time to sleep. */
static bool send_requests(UringState *s)
{
    while (s->head && s->in_ring < s->ring.cq.ring_entries - 1) {
        struct io_uring_sqe *sqe = get_entry(s);

        if (sqe == NULL) {
            return false;
        }
        prepare(sqe, s->head);
        s->head = s->head->next;
        s->queued--;
        s->in_ring++;
    }
    return true;
}

/* @ret: of a call of liburing. What could not be sent now stays in the ring, for the next one. */
static void check(int ret)
{
    if (ret < 0 && ret != -ETIME && ret != -EINTR && ret != -EAGAIN && ret != -EBUSY) {
        g_error("io_uring_enter: %s", g_strerror(-ret));
    }
}

static void uring_submit(void *state, BlkAioRequest *req)
{
    UringState *s = state;
    bool for_device = req->file && !req->file->cached;

    req->next = NULL;
    if (s->head) {
        s->tail->next = req;
    } else {
        s->head = req;
    }
    s->tail = req;
    s->queued++;
    if (for_device && s->queued >= s->in_ring) {
        send_requests(s);
        check(io_uring_submit(&s->ring));
    }
}

static void arm_event(UringState *s)
{
    struct io_uring_sqe *sqe = s->event_armed ? NULL : io_uring_get_sqe(&s->ring);

    if (sqe) {
        io_uring_prep_read(sqe, s->ctx->event_fd, &s->event_value, sizeof(s->event_value), 0);
        io_uring_sqe_set_data(sqe, NULL);
        s->event_armed = true;
    }
}

static void reap(UringState *s)
{
    struct io_uring_cqe *cqe;
    unsigned head, n = 0;

    io_uring_for_each_cqe(&s->ring, head, cqe) {
        uintptr_t data = (uintptr_t)io_uring_cqe_get_data(cqe);

        n++;
        if (data == 0) {
            s->event_armed = false;
        } else if (data & POLL_MARK) {
            end_poll(s, (BlkPoll *)(data - POLL_MARK), cqe->res);
        } else if (data != CANCEL_MARK) {
            BlkAioRequest *req = (BlkAioRequest *)data;

            s->in_ring--;
            req->result = cqe->res;
            blk_context_complete(s->ctx, req->co);
        }
    }
    io_uring_cq_advance(&s->ring, n);
}

static void uring_poll(void *state, int64_t timeout_ns)
{
    UringState *s = state;
    struct io_uring_cqe *cqe;
    int ret;

    if (!send_polls(s) || !send_requests(s)) {
        timeout_ns = 0;
    }
    if (timeout_ns != 0) {
        struct __kernel_timespec ts = { .tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000 };

        arm_event(s);
        ret = io_uring_submit_and_wait_timeout(&s->ring, &cqe, 1, timeout_ns < 0 ? NULL : &ts, NULL);
    } else if (io_uring_sq_ready(&s->ring) > 0) {
        ret = io_uring_submit_and_get_events(&s->ring);
    } else {
        ret = io_uring_peek_cqe(&s->ring, &cqe);
    }
    check(ret);
    reap(s);
}

static void uring_destroy(void *state)
{
    UringState *s = state;
    uint64_t one = 1;

    g_assert(s->in_ring == 0 && s->head == NULL && s->polls.head == NULL && s->ctx->polling == 0);
    /* The kernel must not write to event_value any more when it is freed. */
    while (s->event_armed) {
        ssize_t written = write(s->ctx->event_fd, &one, sizeof(one));

        g_assert(written == sizeof(one) || errno == EINTR);
        uring_poll(s, 1000000);
    }
    io_uring_queue_exit(&s->ring);
    g_free(s);
}

#else

static void *uring_create(BlkContext *ctx, GError **error)
{
    blk_error(error, -ENOTSUP, "cannot use the I/O engine 'io_uring': it was not built in");
    return NULL;
}

static void uring_submit(void *state, BlkAioRequest *req)
{
    g_assert_not_reached();
}

static void uring_poll(void *state, int64_t timeout_ns)
{
    g_assert_not_reached();
}

static void uring_watch(void *state, BlkPoll *poll)
{
    g_assert_not_reached();
}

static void uring_unwatch(void *state, BlkPoll *poll)
{
    g_assert_not_reached();
}

static void uring_destroy(void *state)
{
    g_assert_not_reached();
}

#endif

const BlkAioEngine blk_aio_uring = {
    .name    = "io_uring",
    .create  = uring_create,
    .destroy = uring_destroy,
    .submit  = uring_submit,
    .poll    = uring_poll,
    .watch   = uring_watch,
    .unwatch = uring_unwatch,
};
