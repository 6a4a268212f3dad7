/* SPDX-License-Identifier: MIT */
/*
 * job.c - the life of jobs: states, verbs, transactions, notices. See job.h and docs/jobs.md.
 *
 * A job has one coroutine, which does the work and then ends the transaction if it is the last one of it; a verb that ends
 * a job which does nothing (created, waiting, pending) does that in the caller's coroutine.
 */
#include "jobs/job.h"

#include "core/context.h"
#include "core/options.h"
#include "core/poll.h"

#include <inttypes.h>
#include <string.h>

const char *const blk_on_error_names[] = { "report", "ignore", "stop", "enospc", "auto", NULL };

static const char *const status_names[] = {
    "created", "running", "paused", "ready", "standby", "waiting", "pending", "aborting", "concluded", "null",
};

const char *blk_job_status_name(BlkJobStatus status)
{
    return status_names[status];
}

/* ---- states ---- */

#define TO(status) (1u << BLK_JOB_##status)

static const unsigned next_states[] = {
    [BLK_JOB_CREATED] = TO(RUNNING) | TO(ABORTING) | TO(NULL),
    [BLK_JOB_RUNNING] = TO(PAUSED) | TO(READY) | TO(WAITING) | TO(ABORTING),
    [BLK_JOB_PAUSED] = TO(RUNNING),
    [BLK_JOB_READY] = TO(STANDBY) | TO(WAITING) | TO(ABORTING),
    [BLK_JOB_STANDBY] = TO(READY),
    [BLK_JOB_WAITING] = TO(PENDING) | TO(ABORTING),
    [BLK_JOB_PENDING] = TO(CONCLUDED) | TO(ABORTING),
    [BLK_JOB_ABORTING] = TO(CONCLUDED),
    [BLK_JOB_CONCLUDED] = TO(NULL),
    [BLK_JOB_NULL] = 0,
};

static void notify_status(BlkJob *job)
{
    JsonObject *data = json_object_new();

    json_object_set_string_member(data, "id", job->id);
    json_object_set_string_member(data, "status", status_names[job->status]);
    blk_notify(job->ctx, "JOB_STATUS_CHANGE", data);
}

static void set_status(BlkJob *job, BlkJobStatus status)
{
    g_assert(next_states[job->status] & (1u << status));
    job->status = status;
    notify_status(job);
}

/* The notices about block jobs; those that are told of an end have an error, if there was one. */
static void notify_block_job(BlkJob *job, const char *name, bool with_error)
{
    JsonObject *data;

    if (!job->type->moves_data) {
        return;
    }
    data = json_object_new();
    json_object_set_string_member(data, "type", job->type->name);
    json_object_set_string_member(data, "device", job->id);
    json_object_set_int_member(data, "len", (gint64)job->total);
    json_object_set_int_member(data, "offset", (gint64)job->current);
    json_object_set_int_member(data, "speed", (gint64)job->rate.speed);
    if (with_error && job->ret < 0) {
        json_object_set_string_member(data, "error", job->error->message);
    }
    blk_notify(job->ctx, name, data);
}

/* ---- making and freeing ---- */

struct BlkJobTxn {
    unsigned refs;
    GPtrArray *jobs;            /* of BlkJob, in the order in which they were made */
    BlkCoQueue all_ended;
    bool ending;                /* takes effect, or is undone: nothing can be changed any more */
};

BlkJobTxn *blk_job_txn_new(void)
{
    BlkJobTxn *txn = g_new0(BlkJobTxn, 1);

    txn->refs = 1;
    txn->jobs = g_ptr_array_new();
    return txn;
}

void blk_job_txn_unref(BlkJobTxn *txn)
{
    if (txn && --txn->refs == 0) {
        g_ptr_array_unref(txn->jobs);
        g_free(txn);
    }
}

/* Those that were not forgotten yet; made with the first one. */
static GPtrArray *jobs_of(BlkContext *ctx)
{
    GPtrArray **jobs = blk_context_jobs(ctx);

    if (!*jobs) {
        *jobs = g_ptr_array_new_with_free_func((GDestroyNotify)blk_job_unref);
    }
    return *jobs;
}

