/* SPDX-License-Identifier: MIT */
/*
 * test_dirty_bitmap.c - bits against a model of one byte for each granule; bitmaps of nodes; what requests mark.
 *
 * BLK_TEST_SEED repeats one run.
 */
#include "core/bitmap.h"
#include "stack.h"

#define MODEL_MAX (UINT64_C(200) << 10)     /* granules: several chunks */

/* ---- the bits ---- */

typedef struct Model {
    GRand *rand;
    BlkDirtyBits *bits;
    uint64_t length, granularity, count;
    uint8_t *dirty;
} Model;

static uint64_t below(Model *m, uint64_t limit)
{
    uint64_t n = (uint64_t)g_rand_int(m->rand) << 32 | g_rand_int(m->rand);

    return limit ? n % limit : 0;
}

static void model_resize(Model *m, uint64_t length)
{
    uint64_t count = length / m->granularity + (length % m->granularity != 0);

    if (count < m->count) {
        memset(m->dirty + count, 0, m->count - count);
    }
    m->length = length;
    m->count = count;
}

static void model_fill(Model *m, uint64_t offset, uint64_t bytes, uint8_t value)
{
    if (offset < m->length && bytes > 0) {
        uint64_t last = (MIN(offset + bytes, m->length) - 1) / m->granularity;

        memset(m->dirty + offset / m->granularity, value, last - offset / m->granularity + 1);
    }
}

/* Check notes each assertion in a file: not for each of a million granules. */
static void need(bool holds, const char *what, uint64_t granule)
{
    if (!holds) {
        ck_abort_msg("granule %lu: %s", (unsigned long)granule, what);
    }
}

/* The whole content, by next(), and what follows from it. */
static void compare(const Model *m)
{
    uint64_t start, bytes, granule = 0, dirty = 0;

    for (uint64_t pos = 0; blk_dirty_bits_next(m->bits, pos, &start, &bytes); pos = start + bytes) {
        need(start % m->granularity == 0, "a range begins in it", start / m->granularity);
        for (; granule < start / m->granularity; granule++) {
            need(!m->dirty[granule], "is not found", granule);
        }
        for (; granule * m->granularity < start + bytes; granule++) {
            need(m->dirty[granule], "should be clean", granule);
        }
        dirty += bytes;
        need(start + bytes == m->length || !m->dirty[granule], "the range ends too early", granule);
    }
    for (; granule < m->count; granule++) {
        need(!m->dirty[granule], "is not found", granule);
    }
    ck_assert_uint_eq(blk_dirty_bits_bytes(m->bits), dirty);
    ck_assert_uint_eq(blk_dirty_bits_length(m->bits), m->length);
}

static void compare_export(Model *m)
{
    uint64_t first = below(m, m->count) / 64 * 64, bytes = (1 + below(m, 8192)) * 8;
    g_autofree uint8_t *buf = g_malloc(bytes);
    bool any = false, all = true;

    blk_dirty_bits_export(m->bits, first, buf, bytes);
    for (uint64_t i = 0; i < bytes * 8; i++) {
        bool dirty = first + i < m->count && m->dirty[first + i];

        need((buf[i / 8] >> (i % 8) & 1) == dirty, "export", first + i);
        any |= dirty;
        all &= dirty || first + i >= m->count;
    }
    ck_assert_int_eq(blk_dirty_bits_state(m->bits, first, bytes * 8),
                     !any ? BLK_DIRTY_NONE : all ? BLK_DIRTY_ALL : BLK_DIRTY_MIXED);
}

static void import_some(Model *m)
{
    uint64_t first = below(m, m->count) / 64 * 64, bytes = (1 + below(m, 8192)) * 8;
    g_autofree uint8_t *buf = g_malloc(bytes);

    memset(buf, (int)(below(m, 3) * 0x7f), bytes);
    if (below(m, 2)) {
        buf[below(m, bytes)] ^= (uint8_t)below(m, 256);
    }
    blk_dirty_bits_import(m->bits, first, buf, bytes);
    for (uint64_t i = 0; i < bytes * 8 && first + i < m->count; i++) {
        m->dirty[first + i] = buf[i / 8] >> (i % 8) & 1;
    }
}

