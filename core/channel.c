/* SPDX-License-Identifier: MIT */
/*
 * channel.c - streams of bytes: waiting, for all implementations, and the plain socket.
 *
 * What an implementation cannot do at once it says by -EAGAIN, with what it waits for: a TLS session may have to send
 * before it can receive.
 */
#include "core/channel.h"

#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

void blk_iovec_advance(struct iovec **vec, unsigned *count, size_t bytes)
{
    while (*count > 0 && bytes >= (*vec)->iov_len) {
        bytes -= (*vec)->iov_len;
        (*vec)++;
        (*count)--;
    }
    if (bytes > 0) {
        (*vec)->iov_base = (char *)(*vec)->iov_base + bytes;
        (*vec)->iov_len -= bytes;
    }
}

/* ---- waiting ---- */

static int co_wait(int fd, BlkPoll *poll, const bool *cancelled, short events, uint64_t deadline_ns)
{
    int ret = *cancelled ? -ECANCELED : blk_co_poll(poll, fd, events, deadline_ns);

    return *cancelled ? -ECANCELED : MIN(ret, 0);
}

int blk_channel_co_wait_to_recv(BlkChannel *ch, short events, uint64_t deadline_ns)
{
    return co_wait(ch->fd, &ch->receiving, &ch->recv_cancelled, events, deadline_ns);
}

int blk_channel_co_wait_to_send(BlkChannel *ch, short events, uint64_t deadline_ns)
{
    return co_wait(ch->send_fd, &ch->sending, &ch->send_cancelled, events, deadline_ns);
}

/* One try into the first of @vec, or into all, if the channel can. */
static ssize_t try_to_recv(BlkChannel *ch, const struct iovec *vec, unsigned count, short *events)
{
    if (count > 1 && ch->ops->recvv) {
        return ch->ops->recvv(ch, vec, count, events);
    }
    return ch->ops->recv(ch, vec->iov_base, vec->iov_len, events);
}

static ssize_t co_recvv(BlkChannel *ch, const struct iovec *vec, unsigned count, uint64_t deadline_ns)
{
    short events = POLLIN;
    ssize_t ret = -EAGAIN;

    if (ch->recv_cancelled) {
        return -ECANCELED;
    }
    if (!ch->drained) {
        ret = try_to_recv(ch, vec, count, &events);
    }
    while (ret == -EAGAIN) {
        int waited = blk_channel_co_wait_to_recv(ch, events, deadline_ns);

        if (waited < 0) {
            return waited;
        }
        ret = try_to_recv(ch, vec, count, &events);
    }
    return ret;
}

ssize_t blk_channel_co_recv(BlkChannel *ch, void *buf, size_t bytes, uint64_t deadline_ns)
{
    struct iovec vec = { buf, bytes };

    return co_recvv(ch, &vec, 1, deadline_ns);
}

int blk_channel_co_recv_all(BlkChannel *ch, void *buf, size_t bytes, uint64_t deadline_ns)
{
    for (size_t done = 0; done < bytes; ) {
        ssize_t ret = blk_channel_co_recv(ch, (char *)buf + done, bytes - done, deadline_ns);

        if (ret <= 0) {
            return ret < 0 ? (int)ret : -EPIPE;
        }
        done += (size_t)ret;
    }
    return 0;
}

ssize_t blk_channel_co_recv_ahead(BlkChannel *ch, void *buf, size_t bytes, void *ahead, size_t ahead_bytes,
                                  uint64_t deadline_ns)
{
    struct iovec vec[2] = { { buf, bytes }, { ahead, ahead_bytes } };

    for (;;) {
        ssize_t ret = co_recvv(ch, vec, 2, deadline_ns);

        if (ret <= 0) {
            return ret < 0 ? ret : -EPIPE;
        }
        if ((size_t)ret >= vec[0].iov_len) {
            return ret - (ssize_t)vec[0].iov_len;
        }
        vec[0].iov_base = (char *)vec[0].iov_base + ret;
        vec[0].iov_len -= (size_t)ret;
    }
}

ssize_t blk_channel_try_sendv(BlkChannel *ch, const struct iovec *vec, unsigned count, short *events)
{
    return ch->send_cancelled ? -ECANCELED : ch->ops->sendv(ch, vec, MIN(count, IOV_MAX), events);
}

