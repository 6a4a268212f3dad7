/* SPDX-License-Identifier: MIT */
/*
 * engine_ahead.c - loads compressed clusters in the background when somebody reads one after the other.
 *
 *     guest   ....|start ...read...|next     |border       |             |
 *                                  ^ expected |<- loaded ahead, in clusters ->|
 *
 * A few streams of reads are followed at once. A read that begins where a stream has ended goes on with it; another one
 * takes the place of the stream whose last read is longest ago, where one that was gone on with counts as younger: it
 * outlasts reads at random beside it.
 *
 * When half of what should be ahead is missing, a coroutine loads all of it, so that payloads which are neighbours in the
 * file are read together. It counts as a request in flight: a drained section waits for it, and so does the node before it
 * is closed. One that has not begun by then does nothing.
 *
 * Limitations: reads that arrive in another order than that of their offsets are no stream.
 */
#include "core/engine.h"
#include "core/node.h"

enum {
    STREAM_LONG = 4,            /* one part of so many of a cluster has been read when the next ones are loaded */
    STREAM_GRACE = 256,         /* reads that a stream which was gone on with counts as younger */
};

typedef struct AheadTask {
    BlkNode *node;
    uint64_t offset, bytes;     /* whole clusters of the guest */
} AheadTask;

/* Adds the read to the stream that it goes on with, or to a new one. */
static BlkReadStream *follow(BlkEngine *engine, uint64_t offset, uint64_t bytes)
{
    BlkReadStream *found = NULL, *oldest = NULL;
    uint64_t least = UINT64_MAX;

    for (unsigned i = 0; i < BLK_ENGINE_STREAMS && !found; i++) {
        BlkReadStream *s = &engine->streams[i];
        uint64_t worth = s->used + (s->continued ? STREAM_GRACE : 0);

        if (s->next == offset && s->used > 0) {
            found = s;
        } else if (worth < least) {
            least = worth;
            oldest = s;
        }
    }
    if (found) {
        found->continued = true;
    } else {
        found = oldest;
        *found = (BlkReadStream){ .start = offset };
    }
    found->next = offset + bytes;
    found->used = ++engine->reads;
    return found;
}

static int co_load(void *opaque)
{
    g_autofree AheadTask *task = opaque;
    BlkNode *node = task->node;

    if (node->core->open) {
        blk_engine_co_load_ahead(node, task->offset, task->bytes);
    }
    node->core->engine->ahead_tasks--;
    blk_request_end(node);
    return 0;
}

static void start_task(BlkNode *node, uint64_t offset, uint64_t bytes)
{
    AheadTask *task = g_new(AheadTask, 1);

    *task = (AheadTask){ .node = node, .offset = offset, .bytes = bytes };
    node->core->engine->ahead_tasks++;
    blk_request_join(node);
    blk_co_spawn(node->ctx, co_load, task);
}

/* Clusters ahead of a stream: twice as many as can be worked on, in half of the cache. */
static unsigned most_ahead(BlkNode *node)
{
    BlkClusterCache *cache = blk_engine_cluster_cache(node);

    return cache ? MIN(2 * (blk_context_workers(node->ctx) + 1), blk_cluster_cache_room(cache) / 2) : 0;
}

/* Loads what is missing of the window ahead of the stream, if it is worth it. */
static void load_ahead(BlkNode *node, BlkReadStream *s)
{
    uint64_t size = node->limits.cluster_size, border = (s->next + size - 1) & ~(size - 1);
    uint64_t clusters = MIN(most_ahead(node), 1 + (s->next - s->start) / size);     /* one more for each that was read */
    uint64_t end = MIN(border + clusters * size, node->length);

    s->ahead = MAX(s->ahead, border);
    if (s->ahead < end && 2 * (end - s->ahead) >= end - border &&
        node->core->engine->ahead_tasks <= blk_context_workers(node->ctx)) {
        start_task(node, s->ahead, end - s->ahead);
        s->ahead = end;
    }
}

bool blk_engine_read_ahead(BlkNode *node, uint64_t offset, uint64_t bytes)
{
    BlkEngine *engine = node->core->engine;
    uint64_t size = node->limits.cluster_size;
    BlkReadStream *s = follow(engine, offset, bytes);
    bool is_long = s->next - s->start >= size / STREAM_LONG;
    /* Who reads clusters, and several at once, keeps the workers busy himself. */
    bool alone = node->core->in_flight - engine->ahead_tasks <= 1;

    if (s->continued && is_long && (bytes < size || (bytes == size && alone))) {
        load_ahead(node, s);
    }
    return s->continued;
}
