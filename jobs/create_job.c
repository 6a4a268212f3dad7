/* SPDX-License-Identifier: MIT */
/*
 * create_job.c - job "create": see create_job.h. What is left after a failure is as blk_co_create_file() and
 * blk_co_create_in() say. There is no pause point in between: it cannot be cancelled while it works.
 */
#include "jobs/create_job.h"

#include "core/options.h"
#include "jobs/job.h"

typedef struct CreateJob {
    const BlkDriver *driver;
    char *filename;                 /* (nullable) */
    JsonNode *file;                 /* (nullable) */
    JsonObject *options;
} CreateJob;

/* (transfer full): the node in which the image is made; NULL with @error set. */
static BlkNode *co_open_file(BlkJob *job, GError **error)
{
    CreateJob *s = job->opaque;
    BlkNode *node;

    if (JSON_NODE_HOLDS_OBJECT(s->file)) {
        return blk_co_open(job->ctx, json_node_get_object(s->file), error);
    }
    node = blk_node_find(job->ctx, json_node_get_string(s->file));
    if (!node) {
        blk_error(error, -ENOENT, "Cannot find device='' nor node-name='%s'", json_node_get_string(s->file));
        return NULL;
    }
    return blk_node_ref(node);
}

static int co_create_in_file(BlkJob *job, GError **error)
{
    CreateJob *s = job->opaque;
    BlkNode *file = co_open_file(job, error);
    int ret = file ? blk_co_create_in(file, s->driver->name, s->options, error) : -ENOENT;

    blk_co_unref(file);
    return ret;
}

static int create_co_run(BlkJob *job, GError **error)
{
    CreateJob *s = job->opaque;
    int ret = s->file ? co_create_in_file(job, error) : blk_co_create_file(job->ctx, s->driver, s->filename, s->options, error);

    blk_job_progress_add(job, 1);
    return ret;
}

static void create_co_clean(BlkJob *job)
{
    CreateJob *s = job->opaque;

    g_clear_pointer(&s->filename, g_free);
    g_clear_pointer(&s->file, json_node_unref);
    g_clear_pointer(&s->options, json_object_unref);
}

static const BlkJobType create_job_type = {
    .name = "create",
    .instance_size = sizeof(CreateJob),
    .co_run = create_co_run,
    .co_clean = create_co_clean,
};

bool blk_driver_creates(const BlkDriver *driver)
{
    return driver->create_options && (driver->kind == BLK_PROTOCOL ? driver->co_create_file != NULL : driver->co_create != NULL);
}

BlkJob *blk_create_job_new(BlkContext *ctx, const BlkJobOptions *options, const BlkCreateWork *work, GError **error)
{
    BlkJob *job = blk_job_new(ctx, &create_job_type, options, error);
    CreateJob *s;

    if (!job) {
        return NULL;
    }
    s = job->opaque;
    s->driver = work->driver;
    s->filename = g_strdup(work->filename);
    s->file = work->file ? json_node_copy(work->file) : NULL;
    s->options = blk_json_copy(work->options);
    blk_job_progress_set_total(job, 1);
    return job;
}
