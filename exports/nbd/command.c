/* SPDX-License-Identifier: MIT */
/*
 * command.c - does what a request asks for.
 *
 * What is wrong with a request itself is found by one table and one function, before anything is done.
 */
#include "exports/nbd/server.h"

#include <blkstack/driver.h>

enum {
    SMALL_READ = 32 << 10,              /* up to here it costs less to read zeroes than to ask for them */
    CACHE_PIECE = 256 << 10,
};

typedef int CommandFn(NbdRequest *r, BlkNode *node);

typedef struct Command {
    CommandFn *co_do;           /* 0 or a negative errno. Reads and block status add to the reply, others need not */
    unsigned flags;             /* that it takes, beside FUA and those of all modes */
    bool writes;
    bool ranged;                /* offset and length are those of a part of the disk */
    uint32_t past_end;          /* error for a range that leaves the disk */
} Command;

/* ---- reading ---- */

static int reply_simple_read(NbdRequest *r)
{
    size_t head = blk_nbd_put_simple_reply(blk_nbd_reply_head(r), NBD_SUCCESS, r->header.cookie);

    blk_nbd_reply_add(r, head, r->buffer, r->header.length);
    return 0;
}

/* @at: in the request. */
static void add_chunk(NbdRequest *r, bool done, bool hole, uint64_t at, uint32_t bytes)
{
    NbdMode mode = r->connection->mode;
    uint8_t *head = blk_nbd_reply_head(r);
    uint64_t offset = r->header.offset + at;

    if (hole) {
        blk_nbd_reply_add(r, blk_nbd_put_hole_chunk(head, mode, done, &r->header, offset, bytes), NULL, 0);
    } else {
        blk_nbd_reply_add(r, blk_nbd_put_data_chunk(head, mode, done, &r->header, offset, bytes), r->buffer + at,
                          bytes);
    }
}

static int co_read_whole(NbdRequest *r, BlkNode *node)
{
    uint64_t bytes = r->header.length;
    int ret = blk_co_pread(node, r->header.offset, bytes, r->buffer, 0);

    if (ret < 0) {
        return ret;
    }
    if (r->connection->mode == NBD_MODE_SIMPLE) {
        return reply_simple_read(r);
    }
    add_chunk(r, true, bytes <= SMALL_READ && blk_buffer_is_zero(r->buffer, bytes), 0, (uint32_t)bytes);
    return 0;
}

/* How far from @at in the request there are only zeroes, or only data. Who cannot tell says data. */
static uint64_t co_extent(NbdRequest *r, BlkNode *node, uint64_t at, bool *hole)
{
    uint64_t end = r->header.length;
    BlkStatus status;
    uint64_t here = at;

    *hole = false;
    while (here < end) {
        int ret = blk_co_block_status_above(node, NULL, r->header.offset + here, end - here, &status);
        bool zero = ret == 0 && !(status.flags & BLK_STATUS_DATA);

        if (ret < 0 || status.bytes == 0) {
            return end;
        }
        if (here > at && zero != *hole) {
            return here;
        }
        *hole = zero;
        here += status.bytes;
    }
    return end;
}

static int co_read_fragments(NbdRequest *r, BlkNode *node)
{
    for (uint64_t at = 0, end; at < r->header.length; at = end) {
        bool last_chunk = r->chunks + 1 == NBD_MAX_CHUNKS;
        bool hole = false;
        int ret = 0;

        end = last_chunk ? r->header.length : co_extent(r, node, at, &hole);
        if (!hole) {
            ret = blk_co_pread(node, r->header.offset + at, end - at, r->buffer + at, 0);
        }
        if (ret < 0) {
            return ret;
        }
        add_chunk(r, end == r->header.length, hole, at, (uint32_t)(end - at));
    }
    return 0;
}

