/* SPDX-License-Identifier: MIT */
/*
 * tables.c - where the tables of a hosted sparse extent are.
 *
 *     header | descriptor | redundant GD | its tables | GD | its tables | grains ...       what we create
 *
 * Others put tables anywhere, so before an extent is written all its tables are found. They must not overlap, and
 * nothing of the guest is ever written over them, whatever an entry says.
 */
#include "drivers/vmdk/vmdk.h"

#include <inttypes.h>

enum { CHUNK_ENTRIES = 16384 };

uint64_t vmdk_table_bytes(const VmdkExtent *extent)
{
    uint64_t bytes = extent->header.gt_entries * UINT64_C(4);

    return (bytes + VMDK_SECTOR - 1) & ~(uint64_t)(VMDK_SECTOR - 1);
}

/* How many ranges begin at or before @offset. */
static unsigned ranges_before(const VmdkExtent *extent, uint64_t offset)
{
    unsigned first = 0, last = extent->tables->len;

    while (first < last) {
        unsigned middle = first + (last - first) / 2;
        if (g_array_index(extent->tables, VmdkRange, middle).start <= offset) {
            first = middle + 1;
        } else {
            last = middle;
        }
    }
    return first;
}

bool vmdk_is_table(const VmdkExtent *extent, uint64_t offset, uint64_t bytes)
{
    unsigned n = ranges_before(extent, offset + bytes - 1);

    return n > 0 && g_array_index(extent->tables, VmdkRange, n - 1).end > offset;
}

void vmdk_add_table(VmdkExtent *extent, uint64_t offset, uint64_t bytes)
{
    VmdkRange range = { .start = offset, .end = offset + bytes };

    g_array_insert_val(extent->tables, ranges_before(extent, offset), range);
}

static bool is_in_file(const VmdkExtent *extent, uint64_t offset, uint64_t bytes)
{
    uint64_t length = blk_node_length(extent->file->node);

    return offset < length && bytes <= length - offset;
}

int vmdk_co_table_offset(Vmdk *v, const VmdkExtent *extent, uint64_t gd, uint64_t index, uint64_t *offset)
{
    uint64_t place = gd + index * 4;
    BlkMetaBlock *block;
    int ret = blk_meta_co_get_for(v->meta, vmdk_address(extent, place), BLK_EVENT_l2_load, &block);

    if (ret < 0) {
        return ret;
    }
    uint64_t sector = blk_get_le32(block->data + place % VMDK_SECTOR);
    blk_meta_put(v->meta, block);
    if (sector == 0 || (sector == 1 && (extent->header.flags & VMDK_FLAG_ZEROED))) {
        *offset = sector;
        return 0;
    }
    *offset = sector * VMDK_SECTOR;
    return is_in_file(extent, *offset, vmdk_table_bytes(extent)) ? 0 : -EIO;
}

/* ---- finding all ---- */

static int bad_table(const VmdkExtent *extent, uint64_t index, uint64_t sector, GError **error)
{
    return blk_error(error, -EIO, "The grain table %" PRIu64 " of '%s' (sector %" PRIu64 ") does not lie in the file",
                     index, blk_node_filename(extent->file->node), sector);
}

static int co_add_directory(VmdkExtent *extent, uint64_t gd_sector, GError **error)
{
    const uint64_t entries = extent->header.gd_entries, table_bytes = vmdk_table_bytes(extent);
    VmdkRange gd = { .start = gd_sector * VMDK_SECTOR, .end = gd_sector * VMDK_SECTOR + entries * 4 };
    g_autofree uint8_t *chunk = g_malloc(CHUNK_ENTRIES * 4);

    if (entries == 0) {
        return 0;
    }
    g_array_append_val(extent->tables, gd);
    for (uint64_t i = 0; i < entries; i++) {
        if (i % CHUNK_ENTRIES == 0) {
            int ret = blk_co_pread(extent->file->node, gd.start + i * 4, MIN(entries - i, CHUNK_ENTRIES) * 4, chunk, 0);
            if (ret < 0) {
                return blk_error_errno(error, ret, "Could not read the grain directory of '%s'",
                                       blk_node_filename(extent->file->node));
            }
        }
        uint64_t sector = blk_get_le32(chunk + i % CHUNK_ENTRIES * 4);
        VmdkRange table = { .start = sector * VMDK_SECTOR, .end = sector * VMDK_SECTOR + table_bytes };
        if (sector == 0 || (sector == 1 && (extent->header.flags & VMDK_FLAG_ZEROED))) {
            continue;
        }
        if (!is_in_file(extent, table.start, table_bytes)) {
            return bad_table(extent, i, sector, error);
        }
        g_array_append_val(extent->tables, table);
    }
    return 0;
}

