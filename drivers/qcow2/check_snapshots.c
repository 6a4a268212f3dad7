/* SPDX-License-Identifier: MIT */
/*
 * check_snapshots.c - the snapshot table as a check sees it: entry by entry, whatever the entries say; and writing
 * it anew, without those that cannot be.
 *
 * A table without the bad entries is written at the end of the file and flushed before the header refers to it, with
 * number and offset in one write.
 */
#include "drivers/qcow2/check.h"

enum { HEADER_SNAPSHOTS_AT = 60 };      /* of the number, which the offset follows: bytes */

/* The entry at *@pos of the table: appends its L1 and sets *@pos behind it. false: there is no entry. */
static bool read_entry(Qcow2Check *check, uint64_t *pos)
{
    const uint64_t table = check->header.snapshots_offset;
    g_autofree uint8_t *rest = NULL;
    g_autofree char *id = NULL, *name = NULL;
    uint8_t p[QCOW2_SNAPSHOT_BYTES];
    uint32_t id_bytes, name_bytes, extra_bytes;
    uint64_t bytes, disk_size;
    Qcow2CheckL1 *l1;

    if (*pos + sizeof(p) > QCOW2_MAX_SNAPSHOT_TABLE_BYTES || !qcow2_check_inside(check, table, *pos + sizeof(p)) ||
        qcow2_check_co_read(check, table + *pos, sizeof(p), p) < 0) {
        return false;
    }
    id_bytes = blk_get_be16(p + 12);
    name_bytes = blk_get_be16(p + 14);
    extra_bytes = blk_get_be32(p + 36);
    bytes = sizeof(p) + (uint64_t)extra_bytes + id_bytes + name_bytes;
    if (extra_bytes > QCOW2_MAX_SNAPSHOT_EXTRA || id_bytes == 0 ||
        *pos + bytes > QCOW2_MAX_SNAPSHOT_TABLE_BYTES || !qcow2_check_inside(check, table, *pos + bytes)) {
        return false;
    }
    rest = g_malloc(bytes);
    if (qcow2_check_co_read(check, table + *pos + sizeof(p), bytes - sizeof(p), rest) < 0) {
        return false;
    }
    id = g_utf8_make_valid((const char *)rest + extra_bytes, id_bytes);
    name = g_utf8_make_valid((const char *)rest + extra_bytes + id_bytes, name_bytes);
    l1 = g_new0(Qcow2CheckL1, 1);
    l1->offset = blk_get_be64(p);
    l1->entries = blk_get_be32(p + 8);
    l1->snapshot = g_strdup_printf("%s (%s)", id, name);
    l1->entry_at = *pos;
    l1->entry_bytes = (bytes + 7) & ~UINT64_C(7);
    disk_size = extra_bytes >= 16 ? blk_get_be64(rest + 8) : check->header.size;
    l1->needed = qcow2_l1_entries_for(&check->header, disk_size);
    l1->bad = disk_size > BLK_MAX_LENGTH;
    *pos += l1->entry_bytes;
    g_ptr_array_add(check->l1s, l1);
    return true;
}

static bool table_can_be_there(const Qcow2Check *check)
{
    const uint64_t offset = check->header.snapshots_offset;

    return offset != 0 && (offset & (check->cluster_size - 1)) == 0;
}

/* Is everything that was read of the table as it should be? */
static bool all_can_be(const Qcow2Check *check)
{
    bool good = check->l1s->len - 1 == check->header.nb_snapshots;

    for (guint i = 1; i < check->l1s->len; i++) {
        const Qcow2CheckL1 *l1 = g_ptr_array_index(check->l1s, i);

        good &= !l1->bad && l1->entries >= l1->needed && l1->entries * 8 <= QCOW2_MAX_L1_BYTES &&
                (l1->offset & (check->cluster_size - 1)) == 0 && qcow2_check_inside(check, l1->offset, l1->entries * 8);
    }
    return good;
}

