/* SPDX-License-Identifier: MIT */
/*
 * downgrade.c - an image of version 3 becomes one of version 2, which has no zero clusters: each becomes what version 2 can
 * say instead. Without a backing file that is an unallocated cluster, with one a cluster full of zeroes.
 *
 * Every L2 table, also of snapshots, is changed where it lies: what it means stays the same for all that share it. A
 * cluster that a shared table refers to is counted once for each reference to the table. Until the header says
 * version 2, which is the last step, the image is one of version 3 that has fewer and fewer zero clusters; so after a
 * crash or an error it is whole, and the downgrade can be repeated.
 */
#include "drivers/qcow2/qcow2.h"

typedef struct Downgrade {
    BlkNode *node;
    Qcow2 *q;
    bool allocate;              /* zero clusters hide what a backing file has */
    GHashTable *shared;         /* set of the offsets of tables with several references that were done */
    uint64_t done, total;       /* L1 entries */
    Qcow2Progress *progress;
} Downgrade;

/* A new cluster, of zeroes, with @refs references. */
static int co_zero_cluster(Downgrade *d, uint64_t refs, uint64_t *offset)
{
    Qcow2 *q = d->q;
    uint64_t cluster, raised = 1;

    blk_co_mutex_lock(&q->alloc_lock);
    gint64 got = qcow2_co_alloc_clusters(d->node, 1, &cluster);
    int ret = got < 0 ? (int)got : 0;
    if (ret == 0 && refs > 1) {
        ret = qcow2_co_refcount_raise(d->node, cluster, refs - 1);
        raised = ret == 0 ? refs : 1;
    }
    blk_co_mutex_unlock(&q->alloc_lock);
    if (got < 0) {
        return ret;
    }
    *offset = cluster << q->cluster_bits;
    if (ret == 0) {
        ret = blk_co_pwrite_zeroes(d->node->file->node, *offset, q->cluster_size, 0);
    }
    if (ret < 0) {
        qcow2_drop_all(q, *offset, q->cluster_size, raised, false);
    }
    return ret;
}

/* Does nobody but the table, which has @refs references, refer to the cluster? */
static int co_is_own(Downgrade *d, uint64_t offset, uint64_t refs, bool *own)
{
    uint64_t count;

    blk_co_mutex_lock(&d->q->alloc_lock);
    int ret = qcow2_co_refcount_get(d->node, qcow2_cluster_of(d->q, offset), &count);
    blk_co_mutex_unlock(&d->q->alloc_lock);
    *own = ret == 0 && count == refs;
    return ret;
}

/* What version 2 says instead of a zero entry, whose word is @old, of a table that has @refs references. */
static int co_replacement(Downgrade *d, uint64_t old, uint64_t refs, Qcow2Entry *entry)
{
    Qcow2 *q = d->q;
    uint64_t offset, bytes, new_offset = 0;
    bool own = false;
    int ret = qcow2_entry_extent(q, old, &offset, &bytes);

    *entry = (Qcow2Entry) { .word = 0 };
    if (ret == 0 && bytes > 0 && d->allocate) {
        ret = co_is_own(d, offset, refs, &own);
    }
    if (ret == 0 && own) {
        *entry = (Qcow2Entry) { .word = old, .data = 1 };
        return blk_co_pwrite_zeroes(d->node->file->node, offset, bytes, 0);
    }
    if (ret == 0 && d->allocate) {
        ret = co_zero_cluster(d, refs, &new_offset);
        *entry = (Qcow2Entry) { .word = new_offset | (refs == 1 ? QCOW2_COPIED : 0), .data = 1 };
    }
    for (uint64_t i = 0; ret == 0 && bytes > 0 && i < refs; i++) {
        qcow2_drop(q, offset, bytes, false);
    }
    return ret;
}

/* One part of a table, as it is cached. */
static int co_convert_part(Downgrade *d, uint64_t place, uint64_t refs)
{
    Qcow2 *q = d->q;
    uint64_t count = MIN(q->cluster_size, 4096) / 8;
    BlkMetaBlock *block;
    int ret = blk_meta_wants_commit(q->meta) ? qcow2_co_commit_all(d->node) : 0;

    if (ret == 0) {
        ret = blk_meta_co_get(q->meta, place, &block);
    }
    if (ret < 0) {
        return ret;
    }
    for (uint64_t i = 0; ret == 0 && i < count; i++) {
        Qcow2Entry old = qcow2_entry_get(q, block->data + i * 8), entry;
        if (!old.zero) {
            continue;
        }
        ret = co_replacement(d, old.word, refs, &entry);
        if (ret == 0) {
            qcow2_entry_put(q, block->data + i * 8, entry);
            blk_meta_dirty(q->meta, block, BLK_META_MAP);
        }
    }
    blk_meta_put(q->meta, block);
    return ret;
}

