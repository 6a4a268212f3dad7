/* SPDX-License-Identifier: MIT */
/*
 * cmd_snapshot.c - external snapshots: blockdev-snapshot, blockdev-snapshot-sync; also actions of transactions.
 *
 *     users -> node    becomes    users -> overlay -> node
 *
 * From the moment of the snapshot on, what users write goes to the overlay, and the node stays what it was.
 */
#include "daemon/transaction.h"

#include "core/node.h"
#include "core/options.h"

#include <string.h>

typedef struct SnapshotState {
    BlkNode *node, *overlay;    /* (nullable): references */
    bool made;
} SnapshotState;

/* ---- both ---- */

static int check_overlay(const BlkNode *overlay, GError **error)
{
    if (overlay->core->parents.length > 0) {
        return blk_error(error, -EBUSY, "The overlay is already in use");
    }
    if (!blk_options_table_has(overlay->driver->options, "backing")) {
        return blk_error(error, -ENOTSUP, "The overlay does not support backing images");
    }
    if (overlay->backing) {
        return blk_error(error, -EINVAL, "The overlay already has a backing image");
    }
    return 0;
}

/* The overlay takes the node's place and has it as its backing. */
static int co_make(SnapshotState *s, GError **error)
{
    int ret = check_overlay(s->overlay, error);

    ret = ret < 0 ? ret : blk_co_set_backing(s->overlay, s->node, error);
    if (ret < 0) {
        return ret;
    }
    ret = blk_co_replace_node(s->node, s->overlay, error);
    if (ret < 0) {
        blk_co_set_backing(s->overlay, NULL, NULL);
    }
    s->made = ret == 0;
    return ret;
}

static void co_undo(DaemonStep *step)
{
    SnapshotState *s = step->state;

    blk_co_replace_node(s->overlay, s->node, NULL);
    blk_co_set_backing(s->overlay, NULL, NULL);
    s->made = false;
}

static void co_clean(DaemonStep *step)
{
    SnapshotState *s = step->state;

    if (s->made) {
        /* Nobody else writes to it, as a rule; if somebody does, it stays as it is. */
        blk_co_reopen_writable(s->node, false, NULL);
    }
    blk_co_unref(s->overlay);
    blk_co_unref(s->node);
}

/* ---- blockdev-snapshot ---- */

static const BlkOption snapshot_options[] = {
    { "node", BLK_OPTION_STRING, "the node that becomes a backing", .required = true },
    { "overlay", BLK_OPTION_STRING, "the node that takes its place: an image without a backing that nobody uses", .required = true },
    { NULL },
};

/* Here, since an action before it may make what it names. */
static int co_snapshot(DaemonStep *step, GError **error)
{
    SnapshotState *s = step->state;
    const char *names[] = { blk_options_string(step->args, "node"), blk_options_string(step->args, "overlay") };
    BlkNode **found[] = { &s->node, &s->overlay };

    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        BlkNode *node = daemon_find_node(step->daemon, names[i], names[i], error);

        if (!node) {
            return -ENOENT;
        }
        *found[i] = blk_node_ref(node);
    }
    return co_make(s, error);
}

/* ---- blockdev-snapshot-sync ---- */

static const char *const modes[] = { "absolute-paths", "existing", NULL };
enum { MODE_EXISTING = 1 };

static const BlkOption sync_options[] = {
    { "device", BLK_OPTION_STRING, "the node that becomes a backing" },
    { "node-name", BLK_OPTION_STRING, "the same" },
    { "snapshot-file", BLK_OPTION_STRING, "file of the new image", .required = true },
    { "snapshot-node-name", BLK_OPTION_STRING, "name of the new node" },
    { "format", BLK_OPTION_STRING, "of the new image", "qcow2" },
    { "mode", BLK_OPTION_ENUM, "whether the image is made, or is there", "absolute-paths", modes },
    { NULL },
};

static int check_names(const DaemonStep *step, GError **error)
{
    const char *name = blk_options_string(step->args, "snapshot-node-name");

    if (blk_options_has(step->args, "node-name") && !name) {
        return blk_error(error, -EINVAL, "New overlay node-name missing");
    }
    if (name && blk_node_find(step->daemon->ctx, name)) {
        return blk_error(error, -EEXIST, "New overlay node-name already in use");
    }
    return 0;
}

