/* SPDX-License-Identifier: MIT */
/*
 * connection.c - one connection to an NBD server: a handle of libnbd, driven by the event loop.
 *
 *     nbd_connection_co_serve():  wait for the socket -> libnbd sends and receives -> commands end -> coroutines wake
 *     nbd_connection_co_run():    libnbd queues a command, and sends it at once if it can; sleep
 *
 * Who serves waits for what libnbd wants (to read, to write, both). When a command makes it want to write too, or finds
 * that the connection is dead, the wait is cut short: libnbd has closed the socket of a dead handle.
 *
 * Names of hosts are looked up, and the first step to TCP is made, on an I/O thread, since libnbd blocks meanwhile.
 *
 * Limitations: a look-up cannot be interrupted; libnbd takes a buffer in one piece; it speaks 32-bit lengths.
 */
#include "drivers/nbd/libnbd.h"
#include "drivers/nbd/nbd.h"

#include "core/tls_creds.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_ERROR_TEXT = 512 };

struct NbdConnection {
    BlkContext *ctx;
    struct nbd_handle *handle;
    unsigned refs;
    BlkPoll poll;               /* of who opens or serves it */
    bool cancelled;
};

/* ---- errors ---- */

/* What libnbd says of the call that just failed in this thread, so that it may be printed: parts are the server's. */
static char *error_text(void)
{
    const char *text = libnbd.get_error();
    const char *colon = text ? strstr(text, ": ") : NULL;

    if (!text) {
        return g_strdup("unknown error");
    }
    return blk_printable_text(g_str_has_prefix(text, "nbd_") && colon ? colon + 2 : text, MAX_ERROR_TEXT);
}

static int failed(GError **error)
{
    int code = libnbd.get_errno();
    g_autofree char *text = error_text();

    return blk_error(error, code > 0 ? -code : -EIO, "%s", text);
}

/* ---- making ---- */

static NbdConnection *connection_new(BlkContext *ctx, GError **error)
{
    struct nbd_handle *handle = libnbd.create();
    NbdConnection *c;

    if (!handle) {
        failed(error);
        return NULL;
    }
    c = g_new0(NbdConnection, 1);
    c->ctx = ctx;
    c->handle = handle;
    c->refs = 1;
    return c;
}

NbdConnection *nbd_connection_ref(NbdConnection *c)
{
    c->refs++;
    return c;
}

void nbd_connection_unref(NbdConnection *c)
{
    if (c && --c->refs == 0) {
        libnbd.close(c->handle);
        g_free(c);
    }
}

int nbd_handle_set_tls(struct nbd_handle *h, const NbdServer *server, GError **error)
{
    const BlkTlsCreds *creds = blk_tls_creds(server->tls);
    g_autofree char *authority = blk_tls_creds_path(creds, "ca-cert.pem");
    g_autofree char *psk = blk_tls_creds_path(creds, "keys.psk");

    if (libnbd.set_tls(h, LIBNBD_TLS_REQUIRE) < 0) {
        return failed(error);
    }
    if (creds->psk) {
        return libnbd.set_tls_psk_file(h, psk) < 0 || libnbd.set_tls_username(h, creds->username) < 0 ? failed(error) : 0;
    }
    /* Without this file libnbd would look for certificates elsewhere, and not verify the server's. */
    if (access(authority, R_OK) < 0) {
        return blk_error_errno(error, -errno, "Unable to access credentials %s", authority);
    }
    if (libnbd.set_tls_certificates(h, creds->dir) < 0 || libnbd.set_tls_verify_peer(h, creds->verify_peer) < 0) {
        return failed(error);
    }
    return 0;
}

static int configure(struct nbd_handle *h, const NbdServer *server, GError **error)
{
    if (libnbd.set_export_name(h, server->export) < 0 || libnbd.add_meta_context(h, server->context) < 0) {
        return failed(error);
    }
    return server->tls ? nbd_handle_set_tls(h, server, error) : 0;
}

typedef struct TcpCall {
    struct nbd_handle *handle;
    const NbdServer *server;
    GError **error;
} TcpCall;

static int tcp_call(void *opaque)
{
    TcpCall *call = opaque;

    return libnbd.aio_connect_tcp(call->handle, call->server->host, call->server->port) < 0 ? failed(call->error) : 0;
}

