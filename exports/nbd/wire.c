/* SPDX-License-Identifier: MIT */
/*
 * wire.c - messages of the transmission phase.
 *
 *     request     magic 4 | flags 2 | type 2 | cookie 8 | offset 8 | length 4 (extended: 8)
 *     simple      magic 4 | error 4 | cookie 8
 *     structured  magic 4 | flags 2 | type 2 | cookie 8 | payload 4
 *     extended    magic 4 | flags 2 | type 2 | cookie 8 | offset 8 | payload 8
 */
#include "exports/nbd/wire.h"

#include <errno.h>

bool blk_nbd_parse_request(NbdMode mode, const uint8_t *bytes, NbdHeader *header)
{
    bool extended = mode == NBD_MODE_EXTENDED;
    bool has_payload;

    if (blk_get_be32(bytes) != (extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC)) {
        return false;
    }
    *header = (NbdHeader) {
        .flags  = blk_get_be16(bytes + 4),
        .type   = blk_get_be16(bytes + 6),
        .cookie = blk_get_be64(bytes + 8),
        .offset = blk_get_be64(bytes + 16),
        .length = extended ? blk_get_be64(bytes + 24) : blk_get_be32(bytes + 24),
    };
    has_payload = extended ? header->flags & NBD_CMD_FLAG_PAYLOAD_LEN : header->type == NBD_CMD_WRITE;
    header->payload = has_payload ? header->length : 0;
    return true;
}

size_t blk_nbd_put_simple_reply(uint8_t *at, uint32_t error, uint64_t cookie)
{
    at = blk_put_be32(at, NBD_SIMPLE_REPLY_MAGIC);
    at = blk_put_be32(at, error);
    blk_put_be64(at, cookie);
    return NBD_SIMPLE_REPLY_BYTES;
}

size_t blk_nbd_put_chunk(uint8_t *at, NbdMode mode, bool done, NbdReplyType type, const NbdHeader *request,
                         uint64_t payload)
{
    bool extended = mode == NBD_MODE_EXTENDED;

    at = blk_put_be32(at, extended ? NBD_EXTENDED_REPLY_MAGIC : NBD_STRUCTURED_REPLY_MAGIC);
    at = blk_put_be16(at, done ? NBD_REPLY_FLAG_DONE : 0);
    at = blk_put_be16(at, (uint16_t)type);
    at = blk_put_be64(at, request->cookie);
    if (extended) {
        at = blk_put_be64(at, request->offset);
        blk_put_be64(at, payload);
        return NBD_EXTENDED_REPLY_BYTES;
    }
    blk_put_be32(at, (uint32_t)payload);
    return NBD_STRUCTURED_REPLY_BYTES;
}

size_t blk_nbd_put_data_chunk(uint8_t *at, NbdMode mode, bool done, const NbdHeader *request, uint64_t offset,
                              uint32_t bytes)
{
    size_t head = blk_nbd_put_chunk(at, mode, done, NBD_REPLY_TYPE_OFFSET_DATA, request, (uint64_t)bytes + 8);

    blk_put_be64(at + head, offset);
    return head + 8;
}

size_t blk_nbd_put_hole_chunk(uint8_t *at, NbdMode mode, bool done, const NbdHeader *request, uint64_t offset,
                              uint32_t bytes)
{
    size_t head = blk_nbd_put_chunk(at, mode, done, NBD_REPLY_TYPE_OFFSET_HOLE, request, 12);

    blk_put_be32(blk_put_be64(at + head, offset), bytes);
    return head + 12;
}

size_t blk_nbd_put_status_chunk(uint8_t *at, NbdMode mode, bool done, const NbdHeader *request, uint32_t context,
                            uint32_t extents)
{
    bool extended = mode == NBD_MODE_EXTENDED;
    size_t fixed = extended ? 8 : 4;
    NbdReplyType type = extended ? NBD_REPLY_TYPE_BLOCK_STATUS_EXT : NBD_REPLY_TYPE_BLOCK_STATUS;
    size_t head = blk_nbd_put_chunk(at, mode, done, type, request, fixed + extents * nbd_extent_bytes(mode));

    blk_put_be32(at + head, context);
    if (extended) {
        blk_put_be32(at + head + 4, extents);
    }
    return head + fixed;
}

uint8_t *blk_nbd_put_extent(uint8_t *at, NbdMode mode, uint64_t bytes, uint32_t status)
{
    if (mode == NBD_MODE_EXTENDED) {
        return blk_put_be64(blk_put_be64(at, bytes), status);
    }
    return blk_put_be32(blk_put_be32(at, (uint32_t)bytes), status);
}

size_t blk_nbd_put_error_chunk(uint8_t *at, size_t room, NbdMode mode, const NbdHeader *request, uint32_t error,
                           const char *message)
{
    size_t head = mode == NBD_MODE_EXTENDED ? NBD_EXTENDED_REPLY_BYTES : NBD_STRUCTURED_REPLY_BYTES;
    size_t length = message ? MIN(strlen(message), room - head - 6) : 0;

    blk_nbd_put_chunk(at, mode, true, NBD_REPLY_TYPE_ERROR, request, 6 + length);
    at = blk_put_be32(at + head, error);
    at = blk_put_be16(at, (uint16_t)length);
    if (length > 0) {
        memcpy(at, message, length);
    }
    return head + 6 + length;
}

uint32_t blk_nbd_error(int ret)
{
    switch (-ret) {
    case 0:
        return NBD_SUCCESS;
    case EPERM:
    case EACCES:
    case EROFS:
        return NBD_EPERM;
    case ENOMEM:
        return NBD_ENOMEM;
    case EINVAL:
        return NBD_EINVAL;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return NBD_ENOSPC;
    case EOVERFLOW:
        return NBD_EOVERFLOW;
    case ENOTSUP:
        return NBD_ENOTSUP;
    case ESHUTDOWN:
        return NBD_ESHUTDOWN;
    default:
        return NBD_EIO;
    }
}
