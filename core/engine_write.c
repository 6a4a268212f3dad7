/* SPDX-License-Identifier: MIT */
/*
 * engine_write.c - guest writes of a format node that are stored plainly.
 *
 * Data that may be overwritten where it lies is, under a shared lock of its range. All else changes the mapping, under
 * the exclusive lock of its clusters: host space is reserved, whole units of mapping are written there (what the guest did
 * not write is read from where it was), then the mapping is published. A failure before that changes nothing.
 */
#include "core/engine.h"
#include "core/node.h"

#include <string.h>

#define WRITE_MAX_ALLOCATION (UINT64_C(4) << 20)        /* bytes of clusters that one allocating step locks */
#define WRITE_MAX_ZEROES     (UINT64_C(2) << 20)        /* bytes of zeroes that are written from one buffer */

static uint64_t cluster_start(const BlkNode *node, uint64_t offset)
{
    return offset & ~(uint64_t)(node->limits.cluster_size - 1);
}

static uint64_t cluster_end(const BlkNode *node, uint64_t offset)
{
    return cluster_start(node, offset + node->limits.cluster_size - 1);
}

static int co_map(BlkNode *node, uint64_t offset, uint64_t bytes, BlkMapping *map)
{
    return node->driver->format->co_map(node, offset, bytes, map);
}

static bool writes_in_place(const BlkMapping *map)
{
    return map->kind == BLK_MAP_DATA && map->in_place;
}

/* Writes from *done on as far as the data may be overwritten where it lies. The range is locked shared. */
static int co_write_in_place(BlkNode *node, const BlkRequest *req, uint64_t *done)
{
    while (*done < req->bytes) {
        BlkMapping map;
        int ret = co_map(node, req->offset + *done, req->bytes - *done, &map);
        if (ret < 0 || !writes_in_place(&map)) {
            return ret;
        }
        uint64_t bytes = MIN(map.bytes, req->bytes - *done);
        blk_co_event(map.child->node, BLK_EVENT_write_aio);
        ret = blk_co_pwritev(map.child->node, map.host_offset, bytes, blk_iov_advance(req->iov, *done), 0);
        if (ret < 0) {
            return ret;
        }
        *done += bytes;
    }
    return 0;
}

/*
 * What must be given a new place to write at @offset, and as far as @end while the same is needed: whole subclusters, or
 * whole clusters where the rest of the cluster moves along. Empty if there is nothing: another writer was here first.
 */
static int co_find_unplaced(BlkNode *node, uint64_t offset, uint64_t end, uint64_t *first, uint64_t *last)
{
    *first = *last = offset;
    for (uint64_t pos = offset; pos < end;) {
        BlkMapping map;
        int ret = co_map(node, pos, end - pos, &map);
        if (ret < 0 || writes_in_place(&map)) {
            return ret;
        }
        uint64_t unit = map.whole_cluster ? node->limits.cluster_size : node->limits.subcluster_size;
        if (pos == offset) {
            *first = offset & ~(unit - 1);
        }
        pos = MIN(end, pos + map.bytes);
        *last = (pos + unit - 1) & ~(unit - 1);
    }
    return 0;
}

/* A write of whole units of mapping, of which the guest writes only the middle. */
typedef struct CowWrite {
    uint64_t offset, bytes;
    uint64_t head, tail;            /* bytes that are copied, before and behind the guest's */
    uint8_t *buffer;                /* head, then tail */
    struct iovec *vec;
    BlkIov iov;                     /* of all */
} CowWrite;

static void cow_clear(CowWrite *cow)
{
    blk_buffer_free(cow->buffer);
    g_free(cow->vec);
}

