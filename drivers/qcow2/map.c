/* SPDX-License-Identifier: MIT */
/*
 * map.c - where guest data lies: the walk from L1 through L2 (format specification, "Cluster mapping").
 *
 *     guest offset = | L1 index | L2 index | offset in cluster |
 *
 * Both tables are read through the metadata cache, in parts of a few KiB, so that an image of any size opens at once.
 */
#include "drivers/qcow2/qcow2.h"

int qcow2_co_l1_entry(BlkNode *node, uint64_t offset, uint64_t *entry)
{
    Qcow2 *q = node->opaque;
    uint64_t index = offset >> (q->cluster_bits + q->l2_bits);
    uint64_t place = q->header.l1_table_offset + index * 8;
    BlkMetaBlock *block;

    *entry = 0;
    if (index >= q->header.l1_size) {
        return 0;
    }
    int ret = blk_meta_co_get(q->meta, place, &block);
    if (ret < 0) {
        return ret;
    }
    *entry = blk_get_be64(block->data + (place - block->offset));
    blk_meta_put(q->meta, block);
    uint64_t table = *entry & QCOW2_OFFSET_MASK;
    if (table % q->cluster_size != 0 || table >= q->host_limit ||
        (table != 0 && table >= blk_node_length(node->file->node))) {
        return -EIO;
    }
    return 0;
}

/* How many subclusters from @sub on are like it. */
static unsigned run_of_subclusters(const Qcow2 *q, const Qcow2Entry *entry, unsigned sub)
{
    uint32_t data = entry->data >> sub & 1 ? ~entry->data : entry->data;
    uint32_t zero = entry->zero >> sub & 1 ? ~entry->zero : entry->zero;
    uint32_t different = ((data | zero) & q->all_subclusters) >> sub;

    return different ? (unsigned)__builtin_ctz(different) : (1u << (q->cluster_bits - q->subcluster_bits)) - sub;
}

/* Not where a table lies, nor in a corrupt image: then the write asks for a reservation, and fails. */
static bool may_write_in_place(const Qcow2 *q, uint64_t host_offset)
{
    bool on_table = !q->has_data_file && q->tables != NULL && qcow2_is_table(q, qcow2_cluster_of(q, host_offset));

    return q->tables != NULL && !q->corrupt && !on_table;
}

static int map_compressed(const Qcow2 *q, const Qcow2Entry *entry, uint64_t offset, BlkMapping *map)
{
    map->kind = BLK_MAP_COMPRESSED;
    map->whole_cluster = true;
    map->bytes = q->cluster_size - (offset & (q->cluster_size - 1));
    return qcow2_entry_extent(q, entry->word, &map->host_offset, &map->host_bytes);
}

/* Fills @map for guest @offset, whose entry is at @place, as far as the one entry gives the same answer. */
static int map_entry(const Qcow2 *q, const uint8_t *place, uint64_t offset, BlkMapping *map)
{
    const Qcow2Entry entry = qcow2_entry_get(q, place);
    uint64_t in_cluster = offset & (q->cluster_size - 1), extent_bytes;
    unsigned sub = (unsigned)(in_cluster >> q->subcluster_bits);
    bool has_space = qcow2_entry_has_space(q, entry.word);

    if (entry.word & QCOW2_COMPRESSED) {
        return map_compressed(q, &entry, offset, map);
    }
    int ret = qcow2_entry_extent(q, entry.word, &map->host_offset, &extent_bytes);
    if (ret < 0) {
        return ret;
    }
    map->host_offset = has_space ? (entry.word & QCOW2_OFFSET_MASK) + in_cluster : 0;
    if ((entry.data & entry.zero) || (entry.data && !has_space) ||
        (q->has_data_file && has_space && map->host_offset != offset)) {
        return -EIO;
    }
    map->kind = entry.zero >> sub & 1 ? BLK_MAP_ZERO : entry.data >> sub & 1 ? BLK_MAP_DATA : BLK_MAP_UNALLOCATED;
    map->in_place = map->kind == BLK_MAP_DATA && qcow2_entry_has_own_space(q, entry.word) &&
                    may_write_in_place(q, map->host_offset);
    map->may_have_holes = map->kind == BLK_MAP_DATA && q->may_have_holes;
    map->preallocated = map->kind != BLK_MAP_DATA && has_space;
    map->whole_cluster = qcow2_entry_moves(q, entry);
    map->bytes = ((uint64_t)(sub + run_of_subclusters(q, &entry, sub)) << q->subcluster_bits) - in_cluster;
    return 0;
}

/* Does @next, which lies @distance bytes behind the begin of @first, go on what @first began? */
static bool map_continues(const BlkMapping *first, const BlkMapping *next, uint64_t distance)
{
    if (next->kind != first->kind || next->in_place != first->in_place || next->preallocated != first->preallocated ||
        next->whole_cluster != first->whole_cluster || first->kind == BLK_MAP_COMPRESSED) {
        return false;
    }
    return !(first->kind == BLK_MAP_DATA || first->preallocated) || next->host_offset == first->host_offset + distance;
}

