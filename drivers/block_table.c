/* SPDX-License-Identifier: MIT */
/*
 * block_table.c - formats that map a disk by one table; see block_table.h.
 *
 * A block is reserved alone. Where it has a place, a reservation only says so, for two reasons: zeroes, which the
 * engine writes to the host space, and what a driver has to do before an old block is written to.
 */
#include "drivers/block_table.h"

#include "core/node.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    CACHE_BYTES = 4 << 20,          /* of the table in memory, at the most */
    WALK_BYTES = 1 << 20,
};

/* What a reservation holds, in priv. */
enum { PRIV_AT, PRIV_NEW };

void block_table_open(BlkNode *node, size_t meta_bytes, const BlkMetaHooks *hooks)
{
    BlockTable *t = node->opaque;
    uint64_t most = MIN(t->blocks * t->entry_bytes, CACHE_BYTES) / meta_bytes;

    t->meta = blk_meta_new(node, meta_bytes, most + 2, hooks);
    t->free = g_array_new(FALSE, FALSE, sizeof(uint64_t));
}

void block_table_close(BlkNode *node)
{
    BlockTable *t = node->opaque;

    g_clear_pointer(&t->meta, blk_meta_free);
    g_clear_pointer(&t->free, g_array_unref);
}

void block_table_refresh_limits(BlkNode *node)
{
    const BlockTable *t = node->opaque;

    node->limits.read_align = node->limits.write_align = 1;
    node->limits.max_transfer = 0;
    node->limits.zeroes_align = 1;
    node->limits.discard_align = node->limits.cluster_size = node->limits.subcluster_size = (uint32_t)t->block_size;
}

static uint64_t entry_place(BlkNode *node, uint64_t block)
{
    const BlockTable *t = node->opaque;

    return t->offset + (t->ops->entry_index ? t->ops->entry_index(node, block) : block) * t->entry_bytes;
}

static bool is_ready(BlkNode *node, uint64_t block)
{
    const BlockTable *t = node->opaque;

    return t->writable && (!t->ops->is_ready || t->ops->is_ready(node, block));
}

static int co_find(BlkNode *node, uint64_t block, uint64_t *place)
{
    const BlockTable *t = node->opaque;
    uint64_t at = entry_place(node, block);
    BlkMetaBlock *part;
    int ret = blk_meta_co_get(t->meta, at, &part);

    if (ret == 0) {
        ret = t->ops->decode(node, part->data + (at - part->offset), place);
        blk_meta_put(t->meta, part);
    }
    return ret;
}

static int co_map_block(BlkNode *node, uint64_t offset, BlkMapping *map)
{
    const BlockTable *t = node->opaque;
    uint64_t block = offset / t->block_size, in_block = offset % t->block_size, place;
    int ret = co_find(node, block, &place);

    if (ret < 0) {
        return ret;
    }
    *map = (BlkMapping) { .kind = BLK_MAP_ZERO, .child = node->file, .bytes = t->block_size - in_block };
    if (place != 0) {
        map->kind = BLK_MAP_DATA;
        map->host_offset = place + in_block;
        map->in_place = is_ready(node, block);
        map->may_have_holes = t->may_have_holes;
    }
    return 0;
}

int block_table_co_map(BlkNode *node, uint64_t offset, uint64_t bytes, BlkMapping *map)
{
    int ret = co_map_block(node, offset, map);

    while (ret == 0 && map->bytes < bytes) {
        BlkMapping next;
        if (co_map_block(node, offset + map->bytes, &next) < 0 || next.kind != map->kind ||
            next.in_place != map->in_place ||
            (map->kind == BLK_MAP_DATA && next.host_offset != map->host_offset + map->bytes)) {
            break;              /* an error is reported when somebody asks there */
        }
        map->bytes += next.bytes;
    }
    map->bytes = ret == 0 ? MIN(map->bytes, bytes) : 0;
    return ret;
}

/* ---- changes ---- */

int block_table_co_clear(BlkNode *file, uint64_t place, uint64_t bytes)
{
    uint64_t length = blk_node_length(file), inside = MIN(bytes, length - MIN(length, place));
    int ret = inside > 0 ? blk_co_pwrite_zeroes(file, place, inside, BLK_REQ_UNMAP) : 0;

    return ret == 0 && inside < bytes ? blk_co_truncate(file, place + bytes, BLK_PREALLOC_OFF, NULL) : ret;
}

