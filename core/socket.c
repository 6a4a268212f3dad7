/* SPDX-License-Identifier: MIT */
/*
 * socket.c - sockets that listen, and such that are connected to somebody who listens.
 *
 * Names are looked up on a thread, since the C library does it blocking.
 */
#include "core/socket.h"

#include "core/poll.h"

#include <blkstack/driver.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG     128
#define KIND        (SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK)

/* ---- unix sockets ---- */

static int make_unix_address(const char *path, struct sockaddr_un *address, GError **error)
{
    *address = (struct sockaddr_un) { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof(address->sun_path)) {
        return blk_error(error, -ENAMETOOLONG, "the path of the socket '%s' is longer than %zu bytes", path,
                         sizeof(address->sun_path) - 1);
    }
    strcpy(address->sun_path, path);
    return 0;
}

/* Is it the socket of a server that is gone? */
static bool is_stale(const struct sockaddr_un *address)
{
    struct stat st;
    int fd, ret;

    if (lstat(address->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode)) {
        return false;
    }
    fd = socket(AF_UNIX, KIND, 0);
    ret = fd < 0 ? 0 : connect(fd, (const struct sockaddr *)address, sizeof(*address));
    ret = ret < 0 ? -errno : 0;
    if (fd >= 0) {
        close(fd);
    }
    return ret == -ECONNREFUSED;
}

static int bind_unix(int fd, const struct sockaddr_un *address)
{
    const struct sockaddr *name = (const struct sockaddr *)address;

    if (bind(fd, name, sizeof(*address)) == 0) {
        return 0;
    }
    if (errno != EADDRINUSE || !is_stale(address)) {
        return -errno;
    }
    unlink(address->sun_path);
    return bind(fd, name, sizeof(*address)) < 0 ? -errno : 0;
}

int blk_socket_listen_unix(const char *path, BlkSocketPath *made, GError **error)
{
    struct sockaddr_un address;
    struct stat st;
    int fd, ret = make_unix_address(path, &address, error);

    if (ret < 0) {
        return ret;
    }
    fd = socket(AF_UNIX, KIND, 0);
    ret = fd < 0 ? -errno : bind_unix(fd, &address);
    if (ret == 0 && (listen(fd, BACKLOG) < 0 || stat(path, &st) < 0)) {
        ret = -errno;
        unlink(path);
    }
    if (ret < 0) {
        if (fd >= 0) {
            close(fd);
        }
        return blk_error_errno(error, ret, "cannot listen on the socket '%s'", path);
    }
    *made = (BlkSocketPath) { g_canonicalize_filename(path, NULL), st.st_dev, st.st_ino };
    return fd;
}

void blk_socket_path_remove(BlkSocketPath *made)
{
    struct stat st;

    if (made->path && stat(made->path, &st) == 0 && st.st_dev == made->dev && st.st_ino == made->ino) {
        unlink(made->path);
    }
    g_clear_pointer(&made->path, g_free);
}

/* ---- TCP ---- */

typedef struct Lookup {
    const char *host, *port;
    struct addrinfo hints, *found;
    int ret;
} Lookup;

static int look_up(void *arg)
{
    Lookup *lookup = arg;

    lookup->ret = getaddrinfo(lookup->host, lookup->port, &lookup->hints, &lookup->found);
    return 0;
}

/* Returns: 0: lookup->found goes with freeaddrinfo(); a negative errno. @name: for messages. */
static int co_look_up(BlkContext *ctx, Lookup *lookup, const char *name, GError **error)
{
    blk_aio_co_call(ctx, look_up, lookup);
    if (lookup->ret != 0) {
        return blk_error(error, -EINVAL, "cannot find the address '%s': %s", name, gai_strerror(lookup->ret));
    }
    return 0;
}

static in_port_t *port_of(struct sockaddr_storage *address)
{
    return address->ss_family == AF_INET6 ? &((struct sockaddr_in6 *)address)->sin6_port
                                          : &((struct sockaddr_in *)address)->sin_port;
}

/* @port: 0: the one that the address has, or a free one; (out): the one that it got. Returns: the socket, or an
 * errno. */
static int listen_tcp(const struct addrinfo *info, unsigned *port)
{
    struct sockaddr_storage address;
    socklen_t size = info->ai_addrlen;
    in_port_t *number;
    int on = 1, ret = 0;
    int fd = socket(info->ai_family, KIND, info->ai_protocol);

    if (fd < 0) {
        return -errno;
    }
    memcpy(&address, info->ai_addr, size);
    number = port_of(&address);
    if (*port) {
        *number = htons((uint16_t)*port);
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (info->ai_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    }
    if (bind(fd, (struct sockaddr *)&address, size) < 0 || listen(fd, BACKLOG) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) < 0) {
        ret = -errno;
        close(fd);
        return ret;
    }
    *port = ntohs(*number);
    return fd;
}

