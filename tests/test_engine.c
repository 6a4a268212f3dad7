/* SPDX-License-Identifier: MIT */
/*
 * test_engine.c - the format engine with qcow2 over a disk that logs: order of payload and mapping, readers that look
 * at dropped space, failed writes, and concurrent compressed writes.
 */
#include "core/node.h"
#include "log_disk.h"

enum { CLUSTER = 65536, CLUSTERS = 64, PIECES = 16 };

typedef struct Stack {
    Test *t;
    BlkNode *disk_node, *top;
    LogDisk *disk;
    BlkChild *user;                 /* of the qcow2 node */
    BlkChild *compress;             /* of the filter */
    unsigned running;
    uint8_t *read;                  /* what the suspended reader has read */
} Stack;

/* @file: of the image; "'disk'" is the disk itself. */
static void stack_open_over(Stack *s, Test *t, const char *file)
{
    g_autofree char *text = g_strdup_printf("{'driver': 'compress', 'write-buffer': 0, 'file': {'driver': 'qcow2', "
                                            "'node-name': 'image', 'file': %s}}", file);
    unsigned perm = BLK_PERM_READ | BLK_PERM_WRITE;

    ck_assert_int_eq(blk_driver_register(t->ctx, &log_driver, NULL), 0);
    *s = (Stack){ .t = t, .disk_node = log_new_image(t, "disk", "{'size': '4M'}") };
    s->disk = log_disk(s->disk_node);
    s->top = try_open(t, text, NULL);
    ck_assert_ptr_nonnull(s->top);
    s->user = blk_co_attach(blk_node_find(t->ctx, "image"), "test", perm, BLK_PERM_ALL, NULL);
    s->compress = blk_co_attach(s->top, "test", perm, BLK_PERM_ALL, NULL);
    ck_assert(s->user != NULL && s->compress != NULL);
}

static void stack_open(Stack *s, Test *t)
{
    stack_open_over(s, t, "'disk'");
}

static BlkCheckResult check(Stack *s)
{
    BlkCheckResult result = { 0 };
    BlkCheckOptions options = { .data = true };

    ck_assert_int_eq(blk_co_check(blk_child_node(s->user), &options, &result, NULL), 0);
    ck_assert_uint_eq(result.corruptions, 0);
    ck_assert_uint_eq(result.check_errors, 0);
    return result;
}

static void stack_close(Stack *s)
{
    check(s);
    blk_co_detach(s->user);
    blk_co_detach(s->compress);
    blk_co_unref(s->top);
    blk_co_unref(s->disk_node);
}

static void flush(Stack *s)
{
    ck_assert_int_eq(blk_co_flush(blk_child_node(s->compress)), 0);
}

static void fill_noise(uint8_t *buf, size_t bytes, uint32_t seed)
{
    GRand *rand = g_rand_new_with_seed(seed);

    for (size_t i = 0; i < bytes; i += 4) {
        guint32 word = g_rand_int(rand);
        memcpy(buf + i, &word, 4);
    }
    g_rand_free(rand);
}

static int write_noise(Stack *s, unsigned cluster, uint32_t seed)
{
    g_autofree uint8_t *buf = g_malloc(CLUSTER);

    fill_noise(buf, CLUSTER, seed);
    return blk_co_pwrite(blk_child_node(s->user), (uint64_t)cluster * CLUSTER, CLUSTER, buf, 0);
}

static uint64_t host_offset(Stack *s, unsigned cluster)
{
    BlkStatus status;

    ck_assert_int_eq(blk_co_block_status(blk_child_node(s->user), (uint64_t)cluster * CLUSTER, CLUSTER, &status), 0);
    ck_assert(status.flags & BLK_STATUS_OFFSET);
    return status.host_offset;
}

