/* SPDX-License-Identifier: MIT */
/*
 * test_permission.c - who may do what at once, and that a refusal changes nothing.
 */
#include "stack.h"

#define RDWR (BLK_PERM_READ | BLK_PERM_WRITE)

static void refuse_attach(BlkNode *node, unsigned perm, unsigned shared, const char *part)
{
    g_autoptr(GError) error = NULL;
    BlkChild *edge = blk_co_attach(node, "late", perm, shared, &error);

    ck_assert(edge == NULL && error != NULL);
    ck_assert_msg(strstr(error->message, part) != NULL, "%s", error->message);
}

static int conflicts(void *ctx)
{
    BlkNode *node = open_stack(ctx, "{'driver':'mem','node-name':'m'}");
    BlkChild *first = blk_co_attach(node, "first", RDWR, BLK_PERM_READ, NULL);
    BlkChild *reader;
    Mem *mem = mem_of(ctx, "m");

    ck_assert(first != NULL);
    refuse_attach(node, BLK_PERM_WRITE, BLK_PERM_ALL, "'first'");
    refuse_attach(node, BLK_PERM_WRITE, BLK_PERM_ALL, "'late'");
    refuse_attach(node, BLK_PERM_WRITE, BLK_PERM_ALL, "'write'");
    refuse_attach(node, BLK_PERM_RESIZE, BLK_PERM_ALL, "'resize'");
    refuse_attach(node, BLK_PERM_READ, BLK_PERM_READ, "'write'");
    ck_assert_uint_eq(mem->perm, RDWR);
    ck_assert_uint_eq(mem->shared, BLK_PERM_READ);
    ck_assert_uint_eq(mem->set_perms, 1);
    reader = blk_co_attach(node, "reader", BLK_PERM_READ, RDWR, NULL);
    ck_assert(reader != NULL);
    blk_co_detach(first);
    ck_assert_uint_eq(mem->perm, BLK_PERM_READ);
    ck_assert_uint_eq(mem->shared, RDWR);
    blk_co_detach(reader);
    ck_assert_uint_eq(mem->perm, 0);
    ck_assert_uint_eq(mem->shared, BLK_PERM_ALL);
    blk_co_unref(node);
    return 0;
}

static int read_only(void *ctx)
{
    BlkNode *node = open_stack(ctx, "{'driver':'box','read-only':true,'file':{'driver':'mem','node-name':'m'}}");
    BlkChild *user;

    refuse_attach(node, BLK_PERM_WRITE, BLK_PERM_ALL, "is read-only");
    refuse_attach(node, BLK_PERM_RESIZE, BLK_PERM_ALL, "is read-only");
    user = blk_co_attach(node, "reader", BLK_PERM_READ, BLK_PERM_ALL, NULL);
    ck_assert(user != NULL);
    /* Nobody may write to the file below, which this one does not do either. */
    ck_assert_uint_eq(mem_of(ctx, "m")->perm, BLK_PERM_READ);
    ck_assert_uint_eq(mem_of(ctx, "m")->shared, BLK_PERM_READ | BLK_PERM_WRITE_UNCHANGED);
    blk_co_detach(user);
    blk_co_unref(node);
    refuse_open(ctx, "{'driver':'box','file':{'driver':'mem','read-only':true}}", "is read-only");
    node = open_stack(ctx, "{'driver':'box','auto-read-only':true,'file':{'driver':'mem','read-only':true}}");
    ck_assert(blk_node_read_only(node));
    blk_co_unref(node);
    return 0;
}

/* Two formats over one file: the second writer is refused, and its nodes are gone. */
static int two_images_of_one_file(void *ctx)
{
    BlkNode *first = open_stack(ctx, "{'driver':'box','node-name':'a','file':{'driver':'mem','node-name':'m'}}");
    g_autoptr(GError) error = NULL;
    BlkNode *second;

    ck_assert_uint_eq(mem_of(ctx, "m")->perm, BLK_PERM_READ | BLK_PERM_WRITE | BLK_PERM_RESIZE);
    ck_assert_uint_eq(mem_of(ctx, "m")->shared, BLK_PERM_READ | BLK_PERM_WRITE_UNCHANGED);
    ck_assert(try_open(ctx, "{'driver':'box','node-name':'b','file':'m'}", &error) == NULL);
    ck_assert(strstr(error->message, "'a'") && strstr(error->message, "'b'") && strstr(error->message, "'write'"));
    ck_assert(blk_node_find(ctx, "b") == NULL);
    ck_assert_uint_eq(blk_node_find(ctx, "m")->core->parents.length, 1);
    ck_assert(try_open(ctx, "{'driver':'box','read-only':true,'file':'m'}", NULL) == NULL);
    second = open_stack(ctx, "{'driver':'box','read-only':true,'force-share':true,"
                        "'file':{'driver':'mem','node-name':'own'}}");
    ck_assert_uint_eq(mem_of(ctx, "own")->shared, BLK_PERM_ALL);
    blk_co_unref(second);
    blk_co_unref(first);
    return 0;
}

