/* SPDX-License-Identifier: MIT */
/*
 * partition.c - partition tables: MBR with extended partitions, and GPT (UEFI specification 2.10, chapter 5).
 *
 *     MBR    sector 0: four entries, of which one may be an extended partition: a chain of sectors, each with the
 *            entry of a logical partition, whose start counts from that sector, and one of the next sector of the
 *            chain, which counts from the beginning of the extended partition
 *     GPT    block 1: the header, with the place and a checksum of the array of entries. The last block is its copy,
 *            which is used if the first one, or its array, is damaged. An MBR with an entry of type EE says that there
 *            is a GPT.
 *
 * No number is believed: each is compared with the length of the disk before it is used.
 *
 * Limitations: sectors of an MBR have 512 bytes; blocks of a GPT 512 or 4096.
 */
#include "exports/partition.h"

#include "core/little_endian.h"

#include <inttypes.h>
#include <zlib.h>

enum {
    SECTOR = 512,
    MBR_ENTRIES = 446, MBR_ENTRY_BYTES = 16, MBR_SIGNATURE = 510,
    PRIMARIES = 4,
    MAX_CHAIN = 2 * BLK_MAX_PARTITIONS,         /* sectors: those of deleted partitions may be empty */

    GPT_MAX_BLOCK = 4096, GPT_HEADER_BYTES = 92,
    GPT_ENTRY_BYTES = 128, GPT_MAX_ARRAY = 1 << 20,
};

typedef struct Disk {
    BlkNode *node;
    uint64_t length;                /* bytes */
    unsigned number;                /* of the partition that is looked for */
    BlkPartition *found;
} Disk;

static int co_read(const Disk *disk, uint64_t block, unsigned block_bytes, size_t bytes, void *buf, GError **error)
{
    uint64_t offset;
    int ret;

    if (!g_uint64_checked_mul(&offset, block, block_bytes) || offset > disk->length || bytes > disk->length - offset) {
        return blk_error(error, -EINVAL, "the partition table is damaged: block %" PRIu64 " is not on the disk", block);
    }
    ret = blk_co_pread(disk->node, offset, bytes, buf, 0);
    return ret < 0 ? blk_error_errno(error, ret, "cannot read the partition table at byte %" PRIu64, offset) : 0;
}

static int no_such_partition(const Disk *disk, GError **error)
{
    return blk_error(error, -ENOENT, "there is no partition %u", disk->number);
}

static int take(const Disk *disk, uint64_t first, uint64_t count, unsigned block_bytes, GError **error)
{
    uint64_t blocks = disk->length / block_bytes;

    if (first >= blocks || count > blocks - first) {
        return blk_error(error, -ERANGE, "partition %u reaches beyond the end of the disk", disk->number);
    }
    *disk->found = (BlkPartition) { first * block_bytes, count * block_bytes };
    return 0;
}

/* ---- MBR ---- */

typedef struct MbrEntry {
    uint8_t status, type;
    uint32_t first, count;          /* sectors */
} MbrEntry;

/* Returns: false: it has not the signature of a table. */
static bool parse_mbr(const uint8_t *sector, MbrEntry entries[PRIMARIES])
{
    for (unsigned i = 0; i < PRIMARIES; i++) {
        const uint8_t *at = sector + MBR_ENTRIES + i * MBR_ENTRY_BYTES;

        entries[i] = (MbrEntry) { at[0], at[4], blk_get_le32(at + 8), blk_get_le32(at + 12) };
    }
    return blk_get_le16(sector + MBR_SIGNATURE) == 0xaa55;
}

static bool is_used(const MbrEntry *entry)
{
    return entry->type != 0 && entry->count > 0;
}

static bool is_extended(const MbrEntry *entry)
{
    return is_used(entry) && (entry->type == 0x05 || entry->type == 0x0f || entry->type == 0x85);
}

/* Partitions that were made anew need not be in the order of their places, so only a place that comes again is wrong. */
static bool was_here(const uint32_t *chain, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (chain[i] == chain[count]) {
            return true;
        }
    }
    return false;
}

static int co_find_logical(const Disk *disk, const MbrEntry *extended, GError **error)
{
    uint32_t chain[MAX_CHAIN + 1] = { 0 };      /* sectors, from the beginning of the extended partition */
    unsigned number = PRIMARIES;

    for (unsigned i = 0; i < MAX_CHAIN && !was_here(chain, i); i++) {
        uint8_t sector[SECTOR];
        MbrEntry entries[PRIMARIES];
        uint64_t at = (uint64_t)extended->first + chain[i];
        int ret = co_read(disk, at, SECTOR, SECTOR, sector, error);

        if (ret < 0) {
            return ret;
        }
        if (chain[i] >= extended->count || !parse_mbr(sector, entries)) {
            return blk_error(error, -EINVAL, "the chain of logical partitions is damaged after partition %u", number);
        }
        if (is_used(&entries[0]) && ++number == disk->number) {
            return take(disk, at + entries[0].first, entries[0].count, SECTOR, error);
        }
        if (!is_extended(&entries[1])) {
            return no_such_partition(disk, error);
        }
        chain[i + 1] = entries[1].first;
    }
    return blk_error(error, -EINVAL, "the chain of logical partitions is damaged: it does not end");
}

