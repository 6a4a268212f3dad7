/* SPDX-License-Identifier: MIT */
/*
 * crc32c.c - CRC-32C: polynomial 0x1edc6f41, bits reflected, begun with and ended by an exclusive or of all ones (RFC 3720,
 * appendix B.4).
 *
 * Four bits at a time by a table that is short enough to be read. What is checked so are tables of a format, not data.
 */
#include "core/crc32c.h"

/* [n]: the remainder of the four bits n. */
static const uint32_t remainders[16] = {
    0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
    0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
};

uint32_t blk_crc32c(uint32_t crc, const void *data, size_t bytes)
{
    const uint8_t *at = data;

    crc = ~crc;
    for (size_t i = 0; i < bytes; i++) {
        crc ^= at[i];
        crc = crc >> 4 ^ remainders[crc & 15];
        crc = crc >> 4 ^ remainders[crc & 15];
    }
    return ~crc;
}
