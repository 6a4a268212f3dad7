/* SPDX-License-Identifier: MIT */
/*
 * reopen.c - open nodes that become what they were not opened as: see reopen.h.
 *
 *     drained:  what may be written less     parents first    write out what they keep
 *               what may be written more     children first   new descriptors, permissions, tables for writing
 *               all                          settled at once  read-only flags, limits, permissions
 *               commit of all, or abort of all, the last one first
 *
 * Up to the settling each node may do both what it did and what it is to do, so that nothing stands in anybody's way.
 */
#include "core/reopen.h"

#include "core/bitmap.h"
#include "core/graph_change.h"

#include <string.h>

typedef struct ReopenStep {
    BlkNode *node;              /* a reference */
    BlkOpenFlags flags, old_flags;
    bool read_only, old_read_only;
    BlkOptions *options;        /* (nullable) */
    JsonObject *tree;           /* (nullable) */
    bool prepared;
} ReopenStep;

typedef struct ReopenEdge {
    BlkNode *parent, *child;    /* references; child: (nullable) */
    char *name;
} ReopenEdge;

struct BlkReopenSet {
    GArray *steps;              /* of ReopenStep */
    GArray *edges;              /* of ReopenEdge */
};

BlkReopenSet *blk_reopen_set_new(void)
{
    BlkReopenSet *set = g_new0(BlkReopenSet, 1);

    set->steps = g_array_new(FALSE, FALSE, sizeof(ReopenStep));
    set->edges = g_array_new(FALSE, FALSE, sizeof(ReopenEdge));
    return set;
}

static ReopenStep *step_at(const BlkReopenSet *set, guint i)
{
    return &g_array_index(set->steps, ReopenStep, i);
}

static ReopenEdge *edge_at(const BlkReopenSet *set, guint i)
{
    return &g_array_index(set->edges, ReopenEdge, i);
}

bool blk_reopen_set_has(const BlkReopenSet *set, const BlkNode *node)
{
    for (guint i = 0; i < set->steps->len; i++) {
        if (step_at(set, i)->node == node) {
            return true;
        }
    }
    return false;
}

void blk_reopen_set_change_child(BlkReopenSet *set, BlkNode *parent, const char *name, BlkNode *child)
{
    ReopenEdge edge = { blk_node_ref(parent), child ? blk_node_ref(child) : NULL, g_strdup(name) };

    g_array_append_val(set->edges, edge);
}

void blk_reopen_set_add(BlkReopenSet *set, BlkNode *node, const BlkOpenFlags *flags, bool read_only, BlkOptions *options,
                        JsonObject *tree)
{
    ReopenStep step = {
        .node = blk_node_ref(node),
        .flags = *flags,
        .old_flags = node->core->flags,
        .read_only = read_only,
        .old_read_only = node->read_only,
        .options = options,
        .tree = tree,
    };

    g_array_append_val(set->steps, step);
}

void blk_reopen_set_free(BlkReopenSet *set)
{
    for (guint i = 0; i < set->steps->len; i++) {
        ReopenStep *step = step_at(set, i);

        g_clear_pointer(&step->options, blk_options_free);
        g_clear_pointer(&step->tree, json_object_unref);
        blk_co_unref(step->node);
    }
    for (guint i = 0; i < set->edges->len; i++) {
        blk_co_unref(edge_at(set, i)->parent);
        blk_co_unref(edge_at(set, i)->child);
        g_free(edge_at(set, i)->name);
    }
    g_array_unref(set->steps);
    g_array_unref(set->edges);
    g_free(set);
}

/* ---- one step ---- */

/* Is it only here since nodes below, or its children, change? */
static bool stays_as_it_is(const ReopenStep *step)
{
    const BlkOpenFlags *a = &step->flags, *b = &step->old_flags;

    return !step->options && step->read_only == step->old_read_only && a->read_only == b->read_only &&
           a->auto_read_only == b->auto_read_only && a->force_share == b->force_share && a->no_flush == b->no_flush &&
           a->direct == b->direct && a->unmap == b->unmap;
}

