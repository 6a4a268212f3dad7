/* SPDX-License-Identifier: MIT */
/*
 * compact_shared.c - compresses what snapshots hold, alone or with the active disk and each other.
 *
 *     L2 --+
 *     L2 --+--> cluster      becomes      L2 --+
 *     L2 --+                              L2 --+--> payload, counted as often
 *                                         L2 --+
 *
 * The payload is counted for all references first; when they all refer to it the cluster loses all of its own. Payloads at
 * odd places are written anew if that takes fewer sectors. A cluster stays if its references disagree about which of its
 * subclusters hold data.
 */
#include "drivers/qcow2/compact.h"

#define BATCH_BYTES (UINT64_C(8) << 20)

typedef struct Shared {
    Qcow2Compact *c;
    BlkNode *node;
    Qcow2 *q;
    uint64_t failed;                    /* host offset */
} Shared;

/* What becomes of one extent. */
typedef struct Change {
    uint64_t data_refs;                 /* of the entries that say that it is data; the others say that it is zeroes */
    uint8_t *payload;                   /* NULL: it is all zeroes, or not to be changed */
    uint64_t bytes, offset;             /* of the payload, in whole sectors; where it is to be */
    bool zeroes;
} Change;

/* ---- which ---- */

/* Do all entries say that the whole cluster is data, or that it is zeroes? */
static int co_look_at_entries(Shared *s, Qcow2RefWindow *w, guint first, guint end, Change *change, bool *fit)
{
    Qcow2 *q = s->q;

    *fit = true;
    for (guint i = first; *fit && i < end; i++) {
        const Qcow2Ref *ref = qcow2_ref_at(w, i);
        BlkMetaBlock *block;
        uint8_t *word;
        int ret = qcow2_co_ref_get(s->node, w, ref, &block, &word);
        if (ret < 0) {
            return ret;
        }
        Qcow2Entry entry = qcow2_entry_get(q, word);
        blk_meta_put(q->meta, block);
        bool data = entry.word & QCOW2_COMPRESSED || (entry.data == q->all_subclusters && entry.zero == 0);
        *fit = data || (entry.zero == q->all_subclusters && entry.data == 0);
        change->data_refs += data ? ref->refs : 0;
    }
    return 0;
}

static bool is_candidate(const Qcow2Ref *ref, const Qcow2 *q)
{
    switch (ref->kind) {
    case QCOW2_REF_CLUSTER:
        return !ref->active;
    case QCOW2_REF_PAYLOAD:
        return ref->host % 512 != 0 && qcow2_ref_space(ref) <= q->cluster_size;
    default:
        return false;
    }
}

/* ---- the content ---- */

/* Reads the cluster's content to @cluster. */
static int co_read(Shared *s, const Qcow2Ref *ref, uint8_t *cluster)
{
    if (ref->kind != QCOW2_REF_PAYLOAD) {
        return qcow2_co_ref_read(s->node, ref, cluster);
    }
    uint8_t *buf = blk_buffer_try_alloc(s->node->file->node, qcow2_ref_space(ref));
    int ret = buf ? qcow2_co_ref_read(s->node, ref, buf) : -ENOMEM;
    if (ret == 0) {
        ret = blk_co_codec_decompress(s->q->codec, cluster, s->q->cluster_size, buf + (ref->host & 511), ref->bytes);
    }
    blk_buffer_free(buf);
    return ret;
}

/* Makes the payload, if it is worth while: change->payload is from blk_engine_buffer_get(). */
static int co_make_payload(Shared *s, const Qcow2Ref *ref, uint8_t *cluster, Change *change)
{
    Qcow2 *q = s->q;
    uint64_t room = ref->kind == QCOW2_REF_PAYLOAD ? qcow2_ref_space(ref) : q->cluster_size;
    int ret = co_read(s, ref, cluster);

    if (ret < 0) {
        return ret;
    }
    if (ref->kind == QCOW2_REF_CLUSTER && q->header.version >= 3 && blk_buffer_is_zero(cluster, q->cluster_size)) {
        change->zeroes = true;
        return 0;
    }
    uint8_t *payload = room > 512 ? blk_engine_buffer_get(s->node) : NULL;
    if (!payload) {
        return room > 512 ? -ENOMEM : 0;
    }
    gssize n = blk_co_codec_compress(q->codec, 0, payload, room - 512, cluster, q->cluster_size);
    if (n < 0) {
        blk_engine_buffer_put(s->node, payload);
        return n == -ENOSPC ? 0 : (int)n;
    }
    change->payload = payload;
    change->bytes = ((uint64_t)n + 511) & ~UINT64_C(511);
    memset(payload + n, 0, change->bytes - (uint64_t)n);
    return 0;
}

/* ---- the change ---- */

