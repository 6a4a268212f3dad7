/* SPDX-License-Identifier: MIT */
/*
 * status.c - NBD_CMD_BLOCK_STATUS: what lies where, one chunk for each metadata context.
 *
 *     request's buffer:   | extents of the first context | extents of the second | ...
 *
 * An answer may end early: the client asks on from there.
 */
#include "exports/nbd/server.h"

enum {
    MAX_EXTENTS = 2048,         /* of one context */
    MAX_STEPS = 4096,           /* questions to the node for one context */
    STEPS_OF_A_TURN = 64,       /* then others run */
    EXTENT_ROOM = MAX_EXTENTS * 16,
};

typedef struct Extents {
    NbdMode mode;
    uint8_t *at;                /* where the next one is written */
    unsigned count, max;
    uint64_t bytes;             /* of the last one, which is not written yet; 0: there is none */
    uint32_t status;
} Extents;

static void write_last(Extents *e)
{
    if (e->bytes > 0) {
        e->at = blk_nbd_put_extent(e->at, e->mode, e->bytes, e->status);
        e->count++;
    }
}

/* false: there is no room for it. */
static bool add_extent(Extents *e, uint64_t bytes, uint32_t status)
{
    if (e->bytes > 0 && e->status == status) {
        e->bytes += bytes;
        return true;
    }
    if (e->bytes > 0 && e->count + 1 == e->max) {
        return false;
    }
    write_last(e);
    e->bytes = bytes;
    e->status = status;
    return true;
}

/* Each finds out about the blocks at @offset, at most *bytes: (out) *bytes: for how many it holds; *answer. */
typedef int AskFn(BlkNode *node, uint64_t offset, uint64_t *bytes, uint32_t *answer);

/* Space that an image has given to data may be a hole of its file. */
static int co_ask_allocation(BlkNode *node, uint64_t offset, uint64_t *bytes, uint32_t *answer)
{
    BlkStatus status;
    int ret = blk_co_block_status_with_holes(node, offset, *bytes, &status);
    bool data = status.flags & BLK_STATUS_DATA, zero = !data || status.flags & BLK_STATUS_ZERO;

    *bytes = status.bytes;
    *answer = (zero ? NBD_STATE_ZERO : 0) | (data ? 0 : NBD_STATE_HOLE);
    return ret;
}

/* What lies behind the end of a shorter backing file are zeroes of that file. */
static int co_ask_depth(BlkNode *node, uint64_t offset, uint64_t *bytes, uint32_t *answer)
{
    *answer = 0;
    for (uint32_t depth = 1; node; depth++, node = blk_node_backing(node)) {
        BlkStatus status = { .flags = BLK_STATUS_ALLOCATED, .bytes = *bytes };
        int ret = offset < blk_node_length(node) ? blk_co_block_status(node, offset, *bytes, &status) : 0;

        if (ret < 0) {
            return ret;
        }
        *bytes = status.bytes;
        if (status.flags & BLK_STATUS_ALLOCATED) {
            *answer = depth;
            return 0;
        }
    }
    return 0;
}

static int co_add_blocks(Extents *e, BlkNode *node, uint64_t offset, uint64_t bytes, AskFn *co_ask)
{
    uint64_t end = offset + bytes, at = offset;

    for (unsigned steps = 1; at < end && steps <= MAX_STEPS; steps++) {
        uint64_t now = end - at;
        uint32_t answer;
        int ret = co_ask(node, at, &now, &answer);

        if (ret < 0 || now == 0) {
            return at > offset ? 0 : MIN(ret, -EIO);
        }
        if (!add_extent(e, now, answer)) {
            return 0;
        }
        at += now;
        if (steps % STEPS_OF_A_TURN == 0) {
            blk_co_reschedule();
        }
    }
    return 0;
}

/* A bitmap of a shorter backing file ends before the disk does. */
static int add_dirty(Extents *e, const BlkDirtyBitmap *bitmap, uint64_t offset, uint64_t bytes)
{
    uint64_t end = offset + bytes, at = offset, start, dirty;

    while (at < end) {
        if (!blk_bitmap_next(bitmap, at, &start, &dirty) || start >= end) {
            add_extent(e, end - at, 0);
            return 0;
        }
        dirty = MIN(dirty, end - start);
        if ((start > at && !add_extent(e, start - at, 0)) || !add_extent(e, dirty, 1)) {
            return 0;
        }
        at = start + dirty;
    }
    return 0;
}

static int co_add_context(Extents *e, const NbdExport *export, unsigned context, uint64_t offset, uint64_t bytes)
{
    const BlkExport *base = &export->base;
    BlkDirtyBitmap *bitmap;

    switch (context) {
    case NBD_CONTEXT_ALLOCATION:
        return co_add_blocks(e, blk_export_node(base), offset, bytes, co_ask_allocation);
    case NBD_CONTEXT_DEPTH:
        return co_add_blocks(e, blk_export_node(base), offset, bytes, co_ask_depth);
    default:
        bitmap = blk_co_export_bitmap(base, context - NBD_CONTEXT_BITMAPS);
        return bitmap ? add_dirty(e, bitmap, offset, bytes) : -EIO;
    }
}

/* 64 bits, what the header's length would be; then 32 bits for each context that is wanted. */
static int parse_payload(const NbdRequest *r, uint64_t *bytes, NbdContexts *contexts)
{
    NbdContexts wanted = 0;

    if (r->header.payload < 8 || r->header.payload % 4 != 0 || r->header.payload > 8 + 4 * NBD_MAX_CONTEXTS) {
        return -EINVAL;
    }
    *bytes = blk_get_be64(r->buffer);
    for (uint64_t at = 8; at < r->header.payload; at += 4) {
        uint32_t context = blk_get_be32(r->buffer + at);

        if (context >= NBD_MAX_CONTEXTS || !blk_nbd_has_context(*contexts, context)) {
            return -EINVAL;
        }
        wanted |= UINT32_C(1) << context;
    }
    *contexts = wanted;
    return wanted ? 0 : -EINVAL;
}

size_t blk_nbd_block_status_bytes(const NbdConnection *c)
{
    return (size_t)__builtin_popcount(c->contexts) * EXTENT_ROOM;
}

int blk_nbd_co_block_status(NbdRequest *r)
{
    const NbdConnection *c = r->connection;
    uint64_t length = blk_node_length(blk_export_node(&c->export->base));
    uint64_t offset = r->header.offset, bytes = r->header.length;
    NbdContexts contexts = c->contexts;
    int ret = r->header.payload > 0 ? parse_payload(r, &bytes, &contexts) : 0;

    if (ret < 0 || bytes == 0 || offset > length || bytes > length - offset) {
        return -EINVAL;
    }
    ret = blk_nbd_request_reserve(r, blk_nbd_block_status_bytes(c));
    for (unsigned i = 0; contexts && ret == 0; i++, contexts >>= 1) {
        uint8_t *begin = r->buffer + (size_t)r->chunks * EXTENT_ROOM;
        Extents e = { .mode = c->mode, .at = begin, .max = r->header.flags & NBD_CMD_FLAG_REQ_ONE ? 1 : MAX_EXTENTS };
        size_t head;

        if (!(contexts & 1)) {
            continue;
        }
        ret = co_add_context(&e, c->export, i, offset, bytes);
        write_last(&e);
        head = blk_nbd_put_status_chunk(blk_nbd_reply_head(r), c->mode, contexts == 1, &r->header, i, e.count);
        blk_nbd_reply_add(r, head, begin, (size_t)(e.at - begin));
    }
    return ret;
}
