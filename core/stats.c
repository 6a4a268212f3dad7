/* SPDX-License-Identifier: MIT */
/*
 * stats.c - what a node has done, and who wants to know when it is written to beyond a threshold.
 */
#include "core/node.h"

const BlkStats *blk_node_stats(const BlkNode *node)
{
    return &node->core->stats;
}

void blk_node_set_write_threshold(BlkNode *node, uint64_t threshold)
{
    node->core->write_threshold = threshold;
}

uint64_t blk_node_write_threshold(const BlkNode *node)
{
    return node->core->write_threshold;
}

void blk_stats_pass_threshold(BlkNode *node, uint64_t end)
{
    uint64_t threshold = node->core->write_threshold;
    JsonObject *data = json_object_new();

    node->core->write_threshold = 0;
    json_object_set_string_member(data, "node-name", blk_node_name(node));
    json_object_set_int_member(data, "amount-exceeded", (gint64)(end - threshold));
    json_object_set_int_member(data, "write-threshold", (gint64)threshold);
    blk_notify(node->ctx, "BLOCK_WRITE_THRESHOLD", data);
}
