/* SPDX-License-Identifier: MIT */
/*
 * engine_read.c - guest reads of a format node.
 *
 * A read is cut into pieces, one for each answer of the driver. The first piece is read by the request's own coroutine;
 * if there are more, a few further coroutines take them, so that payloads are read and decoded at once. No lock is held:
 * the reader's epoch keeps what it looks at from being reused.
 *
 * Parts of compressed clusters are read through the cache of decompressed ones. Whole clusters are decoded where the reader
 * wants them, and not cached: a long read leaves in the cache what small ones use.
 */
#include "core/codec.h"
#include "core/engine.h"
#include "core/node.h"

#include <string.h>

enum { READ_TASKS = 8 };            /* pieces of one request in flight */

typedef struct ReadJob {
    BlkNode *node;
    const BlkRequest *req;
    bool sequential;                /* it goes on where another read ended */
    uint64_t next;                  /* bytes of the request that somebody reads or has read */
    BlkCoMutex mutex;               /* pieces are found one after the other */
    bool failed;
} ReadJob;

typedef struct PayloadRead {
    BlkNode *node;
    const BlkMapping *map;
} PayloadRead;

/* Reads from a child, whose end may come early: a file that was cut, or a short backing. The rest is zeroes. */
static int read_child(BlkNode *child, uint64_t offset, uint64_t bytes, BlkIov iov)
{
    uint64_t length = blk_node_length(child);
    uint64_t there = offset < length ? MIN(bytes, length - offset) : 0;

    if (there < bytes) {
        blk_iov_zero(blk_iov_advance(iov, there), bytes - there);
    }
    return there > 0 ? blk_co_preadv(child, offset, there, iov, 0) : 0;
}

/* Decodes the cluster's payload to @out, cluster_size bytes. */
static int read_payload(BlkNode *node, const BlkMapping *map, void *out)
{
    const BlkCodec *codec = node->driver->format->codec ? node->driver->format->codec(node) : NULL;
    BlkNode *file = map->child->node;
    uint64_t length = blk_node_length(file);

    if (!codec || map->host_offset >= length) {
        return -EIO;
    }
    uint64_t bytes = MIN(map->host_bytes, length - map->host_offset);
    void *payload = blk_engine_buffer_get(node);
    if (!payload) {
        return -ENOMEM;
    }
    blk_co_event(file, BLK_EVENT_read_compressed);
    int ret = blk_co_pread(file, map->host_offset, bytes, payload, 0);
    if (ret == 0) {
        ret = blk_co_codec_decompress(codec, out, node->limits.cluster_size, payload, bytes);
    }
    blk_engine_buffer_put(node, payload);
    return ret;
}

/* BlkClusterLoad */
static int load_payload(void *opaque, uint8_t *out)
{
    const PayloadRead *read = opaque;

    return read_payload(read->node, read->map, out);
}

static int read_uncached(BlkNode *node, const BlkMapping *map, uint64_t in_cluster, uint64_t bytes, BlkIov iov)
{
    void *direct = bytes == node->limits.cluster_size ? blk_iov_contiguous(iov, bytes) : NULL;

    if (direct) {
        return read_payload(node, map, direct);
    }
    uint8_t *cluster = blk_engine_buffer_get(node);
    if (!cluster) {
        return -ENOMEM;
    }
    int ret = read_payload(node, map, cluster);
    if (ret == 0) {
        blk_iov_from_buf(iov, cluster + in_cluster, bytes);
    }
    blk_engine_buffer_put(node, cluster);
    return ret;
}

static int read_compressed(const ReadJob *job, const BlkMapping *map, uint64_t offset, uint64_t bytes, BlkIov iov)
{
    BlkNode *node = job->node;
    uint64_t size = node->limits.cluster_size, in_cluster = offset & (size - 1);
    BlkClusterCache *cache = blk_engine_cluster_cache(node);
    BlkCachedCluster *cluster = NULL;
    PayloadRead read = { .node = node, .map = map };
    int ret = cache ? blk_cluster_cache_co_find(cache, map, &cluster) : 0;

    if (ret == 0 && cache && !cluster && bytes < size) {
        ret = blk_cluster_cache_co_load(cache, map, load_payload, &read, false, &cluster);
    }
    if (ret < 0) {
        return ret;
    }
    if (!cluster) {
        return read_uncached(node, map, in_cluster, bytes, iov);
    }
    blk_iov_from_buf(iov, cluster->data + in_cluster, bytes);
    blk_cluster_cache_put(cache, cluster, job->sequential && in_cluster + bytes == size);
    return 0;
}

