/* SPDX-License-Identifier: MIT */
/*
 * copy_on_read.c - filter "copy-on-read": what a read finds in the backing chain is stored in the image above it.
 *
 * Whole clusters of the child are read and stored, zeroes as zeroes. Meanwhile no write may come between, since it would
 * be undone: writes through the filter take its range lock, and nobody else may write to the child while the filter is
 * there. What no node of the chain holds reads as zeroes and is not stored. When storing fails, the read fails.
 *
 * With the option "bottom" only what lies in that node or above it is stored.
 */
#include <blkstack/driver.h>

#include "core/range_lock.h"

enum { MIN_CHUNK = 4096, MAX_CHUNK = 1 << 20 };

typedef struct CorState {
    BlkRangeLock lock;      /* shared: writes; exclusive: a copy */
    BlkNode *bottom;        /* (nullable): a reference */
} CorState;

static const BlkOption cor_options[] = {
    { "file", BLK_OPTION_NODE, "the image", .required = true },
    { "bottom", BLK_OPTION_STRING, "name of the lowest node of the chain from which is copied" },
    { NULL },
};

static int cor_find_bottom(CorState *s, BlkNode *image, const char *name, GError **error)
{
    BlkNode *bottom = blk_node_find(image->ctx, name);
    BlkNode *below = bottom ? image : NULL;

    while (below && blk_node_skip_filters(below) != blk_node_skip_filters(bottom)) {
        below = blk_node_backing(below);
    }
    if (!below) {
        return blk_error(error, -EINVAL, "driver 'copy-on-read': bottom '%s' is no node of the backing chain of '%s'",
                         name, blk_node_name(image));
    }
    s->bottom = blk_node_ref(bottom);
    return 0;
}

static int cor_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    const char *bottom = blk_options_string(options, "bottom");
    BlkChild *file = blk_co_open_child(node, options, "file", BLK_ROLE_FILTERED, error);

    if (!file) {
        return -EINVAL;
    }
    if (file->node->read_only) {
        return blk_error(error, -EACCES, "driver 'copy-on-read': '%s' is read-only, so nothing can be copied to it",
                         blk_node_name(file->node));
    }
    return bottom ? cor_find_bottom(node->opaque, file->node, bottom, error) : 0;
}

static void cor_co_close(BlkNode *node)
{
    CorState *s = node->opaque;

    blk_co_unref(s->bottom);
}

/* A filter without users asks for nothing, so that it can be opened above a node in use, and inserted. */
static void cor_child_perm(BlkNode *node, BlkChild *child, unsigned perm, unsigned shared,
                           unsigned *child_perm, unsigned *child_shared)
{
    bool used = perm != 0;

    *child_perm = perm | (used ? BLK_PERM_READ | BLK_PERM_WRITE_UNCHANGED : 0);
    *child_shared = used ? shared & ~(unsigned)(BLK_PERM_WRITE | BLK_PERM_RESIZE) : shared;
}

/* Does what lies at @offset come from the part of the chain that is to be copied? *bytes: how far that is so. */
static int cor_co_needs_copy(BlkNode *node, uint64_t offset, uint64_t *bytes, bool *copy)
{
    CorState *s = node->opaque;
    BlkNode *base = s->bottom ? blk_node_backing(s->bottom) : NULL;
    BlkStatus status;

    int ret = blk_co_block_status_above(node->file->node, base, offset, *bytes, &status);
    if (ret < 0) {
        return ret;
    }
    *bytes = MIN(*bytes, status.bytes);
    *copy = (status.flags & BLK_STATUS_ALLOCATED) && status.depth > 0;
    return 0;
}

/* Reads whole clusters and stores them; the caller holds them. */
static int cor_co_copy(BlkNode *node, uint64_t offset, uint64_t bytes, void *buffer)
{
    BlkNode *image = node->file->node;

    int ret = blk_co_pread(image, offset, bytes, buffer, 0);
    if (ret < 0) {
        return ret;
    }
    blk_co_event(image, BLK_EVENT_cor_write);
    if (blk_buffer_is_zero(buffer, bytes)) {
        return blk_co_pwrite_zeroes(image, offset, bytes, BLK_REQ_UNCHANGED);
    }
    return blk_co_pwrite(image, offset, bytes, buffer, BLK_REQ_UNCHANGED);
}

