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

/* ---- the set of tables ---- */

int qcow2_tables_add(Qcow2 *q, uint64_t offset, uint64_t bytes, const char *what, GError **error)
{
    uint64_t first = qcow2_cluster_of(q, offset), end = qcow2_cluster_of(q, offset + bytes + q->cluster_size - 1);

    for (uint64_t cluster = first; cluster < end; cluster++) {
        if (qcow2_is_table(q, cluster)) {
            return what ? blk_error(error, -EIO, "the image is corrupt: %s at offset %" G_GUINT64_FORMAT " overlaps another "
                                    "table; open it read-only or repair it with 'check -r all'",
                                    what, cluster << q->cluster_bits) : -EIO;
        }
    }
    for (uint64_t cluster = first; cluster < end; cluster++) {
        g_hash_table_add(q->tables, g_memdup2(&cluster, sizeof(cluster)));
    }
    return 0;
}

void qcow2_tables_remove(Qcow2 *q, uint64_t offset, uint64_t bytes)
{
    uint64_t end = qcow2_cluster_of(q, offset + bytes + q->cluster_size - 1);

    for (uint64_t cluster = qcow2_cluster_of(q, offset); cluster < end; cluster++) {
        g_hash_table_remove(q->tables, &cluster);
    }
}

/* Adds the clusters that a table of offsets refers to: L2 tables or refcount blocks. */
static int co_add_referred(BlkNode *node, uint64_t table, uint64_t entries, const char *what, GError **error)
{
    Qcow2 *q = node->opaque;
    uint64_t file_end = blk_node_length(node->file->node), slice = MIN(q->cluster_size, 4096);

    for (uint64_t pos = 0; pos < entries * 8; pos += slice) {
        BlkMetaBlock *block;
        int ret = blk_meta_co_get(q->meta, table + pos, &block);
        if (ret < 0) {
            return blk_error_errno(error, ret, "could not read the table at offset %" G_GUINT64_FORMAT, table + pos);
        }
        for (uint64_t i = 0; ret == 0 && i < MIN(slice, entries * 8 - pos) / 8; i++) {
            uint64_t offset = qcow2_get64(block->data + i * 8) & QCOW2_OFFSET_MASK;
            if (offset == 0) {
                continue;
            }
            if (offset % q->cluster_size != 0 || offset >= file_end) {
                ret = blk_error(error, -EIO, "the image is corrupt: %s at offset %" G_GUINT64_FORMAT " is misaligned or "
                                "behind the end of the file; open it read-only or repair it with 'check -r all'",
                                what, offset);
            } else {
                ret = qcow2_tables_add(q, offset, q->cluster_size, what, error);
            }
        }
        blk_meta_put(q->meta, block);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static int co_add_snapshot_tables(BlkNode *node, GError **error)
{
    Qcow2 *q = node->opaque;
    g_autoptr(GArray) snapshots = NULL;
    uint64_t table_bytes;

    if (q->header.nb_snapshots == 0) {
        return 0;
    }
    int ret = qcow2_snapshot_co_read_all(node->file->node, &q->header, &snapshots, &table_bytes, error);
    if (ret == 0) {
        ret = qcow2_tables_add(q, q->header.snapshots_offset, table_bytes, "the snapshot table", error);
    }
    for (unsigned i = 0; ret == 0 && i < snapshots->len; i++) {
        const Qcow2Snapshot *snapshot = &g_array_index(snapshots, Qcow2Snapshot, i);
        ret = qcow2_tables_add(q, snapshot->l1_table_offset, snapshot->l1_size * UINT64_C(8), "a snapshot's L1 table",
                               error);
    }
    return ret;
}

/* Adds all tables but L2 tables, and then the L2 tables of @tree. */
static int co_collect_tables(BlkNode *node, const Qcow2Tree *tree, GError **error)
{
    Qcow2 *q = node->opaque;
    const Qcow2Header *h = &q->header;
    uint64_t reftable_bytes = (uint64_t)h->refcount_table_clusters << q->cluster_bits;
    int ret;

    ret = qcow2_tables_add(q, 0, q->cluster_size, "the header", error);
    if (ret == 0) {
        ret = qcow2_tables_add(q, h->l1_table_offset, h->l1_size * UINT64_C(8), "the L1 table", error);
    }
    if (ret == 0) {
        ret = qcow2_tables_add(q, h->refcount_table_offset, reftable_bytes, "the refcount table", error);
    }
    if (ret == 0) {
        ret = co_add_snapshot_tables(node, error);
    }
    if (ret == 0) {
        ret = qcow2_co_bitmaps_add_tables(node, error);
    }
    if (ret == 0) {
        ret = co_add_referred(node, h->refcount_table_offset, reftable_bytes / 8, "a refcount block", error);
    }
    return ret < 0 ? ret : co_add_referred(node, tree->l1_table_offset, tree->l1_size, "an L2 table", error);
}

static GHashTable *new_table_set(void)
{
    return g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
}

int qcow2_co_check_tables(BlkNode *node, const Qcow2Tree *tree, GError **error)
{
    Qcow2 *q = node->opaque;
    GHashTable *tables = q->tables;

    q->tables = new_table_set();        /* drained: nobody looks at it meanwhile */
    int ret = co_collect_tables(node, tree, error);
    g_hash_table_unref(q->tables);
    q->tables = tables;
    return ret;
}

int qcow2_co_alloc_open(BlkNode *node, GError **error)
{
    Qcow2 *q = node->opaque;
    Qcow2Tree active = qcow2_active_tree(q);

    q->tables = new_table_set();
    q->drops = g_array_new(FALSE, FALSE, sizeof(Qcow2Drop));
    qcow2_payload_open(q);
    qcow2_punch_open(q);
    return co_collect_tables(node, &active, error);
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
    q->free_hint = q->dropped_bytes = 0;
}

/* ---- whole clusters ---- */

/* The first free cluster at or behind *first, and how many follow it, up to @max. A range without refcount block is
 * given one. */
static gint64 co_find_free(BlkNode *node, uint64_t max, uint64_t *first)
{
    Qcow2 *q = node->opaque;
    unsigned order = q->header.refcount_order;
    uint64_t cluster = *first, index, count, run = 0;

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
            return -EIO;        /* a table whose refcount is 0: writing there would destroy the image */
        }
    }
    *first = cluster;
    return (gint64)run;
}

