/* SPDX-License-Identifier: MIT */
/*
 * flush.c - flushes, and writes that must be stable when they return.
 *
 * Each change of a node raises its generation when it returns. A flush that finds that nothing changed since the last
 * one began does not bother the driver; flushes that arrive meanwhile share one.
 */
#include "core/request.h"

static int driver_flush(BlkNode *node)
{
    if (node->driver->kind == BLK_PROTOCOL && node->core->flags.no_flush) {
        return 0;
    }
    if (node->file && (node->driver->co_flush || node->core->engine)) {
        blk_co_event(node->file->node, BLK_EVENT_flush_to_os);
        blk_co_event(node->file->node, BLK_EVENT_flush_to_disk);
    }
    if (node->driver->co_flush) {
        return node->driver->co_flush(node);
    }
    return node->core->engine ? blk_engine_co_flush(node) : 0;
}

static int flush_own(BlkNode *node)
{
    BlkNodeCore *core = node->core;
    uint64_t wanted = core->write_gen;
    int ret = 0;

    while (core->flushing) {
        blk_co_queue_wait(&core->flush_waiters);
    }
    if (core->flushed_gen < wanted) {
        wanted = core->write_gen;
        core->flushing = true;
        ret = driver_flush(node);
        core->flushing = false;
        if (ret == 0) {
            core->flushed_gen = wanted;
        }
        blk_co_queue_wake_all(&core->flush_waiters);
    }
    return ret;
}

int blk_request_flush_children(BlkNode *node)
{
    int ret = 0;

    for (GList *l = node->core->children.head; l && ret == 0; l = l->next) {
        BlkChild *edge = l->data;

        if (blk_edge_stores(edge)) {
            ret = blk_co_flush(edge->node);
        }
    }
    return ret;
}

int blk_request_flush(BlkNode *node)
{
    int ret = flush_own(node);

    return ret < 0 ? ret : blk_request_flush_children(node);
}

bool blk_node_needs_flush(const BlkNode *node)
{
    return node->core->write_gen > MAX(node->core->flushed_gen, 1);     /* 1: what it begins with */
}

int blk_co_flush(BlkNode *node)
{
    int ret;

    blk_co_request_begin(&node);
    ret = node->read_only ? 0 : blk_request_flush(node);
    blk_stats_count(node, BLK_STATS_FLUSH, 0, ret);
    blk_request_end(node);
    return ret;
}

/* Whether zeroes may give space back is up to users, and for what another node sends to the node's option. */
static bool may_unmap(const BlkNode *node)
{
    bool sent_by_node = false;

    for (const GList *l = node->core->parents.head; l && !sent_by_node; l = l->next) {
        sent_by_node = ((const BlkChild *)l->data)->parent != NULL;
    }
    return node->core->flags.unmap || !sent_by_node;
}

unsigned blk_request_driver_flags(const BlkNode *node, unsigned flags)
{
    if (!(node->caps & BLK_CAP_FUA) || node->core->flags.no_flush) {
        flags &= ~BLK_REQ_FUA;
    }
    if ((flags & BLK_REQ_UNMAP) && !may_unmap(node)) {
        flags &= ~BLK_REQ_UNMAP;
    }
    return flags & ~BLK_REQ_SERIALISING;
}

int blk_request_finish_write(BlkNode *node, unsigned flags, int ret)
{
    node->core->write_gen++;
    if (ret == 0 && (flags & BLK_REQ_FUA) && !(node->caps & BLK_CAP_FUA)) {
        ret = blk_request_flush(node);
    }
    return ret;
}