/* The write of the L2 entry that maps a plain cluster to @host, or NULL. */
static const LogWrite *find_mapping(const Stack *s, uint64_t host)
{
    uint64_t entry = GUINT64_TO_BE(host | UINT64_C(1) << 63);

    for (guint i = 0; i < s->disk->writes->len; i++) {
        const LogWrite *w = g_ptr_array_index(s->disk->writes, i);
        for (uint64_t pos = 0; w->offset < host && pos + 8 <= w->bytes; pos += 8) {
            if (memcmp(w->data + pos, &entry, 8) == 0) {
                return w;
            }
        }
    }
    return NULL;
}

static const LogWrite *find_write(const Stack *s, uint64_t offset, uint64_t since)
{
    for (guint i = 0; i < s->disk->writes->len; i++) {
        const LogWrite *w = g_ptr_array_index(s->disk->writes, i);
        if (w->begin > since && w->offset <= offset && offset - w->offset < w->bytes) {
            return w;
        }
    }
    return NULL;
}

static bool flushed_between(const Stack *s, uint64_t from, uint64_t until)
{
    for (guint i = 0; i < s->disk->flushes->len; i++) {
        const LogFlush *f = &g_array_index(s->disk->flushes, LogFlush, i);
        if (f->begin > from && f->end < until) {
            return true;
        }
    }
    return false;
}

static void turns(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        blk_co_reschedule();
    }
}

/* A mapping is not written before a flush that follows its payload; nor at all before somebody asks for a flush. */
CO_TEST(test_payload_before_mapping)
{
    Stack s;

    stack_open(&s, t);
    for (unsigned i = 0; i < 8; i++) {
        ck_assert_int_eq(write_noise(&s, i, i), 0);
        uint64_t host = host_offset(&s, i);
        ck_assert_ptr_null(find_mapping(&s, host));
        flush(&s);
        const LogWrite *payload = find_write(&s, host, 0), *mapping = find_mapping(&s, host);
        ck_assert_ptr_nonnull(payload);
        ck_assert_ptr_nonnull(mapping);
        ck_assert(flushed_between(&s, payload->end, mapping->begin));
        ck_assert_uint_ge(log_stable_before(s.disk, s.disk->now), mapping->end);
    }
    stack_close(&s);
}

static int co_reader(void *opaque)
{
    Stack *s = opaque;

    ck_assert_int_eq(blk_co_pread(blk_child_node(s->user), 0, CLUSTER, s->read, 0), 0);
    s->running--;
    return 0;
}

/* While a reader looks at it, space that its cluster has left is not used again; afterwards it is. */
CO_TEST(test_reader_keeps_space)
{
    g_autofree uint8_t *expected = g_malloc(CLUSTER);
    Stack s;

    stack_open(&s, t);
    s.read = g_malloc(CLUSTER);
    ck_assert_int_eq(write_noise(&s, 0, 7), 0);
    flush(&s);
    uint64_t host = host_offset(&s, 0), begun = s.disk->now;
    s.disk->hold_from = host;
    s.disk->hold_reads = true;
    s.running = 1;
    blk_co_spawn(t->ctx, co_reader, &s);
    while (s.disk->holding == 0) {
        blk_co_reschedule();
    }
    write_pattern(s.compress, 0, CLUSTER, 0x11);        /* compresses: the old place is free */
    flush(&s);
    for (unsigned i = 1; i < 6; i++) {
        ck_assert_int_eq(write_noise(&s, i, i), 0);
        flush(&s);
    }
    ck_assert_ptr_null(find_write(&s, host, begun));
    s.disk->hold_reads = false;
    blk_co_queue_wake_all(&s.disk->held);
    while (s.running > 0) {
        blk_co_reschedule();
    }
    fill_noise(expected, CLUSTER, 7);
    ck_assert_mem_eq(s.read, expected, CLUSTER);
    ck_assert_int_eq(write_noise(&s, 6, 6), 0);
    ck_assert_ptr_nonnull(find_write(&s, host, begun));
    expect_pattern(s.compress, 0, CLUSTER, 0x11);
    g_free(s.read);
    stack_close(&s);
}

