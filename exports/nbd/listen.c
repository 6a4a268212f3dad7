/* SPDX-License-Identifier: MIT */
/*
 * listen.c - the sockets that a server listens on: a coroutine each, which accepts clients while there is a place.
 *
 * When all places are taken and somebody waits, the oldest handshake that has taken more than a second has to go: who
 * connects and says nothing keeps nobody out.
 */
#include "core/loop.h"
#include "exports/nbd/server.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG         128
#define PAUSE_NS        (NBD_SECOND_NS / 10)            /* when no place or no descriptor is left */
#define DEFAULT_PORT    "10809"

/* ---- accepting ---- */

static bool has_place(const BlkNbdServer *server)
{
    return server->connections.length < server->max_connections;
}

/* Returns: 0; -EAGAIN: nobody waits; others: it cannot be done now. */
static int accept_one(NbdListener *listener)
{
    int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd < 0) {
        return errno == ECONNABORTED || errno == EINTR ? 0 : -errno;
    }
    blk_nbd_connection_start(listener->server, fd);
    return 0;
}

static void end_old_handshake(BlkNbdServer *server)
{
    uint64_t now_ns = blk_clock_ns();

    for (GList *l = server->connections.head; l; l = l->next) {
        NbdConnection *c = l->data;

        if (!c->export && !c->failed) {
            if (c->deadline_ns - server->handshake_ns + NBD_SECOND_NS <= now_ns) {
                blk_nbd_connection_fail(c);
            }
            return;         /* those behind it are younger */
        }
    }
}

static int co_listen(void *opaque)
{
    NbdListener *listener = opaque;
    BlkNbdServer *server = listener->server;

    while (!server->closing) {
        int ret = has_place(server) ? accept_one(listener) : -EBUSY;

        if (ret == -EAGAIN || ret == -EBUSY) {
            blk_co_poll(&listener->poll, listener->fd, POLLIN, UINT64_MAX);
        }
        if (ret == -EBUSY && !has_place(server)) {
            end_old_handshake(server);
        }
        if (ret < 0 && ret != -EAGAIN && !server->closing) {
            blk_co_sleep_cancellable(&listener->pause, blk_clock_ns() + PAUSE_NS);
        }
    }
    server->accepting--;
    blk_co_queue_wake_all(&server->changed);
    return 0;
}

void blk_nbd_wake_listeners(BlkNbdServer *server)
{
    for (guint i = 0; i < server->listeners->len; i++) {
        blk_sleep_cancel(&((NbdListener *)server->listeners->pdata[i])->pause);
    }
}

static NbdListener *add_listener(BlkNbdServer *server, int fd)
{
    NbdListener *listener = g_new0(NbdListener, 1);

    listener->server = server;
    listener->fd = fd;
    g_ptr_array_add(server->listeners, listener);
    server->accepting++;
    blk_co_spawn(server->ctx, co_listen, listener);
    return listener;
}

/* The path is ours no more if somebody else has put a socket there. */
static void remove_path(const NbdListener *listener)
{
    struct stat st;

    if (listener->path && stat(listener->path, &st) == 0 && st.st_dev == listener->dev && st.st_ino == listener->ino) {
        unlink(listener->path);
    }
}

void blk_nbd_co_stop_listening(BlkNbdServer *server)
{
    g_assert(server->closing);
    for (guint i = 0; i < server->listeners->len; i++) {
        NbdListener *listener = server->listeners->pdata[i];

        blk_poll_cancel(&listener->poll);
        remove_path(listener);
    }
    blk_nbd_wake_listeners(server);
    while (server->accepting > 0) {
        blk_co_queue_wait(&server->changed);
    }
    for (guint i = 0; i < server->listeners->len; i++) {
        NbdListener *listener = server->listeners->pdata[i];

        close(listener->fd);
        g_free(listener->path);
        g_free(listener);
    }
    g_ptr_array_set_size(server->listeners, 0);
}

int blk_nbd_server_listen_fd(BlkNbdServer *server, int fd, GError **error)
{
    int listens = 0, ret;
    socklen_t size = sizeof(listens);

    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) < 0 || !listens) {
        ret = blk_error(error, -EINVAL, "file descriptor %d is no socket that listens", fd);
        close(fd);
        return ret;
    }
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    add_listener(server, fd);
    return 0;
}

/* ---- unix sockets ---- */

/* Is it the socket of a server that is gone? */
static bool is_stale(const struct sockaddr_un *address)
{
    struct stat st;
    int fd, ret;

    if (lstat(address->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode)) {
        return false;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
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

int blk_nbd_server_listen_unix(BlkNbdServer *server, const char *path, GError **error)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    NbdListener *listener;
    struct stat st;
    int fd, ret;

    if (strlen(path) >= sizeof(address.sun_path)) {
        return blk_error(error, -ENAMETOOLONG, "the path of the socket '%s' is longer than %zu bytes", path,
                         sizeof(address.sun_path) - 1);
    }
    strcpy(address.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
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
    listener = add_listener(server, fd);
    listener->path = g_canonicalize_filename(path, NULL);
    listener->dev = st.st_dev;
    listener->ino = st.st_ino;
    return 0;
}

/* ---- TCP ---- */

typedef struct Lookup {
    const char *host, *port;
    struct addrinfo *found;
    int ret;
} Lookup;

static int look_up(void *arg)
{
    static const struct addrinfo hints = { .ai_flags = AI_PASSIVE, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
    Lookup *lookup = arg;

    lookup->ret = getaddrinfo(lookup->host, lookup->port, &hints, &lookup->found);
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
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, info->ai_protocol);

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

int blk_co_nbd_server_listen_tcp(BlkNbdServer *server, const char *host, const char *port, GError **error)
{
    Lookup lookup = { .host = host, .port = port ? port : DEFAULT_PORT };
    g_autofree char *name = g_strdup_printf("%s:%s", host ? host : "*", lookup.port);
    unsigned number = 0, sockets = 0;
    int ret = 0;

    blk_aio_co_call(server->ctx, look_up, &lookup);
    if (lookup.ret != 0) {
        return blk_error(error, -EINVAL, "cannot find the address '%s': %s", name, gai_strerror(lookup.ret));
    }
    for (const struct addrinfo *info = lookup.found; info; info = info->ai_next) {
        int fd = listen_tcp(info, &number);

        if (fd >= 0) {
            add_listener(server, fd);
            sockets++;
        } else if (fd != -EAFNOSUPPORT) {
            ret = fd;
        }
    }
    freeaddrinfo(lookup.found);
    server->port = server->port ? server->port : number;
    return sockets > 0 ? 0 : blk_error_errno(error, ret < 0 ? ret : -EAFNOSUPPORT, "cannot listen on '%s'", name);
}
