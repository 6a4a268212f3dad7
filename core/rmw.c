/* SPDX-License-Identifier: MIT */
/*
 * rmw.c - padding: reads and writes that do not fit the node's alignment.
 *
 *     read:   |..head..|== the user's iov ==|..tail..|     one read, head and tail to a buffer
 *     write:  the same, but head and tail are read first, then all is written in one piece
 *
 * A write that needs padding holds the whole aligned range exclusively from before the first read until it is written,
 * so that no other write gets lost in between. Writes that fit hold their range shared.
 *
 * The end of a node counts as aligned, except for protocols: below them nobody would take an odd length, and what a
 * protocol is asked to read beyond its end is zeroes.
 */
#include "core/request.h"

#include <string.h>

typedef struct Padding {
    uint64_t start, end;        /* aligned */
    uint64_t head, tail;        /* bytes before and after what was asked for */
} Padding;

static Padding padding_for(const BlkNode *node, uint64_t offset, uint64_t bytes, uint32_t align)
{
    uint64_t end = offset + bytes;
    Padding pad = { .start = blk_align_down(offset, align), .end = blk_align_up(end, align) };

    if (node->driver->kind != BLK_PROTOCOL) {
        pad.end = MIN(pad.end, MAX(end, node->length));
    }
    pad.head = offset - pad.start;
    pad.tail = pad.end - end;
    return pad;
}

/* ---- reads ---- */

static int read_padded(BlkNode *node, const Padding *pad, uint64_t bytes, BlkIov iov, unsigned flags)
{
    uint8_t *buffer = blk_buffer_try_alloc(node, pad->head + pad->tail);
    BlkIovList list;
    int ret;

    if (!buffer) {
        return -ENOMEM;
    }
    ret = blk_iov_list_init(&list, iov.count + 2);
    if (ret == 0) {
        blk_iov_list_add(&list, buffer, pad->head);
        blk_iov_list_add_view(&list, iov, bytes);
        blk_iov_list_add(&list, buffer + pad->head, pad->tail);
        ret = blk_submit_preadv(node, pad->start, pad->end - pad->start, blk_iov_list_view(&list), flags);
        blk_iov_list_clear(&list);
    }
    blk_buffer_free(buffer);
    return ret;
}

int blk_request_preadv(BlkNode *node, uint64_t offset, uint64_t bytes, BlkIov iov, unsigned flags)
{
    uint64_t inside = offset < node->length ? MIN(bytes, node->length - offset) : 0;
    Padding pad;

    if (inside < bytes) {
        blk_iov_zero(blk_iov_advance(iov, inside), bytes - inside);
    }
    if (inside == 0) {
        return 0;
    }
    pad = padding_for(node, offset, inside, node->limits.read_align);
    if (pad.head == 0 && pad.tail == 0) {
        return blk_submit_preadv(node, offset, inside, iov, flags);
    }
    return read_padded(node, &pad, inside, iov, flags);
}

/* ---- writes ---- */

static int read_edge(BlkNode *node, uint64_t offset, uint64_t bytes, uint8_t *buffer, BlkEvent before, BlkEvent after)
{
    struct iovec vec = { buffer, bytes };
    int ret;

    if (bytes == 0) {
        return 0;
    }
    blk_co_event(node, before);
    ret = blk_request_preadv(node, offset, bytes, (BlkIov) { &vec, 1, 0 }, 0);
    if (ret == 0) {
        blk_co_event(node, after);
    }
    return ret;
}

static int write_with_edges(BlkNode *node, const Padding *pad, uint64_t bytes, BlkIov iov, unsigned flags,
                            uint8_t *buffer)
{
    BlkIovList list;
    int ret = read_edge(node, pad->start, pad->head, buffer, BLK_EVENT_pwritev_rmw_head,
                        BLK_EVENT_pwritev_rmw_after_head);

    if (ret == 0) {
        ret = read_edge(node, pad->end - pad->tail, pad->tail, buffer + pad->head, BLK_EVENT_pwritev_rmw_tail,
                        BLK_EVENT_pwritev_rmw_after_tail);
    }
    if (ret == 0) {
        ret = blk_iov_list_init(&list, iov.count + 2);
    }
    if (ret < 0) {
        return ret;
    }
    blk_iov_list_add(&list, buffer, pad->head);
    blk_iov_list_add_view(&list, iov, bytes);
    blk_iov_list_add(&list, buffer + pad->head, pad->tail);
    ret = blk_submit_pwritev(node, pad->start, pad->end - pad->start, blk_iov_list_view(&list), flags);
    blk_iov_list_clear(&list);
    return ret;
}

static int write_padded(BlkNode *node, const Padding *pad, uint64_t bytes, BlkIov iov, unsigned flags)
{
    uint8_t *buffer = blk_buffer_try_alloc(node, pad->head + pad->tail);
    int ret = buffer ? write_with_edges(node, pad, bytes, iov, flags, buffer) : -ENOMEM;

    blk_buffer_free(buffer);
    return ret;
}

/* The length may change while the lock is waited for, and with it what is aligned. */
static Padding lock_for_write(BlkNode *node, BlkRangeHold *hold, uint64_t offset, uint64_t bytes, unsigned flags)
{
    Padding pad, now = padding_for(node, offset, bytes, node->limits.write_align);

    for (;;) {
        bool exclusive = now.head > 0 || now.tail > 0 || (flags & BLK_REQ_SERIALISING);

        pad = now;
        blk_co_range_lock(&node->core->locks, hold, pad.start, pad.end - pad.start, exclusive);
        now = padding_for(node, offset, bytes, node->limits.write_align);
        if (now.start == pad.start && now.end == pad.end) {
            return pad;
        }
        blk_range_unlock(&node->core->locks, hold);
    }
}

int blk_request_pwritev(BlkNode *node, uint64_t offset, uint64_t bytes, BlkIov iov, unsigned flags)
{
    BlkRangeHold hold;
    Padding pad = lock_for_write(node, &hold, offset, bytes, flags);
    int ret;

    if (offset + bytes > node->length && !blk_node_may_grow(node)) {
        ret = -EINVAL;      /* it was cut off while this waited */
    } else if (pad.head == 0 && pad.tail == 0) {
        ret = blk_submit_pwritev(node, offset, bytes, iov, flags);
    } else {
        ret = write_padded(node, &pad, bytes, iov, flags);
    }
    blk_range_unlock(&node->core->locks, &hold);
    return blk_request_finish_write(node, flags, ret);
}
