/* SPDX-License-Identifier: MIT */
/*
 * mirror.c - job "mirror", and the active commit: see mirror.h and docs/mirror.md.
 *
 *     guests ──> job-top ──> source      bitmap: what differs from the target, or may
 *                   :          │
 *                   :          └──copy──> target
 *                   └..the job is told of every change, while the guest waits
 *
 *     mark ──> passes until all is copied ──> ready: passes when something has changed ──> complete | end
 */
#include "jobs/mirror.h"

#include "core/node.h"
#include "filters/hide.h"
#include "filters/job_top.h"
#include "jobs/chain.h"
#include "jobs/compress_target.h"
#include "jobs/copy.h"
#include "jobs/source.h"

enum {
    WORKERS = 8,
    MAX_WORKERS = 64,                   /* if there is memory for them */
    MAX_SLOW_PASSES = 3,                /* that leave more than half of what they began with */
    MARKS_AT_ONCE = 256,                /* extents, before others run */
};
#define BATCH_NS UINT64_C(100000000)    /* changes of a ready job's source are collected so long */

typedef struct MirrorJob {
    BlkNode *top;                       /* the filter above the source */
    BlkNode *hide;                      /* (nullable): of a commit: the filter below it */
    BlkNode *compress;                  /* (nullable): the filter above the target */
    BlkChild *source, *target;          /* users of the job */
    BlkChild *guard;                    /* ... and of the filter above the source: keeps others from writing past it */
    BlkNode *replaces;                  /* (nullable): a reference */
    GArray *changed;                    /* of BlkChainChange: a base that is writable, images between that are not */
    BlkMirrorSync sync;
    bool commit;

    BlkNodesSource nodes;
    BlkCopyTodo todo;
    BlkCopy copy;                       /* of the job */
    bool blocking;                      /* guests' writes are copied before they return */
    bool missed;                        /* ... but one was not, since the job is paused or the copy failed */
    bool waiting;                       /* for a change */
    bool complete, end;                 /* somebody has said so */
    bool failed;                        /* or was cancelled */
} MirrorJob;

static uint64_t left_to_copy(const MirrorJob *s)
{
    return blk_bitmap_dirty_bytes(s->todo.bitmap);
}

/* What is dirty is to be done, and no more. */
static void update_total(BlkJob *job)
{
    BlkJobInfo info;

    blk_job_info(job, &info);
    blk_job_progress_set_total(job, info.current + left_to_copy(job->opaque));
}

/* ---- changes of guests ---- */

/* The write has set its bits. What fails here is for the next pass to find. */
static void co_source_changed(void *opaque, uint64_t offset, uint64_t bytes)
{
    BlkJob *job = opaque;
    MirrorJob *s = job->opaque;
    BlkJobInfo info;

    blk_job_info(job, &info);
    if (s->blocking && !info.paused) {
        s->missed |= blk_co_copy_range(&s->copy, offset, bytes, NULL) < 0;
        update_total(job);
    } else {
        s->missed |= s->blocking;
    }
    if (s->waiting && left_to_copy(s) > 0) {
        blk_job_wake(job);
    }
}

/* ---- what differs at first ---- */

/* Marks what does not come from the base of the source. */
static int co_mark_above_base(BlkJob *job, GError **error)
{
    MirrorJob *s = job->opaque;
    BlkSource *source = &s->nodes.source;
    unsigned extents = 0;
    BlkExtent extent;
    int ret = 0;

    for (uint64_t offset = 0; ret == 0 && offset < source->length; offset += extent.bytes) {
        if (++extents % MARKS_AT_ONCE == 0) {
            blk_co_reschedule();
        }
        ret = source->co_extent(source, offset, source->length - offset, &extent, error);
        if (ret < 0) {
            return ret;
        }
        if (extent.kind != BLK_EXTENT_BACKING) {
            blk_bitmap_set(s->todo.bitmap, offset, extent.bytes);
        }
        ret = blk_co_job_pause_point(job);
    }
    return ret;
}

