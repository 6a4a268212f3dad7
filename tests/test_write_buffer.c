/* SPDX-License-Identifier: MIT */
/*
 * test_write_buffer.c - the write buffer of the compress filter: what gathers, when it is written out, what a reader
 * sees meanwhile, and what becomes of it when it cannot be written.
 *
 *     compress -> gauge (counts, fails, suspends) -> qcow2 -> file
 */
#include "node_test.h"

enum { CLUSTER = 65536, SIZE = 64 * CLUSTER, UNITS = 8 };

typedef struct Gauge {
    unsigned writes, reads;
    int fail;               /* of every write */
    bool hold;              /* writes wait */
    bool hold_reads;        /* they wait before they return, zero writes before they begin */
    bool hold_zeroes;
    BlkCoQueue held;
    unsigned running, most;
} Gauge;

static int gauge_co_preadv(BlkNode *node, BlkRequest *req)
{
    Gauge *gauge = node->opaque;
    bool hold = gauge->hold_reads;
    int ret = blk_co_pass_through_read(node, req);

    gauge->reads++;
    if (hold) {
        blk_co_queue_wait(&gauge->held);
    }
    return ret;
}

static int gauge_co_pwrite_zeroes(BlkNode *node, BlkRequest *req)
{
    Gauge *gauge = node->opaque;

    while (gauge->hold_zeroes) {
        blk_co_queue_wait(&gauge->held);
    }
    return blk_co_pwrite_zeroes(node->file->node, req->offset, req->bytes, req->flags);
}

static int gauge_co_pwritev(BlkNode *node, BlkRequest *req)
{
    Gauge *gauge = node->opaque;
    int ret = gauge->fail;

    gauge->writes++;
    gauge->running++;
    gauge->most = MAX(gauge->most, gauge->running);
    while (gauge->hold) {
        blk_co_queue_wait(&gauge->held);
    }
    if (ret == 0) {
        ret = blk_co_pass_through_write(node, req);
    }
    gauge->running--;
    return ret;
}

static const BlkDriver gauge_driver = {
    .name = "gauge",
    .kind = BLK_FILTER,
    .instance_size = sizeof(Gauge),
    .co_preadv = gauge_co_preadv,
    .co_pwritev = gauge_co_pwritev,
    .co_pwrite_zeroes = gauge_co_pwrite_zeroes,
};

typedef struct Stack {
    BlkChild *user;
    BlkNode *node;
    Gauge *gauge;
    bool done;
} Stack;

/* @more: further options of the filter. The buffer has room for UNITS clusters. */
static void stack_open(Stack *s, Test *t, const char *more)
{
    g_autofree char *path = g_build_filename(t->dir, "disk.qcow2", NULL);
    g_autofree char *text = g_strdup_printf(
        "{'driver': 'compress', 'node-name': 'top', 'write-buffer': %u%s, 'discard': 'unmap', 'file': {'driver': 'gauge', "
        "'node-name': 'gauge', 'discard': 'unmap', 'file': {'driver': 'qcow2', 'discard': 'unmap', 'file': {'driver': "
        "'file', 'filename': '@/disk.qcow2'}}}}", UNITS * CLUSTER, more);
    g_autoptr(JsonObject) options = json_object_new();

    if (!blk_driver_find(t->ctx, "gauge")) {
        ck_assert_int_eq(blk_driver_register(t->ctx, &gauge_driver, NULL), 0);
    }
    if (!g_file_test(path, G_FILE_TEST_EXISTS)) {
        json_object_set_int_member(options, "size", SIZE);
        ck_assert_int_eq(blk_co_create(t->ctx, path, "qcow2", options, NULL), 0);
    }
    g_strdelimit(text, "'", '"');
    s->done = false;
    s->user = open_rw(t, text);
    s->node = blk_child_node(s->user);
    s->gauge = blk_node_find(t->ctx, "gauge")->opaque;
}

static int flush(Stack *s)
{
    return blk_co_flush(s->node);
}

/* Lets what was started in the background get as far as it can. */
static void settle_down(void)
{
    blk_co_sleep_ns(20 * 1000 * 1000);
}