/* Does the word of an entry that cannot be contradict the format? One that only lies too far away does not, nor a payload
 * that cannot be where it is said to be: these are errors of their own cluster. */
static bool contradicts(const Qcow2 *q, uint64_t word)
{
    const uint64_t place = word & QCOW2_OFFSET_MASK;

    return q->has_data_file || (!(word & QCOW2_COMPRESSED) && (place % q->cluster_size != 0 || place < q->host_limit));
}

/* A request met an L2 entry that cannot be. An image that is open for writing is marked corrupt. */
static int co_bad_entry(BlkNode *node, uint64_t word, uint64_t guest)
{
    Qcow2 *q = node->opaque;
    static const char format[] = "the L2 entry %#" PRIx64 " of guest offset %#" PRIx64 " cannot be";

    return q->tables != NULL && contradicts(q, word) ? qcow2_co_corrupt(node, format, word, guest)
                                                     : qcow2_read_corrupt(node, format, word, guest);
}

int qcow2_co_map(BlkNode *node, uint64_t offset, uint64_t bytes, BlkMapping *map)
{
    Qcow2 *q = node->opaque;
    uint64_t table_span = UINT64_C(1) << (q->cluster_bits + q->l2_bits), l1_entry;
    BlkMetaBlock *block;
    bool readable = q->data && q->header.crypt_method == QCOW2_CRYPT_NONE;
    int ret = readable ? qcow2_co_l1_entry(node, offset, &l1_entry) : -ENOTSUP;

    if (ret == -EIO && l1_entry != 0) {
        return qcow2_read_corrupt(node, "the L1 entry %#" PRIx64 " of guest offset %#" PRIx64 " cannot be", l1_entry,
                                  offset);
    }
    if (ret < 0) {
        return ret;
    }
    *map = (BlkMapping){ .kind = BLK_MAP_UNALLOCATED, .child = q->data };
    if ((l1_entry & QCOW2_OFFSET_MASK) == 0) {
        map->bytes = MIN(bytes, table_span - (offset & (table_span - 1)));
        return 0;
    }
    uint64_t place = qcow2_l2_entry_offset(q, l1_entry, offset);
    ret = blk_meta_co_get_for(q->meta, place, BLK_EVENT_l2_load, &block);
    if (ret < 0) {
        return ret;
    }
    ret = map_entry(q, block->data + (place - block->offset), offset, map);
    if (ret < 0) {
        ret = co_bad_entry(node, blk_get_be64(block->data + (place - block->offset)), offset);
    }
    while (ret == 0 && map->bytes < bytes) {
        uint64_t there = offset + map->bytes;
        uint64_t at = place - block->offset + (qcow2_cluster_of(q, there) - qcow2_cluster_of(q, offset)) * q->l2_entry_bytes;
        BlkMapping next = { 0 };
        if (at >= MIN(q->cluster_size, 4096) || map_entry(q, block->data + at, there, &next) < 0 ||
            !map_continues(map, &next, map->bytes)) {
            break;
        }
        map->bytes += next.bytes;
    }
    blk_meta_put(q->meta, block);
    if (map->kind != BLK_MAP_COMPRESSED) {
        map->bytes = MIN(bytes, map->bytes);
    }
    return ret;
}

static int co_walk_locked(BlkNode *node, uint64_t *pos, Qcow2WalkFn *fn, void *opaque)
{
    Qcow2 *q = node->opaque;
    uint64_t table_span = UINT64_C(1) << (q->cluster_bits + q->l2_bits), l1_entry;
    BlkMetaBlock *block;
    int ret = qcow2_co_l1_entry(node, *pos, &l1_entry);

    if (ret < 0) {
        return ret;
    }
    if ((l1_entry & QCOW2_OFFSET_MASK) == 0) {
        *pos += table_span - (*pos & (table_span - 1));
        return 0;
    }
    uint64_t place = qcow2_l2_entry_offset(q, l1_entry, *pos);
    ret = blk_meta_co_get_for(q->meta, place, BLK_EVENT_l2_load, &block);
    if (ret < 0) {
        return ret;
    }
    for (uint64_t at = place - block->offset; at < MIN(q->cluster_size, 4096); at += q->l2_entry_bytes) {
        fn(q, *pos, blk_get_be64(block->data + at), !(l1_entry & QCOW2_COPIED), opaque);
        *pos += q->cluster_size;
    }
    blk_meta_put(q->meta, block);
    return 0;
}

int qcow2_co_walk(BlkNode *node, uint64_t *pos, Qcow2WalkFn *fn, void *opaque)
{
    Qcow2 *q = node->opaque;

    blk_co_mutex_lock(&q->l2_lock);
    int ret = co_walk_locked(node, pos, fn, opaque);
    blk_co_mutex_unlock(&q->l2_lock);
    return ret;
}
