/* SPDX-License-Identifier: MIT */
/*
 * codec.h - compression of one cluster: raw deflate, the same in a zlib stream, and zstd.
 *
 * A codec is constant after it was made; any number of threads may use it at once. Contexts of the libraries are kept per
 * thread and reused.
 */
#ifndef BLKSTACK_CORE_CODEC_H
#define BLKSTACK_CORE_CODEC_H

#include <blkstack/driver.h>

typedef enum BlkCodecType {
    BLK_CODEC_DEFLATE,      /* RFC 1951 */
    BLK_CODEC_ZLIB,         /* RFC 1950: with a header and a checksum */
    BLK_CODEC_ZSTD,
} BlkCodecType;

/**
 * blk_codec_new:
 * @level: of the library; -1 for the default of @type. Out of range: -EINVAL
 */
BlkCodec *blk_codec_new(BlkCodecType type, int level, GError **error);
void blk_codec_free(BlkCodec *codec);       /* NULL is ignored */

/* The highest level; all from 1 on can be used. */
unsigned blk_codec_max_level(const BlkCodec *codec);

/**
 * blk_codec_compress:
 * @level: 1 to blk_codec_max_level(); 0: the codec's own
 *
 * Context: any thread.
 * Returns: bytes written to @dst (1..@dst_bytes); -ENOSPC if the result is longer than @dst_bytes; -ENOMEM.
 */
gssize blk_codec_compress(const BlkCodec *codec, unsigned level, void *dst, size_t dst_bytes, const void *src,
                          size_t src_bytes);

/**
 * blk_codec_decompress:
 * @dst_bytes: exactly what the payload must decode to
 * @src_bytes: at least the length of the payload; what follows it is ignored
 *
 * Memory is bounded whatever the payload says. Context: any thread.
 * Returns: 0; -EIO if it decodes to less or more, is damaged or cut off; -ENOMEM.
 */
int blk_codec_decompress(const BlkCodec *codec, void *dst, size_t dst_bytes, const void *src, size_t src_bytes);

/* The same for payloads that may decode to less, as that of a last cluster which the disk ends in: what is left of @dst is
 * zeroes then. Not for zstd. */
int blk_codec_decompress_short(const BlkCodec *codec, void *dst, size_t dst_bytes, const void *src, size_t src_bytes);

/* How long the result of compressing @bytes can be, however badly they compress. */
size_t blk_codec_bound(size_t bytes);

/* How many compressions of @bytes each should be under way to keep all workers busy, also while the loop does other work;
 * of large clusters fewer, for the memory that they take, and of a small disk of @disk_bytes, since the space of what they
 * replace is not free before they have ended; but enough for each worker. */
unsigned blk_codec_tasks(const BlkContext *ctx, uint64_t bytes, uint64_t disk_bytes);

/* The same on the worker pool; decompression of up to 64 KiB in this thread if the context is idle otherwise. Context:
 * coroutine; may yield. */
gssize blk_co_codec_compress(const BlkCodec *codec, unsigned level, void *dst, size_t dst_bytes, const void *src,
                             size_t src_bytes);
int blk_co_codec_decompress(const BlkCodec *codec, void *dst, size_t dst_bytes, const void *src, size_t src_bytes);
int blk_co_codec_decompress_short(const BlkCodec *codec, void *dst, size_t dst_bytes, const void *src, size_t src_bytes);

#endif
