/* SPDX-License-Identifier: MIT */
/*
 * create.c - makes an empty qcow2 image.
 *
 *   header | refcount table | refcount blocks | L1 table | with preallocation: L2 tables | data clusters
 *
 * All tables have their final size from the start: every cluster has refcount 1, and all pointers of a table are an
 * arithmetic sequence. Without preallocation the file ends with the last L1 entry.
 *
 * Limitations: no encryption. A crash in the middle leaves no valid image,
 * since the header is written last.
 */
#include "drivers/qcow2/bitmaps.h"

enum { CHUNK_BYTES = 1 << 20 };

static const char *const compat_values[] = { "0.10", "v2", "1.1", "v3", NULL };
static const char *const compression_values[] = { "zlib", "zstd", NULL };
static const char *const preallocation_values[] = { "off", "metadata", "falloc", "full", NULL };

const BlkOption qcow2_create_options[] = {
    { "encryption", BLK_OPTION_BOOL, "encryption (not supported)", "off" },
    { "encrypt.format", BLK_OPTION_STRING, "encryption (not supported)" },
    { "cluster_size", BLK_OPTION_SIZE, "unit of allocation, 512 to 2M", "65536" },
    { "extended_l2", BLK_OPTION_BOOL, "L2 entries with 32 subclusters to a cluster, of 16k and more", "off" },
    { "preallocation", BLK_OPTION_ENUM, "what to allocate at once", "off", preallocation_values },
    { "compression_type", BLK_OPTION_ENUM, "how compressed clusters are compressed", "zlib", compression_values },
    { "size", BLK_OPTION_SIZE, "size of the virtual disk" },
    { "compat", BLK_OPTION_ENUM, "version of the format: 0.10 (v2) or 1.1 (v3)", "1.1", compat_values },
    { "backing_file", BLK_OPTION_STRING, "image to read what is not in this one" },
    { "backing_fmt", BLK_OPTION_STRING, "format of the backing file" },
    { "data_file", BLK_OPTION_STRING, "file for the data; the image holds only tables then" },
    { "data_file_raw", BLK_OPTION_BOOL, "keep the data file a raw image of the disk", "off" },
    { "lazy_refcounts", BLK_OPTION_BOOL, "write refcounts late; after a crash they are rebuilt", "off" },
    { "refcount_bits", BLK_OPTION_UINT, "width of a refcount, 1 to 64 bits", "16" },
    { NULL },
};

/* Where everything goes; in clusters unless named otherwise. */
typedef struct Layout {
    uint64_t table, blocks, l1, l2, data;       /* lengths, in the order of the file */
    uint64_t table_at, blocks_at, l1_at, l2_at, data_at, end;
    uint64_t guest_clusters;
    uint64_t file_bytes;                        /* without the data clusters */
} Layout;

static uint64_t div_up(uint64_t value, uint64_t unit)
{
    return value / unit + (value % unit != 0);
}

static int refuse_unsupported(const BlkOptions *options, GError **error)
{
    if (blk_options_bool(options, "encryption") || blk_options_string(options, "encrypt.format") != NULL) {
        return blk_error(error, -ENOTSUP, "Encryption is not supported");
    }
    return 0;
}

static int parse_version(const BlkOptions *options, Qcow2Header *h, GError **error)
{
    const char *compression = blk_options_string(options, "compression_type");
    uint64_t refcount_bits = blk_options_uint(options, "refcount_bits");

    h->version = blk_options_enum(options, "compat") < 2 ? 2 : 3;
    if (refcount_bits == 0 || refcount_bits > 64 || (refcount_bits & (refcount_bits - 1)) != 0) {
        return blk_error(error, -EINVAL, "Refcount width must be a power of two and may not exceed 64 bits");
    }
    h->refcount_order = (uint32_t)__builtin_ctzll(refcount_bits);
    if (blk_options_bool(options, "lazy_refcounts")) {
        h->compatible |= QCOW2_COMPAT_LAZY_REFCOUNTS;
    }
    if (strcmp(compression, "zstd") == 0) {
        h->compression_type = QCOW2_COMPRESSION_ZSTD;
        h->incompatible |= QCOW2_INCOMPAT_COMPRESSION;
    }
    if (h->version >= 3) {
        return 0;
    }
    if (h->compatible & QCOW2_COMPAT_LAZY_REFCOUNTS) {
        return blk_error(error, -EINVAL, "Lazy refcounts only supported with compatibility level 1.1 and above (use "
                         "compat=1.1)");
    }
    if (h->refcount_order != 4) {
        return blk_error(error, -EINVAL, "Different refcount widths than 16 bits require compatibility level 1.1 or "
                         "above (use compat=1.1)");
    }
    if (h->compression_type != QCOW2_COMPRESSION_ZLIB) {
        return blk_error(error, -EINVAL, "Non-zlib compression type is only supported with compatibility level 1.1 and "
                         "above (use compat=1.1)");
    }
    if (h->incompatible & QCOW2_INCOMPAT_EXTENDED_L2) {
        return blk_error(error, -EINVAL, "Extended L2 entries are only supported with compatibility level 1.1 and above "
                         "(use compat=1.1)");
    }
    return 0;
}

