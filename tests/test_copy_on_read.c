/* SPDX-License-Identifier: MIT */
/* test_copy_on_read.c - the copy-on-read filter above real qcow2 images: what is stored, and what a write may meet. */
#include "node_test.h"

enum { CLUSTER = 65536, SIZE = 16 * CLUSTER };

/* The overlay top.qcow2 through a fault filter; its backing file is as the image says. */
#define TOP                                                                                                          \
    "{'driver': 'qcow2', 'node-name': 'top', 'file': {'driver': 'fault', 'node-name': 'fault', 'image': "            \
    "{'driver': 'file', 'filename': '@/top.qcow2'}}}"
#define COR(more, file) "{'driver': 'copy-on-read'" more ", 'file': " file "}"

static char *quoted(const char *text)
{
    return g_strdelimit(g_strdup(text), "'", '"');
}

static void create(Test *t, const char *name, const char *backing, const char *backing_format)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonObject) options = json_object_new();
    g_autofree char *path = g_build_filename(t->dir, name, NULL);

    json_object_set_int_member(options, "size", SIZE);
    if (backing) {
        json_object_set_string_member(options, "backing_file", backing);
        json_object_set_string_member(options, "backing_fmt", backing_format);
    }
    int ret = blk_co_create(t->ctx, path, "qcow2", options, &error);
    ck_assert_msg(ret == 0, "%s", error ? error->message : "no message");
}

static BlkChild *open_cor(Test *t, const char *text)
{
    g_autofree char *json = quoted(text);

    return open_rw(t, json);
}

/* What the overlay itself has at @offset, without its chain: BlkStatusFlags. */
static unsigned own_status(Test *t, uint64_t offset)
{
    BlkStatus status;

    ck_assert_int_eq(blk_co_block_status(blk_node_find(t->ctx, "top"), offset, 1, &status), 0);
    return status.flags & (BLK_STATUS_ALLOCATED | BLK_STATUS_ZERO | BLK_STATUS_DATA | BLK_STATUS_COMPRESSED);
}

static bool is_own(Test *t, uint64_t offset)
{
    return own_status(t, offset) & BLK_STATUS_ALLOCATED;
}

CO_TEST(clusters_that_are_read_are_stored)
{
    make_file(t, "base.raw", SIZE, 8 * CLUSTER, 0x11);
    create(t, "top.qcow2", "base.raw", "raw");
    BlkChild *user = open_cor(t, COR("", TOP));

    expect_pattern(user, CLUSTER + 4096, 512, 0x11);
    ck_assert(!is_own(t, 0) && is_own(t, CLUSTER) && is_own(t, 2 * CLUSTER - 1) && !is_own(t, 2 * CLUSTER));
    write_pattern(user, 4 * CLUSTER, CLUSTER, 0x22);
    expect_pattern(user, 3 * CLUSTER + 512, CLUSTER - 512, 0x11);
    expect_pattern(user, 4 * CLUSTER, CLUSTER, 0x22);
    ck_assert(is_own(t, 3 * CLUSTER) && !is_own(t, 5 * CLUSTER));
    blk_co_detach(user);

    /* What was copied stays without its source. */
    g_autofree char *path = g_build_filename(t->dir, "base.raw", NULL);
    ck_assert_int_eq(truncate(path, 0), 0);
    user = open_cor(t, TOP);
    expect_pattern(user, CLUSTER, CLUSTER, 0x11);
    expect_pattern(user, 0, CLUSTER, 0);
    blk_co_detach(user);
}

CO_TEST(bottom_ends_what_is_copied)
{
    make_file(t, "base.raw", SIZE, 8 * CLUSTER, 0x11);
    create(t, "mid.qcow2", "base.raw", "raw");
    create(t, "top.qcow2", "mid.qcow2", "qcow2");
    BlkChild *mid = open_cor(t, "{'driver': 'qcow2', 'file': {'driver': 'file', 'filename': '@/mid.qcow2'}}");
    write_pattern(mid, 2 * CLUSTER, CLUSTER, 0x22);
    blk_co_detach(mid);

    BlkChild *user = open_cor(t, COR(", 'bottom': 'mid'",
                                     "{'driver': 'qcow2', 'node-name': 'top', 'file': {'driver': 'file', "
                                     "'filename': '@/top.qcow2'}, 'backing': {'driver': 'qcow2', 'node-name': 'mid', "
                                     "'file': {'driver': 'file', 'filename': '@/mid.qcow2'}}}"));
    expect_pattern(user, 0, 2 * CLUSTER, 0x11);
    expect_pattern(user, 2 * CLUSTER, CLUSTER, 0x22);
    expect_pattern(user, 3 * CLUSTER, CLUSTER, 0x11);
    ck_assert(!is_own(t, 0) && !is_own(t, CLUSTER) && is_own(t, 2 * CLUSTER) && !is_own(t, 3 * CLUSTER));
    blk_co_detach(user);
}

