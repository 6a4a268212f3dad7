/* SPDX-License-Identifier: MIT */
/*
 * bitmap.c - the dirty bitmaps of a node: names, marking, and persistent ones, which the node's image keeps.
 *
 *     stored, not loaded --blk_co_bitmap_load()--> loaded     (others are loaded from the start)
 *         |  the bits could not be read before a write
 *         v
 *     pending: what is written is noted beside the bits in the image, to which it is added by blk_co_bitmap_load()
 *
 * Writes are marked when they end, in request.c, through which all of them pass. Before the first of them changes
 * anything, the driver says in the image that its bitmaps are in use: one that is found so later is not trusted
 * (inconsistent).
 *
 * While a job works on what is dirty, the bitmap is split: it still has all that is dirty, so that whoever stores it
 * stores the truth, and notes beside it what is written meanwhile, which is what remains when the job is through.
 */
#include "core/bitmap.h"

#include "core/dirty_bitmap.h"

#include <string.h>

struct BlkDirtyBitmap {
    BlkNode *node;
    char *name;                 /* (nullable) */
    uint64_t granularity;
    bool enabled, persistent, inconsistent;
    bool busy;                  /* somebody has claimed it */
    bool changed;               /* bits or properties are not those that the image keeps */
    bool touched;               /* they are about to be changed */
    bool loaded;                /* @bits are all there is, else stored bits belong to them */
    BlkDirtyBits *bits;         /* (nullable): not loaded, nor pending */
    BlkDirtyBits *since;        /* (nullable): what was written since it was split; also in @bits */
    BlkCoMutex loading;
    void *stored;               /* (nullable): the driver's own */
};

/* ---- the list of a node ---- */

static void bitmap_free(void *data)
{
    BlkDirtyBitmap *bitmap = data;

    blk_dirty_bits_free(bitmap->bits);
    blk_dirty_bits_free(bitmap->since);
    g_free(bitmap->name);
    g_free(bitmap);
}

static BlkDirtyBitmap *attach(BlkNode *node, const char *name, uint64_t granularity)
{
    BlkDirtyBitmap *bitmap = g_new0(BlkDirtyBitmap, 1);

    bitmap->node = node;
    bitmap->name = g_strdup(name);
    bitmap->granularity = granularity;
    bitmap->enabled = true;
    if (!node->core->bitmaps) {
        node->core->bitmaps = g_ptr_array_new_with_free_func(bitmap_free);
    }
    g_ptr_array_add(node->core->bitmaps, bitmap);
    return bitmap;
}

static void detach(BlkDirtyBitmap *bitmap)
{
    BlkNodeCore *core = bitmap->node->core;

    g_assert(!bitmap->busy);
    g_ptr_array_remove(core->bitmaps, bitmap);
    if (core->bitmaps->len == 0) {
        g_clear_pointer(&core->bitmaps, g_ptr_array_unref);
    }
}

void blk_bitmaps_free(BlkNode *node)
{
    g_clear_pointer(&node->core->bitmaps, g_ptr_array_unref);
}

BlkDirtyBitmap *blk_bitmap_nth(const BlkNode *node, unsigned index)
{
    const GPtrArray *bitmaps = node->core->bitmaps;

    return bitmaps && index < bitmaps->len ? g_ptr_array_index(bitmaps, index) : NULL;
}

BlkDirtyBitmap *blk_bitmap_find(const BlkNode *node, const char *name)
{
    BlkDirtyBitmap *bitmap;

    for (unsigned i = 0; (bitmap = blk_bitmap_nth(node, i)); i++) {
        if (bitmap->name && strcmp(bitmap->name, name) == 0) {
            return bitmap;
        }
    }
    return NULL;
}

static const char *name_of(const BlkDirtyBitmap *bitmap)
{
    return bitmap->name ? bitmap->name : "";
}

static int check_consistent(const BlkDirtyBitmap *bitmap, GError **error)
{
    if (!bitmap->inconsistent) {
        return 0;
    }
    return blk_error(error, -EINVAL, "Bitmap '%s' is inconsistent and cannot be used: it was not stored when the image "
                     "was used last; it can only be removed", name_of(bitmap));
}

