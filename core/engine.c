/* SPDX-License-Identifier: MIT */
/*
 * engine.c - what the parts of the format engine share: its state, readers' epochs, buffers, the cache of clusters.
 */
#include "core/engine.h"

#include "core/node.h"

enum {
    ENGINE_FREE_BUFFERS = 96,       /* kept for the next request, at most, */
    ENGINE_FREE_BYTES = 8 << 20,    /* and no more memory than that, about */
    ENGINE_BUFFER_SLACK = 3 * 4096, /* a payload may begin and end inside a sector, and is read in whole blocks */
};

BlkEngine *blk_engine_new(void)
{
    BlkEngine *engine = g_new0(BlkEngine, 1);

    engine->buffers = g_ptr_array_new_with_free_func(blk_buffer_free);
    return engine;
}

void blk_engine_free(BlkEngine *engine)
{
    if (engine) {
        g_assert(!engine->first);
        g_ptr_array_unref(engine->buffers);
        blk_cluster_cache_free(engine->cache);
        g_free(engine->open_block.data);
        g_free(engine);
    }
}

void *blk_engine_buffer_get(BlkNode *node)
{
    GPtrArray *buffers = node->core->engine->buffers;

    if (buffers->len > 0) {
        return g_ptr_array_steal_index_fast(buffers, buffers->len - 1);
    }
    return blk_buffer_try_alloc(NULL, node->limits.cluster_size + ENGINE_BUFFER_SLACK);
}

void blk_engine_buffer_put(BlkNode *node, void *buffer)
{
    GPtrArray *buffers = node->core->engine->buffers;

    if (buffer && buffers->len < MIN(ENGINE_FREE_BUFFERS, ENGINE_FREE_BYTES / MAX(node->limits.cluster_size, 1))) {
        g_ptr_array_add(buffers, buffer);
    } else {
        blk_buffer_free(buffer);
    }
}

void blk_engine_reader_begin(BlkNode *node, BlkEngineReader *reader)
{
    BlkEngine *engine = node->core->engine;

    reader->epoch = ++engine->epoch;
    reader->next = NULL;
    reader->prev = engine->last;
    if (engine->last) {
        engine->last->next = reader;
    } else {
        engine->first = reader;
    }
    engine->last = reader;
}

void blk_engine_reader_end(BlkNode *node, BlkEngineReader *reader)
{
    BlkEngine *engine = node->core->engine;

    if (reader->prev) {
        reader->prev->next = reader->next;
    } else {
        engine->first = reader->next;
    }
    if (reader->next) {
        reader->next->prev = reader->prev;
    } else {
        engine->last = reader->prev;
    }
}

uint64_t blk_engine_read_epoch(BlkNode *node)
{
    return node->core->engine->epoch;
}

bool blk_engine_has_readers(BlkNode *node, uint64_t epoch)
{
    const BlkEngineReader *first = node->core->engine->first;

    return first && first->epoch <= epoch;
}

/* ---- decompressed clusters ---- */

void blk_engine_set_decompressed_cache(BlkNode *node, uint64_t bytes)
{
    BlkEngine *engine = node->core->engine;

    if (engine->cache_bytes != bytes) {
        g_clear_pointer(&engine->cache, blk_cluster_cache_free);
    }
    engine->cache_bytes = bytes;
}

BlkClusterCache *blk_engine_cluster_cache(BlkNode *node)
{
    BlkEngine *engine = node->core->engine;

    if (engine->cache_bytes == 0 || node->core->drained > 0) {
        return NULL;
    }
    if (!engine->cache) {
        engine->cache = blk_cluster_cache_new(engine->cache_bytes, node->limits.cluster_size);
    }
    return engine->cache;
}

void blk_engine_drained(BlkNode *node)
{
    BlkEngine *engine = node->core->engine;

    if (engine && engine->cache) {
        blk_cluster_cache_clear(engine->cache);
    }
    if (engine) {
        blk_engine_close_block(engine);
    }
}

void blk_engine_publish(BlkNode *node, BlkReservation *res)
{
    if (res->kind == BLK_MAP_COMPRESSED && node->core->engine->cache) {
        blk_cluster_cache_drop(node->core->engine->cache, res->child, res->host_offset);
    }
    node->driver->format->publish(node, res);
}

int blk_engine_co_flush(BlkNode *node)
{
    const BlkFormatOps *format = node->driver->format;

    return format->co_commit ? format->co_commit(node) : 0;
}
