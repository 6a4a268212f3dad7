/* SPDX-License-Identifier: MIT */
/*
 * test_cluster_cache.c - the cache of decompressed clusters: by itself, and under qcow2 over a disk that counts how often
 * a payload is read.
 */
#include "core/node.h"
#include "log_disk.h"

enum { CLUSTER = 65536, CLUSTERS = 64, PART = 4096, PARTS = CLUSTER / PART };

typedef struct Stack {
    Test *t;
    BlkNode *disk_node, *image, *top;
    LogDisk *disk;
    BlkChild *user;                 /* of the compress filter */
    unsigned running;
} Stack;

/* An image all of whose clusters are compressed: cluster i has the pattern i + 1. */
static void stack_open(Stack *s, Test *t, const char *cache)
{
    g_autofree char *text = g_strdup_printf("{'driver': 'compress', 'write-buffer': 0, 'discard': 'unmap', 'file': {'driver': "
                                            "'qcow2', 'node-name': 'image', 'discard': 'unmap', 'decompressed-cache': '%s', "
                                            "'file': 'disk'}}", cache);

    ck_assert_int_eq(blk_driver_register(t->ctx, &log_driver, NULL), 0);
    *s = (Stack){ .t = t, .disk_node = log_new_image(t, "disk", "{'size': '4M'}") };
    s->disk = log_disk(s->disk_node);
    s->top = try_open(t, text, NULL);
    ck_assert_ptr_nonnull(s->top);
    s->image = blk_node_find(t->ctx, "image");
    s->user = blk_co_attach(s->top, "test", BLK_PERM_ALL, BLK_PERM_ALL, NULL);
    ck_assert_ptr_nonnull(s->user);
    for (unsigned i = 0; i < CLUSTERS; i++) {
        write_pattern(s->user, (uint64_t)i * CLUSTER, CLUSTER, (uint8_t)(i + 1));
    }
    ck_assert_int_eq(blk_co_flush(s->top), 0);
    s->disk->payload_reads = 0;
}

static void stack_close(Stack *s)
{
    blk_co_detach(s->user);
    blk_co_unref(s->top);
    blk_co_unref(s->disk_node);
}

static void expect_part(Stack *s, unsigned cluster, unsigned part, uint8_t pattern)
{
    expect_pattern(s->user, (uint64_t)cluster * CLUSTER + part * PART, PART, pattern);
}

/* How many payloads were read since the last call. */
static unsigned payload_reads(Stack *s)
{
    unsigned reads = s->disk->payload_reads;

    s->disk->payload_reads = 0;
    return reads;
}

static void hold_reads(Stack *s)
{
    s->disk->hold_from = 0;         /* the tables are in memory */
    s->disk->hold_reads = true;
}

static void release_reads(Stack *s)
{
    s->disk->hold_reads = false;
    blk_co_queue_wake_all(&s->disk->held);
}

static void turns(unsigned n)
{
    while (n-- > 0) {
        blk_co_reschedule();
    }
}

/* Nothing is read ahead any more. */
static void settle(Stack *s)
{
    while (s->image->core->in_flight > 0) {
        blk_co_queue_wait(&s->image->core->idle);
    }
}

typedef struct Part {
    Stack *s;
    unsigned cluster, part;
    int ret;
} Part;

static int co_part(void *opaque)
{
    Part *p = opaque;
    uint8_t buf[PART];

    p->ret = blk_co_pread(p->s->top, (uint64_t)p->cluster * CLUSTER + p->part * PART, PART, buf, 0);
    for (unsigned i = 0; p->ret == 0 && i < PART; i++) {
        ck_assert_uint_eq(buf[i], p->cluster + 1);
    }
    p->s->running--;
    return 0;
}

/* Reads all parts of the cluster at the same time. */
static void start_parts(Stack *s, Part parts[PARTS], unsigned cluster)
{
    for (unsigned i = 0; i < PARTS; i++) {
        parts[i] = (Part){ s, cluster, (i * 7) % PARTS, 1 };     /* 7: in no order, so that nothing is read ahead */
        s->running++;
        blk_co_spawn(s->t->ctx, co_part, &parts[i]);
    }
}

static void wait_parts(Stack *s)
{
    while (s->running > 0) {
        turns(1);
    }
}

/* ---- one decode for many readers ---- */

