/* SPDX-License-Identifier: MIT */
/*
 * parallels.c - format driver "parallels": expanding disks of Parallels Desktop and Virtuozzo (*.hdd, *.hds), read.
 *
 *     0   magic (16), version 2, heads, cylinders, cluster size in sectors, entries of the table
 *     36  sectors of the disk (8), "in use" mark, begin of data in sectors, flags, offset of an extension (8)
 *     64  block allocation table: 4 bytes for each cluster, 0: not here
 *
 * With the magic "WithoutFreeSpace" an entry is a sector of the file and sectors are counted by 32 bits; with
 * "WithouFreSpacExt" an entry counts clusters. All numbers are little-endian.
 *
 * Limitations: the extension, which holds dirty bitmaps, is not looked at; snapshots are files of their own, which the
 * description beside them (DiskDescriptor.xml) puts together and the option "backing" can.
 */
#include <blkstack/driver.h>

#include "core/little_endian.h"
#include "core/metacache.h"

#include <inttypes.h>

enum {
    SECTOR = 512,
    HEADER_BYTES = 64,
    MAGIC_BYTES = 16,
    VERSION = 2,
    ENTRY_BYTES = 4,
    META_BLOCK_BYTES = 4096,
    META_BLOCKS = 1024,
    MAX_CLUSTER_BYTES = 1 << 30,
    IN_USE = 0x746f6e59,            /* the mark of an image that somebody writes to, or has not closed */
};

typedef struct ParallelsState {
    uint64_t cluster_size;          /* bytes; any multiple of a sector */
    uint64_t entry_unit;            /* what entries count, bytes */
    uint64_t entries, data_begin;   /* data_begin: no cluster lies before the end of the table, bytes */
    uint64_t first_cluster;         /* where the header says that data begin, bytes */
    bool in_use;
    BlkMetaCache *meta;
} ParallelsState;

static const char magic_plain[] = "WithoutFreeSpace", magic_ext[] = "WithouFreSpacExt";

static const BlkOption parallels_options[] = {
    { "file", BLK_OPTION_NODE, "the image file", .required = true },
    { "backing", BLK_OPTION_NODE, "where unallocated clusters are read from (default: nowhere)" },
    { NULL },
};

static int parallels_probe(const uint8_t *head, size_t bytes, const char *filename)
{
    bool magic = bytes >= HEADER_BYTES && (memcmp(head, magic_plain, MAGIC_BYTES) == 0 ||
                                           memcmp(head, magic_ext, MAGIC_BYTES) == 0);

    return magic ? 100 : 0;
}

static int parse_header(BlkNode *node, const uint8_t *p, uint64_t file_length, GError **error)
{
    ParallelsState *s = node->opaque;
    bool ext = memcmp(p, magic_ext, MAGIC_BYTES) == 0;
    uint64_t sectors = ext ? blk_get_le64(p + 36) : blk_get_le32(p + 36);

    if (!ext && memcmp(p, magic_plain, MAGIC_BYTES) != 0) {
        return blk_error(error, -EINVAL, "Image is not in Parallels format");
    }
    if (blk_get_le32(p + 16) != VERSION) {
        return blk_error(error, -ENOTSUP, "Unsupported version %" PRIu32 " of the Parallels format",
                         blk_get_le32(p + 16));
    }
    s->cluster_size = (uint64_t)blk_get_le32(p + 28) * SECTOR;
    s->entry_unit = ext ? s->cluster_size : SECTOR;
    s->entries = blk_get_le32(p + 32);
    s->data_begin = HEADER_BYTES + s->entries * ENTRY_BYTES;
    s->in_use = blk_get_le32(p + 44) == IN_USE;
    s->first_cluster = (uint64_t)blk_get_le32(p + 48) * SECTOR;
    if (s->cluster_size == 0 || s->cluster_size > MAX_CLUSTER_BYTES) {
        return blk_error(error, -EINVAL, "Invalid image: clusters of %" PRIu64 " bytes", s->cluster_size);
    }
    if (sectors > BLK_MAX_LENGTH / SECTOR) {
        return blk_error(error, -EFBIG, "Invalid image: a disk of %" PRIu64 " sectors", sectors);
    }
    node->length = sectors * SECTOR;
    if (s->data_begin > file_length) {
        return blk_error(error, -EINVAL, "Invalid image: the file ends within its table of %" PRIu64 " clusters",
                         s->entries);
    }
    if (s->entries < node->length / s->cluster_size + (node->length % s->cluster_size != 0)) {
        return blk_error(error, -EINVAL, "Invalid image: a table of %" PRIu64 " clusters is too small for the disk",
                         s->entries);
    }
    return 0;
}

