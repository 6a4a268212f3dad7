/* SPDX-License-Identifier: MIT */
/*
 * alloc.c - host space of a qcow2 image.
 *
 *     free (refcount 0) --take--> in use --drop--> dropped --commit frozen--> frozen --commit stable--> limbo
 *        ^                                                                                               |
 *        +------------- refcount lowered when all readers that may still look at it have ended ----------+
 *
 * Whole clusters come from the refcounts, lowest first. Space for payloads: see payload.c.
 */
#include "drivers/qcow2/qcow2.h"

int qcow2_co_alloc_open(BlkNode *node, GError **error)
{
    Qcow2 *q = node->opaque;

    q->corrupt = q->corrupt_read = false;
    q->tables = g_hash_table_new(NULL, NULL);
    q->drops = g_array_new(FALSE, FALSE, sizeof(Qcow2Drop));
    qcow2_payload_open(q);
    qcow2_punch_open(q);
    return qcow2_co_tables_open(node, error);
}

static void batch_free(void *data)
{
    Qcow2Batch *batch = data;

    g_array_unref(batch->drops);
    g_free(batch);
}

void qcow2_alloc_close(Qcow2 *q)
{
    g_clear_pointer(&q->tables, g_hash_table_unref);
    g_clear_pointer(&q->drops, g_array_unref);
    g_clear_pointer(&q->frozen_drops, g_array_unref);
    g_queue_clear_full(&q->limbo, batch_free);
    qcow2_payload_close(q);
    qcow2_punch_close(q);
    q->free_hint = q->used_clusters = q->used_counted = q->dropped_bytes = q->frozen_bytes = q->limbo_bytes = 0;
}

/* ---- whole clusters ---- */

/* The first free cluster at or behind *first, and how many follow it, up to @max. A range without refcount block is
 * given one. */
static gint64 co_find_free(BlkNode *node, uint64_t max, uint64_t *first)
{
    Qcow2 *q = node->opaque;
    unsigned order = q->header.refcount_order;
    uint64_t cluster = *first, index, count, run = 0;

    if (q->corrupt) {
        return -EIO;
    }
    while (run == 0) {
        BlkMetaBlock *block;
        int ret = qcow2_co_refcount_find(node, cluster, &block, &index, &count);
        if (ret < 0) {
            return ret;
        }
        if (!block) {
            ret = qcow2_co_refcount_add_block(node, cluster);
            if (ret < 0) {
                return ret;
            }
            continue;
        }
        while (index < count && qcow2_refcount_get(block->data, order, index) != 0) {
            index++;
            cluster++;
        }
        while (index + run < count && run < max && qcow2_refcount_get(block->data, order, index + run) == 0) {
            run++;
        }
        blk_meta_put(q->meta, block);
        if (cluster >= q->host_limit >> q->cluster_bits) {
            return -EFBIG;
        }
    }
    for (uint64_t i = 0; i < run; i++) {
        if (qcow2_is_table(q, cluster + i)) {
            return qcow2_co_corrupt_at(node, (cluster + i) << q->cluster_bits, q->cluster_size, "the free cluster at offset %#"
                                       PRIx64 " must not be allocated: %s lies there", (cluster + i) << q->cluster_bits, qcow2_table_name(q, cluster + i));
        }
    }
    *first = cluster;
    return (gint64)run;
}

int qcow2_co_raise_run(BlkNode *node, uint64_t first, uint64_t count, uint64_t refs)
{
    for (uint64_t i = 0; i < count; i++) {
        int ret = qcow2_co_refcount_raise(node, first + i, refs);
        if (ret < 0) {
            Qcow2 *q = node->opaque;
            if (i > 0) {
                qcow2_drop_all(q, first << q->cluster_bits, i << q->cluster_bits, refs, false);
            }
            return ret;
        }
    }
    return 0;
}

gint64 qcow2_co_find_run(BlkNode *node, uint64_t max, uint64_t *first)
{
    Qcow2 *q = node->opaque;
    int ret = qcow2_co_drain_limbo(node);

    if (ret < 0) {
        return ret;
    }
    *first = MAX(q->free_hint, q->append_from);
    gint64 run = co_find_free(node, max, first);
    if (run > 0 && !q->append_from) {
        q->free_hint = *first;
    }
    return run;
}

gint64 qcow2_co_alloc_clusters(BlkNode *node, uint64_t max, uint64_t *first)
{
    Qcow2 *q = node->opaque;
    gint64 run = qcow2_co_find_run(node, max, first);

    if (run < 0) {
        return run;
    }
    int ret = qcow2_co_raise_run(node, *first, (uint64_t)run, 1);
    if (ret < 0) {
        return ret;
    }
    qcow2_note_taken(q, (uint64_t)run << q->cluster_bits);
    if (!q->append_from) {
        q->free_hint = *first + (uint64_t)run;
    }
    return run;
}

int qcow2_co_find_short_run(BlkNode *node, uint64_t count, uint64_t *first)
{
    Qcow2 *q = node->opaque;
    uint64_t have = 0, cluster;

    *first = MAX(q->free_hint, q->append_from);
    while (have < count) {
        cluster = *first + have;
        gint64 run = co_find_free(node, count - have, &cluster);
        if (run < 0) {
            return (int)run;
        }
        if (cluster != *first + have) {
            *first = cluster;
            have = 0;
        }
        have += (uint64_t)run;
    }
    return 0;
}

