/* SPDX-License-Identifier: MIT */
/*
 * format.h - what a qcow2 image looks like on disk, and the operations that need nothing but the image file.
 *
 *   cluster 0            header | extensions | end mark | backing file name
 *   refcount table   ->  refcount blocks: one counter of 2^refcount_order bits for each host cluster
 *   L1 table         ->  L2 tables        -> data clusters and compressed payloads
 *   snapshot table   ->  an L1 table for each internal snapshot
 *
 * All numbers are big-endian. Functions that take a file_node mean the node of the image FILE, not the qcow2 node.
 *
 * Limitations: encryption is recognised and refused.
 */
#ifndef BLKSTACK_QCOW2_FORMAT_H
#define BLKSTACK_QCOW2_FORMAT_H

#include "core/big_endian.h"

#include <blkstack/driver.h>
#include <inttypes.h>
#include <string.h>

#define QCOW2_MAGIC 0x514649fbu                 /* "QFI\xfb" */

enum {
    QCOW2_HEADER_V2_BYTES   = 72,
    QCOW2_HEADER_V3_MIN     = 104,              /* smallest header_length of version 3 */
    QCOW2_HEADER_V3_BYTES   = 112,              /* what we write, and know */
    QCOW2_HEADER_INCOMPATIBLE_AT = 72,          /* place of the field, 8 bytes: within the first sector */
    QCOW2_MIN_CLUSTER_BITS  = 9,
    QCOW2_MAX_CLUSTER_BITS  = 21,
    QCOW2_MAX_REFCOUNT_ORDER = 6,
    QCOW2_SUBCLUSTER_BITS   = 5,                /* of an extended L2 entry: 32 subclusters */
    QCOW2_MIN_EXTENDED_BITS = 14,               /* smallest cluster_bits with extended L2 entries */
    QCOW2_MAX_BACKING_NAME  = 1023,             /* bytes, without end mark */
    QCOW2_SNAPSHOT_BYTES    = 40,               /* fixed part of a snapshot table entry */
    QCOW2_MAX_FORMAT_NAME   = 15,               /* of the backing file */
    QCOW2_FEATURE_NAME_BYTES = 46,
    QCOW2_BITMAPS_EXTENSION_BYTES = 24,
    QCOW2_BITMAP_ENTRY_BYTES = 24,              /* fixed part of an entry of the bitmap directory */
};

/* Limits of what is accepted from a file, the same as the peer's. Bytes unless named otherwise. */
#define QCOW2_MAX_L1_BYTES              (32u << 20)
#define QCOW2_MAX_REFCOUNT_TABLE_BYTES  (8u << 20)
#define QCOW2_MAX_SNAPSHOTS             65536u  /* entries */
#define QCOW2_MAX_SNAPSHOT_TABLE_BYTES  (64u << 20)
#define QCOW2_MAX_SNAPSHOT_EXTRA        1024u
#define QCOW2_MAX_BITMAPS               65535u  /* entries */
#define QCOW2_MAX_BITMAP_DIRECTORY_BYTES (QCOW2_MAX_BITMAPS * 1024u)
#define QCOW2_MAX_BITMAP_BYTES          (512u << 20)    /* of one bitmap's bits */
#define QCOW2_MAX_BITMAP_TABLES_BYTES   (16u << 20)     /* of all bitmaps together */

/* Incompatible features: an unknown bit forbids to open. */
#define QCOW2_INCOMPAT_DIRTY        (UINT64_C(1) << 0)  /* refcounts may be too low: rebuild them before writing */
#define QCOW2_INCOMPAT_CORRUPT      (UINT64_C(1) << 1)  /* read-only until repaired */
#define QCOW2_INCOMPAT_DATA_FILE    (UINT64_C(1) << 2)
#define QCOW2_INCOMPAT_COMPRESSION  (UINT64_C(1) << 3)  /* compression_type is not zlib */
#define QCOW2_INCOMPAT_EXTENDED_L2  (UINT64_C(1) << 4)
/* Compatible features: an unknown bit does no harm. */
#define QCOW2_COMPAT_LAZY_REFCOUNTS (UINT64_C(1) << 0)
/* Autoclear features: a writer that does not know a bit clears it. */
#define QCOW2_AUTOCLEAR_BITMAPS     (UINT64_C(1) << 0)
#define QCOW2_AUTOCLEAR_RAW_DATA    (UINT64_C(1) << 1)

