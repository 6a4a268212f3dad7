/* SPDX-License-Identifier: MIT */
/*
 * header.c - the first cluster of a qcow2 image: reading, judging and writing it.
 *
 *   0    magic, version, backing name offset and length, cluster_bits, size, crypt_method,
 *        l1_size, l1_table_offset, refcount table offset and clusters, snapshots        (72 bytes: all of version 2)
 *   72   incompatible, compatible, autoclear features, refcount_order, header_length    (version 3)
 *   104  compression_type, 7 bytes padding; fields of later versions up to header_length
 *        extensions {type, length, data padded to 8}..., end mark {0, 0}
 *        backing file name, not terminated
 *
 * Everything must lie in the first cluster. Nothing from the file is used before it was checked.
 *
 * A header that is changed is the old one or the new one after a crash: the first sector is written last, and where others
 * change too it stands alone for a while, without the names of the features.
 *
 * Limitation: where the first sector cannot stand alone (unknown extensions of some hundred bytes; a backing file name of
 * hundreds of bytes in clusters of 1 or 2 KiB), the header is written at once, and a crash may tear it.
 */
#include "drivers/qcow2/format.h"

/* Own names of the features, for the table in images that we write. */
static const Qcow2Feature known_features[] = {
    { QCOW2_FEATURE_INCOMPATIBLE, 0, "dirty bit" },
    { QCOW2_FEATURE_INCOMPATIBLE, 1, "corrupt bit" },
    { QCOW2_FEATURE_INCOMPATIBLE, 2, "external data file" },
    { QCOW2_FEATURE_INCOMPATIBLE, 3, "compression type" },
    { QCOW2_FEATURE_INCOMPATIBLE, 4, "extended L2 entries" },
    { QCOW2_FEATURE_COMPATIBLE, 0, "lazy refcounts" },
    { QCOW2_FEATURE_AUTOCLEAR, 0, "bitmaps" },
    { QCOW2_FEATURE_AUTOCLEAR, 1, "raw external data" },
};

enum {
    SECTOR_BYTES = 512,                 /* what a crash leaves old or new, and never torn */
    FEATURE_ENTRY_BYTES = 2 + QCOW2_FEATURE_NAME_BYTES,
    FEATURE_TABLE_MIN_CLUSTER = 8192,   /* in smaller clusters the space is kept for the backing file name */
};

int qcow2_probe(const uint8_t *head, size_t bytes, const char *filename)
{
    /* Other versions are claimed too: they must be refused by name rather than be taken for raw. */
    return bytes >= 8 && blk_get_be32(head) == QCOW2_MAGIC ? 100 : 0;
}

static void extension_clear(gpointer data)
{
    g_free(((Qcow2Extension *)data)->data);
}

void qcow2_header_clear(Qcow2Header *header)
{
    g_free(header->unknown_fields);
    g_free(header->backing_file);
    g_free(header->backing_format);
    g_free(header->data_file);
    g_clear_pointer(&header->extensions, g_array_unref);
    g_clear_pointer(&header->features, g_array_unref);
    memset(header, 0, sizeof(*header));
}

/* ---- reading ---- */

