/* SPDX-License-Identifier: MIT */
/*
 * jobs.h - what is known of jobs: query-jobs says how far they are; events say that one has changed, so that they are
 * asked for again at once, and how a job has ended that is gone when they are.
 *
 * A job has failed if it ended with an error, or was cancelled ("aborting").
 */
#ifndef BLKSTACK_TOOLS_CTL_JOBS_H
#define BLKSTACK_TOOLS_CTL_JOBS_H

#include "ctl/client.h"

typedef struct CtlJob {
    char *id, *type, *status;
    char *error;                    /* (nullable) */
    bool aborted;
    unsigned absent;                /* answers in which it was not, since the last in which it was */
    bool over;                      /* concluded, or gone */
    uint64_t done, total;           /* bytes, of jobs that move data */
    double speed;                   /* bytes a second; 0: not known yet */
    gint64 measured_at;             /* microseconds: when the speed was looked at; 0: never */
    uint64_t measured;              /* @done then */
    char *told;                     /* (nullable): what was printed of it last */
} CtlJob;

typedef struct CtlJobs {
    CtlClient *client;
    char **ids;                     /* those to be watched; empty: all */
    GPtrArray *list;                /* CtlJob *, in the order in which they came */
} CtlJobs;

void ctl_jobs_init(CtlJobs *jobs, CtlClient *client, char **ids);
void ctl_jobs_clear(CtlJobs *jobs);

/* (transfer none) (nullable) */
CtlJob *ctl_jobs_find(const CtlJobs *jobs, const char *id);

/* Waits for an event for @wait_ms, and asks. 0; a negative errno with @error set, as of ctl_ask(). */
int ctl_jobs_update(CtlJobs *jobs, int wait_ms, GError **error);

bool ctl_job_failed(const CtlJob *job);
/* Are its done and total bytes? */
bool ctl_job_moves_data(const CtlJob *job);
/* "running", or how it ended. (transfer full): printable */
char *ctl_job_state(const CtlJob *job);
/* (transfer full) */
JsonObject *ctl_job_to_json(const CtlJob *job);

#endif
