/* SPDX-License-Identifier: MIT */
/*
 * request.h - the stages of a request, between core's request files.
 *
 *     blk_co_pwritev()        checks, counts in flight              request.c
 *     blk_request_pwritev()   range lock, padding, FUA              rmw.c
 *     blk_submit_pwritev()    memory alignment, splitting           submit.c
 *     driver, engine, or the child of a filter
 *
 * All may yield. What is called below the first stage has been checked and counted, and passes no gate of its own node.
 */
#ifndef BLKSTACK_CORE_REQUEST_H
#define BLKSTACK_CORE_REQUEST_H

#include "core/node.h"

static inline uint64_t blk_align_down(uint64_t n, uint64_t align)
{
    return n & ~(align - 1);
}

static inline uint64_t blk_align_up(uint64_t n, uint64_t align)
{
    return (n + align - 1) & ~(align - 1);      /* lengths stay below INT64_MAX: no overflow */
}

/* A list of vectors that is put together from pieces; small ones need no allocation. */
typedef struct BlkIovList {
    struct iovec local[12];
    struct iovec *vec;
    unsigned count, room;
} BlkIovList;

int blk_iov_list_init(BlkIovList *list, unsigned room);
void blk_iov_list_clear(BlkIovList *list);
void blk_iov_list_add(BlkIovList *list, void *base, size_t bytes);
void blk_iov_list_add_view(BlkIovList *list, BlkIov iov, size_t bytes);
static inline BlkIov blk_iov_list_view(const BlkIovList *list)
{
    return (BlkIov) { .vec = list->vec, .count = list->count };
}

/* submit.c: aligned already */
int blk_submit_preadv(BlkNode *node, uint64_t offset, uint64_t bytes, BlkIov iov, unsigned flags);
int blk_submit_pwritev(BlkNode *node, uint64_t offset, uint64_t bytes, BlkIov iov, unsigned flags);

/* rmw.c */
int blk_request_preadv(BlkNode *node, uint64_t offset, uint64_t bytes, BlkIov iov, unsigned flags);
int blk_request_pwritev(BlkNode *node, uint64_t offset, uint64_t bytes, BlkIov iov, unsigned flags);

/* zeroes.c */
int blk_request_pwrite_zeroes(BlkNode *node, uint64_t offset, uint64_t bytes, unsigned flags);
bool blk_node_discards(const BlkNode *node);    /* else a discard is dropped */
int blk_request_discard(BlkNode *node, uint64_t offset, uint64_t bytes);

/* flush.c: without passing the gate of @node */
int blk_request_flush(BlkNode *node);
/* What @node has written to its children, all but the backing. */
int blk_request_flush_children(BlkNode *node);
/* Ends a write: what the driver was not asked to make stable itself is flushed. @ret: so far. */
int blk_request_finish_write(BlkNode *node, unsigned flags, int ret);
/* @flags without those that core does itself for @node. */
unsigned blk_request_driver_flags(const BlkNode *node, unsigned flags);

/* block_status.c: without passing the gate of @node */
int blk_request_block_status(BlkNode *node, uint64_t offset, uint64_t bytes, BlkStatus *status);
/* Of data with a place: has ZERO too, and ends sooner perhaps, if the place is a hole of the file, or behind its end. May yield. */
void blk_co_status_look_below(BlkStatus *status);

/* request.c */
bool blk_node_may_grow(const BlkNode *node);    /* writes past the end make it longer */
void blk_node_grown(BlkNode *node, uint64_t end);

#endif