static int parse_backing(const BlkOptions *options, Qcow2Header *h, GError **error)
{
    const char *file = blk_options_string(options, "backing_file");
    const char *format = blk_options_string(options, "backing_fmt");
    bool has_file = file != NULL;

    if (has_file && *file == 0) {
        return blk_error(error, -EINVAL, "Expected backing file name, got empty string");
    }
    if (format != NULL && *format != 0) {
        if (!has_file) {
            return blk_error(error, -EINVAL, "Backing format cannot be used without backing file");
        }
        if (strlen(format) > QCOW2_MAX_FORMAT_NAME) {
            return blk_error(error, -EINVAL, "Backing format name is too long: the limit is %d bytes",
                             QCOW2_MAX_FORMAT_NAME);
        }
        h->backing_format = g_strdup(format);
    }
    if (has_file) {
        /* Only subclusters can have space without hiding what the backing file has. */
        if (blk_options_enum(options, "preallocation") != BLK_PREALLOC_OFF &&
            !(h->incompatible & QCOW2_INCOMPAT_EXTENDED_L2)) {
            return blk_error(error, -EINVAL, "Backing file and preallocation can only be used at the same time with "
                             "extended_l2=on");
        }
        h->backing_file = g_strdup(file);
    }
    return 0;
}

static int parse_data_file(const BlkOptions *options, Qcow2Header *h, GError **error)
{
    const char *name = blk_options_string(options, "data_file");
    bool raw = blk_options_bool(options, "data_file_raw");

    if (name == NULL) {
        return raw ? blk_error(error, -EINVAL, "data_file_raw requires data_file") : 0;
    }
    if (*name == 0) {
        return blk_error(error, -EINVAL, "Expected data file name, got empty string");
    }
    if (h->version < 3) {
        return blk_error(error, -EINVAL, "External data files are only supported with compatibility level 1.1 and above "
                         "(use compat=1.1)");
    }
    if (raw && h->backing_file != NULL) {
        return blk_error(error, -EINVAL, "Backing file and data_file_raw cannot be used at the same time");
    }
    h->incompatible |= QCOW2_INCOMPAT_DATA_FILE;
    h->autoclear |= raw ? QCOW2_AUTOCLEAR_RAW_DATA : 0;
    h->data_file = g_strdup(name);
    return 0;
}

static int parse_sizes(const BlkOptions *options, Qcow2Header *h, GError **error)
{
    uint64_t cluster_size = blk_options_uint(options, "cluster_size");
    uint64_t size = blk_options_uint(options, "size");
    uint64_t l1_size;

    if (cluster_size < (1u << QCOW2_MIN_CLUSTER_BITS) || cluster_size > (1u << QCOW2_MAX_CLUSTER_BITS) ||
        (cluster_size & (cluster_size - 1)) != 0) {
        return blk_error(error, -EINVAL, "Cluster size must be a power of two between 512 and 2048k");
    }
    h->cluster_bits = (uint32_t)__builtin_ctzll(cluster_size);
    if (blk_options_bool(options, "extended_l2")) {
        if (h->cluster_bits < QCOW2_MIN_EXTENDED_BITS) {
            return blk_error(error, -EINVAL, "Extended L2 entries are only supported with cluster sizes of at least %u "
                             "bytes", 1u << QCOW2_MIN_EXTENDED_BITS);
        }
        h->incompatible |= QCOW2_INCOMPAT_EXTENDED_L2;
    }
    if (!blk_options_has(options, "size")) {
        return blk_error(error, -EINVAL, "Image creation needs a size parameter");
    }
    l1_size = size > BLK_MAX_LENGTH ? UINT64_MAX : qcow2_l1_entries_for(h, size);
    if (l1_size > QCOW2_MAX_L1_BYTES / 8) {
        return blk_error(error, -EFBIG, "The image size is too large for file format 'qcow2'%s",
                         cluster_size < (1u << QCOW2_MAX_CLUSTER_BITS) ? " (try using a larger cluster size)" : "");
    }
    h->size = (size + 511) & ~UINT64_C(511);
    h->l1_size = (uint32_t)l1_size;
    return 0;
}

