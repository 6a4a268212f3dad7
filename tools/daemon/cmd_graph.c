/* SPDX-License-Identifier: MIT */
/*
 * cmd_graph.c - changes of nodes that are in use: filters above them, their length, their write threshold.
 *
 *     users, parents             users, parents
 *          |         insert           |
 *          |        ------->       filter
 *          |        <-------          |
 *        node        remove         node
 *
 * Requests may be in flight all the time: they wait for the moment of the change, which happens whole or not at all.
 */
#include "daemon/daemon.h"

#include "core/node.h"
#include "core/options.h"

#include <string.h>

/* ---- insert ---- */

/* (nullable): what stands for the node that the filter is inserted above: "file" or "image". */
static const char *child_of(const BlkDriver *driver)
{
    for (const BlkOption *option = driver->options; driver->kind == BLK_FILTER && option && option->name; option++) {
        if (option->type == BLK_OPTION_NODE && option->required) {
            return option->name;
        }
    }
    return NULL;
}

static const char *nth_filter(Daemon *d, unsigned index)
{
    const BlkDriver *driver;

    for (unsigned i = 0; (driver = blk_driver_nth(d->ctx, i)); i++) {
        if (child_of(driver) && index-- == 0) {
            return driver->name;
        }
    }
    return NULL;
}

/* Options of a filter, but for the child. */
static const BlkOption *filter_table(Daemon *d, const char *name)
{
    const BlkDriver *driver = blk_driver_find(d->ctx, name);
    const char *child = driver ? child_of(driver) : NULL;
    g_autofree char *key = g_strconcat("insert:", name, NULL);
    const BlkOption *table = daemon_find_table(d, key);
    GArray *made;

    if (table || !child) {
        return table;
    }
    made = g_array_new(TRUE, TRUE, sizeof(BlkOption));
    for (const BlkOption *option = driver->options; option->name; option++) {
        if (strcmp(option->name, child) != 0) {
            g_array_append_val(made, *option);
        }
    }
    return daemon_keep_table(d, key, made);
}

static bool refuse_driver(Daemon *d, const char *name, GError **error)
{
    const BlkDriver *driver = blk_driver_find(d->ctx, name);

    if (driver) {
        blk_error(error, -EINVAL, "Driver '%s' is no filter: it cannot be inserted above a node", driver->name);
    }
    return driver;
}

static const DaemonVariants filter_variants = { "driver", nth_filter, filter_table, refuse_driver };
static const BlkType filter_type = { "BlockdevFilterOptions", BLK_TYPE_OBJECT, blk_node_options, &filter_variants };

static const BlkOption insert_options[] = {
    { "node", BLK_OPTION_STRING, "above which the filter is inserted", .required = true },
    { "filter", BLK_OPTION_JSON, "options of the filter, as of blockdev-add, but for the node below", .required = true,
      .json = &filter_type },
    { NULL },
};

static int co_insert_filter(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    const char *name = blk_options_string(args, "node");
    BlkNode *node = daemon_find_node(d, NULL, name, error), *filter;
    g_autoptr(JsonObject) tree = blk_json_copy(json_node_get_object(blk_options_json(args, "filter")));
    const BlkDriver *driver = blk_driver_find(d->ctx, json_object_get_string_member(tree, "driver"));

    json_object_set_string_member(tree, child_of(driver), name);
    if (!node || daemon_co_add_node(d, tree, error) < 0) {
        return -EINVAL;
    }
    filter = blk_node_find(d->ctx, json_object_get_string_member(tree, "node-name"));
    int ret = blk_co_insert_above(blk_node_child(filter, child_of(driver)), filter, error);
    if (ret < 0) {
        daemon_co_let_go(d, filter);
    }
    return ret;
}

/* ---- remove ---- */

static const BlkOption remove_options[] = {
    { "node-name", BLK_OPTION_STRING, "the filter", .required = true },
    { NULL },
};

