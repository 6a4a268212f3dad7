/* SPDX-License-Identifier: MIT */
/*
 * vdi.c - format driver "vdi": disk images of VirtualBox.
 *
 *     0       header: 64 bytes of text, signature, version 1.1, sizes (format by VirtualBox' users' forum, "VDI")
 *     bmap    block map: 4 bytes for each MiB of the disk: the number of its block in the file, or what it is else
 *     data    blocks of 1 MiB, numbered from 0
 *
 * All numbers are little-endian. New blocks go behind all others. The header counts the blocks that are there, and
 * others write their next block where this count says: so it is raised, and stable, before an entry refers to a block.
 * A crash in between leaves a block that is counted and not used, which the next block that we write takes.
 *
 * Limitations: blocks of 1 MiB without a head of their own; no differencing images.
 */
#include "drivers/block_table.h"
#include "drivers/drivers.h"
#include "drivers/uuid.h"

#include <inttypes.h>
#include <string.h>

enum {
    SECTOR = 512,
    HEADER_BYTES = 512,             /* of ours and the peer's; the fields take less */
    HEADER_SIZE_FIELD = 0x180,      /* what its field says: from itself on, to the end of the fields */
    BLOCK_BYTES = 1 << 20,
    ENTRY_BYTES = 4,
    TYPE_DYNAMIC = 1,
    TYPE_STATIC = 2,
    CHUNK_BYTES = 1 << 20,
};

#define VDI_SIGNATURE   UINT32_C(0xbeda107f)
#define VDI_VERSION     UINT32_C(0x00010001)
#define ENTRY_FREE      UINT32_C(0xffffffff)    /* never written */
#define ENTRY_DISCARDED UINT32_C(0xfffffffe)    /* reads as zeroes */
#define MAX_BLOCKS      UINT64_C(0x1fffff80)    /* as the peer's, who counts bytes of the map in 31 bits */

/* Places of fields in the header. */
enum {
    AT_SIGNATURE = 0x40, AT_VERSION = 0x44, AT_HEADER_SIZE = 0x48, AT_TYPE = 0x4c, AT_MAP = 0x154, AT_DATA = 0x158,
    AT_SECTOR_SIZE = 0x168, AT_DISK_SIZE = 0x170, AT_BLOCK_SIZE = 0x178, AT_BLOCK_EXTRA = 0x17c, AT_BLOCKS = 0x180,
    AT_ALLOCATED = 0x184, AT_UUID = 0x188, AT_UUID_SNAPSHOT = 0x198, AT_UUID_LINK = 0x1a8, AT_UUID_PARENT = 0x1b8,
};

typedef struct VdiState {
    BlockTable table;
    uint64_t data;                  /* where block 0 lies in the file, bytes */
    uint32_t allocated;             /* as the header says */
    uint32_t next;                  /* no block from here on is used */
} VdiState;

static const BlkOption vdi_options[] = {
    { "file", BLK_OPTION_NODE, "the image file", .required = true },
    { NULL },
};

static const BlkOption vdi_create_options[] = {
    { "size", BLK_OPTION_SIZE, "size of the virtual disk", .max = BLK_MAX_LENGTH, .required = true },
    { "static", BLK_OPTION_BOOL, "give all blocks a place at once", "off" },
    { NULL },
};

static int vdi_probe(const uint8_t *head, size_t bytes, const char *filename)
{
    return bytes >= AT_SIGNATURE + 4 && blk_get_le32(head + AT_SIGNATURE) == VDI_SIGNATURE ? 100 : 0;
}

/* ---- the map ---- */

static uint64_t block_place(const VdiState *s, uint32_t index)
{
    return s->data + (uint64_t)index * BLOCK_BYTES;
}

static int vdi_decode(BlkNode *node, const uint8_t *entry, uint64_t *place)
{
    const VdiState *s = node->opaque;
    uint32_t index = blk_get_le32(entry);

    *place = index >= ENTRY_DISCARDED ? 0 : block_place(s, index);
    return *place != 0 && (index >= s->table.blocks || *place >= blk_node_length(node->file->node)) ? -EIO : 0;
}

