/* SPDX-License-Identifier: MIT */
/*
 * reopen_options.c - blk_co_reopen(): from trees of options to the steps of reopen.c.
 *
 * A tree says all of a node, as when it is opened: what is left out is what it is by default. A child that stands in it as an
 * object is reopened, too, if it was opened so; a name puts another node there. Children that were opened for the node and
 * are not in the tree follow in what they inherit.
 */
#include "core/reopen.h"

#include "core/options.h"
#include "core/stack.h"

#include <string.h>

/* How a node is looked at: by a tree of its own, or since the one that opened it is. */
typedef struct ReopenView {
    JsonObject *tree;
    const BlkOpenFlags *above;      /* (nullable): of the node that opened it, as they will be */
    BlkRole role;                   /* if there is one */
    bool follows;                   /* the tree is what it has already */
} ReopenView;

static int add_node(BlkReopenSet *set, BlkNode *node, const ReopenView *view, GError **error);

/* ---- options of the driver ---- */

static bool same_value(const BlkOption *option, const BlkOptions *a, const BlkOptions *b)
{
    if (option->type == BLK_OPTION_NODE) {
        return true;        /* children are looked at by themselves */
    }
    if (!option->default_text && blk_options_has(a, option->name) != blk_options_has(b, option->name)) {
        return false;
    }
    switch (option->type) {
    case BLK_OPTION_BOOL:
        return blk_options_bool(a, option->name) == blk_options_bool(b, option->name);
    case BLK_OPTION_UINT:
    case BLK_OPTION_SIZE:
        return blk_options_uint(a, option->name) == blk_options_uint(b, option->name);
    case BLK_OPTION_JSON: {
        JsonNode *x = blk_options_json(a, option->name), *y = blk_options_json(b, option->name);

        return x && y ? json_node_equal(x, y) : x == y;
    }
    default:
        return g_strcmp0(blk_options_string(a, option->name), blk_options_string(b, option->name)) == 0;
    }
}

/* *changed: (out): does an option of the driver change that it can change? */
static int compare_options(const BlkNode *node, const BlkOptions *from, const BlkOptions *to, bool *changed, GError **error)
{
    const char *const *can = node->driver->reopen_options;

    *changed = false;
    for (const BlkOption *option = node->driver->options; option && option->name; option++) {
        if (same_value(option, from, to)) {
            continue;
        }
        if (!can || !g_strv_contains(can, option->name)) {
            return blk_error(error, -EINVAL, "Cannot change the option '%s'", option->name);
        }
        *changed = true;
    }
    return 0;
}

static int check_identity(const BlkNode *node, JsonObject *tree, GError **error)
{
    const char *driver = json_object_get_string_member_with_default(tree, "driver", node->driver->name);
    const char *name = json_object_get_string_member_with_default(tree, "node-name", blk_node_name(node));

    if (strcmp(name, blk_node_name(node)) != 0) {
        return blk_error(error, -EINVAL, "Cannot change the option 'node-name'");
    }
    if (blk_driver_find(node->ctx, driver) != node->driver) {
        return blk_error(error, -EINVAL, "Cannot change the option 'driver'");
    }
    json_object_set_string_member(tree, "driver", node->driver->name);
    return 0;
}

/* ---- children ---- */

typedef struct AddCall {
    BlkReopenSet *set;
    BlkNode *node;
    const ReopenView *view;
    GError **error;
} AddCall;

static int add_call(void *opaque)
{
    const AddCall *call = opaque;

    return add_node(call->set, call->node, call->view, call->error);
}

static int add_child(BlkReopenSet *set, const BlkNode *node, const BlkChild *edge, JsonObject *tree, bool follows,
                     const BlkOpenFlags *flags, GError **error)
{
    const ReopenView view = { .tree = tree, .above = flags, .role = edge->role, .follows = follows };

    if (edge->node->core->opener != node) {
        return blk_error(error, -EINVAL, "The child '%s' of '%s' is the node '%s', which was not opened with it: give its name "
                         "only, and reopen it by itself", edge->name, blk_node_name(node), blk_node_name(edge->node));
    }
    if (blk_stack_is_short()) {         /* chains may be long */
        AddCall call = { set, edge->node, &view, error };

        return blk_co_call_fresh(add_call, &call);
    }
    return add_node(set, edge->node, &view, error);
}

/* Has somebody put it in who works with what is below, and whom no user told to? */
static bool is_of_a_job(const BlkNode *parent, const BlkNode *node)
{
    bool unnamed = blk_node_name(node)[0] == '#' && node->core->opener != parent;

    return node->driver->kind == BLK_FILTER && (unnamed || blk_driver_find(node->ctx, node->driver->name) != node->driver);
}

/* Does somebody work on the node itself, who relies on what it reads from below? */
static bool is_worked_on(const BlkNode *node)
{
    for (GList *l = node->core->parents.head; l; l = l->next) {
        if (((BlkChild *)l->data)->stays) {
            return true;
        }
    }
    return false;
}

/* @to: (nullable): NULL: none */
static int change_child(BlkReopenSet *set, BlkNode *node, const char *name, BlkNode *to, GError **error)
{
    const BlkChild *edge = blk_node_child_edge(node, name);

    if (edge && (is_of_a_job(node, edge->node) || (edge->role == BLK_ROLE_COW && is_worked_on(node)))) {
        return blk_error(error, -EPERM, "Cannot change frozen '%s' link from '%s' to '%s'", name, blk_node_name(node),
                         blk_node_name(edge->node));
    }
    blk_reopen_set_change_child(set, node, name, to);
    return 0;
}

