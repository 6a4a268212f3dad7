/* SPDX-License-Identifier: MIT */
/*
 * bitmaps_store.c - makes the bitmaps in a qcow2 image those that are in memory.
 *
 *     bits and tables of what has changed -> the whole directory, counts, flush -> header, flush -> old clusters dropped
 *
 * Everything new lies in clusters that nothing refers to until the header, in one write of its first sector, refers to
 * the new directory. So a crash leaves the old directory, whose changed bitmaps are marked as in use, or the new one.
 * Bitmaps that have not changed keep their tables and bits. So do those that record but whose bits could not be read:
 * they stay in use in the file, and storing them can be tried again.
 */
#include "drivers/qcow2/bitmaps.h"

typedef struct Extent {
    uint64_t offset, bytes;
} Extent;

typedef struct Store {
    BlkNode *node;
    GPtrArray *entries;             /* of Qcow2BitmapEntry: the new directory; those of Item.fresh are not owned here */
    GPtrArray *bitmaps;             /* of BlkDirtyBitmap: whose entries they are, or are to be */
    GArray *taken, *stale;          /* of Extent: what the new state takes; what the old one had */
    GError *unreadable;             /* (nullable): why the first bitmap was left out that could not be read */
} Store;

static Qcow2BitmapEntry *entry_of(const BlkDirtyBitmap *bitmap)
{
    return blk_bitmap_stored(bitmap);
}

/* ---- space ---- */

static void note_taken(Store *store, uint64_t offset, uint64_t bytes)
{
    Extent extent = { offset, bytes };

    g_array_append_val(store->taken, extent);
}

/* Takes a cluster for bits. */
static int co_take_cluster(Store *store, uint64_t *offset)
{
    Qcow2 *q = store->node->opaque;
    uint64_t cluster;
    gint64 got;

    blk_co_mutex_lock(&q->alloc_lock);
    got = qcow2_co_alloc_clusters(store->node, 1, &cluster);
    blk_co_mutex_unlock(&q->alloc_lock);
    if (got < 0) {
        return (int)got;
    }
    *offset = cluster << q->cluster_bits;
    note_taken(store, *offset, q->cluster_size);
    return qcow2_co_tables_claim(store->node, QCOW2_TABLE_BITMAPS, *offset, q->cluster_size);
}

/* Writes @table, from qcow2_table_buffer(); all that was written or counted before is stable then, too. */
static int co_write_whole(Store *store, const uint8_t *table, uint64_t bytes, uint64_t *offset)
{
    Qcow2 *q = store->node->opaque;
    int ret = qcow2_co_table_write(store->node, table, bytes, BLK_EVENT_COUNT, offset);

    if (ret == 0) {
        note_taken(store, *offset, (bytes + q->cluster_size - 1) & ~(q->cluster_size - 1));
    }
    return ret;
}

/* A cluster that the old state refers to, once; one without a reference in the counts is left alone. */
static int co_note_stale(Store *store, uint64_t offset, uint64_t bytes)
{
    Qcow2 *q = store->node->opaque;

    for (uint64_t pos = offset; pos < offset + bytes; pos += q->cluster_size) {
        Extent extent = { pos, q->cluster_size };
        uint64_t count;

        blk_co_mutex_lock(&q->alloc_lock);
        int ret = qcow2_co_refcount_get(store->node, qcow2_cluster_of(q, pos), &count);
        blk_co_mutex_unlock(&q->alloc_lock);
        if (ret < 0) {
            return ret;
        }
        if (count > 0) {
            g_array_append_val(store->stale, extent);
        }
    }
    return 0;
}

/* The old table of a bitmap and all that it refers to. */
static int co_note_stale_bitmap(Store *store, Qcow2BitmapEntry *entry, GError **error)
{
    Qcow2 *q = store->node->opaque;
    int ret = qcow2_bitmap_co_read_table(store->node->file->node, &q->header, entry, error);

    if (ret < 0) {
        g_prefix_error(error, "bitmap '%s': ", entry->name);
        return ret;
    }
    ret = co_note_stale(store, entry->table_offset, (uint64_t)entry->table_size * 8);

    for (uint32_t i = 0; ret == 0 && i < entry->table_size; i++) {
        if (entry->table[i] & QCOW2_OFFSET_MASK) {
            ret = co_note_stale(store, entry->table[i] & QCOW2_OFFSET_MASK, q->cluster_size);
        }
    }
    return ret < 0 ? blk_error_errno(error, ret, "bitmap '%s'", entry->name) : 0;
}

static void drop_extents(Qcow2 *q, const GArray *extents)
{
    for (guint i = 0; i < extents->len; i++) {
        const Extent *extent = &g_array_index(extents, Extent, i);

        qcow2_drop(q, extent->offset, extent->bytes, false);
    }
}

/* ---- tables ---- */

