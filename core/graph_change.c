/* SPDX-License-Identifier: MIT */
/*
 * graph_change.c - several edges of a live graph changed at once: see graph_change.h.
 */
#include "core/graph_change.h"

typedef struct EdgeStep {
    BlkChild *edge;
    BlkNode *from, *to;         /* references; NULL: the edge is not there */
} EdgeStep;

struct BlkGraphChange {
    GArray *steps;              /* of EdgeStep */
    GPtrArray *nodes;           /* BlkNode *: references to those that something changes for */
};

BlkGraphChange *blk_graph_change_new(void)
{
    BlkGraphChange *change = g_new0(BlkGraphChange, 1);

    change->steps = g_array_new(FALSE, FALSE, sizeof(EdgeStep));
    change->nodes = g_ptr_array_new();
    return change;
}

void blk_graph_change_touch(BlkGraphChange *change, BlkNode *node)
{
    if (node && !g_ptr_array_find(change->nodes, node, NULL)) {
        g_ptr_array_add(change->nodes, blk_node_ref(node));
    }
}

void blk_graph_change_point(BlkGraphChange *change, BlkChild *edge, BlkNode *node)
{
    EdgeStep step = {
        .edge = edge,
        .from = edge->node ? blk_node_ref(edge->node) : NULL,
        .to = node ? blk_node_ref(node) : NULL,
    };

    g_array_append_val(change->steps, step);
    blk_graph_change_touch(change, edge->parent);
    blk_graph_change_touch(change, step.from);
    blk_graph_change_touch(change, step.to);
    blk_edge_point(edge, node);
}

void blk_graph_change_add(BlkGraphChange *change, BlkNode *parent, BlkNode *node, const char *name, BlkRole role)
{
    blk_graph_change_point(change, blk_edge_new_loose(parent, name, role), node);
}

static int refresh(BlkGraphChange *change, GError **error)
{
    BlkNode **nodes = (BlkNode **)change->nodes->pdata;
    int ret = blk_node_refresh_above(nodes, change->nodes->len, error);

    /* Last, since locks that are given up may not be had again. */
    return ret < 0 ? ret : blk_perm_refresh(nodes, change->nodes->len, error);
}

void blk_graph_change_undo(BlkGraphChange *change)
{
    for (guint i = change->steps->len; i-- > 0; ) {
        EdgeStep *step = &g_array_index(change->steps, EdgeStep, i);

        blk_edge_point(step->edge, step->from);
    }
    refresh(change, NULL);      /* what was allowed before is allowed again */
}

int blk_graph_change_settle(BlkGraphChange *change, GError **error)
{
    int ret = refresh(change, error);

    if (ret < 0) {
        blk_graph_change_undo(change);
    }
    return ret;
}

void blk_co_graph_change_free(BlkGraphChange *change)
{
    for (guint i = 0; i < change->steps->len; i++) {
        EdgeStep *step = &g_array_index(change->steps, EdgeStep, i);

        if (!step->edge->node) {
            blk_edge_free_loose(step->edge);
        }
    }
    for (guint i = 0; i < change->steps->len; i++) {
        EdgeStep *step = &g_array_index(change->steps, EdgeStep, i);

        blk_co_unref(step->from);
        blk_co_unref(step->to);
    }
    for (guint i = 0; i < change->nodes->len; i++) {
        blk_co_unref(change->nodes->pdata[i]);
    }
    g_array_unref(change->steps);
    g_ptr_array_unref(change->nodes);
    g_free(change);
}
