/* SPDX-License-Identifier: MIT */
/*
 * engine_compress.c - guest writes of a format node that are stored compressed.
 *
 * Each cluster is a task of its own: it takes the cluster's exclusive lock, compresses on the worker pool, reserves host
 * space for the payload, writes it and publishes the new mapping. What the cluster was before does not matter. Zeroes
 * become a zero cluster; what does not shrink is stored plainly, unless the node has nothing but compressed clusters.
 *
 * Where clusters are written once and stay (no BLK_CAP_COMPRESSED_REWRITE), those of one request get their places in the
 * order of the disk, whichever was compressed first: there are readers that expect it.
 */
#include "core/codec.h"
#include "core/engine.h"
#include "core/node.h"

#include <string.h>

enum {
    COMPRESS_GRAIN = 512,           /* payloads are padded to this: less gain is none; bytes */
};

typedef struct CompressJob {
    BlkNode *node;
    const BlkRequest *req;
    uint64_t next;                  /* bytes of the request that somebody writes or has written */
    bool ordered, failed;
    uint64_t placed;                /* ordered: bytes that have got their place */
    BlkCoQueue turn;
} CompressJob;

/* ---- the order of places; @job: (nullable): there is none ---- */

static int co_wait_for_turn(CompressJob *job, uint64_t offset)
{
    if (!job || !job->ordered) {
        return 0;
    }
    while (!job->failed && job->req->offset + job->placed < offset) {
        blk_co_queue_wait(&job->turn);
    }
    return job->failed ? -ECANCELED : 0;
}

/* The cluster at @offset has its place, or needs none. */
static void end_turn(CompressJob *job, uint64_t offset)
{
    if (job && job->ordered && job->req->offset + job->placed == offset) {
        job->placed += job->node->limits.cluster_size;
        blk_co_queue_wake_all(&job->turn);
    }
}

static void fail_job(CompressJob *job)
{
    job->failed = true;
    job->next = job->req->bytes;
    blk_co_queue_wake_all(&job->turn);
}

/* ---- one cluster ---- */

static int co_reserve_payload(BlkNode *node, CompressJob *job, BlkReservation *res)
{
    int ret = co_wait_for_turn(job, res->offset);

    if (ret == 0) {
        ret = node->driver->format->co_reserve(node, res);
    }
    if (ret == 0) {
        end_turn(job, res->offset);
    }
    return ret;
}

/* Writes the payload, @bytes long in a buffer that has room for padding, to space of its own. */
static int co_write_payload(BlkNode *node, CompressJob *job, uint64_t offset, uint8_t *payload, uint64_t bytes)
{
    BlkReservation res = {
        .offset = offset, .bytes = node->limits.cluster_size, .kind = BLK_MAP_COMPRESSED, .payload_bytes = bytes,
    };
    int ret = co_reserve_payload(node, job, &res);

    if (ret < 0) {
        return ret;
    }
    if (node->driver->format->put_payload_head) {
        node->driver->format->put_payload_head(node, &res, payload);
    }
    memset(payload + bytes, 0, res.host_bytes - bytes);
    blk_co_event(res.child->node, BLK_EVENT_write_compressed);
    ret = blk_engine_co_write_gathered(node, res.child->node, res.host_offset, res.host_bytes, payload);
    if (ret < 0) {
        node->driver->format->cancel(node, &res);
    } else {
        blk_engine_publish(node, &res);
    }
    return ret;
}

/* The codec, on no more threads than @flags say. */
static gssize co_run_codec(BlkNode *node, unsigned flags, void *out, size_t out_bytes, const void *cluster)
{
    BlkEngine *engine = node->core->engine;
    unsigned threads = blk_req_threads(flags);

    while (threads > 0 && engine->compressing >= threads) {
        blk_co_queue_wait(&engine->compress_turn);
    }
    engine->compressing++;
    gssize n = blk_co_codec_compress(node->driver->format->codec(node), blk_req_level(flags), out, out_bytes, cluster,
                                     node->limits.cluster_size);
    engine->compressing--;
    blk_co_queue_wake_one(&engine->compress_turn);
    blk_engine_gather_kick(node);
    return n;
}

