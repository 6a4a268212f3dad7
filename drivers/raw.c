/* SPDX-License-Identifier: MIT */
/*
 * raw.c - format driver "raw": the bytes of the file are the bytes of the disk, or those of a window of it.
 *
 *     file:  |<-- offset -->|<-------- size, or up to the end -------->|
 *     disk:                 0                                     length
 *
 * It asks of its file just what its own users need, so several raw nodes may write to one file, each in its window.
 */
#include <blkstack/driver.h>

#include <inttypes.h>
#include <string.h>

enum { SECTOR = 512, STREAM_BYTES = 1 << 20 };

typedef struct RawWindow {
    uint64_t offset, size;
    bool fixed_size;                /* else up to the end, and size is 0 */
} RawWindow;

typedef struct RawState {
    RawWindow window;
    RawWindow *next;                /* (nullable): that of a reopening, which may still be taken back */
} RawState;

static const BlkOption raw_options[] = {
    { "file", BLK_OPTION_NODE, "where the bytes lie", .required = true },
    { "offset", BLK_OPTION_SIZE, "where the disk begins in the file", .default_text = "0" },
    { "size", BLK_OPTION_SIZE, "length of the disk, a multiple of 512; without it up to the end of the file" },
    { NULL },
};

static const char *const raw_reopen_options[] = { "offset", "size", NULL };

static const char *const prealloc_values[] = { "off", "falloc", "full", NULL };
static const BlkPrealloc prealloc_modes[] = { BLK_PREALLOC_OFF, BLK_PREALLOC_FALLOC, BLK_PREALLOC_FULL };

static const BlkOption raw_create_options[] = {
    { "size", BLK_OPTION_SIZE, "length of the disk", .max = BLK_MAX_LENGTH, .required = true },
    { "preallocation", BLK_OPTION_ENUM, "reserve the space", .default_text = "off", .values = prealloc_values },
    { NULL },
};

static int raw_probe(const uint8_t *head, size_t bytes, const char *filename)
{
    return 1;           /* anything can be raw: the last choice */
}

static RawWindow raw_get_window(const BlkOptions *options)
{
    return (RawWindow) {
        .offset = blk_options_uint(options, "offset"),
        .size = blk_options_uint(options, "size"),
        .fixed_size = blk_options_has(options, "size"),
    };
}

static int raw_check_window(const RawWindow *w, uint64_t file_length, GError **error)
{
    if (w->offset > file_length) {
        return blk_error(error, -EINVAL, "offset %" PRIu64 " lies beyond the end of the containing file (%" PRIu64 ")",
                         w->offset, file_length);
    }
    if (w->size % SECTOR != 0) {
        return blk_error(error, -EINVAL, "Specified size %" PRIu64 " is not a multiple of %d", w->size, SECTOR);
    }
    if (w->size > file_length - w->offset) {
        return blk_error(error, -EINVAL, "offset %" PRIu64 " and size %" PRIu64 " reach beyond the end of the "
                         "containing file (%" PRIu64 ")", w->offset, w->size, file_length);
    }
    return 0;
}

static uint64_t raw_window_length(const RawWindow *w, uint64_t file_length)
{
    return w->fixed_size ? w->size : file_length - MIN(w->offset, file_length);
}

static void raw_use_window(BlkNode *node, const RawWindow *w)
{
    RawState *s = node->opaque;

    s->window = *w;
    node->length = raw_window_length(w, node->file->node->length);
    node->caps = BLK_CAP_FUA | (w->offset == 0 ? node->file->node->caps & BLK_CAP_ZERO_INIT : 0);
}

static int raw_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    BlkChild *file = blk_co_open_child(node, options, "file", BLK_ROLE_IMAGE, error);
    const RawWindow window = raw_get_window(options);
    int ret = file ? raw_check_window(&window, file->node->length, error) : -EINVAL;

    if (ret == 0) {
        raw_use_window(node, &window);
    }
    return ret;
}

/* ---- reopening ---- */

static int raw_co_reopen_prepare(BlkNode *node, const BlkReopen *to, GError **error)
{
    RawState *s = node->opaque;
    RawWindow window;

    if (!to->options) {
        return 0;
    }
    window = raw_get_window(to->options);
    if (raw_window_length(&window, node->file->node->length) != node->length && blk_node_check_resizable(node, error) < 0) {
        return -EBUSY;
    }
    s->next = g_memdup2(&window, sizeof(window));
    return 0;
}

/* The file may be another one, too, which is there now. */
static int raw_check_child(BlkNode *node, BlkNode *child, GError **error)
{
    const RawState *s = node->opaque;

    return s->next ? raw_check_window(s->next, child->length, error) : 0;
}

static void raw_co_reopen_commit(BlkNode *node)
{
    RawState *s = node->opaque;

    if (s->next) {
        raw_use_window(node, s->next);
        g_clear_pointer(&s->next, g_free);
    }
}

static void raw_co_reopen_abort(BlkNode *node)
{
    g_clear_pointer(&((RawState *)node->opaque)->next, g_free);
}

static void raw_refresh_limits(BlkNode *node)
{
    RawState *s = node->opaque;

    if (s->window.offset != 0) {
        node->limits.cluster_size = 0;
    }
}

static uint64_t raw_length_below(const BlkNode *node)
{
    const RawState *s = node->opaque;
    uint64_t below = node->file->node->length;

    if (s->window.fixed_size) {
        return node->length;
    }
    return below > s->window.offset ? below - s->window.offset : 0;
}

