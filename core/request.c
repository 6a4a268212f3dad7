/* SPDX-License-Identifier: MIT */
/*
 * request.c - where requests enter a node: the one place that checks range, flags and permission.
 *
 * After the checks a request counts as in flight until it returns; see drain.c. Requests of no bytes end here.
 */
#include "core/request.h"

#include "core/bitmap.h"
#include "core/stack.h"

/* A format or filter above may write past the end of a protocol, also through filters; a user of a protocol that may
 * resize it, too. What is past the end reads as zeroes for them. */
static bool parent_may_pass_end(const BlkNode *node, unsigned perm)
{
    if (node->driver->kind == BLK_FORMAT) {
        return false;
    }
    for (GList *l = node->core->parents.head; l; l = l->next) {
        const BlkChild *edge = l->data;

        if ((edge->perm & perm) == perm && (edge->parent || (perm && node->driver->kind == BLK_PROTOCOL))) {
            return true;
        }
    }
    return false;
}

bool blk_node_may_grow(const BlkNode *node)
{
    return parent_may_pass_end(node, BLK_PERM_RESIZE);
}

void blk_node_grown(BlkNode *node, uint64_t end)
{
    if (end > node->length && node->driver->kind == BLK_PROTOCOL) {
        node->length = end;
    }
    blk_node_length_changed(node);
}

static int check_range(const BlkNode *node, uint64_t offset, uint64_t bytes, uint64_t max)
{
    if (bytes > max || offset > BLK_MAX_LENGTH || bytes > BLK_MAX_LENGTH - offset) {
        return -EINVAL;
    }
    return 0;
}

static int check_read(const BlkNode *node, uint64_t offset, uint64_t bytes, unsigned flags)
{
    int ret = check_range(node, offset, bytes, BLK_MAX_REQUEST);

    if (ret < 0 || (flags & ~(unsigned)(BLK_REQ_SERIALISING | BLK_REQ_COPY_ON_READ))) {
        return -EINVAL;
    }
    if (offset + bytes > node->length && !parent_may_pass_end(node, 0)) {
        return -EINVAL;
    }
    return 0;
}

static int check_change(const BlkNode *node, uint64_t offset, uint64_t bytes, unsigned flags, uint64_t max)
{
    unsigned enough = BLK_PERM_WRITE | (flags & BLK_REQ_UNCHANGED ? BLK_PERM_WRITE_UNCHANGED : 0);
    int ret = check_range(node, offset, bytes, max);

    if (ret < 0) {
        return ret;
    }
    if (node->read_only || !(node->core->perm & enough)) {
        return -EPERM;
    }
    if (offset + bytes > node->length && !blk_node_may_grow(node)) {
        return -EINVAL;
    }
    return 0;
}

/* All writes, zero writes and discards pass these two: the last that is done before the driver gets them ... */
static int co_change_begins(BlkNode *node, uint64_t end, unsigned flags)
{
    blk_stats_write_begins(node, end);      /* 0: it is no write */
    return flags & BLK_REQ_UNCHANGED ? 0 : blk_bitmaps_co_before_write(node);
}

/* ... and the first afterwards, also when it failed: nobody knows what it left. */
static void change_ends(BlkNode *node, uint64_t offset, uint64_t bytes, unsigned flags)
{
    if (!(flags & BLK_REQ_UNCHANGED)) {
        blk_bitmaps_mark(node, offset, bytes);
    }
}

/* ---- reads ---- */

/* A read that copies must not meet a write to what it copies. */
static int read_locked(BlkNode *node, uint64_t offset, uint64_t bytes, BlkIov iov, unsigned flags)
{
    uint64_t unit = MAX(MAX(node->limits.cluster_size, node->limits.write_align), 1);
    uint64_t start = offset - offset % unit;
    BlkRangeHold hold;
    int ret;

    blk_co_range_lock(&node->core->locks, &hold, start, offset + bytes - start + unit, true);
    ret = blk_request_preadv(node, offset, bytes, iov, flags & BLK_REQ_COPY_ON_READ);
    blk_range_unlock(&node->core->locks, &hold);
    if (flags & BLK_REQ_COPY_ON_READ) {
        node->core->write_gen++;
    }
    return ret;
}

static int read_begun(BlkNode *node, uint64_t offset, uint64_t bytes, BlkIov iov, unsigned flags)
{
    int ret = check_read(node, offset, bytes, flags);

    if (ret < 0 || bytes == 0) {
        return ret;
    }
    if ((flags & BLK_REQ_COPY_ON_READ) &&
        (node->read_only || !(node->core->perm & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED)))) {
        return -EPERM;
    }
    return flags ? read_locked(node, offset, bytes, iov, flags) : blk_request_preadv(node, offset, bytes, iov, 0);
}

typedef struct ReadCall {
    BlkNode *node;
    BlkRequest req;
} ReadCall;

static int read_call(void *opaque)
{
    ReadCall *call = opaque;

    return blk_co_preadv(call->node, call->req.offset, call->req.bytes, call->req.iov, call->req.flags);
}

int blk_co_preadv(BlkNode *node, uint64_t offset, uint64_t bytes, BlkIov iov, unsigned flags)
{
    int ret;

    if (blk_stack_is_short()) {
        ReadCall call = { node, { offset, bytes, iov, flags } };

        return blk_co_call_fresh(read_call, &call);
    }
    blk_co_request_begin(&node);
    ret = read_begun(node, offset, bytes, iov, flags);
    blk_stats_count(node, BLK_STATS_READ, bytes, ret);
    blk_request_end(node);
    return ret;
}