int blk_bitmap_check(const BlkDirtyBitmap *bitmap, BlkBitmapUse use, GError **error)
{
    if (bitmap->busy) {
        return blk_error(error, -EBUSY, "Bitmap '%s' is currently in use by another operation and cannot be used",
                         name_of(bitmap));
    }
    if (use != BLK_BITMAP_READ && bitmap->persistent && bitmap->node->read_only) {
        return blk_error(error, -EROFS, "Bitmap '%s' is readonly and cannot be modified", name_of(bitmap));
    }
    return use == BLK_BITMAP_REMOVE ? 0 : check_consistent(bitmap, error);
}

BlkDirtyBitmap *blk_bitmap_find_usable(const BlkNode *node, const char *name, GError **error)
{
    BlkDirtyBitmap *bitmap = blk_bitmap_find(node, name);

    if (!bitmap) {
        blk_error(error, -ENOENT, "Dirty bitmap '%s' not found", name);
        return NULL;
    }
    return blk_bitmap_check(bitmap, BLK_BITMAP_READ, error) < 0 ? NULL : bitmap;
}

int blk_bitmap_claim(BlkDirtyBitmap *bitmap, BlkBitmapUse use, GError **error)
{
    int ret = blk_bitmap_check(bitmap, use, error);

    bitmap->busy |= ret == 0;
    return ret;
}

void blk_bitmap_release(BlkDirtyBitmap *bitmap)
{
    g_assert(bitmap->busy && !bitmap->since);
    bitmap->busy = false;
}

/* ---- adding and removing ---- */

uint64_t blk_bitmap_default_granularity(const BlkNode *node)
{
    return node->limits.cluster_size ? CLAMP(node->limits.cluster_size, 4096, 65536) : 65536;
}

static int check_name(const BlkNode *node, const char *name, GError **error)
{
    if (*name == 0) {
        return blk_error(error, -EINVAL, "Bitmap name cannot be empty");
    }
    if (strlen(name) > BLK_BITMAP_MAX_NAME) {
        return blk_error(error, -EINVAL, "Bitmap name too long: %zu bytes, the limit is %d", strlen(name),
                         BLK_BITMAP_MAX_NAME);
    }
    if (blk_bitmap_find(node, name)) {
        return blk_error(error, -EEXIST, "Bitmap already exists: %s", name);
    }
    return 0;
}

static int check_persistent(BlkNode *node, const char *name, uint64_t granularity, GError **error)
{
    if (!name) {
        return blk_error(error, -EINVAL, "A bitmap without a name cannot be kept");
    }
    if (!node->driver->bitmaps) {
        return blk_error(error, -ENOTSUP, "Can't store persistent bitmaps to '%s': the driver '%s' keeps none",
                         blk_node_name(node), node->driver->name);
    }
    if (node->read_only) {
        return blk_error(error, -EACCES, "Can't store persistent bitmaps to '%s': it is read-only",
                         blk_node_name(node));
    }
    return node->driver->bitmaps->check_add(node, name, granularity, error);
}

BlkDirtyBitmap *blk_bitmap_add(BlkNode *node, const char *name, uint64_t granularity, bool persistent, GError **error)
{
    BlkDirtyBits *bits;
    BlkDirtyBitmap *bitmap;

    if (granularity == 0) {
        granularity = blk_bitmap_default_granularity(node);
    }
    if (granularity < BLK_BITMAP_MIN_GRANULARITY || granularity > BLK_BITMAP_MAX_GRANULARITY ||
        (granularity & (granularity - 1)) != 0) {
        blk_error(error, -EINVAL, "Granularity must be power of 2 and at least 512, and at most 2 GiB");
        return NULL;
    }
    if ((name && check_name(node, name, error) < 0) ||
        (persistent && check_persistent(node, name, granularity, error) < 0)) {
        return NULL;
    }
    bits = blk_dirty_bits_new(node->length, granularity);
    if (!bits) {
        blk_error(error, -EFBIG, "Too much space will be occupied by the bitmap. Use larger granularity");
        return NULL;
    }
    bitmap = attach(node, name, granularity);
    bitmap->bits = bits;
    bitmap->loaded = true;
    bitmap->persistent = bitmap->changed = persistent;
    return bitmap;
}

