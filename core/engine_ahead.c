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
 * Each cluster is loaded by a coroutine of its own, which counts as a request in flight: a drained section waits for it, and
 * so does the node before it is closed. Those that have not begun by then do nothing.
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
    uint64_t offset;            /* of a guest cluster */
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
        blk_engine_co_load_ahead(node, task->offset);
    }
    node->core->engine->ahead_tasks--;
    blk_request_end(node);
    return 0;
}

static void start_task(BlkNode *node, uint64_t offset)
{
    AheadTask *task = g_new(AheadTask, 1);

    *task = (AheadTask){ .node = node, .offset = offset };
    node->core->engine->ahead_tasks++;
    blk_request_join(node);
    blk_co_spawn(node->ctx, co_load, task);
}

/* Clusters ahead of a stream, and loaded ahead at once: as many as can be worked on, in half of the cache. */
static unsigned most_ahead(BlkNode *node)
{
    BlkClusterCache *cache = blk_engine_cluster_cache(node);

    return cache ? MIN(blk_context_workers(node->ctx) + 1, blk_cluster_cache_room(cache) / 2) : 0;
}

bool blk_engine_read_ahead(BlkNode *node, uint64_t offset, uint64_t bytes)
{
    BlkEngine *engine = node->core->engine;
    uint64_t size = node->limits.cluster_size;
    BlkReadStream *s = follow(engine, offset, bytes);
    bool is_long = s->next - s->start >= size / STREAM_LONG;
    /* Who reads clusters, and several at once, keeps the workers busy himself. */
    bool alone = node->core->in_flight - engine->ahead_tasks <= 1;

    if (!s->continued || !is_long || bytes > size || (bytes == size && !alone)) {
        return s->continued;
    }
    uint64_t border = (s->next + size - 1) & ~(size - 1);
    unsigned most = most_ahead(node);
    uint64_t clusters = MIN(most, 1 + (s->next - s->start) / size);     /* one more for each that was read */
    uint64_t end = MIN(border + clusters * size, node->length);

    for (s->ahead = MAX(s->ahead, border); s->ahead < end && engine->ahead_tasks < most; s->ahead += size) {
        start_task(node, s->ahead);
    }
    return true;
}
