/* SPDX-License-Identifier: MIT */
/*
 * backup.h - copies what a node holds at one moment to another one, while guests write on. See docs/backup.md.
 */
#ifndef BLKSTACK_JOBS_BACKUP_H
#define BLKSTACK_JOBS_BACKUP_H

#include <blkstack/driver.h>
#include <blkstack/job.h>

typedef enum BlkBackupSync {
    BLK_BACKUP_TOP,             /* what the source holds itself, not what its backing has */
    BLK_BACKUP_FULL,
    BLK_BACKUP_NONE,            /* only what guests overwrite, until the job is cancelled */
    BLK_BACKUP_INCREMENTAL,     /* what is dirty in the bitmap, which is clean then */
    BLK_BACKUP_BITMAP,          /* what is dirty in the bitmap */
} BlkBackupSync;
extern const char *const blk_backup_sync_names[];           /* in the order of the values; NULL ends them */

/* What becomes of the bitmap; beside that it has what is written while the job runs. */
typedef enum BlkBitmapMode {
    BLK_BITMAP_ON_SUCCESS,      /* clean if the job succeeds, else as it was */
    BLK_BITMAP_NEVER,           /* as it was */
    BLK_BITMAP_ALWAYS,          /* what was not copied is dirty */
} BlkBitmapMode;
extern const char *const blk_bitmap_mode_names[];

typedef struct BlkBackup {
    BlkNode *source, *target;
    BlkBackupSync sync;
    BlkDirtyBitmap *bitmap;             /* (nullable): of the source, loaded */
    BlkBitmapMode bitmap_mode;
    const char *filter_node_name;       /* (nullable): of the copy-before-write filter */
    unsigned workers;                   /* requests in flight */
    bool compress;                      /* what is copied is stored compressed */
} BlkBackup;

/**
 * blk_co_backup_new:
 * @backup: what it points to is the job's while it lasts; not kept itself
 *
 * Makes the job, and puts its filter above the source: the backup is of this moment, at which the source is drained, by the
 * caller. Context: coroutine; may yield. Returns: (transfer none): to be started, or cancelled; NULL with @error set, and
 * nothing has changed.
 */
BlkJob *blk_co_backup_new(const BlkBackup *backup, const BlkJobOptions *options, GError **error);

#endif
