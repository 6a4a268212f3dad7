/* SPDX-License-Identifier: MIT */
/*
 * permission.c - who may do what with a node.
 *
 * Each edge says what its user does (perm) and what it lets others do (shared). A node does what all its users together
 * do; from that follows what it needs from its children. A change is computed for all nodes below at once, parents
 * before children, and either holds everywhere or is undone everywhere.
 */
#include "core/node.h"

typedef struct PermUndo {
    BlkChild *edge;             /* either this ... */
    BlkNode *node;              /* ... or this */
    unsigned perm, shared;
} PermUndo;

const char *blk_perm_name(unsigned perm)
{
    static const char *const names[] = { "consistent read", "write", "write unchanged", "resize" };

    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        if (perm & (1u << i)) {
            return names[i];
        }
    }
    return "nothing";
}

static const char *user_name(const BlkChild *edge)
{
    return edge->parent ? blk_node_name(edge->parent) : edge->name;
}

/* ---- what a node needs from a child ---- */

static void perm_of_image(const BlkNode *node, unsigned perm, unsigned shared, unsigned *child_perm,
                          unsigned *child_shared)
{
    *child_perm = (perm & (BLK_PERM_WRITE | BLK_PERM_RESIZE)) | BLK_PERM_READ;
    if (!node->read_only) {
        *child_perm |= BLK_PERM_WRITE | BLK_PERM_RESIZE;    /* metadata, and growth of the file */
    }
    *child_shared = (shared & BLK_PERM_READ) | BLK_PERM_READ | BLK_PERM_WRITE_UNCHANGED;
}

static void perm_of_data(const BlkNode *node, unsigned perm, unsigned shared, unsigned *child_perm,
                         unsigned *child_shared)
{
    *child_perm = perm | BLK_PERM_READ;
    if (perm & (BLK_PERM_WRITE | BLK_PERM_RESIZE)) {
        *child_perm |= BLK_PERM_WRITE | BLK_PERM_RESIZE;    /* growing an image writes zeroes */
    }
    *child_shared = (shared | BLK_PERM_READ | BLK_PERM_WRITE_UNCHANGED) & ~(BLK_PERM_WRITE | BLK_PERM_RESIZE);
}

static void perm_by_role(BlkNode *node, BlkChild *child, unsigned perm, unsigned shared, unsigned *child_perm,
                         unsigned *child_shared)
{
    switch (child->role) {
    case BLK_ROLE_FILTERED:
        *child_perm = perm;
        *child_shared = shared;
        break;
    case BLK_ROLE_IMAGE:
        perm_of_image(node, perm, shared, child_perm, child_shared);
        break;
    case BLK_ROLE_DATA:
    case BLK_ROLE_COPY:
        perm_of_data(node, perm, shared, child_perm, child_shared);
        break;
    case BLK_ROLE_COW:
        *child_perm = BLK_PERM_READ;
        /* Who lets others write to the overlay does not mind what happens below it either. */
        *child_shared = BLK_PERM_READ | BLK_PERM_WRITE_UNCHANGED;
        if (shared & BLK_PERM_WRITE) {
            *child_shared |= BLK_PERM_WRITE | BLK_PERM_RESIZE;
        }
        break;
    }
}

/* ---- one node ---- */

static int check_conflict(const BlkNode *node, const BlkChild *user, const BlkChild *other, GError **error)
{
    unsigned denied = user->perm & ~other->shared;

    if (denied == 0) {
        return 0;
    }
    return blk_error(error, -EPERM,
                     "Conflicts with use by '%s' as '%s', which does not allow '%s' on the node '%s' that '%s' needs",
                     user_name(other), other->name, blk_perm_name(denied), blk_node_name(node), user_name(user));
}

static int check_users(const BlkNode *node, GError **error)
{
    for (GList *l = node->core->parents.head; l; l = l->next) {
        const BlkChild *user = l->data;

        unsigned changes = (user->perm | user->wanted) & ~(unsigned)BLK_PERM_READ;

        if (node->read_only && changes) {
            return blk_error(error, -EACCES, "Block node '%s' (%s) is read-only: '%s' may not be given to '%s'",
                             blk_node_name(node), blk_node_filename(node), blk_perm_name(changes), user_name(user));
        }
        for (GList *m = node->core->parents.head; m; m = m->next) {
            int ret = m == l ? 0 : check_conflict(node, user, m->data, error);

            if (ret < 0) {
                return ret;
            }
        }
    }
    return 0;
}

static void remember(GArray *undo, BlkChild *edge, BlkNode *node, unsigned perm, unsigned shared)
{
    PermUndo entry = { edge, node, perm, shared };

    g_array_append_val(undo, entry);
}

