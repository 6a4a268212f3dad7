/* SPDX-License-Identifier: MIT */
/*
 * qcow.c - format driver "qcow": version 1 of QEMU's format, to be read.
 *
 *     0   magic "QFI\xfb", version 1, backing name offset (8) and length, mtime, size (8)
 *     32  cluster_bits (1), l2_bits (1), padding (2), crypt_method (4), L1 table offset (8)          (48 bytes)
 *
 *     guest offset = | L1 index | L2 index: l2_bits | offset in cluster: cluster_bits |
 *
 * L1 entry: offset of an L2 table, 0: none. L2 entry: offset of a cluster, 0: not here; with bit 63: offset of a
 * payload of raw deflate in the low 63 - cluster_bits bits, its length in bytes above them. All numbers are big-endian.
 *
 * Limitations: no encryption; images are neither written nor made, since qcow2 is better in every way.
 */
#include <blkstack/driver.h>

#include "core/big_endian.h"
#include "core/codec.h"
#include "core/metacache.h"

#include <inttypes.h>

#define QCOW_MAGIC UINT32_C(0x514649fb)
#define QCOW_COMPRESSED (UINT64_C(1) << 63)

enum {
    HEADER_BYTES = 48,
    MIN_CLUSTER_BITS = 9, MAX_CLUSTER_BITS = 16,
    MIN_L2_BITS = 6, MAX_L2_BITS = 13,
    MAX_BACKING_NAME = 1023,
    ENTRY_BYTES = 8,
    META_BLOCK_BYTES = 4096,
    META_BLOCKS = 1024,
};

typedef struct QcowState {
    uint64_t size, l1_offset, l1_entries;
    uint64_t backing_offset;
    uint32_t backing_bytes;         /* 0: no backing file */
    uint32_t crypt_method;
    unsigned cluster_bits, l2_bits;
    char *backing_file;             /* (nullable) */
    BlkMetaCache *meta;
    BlkCodec *codec;
} QcowState;

static const BlkOption qcow_options[] = {
    { "file", BLK_OPTION_NODE, "the image file", .required = true },
    { "backing", BLK_OPTION_NODE, "where unallocated clusters are read from; null: nowhere (default: as the image "
      "says)" },
    { NULL },
};

static int qcow_probe(const uint8_t *head, size_t bytes, const char *filename)
{
    return bytes >= 8 && blk_get_be32(head) == QCOW_MAGIC && blk_get_be32(head + 4) == 1 ? 100 : 0;
}

/* ---- the header ---- */

static int check_tables(QcowState *s, uint64_t file_length, GError **error)
{
    unsigned shift = s->cluster_bits + s->l2_bits;

    if (s->size == 0 || s->size > BLK_MAX_LENGTH) {
        return blk_error(error, -EINVAL, "The size of the disk in the qcow header makes no sense: %" PRIu64 " bytes",
                         s->size);
    }
    s->l1_entries = (s->size - 1) / (UINT64_C(1) << shift) + 1;
    if (s->l1_offset < HEADER_BYTES || s->l1_offset % ENTRY_BYTES != 0 || s->l1_offset > file_length ||
        s->l1_entries > (file_length - s->l1_offset) / ENTRY_BYTES) {
        return blk_error(error, -EINVAL, "The L1 table does not lie in the file: %" PRIu64 " entries at %#" PRIx64,
                         s->l1_entries, s->l1_offset);
    }
    if (s->backing_offset > 0 && (s->backing_bytes == 0 || s->backing_bytes > MAX_BACKING_NAME ||
                                  s->backing_offset > file_length ||
                                  s->backing_bytes > file_length - s->backing_offset)) {
        return blk_error(error, -EINVAL, "The name of the backing file is empty, longer than %d bytes, or not in the "
                         "file", MAX_BACKING_NAME);
    }
    return 0;
}

