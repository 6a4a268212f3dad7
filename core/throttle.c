/* SPDX-License-Identifier: MIT */
/*
 * throttle.c - limits of bytes and of requests a second. See throttle.h.
 */
#include "core/throttle.h"

#include <string.h>

#define SECOND_NS 1e9
#define IOPS_SIZE "iops-size"

#define LIMIT_OPTIONS(prefix, name, what)                                                               \
    { prefix name, BLK_OPTION_UINT, what " a second; 0: no limit" },                                    \
    { prefix name "-max", BLK_OPTION_UINT, what " a second in a burst; 0: bursts of 0.1 seconds" },     \
    { prefix name "-max-length", BLK_OPTION_UINT, "seconds that such a burst may last (default: 1)" }

#define ALL_OPTIONS(prefix)                                             \
    LIMIT_OPTIONS(prefix, "bps-total", "bytes"),                        \
    LIMIT_OPTIONS(prefix, "bps-read", "bytes read"),                    \
    LIMIT_OPTIONS(prefix, "bps-write", "bytes written"),                \
    LIMIT_OPTIONS(prefix, "iops-total", "requests"),                    \
    LIMIT_OPTIONS(prefix, "iops-read", "reads"),                        \
    LIMIT_OPTIONS(prefix, "iops-write", "writes"),                      \
    { prefix IOPS_SIZE, BLK_OPTION_UINT, "bytes: a larger request counts as several; 0: each counts as one" }

const BlkOption blk_throttle_options[] = {
    ALL_OPTIONS("limits."),
    ALL_OPTIONS("x-"),
    { NULL },
};

static const char *const names[BLK_THROTTLE_KINDS] = {
    [BLK_THROTTLE_BPS_TOTAL]  = "bps-total",  [BLK_THROTTLE_BPS_READ]   = "bps-read",
    [BLK_THROTTLE_BPS_WRITE]  = "bps-write",  [BLK_THROTTLE_IOPS_TOTAL] = "iops-total",
    [BLK_THROTTLE_IOPS_READ]  = "iops-read",  [BLK_THROTTLE_IOPS_WRITE] = "iops-write",
};

void blk_throttle_limits_init(BlkThrottleLimits *limits)
{
    *limits = (BlkThrottleLimits) { .iops_size = 0 };
    for (unsigned i = 0; i < BLK_THROTTLE_KINDS; i++) {
        limits->limit[i].length = 1;
    }
}

/* ---- from options ---- */

static int take_number(const BlkOptions *options, const char *prefix, const char *name, const char *suffix, uint64_t max,
                       uint64_t *number, GError **error)
{
    g_autofree char *key = g_strconcat(prefix, name, suffix, NULL);

    if (!blk_options_has(options, key)) {
        return 0;
    }
    *number = blk_options_uint(options, key);
    if (*number <= max) {
        return 0;
    }
    if (max == BLK_THROTTLE_MAX) {
        return blk_error(error, -EINVAL, "bps/iops/max values must be within [0, %" G_GUINT64_FORMAT "]", max);
    }
    return blk_error(error, -EINVAL, "%s value must be in the range [0, %" G_GUINT64_FORMAT "]",
                     g_str_has_prefix(key, "limits.") ? key + strlen("limits.") : key, max);
}

static int take_all(BlkThrottleLimits *limits, const BlkOptions *options, const char *prefix, GError **error)
{
    for (unsigned i = 0; i < BLK_THROTTLE_KINDS; i++) {
        BlkThrottleLimit *limit = &limits->limit[i];

        if (take_number(options, prefix, names[i], NULL, BLK_THROTTLE_MAX, &limit->rate, error) < 0 ||
            take_number(options, prefix, names[i], "-max", BLK_THROTTLE_MAX, &limit->max, error) < 0 ||
            take_number(options, prefix, names[i], "-max-length", UINT32_MAX, &limit->length, error) < 0) {
            return -EINVAL;
        }
    }
    return take_number(options, prefix, IOPS_SIZE, NULL, BLK_THROTTLE_MAX, &limits->iops_size, error);
}

static int check_limit(const BlkThrottleLimit *limit, GError **error)
{
    if (limit->length == 0) {
        return blk_error(error, -EINVAL, "the burst length cannot be 0");
    }
    if (limit->length > 1 && limit->max == 0) {
        return blk_error(error, -EINVAL, "burst length set without burst rate");
    }
    if (limit->max > 0 && limit->length > BLK_THROTTLE_MAX / limit->max) {
        return blk_error(error, -EINVAL, "burst length too high for this burst rate");
    }
    if (limit->max > 0 && limit->rate == 0) {
        return blk_error(error, -EINVAL, "bps_max/iops_max require corresponding bps/iops values");
    }
    if (limit->max > 0 && limit->max < limit->rate) {
        return blk_error(error, -EINVAL, "bps_max/iops_max cannot be lower than bps/iops");
    }
    return 0;
}

