/* SPDX-License-Identifier: MIT */
/*
 * null.c - protocol driver "null-co": a disk without a disk.
 *
 * Writes are accepted and forgotten. Reads leave the buffer as it is, or, with read-zeroes=on, fill it with zeroes. Every
 * request takes latency-ns. For measuring the layers above and for tests.
 */
#include <blkstack/driver.h>

enum { SECTOR = 512 };

typedef struct NullState {
    uint64_t latency_ns;
    bool read_zeroes;
} NullState;

static const BlkOption null_options[] = {
    { "size", BLK_OPTION_SIZE, "length of the disk", .default_text = "1G", .max = BLK_MAX_LENGTH },
    { "latency-ns", BLK_OPTION_UINT, "how long each request takes, in nanoseconds", .default_text = "0" },
    { "read-zeroes", BLK_OPTION_BOOL, "let reads return zeroes", .default_text = "off" },
    { "filename", BLK_OPTION_STRING, "accepted for compatibility: null-co://" },
    { NULL },
};

static int null_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    NullState *s = node->opaque;
    uint64_t size = blk_options_uint(options, "size");

    s->latency_ns = blk_options_uint(options, "latency-ns");
    s->read_zeroes = blk_options_bool(options, "read-zeroes");
    node->length = (size + SECTOR - 1) / SECTOR * SECTOR;
    node->caps = BLK_CAP_FUA;
    return 0;
}

static void null_refresh_limits(BlkNode *node)
{
    node->limits.zeroes_align = node->limits.discard_align = 1;
}

static int null_co_wait(BlkNode *node)
{
    NullState *s = node->opaque;

    if (s->latency_ns > 0) {
        blk_co_sleep_ns(s->latency_ns);
    }
    return 0;
}

static int null_co_preadv(BlkNode *node, BlkRequest *req)
{
    NullState *s = node->opaque;

    if (s->read_zeroes) {
        blk_iov_zero(req->iov, req->bytes);
    }
    return null_co_wait(node);
}

static int null_co_write(BlkNode *node, BlkRequest *req)
{
    return null_co_wait(node);
}

static int null_co_block_status(BlkNode *node, uint64_t offset, uint64_t bytes, BlkStatus *status)
{
    NullState *s = node->opaque;

    status->flags = BLK_STATUS_OFFSET | (s->read_zeroes ? BLK_STATUS_ZERO | BLK_STATUS_ALLOCATED : 0);
    status->file = node;
    status->host_offset = offset;
    return 0;
}

static int null_co_info(BlkNode *node, BlkInfo *info, GError **error)
{
    info->has_allocated = true;
    info->allocated_bytes = 0;
    return 0;
}

static const char *const null_prefixes[] = { "null-co", NULL };

static JsonObject *null_parse_filename(const char *name, GError **error)
{
    if (!g_str_equal(name, "null-co://")) {
        blk_error(error, -EINVAL, "'%s' is no name that driver 'null-co' knows: use null-co://", name);
        return NULL;
    }
    return json_object_new();
}

const BlkDriver blk_driver_null_co = {
    .name = "null-co",
    .alias = "null",
    .kind = BLK_PROTOCOL,
    .help = "a disk that forgets what is written",
    .options = null_options,
    .instance_size = sizeof(NullState),
    .prefixes = null_prefixes,
    .parse_filename = null_parse_filename,
    .co_open = null_co_open,
    .reopens_as_it_is = true,
    .refresh_limits = null_refresh_limits,
    .co_preadv = null_co_preadv,
    .co_pwritev = null_co_write,
    .co_pwrite_zeroes = null_co_write,
    .co_discard = null_co_write,
    .co_flush = null_co_wait,
    .co_block_status = null_co_block_status,
    .co_info = null_co_info,
};