/* Flags of a bitmap, and entries of its table, each of which stands for a cluster of bits. */
#define QCOW2_BITMAP_IN_USE         (1u << 0)           /* not stored when the image was closed: not to be trusted */
#define QCOW2_BITMAP_AUTO           (1u << 1)           /* records writes */
#define QCOW2_BITMAP_EXTRA_KNOWN    (1u << 2)           /* may be used by who does not know its extra data */
#define QCOW2_BITMAP_RESERVED       0xfffffff8u
#define QCOW2_BITMAP_TABLE_ONES     UINT64_C(1)         /* without an offset: all bits are set; without both: none */
#define QCOW2_BITMAP_TABLE_RESERVED UINT64_C(0xff000000000001fe)

typedef enum Qcow2FeatureKind {
    QCOW2_FEATURE_INCOMPATIBLE, QCOW2_FEATURE_COMPATIBLE, QCOW2_FEATURE_AUTOCLEAR,
} Qcow2FeatureKind;

typedef enum Qcow2Crypt { QCOW2_CRYPT_NONE, QCOW2_CRYPT_AES, QCOW2_CRYPT_LUKS } Qcow2Crypt;

typedef enum Qcow2Compression { QCOW2_COMPRESSION_ZLIB = 0, QCOW2_COMPRESSION_ZSTD = 1 } Qcow2Compression;

/* Types of header extensions. */
#define QCOW2_EXT_END               0u
#define QCOW2_EXT_BACKING_FORMAT    0xe2792acau
#define QCOW2_EXT_FEATURE_NAMES     0x6803f857u
#define QCOW2_EXT_BITMAPS           0x23852875u
#define QCOW2_EXT_ENCRYPTION        0x0537be77u
#define QCOW2_EXT_DATA_FILE         0x44415441u

/* Entries of L1, L2 and the refcount table. */
#define QCOW2_COPIED                (UINT64_C(1) << 63)     /* the refcount is exactly 1 */
#define QCOW2_COMPRESSED            (UINT64_C(1) << 62)
#define QCOW2_ZERO                  (UINT64_C(1) << 0)      /* version 3 only, not in extended entries */
#define QCOW2_OFFSET_MASK           UINT64_C(0x00fffffffffffe00)
#define QCOW2_L1_RESERVED           UINT64_C(0x7f000000000001ff)
#define QCOW2_L2_RESERVED           UINT64_C(0x3f000000000001fe)    /* of entries that are not compressed */
#define QCOW2_REFTABLE_OFFSET_MASK  UINT64_C(0xfffffffffffffe00)
#define QCOW2_REFTABLE_RESERVED     UINT64_C(0x1ff)
#define QCOW2_MAX_HOST_OFFSET       (UINT64_C(1) << 56)             /* offsets in L1 and L2 entries are below */

/*
 * A compressed L2 entry: the low 62-(cluster_bits-8) bits are the byte offset of the payload, the bits above up to 61
 * the number of 512-byte sectors that it reaches into after the one it begins in.
 */
static inline unsigned qcow2_compressed_offset_bits(unsigned cluster_bits)
{
    return 62 - (cluster_bits - 8);
}

/* @offset: of the payload; @bytes: up to the end of its last sector (which may lie behind the end of the file). */
static inline void qcow2_compressed_decode(unsigned cluster_bits, uint64_t entry, uint64_t *offset, uint64_t *bytes)
{
    unsigned bits = qcow2_compressed_offset_bits(cluster_bits);
    uint64_t sectors = ((entry & ~(QCOW2_COPIED | QCOW2_COMPRESSED)) >> bits) + 1;

    *offset = entry & ((UINT64_C(1) << bits) - 1);
    *bytes = sectors * 512 - (*offset & 511);
}

/* The caller has made sure that @offset fits in its bits and that 0 < @bytes <= cluster size. */
static inline uint64_t qcow2_compressed_encode(unsigned cluster_bits, uint64_t offset, uint64_t bytes)
{
    uint64_t sectors = ((offset + bytes - 1) >> 9) - (offset >> 9);

    return QCOW2_COMPRESSED | sectors << qcow2_compressed_offset_bits(cluster_bits) | offset;
}

