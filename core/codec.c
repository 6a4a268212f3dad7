/* SPDX-License-Identifier: MIT */
/*
 * codec.c - deflate, raw or in a zlib stream, and zstd.
 *
 * Deflate is libdeflate's if it is built in, else zlib's; both write and read the same format, with distances up to
 * 32 KiB. A reader that inflates a cluster into one buffer decodes them whatever window it announces, so there is no
 * need for the small windows of old writers.
 *
 * Default levels, measured on 64 KiB clusters of two archives, of programs with their documentation and of shared
 * libraries (ratio of each, MB/s on one core):
 *
 *     libdeflate 1 (default)    0.329  0.406   200        zlib 6, 4 KiB window     0.343  0.401    34
 *     libdeflate 2              0.319  0.391   125        zlib 6, 32 KiB (default) 0.307  0.381    30
 *     libdeflate 6              0.304  0.377    70        zstd 3 (default)         0.322  0.390   195
 *
 * zstd frames carry a checksum of their content. They are decoded one by one straight into the caller's buffer, which
 * needs no window, whatever their headers ask for.
 *
 * Limitations: one thread keeps one deflate compressor, of the level used last.
 */
#include "config.h"

#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

#ifdef HAVE_LIBDEFLATE
#include <libdeflate.h>
#define DEFLATE_LEVEL_DEFAULT 1
#define DEFLATE_LEVEL_MAX 12
#else
#include <zlib.h>
#define DEFLATE_LEVEL_DEFAULT 6
#define DEFLATE_LEVEL_MAX 9
#define DEFLATE_WINDOW_BITS 15
#define DEFLATE_MEM_LEVEL 9
#endif

#include <core/codec.h>

#define ZSTD_LEVEL_DEFAULT 3
#define ZSTD_LEVEL_MAX 22

enum {
    SHORT_BYTES = 65536,            /* 50 to 200 us to decompress; 250 to 400 to compress at a fast level: */
    SHORT_ZSTD_LEVEL = 3,
    SHORT_DEFLATE_LEVEL = 1,
    TASKS_PER_WORKER = 32,          /* what works while the loop is asleep or kept waiting, and what it deals with at once */
    TASK_BYTES = 16 << 20,          /* of all tasks, if that is enough for all workers */
    MIN_TASKS_PER_WORKER = 8,       /* of a small disk, */
    DISK_PARTS = 64,                /* of which no more than one is under way */
    STORED_BLOCK = 5000,            /* bytes: what deflate cannot compress it stores in blocks of at least this size, */
    STORED_HEAD = 5,                /* with so many bytes before each, */
    STREAM_BYTES = 16,              /* and so many around all of it */
};

struct BlkCodec {
    BlkCodecType type;
    int level;
};

/* What one thread reuses. */
typedef struct CodecCache {
#ifdef HAVE_LIBDEFLATE
    struct libdeflate_compressor *deflate;
    struct libdeflate_decompressor *inflate;
#else
    z_stream deflate, inflate;
    int deflate_window;     /* of deflate; negative: raw */
    int inflate_window;     /* 0: there is no inflate */
#endif
    int deflate_level;      /* of deflate; 0: there is none */
    ZSTD_CCtx *zstd_compress;
    ZSTD_DCtx *zstd_decompress;
} CodecCache;

static void cache_free(gpointer data)
{
    CodecCache *cache = data;

#ifdef HAVE_LIBDEFLATE
    if (cache->deflate != NULL) {
        libdeflate_free_compressor(cache->deflate);
    }
    if (cache->inflate != NULL) {
        libdeflate_free_decompressor(cache->inflate);
    }
#else
    if (cache->deflate_level != 0) {
        deflateEnd(&cache->deflate);
    }
    if (cache->inflate_window != 0) {
        inflateEnd(&cache->inflate);
    }
#endif
    ZSTD_freeCCtx(cache->zstd_compress);
    ZSTD_freeDCtx(cache->zstd_decompress);
    g_free(cache);
}

static CodecCache *cache_get(void)
{
    static GPrivate per_thread = G_PRIVATE_INIT(cache_free);
    CodecCache *cache = g_private_get(&per_thread);

    if (cache == NULL) {
        cache = g_new0(CodecCache, 1);
        g_private_set(&per_thread, cache);
    }
    return cache;
}

