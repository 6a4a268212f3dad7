/* SPDX-License-Identifier: MIT */
/*
 * write.c - new grains and their entries.
 *
 *     payload --flush--> new tables in the directories --flush--> entries of grains, in both tables --flush-->
 *
 * Grains are taken from the end of the file and stay what they are: they are overwritten where they lie, or zeroed
 * there, and never given back. Compressed ones are written once. What a crash leaves is a grain at the end that nothing
 * refers to.
 *
 * Limitations: with version 1 headers zeroes cannot be stored but as data where a backing must be hidden.
 */
#include "drivers/vmdk/vmdk.h"

#include <inttypes.h>

/* What a reservation keeps between reserve and publish. */
enum {
    PRIV_PLACE,             /* in the block of the entries: where the first is */
    PRIV_REDUNDANT,         /* block of the redundant entries, or 0 */
    PRIV_REDUNDANT_PLACE,
    PRIV_ACTION,
};

enum { KEEP, SET_ENTRIES };

static uint8_t *entry_at(const BlkMetaBlock *block, uint64_t place, uint64_t i)
{
    return block->data + place + i * 4;
}

static BlkMetaBlock *redundant_block(const BlkReservation *res)
{
    return (BlkMetaBlock *)(uintptr_t)res->priv[PRIV_REDUNDANT];
}

/* ---- space ---- */

static int take_end(VmdkExtent *extent, uint64_t bytes, uint64_t *offset)
{
    *offset = extent->end;
    if (extent->end + bytes > (VMDK_MAX_SECTOR + UINT64_C(1)) * VMDK_SECTOR) {
        return -EFBIG;              /* an entry has 32 bits */
    }
    extent->end += bytes;
    extent->grown = true;
    return 0;
}

/* Space for whole grains in a row, or for a payload; *bytes: (inout): may become less, one grain at least. */
static int take_space(VmdkExtent *extent, uint64_t *bytes, uint64_t *offset)
{
    if (extent->spare->len == 0) {
        return take_end(extent, *bytes, offset);
    }
    *offset = g_array_index(extent->spare, uint64_t, extent->spare->len - 1);
    *bytes = extent->grain_bytes;
    g_array_set_size(extent->spare, extent->spare->len - 1);
    return 0;
}

/* Whoever had taken it does not need it. */
static void give_space_back(VmdkExtent *extent, uint64_t offset, uint64_t bytes)
{
    if (extent->end == offset + bytes) {
        extent->end = offset;
        return;
    }
    for (uint64_t grain = offset; !vmdk_header_is_compressed(&extent->header) && grain < offset + bytes;
         grain += extent->grain_bytes) {
        g_array_append_val(extent->spare, grain);
    }
}

/* ---- tables ---- */

/* Who reads a compressed extent from its begin to its end expects a marker before a table. */
static int co_write_table_marker(const VmdkExtent *extent, uint64_t offset)
{
    uint8_t marker[VMDK_SECTOR];

    vmdk_marker_build(VMDK_MARKER_GT, vmdk_table_bytes(extent) / VMDK_SECTOR, marker);
    return blk_co_pwrite(extent->file->node, offset, sizeof(marker), marker, 0);
}

/* Writes a table of nothing at the end of the file, in whole grains where grains are aligned. */
static int co_write_empty_table(VmdkExtent *extent, uint64_t *offset)
{
    bool compressed = vmdk_header_is_compressed(&extent->header);
    uint64_t bytes = vmdk_table_bytes(extent), head = compressed ? VMDK_SECTOR : 0, space = head + bytes, start;

    if (!compressed) {
        space = (bytes + extent->grain_bytes - 1) & ~(extent->grain_bytes - 1);
    }
    int ret = take_end(extent, space, &start);
    if (ret < 0) {
        return ret;
    }
    ret = compressed ? co_write_table_marker(extent, start) : 0;
    if (ret == 0) {
        ret = blk_co_pwrite_zeroes(extent->file->node, start + head, space - head, 0);
    }
    if (ret < 0) {
        give_space_back(extent, start, space);
        return ret;
    }
    *offset = start + head;
    vmdk_add_table(extent, *offset, bytes);
    return 0;
}