BlkJob *blk_job_nth(BlkContext *ctx, unsigned index)
{
    GPtrArray *jobs = jobs_of(ctx);

    return index < jobs->len ? g_ptr_array_index(jobs, index) : NULL;
}

BlkJob *blk_job_find(BlkContext *ctx, const char *id)
{
    BlkJob *job;

    for (unsigned i = 0; (job = blk_job_nth(ctx, i)); i++) {
        if (strcmp(job->id, id) == 0) {
            return job;
        }
    }
    return NULL;
}

static bool uses(const BlkJob *job, const BlkNode *node)
{
    for (guint i = 0; i < job->users->len; i++) {
        if (blk_child_node(g_ptr_array_index(job->users, i)) == node) {
            return true;
        }
    }
    return false;
}

int blk_job_check_unused(BlkNode *node, GError **error)
{
    BlkJob *job;

    for (unsigned i = 0; (job = blk_job_nth(blk_node_context(node), i)); i++) {
        if (uses(job, node)) {
            return blk_error(error, -EBUSY, "Node '%s' is busy: block device is in use by block job: %s", blk_node_name(node),
                             job->type->name);
        }
    }
    return 0;
}

static int check_id(BlkContext *ctx, const char *id, GError **error)
{
    if (!id) {
        return blk_error(error, -EINVAL, "An explicit job ID is required");
    }
    if (!blk_id_is_valid(id)) {
        return blk_error(error, -EINVAL, "Invalid job ID '%s' (a letter, then letters, digits, '-', '.', '_')", id);
    }
    if (blk_job_find(ctx, id)) {
        return blk_error(error, -EEXIST, "Job ID '%s' already in use", id);
    }
    return 0;
}

static int check_txn(const BlkJobType *type, const BlkJobOptions *options, GError **error)
{
    return !options->txn || !type->alone ? 0
        : blk_error(error, -ENOTSUP, "A job of type '%s' cannot be grouped with others: what it changes in its last step cannot be undone "
                    "when one of those fails", type->name);
}

BlkJob *blk_job_new(BlkContext *ctx, const BlkJobType *type, const BlkJobOptions *options, GError **error)
{
    BlkJob *job;

    if (check_id(ctx, options->id, error) < 0 || check_txn(type, options, error) < 0) {
        return NULL;
    }
    job = g_new0(BlkJob, 1);
    job->type = type;
    job->ctx = ctx;
    job->opaque = g_malloc0(MAX(type->instance_size, 1));
    job->id = g_strdup(options->id);
    job->refs = 1;
    job->options = *options;
    job->options.id = job->id;
    job->txn = options->txn ? options->txn : blk_job_txn_new();
    job->txn->refs += options->txn != NULL;
    job->rate.speed = options->speed;
    job->users = g_ptr_array_new();
    g_queue_init(&job->sleepers);
    g_ptr_array_add(job->txn->jobs, job);
    g_ptr_array_add(jobs_of(ctx), job);
    notify_status(job);
    return job;
}

BlkJob *blk_co_job_make(BlkContext *ctx, const BlkJobMaker *maker, const void *args, const BlkJobOptions *options,
                        GError **error)
{
    g_autofree void *state = g_malloc0(maker->type->instance_size);
    int ret = maker->co_begin(state, args, error);
    BlkJob *job = ret == 0 ? blk_job_new(ctx, maker->type, options, error) : NULL;

    if (!job) {
        maker->co_undo(state);
        return NULL;
    }
    memcpy(job->opaque, state, maker->type->instance_size);
    if (maker->co_use(job, args, error) < 0) {
        blk_co_job_discard(job);
        return NULL;
    }
    return job;
}

BlkJob *blk_job_ref(BlkJob *job)
{
    job->refs++;
    return job;
}

void blk_job_unref(BlkJob *job)
{
    if (!job || --job->refs > 0) {
        return;
    }
    g_assert(job->users->len == 0);
    g_ptr_array_unref(job->users);
    g_clear_error(&job->error);
    g_free(job->opaque);
    g_free(job->id);
    g_free(job);
}

