/* SPDX-License-Identifier: MIT */
/*
 * uuid.h - UUIDs as Microsoft's and VirtualBox' formats store them: the first three groups little-endian.
 */
#ifndef BLKSTACK_DRIVERS_UUID_H
#define BLKSTACK_DRIVERS_UUID_H

#include "core/little_endian.h"

enum { UUID_BYTES = 16 };

/* A random one (version 4). */
static inline void uuid_new(uint8_t *at)
{
    for (unsigned i = 0; i < UUID_BYTES; i += 4) {
        blk_put_le32(at + i, g_random_int());
    }
    at[7] = (at[7] & 0x0f) | 0x40;
    at[8] = (at[8] & 0x3f) | 0x80;
}

static inline bool uuid_is_null(const uint8_t *at)
{
    return blk_get_le64(at) == 0 && blk_get_le64(at + 8) == 0;
}

#endif
