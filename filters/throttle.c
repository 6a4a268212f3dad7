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

static const char *const throttle_reopen_options[] = { "throttle-group", NULL };

typedef struct ThrottleState {
    BlkThrottleMember member;
    BlkThrottleMember next;         /* of a reopening, which may still be taken back: of the group that will have the limits */
} ThrottleState;

static int throttle_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    ThrottleState *s = node->opaque;
    int ret = blk_throttle_join(&s->member, node, blk_options_string(options, "throttle-group"), error);

    return ret < 0 || blk_co_open_child(node, options, "file", BLK_ROLE_FILTERED, error) ? ret : -EINVAL;
}

static void throttle_co_close(BlkNode *node)
{
    blk_throttle_leave(&((ThrottleState *)node->opaque)->member);
}

static int throttle_co_reopen_prepare(BlkNode *node, const BlkReopen *to, GError **error)
{
    ThrottleState *s = node->opaque;

    return to->options ? blk_throttle_join(&s->next, node, blk_options_string(to->options, "throttle-group"), error) : 0;
}

static void throttle_co_reopen_abort(BlkNode *node)
{
    blk_throttle_leave(&((ThrottleState *)node->opaque)->next);
}

/* Nobody waits, since the node is drained. */
static void throttle_co_reopen_commit(BlkNode *node)
{
    ThrottleState *s = node->opaque;

    if (s->next.group) {
        blk_throttle_leave(&s->member);
        blk_throttle_join(&s->member, node, s->next.group->id, NULL);
        blk_throttle_leave(&s->next);
    }
}

static void throttle_hurry(BlkNode *node)
{
    blk_throttle_hurry(&((ThrottleState *)node->opaque)->member);
}

static int throttle_co_preadv(BlkNode *node, BlkRequest *req)
{
    blk_throttle_co_wait(&((ThrottleState *)node->opaque)->member, false, req->bytes);
    return blk_co_pass_through_read(node, req);
}

static int throttle_co_pwritev(BlkNode *node, BlkRequest *req)
{
    blk_throttle_co_wait(&((ThrottleState *)node->opaque)->member, true, req->bytes);
    return blk_co_pass_through_write(node, req);
}

static int throttle_co_pwrite_zeroes(BlkNode *node, BlkRequest *req)
{
    blk_throttle_co_wait(&((ThrottleState *)node->opaque)->member, true, req->bytes);
    return blk_co_pwrite_zeroes(node->file->node, req->offset, req->bytes, req->flags);
}

static int throttle_co_discard(BlkNode *node, BlkRequest *req)
{
    blk_throttle_co_wait(&((ThrottleState *)node->opaque)->member, true, req->bytes);
    return blk_co_discard(node->file->node, req->offset, req->bytes);
}

const BlkDriver blk_driver_throttle = {
    .name = "throttle",
    .kind = BLK_FILTER,
    .help = "lets requests wait, as the limits of a throttle-group say",
    .options = throttle_options,
    .instance_size = sizeof(ThrottleState),
    .co_open = throttle_co_open,
    .co_close = throttle_co_close,
    .reopen_options = throttle_reopen_options,
    .co_reopen_prepare = throttle_co_reopen_prepare,
    .co_reopen_commit = throttle_co_reopen_commit,
    .co_reopen_abort = throttle_co_reopen_abort,
    .hurry = throttle_hurry,
    .reopens_as_it_is = true,
    .co_preadv = throttle_co_preadv,
    .co_pwritev = throttle_co_pwritev,
    .co_pwrite_zeroes = throttle_co_pwrite_zeroes,
    .co_discard = throttle_co_discard,
};
