/* SPDX-License-Identifier: MIT */
/*
 * engine_status.c - block status of a format node, from the same answers that reads use.
 */
#include "core/engine.h"
#include "core/request.h"

static void status_of(BlkNode *node, const BlkMapping *map, BlkStatus *status)
{
    *status = (BlkStatus){ .bytes = map->bytes };
    switch (map->kind) {
    case BLK_MAP_DATA:
        status->flags = BLK_STATUS_DATA | BLK_STATUS_ALLOCATED | BLK_STATUS_OFFSET;
        break;
    case BLK_MAP_ZERO:
        status->flags = BLK_STATUS_ZERO | BLK_STATUS_ALLOCATED | (map->preallocated ? BLK_STATUS_OFFSET : 0);
        break;
    case BLK_MAP_COMPRESSED:
        status->flags = BLK_STATUS_DATA | BLK_STATUS_ALLOCATED | BLK_STATUS_COMPRESSED;
        break;
    case BLK_MAP_UNALLOCATED:
        status->flags = (node->backing ? 0 : BLK_STATUS_ZERO) | (map->preallocated ? BLK_STATUS_OFFSET : 0);
        break;
    }
    if (status->flags & BLK_STATUS_OFFSET) {
        status->file = map->child->node;
        status->host_offset = map->host_offset;
    }
}

/* Does @next hold for what follows @status? */
static bool status_continues(const BlkStatus *status, const BlkStatus *next)
{
    return next->flags == status->flags &&
           (!(status->flags & BLK_STATUS_OFFSET) ||
            (next->file == status->file && next->host_offset == status->host_offset + status->bytes));
}

int blk_engine_co_block_status(BlkNode *node, uint64_t offset, uint64_t bytes, BlkStatus *status)
{
    BlkMapping map;
    BlkStatus next;
    int ret = node->driver->format->co_map(node, offset, bytes, &map);

    if (ret < 0) {
        return ret;
    }
    bool look_below = map.kind == BLK_MAP_DATA && map.may_have_holes;
    status_of(node, &map, status);
    while (status->bytes < bytes) {
        ret = node->driver->format->co_map(node, offset + status->bytes, bytes - status->bytes, &map);
        if (ret < 0) {
            break;              /* the error is reported when somebody asks there */
        }
        status_of(node, &map, &next);
        if (!status_continues(status, &next)) {
            break;
        }
        status->bytes += next.bytes;
    }
    status->bytes = MIN(status->bytes, bytes);
    if (look_below) {
        blk_co_status_look_below(status);
    }
    return 0;
}
