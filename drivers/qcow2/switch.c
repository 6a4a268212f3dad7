/* SPDX-License-Identifier: MIT */
/*
 * switch.c - the header goes from one state to another: other tables, another length, other properties.
 *
 *     q->header, stable --write, flush--> the new state, stable: the caller makes it q->header at once
 *                              |
 *                        write fails: q->failed --recover--> q->header, stable
 *
 * After a failed write nobody knows what the file says, so nothing that relies on it may be written before the header
 * says again what q->header does. That is tried at once, and again by whoever wants to change something.
 *
 * One write of the header at a time: marks_lock, which marks.c takes too. A new header is made of a copy that is taken with
 * it held: whatever allocates may let the refcount table grow, so that an older copy would bring back the old one.
 */
#include "drivers/qcow2/qcow2.h"

/* With marks_lock held. */
static int co_recover_locked(BlkNode *node)
{
    Qcow2 *q = node->opaque;

    if (q->failed == 0) {
        return 0;
    }
    int ret = qcow2_co_update_header(node->file->node, &q->header, NULL);
    if (ret == 0) {
        ret = blk_co_flush(node->file->node);
    }
    if (ret == 0) {
        q->failed = 0;
    }
    return ret;
}

int qcow2_co_recover(BlkNode *node)
{
    Qcow2 *q = node->opaque;

    if (q->failed == 0) {
        return 0;
    }
    blk_co_mutex_lock(&q->marks_lock);
    int ret = co_recover_locked(node);
    blk_co_mutex_unlock(&q->marks_lock);
    return ret;
}

/* Ends a write of the header, with marks_lock held. @ret: of the write. */
static int co_finish(BlkNode *node, int ret)
{
    Qcow2 *q = node->opaque;

    if (ret == 0) {
        ret = blk_co_flush(node->file->node);
    }
    if (ret < 0) {
        q->failed = ret;
        co_recover_locked(node);
    }
    return ret;
}

int qcow2_co_switch(BlkNode *node, uint64_t offset, const void *field, size_t bytes)
{
    Qcow2 *q = node->opaque;

    blk_co_mutex_lock(&q->marks_lock);
    int ret = co_recover_locked(node);
    if (ret == 0) {
        ret = co_finish(node, blk_co_pwrite(node->file->node, offset, bytes, field, 0));
    }
    blk_co_mutex_unlock(&q->marks_lock);
    return ret;
}

int qcow2_co_switch_begin(BlkNode *node, Qcow2Header *header, GError **error)
{
    Qcow2 *q = node->opaque;

    blk_co_mutex_lock(&q->marks_lock);
    int ret = co_recover_locked(node);
    if (ret < 0) {
        blk_co_mutex_unlock(&q->marks_lock);
        return blk_error_errno(error, ret, "could not write the header");
    }
    *header = q->header;
    return 0;
}

int qcow2_co_switch_end(BlkNode *node, const Qcow2Header *header, GError **error)
{
    Qcow2 *q = node->opaque;
    int ret = qcow2_header_check_fits(header, error);

    if (ret == 0) {
        ret = co_finish(node, qcow2_co_update_header(node->file->node, header, NULL));
        if (ret == 0) {
            q->header = *header;
        } else {
            blk_error_errno(error, ret, "could not write the header");
        }
    }
    blk_co_mutex_unlock(&q->marks_lock);
    return ret;
}
