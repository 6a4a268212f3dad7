/* SPDX-License-Identifier: MIT */
/*
 * cmd_backup.c - blockdev-backup, which is an action of transactions, too: several that begin at one moment.
 */
#include "daemon/transaction.h"

#include "jobs/backup.h"

enum { MAX_WORKERS = 64 };

static const BlkOption backup_args[] = {
    { "job-id", BLK_OPTION_STRING, "of the new job; without it the device's name" },
    { "device", BLK_OPTION_STRING, "name of the node that is copied", .required = true },
    { "target", BLK_OPTION_STRING, "name of the node to which it is copied", .required = true },
    { "sync", BLK_OPTION_ENUM, "what is copied", NULL, blk_backup_sync_names, .required = true },
    { "bitmap", BLK_OPTION_STRING, "of the device: which parts changed since the last backup" },
    { "bitmap-mode", BLK_OPTION_ENUM, "what becomes of the bitmap", NULL, blk_bitmap_mode_names },
    { "compress", BLK_OPTION_BOOL, "what is copied is stored compressed", "off" },
    { "speed", BLK_OPTION_UINT, "bytes a second; 0: no limit", "0" },
    { "on-source-error", BLK_OPTION_ENUM, "after an error of the device", "report", blk_on_error_names },
    { "on-target-error", BLK_OPTION_ENUM, "after an error of the target", "report", blk_on_error_names },
    { "auto-finalize", BLK_OPTION_BOOL, "it takes effect by itself", "on" },
    { "auto-dismiss", BLK_OPTION_BOOL, "it is forgotten when it ends", "on" },
    { "filter-node-name", BLK_OPTION_STRING, "of the filter above the device" },
    { "x-perf.use-copy-range", BLK_OPTION_BOOL, "accepted, and not needed", "off" },
    { "x-perf.max-workers", BLK_OPTION_UINT, "requests in flight", "8" },
    { "x-perf.max-chunk", BLK_OPTION_SIZE, "accepted: requests are short anyway", "0" },
    { NULL },
};

static const char *const device_key[] = { "device", NULL };

typedef struct BackupStep {
    BlkJob *job;
} BackupStep;

static BlkNode *find_node(const DaemonStep *step, const char *key, GError **error)
{
    const char *name = blk_options_string(step->args, key);

    return daemon_find_node(step->daemon, name, name, error);
}

/* What the image says of the bitmap is not true from here on, should the program crash. */
static int backup_co_begin(DaemonStep *step, GError **error)
{
    const char *name = blk_options_string(step->args, "bitmap");
    BlkNode *node = name ? find_node(step, "device", NULL) : NULL;
    BlkDirtyBitmap *bitmap = node ? blk_bitmap_find(node, name) : NULL;

    return bitmap && blk_bitmap_check(bitmap, BLK_BITMAP_CHANGE, NULL) == 0 ? blk_co_bitmap_touch(bitmap, error) : 0;
}

static int find_bitmap(const DaemonStep *step, BlkBackup *backup, GError **error)
{
    const char *name = blk_options_string(step->args, "bitmap");
    bool has_mode = blk_options_has(step->args, "bitmap-mode");

    if (!name) {
        return has_mode ? blk_error(error, -EINVAL, "Cannot specify bitmap sync mode without a bitmap") : 0;
    }
    backup->bitmap = blk_bitmap_find(backup->source, name);
    if (!backup->bitmap) {
        return blk_error(error, -ENOENT, "Bitmap '%s' could not be found", name);
    }
    if (!has_mode && backup->sync != BLK_BACKUP_INCREMENTAL) {
        return blk_error(error, -EINVAL, "Bitmap sync mode must be given when providing a bitmap");
    }
    backup->bitmap_mode = has_mode ? blk_options_enum(step->args, "bitmap-mode") : BLK_BITMAP_ON_SUCCESS;
    return blk_bitmap_check(backup->bitmap, BLK_BITMAP_CHANGE, error);
}

/* Each needs a buffer, so there are not as many as a client might want. */
static int find_workers(const BlkOptions *args, unsigned *workers, GError **error)
{
    uint64_t wanted = blk_options_uint(args, "x-perf.max-workers");

    *workers = (unsigned)MIN(wanted, MAX_WORKERS);
    return wanted >= 1 && wanted <= INT32_MAX ? 0 : blk_error(error, -EINVAL, "max-workers must be between 1 and %d", INT32_MAX);
}

static int backup_co_prepare(DaemonStep *step, GError **error)
{
    const BlkOptions *args = step->args;
    BackupStep *s = step->state;
    BlkBackup backup = {
        .source = find_node(step, "device", error),
        .sync = blk_options_enum(args, "sync"),
        .compress = blk_options_bool(args, "compress"),
        .filter_node_name = blk_options_string(args, "filter-node-name"),
    };
    const BlkJobOptions options = {
        .id = blk_options_has(args, "job-id") ? blk_options_string(args, "job-id") : blk_options_string(args, "device"),
        .speed = blk_options_uint(args, "speed"),
        .auto_finalize = blk_options_bool(args, "auto-finalize"),
        .auto_dismiss = blk_options_bool(args, "auto-dismiss"),
        .on_source_error = blk_options_enum(args, "on-source-error"),
        .on_target_error = blk_options_enum(args, "on-target-error"),
        .txn = step->txn,
    };

    backup.target = backup.source ? find_node(step, "target", error) : NULL;
    if (!backup.target) {
        return -ENOENT;
    }
    int ret = find_workers(args, &backup.workers, error);
    ret = ret < 0 ? ret : find_bitmap(step, &backup, error);
    if (ret == 0) {
        s->job = blk_co_backup_new(&backup, &options, error);
        ret = s->job ? 0 : -EINVAL;
    }
    return ret;
}

static void backup_commit(DaemonStep *step)
{
    blk_job_start(((BackupStep *)step->state)->job);
}

static void backup_co_abort(DaemonStep *step)
{
    blk_co_job_cancel(((BackupStep *)step->state)->job, true, NULL);
}

const DaemonAction daemon_backup_actions[] = {
    {
        .name = "blockdev-backup",
        .args = backup_args,
        .nodes = device_key,
        .state_size = sizeof(BackupStep),
        .has_job = true,
        .co_begin = backup_co_begin,
        .co_prepare = backup_co_prepare,
        .commit = backup_commit,
        .co_abort = backup_co_abort,
    },
    { NULL },
};

static int co_blockdev_backup(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    return daemon_co_run_action(d, &daemon_backup_actions[0], args, error);
}

const DaemonCommand daemon_backup_commands[] = {
    { "blockdev-backup", "copies what a node holds now to another node", backup_args, co_blockdev_backup },
    { NULL },
};