static int co_mark(BlkJob *job, GError **error)
{
    MirrorJob *s = job->opaque;
    int ret = 0;

    if (s->sync == BLK_MIRROR_FULL) {
        blk_bitmap_set(s->todo.bitmap, 0, s->nodes.source.length);
    } else if (s->sync == BLK_MIRROR_TOP) {
        ret = co_mark_above_base(job, error);
    }
    if (!s->commit) {
        s->nodes.base = NULL;       /* around what is marked, and where guests write, all is copied */
    }
    return ret;
}

/* ---- passes ---- */

/* Copies what is dirty, again and again, until the target has all but what is being written. A guest that writes faster
 * than it is copied waits for the copies in the end. */
static int co_synchronise(BlkJob *job, GError **error)
{
    MirrorJob *s = job->opaque;
    unsigned slow = 0;

    for (;;) {
        uint64_t before = left_to_copy(s);
        bool blocking = s->blocking;

        s->missed = false;
        update_total(job);
        int ret = blk_co_copy(&s->copy, error);
        update_total(job);
        if (ret < 0 || left_to_copy(s) == 0 || (blocking && !s->missed)) {
            return ret;
        }
        slow += left_to_copy(s) > before / 2;
        s->blocking |= slow >= MAX_SLOW_PASSES;
    }
}

static int co_stay_ready(BlkJob *job, GError **error)
{
    MirrorJob *s = job->opaque;
    int ret = 0;

    while (ret == 0 && !s->complete && !s->end) {
        s->waiting = left_to_copy(s) == 0;
        ret = blk_co_job_sleep(job, s->waiting ? UINT64_MAX : BATCH_NS);
        s->waiting = false;
        if (ret == 0 && !s->complete && !s->end && left_to_copy(s) > 0) {
            update_total(job);
            ret = blk_co_copy(&s->copy, error);
            update_total(job);
        }
    }
    return ret;
}

/* Guests wait from here on, also after an error, until blk_drain_end(). */
static int co_stop_guests(MirrorJob *s, GError **error)
{
    int ret = blk_co_drain_begin(s->top);

    return ret < 0 ? blk_error_errno(error, ret, "what was written to '%s' could not be handed down",
                                     blk_node_name(s->top)) : 0;
}

/* While guests wait: makes the target what the source is. Neither a pause nor the speed holds it up, and what fails is not
 * tried again. */
static int co_copy_rest(BlkJob *job, GError **error)
{
    MirrorJob *s = job->opaque;

    s->copy.job = NULL;
    int ret = blk_co_copy(&s->copy, error);
    s->copy.job = job;
    update_total(job);
    return ret;
}

/* Guests go on, and each write goes to both. If they are to use the target, the rest is copied when that is so; else there
 * is a moment in which both are the same: what fails then is for a further pass, and for the job's policy. */
static int co_meet(BlkJob *job, GError **error)
{
    MirrorJob *s = job->opaque;
    bool met = false;
    int ret;

    s->blocking = true;
    do {
        ret = co_synchronise(job, error);
        if (ret < 0 || !s->end) {
            break;
        }
        ret = co_stop_guests(s, error);
        met = ret == 0 && co_copy_rest(job, NULL) == 0;
        s->blocking = !met;
        blk_drain_end(s->top);
    } while (ret == 0 && !met);
    return ret;
}

/* ---- the job ---- */

static int co_check_lengths(BlkJob *job, GError **error)
{
    MirrorJob *s = job->opaque;
    BlkNode *target = blk_child_node(s->target);
    uint64_t length = s->nodes.source.length, target_length = blk_node_length(target);

    if (s->commit) {
        return target_length < length ? blk_co_truncate(target, length, BLK_PREALLOC_OFF, error) : 0;
    }
    if (target_length != length) {
        return blk_error(error, -EINVAL, "Source and target image have different sizes: '%s' has %" G_GUINT64_FORMAT
                         " bytes, '%s' has %" G_GUINT64_FORMAT, blk_node_name(blk_child_node(s->source)), length,
                         blk_node_name(target), target_length);
    }
    return 0;
}

