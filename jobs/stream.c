/* SPDX-License-Identifier: MIT */
/*
 * stream.c - the job "stream": copies into an image what it reads from the images below it.
 *
 *     guests ──> job-top ──> device ──> between ──> ... ──> base       what lies between is filled into the device
 *     guests ──> device ──> base                                       afterwards
 *
 * Fills change nothing that a reader sees (filters/job_top.c). When they are stable, finalizing lets the header name the
 * base, and then the open node use it. So a crash leaves an image of the same content with the old chain or with the new one.
 */
#include "jobs/stream.h"

#include "core/node.h"
#include "filters/job_top.h"
#include "jobs/chain.h"
#include "jobs/compress_target.h"
#include "jobs/copy.h"
#include "jobs/source.h"

enum { WORKERS = 8 };

typedef struct Stream {
    BlkNode *device;            /* references, as all nodes here */
    BlkNode *base;              /* (nullable) */
    BlkNode *bottom;            /* the lowest image between; NULL: there is none */
    BlkNode *compress, *top;    /* (nullable): the filters */
    BlkChild *target;
    GArray *made_writable;
    char *backing_file;         /* (nullable) */
    BlkChainName name;          /* of the base */
} Stream;

static int co_run(BlkJob *job, GError **error)
{
    Stream *s = job->opaque;
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    BlkNodesSource source;
    BlkCopy copy = {
        .job = job,
        .source = &source.source,
        .target = s->target,
        .target_is_zero = !s->base,     /* what is not there will read as zeroes */
        .unchanged = true,
        .sparse = 1,
        .workers = WORKERS,
    };

    if (!s->bottom) {
        return 0;
    }
    g_ptr_array_add(nodes, s->device);
    int ret = blk_nodes_source_init(&source, nodes, error);
    if (ret < 0) {
        return ret;
    }
    source.below_top = true;
    source.base = s->base;
    blk_job_progress_set_total(job, source.source.length);
    return blk_co_copy(&copy, error);
}

static int co_prepare(BlkJob *job, GError **error)
{
    Stream *s = job->opaque;
    BlkNode *image = blk_node_skip_filters(s->device);

    if (!image->backing) {
        return 0;
    }
    /* The base as it is now: the chain below may have changed meanwhile, without its content. */
    BlkNode *base = !s->base ? NULL : blk_chain_below(s->bottom ? s->bottom : image);
    return blk_co_chain_set_backing(image, base, &s->name, error);
}

static void co_release(void *state)
{
    Stream *s = state;

    blk_co_job_top_remove(s->top);
    blk_co_compress_target_end(s->compress);
    if (s->made_writable) {
        blk_co_chain_make_as_before(s->made_writable, false);
        g_array_unref(s->made_writable);
    }
    blk_co_unref(s->bottom);
    blk_co_unref(s->base);
    blk_co_unref(s->device);
    g_free(s->backing_file);
}

static void co_clean(BlkJob *job)
{
    Stream *s = job->opaque;

    if (s->target) {
        blk_co_job_release(job, s->target);
    }
    co_release(s);
}

static const BlkJobType stream_type = {
    .name = "stream",
    .alone = true,
    .moves_data = true,
    .instance_size = sizeof(Stream),
    .co_run = co_run,
    .co_prepare = co_prepare,
    .co_clean = co_clean,
};

/* Does no job work with the device or what lies between? *bottom: (out) (nullable): the lowest image between. */
static int check_chain(const BlkStreamOptions *stream, BlkNode **bottom, GError **error)
{
    BlkNode *stop = stream->base ? blk_node_skip_filters(stream->base) : NULL;

    *bottom = NULL;
    for (BlkNode *place = stream->device; place && blk_node_skip_filters(place) != stop; place = blk_chain_below(place)) {
        BlkNode *image = blk_node_skip_filters(place);
        int ret = blk_job_check_unused(image, error);

        if (ret < 0) {
            return ret;
        }
        *bottom = place == stream->device ? NULL : image;
    }
    return 0;
}

static int co_put_in_filters(Stream *s, const BlkStreamOptions *stream, GError **error)
{
    if (stream->compress) {
        s->compress = blk_co_compress_target(s->device, error);
        if (!s->compress) {
            return -EINVAL;
        }
    }
    s->top = blk_co_job_top_insert(s->compress ? s->compress : s->device, stream->filter_node_name, error);
    return s->top ? 0 : -EINVAL;
}

/* Without it the job does not go on: nobody writes to the images between, and nobody else works with the device. */
static int co_use_chain(BlkJob *job, const void *options, GError **error)
{
    Stream *s = job->opaque;
    const unsigned shared = BLK_PERM_READ | BLK_PERM_WRITE_UNCHANGED;
    BlkNode *image = blk_node_skip_filters(s->device);

    if (!blk_co_job_hold(job, image, "stream", 0, BLK_PERM_ALL, error)) {
        return -EPERM;
    }
    for (BlkNode *node = image; s->bottom && node != s->bottom; ) {
        node = blk_node_backing(node);
        if (!blk_co_job_hold(job, node, "stream", BLK_PERM_READ, shared, error)) {
            return -EPERM;
        }
    }
    s->target = blk_co_job_use(job, s->top, "stream", BLK_PERM_WRITE_UNCHANGED, BLK_PERM_ALL, error);
    return s->target ? 0 : -EPERM;
}

/* What can be refused before there is a job. */
static int co_begin(void *state, const void *options, GError **error)
{
    Stream *s = state;
    const BlkStreamOptions *stream = options;
    BlkNode *image = blk_node_skip_filters(stream->device);
    int ret = check_chain(stream, &s->bottom, error);

    *s = (Stream) {
        .device = blk_node_ref(stream->device),
        .base = stream->base ? blk_node_ref(stream->base) : NULL,
        .bottom = s->bottom ? blk_node_ref(s->bottom) : NULL,
        .made_writable = blk_chain_changes_new(),
        .backing_file = g_strdup(stream->name.filename),
    };
    s->name = (BlkChainName) { s->backing_file, stream->name.mask_protocol };
    if (ret == 0 && image->backing) {
        ret = blk_chain_check_header(image, error);
    }
    ret = ret < 0 ? ret : blk_co_chain_make(s->device, true, s->made_writable, error);
    return ret < 0 ? ret : co_put_in_filters(s, stream, error);
}

BlkJob *blk_co_stream_new(const BlkStreamOptions *stream, const BlkJobOptions *options, GError **error)
{
    static const BlkJobMaker maker = { &stream_type, co_begin, co_release, co_use_chain };

    return blk_co_job_make(stream->device->ctx, &maker, stream, options, error);
}
