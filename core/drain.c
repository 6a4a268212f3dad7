/* SPDX-License-Identifier: MIT */
/*
 * drain.c - requests in flight, and sections in which a node has none.
 *
 * A drained section holds the node and all nodes above it, topmost first: a node is gated when everything above it is
 * idle, so that a request of a parent that is still under way always finds the gates below it open and can end. Above a node
 * are also the nodes whose requests wait for those of a user of the node (blk_child_serve()). What comes above a gated node
 * later, as a filter that is put in, is gated by the same sections at once: else a request would pass it, wait below, and
 * hold up for ever a section that is begun within the first.
 *
 * A node may hold data that its children have not got yet: it hands it down when it is idle, while the gates below it are
 * still open.
 *
 * A request that finds the gate closed waits there. If the graph changes meanwhile it goes to the node that took the
 * place of the one that it was sent to.
 */
#include "core/node.h"

typedef struct BlkDrain {
    BlkNode *node;              /* for which the section was begun */
    GPtrArray *gated;           /* BlkNode *: it and all above */
} BlkDrain;

void blk_co_request_begin(BlkNode **node)
{
    BlkNodeCore *core = (*node)->core;
    BlkGateWaiter waiter = { .node = *node, .co = blk_co_self() };

    if (core->drained == 0) {
        core->in_flight++;
        return;
    }
    if (core->gate_last) {
        core->gate_last->next = &waiter;
    } else {
        core->gate_first = &waiter;
    }
    core->gate_last = &waiter;
    while (waiter.co) {
        blk_co_yield();
    }
    *node = waiter.node;
}

void blk_request_join(BlkNode *node)
{
    g_assert(node->core->in_flight > 0);
    node->core->in_flight++;
}

void blk_request_end(BlkNode *node)
{
    g_assert(node->core->in_flight > 0);
    if (--node->core->in_flight == 0) {
        blk_co_queue_wake_all(&node->core->idle);
    }
}

void blk_gate_redirect(BlkNode *from, BlkNode *to)
{
    BlkNodeCore *source = from->core, *target = to->core;

    if (!source->gate_first) {
        return;
    }
    for (BlkGateWaiter *waiter = source->gate_first; waiter; waiter = waiter->next) {
        waiter->node = to;
    }
    if (target->gate_last) {
        target->gate_last->next = source->gate_first;
    } else {
        target->gate_first = source->gate_first;
    }
    target->gate_last = source->gate_last;
    source->gate_first = source->gate_last = NULL;
}

/* Those that waited count as in flight at once, before they run: nobody drains or closes the node in between. */
static void open_gate(BlkNode *node)
{
    BlkGateWaiter *waiter = node->core->gate_first, *next;

    node->core->gate_first = node->core->gate_last = NULL;
    for (; waiter; waiter = next) {
        BlkCo *co = waiter->co;

        next = waiter->next;
        waiter->co = NULL;
        node->core->in_flight++;
        blk_co_wake(co);
    }
}

/* Whose requests may wait for those that @edge sends; or NULL. */
static BlkNode *above_of(const BlkChild *edge)
{
    return edge->parent ? edge->parent : edge->served;
}

/* The topmost node at or above @node that is not in @gated, or NULL. What is above a node in @gated is gated too; one that
 * is being closed has no users, and ends by itself. */
static BlkNode *next_to_gate(BlkNode *node, const GPtrArray *gated)
{
    BlkNode *found = NULL;

    if (g_ptr_array_find((GPtrArray *)gated, node, NULL)) {
        return NULL;
    }
    for (GList *l = node->core->parents.head; l && !found; l = l->next) {
        BlkNode *above = above_of(l->data);

        found = above && !blk_node_is_closing(above) ? next_to_gate(above, gated) : NULL;
    }
    return found ? found : node;
}

static void gate(BlkDrain *drain, BlkNode *node)
{
    g_ptr_array_add(drain->gated, node);
    node->core->drained++;
}

