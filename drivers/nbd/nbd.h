/* SPDX-License-Identifier: MIT */
/*
 * nbd.h - the parts of the driver "nbd", and what they know of each other.
 *
 *     nbd.c          requests  ->  commands that a server takes, on one of several links
 *     status.c       block status, asked for in large steps
 *     link.c         a link: a connection that is made anew when it is lost, and the commands that wait meanwhile
 *     connection.c   one connection: a handle of libnbd, driven by the event loop
 *     list.c         what a server offers, for people
 *     server.c       where the server is: options and names; knows nothing of libnbd
 *
 * See docs/nbd-driver.md.
 */
#ifndef BLKSTACK_DRIVERS_NBD_H
#define BLKSTACK_DRIVERS_NBD_H

#include "core/object.h"
#include "core/poll.h"

#include <blkstack/driver.h>

/* ---- server.c ---- */

typedef enum NbdTransport { NBD_INET, NBD_UNIX, NBD_FD } NbdTransport;

typedef struct NbdServer {
    NbdTransport transport;
    char *path;                 /* unix */
    char *host, *port;          /* inet */
    int fd;                     /* fd: a connected socket; -1: it was used */
    char *export;               /* "": the default one */
    char *context;              /* what block status asks about */
    bool asks_bitmap;           /* that is a dirty bitmap, not allocation */
    BlkObject *tls;             /* (nullable): credentials; NULL: no TLS */
    char *name;                 /* as a user would write it; of a socket without a name: "fd:NUMBER" */
} NbdServer;

extern const BlkOption nbd_options[];
extern const char *const nbd_prefixes[];
JsonObject *nbd_parse_filename(const char *name, GError **error);
int nbd_server_init(NbdServer *server, BlkContext *ctx, const BlkOptions *options, GError **error);
void nbd_server_clear(NbdServer *server);       /* also one that is all zeroes */

/* ---- connection.c ---- */

/* Gives a handle of libnbd the credentials of @server, which has some. */
struct nbd_handle;
int nbd_handle_set_tls(struct nbd_handle *handle, const NbdServer *server, GError **error);

/* Larger reads and writes are known to end the connection to some servers. */
#define NBD_MAX_TRANSFER (UINT32_C(32) << 20)

/* What the server said about the export. */
typedef struct NbdExportInfo {
    uint64_t size;              /* bytes */
    uint32_t min_block;         /* requests are multiples of it; 0: it did not say */
    uint32_t preferred_block;   /* 0: it did not say */
    uint32_t max_block;         /* of reads and writes: at most NBD_MAX_TRANSFER */
    bool read_only, flush, fua, trim, zero, fast_zero, multi_conn, status;
} NbdExportInfo;

typedef enum NbdCommandType { NBD_READ, NBD_WRITE, NBD_ZERO, NBD_TRIM, NBD_FLUSH, NBD_STATUS } NbdCommandType;

/* Lives on the stack of the coroutine that waits for it. */
typedef struct NbdCommand {
    NbdCommandType type;
    uint64_t offset, bytes;
    void *buf;                  /* reads and writes: @bytes */
    uint32_t flags;             /* LIBNBD_CMD_FLAG_* */
    int (*extents)(struct NbdCommand *cmd, const char *context, uint64_t offset, const uint32_t *entries, size_t count);
    void *opaque;               /* of @extents */
    BlkCo *co;                  /* sleeps until it is done; NULL: it does not sleep yet */
    bool done;
    int error;                  /* 0 or errno */
} NbdCommand;

typedef struct NbdConnection NbdConnection;

/* What nbd_connection_co_run() returns when the connection is lost, and with it what came of the command. */
#define NBD_LOST 1

/**
 * nbd_connection_co_open:
 * @slot: (out): the connection, from the beginning until the call returns, for nbd_connection_cancel()
 * @deadline_ns: when to give up; UINT64_MAX: never
 *
 * Connects, and negotiates all that @server asks for. Context: coroutine; yields. Returns: (transfer full) or NULL.
 */
