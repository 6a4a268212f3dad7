/* SPDX-License-Identifier: MIT */
/*
 * copy_before_write.c - filter "copy-before-write": what is to be overwritten is copied to a target first.
 *
 *     guests ──> copy-before-write ──file──> node       a guest's change waits until its range was copied
 *                        └────────target──> target      holds what the node held when the filter came
 *
 * What is still to be copied is a bitmap, in granules of at least 64 KiB, and a lock on ranges (core/copy_todo.h). A guest copies
 * the granules that it touches within its own request, so a drain of this node waits for that. A backup job copies the
 * rest (jobs/backup.c), and readers of the point in time (snapshot_access.c) read the copy where there is one, else the node:
 * holding the range shared, so that no guest changes it meanwhile.
 *
 * When a copy fails, either the guest's change fails, or (on-cbw-error=break-snapshot) the point in time is lost: nothing is
 * copied from then on, and its readers get an error. With cbw-timeout a guest that waited so long for its copy is treated
 * as if that had failed; the copy itself goes on.
 *
 * Limitations: the node must not get shorter; what it grows by is no part of the point in time. A flush is the node's alone:
 * whoever needs the copy to be stable flushes the target.
 */
#include "filters/copy_before_write.h"

#include "drivers/drivers.h"

#include "core/poll.h"
#include "core/timer.h"

enum { MIN_STEP = 64 << 10, MAX_STEP = 2 << 20 };

typedef struct CbwState {
    BlkChild *target;
    BlkCopyTodo todo;
    BlkDirtyBitmap *access;     /* what can be read of the point in time */
    uint64_t step;              /* granularity of both: bytes */
    bool break_snapshot;
    uint64_t timeout_ns;        /* 0: none */
    int broken;                 /* negative errno: the point in time is lost */
    void (*copied)(uint64_t bytes, void *opaque);       /* (nullable) */
    void *opaque;
} CbwState;

static const char *const on_error_names[] = { "break-guest-write", "break-snapshot", NULL };

static const BlkOption cbw_options[] = {
    { "file", BLK_OPTION_NODE, "the node that is written to", .required = true },
    { "target", BLK_OPTION_NODE, "where what is overwritten is copied to", .required = true },
    { "bitmap.node", BLK_OPTION_STRING, "name of the node that has the bitmap" },
    { "bitmap.name", BLK_OPTION_STRING, "only what is dirty in this bitmap now is copied, and can be read" },
    { "on-cbw-error", BLK_OPTION_ENUM, "when a copy fails: the guest's write fails, or the snapshot is lost",
      "break-guest-write", on_error_names },
    { "cbw-timeout", BLK_OPTION_UINT, "seconds after which a copy counts as failed; 0: never", "0", .max = UINT32_MAX },
    { NULL },
};

/* ---- opening ---- */

static BlkDirtyBitmap *add_bitmap(BlkNode *node, uint64_t granularity, GError **error)
{
    BlkDirtyBitmap *bitmap = blk_bitmap_add(node, NULL, granularity, false, error);

    if (bitmap) {
        blk_bitmap_enable(bitmap, false);
    }
    return bitmap;
}

/* What the option "bitmap" names, or all, is to be copied. */
static int cbw_co_fill(BlkNode *node, const BlkOptions *options, GError **error)
{
    CbwState *s = node->opaque;
    const char *node_name = blk_options_string(options, "bitmap.node"), *name = blk_options_string(options, "bitmap.name");

    if (!node_name && !name) {
        blk_bitmap_set(s->todo.bitmap, 0, node->length);
        blk_bitmap_set(s->access, 0, node->length);
        return 0;
    }
    if (!node_name || !name) {
        return blk_error(error, -EINVAL, "Parameter 'bitmap.%s' is missing", node_name ? "name" : "node");
    }
    BlkNode *owner = blk_node_find(node->ctx, node_name);
    if (!owner) {
        return blk_error(error, -ENOENT, "Node '%s' not found", node_name);
    }
    BlkDirtyBitmap *bitmap = blk_bitmap_find_usable(owner, name, error);
    int ret = bitmap ? blk_co_bitmap_merge(s->todo.bitmap, bitmap, error) : -ENOENT;
    return ret < 0 ? ret : blk_co_bitmap_merge(s->access, s->todo.bitmap, error);
}

