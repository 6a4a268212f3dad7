/* SPDX-License-Identifier: MIT */
/*
 * graph.c - the nodes of one context and changes of the live graph.
 *
 * The graph changes only while the nodes concerned are drained. A change either happens whole or, if permissions or a
 * driver forbid it, not at all.
 */
#include "core/graph_change.h"
#include "core/options.h"
#include "drivers/builtin.h"

#include <string.h>

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

GPtrArray *blk_nodes(BlkContext *ctx)
{
    GPtrArray *nodes = g_ptr_array_new();

    for (GList *l = blk_context_graph(ctx)->newest.head; l; l = l->next) {
        BlkNode *node = l->data;

        if (node->core->open) {
            g_ptr_array_add(nodes, blk_node_ref(node));
        }
    }
    return nodes;
}

/* Looks at each node once, however many ways lead to it. */
static bool reaches(const BlkNode *from, const BlkNode *node, GHashTable *seen)
{
    if (from == node) {
        return true;
    }
    if (!g_hash_table_add(seen, (gpointer)from)) {
        return false;
    }
    for (GList *l = from->core->children.head; l; l = l->next) {
        if (reaches(((BlkChild *)l->data)->node, node, seen)) {
            return true;
        }
    }
    return false;
}

bool blk_node_reaches(const BlkNode *from, const BlkNode *node)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);

    return reaches(from, node, seen);
}

/* ---- one node in the place of another ---- */

void blk_child_stay(BlkChild *user)
{
    user->stays = true;
}

void blk_child_serve(BlkChild *user, BlkNode *served)
{
    user->served = served;
    if (served) {
        blk_drain_inherit(user);
    }
}

/* Does @edge go to @to when its node is replaced? Not if that would make a loop, nor if it stays, or is about to go. */
static bool follows(const BlkChild *edge, const BlkNode *to)
{
    return !edge->stays && !(edge->parent && (blk_node_is_closing(edge->parent) || blk_node_reaches(to, edge->parent)));
}

/* Lets the edges above @from lead to @to. Both are drained. */
static int move_parents(BlkNode *from, BlkNode *to, GError **error)
{
    BlkGraphChange *change = blk_graph_change_new();

    for (GList *l = from->core->parents.head, *next; l; l = next) {
        BlkChild *edge = l->data;

        next = l->next;
        if (follows(edge, to)) {
            blk_graph_change_point(change, edge, to);
        }
    }
    int ret = blk_graph_change_settle(change, error);
    if (ret == 0) {
        blk_gate_redirect(from, to);
    }
    blk_co_graph_change_free(change);       /* the caller holds both nodes */
    return ret;
}

/* Data that a node holds would be lost to those that do not read through it any more. */
static int refuse_held_data(BlkNode *node, int ret, GError **error)
{
    return blk_error_errno(error, ret, "The node '%s' cannot be removed or replaced: it, or one above, holds data that "
                           "could not be written", blk_node_name(node));
}

int blk_co_replace_node(BlkNode *from, BlkNode *to, GError **error)
{
    if (from == to) {
        return 0;
    }
    blk_node_ref(from);
    blk_node_ref(to);
    int ret = blk_co_drain_begin(from);
    int settled = blk_co_drain_begin(to);
    if (ret < 0 || settled < 0) {
        ret = refuse_held_data(from, ret < 0 ? ret : settled, error);
    } else {
        ret = move_parents(from, to, error);
    }
    blk_drain_end(from);
    blk_drain_end(to);
    blk_co_unref(to);
    blk_co_unref(from);
    return ret;
}

static int check_filter_of(BlkNode *filter, BlkNode *node, GError **error)
{
    if (blk_node_filtered(filter) == node) {
        return 0;
    }
    return blk_error(error, -EINVAL, "The filter '%s' cannot be inserted or removed: its child is not the node '%s'",
                     blk_node_name(filter), blk_node_name(node));
}

