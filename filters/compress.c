/* SPDX-License-Identifier: MIT */
/*
 * compress.c - filter "compress": every write becomes a compressed write, also over what was written before.
 *
 * Writes gather in a buffer until they are whole clusters of the node below (write_buffer.c). With write-buffer=0 the
 * unit of a write is the cluster, so that core reads what a smaller write leaves alone, and a write returns when its
 * clusters are compressed. Reads are not changed: a small read stays small. Zeroes and discards pass as they are.
 *
 * Limitations: the node below must be able to rewrite compressed clusters; any other is refused when it becomes the
 * child. With a buffer, nobody else may write to it.
 */
#include "drivers/drivers.h"

#include "core/codec.h"
#include "filters/write_buffer.h"

typedef struct CompressState {
    uint64_t buffer_bytes;          /* of memory for the buffer; 0: none is wanted */
    WriteBuffer *buffer;            /* NULL: none; also while the filter is read-only */
    unsigned flags;                 /* of compressed writes */
    struct CompressState *before;   /* (nullable): what it was, while a reopening may still be taken back */
} CompressState;

static const char *const compress_reopen_options[] = { "write-buffer", "level", "threads", NULL };

static const BlkOption compress_options[] = {
    { "file", BLK_OPTION_NODE, "the image", .required = true },
    { "write-buffer", BLK_OPTION_SIZE, "memory in which writes gather until they are whole clusters; 0: none", "16M" },
    { "level", BLK_OPTION_UINT, "of the compression: 1 to 12 (zlib) or 22 (zstd), 0: the format's default", "0",
      .max = BLK_MAX_COMPRESSION_LEVEL },
    { "threads", BLK_OPTION_UINT, "clusters compressed at once; 0: one for each processor", "0",
      .max = BLK_MAX_COMPRESSION_THREADS },
    { NULL },
};

static int refuse_child(BlkNode *child, int ret, const char *why, GError **error)
{
    return blk_error(error, ret, "compress: the node '%s' (driver '%s', %s) %s", blk_node_name(child), child->driver->name,
                     blk_node_filename(child), why);
}

static int compress_check_child(BlkNode *node, BlkNode *child, GError **error)
{
    const CompressState *s = node->opaque;

    if ((child->caps & (BLK_CAP_COMPRESSED_WRITE | BLK_CAP_COMPRESSED_REWRITE)) == BLK_CAP_COMPRESSED_WRITE) {
        return refuse_child(child, -ENOTSUP, "has compressed clusters that can be written once, and not rewritten; write such "
                            "an image whole, with 'convert -c', or put the filter above a qcow2 node", error);
    }
    if (!(child->caps & BLK_CAP_COMPRESSED_REWRITE) || child->limits.cluster_size == 0) {
        return refuse_child(child, -ENOTSUP, "cannot rewrite compressed clusters; put the filter above a qcow2 node without "
                            "an external data file", error);
    }
    if (child->read_only && !node->read_only) {
        return refuse_child(child, -EACCES, "is read-only; open the filter with read-only=on, or the node for writing",
                            error);
    }
    if (s->buffer && !write_buffer_is_empty(s->buffer) && child->limits.cluster_size != write_buffer_unit(s->buffer)) {
        return refuse_child(child, -EBUSY, "has another cluster size than the data that the filter could not write yet",
                            error);
    }
    return blk_check_compression_level(child, blk_req_level(s->flags), error);
}

static void compress_take_options(BlkNode *node, const BlkOptions *options)
{
    CompressState *s = node->opaque;
    unsigned threads = (unsigned)blk_options_uint(options, "threads");

    s->flags = BLK_REQ_COMPRESSED | blk_req_compression((unsigned)blk_options_uint(options, "level"), threads);
    s->buffer_bytes = blk_options_uint(options, "write-buffer");
    blk_context_need_workers(node->ctx, threads);
}

static int compress_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    CompressState *s = node->opaque;

    compress_take_options(node, options);
    if (!blk_co_open_child(node, options, "file", BLK_ROLE_FILTERED, error)) {
        return -EINVAL;
    }
    if (s->buffer_bytes > 0 && !node->read_only) {
        s->buffer = write_buffer_new(node, s->buffer_bytes, s->flags);
    }
    return 0;
}

/* The buffer is empty, since the node is drained; so is what takes its place, unless a node above has written meanwhile. */
static int compress_co_reopen_prepare(BlkNode *node, const BlkReopen *to, GError **error)
{
    CompressState *s = node->opaque;
    bool stays = !to->options && s->buffer;

    s->before = g_memdup2(s, sizeof(*s));
    if (to->options) {
        compress_take_options(node, to->options);
    }
    if (!to->read_only && !stays) {
        s->buffer = s->buffer_bytes > 0 ? write_buffer_new(node, s->buffer_bytes, s->flags) : NULL;
    }
    if (s->buffer) {
        write_buffer_set_unit(s->buffer, node->limits.cluster_size);
    }
    return 0;
}

static void compress_co_reopen_commit(BlkNode *node)
{
    CompressState *s = node->opaque;
    CompressState *before = g_steal_pointer(&s->before);

    if (before->buffer != s->buffer) {
        write_buffer_free(before->buffer);
    }
    if (node->read_only) {
        g_clear_pointer(&s->buffer, write_buffer_free);
    }
    g_free(before);
}

static void compress_co_reopen_abort(BlkNode *node)
{
    CompressState *s = node->opaque;
    CompressState *before = g_steal_pointer(&s->before);

    if (s->buffer != before->buffer) {
        write_buffer_free(s->buffer);
    }
    s->buffer = before->buffer;
    s->buffer_bytes = before->buffer_bytes;
    s->flags = before->flags;
    g_free(before);
}