bool block_table_take_free(BlkNode *node, uint64_t *place)
{
    BlockTable *t = node->opaque;
    bool there = t->free->len > 0;

    if (there) {
        *place = g_array_index(t->free, uint64_t, t->free->len - 1);
        g_array_set_size(t->free, t->free->len - 1);
    }
    return there;
}

void block_table_give_back(BlkNode *node, uint64_t place)
{
    g_array_append_val(((BlockTable *)node->opaque)->free, place);
}

/* The block lies at @place, which is 0 if it is new. */
static int co_reserve_locked(BlkNode *node, BlkReservation *res, uint64_t block, uint64_t place)
{
    const BlockTable *t = node->opaque;
    int ret = 0;

    res->priv[PRIV_NEW] = place == 0;
    if (place == 0) {
        ret = t->ops->co_alloc(node, block, &place);
    } else if (!is_ready(node, block)) {
        ret = t->ops->co_make_ready(node, block, place);
    }
    res->host_offset = place + res->offset % t->block_size;
    return ret;
}

int block_table_co_reserve(BlkNode *node, BlkReservation *res)
{
    BlockTable *t = node->opaque;
    uint64_t block = res->offset / t->block_size, at = entry_place(node, block), place;
    bool data = res->kind == BLK_MAP_DATA;
    BlkMetaBlock *part;
    int ret = !t->writable ? -EROFS : res->kind == BLK_MAP_COMPRESSED ? -ENOTSUP : 0;

    if (ret == 0 && blk_meta_wants_commit(t->meta)) {
        ret = blk_meta_co_commit(t->meta);
    }
    ret = ret < 0 ? ret : blk_meta_co_get(t->meta, at, &part);
    if (ret < 0) {
        return ret;
    }
    res->bytes = MIN(res->bytes, t->block_size - res->offset % t->block_size);
    res->host_bytes = res->bytes;
    res->child = node->file;
    res->slice = part;
    res->priv[PRIV_AT] = at - part->offset;
    ret = t->ops->decode(node, part->data + res->priv[PRIV_AT], &place);
    if (ret == 0) {
        g_assert(data || place != 0);       /* what reads as zeroes already is not asked for */
        res->rest_is_there = data;
        res->zero_host = data ? BLK_HOST_KEEP : BLK_HOST_ZERO;
        blk_co_mutex_lock(&t->alloc_lock);
        ret = co_reserve_locked(node, res, block, place);
        blk_co_mutex_unlock(&t->alloc_lock);
    }
    if (ret < 0) {
        blk_meta_put(t->meta, part);
    }
    return ret;
}

void block_table_publish(BlkNode *node, BlkReservation *res)
{
    BlockTable *t = node->opaque;
    BlkMetaBlock *part = res->slice;

    if (res->priv[PRIV_NEW]) {
        t->ops->encode(node, part->data + res->priv[PRIV_AT], res->host_offset - res->offset % t->block_size);
        blk_meta_dirty(t->meta, part, BLK_META_MAP);
    }
    blk_meta_put(t->meta, part);
}

void block_table_cancel(BlkNode *node, BlkReservation *res)
{
    BlockTable *t = node->opaque;

    if (res->priv[PRIV_NEW]) {
        block_table_give_back(node, res->host_offset - res->offset % t->block_size);
    }
    blk_meta_put(t->meta, res->slice);
}

int block_table_co_commit(BlkNode *node)
{
    BlockTable *t = node->opaque;

    return t->writable ? blk_meta_co_commit(t->meta) : 0;
}

/* ---- who writes ---- */

int block_table_co_end_writing(BlkNode *node)
{
    BlockTable *t = node->opaque;
    int ret = block_table_co_commit(node);

    return ret == 0 && t->writable && t->ops->co_end_writing ? t->ops->co_end_writing(node) : ret;
}