/* Reads up to *bytes at @offset, of which at least the first comes from the backing chain, and stores their clusters. */
static int cor_co_read_and_copy(BlkNode *node, uint64_t offset, uint64_t *bytes, BlkIov iov)
{
    CorState *s = node->opaque;
    const BlkLimits *limits = &node->file->node->limits;
    uint64_t cluster = MAX(MAX(limits->cluster_size, limits->write_align), MIN_CHUNK);
    uint64_t begin = offset - offset % cluster;
    uint64_t end = MIN(offset + *bytes, begin + MAX(cluster, MAX_CHUNK));
    BlkRangeHold hold;
    bool copy = false;

    end = MIN((end + cluster - 1) / cluster * cluster, node->length);
    void *buffer = blk_buffer_try_alloc(node, end - begin);
    if (!buffer) {
        return -ENOMEM;
    }
    *bytes = MIN(*bytes, end - offset);
    blk_co_range_lock(&s->lock, &hold, begin, end - begin, true);
    uint64_t unchanged = *bytes;
    int ret = cor_co_needs_copy(node, offset, &unchanged, &copy);       /* somebody may have been faster */
    if (ret == 0 && copy) {
        ret = cor_co_copy(node, begin, end - begin, buffer);
        if (ret == 0) {
            blk_iov_from_buf(iov, (char *)buffer + (offset - begin), *bytes);
        }
    } else if (ret == 0) {
        ret = blk_co_preadv(node->file->node, offset, *bytes, iov, 0);
    }
    blk_range_unlock(&s->lock, &hold);
    blk_buffer_free(buffer);
    return ret;
}

static int cor_co_preadv(BlkNode *node, BlkRequest *req)
{
    uint64_t done = 0;
    int ret = 0;

    while (ret == 0 && done < req->bytes) {
        uint64_t offset = req->offset + done, bytes = req->bytes - done;
        BlkIov iov = blk_iov_advance(req->iov, done);
        bool copy = false;

        ret = cor_co_needs_copy(node, offset, &bytes, &copy);
        if (ret == 0) {
            ret = copy ? cor_co_read_and_copy(node, offset, &bytes, iov)
                       : blk_co_preadv(node->file->node, offset, bytes, iov, 0);
        }
        done += bytes;
    }
    return ret;
}

static int cor_co_change(BlkNode *node, BlkRequest *req, int (*co_pass)(BlkNode *node, BlkRequest *req))
{
    CorState *s = node->opaque;
    BlkRangeHold hold;

    blk_co_range_lock(&s->lock, &hold, req->offset, req->bytes, false);
    int ret = co_pass(node, req);
    blk_range_unlock(&s->lock, &hold);
    return ret;
}

static int cor_co_pwritev(BlkNode *node, BlkRequest *req)
{
    return cor_co_change(node, req, blk_co_pass_through_write);
}

static int cor_co_pass_zeroes(BlkNode *node, BlkRequest *req)
{
    return blk_co_pwrite_zeroes(node->file->node, req->offset, req->bytes, req->flags);
}

static int cor_co_pwrite_zeroes(BlkNode *node, BlkRequest *req)
{
    return cor_co_change(node, req, cor_co_pass_zeroes);
}

static int cor_co_pass_discard(BlkNode *node, BlkRequest *req)
{
    return blk_co_discard(node->file->node, req->offset, req->bytes);
}

static int cor_co_discard(BlkNode *node, BlkRequest *req)
{
    return cor_co_change(node, req, cor_co_pass_discard);
}

const BlkDriver blk_driver_copy_on_read = {
    .name = "copy-on-read",
    .kind = BLK_FILTER,
    .help = "stores in the image what is read from its backing chain",
    .options = cor_options,
    .instance_size = sizeof(CorState),
    .co_open = cor_co_open,
    .co_close = cor_co_close,
    .reopens_as_it_is = true,
    .child_perm = cor_child_perm,
    .co_preadv = cor_co_preadv,
    .co_pwritev = cor_co_pwritev,
    .co_pwrite_zeroes = cor_co_pwrite_zeroes,
    .co_discard = cor_co_discard,
};
