/* SPDX-License-Identifier: MIT */
/*
 * test_qcow2_bitmaps.c - persistent bitmaps of an image that is compacted while it is open: compaction moves their tables
 * and bits, and lets go what the node knew of them. What follows on the same node is stored and found again.
 */
#include "node_test.h"

#define MEBI (UINT64_C(1) << 20)
#define IMAGE "{\"driver\": \"qcow2\", \"node-name\": \"image\", \"file\": {\"driver\": \"file\", \"filename\": \"@/image\"}}"

static BlkChild *make_image(Test *t)
{
    g_autofree char *path = test_text(t, "@/image");
    g_autoptr(JsonObject) options = json_object_new();

    json_object_set_int_member(options, "size", 8 * MEBI);
    json_object_set_int_member(options, "cluster_size", 4096);
    ck_assert_int_eq(blk_co_create(t->ctx, path, "qcow2", options, NULL), 0);
    return open_rw(t, IMAGE);
}

static BlkChild *reopen(Test *t, BlkChild *user)
{
    blk_co_detach(user);
    return open_rw(t, IMAGE);
}

static void add(BlkNode *node, const char *name)
{
    g_autoptr(GError) error = NULL;

    ck_assert_msg(blk_bitmap_add(node, name, 512, true, &error) != NULL, "%s", error ? error->message : "");
}

static BlkDirtyBitmap *find(BlkNode *node, const char *name)
{
    g_autoptr(GError) error = NULL;
    BlkDirtyBitmap *bitmap = blk_bitmap_find_usable(node, name, &error);

    ck_assert_msg(bitmap != NULL, "%s", error ? error->message : "");
    ck_assert_msg(blk_co_bitmap_load(bitmap, &error) == 0, "%s", error ? error->message : "");
    return bitmap;
}

/* Exactly @bytes from @offset on are dirty in the bitmap @name. */
static void expect_dirty(BlkNode *node, const char *name, uint64_t offset, uint64_t bytes)
{
    BlkDirtyBitmap *bitmap = find(node, name);
    uint64_t start = 0, length = 0;

    ck_assert_uint_eq(blk_bitmap_dirty_bytes(bitmap), bytes);
    ck_assert(blk_bitmap_next(bitmap, 0, &start, &length));
    ck_assert_uint_eq(start, offset);
    ck_assert_uint_eq(length, bytes);
}

static void store(BlkNode *node)
{
    g_autoptr(GError) error = NULL;

    ck_assert_msg(blk_co_bitmaps_store(node, &error) == 0, "%s", error ? error->message : "");
}

/* Packed, the bitmaps lie elsewhere than before: the image had holes. */
static void compact(BlkNode *node)
{
    static const BlkCompactOptions options = { 0 };
    g_autoptr(GError) error = NULL;

    ck_assert_msg(blk_co_compact(node, &options, &error) == 0, "%s", error ? error->message : "");
}

/* Neither errors nor leaks. */
static void check_clean(BlkNode *node)
{
    BlkCheckOptions options = { 0 };
    BlkCheckResult result = { 0 };

    ck_assert_int_eq(blk_co_check(node, &options, &result, NULL), 0);
    ck_assert_uint_eq(result.corruptions + result.check_errors, 0);
    ck_assert_uint_eq(result.leaks, 0);
}

/* An image with holes and three stored bitmaps; "changed", "kept" and "removed" are dirty in the second MiB. */
static BlkChild *image_with_bitmaps(Test *t)
{
    static const char *const names[] = { "changed", "kept", "removed" };
    BlkChild *user = make_image(t);
    BlkNode *node = blk_child_node(user);

    write_pattern(user, 4 * MEBI, 2 * MEBI, 1);
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        add(node, names[i]);
    }
    write_pattern(user, MEBI, MEBI, 2);
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        blk_bitmap_enable(find(node, names[i]), false);
    }
    store(node);
    ck_assert_int_eq(blk_co_discard(node, 4 * MEBI, MEBI), 0);
    return user;
}

static void change_remove_add(Test *t, bool opened_again)
{
    BlkChild *user = image_with_bitmaps(t);
    BlkNode *node;

    if (opened_again) {     /* nobody has loaded the bits */
        user = reopen(t, user);
    }
    node = blk_child_node(user);
    compact(node);
    blk_bitmap_enable(find(node, "changed"), true);
    write_pattern(user, 2 * MEBI, 65536, 3);
    blk_bitmap_remove(blk_bitmap_find(node, "removed"));
    add(node, "added");
    write_pattern(user, 2 * MEBI + 65536, 512, 4);
    blk_bitmap_enable(find(node, "added"), false);
    blk_bitmap_enable(find(node, "changed"), false);
    store(node);
    check_clean(node);

    user = reopen(t, user);
    node = blk_child_node(user);
    expect_dirty(node, "changed", MEBI, MEBI + 65536 + 512);
    expect_dirty(node, "kept", MEBI, MEBI);
    expect_dirty(node, "added", 2 * MEBI + 65536, 512);
    ck_assert_ptr_null(blk_bitmap_find(node, "removed"));
    expect_pattern(user, MEBI, MEBI, 2);
    expect_pattern(user, 2 * MEBI, 65536, 3);
    expect_pattern(user, 5 * MEBI, MEBI, 1);
    check_clean(node);
    blk_co_detach(user);
}

CO_TEST(bitmaps_change_after_compaction)
{
    change_remove_add(t, false);
}

