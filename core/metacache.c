/* SPDX-License-Identifier: MIT */
/*
 * metacache.c - cache of an image file's tables, with ordered group commit; see metacache.h for the rules.
 *
 * A block is clean or has a rank. A commit copies all changed blocks at one moment ("freeze") and writes the copies, so
 * that changes made meanwhile belong to the next commit and may refer to things that this one does not make stable.
 * Neighbouring blocks leave in one write. A block that is being written is not evicted, since reading it again could
 * bring back what it was.
 *
 * Limitations: all blocks have one size; a changed block cannot be written alone.
 */
#include "core/metacache.h"

#include "core/loop.h"
#include "core/request.h"

#include <string.h>

enum {
    META_WRITES_IN_FLIGHT = 16,
    META_MAX_WRITE = 1 << 20,       /* bytes, of one write of neighbouring blocks */
};

struct BlkMetaCache {
    BlkNode *node;
    size_t block_size, max_blocks, dirty_blocks;
    GHashTable *blocks;             /* &block->offset -> block */
    GQueue lru;                     /* blocks that are not held, the oldest first */
    BlkMetaHooks hooks;
    BlkTimer timer;                 /* of the next cleaning: runs while there are blocks */
    uint64_t clean_ns, turn;        /* 0: none; of cleaning */
    BlkCoMutex commit_lock;
    uint64_t requests;              /* commits asked for */
    uint64_t served[BLK_META_RANKS];    /* [rank]: of those that begin at this rank, all up to this one are through */
};

/* What one commit writes: copies of the blocks of one rank, sorted by offset. */
typedef struct MetaImage {
    GPtrArray *blocks;
    uint8_t *copies;                /* block_size bytes for each of @blocks */
} MetaImage;

void blk_meta_set_max_blocks(BlkMetaCache *cache, size_t max_blocks)
{
    cache->max_blocks = MAX(max_blocks, 16);
}

BlkMetaCache *blk_meta_new(BlkNode *node, size_t block_size, size_t max_blocks, const BlkMetaHooks *hooks)
{
    BlkMetaCache *cache = g_new0(BlkMetaCache, 1);

    cache->node = node;
    cache->block_size = block_size;
    blk_meta_set_max_blocks(cache, max_blocks);
    cache->blocks = g_hash_table_new(g_int64_hash, g_int64_equal);
    cache->hooks = *hooks;
    g_queue_init(&cache->lru);
    return cache;
}

static void meta_destroy_block(BlkMetaBlock *block)
{
    blk_buffer_free(block->data);
    g_free(block);
}

void blk_meta_free(BlkMetaCache *cache)
{
    GHashTableIter iter;
    void *block;

    if (!cache) {
        return;
    }
    blk_timer_stop(&cache->node->ctx->chores, &cache->timer);
    g_hash_table_iter_init(&iter, cache->blocks);
    while (g_hash_table_iter_next(&iter, NULL, &block)) {
        meta_destroy_block(block);
    }
    g_hash_table_unref(cache->blocks);
    g_free(cache);
}

static void meta_remove(BlkMetaCache *cache, BlkMetaBlock *block)
{
    g_hash_table_remove(cache->blocks, &block->offset);
    meta_destroy_block(block);
}

/* Makes room for one more block, if one can go. */
static void meta_evict(BlkMetaCache *cache)
{
    GList *link = cache->lru.head;

    while (g_hash_table_size(cache->blocks) >= cache->max_blocks && link) {
        BlkMetaBlock *block = link->data;
        link = link->next;
        if (block->rank == BLK_META_CLEAN && !block->in_commit) {
            g_queue_unlink(&cache->lru, &block->lru);
            meta_remove(cache, block);
        }
    }
}

/* ---- cleaning: what nobody uses goes after a while ---- */

static void meta_expect_cleaning(BlkMetaCache *cache);

static void meta_clean_turn(BlkTimer *timer)
{
    BlkMetaCache *cache = (BlkMetaCache *)((char *)timer - offsetof(BlkMetaCache, timer));
    GList *link = cache->lru.head;

    while (link) {
        BlkMetaBlock *block = link->data;

        link = link->next;
        if (block->used < cache->turn && block->rank == BLK_META_CLEAN && !block->in_commit) {
            g_queue_unlink(&cache->lru, &block->lru);
            meta_remove(cache, block);
        }
    }
    cache->turn++;
    meta_expect_cleaning(cache);
}

