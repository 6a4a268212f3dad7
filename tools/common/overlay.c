/* SPDX-License-Identifier: MIT */
/*
 * overlay.c - a temporary overlay: what is written goes to a file that is forgotten at the end.
 */
#include "common/tool.h"

#include <glib/gstdio.h>
#include <unistd.h>

static int co_length(BlkContext *ctx, JsonObject *tree, uint64_t *length, GError **error)
{
    BlkNode *node = blk_co_open(ctx, tree, error);

    if (!node) {
        return -EIO;
    }
    *length = blk_node_length(node);
    blk_co_unref(node);
    return 0;
}

/* (transfer full): the name of an empty image. */
static char *co_create(BlkContext *ctx, uint64_t length, GError **error)
{
    g_autofree char *template = g_strconcat(tool_program(), "-XXXXXX", NULL), *path = NULL;
    g_autoptr(JsonObject) options = json_object_new();
    int fd = g_file_open_tmp(template, &path, error);

    if (fd < 0) {
        return NULL;
    }
    close(fd);
    json_object_set_int_member(options, "size", (gint64)length);
    if (blk_co_create(ctx, path, "qcow2", options, error) < 0) {
        g_unlink(path);
        return NULL;
    }
    return g_steal_pointer(&path);
}

static JsonObject *tree_of(const char *path, JsonObject *base)
{
    JsonObject *overlay = json_object_new(), *file = json_object_new();

    json_object_set_string_member(file, "driver", "file");
    json_object_set_string_member(file, "filename", path);
    json_object_set_string_member(overlay, "driver", "qcow2");
    json_object_set_object_member(overlay, "file", file);
    json_object_set_object_member(overlay, "backing", json_object_ref(base));
    return overlay;
}

JsonObject *tool_co_make_overlay(BlkContext *ctx, JsonObject *base, char **path, GError **error)
{
    uint64_t length;

    json_object_set_boolean_member(base, "read-only", true);
    if (co_length(ctx, base, &length, error) < 0) {
        return NULL;
    }
    *path = co_create(ctx, length, error);
    return *path ? tree_of(*path, base) : NULL;
}
