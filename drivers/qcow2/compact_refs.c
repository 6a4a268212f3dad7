/* SPDX-License-Identifier: MIT */
/*
 * compact_refs.c - the reverse map of a compaction: who refers to what lies in one part of the file.
 *
 *     file   |.....|from      window      until|.....|
 *                        ^  ^       ^
 *     L1, L2, tables of bitmaps: the 8 bytes that say so, and how often that counts
 *
 * An entry of an L2 table counts as often as the table is referred to, by the active L1 table and those of snapshots. Each
 * L2 table is read once for each window, however many refer to it.
 *
 * Memory: 40 bytes for each of at most a million references, unless one cluster alone has more; and 8 bytes or so for each L2
 * table that is shared.
 */
#include "drivers/qcow2/compact.h"

enum { WINDOW = 1 << 19 };              /* references, when a window is complete */

typedef struct Collect {
    BlkNode *node;
    Qcow2 *q;
    Qcow2RefWindow *w;
    GHashTable *seen;                   /* set of the L2 tables (cluster index) with several references that were read */
} Collect;

void qcow2_refs_init(Qcow2RefWindow *w)
{
    w->refs = g_array_new(FALSE, FALSE, sizeof(Qcow2Ref));
    w->moved = g_hash_table_new(NULL, NULL);
}

void qcow2_refs_clear(Qcow2RefWindow *w)
{
    g_array_unref(w->refs);
    g_hash_table_unref(w->moved);
}

/* ---- the window ---- */

static int compare_refs(const void *a, const void *b)
{
    const Qcow2Ref *x = a, *y = b;

    if (x->host != y->host) {
        return x->host < y->host ? -1 : 1;
    }
    return x->bytes != y->bytes ? (x->bytes < y->bytes ? -1 : 1) : (int)x->kind - (int)y->kind;
}

/* Keeps the lower part of what was found, in whole clusters, and ends the window there. */
static void trim_window(const Qcow2 *q, Qcow2RefWindow *w)
{
    g_array_sort(w->refs, compare_refs);
    if (w->refs->len > WINDOW) {
        uint64_t until = qcow2_ref_at(w, WINDOW)->host & ~(q->cluster_size - 1);
        guint len = w->refs->len;
        w->until = MAX(until, w->from + q->cluster_size);
        while (len > 0 && qcow2_ref_at(w, len - 1)->host >= w->until) {
            len--;
        }
        g_array_set_size(w->refs, len);
    }
    w->limit = 2 * MAX(w->refs->len, WINDOW);
}

static void add_ref(Collect *c, const Qcow2Ref *ref)
{
    if (ref->host + ref->bytes > c->w->from && ref->host < c->w->until) {
        g_array_append_vals(c->w->refs, ref, 1);
        if (c->w->refs->len >= c->w->limit) {
            trim_window(c->q, c->w);
        }
    }
}

/* ---- L1 and L2 tables ---- */

static void add_entries(Collect *c, const BlkMetaBlock *block, uint64_t refs, bool own)
{
    Qcow2 *q = c->q;

    for (uint64_t at = 0; at < MIN(q->cluster_size, 4096); at += q->l2_entry_bytes) {
        uint64_t word = blk_get_be64(block->data + at), bytes;
        bool payload = (word & QCOW2_COMPRESSED) != 0;
        Qcow2Ref ref = {
            .place = block->offset + at, .refs = (uint32_t)refs, .kind = payload ? QCOW2_REF_PAYLOAD : QCOW2_REF_CLUSTER,
            .active = own && !payload && (word & QCOW2_COPIED),
        };
        if (qcow2_entry_extent(q, word, &ref.host, &bytes) == 0 && bytes > 0) {
            ref.bytes = (uint32_t)bytes;
            add_ref(c, &ref);
        }
    }
}

