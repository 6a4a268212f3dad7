/* SPDX-License-Identifier: MIT */
/*
 * snapshot.c - internal snapshots: create, apply, delete, read (format specification, "Snapshots").
 *
 *     header --> active L1 ----> L2 tables ----> clusters        a snapshot's L1 table refers to the L2 tables and clusters
 *            --> snapshot table --> L1 --^------------^          that were active; what both refer to has a count of 2 or
 *                                                                more and no COPIED flag, so that a write copies it first
 *
 * Each operation is one switch of the header, from what was to what is. Before it counts are raised, and what the header
 * will refer to is written and stable; after it counts are lowered:
 *
 *     create   clear COPIED flags | raise the active tree | write a copy of L1, the snapshot table | SWITCH
 *     apply    clear COPIED flags | raise the snapshot's tree | write a copy of its L1 | SWITCH to it, with the disk's
 *              size | lower what was active | set COPIED flags
 *     delete   write the snapshot table | SWITCH | lower the snapshot's tree | set COPIED flags
 *
 * Each step is stable before the next one. So counts are never too low, and a flag is never set where a count is not 1:
 * nobody writes in place to what a snapshot has. That counts are too high for a while, and flags are missing, is what the
 * dirty mark says meanwhile (marks.c). Before the switch a failure undoes what was done. After it, a failure leaves counts
 * too high: the mark stays, and the next who opens the image repairs them.
 *
 * The node is drained: no requests, no readers. Limitations: version 2 has no mark: a crash leaves counts too high and
 * flags missing until `check -r all`; both cost space and copies only.
 */
#include "drivers/qcow2/qcow2.h"

#include <time.h>

enum {
    HEADER_SIZE_AT = 24,            /* size of the disk, encryption method, L1 entries, L1 offset: bytes */
    HEADER_SNAPSHOTS_AT = 60,       /* number, then offset of the table */
};

/* ---- around the operations ---- */

/* Before anything changes: all is stable, and no payload is known to belong to the active tables only. */
static int co_begin(BlkNode *node, GError **error)
{
    Qcow2 *q = node->opaque;

    if (!q->tables) {
        return blk_error(error, -EROFS, "the image was opened for its metadata only");
    }
    if (q->header.incompatible & QCOW2_INCOMPAT_DATA_FILE) {
        return blk_error(error, -ENOTSUP, "an image with an external data file cannot have internal snapshots");
    }
    qcow2_co_survey_stop(node);
    q->surveyed = false;            /* who refers to what is about to change: it begins anew */
    blk_co_mutex_lock(&q->alloc_lock);
    qcow2_payload_forget(q);
    blk_co_mutex_unlock(&q->alloc_lock);
    int ret = qcow2_co_commit_all(node);
    if (ret == 0) {
        ret = qcow2_co_dirty_begin(node);
    }
    return ret < 0 ? blk_error_errno(error, ret, "could not write the tables") : 0;
}

/* @ret: of the operation. If the counts are right, the image is not marked any more when they are stable. */
static int co_end(BlkNode *node, int ret, bool counts_right, GError **error)
{
    int end = qcow2_co_commit_all(node);

    if (end == 0 && counts_right) {
        end = qcow2_co_dirty_end(node);
    }
    if (ret == 0 && end < 0) {
        return blk_error_errno(error, end, "it was done, but the tables could not be written");
    }
    return ret;
}

static int explain_raise(const Qcow2 *q, int ret, GError **error)
{
    if (ret == -ERANGE) {
        return blk_error(error, ret, "a cluster has as many references as %u-bit reference counts can count; amend the "
                         "image to wider ones (refcount_bits)", 1u << q->header.refcount_order);
    }
    return blk_error_errno(error, ret, "could not clear the COPIED flags and raise the reference counts");
}

/* @tree gets a second user. The flags go first: a set one lets others write in place. *counts_right: (out): after an error,
 * all is as it was. */
static int co_share(BlkNode *node, const Qcow2Tree *tree, bool *counts_right, GError **error)
{
    Qcow2Tree active = qcow2_active_tree(node->opaque);
    int ret = qcow2_co_tree_clear_flags(node, tree);

    if (ret == 0) {
        ret = qcow2_co_tree_raise(node, tree, counts_right);
    }
    if (ret == 0) {
        return 0;
    }
    if (qcow2_co_tree_set_flags(node, &active) < 0) {
        *counts_right = false;
    }
    return explain_raise(node->opaque, ret, error);
}

static Qcow2Tree tree_of(const Qcow2Snapshot *snapshot)
{
    return (Qcow2Tree) { .l1_table_offset = snapshot->l1_table_offset, .l1_size = snapshot->l1_size };
}

