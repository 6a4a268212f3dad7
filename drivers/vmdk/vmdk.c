/* SPDX-License-Identifier: MIT */
/*
 * vmdk.c - the vmdk format driver: open, close and its table. See vmdk.h for the files and docs/vmdk.md for how it
 * works.
 *
 * Limitations: no resizing; COWD and seSparse extents are read-only, and so are images with a grain directory at their
 * end.
 */
#include "drivers/vmdk/vmdk.h"

#include "core/codec.h"
#include "core/engine.h"
#include "drivers/drivers.h"

#include <inttypes.h>
#include <stdio.h>

enum { EXTENT_CACHE_MIN = 1 << 20 };

static const BlkOption vmdk_options[] = {
    { "file", BLK_OPTION_NODE, "the image file, or the descriptor of an image of several files", .required = true },
    { "backing", BLK_OPTION_NODE, "where unallocated grains are read from; null: nowhere (default: as the image "
      "says)" },
    { "cache-size", BLK_OPTION_SIZE, "memory for tables", "4M", .min = EXTENT_CACHE_MIN, .max = UINT64_C(1) << 40 },
    { "decompressed-cache", BLK_OPTION_SIZE, "memory for decompressed grains; 0: none", "16M" },
    { 0 },
};

static int vmdk_probe(const uint8_t *head, size_t bytes, const char *filename)
{
    return vmdk_header_probe(head, bytes) || vmdk_descriptor_probe(head, bytes) ? 100 : 0;
}

/* ---- open ---- */

static int co_read_text(BlkNode *node, uint64_t offset, uint64_t bytes, GError **error)
{
    Vmdk *v = node->opaque;
    uint64_t length = blk_node_length(node->file->node), there = offset < length ? MIN(bytes, length - offset) : 0;
    g_autofree char *text = g_try_malloc0(there + 1);

    if (!text) {
        return blk_error(error, -ENOMEM, "no memory for a descriptor of %" PRIu64 " bytes", there);
    }
    int ret = blk_co_pread(node->file->node, offset, there, text, 0);
    if (ret < 0) {
        return blk_error_errno(error, ret, "Could not read the descriptor of '%s'",
                               blk_node_filename(node->file->node));
    }
    if (!vmdk_descriptor_probe((const uint8_t *)text, strlen(text))) {
        return blk_error(error, -EINVAL, "'%s' is not in VMDK format: it has neither a header nor a descriptor",
                         blk_node_filename(node->file->node));
    }
    v->descriptor.offset = offset;
    return vmdk_descriptor_parse(&v->descriptor, g_steal_pointer(&text), error);
}

static int co_read_embedded(BlkNode *node, GError **error)
{
    Vmdk *v = node->opaque;
    VmdkHeader header;
    int ret = vmdk_co_read_header(node->file->node, &header, error);

    if (ret < 0 || header.kind == VMDK_COWD) {
        return ret;
    }
    if (header.descriptor_sector == 0) {
        return blk_error(error, -EINVAL, "'%s' is one extent of an image: open the file with the descriptor, which "
                         "names it", blk_node_filename(node->file->node));
    }
    ret = co_read_text(node, header.descriptor_sector * VMDK_SECTOR, header.descriptor_sectors * VMDK_SECTOR, error);
    v->descriptor.room = header.descriptor_sectors * VMDK_SECTOR;
    return ret;
}

static int co_read_descriptor(BlkNode *node, GError **error)
{
    BlkNode *file = node->file->node;
    uint64_t length = blk_node_length(file);
    uint8_t magic[4];
    int ret = blk_co_pread(file, 0, MIN(sizeof(magic), length), magic, 0);

    if (ret < 0) {
        return blk_error_errno(error, ret, "Could not read '%s'", blk_node_filename(file));
    }
    if (vmdk_header_probe(magic, MIN(sizeof(magic), length))) {
        return co_read_embedded(node, error);
    }
    if (length > VMDK_MAX_DESCRIPTOR) {
        return blk_error(error, -EINVAL, "'%s' is not in VMDK format: it has no header, and is too large for a "
                         "descriptor", blk_node_filename(file));
    }
    return co_read_text(node, 0, length, error);
}

