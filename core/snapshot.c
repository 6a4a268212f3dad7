/* SPDX-License-Identifier: MIT */
/*
 * snapshot.c - internal snapshots of an image: which one is meant, and the drained section around what the driver does.
 *
 * Filters have the snapshots of the image below them.
 */
#include "core/node.h"

#include <string.h>

enum { MAX_NAME_BYTES = 255 };

void blk_snapshot_clear(BlkSnapshot *snapshot)
{
    g_clear_pointer(&snapshot->id, g_free);
    g_clear_pointer(&snapshot->name, g_free);
}

/* ---- the list ---- */

/* @node, or the node below filters that has snapshots of its own. */
static BlkNode *snapshot_node(BlkNode *node)
{
    while (!node->driver->snapshots && blk_node_filtered(node)) {
        node = blk_node_filtered(node);
    }
    return node;
}

static void clear_element(gpointer data)
{
    blk_snapshot_clear(data);
}

int blk_co_snapshot_list(BlkNode *node, GArray **snapshots, GError **error)
{
    g_autoptr(GArray) list = g_array_new(FALSE, TRUE, sizeof(BlkSnapshot));
    int ret = 0;

    *snapshots = NULL;
    g_array_set_clear_func(list, clear_element);
    node = snapshot_node(node);
    if (node->driver->snapshots) {
        ret = node->driver->snapshots->co_list(node, list, error);
    }
    if (ret == 0) {
        *snapshots = g_steal_pointer(&list);
    }
    return ret;
}

JsonObject *blk_snapshot_describe(const BlkSnapshot *snapshot)
{
    JsonObject *object = json_object_new();

    if (snapshot->has_icount && snapshot->icount != UINT64_MAX) {       /* all ones: none was recorded */
        json_object_set_int_member(object, "icount", (gint64)snapshot->icount);
    }
    json_object_set_int_member(object, "vm-clock-nsec", (gint64)(snapshot->vm_clock_nsec % 1000000000));
    json_object_set_string_member(object, "name", snapshot->name);
    json_object_set_int_member(object, "date-sec", snapshot->date_sec);
    json_object_set_int_member(object, "date-nsec", snapshot->date_nsec);
    json_object_set_int_member(object, "vm-clock-sec", (gint64)(snapshot->vm_clock_nsec / 1000000000));
    json_object_set_string_member(object, "id", snapshot->id);
    json_object_set_int_member(object, "vm-state-size", (gint64)snapshot->vm_state_size);
    return object;
}

int blk_co_snapshot_describe(BlkNode *node, JsonArray **array, GError **error)
{
    g_autoptr(GArray) snapshots = NULL;
    int ret = blk_co_snapshot_list(node, &snapshots, error);

    *array = ret == 0 && snapshots->len > 0 ? json_array_new() : NULL;
    for (guint i = 0; *array && i < snapshots->len; i++) {
        json_array_add_object_element(*array, blk_snapshot_describe(&g_array_index(snapshots, BlkSnapshot, i)));
    }
    return ret;
}

/* ---- which one ---- */

static const BlkSnapshot *find(const GArray *snapshots, const char *id, const char *name)
{
    for (guint i = 0; i < snapshots->len && (id || name); i++) {
        const BlkSnapshot *snapshot = &g_array_index(snapshots, BlkSnapshot, i);

        if ((!id || strcmp(id, snapshot->id) == 0) && (!name || strcmp(name, snapshot->name) == 0)) {
            return snapshot;
        }
    }
    return NULL;
}

const BlkSnapshot *blk_snapshot_find(const GArray *snapshots, const BlkSnapshotKey *key)
{
    const BlkSnapshot *found = find(snapshots, key->id, key->name);

    found = found ? found : find(snapshots, key->id_or_name, NULL);
    return found ? found : find(snapshots, NULL, key->id_or_name);
}

static int co_find(BlkNode *node, const BlkSnapshotKey *key, unsigned *index, GError **error)
{
    g_autoptr(GArray) snapshots = NULL;
    const BlkSnapshot *found;
    int ret = blk_co_snapshot_list(node, &snapshots, error);

    if (ret < 0) {
        return ret;
    }
    found = blk_snapshot_find(snapshots, key);
    if (!found) {
        return blk_error(error, -ENOENT, "snapshot not found");
    }
    *index = (unsigned)(found - &g_array_index(snapshots, BlkSnapshot, 0));
    return 0;
}

/* ---- operations ---- */

static int check_permission(const BlkNode *node, unsigned perm, GError **error)
{
    if (perm == 0) {
        return node->read_only ? 0 : blk_error(error, -EINVAL, "a snapshot is shown only by a node that is read-only");
    }
    if (node->read_only) {
        return blk_error(error, -EROFS, "the image is read-only");
    }
    return (node->core->perm & perm) == perm ? 0 : blk_error(error, -EPERM, "its user may not change the image");
}

static int co_operate(BlkNode *node, const BlkSnapshotKey *key, unsigned perm,
                      int (*co_op)(BlkNode *node, unsigned index, GError **error), GError **error)
{
    unsigned index = 0;
    int ret = check_permission(node, perm, error);

    if (ret < 0) {
        return ret;
    }
    ret = blk_co_image_drain(node, error);
    uint64_t old_length = node->length;
    ret = ret < 0 ? ret : co_find(node, key, &index, error);
    if (ret == 0) {
        ret = co_op(node, index, error);
    }
    if (node->length != old_length) {
        blk_node_length_changed(node);
    }
    blk_drain_end(node);
    return ret;
}

static int refuse(const BlkNode *node, GError **error)
{
    return blk_error(error, -ENOTSUP, "Block driver '%s' does not support internal snapshots", node->driver->name);
}

int blk_co_snapshot_create(BlkNode *node, const char *name, GError **error)
{
    node = snapshot_node(node);
    if (!node->driver->snapshots) {
        return refuse(node, error);
    }
    int ret = check_permission(node, BLK_PERM_WRITE, error);
    if (ret < 0) {
        return ret;
    }
    if (strlen(name) > MAX_NAME_BYTES || !g_utf8_validate(name, -1, NULL)) {
        return blk_error(error, -EINVAL, "the name of a snapshot is UTF-8 text of at most %d bytes", MAX_NAME_BYTES);
    }
    ret = blk_co_image_drain(node, error);
    ret = ret < 0 ? ret : node->driver->snapshots->co_create(node, name, error);
    blk_drain_end(node);
    return ret;
}

int blk_co_snapshot_apply(BlkNode *node, const BlkSnapshotKey *key, GError **error)
{
    const BlkSnapshotOps *ops = (node = snapshot_node(node))->driver->snapshots;

    if (node->core->bitmaps) {
        return blk_error(error, -EBUSY, "the image has dirty bitmaps, which would not know what changed; remove them first");
    }
    return ops ? co_operate(node, key, BLK_PERM_WRITE | BLK_PERM_RESIZE, ops->co_apply, error) : refuse(node, error);
}

int blk_co_snapshot_delete(BlkNode *node, const BlkSnapshotKey *key, GError **error)
{
    const BlkSnapshotOps *ops = (node = snapshot_node(node))->driver->snapshots;

    return ops ? co_operate(node, key, BLK_PERM_WRITE, ops->co_delete, error) : refuse(node, error);
}

int blk_co_snapshot_load(BlkNode *node, const BlkSnapshotKey *key, GError **error)
{
    const BlkSnapshotOps *ops = (node = snapshot_node(node))->driver->snapshots;

    return ops ? co_operate(node, key, 0, ops->co_load, error) : refuse(node, error);
}
