/* SPDX-License-Identifier: MIT */
/*
 * stream.c - writes a whole streamOptimized image strictly from its first byte to its last, for pipes.
 *
 *     header (GD at the end) | descriptor | grains of table 0, marker, table 0 | those of table 1, ... | marker, GD |
 *     marker, footer | end of the stream
 *
 * Grains come in the order of the disk, each behind its marker. One pass over the source is enough. Some grains at a
 * time are read and compressed at once (core/stream_batch.h).
 *
 * Limitations: no backing file.
 */
#include "drivers/vmdk/vmdk.h"

#include "core/stream_batch.h"

enum { ENTRIES = VMDK_GT_ENTRIES, TABLE_BYTES = VMDK_GT_ENTRIES * 4 };

typedef struct Stream {
    BlkSource *source;
    const BlkStream *out;
    VmdkHeader header;
    BlkCodec *codec;
    uint64_t pos;                   /* bytes written */
    uint8_t table[TABLE_BYTES];
    uint8_t *directory;
    uint64_t directory_bytes;
    BlkBatch batch;                 /* grains */
    GError **error;
} Stream;

static int co_emit(Stream *s, const void *buf, uint64_t bytes)
{
    s->pos += bytes;
    return s->out->co_write(buf, bytes, s->out->opaque, s->error);
}

static int co_emit_marker(Stream *s, VmdkMarker type, uint64_t bytes)
{
    uint8_t sector[VMDK_SECTOR];

    vmdk_marker_build(type, bytes / VMDK_SECTOR, sector);
    return co_emit(s, sector, sizeof(sector));
}

/* ---- grains ---- */

static int co_place(Stream *s, const BlkBatchCluster *grain)
{
    if (s->pos / VMDK_SECTOR > VMDK_MAX_SECTOR) {
        return blk_error(s->error, -EFBIG, "The image is too large: a grain would begin behind 2 TiB");
    }
    blk_put_le32(s->table + grain->offset / VMDK_GRAIN % ENTRIES * 4, (uint32_t)(s->pos / VMDK_SECTOR));
    vmdk_grain_head_build(grain->offset, grain->payload_bytes - VMDK_MARKER_HEAD, grain->payload);
    return co_emit(s, grain->payload, grain->padded_bytes);
}

/* Some grains from *offset on, up to @end. *used: (inout): the table has entries. */
static int co_batch(Stream *s, uint64_t *offset, uint64_t end, bool *used)
{
    int ret = blk_batch_co_load(&s->batch, offset, end);

    for (unsigned i = 0; ret == 0 && i < s->batch.count; i++) {
        const BlkBatchCluster *grain = &s->batch.clusters[i];

        if (grain->kind == BLK_EXTENT_DATA) {
            *used = true;
            ret = co_place(s, grain);
        }
    }
    return ret;
}

/* All grains of one table, and the table, if it has entries. */
static int co_table(Stream *s, uint64_t index)
{
    uint64_t span = (uint64_t)ENTRIES * VMDK_GRAIN, offset = index * span, end = MIN(offset + span, s->source->length);
    bool used = false;
    int ret = 0;

    memset(s->table, 0, sizeof(s->table));
    while (ret == 0 && offset < end) {
        ret = co_batch(s, &offset, end, &used);
    }
    if (ret == 0 && used) {
        ret = co_emit_marker(s, VMDK_MARKER_GT, sizeof(s->table));
        blk_put_le32(s->directory + index * 4, (uint32_t)(s->pos / VMDK_SECTOR));
        ret = ret < 0 ? ret : co_emit(s, s->table, sizeof(s->table));
    }
    if (s->out->progress) {
        s->out->progress((double)(index + 1) / s->header.gd_entries, s->out->progress_opaque);
    }
    return ret;
}

/* ---- the rest ---- */

static int co_head(Stream *s, const char *descriptor)
{
    uint64_t bytes = s->header.overhead_sectors * VMDK_SECTOR;
    g_autofree uint8_t *head = g_malloc0(bytes);

    s->header.gd_sector = VMDK_GD_AT_END;
    vmdk_header_build(&s->header, head);
    memcpy(head + VMDK_DESCRIPTOR_SECTOR * VMDK_SECTOR, descriptor, strlen(descriptor));
    return co_emit(s, head, bytes);
}

