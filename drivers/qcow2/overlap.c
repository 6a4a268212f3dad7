/* SPDX-License-Identifier: MIT */
/*
 * overlap.c - which host clusters hold tables, so that nothing else is ever put there.
 *
 *     q->tables: host cluster -> kind of table
 *
 * The set is filled when an image is opened for writing, from all that the header, the tables and the snapshots refer
 * to, and kept up as tables come and go. Tables that overlap each other are refused at open. Later three questions are
 * asked of it, each before anything is changed; when the answer is yes the image is marked corrupt (marks.c) and not
 * written to any more:
 *
 *     is a free cluster that is to be allocated a table?     alloc.c, refcount.c
 *     is what an L2 entry refers to a table?                  write.c, before it is dropped or written over
 *     may guest data be written in place?                     map.c: not on a table; then write.c finds it
 *
 * Options say which kinds are looked after: a template, and an answer of its own for each kind.
 *
 * Limitation: L2 tables that only snapshots use are looked after with overlap-check=all alone, since finding them costs
 * reading the L1 tables of all snapshots.
 */
#include "drivers/qcow2/qcow2.h"

enum { L1_PART = 4096 };

#define KIND(kind) (1u << QCOW2_TABLE_##kind)
#define KINDS_CONSTANT (KIND(HEADER) | KIND(ACTIVE_L1) | KIND(REFCOUNT_TABLE) | KIND(SNAPSHOT_TABLE) | KIND(BITMAPS) | \
                        KIND(NEW))
#define KINDS_CACHED (KINDS_CONSTANT | KIND(ACTIVE_L2) | KIND(REFCOUNT_BLOCK) | KIND(INACTIVE_L1))
#define KINDS_ALL (KINDS_CACHED | KIND(INACTIVE_L2))

const char *const qcow2_overlap_templates[] = { "none", "constant", "cached", "all", NULL };
static const unsigned template_kinds[] = { 0, KINDS_CONSTANT, KINDS_CACHED, KINDS_ALL };

/* Names for messages, and keys of options. */
static const struct {
    const char *name, *key;
} kinds[QCOW2_TABLE_KINDS] = {
    [QCOW2_TABLE_HEADER] = { "the header", "overlap-check.main-header" },
    [QCOW2_TABLE_ACTIVE_L1] = { "the L1 table", "overlap-check.active-l1" },
    [QCOW2_TABLE_ACTIVE_L2] = { "an L2 table", "overlap-check.active-l2" },
    [QCOW2_TABLE_REFCOUNT_TABLE] = { "the refcount table", "overlap-check.refcount-table" },
    [QCOW2_TABLE_REFCOUNT_BLOCK] = { "a refcount block", "overlap-check.refcount-block" },
    [QCOW2_TABLE_SNAPSHOT_TABLE] = { "the snapshot table", "overlap-check.snapshot-table" },
    [QCOW2_TABLE_INACTIVE_L1] = { "a snapshot's L1 table", "overlap-check.inactive-l1" },
    [QCOW2_TABLE_INACTIVE_L2] = { "a snapshot's L2 table", "overlap-check.inactive-l2" },
    [QCOW2_TABLE_BITMAPS] = { "a table of bitmaps", "overlap-check.bitmap-directory" },
    [QCOW2_TABLE_NEW] = { "a table", NULL },
};

/* ---- options ---- */

int qcow2_overlap_options(Qcow2 *q, const BlkOptions *options, GError **error)
{
    static const char plain[] = "overlap-check", nested[] = "overlap-check.template";
    const bool has_nested = blk_options_has(options, nested);
    const unsigned template = blk_options_enum(options, has_nested ? nested : plain);

    if (has_nested && blk_options_has(options, plain) && blk_options_enum(options, plain) != template) {
        return blk_error(error, -EINVAL, "The options '%s' (%s) and '%s' (%s) contradict each other", plain,
                         blk_options_string(options, plain), nested, blk_options_string(options, nested));
    }
    q->overlap_kinds = template_kinds[template];
    for (unsigned kind = 0; kind < QCOW2_TABLE_KINDS; kind++) {
        if (kinds[kind].key != NULL && blk_options_has(options, kinds[kind].key)) {
            q->overlap_kinds &= ~(1u << kind);
            q->overlap_kinds |= (unsigned)blk_options_bool(options, kinds[kind].key) << kind;
        }
    }
    return 0;
}