static int co_find_in_mbr(const Disk *disk, const MbrEntry entries[PRIMARIES], GError **error)
{
    if (disk->number <= PRIMARIES) {
        const MbrEntry *entry = &entries[disk->number - 1];

        if (is_extended(entry)) {
            return blk_error(error, -ENOENT, "partition %u is the extended one, which holds those from %u on",
                             disk->number, PRIMARIES + 1);
        }
        return is_used(entry) ? take(disk, entry->first, entry->count, SECTOR, error) : no_such_partition(disk, error);
    }
    for (unsigned i = 0; i < PRIMARIES; i++) {
        if (is_extended(&entries[i])) {
            return co_find_logical(disk, &entries[i], error);
        }
    }
    return no_such_partition(disk, error);
}

/* ---- GPT ---- */

typedef struct GptHeader {
    uint64_t entries;               /* block */
    uint32_t count, entry_bytes, crc;
} GptHeader;

static bool parse_gpt_header(uint8_t *block, unsigned block_bytes, uint64_t own_place, GptHeader *header)
{
    uint32_t bytes = blk_get_le32(block + 12), crc = blk_get_le32(block + 16);

    if (memcmp(block, "EFI PART", 8) != 0 || bytes < GPT_HEADER_BYTES || bytes > block_bytes) {
        return false;
    }
    blk_put_le32(block + 16, 0);
    *header = (GptHeader) {
        .entries = blk_get_le64(block + 72), .count = blk_get_le32(block + 80), .entry_bytes = blk_get_le32(block + 84),
        .crc = blk_get_le32(block + 88),
    };
    return crc32(0, block, bytes) == crc && blk_get_le64(block + 24) == own_place &&
           header->entry_bytes >= GPT_ENTRY_BYTES && (header->entry_bytes & (header->entry_bytes - 1)) == 0 &&
           header->count > 0 && header->count <= GPT_MAX_ARRAY / header->entry_bytes;
}

/* (transfer full), with blk_buffer_free(): the array of entries; NULL: here is none that is whole and can be read. */
static uint8_t *co_load_gpt(const Disk *disk, uint64_t place, unsigned block_bytes, GptHeader *header)
{
    uint8_t block[GPT_MAX_BLOCK], *entries;
    size_t bytes;

    if (co_read(disk, place, block_bytes, block_bytes, block, NULL) < 0 ||
        !parse_gpt_header(block, block_bytes, place, header)) {
        return NULL;
    }
    bytes = (size_t)header->count * header->entry_bytes;
    entries = blk_buffer_try_alloc(disk->node, bytes);
    if (entries && (co_read(disk, header->entries, block_bytes, bytes, entries, NULL) < 0 ||
                    crc32(0, entries, (uInt)bytes) != header->crc)) {
        g_clear_pointer(&entries, blk_buffer_free);
    }
    return entries;
}

static int find_in_gpt(const Disk *disk, const GptHeader *header, const uint8_t *entries, unsigned block_bytes,
                       GError **error)
{
    static const uint8_t unused[16];
    const uint8_t *entry = entries + (size_t)(disk->number - 1) * header->entry_bytes;
    uint64_t first, last;

    if (disk->number > header->count || memcmp(entry, unused, sizeof(unused)) == 0) {
        return no_such_partition(disk, error);
    }
    first = blk_get_le64(entry + 32);
    last = blk_get_le64(entry + 40);
    if (last < first || last >= disk->length / block_bytes) {
        return blk_error(error, -ERANGE, "partition %u reaches beyond the end of the disk", disk->number);
    }
    return take(disk, first, last - first + 1, block_bytes, error);
}

static int co_find_in_gpt(const Disk *disk, GError **error)
{
    static const unsigned block_sizes[] = { SECTOR, GPT_MAX_BLOCK };

    for (unsigned copy = 0; copy < 2; copy++) {
        for (unsigned i = 0; i < G_N_ELEMENTS(block_sizes); i++) {
            uint64_t blocks = disk->length / block_sizes[i], place = copy == 0 || blocks == 0 ? 1 : blocks - 1;
            GptHeader header;
            uint8_t *entries = co_load_gpt(disk, place, block_sizes[i], &header);

            if (entries) {
                int ret = find_in_gpt(disk, &header, entries, block_sizes[i], error);

                blk_buffer_free(entries);
                return ret;
            }
        }
    }
    return blk_error(error, -EINVAL, "the partition table is a GPT of which no copy is whole");
}

/* ---- which of both ---- */

int blk_co_find_partition(BlkNode *node, unsigned number, BlkPartition *partition, GError **error)
{
    const Disk disk = { node, blk_node_length(node), number, partition };
    uint8_t sector[SECTOR] = { 0 };
    MbrEntry entries[PRIMARIES];
    int ret = disk.length < SECTOR ? 0 : co_read(&disk, 0, SECTOR, SECTOR, sector, error);
    bool valid, gpt = false;

    if (ret < 0) {
        return ret;
    }
    valid = parse_mbr(sector, entries);
    for (unsigned i = 0; i < PRIMARIES; i++) {
        valid = valid && (entries[i].status & 0x7f) == 0;       /* else it is the boot sector of a file system */
        gpt = gpt || entries[i].type == 0xee;
    }
    if (!valid) {
        return blk_error(error, -EINVAL, "there is no partition table");
    }
    return gpt ? co_find_in_gpt(&disk, error) : co_find_in_mbr(&disk, entries, error);
}