static BlkNode *block_file(void *opaque, uint64_t address, uint64_t *offset)
{
    const BlkNode *node = opaque;
    const Vmdk *v = node->opaque;

    *offset = address & (VMDK_MAX_EXTENT_FILE - 1);
    return v->extents[address >> 48].file->node;
}

static int open_caches(BlkNode *node, const BlkOptions *options, GError **error)
{
    Vmdk *v = node->opaque;
    BlkMetaHooks hooks = {
        .file = block_file,
        .opaque = node,
        .events = { BLK_EVENT_refblock_update, BLK_EVENT_l1_update, BLK_EVENT_l2_update },
    };

    v->meta = blk_meta_new(node, VMDK_SECTOR, blk_options_uint(options, "cache-size") / VMDK_SECTOR, &hooks);
    node->caps = BLK_CAP_ZERO_INIT;
    if (!v->compressed) {
        return 0;
    }
    node->caps |= BLK_CAP_COMPRESSED_WRITE | BLK_CAP_COMPRESSED_ONLY;
    blk_engine_set_decompressed_cache(node, blk_options_uint(options, "decompressed-cache"));
    v->codec = blk_codec_new(BLK_CODEC_ZLIB, -1, error);
    return v->codec ? 0 : -EINVAL;
}

static int vmdk_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    Vmdk *v = node->opaque;
    const BlkOpenFlags *flags = blk_node_open_flags(node);

    if (!blk_co_open_child(node, options, "file", BLK_ROLE_IMAGE, error)) {
        return -EINVAL;
    }
    int ret = co_read_descriptor(node, error);
    if (ret == 0) {
        ret = vmdk_co_open_extents(node, error);
    }
    if (ret == 0) {
        ret = open_caches(node, options, error);
    }
    if (ret == 0) {
        ret = blk_co_open_backing(node, options, v->descriptor.parent_name, "vmdk", error);
    }
    if (ret == 0 && !node->read_only && !flags->check_only && !flags->no_backing) {
        ret = vmdk_co_find_tables(node, error);
        v->writes = ret == 0;
    }
    return ret;
}

static void vmdk_co_close(BlkNode *node)
{
    Vmdk *v = node->opaque;

    if (v->meta && !node->read_only && vmdk_co_commit(node) == 0) {
        vmdk_co_write_footers(node);        /* an image without is whole, too */
        vmdk_co_keep_parent(node);
    }
    g_clear_pointer(&v->meta, blk_meta_free);
    g_clear_pointer(&v->codec, blk_codec_free);
    vmdk_extents_clear(v);
    vmdk_descriptor_clear(&v->descriptor);
}

/* ---- reopening ---- */

static int co_end_writing(BlkNode *node, GError **error)
{
    int ret = vmdk_co_commit(node);

    ret = ret < 0 ? ret : vmdk_co_write_footers(node);
    ret = ret < 0 ? ret : vmdk_co_keep_parent(node);
    ret = ret < 0 ? ret : blk_engine_co_flush(node);
    return ret < 0 ? blk_error_errno(error, ret, "The image '%s' cannot become read-only, since its tables could not "
                                     "be written", blk_node_filename(node)) : 0;
}

static void vmdk_co_reopen_abort(BlkNode *node)
{
    Vmdk *v = node->opaque;

    if (!v->writes) {
        vmdk_forget_tables(v);
    }
}

static int vmdk_co_reopen_prepare(BlkNode *node, const BlkReopen *to, GError **error)
{
    Vmdk *v = node->opaque;

    if (v->writes != to->read_only) {
        return 0;
    }
    if (v->writes) {
        return co_end_writing(node, error);
    }
    blk_meta_co_forget(v->meta, 0, UINT64_MAX);
    int ret = vmdk_check_writable(node, error);
    ret = ret < 0 ? ret : vmdk_co_find_tables(node, error);
    if (ret < 0) {
        vmdk_forget_tables(v);
    }
    return ret;
}

/* What is read-only may be named by children, so that the next change is one that they must see. */
static void vmdk_co_reopen_commit(BlkNode *node)
{
    Vmdk *v = node->opaque;

    v->writes = !node->read_only;
    if (!v->writes) {
        vmdk_forget_tables(v);
        v->cid_changed = false;
    }
}