static int co_read(NbdRequest *r, BlkNode *node)
{
    bool fragments = r->connection->mode != NBD_MODE_SIMPLE && !(r->header.flags & NBD_CMD_FLAG_DF) &&
                     r->header.length > SMALL_READ;
    int ret = blk_nbd_request_reserve(r, r->header.length);

    if (ret < 0) {
        return ret;
    }
    return fragments ? co_read_fragments(r, node) : co_read_whole(r, node);
}

/* Through a copy-on-read filter this brings the data here; else it warms the caches. */
static int co_cache(NbdRequest *r, BlkNode *node)
{
    int ret = blk_nbd_request_reserve(r, MIN(r->header.length, CACHE_PIECE));

    for (uint64_t at = 0; at < r->header.length && ret == 0 && !r->connection->stopping; at += CACHE_PIECE) {
        ret = blk_co_pread(node, r->header.offset + at, MIN(r->header.length - at, CACHE_PIECE), r->buffer, 0);
    }
    return ret;
}

/* ---- writing ---- */

static unsigned write_flags(const NbdRequest *r)
{
    bool fua = r->header.flags & NBD_CMD_FLAG_FUA || r->connection->export->writethrough;

    return fua ? BLK_REQ_FUA : 0;
}

static int co_write(NbdRequest *r, BlkNode *node)
{
    return blk_co_pwrite(node, r->header.offset, r->header.length, r->buffer, write_flags(r));
}

static int co_write_zeroes(NbdRequest *r, BlkNode *node)
{
    unsigned flags = write_flags(r);

    flags |= r->header.flags & NBD_CMD_FLAG_NO_HOLE ? 0 : BLK_REQ_UNMAP;
    flags |= r->header.flags & NBD_CMD_FLAG_FAST_ZERO ? BLK_REQ_NO_FALLBACK : 0;
    return blk_co_pwrite_zeroes(node, r->header.offset, r->header.length, flags);
}

static int co_trim(NbdRequest *r, BlkNode *node)
{
    int ret = blk_co_discard(node, r->header.offset, r->header.length);

    return ret == 0 && write_flags(r) & BLK_REQ_FUA ? blk_co_flush(node) : ret;
}

static int co_flush(NbdRequest *r, BlkNode *node)
{
    return blk_co_flush(node);
}

static int co_block_status(NbdRequest *r, BlkNode *node)
{
    return blk_nbd_co_block_status(r);
}

/* ---- what a request may be ---- */

static const Command commands[] = {
    [NBD_CMD_READ]         = { co_read, NBD_CMD_FLAG_DF, false, true, NBD_EINVAL },
    [NBD_CMD_WRITE]        = { co_write, NBD_CMD_FLAG_PAYLOAD_LEN, true, true, NBD_ENOSPC },
    [NBD_CMD_FLUSH]        = { co_flush, 0, false, false, 0 },
    [NBD_CMD_TRIM]         = { co_trim, 0, true, true, NBD_EINVAL },
    [NBD_CMD_CACHE]        = { co_cache, 0, false, true, NBD_EINVAL },
    [NBD_CMD_WRITE_ZEROES] = { co_write_zeroes, NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO, true, true, NBD_ENOSPC },
    [NBD_CMD_BLOCK_STATUS] = { co_block_status, NBD_CMD_FLAG_REQ_ONE | NBD_CMD_FLAG_PAYLOAD_LEN, false, true,
                               NBD_EINVAL },
};

static uint32_t flaw(const char **message, uint32_t error, const char *text)
{
    *message = text;
    return error;
}

