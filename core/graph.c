/* SPDX-License-Identifier: MIT */
/*
 * graph.c - the nodes of one context and changes of the live graph.
 *
 * The graph changes only while the nodes concerned are drained. A change either happens whole or, if permissions or a
 * driver forbid it, not at all.
 */
#include "core/node.h"
#include "drivers/builtin.h"

BlkGraph *blk_graph_new(BlkContext *ctx)
{
    BlkGraph *graph = g_new0(BlkGraph, 1);

    graph->ctx = ctx;
    graph->drivers = g_ptr_array_new();
    graph->nodes = g_hash_table_new(g_str_hash, g_str_equal);
    graph->drains = g_ptr_array_new();
    blk_builtin_register(graph->drivers);
    return graph;
}

void blk_graph_free(BlkGraph *graph)
{
    if (!graph) {
        return;
    }
    g_assert(g_hash_table_size(graph->nodes) == 0);
    g_assert(graph->drains->len == 0);
    g_hash_table_destroy(graph->nodes);
    g_ptr_array_unref(graph->drivers);
    g_ptr_array_unref(graph->drains);
    g_free(graph);
}

BlkNode *blk_node_find(BlkContext *ctx, const char *node_name)
{
    BlkNode *node = g_hash_table_lookup(blk_context_graph(ctx)->nodes, node_name);

    return node && node->core->open ? node : NULL;
}

bool blk_node_reaches(const BlkNode *from, const BlkNode *node)
{
    if (from == node) {
        return true;
    }
    for (GList *l = from->core->children.head; l; l = l->next) {
        const BlkChild *edge = l->data;

        if (blk_node_reaches(edge->node, node)) {
            return true;
        }
    }
    return false;
}

/* Moves the edges above @from that @skip does not own or stand below to @to; returns those that were moved. */
static GPtrArray *move_parents(BlkNode *from, BlkNode *to)
{
    GPtrArray *moved = g_ptr_array_new();

    for (GList *l = from->core->parents.head, *next; l; l = next) {
        BlkChild *edge = l->data;

        next = l->next;
        if (edge->parent && blk_node_reaches(to, edge->parent)) {
            continue;       /* @to itself, or something between it and @from */
        }
        blk_edge_move(edge, to);
        g_ptr_array_add(moved, edge);
    }
    return moved;
}

static int refresh_after_move(BlkNode *from, BlkNode *to, GError **error)
{
    int ret = blk_perm_refresh(from, to, error);

    return ret < 0 ? ret : blk_node_refresh_above(to, error);
}

/* Lets all users of @from use @to. Both are drained. */
static int replace_node(BlkNode *from, BlkNode *to, GError **error)
{
    g_autoptr(GPtrArray) moved = move_parents(from, to);
    int ret = refresh_after_move(from, to, error);

    if (ret < 0) {
        for (guint i = 0; i < moved->len; i++) {
            blk_edge_move(g_ptr_array_index(moved, i), from);
        }
        /* What was allowed before is allowed again. */
        refresh_after_move(to, from, NULL);
        return ret;
    }
    blk_gate_redirect(from, to);
    return 0;
}

int blk_co_insert_above(BlkNode *node, BlkNode *filter, GError **error)
{
    int ret;

    if (blk_node_filtered(filter) != node) {
        return blk_error(error, -EINVAL, "The filter '%s' cannot be inserted: its child is not the node '%s'",
                         blk_node_name(filter), blk_node_name(node));
    }
    blk_node_ref(node);
    blk_node_ref(filter);
    blk_co_drain_begin(node);
    ret = replace_node(node, filter, error);
    blk_drain_end(node);
    blk_co_unref(filter);
    blk_co_unref(node);
    return ret;
}

int blk_co_remove_filter(BlkNode *filter, GError **error)
{
    BlkNode *below = blk_node_filtered(filter);
    int ret;

    if (!below) {
        return blk_error(error, -EINVAL, "The node '%s' cannot be removed: its driver '%s' is no filter",
                         blk_node_name(filter), filter->driver->name);
    }
    blk_node_ref(below);
    blk_node_ref(filter);
    ret = blk_co_drain_begin(below);
    if (ret < 0) {
        blk_error_errno(error, ret, "The filter '%s' cannot be removed, since it holds data that could not be written",
                        blk_node_name(filter));
    } else {
        ret = replace_node(filter, below, error);
    }
    blk_drain_end(below);
    blk_co_unref(filter);
    blk_co_unref(below);
    return ret;
}
