/* SPDX-License-Identifier: MIT */
/*
 * vpc.c - format driver "vpc": virtual hard disks (VHD) of Virtual PC, Hyper-V and Azure (Microsoft, "Virtual Hard Disk
 * Image Format Specification", 1.0).
 *
 *     dynamic:  footer (copy) | header | block allocation table | bitmap, block | bitmap, block | ... | footer
 *     fixed:    the bytes of the disk | footer
 *
 * All numbers are big-endian. An entry of the table is the sector of a block's bitmap, whose data lie behind it. A set
 * bit is a sector that was written; like others we take all data of a block for valid, and set all bits before the
 * first write.
 *
 * A new block goes where the footer was. First the new footer is written behind it, then the bitmap and the data, then,
 * when these are stable, the table. So a crash leaves the copy of the footer at the begin, at least, and no entry
 * without a block.
 *
 * The size of a disk is that of its geometry or the "current size", which depends on who made it: see
 * uses_current_size().
 *
 * Limitations: no differencing disks; cannot be resized; blocks of up to 256 MiB.
 */
#include "drivers/block_table.h"
#include "drivers/drivers.h"

#include "core/big_endian.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

enum {
    SECTOR = 512,
    FOOTER_BYTES = 512,
    HEADER_BYTES = 1024,
    ENTRY_BYTES = 4,
    UUID_BYTES = 16,
    TYPE_FIXED = 2,
    TYPE_DYNAMIC = 3,
    TYPE_DIFFERENCING = 4,
    DEFAULT_BLOCK = 2 << 20,
    MAX_BLOCK = 256 << 20,
    FIXED_UNIT = 64 << 10,          /* in which a fixed disk is zeroed */
    MAX_CYLINDERS = 65535, MAX_HEADS = 16, MAX_TRACK = 255,
    CHUNK_BYTES = 1 << 20,
};

#define VERSION         UINT32_C(0x00010000)
#define NO_OFFSET       UINT64_MAX
#define ENTRY_FREE      UINT32_MAX
#define MAX_SECTORS     UINT64_C(0xff000000)        /* 2040 GiB */
#define MAX_GEOMETRY    ((uint64_t)MAX_CYLINDERS * MAX_HEADS * MAX_TRACK)       /* sectors */
#define EPOCH           INT64_C(946684800)          /* 2000-01-01, in seconds since 1970 */

/* Places of fields in the footer, */
enum {
    AT_COOKIE = 0, AT_FEATURES = 8, AT_VERSION = 12, AT_DATA_OFFSET = 16, AT_TIME = 24, AT_CREATOR = 28,
    AT_CREATOR_VERSION = 32, AT_CREATOR_OS = 36, AT_ORIGINAL_SIZE = 40, AT_CURRENT_SIZE = 48, AT_CYLINDERS = 56,
    AT_HEADS = 58, AT_TRACK = 59, AT_TYPE = 60, AT_CHECKSUM = 64, AT_UUID = 68,
};

/* ... and in the header of a dynamic disk. */
enum {
    AT_H_DATA_OFFSET = 8, AT_H_TABLE = 16, AT_H_VERSION = 24, AT_H_ENTRIES = 28, AT_H_BLOCK = 32, AT_H_CHECKSUM = 36,
};

static const char footer_cookie[] = "conectix", header_cookie[] = "cxsparse";
enum { COOKIE_BYTES = 8, CREATOR_BYTES = 4 };

typedef struct VpcState {
    BlockTable table;               /* of a dynamic disk */
    bool fixed;
    bool copy_at_begin;             /* of the footer, and sound */
    uint8_t footer[FOOTER_BYTES];
    uint64_t header, table_end;     /* of a dynamic disk, in the file, bytes */
    uint64_t bitmap_bytes;          /* before the data of a block */
    uint64_t end;                   /* nothing but the footer lies here or behind */
    uint8_t *ready;                 /* a bit for each block whose bitmap is known to be all ones */
} VpcState;

static const char *const size_values[] = { "chs", "current_size", NULL };
static const BlkOption vpc_options[] = {
    { "file", BLK_OPTION_NODE, "the image file", .required = true },
    { "force_size_calc", BLK_OPTION_ENUM, "where the size of the disk is taken from: its geometry or its current size "
      "(default: depends on the program that made it)", NULL, size_values },
    { NULL },
};

