/* SPDX-License-Identifier: MIT */
/*
 * dirty_bitmap.c - bits of dirty granules in chunks that exist only where clean and dirty are mixed.
 */
#include "core/dirty_bitmap.h"

#include <string.h>

enum { WORD_BITS = 64, CHUNK_WORDS = 512, CHUNK_BITS = CHUNK_WORDS * WORD_BITS };

typedef struct Chunk {
    uint32_t dirty;                     /* set bits */
    uint64_t words[CHUNK_WORDS];
} Chunk;

/* Stands for a chunk whose bits (up to the last granule) are all set. Never looked into. */
static const Chunk full_chunk;
#define FULL ((Chunk *)&full_chunk)

struct BlkDirtyBits {
    uint64_t length;
    unsigned shift;                     /* log2 of the granularity */
    uint64_t count;                     /* granules */
    uint64_t dirty;                     /* granules that are */
    Chunk **chunks;
};

static uint64_t granules_of(uint64_t length, unsigned shift)
{
    return (length >> shift) + ((length & ((UINT64_C(1) << shift) - 1)) != 0);
}

static uint64_t chunks_of(uint64_t count)
{
    return (count + CHUNK_BITS - 1) / CHUNK_BITS;
}

/* Bits of chunk @i that stand for granules. */
static uint64_t chunk_bits(const BlkDirtyBits *bits, uint64_t i)
{
    return MIN(bits->count - i * CHUNK_BITS, CHUNK_BITS);
}

static uint64_t chunk_dirty(const BlkDirtyBits *bits, uint64_t i)
{
    const Chunk *chunk = bits->chunks[i];

    return chunk == FULL ? chunk_bits(bits, i) : chunk ? chunk->dirty : 0;
}

static void chunk_free(Chunk *chunk)
{
    if (chunk != FULL) {
        g_free(chunk);
    }
}

BlkDirtyBits *blk_dirty_bits_new(uint64_t length, uint64_t granularity)
{
    unsigned shift = (unsigned)__builtin_ctzll(granularity);
    uint64_t count = granules_of(length, shift);
    BlkDirtyBits *bits;

    if (count > BLK_BITMAP_MAX_BITS) {
        return NULL;
    }
    bits = g_new0(BlkDirtyBits, 1);
    *bits = (BlkDirtyBits) { .length = length, .shift = shift, .count = count };
    bits->chunks = g_new0(Chunk *, chunks_of(count));
    return bits;
}

void blk_dirty_bits_free(BlkDirtyBits *bits)
{
    if (!bits) {
        return;
    }
    for (uint64_t i = 0; i < chunks_of(bits->count); i++) {
        chunk_free(bits->chunks[i]);
    }
    g_free(bits->chunks);
    g_free(bits);
}

BlkDirtyBits *blk_dirty_bits_copy(const BlkDirtyBits *bits)
{
    BlkDirtyBits *copy = g_memdup2(bits, sizeof(*bits));

    copy->chunks = g_new(Chunk *, chunks_of(bits->count));
    for (uint64_t i = 0; i < chunks_of(bits->count); i++) {
        Chunk *chunk = bits->chunks[i];

        copy->chunks[i] = chunk && chunk != FULL ? g_memdup2(chunk, sizeof(*chunk)) : chunk;
    }
    return copy;
}

/* ---- words ---- */

/* Bits @from..@to - 1 of a word. */
static uint64_t word_mask(uint64_t from, uint64_t to)
{
    return (UINT64_MAX << from) & (UINT64_MAX >> (WORD_BITS - to));
}

/* Sets or clears bits @from..@to - 1. */
static void chunk_fill(Chunk *chunk, uint64_t from, uint64_t to, bool dirty)
{
    while (from < to) {
        uint64_t start = from % WORD_BITS, end = MIN(WORD_BITS, start + (to - from));
        uint64_t *word = &chunk->words[from / WORD_BITS], mask = word_mask(start, end);

        chunk->dirty -= (uint32_t)__builtin_popcountll(*word & mask);
        *word = dirty ? *word | mask : *word & ~mask;
        chunk->dirty += (uint32_t)__builtin_popcountll(*word & mask);
        from += end - start;
    }
}

/* Chunk @i with bits that can be changed one by one. */
static Chunk *chunk_open(BlkDirtyBits *bits, uint64_t i)
{
    Chunk *old = bits->chunks[i];

    if (old == FULL || !old) {
        bits->chunks[i] = g_new0(Chunk, 1);
        if (old == FULL) {
            chunk_fill(bits->chunks[i], 0, chunk_bits(bits, i), true);
        }
    }
    return bits->chunks[i];
}

