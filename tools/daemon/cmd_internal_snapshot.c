/* SPDX-License-Identifier: MIT */
/*
 * cmd_internal_snapshot.c - snapshots inside an image: blockdev-snapshot-internal-sync, also an action of transactions, and
 * blockdev-snapshot-delete-internal-sync.
 *
 * Names are unique here, as with the peer, though images may have several snapshots of one name.
 */
#include "daemon/transaction.h"

#include "core/node.h"

static bool has_snapshots(BlkNode *node)
{
    return blk_node_skip_filters(node)->driver->snapshots;
}

/* ---- blockdev-snapshot-internal-sync ---- */

typedef struct InternalState {
    BlkNode *node;              /* (nullable): a reference */
} InternalState;

static int co_check(BlkNode *node, const char *name, GError **error)
{
    const BlkSnapshotKey key = { .name = name };
    g_autoptr(GArray) snapshots = NULL;
    int ret;

    if (blk_node_read_only(node)) {
        return blk_error(error, -EROFS, "Device '%s' is read only", blk_node_name(node));
    }
    if (!has_snapshots(node)) {
        return blk_error(error, -ENOTSUP, "Block format '%s' used by device '%s' does not support internal snapshots",
                         blk_node_driver_name(blk_node_skip_filters(node)), blk_node_name(node));
    }
    if (!*name) {
        return blk_error(error, -EINVAL, "Name is empty");
    }
    ret = blk_co_snapshot_list(node, &snapshots, error);
    if (ret == 0 && blk_snapshot_find(snapshots, &key)) {
        ret = blk_error(error, -EEXIST, "Snapshot with name '%s' already exists on device '%s'", name, blk_node_name(node));
    }
    return ret;
}

static int co_create(BlkNode *node, const char *name, GError **error)
{
    BlkChild *user = blk_co_attach(node, "blockdev-snapshot-internal-sync", BLK_PERM_WRITE, BLK_PERM_ALL, error);
    int ret = user ? blk_co_snapshot_create(node, name, error) : -EPERM;

    blk_co_detach(user);
    return ret;
}

static int co_delete(BlkNode *node, const BlkSnapshotKey *key, GError **error)
{
    BlkChild *user = blk_co_attach(node, "blockdev-snapshot-delete-internal-sync", BLK_PERM_WRITE, BLK_PERM_ALL, error);
    int ret = user ? blk_co_snapshot_delete(node, key, error) : -EPERM;

    blk_co_detach(user);
    return ret;
}

static int co_prepare(DaemonStep *step, GError **error)
{
    const char *name = blk_options_string(step->args, "name");
    BlkNode *node = daemon_find_root(step->daemon, blk_options_string(step->args, "device"), error);
    InternalState *s = step->state;
    int ret = node ? co_check(node, name, error) : -ENOENT;

    ret = ret < 0 ? ret : co_create(node, name, error);
    if (ret == 0) {
        s->node = blk_node_ref(node);
    }
    return ret;
}

static void co_abort(DaemonStep *step)
{
    const BlkSnapshotKey key = { .name = blk_options_string(step->args, "name") };
    const InternalState *s = step->state;
    g_autoptr(GError) error = NULL;

    if (co_delete(s->node, &key, &error) < 0) {
        blk_node_message(s->node, "the snapshot '%s', which was to be undone, is still there: %s", key.name, error->message);
    }
}

static void co_clean(DaemonStep *step)
{
    const InternalState *s = step->state;

    blk_co_unref(s->node);
}

static const BlkOption create_options[] = {
    { "device", BLK_OPTION_STRING, "the image, or a filter above it", .required = true },
    { "name", BLK_OPTION_STRING, "of the snapshot: the image must have none of this name", .required = true },
    { NULL },
};

static const char *const create_nodes[] = { "device", NULL };

const DaemonAction daemon_internal_snapshot_actions[] = {
    { .name = "blockdev-snapshot-internal-sync", .args = create_options, .nodes = create_nodes,
      .state_size = sizeof(InternalState), .co_prepare = co_prepare, .co_abort = co_abort, .co_clean = co_clean },
    { NULL },
};

static int co_run_create(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    return daemon_co_run_action(d, &daemon_internal_snapshot_actions[0], args, error);
}

/* ---- blockdev-snapshot-delete-internal-sync ---- */

static const BlkOption delete_options[] = {
    { "device", BLK_OPTION_STRING, "the image, or a filter above it", .required = true },
    { "id", BLK_OPTION_STRING, "of the snapshot" },
    { "name", BLK_OPTION_STRING, "the same; at least one of the two" },
    { NULL },
};

static int co_run_delete(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    BlkSnapshotKey key = { .id = blk_options_string(args, "id"), .name = blk_options_string(args, "name") };
    BlkNode *node = daemon_find_root(d, blk_options_string(args, "device"), error);
    g_autoptr(GArray) snapshots = NULL;
    const BlkSnapshot *snapshot;

    if (!node) {
        return -ENOENT;
    }
    if (!key.id && !key.name) {
        return blk_error(error, -EINVAL, "Name or id must be provided");
    }
    if (!has_snapshots(node)) {
        return blk_error_errno(error, -ENOTSUP, "Failed to get a snapshot list");
    }
    if (blk_co_snapshot_list(node, &snapshots, error) < 0) {
        return -EIO;
    }
    snapshot = blk_snapshot_find(snapshots, &key);
    if (!snapshot) {
        return blk_error(error, -ENOENT, "Snapshot with id '%s' and name '%s' does not exist on device '%s'",
                         key.id ? key.id : "null", key.name ? key.name : "null", blk_node_name(node));
    }
    key = (BlkSnapshotKey) { .id = snapshot->id, .name = snapshot->name };
    int ret = co_delete(node, &key, error);
    if (ret == 0) {
        *result = daemon_result_object(blk_snapshot_describe(snapshot));
    }
    return ret;
}

const DaemonCommand daemon_internal_snapshot_commands[] = {
    { "blockdev-snapshot-internal-sync", "keeps what the disk holds now as a snapshot inside its image", create_options,
      co_run_create },
    { "blockdev-snapshot-delete-internal-sync", "deletes a snapshot inside an image, and tells what it was", delete_options,
      co_run_delete },
    { NULL },
};
