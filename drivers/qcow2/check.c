/* SPDX-License-Identifier: MIT */
/*
 * check.c - is a qcow2 image sound? And repairs of refcounts and COPIED flags.
 *
 *   count references -> decode compressed clusters (if asked) -> compare with the refcounts -> compare the COPIED flags
 *
 * Limitations: entries that point to the wrong place are reported, not repaired; of those that lie, nobody knows what
 * they should say.
 */
#include "drivers/qcow2/check.h"

enum { DECODES_AT_ONCE = 8, MIN_BUDGET = 256 << 20, MAX_MESSAGES = 10000 };

/* ---- messages and I/O ---- */

static void message_va(Qcow2Check *check, const char *format, va_list args)
{
    if (check->options->message == NULL || check->messages > MAX_MESSAGES) {
        return;
    }
    if (check->messages++ == MAX_MESSAGES) {
        check->options->message("Further findings are counted, but not listed.", check->options->opaque);
    } else {
        g_autofree char *text = g_strdup_vprintf(format, args);

        check->options->message(text, check->options->opaque);
    }
}

void qcow2_check_message(Qcow2Check *check, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    message_va(check, format, args);
    va_end(args);
}

void qcow2_check_corruption(Qcow2Check *check, const char *format, ...)
{
    va_list args;

    check->result->corruptions++;
    va_start(args, format);
    message_va(check, format, args);
    va_end(args);
}

int qcow2_check_co_read(Qcow2Check *check, uint64_t offset, uint64_t bytes, void *buf)
{
    const uint64_t there = offset >= check->file_bytes ? 0 : MIN(bytes, check->file_bytes - offset);
    int ret = there > 0 ? blk_co_pread(check->file, offset, there, buf, 0) : 0;

    memset((uint8_t *)buf + there, 0, bytes - there);
    if (ret < 0) {
        check->result->check_errors++;
        qcow2_check_message(check, "ERROR: I/O error at %#" PRIx64 ": %s", offset, g_strerror(-ret));
        return -EIO;
    }
    return 0;
}

/* The file is made longer where its last cluster is cut off. */
int qcow2_check_co_write(Qcow2Check *check, uint64_t offset, uint64_t bytes, const void *buf)
{
    if (offset + bytes > check->file_bytes) {
        g_autoptr(GError) ignored = NULL;
        int ret = blk_co_truncate(check->file, offset + bytes, BLK_PREALLOC_OFF, &ignored);

        if (ret < 0) {
            return ret;
        }
        check->file_bytes = offset + bytes;
    }
    return blk_co_pwrite(check->file, offset, bytes, buf, 0);
}

/* ---- refcounts ---- */

/* The refcount of @cluster is @count; sets *fixed if it is to become the number of references. */
static void compare_cluster(Qcow2Check *check, uint64_t cluster, uint64_t count, bool *fixed)
{
    const uint64_t refs = qcow2_check_refs(check, cluster);
    const bool leak = count > refs;
    const bool fits = refs <= qcow2_refcount_max(check->header.refcount_order);
    const bool fix = fits && (leak ? check->options->fix_leaks : check->options->fix_errors);

    if (count == refs) {
        return;
    }
    qcow2_check_message(check, "%s cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64,
                        fix ? "Repairing" : leak ? "Leaked" : "ERROR", cluster, count, refs);
    if (fix) {
        *fixed = true;
        *(leak ? &check->result->leaks_fixed : &check->result->corruptions_fixed) += 1;
    } else {
        *(leak ? &check->result->leaks : &check->result->corruptions) += 1;
    }
}

static void note_cluster(Qcow2Check *check, uint64_t cluster, uint64_t count)
{
    uint32_t *counter = qcow2_check_counter(check, cluster, false);

    if (counter != NULL && count == 1) {
        *counter |= QCOW2_REFS_IS_ONE;
    }
    if (count > 0 || qcow2_check_refs(check, cluster) > 0) {
        check->result->image_end_offset = (cluster + 1) * check->cluster_size;
    }
}

static int compare_block(Qcow2Check *check, uint64_t index, uint8_t *buf)
{
    const uint64_t first = index * check->per_block;
    const unsigned order = check->header.refcount_order;
    bool dirty = false;
    int ret = qcow2_check_co_read(check, check->reftable[index], check->cluster_size, buf);

    if (ret < 0) {
        return 0;
    }
    for (uint64_t i = 0; i < check->per_block && first + i < check->clusters; i++) {
        uint64_t count = qcow2_refcount_get(buf, order, i);
        bool fixed = false;

        compare_cluster(check, first + i, count, &fixed);
        if (fixed) {
            count = qcow2_check_refs(check, first + i);
            qcow2_refcount_set(buf, order, i, count);
            dirty = true;
        }
        note_cluster(check, first + i, count);
    }
    return dirty ? qcow2_check_co_write(check, check->reftable[index], check->cluster_size, buf) : 0;
}

