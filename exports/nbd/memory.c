/* SPDX-License-Identifier: MIT */
/*
 * memory.c - what requests take: one connection, and all of a server together.
 *
 *     request in flight:  charged to its connection (16 MiB, or one request), and to the server (256 MiB)
 *     request that is over:  its buffer is kept for the next one, up to 32 MiB in all connections
 *
 * Up to 256 KiB a connection never waits for others. Beyond that it does; if it waits for more than a second, the client is
 * dropped that has been late for the longest time: one that takes no replies, or does not send what it announced. So clients
 * that hold memory and do nothing keep nobody out, and a slow one is disturbed only if others need what it holds.
 *
 * Limitations: among those that wait, a small request may overtake a large one.
 */
#include "core/loop.h"
#include "exports/nbd/server.h"

enum { SMALL_BUFFER = 64 << 10 };       /* is not worth giving back */

#define LATE_NS_PER_BYTE ((NBD_SECOND_NS >> 20) + 1)    /* 1 MiB a second is fast enough */

/* ---- limits ---- */

static bool fits_connection(const NbdConnection *c, size_t bytes)
{
    return c->in_flight == 0 ||
           (c->in_flight < NBD_MAX_IN_FLIGHT && c->in_flight_bytes + bytes <= NBD_MAX_IN_FLIGHT_BYTES);
}

static bool fits_server(const NbdConnection *c, size_t bytes)
{
    return c->in_flight_bytes + bytes <= NBD_OWN_BYTES || c->server->in_flight_bytes + bytes <= NBD_MAX_SERVER_BYTES;
}

uint64_t blk_nbd_late_ns(uint64_t bytes)
{
    return blk_clock_ns() + 2 * NBD_SECOND_NS + bytes * LATE_NS_PER_BYTE;
}

/* When it was, or will be, late; UINT64_MAX: never, or it holds nothing of what is scarce. */
static uint64_t late_since(const NbdConnection *c)
{
    uint64_t payload = c->payload_late_ns ? c->payload_late_ns : UINT64_MAX;
    uint64_t reply = c->reply_late_ns ? c->reply_late_ns : UINT64_MAX;

    return c->in_flight_bytes > NBD_OWN_BYTES && !c->failed ? MIN(payload, reply) : UINT64_MAX;
}

static void end_latest(BlkNbdServer *server)
{
    NbdConnection *latest = NULL;

    for (GList *l = server->connections.head; l; l = l->next) {
        if (!latest || late_since(l->data) < late_since(latest)) {
            latest = l->data;
        }
    }
    if (latest && late_since(latest) <= blk_clock_ns()) {
        blk_nbd_connection_fail(latest);
    }
}

/* Sleeps until memory was given back, or until *deadline_ns; then somebody may have to go. */
static void co_starve(NbdConnection *c, uint64_t *deadline_ns)
{
    c->starves = true;
    c->server->starving++;
    blk_co_sleep_cancellable(&c->place, *deadline_ns);
    c->server->starving--;
    c->starves = false;
    if (blk_clock_ns() >= *deadline_ns) {
        end_latest(c->server);
        *deadline_ns = blk_clock_ns() + NBD_SECOND_NS;
    }
}

static void feed(BlkNbdServer *server)
{
    for (GList *l = server->starving > 0 ? server->connections.head : NULL; l; l = l->next) {
        NbdConnection *c = l->data;

        if (c->starves) {
            blk_sleep_cancel(&c->place);
        }
    }
}

static void co_wait_for_memory(NbdConnection *c, size_t bytes)
{
    uint64_t deadline_ns = 0;

    while (!c->stopping && !(fits_connection(c, bytes) && fits_server(c, bytes))) {
        if (!fits_connection(c, bytes)) {
            blk_co_queue_wait(&c->changed);
            continue;
        }
        deadline_ns = deadline_ns ? deadline_ns : blk_clock_ns() + NBD_SECOND_NS;
        co_starve(c, &deadline_ns);
    }
}

/* ---- requests ---- */

static void drop_buffer(NbdRequest *r)
{
    g_clear_pointer(&r->buffer, blk_buffer_free);
    r->capacity = 0;
}

/* One whose buffer suits, or the first. NULL: there is none. */
static NbdRequest *take_unused(NbdConnection *c, size_t bytes)
{
    size_t most = MAX(2 * bytes, SMALL_BUFFER);
    NbdRequest **at = &c->unused, *r;

    while (*at && ((*at)->capacity < bytes || (*at)->capacity > most)) {
        at = &(*at)->next;
    }
    at = *at ? at : &c->unused;
    r = *at;
    if (r) {
        *at = r->next;
        c->server->kept_bytes -= r->capacity;
        if (r->capacity > most) {
            drop_buffer(r);
        }
    }
    return r;
}

NbdRequest *blk_nbd_co_new_request(NbdConnection *c, size_t bytes)
{
    NbdRequest *r;

    co_wait_for_memory(c, bytes);
    if (c->stopping) {
        return NULL;
    }
    r = take_unused(c, bytes);
    if (!r) {
        r = g_new0(NbdRequest, 1);
        r->connection = c;
    }
    r->error = NBD_SUCCESS;
    r->charged = MAX(bytes, r->capacity);
    r->chunks = r->count = 0;
    c->in_flight++;
    c->in_flight_bytes += r->charged;
    c->server->in_flight_bytes += r->charged;
    return r;
}

int blk_nbd_request_reserve(NbdRequest *request, size_t bytes)
{
    if (request->capacity < bytes) {
        blk_buffer_free(request->buffer);
        request->buffer = blk_buffer_try_alloc(blk_export_node(&request->connection->export->base), bytes);
        request->capacity = request->buffer ? bytes : 0;
    }
    return request->buffer || bytes == 0 ? 0 : -ENOMEM;
}

void blk_nbd_request_done(NbdRequest *request)
{
    NbdConnection *c = request->connection;

    if (c->server->kept_bytes + request->capacity > NBD_MAX_KEPT_BYTES) {
        drop_buffer(request);
    }
    c->server->kept_bytes += request->capacity;
    c->server->in_flight_bytes -= request->charged;
    c->in_flight--;
    c->in_flight_bytes -= request->charged;
    request->next = c->unused;
    c->unused = request;
    blk_co_queue_wake_all(&c->changed);
    feed(c->server);
}

void blk_nbd_free_requests(NbdConnection *c)
{
    while (c->unused) {
        NbdRequest *r = c->unused;

        c->unused = r->next;
        c->server->kept_bytes -= r->capacity;
        blk_buffer_free(r->buffer);
        g_free(r);
    }
}