static int check_step(const ReopenStep *step, GError **error)
{
    const BlkNode *node = step->node;

    if (stays_as_it_is(step)) {
        return 0;
    }
    if (node->driver->co_open && !node->driver->co_reopen_prepare && !node->driver->reopens_as_it_is) {
        return blk_error(error, -ENOTSUP, "Block format '%s' used by node '%s' does not support reopening files",
                         node->driver->name, blk_node_name(node));
    }
    if (step->old_flags.force_share && !step->read_only) {
        return blk_error(error, -EINVAL, "The node '%s' was opened with force-share=on: what is known of it may be old; to write "
                         "to it, close it and open it anew", blk_node_name(node));
    }
    return 0;
}

static int co_drain_node(BlkNode *node, GError **error)
{
    int ret = blk_co_drain_begin(node);

    return ret < 0 ? blk_error_errno(error, ret, "The node '%s' cannot be reopened: it, or one above, holds data that could not "
                                     "be written", blk_node_name(node)) : 0;
}

static int co_prepare_step(ReopenStep *step, GError **error)
{
    BlkNode *node = step->node;
    const BlkReopen to = { .options = step->options, .flags = &step->flags, .read_only = step->read_only };

    int ret = co_drain_node(node, error);

    if (ret == 0) {
        node->core->flags = step->flags;
        node->read_only = step->read_only && step->old_read_only;
        ret = blk_perm_refresh(&node, 1, error);
    }
    if (ret == 0 && node->driver->co_reopen_prepare && (step->tree || !stays_as_it_is(step))) {
        ret = node->driver->co_reopen_prepare(node, &to, error);
        step->prepared = ret == 0;
    }
    blk_drain_end(node);
    return ret;
}

static void co_abort_step(ReopenStep *step)
{
    BlkNode *node = step->node;

    blk_co_drain_begin(node);
    if (step->prepared && node->driver->co_reopen_abort) {
        node->driver->co_reopen_abort(node);
    }
    node->core->flags = step->old_flags;
    node->read_only = step->old_read_only;
    blk_drain_end(node);
}

static void co_commit_step(ReopenStep *step)
{
    BlkNode *node = step->node;

    if (step->prepared && node->driver->co_reopen_commit) {
        blk_co_drain_begin(node);
        uint64_t length = node->length;
        node->driver->co_reopen_commit(node);
        if (node->length != length) {       /* of a window; or somebody else has made it longer */
            blk_bitmaps_length_changed(node);
        }
        if (node->length != length || step->options) {
            blk_node_refresh_above(&node, 1, NULL);
        }
        blk_drain_end(node);
    }
    if (step->tree) {
        json_object_unref(node->core->options);
        node->core->options = g_steal_pointer(&step->tree);
        g_clear_pointer(&node->core->filename, g_free);
    }
}

/* ---- all ---- */

/* Is it below another node of the set? Then the sections of those above hold what comes from there, and its own lasts only as
 * long as itself is changed, since the nodes above read and write through it meanwhile. */
static bool is_below(const BlkReopenSet *set, const BlkNode *node)
{
    for (guint i = 0; i < set->steps->len; i++) {
        const BlkNode *other = step_at(set, i)->node;

        if (other != node && blk_node_reaches(other, node)) {
            return true;
        }
    }
    return false;
}

/* @drained: (out): nodes whose sections have begun. */
static int co_drain_tops(BlkReopenSet *set, GPtrArray *drained, GError **error)
{
    int ret = 0;

    for (guint i = 0; ret == 0 && i < set->steps->len; i++) {
        BlkNode *node = step_at(set, i)->node;

        if (!is_below(set, node)) {
            g_ptr_array_add(drained, node);
            ret = co_drain_node(node, error);
        }
    }
    return ret;
}

static bool may_write_less(const ReopenStep *step)
{
    return step->read_only && !step->old_read_only;
}

static int co_prepare_all(BlkReopenSet *set, GError **error)
{
    int ret = 0;

    for (guint i = 0; ret == 0 && i < set->steps->len; i++) {
        ret = check_step(step_at(set, i), error);
    }
    for (guint i = set->steps->len; ret == 0 && i-- > 0; ) {        /* parents first */
        ret = may_write_less(step_at(set, i)) ? co_prepare_step(step_at(set, i), error) : 0;
    }
    for (guint i = 0; ret == 0 && i < set->steps->len; i++) {
        ret = may_write_less(step_at(set, i)) ? 0 : co_prepare_step(step_at(set, i), error);
    }
    return ret;
}

