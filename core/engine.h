/* SPDX-License-Identifier: MIT */
/*
 * engine.h - the one engine that does guest I/O for all formats whose driver has BlkFormatOps.
 *
 * A format driver answers where a range lies, reserves, publishes and drops mappings; the engine reads and writes, copies
 * on write, compresses, splits and works on several clusters at once. See docs/engine.md.
 */
#ifndef BLKSTACK_CORE_ENGINE_H
#define BLKSTACK_CORE_ENGINE_H

#include <blkstack/driver.h>

#include "core/cluster_cache.h"
#include "core/range_lock.h"

/* A read in flight; lives on the reader's stack. */
typedef struct BlkEngineReader {
    uint64_t epoch;
    struct BlkEngineReader *prev, *next;
} BlkEngineReader;

enum { BLK_ENGINE_STREAMS = 16 };

/* Reads that follow each other without a gap. */
typedef struct BlkReadStream {
    uint64_t start, next;               /* guest range that has been read; the next read is expected at next */
    uint64_t ahead;                     /* what lies before it has been asked for */
    uint64_t used;                      /* number of the last read; 0: none */
    bool continued;                     /* by a second read */
} BlkReadStream;

typedef struct BlkEnginePayload BlkEnginePayload;

/* The last block of the file that payloads were written to; see core/engine_gather.c. */
typedef struct BlkOpenBlock {
    BlkNode *child;
    uint64_t offset, size, filled;      /* of the block; filled: bytes of it that are known; 0: none is open */
    uint8_t *data;
} BlkOpenBlock;

typedef struct BlkEngine {
    BlkRangeLock clusters;              /* guest ranges: shared = writes in place, exclusive = mapping changes */
    BlkEngineReader *first, *last;      /* in order of epoch */
    uint64_t epoch;
    unsigned compressing;               /* clusters */
    BlkCoQueue compress_turn;           /* wait until there are fewer */
    BlkEnginePayload *pending;          /* payloads that wait to be written, by place */
    unsigned n_pending, gather_writes;
    uint64_t payloads;                  /* that ever were pending */
    bool gathering;                     /* more payloads come in the turns that follow */
    BlkOpenBlock open_block;
    BlkCoQueue gather_turn;
    GPtrArray *buffers;                 /* free buffers of one cluster, for payloads and bounces */
    uint64_t cache_bytes;
    BlkClusterCache *cache;             /* NULL until it is needed */
    BlkReadStream streams[BLK_ENGINE_STREAMS];
    uint64_t reads;
    unsigned ahead_tasks;
} BlkEngine;

/* For a node whose driver has BlkFormatOps, before its co_open. */
BlkEngine *blk_engine_new(void);
void blk_engine_free(BlkEngine *engine);

/* What core/request.c calls for such a node. All may yield. Ranges are within the node. */
int blk_engine_co_preadv(BlkNode *node, BlkRequest *req);
/* With BLK_REQ_COMPRESSED the range must be whole clusters (or end at the end of the node): else -EINVAL. */
int blk_engine_co_pwritev(BlkNode *node, BlkRequest *req);
int blk_engine_co_pwrite_zeroes(BlkNode *node, BlkRequest *req);
int blk_engine_co_discard(BlkNode *node, BlkRequest *req);
int blk_engine_co_flush(BlkNode *node);
int blk_engine_co_block_status(BlkNode *node, uint64_t offset, uint64_t bytes, BlkStatus *status);

/* ---- shared by the engine's own files ---- */

/* A buffer of cluster_size bytes, aligned for direct I/O; NULL when memory is short. */
void *blk_engine_buffer_get(BlkNode *node);
void blk_engine_buffer_put(BlkNode *node, void *buffer);

/* Between them the reader may use host offsets that the driver gives it. */
void blk_engine_reader_begin(BlkNode *node, BlkEngineReader *reader);
void blk_engine_reader_end(BlkNode *node, BlkEngineReader *reader);

