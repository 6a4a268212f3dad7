/* SPDX-License-Identifier: MIT */
/*
 * open.c - opens what the user named on the command line.
 *
 * A file name, a URL or a list of options becomes one tree; what the tool's own options ask for (read-only, cache mode,
 * sharing) is added to it where the user's tree does not say it already.
 */
#include "common/tool.h"

#include <stdio.h>

bool tool_parse_cache(const char *mode, ToolCache *cache)
{
    static const struct {
        const char *name;
        ToolCache cache;
    } modes[] = {
        { "none",         { .direct = true } },
        { "off",          { .direct = true } },
        { "writeback",    { .direct = false } },
        { "writethrough", { .writethrough = true } },
        { "directsync",   { .direct = true, .writethrough = true } },
        { "unsafe",       { .no_flush = true } },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(modes); i++) {
        if (strcmp(mode, modes[i].name) == 0) {
            *cache = modes[i].cache;
            return true;
        }
    }
    return false;
}

/* Whether @tree gives @key, with dots or as nested objects. */
static bool tree_has(JsonObject *tree, const char *key)
{
    const char *dot = strchr(key, '.');

    if (json_object_has_member(tree, key)) {
        return true;
    }
    if (dot) {
        g_autofree char *head = g_strndup(key, dot - key);
        JsonNode *inner = json_object_get_member(tree, head);

        return inner && JSON_NODE_HOLDS_OBJECT(inner) && tree_has(json_node_get_object(inner), dot + 1);
    }
    return false;
}

static void add_bool(JsonObject *tree, const char *key, bool wanted)
{
    const char *dot = strchr(key, '.');
    g_autofree char *head = dot ? g_strndup(key, dot - key) : NULL;
    JsonNode *inner = head ? json_object_get_member(tree, head) : NULL;

    if (!wanted || tree_has(tree, key)) {
        return;
    }
    /* The two ways of writing one group of keys must not be mixed. */
    if (inner && JSON_NODE_HOLDS_OBJECT(inner)) {
        json_object_set_boolean_member(json_node_get_object(inner), dot + 1, true);
    } else {
        json_object_set_boolean_member(tree, key, true);
    }
}

static void replace_member(JsonObject *object, const char *key, JsonNode *value, gpointer opaque)
{
    JsonObject *tree = opaque;
    g_autofree char *dotted = g_strconcat(key, ".", NULL);
    g_autoptr(GList) names = json_object_get_members(tree);

    for (GList *l = names; l; l = l->next) {
        if (g_str_has_prefix(l->data, dotted)) {
            json_object_remove_member(tree, l->data);
        }
    }
    json_object_set_member(tree, key, json_node_copy(value));
}

/* force-share=on says the same as -U. */
static bool conflicts_with_share(JsonObject *tree)
{
    JsonNode *value = json_object_get_member(tree, "force-share");
    const char *text = value && json_node_get_value_type(value) == G_TYPE_STRING ? json_node_get_string(value) : "";

    return value && strcmp(text, "on") != 0
           && !(json_node_get_value_type(value) == G_TYPE_BOOLEAN && json_node_get_boolean(value));
}

JsonObject *tool_open_options(BlkContext *ctx, const ToolOpen *open, GError **error)
{
    g_autoptr(JsonObject) tree = NULL;

    if (open->image_opts) {
        tree = blk_options_parse_keyval(open->name, "file", error);
    } else {
        tree = blk_options_parse_filename(ctx, open->name, open->format, error);
    }
    if (!tree) {
        return NULL;
    }
    if (open->force_share && conflicts_with_share(tree)) {
        blk_error(error, -EINVAL, "--force-share/-U conflicts with image options");
        return NULL;
    }
    if (open->options) {
        json_object_foreach_member(open->options, replace_member, tree);
    }
    add_bool(tree, "read-only", !open->writable);
    add_bool(tree, "force-share", open->force_share);
    add_bool(tree, "metadata-only", open->metadata_only);
    add_bool(tree, "check-only", open->check_only);
    add_bool(tree, "cache.direct", open->cache.direct);
    add_bool(tree, "cache.no-flush", open->cache.no_flush);
    if (open->unmap && !tree_has(tree, "discard")) {
        json_object_set_string_member(tree, "discard", "unmap");
    }
    return g_steal_pointer(&tree);
}

void tool_warn_if_guessed_raw(JsonObject *tree, BlkNode *node)
{
    if (!json_object_has_member(tree, "driver") && strcmp(blk_node_driver_name(node), "raw") == 0) {
        fprintf(stderr, "WARNING: No format was given for '%s', and it looks like raw.\n"
                        "         A raw image can be made to look like another format by whoever writes to it: "
                        "give the format 'raw' explicitly.\n", blk_node_filename(node));
    }
}

int tool_co_close(BlkChild *user)
{
    int ret = user && blk_node_needs_flush(blk_child_node(user)) ? blk_co_flush(blk_child_node(user)) : 0;

    if (ret < 0) {
        tool_error("%s: what was written last could not be stored: %s", blk_node_filename(blk_child_node(user)),
                   g_strerror(-ret));
    }
    blk_co_detach(user);
    return ret;
}

BlkNode *tool_co_open_node(BlkContext *ctx, const ToolOpen *open, GError **error)
{
    GError *local = NULL;
    g_autoptr(JsonObject) tree = tool_open_options(ctx, open, &local);
    BlkNode *node = tree ? blk_co_open(ctx, tree, &local) : NULL;

    if (node) {
        if (open->writable) {
            tool_warn_if_guessed_raw(tree, node);
        }
        return node;
    }
    if (!tree && open->image_opts) {
        g_propagate_error(error, local);        /* the list of options is at fault, not the image */
    } else {
        g_propagate_prefixed_error(error, local, "Could not open '%s': ", open->name);
    }
    return NULL;
}

BlkChild *tool_co_open(BlkContext *ctx, const ToolOpen *open, GError **error)
{
    unsigned perm = BLK_PERM_READ | (open->writable ? BLK_PERM_WRITE : 0) | (open->resizable ? BLK_PERM_RESIZE : 0);
    BlkNode *node = tool_co_open_node(ctx, open, error);
    BlkChild *user;

    if (!node) {
        return NULL;
    }
    if (open->check_only && blk_node_read_only(node)) {
        perm = BLK_PERM_READ;           /* of a format that can only be read: the check says that nothing is repaired */
    }
    user = blk_co_attach(node, tool_program(), perm, BLK_PERM_ALL, error);
    if (!user) {
        g_prefix_error(error, "Could not open '%s': ", open->name);
    }
    blk_co_unref(node);
    return user;
}
