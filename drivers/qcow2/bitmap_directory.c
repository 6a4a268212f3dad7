/* SPDX-License-Identifier: MIT */
/*
 * bitmap_directory.c - the list of an image's dirty bitmaps, and what their tables may look like (format specification,
 * "Bitmaps").
 *
 *   header extension: count 4, reserved 4, directory bytes 8, directory offset 8
 *   entry: table offset 8, table entries 4, flags 4, type 1, granularity bits 1, name length 2, extra length 4
 *          | extra data | name | padded to 8 bytes
 *   table: 8 bytes for each cluster of bits: offset | 1: all bits are set | 0: none is
 *
 * Entries have no index: each is found at the end of the one before. They begin at multiples of 8, so that the flags of
 * one can be changed without the risk that a crash tears them.
 */
#include "drivers/qcow2/format.h"

enum { TYPE_DIRTY_TRACKING = 1, MIN_GRANULARITY_BITS = 9, MAX_GRANULARITY_BITS = 31, FLAGS_AT = 12 };

void qcow2_bitmap_entry_free(Qcow2BitmapEntry *entry)
{
    if (entry) {
        g_free(entry->name);
        g_free(entry->extra);
        g_free(entry->table);
        g_free(entry);
    }
}

bool qcow2_header_has_bitmaps(const Qcow2Header *header)
{
    return header->version >= 3 && (header->autoclear & QCOW2_AUTOCLEAR_BITMAPS) && header->bitmaps.present;
}

void qcow2_header_set_bitmaps(Qcow2Header *header, uint32_t count, uint64_t offset, uint64_t bytes)
{
    header->autoclear &= ~QCOW2_AUTOCLEAR_BITMAPS;
    header->bitmaps = (Qcow2BitmapsExtension) { .present = false };
    if (count > 0) {
        header->autoclear |= QCOW2_AUTOCLEAR_BITMAPS;
        header->bitmaps = (Qcow2BitmapsExtension) {
            .present = true, .bytes = QCOW2_BITMAPS_EXTENSION_BYTES, .count = count, .directory_bytes = bytes,
            .directory_offset = offset,
        };
    }
}

/* ---- reading ---- */

static int check_extension(const Qcow2Header *h, uint64_t file_bytes, GError **error)
{
    const Qcow2BitmapsExtension *e = &h->bitmaps;

    if (e->bytes != QCOW2_BITMAPS_EXTENSION_BYTES || e->reserved != 0) {
        return blk_error(error, -EINVAL, "The header extension of the bitmaps is invalid: %" PRIu32 " bytes, reserved "
                         "field %#" PRIx32, e->bytes, e->reserved);
    }
    if (e->count == 0 || e->count > QCOW2_MAX_BITMAPS) {
        return blk_error(error, -EINVAL, "Invalid number of bitmaps: %" PRIu32 " are not between 1 and %u", e->count,
                         QCOW2_MAX_BITMAPS);
    }
    if (e->directory_bytes > QCOW2_MAX_BITMAP_DIRECTORY_BYTES) {
        return blk_error(error, -EFBIG, "Bitmap directory too large: %" PRIu64 " bytes, the limit is %u",
                         e->directory_bytes, QCOW2_MAX_BITMAP_DIRECTORY_BYTES);
    }
    if (e->directory_offset == 0 || e->directory_offset % qcow2_cluster_size(h) != 0) {
        return blk_error(error, -EINVAL, "Bitmap directory offset invalid: %#" PRIx64, e->directory_offset);
    }
    if (e->directory_offset > file_bytes || e->directory_bytes > file_bytes - e->directory_offset) {
        return blk_error(error, -EINVAL, "Bitmap directory at %#" PRIx64 " reaches past the end of the file",
                         e->directory_offset);
    }
    return 0;
}

/* What is wrong with an entry, by its fields; NULL: nothing. */
static const char *entry_fault(const Qcow2Header *h, const Qcow2BitmapEntry *entry, uint8_t type)
{
    uint64_t table_bytes = (uint64_t)entry->table_size * 8;

    if (entry->flags & QCOW2_BITMAP_RESERVED) {
        return "unknown flags";
    }
    if (type != TYPE_DIRTY_TRACKING) {
        return "unknown type";
    }
    if (entry->granularity_bits < MIN_GRANULARITY_BITS || entry->granularity_bits > MAX_GRANULARITY_BITS) {
        return "invalid granularity";
    }
    if (entry->table_size == 0 || (uint64_t)entry->table_size << h->cluster_bits > QCOW2_MAX_BITMAP_BYTES) {
        return "invalid size of its table";
    }
    if (entry->table_offset == 0 || entry->table_offset % qcow2_cluster_size(h) != 0 ||
        entry->table_offset > (uint64_t)INT64_MAX - table_bytes) {
        return "invalid offset of its table";
    }
    return NULL;
}

