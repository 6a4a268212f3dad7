/* SPDX-License-Identifier: MIT */
/*
 * header.c - headers of sparse extents. All numbers are little-endian.
 *
 * Hosted sparse ("Virtual Disk Format", "Hosted Sparse Extents" and "Stream-Optimized Compressed Sparse Extents"), 512
 * bytes:
 *
 *      0 KDMV      8 flags      20 grain sectors      36 descriptor sectors  48 redundant GD  64 overhead
 *      4 version  12 capacity   28 descriptor sector  44 entries of a table  56 GD            72 unclean, line ends
 *     77 compression
 *
 *     GD = -1: the directory is found by the footer, a copy of the header in the last but one sector of the file
 *
 * COWD ("ESX Server Sparse Extents"), 2048 bytes: 0 COWD, 4 version, 8 flags, 12 capacity, 16 grain sectors, 20 GD, 24
 * entries of the directory. Tables have 4096 entries.
 *
 * seSparse (no published specification; what images have): two headers of a sector, of numbers of 8 bytes.
 *
 *     constant  0 cafebabe  8 version 2.1  16 capacity  24 grain sectors  32 table sectors
 *             80 volatile header  88 its sectors  128 GD  136 its sectors  144 tables  152 their sectors
 *             192 grains  200 their sectors
 *     volatile  0 cafecafe  24 the journal must be replayed
 */
#include "drivers/vmdk/vmdk.h"

#include <inttypes.h>

enum {
    OLD_VERSION = 1, MAX_VERSION = 3,
    FOOTER_BYTES = 1024,                /* footer, end of the stream */
    COWD_BYTES = 64,                    /* that we look at */
    SE_GRAIN_SECTORS = 8, SE_TABLE_SECTORS = 64, SE_ENTRY_BYTES = 8,
};

#define SE_CONSTANT_MAGIC UINT64_C(0xcafebabe)
#define SE_VOLATILE_MAGIC UINT64_C(0xcafecafe)
#define SE_VERSION UINT64_C(0x0000000200000001)

static const char line_ends[4] = { '\n', ' ', '\r', '\n' };

bool vmdk_header_probe(const uint8_t *head, size_t bytes)
{
    return bytes >= 4 && (memcmp(head, "KDMV", 4) == 0 || memcmp(head, "COWD", 4) == 0);
}

static int co_read(BlkNode *file, uint64_t offset, void *buf, uint64_t bytes, const char *what, GError **error)
{
    uint64_t length = blk_node_length(file);
    int ret;

    if (offset > length || bytes > length - offset) {
        return blk_error(error, -EINVAL, "'%s' is too short for %s", blk_node_filename(file), what);
    }
    ret = blk_co_pread(file, offset, bytes, buf, 0);
    return ret < 0 ? blk_error_errno(error, ret, "Could not read %s of '%s'", what, blk_node_filename(file)) : 0;
}

/* ---- what all have ---- */

/* Do @sectors from @first on lie within what we can address? */
static bool is_place(uint64_t first, uint64_t sectors)
{
    const uint64_t limit = VMDK_MAX_EXTENT_FILE / VMDK_SECTOR;

    return first < limit && sectors <= limit - first;
}

static int check_geometry(const BlkNode *file, VmdkHeader *h, GError **error)
{
    const char *name = blk_node_filename(file);
    uint64_t max_grain = (vmdk_header_is_compressed(h) ? VMDK_MAX_COMPRESSED_GRAIN : VMDK_MAX_GRAIN) / VMDK_SECTOR;

    if (h->capacity_sectors > BLK_MAX_LENGTH / VMDK_SECTOR) {
        return blk_error(error, -EFBIG, "The capacity of '%s' is too large: %" PRIu64 " sectors", name,
                         h->capacity_sectors);
    }
    if (h->grain_sectors == 0 || (h->grain_sectors & (h->grain_sectors - 1)) != 0 || h->grain_sectors > max_grain) {
        return blk_error(error, -EINVAL, "The grain size of '%s', %" PRIu64 " sectors, is no power of two up to "
                         "%" PRIu64, name, h->grain_sectors, max_grain);
    }
    if (h->gt_entries == 0 || h->gt_entries > VMDK_COWD_GT_ENTRIES ||
        (h->kind == VMDK_HOSTED && h->gt_entries > VMDK_GT_ENTRIES)) {
        return blk_error(error, -EINVAL, "The grain tables of '%s' have %u entries: it may be 1 to %d", name,
                         h->gt_entries, VMDK_GT_ENTRIES);
    }
    h->gd_entries = vmdk_count_tables(h);
    if (h->gd_entries > VMDK_MAX_TABLES) {
        return blk_error(error, -EFBIG, "'%s' has too many grain tables: %" PRIu64, name, h->gd_entries);
    }
    return 0;
}