static const char *const subformat_values[] = { "dynamic", "fixed", NULL };
static const BlkOption vpc_create_options[] = {
    { "size", BLK_OPTION_SIZE, "size of the virtual disk", .max = BLK_MAX_LENGTH, .required = true },
    { "subformat", BLK_OPTION_ENUM, "type of the virtual hard disk", "dynamic", subformat_values },
    { "force_size", BLK_OPTION_BOOL, "use the size as it is, rather than the next one that has a geometry", "off" },
    { NULL },
};

static int vpc_probe(const uint8_t *head, size_t bytes, const char *filename)
{
    return bytes >= COOKIE_BYTES && memcmp(head, footer_cookie, COOKIE_BYTES) == 0 ? 100 : 0;
}

/* The one's complement of the sum of all bytes but those of the checksum. */
static uint32_t checksum(const uint8_t *data, size_t bytes, size_t at_checksum)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < bytes; i++) {
        sum += i - at_checksum < 4 ? 0 : data[i];
    }
    return ~sum;
}

static bool is_footer(const uint8_t *f)
{
    return memcmp(f, footer_cookie, COOKIE_BYTES) == 0 &&
           checksum(f, FOOTER_BYTES, AT_CHECKSUM) == blk_get_be32(f + AT_CHECKSUM);
}

/* ---- the table of a dynamic disk ---- */

static uint64_t stride(const VpcState *s)
{
    return s->bitmap_bytes + s->table.block_size;
}

static bool overlaps(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
    return a < b + b_bytes && b < a + a_bytes;
}

static int vpc_decode(BlkNode *node, const uint8_t *entry, uint64_t *place)
{
    const VpcState *s = node->opaque;
    uint64_t at = (uint64_t)blk_get_be32(entry) * SECTOR;

    *place = 0;
    if (blk_get_be32(entry) == ENTRY_FREE) {
        return 0;
    }
    if (at < FOOTER_BYTES || overlaps(at, stride(s), s->header, HEADER_BYTES) ||
        overlaps(at, stride(s), s->table.offset, s->table_end - s->table.offset) ||
        at + s->bitmap_bytes >= blk_node_length(node->file->node)) {
        return -EIO;
    }
    *place = at + s->bitmap_bytes;
    return 0;
}

static void vpc_encode(BlkNode *node, uint8_t *entry, uint64_t place)
{
    const VpcState *s = node->opaque;

    blk_put_be32(entry, (uint32_t)((place - s->bitmap_bytes) / SECTOR));
}

static bool vpc_is_ready(BlkNode *node, uint64_t block)
{
    const VpcState *s = node->opaque;

    return s->ready[block / 8] & 1 << block % 8;
}

/* Sets all bits of the block's bitmap, if they are not. */
static int co_fill_bitmap(BlkNode *node, uint64_t block, uint64_t place, bool is_new)
{
    VpcState *s = node->opaque;
    BlkNode *file = node->file->node;
    uint64_t at = place - s->bitmap_bytes, used = MAX(s->table.block_size / SECTOR / 8, 1);
    g_autofree uint8_t *bitmap = g_try_malloc0(s->bitmap_bytes);
    g_autofree uint8_t *full = g_try_malloc(s->bitmap_bytes);

    if (!bitmap || !full) {
        return -ENOMEM;
    }
    memset(full, 0xff, s->bitmap_bytes);
    int ret = is_new ? 0 : blk_co_pread(file, at, s->bitmap_bytes, bitmap, 0);
    if (ret == 0 && memcmp(bitmap, full, used) != 0) {
        ret = blk_co_pwrite(file, at, s->bitmap_bytes, full, 0);
    }
    if (ret == 0) {
        s->ready[block / 8] |= 1 << block % 8;
    }
    return ret;
}

static int vpc_co_make_ready(BlkNode *node, uint64_t block, uint64_t place)
{
    return co_fill_bitmap(node, block, place, false);
}

static int vpc_co_alloc(BlkNode *node, uint64_t block, uint64_t *place)
{
    VpcState *s = node->opaque;
    BlkNode *file = node->file->node;
    uint64_t length = blk_node_length(file);
    bool reuse = block_table_take_free(node, place);
    int ret = 0;

    if (!reuse) {
        if (s->end / SECTOR >= ENTRY_FREE) {
            return -EFBIG;
        }
        *place = s->end + s->bitmap_bytes;
        ret = blk_co_pwrite(file, s->end + stride(s), FOOTER_BYTES, s->footer, 0);
    }
    ret = ret < 0 ? ret : co_fill_bitmap(node, block, *place, true);
    if (ret == 0 && length > *place) {          /* what was there before, whatever it was */
        ret = block_table_co_clear(file, *place, MIN(s->table.block_size, length - *place));
    }
    if (ret < 0 && reuse) {
        block_table_give_back(node, *place);
    }
    if (ret == 0 && !reuse) {
        s->end += stride(s);
    }
    return ret;
}