void blk_bitmap_remove(BlkDirtyBitmap *bitmap)
{
    if (bitmap->stored) {
        bitmap->node->driver->bitmaps->forget(bitmap->node, bitmap->stored);
    }
    detach(bitmap);
}

int blk_bitmaps_check_unclaimed(const BlkNode *node, GError **error)
{
    BlkDirtyBitmap *bitmap;
    int ret = 0;

    for (unsigned i = 0; ret == 0 && (bitmap = blk_bitmap_nth(node, i)); i++) {
        ret = bitmap->persistent ? blk_bitmap_check(bitmap, BLK_BITMAP_REMOVE, error) : 0;
    }
    return ret;
}

/* ---- properties ---- */

const char *blk_bitmap_name(const BlkDirtyBitmap *bitmap)
{
    return bitmap->name;
}

uint64_t blk_bitmap_granularity(const BlkDirtyBitmap *bitmap)
{
    return bitmap->granularity;
}

bool blk_bitmap_persistent(const BlkDirtyBitmap *bitmap)
{
    return bitmap->persistent;
}

bool blk_bitmap_enabled(const BlkDirtyBitmap *bitmap)
{
    return bitmap->enabled;
}

bool blk_bitmap_inconsistent(const BlkDirtyBitmap *bitmap)
{
    return bitmap->inconsistent;
}

bool blk_bitmap_busy(const BlkDirtyBitmap *bitmap)
{
    return bitmap->busy;
}

void blk_bitmap_enable(BlkDirtyBitmap *bitmap, bool enable)
{
    bitmap->changed |= bitmap->enabled != enable;
    bitmap->enabled = enable;
}

/* ---- bits ---- */

void blk_bitmap_set(BlkDirtyBitmap *bitmap, uint64_t offset, uint64_t bytes)
{
    blk_dirty_bits_set(bitmap->bits, offset, bytes);
    bitmap->changed = true;
}

void blk_bitmap_clear(BlkDirtyBitmap *bitmap, uint64_t offset, uint64_t bytes)
{
    blk_dirty_bits_clear(bitmap->bits, offset, bytes);
    bitmap->changed = true;
}

bool blk_bitmap_get(const BlkDirtyBitmap *bitmap, uint64_t offset)
{
    return blk_dirty_bits_get(bitmap->bits, offset);
}

uint64_t blk_bitmap_dirty_bytes(const BlkDirtyBitmap *bitmap)
{
    return blk_dirty_bits_bytes(bitmap->bits);
}

bool blk_bitmap_next(const BlkDirtyBitmap *bitmap, uint64_t offset, uint64_t *start, uint64_t *bytes)
{
    return blk_dirty_bits_next(bitmap->bits, offset, start, bytes);
}

int blk_co_bitmap_merge(BlkDirtyBitmap *bitmap, BlkDirtyBitmap *source, GError **error)
{
    int ret = blk_co_bitmap_load(bitmap, error);

    if (ret == 0) {
        ret = blk_co_bitmap_load(source, error);
    }
    if (ret < 0) {
        return ret;
    }
    if (blk_dirty_bits_length(bitmap->bits) != blk_dirty_bits_length(source->bits)) {
        return blk_error(error, -EINVAL, "Bitmaps are of different sizes (destination size is %" G_GUINT64_FORMAT
                         ", source size is %" G_GUINT64_FORMAT ") and can't be merged",
                         blk_dirty_bits_length(bitmap->bits), blk_dirty_bits_length(source->bits));
    }
    blk_dirty_bits_merge(bitmap->bits, source->bits);
    bitmap->changed = true;
    return 0;
}

/* ---- copies ---- */

