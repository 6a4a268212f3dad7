/* SPDX-License-Identifier: MIT */
/*
 * wire.h - messages of the transmission phase as bytes. Nothing here waits, allocates or knows a connection.
 */
#ifndef BLKSTACK_EXPORTS_NBD_WIRE_H
#define BLKSTACK_EXPORTS_NBD_WIRE_H

#include "core/big_endian.h"
#include "exports/nbd/protocol.h"

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>

/* What client and server have agreed on: which headers they use. */
typedef enum NbdMode { NBD_MODE_SIMPLE, NBD_MODE_STRUCTURED, NBD_MODE_EXTENDED } NbdMode;

/* ---- requests ---- */

typedef struct NbdHeader {
    uint16_t flags, type;
    uint64_t cookie;
    uint64_t offset;
    uint64_t length;
    uint64_t payload;       /* bytes that follow the header: @length or 0 */
} NbdHeader;

enum { NBD_REQUEST_BYTES = 28, NBD_EXTENDED_REQUEST_BYTES = 32 };

static inline size_t nbd_request_bytes(NbdMode mode)
{
    return mode == NBD_MODE_EXTENDED ? NBD_EXTENDED_REQUEST_BYTES : NBD_REQUEST_BYTES;
}

/* @bytes: nbd_request_bytes(@mode) of them. false: the magic number is wrong. */
bool blk_nbd_parse_request(NbdMode mode, const uint8_t *bytes, NbdHeader *header);

/* ---- replies ---- */

enum { NBD_SIMPLE_REPLY_BYTES = 16, NBD_STRUCTURED_REPLY_BYTES = 20, NBD_EXTENDED_REPLY_BYTES = 32 };
#define NBD_MAX_CHUNK_HEAD (NBD_EXTENDED_REPLY_BYTES + 12)      /* with the fixed part of any payload but of errors */

/* Each writes at @at and returns the number of bytes. */
size_t blk_nbd_put_simple_reply(uint8_t *at, uint32_t error, uint64_t cookie);
/* A chunk of @mode, which is not NBD_MODE_SIMPLE. @payload: bytes that follow. */
size_t blk_nbd_put_chunk(uint8_t *at, NbdMode mode, bool done, NbdReplyType type, const NbdHeader *request,
                         uint64_t payload);
size_t blk_nbd_put_data_chunk(uint8_t *at, NbdMode mode, bool done, const NbdHeader *request, uint64_t offset,
                              uint32_t bytes);
size_t blk_nbd_put_hole_chunk(uint8_t *at, NbdMode mode, bool done, const NbdHeader *request, uint64_t offset,
                              uint32_t bytes);
/* The head of @extents descriptors of nbd_extent_bytes(@mode) bytes each. */
size_t blk_nbd_put_status_chunk(uint8_t *at, NbdMode mode, bool done, const NbdHeader *request, uint32_t context,
                            uint32_t extents);
/* @message: (nullable): what of it fits within @room bytes is sent. */
size_t blk_nbd_put_error_chunk(uint8_t *at, size_t room, NbdMode mode, const NbdHeader *request, uint32_t error,
                           const char *message);

static inline size_t nbd_extent_bytes(NbdMode mode)
{
    return mode == NBD_MODE_EXTENDED ? 16 : 8;
}
uint8_t *blk_nbd_put_extent(uint8_t *at, NbdMode mode, uint64_t bytes, uint32_t status);

/* The protocol's number for a negative errno, or 0. */
uint32_t blk_nbd_error(int ret);

#endif
