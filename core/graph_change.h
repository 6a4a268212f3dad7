/* SPDX-License-Identifier: MIT */
/*
 * graph_change.h - several edges of a live graph changed at once, whole or not at all.
 *
 *     change = blk_graph_change_new();
 *     blk_graph_change_point(change, edge, node) ...     the edges lead elsewhere already
 *     ret = blk_graph_change_settle(change, error);      permissions, limits, drivers; a refusal takes all back
 *     blk_co_graph_change_free(change);                  behind the drained section: may close nodes
 *
 * Between the first step and the end of settle nothing yields, so nobody sees a half of it. The parents of the edges are
 * drained all the time.
 */
#ifndef BLKSTACK_CORE_GRAPH_CHANGE_H
#define BLKSTACK_CORE_GRAPH_CHANGE_H

#include "core/node.h"

typedef struct BlkGraphChange BlkGraphChange;

BlkGraphChange *blk_graph_change_new(void);

/* @edge leads to @node from now on; NULL: there is no such edge. It must make no loop. */
void blk_graph_change_point(BlkGraphChange *change, BlkChild *edge, BlkNode *node);

/* The same for an edge that is not there yet. */
void blk_graph_change_add(BlkGraphChange *change, BlkNode *parent, BlkNode *node, const char *name, BlkRole role);

/* The child @name of @parent is @node from now on; NULL: none, which only "backing" may be. -EINVAL, -ELOOP: nothing was
 * done. In core/graph.c. */
int blk_graph_change_child(BlkGraphChange *change, BlkNode *parent, const char *name, BlkNode *node, GError **error);

/* @node is looked at as well, since something else about it has changed. */
void blk_graph_change_touch(BlkGraphChange *change, BlkNode *node);

/* Whether all can live with it. After an error the edges, permissions and limits are what they were. */
int blk_graph_change_settle(BlkGraphChange *change, GError **error);

/* Takes back what has been settled, while the section still lasts. */
void blk_graph_change_undo(BlkGraphChange *change);

/* The change stays. Context: no section is open that this change needed; may yield, since nodes may be closed. */
void blk_co_graph_change_free(BlkGraphChange *change);

#endif
