/* SPDX-License-Identifier: MIT */
/*
 * cmd_job.c - looking at jobs and telling them what to do: query-jobs, job-*; and the older commands that know only
 * jobs which move data: query-block-jobs, block-job-*.
 *
 * The job core decides what a state allows, and says why not.
 */
#include "daemon/cmd_job.h"

/* ---- arguments of commands that start jobs ---- */

void daemon_get_job_options(const BlkOptions *args, BlkJobOptions *options)
{
    const char *id = blk_options_string(args, "job-id");

    *options = (BlkJobOptions) {
        .id = id ? id : "",
        .speed = blk_options_uint(args, "speed"),
        .auto_finalize = blk_options_bool(args, "auto-finalize"),
        .auto_dismiss = blk_options_bool(args, "auto-dismiss"),
    };
}

void daemon_get_data_job_options(const BlkOptions *args, BlkJobOptions *options)
{
    daemon_get_job_options(args, options);
    options->on_source_error = (BlkOnError)blk_options_enum(args, "on-source-error");
    options->on_target_error = (BlkOnError)blk_options_enum(args, "on-target-error");
}

/* ---- looking ---- */

static JsonObject *describe_job(const BlkJobInfo *info)
{
    JsonObject *object = json_object_new();

    json_object_set_string_member(object, "id", info->id);
    json_object_set_string_member(object, "type", info->type);
    json_object_set_string_member(object, "status", blk_job_status_name(info->status));
    json_object_set_int_member(object, "current-progress", (gint64)info->current);
    json_object_set_int_member(object, "total-progress", (gint64)info->total);
    if (info->error) {
        json_object_set_string_member(object, "error", info->error);
    }
    return object;
}

static JsonObject *describe_block_job(const BlkJobInfo *info)
{
    static const char *const io_status[] = {
        [BLK_IO_STATUS_OK] = "ok", [BLK_IO_STATUS_FAILED] = "failed", [BLK_IO_STATUS_NOSPACE] = "nospace",
    };
    JsonObject *object;

    if (!info->moves_data) {
        return NULL;
    }
    object = json_object_new();
    json_object_set_string_member(object, "device", info->id);
    json_object_set_string_member(object, "type", info->type);
    json_object_set_string_member(object, "status", blk_job_status_name(info->status));
    json_object_set_int_member(object, "len", (gint64)info->total);
    json_object_set_int_member(object, "offset", (gint64)info->current);
    json_object_set_int_member(object, "speed", (gint64)info->speed);
    json_object_set_string_member(object, "io-status", io_status[info->io_status]);
    json_object_set_boolean_member(object, "busy", info->busy);
    json_object_set_boolean_member(object, "paused", info->paused);
    json_object_set_boolean_member(object, "ready", info->ready);
    json_object_set_boolean_member(object, "auto-finalize", info->auto_finalize);
    json_object_set_boolean_member(object, "auto-dismiss", info->auto_dismiss);
    if (info->error) {
        json_object_set_string_member(object, "error", info->error);
    }
    return object;
}

/* @describe: NULL for a job that does not belong in the list. */
static JsonNode *list_jobs(Daemon *d, JsonObject *(*describe)(const BlkJobInfo *info))
{
    JsonArray *list = json_array_new();
    BlkJob *job;

    for (unsigned i = 0; (job = blk_job_nth(d->ctx, i)); i++) {
        BlkJobInfo info;
        JsonObject *object;

        blk_job_info(job, &info);
        object = describe(&info);
        if (object) {
            json_array_add_object_element(list, object);
        }
    }
    return daemon_result_array(list);
}

static int co_query_jobs(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    *result = list_jobs(d, describe_job);
    return 0;
}

static int co_query_block_jobs(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    *result = list_jobs(d, describe_block_job);
    return 0;
}

/* ---- verbs: of all jobs by "id"; of those that move data mostly by "device" ---- */

static const BlkOption id_options[] = {
    { "id", BLK_OPTION_STRING, "the job", .required = true },
    { NULL },
};

static const BlkOption device_options[] = {
    { "device", BLK_OPTION_STRING, "the job", .required = true },
    { NULL },
};

/* (transfer none): NULL with @error set. */
static BlkJob *find_job(Daemon *d, const BlkOptions *args, GError **error)
{
    BlkJob *job = blk_job_find(d->ctx, blk_options_string(args, "id"));

    if (!job) {
        blk_error(error, -ENOENT, "Job not found");
    }
    return job;
}