CO_TEST(test_read_in_parts)
{
    Stack s;

    stack_open(&s, t, "16M");
    for (unsigned i = 0; i < PARTS; i++) {
        expect_part(&s, 9, (i * 7) % PARTS, 10);
    }
    ck_assert_uint_eq(payload_reads(&s), 1);
    expect_pattern(s.user, 9 * CLUSTER, CLUSTER, 10);       /* all of it */
    ck_assert_uint_eq(payload_reads(&s), 0);
    stack_close(&s);
}

CO_TEST(test_parts_at_once)
{
    Part parts[PARTS];
    Stack s;

    stack_open(&s, t, "16M");
    hold_reads(&s);
    start_parts(&s, parts, 5);
    turns(20);
    ck_assert_uint_eq(s.running, PARTS);
    release_reads(&s);
    wait_parts(&s);
    ck_assert_uint_eq(payload_reads(&s), 1);
    for (unsigned i = 0; i < PARTS; i++) {
        ck_assert_int_eq(parts[i].ret, 0);
    }
    stack_close(&s);
}

CO_TEST(test_off)
{
    Stack s;

    stack_open(&s, t, "0");
    for (unsigned i = 0; i < PARTS; i++) {
        expect_part(&s, 9, i, 10);
    }
    ck_assert_uint_eq(payload_reads(&s), PARTS);
    stack_close(&s);
}

/* ---- neighbours ---- */

enum { RUN = 16, RUN_AT = 20 };

typedef struct Run {
    Stack *s;
    uint8_t *buf;
    int ret;
} Run;

/* Reads clusters RUN_AT to RUN_AT + RUN - 1 by one request. */
static int co_run(void *opaque)
{
    Run *run = opaque;

    run->ret = blk_co_pread(run->s->top, RUN_AT * CLUSTER, RUN * CLUSTER, run->buf, 0);
    run->s->running--;
    return 0;
}

static void start_run(Run *run, Stack *s)
{
    *run = (Run){ .s = s, .buf = g_malloc(RUN * CLUSTER), .ret = 1 };
    s->running++;
    blk_co_spawn(s->t->ctx, co_run, run);
}

/* Cluster RUN_AT + i has the pattern from + i * step. */
static void expect_run(Run *run, unsigned from, int step)
{
    ck_assert_int_eq(run->ret, 0);
    for (unsigned i = 0; i < RUN; i++) {
        const uint8_t *cluster = run->buf + i * CLUSTER;
        ck_assert_uint_eq(cluster[0], from + i * step);
        ck_assert_int_eq(memcmp(cluster, cluster + 1, CLUSTER - 1), 0);
    }
    g_free(run->buf);
}

/* Payloads that lie next to each other are read together, in whatever order, but not what is cached. */
CO_TEST(test_neighbours)
{
    Run run;
    Stack s;

    stack_open(&s, t, "16M");
    start_run(&run, &s);
    wait_parts(&s);
    expect_run(&run, RUN_AT + 1, 1);
    ck_assert_uint_eq(payload_reads(&s), 1);
    expect_part(&s, RUN_AT + 5, 3, RUN_AT + 6);
    payload_reads(&s);
    start_run(&run, &s);
    wait_parts(&s);
    expect_run(&run, RUN_AT + 1, 1);
    ck_assert_uint_eq(payload_reads(&s), 2);
    for (unsigned i = RUN; i-- > 0;) {
        write_pattern(s.user, (uint64_t)(RUN_AT + i) * CLUSTER, CLUSTER, (uint8_t)(200 - i));
    }
    start_run(&run, &s);
    wait_parts(&s);
    expect_run(&run, 200, -1);
    ck_assert_uint_eq(payload_reads(&s), 1);
    stack_close(&s);
}

/* The space of what is about to be read is not used again, however often it is written. */
CO_TEST(test_neighbours_are_rewritten)
{
    Run run;
    Stack s;

    stack_open(&s, t, "16M");
    hold_reads(&s);
    start_run(&run, &s);
    turns(20);
    ck_assert_uint_eq(s.running, 1);
    for (unsigned n = 0; n < 4; n++) {
        for (unsigned i = 0; i < RUN; i++) {
            write_pattern(s.user, (uint64_t)(RUN_AT + i) * CLUSTER, CLUSTER, (uint8_t)(100 + 20 * n + i));
        }
        ck_assert_int_eq(blk_co_flush(s.top), 0);
    }
    release_reads(&s);
    wait_parts(&s);
    expect_run(&run, RUN_AT + 1, 1);
    stack_close(&s);
}