/* Refuses a tree that lies, before anything is changed. */
static int co_check_tree(BlkNode *node, const Qcow2Tree *tree, GError **error)
{
    int ret = qcow2_co_check_tables(node, tree, error);

    if (ret == 0) {
        ret = qcow2_co_tree_check(node, tree);
        if (ret < 0) {
            blk_error_errno(error, ret, "its tables cannot be read or are damaged; see what 'check' says");
        }
    }
    return ret;
}

/* After the switch: nothing refers to @old any more. @error says, with @what was done, that its space is not free yet. */
static int co_give_up_tree(BlkNode *node, const Qcow2Tree *old, const char *what, bool *counts_right, GError **error)
{
    int ret = qcow2_co_tree_lower(node, old), flags;
    Qcow2Tree active = qcow2_active_tree(node->opaque);

    qcow2_co_table_drop(node, old->l1_table_offset, old->l1_size * UINT64_C(8));
    flags = qcow2_co_tree_set_flags(node, &active);
    ret = ret < 0 ? ret : flags;
    if (ret < 0) {
        *counts_right = false;
        return blk_error_errno(error, ret, "%s still takes up space, until the image is opened again", what);
    }
    return 0;
}

int qcow2_co_switch_snapshots(BlkNode *node, const GArray *snapshots, uint64_t old_bytes, GError **error)
{
    Qcow2 *q = node->opaque;
    uint64_t bytes = qcow2_snapshots_table_bytes(snapshots), offset = 0, old_offset = q->header.snapshots_offset;
    uint8_t *table = bytes > 0 ? qcow2_table_buffer(node, bytes) : NULL, field[12];
    int ret = bytes > 0 && !table ? -ENOMEM : 0;

    if (bytes > QCOW2_MAX_SNAPSHOT_TABLE_BYTES) {
        ret = -EFBIG;
    }
    if (table && ret == 0) {
        qcow2_snapshots_encode(snapshots, table);
        ret = qcow2_co_table_write(node, table, bytes, BLK_EVENT_COUNT, &offset);
    }
    blk_buffer_free(table);
    if (ret == 0) {
        blk_put_be32(field, snapshots->len);
        blk_put_be64(field + 4, offset);
        ret = qcow2_co_switch(node, HEADER_SNAPSHOTS_AT, field, sizeof(field));
        if (ret < 0) {
            qcow2_co_table_drop(node, offset, bytes);
        }
    }
    if (ret < 0) {
        return blk_error_errno(error, ret, "could not write the table of snapshots");
    }
    q->header.nb_snapshots = snapshots->len;
    q->header.snapshots_offset = offset;
    qcow2_co_table_drop(node, old_offset, old_bytes);
    return 0;
}

/* ---- create ---- */

static char *new_id(const GArray *snapshots)
{
    uint64_t max = 0;

    for (guint i = 0; i < snapshots->len; i++) {
        max = MAX(max, g_ascii_strtoull(g_array_index(snapshots, Qcow2Snapshot, i).info.id, NULL, 10));
    }
    return g_strdup_printf("%" PRIu64, max + 1);
}

static void add_snapshot(const Qcow2 *q, GArray *snapshots, const char *name)
{
    g_autofree char *id = new_id(snapshots);
    Qcow2Snapshot *snapshot = qcow2_snapshots_add(snapshots, id, name);
    gint64 now = g_get_real_time();         /* microseconds */

    snapshot->info.date_sec = (uint32_t)(now / G_USEC_PER_SEC);
    snapshot->info.date_nsec = (uint32_t)(now % G_USEC_PER_SEC * 1000);
    snapshot->info.disk_size = q->header.size;
    snapshot->info.has_icount = true;
    snapshot->l1_size = q->header.l1_size;
}

/* The counts are raised. Writes the snapshot's L1 table and the new snapshot table. */
static int co_create_raised(BlkNode *node, GArray *snapshots, uint64_t table_bytes, GError **error)
{
    Qcow2 *q = node->opaque;
    Qcow2Snapshot *snapshot = &g_array_index(snapshots, Qcow2Snapshot, snapshots->len - 1);
    Qcow2Tree active = qcow2_active_tree(q);
    uint64_t l1_bytes = snapshot->l1_size * UINT64_C(8);
    uint8_t *l1 = NULL;
    int ret = 0;

    if (l1_bytes > 0) {
        ret = qcow2_co_table_read(node, active.l1_table_offset, l1_bytes, l1_bytes, &l1);
    }
    if (ret == 0 && l1_bytes > 0) {
        ret = qcow2_co_table_write(node, l1, l1_bytes, BLK_EVENT_COUNT, &snapshot->l1_table_offset);
    }
    blk_buffer_free(l1);
    if (ret < 0) {
        return blk_error_errno(error, ret, "could not write the snapshot's L1 table");
    }
    ret = qcow2_co_switch_snapshots(node, snapshots, table_bytes, error);
    if (ret < 0) {
        qcow2_co_table_drop(node, snapshot->l1_table_offset, l1_bytes);
    }
    return ret;
}