CO_TEST(small_writes_make_one_cluster)
{
    Stack s;

    stack_open(&s, t, "");
    for (unsigned i = 0; i < 15; i++) {
        write_pattern(s.user, CLUSTER + i * 4096, 4096, 0x10 + i);
    }
    settle_down();
    ck_assert_uint_eq(s.gauge->writes, 0);
    write_pattern(s.user, CLUSTER + 15 * 4096, 4096, 0x1f);
    settle_down();
    ck_assert_uint_eq(s.gauge->writes, 1);      /* without a flush */
    ck_assert_uint_eq(s.gauge->reads, 0);
    for (unsigned i = 0; i < 16; i++) {
        expect_pattern(s.user, CLUSTER + i * 4096, 4096, 0x10 + i);
    }
    ck_assert_int_eq(flush(&s), 0);
    ck_assert_int_eq(flush(&s), 0);
    ck_assert_uint_eq(s.gauge->writes, 1);
    blk_co_detach(s.user);
}

CO_TEST(a_reader_sees_what_was_written)
{
    Stack s;

    stack_open(&s, t, "");
    write_pattern(s.user, 0, 2 * CLUSTER, 0x11);
    ck_assert_int_eq(flush(&s), 0);
    write_pattern(s.user, 4096, 512, 0x22);
    write_pattern(s.user, CLUSTER - 512, 1024, 0x33);
    write_pattern(s.user, 100, 7, 0x44);            /* part of a sector */
    settle_down();
    ck_assert_uint_eq(s.gauge->writes, 2);
    for (unsigned round = 0; round < 2; round++) {
        expect_pattern(s.user, 0, 100, 0x11);
        expect_pattern(s.user, 100, 7, 0x44);
        expect_pattern(s.user, 107, 4096 - 107, 0x11);
        expect_pattern(s.user, 4096, 512, 0x22);
        expect_pattern(s.user, 4608, CLUSTER - 512 - 4608, 0x11);
        expect_pattern(s.user, CLUSTER - 512, 1024, 0x33);
        expect_pattern(s.user, CLUSTER + 513, CLUSTER - 513, 0x11);
        ck_assert_int_eq(flush(&s), 0);
        ck_assert_uint_eq(s.gauge->writes, 4);
    }
    blk_co_detach(s.user);
}

static int co_write_two(void *opaque)
{
    write_pattern(((Stack *)opaque)->user, 8192, 4096, 0x55);
    return 0;
}

CO_TEST(a_cluster_being_written_takes_writes)
{
    Stack s;

    stack_open(&s, t, "");
    s.gauge->hold = true;
    write_pattern(s.user, 0, CLUSTER, 0x11);
    settle_down();
    ck_assert_uint_eq(s.gauge->running, 1);
    blk_co_spawn(t->ctx, co_write_two, &s);
    settle_down();
    expect_pattern(s.user, 0, 8192, 0x11);
    expect_pattern(s.user, 8192, 4096, 0x55);       /* newer than what is being written */
    expect_pattern(s.user, 12288, CLUSTER - 12288, 0x11);
    write_pattern(s.user, 0, CLUSTER, 0x66);        /* whole, but the older one comes first */
    settle_down();
    ck_assert_uint_eq(s.gauge->writes, 1);
    s.gauge->hold = false;
    blk_co_queue_wake_all(&s.gauge->held);
    ck_assert_int_eq(flush(&s), 0);
    ck_assert_uint_eq(s.gauge->writes, 2);
    ck_assert_uint_eq(s.gauge->most, 1);
    blk_co_detach(s.user);
    stack_open(&s, t, "");
    expect_pattern(s.user, 0, CLUSTER, 0x66);
    blk_co_detach(s.user);
}

static int co_read_old(void *opaque)
{
    Stack *s = opaque;

    expect_pattern(s->user, 0, 512, 0x22);
    expect_pattern(s->user, 512, 4096, 0x11);
    s->done = true;
    return 0;
}

