/* SPDX-License-Identifier: MIT */
/*
 * throttle.h - limits of bytes and of requests a second, with bursts: when the next request may go. Knows no clock but the
 * time that it is told.
 *
 * There are six limits: bytes and requests, each of all, of reads and of writes. A limit is a leaky bucket that holds what a
 * burst may take: @max a second for @length seconds; or a tenth of a second, if no burst is set. A burst of more than a
 * second is itself kept to @max a second by a bucket of its own. A request goes while no bucket is full, however large it is, and
 * makes those that follow wait.
 */
#ifndef BLKSTACK_CORE_THROTTLE_H
#define BLKSTACK_CORE_THROTTLE_H

#include "core/rate.h"

#include <blkstack/driver.h>

typedef enum BlkThrottleKind {
    BLK_THROTTLE_BPS_TOTAL, BLK_THROTTLE_BPS_READ, BLK_THROTTLE_BPS_WRITE,
    BLK_THROTTLE_IOPS_TOTAL, BLK_THROTTLE_IOPS_READ, BLK_THROTTLE_IOPS_WRITE,
    BLK_THROTTLE_KINDS,
} BlkThrottleKind;

#define BLK_THROTTLE_MAX UINT64_C(1000000000000000)     /* of a rate, and of what one burst takes */

typedef struct BlkThrottleLimit {
    uint64_t rate;              /* bytes or requests a second; 0: no limit */
    uint64_t max;               /* ... in a burst; 0: none is set */
    uint64_t length;            /* of a burst, in seconds: at least 1 */
} BlkThrottleLimit;

typedef struct BlkThrottleLimits {
    BlkThrottleLimit limit[BLK_THROTTLE_KINDS];
    uint64_t iops_size;         /* bytes: a larger request counts as several; 0: each counts as one */
} BlkThrottleLimits;

typedef struct BlkThrottle {
    BlkThrottleLimits limits;
    BlkRate rate[BLK_THROTTLE_KINDS], burst[BLK_THROTTLE_KINDS];
} BlkThrottle;

/* Options of these limits, as "limits.NAME" and as "x-NAME". */
extern const BlkOption blk_throttle_options[];

/* Without any limit. */
void blk_throttle_limits_init(BlkThrottleLimits *limits);

/**
 * blk_throttle_limits_change:
 * @options: parsed by blk_throttle_options: what is given there changes, all else stays. "limits.NAME" wins over "x-NAME"
 *
 * Returns: 0; -EINVAL: numbers that do not go together, and @limits is as it was.
 */
int blk_throttle_limits_change(BlkThrottleLimits *limits, const BlkOptions *options, GError **error);

/* All of them, by the names of the options. (transfer full) */
JsonObject *blk_throttle_describe(const BlkThrottleLimits *limits);

/* From now on. Forgets what has gone. */
void blk_throttle_set(BlkThrottle *throttle, const BlkThrottleLimits *limits);
/* May a read or write go now (0)? If not, when to ask again. */
uint64_t blk_throttle_when(const BlkThrottle *throttle, bool write, uint64_t now_ns);
/* It goes, whether it may or not. */
void blk_throttle_spend(BlkThrottle *throttle, bool write, uint64_t bytes, uint64_t now_ns);

#endif
