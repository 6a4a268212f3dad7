/* SPDX-License-Identifier: MIT */
/*
 * source.h - nodes as the source of a copy: one or several, the one behind the other, or some layers of one.
 *
 *     [node 0][node 1]...        and of a single node:
 *
 *     node       what it has itself        left out if below_top
 *     backing    what it has
 *     base       what it has               left out if base is given: BLK_EXTENT_BACKING, up to base_end
 */
#ifndef BLKSTACK_JOBS_SOURCE_H
#define BLKSTACK_JOBS_SOURCE_H

#include <blkstack/driver.h>

typedef struct BlkNodesSource {
    BlkSource source;
    GPtrArray *nodes;           /* of BlkNode; the user's, like the array; at least one if there is any length */
    BlkNode *base;              /* (nullable): in the backing chain of the only node */
    uint64_t base_end;          /* bytes: from here on also what only the base has is part of the source */
    bool below_top;             /* leave out what the only node has itself */
    bool ignore_zeroes;         /* what reads as zeroes is data all the same */
    /* Told of every sector that cannot be read; it counts as zeroes then. (nullable): an error is one */
    void (*unreadable)(uint64_t offset, int ret, void *opaque);
    void *opaque;
} BlkNodesSource;

/* Makes @source read the @nodes, without any of the other choices. -EFBIG: together they are too long for a disk. */
int blk_nodes_source_init(BlkNodesSource *source, GPtrArray *nodes, GError **error);

#endif