/* Counters in a refcount block, of 2^order bits each: those narrower than a byte begin at its low bits. */
static inline uint64_t qcow2_refcount_get(const void *block, unsigned order, uint64_t index)
{
    const uint8_t *p = block;

    switch (order) {
    case 3:
        return p[index];
    case 4:
        return blk_get_be16(p + index * 2);
    case 5:
        return blk_get_be32(p + index * 4);
    case 6:
        return blk_get_be64(p + index * 8);
    default:
        return p[index >> (3 - order)] >> ((index << order) & 7) & ((1u << (1u << order)) - 1);
    }
}

static inline void qcow2_refcount_set(void *block, unsigned order, uint64_t index, uint64_t value)
{
    uint8_t *p = block;

    switch (order) {
    case 3:
        p[index] = (uint8_t)value;
        break;
    case 4:
        blk_put_be16(p + index * 2, (uint16_t)value);
        break;
    case 5:
        blk_put_be32(p + index * 4, (uint32_t)value);
        break;
    case 6:
        blk_put_be64(p + index * 8, value);
        break;
    default: {
        unsigned shift = (index << order) & 7, mask = ((1u << (1u << order)) - 1) << shift;

        p += index >> (3 - order);
        *p = (uint8_t)((*p & ~mask) | ((unsigned)value << shift & mask));
        break;
    }
    }
}

static inline uint64_t qcow2_refcount_max(unsigned order)
{
    return order == 6 ? UINT64_MAX : (UINT64_C(1) << (1u << order)) - 1;
}

typedef struct Qcow2Extension {
    uint32_t type, bytes;
    uint8_t *data;
} Qcow2Extension;

typedef struct Qcow2Feature {
    uint8_t kind;                       /* Qcow2FeatureKind, or a kind that we do not know */
    uint8_t bit;
    char name[QCOW2_FEATURE_NAME_BYTES + 1];
} Qcow2Feature;

/* Where the directory of dirty bitmaps lies, as the file says it: see qcow2_bitmaps_co_read_directory(). */
typedef struct Qcow2BitmapsExtension {
    bool present;
    uint32_t bytes;                     /* of the extension: 24, or it is of no use */
    uint32_t count, reserved;
    uint64_t directory_bytes, directory_offset;
} Qcow2BitmapsExtension;

typedef struct Qcow2Header {
    uint32_t version;                   /* 2 or 3 */
    uint32_t cluster_bits;
    uint64_t size;                      /* of the virtual disk, bytes: 0..BLK_MAX_LENGTH */
    uint32_t crypt_method;              /* Qcow2Crypt: see qcow2_header_check_readable() */
    uint32_t l1_size;                   /* entries */
    uint64_t l1_table_offset;           /* 0 only if l1_size is 0 */
    uint64_t refcount_table_offset;
    uint32_t refcount_table_clusters;
    uint32_t nb_snapshots;
    uint64_t snapshots_offset;          /* meaningless if nb_snapshots is 0 */
    uint64_t incompatible, compatible, autoclear;
    uint32_t refcount_order;            /* counters have 2^refcount_order bits */
    uint32_t header_length;             /* as read; what is written may be longer */
    uint8_t compression_type;           /* Qcow2Compression */
    uint32_t unknown_bytes;             /* of a header longer than the one we know, kept */
    uint8_t *unknown_fields;
    char *backing_file;                 /* (nullable) */
    char *backing_format;               /* (nullable) */
    char *data_file;                    /* (nullable): name of the external data file */
    Qcow2BitmapsExtension bitmaps;
    GArray *extensions;                 /* of Qcow2Extension: those that we do not interpret, in order */
    GArray *features;                   /* of Qcow2Feature: the image's own table */
} Qcow2Header;

static inline uint64_t qcow2_cluster_size(const Qcow2Header *header)
{
    return UINT64_C(1) << header->cluster_bits;
}

/* Bytes of an L2 entry: 8, or 16 where a bitmap of subclusters follows the word that says where the cluster lies. */
static inline unsigned qcow2_l2_entry_bytes(const Qcow2Header *header)
{
    return header->incompatible & QCOW2_INCOMPAT_EXTENDED_L2 ? 16 : 8;
}

/* An L2 table, which is one cluster, has 1 << this many entries. */
static inline unsigned qcow2_l2_bits(const Qcow2Header *header)
{
    return header->cluster_bits - (header->incompatible & QCOW2_INCOMPAT_EXTENDED_L2 ? 4 : 3);
}

