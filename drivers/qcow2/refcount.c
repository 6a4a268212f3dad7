/* SPDX-License-Identifier: MIT */
/*
 * refcount.c - reference counts of host clusters (format specification, "Host cluster management").
 *
 *     cluster index = | index in the refcount table | index in the refcount block |
 *
 * A refcount block lies in the first cluster of the range that it counts, and counts itself; those of a span that is
 * wanted in one piece lie elsewhere. A block is written out before the table refers to it. The table grows by a new area
 * behind all that can be counted so far: refcount blocks for the area, then the larger table; the header is changed when
 * all of it is stable.
 */
#include "drivers/qcow2/qcow2.h"

enum { HEADER_REFTABLE_AT = 48 };       /* offset, then number of clusters: bytes */

static uint64_t reftable_entries(const Qcow2 *q)
{
    return ((uint64_t)q->header.refcount_table_clusters << q->cluster_bits) / 8;
}

/* The offset of the refcount block with number @number; 0: there is none. */
static int co_reftable_entry(BlkNode *node, uint64_t number, uint64_t *offset)
{
    Qcow2 *q = node->opaque;
    BlkMetaBlock *block;

    *offset = 0;
    if (number >= reftable_entries(q)) {
        return 0;
    }
    uint64_t place = q->header.refcount_table_offset + number * 8;
    int ret = blk_meta_co_get_for(q->meta, place, BLK_EVENT_reftable_load, &block);
    if (ret < 0) {
        return ret;
    }
    uint64_t entry = blk_get_be64(block->data + (place - block->offset));
    blk_meta_put(q->meta, block);
    if ((entry & QCOW2_REFTABLE_RESERVED) || entry % q->cluster_size != 0 || entry >= q->host_limit) {
        return -EIO;
    }
    *offset = entry;
    return 0;
}

int qcow2_co_refcount_find(BlkNode *node, uint64_t cluster, BlkMetaBlock **block, uint64_t *index, uint64_t *count)
{
    Qcow2 *q = node->opaque;
    uint64_t refblock, in_block = cluster & ((UINT64_C(1) << q->refblock_bits) - 1);
    unsigned order = q->header.refcount_order;
    int ret = co_reftable_entry(node, cluster >> q->refblock_bits, &refblock);

    *block = NULL;
    *index = 0;
    *count = 0;
    if (ret < 0 || refblock == 0) {
        return ret;
    }
    uint64_t slice = MIN(q->cluster_size, 4096);
    *count = (slice * 8) >> order;
    *index = in_block & (*count - 1);
    return blk_meta_co_get_for(q->meta, refblock + (in_block - *index) / *count * slice, BLK_EVENT_refblock_load, block);
}

int qcow2_co_refcount_get(BlkNode *node, uint64_t cluster, uint64_t *value)
{
    Qcow2 *q = node->opaque;
    uint64_t index, count;
    BlkMetaBlock *block;
    int ret = qcow2_co_refcount_find(node, cluster, &block, &index, &count);

    *value = block ? qcow2_refcount_get(block->data, q->header.refcount_order, index) : 0;
    blk_meta_put(q->meta, block);
    return ret;
}

int qcow2_co_refcount_raise(BlkNode *node, uint64_t cluster, uint64_t refs)
{
    Qcow2 *q = node->opaque;
    uint64_t index, count;
    BlkMetaBlock *block;
    int ret = qcow2_co_refcount_find(node, cluster, &block, &index, &count);

    if (ret == 0 && !block) {
        ret = qcow2_co_refcount_add_block(node, cluster);
        if (ret == 0) {
            ret = qcow2_co_refcount_find(node, cluster, &block, &index, &count);
        }
    }
    if (ret < 0) {
        return ret;
    }
    uint64_t value = qcow2_refcount_get(block->data, q->header.refcount_order, index);
    if (refs > q->refcount_max - value) {
        ret = -ERANGE;
    } else {
        qcow2_refcount_set(block->data, q->header.refcount_order, index, value + refs);
        q->used_clusters += value == 0 && cluster < q->used_counted;
        blk_meta_dirty(q->meta, block, BLK_META_COUNTS);
    }
    blk_meta_put(q->meta, block);
    return ret;
}

