/* SPDX-License-Identifier: MIT */
/*
 * cmd_job.h - what the commands that start jobs have in common: arguments about the job itself.
 */
#ifndef BLKSTACK_DAEMON_CMD_JOB_H
#define BLKSTACK_DAEMON_CMD_JOB_H

#include "daemon/daemon.h"

#include <blkstack/job.h>

/* Lines of the command's table of arguments; the last two are of commands that move data from one place to another. */
#define DAEMON_JOB_OPTIONS                                                                                      \
    { "job-id", BLK_OPTION_STRING, "what the job is to be called" },                                            \
    { "speed", BLK_OPTION_UINT, "bytes a second; 0: no limit", "0", .max = INT64_MAX },                         \
    { "auto-finalize", BLK_OPTION_BOOL, "false: when all is done, wait for job-finalize", "true" },             \
    { "auto-dismiss", BLK_OPTION_BOOL, "false: when it is over, stay until job-dismiss", "true" }
#define DAEMON_JOB_ON_ERROR_OPTIONS                                                                             \
    { "on-source-error", BLK_OPTION_ENUM, "what a read that fails does to the job", "report", blk_on_error_names }, \
    { "on-target-error", BLK_OPTION_ENUM, "what a write that fails does to the job", "report", blk_on_error_names }

/* What @args, of a table with these lines, say. The strings are those of @args. */
void daemon_get_job_options(const BlkOptions *args, BlkJobOptions *options);
/* The same, with the lines about errors. */
void daemon_get_data_job_options(const BlkOptions *args, BlkJobOptions *options);

#endif
