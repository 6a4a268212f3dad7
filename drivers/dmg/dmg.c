/* SPDX-License-Identifier: MIT */
/*
 * dmg.c - format driver "dmg": disk images of Apple's (UDIF), to be read.
 *
 *     data of all chunks | property list (XML): where they lie | trailer of 512 bytes:
 *         0    "koly", version, 512, flags      24   begin of data (8), length (8)
 *         40   binary resource fork (8), length (8)      216  property list (8), length (8)
 *
 * The disk is made of chunks of any length: zeroes, plain data, and compressed ones, which are read through a cache of
 * decompressed chunks. The format engine wants clusters of one size, so this driver reads by itself.
 *
 * Limitations: chunks that are coded by ADC, LZFSE or LZMA are errors when they are read; images that have a binary
 * resource fork only (older than 2002), several segments, or encryption are refused.
 */
#include "config.h"

#include "drivers/dmg/dmg.h"

#include "core/big_endian.h"
#include "core/cluster_cache.h"
#include "core/codec.h"

#include <inttypes.h>

#ifdef HAVE_BZIP2
#include <bzlib.h>
#endif

enum { TRAILER_BYTES = 512, TAIL_BYTES = 1024 };

#define TRAILER_MAGIC UINT32_C(0x6b6f6c79)
#define MAX_PLIST (UINT64_C(16) << 20)
#define CACHE_BYTES (UINT64_C(16) << 20)
#define LARGE_CHUNK (UINT64_C(4) << 20)         /* of those one at a time is decoded, for the memory that they take */

typedef struct DmgState {
    GArray *chunks;                 /* of DmgChunk, by place on the disk */
    uint64_t largest;               /* compressed chunk, decompressed, bytes */
    BlkClusterCache *cache;         /* of chunks: as if all were as long as the largest */
    BlkCodec *zlib;
    BlkCoMutex large;
    unsigned told;                  /* types, as bits, of which the user knows that they cannot be read */
} DmgState;

static const BlkOption dmg_options[] = {
    { "file", BLK_OPTION_NODE, "the image file", .required = true },
    { NULL },
};

/* The magic is at the end: the name must do. */
static int dmg_probe(const uint8_t *head, size_t bytes, const char *filename)
{
    return filename && g_str_has_suffix(filename, ".dmg") ? 2 : 0;
}

/* ---- opening ---- */

/* The trailer ends with the file, whose length is rounded up to sectors. */
static int co_read_trailer(BlkNode *file, uint8_t *trailer, uint64_t *offset, GError **error)
{
    uint64_t length = blk_node_length(file), tail = MIN(length, TAIL_BYTES);
    uint8_t buf[TAIL_BYTES];
    int ret = blk_co_pread(file, length - tail, tail, buf, 0);

    if (ret < 0) {
        return blk_error_errno(error, ret, "Could not read the trailer of the dmg image");
    }
    for (uint64_t back = TRAILER_BYTES; back <= tail; back++) {
        const uint8_t *at = buf + tail - back;

        if (blk_get_be32(at) == TRAILER_MAGIC && blk_get_be32(at + 8) == TRAILER_BYTES) {
            memcpy(trailer, at, TRAILER_BYTES);
            *offset = length - back;
            return 0;
        }
    }
    return blk_error(error, -EINVAL, "Image is not in dmg format: it has no trailer at its end");
}