BlkChild *blk_co_job_use(BlkJob *job, BlkNode *node, const char *name, unsigned perm, unsigned shared, GError **error)
{
    BlkChild *user = blk_co_attach(node, name, perm, shared, error);

    if (user) {
        g_ptr_array_add(job->users, user);
    }
    return user;
}

BlkChild *blk_co_job_hold(BlkJob *job, BlkNode *node, const char *name, unsigned perm, unsigned shared, GError **error)
{
    BlkChild *user = blk_co_job_use(job, node, name, perm, shared, error);

    if (user) {
        blk_child_stay(user);
    }
    return user;
}

void blk_co_job_release(BlkJob *job, BlkChild *user)
{
    if (g_ptr_array_remove(job->users, user)) {
        blk_co_detach(user);
    }
}

/* ---- pausing, waking ---- */

bool blk_job_is_cancelled(const BlkJob *job)
{
    return job->cancelled;
}

void blk_job_wake(BlkJob *job)
{
    for (GList *l = job->sleepers.head; l; l = l->next) {
        blk_sleep_cancel(l->data);
    }
}

static bool is_paused(const BlkJob *job)
{
    return job->status == BLK_JOB_PAUSED || job->status == BLK_JOB_STANDBY;
}

static void go_on(BlkJob *job)
{
    job->pause_wanted = false;
    if (is_paused(job)) {
        set_status(job, job->status == BLK_JOB_PAUSED ? BLK_JOB_RUNNING : BLK_JOB_READY);
    }
    blk_co_queue_wake_all(&job->resumed);
    blk_job_wake(job);
}

void blk_job_leave(BlkJob *job)
{
    g_assert(job->working > 0);
    if (--job->working > 0 || !job->pause_wanted || job->ended) {
        return;
    }
    if (job->status == BLK_JOB_RUNNING || job->status == BLK_JOB_READY) {
        set_status(job, job->status == BLK_JOB_RUNNING ? BLK_JOB_PAUSED : BLK_JOB_STANDBY);
    }
}

void blk_co_job_enter(BlkJob *job)
{
    while (job->pause_wanted && !job->ended) {
        blk_co_queue_wait(&job->resumed);
    }
    job->working++;
}

int blk_co_job_pause_point(BlkJob *job)
{
    if (job->pause_wanted) {
        blk_job_leave(job);
        blk_co_job_enter(job);
    }
    return job->cancelled ? -ECANCELED : 0;
}

/* Sleeps until @deadline_ns of CLOCK_MONOTONIC, or until the job is woken. */
static void co_sleep_until(BlkJob *job, uint64_t deadline_ns)
{
    BlkSleep sleep = { .co = NULL };
    GList link = { .data = &sleep };

    g_queue_push_tail_link(&job->sleepers, &link);
    blk_co_sleep_cancellable(&sleep, deadline_ns);
    g_queue_unlink(&job->sleepers, &link);
}

int blk_co_job_sleep(BlkJob *job, uint64_t ns)
{
    uint64_t now = blk_clock_ns();

    /* Who was paused does not sleep afterwards: what he would be woken for may have come meanwhile. */
    if (!job->pause_wanted && !job->cancelled) {
        co_sleep_until(job, ns < UINT64_MAX - now ? now + ns : UINT64_MAX);
    }
    return blk_co_job_pause_point(job);
}

int blk_co_job_throttle(BlkJob *job, uint64_t bytes)
{
    for (;;) {
        int ret = blk_co_job_pause_point(job);
        uint64_t due_ns = ret == 0 ? blk_rate_take(&job->rate, bytes, blk_clock_ns()) : 0;

        if (ret < 0 || due_ns == 0) {
            return ret;
        }
        co_sleep_until(job, due_ns);
    }
}

/* ---- what the work tells ---- */

void blk_job_progress_set_total(BlkJob *job, uint64_t bytes)
{
    job->total = bytes;
}

void blk_job_progress_grow(BlkJob *job, uint64_t bytes)
{
    job->total += bytes;
}

void blk_job_progress_add(BlkJob *job, uint64_t bytes)
{
    job->current += bytes;
}

