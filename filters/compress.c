/* SPDX-License-Identifier: MIT */
/*
 * compress.c - filter "compress": every write becomes a compressed write, also over what was written before.
 *
 * The unit of a write is the cluster of the node below, so that core reads what a smaller write leaves alone. Reads are
 * not changed: a small read stays small. Zeroes and discards pass as they are.
 *
 * Limitations: the node below must be able to rewrite compressed clusters; any other is refused when it becomes the
 * child.
 */
#include "drivers/drivers.h"

static int compress_check_child(BlkNode *node, BlkNode *child, GError **error)
{
    if ((child->caps & BLK_CAP_COMPRESSED_REWRITE) && child->limits.cluster_size > 0) {
        if (child->read_only && !node->read_only) {
            return blk_error(error, -EACCES, "compress: the node '%s' (driver '%s') is read-only; open the filter "
                             "with read-only=on, or the node for writing", blk_node_filename(child),
                             child->driver->name);
        }
        return 0;
    }
    return blk_error(error, -ENOTSUP, "compress: the node '%s' (driver '%s') cannot rewrite compressed clusters; put "
                     "the filter above a qcow2 node without an external data file", blk_node_filename(child),
                     child->driver->name);
}

static void compress_refresh_limits(BlkNode *node)
{
    node->limits.write_align = node->limits.cluster_size;
    node->limits.zeroes_align = node->limits.cluster_size;
}

static int compress_co_pwritev(BlkNode *node, BlkRequest *req)
{
    req->flags |= BLK_REQ_COMPRESSED;
    return blk_co_pass_through_write(node, req);
}

const BlkDriver blk_driver_compress = {
    .name = "compress",
    .kind = BLK_FILTER,
    .help = "turns every write into a compressed write",
    .check_child = compress_check_child,
    .refresh_limits = compress_refresh_limits,
    .co_pwritev = compress_co_pwritev,
};