static void raw_child_perm(BlkNode *node, BlkChild *child, unsigned perm, unsigned shared,
                           unsigned *child_perm, unsigned *child_shared)
{
    const RawState *s = node->opaque;
    bool fixed_size = s->window.fixed_size && (!s->next || s->next->fixed_size);

    *child_perm = fixed_size ? perm & ~BLK_PERM_RESIZE : perm;
    /* Who reads a disk through a read-only node wants it to hold still; a writer coordinates with others itself. */
    *child_shared = node->read_only ? shared & ~(BLK_PERM_WRITE | BLK_PERM_RESIZE) : shared;
}

static int raw_co_preadv(BlkNode *node, BlkRequest *req)
{
    RawState *s = node->opaque;

    return blk_co_preadv(node->file->node, req->offset + s->window.offset, req->bytes, req->iov, req->flags);
}

static int raw_co_pwritev(BlkNode *node, BlkRequest *req)
{
    RawState *s = node->opaque;

    return blk_co_pwritev(node->file->node, req->offset + s->window.offset, req->bytes, req->iov, req->flags);
}

static int raw_co_pwrite_zeroes(BlkNode *node, BlkRequest *req)
{
    RawState *s = node->opaque;

    return blk_co_pwrite_zeroes(node->file->node, req->offset + s->window.offset, req->bytes, req->flags);
}

static int raw_co_discard(BlkNode *node, BlkRequest *req)
{
    RawState *s = node->opaque;

    return blk_co_discard(node->file->node, req->offset + s->window.offset, req->bytes);
}

static int raw_co_block_status(BlkNode *node, uint64_t offset, uint64_t bytes, BlkStatus *status)
{
    RawState *s = node->opaque;

    return blk_co_block_status_above(node->file->node, NULL, offset + s->window.offset, bytes, status);
}

static int raw_co_truncate(BlkNode *node, uint64_t length, BlkPrealloc prealloc, GError **error)
{
    RawState *s = node->opaque;

    if (s->window.fixed_size) {
        return blk_error(error, -ENOTSUP, "Cannot resize a raw disk of fixed size");
    }
    if (length > BLK_MAX_LENGTH - s->window.offset) {
        return blk_error(error, -EFBIG, "Length %" PRIu64 " is too large for a disk at offset %" PRIu64, length,
                         s->window.offset);
    }
    int ret = blk_co_truncate(node->file->node, s->window.offset + length, prealloc, error);
    if (ret < 0) {
        return ret;
    }
    node->length = node->file->node->length - s->window.offset;
    if (node->length >= length + SECTOR) {      /* a device or an export keeps what it has */
        return blk_error(error, -ENOTSUP, "'%s' cannot be made shorter", blk_node_filename(node->file->node));
    }
    return 0;
}

static int raw_co_info(BlkNode *node, BlkInfo *info, GError **error)
{
    return blk_co_info(node->file->node, info, error);
}

static int raw_co_measure(const BlkOptions *options, BlkNode *source, BlkMeasure *measure, GError **error)
{
    measure->required = measure->fully_allocated = (blk_options_uint(options, "size") + SECTOR - 1) & ~(uint64_t)(SECTOR - 1);
    return 0;
}

static int raw_co_stream(BlkSource *source, const BlkOptions *options, const BlkStream *out, GError **error)
{
    uint64_t bytes;
    int ret = 0;
    uint8_t *buf = blk_buffer_try_alloc(NULL, STREAM_BYTES);

    if (!buf) {
        return blk_error(error, -ENOMEM, "no memory for a buffer of %d bytes", STREAM_BYTES);
    }
    for (uint64_t pos = 0; ret == 0 && pos < source->length; pos += bytes) {
        BlkExtent extent;

        bytes = MIN(STREAM_BYTES, source->length - pos);
        ret = source->co_extent(source, pos, bytes, &extent, error);
        bytes = ret == 0 ? MIN(bytes, extent.bytes) : bytes;
        if (ret == 0 && extent.kind == BLK_EXTENT_DATA) {
            ret = source->co_read(source, pos, bytes, buf, error);
        } else {
            memset(buf, 0, bytes);
        }
        ret = ret == 0 ? out->co_write(buf, bytes, out->opaque, error) : ret;
        if (out->progress) {
            out->progress((double)(pos + bytes) / source->length, out->progress_opaque);
        }
    }
    blk_buffer_free(buf);
    return ret;
}

static int raw_co_create(BlkContext *ctx, BlkNode *file, const BlkOptions *options, GError **error)
{
    return blk_co_truncate(file, blk_options_uint(options, "size"),
                           prealloc_modes[blk_options_enum(options, "preallocation")], error);
}

const BlkDriver blk_driver_raw = {
    .name = "raw",
    .kind = BLK_FORMAT,
    .help = "the bytes of the file, or of a window of it",
    .options = raw_options,
    .create_options = raw_create_options,
    .instance_size = sizeof(RawState),
    .probe = raw_probe,
    .co_open = raw_co_open,
    .reopen_options = raw_reopen_options,
    .co_reopen_prepare = raw_co_reopen_prepare,
    .co_reopen_commit = raw_co_reopen_commit,
    .co_reopen_abort = raw_co_reopen_abort,
    .check_child = raw_check_child,
    .refresh_limits = raw_refresh_limits,
    .length_below   = raw_length_below,
    .child_perm = raw_child_perm,
    .co_preadv = raw_co_preadv,
    .co_pwritev = raw_co_pwritev,
    .co_pwrite_zeroes = raw_co_pwrite_zeroes,
    .co_discard = raw_co_discard,
    .co_block_status = raw_co_block_status,
    .co_truncate = raw_co_truncate,
    .co_info = raw_co_info,
    .co_measure = raw_co_measure,
    .co_stream = raw_co_stream,
    .co_create = raw_co_create,
};