void blk_job_ready(BlkJob *job)
{
    set_status(job, BLK_JOB_READY);
    notify_block_job(job, "BLOCK_JOB_READY", false);
}

static BlkErrorAction action_of(BlkOnError on_error, int ret)
{
    switch (on_error) {
    case BLK_ON_ERROR_IGNORE:
        return BLK_ERROR_IGNORE;
    case BLK_ON_ERROR_STOP:
        return BLK_ERROR_STOP;
    case BLK_ON_ERROR_ENOSPC:
    case BLK_ON_ERROR_AUTO:
        return ret == -ENOSPC ? BLK_ERROR_STOP : BLK_ERROR_REPORT;
    default:
        return BLK_ERROR_REPORT;
    }
}

BlkErrorAction blk_job_error_action(BlkJob *job, bool is_read, int ret)
{
    static const char *const names[] = { "report", "ignore", "stop" };
    BlkErrorAction action = action_of(is_read ? job->options.on_source_error : job->options.on_target_error, ret);
    JsonObject *data;

    if (action == BLK_ERROR_STOP && job->pause_wanted) {
        return action;      /* another request has failed, and was told of */
    }
    data = json_object_new();
    json_object_set_string_member(data, "device", job->id);
    json_object_set_string_member(data, "operation", is_read ? "read" : "write");
    json_object_set_string_member(data, "action", names[action]);
    blk_notify(job->ctx, "BLOCK_JOB_ERROR", data);
    if (action == BLK_ERROR_STOP) {
        job->pause_wanted = true;
        job->io_status = ret == -ENOSPC ? BLK_IO_STATUS_NOSPACE : BLK_IO_STATUS_FAILED;
        blk_job_wake(job);
    }
    return action;
}

/* ---- the end ---- */

static void detach_users(BlkJob *job)
{
    while (job->users->len > 0) {
        blk_co_detach(g_ptr_array_steal_index(job->users, job->users->len - 1));
    }
}

static void forget(BlkJob *job)
{
    set_status(job, BLK_JOB_NULL);
    g_ptr_array_remove(jobs_of(job->ctx), job);
}

/* The last steps of a job that has taken effect, or was undone; *@job may be gone afterwards. */
static void co_conclude(BlkJob *job)
{
    const BlkJobType *type = job->type;

    if (type->co_clean) {
        type->co_clean(job);
    }
    detach_users(job);
    g_ptr_array_remove(job->txn->jobs, job);
    g_clear_pointer(&job->txn, blk_job_txn_unref);
    notify_block_job(job, job->cancelled ? "BLOCK_JOB_CANCELLED" : "BLOCK_JOB_COMPLETED", !job->cancelled);
    set_status(job, BLK_JOB_CONCLUDED);
    blk_co_queue_wake_all(&job->concluded);
    if (job->options.auto_dismiss) {
        forget(job);
    }
}

void blk_co_job_discard(BlkJob *job)
{
    g_assert(job->status == BLK_JOB_CREATED);
    if (job->type->co_abort) {
        job->type->co_abort(job);
    }
    if (job->type->co_clean) {
        job->type->co_clean(job);
    }
    detach_users(job);
    g_ptr_array_remove(job->txn->jobs, job);
    g_clear_pointer(&job->txn, blk_job_txn_unref);
    forget(job);
}

static void fail(BlkJob *job, int ret)
{
    job->ret = ret;
    if (!job->error) {
        blk_error(&job->error, ret, "%s", g_strerror(-ret));
    }
}

/* Ends the work of @job soon; that of one which was not started ends now. */
static void cancel_work(BlkJob *job)
{
    bool created = job->status == BLK_JOB_CREATED;

    if (!job->ended || created) {
        job->cancelled = true;
    }
    job->ended |= created;
    if (!job->ended) {
        if (job->type->cancel) {
            job->type->cancel(job, true);
        }
        go_on(job);
    }
}

static bool all_have_ended(const BlkJobTxn *txn)
{
    for (guint i = 0; i < txn->jobs->len; i++) {
        if (!((BlkJob *)g_ptr_array_index(txn->jobs, i))->ended) {
            return false;
        }
    }
    return true;
}