static uint32_t block_number(const VdiState *s, uint64_t place)
{
    return (uint32_t)((place - s->data) / BLOCK_BYTES);
}

static void vdi_encode(BlkNode *node, uint8_t *entry, uint64_t place)
{
    blk_put_le32(entry, block_number(node->opaque, place));
}

/* The header will say that all blocks before @s->next are there. */
static int co_count_blocks(BlkNode *node)
{
    VdiState *s = node->opaque;
    BlkMetaBlock *header;
    int ret = s->allocated == s->next ? 0 : blk_meta_co_get(s->table.meta, 0, &header);

    if (ret == 0 && s->allocated != s->next) {
        s->allocated = s->next;
        blk_put_le32(header->data + AT_ALLOCATED, s->allocated);
        blk_meta_dirty(s->table.meta, header, BLK_META_COUNTS);
        blk_meta_put(s->table.meta, header);
    }
    return ret;
}

static int vdi_co_alloc(BlkNode *node, uint64_t block, uint64_t *place)
{
    VdiState *s = node->opaque;
    bool ours = block_table_take_free(node, place);

    if (!ours) {
        if (s->next >= s->table.blocks) {
            return -EIO;            /* the driver's own mistake: each block of the disk has one in the file at most */
        }
        *place = block_place(s, s->next);
    }
    int ret = block_table_co_clear(node->file->node, *place, BLOCK_BYTES);
    if (ret == 0 && !ours) {
        s->next++;
        ours = true;
    }
    ret = ret < 0 ? ret : co_count_blocks(node);
    if (ret < 0 && ours) {
        block_table_give_back(node, *place);
    }
    return ret;
}

/* Which blocks are used, and which may be given to others. */
static int vdi_co_find_space(BlkNode *node, GError **error)
{
    VdiState *s = node->opaque;
    BlockPlaces places;
    int ret = block_table_co_sound_places(node, BLOCK_BYTES, &places, error);

    s->next = 0;
    for (uint64_t i = 0; ret == 0 && i < places.n; i++) {
        for (; s->next < block_number(s, places.at[i].place); s->next++) {
            block_table_give_back(node, block_place(s, s->next));
        }
        s->next++;
    }
    g_free(places.at);
    return ret;
}

static const BlockTableOps vdi_table = {
    .decode = vdi_decode,
    .encode = vdi_encode,
    .co_alloc = vdi_co_alloc,
    .co_find_space = vdi_co_find_space,
};

/* ---- open and close ---- */

static int check_layout(const VdiState *s, uint64_t disk_size, const uint8_t *h, GError **error)
{
    uint64_t map_end = s->table.offset + s->table.blocks * ENTRY_BYTES;

    if (s->table.offset % SECTOR != 0) {
        return blk_error(error, -ENOTSUP, "unsupported VDI image (unaligned block map offset %#" PRIx64 ")",
                         s->table.offset);
    }
    if (s->data % SECTOR != 0) {
        return blk_error(error, -ENOTSUP, "unsupported VDI image (unaligned data offset %#" PRIx64 ")", s->data);
    }
    if (disk_size > MAX_BLOCKS * BLOCK_BYTES) {
        return blk_error(error, -ENOTSUP, "Unsupported VDI image size (size is %#" PRIx64 ", max supported is "
                         "%#" PRIx64 ")", disk_size, MAX_BLOCKS * BLOCK_BYTES);
    }
    if (s->table.blocks > MAX_BLOCKS) {
        return blk_error(error, -ENOTSUP, "unsupported VDI image (too many blocks %" PRIu64 ", max is %" PRIu64 ")",
                         s->table.blocks, MAX_BLOCKS);
    }
    if (disk_size > s->table.blocks * BLOCK_BYTES) {
        return blk_error(error, -ENOTSUP, "unsupported VDI image (disk size %" PRIu64 ", image bitmap has room for "
                         "%" PRIu64 ")", disk_size, s->table.blocks * BLOCK_BYTES);
    }
    if (s->table.offset < HEADER_BYTES || s->data < HEADER_BYTES || (s->data >= s->table.offset && s->data < map_end)) {
        return blk_error(error, -EINVAL, "Invalid VDI image: header, block map (at %#" PRIx64 ") and data (at %#" PRIx64
                         ") overlap", s->table.offset, s->data);
    }
    /* What is behind the data would be written over by new blocks. */
    if (s->data < s->table.offset && blk_get_le32(h + AT_BLOCKS) > 0) {
        return blk_error(error, -ENOTSUP, "unsupported VDI image (its block map is behind its data)");
    }
    return 0;
}

