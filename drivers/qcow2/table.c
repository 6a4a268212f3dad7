/* SPDX-License-Identifier: MIT */
/*
 * table.c - whole tables that replace others: L1 tables, the snapshot table, the bitmap directory.
 *
 *     new run --count, commit--> counted, stable --write, flush--> stable --the caller's switch--> in use
 *                                                                  old run --drop--> free when a commit has made it so
 *
 * Nothing refers to the new table before the switch, which is one write within a sector of the header (or of whatever
 * refers to the table). A crash before it leaks the new run, a crash after it the old one.
 */
#include "drivers/qcow2/qcow2.h"

static uint64_t round_up(const Qcow2 *q, uint64_t bytes)
{
    return (bytes + q->cluster_size - 1) & ~(q->cluster_size - 1);
}

uint8_t *qcow2_table_buffer(BlkNode *node, uint64_t bytes)
{
    uint64_t size = round_up(node->opaque, bytes);
    uint8_t *table = blk_buffer_try_alloc(node->file->node, size);

    if (table) {
        memset(table, 0, size);
    }
    return table;
}

int qcow2_co_table_read(BlkNode *node, uint64_t offset, uint64_t bytes, uint64_t new_bytes, uint8_t **table)
{
    Qcow2 *q = node->opaque;
    uint64_t slice = MIN(q->cluster_size, 4096);
    int ret = 0;

    *table = qcow2_table_buffer(node, new_bytes);
    if (!*table) {
        return -ENOMEM;
    }
    for (uint64_t pos = 0; ret == 0 && pos < bytes; pos += slice) {
        BlkMetaBlock *block;
        ret = blk_meta_co_get(q->meta, offset + pos, &block);
        if (ret == 0) {
            memcpy(*table + pos, block->data, MIN(slice, bytes - pos));
            blk_meta_put(q->meta, block);
        }
    }
    return ret;
}

/* Takes a run of clusters for a table; their counts are stable. */
static int co_new_run(BlkNode *node, uint64_t bytes, uint64_t *offset)
{
    Qcow2 *q = node->opaque;
    uint64_t first;

    blk_co_mutex_lock(&q->alloc_lock);
    int ret = qcow2_co_alloc_contiguous(node, bytes >> q->cluster_bits, &first);
    if (ret == 0) {
        *offset = first << q->cluster_bits;
        ret = qcow2_co_tables_claim(node, QCOW2_TABLE_NEW, *offset, bytes);
        if (ret < 0) {
            qcow2_drop(q, *offset, bytes, false);
        }
    }
    blk_co_mutex_unlock(&q->alloc_lock);
    if (ret < 0) {
        return ret;
    }
    ret = qcow2_co_commit(node);
    if (ret < 0) {
        qcow2_drop(q, *offset, bytes, false);
    }
    return ret;
}

int qcow2_co_table_write(BlkNode *node, const uint8_t *table, uint64_t bytes, BlkEvent event, uint64_t *offset)
{
    Qcow2 *q = node->opaque;
    BlkNode *file = node->file->node;
    uint64_t size = round_up(q, bytes);
    int ret = co_new_run(node, size, offset);

    if (ret < 0) {
        return ret;
    }
    blk_meta_co_forget(q->meta, *offset, size);         /* what an earlier table there was like */
    if (event != BLK_EVENT_COUNT) {
        blk_co_event(file, event);
    }
    ret = blk_co_pwrite(file, *offset, size, table, 0);
    if (ret == 0) {
        ret = blk_co_flush(file);
    }
    if (ret < 0) {
        qcow2_drop(q, *offset, size, false);
    }
    return ret;
}

void qcow2_co_table_drop(BlkNode *node, uint64_t offset, uint64_t bytes)
{
    Qcow2 *q = node->opaque;

    if (bytes > 0) {
        blk_meta_co_forget(q->meta, offset, round_up(q, bytes));
        qcow2_drop(q, offset, round_up(q, bytes), false);
    }
}
