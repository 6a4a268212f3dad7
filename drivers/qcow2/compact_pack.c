/* SPDX-License-Identifier: MIT */
/*
 * compact_pack.c - moves everything down in the file that is not longer than a cluster, until no free space is left below it.
 *
 *     |packed.......|          gap           |next batch| ... |evacuated|
 *
 * See docs/compact.md. What is moved is an extent with all of its references, which follow each other in the window: each
 * window costs a walk through the tables.
 */
#include "drivers/qcow2/compact.h"

#define GAP_BYTES   (UINT64_C(8) << 20) /* of the gap that moves up, at least */
#define NO_PLACE    UINT64_MAX

enum {
    GAP_CLUSTERS = 128,                 /* of the gap, at least: each batch may leave a part of one unused */
    WORTH_WHILE = 256,                  /* one part of so many of the file is free */
    ROUNDS = 3,                         /* at most: what found no place is tried once more */
};

typedef struct Pack {
    Qcow2Compact *c;
    BlkNode *node;
    Qcow2 *q;
    Qcow2RefWindow *w;
    Qcow2RefKind kind;                  /* that is moved now */
    bool lower;                         /* only to lower places */
} Pack;

/* ---- moving one extent ---- */

static int co_copy(Pack *p, const Qcow2Ref *ref, uint64_t to)
{
    BlkNode *file = p->node->file->node;
    uint8_t *buf = blk_buffer_try_alloc(file, qcow2_ref_space(ref));
    int ret = buf ? qcow2_co_ref_read(p->node, ref, buf) : -ENOMEM;

    if (ret == 0) {
        ret = blk_co_pwrite(file, to, qcow2_ref_space(ref), buf, 0);
    }
    blk_buffer_free(buf);
    return ret;
}

/* Lets the references first..end - 1, which are all to one extent, refer to @to. Nobody else changes entries meanwhile. */
static int co_repoint(Pack *p, guint first, guint end, uint64_t to, guint *done)
{
    Qcow2 *q = p->q;
    int ret = 0;

    for (*done = first; ret == 0 && *done < end; (*done)++) {
        const Qcow2Ref *ref = qcow2_ref_at(p->w, *done);
        BlkMetaBlock *block;
        uint8_t *word;
        ret = qcow2_co_ref_get(p->node, p->w, ref, &block, &word);
        if (ret < 0) {
            break;
        }
        blk_put_be64(word, ref->kind == QCOW2_REF_PAYLOAD
                              ? qcow2_compressed_encode(q->cluster_bits, to + (ref->host & 511), ref->bytes)
                              : (blk_get_be64(word) & ~QCOW2_OFFSET_MASK) | to);
        blk_meta_dirty(q->meta, block, BLK_META_MAP);
        blk_meta_put(q->meta, block);
        if (blk_meta_wants_commit(q->meta)) {
            ret = qcow2_co_commit_all(p->node);
        }
    }
    return ret;
}

/* Takes a place for @refs references to the extent; below it, if it is to move down: *to is NO_PLACE if there is none. With
 * alloc_lock held. */
static int co_take_place(Pack *p, const Qcow2Ref *ref, uint64_t refs, uint64_t *to)
{
    Qcow2 *q = p->q;
    uint64_t cluster;

    *to = NO_PLACE;
    if (ref->kind == QCOW2_REF_PAYLOAD) {
        int ret = qcow2_co_alloc_payload(p->node, qcow2_ref_space(ref), refs, p->lower ? qcow2_ref_start(ref) : UINT64_MAX, to);
        if (ret == -EXFULL) {
            *to = NO_PLACE;
            ret = 0;
        }
        return ret;
    }
    gint64 run = qcow2_co_find_run(p->node, 1, &cluster);
    if (run < 0) {
        return (int)run;
    }
    if (p->lower && cluster >= qcow2_cluster_of(q, ref->host)) {
        return 0;
    }
    int ret = qcow2_co_raise_run(p->node, cluster, 1, refs);
    if (ret == 0) {
        *to = cluster << q->cluster_bits;
        q->free_hint = q->append_from ? q->free_hint : cluster + 1;
    }
    return ret;
}

