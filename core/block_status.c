/* SPDX-License-Identifier: MIT */
/*
 * block_status.c - what lies where, in one node and through its backing chain.
 */
#include "core/request.h"

static int driver_status(BlkNode *node, uint64_t offset, uint64_t bytes, BlkStatus *status)
{
    if (node->driver->co_block_status) {
        return node->driver->co_block_status(node, offset, bytes, status);
    }
    if (node->core->engine) {
        return blk_engine_co_block_status(node, offset, bytes, status);
    }
    if (blk_driver_passes(node) && node->file) {
        return blk_co_block_status(node->file->node, offset, bytes, status);
    }
    status->flags = BLK_STATUS_DATA | BLK_STATUS_ALLOCATED;
    return 0;
}

int blk_request_block_status(BlkNode *node, uint64_t offset, uint64_t bytes, BlkStatus *status)
{
    int ret;

    *status = (BlkStatus) { .bytes = 0 };
    if (offset >= node->length) {
        status->flags = BLK_STATUS_EOF;
        return 0;
    }
    bytes = MIN(bytes, node->length - offset);
    if (bytes == 0) {
        return 0;
    }
    status->bytes = bytes;
    ret = driver_status(node, offset, bytes, status);
    if (ret < 0) {
        return ret;
    }
    status->bytes = MIN(status->bytes, bytes);
    g_assert(status->bytes > 0);
    status->flags &= ~BLK_STATUS_EOF;
    if (offset + status->bytes == node->length) {
        status->flags |= BLK_STATUS_EOF;
    }
    return 0;
}

int blk_co_block_status(BlkNode *node, uint64_t offset, uint64_t bytes, BlkStatus *status)
{
    int ret;

    blk_co_request_begin(&node);
    ret = blk_request_block_status(node, offset, bytes, status);
    blk_request_end(node);
    return ret;
}

static bool asks_backing(const BlkStatus *status)
{
    return !(status->flags & (BLK_STATUS_DATA | BLK_STATUS_ZERO | BLK_STATUS_ALLOCATED));
}

int blk_co_block_status_above(BlkNode *node, BlkNode *base, uint64_t offset, uint64_t bytes, BlkStatus *status)
{
    BlkNode *stop = base ? blk_node_skip_filters(base) : NULL;
    uint64_t end;
    int ret = blk_co_block_status(node, offset, bytes, status);

    if (ret < 0 || status->bytes == 0) {
        return ret;
    }
    end = node->length;
    for (unsigned depth = 1; asks_backing(status); depth++) {
        node = blk_node_backing(node);
        if (!node || node == stop) {
            break;
        }
        bytes = status->bytes;
        if (offset >= node->length) {
            /* A backing file that is shorter: the zeroes past its end are its overlay's. */
            status->flags = BLK_STATUS_ZERO | (status->flags & BLK_STATUS_OFFSET);
            status->depth = depth - 1;
            break;
        }
        ret = blk_co_block_status(node, offset, bytes, status);
        if (ret < 0) {
            return ret;
        }
        status->depth = depth;
    }
    status->flags &= ~BLK_STATUS_EOF;
    status->flags |= offset + status->bytes == end ? BLK_STATUS_EOF : 0;
    return 0;
}

void blk_co_status_look_below(BlkStatus *status)
{
    BlkStatus below;

    if (!(status->flags & BLK_STATUS_OFFSET) || !status->file ||
        (status->flags & (BLK_STATUS_DATA | BLK_STATUS_ZERO)) != BLK_STATUS_DATA ||
        blk_co_block_status(status->file, status->host_offset, status->bytes, &below) < 0) {
        return;
    }
    if (below.bytes == 0) {
        status->flags |= BLK_STATUS_ZERO;
        return;
    }
    if (below.bytes < status->bytes) {
        status->bytes = below.bytes;
        status->flags &= ~BLK_STATUS_EOF;
    }
    status->flags |= below.flags & BLK_STATUS_ZERO;
}

int blk_co_block_status_with_holes(BlkNode *node, uint64_t offset, uint64_t bytes, BlkStatus *status)
{
    int ret = blk_co_block_status_above(node, NULL, offset, bytes, status);

    if (ret == 0 && status->file != node) {
        blk_co_status_look_below(status);
    }
    return ret;
}
