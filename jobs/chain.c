/* SPDX-License-Identifier: MIT */
/*
 * chain.c - images of a backing chain, and what they name as their backing files. See chain.h.
 */
#include "jobs/chain.h"

#include "core/node.h"
#include "core/options.h"

#include <string.h>

BlkNode *blk_chain_below(BlkNode *node)
{
    BlkNode *image = blk_node_skip_filters(node);

    return image->backing ? image->backing->node : NULL;
}

bool blk_chain_has(BlkNode *top, BlkNode *node)
{
    BlkNode *image = blk_node_skip_filters(node);

    while (top && blk_node_skip_filters(top) != image) {
        top = blk_chain_below(top);
    }
    return top;
}

/* ---- names ---- */

static bool same_file(const char *a, const char *b)
{
    if (!a || !b) {
        return false;
    }
    if (strcmp(a, b) == 0) {
        return true;
    }
    if (blk_filename_has_prefix(a) || blk_filename_has_prefix(b)) {
        return false;
    }
    g_autofree char *full_a = g_canonicalize_filename(a, NULL), *full_b = g_canonicalize_filename(b, NULL);
    return strcmp(full_a, full_b) == 0;
}

/* Does @overlay name its backing file so? */
static bool co_is_named(BlkNode *overlay, const char *name)
{
    BlkInfo info;

    if (blk_co_info(overlay, &info, NULL) < 0) {
        return false;
    }
    bool named = g_strcmp0(info.backing_filename, name) == 0 || same_file(info.full_backing_filename, name);
    blk_info_clear(&info);
    return named;
}

BlkNode *blk_co_chain_find(BlkNode *top, const char *name)
{
    BlkNode *place = top, *overlay = NULL;

    while (place) {
        BlkNode *image = blk_node_skip_filters(place);

        if (same_file(blk_node_filename(image), name) || (overlay && co_is_named(overlay, name))) {
            return place;
        }
        overlay = image;
        place = blk_chain_below(image);
    }
    return NULL;
}

/* Of the file in which the image lies: its own name may have to say which backing is open. */
static const char *file_of(BlkNode *image)
{
    const BlkChild *file = image->file;

    return blk_node_filename(file && file->role == BLK_ROLE_IMAGE ? blk_node_skip_filters(file->node) : image);
}

/* How the header of @overlay names @backing: absolute names, and those with a protocol, as they are; relative ones start
 * from the overlay's directory. (transfer full) */
static char *header_name(BlkNode *overlay, BlkNode *backing)
{
    const char *name = blk_node_filename(backing), *above = file_of(overlay);

    if (name[0] == '/' || blk_filename_has_prefix(name)) {
        return g_strdup(name);
    }
    if (!blk_filename_has_prefix(above)) {
        g_autofree char *directory = g_path_get_dirname(above), *own = g_path_get_dirname(name);

        if (strcmp(directory, ".") == 0) {
            return g_strdup(name);
        }
        if (strcmp(directory, own) == 0) {
            return g_path_get_basename(name);
        }
    }
    return g_canonicalize_filename(name, NULL);
}

/* ---- who stands above ---- */

static void collect_overlays(BlkNode *node, GPtrArray *overlays)
{
    for (GList *l = node->core->parents.head; l; l = l->next) {
        const BlkChild *edge = l->data;

        if (edge->parent && edge->role == BLK_ROLE_COW) {
            g_ptr_array_add(overlays, blk_node_ref(edge->parent));
        } else if (edge->parent && blk_node_filtered(edge->parent) == node) {
            collect_overlays(edge->parent, overlays);
        }
    }
}

static void co_unref(gpointer node)
{
    blk_co_unref(node);
}

GPtrArray *blk_chain_overlays(BlkNode *image)
{
    GPtrArray *overlays = g_ptr_array_new_with_free_func(co_unref);

    collect_overlays(image, overlays);
    return overlays;
}

/* ---- writable ---- */

GArray *blk_chain_changes_new(void)
{
    return g_array_new(FALSE, FALSE, sizeof(BlkChainChange));
}

