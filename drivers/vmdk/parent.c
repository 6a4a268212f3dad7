/* SPDX-License-Identifier: MIT */
/*
 * parent.c - content IDs (CID), by which an image knows the backing file that it was made over.
 *
 *     parent  CID=2f5dee46         child  parentCID=2f5dee46  parentFileNameHint="parent.vmdk"
 *
 * The first change of an image after it was opened gives it a new CID, which is stable before the change: whatever a
 * crash leaves, a child never takes a changed parent for the old one. A child whose parent has another CID than it
 * expects cannot be read where it relies on it.
 */
#include "drivers/vmdk/vmdk.h"

#include "drivers/drivers.h"

bool vmdk_node_cid(BlkNode *node, uint32_t *cid)
{
    const BlkNode *image = blk_node_skip_filters(node);
    const Vmdk *v = image->opaque;

    if (image->driver != &blk_driver_vmdk || !v->descriptor.text) {
        return false;
    }
    *cid = v->descriptor.cid;
    return true;
}

void vmdk_look_at_parent(BlkNode *node)
{
    Vmdk *v = node->opaque;
    BlkNode *parent = node->backing ? blk_node_skip_filters(node->backing->node) : NULL;
    uint32_t cid;

    if (v->parent_node != parent) {         /* another one, in a live graph */
        v->parent_node = parent;
        v->parent = VMDK_PARENT_UNKNOWN;
        v->parent_told = false;
    }
    if (parent && v->parent == VMDK_PARENT_UNKNOWN) {
        bool right = vmdk_node_cid(parent, &cid) && cid == v->descriptor.parent_cid;
        v->parent = right ? VMDK_PARENT_RIGHT : VMDK_PARENT_WRONG;
    }
}

static void tell_wrong_parent(BlkNode *node)
{
    const Vmdk *v = node->opaque;
    const char *name = blk_node_filename(node->backing->node);
    uint32_t cid;

    if (vmdk_node_cid(node->backing->node, &cid)) {
        blk_node_message(node, "the image was made over a backing file with the content ID %08x, but that of '%s' is "
                         "%08x: it is another file, or was changed since", v->descriptor.parent_cid, name, cid);
    } else {
        blk_node_message(node, "the backing file '%s' is no VMDK image with a content ID: what the image is over "
                         "cannot be known", name);
    }
}

int vmdk_check_parent(BlkNode *node)
{
    Vmdk *v = node->opaque;

    vmdk_look_at_parent(node);
    if (v->parent == VMDK_PARENT_WRONG && !v->parent_told) {
        v->parent_told = true;
        tell_wrong_parent(node);
    }
    return v->parent == VMDK_PARENT_RIGHT ? 0 : -EINVAL;
}

/* ---- changes ---- */

/* The text fits in its place; what was behind it there is cleared. */
static int co_write_text(BlkNode *node, const char *text)
{
    const Vmdk *v = node->opaque;
    BlkNode *file = node->file->node;
    uint64_t length = strlen(text), bytes = v->descriptor.room ? v->descriptor.room : length;
    g_autofree char *padded = g_malloc0(bytes + 1);

    memcpy(padded, text, length);
    int ret = blk_co_pwrite(file, v->descriptor.offset, bytes, padded, 0);
    if (ret == 0 && v->descriptor.room == 0) {
        ret = blk_co_truncate(file, bytes, BLK_PREALLOC_OFF, NULL);
    }
    return ret < 0 ? ret : blk_co_flush(file);
}

/* As many digits as there were, so that nothing else moves: programs that write none for leading zeroes are common. */
static int co_change_cid_locked(BlkNode *node)
{
    Vmdk *v = node->opaque;
    VmdkDescriptor *d = &v->descriptor;
    char digits[VMDK_CID_DIGITS + 1];

    if (v->cid_changed || d->cid_digits == 0) {
        return 0;
    }
    uint32_t mask = (uint32_t)((UINT64_C(1) << 4 * d->cid_digits) - 1), cid;
    do {
        cid = g_random_int() & mask;
    } while (cid == d->cid || cid == VMDK_NO_CID);
    g_snprintf(digits, sizeof(digits), "%0*x", (int)d->cid_digits, cid);
    int ret = blk_co_pwrite(node->file->node, d->offset + d->cid_at, d->cid_digits, digits, 0);
    if (ret == 0) {
        ret = blk_co_flush(node->file->node);
    }
    if (ret == 0) {
        memcpy(d->text + d->cid_at, digits, d->cid_digits);
        d->cid = cid;
        v->cid_changed = true;
    }
    return ret;
}

