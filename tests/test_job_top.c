/* SPDX-License-Identifier: MIT */
/* test_job_top.c - the filters of jobs: what a fill writes, who is told of changes, who may write beside and below. */
#include "node_test.h"

#include "filters/hide.h"
#include "filters/job_top.h"

enum { CLUSTER = 65536, SIZE = 8 * CLUSTER };

#define FILE_OF(name) "'file': {'driver': 'file', 'filename': '@/" name "'}"
#define TOP "{'driver': 'qcow2', 'node-name': 'top', 'file': {'driver': 'fault', 'image': {'driver': 'file', "        \
            "'filename': '@/top.qcow2'}}}"

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

static BlkChild *open_quoted(Test *t, unsigned perm, const char *text)
{
    g_autofree char *json = g_strdelimit(g_strdup(text), "'", '"');

    return open_for(t, perm, json);
}

static BlkChild *attach(BlkNode *node, unsigned perm, unsigned shared)
{
    g_autoptr(GError) error = NULL;
    BlkChild *user = blk_co_attach(node, "other", perm, shared, &error);

    ck_assert_msg(user != NULL, "%s", error ? error->message : "no message");
    blk_child_stay(user);
    return user;
}

static void refuse_attach(BlkNode *node, unsigned perm, unsigned shared)
{
    g_autoptr(GError) error = NULL;

    ck_assert_ptr_null(blk_co_attach(node, "other", perm, shared, &error));
    ck_assert_ptr_nonnull(error);
}

static BlkNode *insert(BlkNode *node)
{
    g_autoptr(GError) error = NULL;
    BlkNode *filter = blk_co_job_top_insert(node, "job", &error);

    ck_assert_msg(filter != NULL, "%s", error ? error->message : "no message");
    return filter;
}

static unsigned own_status(Test *t, uint64_t offset)
{
    BlkStatus status;

    ck_assert_int_eq(blk_co_block_status(blk_node_find(t->ctx, "top"), offset, 1, &status), 0);
    return status.flags;
}

static int fill_pattern(BlkChild *job, uint64_t offset, size_t bytes, uint8_t pattern)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    memset(buf, pattern, bytes);
    return blk_co_pwrite(blk_child_node(job), offset, bytes, buf, BLK_REQ_UNCHANGED);
}

CO_TEST(a_fill_writes_only_what_is_not_there)
{
    make_file(t, "base.raw", SIZE, SIZE, 0x11);
    create(t, "top.qcow2", "base.raw", "raw");
    BlkChild *guest = open_quoted(t, BLK_PERM_ALL, TOP);
    BlkNode *filter = insert(blk_child_node(guest));
    BlkChild *job = attach(filter, BLK_PERM_WRITE_UNCHANGED, BLK_PERM_ALL);

    ck_assert_ptr_eq(blk_child_node(guest), filter);
    write_pattern(guest, CLUSTER, CLUSTER, 0x22);
    ck_assert_int_eq(blk_co_pwrite_zeroes(blk_child_node(guest), 2 * CLUSTER, CLUSTER, BLK_REQ_UNMAP), 0);
    ck_assert_int_eq(fill_pattern(job, 0, 4 * CLUSTER, 0x11), 0);
    expect_pattern(guest, 0, CLUSTER, 0x11);
    expect_pattern(guest, CLUSTER, CLUSTER, 0x22);
    expect_pattern(guest, 2 * CLUSTER, CLUSTER, 0);
    ck_assert(own_status(t, 0) & BLK_STATUS_ALLOCATED);
    ck_assert(own_status(t, 3 * CLUSTER) & BLK_STATUS_ALLOCATED);
    ck_assert(!(own_status(t, 4 * CLUSTER) & BLK_STATUS_ALLOCATED));
    blk_co_detach(job);
    blk_co_job_top_remove(filter);
    ck_assert_str_eq(blk_node_name(blk_child_node(guest)), "top");
    ck_assert_ptr_null(blk_node_find(t->ctx, "job"));
    expect_pattern(guest, 3 * CLUSTER, 2 * CLUSTER, 0x11);
    blk_co_detach(guest);
}