static int parse_header(BlkNode *node, const uint8_t *h, GError **error)
{
    VdiState *s = node->opaque;
    uint32_t signature = blk_get_le32(h + AT_SIGNATURE), version = blk_get_le32(h + AT_VERSION);
    uint32_t type = blk_get_le32(h + AT_TYPE), sector = blk_get_le32(h + AT_SECTOR_SIZE);
    uint32_t block = blk_get_le32(h + AT_BLOCK_SIZE), extra = blk_get_le32(h + AT_BLOCK_EXTRA);
    uint64_t disk_size = blk_get_le64(h + AT_DISK_SIZE);

    if (signature != VDI_SIGNATURE) {
        return blk_error(error, -EINVAL, "Image not in VDI format (bad signature %08" PRIx32 ")", signature);
    }
    if (version != VDI_VERSION) {
        return blk_error(error, -ENOTSUP, "unsupported VDI image (version %" PRIu32 ".%" PRIu32 ")", version >> 16,
                         version & 0xffff);
    }
    if (!uuid_is_null(h + AT_UUID_LINK)) {
        return blk_error(error, -ENOTSUP, "unsupported VDI image (non-NULL link UUID): differencing images cannot be "
                         "read");
    }
    if (!uuid_is_null(h + AT_UUID_PARENT)) {
        return blk_error(error, -ENOTSUP, "unsupported VDI image (non-NULL parent UUID): differencing images cannot be "
                         "read");
    }
    if (type != TYPE_DYNAMIC && type != TYPE_STATIC) {
        return blk_error(error, -ENOTSUP, "unsupported VDI image (type %" PRIu32 " is neither dynamic nor static)",
                         type);
    }
    if (sector != SECTOR) {
        return blk_error(error, -ENOTSUP, "unsupported VDI image (sector size %" PRIu32 " is not 512)", sector);
    }
    if (block != BLOCK_BYTES) {
        return blk_error(error, -ENOTSUP, "unsupported VDI image (block size %" PRIu32 " is not 1048576)", block);
    }
    if (extra != 0) {
        return blk_error(error, -ENOTSUP, "unsupported VDI image (blocks with %" PRIu32 " bytes before their data)",
                         extra);
    }
    s->table = (BlockTable) {
        .ops = &vdi_table, .offset = blk_get_le32(h + AT_MAP), .blocks = blk_get_le32(h + AT_BLOCKS),
        .block_size = BLOCK_BYTES, .entry_bytes = ENTRY_BYTES, .may_have_holes = type == TYPE_STATIC,
    };
    s->data = blk_get_le32(h + AT_DATA);
    s->allocated = blk_get_le32(h + AT_ALLOCATED);
    int ret = check_layout(s, disk_size, h, error);
    node->length = ret == 0 ? (disk_size + SECTOR - 1) & ~(uint64_t)(SECTOR - 1) : 0;
    return ret;
}

