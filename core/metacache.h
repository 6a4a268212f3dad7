/* SPDX-License-Identifier: MIT */
/*
 * metacache.h - cache of an image file's tables, with ordered group commit.
 *
 * The file is seen as blocks of one size. A block that was changed has a rank, and that is all that a format says about
 * ordering: a commit writes the changed blocks rank by rank, with a barrier (a flush of the file, and of the data file) before each rank but the
 * first, and one at the end.
 *
 *     rank      holds                          so on disk
 *     COUNTS    reference counts (raised)      a count is there before anything refers to what it counts
 *     COUNT_TABLE  where the counts lie        a block of counts is there before the table refers to it
 *     MAP       guest mappings                 payloads, new tables and counts are there before a mapping refers to them
 *
 * What a commit makes unreferenced may be given back (counts lowered, space reused) only when it is through: the hooks
 * tell the format when a commit froze its blocks and when they are stable.
 */
#ifndef BLKSTACK_CORE_METACACHE_H
#define BLKSTACK_CORE_METACACHE_H

#include <blkstack/driver.h>

typedef enum BlkMetaRank {
    BLK_META_COUNTS,
    BLK_META_COUNT_TABLE,
    BLK_META_MAP,
    BLK_META_RANKS,
    BLK_META_CLEAN = BLK_META_RANKS,
} BlkMetaRank;

typedef struct BlkMetaBlock {
    uint64_t offset;                    /* in the image file; its address, if the hooks have file() */
    uint8_t *data;                      /* block_size bytes; valid while the block is held */
    /* the cache's own */
    unsigned refs;
    BlkMetaRank rank;
    bool loading, in_commit;
    uint64_t used;                      /* the turn of cleaning in which it was used last */
    BlkCoQueue loaders;
    GList lru;
} BlkMetaBlock;

typedef struct BlkMetaHooks {
    /* (nullable): A commit takes the changes made so far: remember what they have dropped. Does not yield. */
    void (*freeze)(void *opaque);
    /* (nullable): They are stable (@ok), or will be tried again by the next commit. Does not yield. */
    void (*done)(bool ok, void *opaque);
    void *opaque;
    BlkEvent events[BLK_META_RANKS];    /* told to fault filters before a rank is written */
    /* (nullable): for an image of several files, whose blocks have addresses that the format chooses: the file that the
     * block at @address is part of; *offset: (out): where. Blocks that follow each other are of one file. Does not yield. */
    BlkNode *(*file)(void *opaque, uint64_t address, uint64_t *offset);
    /* (nullable): for a format with a log: makes stable there, by a flush of its own, what the next write changes: @count
     * blocks of one rank, at most @log_blocks; @copies: block_size bytes of each. What was handed over before is stable in
     * its place. May yield. Returns: 0; negative errno: the commit fails. */
    int (*co_log)(BlkMetaBlock *const *blocks, const uint8_t *copies, unsigned count, void *opaque);
    unsigned log_blocks;
} BlkMetaHooks;

typedef struct BlkMetaCache BlkMetaCache;

/**
 * blk_meta_new:
 * @node: the image; its child "file" is read and written
 * @block_size: bytes, a power of two
 * @max_blocks: kept in memory, at least 16; exceeded only while more blocks are held or changed
 */
BlkMetaCache *blk_meta_new(BlkNode *node, size_t block_size, size_t max_blocks, const BlkMetaHooks *hooks);
/* Another bound, as above; what is too much goes as others are needed. */
void blk_meta_set_max_blocks(BlkMetaCache *cache, size_t max_blocks);
/* Blocks that nobody has used for that time go, at the latest when it is over for the second time; 0: they stay. Those that are
 * changed stay until a commit has written them. Does not yield. */
void blk_meta_set_clean_interval(BlkMetaCache *cache, uint64_t ns);
void blk_meta_free(BlkMetaCache *cache);        /* changes are lost: commit first; NULL is ignored */

/**
 * blk_meta_co_get:
 * @offset: of any byte of the block
 *
 * Holds the block, reading it if needed; to be given back with blk_meta_put(). Beyond the end of the file it is zeroes.
 * Context: coroutine; may yield. Returns: 0, -EIO and others from below, -ENOMEM; *block is NULL then.
 */
int blk_meta_co_get(BlkMetaCache *cache, uint64_t offset, BlkMetaBlock **block);
/* The same; @event is told to fault filters before the block is read. */
int blk_meta_co_get_for(BlkMetaCache *cache, uint64_t offset, BlkEvent event, BlkMetaBlock **block);
void blk_meta_put(BlkMetaCache *cache, BlkMetaBlock *block);    /* NULL is ignored */

/* Says that a held block was changed. Several ranks are not mixed in one block. */
void blk_meta_dirty(BlkMetaCache *cache, BlkMetaBlock *block, BlkMetaRank rank);

/* Forgets blocks of a range that is no table any more, or was rewritten past the cache; changes in them are lost. None may
 * be held. May yield, until a running commit is through. */
void blk_meta_co_forget(BlkMetaCache *cache, uint64_t offset, uint64_t bytes);

/* So much is changed that whoever changes more should commit first. */
bool blk_meta_wants_commit(const BlkMetaCache *cache);
bool blk_meta_is_dirty(const BlkMetaCache *cache);

/**
 * blk_meta_co_commit:
 *
 * Makes stable all changes that were made before the call, and all data that was written to the file before it. Callers
 * that come while a commit runs share the next one.
 * Context: coroutine; may yield. Returns: 0; negative errno: nothing is lost, the next commit tries again.
 */
int blk_meta_co_commit(BlkMetaCache *cache);

/* The same of the ranks from @lowest on only; changes of lower ranks stay in memory until a commit takes them too. For a
 * format that has said in the file, and made stable, that what is in the lower ranks cannot be trusted. */
int blk_meta_co_commit_from(BlkMetaCache *cache, BlkMetaRank lowest);

#endif
