/* SPDX-License-Identifier: MIT */
/*
 * refcount_width.c - refcounts of another width (format specification, "refcount_order").
 *
 *     | all that is in use ... | new table | new blocks |
 *                              ^ start                  ^ end
 *
 * The new structure is built behind all that is in use, beside the old one, which does not count it: until the header
 * refers to it, it is free space behind the end. It counts itself, and the old one, which is dropped when the switch is
 * stable. The switch is one write of the header's first sector. A block is made only for a range that has a count.
 *
 * All counts are in clusters unless named otherwise.
 */
#include "drivers/qcow2/qcow2.h"

typedef struct Rebuild {
    BlkNode *node;
    Qcow2 *q;
    unsigned order;                 /* the new one */
    unsigned block_bits;            /* counters of a new block: 1 << block_bits */
    GByteArray *needed;             /* [number of a new block]: is it needed? */
    uint64_t start, end;
    uint64_t table, blocks;         /* lengths */
    Qcow2Progress *progress;
} Rebuild;

static int mark_needed(Rebuild *r, uint64_t number)
{
    if (number >= QCOW2_MAX_REFCOUNT_TABLE_BYTES / 8) {
        return -EFBIG;
    }
    if (number >= r->needed->len) {
        guint old = r->needed->len;

        g_byte_array_set_size(r->needed, (guint)number + 1);
        memset(r->needed->data + old, 0, r->needed->len - old);
    }
    r->blocks += !r->needed->data[number];
    r->needed->data[number] = 1;
    return 0;
}

/* ---- what is counted now ---- */

/* Looks at the counts of the part of a block that begins with @cluster. */
static int look_at_part(Rebuild *r, const BlkMetaBlock *block, uint64_t cluster, uint64_t count, GError **error)
{
    uint64_t max = qcow2_refcount_max(r->order);

    for (uint64_t i = 0; i < count; i++) {
        uint64_t value = qcow2_refcount_get(block->data, r->q->header.refcount_order, i);
        if (value == 0) {
            continue;
        }
        if (value > max) {
            return blk_error(error, -EINVAL, "Cannot decrease refcount entry width to %u bits: Cluster at offset %#" PRIx64
                             " has a refcount of %" PRIu64, 1u << r->order, (cluster + i) << r->q->cluster_bits, value);
        }
        if (mark_needed(r, (cluster + i) >> r->block_bits) < 0) {
            return blk_error(error, -EFBIG, "Cannot increase refcount entry width to %u bits: the refcount table would be "
                             "larger than %u bytes", 1u << r->order, QCOW2_MAX_REFCOUNT_TABLE_BYTES);
        }
        r->start = MAX(r->start, cluster + i + 1);
    }
    return 0;
}

/* Looks at all counts that there are: do they fit, where are they, what is the last? Changes nothing. */
static int co_look(Rebuild *r, GError **error)
{
    Qcow2 *q = r->q;
    uint64_t entries = ((uint64_t)q->header.refcount_table_clusters << q->cluster_bits) / 8;
    uint64_t per_block = UINT64_C(1) << q->refblock_bits;

    for (uint64_t number = 0; number < entries; number++) {
        uint64_t cluster = number << q->refblock_bits, index, count = 0;
        for (uint64_t i = 0; i < per_block; i += count) {
            BlkMetaBlock *block;
            int ret = qcow2_co_refcount_find(r->node, cluster + i, &block, &index, &count);
            if (ret < 0) {
                return blk_error_errno(error, ret, "could not read the refcounts");
            }
            if (!block) {
                break;
            }
            ret = look_at_part(r, block, cluster + i, count, error);
            blk_meta_put(q->meta, block);
            if (ret < 0) {
                return ret;
            }
        }
        qcow2_progress(r->progress, (double)(number + 1) / (double)entries / 2);
    }
    return 0;
}

