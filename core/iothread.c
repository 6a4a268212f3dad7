/* SPDX-License-Identifier: MIT */
/*
 * iothread.c - the object iothread, so that command lines which make one keep working.
 *
 * Limitation: it is a name and nothing more. A graph lives in the one thread of its context; CPU work goes to the workers.
 */
#include "core/iothread.h"

static const BlkOption iothread_options[] = {
    { "poll-max-ns", BLK_OPTION_UINT, "taken, and means nothing here" },
    { "poll-grow", BLK_OPTION_UINT, "taken, and means nothing here" },
    { "poll-shrink", BLK_OPTION_UINT, "taken, and means nothing here" },
    { "aio-max-batch", BLK_OPTION_UINT, "taken, and means nothing here" },
    { "thread-pool-min", BLK_OPTION_UINT, "taken, and means nothing here" },
    { "thread-pool-max", BLK_OPTION_UINT, "taken, and means nothing here" },
    { NULL },
};

static int iothread_init(BlkObject *object, const BlkOptions *options, GError **error)
{
    return 0;
}

const BlkObjectType blk_object_iothread = {
    .name    = "iothread",
    .help    = "a name for command lines that have one: all runs in one thread",
    .options = iothread_options,
    .init    = iothread_init,
};