/* Dropped space is not used before the mapping that dropped it is stable. */
CO_TEST(test_space_waits_for_flush)
{
    Stack s;

    stack_open(&s, t);
    ck_assert_int_eq(write_noise(&s, 0, 7), 0);
    flush(&s);
    uint64_t host = host_offset(&s, 0), begun = s.disk->now;
    write_pattern(s.compress, 0, CLUSTER, 0x11);
    for (unsigned i = 1; i < 6; i++) {
        ck_assert_int_eq(write_noise(&s, i, i), 0);
    }
    ck_assert_ptr_null(find_write(&s, host, begun));
    flush(&s);
    ck_assert_int_eq(write_noise(&s, 6, 6), 0);
    ck_assert_ptr_nonnull(find_write(&s, host, begun));
    stack_close(&s);
}

/* A write that fails leaves the guest's data and the reference counts as they were. */
CO_TEST(test_failed_write)
{
    Stack s;

    stack_open(&s, t);
    write_pattern(s.compress, 0, 2 * CLUSTER, 0x22);
    flush(&s);
    ck_assert_uint_eq(check(&s).leaks, 0);
    s.disk->fail_write_from = blk_node_length(s.disk_node) - CLUSTER;
    ck_assert_int_eq(write_noise(&s, 0, 1), -EIO);
    ck_assert_int_eq(write_noise(&s, 5, 1), -EIO);
    g_autofree uint8_t *buf = g_malloc(CLUSTER);
    memset(buf, 0x33, CLUSTER);
    s.disk->fail_write_from = CLUSTER;
    ck_assert_int_eq(blk_co_pwrite(blk_child_node(s.compress), CLUSTER, CLUSTER, buf, 0), -EIO);
    s.disk->fail_write_from = UINT64_MAX;
    flush(&s);
    expect_pattern(s.user, 0, 2 * CLUSTER, 0x22);
    expect_pattern(s.user, 5 * CLUSTER, CLUSTER, 0);
    for (unsigned i = 10; i < 14; i++) {        /* the file grows: a check looks no further than its end */
        ck_assert_int_eq(write_noise(&s, i, i), 0);
    }
    flush(&s);
    ck_assert_uint_eq(check(&s).leaks, 0);
    stack_close(&s);
}

typedef struct Piece {
    Stack *s;
    uint64_t offset;
    size_t bytes;
    uint8_t value;
} Piece;

static int co_piece(void *opaque)
{
    Piece *p = opaque;

    write_pattern(p->s->compress, p->offset, p->bytes, p->value);
    p->s->running--;
    return 0;
}

static void write_pieces(Stack *s, Piece *pieces, unsigned count, uint64_t step, size_t bytes, unsigned base)
{
    s->running = count;
    for (unsigned i = 0; i < count; i++) {
        pieces[i] = (Piece){ s, i * step, bytes, (uint8_t)(base + i) };
        blk_co_spawn(s->t->ctx, co_piece, &pieces[i]);
    }
    while (s->running > 0) {
        turns(1);
    }
    for (unsigned i = 0; i < count; i++) {
        expect_pattern(s->compress, i * step, bytes, (uint8_t)(base + i));
    }
}

/* Many small writes at once into one cluster all land, and so do writes of many clusters. */
CO_TEST(test_concurrent_compressed)
{
    Piece pieces[CLUSTERS];
    Stack s;

    stack_open(&s, t);
    write_pieces(&s, pieces, PIECES, CLUSTER / PIECES, CLUSTER / PIECES, 1);
    write_pieces(&s, pieces, CLUSTERS, CLUSTER, CLUSTER, 50);
    write_pieces(&s, pieces, PIECES, CLUSTER / PIECES, CLUSTER / PIECES, 150);
    expect_pattern(s.user, 17 * CLUSTER, CLUSTER, 50 + 17);
    flush(&s);
    BlkCheckResult result = check(&s);
    ck_assert_uint_eq(result.compressed_clusters, CLUSTERS);
    ck_assert_uint_eq(result.leaks, 0);
    ck_assert_uint_lt(blk_node_length(s.disk_node), 8 * CLUSTER);       /* payloads share clusters */
    stack_close(&s);
}

