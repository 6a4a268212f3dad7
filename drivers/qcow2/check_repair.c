/* SPDX-License-Identifier: MIT */
/*
 * check_repair.c - builds new refcount structures from the counted references, at the end of the file.
 *
 * Needed when the old table or blocks cannot be trusted. Nothing that was there is overwritten until the header,
 * written last, names the new table.
 */
#include "drivers/qcow2/check.h"

/* The old structures are dropped: their clusters become free. */
static void forget_old(Qcow2Check *check)
{
    const uint64_t first = check->header.refcount_table_offset / check->cluster_size;

    for (uint64_t i = 0; i < check->header.refcount_table_clusters; i++) {
        uint32_t *counter = qcow2_check_counter(check, first + i, false);

        if (counter != NULL && (*counter & QCOW2_REFS_MAX) > 0) {
            --*counter;
        }
    }
    for (uint64_t i = 0; i < check->reftable_entries; i++) {
        uint32_t *counter = qcow2_check_counter(check, check->reftable[i] / check->cluster_size, false);

        if (check->reftable[i] != 0 && counter != NULL && (*counter & QCOW2_REFS_MAX) > 0) {
            --*counter;
        }
    }
}

static int write_block(Qcow2Check *check, uint64_t index, uint64_t first_new, uint64_t end, uint64_t at, uint8_t *buf)
{
    const uint64_t first = index * check->per_block;

    memset(buf, 0, check->cluster_size);
    for (uint64_t i = 0; i < check->per_block && first + i < end; i++) {
        uint64_t refs = first + i >= first_new ? 1 : qcow2_check_refs(check, first + i);

        qcow2_refcount_set(buf, check->header.refcount_order, i,
                           MIN(refs, qcow2_refcount_max(check->header.refcount_order)));
    }
    return qcow2_check_co_write(check, at, check->cluster_size, buf);
}

static int write_structures(Qcow2Check *check, uint64_t table_at, uint64_t table_clusters, uint64_t blocks,
                            uint64_t end)
{
    const uint64_t blocks_at = table_at + table_clusters;
    g_autofree uint8_t *buf = g_try_malloc(check->cluster_size);
    g_autofree uint8_t *table = g_try_malloc0(table_clusters * check->cluster_size);
    int ret = buf == NULL || table == NULL ? -ENOMEM : 0;

    for (uint64_t i = 0; ret == 0 && i < blocks; i++) {
        const uint64_t at = (blocks_at + i) * check->cluster_size;

        qcow2_put64(table + i * 8, at);
        ret = write_block(check, i, check->clusters, end, at, buf);
    }
    if (ret == 0) {
        ret = qcow2_check_co_write(check, table_at * check->cluster_size, table_clusters * check->cluster_size, table);
    }
    return ret == 0 ? blk_co_flush(check->file) : ret;
}

int qcow2_check_co_rebuild(Qcow2Check *check, GError **error)
{
    const uint64_t table_at = check->clusters;
    uint64_t needed = 1, blocks, table_clusters, end;
    int ret;

    do {
        blocks = needed;
        table_clusters = (blocks * 8 + check->cluster_size - 1) / check->cluster_size;
        end = table_at + table_clusters + blocks;
        needed = (end + check->per_block - 1) / check->per_block;
    } while (needed > blocks);
    if (table_clusters * check->cluster_size > QCOW2_MAX_REFCOUNT_TABLE_BYTES) {
        return blk_error(error, -EFBIG, "The file is too long for new refcount structures");
    }
    ret = blk_co_truncate(check->file, end * check->cluster_size, BLK_PREALLOC_OFF, error);
    if (ret < 0) {
        return ret;
    }
    check->file_bytes = end * check->cluster_size;
    forget_old(check);
    ret = write_structures(check, table_at, table_clusters, blocks, end);
    if (ret < 0) {
        return blk_error_errno(error, ret, "Could not write new refcount structures");
    }
    check->header.refcount_table_offset = table_at * check->cluster_size;
    check->header.refcount_table_clusters = (uint32_t)table_clusters;
    return qcow2_co_update_header(check->file, &check->header, error);
}