/* The unit of mapping: a cluster, or with extended L2 entries one of its subclusters. */
static inline unsigned qcow2_subcluster_bits(const Qcow2Header *header)
{
    return header->cluster_bits - (header->incompatible & QCOW2_INCOMPAT_EXTENDED_L2 ? QCOW2_SUBCLUSTER_BITS : 0);
}

/* L1 entries that a disk of @size bytes needs: of @header only the geometry is used. */
static inline uint64_t qcow2_l1_entries_for(const Qcow2Header *header, uint64_t size)
{
    unsigned shift = header->cluster_bits + qcow2_l2_bits(header);

    return (size >> shift) + ((size & ((UINT64_C(1) << shift) - 1)) != 0);
}

/* ---- header.c ---- */

int qcow2_probe(const uint8_t *head, size_t bytes, const char *filename);

/**
 * qcow2_co_read_header:
 * @out: (out): filled; to be given back with qcow2_header_clear(), which is harmless after a failure too
 *
 * Reads and validates all that can be judged without looking at a table. Dirty and corrupt images are accepted here:
 * see qcow2_header_check_writable().
 * Returns: 0; -EINVAL not qcow2 or damaged; -ENOTSUP a feature that we do not have; -EFBIG beyond a limit; -EIO
 */
int qcow2_co_read_header(BlkNode *file_node, Qcow2Header *out, GError **error);

/* The same for a check, which judges itself where the tables lie and how long they are: nothing is known of these. */
int qcow2_co_read_damaged_header(BlkNode *file_node, Qcow2Header *out, GError **error);

/* Also of a zeroed header. */
void qcow2_header_clear(Qcow2Header *header);

/* Can the guest's data be read? -ENOTSUP: it is encrypted. */
int qcow2_header_check_readable(const Qcow2Header *header, GError **error);

/* May the image be opened for writing? -EACCES: it is marked corrupt. */
int qcow2_header_check_writable(const Qcow2Header *header, GError **error);

/* Has the first cluster room for all that @header says? -EINVAL, -ENOSPC. */
int qcow2_header_check_fits(const Qcow2Header *header, GError **error);

/* Makes the first cluster of an image, of @size bytes; *bytes: how much of it says something, in whole sectors. */
int qcow2_header_build(const Qcow2Header *header, uint8_t *buf, uint64_t size, uint64_t *bytes, GError **error);

/**
 * qcow2_co_update_header:
 *
 * Writes @header with its extensions, the table of feature names and the backing file name over the header that is there, so
 * that a crash leaves the old one or the new one (see header.c for what is excepted). All else in the file must be as both
 * headers say. The new one is stable after the next flush of the file.
 * Returns: 0; -ENOSPC if it does not fit in a cluster; others from below.
 */
int qcow2_co_update_header(BlkNode *file_node, const Qcow2Header *header, GError **error);

/* ---- snapshot_table.c ---- */

typedef struct Qcow2Snapshot {
    BlkSnapshot info;
    uint64_t l1_table_offset;
    uint32_t l1_size;                   /* entries; within QCOW2_MAX_L1_BYTES */
    GBytes *id, *name;                  /* as they are in the file */
    GBytes *unknown_extra;              /* (nullable): extra data behind what we know, kept */
} Qcow2Snapshot;

/* An empty array of Qcow2Snapshot that owns what its elements point to. */
GArray *qcow2_snapshots_new(void);

/* A new element with this id and name; the rest is 0. */
Qcow2Snapshot *qcow2_snapshots_add(GArray *snapshots, const char *id, const char *name);

/**
 * qcow2_snapshot_co_read_all:
 * @snapshots: (out): array of Qcow2Snapshot, empty without snapshots; free with g_array_unref(); NULL after an error
 * @table_bytes: (out) (nullable): length of the snapshot table
 */
int qcow2_snapshot_co_read_all(BlkNode *file_node, const Qcow2Header *header, GArray **snapshots,
                               uint64_t *table_bytes, GError **error);

/* How long the table will be; what it says, into @table, which is that long and zeroed. Entries that did not tell the size
 * of the disk do so then. */
uint64_t qcow2_snapshots_table_bytes(const GArray *snapshots);
void qcow2_snapshots_encode(const GArray *snapshots, uint8_t *table);

/* ---- bitmap_directory.c ---- */

