/* SPDX-License-Identifier: MIT */
/*
 * test_request.c - the request path: alignment, read-modify-write, splitting, zeroes, FUA, flush, order.
 */
#include "stack.h"

#define RDWR (BLK_PERM_READ | BLK_PERM_WRITE)

typedef struct Write {
    BlkNode *node;
    uint64_t offset, bytes;
    int value;
    unsigned flags;
    int ret;
    bool done;
} Write;

static int write_run(void *opaque)
{
    Write *w = opaque;
    g_autofree uint8_t *buf = g_malloc(w->bytes);

    memset(buf, w->value, w->bytes);
    w->ret = blk_co_pwrite(w->node, w->offset, w->bytes, buf, w->flags);
    w->done = true;
    return 0;
}

static void fill_pattern(uint8_t *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        data[i] = i * 7 + i / 251;
    }
}

/* Every start and length around blocks of @align, read and written, compared with a model. */
static void every_alignment(BlkContext *ctx, uint32_t align, const char *tree)
{
    BlkChild *user = use_stack(ctx, tree, RDWR);
    BlkNode *node = blk_child_node(user);
    uint64_t length = node->length;
    g_autofree uint8_t *model = g_malloc(length), *buf = g_malloc(length + 1);
    Mem *mem = mem_of(ctx, "m");
    int value = 0;

    fill_pattern(model, length);
    memcpy(mem->data, model, length);
    for (uint64_t offset = 0; offset <= 2 * align; offset++) {
        for (uint64_t bytes = 0; bytes <= 2 * align && offset + bytes <= length; bytes += 1 + bytes / 3) {
            memset(buf, ++value, bytes);
            ck_assert_int_eq(blk_co_pwrite(node, offset, bytes, buf, 0), 0);
            memset(model + offset, value, bytes);
            ck_assert_int_eq(blk_co_pread(node, offset, bytes, buf, 0), 0);
            ck_assert_mem_eq(buf, model + offset, bytes);
        }
    }
    ck_assert_mem_eq(mem->data, model, length);
    blk_co_detach(user);
}

static int alignments(void *ctx)
{
    static const uint32_t aligns[] = { 1, 2, 4, 16, 64 };

    for (size_t i = 0; i < G_N_ELEMENTS(aligns); i++) {
        g_autofree char *tree = g_strdup_printf("{'driver':'mem','node-name':'m','size':4096,'read-align':%u,"
                                                "'write-align':%u}", MIN(aligns[i], 8), aligns[i]);
        every_alignment(ctx, aligns[i], tree);
    }
    /* Memory that must be aligned, and pieces that must be small. */
    every_alignment(ctx, 32, "{'driver':'mem','node-name':'m','size':4096,'read-align':32,'write-align':32,"
                    "'mem-align':32,'max-transfer':32}");
    return 0;
}

static int whole_range(void *ctx)
{
    BlkChild *user = use_stack(ctx, "{'driver':'mem','node-name':'m','size':1000}", RDWR);
    BlkNode *node = blk_child_node(user);
    uint8_t buf[16];

    ck_assert_int_eq(blk_co_pread(node, 984, 16, buf, 0), 0);
    ck_assert_int_eq(blk_co_pread(node, 985, 16, buf, 0), -EINVAL);
    ck_assert_int_eq(blk_co_pread(node, 1000, 0, buf, 0), 0);
    ck_assert_int_eq(blk_co_pread(node, 1001, 0, buf, 0), -EINVAL);
    ck_assert_int_eq(blk_co_pread(node, UINT64_MAX - 7, 16, buf, 0), -EINVAL);
    ck_assert_int_eq(blk_co_pwrite(node, 985, 16, buf, 0), -EINVAL);
    ck_assert_int_eq(blk_co_pwrite(node, INT64_MAX, 16, buf, 0), -EINVAL);
    ck_assert_int_eq(blk_co_pwrite_zeroes(node, 0, UINT64_MAX, 0), -EINVAL);
    ck_assert_int_eq(blk_co_pwrite_zeroes(node, 1, 1000, 0), -EINVAL);
    ck_assert_int_eq(blk_co_discard(node, 1, 1000), -EINVAL);
    ck_assert_int_eq(blk_co_pwrite_zeroes(node, 0, 1000, 0), 0);
    ck_assert_int_eq(blk_co_pread(node, 0, BLK_MAX_REQUEST + 1, NULL, 0), -EINVAL);
    ck_assert_int_eq(blk_co_pwrite(node, 0, 16, buf, BLK_REQ_COMPRESSED), -ENOTSUP);
    blk_co_detach(user);
    return 0;
}