/* The reader has read what is below, which is old; then its cluster is written out, and the memory is used for another. */
CO_TEST(a_slow_reader_keeps_what_it_looks_at)
{
    Stack s;

    stack_open(&s, t, "");
    write_pattern(s.user, 0, CLUSTER, 0x11);
    ck_assert_int_eq(flush(&s), 0);
    write_pattern(s.user, 0, 512, 0x22);
    s.gauge->hold_reads = true;
    blk_co_spawn(t->ctx, co_read_old, &s);
    write_pattern(s.user, 4096, 512, 0x11);
    settle_down();
    s.gauge->hold_reads = false;
    ck_assert_int_eq(flush(&s), 0);
    for (unsigned i = 1; i <= UNITS / 2; i++) {
        write_pattern(s.user, i * CLUSTER, 1024, 0x99);
    }
    blk_co_queue_wake_all(&s.gauge->held);
    settle_down();
    ck_assert(s.done);
    blk_co_detach(s.user);
}

static int co_zero_first(void *opaque)
{
    Stack *s = opaque;

    ck_assert_int_eq(blk_co_pwrite_zeroes(s->node, 0, CLUSTER, 0), 0);
    s->done = true;
    return 0;
}

/* A small write beside a zero write: what is around it must not be read before the zeroes are there. */
CO_TEST(a_zero_write_is_not_undone_by_a_write_beside_it)
{
    Stack s;

    stack_open(&s, t, "");
    write_pattern(s.user, 0, CLUSTER, 0x11);
    ck_assert_int_eq(flush(&s), 0);
    s.gauge->hold_zeroes = true;
    blk_co_spawn(t->ctx, co_zero_first, &s);
    settle_down();
    write_pattern(s.user, 4096, 512, 0x22);
    for (unsigned i = 1; i < 3 * UNITS; i++) {      /* it is in the way of others */
        write_pattern(s.user, i * CLUSTER, 512, 0x33);
    }
    settle_down();
    ck_assert(!s.done);
    s.gauge->hold_zeroes = false;
    blk_co_queue_wake_all(&s.gauge->held);
    settle_down();
    ck_assert(s.done);
    ck_assert_int_eq(flush(&s), 0);
    expect_pattern(s.user, 0, 4096, 0);
    expect_pattern(s.user, 4096, 512, 0x22);
    expect_pattern(s.user, 4608, CLUSTER - 4608, 0);
    blk_co_detach(s.user);
}

CO_TEST(a_late_error_is_reported_once_and_the_data_is_kept)
{
    Stack s;

    stack_open(&s, t, "");
    s.gauge->fail = -ENOSPC;
    write_pattern(s.user, 0, CLUSTER, 0x11);
    settle_down();
    ck_assert_uint_eq(s.gauge->writes, 1);
    write_pattern(s.user, 4096, 4096, 0x22);        /* on top of what failed */
    expect_pattern(s.user, 0, 4096, 0x11);
    expect_pattern(s.user, 4096, 4096, 0x22);
    ck_assert_int_eq(flush(&s), -ENOSPC);
    ck_assert_uint_eq(s.gauge->writes, 2);
    s.gauge->fail = 0;
    ck_assert_int_eq(flush(&s), 0);
    ck_assert_uint_eq(s.gauge->writes, 3);

    s.gauge->fail = -EIO;
    write_pattern(s.user, CLUSTER, CLUSTER, 0x33);
    settle_down();
    s.gauge->fail = 0;
    ck_assert_int_eq(flush(&s), -EIO);              /* it was written now, but somebody must hear of it */
    ck_assert_int_eq(flush(&s), 0);
    blk_co_detach(s.user);
    stack_open(&s, t, "");
    expect_pattern(s.user, 0, 4096, 0x11);
    expect_pattern(s.user, 4096, 4096, 0x22);
    expect_pattern(s.user, 8192, CLUSTER - 8192, 0x11);
    expect_pattern(s.user, CLUSTER, CLUSTER, 0x33);
    blk_co_detach(s.user);
}

