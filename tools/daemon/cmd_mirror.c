/* SPDX-License-Identifier: MIT */
/*
 * cmd_mirror.c - blockdev-mirror: a job makes a node the same as another one, and puts it in its place.
 */
#include "daemon/cmd_job.h"

#include "jobs/mirror.h"

/* In the order of BlkMirrorSync; the peer knows the last two here, and refuses them. */
static const char *const sync_modes[] = { "full", "top", "none", "incremental", "bitmap", NULL };
static const char *const copy_modes[] = { "background", "write-blocking", NULL };

static const BlkOption mirror_options[] = {
    DAEMON_JOB_OPTIONS,
    DAEMON_JOB_ON_ERROR_OPTIONS,
    { "device", BLK_OPTION_STRING, "the source", .required = true },
    { "target", BLK_OPTION_STRING, "the node that becomes the same, and takes its place", .required = true },
    { "replaces", BLK_OPTION_STRING, "the node whose place it takes: the source, or below it through filters" },
    { "sync", BLK_OPTION_ENUM, "copy all, what the source has itself, or only what is written from now on", NULL, sync_modes,
      .required = true },
    { "copy-mode", BLK_OPTION_ENUM, "when what guests write is copied: later, or before it is done", "background", copy_modes },
    { "granularity", BLK_OPTION_UINT, "bytes, a power of two: what differs is known in such units", "0" },
    { "buf-size", BLK_OPTION_UINT, "bytes that are copied at the same time, about", "0" },
    { "unmap", BLK_OPTION_BOOL, "false: zeroes become allocated zeroes of the target", "on" },
    { "filter-node-name", BLK_OPTION_STRING, "of the filter that stands above the source meanwhile" },
    { "compress", BLK_OPTION_BOOL, "store what is copied compressed", "off" },
    { NULL },
};

/* The node that the key names; true also if it is absent. */
static bool find_node(Daemon *d, const BlkOptions *args, const char *key, BlkNode **node, GError **error)
{
    const char *name = blk_options_string(args, key);

    *node = name ? daemon_find_node(d, name, name, error) : NULL;
    return *node || !name;
}

static int co_blockdev_mirror(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    unsigned sync = blk_options_enum(args, "sync");
    BlkMirrorOptions options = {
        .sync = (BlkMirrorSync)sync,
        .write_blocking = blk_options_enum(args, "copy-mode") == 1,
        .granularity = blk_options_uint(args, "granularity"),
        .buf_size = blk_options_uint(args, "buf-size"),
        .keep_space = !blk_options_bool(args, "unmap"),
        .filter_node_name = blk_options_string(args, "filter-node-name"),
        .compress = blk_options_bool(args, "compress"),
    };
    const char *replaces = blk_options_string(args, "replaces");
    BlkJob *job;

    daemon_get_data_job_options(args, &options.job);
    if (!find_node(d, args, "device", &options.source, error) || !find_node(d, args, "target", &options.target, error)) {
        return -ENOENT;
    }
    if (sync > BLK_MIRROR_NONE) {
        return blk_error(error, -EINVAL, "Sync mode '%s' not supported", sync_modes[sync]);
    }
    if (replaces && !(options.replaces = blk_node_find(d->ctx, replaces))) {
        return blk_error(error, -ENOENT, "Failed to find node with node-name='%.*s'", 64, replaces);
    }
    job = blk_co_mirror_job_new(&options, error);
    if (!job) {
        return -EINVAL;
    }
    blk_job_start(job);
    return 0;
}

const DaemonCommand daemon_mirror_commands[] = {
    { "blockdev-mirror", "makes a node the same as another one, keeps it so, and puts it in its place", mirror_options,
      co_blockdev_mirror },
    { NULL },
};
