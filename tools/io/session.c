/* SPDX-License-Identifier: MIT */
/*
 * session.c - the one open file: from command line to tree of options to node.
 *
 * All trees are kept in nested form, {"cache": {"direct": true}}, so that options from several places merge.
 * Reopening closes the stack and opens it again: breakpoints and fault states are lost by that.
 */
#include "io/io.h"

#include "core/options.h"

#include <glib/gstdio.h>

BlkNode *io_node(const IoSession *session)
{
    return blk_child_node(session->user);
}

bool io_set_cache(IoOpenFlags *flags, const char *mode)
{
    if (!tool_parse_cache(mode, &flags->cache)) {
        tool_error("Invalid cache option: %s", mode);
        return false;
    }
    return true;
}

bool io_set_discard(IoOpenFlags *flags, const char *mode)
{
    static const char *const keep[] = { "ignore", "off", NULL };
    static const char *const unmap[] = { "unmap", "on", NULL };

    if (!g_strv_contains(keep, mode) && !g_strv_contains(unmap, mode)) {
        tool_error("Invalid discard option: %s", mode);
        return false;
    }
    flags->keep_zeroed = g_strv_contains(keep, mode);
    return true;
}

bool io_check_aio(const char *mode)
{
    static const char *const modes[] = { "threads", "native", "io_uring", NULL };

    if (!g_strv_contains(modes, mode)) {
        tool_error("Invalid aio option: %s", mode);
        return false;
    }
    return true;
}

/* ---- trees ---- */

static int merge_member(JsonObject *into, const char *key, JsonNode *value, GError **error)
{
    const char *dot = strchr(key, '.');
    bool is_group = dot || JSON_NODE_HOLDS_OBJECT(value);
    g_autofree char *head = dot ? g_strndup(key, dot - key) : g_strdup(key);
    JsonNode *old = json_object_get_member(into, head);
    JsonObject *group;

    if (!is_group) {
        json_object_set_member(into, head, json_node_copy(value));
        return 0;
    }
    if (dot && old && !JSON_NODE_HOLDS_OBJECT(old)) {
        return blk_error(error, -EINVAL, "option '%s' is a value already: '%s' cannot be set below it", head, key);
    }
    if (old && JSON_NODE_HOLDS_OBJECT(old)) {
        group = json_node_get_object(old);
    } else {
        group = json_object_new();
        json_object_set_object_member(into, head, group);
    }
    return dot ? merge_member(group, dot + 1, value, error) : io_tree_merge(group, json_node_get_object(value), error);
}

int io_tree_merge(JsonObject *into, JsonObject *from, GError **error)
{
    g_autoptr(GList) keys = json_object_get_members(from);
    int ret = 0;

    for (GList *key = keys; key && ret == 0; key = key->next) {
        ret = merge_member(into, key->data, json_object_get_member(from, key->data), error);
    }
    return ret;
}

/* The first child that the driver's table declares. */
static const char *first_child(const BlkDriver *driver)
{
    for (const BlkOption *option = driver->options; option && option->name; option++) {
        if (option->type == BLK_OPTION_NODE) {
            return option->name;
        }
    }
    return "file";
}

static JsonObject *tree_of_name(IoSession *session, const char *name, const char *driver_name, GError **error)
{
    const BlkDriver *driver = driver_name ? blk_driver_find(session->ctx, driver_name) : NULL;
    g_autoptr(JsonObject) tree = NULL;
    JsonObject *child;

    if (session->image_opts) {
        return blk_options_parse_keyval(name, "file", error);
    }
    if (!driver || driver->kind == BLK_FORMAT) {
        return blk_options_parse_filename(session->ctx, name, driver_name, error);
    }
    tree = json_object_new();
    json_object_set_string_member(tree, "driver", driver_name);
    if (driver->kind == BLK_PROTOCOL) {
        json_object_set_string_member(tree, "filename", name);
    } else {
        child = blk_options_parse_filename(session->ctx, name, NULL, error);
        if (!child) {
            return NULL;
        }
        json_object_set_object_member(tree, first_child(driver), child);
    }
    return g_steal_pointer(&tree);
}

static void set_bool(JsonObject *tree, const char *group, const char *key, bool value)
{
    if (group && !json_object_has_member(tree, group)) {
        json_object_set_object_member(tree, group, json_object_new());
    }
    if (group) {
        JsonNode *node = json_object_get_member(tree, group);

        if (!JSON_NODE_HOLDS_OBJECT(node)) {
            return;     /* ill-typed: blk_co_open() says so */
        }
        tree = json_node_get_object(node);
    }
    json_object_set_boolean_member(tree, key, value);
}

static void apply_flags(JsonObject *tree, const IoOpenFlags *flags)
{
    if (flags->read_only) {
        set_bool(tree, NULL, "read-only", true);
    }
    if (flags->force_share) {
        set_bool(tree, NULL, "force-share", true);
    }
    if (flags->cache.direct) {
        set_bool(tree, "cache", "direct", true);
    }
    if (flags->cache.no_flush) {
        set_bool(tree, "cache", "no-flush", true);
    }
    if (!json_object_has_member(tree, "discard")) {
        json_object_set_string_member(tree, "discard", flags->keep_zeroed ? "ignore" : "unmap");
    }
}

