/* SPDX-License-Identifier: MIT */
/*
 * big_endian.h - big-endian numbers at any address, as formats and protocols have them.
 */
#ifndef BLKSTACK_CORE_BIG_ENDIAN_H
#define BLKSTACK_CORE_BIG_ENDIAN_H

#include <glib.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t blk_get_be16(const void *at)
{
    uint16_t n;

    memcpy(&n, at, sizeof(n));
    return GUINT16_FROM_BE(n);
}

static inline uint32_t blk_get_be32(const void *at)
{
    uint32_t n;

    memcpy(&n, at, sizeof(n));
    return GUINT32_FROM_BE(n);
}

static inline uint64_t blk_get_be64(const void *at)
{
    uint64_t n;

    memcpy(&n, at, sizeof(n));
    return GUINT64_FROM_BE(n);
}

/* Each returns where the next number goes. */
static inline uint8_t *blk_put_be16(void *at, uint16_t n)
{
    n = GUINT16_TO_BE(n);
    memcpy(at, &n, sizeof(n));
    return (uint8_t *)at + sizeof(n);
}

static inline uint8_t *blk_put_be32(void *at, uint32_t n)
{
    n = GUINT32_TO_BE(n);
    memcpy(at, &n, sizeof(n));
    return (uint8_t *)at + sizeof(n);
}

static inline uint8_t *blk_put_be64(void *at, uint64_t n)
{
    n = GUINT64_TO_BE(n);
    memcpy(at, &n, sizeof(n));
    return (uint8_t *)at + sizeof(n);
}

#endif
