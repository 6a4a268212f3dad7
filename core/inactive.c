/* SPDX-License-Identifier: MIT */
/*
 * inactive.c - nodes that keep their place in the graph, and let go of what they are open for: blk_co_set_active().
 *
 *     active                              inactive
 *     parent --- node(qcow2)              parent --- node(blk_inactive_driver)
 *                  |  reads, writes                    |  asks for nothing
 *                file(open, locked)                  file(blk_inactive_driver: nothing open, no lock)
 *
 * So another process can have the image meanwhile. An inactive node has a driver that refuses all, in the place of its own;
 * edges, names, options and counters stay. When it becomes active again its own driver opens it anew, with the children that
 * are there already, since everything in the image may have changed.
 *
 * The same lets a node drop changes that could not be written: blk_co_drop_changes().
 *
 * Limitation: bitmaps that are not stored in the image would be lost, and are refused.
 */
#include "core/bitmap.h"
#include "core/node.h"
#include "core/options.h"
#include "core/request.h"
#include "core/stack.h"

/* ---- the driver of inactive nodes ---- */

static int refuse_request(BlkNode *node, BlkRequest *req)
{
    return -EPERM;
}

static int refuse_status(BlkNode *node, uint64_t offset, uint64_t bytes, BlkStatus *status)
{
    return -EPERM;
}

static int refuse_users(BlkNode *node, unsigned perm, unsigned shared, GError **error)
{
    return perm == 0 ? 0 : blk_error(error, -EPERM, "The node '%s' is inactive: activate it first", blk_node_name(node));
}

static void ask_for_nothing(BlkNode *node, BlkChild *child, unsigned perm, unsigned shared, unsigned *child_perm,
                            unsigned *child_shared)
{
    *child_perm = 0;
    *child_shared = BLK_PERM_ALL;
}

static const BlkDriver blk_inactive_driver = {
    .name            = "inactive",
    .kind            = BLK_PROTOCOL,
    .set_perm        = refuse_users,
    .child_perm      = ask_for_nothing,
    .co_preadv       = refuse_request,
    .co_block_status = refuse_status,
};

static void change_driver(BlkNode *node, const BlkDriver *driver)
{
    g_clear_pointer(&node->core->engine, blk_engine_free);
    g_free(node->opaque);
    node->driver = driver;
    node->opaque = g_malloc0(MAX(driver->instance_size, 1));
    node->core->engine = driver->format ? blk_engine_new() : NULL;
}

void blk_node_make_inactive(BlkNode *node)
{
    node->core->inactive = node->driver;
    node->caps = 0;
    change_driver(node, &blk_inactive_driver);
    blk_limits_refresh(node);
    blk_perm_refresh(&node, 1, NULL);       /* it asks for less than before */
}

/* ---- letting go ---- */

/* (nullable): Who uses it. Users that only know the node, without asking for anything, or that rest, do not count. */
static const BlkChild *find_user(const BlkNode *node)
{
    for (GList *l = node->core->parents.head; l; l = l->next) {
        const BlkChild *user = l->data;

        if (user->parent ? blk_node_active(user->parent) : user->perm != 0 && !user->rests) {
            return user;
        }
    }
    return NULL;
}

/* Does somebody ask something of it, and be it one that rests while it is inactive? */
static bool is_in_use(const BlkNode *node)
{
    bool in_use = find_user(node);

    for (GList *l = node->core->parents.head; !in_use && l; l = l->next) {
        const BlkChild *user = l->data;

        in_use = user->rests && user->perm != 0;
    }
    return in_use;
}

static int check_unused(const BlkNode *node, GError **error)
{
    const BlkChild *user = find_user(node);

    return user ? blk_error(error, -EBUSY, "The node '%s' cannot become inactive: '%s' uses it", blk_node_name(node),
                            user->parent ? blk_node_name(user->parent) : user->name) : 0;
}

static int check_bitmaps(const BlkNode *node, GError **error)
{
    BlkDirtyBitmap *bitmap;

    for (unsigned i = 0; (bitmap = blk_bitmap_nth(node, i)); i++) {
        if (!blk_bitmap_persistent(bitmap)) {
            return blk_error(error, -EBUSY, "The node '%s' cannot become inactive: its dirty bitmap '%s' would be lost, since "
                             "it is not stored in the image; remove it first", blk_node_name(node), blk_bitmap_name(bitmap));
        }
    }
    return blk_bitmaps_check_unclaimed(node, error);
}