/* With the image marked dirty. *counts_right: (out): after an error, all is as it was. */
static int co_create(BlkNode *node, GArray *snapshots, uint64_t table_bytes, bool *counts_right, GError **error)
{
    Qcow2Tree active = qcow2_active_tree(node->opaque);
    int ret = co_share(node, &active, counts_right, error);

    if (ret < 0) {
        return ret;
    }
    ret = co_create_raised(node, snapshots, table_bytes, error);
    if (ret < 0 && (qcow2_co_tree_lower(node, &active) < 0 || qcow2_co_tree_set_flags(node, &active) < 0)) {
        *counts_right = false;
    }
    return ret;
}

static int qcow2_co_snapshot_create(BlkNode *node, const char *name, GError **error)
{
    Qcow2 *q = node->opaque;
    Qcow2Tree active = qcow2_active_tree(q);
    g_autoptr(GArray) snapshots = NULL;
    uint64_t table_bytes;
    bool counts_right = true;
    int ret = co_begin(node, error);

    if (ret < 0) {
        return ret;
    }
    ret = qcow2_snapshot_co_read_all(node->file->node, &q->header, &snapshots, &table_bytes, error);
    if (ret == 0 && snapshots->len >= QCOW2_MAX_SNAPSHOTS) {
        ret = blk_error(error, -EFBIG, "the image has %u snapshots already, and cannot have more", snapshots->len);
    }
    if (ret == 0) {
        ret = co_check_tree(node, &active, error);
    }
    if (ret == 0) {
        add_snapshot(q, snapshots, name);
        ret = co_create(node, snapshots, table_bytes, &counts_right, error);
    }
    return co_end(node, ret, counts_right, error);
}

/* ---- apply ---- */

/* Lets the header refer to the L1 table at @offset. */
static int co_switch_active(BlkNode *node, const Qcow2Tree *tree, uint64_t disk_size)
{
    Qcow2 *q = node->opaque;
    uint8_t field[24];

    blk_put_be64(field, disk_size);
    blk_put_be32(field + 8, q->header.crypt_method);
    blk_put_be32(field + 12, tree->l1_size);
    blk_put_be64(field + 16, tree->l1_table_offset);
    int ret = qcow2_co_switch(node, HEADER_SIZE_AT, field, sizeof(field));
    if (ret < 0) {
        return ret;
    }
    q->header.size = node->length = disk_size;
    q->header.l1_size = tree->l1_size;
    q->header.l1_table_offset = tree->l1_table_offset;
    return 0;
}

/* The counts are raised: makes a copy of the snapshot's L1 table the active one. After an error nothing has changed. */
static int co_apply_raised(BlkNode *node, const Qcow2Snapshot *snapshot)
{
    Qcow2Tree tree = tree_of(snapshot);
    uint64_t bytes = tree.l1_size * UINT64_C(8);
    uint8_t *l1 = NULL;
    int ret = qcow2_co_tree_register(node, &tree);

    if (ret == 0) {
        ret = qcow2_co_table_read(node, tree.l1_table_offset, bytes, MAX(bytes, 8), &l1);
    }
    if (ret == 0) {
        tree.l1_size = MAX(tree.l1_size, 1);
        ret = qcow2_co_table_write(node, l1, MAX(bytes, 8), BLK_EVENT_l1_update, &tree.l1_table_offset);
    }
    blk_buffer_free(l1);
    if (ret == 0) {
        ret = co_switch_active(node, &tree, snapshot->info.disk_size);
        if (ret < 0) {
            qcow2_co_table_drop(node, tree.l1_table_offset, MAX(bytes, 8));
        }
    }
    return ret;
}

/* With the image marked dirty. *counts_right: (out): after an error, all is as it was. */
static int co_apply(BlkNode *node, const Qcow2Snapshot *snapshot, bool *counts_right, GError **error)
{
    Qcow2 *q = node->opaque;
    Qcow2Tree tree = tree_of(snapshot), old = qcow2_active_tree(q);
    int ret = co_share(node, &tree, counts_right, error);

    if (ret < 0) {
        return ret;
    }
    ret = co_apply_raised(node, snapshot);
    if (ret < 0) {
        *counts_right = qcow2_co_tree_lower(node, &tree) == 0;
        return blk_error_errno(error, ret, "could not write its L1 table");
    }
    return co_give_up_tree(node, &old, "it is applied, but what was there before", counts_right, error);
}

