/* SPDX-License-Identifier: MIT */
/*
 * create.c - makes a VHDX: headers | log | BAT | metadata | blocks (of a fixed disk).
 */
#include "drivers/vhdx/vhdx.h"

#include "core/crc32c.h"

#include "config.h"

enum { CHUNK_BYTES = 1 << 20 };

#define LOG_LIMIT (UINT64_C(4) << 30)

static const char *const subformat_values[] = { "dynamic", "fixed", NULL };
const BlkOption vhdx_create_options[] = {
    { "size", BLK_OPTION_SIZE, "size of the virtual disk; at most 64 TiB", .max = BLK_MAX_LENGTH, .required = true },
    { "log_size", BLK_OPTION_SIZE, "size of the log; rounded up to a multiple of 1 MiB", "1M" },
    { "block_size", BLK_OPTION_SIZE, "size of a block, from 1 MiB to 256 MiB; 0: by the size of the disk", "0" },
    { "subformat", BLK_OPTION_ENUM, "type of the virtual hard disk", "dynamic", subformat_values },
    { "block_state_zero", BLK_OPTION_BOOL, "blocks of a new dynamic disk are said to be zeroes, rather than not to be there",
      "on" },
    { NULL },
};

typedef struct Layout {
    uint64_t size, blocks, entries; /* of the disk; of the BAT */
    uint32_t block_size;
    uint64_t chunk_blocks;
    uint64_t log_bytes, bat, bat_bytes, metadata, data;     /* lengths, and places in the file */
    bool fixed, state_zero;
} Layout;

static uint64_t round_up_mib(uint64_t bytes)
{
    return (bytes + VHDX_MIB - 1) & ~(uint64_t)(VHDX_MIB - 1);
}

/* As the peer's. */
static uint64_t default_block_size(uint64_t size)
{
    if (size > UINT64_C(32) << 40) {
        return 64 << 20;
    }
    if (size > UINT64_C(100) << 30) {
        return 32 << 20;
    }
    return size > UINT64_C(1) << 30 ? 16 << 20 : 8 << 20;
}

static int plan(const BlkOptions *options, Layout *l, GError **error)
{
    uint64_t size = blk_options_uint(options, "size"), log = blk_options_uint(options, "log_size");
    uint64_t block = blk_options_uint(options, "block_size");

    if (size > VHDX_MAX_DISK) {
        return blk_error(error, -EINVAL, "Image size too large; max of 64TB");
    }
    if (log == 0) {
        return blk_error(error, -EINVAL, "Log size must be a multiple of 1 MB");
    }
    if (log >= LOG_LIMIT || round_up_mib(log) >= LOG_LIMIT) {
        return blk_error(error, -EINVAL, "Log size must be smaller than 4 GB");
    }
    block = block == 0 ? default_block_size(size) : round_up_mib(MIN(block, VHDX_MAX_BLOCK));
    if ((block & (block - 1)) != 0) {
        return blk_error(error, -EINVAL, "Block size must be a power of two");
    }
    size = (size + VHDX_SECTOR - 1) & ~(uint64_t)(VHDX_SECTOR - 1);
    *l = (Layout) {
        .size = size, .block_size = (uint32_t)block, .blocks = (size + block - 1) / block,
        .chunk_blocks = (UINT64_C(1) << 23) * VHDX_SECTOR / block, .log_bytes = round_up_mib(log),
        .fixed = blk_options_enum(options, "subformat") == 1,
        .state_zero = blk_options_bool(options, "block_state_zero"),
    };
    l->entries = l->blocks == 0 ? 0 : l->blocks + (l->blocks - 1) / l->chunk_blocks;
    l->bat = VHDX_MIB + l->log_bytes;
    l->bat_bytes = MAX(round_up_mib(l->entries * VHDX_BAT_ENTRY), VHDX_MIB);
    l->metadata = l->bat + l->bat_bytes;
    l->data = l->metadata + VHDX_MIB;
    return 0;
}

int vhdx_check_create(const BlkOptions *options, GError **error)
{
    Layout l;

    return plan(options, &l, error);
}

static uint64_t new_entry(const Layout *l, uint64_t index)
{
    uint64_t chunk = index / (l->chunk_blocks + 1), in_chunk = index % (l->chunk_blocks + 1);
    uint64_t block = chunk * l->chunk_blocks + in_chunk;

    if (index >= l->entries || in_chunk == l->chunk_blocks) {
        return 0;
    }
    return l->fixed ? (l->data + block * l->block_size) | VHDX_FULLY_PRESENT : VHDX_ZERO;
}

/* The file has zeroes there, which say that a block is not present. */
static int co_write_bat(BlkNode *file, const Layout *l)
{
    g_autofree uint8_t *chunk = g_try_malloc(CHUNK_BYTES);
    int ret = chunk ? 0 : -ENOMEM;

    for (uint64_t done = 0; ret == 0 && done < l->bat_bytes && (l->fixed || l->state_zero); done += CHUNK_BYTES) {
        for (uint64_t at = 0; at < CHUNK_BYTES; at += VHDX_BAT_ENTRY) {
            blk_put_le64(chunk + at, new_entry(l, (done + at) / VHDX_BAT_ENTRY));
        }
        ret = blk_co_pwrite(file, l->bat + done, CHUNK_BYTES, chunk, 0);
    }
    return ret;
}