/* Children that others take the place of hand down what they hold. @drained: (out): nodes whose sections have begun. */
static int co_drain_children(BlkReopenSet *set, GPtrArray *drained, GError **error)
{
    int ret = 0;

    for (guint i = 0; ret == 0 && i < set->edges->len; i++) {
        const ReopenEdge *edge = edge_at(set, i);
        BlkNode *nodes[] = { blk_node_child(edge->parent, edge->name), edge->child };

        for (guint j = 0; ret == 0 && j < G_N_ELEMENTS(nodes); j++) {
            if (nodes[j]) {
                g_ptr_array_add(drained, blk_node_ref(nodes[j]));
                ret = co_drain_node(nodes[j], error);
            }
        }
    }
    return ret;
}

static int settle(BlkReopenSet *set, BlkGraphChange *change, GError **error)
{
    int ret = 0;

    for (guint i = 0; ret == 0 && i < set->edges->len; i++) {
        const ReopenEdge *edge = edge_at(set, i);

        ret = blk_graph_change_child(change, edge->parent, edge->name, edge->child, error);
    }
    if (ret < 0) {
        return ret;
    }
    for (guint i = 0; i < set->steps->len; i++) {
        ReopenStep *step = step_at(set, i);

        step->node->read_only = step->read_only;
        blk_graph_change_touch(change, step->node);
    }
    return blk_graph_change_settle(change, error);
}

static void co_abort_all(BlkReopenSet *set, BlkGraphChange *change)
{
    for (guint i = set->steps->len; i-- > 0; ) {
        co_abort_step(step_at(set, i));
        blk_graph_change_touch(change, step_at(set, i)->node);
    }
    blk_graph_change_undo(change);
}

static void co_commit_all(BlkReopenSet *set)
{
    for (guint i = 0; i < set->steps->len; i++) {
        co_commit_step(step_at(set, i));
    }
    for (guint i = 0; i < set->edges->len; i++) {
        if (strcmp(edge_at(set, i)->name, "backing") == 0) {
            blk_node_name_backing(edge_at(set, i)->parent);
        }
    }
}

/* Nothing comes from above meanwhile. */
static int co_run_drained(BlkReopenSet *set, BlkGraphChange *change, GError **error)
{
    g_autoptr(GPtrArray) drained = g_ptr_array_new();
    int ret = co_prepare_all(set, error);

    ret = ret < 0 ? ret : co_drain_children(set, drained, error);
    ret = ret < 0 ? ret : settle(set, change, error);
    for (guint i = drained->len; i-- > 0; ) {
        blk_drain_end(drained->pdata[i]);
    }
    if (ret < 0) {
        co_abort_all(set, change);
    } else {
        co_commit_all(set);
    }
    for (guint i = 0; i < drained->len; i++) {
        blk_co_unref(drained->pdata[i]);
    }
    return ret;
}

int blk_co_reopen_set_run(BlkReopenSet *set, GError **error)
{
    BlkGraphChange *change = blk_graph_change_new();
    g_autoptr(GPtrArray) drained = g_ptr_array_new();
    int ret = co_drain_tops(set, drained, error);

    ret = ret < 0 ? ret : co_run_drained(set, change, error);
    for (guint i = drained->len; i-- > 0; ) {
        blk_drain_end(drained->pdata[i]);
    }
    blk_co_graph_change_free(change);
    return ret;
}

/* ---- may it be written to? ---- */

/* Did the user say so of this very node? */
static bool says_read_only(const BlkNode *node)
{
    return json_object_has_member(node->core->options, "read-only");
}

/* Adds @node, and the nodes below that were opened for it and follow it. */
static void add_with_children(BlkReopenSet *set, BlkNode *node, bool writable)
{
    BlkOpenFlags flags = node->core->flags;

    for (GList *l = node->core->children.head; l; l = l->next) {
        const BlkChild *edge = l->data;
        bool follows = edge->role != BLK_ROLE_COW && edge->node->core->opener == node && !says_read_only(edge->node);

        if (follows && edge->node->read_only == writable) {
            add_with_children(set, edge->node, writable);
        }
    }
    flags.read_only = !writable;
    blk_reopen_set_add(set, node, &flags, !writable, NULL, NULL);
}

int blk_co_reopen_writable(BlkNode *node, bool writable, GError **error)
{
    BlkReopenSet *set;
    int ret;

    if (node->read_only != writable) {
        return 0;
    }
    set = blk_reopen_set_new();
    add_with_children(set, node, writable);
    ret = blk_co_reopen_set_run(set, error);
    blk_reopen_set_free(set);
    return ret;
}
