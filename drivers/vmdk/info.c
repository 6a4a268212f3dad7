/* SPDX-License-Identifier: MIT */
/*
 * info.c - what `info` shows of a vmdk image.
 */
#include "drivers/vmdk/vmdk.h"

static const BlkOption extent_members[] = {
    { "filename", BLK_OPTION_STRING, "where it is, if it is a file of its own" },
    { "format", BLK_OPTION_STRING, "what kind of extent it is", .required = true },
    { "virtual-size", BLK_OPTION_UINT, "bytes of the disk", .required = true },
    { "cluster-size", BLK_OPTION_UINT, "bytes of a grain" },
    { "compressed", BLK_OPTION_BOOL, "its grains are" },
    { NULL },
};
static const BlkType extent_type = { "VmdkExtentInfo", BLK_TYPE_OBJECT, extent_members };
static const BlkOption extent_element[] = { { "extent", BLK_OPTION_JSON, "one of them", .json = &extent_type }, { NULL } };
static const BlkType extents_type = { .kind = BLK_TYPE_ARRAY, .members = extent_element };

const BlkOption vmdk_info_members[] = {
    { "create-type", BLK_OPTION_STRING, "the subformat", .required = true },
    { "cid", BLK_OPTION_UINT, "changes with the content", .required = true },
    { "parent-cid", BLK_OPTION_UINT, "that of the parent when it was made", .required = true },
    { "extents", BLK_OPTION_JSON, "of the disk, in order", .json = &extents_type, .required = true },
    { NULL },
};

static JsonObject *describe_extent(const VmdkExtent *extent)
{
    JsonObject *object = json_object_new();

    if (vmdk_header_is_compressed(&extent->header)) {
        json_object_set_boolean_member(object, "compressed", true);
    }
    json_object_set_int_member(object, "virtual-size", (gint64)extent->bytes);
    if (extent->filename) {
        g_autofree char *name = g_utf8_make_valid(extent->filename, -1);

        json_object_set_string_member(object, "filename", name);
    }
    if (extent->grain_bytes) {
        json_object_set_int_member(object, "cluster-size", (gint64)extent->grain_bytes);
    }
    json_object_set_string_member(object, "format", extent->type);
    return object;
}

static JsonObject *describe(const Vmdk *v)
{
    JsonObject *data = json_object_new();
    JsonArray *extents = json_array_new();
    g_autofree char *type = g_utf8_make_valid(v->descriptor.create_type ? v->descriptor.create_type : "", -1);

    json_object_set_int_member(data, "cid", v->descriptor.cid);
    json_object_set_int_member(data, "parent-cid", v->descriptor.parent_cid);
    json_object_set_string_member(data, "create-type", type);
    for (unsigned i = 0; i < v->count; i++) {
        json_array_add_object_element(extents, describe_extent(&v->extents[i]));
    }
    json_object_set_array_member(data, "extents", extents);
    return data;
}

/* The size of grains, if all extents have one. */
static uint32_t cluster_size(const Vmdk *v)
{
    for (unsigned i = 0; i < v->count; i++) {
        if (v->extents[i].grain_bytes != v->extents[0].grain_bytes) {
            return 0;
        }
    }
    return (uint32_t)v->extents[0].grain_bytes;
}

int vmdk_co_info(BlkNode *node, BlkInfo *info, GError **error)
{
    const Vmdk *v = node->opaque;

    info->cluster_size = cluster_size(v);
    if (v->descriptor.parent_name) {
        info->backing_filename = g_utf8_make_valid(v->descriptor.parent_name, -1);
        info->backing_format = g_strdup("vmdk");
    }
    info->specific = describe(v);
    return 0;
}
