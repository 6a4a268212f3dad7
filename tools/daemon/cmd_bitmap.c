/* SPDX-License-Identifier: MIT */
/*
 * cmd_bitmap.c - commands about dirty bitmaps, which are actions of transactions, too; and what queries say about them.
 *
 * Before a persistent bitmap is changed the image says that it is in use (blk_co_bitmap_touch()), so that nobody trusts
 * what the image has of it after a crash. That is done in co_begin, since it reads and writes.
 */
#include "daemon/cmd_bitmap.h"

#include "core/bitmap.h"
#include "daemon/transaction.h"

/* ---- finding ---- */

static BlkNode *find_node(Daemon *d, const char *name, GError **error)
{
    BlkNode *node = blk_node_find(d->ctx, name);

    if (!node) {
        blk_error(error, -ENOENT, "Node '%s' not found", name);
    }
    return node;
}

/* @node: (nullable): NULL: there is none, as @error says. */
static BlkDirtyBitmap *find_in(BlkNode *node, const char *name, BlkBitmapUse use, GError **error)
{
    BlkDirtyBitmap *bitmap = node ? blk_bitmap_find(node, name) : NULL;

    if (node && !bitmap) {
        blk_error(error, -ENOENT, "Dirty bitmap '%s' not found", name);
    }
    return bitmap && blk_bitmap_check(bitmap, use, error) == 0 ? bitmap : NULL;
}

/* The bitmap that the argument @key of the step names. */
static BlkDirtyBitmap *find(const DaemonStep *step, const char *key, BlkBitmapUse use, GError **error)
{
    BlkNode *node = find_node(step->daemon, blk_options_string(step->args, "node"), error);

    return find_in(node, blk_options_string(step->args, key), use, error);
}

static int co_touch(const DaemonStep *step, const char *key, BlkBitmapUse use, GError **error)
{
    BlkDirtyBitmap *bitmap = find(step, key, use, NULL);

    return bitmap ? blk_co_bitmap_touch(bitmap, error) : 0;
}

/* Found, loaded and free. */
static int co_find_loaded(const DaemonStep *step, const char *key, BlkBitmapUse use, BlkDirtyBitmap **bitmap,
                          GError **error)
{
    *bitmap = find(step, key, use, error);
    return *bitmap ? blk_co_bitmap_load(*bitmap, error) : -EINVAL;
}

#define ARG_NODE { "node", BLK_OPTION_STRING, "name of the node", .required = true }

static const char *const node_key[] = { "node", NULL };

static const BlkOption bitmap_args[] = {
    ARG_NODE,
    { "name", BLK_OPTION_STRING, "name of the bitmap", .required = true },
    { NULL },
};

/* ---- add ---- */

static const BlkOption add_args[] = {
    ARG_NODE,
    { "name", BLK_OPTION_STRING, "name of the bitmap, unlike those of the node's others", .required = true },
    { "granularity", BLK_OPTION_UINT, "bytes that one bit stands for: a power of 2, at least 512; without it the cluster "
      "size, within 4 KiB and 64 KiB", .min = 0, .max = UINT32_MAX },
    { "persistent", BLK_OPTION_BOOL, "the image keeps it", "off" },
    { "disabled", BLK_OPTION_BOOL, "it does not record yet", "off" },
    { NULL },
};

typedef struct Added {
    BlkDirtyBitmap *bitmap;
} Added;

static int add_co_prepare(DaemonStep *step, GError **error)
{
    const char *node_name = blk_options_string(step->args, "node");
    BlkNode *node = daemon_find_node(step->daemon, node_name, node_name, error);
    uint64_t granularity = blk_options_uint(step->args, "granularity");
    Added *added = step->state;

    if (!node) {
        return -ENOENT;
    }
    if (blk_options_has(step->args, "granularity") && granularity == 0) {
        return blk_error(error, -EINVAL, "Granularity must be power of 2 and at least 512");
    }
    added->bitmap = blk_bitmap_add(node, blk_options_string(step->args, "name"), granularity,
                                   blk_options_bool(step->args, "persistent"), error);
    if (!added->bitmap) {
        return -EINVAL;
    }
    blk_bitmap_enable(added->bitmap, !blk_options_bool(step->args, "disabled"));
    return 0;
}

static void add_co_abort(DaemonStep *step)
{
    blk_bitmap_remove(((Added *)step->state)->bitmap);
}

/* ---- remove: claimed at first, gone at commit ---- */

typedef struct Removed {
    BlkDirtyBitmap *bitmap;
    BlkNode *node;              /* (nullable): its image has it still: a reference */
} Removed;

