/* SPDX-License-Identifier: MIT */
/*
 * dirty_bitmap.h - which granules of a disk are dirty: one bit each.
 *
 *     chunks:  [ NULL | -> 4 KiB of bits | full | NULL | ... ]      a chunk is 32768 bits
 *
 * A chunk without dirty bits, and one whose bits are all dirty, takes no memory but its pointer, so memory follows what
 * is mixed: a disk of 1 TiB at 64 KiB takes 4 KiB when it is clean and at most 2 MiB.
 *
 * Offsets and lengths are bytes of the disk. A set rounds out to granules, a clear too: who must not lose what lies
 * beside its range clears whole granules. What lies behind the end of the disk is ignored. Never yields; not for
 * several threads.
 */
#ifndef BLKSTACK_CORE_DIRTY_BITMAP_H
#define BLKSTACK_CORE_DIRTY_BITMAP_H

#include <blkstack/blkstack.h>

typedef struct BlkDirtyBits BlkDirtyBits;

typedef enum BlkDirtyState { BLK_DIRTY_NONE, BLK_DIRTY_ALL, BLK_DIRTY_MIXED } BlkDirtyState;

/* @granularity: a power of two. NULL: more than BLK_BITMAP_MAX_BITS. All is clean. */
BlkDirtyBits *blk_dirty_bits_new(uint64_t length, uint64_t granularity);
BlkDirtyBits *blk_dirty_bits_copy(const BlkDirtyBits *bits);
void blk_dirty_bits_free(BlkDirtyBits *bits);       /* NULL is ignored */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BlkDirtyBits, blk_dirty_bits_free)

void blk_dirty_bits_set(BlkDirtyBits *bits, uint64_t offset, uint64_t bytes);
void blk_dirty_bits_clear(BlkDirtyBits *bits, uint64_t offset, uint64_t bytes);
bool blk_dirty_bits_get(const BlkDirtyBits *bits, uint64_t offset);
uint64_t blk_dirty_bits_bytes(const BlkDirtyBits *bits);        /* dirty bytes, up to the end of the disk */
/* The first dirty range at or behind @offset, cut at both ends; false: there is none. */
bool blk_dirty_bits_next(const BlkDirtyBits *bits, uint64_t offset, uint64_t *start, uint64_t *bytes);
/* Adds what is dirty in @source, a bitmap of the same length and any granularity. */
void blk_dirty_bits_merge(BlkDirtyBits *bits, const BlkDirtyBits *source);
/* New granules are clean; what is cut off is forgotten. false: too many bits; nothing has changed. */
bool blk_dirty_bits_resize(BlkDirtyBits *bits, uint64_t length);
uint64_t blk_dirty_bits_length(const BlkDirtyBits *bits);
size_t blk_dirty_bits_memory(const BlkDirtyBits *bits);         /* bytes, about */

/*
 * Bits as they are stored: granule n of the part is bit n % 8 of byte n / 8. @first: a granule; a multiple of 64.
 * @bytes: a multiple of 8. Behind the last granule there are zeroes, and what stands there is ignored.
 */
void blk_dirty_bits_export(const BlkDirtyBits *bits, uint64_t first, void *buf, size_t bytes);
void blk_dirty_bits_import(BlkDirtyBits *bits, uint64_t first, const void *buf, size_t bytes);  /* replaces the part */
/* Of @count granules from @first on; those behind the last one count as what the others are. */
BlkDirtyState blk_dirty_bits_state(const BlkDirtyBits *bits, uint64_t first, uint64_t count);

#endif
