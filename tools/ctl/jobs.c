/* SPDX-License-Identifier: MIT */
/*
 * jobs.c - what is known of jobs. See jobs.h.
 */
#include "ctl/jobs.h"

enum { SPEED_US = 200000 };         /* between two looks at how far a job is */

static void job_free(gpointer opaque)
{
    CtlJob *job = opaque;

    g_free(job->id);
    g_free(job->type);
    g_free(job->status);
    g_free(job->error);
    g_free(job->told);
    g_free(job);
}

void ctl_jobs_init(CtlJobs *jobs, CtlClient *client, char **ids)
{
    *jobs = (CtlJobs) { client, ids, g_ptr_array_new_with_free_func(job_free) };
}

void ctl_jobs_clear(CtlJobs *jobs)
{
    g_ptr_array_unref(jobs->list);
}

CtlJob *ctl_jobs_find(const CtlJobs *jobs, const char *id)
{
    for (guint i = 0; i < jobs->list->len; i++) {
        CtlJob *job = jobs->list->pdata[i];

        if (strcmp(job->id, id) == 0) {
            return job;
        }
    }
    return NULL;
}

/* The same; one that was not known is now. NULL: it is none of those that are to be watched. */
static CtlJob *find_or_add(CtlJobs *jobs, const char *id)
{
    CtlJob *job = ctl_jobs_find(jobs, id);

    if (!job && (!jobs->ids[0] || g_strv_contains((const char *const *)jobs->ids, id))) {
        job = g_new0(CtlJob, 1);
        job->id = g_strdup(id);
        job->type = g_strdup("");
        job->status = g_strdup("created");
        g_ptr_array_add(jobs->list, job);
    }
    return job;
}

static void replace(char **text, const char *new)
{
    if (new && g_strcmp0(*text, new) != 0) {
        g_free(*text);
        *text = g_strdup(new);
    }
}

static uint64_t number_of(JsonObject *object, const char *name)
{
    JsonNode *node = json_object_get_member(object, name);

    return node && json_node_get_value_type(node) == G_TYPE_INT64 ? (uint64_t)MAX(json_node_get_int(node), 0) : 0;
}

/* ---- events ---- */

/* "null" is the end of a job; what it was before says more. "created" begins a new one, whose name may be old. */
static void take_status(CtlJob *job, const char *status)
{
    if (strcmp(status, "null") == 0) {
        job->over = true;
        return;
    }
    if (strcmp(status, "created") == 0) {
        g_clear_pointer(&job->error, g_free);
        job->aborted = job->over = false;
    }
    job->aborted |= strcmp(status, "aborting") == 0;
    job->over |= strcmp(status, "concluded") == 0;
    replace(&job->status, status);
}

static void take_event(CtlJobs *jobs, JsonObject *event)
{
    JsonObject *data = ctl_object_of(event, "data");
    const char *name = ctl_text_of(event, "event");
    bool is_status = g_strcmp0(name, "JOB_STATUS_CHANGE") == 0;
    const char *id = ctl_text_of(data, is_status ? "id" : "device"), *status = ctl_text_of(data, "status");
    CtlJob *job = id && name && (is_status || g_str_has_prefix(name, "BLOCK_JOB_")) ? find_or_add(jobs, id) : NULL;

    if (job && is_status && status) {
        take_status(job, status);
    } else if (job && strcmp(name, "BLOCK_JOB_COMPLETED") == 0) {
        replace(&job->type, ctl_text_of(data, "type"));
        replace(&job->error, ctl_text_of(data, "error"));
        job->done = number_of(data, "offset");
        job->total = number_of(data, "len");
    }
}

/* ---- query-jobs ---- */

static void measure_speed(CtlJob *job)
{
    gint64 now = g_get_monotonic_time(), past = now - job->measured_at;
    double speed;

    if (job->measured_at == 0 || job->done < job->measured) {
        job->speed = 0;
    } else if (past >= SPEED_US) {
        speed = (double)(job->done - job->measured) * G_USEC_PER_SEC / (double)past;
        job->speed = job->speed > 0 ? 0.7 * job->speed + 0.3 * speed : speed;
    } else {
        return;
    }
    job->measured_at = now;
    job->measured = job->done;
}

static void take_job(CtlJobs *jobs, JsonObject *object)
{
    const char *id = ctl_text_of(object, "id"), *status = ctl_text_of(object, "status");
    CtlJob *job = id ? find_or_add(jobs, id) : NULL;

    if (!job || !status) {
        return;
    }
    take_status(job, status);
    replace(&job->type, ctl_text_of(object, "type"));
    replace(&job->error, ctl_text_of(object, "error"));
    job->done = number_of(object, "current-progress");
    job->total = number_of(object, "total-progress");
    job->absent = 0;
    measure_speed(job);
}

static int ask(CtlJobs *jobs, GError **error)
{
    g_autoptr(JsonNode) answer = ctl_call(jobs->client, "query-jobs", NULL, error);
    JsonArray *array = answer && JSON_NODE_HOLDS_ARRAY(answer) ? json_node_get_array(answer) : NULL;
    JsonObject *object;

    if (!answer) {
        return error && *error ? -(*error)->code : -EIO;
    }
    for (guint i = 0; i < jobs->list->len; i++) {
        ((CtlJob *)jobs->list->pdata[i])->absent++;
    }
    for (guint i = 0; (object = ctl_nth_object(array, i)); i++) {
        take_job(jobs, object);
    }
    return 0;
}

static int take_events(CtlJobs *jobs, int wait_ms, GError **error)
{
    GError *failure = NULL;
    JsonObject *event;

    while ((event = ctl_next_event(jobs->client, wait_ms, &failure))) {
        take_event(jobs, event);
        json_object_unref(event);
        wait_ms = 0;
    }
    if (failure) {
        int ret = -failure->code;

        g_propagate_error(error, failure);
        return ret;
    }
    return 0;
}

int ctl_jobs_update(CtlJobs *jobs, int wait_ms, GError **error)
{
    int ret = take_events(jobs, wait_ms, error);

    if (ret == 0) {
        ret = ask(jobs, error);
    }
    if (ret == 0) {
        ret = take_events(jobs, 0, error);
    }
    for (guint i = 0; ret == 0 && i < jobs->list->len; i++) {
        CtlJob *job = jobs->list->pdata[i];

        job->over |= job->absent > 1;       /* in one answer only: it may have begun after that */
    }
    return ret;
}

/* ---- what it means ---- */

bool ctl_job_failed(const CtlJob *job)
{
    return job->error || job->aborted;
}

bool ctl_job_moves_data(const CtlJob *job)
{
    static const char *const types[] = { "backup", "commit", "mirror", "stream", NULL };

    return g_strv_contains(types, job->type);
}

char *ctl_job_state(const CtlJob *job)
{
    const char *end = job->error ? job->error : job->aborted ? "cancelled" : "completed";

    return blk_printable_text(job->over ? end : job->status, 200);
}

JsonObject *ctl_job_to_json(const CtlJob *job)
{
    JsonObject *object = json_object_new();

    json_object_set_string_member(object, "id", job->id);
    json_object_set_string_member(object, "type", job->type);
    json_object_set_string_member(object, "status", job->over ? "concluded" : job->status);
    json_object_set_int_member(object, "current-progress", (gint64)job->done);
    json_object_set_int_member(object, "total-progress", (gint64)job->total);
    if (job->error) {
        json_object_set_string_member(object, "error", job->error);
    } else if (job->aborted) {
        json_object_set_boolean_member(object, "cancelled", true);
    }
    return object;
}
