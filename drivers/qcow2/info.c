/* SPDX-License-Identifier: MIT */
/*
 * info.c - what `info` shows of a qcow2 image: read from the header, never from another file.
 */
#include "drivers/qcow2/format.h"

/* ---- what there is to tell ---- */

static const char *const bitmap_flags[] = { "in-use", "auto", NULL };
static const BlkOption bitmap_flag[] = {
    { "flag", BLK_OPTION_ENUM, "one of them", .values = bitmap_flags }, { NULL },
};
static const BlkType bitmap_flags_type = { .kind = BLK_TYPE_ARRAY, .members = bitmap_flag };
static const BlkOption bitmap_members[] = {
    { "name", BLK_OPTION_STRING, "of the bitmap", .required = true },
    { "granularity", BLK_OPTION_UINT, "bytes of one bit", .required = true },
    { "flags", BLK_OPTION_JSON, "of the entry", .json = &bitmap_flags_type, .required = true },
    { NULL },
};
static const BlkType bitmap_type = { "Qcow2BitmapInfo", BLK_TYPE_OBJECT, bitmap_members };
static const BlkOption bitmap_element[] = { { "bitmap", BLK_OPTION_JSON, "one of them", .json = &bitmap_type }, { NULL } };
static const BlkType bitmaps_type = { .kind = BLK_TYPE_ARRAY, .members = bitmap_element };

static const char *const compression_types[] = { "zlib", "zstd", NULL };
static const char *const encryption_formats[] = { "aes", "luks", NULL };
static const BlkOption encrypt_members[] = {
    { "format", BLK_OPTION_ENUM, "how", .values = encryption_formats, .required = true }, { NULL },
};
static const BlkType encrypt_type = { "ImageInfoSpecificQCow2Encryption", BLK_TYPE_OBJECT, encrypt_members };

const BlkOption qcow2_info_members[] = {
    { "compat", BLK_OPTION_STRING, "0.10: version 2, 1.1: version 3", .required = true },
    { "data-file", BLK_OPTION_STRING, "the file with the data, as the image says" },
    { "data-file-raw", BLK_OPTION_BOOL, "it can be read as a raw image" },
    { "extended-l2", BLK_OPTION_BOOL, "clusters have subclusters" },
    { "lazy-refcounts", BLK_OPTION_BOOL, "counts may be written late" },
    { "corrupt", BLK_OPTION_BOOL, "it is marked so" },
    { "refcount-bits", BLK_OPTION_UINT, "of one count", .required = true },
    { "encrypt", BLK_OPTION_JSON, "of an encrypted image", .json = &encrypt_type },
    { "bitmaps", BLK_OPTION_JSON, "that the image keeps", .json = &bitmaps_type },
    { "compression-type", BLK_OPTION_ENUM, "of compressed clusters", .values = compression_types, .required = true },
    { NULL },
};

/* ---- telling it ---- */

static JsonObject *describe_bitmap(const Qcow2BitmapEntry *entry)
{
    g_autofree char *name = g_utf8_make_valid(entry->name, -1);
    JsonObject *object = json_object_new();
    JsonArray *flags = json_array_new();

    if (entry->flags & QCOW2_BITMAP_IN_USE) {
        json_array_add_string_element(flags, bitmap_flags[0]);
    }
    if (entry->flags & QCOW2_BITMAP_AUTO) {
        json_array_add_string_element(flags, bitmap_flags[1]);
    }
    json_object_set_array_member(object, "flags", flags);
    json_object_set_string_member(object, "name", name);
    json_object_set_int_member(object, "granularity", INT64_C(1) << entry->granularity_bits);
    return object;
}

static JsonArray *describe_bitmaps(const GPtrArray *entries)
{
    JsonArray *array = json_array_new();

    for (guint i = 0; i < entries->len; i++) {
        json_array_add_object_element(array, describe_bitmap(g_ptr_array_index(entries, i)));
    }
    return array;
}

static JsonObject *describe_format(const Qcow2Header *h, const GPtrArray *bitmaps)
{
    JsonObject *data = json_object_new();

    json_object_set_string_member(data, "compat", h->version == 2 ? "0.10" : "1.1");
    json_object_set_string_member(data, "compression-type",
                                  compression_types[h->compression_type == QCOW2_COMPRESSION_ZSTD]);
    if (h->version >= 3) {
        json_object_set_boolean_member(data, "lazy-refcounts", (h->compatible & QCOW2_COMPAT_LAZY_REFCOUNTS) != 0);
    }
    if (bitmaps->len > 0) {
        json_object_set_array_member(data, "bitmaps", describe_bitmaps(bitmaps));
    }
    json_object_set_int_member(data, "refcount-bits", 1 << h->refcount_order);
    if (h->incompatible & QCOW2_INCOMPAT_DATA_FILE) {
        if (h->data_file) {
            json_object_set_string_member(data, "data-file", h->data_file);
        }
        json_object_set_boolean_member(data, "data-file-raw", (h->autoclear & QCOW2_AUTOCLEAR_RAW_DATA) != 0);
    }
    if (h->crypt_method != QCOW2_CRYPT_NONE) {
        JsonObject *encrypt = json_object_new();

        json_object_set_string_member(encrypt, "format", encryption_formats[h->crypt_method == QCOW2_CRYPT_LUKS]);
        json_object_set_object_member(data, "encrypt", encrypt);
    }
    if (h->version >= 3) {
        json_object_set_boolean_member(data, "corrupt", (h->incompatible & QCOW2_INCOMPAT_CORRUPT) != 0);
        json_object_set_boolean_member(data, "extended-l2", (h->incompatible & QCOW2_INCOMPAT_EXTENDED_L2) != 0);
    }
    return data;
}

int qcow2_co_info(BlkNode *node, BlkInfo *info, GError **error)
{
    Qcow2Header header;
    g_autoptr(GPtrArray) bitmaps = NULL;
    int ret;

    ret = qcow2_co_read_header(node->file->node, &header, error);
    if (ret == 0) {
        ret = qcow2_header_check_refcounts(&header, blk_node_length(node->file->node), error);
    }
    if (ret == 0) {
        ret = qcow2_bitmaps_co_read_directory(node->file->node, &header, &bitmaps, error);
    }
    if (ret == 0) {
        info->cluster_size = (uint32_t)qcow2_cluster_size(&header);
        info->vm_state_offset = qcow2_l1_entries_for(&header, header.size)
                                << (header.cluster_bits + qcow2_l2_bits(&header));
        info->encrypted = header.crypt_method != QCOW2_CRYPT_NONE;
        info->corrupt = header.incompatible & QCOW2_INCOMPAT_CORRUPT;
        info->dirty = header.incompatible & QCOW2_INCOMPAT_DIRTY;
        info->backing_filename = g_strdup(header.backing_file);
        if (header.backing_file != NULL) {
            info->full_backing_filename = blk_node_resolve_name(node, header.backing_file, NULL);
        }
        info->backing_format = g_strdup(header.backing_format);
        info->specific = describe_format(&header, bitmaps);
    }
    qcow2_header_clear(&header);
    return ret;
}
