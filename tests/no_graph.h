/* SPDX-License-Identifier: MIT */
/*
 * no_graph.h - lets a test of the runtime link without the graph: stand-ins that yield to the real functions.
 */
#ifndef BLKSTACK_TEST_NO_GRAPH_H
#define BLKSTACK_TEST_NO_GRAPH_H

#include "core/context.h"

__attribute__((weak)) BlkGraph *blk_graph_new(BlkContext *ctx)
{
    return NULL;
}

__attribute__((weak)) void blk_graph_free(BlkGraph *graph)
{
}

#endif
