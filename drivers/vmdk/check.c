/* SPDX-License-Identifier: MIT */
/*
 * check.c - are the tables of an image sound?
 *
 * Of each sparse extent: entries lead into the file, to no table and to no grain that another entry leads to; redundant
 * tables say the same; the markers of compressed grains name the guest sector they belong to. With `data`, every
 * compressed grain is decoded. Entries of redundant tables that differ are what can be repaired: the primary ones
 * count.
 *
 * Limitations: space that nothing refers to is not searched for: it is what crashes leave, and no reader minds it.
 */
#include "drivers/vmdk/vmdk.h"

#include "core/codec.h"

#include <inttypes.h>

typedef struct Check {
    BlkNode *node;
    Vmdk *v;
    const BlkCheckOptions *options;
    BlkCheckResult *result;
    VmdkExtent *extent;
    uint8_t *used;                  /* a bit for each sector of the extent's file */
    uint64_t sectors;
    uint8_t *data, *payload;        /* a grain each, and what a payload may exceed it by */
} Check;

static void G_GNUC_PRINTF(2, 3) finding(Check *c, const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    c->result->corruptions++;
    blk_check_tell(c->options, "ERROR %s: %s", c->extent->filename, text);
}

/* ---- space ---- */

/* Marks sectors as used. Returns: whether none of them was. */
static bool use(Check *c, uint64_t first, uint64_t count)
{
    bool free = true;

    for (uint64_t sector = first; sector < MIN(first + count, c->sectors); sector++) {
        uint8_t bit = 1u << sector % 8;
        free = free && !(c->used[sector / 8] & bit);
        c->used[sector / 8] |= bit;
    }
    return free;
}

static void use_tables(Check *c)
{
    const VmdkHeader *h = &c->extent->header;

    if (h->kind == VMDK_HOSTED) {
        use(c, 0, 1);
        use(c, h->descriptor_sector, h->descriptor_sectors);
    } else {
        use(c, 0, h->kind == VMDK_COWD ? 4 : 1);
    }
}

/* ---- one grain ---- */

static int co_decode(Check *c, uint64_t offset, uint64_t bytes, bool last)
{
    int ret = blk_co_pread(c->extent->file->node, offset, MIN(bytes, c->sectors * VMDK_SECTOR - offset), c->payload, 0);

    if (ret < 0) {
        return ret;
    }
    return last ? blk_co_codec_decompress_short(c->v->codec, c->data, c->extent->grain_bytes, c->payload, bytes)
                : blk_co_codec_decompress(c->v->codec, c->data, c->extent->grain_bytes, c->payload, bytes);
}

/* @in: of the grain in the extent; *sectors: (out): that it takes from @sector on */
static int co_check_payload(Check *c, uint64_t in, uint64_t sector, uint64_t *sectors)
{
    uint64_t offset, bytes, guest = in / VMDK_SECTOR;
    int ret = vmdk_co_payload(c->extent, sector * VMDK_SECTOR, &offset, &bytes, &guest);

    *sectors = 1;
    if (ret < 0) {
        finding(c, "the compressed grain of offset %#" PRIx64 " at sector %" PRIu64 " has a length that cannot be", in,
                sector);
        return ret == -EIO ? 0 : ret;
    }
    if (c->extent->header.flags & VMDK_FLAG_MARKERS) {
        *sectors = (offset + bytes + VMDK_SECTOR - 1) / VMDK_SECTOR - sector;
    }
    if (guest != in / VMDK_SECTOR) {
        finding(c, "the marker at sector %" PRIu64 " is for guest sector %" PRIu64 ", the tables for %" PRIu64, sector,
                guest, in / VMDK_SECTOR);
    }
    if (c->options->data && co_decode(c, offset, bytes, in + c->extent->grain_bytes > c->extent->bytes) < 0) {
        finding(c, "the compressed grain of offset %#" PRIx64 " at sector %" PRIu64 " does not decode", in, sector);
        c->result->data_errors++;
    }
    return 0;
}

