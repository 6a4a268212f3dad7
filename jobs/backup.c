/* SPDX-License-Identifier: MIT */
/*
 * backup.c - the job "backup". See backup.h and docs/backup.md.
 *
 *     guests ──> copy-before-write ──file──> source <── the job reads what is still to be copied
 *                        └────────target──> target <── ... and writes it, through the filter's edge
 *
 * The filter (filters/copy_before_write.c) and the job share one todo: each granule is copied once, by a guest before it
 * overwrites it, or by the job. The bitmap of an incremental backup is split when the job begins and joined when it ends.
 */
#include "jobs/backup.h"

#include "core/bitmap.h"
#include "filters/copy_before_write.h"
#include "jobs/compress_target.h"
#include "jobs/copy.h"
#include "jobs/source.h"

const char *const blk_backup_sync_names[] = { "top", "full", "none", "incremental", "bitmap", NULL };
const char *const blk_bitmap_mode_names[] = { "on-success", "never", "always", NULL };

typedef struct Backup {
    BlkBackup args;
    BlkNode *filter;            /* a reference */
    BlkNode *compress;          /* (nullable): the filter above the target: a reference */
    BlkChild *source;           /* the job's */
    BlkDirtyBitmap *before;     /* (nullable): what was dirty in the bitmap when the job began */
} Backup;

/* ---- the work ---- */

static int co_wait_for_cancel(BlkJob *job)
{
    int ret = 0;

    while (ret == 0) {
        ret = blk_co_job_sleep(job, UINT64_MAX);
    }
    return ret;
}

static int co_copy(BlkJob *job, GError **error)
{
    Backup *b = job->opaque;
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    BlkNodesSource source;
    BlkCopy copy = {
        .job = job,
        .source = &source.source,
        .todo = blk_cbw_todo(b->filter),
        .target = blk_cbw_target(b->filter),
        .sparse = 1,
        .workers = b->args.workers,
    };
    int ret;

    g_ptr_array_add(nodes, blk_child_node(b->source));
    ret = blk_nodes_source_init(&source, nodes, error);
    if (ret < 0) {
        return ret;
    }
    source.source.length = blk_node_length(b->filter);
    if (b->args.sync == BLK_BACKUP_TOP) {
        source.base = blk_node_backing(blk_child_node(b->source));
    }
    return blk_co_copy(&copy, error);
}

static int backup_co_run(BlkJob *job, GError **error)
{
    Backup *b = job->opaque;

    return b->args.sync == BLK_BACKUP_NONE ? co_wait_for_cancel(job) : co_copy(job, error);
}

/* ---- the end ---- */

/* @rest becomes what was not copied, as far as granules of the copy go. */
static void keep_uncopied(Backup *b, BlkDirtyBitmap *rest)
{
    BlkDirtyBitmap *todo = blk_cbw_todo(b->filter)->bitmap;
    uint64_t offset = 0, start, bytes;

    blk_bitmap_clear(rest, 0, blk_node_length(b->filter));
    while (blk_bitmap_next(todo, offset, &start, &bytes)) {
        blk_bitmap_set(rest, start, bytes);
        offset = start + bytes;
    }
}

static void end_bitmap(Backup *b, bool success)
{
    BlkDirtyBitmap *before = g_steal_pointer(&b->before);

    if (!before) {
        return;
    }
    if (b->args.bitmap_mode == BLK_BITMAP_ALWAYS) {
        keep_uncopied(b, before);
    } else if (success && b->args.bitmap_mode == BLK_BITMAP_ON_SUCCESS) {
        blk_bitmap_clear(before, 0, blk_node_length(b->filter));
    }
    blk_bitmap_join(b->args.bitmap, before);
    blk_bitmap_release(b->args.bitmap);
}

static void backup_co_commit(BlkJob *job)
{
    end_bitmap(job->opaque, true);
}

static void backup_co_abort(BlkJob *job)
{
    end_bitmap(job->opaque, false);
}

/* If a node above holds data that it cannot write, the filter stays for it, and has nothing to copy. */
static void backup_co_clean(BlkJob *job)
{
    Backup *b = job->opaque;

    if (b->filter) {
        blk_cbw_watch(b->filter, NULL, NULL);
        blk_bitmap_clear(blk_cbw_todo(b->filter)->bitmap, 0, blk_node_length(b->filter));
        blk_co_remove_filter(b->filter, NULL);
        blk_co_unref(g_steal_pointer(&b->filter));
    }
    blk_co_compress_target_end(g_steal_pointer(&b->compress));
}

static const BlkJobType backup_type = {
    .name = "backup",
    .moves_data = true,
    .instance_size = sizeof(Backup),
    .co_run = backup_co_run,
    .co_commit = backup_co_commit,
    .co_abort = backup_co_abort,
    .co_clean = backup_co_clean,
};

/* ---- the beginning ---- */

static bool by_bitmap(const BlkBackup *backup)
{
    return backup->sync == BLK_BACKUP_INCREMENTAL || backup->sync == BLK_BACKUP_BITMAP;
}