static void merge_some(Model *m)
{
    uint64_t granularity = UINT64_C(512) << below(m, 8);
    g_autoptr(BlkDirtyBits) source = blk_dirty_bits_new(m->length, granularity);

    for (int i = 0; i < 5; i++) {
        uint64_t offset = below(m, m->length), bytes = below(m, m->length / 20 + 1), start = offset / granularity;

        blk_dirty_bits_set(source, offset, bytes);
        if (bytes > 0) {
            uint64_t end = (MIN(offset + bytes, m->length) + granularity - 1) / granularity;
            model_fill(m, start * granularity, (end - start) * granularity, 1);
        }
    }
    blk_dirty_bits_merge(m->bits, source);
    blk_dirty_bits_merge(m->bits, m->bits);
}

static void random_operation(Model *m)
{
    uint64_t most = below(m, 4) ? m->granularity * 100 : m->length;
    uint64_t offset = below(m, m->length), bytes = below(m, most + 1), length;

    switch (below(m, 8)) {
    case 0:
    case 1:
    case 2:
        blk_dirty_bits_set(m->bits, offset, bytes);
        model_fill(m, offset, bytes, 1);
        break;
    case 3:
    case 4:
        blk_dirty_bits_clear(m->bits, offset, bytes);
        model_fill(m, offset, bytes, 0);
        break;
    case 5:
        import_some(m);
        break;
    case 6:
        merge_some(m);
        break;
    default:
        length = 1 + below(m, MODEL_MAX * m->granularity - 1);
        ck_assert(blk_dirty_bits_resize(m->bits, length));
        model_resize(m, length);
    }
}

START_TEST(test_against_a_model)
{
    const char *seed_text = g_getenv("BLK_TEST_SEED");
    uint32_t seed = seed_text ? (uint32_t)g_ascii_strtoull(seed_text, NULL, 10) : g_random_int();

    g_print("# BLK_TEST_SEED=%u\n", seed);
    for (unsigned round = 0; round < 12; round++) {
        Model m = { .rand = g_rand_new_with_seed(seed + round) };

        m.granularity = UINT64_C(512) << below(&m, 12);
        m.dirty = g_malloc0(MODEL_MAX);
        model_resize(&m, 1 + below(&m, MODEL_MAX * m.granularity - 1));
        m.bits = blk_dirty_bits_new(m.length, m.granularity);
        for (unsigned i = 0; i < 60; i++) {
            uint64_t probe;

            random_operation(&m);
            compare(&m);
            compare_export(&m);
            probe = below(&m, m.length);
            ck_assert_int_eq(blk_dirty_bits_get(m.bits, probe), m.dirty[probe / m.granularity]);
        }
        blk_dirty_bits_free(m.bits);
        g_free(m.dirty);
        g_rand_free(m.rand);
    }
}
END_TEST

START_TEST(test_next_cuts_its_answer)
{
    g_autoptr(BlkDirtyBits) bits = blk_dirty_bits_new(100000, 4096);
    uint64_t start, bytes;

    blk_dirty_bits_set(bits, 4096, 8192);
    blk_dirty_bits_set(bits, 99999, 1);
    ck_assert(blk_dirty_bits_next(bits, 5000, &start, &bytes));
    ck_assert_uint_eq(start, 5000);
    ck_assert_uint_eq(bytes, 12288 - 5000);
    ck_assert(blk_dirty_bits_next(bits, 12288, &start, &bytes));
    ck_assert_uint_eq(start, 98304);
    ck_assert_uint_eq(bytes, 100000 - 98304);
    ck_assert(!blk_dirty_bits_next(bits, 100000, &start, &bytes));
    ck_assert(!blk_dirty_bits_get(bits, UINT64_MAX));
    ck_assert_uint_eq(blk_dirty_bits_bytes(bits), 8192 + 100000 - 98304);
}
END_TEST

