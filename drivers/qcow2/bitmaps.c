/* SPDX-License-Identifier: MIT */
/*
 * bitmaps.c - dirty bitmaps of an open qcow2 image. See docs/bitmaps.md for the states in the file.
 *
 * At open the directory is read, and for writing the tables, which stay in memory: so that a bitmap is removed whole
 * without reading anything of it. The first change of the disk loads the bitmaps that record it and then marks
 * them as in use in the file, stable: from there on their bits in the file are too old, and who finds the mark does
 * not trust them. Storing takes the mark away.
 *
 * Bits that cannot be read are read again by whoever needs them next; only damage makes a bitmap unusable.
 *
 * Limitation: a bitmap with extra data that only its maker understands is kept as it is, but not used; it is marked as
 * in use too, since we do not record in it.
 */
#include "drivers/qcow2/bitmaps.h"

static Qcow2BitmapEntry *entry_of(const BlkDirtyBitmap *bitmap)
{
    return blk_bitmap_stored(bitmap);
}

static bool entry_is_usable(const Qcow2BitmapEntry *entry)
{
    bool known = entry->extra_bytes == 0 || (entry->flags & QCOW2_BITMAP_EXTRA_KNOWN);

    return known && !(entry->flags & QCOW2_BITMAP_IN_USE);
}

/* ---- open and close ---- */

static void attach_all(BlkNode *node, GPtrArray *entries)
{
    for (guint i = 0; i < entries->len; i++) {
        Qcow2BitmapEntry *entry = g_ptr_array_index(entries, i);

        blk_bitmap_attach_stored(node, entry->name, UINT64_C(1) << entry->granularity_bits,
                                 (entry->flags & QCOW2_BITMAP_AUTO) != 0, !entry_is_usable(entry), entry);
    }
    g_ptr_array_set_free_func(entries, NULL);       /* they belong to the bitmaps now */
}

int qcow2_co_bitmaps_open(BlkNode *node, bool for_writing, GError **error)
{
    Qcow2 *q = node->opaque;
    g_autoptr(GPtrArray) entries = NULL;
    g_autoptr(GError) local = NULL;
    int ret;

    q->removed_bitmaps = g_ptr_array_new_with_free_func((GDestroyNotify)qcow2_bitmap_entry_free);
    q->bitmap_data = g_hash_table_new(NULL, NULL);
    if (q->header.version >= 3 && q->header.bitmaps.present && !qcow2_header_has_bitmaps(&q->header)) {
        blk_node_message(node, "a program that does not know dirty bitmaps has changed the image: its bitmaps are "
                         "lost; 'check -r leaks' gives their space back");
    }
    ret = qcow2_bitmaps_co_read_directory(node->file->node, &q->header, &entries, &local);
    if (ret == 0) {
        attach_all(node, entries);
        return 0;
    }
    if (!for_writing) {     /* the disk can be read without them */
        if (!blk_node_open_flags(node)->no_backing) {
            blk_node_message(node, "the dirty bitmaps cannot be used: %s", local->message);
        }
        return 0;
    }
    return blk_error(error, ret, "the image is corrupt: %s; open it read-only or repair it with 'check -r all'",
                     local->message);
}

void qcow2_bitmaps_close(BlkNode *node)
{
    Qcow2 *q = node->opaque;
    BlkDirtyBitmap *bitmap;

    for (unsigned i = 0; (bitmap = blk_bitmap_nth(node, i));) {
        if (blk_bitmap_persistent(bitmap)) {
            qcow2_bitmap_entry_free(blk_bitmap_stored(bitmap));
            blk_bitmap_detach_stored(bitmap);
        } else {
            i++;
        }
    }
    g_clear_pointer(&q->removed_bitmaps, g_ptr_array_unref);
    g_clear_pointer(&q->bitmap_data, g_hash_table_unref);
}

void qcow2_co_bitmaps_finish(BlkNode *node)
{
    const Qcow2 *q = node->opaque;
    g_autoptr(GError) error = NULL;

    if (qcow2_co_bitmaps_store(node, &error) < 0 && !q->bitmaps_failed) {
        blk_node_message(node, "not all dirty bitmaps could be stored; the others cannot be used any more: %s",
                         error->message);
    }
}

