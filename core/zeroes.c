/* SPDX-License-Identifier: MIT */
/*
 * zeroes.c - write zeroes and discard.
 *
 *     |..head..|====== whole units ======|..tail..|
 *
 * Whole units are zeroed by the driver; head and tail, and whatever the driver cannot do, are written as buffers of
 * zeroes, unless they read as zeroes already. The end of the node counts as the end of a unit.
 */
#include "core/request.h"

#include <string.h>

#define CHUNK_BYTES ((uint64_t)1 << 20)

typedef struct Units {
    uint64_t start, end;
} Units;

static Units whole_units(const BlkNode *node, uint64_t offset, uint64_t bytes, uint64_t unit)
{
    uint64_t end = offset + bytes;
    Units units = { blk_align_up(offset, unit), end >= node->length ? end : blk_align_down(end, unit) };

    units.end = MAX(units.start, units.end);
    return units;
}

static int driver_zeroes(BlkNode *node, BlkRequest *req)
{
    if (node->driver->co_pwrite_zeroes) {
        return node->driver->co_pwrite_zeroes(node, req);
    }
    if (node->core->engine) {
        return blk_engine_co_pwrite_zeroes(node, req);
    }
    if (blk_driver_passes(node) && node->file) {
        return blk_co_pwrite_zeroes(node->file->node, req->offset, req->bytes, req->flags);
    }
    return -ENOTSUP;
}

static bool reads_as_zeroes(BlkNode *node, uint64_t offset, uint64_t bytes)
{
    BlkStatus status;

    if (offset + bytes > node->length) {
        return false;
    }
    return blk_request_block_status(node, offset, bytes, &status) == 0 && status.bytes >= bytes &&
           (status.flags & BLK_STATUS_ZERO);
}

static int write_zero_buffers(BlkNode *node, uint64_t offset, uint64_t bytes, unsigned flags)
{
    uint64_t step = MAX(CHUNK_BYTES, node->limits.write_align);
    uint64_t end = offset + bytes;
    void *zeroes;
    int ret = 0;

    if (bytes == 0 || (bytes < node->limits.zeroes_align && reads_as_zeroes(node, offset, bytes))) {
        return 0;
    }
    zeroes = blk_buffer_try_alloc(node, MIN(step, bytes));
    if (!zeroes) {
        return -ENOMEM;
    }
    memset(zeroes, 0, MIN(step, bytes));
    /* Pieces end at multiples of the step, so that only the first and the last need padding. */
    while (ret == 0 && offset < end) {
        struct iovec vec = { zeroes, MIN(end, blk_align_down(offset, step) + step) - offset };

        ret = blk_request_pwritev(node, offset, vec.iov_len, (BlkIov) { &vec, 1, 0 }, flags & BLK_REQ_UNCHANGED);
        offset += vec.iov_len;
    }
    blk_buffer_free(zeroes);
    return ret;
}

static int zero_units(BlkNode *node, uint64_t offset, uint64_t bytes, unsigned flags)
{
    BlkRequest req = { .offset = offset, .bytes = bytes, .flags = blk_request_driver_flags(node, flags) };
    BlkRangeHold hold;
    int ret = 0;

    if (bytes == 0) {
        return 0;
    }
    blk_co_range_lock(&node->core->locks, &hold, offset, bytes, flags & BLK_REQ_SERIALISING);
    if (offset + bytes > node->length && !blk_node_may_grow(node)) {
        ret = -EINVAL;      /* it was cut off while this waited */
    }
    if (ret == 0 && node->driver->co_event) {
        node->driver->co_event(node, BLK_EVENT_pwritev_zero);
    }
    if (ret == 0) {
        ret = driver_zeroes(node, &req);
    }
    if (ret == 0) {
        blk_node_grown(node, offset + bytes);
    }
    blk_range_unlock(&node->core->locks, &hold);
    node->core->write_gen++;
    if (ret == -ENOTSUP && !(flags & BLK_REQ_NO_FALLBACK)) {
        ret = write_zero_buffers(node, offset, bytes, flags);
    }
    return ret;
}

int blk_request_pwrite_zeroes(BlkNode *node, uint64_t offset, uint64_t bytes, unsigned flags)
{
    uint32_t cheap = node->limits.zeroes_align;
    Units units = whole_units(node, offset, bytes, MAX(MAX(cheap, node->limits.write_align), 1));
    uint64_t head = MIN(units.start - offset, bytes), tail = MAX(offset + bytes, units.end) - units.end;
    int ret;

    if (cheap == 0 || units.start >= offset + bytes) {
        head = bytes;       /* nothing for the driver */
        tail = 0;
        units.end = units.start;
    }
    if ((flags & BLK_REQ_NO_FALLBACK) && head + tail > 0) {
        return -ENOTSUP;
    }
    ret = write_zero_buffers(node, offset, head, flags);
    if (ret == 0) {
        ret = zero_units(node, units.start, units.end - units.start, flags);
    }
    if (ret == 0) {
        ret = write_zero_buffers(node, units.end, tail, flags);
    }
    return blk_request_finish_write(node, flags, ret);
}

/* ---- discard ---- */

static int driver_discard(BlkNode *node, BlkRequest *req)
{
    if (node->driver->co_discard) {
        return node->driver->co_discard(node, req);
    }
    if (node->core->engine) {
        return blk_engine_co_discard(node, req);
    }
    return blk_driver_passes(node) && node->file ? blk_co_discard(node->file->node, req->offset, req->bytes) : 0;
}

bool blk_node_discards(const BlkNode *node)
{
    return node->core->flags.unmap && node->limits.discard_align > 0;
}

int blk_request_discard(BlkNode *node, uint64_t offset, uint64_t bytes)
{
    BlkRangeHold hold;
    BlkRequest req;
    Units units;
    int ret;

    units = whole_units(node, offset, bytes, MAX(node->limits.discard_align, 1));
    if (units.start >= units.end) {
        return 0;
    }
    req = (BlkRequest) { .offset = units.start, .bytes = units.end - units.start };
    blk_co_range_lock(&node->core->locks, &hold, req.offset, req.bytes, false);
    ret = units.end > node->length ? -EINVAL : driver_discard(node, &req);
    blk_range_unlock(&node->core->locks, &hold);
    node->core->write_gen++;
    return ret == -ENOTSUP ? 0 : ret;
}
