/* SPDX-License-Identifier: MIT */
/*
 * compact.c - makes an image as small as a fresh conversion would be, in place: see docs/compact.md.
 *
 * Limitations: what a snapshot shares, snapshot tables and bitmaps stay where they are; a refcount block that counts
 * something stays.
 */
#include "drivers/qcow2/compact.h"

/* Drops the refcount blocks of what lies behind the end. */
static int co_drop_empty_blocks(BlkNode *node)
{
    Qcow2 *q = node->opaque;
    int ret = qcow2_co_settle(node);

    if (ret == 0) {
        blk_co_mutex_lock(&q->alloc_lock);
        ret = qcow2_co_refcount_trim(node);
        blk_co_mutex_unlock(&q->alloc_lock);
    }
    return ret < 0 ? ret : qcow2_co_settle(node);
}

/* Finds all holes: nothing is dropped or written meanwhile. */
static int co_survey(BlkNode *node)
{
    int ret = qcow2_co_settle(node);

    if (ret == 0) {
        qcow2_survey_start(node);
        qcow2_co_survey_wait(node);
    }
    return ret;
}

/* An image with errors is refused; leaks are given back. */
static int co_check_first(BlkNode *node, const BlkCompactOptions *options, GError **error)
{
    BlkCheckOptions check = { .fix_leaks = false };
    BlkCheckResult result = { 0 };
    int ret = node->driver->co_check(node, &check, &result, error);

    if (ret == 0 && (result.corruptions || result.check_errors)) {
        return blk_error(error, -EIO, "the image has %" PRIu64 " errors; repair it with 'check -r all' first",
                         result.corruptions + result.check_errors);
    }
    if (ret == 0 && result.leaks > 0) {
        check.fix_leaks = true;
        result = (BlkCheckResult){ 0 };
        ret = node->driver->co_check(node, &check, &result, error);
    }
    return ret;
}

int qcow2_co_compact(BlkNode *node, const BlkCompactOptions *options, GError **error)
{
    Qcow2 *q = node->opaque;
    Qcow2Compact c = { .node = node, .options = options, .from = 0, .to = options->no_compress ? 0 : 0.6 };

    if (!q->tables) {
        return blk_error(error, -EROFS, "the image is not open for writing");
    }
    if (q->header.incompatible & QCOW2_INCOMPAT_DATA_FILE) {
        return blk_error(error, -ENOTSUP, "the data lies in an external data file, where nothing can be packed");
    }
    int ret = co_check_first(node, options, error);
    if (ret < 0) {
        return ret;
    }
    ret = co_survey(node);
    if (ret == 0 && !options->no_compress) {
        ret = qcow2_co_compact_shrink(&c, error);
        if (ret < 0) {
            return ret;
        }
        ret = qcow2_co_settle(node);
    }
    if (ret < 0) {
        return blk_error_errno(error, ret, "could not read or write the tables");
    }
    c.from = c.to;
    c.to = 1;
    ret = qcow2_co_compact_pack(&c, error);
    if (ret < 0) {
        return ret;
    }
    ret = co_drop_empty_blocks(node);
    if (ret < 0) {
        return blk_error_errno(error, ret, "could not write the refcounts");
    }
    qcow2_co_give_up_free_space(node);
    qcow2_compact_progress(&c, 1);
    return 0;
}
