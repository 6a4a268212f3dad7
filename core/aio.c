/* SPDX-License-Identifier: MIT */
/*
 * aio.c - file I/O for coroutines, on whichever engine the context has.
 *
 * What the page cache can serve is done at once (aio_inline.c), all else by the engine. Both do single operations; here
 * short ones are resumed, interrupted ones repeated, long ones split.
 */
#include "core/loop.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_OP_BYTES    ((uint64_t)1 << 30)
#define AGAIN_TRIES     100
#define AGAIN_PAUSE_NS  1000000
#define SECTOR          512

static int submit_and_wait(BlkContext *ctx, BlkAioRequest *req)
{
    req->co = blk_co_self();
    for (unsigned again = 0; again < AGAIN_TRIES; again++) {
        do {
            if (!blk_aio_co_try_inline(ctx, req)) {
                ctx->outstanding++;
                ctx->engine->submit(ctx->engine_state, req);
                blk_co_yield();
            }
        } while (req->result == -EINTR);

        if (req->result != -EAGAIN) {
            return req->result;
        }
        blk_co_sleep_ns(AGAIN_PAUSE_NS);
    }
    return -EAGAIN;
}

static bool valid_range(uint64_t offset, uint64_t bytes)
{
    return offset <= INT64_MAX && bytes <= INT64_MAX - offset;
}

/* With O_DIRECT the end of a file that is no multiple of a sector cannot be asked for a second time. */
static bool is_unaligned_end(int fd, uint64_t offset)
{
    struct stat st;

    return offset % SECTOR != 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size <= offset;
}

int blk_aio_co_preadv(BlkContext *ctx, BlkAioFile *file, uint64_t offset, uint64_t bytes, BlkIov iov)
{
    bool resumed = false;

    if (!valid_range(offset, bytes)) {
        return -EINVAL;
    }
    while (bytes > 0) {
        struct iovec vec[BLK_AIO_MAX_VECTORS];
        BlkAioRequest req = { .op = BLK_AIO_READ, .fd = file->fd, .file = file, .offset = offset, .vec = vec };
        size_t chunk;

        req.count = blk_iov_fill(iov, MIN(bytes, MAX_OP_BYTES), vec, G_N_ELEMENTS(vec), &chunk);
        req.bytes = chunk;

        int ret = submit_and_wait(ctx, &req);

        if (ret == -EINVAL && resumed && is_unaligned_end(file->fd, offset)) {
            ret = 0;
        }
        if (ret < 0) {
            return ret;
        }
        if (ret == 0) {
            blk_iov_zero(iov, bytes);
            return 0;
        }
        resumed = true;
        offset += (unsigned)ret;
        bytes -= (unsigned)ret;
        iov = blk_iov_advance(iov, (unsigned)ret);
    }
    return 0;
}

int blk_aio_co_pwritev(BlkContext *ctx, BlkAioFile *file, uint64_t offset, uint64_t bytes, BlkIov iov, bool dsync)
{
    bool sync_after = false;

    if (!valid_range(offset, bytes)) {
        return -EINVAL;
    }
    while (bytes > 0) {
        struct iovec vec[BLK_AIO_MAX_VECTORS];
        BlkAioRequest req = { .op = BLK_AIO_WRITE, .fd = file->fd, .file = file, .offset = offset, .vec = vec };
        size_t chunk;

        req.count = blk_iov_fill(iov, MIN(bytes, MAX_OP_BYTES), vec, G_N_ELEMENTS(vec), &chunk);
        req.bytes = chunk;
        req.dsync = dsync && !sync_after;

        int ret = submit_and_wait(ctx, &req);

        if (ret == -EOPNOTSUPP && req.dsync) {
            sync_after = true;
            continue;
        }
        if (ret <= 0) {
            return ret < 0 ? ret : -ENOSPC;
        }
        offset += (unsigned)ret;
        bytes -= (unsigned)ret;
        iov = blk_iov_advance(iov, (unsigned)ret);
    }
    return sync_after ? blk_aio_co_fdatasync(ctx, file->fd) : 0;
}

int blk_aio_co_fdatasync(BlkContext *ctx, int fd)
{
    BlkAioRequest req = { .op = BLK_AIO_FDATASYNC, .fd = fd };

    return submit_and_wait(ctx, &req);
}

int blk_aio_co_fallocate(BlkContext *ctx, int fd, int mode, uint64_t offset, uint64_t bytes)
{
    BlkAioRequest req = { .op = BLK_AIO_FALLOCATE, .fd = fd, .mode = mode, .offset = offset, .bytes = bytes };

    return valid_range(offset, bytes) ? submit_and_wait(ctx, &req) : -EINVAL;
}

int blk_aio_co_call(BlkContext *ctx, int (*fn)(void *arg), void *arg)
{
    return blk_co_pool_run(ctx->io_threads, fn, arg);
}
