/* SPDX-License-Identifier: MIT */
/*
 * snapshot_table.c - the table of internal snapshots, read and written (format specification, "Snapshots").
 *
 *   entry: L1 offset 8, L1 entries 4, id length 2, name length 2, date s 4, ns 4, vm clock ns 8, vm state 4,
 *          extra length 4 | extra data: vm state 8, disk size 8, icount 8, ... | id | name | padded to 8 bytes
 *
 * Entries have no index: each is found at the end of the one before.
 */
#include "drivers/qcow2/format.h"

/* Bytes of extra data that say so much. */
enum { EXTRA_VM_STATE = 8, EXTRA_DISK_SIZE = 16, EXTRA_ICOUNT = 24 };

/* ---- the array ---- */

static void snapshot_clear(gpointer data)
{
    Qcow2Snapshot *snapshot = data;

    blk_snapshot_clear(&snapshot->info);
    g_clear_pointer(&snapshot->id, g_bytes_unref);
    g_clear_pointer(&snapshot->name, g_bytes_unref);
    g_clear_pointer(&snapshot->unknown_extra, g_bytes_unref);
}

GArray *qcow2_snapshots_new(void)
{
    GArray *array = g_array_new(FALSE, TRUE, sizeof(Qcow2Snapshot));

    g_array_set_clear_func(array, snapshot_clear);
    return array;
}

/* @text is not terminated; what is behind a NUL in it is not shown. */
static char *copy_text(const void *text, size_t bytes)
{
    return g_utf8_make_valid(text, (gssize)strnlen(text, bytes));
}

static void set_texts(Qcow2Snapshot *snapshot, const void *id, size_t id_bytes, const void *name, size_t name_bytes)
{
    snapshot->id = g_bytes_new(id, id_bytes);
    snapshot->name = g_bytes_new(name, name_bytes);
    snapshot->info.id = copy_text(id, id_bytes);
    snapshot->info.name = copy_text(name, name_bytes);
}

Qcow2Snapshot *qcow2_snapshots_add(GArray *snapshots, const char *id, const char *name)
{
    g_array_set_size(snapshots, snapshots->len + 1);
    Qcow2Snapshot *snapshot = &g_array_index(snapshots, Qcow2Snapshot, snapshots->len - 1);

    set_texts(snapshot, id, strlen(id), name, strlen(name));
    return snapshot;
}

/* ---- reading ---- */

static int check_snapshot(const Qcow2Header *header, uint32_t index, const Qcow2Snapshot *snapshot, GError **error)
{
    const uint64_t l1_bytes = (uint64_t)snapshot->l1_size * 8;

    if (l1_bytes > QCOW2_MAX_L1_BYTES) {
        return blk_error(error, -EFBIG, "L1 table of snapshot %" PRIu32 " too large: %" PRIu64 " bytes, the limit is "
                         "%u", index, l1_bytes, QCOW2_MAX_L1_BYTES);
    }
    if (snapshot->l1_size > 0 &&
        (snapshot->l1_table_offset == 0 || snapshot->l1_table_offset % qcow2_cluster_size(header) != 0 ||
         snapshot->l1_table_offset > (uint64_t)INT64_MAX - l1_bytes)) {
        return blk_error(error, -EINVAL, "L1 table offset of snapshot %" PRIu32 " invalid: %#" PRIx64, index,
                         snapshot->l1_table_offset);
    }
    if (snapshot->info.disk_size > BLK_MAX_LENGTH ||
        qcow2_l1_entries_for(header, snapshot->info.disk_size) > snapshot->l1_size) {
        return blk_error(error, -EINVAL, "L1 table of snapshot %" PRIu32 " is too small for its disk of %" PRIu64
                         " bytes", index, snapshot->info.disk_size);
    }
    return 0;
}