/* Finds a place for the new structure, which counts itself. */
static int plan(Rebuild *r, GError **error)
{
    Qcow2 *q = r->q;
    uint64_t marked;
    int ret = 0;

    r->end = r->start;
    do {
        marked = r->end;
        r->table = (r->needed->len * UINT64_C(8) + q->cluster_size - 1) >> q->cluster_bits;
        r->end = r->start + r->table + r->blocks;
        for (uint64_t c = marked; ret == 0 && c < r->end; c++) {
            ret = mark_needed(r, c >> r->block_bits);
        }
    } while (ret == 0 && r->end != marked);
    if (ret < 0 || r->end >= q->host_limit >> q->cluster_bits) {
        return blk_error(error, -EFBIG, "Cannot change the refcount width to %u bits: the new refcounts would be too large",
                         1u << r->order);
    }
    return 0;
}

/* ---- the new structure ---- */

/* Sets the new counters of block @number from the old ones. */
static int co_fill_block(Rebuild *r, uint64_t number, uint8_t *buf)
{
    uint64_t first = number << r->block_bits, count = UINT64_C(1) << r->block_bits;

    memset(buf, 0, r->q->cluster_size);
    for (uint64_t i = 0; i < count;) {
        uint64_t index, in_part, cluster = first + i;
        BlkMetaBlock *block;
        int ret = qcow2_co_refcount_find(r->node, cluster, &block, &index, &in_part);
        if (ret < 0) {
            return ret;
        }
        uint64_t n = block ? MIN(in_part - index, count - i)
                           : MIN(count - i, (UINT64_C(1) << r->q->refblock_bits) -
                                            (cluster & ((UINT64_C(1) << r->q->refblock_bits) - 1)));
        for (uint64_t k = 0; block && k < n; k++) {
            qcow2_refcount_set(buf, r->order, i + k,
                               qcow2_refcount_get(block->data, r->q->header.refcount_order, index + k));
        }
        blk_meta_put(r->q->meta, block);
        i += n;
    }
    for (uint64_t c = MAX(first, r->start); c < MIN(first + count, r->end); c++) {
        qcow2_refcount_set(buf, r->order, c - first, 1);
    }
    return 0;
}

static int co_write_structure(Rebuild *r)
{
    Qcow2 *q = r->q;
    BlkNode *file = r->node->file->node;
    g_autofree uint8_t *buf = g_try_malloc(q->cluster_size);
    g_autofree uint8_t *table = g_try_malloc0(r->table << q->cluster_bits);
    uint64_t place = r->start + r->table;
    int ret = buf && table ? 0 : -ENOMEM;

    blk_co_event(file, BLK_EVENT_refblock_alloc_write_blocks);
    for (guint number = 0; ret == 0 && number < r->needed->len; number++) {
        if (!r->needed->data[number]) {
            continue;
        }
        ret = co_fill_block(r, number, buf);
        if (ret == 0) {
            ret = blk_co_pwrite(file, place << q->cluster_bits, q->cluster_size, buf, 0);
        }
        blk_put_be64(table + number * 8, place++ << q->cluster_bits);
        qcow2_progress(r->progress, 0.5 + (double)(number + 1) / r->needed->len / 2);
    }
    if (ret == 0) {
        blk_co_event(file, BLK_EVENT_refblock_alloc_write_table);
        ret = blk_co_pwrite(file, r->start << q->cluster_bits, r->table << q->cluster_bits, table, 0);
    }
    return ret < 0 ? ret : blk_co_flush(file);
}

/* ---- the switch ---- */

