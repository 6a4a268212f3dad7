/* SPDX-License-Identifier: MIT */
/*
 * poll.h - coroutines that wait for file descriptors and for a time, and can be called back.
 *
 * What waits for a client that may never come holds up nobody: it does not count as an operation that is outstanding.
 */
#ifndef BLKSTACK_CORE_POLL_H
#define BLKSTACK_CORE_POLL_H

#include "core/timer.h"

#include <blkstack/blkstack.h>
#include <poll.h>

/* Both live in a structure or on the stack of who waits; zero-initialised; for one waiter at a time. */
typedef struct BlkPoll {
    BlkCo *co;                  /* who waits; NULL: nobody */
    BlkContext *ctx;
    int fd;
    short events;
    bool watched;               /* the engine has it */
    int result;                 /* 0: not known yet */
    BlkTimer timer;
    unsigned place;             /* the engine's own, as what follows */
    GList link;
    bool queued, sent;
} BlkPoll;

typedef struct BlkSleep {
    BlkCo *co;                  /* who sleeps; NULL: nobody */
    BlkContext *ctx;
    int result;
    BlkTimer timer;
} BlkSleep;

/**
 * blk_co_poll:
 * @fd: stays open until the call returns; sockets should be non-blocking: readiness is a hint
 * @events: POLLIN, POLLOUT, ... as in poll(2)
 * @deadline_ns: of CLOCK_MONOTONIC (blk_clock_ns()); UINT64_MAX: none
 *
 * Allocates nothing. Context: coroutine; yields.
 * Returns: what of @events, POLLERR and POLLHUP is true, more than 0; -ETIMEDOUT; -ECANCELED; -EBADF and others.
 */
int blk_co_poll(BlkPoll *poll, int fd, short events, uint64_t deadline_ns);

/* A call of blk_co_poll() that has not returned yet returns -ECANCELED, soon but not before this returns; nothing if
 * there is none. Context: the context's thread; does not yield. */
void blk_poll_cancel(BlkPoll *poll);

/* Sleeps until that time of CLOCK_MONOTONIC, which may have passed. Context: coroutine; yields. Returns: 0 or
 * -ECANCELED. */
int blk_co_sleep_cancellable(BlkSleep *sleep, uint64_t deadline_ns);

/* As blk_poll_cancel(). */
void blk_sleep_cancel(BlkSleep *sleep);

#endif