static BlkJob *find_block_job(Daemon *d, const BlkOptions *args, const char *key, GError **error)
{
    const char *id = blk_options_string(args, key);
    BlkJob *job = blk_job_find(d->ctx, id);
    BlkJobInfo info = { 0 };

    if (job) {
        blk_job_info(job, &info);
    }
    if (!info.moves_data) {
        daemon_error(error, -ENOENT, "DeviceNotActive", "Block job '%.*s' not found", 64, id);
        return NULL;
    }
    return job;
}

static int co_force_cancel(BlkJob *job, GError **error)
{
    return blk_co_job_cancel(job, true, error);
}

#define JOB_COMMAND(name, verb)                                                                                 \
    static int co_job_##name(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)              \
    {                                                                                                           \
        BlkJob *job = find_job(d, args, error);                                                                 \
                                                                                                                \
        return job ? verb(job, error) : -ENOENT;                                                                \
    }
JOB_COMMAND(pause, blk_job_pause)
JOB_COMMAND(resume, blk_job_resume)
JOB_COMMAND(cancel, co_force_cancel)
JOB_COMMAND(complete, blk_job_complete)
JOB_COMMAND(finalize, blk_co_job_finalize)
JOB_COMMAND(dismiss, blk_job_dismiss)

#define BLOCK_JOB_COMMAND(name, key, verb)                                                                      \
    static int co_block_job_##name(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)        \
    {                                                                                                           \
        BlkJob *job = find_block_job(d, args, key, error);                                                      \
                                                                                                                \
        return job ? verb(job, error) : -ENOENT;                                                                \
    }
BLOCK_JOB_COMMAND(pause, "device", blk_job_pause)
BLOCK_JOB_COMMAND(resume, "device", blk_job_resume)
BLOCK_JOB_COMMAND(complete, "device", blk_job_complete)
BLOCK_JOB_COMMAND(finalize, "id", blk_co_job_finalize)
BLOCK_JOB_COMMAND(dismiss, "id", blk_job_dismiss)

static const BlkOption cancel_options[] = {
    { "device", BLK_OPTION_STRING, "the job", .required = true },
    { "force", BLK_OPTION_BOOL, "also if it is paused, and without an end of what is ready", "false" },
    { NULL },
};

static int co_block_job_cancel(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    BlkJob *job = find_block_job(d, args, "device", error);
    bool force = blk_options_bool(args, "force");
    BlkJobInfo info;

    if (!job) {
        return -ENOENT;
    }
    blk_job_info(job, &info);
    if (info.paused && !force) {
        return blk_error(error, -EBUSY, "The block job for device '%s' is currently paused", info.id);
    }
    return blk_co_job_cancel(job, force, error);
}

static const BlkOption set_speed_options[] = {
    { "device", BLK_OPTION_STRING, "the job", .required = true },
    { "speed", BLK_OPTION_UINT, "bytes a second; 0: no limit", .required = true },
    { NULL },
};

static int co_block_job_set_speed(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    BlkJob *job = find_block_job(d, args, "device", error);

    return job ? blk_job_set_speed(job, blk_options_uint(args, "speed"), error) : -ENOENT;
}

const DaemonCommand daemon_job_commands[] = {
    { "query-jobs", "all jobs: states, progress, errors", NULL, co_query_jobs, .any_time = true },
    { "job-pause", "pauses a job", id_options, co_job_pause },
    { "job-resume", "lets a paused job go on", id_options, co_job_resume },
    { "job-cancel", "ends a job without effect", id_options, co_job_cancel },
    { "job-complete", "lets a ready job do what remains, and end", id_options, co_job_complete },
    { "job-finalize", "lets what a pending job has done take effect", id_options, co_job_finalize },
    { "job-dismiss", "forgets a job that is over", id_options, co_job_dismiss },
    { "query-block-jobs", "jobs that move data: states, progress, errors", NULL, co_query_block_jobs, .any_time = true },
    { "block-job-set-speed", "limits the speed of a job that moves data", set_speed_options, co_block_job_set_speed },
    { "block-job-pause", "as job-pause, of a job that moves data", device_options, co_block_job_pause },
    { "block-job-resume", "as job-resume, of a job that moves data", device_options, co_block_job_resume },
    { "block-job-cancel", "ends a job that moves data: a ready one whole, others without effect", cancel_options,
      co_block_job_cancel },
    { "block-job-complete", "as job-complete, of a job that moves data", device_options, co_block_job_complete },
    { "block-job-finalize", "as job-finalize, of a job that moves data", id_options, co_block_job_finalize },
    { "block-job-dismiss", "as job-dismiss, of a job that moves data", id_options, co_block_job_dismiss },
    { NULL },
};