static int co_add_tables_of(BlkNode *node, Qcow2BitmapEntry *entry, GError **error)
{
    Qcow2 *q = node->opaque;
    int ret = qcow2_bitmap_co_read_table(node->file->node, &q->header, entry, error);

    if (ret < 0) {
        g_prefix_error(error, "%sbitmap '%s': ", ret == -EINVAL ? "the image is corrupt: " : "", entry->name);
        return ret;
    }
    ret = qcow2_tables_add(q, QCOW2_TABLE_BITMAPS, entry->table_offset, (uint64_t)entry->table_size * 8, error);
    for (uint32_t i = 0; ret == 0 && i < entry->table_size; i++) {
        if (entry->table[i] & QCOW2_OFFSET_MASK) {
            ret = qcow2_tables_add(q, QCOW2_TABLE_BITMAPS, entry->table[i] & QCOW2_OFFSET_MASK, q->cluster_size, error);
        }
    }
    return ret;
}

int qcow2_co_bitmaps_add_tables(BlkNode *node, GError **error)
{
    Qcow2 *q = node->opaque;
    BlkDirtyBitmap *bitmap;
    int ret = 0;

    if (qcow2_header_has_bitmaps(&q->header)) {
        ret = qcow2_tables_add(q, QCOW2_TABLE_BITMAPS, q->header.bitmaps.directory_offset,
                               q->header.bitmaps.directory_bytes, error);
    }
    for (unsigned i = 0; ret == 0 && (bitmap = blk_bitmap_nth(node, i)); i++) {
        if (entry_of(bitmap)) {
            ret = co_add_tables_of(node, entry_of(bitmap), error);
        }
    }
    return ret;
}

/* ---- loading ---- */

/* Reads the bits of one cluster of the table. No two bitmaps share it: so memory is bounded by the file's data. */
static int co_load_part(BlkNode *node, uint64_t offset, uint64_t first, BlkDirtyBits *bits, uint8_t *buf,
                        GError **error)
{
    Qcow2 *q = node->opaque;
    void *cluster = GSIZE_TO_POINTER(offset >> q->cluster_bits);
    int ret;

    if (!g_hash_table_add(q->bitmap_data, cluster)) {
        return blk_error(error, -EINVAL, "the cluster at %#" PRIx64 " is part of a bitmap twice", offset);
    }
    ret = blk_co_pread(node->file->node, offset, q->cluster_size, buf, 0);
    if (ret < 0) {
        g_hash_table_remove(q->bitmap_data, cluster);
        return blk_error_errno(error, ret, "at offset %#" PRIx64, offset);
    }
    blk_dirty_bits_import(bits, first, buf, q->cluster_size);
    return 0;
}

/* After a failure: the first @count parts may be loaded again. */
static void release_parts(Qcow2 *q, const uint64_t *table, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        g_hash_table_remove(q->bitmap_data, GSIZE_TO_POINTER((table[i] & QCOW2_OFFSET_MASK) >> q->cluster_bits));
    }
}

static int co_load_parts(BlkNode *node, const Qcow2BitmapEntry *entry, BlkDirtyBits *bits, uint8_t *buf,
                         GError **error)
{
    Qcow2 *q = node->opaque;
    uint64_t bytes = q->cluster_size << (entry->granularity_bits + 3);      /* of the disk; below 2^55 */
    uint64_t done = 0;
    int ret = 0;

    while (ret == 0 && done < entry->table_size) {
        uint64_t value = entry->table[done];

        if (value & QCOW2_OFFSET_MASK) {
            ret = co_load_part(node, value & QCOW2_OFFSET_MASK, done * q->cluster_size * 8, bits, buf, error);
        } else if (value & QCOW2_BITMAP_TABLE_ONES) {
            blk_dirty_bits_set(bits, done * bytes, bytes);
        }
        done += ret == 0;
    }
    if (ret < 0) {
        release_parts(q, entry->table, done);
    }
    return ret;
}

static int qcow2_bitmap_co_load(BlkNode *node, void *stored, BlkDirtyBits *bits, GError **error)
{
    Qcow2 *q = node->opaque;
    Qcow2BitmapEntry *entry = stored;
    uint64_t entries = qcow2_bitmap_table_entries(q->cluster_bits, entry->granularity_bits, node->length);
    uint8_t *buf;
    int ret;

    if (entry->table_size != entries) {
        return blk_error(error, -EINVAL, "its table has %" PRIu32 " entries, the disk needs %" PRIu64,
                         entry->table_size, entries);
    }
    ret = qcow2_bitmap_co_read_table(node->file->node, &q->header, entry, error);
    if (ret < 0) {
        return ret;
    }
    buf = blk_buffer_try_alloc(node->file->node, q->cluster_size);
    if (!buf) {
        return blk_error(error, -ENOMEM, "no memory");
    }
    ret = co_load_parts(node, entry, bits, buf, error);
    blk_buffer_free(buf);
    return ret;
}

