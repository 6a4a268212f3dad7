/* SPDX-License-Identifier: MIT */
/*
 * snapshot.c - the table of internal snapshots, read only.
 *
 *   entry: L1 offset 8, L1 entries 4, id length 2, name length 2, date s 4, ns 4, vm clock ns 8, vm state 4,
 *          extra length 4 | extra data: vm state 8, disk size 8, icount 8, ... | id | name | padded to 8 bytes
 *
 * Entries have no index: each is found at the end of the one before.
 */
#include "drivers/qcow2/format.h"

enum { EXTRA_VM_STATE = 8, EXTRA_DISK_SIZE = 16, EXTRA_ICOUNT = 24 };

static void snapshot_clear(gpointer data)
{
    Qcow2Snapshot *snapshot = data;

    g_free(snapshot->id);
    g_free(snapshot->name);
}

/* @text is not terminated; what is behind a NUL in it is not shown. */
static char *copy_text(const uint8_t *text, unsigned bytes)
{
    return g_utf8_make_valid((const char *)text, (gssize)strnlen((const char *)text, bytes));
}

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
    if (snapshot->disk_size > BLK_MAX_LENGTH ||
        qcow2_l1_entries_for(header, snapshot->disk_size) > snapshot->l1_size) {
        return blk_error(error, -EINVAL, "L1 table of snapshot %" PRIu32 " is too small for its disk of %" PRIu64
                         " bytes", index, snapshot->disk_size);
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
        snapshot->vm_state_size = qcow2_get64(extra);
    }
    if (bytes >= EXTRA_DISK_SIZE) {
        snapshot->disk_size = qcow2_get64(extra + 8);
    }
    if (bytes >= EXTRA_ICOUNT) {
        snapshot->icount = qcow2_get64(extra + 16);
        snapshot->has_icount = true;
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
    snapshot->l1_table_offset = qcow2_get64(p);
    snapshot->l1_size = qcow2_get32(p + 8);
    id_bytes = qcow2_get16(p + 12);
    name_bytes = qcow2_get16(p + 14);
    snapshot->date_sec = qcow2_get32(p + 16);
    snapshot->date_nsec = qcow2_get32(p + 20);
    snapshot->vm_clock_nsec = qcow2_get64(p + 24);
    snapshot->vm_state_size = qcow2_get32(p + 32);
    snapshot->disk_size = header->size;
    extra_bytes = qcow2_get32(p + 36);
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
    snapshot->id = copy_text(rest + extra_bytes, id_bytes);
    snapshot->name = copy_text(rest + extra_bytes + id_bytes, name_bytes);
    *offset += (sizeof(p) + bytes + 7) & ~UINT64_C(7);
    return check_snapshot(header, index, snapshot, error);
}

int qcow2_snapshot_co_read_all(BlkNode *file_node, const Qcow2Header *header, GArray **snapshots,
                               uint64_t *table_bytes, GError **error)
{
    g_autoptr(GArray) array = g_array_new(FALSE, TRUE, sizeof(Qcow2Snapshot));
    uint64_t offset = header->snapshots_offset;

    *snapshots = NULL;
    g_array_set_clear_func(array, snapshot_clear);
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
