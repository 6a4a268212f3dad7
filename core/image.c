/* SPDX-License-Identifier: MIT */
/*
 * image.c - what can be said about an image, whether it is sound, and changes of what it is.
 */
#include "core/bitmap.h"
#include "core/node.h"
#include "core/options.h"

#include <string.h>

/* The host space of a format is that of its files. */
static int add_children(BlkNode *node, BlkInfo *info, GError **error)
{
    for (GList *l = node->core->children.head; l; l = l->next) {
        BlkChild *edge = l->data;
        BlkInfo below;
        int ret;

        if (!blk_edge_stores(edge)) {
            continue;
        }
        ret = blk_co_info(edge->node, &below, error);
        if (ret < 0) {
            return ret;
        }
        info->has_allocated |= below.has_allocated;
        info->allocated_bytes += below.allocated_bytes;
        blk_info_clear(&below);
    }
    return 0;
}

int blk_co_info(BlkNode *node, BlkInfo *info, GError **error)
{
    int ret = 0;

    if (!node->driver->co_info && blk_node_filtered(node)) {
        return blk_co_info(blk_node_filtered(node), info, error);
    }
    *info = (BlkInfo) { .cluster_size = node->limits.cluster_size };
    if (node->driver->co_info) {
        ret = node->driver->co_info(node, info, error);
    }
    if (ret == 0) {
        ret = blk_co_snapshot_describe(node, &info->snapshots, error);
    }
    if (ret == 0 && info->backing_filename && !info->full_backing_filename) {
        info->full_backing_filename = blk_node_resolve_name(node, info->backing_filename, NULL);
    }
    if (ret == 0 && !info->has_allocated) {
        ret = add_children(node, info, error);
    }
    if (ret < 0) {
        blk_info_clear(info);
    }
    return ret;
}

void blk_info_clear(BlkInfo *info)
{
    g_free(info->backing_filename);
    g_free(info->backing_format);
    g_free(info->full_backing_filename);
    g_clear_pointer(&info->snapshots, json_array_unref);
    g_clear_pointer(&info->specific, json_object_unref);
    *info = (BlkInfo) { .cluster_size = 0 };
}

void blk_check_tell(const BlkCheckOptions *options, const char *format, ...)
{
    va_list args;

    if (options->message) {
        va_start(args, format);
        g_autofree char *text = g_strdup_vprintf(format, args);
        va_end(args);
        options->message(text, options->opaque);
    }
}

int blk_co_check(BlkNode *node, const BlkCheckOptions *options, BlkCheckResult *result, GError **error)
{
    bool repair = options->fix_errors || options->fix_leaks;
    int ret;

    *result = (BlkCheckResult) { .corruptions = 0 };
    if (node->driver->co_check) {
        if (repair) {
            blk_co_drain_begin(node);
        }
        ret = node->driver->co_check(node, options, result, error);
        if (repair) {
            blk_drain_end(node);
        }
        return ret;
    }
    if (blk_node_filtered(node)) {
        return blk_co_check(blk_node_filtered(node), options, result, error);
    }
    return blk_error(error, -ENOTSUP, "This image format does not support checks");
}

int blk_co_image_drain(BlkNode *node, GError **error)
{
    int ret = blk_co_drain_begin(node);

    return ret < 0 ? blk_error_errno(error, ret, "a node above '%s' holds data that cannot be written", blk_node_name(node))
                   : 0;
}

int blk_co_compact(BlkNode *node, const BlkCompactOptions *options, GError **error)
{
    int ret;

    if (node->driver->co_compact) {
        ret = blk_co_image_drain(node, error);
        ret = ret < 0 ? ret : blk_bitmaps_check_unclaimed(node, error);
        ret = ret < 0 ? ret : node->driver->co_compact(node, options, error);
        blk_drain_end(node);
        return ret;
    }
    if (blk_node_filtered(node)) {
        return blk_co_compact(blk_node_filtered(node), options, error);
    }
    return blk_error(error, -ENOTSUP, "images of format '%s' cannot be compacted", node->driver->name);
}

/* Parses creation options; "size" is @length unless that is UINT64_MAX. */
static BlkOptions *parse_new_image(const BlkDriver *driver, JsonObject *format_options, uint64_t length, GError **error)
{
    const BlkOption *const tables[] = { driver->create_options, NULL };
    g_autofree char *what = g_strdup_printf("format '%s'", driver->name);
    g_autoptr(JsonObject) given = blk_options_normalise(tables, format_options, error);

    if (given && length != UINT64_MAX) {
        json_object_set_int_member(given, "size", (gint64)length);
    }
    return given ? blk_options_parse(tables, given, what, error) : NULL;
}

int blk_co_measure(BlkContext *ctx, const char *format, JsonObject *format_options, BlkNode *source, BlkMeasure *measure,
                   GError **error)
{
    const BlkDriver *driver = blk_driver_find(ctx, format);
    g_autoptr(BlkOptions) options = NULL;

    *measure = (BlkMeasure) { .required = 0 };
    if (!driver) {
        return blk_error(error, -EINVAL, "Unknown file format '%s'", format);
    }
    if (!driver->co_measure) {
        return blk_error(error, -ENOTSUP, "Block driver '%s' does not support size measurement", driver->name);
    }
    options = parse_new_image(driver, format_options, source ? source->length : UINT64_MAX, error);
    return options ? driver->co_measure(options, source, measure, error) : -EINVAL;
}