START_TEST(test_memory_follows_use)
{
    g_autoptr(BlkDirtyBits) bits = blk_dirty_bits_new(UINT64_C(64) << 40, 65536);
    uint64_t start, bytes;

    ck_assert_uint_lt(blk_dirty_bits_memory(bits), 300 << 10);
    blk_dirty_bits_set(bits, 0, UINT64_C(64) << 40);
    ck_assert_uint_lt(blk_dirty_bits_memory(bits), 300 << 10);
    ck_assert(blk_dirty_bits_next(bits, 0, &start, &bytes));
    ck_assert_uint_eq(bytes, UINT64_C(64) << 40);
    for (uint64_t i = 0; i < 64; i++) {
        blk_dirty_bits_clear(bits, i << 40, 1);
    }
    ck_assert_uint_lt(blk_dirty_bits_memory(bits), 300 * 1024 + 64 * 5000);
    ck_assert_uint_eq(blk_dirty_bits_bytes(bits), (UINT64_C(64) << 40) - 64 * 65536);
    ck_assert_ptr_null(blk_dirty_bits_new(UINT64_C(64) << 40, 512));
    ck_assert(!blk_dirty_bits_resize(bits, UINT64_C(1) << 50));
}
END_TEST

/* ---- bitmaps of nodes ---- */

static BlkDirtyBitmap *add(BlkNode *node, const char *name, uint64_t granularity)
{
    g_autoptr(GError) error = NULL;
    BlkDirtyBitmap *bitmap = blk_bitmap_add(node, name, granularity, false, &error);

    ck_assert_msg(bitmap != NULL, "%s", error ? error->message : "");
    return bitmap;
}

static void refuse(BlkNode *node, const char *name, uint64_t granularity, bool persistent, int code, const char *part)
{
    g_autoptr(GError) error = NULL;

    ck_assert_ptr_null(blk_bitmap_add(node, name, granularity, persistent, &error));
    ck_assert_int_eq(error->code, code);
    ck_assert_msg(strstr(error->message, part) != NULL, "'%s'", error->message);
}

static int names_co(void *opaque)
{
    BlkChild *user = use_stack(opaque, "{'driver': 'mem', 'size': 1048576}", BLK_PERM_READ | BLK_PERM_WRITE);
    BlkNode *node = blk_child_node(user);
    g_autofree char *longest = g_strnfill(1023, 'x'), *longer = g_strnfill(1024, 'x');
    g_autoptr(GError) error = NULL;
    BlkDirtyBitmap *a = add(node, "a", 512);

    refuse(node, "a", 512, false, EEXIST, "already exists");
    refuse(node, "", 512, false, EINVAL, "empty");
    refuse(node, longer, 512, false, EINVAL, "too long");
    refuse(node, "b", 513, false, EINVAL, "power of 2");
    refuse(node, "b", 256, false, EINVAL, "power of 2");
    refuse(node, "b", UINT64_C(1) << 32, false, EINVAL, "power of 2");
    refuse(node, "b", 512, true, ENOTSUP, "persistent");
    add(node, longest, UINT64_C(1) << 31);
    ck_assert_uint_eq(blk_bitmap_granularity(add(node, NULL, 0)), 65536);
    ck_assert_ptr_eq(blk_bitmap_find(node, "a"), a);
    ck_assert_ptr_eq(blk_bitmap_nth(node, 0), a);
    ck_assert_ptr_null(blk_bitmap_nth(node, 3));
    blk_bitmap_remove(a);
    ck_assert_ptr_null(blk_bitmap_find_usable(node, "a", &error));
    ck_assert_str_eq(error->message, "Dirty bitmap 'a' not found");
    blk_co_detach(user);
    return 0;
}

START_TEST(test_names)
{
    run_test(names_co);
}
END_TEST

/* Exactly @bytes from @start on are dirty. */
static void only(const BlkDirtyBitmap *bitmap, uint64_t start, uint64_t bytes)
{
    uint64_t at, length;

    ck_assert_uint_eq(blk_bitmap_dirty_bytes(bitmap), bytes);
    if (bytes > 0) {
        ck_assert(blk_bitmap_next(bitmap, 0, &at, &length));
        ck_assert_uint_eq(at, start);
        ck_assert_uint_eq(length, bytes);
    }
}

