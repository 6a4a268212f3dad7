/* SPDX-License-Identifier: MIT */
/*
 * check_refs.c - counts who refers to which cluster of a qcow2 file.
 *
 * Each L2 table is read once and counted as often as L1 entries point to it, so the time is bounded by the length of
 * the file, also when tables overlap or point in circles. Counters are allocated where something is referred to, and memory
 * is bounded by what the file really occupies.
 *
 * Limitations: a count stops at 2^31 - 1.
 */
#include "drivers/qcow2/check.h"

enum { READ_BYTES = 1 << 20 };

static bool take_budget(Qcow2Check *check, uint64_t bytes)
{
    if (bytes > check->budget) {
        check->over_budget = true;
        return false;
    }
    check->budget -= bytes;
    return true;
}

uint32_t *qcow2_check_counter(Qcow2Check *check, uint64_t cluster, bool make)
{
    uint32_t **chunk;

    if (cluster >= check->clusters) {
        return NULL;
    }
    chunk = &check->chunks[cluster / QCOW2_REFS_CHUNK];
    if (*chunk == NULL && make && take_budget(check, QCOW2_REFS_CHUNK * sizeof(uint32_t))) {
        *chunk = g_try_new0(uint32_t, QCOW2_REFS_CHUNK);
        check->over_budget |= *chunk == NULL;
    }
    return *chunk == NULL ? NULL : &(*chunk)[cluster % QCOW2_REFS_CHUNK];
}

uint64_t qcow2_check_refs(Qcow2Check *check, uint64_t cluster)
{
    const uint32_t *counter = qcow2_check_counter(check, cluster, false);

    return counter == NULL ? 0 : *counter & QCOW2_REFS_MAX;
}

bool qcow2_check_count(Qcow2Check *check, uint64_t offset, uint64_t bytes, uint64_t times)
{
    const uint64_t end = check->clusters * check->cluster_size;

    if (bytes == 0) {
        return true;
    }
    if (offset > end || bytes > end - offset) {
        qcow2_check_corruption(check, "ERROR: counting reference for region exceeding the end of the file by one "
                               "cluster or more: offset %#" PRIx64 " size %#" PRIx64, offset, bytes);
        return false;
    }
    for (uint64_t i = offset / check->cluster_size; i <= (offset + bytes - 1) / check->cluster_size; i++) {
        uint32_t *counter = qcow2_check_counter(check, i, true);

        if (counter == NULL) {
            return false;
        }
        *counter = (uint32_t)MIN(*counter + times, QCOW2_REFS_MAX);
    }
    return true;
}

/* ---- L2 ---- */

static int count_compressed(Qcow2Check *check, const Qcow2CheckTable *table, uint64_t entry, uint64_t guest_offset)
{
    uint64_t offset, bytes;

    qcow2_compressed_decode(check->header.cluster_bits, entry, &offset, &bytes);
    if (entry & QCOW2_COPIED) {
        qcow2_check_corruption(check, "ERROR: coffset=%#" PRIx64 ": copied flag must never be set for compressed "
                               "clusters", offset);
    }
    if (table->active) {
        check->result->allocated_clusters++;
        check->result->compressed_clusters++;
        check->result->fragmented_clusters++;
    }
    if (qcow2_check_count(check, offset, bytes, table->refs) && check->codec != NULL) {
        return qcow2_check_co_decode(check, guest_offset, offset, MIN(bytes, check->file_bytes - offset));
    }
    return 0;
}

/* @next: where the next cluster would continue this one; 0: none yet. */
static void count_plain(Qcow2Check *check, const Qcow2CheckTable *table, uint64_t entry, uint64_t *next)
{
    const uint64_t offset = entry & QCOW2_OFFSET_MASK;
    const bool has_zero_flag = check->header.version >= 3 && check->l2_entry_bytes == 8;
    const uint64_t reserved = has_zero_flag ? QCOW2_L2_RESERVED : QCOW2_L2_RESERVED | QCOW2_ZERO;

    if (entry & reserved) {
        qcow2_check_corruption(check, "ERROR found l2 entry with reserved bits set: %" PRIx64, entry);
    }
    if (offset == 0) {
        return;
    }
    if (offset % check->cluster_size != 0) {
        qcow2_check_corruption(check, "ERROR offset=%" PRIx64 ": Cluster is not properly aligned; L2 entry corrupted.",
                               offset);
    }
    if (table->active) {
        check->result->allocated_clusters++;
        if (*next != 0 && *next != offset) {
            check->result->fragmented_clusters++;
        }
        *next = offset + check->cluster_size;
    }
    qcow2_check_count(check, offset, check->cluster_size, table->refs);
}