/* ---- the set ---- */

/* QCOW2_TABLE_KINDS: none. */
static Qcow2TableKind kind_of(const Qcow2 *q, uint64_t cluster)
{
    const guint found = GPOINTER_TO_UINT(g_hash_table_lookup(q->tables, GSIZE_TO_POINTER(cluster)));

    return found == 0 ? QCOW2_TABLE_KINDS : found - 1;
}

const char *qcow2_table_name(const Qcow2 *q, uint64_t cluster)
{
    const Qcow2TableKind kind = kind_of(q, cluster);

    return kind == QCOW2_TABLE_KINDS ? "nothing" : kinds[kind].name;
}

int qcow2_tables_add(Qcow2 *q, Qcow2TableKind kind, uint64_t offset, uint64_t bytes, GError **error)
{
    const uint64_t first = qcow2_cluster_of(q, offset);
    const uint64_t end = qcow2_cluster_of(q, offset + bytes + q->cluster_size - 1);

    if (!(q->overlap_kinds & 1u << kind)) {
        return 0;
    }
    for (uint64_t cluster = first; cluster < end; cluster++) {
        if (qcow2_is_table(q, cluster)) {
            return blk_error(error, -EIO, "the image is corrupt: %s at offset %#" PRIx64 " overlaps %s; open it "
                             "read-only or repair it with 'check -r all'", kinds[kind].name, cluster << q->cluster_bits,
                             qcow2_table_name(q, cluster));
        }
    }
    for (uint64_t cluster = first; cluster < end; cluster++) {
        g_hash_table_insert(q->tables, GSIZE_TO_POINTER(cluster), GUINT_TO_POINTER(kind + 1));
    }
    return 0;
}

int qcow2_co_tables_claim(BlkNode *node, Qcow2TableKind kind, uint64_t offset, uint64_t bytes)
{
    g_autoptr(GError) error = NULL;
    int ret = qcow2_tables_add(node->opaque, kind, offset, bytes, &error);

    return ret < 0 ? qcow2_co_corrupt_at(node, offset, bytes, "%s", error->message) : 0;
}

void qcow2_tables_register_l2(Qcow2 *q, uint64_t offset)
{
    if (q->overlap_kinds & KIND(ACTIVE_L2)) {
        g_hash_table_insert(q->tables, GSIZE_TO_POINTER(qcow2_cluster_of(q, offset)),
                            GUINT_TO_POINTER(QCOW2_TABLE_ACTIVE_L2 + 1));
    }
}

void qcow2_tables_remove(Qcow2 *q, uint64_t offset, uint64_t bytes)
{
    const uint64_t end = qcow2_cluster_of(q, offset + bytes + q->cluster_size - 1);

    for (uint64_t cluster = qcow2_cluster_of(q, offset); cluster < end; cluster++) {
        g_hash_table_remove(q->tables, GSIZE_TO_POINTER(cluster));
    }
}

/* ---- at open ---- */

/* Tables that a table of offsets refers to. Those of a snapshot may be active tables too, or those of another
 * snapshot. */
static int co_add_entry(BlkNode *node, Qcow2TableKind kind, uint64_t offset, GError **error)
{
    Qcow2 *q = node->opaque;
    Qcow2TableKind there;

    if (offset % q->cluster_size != 0 || offset >= blk_node_length(node->file->node)) {
        return blk_error(error, -EIO, "the image is corrupt: %s at offset %#" PRIx64 " is misaligned or behind the end "
                         "of the file; open it read-only or repair it with 'check -r all'", kinds[kind].name, offset);
    }
    there = kind_of(q, qcow2_cluster_of(q, offset));
    if (kind == QCOW2_TABLE_INACTIVE_L2 && (there == QCOW2_TABLE_ACTIVE_L2 || there == QCOW2_TABLE_INACTIVE_L2)) {
        return 0;
    }
    return qcow2_tables_add(q, kind, offset, q->cluster_size, error);
}