static int remove_co_begin(DaemonStep *step, GError **error)
{
    return co_touch(step, "name", BLK_BITMAP_REMOVE, error);
}

static int remove_co_prepare(DaemonStep *step, GError **error)
{
    Removed *removed = step->state;

    removed->bitmap = find(step, "name", BLK_BITMAP_REMOVE, error);
    return removed->bitmap ? blk_bitmap_claim(removed->bitmap, BLK_BITMAP_REMOVE, error) : -EINVAL;
}

static void remove_commit(DaemonStep *step)
{
    Removed *removed = step->state;

    if (blk_bitmap_persistent(removed->bitmap)) {
        removed->node = blk_node_ref(find_node(step->daemon, blk_options_string(step->args, "node"), NULL));
    }
    blk_bitmap_release(removed->bitmap);
    blk_bitmap_remove(removed->bitmap);
}

static void remove_co_abort(DaemonStep *step)
{
    blk_bitmap_release(((Removed *)step->state)->bitmap);
}

static void remove_co_clean(DaemonStep *step)
{
    Removed *removed = step->state;
    g_autoptr(GError) error = NULL;

    if (removed->node && blk_co_bitmaps_store(removed->node, &error) < 0) {
        blk_node_message(removed->node, "the image still has the removed bitmap '%s', marked as in use, until its bitmaps "
                         "can be stored: %s", blk_options_string(step->args, "name"), error->message);
    }
    blk_co_unref(removed->node);
}

/* ---- clear, merge: a copy is kept until it is certain ---- */

typedef struct Changed {
    BlkDirtyBitmap *bitmap, *copy;
} Changed;

static void changed_commit(DaemonStep *step)
{
    blk_bitmap_remove(((Changed *)step->state)->copy);
}

static void changed_co_abort(DaemonStep *step)
{
    Changed *changed = step->state;

    blk_bitmap_restore(changed->bitmap, changed->copy);
}

static int clear_co_begin(DaemonStep *step, GError **error)
{
    return co_touch(step, "name", BLK_BITMAP_CHANGE, error);
}

static int clear_co_prepare(DaemonStep *step, GError **error)
{
    Changed *changed = step->state;
    int ret = co_find_loaded(step, "name", BLK_BITMAP_CHANGE, &changed->bitmap, error);

    if (ret == 0) {
        changed->copy = blk_bitmap_copy(changed->bitmap);
        blk_bitmap_clear(changed->bitmap, 0, UINT64_MAX);
    }
    return ret;
}

static const BlkType bitmap_type = { "BlockDirtyBitmap", BLK_TYPE_OBJECT, bitmap_args };
static const BlkOption bitmap_alternatives[] = {
    { "local", BLK_OPTION_STRING, "a bitmap of the same node" },
    { "external", BLK_OPTION_JSON, "a bitmap of any node", .json = &bitmap_type },
    { NULL },
};
static const BlkType bitmap_or_name_type = { "BlockDirtyBitmapOrStr", BLK_TYPE_ALTERNATE, bitmap_alternatives };
static const BlkOption bitmap_element[] = { { "bitmap", BLK_OPTION_JSON, "a bitmap", .json = &bitmap_or_name_type }, { NULL } };
const BlkType daemon_bitmaps_type = { .kind = BLK_TYPE_ARRAY, .members = bitmap_element };

static const BlkOption merge_args[] = {
    ARG_NODE,
    { "target", BLK_OPTION_STRING, "name of the bitmap to which the others are added", .required = true },
    { "bitmaps", BLK_OPTION_JSON, "the others: names, or objects of \"node\" and \"name\"", .required = true,
      .json = &daemon_bitmaps_type },
    { NULL },
};

int daemon_find_bitmap_ref(Daemon *d, JsonArray *list, guint index, BlkBitmapRef *ref, GError **error)
{
    JsonNode *element = json_array_get_element(list, index);
    JsonObject *object;

    *ref = (BlkBitmapRef) { NULL };
    if (!JSON_NODE_HOLDS_OBJECT(element)) {
        ref->name = json_node_get_string(element);
        return 0;
    }
    object = json_node_get_object(element);
    ref->name = json_object_get_string_member(object, "name");
    ref->node = find_node(d, json_object_get_string_member(object, "node"), error);
    return ref->node ? 0 : -ENOENT;
}

