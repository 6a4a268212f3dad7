/* SPDX-License-Identifier: MIT */
/*
 * resize.c - change of a qcow2 image's length; an image that holds nothing any more.
 *
 * Growing: what an interrupted shrinking left behind the end is dropped; a larger L1 table if needed (a copy in new clusters,
 * to which the header switches when it is stable); then what must read as zeroes; then the length in the header.
 *
 * Shrinking: first the length in the header, so that a crash never leaves a longer disk without its content; then all that is
 * mapped behind the new end is dropped, and the L2 tables there; the L1 table is replaced if it can be a cluster shorter.
 * The end of the file is cut off when the image is closed (punch.c).
 */
#include "core/engine.h"
#include "drivers/qcow2/qcow2.h"

enum {
    HEADER_SIZE_AT = 24,            /* place of the field in the header: bytes */
    HEADER_L1_AT = 36,              /* number of entries, then offset */
};

static uint64_t round_up(const Qcow2 *q, uint64_t offset)
{
    return (offset + q->cluster_size - 1) & ~(q->cluster_size - 1);
}

/* Makes @length the one in the header, stable. */
static int co_write_length(BlkNode *node, uint64_t length)
{
    Qcow2 *q = node->opaque;
    uint8_t field[8];

    blk_put_be64(field, length);
    int ret = qcow2_co_switch(node, HEADER_SIZE_AT, field, sizeof(field));
    if (ret == 0) {
        q->header.size = length;
        node->length = length;
    }
    return ret;
}

/* Lets the header refer to the L1 table at @offset. */
static int co_switch_l1(BlkNode *node, uint64_t offset, uint64_t entries)
{
    Qcow2 *q = node->opaque;
    uint64_t old_offset = q->header.l1_table_offset, old_bytes = q->header.l1_size * UINT64_C(8);
    uint8_t field[12];

    blk_put_be32(field, (uint32_t)entries);
    blk_put_be64(field + 4, offset);
    if (entries > q->header.l1_size) {
        blk_co_event(node->file->node, BLK_EVENT_l1_grow_activate_table);
    }
    int ret = qcow2_co_switch(node, HEADER_L1_AT, field, sizeof(field));
    if (ret < 0) {
        qcow2_co_table_drop(node, offset, entries * 8);
        return ret;
    }
    q->header.l1_table_offset = offset;
    q->header.l1_size = (uint32_t)entries;
    qcow2_co_table_drop(node, old_offset, old_bytes);
    return 0;
}

static int co_replace_l1_locked(BlkNode *node, uint64_t entries)
{
    Qcow2 *q = node->opaque;
    uint8_t *table = NULL;
    uint64_t offset;
    int ret = qcow2_co_table_read(node, q->header.l1_table_offset, MIN(q->header.l1_size, entries) * 8, entries * 8, &table);

    bool grows = entries > q->header.l1_size;
    if (ret == 0 && grows) {
        blk_co_event(node->file->node, BLK_EVENT_l1_grow_alloc_table);
    }
    if (ret == 0) {
        /* Commits all changes of the old table first: what the copy refers to is stable. */
        ret = qcow2_co_table_write(node, table, entries * 8,
                                   grows ? BLK_EVENT_l1_grow_write_table : BLK_EVENT_l1_shrink_write_table, &offset);
    }
    blk_buffer_free(table);
    return ret < 0 ? ret : co_switch_l1(node, offset, entries);
}

int qcow2_co_replace_l1(BlkNode *node, uint64_t entries)
{
    Qcow2 *q = node->opaque;

    blk_co_mutex_lock(&q->l2_lock);
    int ret = co_replace_l1_locked(node, entries);
    blk_co_mutex_unlock(&q->l2_lock);
    return ret;
}

static int co_grow_l1(BlkNode *node, uint64_t length)
{
    Qcow2 *q = node->opaque;
    uint64_t entries = qcow2_l1_entries_for(&q->header, length);

    if (entries <= q->header.l1_size) {
        return 0;
    }
    if (entries * 8 > QCOW2_MAX_L1_BYTES) {
        return -EFBIG;
    }
    return qcow2_co_replace_l1(node, entries);
}

/* What another program may have left in the last cluster, behind the old end, must read as zeroes. */
static int co_clear_tail(BlkNode *node, uint64_t old_length)
{
    Qcow2 *q = node->opaque;
    uint64_t bytes = round_up(q, old_length) - old_length;
    uint8_t *buf = bytes > 0 ? blk_engine_buffer_get(node) : NULL;
    struct iovec vec = { .iov_base = buf, .iov_len = bytes };
    BlkRequest req = { .offset = old_length, .bytes = bytes, .iov = { .vec = &vec, .count = 1 } };

    if (bytes == 0) {
        return 0;
    }
    int ret = buf ? blk_engine_co_preadv(node, &req) : -ENOMEM;
    if (ret == 0 && !node->backing && blk_buffer_is_zero(buf, bytes)) {
        blk_engine_buffer_put(node, buf);
        return 0;
    }
    blk_engine_buffer_put(node, buf);
    return ret < 0 ? ret : blk_engine_co_pwrite_zeroes(node, &req);
}