/* Reads @bytes that must lie in the file and within the limit of the table. */
static int read_part(BlkNode *file_node, uint64_t table, uint64_t offset, uint64_t bytes, void *buf, GError **error)
{
    uint64_t file_bytes = blk_node_length(file_node);
    int ret;

    if (offset + bytes - table > QCOW2_MAX_SNAPSHOT_TABLE_BYTES) {
        return blk_error(error, -EFBIG, "Snapshot table too large: the limit is %u bytes",
                         QCOW2_MAX_SNAPSHOT_TABLE_BYTES);
    }
    if (offset > file_bytes || bytes > file_bytes - offset) {
        return blk_error(error, -EINVAL, "Snapshot table reaches past the end of the file, at offset %" PRIu64, offset);
    }
    ret = blk_co_pread(file_node, offset, bytes, buf, 0);
    return ret < 0 ? blk_error_errno(error, ret, "Could not read the snapshot table") : 0;
}

static void parse_extra(const uint8_t *extra, uint32_t bytes, Qcow2Snapshot *snapshot)
{
    if (bytes >= EXTRA_VM_STATE) {
        snapshot->info.vm_state_size = blk_get_be64(extra);
    }
    if (bytes >= EXTRA_DISK_SIZE) {
        snapshot->info.disk_size = blk_get_be64(extra + 8);
    }
    if (bytes >= EXTRA_ICOUNT) {
        snapshot->info.icount = blk_get_be64(extra + 16);
        snapshot->info.has_icount = true;
    }
    if (bytes > EXTRA_ICOUNT) {
        snapshot->unknown_extra = g_bytes_new(extra + EXTRA_ICOUNT, bytes - EXTRA_ICOUNT);
    }
}

/* @offset: (inout): of the entry; then of what follows it. */
static int read_snapshot(BlkNode *file_node, const Qcow2Header *header, uint32_t index, uint64_t *offset,
                         Qcow2Snapshot *snapshot, GError **error)
{
    uint8_t p[QCOW2_SNAPSHOT_BYTES];
    g_autofree uint8_t *rest = NULL;
    uint32_t id_bytes, name_bytes, extra_bytes;
    uint64_t bytes;
    int ret;

    ret = read_part(file_node, header->snapshots_offset, *offset, sizeof(p), p, error);
    if (ret < 0) {
        return ret;
    }
    snapshot->l1_table_offset = blk_get_be64(p);
    snapshot->l1_size = blk_get_be32(p + 8);
    id_bytes = blk_get_be16(p + 12);
    name_bytes = blk_get_be16(p + 14);
    snapshot->info.date_sec = blk_get_be32(p + 16);
    snapshot->info.date_nsec = blk_get_be32(p + 20);
    snapshot->info.vm_clock_nsec = blk_get_be64(p + 24);
    snapshot->info.vm_state_size = blk_get_be32(p + 32);
    snapshot->info.disk_size = header->size;
    extra_bytes = blk_get_be32(p + 36);
    if (extra_bytes > QCOW2_MAX_SNAPSHOT_EXTRA) {
        return blk_error(error, -EFBIG, "Snapshot %" PRIu32 " has too much extra data: %" PRIu32
                         " bytes, the limit is %u", index, extra_bytes, QCOW2_MAX_SNAPSHOT_EXTRA);
    }
    bytes = (uint64_t)extra_bytes + id_bytes + name_bytes;
    rest = g_malloc(bytes + 1);
    ret = read_part(file_node, header->snapshots_offset, *offset + sizeof(p), bytes, rest, error);
    if (ret < 0) {
        return ret;
    }
    parse_extra(rest, extra_bytes, snapshot);
    set_texts(snapshot, rest + extra_bytes, id_bytes, rest + extra_bytes + id_bytes, name_bytes);
    *offset += (sizeof(p) + bytes + 7) & ~UINT64_C(7);
    return check_snapshot(header, index, snapshot, error);
}

