/* SPDX-License-Identifier: MIT */
/*
 * export.c - a node under a name.
 */
#include "exports/export.h"

static void clear_bitmap(void *opaque)
{
    BlkExportBitmap *shown = opaque;

    blk_bitmap_release(shown->bitmap);
    blk_co_unref(shown->node);
}

/* The first node of the chain under @top that has it; NULL with @error set. */
static BlkNode *find_owner(BlkNode *top, const char *name, GError **error)
{
    BlkNode *node = top;

    while (node && !blk_bitmap_find(node, name)) {
        BlkNode *below = blk_node_skip_filters(node);

        node = below != node ? below : blk_node_backing(node);
    }
    if (!node) {
        blk_error(error, -ENOENT, "'%s' and its backing files have no dirty bitmap '%s' that could be exported",
                  blk_node_filename(top), name);
    }
    return node;
}

static int co_add_bitmap(BlkExport *export, BlkNode *top, const BlkBitmapRef *wanted, GError **error)
{
    const char *name = wanted->name;
    BlkNode *node = wanted->node ? wanted->node : find_owner(top, name, error);
    BlkDirtyBitmap *bitmap = node ? blk_bitmap_find_usable(node, name, error) : NULL;
    BlkExportBitmap shown;

    if (!bitmap) {
        return -EINVAL;
    }
    if (!export->writable && !blk_node_read_only(node) && blk_bitmap_enabled(bitmap)) {
        return blk_error(error, -EINVAL, "the dirty bitmap '%s' records writes, which clients of a read-only export "
                         "must not see: disable it, or make the export writable", name);
    }
    blk_bitmap_claim(bitmap, BLK_BITMAP_READ, NULL);
    shown = (BlkExportBitmap) { blk_bitmap_name(bitmap), bitmap, blk_node_ref(node) };
    g_array_append_val(export->bitmaps, shown);
    return blk_co_bitmap_load(bitmap, error);
}

int blk_co_export_init(BlkExport *export, BlkNode *node, const BlkExportOptions *options, GError **error)
{
    unsigned perm = BLK_PERM_READ | (options->writable ? BLK_PERM_WRITE : 0);
    int ret = 0;

    export->user = blk_co_attach(node, options->id, options->allow_inactive ? 0 : perm, BLK_PERM_ALL, error);
    if (export->user && options->allow_inactive && blk_child_rest(export->user, perm, error) < 0) {
        blk_co_detach(g_steal_pointer(&export->user));
    }
    if (!export->user) {
        return -EPERM;
    }
    export->id = g_strdup(options->id);
    export->name = g_strdup(options->name);
    export->description = g_strdup(options->description);
    export->writable = options->writable;
    export->bitmaps = g_array_new(FALSE, FALSE, sizeof(BlkExportBitmap));
    g_array_set_clear_func(export->bitmaps, clear_bitmap);
    for (unsigned i = 0; ret == 0 && options->bitmaps && options->bitmaps[i].name; i++) {
        ret = co_add_bitmap(export, node, &options->bitmaps[i], error);
    }
    if (ret < 0) {
        blk_co_export_clear(export, NULL);
    }
    return ret;
}

int blk_co_export_clear(BlkExport *export, GError **error)
{
    BlkNode *node = export->user ? blk_export_node(export) : NULL;
    int ret = node && export->writable && blk_node_needs_flush(node) ? blk_co_flush(node) : 0;

    if (ret < 0) {
        blk_error_errno(error, ret, "%s: what clients of the export '%s' wrote last could not be stored",
                        blk_node_filename(node), export->name);
    }
    g_clear_pointer(&export->bitmaps, g_array_unref);
    blk_co_detach(export->user);
    g_free(export->id);
    g_free(export->name);
    g_free(export->description);
    *export = (BlkExport) { .user = NULL };
    return ret;
}

BlkDirtyBitmap *blk_co_export_bitmap(const BlkExport *export, unsigned index)
{
    BlkDirtyBitmap *bitmap = g_array_index(export->bitmaps, BlkExportBitmap, index).bitmap;

    return blk_co_bitmap_load(bitmap, NULL) == 0 ? bitmap : NULL;
}

void blk_export_tell_error(const BlkExport *export, bool write, int ret)
{
    BlkNode *node = blk_export_node(export);

    if (!blk_node_active(node)) {
        return;                 /* nothing is wrong with it: it has become inactive while the request waited */
    }
    JsonObject *data = json_object_new();
    json_object_set_string_member(data, "device", "");
    json_object_set_string_member(data, "node-name", blk_node_name(node));
    json_object_set_string_member(data, "operation", write ? "write" : "read");
    json_object_set_string_member(data, "action", "report");
    json_object_set_boolean_member(data, "nospace", ret == -ENOSPC);
    json_object_set_string_member(data, "reason", g_strerror(-ret));
    blk_notify(blk_node_context(node), "BLOCK_IO_ERROR", data);
}
