/* SPDX-License-Identifier: MIT */
/*
 * cluster_cache.c - cache of decompressed clusters; see cluster_cache.h and docs/engine.md for what may be in it.
 *
 *     not there --load--> loading --decoded--> listed <--hold, put--> listed, in the LRU list
 *                            |                   |
 *                          failed              dropped: found no more, goes with its last holder
 *
 * A cluster that is held, or loading, counts as room that is taken. With all room taken a cluster is not cached; the reader
 * decodes it for itself.
 *
 * Limitations: two clusters whose payloads begin at the same byte (of an image that is damaged) replace each other.
 */
#include "core/cluster_cache.h"

struct BlkClusterCache {
    uint32_t cluster_size;
    unsigned room, count;       /* clusters: at most, and those that there are */
    GHashTable *clusters;       /* those that can be found: a set, by child and host_offset */
    GQueue lru;                 /* those of them that nobody holds, the next to go first */
};

static guint cluster_hash(const void *key)
{
    const BlkCachedCluster *cluster = key;
    uint64_t mixed = (cluster->host_offset >> 9) * UINT64_C(0x9e3779b97f4a7c15);    /* the golden ratio's bits */

    return (guint)(mixed >> 32);
}

static gboolean cluster_equal(const void *a, const void *b)
{
    const BlkCachedCluster *x = a, *y = b;

    return x->host_offset == y->host_offset && x->child == y->child;
}

BlkClusterCache *blk_cluster_cache_new(uint64_t bytes, uint32_t cluster_size)
{
    BlkClusterCache *cache = g_new0(BlkClusterCache, 1);

    cache->cluster_size = cluster_size;
    cache->room = (unsigned)CLAMP(bytes / cluster_size, 1, UINT_MAX);
    cache->clusters = g_hash_table_new(cluster_hash, cluster_equal);
    g_queue_init(&cache->lru);
    return cache;
}

void blk_cluster_cache_free(BlkClusterCache *cache)
{
    if (cache) {
        blk_cluster_cache_clear(cache);
        g_hash_table_unref(cache->clusters);
        g_free(cache);
    }
}

unsigned blk_cluster_cache_room(const BlkClusterCache *cache)
{
    return cache->room;
}

static void cluster_free(BlkClusterCache *cache, BlkCachedCluster *cluster)
{
    blk_buffer_free(cluster->data);
    g_free(cluster);
    cache->count--;
}

/* Nobody finds it any more. */
static void unlist(BlkClusterCache *cache, BlkCachedCluster *cluster)
{
    g_hash_table_remove(cache->clusters, cluster);
    cluster->listed = false;
}

static void drop_cluster(BlkClusterCache *cache, BlkCachedCluster *cluster)
{
    unlist(cache, cluster);
    if (cluster->holders == 0) {
        g_queue_unlink(&cache->lru, &cluster->lru);
        cluster_free(cache, cluster);
    }
}

static void hold(BlkClusterCache *cache, BlkCachedCluster *cluster)
{
    cluster->done = false;
    if (cluster->holders++ == 0) {
        g_queue_unlink(&cache->lru, &cluster->lru);
    }
}

void blk_cluster_cache_put(BlkClusterCache *cache, BlkCachedCluster *cluster, bool done)
{
    g_assert(cluster->holders > 0);
    cluster->done |= done;
    if (--cluster->holders > 0) {
        return;
    }
    if (!cluster->listed) {
        cluster_free(cache, cluster);
    } else if (cluster->done) {
        g_queue_push_head_link(&cache->lru, &cluster->lru);
    } else {
        g_queue_push_tail_link(&cache->lru, &cluster->lru);
    }
}

static BlkCachedCluster *lookup(BlkClusterCache *cache, const BlkChild *child, uint64_t host_offset)
{
    const BlkCachedCluster key = { .child = child, .host_offset = host_offset };

    return g_hash_table_lookup(cache->clusters, &key);
}

static BlkCachedCluster *find(BlkClusterCache *cache, const BlkMapping *map)
{
    BlkCachedCluster *cluster = lookup(cache, map->child, map->host_offset);

    return cluster && cluster->host_bytes == map->host_bytes ? cluster : NULL;
}

bool blk_cluster_cache_has(BlkClusterCache *cache, const BlkMapping *map)
{
    return find(cache, map) != NULL;
}

int blk_cluster_cache_co_find(BlkClusterCache *cache, const BlkMapping *map, BlkCachedCluster **out)
{
    BlkCachedCluster *cluster;
    int ret = 0;

    *out = NULL;
    while (ret == 0 && (cluster = find(cache, map))) {
        bool ahead = cluster->ahead;
        hold(cache, cluster);
        if (cluster->loading) {
            blk_co_queue_wait(&cluster->waiters);
        }
        ret = cluster->ret;
        if (ret == 0) {
            *out = cluster;
            return 0;
        }
        blk_cluster_cache_put(cache, cluster, false);
        ret = ahead ? 0 : ret;
    }
    return ret;
}

static BlkCachedCluster *new_cluster(BlkClusterCache *cache)
{
    uint8_t *data = blk_buffer_try_alloc(NULL, cache->cluster_size);
    BlkCachedCluster *cluster;

    if (!data) {
        return NULL;
    }
    cluster = g_new0(BlkCachedCluster, 1);
    cluster->data = data;
    cluster->lru.data = cluster;
    cache->count++;
    return cluster;
}

/* A cluster that is not listed, held; NULL if there is no room, or no memory. */
static BlkCachedCluster *make_room(BlkClusterCache *cache)
{
    BlkCachedCluster *cluster;

    if (cache->count < cache->room) {
        cluster = new_cluster(cache);
    } else {
        GList *oldest = g_queue_pop_head_link(&cache->lru);

        cluster = oldest ? oldest->data : NULL;
        if (cluster) {
            unlist(cache, cluster);
        }
    }
    if (cluster) {
        cluster->holders = 1;
        cluster->done = false;
    }
    return cluster;
}

int blk_cluster_cache_co_load(BlkClusterCache *cache, const BlkMapping *map, BlkClusterLoad *load, void *opaque,
                              bool ahead, BlkCachedCluster **out)
{
    *out = NULL;
    blk_cluster_cache_drop(cache, map->child, map->host_offset);    /* if there is one, it is of another length */
    BlkCachedCluster *cluster = make_room(cache);
    if (!cluster) {
        return 0;
    }
    cluster->child = map->child;
    cluster->host_offset = map->host_offset;
    cluster->host_bytes = map->host_bytes;
    cluster->ahead = ahead;
    cluster->loading = cluster->listed = true;
    g_hash_table_add(cache->clusters, cluster);
    int ret = load(opaque, cluster->data);
    cluster->ret = ret;
    cluster->loading = false;
    blk_co_queue_wake_all(&cluster->waiters);
    if (ret < 0) {
        if (cluster->listed) {
            unlist(cache, cluster);
        }
        blk_cluster_cache_put(cache, cluster, false);
        return ret;
    }
    *out = cluster;
    return 0;
}

void blk_cluster_cache_drop(BlkClusterCache *cache, const BlkChild *child, uint64_t host_offset)
{
    BlkCachedCluster *cluster = lookup(cache, child, host_offset);

    if (cluster) {
        drop_cluster(cache, cluster);
    }
}

void blk_cluster_cache_clear(BlkClusterCache *cache)
{
    GList *link;

    while ((link = cache->lru.head)) {
        drop_cluster(cache, link->data);
    }
    g_assert(cache->count == 0);
}