/* Returns: the error that the request deserves as it is, or 0. */
static uint32_t check(const NbdRequest *r, const BlkNode *node, const Command **command, const char **message)
{
    const NbdHeader *h = &r->header;
    const NbdConnection *c = r->connection;
    uint64_t length = blk_node_length(node);
    unsigned flags = h->flags & ~(unsigned)NBD_CMD_FLAG_FUA;

    if (h->type >= G_N_ELEMENTS(commands) || !commands[h->type].co_do) {
        return flaw(message, NBD_EINVAL, "the server does not know this command");
    }
    *command = &commands[h->type];
    if (!blk_node_active(node)) {
        return flaw(message, NBD_EPERM, "the export is inactive");
    }
    if (flags & ~(*command)->flags || (flags & NBD_CMD_FLAG_DF && c->mode == NBD_MODE_SIMPLE) ||
        (c->mode != NBD_MODE_EXTENDED && flags & NBD_CMD_FLAG_PAYLOAD_LEN)) {
        return flaw(message, NBD_EINVAL, "the command does not take one of its flags");
    }
    if (r->error) {
        return flaw(message, r->error, r->error == NBD_ENOMEM ? "no memory for the payload"
                                                              : "the payload is longer than 32 MiB");
    }
    if ((*command)->writes && !c->export->base.writable) {
        return flaw(message, NBD_EPERM, "the export is read-only");
    }
    if (h->type == NBD_CMD_WRITE && c->mode == NBD_MODE_EXTENDED && !(flags & NBD_CMD_FLAG_PAYLOAD_LEN)) {
        return flaw(message, NBD_EINVAL, "a write without the flag that it has a payload");
    }
    if (h->type == NBD_CMD_BLOCK_STATUS && (h->length == 0 || c->contexts == 0)) {
        return flaw(message, NBD_EINVAL, "block status of nothing, or without a metadata context");
    }
    if (h->type == NBD_CMD_READ && h->length > NBD_MAX_PAYLOAD) {
        return flaw(message, NBD_EINVAL, "the read is longer than 32 MiB");
    }
    if ((*command)->ranged && !(flags & NBD_CMD_FLAG_PAYLOAD_LEN && h->type == NBD_CMD_BLOCK_STATUS) &&
        (h->offset > length || h->length > length - h->offset)) {
        return flaw(message, (*command)->past_end, "the request leaves the disk");
    }
    return NBD_SUCCESS;
}

/* ---- doing it ---- */

size_t blk_nbd_buffer_bytes(const NbdConnection *c, const NbdHeader *header)
{
    switch (header->type) {
    case NBD_CMD_READ:
        return MIN(header->length, NBD_MAX_PAYLOAD);
    case NBD_CMD_CACHE:
        return MIN(header->length, CACHE_PIECE);
    case NBD_CMD_BLOCK_STATUS:
        return MAX(blk_nbd_block_status_bytes(c), MIN(header->payload, NBD_MAX_PAYLOAD));
    default:
        return MIN(header->payload, NBD_MAX_PAYLOAD);
    }
}

static void reply_success(NbdRequest *r)
{
    NbdMode mode = r->connection->mode;
    uint8_t *head = blk_nbd_reply_head(r);
    bool simple = mode == NBD_MODE_SIMPLE || (mode == NBD_MODE_STRUCTURED && r->header.type != NBD_CMD_READ);

    blk_nbd_reply_add(r, simple ? blk_nbd_put_simple_reply(head, NBD_SUCCESS, r->header.cookie)
                                : blk_nbd_put_chunk(head, mode, true, NBD_REPLY_TYPE_NONE, &r->header, 0), NULL, 0);
}

int blk_nbd_co_execute(void *request)
{
    NbdRequest *r = request;
    BlkNode *node = blk_export_node(&r->connection->export->base);
    const Command *command;
    const char *message = NULL;
    uint32_t error = check(r, node, &command, &message);

    if (error == NBD_SUCCESS && (r->header.length > 0 || !command->ranged)) {
        int ret = command->co_do(r, node);

        if (ret < 0) {
            blk_export_tell_error(&r->connection->export->base, command->writes || r->header.type == NBD_CMD_FLUSH, ret);
        }
        error = blk_nbd_error(ret);
    }
    if (error != NBD_SUCCESS) {
        blk_nbd_reply_error(r, error, message);
    } else if (r->chunks == 0) {
        reply_success(r);
    }
    blk_nbd_reply_queue(r);
    return 0;
}