/* The bits of the subclusters of the cluster at @guest_offset. */
static void check_bitmap(Qcow2Check *check, uint64_t entry, uint64_t bitmap, uint64_t guest_offset)
{
    const uint32_t data = (uint32_t)bitmap, zero = (uint32_t)(bitmap >> 32);
    const uint64_t offset = entry & QCOW2_OFFSET_MASK;

    if (entry & QCOW2_COMPRESSED) {
        if (bitmap != 0) {
            qcow2_check_corruption(check, "ERROR compressed cluster at guest offset %#" PRIx64 " with non-zero subcluster "
                                   "allocation bitmap, entry=%#" PRIx64, guest_offset, entry);
        }
    } else if (data & zero) {
        qcow2_check_corruption(check, "ERROR offset=%" PRIx64 ": Allocated cluster has corrupted subcluster allocation "
                               "bitmap", offset);
    } else if (data != 0 && offset == 0) {
        qcow2_check_corruption(check, "ERROR guest offset=%" PRIx64 ": Unallocated cluster has non-zero subcluster "
                               "allocation map", guest_offset);
    }
}

static int count_l2(Qcow2Check *check, const Qcow2CheckTable *table, uint8_t *buf)
{
    uint64_t next = 0;
    int ret = qcow2_check_co_read(check, table->offset, check->cluster_size, buf);

    for (uint64_t i = 0; ret == 0 && i < UINT64_C(1) << check->l2_bits && !check->over_budget; i++) {
        const uint8_t *place = buf + i * check->l2_entry_bytes;
        const uint64_t entry = qcow2_get64(place);
        const uint64_t guest_offset = ((table->l1_index << check->l2_bits) + i) << check->header.cluster_bits;

        if (check->l2_entry_bytes == 16) {
            check_bitmap(check, entry, qcow2_get64(place + 8), guest_offset);
        }
        if (entry & QCOW2_COMPRESSED) {
            ret = count_compressed(check, table, entry, guest_offset);
        } else if (entry != 0) {
            count_plain(check, table, entry, &next);
        }
    }
    return ret == -EIO ? 0 : ret;       /* counted as a check error */
}

static int count_all_l2(Qcow2Check *check)
{
    g_autofree uint8_t *buf = g_try_malloc(check->cluster_size);

    if (buf == NULL) {
        return -ENOMEM;
    }
    for (guint i = 0; i < check->tables->len && !check->over_budget; i++) {
        int ret = count_l2(check, &g_array_index(check->tables, Qcow2CheckTable, i), buf);

        if (ret < 0) {
            return ret;
        }
        if (check->options->progress != NULL) {
            check->options->progress(0.9 * (i + 1) / check->tables->len, check->options->opaque);
        }
    }
    return 0;
}

/* ---- L1 ---- */

static void add_table(Qcow2Check *check, uint64_t entry, uint64_t l1_index, bool active)
{
    const uint64_t offset = entry & QCOW2_OFFSET_MASK;
    gpointer key = GSIZE_TO_POINTER(offset >> check->header.cluster_bits);
    guint known;

    if (entry & QCOW2_L1_RESERVED) {
        qcow2_check_corruption(check, "ERROR found L1 entry with reserved bits set: %" PRIx64, entry);
    }
    if (offset == 0) {
        return;
    }
    if (offset % check->cluster_size != 0) {
        qcow2_check_corruption(check, "ERROR l2_offset=%" PRIx64 ": Table is not cluster aligned; L1 entry corrupted",
                               offset);
        return;
    }
    if (!qcow2_check_count(check, offset, check->cluster_size, 1)) {
        return;
    }
    known = GPOINTER_TO_UINT(g_hash_table_lookup(check->table_index, key));
    if (known > 0) {
        g_array_index(check->tables, Qcow2CheckTable, known - 1).refs++;
    } else if (take_budget(check, 128)) {
        Qcow2CheckTable table = { .offset = offset, .refs = 1, .l1_index = l1_index, .active = active };

        g_array_append_val(check->tables, table);
        g_hash_table_insert(check->table_index, key, GUINT_TO_POINTER(check->tables->len));
    }
}

static bool is_hole(Qcow2Check *check, uint64_t offset, uint64_t bytes)
{
    BlkStatus status;

    return offset < check->file_bytes &&
           blk_co_block_status(check->file, offset, MIN(bytes, check->file_bytes - offset), &status) == 0 &&
           (status.flags & BLK_STATUS_ZERO) && status.bytes >= MIN(bytes, check->file_bytes - offset);
}

static int count_l1(Qcow2Check *check, uint64_t offset, uint64_t entries, bool active)
{
    g_autofree uint8_t *buf = g_try_malloc(READ_BYTES);
    const uint64_t per_read = READ_BYTES / 8;

    if (buf == NULL) {
        return -ENOMEM;
    }
    if (!qcow2_check_count(check, offset, entries * 8, 1)) {
        return 0;
    }
    for (uint64_t i = 0; i < entries && !check->over_budget; i += per_read) {
        const uint64_t n = MIN(per_read, entries - i);

        if (is_hole(check, offset + i * 8, n * 8)) {
            continue;
        }
        if (qcow2_check_co_read(check, offset + i * 8, n * 8, buf) < 0) {
            continue;
        }
        for (uint64_t j = 0; j < n; j++) {
            const uint64_t entry = qcow2_get64(buf + j * 8);

            if (entry != 0) {
                add_table(check, entry, i + j, active);
            }
        }
    }
    return 0;
}