static int co_convert_table(Downgrade *d, uint64_t table)
{
    Qcow2 *q = d->q;
    uint64_t refs;
    int ret = table % q->cluster_size != 0 || table >= q->host_limit ? -EIO : 0;

    if (table == 0 || ret < 0 || g_hash_table_contains(d->shared, &table)) {
        return ret;
    }
    blk_co_mutex_lock(&q->alloc_lock);
    ret = qcow2_co_refcount_get(d->node, qcow2_cluster_of(q, table), &refs);
    blk_co_mutex_unlock(&q->alloc_lock);
    if (ret < 0 || refs == 0) {
        return ret < 0 ? ret : -EIO;
    }
    if (refs > 1) {
        g_hash_table_add(d->shared, g_memdup2(&table, sizeof(table)));
    }
    for (uint64_t pos = 0; ret == 0 && pos < q->cluster_size; pos += MIN(q->cluster_size, 4096)) {
        ret = co_convert_part(d, table + pos, refs);
    }
    return ret;
}

/* All L2 tables that the L1 table at @offset refers to. */
static int co_convert_l1(Downgrade *d, uint64_t offset, uint64_t entries)
{
    uint64_t slice = MIN(d->q->cluster_size, 4096);

    for (uint64_t i = 0; i < entries; i++) {
        uint64_t place = offset + i * 8;
        BlkMetaBlock *block;
        int ret = blk_meta_co_get(d->q->meta, place, &block);
        if (ret < 0) {
            return ret;
        }
        uint64_t entry = blk_get_be64(block->data + place % slice);
        blk_meta_put(d->q->meta, block);
        ret = co_convert_table(d, entry & QCOW2_OFFSET_MASK);
        if (ret < 0) {
            return ret;
        }
        qcow2_progress(d->progress, (double)++d->done / (double)d->total);
    }
    return 0;
}

static int co_convert_all(Downgrade *d, const GArray *snapshots)
{
    const Qcow2Header *h = &d->q->header;

    d->total = h->l1_size;
    for (guint i = 0; i < snapshots->len; i++) {
        d->total += g_array_index(snapshots, Qcow2Snapshot, i).l1_size;
    }
    int ret = co_convert_l1(d, h->l1_table_offset, h->l1_size);
    for (guint i = 0; ret == 0 && i < snapshots->len; i++) {
        const Qcow2Snapshot *snapshot = &g_array_index(snapshots, Qcow2Snapshot, i);
        ret = co_convert_l1(d, snapshot->l1_table_offset, snapshot->l1_size);
    }
    return ret < 0 ? ret : qcow2_co_settle(d->node);
}

int qcow2_co_check_downgrade(BlkNode *node, uint64_t size, GError **error)
{
    const Qcow2Header *h = &((Qcow2 *)node->opaque)->header;
    g_autoptr(GArray) snapshots = NULL;
    int ret;

    if (h->incompatible & QCOW2_INCOMPAT_DATA_FILE) {
        return blk_error(error, -ENOTSUP, "Cannot downgrade an image with a data file");
    }
    if (h->incompatible & ~QCOW2_INCOMPAT_DIRTY) {
        return blk_error(error, -ENOTSUP, "Cannot downgrade an image with incompatible features %#" PRIx64 " set%s%s",
                         h->incompatible & ~QCOW2_INCOMPAT_DIRTY,
                         h->incompatible & QCOW2_INCOMPAT_COMPRESSION ? ": clusters compressed by zstd" : "",
                         h->incompatible & QCOW2_INCOMPAT_EXTENDED_L2 ? ": extended L2 entries" : "");
    }
    if (blk_node_has_bitmaps(node)) {
        return blk_error(error, -ENOTSUP, "Cannot downgrade an image with dirty bitmaps, which compat=0.10 does not have; remove "
                         "them with 'bitmap --remove'");
    }
    ret = qcow2_snapshot_co_read_all(node->file->node, h, &snapshots, NULL, error);
    for (guint i = 0; ret == 0 && i < snapshots->len; i++) {
        const Qcow2Snapshot *snapshot = &g_array_index(snapshots, Qcow2Snapshot, i);
        if (snapshot->info.disk_size != size || snapshot->info.vm_state_size > UINT32_MAX) {
            ret = blk_error(error, -ENOTSUP, "Internal snapshots prevent downgrade of image: '%s' has another disk size or too "
                            "large a state for version 2", snapshot->info.name);
        }
    }
    return ret;
}

int qcow2_co_downgrade(BlkNode *node, Qcow2Progress *progress, GError **error)
{
    Qcow2 *q = node->opaque;
    g_autoptr(GHashTable) shared = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, NULL);
    g_autoptr(GArray) snapshots = NULL;
    Downgrade d = {
        .node = node, .q = q, .allocate = q->header.backing_file != NULL, .shared = shared, .progress = progress,
    };
    int ret = qcow2_snapshot_co_read_all(node->file->node, &q->header, &snapshots, NULL, error);

    if (ret < 0) {
        return ret;
    }
    ret = co_convert_all(&d, snapshots);
    if (ret < 0) {
        return blk_error_errno(error, ret, "could not turn zero clusters into what version 2 can say");
    }
    Qcow2Header header;
    ret = qcow2_co_switch_begin(node, &header, error);
    if (ret < 0) {
        return ret;
    }
    header.version = 2;
    header.incompatible = header.compatible = header.autoclear = 0;
    header.unknown_bytes = 0;
    header.header_length = QCOW2_HEADER_V2_BYTES;
    q->lazy = q->discard_no_unref = false;
    return qcow2_co_switch_end(node, &header, error);
}