/* Hides what a longer backing has between the old end and the new one, where nothing is mapped. */
static int co_hide_backing(BlkNode *node, uint64_t old_length, uint64_t length)
{
    Qcow2 *q = node->opaque;
    uint64_t start = round_up(q, old_length);
    uint64_t end = node->backing ? MIN(length, blk_node_length(node->backing->node)) : 0;
    BlkRequest req = { .offset = start, .bytes = end > start ? round_up(q, end) - start : 0 };

    return req.bytes > 0 ? blk_engine_co_pwrite_zeroes(node, &req) : 0;
}

/* Zeroes that take up space in the file. */
static int co_write_zero_data(BlkNode *file, uint64_t offset, uint64_t bytes)
{
    uint64_t chunk = MIN(bytes, UINT64_C(1) << 20);
    void *zeroes = blk_buffer_try_alloc(file, chunk);
    int ret = zeroes ? 0 : -ENOMEM;

    if (zeroes) {
        memset(zeroes, 0, chunk);
    }
    for (uint64_t done = 0; ret == 0 && done < bytes; done += chunk) {
        ret = blk_co_pwrite(file, offset + done, MIN(chunk, bytes - done), zeroes, 0);
    }
    blk_buffer_free(zeroes);
    return ret;
}

/* The same without taking space where the file has none yet. */
static int co_extend(BlkNode *file, uint64_t offset, uint64_t bytes)
{
    uint64_t end = offset + bytes, inside = MIN(end, MAX(offset, blk_node_length(file))) - offset;
    int ret = inside > 0 ? blk_co_pwrite_zeroes(file, offset, inside, BLK_REQ_UNMAP) : 0;

    if (ret < 0 || inside == bytes || blk_co_truncate(file, end, BLK_PREALLOC_OFF, NULL) == 0) {
        return ret;
    }
    return blk_co_pwrite_zeroes(file, offset + inside, bytes - inside, BLK_REQ_UNMAP);
}

/* Gives clusters from @start to @end host space that reads as zeroes. */
static int co_preallocate(BlkNode *node, uint64_t start, uint64_t end, BlkPrealloc prealloc)
{
    Qcow2 *q = node->opaque;

    for (uint64_t pos = round_up(q, start); pos < end;) {
        BlkReservation res = {
            .offset = pos, .bytes = round_up(q, end) - pos, .kind = BLK_MAP_DATA, .preallocate = true,
        };
        int ret = qcow2_co_reserve(node, &res);
        if (ret < 0) {
            return ret;
        }
        BlkNode *file = res.child->node;
        uint64_t bytes = q->has_data_file ? MIN(res.bytes, end - pos) : res.bytes;
        if (prealloc == BLK_PREALLOC_FULL) {
            ret = co_write_zero_data(file, res.host_offset, bytes);
        } else if (prealloc == BLK_PREALLOC_METADATA) {
            ret = co_extend(file, res.host_offset, bytes);
        } else {
            ret = blk_co_pwrite_zeroes(file, res.host_offset, bytes, 0);
        }
        if (ret < 0) {
            qcow2_cancel(node, &res);
            return ret;
        }
        qcow2_publish(node, &res);
        pos += res.bytes;
    }
    return 0;
}

/* ---- what is behind the end ---- */

/* Makes all clusters from @length on unallocated: behind the end nothing is read, and else the backing is meant to be. */
static int co_drop_mappings(BlkNode *node, uint64_t length)
{
    Qcow2 *q = node->opaque;
    uint64_t end = (uint64_t)q->header.l1_size << (q->cluster_bits + q->l2_bits);

    for (uint64_t pos = round_up(q, length); pos < end;) {
        BlkMapping map;
        int ret = qcow2_co_map(node, pos, end - pos, &map);
        if (ret < 0) {
            return ret;
        }
        if (map.kind == BLK_MAP_UNALLOCATED && !map.preallocated) {
            pos += map.bytes;
            continue;
        }
        uint64_t start = pos & ~(q->cluster_size - 1);
        BlkReservation res = {
            .offset = start, .bytes = round_up(q, pos + map.bytes) - start, .kind = BLK_MAP_UNALLOCATED, .bare = true,
        };
        ret = qcow2_co_reserve(node, &res);
        if (ret < 0) {
            return ret;
        }
        qcow2_publish(node, &res);
        pos = start + res.bytes;
    }
    return 0;
}

/* Drops the L2 tables from L1 entry @first on, which say nothing any more. */
static int co_drop_tables_locked(BlkNode *node, uint64_t first)
{
    Qcow2 *q = node->opaque;

    blk_co_event(node->file->node, BLK_EVENT_l1_shrink_free_l2_clusters);
    for (uint64_t i = first; i < q->header.l1_size; i++) {
        uint64_t place = q->header.l1_table_offset + i * 8, table;
        BlkMetaBlock *block;
        int ret = blk_meta_co_get(q->meta, place, &block);
        if (ret < 0) {
            return ret;
        }
        uint8_t *entry = block->data + (place - block->offset);
        table = blk_get_be64(entry) & QCOW2_OFFSET_MASK;
        if (table != 0) {
            blk_put_be64(entry, 0);
            blk_meta_dirty(q->meta, block, BLK_META_MAP);
        }
        blk_meta_put(q->meta, block);
        if (table != 0) {
            qcow2_co_table_drop(node, table, q->cluster_size);
        }
    }
    return 0;
}