static int parse_fixed_fields(const uint8_t *p, size_t bytes, Qcow2Header *h, GError **error)
{
    if (bytes < QCOW2_HEADER_V2_BYTES || blk_get_be32(p) != QCOW2_MAGIC) {
        return blk_error(error, -EINVAL, "Image is not in qcow2 format");
    }
    h->version = blk_get_be32(p + 4);
    h->cluster_bits = blk_get_be32(p + 20);
    h->size = blk_get_be64(p + 24);
    h->crypt_method = blk_get_be32(p + 32);
    h->l1_size = blk_get_be32(p + 36);
    h->l1_table_offset = blk_get_be64(p + 40);
    h->refcount_table_offset = blk_get_be64(p + 48);
    h->refcount_table_clusters = blk_get_be32(p + 56);
    h->nb_snapshots = blk_get_be32(p + 60);
    h->snapshots_offset = blk_get_be64(p + 64);
    h->refcount_order = 4;
    h->header_length = QCOW2_HEADER_V2_BYTES;
    if (h->version != 2 && h->version != 3) {
        return blk_error(error, -ENOTSUP, "Unsupported qcow2 version %" PRIu32, h->version);
    }
    if (h->cluster_bits < QCOW2_MIN_CLUSTER_BITS || h->cluster_bits > QCOW2_MAX_CLUSTER_BITS) {
        return blk_error(error, -EINVAL, "Unsupported cluster size: 2^%" PRIu32, h->cluster_bits);
    }
    if (h->version == 2) {
        return 0;
    }
    if (bytes < QCOW2_HEADER_V3_MIN) {
        return blk_error(error, -EINVAL, "qcow2 header too short: the file ends in it");
    }
    h->incompatible = blk_get_be64(p + 72);
    h->compatible = blk_get_be64(p + 80);
    h->autoclear = blk_get_be64(p + 88);
    h->refcount_order = blk_get_be32(p + 96);
    h->header_length = blk_get_be32(p + 100);
    if (h->header_length < QCOW2_HEADER_V3_MIN || h->header_length % 8 != 0) {
        return blk_error(error, -EINVAL, "qcow2 header length %" PRIu32 " is invalid: it must be at least %d and a "
                         "multiple of 8", h->header_length, QCOW2_HEADER_V3_MIN);
    }
    if (h->header_length > qcow2_cluster_size(h)) {
        return blk_error(error, -EINVAL, "qcow2 header exceeds cluster size: its length is %" PRIu32,
                         h->header_length);
    }
    return 0;
}

static int check_table(const Qcow2Header *h, const char *name, uint64_t offset, uint64_t bytes, uint64_t max_bytes,
                       GError **error)
{
    if (bytes > max_bytes) {
        return blk_error(error, -EFBIG, "%s too large: %" PRIu64 " bytes, the limit is %" PRIu64, name, bytes,
                         max_bytes);
    }
    if (offset == 0 || offset % qcow2_cluster_size(h) != 0 || offset > (uint64_t)INT64_MAX - bytes) {
        return blk_error(error, -EINVAL, "%s offset invalid: %#" PRIx64, name, offset);
    }
    return 0;
}

static int check_numbers(const Qcow2Header *h, GError **error)
{
    if (h->size > BLK_MAX_LENGTH) {
        return blk_error(error, -EFBIG, "Image size is too big: %" PRIu64 " bytes", h->size);
    }
    if (h->refcount_order > QCOW2_MAX_REFCOUNT_ORDER) {
        return blk_error(error, -EINVAL, "Reference count entry width too large; may not exceed 64 bits");
    }
    return 0;
}

/* What a check can repair, or say more about, is not judged before it: see qcow2_co_read_damaged_header(). */
static int check_tables(const Qcow2Header *h, GError **error)
{
    int ret;

    if (h->l1_size != 0 || h->l1_table_offset != 0) {
        ret = check_table(h, "Active L1 table", h->l1_table_offset, (uint64_t)h->l1_size * 8, QCOW2_MAX_L1_BYTES,
                          error);
        if (ret < 0) {
            return ret;
        }
    }
    if (h->l1_size < qcow2_l1_entries_for(h, h->size)) {
        return blk_error(error, -EINVAL, "L1 table is too small: it has %" PRIu32 " entries, a disk of %" PRIu64
                         " bytes needs %" PRIu64, h->l1_size, h->size, qcow2_l1_entries_for(h, h->size));
    }
    if (h->nb_snapshots > 0) {
        if (h->nb_snapshots > QCOW2_MAX_SNAPSHOTS) {
            return blk_error(error, -EFBIG, "Snapshot table too large: %" PRIu32 " snapshots, the limit is %u",
                             h->nb_snapshots, QCOW2_MAX_SNAPSHOTS);
        }
        return check_table(h, "Snapshot table", h->snapshots_offset, (uint64_t)h->nb_snapshots * QCOW2_SNAPSHOT_BYTES,
                           QCOW2_MAX_SNAPSHOT_TABLE_BYTES, error);
    }
    return 0;
}

