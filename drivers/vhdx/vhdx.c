/* SPDX-License-Identifier: MIT */
/*
 * vhdx.c - format driver "vhdx": the BAT, and opening and checking of images; see vhdx.h.
 *
 * An entry of the BAT is the place of a block in the file, a multiple of 1 MiB, and its state in the lowest three bits. New
 * blocks go behind all that is in the file.
 */
#include "drivers/vhdx/vhdx.h"

#include "drivers/drivers.h"

#include <inttypes.h>

static const BlkOption vhdx_options[] = {
    { "file", BLK_OPTION_NODE, "the image file", .required = true },
    { NULL },
};

static int vhdx_probe(const uint8_t *head, size_t bytes, const char *filename)
{
    return bytes >= 8 && memcmp(head, VHDX_FILE_SIGNATURE, 8) == 0 ? 100 : 0;
}

/* ---- the BAT ---- */

/* Behind the entries of each chunk there is one for its bitmap. */
static uint64_t vhdx_entry_index(BlkNode *node, uint64_t block)
{
    const VhdxState *s = node->opaque;

    return block + block / s->chunk_blocks;
}

static int vhdx_decode(BlkNode *node, const uint8_t *entry, uint64_t *place)
{
    const VhdxState *s = node->opaque;
    uint64_t number = blk_get_le64(entry), at = number & ~(uint64_t)(VHDX_MIB - 1);
    unsigned state = number & VHDX_BLOCK_STATE;
    uint64_t length = blk_node_length(node->file->node);

    *place = 0;
    if (state <= VHDX_UNMAPPED) {
        return 0;
    }
    if (state != VHDX_FULLY_PRESENT || at >= length || vhdx_is_taken(s, at, s->table.block_size)) {
        return -EIO;
    }
    *place = at;
    return 0;
}

static void vhdx_encode(BlkNode *node, uint8_t *entry, uint64_t place)
{
    blk_put_le64(entry, place | VHDX_FULLY_PRESENT);
}

static int vhdx_co_alloc(BlkNode *node, uint64_t block, uint64_t *place)
{
    VhdxState *s = node->opaque;
    bool reuse = block_table_take_free(node, place);

    *place = reuse ? *place : s->end;
    int ret = vhdx_co_announce(node, true);
    ret = ret < 0 ? ret : block_table_co_clear(node->file->node, *place, s->table.block_size);
    if (ret < 0 && reuse) {
        block_table_give_back(node, *place);
    }
    if (ret == 0 && !reuse) {
        s->end += s->table.block_size;
    }
    return ret;
}

static bool vhdx_is_ready(BlkNode *node, uint64_t block)
{
    return ((VhdxState *)node->opaque)->data_announced;
}

static int vhdx_co_make_ready(BlkNode *node, uint64_t block, uint64_t place)
{
    return vhdx_co_announce(node, true);
}

/* Where new blocks go. */
static int vhdx_co_find_space(BlkNode *node, GError **error)
{
    VhdxState *s = node->opaque;
    BlockPlaces places;
    int ret = block_table_co_sound_places(node, s->table.block_size, &places, error);
    const VhdxExtent *last = &g_array_index(s->extents, VhdxExtent, s->extents->len - 1);

    s->end = last->offset + last->bytes;
    if (ret == 0 && places.n > 0) {
        s->end = MAX(s->end, places.at[places.n - 1].place + s->table.block_size);
    }
    g_free(places.at);
    return ret;
}

static const BlockTableOps vhdx_table = {
    .entry_index = vhdx_entry_index,
    .decode = vhdx_decode,
    .encode = vhdx_encode,
    .co_alloc = vhdx_co_alloc,
    .is_ready = vhdx_is_ready,
    .co_make_ready = vhdx_co_make_ready,
    .co_find_space = vhdx_co_find_space,
    .co_end_writing = vhdx_co_log_clear,        /* one that stays is replayed, once more, by who opens the image */
};

/* ---- open and close ---- */

static int open_table(BlkNode *node, GError **error)
{
    VhdxState *s = node->opaque;
    BlockTable *t = &s->table;
    BlkMetaHooks hooks = {
        .freeze = vhdx_log_freeze, .opaque = node,
        .events = { BLK_EVENT_l1_update, BLK_EVENT_l1_update, BLK_EVENT_l2_update },
        .co_log = vhdx_co_log, .log_blocks = VHDX_LOG_BLOCKS,
    };

    if (t->blocks > 0 && (vhdx_entry_index(node, t->blocks - 1) + 1) * VHDX_BAT_ENTRY > s->bat.bytes) {
        return blk_error(error, -EINVAL, "Invalid VHDX: its BAT of %" PRIu64 " bytes is too short for %" PRIu64 " blocks",
                         s->bat.bytes, t->blocks);
    }
    t->ops = &vhdx_table;
    t->offset = s->bat.offset;
    t->entry_bytes = VHDX_BAT_ENTRY;
    t->may_have_holes = true;
    block_table_open(node, VHDX_LOG_SECTOR, &hooks);
    return 0;
}

