/* SPDX-License-Identifier: MIT */
/*
 * dmg.h - the parts of the format driver "dmg", and what they know of each other.
 *
 *     dmg.c       the node: opening, reads, block status
 *     chunks.c    where each part of the disk lies: the table that is put together from the blocks of the property list
 *     plist.c     the property list: finds the blocks in its XML
 */
#ifndef BLKSTACK_DRIVERS_DMG_H
#define BLKSTACK_DRIVERS_DMG_H

#include <blkstack/driver.h>

#define DMG_SECTOR UINT64_C(512)

/* ---- plist.c ---- */

/* (out) *blocks: (transfer full): GByteArray elements, the data under resource-fork/blkx, in their order. @xml: not
 * terminated.
 * Returns: 0; -EINVAL: it is no property list. */
int dmg_plist_parse(const char *xml, size_t bytes, GPtrArray **blocks, GError **error);

/* ---- chunks.c ---- */

typedef enum DmgChunkType {
    DMG_ZERO    = 0x00000000,
    DMG_RAW     = 0x00000001,
    DMG_IGNORE  = 0x00000002,       /* reads as zeroes */
    DMG_COMMENT = 0x7ffffffe,
    DMG_ADC     = (int)0x80000004,
    DMG_ZLIB    = (int)0x80000005,
    DMG_BZIP2   = (int)0x80000006,
    DMG_LZFSE   = (int)0x80000007,
    DMG_LZMA    = (int)0x80000008,
    DMG_END     = (int)0xffffffff,
} DmgChunkType;

/* A part of the disk. */
typedef struct DmgChunk {
    DmgChunkType type;
    uint64_t start, length;         /* on the disk, bytes */
    uint64_t offset, bytes;         /* in the file; not of zeroes */
} DmgChunk;

static inline bool dmg_chunk_is_zero(const DmgChunk *chunk)
{
    return chunk->type == DMG_ZERO || chunk->type == DMG_IGNORE;
}

/**
 * dmg_chunks_add:
 * @chunks: of DmgChunk
 * @block: one block of the property list; @file_length: of the image; @data_fork: where its data begin
 *
 * Appends the chunks of a block, checked one by one. Returns: 0; -EINVAL, -EFBIG.
 */
int dmg_chunks_add(GArray *chunks, const GByteArray *block, uint64_t file_length, uint64_t data_fork, GError **error);

/* Sorts them, and refuses those that overlap. */
int dmg_chunks_finish(GArray *chunks, GError **error);

/* The chunk that has the byte @offset of the disk; NULL: none. *gap: (out): without one, bytes to the next. */
const DmgChunk *dmg_chunks_find(const GArray *chunks, uint64_t offset, uint64_t *gap);

#endif
