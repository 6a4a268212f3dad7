/* SPDX-License-Identifier: MIT */
/*
 * check_bitmaps.c - the dirty bitmaps as a check sees them: are the directory and each table what they can be and where
 * they can be, and which clusters do they refer to?
 *
 * A bitmap only says what to copy in an incremental backup: where one is damaged all are dropped, and the next backup is
 * a full one.
 *
 * Limitation: the bits themselves are not looked at.
 */
#include "drivers/qcow2/check.h"

static void G_GNUC_PRINTF(2, 3) bad_bitmaps(Qcow2Check *check, const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    check->bitmaps_bad = true;
    qcow2_check_found(check, &check->found.structure, "ERROR %s", text);
}

static int read_bitmap(Qcow2Check *check, const Qcow2BitmapEntry *entry)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *name = g_strescape(entry->name, NULL);
    g_autofree uint64_t *table = qcow2_bitmap_co_read_table(check->file, &check->header, entry, &error);
    const uint64_t entries = qcow2_bitmap_table_entries(check->cluster_bits, entry->granularity_bits,
                                                        check->header.size);

    if (table == NULL) {
        bad_bitmaps(check, "bitmap '%s': %s", name, error->message);
        return error->code == ENOMEM ? -ENOMEM : 0;
    }
    if (entry->table_size != entries && !(entry->flags & QCOW2_BITMAP_IN_USE)) {
        bad_bitmaps(check, "bitmap '%s': its table has %" PRIu32 " entries, the disk needs %" PRIu64, name,
                    entry->table_size, entries);
    }
    if (qcow2_check_add_region(check, entry->table_offset, (uint64_t)entry->table_size * 8, "a bitmap table") == NULL) {
        bad_bitmaps(check, "bitmap '%s': its table overlaps another table", name);
        return 0;
    }
    for (uint32_t i = 0; i < entry->table_size; i++) {
        const uint64_t data = table[i] & QCOW2_OFFSET_MASK;

        if (data == 0) {
            continue;
        }
        if (qcow2_check_region_at(check, data >> check->cluster_bits) != NULL ||
            !qcow2_check_inside(check, data, check->cluster_size)) {
            bad_bitmaps(check, "bitmap '%s': its data at %#" PRIx64 " cannot be there", name, data);
        } else {
            g_array_append_val(check->bitmap_clusters, data);
        }
    }
    return 0;
}

int qcow2_check_co_read_bitmaps(Qcow2Check *check)
{
    const Qcow2BitmapsExtension *e = &check->header.bitmaps;
    g_autoptr(GPtrArray) entries = NULL;
    g_autoptr(GError) error = NULL;
    int ret = qcow2_bitmaps_co_read_directory(check->file, &check->header, &entries, &error);

    if (ret < 0) {
        bad_bitmaps(check, "%s", error->message);
        return ret == -ENOMEM ? ret : 0;
    }
    if (entries->len > 0 && qcow2_check_add_region(check, e->directory_offset, e->directory_bytes,
                                                   "the bitmap directory") == NULL) {
        bad_bitmaps(check, "the bitmap directory at %#" PRIx64 " overlaps another table", e->directory_offset);
        return 0;
    }
    for (guint i = 0; ret == 0 && i < entries->len; i++) {
        ret = read_bitmap(check, g_ptr_array_index(entries, i));
    }
    return ret;
}

int qcow2_check_co_drop_bitmaps(Qcow2Check *check)
{
    g_autoptr(GError) error = NULL;
    int ret;

    qcow2_header_set_bitmaps(&check->header, 0, 0, 0);
    qcow2_check_repaired(check, "Repairing the bitmaps: their tables are damaged, and all bitmaps are given up");
    ret = qcow2_co_update_header(check->file, &check->header, &error);
    return ret < 0 ? ret : blk_co_flush(check->file);
}
