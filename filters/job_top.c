/* SPDX-License-Identifier: MIT */
/*
 * job_top.c - filter "job-top": stands above a node for the time of a job, which meets the changes of its guests here.
 *
 *     guest's change    holds its range shared while it is under way; then the job is told
 *     job's fill        (BLK_REQ_UNCHANGED) holds its range exclusively, and writes what the child has not got itself
 *
 * What a fill brings was read before it takes its range. That is right all the same: it comes from below the child, where
 * nothing changes, and what a guest has written meanwhile the child has itself. Reads pass. The lock is held only within requests, so
 * that a drain of this node waits for all holders. Users cannot name the driver.
 */
#include "filters/job_top.h"

#include "core/node.h"
#include "core/range_lock.h"

typedef struct JobTop {
    BlkRangeLock lock;
    BlkJobTopChanged *co_changed;   /* (nullable) */
    void *opaque;
} JobTop;

typedef int PassFn(BlkNode *node, BlkRequest *req);

/* Hands down the parts of @req that the child does not have itself. */
static int fill(BlkNode *node, const BlkRequest *req, PassFn *co_pass)
{
    int ret = 0;

    for (uint64_t done = 0; ret == 0 && done < req->bytes; ) {
        BlkRequest part = { req->offset + done, req->bytes - done, blk_iov_advance(req->iov, done), req->flags };
        BlkStatus status;

        ret = blk_co_block_status(node->file->node, part.offset, part.bytes, &status);
        if (ret < 0) {
            break;
        }
        part.bytes = status.bytes;
        if (!(status.flags & BLK_STATUS_ALLOCATED)) {
            ret = co_pass(node, &part);
        }
        done += status.bytes;
    }
    return ret;
}

static int change(BlkNode *node, BlkRequest *req, PassFn *co_pass)
{
    JobTop *s = node->opaque;
    bool fills = req->flags & BLK_REQ_UNCHANGED;
    BlkRangeHold hold;

    blk_co_range_lock(&s->lock, &hold, req->offset, req->bytes, fills);
    int ret = fills ? fill(node, req, co_pass) : co_pass(node, req);
    blk_range_unlock(&s->lock, &hold);
    if (!fills && s->co_changed) {
        s->co_changed(s->opaque, req->offset, req->bytes);
    }
    return ret;
}

static int job_top_co_pwritev(BlkNode *node, BlkRequest *req)
{
    return change(node, req, blk_co_pass_through_write);
}

/* Zeroes that fill hide what lies below, also when the child gets another backing. */
static int pass_zeroes(BlkNode *node, BlkRequest *req)
{
    unsigned hide = req->flags & BLK_REQ_UNCHANGED ? BLK_REQ_HIDE : 0;

    return blk_co_pwrite_zeroes(node->file->node, req->offset, req->bytes, req->flags | hide);
}

static int job_top_co_pwrite_zeroes(BlkNode *node, BlkRequest *req)
{
    return change(node, req, pass_zeroes);
}

static int pass_discard(BlkNode *node, BlkRequest *req)
{
    return blk_co_discard(node->file->node, req->offset, req->bytes);
}

static int job_top_co_discard(BlkNode *node, BlkRequest *req)
{
    return change(node, req, pass_discard);
}

/* A filter without users asks for nothing, so that it can be opened above a node in use, and inserted. */
static void job_top_child_perm(BlkNode *node, BlkChild *child, unsigned perm, unsigned shared, unsigned *child_perm,
                               unsigned *child_shared)
{
    *child_perm = perm;
    *child_shared = perm ? shared & ~(unsigned)(BLK_PERM_WRITE | BLK_PERM_RESIZE) : shared;
}

static const BlkDriver blk_driver_job_top = {
    .name = "job-top",
    .kind = BLK_FILTER,
    .help = "stands above a node for the time of a job",
    .instance_size = sizeof(JobTop),
    .child_perm = job_top_child_perm,
    .co_pwritev = job_top_co_pwritev,
    .co_pwrite_zeroes = job_top_co_pwrite_zeroes,
    .co_discard = job_top_co_discard,
};

BlkNode *blk_co_job_top_insert(BlkNode *node, const char *node_name, GError **error)
{
    BlkNode *filter = blk_co_open_filter(node, &blk_driver_job_top, node_name, error);

    if (filter && blk_co_insert_above(node, filter, error) < 0) {
        blk_co_unref(filter);
        return NULL;
    }
    return filter;
}

void blk_job_top_watch(BlkNode *filter, BlkJobTopChanged *co_changed, void *opaque)
{
    JobTop *s = filter->opaque;

    g_assert(filter->driver == &blk_driver_job_top);
    s->co_changed = co_changed;
    s->opaque = opaque;
}

void blk_co_job_top_remove(BlkNode *filter)
{
    if (filter) {
        blk_job_top_watch(filter, NULL, NULL);
        blk_co_remove_filter(filter, NULL);     /* drains it: who was being told returns first */
        blk_co_unref(filter);
    }
}