/* The directory begins behind the header, and the file has it. */
static int check_directory(const BlkNode *file, const VmdkHeader *h, uint64_t sector, unsigned entry_bytes,
                           GError **error)
{
    uint64_t bytes = h->gd_entries * entry_bytes, length = blk_node_length(file);

    if (sector == 0 || !is_place(sector, bytes / VMDK_SECTOR + 1) || sector * VMDK_SECTOR > length ||
        bytes > length - sector * VMDK_SECTOR) {
        return blk_error(error, -EINVAL, "The grain directory of '%s' (sector %" PRIu64 ", %" PRIu64 " entries) does "
                         "not lie in the file", blk_node_filename(file), sector, h->gd_entries);
    }
    return 0;
}

uint64_t vmdk_count_tables(const VmdkHeader *h)
{
    uint64_t sectors = h->grain_sectors * h->gt_entries;

    return h->capacity_sectors / sectors + (h->capacity_sectors % sectors != 0);
}

/* ---- hosted ---- */

static void decode_hosted(const uint8_t *s, VmdkHeader *h)
{
    *h = (VmdkHeader){
        .kind = VMDK_HOSTED,
        .version = blk_get_le32(s + 4),
        .flags = blk_get_le32(s + 8),
        .capacity_sectors = blk_get_le64(s + 12),
        .grain_sectors = blk_get_le64(s + 20),
        .descriptor_sector = blk_get_le64(s + 28),
        .descriptor_sectors = blk_get_le64(s + 36),
        .gt_entries = blk_get_le32(s + 44),
        .rgd_sector = blk_get_le64(s + 48),
        .gd_sector = blk_get_le64(s + 56),
        .overhead_sectors = blk_get_le64(s + 64),
        .compression = blk_get_le16(s + 77),
    };
}

void vmdk_header_build(const VmdkHeader *h, uint8_t *s)
{
    memset(s, 0, VMDK_SECTOR);
    memcpy(s, "KDMV", 4);
    blk_put_le32(s + 4, h->version);
    blk_put_le32(s + 8, h->flags);
    blk_put_le64(s + 12, h->capacity_sectors);
    blk_put_le64(s + 20, h->grain_sectors);
    blk_put_le64(s + 28, h->descriptor_sector);
    blk_put_le64(s + 36, h->descriptor_sectors);
    blk_put_le32(s + 44, h->gt_entries);
    blk_put_le64(s + 48, h->rgd_sector);
    blk_put_le64(s + 56, h->gd_sector);
    blk_put_le64(s + 64, h->overhead_sectors);
    memcpy(s + 73, line_ends, sizeof(line_ends));
    blk_put_le16(s + 77, h->compression);
}

static int check_hosted(const BlkNode *file, const uint8_t *s, const VmdkHeader *h, GError **error)
{
    const char *name = blk_node_filename(file);
    bool compressed = h->flags & VMDK_FLAG_COMPRESSED;

    if (memcmp(s, "KDMV", 4) != 0) {
        return blk_error(error, -EINVAL, "The footer of '%s' is missing: the file was cut off", name);
    }
    if (h->version < OLD_VERSION || h->version > MAX_VERSION) {
        return blk_error(error, -ENOTSUP, "Unsupported VMDK version %u of '%s'", h->version, name);
    }
    if ((h->flags & VMDK_FLAG_NEWLINES) && memcmp(s + 73, line_ends, sizeof(line_ends)) != 0) {
        return blk_error(error, -EINVAL, "'%s' was damaged by a transfer that changed line ends", name);
    }
    if (compressed != (h->compression != 0) || h->compression > 1) {
        return blk_error(error, -EINVAL, "The flags of '%s' (%#x) contradict its compression algorithm, %u", name,
                         h->flags, h->compression);
    }
    if (h->descriptor_sector != 0 &&
        (!is_place(h->descriptor_sector, h->descriptor_sectors) || h->descriptor_sectors == 0 ||
         h->descriptor_sectors > VMDK_MAX_DESCRIPTOR / VMDK_SECTOR)) {
        return blk_error(error, -EINVAL, "The embedded descriptor of '%s' (sector %" PRIu64 ", %" PRIu64 " sectors) is "
                         "too large or too far away", name, h->descriptor_sector, h->descriptor_sectors);
    }
    return 0;
}

