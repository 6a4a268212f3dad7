/* SPDX-License-Identifier: MIT */
/*
 * check_bitmaps.c - the dirty bitmaps as a check sees them: are the directory and each table what they can be, and which
 * clusters do they refer to?
 */
#include "drivers/qcow2/check.h"

static int count_bitmap(Qcow2Check *check, const Qcow2BitmapEntry *entry)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *name = g_strescape(entry->name, NULL);
    g_autofree uint64_t *table = qcow2_bitmap_co_read_table(check->file, &check->header, entry, &error);
    uint64_t entries = qcow2_bitmap_table_entries(check->header.cluster_bits, entry->granularity_bits, check->header.size);

    if (!table) {
        qcow2_check_corruption(check, "ERROR bitmap '%s': %s", name, error->message);
        return error->code == ENOMEM ? -ENOMEM : 0;
    }
    if (entry->table_size != entries && !(entry->flags & QCOW2_BITMAP_IN_USE)) {
        qcow2_check_corruption(check, "ERROR bitmap '%s': its table has %" PRIu32 " entries, the disk needs %" PRIu64, name,
                               entry->table_size, entries);
    }
    qcow2_check_count(check, entry->table_offset, (uint64_t)entry->table_size * 8, 1);
    for (uint32_t i = 0; i < entry->table_size && !check->over_budget; i++) {
        if (table[i] & QCOW2_OFFSET_MASK) {
            qcow2_check_count(check, table[i] & QCOW2_OFFSET_MASK, check->cluster_size, 1);
        }
    }
    return 0;
}

int qcow2_check_co_count_bitmaps(Qcow2Check *check)
{
    const Qcow2BitmapsExtension *e = &check->header.bitmaps;
    g_autoptr(GPtrArray) entries = NULL;
    g_autoptr(GError) error = NULL;
    int ret = qcow2_bitmaps_co_read_directory(check->file, &check->header, &entries, &error);

    if (ret < 0) {
        qcow2_check_corruption(check, "ERROR %s", error->message);
    } else if (entries->len > 0) {
        qcow2_check_count(check, e->directory_offset, e->directory_bytes, 1);
    }
    ret = ret == -ENOMEM ? ret : 0;
    for (guint i = 0; ret == 0 && i < entries->len && !check->over_budget; i++) {
        ret = count_bitmap(check, g_ptr_array_index(entries, i));
    }
    return ret;
}
