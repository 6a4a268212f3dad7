/* SPDX-License-Identifier: MIT */
/*
 * stack.h - stacks for tests of the graph and the request path, made of fakes.
 *
 * "mem": a protocol in memory that checks what it is asked, counts, yields in each request, fails and stops on demand.
 * "box": a format without an engine that keeps its data in "file" as it is, may have a cluster size, and takes
 * compressed writes.
 */
#ifndef BLKSTACK_TEST_STACK_H
#define BLKSTACK_TEST_STACK_H

#include "test.h"

#include "core/node.h"

#include <string.h>

typedef struct Mem {
    uint8_t *data;
    uint64_t room;
    BlkLimits limits;
    bool no_zeroes;
    unsigned reads, writes, zeroes, discards, flushes;
    uint64_t bytes_read, bytes_written;
    uint64_t last_offset, last_bytes;       /* of the last read or write */
    unsigned last_flags;
    uint64_t fail_read_at, fail_write_at;   /* a request that covers it fails; UINT64_MAX: none does */
    int fail_zeroes;
    bool hold;                              /* writes stop ... */
    BlkCoQueue held;                        /* ... here, after they are counted */
    unsigned holding;
    unsigned in_flight, max_in_flight;
    unsigned perm, shared, set_perms;
    int refuse_perm;                        /* set_perm() fails if it is asked for any of these */
} Mem;

static const BlkOption mem_options[] = {
    { "size", BLK_OPTION_SIZE, "bytes", "1M" },
    { "read-align", BLK_OPTION_SIZE, "bytes", "1" },
    { "write-align", BLK_OPTION_SIZE, "bytes", "1" },
    { "mem-align", BLK_OPTION_SIZE, "bytes", "1" },
    { "max-transfer", BLK_OPTION_SIZE, "bytes", "0" },
    { "zeroes-align", BLK_OPTION_SIZE, "bytes", "1" },
    { "discard-align", BLK_OPTION_SIZE, "bytes", "1" },
    { "fua", BLK_OPTION_BOOL, "FUA writes", "off" },
    { "fail-open", BLK_OPTION_BOOL, "refuses", "off" },
    { NULL },
};

static int mem_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    Mem *mem = node->opaque;

    if (blk_options_bool(options, "fail-open")) {
        return blk_error(error, -ENXIO, "mem: told to fail");
    }
    node->length = blk_options_uint(options, "size");
    node->caps = blk_options_bool(options, "fua") ? BLK_CAP_FUA : 0;
    mem->room = MIN(node->length, 1 << 24) + (1 << 20);
    mem->data = g_malloc0(mem->room);
    mem->limits.read_align = blk_options_uint(options, "read-align");
    mem->limits.write_align = blk_options_uint(options, "write-align");
    mem->limits.mem_align = blk_options_uint(options, "mem-align");
    mem->limits.max_transfer = blk_options_uint(options, "max-transfer");
    mem->limits.zeroes_align = blk_options_uint(options, "zeroes-align");
    mem->limits.discard_align = blk_options_uint(options, "discard-align");
    mem->fail_read_at = mem->fail_write_at = UINT64_MAX;
    return 0;
}

static void mem_co_close(BlkNode *node)
{
    g_free(((Mem *)node->opaque)->data);
}

static void mem_refresh_limits(BlkNode *node)
{
    node->limits = ((Mem *)node->opaque)->limits;
}

static void mem_check(BlkNode *node, const BlkRequest *req, uint32_t align)
{
    Mem *mem = node->opaque;
    struct iovec vec[64];
    size_t done;
    unsigned n = blk_iov_fill(req->iov, req->bytes, vec, 64, &done);

    ck_assert_uint_gt(req->bytes, 0);
    ck_assert_uint_eq(req->offset % align, 0);
    ck_assert_uint_eq(req->bytes % align, 0);
    ck_assert_uint_eq(done, req->bytes);
    for (unsigned i = 0; i < n; i++) {
        ck_assert_uint_eq((uintptr_t)vec[i].iov_base % mem->limits.mem_align, 0);
        ck_assert_uint_eq(vec[i].iov_len % mem->limits.mem_align, 0);
    }
    if (mem->limits.max_transfer) {
        ck_assert_uint_le(req->bytes, mem->limits.max_transfer);
    }
    ck_assert_uint_le(req->offset + req->bytes, mem->room);
}

static bool mem_covers(const BlkRequest *req, uint64_t at)
{
    return at >= req->offset && at - req->offset < req->bytes;
}

static void mem_begin(Mem *mem, const BlkRequest *req)
{
    mem->last_offset = req->offset;
    mem->last_bytes = req->bytes;
    mem->last_flags = req->flags;
    mem->in_flight++;
    mem->max_in_flight = MAX(mem->max_in_flight, mem->in_flight);
    blk_co_reschedule();
}

