/* SPDX-License-Identifier: MIT */
/*
 * cmd_chain.c - jobs that move data between the images of a chain: block-stream, block-commit.
 */
#include "daemon/cmd_job.h"

#include "core/node.h"
#include "jobs/commit_job.h"
#include "jobs/mirror.h"
#include "jobs/stream.h"

/* The arguments that both have. */
#define CHAIN_JOB_OPTIONS                                                                                                 \
    DAEMON_JOB_OPTIONS,                                                                                                   \
    { "device", BLK_OPTION_STRING, "name of the topmost node of the chain", .required = true },                          \
    { "base-node", BLK_OPTION_STRING, "name of the node that stays below" },                                             \
    { "base", BLK_OPTION_STRING, "file name of the image that stays below" },                                            \
    { "backing-file", BLK_OPTION_STRING, "how the image above it names it" },                                            \
    { "backing-mask-protocol", BLK_OPTION_BOOL, "images without a format are named as raw ones", "off" },                 \
    { "on-error", BLK_OPTION_ENUM, "what happens when a request fails", "report", blk_on_error_names },                  \
    { "filter-node-name", BLK_OPTION_STRING, "of the filter that the job puts in" },                                     \
    { "compress", BLK_OPTION_BOOL, "what is written is stored compressed, by a compress filter for the job's time", "off" }

static BlkJobOptions job_options(const BlkOptions *args)
{
    BlkJobOptions options;

    daemon_get_job_options(args, &options);
    options.on_source_error = options.on_target_error = (BlkOnError)blk_options_enum(args, "on-error");
    return options;
}

static BlkChainName name_of_base(const BlkOptions *args)
{
    return (BlkChainName) { blk_options_string(args, "backing-file"), blk_options_bool(args, "backing-mask-protocol") };
}

static int refuse_both(const BlkOptions *args, const char *one, const char *other, const char *format, GError **error)
{
    return blk_options_has(args, one) && blk_options_has(args, other) ? blk_error(error, -EINVAL, format, one, other) : 0;
}

/* ---- block-stream ---- */

static const BlkOption stream_options[] = {
    CHAIN_JOB_OPTIONS,
    { "bottom", BLK_OPTION_STRING, "name of the lowest node that is copied" },
    { NULL },
};

static int stream_base_node(Daemon *d, const char *name, BlkStreamOptions *stream, GError **error)
{
    stream->base = daemon_find_node(d, NULL, name, error);
    if (!stream->base) {
        return -ENOENT;
    }
    if (!blk_chain_below(stream->device) || !blk_chain_has(blk_chain_below(stream->device), stream->base)) {
        return blk_error(error, -EINVAL, "Node '%s' is not a backing image of '%s'", name, blk_node_name(stream->device));
    }
    return 0;
}

static int stream_bottom(Daemon *d, const char *name, BlkStreamOptions *stream, GError **error)
{
    BlkNode *bottom = daemon_find_node(d, NULL, name, error);

    if (!bottom) {
        return -ENOENT;
    }
    if (!blk_chain_has(stream->device, bottom)) {
        return blk_error(error, -EINVAL, "Node '%s' is not in a chain starting from '%s'", name, blk_node_name(stream->device));
    }
    stream->base = blk_chain_below(bottom);
    return 0;
}

static int co_stream_base(Daemon *d, const BlkOptions *args, BlkStreamOptions *stream, GError **error)
{
    const char *const together = "'%s' and '%s' cannot be specified at the same time";
    const char *base = blk_options_string(args, "base"), *base_node = blk_options_string(args, "base-node");
    const char *bottom = blk_options_string(args, "bottom");
    int ret = refuse_both(args, "base", "base-node", together, error);

    ret = ret < 0 ? ret : refuse_both(args, "base", "bottom", together, error);
    ret = ret < 0 ? ret : refuse_both(args, "bottom", "base-node", together, error);
    ret = ret < 0 ? ret : refuse_both(args, "bottom", "backing-file", together, error);     /* as the peer, in other words */
    if (ret < 0 || !(base || base_node || bottom)) {
        return ret;
    }
    if (base_node) {
        return stream_base_node(d, base_node, stream, error);
    }
    if (bottom) {
        return stream_bottom(d, bottom, stream, error);
    }
    stream->base = blk_co_chain_find(stream->device, base);
    return stream->base && stream->base != stream->device ? 0 : blk_error(error, -ENOENT, "Can't find '%s' in the backing chain",
                                                                          base);
}

static int co_block_stream(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    const char *device = blk_options_string(args, "device");
    BlkStreamOptions stream = {
        .device = daemon_find_node(d, device, device, error),
        .name = name_of_base(args),
        .filter_node_name = blk_options_string(args, "filter-node-name"),
        .compress = blk_options_bool(args, "compress"),
    };
    const BlkJobOptions options = job_options(args);
    int ret = stream.device ? co_stream_base(d, args, &stream, error) : -ENOENT;

    if (ret == 0 && stream.name.filename && !stream.base) {
        ret = blk_error(error, -EINVAL, "backing file specified, but streaming the entire chain");
    }
    BlkJob *job = ret == 0 ? blk_co_stream_new(&stream, &options, error) : NULL;
    if (!job) {
        return -EINVAL;
    }
    blk_job_start(job);
    return 0;
}

