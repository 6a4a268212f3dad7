/* SPDX-License-Identifier: MIT */
/*
 * monitor.h - clients that steer the daemon, in the wire format of QMP. See docs/daemon-design.md.
 */
#ifndef BLKSTACK_TOOLS_DAEMON_MONITOR_H
#define BLKSTACK_TOOLS_DAEMON_MONITOR_H

#include "daemon/chardev.h"
#include "daemon/json_stream.h"
#include "daemon/telnet.h"

#define MONITOR_QUEUE_BYTES ((size_t)1 << 20)   /* of output that waits for a client; see monitor_client_send() */

typedef struct Monitor {
    Chardev *chardev;
    bool pretty;
} Monitor;

typedef struct MonitorClient {
    Daemon *d;
    const Monitor *monitor;
    GList link;                 /* in Daemon.clients */
    BlkChannel *channel;
    bool negotiated;            /* takes commands, and hears events */

    TelnetState telnet;         /* if the chardev speaks telnet */
    JsonStream input;
    GQueue output;              /* GBytes *: the first one may be under way */
    size_t output_bytes;
    BlkCoQueue output_changed;  /* there is more, or less, or there will be no more */
    bool closing;               /* the output ends with what is queued */
    BlkSleep grace;             /* the end waits for the writer */
    bool failed;                /* nothing more can be sent */
    bool writing;               /* the coroutine that sends runs */
    unsigned dropped_events;
} MonitorClient;

/* @text: what --monitor says. Does not yield. */
int monitor_add(Daemon *d, const char *text, GError **error);
extern const BlkOption monitor_options[];

/* Queues @message, (transfer full), for the client. Always, since nothing more is read from a client before it has taken its
 * replies. An event is dropped if more than MONITOR_QUEUE_BYTES wait. */
void monitor_client_reply(MonitorClient *client, JsonObject *message);

/* For blk_context_set_notice_handler(): an event for all clients. @daemon: the Daemon. */
void monitor_notice(BlkContext *ctx, const char *name, JsonObject *data, void *daemon);

/* Clients are heard no more. Does not yield. */
void monitor_stop_all(Daemon *d);
/* ... and have what was queued for them, or take it not. */
void monitor_co_end_all(Daemon *d);

/* dispatch.c: does what @text says, and queues the reply. May yield. */
void monitor_co_dispatch(MonitorClient *client, const GString *text);
/* Both (transfer full). @id: (nullable): as the client sent it. */
JsonObject *monitor_greeting(void);
JsonObject *monitor_error_message(const GError *error, JsonNode *id);
/* {"qemu": {"major": ...}, "package": ...}. (transfer full) */
JsonObject *monitor_version(void);

#endif