/* The header in the footer is the one that counts. */
static int co_read_footer(BlkNode *file, VmdkHeader *h, GError **error)
{
    uint64_t length = blk_node_length(file);
    uint8_t sector[VMDK_SECTOR];
    int ret;

    if (length % VMDK_SECTOR != 0 || length < 3 * FOOTER_BYTES) {
        return blk_error(error, -EINVAL, "The footer of '%s' is missing: the file was cut off",
                         blk_node_filename(file));
    }
    ret = co_read(file, length - FOOTER_BYTES, sector, sizeof(sector), "its footer", error);
    if (ret < 0) {
        return ret;
    }
    decode_hosted(sector, h);
    ret = check_hosted(file, sector, h, error);
    if (ret == 0 && h->gd_sector == VMDK_GD_AT_END) {
        ret = blk_error(error, -EINVAL, "The footer of '%s' does not say where the grain directory is",
                        blk_node_filename(file));
    }
    h->at_end = true;
    return ret;
}

static int co_read_hosted(BlkNode *file, VmdkHeader *h, GError **error)
{
    uint8_t sector[VMDK_SECTOR];
    int ret = co_read(file, 0, sector, sizeof(sector), "its header", error);

    if (ret < 0) {
        return ret;
    }
    decode_hosted(sector, h);
    ret = check_hosted(file, sector, h, error);
    if (ret == 0 && h->gd_sector == VMDK_GD_AT_END) {
        ret = co_read_footer(file, h, error);
    }
    if (ret == 0) {
        ret = check_geometry(file, h, error);
    }
    if (ret == 0 && h->gd_entries > 0) {
        ret = check_directory(file, h, h->gd_sector, 4, error);
    }
    if (!(h->flags & VMDK_FLAG_REDUNDANT)) {
        h->rgd_sector = 0;
    }
    return ret == 0 && h->rgd_sector != 0 && h->gd_entries > 0
           ? check_directory(file, h, h->rgd_sector, 4, error) : ret;
}

/* ---- COWD ---- */

static int co_read_cowd(BlkNode *file, VmdkHeader *h, GError **error)
{
    uint8_t head[COWD_BYTES];
    int ret = co_read(file, 0, head, sizeof(head), "its header", error);

    if (ret < 0) {
        return ret;
    }
    *h = (VmdkHeader){
        .kind = VMDK_COWD, .version = blk_get_le32(head + 4), .flags = 0, .capacity_sectors = blk_get_le32(head + 12),
        .grain_sectors = blk_get_le32(head + 16), .gd_sector = blk_get_le32(head + 20),
        .gt_entries = VMDK_COWD_GT_ENTRIES,
    };
    uint32_t entries = blk_get_le32(head + 24);
    ret = check_geometry(file, h, error);
    if (ret == 0 && entries < h->gd_entries) {
        ret = blk_error(error, -EINVAL, "The grain directory of '%s' has %u entries: its capacity needs %" PRIu64,
                        blk_node_filename(file), entries, h->gd_entries);
    }
    return ret == 0 && h->gd_entries > 0 ? check_directory(file, h, h->gd_sector, 4, error) : ret;
}

int vmdk_co_read_header(BlkNode *file, VmdkHeader *header, GError **error)
{
    uint8_t magic[4];
    int ret = co_read(file, 0, magic, sizeof(magic), "its header", error);

    if (ret < 0) {
        return ret;
    }
    if (memcmp(magic, "KDMV", 4) == 0) {
        return co_read_hosted(file, header, error);
    }
    if (memcmp(magic, "COWD", 4) == 0) {
        return co_read_cowd(file, header, error);
    }
    return blk_error(error, -EINVAL, "'%s' is no sparse extent: it begins with neither KDMV nor COWD",
                     blk_node_filename(file));
}

/* ---- seSparse ---- */

static int co_check_volatile(BlkNode *file, const uint8_t *constant, GError **error)
{
    uint64_t sector = blk_get_le64(constant + 80);
    uint8_t head[VMDK_SECTOR];

    if (!is_place(sector, 1)) {
        return blk_error(error, -EINVAL, "The volatile header of '%s' is too far away", blk_node_filename(file));
    }
    int ret = co_read(file, sector * VMDK_SECTOR, head, sizeof(head), "its volatile header", error);
    if (ret < 0) {
        return ret;
    }
    if (blk_get_le64(head) != SE_VOLATILE_MAGIC) {
        return blk_error(error, -EINVAL, "'%s' has no volatile header of a seSparse extent", blk_node_filename(file));
    }
    if (head[24] != 0) {
        return blk_error(error, -ENOTSUP, "'%s' was not closed: its journal must be replayed, which its hypervisor "
                         "does", blk_node_filename(file));
    }
    return 0;
}

