/* SPDX-License-Identifier: MIT */
/*
 * file_create.c - lengths and beginnings of regular files of the host: growing with space reserved, and new files. See
 * file_create.h.
 */
#include "drivers/file_create.h"

#include "drivers/file.h"

#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { FILL_BYTES = 1 << 20 };

static const char *const prealloc_values[] = { "off", "falloc", "full", NULL };
static const BlkPrealloc prealloc_modes[] = { BLK_PREALLOC_OFF, BLK_PREALLOC_FALLOC, BLK_PREALLOC_FULL };

const BlkOption blk_file_create_options[] = {
    { "size", BLK_OPTION_SIZE, "length of the file" },
    { "preallocation", BLK_OPTION_ENUM, "reserve the space", .default_text = "off", .values = prealloc_values },
    { "nocow", BLK_OPTION_BOOL, "turn off copy-on-write of the file system (btrfs)", .default_text = "off" },
    { "extent_size_hint", BLK_OPTION_SIZE, "in what pieces the file system takes space (XFS); 0: as it likes",
      .default_text = "1M", .max = UINT32_MAX },
    { NULL },
};

/* ---- length ---- */

typedef struct FileTruncate {
    int fd;
    uint64_t length;
} FileTruncate;

static int file_truncate_call(void *arg)
{
    FileTruncate *t = arg;

    return ftruncate(t->fd, t->length) < 0 ? -errno : 0;
}

int blk_file_co_ftruncate(BlkContext *ctx, int fd, uint64_t length)
{
    FileTruncate t = { .fd = fd, .length = length };

    return blk_aio_co_call(ctx, file_truncate_call, &t);
}

static uint64_t block_end(uint64_t offset)
{
    return (offset + BLK_FILE_MAX_DIRECT_ALIGN - 1) / BLK_FILE_MAX_DIRECT_ALIGN * BLK_FILE_MAX_DIRECT_ALIGN;
}

/* Lets the file of @from bytes grow to @to, filled with zeroes: whole blocks, as O_DIRECT needs them. */
static int file_co_fill(BlkContext *ctx, int fd, uint64_t from, uint64_t to)
{
    BlkAioFile file = { .fd = fd };
    void *zeroes = blk_buffer_try_alloc(NULL, FILL_BYTES);
    int ret = zeroes ? 0 : -ENOMEM;

    if (zeroes) {
        memset(zeroes, 0, FILL_BYTES);
    }
    uint64_t end = block_end(to);
    for (uint64_t at = block_end(from); ret == 0 && at < end; at += FILL_BYTES) {
        struct iovec vec = { zeroes, MIN(FILL_BYTES, end - at) };
        ret = blk_aio_co_pwritev(ctx, &file, at, vec.iov_len, (BlkIov) { .vec = &vec, .count = 1 }, false);
    }
    blk_buffer_free(zeroes);
    return ret < 0 ? ret : blk_file_co_ftruncate(ctx, fd, to);
}

int blk_file_co_grow(BlkContext *ctx, int fd, uint64_t from, uint64_t to, BlkPrealloc prealloc, GError **error)
{
    int ret = 0;

    if (prealloc == BLK_PREALLOC_METADATA) {
        return blk_error(error, -ENOTSUP, "Unsupported preallocation mode 'metadata'");
    }
    if (prealloc == BLK_PREALLOC_FALLOC && to > from) {
        ret = blk_aio_co_fallocate(ctx, fd, 0, from, to - from);
    } else if (prealloc == BLK_PREALLOC_FULL) {
        ret = file_co_fill(ctx, fd, from, to);
        if (ret == 0) {
            ret = blk_aio_co_fdatasync(ctx, fd);
        }
    } else {
        ret = blk_file_co_ftruncate(ctx, fd, to);
    }
    if (ret < 0) {
        blk_file_co_ftruncate(ctx, fd, from);
        return blk_error_errno(error, ret, prealloc == BLK_PREALLOC_OFF ? "Failed to resize the file" :
                               "Could not preallocate data for the new file");
    }
    return 0;
}

/* ---- new files ---- */

/* Files of btrfs that are rewritten in place are better off without its copy-on-write; elsewhere it does not matter. */
static void file_set_nocow(int fd)
{
    int attributes;

    if (ioctl(fd, FS_IOC_GETFLAGS, &attributes) == 0) {
        attributes |= FS_NOCOW_FL;
        if (ioctl(fd, FS_IOC_SETFLAGS, &attributes) < 0) {
            return;
        }
    }
}

/* So that a file which grows in small pieces is not scattered; elsewhere than on XFS it does not matter. */
static void file_set_extent_size_hint(int fd, uint32_t bytes)
{
    struct fsxattr attributes;

    if (ioctl(fd, FS_IOC_FSGETXATTR, &attributes) == 0) {
        attributes.fsx_xflags |= FS_XFLAG_EXTSIZE;
        attributes.fsx_extsize = bytes;
        if (ioctl(fd, FS_IOC_FSSETXATTR, &attributes) < 0) {
            return;
        }
    }
}

int blk_file_co_format(BlkContext *ctx, int fd, const char *filename, uint64_t length, const BlkOptions *options,
                          GError **error)
{
    BlkFileLock lock;

    int ret = blk_file_lock_init(&lock, fd, BLK_FILE_LOCKING_AUTO, error);
    if (ret == 0) {
        /* Nobody else may look at it: what is there is thrown away. */
        ret = blk_file_lock_set(&lock, BLK_PERM_WRITE | BLK_PERM_RESIZE, 0, filename, error);
    }
    if (ret < 0) {
        return ret;
    }
    ret = blk_file_co_ftruncate(ctx, fd, 0);
    if (ret < 0) {
        return blk_error_errno(error, ret, "Could not clear '%s'", filename);
    }
    if (blk_options_bool(options, "nocow")) {
        file_set_nocow(fd);
    }
    if (blk_options_uint(options, "extent_size_hint") > 0) {
        file_set_extent_size_hint(fd, (uint32_t)blk_options_uint(options, "extent_size_hint"));
    }
    return blk_file_co_grow(ctx, fd, 0, length, prealloc_modes[blk_options_enum(options, "preallocation")], error);
}