static int needs_permission(void *ctx)
{
    BlkChild *user = use_stack(ctx, "{'driver':'mem','node-name':'m'}", BLK_PERM_READ);
    BlkNode *node = blk_child_node(user);
    uint8_t byte = 1;

    ck_assert_int_eq(blk_co_pread(node, 0, 1, &byte, 0), 0);
    ck_assert_int_eq(blk_co_pwrite(node, 0, 1, &byte, 0), -EPERM);
    ck_assert_int_eq(blk_co_pwrite_zeroes(node, 0, 1, 0), -EPERM);
    ck_assert_int_eq(blk_co_discard(node, 0, 1), -EPERM);
    ck_assert_int_eq(blk_co_truncate(node, 0, BLK_PREALLOC_OFF, NULL), -EACCES);
    ck_assert_uint_eq(mem_of(ctx, "m")->writes, 0);
    blk_co_detach(user);

    user = use_stack(ctx, "{'driver':'mem','node-name':'m'}", BLK_PERM_READ | BLK_PERM_WRITE_UNCHANGED);
    node = blk_child_node(user);
    ck_assert_int_eq(blk_co_pwrite(node, 0, 1, &byte, 0), -EPERM);
    ck_assert_int_eq(blk_co_pwrite(node, 0, 1, &byte, BLK_REQ_UNCHANGED), 0);
    blk_co_detach(user);
    return 0;
}

/* Reads are padded to the alignment of reads only, also when a write needs them. */
static int reads_stay_small(void *ctx)
{
    BlkChild *user = use_stack(ctx, "{'driver':'mem','node-name':'m','read-align':512,'write-align':65536}", RDWR);
    BlkNode *node = blk_child_node(user);
    Mem *mem = mem_of(ctx, "m");
    uint8_t buf[4096] = { 0 };

    ck_assert_int_eq(blk_co_pread(node, 8192, 4096, buf, 0), 0);
    ck_assert_uint_eq(mem->bytes_read, 4096);
    ck_assert_int_eq(blk_co_pread(node, 1, 1, buf, 0), 0);
    ck_assert_uint_eq(mem->bytes_read, 4096 + 512);
    ck_assert_int_eq(blk_co_pwrite(node, 8192, 4096, buf, 0), 0);
    ck_assert_uint_eq(mem->bytes_read, 4096 + 512 + 65536 - 4096);
    ck_assert_uint_eq(mem->writes, 1);
    ck_assert_uint_eq(mem->bytes_written, 65536);
    /* What covers whole units is not read at all. */
    mem->reads = 0;
    write_byte(node, 65536, 131072, 5);
    ck_assert_uint_eq(mem->reads, 0);
    ck_assert_uint_eq(mem->writes, 2);
    blk_co_detach(user);
    return 0;
}

static int failed_read_fails_write(void *ctx)
{
    BlkChild *user = use_stack(ctx, "{'driver':'mem','node-name':'m','write-align':65536}", RDWR);
    BlkNode *node = blk_child_node(user);
    Mem *mem = mem_of(ctx, "m");
    g_autofree uint8_t *before = g_malloc(node->length);
    uint8_t buf[4096] = { 1 };

    fill_pattern(mem->data, node->length);
    memcpy(before, mem->data, node->length);
    mem->fail_read_at = 100;
    ck_assert_int_eq(blk_co_pwrite(node, 8192, 4096, buf, 0), -EIO);
    mem->fail_read_at = 65535;
    ck_assert_int_eq(blk_co_pwrite(node, 8192, 4096, buf, 0), -EIO);
    ck_assert_int_eq(blk_co_pwrite_zeroes(node, 1, 4096, 0), -EIO);
    ck_assert_uint_eq(mem->writes, 0);
    ck_assert_mem_eq(mem->data, before, node->length);
    mem->fail_read_at = UINT64_MAX;
    ck_assert_int_eq(blk_co_pwrite(node, 8192, 4096, buf, 0), 0);
    blk_co_detach(user);
    return 0;
}