CO_TEST(what_cannot_be_is_refused)
{
    make_file(t, "base.raw", SIZE, CLUSTER, 0x11);
    create(t, "top.qcow2", "base.raw", "raw");
    g_autofree char *nowhere = quoted(COR(", 'bottom': 'nowhere'", TOP));
    g_autofree char *fault = quoted(COR(", 'bottom': 'fault'", TOP));
    g_autofree char *read_only = quoted(COR("", "{'driver': 'qcow2', 'read-only': true, 'file': {'driver': 'file', "
                                                "'filename': '@/top.qcow2'}}"));

    refused(t, nowhere, "bottom 'nowhere'");
    refused(t, fault, "bottom 'fault'");
    refused(t, read_only, "read-only");
}

CO_TEST(zeroes_are_stored_as_zeroes)
{
    const unsigned zero = BLK_STATUS_ALLOCATED | BLK_STATUS_ZERO;

    create(t, "base.qcow2", NULL, NULL);
    create(t, "top.qcow2", "base.qcow2", "qcow2");
    BlkChild *base = open_cor(t, "{'driver': 'qcow2', 'file': {'driver': 'file', 'filename': '@/base.qcow2'}}");
    write_pattern(base, 0, 2 * CLUSTER, 0);
    ck_assert_int_eq(blk_co_pwrite_zeroes(blk_child_node(base), 2 * CLUSTER, CLUSTER, BLK_REQ_UNMAP), 0);
    blk_co_detach(base);

    BlkChild *user = open_cor(t, COR("", TOP));
    expect_pattern(user, 0, 4 * CLUSTER, 0);
    ck_assert_uint_eq(own_status(t, 0) & (zero | BLK_STATUS_COMPRESSED), zero);
    ck_assert_uint_eq(own_status(t, CLUSTER) & (zero | BLK_STATUS_COMPRESSED), zero);
    ck_assert_uint_eq(own_status(t, 2 * CLUSTER) & (zero | BLK_STATUS_COMPRESSED), zero);
    ck_assert(!is_own(t, 3 * CLUSTER));         /* nobody holds it */
    blk_co_detach(user);
    ck_assert_int_le(stat_file(t, "top.qcow2").st_size, 6 * CLUSTER);       /* tables only */
}

CO_TEST(through_a_compress_filter_copies_are_compressed)
{
    const unsigned compressed = BLK_STATUS_ALLOCATED | BLK_STATUS_COMPRESSED;

    make_file(t, "base.raw", SIZE, 3 * CLUSTER, 0x11);
    create(t, "top.qcow2", "base.raw", "raw");
    BlkChild *user = open_cor(t, COR("", "{'driver': 'compress', 'write-buffer': 0, 'file': " TOP "}"));

    expect_pattern(user, 512, 512, 0x11);
    ck_assert_uint_eq(own_status(t, 0) & compressed, compressed);
    ck_assert(!is_own(t, CLUSTER));
    write_pattern(user, CLUSTER + 4096, 4096, 0x22);
    expect_pattern(user, CLUSTER, 4096, 0x11);
    expect_pattern(user, CLUSTER + 4096, 4096, 0x22);
    ck_assert_uint_eq(own_status(t, CLUSTER) & compressed, compressed);
    expect_pattern(user, 4 * CLUSTER, CLUSTER, 0);      /* zeroes stay zeroes */
    ck_assert(!(own_status(t, 4 * CLUSTER) & BLK_STATUS_COMPRESSED));
    blk_co_detach(user);
}

/* ---- others meanwhile ---- */

typedef struct Worker {
    BlkChild *user;
    uint64_t offset;
    int ret;
    bool done;
    uint8_t buf[4096];
} Worker;

static int reader_co(void *opaque)
{
    Worker *w = opaque;

    w->ret = blk_co_pread(blk_child_node(w->user), w->offset, sizeof(w->buf), w->buf, 0);
    w->done = true;
    return 0;
}