/* (transfer full) */
static JsonObject *build_tree(IoSession *session, const char *name, const char *format, JsonObject *options,
                              const IoOpenFlags *flags, GError **error)
{
    g_autoptr(JsonObject) tree = json_object_new();
    const char *driver = format;

    if (options && json_object_has_member(options, "driver") && !session->image_opts) {
        driver = json_object_get_string_member_with_default(options, "driver", NULL);
    }
    if (name) {
        g_autoptr(JsonObject) named = tree_of_name(session, name, driver, error);
        g_autoptr(JsonObject) nested = named ? blk_options_expand(named, error) : NULL;     /* nothing is given twice */

        if (!nested || io_tree_merge(tree, nested, error) < 0) {
            return NULL;
        }
    }
    if (options && io_tree_merge(tree, options, error) < 0) {
        return NULL;
    }
    if (!name && !json_object_has_member(tree, "driver") && !json_object_has_member(tree, "file")) {
        blk_error(error, -EINVAL, "Must specify either driver or file");
        return NULL;
    }
    apply_flags(tree, flags);
    if (flags->copy_on_read) {
        JsonObject *filter = json_object_new();

        json_object_set_string_member(filter, "driver", "copy-on-read");
        json_object_set_object_member(filter, "file", g_steal_pointer(&tree));
        apply_flags(filter, flags);
        return filter;
    }
    return g_steal_pointer(&tree);
}

/* ---- opening ---- */

static int co_open_tree(IoSession *session, JsonObject *tree, GError **error)
{
    BlkNode *node = blk_co_open(session->ctx, tree, error);
    unsigned perm = BLK_PERM_READ, shared = BLK_PERM_ALL;

    if (!node) {
        return error && *error ? -(*error)->code : -EIO;
    }
    if (!blk_node_read_only(node)) {
        perm |= BLK_PERM_WRITE | BLK_PERM_RESIZE;
        shared = BLK_PERM_READ | BLK_PERM_WRITE_UNCHANGED;
        tool_warn_if_guessed_raw(tree, node);
    }
    session->user = blk_co_attach(node, tool_program(), perm, shared, error);
    blk_co_unref(node);
    if (!session->user) {
        return error && *error ? -(*error)->code : -EPERM;
    }
    json_object_ref(tree);
    g_clear_pointer(&session->tree, json_object_unref);
    session->tree = tree;
    return 0;
}

static void drop_snapshot(IoSession *session)
{
    if (session->snapshot_path) {
        g_unlink(session->snapshot_path);
        g_clear_pointer(&session->snapshot_path, g_free);
    }
}

static int co_open_with_flags(IoSession *session, const char *name, const char *format, JsonObject *options,
                              const IoOpenFlags *flags, GError **error)
{
    g_autoptr(JsonObject) tree = NULL;
    int ret;

    if (flags->snapshot) {
        IoOpenFlags base_flags = { .force_share = flags->force_share, .read_only = true };
        g_autoptr(JsonObject) base = build_tree(session, name, format, options, &base_flags, error);

        tree = base ? tool_co_make_overlay(session->ctx, base, &session->snapshot_path, error) : NULL;
        if (tree) {
            apply_flags(tree, flags);
        }
    } else {
        tree = build_tree(session, name, format, options, flags, error);
    }
    if (!tree) {
        return -EINVAL;
    }
    ret = co_open_tree(session, tree, error);
    if (ret < 0) {
        drop_snapshot(session);
    }
    return ret;
}

int io_co_open(IoSession *session, const char *name, const char *format, JsonObject *options, const IoOpenFlags *flags)
{
    g_autoptr(GError) error = NULL;
    int ret;

    if (session->tree) {
        tool_error("file open already, try 'help close'");
        return -EBUSY;
    }
    if (flags->copy_on_read && flags->read_only) {
        tool_error("can't open%s%s: copy-on-read writes to the image, so it cannot be opened read-only",
                   name ? " device " : "", name ? name : "");
        return -EINVAL;
    }
    ret = co_open_with_flags(session, name, format, options, flags, &error);
    if (ret < 0) {
        if (name && !session->image_opts) {
            tool_error("can't open device %s: %s", name, error->message);
        } else {
            tool_error("can't open: %s", error->message);
        }
        return ret;
    }
    session->writethrough = flags->cache.writethrough;
    return 0;
}

static void co_detach(IoSession *session)
{
    const char *tag;

    while ((tag = io_suspended_tag(session))) {
        g_autofree char *copy = g_strdup(tag);

        blk_breakpoint_remove(io_node(session), copy);
        g_hash_table_remove(session->breakpoints, copy);
    }
    blk_co_drain_begin(io_node(session));       /* so that requests that wait for a lost server do not wait for ever */
    blk_drain_end(io_node(session));
    io_co_wait_for_aio(session, false);
    g_hash_table_remove_all(session->breakpoints);
    session->failed |= tool_co_close(session->user) < 0;
    session->user = NULL;
}

void io_co_close(IoSession *session)
{
    if (!session->tree) {
        return;
    }
    co_detach(session);
    g_clear_pointer(&session->tree, json_object_unref);
    drop_snapshot(session);
}

int io_co_reopen(IoSession *session, JsonObject *options, bool writethrough)
{
    g_autoptr(JsonObject) tree = json_object_new();
    g_autoptr(JsonObject) old = json_object_ref(session->tree);
    g_autoptr(GError) error = NULL;
    g_autoptr(GError) again = NULL;
    int ret;

    if (io_tree_merge(tree, old, &error) < 0 || io_tree_merge(tree, options, &error) < 0) {
        tool_error("%s", error->message);
        return -EINVAL;
    }
    co_detach(session);
    ret = co_open_tree(session, tree, &error);
    if (ret == 0) {
        session->writethrough = writethrough;
        return 0;
    }
    tool_error("%s", error->message);
    if (co_open_tree(session, old, &again) < 0) {
        tool_error("cannot go back to the old options either, the file is closed now: %s", again->message);
        g_clear_pointer(&session->tree, json_object_unref);
        drop_snapshot(session);
    }
    return ret;
}