static int sixteen_writes(void *ctx)
{
    BlkChild *user = use_stack(ctx, "{'driver':'mem','node-name':'m','write-align':65536}", RDWR);
    Mem *mem = mem_of(ctx, "m");
    Write writes[16];

    for (int i = 0; i < 16; i++) {
        writes[i] = (Write) { blk_child_node(user), i * 4096, 4096, i + 1, 0, 1, false };
        blk_co_spawn(ctx, write_run, &writes[i]);
    }
    for (int i = 0; i < 16; i++) {
        while (!writes[i].done) {
            blk_co_reschedule();
        }
        ck_assert_int_eq(writes[i].ret, 0);
    }
    for (int i = 0; i < 65536; i++) {
        ck_assert_int_eq(mem->data[i], i / 4096 + 1);
    }
    ck_assert_uint_eq(mem->max_in_flight, 1);
    blk_co_detach(user);
    return 0;
}

/* Whole units do not wait for each other, not even if they overlap. */
static int aligned_writes_at_once(void *ctx)
{
    BlkChild *user = use_stack(ctx, "{'driver':'mem','node-name':'m','write-align':4096}", RDWR);
    Mem *mem = mem_of(ctx, "m");
    Write writes[8];

    for (int i = 0; i < 8; i++) {
        writes[i] = (Write) { blk_child_node(user), i / 2 * 4096, 8192, i + 1, 0, 1, false };
        blk_co_spawn(ctx, write_run, &writes[i]);
    }
    let_run();
    ck_assert_uint_eq(mem->max_in_flight, 8);
    for (int i = 0; i < 8; i++) {
        ck_assert(writes[i].done && writes[i].ret == 0);
    }
    blk_co_detach(user);
    return 0;
}

/* A write that was sent while a read-modify-write was under way is not undone by it. */
static int overlap_in_order(void *ctx)
{
    BlkChild *user = use_stack(ctx, "{'driver':'mem','node-name':'m','write-align':4096}", RDWR);
    Mem *mem = mem_of(ctx, "m");
    Write small = { blk_child_node(user), 100, 10, 1, 0, 1, false };
    Write whole = { blk_child_node(user), 0, 4096, 2, 0, 1, false };
    Write serialising = { blk_child_node(user), 0, 4096, 3, BLK_REQ_SERIALISING, 1, false };

    mem->hold = true;
    blk_co_spawn(ctx, write_run, &small);
    let_run();
    blk_co_spawn(ctx, write_run, &whole);
    blk_co_spawn(ctx, write_run, &serialising);
    let_run();
    ck_assert_uint_eq(mem->holding, 1);
    mem_release(mem);
    let_run();
    ck_assert(small.done && whole.done && serialising.done);
    for (int i = 0; i < 4096; i++) {
        ck_assert_int_eq(mem->data[i], 3);
    }
    ck_assert_uint_eq(mem->writes, 3);
    blk_co_detach(user);
    return 0;
}

static int splitting(void *ctx)
{
    BlkChild *user = use_stack(ctx, "{'driver':'mem','node-name':'m','max-transfer':10000,'write-align':4096,"
                               "'read-align':512}", RDWR);
    BlkNode *node = blk_child_node(user);
    Mem *mem = mem_of(ctx, "m");
    g_autofree uint8_t *buf = g_malloc(100000), *back = g_malloc(100000);
    struct iovec vec[3] = { { buf, 33333 }, { buf + 33333, 1 }, { buf + 33334, 66666 } };

    fill_pattern(buf, 100000);
    ck_assert_int_eq(blk_co_pwritev(node, 4096, 98304, (BlkIov) { vec, 3, 5 }, 0), 0);
    ck_assert_uint_eq(mem->writes, 12);
    ck_assert_mem_eq(mem->data + 4096, buf + 5, 98304);
    ck_assert_int_eq(blk_co_pread(node, 4096, 98304, back, 0), 0);
    ck_assert_mem_eq(back, buf + 5, 98304);
    mem->fail_write_at = 50000;
    ck_assert_int_eq(blk_co_pwrite(node, 4096, 98304, buf, 0), -EIO);
    blk_co_detach(user);
    return 0;
}

