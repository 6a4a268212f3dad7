/* SPDX-License-Identifier: MIT */
/*
 * nbd.c - protocol driver "nbd": an export of an NBD server as a node.
 *
 * The server's abilities and block sizes become the node's capabilities and limits; it keeps its length. A length that
 * is no multiple of 512 is rounded up, as that of a file; the missing bytes read as zeroes and can only become zeroes.
 *
 * Stable is what the server said is stable. When a connection is lost, changes that were answered but not flushed
 * depend on the server having kept them. Who sets reconnect-delay says that it does; without it all flushes fail from
 * then on.
 *
 * Limitations: see connection.c; no prefetching (NBD_CMD_CACHE), since no request of ours asks for that.
 */
#include "drivers/drivers.h"
#include "drivers/nbd/libnbd.h"
#include "drivers/nbd/nbd.h"

enum { SECTOR = 512 };

#define MAX_WITHOUT_DATA (UINT64_C(1) << 31)    /* bytes of a trim or a zero command */

/* ---- commands ---- */

int nbd_co_run(NbdState *s, NbdCommand *cmd)
{
    NbdLink *best = &s->links[0];

    for (unsigned i = 1; i < s->n_links; i++) {
        NbdLink *link = &s->links[i];

        if (link->connection && (!best->connection || link->in_flight < best->in_flight)) {
            best = link;
        }
    }
    return nbd_link_co_run(best, cmd);
}

void nbd_state_lost_connection(NbdState *s)
{
    if (s->reconnect_delay_ns == 0 && s->flushed != s->changes) {
        s->flush_failed = true;
    }
}

/* What requests above are told of it. */
static int result(int ret)
{
    return ret == -ENOTCONN ? -EIO : ret;
}

static int co_change(NbdState *s, NbdCommand *cmd)
{
    int ret;

    nbd_status_forget(s);
    ret = nbd_co_run(s, cmd);
    nbd_status_forget(s);
    if (cmd->flags & LIBNBD_CMD_FLAG_FUA && ret == 0) {
        return 0;
    }
    s->changes++;
    return result(ret);
}

static int nbd_co_preadv(BlkNode *node, BlkRequest *req)
{
    NbdState *s = node->opaque;
    uint64_t inside = req->offset < s->info.size ? MIN(req->bytes, s->info.size - req->offset) : 0;
    NbdCommand cmd = { NBD_READ, .offset = req->offset, .bytes = inside };
    void *bounce = NULL;
    int ret = 0;

    blk_iov_zero(blk_iov_advance(req->iov, inside), req->bytes - inside);
    if (inside == 0) {
        return 0;
    }
    cmd.buf = blk_iov_contiguous(req->iov, inside);
    if (!cmd.buf) {
        cmd.buf = bounce = blk_buffer_try_alloc(node, inside);
        ret = bounce ? 0 : -ENOMEM;
    }
    ret = ret == 0 ? result(nbd_co_run(s, &cmd)) : ret;
    if (ret == 0 && bounce) {
        blk_iov_from_buf(req->iov, bounce, inside);
    }
    blk_buffer_free(bounce);
    return ret;
}

/* The part of a change that lies in the export; -ENOSPC if there would be more to it. */
static int inside_export(const NbdState *s, const BlkRequest *req, bool zeroes, uint64_t *inside)
{
    *inside = req->offset < s->info.size ? MIN(req->bytes, s->info.size - req->offset) : 0;
    if (*inside == req->bytes) {
        return 0;
    }
    if (req->offset + req->bytes > s->node->length) {
        return -ENOSPC;
    }
    return zeroes || blk_iov_is_zero(blk_iov_advance(req->iov, *inside), req->bytes - *inside) ? 0 : -ENOSPC;
}

static uint32_t fua_flag(const BlkRequest *req)
{
    return req->flags & BLK_REQ_FUA ? LIBNBD_CMD_FLAG_FUA : 0;
}

static int nbd_co_pwritev(BlkNode *node, BlkRequest *req)
{
    NbdState *s = node->opaque;
    NbdCommand cmd = { NBD_WRITE, .offset = req->offset, .flags = fua_flag(req) };
    void *bounce = NULL;
    int ret = inside_export(s, req, false, &cmd.bytes);

    if (ret < 0 || cmd.bytes == 0) {
        return ret;
    }
    cmd.buf = blk_iov_contiguous(req->iov, cmd.bytes);
    if (!cmd.buf) {
        cmd.buf = bounce = blk_buffer_try_alloc(node, cmd.bytes);
        if (!bounce) {
            return -ENOMEM;
        }
        blk_iov_to_buf(req->iov, bounce, cmd.bytes);
    }
    ret = co_change(s, &cmd);
    blk_buffer_free(bounce);
    return ret;
}