static int vhdx_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    VhdxState *s = node->opaque;
    const BlkOpenFlags *flags = blk_node_open_flags(node);
    uint8_t signature[8];

    if (!blk_co_open_child(node, options, "file", BLK_ROLE_IMAGE, error)) {
        return -EINVAL;
    }
    int ret = blk_co_pread(node->file->node, 0, sizeof(signature), signature, 0);
    if (ret < 0) {
        return blk_error_errno(error, ret, "Could not read the VHDX file identifier");
    }
    if (memcmp(signature, VHDX_FILE_SIGNATURE, sizeof(signature)) != 0) {
        return blk_error(error, -EINVAL, "Image not in VHDX format (its file identifier is missing)");
    }
    ret = vhdx_co_read_header(node->file->node, &s->header, error);
    ret = ret < 0 ? ret : vhdx_co_replay(node, error);
    ret = ret < 0 ? ret : vhdx_co_read_regions(node, error);
    ret = ret < 0 ? ret : vhdx_co_read_metadata(node, error);
    ret = ret < 0 ? ret : open_table(node, error);
    node->caps = BLK_CAP_ZERO_INIT;
    if (ret == 0 && !node->read_only && !flags->check_only) {
        ret = vhdx_co_find_space(node, error);
        s->table.writable = ret == 0;
    }
    return ret;
}

static void vhdx_co_close(BlkNode *node)
{
    VhdxState *s = node->opaque;

    (void)block_table_co_end_writing(node);     /* who wants to know flushes first */
    block_table_close(node);
    g_clear_pointer(&s->extents, g_array_unref);
}

static int vhdx_co_info(BlkNode *node, BlkInfo *info, GError **error)
{
    info->cluster_size = (uint32_t)((VhdxState *)node->opaque)->table.block_size;
    return 0;
}

/* ---- check ---- */

static int vhdx_co_check(BlkNode *node, const BlkCheckOptions *options, BlkCheckResult *result, GError **error)
{
    VhdxState *s = node->opaque;
    BlockPlaces places = { .n = 0 };
    int ret = block_table_co_commit(node);

    ret = ret < 0 ? ret : block_table_co_places(node, s->table.block_size, &places);
    BlockPlace last = ret == 0 && places.n > 0 ? places.at[places.n - 1] : (BlockPlace) { .place = 0 };
    bool is_cut = last.place != 0 && last.place + s->table.block_size > blk_node_length(node->file->node);
    g_free(places.at);
    if (ret < 0) {
        return blk_error_errno(error, ret, "Could not check the BAT");
    }
    if (places.bad > 0) {
        blk_check_tell(options, "ERROR: BAT: %" PRIu64 " entries cannot be, first that of block %" PRIu64, places.bad,
                       places.first_bad);
    }
    if (places.overlaps > 0) {
        blk_check_tell(options, "ERROR: BAT: %" PRIu64 " blocks lie where others do, first blocks %" PRIu64 " and %" PRIu64
                       " (at offset %#" PRIx64 ")", places.overlaps, places.overlap[0].block, places.overlap[1].block,
                       places.overlap[1].place);
    }
    if (is_cut) {
        blk_check_tell(options, "ERROR: BAT: the file ends within block %" PRIu64 " (at offset %#" PRIx64 "): it was cut off",
                       last.block, last.place);
    }
    result->corruptions = places.bad + places.overlaps + is_cut;
    result->corruptions_fixed = s->replayed;
    s->replayed = false;
    return 0;
}

static const BlkFormatOps vhdx_format = {
    .co_map = block_table_co_map,
    .co_reserve = block_table_co_reserve,
    .publish = block_table_publish,
    .cancel = block_table_cancel,
    .co_commit = block_table_co_commit,
};

const BlkDriver blk_driver_vhdx = {
    .name = "vhdx",
    .kind = BLK_FORMAT,
    .help = "virtual hard disk version 2 (VHDX), dynamic or fixed",
    .options = vhdx_options,
    .create_options = vhdx_create_options,
    .instance_size = sizeof(VhdxState),
    .probe = vhdx_probe,
    .format = &vhdx_format,
    .co_open = vhdx_co_open,
    .co_close = vhdx_co_close,
    .co_reopen_prepare = block_table_co_reopen_prepare,
    .co_reopen_commit = block_table_co_reopen_commit,
    .refresh_limits = block_table_refresh_limits,
    .co_info = vhdx_co_info,
    .co_check = vhdx_co_check,
    .check_create = vhdx_check_create,
    .co_create = vhdx_co_create,
};
