/* SPDX-License-Identifier: MIT */
/*
 * test_nbd_driver.c - the driver "nbd" on an NBD server in the same loop: what is kept of block status, scattered
 * buffers, lost connections.
 */
#include "node_test.h"

#include <blkstack/nbd.h>
#include <sys/socket.h>

enum { LENGTH = 8 << 20, UNIT = 64 << 10 };

/* ---- a disk in memory that counts questions about its block status ---- */

typedef struct Disk {
    uint8_t *data;
    unsigned questions, turns;      /* each question takes so many turns of the loop */
} Disk;

static int disk_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    Disk *disk = node->opaque;

    disk->data = g_malloc0(LENGTH);
    node->length = LENGTH;
    return 0;
}

static void disk_co_close(BlkNode *node)
{
    g_free(((Disk *)node->opaque)->data);
}

static int disk_co_preadv(BlkNode *node, BlkRequest *req)
{
    blk_iov_from_buf(req->iov, ((Disk *)node->opaque)->data + req->offset, req->bytes);
    return 0;
}

static int disk_co_pwritev(BlkNode *node, BlkRequest *req)
{
    blk_iov_to_buf(req->iov, ((Disk *)node->opaque)->data + req->offset, req->bytes);
    return 0;
}

static int disk_co_block_status(BlkNode *node, uint64_t offset, uint64_t bytes, BlkStatus *status)
{
    Disk *disk = node->opaque;
    bool zero = blk_buffer_is_zero(disk->data + offset / UNIT * UNIT, UNIT);

    disk->questions++;
    status->bytes = MIN(bytes, UNIT - offset % UNIT);
    status->flags = BLK_STATUS_ALLOCATED | (zero ? BLK_STATUS_ZERO : BLK_STATUS_DATA);
    for (unsigned i = 0; i < disk->turns; i++) {
        blk_co_reschedule();
    }
    return 0;
}

static const BlkDriver disk_driver = {
    .name            = "test-disk",
    .kind            = BLK_PROTOCOL,
    .instance_size   = sizeof(Disk),
    .co_open         = disk_co_open,
    .co_close        = disk_co_close,
    .co_preadv       = disk_co_preadv,
    .co_pwritev      = disk_co_pwritev,
    .co_block_status = disk_co_block_status,
};

/* ---- a server of it, and a client ---- */

typedef struct Pair {
    BlkNbdServer *server;
    BlkNode *served;
    Disk *disk;
    BlkChild *user;
    BlkNode *node;              /* the client's */
    char *socket;
} Pair;

static void pair_serve(Test *t, Pair *p)
{
    static const BlkNbdServerOptions none = { .max_connections = 0 };
    static const BlkNbdExportOptions writable = { .writable = true };

    p->server = blk_nbd_server_new(t->ctx, &none, NULL);
    ck_assert_ptr_nonnull(p->server);
    ck_assert_int_eq(blk_co_nbd_export_add(p->server, p->served, &writable, NULL), 0);
    ck_assert_int_eq(blk_nbd_server_listen_unix(p->server, p->socket, NULL), 0);
}

static void pair_open(Test *t, Pair *p, const char *options)
{
    g_autofree char *json = g_strdup_printf("{\"driver\": \"nbd\", \"path\": \"@/s\"%s}", options);

    *p = (Pair) { .socket = g_build_filename(t->dir, "s", NULL) };
    ck_assert_int_eq(blk_driver_register(t->ctx, &disk_driver, NULL), 0);
    p->served = try_open(t, "{\"driver\": \"test-disk\"}", NULL);
    ck_assert_ptr_nonnull(p->served);
    p->disk = p->served->opaque;
    pair_serve(t, p);
    p->user = open_for(t, BLK_PERM_READ | BLK_PERM_WRITE, json);
    p->node = blk_child_node(p->user);
}

static void pair_close(Pair *p)
{
    blk_co_detach(p->user);
    ck_assert_int_eq(blk_co_nbd_server_free(p->server, NULL), 0);
    blk_co_unref(p->served);
    g_free(p->socket);
}

static bool is_zero(Pair *p, unsigned unit)
{
    BlkStatus status;

    ck_assert_int_eq(blk_co_block_status(p->node, (uint64_t)unit * UNIT, UNIT, &status), 0);
    ck_assert_uint_eq(status.bytes, UNIT);
    return status.flags & BLK_STATUS_ZERO;
}