static int cbw_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    CbwState *s = node->opaque;
    BlkChild *file = blk_co_open_child(node, options, "file", BLK_ROLE_FILTERED, error);

    if (!file || !(s->target = blk_co_open_child(node, options, "target", BLK_ROLE_COPY, error))) {
        return -EINVAL;
    }
    const BlkLimits *limits = &s->target->node->limits;
    node->length = file->node->length;
    if (s->target->node->length < node->length) {
        return blk_error(error, -EINVAL, "copy-before-write: the target '%s' is shorter than '%s'",
                         blk_node_name(s->target->node), blk_node_name(file->node));
    }
    s->step = MAX(MIN_STEP, MAX(MIN(limits->cluster_size, MAX_STEP), limits->write_align));
    s->break_snapshot = blk_options_enum(options, "on-cbw-error") == 1;
    s->timeout_ns = blk_options_uint(options, "cbw-timeout") * UINT64_C(1000000000);
    s->todo.bitmap = add_bitmap(node, s->step, error);
    s->access = s->todo.bitmap ? add_bitmap(node, s->step, error) : NULL;
    return s->access ? cbw_co_fill(node, options, error) : -EFBIG;
}

/* Without users it asks nothing of the node, so that it can be opened above one in use, and inserted. The target may read
 * from the node that guests write to, so it lets others write. */
static void cbw_child_perm(BlkNode *node, BlkChild *child, unsigned perm, unsigned shared,
                           unsigned *child_perm, unsigned *child_shared)
{
    if (child->role == BLK_ROLE_COPY) {
        *child_perm = BLK_PERM_READ | BLK_PERM_WRITE;
        *child_shared = BLK_PERM_ALL & ~(unsigned)BLK_PERM_RESIZE;
    } else {
        *child_perm = perm ? perm | BLK_PERM_READ : 0;
        *child_shared = perm ? shared & ~(unsigned)(BLK_PERM_WRITE | BLK_PERM_RESIZE) : shared;
    }
}

/* ---- copying ---- */

/* The most that is copied at once. */
static uint64_t chunk_bytes(const CbwState *s)
{
    return MAX(s->step, MAX_STEP);
}

/* Copies whole granules that the caller holds; @buffer has chunk_bytes(), or as many as the range. */
static int cbw_co_copy_held(BlkNode *node, uint64_t offset, uint64_t bytes, void *buffer)
{
    CbwState *s = node->opaque;
    int ret = 0;

    while (ret == 0 && bytes > 0) {
        BlkStatus status;

        ret = blk_co_block_status_above(node->file->node, NULL, offset, bytes, &status);
        if (ret < 0) {
            break;
        }
        bool zero = (status.flags & BLK_STATUS_ZERO) && (status.bytes == bytes || status.bytes >= s->step);
        uint64_t now = zero ? status.bytes : MIN(status.bytes + s->step - 1, chunk_bytes(s));
        now = MIN(bytes, now == bytes ? now : now - now % s->step);
        if (!zero) {
            ret = blk_co_pread(node->file->node, offset, now, buffer, 0);
            zero = ret == 0 && blk_buffer_is_zero(buffer, now);
        }
        if (ret == 0) {
            ret = zero ? blk_co_pwrite_zeroes(s->target->node, offset, now, BLK_REQ_UNMAP)
                       : blk_co_pwrite(s->target->node, offset, now, buffer, 0);
        }
        offset += now;
        bytes -= now;
    }
    return ret;
}

/* Copies what is dirty in whole granules that the caller holds. */
static int cbw_co_copy_dirty(BlkNode *node, uint64_t offset, uint64_t end)
{
    CbwState *s = node->opaque;
    void *buffer = NULL;
    uint64_t start, bytes;
    int ret = 0;

    while (ret == 0 && blk_bitmap_next(s->todo.bitmap, offset, &start, &bytes) && start < end) {
        buffer = buffer ? buffer : blk_buffer_try_alloc(node, MIN(end - offset, chunk_bytes(s)));
        if (!buffer) {
            return -ENOMEM;
        }
        bytes = MIN(bytes, end - start);
        blk_bitmap_clear(s->todo.bitmap, start, bytes);
        ret = cbw_co_copy_held(node, start, bytes, buffer);
        if (ret < 0) {
            blk_bitmap_set(s->todo.bitmap, start, bytes);
        } else if (s->copied) {
            s->copied(bytes, s->opaque);
        }
        offset = start + bytes;
    }
    blk_buffer_free(buffer);
    return ret;
}