CO_TEST(what_cannot_be_written_takes_no_more_than_the_buffer)
{
    g_autofree uint8_t *buf = g_malloc0(CLUSTER);
    unsigned accepted = 0;
    Stack s;

    stack_open(&s, t, "");
    s.gauge->fail = -ENOSPC;
    memset(buf, 0x11, CLUSTER);
    while (accepted < 2 * UNITS && blk_co_pwrite(s.node, (uint64_t)accepted * CLUSTER, CLUSTER, buf, 0) == 0) {
        accepted++;
    }
    ck_assert_uint_eq(accepted, UNITS);
    settle_down();
    unsigned writes = s.gauge->writes;
    settle_down();
    ck_assert_uint_eq(s.gauge->writes, writes);     /* nobody asks for more attempts */
    ck_assert_int_eq(blk_co_pwrite(s.node, 20 * CLUSTER, 512, buf, 0), -ENOSPC);
    settle_down();
    ck_assert_int_eq(blk_co_pwrite(s.node, 512, 512, buf, 0), 0);      /* that cluster has its room */
    s.gauge->fail = 0;
    ck_assert_int_eq(blk_co_pwrite(s.node, 20 * CLUSTER, 512, buf, 0), 0);
    ck_assert_int_eq(flush(&s), -ENOSPC);
    ck_assert_int_eq(flush(&s), 0);
    expect_pattern(s.user, 0, UNITS * CLUSTER, 0x11);
    blk_co_detach(s.user);
}

CO_TEST(what_is_in_the_way_is_written_out)
{
    Stack s;

    stack_open(&s, t, "");
    for (unsigned i = 0; i < 5 * UNITS; i++) {
        write_pattern(s.user, (uint64_t)i * CLUSTER + 1024, 512, 0x40 + i);
    }
    ck_assert_uint_ge(s.gauge->writes, 4 * UNITS);
    ck_assert_uint_lt(s.gauge->writes, 5 * UNITS);
    for (unsigned i = 0; i < 5 * UNITS; i++) {
        expect_pattern(s.user, (uint64_t)i * CLUSTER, 1024, 0);
        expect_pattern(s.user, (uint64_t)i * CLUSTER + 1024, 512, 0x40 + i);
    }
    blk_co_detach(s.user);
    stack_open(&s, t, "");
    for (unsigned i = 0; i < 5 * UNITS; i++) {
        expect_pattern(s.user, (uint64_t)i * CLUSTER + 1024, 512, 0x40 + i);
    }
    blk_co_detach(s.user);
}

CO_TEST(zeroes_and_discards_come_after_what_was_written)
{
    Stack s;

    stack_open(&s, t, "");
    write_pattern(s.user, 0, 4 * CLUSTER, 0x11);
    write_pattern(s.user, 4 * CLUSTER, 4096, 0x22);
    ck_assert_int_eq(blk_co_pwrite_zeroes(s.node, 100, 2 * CLUSTER, 0), 0);
    ck_assert_int_eq(blk_co_discard(s.node, 3 * CLUSTER, 2 * CLUSTER), 0);
    for (unsigned round = 0; round < 2; round++) {
        expect_pattern(s.user, 0, 100, 0x11);
        expect_pattern(s.user, 100, 2 * CLUSTER, 0);
        expect_pattern(s.user, 100 + 2 * CLUSTER, CLUSTER - 100, 0x11);
        expect_pattern(s.user, 3 * CLUSTER, 2 * CLUSTER, 0);
        ck_assert_int_eq(flush(&s), 0);
    }
    blk_co_detach(s.user);
}

CO_TEST(block_status_knows_what_is_buffered)
{
    BlkStatus status;
    Stack s;

    stack_open(&s, t, "");
    write_pattern(s.user, 2 * CLUSTER + 4096, 4096, 0x11);
    ck_assert_int_eq(blk_co_block_status(s.node, 0, SIZE, &status), 0);
    ck_assert_uint_eq(status.bytes, 2 * CLUSTER);
    ck_assert(!(status.flags & BLK_STATUS_DATA));
    ck_assert_int_eq(blk_co_block_status(s.node, 2 * CLUSTER, SIZE, &status), 0);
    ck_assert_uint_eq(status.bytes, CLUSTER);
    ck_assert_uint_eq(status.flags & (BLK_STATUS_DATA | BLK_STATUS_ALLOCATED), BLK_STATUS_DATA | BLK_STATUS_ALLOCATED);
    blk_co_detach(s.user);
}

