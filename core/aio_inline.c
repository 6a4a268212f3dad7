/* SPDX-License-Identifier: MIT */
/*
 * aio_inline.c - reads and writes that are done on the spot, without the engine.
 *
 * Small ones that the page cache can serve: to copy some pages costs less than a turn of the loop, and far less than a
 * thread: the kernel hands buffered writes of some file systems (ext4) from the ring to threads of its own.
 *
 *     read     without leave to block. What misses the cache goes to the engine. After a miss some reads go there at
 *              once, more after each further miss in a row. To send those of many coroutines together would save system
 *              calls, but each coroutine would have to sleep, which costs more.
 *     write    only where the driver knows that it is but a copy, if the pages of which it is a part are cached. When there
 *              are too many changed pages it blocks all the same; then no write is done here for a while.
 *
 * Others get their turn after every INLINE_OPS of a coroutine.
 *
 * And those of a device (O_DIRECT), if nobody else waits for anything: then the loop would do nothing but sleep until the end,
 * and of a write the kernel itself hears sooner if who sent it waits.
 */
#include "core/loop.h"

#include <sys/uio.h>

enum {
    INLINE_READ_BYTES = 128 << 10,
    INLINE_WRITE_BYTES = 64 << 10,
    INLINE_OPS = 16,
    MAX_READ_REST = 63,                 /* reads that go to the engine after a miss */
    SLOW_WRITE_NS = 20000000,           /* more than the scheduler alone takes, as a rule */
    SLOW_WRITE_REST = 16,               /* so many times as long no write is done here */
};

static bool read_suits(const BlkAioRequest *req)
{
    BlkAioFile *file = req->file;

    if (!file->cached || req->bytes > INLINE_READ_BYTES) {
        return false;
    }
    if (file->reads_skipped < file->read_rest) {
        file->reads_skipped++;
        return false;
    }
    return true;
}

/* Need nothing be read of the block around @offset before a part of it is written? */
static bool block_is_there(const BlkAioFile *file, uint64_t offset)
{
    uint64_t in_block = offset & (file->copy_align - 1);
    uint8_t byte;
    struct iovec vec = { .iov_base = &byte, .iov_len = 1 };

    return in_block == 0 || preadv2(file->fd, &vec, 1, (off_t)(offset - in_block), RWF_NOWAIT) >= 0;
}

static bool write_suits(const BlkAioRequest *req)
{
    const BlkAioFile *file = req->file;

    return file->copy_align > 0 && !req->dsync && req->bytes <= INLINE_WRITE_BYTES &&
           block_is_there(file, req->offset) && block_is_there(file, req->offset + req->bytes);
}

static bool read_now(BlkAioRequest *req)
{
    BlkAioFile *file = req->file;
    ssize_t ret = preadv2(file->fd, req->vec, (int)req->count, (off_t)req->offset, RWF_NOWAIT);

    file->reads_skipped = 0;
    if (ret < 0) {
        file->read_rest = MIN(2 * file->read_rest + 1, MAX_READ_REST);
        return false;
    }
    file->read_rest = 0;
    req->result = (int)ret;
    return true;
}

static bool write_now(BlkAioRequest *req)
{
    BlkAioFile *file = req->file;
    uint64_t begin_ns = blk_clock_ns(), end_ns;
    ssize_t ret;

    if (begin_ns < file->no_copy_before_ns) {
        return false;
    }
    ret = pwritev(file->fd, req->vec, (int)req->count, (off_t)req->offset);
    req->result = ret < 0 ? -errno : (int)ret;
    end_ns = blk_clock_ns();
    if (end_ns - begin_ns > SLOW_WRITE_NS) {
        file->no_copy_before_ns = end_ns + SLOW_WRITE_REST * (end_ns - begin_ns);
    }
    return true;
}

/* Does nobody but the running coroutine have anything to wait for? Chores can wait. */
static bool nobody_else_waits(const BlkContext *ctx)
{
    return blk_context_is_alone(ctx) && ctx->polling == 0 && !blk_timer_heap_first(&ctx->timers);
}

static void wait_for_device(BlkAioRequest *req)
{
    ssize_t ret = req->op == BLK_AIO_READ
                  ? preadv(req->fd, req->vec, (int)req->count, (off_t)req->offset)
                  : pwritev2(req->fd, req->vec, (int)req->count, (off_t)req->offset, req->dsync ? RWF_DSYNC : 0);

    req->result = ret < 0 ? -errno : (int)ret;
}

bool blk_aio_co_try_inline(BlkContext *ctx, BlkAioRequest *req)
{
    bool read = req->op == BLK_AIO_READ;

    if (req->file && !req->file->cached && nobody_else_waits(ctx)) {
        wait_for_device(req);
        return true;
    }
    if (req->file == NULL || !(read ? read_suits(req) : write_suits(req))) {
        return false;
    }
    if (ctx->inline_ops >= INLINE_OPS) {
        blk_co_reschedule();
    }
    ctx->inline_ops++;
    return read ? read_now(req) : write_now(req);
}
