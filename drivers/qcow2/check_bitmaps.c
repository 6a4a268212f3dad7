/* SPDX-License-Identifier: MIT */
/*
 * check_bitmaps.c - the dirty bitmaps as a check sees them: are the directory and each table what they can be and where
 * they can be, and which clusters do they refer to?
 *
 * A bitmap only says what to copy in an incremental backup: one that is damaged is given up, and the next backup is a
 * full one. The others go to a new directory, which is written at the end of the file and flushed before the header
 * refers to it.
 *
 * Limitation: the bits themselves are not looked at.
 */
#include "drivers/qcow2/check.h"

static void bad_directory(Qcow2Check *check, const char *why)
{
    check->bitmaps_bad = true;
    qcow2_check_found(check, &check->found.structure, "ERROR %s", why);
}

void qcow2_check_bad_bitmap(Qcow2Check *check, const Qcow2BitmapEntry *entry, const char *why)
{
    if (g_hash_table_add(check->bad_bitmaps, (gpointer)entry)) {
        g_autofree char *name = g_strescape(entry->name, NULL);

        check->bitmaps_bad = true;
        qcow2_check_found(check, &check->found.structure, "ERROR bitmap '%s': %s", name, why);
    }
}

static bool take_place(Qcow2Check *check, const Qcow2BitmapEntry *entry, uint64_t offset, uint64_t bytes,
                       const char *what)
{
    Qcow2CheckRegion *region = NULL;

    if (qcow2_check_inside(check, offset, bytes)) {
        region = qcow2_check_add_region(check, offset, bytes, what);
    }
    if (region != NULL) {
        region->bitmap = entry;
    }
    return region != NULL;
}

static void read_bitmap(Qcow2Check *check, Qcow2BitmapEntry *entry)
{
    g_autoptr(GError) error = NULL;
    const int ret = qcow2_bitmap_co_read_table(check->file, &check->header, entry, &error);
    const uint64_t entries = qcow2_bitmap_table_entries(check->cluster_bits, entry->granularity_bits,
                                                        check->header.size);

    if (ret < 0) {
        qcow2_check_bad_bitmap(check, entry, error->message);
    } else if (entry->table_size != entries && !(entry->flags & QCOW2_BITMAP_IN_USE)) {
        qcow2_check_bad_bitmap(check, entry, "its table has another length than the disk needs");
    } else if (!take_place(check, entry, entry->table_offset, (uint64_t)entry->table_size * 8, "a bitmap table")) {
        qcow2_check_bad_bitmap(check, entry, "its table overlaps another table");
    }
    for (uint32_t i = 0; i < entry->table_size && !g_hash_table_contains(check->bad_bitmaps, entry); i++) {
        const uint64_t data = entry->table[i] & QCOW2_OFFSET_MASK;

        if (data != 0 && !take_place(check, entry, data, check->cluster_size, "a part of a bitmap")) {
            qcow2_check_bad_bitmap(check, entry, "its bits overlap another table");
        }
    }
    g_clear_pointer(&entry->table, g_free);
}

int qcow2_check_co_read_bitmaps(Qcow2Check *check)
{
    const Qcow2BitmapsExtension *e = &check->header.bitmaps;
    g_autoptr(GError) error = NULL;
    int ret = qcow2_bitmaps_co_read_directory(check->file, &check->header, &check->bitmaps, &error);

    check->bad_bitmaps = g_hash_table_new(NULL, NULL);
    if (ret < 0) {
        bad_directory(check, error->message);
    }
    if (ret == -ENOMEM || check->bitmaps->len == 0) {
        return ret == -ENOMEM ? ret : 0;
    }
    if (qcow2_check_add_region(check, e->directory_offset, e->directory_bytes, "the bitmap directory") == NULL) {
        bad_directory(check, "the bitmap directory overlaps another table");
        g_ptr_array_set_size(check->bitmaps, 0);
    }
    for (guint i = 0; i < check->bitmaps->len; i++) {
        read_bitmap(check, g_ptr_array_index(check->bitmaps, i));
    }
    return 0;
}

int qcow2_check_co_drop_bitmaps(Qcow2Check *check)
{
    g_autoptr(GPtrArray) sound = g_ptr_array_new();
    const uint64_t place = qcow2_check_new_place(check);
    g_autofree uint8_t *directory = NULL;
    uint64_t bytes;
    guint kept, lost;
    int ret = 0;

    for (guint i = 0; i < check->bitmaps->len; i++) {
        if (!g_hash_table_contains(check->bad_bitmaps, g_ptr_array_index(check->bitmaps, i))) {
            g_ptr_array_add(sound, g_ptr_array_index(check->bitmaps, i));
        }
    }
    kept = sound->len;
    lost = MAX(check->header.bitmaps.count, kept) - kept;
    bytes = qcow2_bitmaps_directory_bytes(sound);
    directory = g_malloc0(MAX(bytes, 1));
    if (kept > 0) {
        qcow2_bitmaps_put_directory(sound, directory);
        ret = qcow2_check_co_write(check, place, bytes, directory);
    }
    if (ret == 0 && kept > 0) {
        ret = blk_co_flush(check->file);
    }
    if (ret < 0) {
        return ret;
    }
    qcow2_header_set_bitmaps(&check->header, kept, place, bytes);
    qcow2_check_repaired(check, "Repairing the bitmaps: %u that are damaged are given up, %u are kept", lost, kept);
    ret = qcow2_co_update_header(check->file, &check->header, NULL);
    return ret < 0 ? ret : blk_co_flush(check->file);
}
