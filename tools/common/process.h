/* SPDX-License-Identifier: MIT */
/*
 * process.h - the part of a serving process that others watch: a parent that waits, a pid file, signals that end it.
 */
#ifndef BLKSTACK_TOOLS_COMMON_PROCESS_H
#define BLKSTACK_TOOLS_COMMON_PROCESS_H

#include "common/tool.h"
#include "core/poll.h"

typedef struct ToolProcess {
    int ready_fd;                   /* of the child: to the parent that waits; -1: nobody waits */
    int pid_fd;                     /* the pid file, locked; -1: none */
    const char *pid_file;
    bool verbose;
} ToolProcess;

#define TOOL_PROCESS_INIT { .ready_fd = -1, .pid_fd = -1 }

/**
 * tool_process_fork:
 *
 * Goes on in a child, in a session of its own. The parent waits for tool_process_ready() and ends then with status 0, or
 * with the child. Context: no threads yet.
 * Returns: 0: in the child; a negative errno.
 */
int tool_process_fork(ToolProcess *process, GError **error);
/* Takes @path, which no other process that runs may have taken, as the pid file, and writes it. */
int tool_process_write_pid(ToolProcess *process, const char *path, GError **error);
/* It serves: lets the parent end. From now on a forked process prints nothing, unless it is verbose. */
void tool_process_ready(ToolProcess *process);
/* Removes the pid file. */
void tool_process_end(ToolProcess *process);

/* SIGINT, SIGTERM and SIGHUP are kept for tool_co_wait_for_signal(). Context: no threads yet. */
void tool_block_signals(void);

/* Waits until one of them comes, or *@over is true, whose setter calls blk_poll_cancel(@poll). Context: coroutine; yields. */
int tool_co_wait_for_signal(BlkPoll *poll, const bool *over, GError **error);

#endif
