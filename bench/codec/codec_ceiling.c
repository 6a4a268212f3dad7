/* SPDX-License-Identifier: MIT */
/*
 * codec_ceiling.c - how fast the codecs alone are: all blocks of a file, in memory, on some threads, without I/O.
 *
 *     codec-ceiling compress|decompress CODEC LEVEL BLOCK-BYTES THREADS FILE
 *
 * CODEC is libdeflate (raw deflate), zlib (the same with the 4 KiB window and the memory level of the peer), zstd, or
 * zstd-checksum (frames carry a checksum of their content). Each thread takes the next block until none is left, with
 * one context that it reuses; a block that does not become smaller counts as compressed and is left out when
 * decompressing. Blocks of zeroes are left out, since an image does not store them. Prints JSON: bytes that went in
 * (compress) or came out (decompress), bytes of the payloads and of what was stored plainly, and seconds of wall and
 * CPU time of one pass.
 *
 * Limitation: the file, its payloads and a decoded block per thread are held in memory.
 */
#include "config.h"

#include <glib.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zlib.h>
#include <zstd.h>

#ifdef HAVE_LIBDEFLATE
#include <libdeflate.h>
#endif

#define PEER_WINDOW_BITS    (-12)   /* negative: raw deflate */
#define PEER_MEM_LEVEL      9

typedef struct Context {
#ifdef HAVE_LIBDEFLATE
    struct libdeflate_compressor *deflate;
    struct libdeflate_decompressor *inflate;
#endif
    z_stream z_deflate, z_inflate;
    ZSTD_CCtx *zstd_compress;
    ZSTD_DCtx *zstd_decompress;
} Context;

/* Both return the bytes written, or 0 if the result does not fit. */
typedef size_t CodecFn(Context *context, void *dst, size_t dst_bytes, const void *src, size_t src_bytes);

typedef struct Codec {
    const char *name;
    void (*open)(Context *context, int level);
    CodecFn *compress, *decompress;
} Codec;

typedef struct Block {
    uint8_t *payload;           /* block_bytes of room */
    size_t payload_bytes;       /* 0: stored plainly */
} Block;

typedef struct Ceiling {
    const Codec *codec;
    int level;
    size_t block_bytes;
    unsigned threads;
    const uint8_t *data;
    size_t *offsets;            /* of the blocks, in data */
    Block *blocks;
    size_t block_count;
    atomic_size_t next;         /* block that nobody has taken */
    bool decompress;            /* in this pass */
    atomic_bool failed;
} Ceiling;

G_GNUC_NORETURN static void die(const char *what)
{
    fprintf(stderr, "codec-ceiling: %s\n", what);
    exit(EXIT_FAILURE);
}

/* ---- codecs ---- */

#ifdef HAVE_LIBDEFLATE

static void libdeflate_open(Context *context, int level)
{
    context->deflate = libdeflate_alloc_compressor(level);
    context->inflate = libdeflate_alloc_decompressor();
    if (context->deflate == NULL || context->inflate == NULL) {
        die("libdeflate does not know the level, or there is no memory");
    }
}

static size_t libdeflate_pack(Context *context, void *dst, size_t dst_bytes, const void *src, size_t src_bytes)
{
    return libdeflate_deflate_compress(context->deflate, src, src_bytes, dst, dst_bytes);
}

static size_t libdeflate_unpack(Context *context, void *dst, size_t dst_bytes, const void *src, size_t src_bytes)
{
    return libdeflate_deflate_decompress(context->inflate, src, src_bytes, dst, dst_bytes, NULL) == LIBDEFLATE_SUCCESS
           ? dst_bytes : 0;
}

#endif

static void zlib_open(Context *context, int level)
{
    if (deflateInit2(&context->z_deflate, level, Z_DEFLATED, PEER_WINDOW_BITS, PEER_MEM_LEVEL, Z_DEFAULT_STRATEGY) !=
        Z_OK || inflateInit2(&context->z_inflate, PEER_WINDOW_BITS) != Z_OK) {
        die("zlib does not know the level, or there is no memory");
    }
}

