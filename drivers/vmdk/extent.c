/* SPDX-License-Identifier: MIT */
/*
 * extent.c - the extents of an image, one behind the other on the disk.
 *
 *     monolithicSparse, streamOptimized     one extent, in the file with the descriptor
 *     all others                            files that the descriptor names: children "extents.0", ...
 *
 * The engine has one size of clusters. It is the grain size of the extents that are compressed, or of all sparse ones;
 * extents of another, or that do not begin with a whole grain of the disk, can be read if they are not compressed.
 */
#include "drivers/vmdk/vmdk.h"

#include <inttypes.h>

static void extent_clear(VmdkExtent *extent)
{
    g_free(extent->filename);
    g_clear_pointer(&extent->spare, g_array_unref);
    g_clear_pointer(&extent->tables, g_array_unref);
}

void vmdk_extents_clear(Vmdk *v)
{
    for (unsigned i = 0; i < v->count; i++) {
        extent_clear(&v->extents[i]);
    }
    g_clear_pointer(&v->extents, g_free);
    v->count = 0;
}

VmdkExtent *vmdk_extent_at(const Vmdk *v, uint64_t offset)
{
    unsigned first = 0, last = v->count - 1;

    while (first < last) {
        unsigned middle = first + (last - first + 1) / 2;
        if (v->extents[middle].start <= offset) {
            first = middle;
        } else {
            last = middle - 1;
        }
    }
    return &v->extents[first];
}

uint64_t vmdk_extent_reach(const Vmdk *v, const VmdkExtent *extent, uint64_t offset)
{
    uint64_t end = extent->start + extent->bytes;

    return (extent->index + 1 < v->count ? end : (end + v->grain_bytes - 1) & ~(v->grain_bytes - 1)) - offset;
}

/* ---- opening ---- */

static int co_read_extent_header(VmdkExtent *extent, GError **error)
{
    BlkNode *file = extent->file->node;
    int ret = extent->kind == VMDK_SESPARSE ? vmdk_co_read_sesparse_header(file, &extent->header, error)
                                            : vmdk_co_read_header(file, &extent->header, error);

    if (ret < 0) {
        return ret;
    }
    extent->kind = extent->header.kind;
    extent->grain_bytes = extent->header.grain_sectors * VMDK_SECTOR;
    if (extent->header.capacity_sectors != extent->bytes / VMDK_SECTOR) {
        return blk_error(error, -EINVAL, "The descriptor gives the extent '%s' %" PRIu64 " sectors, its header "
                         "%" PRIu64, blk_node_filename(file), extent->bytes / VMDK_SECTOR,
                         extent->header.capacity_sectors);
    }
    return 0;
}

/* Whoever wants to know about the image only gets nothing else opened than what lies beside it, and the rest told. */
static int co_open_extent_file(BlkNode *node, VmdkExtent *extent, const VmdkExtentLine *line, GError **error)
{
    bool only_metadata = blk_node_open_flags(node)->no_backing;
    g_autofree char *name = g_strdup_printf("extents.%u", extent->index);
    g_autoptr(GError) local = NULL;

    extent->filename = blk_node_resolve_name(node, line->name, NULL);
    if (!extent->filename) {
        extent->filename = g_strdup(line->name);
    }
    if (extent->access == VMDK_NOACCESS) {
        return 0;
    }
    extent->file = blk_co_open_extent(node, name, line->name, only_metadata, extent->access != VMDK_RW, &local);
    if (!extent->file && !only_metadata) {
        g_propagate_error(error, g_steal_pointer(&local));
        return -EINVAL;
    }
    return extent->file && extent->kind != VMDK_FLAT ? co_read_extent_header(extent, error) : 0;
}

static int co_open_line(BlkNode *node, unsigned index, GError **error)
{
    Vmdk *v = node->opaque;
    const VmdkExtentLine *line = &g_array_index(v->descriptor.extents, VmdkExtentLine, index);
    VmdkExtent *extent = &v->extents[index];

    *extent = (VmdkExtent){
        .index = index, .access = line->access, .kind = line->kind, .type = line->type, .start = node->length,
        .bytes = line->sectors * VMDK_SECTOR, .offset = line->offset_sectors * VMDK_SECTOR,
    };
    v->count = index + 1;
    if (extent->bytes > BLK_MAX_LENGTH - node->length) {
        return blk_error(error, -EFBIG, "The extents of the image are larger than a disk can be");
    }
    node->length += extent->bytes;
    return line->name ? co_open_extent_file(node, extent, line, error) : 0;
}