/* A string of @bytes bytes that is neither empty nor holds a NUL. */
static int parse_string(const uint8_t *p, uint32_t bytes, const char *what, char **out, GError **error)
{
    if (bytes == 0) {
        return blk_error(error, -EINVAL, "%s is empty", what);
    }
    if (memchr(p, 0, bytes) != NULL) {
        return blk_error(error, -EINVAL, "%s contains a NUL byte", what);
    }
    g_free(*out);
    *out = g_strndup((const char *)p, bytes);
    return 0;
}

static void parse_features(const uint8_t *p, uint32_t bytes, Qcow2Header *h)
{
    for (; bytes >= FEATURE_ENTRY_BYTES; p += FEATURE_ENTRY_BYTES, bytes -= FEATURE_ENTRY_BYTES) {
        Qcow2Feature feature = { .kind = p[0], .bit = p[1] };

        memcpy(feature.name, p + 2, QCOW2_FEATURE_NAME_BYTES);
        g_array_append_val(h->features, feature);
    }
}

/* What is wrong with it is found when somebody asks for the bitmaps: the guest's data can be read without them. */
static void parse_bitmaps(const uint8_t *p, uint32_t bytes, Qcow2BitmapsExtension *bitmaps)
{
    *bitmaps = (Qcow2BitmapsExtension) { .present = true, .bytes = bytes };
    if (bytes == QCOW2_BITMAPS_EXTENSION_BYTES) {
        bitmaps->count = blk_get_be32(p);
        bitmaps->reserved = blk_get_be32(p + 4);
        bitmaps->directory_bytes = blk_get_be64(p + 8);
        bitmaps->directory_offset = blk_get_be64(p + 16);
    }
}

static int parse_extension(uint32_t type, const uint8_t *p, uint32_t bytes, Qcow2Header *h, GError **error)
{
    switch (type) {
    case QCOW2_EXT_BACKING_FORMAT:
        if (bytes > QCOW2_MAX_FORMAT_NAME) {
            return blk_error(error, -EINVAL, "Backing format name is too long: %" PRIu32 " bytes, the limit is %d",
                             bytes, QCOW2_MAX_FORMAT_NAME);
        }
        return parse_string(p, bytes, "Backing format name", &h->backing_format, error);
    case QCOW2_EXT_BITMAPS:
        parse_bitmaps(p, bytes, &h->bitmaps);
        return 0;
    case QCOW2_EXT_DATA_FILE:
        return parse_string(p, bytes, "Data file name", &h->data_file, error);
    case QCOW2_EXT_FEATURE_NAMES:
        parse_features(p, bytes, h);
        return 0;
    default: {
        Qcow2Extension extension = { .type = type, .bytes = bytes, .data = g_memdup2(p, bytes) };

        g_array_append_val(h->extensions, extension);
        return 0;
    }
    }
}

static int parse_extensions(const uint8_t *cluster, uint64_t end, Qcow2Header *h, GError **error)
{
    uint64_t pos = h->header_length;

    while (pos + 8 <= end) {
        uint32_t type = blk_get_be32(cluster + pos);
        uint32_t bytes = blk_get_be32(cluster + pos + 4);
        int ret;

        pos += 8;
        if (type == QCOW2_EXT_END) {
            break;
        }
        if (bytes > end - pos) {
            return blk_error(error, -EINVAL, "Header extension too large: type %#" PRIx32 " claims %" PRIu32
                             " bytes where %" PRIu64 " are left", type, bytes, end - pos);
        }
        ret = parse_extension(type, cluster + pos, bytes, h, error);
        if (ret < 0) {
            return ret;
        }
        pos += ((uint64_t)bytes + 7) & ~UINT64_C(7);
    }
    return 0;
}