int qcow2_co_alloc_contiguous(BlkNode *node, uint64_t count, uint64_t *first)
{
    Qcow2 *q = node->opaque;
    int ret = qcow2_co_drain_limbo(node);

    if (ret == 0) {
        ret = count < UINT64_C(1) << q->refblock_bits ? qcow2_co_find_short_run(node, count, first)
                                                     : qcow2_co_refcount_add_span(node, count, first);
    }
    return ret < 0 ? ret : qcow2_co_raise_run(node, *first, count, 1);
}

/* ---- dropped space ---- */

static void add_drop(Qcow2 *q, const Qcow2Drop *drop)
{
    g_array_append_vals(q->drops, drop, 1);
    q->dropped_bytes += drop->bytes;
}

void qcow2_drop_for(Qcow2 *q, uint64_t offset, uint64_t bytes, bool payload, Qcow2DropReason reason)
{
    add_drop(q, &(Qcow2Drop) { .offset = offset, .bytes = bytes, .refs = 1, .payload = payload, .reason = reason });
}

void qcow2_drop_all(Qcow2 *q, uint64_t offset, uint64_t bytes, uint64_t refs, bool payload)
{
    add_drop(q, &(Qcow2Drop) { .offset = offset, .bytes = bytes, .refs = refs, .payload = payload });
}

void qcow2_commit_freeze(void *opaque)
{
    BlkNode *node = opaque;
    Qcow2 *q = node->opaque;

    if (!q->drops) {
        return;
    }
    q->frozen_drops = g_steal_pointer(&q->drops);
    q->frozen_epoch = blk_engine_read_epoch(node);
    q->frozen_bytes = q->dropped_bytes;
    q->dropped_bytes = 0;
    q->drops = g_array_new(FALSE, FALSE, sizeof(Qcow2Drop));
}

void qcow2_commit_done(bool ok, void *opaque)
{
    BlkNode *node = opaque;
    Qcow2 *q = node->opaque;
    g_autoptr(GArray) drops = g_steal_pointer(&q->frozen_drops);

    if (!drops || drops->len == 0) {
        return;
    }
    if (ok) {
        Qcow2Batch *batch = g_new0(Qcow2Batch, 1);
        batch->drops = g_steal_pointer(&drops);
        batch->epoch = q->frozen_epoch;
        batch->bytes = q->frozen_bytes;
        q->limbo_bytes += batch->bytes;
        g_queue_push_tail(&q->limbo, batch);
    } else {
        g_array_append_vals(q->drops, drops->data, drops->len);
        q->dropped_bytes += q->frozen_bytes;
    }
    q->frozen_bytes = 0;
}

static void cluster_is_free(Qcow2 *q, uint64_t cluster)
{
    qcow2_payload_cluster_freed(q, cluster);
    qcow2_tables_remove(q, cluster << q->cluster_bits, q->cluster_size);
    q->free_hint = MIN(q->free_hint, cluster);
}

static void note_freed(Qcow2 *q, uint64_t offset, uint64_t bytes, uint64_t bytes_now, Qcow2DropReason reason)
{
    if (q->pass_discard[reason]) {
        qcow2_note_freed(q, offset, bytes, bytes_now, reason != QCOW2_DROP_OTHER);
    }
}

int qcow2_co_give_back(BlkNode *node, const Qcow2Drop *drop)
{
    Qcow2 *q = node->opaque;
    uint64_t end = drop->offset + drop->bytes;

    blk_co_event(node->file->node, BLK_EVENT_cluster_free);
    for (uint64_t pos = drop->offset; pos < end;) {
        uint64_t cluster = qcow2_cluster_of(q, pos), value;
        uint64_t bytes = MIN(end, (cluster + 1) << q->cluster_bits) - pos;
        int ret = qcow2_co_refcount_lower(node, cluster, drop->refs, &value);
        if (ret < 0) {
            return ret;
        }
        if (value == 0) {
            cluster_is_free(q, cluster);
            note_freed(q, cluster << q->cluster_bits, q->cluster_size, bytes, drop->reason);
        } else if (drop->payload && qcow2_payload_is_known(q, cluster)) {
            qcow2_payload_freed(q, pos, bytes);
            note_freed(q, pos, bytes, bytes, drop->reason);
        }
        pos += bytes;
    }
    return 0;
}

int qcow2_co_drain_limbo(BlkNode *node)
{
    Qcow2 *q = node->opaque;

    for (;;) {
        Qcow2Batch *batch = g_queue_peek_head(&q->limbo);
        if (!batch || q->corrupt || blk_engine_has_readers(node, batch->epoch)) {
            return 0;
        }
        while (batch->next < batch->drops->len) {
            const Qcow2Drop *drop = &g_array_index(batch->drops, Qcow2Drop, batch->next);
            int ret = qcow2_co_give_back(node, drop);
            if (ret < 0) {
                return ret;
            }
            batch->next++;
        }
        q->limbo_bytes -= batch->bytes;
        batch_free(g_queue_pop_head(&q->limbo));
    }
}