static int add_named_child(BlkReopenSet *set, BlkNode *node, const char *name, const char *child, GError **error)
{
    BlkNode *to = blk_node_find(node->ctx, child), *now = blk_node_child(node, name);

    if (!to) {
        return blk_error(error, -ENOENT, "Cannot find device='' nor node-name='%s'", child);
    }
    while (to != now && now && is_of_a_job(node, now) && blk_node_filtered(now)) {
        now = blk_node_filtered(now);       /* the filter of a job stays where it is */
    }
    return to == now ? 0 : change_child(set, node, name, to, error);
}

/* What the tree says of one child. */
static int look_at_child(BlkReopenSet *set, BlkNode *node, const char *name, JsonNode *value, const BlkOpenFlags *flags,
                         GError **error)
{
    const BlkChild *edge = blk_node_child_edge(node, name);

    if (!value) {
        bool has_backing = strcmp(name, "backing") == 0 && (edge || node->core->image_backing);

        return has_backing ? blk_error(error, -EINVAL, "backing is missing for '%s'", blk_node_name(node)) : 0;
    }
    if (JSON_NODE_HOLDS_NULL(value)) {
        return edge ? change_child(set, node, name, NULL, error) : 0;
    }
    if (!JSON_NODE_HOLDS_OBJECT(value)) {
        return add_named_child(set, node, name, json_node_get_string(value), error);
    }
    if (!edge) {
        return blk_error(error, -EINVAL, "The node '%s' has no child '%s' that could be reopened: open a node, and give its "
                         "name", blk_node_name(node), name);
    }
    return add_child(set, node, edge, json_node_get_object(value), false, flags, error);
}

static int look_at_children(BlkReopenSet *set, BlkNode *node, const ReopenView *view, const BlkOptions *options,
                            const BlkOpenFlags *flags, GError **error)
{
    const BlkOption *option = view->follows ? NULL : blk_driver_child_options(node->driver);
    int ret = 0;

    for (; ret == 0 && option && option->name; option++) {
        if (option->type == BLK_OPTION_NODE) {
            ret = look_at_child(set, node, option->name, blk_options_json(options, option->name), flags, error);
        }
    }
    for (GList *l = node->core->children.head; ret == 0 && l; l = l->next) {
        const BlkChild *edge = l->data;

        if (edge->node->core->opener == node && !blk_reopen_set_has(set, edge->node)) {
            ret = add_child(set, node, edge, edge->node->core->options, true, flags, error);
        }
    }
    return ret;
}

/* ---- nodes ---- */

static int add_node(BlkReopenSet *set, BlkNode *node, const ReopenView *view, GError **error)
{
    g_autoptr(JsonObject) tree = blk_options_expand(view->tree, error);
    g_autoptr(BlkOptions) from = NULL, to = NULL;
    BlkOpenFlags flags;
    bool changed;

    if (!blk_node_active(node)) {
        return blk_error(error, -EPERM, "The node '%s' is inactive and cannot be reopened: activate it first",
                         blk_node_name(node));
    }
    if (!tree || check_identity(node, tree, error) < 0 ||
        blk_open_flags_parse(tree, view->above, view->role, &flags, error) < 0) {
        return -EINVAL;
    }
    flags.trusted = node->core->flags.trusted;
    from = blk_driver_parse_options(node->driver, node->core->options, error);
    to = from ? blk_driver_parse_options(node->driver, tree, error) : NULL;
    if (!to || look_at_children(set, node, view, to, &flags, error) < 0 ||
        compare_options(node, from, to, &changed, error) < 0) {
        return -EINVAL;
    }
    if (!view->follows && !blk_options_bool(to, "active")) {
        return blk_error(error, -EINVAL, "Cannot change the option 'active': it is changed by blockdev-set-active");
    }
    if (blk_reopen_set_has(set, node)) {
        return blk_error(error, -EINVAL, "The node '%s' cannot be reopened twice at once", blk_node_name(node));
    }
    /* What could not be written when it was opened (auto-read-only) is not tried again. */
    bool stays_read_only = node->read_only && !node->core->flags.read_only && flags.auto_read_only;
    blk_reopen_set_add(set, node, &flags, flags.read_only || stays_read_only, changed ? g_steal_pointer(&to) : NULL,
                       view->follows ? NULL : g_steal_pointer(&tree));
    return 0;
}

static int add_tree(BlkReopenSet *set, BlkContext *ctx, JsonObject *tree, GError **error)
{
    const char *name = json_object_get_string_member_with_default(tree, "node-name", NULL);
    BlkNode *node = name ? blk_node_find(ctx, name) : NULL;
    const BlkNode *opener = node ? node->core->opener : NULL;
    ReopenView view = { .tree = tree };

    if (!name) {
        return blk_error(error, -EINVAL, "node-name not specified");
    }
    if (!node) {
        return blk_error(error, -ENOENT, "Failed to find node with node-name='%s'", name);
    }
    if (opener) {
        view.above = &opener->core->flags;
        view.role = opener->backing && opener->backing->node == node ? BLK_ROLE_COW : BLK_ROLE_IMAGE;
    }
    return add_node(set, node, &view, error);
}

int blk_co_reopen(BlkContext *ctx, JsonArray *trees, GError **error)
{
    BlkReopenSet *set = blk_reopen_set_new();
    int ret = 0;

    for (guint i = 0; ret == 0 && i < json_array_get_length(trees); i++) {
        ret = add_tree(set, ctx, json_array_get_object_element(trees, i), error);
    }
    ret = ret < 0 ? ret : blk_co_reopen_set_run(set, error);
    blk_reopen_set_free(set);
    return ret;
}
