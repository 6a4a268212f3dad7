/* SPDX-License-Identifier: MIT */
/*
 * stream.c - writes a whole image strictly from its first byte to its last, for pipes. See docs/convert-pipe.md.
 *
 *     header | data and payloads of L1 entry 0, its L2 table | those of entry 1, ... | refcount blocks, table | L1
 *              with a refcount block in the first cluster of every range but the first, for the range before it
 *
 * Two passes over the source run the same code. The first writes nothing and finds where the tables at the end will
 * lie, which the header says; the second writes. Its data must end in the same place: else the source has changed, and
 * the stream stops before the tables, so that what was written does not open.
 *
 * Memory: one L2 table, one refcount block, the L1 table and a batch of clusters.
 */
#include "drivers/qcow2/qcow2.h"

#include "core/stream_batch.h"

enum { BATCH_CLUSTERS = 16, SECTOR = 512 };
#define BATCH_BYTES (UINT64_C(4) << 20)

typedef struct Stream {
    BlkSource *source;
    const BlkStream *out;
    Qcow2Header header;
    BlkCodec *codec;                /* NULL: nothing is compressed */
    uint64_t cluster_size, per_block, entry_bytes, group_clusters;
    uint64_t refcount_max;
    bool has_backing, writing;      /* writing: the second pass */
    uint64_t pos;                   /* bytes of the file so far */
    uint64_t data_end;              /* where the tables at the end begin; found by the first pass */
    uint64_t limit;                 /* nothing may be written behind it now */
    uint64_t blocks;                /* refcount blocks so far */
    uint8_t *block;                 /* the one of the range at pos */
    uint8_t *l1, *l2, *zeroes;
    BlkBatch batch;
    GError **error;
} Stream;

static int source_changed(Stream *s)
{
    return blk_error(s->error, -EAGAIN, "the source has changed while it was read: what was written is no whole image");
}

static int co_emit(Stream *s, const void *buf, uint64_t bytes)
{
    if (s->pos + bytes > s->limit) {
        return source_changed(s);
    }
    s->pos += bytes;
    return s->writing ? s->out->co_write(buf, bytes, s->out->opaque, s->error) : 0;
}

/* ---- places ---- */

static void count_reference(Stream *s, uint64_t cluster)
{
    uint64_t index = cluster % s->per_block, value = qcow2_refcount_get(s->block, s->header.refcount_order, index);

    qcow2_refcount_set(s->block, s->header.refcount_order, index, value + 1);
}

static uint64_t references(const Stream *s, uint64_t cluster)
{
    return qcow2_refcount_get(s->block, s->header.refcount_order, cluster % s->per_block);
}

static int co_pad(Stream *s)
{
    uint64_t odd = s->pos % s->cluster_size;

    return odd > 0 ? co_emit(s, s->zeroes, s->cluster_size - odd) : 0;
}

/* Goes to the next whole cluster that is no refcount block. */
static int co_next_cluster(Stream *s)
{
    int ret = co_pad(s);
    uint64_t cluster = s->pos / s->cluster_size;

    if (ret < 0 || cluster == 0 || cluster % s->per_block != 0) {
        return ret;
    }
    ret = co_emit(s, s->block, s->cluster_size);
    memset(s->block, 0, s->cluster_size);
    s->blocks++;
    count_reference(s, cluster);
    return ret;
}

static int co_add_cluster(Stream *s, const void *buf, uint64_t *offset)
{
    int ret = co_next_cluster(s);

    *offset = s->pos;
    if (ret == 0) {
        count_reference(s, s->pos / s->cluster_size);
        ret = co_emit(s, buf, s->cluster_size);
    }
    return ret;
}

/* Can a payload begin at pos, in a cluster that others use already? */
static bool payload_fits(const Stream *s, uint64_t bytes)
{
    uint64_t cluster = s->pos / s->cluster_size, room = s->cluster_size - s->pos % s->cluster_size;

    return room < s->cluster_size && references(s, cluster) < s->refcount_max
           && (bytes <= room || (cluster + 1) % s->per_block != 0);
}

static int co_add_payload(Stream *s, const void *buf, uint64_t bytes, uint64_t *offset)
{
    int ret = payload_fits(s, bytes) ? 0 : co_next_cluster(s);

    *offset = s->pos;
    if (ret < 0) {
        return ret;
    }
    for (uint64_t c = s->pos / s->cluster_size; c <= (s->pos + bytes - 1) / s->cluster_size; c++) {
        count_reference(s, c);
    }
    return co_emit(s, buf, bytes);
}

/* ---- clusters of the guest ---- */

static void put_entry(const Stream *s, uint64_t offset, uint64_t word, bool data, bool zero)
{
    uint8_t *place = s->l2 + offset / s->cluster_size % s->group_clusters * s->entry_bytes;
    bool extended = s->entry_bytes == 16;

    blk_put_be64(place, word | (zero && !extended ? QCOW2_ZERO : 0));
    if (extended) {
        blk_put_be32(place + 8, zero ? UINT32_MAX : 0);
        blk_put_be32(place + 12, data ? UINT32_MAX : 0);
    }
}

