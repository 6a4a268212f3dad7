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
    return node;
}

void blk_node_free(BlkNode *node)
{
    BlkNodeCore *core = node->core;

    g_assert(core->parents.length == 0 && core->children.length == 0);
    g_assert(core->in_flight == 0);
    blk_drain_forget(node);
    g_hash_table_remove(blk_context_graph(node->ctx)->nodes, core->name);
    blk_bitmaps_free(node);
    if (core->engine) {
        blk_engine_free(core->engine);
    }
    g_clear_pointer(&core->options, json_object_unref);
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

void blk_co_node_close(BlkNode *node)
{
    GList *l;

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

static int close_last(void *opaque)
{
    BlkNode *node = opaque;

    blk_node_hurry(node);
    /* Nobody can find the node any more, but its own requests go on until it is closed. */
    node->core->open = false;
    if (!node->read_only) {
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

BlkChild *blk_edge_new(BlkNode *parent, BlkNode *node, const char *name, BlkRole role)
{
    BlkChild *edge = g_new0(BlkChild, 1);

    edge->name = g_strdup(name);
    edge->role = role;
    edge->parent = parent;
    edge->node = blk_node_ref(node);
    edge->shared = BLK_PERM_ALL;
    edge->link_node.data = edge->link_parent.data = edge;
    g_queue_push_tail_link(&node->core->parents, &edge->link_node);
    if (parent) {
        g_queue_push_tail_link(&parent->core->children, &edge->link_parent);
    }
    return edge;
}

void blk_co_edge_free(BlkChild *edge)
{
    BlkNode *node = edge->node;

    g_queue_unlink(&node->core->parents, &edge->link_node);
    if (edge->parent) {
        g_queue_unlink(&edge->parent->core->children, &edge->link_parent);
        edge->parent->file = edge->parent->file == edge ? NULL : edge->parent->file;
        edge->parent->backing = edge->parent->backing == edge ? NULL : edge->parent->backing;
    }
    blk_perm_refresh(node, NULL, NULL);     /* fewer users: cannot fail */
    g_free((char *)edge->name);
    g_free(edge);
    blk_co_unref(node);
}

void blk_edge_move(BlkChild *edge, BlkNode *node)
{
    g_queue_unlink(&edge->node->core->parents, &edge->link_node);
    g_assert(edge->node->core->refs > 1);   /* who moves edges holds both nodes */
    edge->node->core->refs--;
    edge->node = blk_node_ref(node);
    g_queue_push_tail_link(&node->core->parents, &edge->link_node);
}

BlkChild *blk_co_attach(BlkNode *node, const char *name, unsigned perm, unsigned shared, GError **error)
{
    BlkChild *edge = blk_edge_new(NULL, node, name, BLK_ROLE_DATA);

    edge->perm = perm;
    edge->shared = node->core->flags.force_share ? BLK_PERM_ALL : shared;
    if (blk_perm_refresh(node, NULL, error) < 0) {
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

const char *blk_node_name(const BlkNode *node)
{
    return node->core->name;
}

const char *blk_node_driver_name(const BlkNode *node)
{
    return node->driver->name;
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

BlkNode *blk_node_child(const BlkNode *node, const char *name)
{
    for (GList *l = node->core->children.head; l; l = l->next) {
        const BlkChild *edge = l->data;

        if (strcmp(edge->name, name) == 0) {
            return edge->node;
        }
    }
    return NULL;
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

/* What the node itself was told, without what only says how to open it. */
static JsonObject *own_options(const BlkNode *node)
{
    JsonObject *object = blk_json_copy(node->core->options);
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
    if (json_object_get_size(options) != 2) {
        return NULL;
    }
    if (node->driver->kind == BLK_PROTOCOL && json_object_has_member(options, "filename")) {
        JsonNode *value = json_object_get_member(options, "filename");

        return JSON_NODE_HOLDS_VALUE(value) ? json_node_get_string(value) : NULL;
    }
    if (node->driver->kind == BLK_FORMAT && node->file && json_object_has_member(options, node->file->name)) {
        const char *name = blk_node_filename(node->file->node);

        return g_str_has_prefix(name, "json:") ? NULL : name;
    }
    return NULL;
}

/* Writes the options of @node and, for children, of the nodes below, whatever the user called them. */
static JsonObject *full_options(const BlkNode *node)
{
    JsonObject *options = own_options(node);

    for (GList *l = node->core->children.head; l; l = l->next) {
        const BlkChild *edge = l->data;

        if (edge->role != BLK_ROLE_COW || json_object_has_member(options, edge->name)) {
            json_object_set_object_member(options, edge->name, full_options(edge->node));
        }
    }
    return options;
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
            g_autoptr(JsonObject) full = full_options(node);
            g_autofree char *text = blk_json_to_string(full);

            node->core->filename = g_strconcat("json:", text, NULL);
        }
    }
    return node->core->filename;
}