static int check_target(const BlkBackup *backup, GError **error)
{
    BlkContext *ctx = blk_node_context(backup->source);
    BlkJob *job;

    if (backup->source == backup->target) {
        return blk_error(error, -EINVAL, "Source and target cannot be the same");
    }
    for (unsigned i = 0; (job = blk_job_nth(ctx, i)); i++) {
        const Backup *other = job->opaque;

        if (job->type == &backup_type && other->filter &&
            blk_node_skip_filters(other->args.target) == blk_node_skip_filters(backup->target)) {
            return blk_error(error, -EBUSY, "Node '%s' is busy: block device is in use by block job: backup",
                             blk_node_name(backup->target));
        }
    }
    if (blk_node_length(backup->source) != blk_node_length(backup->target)) {
        return blk_error(error, -EINVAL, "Source and target image have different sizes");
    }
    return 0;
}

static int check_bitmap(const BlkBackup *backup, GError **error)
{
    const char *sync = blk_backup_sync_names[backup->sync];

    if (by_bitmap(backup) && !backup->bitmap) {
        return blk_error(error, -EINVAL, "must provide a valid bitmap name for '%s' sync mode", sync);
    }
    if (backup->sync == BLK_BACKUP_INCREMENTAL && backup->bitmap_mode != BLK_BITMAP_ON_SUCCESS) {
        return blk_error(error, -EINVAL, "Bitmap sync mode must be '%s' when using sync mode '%s'",
                         blk_bitmap_mode_names[BLK_BITMAP_ON_SUCCESS], sync);
    }
    if (backup->bitmap && backup->sync == BLK_BACKUP_NONE) {
        return blk_error(error, -EINVAL, "sync mode '%s' does not produce meaningful bitmap outputs", sync);
    }
    if (backup->bitmap && !by_bitmap(backup) && backup->bitmap_mode == BLK_BITMAP_NEVER) {
        return blk_error(error, -EINVAL, "Bitmap sync mode '%s' has no meaningful effect when combined with sync mode '%s'",
                         blk_bitmap_mode_names[backup->bitmap_mode], sync);
    }
    return 0;
}

/* A filter above the source, which is not in the graph of guests yet. */
static BlkNode *co_open_filter(const BlkBackup *backup, BlkNode *target, GError **error)
{
    g_autoptr(JsonObject) options = json_object_new();

    json_object_set_string_member(options, "driver", "copy-before-write");
    json_object_set_string_member(options, "file", blk_node_name(backup->source));
    json_object_set_string_member(options, "target", blk_node_name(target));
    if (backup->filter_node_name) {
        json_object_set_string_member(options, "node-name", backup->filter_node_name);
    }
    BlkNode *filter = blk_co_open(blk_node_context(backup->source), options, error);
    if (!filter) {
        g_prefix_error(error, "Could not create node: ");
    }
    return filter;
}

/* From here on the bitmap is the job's. */
static int co_take_bitmap(Backup *b, GError **error)
{
    BlkDirtyBitmap *todo = blk_cbw_todo(b->filter)->bitmap;
    int ret = blk_bitmap_claim(b->args.bitmap, b->args.bitmap_mode == BLK_BITMAP_NEVER ? BLK_BITMAP_READ : BLK_BITMAP_CHANGE,
                               error);

    if (ret < 0) {
        return ret;
    }
    b->before = blk_bitmap_split(b->args.bitmap);
    if (by_bitmap(&b->args)) {
        blk_bitmap_clear(todo, 0, blk_node_length(b->filter));
        ret = blk_co_bitmap_merge(todo, b->before, error);
    }
    return ret;
}

static int co_begin(BlkJob *job, GError **error)
{
    Backup *b = job->opaque;
    int ret = 0;

    b->source = blk_co_job_hold(job, b->args.source, "backup", BLK_PERM_READ, BLK_PERM_ALL, error);
    if (!b->source) {
        return -EINVAL;
    }
    if (b->args.compress) {
        b->compress = blk_co_compress_target(b->args.target, error);
        if (!b->compress) {
            return -EINVAL;
        }
    }
    b->filter = co_open_filter(&b->args, b->compress ? b->compress : b->args.target, error);
    if (!b->filter) {
        return -EINVAL;
    }
    if (b->args.bitmap) {
        ret = co_take_bitmap(b, error);
    }
    return ret < 0 ? ret : blk_co_insert_above(b->args.source, b->filter, error);
}

static void copied_for_guest(uint64_t bytes, void *opaque)
{
    blk_job_progress_add(opaque, bytes);
}

BlkJob *blk_co_backup_new(const BlkBackup *backup, const BlkJobOptions *options, GError **error)
{
    BlkJob *job;
    Backup *b;

    if (check_target(backup, error) < 0 || check_bitmap(backup, error) < 0) {
        return NULL;
    }
    job = blk_job_new(blk_node_context(backup->source), &backup_type, options, error);
    if (!job) {
        return NULL;
    }
    b = job->opaque;
    b->args = *backup;
    if (co_begin(job, error) < 0) {
        blk_co_job_discard(job);
        return NULL;
    }
    b->args.filter_node_name = NULL;        /* the caller's */
    blk_job_progress_set_total(job, blk_bitmap_dirty_bytes(blk_cbw_todo(b->filter)->bitmap));
    blk_cbw_watch(b->filter, copied_for_guest, job);
    return job;
}