/* Finds what is in use. The footer at the end may be missing; then the next block goes behind all there is. */
static int vpc_co_find_space(BlkNode *node, GError **error)
{
    VpcState *s = node->opaque;
    BlkNode *file = node->file->node;
    uint64_t length = blk_node_length(file);
    uint8_t last[FOOTER_BYTES];
    BlockPlaces places;

    if (!s->copy_at_begin) {
        return blk_error(error, -EINVAL, "The VHD is damaged, since the copy of its footer at its begin is: open it "
                         "read-only and convert it");
    }
    g_free(s->ready);
    s->ready = g_try_malloc0(s->table.blocks / 8 + 1);
    if (!s->ready) {
        return blk_error(error, -ENOMEM, "No memory for %" PRIu64 " blocks", s->table.blocks);
    }
    int ret = blk_co_pread(file, length - FOOTER_BYTES, FOOTER_BYTES, last, 0);
    if (ret < 0) {
        return blk_error_errno(error, ret, "Could not read the VHD footer");
    }
    s->end = MAX(s->table_end, is_footer(last) ? length - FOOTER_BYTES : length);
    s->end = (s->end + SECTOR - 1) & ~(uint64_t)(SECTOR - 1);
    s->end = MAX(s->end, s->header + HEADER_BYTES);
    ret = block_table_co_sound_places(node, stride(s), &places, error);
    if (ret == 0 && places.n > 0) {
        s->end = MAX(s->end, places.at[places.n - 1].place + s->table.block_size);
    }
    g_free(places.at);
    return ret;
}

static const BlockTableOps vpc_table = {
    .decode = vpc_decode,
    .encode = vpc_encode,
    .co_alloc = vpc_co_alloc,
    .is_ready = vpc_is_ready,
    .co_make_ready = vpc_co_make_ready,
    .co_find_space = vpc_co_find_space,
};

/* ---- where things lie: a fixed disk is as long as its data ---- */

static int vpc_co_map(BlkNode *node, uint64_t offset, uint64_t bytes, BlkMapping *map)
{
    const VpcState *s = node->opaque;

    if (!s->fixed) {
        return block_table_co_map(node, offset, bytes, map);
    }
    *map = (BlkMapping) {
        .kind = BLK_MAP_DATA, .in_place = s->table.writable, .may_have_holes = true, .bytes = bytes, .child = node->file,
        .host_offset = offset,
    };
    return 0;
}

static int vpc_co_reserve(BlkNode *node, BlkReservation *res)
{
    const VpcState *s = node->opaque;

    if (!s->fixed) {
        return block_table_co_reserve(node, res);
    }
    if (!s->table.writable || res->kind == BLK_MAP_DATA || res->kind == BLK_MAP_COMPRESSED) {
        return s->table.writable ? -ENOTSUP : -EROFS;
    }
    res->child = node->file;
    res->host_offset = res->offset;
    res->host_bytes = MIN(res->bytes, node->length - res->offset);
    res->zero_host = BLK_HOST_ZERO;
    return 0;
}

static void vpc_publish(BlkNode *node, BlkReservation *res)
{
    if (!((VpcState *)node->opaque)->fixed) {
        block_table_publish(node, res);
    }
}

static void vpc_cancel(BlkNode *node, BlkReservation *res)
{
    if (!((VpcState *)node->opaque)->fixed) {
        block_table_cancel(node, res);
    }
}

static int vpc_co_commit(BlkNode *node)
{
    return ((VpcState *)node->opaque)->fixed ? 0 : block_table_co_commit(node);
}

static void vpc_refresh_limits(BlkNode *node)
{
    block_table_refresh_limits(node);
    if (((VpcState *)node->opaque)->fixed) {
        node->limits.discard_align = node->limits.cluster_size = node->limits.subcluster_size = FIXED_UNIT;
    }
}

/* ---- open ---- */

/* Programs that say in the footer how long the disk is. All others round it to a geometry, of which there is one that
 * stands for all that is too large. */
