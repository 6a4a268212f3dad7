/* SPDX-License-Identifier: MIT */
/*
 * graph_drivers.h - two minimal drivers for tests of the graph.
 */
#ifndef BLKSTACK_TESTS_GRAPH_DRIVERS_H
#define BLKSTACK_TESTS_GRAPH_DRIVERS_H

#include "stack.h"

/* ---- a filter through which all passes ---- */

static const BlkDriver blk_driver_nothing = { .name = "nothing", .kind = BLK_FILTER };

/* ---- a format that has nothing but a backing ---- */

typedef struct Over {
    char room[2048];        /* as much as a driver may have on its stack, and more */
} Over;

static const BlkOption over_options[] = {
    { "backing", BLK_OPTION_NODE, "what is below" },
    { NULL },
};

static int over_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    node->length = 4096;
    return blk_co_open_backing(node, options, NULL, NULL, error);
}

static int over_co_preadv(BlkNode *node, BlkRequest *req)
{
    volatile Over over;
    int ret = 0;

    over.room[0] = 1;
    if (node->backing) {
        ret = blk_co_preadv(node->backing->node, req->offset, req->bytes, req->iov, 0);
    }
    return ret < 0 || over.room[0] != 1 ? -EIO : ret;
}

static const BlkDriver over_driver = {
    .name = "over",
    .kind = BLK_FORMAT,
    .options = over_options,
    .co_open = over_co_open,
    .co_preadv = over_co_preadv,
};

#endif
