/* SPDX-License-Identifier: MIT */
/*
 * context.h - what core's own files know about a context beyond the public API.
 *
 * Layers inside core, each calls only downwards: request, engine -> graph -> options -> context (loop, aio, pool) ->
 * coroutine.
 */
#ifndef BLKSTACK_CORE_CONTEXT_H
#define BLKSTACK_CORE_CONTEXT_H

#include <blkstack/driver.h>

typedef struct BlkGraph BlkGraph;

/* The graph's data of a context: set once by blk_graph_new(), which blk_context_new() calls. */
BlkGraph *blk_context_graph(const BlkContext *ctx);

/* The list of jobs of a context, which core only keeps, and frees; NULL: there was none yet. */
GPtrArray **blk_context_jobs(BlkContext *ctx);

BlkGraph *blk_graph_new(BlkContext *ctx);
void blk_graph_free(BlkGraph *graph);       /* asserts that no node is left */

#endif
