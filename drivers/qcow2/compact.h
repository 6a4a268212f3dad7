/* SPDX-License-Identifier: MIT */
/*
 * compact.h - the steps of a compaction: see docs/compact.md.
 *
 *   compact.c          the order of things
 *   compact_shrink.c   compresses what is not, or not well
 *   compact_pack.c     moves everything down
 */
#ifndef BLKSTACK_QCOW2_COMPACT_H
#define BLKSTACK_QCOW2_COMPACT_H

#include "core/engine.h"
#include "drivers/qcow2/qcow2.h"

enum { QCOW2_COMPACT_TASKS = 16 };      /* clusters in flight */

typedef struct Qcow2Compact {
    BlkNode *node;
    const BlkCompactOptions *options;
    double from, to;                    /* the part of the whole that this step is */
} Qcow2Compact;

/* @fraction: of this step. */
static inline void qcow2_compact_progress(const Qcow2Compact *c, double fraction)
{
    if (c->options->progress) {
        c->options->progress(c->from + (c->to - c->from) * MIN(fraction, 1), c->options->opaque);
    }
}

/* Context: coroutine in a drained node whose survey is complete. May yield. */
int qcow2_co_compact_shrink(Qcow2Compact *c, GError **error);
int qcow2_co_compact_pack(Qcow2Compact *c, GError **error);

#endif