/* ---- block-commit ---- */

static const BlkOption commit_options[] = {
    CHAIN_JOB_OPTIONS,
    { "top-node", BLK_OPTION_STRING, "name of the topmost node that is committed" },
    { "top", BLK_OPTION_STRING, "file name of the topmost image that is committed" },
    { NULL },
};

/* The topmost node of a chain: no node stands above it. (transfer none) */
static BlkNode *find_root(Daemon *d, const char *name, GError **error)
{
    BlkNode *node = blk_node_find(d->ctx, name);

    if (!node) {
        daemon_error(error, -ENOENT, "DeviceNotFound", "Device '%.*s' not found", 64, name);
        return NULL;
    }
    for (GList *l = node->core->parents.head; l; l = l->next) {
        if (((BlkChild *)l->data)->parent) {
            blk_error(error, -EINVAL, "Need a root block node");
            return NULL;
        }
    }
    return node;
}

static int check_in_chain(BlkNode *top, BlkNode *node, GError **error)
{
    return blk_chain_has(top, node) ? 0 : blk_error(error, -EINVAL, "'%s' is not in this backing file chain", blk_node_name(node));
}

static BlkNode *co_commit_top(Daemon *d, const BlkOptions *args, BlkNode *device, GError **error)
{
    const char *name = blk_options_string(args, "top"), *node_name = blk_options_string(args, "top-node");
    BlkNode *top = device;

    if (node_name) {
        top = daemon_find_node(d, NULL, node_name, error);
        return top && check_in_chain(device, top, error) == 0 ? top : NULL;
    }
    if (name) {
        top = blk_co_chain_find(device, name);
        if (!top) {
            blk_error(error, -ENOENT, "Top image file %s not found", name);
        }
    }
    return top;
}

static BlkNode *co_commit_base(Daemon *d, const BlkOptions *args, BlkNode *top, GError **error)
{
    const char *name = blk_options_string(args, "base"), *node_name = blk_options_string(args, "base-node");
    BlkNode *base = top;

    if (node_name) {
        base = daemon_find_node(d, NULL, node_name, error);
        return base && check_in_chain(top, base, error) == 0 ? base : NULL;
    }
    if (name) {
        base = blk_co_chain_find(top, name);
        if (!base) {
            blk_error(error, -ENOENT, "Can't find '%s' in the backing chain", name);
        }
        return base;
    }
    while (blk_chain_below(base)) {
        base = blk_chain_below(base);
    }
    return base;
}

static int co_find_images(Daemon *d, const BlkOptions *args, BlkNode **device, BlkCommitJobOptions *commit, GError **error)
{
    static const char *const exclusive = "'%s' and '%s' are mutually exclusive";
    int ret = refuse_both(args, "base-node", "base", exclusive, error);

    ret = ret < 0 ? ret : refuse_both(args, "top-node", "top", exclusive, error);
    if (ret < 0) {
        return ret;
    }
    *device = find_root(d, blk_options_string(args, "device"), error);
    commit->top = *device ? co_commit_top(d, args, *device, error) : NULL;
    commit->base = commit->top ? co_commit_base(d, args, commit->top, error) : NULL;
    if (!commit->base) {
        return -ENOENT;
    }
    if (blk_node_skip_filters(commit->top) == blk_node_skip_filters(commit->base)) {
        return blk_error(error, -EINVAL, "cannot commit an image into itself");
    }
    return 0;
}

/* Guests write to the device: they go to the base when the job is told to complete. */
static BlkJob *co_commit_active(BlkNode *device, const BlkCommitJobOptions *commit, const BlkJobOptions *job, GError **error)
{
    const BlkMirrorOptions options = {
        .job = *job,
        .source = device,
        .target = commit->base,
        .commit = true,
        .filter_node_name = commit->filter_node_name,
        .compress = commit->compress,
    };

    if (commit->name.filename) {
        blk_error(error, -EINVAL, "'backing-file' specified, but 'top' is the active layer");
        return NULL;
    }
    return blk_co_mirror_job_new(&options, error);
}

static int co_block_commit(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    const BlkJobOptions options = job_options(args);
    BlkCommitJobOptions commit = {
        .name = name_of_base(args),
        .filter_node_name = blk_options_string(args, "filter-node-name"),
        .compress = blk_options_bool(args, "compress"),
    };
    BlkNode *device;
    BlkJob *job;

    if (co_find_images(d, args, &device, &commit, error) < 0) {
        return -EINVAL;
    }
    if (blk_node_skip_filters(commit.top) == blk_node_skip_filters(device)) {
        job = co_commit_active(device, &commit, &options, error);
    } else {
        job = blk_co_commit_job_new(&commit, &options, error);
    }
    if (!job) {
        return -EINVAL;
    }
    blk_job_start(job);
    return 0;
}

const DaemonCommand daemon_chain_commands[] = {
    { "block-stream", "copies into an image what it reads from the images below", stream_options, co_block_stream },
    { "block-commit", "copies what lies above an image of a chain into it", commit_options, co_block_commit },
    { NULL },
};
