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
    GQueue newest;              /* the same nodes, the last one first */
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
    char *image_backing;        /* (nullable): the backing file that the image names, as blk_node_filename() would */
    JsonObject *options;        /* as given, children replaced by what they were opened from */
    unsigned refs;
    bool open;                  /* co_open has succeeded, or it is inactive */
    const BlkDriver *inactive;  /* (nullable): what its driver is when it becomes active again */
    bool caps_follow;           /* a filter whose capabilities are those of its child */
    bool below_format;          /* a file name without a driver means a protocol here */
    bool guard_head;            /* detected for want of anything better: must not become another format */
    bool guard_told;            /* the user knows why a write was refused */
    unsigned chain;             /* backing steps from the first node, while opening */
    unsigned below;             /* backing steps below this node */
    GList link_graph;           /* in newest */
    BlkNode *opener;            /* (nullable): the node whose options or image named this one; NULL when that is closed */
    BlkOpenFlags flags;
    GQueue parents, children;
    unsigned perm, shared;      /* what all parents together do, and let others do */

    unsigned in_flight, drained;
    unsigned hurried;           /* see blk_node_hurry_begin() */
    BlkGateWaiter *gate_first, *gate_last;
    BlkCoQueue idle;            /* wait for in_flight to become 0 */
    BlkRangeLock locks;         /* writes, zeroes and discards; see request.c */
    uint64_t write_gen, flushed_gen;
    BlkStats stats;
    uint64_t write_threshold;   /* 0: none */
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
/* Nobody has a reference any more, and it is being flushed and closed: it must not be given one again. */
static inline bool blk_node_is_closing(const BlkNode *node)
{
    return node->core->refs == 0;
}
BlkChild *blk_edge_new(BlkNode *parent, BlkNode *node, const char *name, BlkRole role);     /* takes a reference */
void blk_co_edge_free(BlkChild *edge);          /* and gives it back; permissions below are refreshed */
BlkChild *blk_edge_new_loose(BlkNode *parent, const char *name, BlkRole role);      /* leads nowhere yet */
void blk_edge_free_loose(BlkChild *edge);
/* @edge leads to @node (NULL: nowhere, and the parent does not see it) from now on; references go with it. */
void blk_edge_point(BlkChild *edge, BlkNode *node);
bool blk_node_reaches(const BlkNode *from, const BlkNode *node);    /* through any children; true if the same */
/* Is what the child stores a part of what its parent stores? */
static inline bool blk_edge_stores(const BlkChild *edge)
{
    return edge->role != BLK_ROLE_COW && edge->role != BLK_ROLE_COPY;
}
BlkChild *blk_node_child_edge(const BlkNode *node, const char *name);       /* (nullable) */
/* The open backing, or what the image says of it, has changed: whether @node's file name must say what is open. */
void blk_node_name_backing(BlkNode *node);
BlkNode *blk_node_filtered(const BlkNode *node);      /* (nullable): the child that a filter stands for */

/* ---- open.c ---- */
/* What the driver makes of @tree; NULL with @error set. */
BlkOptions *blk_driver_parse_options(const BlkDriver *driver, JsonObject *tree, GError **error);
/* The flags of a node with the options @tree; @above: (nullable): those of the node that opened it, in @role. */
int blk_open_flags_parse(JsonObject *tree, const BlkOpenFlags *above, BlkRole role, BlkOpenFlags *flags, GError **error);
/* The options of children that the driver has. */
const BlkOption *blk_driver_child_options(const BlkDriver *driver);
/* Opens a filter of a driver that need not be registered above @node, for blk_co_insert_above(); it is read-only if @node is.
 * @node_name: (nullable). Returns: (transfer full): NULL with @error set. May yield. */
BlkNode *blk_co_open_filter(BlkNode *node, const BlkDriver *driver, const char *node_name, GError **error);