static void write_unit(Pair *p, unsigned unit)
{
    g_autofree uint8_t *buf = g_malloc(UNIT);

    memset(buf, 1, UNIT);
    ck_assert_int_eq(blk_co_pwrite(p->node, (uint64_t)unit * UNIT, UNIT, buf, 0), 0);
}

CO_TEST(who_asks_on_gets_what_is_kept)
{
    unsigned asked;
    Pair p;

    pair_open(t, &p, "");
    for (unsigned unit = 0; unit < LENGTH / UNIT; unit += 2) {
        write_unit(&p, unit);
    }
    /* Who asks elsewhere gets that and no more. */
    ck_assert(is_zero(&p, 11));
    ck_assert_uint_eq(p.disk->questions, 1);
    ck_assert(!is_zero(&p, 12));
    asked = p.disk->questions;
    for (unsigned unit = 13; unit < LENGTH / UNIT; unit++) {
        ck_assert(is_zero(&p, unit) == (unit % 2 == 1));
    }
    ck_assert_uint_eq(p.disk->questions, asked);
    pair_close(&p);
}

CO_TEST(nothing_is_kept_over_a_change)
{
    Pair p;

    pair_open(t, &p, "");
    write_unit(&p, 100);
    ck_assert(is_zero(&p, 0));
    ck_assert(is_zero(&p, 1));
    write_unit(&p, 3);
    ck_assert(is_zero(&p, 2));
    ck_assert(!is_zero(&p, 3));
    ck_assert(is_zero(&p, 4));
    ck_assert_int_eq(blk_co_pwrite_zeroes(p.node, 100 * UNIT, UNIT, 0), 0);
    for (unsigned unit = 5; unit <= 100; unit++) {
        ck_assert_msg(is_zero(&p, unit), "unit %u", unit);
    }
    pair_close(&p);
}

typedef struct Asker {
    Pair *pair;
    unsigned unit;
    bool done;
} Asker;

static int asker_co_run(void *opaque)
{
    Asker *asker = opaque;

    is_zero(asker->pair, asker->unit);
    asker->done = true;
    return 0;
}

/* An answer that was under way during a change is not kept. */
CO_TEST(a_change_while_the_server_is_asked)
{
    Pair p;
    Asker asker = { &p, 2, false };

    pair_open(t, &p, ", \"connections\": 2");      /* so that the write does not wait behind the question */
    write_unit(&p, 126);
    ck_assert(is_zero(&p, 1));
    p.disk->turns = 100;
    blk_co_spawn(t->ctx, asker_co_run, &asker);
    while (p.disk->questions < 60) {
        blk_co_reschedule();
    }
    write_unit(&p, 4);
    ck_assert(!asker.done);
    while (!asker.done) {
        blk_co_reschedule();
    }
    p.disk->turns = 0;
    ck_assert(is_zero(&p, 3));
    ck_assert(!is_zero(&p, 4));
    pair_close(&p);
}

CO_TEST(scattered_buffers)
{
    g_autofree uint8_t *out = g_malloc(3 * UNIT), *in = g_malloc0(3 * UNIT);
    struct iovec from[3] = { { out, 1000 }, { out + 1000, UNIT }, { out + 1000 + UNIT, 5000 } };
    struct iovec to[2] = { { in, UNIT }, { in + UNIT, 6000 } };
    Pair p;

    for (unsigned i = 0; i < 3 * UNIT; i++) {
        out[i] = (uint8_t)(i * 7 + i / 251);
    }
    pair_open(t, &p, "");
    ck_assert_int_eq(blk_co_pwritev(p.node, 12345, UNIT + 6000, (BlkIov) { from, 3, 0 }, 0), 0);
    ck_assert_mem_eq(p.disk->data + 12345, out, UNIT + 6000);
    ck_assert_int_eq(blk_co_preadv(p.node, 12345, UNIT + 6000, (BlkIov) { to, 2, 0 }, 0), 0);
    ck_assert_mem_eq(in, out, UNIT + 6000);
    pair_close(&p);
}

/* More than the socket takes at once, in both directions. */
CO_TEST(large_requests)
{
    g_autofree uint8_t *out = g_malloc(LENGTH), *in = g_malloc0(LENGTH);
    Pair p;

    for (unsigned i = 0; i < LENGTH; i++) {
        out[i] = (uint8_t)(i * 7 + i / 251);
    }
    pair_open(t, &p, "");
    ck_assert(is_zero(&p, 0));      /* from now on the client waits for something to read */
    ck_assert_int_eq(blk_co_pwrite(p.node, 0, LENGTH, out, 0), 0);
    ck_assert_int_eq(blk_co_pread(p.node, 0, LENGTH, in, 0), 0);
    ck_assert_mem_eq(in, out, LENGTH);
    pair_close(&p);
}