int vmdk_co_change_cid(BlkNode *node)
{
    Vmdk *v = node->opaque;

    if (v->cid_changed) {
        return 0;
    }
    blk_co_mutex_lock(&v->cid_lock);
    int ret = co_change_cid_locked(node);
    blk_co_mutex_unlock(&v->cid_lock);
    return ret;
}

int vmdk_co_read_cid(BlkNode *node, const char *name, uint32_t *cid, GError **error)
{
    g_autofree char *full = blk_node_resolve_name(node, name, error);
    g_autoptr(JsonObject) tree = full ? blk_options_parse_filename(node->ctx, full, NULL, error) : NULL;

    if (!tree) {
        return -EINVAL;
    }
    json_object_set_boolean_member(tree, "read-only", true);
    json_object_set_boolean_member(tree, "metadata-only", true);
    json_object_set_boolean_member(tree, "force-share", true);
    BlkNode *parent = blk_co_open(node->ctx, tree, error);
    if (!parent) {
        return -EINVAL;
    }
    int ret = vmdk_node_cid(parent, cid) ? 0 : blk_error(error, -EINVAL, "backing_file must be a vmdk image");
    blk_co_unref(parent);
    return ret;
}

/* The descriptor names that parent (nullable: none) from now on. */
static int co_name_parent(BlkNode *node, const char *filename, uint32_t cid, GError **error)
{
    Vmdk *v = node->opaque;
    VmdkDescriptor changed = { 0 };
    int ret = vmdk_descriptor_parse(&changed, vmdk_descriptor_with_parent(&v->descriptor, filename, cid), error);
    if (ret == 0 && v->descriptor.room && strlen(changed.text) > v->descriptor.room) {
        ret = blk_error(error, -ENOSPC, "The name of the backing file does not fit in the descriptor of the image");
    }
    if (ret == 0) {
        ret = co_write_text(node, changed.text);
        if (ret < 0) {
            blk_error_errno(error, ret, "Could not write the descriptor");
        }
    }
    if (ret == 0) {
        g_free(v->descriptor.text);
        v->descriptor.text = g_steal_pointer(&changed.text);
        v->descriptor.cid_at = changed.cid_at;
        v->descriptor.cid_digits = changed.cid_digits;
        v->descriptor.parent_cid = cid;
        g_free(v->descriptor.parent_name);
        v->descriptor.parent_name = g_steal_pointer(&changed.parent_name);      /* @filename may be the old one */
        v->parent = VMDK_PARENT_UNKNOWN;
    }
    vmdk_descriptor_clear(&changed);
    return ret;
}

int vmdk_co_change_backing(BlkNode *node, const char *filename, const char *format, GError **error)
{
    Vmdk *v = node->opaque;
    uint32_t cid = VMDK_NO_CID;
    int ret = 0;

    if (!v->descriptor.text) {
        return blk_error(error, -ENOTSUP, "The image has no descriptor that could name a backing file");
    }
    if (filename && format && strcmp(format, "vmdk") != 0) {
        return blk_error(error, -EINVAL, "backing_file must be a vmdk image");
    }
    if (filename && strpbrk(filename, "\"\r\n")) {
        return blk_error(error, -EINVAL, "The descriptor of a VMDK image cannot hold the name '%s'", filename);
    }
    ret = filename ? vmdk_co_read_cid(node, filename, &cid, error) : 0;
    if (ret < 0) {
        return ret;
    }
    return co_name_parent(node, filename, cid, error);
}

int vmdk_co_keep_parent(BlkNode *node)
{
    Vmdk *v = node->opaque;
    uint32_t cid;

    vmdk_look_at_parent(node);
    if (v->parent != VMDK_PARENT_RIGHT || !v->descriptor.parent_name || !vmdk_node_cid(node->backing->node, &cid) ||
        cid == v->descriptor.parent_cid) {
        return 0;
    }
    return co_name_parent(node, v->descriptor.parent_name, cid, NULL);
}