/* Opens it by its driver, as one whose edges may be there already. On failure its driver is still to be closed. May yield. */
int blk_co_open_driver(BlkNode *node, const BlkOptions *options, GError **error);

/* ---- inactive.c ---- */
/* It has nothing open; children that it has ask for nothing any more. */
void blk_node_make_inactive(BlkNode *node);
/* Drops what @node holds and could not store, as a crash would: its image is read anew, read-only. For changes that nobody relies on.
 * Context: coroutine; may yield. Returns: 0; an error with all as it was: -EBUSY: somebody writes to it, or has bitmaps that would be
 * lost; or one of reading the image, and the node is inactive. */
int blk_co_drop_changes(BlkNode *node, GError **error);
/* Its driver, also while it is inactive. */
static inline const BlkDriver *blk_node_own_driver(const BlkNode *node)
{
    return node->core->inactive ? node->core->inactive : node->driver;
}

/* ---- stats.c ---- */
static inline void blk_stats_count(BlkNode *node, BlkStatsKind kind, uint64_t bytes, int ret)
{
    BlkStats *stats = &node->core->stats;

    if (ret < 0) {
        stats->of[kind].failed++;
    } else {
        stats->of[kind].operations++;
        stats->of[kind].bytes += bytes;
    }
}
void blk_stats_pass_threshold(BlkNode *node, uint64_t end);
/* A write up to @end is about to happen. */
static inline void blk_stats_write_begins(BlkNode *node, uint64_t end)
{
    node->core->stats.write_end = MAX(node->core->stats.write_end, end);
    if (node->core->write_threshold > 0 && end > node->core->write_threshold) {
        blk_stats_pass_threshold(node, end);
    }
}

/* ---- permission.c ---- */
/* Computes the permissions of @nodes and all below them from the edges above. On failure everything is as it was. */
int blk_perm_refresh(BlkNode *const *nodes, unsigned n_nodes, GError **error);
/* What the first permission in @perm is called. */
const char *blk_perm_name(unsigned perm);

/* ---- limits.c ---- */
void blk_limits_refresh(BlkNode *node);
/* -ELOOP: so many backing steps below a node are too many. */
int blk_node_check_depth(unsigned below, GError **error);
/* May @child become a child of @node, or stay one? */
int blk_node_check_child(BlkNode *node, BlkNode *child, GError **error);
/* Limits, capabilities, lengths and depths of @nodes and all above, and whether parents can still live with their children.
 * What an error leaves unfinished is done again when the graph is as it was. */
int blk_node_refresh_above(BlkNode *const *nodes, unsigned n_nodes, GError **error);
void blk_node_length_changed(BlkNode *node);    /* those above follow whose length is that of @node */

/* ---- snapshot.c ---- */
/* Which one of a list of BlkSnapshot is meant. (nullable) (transfer none) */
const BlkSnapshot *blk_snapshot_find(const GArray *snapshots, const BlkSnapshotKey *key);
/* (transfer full): as info tells of it. */
JsonObject *blk_snapshot_describe(const BlkSnapshot *snapshot);
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
/* Somebody waits for what is in flight at @node, but not for all of it, as a drain does. Takes a reference. Does not yield. */
void blk_node_hurry_begin(BlkNode *node);
void blk_co_node_hurry_end(BlkNode *node);
/* Is the node, or one above it, being drained, closed or hurried? Then nobody may be held back. */
bool blk_node_is_hurried(const BlkNode *node);
/* @edge leads to its node, or serves another, from now on: the drained sections that gate the node gate those above it by
 * @edge, too. Waits for nobody: those above are idle, since edges change in a section of their own; who is served may not be. */
void blk_drain_inherit(const BlkChild *edge);
void blk_drain_forget(BlkNode *node);           /* @node is closed: no drained section holds it any more */

/* What its driver does not do itself, the child does. */
static inline bool blk_driver_passes(const BlkNode *node)
{
    return node->driver->kind == BLK_FILTER;
}

#endif
