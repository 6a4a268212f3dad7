/* SPDX-License-Identifier: MIT */
/*
 * partition.h - where a partition of a disk lies, for who exports that alone.
 */
#ifndef BLKSTACK_EXPORTS_PARTITION_H
#define BLKSTACK_EXPORTS_PARTITION_H

#include <blkstack/blkstack.h>

#define BLK_MAX_PARTITIONS 128

/* Bytes: multiples of 512, inside the disk. */
typedef struct BlkPartition {
    uint64_t offset, bytes;
} BlkPartition;

/**
 * blk_co_find_partition:
 * @number:    1..BLK_MAX_PARTITIONS: in a GPT, the place in it; in an MBR, 1 to 4 are the primary partitions, and the
 *             logical ones follow from 5 on
 * @partition: (out): unchanged after an error
 *
 * Only reads. Context: coroutine; may yield.
 * Returns: 0; -EINVAL: there is no partition table, or it is damaged; -ENOENT: no such partition in it; -ERANGE: the
 * partition reaches beyond the end of the disk; errors of reads.
 */
int blk_co_find_partition(BlkNode *node, unsigned number, BlkPartition *partition, GError **error);

#endif