int blk_channel_co_sendv(BlkChannel *ch, struct iovec *vec, unsigned count, uint64_t deadline_ns)
{
    short events;

    blk_iovec_advance(&vec, &count, 0);
    while (count > 0) {
        ssize_t ret = blk_channel_try_sendv(ch, vec, count, &events);

        if (ret == -EAGAIN) {
            ret = blk_channel_co_wait_to_send(ch, events, deadline_ns);
        } else if (ret > 0) {
            blk_iovec_advance(&vec, &count, (size_t)ret);
        }
        if (ret < 0) {
            return (int)ret;
        }
    }
    return 0;
}

int blk_channel_co_shutdown(BlkChannel *ch, uint64_t deadline_ns)
{
    short events;
    int ret;

    do {
        ret = ch->ops->shutdown && !ch->send_cancelled ? ch->ops->shutdown(ch, &events) : 0;
        if (ret != -EAGAIN) {
            return ret;
        }
        ret = blk_channel_co_wait_to_send(ch, events, deadline_ns);
    } while (ret == 0);
    return ret;
}

void blk_channel_cancel_recv(BlkChannel *ch)
{
    ch->recv_cancelled = true;
    blk_poll_cancel(&ch->receiving);
}

void blk_channel_cancel(BlkChannel *ch)
{
    ch->send_cancelled = true;
    blk_poll_cancel(&ch->sending);
    blk_channel_cancel_recv(ch);
}

/* ---- making and freeing ---- */

void blk_channel_init(BlkChannel *ch, const BlkChannelOps *ops, int fd)
{
    int flags = fcntl(fd, F_GETFL);

    ch->ops = ops;
    ch->fd = ch->send_fd = fd;
    fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
}

int blk_channel_steal_fd(BlkChannel *ch)
{
    int fd = ch->fd;

    ch->fd = -1;
    blk_channel_free(ch);
    return fd;
}

void blk_channel_free(BlkChannel *ch)
{
    int fd;

    if (!ch) {
        return;
    }
    fd = ch->fd;
    g_free(ch->peer_name);
    ch->ops->free(ch);
    if (fd >= 0) {
        close(fd);
    }
}

/* ---- the plain socket ---- */

/* @ret: of a system call that was asked for @bytes. */
static ssize_t plain_received(BlkChannel *ch, ssize_t ret, size_t bytes, short *events)
{
    ch->drained = ret > 0 && (size_t)ret < bytes;
    *events = POLLIN;
    return ret < 0 ? -errno : ret;
}

static ssize_t plain_recv(BlkChannel *ch, void *buf, size_t bytes, short *events)
{
    return plain_received(ch, TEMP_FAILURE_RETRY(recv(ch->fd, buf, bytes, MSG_DONTWAIT)), bytes, events);
}

static ssize_t plain_recvv(BlkChannel *ch, const struct iovec *vec, unsigned count, short *events)
{
    struct msghdr msg = { .msg_iov = (struct iovec *)vec, .msg_iovlen = count };
    ssize_t ret = TEMP_FAILURE_RETRY(recvmsg(ch->fd, &msg, MSG_DONTWAIT));
    size_t bytes = 0;

    for (unsigned i = 0; i < count; i++) {
        bytes += vec[i].iov_len;
    }
    return plain_received(ch, ret, bytes, events);
}

static ssize_t plain_sendv(BlkChannel *ch, const struct iovec *vec, unsigned count, short *events)
{
    struct msghdr msg = { .msg_iov = (struct iovec *)vec, .msg_iovlen = count };
    ssize_t ret;

    do {
        ret = sendmsg(ch->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (ret < 0 && errno == EINTR);
    *events = POLLOUT;
    return ret < 0 ? -errno : ret;
}

static int plain_shutdown(BlkChannel *ch, short *events)
{
    return shutdown(ch->fd, SHUT_WR) < 0 ? -errno : 0;
}

static void plain_free(BlkChannel *ch)
{
    g_free(ch);
}

static const BlkChannelOps plain_ops = {
    .name     = "plain",
    .recv     = plain_recv,
    .recvv    = plain_recvv,
    .sendv    = plain_sendv,
    .shutdown = plain_shutdown,
    .free     = plain_free,
};

BlkChannel *blk_channel_new(int fd)
{
    BlkChannel *ch = g_new0(BlkChannel, 1);
    int on = 1;

    blk_channel_init(ch, &plain_ops, fd);
    /* A reply must not wait for the acknowledgement of the last one, nor we for ever for a host that is gone. Fails for
     * unix sockets, which have neither. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    return ch;
}
