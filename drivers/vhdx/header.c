/* SPDX-License-Identifier: MIT */
/*
 * header.c - the two headers of a VHDX ([MS-VHDX] 2.2.2), of which one holds: the valid one with the higher
 * sequence number.
 */
#include "drivers/vhdx/vhdx.h"

#include "core/crc32c.h"

#include <inttypes.h>

static const char signature[] = "head";

void vhdx_encode_header(const VhdxHeader *header, uint8_t *h)
{
    memset(h, 0, VHDX_HEADER_BYTES);
    memcpy(h, signature, 4);
    blk_put_le64(h + VHDX_H_SEQUENCE, header->sequence);
    memcpy(h + VHDX_H_FILE_WRITE, header->file_write, UUID_BYTES);
    memcpy(h + VHDX_H_DATA_WRITE, header->data_write, UUID_BYTES);
    memcpy(h + VHDX_H_LOG, header->log, UUID_BYTES);
    blk_put_le16(h + VHDX_H_VERSION, 1);
    blk_put_le32(h + VHDX_H_LOG_LENGTH, header->log_length);
    blk_put_le64(h + VHDX_H_LOG_OFFSET, header->log_offset);
    blk_put_le32(h + VHDX_H_CHECKSUM, blk_crc32c(0, h, VHDX_HEADER_BYTES));
}

static bool is_header(uint8_t *h)
{
    uint32_t checksum = blk_get_le32(h + VHDX_H_CHECKSUM);

    blk_put_le32(h + VHDX_H_CHECKSUM, 0);
    return memcmp(h, signature, 4) == 0 && blk_crc32c(0, h, VHDX_HEADER_BYTES) == checksum;
}

static int parse_header(const uint8_t *h, VhdxHeader *header, GError **error)
{
    uint16_t version = blk_get_le16(h + VHDX_H_VERSION), log_version = blk_get_le16(h + VHDX_H_LOG_VERSION);

    header->sequence = blk_get_le64(h + VHDX_H_SEQUENCE);
    memcpy(header->file_write, h + VHDX_H_FILE_WRITE, UUID_BYTES);
    memcpy(header->data_write, h + VHDX_H_DATA_WRITE, UUID_BYTES);
    memcpy(header->log, h + VHDX_H_LOG, UUID_BYTES);
    header->log_length = blk_get_le32(h + VHDX_H_LOG_LENGTH);
    header->log_offset = blk_get_le64(h + VHDX_H_LOG_OFFSET);
    if (version != 1) {
        return blk_error(error, -ENOTSUP, "Unsupported VHDX version %u", version);
    }
    if (log_version != 0) {
        return blk_error(error, -ENOTSUP, "Unsupported VHDX: its log has version %u", log_version);
    }
    if (!vhdx_may_lie(header->log_offset, header->log_length)) {
        return blk_error(error, -EINVAL, "Invalid VHDX: a log of %" PRIu32 " bytes cannot be at offset %" PRIu64,
                         header->log_length, header->log_offset);
    }
    return 0;
}

int vhdx_co_read_header(BlkNode *file, VhdxHeader *header, GError **error)
{
    g_autofree uint8_t *headers = g_malloc(2 * VHDX_HEADER_BYTES);
    uint64_t number[2];
    bool valid[2];
    uint8_t *h[2];

    for (unsigned slot = 0; slot < 2; slot++) {
        h[slot] = headers + slot * VHDX_HEADER_BYTES;
        int ret = blk_co_pread(file, VHDX_HEADER_AT * (slot + 1), VHDX_HEADER_BYTES, h[slot], 0);
        if (ret < 0) {
            return blk_error_errno(error, ret, "Could not read the VHDX header");
        }
        valid[slot] = is_header(h[slot]);
        number[slot] = blk_get_le64(h[slot] + VHDX_H_SEQUENCE);
    }
    if (!valid[0] && !valid[1]) {
        return blk_error(error, -EINVAL, "Invalid VHDX: neither of its two headers is valid");
    }
    if (valid[0] && valid[1] && number[0] == number[1] && memcmp(h[0], h[1], VHDX_HEADER_BYTES) != 0) {
        return blk_error(error, -EINVAL, "Invalid VHDX: its two headers differ, and their sequence numbers do not");
    }
    header->slot = !valid[0] || (valid[1] && number[1] > number[0]);
    return parse_header(h[header->slot], header, error);
}

/* Writes the next header where the one is that does not hold, and flushes. */
static int co_write_next(BlkNode *node, VhdxHeader *next)
{
    BlkNode *file = node->file->node;
    g_autofree uint8_t *h = g_malloc(VHDX_HEADER_BYTES);

    if (next->sequence == UINT64_MAX) {
        return -EOVERFLOW;          /* nobody counts that far */
    }
    next->slot = !next->slot;
    next->sequence++;
    vhdx_encode_header(next, h);
    int ret = blk_co_pwrite(file, VHDX_HEADER_AT * (next->slot + 1), VHDX_HEADER_BYTES, h, 0);
    return ret < 0 ? ret : blk_co_flush(file);
}

static void take(uint8_t *to, const uint8_t *uuid)
{
    if (uuid) {
        memcpy(to, uuid, UUID_BYTES);
    }
}

int vhdx_co_change_header(BlkNode *node, const uint8_t *file_write, const uint8_t *data_write, const uint8_t *log)
{
    VhdxState *s = node->opaque;

    blk_co_mutex_lock(&s->header_lock);
    VhdxHeader next = s->header;
    take(next.file_write, file_write);
    take(next.data_write, data_write);
    take(next.log, log);
    int ret = co_write_next(node, &next);
    if (ret == 0) {
        s->header = next;
    }
    blk_co_mutex_unlock(&s->header_lock);
    return ret;
}

int vhdx_co_announce(BlkNode *node, bool data)
{
    VhdxState *s = node->opaque;
    uint8_t file_write[UUID_BYTES], data_write[UUID_BYTES];

    if (s->file_announced && (s->data_announced || !data)) {
        return 0;
    }
    uuid_new(file_write);
    uuid_new(data_write);
    int ret = vhdx_co_change_header(node, s->file_announced ? NULL : file_write, data ? data_write : NULL, NULL);
    if (ret == 0) {
        s->file_announced = true;
        s->data_announced |= data;
    }
    return ret;
}
