/* SPDX-License-Identifier: MIT */
/*
 * source.c - nodes as the source of a copy. See source.h.
 */
#include "jobs/source.h"

#include <inttypes.h>
#include <string.h>

enum { SECTOR = 512 };

/* The node at @offset; @start is where it begins. */
static BlkNode *node_at(const BlkNodesSource *s, uint64_t offset, uint64_t *start)
{
    *start = 0;
    for (unsigned i = 0; i < s->nodes->len; i++) {
        BlkNode *node = g_ptr_array_index(s->nodes, i);

        if (offset - *start < blk_node_length(node)) {
            return node;
        }
        *start += blk_node_length(node);
    }
    g_assert_not_reached();
}

static BlkExtentKind kind_of(const BlkNodesSource *s, const BlkStatus *status)
{
    if (!(status->flags & (BLK_STATUS_DATA | BLK_STATUS_ZERO | BLK_STATUS_ALLOCATED))
        || (s->below_top && status->depth == 0 && (status->flags & BLK_STATUS_ALLOCATED))) {
        return BLK_EXTENT_BACKING;
    }
    return (status->flags & BLK_STATUS_ZERO) && !s->ignore_zeroes ? BLK_EXTENT_ZERO : BLK_EXTENT_DATA;
}

static int nodes_co_extent(BlkSource *source, uint64_t offset, uint64_t bytes, BlkExtent *extent, GError **error)
{
    BlkNodesSource *s = (BlkNodesSource *)source;
    BlkStatus status;
    uint64_t start;
    BlkNode *node = node_at(s, offset, &start), *base = offset < s->base_end ? s->base : NULL;
    int ret;

    bytes = MIN(bytes, start + blk_node_length(node) - offset);
    if (base) {
        bytes = MIN(bytes, s->base_end - offset);
    }
    ret = blk_co_block_status_above(node, base, offset - start, bytes, &status);
    if (ret < 0 && s->unreadable) {     /* reading will tell which sectors are */
        *extent = (BlkExtent) { .kind = BLK_EXTENT_DATA, .bytes = MIN(bytes, SECTOR - offset % SECTOR) };
        return 0;
    }
    if (ret < 0) {
        return blk_error_errno(error, ret, "error while reading block status at offset %" PRIu64, offset);
    }
    *extent = (BlkExtent) { .kind = kind_of(s, &status), .bytes = status.bytes };
    return 0;
}

/* Sector by sector, what cannot be read as zeroes. */
static void co_salvage(BlkNodesSource *s, BlkNode *node, uint64_t start, uint64_t offset, uint64_t bytes, uint8_t *buf)
{
    while (bytes > 0) {
        uint64_t now = MIN(bytes, SECTOR - (offset - start) % SECTOR);
        int ret = blk_co_pread(node, offset - start, now, buf, 0);

        if (ret < 0) {
            s->unreadable(offset, ret, s->opaque);
            memset(buf, 0, now);
        }
        offset += now;
        buf += now;
        bytes -= now;
    }
}

static int nodes_co_read(BlkSource *source, uint64_t offset, uint64_t bytes, void *buf, GError **error)
{
    BlkNodesSource *s = (BlkNodesSource *)source;
    uint8_t *p = buf;

    while (bytes > 0) {
        uint64_t start;
        BlkNode *node = node_at(s, offset, &start);
        uint64_t now = MIN(bytes, start + blk_node_length(node) - offset);
        int ret = blk_co_pread(node, offset - start, now, p, 0);

        if (ret < 0 && s->unreadable) {
            co_salvage(s, node, start, offset, now, p);
        } else if (ret < 0) {
            return blk_error_errno(error, ret, "error while reading at byte %" PRIu64, offset);
        }
        offset += now;
        p += now;
        bytes -= now;
    }
    return 0;
}

int blk_nodes_source_init(BlkNodesSource *source, GPtrArray *nodes, GError **error)
{
    uint64_t length = 0, unit = 0;

    for (unsigned i = 0; i < nodes->len; i++) {
        unit = MAX(unit, blk_node_limits(g_ptr_array_index(nodes, i))->cluster_size);
        if (!g_uint64_checked_add(&length, length, blk_node_length(g_ptr_array_index(nodes, i)))
            || length > BLK_MAX_LENGTH) {
            return blk_error(error, -EFBIG, "The input images are too large together");
        }
    }
    *source = (BlkNodesSource) {
        .source = { .length = length, .unit = unit, .co_extent = nodes_co_extent, .co_read = nodes_co_read },
        .nodes = nodes,
        .base_end = UINT64_MAX,
    };
    return 0;
}