int qcow2_co_raise_run(BlkNode *node, uint64_t first, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        int ret = qcow2_co_refcount_raise(node, first + i);
        if (ret < 0) {
            Qcow2 *q = node->opaque;
            if (i > 0) {
                qcow2_drop(q, first << q->cluster_bits, i << q->cluster_bits, false);
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
    *first = q->free_hint;
    gint64 run = co_find_free(node, max, first);
    if (run > 0) {
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
    int ret = qcow2_co_raise_run(node, *first, (uint64_t)run);
    if (ret < 0) {
        return ret;
    }
    q->free_hint = *first + (uint64_t)run;
    return run;
}

/* A run of free clusters that is short enough to lie between two refcount blocks, each of which begins its range. */
static int co_find_short_run(BlkNode *node, uint64_t count, uint64_t *first)
{
    Qcow2 *q = node->opaque;
    uint64_t have = 0, cluster;

    *first = q->free_hint;
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
        ret = count < UINT64_C(1) << q->refblock_bits ? co_find_short_run(node, count, first)
                                                     : qcow2_co_refcount_add_span(node, count, first);
    }
    return ret < 0 ? ret : qcow2_co_raise_run(node, *first, count);
}

/* ---- dropped space ---- */

void qcow2_drop(Qcow2 *q, uint64_t offset, uint64_t bytes, bool payload)
{
    Qcow2Drop drop = { .offset = offset, .bytes = bytes, .payload = payload };

    g_array_append_val(q->drops, drop);
    q->dropped_bytes += bytes;
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
        g_queue_push_tail(&q->limbo, batch);
    } else {
        g_array_append_vals(q->drops, drops->data, drops->len);
    }
}

static void cluster_is_free(Qcow2 *q, uint64_t cluster)
{
    qcow2_payload_cluster_freed(q, cluster);
    g_hash_table_remove(q->tables, &cluster);
    q->free_hint = MIN(q->free_hint, cluster);
}

int qcow2_co_give_back(BlkNode *node, uint64_t offset, uint64_t length, bool payload)
{
    Qcow2 *q = node->opaque;
    uint64_t end = offset + length;

    for (uint64_t pos = offset; pos < end;) {
        uint64_t cluster = qcow2_cluster_of(q, pos), value;
        uint64_t bytes = MIN(end, (cluster + 1) << q->cluster_bits) - pos;
        int ret = qcow2_co_refcount_lower(node, cluster, &value);
        if (ret < 0) {
            return ret;
        }
        if (value == 0) {
            cluster_is_free(q, cluster);
            qcow2_note_freed(q, cluster << q->cluster_bits, q->cluster_size);
        } else if (payload && qcow2_payload_is_known(q, cluster)) {
            qcow2_payload_freed(q, pos, bytes);
            qcow2_note_freed(q, pos, bytes);
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
        if (!batch || blk_engine_has_readers(node, batch->epoch)) {
            return 0;
        }
        while (batch->next < batch->drops->len) {
            const Qcow2Drop *drop = &g_array_index(batch->drops, Qcow2Drop, batch->next);
            int ret = qcow2_co_give_back(node, drop->offset, drop->bytes, drop->payload);
            if (ret < 0) {
                return ret;
            }
            batch->next++;
        }
        batch_free(g_queue_pop_head(&q->limbo));
    }
}