int vmdk_co_read_sesparse_header(BlkNode *file, VmdkHeader *h, GError **error)
{
    const char *name = blk_node_filename(file);
    uint8_t head[VMDK_SECTOR];
    int ret = co_read(file, 0, head, sizeof(head), "its header", error);

    if (ret < 0) {
        return ret;
    }
    if (blk_get_le64(head) != SE_CONSTANT_MAGIC) {
        return blk_error(error, -EINVAL, "'%s' is no seSparse extent: its magic is %#" PRIx64, name,
                         blk_get_le64(head));
    }
    if (blk_get_le64(head + 8) != SE_VERSION) {
        return blk_error(error, -ENOTSUP, "Unsupported seSparse version %#" PRIx64 " of '%s'", blk_get_le64(head + 8),
                         name);
    }
    if (blk_get_le64(head + 24) != SE_GRAIN_SECTORS || blk_get_le64(head + 32) != SE_TABLE_SECTORS) {
        return blk_error(error, -ENOTSUP, "'%s' has grains of %" PRIu64 " and tables of %" PRIu64 " sectors: seSparse "
                         "extents have %d and %d", name, blk_get_le64(head + 24), blk_get_le64(head + 32),
                         SE_GRAIN_SECTORS, SE_TABLE_SECTORS);
    }
    *h = (VmdkHeader){
        .kind = VMDK_SESPARSE, .version = 2, .capacity_sectors = blk_get_le64(head + 16),
        .grain_sectors = SE_GRAIN_SECTORS,
        .gt_entries = SE_TABLE_SECTORS * VMDK_SECTOR / SE_ENTRY_BYTES, .gd_sector = blk_get_le64(head + 128),
        .tables_sector = blk_get_le64(head + 144), .tables_sectors = blk_get_le64(head + 152),
        .grains_sector = blk_get_le64(head + 192),
    };
    if (!is_place(h->tables_sector, h->tables_sectors) || !is_place(h->grains_sector, blk_get_le64(head + 200))) {
        return blk_error(error, -EINVAL, "The grain tables or the grains of '%s' are too far away", name);
    }
    ret = check_geometry(file, h, error);
    if (ret == 0 && blk_get_le64(head + 136) * (VMDK_SECTOR / SE_ENTRY_BYTES) < h->gd_entries) {
        ret = blk_error(error, -EINVAL, "The grain directory of '%s' is too small for its capacity", name);
    }
    if (ret == 0 && h->gd_entries > 0) {
        ret = check_directory(file, h, h->gd_sector, SE_ENTRY_BYTES, error);
    }
    return ret == 0 ? co_check_volatile(file, head, error) : ret;
}

/* ---- markers ---- */

void vmdk_marker_build(VmdkMarker type, uint64_t sectors, uint8_t *sector)
{
    memset(sector, 0, VMDK_SECTOR);
    blk_put_le64(sector, sectors);
    blk_put_le32(sector + 12, type);
}

void vmdk_grain_head_build(uint64_t guest_offset, uint64_t payload_bytes, uint8_t *head)
{
    blk_put_le64(head, guest_offset / VMDK_SECTOR);
    blk_put_le32(head + 8, (uint32_t)payload_bytes);
}

static bool is_marker(const uint8_t *sector, VmdkMarker type)
{
    return blk_get_le32(sector + 8) == 0 && blk_get_le32(sector + 12) == type;
}

bool vmdk_is_footer(const uint8_t *tail)
{
    return is_marker(tail, VMDK_MARKER_FOOTER) && memcmp(tail + VMDK_SECTOR, "KDMV", 4) == 0 &&
           is_marker(tail + 2 * VMDK_SECTOR, VMDK_MARKER_EOS);
}

void vmdk_footer_build(const VmdkHeader *header, uint8_t *tail)
{
    vmdk_marker_build(VMDK_MARKER_FOOTER, 1, tail);
    vmdk_header_build(header, tail + VMDK_SECTOR);
    vmdk_marker_build(VMDK_MARKER_EOS, 0, tail + 2 * VMDK_SECTOR);
}