static int vdi_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    VdiState *s = node->opaque;
    BlkMetaHooks hooks = { .events = { BLK_EVENT_l1_update, BLK_EVENT_l1_update, BLK_EVENT_l2_update } };
    const BlkOpenFlags *flags = blk_node_open_flags(node);
    uint8_t header[HEADER_BYTES];

    if (!blk_co_open_child(node, options, "file", BLK_ROLE_IMAGE, error)) {
        return -EINVAL;
    }
    BlkNode *file = node->file->node;
    if (blk_node_length(file) < HEADER_BYTES) {
        return blk_error(error, -EINVAL, "Image not in VDI format (the file is shorter than its header)");
    }
    int ret = blk_co_pread(file, 0, HEADER_BYTES, header, 0);
    if (ret < 0) {
        return blk_error_errno(error, ret, "Could not read the VDI header");
    }
    ret = parse_header(node, header, error);
    if (ret < 0) {
        return ret;
    }
    if (s->table.offset + s->table.blocks * ENTRY_BYTES > blk_node_length(file)) {
        return blk_error(error, -EINVAL, "Invalid VDI image: the file ends within its block map");
    }
    node->caps = BLK_CAP_ZERO_INIT;
    block_table_open(node, SECTOR, &hooks);
    if (!node->read_only && !flags->check_only) {
        ret = vdi_co_find_space(node, error);
        s->table.writable = ret == 0;
    }
    return ret;
}

static void vdi_co_close(BlkNode *node)
{
    (void)block_table_co_end_writing(node);     /* who wants to know flushes first */
    block_table_close(node);
}

static int vdi_co_info(BlkNode *node, BlkInfo *info, GError **error)
{
    info->cluster_size = BLOCK_BYTES;
    return 0;
}

/* ---- check ---- */

typedef struct VdiCheck {
    const BlkCheckOptions *options;
    BlkCheckResult *result;
    uint8_t *used;                  /* a bit for each block */
    uint64_t allocated;
} VdiCheck;

static void check_entry(BlkNode *node, uint64_t block, const uint8_t *entry, uint64_t place, int ret, void *opaque)
{
    const VdiState *s = node->opaque;
    VdiCheck *check = opaque;
    uint32_t index = blk_get_le32(entry);

    if (index >= s->table.blocks) {
        check->result->corruptions++;
        blk_check_tell(check->options, "ERROR: block index %" PRIu64 " too large, is %" PRIu32, block, index);
        return;
    }
    check->allocated++;
    bool twice = check->used[index / 8] & 1 << index % 8;
    if (ret < 0 || twice) {
        check->result->corruptions++;
        blk_check_tell(check->options, "ERROR: block %" PRIu32 " of block index %" PRIu64 " is %s", index, block,
                       ret < 0 ? "behind the end of the file" : "also used by another");
    }
    check->used[index / 8] |= 1 << index % 8;
}

static int vdi_co_check(BlkNode *node, const BlkCheckOptions *options, BlkCheckResult *result, GError **error)
{
    VdiState *s = node->opaque;
    g_autofree uint8_t *used = g_try_malloc0(s->table.blocks / 8 + 1);
    VdiCheck check = { .options = options, .result = result, .used = used };
    int ret = used ? block_table_co_commit(node) : -ENOMEM;

    if (options->fix_errors || options->fix_leaks) {
        return blk_error(error, -ENOTSUP, "VDI images cannot be repaired: convert the image");
    }
    if (ret == 0) {
        ret = block_table_co_walk(node, check_entry, &check);
    }
    if (ret < 0) {
        return blk_error_errno(error, ret, "Could not check the block map");
    }
    if (check.allocated != s->allocated) {
        result->corruptions++;
        blk_check_tell(options, "ERROR: allocated blocks mismatch, is %" PRIu64 ", should be %" PRIu32, check.allocated,
                       s->allocated);
    }
    return 0;
}

/* ---- create ---- */

static int vdi_check_create(const BlkOptions *options, GError **error)
{
    uint64_t size = blk_options_uint(options, "size");

    if (size > MAX_BLOCKS * BLOCK_BYTES) {
        return blk_error(error, -ENOTSUP, "Unsupported VDI image size (size is %#" PRIx64 ", max supported is "
                         "%#" PRIx64 ")", size, MAX_BLOCKS * BLOCK_BYTES);
    }
    return 0;
}