static int co_set_directory(Vmdk *v, const VmdkExtent *extent, uint64_t gd, uint64_t index, uint64_t table)
{
    uint64_t place = gd + index * 4;
    BlkMetaBlock *block;
    int ret = blk_meta_co_get(v->meta, vmdk_address(extent, place), &block);

    if (ret == 0) {
        blk_put_le32(block->data + place % VMDK_SECTOR, (uint32_t)(table / VMDK_SECTOR));
        blk_meta_dirty(v->meta, block, BLK_META_COUNT_TABLE);
        blk_meta_put(v->meta, block);
    }
    return ret;
}

/* The table of that directory, which is made if it is missing. */
static int co_own_table(Vmdk *v, VmdkExtent *extent, uint64_t gd, uint64_t index, uint64_t *table)
{
    int ret = vmdk_co_table_offset(v, extent, gd, index, table);

    if (ret < 0 || *table > 1) {
        return ret;
    }
    if (*table == 1) {
        return -ENOTSUP;            /* a whole table of zeroes: nobody is known to write such */
    }
    blk_co_mutex_lock(&v->table_lock);
    ret = vmdk_co_table_offset(v, extent, gd, index, table);
    if (ret == 0 && *table == 0) {
        ret = co_write_empty_table(extent, table);
        if (ret == 0) {
            ret = co_set_directory(v, extent, gd, index, *table);
        }
    }
    blk_co_mutex_unlock(&v->table_lock);
    return ret;
}

/* Holds the block of the entry number @index of the table. */
static int co_get_entries(Vmdk *v, VmdkExtent *extent, uint64_t gd_sector, uint64_t grain, BlkMetaBlock **block,
                          uint64_t *place)
{
    uint64_t table, per_table = extent->header.gt_entries;
    int ret = co_own_table(v, extent, gd_sector * VMDK_SECTOR, grain / per_table, &table);

    if (ret < 0) {
        return ret;
    }
    *place = (table + grain % per_table * 4) % VMDK_SECTOR;
    return blk_meta_co_get_for(v->meta, vmdk_address(extent, table + grain % per_table * 4), BLK_EVENT_l2_load, block);
}

static void put_entries(Vmdk *v, BlkReservation *res)
{
    blk_meta_put(v->meta, res->slice);
    blk_meta_put(v->meta, redundant_block(res));
}

/* ---- reserve ---- */

static bool has_zero_entries(const VmdkExtent *extent)
{
    return extent->header.flags & VMDK_FLAG_ZEROED;
}

/* Does the entry refer to a grain? */
static bool is_grain(const VmdkExtent *extent, uint32_t entry)
{
    return entry > (has_zero_entries(extent) ? 1 : 0);
}

/* How many of the next @most entries are like the first: grains that follow each other, or none. */
static uint64_t run_of_entries(const VmdkExtent *extent, const BlkReservation *res, uint64_t most)
{
    uint32_t first = blk_get_le32(entry_at(res->slice, res->priv[PRIV_PLACE], 0));
    uint64_t sectors = extent->grain_bytes / VMDK_SECTOR, n = 1;

    for (; n < most; n++) {
        uint32_t next = blk_get_le32(entry_at(res->slice, res->priv[PRIV_PLACE], n));
        if (is_grain(extent, first) ? next != first + n * sectors : next != first) {
            break;
        }
    }
    return n;
}

/* The grain is there and cannot be written again. */
static int refuse_rewrite(BlkNode *node, uint64_t offset)
{
    Vmdk *v = node->opaque;

    if (!v->rewrite_told) {
        v->rewrite_told = true;
        blk_node_message(node, "the grain at offset %" PRIu64 " is stored compressed already, and in a streamOptimized "
                         "image a grain can be written once: convert the image, to qcow2 for example, to change it",
                         offset);
    }
    return -EIO;
}

static int reserve_data(BlkNode *node, VmdkExtent *extent, BlkReservation *res, bool taken)
{
    uint64_t bytes = (res->bytes + extent->grain_bytes - 1) & ~(extent->grain_bytes - 1);

    if (vmdk_header_is_compressed(&extent->header)) {
        return taken ? refuse_rewrite(node, res->offset) : -ENOTSUP;
    }
    if (taken) {
        return -EIO;                /* only a grain that lies on a table is not overwritten in place */
    }
    int ret = take_space(extent, &bytes, &res->host_offset);
    res->bytes = MIN(res->bytes, bytes);
    res->host_bytes = bytes;
    return ret;
}