/* Bitmap number @index of "bitmaps". */
static BlkDirtyBitmap *find_source(const DaemonStep *step, guint index, GError **error)
{
    JsonArray *list = daemon_options_array(step->args, "bitmaps");
    BlkBitmapRef ref;

    if (daemon_find_bitmap_ref(step->daemon, list, index, &ref, error) < 0) {
        return NULL;
    }
    if (!ref.node) {
        ref.node = find_node(step->daemon, blk_options_string(step->args, "node"), error);
    }
    return find_in(ref.node, ref.name, BLK_BITMAP_READ, error);
}

static guint count_sources(const DaemonStep *step)
{
    return json_array_get_length(daemon_options_array(step->args, "bitmaps"));
}

static int merge_co_begin(DaemonStep *step, GError **error)
{
    int ret = 0;

    for (guint i = 0; ret == 0 && i < count_sources(step); i++) {
        BlkDirtyBitmap *source = find_source(step, i, NULL);

        ret = source ? blk_co_bitmap_load(source, error) : 0;
    }
    return ret < 0 ? ret : co_touch(step, "target", BLK_BITMAP_CHANGE, error);
}

static int merge_co_prepare(DaemonStep *step, GError **error)
{
    Changed *changed = step->state;
    int ret = co_find_loaded(step, "target", BLK_BITMAP_CHANGE, &changed->bitmap, error);
    if (ret < 0) {
        return ret;
    }
    changed->copy = blk_bitmap_copy(changed->bitmap);
    for (guint i = 0; ret == 0 && i < count_sources(step); i++) {
        BlkDirtyBitmap *source = find_source(step, i, error);

        ret = source ? blk_co_bitmap_merge(changed->bitmap, source, error) : -EINVAL;
    }
    if (ret < 0) {
        changed_co_abort(step);
    }
    return ret;
}

/* ---- enable, disable ---- */

typedef struct Switched {
    BlkDirtyBitmap *bitmap;
    bool was_enabled;
} Switched;

static int switch_co_begin(DaemonStep *step, GError **error)
{
    return co_touch(step, "name", BLK_BITMAP_READ, error);
}

static int switch_prepare(DaemonStep *step, bool enable, GError **error)
{
    Switched *switched = step->state;

    switched->bitmap = find(step, "name", BLK_BITMAP_READ, error);
    if (!switched->bitmap) {
        return -EINVAL;
    }
    switched->was_enabled = blk_bitmap_enabled(switched->bitmap);
    blk_bitmap_enable(switched->bitmap, enable);
    return 0;
}

static int enable_co_prepare(DaemonStep *step, GError **error)
{
    return switch_prepare(step, true, error);
}

static int disable_co_prepare(DaemonStep *step, GError **error)
{
    return switch_prepare(step, false, error);
}

static void switch_co_abort(DaemonStep *step)
{
    Switched *switched = step->state;

    blk_bitmap_enable(switched->bitmap, switched->was_enabled);
}

/* ---- the tables ---- */

enum { ADD, REMOVE, CLEAR, ENABLE, DISABLE, MERGE };

const DaemonAction daemon_bitmap_actions[] = {
    [ADD] = { .name = "block-dirty-bitmap-add", .args = add_args, .nodes = node_key, .state_size = sizeof(Added),
              .co_prepare = add_co_prepare, .co_abort = add_co_abort },
    [REMOVE] = { .name = "block-dirty-bitmap-remove", .args = bitmap_args, .nodes = node_key,
                 .state_size = sizeof(Removed), .co_begin = remove_co_begin, .co_prepare = remove_co_prepare,
                 .commit = remove_commit, .co_abort = remove_co_abort, .co_clean = remove_co_clean },
    [CLEAR] = { .name = "block-dirty-bitmap-clear", .args = bitmap_args, .nodes = node_key,
                .state_size = sizeof(Changed), .co_begin = clear_co_begin, .co_prepare = clear_co_prepare,
                .commit = changed_commit, .co_abort = changed_co_abort },
    [ENABLE] = { .name = "block-dirty-bitmap-enable", .args = bitmap_args, .nodes = node_key,
                 .state_size = sizeof(Switched), .co_begin = switch_co_begin, .co_prepare = enable_co_prepare,
                 .co_abort = switch_co_abort },
    [DISABLE] = { .name = "block-dirty-bitmap-disable", .args = bitmap_args, .nodes = node_key,
                  .state_size = sizeof(Switched), .co_begin = switch_co_begin, .co_prepare = disable_co_prepare,
                  .co_abort = switch_co_abort },
    [MERGE] = { .name = "block-dirty-bitmap-merge", .args = merge_args, .nodes = node_key,
                .state_size = sizeof(Changed), .co_begin = merge_co_begin, .co_prepare = merge_co_prepare,
                .commit = changed_commit, .co_abort = changed_co_abort },
    { NULL },
};