static int parallels_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    ParallelsState *s = node->opaque;
    static const BlkMetaHooks no_hooks;
    uint8_t header[HEADER_BYTES];
    BlkNode *file;
    int ret;

    if (!blk_co_open_child(node, options, "file", BLK_ROLE_IMAGE, error)) {
        return -EINVAL;
    }
    ret = blk_node_only_read(node, "Images of the format 'parallels' can only be read: open it read-only, or convert "
                             "it to qcow2", error);
    if (ret < 0) {
        return ret;
    }
    file = node->file->node;
    ret = blk_node_length(file) < HEADER_BYTES ? -EINVAL : blk_co_pread(file, 0, HEADER_BYTES, header, 0);
    if (ret < 0) {
        return blk_error_errno(error, ret, "Could not read the Parallels header");
    }
    ret = parse_header(node, header, blk_node_length(file), error);
    if (ret < 0) {
        return ret;
    }
    s->meta = blk_meta_new(node, META_BLOCK_BYTES, META_BLOCKS, &no_hooks);
    return blk_co_open_backing(node, options, NULL, NULL, error);
}

static void parallels_co_close(BlkNode *node)
{
    g_clear_pointer(&((ParallelsState *)node->opaque)->meta, blk_meta_free);
}

static void parallels_refresh_limits(BlkNode *node)
{
    const ParallelsState *s = node->opaque;

    node->limits.read_align = node->limits.write_align = 1;
    node->limits.max_transfer = 0;
    /* Clusters of 63 sectors are usual in old images: what is told is the largest power of two that divides them. */
    node->limits.cluster_size = node->limits.subcluster_size = (uint32_t)(s->cluster_size & -s->cluster_size);
}

/* Whether the entry of cluster @index, in a block of the table, is what goes on after @count clusters from @first. */
static bool goes_on(const ParallelsState *s, uint32_t first, uint32_t entry, uint64_t count)
{
    return first == 0 ? entry == 0 : entry == first + count * (s->cluster_size / s->entry_unit);
}

static int parallels_co_map(BlkNode *node, uint64_t offset, uint64_t bytes, BlkMapping *map)
{
    const ParallelsState *s = node->opaque;
    uint64_t file_length = blk_node_length(node->file->node);
    uint64_t place = HEADER_BYTES + offset / s->cluster_size * ENTRY_BYTES;
    uint64_t in_cluster = offset % s->cluster_size, count = 1;
    BlkMetaBlock *block;
    int ret = blk_meta_co_get(s->meta, place, &block);

    if (ret < 0) {
        return ret;
    }
    const uint8_t *at = block->data + (place - block->offset), *end = block->data + META_BLOCK_BYTES;
    uint32_t entry = blk_get_le32(at);
    while (count * s->cluster_size - in_cluster < bytes && at + count * ENTRY_BYTES < end &&
           goes_on(s, entry, blk_get_le32(at + count * ENTRY_BYTES), count)) {
        count++;
    }
    blk_meta_put(s->meta, block);
    *map = (BlkMapping){
        .kind = BLK_MAP_UNALLOCATED, .child = node->file, .bytes = MIN(bytes, count * s->cluster_size - in_cluster),
    };
    if (entry != 0) {
        uint64_t cluster = entry * s->entry_unit;
        if (cluster < s->data_begin || cluster >= file_length) {
            return -EIO;
        }
        map->kind = BLK_MAP_DATA;
        map->host_offset = cluster + in_cluster;
        /* Clusters behind the one in which the file ends are asked for, and refused, by themselves. */
        uint64_t inside = ((file_length - cluster - 1) / s->cluster_size + 1) * s->cluster_size - in_cluster;

        map->bytes = MIN(map->bytes, inside);
    }
    return 0;
}

static const BlkFormatOps parallels_format = {
    .co_map = parallels_co_map,
};

static int parallels_co_info(BlkNode *node, BlkInfo *info, GError **error)
{
    info->cluster_size = 0;         /* the peer does not tell it either */
    return 0;
}

/* ---- check ---- */