static int read_piece(const ReadJob *job, const BlkMapping *map, uint64_t offset, uint64_t bytes, BlkIov iov)
{
    BlkNode *node = job->node;

    switch (map->kind) {
    case BLK_MAP_DATA:
        blk_co_event(map->child->node, BLK_EVENT_read_aio);
        return read_child(map->child->node, map->host_offset, bytes, iov);
    case BLK_MAP_COMPRESSED:
        return read_compressed(job, map, offset, bytes, iov);
    case BLK_MAP_UNALLOCATED:
        if (node->backing) {
            blk_co_event(node->file->node, BLK_EVENT_read_backing_aio);
            return read_child(node->backing->node, offset, bytes, iov);
        }
        break;
    case BLK_MAP_ZERO:
        break;
    }
    blk_iov_zero(iov, bytes);
    return 0;
}

/* Finds the next piece; *bytes is 0 when none is left. */
static int read_next(ReadJob *job, BlkMapping *map, uint64_t *done, uint64_t *bytes)
{
    const BlkRequest *req = job->req;
    int ret = 0;

    *bytes = 0;
    blk_co_mutex_lock(&job->mutex);
    *done = job->next;
    if (*done < req->bytes && !job->failed) {
        ret = job->node->driver->format->co_map(job->node, req->offset + *done, req->bytes - *done, map);
        if (ret == 0) {
            *bytes = MIN(map->bytes, req->bytes - *done);
            job->next += *bytes;
        }
    }
    blk_co_mutex_unlock(&job->mutex);
    return ret;
}

static int read_pieces(void *opaque)
{
    ReadJob *job = opaque;
    BlkMapping map;
    uint64_t done, bytes;

    for (;;) {
        int ret = read_next(job, &map, &done, &bytes);
        if (ret == 0 && bytes == 0) {
            return 0;
        }
        if (ret == 0) {
            ret = read_piece(job, &map, job->req->offset + done, bytes, blk_iov_advance(job->req->iov, done));
        }
        if (ret < 0) {
            job->failed = true;
            return ret;
        }
    }
}

static int read_all(ReadJob *job)
{
    const BlkRequest *req = job->req;
    BlkCoGroup group = BLK_CO_GROUP_INIT(READ_TASKS);
    BlkMapping map;
    uint64_t done, bytes;
    int ret = read_next(job, &map, &done, &bytes);

    if (ret < 0) {
        return ret;
    }
    if (bytes < req->bytes) {
        uint64_t clusters = (req->bytes - bytes) / job->node->limits.cluster_size + 1;
        for (unsigned i = 0; i < MIN(clusters, READ_TASKS - 1); i++) {
            blk_co_group_run(&group, read_pieces, job);
        }
    }
    ret = read_piece(job, &map, req->offset, bytes, req->iov);
    if (ret < 0) {
        job->failed = true;
    } else if (bytes < req->bytes) {
        ret = read_pieces(job);
    }
    int others = blk_co_group_wait(&group);
    return ret < 0 ? ret : others;
}

int blk_engine_co_preadv(BlkNode *node, BlkRequest *req)
{
    ReadJob job = { .node = node, .req = req };
    BlkEngineReader reader;

    job.sequential = blk_engine_read_ahead(node, req->offset, req->bytes);
    blk_engine_reader_begin(node, &reader);
    int ret = read_all(&job);
    blk_engine_reader_end(node, &reader);
    return ret;
}

void blk_engine_co_load_ahead(BlkNode *node, uint64_t offset)
{
    BlkMapping map;
    PayloadRead read = { .node = node, .map = &map };
    BlkClusterCache *cache = blk_engine_cluster_cache(node);
    BlkCachedCluster *cluster = NULL;
    BlkEngineReader reader;

    if (!cache) {
        return;
    }
    blk_engine_reader_begin(node, &reader);
    int ret = node->driver->format->co_map(node, offset, node->limits.cluster_size, &map);
    if (ret == 0 && map.kind == BLK_MAP_COMPRESSED) {
        ret = blk_cluster_cache_co_find(cache, &map, &cluster);
        if (ret == 0 && !cluster) {
            blk_cluster_cache_co_load(cache, &map, load_payload, &read, true, &cluster);
        }
    }
    if (cluster) {
        blk_cluster_cache_put(cache, cluster, false);
    }
    blk_engine_reader_end(node, &reader);
}

int blk_engine_co_read_padded(BlkNode *node, uint64_t offset, uint64_t bytes, void *buf)
{
    struct iovec vec = { .iov_base = buf, .iov_len = bytes };
    uint64_t there = offset < node->length ? MIN(bytes, node->length - offset) : 0;
    BlkRequest req = { .offset = offset, .bytes = there, .iov = { .vec = &vec, .count = 1 } };

    memset((uint8_t *)buf + there, 0, bytes - there);
    return there > 0 ? blk_engine_co_preadv(node, &req) : 0;
}
