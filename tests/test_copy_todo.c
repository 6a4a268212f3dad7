/* SPDX-License-Identifier: MIT */
/* test_copy_todo.c - the copy engine with a bitmap of what is still to be copied, while the source changes. */
#include "node_test.h"

#include "jobs/copy.h"
#include "jobs/source.h"

enum { GRAIN = 65536, SIZE = 64 * GRAIN + 4096, BUSY = 6 * GRAIN, WRITES = 12, ROUNDS = 40 };

typedef struct Pair {
    BlkChild *source, *target;
    GPtrArray *nodes;
    BlkNodesSource reader;
    int (*co_read)(BlkSource *source, uint64_t offset, uint64_t bytes, void *buf, GError **error);
    BlkCopyTodo todo;
    BlkCopy copy;
    GRand *rand;
    unsigned writing;
} Pair;

/* Others run between reading and writing a piece. */
static int co_read_slowly(BlkSource *source, uint64_t offset, uint64_t bytes, void *buf, GError **error)
{
    Pair *pair = (Pair *)((char *)source - offsetof(Pair, reader.source));
    int ret = pair->co_read(source, offset, bytes, buf, error);

    for (unsigned i = g_rand_int(pair->rand) % 8; i > 0; i--) {
        blk_co_reschedule();
    }
    return ret;
}

static void pair_open(Test *t, Pair *pair, uint64_t granularity, uint32_t seed)
{
    make_file(t, "source.raw", SIZE, SIZE / 2, 0x11);
    make_file(t, "target.raw", SIZE, SIZE, 0x77);
    pair->source = open_rw(t, "{\"driver\": \"raw\", \"file\": {\"driver\": \"file\", \"filename\": \"@/source.raw\"}}");
    pair->target = open_rw(t, "{\"driver\": \"raw\", \"file\": {\"driver\": \"file\", \"filename\": \"@/target.raw\"}}");
    pair->nodes = g_ptr_array_new();
    g_ptr_array_add(pair->nodes, blk_child_node(pair->source));
    ck_assert_int_eq(blk_nodes_source_init(&pair->reader, pair->nodes, NULL), 0);
    pair->co_read = pair->reader.source.co_read;
    pair->reader.source.co_read = co_read_slowly;
    pair->todo = (BlkCopyTodo) { .bitmap = blk_bitmap_add(blk_child_node(pair->source), NULL, granularity, false, NULL) };
    pair->copy = (BlkCopy) {
        .source = &pair->reader.source, .todo = &pair->todo, .target = pair->target, .workers = 4,
    };
    pair->rand = g_rand_new_with_seed(seed);
    fprintf(stderr, "# seed %u\n", seed);
}

static void pair_close(Pair *pair)
{
    g_rand_free(pair->rand);
    blk_bitmap_remove(pair->todo.bitmap);
    blk_co_detach(pair->source);
    blk_co_detach(pair->target);
    g_ptr_array_unref(pair->nodes);
}

static void expect_equal(const Pair *pair, uint64_t offset, uint64_t bytes)
{
    g_autofree uint8_t *a = g_malloc(bytes), *b = g_malloc(bytes);

    ck_assert_int_eq(blk_co_pread(blk_child_node(pair->source), offset, bytes, a, 0), 0);
    ck_assert_int_eq(blk_co_pread(blk_child_node(pair->target), offset, bytes, b, 0), 0);
    ck_assert_int_eq(memcmp(a, b, bytes), 0);
}

CO_TEST(only_dirty_ranges_are_copied)
{
    Pair pair = { .writing = 0 };

    pair_open(t, &pair, GRAIN, 1);
    blk_bitmap_set(pair.todo.bitmap, 3 * GRAIN, 1);
    blk_bitmap_set(pair.todo.bitmap, 40 * GRAIN, GRAIN);        /* zeroes */
    blk_bitmap_set(pair.todo.bitmap, 64 * GRAIN, 1);            /* the odd end */
    ck_assert_int_eq(blk_co_copy(&pair.copy, NULL), 0);
    expect_pattern(pair.target, 2 * GRAIN, GRAIN, 0x77);
    expect_pattern(pair.target, 3 * GRAIN, GRAIN, 0x11);
    expect_pattern(pair.target, 4 * GRAIN, GRAIN, 0x77);
    expect_pattern(pair.target, 40 * GRAIN, GRAIN, 0);
    expect_pattern(pair.target, 41 * GRAIN, GRAIN, 0x77);
    expect_pattern(pair.target, 64 * GRAIN, 4096, 0);
    ck_assert_int_eq(blk_bitmap_dirty_bytes(pair.todo.bitmap), 0);
    pair_close(&pair);
}