static int co_drop_tables(BlkNode *node, uint64_t length)
{
    Qcow2 *q = node->opaque;
    uint64_t entries = MAX(qcow2_l1_entries_for(&q->header, length), 1);

    blk_co_mutex_lock(&q->l2_lock);
    int ret = co_drop_tables_locked(node, entries);
    if (ret == 0 && round_up(q, entries * 8) < round_up(q, q->header.l1_size * UINT64_C(8))) {
        ret = co_replace_l1_locked(node, entries);
    }
    blk_co_mutex_unlock(&q->l2_lock);
    return ret;
}

/* ---- both ways ---- */

static int co_grow(BlkNode *node, uint64_t length, BlkPrealloc prealloc)
{
    uint64_t old_length = node->length;
    int ret = co_drop_mappings(node, old_length);

    if (ret == 0) {
        ret = co_grow_l1(node, length);
    }
    if (ret == 0) {
        ret = co_clear_tail(node, old_length);
    }
    if (ret == 0) {
        ret = co_hide_backing(node, old_length, length);
    }
    if (ret == 0 && prealloc != BLK_PREALLOC_OFF) {
        ret = co_preallocate(node, old_length, length, prealloc);
    }
    if (ret == 0) {
        ret = qcow2_co_commit(node);
    }
    return ret < 0 ? ret : co_write_length(node, length);
}

static int co_shrink(BlkNode *node, uint64_t length)
{
    Qcow2 *q = node->opaque;
    int ret = co_write_length(node, length);

    if (ret == 0) {
        ret = co_drop_mappings(node, length);
    }
    if (ret == 0) {
        ret = co_drop_tables(node, length);
    }
    if (ret == 0) {
        ret = qcow2_co_settle(node);
    }
    if (ret == 0) {
        blk_co_mutex_lock(&q->alloc_lock);
        ret = qcow2_co_refcount_trim(node);
        blk_co_mutex_unlock(&q->alloc_lock);
    }
    return ret < 0 ? ret : qcow2_co_commit_all(node);
}

/* An external data file is as long as the disk. */
static int co_resize_data_file(BlkNode *node, uint64_t length, GError **error)
{
    Qcow2 *q = node->opaque;

    if (!q->has_data_file || blk_node_length(q->data->node) == length) {
        return 0;
    }
    int ret = blk_co_truncate(q->data->node, length, BLK_PREALLOC_OFF, error);
    if (ret < 0) {
        g_prefix_error(error, "could not change the length of the data file: ");
    }
    return ret;
}

int qcow2_co_truncate(BlkNode *node, uint64_t length, BlkPrealloc prealloc, GError **error)
{
    Qcow2 *q = node->opaque;
    int ret;

    if (!q->tables) {
        return blk_error(error, -EROFS, "the image was opened for its metadata only");
    }
    if (q->header.nb_snapshots > 0 && q->header.version < 3) {
        return blk_error(error, -ENOTSUP, "Can't resize a v2 image which has snapshots: amend it to compat=1.1 first");
    }
    if (length < node->length && prealloc != BLK_PREALLOC_OFF) {
        return blk_error(error, -EINVAL, "preallocation is for growing an image, not for shrinking it");
    }
    if (q->data_file_raw && length > node->length && prealloc == BLK_PREALLOC_OFF) {
        prealloc = BLK_PREALLOC_METADATA;
    }
    ret = length > node->length ? co_resize_data_file(node, length, error) : 0;
    if (ret < 0) {
        return ret;
    }
    ret = qcow2_co_recover(node);
    if (ret == 0) {
        ret = length >= node->length ? co_grow(node, length, prealloc) : co_shrink(node, length);
    }
    if (ret < 0) {
        return blk_error_errno(error, ret, node->length == length ? "the length is changed, but what is behind the end "
                               "could not be given back" : "could not change the length of the image");
    }
    return co_resize_data_file(node, length, error);
}

int qcow2_co_make_empty(BlkNode *node, GError **error)
{
    Qcow2 *q = node->opaque;

    blk_co_event(node->file->node, BLK_EVENT_empty_image_prepare);
    int ret = !q->tables ? -EROFS : q->failed ? q->failed : co_drop_mappings(node, 0);

    if (ret == 0) {
        blk_co_mutex_lock(&q->l2_lock);
        ret = co_drop_tables_locked(node, 0);
        blk_co_mutex_unlock(&q->l2_lock);
    }
    if (ret == 0) {
        ret = qcow2_co_settle(node);
    }
    return ret < 0 ? blk_error_errno(error, ret, "could not drop what the image holds") : 0;
}
