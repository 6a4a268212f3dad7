/* SPDX-License-Identifier: MIT */
/*
 * channel.h - a connected stream of bytes: a socket, plain or behind TLS.
 *
 * An implementation is a table of functions that never wait. Waiting for the peer, until a deadline or until somebody
 * cancels, is done once for all of them, in channel.c. One coroutine may receive while another one sends.
 */
#ifndef BLKSTACK_CORE_CHANNEL_H
#define BLKSTACK_CORE_CHANNEL_H

#include "core/poll.h"

#include <sys/uio.h>

typedef struct BlkChannel BlkChannel;

typedef struct BlkChannelOps {
    const char *name;           /* "plain", "tls": for messages */
    /*
     * One try. Returns: bytes (1 or more; recv: 0 is the end of the stream); -EAGAIN: nothing could be done before the
     * socket is ready for *events (out), which is POLLIN or POLLOUT; another negative errno.
     */
    ssize_t (*recv)(BlkChannel *ch, void *buf, size_t bytes, short *events);
    ssize_t (*recvv)(BlkChannel *ch, const struct iovec *vec, unsigned count, short *events); /* (nullable) */
    ssize_t (*sendv)(BlkChannel *ch, const struct iovec *vec, unsigned count, short *events);
    /* (nullable): says to the peer that nothing more will be sent. 0; -EAGAIN as above; another negative errno. */
    int (*shutdown)(BlkChannel *ch, short *events);
    void (*free)(BlkChannel *ch);           /* all but the socket */
} BlkChannelOps;

/* The first member of an implementation's own structure. */
struct BlkChannel {
    const BlkChannelOps *ops;
    int fd;                     /* non-blocking; the channel's own */
    int send_fd;                /* to wait for when sending: most often the same */
    bool drained;               /* the last try to receive took all there was: wait before the next one */
    bool recv_cancelled, send_cancelled;
    BlkPoll receiving, sending;
    char *peer_name;            /* (nullable): who the peer has proved to be: of the certificate, user of the key */
};

/* For implementations. @ch is zeroed; @fd, which is made non-blocking, becomes its own. */
void blk_channel_init(BlkChannel *ch, const BlkChannelOps *ops, int fd);

/* A connected socket, TCP or unix. @fd becomes the channel's own. Does not yield. */
BlkChannel *blk_channel_new(int fd);

/* What comes from @in, and goes to @out: pipes, terminals, files. They may be blocking, and are duplicated: the caller keeps
 * both. Who writes to pipes should ignore SIGPIPE. NULL: there are no descriptors left. Does not yield. */
BlkChannel *blk_channel_new_pipe(int in, int out);

/* Ends the connection. Nobody may be receiving or sending. NULL is ignored. Does not yield. */
void blk_channel_free(BlkChannel *ch);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BlkChannel, blk_channel_free)

/* Takes the socket out, for an implementation that goes on above it; @ch is gone. */
int blk_channel_steal_fd(BlkChannel *ch);

/**
 * blk_channel_co_recv:
 * @bytes: at least 1
 * @deadline_ns: of CLOCK_MONOTONIC; UINT64_MAX: none
 *
 * Waits until something has come and takes what there is. Context: coroutine; may yield.
 * Returns: 1..@bytes; 0: the peer has ended the stream; -ETIMEDOUT; -ECANCELED; others from the socket.
 */
ssize_t blk_channel_co_recv(BlkChannel *ch, void *buf, size_t bytes, uint64_t deadline_ns);

/* All of @bytes. Returns: 0; -EPIPE: the stream ended before; the errors above. */
int blk_channel_co_recv_all(BlkChannel *ch, void *buf, size_t bytes, uint64_t deadline_ns);

/**
 * blk_channel_co_recv_ahead:
 * @bytes: at least 1
 * @ahead: place for what follows
 * @ahead_bytes: at least 1
 *
 * All of @bytes, and with them as much of what follows as comes along; it is not waited for. Context: coroutine; may
 * yield.
 * Returns: 0..@ahead_bytes: so many of @ahead; -EPIPE: the stream ended before @bytes; the errors above.
 */
ssize_t blk_channel_co_recv_ahead(BlkChannel *ch, void *buf, size_t bytes, void *ahead, size_t ahead_bytes,
                                  uint64_t deadline_ns);

/* What can be sent at once. Returns: bytes, 1 or more; -EAGAIN: nothing before @events of the socket, for which
 * blk_channel_co_wait_to_send() waits: then it is to be tried again, with vectors that begin with the same bytes at the
 * same place; -ECANCELED; others from the socket. Does not yield. */
ssize_t blk_channel_try_sendv(BlkChannel *ch, const struct iovec *vec, unsigned count, short *events);

/* All of it; @vec is changed. Returns: 0; -ETIMEDOUT; -ECANCELED; others from the socket. May yield. */
int blk_channel_co_sendv(BlkChannel *ch, struct iovec *vec, unsigned count, uint64_t deadline_ns);

/* Says that nothing more will be sent; after an error there is nobody left to be told. May yield. */
int blk_channel_co_shutdown(BlkChannel *ch, uint64_t deadline_ns);

/* Each waits until one of @events of the socket is true. Returns: 0; -ETIMEDOUT; -ECANCELED; others. May yield. */
int blk_channel_co_wait_to_recv(BlkChannel *ch, short events, uint64_t deadline_ns);
int blk_channel_co_wait_to_send(BlkChannel *ch, short events, uint64_t deadline_ns);

/* Who receives, now or later, gets -ECANCELED; the second also who sends. Neither yields. */
void blk_channel_cancel_recv(BlkChannel *ch);
void blk_channel_cancel(BlkChannel *ch);

/* Skips @bytes of *vec, of which *count are left. */
void blk_iovec_advance(struct iovec **vec, unsigned *count, size_t bytes);

#endif