/* ---- what changes ---- */

/* The places of payloads are used again and again, for payloads of the same length. */
CO_TEST(test_rewritten)
{
    Stack s;

    stack_open(&s, t, "16M");
    for (unsigned i = 0; i < 200; i++) {
        unsigned cluster = i % 3;
        expect_part(&s, cluster, i % PARTS, (uint8_t)(i < 3 ? cluster + 1 : 100 + i - 3));
        write_pattern(s.user, (uint64_t)cluster * CLUSTER, CLUSTER, (uint8_t)(100 + i));
        expect_part(&s, cluster, 3, (uint8_t)(100 + i));
        ck_assert_int_eq(blk_co_flush(s.top), 0);
    }
    stack_close(&s);
}

CO_TEST(test_mapping_changes)
{
    BlkChild *image;
    Stack s;

    stack_open(&s, t, "16M");
    image = blk_co_attach(s.image, "test", BLK_PERM_READ | BLK_PERM_WRITE, BLK_PERM_ALL, NULL);
    ck_assert_ptr_nonnull(image);
    for (unsigned i = 0; i < 8; i++) {
        expect_part(&s, i, 1, (uint8_t)(i + 1));
    }
    write_pattern(image, 1 * CLUSTER + PART, PART, 0x71);       /* plain */
    write_pattern(s.user, 2 * CLUSTER + PART, PART, 0x72);      /* a part, compressed */
    ck_assert_int_eq(blk_co_pwrite_zeroes(s.top, 3 * CLUSTER, CLUSTER, 0), 0);
    ck_assert_int_eq(blk_co_discard(s.top, 4 * CLUSTER, CLUSTER), 0);
    expect_part(&s, 1, 1, 0x71);
    expect_part(&s, 1, 2, 2);
    expect_part(&s, 2, 1, 0x72);
    expect_part(&s, 2, 2, 3);
    expect_part(&s, 3, 1, 0);
    expect_part(&s, 4, 1, 0);
    ck_assert_int_eq(blk_co_truncate(s.top, 4 * CLUSTER, BLK_PREALLOC_OFF, NULL), 0);
    ck_assert_int_eq(blk_co_truncate(s.top, CLUSTERS * CLUSTER, BLK_PREALLOC_OFF, NULL), 0);
    expect_part(&s, 7, 1, 0);
    blk_co_detach(image);
    stack_close(&s);
}

CO_TEST(test_snapshot_applied)
{
    const BlkSnapshotKey key = { .name = "then" };
    Stack s;

    stack_open(&s, t, "16M");
    ck_assert_int_eq(blk_co_snapshot_create(s.top, "then", NULL), 0);
    expect_part(&s, 6, 1, 7);
    write_pattern(s.user, 6 * CLUSTER, CLUSTER, 0x66);
    expect_part(&s, 6, 1, 0x66);
    ck_assert_int_eq(blk_co_snapshot_apply(s.top, &key, NULL), 0);
    expect_part(&s, 6, 1, 7);
    stack_close(&s);
}

/* A compaction moves payloads to where others were, without telling the engine. */
CO_TEST(test_compacted)
{
    BlkCompactOptions options = { .no_compress = true };
    Stack s;

    stack_open(&s, t, "16M");
    for (unsigned i = 0; i < CLUSTERS; i++) {
        expect_part(&s, i, 1, (uint8_t)(i + 1));
    }
    payload_reads(&s);
    for (unsigned i = 0; i < CLUSTERS; i += 2) {
        ck_assert_int_eq(blk_co_discard(s.top, (uint64_t)i * CLUSTER, CLUSTER), 0);
    }
    ck_assert_int_eq(blk_co_flush(s.top), 0);
    ck_assert_int_eq(blk_co_compact(s.top, &options, NULL), 0);
    for (unsigned i = 0; i < CLUSTERS; i++) {
        expect_part(&s, i, 2, (uint8_t)(i % 2 ? i + 1 : 0));
    }
    ck_assert_uint_eq(payload_reads(&s), CLUSTERS / 2);
    stack_close(&s);
}