/* No block says anything about clusters @first..@end-1: all have refcount 0. */
static void compare_without_block(Qcow2Check *check, uint64_t first, uint64_t end)
{
    uint64_t i = first;

    while (i < end) {
        bool fixed = false;

        if (check->chunks[i / QCOW2_REFS_CHUNK] == NULL) {
            i = (i / QCOW2_REFS_CHUNK + 1) * QCOW2_REFS_CHUNK;
            continue;
        }
        compare_cluster(check, i, 0, &fixed);
        check->rebuild |= qcow2_check_refs(check, i) > 0;
        note_cluster(check, i, fixed ? qcow2_check_refs(check, i) : 0);
        i++;
    }
}

/* Before a rebuild: the counts are compared, and lost, but not written. */
static int compare_all(Qcow2Check *check)
{
    g_autofree uint8_t *buf = g_try_malloc(check->cluster_size);
    uint64_t described = MIN(check->reftable_entries * check->per_block, check->clusters);

    if (buf == NULL) {
        return -ENOMEM;
    }
    for (uint64_t i = 0; i * check->per_block < described; i++) {
        const uint64_t first = i * check->per_block;

        if (check->reftable[i] == 0 || (check->reftable[i] & QCOW2_CHECK_SHARED)) {
            compare_without_block(check, first, MIN(first + check->per_block, described));
        } else {
            int ret = compare_block(check, i, buf);

            if (ret < 0) {
                return ret;
            }
        }
    }
    compare_without_block(check, described, check->clusters);
    return 0;
}

/* ---- COPIED flags ---- */

/* Compares the flag of @entry with the refcount. Returns: true if *entry was corrected and is to be written. */
static bool fix_copied(Qcow2Check *check, uint64_t *entry, const char *what, uint64_t l1_index)
{
    const uint64_t offset = *entry & QCOW2_OFFSET_MASK;
    const uint32_t *counter = qcow2_check_counter(check, offset / check->cluster_size, false);
    const bool one = counter != NULL && (*counter & QCOW2_REFS_IS_ONE);
    const unsigned refs = counter != NULL ? *counter & QCOW2_REFS_MAX : 0;
    const char *verb = check->options->fix_errors ? "Repairing" : "ERROR";

    if (offset == 0 || one == !!(*entry & QCOW2_COPIED)) {
        return false;
    }
    if (strcmp(what, "L2") == 0) {
        qcow2_check_message(check, "%s OFLAG_COPIED L2 cluster: l1_index=%" PRIu64 " l1_entry=%" PRIx64 " refcount=%u",
                            verb, l1_index, *entry, refs);
    } else {
        qcow2_check_message(check, "%s OFLAG_COPIED data cluster: l2_entry=%" PRIx64 " refcount=%u", verb, *entry,
                            refs);
    }
    if (!check->options->fix_errors) {
        check->result->corruptions++;
        return false;
    }
    check->result->corruptions_fixed++;
    *entry ^= QCOW2_COPIED;
    return true;
}

static int check_copied_of_table(Qcow2Check *check, const Qcow2CheckTable *table, uint8_t *buf)
{
    const uint64_t at = check->header.l1_table_offset + table->l1_index * 8;
    uint8_t l1[8];
    uint64_t entry;
    bool dirty = false;

    if (qcow2_check_co_read(check, at, sizeof(l1), l1) < 0 ||
        qcow2_check_co_read(check, table->offset, check->cluster_size, buf) < 0) {
        return 0;
    }
    entry = qcow2_get64(l1);
    if (fix_copied(check, &entry, "L2", table->l1_index)) {
        int ret;

        qcow2_put64(l1, entry);
        ret = qcow2_check_co_write(check, at, sizeof(l1), l1);
        if (ret < 0) {
            return ret;
        }
    }
    for (uint64_t pos = 0; pos < check->cluster_size; pos += check->l2_entry_bytes) {
        entry = qcow2_get64(buf + pos);
        if (entry != 0 && !(entry & QCOW2_COMPRESSED) && fix_copied(check, &entry, "data", 0)) {
            qcow2_put64(buf + pos, entry);
            dirty = true;
        }
    }
    return dirty ? qcow2_check_co_write(check, table->offset, check->cluster_size, buf) : 0;
}

static int check_copied(Qcow2Check *check)
{
    g_autofree uint8_t *buf = g_try_malloc(check->cluster_size);
    int ret = buf == NULL ? -ENOMEM : 0;

    for (guint i = 0; ret == 0 && i < check->tables->len; i++) {
        const Qcow2CheckTable *table = &g_array_index(check->tables, Qcow2CheckTable, i);

        if (table->active) {
            ret = check_copied_of_table(check, table, buf);
        }
    }
    return ret;
}