static int check_features(const Qcow2Header *h, GError **error)
{
    const uint64_t known = QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT | QCOW2_INCOMPAT_DATA_FILE |
                           QCOW2_INCOMPAT_COMPRESSION | QCOW2_INCOMPAT_EXTENDED_L2;
    uint64_t unnamed = h->incompatible & ~known;
    g_autoptr(GString) names = g_string_new(NULL);

    if (unnamed != 0) {
        for (guint i = 0; i < h->features->len; i++) {
            const Qcow2Feature *feature = &g_array_index(h->features, Qcow2Feature, i);

            if (feature->kind == QCOW2_FEATURE_INCOMPATIBLE && feature->bit < 64 && feature->name[0] != 0 &&
                (unnamed >> feature->bit & 1)) {
                g_autofree char *printable = g_strescape(feature->name, NULL);

                g_string_append_printf(names, "%s%s", names->len > 0 ? ", " : "", printable);
                unnamed &= ~(UINT64_C(1) << feature->bit);
            }
        }
        if (unnamed != 0) {
            g_string_append_printf(names, "%sUnknown incompatible feature: %" PRIx64, names->len > 0 ? ", " : "",
                                   unnamed);
        }
        return blk_error(error, -ENOTSUP, "Unsupported qcow2 feature(s): %s", names->str);
    }
    if ((h->incompatible & QCOW2_INCOMPAT_DATA_FILE) && h->nb_snapshots > 0) {
        return blk_error(error, -EINVAL, "The image has an external data file and internal snapshots, which exclude each "
                         "other");
    }
    if ((h->incompatible & QCOW2_INCOMPAT_EXTENDED_L2) && h->cluster_bits < QCOW2_MIN_EXTENDED_BITS) {
        return blk_error(error, -EINVAL, "Cluster size %u is too small for extended L2 entries: they need at least %u",
                         1u << h->cluster_bits, 1u << QCOW2_MIN_EXTENDED_BITS);
    }
    return 0;
}

static int check_compression(const Qcow2Header *h, GError **error)
{
    bool flagged = h->incompatible & QCOW2_INCOMPAT_COMPRESSION;

    if (h->compression_type > QCOW2_COMPRESSION_ZSTD) {
        return blk_error(error, -ENOTSUP, "Unknown compression type: %u", h->compression_type);
    }
    if (flagged != (h->compression_type != QCOW2_COMPRESSION_ZLIB)) {
        return blk_error(error, -EINVAL, "Compression type %s contradicts the feature bit, which is %s",
                         h->compression_type == QCOW2_COMPRESSION_ZLIB ? "zlib" : "zstd", flagged ? "set" : "not set");
    }
    return 0;
}

static int check_encryption(const Qcow2Header *h, GError **error)
{
    if (h->crypt_method > QCOW2_CRYPT_LUKS) {
        return blk_error(error, -EINVAL, "Unsupported encryption method: %" PRIu32, h->crypt_method);
    }
    return 0;
}

int qcow2_header_check_readable(const Qcow2Header *h, GError **error)
{
    if (h->crypt_method == QCOW2_CRYPT_NONE) {
        return 0;
    }
    return blk_error(error, -ENOTSUP, "Image is encrypted (%s), and encryption is not supported: convert it to an image "
                     "without encryption, with a program that can be given its key",
                     h->crypt_method == QCOW2_CRYPT_AES ? "AES" : "LUKS");
}

/* @cluster: the whole first cluster, zeroes behind the end of the file. */
static int parse_variable_fields(const uint8_t *cluster, Qcow2Header *h, GError **error)
{
    uint64_t cluster_size = qcow2_cluster_size(h);
    uint64_t name_offset = blk_get_be64(cluster + 8);
    uint32_t name_bytes = blk_get_be32(cluster + 16);
    uint64_t end = cluster_size;
    int ret;

    if (h->header_length > QCOW2_HEADER_V3_MIN) {
        h->compression_type = cluster[104];
    }
    if (h->header_length > QCOW2_HEADER_V3_BYTES) {
        h->unknown_bytes = h->header_length - QCOW2_HEADER_V3_BYTES;
        h->unknown_fields = g_memdup2(cluster + QCOW2_HEADER_V3_BYTES, h->unknown_bytes);
    }
    if (name_offset != 0) {
        if (name_offset < h->header_length || name_offset > cluster_size) {
            return blk_error(error, -EINVAL, "Invalid backing file offset: %#" PRIx64, name_offset);
        }
        if (name_bytes > QCOW2_MAX_BACKING_NAME || name_bytes > cluster_size - name_offset) {
            return blk_error(error, -EINVAL, "Backing file name too long: %" PRIu32 " bytes at %" PRIu64, name_bytes,
                             name_offset);
        }
        end = name_offset;
    }
    ret = parse_extensions(cluster, end, h, error);
    if (ret == 0 && name_offset != 0) {
        ret = parse_string(cluster + name_offset, name_bytes, "Backing file name", &h->backing_file, error);
    }
    return ret;
}