/* The refcount structures describe themselves too: grow them until they cover everything. */
static int plan_layout(const Qcow2Header *h, BlkPrealloc prealloc, Layout *layout, GError **error)
{
    uint64_t cluster_size = qcow2_cluster_size(h);
    uint64_t per_block = cluster_size * 8 >> h->refcount_order;
    uint64_t needed_blocks;

    memset(layout, 0, sizeof(*layout));
    layout->l1 = div_up((uint64_t)h->l1_size * 8, cluster_size);
    /* A raw data file is the disk's content at once, so the tables say so from the start. */
    if (prealloc != BLK_PREALLOC_OFF || (h->autoclear & QCOW2_AUTOCLEAR_RAW_DATA)) {
        layout->guest_clusters = div_up(h->size, cluster_size);
        layout->l2 = h->l1_size;
        layout->data = h->incompatible & QCOW2_INCOMPAT_DATA_FILE ? 0 : layout->guest_clusters;
    }
    needed_blocks = 1;
    do {
        layout->blocks = needed_blocks;
        layout->table = div_up(layout->blocks * 8, cluster_size);
        if (layout->table * cluster_size > QCOW2_MAX_REFCOUNT_TABLE_BYTES) {
            return blk_error(error, -EFBIG, "The image is too large to be preallocated with this cluster size and "
                             "refcount width");
        }
        layout->end = 1 + layout->table + layout->blocks + layout->l1 + layout->l2 + layout->data;
        needed_blocks = div_up(layout->end, per_block);
    } while (needed_blocks > layout->blocks);
    layout->table_at = 1;
    layout->blocks_at = layout->table_at + layout->table;
    layout->l1_at = layout->blocks_at + layout->blocks;
    layout->l2_at = layout->l1_at + layout->l1;
    layout->data_at = layout->l2_at + layout->l2;
    if (layout->end > QCOW2_MAX_HOST_OFFSET >> h->cluster_bits) {
        return blk_error(error, -EFBIG, "The image is too large to be preallocated");
    }
    if (layout->l2 > 0) {
        layout->file_bytes = layout->data_at * cluster_size;
    } else {
        layout->file_bytes = layout->l1_at * cluster_size + (uint64_t)h->l1_size * 8;
    }
    return 0;
}

/* Gives @file the length and makes all of it read as zeroes. */
static int make_room(BlkNode *file, const Layout *layout, uint64_t data_bytes, BlkPrealloc prealloc, GError **error)
{
    uint64_t end = layout->file_bytes + data_bytes;
    g_autoptr(GError) ignored = NULL;
    int ret;

    if (blk_co_truncate(file, 0, BLK_PREALLOC_OFF, &ignored) == 0 && blk_node_length(file) == 0) {
        ret = blk_co_truncate(file, layout->file_bytes, BLK_PREALLOC_OFF, error);
        if (ret == 0 && data_bytes > 0) {
            prealloc = prealloc == BLK_PREALLOC_METADATA ? BLK_PREALLOC_OFF : prealloc;
            ret = blk_co_truncate(file, end, prealloc, error);
        }
        return ret;
    }
    /* A device keeps its length, and what was there before. */
    if (blk_node_length(file) < end) {
        ret = blk_co_truncate(file, end, BLK_PREALLOC_OFF, error);
        if (ret < 0) {
            return ret;
        }
    }
    ret = blk_co_pwrite_zeroes(file, 0, end, prealloc == BLK_PREALLOC_OFF ? BLK_REQ_UNMAP : 0);
    return ret < 0 ? blk_error_errno(error, ret, "Could not write zeroes") : 0;
}

