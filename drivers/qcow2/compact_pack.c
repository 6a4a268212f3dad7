/* SPDX-License-Identifier: MIT */
/*
 * compact_pack.c - moves everything down in the file, until no free space is left below it.
 *
 *     |packed.......|          gap           |next batch| ... |evacuated|
 *
 * See docs/compact.md. Extents are collected in windows, in the order of the file; each window costs a walk through the
 * tables.
 */
#include "drivers/qcow2/compact.h"

#define GAP_BYTES   (UINT64_C(8) << 20) /* of the gap that moves up */
#define BATCH_BYTES (GAP_BYTES / 2)     /* of what moves down at once: the rest is for what does not fit exactly */

enum {
    WINDOW = 1 << 19,                   /* extents */
    WORTH_WHILE = 256,                  /* one part of so many of the file is free */
    ROUNDS = 3,                         /* at most: what found no place is tried once more */
};

typedef enum ExtentKind { EXTENT_TABLE, EXTENT_PAYLOAD, EXTENT_PLAIN, EXTENT_KINDS } ExtentKind;

typedef struct Extent {
    uint64_t host, guest;
    uint32_t bytes;
    ExtentKind kind;
} Extent;

typedef struct Pack {
    Qcow2Compact *c;
    BlkNode *node;
    Qcow2 *q;
    uint64_t from, until;               /* the window: host offsets */
    GArray *extents;                    /* of Extent, by host offset once the window is complete */
    ExtentKind kind;                    /* that tasks move now */
    bool lower;                         /* only to lower places */
    guint next, end;                    /* the batch */
} Pack;

/* ---- the window ---- */

static int compare_extents(const void *a, const void *b)
{
    const Extent *x = a, *y = b;

    return x->host < y->host ? -1 : x->host > y->host;
}

/* Keeps the lower part of what was found, and ends the window there. */
static void trim_window(Pack *p)
{
    g_array_sort(p->extents, compare_extents);
    if (p->extents->len > WINDOW) {
        p->until = g_array_index(p->extents, Extent, WINDOW).host;
        g_array_set_size(p->extents, WINDOW);
    }
}

static void add_extent(Pack *p, ExtentKind kind, uint64_t guest, uint64_t host, uint64_t bytes)
{
    Extent extent = { .host = host, .guest = guest, .bytes = (uint32_t)bytes, .kind = kind };

    if (host >= p->from && host < p->until) {
        g_array_append_val(p->extents, extent);
        if (p->extents->len >= 2 * WINDOW) {
            trim_window(p);
        }
    }
}

/* Qcow2WalkFn */
static void collect_entry(Qcow2 *q, uint64_t guest, uint64_t word, bool shared, void *opaque)
{
    uint64_t offset, bytes;

    if (shared || qcow2_entry_extent(q, word, &offset, &bytes) < 0 || bytes == 0) {
        return;
    }
    if (!(word & QCOW2_COMPRESSED)) {
        if (word & QCOW2_COPIED) {
            add_extent(opaque, EXTENT_PLAIN, guest, offset, bytes);
        }
    } else if (offset % 512 == 0 && qcow2_payload_is_known(q, qcow2_cluster_of(q, offset)) &&
               qcow2_payload_is_known(q, qcow2_cluster_of(q, offset + bytes - 1))) {
        add_extent(opaque, EXTENT_PAYLOAD, guest, offset, bytes);
    }
}

static int co_collect_tables(Pack *p)
{
    uint64_t span = UINT64_C(1) << (p->q->cluster_bits + p->q->l2_bits), l1_entry;
    int ret = 0;

    for (uint64_t guest = 0; ret == 0 && guest < p->node->length; guest += span) {
        ret = qcow2_co_l1_entry(p->node, guest, &l1_entry);
        if (ret == 0 && (l1_entry & QCOW2_COPIED)) {
            add_extent(p, EXTENT_TABLE, guest, l1_entry & QCOW2_OFFSET_MASK, p->q->cluster_size);
        }
    }
    return ret;
}

/* Collects the extents that lie at @from or behind, as many as there is room for. */
static int co_collect(Pack *p, uint64_t from)
{
    uint64_t pos = 0;

    p->from = from;
    p->until = UINT64_MAX;
    g_array_set_size(p->extents, 0);
    int ret = co_collect_tables(p);
    while (ret == 0 && pos < p->node->length) {
        ret = qcow2_co_walk(p->node, &pos, collect_entry, p);
    }
    trim_window(p);
    return ret;
}