BlkCodec *blk_codec_new(BlkCodecType type, int level, GError **error)
{
    bool zstd = type == BLK_CODEC_ZSTD;
    int max = zstd ? ZSTD_LEVEL_MAX : DEFLATE_LEVEL_MAX;
    BlkCodec *codec;

    if (level != -1 && (level < 1 || level > max)) {
        blk_error(error, -EINVAL, "%s has the compression levels 1 to %d, not %d", zstd ? "zstd" : "deflate", max,
                  level);
        return NULL;
    }
    codec = g_new0(BlkCodec, 1);
    codec->type = type;
    codec->level = level != -1 ? level : zstd ? ZSTD_LEVEL_DEFAULT : DEFLATE_LEVEL_DEFAULT;
    return codec;
}

void blk_codec_free(BlkCodec *codec)
{
    g_free(codec);
}

/* ---- deflate ---- */

#ifdef HAVE_LIBDEFLATE

static gssize deflate_compress(bool zlib, int level, void *dst, size_t dst_bytes, const void *src, size_t src_bytes)
{
    CodecCache *cache = cache_get();
    size_t bytes;

    if (cache->deflate_level != level) {
        if (cache->deflate != NULL) {
            libdeflate_free_compressor(cache->deflate);
        }
        cache->deflate = libdeflate_alloc_compressor(level);
        cache->deflate_level = cache->deflate != NULL ? level : 0;
    }
    if (cache->deflate == NULL) {
        return -ENOMEM;
    }
    bytes = zlib ? libdeflate_zlib_compress(cache->deflate, src, src_bytes, dst, dst_bytes)
                 : libdeflate_deflate_compress(cache->deflate, src, src_bytes, dst, dst_bytes);
    return bytes != 0 ? (gssize)bytes : -ENOSPC;
}

/* @got: (out) (nullable): how much was decoded; NULL: anything but @dst_bytes is an error. */
static int deflate_decompress(bool zlib, void *dst, size_t dst_bytes, const void *src, size_t src_bytes, size_t *got)
{
    CodecCache *cache = cache_get();
    enum libdeflate_result result;

    if (cache->inflate == NULL) {
        cache->inflate = libdeflate_alloc_decompressor();
        if (cache->inflate == NULL) {
            return -ENOMEM;
        }
    }
    result = zlib ? libdeflate_zlib_decompress_ex(cache->inflate, src, src_bytes, dst, dst_bytes, NULL, got)
                  : libdeflate_deflate_decompress_ex(cache->inflate, src, src_bytes, dst, dst_bytes, NULL, got);
    return result == LIBDEFLATE_SUCCESS ? 0 : -EIO;
}

#else

static int window_bits(bool zlib)
{
    return zlib ? DEFLATE_WINDOW_BITS : -DEFLATE_WINDOW_BITS;
}

static gssize deflate_compress(bool zlib, int level, void *dst, size_t dst_bytes, const void *src, size_t src_bytes)
{
    CodecCache *cache = cache_get();

    if (cache->deflate_level != level || cache->deflate_window != window_bits(zlib)) {
        if (cache->deflate_level != 0) {
            deflateEnd(&cache->deflate);
            cache->deflate_level = 0;
        }
        if (deflateInit2(&cache->deflate, level, Z_DEFLATED, window_bits(zlib), DEFLATE_MEM_LEVEL,
                         Z_DEFAULT_STRATEGY) != Z_OK) {
            return -ENOMEM;
        }
        cache->deflate_level = level;
        cache->deflate_window = window_bits(zlib);
    }
    deflateReset(&cache->deflate);
    cache->deflate.next_in = (Bytef *)src;
    cache->deflate.avail_in = src_bytes;
    cache->deflate.next_out = dst;
    cache->deflate.avail_out = dst_bytes;
    return deflate(&cache->deflate, Z_FINISH) == Z_STREAM_END ? (gssize)cache->deflate.total_out : -ENOSPC;
}

