/* SPDX-License-Identifier: MIT */
/*
 * image.c - what is known about an image, as the JSON object ImageInfo of the peer; members come in a fixed order.
 */
#include "common/tool.h"

#include <blkstack/driver.h>

static void add_string(JsonObject *object, const char *name, const char *value)
{
    if (value) {
        json_object_set_string_member(object, name, value);
    }
}

static void add_flag(JsonObject *object, const char *name, bool value)
{
    if (value) {
        json_object_set_boolean_member(object, name, true);
    }
}

JsonObject *tool_image_to_json(BlkNode *node, const BlkInfo *info)
{
    JsonObject *object = json_object_new();

    if (info->snapshots && json_array_get_length(info->snapshots) > 0) {
        json_object_set_array_member(object, "snapshots", json_array_ref(info->snapshots));
    }
    add_string(object, "backing-filename-format", info->backing_format);
    json_object_set_int_member(object, "virtual-size", blk_node_length(node));
    json_object_set_string_member(object, "filename", blk_node_filename(node));
    if (info->cluster_size) {
        json_object_set_int_member(object, "cluster-size", info->cluster_size);
    }
    json_object_set_string_member(object, "format", blk_node_driver_name(node));
    if (info->has_allocated) {
        json_object_set_int_member(object, "actual-size", info->allocated_bytes);
    }
    add_flag(object, "encrypted", info->encrypted);
    if (info->specific) {
        JsonObject *specific = json_object_new();

        json_object_set_string_member(specific, "type", blk_node_driver_name(node));
        json_object_set_object_member(specific, "data", json_object_ref(info->specific));
        json_object_set_object_member(object, "format-specific", specific);
    }
    if (info->backing_filename) {
        add_string(object, "full-backing-filename", info->full_backing_filename);
    }
    add_string(object, "backing-filename", info->backing_filename);
    if (node->driver->kind != BLK_PROTOCOL) {
        json_object_set_boolean_member(object, "dirty-flag", info->dirty);
    }
    return object;
}
