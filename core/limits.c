/* SPDX-License-Identifier: MIT */
/*
 * limits.c - what requests to a node must look like.
 *
 * Alignment is not handed up: each layer pads for itself, so that a small read through a filter stays small until it
 * reaches the driver that cannot do it.
 */
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

static void follow_child(BlkNode *node)
{
    BlkNode *below = blk_node_filtered(node);

    if (below) {
        node->length = below->length;
        if (node->core->caps_follow) {
            node->caps = below->caps;
        }
    }
    g_clear_pointer(&node->core->filename, g_free);
}

static int check_parents(BlkNode *node, GError **error)
{
    for (GList *l = node->core->parents.head; l; l = l->next) {
        BlkChild *edge = l->data;

        if (edge->parent && edge->parent->core->open && edge->parent->driver->check_child) {
            int ret = edge->parent->driver->check_child(edge->parent, node, error);

            if (ret < 0) {
                return ret;
            }
        }
    }
    return 0;
}

int blk_node_refresh_above(BlkNode *node, GError **error)
{
    int ret;

    follow_child(node);
    blk_limits_refresh(node);
    ret = check_parents(node, error);
    for (GList *l = node->core->parents.head; l && ret == 0; l = l->next) {
        BlkChild *edge = l->data;

        if (edge->parent && edge->parent->core->open) {
            ret = blk_node_refresh_above(edge->parent, error);
        }
    }
    return ret;
}

void blk_node_length_changed(BlkNode *node)
{
    for (GList *l = node->core->parents.head; l; l = l->next) {
        BlkNode *parent = ((BlkChild *)l->data)->parent;

        if (parent && blk_node_filtered(parent) == node) {
            parent->length = node->length;
            blk_node_length_changed(parent);
        }
    }
}