static void meta_expect_cleaning(BlkMetaCache *cache)
{
    if (cache->clean_ns > 0 && cache->timer.place == 0 && g_hash_table_size(cache->blocks) > 0) {
        blk_timer_start(&cache->node->ctx->chores, &cache->timer, blk_clock_ns() + cache->clean_ns, meta_clean_turn);
    }
}

void blk_meta_set_clean_interval(BlkMetaCache *cache, uint64_t ns)
{
    blk_timer_stop(&cache->node->ctx->chores, &cache->timer);
    cache->clean_ns = ns;
    meta_expect_cleaning(cache);
}

/* ---- blocks ---- */

static void meta_hold(BlkMetaCache *cache, BlkMetaBlock *block)
{
    if (block->refs++ == 0) {
        g_queue_unlink(&cache->lru, &block->lru);
    }
}

void blk_meta_put(BlkMetaCache *cache, BlkMetaBlock *block)
{
    if (!block) {
        return;
    }
    g_assert(block->refs > 0);
    block->used = cache->turn;
    if (--block->refs == 0) {
        g_queue_push_tail_link(&cache->lru, &block->lru);
    }
}

static BlkNode *meta_file(const BlkMetaCache *cache, uint64_t address, uint64_t *offset)
{
    *offset = address;
    return cache->hooks.file ? cache->hooks.file(cache->hooks.opaque, address, offset) : cache->node->file->node;
}

/* Reads what the file has of the block; the rest stays zeroes. */
static int meta_co_load(BlkMetaCache *cache, BlkMetaBlock *block)
{
    uint64_t offset;
    BlkNode *file = meta_file(cache, block->offset, &offset);
    uint64_t length = blk_node_length(file);

    if (offset >= length) {
        return 0;
    }
    return blk_co_pread(file, offset, MIN(cache->block_size, length - offset), block->data, 0);
}

static BlkMetaBlock *meta_add(BlkMetaCache *cache, uint64_t offset)
{
    void *data = blk_buffer_try_alloc(cache->node->file->node, cache->block_size);
    BlkMetaBlock *block;

    if (!data) {
        return NULL;
    }
    memset(data, 0, cache->block_size);
    meta_evict(cache);
    block = g_new0(BlkMetaBlock, 1);
    block->offset = offset;
    block->data = data;
    block->rank = BLK_META_CLEAN;
    block->lru.data = block;
    block->refs = 1;
    g_hash_table_insert(cache->blocks, &block->offset, block);
    meta_expect_cleaning(cache);
    return block;
}

int blk_meta_co_get(BlkMetaCache *cache, uint64_t offset, BlkMetaBlock **out)
{
    return blk_meta_co_get_for(cache, offset, BLK_EVENT_COUNT, out);
}

int blk_meta_co_get_for(BlkMetaCache *cache, uint64_t offset, BlkEvent event, BlkMetaBlock **out)
{
    BlkMetaBlock *block;
    int ret;

    *out = NULL;
    offset &= ~(uint64_t)(cache->block_size - 1);
    for (;;) {
        block = g_hash_table_lookup(cache->blocks, &offset);
        if (!block || !block->loading) {
            break;
        }
        blk_co_queue_wait(&block->loaders);     /* it may have failed and gone: look again */
    }
    if (block) {
        meta_hold(cache, block);
        *out = block;
        return 0;
    }
    block = meta_add(cache, offset);
    if (!block) {
        return -ENOMEM;
    }
    block->loading = true;
    if (event != BLK_EVENT_COUNT) {
        blk_co_event(cache->node->file->node, event);
    }
    ret = meta_co_load(cache, block);
    block->loading = false;
    blk_co_queue_wake_all(&block->loaders);
    if (ret < 0) {
        meta_remove(cache, block);
        return ret;
    }
    *out = block;
    return 0;
}

void blk_meta_dirty(BlkMetaCache *cache, BlkMetaBlock *block, BlkMetaRank rank)
{
    g_assert(block->refs > 0 && (block->rank == BLK_META_CLEAN || block->rank == rank));
    if (block->rank == BLK_META_CLEAN) {
        cache->dirty_blocks++;
    }
    block->rank = rank;
}

static void meta_clean(BlkMetaCache *cache, BlkMetaBlock *block)
{
    if (block->rank != BLK_META_CLEAN) {
        cache->dirty_blocks--;
        block->rank = BLK_META_CLEAN;
    }
}

static void meta_forget_block(BlkMetaCache *cache, BlkMetaBlock *block)
{
    g_assert(block->refs == 0);
    meta_clean(cache, block);
    g_queue_unlink(&cache->lru, &block->lru);
    meta_destroy_block(block);
}