typedef struct ParallelsCheck {
    const BlkCheckOptions *options;
    BlkCheckResult *result;
    GArray *places;                 /* of uint64_t: where clusters lie, bytes */
    uint64_t last;                  /* of the cluster before; 0: it is not here */
    uint64_t file_length;
} ParallelsCheck;

static void check_entry(const ParallelsState *s, uint64_t index, uint32_t entry, ParallelsCheck *check)
{
    uint64_t place = entry * s->entry_unit;

    if (entry != 0) {
        check->result->allocated_clusters++;
        check->result->fragmented_clusters += check->last != 0 && place != check->last + s->cluster_size;
        check->result->image_end_offset = MAX(check->result->image_end_offset, place + s->cluster_size);
        g_array_append_val(check->places, place);
    }
    if (entry != 0 && (place < s->data_begin || place >= check->file_length)) {
        check->result->corruptions++;
        blk_check_tell(check->options, "ERROR cluster %" PRIu64 " is %s", index,
                       place < s->data_begin ? "over the table" : "outside image");
    }
    check->last = place;
}

static int co_check_table(BlkNode *node, ParallelsCheck *check)
{
    const ParallelsState *s = node->opaque;
    BlkMetaBlock *block;

    for (uint64_t i = 0; i < s->entries;) {
        uint64_t place = HEADER_BYTES + i * ENTRY_BYTES;
        int ret = blk_meta_co_get(s->meta, place, &block);
        if (ret < 0) {
            return ret;
        }
        for (; i < s->entries && place < block->offset + META_BLOCK_BYTES; place += ENTRY_BYTES) {
            check_entry(s, i++, blk_get_le32(block->data + (place - block->offset)), check);
        }
        blk_meta_put(s->meta, block);
    }
    return 0;
}

static int compare_places(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void check_overlaps(const ParallelsState *s, ParallelsCheck *check)
{
    const uint64_t *place = (const uint64_t *)(const void *)check->places->data;

    g_array_sort(check->places, compare_places);
    for (guint i = 1; i < check->places->len; i++) {
        if (place[i] - place[i - 1] < s->cluster_size) {
            check->result->corruptions++;
            blk_check_tell(check->options, "ERROR cluster at offset %" PRIu64 " overlaps another", place[i]);
        }
    }
}

static void check_end(const ParallelsState *s, ParallelsCheck *check)
{
    uint64_t end = check->result->image_end_offset;

    if (check->result->allocated_clusters == 0) {
        end = check->result->image_end_offset = MAX(s->first_cluster, s->data_begin);
    }
    if (check->file_length > end) {
        uint64_t leaked = check->file_length - end;
        check->result->leaks = (leaked + s->cluster_size - 1) / s->cluster_size;
        blk_check_tell(check->options, "ERROR space leaked at the end of the image %" PRIu64, leaked);
    }
}

static int parallels_co_check(BlkNode *node, const BlkCheckOptions *options, BlkCheckResult *result, GError **error)
{
    const ParallelsState *s = node->opaque;
    g_autoptr(GArray) places = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    ParallelsCheck check = {
        .options = options, .result = result, .places = places,
        .file_length = (blk_node_length(node->file->node) + SECTOR - 1) / SECTOR * SECTOR,
    };

    result->total_clusters = s->entries;
    if (s->in_use) {
        result->corruptions++;
        blk_check_tell(options, "ERROR image was not closed correctly");
    }
    int ret = co_check_table(node, &check);
    if (ret < 0) {
        return blk_error_errno(error, ret, "Could not read the table of clusters");
    }
    check_overlaps(s, &check);
    check_end(s, &check);
    if ((options->fix_errors || options->fix_leaks) && (result->corruptions || result->leaks)) {
        blk_check_tell(options, "Nothing was repaired: Parallels images can only be read; convert the image to qcow2");
    }
    return 0;
}

const BlkDriver blk_driver_parallels = {
    .name = "parallels",
    .kind = BLK_FORMAT,
    .help = "expanding disk image of Parallels and Virtuozzo, read-only",
    .options = parallels_options,
    .instance_size = sizeof(ParallelsState),
    .probe = parallels_probe,
    .format = &parallels_format,
    .co_open = parallels_co_open,
    .co_close = parallels_co_close,
    .refresh_limits = parallels_refresh_limits,
    .co_info = parallels_co_info,
    .co_check = parallels_co_check,
};