/* Of all persistent bitmaps for a disk of @length bytes. */
static uint64_t tables_bytes(BlkNode *node, uint64_t length)
{
    const Qcow2 *q = node->opaque;
    BlkDirtyBitmap *bitmap;
    uint64_t bytes = 0;

    for (unsigned i = 0; (bitmap = blk_bitmap_nth(node, i)); i++) {
        if (blk_bitmap_persistent(bitmap)) {
            unsigned bits = (unsigned)__builtin_ctzll(blk_bitmap_granularity(bitmap));

            bytes += qcow2_bitmap_table_entries(q->cluster_bits, bits, length) * 8;
        }
    }
    return bytes;
}

/* ---- in use ---- */

/* Would a change of the disk, or one of the bitmap, make what the file has of it wrong, without a mark that says so? */
static bool goes_stale(const BlkDirtyBitmap *bitmap, bool resize)
{
    const Qcow2BitmapEntry *entry = entry_of(bitmap);

    return entry && !(entry->flags & QCOW2_BITMAP_IN_USE) &&
           (resize || blk_bitmap_enabled(bitmap) || blk_bitmap_touched(bitmap));
}

static bool any_goes_stale(const BlkNode *node, bool resize)
{
    BlkDirtyBitmap *bitmap;

    for (unsigned i = 0; (bitmap = blk_bitmap_nth(node, i)); i++) {
        if (goes_stale(bitmap, resize)) {
            return true;
        }
    }
    return false;
}

/* The guest may write whether @bitmap can be read or not: it is pending then, or, if it is damaged, given up. */
static void do_without(BlkNode *node, BlkDirtyBitmap *bitmap, const GError *why)
{
    bool damaged = why->code == EINVAL || !blk_bitmap_set_pending(bitmap);

    if (damaged) {
        blk_bitmap_set_inconsistent(bitmap);
    }
    blk_node_message(node, damaged ? "%s; the bitmap cannot be used any more"
                                   : "%s; what is written is recorded, and the bitmap is read again when it is needed",
                     why->message);
}

static int co_load_for_change(BlkNode *node, BlkDirtyBitmap *bitmap, bool resize, GError **error)
{
    g_autoptr(GError) local = NULL;
    int ret = resize || !blk_bitmap_inconsistent(bitmap) ? blk_co_bitmap_load(bitmap, &local) : 0;

    if (ret < 0 && resize) {
        g_propagate_error(error, g_steal_pointer(&local));
        return ret;
    }
    if (ret < 0) {
        do_without(node, bitmap, local);
    }
    return 0;
}

static int co_mark_in_use(BlkNode *node, bool resize)
{
    BlkNode *file = node->file->node;
    BlkDirtyBitmap *bitmap;
    uint8_t field[4];
    int ret = 0;

    for (unsigned i = 0; ret == 0 && (bitmap = blk_bitmap_nth(node, i)); i++) {
        if (goes_stale(bitmap, resize)) {
            blk_put_be32(field, entry_of(bitmap)->flags | QCOW2_BITMAP_IN_USE);
            ret = blk_co_pwrite(file, entry_of(bitmap)->flags_offset, sizeof(field), field, 0);
        }
    }
    return ret < 0 ? ret : blk_co_flush(file);
}

static int co_before_change_locked(BlkNode *node, bool resize, GError **error)
{
    BlkDirtyBitmap *bitmap;
    int ret = 0;

    for (unsigned i = 0; ret == 0 && (bitmap = blk_bitmap_nth(node, i)); i++) {
        if (blk_bitmap_persistent(bitmap) && (resize || goes_stale(bitmap, resize))) {
            ret = co_load_for_change(node, bitmap, resize, error);
        }
    }
    if (ret < 0 || !any_goes_stale(node, resize)) {
        return ret;
    }
    ret = co_mark_in_use(node, resize);
    if (ret < 0) {
        return blk_error_errno(error, ret, "could not mark the bitmaps as in use");
    }
    for (unsigned i = 0; (bitmap = blk_bitmap_nth(node, i)); i++) {
        if (goes_stale(bitmap, resize)) {
            entry_of(bitmap)->flags |= QCOW2_BITMAP_IN_USE;
        }
    }
    return 0;
}

