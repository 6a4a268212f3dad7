/* SPDX-License-Identifier: MIT */
/*
 * socket.h - sockets that listen, and such that are connected to somebody who listens: unix, TCP, and vsock, between virtual
 * machines and their host.
 *
 * All are non-blocking and closed on exec.
 */
#ifndef BLKSTACK_CORE_SOCKET_H
#define BLKSTACK_CORE_SOCKET_H

#include <blkstack/blkstack.h>
#include <sys/socket.h>
#include <sys/types.h>

/* The path of a unix socket that was made here. Zeroed: none. */
typedef struct BlkSocketPath {
    char *path;         /* absolute */
    dev_t dev;          /* of @path, when it was made */
    ino_t ino;
} BlkSocketPath;

/* Makes the socket @path, which must not be there or be the socket of a server that is gone; @made: (out).
 * Returns: the socket; -EADDRINUSE, -ENAMETOOLONG, ... */
int blk_socket_listen_unix(const char *path, BlkSocketPath *made, GError **error);

/* Removes it, unless somebody else has put another socket there; @made is empty then. */
void blk_socket_path_remove(BlkSocketPath *made);

/**
 * blk_co_socket_listen_tcp:
 * @family: AF_INET, AF_INET6, or AF_UNSPEC for both
 * @host: (nullable): name or address; NULL: all
 * @port: number or service; "0": a free one, the same for all addresses
 * @sockets: int: the sockets are appended
 *
 * Looking up the name may take a while. Context: coroutine; may yield. Returns: the port; a negative errno.
 */
int blk_co_socket_listen_tcp(BlkContext *ctx, int family, const char *host, const char *port, GArray *sockets,
                             GError **error);

/* @cid, @port: numbers from 0 to 2^32 - 1; the machine whose address it is: 2 the host, 2^32 - 1 any. Returns: the socket; -EINVAL; -EAFNOSUPPORT:
 * the kernel has no vsock; others. Does not yield. */
int blk_socket_listen_vsock(const char *cid, const char *port, GError **error);
int blk_co_socket_connect_vsock(BlkContext *ctx, const char *cid, const char *port, GError **error);

/* Each tries an address for 10 seconds, and returns the connected socket, or a negative errno. Context: coroutine; may yield. */
int blk_co_socket_connect_unix(BlkContext *ctx, const char *path, GError **error);
int blk_co_socket_connect_tcp(BlkContext *ctx, int family, const char *host, const char *port, GError **error);

/* Makes a socket that the process was started with as those made here. @listens: must it, or be connected? Does not yield.
 * Returns: 0; -EINVAL: @fd is no such socket, and is left alone. */
int blk_socket_adopt(int fd, bool listens, GError **error);

#endif