/* Compresses @cluster, cluster_size bytes, to a new buffer, behind what the format puts before it. *bytes is 0, without a
 * buffer, if it does not shrink and need not be compressed. */
static int co_compress(BlkNode *node, unsigned flags, const void *cluster, uint8_t **payload, uint64_t *bytes)
{
    uint64_t size = node->limits.cluster_size, head = node->driver->format->head_bytes;
    bool always = node->caps & BLK_CAP_COMPRESSED_ONLY;

    *payload = NULL;
    *bytes = 0;
    if (size <= COMPRESS_GRAIN && !always) {
        return 0;
    }
    uint8_t *out = blk_engine_buffer_get(node);
    if (!out) {
        return -ENOMEM;
    }
    gssize n = co_run_codec(node, flags, out + head, always ? blk_codec_bound(size) : size - COMPRESS_GRAIN, cluster);
    if (n < 0) {
        blk_engine_buffer_put(node, out);
        return n == -ENOSPC ? 0 : (int)n;
    }
    *payload = out;
    *bytes = head + (uint64_t)n;
    return 0;
}

static uint64_t payload_space(uint64_t bytes)
{
    return (bytes + COMPRESS_GRAIN - 1) & ~(uint64_t)(COMPRESS_GRAIN - 1);
}

/* A compressed write of a cluster has taken @space in the file; 0: it is stored as it is. */
static void count_cluster(BlkNode *node, uint64_t space, int ret)
{
    BlkStats *stats = &node->core->stats;
    uint64_t bytes = ret == 0 ? node->limits.cluster_size : 0;

    *(space > 0 ? &stats->compressed_bytes : &stats->incompressible_bytes) += bytes;
    stats->payload_bytes += ret == 0 ? space : 0;
}

/* With the cluster locked; @cluster is cluster_size bytes. */
static int co_write_cluster_locked(BlkNode *node, CompressJob *job, uint64_t offset, void *cluster)
{
    uint64_t bytes = node->limits.cluster_size;
    struct iovec vec = { .iov_base = cluster, .iov_len = bytes };
    int ret;

    if (blk_buffer_is_zero(cluster, bytes)) {
        ret = blk_engine_co_drop_locked(node, offset, bytes, BLK_MAP_ZERO, BLK_REQ_UNMAP);
        if (ret != -ENOTSUP) {
            return ret;
        }
    }
    uint8_t *payload;
    uint64_t payload_bytes;
    ret = co_compress(node, job->req->flags, cluster, &payload, &payload_bytes);
    if (ret == 0) {
        ret = payload ? co_write_payload(node, job, offset, payload, payload_bytes)
                      : blk_engine_co_write_plain_locked(node, offset, bytes, (BlkIov){ .vec = &vec, .count = 1 });
        count_cluster(node, payload ? payload_space(payload_bytes) : 0, ret);
    }
    blk_engine_buffer_put(node, payload);
    return ret;
}

/* @bytes are less than a cluster only at the end of the node; the rest is zeroes. */
static int co_write_cluster(CompressJob *job, uint64_t offset, uint64_t bytes, BlkIov iov)
{
    BlkNode *node = job->node;
    BlkEngine *engine = node->core->engine;
    uint64_t size = node->limits.cluster_size;
    void *direct = bytes == size ? blk_iov_contiguous(iov, bytes) : NULL;
    uint8_t *bounce = NULL;
    BlkRangeHold hold;
    int ret = 0;

    blk_co_range_lock(&engine->clusters, &hold, offset, size, true);
    if (!direct) {
        bounce = blk_engine_buffer_get(node);
        if (bounce) {
            blk_iov_to_buf(iov, bounce, bytes);
            memset(bounce + bytes, 0, size - bytes);
        } else {
            ret = -ENOMEM;
        }
    }
    if (ret == 0) {
        ret = co_write_cluster_locked(node, job, offset, direct ? direct : bounce);
    }
    if (ret == 0) {
        ret = co_wait_for_turn(job, offset);        /* of zeroes, which take no place */
        end_turn(job, offset);
    }
    blk_range_unlock(&engine->clusters, &hold);
    blk_engine_buffer_put(node, bounce);
    return ret;
}