static int qcow2_co_snapshot_apply(BlkNode *node, unsigned index, GError **error)
{
    Qcow2 *q = node->opaque;
    Qcow2Tree active = qcow2_active_tree(q), tree;
    g_autoptr(GArray) snapshots = NULL;
    bool counts_right = true;
    int ret = co_begin(node, error);

    if (ret < 0) {
        return ret;
    }
    ret = qcow2_snapshot_co_read_all(node->file->node, &q->header, &snapshots, NULL, error);
    if (ret == 0) {
        ret = co_check_tree(node, &active, error);
    }
    if (ret == 0) {
        tree = tree_of(&g_array_index(snapshots, Qcow2Snapshot, index));
        ret = co_check_tree(node, &tree, error);
    }
    if (ret == 0) {
        ret = co_apply(node, &g_array_index(snapshots, Qcow2Snapshot, index), &counts_right, error);
    }
    return co_end(node, ret, counts_right, error);
}

/* ---- delete ---- */

/* With the image marked dirty. *counts_right: (out): after an error, all is as it was. */
static int co_delete(BlkNode *node, GArray *snapshots, unsigned index, uint64_t table_bytes, bool *counts_right,
                     GError **error)
{
    Qcow2Tree tree = tree_of(&g_array_index(snapshots, Qcow2Snapshot, index));

    g_array_remove_index(snapshots, index);
    int ret = qcow2_co_switch_snapshots(node, snapshots, table_bytes, error);
    return ret < 0 ? ret : co_give_up_tree(node, &tree, "it is deleted, but", counts_right, error);
}

static int qcow2_co_snapshot_delete(BlkNode *node, unsigned index, GError **error)
{
    Qcow2 *q = node->opaque;
    Qcow2Tree active = qcow2_active_tree(q), tree;
    g_autoptr(GArray) snapshots = NULL;
    uint64_t table_bytes;
    bool counts_right = true;
    int ret = co_begin(node, error);

    if (ret < 0) {
        return ret;
    }
    ret = qcow2_snapshot_co_read_all(node->file->node, &q->header, &snapshots, &table_bytes, error);
    if (ret == 0) {
        ret = co_check_tree(node, &active, error);
    }
    if (ret == 0) {
        tree = tree_of(&g_array_index(snapshots, Qcow2Snapshot, index));
        ret = co_check_tree(node, &tree, error);
    }
    if (ret == 0) {
        ret = co_delete(node, snapshots, index, table_bytes, &counts_right, error);
    }
    return co_end(node, ret, counts_right, error);
}

/* ---- list, read ---- */

/* From the file: what says which snapshots there are is never only in the cache. */
static int qcow2_co_snapshot_list(BlkNode *node, GArray *list, GError **error)
{
    g_autoptr(GArray) snapshots = NULL;
    Qcow2Header header;
    int ret = qcow2_co_read_header(node->file->node, &header, error);

    if (ret == 0) {
        ret = qcow2_snapshot_co_read_all(node->file->node, &header, &snapshots, NULL, error);
    }
    for (guint i = 0; ret == 0 && i < snapshots->len; i++) {
        BlkSnapshot *info = &g_array_index(snapshots, Qcow2Snapshot, i).info;
        g_array_append_val(list, *info);
        info->id = info->name = NULL;       /* they are the list's now */
    }
    qcow2_header_clear(&header);
    return ret;
}

static int qcow2_co_snapshot_load(BlkNode *node, unsigned index, GError **error)
{
    Qcow2 *q = node->opaque;
    g_autoptr(GArray) snapshots = NULL;
    int ret = qcow2_snapshot_co_read_all(node->file->node, &q->header, &snapshots, NULL, error);

    if (ret == 0) {
        const Qcow2Snapshot *snapshot = &g_array_index(snapshots, Qcow2Snapshot, index);
        q->header.l1_table_offset = snapshot->l1_table_offset;
        q->header.l1_size = snapshot->l1_size;
        q->header.size = node->length = snapshot->info.disk_size;
    }
    return ret;
}

const BlkSnapshotOps qcow2_snapshot_ops = {
    .co_list = qcow2_co_snapshot_list,
    .co_create = qcow2_co_snapshot_create,
    .co_apply = qcow2_co_snapshot_apply,
    .co_delete = qcow2_co_snapshot_delete,
    .co_load = qcow2_co_snapshot_load,
};