/* Blocks of a short range are looked up, those of a long one are found by going through all. */
void blk_meta_co_forget(BlkMetaCache *cache, uint64_t offset, uint64_t bytes)
{
    GHashTableIter iter;
    void *value;

    blk_co_mutex_lock(&cache->commit_lock);
    if (bytes / cache->block_size < g_hash_table_size(cache->blocks)) {
        for (uint64_t pos = offset & ~(uint64_t)(cache->block_size - 1); pos < offset + bytes; pos += cache->block_size) {
            value = g_hash_table_lookup(cache->blocks, &pos);
            if (value) {
                g_hash_table_remove(cache->blocks, &pos);
                meta_forget_block(cache, value);
            }
        }
        blk_co_mutex_unlock(&cache->commit_lock);
        return;
    }
    g_hash_table_iter_init(&iter, cache->blocks);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        BlkMetaBlock *block = value;
        if (block->offset >= offset && block->offset - offset < bytes) {
            g_hash_table_iter_remove(&iter);
            meta_forget_block(cache, block);
        }
    }
    blk_co_mutex_unlock(&cache->commit_lock);
}

bool blk_meta_wants_commit(const BlkMetaCache *cache)
{
    return cache->dirty_blocks > cache->max_blocks / 2;
}

bool blk_meta_is_dirty(const BlkMetaCache *cache)
{
    return cache->dirty_blocks > 0;
}

/* ---- commit ---- */

static int meta_compare_offsets(const void *a, const void *b)
{
    const BlkMetaBlock *x = *(BlkMetaBlock *const *)a, *y = *(BlkMetaBlock *const *)b;

    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static void meta_images_clear(MetaImage images[BLK_META_RANKS])
{
    for (unsigned rank = 0; rank < BLK_META_RANKS; rank++) {
        g_ptr_array_unref(images[rank].blocks);
        blk_buffer_free(images[rank].copies);
    }
}

/* Takes a copy of all changed blocks from rank @lowest on. Changes nothing if that fails. */
static int meta_freeze(BlkMetaCache *cache, BlkMetaRank lowest, MetaImage images[BLK_META_RANKS])
{
    GHashTableIter iter;
    void *value;

    g_hash_table_iter_init(&iter, cache->blocks);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        BlkMetaBlock *block = value;
        if (block->rank != BLK_META_CLEAN && block->rank >= lowest) {
            g_ptr_array_add(images[block->rank].blocks, block);
        }
    }
    for (unsigned rank = 0; rank < BLK_META_RANKS; rank++) {
        MetaImage *image = &images[rank];
        if (image->blocks->len > 0) {
            image->copies = blk_buffer_try_alloc(cache->node->file->node, image->blocks->len * cache->block_size);
            if (!image->copies) {
                return -ENOMEM;
            }
        }
        g_ptr_array_sort(image->blocks, meta_compare_offsets);
    }
    for (unsigned rank = 0; rank < BLK_META_RANKS; rank++) {
        for (unsigned i = 0; i < images[rank].blocks->len; i++) {
            BlkMetaBlock *block = g_ptr_array_index(images[rank].blocks, i);
            memcpy(images[rank].copies + i * cache->block_size, block->data, cache->block_size);
            meta_clean(cache, block);
            block->in_commit = true;
        }
    }
    return 0;
}

/* The blocks of a commit that failed are changed still; those that were changed again are so anyway. */
static void meta_thaw(BlkMetaCache *cache, MetaImage images[BLK_META_RANKS], bool ok)
{
    for (unsigned rank = 0; rank < BLK_META_RANKS; rank++) {
        for (unsigned i = 0; i < images[rank].blocks->len; i++) {
            BlkMetaBlock *block = g_ptr_array_index(images[rank].blocks, i);
            block->in_commit = false;
            if (!ok && block->rank == BLK_META_CLEAN) {
                block->rank = rank;
                cache->dirty_blocks++;
            }
        }
    }
}

typedef struct MetaWrite {
    BlkMetaCache *cache;
    const MetaImage *image;
    unsigned next, end;             /* the first block that nobody writes yet, and that behind the last */
} MetaWrite;