static bool uses_current_size(const uint8_t *f)
{
    static const char creators[][CREATOR_BYTES] = {
        { 'w', 'i', 'n', ' ' }, { 'q', 'e', 'm', '2' }, { 'd', '2', 'v', ' ' }, { 't', 'a', 'p', 0 },
        { 'C', 'T', 'X', 'S' }, { 'w', 'a', 0, 0 },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(creators); i++) {
        if (memcmp(f + AT_CREATOR, creators[i], CREATOR_BYTES) == 0) {
            return true;
        }
    }
    return false;
}

static uint64_t disk_sectors(const uint8_t *f, const BlkOptions *options)
{
    uint64_t geometry = (uint64_t)blk_get_be16(f + AT_CYLINDERS) * f[AT_HEADS] * f[AT_TRACK];
    bool current = geometry == MAX_GEOMETRY || uses_current_size(f);

    if (blk_options_has(options, "force_size_calc")) {
        current = blk_options_enum(options, "force_size_calc") == 1;
    }
    return current ? blk_get_be64(f + AT_CURRENT_SIZE) / SECTOR : geometry;
}

static int parse_footer(BlkNode *node, const BlkOptions *options, GError **error)
{
    VpcState *s = node->opaque;
    uint32_t version = blk_get_be32(s->footer + AT_VERSION), type = blk_get_be32(s->footer + AT_TYPE);
    uint64_t sectors = disk_sectors(s->footer, options);

    if (version >> 16 != VERSION >> 16) {
        return blk_error(error, -ENOTSUP, "Unsupported VHD version %" PRIu32 ".%" PRIu32, version >> 16,
                         version & 0xffff);
    }
    if (type == TYPE_DIFFERENCING) {
        return blk_error(error, -ENOTSUP, "Differencing VHDs, whose other blocks are in a parent disk, are not "
                         "supported: merge the disk with its parent first");
    }
    if (type != TYPE_FIXED && type != TYPE_DYNAMIC) {
        return blk_error(error, -ENOTSUP, "Unsupported VHD: its type %" PRIu32 " is neither fixed nor dynamic", type);
    }
    if (sectors > MAX_SECTORS) {
        return blk_error(error, -EFBIG, "Invalid VHD: a disk of %" PRIu64 " sectors is larger than 2040 GiB", sectors);
    }
    s->fixed = type == TYPE_FIXED;
    node->length = sectors * SECTOR;
    if (s->fixed && node->length > blk_node_length(node->file->node) - FOOTER_BYTES) {
        return blk_error(error, -EINVAL, "Invalid VHD: the file is shorter than the fixed disk of %" PRIu64 " bytes",
                         node->length);
    }
    return 0;
}

/* Finds the footer: a dynamic disk has a copy at its begin, with which the search begins. */
static int co_read_footer(BlkNode *node, GError **error)
{
    VpcState *s = node->opaque;
    BlkNode *file = node->file->node;
    uint64_t length = blk_node_length(file);
    uint8_t last[FOOTER_BYTES];

    if (length < FOOTER_BYTES) {
        return blk_error(error, -EINVAL, "File too small for a VHD header");
    }
    int ret = blk_co_pread(file, 0, FOOTER_BYTES, s->footer, 0);
    if (ret == 0) {
        ret = blk_co_pread(file, length - FOOTER_BYTES, FOOTER_BYTES, last, 0);
    }
    if (ret < 0) {
        return blk_error_errno(error, ret, "Could not read the VHD footer");
    }
    s->copy_at_begin = is_footer(s->footer) && blk_get_be32(s->footer + AT_TYPE) != TYPE_FIXED;
    if (s->copy_at_begin) {
        return 0;
    }
    if (!is_footer(last)) {
        bool cookie = memcmp(s->footer, footer_cookie, COOKIE_BYTES) == 0 ||
                      memcmp(last, footer_cookie, COOKIE_BYTES) == 0;
        return blk_error(error, -EINVAL, cookie ? "Incorrect header checksum" : "invalid VPC image");
    }
    memcpy(s->footer, last, FOOTER_BYTES);
    return 0;
}