/* ---- commands ---- */

static int co_add(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    return daemon_co_run_action(d, &daemon_bitmap_actions[ADD], args, error);
}

static int co_remove(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    return daemon_co_run_action(d, &daemon_bitmap_actions[REMOVE], args, error);
}

static int co_clear(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    return daemon_co_run_action(d, &daemon_bitmap_actions[CLEAR], args, error);
}

static int co_enable(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    return daemon_co_run_action(d, &daemon_bitmap_actions[ENABLE], args, error);
}

static int co_disable(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    return daemon_co_run_action(d, &daemon_bitmap_actions[DISABLE], args, error);
}

static int co_merge(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    return daemon_co_run_action(d, &daemon_bitmap_actions[MERGE], args, error);
}

/* Of all bits, each word of 64 in the order of the least byte first. */
static char *hash_bits(const BlkDirtyBits *bits, uint64_t granules)
{
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
    uint64_t words = MAX((granules + 63) / 64, 1);
    uint8_t buf[4096];

    for (uint64_t first = 0; first < words; first += sizeof(buf) / 8) {
        size_t bytes = MIN(words - first, sizeof(buf) / 8) * 8;

        blk_dirty_bits_export(bits, first * 64, buf, bytes);
        g_checksum_update(sum, buf, (gssize)bytes);
    }
    return g_strdup(g_checksum_get_string(sum));
}

static int co_sha256(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    const DaemonStep step = { .daemon = d, .args = args };
    BlkDirtyBitmap *bitmap;
    JsonObject *object;
    g_autofree char *hash = NULL;
    int ret = co_find_loaded(&step, "name", BLK_BITMAP_READ, &bitmap, error);

    if (ret < 0) {
        return ret;
    }
    uint64_t length = blk_dirty_bits_length(blk_bitmap_bits(bitmap)), granularity = blk_bitmap_granularity(bitmap);

    hash = hash_bits(blk_bitmap_bits(bitmap), length / granularity + (length % granularity != 0));
    object = json_object_new();
    json_object_set_string_member(object, "sha256", hash);
    *result = daemon_result_object(object);
    return 0;
}

const DaemonCommand daemon_bitmap_commands[] = {
    { "block-dirty-bitmap-add", "makes a bitmap, which records what is written to a node", add_args, co_add },
    { "block-dirty-bitmap-remove", "removes a bitmap, also from the image that keeps it", bitmap_args, co_remove },
    { "block-dirty-bitmap-clear", "makes all of a bitmap clean", bitmap_args, co_clear },
    { "block-dirty-bitmap-enable", "lets a bitmap record", bitmap_args, co_enable },
    { "block-dirty-bitmap-disable", "lets a bitmap record no more", bitmap_args, co_disable },
    { "block-dirty-bitmap-merge", "adds what is dirty in other bitmaps, also of other nodes", merge_args, co_merge },
    { "x-debug-block-dirty-bitmap-sha256", "says whether two bitmaps are the same", bitmap_args, co_sha256 },
    { NULL },
};

/* ---- queries ---- */

static JsonObject *co_describe(BlkDirtyBitmap *bitmap)
{
    JsonObject *object = json_object_new();
    bool known = blk_co_bitmap_load(bitmap, NULL) == 0, inconsistent = blk_bitmap_inconsistent(bitmap);

    if (blk_bitmap_name(bitmap)) {
        json_object_set_string_member(object, "name", blk_bitmap_name(bitmap));
    }
    json_object_set_int_member(object, "count", known ? (gint64)blk_bitmap_dirty_bytes(bitmap) : 0);
    json_object_set_int_member(object, "granularity", (gint64)blk_bitmap_granularity(bitmap));
    json_object_set_boolean_member(object, "recording", blk_bitmap_enabled(bitmap) && !inconsistent);
    json_object_set_boolean_member(object, "busy", blk_bitmap_busy(bitmap));
    json_object_set_boolean_member(object, "persistent", blk_bitmap_persistent(bitmap));
    if (inconsistent) {
        json_object_set_boolean_member(object, "inconsistent", true);
    }
    return object;
}

JsonArray *daemon_co_describe_bitmaps(BlkNode *node)
{
    JsonArray *array = blk_node_has_bitmaps(node) ? json_array_new() : NULL;
    BlkDirtyBitmap *bitmap;

    for (unsigned i = 0; array && (bitmap = blk_bitmap_nth(node, i)); i++) {
        json_array_add_object_element(array, co_describe(bitmap));
    }
    return array;
}
