/* SPDX-License-Identifier: MIT */
/*
 * connect.c - from what the user calls the daemon to a connected socket, or to what can be done about there being none.
 */
#include "ctl/client.h"

#include "core/socket.h"

#include <sys/stat.h>

typedef struct Connect {
    BlkContext *ctx;
    const char *address;
    GError **error;
} Connect;

/* (transfer full): the host of HOST:PORT, *port: (out): what follows; NULL: it is a path. */
static char *host_of(const char *address, const char **port)
{
    const char *colon = strrchr(address, ':');
    size_t bytes = colon ? (size_t)(colon - address) : 0;

    if (bytes == 0 || strchr(address, '/') || !colon[1] || strspn(colon + 1, "0123456789") != strlen(colon + 1)) {
        return NULL;
    }
    *port = colon + 1;
    return address[0] == '[' && colon[-1] == ']' ? g_strndup(address + 1, bytes - 2) : g_strndup(address, bytes);
}

/* Before a connection is tried: what would fail for a reason that has nothing to do with connections. */
static int check_path(const char *path, GError **error)
{
    struct stat st;

    if (stat(path, &st) < 0) {
        int ret = -errno;

        return ret == -ENOENT
                   ? blk_error(error, ret, "there is no socket '%s': the daemon makes it, by --chardev", path)
                   : blk_error_errno(error, ret, "cannot use the socket '%s'", path);
    }
    return S_ISSOCK(st.st_mode) ? 0 : blk_error(error, -ENOTSOCK, "'%s' is no socket", path);
}

static int co_connect(void *opaque)
{
    Connect *c = opaque;
    const char *port;
    g_autofree char *host = host_of(c->address, &port);
    GError *failure = NULL;
    int ret;

    if (host) {
        return blk_co_socket_connect_tcp(c->ctx, AF_UNSPEC, host, port, c->error);
    }
    ret = check_path(c->address, c->error);
    if (ret < 0) {
        return ret;
    }
    ret = blk_co_socket_connect_unix(c->ctx, c->address, &failure);
    if (ret == -ECONNREFUSED) {
        g_error_free(failure);
        return blk_error(c->error, ret, "nobody listens on the socket '%s': the daemon that made it is gone",
                         c->address);
    }
    if (ret < 0) {
        g_propagate_error(c->error, failure);
    }
    return ret;
}

int ctl_connect(const char *address, GError **error)
{
    g_autoptr(BlkContext) ctx = blk_context_new("threads", error);
    Connect c = { ctx, address, error };

    return ctx ? blk_run(ctx, co_connect, &c) : -EIO;
}