/* Gives the cluster a place, and its L2 entry. */
static int co_place(Stream *s, const BlkBatchCluster *cluster)
{
    uint64_t offset;
    int ret;

    if (cluster->kind == BLK_EXTENT_ZERO) {
        put_entry(s, cluster->offset, 0, false, true);
        return 0;
    }
    if (cluster->payload_bytes > 0) {
        uint64_t bytes = cluster->padded_bytes;

        ret = co_add_payload(s, cluster->payload, bytes, &offset);
        if (ret == 0) {
            put_entry(s, cluster->offset, qcow2_compressed_encode(s->header.cluster_bits, offset, bytes), false, false);
        }
        return ret;
    }
    ret = co_add_cluster(s, cluster->data, &offset);
    put_entry(s, cluster->offset, offset | QCOW2_COPIED, true, false);
    return ret;
}

/* Some clusters from *offset on, up to @end. @used: (inout): the table has entries. */
static int co_batch(Stream *s, uint64_t *offset, uint64_t end, bool *used)
{
    int ret = blk_batch_co_load(&s->batch, offset, end);

    for (unsigned i = 0; ret == 0 && i < s->batch.count; i++) {
        const BlkBatchCluster *cluster = &s->batch.clusters[i];

        if (!blk_batch_is_empty(&s->batch, cluster->kind)) {
            *used = true;
            ret = co_place(s, cluster);
        }
    }
    return ret;
}

/* All clusters of one L1 entry, and their table. */
static int co_group(Stream *s, uint64_t index)
{
    uint64_t bytes = s->group_clusters * s->cluster_size, offset = index * bytes, table;
    uint64_t end = MIN(offset + bytes, s->source->length);
    bool used = false;
    int ret = 0;

    memset(s->l2, 0, s->cluster_size);
    while (ret == 0 && offset < end) {
        ret = co_batch(s, &offset, end, &used);
    }
    if (ret == 0 && used) {
        ret = co_add_cluster(s, s->l2, &table);
        blk_put_be64(s->l1 + index * 8, table | QCOW2_COPIED);
    }
    if (s->out->progress) {
        s->out->progress((s->writing * 0.5) + 0.5 * (index + 1) / s->header.l1_size, s->out->progress_opaque);
    }
    return ret;
}

/* ---- the tables at the end ---- */

typedef struct Tail {
    uint64_t first;                             /* cluster */
    uint64_t blocks, table, l1;                 /* clusters: the blocks that are left */
    uint64_t all_blocks;
} Tail;

static int plan_tail(Stream *s, Tail *tail)
{
    uint64_t needed = s->blocks + 1;

    tail->first = s->pos / s->cluster_size;
    tail->l1 = (s->header.l1_size * UINT64_C(8) + s->cluster_size - 1) / s->cluster_size;
    do {
        tail->all_blocks = needed;
        tail->blocks = needed - s->blocks;
        tail->table = (needed * 8 + s->cluster_size - 1) / s->cluster_size;
        needed = (tail->first + tail->blocks + tail->table + tail->l1 + s->per_block - 1) / s->per_block;
    } while (needed > tail->all_blocks);
    if (tail->table * s->cluster_size > QCOW2_MAX_REFCOUNT_TABLE_BYTES) {
        return blk_error(s->error, -EFBIG, "the image is too large for this cluster size and refcount width");
    }
    s->header.refcount_table_offset = (tail->first + tail->blocks) * s->cluster_size;
    s->header.refcount_table_clusters = (uint32_t)tail->table;
    s->header.l1_table_offset = tail->l1 > 0 ? s->header.refcount_table_offset + tail->table * s->cluster_size : 0;
    return 0;
}

static int co_emit_blocks(Stream *s, const Tail *tail)
{
    uint64_t end = tail->first + tail->blocks + tail->table + tail->l1, cluster = tail->first;
    int ret = 0;

    for (uint64_t range = s->blocks; ret == 0 && range < tail->all_blocks; range++) {
        for (; cluster < MIN(end, (range + 1) * s->per_block); cluster++) {
            count_reference(s, cluster);
        }
        ret = co_emit(s, s->block, s->cluster_size);
        memset(s->block, 0, s->cluster_size);
    }
    return ret;
}

static int co_emit_tail(Stream *s, const Tail *tail)
{
    uint64_t bytes = tail->table * s->cluster_size, l1_bytes = s->header.l1_size * UINT64_C(8);
    g_autofree uint8_t *table = g_try_malloc0(bytes);
    int ret = table ? co_emit_blocks(s, tail) : blk_error(s->error, -ENOMEM, "no memory for the refcount table");

    if (ret < 0) {
        return ret;
    }
    for (uint64_t i = 0; i < tail->all_blocks; i++) {
        uint64_t cluster = i < s->blocks ? (i + 1) * s->per_block : tail->first + i - s->blocks;
        blk_put_be64(table + i * 8, cluster * s->cluster_size);
    }
    ret = co_emit(s, table, bytes);
    if (ret == 0 && l1_bytes > 0) {
        ret = co_emit(s, s->l1, l1_bytes);
    }
    return ret == 0 ? co_pad(s) : ret;
}