int blk_co_pread(BlkNode *node, uint64_t offset, uint64_t bytes, void *buf, unsigned flags)
{
    struct iovec vec = { buf, bytes };

    return blk_co_preadv(node, offset, bytes, (BlkIov) { &vec, 1, 0 }, flags);
}

int blk_co_pass_through_read(BlkNode *node, BlkRequest *req)
{
    return node->file ? blk_co_preadv(node->file->node, req->offset, req->bytes, req->iov, req->flags) : -ENOMEDIUM;
}

/* ---- writes ---- */

static int write_begun(BlkNode *node, uint64_t offset, uint64_t bytes, BlkIov iov, unsigned flags)
{
    unsigned detect = node->core->flags.detect_zeroes;
    int ret = check_change(node, offset, bytes, flags, BLK_MAX_REQUEST);

    if (ret < 0) {
        return ret;
    }
    if ((flags & BLK_REQ_COMPRESSED) && !(node->caps & BLK_CAP_COMPRESSED_WRITE)) {
        return -ENOTSUP;
    }
    if (bytes == 0) {
        return 0;
    }
    ret = co_change_begins(node, offset + bytes, flags);
    if (ret < 0) {
        return ret;
    }
    if (detect && !(flags & BLK_REQ_COMPRESSED) && blk_iov_is_zero(iov, bytes)) {
        ret = blk_request_pwrite_zeroes(node, offset, bytes, flags | (detect == 2 ? BLK_REQ_UNMAP : 0));
    } else {
        ret = blk_request_pwritev(node, offset, bytes, iov, flags);
    }
    change_ends(node, offset, bytes, flags);
    return ret;
}

int blk_co_pwritev(BlkNode *node, uint64_t offset, uint64_t bytes, BlkIov iov, unsigned flags)
{
    int ret;

    blk_co_request_begin(&node);
    ret = write_begun(node, offset, bytes, iov, flags);
    blk_stats_count(node, BLK_STATS_WRITE, bytes, ret);
    blk_request_end(node);
    return ret;
}

int blk_co_pwrite(BlkNode *node, uint64_t offset, uint64_t bytes, const void *buf, unsigned flags)
{
    struct iovec vec = { (void *)buf, bytes };

    return blk_co_pwritev(node, offset, bytes, (BlkIov) { &vec, 1, 0 }, flags);
}

int blk_co_pass_through_write(BlkNode *node, BlkRequest *req)
{
    return node->file ? blk_co_pwritev(node->file->node, req->offset, req->bytes, req->iov, req->flags) : -ENOMEDIUM;
}

int blk_co_pwrite_zeroes(BlkNode *node, uint64_t offset, uint64_t bytes, unsigned flags)
{
    int ret;

    blk_co_request_begin(&node);
    ret = check_change(node, offset, bytes, flags, BLK_MAX_LENGTH);
    if (ret == 0 && bytes > 0) {
        ret = co_change_begins(node, offset + bytes, flags);
        if (ret == 0) {
            ret = blk_request_pwrite_zeroes(node, offset, bytes, flags);
            change_ends(node, offset, bytes, flags);
        }
    }
    blk_stats_count(node, BLK_STATS_WRITE, bytes, ret);
    blk_request_end(node);
    return ret;
}

int blk_co_discard(BlkNode *node, uint64_t offset, uint64_t bytes)
{
    int ret;

    blk_co_request_begin(&node);
    ret = check_change(node, offset, bytes, 0, BLK_MAX_LENGTH);
    if (ret == 0 && bytes > 0 && blk_node_discards(node)) {
        ret = co_change_begins(node, 0, 0);
        if (ret == 0) {
            ret = blk_request_discard(node, offset, bytes);
            change_ends(node, offset, bytes, 0);
        }
    }
    blk_stats_count(node, BLK_STATS_DISCARD, bytes, ret);
    blk_request_end(node);
    return ret;
}

/* ---- length ---- */

static int truncate_driver(BlkNode *node, uint64_t length, BlkPrealloc prealloc, GError **error)
{
    if (node->driver->co_truncate) {
        return node->driver->co_truncate(node, length, prealloc, error);
    }
    if (blk_driver_passes(node) && node->file) {
        return blk_co_truncate(node->file->node, length, prealloc, error);
    }
    return blk_error(error, -ENOTSUP, "Image format driver '%s' does not support resize", node->driver->name);
}

static int truncate_begun(BlkNode *node, uint64_t length, BlkPrealloc prealloc, GError **error)
{
    uint64_t from = MIN(length, node->length);
    BlkRangeHold hold;
    int ret;

    if (length > BLK_MAX_LENGTH) {
        return blk_error(error, -EFBIG, "Required too big image size, it must be not greater than %" G_GUINT64_FORMAT,
                         BLK_MAX_LENGTH);
    }
    if (node->read_only || !(node->core->perm & BLK_PERM_RESIZE)) {
        return blk_error(error, -EACCES, "The node '%s' may not be resized%s", blk_node_name(node),
                         node->read_only ? ": it is read-only" : "");
    }
    blk_co_range_lock(&node->core->locks, &hold, from, BLK_MAX_LENGTH - from + 1, true);
    ret = node->core->bitmaps ? blk_bitmaps_co_before_change(node, length, error) : 0;
    if (ret == 0) {
        ret = truncate_driver(node, length, prealloc, error);
    }
    blk_bitmaps_length_changed(node);
    blk_range_unlock(&node->core->locks, &hold);
    node->core->write_gen++;
    blk_node_refresh_above(&node, 1, NULL);
    return ret;
}

int blk_co_truncate(BlkNode *node, uint64_t length, BlkPrealloc prealloc, GError **error)
{
    int ret;

    blk_co_request_begin(&node);
    ret = truncate_begun(node, length, prealloc, error);
    blk_request_end(node);
    return ret;
}
