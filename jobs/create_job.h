/* SPDX-License-Identifier: MIT */
/*
 * create_job.h - a job that makes a file by a protocol, or an image in an open node by a format.
 */
#ifndef BLKSTACK_JOBS_CREATE_JOB_H
#define BLKSTACK_JOBS_CREATE_JOB_H

#include <blkstack/driver.h>
#include <blkstack/job.h>

/* What is to be made. The job copies it. */
typedef struct BlkCreateWork {
    const BlkDriver *driver;        /* a protocol or a format with create_options */
    const char *filename;           /* of a protocol: as its co_create_file() takes it */
    JsonNode *file;                 /* of a format: the name of an open node, or options to open one for that time */
    JsonObject *options;            /* keys of the driver's create_options */
} BlkCreateWork;

/* Can anything be created by @driver? */
bool blk_driver_creates(const BlkDriver *driver);

/* Returns: (transfer none): the job, not started; NULL with @error set. What is wrong about the work is the job's error. */
BlkJob *blk_create_job_new(BlkContext *ctx, const BlkJobOptions *options, const BlkCreateWork *work, GError **error);

#endif