static int parse_header(QcowState *s, const uint8_t *p, uint64_t file_length, GError **error)
{
    if (blk_get_be32(p) != QCOW_MAGIC) {
        return blk_error(error, -EINVAL, "Image is not in qcow format");
    }
    if (blk_get_be32(p + 4) != 1) {
        return blk_error(error, -ENOTSUP, "Unsupported qcow version %" PRIu32 ": versions 2 and 3 have the driver "
                         "'qcow2'", blk_get_be32(p + 4));
    }
    s->backing_offset = blk_get_be64(p + 8);
    s->backing_bytes = s->backing_offset > 0 ? blk_get_be32(p + 16) : 0;
    s->size = blk_get_be64(p + 24);
    s->cluster_bits = p[32];
    s->l2_bits = p[33];
    s->crypt_method = blk_get_be32(p + 36);
    s->l1_offset = blk_get_be64(p + 40);
    if (s->cluster_bits < MIN_CLUSTER_BITS || s->cluster_bits > MAX_CLUSTER_BITS) {
        return blk_error(error, -EINVAL, "Cluster size must be between 512 and 64k, not 2^%u", s->cluster_bits);
    }
    if (s->l2_bits < MIN_L2_BITS || s->l2_bits > MAX_L2_BITS) {
        return blk_error(error, -EINVAL, "L2 table size must be between 512 and 64k, not 2^%u entries", s->l2_bits);
    }
    return check_tables(s, file_length, error);
}

static int qcow_co_read_header(BlkNode *node, GError **error)
{
    QcowState *s = node->opaque;
    BlkNode *file = node->file->node;
    uint64_t length = blk_node_length(file);
    uint8_t header[HEADER_BYTES];
    int ret = length < HEADER_BYTES ? -EINVAL : blk_co_pread(file, 0, HEADER_BYTES, header, 0);

    if (ret < 0) {
        return blk_error_errno(error, ret, "Could not read the qcow header");
    }
    ret = parse_header(s, header, length, error);
    if (ret < 0 || s->backing_bytes == 0) {
        return ret;
    }
    s->backing_file = g_malloc0(s->backing_bytes + 1);
    ret = blk_co_pread(file, s->backing_offset, s->backing_bytes, s->backing_file, 0);
    if (ret < 0) {
        return blk_error_errno(error, ret, "Could not read the name of the backing file");
    }
    return memchr(s->backing_file, 0, s->backing_bytes)
           ? blk_error(error, -EINVAL, "The name of the backing file contains a NUL byte") : 0;
}

static int qcow_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    QcowState *s = node->opaque;
    static const BlkMetaHooks no_hooks;
    int ret;

    if (!blk_co_open_child(node, options, "file", BLK_ROLE_IMAGE, error)) {
        return -EINVAL;
    }
    ret = blk_node_only_read(node, "Images of the format 'qcow' can only be read: open it read-only, or convert it to "
                             "qcow2", error);
    if (ret == 0) {
        ret = qcow_co_read_header(node, error);
    }
    if (ret < 0) {
        return ret;
    }
    if (s->crypt_method != 0 && !blk_node_open_flags(node)->no_backing) {
        return blk_error(error, -ENOTSUP, "The image is encrypted (%s), which is not supported",
                         s->crypt_method == 1 ? "AES" : "an unknown method");
    }
    node->length = s->size;
    s->meta = blk_meta_new(node, META_BLOCK_BYTES, META_BLOCKS, &no_hooks);
    s->codec = blk_codec_new(BLK_CODEC_DEFLATE, -1, error);
    blk_engine_set_decompressed_cache(node, UINT64_C(16) << 20);
    return s->codec ? blk_co_open_backing(node, options, s->backing_file, NULL, error) : -EINVAL;
}

static void qcow_co_close(BlkNode *node)
{
    QcowState *s = node->opaque;

    g_clear_pointer(&s->meta, blk_meta_free);
    g_clear_pointer(&s->codec, blk_codec_free);
    g_clear_pointer(&s->backing_file, g_free);
}

static void qcow_refresh_limits(BlkNode *node)
{
    const QcowState *s = node->opaque;

    node->limits.read_align = node->limits.write_align = 1;
    node->limits.max_transfer = 0;
    node->limits.cluster_size = node->limits.subcluster_size = UINT32_C(1) << s->cluster_bits;
}

/* ---- mappings ---- */

/* Reads the entry at @place, and finds how many that follow, in the same block of the table and at most @max, go on
 * like it: 0 after 0, and cluster after cluster. */