/* What an image in @file may call @node. (transfer full) */
static char *backing_name(const BlkNode *node, const char *file)
{
    const char *name = blk_node_filename(node);
    g_autofree char *dir = g_path_get_dirname(file);
    bool relative = *name != '/' && !g_str_has_prefix(name, "json:") && blk_node_skip_filters((BlkNode *)node)->file &&
                    !strchr(name, ':');

    return relative && strcmp(dir, ".") != 0 ? g_canonicalize_filename(name, NULL) : g_strdup(name);
}

static int co_create_overlay(const DaemonStep *step, const BlkNode *node, GError **error)
{
    const char *file = blk_options_string(step->args, "snapshot-file"), *format = blk_options_string(step->args, "format");
    const BlkDriver *driver = blk_driver_find(step->daemon->ctx, format);
    g_autoptr(JsonObject) options = json_object_new();
    g_autofree char *backing = backing_name(node, file);

    if (!driver) {
        return blk_error(error, -EINVAL, "Unknown file format '%.*s'", 64, format);
    }
    if (!blk_options_table_has(driver->create_options, "backing_file")) {
        return blk_error(error, -ENOTSUP, "Backing file not supported for file format '%s'", format);
    }
    json_object_set_int_member(options, "size", (gint64)blk_node_length(node));
    json_object_set_string_member(options, "backing_file", backing);
    json_object_set_string_member(options, "backing_fmt", blk_node_driver_name(blk_node_skip_filters((BlkNode *)node)));
    return blk_co_create(step->daemon->ctx, file, format, options, error);
}

/* Opens it as the node is open, without its backing. */
static BlkNode *co_open_overlay(const DaemonStep *step, const BlkNode *node, GError **error)
{
    const BlkOpenFlags *flags = blk_node_open_flags(node);
    const char *name = blk_options_string(step->args, "snapshot-node-name");
    g_autoptr(JsonObject) tree = blk_options_parse_filename(step->daemon->ctx, blk_options_string(step->args, "snapshot-file"),
                                                            blk_options_string(step->args, "format"), error);

    if (!tree) {
        return NULL;
    }
    if (name) {
        json_object_set_string_member(tree, "node-name", name);
    }
    json_object_set_null_member(tree, "backing");
    json_object_set_boolean_member(tree, "cache.direct", flags->direct);
    json_object_set_boolean_member(tree, "cache.no-flush", flags->no_flush);
    json_object_set_string_member(tree, "discard", flags->unmap ? "unmap" : "ignore");
    return blk_co_open(step->daemon->ctx, tree, error);
}

static int co_begin_sync(DaemonStep *step, GError **error)
{
    SnapshotState *s = step->state;
    BlkNode *node = daemon_find_node(step->daemon, blk_options_string(step->args, "device"),
                                     blk_options_string(step->args, "node-name"), error);
    int ret = node ? check_names(step, error) : -ENOENT;

    if (ret < 0) {
        return ret;
    }
    s->node = blk_node_ref(node);
    if (blk_options_enum(step->args, "mode") != MODE_EXISTING) {
        ret = co_create_overlay(step, node, error);
    }
    if (ret == 0) {
        s->overlay = co_open_overlay(step, node, error);
    }
    return s->overlay ? 0 : ret < 0 ? ret : -EINVAL;
}

static int co_sync(DaemonStep *step, GError **error)
{
    return co_make(step->state, error);
}

/* ---- the tables ---- */

static const char *const snapshot_nodes[] = { "node", "overlay", NULL };
static const char *const sync_nodes[] = { "device", "node-name", NULL };

const DaemonAction daemon_snapshot_actions[] = {
    { .name = "blockdev-snapshot", .args = snapshot_options, .nodes = snapshot_nodes, .state_size = sizeof(SnapshotState),
      .co_prepare = co_snapshot, .co_abort = co_undo, .co_clean = co_clean },
    { .name = "blockdev-snapshot-sync", .args = sync_options, .nodes = sync_nodes, .state_size = sizeof(SnapshotState),
      .co_begin = co_begin_sync, .co_prepare = co_sync, .co_abort = co_undo, .co_clean = co_clean },
    { NULL },
};

static int co_run_snapshot(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    return daemon_co_run_action(d, &daemon_snapshot_actions[0], args, error);
}

static int co_run_sync(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    return daemon_co_run_action(d, &daemon_snapshot_actions[1], args, error);
}

const DaemonCommand daemon_snapshot_commands[] = {
    { "blockdev-snapshot", "an image takes the place of a node, which becomes its backing", snapshot_options, co_run_snapshot },
    { "blockdev-snapshot-sync", "the same with an image that is made for it", sync_options, co_run_sync },
    { NULL },
};
