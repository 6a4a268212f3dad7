/* SPDX-License-Identifier: MIT */
/*
 * compact_tables.c - makes whole tables short, and moves them down: L1 tables, the snapshot table, tables and directory of
 * bitmaps. Drops L2 tables of the active disk that say nothing.
 *
 *     run --copied to the lowest free run, stable--> switch: one write of the header --> old run is dropped
 *
 * Those of snapshots, and those of bitmaps, move together, since one new snapshot table or directory refers to all of them.
 *
 * Limitation: a table that is not shorter than what one refcount block counts is made shorter only, not moved.
 */
#include "drivers/qcow2/bitmaps.h"
#include "drivers/qcow2/compact.h"

enum { ROUNDS = 4 };                    /* what a move has freed may be a place for others */

typedef struct Run {
    uint64_t offset, bytes;
} Run;

typedef struct Tables {
    BlkNode *node;
    Qcow2 *q;
    GArray *old, *new;                  /* of Run: what is given up when the header refers to what is new */
    bool moved;
} Tables;

static uint64_t clusters_of(const Qcow2 *q, uint64_t bytes)
{
    return (bytes + q->cluster_size - 1) >> q->cluster_bits;
}

/* Is there room for a table of @bytes below @offset? */
static int co_has_place(Tables *t, uint64_t offset, uint64_t bytes, bool *has)
{
    Qcow2 *q = t->q;
    uint64_t count = clusters_of(q, bytes), first = UINT64_MAX;
    int ret = 0;

    *has = false;
    if (count > 0 && count < UINT64_C(1) << q->refblock_bits) {
        blk_co_mutex_lock(&q->alloc_lock);
        ret = qcow2_co_find_short_run(t->node, count, &first);
        blk_co_mutex_unlock(&q->alloc_lock);
        *has = ret == 0 && first < qcow2_cluster_of(q, offset);
    }
    return ret;
}

/* Writes the first @new_bytes of a table elsewhere, if it becomes shorter or comes to lie lower. */
static int co_move_run(Tables *t, uint64_t *offset, uint64_t bytes, uint64_t new_bytes)
{
    Run old = { *offset, bytes }, new = { 0, new_bytes };
    uint8_t *table = NULL;
    bool has;
    int ret = co_has_place(t, *offset, new_bytes, &has);

    if (ret < 0 || new_bytes == 0 || (!has && clusters_of(t->q, new_bytes) >= clusters_of(t->q, bytes))) {
        return ret;
    }
    ret = qcow2_co_table_read(t->node, old.offset, new_bytes, new_bytes, &table);
    if (ret == 0) {
        ret = qcow2_co_table_write(t->node, table, new_bytes, BLK_EVENT_COUNT, &new.offset);
    }
    blk_buffer_free(table);
    if (ret == 0) {
        g_array_append_val(t->old, old);
        g_array_append_val(t->new, new);
        *offset = new.offset;
    }
    return ret;
}

/* @ret: of the switch. */
static int co_finish(Tables *t, int ret)
{
    const GArray *gone = ret < 0 ? t->new : t->old;

    t->moved = t->moved || (ret == 0 && gone->len > 0);
    for (guint i = 0; i < gone->len; i++) {
        qcow2_co_table_drop(t->node, g_array_index(gone, Run, i).offset, g_array_index(gone, Run, i).bytes);
    }
    g_array_set_size(t->old, 0);
    g_array_set_size(t->new, 0);
    return ret < 0 ? ret : qcow2_co_settle(t->node);
}

/* ---- L2 tables that say nothing ---- */

/* Does the table say of all clusters what no table says, too? */
static int co_is_empty(Tables *t, uint64_t table, bool *empty)
{
    Qcow2 *q = t->q;
    uint64_t slice = MIN(q->cluster_size, 4096);
    bool hides_nothing = !q->header.backing_file && !t->node->backing;
    int ret = 0;

    *empty = true;
    for (uint64_t pos = 0; ret == 0 && *empty && pos < q->cluster_size; pos += slice) {
        BlkMetaBlock *block;
        ret = blk_meta_co_get(q->meta, table + pos, &block);
        for (uint64_t at = 0; ret == 0 && *empty && at < slice; at += q->l2_entry_bytes) {
            Qcow2Entry entry = qcow2_entry_get(q, block->data + at);
            *empty = entry.word == 0 && entry.data == 0 && (entry.zero == 0 || hides_nothing);
        }
        blk_meta_put(q->meta, block);
    }
    return ret;
}