static int co_read_plist(BlkNode *file, const uint8_t *trailer, uint64_t end, GPtrArray **blocks, GError **error)
{
    uint64_t offset = blk_get_be64(trailer + 216), bytes = blk_get_be64(trailer + 224);
    g_autofree char *xml = NULL;
    int ret;

    if (bytes == 0) {
        return blk_error(error, -ENOTSUP, "The dmg image has no property list: those with a binary resource fork only "
                         "are not supported");
    }
    if (offset > end || bytes > end - offset) {
        return blk_error(error, -EINVAL, "The property list of the dmg image does not lie in the file");
    }
    if (bytes > MAX_PLIST) {
        return blk_error(error, -EFBIG, "The property list of the dmg image is too long: %" PRIu64 " bytes, the limit "
                         "is %" PRIu64, bytes, MAX_PLIST);
    }
    xml = g_try_malloc(bytes);
    if (!xml) {
        return blk_error(error, -ENOMEM, "No memory for the property list of the dmg image: %" PRIu64 " bytes", bytes);
    }
    ret = blk_co_pread(file, offset, bytes, xml, 0);
    return ret < 0 ? blk_error_errno(error, ret, "Could not read the property list of the dmg image")
                   : dmg_plist_parse(xml, bytes, blocks, error);
}

static int co_read_chunks(DmgState *s, BlkNode *file, GError **error)
{
    uint8_t trailer[TRAILER_BYTES] = { 0 };
    g_autoptr(GPtrArray) blocks = NULL;
    uint64_t end = 0;
    int ret = co_read_trailer(file, trailer, &end, error);

    if (ret == 0 && blk_get_be32(trailer + 60) > 1) {
        return blk_error(error, -ENOTSUP, "The dmg image has %" PRIu32 " segments, of which each is a file: this is "
                         "not supported", blk_get_be32(trailer + 60));
    }
    if (ret == 0) {
        ret = co_read_plist(file, trailer, end, &blocks, error);
    }
    for (guint i = 0; ret == 0 && i < blocks->len; i++) {
        ret = dmg_chunks_add(s->chunks, g_ptr_array_index(blocks, i), end, blk_get_be64(trailer + 24), error);
    }
    if (ret == 0 && s->chunks->len == 0) {
        return blk_error(error, -EINVAL, "The dmg image has no data: its property list names no chunk");
    }
    return ret == 0 ? dmg_chunks_finish(s->chunks, error) : ret;
}

static int dmg_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    DmgState *s = node->opaque;
    int ret;

    if (!blk_co_open_child(node, options, "file", BLK_ROLE_IMAGE, error)) {
        return -EINVAL;
    }
    ret = blk_node_only_read(node, "Images of the format 'dmg' can only be read: open it read-only, or convert it to "
                             "qcow2", error);
    if (ret < 0) {
        return ret;
    }
    s->chunks = g_array_new(FALSE, FALSE, sizeof(DmgChunk));
    ret = co_read_chunks(s, node->file->node, error);
    if (ret < 0) {
        return ret;
    }
    for (guint i = 0; i < s->chunks->len; i++) {
        const DmgChunk *chunk = &g_array_index(s->chunks, DmgChunk, i);

        node->length = chunk->start + chunk->length;
        if (!dmg_chunk_is_zero(chunk) && chunk->type != DMG_RAW) {
            s->largest = MAX(s->largest, chunk->length);
        }
    }
    s->cache = blk_cluster_cache_new(CACHE_BYTES, (uint32_t)MAX(s->largest, DMG_SECTOR));
    s->zlib = blk_codec_new(BLK_CODEC_ZLIB, -1, error);
    return s->zlib ? 0 : -EINVAL;
}

static void dmg_co_close(BlkNode *node)
{
    DmgState *s = node->opaque;

    blk_cluster_cache_free(s->cache);
    g_clear_pointer(&s->zlib, blk_codec_free);
    g_clear_pointer(&s->chunks, g_array_unref);
}

static void dmg_refresh_limits(BlkNode *node)
{
    node->limits.read_align = node->limits.write_align = 1;
    node->limits.max_transfer = 0;
}

/* ---- compressed chunks ---- */

static const char *type_name(DmgChunkType type)
{
    switch (type) {
    case DMG_ADC:
        return "ADC";
    case DMG_BZIP2:
        return "bzip2 (which was not built in)";
    case DMG_LZFSE:
        return "LZFSE";
    case DMG_LZMA:
        return "LZMA";
    default:
        return NULL;
    }
}

