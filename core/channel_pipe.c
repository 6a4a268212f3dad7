/* SPDX-License-Identifier: MIT */
/*
 * channel_pipe.c - a channel over two descriptors of any kind, as standard input and output are.
 *
 * They are not made non-blocking, since other processes may share them. Instead each try asks first whether it would block,
 * and sends no more at a time than a pipe that is ready has room for.
 *
 * Limitation: of two writers to one pipe one may be blocked by what the other one has just written.
 */
#include "core/channel.h"

#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

static ssize_t is_ready(int fd, short event, short *events)
{
    struct pollfd poll_fd = { .fd = fd, .events = event };

    *events = event;
    return poll(&poll_fd, 1, 0) == 0 ? -EAGAIN : 0;
}

static ssize_t pipe_recv(BlkChannel *ch, void *buf, size_t bytes, short *events)
{
    ssize_t ret = is_ready(ch->fd, POLLIN, events);

    if (ret == 0) {
        ret = TEMP_FAILURE_RETRY(read(ch->fd, buf, bytes));
        ret = ret < 0 ? -errno : ret;
    }
    return ret;
}

static ssize_t pipe_sendv(BlkChannel *ch, const struct iovec *vec, unsigned count, short *events)
{
    ssize_t ret = is_ready(ch->send_fd, POLLOUT, events);

    if (ret == 0) {
        ret = TEMP_FAILURE_RETRY(write(ch->send_fd, vec->iov_base, MIN(vec->iov_len, PIPE_BUF)));
        ret = ret < 0 ? -errno : ret;
    }
    return ret;
}

static void pipe_free(BlkChannel *ch)
{
    close(ch->send_fd);
    g_free(ch);
}

static const BlkChannelOps pipe_ops = {
    .name  = "pipe",
    .recv  = pipe_recv,
    .sendv = pipe_sendv,
    .free  = pipe_free,
};

BlkChannel *blk_channel_new_pipe(int in, int out)
{
    int in_copy = fcntl(in, F_DUPFD_CLOEXEC, 0);
    int out_copy = in_copy < 0 ? -1 : fcntl(out, F_DUPFD_CLOEXEC, 0);
    BlkChannel *ch;

    if (out_copy < 0) {
        if (in_copy >= 0) {
            close(in_copy);
        }
        return NULL;
    }
    ch = g_new0(BlkChannel, 1);
    ch->ops = &pipe_ops;
    ch->fd = in_copy;
    ch->send_fd = out_copy;
    return ch;
}