/* Neighbouring payloads of one large write leave together, and what a lone writer writes does not wait. */
CO_TEST(test_payloads_leave_together)
{
    g_autofree uint8_t *buf = g_malloc(CLUSTERS * CLUSTER);
    uint64_t payloads = 0, most = 0;
    Stack s;

    stack_open(&s, t);
    for (unsigned i = 0; i < CLUSTERS; i++) {
        memset(buf + i * CLUSTER, (int)i + 1, CLUSTER);
        fill_noise(buf + i * CLUSTER, 8192, i);
    }
    ck_assert_int_eq(blk_co_pwrite(blk_child_node(s.user), 0, CLUSTERS * CLUSTER, buf, BLK_REQ_COMPRESSED), 0);
    for (guint i = 0; i < s.disk->writes->len; i++) {
        const LogWrite *w = g_ptr_array_index(s.disk->writes, i);
        payloads += w->bytes > 8192;        /* no table is as long */
        most = MAX(most, w->bytes);
    }
    ck_assert_uint_ge(payloads, 1);
    ck_assert_uint_le(payloads, CLUSTERS / 2);
    ck_assert_uint_ge(most, 4 * 8192);
    flush(&s);
    payloads = s.disk->writes->len;
    ck_assert_int_eq(blk_co_pwrite(blk_child_node(s.user), 0, CLUSTER, buf + CLUSTER, BLK_REQ_COMPRESSED), 0);
    ck_assert_uint_gt(s.disk->writes->len, payloads);
    stack_close(&s);
}

static void write_clusters(Stack *s, const uint8_t *disk, unsigned first, unsigned count)
{
    ck_assert_int_eq(blk_co_pwrite(blk_child_node(s->user), (uint64_t)first * CLUSTER, (uint64_t)count * CLUSTER,
                                   disk + first * CLUSTER, BLK_REQ_COMPRESSED), 0);
}

static void expect_disk(Stack *s, const uint8_t *disk)
{
    g_autofree uint8_t *buf = g_malloc(CLUSTERS * CLUSTER);

    ck_assert_int_eq(blk_co_pread(blk_child_node(s->user), 0, CLUSTERS * CLUSTER, buf, 0), 0);
    for (unsigned i = 0; i < CLUSTERS; i++) {
        ck_assert_msg(memcmp(disk + i * CLUSTER, buf + i * CLUSTER, CLUSTER) == 0, "cluster %u differs", i);
    }
}

/* Every cluster gets a payload of another length, from one sector on. */
static void fill_disk(uint8_t *disk, unsigned seed)
{
    for (unsigned i = 0; i < CLUSTERS; i++) {
        memset(disk + i * CLUSTER, (int)(i + seed), CLUSTER);
        fill_noise(disk + i * CLUSTER, 512 * ((i + seed) % 11), i + seed);
    }
}

/* Payloads are packed more closely than the blocks of the file. Of these a fill reads none, whatever its requests. */
CO_TEST(test_whole_blocks)
{
    g_autofree uint8_t *disk = g_malloc(CLUSTERS * CLUSTER);
    unsigned reads;
    Stack s;

    stack_open_over(&s, t, "{'driver': 'fault', 'align': 4096, 'image': 'disk'}");
    fill_disk(disk, 1);
    write_clusters(&s, disk, 0, 1);
    reads = s.disk->reads;
    for (unsigned i = 1, n = 1; i < CLUSTERS; i += n) {
        n = MIN(i % 20 + 1, CLUSTERS - i);
        write_clusters(&s, disk, i, n);
    }
    ck_assert_uint_eq(s.disk->reads, reads);
    expect_disk(&s, disk);
    for (unsigned seed = 2; seed < 8; seed++) {
        fill_disk(disk, seed);
        write_clusters(&s, disk, 0, CLUSTERS);
        expect_disk(&s, disk);
        if (seed % 3 == 0) {
            flush(&s);
        }
    }
    stack_close(&s);
}

