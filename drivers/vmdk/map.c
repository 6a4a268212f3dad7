/* SPDX-License-Identifier: MIT */
/*
 * map.c - where guest data lies: the extent, its grain directory (GD), a grain table (GT).
 *
 *     hosted, COWD   GD: sector of a table, 0: none   GT: sector of a grain, 0: none, 1: zeroes (if the header says so)
 *     seSparse       GD: 1 << 60 | number of a table  GT: 1, 2 << 60: zeroes, 3 << 60 | number of a grain, its lowest
 *                                                         12 bits first
 *
 * An entry of a compressed extent leads to a marker (guest sector, length), which the payload follows.
 */
#include "drivers/vmdk/vmdk.h"

#include "core/engine.h"

enum {
    SE_ENTRY_BYTES = 8,
    PAYLOAD_SLACK = 2048,       /* bytes by which a payload may exceed its grain: more no compressor needs */
};

#define SE_TABLE_IS_THERE UINT64_C(0x10000000)

/* What one entry says. */
typedef struct Entry {
    BlkMapKind kind;
    uint64_t offset;            /* DATA: of the grain */
} Entry;

static int decode_hosted(const VmdkExtent *extent, const uint8_t *place, Entry *entry)
{
    uint64_t sector = blk_get_le32(place);
    bool zeroed = extent->header.flags & VMDK_FLAG_ZEROED;

    entry->kind = sector == 0 ? BLK_MAP_UNALLOCATED : sector == 1 && zeroed ? BLK_MAP_ZERO : BLK_MAP_DATA;
    entry->offset = sector * VMDK_SECTOR;
    return 0;
}

static int decode_sesparse(const VmdkExtent *extent, const uint8_t *place, Entry *entry)
{
    uint64_t word = blk_get_le64(place);
    uint64_t number = (word & UINT64_C(0x0000ffffffffffff)) << 12 | (word >> 48 & 0xfff);

    switch (word >> 60) {
    case 0:
        entry->kind = BLK_MAP_UNALLOCATED;
        return word == 0 ? 0 : -EIO;
    case 1:         /* unmapped by the guest */
    case 2:
        entry->kind = BLK_MAP_ZERO;
        return 0;
    case 3:
        entry->kind = BLK_MAP_DATA;
        entry->offset = extent->header.grains_sector * VMDK_SECTOR + number * extent->grain_bytes;
        return number < VMDK_MAX_EXTENT_FILE / extent->grain_bytes ? 0 : -EIO;
    default:
        return -EIO;
    }
}

static int decode(const VmdkExtent *extent, const uint8_t *place, Entry *entry)
{
    int ret = extent->kind == VMDK_SESPARSE ? decode_sesparse(extent, place, entry)
                                            : decode_hosted(extent, place, entry);

    return ret == 0 && entry->kind == BLK_MAP_DATA && entry->offset >= blk_node_length(extent->file->node) ? -EIO : ret;
}

static bool continues(const VmdkExtent *extent, const Entry *first, const Entry *next, uint64_t grains)
{
    return next->kind == first->kind &&
           (first->kind != BLK_MAP_DATA || next->offset == first->offset + grains * extent->grain_bytes);
}

/* ---- tables ---- */

static int co_sesparse_table(Vmdk *v, const VmdkExtent *extent, uint64_t index, uint64_t *offset)
{
    const uint64_t table_bytes = extent->header.gt_entries * UINT64_C(8);
    uint64_t place = extent->header.gd_sector * VMDK_SECTOR + index * SE_ENTRY_BYTES;
    BlkMetaBlock *block;
    int ret = blk_meta_co_get_for(v->meta, vmdk_address(extent, place), BLK_EVENT_l2_load, &block);

    if (ret < 0) {
        return ret;
    }
    uint64_t word = blk_get_le64(block->data + place % VMDK_SECTOR), number = word & UINT32_MAX;
    blk_meta_put(v->meta, block);
    *offset = 0;
    if (word == 0) {
        return 0;
    }
    if (word >> 32 != SE_TABLE_IS_THERE || number >= extent->header.tables_sectors * VMDK_SECTOR / table_bytes) {
        return -EIO;
    }
    *offset = extent->header.tables_sector * VMDK_SECTOR + number * table_bytes;
    return *offset < blk_node_length(extent->file->node) ? 0 : -EIO;
}

static int co_table(Vmdk *v, const VmdkExtent *extent, uint64_t index, uint64_t *offset)
{
    return extent->kind == VMDK_SESPARSE
           ? co_sesparse_table(v, extent, index, offset)
           : vmdk_co_table_offset(v, extent, extent->header.gd_sector * VMDK_SECTOR, index, offset);
}

