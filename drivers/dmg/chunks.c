/* SPDX-License-Identifier: MIT */
/*
 * chunks.c - where each part of the disk of a dmg image lies.
 *
 *     block   0    "mish", version, first sector of the disk (8), sectors (8), begin of data (8), ...
 *             200  number of chunks (4)
 *             204  chunks of 40 bytes: type (4), comment (4), sector, sectors, offset, bytes in the file (8 each)
 *
 * Sectors of a chunk count from the block's first one, offsets from where its data begin. All numbers are big-endian.
 */
#include "drivers/dmg/dmg.h"

#include "core/big_endian.h"

#include <inttypes.h>

enum { BLOCK_HEAD = 204, CHUNK_BYTES = 40 };

#define BLOCK_MAGIC UINT32_C(0x6d697368)
#define MAX_PACKED (UINT64_C(64) << 20)         /* bytes of a compressed chunk, packed and unpacked */

typedef struct Block {
    uint64_t first_sector;
    uint64_t data;                  /* where offsets begin */
    uint64_t file_length;
} Block;

static int check_place(const DmgChunk *chunk, uint64_t file_length, GError **error)
{
    if (chunk->offset > file_length || chunk->bytes > file_length - chunk->offset) {
        return blk_error(error, -EINVAL, "Invalid dmg image: the chunk of byte %" PRIu64 " of the disk does not lie in "
                         "the file", chunk->start);
    }
    if (chunk->type == DMG_RAW && chunk->bytes < chunk->length) {
        return blk_error(error, -EINVAL, "Invalid dmg image: the raw chunk of byte %" PRIu64 " of the disk is too "
                         "short", chunk->start);
    }
    if (chunk->type != DMG_RAW && (chunk->length > MAX_PACKED || chunk->bytes > MAX_PACKED)) {
        return blk_error(error, -EFBIG, "Invalid dmg image: the chunk of byte %" PRIu64 " of the disk is larger than "
                         "%" PRIu64 " MiB", chunk->start, MAX_PACKED >> 20);
    }
    return 0;
}

static int parse_chunk(const uint8_t *p, const Block *block, GArray *chunks, GError **error)
{
    DmgChunk chunk = { .type = (DmgChunkType)blk_get_be32(p), .bytes = blk_get_be64(p + 32) };
    uint64_t sectors = blk_get_be64(p + 16), sector, end;
    int ret = 0;

    if (chunk.type == DMG_COMMENT || chunk.type == DMG_END || sectors == 0) {
        return 0;
    }
    if (!g_uint64_checked_add(&sector, block->first_sector, blk_get_be64(p + 8)) ||
        !g_uint64_checked_add(&end, sector, sectors) || end > BLK_MAX_LENGTH / DMG_SECTOR) {
        return blk_error(error, -EFBIG, "Invalid dmg image: a chunk of %" PRIu64 " sectors does not fit into any disk",
                         sectors);
    }
    chunk.start = sector * DMG_SECTOR;
    chunk.length = sectors * DMG_SECTOR;
    if (!dmg_chunk_is_zero(&chunk)) {
        if (!g_uint64_checked_add(&chunk.offset, block->data, blk_get_be64(p + 24))) {
            chunk.offset = UINT64_MAX;
        }
        ret = check_place(&chunk, block->file_length, error);
    }
    g_array_append_val(chunks, chunk);
    return ret;
}

int dmg_chunks_add(GArray *chunks, const GByteArray *bytes, uint64_t file_length, uint64_t data_fork, GError **error)
{
    const uint8_t *p = bytes->data;
    Block block = { .file_length = file_length };
    int ret = 0;

    if (bytes->len < BLOCK_HEAD || blk_get_be32(p) != BLOCK_MAGIC) {
        return 0;                   /* other things may stand there, which are no part of the disk */
    }
    block.first_sector = blk_get_be64(p + 8);
    if (!g_uint64_checked_add(&block.data, data_fork, blk_get_be64(p + 24))) {
        return blk_error(error, -EINVAL, "Invalid dmg image: the data of a block begin behind the end of any file");
    }
    uint32_t count = blk_get_be32(p + 200);
    if (count > (bytes->len - BLOCK_HEAD) / CHUNK_BYTES) {
        return blk_error(error, -EINVAL, "Invalid dmg image: a block says that it has %" PRIu32 " chunks, and has room "
                         "for %u", count, (bytes->len - BLOCK_HEAD) / CHUNK_BYTES);
    }
    for (uint32_t i = 0; ret == 0 && i < count; i++) {
        ret = parse_chunk(p + BLOCK_HEAD + (size_t)i * CHUNK_BYTES, &block, chunks, error);
    }
    return ret;
}

static int compare_starts(gconstpointer a, gconstpointer b)
{
    const DmgChunk *x = a, *y = b;

    return x->start < y->start ? -1 : x->start > y->start;
}

int dmg_chunks_finish(GArray *chunks, GError **error)
{
    g_array_sort(chunks, compare_starts);
    for (guint i = 1; i < chunks->len; i++) {
        const DmgChunk *chunk = &g_array_index(chunks, DmgChunk, i), *before = chunk - 1;

        if (before->start + before->length > chunk->start) {
            return blk_error(error, -EINVAL, "Invalid dmg image: two chunks have byte %" PRIu64 " of the disk",
                             chunk->start);
        }
    }
    return 0;
}

const DmgChunk *dmg_chunks_find(const GArray *chunks, uint64_t offset, uint64_t *gap)
{
    guint low = 0, high = chunks->len;          /* the first that ends behind offset is in [low, high] */

    while (low < high) {
        guint middle = low + (high - low) / 2;
        const DmgChunk *chunk = &g_array_index(chunks, DmgChunk, middle);

        if (chunk->start + chunk->length > offset) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    const DmgChunk *chunk = low < chunks->len ? &g_array_index(chunks, DmgChunk, low) : NULL;
    *gap = !chunk ? UINT64_MAX : chunk->start > offset ? chunk->start - offset : 0;
    return *gap == 0 ? chunk : NULL;
}