static int zero_units(void *ctx)
{
    BlkChild *user = use_stack(ctx, "{'driver':'mem','node-name':'m','size':'4M','zeroes-align':4096,"
                               "'write-align':512}",
                               RDWR);
    BlkNode *node = blk_child_node(user);
    Mem *mem = mem_of(ctx, "m");

    memset(mem->data, 0xff, node->length);
    ck_assert_int_eq(blk_co_pwrite_zeroes(node, 100, 10000, 0), 0);
    ck_assert_uint_eq(mem->zeroes, 1);
    ck_assert(!blk_buffer_is_zero(mem->data, 101) && blk_buffer_is_zero(mem->data + 100, 10000));
    ck_assert_int_eq(mem->data[99], 0xff);
    ck_assert_int_eq(mem->data[10100], 0xff);
    ck_assert_int_eq(blk_co_pwrite_zeroes(node, 100, 10000, BLK_REQ_NO_FALLBACK), -ENOTSUP);
    ck_assert_int_eq(blk_co_pwrite_zeroes(node, 4096, 8192, BLK_REQ_NO_FALLBACK), 0);
    ck_assert_uint_eq(mem->zeroes, 2);

    mem->fail_zeroes = -ENOTSUP;
    memset(mem->data, 0xff, node->length);
    mem->writes = 0;
    ck_assert_int_eq(blk_co_pwrite_zeroes(node, 4096, 8192, BLK_REQ_NO_FALLBACK), -ENOTSUP);
    ck_assert_uint_eq(mem->writes, 0);
    ck_assert_int_eq(blk_co_pwrite_zeroes(node, 0, node->length, 0), 0);
    ck_assert(blk_buffer_is_zero(mem->data, node->length));
    ck_assert_uint_eq(mem->writes, 4);
    mem->fail_zeroes = -EIO;
    ck_assert_int_eq(blk_co_pwrite_zeroes(node, 4096, 8192, 0), -EIO);
    blk_co_detach(user);
    return 0;
}

static int unmap_is_asked_for(void *ctx)
{
    BlkChild *user = use_stack(ctx, "{'driver':'mem','node-name':'m'}", RDWR);
    Mem *mem = mem_of(ctx, "m");

    ck_assert_int_eq(blk_co_pwrite_zeroes(blk_child_node(user), 0, 4096, BLK_REQ_UNMAP), 0);
    ck_assert_uint_eq(mem->last_flags & BLK_REQ_UNMAP, BLK_REQ_UNMAP);     /* a user decides that */
    ck_assert_int_eq(blk_co_discard(blk_child_node(user), 0, 4096), 0);
    ck_assert_uint_eq(mem->discards, 0);
    blk_co_detach(user);

    user = use_stack(ctx, "{'driver':'raw','discard':'unmap','file':{'driver':'mem','node-name':'m','discard':'ignore'}}",
                     RDWR);
    mem = mem_of(ctx, "m");
    ck_assert_int_eq(blk_co_pwrite_zeroes(blk_child_node(user), 0, 4096, BLK_REQ_UNMAP), 0);
    ck_assert_uint_eq(mem->zeroes, 1);
    ck_assert_uint_eq(mem->last_flags & BLK_REQ_UNMAP, 0);      /* below another node the option does */
    blk_co_detach(user);

    user = use_stack(ctx, "{'driver':'mem','node-name':'m','discard':'unmap','detect-zeroes':'unmap',"
                     "'discard-align':4096}", RDWR);
    mem = mem_of(ctx, "m");
    write_byte(blk_child_node(user), 0, 4096, 0);
    ck_assert_uint_eq(mem->writes, 0);
    ck_assert_uint_eq(mem->zeroes, 1);
    ck_assert_uint_eq(mem->last_flags & BLK_REQ_UNMAP, BLK_REQ_UNMAP);
    write_byte(blk_child_node(user), 0, 4096, 1);
    ck_assert_uint_eq(mem->writes, 1);
    ck_assert_int_eq(blk_co_discard(blk_child_node(user), 1, 10000), 0);
    ck_assert_uint_eq(mem->last_offset, 4096);
    ck_assert_uint_eq(mem->last_bytes, 4096);
    ck_assert_int_eq(blk_co_discard(blk_child_node(user), 1, 4096), 0);
    ck_assert_uint_eq(mem->discards, 1);
    blk_co_detach(user);
    return 0;
}