/* What is read while the node is drained is not kept: its driver may be changing it. */
CO_TEST(test_drained)
{
    BlkCheckOptions options = { .fix_leaks = true };
    BlkCheckResult result;
    uint8_t buf[PART];
    Stack s;

    stack_open(&s, t, "16M");
    expect_part(&s, 3, 1, 4);
    payload_reads(&s);
    blk_co_drain_begin(s.image);
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_int_eq(blk_engine_co_read_padded(s.image, 3 * CLUSTER, PART, buf), 0);
        ck_assert_uint_eq(payload_reads(&s), 1);
    }
    blk_drain_end(s.image);
    expect_part(&s, 3, 1, 4);
    ck_assert_uint_eq(payload_reads(&s), 1);
    ck_assert_int_eq(blk_co_check(s.image, &options, &result, NULL), 0);        /* repairs work on the file */
    expect_part(&s, 3, 1, 4);
    ck_assert_uint_eq(payload_reads(&s), 1);
    stack_close(&s);
}

/* ---- errors ---- */

CO_TEST(test_errors_are_not_cached)
{
    Part parts[PARTS];
    Stack s;

    stack_open(&s, t, "16M");
    s.disk->fail_read_from = 0;
    hold_reads(&s);
    start_parts(&s, parts, 5);
    turns(20);
    release_reads(&s);
    wait_parts(&s);
    ck_assert_uint_eq(payload_reads(&s), 1);
    for (unsigned i = 0; i < PARTS; i++) {
        ck_assert_int_eq(parts[i].ret, -EIO);
    }
    s.disk->fail_read_from = UINT64_MAX;
    expect_part(&s, 5, 1, 6);
    ck_assert_uint_eq(payload_reads(&s), 1);
    stack_close(&s);
}

/* ---- room ---- */

CO_TEST(test_bounded)
{
    Stack s;

    stack_open(&s, t, "128k");
    for (unsigned i = 0; i < 12; i++) {
        expect_part(&s, i % 3, i, (uint8_t)(i % 3 + 1));
    }
    ck_assert_uint_eq(payload_reads(&s), 12);
    for (unsigned i = 0; i < 12; i++) {
        expect_part(&s, i % 2, i, (uint8_t)(i % 2 + 1));
    }
    ck_assert_uint_eq(payload_reads(&s), 2);
    stack_close(&s);
}

/* What is being loaded counts as well. Who finds no room reads all the same. */
CO_TEST(test_all_room_is_held)
{
    Part parts[3];
    Stack s;

    stack_open(&s, t, "1k");                /* one cluster, nevertheless */
    hold_reads(&s);
    for (unsigned i = 0; i < 3; i++) {
        parts[i] = (Part){ &s, 20 + i, 2, 1 };
        s.running++;
        blk_co_spawn(t->ctx, co_part, &parts[i]);
    }
    turns(20);
    release_reads(&s);
    wait_parts(&s);
    ck_assert_uint_eq(payload_reads(&s), 3);
    expect_part(&s, 20, 1, 21);
    ck_assert_uint_eq(payload_reads(&s), 0);
    expect_part(&s, 21, 1, 22);
    ck_assert_uint_eq(payload_reads(&s), 1);
    stack_close(&s);
}

CO_TEST(test_long_reads_leave_it_alone)
{
    Stack s;

    stack_open(&s, t, "128k");
    expect_part(&s, 0, 1, 1);
    for (unsigned i = 8; i < 40; i += 2) {
        expect_pattern(s.user, (uint64_t)i * CLUSTER, CLUSTER, (uint8_t)(i + 1));
    }
    payload_reads(&s);
    expect_part(&s, 0, 2, 1);
    ck_assert_uint_eq(payload_reads(&s), 0);
    stack_close(&s);
}

/* ---- reading ahead ---- */

static void read_parts(Stack *s, unsigned cluster, unsigned first, unsigned end)
{
    for (unsigned i = first; i < end; i++) {
        expect_part(s, cluster, i, (uint8_t)(cluster + 1));
    }
}

