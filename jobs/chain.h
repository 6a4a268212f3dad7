/* SPDX-License-Identifier: MIT */
/*
 * chain.h - what jobs on backing chains have in common: finding images, making them writable, and the change of what an
 * image names as its backing file. See docs/chain-jobs.md.
 *
 * A *place* in a chain is the node to which the edge from above leads, which may be a filter; an *image* is a node without
 * the filters above it.
 */
#ifndef BLKSTACK_JOBS_CHAIN_H
#define BLKSTACK_JOBS_CHAIN_H

#include <blkstack/driver.h>

/* (transfer none) (nullable): the place below @node's image. */
BlkNode *blk_chain_below(BlkNode *node);

/* Is @node, or the image that it stands for, in the chain that begins with @top (and @top itself)? */
bool blk_chain_has(BlkNode *top, BlkNode *node);

/* The place in the chain of @top, @top included, whose image is called @name: as the image above names it, with or without its
 * directory, or as the open node is called. (transfer none) (nullable). May yield. */
BlkNode *blk_co_chain_find(BlkNode *top, const char *name);

/* The images whose backing is @image, through filters: (transfer full): array of references, which go with it; that may yield. */
GPtrArray *blk_chain_overlays(BlkNode *image);

/* A node that was made writable, or read-only, for a job. */
typedef struct BlkChainChange {
    BlkNode *node;              /* a reference */
    bool was_read_only;
} BlkChainChange;
GArray *blk_chain_changes_new(void);    /* (transfer full): of BlkChainChange */

/**
 * blk_co_chain_make:
 * @place: nodes down to its image
 * @writable: what they are to be, or read-only
 * @changed: those that were not are appended; blk_co_chain_make_as_before() undoes it
 *
 * Context: coroutine; may yield. Returns: 0; the errors of blk_co_reopen_writable(), and those that were changed stay so.
 */
int blk_co_chain_make(BlkNode *place, bool writable, GArray *changed, GError **error);
/* Gives the references back, too, and leaves @changed empty. What cannot be as it was stays as it is; but @failed: the job has, so
 * what a node still holds of it and cannot write is dropped, as a crash would, so that it can be read-only again. */
void blk_co_chain_make_as_before(GArray *changed, bool failed);

/* How the header of an image is to name its new backing file. */
typedef struct BlkChainName {
    const char *filename;       /* (nullable): NULL: as it is found best from where the overlay lies */
    bool mask_protocol;         /* the format of a backing without one is "raw", not the protocol's name */
} BlkChainName;

/* Can the header of @overlay name another backing file? 0; -ENOTSUP. */
int blk_chain_check_header(BlkNode *overlay, GError **error);

/**
 * blk_co_chain_set_backing:
 * @overlay: an image
 * @backing: (nullable): a place; NULL: none
 *
 * Lets the header of @overlay name the image of @backing, in one crash-safe write, and then lets the open node use it. Both
 * read the same. A read-only overlay is made writable for that. Context: coroutine; may yield.
 * Returns: 0; an error, after which the header may name it already, and the open graph does not follow.
 */
int blk_co_chain_set_backing(BlkNode *overlay, BlkNode *backing, const BlkChainName *as, GError **error);

#endif