/* Writes the bits of one cluster if they are mixed; *entry: what the table says about them. */
static int co_write_part(Store *store, const BlkDirtyBits *bits, uint64_t first, uint8_t *buf, uint64_t *entry)
{
    Qcow2 *q = store->node->opaque;
    BlkDirtyState state = blk_dirty_bits_state(bits, first, q->cluster_size * 8);
    int ret;

    *entry = state == BLK_DIRTY_ALL ? QCOW2_BITMAP_TABLE_ONES : 0;
    if (state != BLK_DIRTY_MIXED) {
        return 0;
    }
    ret = co_take_cluster(store, entry);
    if (ret < 0) {
        return ret;
    }
    blk_dirty_bits_export(bits, first, buf, q->cluster_size);
    return blk_co_pwrite(store->node->file->node, *entry, q->cluster_size, buf, 0);
}

/* Writes the bits and the table of @entry to new clusters. */
static int co_write_table(Store *store, const BlkDirtyBits *bits, Qcow2BitmapEntry *entry)
{
    Qcow2 *q = store->node->opaque;
    uint64_t entries = qcow2_bitmap_table_entries(q->cluster_bits, entry->granularity_bits, store->node->length);
    uint8_t *table = qcow2_table_buffer(store->node, entries * 8);
    uint8_t *buf = blk_buffer_try_alloc(store->node->file->node, q->cluster_size);
    g_autofree uint64_t *values = g_try_new(uint64_t, entries);
    int ret = table && buf && values ? 0 : -ENOMEM;

    for (uint64_t i = 0; ret == 0 && i < entries; i++) {
        ret = co_write_part(store, bits, i * q->cluster_size * 8, buf, &values[i]);
        if (ret == 0) {
            blk_put_be64(table + i * 8, values[i]);
        }
    }
    if (ret == 0) {
        g_free(entry->table);
        entry->table = g_steal_pointer(&values);
        entry->table_size = (uint32_t)entries;
        ret = co_write_whole(store, table, entries * 8, &entry->table_offset);
    }
    blk_buffer_free(buf);
    blk_buffer_free(table);
    return ret;
}

/* ---- one bitmap ---- */

static bool is_up_to_date(const BlkDirtyBitmap *bitmap)
{
    return entry_of(bitmap) && (blk_bitmap_inconsistent(bitmap) ||
                                (!blk_bitmap_changed(bitmap) && !(entry_of(bitmap)->flags & QCOW2_BITMAP_IN_USE)));
}

/* The entry that @bitmap is to have: a copy of the old one if there is one. */
static Qcow2BitmapEntry *new_entry(const BlkDirtyBitmap *bitmap)
{
    const Qcow2BitmapEntry *old = entry_of(bitmap);
    Qcow2BitmapEntry *entry = g_new0(Qcow2BitmapEntry, 1);

    entry->name = g_strdup(blk_bitmap_name(bitmap));
    entry->granularity_bits = (unsigned)__builtin_ctzll(blk_bitmap_granularity(bitmap));
    entry->flags = blk_bitmap_enabled(bitmap) ? QCOW2_BITMAP_AUTO : 0;
    if (old) {
        entry->flags |= old->flags & QCOW2_BITMAP_EXTRA_KNOWN;
        entry->extra_bytes = old->extra_bytes;
        entry->extra = g_memdup2(old->extra, old->extra_bytes);
        entry->table_offset = old->table_offset;
        entry->table_size = old->table_size;
        entry->table = g_memdup2(old->table, old->table_size * sizeof(*old->table));
    }
    return entry;
}

/* One that cannot be read stays in use in the file, and does not keep the others from being stored. */
static bool co_is_readable(Store *store, BlkDirtyBitmap *bitmap)
{
    return !blk_bitmap_pending(bitmap) ||
           blk_co_bitmap_load(bitmap, store->unreadable ? NULL : &store->unreadable) == 0;
}

static int co_store_bitmap(Store *store, BlkDirtyBitmap *bitmap, GError **error)
{
    Qcow2BitmapEntry *entry = entry_of(bitmap);
    bool readable = co_is_readable(store, bitmap);
    const BlkDirtyBits *bits = blk_bitmap_bits(bitmap);
    int ret;

    if (readable && !is_up_to_date(bitmap)) {
        entry = new_entry(bitmap);
    }
    g_ptr_array_add(store->entries, entry);
    g_ptr_array_add(store->bitmaps, bitmap);
    if (entry == entry_of(bitmap) || !bits) {
        return 0;                   /* at most its flags have changed */
    }
    ret = co_write_table(store, bits, entry);
    if (ret < 0) {
        return blk_error_errno(error, ret, "could not write the bitmap '%s'", entry->name);
    }
    return entry_of(bitmap) ? co_note_stale_bitmap(store, entry_of(bitmap), error) : 0;
}

