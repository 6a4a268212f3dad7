/* SPDX-License-Identifier: MIT */
/*
 * file.h - locks that keep processes from using one image file in ways that contradict each other.
 *
 * Byte 100 + i of the file carries a shared lock while somebody holds permission bit i, byte 200 + i while somebody does
 * not share it. The bytes need not exist. Open-file-description locks: they belong to the descriptor and go with it.
 */
#ifndef BLKSTACK_DRIVERS_FILE_H
#define BLKSTACK_DRIVERS_FILE_H

#include <blkstack/driver.h>

typedef enum BlkFileLocking { BLK_FILE_LOCKING_AUTO, BLK_FILE_LOCKING_ON, BLK_FILE_LOCKING_OFF } BlkFileLocking;

typedef struct BlkFileLock {
    int fd;
    bool enabled;
    unsigned perm, unshared;    /* bits whose bytes are locked */
} BlkFileLock;

/**
 * blk_file_lock_init:
 * @fd: open for reading at least; stays the caller's
 *
 * Holds nothing yet. BLK_FILE_LOCKING_AUTO does without locks where the system has none.
 * Returns: 0; -ENOTSUP for BLK_FILE_LOCKING_ON where the system has none.
 */
int blk_file_lock_init(BlkFileLock *lock, int fd, BlkFileLocking locking, GError **error);

/**
 * blk_file_lock_set:
 * @perm: BlkPerm bits that are needed from now on; @shared: those that others may hold meanwhile
 *
 * Changes all or nothing; giving up bits never fails.
 * Returns: 0; -EAGAIN when another user of the file is in the way; other errors of fcntl().
 */
int blk_file_lock_set(BlkFileLock *lock, unsigned perm, unsigned shared, const char *filename, GError **error);

/* Gives up all locks. To be called before the descriptor is closed: locks go with the last reference to the open file, and the
 * kernel may keep one for a moment after the end of an asynchronous request. */
void blk_file_lock_release(BlkFileLock *lock);

/* The same locks are held through another descriptor of the file, @fd, from now on; @lock's own has none, and may be closed then.
 * Returns: 0; an error of fcntl(), and nothing has changed. */
int blk_file_lock_move(BlkFileLock *lock, int fd);

#endif
