/* SPDX-License-Identifier: MIT */
/* test_file.c - the file driver: what it opens, requests, length, holes, creation. */
#include "node_test.h"

#include <sys/socket.h>

#define FILE_OF(name) "{\"driver\": \"file\", \"filename\": \"@/" name "\"}"

CO_TEST(opens_only_what_has_offsets)
{
    g_autofree char *fifo = g_build_filename(t->dir, "fifo", NULL);

    ck_assert_int_eq(mkfifo(fifo, 0600), 0);
    refused(t, FILE_OF("fifo"), "but it is a pipe");        /* and does not wait for a writer */
    refused(t, FILE_OF(""), "but it is a directory");
    refused(t, FILE_OF("nowhere"), "Could not open");
    refused(t, "{\"driver\": \"file\", \"filename\": \"\"}", "requires a file name");
    refused(t, "{\"driver\": \"file\"}", "filename");
}

CO_TEST(writes_read_back)
{
    make_file(t, "disk", 100 << 10, 0, 0);
    BlkChild *user = open_rw(t, FILE_OF("disk"));

    write_pattern(user, 1000, 3000, 0x11);
    write_pattern(user, 99 << 10, 1 << 10, 0x22);
    expect_pattern(user, 0, 1000, 0);
    expect_pattern(user, 1000, 3000, 0x11);
    expect_pattern(user, 99 << 10, 1 << 10, 0x22);
    ck_assert_int_eq(blk_co_flush(blk_child_node(user)), 0);
    blk_co_detach(user);
}

CO_TEST(length_counts_in_sectors)
{
    make_file(t, "disk", 1000, 1000, 0x33);
    BlkChild *user = open_rw(t, FILE_OF("disk"));

    ck_assert_uint_eq(blk_node_length(blk_child_node(user)), 1024);
    expect_pattern(user, 0, 1000, 0x33);
    expect_pattern(user, 1000, 24, 0);
    blk_co_detach(user);
}

CO_TEST(file_grows_with_writes)
{
    make_file(t, "disk", 0, 0, 0);
    BlkChild *user = open_rw(t, FILE_OF("disk"));

    write_pattern(user, 0, 4096, 0x44);
    ck_assert_uint_eq(blk_node_length(blk_child_node(user)), 4096);
    write_pattern(user, 65536, 100, 0x55);
    ck_assert_uint_eq(blk_node_length(blk_child_node(user)), 65536 + 512);
    expect_pattern(user, 4096, 65536 - 4096, 0);
    ck_assert_int_eq(blk_co_pwrite_zeroes(blk_child_node(user), 1 << 20, 4096, 0), 0);
    ck_assert_uint_eq(blk_node_length(blk_child_node(user)), (1 << 20) + 4096);
    blk_co_detach(user);
    ck_assert_int_eq(stat_file(t, "disk").st_size, (1 << 20) + 4096);
}

CO_TEST(zeroes_with_unmap_punch_a_hole)
{
    make_file(t, "disk", 1 << 20, 1 << 20, 0x66);
    BlkChild *user = open_rw(t, "{\"driver\": \"file\", \"filename\": \"@/disk\", \"discard\": \"unmap\"}");
    blkcnt_t before = stat_file(t, "disk").st_blocks;

    ck_assert_int_eq(blk_co_pwrite_zeroes(blk_child_node(user), 64 << 10, 512 << 10, BLK_REQ_UNMAP), 0);
    expect_pattern(user, 64 << 10, 512 << 10, 0);
    expect_pattern(user, 576 << 10, 4096, 0x66);
    ck_assert_int_lt(stat_file(t, "disk").st_blocks, before - 900);
    ck_assert_int_eq(blk_co_discard(blk_child_node(user), 576 << 10, 448 << 10), 0);
    ck_assert_int_lt(stat_file(t, "disk").st_blocks, 300);
    blk_co_detach(user);
}

CO_TEST(discard_is_ignored_unless_asked_for)
{
    make_file(t, "disk", 1 << 20, 1 << 20, 0x66);
    BlkChild *user = open_rw(t, FILE_OF("disk"));

    ck_assert_int_eq(blk_co_discard(blk_child_node(user), 0, 1 << 20), 0);
    expect_pattern(user, 0, 1 << 20, 0x66);
    blk_co_detach(user);
}

CO_TEST(status_knows_holes)
{
    make_file(t, "disk", 1 << 20, 64 << 10, 0x77);
    BlkChild *user = open_for(t, BLK_PERM_READ, FILE_OF("disk"));
    BlkNode *node = blk_child_node(user);
    BlkStatus status = { 0 };

    ck_assert_int_eq(blk_co_block_status(node, 4096, 1 << 19, &status), 0);
    ck_assert_uint_eq(status.bytes, (64 << 10) - 4096);
    ck_assert_uint_eq(status.flags & (BLK_STATUS_DATA | BLK_STATUS_ZERO | BLK_STATUS_OFFSET),
                      BLK_STATUS_DATA | BLK_STATUS_OFFSET);
    ck_assert_ptr_eq(status.file, node);
    ck_assert_uint_eq(status.host_offset, 4096);
    ck_assert_int_eq(blk_co_block_status(node, 64 << 10, 1 << 19, &status), 0);
    ck_assert_uint_eq(status.bytes, 1 << 19);
    ck_assert_uint_eq(status.flags & (BLK_STATUS_DATA | BLK_STATUS_ZERO), BLK_STATUS_ZERO);
    blk_co_detach(user);
}

