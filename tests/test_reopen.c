/* SPDX-License-Identifier: MIT */
/*
 * test_reopen.c - images that become writable or read-only while they are open: what they hold is stable then, permissions and
 * locks of the file follow, and what is refused leaves all as it was.
 */
#include "node_test.h"

#include "drivers/file.h"

#define MEBI (UINT64_C(1) << 20)
#define READER "{\"driver\": \"qcow2\", \"node-name\": \"image\", \"read-only\": true, \"file\": " \
               "{\"driver\": \"file\", \"node-name\": \"low\", \"filename\": \"@/image\"}}"
#define READ BLK_PERM_READ

static void make_image(Test *t)
{
    g_autofree char *path = test_text(t, "@/image");
    g_autoptr(JsonObject) options = json_object_new();

    json_object_set_int_member(options, "size", 8 * MEBI);
    ck_assert_int_eq(blk_co_create(t->ctx, path, "qcow2", options, NULL), 0);
}

static void reopen(BlkNode *node, bool writable)
{
    g_autoptr(GError) error = NULL;

    ck_assert_msg(blk_co_reopen_writable(node, writable, &error) == 0, "%s", error ? error->message : "");
    ck_assert(!error && blk_node_read_only(node) == !writable);
}

static void refuse_reopen(BlkNode *node, bool writable, int ret, const char *part)
{
    g_autoptr(GError) error = NULL;

    ck_assert_int_eq(blk_co_reopen_writable(node, writable, &error), ret);
    ck_assert_msg(error && strstr(error->message, part), "%s", error ? error->message : "no message");
    ck_assert(blk_node_read_only(node) == writable);
}

static BlkChild *writer_of(BlkNode *node)
{
    return blk_co_attach(node, "writer", BLK_PERM_ALL, BLK_PERM_ALL, NULL);
}