static int co_remove_filter(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    BlkNode *filter = daemon_find_node(d, NULL, blk_options_string(args, "node-name"), error);
    BlkNode *below = filter ? blk_node_filtered(filter) : NULL;
    int ret;

    if (!filter) {
        return -ENOENT;
    }
    /* What is left of a job that has ended is held by its users only. */
    if (!daemon_holds_node(d, filter) && !blk_node_opener(filter) && filter->core->refs > filter->core->parents.length) {
        return blk_error(error, -EPERM, "The node '%s' was not put in by a command: it goes with the job that needs it",
                         blk_node_name(filter));
    }
    blk_node_ref(filter);
    ret = blk_co_remove_filter(filter, error);
    if (ret == 0 && daemon_holds_node(d, filter)) {
        /* What was added with it as one tree stays as it was, but for the filter. */
        if (blk_node_opener(below) == filter && !daemon_holds_node(d, below)) {
            daemon_hold_node(d, below);
        }
        daemon_co_let_go(d, filter);
    }
    blk_co_unref(filter);
    return ret;
}

/* ---- blockdev-reopen ---- */

static const BlkOption node_element[] = { { "node", BLK_OPTION_JSON, "a node", .json = &daemon_node_type }, { NULL } };
static const BlkType nodes_type = { .kind = BLK_TYPE_ARRAY, .members = node_element };

static const BlkOption reopen_options[] = {
    { "options", BLK_OPTION_JSON, "list of options of nodes, as of blockdev-add, each with its node-name", .required = true,
      .json = &nodes_type },
    { NULL },
};

static int co_reopen(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    return blk_co_reopen(d->ctx, daemon_options_array(args, "options"), error);
}

/* ---- blockdev-set-active ---- */

static const BlkOption active_options[] = {
    { "node-name", BLK_OPTION_STRING, "the node; without it: all" },
    { "active", BLK_OPTION_BOOL, "may it be used, or is it another's?", .required = true },
    { NULL },
};

static int co_set_active(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    const char *name = blk_options_string(args, "node-name");
    bool active = blk_options_bool(args, "active");
    BlkNode *node = name ? blk_node_find(d->ctx, name) : NULL;

    if (name && !node) {
        return blk_error(error, -ENOENT, "Failed to find node with node-name='%.*s'", 64, name);
    }
    return node ? blk_co_set_active(node, active, error) : blk_co_set_all_active(d->ctx, active, error);
}

/* ---- change-backing-file ---- */

static const BlkOption backing_options[] = {
    { "device", BLK_OPTION_STRING, "the node at the top of the chain", .required = true },
    { "image-node-name", BLK_OPTION_STRING, "the image that names another file, of this chain", .required = true },
    { "backing-file", BLK_OPTION_STRING, "what it names; empty: none", .required = true },
    { NULL },
};

static int check_chain(Daemon *d, const char *device, BlkNode *image, GError **error)
{
    BlkNode *top = daemon_find_root(d, device, error);

    if (!top) {
        return -ENOENT;
    }
    if (!blk_node_child(image, "backing")) {
        return blk_error(error, -EINVAL, "not allowing backing file change on an image without a backing file");
    }
    for (BlkNode *node = blk_node_skip_filters(top); node; node = blk_node_backing(node)) {
        if (node == image) {
            return 0;
        }
    }
    return blk_error(error, -EINVAL, "The image '%s' is not in the backing chain of '%s'", blk_node_name(image),
                     blk_node_name(top));
}

/* Its format is that of the image that is open as its backing. */
static int co_name_backing(BlkNode *image, const char *filename, GError **error)
{
    BlkChild *user = blk_co_attach(image, "change-backing-file", BLK_PERM_WRITE_UNCHANGED, BLK_PERM_ALL, error);
    bool none = *filename == '\0';
    int ret = user ? blk_co_change_backing(image, none ? NULL : filename,
                                           none ? NULL : blk_node_driver_name(blk_node_backing(image)), error) : -EPERM;

    blk_co_detach(user);
    return ret;
}

