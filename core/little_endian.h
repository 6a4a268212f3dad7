/* SPDX-License-Identifier: MIT */
/*
 * little_endian.h - little-endian numbers at any address, as formats have them.
 */
#ifndef BLKSTACK_CORE_LITTLE_ENDIAN_H
#define BLKSTACK_CORE_LITTLE_ENDIAN_H

#include <glib.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t blk_get_le16(const void *at)
{
    uint16_t n;

    memcpy(&n, at, sizeof(n));
    return GUINT16_FROM_LE(n);
}

static inline uint32_t blk_get_le32(const void *at)
{
    uint32_t n;

    memcpy(&n, at, sizeof(n));
    return GUINT32_FROM_LE(n);
}

static inline uint64_t blk_get_le64(const void *at)
{
    uint64_t n;

    memcpy(&n, at, sizeof(n));
    return GUINT64_FROM_LE(n);
}

/* Each returns where the next number goes. */
static inline uint8_t *blk_put_le16(void *at, uint16_t n)
{
    n = GUINT16_TO_LE(n);
    memcpy(at, &n, sizeof(n));
    return (uint8_t *)at + sizeof(n);
}

static inline uint8_t *blk_put_le32(void *at, uint32_t n)
{
    n = GUINT32_TO_LE(n);
    memcpy(at, &n, sizeof(n));
    return (uint8_t *)at + sizeof(n);
}

static inline uint8_t *blk_put_le64(void *at, uint64_t n)
{
    n = GUINT64_TO_LE(n);
    memcpy(at, &n, sizeof(n));
    return (uint8_t *)at + sizeof(n);
}

#endif