/* @p: the entry, of which @left bytes are there; *bytes: its length, padded. */
static Qcow2BitmapEntry *parse_entry(const Qcow2Header *h, const uint8_t *p, uint64_t left, uint32_t index,
                                     uint64_t *bytes, GError **error)
{
    g_autoptr(Qcow2BitmapEntry) entry = g_new0(Qcow2BitmapEntry, 1);
    uint32_t name_bytes = left >= QCOW2_BITMAP_ENTRY_BYTES ? blk_get_be16(p + 18) : 0;
    uint32_t extra_bytes = left >= QCOW2_BITMAP_ENTRY_BYTES ? blk_get_be32(p + 20) : 0;
    const char *fault;

    *bytes = ((uint64_t)QCOW2_BITMAP_ENTRY_BYTES + name_bytes + extra_bytes + 7) & ~UINT64_C(7);
    if (*bytes > left) {
        blk_error(error, -EINVAL, "Bitmap directory ends in entry %" PRIu32, index);
        return NULL;
    }
    entry->table_offset = blk_get_be64(p);
    entry->table_size = blk_get_be32(p + 8);
    entry->flags = blk_get_be32(p + FLAGS_AT);
    entry->granularity_bits = p[17];
    entry->extra_bytes = extra_bytes;
    entry->extra = g_memdup2(p + QCOW2_BITMAP_ENTRY_BYTES, extra_bytes);
    entry->name = g_strndup((const char *)p + QCOW2_BITMAP_ENTRY_BYTES + extra_bytes, name_bytes);
    if (name_bytes == 0 || name_bytes > BLK_BITMAP_MAX_NAME || strlen(entry->name) != name_bytes) {
        blk_error(error, -EINVAL, "Bitmap %" PRIu32 " has no valid name", index);
        return NULL;
    }
    fault = entry_fault(h, entry, p[16]);
    if (fault) {
        g_autofree char *name = g_strescape(entry->name, NULL);

        blk_error(error, -EINVAL, "Bitmap '%s' is damaged: %s", name, fault);
        return NULL;
    }
    return g_steal_pointer(&entry);
}

/* Can @entry stand beside those before it? @names: set of theirs; @table_bytes: (inout): of their tables. */
static int check_beside(const Qcow2BitmapEntry *entry, GHashTable *names, uint64_t *table_bytes, GError **error)
{
    uint64_t bytes = *table_bytes + (uint64_t)entry->table_size * 8;

    if (g_hash_table_contains(names, entry->name)) {
        g_autofree char *name = g_strescape(entry->name, NULL);

        return blk_error(error, -EINVAL, "Bitmap '%s' is there twice", name);
    }
    if (bytes > QCOW2_MAX_BITMAP_TABLES_BYTES) {
        return blk_error(error, -EFBIG, "The tables of the bitmaps are too large together: the limit is %u bytes",
                         QCOW2_MAX_BITMAP_TABLES_BYTES);
    }
    g_hash_table_add(names, entry->name);
    *table_bytes = bytes;
    return 0;
}

/* @directory: all of it. Goes on behind entries that are damaged; the error is that of the first. */
static int parse_directory(const Qcow2Header *h, const uint8_t *directory, GPtrArray *entries, GError **error)
{
    const Qcow2BitmapsExtension *e = &h->bitmaps;
    g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);
    uint64_t pos = 0, bytes, table_bytes = 0;
    int result = 0;

    for (uint32_t i = 0; i < e->count; i++, pos += bytes) {
        GError **first = result == 0 ? error : NULL;
        g_autoptr(Qcow2BitmapEntry) entry = parse_entry(h, directory + pos, e->directory_bytes - pos, i, &bytes, first);
        int ret = entry ? check_beside(entry, names, &table_bytes, first) : -EINVAL;

        if (ret == 0) {
            entry->flags_offset = e->directory_offset + pos + FLAGS_AT;
            g_ptr_array_add(entries, g_steal_pointer(&entry));
        }
        result = result < 0 ? result : ret;
        if (bytes > e->directory_bytes - pos) {
            break;
        }
    }
    return result;
}

int qcow2_bitmaps_co_read_directory(BlkNode *file_node, const Qcow2Header *header, GPtrArray **entries, GError **error)
{
    const Qcow2BitmapsExtension *e = &header->bitmaps;
    g_autofree uint8_t *directory = NULL;
    int ret;

    *entries = g_ptr_array_new_with_free_func((GDestroyNotify)qcow2_bitmap_entry_free);
    if (!qcow2_header_has_bitmaps(header)) {
        return 0;
    }
    ret = check_extension(header, blk_node_length(file_node), error);
    if (ret < 0) {
        return ret;
    }
    directory = g_try_malloc(e->directory_bytes + 1);
    if (!directory) {
        return blk_error(error, -ENOMEM, "No memory for the bitmap directory");
    }
    ret = blk_co_pread(file_node, e->directory_offset, e->directory_bytes, directory, 0);
    if (ret < 0) {
        return blk_error_errno(error, ret, "Could not read the bitmap directory");
    }
    return parse_directory(header, directory, *entries, error);
}