static int mirror_co_run(BlkJob *job, GError **error)
{
    int ret = co_check_lengths(job, error);

    ret = ret < 0 ? ret : co_mark(job, error);
    ret = ret < 0 ? ret : co_synchronise(job, error);
    if (ret == 0) {
        blk_job_ready(job);
        ret = co_stay_ready(job, error);
    }
    return ret < 0 ? ret : co_meet(job, error);
}

/* Guests write to the base now. */
static void co_keep_writable(MirrorJob *s)
{
    for (guint i = s->changed->len; i-- > 0; ) {
        const BlkChainChange change = g_array_index(s->changed, BlkChainChange, i);

        if (change.was_read_only) {
            g_array_remove_index(s->changed, i);
            blk_co_unref(change.node);
        }
    }
}

/* The users go to the target, if the job was told to complete. */
static int mirror_co_prepare(BlkJob *job, GError **error)
{
    MirrorJob *s = job->opaque;
    BlkNode *target;
    int ret;

    if (s->end) {
        return 0;
    }
    target = blk_node_ref(s->compress ? blk_node_child(s->compress, "file") : blk_child_node(s->target));
    ret = co_stop_guests(s, error);
    ret = ret < 0 ? ret : co_copy_rest(job, error);
    if (ret == 0) {
        blk_co_job_release(job, s->target);     /* others may write to it now */
        s->target = NULL;
        blk_co_compress_target_end(g_steal_pointer(&s->compress));
        ret = blk_co_replace_node(s->replaces ? s->replaces : s->top, target, error);
    }
    if (ret == 0) {
        co_keep_writable(s);
    }
    blk_drain_end(s->top);
    blk_co_unref(target);
    return ret;
}

/* The graph is what it was. */
static void co_undo_graph(void *state)
{
    MirrorJob *s = state;

    blk_co_job_top_remove(s->top);
    blk_co_compress_target_end(s->compress);
    blk_co_hide_remove(s->hide);
    blk_co_chain_make_as_before(s->changed, s->failed);
    g_array_unref(s->changed);
}

/* The source is what it was: what the base of a commit has got lies below it. */
static void mirror_co_abort(BlkJob *job)
{
    ((MirrorJob *)job->opaque)->failed = true;
}

static void mirror_co_clean(BlkJob *job)
{
    MirrorJob *s = job->opaque;

    if (s->target) {
        blk_co_job_release(job, s->target);
    }
    if (s->guard) {
        blk_co_job_release(job, s->guard);
    }
    co_undo_graph(s);
    if (s->todo.bitmap) {
        blk_bitmap_remove(s->todo.bitmap);
    }
    g_clear_pointer(&s->nodes.nodes, g_ptr_array_unref);
    blk_co_unref(s->replaces);
}

static int mirror_complete(BlkJob *job, GError **error)
{
    MirrorJob *s = job->opaque;

    s->complete = true;
    return 0;
}

static bool mirror_cancel(BlkJob *job, bool force)
{
    MirrorJob *s = job->opaque;
    BlkJobInfo info;

    blk_job_info(job, &info);
    if (force || !info.ready) {
        return true;
    }
    s->end = true;
    return false;
}

#define MIRROR_JOB_TYPE(type_name)                                                                              \
    {                                                                                                           \
        .name = (type_name), .alone = true, .moves_data = true, .instance_size = sizeof(MirrorJob),             \
        .co_run = mirror_co_run, .co_prepare = mirror_co_prepare, .co_abort = mirror_co_abort,                  \
        .co_clean = mirror_co_clean, .complete = mirror_complete, .cancel = mirror_cancel,                      \
    }
static const BlkJobType mirror_job_type = MIRROR_JOB_TYPE("mirror");
static const BlkJobType commit_job_type = MIRROR_JOB_TYPE("commit");

/* ---- making one ---- */

static int check_granularity(uint64_t granularity, GError **error)
{
    if (granularity == 0) {
        return 0;
    }
    if (granularity < BLK_BITMAP_MIN_GRANULARITY || granularity > BLK_MIRROR_MAX_GRANULARITY) {
        return blk_error(error, -EINVAL, "Parameter 'granularity' expects a value in range [512B, 64MB]");
    }
    return granularity & (granularity - 1) ? blk_error(error, -EINVAL, "Parameter 'granularity' expects a power of 2") : 0;
}