/* A sequential reader finds the next clusters; not many of them. Several are read at a time. */
CO_TEST(test_read_ahead)
{
    unsigned most = 2 * (blk_context_workers(t->ctx) + 1);
    Stack s;

    stack_open(&s, t, "16M");
    read_parts(&s, 10, 0, 3);
    settle(&s);
    ck_assert_uint_eq(payload_reads(&s), 1);            /* too early */
    read_parts(&s, 10, 3, PARTS);
    settle(&s);
    ck_assert_uint_eq(payload_reads(&s), 2);            /* clusters 11 and 12 */
    for (unsigned i = 11; i < 20; i++) {
        read_parts(&s, i, 0, PARTS);
        settle(&s);
    }
    ck_assert_uint_lt(payload_reads(&s), 9);
    read_parts(&s, 20 + most, 0, 1);
    ck_assert_uint_eq(payload_reads(&s), 1);
    read_parts(&s, 20, 0, 1);
    ck_assert_uint_eq(payload_reads(&s), 0);
    settle(&s);
    for (unsigned i = 0; i < 300; i++) {                /* at random: nothing is expected */
        expect_part(&s, i % 32 * 2, i % PARTS, (uint8_t)(i % 32 * 2 + 1));
    }
    settle(&s);
    ck_assert_uint_le(payload_reads(&s), 32);
    stack_close(&s);
}

/* Several streams at once, among reads that are none. */
CO_TEST(test_streams)
{
    Stack s;

    stack_open(&s, t, "4M");
    for (unsigned part = 0; part < PARTS; part += 2) {
        for (unsigned stream = 0; stream < 3; stream++) {
            read_parts(&s, stream * 10, part, part + 2);
        }
        for (unsigned i = 0; i < 2 * BLK_ENGINE_STREAMS; i++) {
            expect_part(&s, 31 + i, (part * 7 + i) % PARTS, (uint8_t)(32 + i));
        }
        settle(&s);
    }
    payload_reads(&s);
    for (unsigned stream = 0; stream < 3; stream++) {
        expect_part(&s, stream * 10 + 1, 3, (uint8_t)(stream * 10 + 2));
    }
    ck_assert_uint_eq(payload_reads(&s), 0);
    stack_close(&s);
}

/* At most half of the cache is for what nobody has asked for. */
CO_TEST(test_read_ahead_leaves_half)
{
    Stack s;

    stack_open(&s, t, "192k");                          /* 3 clusters */
    read_parts(&s, 10, 0, PARTS);
    settle(&s);
    read_parts(&s, 11, 0, PARTS);
    settle(&s);
    ck_assert_uint_eq(payload_reads(&s), 3);            /* the last for cluster 12 */
    stack_close(&s);
}

/* What a stream has read to the end makes room before what others use. */
CO_TEST(test_stream_leaves_others_alone)
{
    Stack s;

    stack_open(&s, t, "1M");
    for (unsigned i = 0; i < 4; i++) {
        expect_part(&s, 50 + 3 * i, 5, (uint8_t)(51 + 3 * i));
    }
    for (unsigned i = 0; i < 40; i++) {
        read_parts(&s, i, 0, PARTS);
    }
    settle(&s);
    payload_reads(&s);
    for (unsigned i = 0; i < 4; i++) {
        expect_part(&s, 50 + 3 * i, 7, (uint8_t)(51 + 3 * i));
    }
    ck_assert_uint_eq(payload_reads(&s), 0);
    stack_close(&s);
}

/* The payload of cluster 11 is being read. */
static void begin_read_ahead(Stack *s)
{
    read_parts(s, 10, 0, 3);
    hold_reads(s);
    read_parts(s, 10, 3, 5);
    while (s->disk->holding == 0) {
        turns(1);
    }
}

/* An error of reading ahead is nobody's; who waited for the cluster reads it himself. */
CO_TEST(test_read_ahead_fails)
{
    Part part;
    Stack s;

    stack_open(&s, t, "16M");
    begin_read_ahead(&s);
    part = (Part){ &s, 11, 0, 1 };
    s.running = 1;
    blk_co_spawn(t->ctx, co_part, &part);
    turns(20);
    payload_reads(&s);
    s.disk->fail_read_from = 0;
    release_reads(&s);
    turns(1);
    s.disk->fail_read_from = UINT64_MAX;
    wait_parts(&s);
    ck_assert_int_eq(part.ret, 0);
    ck_assert_uint_eq(payload_reads(&s), 1);
    stack_close(&s);
}

typedef struct Drain {
    Stack *s;
    bool done;
} Drain;

static int co_drain(void *opaque)
{
    Drain *d = opaque;

    blk_co_drain_begin(d->s->image);
    d->done = true;
    blk_drain_end(d->s->image);
    return 0;
}