static int parse_header(const uint8_t *cluster, Qcow2Header *h, GError **error)
{
    int ret = parse_variable_fields(cluster, h, error);

    if (ret == 0) {
        ret = check_features(h, error);
    }
    if (ret == 0) {
        ret = check_compression(h, error);
    }
    if (ret == 0) {
        ret = check_encryption(h, error);
    }
    if (ret == 0) {
        ret = check_numbers(h, error);
    }
    return ret;
}

/* The file may end within the last cluster of a table, but not before. */
static int check_inside_file(const Qcow2Header *h, const char *name, uint64_t offset, uint64_t bytes,
                             uint64_t file_bytes, GError **error)
{
    if (file_bytes + qcow2_cluster_size(h) - 1 < offset + bytes) {
        return blk_error(error, -EINVAL, "%s at %#" PRIx64 " reaches past the end of the file", name, offset);
    }
    return 0;
}

int qcow2_co_read_damaged_header(BlkNode *file_node, Qcow2Header *out, GError **error)
{
    uint64_t file_bytes = blk_node_length(file_node);
    uint8_t fixed[QCOW2_HEADER_V3_BYTES] = { 0 };
    g_autofree uint8_t *cluster = NULL;
    size_t bytes = MIN(file_bytes, sizeof(fixed));
    int ret;

    memset(out, 0, sizeof(*out));
    ret = blk_co_pread(file_node, 0, bytes, fixed, 0);
    if (ret < 0) {
        return blk_error_errno(error, ret, "Could not read qcow2 header");
    }
    ret = parse_fixed_fields(fixed, bytes, out, error);
    if (ret < 0) {
        return ret;
    }
    cluster = g_try_malloc0(qcow2_cluster_size(out));
    if (cluster == NULL) {
        return blk_error(error, -ENOMEM, "No memory for the first cluster of the image");
    }
    ret = blk_co_pread(file_node, 0, MIN(file_bytes, qcow2_cluster_size(out)), cluster, 0);
    if (ret < 0) {
        return blk_error_errno(error, ret, "Could not read qcow2 header");
    }
    /* It was read a second time: what was judged is what is used. */
    if (memcmp(cluster, fixed, bytes) != 0) {
        return blk_error(error, -EAGAIN, "qcow2 header changed while it was read: is the image in use?");
    }
    out->extensions = g_array_new(FALSE, TRUE, sizeof(Qcow2Extension));
    g_array_set_clear_func(out->extensions, extension_clear);
    out->features = g_array_new(FALSE, TRUE, sizeof(Qcow2Feature));
    return parse_header(cluster, out, error);
}

int qcow2_co_read_header(BlkNode *file_node, Qcow2Header *out, GError **error)
{
    int ret = qcow2_co_read_damaged_header(file_node, out, error);

    if (ret == 0) {
        ret = check_tables(out, error);
    }
    if (ret == 0) {
        ret = check_inside_file(out, "Active L1 table", out->l1_table_offset, (uint64_t)out->l1_size * 8,
                                blk_node_length(file_node), error);
    }
    return ret;
}

int qcow2_header_check_refcounts(const Qcow2Header *h, uint64_t file_bytes, GError **error)
{
    const uint64_t bytes = (uint64_t)h->refcount_table_clusters << h->cluster_bits;
    int ret;

    if (bytes == 0) {
        return blk_error(error, -EINVAL, "Image does not contain a reference count table");
    }
    ret = check_table(h, "Reference count table", h->refcount_table_offset, bytes, QCOW2_MAX_REFCOUNT_TABLE_BYTES,
                      error);
    return ret < 0 ? ret : check_inside_file(h, "Reference count table", h->refcount_table_offset, bytes, file_bytes,
                                             error);
}