static int parse_header(BlkNode *node, const uint8_t *h, GError **error)
{
    VpcState *s = node->opaque;
    uint64_t table = blk_get_be64(h + AT_H_TABLE), entries = blk_get_be32(h + AT_H_ENTRIES);
    uint32_t block = blk_get_be32(h + AT_H_BLOCK), version = blk_get_be32(h + AT_H_VERSION);

    if (memcmp(h, header_cookie, COOKIE_BYTES) != 0) {
        return blk_error(error, -EINVAL, "Invalid header magic");
    }
    if (checksum(h, HEADER_BYTES, AT_H_CHECKSUM) != blk_get_be32(h + AT_H_CHECKSUM)) {
        return blk_error(error, -EINVAL, "Incorrect checksum of the dynamic disk header");
    }
    if (version >> 16 != VERSION >> 16) {
        return blk_error(error, -ENOTSUP, "Unsupported version %" PRIu32 ".%" PRIu32 " of the dynamic disk header",
                         version >> 16, version & 0xffff);
    }
    if (block < SECTOR || (block & (block - 1)) != 0) {
        return blk_error(error, -EINVAL, "Invalid block size %" PRIu32, block);
    }
    if (block > MAX_BLOCK) {
        return blk_error(error, -ENOTSUP, "Unsupported block size %" PRIu32 ": the limit is 256 MiB", block);
    }
    s->table = (BlockTable) {
        .ops = &vpc_table, .offset = table, .blocks = (node->length + block - 1) / block, .block_size = block,
        .entry_bytes = ENTRY_BYTES,
    };
    s->bitmap_bytes = (block / SECTOR / 8 + SECTOR - 1) & ~(uint64_t)(SECTOR - 1);
    s->bitmap_bytes = MAX(s->bitmap_bytes, SECTOR);
    if (s->table.blocks > BLOCK_TABLE_MAX_BLOCKS) {
        return blk_error(error, -ENOTSUP, "Unsupported VHD: %" PRIu64 " blocks are too many", s->table.blocks);
    }
    if (s->table.blocks > entries) {
        return blk_error(error, -EINVAL, "Page table too small");
    }
    uint64_t length = blk_node_length(node->file->node);
    uint64_t bytes = (entries * ENTRY_BYTES + SECTOR - 1) & ~(uint64_t)(SECTOR - 1);
    if (table % SECTOR != 0 || table < FOOTER_BYTES || table > length || bytes > length - table) {
        return blk_error(error, -EINVAL, "Invalid VHD: a table of %" PRIu64 " blocks cannot be at offset %" PRIu64,
                         entries, table);
    }
    s->table_end = table + bytes;
    if (overlaps(s->header, HEADER_BYTES, table, bytes)) {
        return blk_error(error, -EINVAL, "Invalid VHD: its header and its table of blocks overlap");
    }
    return 0;
}

static int co_open_dynamic(BlkNode *node, GError **error)
{
    VpcState *s = node->opaque;
    BlkNode *file = node->file->node;
    BlkMetaHooks hooks = { .events = { BLK_EVENT_l1_update, BLK_EVENT_l1_update, BLK_EVENT_l2_update } };
    uint64_t length = blk_node_length(file);
    uint8_t header[HEADER_BYTES];

    s->header = blk_get_be64(s->footer + AT_DATA_OFFSET);
    if (s->header < FOOTER_BYTES || length < HEADER_BYTES || s->header > length - HEADER_BYTES) {
        return blk_error(error, -EINVAL, "Invalid VHD: its header cannot be at offset %" PRIu64, s->header);
    }
    int ret = blk_co_pread(file, s->header, HEADER_BYTES, header, 0);
    if (ret < 0) {
        return blk_error_errno(error, ret, "Could not read the VHD header");
    }
    ret = parse_header(node, header, error);
    if (ret == 0) {
        block_table_open(node, SECTOR, &hooks);
    }
    return ret;
}

static int vpc_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    VpcState *s = node->opaque;
    const BlkOpenFlags *flags = blk_node_open_flags(node);
    bool writes = !node->read_only && !flags->check_only;

    if (!blk_co_open_child(node, options, "file", BLK_ROLE_IMAGE, error)) {
        return -EINVAL;
    }
    int ret = co_read_footer(node, error);
    if (ret == 0) {
        ret = parse_footer(node, options, error);
    }
    if (ret == 0 && !s->fixed) {
        ret = co_open_dynamic(node, error);
    }
    if (ret == 0 && !s->fixed && writes) {
        ret = vpc_co_find_space(node, error);
    }
    node->caps = BLK_CAP_ZERO_INIT;
    s->table.writable = ret == 0 && writes;
    return ret;
}

