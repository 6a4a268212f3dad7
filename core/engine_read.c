/* SPDX-License-Identifier: MIT */
/*
 * engine_read.c - guest reads of a format node.
 *
 *     request   |  data  |payload|payload| zero |payload|   pieces: one for each answer of the driver
 *                        '---- span -----'------'
 *
 * The first piece is found and read by the request's own coroutine; if there are more, all that is left is planned, some
 * pieces at a time, and a few further coroutines take them, so that payloads are decoded at once. Payloads that lie next
 * to each other in the file, in whatever order, are a span: read in one go. No lock is held: the reader's epoch keeps what
 * it looks at, and what is planned, from being reused.
 *
 * Parts of compressed clusters are read through the cache of decompressed ones. Whole clusters are decoded where the reader
 * wants them, and not cached: a long read leaves in the cache what small ones use.
 */
#include "core/engine.h"
#include "core/node.h"

#include <string.h>

enum {
    READ_TASKS = 8,                 /* pieces of one request in flight */
    PLAN_PIECES = 16,               /* planned ahead */
    SPAN_BYTES = 256 << 10,         /* of payloads that are read in one go, if there are two */
    SHARED_SECTOR = 511,            /* bytes of a payload's last sector that may be the next one's */
};

typedef struct ReadPiece {
    BlkMapping map;
    uint64_t done, bytes;           /* of the request */
    BlkPayloadSpan *span;           /* (nullable): held */
} ReadPiece;

typedef struct ReadPlan {
    ReadPiece pieces[PLAN_PIECES];
    unsigned count, next;
    uint64_t planned;               /* bytes of the request that were planned or read */
} ReadPlan;

typedef struct ReadJob {
    BlkNode *node;
    const BlkRequest *req;
    bool ahead;                     /* only clusters are loaded that nobody has asked for; the request has no memory */
    bool sequential;                /* it goes on where another read ended */
    ReadPlan *plan;
    BlkCoMutex mutex;               /* of plan: pieces are found one after the other */
    bool failed;
} ReadJob;

typedef struct PayloadLoad {
    BlkNode *node;
    const BlkMapping *map;
    BlkPayloadSpan *span;
} PayloadLoad;

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

/* BlkClusterLoad */
static int load_payload(void *opaque, uint8_t *out)
{
    const PayloadLoad *load = opaque;

    return blk_engine_co_decode(load->node, load->map, load->span, out);
}

static int read_uncached(BlkNode *node, const ReadPiece *piece, uint64_t in_cluster, BlkIov iov)
{
    void *direct = piece->bytes == node->limits.cluster_size ? blk_iov_contiguous(iov, piece->bytes) : NULL;

    if (direct) {
        return blk_engine_co_decode(node, &piece->map, piece->span, direct);
    }
    uint8_t *cluster = blk_engine_buffer_get(node);
    if (!cluster) {
        return -ENOMEM;
    }
    int ret = blk_engine_co_decode(node, &piece->map, piece->span, cluster);
    if (ret == 0) {
        blk_iov_from_buf(iov, cluster + in_cluster, piece->bytes);
    }
    blk_engine_buffer_put(node, cluster);
    return ret;
}

static int read_compressed(const ReadJob *job, const ReadPiece *piece, BlkIov iov)
{
    BlkNode *node = job->node;
    uint64_t size = node->limits.cluster_size, in_cluster = (job->req->offset + piece->done) & (size - 1);
    BlkClusterCache *cache = blk_engine_cluster_cache(node);
    BlkCachedCluster *cluster = NULL;
    PayloadLoad load = { .node = node, .map = &piece->map, .span = piece->span };
    int ret = cache ? blk_cluster_cache_co_find(cache, &piece->map, &cluster) : 0;

    if (ret == 0 && cache && !cluster && (job->ahead || piece->bytes < size)) {
        ret = blk_cluster_cache_co_load(cache, &piece->map, load_payload, &load, job->ahead, &cluster);
    }
    if (ret < 0) {
        return ret;
    }
    if (!cluster) {
        return job->ahead ? 0 : read_uncached(node, piece, in_cluster, iov);
    }
    if (!job->ahead) {
        blk_iov_from_buf(iov, cluster->data + in_cluster, piece->bytes);
    }
    blk_cluster_cache_put(cache, cluster, job->sequential && in_cluster + piece->bytes == size);
    return 0;
}

static int read_piece(const ReadJob *job, const ReadPiece *piece)
{
    BlkNode *node = job->node;
    const BlkMapping *map = &piece->map;
    BlkIov iov = job->ahead ? (BlkIov){ 0 } : blk_iov_advance(job->req->iov, piece->done);

    if (map->kind == BLK_MAP_COMPRESSED) {
        return read_compressed(job, piece, iov);
    }
    if (job->ahead) {
        return 0;
    }
    if (map->kind == BLK_MAP_DATA) {
        blk_co_event(map->child->node, BLK_EVENT_read_aio);
        return read_child(map->child->node, map->host_offset, piece->bytes, iov);
    }
    if (map->kind == BLK_MAP_UNALLOCATED && node->backing) {
        if (map->backing_ret < 0) {
            return map->backing_ret;
        }
        blk_co_event(node->file->node, BLK_EVENT_read_backing_aio);
        return read_child(node->backing->node, job->req->offset + piece->done, piece->bytes, iov);
    }
    blk_iov_zero(iov, piece->bytes);
    return 0;
}

/* ---- planning ---- */

/* Finds the piece that begins at piece->done of the request. */
static int find_piece(const ReadJob *job, ReadPiece *piece)
{
    uint64_t left = job->req->bytes - piece->done;
    int ret = job->node->driver->format->co_map(job->node, job->req->offset + piece->done, left, &piece->map);

    piece->bytes = MIN(piece->map.bytes, left);
    piece->span = NULL;
    return ret;
}