/* Reads what is to be copied and puts it around the guest's data. */
static int co_cow_prepare(BlkNode *node, CowWrite *cow, BlkIov guest)
{
    uint64_t middle = cow->bytes - cow->head - cow->tail;
    int ret = 0;

    if (cow->head == 0 && cow->tail == 0) {
        cow->iov = guest;
        return 0;
    }
    cow->buffer = blk_buffer_try_alloc(node->file->node, cow->head + cow->tail);
    cow->vec = g_try_new0(struct iovec, guest.count + 2);
    if (!cow->buffer || !cow->vec) {
        return -ENOMEM;
    }
    blk_co_event(node->file->node, BLK_EVENT_cow_read);
    if (cow->head > 0) {
        ret = blk_engine_co_read_padded(node, cow->offset, cow->head, cow->buffer);
    }
    if (ret == 0 && cow->tail > 0) {
        ret = blk_engine_co_read_padded(node, cow->offset + cow->head + middle, cow->tail, cow->buffer + cow->head);
    }
    if (ret < 0) {
        return ret;
    }
    unsigned n = 0;
    size_t placed;
    if (cow->head > 0) {
        cow->vec[n++] = (struct iovec){ .iov_base = cow->buffer, .iov_len = cow->head };
    }
    n += blk_iov_fill(guest, middle, cow->vec + n, guest.count, &placed);
    if (cow->tail > 0) {
        cow->vec[n++] = (struct iovec){ .iov_base = cow->buffer + cow->head, .iov_len = cow->tail };
    }
    cow->iov = (BlkIov){ .vec = cow->vec, .count = n };
    blk_co_event(node->file->node, BLK_EVENT_cow_write);
    return 0;
}

/* Writes @bytes to reserved space, from the guest's @offset on, and publishes or cancels the reservation. */
static int co_write_reserved(BlkNode *node, BlkReservation *res, uint64_t offset, uint64_t bytes, BlkIov iov)
{
    BlkNode *file = res->child->node;

    blk_co_event(file, BLK_EVENT_write_aio);
    int ret = blk_co_pwritev(file, res->host_offset + (offset - res->offset), bytes, iov, 0);
    if (ret < 0) {
        node->driver->format->cancel(node, res);
    } else {
        blk_engine_publish(node, res);
    }
    return ret;
}

/* Writes to the units from @start on, the first of which has the request's *done, in a new place. */
static int co_write_units_locked(BlkNode *node, const BlkRequest *req, uint64_t *done, uint64_t start, uint64_t bytes)
{
    BlkReservation res = { .offset = start, .bytes = bytes, .kind = BLK_MAP_DATA };
    uint64_t pos = req->offset + *done, end = req->offset + req->bytes;
    int ret = node->driver->format->co_reserve(node, &res);

    if (ret < 0) {
        return ret;
    }
    uint64_t until = MIN(end, start + res.bytes), last = start + res.bytes;
    if (res.child->role == BLK_ROLE_DATA) {
        last = MAX(until, MIN(last, node->length));     /* an external data file is no longer than the disk */
    }
    if (res.rest_is_there) {
        start = pos;
        last = until;
    }
    CowWrite cow = { .offset = start, .bytes = last - start, .head = pos - start, .tail = last - until };
    ret = co_cow_prepare(node, &cow, blk_iov_advance(req->iov, *done));
    if (ret < 0) {
        node->driver->format->cancel(node, &res);
    } else {
        ret = co_write_reserved(node, &res, cow.offset, cow.bytes, cow.iov);
    }
    cow_clear(&cow);
    if (ret == 0) {
        *done = until - req->offset;
    }
    return ret;
}

/* Writes from *done on what has no place yet, in one step, before @end. The clusters are locked exclusively. */
static int co_write_new_locked(BlkNode *node, const BlkRequest *req, uint64_t *done, uint64_t end)
{
    uint64_t first, last;
    int ret = co_find_unplaced(node, req->offset + *done, MIN(end, req->offset + req->bytes), &first, &last);

    return ret < 0 || first == last ? ret : co_write_units_locked(node, req, done, first, last - first);
}

static int co_write_allocating(BlkNode *node, const BlkRequest *req, uint64_t *done)
{
    BlkEngine *engine = node->core->engine;
    uint64_t start = cluster_start(node, req->offset + *done), end = cluster_end(node, req->offset + req->bytes);
    BlkRangeHold hold;

    end = MIN(end, start + MAX(WRITE_MAX_ALLOCATION, node->limits.cluster_size));
    blk_co_range_lock(&engine->clusters, &hold, start, end - start, true);
    int ret = co_write_new_locked(node, req, done, end);
    blk_range_unlock(&engine->clusters, &hold);
    return ret;
}

static int co_write_plain(BlkNode *node, const BlkRequest *req)
{
    BlkEngine *engine = node->core->engine;
    uint64_t done = 0;
    int ret = 0;

    while (ret == 0 && done < req->bytes) {
        BlkRangeHold hold;
        blk_co_range_lock(&engine->clusters, &hold, req->offset + done, req->bytes - done, false);
        ret = co_write_in_place(node, req, &done);
        blk_range_unlock(&engine->clusters, &hold);
        if (ret == 0 && done < req->bytes) {
            ret = co_write_allocating(node, req, &done);
        }
    }
    return ret;
}

