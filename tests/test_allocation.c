/* SPDX-License-Identifier: MIT */
/*
 * test_allocation.c - a request in steady state allocates nothing: the C library's allocator is wrapped and counts.
 *
 * Limitations: counts nothing with other C libraries than glibc, nor with sanitizers, which have allocators of their
 * own.
 */
#include "nbd_client.h"

#include <stdatomic.h>

#ifndef __has_feature
#define __has_feature(feature) 0
#endif
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && \
    !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer) && !__has_feature(memory_sanitizer)
#define CAN_COUNT 1
#else
#define CAN_COUNT 0
#endif

static atomic_uint allocations;     /* of all threads, since the program began */

#if CAN_COUNT

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *old, size_t bytes);
void *__libc_memalign(size_t align, size_t bytes);

void *malloc(size_t bytes)
{
    allocations++;
    return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
    allocations++;
    return __libc_calloc(count, bytes);
}

void *realloc(void *old, size_t bytes)
{
    allocations++;
    return __libc_realloc(old, bytes);
}

int posix_memalign(void **out, size_t align, size_t bytes)
{
    allocations++;
    *out = __libc_memalign(align, bytes);
    return *out ? 0 : ENOMEM;
}

#endif

enum { BLOCK = 4096, BLOCKS = 2048, REQUESTS = 512, STEP = 617 };

static const char plain[] = "{'driver': 'qcow2', 'file': {'driver': 'file', 'filename': '@/a'}}";
static const char direct[] = "{'driver': 'qcow2', 'cache.direct': true, 'file': {'driver': 'file', 'filename': '@/a'}}";
static const char filtered[] = "{'driver': 'compress', 'file': {'driver': 'qcow2', 'file': {'driver': 'file', "
                               "'filename': '@/a'}}}";

typedef struct Load {
    BlkNode *node;
    bool write;
    unsigned next, end;         /* requests */
    uint8_t *buf;
} Load;

static int send_requests(void *opaque)
{
    Load *load = opaque;
    int ret = 0;

    while (ret == 0 && load->next < load->end) {
        uint64_t offset = (uint64_t)load->next++ * STEP % BLOCKS * BLOCK;
        ret = load->write ? blk_co_pwrite(load->node, offset, BLOCK, load->buf, 0)
                          : blk_co_pread(load->node, offset, BLOCK, load->buf, 0);
    }
    return ret;
}

/* Returns: how often something was allocated. Assertions would count: they allocate. */
static unsigned send_all(Load *load, unsigned depth)
{
    BlkCoGroup group = BLK_CO_GROUP_INIT(depth);
    unsigned before = allocations, after;
    int ret = 0;

    load->end = load->next + REQUESTS;
    for (unsigned i = 0; ret == 0 && i < depth; i++) {
        ret = blk_co_group_run(&group, send_requests, load);
    }
    ret = blk_co_group_wait(&group);
    after = allocations;
    ck_assert_int_eq(ret, 0);
    return after - before;
}

static void make_image(Test *t)
{
    g_autofree char *name = test_text(t, "@/a");
    g_autoptr(JsonObject) options = blk_json_parse_object("{'size': 8388608}", -1, "test", NULL);
    g_autoptr(GError) error = NULL;

    ck_assert_msg(blk_co_create(t->ctx, name, "qcow2", options, &error) == 0, "%s", error ? error->message : "");
    BlkChild *user = open_rw(t, plain);
    write_pattern(user, 0, BLOCKS * BLOCK, 1);
    blk_co_detach(user);
}

/* The first time tables are read, coroutines and threads made. */
static void count(Test *t, const char *stack, bool write)
{
    BlkChild *user = open_for(t, write ? BLK_PERM_ALL : BLK_PERM_READ, stack);
    Load load = { .node = blk_child_node(user), .write = write, .buf = blk_buffer_try_alloc(NULL, BLOCK) };

    memset(load.buf, 2, BLOCK);
    send_all(&load, 16);
    for (unsigned depth = 1; depth <= 16; depth *= 16) {
        unsigned n = send_all(&load, depth);
        ck_assert_msg(n == 0, "%s: %u allocations for %d %s at depth %u", stack, n, REQUESTS,
                      write ? "writes" : "reads", depth);
    }
    blk_buffer_free(load.buf);
    blk_co_detach(user);
}

