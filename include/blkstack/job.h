/* SPDX-License-Identifier: MIT */
/*
 * job.h - jobs as a program sees them: long work on nodes, which can be watched, paused, limited and cancelled.
 *
 * States, verbs and notices have the names, the order and the meaning that users of the control protocol know; docs/jobs.md
 * has the picture. All functions belong to the context's thread.
 */
#ifndef BLKSTACK_JOB_H
#define BLKSTACK_JOB_H

#include <blkstack/blkstack.h>

G_BEGIN_DECLS

typedef struct BlkJob BlkJob;
typedef struct BlkJobTxn BlkJobTxn;

typedef enum BlkJobStatus {
    BLK_JOB_CREATED,        /* exists, does nothing yet */
    BLK_JOB_RUNNING,
    BLK_JOB_PAUSED,         /* nothing is in flight */
    BLK_JOB_READY,          /* runs on, and can be completed */
    BLK_JOB_STANDBY,        /* ready, and paused */
    BLK_JOB_WAITING,        /* has done its work; other jobs of its transaction have not */
    BLK_JOB_PENDING,        /* its transaction is done, and is to be finalized */
    BLK_JOB_ABORTING,
    BLK_JOB_CONCLUDED,      /* is over, and can be looked at */
    BLK_JOB_NULL,           /* forgotten */
} BlkJobStatus;
const char *blk_job_status_name(BlkJobStatus status);      /* "created", ... */

/* What happens when a request of the job fails. */
typedef enum BlkOnError {
    BLK_ON_ERROR_REPORT,    /* the job fails */
    BLK_ON_ERROR_IGNORE,    /* what failed is tried again later */
    BLK_ON_ERROR_STOP,      /* the job is paused, and tries again when it is resumed */
    BLK_ON_ERROR_ENOSPC,    /* stop if there is no space, else report */
    BLK_ON_ERROR_AUTO,      /* the same */
} BlkOnError;
extern const char *const blk_on_error_names[];      /* "report", ..., NULL: in the order of the values */

typedef struct BlkJobOptions {
    const char *id;                 /* a letter, then letters, digits, '-', '.', '_'; unlike those of all other jobs */
    uint64_t speed;                 /* bytes a second; 0: no limit */
    bool auto_finalize;             /* false: waits, pending, for blk_co_job_finalize() */
    bool auto_dismiss;              /* false: stays, concluded, until blk_job_dismiss() */
    BlkOnError on_source_error, on_target_error;
    BlkJobTxn *txn;                 /* (nullable): jobs that all succeed, or all fail; not for stream, commit, mirror */
} BlkJobOptions;

/* A transaction of jobs: each job holds a reference. */
BlkJobTxn *blk_job_txn_new(void);
void blk_job_txn_unref(BlkJobTxn *txn);         /* NULL is ignored */

/* ---- verbs: what is not allowed in the job's state is an error, and changes nothing ---- */

/* The work of a job that was created starts. Does not yield. */
void blk_job_start(BlkJob *job);
int blk_job_pause(BlkJob *job, GError **error);         /* it is paused when all that is in flight has ended */
int blk_job_resume(BlkJob *job, GError **error);
int blk_job_set_speed(BlkJob *job, uint64_t speed, GError **error);
/* @force: false: a job that is ready ends whole, without doing what it would do when completed. The whole transaction is
 * cancelled, too. A job whose work was under way ends later; others have ended on return. May yield. */
int blk_co_job_cancel(BlkJob *job, bool force, GError **error);
int blk_job_complete(BlkJob *job, GError **error);      /* a ready job does what remains, and ends */
/* Makes all jobs of the transaction of a pending job take effect, or fail; they have ended on return. May yield. */
int blk_co_job_finalize(BlkJob *job, GError **error);
int blk_job_dismiss(BlkJob *job, GError **error);       /* @job is gone, unless somebody has a reference */

/* ---- looking at jobs ---- */

typedef enum BlkIoStatus { BLK_IO_STATUS_OK, BLK_IO_STATUS_FAILED, BLK_IO_STATUS_NOSPACE } BlkIoStatus;

typedef struct BlkJobInfo {
    const char *id, *type;          /* (transfer none), as @error */
    BlkJobStatus status;
    uint64_t current, total;        /* bytes; the total may grow */
    const char *error;              /* (nullable): why it failed */
    bool moves_data;                /* has a speed and an I/O status */
    bool busy, paused, ready;       /* @paused: is, or will be soon */
    bool auto_finalize, auto_dismiss;
    uint64_t speed;                 /* bytes a second; 0: no limit */
    BlkIoStatus io_status;          /* of the error for which it was paused */
} BlkJobInfo;
void blk_job_info(const BlkJob *job, BlkJobInfo *info);

const char *blk_job_id(const BlkJob *job);
BlkJob *blk_job_find(BlkContext *ctx, const char *id);          /* (transfer none) (nullable) */
BlkJob *blk_job_nth(BlkContext *ctx, unsigned index);           /* (transfer none): NULL ends the list */
/* Does no job work with @node? 0, or -EBUSY with the job's type in @error: for what it would not bear. */
int blk_job_check_unused(BlkNode *node, GError **error);
BlkJob *blk_job_ref(BlkJob *job);
void blk_job_unref(BlkJob *job);                                /* NULL is ignored */
/* Waits until the job is concluded; the caller holds a reference. Returns: 0, or the job's error. May yield. */
int blk_co_job_wait(BlkJob *job);
/* Cancels all jobs, waits for their end and forgets them. May yield. */
void blk_co_jobs_end(BlkContext *ctx);

G_END_DECLS

#endif