static int qcow2_co_before_change(BlkNode *node, uint64_t length, GError **error)
{
    Qcow2 *q = node->opaque;
    bool resize = length != node->length;
    int ret;

    if (resize && tables_bytes(node, length) > QCOW2_MAX_BITMAP_TABLES_BYTES) {
        return blk_error(error, -EFBIG, "The tables of the bitmaps would be too large: remove some, or use larger "
                         "granularity");
    }
    if (!resize && !any_goes_stale(node, false)) {
        return 0;
    }
    blk_co_mutex_lock(&q->bitmaps_lock);
    ret = co_before_change_locked(node, resize, error);
    blk_co_mutex_unlock(&q->bitmaps_lock);
    return ret;
}

/* ---- the table ---- */

static bool qcow2_bitmaps_supported(const BlkNode *node)
{
    const Qcow2 *q = node->opaque;

    return q->header.version >= 3;
}

static int qcow2_bitmap_check_add(BlkNode *node, const char *name, uint64_t granularity, GError **error)
{
    Qcow2 *q = node->opaque;
    unsigned bits = (unsigned)__builtin_ctzll(granularity);
    uint64_t entries = qcow2_bitmap_table_entries(q->cluster_bits, bits, node->length), directory = 0;
    const char *why = NULL;
    BlkDirtyBitmap *bitmap;
    unsigned count = 0;

    for (unsigned i = 0; (bitmap = blk_bitmap_nth(node, i)); i++) {
        if (blk_bitmap_persistent(bitmap)) {
            count++;
            directory += QCOW2_BITMAP_ENTRY_BYTES + strlen(blk_bitmap_name(bitmap)) + 8;
            directory += entry_of(bitmap) ? entry_of(bitmap)->extra_bytes : 0;
        }
    }
    if (q->header.version < 3) {
        why = "Cannot store dirty bitmaps in qcow2 v2 files";
    } else if (!q->tables) {
        why = "The image was opened for its metadata only";
    } else if (entries == 0) {
        why = "The disk is empty";
    } else if (entries << q->cluster_bits > QCOW2_MAX_BITMAP_BYTES) {
        why = "Too much space will be occupied by the bitmap. Use larger granularity";
    } else if (tables_bytes(node, node->length) + entries * 8 > QCOW2_MAX_BITMAP_TABLES_BYTES) {
        why = "The tables of all bitmaps would be too large together. Use larger granularity";
    } else if (count >= QCOW2_MAX_BITMAPS ||
               directory + QCOW2_BITMAP_ENTRY_BYTES + strlen(name) + 8 > QCOW2_MAX_BITMAP_DIRECTORY_BYTES) {
        why = "The image has as many bitmaps as it can have";
    }
    return why ? blk_error(error, -EINVAL, "Can't make bitmap '%s' persistent in '%s': %s", name, blk_node_name(node),
                           why) : 0;
}

static void qcow2_bitmap_forget(BlkNode *node, void *stored)
{
    Qcow2 *q = node->opaque;

    g_ptr_array_add(q->removed_bitmaps, stored);
}

static int qcow2_co_bitmaps_store_locked(BlkNode *node, GError **error)
{
    Qcow2 *q = node->opaque;

    blk_co_mutex_lock(&q->bitmaps_lock);
    int ret = qcow2_co_bitmaps_store(node, error);
    q->bitmaps_failed = ret < 0;
    blk_co_mutex_unlock(&q->bitmaps_lock);
    return ret;
}

uint64_t qcow2_bitmaps_measure(const BlkNode *source, uint64_t cluster_size)
{
    unsigned cluster_bits = (unsigned)__builtin_ctzll(cluster_size);
    uint64_t bytes = 0, directory = 0;
    BlkDirtyBitmap *bitmap;

    for (unsigned i = 0; (bitmap = blk_bitmap_nth(source, i)); i++) {
        if (blk_bitmap_persistent(bitmap)) {
            unsigned bits = (unsigned)__builtin_ctzll(blk_bitmap_granularity(bitmap));
            uint64_t entries = qcow2_bitmap_table_entries(cluster_bits, bits, blk_node_length(source));

            bytes += (entries + (entries * 8 + cluster_size - 1) / cluster_size) * cluster_size;
            directory += (QCOW2_BITMAP_ENTRY_BYTES + strlen(blk_bitmap_name(bitmap)) + 7) & ~UINT64_C(7);
        }
    }
    return bytes + (directory + cluster_size - 1) / cluster_size * cluster_size;
}

const BlkBitmapOps qcow2_bitmap_ops = {
    .supported = qcow2_bitmaps_supported,
    .check_add = qcow2_bitmap_check_add,
    .co_load = qcow2_bitmap_co_load,
    .forget = qcow2_bitmap_forget,
    .co_before_change = qcow2_co_before_change,
    .co_store = qcow2_co_bitmaps_store_locked,
};
