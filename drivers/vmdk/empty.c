/* SPDX-License-Identifier: MIT */
/*
 * empty.c - drops all grains of an image, which then reads like its backing, or as zeroes.
 *
 *     content ID of the parent, stable --> entries of all tables 0, stable --> file cut off behind the tables
 *
 * Whoever empties an image has copied what it held to its parent, whose content ID has changed by that: so the image
 * takes over the new one. Before that, and in between, each grain reads as it did, wherever it is read from.
 *
 * Limitations: not of compressed images, nor of flat ones.
 */
#include "drivers/vmdk/vmdk.h"

static int check_extents(const Vmdk *v, GError **error)
{
    for (unsigned i = 0; i < v->count; i++) {
        if (!v->extents[i].tables || vmdk_header_is_compressed(&v->extents[i].header)) {
            return blk_error(error, -ENOTSUP, "Only sparse VMDK images without compression can be emptied");
        }
    }
    return 0;
}

static int co_clear_tables(Vmdk *v, const VmdkExtent *extent, uint64_t gd_sector)
{
    int ret = 0;

    for (uint64_t i = 0; ret == 0 && i < extent->header.gd_entries; i++) {
        uint64_t table;
        ret = vmdk_co_table_offset(v, extent, gd_sector * VMDK_SECTOR, i, &table);
        if (ret == 0 && table > 1) {
            ret = blk_co_pwrite_zeroes(extent->file->node, table, vmdk_table_bytes(extent), 0);
        }
    }
    return ret;
}

/* Tables are sorted by place. */
static uint64_t end_of_tables(const VmdkExtent *extent)
{
    uint64_t end = g_array_index(extent->tables, VmdkRange, extent->tables->len - 1).end;

    return (end + extent->grain_bytes - 1) & ~(extent->grain_bytes - 1);
}

static int co_empty_extent(Vmdk *v, VmdkExtent *extent, GError **error)
{
    const VmdkHeader *h = &extent->header;
    int ret = h->gd_entries > 0 ? co_clear_tables(v, extent, h->gd_sector) : 0;

    if (ret == 0 && h->rgd_sector != 0) {
        ret = co_clear_tables(v, extent, h->rgd_sector);
    }
    blk_meta_co_forget(v->meta, vmdk_address(extent, 0), VMDK_MAX_EXTENT_FILE);
    if (ret == 0) {
        ret = blk_co_flush(extent->file->node);
    }
    if (ret < 0) {
        return blk_error_errno(error, ret, "Could not clear the grain tables of '%s'", extent->filename);
    }
    g_array_set_size(extent->spare, 0);
    extent->end = MIN(extent->end, end_of_tables(extent));
    return blk_co_truncate(extent->file->node, extent->end, BLK_PREALLOC_OFF, error);
}

int vmdk_co_make_empty(BlkNode *node, GError **error)
{
    Vmdk *v = node->opaque;
    int ret = check_extents(v, error);

    if (ret == 0 && v->descriptor.parent_name) {
        ret = vmdk_co_change_backing(node, v->descriptor.parent_name, "vmdk", error);
    }
    if (ret == 0) {
        ret = vmdk_co_commit(node);
        ret = ret < 0 ? blk_error_errno(error, ret, "Could not write the grain tables") : 0;
    }
    for (unsigned i = 0; ret == 0 && i < v->count; i++) {
        ret = co_empty_extent(v, &v->extents[i], error);
    }
    return ret;
}