/* Users that rest ask for nothing while the node is inactive. */
static void set_resting_users(BlkNode *node, GArray *undo)
{
    bool active = blk_node_active(node) && node->core->open;

    for (GList *l = node->core->parents.head; l; l = l->next) {
        BlkChild *user = l->data;
        unsigned perm = active ? user->wanted : 0;

        if (user->rests && user->perm != perm) {
            remember(undo, user, NULL, user->perm, user->shared);
            user->perm = perm;
        }
    }
}

static int set_node(BlkNode *node, GArray *undo, GError **error)
{
    unsigned perm = 0, shared = BLK_PERM_ALL;
    BlkNodeCore *core = node->core;
    int ret;

    set_resting_users(node, undo);
    ret = check_users(node, error);
    if (ret < 0) {
        return ret;
    }
    for (GList *l = core->parents.head; l; l = l->next) {
        const BlkChild *user = l->data;

        perm |= user->perm;
        shared &= user->shared;
    }
    if (core->flags.force_share) {
        shared = BLK_PERM_ALL;
    }
    if (perm == core->perm && shared == core->shared) {
        return 0;
    }
    if (node->driver->set_perm) {
        ret = node->driver->set_perm(node, perm, shared, error);
        if (ret < 0) {
            return ret;
        }
    }
    remember(undo, NULL, node, core->perm, core->shared);
    core->perm = perm;
    core->shared = shared;
    return 0;
}

static void set_children(BlkNode *node, GArray *undo)
{
    for (GList *l = node->core->children.head; l; l = l->next) {
        BlkChild *edge = l->data;
        unsigned perm, shared;

        perm_by_role(node, edge, node->core->perm, node->core->shared, &perm, &shared);
        if (node->driver->child_perm) {
            node->driver->child_perm(node, edge, node->core->perm, node->core->shared, &perm, &shared);
        }
        if (node->core->flags.force_share || edge->node->core->flags.force_share) {
            shared = BLK_PERM_ALL;
        }
        if (perm != edge->perm || shared != edge->shared) {
            remember(undo, edge, NULL, edge->perm, edge->shared);
            edge->perm = perm;
            edge->shared = shared;
        }
    }
}

static void undo_all(GArray *undo)
{
    for (guint i = undo->len; i-- > 0; ) {
        PermUndo *entry = &g_array_index(undo, PermUndo, i);

        if (entry->edge) {
            entry->edge->perm = entry->perm;
            entry->edge->shared = entry->shared;
        } else {
            entry->node->core->perm = entry->perm;
            entry->node->core->shared = entry->shared;
            if (entry->node->driver->set_perm) {
                entry->node->driver->set_perm(entry->node, entry->perm, entry->shared, NULL);
            }
        }
    }
}

/* Appends @node after all that is below it. */
static void collect_below(BlkNode *node, GHashTable *seen, GPtrArray *order)
{
    if (!g_hash_table_add(seen, node)) {
        return;
    }
    for (GList *l = node->core->children.head; l; l = l->next) {
        collect_below(((BlkChild *)l->data)->node, seen, order);
    }
    g_ptr_array_add(order, node);
}

int blk_perm_refresh(BlkNode *const *nodes, unsigned n_nodes, GError **error)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    g_autoptr(GPtrArray) order = g_ptr_array_new();
    g_autoptr(GArray) undo = g_array_new(FALSE, FALSE, sizeof(PermUndo));

    for (unsigned i = 0; i < n_nodes; i++) {
        collect_below(nodes[i], seen, order);
    }
    for (guint i = order->len; i-- > 0; ) {
        BlkNode *next = g_ptr_array_index(order, i);
        int ret = set_node(next, undo, error);

        if (ret < 0) {
            undo_all(undo);
            return ret;
        }
        set_children(next, undo);
    }
    return 0;
}

int blk_child_rest(BlkChild *user, unsigned perm, GError **error)
{
    user->rests = true;
    user->wanted = perm;
    int ret = blk_perm_refresh(&user->node, 1, error);
    if (ret < 0) {
        user->rests = false;
        user->wanted = 0;
    }
    return ret;
}

int blk_node_check_resizable(const BlkNode *node, GError **error)
{
    for (GList *l = node->core->parents.head; l; l = l->next) {
        const BlkChild *edge = l->data;

        if (!(edge->shared & BLK_PERM_RESIZE)) {
            return blk_error(error, -EBUSY, "The length of the node '%s' cannot change, since '%s' relies on it", blk_node_name(node),
                             edge->parent ? blk_node_name(edge->parent) : edge->name);
        }
    }
    return 0;
}