CO_TEST(bitmaps_change_after_compaction_of_an_image_just_opened)
{
    change_remove_add(t, true);
}

/* Each change alone, and stored by closing; then compacted again. */
CO_TEST(one_bitmap_after_another_between_compactions)
{
    BlkChild *user = image_with_bitmaps(t);
    BlkNode *node = blk_child_node(user);

    compact(node);
    blk_bitmap_remove(blk_bitmap_find(node, "removed"));
    user = reopen(t, user);
    node = blk_child_node(user);
    compact(node);
    blk_bitmap_clear(find(node, "changed"), 0, MEBI + 4096);
    compact(node);
    blk_bitmap_remove(blk_bitmap_find(node, "kept"));
    store(node);
    compact(node);
    check_clean(node);
    user = reopen(t, user);
    node = blk_child_node(user);
    expect_dirty(node, "changed", MEBI + 4096, MEBI - 4096);
    ck_assert_ptr_null(blk_bitmap_nth(node, 1));
    check_clean(node);
    blk_co_detach(user);
}

/* Compaction makes the bitmaps anew. */
CO_TEST(a_claimed_bitmap_stands_against_compaction)
{
    BlkChild *user = image_with_bitmaps(t);
    static const BlkCompactOptions options = { 0 };
    BlkDirtyBitmap *kept = find(blk_child_node(user), "kept");
    g_autoptr(GError) error = NULL;

    ck_assert_int_eq(blk_bitmap_claim(kept, BLK_BITMAP_READ, NULL), 0);
    ck_assert_int_eq(blk_co_compact(blk_child_node(user), &options, &error), -EBUSY);
    ck_assert_ptr_eq(blk_bitmap_find(blk_child_node(user), "kept"), kept);
    blk_bitmap_release(kept);
    compact(blk_child_node(user));
    blk_co_detach(user);
}

/* What another program finds in the image now, as after a crash: a copy of it. */
static BlkChild *open_a_copy(Test *t)
{
    g_autofree char *from = test_text(t, "@/image"), *to = test_text(t, "@/copy"), *bytes = NULL;
    gsize length;

    ck_assert(g_file_get_contents(from, &bytes, &length, NULL));
    ck_assert(g_file_set_contents(to, bytes, (gssize)length, NULL));
    return open_rw(t, "{\"driver\": \"qcow2\", \"file\": {\"driver\": \"file\", \"filename\": \"@/copy\"}}");
}

/* Bitmaps that are disabled are not in use by writes; one that is touched is, until it is stored. */
CO_TEST(a_touched_bitmap_is_not_trusted_after_a_crash)
{
    BlkChild *user = image_with_bitmaps(t), *copy;
    BlkNode *node = blk_child_node(user);

    ck_assert_int_eq(blk_co_bitmap_touch(find(node, "changed"), NULL), 0);
    blk_bitmap_set(find(node, "changed"), 0, 512);
    ck_assert_int_eq(blk_co_bitmap_touch(find(node, "removed"), NULL), 0);
    blk_bitmap_remove(blk_bitmap_find(node, "removed"));
    copy = open_a_copy(t);
    ck_assert(blk_bitmap_inconsistent(blk_bitmap_find(blk_child_node(copy), "changed")));
    ck_assert(blk_bitmap_inconsistent(blk_bitmap_find(blk_child_node(copy), "removed")));
    expect_dirty(blk_child_node(copy), "kept", MEBI, MEBI);
    blk_co_detach(copy);

    store(node);
    write_pattern(user, 2 * MEBI, 65536, 3);
    copy = open_a_copy(t);
    ck_assert_uint_eq(blk_bitmap_dirty_bytes(find(blk_child_node(copy), "changed")), MEBI + 512);
    ck_assert_ptr_null(blk_bitmap_find(blk_child_node(copy), "removed"));
    blk_co_detach(copy);
    blk_co_detach(user);
}

/* Split, a bitmap still says all that is dirty, also to who finds it in the image. */
CO_TEST(a_split_bitmap_is_stored_whole)
{
    BlkChild *user = image_with_bitmaps(t), *copy;
    BlkNode *node = blk_child_node(user);
    BlkDirtyBitmap *bitmap = find(node, "changed"), *part;

    blk_bitmap_enable(bitmap, true);
    ck_assert_int_eq(blk_bitmap_claim(bitmap, BLK_BITMAP_CHANGE, NULL), 0);
    part = blk_bitmap_split(bitmap);
    blk_bitmap_clear(part, 0, UINT64_MAX);
    write_pattern(user, 2 * MEBI, 4096, 3);
    store(node);
    copy = open_a_copy(t);
    expect_dirty(blk_child_node(copy), "changed", MEBI, MEBI + 4096);
    blk_co_detach(copy);
    blk_bitmap_join(bitmap, part);
    blk_bitmap_release(bitmap);
    user = reopen(t, user);
    expect_dirty(blk_child_node(user), "changed", 2 * MEBI, 4096);
    blk_co_detach(user);
}

BLK_TEST_MAIN("qcow2_bitmaps", bitmaps_change_after_compaction,
              bitmaps_change_after_compaction_of_an_image_just_opened, one_bitmap_after_another_between_compactions,
              a_claimed_bitmap_stands_against_compaction, a_touched_bitmap_is_not_trusted_after_a_crash,
              a_split_bitmap_is_stored_whole)
