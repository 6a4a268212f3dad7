/* SPDX-License-Identifier: MIT */
/*
 * compact.h - the steps of a compaction: see docs/compact.md.
 *
 *   compact.c          the order of things
 *   compact_shrink.c   compresses what is not, or not well, and belongs to the active disk alone
 *   compact_refs.c     who refers to what: a window of host space at a time
 *   compact_shared.c   compresses what snapshots hold
 *   compact_pack.c     moves everything down that is not longer than a cluster
 *   compact_tables.c   moves the rest: whole tables, refcount blocks
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
    bool counts_high;                   /* a failure left counts higher than the references */
} Qcow2Compact;

/* @fraction: of this step. */
static inline void qcow2_compact_progress(const Qcow2Compact *c, double fraction)
{
    if (c->options->progress) {
        c->options->progress(c->from + (c->to - c->from) * MIN(fraction, 1), c->options->opaque);
    }
}

/* The next step ends at @to of the whole. */
static inline void qcow2_compact_phase(Qcow2Compact *c, double to)
{
    c->from = c->to;
    c->to = to;
}

/* ---- compact_shrink.c: the survey is complete ---- */

/* Context of all: coroutine in a drained node. May yield. */
int qcow2_co_compact_shrink(Qcow2Compact *c, GError **error);

/* ---- compact_refs.c ---- */

typedef enum Qcow2RefKind {             /* what a reference refers to, in the order in which they are packed */
    QCOW2_REF_TABLE,                    /* an L2 table */
    QCOW2_REF_BITS,                     /* a cluster of a bitmap's bits */
    QCOW2_REF_CLUSTER,                  /* a plain cluster of guest data */
    QCOW2_REF_PAYLOAD,
    QCOW2_REF_KINDS,
} Qcow2RefKind;

typedef struct Qcow2Ref {
    uint64_t host, place;               /* offsets: of what it refers to; of the 8 bytes in the file that say so */
    uint32_t bytes;                     /* of what it refers to, from @host on */
    uint32_t refs;                      /* it counts so often: as the table that it stands in */
    Qcow2RefKind kind;
    bool active;                        /* plain, and nobody's but the active disk's */
} Qcow2Ref;

/* All references to what lies in a part of the file, and begins before its end. */
typedef struct Qcow2RefWindow {
    uint64_t from, until;               /* host offsets, of clusters */
    GArray *refs;                       /* of Qcow2Ref, by host offset; those to the same follow each other */
    GHashTable *moved;                  /* clusters (index) of tables that have moved since -> where they are now */
    guint limit;                        /* refs that are kept at once */
} Qcow2RefWindow;

void qcow2_refs_init(Qcow2RefWindow *w);
void qcow2_refs_clear(Qcow2RefWindow *w);

/* Collects what lies at @from (rounded down to a cluster) or behind, as much as there is room for. The tables in the file
 * are up to date. Returns: 0; -EIO and others. */
int qcow2_co_refs_collect(BlkNode *node, Qcow2RefWindow *w, uint64_t from);

static inline const Qcow2Ref *qcow2_ref_at(const Qcow2RefWindow *w, guint i)
{
    return &g_array_index(w->refs, Qcow2Ref, i);
}

/* The first reference behind those to the same extent as reference @i. *refs: how many references these are. */
guint qcow2_refs_group(const Qcow2RefWindow *w, guint i, uint64_t *refs);

/* What is done with references @first to @end - 1, which are all to one extent, and count @refs times together. May yield. */
typedef int Qcow2GroupFn(Qcow2RefWindow *w, guint first, guint end, uint64_t refs, void *opaque);

/* Calls @fn for the groups that begin in the window from reference @first to @end - 1, some of them at once. */
int qcow2_co_refs_each(Qcow2RefWindow *w, guint first, guint end, Qcow2GroupFn *fn, void *opaque);

/* The end of a batch of groups, from @first on, whose extents are about @most bytes. */
guint qcow2_refs_batch(const Qcow2RefWindow *w, guint first, uint64_t most);

/* Holds what says that reference: *word points to the 8 bytes. */
int qcow2_co_ref_get(BlkNode *node, const Qcow2RefWindow *w, const Qcow2Ref *ref, BlkMetaBlock **block, uint8_t **word);

/* Are these all references that the cluster has? */
int qcow2_co_refs_complete(BlkNode *node, const Qcow2Ref *ref, uint64_t refs, bool *complete);

/* Finds the holes in all clusters of payloads of the whole file, also of those that snapshots use. From here on payloads may
 * only be dropped with all their references at once, until qcow2_payload_forget(). */
int qcow2_co_refs_learn(BlkNode *node, Qcow2RefWindow *w);

/* The sectors that hold the payload: where they begin, and how many bytes they are. */
static inline uint64_t qcow2_ref_start(const Qcow2Ref *ref)
{
    return ref->host & ~UINT64_C(511);
}

static inline uint64_t qcow2_ref_space(const Qcow2Ref *ref)
{
    return (ref->host & 511) + ref->bytes;
}

/* Reads those sectors, or the cluster or table. */
int qcow2_co_ref_read(BlkNode *node, const Qcow2Ref *ref, uint8_t *buf);

/* ---- the steps: qcow2_co_refs_learn() was called ---- */

int qcow2_co_compact_shared(Qcow2Compact *c, Qcow2RefWindow *w, GError **error);
int qcow2_co_compact_pack(Qcow2Compact *c, Qcow2RefWindow *w, GError **error);
int qcow2_co_compact_tables(Qcow2Compact *c, GError **error);

#endif