/* It breaks, and nobody has noticed when the next request is sent: that fails, and all after it. */
CO_TEST(a_socket_that_breaks)
{
    static const BlkNbdServerOptions none = { .max_connections = 0 };
    static const BlkNbdExportOptions writable = { .writable = true };
    g_autofree char *json = NULL;
    uint8_t buf[512] = { 1 };
    BlkNbdServer *server;
    BlkNode *served;
    BlkChild *user;
    int fds[2], other;

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    other = dup(fds[0]);
    ck_assert_int_eq(blk_driver_register(t->ctx, &disk_driver, NULL), 0);
    served = try_open(t, "{\"driver\": \"test-disk\"}", NULL);
    server = blk_nbd_server_new(t->ctx, &none, NULL);
    ck_assert_int_eq(blk_co_nbd_export_add(server, served, &writable, NULL), 0);
    blk_nbd_server_add_client(server, fds[0]);
    json = g_strdup_printf("{\"driver\": \"nbd\", \"server.str\": \"%d\", \"reconnect-delay\": 60}", fds[1]);
    user = open_for(t, BLK_PERM_READ | BLK_PERM_WRITE, json);
    ck_assert_int_eq(blk_co_pwrite(blk_child_node(user), 0, 512, buf, 0), 0);
    ck_assert_int_eq(shutdown(other, SHUT_RDWR), 0);
    ck_assert_int_eq(blk_co_pwrite(blk_child_node(user), 0, 512, buf, 0), -EIO);
    ck_assert_int_eq(blk_co_pread(blk_child_node(user), 0, 512, buf, 0), -EIO);
    close(other);
    close(fds[1]);
    blk_co_detach(user);
    ck_assert_int_eq(blk_co_nbd_server_free(server, NULL), 0);
    blk_co_unref(served);
}

/* The server goes and comes back, with requests in flight. */
static int many_co_write(void *opaque)
{
    Asker *asker = opaque;

    write_unit(asker->pair, asker->unit);
    asker->done = true;
    return 0;
}

CO_TEST(requests_are_sent_again)
{
    enum { WRITERS = 32 };
    Asker writers[WRITERS];
    BlkCoGroup group = { .limit = WRITERS };
    Pair p;

    pair_open(t, &p, ", \"reconnect-delay\": 60");
    for (unsigned round = 0; round < 5; round++) {
        memset(p.disk->data, 0, LENGTH);
        ck_assert_int_eq(blk_co_nbd_server_free(p.server, NULL), 0);
        for (unsigned i = 0; i < WRITERS; i++) {
            writers[i] = (Asker) { &p, i, false };
            ck_assert_int_eq(blk_co_group_run(&group, many_co_write, &writers[i]), 0);
        }
        blk_co_sleep_ns(1000000);
        pair_serve(t, &p);
        ck_assert_int_eq(blk_co_group_wait(&group), 0);
        for (unsigned i = 0; i < WRITERS; i++) {
            ck_assert(writers[i].done);
            ck_assert_uint_eq(p.disk->data[i * UNIT], 1);
        }
    }
    pair_close(&p);
}

/* Drains and the end of the node do not wait for a server that is gone. */
static int lost_co_read(void *opaque)
{
    Asker *asker = opaque;
    g_autofree uint8_t *buf = g_malloc(UNIT);

    ck_assert_int_eq(blk_co_pread(asker->pair->node, 0, UNIT, buf, 0), -EIO);
    asker->done = true;
    return 0;
}

CO_TEST(a_drain_does_not_wait_for_a_server)
{
    Asker reader = { .done = false };
    Pair p;

    pair_open(t, &p, ", \"reconnect-delay\": 1000000");
    reader.pair = &p;
    ck_assert_int_eq(blk_co_nbd_server_free(p.server, NULL), 0);
    blk_co_spawn(t->ctx, lost_co_read, &reader);
    blk_co_sleep_ns(1000000);
    ck_assert(!reader.done);
    ck_assert_int_eq(blk_co_drain_begin(p.node), 0);
    ck_assert(reader.done);
    blk_drain_end(p.node);
    p.server = NULL;
    pair_close(&p);
}

BLK_TEST_MAIN("nbd_driver", who_asks_on_gets_what_is_kept, nothing_is_kept_over_a_change,
              a_change_while_the_server_is_asked, scattered_buffers, large_requests, a_socket_that_breaks,
              requests_are_sent_again, a_drain_does_not_wait_for_a_server)
