/* SPDX-License-Identifier: MIT */
/*
 * stream_batch.h - the clusters of a source, some at a time, read and compressed: for drivers that write images to a
 * pipe.
 *
 *     source  --co_extent-->  what a cluster is  --co_read-->  data  --codec-->  payload, behind room for a head
 *
 * The clusters of a batch are loaded at once, by as many tasks as the user allows; the driver then writes them in
 * order. One coroutine uses a batch.
 */
#ifndef BLKSTACK_CORE_STREAM_BATCH_H
#define BLKSTACK_CORE_STREAM_BATCH_H

#include "core/codec.h"

enum { BLK_BATCH_CLUSTERS = 32, BLK_BATCH_SECTOR = 512 };

/* A cluster of the disk. */
typedef struct BlkBatchCluster {
    struct BlkBatch *batch;
    uint64_t offset;                /* on the disk */
    BlkExtentKind kind;
    uint8_t *data;                  /* of DATA: the whole cluster, zeroes behind the end of the source */
    uint8_t *payload;
    uint64_t payload_bytes;         /* with its head; 0: the cluster is not compressed */
    uint64_t padded_bytes;          /* the same in whole sectors; those between are zeroes */
} BlkBatchCluster;

typedef struct BlkBatch {
    /* Set by the user, before blk_batch_init(): */
    BlkSource *source;
    const BlkStream *out;
    uint64_t cluster_bytes;
    unsigned limit;                 /* clusters at a time, 1 to BLK_BATCH_CLUSTERS */
    BlkCodec *codec;                /* (nullable): nothing is compressed; not owned */
    uint64_t head_bytes;            /* room before what is compressed */
    uint64_t payload_max;           /* compressed bytes; what takes more is not compressed */
    bool has_backing;               /* zeroes are told from what the source does not hold */
    bool zeroes_are_data;           /* the format cannot say them otherwise */
    GError **error;                 /* gets the first one */
    /* The clusters that were loaded last: */
    BlkBatchCluster clusters[BLK_BATCH_CLUSTERS];
    unsigned count;
    /* Up to here the source has said what it holds: */
    uint64_t extent_end;
    BlkExtentKind extent_kind;
} BlkBatch;

/* Takes memory. Returns: 0; -ENOMEM with an error. blk_batch_clear() in either case. */
int blk_batch_init(BlkBatch *batch);
void blk_batch_clear(BlkBatch *batch);

/* Does such a cluster need no entry in the image's tables? */
static inline bool blk_batch_is_empty(const BlkBatch *batch, BlkExtentKind kind)
{
    return kind == BLK_EXTENT_BACKING || (kind == BLK_EXTENT_ZERO && !batch->has_backing);
}

/**
 * blk_batch_co_load:
 * @offset: (inout): a whole number of clusters; moves behind what was loaded, and over clusters without an entry
 * @end:    as far as this may go, at most the end of the source
 *
 * Fills clusters[0] to clusters[count - 1], in the order of the disk. @count is 0 if nothing is left before @end.
 * Context: coroutine; may yield. Returns: 0; the errors of the source and of the codec.
 */
int blk_batch_co_load(BlkBatch *batch, uint64_t *offset, uint64_t end);

/* The source is gone through once more. */
void blk_batch_rewind(BlkBatch *batch);

#endif