/* @own: nobody but the active L1 table refers to it. */
static int co_collect_l2(Collect *c, uint64_t table, bool own)
{
    Qcow2 *q = c->q;
    uint64_t slice = MIN(q->cluster_size, 4096), refs, cluster = qcow2_cluster_of(q, table);

    blk_co_mutex_lock(&q->alloc_lock);
    int ret = qcow2_co_refcount_get(c->node, cluster, &refs);
    blk_co_mutex_unlock(&q->alloc_lock);
    if (ret == 0 && (refs == 0 || refs > UINT32_MAX)) {
        ret = -EIO;
    }
    if (ret < 0 || (refs > 1 && !g_hash_table_add(c->seen, GSIZE_TO_POINTER(cluster)))) {
        return ret;
    }
    for (uint64_t pos = 0; ret == 0 && pos < q->cluster_size; pos += slice) {
        BlkMetaBlock *block;
        ret = blk_meta_co_get(q->meta, table + pos, &block);
        if (ret == 0) {
            add_entries(c, block, refs, own && refs == 1);
            blk_meta_put(q->meta, block);
        }
    }
    return ret;
}

static int co_collect_tree(Collect *c, const Qcow2Tree *tree, bool active)
{
    Qcow2 *q = c->q;
    int ret = 0;

    for (uint64_t i = 0; ret == 0 && i < tree->l1_size; i++) {
        uint64_t place = tree->l1_table_offset + i * 8;
        BlkMetaBlock *block;
        ret = blk_meta_co_get(q->meta, place, &block);
        if (ret < 0) {
            break;
        }
        uint64_t table = blk_get_be64(block->data + (place - block->offset)) & QCOW2_OFFSET_MASK;
        blk_meta_put(q->meta, block);
        if (table == 0) {
            continue;
        }
        if (table % q->cluster_size != 0 || table >= MIN(q->host_limit, blk_node_length(c->node->file->node))) {
            return -EIO;
        }
        Qcow2Ref ref = {
            .host = table, .place = place, .bytes = (uint32_t)q->cluster_size, .refs = 1, .kind = QCOW2_REF_TABLE,
        };
        add_ref(c, &ref);
        ret = co_collect_l2(c, table, active);
    }
    return ret;
}

static int co_collect_snapshots(Collect *c)
{
    g_autoptr(GArray) snapshots = NULL;
    int ret = qcow2_snapshot_co_read_all(c->node->file->node, &c->q->header, &snapshots, NULL, NULL);

    for (guint i = 0; ret == 0 && i < snapshots->len; i++) {
        const Qcow2Snapshot *s = &g_array_index(snapshots, Qcow2Snapshot, i);
        Qcow2Tree tree = { .l1_table_offset = s->l1_table_offset, .l1_size = s->l1_size };
        ret = co_collect_tree(c, &tree, false);
    }
    return ret;
}

/* ---- bitmaps ---- */

static int co_collect_bitmaps(Collect *c)
{
    BlkNode *file = c->node->file->node;
    g_autoptr(GPtrArray) entries = NULL;
    int ret = qcow2_bitmaps_co_read_directory(file, &c->q->header, &entries, NULL);

    for (guint i = 0; ret == 0 && i < entries->len; i++) {
        Qcow2BitmapEntry *entry = g_ptr_array_index(entries, i);
        ret = qcow2_bitmap_co_read_table(file, &c->q->header, entry, NULL);
        for (uint32_t n = 0; ret == 0 && n < entry->table_size; n++) {
            Qcow2Ref ref = {
                .host = entry->table[n] & QCOW2_OFFSET_MASK, .place = entry->table_offset + n * UINT64_C(8),
                .bytes = (uint32_t)c->q->cluster_size, .refs = 1, .kind = QCOW2_REF_BITS,
            };
            if (ref.host != 0) {
                add_ref(c, &ref);
            }
        }
    }
    return ret;
}

