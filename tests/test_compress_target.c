/* SPDX-License-Identifier: MIT */
/* test_compress_target.c - the compress filter that is above a target for the time of a job. */
#include "node_test.h"

#include "jobs/compress_target.h"

enum { CLUSTER = 65536, SIZE = 16 * CLUSTER };

static BlkChild *open_target(Test *t, const char *fault_options)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonObject) options = json_object_new();
    g_autofree char *path = g_build_filename(t->dir, "target.qcow2", NULL);
    g_autofree char *json = g_strdup_printf("{\"driver\": \"qcow2\", \"node-name\": \"target\", \"file\": {\"driver\": \"fault\", "
        "%s \"image\": {\"driver\": \"file\", \"filename\": \"@/target.qcow2\"}}}", fault_options);

    json_object_set_int_member(options, "size", SIZE);
    ck_assert_int_eq(blk_co_create(t->ctx, path, "qcow2", options, &error), 0);
    return open_rw(t, json);
}

static BlkNode *insert(BlkNode *target)
{
    g_autoptr(GError) error = NULL;
    BlkNode *filter = blk_co_compress_target(target, &error);

    ck_assert_msg(filter != NULL, "%s", error ? error->message : "no message");
    return filter;
}

static bool is_compressed(Test *t, uint64_t offset)
{
    BlkStatus status;

    ck_assert_int_eq(blk_co_block_status(blk_node_find(t->ctx, "target"), offset, 1, &status), 0);
    return status.flags & BLK_STATUS_COMPRESSED;
}

CO_TEST(what_is_written_meanwhile_is_compressed_also_by_the_second_job)
{
    BlkChild *user = open_target(t, "");

    write_pattern(user, 4 * CLUSTER, CLUSTER, 0x44);
    for (uint8_t pattern = 1; pattern < 3; pattern++) {
        BlkNode *filter = insert(blk_child_node(user));

        ck_assert_ptr_eq(blk_child_node(user), filter);
        write_pattern(user, 0, 2 * CLUSTER, pattern);
        write_pattern(user, 2 * CLUSTER, 4096, pattern);        /* stays in the buffer until the end */
        blk_co_compress_target_end(filter);
        ck_assert_str_eq(blk_node_name(blk_child_node(user)), "target");
        ck_assert(is_compressed(t, 0) && is_compressed(t, CLUSTER) && is_compressed(t, 2 * CLUSTER));
        expect_pattern(user, 0, 2 * CLUSTER + 4096, pattern);
    }
    ck_assert(!is_compressed(t, 4 * CLUSTER));
    write_pattern(user, 5 * CLUSTER, CLUSTER, 0x55);
    ck_assert(!is_compressed(t, 5 * CLUSTER));
    blk_co_detach(user);
}

CO_TEST(a_target_that_cannot_is_refused_and_stays_as_it_is)
{
    g_autoptr(GError) error = NULL;

    make_file(t, "disk.raw", SIZE, 0, 0);
    BlkChild *user = open_rw(t, "{\"driver\": \"raw\", \"node-name\": \"disk\", \"file\": {\"driver\": \"file\", "
                                "\"filename\": \"@/disk.raw\"}}");
    BlkNode *node = blk_child_node(user);

    ck_assert_ptr_null(blk_co_compress_target(node, &error));
    ck_assert_msg(strstr(error->message, "compress: the node 'disk' (driver 'raw'") != NULL, "%s", error->message);
    ck_assert_ptr_eq(blk_child_node(user), node);
    write_pattern(user, 0, 4096, 1);
    blk_co_detach(user);
}

static void count_message(BlkNode *node, const char *text, void *opaque)
{
    *(unsigned *)opaque += strstr(text, "of a job that has ended stays") != NULL;
}

CO_TEST(data_that_cannot_be_written_keep_the_filter)
{
    BlkChild *user = open_target(t, "\"inject-error\": [{\"event\": \"write_compressed\", \"iotype\": \"write\", "
                                    "\"errno\": 28, \"once\": true}],");
    BlkNode *filter = insert(blk_child_node(user));
    unsigned messages = 0;

    blk_context_set_message_handler(t->ctx, count_message, &messages);
    write_pattern(user, 0, 4096, 0x11);
    blk_co_compress_target_end(filter);
    ck_assert_uint_eq(messages, 1);
    ck_assert_ptr_eq(blk_child_node(user), filter);
    expect_pattern(user, 0, 4096, 0x11);
    ck_assert_int_eq(blk_co_flush(blk_child_node(user)), -ENOSPC);      /* tells of what has failed, and writes it */
    ck_assert_int_eq(blk_co_remove_filter(filter, NULL), 0);
    ck_assert_str_eq(blk_node_name(blk_child_node(user)), "target");
    expect_pattern(user, 0, 4096, 0x11);
    blk_co_detach(user);
}

BLK_TEST_MAIN("compress_target", what_is_written_meanwhile_is_compressed_also_by_the_second_job,
              a_target_that_cannot_is_refused_and_stays_as_it_is, data_that_cannot_be_written_keep_the_filter)