static int reserve_payload(BlkNode *node, VmdkExtent *extent, BlkReservation *res, bool taken)
{
    if (taken) {
        return refuse_rewrite(node, res->offset);
    }
    res->bytes = extent->grain_bytes;
    res->host_bytes = (res->payload_bytes + VMDK_SECTOR - 1) & ~(uint64_t)(VMDK_SECTOR - 1);
    return take_space(extent, &res->host_bytes, &res->host_offset);
}

/* Zeroes, or a discard. Data is zeroed where it lies. */
static int reserve_nothing(BlkNode *node, const VmdkExtent *extent, BlkReservation *res, uint32_t entry)
{
    bool discard = res->kind == BLK_MAP_UNALLOCATED;

    if (res->bare) {
        return -ENOTSUP;
    }
    if (is_grain(extent, entry)) {
        if (vmdk_header_is_compressed(&extent->header)) {
            return discard ? -ENOTSUP : refuse_rewrite(node, res->offset);
        }
        res->host_offset = (uint64_t)entry * VMDK_SECTOR;
        res->zero_host = discard ? BLK_HOST_ZERO_IF_CHEAP : BLK_HOST_ZERO;
        return vmdk_is_table(extent, res->host_offset, res->host_bytes) ? -EIO : 0;
    }
    if (entry == 0 && !discard && (node->backing || res->hide)) {
        res->priv[PRIV_ACTION] = SET_ENTRIES;
        return has_zero_entries(extent) ? 0 : -ENOTSUP;
    }
    /* zeroes already; or a discard, which must not let the backing show less than before */
    return 0;
}

/* With the entries at hand. */
static int reserve_in_extent(BlkNode *node, VmdkExtent *extent, BlkReservation *res, uint64_t grains)
{
    uint32_t entry = blk_get_le32(entry_at(res->slice, res->priv[PRIV_PLACE], 0));

    res->bytes = MIN(res->bytes, run_of_entries(extent, res, grains) * extent->grain_bytes);
    res->host_bytes = res->bytes;
    switch (res->kind) {
    case BLK_MAP_DATA:
        res->priv[PRIV_ACTION] = SET_ENTRIES;
        return reserve_data(node, extent, res, is_grain(extent, entry));
    case BLK_MAP_COMPRESSED:
        res->priv[PRIV_ACTION] = SET_ENTRIES;
        return reserve_payload(node, extent, res, is_grain(extent, entry));
    default:
        return reserve_nothing(node, extent, res, entry);
    }
}

static int co_reserve_sparse(BlkNode *node, VmdkExtent *extent, BlkReservation *res)
{
    Vmdk *v = node->opaque;
    uint64_t grain = (res->offset - extent->start) / extent->grain_bytes, place, redundant_place = 0;
    BlkMetaBlock *block, *redundant = NULL;
    int ret = blk_meta_wants_commit(v->meta) ? blk_meta_co_commit(v->meta) : 0;

    ret = ret < 0 ? ret : co_get_entries(v, extent, extent->header.gd_sector, grain, &block, &place);
    if (ret < 0) {
        return ret;
    }
    if (extent->header.rgd_sector != 0) {
        ret = co_get_entries(v, extent, extent->header.rgd_sector, grain, &redundant, &redundant_place);
    }
    uint64_t grains = MIN((VMDK_SECTOR - place) / 4, (VMDK_SECTOR - redundant_place) / 4);
    grains = MIN(grains, extent->header.gt_entries - grain % extent->header.gt_entries);
    grains = MIN(grains, (extent->bytes + extent->grain_bytes - 1) / extent->grain_bytes - grain);
    res->slice = block;
    res->priv[PRIV_PLACE] = place;
    res->priv[PRIV_REDUNDANT] = (uintptr_t)redundant;
    res->priv[PRIV_REDUNDANT_PLACE] = redundant_place;
    if (ret == 0) {
        ret = reserve_in_extent(node, extent, res, grains);
    }
    if (ret < 0) {
        put_entries(v, res);
    }
    return ret;
}