/* What a drain above the source stops may not be the target. */
static int check_target(const BlkMirrorOptions *o, GError **error)
{
    if (o->source == o->target) {
        return blk_error(error, -EINVAL, "Can't mirror node into itself");
    }
    if (blk_node_reaches(o->target, o->source)) {
        return blk_error(error, -EINVAL, "Node '%s' is above '%s': it cannot be the target of a copy of that",
                         blk_node_name(o->target), blk_node_name(o->source));
    }
    if (o->commit) {
        return blk_chain_has(blk_chain_below(o->source), o->target) ? 0
            : blk_error(error, -EINVAL, "'%s' is not in this backing file chain", blk_node_name(o->target));
    }
    if (blk_node_reaches(o->source, o->target)) {
        const BlkChild *user = o->target->core->parents.head->data;

        return blk_error(error, -EBUSY, "Node '%s' is busy: node is used as %s of '%s'", blk_node_name(o->target),
                         user->role == BLK_ROLE_COW ? "backing hd" : user->name,
                         user->parent ? blk_node_name(user->parent) : user->name);
    }
    return 0;
}

/* Reads the same as the source whatever the guests do. */
static int check_replaces(const BlkMirrorOptions *o, GError **error)
{
    const BlkNode *node = o->source;

    while (o->replaces && node && node != o->replaces) {
        node = blk_node_filtered(node);
    }
    return node ? 0 : blk_error(error, -EPERM, "Cannot replace '%s' by a node mirrored from '%s', because it cannot be "
                                "guaranteed that doing so would not lead to an abrupt change of visible data",
                                blk_node_name(o->replaces), blk_node_name(o->source));
}

/* What else the job works with: the images between source and base of a commit. *place: the source at first.
 * Returns: false: there are no more. */
static bool next_between(const BlkMirrorOptions *o, BlkNode **place)
{
    *place = o->commit ? blk_chain_below(*place) : NULL;
    return *place && blk_node_skip_filters(*place) != blk_node_skip_filters(o->target);
}

/* No job uses the node, or one below it through filters. */
static int check_unused(BlkNode *node, GError **error)
{
    int ret = 0;

    for (; ret == 0 && node; node = blk_node_filtered(node)) {
        ret = blk_job_check_unused(node, error);
    }
    return ret;
}

static int check_all_unused(const BlkMirrorOptions *o, GError **error)
{
    int ret = check_unused(o->source, error);

    for (BlkNode *place = o->source; ret == 0 && next_between(o, &place); ) {
        ret = check_unused(place, error);
    }
    return ret < 0 ? ret : check_unused(o->target, error);
}

static int check_options(const BlkMirrorOptions *o, GError **error)
{
    int ret = check_granularity(o->granularity, error);

    ret = ret < 0 ? ret : check_target(o, error);
    ret = ret < 0 ? ret : check_all_unused(o, error);
    return ret < 0 ? ret : check_replaces(o, error);
}

/* The base can be written, and nothing else below the source, since hide lets others write. */
static int co_change_chain(MirrorJob *s, const BlkMirrorOptions *o, GError **error)
{
    int ret = o->commit ? blk_co_chain_make(o->target, true, s->changed, error) : 0;

    for (BlkNode *place = o->source; ret == 0 && next_between(o, &place); ) {
        ret = blk_co_chain_make(place, false, s->changed, error);
    }
    return ret;
}

static int co_begin(void *state, const void *options, GError **error)
{
    MirrorJob *s = state;
    const BlkMirrorOptions *o = options;

    *s = (MirrorJob) {
        .changed = blk_chain_changes_new(),
        .sync = o->commit ? BLK_MIRROR_TOP : o->sync,
        .commit = o->commit,
        .blocking = o->write_blocking,
    };
    if (co_change_chain(s, o, error) < 0) {
        return -EACCES;
    }
    s->top = blk_co_job_top_insert(o->source, o->filter_node_name, error);
    if (!s->top) {
        return -EPERM;
    }
    if (o->commit && !(s->hide = blk_co_hide_insert(blk_node_skip_filters(o->source), NULL, error))) {
        return -EPERM;
    }
    if (o->compress && !(s->compress = blk_co_compress_target(o->target, error))) {
        return -EPERM;
    }
    return 0;
}