static int co_drop_empty_tables(Tables *t)
{
    Qcow2 *q = t->q;
    int ret = 0;

    for (uint64_t i = 0; ret == 0 && i < q->header.l1_size; i++) {
        uint64_t place = q->header.l1_table_offset + i * 8;
        BlkMetaBlock *block;
        bool empty = false;
        ret = blk_meta_co_get(q->meta, place, &block);
        if (ret < 0) {
            break;
        }
        uint8_t *entry = block->data + (place - block->offset);
        uint64_t table = blk_get_be64(entry) & QCOW2_OFFSET_MASK;
        if (table != 0 && (blk_get_be64(entry) & QCOW2_COPIED)) {
            ret = co_is_empty(t, table, &empty);
        }
        if (ret == 0 && empty) {
            blk_put_be64(entry, 0);
            blk_meta_dirty(q->meta, block, BLK_META_MAP);
        }
        blk_meta_put(q->meta, block);
        if (ret == 0 && empty) {
            qcow2_co_table_drop(t->node, table, q->cluster_size);
            t->moved = true;
        }
    }
    return ret < 0 ? ret : qcow2_co_settle(t->node);
}

/* ---- L1 tables ---- */

/* How many entries of the L1 table say something, at least @needed. */
static int co_used_entries(Tables *t, const Qcow2Tree *tree, uint64_t needed, uint64_t *entries)
{
    Qcow2 *q = t->q;
    uint64_t n = tree->l1_size, word = 0;
    int ret = 0;

    for (; ret == 0 && n > needed && word == 0; n--) {
        uint64_t place = tree->l1_table_offset + (n - 1) * 8;
        BlkMetaBlock *block;
        ret = blk_meta_co_get(q->meta, place, &block);
        if (ret == 0) {
            word = blk_get_be64(block->data + (place - block->offset));
            blk_meta_put(q->meta, block);
        }
    }
    *entries = word != 0 ? n + 1 : n;
    return ret;
}

static int co_move_active(Tables *t)
{
    Qcow2 *q = t->q;
    Qcow2Tree tree = qcow2_active_tree(q);
    uint64_t entries;
    bool has = false;
    int ret = co_used_entries(t, &tree, MAX(qcow2_l1_entries_for(&q->header, q->header.size), 1), &entries);

    if (ret == 0) {
        ret = co_has_place(t, tree.l1_table_offset, entries * 8, &has);
    }
    if (ret < 0 || tree.l1_size == 0 || (!has && clusters_of(q, entries * 8) >= clusters_of(q, tree.l1_size * UINT64_C(8)))) {
        return ret;
    }
    ret = qcow2_co_replace_l1(t->node, entries);
    t->moved = t->moved || ret == 0;
    return ret < 0 ? ret : qcow2_co_settle(t->node);
}

static int co_move_snapshot_l1(Tables *t, Qcow2Snapshot *s)
{
    Qcow2Tree tree = { .l1_table_offset = s->l1_table_offset, .l1_size = s->l1_size };
    uint64_t entries, offset = s->l1_table_offset;
    int ret = co_used_entries(t, &tree, qcow2_l1_entries_for(&t->q->header, s->info.disk_size), &entries);

    if (ret == 0) {
        ret = co_move_run(t, &offset, s->l1_size * UINT64_C(8), entries * 8);
    }
    if (ret == 0 && offset != s->l1_table_offset) {
        s->l1_table_offset = offset;
        s->l1_size = (uint32_t)entries;
    }
    return ret;
}

static int compare_places(const void *a, const void *b)
{
    const Qcow2Snapshot *x = *(Qcow2Snapshot *const *)a, *y = *(Qcow2Snapshot *const *)b;

    return x->l1_table_offset > y->l1_table_offset ? -1 : x->l1_table_offset < y->l1_table_offset;
}