static void only_then_clear(BlkDirtyBitmap *bitmap, uint64_t start, uint64_t bytes)
{
    only(bitmap, start, bytes);
    blk_bitmap_clear(bitmap, 0, UINT64_MAX);
    only(bitmap, 0, 0);
}

static int marks_co(void *opaque)
{
    BlkChild *user = use_stack(opaque, "{'driver': 'mem', 'node-name': 'm', 'size': 1048576, 'discard': 'unmap', "
                               "'write-align': 512}", BLK_PERM_ALL);
    BlkNode *node = blk_child_node(user);
    Mem *mem = mem_of(opaque, "m");
    BlkDirtyBitmap *fine = add(node, "fine", 512), *coarse = add(node, "coarse", 4096), *off = add(node, "off", 512);
    uint8_t buf[8192] = { 1 };

    blk_bitmap_enable(off, false);
    ck_assert_int_eq(blk_co_pwrite(node, 1000, 100, buf, 0), 0);
    only_then_clear(fine, 512, 1024);
    only_then_clear(coarse, 0, 4096);
    ck_assert_int_eq(blk_co_pwrite_zeroes(node, 5000, 3000, 0), 0);
    only_then_clear(fine, 4608, 3584);
    only_then_clear(coarse, 4096, 4096);
    ck_assert_int_eq(blk_co_discard(node, 8192, 512), 0);
    only_then_clear(fine, 8192, 512);
    ck_assert_int_eq(blk_co_pread(node, 0, 8192, buf, 0), 0);
    ck_assert_int_eq(blk_co_pwrite(node, 0, 0, buf, 0), 0);
    ck_assert_int_eq(blk_co_pwrite(node, 1048576, 512, buf, BLK_REQ_COMPRESSED), -ENOTSUP);
    ck_assert_int_eq(blk_co_pwrite(node, 512, 512, buf, BLK_REQ_UNCHANGED), 0);
    blk_bitmap_clear(coarse, 0, UINT64_MAX);
    only(fine, 0, 0);
    mem->fail_write_at = 2048;
    ck_assert_int_eq(blk_co_pwrite(node, 1536, 1024, buf, 0), -EIO);      /* half of it may be there */
    only_then_clear(fine, 1536, 1024);
    only(off, 0, 0);
    blk_co_detach(user);
    return 0;
}

START_TEST(test_marks)
{
    run_test(marks_co);
}
END_TEST

/* A bit is set when the write ends, not before: who clears it in between would miss what comes. */
static int late_co(void *opaque)
{
    static const uint8_t sector[512] = { 1 };

    return blk_co_pwrite(opaque, 0, sizeof(sector), sector, 0);
}

static int concurrent_co(void *opaque)
{
    BlkChild *user = use_stack(opaque, "{'driver': 'mem', 'node-name': 'm', 'size': 1048576}", BLK_PERM_ALL);
    BlkNode *node = blk_child_node(user);
    Mem *mem = mem_of(opaque, "m");
    BlkDirtyBitmap *bitmap = add(node, "b", 512);

    mem->hold = true;
    blk_co_spawn(opaque, late_co, node);
    while (mem->holding == 0) {
        blk_co_reschedule();
    }
    blk_bitmap_clear(bitmap, 0, UINT64_MAX);
    mem->hold = false;
    blk_co_queue_wake_all(&mem->held);
    blk_co_drain_begin(node);
    blk_drain_end(node);
    only(bitmap, 0, 512);
    blk_co_detach(user);
    return 0;
}

START_TEST(test_a_bit_outlives_a_clear_during_the_write)
{
    run_test(concurrent_co);
}
END_TEST

