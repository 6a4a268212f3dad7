/* SPDX-License-Identifier: MIT */
/*
 * node.h - what core knows about a node beyond the driver API, and the calls between core's graph and request files.
 *
 *     user edge (BlkChild, parent NULL)
 *        |
 *     node  --- children: edges to the nodes below, by link_parent in core->children
 *        |
 *     each edge stands in core->parents of its node, by link_node
 */
#ifndef BLKSTACK_CORE_NODE_H
#define BLKSTACK_CORE_NODE_H

#include <blkstack/driver.h>

#include "core/context.h"
#include "core/engine.h"
#include "core/range_lock.h"

#define BLK_MAX_CHAIN 200       /* backing steps below the first node */

struct BlkGraph {
    BlkContext *ctx;
    GPtrArray *drivers;         /* const BlkDriver * */
    GHashTable *nodes;          /* name -> BlkNode *, also those that are being opened */
    GPtrArray *drains;          /* BlkDrain *: the drained sections that are open */
    unsigned next_name;
};

/* A request that waits at the gate of a drained node; the graph may change meanwhile and send it elsewhere. */
typedef struct BlkGateWaiter {
    BlkNode *node;
    BlkCo *co;
    struct BlkGateWaiter *next;
} BlkGateWaiter;

struct BlkNodeCore {
    char *name;
    char *filename;             /* (nullable): made when first asked for */
    JsonObject *options;        /* as given, children replaced by what they were opened from */
    unsigned refs;
    bool open;                  /* co_open has succeeded */
    bool caps_follow;           /* a filter whose capabilities are those of its child */
    bool below_format;          /* a file name without a driver means a protocol here */
    bool guard_head;            /* detected for want of anything better: must not become another format */
    bool guard_told;            /* the user knows why a write was refused */
    unsigned chain;             /* backing steps from the first node, while opening */
    unsigned below;             /* backing steps below this node */
    BlkNode *opener;            /* the node that opens this one, while opening */
    BlkOpenFlags flags;
    GQueue parents, children;
    unsigned perm, shared;      /* what all parents together do, and let others do */

    unsigned in_flight, drained;
    BlkGateWaiter *gate_first, *gate_last;
    BlkCoQueue idle;            /* wait for in_flight to become 0 */
    BlkRangeLock locks;         /* writes, zeroes and discards; see request.c */
    uint64_t write_gen, flushed_gen;
    bool flushing;
    BlkCoQueue flush_waiters;

    BlkEngine *engine;          /* formats with a BlkFormatOps */
    GPtrArray *bitmaps;         /* of BlkDirtyBitmap; NULL: none, so that nothing need be asked */
};

/* ---- registry.c, graph.c ---- */
/* The format that an image which begins with @head most likely is; @score: (out). Skips drivers without a probe. */
const BlkDriver *blk_driver_probe(BlkContext *ctx, const uint8_t *head, size_t bytes, const char *filename, int *score);

/* ---- node.c ---- */
BlkNode *blk_node_new(BlkContext *ctx, const BlkDriver *driver, const char *name, GError **error);
void blk_node_free(BlkNode *node);              /* no children, no parents */
void blk_co_node_close(BlkNode *node);          /* also one whose co_open failed; no parents */
BlkChild *blk_edge_new(BlkNode *parent, BlkNode *node, const char *name, BlkRole role);     /* takes a reference */
void blk_co_edge_free(BlkChild *edge);          /* and gives it back; permissions below are refreshed */
void blk_edge_move(BlkChild *edge, BlkNode *node);    /* references go with it */
bool blk_node_reaches(const BlkNode *from, const BlkNode *node);    /* through any children; true if the same */
BlkNode *blk_node_filtered(const BlkNode *node);      /* (nullable): the child that a filter stands for */

/* ---- permission.c ---- */
/* Computes the permissions of @node, @other (nullable) and all below them from the edges above. On failure everything
 * is as it was. */
int blk_perm_refresh(BlkNode *node, BlkNode *other, GError **error);
/* What the first permission in @perm is called. */
const char *blk_perm_name(unsigned perm);

/* ---- limits.c ---- */
void blk_limits_refresh(BlkNode *node);
/* Limits, capabilities and lengths of all nodes above @node, and whether its parents can still live with it. */
int blk_node_refresh_above(BlkNode *node, GError **error);
void blk_node_length_changed(BlkNode *node);    /* filters above follow */

/* ---- snapshot.c ---- */
/* (out) *array: (transfer full): the snapshots as info tells of them; NULL if there are none. */
int blk_co_snapshot_describe(BlkNode *node, JsonArray **array, GError **error);

/* ---- drain.c ---- */
/* Counts a request in at *@node; while that is drained it waits, and may come out at another node. */
void blk_co_request_begin(BlkNode **node);
void blk_request_join(BlkNode *node);           /* one more, on behalf of one that is in flight */
void blk_request_end(BlkNode *node);
void blk_gate_redirect(BlkNode *from, BlkNode *to);     /* the requests that wait at @from go to @to */
/* blk_co_drain_begin() for an operation that changes the image as a whole, and cannot be done without what nodes above
 * hold. The section has begun also after an error. */
int blk_co_image_drain(BlkNode *node, GError **error);
void blk_node_hurry(BlkNode *node);             /* see BlkDriver.hurry; of @node and all below */
void blk_drain_forget(BlkNode *node);           /* @node is closed: no drained section holds it any more */

/* What its driver does not do itself, the child does. */
static inline bool blk_driver_passes(const BlkNode *node)
{
    return node->driver->kind == BLK_FILTER;
}

#endif