/* The extent that the image itself is. */
static int co_open_own(BlkNode *node, GError **error)
{
    Vmdk *v = node->opaque;
    VmdkExtent *extent = &v->extents[0];
    VmdkHeader header;
    int ret = vmdk_co_read_header(node->file->node, &header, error);

    if (ret < 0) {
        return ret;
    }
    *extent = (VmdkExtent){
        .kind = header.kind, .type = "", .filename = g_strdup(blk_node_filename(node->file->node)), .file = node->file,
        .bytes = header.capacity_sectors * VMDK_SECTOR, .header = header,
        .grain_bytes = header.grain_sectors * VMDK_SECTOR,
    };
    v->count = 1;
    node->length = extent->bytes;
    return 0;
}

/* ---- the engine's unit ---- */

static bool is_sparse(const VmdkExtent *extent)
{
    return extent->grain_bytes != 0;
}

/* Are the grains of all sparse extents (of compressed ones, if @compressed) clusters of the disk of one size? */
static bool are_clusters(const Vmdk *v, bool compressed, uint64_t *size)
{
    *size = 0;
    for (unsigned i = 0; i < v->count; i++) {
        const VmdkExtent *extent = &v->extents[i];
        if (!is_sparse(extent) || (compressed && !vmdk_header_is_compressed(&extent->header))) {
            continue;
        }
        *size = *size ? *size : extent->grain_bytes;
        if (extent->grain_bytes != *size || extent->start % *size != 0 ||
            (i + 1 < v->count && extent->bytes % *size != 0)) {
            return false;
        }
    }
    return true;
}

static int choose_grain(BlkNode *node, GError **error)
{
    Vmdk *v = node->opaque;
    uint64_t compressed, all;
    bool uniform = are_clusters(v, false, &all);

    if (!are_clusters(v, true, &compressed)) {
        return blk_error(error, -ENOTSUP, "The compressed extents of '%s' have grains of several sizes, or begin "
                         "within one", blk_node_filename(node));
    }
    v->compressed = compressed != 0;
    v->grain_bytes = compressed ? compressed : uniform && all ? all : VMDK_FLAT_UNIT;
    if (!uniform) {
        return blk_node_only_read(node, "The extents of the image have grains of several sizes, or begin within one: "
                                  "it can only be read; convert it", error);
    }
    return 0;
}

/* ---- what can be written ---- */

static const char *why_not_written(const Vmdk *v, const VmdkExtent *extent)
{
    const VmdkHeader *h = &extent->header;

    if (extent->kind == VMDK_COWD) {
        return "ESX server sparse extents (COWD) can only be read; convert the image";
    }
    if (extent->kind == VMDK_SESPARSE) {
        return "seSparse extents can only be read; convert the image";
    }
    if (!is_sparse(extent)) {
        return v->compressed ? "An image with compressed and plain extents can only be read; convert it" : NULL;
    }
    if (h->at_end) {
        return "The grain tables stand at the end of the image, which is complete: it can only be read; convert it";
    }
    if (vmdk_header_is_compressed(h) != v->compressed) {
        return "An image with compressed and plain extents can only be read; convert it";
    }
    if (v->compressed && !(h->flags & VMDK_FLAG_MARKERS)) {
        return "A compressed image without markers can only be read; convert it";
    }
    return h->version == 3 && !v->compressed ? "VMDK version 3 must be read only; convert the image" : NULL;
}

int vmdk_check_writable(BlkNode *node, GError **error)
{
    Vmdk *v = node->opaque;

    for (unsigned i = 0; i < v->count; i++) {
        const VmdkExtent *extent = &v->extents[i];
        const char *why = extent->access == VMDK_RW ? why_not_written(v, extent) : NULL;
        int ret = why ? blk_node_only_read(node, why, error) : 0;
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

int vmdk_co_open_extents(BlkNode *node, GError **error)
{
    Vmdk *v = node->opaque;
    const GArray *lines = v->descriptor.extents;
    bool own = !lines || v->descriptor.room != 0;
    unsigned count = own ? 1 : lines->len;
    int ret = 0;

    if (count == 0) {
        return blk_error(error, -EINVAL, "The descriptor '%s' has no extents", blk_node_filename(node->file->node));
    }
    v->extents = g_new0(VmdkExtent, count);
    if (own) {
        ret = co_open_own(node, error);
    }
    for (unsigned i = 0; ret == 0 && !own && i < count; i++) {
        ret = co_open_line(node, i, error);
    }
    if (ret == 0) {
        ret = choose_grain(node, error);
    }
    return ret == 0 ? vmdk_check_writable(node, error) : ret;
}
