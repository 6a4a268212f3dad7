/* SPDX-License-Identifier: MIT */
/*
 * file_create.h - lengths and beginnings of regular files of the host, by descriptor.
 */
#ifndef BLKSTACK_DRIVERS_FILE_CREATE_H
#define BLKSTACK_DRIVERS_FILE_CREATE_H

#include <blkstack/driver.h>

/* O_DIRECT needs no larger alignment than this, in bytes. */
enum { BLK_FILE_MAX_DIRECT_ALIGN = 4096 };

extern const BlkOption blk_file_create_options[];

/* Sets the length in bytes, in a thread. Context: coroutine; may yield. Returns: 0, or a negative errno. */
int blk_file_co_ftruncate(BlkContext *ctx, int fd, uint64_t length);

/**
 * blk_file_co_grow:
 * @from: its length in bytes
 *
 * Lets the regular file grow to @to bytes, with the space that @prealloc reserves; after an error it has its old length.
 * Context: coroutine; may yield. Returns: 0; -ENOTSUP: the mode; errors of the system, such as -ENOSPC.
 */
int blk_file_co_grow(BlkContext *ctx, int fd, uint64_t from, uint64_t to, BlkPrealloc prealloc, GError **error);

/**
 * blk_file_co_format:
 * @options: parsed by blk_file_create_options
 *
 * Makes the open file an empty one of @length bytes, unless somebody else uses it. Context: coroutine; may yield.
 * Returns: 0; -EAGAIN: it is in use; errors of the system.
 */
int blk_file_co_format(BlkContext *ctx, int fd, const char *filename, uint64_t length, const BlkOptions *options,
                       GError **error);

#endif