static int fua_and_flush(void *ctx)
{
    BlkChild *user = use_stack(ctx, "{'driver':'mem','node-name':'m'}", RDWR);
    BlkNode *node = blk_child_node(user);
    Mem *mem = mem_of(ctx, "m");
    uint8_t byte = 1;

    ck_assert_int_eq(blk_co_pwrite(node, 0, 1, &byte, BLK_REQ_FUA), 0);
    ck_assert_uint_eq(mem->last_flags & BLK_REQ_FUA, 0);
    ck_assert_uint_eq(mem->flushes, 1);
    ck_assert_int_eq(blk_co_flush(node), 0);
    ck_assert_uint_eq(mem->flushes, 1);     /* nothing was written since */
    mem->fail_write_at = 0;
    ck_assert_int_eq(blk_co_pwrite(node, 0, 1, &byte, BLK_REQ_FUA), -EIO);
    ck_assert_uint_eq(mem->flushes, 1);
    ck_assert_int_eq(blk_co_pwrite_zeroes(node, 0, 1, BLK_REQ_FUA), 0);
    ck_assert_uint_eq(mem->flushes, 2);
    blk_co_detach(user);

    user = use_stack(ctx, "{'driver':'mem','node-name':'m','fua':true}", RDWR);
    mem = mem_of(ctx, "m");
    ck_assert_int_eq(blk_co_pwrite(blk_child_node(user), 0, 1, &byte, BLK_REQ_FUA), 0);
    ck_assert_uint_eq(mem->last_flags & BLK_REQ_FUA, BLK_REQ_FUA);
    ck_assert_uint_eq(mem->flushes, 0);
    blk_co_detach(user);

    user = use_stack(ctx, "{'driver':'box','node-name':'b','cache.no-flush':true,"
                     "'file':{'driver':'mem','node-name':'m'}}",
                     RDWR);
    mem = mem_of(ctx, "m");
    ck_assert_int_eq(blk_co_pwrite(blk_child_node(user), 0, 1, &byte, BLK_REQ_FUA), 0);
    ck_assert_int_eq(blk_co_flush(blk_child_node(user)), 0);
    ck_assert_uint_eq(box_of(ctx, "b")->flushes, 1);    /* a format still writes out what it keeps in memory */
    ck_assert_uint_eq(mem->flushes, 0);
    blk_co_detach(user);
    return 0;
}

static int flush_run(void *opaque)
{
    Write *w = opaque;

    w->ret = blk_co_flush(w->node);
    w->done = true;
    return 0;
}

static int flushes_share(void *ctx)
{
    BlkChild *user = use_stack(ctx, "{'driver':'mem','node-name':'m'}", RDWR);
    Write flushes[5];

    for (int i = 0; i < 5; i++) {
        flushes[i] = (Write) { .node = blk_child_node(user) };
        blk_co_spawn(ctx, flush_run, &flushes[i]);
    }
    let_run();
    for (int i = 0; i < 5; i++) {
        ck_assert(flushes[i].done && flushes[i].ret == 0);
    }
    ck_assert_uint_eq(mem_of(ctx, "m")->flushes, 1);
    blk_co_detach(user);
    return 0;
}

