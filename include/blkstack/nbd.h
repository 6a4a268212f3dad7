/* SPDX-License-Identifier: MIT */
/*
 * nbd.h - the API for programs that offer nodes to others over NBD. docs/nbd.md says how it works.
 *
 * A server belongs to a context: everything happens in coroutines of it, so clients are served while the program runs
 * its loop. It has listening sockets and exports, both of which can come and go while clients are connected.
 */
#ifndef BLKSTACK_NBD_H
#define BLKSTACK_NBD_H

#include <blkstack/blkstack.h>

G_BEGIN_DECLS

typedef struct BlkNbdServer BlkNbdServer;

/* Strings are copied; arrays end with NULL. All but what is set may be left 0. */
typedef struct BlkNbdServerOptions {
    unsigned max_connections;           /* at once, those in their handshake included; 0: BLK_NBD_MAX_CONNECTIONS */
    unsigned handshake_seconds;         /* a client that is not through its handshake by then is dropped; 0: 10 */
    const char *tls_creds;              /* (nullable): id of a tls-creds-... object of the context; NULL: no TLS */
    bool tls_required;                  /* with tls_creds: without TLS a client learns and gets nothing */
    const char *tls_authz;              /* (nullable): id of an authz-... object: who is let in. Needs tls_creds */
    /* (nullable): a connection has ended. @served: it was through its handshake. Context: the context's thread; must
     * not yield. */
    void (*closed)(BlkNbdServer *server, bool served, void *opaque);
    /* (nullable): one sentence about a client that was refused. Context: as above. */
    void (*refused)(BlkNbdServer *server, const char *text, void *opaque);
    void *opaque;
} BlkNbdServerOptions;

#define BLK_NBD_MAX_CONNECTIONS 100

/* Returns: (transfer full): goes with blk_co_nbd_server_free(). NULL with @error set: an object is not there, or does not do. */
BlkNbdServer *blk_nbd_server_new(BlkContext *ctx, const BlkNbdServerOptions *options, GError **error);

/**
 * blk_co_nbd_server_free:
 *
 * Stops listening, ends handshakes, answers what is in flight, drops clients that do not take their answers within 5 s,
 * removes all exports. The path of a unix socket goes, too. Context: coroutine; may yield. NULL is ignored.
 * Returns: 0; the error of a flush, with @error set: what was written last may be lost.
 */
int blk_co_nbd_server_free(BlkNbdServer *server, GError **error);

/* ---- listening: any number of sockets ---- */

/* Makes the socket @path, which must not be there or be the socket of a server that is gone. -EADDRINUSE,
 * -ENAMETOOLONG, ... */
int blk_nbd_server_listen_unix(BlkNbdServer *server, const char *path, GError **error);

/* @host: (nullable): name or address, IPv4 or IPv6; NULL: all. @port: (nullable): number or service; NULL: 10809;
 * "0": a free one, see blk_nbd_server_port(). Looking up the name may take a while. Context: coroutine; may yield. */
int blk_co_nbd_server_listen_tcp(BlkNbdServer *server, const char *host, const char *port, GError **error);

/* A socket that listens already, as systemd hands it over. @fd is the server's, unless there is an error. */
int blk_nbd_server_listen_fd(BlkNbdServer *server, int fd, GError **error);

/* Of the first TCP socket; 0: there is none. */
unsigned blk_nbd_server_port(const BlkNbdServer *server);

/* A socket that is connected already. @fd is the server's from now on. */
void blk_nbd_server_add_client(BlkNbdServer *server, int fd);

/* ---- exports ---- */

#define BLK_NBD_MAX_STRING 4096                 /* bytes of a name or description */
#define BLK_NBD_MAX_BITMAPS 30

typedef struct BlkNbdExportOptions {
    const char *id;                     /* (nullable): what the program calls it; NULL: the name */
    const char *name;                   /* (nullable): what clients ask for; NULL is "", the default export */
    const char *description;            /* (nullable) */
    bool writable;
    bool writethrough;                  /* every write is stable before it is answered */
    unsigned max_connections;           /* in transmission at once; 0: no limit. Others wait in their handshake */
    const BlkBitmapRef *bitmaps;        /* (nullable): dirty bitmaps to offer; a NULL name ends them */
    bool allow_inactive;                /* the node may be inactive, and become so: nobody gets in meanwhile, and the requests
                                         * of those who are in fail with EPERM */
    bool allocation_depth;              /* offers qemu:allocation-depth */
    const char *tls_authz;              /* (nullable): as for the server, for this export alone, in addition */
} BlkNbdExportOptions;

/**
 * blk_co_nbd_export_add:
 *
 * Offers @node. The server becomes a user of it, who lets everybody else do everything.
 * Context: coroutine; may yield: bitmaps are loaded.
 * Returns: 0; -EEXIST: id or name is taken; -ENOENT: no such bitmap; -EINVAL; -EPERM: the node may not be used; others.
 */
int blk_co_nbd_export_add(BlkNbdServer *server, BlkNode *node, const BlkNbdExportOptions *options, GError **error);

typedef enum BlkNbdRemove {
    BLK_NBD_REMOVE_SAFE,                /* -EBUSY if a client is connected to it */
    BLK_NBD_REMOVE_HARD,                /* ends those connections as blk_co_nbd_server_free() does */
} BlkNbdRemove;
/* Nobody gets in any more, and the node is flushed and given back when this returns 0. -ENOENT. May yield. */
int blk_co_nbd_export_remove(BlkNbdServer *server, const char *id, BlkNbdRemove mode, GError **error);

typedef struct BlkNbdExportInfo {
    const char *id, *name, *description;        /* (transfer none); @description (nullable) */
    BlkNode *node;                              /* (transfer none) */
    bool writable;
    bool closing;                               /* it is being removed */
    unsigned connections;                       /* in transmission */
} BlkNbdExportInfo;
/* The export number @index, in the order in which they came. false: there are no more. */
bool blk_nbd_server_nth_export(const BlkNbdServer *server, unsigned index, BlkNbdExportInfo *info);

unsigned blk_nbd_server_connections(const BlkNbdServer *server);       /* those in their handshake included */

G_END_DECLS

#endif