static void put_item(uint8_t *region, const uint8_t *id, uint32_t offset, uint32_t bytes, unsigned flags)
{
    unsigned n = blk_get_le16(region + VHDX_M_COUNT);
    uint8_t *entry = region + VHDX_M_ENTRIES + n * VHDX_M_ENTRY;

    memcpy(entry, id, UUID_BYTES);
    blk_put_le32(entry + VHDX_M_OFFSET, VHDX_TABLE_BYTES + offset);
    blk_put_le32(entry + VHDX_M_LENGTH, bytes);
    blk_put_le32(entry + VHDX_M_FLAGS, VHDX_M_IS_REQUIRED | flags);
    blk_put_le16(region + VHDX_M_COUNT, (uint16_t)(n + 1));
}

static int co_write_metadata(BlkNode *file, const Layout *l)
{
    enum { PARAMETERS = 0, SIZE = 8, ID = 16, LOGICAL = 32, PHYSICAL = 36, END = 40 };
    g_autofree uint8_t *region = g_malloc0(VHDX_TABLE_BYTES + END);
    uint8_t *items = region + VHDX_TABLE_BYTES;

    memcpy(region, "metadata", 8);
    put_item(region, vhdx_file_parameters, PARAMETERS, 8, 0);
    put_item(region, vhdx_disk_size, SIZE, 8, VHDX_M_IS_VIRTUAL_DISK);
    put_item(region, vhdx_disk_id, ID, UUID_BYTES, VHDX_M_IS_VIRTUAL_DISK);
    put_item(region, vhdx_logical_sector, LOGICAL, 4, VHDX_M_IS_VIRTUAL_DISK);
    put_item(region, vhdx_physical_sector, PHYSICAL, 4, VHDX_M_IS_VIRTUAL_DISK);
    blk_put_le32(items + PARAMETERS, l->block_size);
    blk_put_le32(items + PARAMETERS + 4, l->fixed ? VHDX_LEAVE_BLOCKS : 0);
    blk_put_le64(items + SIZE, l->size);
    uuid_new(items + ID);
    blk_put_le32(items + LOGICAL, VHDX_SECTOR);
    blk_put_le32(items + PHYSICAL, VHDX_SECTOR);
    return blk_co_pwrite(file, l->metadata, VHDX_TABLE_BYTES + END, region, 0);
}

static void put_region(uint8_t *table, unsigned n, const uint8_t *id, uint64_t offset, uint64_t bytes)
{
    uint8_t *entry = table + VHDX_R_ENTRIES + n * VHDX_R_ENTRY;

    memcpy(entry, id, UUID_BYTES);
    blk_put_le64(entry + VHDX_R_OFFSET, offset);
    blk_put_le32(entry + VHDX_R_LENGTH, (uint32_t)bytes);
    blk_put_le32(entry + VHDX_R_REQUIRED, 1);
    blk_put_le32(table + VHDX_R_COUNT, n + 1);
}

static int co_write_regions(BlkNode *file, const Layout *l)
{
    g_autofree uint8_t *table = g_malloc0(VHDX_TABLE_BYTES);

    memcpy(table, "regi", 4);
    put_region(table, 0, vhdx_bat_region, l->bat, l->bat_bytes);
    put_region(table, 1, vhdx_metadata_region, l->metadata, VHDX_MIB);
    blk_put_le32(table + VHDX_R_CHECKSUM, blk_crc32c(0, table, VHDX_TABLE_BYTES));
    int ret = blk_co_pwrite(file, VHDX_REGIONS_AT, VHDX_TABLE_BYTES, table, 0);
    return ret < 0 ? ret : blk_co_pwrite(file, VHDX_REGIONS_AT + VHDX_TABLE_BYTES, VHDX_TABLE_BYTES, table, 0);
}

static int co_write_headers(BlkNode *file, const Layout *l)
{
    g_autofree uint8_t *h = g_malloc(VHDX_HEADER_BYTES);
    VhdxHeader header = { .log_offset = VHDX_MIB, .log_length = (uint32_t)l->log_bytes };
    int ret = 0;

    uuid_new(header.file_write);
    uuid_new(header.data_write);
    for (unsigned slot = 0; slot < 2 && ret == 0; slot++) {
        header.sequence++;
        vhdx_encode_header(&header, h);
        ret = blk_co_pwrite(file, VHDX_HEADER_AT * (slot + 1), VHDX_HEADER_BYTES, h, 0);
    }
    return ret;
}

/* Without it this is no image: it goes last. */
static int co_write_identifier(BlkNode *file)
{
    static const char creator[] = "blkstack " BLK_VERSION;
    uint8_t identifier[VHDX_SECTOR] = VHDX_FILE_SIGNATURE;

    for (size_t i = 0; i < sizeof(creator); i++) {
        blk_put_le16(identifier + 8 + 2 * i, (uint8_t)creator[i]);
    }
    return blk_co_pwrite(file, 0, sizeof(identifier), identifier, 0);
}

int vhdx_co_create(BlkContext *ctx, BlkNode *file, const BlkOptions *options, GError **error)
{
    Layout l = { 0 };
    int ret = plan(options, &l, error);

    if (ret < 0) {
        return ret;
    }
    ret = block_table_co_clear(file, 0, l.data + (l.fixed ? l.blocks * l.block_size : 0));
    ret = ret < 0 ? ret : co_write_bat(file, &l);
    ret = ret < 0 ? ret : co_write_metadata(file, &l);
    ret = ret < 0 ? ret : co_write_regions(file, &l);
    ret = ret < 0 ? ret : co_write_headers(file, &l);
    ret = ret < 0 ? ret : co_write_identifier(file);
    return ret < 0 ? blk_error_errno(error, ret, "Could not write the VHDX image") : 0;
}