/* The end of a format counts as aligned; a format may let its file grow, a user may not leave it. */
static int odd_length(void *ctx)
{
    BlkChild *user = use_stack(ctx, "{'driver':'compress','write-buffer':0,'file':{'driver':'box','node-name':'b',"
                               "'cluster-size':4096,'length':10001,'file':{'driver':'mem','node-name':'m','size':512}}}", RDWR);
    BlkNode *node = blk_child_node(user);
    Mem *mem = mem_of(ctx, "m");
    uint8_t buf[2000];

    ck_assert_uint_eq(node->length, 10001);
    memset(buf, 7, sizeof(buf));
    ck_assert_int_eq(blk_co_pwrite(node, 8192, 1809, buf, 0), 0);
    ck_assert_uint_eq(mem->bytes_written, 1809);
    ck_assert_uint_eq(blk_node_find(ctx, "m")->length, 10001);
    ck_assert_int_eq(blk_co_pwrite(node, 10000, 1, buf, 0), 0);
    ck_assert_uint_eq(mem->bytes_written, 2 * 1809);
    ck_assert_int_eq(blk_co_pwrite(node, 10000, 2, buf, 0), -EINVAL);
    ck_assert_uint_eq(box_of(ctx, "b")->compressed, 2);
    blk_co_detach(user);
    return 0;
}

static int compress_rewrites(void *ctx)
{
    BlkChild *user = use_stack(ctx, "{'driver':'compress','write-buffer':0,'file':{'driver':'box','node-name':'b','cluster-size':4096,"
                               "'file':{'driver':'mem','node-name':'m'}}}", RDWR);
    BlkNode *node = blk_child_node(user);
    Box *box = box_of(ctx, "b");

    write_byte(node, 0, 8192, 1);
    write_byte(node, 100, 1, 2);
    write_byte(node, 4000, 200, 3);
    ck_assert_uint_eq(box->writes, 3);
    ck_assert_uint_eq(box->compressed, 3);
    ck_assert_int_eq(mem_of(ctx, "m")->data[4199], 3);
    ck_assert_int_eq(mem_of(ctx, "m")->data[4200], 1);
    mem_of(ctx, "m")->reads = mem_of(ctx, "m")->bytes_read = 0;
    ck_assert_int_eq(blk_co_pread(node, 512, 512, (uint8_t[512]) { 0 }, 0), 0);
    ck_assert_uint_eq(mem_of(ctx, "m")->bytes_read, 512);
    blk_co_detach(user);

    refuse_open(ctx, "{'driver':'compress','file':{'driver':'mem'}}", "driver 'mem'");
    refuse_open(ctx, "{'driver':'compress','file':{'driver':'box','rewrite':false,'file':{'driver':'mem'}}}",
                "can be written once, and not rewritten");
    refuse_open(ctx, "{'driver':'compress','file':{'driver':'box','read-only':true,'file':{'driver':'mem'}}}",
                "read-only");
    blk_co_unref(open_stack(ctx, "{'driver':'compress','read-only':true,'file':{'driver':'box',"
                            "'file':{'driver':'mem'}}}"));
    return 0;
}

static int truncates(void *ctx)
{
    BlkChild *user = use_stack(ctx, "{'driver':'mem','node-name':'m','size':1000}", BLK_PERM_ALL);
    BlkNode *node = blk_child_node(user);

    ck_assert_int_eq(blk_co_truncate(node, 5000, BLK_PREALLOC_OFF, NULL), 0);
    ck_assert_uint_eq(blk_node_length(node), 5000);
    ck_assert_int_eq(blk_co_truncate(node, BLK_MAX_LENGTH + 1, BLK_PREALLOC_OFF, NULL), -EFBIG);
    ck_assert_int_eq(blk_co_truncate(node, BLK_MAX_LENGTH, BLK_PREALLOC_OFF, NULL), -ENOSPC);
    blk_co_detach(user);
    return 0;
}

CASE(alignments)
CASE(whole_range)
CASE(needs_permission)
CASE(reads_stay_small)
CASE(failed_read_fails_write)
CASE(sixteen_writes)
CASE(aligned_writes_at_once)
CASE(overlap_in_order)
CASE(splitting)
CASE(zero_units)
CASE(unmap_is_asked_for)
CASE(fua_and_flush)
CASE(flushes_share)
CASE(odd_length)
CASE(compress_rewrites)
CASE(truncates)

BLK_TEST_MAIN("request", test_alignments, test_whole_range, test_needs_permission, test_reads_stay_small,
              test_failed_read_fails_write, test_sixteen_writes, test_aligned_writes_at_once, test_overlap_in_order,
              test_splitting, test_zero_units, test_unmap_is_asked_for, test_fua_and_flush, test_flushes_share,
              test_odd_length, test_compress_rewrites, test_truncates)