/* A fixed disk keeps nothing. */
static int vpc_co_reopen_prepare(BlkNode *node, const BlkReopen *to, GError **error)
{
    const VpcState *s = node->opaque;

    return s->fixed ? 0 : block_table_co_reopen_prepare(node, to, error);
}

static void vpc_co_close(BlkNode *node)
{
    VpcState *s = node->opaque;

    (void)vpc_co_commit(node);                  /* who wants to know flushes first */
    block_table_close(node);
    g_clear_pointer(&s->ready, g_free);
}

static int vpc_co_info(BlkNode *node, BlkInfo *info, GError **error)
{
    const VpcState *s = node->opaque;

    info->cluster_size = s->fixed ? 0 : (uint32_t)s->table.block_size;
    return 0;
}

/* ---- create ---- */

typedef struct Geometry {
    unsigned cylinders, heads, track;
} Geometry;

/* The specification's, "CHS calculation": of at most that many sectors. */
static Geometry geometry_for(uint64_t sectors)
{
    Geometry g;

    sectors = MIN(sectors, MAX_GEOMETRY);
    if (sectors >= (uint64_t)MAX_CYLINDERS * MAX_HEADS * 63) {
        g.track = MAX_TRACK;
        g.heads = MAX_HEADS;
    } else {
        g.track = 17;
        g.heads = MAX(4, (unsigned)((sectors / g.track + 1023) / 1024));
        if (sectors / g.track >= g.heads * UINT64_C(1024) || g.heads > MAX_HEADS) {
            g.track = 31;
            g.heads = MAX_HEADS;
        }
        if (sectors / g.track >= g.heads * UINT64_C(1024)) {
            g.track = 63;
            g.heads = MAX_HEADS;
        }
    }
    g.cylinders = (unsigned)(sectors / g.track / g.heads);
    return g;
}

static uint64_t geometry_sectors(Geometry g)
{
    return (uint64_t)g.cylinders * g.heads * g.track;
}

/* The disk that the options ask for. */
static int plan_disk(const BlkOptions *options, uint64_t *sectors, Geometry *g, GError **error)
{
    uint64_t want = (blk_options_uint(options, "size") + SECTOR - 1) / SECTOR;

    *g = (Geometry) { MAX_CYLINDERS, MAX_HEADS, MAX_TRACK };
    if (!blk_options_bool(options, "force_size") && want <= MAX_GEOMETRY) {
        *g = geometry_for(want);
        for (uint64_t more = 1; geometry_sectors(*g) < want; more++) {
            *g = geometry_for(want + more);
        }
    }
    *sectors = geometry_sectors(*g) == MAX_GEOMETRY ? want : geometry_sectors(*g);
    if (*sectors > MAX_SECTORS) {
        return blk_error(error, -EFBIG, "The image size is too large for file format 'vpc'");
    }
    return 0;
}

static int vpc_check_create(const BlkOptions *options, GError **error)
{
    uint64_t sectors;
    Geometry g;

    return plan_disk(options, &sectors, &g, error);
}

static void make_footer(uint8_t *f, const BlkOptions *options, uint64_t sectors, Geometry g)
{
    bool fixed = blk_options_enum(options, "subformat") == 1;

    memset(f, 0, FOOTER_BYTES);
    memcpy(f, footer_cookie, COOKIE_BYTES);
    blk_put_be32(f + AT_FEATURES, 2);           /* the bit that is always set */
    blk_put_be32(f + AT_VERSION, VERSION);
    blk_put_be64(f + AT_DATA_OFFSET, fixed ? NO_OFFSET : FOOTER_BYTES);
    blk_put_be32(f + AT_TIME, (uint32_t)(time(NULL) - EPOCH));
    /* Readers know by these names which of both sizes holds: see uses_current_size(). */
    memcpy(f + AT_CREATOR, blk_options_bool(options, "force_size") ? "qem2" : "qemu", CREATOR_BYTES);
    blk_put_be32(f + AT_CREATOR_VERSION, 0x00050003);
    memcpy(f + AT_CREATOR_OS, "Wi2k", 4);
    blk_put_be64(f + AT_ORIGINAL_SIZE, sectors * SECTOR);
    blk_put_be64(f + AT_CURRENT_SIZE, sectors * SECTOR);
    blk_put_be16(f + AT_CYLINDERS, (uint16_t)g.cylinders);
    f[AT_HEADS] = (uint8_t)g.heads;
    f[AT_TRACK] = (uint8_t)g.track;
    blk_put_be32(f + AT_TYPE, fixed ? TYPE_FIXED : TYPE_DYNAMIC);
    for (unsigned i = 0; i < UUID_BYTES; i += 4) {
        blk_put_be32(f + AT_UUID + i, g_random_int());
    }
    blk_put_be32(f + AT_CHECKSUM, checksum(f, FOOTER_BYTES, AT_CHECKSUM));
}

