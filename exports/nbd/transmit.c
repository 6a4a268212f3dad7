/* SPDX-License-Identifier: MIT */
/*
 * transmit.c - the transmission phase: receives requests and gives each of them a coroutine.
 *
 *     receiver:  wait -> receive what there is -> requests --- one alone ---> done at once -> send -> wait
 *                                                        `---- several ----> a coroutine each -> send -> wait
 *
 * One that is done at once and has to wait leaves receiving to a new coroutine, at that moment.
 */
#include "core/loop.h"
#include "exports/nbd/server.h"

enum {
    INPUT_BYTES = 32768,
    LARGE_PAYLOAD = 16384,      /* is not worth being copied; who sends one sends more */
    BATCHES_OF_A_TURN = 16,     /* then others run, even if more is there already */
};

/* ---- receiving ---- */

static size_t buffered(const NbdConnection *c)
{
    return c->input_end - c->input_first;
}

/* How much may come into the buffer at once: after a large payload only a header, so that the next payload does not. */
static size_t input_room(const NbdConnection *c)
{
    return c->large_payloads ? nbd_request_bytes(c->mode) : INPUT_BYTES;
}

/* Waits until the buffer holds @bytes, at most those of a header. Returns: 0; -EPIPE: the stream has ended; others. */
static int co_fill(NbdConnection *c, size_t bytes)
{
    if (buffered(c) < bytes && c->input_first > 0) {
        memmove(c->input, c->input + c->input_first, buffered(c));
        c->input_end -= c->input_first;
        c->input_first = 0;
    }
    while (buffered(c) < bytes) {
        size_t room = input_room(c) - c->input_end;
        ssize_t ret = blk_channel_co_recv(c->channel, c->input + c->input_end, room, UINT64_MAX);

        if (ret <= 0) {
            return ret < 0 ? (int)ret : -EPIPE;
        }
        c->input_end += (size_t)ret;
    }
    return 0;
}

/* Of a payload, and what follows it; the buffer is empty. */
static int co_receive_rest(NbdConnection *c, uint8_t *buf, size_t bytes)
{
    ssize_t ret = blk_channel_co_recv_ahead(c->channel, buf, bytes, c->input, input_room(c), UINT64_MAX);

    c->input_first = 0;
    c->input_end = ret > 0 ? (size_t)ret : 0;
    return (int)MIN(ret, 0);
}

/* @buf: NULL: the bytes are forgotten. */
static int co_take_payload(NbdConnection *c, uint8_t *buf, size_t bytes)
{
    size_t here = MIN(buffered(c), bytes);

    if (buf) {
        memcpy(buf, c->input + c->input_first, here);
    }
    c->input_first += here;
    bytes -= here;
    if (buf) {
        return bytes > 0 ? co_receive_rest(c, buf + here, bytes) : 0;
    }
    while (bytes > 0) {
        int ret = co_fill(c, 1);

        if (ret < 0) {
            return ret;
        }
        here = MIN(buffered(c), bytes);
        c->input_first += here;
        bytes -= here;
    }
    return 0;
}

/* Receives what follows the header; what is too long, or has no place, only to answer with an error. */
static int co_receive_payload(NbdConnection *c, NbdRequest *r)
{
    int ret;

    if (r->header.payload > NBD_MAX_SKIPPED_PAYLOAD) {
        return -EMSGSIZE;
    }
    if (r->header.payload > NBD_MAX_PAYLOAD) {
        r->error = NBD_EINVAL;
    } else if (blk_nbd_request_reserve(r, r->header.payload) < 0) {
        r->error = NBD_ENOMEM;
    }
    c->large_payloads = !r->error && r->header.payload >= LARGE_PAYLOAD;
    c->payload_late_ns = blk_nbd_late_ns(r->header.payload);
    ret = co_take_payload(c, r->error ? NULL : r->buffer, r->header.payload);
    c->payload_late_ns = 0;
    return ret;
}

/* The next request, whole. Returns: 0; <0: the connection is to end. */
static int co_take_request(NbdConnection *c, NbdRequest **request)
{
    size_t bytes = nbd_request_bytes(c->mode);
    NbdHeader header;
    NbdRequest *r;
    int ret = co_fill(c, bytes);

    if (ret < 0) {
        return ret;
    }
    if (!blk_nbd_parse_request(c->mode, c->input + c->input_first, &header) || header.type == NBD_CMD_DISC) {
        return -ECONNRESET;
    }
    c->input_first += bytes;
    r = blk_nbd_co_new_request(c, blk_nbd_buffer_bytes(c, &header));
    if (!r) {
        return -ECANCELED;
    }
    r->header = header;
    c->large_payloads = false;
    ret = header.payload > 0 ? co_receive_payload(c, r) : 0;
    if (ret < 0) {
        blk_nbd_request_done(r);
        return ret;
    }
    *request = r;
    return 0;
}

/* ---- the receiver ---- */

/* The receiver is about to sleep in the middle of a request. */
static void hand_over(void *opaque)
{
    NbdConnection *c = opaque;

    c->receiver = NULL;
    c->receiver_sends = false;
    blk_nbd_send_later(c);
    blk_co_spawn(c->server->ctx, blk_nbd_co_receive, c);
}

static void run_alone(NbdConnection *c, NbdRequest *request)
{
    blk_co_on_sleep(hand_over, c);
    blk_nbd_co_execute(request);
    blk_co_on_sleep(NULL, NULL);
}

/* Takes what is there and runs it. Returns: 0; <0: the connection is to end. */
static int co_receive_batch(NbdConnection *c)
{
    BlkContext *ctx = c->server->ctx;
    NbdRequest *request, *before = NULL;
    unsigned spawned = 0;
    int ret;

    do {
        if (before) {
            blk_co_spawn(ctx, blk_nbd_co_execute, before);
            spawned++;
        }
        ret = co_take_request(c, &request);
        before = ret < 0 ? NULL : request;
    } while (before && !c->large_payloads && buffered(c) >= nbd_request_bytes(c->mode));

    c->receiver_sends = !c->stopping;
    if (spawned > 0) {
        if (before) {
            blk_co_spawn(ctx, blk_nbd_co_execute, before);
        }
        blk_co_reschedule();
    } else if (before) {
        run_alone(c, before);
    }
    return ret;
}

int blk_nbd_co_receive(void *connection)
{
    NbdConnection *c = connection;
    BlkCo *self = blk_co_self();
    unsigned batches = 0;
    int ret = 0;

    if (!c->input) {
        c->input = g_malloc(INPUT_BYTES);
    }
    c->receiver = self;
    while (ret == 0 && !c->stopping) {
        ret = co_receive_batch(c);
        if (c->receiver != self) {
            return 0;
        }
        c->receiver_sends = false;
        blk_nbd_send_now(c);
        if (++batches % BATCHES_OF_A_TURN == 0) {
            blk_co_reschedule();
        }
    }
    blk_nbd_co_connection_end(c);
    return 0;
}