int blk_co_insert_above(BlkNode *node, BlkNode *filter, GError **error)
{
    blk_node_ref(node);
    blk_node_ref(filter);
    blk_co_drain_begin(node);       /* what nodes above could not hand down they keep */
    int ret = check_filter_of(filter, node, error);
    ret = ret < 0 ? ret : move_parents(node, filter, error);
    blk_drain_end(node);
    blk_co_unref(filter);
    blk_co_unref(node);
    return ret;
}

/* Drains the node that @filter filters, whichever that is when it is done: another change may have come first.
 * *below: (out) (transfer full). Returns: as blk_co_drain_begin(). */
static int co_drain_below(BlkNode *filter, BlkNode **below)
{
    for (;;) {
        *below = blk_node_ref(blk_node_filtered(filter));
        int ret = blk_co_drain_begin(*below);

        if (blk_node_filtered(filter) == *below) {
            return ret;
        }
        blk_drain_end(*below);
        blk_co_unref(*below);
    }
}

int blk_co_remove_filter(BlkNode *filter, GError **error)
{
    BlkNode *below;

    if (!blk_node_filtered(filter)) {
        return blk_error(error, -EINVAL, "The node '%s' cannot be removed: its driver '%s' is no filter",
                         blk_node_name(filter), filter->driver->name);
    }
    blk_node_ref(filter);
    int ret = co_drain_below(filter, &below);
    ret = ret < 0 ? refuse_held_data(filter, ret, error) : move_parents(filter, below, error);
    blk_drain_end(below);
    blk_co_unref(filter);
    blk_co_unref(below);
    return ret;
}

/* ---- other children ---- */

int blk_graph_change_child(BlkGraphChange *change, BlkNode *parent, const char *name, BlkNode *node, GError **error)
{
    BlkChild *edge = blk_node_child_edge(parent, name);
    bool backing = strcmp(name, "backing") == 0;

    if (!edge && !(backing && blk_options_table_has(parent->driver->options, "backing"))) {
        return blk_error(error, -EINVAL, "The node '%s' (driver '%s') has no child '%s'", blk_node_name(parent),
                         parent->driver->name, name);
    }
    if (!node && !backing) {
        return blk_error(error, -EINVAL, "The node '%s' (driver '%s') needs its child '%s'", blk_node_name(parent),
                         parent->driver->name, name);
    }
    if (node && blk_node_reaches(node, parent)) {
        return blk_error(error, -ELOOP, "The node '%s' cannot become a child of '%s': it stands above it, or is the same",
                         blk_node_name(node), blk_node_name(parent));
    }
    if (edge) {
        blk_graph_change_point(change, edge, node);
    } else if (node) {
        blk_graph_change_add(change, parent, node, "backing", BLK_ROLE_COW);
    }
    return 0;
}

int blk_co_replace_child(BlkNode *parent, const char *child, BlkNode *node, GError **error)
{
    BlkGraphChange *change = blk_graph_change_new();

    blk_node_ref(parent);
    int ret = blk_co_drain_begin(parent);
    BlkNode *before = blk_node_child(parent, child);
    if (before) {               /* what it holds is handed down before another takes its place */
        int settled = blk_co_drain_begin(blk_node_ref(before));
        ret = ret < 0 ? ret : settled;
    }
    if (ret < 0) {
        refuse_held_data(parent, ret, error);
    } else {
        ret = blk_graph_change_child(change, parent, child, node, error);
        ret = ret < 0 ? ret : blk_graph_change_settle(change, error);
    }
    if (ret == 0 && strcmp(child, "backing") == 0) {
        blk_node_name_backing(parent);
    }
    if (before) {
        blk_drain_end(before);
    }
    blk_drain_end(parent);
    blk_co_unref(before);
    blk_co_graph_change_free(change);
    blk_co_unref(parent);
    return ret;
}

int blk_co_set_backing(BlkNode *node, BlkNode *backing, GError **error)
{
    return blk_co_replace_child(node, "backing", backing, error);
}
