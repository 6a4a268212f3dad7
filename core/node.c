/* SPDX-License-Identifier: MIT */
/*
 * node.c - nodes, the edges between them, and what can be asked of a node.
 *
 * A node lives as long as somebody holds a reference; each edge above it holds one. Dropping the last one flushes and
 * closes the node, so that it may yield.
 */
#include "core/bitmap.h"
#include "core/node.h"

#include "core/options.h"
#include "core/request.h"
#include "core/stack.h"

#include <string.h>

/* A name that no user can choose, since it begins with '#'. */
static char *generate_name(BlkGraph *graph)
{
    for (;;) {
        char *name = g_strdup_printf("#block%03u", graph->next_name++);

        if (!g_hash_table_contains(graph->nodes, name)) {
            return name;
        }
        g_free(name);
    }
}

static bool name_is_valid(const char *name)
{
    if (!g_ascii_isalpha(name[0]) || strlen(name) > 31) {
        return false;
    }
    for (const char *c = name; *c; c++) {
        if (!g_ascii_isalnum(*c) && !strchr("-._", *c)) {
            return false;
        }
    }
    return true;
}

BlkNode *blk_node_new(BlkContext *ctx, const BlkDriver *driver, const char *name, GError **error)
{
    BlkGraph *graph = blk_context_graph(ctx);
    BlkNode *node;

    if (name && !name_is_valid(name)) {
        blk_error(error, -EINVAL, "Invalid node-name: '%s' (a letter, then letters, digits, '-', '.', '_'; at most 31)",
                  name);
        return NULL;
    }
    if (name && g_hash_table_contains(graph->nodes, name)) {
        blk_error(error, -EEXIST, "Duplicate nodes with node-name='%s'", name);
        return NULL;
    }
    node = g_new0(BlkNode, 1);
    node->ctx = ctx;
    node->driver = driver;
    node->opaque = g_malloc0(MAX(driver->instance_size, 1));
    node->core = g_new0(BlkNodeCore, 1);
    node->core->name = name ? g_strdup(name) : generate_name(graph);
    node->core->refs = 1;
    node->core->shared = BLK_PERM_ALL;
    node->core->write_gen = 1;      /* so that the first flush is never taken for a repeated one */
    if (driver->format) {
        node->core->engine = blk_engine_new();
    }
    g_hash_table_insert(graph->nodes, node->core->name, node);
    node->core->link_graph.data = node;
    g_queue_push_head_link(&graph->newest, &node->core->link_graph);
    return node;
}

void blk_node_free(BlkNode *node)
{
    BlkNodeCore *core = node->core;

    g_assert(core->parents.length == 0 && core->children.length == 0);
    g_assert(core->in_flight == 0);
    blk_drain_forget(node);
    g_hash_table_remove(blk_context_graph(node->ctx)->nodes, core->name);
    g_queue_unlink(&blk_context_graph(node->ctx)->newest, &core->link_graph);
    blk_bitmaps_free(node);
    if (core->engine) {
        blk_engine_free(core->engine);
    }
    g_clear_pointer(&core->options, json_object_unref);
    g_free(core->image_backing);
    g_free(core->filename);
    g_free(core->name);
    g_free(core);
    g_free(node->opaque);
    g_free(node);
}

BlkNode *blk_node_ref(BlkNode *node)
{
    node->core->refs++;
    return node;
}

/* Those that @node has opened, and that outlive it, stand for themselves. */
static void forget_opener(const BlkNode *node)
{
    for (GList *l = blk_context_graph(node->ctx)->newest.head; l; l = l->next) {
        BlkNodeCore *core = ((BlkNode *)l->data)->core;

        core->opener = core->opener == node ? NULL : core->opener;
    }
}

void blk_co_node_close(BlkNode *node)
{
    GList *l;

    forget_opener(node);

    while (node->core->in_flight > 0) {         /* reading ahead */
        blk_co_queue_wait(&node->core->idle);
    }
    if (node->driver->co_close) {
        node->driver->co_close(node);
    }
    while ((l = node->core->children.tail)) {
        blk_co_edge_free(l->data);
    }
    node->file = node->backing = NULL;
    blk_node_free(node);
}

/* Has it, or a child, something of it that is not stable yet? A filter that nobody has written through has not, and can
 * so be closed while its child is drained. */
static bool must_flush(const BlkNode *node)
{
    return !node->read_only && (node->driver->kind != BLK_FILTER || blk_node_needs_flush(node));
}

static int close_last(void *opaque)
{
    BlkNode *node = opaque;

    blk_node_hurry(node);
    /* Nobody can find the node any more, but its own requests go on until it is closed. */
    node->core->open = false;
    if (must_flush(node)) {
        blk_request_flush(node);
    }
    blk_co_node_close(node);
    return 0;
}

void blk_co_unref(BlkNode *node)
{
    if (!node || --node->core->refs > 0) {
        return;
    }
    if (blk_stack_is_short()) {
        blk_co_call_fresh(close_last, node);
    } else {
        close_last(node);
    }
}