static int co_add_referred(BlkNode *node, Qcow2TableKind kind, uint64_t table, uint64_t entries, GError **error)
{
    Qcow2 *q = node->opaque;
    const uint64_t slice = MIN(q->cluster_size, L1_PART);

    for (uint64_t pos = 0; pos < entries * 8; pos += slice) {
        BlkMetaBlock *block;
        int ret = blk_meta_co_get(q->meta, table + pos, &block);

        if (ret < 0) {
            return blk_error_errno(error, ret, "could not read the table at offset %" G_GUINT64_FORMAT, table + pos);
        }
        for (uint64_t i = 0; ret == 0 && i < MIN(slice, entries * 8 - pos) / 8; i++) {
            const uint64_t offset = blk_get_be64(block->data + i * 8) & QCOW2_OFFSET_MASK;

            ret = offset == 0 ? 0 : co_add_entry(node, kind, offset, error);
        }
        blk_meta_put(q->meta, block);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/* The snapshot table and the L1 tables of snapshots; or, if asked for, their L2 tables. */
static int co_add_snapshots(BlkNode *node, bool l2, GError **error)
{
    Qcow2 *q = node->opaque;
    g_autoptr(GArray) snapshots = NULL;
    uint64_t table_bytes;
    int ret;

    if (q->header.nb_snapshots == 0 || (l2 && !(q->overlap_kinds & KIND(INACTIVE_L2)))) {
        return 0;
    }
    ret = qcow2_snapshot_co_read_all(node->file->node, &q->header, &snapshots, &table_bytes, error);
    if (ret == 0 && !l2) {
        ret = qcow2_tables_add(q, QCOW2_TABLE_SNAPSHOT_TABLE, q->header.snapshots_offset, table_bytes, error);
    }
    for (unsigned i = 0; ret == 0 && i < snapshots->len; i++) {
        const Qcow2Snapshot *s = &g_array_index(snapshots, Qcow2Snapshot, i);

        ret = l2 ? co_add_referred(node, QCOW2_TABLE_INACTIVE_L2, s->l1_table_offset, s->l1_size, error)
                 : qcow2_tables_add(q, QCOW2_TABLE_INACTIVE_L1, s->l1_table_offset, s->l1_size * UINT64_C(8), error);
    }
    return ret;
}

/* All tables of the image if @tree were the active one. */
static int co_collect(BlkNode *node, const Qcow2Tree *tree, GError **error)
{
    Qcow2 *q = node->opaque;
    const Qcow2Header *h = &q->header;
    const uint64_t reftable_bytes = (uint64_t)h->refcount_table_clusters << q->cluster_bits;
    int ret = qcow2_tables_add(q, QCOW2_TABLE_HEADER, 0, q->cluster_size, error);

    if (ret == 0) {
        ret = qcow2_tables_add(q, QCOW2_TABLE_ACTIVE_L1, h->l1_table_offset, h->l1_size * UINT64_C(8), error);
    }
    if (ret == 0) {
        ret = qcow2_tables_add(q, QCOW2_TABLE_REFCOUNT_TABLE, h->refcount_table_offset, reftable_bytes, error);
    }
    if (ret == 0) {
        ret = co_add_snapshots(node, false, error);
    }
    if (ret == 0) {
        ret = qcow2_co_bitmaps_add_tables(node, error);
    }
    if (ret == 0) {
        ret = co_add_referred(node, QCOW2_TABLE_REFCOUNT_BLOCK, h->refcount_table_offset, reftable_bytes / 8, error);
    }
    if (ret == 0) {
        ret = co_add_referred(node, QCOW2_TABLE_ACTIVE_L2, tree->l1_table_offset, tree->l1_size, error);
    }
    return ret == 0 ? co_add_snapshots(node, true, error) : ret;
}

int qcow2_co_tables_open(BlkNode *node, GError **error)
{
    const Qcow2Tree active = qcow2_active_tree(node->opaque);

    return co_collect(node, &active, error);
}

int qcow2_co_check_tables(BlkNode *node, const Qcow2Tree *tree, GError **error)
{
    Qcow2 *q = node->opaque;
    GHashTable *tables = q->tables;

    q->tables = g_hash_table_new(NULL, NULL);       /* drained: nobody looks at it meanwhile */
    int ret = co_collect(node, tree, error);
    g_hash_table_unref(q->tables);
    q->tables = tables;
    return ret;
}
