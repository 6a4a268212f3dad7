/* SPDX-License-Identifier: MIT */
/*
 * block_table.h - what formats share that map a disk by one table in the file: an entry for each block of the disk, which
 * says where in the file the block lies. VDI and dynamic VHD are such formats.
 *
 *     disk:   | block 0 | block 1 | block 2 | ...
 *     table:  [ entry ][ entry ][ entry ]...          in the file: | block 2 | block 0 | ...
 *
 * The driver says what an entry means and where a new block goes; here is the rest of its BlkFormatOps. A block is there or
 * reads as zeroes, belongs to nobody else and stays where it is. A new one is made of zeroes before the guest's data go
 * there, and the table follows when both are stable (core/metacache.h).
 *
 * A driver that uses it has a BlockTable as the first member of its state.
 *
 * Limitations: no backing files; space of a block that is there is not given up, but zeroes may be punched into the file.
 */
#ifndef BLKSTACK_DRIVERS_BLOCK_TABLE_H
#define BLKSTACK_DRIVERS_BLOCK_TABLE_H

#include <blkstack/driver.h>

#include "core/metacache.h"

typedef struct BlockTableOps {
    /* (nullable): Where in the table the entry of a block is. Without it at its own number. */
    uint64_t (*entry_index)(BlkNode *node, uint64_t block);
    /* What the entry says: *place is where the block's data lie in the file, or 0: they are zeroes. -EIO if it cannot be. */
    int (*decode)(BlkNode *node, const uint8_t *entry, uint64_t *place);
    /* Makes it say that the data lie at @place. */
    void (*encode)(BlkNode *node, uint8_t *entry, uint64_t place);
    /* Finds space for @block, which reads as zeroes, and writes what must be there beside the data. Who takes free space does
     * it before it yields, and gives it back if it fails. */
    int (*co_alloc)(BlkNode *node, uint64_t block, uint64_t *place);
    /* (nullable): May data be written over those of @block without more ado? Does not yield. */
    bool (*is_ready)(BlkNode *node, uint64_t block);
    /* Sees to it that they may. */
    int (*co_make_ready)(BlkNode *node, uint64_t block, uint64_t place);
    /* The node is to be written to: finds what is used and what is free. What it found before does not count. */
    int (*co_find_space)(BlkNode *node, GError **error);
    /* (nullable): All is committed, and nobody will write: says so in the file. */
    int (*co_end_writing)(BlkNode *node);
} BlockTableOps;

typedef struct BlockTable {
    const BlockTableOps *ops;
    BlkMetaCache *meta;
    GArray *free;               /* of uint64_t: places that nobody uses */
    uint64_t offset;            /* of the table in the file, bytes */
    uint64_t blocks;            /* of the disk */
    uint64_t block_size;        /* bytes, a power of two */
    unsigned entry_bytes;       /* divides the cache's blocks */
    bool may_have_holes;        /* blocks are large, or there from the beginning: much of them may be holes of the file */
    bool writable;              /* guest writes are allowed */
    BlkCoMutex alloc_lock;      /* held while ops->co_alloc and ops->co_make_ready run */
} BlockTable;

/* Blocks of the disk are refused beyond this, and a table is always smaller than 4 GiB. */
#define BLOCK_TABLE_MAX_BLOCKS (UINT64_C(1) << 29)

/* All but @meta, @free and @writable are set. The cache sees the file in blocks of @meta_bytes, of which @offset is a multiple. */
void block_table_open(BlkNode *node, size_t meta_bytes, const BlkMetaHooks *hooks);
/* Changes are lost: commit first. */
void block_table_close(BlkNode *node);
void block_table_refresh_limits(BlkNode *node);

/* For BlkFormatOps. */
int block_table_co_map(BlkNode *node, uint64_t offset, uint64_t bytes, BlkMapping *map);
int block_table_co_reserve(BlkNode *node, BlkReservation *res);
void block_table_publish(BlkNode *node, BlkReservation *res);
void block_table_cancel(BlkNode *node, BlkReservation *res);
int block_table_co_commit(BlkNode *node);

/* For BlkDriver: between read-only and not; and writes out what is kept when the node is closed. */
int block_table_co_reopen_prepare(BlkNode *node, const BlkReopen *to, GError **error);
void block_table_co_reopen_commit(BlkNode *node);
int block_table_co_end_writing(BlkNode *node);

/* For BlockTableOps.co_alloc. Do not yield. false: no place is free. */
bool block_table_take_free(BlkNode *node, uint64_t *place);
void block_table_give_back(BlkNode *node, uint64_t place);

/* Space of the file from @place on reads as zeroes, and the file reaches to its end. May yield. */
int block_table_co_clear(BlkNode *file, uint64_t place, uint64_t bytes);

/* A block that has a place, or whose entry cannot be (then @ret is -EIO). */
typedef void BlockTableFn(BlkNode *node, uint64_t block, const uint8_t *entry, uint64_t place, int ret, void *opaque);
/* Reads all of the table past the cache, which has no changes. May yield. Returns: 0, -ENOMEM, others from below. */
int block_table_co_walk(BlkNode *node, BlockTableFn *fn, void *opaque);

typedef struct BlockPlace {
    uint64_t place, block;
} BlockPlace;

/* Where all blocks lie. */
typedef struct BlockPlaces {
    BlockPlace *at;             /* by place */
    uint64_t n, room;
    uint64_t bad, first_bad;    /* entries that cannot be, and the block of the first */
    uint64_t overlaps;          /* blocks that lie, in part, where another one does, */
    BlockPlace overlap[2];      /* ... the first two */
    int ret;
} BlockPlaces;

/**
 * block_table_co_places:
 * @stride: bytes from a block's place that are its own
 *
 * Context: as block_table_co_walk(), also its result. The caller frees places->at.
 */
int block_table_co_places(BlkNode *node, uint64_t stride, BlockPlaces *places);
/* The same for who wants to write: -EIO with @error set if the table is damaged. */
int block_table_co_sound_places(BlkNode *node, uint64_t stride, BlockPlaces *places, GError **error);

#endif