static int length_co(void *opaque)
{
    BlkChild *user = use_stack(opaque, "{'driver': 'mem', 'size': 65536}", BLK_PERM_ALL);
    BlkChild *other = use_stack(opaque, "{'driver': 'mem', 'size': 131072}", BLK_PERM_ALL);
    BlkNode *node = blk_child_node(user);
    BlkDirtyBitmap *bitmap = add(node, "b", 4096), *source = add(blk_child_node(other), "s", 512);
    g_autoptr(GError) error = NULL;

    blk_bitmap_set(bitmap, 0, 65536);
    ck_assert_int_eq(blk_co_truncate(node, 131072, BLK_PREALLOC_OFF, NULL), 0);
    only(bitmap, 0, 65536);
    blk_bitmap_set(source, 130000, 100);
    ck_assert_int_eq(blk_co_bitmap_merge(bitmap, source, NULL), 0);
    ck_assert(blk_bitmap_get(bitmap, 131071));
    ck_assert_uint_eq(blk_bitmap_dirty_bytes(bitmap), 65536 + 4096);
    ck_assert_int_eq(blk_co_truncate(node, 5000, BLK_PREALLOC_OFF, NULL), 0);
    ck_assert_int_eq(blk_co_truncate(node, 65536, BLK_PREALLOC_OFF, NULL), 0);
    only(bitmap, 0, 8192);
    ck_assert_int_eq(blk_co_bitmap_merge(bitmap, source, &error), -EINVAL);
    ck_assert(strstr(error->message, "different sizes") != NULL);
    ck_assert_int_eq(blk_co_pwrite(node, 70000, 1, "x", 0), 0);     /* a protocol grows by writes */
    ck_assert(blk_bitmap_get(bitmap, 70000));
    blk_co_detach(other);
    blk_co_detach(user);
    return 0;
}

START_TEST(test_length)
{
    run_test(length_co);
}
END_TEST

static void refused(BlkDirtyBitmap *bitmap, BlkBitmapUse use, int ret, const char *why)
{
    g_autoptr(GError) error = NULL;

    ck_assert_int_eq(blk_bitmap_claim(bitmap, use, &error), -ret);
    ck_assert_msg(strstr(error->message, why) != NULL, "%s", error->message);
}

static int claims_co(void *opaque)
{
    BlkChild *user = use_stack(opaque, "{'driver': 'mem', 'size': 65536}", BLK_PERM_ALL);
    BlkNode *node = blk_child_node(user);
    BlkDirtyBitmap *bitmap = add(node, "b", 512);
    g_autoptr(GError) error = NULL;

    ck_assert(!blk_bitmap_busy(bitmap));
    ck_assert_int_eq(blk_bitmap_claim(bitmap, BLK_BITMAP_READ, NULL), 0);
    ck_assert(blk_bitmap_busy(bitmap));
    refused(bitmap, BLK_BITMAP_READ, EBUSY, "Bitmap 'b' is currently in use by another operation and cannot be used");
    refused(bitmap, BLK_BITMAP_CHANGE, EBUSY, "in use");
    refused(bitmap, BLK_BITMAP_REMOVE, EBUSY, "in use");
    ck_assert_ptr_null(blk_bitmap_find_usable(node, "b", &error));
    ck_assert_ptr_eq(blk_bitmap_find(node, "b"), bitmap);
    ck_assert_int_eq(blk_co_pwrite(node, 512, 1, "x", 0), 0);
    only(bitmap, 512, 512);                 /* it goes on recording */
    blk_bitmap_release(bitmap);
    ck_assert_ptr_eq(blk_bitmap_find_usable(node, "b", NULL), bitmap);
    ck_assert_int_eq(blk_bitmap_claim(bitmap, BLK_BITMAP_REMOVE, NULL), 0);
    blk_bitmap_release(bitmap);
    blk_co_detach(user);
    return 0;
}

START_TEST(test_claims)
{
    run_test(claims_co);
}
END_TEST