/* What lies at @to from now on is known to be a table if what it was is. */
static int co_register(Pack *p, const Qcow2Ref *ref, uint64_t to)
{
    Qcow2 *q = p->q;

    if (ref->kind == QCOW2_REF_TABLE || ref->kind == QCOW2_REF_BITS) {
        blk_meta_co_forget(q->meta, to, q->cluster_size);       /* what an earlier table there was like */
    }
    if (ref->kind == QCOW2_REF_TABLE) {
        g_hash_table_insert(p->w->moved, GSIZE_TO_POINTER(qcow2_cluster_of(q, ref->host)),
                            GSIZE_TO_POINTER(qcow2_cluster_of(q, to)));
    }
    if (!qcow2_is_table(q, qcow2_cluster_of(q, ref->host))) {
        return 0;
    }
    return qcow2_co_tables_claim(p->node, ref->kind == QCOW2_REF_BITS ? QCOW2_TABLE_BITMAPS : QCOW2_TABLE_ACTIVE_L2, to,
                                 q->cluster_size);
}

/* Can the extent be moved with the references that are known? A payload can always: what else lies in its clusters
 * stays. */
static int co_can_move(Pack *p, const Qcow2Ref *ref, uint64_t refs, bool *can)
{
    if (ref->kind != QCOW2_REF_PAYLOAD) {
        return qcow2_co_refs_complete(p->node, ref, refs, can);
    }
    *can = qcow2_ref_space(ref) <= p->q->cluster_size;
    return 0;
}

/* Qcow2GroupFn */
static int co_move(Qcow2RefWindow *w, guint first, guint end, uint64_t refs, void *opaque)
{
    Pack *p = opaque;
    Qcow2 *q = p->q;
    const Qcow2Ref *ref = qcow2_ref_at(p->w, first);
    bool payload = ref->kind == QCOW2_REF_PAYLOAD, can = false;
    guint done = first;
    uint64_t to;
    int ret = ref->kind == p->kind ? co_can_move(p, ref, refs, &can) : 0;

    if (ret < 0 || !can) {
        return ret;
    }
    blk_co_mutex_lock(&q->alloc_lock);
    ret = co_take_place(p, ref, refs, &to);
    blk_co_mutex_unlock(&q->alloc_lock);
    if (ret < 0 || to == NO_PLACE) {
        return ret;
    }
    ret = co_copy(p, ref, to);
    if (ret == 0) {
        ret = co_register(p, ref, to);
    }
    if (ret == 0) {
        ret = co_repoint(p, first, end, to, &done);
    }
    if (ret == 0) {
        qcow2_drop_all(q, ref->host, ref->bytes, refs, payload);
    } else if (done == first) {
        qcow2_drop_all(q, to, payload ? qcow2_ref_space(ref) : ref->bytes, refs, payload);
    } else {
        p->c->counts_high = true;       /* some refer to the new place, some to the old one: both stay counted for all */
    }
    return ret;
}

/* ---- batches ---- */

static uint64_t gap_bytes(const Pack *p)
{
    return MAX(GAP_BYTES, GAP_CLUSTERS * p->q->cluster_size);
}

/* Moves the extents of references first..end - 1; afterwards all of it is stable, and what was left is free. Tables come
 * first: what they say is in the file, and nobody changes it. Payloads come last, so that the file may end within a
 * cluster. */
static int co_move_batch(Pack *p, guint first, guint end)
{
    int ret = 0;

    for (unsigned kind = 0; ret == 0 && kind < QCOW2_REF_KINDS; kind++) {
        p->kind = kind;
        ret = qcow2_co_refs_each(p->w, first, end, co_move, p);
    }
    return ret < 0 ? ret : qcow2_co_settle(p->node);
}