int qcow2_header_check_writable(const Qcow2Header *header, GError **error)
{
    if (header->incompatible & QCOW2_INCOMPAT_CORRUPT) {
        return blk_error(error, -EACCES, "Image is corrupt; cannot be opened read/write (repair it with check -r all)");
    }
    return 0;
}

/* ---- writing ---- */

/* A cursor in the first cluster; pos > size: it did not fit. */
typedef struct Writer {
    uint8_t *buf;
    uint64_t size, pos;
} Writer;

static void put_bytes(Writer *w, const void *data, uint64_t bytes)
{
    if (w->pos <= w->size && bytes > 0 && bytes <= w->size - w->pos) {
        memcpy(w->buf + w->pos, data, bytes);
    }
    w->pos += bytes;
}

static void put_extension(Writer *w, uint32_t type, const void *data, uint32_t bytes)
{
    uint8_t head[8];

    blk_put_be32(head, type);
    blk_put_be32(head + 4, bytes);
    put_bytes(w, head, sizeof(head));
    put_bytes(w, data, bytes);
    w->pos = (w->pos + 7) & ~UINT64_C(7);
}

static void put_fixed_fields(Writer *w, const Qcow2Header *h)
{
    uint8_t *p = w->buf;

    blk_put_be32(p, QCOW2_MAGIC);
    blk_put_be32(p + 4, h->version);
    blk_put_be32(p + 20, h->cluster_bits);
    blk_put_be64(p + 24, h->size);
    blk_put_be32(p + 32, h->crypt_method);
    blk_put_be32(p + 36, h->l1_size);
    blk_put_be64(p + 40, h->l1_table_offset);
    blk_put_be64(p + 48, h->refcount_table_offset);
    blk_put_be32(p + 56, h->refcount_table_clusters);
    blk_put_be32(p + 60, h->nb_snapshots);
    blk_put_be64(p + 64, h->snapshots_offset);
    w->pos = QCOW2_HEADER_V2_BYTES;
    if (h->version >= 3) {
        blk_put_be64(p + 72, h->incompatible);
        blk_put_be64(p + 80, h->compatible);
        blk_put_be64(p + 88, h->autoclear);
        blk_put_be32(p + 96, h->refcount_order);
        blk_put_be32(p + 100, QCOW2_HEADER_V3_BYTES + h->unknown_bytes);
        p[104] = h->compression_type;
        w->pos = QCOW2_HEADER_V3_BYTES;
        put_bytes(w, h->unknown_fields, h->unknown_bytes);
    }
}

static bool is_known_feature(const Qcow2Feature *feature)
{
    for (size_t i = 0; i < G_N_ELEMENTS(known_features); i++) {
        if (known_features[i].kind == feature->kind && known_features[i].bit == feature->bit) {
            return true;
        }
    }
    return false;
}

static void append_feature(GByteArray *table, const Qcow2Feature *feature)
{
    const uint8_t head[2] = { feature->kind, feature->bit };

    g_byte_array_append(table, head, sizeof(head));
    g_byte_array_append(table, (const uint8_t *)feature->name, QCOW2_FEATURE_NAME_BYTES);
}

/* Our names, then those of the image that we do not know. */
static void put_feature_names(Writer *w, const Qcow2Header *h)
{
    g_autoptr(GByteArray) table = g_byte_array_new();

    for (size_t i = 0; i < G_N_ELEMENTS(known_features); i++) {
        append_feature(table, &known_features[i]);
    }
    for (guint i = 0; h->features != NULL && i < h->features->len; i++) {
        const Qcow2Feature *feature = &g_array_index(h->features, Qcow2Feature, i);

        if (!is_known_feature(feature)) {
            append_feature(table, feature);
        }
    }
    put_extension(w, QCOW2_EXT_FEATURE_NAMES, table->data, table->len);
}

