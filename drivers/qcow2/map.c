/* SPDX-License-Identifier: MIT */
/*
 * map.c - where guest data lies: the walk from L1 through L2 (format specification, "Cluster mapping").
 *
 *     guest offset = | L1 index | L2 index | offset in cluster |
 *
 * Both tables are read through the metadata cache, in parts of a few KiB, so that an image of any size opens at once.
 */
#include "drivers/qcow2/qcow2.h"

int qcow2_entry_extent(const Qcow2 *q, uint64_t entry, uint64_t *offset, uint64_t *bytes)
{
    *offset = *bytes = 0;
    if (entry & QCOW2_COMPRESSED) {
        if (entry & QCOW2_COPIED) {
            return -EIO;
        }
        qcow2_compressed_decode(q->cluster_bits, entry, offset, bytes);
        /* Offset 0 would be the header; a payload that does not shrink may reach into one more sector, never further. */
        if (*offset < q->cluster_size || *bytes > q->cluster_size + 512 || *offset >= q->host_limit - *bytes) {
            return -EIO;
        }
        return 0;
    }
    *offset = entry & QCOW2_OFFSET_MASK;
    if (*offset == 0) {
        return entry & QCOW2_COPIED ? -EIO : 0;
    }
    if (*offset % q->cluster_size != 0 || *offset >= q->host_limit) {
        return -EIO;
    }
    *bytes = q->cluster_size;
    return 0;
}

int qcow2_co_l1_entry(BlkNode *node, uint64_t offset, uint64_t *entry)
{
    Qcow2 *q = node->opaque;
    uint64_t index = offset >> (q->cluster_bits + q->l2_bits);
    uint64_t place = q->header.l1_table_offset + index * 8;
    BlkMetaBlock *block;

    *entry = 0;
    if (index >= q->header.l1_size) {
        return 0;
    }
    int ret = blk_meta_co_get(q->meta, place, &block);
    if (ret < 0) {
        return ret;
    }
    *entry = qcow2_get64(block->data + (place - block->offset));
    blk_meta_put(q->meta, block);
    uint64_t table = *entry & QCOW2_OFFSET_MASK;
    if (table % q->cluster_size != 0 || table >= q->host_limit ||
        (table != 0 && table >= blk_node_length(node->file->node))) {
        return -EIO;
    }
    return 0;
}

/* Fills @map for the entry; host offsets are those of the cluster. */
static int map_entry(const Qcow2 *q, uint64_t entry, BlkMapping *map)
{
    uint64_t extent_bytes;
    int ret = qcow2_entry_extent(q, entry, &map->host_offset, &extent_bytes);

    if (ret < 0) {
        return ret;
    }
    map->kind = qcow2_entry_kind(q, entry);
    map->in_place = map->kind == BLK_MAP_DATA && (entry & QCOW2_COPIED);
    map->preallocated = map->kind == BLK_MAP_ZERO && map->host_offset != 0;
    map->host_bytes = map->kind == BLK_MAP_COMPRESSED ? extent_bytes : 0;
    return 0;
}

/* Does @next, the cluster @i after @first, go on what @first began? */
static bool map_continues(const Qcow2 *q, const BlkMapping *first, const BlkMapping *next, uint64_t i)
{
    if (next->kind != first->kind || next->in_place != first->in_place || next->preallocated != first->preallocated) {
        return false;
    }
    switch (first->kind) {
    case BLK_MAP_COMPRESSED:
        return false;
    case BLK_MAP_DATA:
        return next->host_offset == first->host_offset + (i << q->cluster_bits);
    case BLK_MAP_ZERO:
        return !first->preallocated || next->host_offset == first->host_offset + (i << q->cluster_bits);
    default:
        return true;
    }
}

int qcow2_co_map(BlkNode *node, uint64_t offset, uint64_t bytes, BlkMapping *map)
{
    Qcow2 *q = node->opaque;
    uint64_t in_cluster = offset & (q->cluster_size - 1), l1_entry;
    uint64_t table_span = UINT64_C(1) << (q->cluster_bits + q->l2_bits);
    BlkMetaBlock *block;
    int ret = qcow2_co_l1_entry(node, offset, &l1_entry);

    if (ret < 0) {
        return ret;
    }
    *map = (BlkMapping){ .kind = BLK_MAP_UNALLOCATED, .child = node->file };
    if ((l1_entry & QCOW2_OFFSET_MASK) == 0) {
        map->bytes = MIN(bytes, table_span - (offset & (table_span - 1)));
        return 0;
    }
    uint64_t place = qcow2_l2_entry_offset(q, l1_entry, offset);
    ret = blk_meta_co_get(q->meta, place, &block);
    if (ret < 0) {
        return ret;
    }
    const uint8_t *entry = block->data + (place - block->offset);
    uint64_t left = (block->offset + MIN(q->cluster_size, 4096) - place) / q->l2_entry_bytes;
    uint64_t wanted = (in_cluster + bytes + q->cluster_size - 1) >> q->cluster_bits, count = 1;
    ret = map_entry(q, qcow2_get64(entry), map);
    while (ret == 0 && count < MIN(left, wanted)) {
        BlkMapping next = { 0 };
        if (map_entry(q, qcow2_get64(entry + count * q->l2_entry_bytes), &next) < 0 || !map_continues(q, map, &next, count)) {
            break;
        }
        count++;
    }
    blk_meta_put(q->meta, block);
    map->bytes = MIN(bytes, (count << q->cluster_bits) - in_cluster);
    if (map->kind == BLK_MAP_COMPRESSED) {
        map->bytes = q->cluster_size - in_cluster;
    } else if (map->host_offset != 0) {
        map->host_offset += in_cluster;
    }
    return ret;
}