CO_TEST(truncate_and_preallocate)
{
    g_autoptr(GError) error = NULL;

    make_file(t, "disk", 1 << 20, 0, 0);
    BlkChild *user = open_rw(t, FILE_OF("disk"));
    BlkNode *node = blk_child_node(user);

    ck_assert_int_eq(blk_co_truncate(node, 2 << 20, BLK_PREALLOC_OFF, NULL), 0);
    ck_assert_int_lt(stat_file(t, "disk").st_blocks, 100);
    ck_assert_int_eq(blk_co_truncate(node, 3 << 20, BLK_PREALLOC_FALLOC, NULL), 0);
    ck_assert_int_ge(stat_file(t, "disk").st_blocks, 2048);
    ck_assert_int_eq(blk_co_truncate(node, 4 << 20, BLK_PREALLOC_FULL, NULL), 0);
    ck_assert_int_ge(stat_file(t, "disk").st_blocks, 4096);
    ck_assert_int_eq(blk_co_truncate(node, 5 << 20, BLK_PREALLOC_METADATA, &error), -ENOTSUP);
    ck_assert_ptr_nonnull(strstr(error->message, "metadata"));
    ck_assert_int_eq(blk_co_truncate(node, 4096, BLK_PREALLOC_FULL, NULL), -ENOTSUP);
    ck_assert_uint_eq(blk_node_length(node), 4 << 20);
    ck_assert_int_eq(blk_co_truncate(node, 4096, BLK_PREALLOC_OFF, NULL), 0);
    ck_assert_uint_eq(blk_node_length(node), 4096);
    ck_assert_int_eq(stat_file(t, "disk").st_size, 4096);
    blk_co_detach(user);
}

CO_TEST(two_writers_are_refused)
{
    g_autoptr(GError) error = NULL;

    make_file(t, "disk", 1 << 20, 0, 0);
    BlkNode *first = try_open(t, FILE_OF("disk"), NULL), *second = try_open(t, FILE_OF("disk"), NULL);
    BlkChild *user = blk_co_attach(first, "one", BLK_PERM_WRITE, BLK_PERM_READ, NULL);

    ck_assert_ptr_nonnull(user);
    ck_assert_ptr_null(blk_co_attach(second, "two", BLK_PERM_WRITE, BLK_PERM_READ, &error));
    ck_assert_ptr_nonnull(strstr(error->message, "Failed to get \"write\" lock"));
    blk_co_detach(user);
    user = blk_co_attach(second, "two", BLK_PERM_WRITE, BLK_PERM_READ, NULL);
    ck_assert_ptr_nonnull(user);
    blk_co_detach(user);
    blk_co_unref(first);
    blk_co_unref(second);
}

CO_TEST(direct_reads_and_writes_at_any_offset)
{
    g_autoptr(GError) error = NULL;
    const char *direct = "{\"driver\": \"file\", \"filename\": \"@/disk\", \"cache\": {\"direct\": true}}";

    make_file(t, "disk", 1 << 20, 1 << 20, 0x12);
    BlkNode *node = try_open(t, direct, &error);
    if (!node) {
        ck_assert_ptr_nonnull(strstr(error->message, "cache.direct=off"));      /* the file system cannot */
        return;
    }
    ck_assert_uint_ge(blk_node_limits(node)->read_align, 512);
    blk_co_unref(node);
    BlkChild *user = open_rw(t, direct);
    write_pattern(user, 12345, 6789, 0x34);
    expect_pattern(user, 0, 12345, 0x12);
    expect_pattern(user, 12345, 6789, 0x34);
    expect_pattern(user, 12345 + 6789, 54321, 0x12);
    blk_co_detach(user);
    ck_assert_int_eq(stat_file(t, "disk").st_size, 1 << 20);
}

CO_TEST(info_tells_the_allocated_bytes)
{
    BlkInfo info = { 0 };

    make_file(t, "disk", 1 << 20, 64 << 10, 0x77);
    BlkChild *user = open_for(t, BLK_PERM_READ, FILE_OF("disk"));
    ck_assert_int_eq(blk_co_info(blk_child_node(user), &info, NULL), 0);
    ck_assert(info.has_allocated);
    ck_assert_uint_ge(info.allocated_bytes, 64 << 10);
    ck_assert_uint_lt(info.allocated_bytes, 128 << 10);
    blk_info_clear(&info);
    blk_co_detach(user);
}

CO_TEST(create_raw_images)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *path = g_build_filename(t->dir, "disk", NULL);
    g_autoptr(JsonObject) options =
        blk_json_parse_object("{\"size\": \"1M\", \"preallocation\": \"full\"}", -1, "test", NULL);

    make_file(t, "disk", 5 << 20, 5 << 20, 0x77);
    ck_assert_int_eq(blk_co_create(t->ctx, path, "raw", options, &error), 0);
    ck_assert_int_eq(stat_file(t, "disk").st_size, 1 << 20);
    ck_assert_int_ge(stat_file(t, "disk").st_blocks, 2048);
    BlkChild *user = open_rw(t, FILE_OF("disk"));
    expect_pattern(user, 0, 1 << 20, 0);
    write_pattern(user, 0, 512, 0x99);
    ck_assert_int_lt(blk_co_create(t->ctx, path, "raw", options, &error), 0);    /* it is in use */
    ck_assert_ptr_nonnull(strstr(error->message, "Is another process using the image"));
    expect_pattern(user, 0, 512, 0x99);
    blk_co_detach(user);
}

BLK_TEST_MAIN("file", opens_only_what_has_offsets, writes_read_back, length_counts_in_sectors, file_grows_with_writes,
              zeroes_with_unmap_punch_a_hole, discard_is_ignored_unless_asked_for, status_knows_holes,
              truncate_and_preallocate, two_writers_are_refused, direct_reads_and_writes_at_any_offset,
              info_tells_the_allocated_bytes, create_raw_images)
