/* SPDX-License-Identifier: MIT */
/*
 * test_qcow2_holes.c - free extents against a model: a map of sectors that are free.
 */
#include "test.h"

#include "drivers/qcow2/qcow2.h"

#include <string.h>

#define SECTOR UINT64_C(512)

enum { MODEL_SECTORS = 512, MAX_SECTORS = 64, STEPS = 20000 };

static bool all_are(const bool *model, unsigned first, unsigned count, bool value)
{
    for (unsigned i = 0; i < count; i++) {
        if (model[first + i] != value) {
            return false;
        }
    }
    return true;
}

static unsigned count_free(const bool *model)
{
    unsigned n = 0;

    for (unsigned i = 0; i < MODEL_SECTORS; i++) {
        n += model[i];
    }
    return n;
}

/* Finds and takes. */
static bool take(Qcow2Holes *holes, uint64_t bytes, uint64_t *offset)
{
    if (!qcow2_holes_find_lowest(holes, bytes, offset)) {
        return false;
    }
    ck_assert(qcow2_holes_cover(holes, *offset, bytes));
    qcow2_holes_remove(holes, *offset, bytes);
    ck_assert(!qcow2_holes_cover(holes, *offset, bytes));
    return true;
}

START_TEST(test_joins_and_lowest_fit)
{
    Qcow2Holes *holes = qcow2_holes_new(MAX_SECTORS * SECTOR);
    uint64_t offset = 0;

    ck_assert(!take(holes, SECTOR, &offset));
    qcow2_holes_add(holes, 100 * SECTOR, 0);
    ck_assert_uint_eq(qcow2_holes_bytes(holes), 0);

    qcow2_holes_add(holes, 10 * SECTOR, 2 * SECTOR);
    qcow2_holes_add(holes, 14 * SECTOR, 2 * SECTOR);
    ck_assert(!take(holes, 3 * SECTOR, &offset));
    qcow2_holes_add(holes, 12 * SECTOR, 2 * SECTOR);    /* joins both */
    qcow2_holes_add(holes, 40 * SECTOR, 4 * SECTOR);
    qcow2_holes_add(holes, 50 * SECTOR, 3 * SECTOR);
    ck_assert_uint_eq(qcow2_holes_bytes(holes), 13 * SECTOR);
    ck_assert(qcow2_holes_cover(holes, 11 * SECTOR, 5 * SECTOR));
    ck_assert(!qcow2_holes_cover(holes, 11 * SECTOR, 6 * SECTOR));
    ck_assert(qcow2_holes_find_best(holes, 3 * SECTOR, UINT64_MAX, &offset));
    ck_assert_uint_eq(offset, 50 * SECTOR);
    ck_assert(qcow2_holes_find_best(holes, 3 * SECTOR, 53 * SECTOR, &offset));
    ck_assert_uint_eq(offset, 50 * SECTOR);
    ck_assert(qcow2_holes_find_best(holes, 3 * SECTOR, 53 * SECTOR - 1, &offset));
    ck_assert_uint_eq(offset, 40 * SECTOR);
    ck_assert(!qcow2_holes_find_best(holes, 3 * SECTOR, 12 * SECTOR, &offset));
    ck_assert(!qcow2_holes_find_best(holes, 3 * SECTOR, SECTOR, &offset));
    ck_assert(take(holes, 3 * SECTOR, &offset));
    ck_assert_uint_eq(offset, 10 * SECTOR);             /* the lowest */
    ck_assert(take(holes, 4 * SECTOR, &offset));
    ck_assert_uint_eq(offset, 40 * SECTOR);             /* the lowest with room */
    ck_assert(take(holes, 3 * SECTOR, &offset));
    ck_assert_uint_eq(offset, 13 * SECTOR);
    ck_assert(take(holes, 2 * SECTOR, &offset));
    ck_assert_uint_eq(offset, 50 * SECTOR);
    ck_assert(take(holes, SECTOR, &offset));
    ck_assert_uint_eq(offset, 52 * SECTOR);
    ck_assert_uint_eq(qcow2_holes_bytes(holes), 0);
    ck_assert(!take(holes, (MAX_SECTORS + 1) * SECTOR, &offset));
    qcow2_holes_free(holes);
    qcow2_holes_free(NULL);
}
END_TEST

/* No extent becomes longer than the bound: the rest stays an extent of its own. */
START_TEST(test_bound)
{
    Qcow2Holes *holes = qcow2_holes_new(MAX_SECTORS * SECTOR);
    uint64_t offset;

    qcow2_holes_add(holes, 0, MAX_SECTORS * SECTOR);
    qcow2_holes_add(holes, MAX_SECTORS * SECTOR, SECTOR);
    ck_assert_uint_eq(qcow2_holes_bytes(holes), (MAX_SECTORS + 1) * SECTOR);
    ck_assert(take(holes, MAX_SECTORS * SECTOR, &offset));
    ck_assert_uint_eq(offset, 0);
    ck_assert(take(holes, SECTOR, &offset));
    ck_assert_uint_eq(offset, MAX_SECTORS * SECTOR);
    qcow2_holes_free(holes);
}
END_TEST

START_TEST(test_random)
{
    Qcow2Holes *holes = qcow2_holes_new(MAX_SECTORS * SECTOR);
    GRand *rand = g_rand_new_with_seed(3);
    bool model[MODEL_SECTORS] = { false };
    unsigned taken = 0;

    for (unsigned step = 0; step < STEPS; step++) {
        unsigned first = (unsigned)g_rand_int_range(rand, 0, MODEL_SECTORS);
        unsigned room = MIN(MAX_SECTORS, MODEL_SECTORS - first);
        unsigned count = (unsigned)g_rand_int_range(rand, 1, (int)MIN(room, 12) + 1);
        unsigned kind = g_rand_int(rand) % 8;
        uint64_t offset;

        if (kind < 4) {
            if (all_are(model, first, count, false)) {
                qcow2_holes_add(holes, first * SECTOR, count * SECTOR);
                memset(model + first, true, count);
            }
        } else if (kind < 7) {
            if (take(holes, count * SECTOR, &offset)) {
                ck_assert_uint_eq(offset % SECTOR, 0);
                ck_assert_uint_le(offset / SECTOR + count, MODEL_SECTORS);
                ck_assert(all_are(model, (unsigned)(offset / SECTOR), count, true));
                memset(model + offset / SECTOR, false, count);
                taken++;
            } else {
                for (unsigned i = 0; i + count <= MODEL_SECTORS; i++) {
                    ck_assert(count > 1 || !model[i]);      /* one sector is always found */
                }
            }
        } else {
            qcow2_holes_remove(holes, first * SECTOR, room * SECTOR);
            memset(model + first, false, room);
        }
        ck_assert_uint_eq(qcow2_holes_bytes(holes), count_free(model) * SECTOR);
    }
    ck_assert_uint_gt(taken, STEPS / 10);
    g_rand_free(rand);
    qcow2_holes_free(holes);
}
END_TEST

BLK_TEST_MAIN("qcow2_holes", test_joins_and_lowest_fit, test_bound, test_random)
