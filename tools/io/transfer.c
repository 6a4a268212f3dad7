/* SPDX-License-Identifier: MIT */
/*
 * transfer.c - buffers of a command, and its requests.
 *
 * A command may ask for more than one request may carry: it is sent in pieces, one after the other.
 */
#include "io/io.h"

#define MISALIGN_BYTES 16

int io_buffer_init(IoBuffer *buffer, const IoSession *session, uint64_t bytes, int pattern)
{
    size_t spoil = session->misalign ? MISALIGN_BYTES : 0;

    buffer->allocated = blk_buffer_try_alloc(io_node(session), MAX(bytes, 1) + spoil);
    if (!buffer->allocated) {
        tool_error("no memory for a buffer of %" PRIu64 " bytes: use a shorter length", bytes);
        return -ENOMEM;
    }
    buffer->data = (uint8_t *)buffer->allocated + spoil;
    buffer->bytes = bytes;
    memset(buffer->data, pattern, bytes);
    return 0;
}

void io_buffer_clear(IoBuffer *buffer)
{
    if (buffer->allocated) {
        blk_buffer_free(buffer->allocated);
    }
    *buffer = (IoBuffer){ 0 };
}

int io_buffer_fill_from_file(IoBuffer *buffer, const char *filename)
{
    FILE *file = fopen(filename, "rb");
    size_t got;
    int err;

    if (!file) {
        err = errno;
        fprintf(stderr, "%s: %s\n", filename, g_strerror(err));
        return -err;
    }
    got = fread(buffer->data, 1, buffer->bytes, file);
    err = ferror(file) ? EIO : 0;
    fclose(file);
    if (err != 0) {
        fprintf(stderr, "%s: %s\n", filename, g_strerror(err));
        return -err;
    }
    if (got == 0 && buffer->bytes > 0) {
        fprintf(stderr, "%s: file is empty\n", filename);
        return -EINVAL;
    }
    for (size_t i = got; i < buffer->bytes; i++) {
        buffer->data[i] = buffer->data[i - got];
    }
    return 0;
}

static int check_range(const IoSession *session, uint64_t offset, uint64_t bytes)
{
    uint64_t length = blk_node_length(io_node(session));

    return offset <= length && bytes <= length - offset ? 0 : -EIO;
}

int io_co_read(const IoSession *session, uint64_t offset, uint64_t bytes, BlkIov iov)
{
    int ret = check_range(session, offset, bytes);

    for (uint64_t done = 0, n; ret == 0 && done < bytes; done += n) {
        n = MIN(bytes - done, BLK_MAX_REQUEST);
        ret = blk_co_preadv(io_node(session), offset + done, n, blk_iov_advance(iov, done), 0);
    }
    return ret;
}

static unsigned with_cache_flags(const IoSession *session, unsigned flags)
{
    return flags | (session->writethrough ? BLK_REQ_FUA : 0);
}

int io_co_write(const IoSession *session, uint64_t offset, uint64_t bytes, BlkIov iov, unsigned flags)
{
    int ret = check_range(session, offset, bytes);

    flags = with_cache_flags(session, flags);
    for (uint64_t done = 0, n; ret == 0 && done < bytes; done += n) {
        n = MIN(bytes - done, BLK_MAX_REQUEST);
        ret = blk_co_pwritev(io_node(session), offset + done, n, blk_iov_advance(iov, done), flags);
    }
    return ret;
}

int io_co_write_zeroes(const IoSession *session, uint64_t offset, uint64_t bytes, unsigned flags)
{
    int ret = check_range(session, offset, bytes);

    return ret < 0 ? ret : blk_co_pwrite_zeroes(io_node(session), offset, bytes, with_cache_flags(session, flags));
}

int io_co_discard(const IoSession *session, uint64_t offset, uint64_t bytes)
{
    int ret = check_range(session, offset, bytes);

    return ret < 0 ? ret : blk_co_discard(io_node(session), offset, bytes);
}
