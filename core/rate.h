/* SPDX-License-Identifier: MIT */
/*
 * rate.h - a limit of units (bytes, requests) a second, which can be changed at any time.
 *
 * Who wants to send waits until all that was sent before has had its time, so what is sent may be of any size. Time in which
 * nothing was sent counts for what follows, up to the credit. In other words, a leaky bucket whose size is the credit:
 *
 *      now - credit                     due              now
 *      |  bucket empty                  |                |        due in the future: full, wait
 */
#ifndef BLKSTACK_CORE_RATE_H
#define BLKSTACK_CORE_RATE_H

#include <stdbool.h>
#include <stdint.h>

/* Zero-initialised has no limit. */
typedef struct BlkRate {
    uint64_t speed;             /* units a second; 0: no limit */
    int64_t credit_ns;          /* >= 0 */
    int64_t due_ns;             /* CLOCK_MONOTONIC: when what was sent has had its time; may be before its beginning */
    bool begun;                 /* false: nothing was sent, and there is no credit either */
} BlkRate;

/* For what goes on evenly: the credit is a second, and has to be earned. Forgets what was sent. */
void blk_rate_set(BlkRate *rate, uint64_t speed);
/* For what comes in bursts: all the credit is there from the beginning. Forgets what was sent. @credit_ns: seconds as
 * nanoseconds, of any size. */
void blk_rate_set_burst(BlkRate *rate, uint64_t speed, double credit_ns);

/* May something be sent now (0)? If not, when to ask again. */
uint64_t blk_rate_when(const BlkRate *rate, uint64_t now_ns);
/* Sends it, whether that may be or not. */
void blk_rate_spend(BlkRate *rate, double units, uint64_t now_ns);
/* Sends @units now (0), or says when to ask again. */
uint64_t blk_rate_take(BlkRate *rate, uint64_t units, uint64_t now_ns);

#endif