/* A flat extent has all its space: only zeroes and discards come here. */
static int reserve_flat(const Vmdk *v, const VmdkExtent *extent, BlkReservation *res)
{
    if (res->kind == BLK_MAP_DATA || res->kind == BLK_MAP_COMPRESSED || res->bare) {
        return -ENOTSUP;
    }
    res->bytes = MIN(res->bytes, vmdk_extent_reach(v, extent, res->offset));
    res->host_bytes = MIN(res->bytes, extent->start + extent->bytes - res->offset);
    res->host_offset = extent->offset + (res->offset - extent->start);
    res->zero_host = res->kind == BLK_MAP_ZERO ? BLK_HOST_ZERO : BLK_HOST_ZERO_IF_CHEAP;
    return 0;
}

int vmdk_co_reserve(BlkNode *node, BlkReservation *res)
{
    VmdkExtent *extent = vmdk_extent_at(node->opaque, res->offset);

    res->child = extent->file;
    res->slice = NULL;
    memset(res->priv, 0, sizeof(res->priv));
    if (extent->access != VMDK_RW || extent->kind == VMDK_ZERO) {
        blk_node_message(node, "a write at offset %" PRIu64 " was refused: the descriptor says that this extent cannot "
                         "be written", res->offset);
        return -EACCES;
    }
    if (!extent->tables) {
        return extent->kind == VMDK_FLAT ? reserve_flat(node->opaque, extent, res) : -EROFS;
    }
    int ret = co_reserve_sparse(node, extent, res);
    if (ret == 0 && vmdk_header_is_compressed(&extent->header)) {
        ret = vmdk_co_change_cid(node);
        if (ret < 0) {
            vmdk_cancel(node, res);
        }
    }
    return ret;
}

/* ---- publish, cancel, commit ---- */

static void set_entries(Vmdk *v, const VmdkExtent *extent, BlkReservation *res, BlkMetaBlock *block, uint64_t place)
{
    uint64_t grains = (res->bytes + extent->grain_bytes - 1) / extent->grain_bytes;

    for (uint64_t i = 0; i < grains; i++) {
        uint64_t sector = res->kind == BLK_MAP_ZERO ? 1 : (res->host_offset + i * extent->grain_bytes) / VMDK_SECTOR;
        blk_put_le32(entry_at(block, place, i), (uint32_t)sector);
    }
    blk_meta_dirty(v->meta, block, BLK_META_MAP);
}

void vmdk_publish(BlkNode *node, BlkReservation *res)
{
    Vmdk *v = node->opaque;
    const VmdkExtent *extent = vmdk_extent_at(v, res->offset);

    if (res->priv[PRIV_ACTION] == SET_ENTRIES) {
        set_entries(v, extent, res, res->slice, res->priv[PRIV_PLACE]);
        if (redundant_block(res)) {
            set_entries(v, extent, res, redundant_block(res), res->priv[PRIV_REDUNDANT_PLACE]);
        }
    }
    put_entries(v, res);
}

void vmdk_cancel(BlkNode *node, BlkReservation *res)
{
    Vmdk *v = node->opaque;

    if (res->kind == BLK_MAP_DATA || res->kind == BLK_MAP_COMPRESSED) {
        give_space_back(vmdk_extent_at(v, res->offset), res->host_offset, res->host_bytes);
    }
    put_entries(v, res);
}

int vmdk_co_commit(BlkNode *node)
{
    Vmdk *v = node->opaque;

    return blk_meta_is_dirty(v->meta) ? blk_meta_co_commit(v->meta) : 0;
}

void vmdk_put_payload_head(BlkNode *node, const BlkReservation *res, uint8_t *head)
{
    const VmdkExtent *extent = vmdk_extent_at(node->opaque, res->offset);

    vmdk_grain_head_build(res->offset - extent->start, res->payload_bytes - VMDK_MARKER_HEAD, head);
}

/* ---- footers ---- */

static int co_write_footer(VmdkExtent *extent)
{
    uint8_t tail[VMDK_FOOTER_BYTES];

    vmdk_footer_build(&extent->header, tail);
    return blk_co_pwrite(extent->file->node, extent->end, sizeof(tail), tail, 0);
}

int vmdk_co_write_footers(BlkNode *node)
{
    const Vmdk *v = node->opaque;
    int ret = 0;

    for (unsigned i = 0; ret == 0 && i < v->count; i++) {
        VmdkExtent *extent = &v->extents[i];
        if (extent->footer && extent->grown) {
            ret = co_write_footer(extent);
        }
    }
    return ret;
}
