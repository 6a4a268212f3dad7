/* SPDX-License-Identifier: MIT */
/*
 * marks.c - the marks in the header that say whether the image can be trusted (format specification,
 * "incompatible_features", bits 0 and 1; version 3 only).
 *
 *     dirty    reference counts and COPIED flags may be wrong; mappings and data are right. Who opens the image for
 *              writing rebuilds them first.
 *     corrupt  tables contradict each other: a write could destroy more. Read-only until `check -r all` repairs it.
 *
 *     clean --begin--> marked, stable --> counts may lag behind --> counts stable --end--> clean, stable
 *
 * The mark is set and flushed before the first count may be wrong, and taken away when all are stable. A crash in
 * between leaves the mark. A write of the mark that fails leaves one of two states, both of which are true.
 *
 * Limitation: version 2 has no marks: there, an operation that is cut off leaves what `check` must find.
 */
#include "drivers/qcow2/qcow2.h"

/* With marks_lock held: makes @incompatible what the file says, stable. */
static int co_write_marks(BlkNode *node, uint64_t incompatible)
{
    Qcow2 *q = node->opaque;
    BlkNode *file = node->file->node;
    uint8_t field[8];

    if (q->header.version < 3 || q->header.incompatible == incompatible) {
        return 0;
    }
    blk_put_be64(field, incompatible);
    int ret = blk_co_pwrite(file, QCOW2_HEADER_INCOMPATIBLE_AT, sizeof(field), field, 0);
    if (ret == 0) {
        ret = blk_co_flush(file);
    }
    if (ret == 0) {
        q->header.incompatible = incompatible;
    }
    return ret;
}

static int co_dirty_begin_locked(BlkNode *node)
{
    Qcow2 *q = node->opaque;
    int ret = !q->tables ? -EROFS : co_write_marks(node, q->header.incompatible | QCOW2_INCOMPAT_DIRTY);

    q->dirty_users += ret == 0;
    return ret;
}

static int co_dirty_end_locked(BlkNode *node)
{
    Qcow2 *q = node->opaque;

    g_assert(q->dirty_users > 0);
    if (--q->dirty_users > 0 || q->header.version < 3) {
        return 0;
    }
    int ret = q->failed ? q->failed : blk_co_flush(node->file->node);
    return ret < 0 ? ret : co_write_marks(node, q->header.incompatible & ~QCOW2_INCOMPAT_DIRTY);
}

int qcow2_co_dirty_begin(BlkNode *node)
{
    Qcow2 *q = node->opaque;

    blk_co_mutex_lock(&q->marks_lock);
    int ret = co_dirty_begin_locked(node);
    blk_co_mutex_unlock(&q->marks_lock);
    return ret;
}

int qcow2_co_dirty_end(BlkNode *node)
{
    Qcow2 *q = node->opaque;

    blk_co_mutex_lock(&q->marks_lock);
    int ret = co_dirty_end_locked(node);
    blk_co_mutex_unlock(&q->marks_lock);
    return ret;
}

int qcow2_co_lazy_begin(BlkNode *node)
{
    Qcow2 *q = node->opaque;
    int ret = 0;

    blk_co_mutex_lock(&q->marks_lock);
    if (!q->counts_lag) {
        ret = co_dirty_begin_locked(node);
        q->counts_lag = ret == 0;
    }
    blk_co_mutex_unlock(&q->marks_lock);
    return ret;
}

int qcow2_co_lazy_end(BlkNode *node)
{
    Qcow2 *q = node->opaque;
    int ret = 0;

    blk_co_mutex_lock(&q->marks_lock);
    if (q->counts_lag) {
        q->counts_lag = false;
        ret = co_dirty_end_locked(node);
    }
    blk_co_mutex_unlock(&q->marks_lock);
    return ret;
}

/* ---- corrupt ---- */

static void tell_corrupt(BlkNode *node, uint64_t offset, uint64_t bytes, const char *what, bool fatal)
{
    JsonObject *data = json_object_new();

    json_object_set_string_member(data, "device", "");
    json_object_set_string_member(data, "node-name", blk_node_name(node));
    json_object_set_string_member(data, "msg", what);
    if (bytes > 0) {
        json_object_set_int_member(data, "offset", (gint64)offset);
        json_object_set_int_member(data, "size", (gint64)bytes);
    }
    json_object_set_boolean_member(data, "fatal", fatal);
    blk_notify(node->ctx, "BLOCK_IMAGE_CORRUPTED", data);
}

int qcow2_co_corrupt_at(BlkNode *node, uint64_t offset, uint64_t bytes, const char *format, ...)
{
    Qcow2 *q = node->opaque;
    g_autofree char *what = NULL;
    va_list args;

    if (q->corrupt) {
        return -EIO;
    }
    q->corrupt = true;
    va_start(args, format);
    what = g_strdup_vprintf(format, args);
    va_end(args);
    blk_node_message(node, "Marking image as corrupt: %s; further corruption events will be suppressed; nothing is "
                     "written any more: repair the image with 'check -r all'", what);
    tell_corrupt(node, offset, bytes, what, true);
    blk_co_mutex_lock(&q->marks_lock);
    int ret = co_write_marks(node, q->header.incompatible | QCOW2_INCOMPAT_CORRUPT);
    blk_co_mutex_unlock(&q->marks_lock);
    if (ret < 0) {
        blk_node_message(node, "The mark could not be written: %s", g_strerror(-ret));
    }
    return -EIO;
}

int qcow2_read_corrupt(BlkNode *node, const char *format, ...)
{
    Qcow2 *q = node->opaque;
    g_autofree char *what = NULL;
    va_list args;

    if (q->corrupt || q->corrupt_read) {
        return -EIO;
    }
    q->corrupt_read = true;
    va_start(args, format);
    what = g_strdup_vprintf(format, args);
    va_end(args);
    blk_node_message(node, "Image is corrupt: %s; further non-fatal corruption events will be suppressed; repair the "
                     "image with 'check -r all'", what);
    tell_corrupt(node, 0, 0, what, false);
    return -EIO;
}

/* ---- at open ---- */

int qcow2_co_dirty_repair(BlkNode *node, GError **error)
{
    Qcow2 *q = node->opaque;
    BlkCheckResult result = { 0 };
    int ret;

    if (!(q->header.incompatible & QCOW2_INCOMPAT_DIRTY)) {
        return 0;
    }
    ret = qcow2_co_rebuild_counts(node->file->node, &result, error);
    if (ret < 0) {
        g_prefix_error(error, "the image was not closed cleanly, and its reference counts could not be rebuilt: ");
        return ret;
    }
    if (result.corruptions > 0 || result.check_errors > 0) {
        return blk_error(error, -EIO, "the image was not closed cleanly, and it has %" PRIu64 " errors beside its "
                         "reference counts; open it read-only or repair it with 'check -r all'",
                         result.corruptions + result.check_errors);
    }
    blk_node_message(node, "the image was not closed cleanly; its reference counts are repaired now: %" PRIu64 " were "
                     "too low, %" PRIu64 " clusters were leaked", result.corruptions_fixed, result.leaks_fixed);
    qcow2_header_clear(&q->header);
    return qcow2_co_read_header(node->file->node, &q->header, error);
}