BlkDirtyBitmap *blk_bitmap_copy(const BlkDirtyBitmap *bitmap)
{
    BlkDirtyBitmap *copy = attach(bitmap->node, NULL, bitmap->granularity);

    copy->bits = blk_dirty_bits_copy(bitmap->bits);
    copy->loaded = true;
    copy->enabled = false;
    return copy;
}

static void replace_bits(BlkDirtyBitmap *bitmap, BlkDirtyBits *bits)
{
    blk_dirty_bits_free(bitmap->bits);
    bitmap->bits = bits;
    bitmap->changed = true;
}

void blk_bitmap_restore(BlkDirtyBitmap *bitmap, BlkDirtyBitmap *copy)
{
    replace_bits(bitmap, g_steal_pointer(&copy->bits));
    detach(copy);
}

BlkDirtyBitmap *blk_bitmap_split(BlkDirtyBitmap *bitmap)
{
    g_assert(bitmap->busy && bitmap->loaded && !bitmap->since);
    bitmap->since = blk_dirty_bits_new(blk_dirty_bits_length(bitmap->bits), bitmap->granularity);
    return blk_bitmap_copy(bitmap);
}

void blk_bitmap_join(BlkDirtyBitmap *bitmap, BlkDirtyBitmap *rest)
{
    blk_dirty_bits_merge(bitmap->since, rest->bits);
    replace_bits(bitmap, g_steal_pointer(&bitmap->since));
    detach(rest);
}

/* ---- requests ---- */

int blk_bitmaps_co_before_change(BlkNode *node, uint64_t length, GError **error)
{
    const BlkBitmapOps *ops = node->driver->bitmaps;
    BlkDirtyBitmap *bitmap;

    for (unsigned i = 0; length > node->length && (bitmap = blk_bitmap_nth(node, i)); i++) {
        if ((length - 1) / bitmap->granularity >= BLK_BITMAP_MAX_BITS) {
            return blk_error(error, -EFBIG, "The bitmap '%s' would have more than %" G_GUINT64_FORMAT " bits: remove "
                             "it first", name_of(bitmap), BLK_BITMAP_MAX_BITS);
        }
    }
    return ops ? ops->co_before_change(node, length, error) : 0;
}

/* A node that writes make longer has no other moment to tell its bitmaps. */
static void follow_length(BlkNode *node)
{
    for (guint i = 0; i < node->core->bitmaps->len; i++) {
        BlkDirtyBitmap *bitmap = g_ptr_array_index(node->core->bitmaps, i);

        if (bitmap->bits && blk_dirty_bits_length(bitmap->bits) != node->length) {
            bitmap->changed = true;
            if (!blk_dirty_bits_resize(bitmap->bits, node->length) ||
                (bitmap->since && !blk_dirty_bits_resize(bitmap->since, node->length))) {
                bitmap->inconsistent = true;
                blk_node_message(node, "the bitmap '%s' has too many bits for the new length and cannot be used any "
                                 "more", name_of(bitmap));
            }
        }
    }
}

void blk_bitmaps_length_changed(BlkNode *node)
{
    if (node->core->bitmaps) {
        follow_length(node);
    }
}

void blk_bitmaps_mark_list(BlkNode *node, uint64_t offset, uint64_t bytes)
{
    follow_length(node);
    for (guint i = 0; i < node->core->bitmaps->len; i++) {
        BlkDirtyBitmap *bitmap = g_ptr_array_index(node->core->bitmaps, i);

        if (bitmap->enabled && bitmap->bits) {
            blk_dirty_bits_set(bitmap->bits, offset, bytes);
            if (bitmap->since) {
                blk_dirty_bits_set(bitmap->since, offset, bytes);
            }
            bitmap->changed = true;
        }
    }
}

/* ---- what the image keeps ---- */

bool blk_node_stores_bitmaps(const BlkNode *node)
{
    return node->driver->bitmaps && node->driver->bitmaps->supported(node);
}

