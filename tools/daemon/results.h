/* SPDX-License-Identifier: MIT */
/*
 * results.h - what commands return, for the schema.
 */
#ifndef BLKSTACK_TOOLS_DAEMON_RESULTS_H
#define BLKSTACK_TOOLS_DAEMON_RESULTS_H

#include <blkstack/driver.h>

/* (nullable): NULL: an empty object. */
const BlkType *daemon_result_type(const char *command);

/* Of jobs; the peer knows "undefined", too, which no job is. */
extern const char *const daemon_job_statuses[], *const daemon_job_types[];

#endif