static int copies_co(void *opaque)
{
    BlkChild *user = use_stack(opaque, "{'driver': 'mem', 'size': 268435456}", BLK_PERM_ALL);
    BlkNode *node = blk_child_node(user);
    BlkDirtyBitmap *bitmap = add(node, "b", 512), *copy;

    blk_bitmap_set(bitmap, 0, 32 << 20);    /* chunks that are full, mixed and empty */
    blk_bitmap_set(bitmap, 100 << 20, 512);
    copy = blk_bitmap_copy(bitmap);
    ck_assert_ptr_null(blk_bitmap_name(copy));
    ck_assert(!blk_bitmap_enabled(copy) && !blk_bitmap_persistent(copy));
    blk_bitmap_clear(bitmap, 0, 1 << 20);
    blk_bitmap_set(bitmap, 200 << 20, 1);
    ck_assert_uint_eq(blk_bitmap_dirty_bytes(copy), (32 << 20) + 512);
    ck_assert(blk_bitmap_get(copy, 0) && blk_bitmap_get(copy, 100 << 20) && !blk_bitmap_get(copy, 200 << 20));
    blk_bitmap_restore(bitmap, copy);
    ck_assert_uint_eq(blk_bitmap_dirty_bytes(bitmap), (32 << 20) + 512);
    ck_assert(!blk_bitmap_get(bitmap, 200 << 20));
    ck_assert_ptr_null(blk_bitmap_nth(node, 1));
    blk_co_detach(user);
    return 0;
}

START_TEST(test_copies)
{
    run_test(copies_co);
}
END_TEST

/* A job that copies all, a part, or nothing of what was dirty at 0 and 8192, while 8192 and 20480 are written. */
static void split_and_join(BlkNode *node, uint64_t copied, bool enabled)
{
    BlkDirtyBitmap *bitmap = add(node, "b", 4096), *part;

    blk_bitmap_set(bitmap, 0, 4096);
    blk_bitmap_set(bitmap, 8192, 4096);
    blk_bitmap_enable(bitmap, enabled);
    ck_assert_int_eq(blk_bitmap_claim(bitmap, BLK_BITMAP_CHANGE, NULL), 0);
    part = blk_bitmap_split(bitmap);
    ck_assert_int_eq(blk_co_pwrite(node, 8192, 1, "x", 0), 0);
    ck_assert_int_eq(blk_co_pwrite(node, 20480, 1, "x", 0), 0);
    ck_assert_uint_eq(blk_bitmap_dirty_bytes(part), 8192);
    ck_assert_uint_eq(blk_bitmap_dirty_bytes(bitmap), enabled ? 12288 : 8192);
    ck_assert_int_eq(blk_co_truncate(node, 131072, BLK_PREALLOC_OFF, NULL), 0);
    ck_assert_int_eq(blk_co_pwrite(node, 100000, 1, "x", 0), 0);
    if (copied > 0) {
        blk_bitmap_clear(part, 0, copied);
    }
    blk_bitmap_join(bitmap, part);
    blk_bitmap_release(bitmap);
    ck_assert(blk_bitmap_get(bitmap, 0) == (copied == 0));
    ck_assert(blk_bitmap_get(bitmap, 8192) == (enabled || copied <= 8192));
    ck_assert(blk_bitmap_get(bitmap, 20480) == enabled);
    ck_assert(blk_bitmap_get(bitmap, 100000) == enabled);
    ck_assert_ptr_null(blk_bitmap_nth(node, 1));
    blk_bitmap_remove(bitmap);
    ck_assert_int_eq(blk_co_truncate(node, 65536, BLK_PREALLOC_OFF, NULL), 0);
}

static int split_co(void *opaque)
{
    BlkChild *user = use_stack(opaque, "{'driver': 'mem', 'size': 65536}", BLK_PERM_ALL);
    static const uint64_t copied[] = { 0, 4096, UINT64_MAX };

    for (unsigned i = 0; i < G_N_ELEMENTS(copied); i++) {
        split_and_join(blk_child_node(user), copied[i], true);
        split_and_join(blk_child_node(user), copied[i], false);
    }
    blk_co_detach(user);
    return 0;
}

START_TEST(test_split_and_join)
{
    run_test(split_co);
}
END_TEST

BLK_TEST_MAIN("dirty_bitmap", test_against_a_model, test_next_cuts_its_answer, test_memory_follows_use, test_names,
              test_marks, test_a_bit_outlives_a_clear_during_the_write, test_length, test_claims, test_copies,
              test_split_and_join)