static int writer_co(void *opaque)
{
    Worker *w = opaque;

    memset(w->buf, 0x33, sizeof(w->buf));
    w->ret = blk_co_pwrite(blk_child_node(w->user), w->offset, sizeof(w->buf), w->buf, 0);
    w->done = true;
    return 0;
}

static void wait_for(const bool *done)
{
    for (unsigned i = 0; i < 10000 && !*done; i++) {
        blk_co_sleep_ns(1000000);
    }
    ck_assert(*done);
}

static void wait_for_breakpoint(BlkNode *node, const char *tag)
{
    for (unsigned i = 0; i < 10000 && !blk_breakpoint_is_suspended(node, tag); i++) {
        blk_co_sleep_ns(1000000);
    }
    ck_assert(blk_breakpoint_is_suspended(node, tag));
}

static void write_during_copy(Test *t, const char *stack)
{
    make_file(t, "base.raw", SIZE, 8 * CLUSTER, 0x11);
    create(t, "top.qcow2", "base.raw", "raw");
    BlkChild *user = open_cor(t, stack);
    BlkNode *node = blk_child_node(user);
    Worker reader = { user, CLUSTER + 8192 }, writer = { user, CLUSTER + 8192 }, other = { user, 4 * CLUSTER };
    Worker second = { user, CLUSTER + 12288 };

    ck_assert_int_eq(blk_breakpoint_set(node, "cor_write", "A", NULL), 0);
    blk_co_spawn(t->ctx, reader_co, &reader);
    wait_for_breakpoint(node, "A");
    blk_co_spawn(t->ctx, writer_co, &writer);
    blk_co_spawn(t->ctx, writer_co, &other);
    blk_co_spawn(t->ctx, reader_co, &second);
    wait_for(&other.done);                      /* elsewhere nothing waits */
    blk_co_sleep_ns(20000000);
    ck_assert(!writer.done && !reader.done && !second.done);
    ck_assert_int_eq(blk_breakpoint_resume(node, "A"), 0);
    wait_for(&reader.done);
    wait_for(&writer.done);
    wait_for(&second.done);
    ck_assert(reader.ret == 0 && writer.ret == 0 && other.ret == 0 && second.ret == 0);
    ck_assert_uint_eq(reader.buf[0], 0x11);
    ck_assert_uint_eq(second.buf[0], 0x11);
    expect_pattern(user, CLUSTER, 8192, 0x11);
    expect_pattern(user, CLUSTER + 8192, 4096, 0x33);       /* the write came later and is not undone */
    expect_pattern(user, CLUSTER + 12288, 4096, 0x11);
    expect_pattern(user, 4 * CLUSTER, 4096, 0x33);
    blk_co_detach(user);
}

CO_TEST(a_copy_does_not_undo_a_write)
{
    write_during_copy(t, COR("", TOP));
}

CO_TEST(a_compressed_copy_does_not_undo_a_write)
{
    write_during_copy(t, COR("", "{'driver': 'compress', 'file': " TOP "}"));
}

CO_TEST(a_read_fails_when_its_copy_does)
{
    Worker reader = { 0 };

    make_file(t, "base.raw", SIZE, 8 * CLUSTER, 0x11);
    create(t, "top.qcow2", "base.raw", "raw");
    reader.user = open_cor(t, COR("", "{'driver': 'qcow2', 'node-name': 'top', 'file': {'driver': 'fault', "
                                      "'inject-error': [{'event': 'cor_write', 'iotype': 'write', 'errno': 28, "
                                      "'once': true}], "
                                      "'image': {'driver': 'file', 'filename': '@/top.qcow2'}}}"));
    reader_co(&reader);
    ck_assert_int_eq(reader.ret, -ENOSPC);
    ck_assert(!is_own(t, 0));
    reader_co(&reader);
    ck_assert_int_eq(reader.ret, 0);
    ck_assert_uint_eq(reader.buf[4095], 0x11);
    ck_assert(is_own(t, 0));
    blk_co_detach(reader.user);
}

BLK_TEST_MAIN("copy_on_read", clusters_that_are_read_are_stored, bottom_ends_what_is_copied, what_cannot_be_is_refused,
              zeroes_are_stored_as_zeroes, through_a_compress_filter_copies_are_compressed,
              a_copy_does_not_undo_a_write, a_compressed_copy_does_not_undo_a_write, a_read_fails_when_its_copy_does)