static int co_make_one(BlkNode *node, bool writable, GArray *changed, GError **error)
{
    if (node->read_only != writable) {
        return 0;
    }
    int ret = blk_co_reopen_writable(node, writable, error);
    if (ret == 0) {
        const BlkChainChange change = { blk_node_ref(node), writable };

        g_array_append_val(changed, change);
    }
    return ret;
}

int blk_co_chain_make(BlkNode *place, bool writable, GArray *changed, GError **error)
{
    BlkNode *below = blk_node_filtered(place);
    int ret = writable ? 0 : co_make_one(place, false, changed, error);     /* a filter never may more than what is below */

    if (ret == 0 && below) {
        ret = blk_co_chain_make(below, writable, changed, error);
    }
    return ret == 0 && writable ? co_make_one(place, true, changed, error) : ret;
}

/* What a job that has failed wrote to it lies below an image that hides it, so it need not be stored. */
static void co_drop_changes(BlkNode *node)
{
    g_autoptr(GError) error = NULL;

    if (blk_co_drop_changes(node, &error) < 0) {
        blk_node_message(node, "the image of a job that has failed does not become read-only again: %s", error->message);
        return;
    }
    for (GList *l = node->core->children.head; l; l = l->next) {
        BlkNode *child = ((BlkChild *)l->data)->node;

        if (blk_node_opener(child) == node) {
            blk_co_reopen_writable(child, false, NULL);
        }
    }
}

void blk_co_chain_make_as_before(GArray *changed, bool failed)
{
    for (guint i = changed->len; i-- > 0; ) {
        const BlkChainChange *change = &g_array_index(changed, BlkChainChange, i);
        int ret = blk_co_reopen_writable(change->node, !change->was_read_only, NULL);

        if (ret < 0 && failed && change->was_read_only) {
            co_drop_changes(change->node);
        }
        blk_co_unref(change->node);
    }
    g_array_set_size(changed, 0);
}

/* ---- the change ---- */

int blk_chain_check_header(BlkNode *overlay, GError **error)
{
    return overlay->driver->co_change_backing ? 0 :
           blk_error(error, -ENOTSUP, "The node '%s' (driver '%s') cannot store the name of another backing file",
                     blk_node_name(overlay), blk_node_driver_name(overlay));
}

static int co_change_header(BlkNode *overlay, BlkNode *backing, const BlkChainName *as, GError **error)
{
    BlkNode *image = backing ? blk_node_skip_filters(backing) : NULL;
    g_autofree char *name = !image ? NULL : as->filename ? g_strdup(as->filename) : header_name(overlay, image);
    const char *format = !image ? NULL : as->mask_protocol && image->driver->kind == BLK_PROTOCOL ? "raw"
                         : blk_node_driver_name(image);
    BlkChild *user = blk_co_attach(overlay, "change of the backing file", BLK_PERM_WRITE_UNCHANGED, BLK_PERM_ALL, error);

    if (!user) {
        return -EPERM;
    }
    int ret = blk_co_change_backing(overlay, name, format, error);
    blk_co_detach(user);
    if (ret < 0) {
        g_prefix_error(error, "Could not change the backing file of '%s' to '%s': ", blk_node_name(overlay), name ? name : "");
    }
    return ret;
}

int blk_co_chain_set_backing(BlkNode *overlay, BlkNode *backing, const BlkChainName *as, GError **error)
{
    g_autoptr(GArray) changed = blk_chain_changes_new();

    blk_node_ref(overlay);
    int ret = blk_co_chain_make(overlay, true, changed, error);
    ret = ret < 0 ? ret : co_change_header(overlay, backing, as, error);
    if (ret == 0) {
        ret = blk_co_set_backing(overlay, backing, error);
        if (ret < 0) {
            g_prefix_error(error, "The image '%s' names its new backing file, but the open node cannot use it: ",
                           blk_node_name(overlay));
        }
    }
    blk_co_chain_make_as_before(changed, false);
    blk_co_unref(overlay);
    return ret;
}
