/* SPDX-License-Identifier: MIT */
/*
 * test_partition.c - whatever numbers a partition table has: a range inside the disk is found, or one error. What is
 * found in tables that are right is shown by the iotest nbd-partition. BLK_TEST_SEED repeats a run.
 */
#include "node_test.h"

#include "core/little_endian.h"
#include "exports/partition.h"

#include <zlib.h>

enum { SECTOR = 512, LENGTH = 256 << 10, SECTORS = LENGTH / SECTOR, TABLES = 1000 };

static void put(BlkChild *user, uint64_t sector, const void *data, size_t bytes)
{
    ck_assert_int_eq(blk_co_pwrite(blk_child_node(user), sector * SECTOR, bytes, data, 0), 0);
}

/* Numbers where programs go wrong, or small ones. */
static uint64_t odd_number(GRand *rand)
{
    static const uint64_t numbers[] = {
        0, 1, 2, SECTORS - 1, SECTORS, SECTORS + 1, LENGTH, INT32_MAX, UINT32_MAX, (uint64_t)UINT32_MAX + 1, INT64_MAX,
        UINT64_MAX / SECTOR, UINT64_MAX / SECTOR + 1, UINT64_MAX - 1, UINT64_MAX,
    };
    uint32_t choice = g_rand_int_range(rand, 0, 3 * G_N_ELEMENTS(numbers));

    return choice < G_N_ELEMENTS(numbers) ? numbers[choice] : g_rand_int(rand) % (SECTORS + 8);
}

static void put_mbr_sector(BlkChild *user, uint64_t sector, GRand *rand, bool first)
{
    static const uint8_t types[] = { 0x83, 0x05, 0x0f, 0x85, 0x83, 0x00 };
    uint8_t data[SECTOR] = { 0 };

    for (unsigned i = 0; i < 4; i++) {
        uint8_t *at = data + 446 + 16 * i;

        at[4] = types[g_rand_int_range(rand, 0, G_N_ELEMENTS(types))];
        blk_put_le32(at + 8, (uint32_t)odd_number(rand));
        blk_put_le32(at + 12, (uint32_t)odd_number(rand));
    }
    if (!first && g_rand_boolean(rand)) {
        data[446 + 16 + 4] = 0x05;
        blk_put_le32(data + 446 + 16 + 8, g_rand_int(rand) % 16);
    }
    blk_put_le16(data + 510, 0xaa55);
    put(user, sector, data, SECTOR);
}

static void make_mbr(BlkChild *user, GRand *rand)
{
    for (unsigned sector = 0; sector < 32; sector++) {
        put_mbr_sector(user, sector, rand, sector == 0);
    }
}

static void make_gpt(BlkChild *user, GRand *rand)
{
    uint8_t data[SECTOR] = { 0 }, entries[4 * 128];
    uint32_t size = g_rand_int(rand) % 8 == 0 ? (uint32_t)odd_number(rand) : 128;
    uint32_t count = g_rand_int(rand) % 8 == 0 ? (uint32_t)odd_number(rand) : 4;
    uint64_t place = g_rand_int(rand) % 8 == 0 ? odd_number(rand) : 2;

    data[446 + 4] = 0xee;
    blk_put_le16(data + 510, 0xaa55);
    put(user, 0, data, SECTOR);
    memset(entries, 'T', sizeof(entries));
    for (unsigned i = 0; i < 4; i++) {
        blk_put_le64(entries + 128 * i + 32, odd_number(rand));
        blk_put_le64(entries + 128 * i + 40, odd_number(rand));
    }
    put(user, 2, entries, sizeof(entries));
    memset(data, 0, SECTOR);
    memcpy(data, "EFI PART", 8);
    blk_put_le32(data + 12, g_rand_int(rand) % 8 == 0 ? (uint32_t)odd_number(rand) : 92);
    blk_put_le64(data + 24, 1);
    blk_put_le64(data + 72, place);
    blk_put_le32(data + 80, count);
    blk_put_le32(data + 84, size);
    blk_put_le32(data + 88, (uint32_t)crc32(0, entries, sizeof(entries)));
    blk_put_le32(data + 16, (uint32_t)crc32(0, data, MIN(blk_get_le32(data + 12), SECTOR)));
    put(user, 1, data, SECTOR);
}

/* Returns: whether there is such a partition. */
static bool look_for(BlkChild *user, unsigned number)
{
    BlkPartition partition = { 1, 1 };
    g_autoptr(GError) error = NULL;
    int ret = blk_co_find_partition(blk_child_node(user), number, &partition, &error);

    if (ret < 0) {
        ck_assert_ptr_nonnull(error);
        ck_assert(partition.offset == 1 && partition.bytes == 1);
        return false;
    }
    ck_assert_int_eq(ret, 0);
    ck_assert_ptr_null(error);
    ck_assert_uint_eq(partition.offset % SECTOR, 0);
    ck_assert_uint_eq(partition.bytes % SECTOR, 0);
    ck_assert_uint_gt(partition.bytes, 0);
    ck_assert(partition.offset < LENGTH && partition.bytes <= LENGTH - partition.offset);
    return true;
}

CO_TEST(any_table_has_a_range_or_an_error)
{
    const char *seed_text = g_getenv("BLK_TEST_SEED");
    uint32_t seed = seed_text ? (uint32_t)g_ascii_strtoull(seed_text, NULL, 10) : g_random_int();
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    unsigned found[2] = { 0 };
    BlkChild *user;

    g_print("# BLK_TEST_SEED=%u\n", seed);
    make_file(t, "disk", LENGTH, 0, 0);
    user = open_rw(t, "{'driver':'raw','file':{'driver':'file','filename':'@/disk'}}");
    for (unsigned i = 0; i < TABLES; i++) {
        unsigned gpt = i % 2;

        (gpt ? make_gpt : make_mbr)(user, rand);
        for (unsigned number = 1; number <= 8; number++) {
            found[gpt] += look_for(user, number);
        }
        found[gpt] += look_for(user, (unsigned)g_rand_int_range(rand, 9, BLK_MAX_PARTITIONS + 1));
    }
    ck_assert_uint_gt(found[0], TABLES / 10);       /* else this shows nothing */
    ck_assert_uint_gt(found[1], TABLES / 10);
    blk_co_detach(user);
}

BLK_TEST_MAIN("partition", any_table_has_a_range_or_an_error)
