/* SPDX-License-Identifier: MIT */
/*
 * submit.c - the last stage before a driver: memory that it can take, pieces that are small enough.
 */
#include "core/request.h"

#include <string.h>

#define BOUNCE_BYTES ((uint64_t)1 << 20)

/* ---- lists of vectors ---- */

int blk_iov_list_init(BlkIovList *list, unsigned room)
{
    list->count = 0;
    list->room = room;
    list->vec = room <= G_N_ELEMENTS(list->local) ? list->local : g_try_new(struct iovec, room);
    return list->vec ? 0 : -ENOMEM;
}

void blk_iov_list_clear(BlkIovList *list)
{
    if (list->vec != list->local) {
        g_free(list->vec);
    }
    list->vec = NULL;
}

void blk_iov_list_add(BlkIovList *list, void *base, size_t bytes)
{
    if (bytes > 0) {
        g_assert(list->count < list->room);
        list->vec[list->count++] = (struct iovec) { base, bytes };
    }
}

void blk_iov_list_add_view(BlkIovList *list, BlkIov iov, size_t bytes)
{
    size_t done;

    list->count += blk_iov_fill(iov, bytes, list->vec + list->count, list->room - list->count, &done);
    g_assert(done == bytes);
}

/* ---- to the driver ---- */

static int driver_preadv(BlkNode *node, BlkRequest *req)
{
    if (node->driver->co_preadv) {
        return node->driver->co_preadv(node, req);
    }
    if (node->core->engine) {
        return blk_engine_co_preadv(node, req);
    }
    return blk_driver_passes(node) ? blk_co_pass_through_read(node, req) : -ENOTSUP;
}

static int driver_pwritev(BlkNode *node, BlkRequest *req)
{
    if (node->driver->co_pwritev) {
        return node->driver->co_pwritev(node, req);
    }
    if (node->core->engine) {
        return blk_engine_co_pwritev(node, req);
    }
    return blk_driver_passes(node) ? blk_co_pass_through_write(node, req) : -ENOTSUP;
}

typedef int SubmitFn(BlkNode *node, BlkRequest *req);

static uint64_t piece_bytes(const BlkNode *node, uint32_t align)
{
    uint32_t max = node->limits.max_transfer;

    return max ? MAX(blk_align_down(max, align), align) : BLK_MAX_LENGTH;
}

static int submit_pieces(BlkNode *node, BlkRequest all, uint64_t piece, SubmitFn *submit)
{
    for (uint64_t done = 0; done < all.bytes; ) {
        BlkRequest req = {
            .offset = all.offset + done,
            .bytes = MIN(piece, all.bytes - done),
            .iov = blk_iov_advance(all.iov, done),
            .flags = all.flags,
        };
        int ret = submit(node, &req);

        if (ret < 0) {
            return ret;
        }
        done += MIN(piece, all.bytes - done);
    }
    return 0;
}

/* ---- memory that the driver cannot take ---- */

/* Only drivers that touch the hardware mind: those without children. */
static bool memory_suits(const BlkNode *node, BlkIov iov, uint64_t bytes)
{
    uintptr_t mask = node->limits.mem_align - 1;
    size_t skip = iov.skip;

    if (mask == 0 || node->driver->kind != BLK_PROTOCOL) {
        return true;
    }
    for (unsigned i = 0; i < iov.count && bytes > 0; i++) {
        size_t length = iov.vec[i].iov_len;

        if (skip >= length) {
            skip -= length;
            continue;
        }
        length = MIN(length - skip, bytes);
        if ((((uintptr_t)iov.vec[i].iov_base + skip) | length) & mask) {
            return false;
        }
        bytes -= length;
        skip = 0;
    }
    return true;
}

static int submit_bounced(BlkNode *node, BlkRequest all, uint64_t piece, bool write)
{
    uint64_t step = MIN(piece, MAX(BOUNCE_BYTES, MAX(node->limits.read_align, node->limits.write_align)));
    void *buffer = blk_buffer_try_alloc(node, MIN(step, all.bytes));
    int ret = buffer ? 0 : -ENOMEM;

    for (uint64_t done = 0; ret == 0 && done < all.bytes; done += step) {
        struct iovec vec = { buffer, MIN(step, all.bytes - done) };
        BlkIov user = blk_iov_advance(all.iov, done);
        BlkRequest req = { all.offset + done, vec.iov_len, { &vec, 1, 0 }, all.flags };

        if (write) {
            blk_iov_to_buf(user, buffer, vec.iov_len);
            ret = driver_pwritev(node, &req);
        } else {
            ret = driver_preadv(node, &req);
            if (ret == 0) {
                blk_iov_from_buf(user, buffer, vec.iov_len);
            }
        }
    }
    blk_buffer_free(buffer);
    return ret;
}

int blk_submit_preadv(BlkNode *node, uint64_t offset, uint64_t bytes, BlkIov iov, unsigned flags)
{
    BlkRequest req = { offset, bytes, iov, flags };
    uint64_t piece = piece_bytes(node, node->limits.read_align);

    return memory_suits(node, iov, bytes) ? submit_pieces(node, req, piece, driver_preadv)
                                          : submit_bounced(node, req, piece, false);
}

/* Writing this at the start of a detected image would make it look like one of another format. */
static bool forges_format(BlkNode *node, uint64_t offset, uint64_t bytes, BlkIov iov)
{
    uint8_t head[512];
    size_t n = MIN(bytes, sizeof(head));
    const BlkDriver *driver;
    int score;

    if (!node->core->guard_head || offset > 0) {
        return false;
    }
    blk_iov_to_buf(iov, head, n);
    driver = blk_driver_probe(node->ctx, head, n, blk_node_filename(node), &score);
    if (!driver || driver == node->driver) {
        return false;
    }
    if (!node->core->guard_told) {
        node->core->guard_told = true;
        blk_node_message(node, "a write that would turn the disk into a %s image was refused, since its format '%s' was only "
                         "detected; give the format '%s' to allow such writes", driver->name, node->driver->name,
                         node->driver->name);
    }
    return true;
}

int blk_submit_pwritev(BlkNode *node, uint64_t offset, uint64_t bytes, BlkIov iov, unsigned flags)
{
    BlkRequest req = { offset, bytes, iov, blk_request_driver_flags(node, flags) };
    uint64_t piece = piece_bytes(node, node->limits.write_align);
    int ret;

    if (forges_format(node, offset, bytes, iov)) {
        return -EPERM;
    }
    if (node->driver->co_event) {
        node->driver->co_event(node, BLK_EVENT_pwritev);
    }
    ret = memory_suits(node, iov, bytes) ? submit_pieces(node, req, piece, driver_pwritev)
                                         : submit_bounced(node, req, piece, true);
    if (node->driver->co_event) {
        node->driver->co_event(node, BLK_EVENT_pwritev_done);
    }
    if (ret == 0) {
        blk_node_grown(node, offset + bytes);
    }
    return ret;
}