CO_TEST(zeroes_that_fill_stay_when_the_backing_goes)
{
    const unsigned zero = BLK_STATUS_ALLOCATED | BLK_STATUS_ZERO;

    make_file(t, "base.raw", SIZE, 0, 0);
    create(t, "top.qcow2", "base.raw", "raw");
    BlkChild *guest = open_quoted(t, BLK_PERM_ALL, TOP);
    BlkNode *filter = insert(blk_child_node(guest));
    BlkChild *job = attach(filter, BLK_PERM_WRITE_UNCHANGED, BLK_PERM_ALL);

    write_pattern(guest, 0, 512, 0x22);
    ck_assert_int_eq(blk_co_pwrite_zeroes(filter, 0, 2 * CLUSTER, BLK_REQ_UNCHANGED | BLK_REQ_UNMAP), 0);
    ck_assert_uint_eq(own_status(t, CLUSTER) & zero, zero);
    expect_pattern(guest, 0, 512, 0x22);
    blk_co_detach(job);
    blk_co_job_top_remove(filter);
    blk_co_detach(guest);
}

typedef struct Told {
    uint64_t offset, bytes;
    unsigned times;
    BlkChild *guest;
    int ret;
    bool done;
} Told;

static void co_told(void *opaque, uint64_t offset, uint64_t bytes)
{
    Told *told = opaque;

    told->offset = offset;
    told->bytes = bytes;
    told->times++;
    blk_co_sleep_ns(1000000);
}

CO_TEST(the_job_is_told_of_changes_of_guests_only)
{
    make_file(t, "base.raw", SIZE, SIZE, 0x11);
    create(t, "top.qcow2", "base.raw", "raw");
    BlkChild *guest = open_quoted(t, BLK_PERM_ALL, TOP);
    BlkNode *filter = insert(blk_child_node(guest));
    BlkChild *job = attach(filter, BLK_PERM_WRITE_UNCHANGED, BLK_PERM_ALL);
    Told told = { 0 };

    blk_job_top_watch(filter, co_told, &told);
    ck_assert_int_eq(fill_pattern(job, 0, CLUSTER, 0x11), 0);
    expect_pattern(guest, 0, CLUSTER, 0x11);
    ck_assert_uint_eq(told.times, 0);
    write_pattern(guest, 4096, 8192, 0x22);
    ck_assert(told.times == 1 && told.offset == 4096 && told.bytes == 8192);
    ck_assert_int_eq(blk_co_pwrite_zeroes(filter, CLUSTER, CLUSTER, 0), 0);
    ck_assert(told.times == 2 && told.offset == CLUSTER && told.bytes == CLUSTER);
    ck_assert_int_eq(blk_co_discard(filter, 2 * CLUSTER, CLUSTER), 0);
    ck_assert(told.times == 3 && told.offset == 2 * CLUSTER && told.bytes == CLUSTER);
    blk_co_detach(job);
    blk_co_job_top_remove(filter);
    write_pattern(guest, 0, 512, 0x22);
    ck_assert_uint_eq(told.times, 3);
    blk_co_detach(guest);
}

static int write_co(void *opaque)
{
    Told *w = opaque;
    uint8_t buf[4096];

    memset(buf, 0x33, sizeof(buf));
    w->ret = blk_co_pwrite(blk_child_node(w->guest), w->offset, sizeof(buf), buf, 0);
    w->done = true;
    return 0;
}