int qcow2_co_refcount_lower(BlkNode *node, uint64_t cluster, uint64_t refs, uint64_t *value)
{
    Qcow2 *q = node->opaque;
    uint64_t index, count;
    BlkMetaBlock *block;
    int ret = qcow2_co_refcount_find(node, cluster, &block, &index, &count);

    *value = 0;
    if (ret < 0) {
        return ret;
    }
    if (!block) {
        return qcow2_co_corrupt_at(node, cluster << q->cluster_bits, q->cluster_size, "nothing counts the cluster at offset %#" PRIx64 ", which was in use",
                                cluster << q->cluster_bits);
    }
    *value = qcow2_refcount_get(block->data, q->header.refcount_order, index);
    if (*value < refs) {
        ret = qcow2_co_corrupt_at(node, cluster << q->cluster_bits, q->cluster_size, "the refcount of the cluster at offset %#"
                                  PRIx64 " is %" PRIu64 ", but it had %" PRIu64 " users", cluster << q->cluster_bits, *value, refs);
    } else {
        *value -= refs;
        qcow2_refcount_set(block->data, q->header.refcount_order, index, *value);
        q->used_clusters -= *value == 0 && cluster < q->used_counted;
        blk_meta_dirty(q->meta, block, BLK_META_COUNTS);
    }
    blk_meta_put(q->meta, block);
    return ret;
}

/* Writes a refcount block at @offset whose first @used counters are 1, past the cache. */
static int co_write_refblock(BlkNode *node, uint64_t offset, uint64_t used)
{
    Qcow2 *q = node->opaque;
    uint8_t *buf = blk_buffer_try_alloc(node->file->node, q->cluster_size);
    int ret;

    if (!buf) {
        return -ENOMEM;
    }
    memset(buf, 0, q->cluster_size);
    for (uint64_t i = 0; i < used; i++) {
        qcow2_refcount_set(buf, q->header.refcount_order, i, 1);
    }
    blk_meta_co_forget(q->meta, offset, q->cluster_size);       /* what an earlier table there was like */
    blk_co_event(node->file->node, BLK_EVENT_refblock_alloc_write);
    ret = blk_co_pwrite(node->file->node, offset, q->cluster_size, buf, 0);
    blk_buffer_free(buf);
    return ret;
}

/* ---- a larger table ---- */

/* Where a larger refcount table goes. All counts are in clusters unless named otherwise. */
typedef struct Growth {
    uint64_t start;                 /* the area: refcount blocks, then the table */
    uint64_t blocks, table;
    uint64_t old_entries;
} Growth;

static int growth_plan(const Qcow2 *q, uint64_t cluster, Growth *g)
{
    uint64_t per_block = UINT64_C(1) << q->refblock_bits;
    uint64_t entries_per_cluster = q->cluster_size / 8, needed;

    g->old_entries = reftable_entries(q);
    g->start = g->old_entries << q->refblock_bits;
    g->table = q->header.refcount_table_clusters + q->header.refcount_table_clusters / 2 + 1;
    do {
        g->blocks = (g->table + per_block - 1) / per_block;
        while (g->blocks * per_block < g->blocks + g->table) {
            g->blocks++;
        }
        needed = MAX(g->old_entries + g->blocks, (cluster >> q->refblock_bits) + 1);
        if (needed <= g->table * entries_per_cluster) {
            break;
        }
        g->table = (needed + entries_per_cluster - 1) / entries_per_cluster;
    } while (g->table << q->cluster_bits <= QCOW2_MAX_REFCOUNT_TABLE_BYTES);
    if (g->table << q->cluster_bits > QCOW2_MAX_REFCOUNT_TABLE_BYTES ||
        (g->start + g->blocks + g->table) >= q->host_limit >> q->cluster_bits) {
        return -EFBIG;
    }
    return 0;
}

/* Writes the new blocks and the new table, which holds the old one's entries as they are in the cache. */
static int co_growth_write(BlkNode *node, const Growth *g)
{
    Qcow2 *q = node->opaque;
    uint64_t per_block = UINT64_C(1) << q->refblock_bits, left = g->blocks + g->table;
    uint64_t table_bytes = g->table << q->cluster_bits, slice = MIN(q->cluster_size, 4096);
    uint8_t *table = blk_buffer_try_alloc(node->file->node, table_bytes);
    BlkMetaBlock *block;
    int ret = table ? 0 : -ENOMEM;

    for (uint64_t i = 0; ret == 0 && i < g->blocks; i++) {
        ret = co_write_refblock(node, (g->start + i) << q->cluster_bits, MIN(left, per_block));
        left -= MIN(left, per_block);
    }
    if (ret == 0) {
        memset(table, 0, table_bytes);
    }
    for (uint64_t pos = 0; ret == 0 && pos < g->old_entries * 8; pos += slice) {
        ret = blk_meta_co_get(q->meta, q->header.refcount_table_offset + pos, &block);
        if (ret == 0) {
            memcpy(table + pos, block->data, slice);
            blk_meta_put(q->meta, block);
        }
    }
    for (uint64_t i = 0; ret == 0 && i < g->blocks; i++) {
        blk_put_be64(table + (g->old_entries + i) * 8, (g->start + i) << q->cluster_bits);
    }
    if (ret == 0) {
        blk_co_event(node->file->node, BLK_EVENT_reftable_grow);
        ret = blk_co_pwrite(node->file->node, (g->start + g->blocks) << q->cluster_bits, table_bytes, table, 0);
    }
    blk_buffer_free(table);
    return ret;
}

