/* SPDX-License-Identifier: MIT */
/* test_null_raw.c - the null protocol and the raw format. */
#include "node_test.h"

#define RAW(more) "{\"driver\": \"raw\"" more ", \"file\": {\"driver\": \"file\", \"filename\": \"@/disk\"}}"

CO_TEST(null_has_a_length_and_no_content)
{
    BlkChild *user = open_rw(t, "{\"driver\": \"null-co\"}");

    ck_assert_uint_eq(blk_node_length(blk_child_node(user)), 1 << 30);
    write_pattern(user, 5000, 5000, 0x11);
    ck_assert_int_eq(blk_co_flush(blk_child_node(user)), 0);
    blk_co_detach(user);
    user = open_rw(t, "{\"driver\": \"null\", \"size\": \"100000\", \"read-zeroes\": true, \"latency-ns\": 1000}");
    ck_assert_uint_eq(blk_node_length(blk_child_node(user)), 100352);
    write_pattern(user, 0, 4096, 0x11);
    expect_pattern(user, 0, 4096, 0);
    blk_co_detach(user);
}

CO_TEST(null_name)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonObject) good = blk_options_parse_filename(t->ctx, "null-co://", "raw", NULL);

    ck_assert_ptr_nonnull(good);
    ck_assert_ptr_null(blk_options_parse_filename(t->ctx, "null-co:x", "raw", &error));
    ck_assert_ptr_nonnull(strstr(error->message, "null-co://"));
}

CO_TEST(raw_window)
{
    make_file(t, "disk", 1 << 20, 1 << 20, 0x11);
    BlkChild *user = open_rw(t, RAW(", \"offset\": 1000, \"size\": 8192"));
    BlkStatus status = { 0 };

    ck_assert_uint_eq(blk_node_length(blk_child_node(user)), 8192);
    write_pattern(user, 0, 8192, 0x22);
    ck_assert_int_eq(blk_co_pwrite_zeroes(blk_child_node(user), 100, 50, 0), 0);
    ck_assert_int_eq(blk_co_pwrite(blk_child_node(user), 8000, 193, "", 0), -EINVAL);
    ck_assert_int_eq(blk_co_block_status(blk_child_node(user), 512, 512, &status), 0);
    ck_assert_uint_eq(status.host_offset, 1512);
    ck_assert_ptr_eq(status.file, blk_node_child(blk_child_node(user), "file"));
    ck_assert_int_eq(blk_co_truncate(blk_child_node(user), 4096, BLK_PREALLOC_OFF, NULL), -ENOTSUP);
    blk_co_detach(user);

    user = open_for(t, BLK_PERM_READ, RAW(""));
    expect_pattern(user, 0, 1000, 0x11);
    expect_pattern(user, 1000, 100, 0x22);
    expect_pattern(user, 1100, 50, 0);
    expect_pattern(user, 1150, 8192 - 150, 0x22);
    expect_pattern(user, 1000 + 8192, 10000, 0x11);
    blk_co_detach(user);
}

CO_TEST(raw_bounds_are_checked)
{
    make_file(t, "disk", 1 << 20, 0, 0);
    refused(t, RAW(", \"offset\": \"2M\""), "beyond the end");
    refused(t, RAW(", \"offset\": 512, \"size\": \"1M\""), "beyond the end");
    refused(t, RAW(", \"offset\": \"18446744073709551615\", \"size\": \"512\""), "beyond the end");
    refused(t, RAW(", \"offset\": 512, \"size\": \"18446744073709551104\""), "beyond the end");
    refused(t, RAW(", \"size\": 1000"), "multiple of 512");
}

CO_TEST(raw_resizes_its_file)
{
    make_file(t, "disk", 1 << 20, 0, 0);
    BlkChild *user = open_rw(t, RAW(", \"offset\": 4096"));

    ck_assert_int_eq(blk_co_truncate(blk_child_node(user), 8192, BLK_PREALLOC_OFF, NULL), 0);
    ck_assert_uint_eq(blk_node_length(blk_child_node(user)), 8192);
    ck_assert_int_eq(blk_co_truncate(blk_child_node(user), BLK_MAX_LENGTH, BLK_PREALLOC_OFF, NULL), -EFBIG);
    blk_co_detach(user);
    ck_assert_int_eq(stat_file(t, "disk").st_size, 8192 + 4096);
}

CO_TEST(guessed_raw_never_becomes_another_format)
{
    static const uint8_t qcow2_header[512] = { 'Q', 'F', 'I', 0xfb, 0, 0, 0, 3 };
    uint8_t sector[2048] = { 0 };

    make_file(t, "disk", 1 << 20, 0, 0);
    BlkChild *user = open_rw(t, "{\"file\": {\"driver\": \"file\", \"filename\": \"@/disk\"}}");
    BlkNode *node = blk_child_node(user);

    ck_assert_str_eq(blk_node_driver_name(node), "raw");
    ck_assert_int_eq(blk_co_pwrite(node, 0, 512, qcow2_header, 0), -EPERM);
    ck_assert_int_eq(blk_co_pwrite(node, 0, 100, qcow2_header, 0), -EPERM);
    memcpy(sector, qcow2_header, 512);
    ck_assert_int_eq(blk_co_pwrite(node, 0, 2048, sector, 0), -EPERM);
    expect_pattern(user, 0, 2048, 0);
    ck_assert_int_eq(blk_co_pwrite(node, 512, 512, qcow2_header, 0), 0);
    write_pattern(user, 0, 512, 0x51);
    write_pattern(user, 10, 20, 0x52);
    blk_co_detach(user);

    user = open_rw(t, RAW(""));
    ck_assert_int_eq(blk_co_pwrite(blk_child_node(user), 0, 512, qcow2_header, 0), 0);      /* the user said raw */
    blk_co_detach(user);
}

BLK_TEST_MAIN("null_raw", null_has_a_length_and_no_content, null_name, raw_window, raw_bounds_are_checked,
              raw_resizes_its_file, guessed_raw_never_becomes_another_format)