/* ---- writing ---- */

static uint64_t entry_bytes(const Qcow2BitmapEntry *entry)
{
    return (QCOW2_BITMAP_ENTRY_BYTES + entry->extra_bytes + strlen(entry->name) + 7) & ~UINT64_C(7);
}

uint64_t qcow2_bitmaps_directory_bytes(const GPtrArray *entries)
{
    uint64_t bytes = 0;

    for (guint i = 0; i < entries->len; i++) {
        bytes += entry_bytes(g_ptr_array_index(entries, i));
    }
    return bytes;
}

void qcow2_bitmaps_put_directory(const GPtrArray *entries, uint8_t *p)
{
    for (guint i = 0; i < entries->len; i++) {
        const Qcow2BitmapEntry *entry = g_ptr_array_index(entries, i);

        blk_put_be64(p, entry->table_offset);
        blk_put_be32(p + 8, entry->table_size);
        blk_put_be32(p + FLAGS_AT, entry->flags);
        p[16] = TYPE_DIRTY_TRACKING;
        p[17] = (uint8_t)entry->granularity_bits;
        blk_put_be16(p + 18, (uint16_t)strlen(entry->name));
        blk_put_be32(p + 20, entry->extra_bytes);
        if (entry->extra_bytes > 0) {
            memcpy(p + QCOW2_BITMAP_ENTRY_BYTES, entry->extra, entry->extra_bytes);
        }
        memcpy(p + QCOW2_BITMAP_ENTRY_BYTES + entry->extra_bytes, entry->name, strlen(entry->name));
        p += entry_bytes(entry);
    }
}

void qcow2_bitmaps_place_directory(GPtrArray *entries, uint64_t offset)
{
    for (guint i = 0; i < entries->len; i++) {
        Qcow2BitmapEntry *entry = g_ptr_array_index(entries, i);

        entry->flags_offset = offset + FLAGS_AT;
        offset += entry_bytes(entry);
    }
}

/* ---- tables ---- */

static uint64_t divide_up(uint64_t n, unsigned bits)
{
    return (n >> bits) + ((n & ((UINT64_C(1) << bits) - 1)) != 0);
}

uint64_t qcow2_bitmap_table_entries(unsigned cluster_bits, unsigned granularity_bits, uint64_t size)
{
    return divide_up(divide_up(size, granularity_bits), cluster_bits + 3);
}

bool qcow2_bitmap_table_entry_valid(const Qcow2Header *header, uint64_t entry, uint64_t file_bytes)
{
    uint64_t offset = entry & QCOW2_OFFSET_MASK;

    if (entry & QCOW2_BITMAP_TABLE_RESERVED) {
        return false;
    }
    return offset == 0 || (!(entry & QCOW2_BITMAP_TABLE_ONES) && offset % qcow2_cluster_size(header) == 0 &&
                           offset < file_bytes);
}

int qcow2_bitmap_co_read_table(BlkNode *file_node, const Qcow2Header *header, Qcow2BitmapEntry *entry, GError **error)
{
    uint64_t bytes = (uint64_t)entry->table_size * 8, file_bytes = blk_node_length(file_node);
    g_autofree uint64_t *table = NULL;
    int ret;

    if (entry->table) {
        return 0;
    }
    if (entry->table_offset > file_bytes || bytes > file_bytes - entry->table_offset) {
        return blk_error(error, -EINVAL, "its table at %#" PRIx64 " reaches past the end of the file",
                         entry->table_offset);
    }
    table = g_try_malloc(bytes);
    if (!table) {
        return blk_error(error, -ENOMEM, "no memory for its table");
    }
    ret = blk_co_pread(file_node, entry->table_offset, bytes, table, 0);
    if (ret < 0) {
        return blk_error_errno(error, ret, "could not read its table");
    }
    for (uint32_t i = 0; i < entry->table_size; i++) {
        table[i] = GUINT64_FROM_BE(table[i]);
        if (!qcow2_bitmap_table_entry_valid(header, table[i], file_bytes)) {
            return blk_error(error, -EINVAL, "entry %" PRIu32 " of its table is invalid: %#" PRIx64, i, table[i]);
        }
    }
    if (!entry->table) {        /* nobody else was faster */
        entry->table = g_steal_pointer(&table);
    }
    return 0;
}