void blk_drain_inherit(const BlkChild *edge)
{
    GPtrArray *drains = blk_context_graph(edge->node->ctx)->drains;
    BlkNode *above = above_of(edge), *next;

    if (!above || edge->node->core->drained == 0) {
        return;
    }
    for (guint i = 0; i < drains->len; i++) {
        BlkDrain *drain = g_ptr_array_index(drains, i);

        if (g_ptr_array_find(drain->gated, edge->node, NULL)) {
            while ((next = next_to_gate(above, drain->gated))) {
                gate(drain, next);
            }
        }
    }
}

static void hurry(BlkNode *node, GHashTable *seen)
{
    if (!g_hash_table_add(seen, node)) {
        return;
    }
    if (node->driver->hurry && node->core->open) {
        node->driver->hurry(node);
    }
    for (GList *l = node->core->children.head; l; l = l->next) {
        hurry(((BlkChild *)l->data)->node, seen);
    }
}

void blk_node_hurry(BlkNode *node)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);

    hurry(node, seen);
}

static bool is_hurried(const BlkNode *node, GHashTable *seen)
{
    if (node->core->drained > 0 || node->core->hurried > 0 || node->core->refs == 0) {
        return true;
    }
    for (GList *l = node->core->parents.head; l; l = l->next) {
        const BlkNode *parent = ((BlkChild *)l->data)->parent;

        if (parent && g_hash_table_add(seen, (gpointer)parent) && is_hurried(parent, seen)) {
            return true;
        }
    }
    return false;
}

bool blk_node_is_hurried(const BlkNode *node)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);

    return is_hurried(node, seen);
}

void blk_node_hurry_begin(BlkNode *node)
{
    blk_node_ref(node)->core->hurried++;
    blk_node_hurry(node);
}

void blk_co_node_hurry_end(BlkNode *node)
{
    node->core->hurried--;
    blk_co_unref(node);
}

int blk_co_drain_begin(BlkNode *node)
{
    BlkDrain *drain = g_new0(BlkDrain, 1);
    BlkNode *next;
    int ret = 0;

    drain->node = node;
    drain->gated = g_ptr_array_new();
    g_ptr_array_add(blk_context_graph(node->ctx)->drains, drain);
    /* Looked up anew each time: the graph may change while this waits. */
    while ((next = next_to_gate(node, drain->gated))) {
        gate(drain, next);
        blk_node_ref(next);
        if (next->core->in_flight > 0) {
            blk_node_hurry(next);
        }
        while (next->core->in_flight > 0) {
            blk_co_queue_wait(&next->core->idle);
        }
        int settled = next->driver->co_settle && next->core->open ? next->driver->co_settle(next) : 0;
        ret = ret < 0 ? ret : settled;
        blk_engine_drained(next);
        blk_co_unref(next);
    }
    return ret;
}

void blk_drain_end(BlkNode *node)
{
    GPtrArray *drains = blk_context_graph(node->ctx)->drains;
    BlkDrain *drain = NULL;

    for (guint i = drains->len; i-- > 0 && !drain; ) {
        BlkDrain *candidate = g_ptr_array_index(drains, i);

        drain = candidate->node == node ? candidate : NULL;
    }
    g_assert(drain);
    g_ptr_array_remove(drains, drain);
    for (guint i = 0; i < drain->gated->len; i++) {
        BlkNode *gated = g_ptr_array_index(drain->gated, i);

        if (--gated->core->drained == 0) {
            open_gate(gated);
        }
    }
    g_ptr_array_unref(drain->gated);
    g_free(drain);
}

void blk_drain_forget(BlkNode *node)
{
    GPtrArray *drains = blk_context_graph(node->ctx)->drains;

    for (guint i = 0; i < drains->len; i++) {
        BlkDrain *drain = g_ptr_array_index(drains, i);

        g_assert(drain->node != node);
        g_ptr_array_remove(drain->gated, node);
    }
}