static size_t zlib_step(z_stream *stream, int (*step)(z_stream *, int), void *dst, size_t dst_bytes, const void *src,
                        size_t src_bytes)
{
    stream->next_in = (Bytef *)src;
    stream->avail_in = src_bytes;
    stream->next_out = dst;
    stream->avail_out = dst_bytes;
    return step(stream, Z_FINISH) == Z_STREAM_END ? stream->total_out : 0;
}

static size_t zlib_pack(Context *context, void *dst, size_t dst_bytes, const void *src, size_t src_bytes)
{
    deflateReset(&context->z_deflate);
    return zlib_step(&context->z_deflate, deflate, dst, dst_bytes, src, src_bytes);
}

static size_t zlib_unpack(Context *context, void *dst, size_t dst_bytes, const void *src, size_t src_bytes)
{
    inflateReset(&context->z_inflate);
    return zlib_step(&context->z_inflate, inflate, dst, dst_bytes, src, src_bytes);
}

static void zstd_open(Context *context, int level)
{
    context->zstd_compress = ZSTD_createCCtx();
    context->zstd_decompress = ZSTD_createDCtx();
    if (context->zstd_compress == NULL || context->zstd_decompress == NULL ||
        ZSTD_isError(ZSTD_CCtx_setParameter(context->zstd_compress, ZSTD_c_compressionLevel, level))) {
        die("zstd does not know the level, or there is no memory");
    }
}

static void zstd_checksum_open(Context *context, int level)
{
    zstd_open(context, level);
    ZSTD_CCtx_setParameter(context->zstd_compress, ZSTD_c_checksumFlag, 1);
}

static size_t zstd_pack(Context *context, void *dst, size_t dst_bytes, const void *src, size_t src_bytes)
{
    size_t bytes = ZSTD_compress2(context->zstd_compress, dst, dst_bytes, src, src_bytes);

    return ZSTD_isError(bytes) ? 0 : bytes;
}

static size_t zstd_unpack(Context *context, void *dst, size_t dst_bytes, const void *src, size_t src_bytes)
{
    size_t bytes = ZSTD_decompressDCtx(context->zstd_decompress, dst, dst_bytes, src, src_bytes);

    return ZSTD_isError(bytes) ? 0 : bytes;
}

static void close_context(Context *context)
{
#ifdef HAVE_LIBDEFLATE
    if (context->deflate != NULL) {
        libdeflate_free_compressor(context->deflate);
        libdeflate_free_decompressor(context->inflate);
    }
#endif
    deflateEnd(&context->z_deflate);        /* an error, and nothing else, if zlib was not used */
    inflateEnd(&context->z_inflate);
    ZSTD_freeCCtx(context->zstd_compress);
    ZSTD_freeDCtx(context->zstd_decompress);
}

static const Codec codecs[] = {
#ifdef HAVE_LIBDEFLATE
    { "libdeflate", libdeflate_open, libdeflate_pack, libdeflate_unpack },
#endif
    { "zlib", zlib_open, zlib_pack, zlib_unpack },
    { "zstd", zstd_open, zstd_pack, zstd_unpack },
    { "zstd-checksum", zstd_checksum_open, zstd_pack, zstd_unpack },
};

/* ---- passes ---- */

static gpointer work(gpointer opaque)
{
    Ceiling *c = opaque;
    Context context = { 0 };
    g_autofree uint8_t *decoded = g_malloc(c->block_bytes);
    size_t i;

    c->codec->open(&context, c->level);
    while ((i = atomic_fetch_add(&c->next, 1)) < c->block_count) {
        Block *block = &c->blocks[i];
        const uint8_t *src = c->data + c->offsets[i];

        if (!c->decompress) {
            block->payload_bytes = c->codec->compress(&context, block->payload, c->block_bytes - 1, src,
                                                       c->block_bytes);
        } else if (block->payload_bytes != 0 &&
                   c->codec->decompress(&context, decoded, c->block_bytes, block->payload, block->payload_bytes) !=
                   c->block_bytes) {
            c->failed = true;
        }
    }
    close_context(&context);
    return NULL;
}