/* The old table and its blocks are no longer referred to. */
static int co_old_clusters(Rebuild *r, GArray *clusters)
{
    Qcow2 *q = r->q;
    uint64_t table = q->header.refcount_table_offset, slice = MIN(q->cluster_size, 4096);
    uint64_t bytes = (uint64_t)q->header.refcount_table_clusters << q->cluster_bits;

    for (uint64_t pos = 0; pos < bytes; pos += slice) {
        BlkMetaBlock *block;
        int ret = blk_meta_co_get(q->meta, table + pos, &block);
        if (ret < 0) {
            return ret;
        }
        for (uint64_t i = 0; i < slice / 8; i++) {
            uint64_t offset = blk_get_be64(block->data + i * 8) & QCOW2_REFTABLE_OFFSET_MASK;
            if (offset != 0) {
                g_array_append_val(clusters, offset);
            }
        }
        blk_meta_put(q->meta, block);
    }
    for (uint64_t pos = 0; pos < bytes; pos += q->cluster_size) {
        uint64_t offset = table + pos;
        g_array_append_val(clusters, offset);
    }
    return 0;
}

static int co_switch(Rebuild *r, GError **error)
{
    Qcow2 *q = r->q;
    g_autoptr(GArray) old = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    Qcow2Header header;
    int ret = co_old_clusters(r, old);

    if (ret < 0) {
        return blk_error_errno(error, ret, "could not read the refcount table");
    }
    ret = qcow2_co_switch_begin(r->node, &header, error);
    if (ret < 0) {
        return ret;
    }
    header.refcount_table_offset = r->start << q->cluster_bits;
    header.refcount_table_clusters = (uint32_t)r->table;
    header.refcount_order = r->order;
    blk_co_event(r->node->file->node, BLK_EVENT_refblock_alloc_switch_table);
    ret = qcow2_co_switch_end(r->node, &header, error);
    if (ret < 0) {
        return ret;
    }
    qcow2_set_geometry(q);
    for (guint i = 0; i < old->len; i++) {
        uint64_t offset = g_array_index(old, uint64_t, i);
        blk_meta_co_forget(q->meta, offset, q->cluster_size);
        qcow2_drop(q, offset, q->cluster_size, false);
    }
    return 0;
}

/* With a place for it: builds the new structure there and switches to it. */
static int co_build_and_switch(Rebuild *r, GError **error)
{
    Qcow2 *q = r->q;
    uint64_t offset = r->start << q->cluster_bits, bytes = (r->end - r->start) << q->cluster_bits;
    int ret = qcow2_tables_add(q, QCOW2_TABLE_NEW, offset, bytes, NULL);

    if (ret < 0) {
        return blk_error(error, ret, "a table lies behind all that is counted: repair the image with 'check -r all'");
    }
    blk_meta_co_forget(q->meta, offset, bytes);     /* what earlier tables there were like */
    ret = co_write_structure(r);
    ret = ret < 0 ? blk_error_errno(error, ret, "could not write the new refcounts") : co_switch(r, error);
    if (ret < 0) {
        qcow2_tables_remove(q, offset, bytes);
    }
    return ret;
}

int qcow2_co_refcounts_fit(BlkNode *node, unsigned order, GError **error)
{
    Qcow2 *q = node->opaque;
    g_autoptr(GByteArray) needed = g_byte_array_new();
    Qcow2Progress silent = { 0 };
    Rebuild r = {
        .node = node, .q = q, .order = order, .block_bits = q->cluster_bits + 3 - order, .needed = needed,
        .progress = &silent,
    };

    blk_co_mutex_lock(&q->alloc_lock);
    int ret = co_look(&r, error);
    blk_co_mutex_unlock(&q->alloc_lock);
    return ret;
}

int qcow2_co_change_refcount_width(BlkNode *node, unsigned order, Qcow2Progress *progress, GError **error)
{
    Qcow2 *q = node->opaque;
    g_autoptr(GByteArray) needed = g_byte_array_new();
    Rebuild r = {
        .node = node, .q = q, .order = order, .block_bits = q->cluster_bits + 3 - order, .needed = needed,
        .progress = progress,
    };

    blk_co_mutex_lock(&q->alloc_lock);
    int ret = co_look(&r, error);
    if (ret == 0) {
        ret = plan(&r, error);
    }
    if (ret == 0) {
        ret = co_build_and_switch(&r, error);
    }
    blk_co_mutex_unlock(&q->alloc_lock);
    return ret;
}