static uint64_t payload_place(Stack *s, unsigned cluster)
{
    BlkNode *image = blk_child_node(s->user);
    BlkMapping map;

    ck_assert_int_eq(image->driver->format->co_map(image, (uint64_t)cluster * CLUSTER, CLUSTER, &map), 0);
    ck_assert_int_eq(map.kind, BLK_MAP_COMPRESSED);
    return map.host_offset;
}

/* What is written to a hole in a block stays when the block is written again for what follows. */
CO_TEST(test_hole_in_open_block)
{
    g_autofree uint8_t *disk = g_malloc0(CLUSTERS * CLUSTER);
    uint64_t hole = 0;
    Stack s;

    stack_open_over(&s, t, "{'driver': 'fault', 'align': 4096, 'image': 'disk'}");
    for (unsigned i = 0; i < 3; i++) {              /* payloads of a sector, one behind the other */
        unsigned cluster = i == 0 ? 5 : 0;
        memset(disk + cluster * CLUSTER, (int)i + 1, CLUSTER);
        write_clusters(&s, disk, cluster, 1);
        hole = i < 2 ? payload_place(&s, cluster) : hole;
    }
    flush(&s);
    for (unsigned i = 1; i < 3; i++) {              /* the first in the place of the second, the next behind the third */
        memset(disk + i * CLUSTER, (int)i + 10, CLUSTER);
        write_clusters(&s, disk, i, 1);
    }
    ck_assert_uint_eq(payload_place(&s, 1), hole);
    ck_assert_uint_eq(payload_place(&s, 2), hole + 2 * 512);
    expect_disk(&s, disk);
    stack_close(&s);
}

typedef struct Limited {
    Stack *s;
    const uint8_t *buf;
    unsigned flags;
    bool done;
} Limited;

static int co_write_limited(void *opaque)
{
    Limited *l = opaque;

    ck_assert_int_eq(blk_co_pwrite(blk_child_node(l->s->user), 0, CLUSTERS * CLUSTER, l->buf, l->flags), 0);
    l->done = true;
    return 0;
}

/* Bytes of the payloads that were written since there were @from writes. */
static uint64_t payload_bytes(const Stack *s, guint from)
{
    uint64_t bytes = 0;

    for (guint i = from; i < s->disk->writes->len; i++) {
        const LogWrite *w = g_ptr_array_index(s->disk->writes, i);
        bytes += w->bytes > 8192 ? w->bytes : 0;
    }
    return bytes;
}

/* How many clusters are compressed at once, and how hard, is in the flags. */
CO_TEST(test_threads_and_level)
{
    g_autofree uint8_t *buf = g_malloc(CLUSTERS * CLUSTER);
    uint64_t bytes[2];
    Stack s;

    stack_open(&s, t);
    for (unsigned i = 0; i < CLUSTERS * CLUSTER; i++) {
        buf[i] = (uint8_t)("abcdefgh"[(i * 7 + i / 13 + i / 331 + i * i / 977) % 8]);
    }
    for (unsigned round = 0; round < 2; round++) {
        Limited l = { &s, buf, BLK_REQ_COMPRESSED | blk_req_compression(round == 0 ? 1 : 9, 2), false };
        const BlkEngine *engine = blk_child_node(s.user)->core->engine;
        guint writes = s.disk->writes->len;
        unsigned most = 0;
        blk_co_spawn(t->ctx, co_write_limited, &l);
        while (!l.done) {
            most = MAX(most, engine->compressing);
            blk_co_reschedule();
        }
        ck_assert_uint_eq(most, 2);
        bytes[round] = payload_bytes(&s, writes);
    }
    ck_assert_uint_lt(bytes[1], bytes[0]);
    stack_close(&s);
}

BLK_TEST_MAIN("engine", test_payload_before_mapping, test_reader_keeps_space, test_space_waits_for_flush,
              test_failed_write, test_concurrent_compressed, test_payloads_leave_together, test_whole_blocks,
              test_hole_in_open_block, test_threads_and_level)