/* Gives up the memory of chunk @i if it is not mixed. */
static void chunk_close(BlkDirtyBits *bits, uint64_t i)
{
    Chunk *chunk = bits->chunks[i];

    if (chunk != FULL && chunk && (chunk->dirty == 0 || chunk->dirty == chunk_bits(bits, i))) {
        bits->chunks[i] = chunk->dirty == 0 ? NULL : FULL;
        g_free(chunk);
    }
}

/* The first bit at or behind @from that is @dirty; CHUNK_BITS if none. */
static uint64_t chunk_find(const Chunk *chunk, uint64_t from, bool dirty)
{
    while (from < CHUNK_BITS) {
        uint64_t word = chunk->words[from / WORD_BITS];

        word = (dirty ? word : ~word) & (UINT64_MAX << from % WORD_BITS);
        if (word != 0) {
            return from - from % WORD_BITS + (uint64_t)__builtin_ctzll(word);
        }
        from += WORD_BITS - from % WORD_BITS;
    }
    return CHUNK_BITS;
}

/* ---- ranges ---- */

static void fill_in_chunk(BlkDirtyBits *bits, uint64_t i, uint64_t from, uint64_t to, bool dirty)
{
    bits->dirty -= chunk_dirty(bits, i);
    if (from == 0 && to == chunk_bits(bits, i)) {
        chunk_free(bits->chunks[i]);
        bits->chunks[i] = dirty ? FULL : NULL;
    } else if (bits->chunks[i] != (dirty ? FULL : NULL)) {
        chunk_fill(chunk_open(bits, i), from, to, dirty);
        chunk_close(bits, i);
    }
    bits->dirty += chunk_dirty(bits, i);
}

static void fill(BlkDirtyBits *bits, uint64_t offset, uint64_t bytes, bool dirty)
{
    uint64_t bit, end;

    if (offset >= bits->length || bytes == 0) {
        return;
    }
    bytes = MIN(bytes, bits->length - offset);
    end = granules_of(offset + bytes, bits->shift);
    for (bit = offset >> bits->shift; bit < end;) {
        uint64_t i = bit / CHUNK_BITS, from = bit % CHUNK_BITS, to = MIN(CHUNK_BITS, from + (end - bit));

        fill_in_chunk(bits, i, from, to, dirty);
        bit += to - from;
    }
}

void blk_dirty_bits_set(BlkDirtyBits *bits, uint64_t offset, uint64_t bytes)
{
    fill(bits, offset, bytes, true);
}

void blk_dirty_bits_clear(BlkDirtyBits *bits, uint64_t offset, uint64_t bytes)
{
    fill(bits, offset, bytes, false);
}

bool blk_dirty_bits_get(const BlkDirtyBits *bits, uint64_t offset)
{
    uint64_t bit = offset >> bits->shift;
    const Chunk *chunk = offset < bits->length ? bits->chunks[bit / CHUNK_BITS] : NULL;

    bit %= CHUNK_BITS;
    return chunk == FULL || (chunk && (chunk->words[bit / WORD_BITS] >> (bit % WORD_BITS) & 1));
}

/* The first granule from @bit on that is @dirty; @end, at most the number of granules, if none is before it. */
static uint64_t find(const BlkDirtyBits *bits, uint64_t bit, uint64_t end, bool dirty)
{
    while (bit < end) {
        uint64_t i = bit / CHUNK_BITS, found = CHUNK_BITS;
        const Chunk *chunk = bits->chunks[i];

        if (chunk == (dirty ? FULL : NULL)) {
            return bit;
        }
        if (chunk && chunk != FULL) {
            found = chunk_find(chunk, bit % CHUNK_BITS, dirty);
        }
        bit = i * CHUNK_BITS + found;
        if (found < CHUNK_BITS) {
            break;
        }
    }
    return MIN(bit, end);
}

bool blk_dirty_bits_next(const BlkDirtyBits *bits, uint64_t offset, uint64_t *start, uint64_t *bytes)
{
    uint64_t first, end;

    if (offset >= bits->length) {
        return false;
    }
    first = find(bits, offset >> bits->shift, bits->count, true);
    if (first == bits->count) {
        return false;
    }
    end = find(bits, first, bits->count, false);
    *start = MAX(first << bits->shift, offset);
    *bytes = (end == bits->count ? bits->length : end << bits->shift) - *start;
    return true;
}

