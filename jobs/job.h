/* SPDX-License-Identifier: MIT */
/*
 * job.h - jobs as their authors see them: a type is a table of functions around one that does the work.
 *
 *     co_run --0--> waiting --all of the transaction--> pending --finalize--> co_prepare of all --0--> co_commit, co_clean
 *        `-error or cancelled---------------------------------------------------`-error--> co_abort, co_clean
 *
 * The work may be done by several coroutines: all of them but the first begin with blk_co_job_enter() and end with
 * blk_job_leave(), and each leaves the job while it waits for another one of them. So a job is paused when all that are
 * still in it stand at a pause point.
 */
#ifndef BLKSTACK_JOBS_JOB_H
#define BLKSTACK_JOBS_JOB_H

#include "core/rate.h"

#include <blkstack/job.h>

typedef struct BlkJobType {
    const char *name;                   /* as the control protocol calls it: "backup" */
    bool alone;                         /* nothing undoes what co_prepare does: no transaction with other jobs */
    bool moves_data;                    /* the protocol's commands and notices about block jobs know it */
    size_t instance_size;
    /* The work. Comes to a pause point at least between two requests. Returns: 0; -ECANCELED; others with @error. */
    int (*co_run)(BlkJob *job, GError **error);
    /* All of these may be NULL. What may still fail when all of the transaction have succeeded: changes of the graph. */
    int (*co_prepare)(BlkJob *job, GError **error);
    void (*co_commit)(BlkJob *job);
    void (*co_abort)(BlkJob *job);      /* also if it was never started */
    void (*co_clean)(BlkJob *job);      /* the last one: releases what the job holds; its users are detached afterwards */
    /* The job is ready and is to end: sets a flag that co_run sees when it is woken. NULL: cannot be completed. */
    int (*complete)(BlkJob *job, GError **error);
    /* Somebody wants it to end. Returns: false: it is ready and will end with success; NULL, true: it is cancelled. */
    bool (*cancel)(BlkJob *job, bool force);
} BlkJobType;

struct BlkJob {
    const BlkJobType *type;
    BlkContext *ctx;
    void *opaque;                       /* type->instance_size bytes, zeroed when it is made */

    /* What follows is job.c's own. */
    char *id;
    unsigned refs;
    BlkJobOptions options;              /* id and txn are below */
    BlkJobTxn *txn;
    BlkJobStatus status;
    uint64_t current, total;
    BlkRate rate;
    unsigned working;                   /* coroutines that stand at no pause point */
    bool pause_wanted, cancelled, ended;    /* ended: co_run has returned, or will never be called */
    BlkCoQueue resumed;                 /* stand at a pause point */
    BlkCoQueue concluded;
    GQueue sleepers;                    /* of BlkSleep */
    BlkIoStatus io_status;
    GPtrArray *users;                   /* of BlkChild */
    int ret;
    GError *error;                      /* (nullable) */
};

/**
 * blk_job_new:
 *
 * Makes a job, which does nothing until blk_job_start(). If it is not to be started: blk_co_job_cancel(@job, true, NULL).
 * Returns: (transfer none): owned by the context; NULL with @error set: -EINVAL, -EEXIST: the id;
 * -ENOTSUP: a transaction, and a type that is alone.
 */
BlkJob *blk_job_new(BlkContext *ctx, const BlkJobType *type, const BlkJobOptions *options, GError **error);

/* A job that could not be made whole, and was not started, is gone, whatever the others of its transaction do. May yield. */
void blk_co_job_discard(BlkJob *job);

/* How a job is made that changes the graph before it is there, so that what can be refused is refused without a notice. */
typedef struct BlkJobMaker {
    const BlkJobType *type;
    /* Fills @state, type->instance_size zeroed bytes, and does what may be refused. After an error co_undo is called, too. */
    int (*co_begin)(void *state, const void *args, GError **error);
    void (*co_undo)(void *state);       /* there will be no job: releases what is in @state */
    int (*co_use)(BlkJob *job, const void *args, GError **error);       /* attaches its users; @state is its opaque now */
} BlkJobMaker;

/* Returns: (transfer none): the job, to be started; NULL with @error set, and nothing is left of it. May yield. */
BlkJob *blk_co_job_make(BlkContext *ctx, const BlkJobMaker *maker, const void *args, const BlkJobOptions *options,
                        GError **error);

/* Attaches a user to @node as blk_co_attach(), until the job ends. Returns: (transfer none): NULL with @error set. */
BlkChild *blk_co_job_use(BlkJob *job, BlkNode *node, const char *name, unsigned perm, unsigned shared, GError **error);
/* The same, for a job that works on the node itself: the user stays when another node takes its place (blk_child_stay()). */
BlkChild *blk_co_job_hold(BlkJob *job, BlkNode *node, const char *name, unsigned perm, unsigned shared, GError **error);
/* Before the job ends: for what is to be changed in the graph. */
void blk_co_job_release(BlkJob *job, BlkChild *user);

/* ---- for the coroutines that do the work ---- */

bool blk_job_is_cancelled(const BlkJob *job);
/* Waits while the job is paused. Returns: 0 or -ECANCELED. */
int blk_co_job_pause_point(BlkJob *job);
/* A coroutine begins to work for the job (waits while it is paused), and ends to. */
void blk_co_job_enter(BlkJob *job);
void blk_job_leave(BlkJob *job);
/* A pause point that waits until @bytes may be sent. Returns: 0 or -ECANCELED. */
int blk_co_job_throttle(BlkJob *job, uint64_t bytes);
/* Sleeps for that time (UINT64_MAX: without limit), or until somebody pauses, resumes, cancels, completes or wakes the job:
 * a pause point. Returns: 0 or -ECANCELED. */
int blk_co_job_sleep(BlkJob *job, uint64_t ns);
void blk_job_wake(BlkJob *job);

/* ---- what they tell ---- */

void blk_job_progress_set_total(BlkJob *job, uint64_t bytes);
void blk_job_progress_grow(BlkJob *job, uint64_t bytes);        /* there is so much more to do */
void blk_job_progress_add(BlkJob *job, uint64_t bytes);         /* so much was done */
/* The job is ready: from now on it can be completed. */
void blk_job_ready(BlkJob *job);

typedef enum BlkErrorAction { BLK_ERROR_REPORT, BLK_ERROR_IGNORE, BLK_ERROR_STOP } BlkErrorAction;
/* What to do about a request that failed with the negative errno @ret. With BLK_ERROR_STOP the job is paused: the caller
 * comes to a pause point, and tries again. */
BlkErrorAction blk_job_error_action(BlkJob *job, bool is_read, int ret);

#endif