static int mem_co_preadv(BlkNode *node, BlkRequest *req)
{
    Mem *mem = node->opaque;

    mem_check(node, req, mem->limits.read_align);
    mem->reads++;
    mem->bytes_read += req->bytes;
    mem_begin(mem, req);
    mem->in_flight--;
    if (mem_covers(req, mem->fail_read_at)) {
        return -EIO;
    }
    blk_iov_from_buf(req->iov, mem->data + req->offset, req->bytes);
    return 0;
}

static int mem_co_pwritev(BlkNode *node, BlkRequest *req)
{
    Mem *mem = node->opaque;

    mem_check(node, req, mem->limits.write_align);
    mem->writes++;
    mem->bytes_written += req->bytes;
    mem_begin(mem, req);
    while (mem->hold) {
        mem->holding++;
        blk_co_queue_wait(&mem->held);
        mem->holding--;
    }
    mem->in_flight--;
    if (mem_covers(req, mem->fail_write_at)) {
        return -EIO;
    }
    blk_iov_to_buf(req->iov, mem->data + req->offset, req->bytes);
    return 0;
}

static int mem_co_pwrite_zeroes(BlkNode *node, BlkRequest *req)
{
    Mem *mem = node->opaque;

    mem->zeroes++;
    mem->last_flags = req->flags;
    ck_assert_uint_eq(req->offset % mem->limits.zeroes_align, 0);
    if (mem->fail_zeroes) {
        return mem->fail_zeroes;
    }
    memset(mem->data + req->offset, 0, req->bytes);
    return 0;
}

static int mem_co_discard(BlkNode *node, BlkRequest *req)
{
    Mem *mem = node->opaque;

    mem->discards++;
    mem->last_offset = req->offset;
    mem->last_bytes = req->bytes;
    return 0;
}

static int mem_co_flush(BlkNode *node)
{
    ((Mem *)node->opaque)->flushes++;
    blk_co_reschedule();
    return 0;
}

static int mem_co_truncate(BlkNode *node, uint64_t length, BlkPrealloc prealloc, GError **error)
{
    Mem *mem = node->opaque;

    if (length > mem->room) {
        return blk_error(error, -ENOSPC, "mem: no room");
    }
    if (length > node->length) {
        memset(mem->data + node->length, 0, length - node->length);
    }
    node->length = length;
    return 0;
}

static int mem_set_perm(BlkNode *node, unsigned perm, unsigned shared, GError **error)
{
    Mem *mem = node->opaque;

    if (perm & mem->refuse_perm) {
        return blk_error(error, -EAGAIN, "mem: locked by another");
    }
    mem->perm = perm;
    mem->shared = shared;
    mem->set_perms++;
    return 0;
}

static const char *const mem_prefixes[] = { "mem", NULL };

static JsonObject *mem_parse_filename(const char *name, GError **error)
{
    JsonObject *tree = json_object_new();

    json_object_set_string_member(tree, "size", name + 4);
    return tree;
}

static const BlkDriver mem_driver = {
    .name = "mem",
    .kind = BLK_PROTOCOL,
    .options = mem_options,
    .instance_size = sizeof(Mem),
    .prefixes = mem_prefixes,
    .parse_filename = mem_parse_filename,
    .co_open = mem_co_open,
    .co_close = mem_co_close,
    .refresh_limits = mem_refresh_limits,
    .set_perm = mem_set_perm,
    .co_preadv = mem_co_preadv,
    .co_pwritev = mem_co_pwritev,
    .co_pwrite_zeroes = mem_co_pwrite_zeroes,
    .co_discard = mem_co_discard,
    .co_flush = mem_co_flush,
    .co_truncate = mem_co_truncate,
};

typedef struct Box {
    uint32_t cluster_size;
    uint64_t length;
    unsigned compressed, writes, flushes;
} Box;

static const BlkOption box_options[] = {
    { "file", BLK_OPTION_NODE, "where the data lies" },
    { "backing", BLK_OPTION_NODE, "what is below" },
    { "cluster-size", BLK_OPTION_SIZE, "bytes", "64k" },
    { "length", BLK_OPTION_SIZE, "bytes; 0: that of the file", "0" },
    { "rewrite", BLK_OPTION_BOOL, "compressed writes may be repeated", "on" },
    { NULL },
};

static int box_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    Box *box = node->opaque;

    if (!blk_co_open_child(node, options, "file", BLK_ROLE_IMAGE, error)) {
        return -EINVAL;
    }
    box->cluster_size = blk_options_uint(options, "cluster-size");
    box->length = blk_options_uint(options, "length");
    node->length = box->length ? box->length : node->file->node->length;
    node->caps = BLK_CAP_COMPRESSED_WRITE;
    if (blk_options_bool(options, "rewrite")) {
        node->caps |= BLK_CAP_COMPRESSED_REWRITE;
    }
    return blk_co_open_backing(node, options, NULL, NULL, error);
}

