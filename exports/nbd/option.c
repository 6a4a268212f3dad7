/* SPDX-License-Identifier: MIT */
/*
 * option.c - parsing what options of the handshake carry.
 */
#include "exports/nbd/option.h"

#include <blkstack/nbd.h>

static bool take(NbdCursor *cursor, size_t bytes, const uint8_t **at)
{
    if (cursor->left < bytes) {
        return false;
    }
    *at = cursor->at;
    cursor->at += bytes;
    cursor->left -= bytes;
    return true;
}

static bool take16(NbdCursor *cursor, uint16_t *n)
{
    const uint8_t *at;
    bool whole = take(cursor, sizeof(*n), &at);

    *n = whole ? blk_get_be16(at) : 0;
    return whole;
}

static bool take32(NbdCursor *cursor, uint32_t *n)
{
    const uint8_t *at;
    bool whole = take(cursor, sizeof(*n), &at);

    *n = whole ? blk_get_be32(at) : 0;
    return whole;
}

uint32_t blk_nbd_take_string(NbdCursor *cursor, NbdString *string)
{
    const uint8_t *at;

    if (!take32(cursor, &string->length)) {
        return NBD_REP_ERR_INVALID;
    }
    if (string->length > BLK_NBD_MAX_STRING) {
        return NBD_REP_ERR_TOO_BIG;
    }
    if (!take(cursor, string->length, &at)) {
        return NBD_REP_ERR_INVALID;
    }
    string->text = (const char *)at;
    return 0;
}

uint32_t blk_nbd_parse_info(NbdCursor data, NbdInfoRequest *request)
{
    uint32_t refusal = blk_nbd_take_string(&data, &request->name);
    uint16_t count, kind;

    if (refusal) {
        return refusal;
    }
    request->wanted = 0;
    if (!take16(&data, &count) || data.left != sizeof(kind) * count) {
        return NBD_REP_ERR_INVALID;
    }
    while (take16(&data, &kind)) {
        request->wanted |= kind < 32 ? UINT32_C(1) << kind : 0;
    }
    return 0;
}

uint32_t blk_nbd_parse_contexts(NbdCursor data, NbdContextRequest *request)
{
    uint32_t refusal = blk_nbd_take_string(&data, &request->name);
    NbdString query;

    if (refusal) {
        return refusal;
    }
    if (!take32(&data, &request->count)) {
        return NBD_REP_ERR_INVALID;
    }
    request->queries = data;
    for (uint32_t i = 0; i < request->count; i++) {
        refusal = blk_nbd_take_string(&data, &query);
        if (refusal) {
            return refusal;
        }
    }
    return data.left == 0 ? 0 : NBD_REP_ERR_INVALID;
}