static int cbw_co_copy_range(BlkNode *node, uint64_t offset, uint64_t bytes)
{
    CbwState *s = node->opaque;
    uint64_t begin = offset - offset % s->step;
    uint64_t end = MIN((offset + bytes + s->step - 1) / s->step * s->step, node->length);
    BlkRangeHold hold;
    int ret;

    if (begin >= end) {
        return 0;
    }
    blk_co_range_lock(&s->todo.lock, &hold, begin, end - begin, true);
    ret = cbw_co_copy_dirty(node, begin, end);
    blk_range_unlock(&s->todo.lock, &hold);
    return ret;
}

/* ---- with a time limit ---- */

/* A copy in a coroutine of its own; freed by the last of both who leaves. */
typedef struct CbwTask {
    BlkNode *node;              /* a reference, while it runs */
    uint64_t offset, bytes;
    int ret;
    bool done, abandoned;
    BlkSleep sleep;             /* of who waits */
} CbwTask;

static int cbw_co_task(void *opaque)
{
    CbwTask *task = opaque;
    BlkNode *node = task->node;

    task->ret = cbw_co_copy_range(node, task->offset, task->bytes);
    task->done = true;
    if (task->abandoned) {
        g_free(task);
    } else {
        blk_sleep_cancel(&task->sleep);
    }
    blk_co_unref(node);
    return 0;
}

static int cbw_co_copy_in_time(BlkNode *node, uint64_t offset, uint64_t bytes)
{
    CbwState *s = node->opaque;
    CbwTask *task = g_new0(CbwTask, 1);
    uint64_t deadline_ns = blk_clock_ns() + s->timeout_ns;

    *task = (CbwTask) { .node = blk_node_ref(node), .offset = offset, .bytes = bytes };
    blk_co_spawn(node->ctx, cbw_co_task, task);
    while (!task->done && blk_clock_ns() < deadline_ns) {
        blk_co_sleep_cancellable(&task->sleep, deadline_ns);
    }
    if (!task->done) {
        task->abandoned = true;
        return -ETIMEDOUT;
    }
    int ret = task->ret;
    g_free(task);
    return ret;
}

/* To be called before the range is changed. */
static int cbw_co_before_change(BlkNode *node, uint64_t offset, uint64_t bytes)
{
    CbwState *s = node->opaque;
    int ret;

    if (s->broken < 0) {
        return 0;
    }
    ret = s->timeout_ns > 0 ? cbw_co_copy_in_time(node, offset, bytes) : cbw_co_copy_range(node, offset, bytes);
    if (ret < 0 && s->break_snapshot) {
        if (s->broken == 0) {
            blk_node_message(node, "a copy before a write at byte %" G_GUINT64_FORMAT " has failed (%s): the snapshot is lost",
                             offset, g_strerror(-ret));
        }
        s->broken = ret;
        return 0;
    }
    return ret;
}

/* ---- requests ---- */

static int cbw_co_pwritev(BlkNode *node, BlkRequest *req)
{
    int ret = cbw_co_before_change(node, req->offset, req->bytes);

    return ret < 0 ? ret : blk_co_pass_through_write(node, req);
}

static int cbw_co_pwrite_zeroes(BlkNode *node, BlkRequest *req)
{
    int ret = cbw_co_before_change(node, req->offset, req->bytes);

    return ret < 0 ? ret : blk_co_pwrite_zeroes(node->file->node, req->offset, req->bytes, req->flags);
}

static int cbw_co_discard(BlkNode *node, BlkRequest *req)
{
    int ret = cbw_co_before_change(node, req->offset, req->bytes);

    return ret < 0 ? ret : blk_co_discard(node->file->node, req->offset, req->bytes);
}

static int cbw_co_truncate(BlkNode *node, uint64_t length, BlkPrealloc prealloc, GError **error)
{
    if (length < node->length) {
        return blk_error(error, -EBUSY, "The node '%s' cannot get shorter: a copy-before-write filter keeps what it held",
                         blk_node_name(node->file->node));
    }
    return blk_co_truncate(node->file->node, length, prealloc, error);
}

