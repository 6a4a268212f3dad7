/* SPDX-License-Identifier: MIT */
/*
 * rate.c - a limit of units a second. See rate.h.
 */
#include "core/rate.h"

#include <glib.h>

#define SECOND_NS 1000000000
#define FAR_NS    (INT64_MAX / 4)       /* a time, or a span, beyond which nobody waits: sums of some stay in range */

void blk_rate_set(BlkRate *rate, uint64_t speed)
{
    *rate = (BlkRate) { .speed = speed, .credit_ns = SECOND_NS };
}

void blk_rate_set_burst(BlkRate *rate, uint64_t speed, double credit_ns)
{
    *rate = (BlkRate) {
        .speed = speed, .credit_ns = (int64_t)MIN(credit_ns, (double)FAR_NS), .due_ns = -FAR_NS, .begun = true,
    };
}

uint64_t blk_rate_when(const BlkRate *rate, uint64_t now_ns)
{
    return rate->speed > 0 && rate->begun && rate->due_ns > (int64_t)now_ns ? (uint64_t)rate->due_ns : 0;
}

void blk_rate_spend(BlkRate *rate, double units, uint64_t now_ns)
{
    int64_t now = (int64_t)now_ns;

    if (rate->speed == 0) {
        return;
    }
    rate->due_ns = rate->begun ? MIN(MAX(rate->due_ns, now - rate->credit_ns), FAR_NS) : now;
    rate->due_ns += (int64_t)MIN(units / (double)rate->speed * SECOND_NS, (double)FAR_NS);
    rate->begun = true;
}

uint64_t blk_rate_take(BlkRate *rate, uint64_t units, uint64_t now_ns)
{
    uint64_t due_ns = blk_rate_when(rate, now_ns);

    if (due_ns == 0) {
        blk_rate_spend(rate, (double)units, now_ns);
    }
    return due_ns;
}