typedef struct Qcow2BitmapEntry {
    char *name;                         /* 1..BLK_BITMAP_MAX_NAME bytes */
    uint64_t table_offset;
    uint32_t table_size;                /* entries: at least 1 */
    uint64_t *table;                    /* (nullable): in the machine's order; not read yet */
    uint32_t flags;                     /* QCOW2_BITMAP_* */
    uint32_t extra_bytes;
    uint8_t *extra;                     /* (nullable): meant for somebody else, kept */
    unsigned granularity_bits;          /* 9..31 */
    uint64_t flags_offset;              /* where the flags stand in the file: 4 bytes that no write tears */
} Qcow2BitmapEntry;

void qcow2_bitmap_entry_free(Qcow2BitmapEntry *entry);      /* NULL is ignored */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Qcow2BitmapEntry, qcow2_bitmap_entry_free)

/* Does the image say that it has bitmaps which every writer has kept up? */
bool qcow2_header_has_bitmaps(const Qcow2Header *header);

/**
 * qcow2_bitmaps_co_read_directory:
 * @entries: (out): array of Qcow2BitmapEntry *, as many as are sound (also after an error); free with g_ptr_array_unref()
 *
 * Reads and judges all that can be known without looking at a bitmap's table. An image without bitmaps has an empty list.
 * Returns: 0; -EINVAL, -EFBIG: damaged; -ENOMEM, -EIO
 */
int qcow2_bitmaps_co_read_directory(BlkNode *file_node, const Qcow2Header *header, GPtrArray **entries, GError **error);

/* The directory of @entries: its length, and what it looks like in @buf, which is zeroed. */
uint64_t qcow2_bitmaps_directory_bytes(const GPtrArray *entries);
void qcow2_bitmaps_put_directory(const GPtrArray *entries, uint8_t *buf);
/* Sets the flags_offset of the entries of a directory at @offset. */
void qcow2_bitmaps_place_directory(GPtrArray *entries, uint64_t offset);

/* Makes @header refer to the directory; @count 0: to none. */
void qcow2_header_set_bitmaps(Qcow2Header *header, uint32_t count, uint64_t offset, uint64_t bytes);

/* Entries of the table of a bitmap for a disk of @size bytes. */
uint64_t qcow2_bitmap_table_entries(unsigned cluster_bits, unsigned granularity_bits, uint64_t size);

/* May @entry stand in a bitmap's table? Reserved bits, alignment; @file_bytes: data must begin before it. */
bool qcow2_bitmap_table_entry_valid(const Qcow2Header *header, uint64_t entry, uint64_t file_bytes);

/* Reads the table of a bitmap, if nobody did before, into @entry->table. -EINVAL: it is damaged; -ENOMEM, -EIO. */
int qcow2_bitmap_co_read_table(BlkNode *file_node, const Qcow2Header *header, Qcow2BitmapEntry *entry, GError **error);

/* ---- create.c, info.c, check.c: ops of the driver table ---- */

extern const BlkOption qcow2_create_options[];
/* What the options ask for. The caller clears @header, also after an error. */
int qcow2_parse_create_options(const BlkOptions *options, Qcow2Header *header, GError **error);
int qcow2_check_create(const BlkOptions *options, GError **error);
int qcow2_co_measure(const BlkOptions *options, BlkNode *source, BlkMeasure *measure, GError **error);
/* stream.c */
int qcow2_co_stream(BlkSource *source, const BlkOptions *options, const BlkStream *out, GError **error);
int qcow2_co_create(BlkContext *ctx, BlkNode *file, const BlkOptions *options, GError **error);

/* From the file: what is only in caches must have been written. */
extern const BlkOption qcow2_info_members[];
int qcow2_co_info(BlkNode *node, BlkInfo *info, GError **error);

/**
 * qcow2_co_check:
 *
 * From the file: what is only in caches must have been written, nothing else may use the node meanwhile, and caches
 * must be dropped afterwards if something was repaired. Repairing changes refcounts, their table, COPIED flags and the
 * header's dirty and corrupt bits.
 */
int qcow2_co_check(BlkNode *file_node, const BlkCheckOptions *options, BlkCheckResult *result, GError **error);

/* Repairs counts and COPIED flags only, as a dirty image needs it. What else is wrong is in @result->corruptions. */
int qcow2_co_rebuild_counts(BlkNode *file_node, BlkCheckResult *result, GError **error);

/* Can the refcount table lie where the header says? A check opens images in which it cannot. */
int qcow2_header_check_refcounts(const Qcow2Header *header, uint64_t file_bytes, GError **error);

#endif