static int co_check_entry(Check *c, uint64_t in, uint32_t sector)
{
    uint64_t sectors = MIN(c->extent->grain_bytes, c->extent->bytes - in) / VMDK_SECTOR;
    int ret = 0;

    if (sector == 0 || (sector == 1 && (c->extent->header.flags & VMDK_FLAG_ZEROED))) {
        return 0;
    }
    if (sector >= c->sectors) {
        finding(c, "the grain of offset %#" PRIx64 " is said to lie at sector %u, behind the end of the file", in,
                sector);
        return 0;
    }
    if (vmdk_header_is_compressed(&c->extent->header)) {
        ret = co_check_payload(c, in, sector, &sectors);
    }
    if (!use(c, sector, sectors)) {
        finding(c, "the grain of offset %#" PRIx64 " at sector %u overlaps another, or a table", in, sector);
    }
    return ret;
}

/* ---- tables ---- */

/* Makes the redundant table the same, if it is to be. */
static int co_compare_tables(Check *c, uint64_t index, const uint8_t *table, uint64_t redundant)
{
    uint64_t bytes = c->extent->header.gt_entries * UINT64_C(4);
    g_autofree uint8_t *other = g_malloc(bytes);
    int ret = blk_co_pread(c->extent->file->node, redundant, bytes, other, 0);

    if (ret < 0 || memcmp(table, other, bytes) == 0) {
        return ret;
    }
    finding(c, "the redundant grain table %" PRIu64 " differs from the primary one", index);
    if (!c->options->fix_errors || c->node->read_only) {
        return 0;
    }
    ret = blk_co_pwrite(c->extent->file->node, redundant, bytes, table, 0);
    if (ret == 0) {
        c->result->corruptions--;
        c->result->corruptions_fixed++;
        blk_meta_co_forget(c->v->meta, vmdk_address(c->extent, redundant), bytes);
    }
    return ret;
}

/* *table: (out): 0: there is nothing to be looked at */
static int co_find_table(Check *c, uint64_t gd_sector, uint64_t index, const char *which, uint64_t *table)
{
    int ret = vmdk_co_table_offset(c->v, c->extent, gd_sector * VMDK_SECTOR, index, table);

    if (ret == -EIO) {
        finding(c, "the %s grain table %" PRIu64 " does not lie in the file", which, index);
        *table = 0;
        return 0;
    }
    if (ret == 0 && *table > 1 && !use(c, *table / VMDK_SECTOR, vmdk_table_bytes(c->extent) / VMDK_SECTOR)) {
        finding(c, "the %s grain table %" PRIu64 " at offset %" PRIu64 " overlaps another table", which, index, *table);
    }
    *table = *table > 1 ? *table : 0;
    return ret;
}

/* Tables are found before grains, so that a grain over a table is seen. */
static int co_check_table(Check *c, uint64_t index, bool grains)
{
    const VmdkHeader *h = &c->extent->header;
    uint64_t bytes = h->gt_entries * UINT64_C(4), span = h->gt_entries * c->extent->grain_bytes, table, redundant = 0;
    g_autofree uint8_t *entries = g_malloc(bytes);
    int ret;

    if (!grains) {
        ret = co_find_table(c, h->gd_sector, index, "primary", &table);
        return ret == 0 && h->rgd_sector ? co_find_table(c, h->rgd_sector, index, "redundant", &redundant) : ret;
    }
    ret = vmdk_co_table_offset(c->v, c->extent, h->gd_sector * VMDK_SECTOR, index, &table);
    if (ret < 0 || table <= 1) {
        return ret == -EIO ? 0 : ret;
    }
    ret = blk_co_pread(c->extent->file->node, table, bytes, entries, 0);
    for (uint64_t i = 0; ret == 0 && i < h->gt_entries &&
         index * span + i * c->extent->grain_bytes < c->extent->bytes; i++) {
        ret = co_check_entry(c, index * span + i * c->extent->grain_bytes, blk_get_le32(entries + i * 4));
    }
    if (ret == 0 && h->rgd_sector &&
        vmdk_co_table_offset(c->v, c->extent, h->rgd_sector * VMDK_SECTOR, index, &redundant) == 0 && redundant > 1) {
        ret = co_compare_tables(c, index, entries, redundant);
    }
    return ret;
}

