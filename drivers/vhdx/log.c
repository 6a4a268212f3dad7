/* SPDX-License-Identifier: MIT */
/*
 * log.c - writes the log of a VHDX ([MS-VHDX] 2.3).
 *
 *     entry:    head, descriptor, descriptor, ... up to a multiple of 4 KiB | data sector | data sector | ...
 *     data sector, as in the log:   "data", sequence (high), bytes 8 to 4091, sequence (low)
 *     descriptor of one:            "desc", bytes 4092 to 4095, bytes 0 to 7, where in the file, sequence
 *
 * The log is a ring of entries with rising sequence numbers, of which the last says (its "tail") with which one replay
 * begins. What an entry of ours says is stable in its place before the next one is written: so each is its own tail. They
 * lie in turn at the begin and in the middle of the log, and the last one stays whole while the next is written.
 *
 * The first one is written, and stable, before a header refers to it: until then the log is empty.
 */
#include "drivers/vhdx/vhdx.h"

#include "core/crc32c.h"

void vhdx_log_freeze(void *opaque)
{
    BlkNode *node = opaque;

    ((VhdxState *)node->opaque)->frozen_length = blk_node_length(node->file->node);
}

static void put_head(const VhdxState *s, uint8_t *e, uint32_t bytes, uint32_t tail, unsigned count, const uint8_t *guid)
{
    memcpy(e, "loge", 4);
    blk_put_le32(e + VHDX_L_BYTES, bytes);
    blk_put_le32(e + VHDX_L_TAIL, tail);
    blk_put_le64(e + VHDX_L_SEQUENCE, s->log_sequence + 1);
    blk_put_le32(e + VHDX_L_COUNT, count);
    memcpy(e + VHDX_L_GUID, guid, UUID_BYTES);
    blk_put_le64(e + VHDX_L_FLUSHED, s->frozen_length);
    blk_put_le64(e + VHDX_L_LAST, s->frozen_length);
    blk_put_le32(e + VHDX_L_CHECKSUM, blk_crc32c(0, e, bytes));
}

static void put_sector(uint8_t *descriptor, uint8_t *sector, uint64_t offset, const uint8_t *data, uint64_t sequence)
{
    memcpy(descriptor, "desc", 4);
    memcpy(descriptor + VHDX_D_TRAILING, data + VHDX_S_LOW, 4);
    memcpy(descriptor + VHDX_D_LEADING, data, 8);
    blk_put_le64(descriptor + VHDX_D_OFFSET, offset);
    blk_put_le64(descriptor + VHDX_D_SEQUENCE, sequence);
    memcpy(sector, "data", 4);
    blk_put_le32(sector + VHDX_S_HIGH, (uint32_t)(sequence >> 32));
    memcpy(sector + VHDX_S_DATA, data + VHDX_S_DATA, VHDX_S_LOW - VHDX_S_DATA);
    blk_put_le32(sector + VHDX_S_LOW, (uint32_t)sequence);
}

int vhdx_co_log(BlkMetaBlock *const *blocks, const uint8_t *copies, unsigned count, void *opaque)
{
    BlkNode *node = opaque, *file = node->file->node;
    VhdxState *s = node->opaque;
    uint64_t sequence = s->log_sequence + 1;
    uint32_t bytes = (1 + count) * VHDX_LOG_SECTOR, at = sequence % 2 ? 0 : s->header.log_length / 2;
    bool first = uuid_is_null(s->header.log);
    uint8_t guid[UUID_BYTES];
    uint8_t *e = blk_buffer_try_alloc(file, bytes);

    if (!e) {
        return -ENOMEM;
    }
    memset(e, 0, VHDX_LOG_SECTOR);
    for (unsigned i = 0; i < count; i++) {
        put_sector(e + VHDX_L_HEAD + i * VHDX_D_BYTES, e + (1 + i) * VHDX_LOG_SECTOR, blocks[i]->offset,
                   copies + i * VHDX_LOG_SECTOR, sequence);
    }
    memcpy(guid, s->header.log, UUID_BYTES);
    if (first) {
        uuid_new(guid);
    }
    put_head(s, e, bytes, at, count, guid);
    int ret = blk_co_pwrite(file, s->header.log_offset + at, bytes, e, 0);
    ret = ret < 0 ? ret : blk_co_flush(file);
    if (ret == 0 && first) {
        ret = vhdx_co_change_header(node, NULL, NULL, guid);
    }
    if (ret == 0) {
        s->log_sequence = sequence;
    }
    blk_buffer_free(e);
    return ret;
}

int vhdx_co_log_clear(BlkNode *node)
{
    static const uint8_t none[UUID_BYTES];
    VhdxState *s = node->opaque;
    int ret = uuid_is_null(s->header.log) ? 0 : vhdx_co_change_header(node, NULL, NULL, none);

    if (ret == 0) {
        s->log_sequence = 0;
    }
    return ret;
}