static bool is_to_be_read(const ReadJob *job, const ReadPiece *piece)
{
    BlkClusterCache *cache = blk_engine_cluster_cache(job->node);

    return piece->map.kind == BLK_MAP_COMPRESSED && !(cache && blk_cluster_cache_has(cache, &piece->map));
}

/* Makes one span of the payloads, which are sorted, if there are several. Without memory each is read by itself. */
static void make_span(ReadPiece **sorted, unsigned count, uint64_t end)
{
    BlkPayloadSpan *span = NULL;

    if (count > 1) {
        const BlkMapping *first = &sorted[0]->map;
        span = blk_payload_span_try_new(first->child->node, first->host_offset, end, count);
    }
    for (unsigned i = 0; i < count; i++) {
        sorted[i]->span = span;
    }
}

static void make_spans(const ReadJob *job, ReadPlan *plan)
{
    ReadPiece *sorted[PLAN_PIECES];
    unsigned count = 0, first = 0;
    uint64_t end = 0;

    for (unsigned i = 0; i < plan->count; i++) {
        ReadPiece *piece = &plan->pieces[i];
        unsigned at = count;
        if (!is_to_be_read(job, piece)) {
            continue;
        }
        for (; at > 0 && sorted[at - 1]->map.host_offset > piece->map.host_offset; at--) {
            sorted[at] = sorted[at - 1];
        }
        sorted[at] = piece;
        count++;
    }
    for (unsigned i = 0; i < count; i++) {
        const BlkMapping *map = &sorted[i]->map, *start = &sorted[first]->map;
        uint64_t map_end = map->host_offset + map->host_bytes;
        if (i > first && (map->child != start->child || map->host_offset > end || map->host_offset + SHARED_SECTOR < end ||
                          map_end - start->host_offset > SPAN_BYTES)) {
            make_span(sorted + first, i - first, end);
            first = i;
            end = 0;
        }
        end = MAX(end, map_end);
    }
    make_span(sorted + first, count - first, end);
}

/* Plans the next pieces. */
static int make_plan(const ReadJob *job, ReadPlan *plan)
{
    plan->count = plan->next = 0;
    while (plan->count < PLAN_PIECES && plan->planned < job->req->bytes) {
        ReadPiece *piece = &plan->pieces[plan->count];
        piece->done = plan->planned;
        int ret = find_piece(job, piece);
        if (ret < 0) {
            return ret;
        }
        plan->planned += piece->bytes;
        plan->count++;
    }
    make_spans(job, plan);
    return 0;
}

/* Takes the next piece; piece->bytes is 0 when none is left. */
static int take_piece(ReadJob *job, ReadPiece *piece)
{
    ReadPlan *plan = job->plan;
    int ret = 0;

    piece->bytes = 0;
    blk_co_mutex_lock(&job->mutex);
    if (!job->failed && plan->next == plan->count) {
        ret = make_plan(job, plan);
    }
    if (ret == 0 && !job->failed && plan->next < plan->count) {
        *piece = plan->pieces[plan->next++];
    }
    blk_co_mutex_unlock(&job->mutex);
    return ret;
}

static int read_pieces(void *opaque)
{
    ReadJob *job = opaque;
    ReadPiece piece;

    for (;;) {
        int ret = take_piece(job, &piece);
        if (ret == 0 && piece.bytes == 0) {
            return 0;
        }
        if (ret == 0) {
            ret = read_piece(job, &piece);
            blk_payload_span_put(piece.span);
        }
        if (ret < 0) {
            job->failed = true;
            return ret;
        }
    }
}

/* ---- requests ---- */

static int read_many(ReadJob *job)
{
    BlkCoGroup group = BLK_CO_GROUP_INIT(READ_TASKS);
    uint64_t clusters = job->req->bytes / job->node->limits.cluster_size + 1;
    ReadPlan plan;

    plan.count = plan.next = 0;
    plan.planned = 0;
    job->plan = &plan;
    for (unsigned i = 1; i < MIN(clusters, READ_TASKS); i++) {
        blk_co_group_run(&group, read_pieces, job);
    }
    int ret = read_pieces(job), others = blk_co_group_wait(&group);
    while (plan.next < plan.count) {
        blk_payload_span_put(plan.pieces[plan.next++].span);
    }
    return ret < 0 ? ret : others;
}

static int read_all(ReadJob *job)
{
    ReadPiece piece = { .done = 0 };
    int ret = find_piece(job, &piece);

    if (ret < 0) {
        return ret;
    }
    return piece.bytes == job->req->bytes ? read_piece(job, &piece) : read_many(job);
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

void blk_engine_co_load_ahead(BlkNode *node, uint64_t offset, uint64_t bytes)
{
    const BlkRequest req = { .offset = offset, .bytes = bytes };
    ReadJob job = { .node = node, .req = &req, .ahead = true };
    BlkEngineReader reader;

    if (blk_engine_cluster_cache(node)) {
        blk_engine_reader_begin(node, &reader);
        read_all(&job);
        blk_engine_reader_end(node, &reader);
    }
}

int blk_engine_co_read_padded(BlkNode *node, uint64_t offset, uint64_t bytes, void *buf)
{
    struct iovec vec = { .iov_base = buf, .iov_len = bytes };
    uint64_t there = offset < node->length ? MIN(bytes, node->length - offset) : 0;
    BlkRequest req = { .offset = offset, .bytes = there, .iov = { .vec = &vec, .count = 1 } };

    memset((uint8_t *)buf + there, 0, bytes - there);
    return there > 0 ? blk_engine_co_preadv(node, &req) : 0;
}
