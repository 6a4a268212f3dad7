/* SPDX-License-Identifier: MIT */
/*
 * compress_target.c - a compress filter above a job's target, for the job's time. See compress_target.h.
 */
#include "jobs/compress_target.h"

#include "core/node.h"

BlkNode *blk_co_compress_target(BlkNode *target, GError **error)
{
    BlkNode *filter = blk_co_open_filter(target, blk_driver_find(target->ctx, "compress"), NULL, error);

    if (filter && blk_co_insert_above(target, filter, error) < 0) {
        blk_co_unref(filter);
        return NULL;
    }
    return filter;
}

void blk_co_compress_target_end(BlkNode *filter)
{
    g_autoptr(GError) error = NULL;

    if (!filter) {
        return;
    }
    if (blk_co_remove_filter(filter, &error) < 0) {
        blk_node_message(filter, "the compress filter of a job that has ended stays: %s; remove it with "
                         "blockdev-remove-filter when the data can be written", error->message);
    }
    blk_co_unref(filter);
}