/* ---- all of it ---- */

static int prepare(Qcow2Check *check, GError **error)
{
    const BlkCodecType type = check->header.compression_type == QCOW2_COMPRESSION_ZSTD ? BLK_CODEC_ZSTD
                                                                                       : BLK_CODEC_DEFLATE;
    uint64_t allocated = check->file_bytes;
    BlkInfo info;

    if (blk_co_info(check->file, &info, NULL) == 0) {
        allocated = info.has_allocated ? MIN(info.allocated_bytes, allocated) : allocated;
        blk_info_clear(&info);
    }
    check->cluster_size = qcow2_cluster_size(&check->header);
    check->l2_bits = qcow2_l2_bits(&check->header);
    check->l2_entry_bytes = qcow2_l2_entry_bytes(&check->header);
    check->clusters = check->file_bytes / check->cluster_size + (check->file_bytes % check->cluster_size != 0);
    check->per_block = check->cluster_size * 8 >> check->header.refcount_order;
    check->chunk_count = check->clusters / QCOW2_REFS_CHUNK + 1;
    check->budget = MIN_BUDGET + allocated / 16;
    check->chunks = g_try_new0(uint32_t *, check->chunk_count);
    check->tables = g_array_new(FALSE, TRUE, sizeof(Qcow2CheckTable));
    check->table_index = g_hash_table_new(NULL, NULL);
    check->result->total_clusters = check->header.size / check->cluster_size +
                                    (check->header.size % check->cluster_size != 0);
    if (check->chunks == NULL) {
        return blk_error(error, -ENOMEM, "No memory to count the references to %" PRIu64 " clusters", check->clusters);
    }
    if (check->options->data) {
        check->codec = blk_codec_new(type, -1, error);
        return check->codec == NULL ? -ENOMEM : 0;
    }
    return 0;
}

static void finish(Qcow2Check *check)
{
    for (uint64_t i = 0; check->chunks != NULL && i < check->chunk_count; i++) {
        g_free(check->chunks[i]);
    }
    g_free(check->chunks);
    g_free(check->reftable);
    g_clear_pointer(&check->tables, g_array_unref);
    g_clear_pointer(&check->table_index, g_hash_table_unref);
    blk_codec_free(check->codec);
    qcow2_header_clear(&check->header);
}

/* A sound image loses the marks that forbid to write it. */
static int clear_marks(Qcow2Check *check, GError **error)
{
    const uint64_t marks = QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT;

    if (!check->options->fix_errors || check->result->corruptions > 0 || check->result->check_errors > 0) {
        return 0;
    }
    if (check->header.incompatible & marks) {
        int ret = blk_co_flush(check->file);

        if (ret < 0) {
            return blk_error_errno(error, ret, "Could not flush the repairs");
        }
        check->header.incompatible &= ~marks;
        ret = qcow2_co_update_header(check->file, &check->header, error);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static int run(Qcow2Check *check, GError **error)
{
    int ret = qcow2_check_co_count_all(check, error);
    int decoded = blk_co_group_wait(&check->group);

    if (ret == 0 && decoded < 0) {
        ret = blk_error_errno(error, decoded, "The data could not be decoded");
    }
    if (ret < 0) {
        return ret;
    }
    ret = compare_all(check);
    if (ret < 0) {
        return blk_error_errno(error, ret, "The refcounts could not be repaired");
    }
    if (check->rebuild && check->options->fix_errors) {
        qcow2_check_message(check, "Rebuilding refcount structure");
        ret = qcow2_check_co_rebuild(check, error);
        if (ret < 0) {
            return ret;
        }
        check->result->corruptions -= check->structure_errors;
        check->result->corruptions_fixed += check->structure_errors;
    }
    ret = check_copied(check);
    if (ret < 0) {
        return blk_error_errno(error, ret, "The flags could not be repaired");
    }
    return clear_marks(check, error);
}

int qcow2_co_check(BlkNode *file_node, const BlkCheckOptions *options, BlkCheckResult *result, GError **error)
{
    Qcow2Check check = {
        .file = file_node,
        .options = options,
        .result = result,
        .file_bytes = blk_node_length(file_node),
        .group = BLK_CO_GROUP_INIT(DECODES_AT_ONCE),
    };
    int ret = qcow2_co_read_header(file_node, &check.header, error);

    if (ret == 0) {
        ret = prepare(&check, error);
    }
    if (ret == 0) {
        ret = run(&check, error);
    }
    if (ret == 0 && (options->fix_leaks || options->fix_errors)) {
        ret = blk_co_flush(check.file);
        if (ret < 0) {
            ret = blk_error_errno(error, ret, "Could not flush the repairs");
        }
    }
    if (ret == 0 && options->progress != NULL) {
        options->progress(1.0, options->opaque);
    }
    finish(&check);
    return ret;
}