static int co_write_payload(Shared *s, Change *change)
{
    Qcow2 *q = s->q;

    blk_co_mutex_lock(&q->alloc_lock);
    int ret = qcow2_co_alloc_payload(s->node, change->bytes, change->data_refs, UINT64_MAX, &change->offset);
    blk_co_mutex_unlock(&q->alloc_lock);
    if (ret == 0) {
        ret = blk_co_pwrite(s->node->file->node, change->offset, change->bytes, change->payload, 0);
        if (ret < 0) {
            qcow2_drop_all(q, change->offset, change->bytes, change->data_refs, true);
        }
    }
    return ret;
}

static int co_change_entry(Shared *s, Qcow2RefWindow *w, const Qcow2Ref *ref, const Change *change)
{
    Qcow2 *q = s->q;
    BlkMetaBlock *block;
    uint8_t *word;
    int ret = qcow2_co_ref_get(s->node, w, ref, &block, &word);

    if (ret < 0) {
        return ret;
    }
    Qcow2Entry entry = qcow2_entry_get(q, word);
    if (change->zeroes || (!(entry.word & QCOW2_COMPRESSED) && entry.data == 0)) {
        entry = (Qcow2Entry) { .zero = q->all_subclusters };
    } else {
        entry = (Qcow2Entry) { .word = qcow2_compressed_encode(q->cluster_bits, change->offset, change->bytes) };
    }
    qcow2_entry_put(q, word, entry);
    blk_meta_dirty(q->meta, block, BLK_META_MAP);
    blk_meta_put(q->meta, block);
    return blk_meta_wants_commit(q->meta) ? qcow2_co_commit_all(s->node) : 0;
}

static int co_change(Shared *s, Qcow2RefWindow *w, guint first, guint end, uint64_t refs, Change *change)
{
    const Qcow2Ref *ref = qcow2_ref_at(w, first);
    int ret = change->payload ? co_write_payload(s, change) : 0;

    if (ret < 0) {
        return ret;
    }
    for (guint i = first; ret == 0 && i < end; i++) {
        ret = co_change_entry(s, w, qcow2_ref_at(w, i), change);
    }
    if (ret < 0) {
        s->c->counts_high = true;       /* some refer to the payload, some to what was: both stay counted for all */
        return ret;
    }
    qcow2_drop_all(s->q, ref->host, ref->bytes, refs, ref->kind == QCOW2_REF_PAYLOAD);
    return 0;
}

/* Qcow2GroupFn */
static int co_shrink_group(Qcow2RefWindow *w, guint first, guint end, uint64_t refs, void *opaque)
{
    Shared *s = opaque;
    const Qcow2Ref *ref = qcow2_ref_at(w, first);
    Change change = { .data_refs = 0 };
    bool fit = is_candidate(ref, s->q);
    uint8_t *cluster = NULL;
    int ret = 0;

    if (fit && ref->kind == QCOW2_REF_CLUSTER) {
        ret = qcow2_co_refs_complete(s->node, ref, refs, &fit);
    }
    if (ret == 0 && fit) {
        ret = co_look_at_entries(s, w, first, end, &change, &fit);
    }
    if (ret < 0 || !fit) {
        return ret;
    }
    change.zeroes = change.data_refs == 0;
    if (!change.zeroes) {
        cluster = blk_engine_buffer_get(s->node);
        ret = cluster ? co_make_payload(s, ref, cluster, &change) : -ENOMEM;
    }
    if (ret == 0 && (change.payload || change.zeroes)) {
        ret = co_change(s, w, first, end, refs, &change);
    }
    blk_engine_buffer_put(s->node, change.payload);
    blk_engine_buffer_put(s->node, cluster);
    s->failed = ret < 0 ? ref->host : s->failed;
    return ret;
}

int qcow2_co_compact_shared(Qcow2Compact *c, Qcow2RefWindow *w, GError **error)
{
    Shared s = { .c = c, .node = c->node, .q = c->node->opaque };
    uint64_t length = blk_node_length(c->node->file->node);
    int ret = 0;

    for (uint64_t from = 0; ret == 0 && from != UINT64_MAX; from = w->until) {
        ret = qcow2_co_refs_collect(c->node, w, from);
        for (guint first = 0, end; ret == 0 && first < w->refs->len; first = end) {
            end = qcow2_refs_batch(w, first, BATCH_BYTES);
            ret = qcow2_co_refs_each(w, first, end, co_shrink_group, &s);
            if (ret == 0) {
                ret = qcow2_co_settle(c->node);
            }
            qcow2_compact_progress(c, (double)qcow2_ref_at(w, end - 1)->host / (double)length);
        }
    }
    if (ret < 0) {
        return blk_error_errno(error, ret, "could not store the cluster at host offset %" PRIu64 " in less space", s.failed);
    }
    return 0;
}