/* All is stable when it returns 0. The node is drained. */
static int co_store(BlkNode *node, GError **error)
{
    int ret;

    if (node->read_only) {
        return 0;
    }
    ret = blk_bitmap_nth(node, 0) ? blk_co_bitmaps_store(node, error) : 0;
    if (ret < 0) {
        return ret;
    }
    ret = blk_request_flush(node);
    return ret < 0 ? blk_error_errno(error, ret, "The node '%s' cannot become inactive: what it holds cannot be stored",
                                     blk_node_name(node)) : 0;
}

/* What it holds is stored, or need not be. */
static void co_close_driver(BlkNode *node)
{
    node->core->open = false;               /* nobody may find it in between */
    if (node->driver->co_close) {
        node->driver->co_close(node);
    }
    blk_bitmaps_free(node);
    blk_node_make_inactive(node);
    node->core->open = true;
}

static int co_let_go(BlkNode *node, GError **error)
{
    int ret = blk_co_drain_begin(node);

    if (ret < 0) {
        blk_error_errno(error, ret, "The node '%s' cannot become inactive: it holds data that could not be written",
                        blk_node_name(node));
    }
    ret = ret < 0 ? ret : check_unused(node, error);
    ret = ret < 0 ? ret : check_bitmaps(node, error);
    ret = ret < 0 ? ret : co_store(node, error);
    if (ret == 0) {
        co_close_driver(node);
    }
    blk_drain_end(node);
    return ret;
}

/* Children that nobody else uses follow. */
static int co_set_below(BlkNode *node, GError **error)
{
    int ret = 0;

    for (GList *l = node->core->children.head; ret == 0 && l; l = l->next) {
        BlkNode *child = ((BlkChild *)l->data)->node;

        ret = !find_user(child) ? blk_co_set_active(child, false, error) : 0;
    }
    return ret;
}

/* ---- and coming back ---- */

static int co_open_again(BlkNode *node, GError **error)
{
    g_autoptr(BlkOptions) options = blk_driver_parse_options(node->core->inactive, node->core->options, error);
    int ret;

    if (!options) {
        return -EINVAL;
    }
    node->core->open = false;
    change_driver(node, node->core->inactive);
    node->core->inactive = NULL;
    node->read_only = node->core->flags.read_only;
    ret = blk_co_open_driver(node, options, error);
    node->core->open = true;
    if (ret == 0) {
        ret = blk_perm_refresh(&node, 1, error);        /* users that rested */
        if (ret < 0) {
            co_store(node, NULL);
        }
    }
    if (ret < 0) {
        co_close_driver(node);
    }
    return ret;
}

/* The nodes below one that comes back. */
typedef struct Below {
    BlkContext *ctx;
    GPtrArray *nodes;           /* of BlkNode: references to those that were made active for it */
    bool no_time_passed;        /* nobody else can have had the image */
} Below;

/* One that is active already, but that nobody uses, is opened anew: another process may have changed the image since. */
static int co_bring_back(Below *below, BlkNode *node, GError **error)
{
    bool anew = blk_node_active(node) && !is_in_use(node) && !below->no_time_passed;
    int ret = anew ? blk_co_set_active(node, false, error) : 0;

    if (ret == 0 && !blk_node_active(node)) {
        g_ptr_array_add(below->nodes, blk_node_ref(node));
        ret = blk_co_set_active(node, true, error);
    }
    return ret;
}

static int co_bring_back_named(Below *below, const BlkDriver *driver, JsonObject *tree, const BlkNode *node, GError **error);

/* What stands in options in the place of a child. */
static int co_bring_back_value(Below *below, JsonNode *value, GError **error)
{
    if (value && JSON_NODE_HOLDS_OBJECT(value)) {
        JsonObject *tree = json_node_get_object(value);
        const char *name = json_object_get_string_member_with_default(tree, "driver", NULL);
        const BlkDriver *driver = name ? blk_driver_find(below->ctx, name) : NULL;

        return driver ? co_bring_back_named(below, driver, tree, NULL, error) : 0;
    }
    BlkNode *child = value && JSON_NODE_HOLDS_VALUE(value) ? blk_node_find(below->ctx, json_node_get_string(value)) : NULL;
    return child ? co_bring_back(below, child, error) : 0;
}

/* The nodes that options call by their names. @node: (nullable): whose options these are; children that it has are left out. */
static int co_bring_back_named(Below *below, const BlkDriver *driver, JsonObject *tree, const BlkNode *node, GError **error)
{
    g_autoptr(BlkOptions) options = blk_driver_parse_options(driver, tree, error);
    int ret = options ? 0 : -EINVAL;

    for (const BlkOption *o = blk_driver_child_options(driver); ret == 0 && o && o->name; o++) {
        if (o->type == BLK_OPTION_NODE && !(node && blk_node_child_edge(node, o->name))) {
            ret = co_bring_back_value(below, blk_options_json(options, o->name), error);
        }
    }
    return ret;
}