/* Lets the header refer to a new table, its two fields being in one sector, and drops the old one. */
static int co_switch_table(BlkNode *node, uint64_t offset, uint64_t clusters)
{
    Qcow2 *q = node->opaque;
    uint64_t old_offset = q->header.refcount_table_offset;
    uint64_t old_bytes = (uint64_t)q->header.refcount_table_clusters << q->cluster_bits;
    uint8_t field[12];

    blk_put_be64(field, offset);
    blk_put_be32(field + 8, (uint32_t)clusters);
    blk_co_event(node->file->node, BLK_EVENT_refblock_alloc_switch_table);
    int ret = qcow2_co_switch(node, HEADER_REFTABLE_AT, field, sizeof(field));
    if (ret < 0) {
        return ret;
    }
    q->header.refcount_table_offset = offset;
    q->header.refcount_table_clusters = (uint32_t)clusters;
    qcow2_co_table_drop(node, old_offset, old_bytes);
    return 0;
}

static int co_grow_table(BlkNode *node, uint64_t cluster)
{
    Qcow2 *q = node->opaque;
    Growth g;
    int ret = growth_plan(q, cluster, &g);

    if (ret == 0) {
        ret = qcow2_co_tables_claim(node, QCOW2_TABLE_NEW, g.start << q->cluster_bits,
                                    (g.blocks + g.table) << q->cluster_bits);
    }
    if (ret < 0) {
        return ret;
    }
    ret = co_growth_write(node, &g);
    if (ret == 0) {
        ret = blk_co_flush(node->file->node);
    }
    if (ret == 0) {
        ret = co_switch_table(node, (g.start + g.blocks) << q->cluster_bits, g.table);
    }
    if (ret < 0) {
        qcow2_tables_remove(q, g.start << q->cluster_bits, (g.blocks + g.table) << q->cluster_bits);
    }
    return ret;
}

/* Writes a refcount block at @offset, the first @used of whose counters are 1, and lets the table refer to it. */
static int co_link_refblock(BlkNode *node, uint64_t number, uint64_t offset, uint64_t used)
{
    Qcow2 *q = node->opaque;
    uint64_t place = q->header.refcount_table_offset + number * 8;
    BlkMetaBlock *block;
    int ret = qcow2_co_tables_claim(node, QCOW2_TABLE_REFCOUNT_BLOCK, offset, q->cluster_size);

    if (ret < 0) {
        return ret;
    }
    blk_co_event(node->file->node, BLK_EVENT_refblock_alloc);
    ret = co_write_refblock(node, offset, used);
    if (ret == 0) {
        blk_co_event(node->file->node, BLK_EVENT_refblock_alloc_hookup);
        ret = blk_meta_co_get(q->meta, place, &block);
    }
    if (ret < 0) {
        qcow2_tables_remove(q, offset, q->cluster_size);
        return ret;
    }
    blk_put_be64(block->data + (place - block->offset), offset);
    blk_meta_dirty(q->meta, block, BLK_META_COUNT_TABLE);
    blk_meta_put(q->meta, block);
    return 0;
}

int qcow2_co_refcount_add_block(BlkNode *node, uint64_t cluster)
{
    Qcow2 *q = node->opaque;
    uint64_t number = cluster >> q->refblock_bits, there;

    if (cluster >= q->host_limit >> q->cluster_bits) {
        return -EFBIG;
    }
    if (number >= reftable_entries(q)) {
        int ret = co_grow_table(node, cluster);
        if (ret < 0 || (ret = co_reftable_entry(node, number, &there)) < 0 || there != 0) {
            return ret;
        }
    }
    return co_link_refblock(node, number, (number << q->refblock_bits) << q->cluster_bits, 1);
}

/* The first number behind all refcount blocks that there are. */
static int co_first_unused_number(BlkNode *node, uint64_t *number)
{
    uint64_t offset = 0;
    int ret = 0;

    for (*number = reftable_entries(node->opaque); ret == 0 && *number > 0; (*number)--) {
        ret = co_reftable_entry(node, *number - 1, &offset);
        if (offset != 0) {
            break;
        }
    }
    return ret;
}

