/* SPDX-License-Identifier: MIT */
/*
 * http.c - protocol drivers "http" and "https": a file on a web server as a node, to be read.
 *
 * The node's length is the file's, rounded up to 512 bytes as that of any file; the missing bytes read as zeroes.
 *
 * Limitations: the server must have ranges (RFC 9110, 14), and say how long the file is; nothing is written.
 */
#include "drivers/drivers.h"
#include "drivers/http/http.h"
#include "drivers/http/libcurl.h"

enum { SECTOR = 512, MAX_TRANSFER = 4 << 20 };

static int http_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    HttpState *s = node->opaque;
    int ret = http_options_init(&s->options, node, options, error);

    s->node = node;
    if (ret == 0) {
        ret = blk_node_only_read(node, "A file on a web server can only be read: open it read-only", error);
    }
    if (ret < 0) {
        return ret;
    }
    s->curl = http_curl_load(error);
    if (!s->curl) {
        return -ENOTSUP;
    }
    s->loop = http_loop_new(node->ctx, s->curl, error);
    if (!s->loop) {
        return -EIO;
    }
    ret = http_windows_co_open(s, error);
    if (ret < 0) {
        return ret;
    }
    node->length = (s->file.length + SECTOR - 1) / SECTOR * SECTOR;
    return 0;
}

static void http_co_close(BlkNode *node)
{
    HttpState *s = node->opaque;

    http_windows_co_close(s);
    http_loop_co_free(s->loop);
    http_options_clear(&s->options);
    g_free(s->file.etag);
    g_free(s->file.last_modified);
    g_free(s->told);
}

static void http_refresh_limits(BlkNode *node)
{
    node->limits.read_align = node->limits.write_align = 1;
    node->limits.max_transfer = MAX_TRANSFER;
}

static int http_co_preadv(BlkNode *node, BlkRequest *req)
{
    HttpState *s = node->opaque;
    uint64_t inside = req->offset < s->file.length ? MIN(req->bytes, s->file.length - req->offset) : 0;

    blk_iov_zero(blk_iov_advance(req->iov, inside), req->bytes - inside);
    return http_windows_co_read(s, req->offset, inside, req->iov);
}

static int http_co_block_status(BlkNode *node, uint64_t offset, uint64_t bytes, BlkStatus *status)
{
    status->flags = BLK_STATUS_DATA | BLK_STATUS_ALLOCATED | BLK_STATUS_OFFSET;
    status->file = node;
    status->host_offset = offset;
    return 0;
}

static int http_co_info(BlkNode *node, BlkInfo *info, GError **error)
{
    return 0;
}

static char *http_filename(const BlkNode *node)
{
    return g_strdup(((const HttpState *)node->opaque)->options.url);
}

/* All but the name and what it is for. */
#define HTTP_DRIVER                             \
    .kind = BLK_PROTOCOL,                       \
    .options = http_options,                    \
    .instance_size = sizeof(HttpState),         \
    .parse_filename = http_parse_filename,      \
    .filename = http_filename,                  \
    .url_names = true,                          \
    .co_open = http_co_open,                    \
    .co_close = http_co_close,                  \
    .refresh_limits = http_refresh_limits,      \
    .co_preadv = http_co_preadv,                \
    .co_block_status = http_co_block_status,    \
    .co_info = http_co_info

const BlkDriver blk_driver_http = {
    .name = "http",
    .help = "a file on a web server, read-only",
    .prefixes = http_prefixes,
    HTTP_DRIVER,
};

const BlkDriver blk_driver_https = {
    .name = "https",
    .help = "a file on a web server that is reached by TLS, read-only",
    .prefixes = https_prefixes,
    HTTP_DRIVER,
};