/* One of several writers: takes the next run of neighbouring blocks until none is left. */
static int meta_co_write_runs(void *opaque)
{
    MetaWrite *w = opaque;
    size_t block_size = w->cache->block_size;

    while (w->next < w->end) {
        unsigned first = w->next, count = 1;
        uint64_t offset = ((BlkMetaBlock *)g_ptr_array_index(w->image->blocks, first))->offset;
        while (first + count < w->end && count < META_MAX_WRITE / block_size &&
               ((BlkMetaBlock *)g_ptr_array_index(w->image->blocks, first + count))->offset ==
               offset + count * block_size) {
            count++;
        }
        w->next += count;
        BlkNode *file = meta_file(w->cache, offset, &offset);
        int ret = blk_co_pwrite(file, offset, count * block_size, w->image->copies + first * block_size, 0);
        if (ret < 0) {
            w->next = w->end;
            return ret;
        }
    }
    return 0;
}

/* Writes blocks of the image from @first on, up to @end. */
static int meta_co_write_part(BlkMetaCache *cache, const MetaImage *image, unsigned first, unsigned end)
{
    BlkCoGroup group = BLK_CO_GROUP_INIT(META_WRITES_IN_FLIGHT);
    MetaWrite write = { .cache = cache, .image = image, .next = first, .end = end };
    unsigned writers = MIN(META_WRITES_IN_FLIGHT, end - first);

    if (writers == 1) {
        return meta_co_write_runs(&write);
    }
    for (unsigned i = 0; i < writers; i++) {
        if (blk_co_group_run(&group, meta_co_write_runs, &write) < 0) {
            break;
        }
    }
    return blk_co_group_wait(&group);
}

/* What goes through a log goes in parts that fit into it; each is stable before the log has the next. */
static int meta_co_write_rank(BlkMetaCache *cache, const MetaImage *image)
{
    const BlkMetaHooks *hooks = &cache->hooks;
    unsigned n = image->blocks->len, most = hooks->co_log ? hooks->log_blocks : n;
    int ret = 0;

    for (unsigned first = 0; ret == 0 && first < n; first += most) {
        unsigned count = MIN(most, n - first);
        ret = first > 0 ? blk_request_flush_children(cache->node) : 0;
        if (ret == 0 && hooks->co_log) {
            ret = hooks->co_log((BlkMetaBlock *const *)image->blocks->pdata + first,
                                image->copies + first * cache->block_size, count, hooks->opaque);
        }
        ret = ret < 0 ? ret : meta_co_write_part(cache, image, first, first + count);
    }
    return ret;
}

static int meta_co_write_all(BlkMetaCache *cache, MetaImage images[BLK_META_RANKS])
{
    BlkNode *file = cache->node->file->node;

    for (unsigned rank = 0; rank < BLK_META_RANKS; rank++) {
        if (images[rank].blocks->len == 0) {
            continue;
        }
        int ret = rank > 0 ? blk_request_flush_children(cache->node) : 0;
        if (ret == 0) {
            blk_co_event(file, cache->hooks.events[rank]);
            ret = meta_co_write_rank(cache, &images[rank]);
        }
        if (ret < 0) {
            return ret;
        }
    }
    return blk_request_flush_children(cache->node);
}

static int meta_co_commit_now(BlkMetaCache *cache, BlkMetaRank lowest)
{
    MetaImage images[BLK_META_RANKS] = { 0 };
    int ret;

    for (unsigned rank = 0; rank < BLK_META_RANKS; rank++) {
        images[rank].blocks = g_ptr_array_new();
    }
    ret = meta_freeze(cache, lowest, images);
    if (ret == 0) {
        if (cache->hooks.freeze) {
            cache->hooks.freeze(cache->hooks.opaque);
        }
        ret = meta_co_write_all(cache, images);
        meta_thaw(cache, images, ret == 0);
        if (cache->hooks.done) {
            cache->hooks.done(ret == 0, cache->hooks.opaque);
        }
    }
    meta_images_clear(images);
    return ret;
}

int blk_meta_co_commit_from(BlkMetaCache *cache, BlkMetaRank lowest)
{
    uint64_t ticket = ++cache->requests;
    int ret = 0;

    blk_co_mutex_lock(&cache->commit_lock);
    if (cache->served[lowest] < ticket) {
        uint64_t upto = cache->requests;        /* all who ask before the freeze are served by it */
        ret = meta_co_commit_now(cache, lowest);
        for (unsigned rank = lowest; ret == 0 && rank < BLK_META_RANKS; rank++) {
            cache->served[rank] = upto;
        }
    }
    blk_co_mutex_unlock(&cache->commit_lock);
    return ret;
}

int blk_meta_co_commit(BlkMetaCache *cache)
{
    return blk_meta_co_commit_from(cache, BLK_META_COUNTS);
}