int qcow2_co_refcount_add_span(BlkNode *node, uint64_t count, uint64_t *first)
{
    Qcow2 *q = node->opaque;
    uint64_t blocks = (count + (UINT64_C(1) << q->refblock_bits) - 1) >> q->refblock_bits, number;
    g_autofree uint64_t *places = g_try_new(uint64_t, blocks);
    int ret = places ? 0 : -ENOMEM;

    for (uint64_t i = 0; ret == 0 && i < blocks; i++) {
        gint64 got = qcow2_co_alloc_clusters(node, 1, &places[i]);
        ret = got < 0 ? (int)got : 0;
    }
    if (ret == 0) {
        ret = co_first_unused_number(node, &number);
    }
    /* A larger table brings blocks of its own, behind which the span then begins. */
    for (unsigned i = 0; ret == 0 && number + blocks > reftable_entries(q) && i < 2; i++) {
        ret = co_grow_table(node, (number + 2 * blocks) << q->refblock_bits);
        if (ret == 0) {
            ret = co_first_unused_number(node, &number);
        }
    }
    if (ret == 0 && number + blocks > reftable_entries(q)) {
        ret = -EFBIG;
    }
    for (uint64_t i = 0; ret == 0 && i < blocks; i++) {
        ret = co_link_refblock(node, number + i, places[i] << q->cluster_bits, 0);
    }
    *first = ret == 0 ? number << q->refblock_bits : 0;
    return ret;
}

/* ---- a smaller table ---- */

/* Does the block at @offset count nothing, or nothing but itself? */
static int co_block_is_idle(BlkNode *node, uint64_t number, uint64_t offset, bool *idle)
{
    Qcow2 *q = node->opaque;
    uint64_t first = number << q->refblock_bits, per_block = UINT64_C(1) << q->refblock_bits, index, count = 0;

    *idle = true;
    for (uint64_t i = 0; *idle && i < per_block; i += count) {
        BlkMetaBlock *block;
        int ret = qcow2_co_refcount_find(node, first + i, &block, &index, &count);
        if (ret < 0) {
            return ret;
        }
        for (uint64_t k = 0; *idle && k < count; k++) {
            uint64_t value = qcow2_refcount_get(block->data, q->header.refcount_order, k);
            *idle = value == 0 || (value == 1 && first + i + k == qcow2_cluster_of(q, offset));
        }
        blk_meta_put(q->meta, block);
    }
    return 0;
}

static int co_unlink_refblock(BlkNode *node, uint64_t number, uint64_t offset)
{
    Qcow2 *q = node->opaque;
    uint64_t place = q->header.refcount_table_offset + number * 8;
    BlkMetaBlock *block;
    int ret = blk_meta_co_get(q->meta, place, &block);

    if (ret < 0) {
        return ret;
    }
    blk_put_be64(block->data + (place - block->offset), 0);
    blk_meta_dirty(q->meta, block, BLK_META_COUNT_TABLE);
    blk_meta_put(q->meta, block);
    blk_meta_co_forget(q->meta, offset, q->cluster_size);
    if (qcow2_cluster_of(q, offset) >> q->refblock_bits == number) {
        qcow2_tables_remove(q, offset, q->cluster_size);        /* its own count went with it */
        qcow2_note_freed(q, offset, q->cluster_size, q->cluster_size, true);
    } else {
        qcow2_drop(q, offset, q->cluster_size, false);
    }
    return 0;
}

int qcow2_co_refcount_trim(BlkNode *node)
{
    uint64_t offset;
    bool idle = true;
    int ret = 0;

    for (uint64_t number = reftable_entries(node->opaque); ret == 0 && idle && number-- > 0;) {
        ret = co_reftable_entry(node, number, &offset);
        if (ret == 0 && offset != 0) {
            ret = co_block_is_idle(node, number, offset, &idle);
        }
        if (ret == 0 && offset != 0 && idle) {
            ret = co_unlink_refblock(node, number, offset);
        }
    }
    return ret;
}

/* ---- lower places ---- */

/* Takes the lowest free cluster if it lies below @offset; *to is 0 if it does not. With alloc_lock held. */
static int co_take_lower(BlkNode *node, uint64_t offset, uint64_t *to)
{
    Qcow2 *q = node->opaque;
    uint64_t cluster;
    gint64 run = qcow2_co_find_run(node, 1, &cluster);

    *to = 0;
    if (run < 0 || cluster >= qcow2_cluster_of(q, offset)) {
        return run < 0 ? (int)run : 0;
    }
    run = qcow2_co_alloc_clusters(node, 1, &cluster);
    if (run < 0) {
        return (int)run;
    }
    *to = cluster << q->cluster_bits;
    return qcow2_co_tables_claim(node, QCOW2_TABLE_REFCOUNT_BLOCK, *to, q->cluster_size);
}

