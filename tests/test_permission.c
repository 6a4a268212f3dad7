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

#define CASE(name)                                                                                                   \
    START_TEST(test_##name)                                                                                          \
    {                                                                                                                \
        run_test(name);                                                                                              \
    }                                                                                                                \
    END_TEST

CASE(conflicts)
CASE(read_only)
CASE(two_images_of_one_file)
CASE(lock_refused)
CASE(cow_child)

BLK_TEST_MAIN("permission", test_conflicts, test_read_only, test_two_images_of_one_file, test_lock_refused,
              test_cow_child)