/* ---- for jobs ---- */

bool blk_is_copy_before_write(const BlkNode *node)
{
    return node->driver == &blk_driver_copy_before_write;
}

BlkCopyTodo *blk_cbw_todo(BlkNode *node)
{
    return &((CbwState *)node->opaque)->todo;
}

BlkChild *blk_cbw_target(BlkNode *node)
{
    return ((CbwState *)node->opaque)->target;
}

void blk_cbw_watch(BlkNode *node, void (*copied)(uint64_t bytes, void *opaque), void *opaque)
{
    CbwState *s = node->opaque;

    s->copied = copied;
    s->opaque = opaque;
}

/* ---- the point in time ---- */

/* The first part of the range that lies in one place: *from (out): where; NULL: nowhere. The caller holds the range. */
static uint64_t find_part(const BlkNode *node, uint64_t offset, uint64_t bytes, BlkNode **from)
{
    const CbwState *s = node->opaque;
    uint64_t border = offset - offset % s->step + s->step;
    bool dirty = blk_bitmap_get(s->todo.bitmap, offset);
    bool readable = s->broken == 0 && blk_bitmap_get(s->access, offset);

    *from = !readable ? NULL : dirty ? node->file->node : s->target->node;
    return MIN(bytes, border - offset);
}

int blk_cbw_co_read(BlkNode *node, uint64_t offset, uint64_t bytes, BlkIov iov)
{
    CbwState *s = node->opaque;
    BlkRangeHold hold;
    int ret = 0;

    while (ret == 0 && bytes > 0) {
        BlkNode *from;
        uint64_t now = MIN(bytes, s->step - offset % s->step);

        blk_co_range_lock(&s->todo.lock, &hold, offset, now, false);
        find_part(node, offset, now, &from);
        ret = from ? blk_co_preadv(from, offset, now, iov, 0) : -EACCES;
        blk_range_unlock(&s->todo.lock, &hold);
        iov = blk_iov_advance(iov, now);
        offset += now;
        bytes -= now;
    }
    return ret == 0 && s->broken < 0 ? -EACCES : ret;       /* lost while it was read */
}

int blk_cbw_co_status(BlkNode *node, uint64_t offset, uint64_t bytes, BlkStatus *status)
{
    CbwState *s = node->opaque;
    BlkRangeHold hold;
    BlkNode *from;
    int ret = 0;

    bytes = MIN(bytes, s->step - offset % s->step);
    blk_co_range_lock(&s->todo.lock, &hold, offset, bytes, false);
    find_part(node, offset, bytes, &from);
    *status = (BlkStatus) { .bytes = bytes, .flags = BLK_STATUS_DATA };
    if (from) {
        ret = blk_co_block_status_above(from, NULL, offset, bytes, status);
    }
    blk_range_unlock(&s->todo.lock, &hold);
    status->flags = (status->flags & BLK_STATUS_ZERO ? BLK_STATUS_ZERO : BLK_STATUS_DATA) | BLK_STATUS_ALLOCATED;
    return ret;
}

int blk_cbw_co_discard(BlkNode *node, uint64_t offset, uint64_t bytes)
{
    CbwState *s = node->opaque;
    uint64_t begin = (offset + s->step - 1) / s->step * s->step, end = offset + bytes;
    BlkRangeHold hold;

    end = end == node->length ? end : end - end % s->step;
    if (begin < end) {
        blk_co_range_lock(&s->todo.lock, &hold, begin, end - begin, true);
        blk_bitmap_clear(s->todo.bitmap, begin, end - begin);
        blk_bitmap_clear(s->access, begin, end - begin);
        blk_range_unlock(&s->todo.lock, &hold);
    }
    return 0;
}

const BlkDriver blk_driver_copy_before_write = {
    .name = "copy-before-write",
    .kind = BLK_FILTER,
    .help = "copies to a target what is to be overwritten",
    .options = cbw_options,
    .instance_size = sizeof(CbwState),
    .co_open = cbw_co_open,
    .child_perm = cbw_child_perm,
    .co_pwritev = cbw_co_pwritev,
    .co_pwrite_zeroes = cbw_co_pwrite_zeroes,
    .co_discard = cbw_co_discard,
    .co_truncate = cbw_co_truncate,
};