/* ---- moving one extent ---- */

#define NO_PLACE UINT64_MAX

static int co_copy(Pack *p, uint64_t from, uint64_t to, uint64_t bytes)
{
    BlkNode *file = p->node->file->node;
    uint64_t length = blk_node_length(file), there = from < length ? MIN(bytes, length - from) : 0;
    uint8_t *buf = blk_buffer_try_alloc(file, bytes);
    int ret = buf ? 0 : -ENOMEM;

    if (ret == 0) {
        memset(buf + there, 0, bytes - there);
        ret = blk_co_pread(file, from, there, buf, 0);
    }
    if (ret == 0) {
        ret = blk_co_pwrite(file, to, bytes, buf, 0);
    }
    blk_buffer_free(buf);
    return ret;
}

/* Lets the entry of the extent refer to @to. Nobody else changes entries meanwhile. */
static int co_repoint(Pack *p, const Extent *extent, uint64_t to)
{
    Qcow2 *q = p->q;
    uint64_t l1_entry;
    BlkMetaBlock *block;
    int ret = qcow2_co_l1_entry(p->node, extent->guest, &l1_entry);

    if (ret < 0) {
        return ret;
    }
    uint64_t place = qcow2_l2_entry_offset(q, l1_entry, extent->guest);
    ret = blk_meta_co_get_for(q->meta, place, BLK_EVENT_l2_load, &block);
    if (ret < 0) {
        return ret;
    }
    uint8_t *at = block->data + (place - block->offset);
    uint64_t word = qcow2_get64(at);
    qcow2_put64(at, extent->kind == EXTENT_PAYLOAD ? qcow2_compressed_encode(q->cluster_bits, to, extent->bytes)
                                                   : (word & ~QCOW2_OFFSET_MASK) | to);
    blk_meta_dirty(q->meta, block, BLK_META_MAP);
    blk_meta_put(q->meta, block);
    qcow2_drop(q, extent->host, extent->bytes, extent->kind == EXTENT_PAYLOAD);
    return 0;
}