/* Copies block @number to @to, which is counted, and lets the table refer to it. The old one is stable, and no count changes
 * meanwhile. */
static int co_copy_block(BlkNode *node, uint64_t number, uint64_t offset, uint64_t to)
{
    Qcow2 *q = node->opaque;
    uint64_t place = q->header.refcount_table_offset + number * 8;
    uint8_t *buf = NULL;
    BlkMetaBlock *block;
    int ret = qcow2_co_table_read(node, offset, q->cluster_size, q->cluster_size, &buf);

    blk_meta_co_forget(q->meta, to, q->cluster_size);
    if (ret == 0) {
        ret = blk_co_pwrite(node->file->node, to, q->cluster_size, buf, 0);
    }
    blk_buffer_free(buf);
    if (ret == 0) {
        ret = blk_meta_co_get(q->meta, place, &block);
    }
    if (ret < 0) {
        return ret;
    }
    blk_put_be64(block->data + (place - block->offset), to);
    blk_meta_dirty(q->meta, block, BLK_META_COUNT_TABLE);
    blk_meta_put(q->meta, block);
    return 0;
}

static int co_move_block(BlkNode *node, uint64_t number, bool *moved)
{
    Qcow2 *q = node->opaque;
    uint64_t offset, to = 0;

    blk_co_mutex_lock(&q->alloc_lock);
    int ret = co_reftable_entry(node, number, &offset);
    if (ret == 0 && offset != 0) {
        ret = co_take_lower(node, offset, &to);
    }
    blk_co_mutex_unlock(&q->alloc_lock);
    if (to == 0) {
        return ret;
    }
    if (ret == 0) {
        ret = qcow2_co_settle(node);
    }
    if (ret == 0 && !blk_meta_is_dirty(q->meta)) {
        ret = co_copy_block(node, number, offset, to);
        *moved = *moved || ret == 0;
        qcow2_co_table_drop(node, ret == 0 ? offset : to, q->cluster_size);
    } else {
        qcow2_drop(q, to, q->cluster_size, false);
    }
    return ret < 0 ? ret : qcow2_co_settle(node);
}

/* Makes a copy of the table that has no more clusters than it needs, in the lowest run that is free. */
static int co_move_table(BlkNode *node, bool *moved)
{
    Qcow2 *q = node->opaque;
    uint64_t used, clusters, first = UINT64_MAX, offset = 0, per_cluster = q->cluster_size / 8;
    uint8_t *table = NULL, *now = NULL;

    blk_co_mutex_lock(&q->alloc_lock);
    int ret = co_first_unused_number(node, &used);
    clusters = MAX((used + per_cluster - 1) / per_cluster, 1);
    if (ret == 0 && clusters < UINT64_C(1) << q->refblock_bits) {
        ret = qcow2_co_find_short_run(node, clusters, &first);
    }
    blk_co_mutex_unlock(&q->alloc_lock);
    if (ret < 0 || (clusters >= q->header.refcount_table_clusters &&
                    first >= qcow2_cluster_of(q, q->header.refcount_table_offset))) {
        return ret;
    }
    uint64_t bytes = clusters << q->cluster_bits;
    ret = qcow2_co_table_read(node, q->header.refcount_table_offset, bytes, bytes, &table);
    if (ret == 0) {
        ret = qcow2_co_table_write(node, table, bytes, BLK_EVENT_COUNT, &offset);
    }
    if (ret == 0) {
        ret = qcow2_co_table_read(node, q->header.refcount_table_offset, bytes, bytes, &now);
    }
    if (ret == 0 && memcmp(table, now, bytes) == 0) {
        ret = co_switch_table(node, offset, clusters);
        *moved = *moved || ret == 0;
        offset = ret == 0 ? 0 : offset;
    }
    blk_buffer_free(table);
    blk_buffer_free(now);
    qcow2_co_table_drop(node, offset, offset ? bytes : 0);      /* a block was added meanwhile: another time */
    return ret < 0 ? ret : qcow2_co_settle(node);
}

int qcow2_co_refcount_pack(BlkNode *node, bool *moved)
{
    int ret = qcow2_co_settle(node);

    for (uint64_t number = reftable_entries(node->opaque); ret == 0 && number > 0; number--) {
        ret = co_move_block(node, number - 1, moved);
    }
    return ret < 0 ? ret : co_move_table(node, moved);
}