int block_table_co_reopen_prepare(BlkNode *node, const BlkReopen *to, GError **error)
{
    BlockTable *t = node->opaque;

    if (t->writable != to->read_only) {
        return 0;
    }
    if (!to->read_only) {
        blk_meta_co_forget(t->meta, 0, UINT64_MAX);
        g_array_set_size(t->free, 0);
        return t->ops->co_find_space(node, error);
    }
    int ret = block_table_co_end_writing(node);
    return ret < 0 ? blk_error_errno(error, ret, "The image '%s' cannot become read-only, since its table of blocks could not "
                                     "be written", blk_node_filename(node)) : 0;
}

void block_table_co_reopen_commit(BlkNode *node)
{
    BlockTable *t = node->opaque;

    t->writable = !node->read_only;
}

/* ---- the whole table ---- */

int block_table_co_walk(BlkNode *node, BlockTableFn *fn, void *opaque)
{
    const BlockTable *t = node->opaque;
    BlkNode *file = node->file->node;
    uint64_t length = blk_node_length(file), begin = 0, end = 0;       /* what of the file is in memory */
    g_autofree uint8_t *buf = g_try_malloc(WALK_BYTES);

    if (!buf) {
        return -ENOMEM;
    }
    for (uint64_t block = 0; block < t->blocks; block++) {
        uint64_t at = entry_place(node, block), place;
        if (at + t->entry_bytes > end) {
            begin = at;
            end = begin + WALK_BYTES;
            uint64_t there = MIN(end, MAX(length, begin)) - begin;
            memset(buf + there, 0, WALK_BYTES - there);
            int ret = blk_co_pread(file, begin, there, buf, 0);
            if (ret < 0) {
                return ret;
            }
        }
        int ret = t->ops->decode(node, buf + (at - begin), &place);
        if (ret < 0 || place != 0) {
            fn(node, block, buf + (at - begin), ret < 0 ? 0 : place, ret, opaque);
        }
    }
    return 0;
}

static void collect(BlkNode *node, uint64_t block, const uint8_t *entry, uint64_t place, int ret, void *opaque)
{
    BlockPlaces *places = opaque;

    if (ret < 0) {
        places->first_bad = places->bad++ == 0 ? block : places->first_bad;
        return;
    }
    if (places->n == places->room) {
        uint64_t room = MAX(1024, places->room * 2);
        BlockPlace *more = g_try_renew(BlockPlace, places->at, room);
        if (!more) {
            places->ret = -ENOMEM;
            return;
        }
        places->at = more;
        places->room = room;
    }
    places->at[places->n++] = (BlockPlace) { place, block };
}

static int compare_places(const void *a, const void *b)
{
    const BlockPlace *x = a, *y = b;

    return x->place != y->place ? (x->place < y->place ? -1 : 1) : x->block < y->block ? -1 : x->block > y->block;
}

int block_table_co_places(BlkNode *node, uint64_t stride, BlockPlaces *places)
{
    *places = (BlockPlaces) { .ret = 0 };
    int ret = block_table_co_walk(node, collect, places);

    ret = ret < 0 ? ret : places->ret;
    if (ret < 0 || places->n == 0) {
        return ret;
    }
    qsort(places->at, places->n, sizeof(*places->at), compare_places);
    for (uint64_t i = 1; i < places->n; i++) {
        if (places->at[i].place - places->at[i - 1].place < stride && places->overlaps++ == 0) {
            memcpy(places->overlap, &places->at[i - 1], sizeof(places->overlap));
        }
    }
    return 0;
}

int block_table_co_sound_places(BlkNode *node, uint64_t stride, BlockPlaces *places, GError **error)
{
    static const char advice[] = "the image is damaged: open it read-only and convert it";
    int ret = block_table_co_places(node, stride, places);

    if (ret < 0) {
        return blk_error_errno(error, ret, "Could not read the table of blocks");
    }
    if (places->bad > 0) {
        return blk_error(error, -EIO, "The place of block %" PRIu64 " cannot be: %s", places->first_bad, advice);
    }
    if (places->overlaps > 0) {
        return blk_error(error, -EIO, "Blocks %" PRIu64 " and %" PRIu64 " lie at the same place, %#" PRIx64 ": %s",
                         places->overlap[0].block, places->overlap[1].block, places->overlap[1].place, advice);
    }
    return 0;
}
