/* SPDX-License-Identifier: MIT */
/*
 * connection.c - the beginning and the end of a connection.
 */
#include "core/loop.h"
#include "core/node.h"
#include "exports/nbd/server.h"

static int co_serve(void *opaque)
{
    NbdConnection *c = opaque;

    if (blk_nbd_co_negotiate(c) == 0) {
        return blk_nbd_co_receive(c);
    }
    blk_nbd_co_connection_end(c);
    return 0;
}

void blk_nbd_connection_start(BlkNbdServer *server, int fd)
{
    NbdConnection *c = g_new0(NbdConnection, 1);

    c->server = server;
    c->channel = blk_channel_new(fd);
    c->deadline_ns = blk_clock_ns() + server->handshake_ns;
    c->link.data = c;
    g_queue_push_tail_link(&server->connections, &c->link);
    blk_co_spawn(server->ctx, co_serve, c);
}

void blk_nbd_connection_stop(NbdConnection *c)
{
    if (!c->export) {
        blk_nbd_connection_fail(c);
        return;
    }
    c->stopping = true;
    blk_channel_cancel_recv(c->channel);
    blk_sleep_cancel(&c->place);
    blk_co_queue_wake_all(&c->changed);
}

void blk_nbd_connection_fail(NbdConnection *c)
{
    c->stopping = c->failed = true;
    blk_channel_cancel(c->channel);
    blk_sleep_cancel(&c->place);
    blk_co_queue_wake_all(&c->changed);
}

int blk_nbd_co_send_bytes(NbdConnection *c, const GByteArray *bytes)
{
    struct iovec vec = { bytes->data, bytes->len };

    return blk_channel_co_sendv(c->channel, &vec, 1, c->deadline_ns);
}

int blk_nbd_co_wait_for_place(NbdConnection *c, const NbdExport *export)
{
    int ret;

    c->wants = export;
    ret = blk_co_sleep_cancellable(&c->place, c->deadline_ns);
    c->wants = NULL;
    if (c->stopping) {
        return -ECANCELED;
    }
    return ret == 0 ? -ETIMEDOUT : 0;
}

void blk_nbd_wake_waiters(BlkNbdServer *server, const NbdExport *export)
{
    for (GList *l = server->connections.head; l; l = l->next) {
        NbdConnection *c = l->data;

        if (c->wants == export) {
            blk_sleep_cancel(&c->place);
        }
    }
}

/* ---- all connections of a server, or of one export ---- */

static bool concerns(const NbdConnection *c, const NbdExport *export)
{
    return !export || c->export == export;
}

static void stop_connections(BlkNbdServer *server, const NbdExport *export)
{
    for (GList *l = server->connections.head; l; l = l->next) {
        if (concerns(l->data, export)) {
            blk_nbd_connection_stop(l->data);
        }
    }
}

static bool any_connection(const BlkNbdServer *server, const NbdExport *export)
{
    return export ? export->connections > 0 : server->connections.length > 0;
}

/* Lets what is in flight for clients that are to go end soon. Returns: (transfer full): for co_unhurry(). */
static GPtrArray *hurry(const BlkNbdServer *server, const NbdExport *only)
{
    GPtrArray *nodes = g_ptr_array_new();

    for (guint i = 0; i < server->exports->len; i++) {
        const NbdExport *export = g_ptr_array_index(server->exports, i);

        if (!only || export == only) {
            blk_node_hurry_begin(blk_export_node(&export->base));
            g_ptr_array_add(nodes, blk_export_node(&export->base));
        }
    }
    return nodes;
}

static void co_unhurry(GPtrArray *nodes)
{
    for (guint i = 0; i < nodes->len; i++) {
        blk_co_node_hurry_end(nodes->pdata[i]);
    }
    g_ptr_array_unref(nodes);
}

typedef struct Grace {
    BlkNbdServer *server;
    const NbdExport *export;        /* (nullable) */
    BlkSleep sleep;
    bool over;
} Grace;

/* Ends connections that do not take their replies. */
static int co_end_grace(void *opaque)
{
    Grace *grace = opaque;

    if (any_connection(grace->server, grace->export) &&
        blk_co_sleep_cancellable(&grace->sleep, blk_clock_ns() + NBD_GRACE_NS) == 0) {
        for (GList *l = grace->server->connections.head; l; l = l->next) {
            if (concerns(l->data, grace->export)) {
                blk_nbd_connection_fail(l->data);
            }
        }
    }
    grace->over = true;
    blk_co_queue_wake_all(&grace->server->changed);
    return 0;
}

void blk_nbd_co_end_connections(BlkNbdServer *server, const NbdExport *export)
{
    Grace grace = { .server = server, .export = export };
    GPtrArray *hurried;

    stop_connections(server, export);
    if (!any_connection(server, export)) {
        return;
    }
    hurried = hurry(server, export);
    blk_co_spawn(server->ctx, co_end_grace, &grace);
    while (any_connection(server, export)) {
        blk_co_queue_wait(&server->changed);
    }
    blk_sleep_cancel(&grace.sleep);
    while (!grace.over) {
        blk_co_queue_wait(&server->changed);
    }
    co_unhurry(hurried);
}

/* ---- the end of one ---- */

/* What is in flight ends first; its replies are sent, unless the connection has failed. */
void blk_nbd_co_connection_end(NbdConnection *c)
{
    BlkNbdServer *server = c->server;
    NbdExport *export = c->export;

    c->stopping = true;
    while (c->in_flight > 0 || c->sender_runs) {
        blk_co_queue_wait(&c->changed);
    }
    if (!c->failed) {
        blk_channel_co_shutdown(c->channel, blk_clock_ns() + NBD_SECOND_NS);
    }
    blk_channel_free(c->channel);
    blk_nbd_free_requests(c);
    g_free(c->input);
    g_free(c->context_export);
    g_queue_unlink(&server->connections, &c->link);
    g_free(c);
    if (export) {
        export->connections--;
        blk_nbd_wake_waiters(server, export);
    }
    if (server->closed) {
        server->closed(server, export != NULL, server->opaque);
    }
    blk_nbd_wake_listeners(server);
    blk_co_queue_wake_all(&server->changed);
}