/* How many descriptors of the process lead to a file in the scratch directory. */
static unsigned open_files(Test *t)
{
    GDir *dir = g_dir_open("/proc/self/fd", 0, NULL);
    const char *name;
    unsigned n = 0;

    while ((name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename("/proc/self/fd", name, NULL);
        g_autofree char *target = g_file_read_link(path, NULL);

        n += target && g_str_has_prefix(target, t->dir);
    }
    g_dir_close(dir);
    return n;
}

CO_TEST(back_and_forth)
{
    make_image(t);
    BlkChild *reader = open_for(t, READ, READER);
    BlkNode *node = blk_child_node(reader);

    for (uint8_t i = 1; i <= 3; i++) {
        ck_assert_ptr_null(writer_of(node));
        reopen(node, true);
        reopen(node, true);     /* it is so already */
        ck_assert(!blk_node_read_only(blk_node_find(t->ctx, "low")));
        BlkChild *writer = writer_of(node);
        ck_assert_ptr_nonnull(writer);
        write_pattern(writer, i * MEBI, 70000, i);
        blk_co_detach(writer);
        reopen(node, false);
        ck_assert(blk_node_read_only(blk_node_find(t->ctx, "low")));
        ck_assert_uint_eq(open_files(t), 1);
        expect_pattern(reader, i * MEBI, 70000, i);

        /* All of it is in the file: somebody else reads it beside us. */
        BlkChild *other = open_for(t, READ, "{\"driver\": \"qcow2\", \"read-only\": true, \"force-share\": true, \"file\": "
                                   "{\"driver\": \"file\", \"filename\": \"@/image\"}}");
        BlkCheckResult result = { 0 };
        const BlkCheckOptions options = { 0 };
        expect_pattern(other, i * MEBI, 70000, i);
        ck_assert_int_eq(blk_co_check(blk_child_node(other), &options, &result, NULL), 0);
        ck_assert_uint_eq(result.corruptions + result.leaks + result.check_errors, 0);
        blk_co_detach(other);
    }
    blk_co_detach(reader);
}

CO_TEST(writers_are_in_the_way)
{
    make_image(t);
    BlkChild *reader = open_for(t, READ, READER);
    BlkNode *node = blk_child_node(reader);

    reopen(node, true);
    BlkChild *writer = writer_of(node);
    write_pattern(writer, 0, 65536, 1);
    refuse_reopen(node, false, -EACCES, "read-only: 'write' may not be given to 'writer'");
    write_pattern(writer, 65536, 65536, 2);         /* it is as it was, in the image and in the file */
    ck_assert_int_eq(blk_co_flush(node), 0);
    expect_pattern(reader, 0, 65536, 1);
    expect_pattern(reader, 65536, 65536, 2);
    ck_assert_uint_eq(open_files(t), 1);
    blk_co_detach(writer);
    reopen(node, false);
    blk_co_detach(reader);
}

/* Another descriptor has the locks of another process. */
CO_TEST(another_process)
{
    g_autofree char *path = test_text(t, "@/image");
    BlkFileLock lock;

    make_image(t);
    BlkChild *reader = open_for(t, READ, READER);
    BlkNode *node = blk_child_node(reader);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    ck_assert_int_eq(blk_file_lock_init(&lock, fd, BLK_FILE_LOCKING_ON, NULL), 0);
    ck_assert_int_eq(blk_file_lock_set(&lock, READ, READ, path, NULL), 0);      /* it lets nobody write */
    refuse_reopen(node, true, -EAGAIN, "Is another process using the image");
    ck_assert(blk_node_read_only(blk_node_find(t->ctx, "low")));
    ck_assert_uint_eq(open_files(t), 2);
    ck_assert_int_eq(blk_file_lock_set(&lock, 0, BLK_PERM_ALL, path, NULL), 0);
    expect_pattern(reader, 0, 65536, 0);

    /* The new descriptor has the locks: nobody else may write, whatever the old one had. */
    reopen(node, true);
    ck_assert_int_eq(blk_file_lock_set(&lock, BLK_PERM_WRITE, BLK_PERM_ALL, path, NULL), -EAGAIN);
    BlkChild *writer = writer_of(node);
    write_pattern(writer, 0, 65536, 3);
    blk_co_detach(writer);
    reopen(node, false);
    ck_assert_int_eq(blk_file_lock_set(&lock, READ, READ, path, NULL), 0);      /* we do not write any more */
    close(fd);
    blk_co_detach(reader);
}

CO_TEST(nodes_that_stay_as_they_are)
{
    make_image(t);
    BlkChild *low = open_for(t, READ, "{\"driver\": \"file\", \"node-name\": \"low\", \"read-only\": true, "
                             "\"filename\": \"@/image\"}");
    BlkChild *user = open_for(t, READ, "{\"driver\": \"qcow2\", \"node-name\": \"i\", \"read-only\": true, \"file\": \"low\"}");

    refuse_reopen(blk_child_node(user), true, -EACCES, "'low'");    /* it was not opened for the image */
    blk_co_detach(user);
    blk_co_detach(low);
    user = open_for(t, READ, "{\"driver\": \"qcow2\", \"read-only\": true, \"file\": {\"driver\": \"file\", "
                    "\"node-name\": \"low\", \"read-only\": true, \"filename\": \"@/image\"}}");
    refuse_reopen(blk_child_node(user), true, -EACCES, "'low'");    /* the user said so */
    blk_co_detach(user);
    user = open_for(t, READ, "{\"driver\": \"qcow2\", \"read-only\": true, \"force-share\": true, \"file\": "
                    "{\"driver\": \"file\", \"filename\": \"@/image\"}}");
    refuse_reopen(blk_child_node(user), true, -EINVAL, "force-share");
    blk_co_detach(user);
}

/* A backing file, which was opened read-only by the image above it, with a filter that buffers, and a bitmap. */
CO_TEST(filter_and_bitmap)
{
    make_image(t);
    BlkChild *reader = open_for(t, READ, "{\"driver\": \"compress\", \"read-only\": true, \"file\": {\"driver\": \"qcow2\", "
                                "\"node-name\": \"image\", \"file\": {\"driver\": \"file\", \"filename\": \"@/image\"}}}");
    BlkNode *top = blk_child_node(reader), *image = blk_node_find(t->ctx, "image");

    reopen(top, true);
    BlkDirtyBitmap *bitmap = blk_bitmap_add(image, "b", 65536, true, NULL);
    ck_assert_ptr_nonnull(bitmap);
    BlkChild *writer = writer_of(top);
    write_pattern(writer, 0, 65536, 1);
    blk_co_detach(writer);
    reopen(top, false);
    expect_pattern(reader, 0, 65536, 1);
    ck_assert_int_eq(blk_bitmap_check(blk_bitmap_find(image, "b"), BLK_BITMAP_CHANGE, NULL), -EROFS);

    reopen(top, true);
    bitmap = blk_bitmap_find(image, "b");
    ck_assert(bitmap && blk_bitmap_persistent(bitmap) && !blk_bitmap_inconsistent(bitmap));
    ck_assert_int_eq(blk_co_bitmap_load(bitmap, NULL), 0);
    ck_assert_uint_eq(blk_bitmap_dirty_bytes(bitmap), 65536);
    writer = writer_of(top);
    write_pattern(writer, MEBI, 65536, 2);
    ck_assert_uint_eq(blk_bitmap_dirty_bytes(bitmap), 65536);   /* the buffer has it */
    blk_co_detach(writer);
    blk_co_detach(reader);

    reader = open_for(t, READ, READER);
    image = blk_child_node(reader);
    bitmap = blk_bitmap_find(image, "b");
    ck_assert(bitmap && !blk_bitmap_inconsistent(bitmap));
    ck_assert_int_eq(blk_co_bitmap_load(bitmap, NULL), 0);
    ck_assert_uint_eq(blk_bitmap_dirty_bytes(bitmap), 2 * 65536);
    expect_pattern(reader, MEBI, 65536, 2);
    blk_co_detach(reader);
}

BLK_TEST_MAIN("reopen", back_and_forth, writers_are_in_the_way, another_process, nodes_that_stay_as_they_are,
              filter_and_bitmap)