static int co_start(NbdConnection *c, NbdServer *server, GError **error)
{
    TcpCall call = { c->handle, server, error };
    int fd;

    switch (server->transport) {
    case NBD_INET:
        return blk_aio_co_call(c->ctx, tcp_call, &call);
    case NBD_UNIX:
        return libnbd.aio_connect_unix(c->handle, server->path) < 0 ? failed(error) : 0;
    case NBD_FD:
        fd = server->fd < 0 ? -1 : fcntl(server->fd, F_DUPFD_CLOEXEC, 3);
        if (fd < 0) {
            return blk_error_errno(error, -EBADF, "cannot use the socket %s", server->name);
        }
        server->fd = -1;
        return libnbd.aio_connect_socket(c->handle, fd) < 0 ? failed(error) : 0;
    }
    g_assert_not_reached();
}

/* ---- moving data ---- */

static bool is_over(NbdConnection *c)
{
    return libnbd.aio_is_dead(c->handle) || libnbd.aio_is_closed(c->handle);
}

static short wanted_events(NbdConnection *c)
{
    unsigned direction = libnbd.aio_get_direction(c->handle);

    return (direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
           (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0);
}

/* Waits for the socket once, and lets libnbd do what it can. Returns: 0, also when nothing happened; -errno. */
static int co_step(NbdConnection *c, uint64_t deadline_ns, GError **error)
{
    int revents = c->cancelled ? -ECANCELED
                               : blk_co_poll(&c->poll, libnbd.aio_get_fd(c->handle), wanted_events(c), deadline_ns);
    short wanted;

    if (c->cancelled) {
        return blk_error(error, -ECANCELED, "it was given up");
    }
    if (revents == -ECANCELED) {
        return 0;       /* libnbd wants something else now */
    }
    if (revents < 0) {
        return blk_error_errno(error, revents, "waiting for the server");
    }
    /* Another coroutine may have let libnbd do something meanwhile. */
    wanted = wanted_events(c);
    if ((wanted & POLLIN) && (revents & ~POLLOUT)) {
        return libnbd.aio_notify_read(c->handle) < 0 ? failed(error) : 0;
    }
    if ((wanted & POLLOUT) && (revents & ~POLLIN)) {
        return libnbd.aio_notify_write(c->handle) < 0 ? failed(error) : 0;
    }
    return 0;
}

void nbd_connection_cancel(NbdConnection *c)
{
    c->cancelled = true;
    blk_poll_cancel(&c->poll);
}

void nbd_connection_co_serve(NbdConnection *c, GError **reason)
{
    while (!is_over(c)) {
        if (co_step(c, UINT64_MAX, reason) < 0) {
            return;
        }
    }
    blk_error(reason, -EIO, "it is closed");
}

void nbd_connection_break(NbdConnection *c)
{
    int fd = is_over(c) ? -1 : libnbd.aio_get_fd(c->handle);

    if (fd >= 0) {
        shutdown(fd, SHUT_RDWR);
    }
}

void nbd_connection_goodbye(NbdConnection *c)
{
    if (libnbd.aio_is_ready(c->handle)) {
        (void)libnbd.aio_disconnect(c->handle, 0);     /* a server that does not get it sees the end of the connection */
    }
}

/* ---- opening ---- */

/* 0: the server did not say, or it is larger than any request may be. */
static uint32_t block_size(struct nbd_handle *h, int which)
{
    int64_t bytes = libnbd.get_block_size(h, which);

    return bytes > 0 && bytes <= NBD_MAX_TRANSFER ? (uint32_t)bytes : 0;
}

static int get_info(NbdConnection *c, const NbdServer *server, NbdExportInfo *info, GError **error)
{
    struct nbd_handle *h = c->handle;
    int64_t size = libnbd.get_size(h);

    if (size < 0) {
        return failed(error);
    }
    *info = (NbdExportInfo) {
        .size = (uint64_t)size,
        .min_block = block_size(h, LIBNBD_SIZE_MINIMUM),
        .preferred_block = block_size(h, LIBNBD_SIZE_PREFERRED),
        .max_block = block_size(h, LIBNBD_SIZE_MAXIMUM),
        .read_only = libnbd.is_read_only(h) > 0,
        .flush = libnbd.can_flush(h) > 0,
        .fua = libnbd.can_fua(h) > 0,
        .trim = libnbd.can_trim(h) > 0,
        .zero = libnbd.can_zero(h) > 0,
        .fast_zero = libnbd.can_fast_zero(h) > 0,
        .multi_conn = libnbd.can_multi_conn(h) > 0,
        .status = libnbd.can_meta_context(h, server->context) > 0,
    };
    info->max_block = info->max_block > 0 ? info->max_block : NBD_MAX_TRANSFER;
    if ((info->min_block & (info->min_block - 1)) || info->min_block > info->max_block) {
        return blk_error(error, -EINVAL, "the server's block sizes %u to %u make no sense", info->min_block,
                         info->max_block);
    }
    if (info->min_block > 0 && info->size % info->min_block != 0) {
        return blk_error(error, -EINVAL, "the length of the export, %" G_GUINT64_FORMAT ", is no multiple of the "
                         "server's minimum block size %u", info->size, info->min_block);
    }
    return 0;
}

static int co_negotiate(NbdConnection *c, NbdServer *server, uint64_t deadline_ns, NbdExportInfo *info, GError **error)
{
    int ret = configure(c->handle, server, error);

    if (ret == 0) {
        ret = co_start(c, server, error);
    }
    while (ret == 0 && !libnbd.aio_is_ready(c->handle)) {
        ret = is_over(c) ? blk_error(error, -ECONNRESET, "the server closed the connection")
                         : co_step(c, deadline_ns, error);
    }
    return ret == 0 ? get_info(c, server, info, error) : ret;
}

NbdConnection *nbd_connection_co_open(BlkContext *ctx, NbdServer *server, uint64_t deadline_ns, NbdConnection **slot,
                                      NbdExportInfo *info, GError **error)
{
    g_autoptr(NbdConnection) c = connection_new(ctx, error);
    int ret;

    if (!c) {
        return NULL;
    }
    *slot = c;
    ret = co_negotiate(c, server, deadline_ns, info, error);
    *slot = NULL;
    return ret == 0 ? g_steal_pointer(&c) : NULL;
}

/* ---- commands ---- */

static int command_done(void *opaque, int *error)
{
    NbdCommand *cmd = opaque;

    cmd->error = *error;
    cmd->done = true;
    if (cmd->co) {
        blk_co_wake(g_steal_pointer(&cmd->co));
    }
    return 0;       /* the command stays until its coroutine has asked for the result */
}

static int command_extents(void *opaque, const char *context, uint64_t offset, uint32_t *entries, size_t count,
                           int *error)
{
    NbdCommand *cmd = opaque;
    int ret = cmd->extents(cmd, context, offset, entries, count);

    if (ret < 0) {
        *error = -ret;
    }
    return ret < 0 ? -1 : 0;
}

/* Returns: what the command is called by; -1: it was refused. */
static int64_t send_command(struct nbd_handle *h, NbdCommand *cmd)
{
    nbd_completion_callback done = { .callback = command_done, .user_data = cmd };
    nbd_extent_callback extents = { .callback = command_extents, .user_data = cmd };

    switch (cmd->type) {
    case NBD_READ:
        return libnbd.aio_pread(h, cmd->buf, cmd->bytes, cmd->offset, done, cmd->flags);
    case NBD_WRITE:
        return libnbd.aio_pwrite(h, cmd->buf, cmd->bytes, cmd->offset, done, cmd->flags);
    case NBD_ZERO:
        return libnbd.aio_zero(h, cmd->bytes, cmd->offset, done, cmd->flags);
    case NBD_TRIM:
        return libnbd.aio_trim(h, cmd->bytes, cmd->offset, done, cmd->flags);
    case NBD_FLUSH:
        return libnbd.aio_flush(h, done, cmd->flags);
    case NBD_STATUS:
        return libnbd.aio_block_status(h, cmd->bytes, cmd->offset, extents, done, cmd->flags);
    }
    g_assert_not_reached();
}

/* Who serves must hear of what he does not wait for. */
static void poke_server(NbdConnection *c)
{
    if (is_over(c) || (wanted_events(c) & ~c->poll.events)) {
        blk_poll_cancel(&c->poll);
    }
}

static int result_of(NbdConnection *c, NbdCommand *cmd, int64_t cookie)
{
    /* This also finds answers to reads that lack a part. */
    if (libnbd.aio_command_completed(c->handle, (uint64_t)cookie) < 0 && cmd->error == 0) {
        cmd->error = libnbd.get_errno() > 0 ? libnbd.get_errno() : EIO;
    }
    /* ENOTCONN comes from libnbd alone; ESHUTDOWN is the server's last word, so that others may wait in vain. */
    return cmd->error == ENOTCONN || cmd->error == ESHUTDOWN ? NBD_LOST : -cmd->error;
}

int nbd_connection_co_run(NbdConnection *c, NbdCommand *cmd)
{
    int64_t cookie;

    cmd->co = NULL;
    cmd->done = false;
    cmd->error = 0;
    cookie = is_over(c) ? -1 : send_command(c->handle, cmd);
    if (cookie < 0) {
        return is_over(c) ? NBD_LOST : libnbd.get_errno() > 0 ? -libnbd.get_errno() : -EIO;
    }
    poke_server(c);
    if (!cmd->done) {
        cmd->co = blk_co_self();
        blk_co_yield();
    }
    return result_of(c, cmd, cookie);
}
