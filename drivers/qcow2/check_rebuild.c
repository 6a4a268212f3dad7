/* SPDX-License-Identifier: MIT */
/*
 * check_rebuild.c - makes new refcount structures from the counted references, at the end of the file.
 *
 *     ... old end | blocks, window by window | blocks that count what is made here | table
 *
 * Blocks in which all counts are 0 are left out. Nothing that was there is overwritten until the header, written last,
 * names the new table; the old structures are free then.
 */
#include "drivers/qcow2/check.h"

typedef struct NewBlock {
    uint64_t index, cluster;
} NewBlock;

void qcow2_check_rebuild_begin(Qcow2Check *check, Qcow2Rebuild *rebuild)
{
    rebuild->area = rebuild->next = check->clusters;
    rebuild->blocks = g_array_new(FALSE, FALSE, sizeof(NewBlock));
}

/* Writes block @index; clusters from the area on, up to @end, have one reference. */
static int co_write_block(Qcow2Check *check, Qcow2Rebuild *rebuild, uint64_t index, uint64_t end, uint8_t *buf)
{
    const uint64_t first = index * check->per_block, max = qcow2_refcount_max(check->header.refcount_order);
    const NewBlock block = { .index = index, .cluster = rebuild->next++ };

    memset(buf, 0, check->cluster_size);
    for (uint64_t i = 0; i < check->per_block && first + i < end; i++) {
        const uint64_t refs = first + i >= rebuild->area ? 1 : qcow2_check_refs(check, first + i);

        check->result->corruptions += refs > max;
        qcow2_refcount_set(buf, check->header.refcount_order, i, MIN(refs, max));
    }
    g_array_append_val(rebuild->blocks, block);
    return qcow2_check_co_write(check, block.cluster << check->cluster_bits, check->cluster_size, buf);
}

static bool has_references(Qcow2Check *check, uint64_t from, uint64_t to)
{
    for (uint64_t i = from; i < to; i = qcow2_check_next_counted(check, i + 1)) {
        if (qcow2_check_refs(check, i) > 0) {
            return true;
        }
    }
    return false;
}

/* The last block of the old part may count what is made here too: it waits for the end. */
int qcow2_check_co_rebuild_window(Qcow2Check *check, Qcow2Rebuild *rebuild)
{
    const uint64_t shared = rebuild->area / check->per_block;
    g_autofree uint8_t *buf = g_try_malloc(check->cluster_size);
    const uint64_t last = MIN(check->end, shared * check->per_block);
    int ret = buf == NULL ? -ENOMEM : 0;

    for (uint64_t i = qcow2_check_next_counted(check, check->first); ret == 0 && i < last;) {
        const uint64_t index = i / check->per_block, end = (index + 1) * check->per_block;

        if (has_references(check, i, end)) {
            ret = co_write_block(check, rebuild, index, rebuild->area, buf);
        }
        i = qcow2_check_next_counted(check, end);
    }
    return ret;
}

/* Clusters of a table for @entries blocks. */
static uint64_t table_clusters_for(const Qcow2Check *check, uint64_t entries)
{
    return qcow2_check_clusters_for(check, entries * 8);
}

static int co_write_table(Qcow2Check *check, const Qcow2Rebuild *rebuild, uint64_t clusters)
{
    const uint64_t bytes = clusters << check->cluster_bits;
    g_autofree uint8_t *table = g_try_malloc0(bytes);

    if (table == NULL) {
        return -ENOMEM;
    }
    for (guint i = 0; i < rebuild->blocks->len; i++) {
        const NewBlock *block = &g_array_index(rebuild->blocks, NewBlock, i);

        blk_put_be64(table + block->index * 8, block->cluster << check->cluster_bits);
    }
    return qcow2_check_co_write(check, rebuild->next << check->cluster_bits, bytes, table);
}

/* Lets the header refer to the table, when all is stable. */
static int co_switch(Qcow2Check *check, uint64_t offset, uint32_t clusters)
{
    g_autoptr(GError) error = NULL;
    int ret = blk_co_flush(check->file);

    if (ret == 0) {
        check->header.refcount_table_offset = offset;
        check->header.refcount_table_clusters = clusters;
        ret = qcow2_co_update_header(check->file, &check->header, &error);
    }
    return ret == 0 ? blk_co_flush(check->file) : ret;
}

int qcow2_check_co_rebuild_end(Qcow2Check *check, Qcow2Rebuild *rebuild)
{
    const uint64_t shared = rebuild->area / check->per_block;
    g_autofree uint8_t *buf = g_try_malloc(check->cluster_size);
    uint64_t more = 0, end, needed, table;
    int ret = buf == NULL ? -ENOMEM : 0;

    /* What is made here counts itself: as many blocks as that takes. */
    do {
        more++;
        table = table_clusters_for(check, shared + more);
        end = rebuild->next + more + table;
        needed = (end + check->per_block - 1) / check->per_block - shared;
    } while (needed > more);
    if (table << check->cluster_bits > QCOW2_MAX_REFCOUNT_TABLE_BYTES) {
        return -EFBIG;
    }
    for (uint64_t i = 0; ret == 0 && i < more; i++) {
        ret = co_write_block(check, rebuild, shared + i, end, buf);
    }
    if (ret == 0) {
        ret = co_write_table(check, rebuild, table);
    }
    return ret == 0 ? co_switch(check, rebuild->next << check->cluster_bits, (uint32_t)table) : ret;
}
