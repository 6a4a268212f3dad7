/* SPDX-License-Identifier: MIT */
/*
 * server.h - the inside of the NBD server: what its files share. See docs/nbd.md.
 *
 * All of it belongs to one context and runs in its coroutines.
 */
#ifndef BLKSTACK_EXPORTS_NBD_SERVER_H
#define BLKSTACK_EXPORTS_NBD_SERVER_H

#include "core/channel.h"
#include "core/object.h"
#include "core/poll.h"
#include "core/socket.h"
#include "exports/nbd/meta.h"

#include <blkstack/nbd.h>

#define NBD_MAX_PAYLOAD         (UINT32_C(32) << 20)    /* bytes of one request */
#define NBD_MAX_SKIPPED_PAYLOAD (UINT32_C(64) << 20)    /* ... that are read and forgotten, for an error to be told */
#define NBD_MAX_IN_FLIGHT       128                     /* requests of a connection */
#define NBD_MAX_IN_FLIGHT_BYTES ((size_t)16 << 20)      /* ... and their buffers, if there are several */
#define NBD_MAX_SERVER_BYTES    ((size_t)256 << 20)     /* buffers of all requests in flight, */
#define NBD_OWN_BYTES           ((size_t)256 << 10)     /* ... beyond those that a connection may have in any case */
#define NBD_MAX_KEPT_BYTES      ((size_t)32 << 20)      /* of buffers for the next requests of a server's connections */
#define NBD_MAX_CHUNKS          32                      /* of one reply */
#define NBD_SECOND_NS           UINT64_C(1000000000)
#define NBD_GRACE_NS            (5 * NBD_SECOND_NS)     /* for clients that do not take their replies, at the end */

typedef struct NbdConnection NbdConnection;

typedef struct NbdExport {
    BlkExport base;
    unsigned connections;           /* in transmission */
    unsigned max_connections;       /* 0: any number */
    bool writethrough, allocation_depth;
    bool closing;                   /* no more clients */
    BlkObject *tls_authz;           /* (nullable) */
} NbdExport;

typedef struct NbdListener {
    BlkNbdServer *server;
    int fd;
    BlkPoll poll;
    BlkSleep pause;
    BlkSocketPath path;             /* to be removed at the end; empty: none */
} NbdListener;

struct BlkNbdServer {
    BlkContext *ctx;
    unsigned max_connections;
    uint64_t handshake_ns;
    BlkObject *tls_creds;           /* (nullable): no TLS */
    BlkObject *tls_authz;           /* (nullable) */
    bool tls_required;
    void (*closed)(BlkNbdServer *server, bool served, void *opaque);
    void (*refused)(BlkNbdServer *server, const char *text, void *opaque);
    void *opaque;

    GPtrArray *exports;             /* NbdExport */
    GPtrArray *listeners;           /* NbdListener */
    GQueue connections;             /* NbdConnection, by their links */
    size_t in_flight_bytes;         /* buffers of requests in flight */
    size_t kept_bytes;              /* ... and of those that are not */
    unsigned starving;              /* connections that wait for a part of NBD_MAX_SERVER_BYTES */
    unsigned port;                  /* of the first TCP socket */
    bool closing;
    unsigned accepting;             /* coroutines of listeners */
    BlkCoQueue changed;             /* a connection or a listener has ended */
};

/* ---- requests and replies ---- */

typedef struct NbdRequest {
    NbdConnection *connection;
    struct NbdRequest *next;        /* in a list of the connection */
    NbdHeader header;
    uint32_t error;                 /* known when it was received */
    uint8_t *buffer;                /* (nullable): payload, or what was read */
    size_t capacity;
    size_t charged;                 /* bytes of the limits */
    /* The reply. */
    unsigned first, count;          /* what is left of vec */
    unsigned chunks;
    struct iovec vec[2 * NBD_MAX_CHUNKS];
    uint8_t heads[NBD_MAX_CHUNKS][NBD_MAX_CHUNK_HEAD];
} NbdRequest;

/* ---- connections ---- */

struct NbdConnection {
    BlkNbdServer *server;
    GList link;
    BlkChannel *channel;
    bool tls;
    bool stopping;                  /* nothing more is to be received */
    bool failed;                    /* nothing more can be sent */

    /* handshake */
    uint64_t deadline_ns;
    NbdMode mode;
    bool no_zeroes;
    char *context_export;           /* (nullable): name that contexts were chosen for */
    NbdContexts contexts;
    NbdExport *export;              /* (nullable): chosen; held */
    const NbdExport *wants;         /* (nullable): waits for a place in it */
    BlkSleep place;                 /* waits for one there, or for memory */