/* A table at @offset: @count entries of @entry_bytes each: flags | first, flags | first + step, ..., padded with zeroes. */
static int write_sequence(BlkNode *file, uint64_t offset, uint64_t count, unsigned entry_bytes, uint64_t first,
                          uint64_t step, uint64_t flags, uint8_t *chunk)
{
    memset(chunk, 0, CHUNK_BYTES);
    while (count > 0) {
        uint64_t n = MIN(count, CHUNK_BYTES / entry_bytes);
        int ret;

        for (uint64_t i = 0; i < n; i++) {
            blk_put_be64(chunk + i * entry_bytes, flags | (first + i * step));
        }
        ret = blk_co_pwrite(file, offset, n * entry_bytes, chunk, 0);
        if (ret < 0) {
            return ret;
        }
        offset += n * entry_bytes;
        first += n * step;
        count -= n;
    }
    return 0;
}

/* @count refcounts of 1. */
static int write_refcounts(BlkNode *file, uint64_t offset, uint64_t count, unsigned order, uint8_t *chunk)
{
    const uint64_t per_chunk = ((uint64_t)CHUNK_BYTES * 8) >> order;

    memset(chunk, 0, CHUNK_BYTES);
    for (uint64_t i = 0; i < MIN(count, per_chunk); i++) {
        qcow2_refcount_set(chunk, order, i, 1);
    }
    while (count > 0) {
        uint64_t n = MIN(count, per_chunk);
        uint64_t bytes = div_up(n << order, 8);
        int ret;

        if (n < per_chunk) {        /* the last piece: nothing behind the end is counted */
            for (uint64_t i = n; i < MIN(per_chunk, n + 8); i++) {
                qcow2_refcount_set(chunk, order, i, 0);
            }
        }
        ret = blk_co_pwrite(file, offset, bytes, chunk, 0);
        if (ret < 0) {
            return ret;
        }
        offset += bytes;
        count -= n;
    }
    return 0;
}

static int write_tables(BlkNode *file, const Qcow2Header *h, const Layout *layout)
{
    const uint64_t cluster_size = qcow2_cluster_size(h);
    g_autofree uint8_t *chunk = g_try_malloc(CHUNK_BYTES);
    int ret;

    if (chunk == NULL) {
        return -ENOMEM;
    }
    ret = write_sequence(file, layout->table_at * cluster_size, layout->blocks, 8, layout->blocks_at * cluster_size,
                         cluster_size, 0, chunk);
    if (ret == 0) {
        ret = write_refcounts(file, layout->blocks_at * cluster_size, layout->end, h->refcount_order, chunk);
    }
    if (ret == 0) {
        ret = write_sequence(file, layout->l1_at * cluster_size, layout->l2, 8, layout->l2_at * cluster_size,
                             cluster_size, QCOW2_COPIED, chunk);
    }
    if (ret == 0) {
        /* The bitmap of an extended entry stays empty: space is kept, and there is nothing to be read in it. */
        ret = write_sequence(file, layout->l2_at * cluster_size, layout->guest_clusters, qcow2_l2_entry_bytes(h),
                             layout->data > 0 ? layout->data_at * cluster_size : 0, cluster_size, QCOW2_COPIED, chunk);
    }
    return ret;
}

/* Makes the external data file, of the disk's length, in place of what has its name. */
static int co_create_data_file(BlkContext *ctx, BlkNode *file, const Qcow2Header *h, const char *prealloc, GError **error)
{
    g_autofree char *name = blk_node_resolve_name(file, h->data_file, error);
    g_autoptr(JsonObject) options = json_object_new();

    if (name == NULL) {
        return -EINVAL;
    }
    if (blk_node_is_in_file(file, name)) {
        return blk_error(error, -EINVAL, "The data file '%s' is the image itself", name);
    }
    json_object_set_int_member(options, "size", (gint64)h->size);
    json_object_set_string_member(options, "preallocation", strcmp(prealloc, "metadata") == 0 ? "off" : prealloc);
    return blk_co_create(ctx, name, "raw", options, error);
}

static int create_image(BlkNode *file, Qcow2Header *h, BlkPrealloc prealloc, GError **error)
{
    const uint64_t cluster_size = qcow2_cluster_size(h);
    Layout layout;
    int ret;

    ret = plan_layout(h, prealloc, &layout, error);
    if (ret < 0) {
        return ret;
    }
    h->refcount_table_offset = layout.table_at * cluster_size;
    h->refcount_table_clusters = (uint32_t)layout.table;
    h->l1_table_offset = h->l1_size > 0 ? layout.l1_at * cluster_size : 0;
    ret = make_room(file, &layout, layout.data * cluster_size, prealloc, error);
    if (ret < 0) {
        return ret;
    }
    ret = write_tables(file, h, &layout);
    if (ret < 0) {
        return blk_error_errno(error, ret, "Could not write the tables of the image");
    }
    ret = qcow2_co_update_header(file, h, error);
    if (ret < 0) {
        return ret;
    }
    ret = blk_co_flush(file);
    return ret < 0 ? blk_error_errno(error, ret, "Could not flush the new image") : 0;
}