static int box_probe(const uint8_t *head, size_t bytes, const char *filename)
{
    return bytes >= 4 && memcmp(head, "BOX!", 4) == 0 ? 100 : 0;
}

static void box_refresh_limits(BlkNode *node)
{
    node->limits.cluster_size = ((Box *)node->opaque)->cluster_size;
}

static int box_co_preadv(BlkNode *node, BlkRequest *req)
{
    return blk_co_pass_through_read(node, req);
}

static int box_co_pwritev(BlkNode *node, BlkRequest *req)
{
    Box *box = node->opaque;
    uint64_t end = req->offset + req->bytes;

    box->writes++;
    ck_assert_uint_le(end, node->length);
    if (req->flags & BLK_REQ_COMPRESSED) {
        ck_assert_uint_eq(req->offset % box->cluster_size, 0);
        ck_assert(end % box->cluster_size == 0 || end == node->length);
        box->compressed++;
    }
    req->flags &= ~BLK_REQ_COMPRESSED;
    return blk_co_pass_through_write(node, req);
}

static int box_co_flush(BlkNode *node)
{
    ((Box *)node->opaque)->flushes++;
    return 0;
}

static const BlkDriver box_driver = {
    .name = "box",
    .kind = BLK_FORMAT,
    .options = box_options,
    .instance_size = sizeof(Box),
    .probe = box_probe,
    .co_open = box_co_open,
    .refresh_limits = box_refresh_limits,
    .co_preadv = box_co_preadv,
    .co_pwritev = box_co_pwritev,
    .co_flush = box_co_flush,
};

/* ---- running ---- */

static inline void run_test(BlkCoFn *fn)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BlkContext) ctx = blk_context_new(NULL, &error);

    ck_assert_msg(ctx != NULL, "%s", error ? error->message : "");
    ck_assert_int_eq(blk_driver_register(ctx, &mem_driver, NULL), 0);
    ck_assert_int_eq(blk_driver_register(ctx, &box_driver, NULL), 0);
    blk_run(ctx, fn, ctx);
}

/* Opens a tree that is written with ' for ". */
static inline BlkNode *try_open(BlkContext *ctx, const char *text, GError **error)
{
    g_autofree char *json = g_strdelimit(g_strdup(text), "'", '"');
    g_autoptr(GError) bad = NULL;
    g_autoptr(JsonObject) tree = blk_json_parse_object(json, -1, "test", &bad);

    ck_assert_msg(tree != NULL, "%s: %s", json, bad ? bad->message : "");
    return blk_co_open(ctx, tree, error);
}

static inline BlkNode *open_stack(BlkContext *ctx, const char *text)
{
    g_autoptr(GError) error = NULL;
    BlkNode *node = try_open(ctx, text, &error);

    ck_assert_msg(node != NULL, "%s: %s", text, error ? error->message : "");
    return node;
}

/* Opens and attaches; the edge holds the only reference. */
static inline BlkChild *use_stack(BlkContext *ctx, const char *text, unsigned perm)
{
    g_autoptr(GError) error = NULL;
    BlkNode *node = open_stack(ctx, text);
    BlkChild *user = blk_co_attach(node, "test", perm, BLK_PERM_ALL, &error);

    ck_assert_msg(user != NULL, "%s", error ? error->message : "");
    blk_co_unref(node);
    return user;
}

static inline Mem *mem_of(BlkContext *ctx, const char *name)
{
    BlkNode *node = blk_node_find(ctx, name);

    ck_assert(node != NULL && node->driver == &mem_driver);
    return node->opaque;
}

static inline Box *box_of(BlkContext *ctx, const char *name)
{
    BlkNode *node = blk_node_find(ctx, name);

    ck_assert(node != NULL && node->driver == &box_driver);
    return node->opaque;
}

static inline void refuse_open(BlkContext *ctx, const char *text, const char *part)
{
    g_autoptr(GError) error = NULL;
    BlkNode *node = try_open(ctx, text, &error);

    ck_assert_msg(node == NULL, "opened: %s", text);
    ck_assert_msg(error && strstr(error->message, part), "'%s' does not say '%s'", error ? error->message : "", part);
    ck_assert_uint_eq(g_hash_table_size(blk_context_graph(ctx)->nodes), 0);
}

static inline void write_byte(BlkNode *node, uint64_t offset, uint64_t bytes, int value)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    memset(buf, value, bytes);
    ck_assert_int_eq(blk_co_pwrite(node, offset, bytes, buf, 0), 0);
}

static inline void mem_release(Mem *mem)
{
    mem->hold = false;
    blk_co_queue_wake_all(&mem->held);
}

static inline void let_run(void)
{
    for (int i = 0; i < 20; i++) {
        blk_co_reschedule();
    }
}

#endif
