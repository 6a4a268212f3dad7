/* SPDX-License-Identifier: MIT */
/* test_crc32c.c - CRC-32C by the examples of RFC 3720, appendix B.4, whole and in pieces. */
#include "test.h"

#include "core/crc32c.h"

#include <string.h>

START_TEST(knows_the_examples)
{
    uint8_t data[32];

    ck_assert_uint_eq(blk_crc32c(0, "", 0), 0);
    ck_assert_uint_eq(blk_crc32c(0, "123456789", 9), 0xe3069283);
    memset(data, 0, sizeof(data));
    ck_assert_uint_eq(blk_crc32c(0, data, sizeof(data)), 0x8a9136aa);
    memset(data, 0xff, sizeof(data));
    ck_assert_uint_eq(blk_crc32c(0, data, sizeof(data)), 0x62a8ab43);
    for (unsigned i = 0; i < sizeof(data); i++) {
        data[i] = (uint8_t)i;
    }
    ck_assert_uint_eq(blk_crc32c(0, data, sizeof(data)), 0x46dd794e);
}
END_TEST

START_TEST(goes_on_from_any_place)
{
    for (size_t first = 0; first <= 9; first++) {
        ck_assert_uint_eq(blk_crc32c(blk_crc32c(0, "123456789", first), &"123456789"[first], 9 - first), 0xe3069283);
    }
}
END_TEST

BLK_TEST_MAIN("crc32c", knows_the_examples, goes_on_from_any_place)