static double now(clockid_t clock)
{
    struct timespec ts;

    clock_gettime(clock, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* One pass over all blocks; adds up its time. */
static void run_pass(Ceiling *c, bool decompress, double *wall, double *cpu)
{
    g_autofree GThread **threads = g_new(GThread *, c->threads);

    *wall = now(CLOCK_MONOTONIC);
    *cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    c->decompress = decompress;
    c->next = 0;
    for (unsigned i = 0; i < c->threads; i++) {
        threads[i] = g_thread_new("codec", work, c);
    }
    for (unsigned i = 0; i < c->threads; i++) {
        g_thread_join(threads[i]);
    }
    *wall = now(CLOCK_MONOTONIC) - *wall;
    *cpu = now(CLOCK_PROCESS_CPUTIME_ID) - *cpu;
    if (c->failed) {
        die("a payload does not decompress to its block");
    }
}

/* ---- input ---- */

static bool is_zero(const uint8_t *data, size_t bytes)
{
    return data[0] == 0 && memcmp(data, data + 1, bytes - 1) == 0;
}

/* Whole blocks that are not zero. Room for payloads is touched, so that no pass pays for the faults of its pages. */
static void find_blocks(Ceiling *c, size_t bytes)
{
    size_t most = bytes / c->block_bytes;

    c->offsets = g_new(size_t, most);
    c->blocks = g_new0(Block, most);
    for (size_t offset = 0; offset + c->block_bytes <= bytes; offset += c->block_bytes) {
        if (!is_zero(c->data + offset, c->block_bytes)) {
            Block *block = &c->blocks[c->block_count];

            c->offsets[c->block_count++] = offset;
            block->payload = g_malloc(c->block_bytes);
            memset(block->payload, 1, c->block_bytes);
        }
    }
    if (c->block_count == 0) {
        die("the file has no whole block that is not zero");
    }
}

static guint64 number(const char *text, guint64 min, guint64 max)
{
    guint64 value;

    if (!g_ascii_string_to_unsigned(text, 10, min, max, &value, NULL)) {
        die("a number is out of range");
    }
    return value;
}

static const Codec *codec_named(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(codecs); i++) {
        if (g_str_equal(codecs[i].name, name)) {
            return &codecs[i];
        }
    }
    die("the codecs are libdeflate (if built in), zlib, zstd and zstd-checksum");
}

static void print_result(const Ceiling *c, double wall, double cpu)
{
    size_t in = 0, stored = 0;

    for (size_t i = 0; i < c->block_count; i++) {
        size_t payload_bytes = c->blocks[i].payload_bytes;

        in += c->decompress && payload_bytes == 0 ? 0 : c->block_bytes;
        stored += payload_bytes != 0 ? payload_bytes : c->block_bytes;
    }
    printf("{\"bytes\": %zu, \"stored\": %zu, \"wall\": %.6f, \"cpu\": %.6f}\n", in, stored, wall, cpu);
}

int main(int argc, char **argv)
{
    Ceiling c = { 0 };
    char *data;
    size_t bytes;
    double wall, cpu;

    if (argc != 7 || !(g_str_equal(argv[1], "compress") || g_str_equal(argv[1], "decompress"))) {
        die("usage: codec-ceiling compress|decompress CODEC LEVEL BLOCK-BYTES THREADS FILE");
    }
    c.codec = codec_named(argv[2]);
    c.level = (int)number(argv[3], 1, 22);
    c.block_bytes = number(argv[4], 2, 64 << 20);
    c.threads = (unsigned)number(argv[5], 1, 1024);
    if (!g_file_get_contents(argv[6], &data, &bytes, NULL)) {
        die("the file cannot be read");
    }
    c.data = (const uint8_t *)data;
    find_blocks(&c, bytes);
    run_pass(&c, false, &wall, &cpu);
    if (g_str_equal(argv[1], "decompress")) {
        run_pass(&c, true, &wall, &cpu);
    }
    print_result(&c, wall, cpu);
    for (size_t i = 0; i < c.block_count; i++) {
        g_free(c.blocks[i].payload);
    }
    g_free(c.blocks);
    g_free(c.offsets);
    g_free(data);
    return EXIT_SUCCESS;
}