/* In pieces whose length the protocol can say. */
static int co_change_range(NbdState *s, NbdCommandType type, uint64_t offset, uint64_t bytes, uint32_t flags)
{
    int ret = 0;

    for (uint64_t done = 0; ret == 0 && done < bytes; done += MAX_WITHOUT_DATA) {
        uint64_t piece = MIN(bytes - done, MAX_WITHOUT_DATA);
        NbdCommand cmd = { type, .offset = offset + done, .bytes = piece, .flags = flags };

        ret = co_change(s, &cmd);
    }
    return ret;
}

static int nbd_co_pwrite_zeroes(BlkNode *node, BlkRequest *req)
{
    NbdState *s = node->opaque;
    uint32_t flags = fua_flag(req) | (req->flags & BLK_REQ_UNMAP ? 0 : LIBNBD_CMD_FLAG_NO_HOLE);
    uint64_t inside;
    int ret = inside_export(s, req, true, &inside);

    if (ret < 0) {
        return ret;
    }
    if (req->flags & BLK_REQ_NO_FALLBACK) {
        flags |= LIBNBD_CMD_FLAG_FAST_ZERO;
    }
    if ((flags & LIBNBD_CMD_FLAG_FAST_ZERO) && !s->info.fast_zero) {
        return -ENOTSUP;
    }
    return co_change_range(s, NBD_ZERO, req->offset, inside, flags);
}

static int nbd_co_discard(BlkNode *node, BlkRequest *req)
{
    NbdState *s = node->opaque;
    uint64_t inside = req->offset < s->info.size ? MIN(req->bytes, s->info.size - req->offset) : 0;

    return co_change_range(s, NBD_TRIM, req->offset, inside, 0);
}

static int nbd_co_flush(BlkNode *node)
{
    NbdState *s = node->opaque;
    NbdCommand cmd = { NBD_FLUSH };
    uint64_t changes = s->changes;
    int ret;

    if (s->flush_failed) {
        return -EIO;
    }
    ret = s->info.flush ? nbd_co_run(s, &cmd) : 0;
    if (ret == 0) {
        s->flushed = MAX(s->flushed, changes);
        return s->flush_failed ? -EIO : 0;
    }
    if (ret != -ENOTCONN) {
        s->flush_failed = true;     /* nobody knows what the server has made stable */
    }
    return result(ret);
}

static int nbd_co_block_status(BlkNode *node, uint64_t offset, uint64_t bytes, BlkStatus *status)
{
    NbdState *s = node->opaque;
    int ret = 0;

    if (offset >= s->info.size) {
        status->flags = BLK_STATUS_ZERO | BLK_STATUS_ALLOCATED;
    } else if (s->info.status) {
        ret = result(nbd_status_co_get(s, offset, bytes, status));
    } else {
        status->bytes = MIN(bytes, s->info.size - offset);
        status->flags = BLK_STATUS_DATA | BLK_STATUS_ALLOCATED;
    }
    if (status->flags & (BLK_STATUS_DATA | BLK_STATUS_ZERO)) {
        status->flags |= BLK_STATUS_OFFSET;
        status->file = node;
        status->host_offset = offset;
    }
    return ret;
}

/* ---- opening ---- */

static int check_access(BlkNode *node, GError **error)
{
    NbdState *s = node->opaque;
    g_autofree char *why = g_strdup_printf("The export '%s' can only be read: open it read-only", s->server.name);

    return s->info.read_only ? blk_node_only_read(node, why, error) : 0;
}

static int co_open_links(NbdState *s, uint64_t open_timeout_ns, unsigned connections, GError **error)
{
    uint64_t deadline_ns = open_timeout_ns > 0 ? blk_clock_ns() + open_timeout_ns : 0;
    int ret = nbd_link_co_open(&s->links[0], s, deadline_ns, &s->info, error);

    s->n_links = ret == 0;
    while (ret == 0 && s->n_links < connections && s->info.multi_conn && s->server.transport != NBD_FD) {
        NbdExportInfo info;

        ret = nbd_link_co_open(&s->links[s->n_links], s, deadline_ns, &info, error);
        s->n_links += ret == 0;
    }
    return ret;
}

static int nbd_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    NbdState *s = node->opaque;
    int ret;

    s->node = node;
    s->reconnect_delay_ns = blk_options_uint(options, "reconnect-delay") * 1000000000;
    ret = nbd_server_init(&s->server, node->ctx, options, error);
    if (ret == 0) {
        ret = nbd_libnbd_load(error);
    }
    if (ret == 0) {
        ret = co_open_links(s, blk_options_uint(options, "open-timeout") * 1000000000,
                            (unsigned)blk_options_uint(options, "connections"), error);
    }
    if (ret == 0) {
        ret = check_access(node, error);
    }
    if (ret == 0 && s->server.asks_bitmap && !s->info.status) {
        ret = blk_error(error, -EINVAL, "The server of '%s' does not know the metadata context '%s'", s->server.name,
                        s->server.context);
    }
    if (ret == 0 && s->info.size > BLK_MAX_LENGTH) {
        ret = blk_error(error, -EFBIG, "The export '%s' is too long: %" G_GUINT64_FORMAT " bytes", s->server.name,
                        s->info.size);
    }
    node->length = (s->info.size + SECTOR - 1) / SECTOR * SECTOR;
    node->caps = s->info.fua ? BLK_CAP_FUA : 0;
    return ret;
}

