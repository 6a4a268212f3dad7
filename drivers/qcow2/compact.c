/* SPDX-License-Identifier: MIT */
/*
 * compact.c - makes an image as small as a fresh conversion would be, in place: see docs/compact.md.
 *
 * An image with snapshots is marked dirty meanwhile: a crash may leave some references to what is moved at the old place, some
 * at the new one, which is counted for all of them; when the counts are repaired, some are 1 and need COPIED flags.
 *
 * Limitation: version 2 has no such mark.
 */
#include "drivers/qcow2/bitmaps.h"
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

/* What does not fit into the other steps: the file is shortened, so that nothing is evacuated far behind its end. */
static void co_cut_off(BlkNode *node)
{
    Qcow2 *q = node->opaque;

    q->freed_ever = true;
    qcow2_co_give_up_free_space(node);
}

/* ---- the steps ---- */

static int co_shrink(Qcow2Compact *c, GError **error)
{
    const Qcow2 *q = c->node->opaque;
    int ret = co_survey(c->node);

    if (ret < 0) {
        return blk_error_errno(error, ret, "could not read the tables");
    }
    return c->options->no_compress || q->has_data_file ? 0 : qcow2_co_compact_shrink(c, error);
}

/* Moves all down: what the holes are is known anew, in what snapshots use too. */
static int co_move_down(Qcow2Compact *c, GError **error)
{
    Qcow2 *q = c->node->opaque;
    Qcow2RefWindow window;
    int ret = qcow2_co_settle(c->node);

    qcow2_refs_init(&window);
    if (ret == 0) {
        ret = qcow2_co_refs_learn(c->node, &window);
    }
    ret = ret < 0 ? blk_error_errno(error, ret, "could not read the tables") : 0;
    if (ret == 0 && q->header.nb_snapshots > 0 && !c->options->no_compress) {
        qcow2_compact_phase(c, 0.7);
        ret = qcow2_co_compact_shared(c, &window, error);
    }
    if (ret == 0) {
        qcow2_compact_phase(c, 1);
        ret = qcow2_co_compact_pack(c, &window, error);
    }
    qcow2_refs_clear(&window);
    return ret;
}

/* With the image marked, if it must be. */
static int co_compact(Qcow2Compact *c, GError **error)
{
    qcow2_compact_phase(c, c->options->no_compress ? 0 : 0.5);
    int ret = co_shrink(c, error);

    if (ret == 0) {
        ret = qcow2_co_compact_tables(c, error);
    }
    if (ret == 0) {
        ret = co_move_down(c, error);
    }
    for (unsigned i = 0; ret == 0 && i < 2; i++) {      /* a table leaves the last part of the file: its counts may go */
        ret = co_drop_empty_blocks(c->node);
        ret = ret < 0 ? blk_error_errno(error, ret, "could not write the refcounts") : qcow2_co_compact_tables(c, error);
    }
    return ret;
}

/* Afterwards it may be used as ever: the survey has not begun, and bitmaps lie where they lie. */
static int co_end(Qcow2Compact *c, int ret, bool marked, GError **error)
{
    BlkNode *node = c->node;
    Qcow2 *q = node->opaque;
    int end = qcow2_co_settle(node);

    blk_co_mutex_lock(&q->alloc_lock);
    qcow2_payload_forget(q);
    blk_co_mutex_unlock(&q->alloc_lock);
    if (end == 0) {
        co_cut_off(node);
    }
    if (end == 0 && marked && !c->counts_high) {
        end = qcow2_co_dirty_end(node);
    }
    if (end == 0) {
        end = blk_co_flush(node->file->node);       /* also what was written before, where nothing was to be done */
    }
    qcow2_bitmaps_close(node);
    int bitmaps = qcow2_co_bitmaps_open(node, true, ret == 0 && end == 0 ? error : NULL);
    if (ret == 0 && end < 0) {
        return blk_error_errno(error, end, "it was done, but the tables could not be written");
    }
    return ret < 0 ? ret : bitmaps;
}

int qcow2_co_compact(BlkNode *node, const BlkCompactOptions *options, GError **error)
{
    Qcow2 *q = node->opaque;
    Qcow2Compact c = { .node = node, .options = options };

    if (!q->tables) {
        return blk_error(error, -EROFS, "the image is not open for writing");
    }
    int ret = co_check_first(node, options, error);
    if (ret == 0) {
        ret = qcow2_co_bitmaps_store(node, error);
    }
    if (ret < 0) {
        return ret;
    }
    bool marked = q->header.nb_snapshots > 0;
    ret = qcow2_co_settle(node);
    if (ret == 0 && marked) {
        ret = qcow2_co_dirty_begin(node);
    }
    if (ret < 0) {
        return blk_error_errno(error, ret, "could not write the tables");
    }
    co_cut_off(node);
    ret = co_end(&c, co_compact(&c, error), marked, error);
    if (ret == 0) {
        qcow2_compact_progress(&c, 1);
    }
    return ret;
}