static int qcow_co_entries(const QcowState *s, uint64_t place, uint64_t max, uint64_t *entry, uint64_t *count)
{
    BlkMetaBlock *block;
    int ret = blk_meta_co_get(s->meta, place, &block);

    if (ret < 0) {
        return ret;
    }
    const uint8_t *at = block->data + (place - block->offset), *end = block->data + META_BLOCK_BYTES;
    *entry = blk_get_be64(at);
    uint64_t step = *entry == 0 ? 0 : UINT64_C(1) << s->cluster_bits, next = *entry + step;
    for (*count = 1, at += ENTRY_BYTES; *count < max && at < end && !(*entry & QCOW_COMPRESSED) &&
         blk_get_be64(at) == next;
         at += ENTRY_BYTES, next += step) {
        (*count)++;
    }
    blk_meta_put(s->meta, block);
    return 0;
}

static int map_compressed(const QcowState *s, uint64_t entry, uint64_t in_cluster, uint64_t file_length,
                          BlkMapping *map)
{
    unsigned shift = 63 - s->cluster_bits;

    map->kind = BLK_MAP_COMPRESSED;
    map->host_offset = entry & ((UINT64_C(1) << shift) - 1);
    map->host_bytes = (entry & ~QCOW_COMPRESSED) >> shift;
    map->bytes = (UINT64_C(1) << s->cluster_bits) - in_cluster;
    return map->host_bytes == 0 || map->host_offset < HEADER_BYTES || map->host_offset >= file_length ? -EIO : 0;
}

static int qcow_co_map(BlkNode *node, uint64_t offset, uint64_t bytes, BlkMapping *map)
{
    const QcowState *s = node->opaque;
    uint64_t file_length = blk_node_length(node->file->node), cluster_size = UINT64_C(1) << s->cluster_bits;
    uint64_t span = cluster_size << s->l2_bits, in_span = offset & (span - 1), in_cluster = offset & (cluster_size - 1);
    uint64_t table, entry, count;
    int ret = qcow_co_entries(s, s->l1_offset + offset / span * ENTRY_BYTES, 1, &table, &count);

    *map = (BlkMapping){ .kind = BLK_MAP_UNALLOCATED, .child = node->file, .bytes = MIN(bytes, span - in_span) };
    if (ret < 0 || table == 0) {
        return ret;
    }
    if (s->crypt_method != 0) {
        return -ENOTSUP;
    }
    if (table % ENTRY_BYTES != 0 || table < HEADER_BYTES || table >= file_length) {
        return -EIO;
    }
    ret = qcow_co_entries(s, table + in_span / cluster_size * ENTRY_BYTES,
                          (in_cluster + map->bytes - 1) / cluster_size + 1, &entry, &count);
    if (ret < 0) {
        return ret;
    }
    if (entry & QCOW_COMPRESSED) {
        return map_compressed(s, entry, in_cluster, file_length, map);
    }
    map->bytes = MIN(map->bytes, count * cluster_size - in_cluster);
    if (entry > 0) {
        map->kind = BLK_MAP_DATA;
        map->host_offset = entry + in_cluster;
        if (entry < HEADER_BYTES || entry >= file_length) {
            return -EIO;
        }
        /* Clusters behind the one in which the file ends are asked for, and refused, by themselves. */
        map->bytes = MIN(map->bytes, ((file_length - entry - 1) / cluster_size + 1) * cluster_size - in_cluster);
    }
    return 0;
}

static const BlkCodec *qcow_codec(BlkNode *node)
{
    return ((const QcowState *)node->opaque)->codec;
}

static const BlkFormatOps qcow_format = {
    .co_map = qcow_co_map,
    .codec = qcow_codec,
};

static int qcow_co_info(BlkNode *node, BlkInfo *info, GError **error)
{
    const QcowState *s = node->opaque;

    info->encrypted = s->crypt_method != 0;
    info->backing_filename = g_strdup(s->backing_file);
    return 0;
}

const BlkDriver blk_driver_qcow = {
    .name = "qcow",
    .kind = BLK_FORMAT,
    .help = "disk image of old QEMU (version 1 of qcow), read-only",
    .options = qcow_options,
    .instance_size = sizeof(QcowState),
    .probe = qcow_probe,
    .format = &qcow_format,
    .co_open = qcow_co_open,
    .co_close = qcow_co_close,
    .refresh_limits = qcow_refresh_limits,
    .co_info = qcow_co_info,
};