/* Makes the gap: what lies at @from and behind goes to the end of the file. */
static int co_evacuate(Pack *p, uint64_t from)
{
    Qcow2 *q = p->q;
    int ret = qcow2_co_refs_collect(p->node, p->w, from);

    if (ret < 0) {
        return ret;
    }
    q->append_from = qcow2_cluster_of(q, blk_node_length(p->node->file->node) + q->cluster_size - 1);
    p->lower = false;
    qcow2_payload_retire_bump(q);
    ret = co_move_batch(p, 0, qcow2_refs_batch(p->w, 0, gap_bytes(p)));
    q->append_from = 0;
    qcow2_payload_retire_bump(q);
    return ret;
}

static int co_slide(Pack *p, uint64_t from)
{
    uint64_t length = blk_node_length(p->node->file->node);
    int ret = 0;

    p->lower = true;
    while (ret == 0 && from != UINT64_MAX) {
        ret = qcow2_co_refs_collect(p->node, p->w, from);
        for (guint first = 0, end; ret == 0 && first < p->w->refs->len; first = end) {
            end = qcow2_refs_batch(p->w, first, gap_bytes(p) / 2);     /* the rest is for what does not fit exactly */
            ret = co_move_batch(p, first, end);
            qcow2_compact_progress(p->c, (double)qcow2_ref_at(p->w, end - 1)->host / (double)length);
        }
        from = p->w->until;
    }
    return ret;
}

/* Where the first free space is, and how much there is of it below the end of the file: bytes. */
static int co_find_free_space(Pack *p, uint64_t *first, uint64_t *bytes)
{
    Qcow2 *q = p->q;
    uint64_t there = blk_node_length(p->node->file->node), cluster, used = q->used_clusters << q->cluster_bits;

    blk_co_mutex_lock(&q->alloc_lock);
    qcow2_payload_retire_bump(q);
    gint64 run = qcow2_co_find_run(p->node, 1, &cluster);
    blk_co_mutex_unlock(&q->alloc_lock);
    if (run < 0) {
        return (int)run;
    }
    qcow2_holes_find_lowest(q->holes, 512, first);
    *first = MIN(*first, cluster << q->cluster_bits);
    there += qcow2_holes_bytes(q->holes);       /* also what the last cluster has behind the end, which is used */
    *bytes = there > used ? there - used : 0;
    return 0;
}

/* One round. *done: there is nothing, or not enough, to be won. */
static int co_pack(Pack *p, bool *done)
{
    uint64_t length = blk_node_length(p->node->file->node), from = 0, bytes = 0;
    int ret = co_find_free_space(p, &from, &bytes);

    *done = bytes < length / WORTH_WHILE;
    if (ret < 0 || *done) {
        return ret;
    }
    from = MIN(from, length - MIN(length, gap_bytes(p)));       /* plain clusters above it may have to change places */
    ret = co_evacuate(p, from);
    if (ret == 0) {
        ret = qcow2_co_compact_tables(p->c, NULL);      /* they go to the bottom of the gap: the end is for payloads */
    }
    return ret < 0 ? ret : co_slide(p, from);
}

int qcow2_co_compact_pack(Qcow2Compact *c, Qcow2RefWindow *w, GError **error)
{
    Qcow2 *q = c->node->opaque;
    Pack p = { .c = c, .node = c->node, .q = q, .w = w };
    bool done = false;
    int ret = 0;

    q->keep_freed = true;
    for (unsigned round = 0; ret == 0 && !done && round < ROUNDS; round++) {
        ret = co_pack(&p, &done);
        if (ret == 0) {
            qcow2_co_give_up_free_space(c->node);
        }
    }
    q->keep_freed = false;
    return ret < 0 ? blk_error_errno(error, ret, "could not move data down in the file") : 0;
}