static int fill_co(void *opaque)
{
    Told *w = opaque;

    w->ret = fill_pattern(w->guest, w->offset - w->offset % CLUSTER, CLUSTER, 0x11);
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

static void wait_for_breakpoint(BlkNode *node)
{
    for (unsigned i = 0; i < 10000 && !blk_breakpoint_is_suspended(node, "A"); i++) {
        blk_co_sleep_ns(1000000);
    }
    ck_assert(blk_breakpoint_is_suspended(node, "A"));
}

/* One of both is stopped in the middle; the other one waits for it, and the guest's data are there in the end. */
static void meet(Test *t, bool guest_first)
{
    make_file(t, "base.raw", SIZE, SIZE, 0x11);
    create(t, "top.qcow2", "base.raw", "raw");
    BlkChild *guest = open_quoted(t, BLK_PERM_ALL, TOP);
    BlkNode *filter = insert(blk_child_node(guest));
    BlkChild *job = attach(filter, BLK_PERM_WRITE_UNCHANGED, BLK_PERM_ALL);
    Told write = { .guest = guest, .offset = CLUSTER + 4096 }, fill = { .guest = job, .offset = CLUSTER };
    Told other = { .guest = guest, .offset = 4 * CLUSTER };
    Told *first = guest_first ? &write : &fill, *second = guest_first ? &fill : &write;

    ck_assert_int_eq(blk_breakpoint_set(filter, "write_aio", "A", NULL), 0);
    blk_co_spawn(t->ctx, guest_first ? write_co : fill_co, first);
    wait_for_breakpoint(filter);
    blk_co_spawn(t->ctx, guest_first ? fill_co : write_co, second);
    blk_co_spawn(t->ctx, write_co, &other);
    wait_for(&other.done);                      /* elsewhere nothing waits */
    blk_co_sleep_ns(20000000);
    ck_assert(!first->done && !second->done);
    ck_assert_int_eq(blk_breakpoint_resume(filter, "A"), 0);
    wait_for(&first->done);
    wait_for(&second->done);
    ck_assert(write.ret == 0 && fill.ret == 0 && other.ret == 0);
    expect_pattern(guest, CLUSTER, 4096, 0x11);
    expect_pattern(guest, CLUSTER + 4096, 4096, 0x33);
    expect_pattern(guest, CLUSTER + 8192, CLUSTER - 8192, 0x11);
    blk_co_detach(job);
    blk_co_job_top_remove(filter);
    blk_co_detach(guest);
}

CO_TEST(a_fill_waits_for_a_guest)
{
    meet(t, true);
}

CO_TEST(a_guest_waits_for_a_fill)
{
    meet(t, false);
}

CO_TEST(nobody_writes_beside_it)
{
    create(t, "top.qcow2", NULL, NULL);
    BlkChild *guest = open_quoted(t, BLK_PERM_ALL, TOP);
    BlkNode *top = blk_child_node(guest), *filter = insert(top);

    refuse_attach(top, BLK_PERM_WRITE, BLK_PERM_ALL);
    refuse_attach(top, BLK_PERM_RESIZE, BLK_PERM_ALL);
    blk_co_detach(attach(top, BLK_PERM_READ, BLK_PERM_ALL));
    blk_co_detach(attach(filter, BLK_PERM_WRITE, BLK_PERM_ALL));
    blk_co_job_top_remove(filter);
    blk_co_detach(attach(top, BLK_PERM_WRITE, BLK_PERM_ALL));
    blk_co_detach(guest);
}

CO_TEST(only_one_image_hides_what_is_below)
{
    g_autoptr(GError) error = NULL;

    create(t, "base.qcow2", NULL, NULL);
    create(t, "mid.qcow2", "base.qcow2", "qcow2");
    create(t, "top.qcow2", "mid.qcow2", "qcow2");
    BlkChild *held = open_quoted(t, 0, "{'driver': 'qcow2', 'node-name': 'base', " FILE_OF("base.qcow2") "}");
    BlkNode *base = blk_child_node(held);
    BlkChild *guest = open_quoted(t, BLK_PERM_READ, "{'driver': 'qcow2', 'node-name': 'top', " FILE_OF("top.qcow2")
        ", 'backing': {'driver': 'qcow2', 'node-name': 'mid', " FILE_OF("mid.qcow2") ", 'backing': 'base'}}");
    BlkNode *top = blk_child_node(guest), *mid = blk_node_backing(top);

    BlkChild *minding = attach(top, BLK_PERM_READ, BLK_PERM_READ);
    refuse_attach(base, BLK_PERM_WRITE, BLK_PERM_ALL);
    BlkNode *filter = blk_co_hide_insert(top, NULL, &error);
    ck_assert_msg(filter != NULL, "%s", error ? error->message : "no message");
    ck_assert(blk_node_backing(top) == mid && blk_node_backing(mid) == base);
    refuse_attach(top, BLK_PERM_WRITE, BLK_PERM_ALL);         /* whatever is above it must not change */
    BlkChild *job = attach(base, BLK_PERM_WRITE | BLK_PERM_RESIZE, BLK_PERM_READ);
    refuse_attach(mid, BLK_PERM_READ, BLK_PERM_READ);          /* would see changes */
    blk_co_detach(job);
    BlkChild *reader = attach(mid, BLK_PERM_READ, BLK_PERM_READ);
    refuse_attach(base, BLK_PERM_WRITE, BLK_PERM_ALL);        /* the other way round */
    blk_co_detach(reader);
    blk_co_hide_remove(filter);
    refuse_attach(base, BLK_PERM_WRITE, BLK_PERM_ALL);
    ck_assert(top->backing->node == mid);
    blk_co_detach(minding);
    blk_co_detach(guest);
    blk_co_detach(held);
}

BLK_TEST_MAIN("job_top", a_fill_writes_only_what_is_not_there, zeroes_that_fill_stay_when_the_backing_goes,
              the_job_is_told_of_changes_of_guests_only, a_fill_waits_for_a_guest, a_guest_waits_for_a_fill,
              nobody_writes_beside_it, only_one_image_hides_what_is_below)