static int co_store_bitmaps(Store *store, GError **error)
{
    Qcow2 *q = store->node->opaque;
    BlkDirtyBitmap *bitmap;
    int ret = 0;

    for (unsigned i = 0; ret == 0 && (bitmap = blk_bitmap_nth(store->node, i)); i++) {
        if (blk_bitmap_persistent(bitmap)) {
            ret = co_store_bitmap(store, bitmap, error);
        }
    }
    for (guint i = 0; ret == 0 && i < q->removed_bitmaps->len; i++) {
        ret = co_note_stale_bitmap(store, g_ptr_array_index(q->removed_bitmaps, i), error);
    }
    return ret;
}

/* ---- the directory ---- */

static int co_write_directory(Store *store, uint64_t *offset, uint64_t bytes)
{
    uint8_t *table;
    int ret;

    *offset = 0;
    if (bytes == 0) {
        return 0;
    }
    table = qcow2_table_buffer(store->node, bytes);
    if (!table) {
        return -ENOMEM;
    }
    qcow2_bitmaps_put_directory(store->entries, table);
    ret = co_write_whole(store, table, bytes, offset);
    blk_buffer_free(table);
    return ret;
}

/* Writes the directory and lets the header refer to it. */
static int co_switch_directory(Store *store, GError **error)
{
    Qcow2 *q = store->node->opaque;
    uint64_t offset, bytes = qcow2_bitmaps_directory_bytes(store->entries);
    Qcow2Header header;
    int ret = 0;

    if (qcow2_header_has_bitmaps(&q->header)) {
        ret = co_note_stale(store, q->header.bitmaps.directory_offset, q->header.bitmaps.directory_bytes);
    }
    if (ret == 0) {
        ret = co_write_directory(store, &offset, bytes);
    }
    if (ret < 0) {
        return blk_error_errno(error, ret, "could not write the bitmap directory");
    }
    ret = qcow2_co_switch_begin(store->node, &header, error);
    if (ret < 0) {
        return ret;
    }
    qcow2_header_set_bitmaps(&header, store->entries->len, offset, bytes);
    return qcow2_co_switch_end(store->node, &header, error);
}

/* The new state is the file's. */
static void adopt(Store *store)
{
    Qcow2 *q = store->node->opaque;

    qcow2_bitmaps_place_directory(store->entries, q->header.bitmaps.directory_offset);
    for (guint i = 0; i < store->bitmaps->len; i++) {
        BlkDirtyBitmap *bitmap = g_ptr_array_index(store->bitmaps, i);
        Qcow2BitmapEntry *entry = g_ptr_array_index(store->entries, i);

        if (entry != entry_of(bitmap)) {
            qcow2_bitmap_entry_free(entry_of(bitmap));
            blk_bitmap_set_stored(bitmap, entry);
        }
    }
    g_ptr_array_set_size(q->removed_bitmaps, 0);
    drop_extents(q, store->stale);
}

static void give_up(Store *store)
{
    Qcow2 *q = store->node->opaque;

    for (guint i = 0; i < store->entries->len; i++) {
        if (g_ptr_array_index(store->entries, i) != entry_of(g_ptr_array_index(store->bitmaps, i))) {
            qcow2_bitmap_entry_free(g_ptr_array_index(store->entries, i));
        }
    }
    drop_extents(q, store->taken);
}

static bool needs_store(BlkNode *node)
{
    const Qcow2 *q = node->opaque;
    BlkDirtyBitmap *bitmap;

    for (unsigned i = 0; (bitmap = blk_bitmap_nth(node, i)); i++) {
        if (blk_bitmap_persistent(bitmap) && !is_up_to_date(bitmap)) {
            return true;
        }
    }
    return q->removed_bitmaps->len > 0;
}

int qcow2_co_bitmaps_store(BlkNode *node, GError **error)
{
    Qcow2 *q = node->opaque;
    Store store = { .node = node };
    int ret;

    if (!q->removed_bitmaps || !needs_store(node)) {
        return 0;
    }
    ret = q->tables ? qcow2_co_recover(node) : -EROFS;
    if (ret < 0) {
        return blk_error_errno(error, ret, "the image cannot be changed");
    }
    store.entries = g_ptr_array_new();
    store.bitmaps = g_ptr_array_new();
    store.taken = g_array_new(FALSE, FALSE, sizeof(Extent));
    store.stale = g_array_new(FALSE, FALSE, sizeof(Extent));
    ret = co_store_bitmaps(&store, error);
    if (ret == 0) {
        ret = co_switch_directory(&store, error);
    }
    if (ret == 0) {
        adopt(&store);
    } else {
        give_up(&store);
    }
    if (ret == 0 && store.unreadable) {
        ret = -store.unreadable->code;
        g_propagate_error(error, g_steal_pointer(&store.unreadable));
    }
    g_clear_error(&store.unreadable);
    g_ptr_array_unref(store.entries);
    g_ptr_array_unref(store.bitmaps);
    g_array_unref(store.taken);
    g_array_unref(store.stale);
    return ret;
}