static int refuse_type(BlkNode *node, const DmgChunk *chunk)
{
    DmgState *s = node->opaque;
    const char *name = type_name(chunk->type);
    unsigned bit = 1u << (name ? (unsigned)chunk->type & 15 : 0);

    if (!(s->told & bit) && name) {
        blk_node_message(node, "the chunk of byte %" PRIu64 " of the disk is compressed by %s, which is not supported",
                         chunk->start, name);
    } else if (!(s->told & bit)) {
        blk_node_message(node, "the chunk of byte %" PRIu64 " of the disk has the unknown type %#x", chunk->start,
                         chunk->type);
    }
    s->told |= bit;
    return -ENOTSUP;
}

#ifdef HAVE_BZIP2

typedef struct Bzip2Job {
    char *dst, *src;
    unsigned dst_bytes, src_bytes;
} Bzip2Job;

static int bzip2_job(void *opaque)
{
    Bzip2Job *job = opaque;
    unsigned bytes = job->dst_bytes;
    int ret = BZ2_bzBuffToBuffDecompress(job->dst, &bytes, job->src, job->src_bytes, 0, 0);

    return ret == BZ_MEM_ERROR ? -ENOMEM : ret == BZ_OK && bytes == job->dst_bytes ? 0 : -EIO;
}

static int co_decode_bzip2(void *dst, size_t dst_bytes, void *src, size_t src_bytes)
{
    Bzip2Job job = { .dst = dst, .src = src, .dst_bytes = (unsigned)dst_bytes, .src_bytes = (unsigned)src_bytes };

    return blk_co_offload(bzip2_job, &job);
}

enum { HAS_BZIP2 = true };

#else

static int co_decode_bzip2(void *dst, size_t dst_bytes, void *src, size_t src_bytes)
{
    return -ENOTSUP;
}

enum { HAS_BZIP2 = false };

#endif

typedef struct ChunkLoad {
    BlkNode *node;
    const DmgChunk *chunk;
} ChunkLoad;

static int co_decode(const ChunkLoad *load, uint8_t *out)
{
    const DmgChunk *chunk = load->chunk;
    const DmgState *s = load->node->opaque;
    void *packed = blk_buffer_try_alloc(NULL, MAX(chunk->bytes, 1));
    int ret = packed ? blk_co_pread(load->node->file->node, chunk->offset, chunk->bytes, packed, 0) : -ENOMEM;

    if (ret == 0 && chunk->type == DMG_ZLIB) {
        ret = blk_co_codec_decompress(s->zlib, out, chunk->length, packed, chunk->bytes);
    } else if (ret == 0) {
        ret = co_decode_bzip2(out, chunk->length, packed, chunk->bytes);
    }
    blk_buffer_free(packed);
    return ret;
}

/* BlkClusterLoad; @out has room for the largest chunk. */
static int load_chunk(void *opaque, uint8_t *out)
{
    const ChunkLoad *load = opaque;
    DmgState *s = load->node->opaque;
    bool large = load->chunk->length > LARGE_CHUNK || load->chunk->bytes > LARGE_CHUNK;
    int ret;

    if (large) {
        blk_co_mutex_lock(&s->large);
    }
    ret = co_decode(load, out);
    if (large) {
        blk_co_mutex_unlock(&s->large);
    }
    return ret;
}

/* When all that there is room for in the cache is held. */
static int co_read_uncached(ChunkLoad *load, uint64_t in_chunk, uint64_t bytes, BlkIov iov)
{
    const DmgState *s = load->node->opaque;
    uint8_t *data = blk_buffer_try_alloc(NULL, s->largest);
    int ret = data ? load_chunk(load, data) : -ENOMEM;

    if (ret == 0) {
        blk_iov_from_buf(iov, data + in_chunk, bytes);
    }
    blk_buffer_free(data);
    return ret;
}