/* ---- passes ---- */

static int co_pass(Stream *s, bool writing)
{
    uint64_t bytes;
    int ret = 0;

    s->writing = writing;
    s->limit = writing ? s->data_end : UINT64_MAX;
    s->pos = s->blocks = 0;
    blk_batch_rewind(&s->batch);
    memset(s->block, 0, s->cluster_size);
    memset(s->l1, 0, MAX(s->header.l1_size * UINT64_C(8), 1));
    memset(s->l2, 0, s->cluster_size);
    if (writing) {
        ret = qcow2_header_build(&s->header, s->l2, s->cluster_size, &bytes, s->error);
    }
    if (ret == 0) {
        count_reference(s, 0);
        ret = co_emit(s, s->l2, s->cluster_size);
    }
    for (uint64_t i = 0; ret == 0 && i < s->header.l1_size; i++) {
        ret = co_group(s, i);
    }
    return ret == 0 ? co_pad(s) : ret;
}

static int co_run(Stream *s)
{
    Tail tail;
    int ret = co_pass(s, false);

    if (ret == 0) {
        s->data_end = s->pos;
        ret = plan_tail(s, &tail);
    }
    if (ret == 0) {
        ret = co_pass(s, true);
    }
    if (ret == 0 && s->pos != s->data_end) {
        ret = source_changed(s);
    }
    s->limit = UINT64_MAX;
    return ret == 0 ? co_emit_tail(s, &tail) : ret;
}

static int init_batch(Stream *s)
{
    s->batch = (BlkBatch){
        .source = s->source, .out = s->out, .cluster_bytes = s->cluster_size, .codec = s->codec,
        .limit = (unsigned)CLAMP(BATCH_BYTES / s->cluster_size, 1, BATCH_CLUSTERS),
        .payload_max = s->cluster_size - SECTOR, .has_backing = s->has_backing,
        .zeroes_are_data = s->has_backing && s->header.version < 3,     /* it has no other way to hide the backing */
        .error = s->error,
    };
    return blk_batch_init(&s->batch);
}

static int init(Stream *s)
{
    s->cluster_size = qcow2_cluster_size(&s->header);
    s->per_block = s->cluster_size * 8 >> s->header.refcount_order;
    s->refcount_max = qcow2_refcount_max(s->header.refcount_order);
    s->group_clusters = UINT64_C(1) << qcow2_l2_bits(&s->header);
    s->entry_bytes = s->cluster_size / s->group_clusters;
    s->has_backing = s->header.backing_file != NULL;
    s->block = g_try_malloc(s->cluster_size);
    s->l2 = g_try_malloc(s->cluster_size);
    s->zeroes = g_try_malloc0(s->cluster_size);
    s->l1 = g_try_malloc(MAX(s->header.l1_size * UINT64_C(8), 1));
    if (!s->block || !s->l2 || !s->zeroes || !s->l1) {
        return blk_error(s->error, -ENOMEM, "no memory for the stream");
    }
    if (s->out->compressed) {
        unsigned level = blk_req_level(s->out->compression);
        bool zstd = s->header.compression_type == QCOW2_COMPRESSION_ZSTD;
        s->codec = blk_codec_new(zstd ? BLK_CODEC_ZSTD : BLK_CODEC_DEFLATE, level > 0 ? (int)level : -1, s->error);
        if (!s->codec) {
            return -EINVAL;
        }
    }
    return init_batch(s);
}

static void clear(Stream *s)
{
    g_free(s->block);
    g_free(s->l2);
    g_free(s->zeroes);
    g_free(s->l1);
    blk_batch_clear(&s->batch);
    g_clear_pointer(&s->codec, blk_codec_free);
    qcow2_header_clear(&s->header);
}

int qcow2_co_stream(BlkSource *source, const BlkOptions *options, const BlkStream *out, GError **error)
{
    Stream *s = g_new0(Stream, 1);
    int ret;

    s->source = source;
    s->out = out;
    s->error = error;
    ret = qcow2_parse_create_options(options, &s->header, error);
    if (ret == 0 && (blk_options_enum(options, "preallocation") != BLK_PREALLOC_OFF || s->header.data_file)) {
        ret = blk_error(error, -ENOTSUP, "An image that is written to a pipe has neither preallocation nor a data "
                                         "file");
    }
    if (ret == 0) {
        ret = init(s);
    }
    if (ret == 0) {
        ret = co_run(s);
    }
    clear(s);
    g_free(s);
    return ret;
}
