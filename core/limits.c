/* SPDX-License-Identifier: MIT */
/*
 * limits.c - what requests to a node must look like.
 *
 * Alignment is not handed up: each layer pads for itself, so that a small read through a filter stays small until it
 * reaches the driver that cannot do it.
 */
#include "core/bitmap.h"
#include "core/node.h"

#define HEAD_BYTES 512          /* where the magic of a format stands */

static bool is_power_of_two(uint32_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

static void limits_of_children(BlkNode *node, BlkLimits *limits)
{
    *limits = (BlkLimits) { .read_align = 1, .write_align = 1, .mem_align = 1 };
    for (GList *l = node->core->children.head; l; l = l->next) {
        BlkNode *child = ((BlkChild *)l->data)->node;

        limits->mem_align = MAX(limits->mem_align, child->limits.mem_align);
    }
    if (node->file && !node->driver->format) {
        const BlkLimits *below = &node->file->node->limits;

        limits->zeroes_align = below->zeroes_align;
        limits->discard_align = below->discard_align;
        limits->cluster_size = below->cluster_size;
        limits->subcluster_size = below->subcluster_size;
    }
}

void blk_limits_refresh(BlkNode *node)
{
    BlkLimits *limits = &node->limits;

    limits_of_children(node, limits);
    if (node->driver->refresh_limits) {
        node->driver->refresh_limits(node);
    }
    if (node->core->guard_head) {
        limits->write_align = MAX(limits->write_align, HEAD_BYTES);
    }
    g_assert(is_power_of_two(limits->read_align) && is_power_of_two(limits->write_align));
    g_assert(is_power_of_two(limits->mem_align));
    g_assert(limits->zeroes_align == 0 || is_power_of_two(limits->zeroes_align));
    g_assert(limits->discard_align == 0 || is_power_of_two(limits->discard_align));
    g_assert(!node->driver->format || node->driver->kind != BLK_FORMAT || limits->subcluster_size <= limits->cluster_size);
}

/* ---- changes that nodes above must follow ---- */

int blk_node_check_depth(unsigned below, GError **error)
{
    return below <= BLK_MAX_CHAIN ? 0 : blk_error(error, -ELOOP, "The backing chain is longer than %u images", BLK_MAX_CHAIN);
}

static unsigned depth_below(const BlkNode *node)
{
    unsigned depth = 0;

    for (GList *l = node->core->children.head; l; l = l->next) {
        const BlkChild *edge = l->data;

        depth = MAX(depth, edge->node->core->below + (edge->role == BLK_ROLE_COW));
    }
    return depth;
}

/* Returns: whether its length has changed with those below. */
static bool follow_length(BlkNode *node)
{
    BlkNode *below = blk_node_filtered(node);
    uint64_t length = below ? below->length : node->driver->length_below ? node->driver->length_below(node) : node->length;
    bool changed = length != node->length;

    node->length = length;
    if (changed) {
        blk_bitmaps_length_changed(node);
    }
    return changed;
}

static void follow_children(BlkNode *node)
{
    BlkNode *below = blk_node_filtered(node);

    node->core->below = depth_below(node);
    follow_length(node);
    if (below && node->core->caps_follow) {
        node->caps = below->caps;
    }
    g_clear_pointer(&node->core->filename, g_free);
}

int blk_node_check_child(BlkNode *node, BlkNode *child, GError **error)
{
    if (blk_node_active(node) && !blk_node_active(child)) {
        return blk_error(error, -EPERM, "The node '%s' is inactive, and cannot be a child of '%s': activate it first",
                         blk_node_name(child), blk_node_name(node));
    }
    return node->driver->check_child ? node->driver->check_child(node, child, error) : 0;
}

static int check_children(BlkNode *node, GError **error)
{
    int ret = blk_node_check_depth(node->core->below, error);

    for (GList *l = node->core->children.head; l && ret == 0; l = l->next) {
        ret = blk_node_check_child(node, ((BlkChild *)l->data)->node, error);
    }
    return ret;
}

/* Appends @node after all that is above it; not what is being opened or closed. */
static void collect_above(BlkNode *node, GHashTable *seen, GPtrArray *order)
{
    if (!node->core->open || !g_hash_table_add(seen, node)) {
        return;
    }
    for (GList *l = node->core->parents.head; l; l = l->next) {
        BlkNode *parent = ((BlkChild *)l->data)->parent;

        if (parent) {
            collect_above(parent, seen, order);
        }
    }
    g_ptr_array_add(order, node);
}

int blk_node_refresh_above(BlkNode *const *nodes, unsigned n_nodes, GError **error)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    g_autoptr(GPtrArray) order = g_ptr_array_new();
    int ret = 0;

    for (unsigned i = 0; i < n_nodes; i++) {
        collect_above(nodes[i], seen, order);
    }
    for (guint i = order->len; i-- > 0 && ret == 0; ) {     /* children first */
        BlkNode *next = order->pdata[i];

        follow_children(next);
        ret = check_children(next, error);
        if (ret == 0) {
            blk_limits_refresh(next);
        }
    }
    return ret;
}

void blk_node_length_changed(BlkNode *node)
{
    for (GList *l = node->core->parents.head; l; l = l->next) {
        BlkNode *parent = ((BlkChild *)l->data)->parent;

        if (parent && parent->core->open && follow_length(parent)) {
            blk_node_length_changed(parent);
        }
    }
}