int qcow2_check_co_read_snapshots(Qcow2Check *check)
{
    const uint64_t errors = check->result->check_errors;
    const Qcow2CheckL1 *active = g_ptr_array_index(check->l1s, 0);
    Qcow2CheckRegion *region;
    uint64_t pos = 0;
    uint32_t read = 0;

    while (table_can_be_there(check) && read < MIN(check->header.nb_snapshots, QCOW2_MAX_SNAPSHOTS) &&
           read_entry(check, &pos)) {
        read++;
    }
    if (check->result->check_errors == errors && read < check->header.nb_snapshots) {
        check->snapshots_bad = true;
        qcow2_check_found(check, &check->found.structure, "ERROR the snapshot table at %#" PRIx64 " has %" PRIu32
                          " entries that can be read, but should have %" PRIu32, check->header.snapshots_offset, read,
                          check->header.nb_snapshots);
    }
    if (pos == 0) {
        return 0;
    }
    region = qcow2_check_add_region(check, check->header.snapshots_offset, pos, "the snapshot table");
    if (region != NULL) {
        region->of_snapshots = true;
    } else if (!active->bad && all_can_be(check) &&
               active->offset >> check->cluster_bits == check->header.snapshots_offset >> check->cluster_bits) {
        qcow2_check_lose_active_l1(check, "is where the snapshot table lies, which can be read");
    } else {
        check->snapshots_bad = true;
        g_ptr_array_set_size(check->l1s, 1);
        qcow2_check_found(check, &check->found.structure, "ERROR the snapshot table at %#" PRIx64 " overlaps another "
                          "table", check->header.snapshots_offset);
    }
    return 0;
}

/* Lets the header refer to the table of @count entries at @offset, which is stable. */
static int co_switch(Qcow2Check *check, uint32_t count, uint64_t offset)
{
    uint8_t field[12];
    int ret;

    blk_put_be32(field, count);
    blk_put_be64(field + 4, offset);
    ret = blk_co_flush(check->file);
    if (ret == 0) {
        ret = qcow2_check_co_write(check, HEADER_SNAPSHOTS_AT, sizeof(field), field);
    }
    if (ret == 0) {
        check->header.nb_snapshots = count;
        check->header.snapshots_offset = offset;
    }
    return ret;
}

/* Appends the entry of @l1 to @table. */
static int co_add_entry(Qcow2Check *check, GByteArray *table, const Qcow2CheckL1 *l1)
{
    const uint64_t at = table->len;
    uint8_t *p;

    g_byte_array_set_size(table, at + l1->entry_bytes);
    p = table->data + at;
    if (qcow2_check_co_read(check, check->header.snapshots_offset + l1->entry_at, l1->entry_bytes, p) < 0) {
        return -EIO;
    }
    if (l1->mended) {
        qcow2_check_repaired(check, "Repairing snapshot %s: its L1 table has %" PRIu64 " entries", l1->snapshot, l1->entries);
    }
    blk_put_be64(p, l1->offset);
    blk_put_be32(p + 8, (uint32_t)l1->entries);
    return 0;
}

int qcow2_check_co_repair_snapshots(Qcow2Check *check)
{
    g_autoptr(GByteArray) table = g_byte_array_new();
    uint64_t place;
    uint32_t count = 0;
    int ret = 0;

    for (guint i = 1; ret == 0 && i < check->l1s->len; i++) {
        Qcow2CheckL1 *l1 = g_ptr_array_index(check->l1s, i);

        if (l1->bad) {
            qcow2_check_repaired(check, "Repairing snapshot %s: its L1 table is lost, and the snapshot is given up",
                                 l1->snapshot);
            continue;
        }
        if (l1->twin) {
            ret = qcow2_check_co_copy_l1(check, l1);
        }
        if (ret == 0) {
            ret = co_add_entry(check, table, l1);
        }
        count++;
    }
    if (ret < 0) {
        return ret;
    }
    if (check->header.nb_snapshots > check->l1s->len - 1) {
        qcow2_check_repaired(check, "Repairing the snapshot table: %" PRIu32 " snapshots that cannot be read are given "
                             "up", check->header.nb_snapshots - (check->l1s->len - 1));
    }
    place = qcow2_check_new_place(check);
    if (count > 0) {
        ret = qcow2_check_co_write(check, place, table->len, table->data);
    }
    return ret < 0 ? ret : co_switch(check, count, count > 0 ? place : 0);
}