static gint compare_ranges(gconstpointer a, gconstpointer b)
{
    const VmdkRange *x = a, *y = b;

    return x->start < y->start ? -1 : x->start > y->start;
}

static int check_overlaps(const VmdkExtent *extent, GError **error)
{
    for (unsigned i = 1; i < extent->tables->len; i++) {
        uint64_t start = g_array_index(extent->tables, VmdkRange, i).start;
        if (g_array_index(extent->tables, VmdkRange, i - 1).end > start) {
            return blk_error(error, -EIO, "Two tables of '%s' overlap at offset %" PRIu64 ": the image is damaged, and "
                             "can only be read", blk_node_filename(extent->file->node), start);
        }
    }
    return 0;
}

/* New grains go to the end of the file, in front of its footer. */
static int co_find_end(VmdkExtent *extent, GError **error)
{
    BlkNode *file = extent->file->node;
    bool compressed = vmdk_header_is_compressed(&extent->header);
    uint64_t length = blk_node_length(file), unit = compressed ? VMDK_SECTOR : extent->grain_bytes;
    uint8_t tail[VMDK_FOOTER_BYTES];

    extent->end = (length + unit - 1) & ~(unit - 1);
    if (!compressed || length % VMDK_SECTOR != 0 || length < sizeof(tail)) {
        return 0;
    }
    int ret = blk_co_pread(file, length - sizeof(tail), sizeof(tail), tail, 0);
    if (ret < 0) {
        return blk_error_errno(error, ret, "Could not read the end of '%s'", blk_node_filename(file));
    }
    extent->footer = vmdk_is_footer(tail);
    extent->end -= extent->footer ? sizeof(tail) : 0;
    return 0;
}

static int co_find_tables_of(VmdkExtent *extent, GError **error)
{
    const VmdkHeader *h = &extent->header;
    VmdkRange header = { .start = 0, .end = VMDK_SECTOR };
    VmdkRange descriptor = {
        .start = h->descriptor_sector * VMDK_SECTOR,
        .end = (h->descriptor_sector + h->descriptor_sectors) * VMDK_SECTOR,
    };

    extent->spare = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    extent->tables = g_array_new(FALSE, FALSE, sizeof(VmdkRange));
    g_array_append_val(extent->tables, header);
    if (h->descriptor_sector != 0) {
        g_array_append_val(extent->tables, descriptor);
    }
    int ret = co_add_directory(extent, h->gd_sector, error);
    if (ret == 0 && h->rgd_sector != 0) {
        ret = co_add_directory(extent, h->rgd_sector, error);
    }
    if (ret == 0) {
        g_array_sort(extent->tables, compare_ranges);
        ret = check_overlaps(extent, error);
    }
    return ret == 0 ? co_find_end(extent, error) : ret;
}

int vmdk_co_find_tables(BlkNode *node, GError **error)
{
    Vmdk *v = node->opaque;
    int ret = 0;

    for (unsigned i = 0; ret == 0 && i < v->count; i++) {
        VmdkExtent *extent = &v->extents[i];
        if (extent->kind == VMDK_HOSTED && extent->access == VMDK_RW && extent->file) {
            ret = co_find_tables_of(extent, error);
        }
    }
    return ret;
}

void vmdk_forget_tables(Vmdk *v)
{
    for (unsigned i = 0; i < v->count; i++) {
        g_clear_pointer(&v->extents[i].tables, g_array_unref);
        g_clear_pointer(&v->extents[i].spare, g_array_unref);
    }
}
