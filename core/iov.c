/* SPDX-License-Identifier: MIT */
/*
 * iov.c - views of scattered buffers, and buffers that suit O_DIRECT.
 */
#include <blkstack/driver.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_MEM_ALIGN ((size_t)4096)
#define MIN_MEM_ALIGN     ((size_t)512)

/* Takes the next piece of at most @bytes off the front of @iov. Returns: its length, not 0. */
static size_t next_piece(BlkIov *iov, size_t bytes, char **base)
{
    while (iov->count > 0 && iov->skip >= iov->vec->iov_len) {
        iov->skip -= iov->vec->iov_len;
        iov->vec++;
        iov->count--;
    }
    g_assert(iov->count > 0);

    size_t piece = MIN(bytes, iov->vec->iov_len - iov->skip);

    *base = (char *)iov->vec->iov_base + iov->skip;
    iov->skip += piece;
    return piece;
}

void blk_iov_to_buf(BlkIov iov, void *buf, size_t bytes)
{
    char *dst = buf;

    while (bytes > 0) {
        char *base;
        size_t piece = next_piece(&iov, bytes, &base);

        memcpy(dst, base, piece);
        dst += piece;
        bytes -= piece;
    }
}

void blk_iov_from_buf(BlkIov iov, const void *buf, size_t bytes)
{
    const char *src = buf;

    while (bytes > 0) {
        char *base;
        size_t piece = next_piece(&iov, bytes, &base);

        memcpy(base, src, piece);
        src += piece;
        bytes -= piece;
    }
}

void blk_iov_zero(BlkIov iov, size_t bytes)
{
    while (bytes > 0) {
        char *base;
        size_t piece = next_piece(&iov, bytes, &base);

        memset(base, 0, piece);
        bytes -= piece;
    }
}

bool blk_iov_is_zero(BlkIov iov, size_t bytes)
{
    while (bytes > 0) {
        char *base;
        size_t piece = next_piece(&iov, bytes, &base);

        if (!blk_buffer_is_zero(base, piece)) {
            return false;
        }
        bytes -= piece;
    }
    return true;
}

bool blk_buffer_is_zero(const void *buf, size_t bytes)
{
    static const char zeroes[64];
    const char *bytes_at = buf;

    if (bytes <= sizeof(zeroes)) {
        return memcmp(buf, zeroes, bytes) == 0;
    }
    /* Most data shows at one of these places; otherwise the buffer is compared with itself, shifted. */
    return bytes_at[bytes / 2] == 0 && bytes_at[bytes - 1] == 0 && memcmp(buf, zeroes, sizeof(zeroes)) == 0 &&
           memcmp(bytes_at, bytes_at + sizeof(zeroes), bytes - sizeof(zeroes)) == 0;
}

void *blk_iov_contiguous(BlkIov iov, size_t bytes)
{
    char *base;

    if (bytes == 0) {
        return iov.count > 0 ? iov.vec->iov_base : NULL;
    }
    return next_piece(&iov, bytes, &base) == bytes ? base : NULL;
}

unsigned blk_iov_fill(BlkIov iov, size_t bytes, struct iovec *out, unsigned max, size_t *done)
{
    unsigned n = 0;

    *done = 0;
    while (*done < bytes && n < max) {
        char *base;
        size_t piece = next_piece(&iov, bytes - *done, &base);

        out[n++] = (struct iovec){ .iov_base = base, .iov_len = piece };
        *done += piece;
    }
    return n;
}

void *blk_buffer_try_alloc(const BlkNode *node, size_t bytes)
{
    /* A device gets a page in one piece that does not lie across two. */
    size_t least = node && bytes < DEFAULT_MEM_ALIGN ? MIN_MEM_ALIGN : DEFAULT_MEM_ALIGN;
    size_t align = node ? MAX(node->limits.mem_align, least) : least;
    void *buffer;

    return posix_memalign(&buffer, align, MAX(bytes, 1)) == 0 ? buffer : NULL;
}

void blk_buffer_free(void *buffer)
{
    free(buffer);
}