/* @got: (out) (nullable): how much was decoded; NULL: anything but @dst_bytes is an error. */
static int deflate_decompress(bool zlib, void *dst, size_t dst_bytes, const void *src, size_t src_bytes, size_t *got)
{
    CodecCache *cache = cache_get();

    if (cache->inflate_window != window_bits(zlib)) {
        if (cache->inflate_window != 0) {
            inflateEnd(&cache->inflate);
            cache->inflate_window = 0;
        }
        if (inflateInit2(&cache->inflate, window_bits(zlib)) != Z_OK) {
            return -ENOMEM;
        }
        cache->inflate_window = window_bits(zlib);
    }
    inflateReset(&cache->inflate);
    cache->inflate.next_in = (Bytef *)src;
    cache->inflate.avail_in = src_bytes;
    cache->inflate.next_out = dst;
    cache->inflate.avail_out = dst_bytes;
    if (inflate(&cache->inflate, Z_FINISH) != Z_STREAM_END || (got == NULL && cache->inflate.avail_out != 0)) {
        return -EIO;
    }
    if (got != NULL) {
        *got = dst_bytes - cache->inflate.avail_out;
    }
    return 0;
}

#endif

/* ---- zstd ---- */

static gssize zstd_compress(int level, void *dst, size_t dst_bytes, const void *src, size_t src_bytes)
{
    CodecCache *cache = cache_get();
    size_t bytes;

    if (cache->zstd_compress == NULL) {
        cache->zstd_compress = ZSTD_createCCtx();
        if (cache->zstd_compress == NULL) {
            return -ENOMEM;
        }
    }
    ZSTD_CCtx_setParameter(cache->zstd_compress, ZSTD_c_compressionLevel, level);
    ZSTD_CCtx_setParameter(cache->zstd_compress, ZSTD_c_checksumFlag, 1);
    bytes = ZSTD_compress2(cache->zstd_compress, dst, dst_bytes, src, src_bytes);
    if (!ZSTD_isError(bytes)) {
        return bytes;
    }
    switch (ZSTD_getErrorCode(bytes)) {
    case ZSTD_error_dstSize_tooSmall:
        return -ENOSPC;
    case ZSTD_error_memory_allocation:
        return -ENOMEM;
    default:
        return -EIO;
    }
}

/* A frame of the current format, or one to be skipped; the library may know older formats as well. */
static bool zstd_is_frame(const uint8_t *src, size_t src_bytes)
{
    uint32_t magic;

    if (src_bytes < sizeof(magic)) {
        return false;
    }
    memcpy(&magic, src, sizeof(magic));
    magic = GUINT32_FROM_LE(magic);
    return magic == ZSTD_MAGICNUMBER || (magic & ZSTD_MAGIC_SKIPPABLE_MASK) == ZSTD_MAGIC_SKIPPABLE_START;
}

static int zstd_decompress(uint8_t *dst, size_t dst_bytes, const uint8_t *src, size_t src_bytes)
{
    CodecCache *cache = cache_get();

    if (cache->zstd_decompress == NULL) {
        cache->zstd_decompress = ZSTD_createDCtx();
        if (cache->zstd_decompress == NULL) {
            return -ENOMEM;
        }
    }
    while (dst_bytes > 0) {
        size_t frame_bytes, decoded;

        if (!zstd_is_frame(src, src_bytes)) {
            return -EIO;
        }
        frame_bytes = ZSTD_findFrameCompressedSize(src, src_bytes);
        if (ZSTD_isError(frame_bytes)) {
            return -EIO;
        }
        decoded = ZSTD_decompressDCtx(cache->zstd_decompress, dst, dst_bytes, src, frame_bytes);
        if (ZSTD_isError(decoded)) {
            return ZSTD_getErrorCode(decoded) == ZSTD_error_memory_allocation ? -ENOMEM : -EIO;
        }
        dst += decoded;
        dst_bytes -= decoded;
        src += frame_bytes;
        src_bytes -= frame_bytes;
    }
    return 0;
}

/* ---- both ---- */

unsigned blk_codec_max_level(const BlkCodec *codec)
{
    return codec->type == BLK_CODEC_ZSTD ? ZSTD_LEVEL_MAX : DEFLATE_LEVEL_MAX;
}

gssize blk_codec_compress(const BlkCodec *codec, unsigned level, void *dst, size_t dst_bytes, const void *src,
                          size_t src_bytes)
{
    int used = level > 0 ? (int)level : codec->level;

    return codec->type == BLK_CODEC_ZSTD ? zstd_compress(used, dst, dst_bytes, src, src_bytes)
                                         : deflate_compress(codec->type == BLK_CODEC_ZLIB, used, dst, dst_bytes, src,
                                                            src_bytes);
}

