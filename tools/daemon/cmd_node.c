/* SPDX-License-Identifier: MIT */
/*
 * cmd_node.c - nodes that clients make and delete: blockdev-add, blockdev-del.
 *
 * The daemon holds a reference to each node that it was told to add, until it is told to delete it. Nodes below, which stand
 * inside the options of another one, belong to that one alone.
 */
#include "daemon/daemon.h"

#include "core/node.h"
#include "core/options.h"

#include <string.h>

BlkNode *daemon_find_node(Daemon *d, const char *device, const char *node_name, GError **error)
{
    BlkNode *node = device ? blk_node_find(d->ctx, device) : NULL;

    if (!node && node_name) {
        node = blk_node_find(d->ctx, node_name);
    }
    if (!node) {
        blk_error(error, -ENOENT, "Cannot find device='%.*s' nor node-name='%.*s'", 64, device ? device : "", 64,
                  node_name ? node_name : "");
    }
    return node;
}

BlkNode *daemon_find_root(Daemon *d, const char *name, GError **error)
{
    BlkNode *node = daemon_find_node(d, name, name, error);

    for (GList *l = node ? node->core->parents.head : NULL; l; l = l->next) {
        if (((BlkChild *)l->data)->parent) {
            blk_error(error, -EBUSY, "Need a root block node");
            return NULL;
        }
    }
    return node;
}

bool daemon_holds_node(const Daemon *d, BlkNode *node)
{
    return g_ptr_array_find(d->nodes, node, NULL);
}

void daemon_hold_node(Daemon *d, BlkNode *node)
{
    g_ptr_array_add(d->nodes, blk_node_ref(node));
}

void daemon_co_let_go(Daemon *d, BlkNode *node)
{
    g_ptr_array_remove(d->nodes, node);
    blk_co_unref(node);
}

int daemon_co_add_node(Daemon *d, JsonObject *tree, GError **error)
{
    BlkNode *node;

    if (!json_object_has_member(tree, "node-name")) {
        return blk_error(error, -EINVAL, "'node-name' must be specified for the root node");
    }
    node = blk_co_open(d->ctx, tree, error);
    if (!node) {
        return -EINVAL;
    }
    g_ptr_array_add(d->nodes, node);
    return 0;
}

int daemon_co_delete_node(Daemon *d, const char *name, GError **error)
{
    BlkNode *node = blk_node_find(d->ctx, name);

    if (!node) {
        return blk_error(error, -ENOENT, "Failed to find node with node-name='%.*s'", 64, name);
    }
    if (!daemon_holds_node(d, node)) {
        return blk_error(error, -EPERM, "Node %s is not owned by the monitor", name);
    }
    if (blk_node_is_shared(node)) {
        return blk_error(error, -EBUSY, "Node %s is in use", name);
    }
    daemon_co_let_go(d, node);
    return 0;
}

/* ---- commands ---- */

static int co_blockdev_add(Daemon *d, JsonObject *arguments, JsonNode **result, GError **error)
{
    int ret = daemon_check_node(d, arguments, NULL, error);

    return ret < 0 ? ret : daemon_co_add_node(d, arguments, error);
}

static const BlkOption delete_options[] = {
    { "node-name", BLK_OPTION_STRING, "the node", .required = true },
    { NULL },
};

static int co_blockdev_del(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    return daemon_co_delete_node(d, blk_options_string(args, "node-name"), error);
}

const DaemonCommand daemon_node_commands[] = {
    { "blockdev-add", "opens a node, which then can be used by its name", blk_node_options, .co_run_tree = co_blockdev_add,
      .variants = &daemon_driver_variants },
    { "blockdev-del", "closes a node that nobody uses", delete_options, co_blockdev_del },
    { NULL },
};