/* Errors of the data path come without words. */
static int co_stream(const BlkDriver *driver, BlkSource *source, const BlkOptions *options, const BlkStream *out,
                     GError **error)
{
    g_autoptr(GError) local = NULL;
    int ret = driver->co_stream(source, options, out, &local);

    if (ret < 0 && !local) {
        blk_error_errno(&local, ret, "could not write the image");
    }
    if (ret < 0) {
        g_propagate_error(error, g_steal_pointer(&local));
    }
    return ret;
}

int blk_co_stream(BlkContext *ctx, const char *format, JsonObject *format_options, BlkSource *source, const BlkStream *out,
                  GError **error)
{
    const BlkDriver *driver = blk_driver_find(ctx, format);
    g_autoptr(BlkOptions) options = NULL;

    if (!driver || !driver->co_stream) {
        return blk_error(error, -ENOTSUP, "Images of the format '%s' cannot be written to a pipe", format);
    }
    options = parse_new_image(driver, format_options, source->length, error);
    return options ? co_stream(driver, source, options, out, error) : -EINVAL;
}

/* ---- changes ---- */

static int check_may(const BlkNode *node, unsigned needed, GError **error)
{
    if (node->read_only || (node->core->perm & needed) != needed) {
        return blk_error(error, -EACCES, "The image '%s' may not be changed%s", blk_node_name(node),
                         node->read_only ? ": it is read-only" : "");
    }
    return 0;
}

static int check_may_change(const BlkNode *node, GError **error)
{
    return check_may(node, BLK_PERM_WRITE | BLK_PERM_RESIZE, error);
}

/* What can be chosen only when an image is made is refused as such. */
static BlkOptions *parse_amend_options(const BlkDriver *driver, JsonObject *object, GError **error)
{
    const BlkOption *const tables[] = { driver->amend_options, NULL };
    g_autofree char *what = g_strdup_printf("amending '%s'", driver->name);
    JsonObjectIter iter;
    const char *key;

    json_object_iter_init_ordered(&iter, object);
    while (json_object_iter_next_ordered(&iter, &key, NULL)) {
        if (!blk_options_table_has(driver->amend_options, key) && blk_options_table_has(driver->create_options, key)) {
            blk_error(error, -ENOTSUP, "Invalid parameter '%s'\nThis option is only supported for image creation", key);
            return NULL;
        }
    }
    return blk_options_parse(tables, object, what, error);
}

int blk_co_amend(BlkNode *node, const BlkAmendOptions *options, GError **error)
{
    const BlkDriver *driver = node->driver;
    g_autoptr(BlkOptions) parsed = NULL;
    int ret;

    if (!driver->co_amend && blk_node_filtered(node)) {
        return blk_co_amend(blk_node_filtered(node), options, error);
    }
    if (!driver->co_amend) {
        return blk_error(error, -ENOTSUP, "Format driver '%s' does not support option amendment", driver->name);
    }
    parsed = parse_amend_options(driver, options->options, error);
    ret = parsed ? check_may_change(node, error) : -EINVAL;
    if (ret < 0) {
        return ret;
    }
    ret = blk_co_image_drain(node, error);
    ret = ret < 0 ? ret : driver->co_amend(node, parsed, options, error);
    blk_node_refresh_above(&node, 1, NULL);
    blk_drain_end(node);
    return ret;
}

int blk_co_change_backing(BlkNode *node, const char *filename, const char *format, GError **error)
{
    int ret;

    if (!node->driver->co_change_backing && blk_node_filtered(node)) {
        return blk_co_change_backing(blk_node_filtered(node), filename, format, error);
    }
    if (!node->driver->co_change_backing) {
        return blk_error(error, -ENOTSUP, "Format driver '%s' has no backing files", node->driver->name);
    }
    /* What the disk holds stays the same: the caller sees to it. */
    ret = check_may(node, BLK_PERM_WRITE_UNCHANGED, NULL) == 0 ? 0 : check_may_change(node, error);
    if (ret == 0) {
        ret = blk_co_image_drain(node, error);
        ret = ret < 0 ? ret : node->driver->co_change_backing(node, filename, format, error);
        if (ret == 0) {
            g_free(node->core->image_backing);
            node->core->image_backing = filename ? blk_node_resolve_name(node, filename, NULL) : NULL;
            blk_node_name_backing(node);
        }
        blk_drain_end(node);
    }
    return ret;
}

int blk_co_make_empty(BlkNode *node, GError **error)
{
    int ret;

    if (!node->driver->co_make_empty && blk_node_filtered(node)) {
        return blk_co_make_empty(blk_node_filtered(node), error);
    }
    if (!node->driver->co_make_empty) {
        return blk_error(error, -ENOTSUP, "Format driver '%s' cannot empty an image", node->driver->name);
    }
    ret = check_may_change(node, error);
    if (ret == 0) {
        ret = blk_co_image_drain(node, error);
        ret = ret < 0 ? ret : node->driver->co_make_empty(node, error);
        blk_drain_end(node);
    }
    return ret;
}
