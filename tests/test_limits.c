/* SPDX-License-Identifier: MIT */
/*
 * test_limits.c - what is handed up from children, and what is not.
 */
#include "stack.h"

static const BlkDriver nothing_driver = { .name = "nothing", .kind = BLK_FILTER };

static int handed_up(void *ctx)
{
    BlkNode *node = open_stack(ctx, "{'driver':'compress','write-buffer':0,'file':{'driver':'box','cluster-size':'128k','node-name':'b',"
                               "'file':{'driver':'mem','node-name':'m','read-align':512,'write-align':4096,"
                               "'mem-align':1024,'max-transfer':65536,'zeroes-align':8192,'discard-align':16384}}}");
    const BlkLimits *mem = blk_node_limits(blk_node_find(ctx, "m")), *top = blk_node_limits(node);
    const BlkLimits *box = blk_node_limits(blk_node_find(ctx, "b"));

    ck_assert_uint_eq(mem->read_align, 512);
    ck_assert_uint_eq(mem->write_align, 4096);
    ck_assert_uint_eq(mem->max_transfer, 65536);
    /* Each layer pads and splits for itself. */
    ck_assert_uint_eq(box->read_align, 1);
    ck_assert_uint_eq(box->write_align, 1);
    ck_assert_uint_eq(box->max_transfer, 0);
    ck_assert_uint_eq(box->mem_align, 1024);
    ck_assert_uint_eq(box->zeroes_align, 8192);
    ck_assert_uint_eq(box->cluster_size, 131072);
    ck_assert_uint_eq(top->read_align, 1);
    ck_assert_uint_eq(top->write_align, 131072);
    ck_assert_uint_eq(top->cluster_size, 131072);
    ck_assert_uint_eq(top->mem_align, 1024);
    ck_assert_uint_eq(top->discard_align, 16384);
    blk_co_unref(node);
    return 0;
}

static int capabilities(void *ctx)
{
    BlkNode *node;

    ck_assert_int_eq(blk_driver_register(ctx, &nothing_driver, NULL), 0);
    node = open_stack(ctx, "{'driver':'nothing','file':{'driver':'compress','file':{'driver':'nothing','file':"
                      "{'driver':'box','file':{'driver':'mem','fua':true}}}}}");
    ck_assert_uint_eq(node->caps, BLK_CAP_COMPRESSED_WRITE | BLK_CAP_COMPRESSED_REWRITE);
    blk_co_unref(node);
    node = open_stack(ctx, "{'driver':'nothing','file':{'driver':'mem','fua':true}}");
    ck_assert_uint_eq(node->caps, BLK_CAP_FUA);
    blk_co_unref(node);
    return 0;
}

static int buffers(void *ctx)
{
    BlkNode *node = open_stack(ctx, "{'driver':'mem','mem-align':16384}");
    void *suits = blk_buffer_try_alloc(node, 5), *any = blk_buffer_try_alloc(NULL, 100000);

    ck_assert_uint_eq((uintptr_t)suits % 16384, 0);
    ck_assert_uint_eq((uintptr_t)any % 4096, 0);
    memset(any, 1, 100000);
    blk_buffer_free(suits);
    blk_buffer_free(any);
    blk_buffer_free(NULL);
    blk_co_unref(node);
    return 0;
}

CASE(handed_up)
CASE(capabilities)
CASE(buffers)

BLK_TEST_MAIN("limits", test_handed_up, test_capabilities, test_buffers)