CO_TEST(the_filter_leaves_when_all_is_handed_down)
{
    g_autoptr(GError) error = NULL;
    Stack s;

    stack_open(&s, t, "");
    BlkNode *below = blk_node_find(t->ctx, "gauge"), *filter = s.node;
    blk_node_ref(filter);
    write_pattern(s.user, 512, 512, 0x11);
    s.gauge->fail = -ENOSPC;
    ck_assert_int_eq(blk_co_remove_filter(filter, &error), -ENOSPC);
    ck_assert_msg(strstr(error->message, "holds data") != NULL, "%s", error->message);
    ck_assert_ptr_eq(blk_child_node(s.user), filter);
    expect_pattern(s.user, 512, 512, 0x11);
    s.gauge->fail = 0;
    ck_assert_int_eq(blk_co_remove_filter(filter, NULL), 0);
    ck_assert_ptr_eq(blk_child_node(s.user), below);
    expect_pattern(s.user, 512, 512, 0x11);
    blk_co_unref(filter);
    blk_co_detach(s.user);
}

CO_TEST(a_snapshot_has_what_was_written_before)
{
    g_autoptr(GError) error = NULL;
    BlkSnapshotKey key = { .name = "one" };
    Stack s;

    stack_open(&s, t, "");
    write_pattern(s.user, 512, 512, 0x11);
    ck_assert_int_eq(blk_co_snapshot_create(s.node, "one", &error), 0);
    write_pattern(s.user, 512, 512, 0x22);
    ck_assert_int_eq(blk_co_snapshot_apply(s.node, &key, &error), 0);
    expect_pattern(s.user, 512, 512, 0x11);
    s.gauge->fail = -EIO;
    write_pattern(s.user, 512, 512, 0x33);
    ck_assert_int_eq(blk_co_snapshot_create(s.node, "two", &error), -EIO);
    s.gauge->fail = 0;
    blk_co_detach(s.user);
}

CO_TEST(growing_keeps_the_tail)
{
    Stack s;

    stack_open(&s, t, "");
    ck_assert_int_eq(blk_co_truncate(s.node, SIZE + 1000, BLK_PREALLOC_OFF, NULL), 0);
    write_pattern(s.user, SIZE, 1000, 0x11);
    ck_assert_int_eq(blk_co_truncate(s.node, SIZE + 3 * CLUSTER, BLK_PREALLOC_OFF, NULL), 0);
    expect_pattern(s.user, SIZE, 1000, 0x11);
    expect_pattern(s.user, SIZE + 1000, 2 * CLUSTER, 0);
    write_pattern(s.user, SIZE + 1024, 512, 0x22);
    ck_assert_int_eq(blk_co_truncate(s.node, SIZE + 512, BLK_PREALLOC_OFF, NULL), 0);
    ck_assert_int_eq(flush(&s), 0);
    ck_assert_int_eq(blk_co_truncate(s.node, SIZE + CLUSTER, BLK_PREALLOC_OFF, NULL), 0);
    expect_pattern(s.user, SIZE, 512, 0x11);
    expect_pattern(s.user, SIZE + 512, CLUSTER - 512, 0);
    blk_co_detach(s.user);
}

/* With a node below that does FUA itself only the request's clusters are written out; else core flushes everything. */
CO_TEST(a_write_with_fua_is_handed_down)
{
    g_autofree uint8_t *buf = g_malloc0(512);
    Stack s;

    stack_open(&s, t, "");
    write_pattern(s.user, CLUSTER, 512, 0x11);
    s.node->caps |= BLK_CAP_FUA;
    ck_assert_int_eq(blk_co_pwrite(s.node, 0, 512, buf, BLK_REQ_FUA), 0);
    ck_assert_uint_eq(s.gauge->writes, 1);
    s.node->caps &= ~(unsigned)BLK_CAP_FUA;
    ck_assert_int_eq(blk_co_pwrite(s.node, 4 * CLUSTER, 512, buf, BLK_REQ_FUA), 0);
    ck_assert_uint_eq(s.gauge->writes, 3);
    s.gauge->fail = -EIO;
    s.node->caps |= BLK_CAP_FUA;
    ck_assert_int_eq(blk_co_pwrite(s.node, 0, 512, buf, BLK_REQ_FUA), -EIO);
    s.gauge->fail = 0;
    blk_co_detach(s.user);
}