int blk_engine_co_write_plain_locked(BlkNode *node, uint64_t offset, uint64_t bytes, BlkIov iov)
{
    BlkRequest req = { .offset = offset, .bytes = bytes, .iov = iov };
    uint64_t done = 0;
    int ret = 0;

    while (ret == 0 && done < bytes) {
        ret = co_write_in_place(node, &req, &done);
        if (ret == 0 && done < bytes) {
            ret = co_write_new_locked(node, &req, &done, offset + bytes);
        }
    }
    return ret;
}

int blk_engine_co_pwritev(BlkNode *node, BlkRequest *req)
{
    return req->flags & BLK_REQ_COMPRESSED || node->caps & BLK_CAP_COMPRESSED_ONLY
           ? blk_engine_co_write_compressed(node, req) : co_write_plain(node, req);
}

/* ---- zeroes and discard ---- */

static bool reads_as_zeroes(BlkNode *node, const BlkMapping *map)
{
    return map->kind == BLK_MAP_ZERO || (map->kind == BLK_MAP_UNALLOCATED && !node->backing);
}

/* Is there nothing to do? Zeroes that were written become a mapping; a discard leaves free what is. */
static bool is_dropped(BlkNode *node, const BlkMapping *map, BlkMapKind kind, bool unmap)
{
    if (map->kind == BLK_MAP_ZERO) {
        return !(unmap && map->preallocated);
    }
    return kind == BLK_MAP_UNALLOCATED && map->kind == BLK_MAP_UNALLOCATED && !map->preallocated && !node->backing;
}

/* How much of the @bytes from @offset on can be dropped at once: with what @map tells of goes the rest of its last cluster.
 * 0: only part of a compressed cluster is to go. */
static uint64_t bytes_to_drop(const BlkNode *node, const BlkMapping *map, uint64_t offset, uint64_t bytes)
{
    uint64_t whole = cluster_end(node, offset + map->bytes) - offset;

    if (map->kind == BLK_MAP_COMPRESSED && (offset != cluster_start(node, offset) || whole > bytes)) {
        return 0;
    }
    return MIN(bytes, whole);
}

/* Zeroes the host space, where the driver asks for it. What lies behind the end of its file is zeroes already. */
static int co_zero_host(const BlkReservation *res)
{
    BlkNode *host = res->child->node;
    uint64_t length = blk_node_length(host);
    uint64_t bytes = res->host_offset < length ? MIN(res->host_bytes, length - res->host_offset) : 0;

    if (res->zero_host == BLK_HOST_KEEP || bytes == 0) {
        return 0;
    }
    if (res->zero_host == BLK_HOST_ZERO) {
        return blk_co_pwrite_zeroes(host, res->host_offset, bytes, res->unmap ? BLK_REQ_UNMAP : 0);
    }
    int ret = blk_co_pwrite_zeroes(host, res->host_offset, bytes, BLK_REQ_UNMAP | BLK_REQ_NO_FALLBACK);
    return ret == -ENOTSUP ? 0 : ret;
}

int blk_engine_co_drop_locked(BlkNode *node, uint64_t offset, uint64_t bytes, BlkMapKind kind, unsigned flags)
{
    for (uint64_t done = 0; done < bytes;) {
        BlkMapping map;
        int ret = co_map(node, offset + done, bytes - done, &map);
        if (ret < 0) {
            return ret;
        }
        if (is_dropped(node, &map, kind, flags & BLK_REQ_UNMAP)) {
            done += map.bytes;
            continue;
        }
        BlkReservation res = {
            .offset = offset + done, .bytes = bytes_to_drop(node, &map, offset + done, bytes - done), .kind = kind,
            .unmap = flags & BLK_REQ_UNMAP, .hide = flags & BLK_REQ_HIDE,
        };
        ret = res.bytes > 0 ? node->driver->format->co_reserve(node, &res) : -ENOTSUP;
        if (ret < 0) {
            return ret;
        }
        ret = co_zero_host(&res);
        if (ret < 0) {
            node->driver->format->cancel(node, &res);
            return ret;
        }
        blk_engine_publish(node, &res);
        done += res.bytes;
    }
    return 0;
}