static bool can_be_direct(Test *t)
{
    g_autofree char *name = test_text(t, "@/a");
    int fd = open(name, O_RDONLY | O_DIRECT | O_CLOEXEC);

    return fd >= 0 && close(fd) == 0;
}

CO_TEST(requests_allocate_nothing)
{
    make_image(t);
    for (unsigned write = 0; write < 2; write++) {
        count(t, plain, write);
        if (can_be_direct(t)) {
            count(t, direct, write);
        }
    }
    count(t, filtered, false);
}

/* Sends @depth reads together and takes the replies. */
static int read_served(BlkChannel *client, unsigned depth, unsigned first, uint8_t *replies)
{
    uint8_t requests[16 * NBD_REQUEST_BYTES] = { 0 };
    struct iovec vec = { requests, depth * NBD_REQUEST_BYTES };

    for (unsigned i = 0; i < depth; i++) {
        uint8_t *at = requests + i * NBD_REQUEST_BYTES;

        blk_put_be32(at, NBD_REQUEST_MAGIC);
        blk_put_be64(at + 16, (uint64_t)(first + i) * STEP % BLOCKS * BLOCK);
        blk_put_be32(at + 24, BLOCK);
    }
    if (blk_channel_co_sendv(client, &vec, 1, UINT64_MAX) < 0) {
        return -EIO;
    }
    return blk_channel_co_recv_all(client, replies, depth * (NBD_SIMPLE_REPLY_BYTES + BLOCK), UINT64_MAX);
}

/* Returns: how often something was allocated. */
static unsigned read_all_served(BlkChannel *client, unsigned depth, uint8_t *replies)
{
    unsigned before = allocations, after;
    int ret = 0;

    for (unsigned i = 0; ret == 0 && i < REQUESTS; i += depth) {
        ret = read_served(client, depth, i, replies);
    }
    after = allocations;
    ck_assert_int_eq(ret, 0);
    return after - before;
}

CO_TEST(served_requests_allocate_nothing)
{
    static const BlkNbdServerOptions server_options = { .max_connections = 0 };
    static const BlkNbdExportOptions export_options = { .name = "" };
    BlkNbdServer *server = blk_nbd_server_new(t->ctx, &server_options, NULL);
    g_autofree uint8_t *replies = g_malloc(16 * (NBD_SIMPLE_REPLY_BYTES + BLOCK));
    Client *client = client_new(server);

    make_image(t);
    BlkChild *user = open_for(t, BLK_PERM_READ, plain);
    ck_assert_int_eq(blk_co_nbd_export_add(server, blk_child_node(user), &export_options, NULL), 0);
    client_greet(client);
    ck_assert_uint_eq(client_go(client, NBD_OPT_GO, ""), NBD_REP_ACK);
    read_all_served(client->channel, 16, replies);
    for (unsigned depth = 1; depth <= 16; depth *= 16) {
        ck_assert_uint_eq(read_all_served(client->channel, depth, replies), 0);
    }
    client_free(client);
    ck_assert_int_eq(blk_co_nbd_server_free(server, NULL), 0);
    blk_co_detach(user);
}

CO_TEST(allocations_are_counted)
{
    unsigned before = allocations;
    void *volatile buffer = blk_buffer_try_alloc(NULL, BLOCK);
    void *volatile small = g_malloc0(8);

    ck_assert(!CAN_COUNT || allocations >= before + 2);
    blk_buffer_free(buffer);
    g_free(small);
}

BLK_TEST_MAIN("allocation", allocations_are_counted, requests_allocate_nothing,
              served_requests_allocate_nothing)
