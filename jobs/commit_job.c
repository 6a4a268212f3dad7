/* SPDX-License-Identifier: MIT */
/*
 * commit_job.c - the job "commit" of images that nobody writes to. See commit_job.h.
 *
 *     overlays ──> top ──> hide ──> between ──> ... ──> base       what lies above the base is copied into it
 *     overlays ──> base                                            afterwards
 *
 * The top hides all that changes below it (filters/hide.c). When the base is stable, finalizing lets the header of each
 * overlay name it, and then the open node use it. So a crash leaves overlays of the same content on either chain.
 */
#include "jobs/commit_job.h"

#include "core/node.h"
#include "filters/hide.h"
#include "jobs/compress_target.h"
#include "jobs/copy.h"
#include "jobs/source.h"

enum { WORKERS = 8 };

typedef struct CommitJob {
    BlkNode *top;               /* the image: a reference, as all nodes here */
    BlkNode *bottom;            /* the lowest image above the base, which may be the top */
    BlkNode *base;              /* as the chain leads to it: with the filters above it, but not those of the job */
    BlkNode *hide, *compress;   /* (nullable): the filters */
    BlkChild *target;           /* (nullable): the job's user of the base, through the compress filter */
    GArray *changed;            /* nodes that were made writable, or read-only */
    bool failed;                /* or was cancelled */
    char *backing_file;         /* (nullable) */
    BlkChainName name;          /* of the base */
} CommitJob;

/* ---- the work ---- */

static int co_grow_base(const CommitJob *s, GError **error)
{
    BlkNode *base = blk_child_node(s->target);
    uint64_t length = blk_node_length(s->top);
    int ret = blk_node_length(base) < length ? blk_co_truncate(base, length, BLK_PREALLOC_OFF, error) : 0;

    if (ret < 0) {
        g_prefix_error(error, "Could not resize the base image '%s': ", blk_node_name(s->base));
    }
    return ret;
}

static int co_run(BlkJob *job, GError **error)
{
    CommitJob *s = job->opaque;
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    BlkNodesSource source;
    BlkCopy copy = {
        .job = job,
        .source = &source.source,
        .target = s->target,
        .sparse = 1,
        .workers = WORKERS,
    };
    int ret = co_grow_base(s, error);

    g_ptr_array_add(nodes, s->top);
    ret = ret < 0 ? ret : blk_nodes_source_init(&source, nodes, error);
    if (ret < 0) {
        return ret;
    }
    source.base = s->base;
    blk_job_progress_set_total(job, source.source.length);
    return blk_co_copy(&copy, error);
}

/* ---- the end ---- */

/* Behind the end of the top an overlay that is longer reads zeroes, whatever a longer base has there. */
static int co_clear_behind_top(const CommitJob *s, GPtrArray *overlays, GError **error)
{
    BlkNode *base = blk_child_node(s->target);
    uint64_t begin = blk_node_length(s->top), end = 0;

    for (guint i = 0; i < overlays->len; i++) {
        end = MAX(end, blk_node_length(overlays->pdata[i]));
    }
    end = MIN(end, blk_node_length(base));
    if (begin >= end) {
        return 0;
    }
    int ret = blk_co_pwrite_zeroes(base, begin, end - begin, 0);
    ret = ret < 0 ? ret : blk_co_flush(base);
    return ret < 0 ? blk_error_errno(error, ret, "Could not clear what the base image '%s' has behind the end of '%s'",
                                     blk_node_name(s->base), blk_node_name(s->top)) : 0;
}

/* The job writes no more, and nobody else does from here on. */
static int co_end_writing(BlkJob *job, GError **error)
{
    CommitJob *s = job->opaque;
    const unsigned shared = BLK_PERM_READ | BLK_PERM_WRITE_UNCHANGED;

    blk_co_compress_target_end(g_steal_pointer(&s->compress));
    blk_co_job_release(job, g_steal_pointer(&s->target));
    if (!blk_co_job_use(job, s->base, "commit", BLK_PERM_READ, shared, error)) {
        return -EPERM;
    }
    blk_co_hide_remove(g_steal_pointer(&s->hide));
    return 0;
}

static int co_prepare(BlkJob *job, GError **error)
{
    CommitJob *s = job->opaque;
    g_autoptr(GPtrArray) overlays = blk_chain_overlays(s->top);
    int ret = co_clear_behind_top(s, overlays, error);

    ret = ret < 0 ? ret : co_end_writing(job, error);
    for (guint i = 0; ret == 0 && i < overlays->len; i++) {
        /* The base as it is now: filters may have come or gone. */
        ret = blk_co_chain_set_backing(overlays->pdata[i], blk_chain_below(s->bottom), &s->name, error);
    }
    return ret;
}

/* Here nobody needs what the base has got: the overlays are what they were. */
static void co_abort(BlkJob *job)
{
    ((CommitJob *)job->opaque)->failed = true;
}

static void co_release(void *state)
{
    CommitJob *s = state;

    blk_co_hide_remove(s->hide);
    if (s->changed) {
        blk_co_chain_make_as_before(s->changed, s->failed);
        g_array_unref(s->changed);
    }
    blk_co_unref(s->base);
    blk_co_unref(s->bottom);
    blk_co_unref(s->top);
    g_free(s->backing_file);
}