int qcow2_co_refs_collect(BlkNode *node, Qcow2RefWindow *w, uint64_t from)
{
    Qcow2 *q = node->opaque;
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    Collect c = { .node = node, .q = q, .w = w, .seen = seen };
    Qcow2Tree active = qcow2_active_tree(q);

    w->from = from & ~(q->cluster_size - 1);
    w->until = UINT64_MAX;
    w->limit = 2 * WINDOW;
    g_array_set_size(w->refs, 0);
    g_hash_table_remove_all(w->moved);
    int ret = co_collect_tree(&c, &active, true);
    if (ret == 0) {
        ret = co_collect_snapshots(&c);
    }
    if (ret == 0) {
        ret = co_collect_bitmaps(&c);
    }
    trim_window(q, w);
    return ret;
}

/* ---- using it ---- */

guint qcow2_refs_group(const Qcow2RefWindow *w, guint i, uint64_t *refs)
{
    const Qcow2Ref *first = qcow2_ref_at(w, i);

    *refs = 0;
    while (i < w->refs->len && compare_refs(qcow2_ref_at(w, i), first) == 0) {
        *refs += qcow2_ref_at(w, i++)->refs;
    }
    return i;
}

guint qcow2_refs_batch(const Qcow2RefWindow *w, guint first, uint64_t most)
{
    uint64_t bytes = 0, refs;

    while (first < w->refs->len && bytes < most) {
        bytes += qcow2_ref_at(w, first)->bytes;
        first = qcow2_refs_group(w, first, &refs);
    }
    return first;
}

typedef struct Each {
    Qcow2RefWindow *w;
    guint next, end;
    Qcow2GroupFn *fn;
    void *opaque;
} Each;

static int co_each_task(void *opaque)
{
    Each *each = opaque;
    int ret = 0;

    while (ret == 0 && each->next < each->end) {
        guint first = each->next;
        uint64_t refs;
        each->next = qcow2_refs_group(each->w, first, &refs);
        if (qcow2_ref_at(each->w, first)->host >= each->w->from) {
            ret = each->fn(each->w, first, each->next, refs, each->opaque);
        }
    }
    return ret;
}

int qcow2_co_refs_each(Qcow2RefWindow *w, guint first, guint end, Qcow2GroupFn *fn, void *opaque)
{
    Each each = { .w = w, .next = first, .end = end, .fn = fn, .opaque = opaque };
    BlkCoGroup group = BLK_CO_GROUP_INIT(QCOW2_COMPACT_TASKS);

    for (unsigned i = 0; i < QCOW2_COMPACT_TASKS; i++) {
        if (blk_co_group_run(&group, co_each_task, &each) < 0) {
            break;
        }
    }
    return blk_co_group_wait(&group);
}

int qcow2_co_ref_get(BlkNode *node, const Qcow2RefWindow *w, const Qcow2Ref *ref, BlkMetaBlock **block, uint8_t **word)
{
    Qcow2 *q = node->opaque;
    gsize now = GPOINTER_TO_SIZE(g_hash_table_lookup(w->moved, GSIZE_TO_POINTER(qcow2_cluster_of(q, ref->place))));
    uint64_t place = now ? ((uint64_t)now << q->cluster_bits) + (ref->place & (q->cluster_size - 1)) : ref->place;
    int ret = blk_meta_co_get(q->meta, place, block);

    if (ret == 0) {
        *word = (*block)->data + (place - (*block)->offset);
    }
    return ret;
}

int qcow2_co_ref_read(BlkNode *node, const Qcow2Ref *ref, uint8_t *buf)
{
    BlkNode *file = node->file->node;
    uint64_t from = qcow2_ref_start(ref), bytes = qcow2_ref_space(ref), length = blk_node_length(file);
    uint64_t there = from < length ? MIN(bytes, length - from) : 0;

    memset(buf + there, 0, bytes - there);
    return there > 0 ? blk_co_pread(file, from, there, buf, 0) : 0;
}

int qcow2_co_refs_complete(BlkNode *node, const Qcow2Ref *ref, uint64_t refs, bool *complete)
{
    Qcow2 *q = node->opaque;
    uint64_t count;

    blk_co_mutex_lock(&q->alloc_lock);
    int ret = qcow2_co_refcount_get(node, qcow2_cluster_of(q, ref->host), &count);
    blk_co_mutex_unlock(&q->alloc_lock);
    *complete = ret == 0 && count == refs;
    return ret;
}