static void compress_co_close(BlkNode *node)
{
    CompressState *s = node->opaque;

    write_buffer_free(s->buffer);
}

static void compress_refresh_limits(BlkNode *node)
{
    CompressState *s = node->opaque;

    node->limits.write_align = s->buffer ? WRITE_BUFFER_SECTOR : node->limits.cluster_size;
    node->limits.zeroes_align = node->limits.cluster_size;
    if (s->buffer) {
        write_buffer_set_unit(s->buffer, node->limits.cluster_size);
    }
}

/* What is around buffered data is read late, so nobody else may write meanwhile; it is written also when the users have
 * gone. A filter without users asks for nothing, so that it can be opened above a node in use, and inserted. */
static void compress_child_perm(BlkNode *node, BlkChild *child, unsigned perm, unsigned shared,
                                unsigned *child_perm, unsigned *child_shared)
{
    const CompressState *s = node->opaque;
    bool buffers = s->buffer && ((perm & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED)) || !write_buffer_is_empty(s->buffer));

    *child_perm = perm | (buffers ? BLK_PERM_READ | BLK_PERM_WRITE : 0);
    *child_shared = buffers ? shared & ~(unsigned)(BLK_PERM_WRITE | BLK_PERM_RESIZE) : shared;
}

static int compress_co_preadv(BlkNode *node, BlkRequest *req)
{
    CompressState *s = node->opaque;

    return s->buffer ? write_buffer_co_read(s->buffer, req) : blk_co_pass_through_read(node, req);
}

static int compress_co_pwritev(BlkNode *node, BlkRequest *req)
{
    CompressState *s = node->opaque;

    if (!s->buffer) {
        req->flags |= s->flags;
        return blk_co_pass_through_write(node, req);
    }
    int ret = write_buffer_co_write(s->buffer, req);
    if (ret == 0 && (req->flags & BLK_REQ_FUA)) {
        ret = write_buffer_co_settle(s->buffer, req->offset, req->bytes);
        ret = ret < 0 ? ret : blk_co_flush(node->file->node);
    }
    return ret;
}

/* Until release_range() only the caller changes the range below. */
static int co_hold_range(BlkNode *node, WriteBufferHold *hold, uint64_t offset, uint64_t bytes)
{
    CompressState *s = node->opaque;

    return s->buffer ? write_buffer_co_hold(s->buffer, hold, offset, bytes) : 0;
}

static void release_range(BlkNode *node, WriteBufferHold *hold)
{
    CompressState *s = node->opaque;

    if (s->buffer) {
        write_buffer_release(s->buffer, hold);
    }
}

static int compress_co_pwrite_zeroes(BlkNode *node, BlkRequest *req)
{
    WriteBufferHold hold;
    int ret = co_hold_range(node, &hold, req->offset, req->bytes);

    if (ret == 0) {
        ret = blk_co_pwrite_zeroes(node->file->node, req->offset, req->bytes, req->flags);
        release_range(node, &hold);
    }
    return ret;
}

static int compress_co_discard(BlkNode *node, BlkRequest *req)
{
    WriteBufferHold hold;
    int ret = co_hold_range(node, &hold, req->offset, req->bytes);

    if (ret == 0) {
        ret = blk_co_discard(node->file->node, req->offset, req->bytes);
        release_range(node, &hold);
    }
    return ret;
}

static int compress_co_truncate(BlkNode *node, uint64_t length, BlkPrealloc prealloc, GError **error)
{
    WriteBufferHold hold;
    int ret = co_hold_range(node, &hold, 0, BLK_MAX_LENGTH);

    if (ret < 0) {
        return blk_error_errno(error, ret, "The image cannot be resized, since data written before cannot be stored");
    }
    ret = blk_co_truncate(node->file->node, length, prealloc, error);
    release_range(node, &hold);
    return ret;
}

static int compress_co_flush(BlkNode *node)
{
    CompressState *s = node->opaque;

    return s->buffer ? write_buffer_co_flush(s->buffer) : 0;
}

static int compress_co_settle(BlkNode *node)
{
    CompressState *s = node->opaque;

    return s->buffer ? write_buffer_co_settle(s->buffer, 0, BLK_MAX_LENGTH) : 0;
}

static int compress_co_block_status(BlkNode *node, uint64_t offset, uint64_t bytes, BlkStatus *status)
{
    CompressState *s = node->opaque;

    if (s->buffer && write_buffer_holds(s->buffer, offset, &bytes)) {
        status->bytes = bytes;
        status->flags = BLK_STATUS_DATA | BLK_STATUS_ALLOCATED;
        return 0;
    }
    return blk_co_block_status(node->file->node, offset, bytes, status);
}

const BlkDriver blk_driver_compress = {
    .name = "compress",
    .kind = BLK_FILTER,
    .help = "turns every write into a compressed write",
    .options = compress_options,
    .instance_size = sizeof(CompressState),
    .co_open = compress_co_open,
    .co_close = compress_co_close,
    .reopen_options = compress_reopen_options,
    .co_reopen_prepare = compress_co_reopen_prepare,
    .co_reopen_commit = compress_co_reopen_commit,
    .co_reopen_abort = compress_co_reopen_abort,
    .check_child = compress_check_child,
    .child_perm = compress_child_perm,
    .refresh_limits = compress_refresh_limits,
    .co_preadv = compress_co_preadv,
    .co_pwritev = compress_co_pwritev,
    .co_pwrite_zeroes = compress_co_pwrite_zeroes,
    .co_discard = compress_co_discard,
    .co_truncate = compress_co_truncate,
    .co_flush = compress_co_flush,
    .co_settle = compress_co_settle,
    .co_block_status = compress_co_block_status,
};