static int co_read_packed(BlkNode *node, const DmgChunk *chunk, uint64_t in_chunk, uint64_t bytes, BlkIov iov)
{
    DmgState *s = node->opaque;
    /* The cache's key is the number of the chunk: two that say they lie in one place need not decode alike. */
    const BlkMapping map = {
        .kind = BLK_MAP_COMPRESSED, .child = node->file, .host_offset = (uint64_t)(chunk - (DmgChunk *)s->chunks->data),
    };
    ChunkLoad load = { node, chunk };
    BlkCachedCluster *cached = NULL;
    int ret;

    if (chunk->type != DMG_ZLIB && !(chunk->type == DMG_BZIP2 && HAS_BZIP2)) {
        return refuse_type(node, chunk);
    }
    ret = blk_cluster_cache_co_find(s->cache, &map, &cached);
    if (ret == 0 && !cached) {
        ret = blk_cluster_cache_co_load(s->cache, &map, load_chunk, &load, false, &cached);
    }
    if (ret < 0 || !cached) {
        return ret < 0 ? ret : co_read_uncached(&load, in_chunk, bytes, iov);
    }
    blk_iov_from_buf(iov, cached->data + in_chunk, bytes);
    blk_cluster_cache_put(s->cache, cached, in_chunk + bytes == chunk->length);
    return 0;
}

/* ---- requests ---- */

static int co_read_chunk(BlkNode *node, const DmgChunk *chunk, uint64_t in_chunk, uint64_t bytes, BlkIov iov)
{
    if (dmg_chunk_is_zero(chunk)) {
        blk_iov_zero(iov, bytes);
        return 0;
    }
    return chunk->type == DMG_RAW ? blk_co_preadv(node->file->node, chunk->offset + in_chunk, bytes, iov, 0)
                                  : co_read_packed(node, chunk, in_chunk, bytes, iov);
}

static int dmg_co_preadv(BlkNode *node, BlkRequest *req)
{
    const DmgState *s = node->opaque;
    uint64_t done = 0, gap;

    while (done < req->bytes) {
        const DmgChunk *chunk = dmg_chunks_find(s->chunks, req->offset + done, &gap);
        int ret;

        if (!chunk) {
            return -EIO;            /* nobody says what is there */
        }
        uint64_t in_chunk = req->offset + done - chunk->start, bytes = MIN(req->bytes - done, chunk->length - in_chunk);
        ret = co_read_chunk(node, chunk, in_chunk, bytes, blk_iov_advance(req->iov, done));
        if (ret < 0) {
            return ret;
        }
        done += bytes;
    }
    return 0;
}

static int dmg_co_block_status(BlkNode *node, uint64_t offset, uint64_t bytes, BlkStatus *status)
{
    const DmgState *s = node->opaque;
    uint64_t gap;
    const DmgChunk *chunk = dmg_chunks_find(s->chunks, offset, &gap);

    status->flags = BLK_STATUS_ALLOCATED | (chunk && dmg_chunk_is_zero(chunk) ? BLK_STATUS_ZERO : BLK_STATUS_DATA);
    status->bytes = MIN(bytes, chunk ? chunk->start + chunk->length - offset : gap);
    if (chunk && chunk->type == DMG_RAW) {
        status->flags |= BLK_STATUS_OFFSET;
        status->file = node->file->node;
        status->host_offset = chunk->offset + (offset - chunk->start);
    } else if (chunk && !dmg_chunk_is_zero(chunk)) {
        status->flags |= BLK_STATUS_COMPRESSED;
    }
    return 0;
}

static int dmg_co_info(BlkNode *node, BlkInfo *info, GError **error)
{
    return 0;
}

const BlkDriver blk_driver_dmg = {
    .name = "dmg",
    .kind = BLK_FORMAT,
    .help = "disk image of Apple's, read-only",
    .options = dmg_options,
    .instance_size = sizeof(DmgState),
    .probe = dmg_probe,
    .co_open = dmg_co_open,
    .co_close = dmg_co_close,
    .refresh_limits = dmg_refresh_limits,
    .co_preadv = dmg_co_preadv,
    .co_block_status = dmg_co_block_status,
    .co_info = dmg_co_info,
};