int blk_co_socket_listen_tcp(BlkContext *ctx, int family, const char *host, const char *port, GArray *sockets,
                             GError **error)
{
    Lookup lookup = { .host = host, .port = port,
                      .hints = { .ai_flags = AI_PASSIVE, .ai_family = family, .ai_socktype = SOCK_STREAM } };
    g_autofree char *name = g_strdup_printf("%s:%s", host ? host : "*", port);
    unsigned number = 0, made = 0;
    int ret = co_look_up(ctx, &lookup, name, error);

    if (ret < 0) {
        return ret;
    }
    for (const struct addrinfo *info = lookup.found; info; info = info->ai_next) {
        int fd = listen_tcp(info, &number);

        if (fd >= 0) {
            g_array_append_val(sockets, fd);
            made++;
        } else if (fd != -EAFNOSUPPORT) {
            ret = fd;
        }
    }
    freeaddrinfo(lookup.found);
    if (made == 0) {
        return blk_error_errno(error, ret < 0 ? ret : -EAFNOSUPPORT, "cannot listen on '%s'", name);
    }
    return (int)number;
}

/* ---- connecting ---- */

#define CONNECT_NS UINT64_C(10000000000)    /* for one address; who waits for it holds up the end of a program */

/* Returns: 0, or a negative errno. */
static int co_connect(int fd, const struct sockaddr *address, socklen_t size)
{
    BlkPoll poll = { .co = NULL };
    int ret, error = 0;
    socklen_t bytes = sizeof(error);

    if (connect(fd, address, size) == 0) {
        return 0;
    }
    if (errno != EINPROGRESS) {
        return -errno;
    }
    ret = blk_co_poll(&poll, fd, POLLOUT, blk_clock_ns() + CONNECT_NS);
    if (ret >= 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &bytes) < 0) {
        ret = -errno;
    }
    return ret < 0 ? ret : -error;
}

/* Returns: the socket, or a negative errno. */
static int co_connected(int family, int protocol, const struct sockaddr *address, socklen_t size)
{
    int fd = socket(family, KIND, protocol);
    int ret = fd < 0 ? -errno : co_connect(fd, address, size);

    if (ret < 0 && fd >= 0) {
        close(fd);
    }
    return ret < 0 ? ret : fd;
}

int blk_co_socket_connect_unix(BlkContext *ctx, const char *path, GError **error)
{
    struct sockaddr_un address;
    int ret = make_unix_address(path, &address, error);

    if (ret < 0) {
        return ret;
    }
    ret = co_connected(AF_UNIX, 0, (const struct sockaddr *)&address, sizeof(address));
    return ret < 0 ? blk_error_errno(error, ret, "cannot connect to the socket '%s'", path) : ret;
}

int blk_co_socket_connect_tcp(BlkContext *ctx, int family, const char *host, const char *port, GError **error)
{
    Lookup lookup = { .host = host, .port = port, .hints = { .ai_family = family, .ai_socktype = SOCK_STREAM } };
    g_autofree char *name = g_strdup_printf("%s:%s", host, port);
    int ret = co_look_up(ctx, &lookup, name, error);

    if (ret < 0) {
        return ret;
    }
    ret = -EADDRNOTAVAIL;
    for (const struct addrinfo *info = lookup.found; info && ret < 0; info = info->ai_next) {
        ret = co_connected(info->ai_family, info->ai_protocol, info->ai_addr, info->ai_addrlen);
    }
    freeaddrinfo(lookup.found);
    return ret < 0 ? blk_error_errno(error, ret, "cannot connect to '%s'", name) : ret;
}

/* ---- vsock ---- */

static int make_vsock_address(const char *cid, const char *port, struct sockaddr_vm *address, GError **error)
{
    guint64 numbers[2];

    if (!g_ascii_string_to_unsigned(cid, 10, 0, UINT32_MAX, &numbers[0], NULL) ||
        !g_ascii_string_to_unsigned(port, 10, 0, UINT32_MAX, &numbers[1], NULL)) {
        return blk_error(error, -EINVAL, "the vsock address '%.*s:%.*s' is not made of two numbers from 0 to %u", 64, cid, 64, port,
                         UINT32_MAX);
    }
    *address = (struct sockaddr_vm) { .svm_family = AF_VSOCK, .svm_cid = (unsigned)numbers[0], .svm_port = (unsigned)numbers[1] };
    return 0;
}

int blk_socket_listen_vsock(const char *cid, const char *port, GError **error)
{
    struct sockaddr_vm address;
    int fd, ret = make_vsock_address(cid, port, &address, error);

    if (ret < 0) {
        return ret;
    }
    fd = socket(AF_VSOCK, KIND, 0);
    if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, BACKLOG) < 0) {
        ret = -errno;
        if (fd >= 0) {
            close(fd);
        }
        return blk_error_errno(error, ret, "cannot listen on the vsock address '%s:%s'", cid, port);
    }
    return fd;
}

int blk_co_socket_connect_vsock(BlkContext *ctx, const char *cid, const char *port, GError **error)
{
    struct sockaddr_vm address;
    int ret = make_vsock_address(cid, port, &address, error);

    if (ret < 0) {
        return ret;
    }
    ret = co_connected(AF_VSOCK, 0, (const struct sockaddr *)&address, sizeof(address));
    return ret < 0 ? blk_error_errno(error, ret, "cannot connect to the vsock address '%s:%s'", cid, port) : ret;
}

/* ---- sockets of others ---- */

int blk_socket_adopt(int fd, bool listens, GError **error)
{
    int does = 0;
    socklen_t size = sizeof(does);

    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &does, &size) < 0 || (does != 0) != listens) {
        return blk_error(error, -EINVAL, "file descriptor %d is no socket that %s", fd, listens ? "listens" : "is connected");
    }
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    return 0;
}