int blk_codec_decompress(const BlkCodec *codec, void *dst, size_t dst_bytes, const void *src, size_t src_bytes)
{
    return codec->type == BLK_CODEC_ZSTD
           ? zstd_decompress(dst, dst_bytes, src, src_bytes)
           : deflate_decompress(codec->type == BLK_CODEC_ZLIB, dst, dst_bytes, src, src_bytes, NULL);
}

int blk_codec_decompress_short(const BlkCodec *codec, void *dst, size_t dst_bytes, const void *src, size_t src_bytes)
{
    size_t got = dst_bytes;
    int ret = codec->type == BLK_CODEC_ZSTD
              ? -ENOTSUP : deflate_decompress(codec->type == BLK_CODEC_ZLIB, dst, dst_bytes, src, src_bytes, &got);

    if (ret == 0) {
        memset((uint8_t *)dst + got, 0, dst_bytes - got);
    }
    return ret;
}

size_t blk_codec_bound(size_t bytes)
{
    return bytes + STORED_HEAD * (bytes / STORED_BLOCK + 1) + STREAM_BYTES;
}

unsigned blk_codec_tasks(const BlkContext *ctx, uint64_t bytes, uint64_t disk_bytes)
{
    unsigned workers = blk_context_workers(ctx);
    uint64_t of_memory = MAX(2 * workers, TASK_BYTES / MAX(bytes, 1));
    uint64_t of_disk = MAX(MIN_TASKS_PER_WORKER * workers, disk_bytes / DISK_PARTS / MAX(bytes, 1));

    return (unsigned)MIN(TASKS_PER_WORKER * workers, MIN(of_memory, of_disk));
}

typedef struct CodecJob {
    const BlkCodec *codec;
    unsigned level;
    void *dst;
    size_t dst_bytes;
    const void *src;
    size_t src_bytes;
    bool may_be_short;
    gssize compressed;
} CodecJob;

static int compress_job(void *arg)
{
    CodecJob *job = arg;

    job->compressed = blk_codec_compress(job->codec, job->level, job->dst, job->dst_bytes, job->src, job->src_bytes);
    return 0;
}

static int decompress_job(void *arg)
{
    CodecJob *job = arg;

    return job->may_be_short ? blk_codec_decompress_short(job->codec, job->dst, job->dst_bytes, job->src, job->src_bytes)
                             : blk_codec_decompress(job->codec, job->dst, job->dst_bytes, job->src, job->src_bytes);
}

/* Whether the loop can do so much between two looks at what has ended. */
static bool compresses_soon(const BlkCodec *codec, unsigned level, size_t bytes)
{
    int used = level > 0 ? (int)level : codec->level;

#ifndef HAVE_LIBDEFLATE
    if (codec->type != BLK_CODEC_ZSTD) {
        return false;
    }
#endif
    return bytes <= SHORT_BYTES && used <= (codec->type == BLK_CODEC_ZSTD ? SHORT_ZSTD_LEVEL : SHORT_DEFLATE_LEVEL);
}

gssize blk_co_codec_compress(const BlkCodec *codec, unsigned level, void *dst, size_t dst_bytes, const void *src,
                             size_t src_bytes)
{
    CodecJob job = {
        .codec = codec, .level = level, .dst = dst, .dst_bytes = dst_bytes, .src = src, .src_bytes = src_bytes,
    };
    int ret = compresses_soon(codec, level, src_bytes) ? blk_co_offload_short(compress_job, &job)
                                                       : blk_co_offload(compress_job, &job);

    return ret < 0 ? ret : job.compressed;
}

static int co_decompress(CodecJob job)
{
    return job.dst_bytes <= SHORT_BYTES ? blk_co_offload_short(decompress_job, &job)
                                        : blk_co_offload(decompress_job, &job);
}

int blk_co_codec_decompress(const BlkCodec *codec, void *dst, size_t dst_bytes, const void *src, size_t src_bytes)
{
    return co_decompress((CodecJob){
        .codec = codec, .dst = dst, .dst_bytes = dst_bytes, .src = src, .src_bytes = src_bytes,
    });
}

int blk_co_codec_decompress_short(const BlkCodec *codec, void *dst, size_t dst_bytes, const void *src, size_t src_bytes)
{
    return co_decompress((CodecJob){
        .codec = codec, .dst = dst, .dst_bytes = dst_bytes, .src = src, .src_bytes = src_bytes, .may_be_short = true,
    });
}