/* ---- the holes ---- */

/* What the references of the window, from group @first on, say of one cluster. */
typedef struct Use {
    uint64_t start, end;                /* the cluster: host offsets */
    uint64_t refs;
    uint8_t *uses;                      /* payloads, by sector */
    bool other;                         /* something else than payloads lies there */
} Use;

static void use_add(Use *use, const Qcow2Ref *ref, uint64_t refs)
{
    uint64_t start = MAX(ref->host, use->start), end = MIN(ref->host + ref->bytes, use->end);

    if (start >= end) {
        return;
    }
    use->refs += refs;
    use->other = use->other || ref->kind != QCOW2_REF_PAYLOAD;
    for (uint64_t i = (start - use->start) / 512; i < (end - use->start + 511) / 512; i++) {
        use->other = use->other || use->uses[i] == UINT8_MAX;
        use->uses[i]++;
    }
}

/* Looks at the cluster at @start; *first: (inout): the first group that may reach into it. */
static int co_learn_cluster(BlkNode *node, Qcow2RefWindow *w, guint *first, uint64_t start)
{
    Qcow2 *q = node->opaque;
    Use use = { .start = start, .end = start + q->cluster_size };
    uint64_t refs, cluster = qcow2_cluster_of(q, start), count;

    while (*first < w->refs->len && qcow2_ref_at(w, *first)->host + q->cluster_size + 512 <= start) {
        *first = qcow2_refs_group(w, *first, &refs);
    }
    use.uses = g_new0(uint8_t, q->cluster_size / 512);
    for (guint i = *first, end; i < w->refs->len && qcow2_ref_at(w, i)->host < use.end; i = end) {
        end = qcow2_refs_group(w, i, &refs);
        use_add(&use, qcow2_ref_at(w, i), refs);
    }
    blk_co_mutex_lock(&q->alloc_lock);
    int ret = qcow2_co_refcount_get(node, cluster, &count);
    if (ret == 0 && use.refs > 0 && use.refs == count && !use.other && !qcow2_is_table(q, cluster) &&
        !qcow2_payload_is_known(q, cluster)) {
        qcow2_payload_learn(q, cluster, g_steal_pointer(&use.uses));
    }
    blk_co_mutex_unlock(&q->alloc_lock);
    g_free(use.uses);
    return ret;
}

static int co_learn_window(BlkNode *node, Qcow2RefWindow *w)
{
    Qcow2 *q = node->opaque;
    uint64_t next = w->from;            /* the first cluster that was not looked at */
    guint first = 0;
    int ret = 0;

    for (guint i = 0; ret == 0 && i < w->refs->len; i++) {
        const Qcow2Ref *ref = qcow2_ref_at(w, i);
        uint64_t pos = MAX(ref->host & ~(q->cluster_size - 1), next);
        for (; ret == 0 && ref->kind == QCOW2_REF_PAYLOAD && pos < MIN(ref->host + ref->bytes, w->until);
             pos += q->cluster_size) {
            ret = co_learn_cluster(node, w, &first, pos);
            next = pos + q->cluster_size;
        }
    }
    return ret;
}

int qcow2_co_refs_learn(BlkNode *node, Qcow2RefWindow *w)
{
    Qcow2 *q = node->opaque;
    int ret = 0;

    blk_co_mutex_lock(&q->alloc_lock);
    qcow2_payload_forget(q);
    blk_co_mutex_unlock(&q->alloc_lock);
    q->surveyed = true;                 /* what is known from here on is not what a survey would find */
    for (uint64_t from = 0; ret == 0 && from != UINT64_MAX; from = w->until) {
        ret = qcow2_co_refs_collect(node, w, from);
        if (ret == 0) {
            ret = co_learn_window(node, w);
        }
    }
    return ret;
}