/* The first extension: in the first sector. */
static void put_bitmaps(Writer *w, const Qcow2BitmapsExtension *bitmaps)
{
    uint8_t data[QCOW2_BITMAPS_EXTENSION_BYTES];

    if (bitmaps->present) {
        blk_put_be32(data, bitmaps->count);
        blk_put_be32(data + 4, bitmaps->reserved);
        blk_put_be64(data + 8, bitmaps->directory_bytes);
        blk_put_be64(data + 16, bitmaps->directory_offset);
        put_extension(w, QCOW2_EXT_BITMAPS, data, sizeof(data));
    }
}

/* The name is put at @name_at, which must lie behind all else; 0: directly behind it. */
static void put_header(Writer *w, const Qcow2Header *h, bool feature_names, uint64_t name_at)
{
    memset(w->buf, 0, w->size);
    put_fixed_fields(w, h);
    put_bitmaps(w, &h->bitmaps);
    if (h->backing_format != NULL) {
        put_extension(w, QCOW2_EXT_BACKING_FORMAT, h->backing_format, strlen(h->backing_format));
    }
    if (h->data_file != NULL) {
        put_extension(w, QCOW2_EXT_DATA_FILE, h->data_file, strlen(h->data_file));
    }
    for (guint i = 0; h->extensions != NULL && i < h->extensions->len; i++) {
        const Qcow2Extension *extension = &g_array_index(h->extensions, Qcow2Extension, i);

        put_extension(w, extension->type, extension->data, extension->bytes);
    }
    if (feature_names) {
        put_feature_names(w, h);
    }
    put_extension(w, QCOW2_EXT_END, NULL, 0);
    if (h->backing_file != NULL) {
        w->pos = MAX(w->pos, name_at);
        blk_put_be64(w->buf + 8, w->pos);
        blk_put_be32(w->buf + 16, strlen(h->backing_file));
        put_bytes(w, h->backing_file, strlen(h->backing_file));
    }
}

static uint64_t sectors_up(uint64_t bytes)
{
    return (bytes + SECTOR_BYTES - 1) & ~(uint64_t)(SECTOR_BYTES - 1);
}

/* Where what is not zero ends: whole sectors. */
static uint64_t used_bytes(const uint8_t *buf, uint64_t bytes)
{
    while (bytes > 0 && blk_buffer_is_zero(buf + bytes - SECTOR_BYTES, SECTOR_BYTES)) {
        bytes -= SECTOR_BYTES;
    }
    return bytes;
}

static int co_write_stable(BlkNode *file, uint64_t offset, uint64_t bytes, const uint8_t *buf)
{
    int ret = blk_co_pwrite(file, offset, bytes, buf, 0);

    return ret < 0 ? ret : blk_co_flush(file);
}

/*
 * Lets the first sector stand alone, so that the others may change: all that says something is in it, the names of
 * features, which are only a help, are left out; a backing file name that has no room there is first written to sectors that
 * neither the old header nor the new one uses. Writes nothing if that cannot be. *name_at: where the name is, or 0.
 */
static int co_write_interim(BlkNode *file, const Qcow2Header *h, const uint8_t *old, uint64_t new_bytes, uint64_t size,
                            uint64_t *name_at)
{
    g_autofree uint8_t *buf = g_try_malloc(size);
    Writer w = { .buf = buf, .size = size };
    uint64_t name_bytes = h->backing_file != NULL ? strlen(h->backing_file) : 0;
    int ret = 0;

    *name_at = 0;
    if (buf == NULL) {
        return -ENOMEM;
    }
    put_header(&w, h, false, 0);
    if (w.pos > SECTOR_BYTES && w.pos - name_bytes <= SECTOR_BYTES) {
        *name_at = MAX(used_bytes(old, size), sectors_up(new_bytes));
        put_header(&w, h, false, *name_at);
    }
    if (w.pos > (*name_at > 0 ? size : SECTOR_BYTES)) {
        *name_at = 0;
        return -ENOSPC;
    }
    if (*name_at > 0) {
        ret = co_write_stable(file, *name_at, sectors_up(name_bytes), buf + *name_at);
    }
    return ret < 0 ? ret : co_write_stable(file, 0, SECTOR_BYTES, buf);
}

