/* SPDX-License-Identifier: MIT */
/*
 * regions.c - the region table of a VHDX ([MS-VHDX] 2.2.3): where the BAT and the metadata are. What else it names is kept,
 * unless it must be understood.
 */
#include "drivers/vhdx/vhdx.h"

#include "core/crc32c.h"

#include <inttypes.h>

const uint8_t vhdx_bat_region[UUID_BYTES] = {
    0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42, 0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08,
};
const uint8_t vhdx_metadata_region[UUID_BYTES] = {
    0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e,
};

static bool is_table(uint8_t *t)
{
    uint32_t checksum = blk_get_le32(t + VHDX_R_CHECKSUM);

    blk_put_le32(t + VHDX_R_CHECKSUM, 0);
    return memcmp(t, "regi", 4) == 0 && blk_get_le32(t + VHDX_R_COUNT) <= VHDX_MAX_ENTRIES &&
           blk_crc32c(0, t, VHDX_TABLE_BYTES) == checksum;
}

static int compare_extents(const void *a, const void *b)
{
    const VhdxExtent *x = a, *y = b;

    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Sorts what lies in the file; no two of them may lie in one place. */
static int sort_extents(VhdxState *s, GError **error)
{
    g_array_sort(s->extents, compare_extents);
    for (guint i = 1; i < s->extents->len; i++) {
        const VhdxExtent *x = &g_array_index(s->extents, VhdxExtent, i - 1), *y = x + 1;
        if (y->offset - x->offset < x->bytes) {
            return blk_error(error, -EINVAL, "Invalid VHDX: what lies at offsets %" PRIu64 " and %" PRIu64
                             " of the file overlaps", x->offset, y->offset);
        }
    }
    return 0;
}

bool vhdx_is_taken(const VhdxState *s, uint64_t offset, uint64_t bytes)
{
    guint low = 0, high = s->extents->len;

    while (low < high) {            /* finds the first that ends behind @offset */
        guint middle = (low + high) / 2;
        const VhdxExtent *x = &g_array_index(s->extents, VhdxExtent, middle);
        if (x->offset + x->bytes <= offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < s->extents->len && g_array_index(s->extents, VhdxExtent, low).offset < offset + bytes;
}

static int parse_region(BlkNode *node, const uint8_t *entry, GError **error)
{
    VhdxState *s = node->opaque;
    VhdxExtent x = { blk_get_le64(entry + VHDX_R_OFFSET), blk_get_le32(entry + VHDX_R_LENGTH) };
    bool is_bat = memcmp(entry, vhdx_bat_region, UUID_BYTES) == 0;
    bool is_metadata = memcmp(entry, vhdx_metadata_region, UUID_BYTES) == 0;
    VhdxExtent *known = is_bat ? &s->bat : is_metadata ? &s->metadata : NULL;

    if (!known && blk_get_le32(entry + VHDX_R_REQUIRED) & 1) {
        return blk_error(error, -ENOTSUP, "Unsupported VHDX: it has a region of unknown kind (at offset %" PRIu64 ") that "
                         "must be understood", x.offset);
    }
    if (!vhdx_may_lie(x.offset, x.bytes)) {
        return blk_error(error, -EINVAL, "Invalid VHDX: a region of %" PRIu64 " bytes cannot be at offset %" PRIu64, x.bytes,
                         x.offset);
    }
    if (known && known->bytes > 0) {
        return blk_error(error, -EINVAL, "Invalid VHDX: its region table names the %s twice", is_bat ? "BAT" : "metadata");
    }
    if (known && x.offset + x.bytes > blk_node_length(node->file->node)) {
        return blk_error(error, -EINVAL, "Invalid VHDX: the file ends within its %s", is_bat ? "BAT" : "metadata");
    }
    if (known) {
        *known = x;
    }
    g_array_append_val(s->extents, x);
    return 0;
}

int vhdx_co_read_regions(BlkNode *node, GError **error)
{
    VhdxState *s = node->opaque;
    VhdxExtent taken[] = { { 0, VHDX_MIB }, { s->header.log_offset, s->header.log_length } };
    g_autofree uint8_t *t = g_malloc(VHDX_TABLE_BYTES);
    bool valid = false;
    int ret = 0;

    for (unsigned copy = 0; copy < 2 && ret == 0 && !valid; copy++) {
        ret = blk_co_pread(node->file->node, VHDX_REGIONS_AT + copy * VHDX_TABLE_BYTES, VHDX_TABLE_BYTES, t, 0);
        valid = ret == 0 && is_table(t);
    }
    if (ret < 0) {
        return blk_error_errno(error, ret, "Could not read the VHDX region table");
    }
    if (!valid) {
        return blk_error(error, -EINVAL, "Invalid VHDX: neither of its two region tables is valid");
    }
    s->extents = g_array_new(FALSE, FALSE, sizeof(VhdxExtent));
    g_array_append_vals(s->extents, taken, G_N_ELEMENTS(taken));
    for (uint32_t i = 0; i < blk_get_le32(t + VHDX_R_COUNT) && ret == 0; i++) {
        ret = parse_region(node, t + VHDX_R_ENTRIES + i * VHDX_R_ENTRY, error);
    }
    if (ret == 0 && (s->bat.bytes == 0 || s->metadata.bytes == 0)) {
        return blk_error(error, -EINVAL, "Invalid VHDX: its region table does not name the %s",
                         s->bat.bytes == 0 ? "BAT" : "metadata");
    }
    return ret < 0 ? ret : sort_extents(s, error);
}
