/* SPDX-License-Identifier: MIT */
/*
 * snapshot_access.c - driver "snapshot-access": what the node below a copy-before-write filter held when that filter came.
 *
 *     readers ──> snapshot-access ──file──> copy-before-write <── guests, which write on
 *
 * It can only be read. What the filter does not keep, since its bitmap left it out or a reader has discarded it, and all when
 * the point in time is lost, is -EACCES. A discard says that the range will not be read again, so it need not be copied.
 */
#include "drivers/drivers.h"

#include "filters/copy_before_write.h"

typedef struct SnapshotAccess {
    BlkChild *file;
} SnapshotAccess;

static const BlkOption snapshot_access_options[] = {
    { "file", BLK_OPTION_NODE, "a copy-before-write filter", .required = true },
    { NULL },
};

static int snapshot_access_check_child(BlkNode *node, BlkNode *child, GError **error)
{
    if (!blk_is_copy_before_write(child)) {
        return blk_error(error, -EINVAL, "snapshot-access: the node '%s' (driver '%s') keeps no point in time: it must be a "
                         "copy-before-write filter", blk_node_name(child), child->driver->name);
    }
    return 0;
}

static int snapshot_access_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    SnapshotAccess *s = node->opaque;

    s->file = blk_co_open_child(node, options, "file", BLK_ROLE_COPY, error);
    if (!s->file || snapshot_access_check_child(node, s->file->node, error) < 0) {
        return -EINVAL;
    }
    node->length = s->file->node->length;
    return 0;
}

static BlkNode *filter_of(BlkNode *node)
{
    return ((SnapshotAccess *)node->opaque)->file->node;
}

/* It reads beside those who write. */
static void snapshot_access_child_perm(BlkNode *node, BlkChild *child, unsigned perm, unsigned shared,
                                       unsigned *child_perm, unsigned *child_shared)
{
    *child_perm = BLK_PERM_READ;
    *child_shared = BLK_PERM_ALL;
}

static int snapshot_access_co_preadv(BlkNode *node, BlkRequest *req)
{
    return blk_cbw_co_read(filter_of(node), req->offset, req->bytes, req->iov);
}

static int snapshot_access_co_block_status(BlkNode *node, uint64_t offset, uint64_t bytes, BlkStatus *status)
{
    return blk_cbw_co_status(filter_of(node), offset, bytes, status);
}

static int refuse_write(BlkNode *node, BlkRequest *req)
{
    return -EACCES;
}

static int snapshot_access_co_discard(BlkNode *node, BlkRequest *req)
{
    return blk_cbw_co_discard(filter_of(node), req->offset, req->bytes);
}

static void snapshot_access_refresh_limits(BlkNode *node)
{
    node->limits.discard_align = 1;
}

const BlkDriver blk_driver_snapshot_access = {
    .name = "snapshot-access",
    .kind = BLK_PROTOCOL,
    .help = "shows what a copy-before-write filter keeps",
    .options = snapshot_access_options,
    .instance_size = sizeof(SnapshotAccess),
    .co_open = snapshot_access_co_open,
    .refresh_limits = snapshot_access_refresh_limits,
    .child_perm = snapshot_access_child_perm,
    .check_child = snapshot_access_check_child,
    .co_preadv = snapshot_access_co_preadv,
    .co_pwritev = refuse_write,
    .co_pwrite_zeroes = refuse_write,
    .co_discard = snapshot_access_co_discard,
    .co_block_status = snapshot_access_co_block_status,
};