CO_TEST(a_range_on_demand_takes_whole_granules)
{
    Pair pair = { .writing = 0 };

    pair_open(t, &pair, GRAIN, 1);
    blk_bitmap_set(pair.todo.bitmap, 0, SIZE);
    ck_assert_int_eq(blk_co_copy_range(&pair.copy, 5 * GRAIN + 100, GRAIN, NULL), 0);
    expect_pattern(pair.target, 4 * GRAIN, GRAIN, 0x77);
    expect_pattern(pair.target, 5 * GRAIN, 2 * GRAIN, 0x11);
    expect_pattern(pair.target, 7 * GRAIN, GRAIN, 0x77);
    ck_assert_int_eq(blk_bitmap_dirty_bytes(pair.todo.bitmap), SIZE - 2 * GRAIN);
    pair_close(&pair);
}

/* A guest whose writes, all to the same few granules, are copied before they return. */
static int co_guest(void *opaque)
{
    Pair *pair = opaque;
    g_autofree uint8_t *buf = g_malloc(3 * GRAIN);

    for (unsigned i = 0; i < WRITES; i++) {
        uint64_t offset = g_rand_int(pair->rand) % BUSY, most = MIN(3 * GRAIN, BUSY - offset);
        uint64_t bytes = 1 + g_rand_int(pair->rand) % most;
        bool zeroes = g_rand_int(pair->rand) % 4 == 0;
        BlkNode *source = blk_child_node(pair->source);

        memset(buf, (int)(g_rand_int(pair->rand) % 255 + 1), bytes);
        ck_assert_int_eq(zeroes ? blk_co_pwrite_zeroes(source, offset, bytes, 0)
                                : blk_co_pwrite(source, offset, bytes, buf, 0), 0);
        ck_assert_int_eq(blk_co_copy_range(&pair->copy, offset, bytes, NULL), 0);
    }
    pair->writing--;
    return 0;
}

static void race(Test *t, uint64_t granularity)
{
    Pair pair = { .writing = 0 };

    pair_open(t, &pair, granularity, g_random_int());
    blk_bitmap_set(pair.todo.bitmap, 0, SIZE);
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (pair.writing = 0; pair.writing < 3; pair.writing++) {
            blk_co_spawn(t->ctx, co_guest, &pair);
        }
        while (pair.writing > 0) {
            ck_assert_int_eq(blk_co_copy(&pair.copy, NULL), 0);
            blk_co_reschedule();
        }
        ck_assert_int_eq(blk_co_copy(&pair.copy, NULL), 0);
        ck_assert_int_eq(blk_bitmap_dirty_bytes(pair.todo.bitmap), 0);
        expect_equal(&pair, 0, BUSY);
    }
    expect_equal(&pair, 0, SIZE);
    pair_close(&pair);
}

CO_TEST(copies_race_with_writes)
{
    race(t, GRAIN);
}

CO_TEST(granules_smaller_and_larger_than_the_targets_unit)
{
    race(t, 512);
    race(t, 1 << 20);
}

CO_TEST(what_could_not_be_copied_is_dirty_again)
{
    Pair pair = { .writing = 0 };

    pair_open(t, &pair, GRAIN, 1);
    blk_bitmap_set(pair.todo.bitmap, 8 * GRAIN, GRAIN);
    g_autofree char *path = g_build_filename(t->dir, "target.raw", NULL);
    BlkChild *target = pair.target;
    pair.target = open_for(t, BLK_PERM_READ, "{\"driver\": \"raw\", \"read-only\": true, \"file\": {\"driver\": \"file\", "
                           "\"filename\": \"@/source.raw\", \"force-share\": true}}");
    pair.copy.target = pair.target;
    ck_assert_int_lt(blk_co_copy(&pair.copy, NULL), 0);
    ck_assert_int_eq(blk_bitmap_dirty_bytes(pair.todo.bitmap), GRAIN);
    blk_co_detach(target);
    pair_close(&pair);
}

BLK_TEST_MAIN("copy_todo", only_dirty_ranges_are_copied, a_range_on_demand_takes_whole_granules, copies_race_with_writes,
              granules_smaller_and_larger_than_the_targets_unit, what_could_not_be_copied_is_dirty_again)
