/* SPDX-License-Identifier: MIT */
/*
 * reply.c - replies: what they are made of, and how those that are ready leave together.
 *
 *     replies:  request -> request -> request         each with its vectors: head, payload, head, payload, ...
 *               `---- one sendmsg() -----'
 *
 * One coroutine sends at a time: the receiver, if it runs and the socket takes what there is, else one made for it.
 */
#include "core/loop.h"
#include "exports/nbd/server.h"

enum { SEND_VECTORS = 256, ERROR_ROOM = 256 };

G_STATIC_ASSERT(ERROR_ROOM <= NBD_MAX_CHUNKS * NBD_MAX_CHUNK_HEAD);

/* ---- building ---- */

void blk_nbd_reply_add(NbdRequest *request, size_t head_bytes, const void *payload, size_t payload_bytes)
{
    g_assert(request->chunks < NBD_MAX_CHUNKS);
    request->vec[request->count++] = (struct iovec) { request->heads[request->chunks++], head_bytes };
    if (payload_bytes > 0) {
        request->vec[request->count++] = (struct iovec) { (void *)payload, payload_bytes };
    }
}

void blk_nbd_reply_error(NbdRequest *request, uint32_t error, const char *message)
{
    NbdMode mode = request->connection->mode;
    uint8_t *head = (uint8_t *)request->heads;
    size_t bytes;

    if (mode == NBD_MODE_SIMPLE) {
        bytes = blk_nbd_put_simple_reply(head, error, request->header.cookie);
    } else {
        bytes = blk_nbd_put_error_chunk(head, ERROR_ROOM, mode, &request->header, error, message);
    }
    request->chunks = request->count = 0;
    blk_nbd_reply_add(request, bytes, NULL, 0);
}

/* ---- sending ---- */

static unsigned gather(const NbdConnection *c, struct iovec *vec)
{
    unsigned n = 0;

    for (const NbdRequest *r = c->replies; r && n + r->count <= SEND_VECTORS; r = r->next) {
        memcpy(vec + n, r->vec + r->first, r->count * sizeof(*vec));
        n += r->count;
    }
    return n;
}

static void consume(NbdConnection *c, size_t bytes)
{
    while (c->replies) {
        NbdRequest *r = c->replies;
        struct iovec *vec = r->vec + r->first;
        size_t before = 0;

        for (unsigned i = 0; i < r->count; i++) {
            before += vec[i].iov_len;
        }
        if (bytes < before) {
            blk_iovec_advance(&vec, &r->count, bytes);
            r->first = (unsigned)(vec - r->vec);
            return;
        }
        bytes -= before;
        c->reply_late_ns = 0;
        c->replies = r->next;
        blk_nbd_request_done(r);
    }
}

/* One try. Returns: 0; -EAGAIN with *events; other errors, after which the connection has failed. */
static int send_some(NbdConnection *c, short *events)
{
    struct iovec vec[SEND_VECTORS];
    ssize_t ret = blk_channel_try_sendv(c->channel, vec, gather(c, vec), events);

    if (ret > 0) {
        consume(c, (size_t)ret);
        return 0;
    }
    if (ret != -EAGAIN) {
        blk_nbd_connection_fail(c);
    }
    return (int)ret;
}

static int co_send(void *opaque)
{
    NbdConnection *c = opaque;
    short events;
    int ret = 0;

    while (c->replies && ret == 0) {
        ret = c->failed ? -ECANCELED : send_some(c, &events);
        if (ret == -EAGAIN) {
            c->reply_late_ns = c->reply_late_ns ? c->reply_late_ns : blk_nbd_late_ns(c->replies->charged);
            ret = blk_channel_co_wait_to_send(c->channel, events, UINT64_MAX);
        }
    }
    if (ret < 0) {
        blk_nbd_drop_replies(c);
    }
    c->sender_runs = false;
    blk_co_queue_wake_all(&c->changed);
    return 0;
}

void blk_nbd_send_later(NbdConnection *c)
{
    if (c->replies && !c->sender_runs) {
        c->sender_runs = true;
        blk_co_spawn(c->server->ctx, co_send, c);
    }
}

void blk_nbd_send_now(NbdConnection *c)
{
    short events;

    if (c->replies && !c->sender_runs && !c->failed) {
        send_some(c, &events);
    }
    blk_nbd_send_later(c);
}

void blk_nbd_reply_queue(NbdRequest *request)
{
    NbdConnection *c = request->connection;

    request->first = 0;
    request->next = NULL;
    if (c->replies) {
        c->last_reply->next = request;
    } else {
        c->replies = request;
    }
    c->last_reply = request;
    if (!c->receiver_sends) {
        blk_nbd_send_later(c);
    }
}

void blk_nbd_drop_replies(NbdConnection *c)
{
    while (c->replies) {
        NbdRequest *r = c->replies;

        c->replies = r->next;
        blk_nbd_request_done(r);
    }
}
