/* SPDX-License-Identifier: MIT */
/*
 * file_lock.c - image locks on bytes of the file; see file.h for the layout.
 *
 * All locks taken are shared ones, so taking them never waits and never fails because of another user. Conflicts are found
 * afterwards by asking whether an exclusive lock on the opposite byte would be granted. Two users that come at the same
 * moment may therefore both be refused, but never both be let in.
 *
 * Limitations: advisory; programs that do not follow the convention are not held up.
 */
#include "drivers/file.h"

#include <fcntl.h>

enum { LOCK_BASE_PERM = 100, LOCK_BASE_UNSHARED = 200, LOCK_BITS = 4 };

static const char *const perm_names[LOCK_BITS] = { "consistent read", "write", "write unchanged", "resize" };

static int lock_fcntl(int fd, int command, short type, unsigned byte, struct flock *out)
{
    *out = (struct flock) { .l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };
    return fcntl(fd, command, out) < 0 ? -errno : 0;
}

int blk_file_lock_init(BlkFileLock *lock, int fd, BlkFileLocking locking, GError **error)
{
    struct flock probe;

    *lock = (BlkFileLock) { .fd = fd, .enabled = locking != BLK_FILE_LOCKING_OFF };
    if (!lock->enabled) {
        return 0;
    }
    int ret = lock_fcntl(fd, F_OFD_GETLK, F_RDLCK, LOCK_BASE_PERM, &probe);
    if (ret == -EINVAL || ret == -ENOSYS || ret == -EOPNOTSUPP) {
        lock->enabled = false;
        if (locking == BLK_FILE_LOCKING_ON) {
            return blk_error(error, -ENOTSUP, "The file system has no locks for open files (use locking=off)");
        }
    }
    return 0;
}

static void unlock_bits(int fd, unsigned base, unsigned bits)
{
    struct flock unlock;

    for (unsigned i = 0; i < LOCK_BITS; i++) {
        if (bits & (1u << i)) {
            lock_fcntl(fd, F_OFD_SETLK, F_UNLCK, base + i, &unlock);
        }
    }
}

/* Locks the bytes of @bits; after an error those of *done are locked. */
static int lock_bits(int fd, unsigned base, unsigned bits, unsigned *done)
{
    struct flock lock;

    *done = 0;
    for (unsigned i = 0; i < LOCK_BITS; i++) {
        if (bits & (1u << i)) {
            int ret = lock_fcntl(fd, F_OFD_SETLK, F_RDLCK, base + i, &lock);
            if (ret < 0) {
                return ret;
            }
            *done |= 1u << i;
        }
    }
    return 0;
}

/* Does somebody else hold a byte of @bits? *bit is the first. */
static int find_conflict(int fd, unsigned base, unsigned bits, unsigned *bit)
{
    struct flock probe;

    for (unsigned i = 0; i < LOCK_BITS; i++) {
        if (bits & (1u << i)) {
            int ret = lock_fcntl(fd, F_OFD_GETLK, F_WRLCK, base + i, &probe);
            if (ret < 0) {
                return ret;
            }
            if (probe.l_type != F_UNLCK) {
                *bit = i;
                return -EAGAIN;
            }
        }
    }
    return 0;
}

static int check_conflicts(int fd, unsigned perm, unsigned unshared, const char *filename, GError **error)
{
    const char *how = "";
    unsigned bit = 0;

    int ret = find_conflict(fd, LOCK_BASE_UNSHARED, perm, &bit);
    if (ret == 0) {
        how = "shared ";
        ret = find_conflict(fd, LOCK_BASE_PERM, unshared, &bit);
    }
    if (ret == -EAGAIN) {
        return blk_error(error, ret, "Failed to get %s\"%s\" lock\nIs another process using the image [%s]?", how,
                         perm_names[bit], filename);
    }
    if (ret < 0) {
        return blk_error_errno(error, ret, "Failed to ask for the locks of '%s'", filename);
    }
    return 0;
}

int blk_file_lock_set(BlkFileLock *lock, unsigned perm, unsigned shared, const char *filename, GError **error)
{
    unsigned unshared = BLK_PERM_ALL & ~shared;
    unsigned new_perm = perm & ~lock->perm, new_unshared = unshared & ~lock->unshared;
    unsigned locked_perm = 0, locked_unshared = 0;

    if (!lock->enabled) {
        return 0;
    }
    int ret = lock_bits(lock->fd, LOCK_BASE_PERM, new_perm, &locked_perm);
    if (ret == 0) {
        ret = lock_bits(lock->fd, LOCK_BASE_UNSHARED, new_unshared, &locked_unshared);
    }
    if (ret < 0) {
        blk_error_errno(error, ret, "Failed to lock '%s'", filename);
    } else {
        ret = check_conflicts(lock->fd, new_perm, new_unshared, filename, error);
    }
    if (ret < 0) {
        unlock_bits(lock->fd, LOCK_BASE_PERM, locked_perm);
        unlock_bits(lock->fd, LOCK_BASE_UNSHARED, locked_unshared);
        return ret;
    }
    unlock_bits(lock->fd, LOCK_BASE_PERM, lock->perm & ~perm);
    unlock_bits(lock->fd, LOCK_BASE_UNSHARED, lock->unshared & ~unshared);
    lock->perm = perm & BLK_PERM_ALL;
    lock->unshared = unshared;
    return 0;
}

static void unlock_all(int fd)
{
    unlock_bits(fd, LOCK_BASE_PERM, BLK_PERM_ALL);
    unlock_bits(fd, LOCK_BASE_UNSHARED, BLK_PERM_ALL);
}

void blk_file_lock_release(BlkFileLock *lock)
{
    if (lock->enabled) {
        unlock_all(lock->fd);
    }
    lock->perm = lock->unshared = 0;
}

int blk_file_lock_move(BlkFileLock *lock, int fd)
{
    unsigned done;

    if (lock->enabled) {
        int ret = lock_bits(fd, LOCK_BASE_PERM, lock->perm, &done);

        ret = ret < 0 ? ret : lock_bits(fd, LOCK_BASE_UNSHARED, lock->unshared, &done);
        if (ret < 0) {
            unlock_all(fd);
            return ret;
        }
        unlock_all(lock->fd);
    }
    lock->fd = fd;
    return 0;
}