/* ---- edges ---- */

BlkChild *blk_edge_new_loose(BlkNode *parent, const char *name, BlkRole role)
{
    BlkChild *edge = g_new0(BlkChild, 1);

    edge->name = g_strdup(name);
    edge->role = role;
    edge->parent = parent;
    edge->shared = BLK_PERM_ALL;
    edge->link_node.data = edge->link_parent.data = edge;
    return edge;
}

void blk_edge_free_loose(BlkChild *edge)
{
    g_assert(!edge->node);
    g_free((char *)edge->name);
    g_free(edge);
}

/* The driver finds the edge by its role. */
static void fill_slot(BlkNode *parent, BlkChild *edge)
{
    if (edge->role == BLK_ROLE_COW) {
        parent->backing = edge;
    } else if (edge->role != BLK_ROLE_DATA && edge->role != BLK_ROLE_COPY) {
        parent->file = edge;
    }
}

static void clear_slot(BlkNode *parent, BlkChild *edge)
{
    parent->file = parent->file == edge ? NULL : parent->file;
    parent->backing = parent->backing == edge ? NULL : parent->backing;
}

void blk_edge_point(BlkChild *edge, BlkNode *node)
{
    BlkNode *old = edge->node, *parent = edge->parent;

    edge->node = node ? blk_node_ref(node) : NULL;
    if (old) {
        g_queue_unlink(&old->core->parents, &edge->link_node);
        g_assert(old->core->refs > 1);      /* who points edges elsewhere holds both nodes */
        old->core->refs--;
    }
    if (node) {
        g_queue_push_tail_link(&node->core->parents, &edge->link_node);
    }
    if (parent && !old && node) {
        g_queue_push_tail_link(&parent->core->children, &edge->link_parent);
        fill_slot(parent, edge);
    } else if (parent && old && !node) {
        g_queue_unlink(&parent->core->children, &edge->link_parent);
        clear_slot(parent, edge);
    }
    if (node) {
        blk_drain_inherit(edge);
    }
}

BlkChild *blk_edge_new(BlkNode *parent, BlkNode *node, const char *name, BlkRole role)
{
    BlkChild *edge = blk_edge_new_loose(parent, name, role);

    blk_edge_point(edge, node);
    return edge;
}

void blk_co_edge_free(BlkChild *edge)
{
    BlkNode *node = blk_node_ref(edge->node);

    blk_edge_point(edge, NULL);
    blk_perm_refresh(&node, 1, NULL);       /* fewer users: cannot fail */
    blk_edge_free_loose(edge);
    blk_co_unref(node);
}

BlkChild *blk_co_attach(BlkNode *node, const char *name, unsigned perm, unsigned shared, GError **error)
{
    BlkChild *edge = blk_edge_new(NULL, node, name, BLK_ROLE_DATA);

    edge->perm = perm;
    edge->shared = node->core->flags.force_share ? BLK_PERM_ALL : shared;
    if (blk_perm_refresh(&node, 1, error) < 0) {
        edge->perm = 0;
        edge->shared = BLK_PERM_ALL;
        blk_co_edge_free(edge);
        return NULL;
    }
    return edge;
}

void blk_co_detach(BlkChild *user)
{
    if (user) {
        blk_co_edge_free(user);
    }
}

BlkNode *blk_child_node(const BlkChild *child)
{
    return child->node;
}

/* ---- what can be asked of a node ---- */

BlkNode *blk_node_opener(const BlkNode *node)
{
    return node->core->opener;
}

bool blk_node_is_shared(const BlkNode *node)
{
    return node->core->refs > 1;
}

const char *blk_node_name(const BlkNode *node)
{
    return node->core->name;
}

const char *blk_node_driver_name(const BlkNode *node)
{
    return blk_node_own_driver(node)->name;
}

uint64_t blk_node_length(const BlkNode *node)
{
    return node->length;
}

bool blk_node_read_only(const BlkNode *node)
{
    return node->read_only;
}

BlkContext *blk_node_context(const BlkNode *node)
{
    return node->ctx;
}

const BlkLimits *blk_node_limits(const BlkNode *node)
{
    return &node->limits;
}

const BlkOpenFlags *blk_node_open_flags(const BlkNode *node)
{
    return &node->core->flags;
}

int blk_node_only_read(BlkNode *node, const char *why, GError **error)
{
    const BlkOpenFlags *flags = &node->core->flags;
    bool only_checked = flags->check_only && node->driver->kind == BLK_FORMAT;

    if (!node->read_only && !flags->auto_read_only && !only_checked) {
        return blk_error(error, -EACCES, "%s", why);
    }
    node->read_only = true;
    return 0;
}

BlkChild *blk_node_child_edge(const BlkNode *node, const char *name)
{
    for (GList *l = node->core->children.head; l; l = l->next) {
        BlkChild *edge = l->data;

        if (strcmp(edge->name, name) == 0) {
            return edge;
        }
    }
    return NULL;
}

