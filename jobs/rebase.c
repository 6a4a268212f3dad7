/* SPDX-License-Identifier: MIT */
/*
 * rebase.c - lets an image stand on another backing file, with the same content.
 *
 *     overlay ──> old ──> ... ──> shared ──> ...        what lies in old ... above shared, and not in the overlay,
 *     overlay ──> new ──> ... ──> shared ──> ...        is compared with new, and copied where it differs
 *
 * What the overlay does not have reads from the old chain as it is, so copies change nothing that a reader sees, and can be
 * cut short anywhere. The one change of the header comes when they are stable.
 */
#include "jobs/rebase.h"

#include "jobs/copy.h"
#include "jobs/source.h"

#include <string.h>

enum { WORKERS = 8 };

static bool is_same_image(BlkNode *a, BlkNode *b)
{
    return strcmp(blk_node_filename(a), blk_node_filename(b)) == 0
           && strcmp(blk_node_driver_name(a), blk_node_driver_name(b)) == 0;
}

/* The node of the old chain that is the new backing file too: what it has need not be compared. (nullable) */
static BlkNode *find_shared(const BlkRebase *rebase)
{
    BlkNode *node = rebase->backing ? blk_node_backing(rebase->overlay) : NULL;

    while (node && !is_same_image(blk_node_skip_filters(node), blk_node_skip_filters(rebase->backing))) {
        node = blk_node_backing(node);
    }
    return node;
}

static int co_copy_differences(const BlkRebase *rebase, GError **error)
{
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    BlkNodesSource source;
    BlkCopy copy = {
        .source = &source.source,
        .reference = rebase->backing,
        .target_is_zero = !rebase->backing,     /* what is not there will read as zeroes */
        .compressed = rebase->compressed,
        .in_order = true,
        .sparse = 1,
        .workers = WORKERS,
        .progress = rebase->progress,
        .opaque = rebase->opaque,
    };
    int ret;

    g_ptr_array_add(nodes, rebase->overlay);
    ret = blk_nodes_source_init(&source, nodes, error);
    if (ret < 0) {
        return ret;
    }
    source.below_top = true;
    source.base = find_shared(rebase);
    copy.target = blk_co_attach(rebase->overlay, "rebase", 0, BLK_PERM_ALL, error);
    ret = copy.target ? blk_co_copy(&copy, error) : -EINVAL;
    blk_co_detach(copy.target);
    return ret;
}

int blk_co_rebase(const BlkRebase *rebase, GError **error)
{
    int ret = co_copy_differences(rebase, error);

    if (ret < 0) {
        return ret;
    }
    ret = blk_co_change_backing(rebase->overlay, rebase->filename, rebase->filename ? rebase->format : NULL, error);
    if (ret < 0) {
        g_prefix_error(error, "Could not change the backing file to '%s': ", rebase->filename ? rebase->filename : "");
    }
    return ret;
}
