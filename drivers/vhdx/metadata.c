/* SPDX-License-Identifier: MIT */
/*
 * metadata.c - the metadata of a VHDX ([MS-VHDX] 2.6): a table of 64 KiB at the begin of its region, and items behind it.
 */
#include "drivers/vhdx/vhdx.h"

#include <inttypes.h>

const uint8_t vhdx_file_parameters[UUID_BYTES] = {
    0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b,
};
const uint8_t vhdx_disk_size[UUID_BYTES] = {
    0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48, 0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8,
};
const uint8_t vhdx_disk_id[UUID_BYTES] = {
    0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45, 0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46,
};
const uint8_t vhdx_logical_sector[UUID_BYTES] = {
    0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47, 0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f,
};
const uint8_t vhdx_physical_sector[UUID_BYTES] = {
    0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44, 0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56,
};
const uint8_t vhdx_parent_locator[UUID_BYTES] = {
    0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45, 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c,
};

enum { PARAMETERS, DISK_SIZE, DISK_ID, LOGICAL_SECTOR, PHYSICAL_SECTOR, PARENT_LOCATOR, ITEMS };

typedef struct Item {
    const char *what;
    const uint8_t *id;
    uint32_t bytes;                 /* that it has at least */
} Item;

static const Item items[ITEMS] = {
    [PARAMETERS] = { "file parameters", vhdx_file_parameters, 8 },
    [DISK_SIZE] = { "size of the disk", vhdx_disk_size, 8 },
    [DISK_ID] = { "identifier of the disk", vhdx_disk_id, UUID_BYTES },
    [LOGICAL_SECTOR] = { "logical sector size", vhdx_logical_sector, 4 },
    [PHYSICAL_SECTOR] = { "physical sector size", vhdx_physical_sector, 4 },
    [PARENT_LOCATOR] = { "parent locator", vhdx_parent_locator, 0 },
};

static unsigned find_item(const uint8_t *entry)
{
    unsigned i = 0;

    while (i < ITEMS && memcmp(entry, items[i].id, UUID_BYTES) != 0) {
        i++;
    }
    return i;
}

/* Notes where the items are that we know: at[i], bytes in the file. */
static int parse_table(const VhdxState *s, const uint8_t *t, uint64_t at[ITEMS], GError **error)
{
    unsigned count = blk_get_le16(t + VHDX_M_COUNT);

    if (memcmp(t, "metadata", 8) != 0 || count > VHDX_MAX_ENTRIES) {
        return blk_error(error, -EINVAL, "Invalid VHDX: the table of its metadata is damaged");
    }
    for (unsigned n = 0; n < count; n++) {
        const uint8_t *entry = t + VHDX_M_ENTRIES + n * VHDX_M_ENTRY;
        uint32_t offset = blk_get_le32(entry + VHDX_M_OFFSET), bytes = blk_get_le32(entry + VHDX_M_LENGTH);
        uint32_t flags = blk_get_le32(entry + VHDX_M_FLAGS);
        unsigned i = flags & VHDX_M_IS_USER ? ITEMS : find_item(entry);
        if (i == ITEMS && flags & VHDX_M_IS_REQUIRED) {
            return blk_error(error, -ENOTSUP, "Unsupported VHDX: it has metadata of unknown kind that must be understood");
        }
        if (i == ITEMS) {
            continue;
        }
        if (at[i] != 0) {
            return blk_error(error, -EINVAL, "Invalid VHDX: it has more than one %s", items[i].what);
        }
        if (bytes < items[i].bytes || offset < VHDX_TABLE_BYTES || offset > s->metadata.bytes ||
            bytes > s->metadata.bytes - offset) {
            return blk_error(error, -EINVAL, "Invalid VHDX: its %s, %" PRIu32 " bytes at offset %" PRIu32
                             " of the metadata, cannot be", items[i].what, bytes, offset);
        }
        at[i] = s->metadata.offset + offset;
    }
    return 0;
}

static int apply_items(BlkNode *node, const uint64_t value[ITEMS], GError **error)
{
    VhdxState *s = node->opaque;
    uint32_t block = (uint32_t)value[PARAMETERS], logical = (uint32_t)value[LOGICAL_SECTOR];
    uint64_t size = value[DISK_SIZE];

    if (value[PARAMETERS] >> 32 & VHDX_HAS_PARENT) {
        return blk_error(error, -ENOTSUP, "Differencing VHDX images, whose other blocks are in a parent disk, are not "
                         "supported: merge the disk with its parent first");
    }
    if (block < VHDX_MIN_BLOCK || block > VHDX_MAX_BLOCK || (block & (block - 1)) != 0) {
        return blk_error(error, -EINVAL, "Invalid VHDX: blocks of %" PRIu32 " bytes: it must be a power of two from 1 MiB "
                         "to 256 MiB", block);
    }
    if (logical != 512 && logical != 4096) {
        return blk_error(error, -EINVAL, "Invalid VHDX: logical sectors of %" PRIu32 " bytes: it must be 512 or 4096",
                         logical);
    }
    if (size > VHDX_MAX_DISK) {
        return blk_error(error, -EFBIG, "Invalid VHDX: a disk of %" PRIu64 " bytes is larger than 64 TiB", size);
    }
    if (size % logical != 0) {
        return blk_error(error, -EINVAL, "Invalid VHDX: a disk of %" PRIu64 " bytes has no whole number of sectors of %" PRIu32,
                         size, logical);
    }
    s->table.block_size = block;
    s->table.blocks = (size + block - 1) / block;
    s->chunk_blocks = (UINT64_C(1) << 23) * logical / block;
    node->length = size;
    return 0;
}

int vhdx_co_read_metadata(BlkNode *node, GError **error)
{
    VhdxState *s = node->opaque;
    g_autofree uint8_t *t = g_malloc(VHDX_TABLE_BYTES);
    uint64_t at[ITEMS] = { 0 }, value[ITEMS] = { 0 };
    int ret = blk_co_pread(node->file->node, s->metadata.offset, VHDX_TABLE_BYTES, t, 0);

    if (ret < 0) {
        return blk_error_errno(error, ret, "Could not read the VHDX metadata");
    }
    ret = parse_table(s, t, at, error);
    for (unsigned i = 0; i < PARENT_LOCATOR && ret == 0; i++) {
        uint8_t bytes[8] = { 0 };
        if (at[i] == 0) {
            return blk_error(error, -EINVAL, "Invalid VHDX: it has no %s", items[i].what);
        }
        ret = blk_co_pread(node->file->node, at[i], MIN(items[i].bytes, sizeof(bytes)), bytes, 0);
        value[i] = blk_get_le64(bytes);
        if (ret < 0) {
            return blk_error_errno(error, ret, "Could not read the VHDX metadata");
        }
    }
    return ret < 0 ? ret : apply_items(node, value, error);
}