static int co_check_extent(Check *c)
{
    const VmdkHeader *h = &c->extent->header;
    int ret = 0;

    use_tables(c);
    for (unsigned grains = 0; grains < 2; grains++) {
        for (uint64_t i = 0; ret == 0 && i < h->gd_entries; i++) {
            ret = co_check_table(c, i, grains);
            if (c->options->progress && grains) {
                c->options->progress(((double)(i + 1) / h->gd_entries + c->extent->index) / c->v->count,
                                     c->options->opaque);
            }
        }
        if (!grains) {
            use(c, h->gd_sector, (h->gd_entries * 4 + VMDK_SECTOR - 1) / VMDK_SECTOR);
            use(c, h->rgd_sector, h->rgd_sector ? (h->gd_entries * 4 + VMDK_SECTOR - 1) / VMDK_SECTOR : 0);
        }
    }
    return ret;
}

/* ---- seSparse: what the map says ---- */

static int co_check_map(Check *c)
{
    BlkMapping map;

    for (uint64_t in = 0; in < c->extent->bytes; in += map.bytes) {
        int ret = vmdk_co_map(c->node, c->extent->start + in, c->extent->bytes - in, &map);
        if (ret < 0 && ret != -EIO) {
            return ret;
        }
        if (ret < 0) {
            finding(c, "the entry of offset %#" PRIx64 " cannot be", in);
            map.bytes = c->extent->grain_bytes - in % c->extent->grain_bytes;
        }
    }
    return 0;
}

/* ---- all ---- */

static int co_check_one(Check *c, GError **error)
{
    uint64_t bytes = c->extent->grain_bytes;

    c->sectors = (blk_node_length(c->extent->file->node) + VMDK_SECTOR - 1) / VMDK_SECTOR;
    c->used = g_try_malloc0(c->sectors / 8 + 1);
    c->data = blk_buffer_try_alloc(NULL, bytes);
    c->payload = blk_buffer_try_alloc(NULL, 2 * bytes + VMDK_SECTOR);
    int ret = !c->used || !c->data || !c->payload ? -ENOMEM
              : c->extent->kind == VMDK_SESPARSE ? co_check_map(c) : co_check_extent(c);
    g_clear_pointer(&c->used, g_free);
    g_clear_pointer(&c->data, blk_buffer_free);
    g_clear_pointer(&c->payload, blk_buffer_free);
    return ret < 0 ? blk_error_errno(error, ret, "Could not check '%s'", c->extent->filename) : 0;
}

int vmdk_co_check(BlkNode *node, const BlkCheckOptions *options, BlkCheckResult *result, GError **error)
{
    Vmdk *v = node->opaque;
    Check check = { .node = node, .v = v, .options = options, .result = result };

    if (options->fix_leaks && !options->fix_errors) {
        return blk_error(error, -ENOTSUP, "Leaks of VMDK images are not looked for");
    }
    int ret = vmdk_co_commit(node);

    if (ret < 0) {
        return blk_error_errno(error, ret, "could not write the tables");
    }
    for (unsigned i = 0; ret == 0 && i < v->count; i++) {
        check.extent = &v->extents[i];
        if (check.extent->access == VMDK_NOACCESS || check.extent->kind == VMDK_ZERO ||
            check.extent->kind == VMDK_FLAT) {
            continue;
        }
        ret = check.extent->file ? co_check_one(&check, error)
              : blk_error(error, -EPERM, "The extent '%s' was not opened: it is no plain file beside the image",
                          check.extent->filename);
    }
    if (ret == 0 && check.result->corruptions_fixed > 0) {
        ret = blk_co_flush(node->file->node);
    }
    return ret;
}
