/* SPDX-License-Identifier: MIT */
/*
 * convert_stream.c - convert to standard output, which may be a pipe.
 */
#include "img/convert_stream.h"

#include <signal.h>
#include <unistd.h>

typedef struct Chunk {
    const char *bytes;
    size_t count;
} Chunk;

static int write_call(void *arg)
{
    Chunk *chunk = arg;

    while (chunk->count > 0) {
        ssize_t done = write(STDOUT_FILENO, chunk->bytes, chunk->count);

        if (done < 0 && errno != EINTR) {
            return -errno;
        }
        done = MAX(done, 0);
        chunk->bytes += done;
        chunk->count -= (size_t)done;
    }
    return 0;
}

static int co_write(const void *buf, uint64_t bytes, void *opaque, GError **error)
{
    Chunk chunk = { .bytes = buf, .count = bytes };
    int ret = blk_aio_co_call(opaque, write_call, &chunk);

    return ret < 0 ? blk_error_errno(error, ret, "error while writing to standard output") : 0;
}

int convert_co_stream(BlkContext *ctx, const char *format, JsonObject *options, BlkSource *source, bool compressed,
                      unsigned compression, bool sparse, GError **error)
{
    BlkStream out = {
        .co_write = co_write, .opaque = ctx, .compressed = compressed, .compression = compression, .sparse = sparse,
    };

    if (isatty(STDOUT_FILENO)) {
        return blk_error(error, -ENOTTY, "An image is not written to a terminal: send standard output to a file or a pipe");
    }
    return blk_co_stream(ctx, format, options, source, &out, error);
}