/* The map of a new image: all entries are free, or each block has its own number. */
static int co_write_map(BlkNode *file, uint64_t blocks, bool all_there)
{
    g_autofree uint8_t *chunk = g_try_malloc(CHUNK_BYTES);
    uint64_t map_bytes = (blocks * ENTRY_BYTES + SECTOR - 1) & ~(uint64_t)(SECTOR - 1);
    int ret = chunk ? 0 : -ENOMEM;

    for (uint64_t done = 0; ret == 0 && done < map_bytes; done += CHUNK_BYTES) {
        uint64_t bytes = MIN(CHUNK_BYTES, map_bytes - done);
        for (uint64_t at = 0; at < bytes; at += ENTRY_BYTES) {
            uint64_t block = (done + at) / ENTRY_BYTES;
            blk_put_le32(chunk + at, block >= blocks ? 0 : all_there ? (uint32_t)block : ENTRY_FREE);
        }
        ret = blk_co_pwrite(file, HEADER_BYTES + done, bytes, chunk, 0);
    }
    return ret;
}

static int vdi_co_create(BlkContext *ctx, BlkNode *file, const BlkOptions *options, GError **error)
{
    static const char text[] = "<<< blkstack Virtual Disk Image >>>\n";
    uint64_t size = (blk_options_uint(options, "size") + SECTOR - 1) & ~(uint64_t)(SECTOR - 1);
    uint64_t blocks = (size + BLOCK_BYTES - 1) / BLOCK_BYTES;
    uint64_t data = HEADER_BYTES + ((blocks * ENTRY_BYTES + SECTOR - 1) & ~(uint64_t)(SECTOR - 1));
    bool all_there = blk_options_bool(options, "static");
    uint8_t h[HEADER_BYTES] = { 0 };

    memcpy(h, text, sizeof(text));
    blk_put_le32(h + AT_SIGNATURE, VDI_SIGNATURE);
    blk_put_le32(h + AT_VERSION, VDI_VERSION);
    blk_put_le32(h + AT_HEADER_SIZE, HEADER_SIZE_FIELD);
    blk_put_le32(h + AT_TYPE, all_there ? TYPE_STATIC : TYPE_DYNAMIC);
    blk_put_le32(h + AT_MAP, HEADER_BYTES);
    blk_put_le32(h + AT_DATA, (uint32_t)data);
    blk_put_le32(h + AT_SECTOR_SIZE, SECTOR);
    blk_put_le64(h + AT_DISK_SIZE, size);
    blk_put_le32(h + AT_BLOCK_SIZE, BLOCK_BYTES);
    blk_put_le32(h + AT_BLOCKS, (uint32_t)blocks);
    blk_put_le32(h + AT_ALLOCATED, all_there ? (uint32_t)blocks : 0);
    uuid_new(h + AT_UUID);
    uuid_new(h + AT_UUID_SNAPSHOT);
    int ret = co_write_map(file, blocks, all_there);
    if (ret == 0 && all_there) {
        ret = block_table_co_clear(file, data, blocks * BLOCK_BYTES);
    }
    if (ret == 0) {
        ret = blk_co_pwrite(file, 0, HEADER_BYTES, h, 0);
    }
    return ret < 0 ? blk_error_errno(error, ret, "Could not write the VDI image") : 0;
}

static const BlkFormatOps vdi_format = {
    .co_map = block_table_co_map,
    .co_reserve = block_table_co_reserve,
    .publish = block_table_publish,
    .cancel = block_table_cancel,
    .co_commit = block_table_co_commit,
};

const BlkDriver blk_driver_vdi = {
    .name = "vdi",
    .kind = BLK_FORMAT,
    .help = "disk image of VirtualBox, dynamic or static",
    .options = vdi_options,
    .create_options = vdi_create_options,
    .instance_size = sizeof(VdiState),
    .probe = vdi_probe,
    .format = &vdi_format,
    .co_open = vdi_co_open,
    .co_close = vdi_co_close,
    .co_reopen_prepare = block_table_co_reopen_prepare,
    .co_reopen_commit = block_table_co_reopen_commit,
    .refresh_limits = block_table_refresh_limits,
    .co_info = vdi_co_info,
    .co_check = vdi_co_check,
    .check_create = vdi_check_create,
    .co_create = vdi_co_create,
};
