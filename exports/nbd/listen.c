/* SPDX-License-Identifier: MIT */
/*
 * listen.c - the sockets that a server listens on: a coroutine each, which accepts clients while there is a place.
 *
 * When all places are taken and somebody waits, the oldest handshake that has taken more than a second has to go: who
 * connects and says nothing keeps nobody out.
 */
#include "core/loop.h"
#include "exports/nbd/server.h"

#include <sys/socket.h>
#include <unistd.h>

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

void blk_nbd_co_stop_listening(BlkNbdServer *server)
{
    g_assert(server->closing);
    for (guint i = 0; i < server->listeners->len; i++) {
        NbdListener *listener = server->listeners->pdata[i];

        blk_poll_cancel(&listener->poll);
        blk_socket_path_remove(&listener->path);
    }
    blk_nbd_wake_listeners(server);
    while (server->accepting > 0) {
        blk_co_queue_wait(&server->changed);
    }
    for (guint i = 0; i < server->listeners->len; i++) {
        NbdListener *listener = server->listeners->pdata[i];

        close(listener->fd);
        g_free(listener);
    }
    g_ptr_array_set_size(server->listeners, 0);
}

int blk_nbd_server_listen_fd(BlkNbdServer *server, int fd, GError **error)
{
    int ret = blk_socket_adopt(fd, true, error);

    if (ret == 0) {
        add_listener(server, fd);
    }
    return ret;
}

int blk_nbd_server_listen_unix(BlkNbdServer *server, const char *path, GError **error)
{
    BlkSocketPath made;
    int fd = blk_socket_listen_unix(path, &made, error);

    if (fd < 0) {
        return fd;
    }
    add_listener(server, fd)->path = made;
    return 0;
}

int blk_co_nbd_server_listen_tcp(BlkNbdServer *server, const char *host, const char *port, GError **error)
{
    g_autoptr(GArray) sockets = g_array_new(FALSE, FALSE, sizeof(int));
    int number = blk_co_socket_listen_tcp(server->ctx, AF_UNSPEC, host, port ? port : DEFAULT_PORT, sockets, error);

    if (number < 0) {
        return number;
    }
    for (guint i = 0; i < sockets->len; i++) {
        add_listener(server, g_array_index(sockets, int, i));
    }
    server->port = server->port ? server->port : (unsigned)number;
    return 0;
}