/* NULL: it is not to be used now. */
BlkClusterCache *blk_engine_cluster_cache(BlkNode *node);
/* The node is drained: what its driver does to the image now, the cache does not hear of. */
void blk_engine_drained(BlkNode *node);
/* All new mappings of guest writes pass here. */
void blk_engine_publish(BlkNode *node, BlkReservation *res);

/* Notes a guest read. If it goes on where another ended, the clusters behind it may be loaded in the background.
 * Returns: whether it does. */
bool blk_engine_read_ahead(BlkNode *node, uint64_t offset, uint64_t bytes);
/* Loads the clusters of a guest range that are compressed into the cache. Nobody hears of errors. */
void blk_engine_co_load_ahead(BlkNode *node, uint64_t offset, uint64_t bytes);

/* Payloads that lie one behind the other in a file. */
typedef struct BlkPayloadSpan BlkPayloadSpan;

/* @offset, @end: from the first byte of the first to the last of the last. It lasts until all @holders, who are readers of
 * the node, have put it. NULL when memory is short. */
BlkPayloadSpan *blk_payload_span_try_new(BlkNode *file, uint64_t offset, uint64_t end, unsigned holders);
void blk_payload_span_put(BlkPayloadSpan *span);        /* NULL is ignored */

/**
 * blk_engine_co_decode:
 * @map: of kind COMPRESSED
 * @span: (nullable): one that has its payload; else that is read by itself
 * @out: (out) cluster_size bytes; unspecified after an error
 *
 * Context: coroutine that is a reader of the node; may yield.
 * Returns: 0; -EIO if it lies behind the end of the file, or does not decode; -ENOMEM; what reading the file returns.
 */
int blk_engine_co_decode(BlkNode *node, const BlkMapping *map, BlkPayloadSpan *span, void *out);

int blk_engine_co_write_compressed(BlkNode *node, BlkRequest *req);

/* Writes a payload to reserved space, in one write with its neighbours if these come soon. May yield. */
int blk_engine_co_write_gathered(BlkNode *node, BlkNode *child, uint64_t offset, uint64_t bytes, void *data);
/* Something else may write where payloads are. */
void blk_engine_close_block(BlkEngine *engine);
/* To be called when fewer clusters are being compressed than before. Does not yield. */
void blk_engine_gather_kick(BlkNode *node);

enum {
    BLK_SHRINK_DRY = 1 << 0,            /* only say what it would take */
    BLK_SHRINK_ALWAYS = 1 << 1,         /* also if it takes as much as before */
};

/**
 * blk_engine_co_shrink_cluster:
 * @offset: of a guest cluster, in bytes
 * @space: what its data takes in the file now, in bytes
 * @after: (out): what it takes afterwards
 *
 * Stores the cluster compressed, or as zeroes, if it takes less space so. Its data must be here, not in the backing. May
 * yield. Returns: 0; a payload that does not decode is an error, and stays.
 */
int blk_engine_co_shrink_cluster(BlkNode *node, uint64_t offset, uint64_t space, unsigned flags, uint64_t *after);

/* The caller of these holds the exclusive lock on the clusters that the range is in. */

/* Makes whole subclusters read as zeroes (@kind ZERO) or as discarded (UNALLOCATED); @flags: UNMAP, HIDE. -ENOTSUP: the format cannot, or not
 * part of a compressed cluster. */
int blk_engine_co_drop_locked(BlkNode *node, uint64_t offset, uint64_t bytes, BlkMapKind kind, unsigned flags);
/* Writes plainly: where the data is, if it may be overwritten there, else elsewhere. */
int blk_engine_co_write_plain_locked(BlkNode *node, uint64_t offset, uint64_t bytes, BlkIov iov);

/* Reads guest data, as blk_engine_co_preadv(), but what lies past the end of the node reads as zeroes. */
int blk_engine_co_read_padded(BlkNode *node, uint64_t offset, uint64_t bytes, void *buf);

#endif