static int co_change_backing_file(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    BlkNode *image = daemon_find_node(d, NULL, blk_options_string(args, "image-node-name"), error);
    int ret = image ? check_chain(d, blk_options_string(args, "device"), image, error) : -ENOENT;
    bool read_only = image && blk_node_read_only(image);

    ret = ret == 0 && read_only ? blk_co_reopen_writable(image, true, error) : ret;
    if (ret < 0) {
        return ret;
    }
    ret = co_name_backing(image, blk_options_string(args, "backing-file"), error);
    if (read_only) {
        int back = blk_co_reopen_writable(image, false, ret < 0 ? NULL : error);
        ret = ret < 0 ? ret : back;
    }
    return ret;
}

/* ---- block_resize ---- */

static const BlkType integer_type = { "int", BLK_TYPE_INTEGER };

static const BlkOption resize_options[] = {
    { "device", BLK_OPTION_STRING, "the node" },
    { "node-name", BLK_OPTION_STRING, "the same" },
    { "size", BLK_OPTION_JSON, "new length in bytes", .required = true, .json = &integer_type },
    { NULL },
};

/* As the peer: it says itself what is wrong with a number. */
static int parse_length(const BlkOptions *args, uint64_t *length, GError **error)
{
    JsonNode *value = blk_options_json(args, "size");

    if (json_node_get_int(value) < 0) {
        return blk_error(error, -EINVAL, "Parameter 'size' expects a >0 size");
    }
    *length = (uint64_t)json_node_get_int(value);
    return 0;
}

static int co_resize(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    BlkNode *node = daemon_find_node(d, blk_options_string(args, "device"), blk_options_string(args, "node-name"), error);
    uint64_t length = 0;
    int ret = node ? parse_length(args, &length, error) : -ENOENT;
    BlkChild *user;

    if (ret < 0) {
        return ret;
    }
    user = blk_co_attach(node, "block_resize", BLK_PERM_RESIZE, BLK_PERM_ALL, error);
    if (!user) {
        return -EPERM;
    }
    ret = blk_co_truncate(blk_child_node(user), length, BLK_PREALLOC_OFF, error);
    blk_co_detach(user);
    return ret;
}

/* ---- block-set-write-threshold ---- */

static const BlkOption threshold_options[] = {
    { "node-name", BLK_OPTION_STRING, "the node", .required = true },
    { "write-threshold", BLK_OPTION_SIZE, "bytes from the start of the node; 0: none", .required = true },
    { NULL },
};

static int co_set_threshold(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    const char *name = blk_options_string(args, "node-name");
    BlkNode *node = blk_node_find(d->ctx, name);

    if (!node) {
        return daemon_error(error, -ENOENT, "DeviceNotFound", "Device '%.*s' not found", 64, name);
    }
    blk_node_set_write_threshold(node, blk_options_uint(args, "write-threshold"));
    return 0;
}

const DaemonCommand daemon_graph_commands[] = {
    { "block-set-write-threshold", "asks for an event when a node is written to beyond an offset", threshold_options,
      co_set_threshold },
    { "blockdev-set-active", "lets go of nodes, so that another process may use their images, or opens them again",
      active_options, co_set_active },
    { "change-backing-file", "changes the name of the backing file in an image, not what is open", backing_options,
      co_change_backing_file },
    { "blockdev-reopen", "changes options and children of nodes, all of them or none", reopen_options, co_reopen },
    { "block_resize", "changes the length of a node", resize_options, co_resize },
    { "blockdev-insert-filter", "inserts a filter between a node and all that use it", insert_options, co_insert_filter },
    { "blockdev-remove-filter", "removes a filter: what uses it uses the node below", remove_options, co_remove_filter },
    { NULL },
};