/* The entry of the grain at @in of the extent, and *grains: how many from it on the same block goes on with. */
static int co_look_up(Vmdk *v, const VmdkExtent *extent, uint64_t in, Entry *entry, uint64_t *grains)
{
    const unsigned entry_bytes = extent->kind == VMDK_SESPARSE ? SE_ENTRY_BYTES : 4;
    const uint64_t grain = in / extent->grain_bytes, per_table = extent->header.gt_entries;
    uint64_t table, index = grain % per_table;
    BlkMetaBlock *block;
    int ret = co_table(v, extent, grain / per_table, &table);

    if (ret < 0) {
        return ret;
    }
    *entry = (Entry){ .kind = table == 0 ? BLK_MAP_UNALLOCATED : BLK_MAP_ZERO };
    *grains = per_table - index;
    if (table <= 1) {
        return 0;
    }
    uint64_t place = table + index * entry_bytes;
    ret = blk_meta_co_get_for(v->meta, vmdk_address(extent, place), BLK_EVENT_l2_load, &block);
    if (ret < 0) {
        return ret;
    }
    const uint8_t *at = block->data + place % VMDK_SECTOR;
    uint64_t most = MIN(*grains, (VMDK_SECTOR - place % VMDK_SECTOR) / entry_bytes);
    Entry next;
    ret = decode(extent, at, entry);
    for (*grains = 1; ret == 0 && *grains < most; ++*grains) {
        if (decode(extent, at + *grains * entry_bytes, &next) < 0 || !continues(extent, entry, &next, *grains)) {
            break;
        }
    }
    blk_meta_put(v->meta, block);
    return ret;
}

/* ---- compressed grains ---- */

int vmdk_co_payload(const VmdkExtent *extent, uint64_t grain, uint64_t *offset, uint64_t *bytes, uint64_t *guest_sector)
{
    uint64_t most = extent->grain_bytes + PAYLOAD_SLACK, length = blk_node_length(extent->file->node);
    uint8_t head[VMDK_MARKER_HEAD];

    *offset = grain;
    *bytes = most;
    if (!(extent->header.flags & VMDK_FLAG_MARKERS)) {
        return 0;
    }
    if (length < sizeof(head) || grain > length - sizeof(head)) {
        return -EIO;
    }
    int ret = blk_co_pread(extent->file->node, grain, sizeof(head), head, 0);
    if (ret < 0) {
        return ret;
    }
    *offset = grain + sizeof(head);
    *bytes = blk_get_le32(head + 8);
    if (guest_sector) {
        *guest_sector = blk_get_le64(head);
    }
    return *bytes == 0 || *bytes > most || *bytes > length - *offset ? -EIO : 0;
}

static int co_map_compressed(const VmdkExtent *extent, uint64_t in, uint64_t grain, BlkMapping *map)
{
    uint64_t in_grain = in % extent->grain_bytes;

    map->kind = BLK_MAP_COMPRESSED;
    map->whole_cluster = true;
    map->bytes = extent->grain_bytes - in_grain;
    map->may_be_short = in - in_grain + extent->grain_bytes > extent->bytes;
    return vmdk_co_payload(extent, grain, &map->host_offset, &map->host_bytes, NULL);
}

/* ---- the map ---- */

static int co_map_sparse(BlkNode *node, const VmdkExtent *extent, uint64_t in, uint64_t bytes, BlkMapping *map)
{
    Vmdk *v = node->opaque;
    uint64_t in_grain = in % extent->grain_bytes, grains;
    Entry entry;
    int ret = co_look_up(v, extent, in, &entry, &grains);

    if (ret < 0) {
        return ret;
    }
    if (entry.kind == BLK_MAP_DATA && vmdk_header_is_compressed(&extent->header)) {
        return co_map_compressed(extent, in, entry.offset, map);
    }
    map->kind = entry.kind;
    map->bytes = MIN(bytes, grains * extent->grain_bytes - in_grain);
    if (entry.kind == BLK_MAP_DATA) {
        map->host_offset = entry.offset + in_grain;
        map->in_place = extent->tables && !vmdk_is_table(extent, entry.offset, grains * extent->grain_bytes);
    }
    return 0;
}

int vmdk_co_map(BlkNode *node, uint64_t offset, uint64_t bytes, BlkMapping *map)
{
    const VmdkExtent *extent = vmdk_extent_at(node->opaque, offset);
    uint64_t in = offset - extent->start;
    int ret = 0;

    bytes = MIN(bytes, vmdk_extent_reach(node->opaque, extent, offset));
    *map = (BlkMapping){ .child = extent->file, .bytes = bytes };
    if (extent->access == VMDK_NOACCESS) {
        return -EACCES;
    }
    if (extent->kind == VMDK_ZERO) {
        map->kind = BLK_MAP_ZERO;
    } else if (!extent->file) {
        ret = -ENOTSUP;
    } else if (extent->kind == VMDK_FLAT) {
        map->kind = BLK_MAP_DATA;
        map->in_place = extent->access == VMDK_RW;
        map->may_have_holes = true;
        map->host_offset = extent->offset + in;
    } else {
        ret = co_map_sparse(node, extent, in, bytes, map);
    }
    if (map->kind == BLK_MAP_UNALLOCATED && node->backing) {
        map->backing_ret = vmdk_check_parent(node);
    }
    return ret;
}