    /* input */
    uint8_t *input;
    size_t input_first, input_end;
    bool large_payloads;            /* the last request had one */
    BlkCo *receiver;

    /* requests */
    NbdRequest *unused;
    unsigned in_flight;             /* received, and their replies not sent */
    size_t in_flight_bytes;
    BlkCoQueue changed;             /* a request has ended, or nothing more is to be received */
    bool starves;                   /* sleeps in place */
    uint64_t payload_late_ns, reply_late_ns;    /* from when on what is being received, or sent, is late; 0: nothing is */

    /* output */
    NbdRequest *replies, *last_reply;
    bool receiver_sends;            /* it runs, and will send what is queued before it sleeps */
    bool sender_runs;
};

/* connection.c */

/* Serves the socket until it ends; it counts from now on. */
void blk_nbd_connection_start(BlkNbdServer *server, int fd);
/* Waits, in the handshake, until it is worth looking again for a place in @export. -ETIMEDOUT, -ECANCELED. */
int blk_nbd_co_wait_for_place(NbdConnection *c, const NbdExport *export);
void blk_nbd_wake_waiters(BlkNbdServer *server, const NbdExport *export);
/* During the handshake. */
int blk_nbd_co_send_bytes(NbdConnection *c, const GByteArray *bytes);
/* Ends it after what is in flight; a handshake at once. Does not yield. */
void blk_nbd_connection_stop(NbdConnection *c);
/* Ends it without sending anything more. Does not yield. */
void blk_nbd_connection_fail(NbdConnection *c);
/* Ends all connections to @export (NULL: all of the server), and those that do not take their replies after
 * NBD_GRACE_NS. */
void blk_nbd_co_end_connections(BlkNbdServer *server, const NbdExport *export);

/* Waits for what is in flight; @c is gone when it returns. */
void blk_nbd_co_connection_end(NbdConnection *c);

/* server.c */
NbdExport *blk_nbd_find_export(const BlkNbdServer *server, NbdString name);

/* listen.c */

void blk_nbd_wake_listeners(BlkNbdServer *server);          /* there may be a place again */
void blk_nbd_co_stop_listening(BlkNbdServer *server);       /* server->closing is set */

/* negotiate.c. Returns: 0: c->export is chosen; <0: the connection is over. */
int blk_nbd_co_negotiate(NbdConnection *c);

/* memory.c: what requests may take, and who has to go when it is not enough */

/* A request in flight with a buffer of @bytes, which is not there yet; waits for its place. NULL: the connection is to end. */
NbdRequest *blk_nbd_co_new_request(NbdConnection *c, size_t bytes);
/* @request has a buffer of @bytes, or of more. */
int blk_nbd_request_reserve(NbdRequest *request, size_t bytes);
/* Its reply was sent, or never will be. */
void blk_nbd_request_done(NbdRequest *request);
void blk_nbd_free_requests(NbdConnection *c);       /* none is in flight */
/* When a client that is to send or to take so much now is late. */
uint64_t blk_nbd_late_ns(uint64_t bytes);

/* transmit.c */

/* Receives requests, and at last ends the connection. A coroutine's function. */
int blk_nbd_co_receive(void *connection);

/* command.c: does it and queues the reply. A coroutine's function. */
int blk_nbd_co_execute(void *request);
/* The bytes that its buffer may come to. */
size_t blk_nbd_buffer_bytes(const NbdConnection *c, const NbdHeader *header);

/* status.c: fills in the reply's chunks. 0 or a negative errno. */
int blk_nbd_co_block_status(NbdRequest *request);
size_t blk_nbd_block_status_bytes(const NbdConnection *c);      /* that a reply takes at most, beside heads */

/* reply.c */
void blk_nbd_reply_add(NbdRequest *request, size_t head_bytes, const void *payload, size_t payload_bytes);
static inline uint8_t *blk_nbd_reply_head(NbdRequest *request)
{
    return request->heads[request->chunks];
}
/* Replaces what was added by an error. @message: (nullable): for people. */
void blk_nbd_reply_error(NbdRequest *request, uint32_t error, const char *message);
void blk_nbd_reply_queue(NbdRequest *request);
/* Sends what can be sent without waiting. */
void blk_nbd_send_now(NbdConnection *c);
/* Sees to it that what is queued will be sent. */
void blk_nbd_send_later(NbdConnection *c);
/* Forgets what is queued. */
void blk_nbd_drop_replies(NbdConnection *c);

#endif