static int co_read_bits(BlkDirtyBitmap *bitmap, GError **error)
{
    g_autoptr(BlkDirtyBits) bits = blk_dirty_bits_new(bitmap->node->length, bitmap->granularity);
    int ret;

    if (!bits) {
        ret = blk_error(error, -EFBIG, "it has more than %" G_GUINT64_FORMAT " bits", BLK_BITMAP_MAX_BITS);
    } else {
        ret = bitmap->node->driver->bitmaps->co_load(bitmap->node, bitmap->stored, bits, error);
    }
    if (ret < 0) {
        g_prefix_error(error, "Could not read the bitmap '%s': ", bitmap->name);
        return ret;
    }
    if (bitmap->bits) {
        blk_dirty_bits_merge(bits, bitmap->bits);
        blk_dirty_bits_free(bitmap->bits);
    }
    bitmap->bits = g_steal_pointer(&bits);
    bitmap->loaded = true;
    return 0;
}

bool blk_node_has_bitmaps(const BlkNode *node)
{
    return node->core->bitmaps != NULL;
}

int blk_co_bitmap_load(BlkDirtyBitmap *bitmap, GError **error)
{
    int ret = check_consistent(bitmap, error);

    if (ret == 0 && !bitmap->loaded) {
        blk_co_mutex_lock(&bitmap->loading);
        ret = bitmap->loaded ? 0 : co_read_bits(bitmap, error);
        blk_co_mutex_unlock(&bitmap->loading);
    }
    return ret;
}

int blk_co_bitmap_touch(BlkDirtyBitmap *bitmap, GError **error)
{
    BlkNode *node = bitmap->node;
    int ret = bitmap->inconsistent ? 0 : blk_co_bitmap_load(bitmap, error);

    if (ret < 0 || !bitmap->stored || node->read_only) {
        return ret;
    }
    bitmap->touched = true;
    return blk_bitmaps_co_before_change(node, node->length, error);
}

int blk_co_bitmaps_store(BlkNode *node, GError **error)
{
    int ret;

    if (!node->driver->bitmaps) {
        return 0;
    }
    ret = blk_co_image_drain(node, error);      /* bits that are set meanwhile would be lost */
    ret = ret < 0 ? ret : node->driver->bitmaps->co_store(node, error);
    blk_drain_end(node);
    return ret;
}

BlkDirtyBitmap *blk_bitmap_attach_stored(BlkNode *node, const char *name, uint64_t granularity, bool enabled,
                                         bool inconsistent, void *stored)
{
    BlkDirtyBitmap *bitmap = attach(node, name, granularity);

    bitmap->persistent = true;
    bitmap->enabled = enabled;
    bitmap->inconsistent = inconsistent;
    bitmap->stored = stored;
    return bitmap;
}

void blk_bitmap_detach_stored(BlkDirtyBitmap *bitmap)
{
    detach(bitmap);
}

void *blk_bitmap_stored(const BlkDirtyBitmap *bitmap)
{
    return bitmap->stored;
}

void blk_bitmap_set_stored(BlkDirtyBitmap *bitmap, void *stored)
{
    bitmap->stored = stored;
    bitmap->changed = bitmap->touched = false;
}

bool blk_bitmap_changed(const BlkDirtyBitmap *bitmap)
{
    return bitmap->changed;
}

bool blk_bitmap_touched(const BlkDirtyBitmap *bitmap)
{
    return bitmap->touched;
}

void blk_bitmap_set_inconsistent(BlkDirtyBitmap *bitmap)
{
    bitmap->inconsistent = true;
}

bool blk_bitmap_set_pending(BlkDirtyBitmap *bitmap)
{
    g_assert(!bitmap->loaded);
    if (!bitmap->bits) {
        bitmap->bits = blk_dirty_bits_new(bitmap->node->length, bitmap->granularity);
    }
    return bitmap->bits != NULL;
}

bool blk_bitmap_pending(const BlkDirtyBitmap *bitmap)
{
    return bitmap->bits && !bitmap->loaded;
}

const BlkDirtyBits *blk_bitmap_bits(const BlkDirtyBitmap *bitmap)
{
    return bitmap->loaded ? bitmap->bits : NULL;
}