uint64_t blk_dirty_bits_bytes(const BlkDirtyBits *bits)
{
    uint64_t bytes = bits->dirty << bits->shift, over = (bits->count << bits->shift) - bits->length;

    return over > 0 && blk_dirty_bits_get(bits, bits->length - 1) ? bytes - over : bytes;
}

void blk_dirty_bits_merge(BlkDirtyBits *bits, const BlkDirtyBits *source)
{
    uint64_t start, bytes;

    if (bits == source) {
        return;
    }
    for (uint64_t pos = 0; blk_dirty_bits_next(source, pos, &start, &bytes); pos = start + bytes) {
        blk_dirty_bits_set(bits, start, bytes);
    }
}

bool blk_dirty_bits_resize(BlkDirtyBits *bits, uint64_t length)
{
    uint64_t count = granules_of(length, bits->shift), old_chunks = chunks_of(bits->count);

    if (count > BLK_BITMAP_MAX_BITS) {
        return false;
    }
    if (count < bits->count) {
        blk_dirty_bits_clear(bits, count << bits->shift, UINT64_MAX >> 1);
    }
    /* The last chunk is full, or not, by another measure from now on. */
    if (MIN(count, bits->count) % CHUNK_BITS != 0) {
        uint64_t i = MIN(count, bits->count) / CHUNK_BITS;

        chunk_open(bits, i);
        bits->count = count;
        chunk_close(bits, i);
    }
    bits->count = count;
    bits->length = length;
    bits->chunks = g_renew(Chunk *, bits->chunks, chunks_of(count));
    for (uint64_t i = old_chunks; i < chunks_of(count); i++) {
        bits->chunks[i] = NULL;
    }
    return true;
}

uint64_t blk_dirty_bits_length(const BlkDirtyBits *bits)
{
    return bits->length;
}

size_t blk_dirty_bits_memory(const BlkDirtyBits *bits)
{
    size_t bytes = sizeof(*bits) + chunks_of(bits->count) * sizeof(Chunk *);

    for (uint64_t i = 0; i < chunks_of(bits->count); i++) {
        bytes += bits->chunks[i] && bits->chunks[i] != FULL ? sizeof(Chunk) : 0;
    }
    return bytes;
}

/* ---- as they are stored ---- */

void blk_dirty_bits_export(const BlkDirtyBits *bits, uint64_t first, void *buf, size_t bytes)
{
    uint64_t *out = buf;

    for (uint64_t bit = first; bit < first + bytes * 8; bit += WORD_BITS) {
        const Chunk *chunk = bit < bits->count ? bits->chunks[bit / CHUNK_BITS] : NULL;
        uint64_t word = 0;

        if (chunk == FULL) {
            word = word_mask(0, MIN(WORD_BITS, bits->count - bit));
        } else if (chunk) {
            word = chunk->words[bit % CHUNK_BITS / WORD_BITS];
        }
        *out++ = GUINT64_TO_LE(word);
    }
}

void blk_dirty_bits_import(BlkDirtyBits *bits, uint64_t first, const void *buf, size_t bytes)
{
    const uint8_t *in = buf;

    for (uint64_t bit = first; bit < MIN(bits->count, first + bytes * 8); bit += WORD_BITS, in += sizeof(uint64_t)) {
        uint64_t i = bit / CHUNK_BITS, mask = word_mask(0, MIN(WORD_BITS, bits->count - bit)), word;
        const Chunk *chunk = bits->chunks[i];

        memcpy(&word, in, sizeof(word));
        word = GUINT64_FROM_LE(word) & mask;
        if (word == 0 ? !chunk : word == mask && chunk == FULL) {
            continue;
        }
        bits->dirty -= chunk_dirty(bits, i);
        chunk_fill(chunk_open(bits, i), bit % CHUNK_BITS, bit % CHUNK_BITS + WORD_BITS, false);
        bits->chunks[i]->words[bit % CHUNK_BITS / WORD_BITS] = word;
        bits->chunks[i]->dirty += (uint32_t)__builtin_popcountll(word);
        chunk_close(bits, i);
        bits->dirty += chunk_dirty(bits, i);
    }
}

BlkDirtyState blk_dirty_bits_state(const BlkDirtyBits *bits, uint64_t first, uint64_t count)
{
    uint64_t end = MIN(first + count, bits->count);

    if (first >= end || find(bits, first, end, true) == end) {
        return BLK_DIRTY_NONE;
    }
    return find(bits, first, end, false) == end ? BLK_DIRTY_ALL : BLK_DIRTY_MIXED;
}