/* Takes a place for the extent; below it, if it is to move down: *to is NO_PLACE if there is none. With alloc_lock held. */
static int co_take_place(Pack *p, const Extent *extent, uint64_t *to)
{
    Qcow2 *q = p->q;
    uint64_t cluster;

    *to = NO_PLACE;
    if (extent->kind == EXTENT_PAYLOAD) {
        int ret = qcow2_co_alloc_payload(p->node, extent->bytes, p->lower ? extent->host : UINT64_MAX, to);
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
    if (p->lower && cluster >= qcow2_cluster_of(q, extent->host)) {
        return 0;
    }
    *to = cluster << q->cluster_bits;
    run = qcow2_co_alloc_clusters(p->node, 1, &cluster);
    return run < 0 ? (int)run : 0;
}

static int co_move_data(Pack *p, const Extent *extent)
{
    uint64_t to;

    blk_co_mutex_lock(&p->q->alloc_lock);
    int ret = co_take_place(p, extent, &to);
    blk_co_mutex_unlock(&p->q->alloc_lock);
    if (ret < 0 || to == NO_PLACE) {
        return ret;
    }
    ret = co_copy(p, extent->host, to, extent->bytes);
    if (ret == 0) {
        ret = co_repoint(p, extent, to);
    }
    if (ret < 0) {
        qcow2_drop(p->q, to, extent->bytes, extent->kind == EXTENT_PAYLOAD);
    }
    return ret;
}

/* The table is clean: a batch begins with its tables. */
static int co_move_table(Pack *p, const Extent *extent)
{
    Qcow2 *q = p->q;
    uint64_t cluster, l1_entry;

    blk_co_mutex_lock(&q->alloc_lock);
    gint64 run = qcow2_co_find_run(p->node, 1, &cluster);
    blk_co_mutex_unlock(&q->alloc_lock);
    if (run < 0) {
        return (int)run;
    }
    if (p->lower && cluster >= qcow2_cluster_of(q, extent->host)) {
        return 0;
    }
    blk_co_mutex_lock(&q->l2_lock);
    int ret = qcow2_co_l1_entry(p->node, extent->guest, &l1_entry);
    if (ret == 0) {
        ret = qcow2_co_new_table(p->node, extent->guest, &l1_entry);
    }
    blk_co_mutex_unlock(&q->l2_lock);
    return ret;
}

static int co_move_task(void *opaque)
{
    Pack *p = opaque;
    int ret = 0;

    while (ret == 0 && p->next < p->end) {
        const Extent extent = g_array_index(p->extents, Extent, p->next++);
        if (extent.kind == p->kind) {
            ret = extent.kind == EXTENT_TABLE ? co_move_table(p, &extent) : co_move_data(p, &extent);
        }
    }
    return ret;
}

/* ---- batches ---- */

/* Moves the extents first..end - 1; afterwards all of it is stable, and what was left is free. */
static int co_move_batch(Pack *p, guint first, guint end)
{
    int ret = 0;

    p->end = end;
    for (unsigned kind = 0; ret == 0 && kind < EXTENT_KINDS; kind++) {
        BlkCoGroup group = BLK_CO_GROUP_INIT(QCOW2_COMPACT_TASKS);
        p->kind = kind;
        p->next = first;
        /* One table at a time: each looks for the lowest place, and then takes it. */
        for (unsigned i = 0; i < (kind == EXTENT_TABLE ? 1 : QCOW2_COMPACT_TASKS); i++) {
            if (blk_co_group_run(&group, co_move_task, p) < 0) {
                break;
            }
        }
        ret = blk_co_group_wait(&group);
    }
    return ret < 0 ? ret : qcow2_co_settle(p->node);
}

/* The end of a batch of about @most bytes that begins with extent @first. */
static guint batch_end(const Pack *p, guint first, uint64_t most)
{
    uint64_t bytes = 0;

    while (first < p->extents->len && bytes < most) {
        bytes += g_array_index(p->extents, Extent, first++).bytes;
    }
    return first;
}

/* Makes the gap: what lies behind the first free space goes to the end of the file. */
static int co_evacuate(Pack *p, uint64_t first_free)
{
    Qcow2 *q = p->q;
    int ret = co_collect(p, first_free);

    if (ret < 0) {
        return ret;
    }
    q->append_from = qcow2_cluster_of(q, blk_node_length(p->node->file->node) + q->cluster_size - 1);
    p->lower = false;
    qcow2_payload_retire_bump(q);
    ret = co_move_batch(p, 0, batch_end(p, 0, GAP_BYTES));
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
        ret = co_collect(p, from);
        for (guint first = 0, end; ret == 0 && first < p->extents->len; first = end) {
            end = batch_end(p, first, BATCH_BYTES);
            ret = co_move_batch(p, first, end);
            qcow2_compact_progress(p->c, (double)g_array_index(p->extents, Extent, end - 1).host / (double)length);
        }
        from = p->until;
    }
    return ret;
}

/* Where the first free space is, and how much there is of it up to the end of the file: bytes. */
static int co_find_free_space(Pack *p, uint64_t *first, uint64_t *bytes)
{
    Qcow2 *q = p->q;
    uint64_t length = blk_node_length(p->node->file->node), cluster, used = q->used_clusters << q->cluster_bits;

    blk_co_mutex_lock(&q->alloc_lock);
    gint64 run = qcow2_co_find_run(p->node, 1, &cluster);
    blk_co_mutex_unlock(&q->alloc_lock);
    if (run < 0) {
        return (int)run;
    }
    qcow2_holes_find_lowest(q->holes, 512, first);
    *first = MIN(*first, cluster << q->cluster_bits);
    *bytes = (length > used ? length - used : 0) + qcow2_holes_bytes(q->holes);
    return 0;
}

/* One round. *done: there is nothing, or not enough, to be won. */
static int co_pack(Pack *p, bool *done)
{
    uint64_t first_free = 0, bytes = 0;
    int ret = co_find_free_space(p, &first_free, &bytes);

    *done = bytes < blk_node_length(p->node->file->node) / WORTH_WHILE;
    if (ret < 0 || *done) {
        return ret;
    }
    ret = co_evacuate(p, first_free);
    return ret < 0 ? ret : co_slide(p, first_free);
}

int qcow2_co_compact_pack(Qcow2Compact *c, GError **error)
{
    Qcow2 *q = c->node->opaque;
    g_autoptr(GArray) extents = g_array_new(FALSE, FALSE, sizeof(Extent));
    Pack p = { .c = c, .node = c->node, .q = q, .extents = extents };
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