static void co_undo(BlkJob *job)
{
    if (job->ret == 0) {
        job->cancelled = true;
        fail(job, -ECANCELED);
    }
    set_status(job, BLK_JOB_ABORTING);
    if (job->type->co_abort) {
        job->type->co_abort(job);
    }
    co_conclude(job);
}

/* Ends all jobs of @txn without effect. Who comes while another one does it only says that its work has ended. */
static void co_abort_txn(BlkJobTxn *txn)
{
    if (txn->ending) {
        blk_co_queue_wake_all(&txn->all_ended);
        return;
    }
    txn->ending = true;
    txn->refs++;
    for (guint i = 0; i < txn->jobs->len; i++) {
        cancel_work(g_ptr_array_index(txn->jobs, i));
    }
    while (!all_have_ended(txn)) {
        blk_co_queue_wait(&txn->all_ended);
    }
    while (txn->jobs->len > 0) {
        co_undo(g_ptr_array_index(txn->jobs, 0));
    }
    blk_job_txn_unref(txn);
}

static int co_prepare_all(BlkJobTxn *txn)
{
    for (guint i = 0; i < txn->jobs->len; i++) {
        BlkJob *job = g_ptr_array_index(txn->jobs, i);
        int ret = job->type->co_prepare ? job->type->co_prepare(job, &job->error) : 0;

        if (ret < 0) {
            fail(job, ret);
            return ret;
        }
    }
    return 0;
}

static void co_finalize_txn(BlkJobTxn *txn)
{
    txn->ending = true;
    txn->refs++;
    if (co_prepare_all(txn) < 0) {
        txn->ending = false;
        co_abort_txn(txn);
    }
    while (txn->jobs->len > 0) {
        BlkJob *job = g_ptr_array_index(txn->jobs, 0);

        if (job->type->co_commit) {
            job->type->co_commit(job);
        }
        co_conclude(job);
    }
    blk_job_txn_unref(txn);
}

/* All jobs of @txn have done their work. */
static void co_txn_done(BlkJobTxn *txn)
{
    bool finalize = true;

    for (guint i = 0; i < txn->jobs->len; i++) {
        BlkJob *job = g_ptr_array_index(txn->jobs, i);

        set_status(job, BLK_JOB_PENDING);
        if (!job->options.auto_finalize) {
            finalize = false;
            if (job->type->moves_data) {
                JsonObject *data = json_object_new();

                json_object_set_string_member(data, "type", job->type->name);
                json_object_set_string_member(data, "id", job->id);
                blk_notify(job->ctx, "BLOCK_JOB_PENDING", data);
            }
        }
    }
    if (finalize) {
        co_finalize_txn(txn);
    }
}

static int co_job(void *opaque)
{
    BlkJob *job = opaque;
    int ret = blk_co_job_pause_point(job);

    if (ret == 0) {
        ret = job->type->co_run(job, &job->error);
    }
    if (ret == 0 && job->cancelled) {
        ret = -ECANCELED;
    }
    go_on(job);         /* it is too late for a pause */
    job->ended = true;
    if (job->cancelled) {
        g_clear_error(&job->error);
    }
    if (ret < 0) {
        fail(job, ret);
        co_abort_txn(job->txn);
    } else {
        set_status(job, BLK_JOB_WAITING);
        if (all_have_ended(job->txn)) {
            co_txn_done(job->txn);
        }
    }
    blk_job_unref(job);
    return 0;
}

void blk_job_start(BlkJob *job)
{
    set_status(job, BLK_JOB_RUNNING);
    job->working = 1;
    blk_co_spawn(job->ctx, co_job, blk_job_ref(job));
}

/* ---- verbs ---- */

enum {
    IN_WORK = TO(CREATED) | TO(RUNNING) | TO(PAUSED) | TO(READY) | TO(STANDBY),
};

static int check_verb(const BlkJob *job, const char *verb, unsigned states, GError **error)
{
    if (!(states & (1u << job->status)) || (job->txn && job->txn->ending)) {
        return blk_error(error, -EPERM, "Job '%s' in state '%s' cannot accept command verb '%s'", job->id,
                         status_names[job->status], verb);
    }
    return 0;
}