static int count_snapshots(Qcow2Check *check, GError **error)
{
    g_autoptr(GArray) snapshots = NULL;
    uint64_t table_bytes = 0, l1_bytes = 0;
    int ret = qcow2_snapshot_co_read_all(check->file, &check->header, &snapshots, &table_bytes, error);

    for (guint i = 0; ret == 0 && i < snapshots->len; i++) {
        const Qcow2Snapshot *snapshot = &g_array_index(snapshots, Qcow2Snapshot, i);

        l1_bytes += (uint64_t)snapshot->l1_size * 8;
        if (l1_bytes > check->clusters * check->cluster_size) {
            qcow2_check_corruption(check, "ERROR snapshot %u: the L1 tables of the snapshots overlap", i);
            break;
        }
        ret = count_l1(check, snapshot->l1_table_offset, snapshot->l1_size, false);
    }
    if (ret == 0) {
        qcow2_check_count(check, check->header.snapshots_offset, table_bytes, 1);
    }
    return ret;
}

/* ---- refcount structures ---- */

/* Reads the table and counts its blocks. What is bad becomes 0 in check->reftable. */
static int count_refcounts(Qcow2Check *check)
{
    const uint64_t bytes = (uint64_t)check->header.refcount_table_clusters << check->header.cluster_bits;
    const uint64_t before = check->result->corruptions;

    check->reftable_entries = bytes / 8;
    check->reftable = g_try_malloc(bytes);
    if (check->reftable == NULL) {
        return -ENOMEM;
    }
    if (!qcow2_check_count(check, check->header.refcount_table_offset, bytes, 1) ||
        qcow2_check_co_read(check, check->header.refcount_table_offset, bytes, check->reftable) < 0) {
        memset(check->reftable, 0, bytes);
        check->rebuild = true;
        check->structure_errors = check->result->corruptions - before;
        return 0;
    }
    for (uint64_t i = 0; i < check->reftable_entries; i++) {
        const uint64_t entry = GUINT64_FROM_BE(check->reftable[i]);
        const uint64_t offset = entry & QCOW2_REFTABLE_OFFSET_MASK;

        check->reftable[i] = 0;
        if (entry & QCOW2_REFTABLE_RESERVED) {
            qcow2_check_corruption(check, "ERROR refcount table entry %" PRIu64 " has reserved bits set", i);
            check->rebuild = true;
        }
        if (offset == 0) {
            continue;
        }
        if (offset % check->cluster_size != 0) {
            qcow2_check_corruption(check, "ERROR refcount block %" PRIu64 " is not cluster aligned; refcount table "
                                   "entry corrupted", i);
            check->rebuild = true;
        } else if (offset / check->cluster_size >= check->clusters) {
            qcow2_check_corruption(check, "ERROR refcount block %" PRIu64 " is outside image", i);
            check->rebuild = true;
        } else if (qcow2_check_count(check, offset, check->cluster_size, 1)) {
            check->reftable[i] = offset;
            if (qcow2_check_refs(check, offset / check->cluster_size) > 1) {
                check->reftable[i] |= QCOW2_CHECK_SHARED;
                qcow2_check_corruption(check, "ERROR refcount block %" PRIu64 " refcount=%" PRIu64, i,
                                       qcow2_check_refs(check, offset / check->cluster_size));
                check->rebuild = true;
            }
        }
    }
    check->structure_errors = check->result->corruptions - before;
    return 0;
}

int qcow2_check_co_count_all(Qcow2Check *check, GError **error)
{
    const Qcow2Header *header = &check->header;
    int ret;

    qcow2_check_count(check, 0, check->cluster_size, 1);
    ret = count_l1(check, header->l1_table_offset, header->l1_size, true);
    if (ret == 0 && header->nb_snapshots > 0) {
        ret = count_snapshots(check, error);
        if (ret < 0) {
            return ret;
        }
    }
    if (ret == 0) {
        ret = count_all_l2(check);
    }
    if (ret == 0) {
        ret = qcow2_check_co_count_bitmaps(check);
    }
    if (ret == 0) {
        ret = count_refcounts(check);
    }
    if (ret == 0 && check->over_budget) {
        return blk_error(error, -ENOMEM, "The check needs more memory than the file's size justifies: its tables refer "
                         "to clusters all over a sparse file");
    }
    return ret < 0 ? blk_error_errno(error, ret, "The check could not be finished") : 0;
}