NbdConnection *nbd_connection_co_open(BlkContext *ctx, NbdServer *server, uint64_t deadline_ns, NbdConnection **slot,
                                      NbdExportInfo *info, GError **error);
NbdConnection *nbd_connection_ref(NbdConnection *connection);
void nbd_connection_unref(NbdConnection *connection);       /* NULL is ignored */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(NbdConnection, nbd_connection_unref)

/* Wakes who opens or serves it. */
void nbd_connection_cancel(NbdConnection *connection);

/* Moves data until the connection is lost (which @reason says) or cancelled. Commands end only while it runs. */
void nbd_connection_co_serve(NbdConnection *connection, GError **reason);

/* Returns: 0; -errno of the server; NBD_LOST. May yield. */
int nbd_connection_co_run(NbdConnection *connection, NbdCommand *cmd);

/* Loses the connection: its commands end, and who serves it returns. */
void nbd_connection_break(NbdConnection *connection);

/* Tells the server that nothing more will come. No command is in flight. */
void nbd_connection_goodbye(NbdConnection *connection);

/* ---- link.c ---- */

typedef struct NbdState NbdState;

typedef struct NbdLink {
    NbdState *state;
    NbdConnection *connection;  /* NULL: lost */
    NbdConnection *opening;     /* (nullable): an attempt to connect */
    unsigned in_flight;         /* commands, also those that wait */
    GQueue waiting;             /* commands that wait for a connection */
    uint64_t wait_until_ns;     /* commands wait so long for a connection */
    bool closing;
    BlkSleep pause;             /* between two attempts */
    uint64_t pause_ns;          /* how long the next one is */
    unsigned told;              /* what the user knows of the last losses */
    BlkCoGroup tasks;           /* one that serves the connection, or makes a new one */
} NbdLink;

/* The first connection of a node; tries again and again until @deadline_ns, if that is not 0. */
int nbd_link_co_open(NbdLink *link, NbdState *state, uint64_t deadline_ns, NbdExportInfo *info, GError **error);
void nbd_link_co_close(NbdLink *link);      /* also one that was not opened */

/* One command, on as many connections as it takes. Returns: 0; -errno of the server; -ENOTCONN: the server is gone. */
int nbd_link_co_run(NbdLink *link, NbdCommand *cmd);

/* Commands that wait for a connection fail now, as do those that come before there is one. */
void nbd_link_hurry(NbdLink *link);

/* ---- status.c ---- */

typedef struct NbdExtent {
    uint32_t bytes, flags;      /* LIBNBD_STATE_* */
} NbdExtent;

/* The rest of the last answer. */
typedef struct NbdStatusCache {
    NbdExtent *extents;         /* (nullable) */
    unsigned count, next;       /* extents[next] begins at offset */
    uint64_t offset;
    uint64_t next_offset;       /* where the last answer that was given ended */
    uint64_t time_ns;           /* when the server was asked */
    unsigned generation;        /* counts changes of the export */
} NbdStatusCache;

int nbd_status_co_get(NbdState *s, uint64_t offset, uint64_t bytes, BlkStatus *status);
void nbd_status_forget(NbdState *s);        /* before and after each change */
void nbd_status_clear(NbdState *s);

/* ---- nbd.c ---- */

enum { NBD_MAX_LINKS = 16 };

struct NbdState {
    BlkNode *node;
    NbdServer server;
    NbdExportInfo info;
    uint64_t reconnect_delay_ns;
    NbdLink links[NBD_MAX_LINKS];
    unsigned n_links;
    uint64_t changes, flushed;  /* changes that have returned; those of them that are stable */
    bool flush_failed;          /* nobody knows what is left of the others */
    NbdStatusCache cache;
};

/* On the link that has least to do. Returns: as nbd_link_co_run(). */
int nbd_co_run(NbdState *s, NbdCommand *cmd);

/* A connection is lost, and with it perhaps what the server had not made stable. */
void nbd_state_lost_connection(NbdState *s);

#endif
