/* SPDX-License-Identifier: MIT */
/*
 * stream_batch.c - the clusters of a source, some at a time, read and compressed. See stream_batch.h.
 */
#include "core/stream_batch.h"

#include <string.h>

/* ---- memory ---- */

int blk_batch_init(BlkBatch *batch)
{
    uint64_t payload = batch->head_bytes + batch->payload_max + BLK_BATCH_SECTOR;
    bool ok = true;

    for (unsigned i = 0; i < batch->limit; i++) {
        BlkBatchCluster *cluster = &batch->clusters[i];

        cluster->batch = batch;
        cluster->data = blk_buffer_try_alloc(NULL, batch->cluster_bytes);
        cluster->payload = blk_buffer_try_alloc(NULL, payload);
        ok = ok && cluster->data && cluster->payload;
    }
    return ok ? 0 : blk_error(batch->error, -ENOMEM, "no memory for the stream");
}

void blk_batch_clear(BlkBatch *batch)
{
    for (unsigned i = 0; i < batch->limit; i++) {
        blk_buffer_free(batch->clusters[i].data);
        blk_buffer_free(batch->clusters[i].payload);
    }
}

void blk_batch_rewind(BlkBatch *batch)
{
    batch->extent_end = batch->count = 0;
}

/* ---- one cluster ---- */

/* One that lies whole in an extent is what that is; any other is data: reading knows what it is. */
static int co_classify(BlkBatch *batch, BlkBatchCluster *cluster)
{
    BlkSource *source = batch->source;
    uint64_t end = MIN(cluster->offset + batch->cluster_bytes, source->length);

    if (cluster->offset >= batch->extent_end) {
        BlkExtent extent;
        int ret = source->co_extent(source, cluster->offset, source->length - cluster->offset, &extent, batch->error);
        if (ret < 0) {
            return ret;
        }
        batch->extent_end = cluster->offset + extent.bytes;
        batch->extent_kind = extent.kind;
    }
    cluster->kind = end <= batch->extent_end ? batch->extent_kind : BLK_EXTENT_DATA;
    cluster->payload_bytes = cluster->padded_bytes = 0;
    if (cluster->kind == BLK_EXTENT_ZERO && batch->zeroes_are_data) {
        cluster->kind = BLK_EXTENT_DATA;
    }
    return 0;
}

static int co_compress(BlkBatchCluster *cluster)
{
    BlkBatch *batch = cluster->batch;
    gssize bytes = batch->payload_max > 0
                   ? blk_co_codec_compress(batch->codec, 0, cluster->payload + batch->head_bytes, batch->payload_max,
                                           cluster->data, batch->cluster_bytes)
                   : -ENOSPC;

    if (bytes < 0) {
        return bytes == -ENOSPC ? 0 : (int)bytes;
    }
    uint64_t whole = batch->head_bytes + (uint64_t)bytes;
    cluster->payload_bytes = whole;
    cluster->padded_bytes = (whole + BLK_BATCH_SECTOR - 1) / BLK_BATCH_SECTOR * BLK_BATCH_SECTOR;
    memset(cluster->payload + whole, 0, cluster->padded_bytes - whole);
    return 0;
}

static int co_load_cluster(void *opaque)
{
    BlkBatchCluster *cluster = opaque;
    BlkBatch *batch = cluster->batch;
    BlkSource *source = batch->source;
    uint64_t bytes = MIN(batch->cluster_bytes, source->length - cluster->offset);
    GError **error = batch->error && !*batch->error ? batch->error : NULL;
    int ret = source->co_read(source, cluster->offset, bytes, cluster->data, error);

    if (ret < 0) {
        return ret;
    }
    memset(cluster->data + bytes, 0, batch->cluster_bytes - bytes);
    if (batch->out->sparse && !batch->zeroes_are_data && blk_buffer_is_zero(cluster->data, bytes)) {
        cluster->kind = BLK_EXTENT_ZERO;
        return 0;
    }
    return batch->codec ? co_compress(cluster) : 0;
}

/* ---- batches ---- */

/* Whole tables of a sparse disk cost nothing. */
static void skip_empty(const BlkBatch *batch, uint64_t *offset, uint64_t end)
{
    if (batch->extent_end > *offset && blk_batch_is_empty(batch, batch->extent_kind)) {
        uint64_t whole = batch->extent_end >= batch->source->length
                         ? end : batch->extent_end / batch->cluster_bytes * batch->cluster_bytes;
        *offset = MAX(*offset, MIN(whole, end));
    }
}

int blk_batch_co_load(BlkBatch *batch, uint64_t *offset, uint64_t end)
{
    unsigned threads = blk_req_threads(batch->out->compression);
    BlkCoGroup group = BLK_CO_GROUP_INIT(threads > 0 ? MIN(threads, batch->limit) : batch->limit);
    int ret = 0;

    batch->count = 0;
    for (skip_empty(batch, offset, end); ret == 0 && batch->count < batch->limit && *offset < end;
         *offset += batch->cluster_bytes) {
        BlkBatchCluster *cluster = &batch->clusters[batch->count++];

        cluster->offset = *offset;
        ret = co_classify(batch, cluster);
        if (ret == 0 && cluster->kind == BLK_EXTENT_DATA) {
            ret = blk_co_group_run(&group, co_load_cluster, cluster);
        }
    }
    int load_ret = blk_co_group_wait(&group);
    return ret < 0 ? ret : load_ret;
}
