/* SPDX-License-Identifier: MIT */
/*
 * transaction.h - actions that happen together: all of them, at one moment, or none. See docs/transactions.md.
 *
 *     co_begin of all -> drained: co_prepare, one after the other, -> all good: commit of all          -> co_clean of all
 *                                                                 `-> one fails: co_abort, backwards -'
 *
 * A command that an action is, too, is a transaction of that action alone: daemon_co_run_action().
 */
#ifndef BLKSTACK_TOOLS_DAEMON_TRANSACTION_H
#define BLKSTACK_TOOLS_DAEMON_TRANSACTION_H

#include "daemon/daemon.h"

#include <blkstack/job.h>

typedef struct DaemonAction DaemonAction;

/* One action of one transaction. */
typedef struct DaemonStep {
    const DaemonAction *action;
    Daemon *daemon;
    const BlkOptions *args;
    void *state;                    /* action->state_size bytes, zeroed at first */
    BlkJobTxn *txn;                 /* (nullable): of the jobs that are to complete together */
} DaemonStep;

struct DaemonAction {
    const char *name;               /* NULL ends a table */
    const BlkOption *args;
    const char *const *nodes;       /* keys of @args that name nodes which are drained meanwhile; NULL ends the list */
    size_t state_size;
    bool has_job;                   /* which can complete together with others */
    /*
     * (nullable) What needs to read or write: it may not wait for drained nodes. Changes nothing that a user sees; what it
     * cannot find may be made by an action before it. May yield.
     */
    int (*co_begin)(DaemonStep *step, GError **error);
    /* Does it, so that the actions behind it find it done. After an error it has done nothing. May yield. */
    int (*co_prepare)(DaemonStep *step, GError **error);
    /* (nullable) What was prepared stays; cannot fail. */
    void (*commit)(DaemonStep *step);
    /* (nullable) Undoes what was prepared: all that was done after it is undone already. May yield. */
    void (*co_abort)(DaemonStep *step);
    /* (nullable) The last one, of each action whose co_begin was called: the nodes are not drained any more. May yield. */
    void (*co_clean)(DaemonStep *step);
};

/* A transaction of one action. */
int daemon_co_run_action(Daemon *daemon, const DaemonAction *action, const BlkOptions *args, GError **error);

extern const DaemonAction daemon_backup_actions[];
extern const DaemonAction daemon_bitmap_actions[];
extern const DaemonAction daemon_internal_snapshot_actions[];
extern const DaemonAction daemon_snapshot_actions[];

#endif