int blk_job_pause(BlkJob *job, GError **error)
{
    int ret = check_verb(job, "pause", IN_WORK, error);

    if (ret < 0) {
        return ret;
    }
    if (job->pause_wanted) {
        return blk_error(error, -EALREADY, "Job is already paused");
    }
    job->pause_wanted = true;
    blk_job_wake(job);
    return 0;
}

int blk_job_resume(BlkJob *job, GError **error)
{
    if (!job->pause_wanted) {
        return blk_error(error, -EALREADY, "Can't resume a job that was not paused");
    }
    int ret = check_verb(job, "resume", IN_WORK, error);
    if (ret < 0) {
        return ret;
    }
    job->io_status = BLK_IO_STATUS_OK;
    go_on(job);
    return 0;
}

int blk_job_set_speed(BlkJob *job, uint64_t speed, GError **error)
{
    int ret = check_verb(job, "set-speed", IN_WORK, error);

    if (ret < 0) {
        return ret;
    }
    blk_rate_set(&job->rate, speed);
    blk_job_wake(job);
    return 0;
}

int blk_co_job_cancel(BlkJob *job, bool force, GError **error)
{
    int ret = check_verb(job, "cancel", IN_WORK | TO(WAITING) | TO(PENDING), error);

    if (ret < 0) {
        return ret;
    }
    if (job->status == BLK_JOB_CREATED || job->ended) {
        job->cancelled = true;
        fail(job, -ECANCELED);
        co_abort_txn(job->txn);
        return 0;
    }
    if (!job->type->cancel || job->type->cancel(job, force)) {
        job->cancelled = true;
    }
    go_on(job);
    return 0;
}

int blk_job_complete(BlkJob *job, GError **error)
{
    int ret = check_verb(job, "complete", TO(READY) | TO(STANDBY), error);

    if (ret < 0) {
        return ret;
    }
    if (job->cancelled || !job->type->complete) {
        return blk_error(error, -EPERM, "The active block job '%s' cannot be completed", job->id);
    }
    ret = job->type->complete(job, error);
    if (ret == 0) {
        blk_job_wake(job);
    }
    return ret;
}

int blk_co_job_finalize(BlkJob *job, GError **error)
{
    int ret = check_verb(job, "finalize", TO(PENDING), error);

    if (ret == 0) {
        co_finalize_txn(job->txn);
    }
    return ret;
}

int blk_job_dismiss(BlkJob *job, GError **error)
{
    int ret = check_verb(job, "dismiss", TO(CONCLUDED), error);

    if (ret == 0) {
        forget(job);
    }
    return ret;
}

/* ---- looking at jobs ---- */

const char *blk_job_id(const BlkJob *job)
{
    return job->id;
}

void blk_job_info(const BlkJob *job, BlkJobInfo *info)
{
    *info = (BlkJobInfo) {
        .id = job->id,
        .type = job->type->name,
        .status = job->status,
        .current = job->current,
        .total = job->total,
        .error = job->error ? job->error->message : NULL,
        .moves_data = job->type->moves_data,
        .busy = job->working > 0 && !job->ended && g_queue_is_empty((GQueue *)&job->sleepers),
        .paused = job->pause_wanted,
        .ready = job->status == BLK_JOB_READY || job->status == BLK_JOB_STANDBY,
        .auto_finalize = job->options.auto_finalize,
        .auto_dismiss = job->options.auto_dismiss,
        .speed = job->rate.speed,
        .io_status = job->io_status,
    };
}

int blk_co_job_wait(BlkJob *job)
{
    while (job->status != BLK_JOB_CONCLUDED && job->status != BLK_JOB_NULL) {
        blk_co_queue_wait(&job->concluded);
    }
    return job->ret;
}

void blk_co_jobs_end(BlkContext *ctx)
{
    BlkJob *job;

    while ((job = blk_job_nth(ctx, 0))) {
        blk_job_ref(job);
        blk_co_job_cancel(job, true, NULL);     /* whoever ends already needs no cancelling */
        blk_co_job_wait(job);
        blk_job_dismiss(job, NULL);
        blk_job_unref(job);
    }
}