int qcow2_snapshot_co_read_all(BlkNode *file_node, const Qcow2Header *header, GArray **snapshots,
                               uint64_t *table_bytes, GError **error)
{
    g_autoptr(GArray) array = qcow2_snapshots_new();
    uint64_t offset = header->snapshots_offset;

    *snapshots = NULL;
    for (uint32_t i = 0; i < header->nb_snapshots; i++) {
        Qcow2Snapshot snapshot = { 0 };
        int ret = read_snapshot(file_node, header, i, &offset, &snapshot, error);

        g_array_append_val(array, snapshot);
        if (ret < 0) {
            return ret;
        }
    }
    if (table_bytes != NULL) {
        *table_bytes = offset - header->snapshots_offset;
    }
    *snapshots = g_steal_pointer(&array);
    return 0;
}

/* ---- writing ---- */

static uint32_t extra_bytes_of(const Qcow2Snapshot *snapshot)
{
    if (snapshot->unknown_extra) {
        return EXTRA_ICOUNT + (uint32_t)g_bytes_get_size(snapshot->unknown_extra);
    }
    return snapshot->info.has_icount ? EXTRA_ICOUNT : EXTRA_DISK_SIZE;
}

static uint64_t entry_bytes(const Qcow2Snapshot *snapshot)
{
    uint64_t bytes = QCOW2_SNAPSHOT_BYTES + (uint64_t)extra_bytes_of(snapshot) + g_bytes_get_size(snapshot->id) +
                     g_bytes_get_size(snapshot->name);

    return (bytes + 7) & ~UINT64_C(7);
}

uint64_t qcow2_snapshots_table_bytes(const GArray *snapshots)
{
    uint64_t bytes = 0;

    for (guint i = 0; i < snapshots->len; i++) {
        bytes += entry_bytes(&g_array_index(snapshots, Qcow2Snapshot, i));
    }
    return bytes;
}

static uint8_t *put_bytes(uint8_t *p, GBytes *bytes)
{
    size_t size = 0;
    const void *data = bytes ? g_bytes_get_data(bytes, &size) : NULL;

    if (size > 0) {
        memcpy(p, data, size);
    }
    return p + size;
}

static void encode_snapshot(const Qcow2Snapshot *snapshot, uint8_t *p)
{
    const BlkSnapshot *info = &snapshot->info;
    uint32_t extra_bytes = extra_bytes_of(snapshot);

    blk_put_be64(p, snapshot->l1_table_offset);
    blk_put_be32(p + 8, snapshot->l1_size);
    blk_put_be16(p + 12, (uint16_t)g_bytes_get_size(snapshot->id));
    blk_put_be16(p + 14, (uint16_t)g_bytes_get_size(snapshot->name));
    blk_put_be32(p + 16, info->date_sec);
    blk_put_be32(p + 20, info->date_nsec);
    blk_put_be64(p + 24, info->vm_clock_nsec);
    blk_put_be32(p + 32, info->vm_state_size > UINT32_MAX ? 0 : (uint32_t)info->vm_state_size);
    blk_put_be32(p + 36, extra_bytes);
    p += QCOW2_SNAPSHOT_BYTES;
    blk_put_be64(p, info->vm_state_size);
    blk_put_be64(p + EXTRA_VM_STATE, info->disk_size);
    if (extra_bytes >= EXTRA_ICOUNT) {
        blk_put_be64(p + EXTRA_DISK_SIZE, info->icount);
    }
    p = put_bytes(p + MIN(extra_bytes, EXTRA_ICOUNT), snapshot->unknown_extra);
    put_bytes(put_bytes(p, snapshot->id), snapshot->name);
}

void qcow2_snapshots_encode(const GArray *snapshots, uint8_t *table)
{
    for (guint i = 0; i < snapshots->len; i++) {
        const Qcow2Snapshot *snapshot = &g_array_index(snapshots, Qcow2Snapshot, i);
        encode_snapshot(snapshot, table);
        table += entry_bytes(snapshot);
    }
}