static void nbd_co_close(BlkNode *node)
{
    NbdState *s = node->opaque;

    for (unsigned i = 0; i < NBD_MAX_LINKS; i++) {
        nbd_link_co_close(&s->links[i]);
    }
    nbd_status_clear(s);
    nbd_server_clear(&s->server);
}

static void nbd_hurry(BlkNode *node)
{
    NbdState *s = node->opaque;

    for (unsigned i = 0; i < s->n_links; i++) {
        nbd_link_hurry(&s->links[i]);
    }
}

/* A server that says nothing of block sizes may be one from the time when all clients were disks, unless it shows by
 * its length or its block status that it counts bytes. */
static void nbd_refresh_limits(BlkNode *node)
{
    NbdState *s = node->opaque;
    uint32_t align = s->info.min_block;

    if (align == 0) {
        align = s->info.status || s->info.size % SECTOR != 0 ? 1 : SECTOR;
    }
    node->limits.read_align = node->limits.write_align = align;
    node->limits.max_transfer = s->info.max_block;
    node->limits.zeroes_align = s->info.zero ? align : 0;
    node->limits.discard_align = s->info.trim ? align : 0;
}

static int nbd_co_truncate(BlkNode *node, uint64_t length, BlkPrealloc prealloc, GError **error)
{
    return length > node->length ? blk_error(error, -ENOTSUP, "Cannot grow NBD nodes") : 0;
}

static int nbd_co_info(BlkNode *node, BlkInfo *info, GError **error)
{
    return 0;
}

static char *nbd_filename(const BlkNode *node)
{
    const NbdState *s = node->opaque;

    return s->server.asks_bitmap || s->server.transport == NBD_FD ? NULL : g_strdup(s->server.name);
}

/* ---- creating: the export is there, or not ---- */

static int co_prepare(BlkNode *node, uint64_t length, GError **error)
{
    BlkChild *user = blk_co_attach(node, "create", BLK_PERM_WRITE, BLK_PERM_ALL, error);
    int ret = 0;

    if (!user) {
        return -EPERM;
    }
    if (node->length < length) {
        ret = blk_error(error, -ENOSPC, "The export '%s' is too small: it has %" G_GUINT64_FORMAT " bytes, the image "
                        "needs %" G_GUINT64_FORMAT, blk_node_filename(node), node->length, length);
    } else {
        /* What was there must not be taken for an image any more. */
        ret = blk_co_pwrite_zeroes(node, 0, MIN(node->length, SECTOR), 0);
        if (ret < 0) {
            blk_error_errno(error, ret, "Could not clear '%s'", blk_node_filename(node));
        }
    }
    blk_co_detach(user);
    return ret;
}

static int nbd_co_create_file(BlkContext *ctx, const char *filename, uint64_t length, const BlkOptions *options,
                              bool *made, GError **error)
{
    g_autoptr(JsonObject) tree = nbd_parse_filename(filename, error);
    BlkNode *node;
    int ret;

    *made = false;
    if (!tree) {
        return -EINVAL;
    }
    json_object_set_string_member(tree, "driver", "nbd");
    node = blk_co_open(ctx, tree, error);
    ret = node ? co_prepare(node, length, error) : -EIO;
    blk_co_unref(node);
    return ret;
}

const BlkDriver blk_driver_nbd = {
    .name = "nbd",
    .kind = BLK_PROTOCOL,
    .help = "an export of an NBD server",
    .options = nbd_options,
    .instance_size = sizeof(NbdState),
    .prefixes = nbd_prefixes,
    .parse_filename = nbd_parse_filename,
    .filename = nbd_filename,
    .co_open = nbd_co_open,
    .co_close = nbd_co_close,
    .hurry = nbd_hurry,
    .refresh_limits = nbd_refresh_limits,
    .co_preadv = nbd_co_preadv,
    .co_pwritev = nbd_co_pwritev,
    .co_pwrite_zeroes = nbd_co_pwrite_zeroes,
    .co_discard = nbd_co_discard,
    .co_flush = nbd_co_flush,
    .co_block_status = nbd_co_block_status,
    .co_truncate = nbd_co_truncate,
    .co_info = nbd_co_info,
    .co_create_file = nbd_co_create_file,
};