static void make_header(uint8_t *h, uint32_t blocks)
{
    memset(h, 0, HEADER_BYTES);
    memcpy(h, header_cookie, COOKIE_BYTES);
    blk_put_be64(h + AT_H_DATA_OFFSET, NO_OFFSET);
    blk_put_be64(h + AT_H_TABLE, FOOTER_BYTES + HEADER_BYTES);
    blk_put_be32(h + AT_H_VERSION, VERSION);
    blk_put_be32(h + AT_H_ENTRIES, blocks);
    blk_put_be32(h + AT_H_BLOCK, DEFAULT_BLOCK);
    blk_put_be32(h + AT_H_CHECKSUM, checksum(h, HEADER_BYTES, AT_H_CHECKSUM));
}

/* The copy of the footer goes last: without it this is no image. */
static int co_create_dynamic(BlkNode *file, const uint8_t *footer, uint64_t sectors)
{
    uint64_t blocks = (sectors + DEFAULT_BLOCK / SECTOR - 1) / (DEFAULT_BLOCK / SECTOR);
    uint64_t bytes = (blocks * ENTRY_BYTES + SECTOR - 1) & ~(uint64_t)(SECTOR - 1), table = FOOTER_BYTES + HEADER_BYTES;
    g_autofree uint8_t *chunk = g_try_malloc(CHUNK_BYTES);
    uint8_t header[HEADER_BYTES];
    int ret = chunk ? 0 : -ENOMEM;

    make_header(header, (uint32_t)blocks);
    if (ret == 0) {
        memset(chunk, 0xff, CHUNK_BYTES);
        ret = blk_co_pwrite(file, FOOTER_BYTES, HEADER_BYTES, header, 0);
    }
    for (uint64_t done = 0; ret == 0 && done < bytes; done += CHUNK_BYTES) {
        ret = blk_co_pwrite(file, table + done, MIN(CHUNK_BYTES, bytes - done), chunk, 0);
    }
    if (ret == 0) {
        ret = blk_co_pwrite(file, table + bytes, FOOTER_BYTES, footer, 0);
    }
    return ret == 0 ? blk_co_pwrite(file, 0, FOOTER_BYTES, footer, 0) : ret;
}

static int vpc_co_create(BlkContext *ctx, BlkNode *file, const BlkOptions *options, GError **error)
{
    uint8_t footer[FOOTER_BYTES];
    uint64_t sectors;
    Geometry g;
    int ret = plan_disk(options, &sectors, &g, error);

    if (ret < 0) {
        return ret;
    }
    make_footer(footer, options, sectors, g);
    if (blk_options_enum(options, "subformat") == 1) {
        ret = block_table_co_clear(file, 0, sectors * SECTOR);
        if (ret == 0) {
            ret = blk_co_pwrite(file, sectors * SECTOR, FOOTER_BYTES, footer, 0);
        }
    } else {
        ret = co_create_dynamic(file, footer, sectors);
    }
    return ret < 0 ? blk_error_errno(error, ret, "Could not write the VHD image") : 0;
}

static const BlkFormatOps vpc_format = {
    .co_map = vpc_co_map,
    .co_reserve = vpc_co_reserve,
    .publish = vpc_publish,
    .cancel = vpc_cancel,
    .co_commit = vpc_co_commit,
};

const BlkDriver blk_driver_vpc = {
    .name = "vpc",
    .kind = BLK_FORMAT,
    .help = "virtual hard disk (VHD), dynamic or fixed",
    .options = vpc_options,
    .create_options = vpc_create_options,
    .instance_size = sizeof(VpcState),
    .probe = vpc_probe,
    .format = &vpc_format,
    .co_open = vpc_co_open,
    .co_close = vpc_co_close,
    .co_reopen_prepare = vpc_co_reopen_prepare,
    .co_reopen_commit = block_table_co_reopen_commit,
    .refresh_limits = vpc_refresh_limits,
    .co_info = vpc_co_info,
    .check_create = vpc_check_create,
    .co_create = vpc_co_create,
};