static int co_drop(BlkNode *node, uint64_t offset, uint64_t bytes, BlkMapKind kind, unsigned flags)
{
    BlkEngine *engine = node->core->engine;
    uint64_t start = cluster_start(node, offset), end = cluster_end(node, offset + bytes);
    BlkRangeHold hold;

    blk_co_range_lock(&engine->clusters, &hold, start, end - start, true);
    int ret = blk_engine_co_drop_locked(node, offset, bytes, kind, flags);
    blk_range_unlock(&engine->clusters, &hold);
    return ret;
}

/* Writes zeroes as data, at most a cluster at a time. */
static int co_write_zero_buffer(BlkNode *node, uint64_t offset, uint64_t bytes)
{
    uint8_t *zeroes = blk_engine_buffer_get(node);
    uint64_t most = MIN(node->limits.cluster_size, WRITE_MAX_ZEROES);
    int ret = zeroes ? 0 : -ENOMEM;

    if (zeroes) {
        memset(zeroes, 0, most);
    }
    for (uint64_t done = 0; ret == 0 && done < bytes;) {
        uint64_t n = MIN(MIN(bytes - done, most), cluster_end(node, offset + done + 1) - (offset + done));
        struct iovec vec = { .iov_base = zeroes, .iov_len = n };
        BlkRequest req = { .offset = offset + done, .bytes = n, .iov = { .vec = &vec, .count = 1 } };
        ret = co_write_plain(node, &req);
        done += n;
    }
    blk_engine_buffer_put(node, zeroes);
    return ret;
}

/* The same where zeroes are not read already. */
static int co_zero_data(BlkNode *node, uint64_t offset, uint64_t bytes, unsigned flags)
{
    for (uint64_t done = 0; done < bytes;) {
        BlkMapping map;
        int ret = co_map(node, offset + done, bytes - done, &map);
        if (ret < 0) {
            return ret;
        }
        uint64_t n = MIN(map.bytes, bytes - done);
        if (!reads_as_zeroes(node, &map)) {
            ret = flags & BLK_REQ_NO_FALLBACK ? -ENOTSUP : co_write_zero_buffer(node, offset + done, n);
        }
        if (ret < 0) {
            return ret;
        }
        done += n;
    }
    return 0;
}

/* Part of one cluster: whole subclusters, if there are, change their mapping; the rest is written as data. */
static int co_zero_partial(BlkNode *node, uint64_t offset, uint64_t bytes, unsigned flags)
{
    uint64_t unit = node->limits.subcluster_size, end = offset + bytes;
    uint64_t start = (offset + unit - 1) & ~(unit - 1);
    uint64_t stop = (end == node->length ? end + unit - 1 : end) & ~(unit - 1);
    int ret = start < stop ? co_drop(node, start, stop - start, BLK_MAP_ZERO, flags) : -ENOTSUP;

    if (ret == -ENOTSUP) {
        return co_zero_data(node, offset, bytes, flags);
    }
    if (ret == 0) {
        ret = co_zero_data(node, offset, start - offset, flags);
    }
    return ret == 0 && stop < end ? co_zero_data(node, stop, end - stop, flags) : ret;
}

int blk_engine_co_pwrite_zeroes(BlkNode *node, BlkRequest *req)
{
    uint64_t end = req->offset + req->bytes, pos = req->offset;
    uint64_t whole_end = end == node->length ? cluster_end(node, end) : cluster_start(node, end);
    int ret = 0;

    while (ret == 0 && pos < end) {
        uint64_t bytes;
        if (pos == cluster_start(node, pos) && pos < whole_end) {
            bytes = whole_end - pos;
            ret = co_drop(node, pos, bytes, BLK_MAP_ZERO, req->flags);
            if (ret == -ENOTSUP && !(req->flags & BLK_REQ_NO_FALLBACK)) {
                ret = co_write_zero_buffer(node, pos, MIN(bytes, end - pos));
            }
        } else {
            bytes = MIN(end, cluster_end(node, pos + 1)) - pos;
            ret = co_zero_partial(node, pos, bytes, req->flags);
        }
        pos += bytes;
    }
    return ret;
}

int blk_engine_co_discard(BlkNode *node, BlkRequest *req)
{
    uint64_t end = req->offset + req->bytes, start = cluster_end(node, req->offset);

    end = end == node->length ? cluster_end(node, end) : cluster_start(node, end);
    if (start >= end) {
        return 0;
    }
    int ret = co_drop(node, start, end - start, BLK_MAP_UNALLOCATED, BLK_REQ_UNMAP);
    return ret == -ENOTSUP ? 0 : ret;
}