/* A protocol that cannot get its lock: the whole change is undone, also in the nodes above it. */
static int lock_refused(void *ctx)
{
    BlkNode *node = open_stack(ctx, "{'driver':'compress','node-name':'c','file':{'driver':'box','file':"
                               "{'driver':'mem','node-name':'m'}}}");
    BlkNode *plain = open_stack(ctx, "{'driver':'mem','node-name':'p'}");
    BlkChild *user = blk_co_attach(plain, "reader", BLK_PERM_READ, BLK_PERM_ALL, NULL);
    Mem *mem = mem_of(ctx, "p");

    mem->refuse_perm = BLK_PERM_WRITE;
    refuse_attach(plain, RDWR, BLK_PERM_ALL, "locked by another");
    ck_assert_uint_eq(mem->perm, BLK_PERM_READ);
    ck_assert_uint_eq(plain->core->perm, BLK_PERM_READ);
    ck_assert_uint_eq(plain->core->parents.length, 1);
    blk_co_detach(user);
    blk_co_unref(plain);
    blk_co_unref(node);

    node = open_stack(ctx, "{'driver':'raw','node-name':'r','read-only':true,'file':{'driver':'mem','node-name':'m'}}");
    mem = mem_of(ctx, "m");
    user = blk_co_attach(node, "reader", BLK_PERM_READ, BLK_PERM_ALL, NULL);
    mem->refuse_perm = BLK_PERM_READ;
    refuse_attach(node, BLK_PERM_WRITE, BLK_PERM_ALL, "read-only");
    ck_assert_uint_eq(node->core->perm, BLK_PERM_READ);
    ck_assert_uint_eq(node->file->perm & ~BLK_PERM_READ, 0);
    blk_co_detach(user);
    blk_co_unref(node);
    return 0;
}

static int cow_child(void *ctx)
{
    BlkNode *node = open_stack(ctx, "{'driver':'box','file':{'driver':'mem'},"
                               "'backing':{'driver':'mem','node-name':'m'}}");
    Mem *mem = mem_of(ctx, "m");
    BlkChild *user = blk_co_attach(node, "user", RDWR, BLK_PERM_READ, NULL);

    ck_assert_uint_eq(mem->perm, BLK_PERM_READ);
    ck_assert_uint_eq(mem->shared, BLK_PERM_READ | BLK_PERM_WRITE_UNCHANGED);
    blk_co_detach(user);
    blk_co_unref(node);
    return 0;
}

/* A format without metadata, over two disks. */
static const BlkOption pair_options[] = {
    { "file", BLK_OPTION_NODE, "one half" },
    { "second", BLK_OPTION_NODE, "the other half" },
    { NULL },
};

static int pair_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    bool both = blk_co_open_child(node, options, "file", BLK_ROLE_DATA, error) &&
                blk_co_open_child(node, options, "second", BLK_ROLE_DATA, error);

    return both ? 0 : -EINVAL;
}

static const BlkDriver pair_driver = {
    .name = "pair", .kind = BLK_FORMAT, .options = pair_options, .co_open = pair_co_open,
};

enum { STATE_NODES = 4, STATE_VALUES = 8 };

/* The permissions of the nodes named "a", "b", ..., of their children, and of what they lock if they are disks. */
static void perm_state(BlkContext *ctx, unsigned state[STATE_NODES][STATE_VALUES])
{
    memset(state, 0, sizeof(unsigned) * STATE_NODES * STATE_VALUES);
    for (unsigned i = 0; i < STATE_NODES; i++) {
        const char name[] = { (char)('a' + i), 0 };
        BlkNode *node = blk_node_find(ctx, name);
        unsigned *value = state[i];

        *value++ = node->core->perm;
        *value++ = node->core->shared;
        for (GList *l = node->core->children.head; l; l = l->next) {
            const BlkChild *edge = l->data;
            *value++ = edge->perm;
            *value++ = edge->shared;
        }
        if (node->driver == &mem_driver) {
            *value++ = ((Mem *)node->opaque)->perm;
            *value++ = ((Mem *)node->opaque)->shared;
        }
    }
}

/* One disk refuses: all that was given on the way is taken back, in every node and in the other disk. */
static int undone(void *ctx)
{
    static const char *const disks[] = { "c", "d" };
    unsigned before[STATE_NODES][STATE_VALUES], after[STATE_NODES][STATE_VALUES];

    ck_assert_int_eq(blk_driver_register(ctx, &pair_driver, NULL), 0);
    BlkNode *node = open_stack(ctx, "{'driver':'pair','node-name':'a','file':{'driver':'copy-on-read','node-name':'b',"
                               "'file':{'driver':'mem','node-name':'c'}},'second':{'driver':'mem','node-name':'d'}}");
    perm_state(ctx, before);
    for (unsigned i = 0; i < G_N_ELEMENTS(disks); i++) {
        Mem *mem = mem_of(ctx, disks[i]);

        mem->refuse_perm = BLK_PERM_WRITE;
        refuse_attach(node, RDWR, BLK_PERM_READ, "locked by another");
        perm_state(ctx, after);
        ck_assert_mem_eq(before, after, sizeof(before));
        mem->refuse_perm = 0;
    }
    BlkChild *user = blk_co_attach(node, "user", RDWR, BLK_PERM_READ, NULL);
    perm_state(ctx, after);
    for (unsigned i = 0; i < STATE_NODES; i++) {
        ck_assert_mem_ne(before[i], after[i], sizeof(before[i]));
    }
    blk_co_detach(user);
    blk_co_unref(node);
    return 0;
}

CASE(conflicts)
CASE(read_only)
CASE(two_images_of_one_file)
CASE(lock_refused)
CASE(cow_child)
CASE(undone)

BLK_TEST_MAIN("permission", test_conflicts, test_read_only, test_two_images_of_one_file, test_lock_refused,
              test_cow_child, test_undone)
