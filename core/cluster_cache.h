/* SPDX-License-Identifier: MIT */
/*
 * cluster_cache.h - decompressed clusters of one format node, found by the place of their payload.
 *
 * It says what a payload decodes to, never where guest data lies: a reader asks the driver for the mapping each time. So a
 * change of mapping needs nothing here. What the cache must hear of is a new payload at a place: see docs/engine.md.
 */
#ifndef BLKSTACK_CORE_CLUSTER_CACHE_H
#define BLKSTACK_CORE_CLUSTER_CACHE_H

#include <blkstack/driver.h>

typedef struct BlkClusterCache BlkClusterCache;

/* A cluster that somebody holds. */
typedef struct BlkCachedCluster {
    const BlkChild *child;              /* with host_offset: the key */
    uint64_t host_offset, host_bytes;   /* of the payload, as in BlkMapping */
    uint8_t *data;                      /* cluster_size bytes; constant while it is held */

    /* core/cluster_cache.c's own */
    unsigned holders;
    bool loading, ahead, listed, done;
    int ret;                            /* of loading it */
    BlkCoQueue waiters;
    GList lru;
} BlkCachedCluster;

/* Decodes the payload to @out, cluster_size bytes. */
typedef int BlkClusterLoad(void *opaque, uint8_t *out);

/* Room for @bytes of clusters, at least for one. Memory is taken when it is needed. */
BlkClusterCache *blk_cluster_cache_new(uint64_t bytes, uint32_t cluster_size);
void blk_cluster_cache_free(BlkClusterCache *cache);    /* nothing is held; NULL is ignored */

unsigned blk_cluster_cache_room(const BlkClusterCache *cache);      /* clusters */

/* Is it there, or being loaded? */
bool blk_cluster_cache_has(BlkClusterCache *cache, const BlkMapping *map);

/**
 * blk_cluster_cache_co_find:
 * @map: of kind COMPRESSED
 * @cluster: (out) (nullable): held; NULL if it is not there
 *
 * Waits for a cluster that somebody is loading. Takes no memory.
 * Returns: 0; the error of a reader that was loading it, not of one that was reading ahead.
 */
int blk_cluster_cache_co_find(BlkClusterCache *cache, const BlkMapping *map, BlkCachedCluster **cluster);

/**
 * blk_cluster_cache_co_load:
 * @map: of a cluster that was not found, without a yield in between
 * @ahead: nobody has asked for it yet
 * @cluster: (out) (nullable): held; NULL without an error: it was not loaded, since all that there is room for are held, or
 *     memory is short
 *
 * Loads the cluster, in the place of the one whose last use is longest ago. After an error nothing is kept.
 * Returns: 0; what @load returned.
 */
int blk_cluster_cache_co_load(BlkClusterCache *cache, const BlkMapping *map, BlkClusterLoad *load, void *opaque,
                              bool ahead, BlkCachedCluster **cluster);

/* Ends the hold. @done: nobody is expected to need it again: it goes before all others. */
void blk_cluster_cache_put(BlkClusterCache *cache, BlkCachedCluster *cluster, bool done);

/* There is another payload at that place from now on. Who holds the old cluster keeps it. */
void blk_cluster_cache_drop(BlkClusterCache *cache, const BlkChild *child, uint64_t host_offset);

/* Drops all clusters, and gives the memory back. Nothing is held. */
void blk_cluster_cache_clear(BlkClusterCache *cache);

#endif