/* ---- the rest of the table ---- */

static void vmdk_refresh_limits(BlkNode *node)
{
    const Vmdk *v = node->opaque;

    vmdk_look_at_parent(node);          /* also where children change in a live graph */
    node->limits.read_align = node->limits.write_align = 1;
    node->limits.max_transfer = 0;
    node->limits.cluster_size = node->limits.subcluster_size = (uint32_t)v->grain_bytes;
    node->limits.zeroes_align = v->compressed ? (uint32_t)v->grain_bytes : 1;
    node->limits.discard_align = v->compressed ? 0 : (uint32_t)v->grain_bytes;
}

/* Sparse extents have tables, which are written after the last user has gone; what is not RW is never written. */
static void vmdk_child_perm(BlkNode *node, BlkChild *child, unsigned perm, unsigned shared, unsigned *child_perm,
                            unsigned *child_shared)
{
    const Vmdk *v = node->opaque;
    unsigned index;

    if (child->role != BLK_ROLE_DATA || sscanf(child->name, "extents.%u", &index) != 1 || index >= v->count) {
        return;
    }
    bool writes = !node->read_only && v->extents[index].access == VMDK_RW;
    *child_perm = BLK_PERM_READ | (writes ? BLK_PERM_WRITE | BLK_PERM_RESIZE : 0);
    *child_shared = BLK_PERM_READ | BLK_PERM_WRITE_UNCHANGED;
}

/* Compressed grains can refuse to be written, which is no change: there vmdk_co_reserve() does it. */
static int co_prepare_change(BlkNode *node)
{
    const Vmdk *v = node->opaque;

    return v->compressed ? 0 : vmdk_co_change_cid(node);
}

static int vmdk_co_pwritev(BlkNode *node, BlkRequest *req)
{
    int ret = co_prepare_change(node);

    return ret < 0 ? ret : blk_engine_co_pwritev(node, req);
}

static int vmdk_co_pwrite_zeroes(BlkNode *node, BlkRequest *req)
{
    int ret = co_prepare_change(node);

    return ret < 0 ? ret : blk_engine_co_pwrite_zeroes(node, req);
}

static int vmdk_co_discard(BlkNode *node, BlkRequest *req)
{
    int ret = co_prepare_change(node);

    return ret < 0 ? ret : blk_engine_co_discard(node, req);
}

static const BlkCodec *vmdk_codec(BlkNode *node)
{
    const Vmdk *v = node->opaque;

    return v->codec;
}

static const BlkFormatOps vmdk_format = {
    .co_map = vmdk_co_map,
    .co_reserve = vmdk_co_reserve,
    .publish = vmdk_publish,
    .cancel = vmdk_cancel,
    .co_commit = vmdk_co_commit,
    .codec = vmdk_codec,
    .put_payload_head = vmdk_put_payload_head,
    .head_bytes = VMDK_MARKER_HEAD,
};

const BlkDriver blk_driver_vmdk = {
    .name = "vmdk",
    .kind = BLK_FORMAT,
    .help = "VMware's disk images",
    .options = vmdk_options,
    .create_options = vmdk_create_options,
    .instance_size = sizeof(Vmdk),
    .probe = vmdk_probe,
    .format = &vmdk_format,
    .co_open = vmdk_co_open,
    .co_close = vmdk_co_close,
    .co_reopen_prepare = vmdk_co_reopen_prepare,
    .co_reopen_commit = vmdk_co_reopen_commit,
    .co_reopen_abort = vmdk_co_reopen_abort,
    .refresh_limits = vmdk_refresh_limits,
    .child_perm = vmdk_child_perm,
    .co_pwritev = vmdk_co_pwritev,
    .co_pwrite_zeroes = vmdk_co_pwrite_zeroes,
    .co_discard = vmdk_co_discard,
    .co_info = vmdk_co_info,
    .info_members = vmdk_info_members,
    .co_check = vmdk_co_check,
    .co_change_backing = vmdk_co_change_backing,
    .co_make_empty = vmdk_co_make_empty,
    .check_create = vmdk_check_create,
    .check_compressed = vmdk_check_compressed,
    .co_stream = vmdk_co_stream,
    .co_create = vmdk_co_create,
};
