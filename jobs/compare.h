/* SPDX-License-Identifier: MIT */
/*
 * compare.h - do two nodes read the same? And if not, where does the first difference lie?
 */
#ifndef BLKSTACK_JOBS_COMPARE_H
#define BLKSTACK_JOBS_COMPARE_H

#include <blkstack/driver.h>

typedef enum BlkFindingKind {
    BLK_FINDING_NONE,           /* the same; behind the end of the shorter node the longer one is all zeroes */
    BLK_FINDING_CONTENT,        /* at @offset is the first byte that differs */
    BLK_FINDING_STATUS,         /* at @offset the one has data, zeroes or nothing of its own, and the other not */
    BLK_FINDING_NO_STATUS,      /* @node could not say what lies at @offset */
    BLK_FINDING_NOT_READ,       /* @node could not be read, from @offset on */
} BlkFindingKind;

typedef struct BlkFinding {
    BlkFindingKind kind;
    uint64_t offset;            /* bytes */
    BlkNode *node;              /* (transfer none): of an error */
    int ret;                    /* of an error: negative errno */
} BlkFinding;

typedef struct BlkCompare {
    BlkNode *node[2];           /* of any lengths */
    bool strict;                /* the status must be the same too, as far as both reach */
    unsigned workers;           /* ranges in flight, at least 1; each takes 512 KiB to 4 MiB */
    void (*progress)(double fraction, void *opaque);    /* (nullable): 0..1, never less than before */
    void *opaque;
    BlkFinding finding;         /* (out): what comes first in the nodes, whatever was seen first */
} BlkCompare;

/**
 * blk_co_compare:
 *
 * Looks for the first difference, or error, in the order of offsets. What is known without reading is not read: what is
 * zero on both sides, or lies at the same place of the same file.
 * Context: coroutine of the nodes' context; may yield.
 * Returns: 0 with compare->finding set; -ENOMEM.
 */
int blk_co_compare(BlkCompare *compare, GError **error);

#endif