static int co_tail(Stream *s)
{
    uint8_t footer[VMDK_FOOTER_BYTES];
    int ret = co_emit_marker(s, VMDK_MARKER_GD, s->directory_bytes);

    s->header.gd_sector = s->pos / VMDK_SECTOR;
    if (s->header.gd_sector > VMDK_MAX_SECTOR) {
        return blk_error(s->error, -EFBIG, "The image is too large: its tables would begin behind 2 TiB");
    }
    vmdk_footer_build(&s->header, footer);
    ret = ret < 0 ? ret : co_emit(s, s->directory, s->directory_bytes);
    return ret < 0 ? ret : co_emit(s, footer, sizeof(footer));
}

static int init(Stream *s, const BlkOptions *options)
{
    unsigned level = blk_req_level(s->out->compression);

    vmdk_plan_header(options, (s->source->length + VMDK_SECTOR - 1) / VMDK_SECTOR, true, &s->header);
    s->header.flags &= ~(uint32_t)(VMDK_FLAG_REDUNDANT | VMDK_FLAG_ZEROED);
    s->header.rgd_sector = 0;
    s->header.overhead_sectors = s->header.grain_sectors;
    s->directory_bytes = MAX((s->header.gd_entries * 4 + VMDK_SECTOR - 1) & ~(uint64_t)(VMDK_SECTOR - 1), VMDK_SECTOR);
    s->directory = g_try_malloc0(s->directory_bytes);
    if (!s->directory) {
        return blk_error(s->error, -ENOMEM, "no memory for the stream");
    }
    s->codec = blk_codec_new(BLK_CODEC_ZLIB, level > 0 ? (int)level : -1, s->error);
    if (!s->codec) {
        return -EINVAL;
    }
    s->batch = (BlkBatch){
        .source = s->source, .out = s->out, .cluster_bytes = VMDK_GRAIN, .limit = BLK_BATCH_CLUSTERS, .codec = s->codec,
        .head_bytes = VMDK_MARKER_HEAD, .payload_max = blk_codec_bound(VMDK_GRAIN), .error = s->error,
    };
    return blk_batch_init(&s->batch);
}

static void clear(Stream *s)
{
    blk_batch_clear(&s->batch);
    g_free(s->directory);
    g_clear_pointer(&s->codec, blk_codec_free);
}

static int co_run(Stream *s, const BlkOptions *options)
{
    g_autofree char *line = g_strdup_printf("RW %" G_GUINT64_FORMAT " SPARSE \"disk.vmdk\"\n",
                                            s->header.capacity_sectors);
    g_autofree char *text = vmdk_descriptor_text(options, line, VMDK_NO_CID);

    if (strlen(text) > VMDK_DESCRIPTOR_SECTORS * VMDK_SECTOR) {
        return blk_error(s->error, -EINVAL, "The versions do not fit in the descriptor of the image");
    }
    int ret = co_head(s, text);
    for (uint64_t i = 0; ret == 0 && i < s->header.gd_entries; i++) {
        ret = co_table(s, i);
    }
    return ret < 0 ? ret : co_tail(s);
}

int vmdk_co_stream(BlkSource *source, const BlkOptions *options, const BlkStream *out, GError **error)
{
    Stream *s;
    int ret = vmdk_check_create(options, error);

    if (ret == 0 && !vmdk_is_stream(options)) {
        ret = blk_error(error, -ENOTSUP, "Of VMDK images only streamOptimized ones can be written to a pipe: add -o "
                        "subformat=streamOptimized");
    }
    if (ret == 0 && blk_options_has(options, "backing_file")) {
        ret = blk_error(error, -ENOTSUP, "A VMDK image that is written to a pipe has no backing file");
    }
    if (ret == 0) {
        s = g_new0(Stream, 1);
        s->source = source;
        s->out = out;
        s->error = error;
        ret = init(s, options);
        ret = ret < 0 ? ret : co_run(s, options);
        clear(s);
        g_free(s);
    }
    return ret;
}