CO_TEST(test_drain_waits_for_read_ahead)
{
    Stack s;
    Drain drain = { .s = &s };

    stack_open(&s, t, "16M");
    begin_read_ahead(&s);
    blk_co_spawn(t->ctx, co_drain, &drain);
    turns(50);
    ck_assert(!drain.done);
    release_reads(&s);
    while (!drain.done) {
        turns(1);
    }
    payload_reads(&s);
    expect_part(&s, 11, 3, 12);
    ck_assert_uint_eq(payload_reads(&s), 1);            /* the drained section has emptied the cache */
    stack_close(&s);
}

static int co_release(void *opaque)
{
    turns(50);
    release_reads(opaque);
    return 0;
}

CO_TEST(test_close_waits_for_read_ahead)
{
    Stack s;

    stack_open(&s, t, "16M");
    begin_read_ahead(&s);
    blk_co_spawn(t->ctx, co_release, &s);
    stack_close(&s);
}

/* ---- the cache alone ---- */

static int load_slowly(void *opaque, uint8_t *out)
{
    memset(out, *(uint8_t *)opaque, CLUSTER);
    turns(5);
    return 0;
}

typedef struct Waiter {
    BlkClusterCache *cache;
    const BlkMapping *map;
    uint8_t seen;
} Waiter;

static int co_waiter(void *opaque)
{
    Waiter *w = opaque;
    BlkCachedCluster *cluster;

    ck_assert_int_eq(blk_cluster_cache_co_find(w->cache, w->map, &cluster), 0);
    ck_assert_ptr_nonnull(cluster);
    w->seen = cluster->data[0];
    blk_cluster_cache_put(w->cache, cluster, false);
    return 0;
}

static int co_dropper(void *opaque)
{
    Waiter *w = opaque;

    turns(2);
    blk_cluster_cache_drop(w->cache, w->map->child, w->map->host_offset);
    return 0;
}

/* Who looked before the payload changed gets the old cluster, who looks afterwards does not, also if it was loading. */
CO_TEST(test_dropped_while_loading)
{
    BlkChild child = { .name = "file" };
    BlkMapping map = { .kind = BLK_MAP_COMPRESSED, .child = &child, .host_offset = 512, .host_bytes = 512 };
    BlkClusterCache *cache = blk_cluster_cache_new(4 * CLUSTER, CLUSTER);
    Waiter waiter = { .cache = cache, .map = &map };
    BlkCachedCluster *cluster, *other;
    uint8_t value = 1;

    blk_co_spawn(t->ctx, co_waiter, &waiter);
    blk_co_spawn(t->ctx, co_dropper, &waiter);
    ck_assert_int_eq(blk_cluster_cache_co_load(cache, &map, load_slowly, &value, false, &cluster), 0);
    ck_assert_ptr_nonnull(cluster);
    turns(2);
    ck_assert_uint_eq(waiter.seen, 1);
    ck_assert_int_eq(blk_cluster_cache_co_find(cache, &map, &other), 0);
    ck_assert_ptr_null(other);
    value = 2;
    ck_assert_int_eq(blk_cluster_cache_co_load(cache, &map, load_slowly, &value, false, &other), 0);
    ck_assert_uint_eq(cluster->data[0], 1);
    ck_assert_uint_eq(other->data[0], 2);
    blk_cluster_cache_put(cache, cluster, false);
    blk_cluster_cache_put(cache, other, false);
    map.host_bytes = 1024;                              /* another length is another payload */
    ck_assert_int_eq(blk_cluster_cache_co_find(cache, &map, &other), 0);
    ck_assert_ptr_null(other);
    blk_cluster_cache_free(cache);
}

BLK_TEST_MAIN("cluster_cache", test_read_in_parts, test_parts_at_once, test_off, test_neighbours,
              test_neighbours_are_rewritten, test_rewritten, test_mapping_changes,
              test_snapshot_applied, test_compacted, test_drained, test_errors_are_not_cached, test_bounded,
              test_all_room_is_held, test_long_reads_leave_it_alone, test_read_ahead, test_streams,
              test_read_ahead_leaves_half, test_stream_leaves_others_alone, test_read_ahead_fails, test_drain_waits_for_read_ahead,
              test_close_waits_for_read_ahead, test_dropped_while_loading)