/* What lies highest moves first: so the end of the file becomes free, however little room there is below. */
static int co_move_snapshots(Tables *t)
{
    g_autoptr(GArray) snapshots = NULL;
    g_autoptr(GPtrArray) highest = g_ptr_array_new();
    uint64_t table_bytes;
    bool has = false;
    int ret = qcow2_snapshot_co_read_all(t->node->file->node, &t->q->header, &snapshots, &table_bytes, NULL);

    for (guint i = 0; ret == 0 && i < snapshots->len; i++) {
        g_ptr_array_add(highest, &g_array_index(snapshots, Qcow2Snapshot, i));
    }
    g_ptr_array_sort(highest, compare_places);
    for (guint i = 0; ret == 0 && i < highest->len; i++) {
        ret = co_move_snapshot_l1(t, g_ptr_array_index(highest, i));
    }
    if (ret == 0 && snapshots->len > 0) {
        ret = co_has_place(t, t->q->header.snapshots_offset, qcow2_snapshots_table_bytes(snapshots), &has);
    }
    if (ret == 0 && (has || t->new->len > 0)) {
        ret = qcow2_co_switch_snapshots(t->node, snapshots, table_bytes, NULL);
        t->moved = t->moved || ret == 0;
    }
    return co_finish(t, ret);
}

/* ---- bitmaps ---- */

static int co_switch_directory(Tables *t, const GPtrArray *entries)
{
    Qcow2Header header;
    uint64_t bytes = qcow2_bitmaps_directory_bytes(entries), offset;
    const Run old = { t->q->header.bitmaps.directory_offset, t->q->header.bitmaps.directory_bytes };
    Run new = { 0, bytes };
    uint8_t *table = qcow2_table_buffer(t->node, bytes);
    int ret = table ? 0 : -ENOMEM;

    if (ret == 0) {
        qcow2_bitmaps_put_directory(entries, table);
        ret = qcow2_co_table_write(t->node, table, bytes, BLK_EVENT_COUNT, &offset);
    }
    blk_buffer_free(table);
    if (ret < 0) {
        return ret;
    }
    new.offset = offset;
    g_array_append_val(t->new, new);
    g_array_append_val(t->old, old);
    ret = qcow2_co_switch_begin(t->node, &header, NULL);
    if (ret < 0) {
        return ret;
    }
    qcow2_header_set_bitmaps(&header, entries->len, offset, bytes);
    return qcow2_co_switch_end(t->node, &header, NULL);
}

static int co_move_bitmaps(Tables *t)
{
    const Qcow2Header *h = &t->q->header;
    g_autoptr(GPtrArray) entries = NULL;
    bool has = false;
    int ret = qcow2_bitmaps_co_read_directory(t->node->file->node, h, &entries, NULL);

    for (guint i = 0; ret == 0 && i < entries->len; i++) {
        Qcow2BitmapEntry *entry = g_ptr_array_index(entries, i);
        uint64_t bytes = entry->table_size * UINT64_C(8);
        ret = co_move_run(t, &entry->table_offset, bytes, bytes);
    }
    if (ret == 0 && entries->len > 0) {
        ret = co_has_place(t, h->bitmaps.directory_offset, h->bitmaps.directory_bytes, &has);
    }
    if (ret == 0 && (has || t->new->len > 0)) {
        ret = co_switch_directory(t, entries);
    }
    return co_finish(t, ret);
}

/* ---- all ---- */

static int co_move_all(Tables *t)
{
    int ret = co_drop_empty_tables(t);

    if (ret == 0) {
        ret = co_move_active(t);
    }
    if (ret == 0) {
        ret = co_move_snapshots(t);
    }
    if (ret == 0) {
        ret = co_move_bitmaps(t);
    }
    return ret < 0 ? ret : qcow2_co_refcount_pack(t->node, &t->moved);
}

int qcow2_co_compact_tables(Qcow2Compact *c, GError **error)
{
    g_autoptr(GArray) old = g_array_new(FALSE, FALSE, sizeof(Run)), new = g_array_new(FALSE, FALSE, sizeof(Run));
    Tables t = { .node = c->node, .q = c->node->opaque, .old = old, .new = new, .moved = true };
    int ret = qcow2_co_settle(c->node);

    for (unsigned round = 0; ret == 0 && t.moved && round < ROUNDS; round++) {
        t.moved = false;
        ret = co_move_all(&t);
    }
    return ret < 0 ? blk_error_errno(error, ret, "could not move the image's tables down in the file") : 0;
}