/* What the options ask for. The caller clears @header, also after an error. */
int qcow2_parse_create_options(const BlkOptions *options, Qcow2Header *header, GError **error)
{
    int ret = refuse_unsupported(options, error);

    if (ret == 0) {
        ret = parse_sizes(options, header, error);
    }
    if (ret == 0) {
        ret = parse_version(options, header, error);
    }
    if (ret == 0) {
        ret = parse_backing(options, header, error);
    }
    return ret == 0 ? parse_data_file(options, header, error) : ret;
}

int qcow2_check_create(const BlkOptions *options, GError **error)
{
    Qcow2Header header = { 0 };
    int ret = qcow2_parse_create_options(options, &header, error);

    qcow2_header_clear(&header);
    return ret;
}

/* Adds the clusters that must be written to hold what @source has: those with data in them. */
static int co_count_data(BlkNode *source, uint64_t cluster_size, uint64_t *bytes, GError **error)
{
    uint64_t length = source->length, counted = 0;
    BlkStatus status;

    *bytes = 0;
    for (uint64_t pos = 0; pos < length; pos += status.bytes) {
        int ret = blk_co_block_status_above(source, NULL, pos, length - pos, &status);

        if (ret < 0) {
            return blk_error_errno(error, ret, "Unable to get block status at offset %" PRIu64, pos);
        }
        if ((status.flags & BLK_STATUS_DATA) && !(status.flags & BLK_STATUS_ZERO)) {
            uint64_t first = MAX(pos / cluster_size, counted);

            counted = div_up(pos + status.bytes, cluster_size);
            *bytes += (counted - MIN(first, counted)) * cluster_size;
        }
    }
    return 0;
}

static bool may_have_bitmaps(const BlkNode *source)
{
    const Qcow2 *q = source->opaque;

    return source->driver->co_measure == qcow2_co_measure && q->header.version >= 3;
}

int qcow2_co_measure(const BlkOptions *options, BlkNode *source, BlkMeasure *measure, GError **error)
{
    Qcow2Header header = { 0 };
    Layout layout;
    uint64_t data = 0, all;
    int ret = qcow2_parse_create_options(options, &header, error);

    if (ret == 0) {
        header.incompatible &= ~QCOW2_INCOMPAT_DATA_FILE;       /* the two files together, as the peer counts */
        ret = plan_layout(&header, BLK_PREALLOC_METADATA, &layout, error);
    }
    if (ret == 0) {
        all = layout.data << header.cluster_bits;
        if (blk_options_enum(options, "preallocation") >= BLK_PREALLOC_FALLOC || (source && header.backing_file)) {
            data = all;         /* of what a backing file has nobody knows yet */
        } else if (source) {
            ret = co_count_data(source, qcow2_cluster_size(&header), &data, error);
        }
        measure->fully_allocated = layout.end << header.cluster_bits;
        measure->required = measure->fully_allocated - all + data;
        measure->has_bitmaps = header.version >= 3 && source && may_have_bitmaps(blk_node_skip_filters(source));
        if (measure->has_bitmaps) {
            measure->bitmaps = qcow2_bitmaps_measure(blk_node_skip_filters(source), qcow2_cluster_size(&header));
        }
    }
    qcow2_header_clear(&header);
    return ret;
}

int qcow2_co_create(BlkContext *ctx, BlkNode *file, const BlkOptions *options, GError **error)
{
    Qcow2Header header = { 0 };
    int ret = qcow2_parse_create_options(options, &header, error);

    if (ret == 0) {
        ret = create_image(file, &header, (BlkPrealloc)blk_options_enum(options, "preallocation"), error);
    }
    if (ret == 0 && header.data_file != NULL) {
        /* Last: no failure of the image leaves it behind. */
        ret = co_create_data_file(ctx, file, &header, blk_options_string(options, "preallocation"), error);
    }
    qcow2_header_clear(&header);
    return ret;
}