/* After a failure, those that nobody uses go again: they would be in the way of who has the image. */
static void co_end_below(Below *below, bool failed)
{
    for (guint i = below->nodes->len; i-- > 0; ) {
        BlkNode *node = below->nodes->pdata[i];

        if (failed && !find_user(node)) {
            blk_co_set_active(node, false, NULL);
        }
        blk_co_unref(node);
    }
    g_ptr_array_unref(below->nodes);
}

static int co_come_back(BlkNode *node, bool no_time_passed, GError **error)
{
    Below below = { node->ctx, g_ptr_array_new(), no_time_passed };
    int ret = co_bring_back_named(&below, node->core->inactive, node->core->options, node, error);

    for (GList *l = node->core->children.head; ret == 0 && l; l = l->next) {
        ret = co_bring_back(&below, ((BlkChild *)l->data)->node, error);
    }
    if (ret == 0) {
        blk_co_drain_begin(node);           /* inactive nodes hold nothing */
        ret = co_open_again(node, error);
        blk_drain_end(node);
    }
    if (ret < 0) {
        co_set_below(node, NULL);           /* it may have got some */
    }
    co_end_below(&below, ret < 0);
    return ret;
}

/* ---- letting go of changes ---- */

static int check_unwritten(const BlkNode *node, GError **error)
{
    for (GList *l = node->core->parents.head; l; l = l->next) {
        const BlkChild *user = l->data;

        if ((user->perm | user->wanted) & ~(unsigned)BLK_PERM_READ) {
            return blk_error(error, -EBUSY, "'%s' writes to the node '%s'", user->parent ? blk_node_name(user->parent) : user->name,
                             blk_node_name(node));
        }
    }
    return 0;
}

int blk_co_drop_changes(BlkNode *node, GError **error)
{
    blk_node_ref(node);
    blk_co_drain_begin(node);               /* what is held there is what is dropped */
    int ret = check_unwritten(node, error);

    ret = ret < 0 ? ret : check_bitmaps(node, error);
    if (ret == 0) {
        co_close_driver(node);
        node->core->flags.read_only = true;
        ret = co_open_again(node, error);
        blk_node_length_changed(node);
    }
    blk_drain_end(node);
    blk_co_unref(node);
    return ret;
}

/* ---- both ---- */

typedef struct SetCall {
    BlkNode *node;
    bool active;
    GError **error;
} SetCall;

static int set_call(void *opaque)
{
    const SetCall *call = opaque;

    return blk_co_set_active(call->node, call->active, call->error);
}

int blk_co_set_active(BlkNode *node, bool active, GError **error)
{
    SetCall call = { node, active, error };
    int ret;

    if (active == blk_node_active(node)) {
        return 0;
    }
    if (blk_stack_is_short()) {             /* chains may be long */
        return blk_co_call_fresh(set_call, &call);
    }
    blk_node_ref(node);
    if (active) {
        ret = co_come_back(node, false, error);
    } else {
        ret = co_let_go(node, error);
        bool gone = ret == 0;
        ret = gone ? co_set_below(node, error) : ret;
        if (gone && ret < 0) {
            co_come_back(node, true, NULL);
        }
    }
    blk_co_unref(node);
    return ret;
}

/* One after the other, those before their children: *changed: (out): some have become inactive. */
static int co_let_tops_go(const GPtrArray *nodes, bool *changed, GError **error)
{
    int ret = 0;

    *changed = false;
    for (guint i = 0; ret == 0 && i < nodes->len; i++) {
        BlkNode *node = nodes->pdata[i];
        const BlkChild *user = find_user(node);

        if (blk_node_active(node) && !(user && user->parent)) {
            ret = blk_co_set_active(node, false, error);
            *changed = true;
        }
    }
    return ret;
}

int blk_co_set_all_active(BlkContext *ctx, bool active, GError **error)
{
    g_autoptr(GPtrArray) nodes = blk_nodes(ctx);
    bool changed = !active;
    int ret = 0;

    for (guint i = 0; active && ret == 0 && i < nodes->len; i++) {
        ret = blk_co_set_active(nodes->pdata[i], true, error);
    }
    while (changed && ret == 0) {
        ret = co_let_tops_go(nodes, &changed, error);
    }
    for (guint i = 0; i < nodes->len; i++) {
        blk_co_unref(nodes->pdata[i]);
    }
    return ret;
}

bool blk_node_active(const BlkNode *node)
{
    return !node->core->inactive;
}