BlkNode *blk_node_child(const BlkNode *node, const char *name)
{
    const BlkChild *edge = blk_node_child_edge(node, name);

    return edge ? edge->node : NULL;
}

BlkNode *blk_node_filtered(const BlkNode *node)
{
    return node->driver->kind == BLK_FILTER && node->file ? node->file->node : NULL;
}

BlkNode *blk_node_skip_filters(BlkNode *node)
{
    BlkNode *below;

    while ((below = blk_node_filtered(node))) {
        node = below;
    }
    return node;
}

BlkNode *blk_node_backing(const BlkNode *node)
{
    const BlkNode *format = blk_node_skip_filters((BlkNode *)node);

    return format->backing ? blk_node_skip_filters(format->backing->node) : NULL;
}

static bool option_is_common(const char *name)
{
    for (const BlkOption *option = blk_node_options; option->name; option++) {
        const char *dot = strchr(option->name, '.');
        size_t head = dot ? (size_t)(dot - option->name) : strlen(option->name);

        /* "cache.direct" or "cache": {...} */
        if (strcmp(name, option->name) == 0 || (strlen(name) == head && strncmp(name, option->name, head) == 0)) {
            return strcmp(name, "driver") != 0;
        }
    }
    return false;
}

/* Is the backing, or that there is none, what the image itself names? */
static bool backing_is_the_images(const BlkNode *node)
{
    return g_strcmp0(node->backing ? blk_node_filename(node->backing->node) : NULL, node->core->image_backing) == 0;
}

/* What the node itself was told, without what only says how to open it, or what its image says, too. */
static JsonObject *own_options(const BlkNode *node)
{
    JsonObject *object = blk_json_copy(node->core->options);

    if (json_object_has_member(object, "backing") && backing_is_the_images(node)) {
        json_object_remove_member(object, "backing");
    }
    GList *names = json_object_get_members(object);

    for (GList *l = names; l; l = l->next) {
        if (option_is_common(l->data)) {
            json_object_remove_member(object, l->data);
        }
    }
    g_list_free(names);
    return object;
}

/* The plain name, if "driver" and one name (a protocol) or one child (a format) say everything. */
static const char *plain_filename(const BlkNode *node, JsonObject *options)
{
    BlkKind kind = blk_node_own_driver(node)->kind;

    if (json_object_get_size(options) != 2) {
        return NULL;
    }
    if (kind == BLK_PROTOCOL && json_object_has_member(options, "filename")) {
        JsonNode *value = json_object_get_member(options, "filename");

        return JSON_NODE_HOLDS_VALUE(value) ? json_node_get_string(value) : NULL;
    }
    if (kind == BLK_FORMAT && node->file && json_object_has_member(options, node->file->name)) {
        const char *name = blk_node_filename(node->file->node);

        return g_str_has_prefix(name, "json:") ? NULL : name;
    }
    return NULL;
}

#define NAME_MAX_NODES 1000     /* of which a file name writes the options; others are in it by their names */

/* Writes the options of @node and, for children, of the nodes below, whatever the user called them. *nodes: (inout): how many
 * may still be written: there may be many ways to each. */
static JsonObject *full_options(const BlkNode *node, unsigned *nodes)
{
    JsonObject *options = own_options(node);

    for (GList *l = node->core->children.head; l; l = l->next) {
        const BlkChild *edge = l->data;

        if (edge->role == BLK_ROLE_COW && !json_object_has_member(options, edge->name)) {
            continue;
        }
        if (*nodes > 0) {
            --*nodes;
            json_object_set_object_member(options, edge->name, full_options(edge->node, nodes));
        } else {
            json_object_set_string_member(options, edge->name, blk_node_name(edge->node));
        }
    }
    return options;
}

void blk_node_name_backing(BlkNode *node)
{
    BlkNode *below = node->backing ? node->backing->node : NULL;
    JsonObject *options = node->core->options;

    if (backing_is_the_images(node)) {
        json_object_remove_member(options, "backing");
    } else if (below) {
        json_object_set_string_member(options, "backing", blk_node_name(below));
    } else {
        json_object_set_null_member(options, "backing");
    }
    blk_node_refresh_above(&node, 1, NULL);     /* names above begin with this one */
}

const char *blk_node_filename(const BlkNode *node)
{
    if (!node->core->filename && node->driver->filename) {
        node->core->filename = node->driver->filename(node);
    }
    if (!node->core->filename) {
        g_autoptr(JsonObject) options = own_options(node);
        const char *plain = plain_filename(node, options);

        if (plain) {
            node->core->filename = g_strdup(plain);
        } else {
            unsigned nodes = NAME_MAX_NODES;
            g_autoptr(JsonObject) full = full_options(node, &nodes);
            g_autofree char *text = blk_json_to_string(full);

            node->core->filename = g_strconcat("json:", text, NULL);
        }
    }
    return node->core->filename;
}