static void hear(BlkNode *node, const char *text, void *opaque)
{
    g_ptr_array_add(opaque, g_strdup(text));
}

CO_TEST(what_is_lost_is_told)
{
    g_autoptr(GPtrArray) heard = g_ptr_array_new_with_free_func(g_free);
    Stack s;

    blk_context_set_message_handler(t->ctx, hear, heard);
    stack_open(&s, t, "");
    s.gauge->fail = -ENOSPC;
    write_pattern(s.user, 0, CLUSTER, 0x11);
    write_pattern(s.user, CLUSTER, 2 * CLUSTER, 0x22);
    settle_down();
    ck_assert_uint_eq(heard->len, 1);       /* not for each */
    ck_assert_msg(strstr(heard->pdata[0], "kept in memory") != NULL, "%s", (char *)heard->pdata[0]);
    blk_co_detach(s.user);
    ck_assert_uint_eq(heard->len, 2);
    ck_assert_msg(strstr(heard->pdata[1], "196608 bytes that could not be written are lost") != NULL, "%s",
                  (char *)heard->pdata[1]);
    blk_context_set_message_handler(t->ctx, NULL, NULL);
}

CO_TEST(nobody_else_writes_below)
{
    unsigned rw = BLK_PERM_READ | BLK_PERM_WRITE;
    g_autoptr(GError) error = NULL;
    Stack s;

    stack_open(&s, t, "");
    ck_assert_ptr_null(blk_co_attach(blk_node_find(t->ctx, "gauge"), "other", rw, BLK_PERM_ALL, &error));
    ck_assert_msg(strstr(error->message, "'top'") != NULL, "%s", error->message);
    BlkChild *reader = blk_co_attach(blk_node_find(t->ctx, "gauge"), "other", BLK_PERM_READ, BLK_PERM_ALL, NULL);
    ck_assert_ptr_nonnull(reader);
    write_pattern(s.user, 0, 512, 0x11);
    expect_pattern(reader, 0, 512, 0);
    ck_assert_int_eq(flush(&s), 0);
    expect_pattern(reader, 0, 512, 0x11);
    blk_co_detach(reader);
    blk_co_detach(s.user);
}

#define IMAGE(name)                                                                                                   \
    "{\"driver\": \"qcow2\", \"file\": {\"driver\": \"file\", \"filename\": \"@/" name ".qcow2\"}}"

CO_TEST(options_are_checked)
{
    g_autoptr(JsonObject) options = json_object_new();
    g_autofree char *path = g_build_filename(t->dir, "z.qcow2", NULL);

    json_object_set_int_member(options, "size", SIZE);
    json_object_set_string_member(options, "compression_type", "zstd");
    ck_assert_int_eq(blk_co_create(t->ctx, path, "qcow2", options, NULL), 0);
    refused(t, "{\"driver\": \"compress\", \"level\": 23, \"file\": " IMAGE("z") "}", "level");
    BlkChild *user = open_rw(t, "{\"driver\": \"compress\", \"level\": 22, \"threads\": 1, \"file\": " IMAGE("z") "}");
    write_pattern(user, 0, 3 * CLUSTER, 0x11);
    blk_co_detach(user);
    Stack s;
    stack_open(&s, t, "");
    blk_co_detach(s.user);
    refused(t, "{\"driver\": \"compress\", \"level\": 13, \"file\": " IMAGE("disk") "}", "levels 1 to ");
}

BLK_TEST_MAIN("write_buffer", small_writes_make_one_cluster, a_reader_sees_what_was_written,
              a_cluster_being_written_takes_writes, a_slow_reader_keeps_what_it_looks_at,
              a_zero_write_is_not_undone_by_a_write_beside_it, a_late_error_is_reported_once_and_the_data_is_kept,
              what_cannot_be_written_takes_no_more_than_the_buffer, what_is_in_the_way_is_written_out,
              zeroes_and_discards_come_after_what_was_written, block_status_knows_what_is_buffered,
              the_filter_leaves_when_all_is_handed_down, a_snapshot_has_what_was_written_before, growing_keeps_the_tail,
              a_write_with_fua_is_handed_down, what_is_lost_is_told, nobody_else_writes_below, options_are_checked)