/* Brings the first cluster from @old to @new, which uses @bytes of it (whole sectors). */
static int co_replace(BlkNode *file, const Qcow2Header *h, const uint8_t *old, const uint8_t *new, uint64_t bytes,
                      uint64_t size)
{
    g_autofree uint8_t *zeroes = NULL;
    uint64_t name_at;

    if (memcmp(old + SECTOR_BYTES, new + SECTOR_BYTES, bytes - SECTOR_BYTES) == 0) {
        return blk_co_pwrite(file, 0, SECTOR_BYTES, new, 0);
    }
    int ret = co_write_interim(file, h, old, bytes, size, &name_at);
    if (ret == -ENOSPC) {
        return blk_co_pwrite(file, 0, bytes, new, 0);
    }
    if (ret == 0 && bytes > SECTOR_BYTES) {
        ret = co_write_stable(file, SECTOR_BYTES, bytes - SECTOR_BYTES, new + SECTOR_BYTES);
    }
    if (ret == 0) {
        ret = blk_co_pwrite(file, 0, SECTOR_BYTES, new, 0);
    }
    if (ret == 0 && name_at > 0) {
        zeroes = g_malloc0(sectors_up(strlen(h->backing_file)));
        ret = blk_co_flush(file);
        ret = ret < 0 ? ret : blk_co_pwrite(file, name_at, sectors_up(strlen(h->backing_file)), zeroes, 0);
    }
    return ret;
}

/* The header as it is to be; *bytes: how much of the cluster it uses, whole sectors. */
int qcow2_header_build(const Qcow2Header *h, uint8_t *buf, uint64_t size, uint64_t *bytes, GError **error)
{
    Writer w = { .buf = buf, .size = size };
    bool feature_names = h->version >= 3 && size >= FEATURE_TABLE_MIN_CLUSTER;

    if (h->backing_file != NULL && strlen(h->backing_file) > QCOW2_MAX_BACKING_NAME) {
        return blk_error(error, -EINVAL, "Backing file name too long: %zu bytes, the limit is %d",
                         strlen(h->backing_file), QCOW2_MAX_BACKING_NAME);
    }
    put_header(&w, h, feature_names, 0);
    if (w.pos > size && feature_names) {        /* the names are only a help for messages */
        put_header(&w, h, false, 0);
    }
    if (w.pos > size) {
        return blk_error(error, -ENOSPC, "The header with its extensions and the backing file name needs %" PRIu64
                         " bytes, but a cluster has %" PRIu64, w.pos, size);
    }
    *bytes = sectors_up(w.pos);
    return 0;
}

int qcow2_header_check_fits(const Qcow2Header *header, GError **error)
{
    uint64_t size = qcow2_cluster_size(header), bytes;
    g_autofree uint8_t *buf = g_try_malloc(size);

    return buf != NULL ? qcow2_header_build(header, buf, size, &bytes, error)
                       : blk_error(error, -ENOMEM, "No memory for the first cluster of the image");
}

int qcow2_co_update_header(BlkNode *file_node, const Qcow2Header *header, GError **error)
{
    uint64_t size = qcow2_cluster_size(header), bytes = 0;
    g_autofree uint8_t *old = g_try_malloc0(size);
    g_autofree uint8_t *new = g_try_malloc(size);
    int ret;

    if (old == NULL || new == NULL) {
        return blk_error(error, -ENOMEM, "No memory for the first cluster of the image");
    }
    ret = qcow2_header_build(header, new, size, &bytes, error);
    if (ret < 0) {
        return ret;
    }
    ret = blk_co_pread(file_node, 0, MIN(size, blk_node_length(file_node)), old, 0);
    if (ret == 0) {
        ret = blk_get_be32(old) == QCOW2_MAGIC ? co_replace(file_node, header, old, new, bytes, size)
                                              : blk_co_pwrite(file_node, 0, bytes, new, 0);
    }
    return ret < 0 ? blk_error_errno(error, ret, "Could not write qcow2 header") : 0;
}