/* Are both a limit of all and one of reads or writes set? @total: followed by those of reads and of writes. */
static bool contradicts(const BlkThrottleLimit *total)
{
    return (total[0].rate > 0 && (total[1].rate > 0 || total[2].rate > 0)) ||
           (total[0].max > 0 && (total[1].max > 0 || total[2].max > 0));
}

static int check(const BlkThrottleLimits *limits, GError **error)
{
    const BlkThrottleLimit *bps = &limits->limit[BLK_THROTTLE_BPS_TOTAL];
    const BlkThrottleLimit *iops = &limits->limit[BLK_THROTTLE_IOPS_TOTAL];
    int ret = 0;

    if (contradicts(bps) || contradicts(iops)) {
        return blk_error(error, -EINVAL, "bps/iops/max total values and read/write values cannot be used at the same time");
    }
    if (limits->iops_size > 0 && iops[0].rate == 0 && iops[1].rate == 0 && iops[2].rate == 0) {
        return blk_error(error, -EINVAL, "iops size requires an iops value to be set");
    }
    for (unsigned i = 0; i < BLK_THROTTLE_KINDS && ret == 0; i++) {
        ret = check_limit(&limits->limit[i], error);
    }
    return ret;
}

int blk_throttle_limits_change(BlkThrottleLimits *limits, const BlkOptions *options, GError **error)
{
    BlkThrottleLimits changed = *limits;

    if (take_all(&changed, options, "x-", error) < 0 || take_all(&changed, options, "limits.", error) < 0 ||
        check(&changed, error) < 0) {
        return -EINVAL;
    }
    *limits = changed;
    return 0;
}

static void describe_number(JsonObject *object, const char *name, const char *suffix, uint64_t number)
{
    g_autofree char *key = g_strconcat(name, suffix, NULL);

    json_object_set_int_member(object, key, (gint64)number);
}

JsonObject *blk_throttle_describe(const BlkThrottleLimits *limits)
{
    JsonObject *object = json_object_new();

    for (unsigned i = 0; i < BLK_THROTTLE_KINDS; i++) {
        describe_number(object, names[i], NULL, limits->limit[i].rate);
        describe_number(object, names[i], "-max", limits->limit[i].max);
        describe_number(object, names[i], "-max-length", limits->limit[i].length);
    }
    describe_number(object, IOPS_SIZE, NULL, limits->iops_size);
    return object;
}

/* ---- in time ---- */

void blk_throttle_set(BlkThrottle *throttle, const BlkThrottleLimits *limits)
{
    *throttle = (BlkThrottle) { .limits = *limits };
    for (unsigned i = 0; i < BLK_THROTTLE_KINDS; i++) {
        const BlkThrottleLimit *limit = &limits->limit[i];
        double seconds = limit->max > 0 ? (double)limit->max * (double)limit->length / (double)limit->rate : 0.1;

        if (limit->rate > 0) {
            blk_rate_set_burst(&throttle->rate[i], limit->rate, seconds * SECOND_NS);
        }
        if (limit->length > 1) {
            blk_rate_set_burst(&throttle->burst[i], limit->max, 0.1 * SECOND_NS);
        }
    }
}

/* Does a read or write count for that limit? */
static bool concerns(BlkThrottleKind kind, bool write)
{
    bool reads_only = kind == BLK_THROTTLE_BPS_READ || kind == BLK_THROTTLE_IOPS_READ;
    bool writes_only = kind == BLK_THROTTLE_BPS_WRITE || kind == BLK_THROTTLE_IOPS_WRITE;

    return write ? !reads_only : !writes_only;
}

uint64_t blk_throttle_when(const BlkThrottle *throttle, bool write, uint64_t now_ns)
{
    uint64_t due_ns = 0;

    for (unsigned i = 0; i < BLK_THROTTLE_KINDS; i++) {
        if (concerns(i, write)) {
            due_ns = MAX(due_ns, blk_rate_when(&throttle->rate[i], now_ns));
            due_ns = MAX(due_ns, blk_rate_when(&throttle->burst[i], now_ns));
        }
    }
    return due_ns;
}

void blk_throttle_spend(BlkThrottle *throttle, bool write, uint64_t bytes, uint64_t now_ns)
{
    uint64_t size = throttle->limits.iops_size;
    double requests = size > 0 && bytes > size ? (double)bytes / (double)size : 1;

    for (unsigned i = 0; i < BLK_THROTTLE_KINDS; i++) {
        double units = i < BLK_THROTTLE_IOPS_TOTAL ? (double)bytes : requests;

        if (concerns(i, write)) {
            blk_rate_spend(&throttle->rate[i], units, now_ns);
            blk_rate_spend(&throttle->burst[i], units, now_ns);
        }
    }
}
