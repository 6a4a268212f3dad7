/* SPDX-License-Identifier: MIT */
/*
 * throttle.c - filter "throttle": requests wait as long as the limits of a throttle-group say, which other nodes may share.
 *
 * Zeroes and discards are writes of their length. Flushes, and questions about the image, pass. While the node, or one above
 * it, is being drained or closed nobody waits: what goes then counts, so what follows waits longer. See docs/throttle.md.
 */
#include "core/throttle_group.h"

static const BlkOption throttle_options[] = {
    { "file", BLK_OPTION_NODE, "the node whose requests wait", .required = true },
    { "throttle-group", BLK_OPTION_STRING, "id of the object throttle-group that has the limits", .required = true },
    { NULL },
};

static int throttle_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    int ret = blk_throttle_join(node->opaque, node, blk_options_string(options, "throttle-group"), error);

    return ret < 0 || blk_co_open_child(node, options, "file", BLK_ROLE_FILTERED, error) ? ret : -EINVAL;
}

static void throttle_co_close(BlkNode *node)
{
    blk_throttle_leave(node->opaque);
}

static void throttle_hurry(BlkNode *node)
{
    blk_throttle_hurry(node->opaque);
}

static int throttle_co_preadv(BlkNode *node, BlkRequest *req)
{
    blk_throttle_co_wait(node->opaque, false, req->bytes);
    return blk_co_pass_through_read(node, req);
}

static int throttle_co_pwritev(BlkNode *node, BlkRequest *req)
{
    blk_throttle_co_wait(node->opaque, true, req->bytes);
    return blk_co_pass_through_write(node, req);
}

static int throttle_co_pwrite_zeroes(BlkNode *node, BlkRequest *req)
{
    blk_throttle_co_wait(node->opaque, true, req->bytes);
    return blk_co_pwrite_zeroes(node->file->node, req->offset, req->bytes, req->flags);
}

static int throttle_co_discard(BlkNode *node, BlkRequest *req)
{
    blk_throttle_co_wait(node->opaque, true, req->bytes);
    return blk_co_discard(node->file->node, req->offset, req->bytes);
}

const BlkDriver blk_driver_throttle = {
    .name = "throttle",
    .kind = BLK_FILTER,
    .help = "lets requests wait, as the limits of a throttle-group say",
    .options = throttle_options,
    .instance_size = sizeof(BlkThrottleMember),
    .co_open = throttle_co_open,
    .co_close = throttle_co_close,
    .hurry = throttle_hurry,
    .reopens_as_it_is = true,
    .co_preadv = throttle_co_preadv,
    .co_pwritev = throttle_co_pwritev,
    .co_pwrite_zeroes = throttle_co_pwrite_zeroes,
    .co_discard = throttle_co_discard,
};