static void co_clean(BlkJob *job)
{
    CommitJob *s = job->opaque;

    blk_co_compress_target_end(s->compress);
    if (s->target) {
        blk_co_job_release(job, s->target);
    }
    co_release(s);
}

static const BlkJobType commit_type = {
    .name = "commit",
    .alone = true,
    .moves_data = true,
    .instance_size = sizeof(CommitJob),
    .co_run = co_run,
    .co_prepare = co_prepare,
    .co_abort = co_abort,
    .co_clean = co_clean,
};

/* ---- the beginning ---- */

static int check_overlays(BlkNode *top, GError **error)
{
    g_autoptr(GPtrArray) overlays = blk_chain_overlays(top);
    int ret = 0;

    for (guint i = 0; ret == 0 && i < overlays->len; i++) {
        ret = blk_job_check_unused(overlays->pdata[i], error);
        ret = ret < 0 ? ret : blk_chain_check_header(overlays->pdata[i], error);
    }
    return ret;
}

/* Does no job work with the images, down to the base? *bottom, *base: (out): as in CommitJob; only on success. */
static int check_chain(const BlkCommitJobOptions *commit, BlkNode **bottom, BlkNode **base, GError **error)
{
    BlkNode *last = blk_node_skip_filters(commit->base), *image = NULL, *place = commit->top;
    int ret = 0;

    for (; ret == 0 && image != last; place = blk_chain_below(place)) {
        *bottom = image;
        *base = place;
        image = blk_node_skip_filters(place);
        ret = blk_job_check_unused(image, error);
    }
    return ret;
}

/* Nobody writes to what lies between: above it the filter lets anybody write. */
static int co_change_nodes(const CommitJob *s, GError **error)
{
    BlkNode *base = blk_node_skip_filters(s->base);
    int ret = blk_co_chain_make(s->base, true, s->changed, error);

    for (BlkNode *place = blk_chain_below(s->top); ret == 0 && blk_node_skip_filters(place) != base;
         place = blk_chain_below(place)) {
        ret = blk_co_chain_make(place, false, s->changed, error);
    }
    return ret;
}

/* What can be refused before there is a job. */
static int co_begin(void *state, const void *options, GError **error)
{
    CommitJob *s = state;
    const BlkCommitJobOptions *commit = options;
    BlkNode *top = blk_node_skip_filters(commit->top), *bottom = top, *base = commit->base;
    int ret = check_overlays(top, error);

    ret = ret < 0 ? ret : check_chain(commit, &bottom, &base, error);
    if (ret < 0) {
        return ret;
    }
    *s = (CommitJob) {
        .top = blk_node_ref(top),
        .bottom = blk_node_ref(bottom),
        .base = blk_node_ref(base),
        .changed = blk_chain_changes_new(),
        .backing_file = g_strdup(commit->name.filename),
    };
    s->name = (BlkChainName) { s->backing_file, commit->name.mask_protocol };
    ret = co_change_nodes(s, error);
    if (ret == 0) {
        s->hide = blk_co_hide_insert(s->top, commit->filter_node_name, error);
        ret = s->hide ? 0 : -EINVAL;
    }
    return ret;
}

static int co_use_image(BlkJob *job, BlkNode *image, unsigned perm, unsigned shared, GError **error)
{
    return blk_co_job_hold(job, image, "commit", perm, shared, error) ? 0 : -EPERM;
}

static int co_use_overlays(BlkJob *job, GError **error)
{
    CommitJob *s = job->opaque;
    g_autoptr(GPtrArray) overlays = blk_chain_overlays(s->top);
    int ret = 0;

    for (guint i = 0; ret == 0 && i < overlays->len; i++) {
        ret = co_use_image(job, overlays->pdata[i], 0, BLK_PERM_ALL, error);
    }
    return ret;
}

/* Without it the job does not go on: nobody else works with the images, nor writes to the top, nor minds what the job writes. */
static int co_use_chain(BlkJob *job, const void *options, GError **error)
{
    CommitJob *s = job->opaque;
    bool compress = ((const BlkCommitJobOptions *)options)->compress;
    const unsigned shared = BLK_PERM_READ | BLK_PERM_WRITE_UNCHANGED;
    int ret = co_use_overlays(job, error);

    ret = ret < 0 ? ret : co_use_image(job, s->top, BLK_PERM_READ, shared, error);
    for (BlkNode *image = s->top; ret == 0 && image != s->bottom; ) {
        image = blk_node_backing(image);
        ret = co_use_image(job, image, BLK_PERM_READ, BLK_PERM_ALL, error);
    }
    ret = ret < 0 ? ret : co_use_image(job, blk_node_skip_filters(s->base), 0, BLK_PERM_ALL, error);
    if (ret == 0 && compress) {
        s->compress = blk_co_compress_target(s->base, error);
        ret = s->compress ? 0 : -EINVAL;
    }
    if (ret == 0) {
        s->target = blk_co_job_use(job, compress ? s->compress : s->base, "commit", BLK_PERM_WRITE | BLK_PERM_RESIZE, shared, error);
        ret = s->target ? 0 : -EPERM;
    }
    return ret;
}

BlkJob *blk_co_commit_job_new(const BlkCommitJobOptions *commit, const BlkJobOptions *options, GError **error)
{
    static const BlkJobMaker maker = { &commit_type, co_begin, co_release, co_use_chain };

    return blk_co_job_make(commit->top->ctx, &maker, commit, options, error);
}