/* One of several tasks: takes the next cluster until none is left. */
static int co_write_clusters(void *opaque)
{
    CompressJob *job = opaque;
    const BlkRequest *req = job->req;

    while (job->next < req->bytes) {
        uint64_t done = job->next, bytes = MIN(job->node->limits.cluster_size, req->bytes - done);
        job->next += bytes;
        int ret = co_write_cluster(job, req->offset + done, bytes, blk_iov_advance(req->iov, done));
        if (ret < 0) {
            fail_job(job);
            return ret;
        }
    }
    return 0;
}

int blk_check_compression_level(BlkNode *node, unsigned level, GError **error)
{
    const BlkFormatOps *format = (node = blk_node_skip_filters(node))->driver->format;
    unsigned max = format && format->codec && format->codec(node) ? blk_codec_max_level(format->codec(node)) : 0;

    if (level > max) {
        return blk_error(error, -EINVAL, "the compression of '%s' has the levels 1 to %u, not %u", blk_node_filename(node),
                         max, level);
    }
    return 0;
}

int blk_engine_co_write_compressed(BlkNode *node, BlkRequest *req)
{
    uint64_t size = node->limits.cluster_size, end = req->offset + req->bytes;
    CompressJob job = { .node = node, .req = req, .ordered = !(node->caps & BLK_CAP_COMPRESSED_REWRITE) };
    unsigned tasks = blk_codec_tasks(node->ctx, size, node->length);
    BlkCoGroup group = BLK_CO_GROUP_INIT(tasks);

    if (req->offset % size != 0 || (end % size != 0 && end != node->length)) {
        return -EINVAL;
    }
    if (req->bytes <= size) {
        return co_write_clusters(&job);
    }
    for (uint64_t i = 0; i < MIN(tasks, (req->bytes + size - 1) / size); i++) {
        if (blk_co_group_run(&group, co_write_clusters, &job) < 0) {
            break;
        }
    }
    return blk_co_group_wait(&group);
}

/* ---- what is there already ---- */

static int co_shrink_locked(BlkNode *node, uint64_t offset, uint8_t *cluster, uint64_t space, unsigned flags, uint64_t *after)
{
    uint64_t size = node->limits.cluster_size, bytes;
    uint8_t *payload;
    int ret = blk_engine_co_read_padded(node, offset, size, cluster);

    *after = space;
    if (ret == 0 && blk_buffer_is_zero(cluster, size)) {
        ret = flags & BLK_SHRINK_DRY ? 0 : blk_engine_co_drop_locked(node, offset, size, BLK_MAP_ZERO, BLK_REQ_UNMAP);
        *after = ret == 0 ? 0 : space;
        return ret == -ENOTSUP ? 0 : ret;
    }
    if (ret == 0) {
        ret = co_compress(node, 0, cluster, &payload, &bytes);
    }
    if (ret < 0 || !payload) {
        return ret;
    }
    if (payload_space(bytes) < space || (flags & BLK_SHRINK_ALWAYS)) {
        *after = payload_space(bytes);
        ret = flags & BLK_SHRINK_DRY ? 0 : co_write_payload(node, NULL, offset, payload, bytes);
    }
    blk_engine_buffer_put(node, payload);
    return ret;
}

int blk_engine_co_shrink_cluster(BlkNode *node, uint64_t offset, uint64_t space, unsigned flags, uint64_t *after)
{
    BlkEngine *engine = node->core->engine;
    uint8_t *cluster = blk_engine_buffer_get(node);
    BlkRangeHold hold;

    *after = space;
    if (!cluster) {
        return -ENOMEM;
    }
    blk_co_range_lock(&engine->clusters, &hold, offset, node->limits.cluster_size, true);
    int ret = co_shrink_locked(node, offset, cluster, space, flags, after);
    blk_range_unlock(&engine->clusters, &hold);
    blk_engine_buffer_put(node, cluster);
    return ret;
}