/* So that other jobs find the node, and those below it through filters, in use. */
static int co_claim(BlkJob *job, BlkNode *node, GError **error)
{
    for (; node; node = blk_node_filtered(node)) {
        if (!blk_co_job_hold(job, node, "job", 0, BLK_PERM_ALL, error)) {
            return -EPERM;
        }
    }
    return 0;
}

static int co_claim_all(BlkJob *job, const BlkMirrorOptions *o, GError **error)
{
    int ret = co_claim(job, o->source, error);

    for (BlkNode *place = o->source; ret == 0 && next_between(o, &place); ) {
        ret = co_claim(job, place, error);
    }
    return ret < 0 ? ret : co_claim(job, o->target, error);
}

static int co_use_nodes(BlkJob *job, const BlkMirrorOptions *o, GError **error)
{
    MirrorJob *s = job->opaque;
    const unsigned shared = BLK_PERM_READ | BLK_PERM_WRITE_UNCHANGED;
    BlkNode *target = s->compress ? s->compress : o->target;

    s->guard = blk_co_job_hold(job, s->top, "guard", BLK_PERM_READ, BLK_PERM_ALL, error);
    if (!s->guard) {
        return -EPERM;
    }
    s->source = blk_co_job_hold(job, o->source, "source", BLK_PERM_READ, shared | BLK_PERM_WRITE, error);
    if (!s->source) {
        return -EPERM;
    }
    s->target = blk_co_job_use(job, target, "target", BLK_PERM_WRITE | (o->commit ? BLK_PERM_RESIZE : 0), shared, error);
    if (!s->target) {
        return -EPERM;
    }
    blk_child_serve(s->target, s->top);     /* guests wait for copies */
    return 0;
}

static int prepare_copy(BlkJob *job, const BlkMirrorOptions *o, GError **error)
{
    MirrorJob *s = job->opaque;
    uint64_t granularity = o->granularity ? o->granularity : blk_bitmap_default_granularity(o->target);
    GPtrArray *nodes = g_ptr_array_new();
    int ret;

    g_ptr_array_add(nodes, o->source);
    ret = blk_nodes_source_init(&s->nodes, nodes, error);
    s->nodes.nodes = nodes;
    if (ret < 0) {
        return ret;
    }
    s->nodes.base = o->commit ? o->target : o->sync == BLK_MIRROR_TOP ? blk_node_backing(o->source) : NULL;
    s->todo.bitmap = blk_bitmap_add(o->source, NULL, granularity, false, error);
    if (!s->todo.bitmap) {
        return -EINVAL;
    }
    s->copy = (BlkCopy) {
        .job = job,
        .source = &s->nodes.source,
        .todo = &s->todo,
        .target = s->target,
        .sparse = 4096,
        .keep_space = o->keep_space,
        .workers = o->buf_size ? MAX_WORKERS : WORKERS,
        .memory = o->buf_size,
    };
    blk_job_top_watch(s->top, co_source_changed, job);
    return 0;
}

static int co_use(BlkJob *job, const void *options, GError **error)
{
    MirrorJob *s = job->opaque;
    const BlkMirrorOptions *o = options;
    int ret = co_claim_all(job, o, error);

    s->replaces = o->replaces && o->replaces != o->source ? blk_node_ref(o->replaces) : NULL;
    ret = ret < 0 ? ret : co_use_nodes(job, o, error);
    return ret < 0 ? ret : prepare_copy(job, o, error);
}

BlkJob *blk_co_mirror_job_new(const BlkMirrorOptions *o, GError **error)
{
    static const BlkJobMaker mirror = { &mirror_job_type, co_begin, co_undo_graph, co_use };
    static const BlkJobMaker commit = { &commit_job_type, co_begin, co_undo_graph, co_use };

    return check_options(o, error) < 0 ? NULL
           : blk_co_job_make(blk_node_context(o->source), o->commit ? &commit : &mirror, o, &o->job, error);
}
