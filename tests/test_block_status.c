/* SPDX-License-Identifier: MIT */
/*
 * test_block_status.c - status of one node and through backing chains.
 */
#include "stack.h"

/* A format whose content is written down in its options: one letter for each 4096 bytes, 'd'ata, 'z'ero, '-' for
 * the backing. */
typedef struct Written {
    char *map;
} Written;

static const BlkOption written_options[] = {
    { "map", BLK_OPTION_STRING, "letters", .required = true },
    { "backing", BLK_OPTION_NODE, "what is below" },
    { NULL },
};

static int written_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    Written *state = node->opaque;

    state->map = g_strdup(blk_options_string(options, "map"));
    node->length = strlen(state->map) * 4096;
    return blk_co_open_backing(node, options, NULL, NULL, error);
}

static void written_co_close(BlkNode *node)
{
    g_free(((Written *)node->opaque)->map);
}

static int written_co_block_status(BlkNode *node, uint64_t offset, uint64_t bytes, BlkStatus *status)
{
    const char *map = ((Written *)node->opaque)->map;
    char letter = map[offset / 4096];
    uint64_t end = offset / 4096 + 1;

    while (map[end] == letter) {
        end++;
    }
    status->bytes = end * 4096 - offset;    /* may be more than was asked */
    status->flags = letter == 'd' ? BLK_STATUS_DATA | BLK_STATUS_ALLOCATED
                    : letter == 'z' ? BLK_STATUS_ZERO | BLK_STATUS_ALLOCATED : 0;
    return 0;
}

static const BlkDriver written_driver = {
    .name = "written",
    .kind = BLK_FORMAT,
    .options = written_options,
    .instance_size = sizeof(Written),
    .co_open = written_co_open,
    .co_close = written_co_close,
    .co_block_status = written_co_block_status,
};

static const BlkDriver nothing_driver = { .name = "nothing", .kind = BLK_FILTER };

static BlkNode *open_written(void *ctx, const char *tree)
{
    if (!blk_driver_find(ctx, "written")) {
        ck_assert_int_eq(blk_driver_register(ctx, &written_driver, NULL), 0);
        ck_assert_int_eq(blk_driver_register(ctx, &nothing_driver, NULL), 0);
    }
    return open_stack(ctx, tree);
}

static void expect_above(BlkNode *node, BlkNode *base, uint64_t offset, uint64_t bytes, uint64_t got, unsigned flags,
                         unsigned depth)
{
    BlkStatus status;

    ck_assert_int_eq(blk_co_block_status_above(node, base, offset, bytes, &status), 0);
    ck_assert_uint_eq(status.bytes, got);
    ck_assert_uint_eq(status.flags, flags);
    ck_assert_uint_eq(status.depth, depth);
}

static int one_node(void *ctx)
{
    BlkNode *node = open_written(ctx, "{'driver':'nothing','file':{'driver':'written','map':'ddz-'}}");
    BlkStatus status;

    ck_assert_int_eq(blk_co_block_status(node, 100, 1 << 20, &status), 0);
    ck_assert_uint_eq(status.bytes, 8092);
    ck_assert_uint_eq(status.flags, BLK_STATUS_DATA | BLK_STATUS_ALLOCATED);
    ck_assert_int_eq(blk_co_block_status(node, 100, 10, &status), 0);
    ck_assert_uint_eq(status.bytes, 10);
    ck_assert_int_eq(blk_co_block_status(node, 3 * 4096, UINT64_MAX, &status), 0);
    ck_assert_uint_eq(status.bytes, 4096);
    ck_assert_uint_eq(status.flags, BLK_STATUS_EOF);
    ck_assert_int_eq(blk_co_block_status(node, 4 * 4096, 1, &status), 0);
    ck_assert_uint_eq(status.bytes, 0);
    ck_assert_uint_eq(status.flags, BLK_STATUS_EOF);
    ck_assert_int_eq(blk_co_block_status(node, UINT64_MAX, UINT64_MAX, &status), 0);
    ck_assert_uint_eq(status.bytes, 0);
    blk_co_unref(node);

    node = open_stack(ctx, "{'driver':'mem','size':5000}");
    ck_assert_int_eq(blk_co_block_status(node, 0, 5000, &status), 0);
    ck_assert_uint_eq(status.bytes, 5000);
    ck_assert_uint_eq(status.flags, BLK_STATUS_DATA | BLK_STATUS_ALLOCATED | BLK_STATUS_EOF);
    blk_co_unref(node);
    return 0;
}

static int chain(void *ctx)
{
    BlkNode *top = open_written(ctx, "{'driver':'nothing','file':{'driver':'written','map':'d---z-','backing':"
                                "{'driver':'nothing','file':{'driver':'written','node-name':'mid','map':'zd--',"
                                "'backing':"
                                "{'driver':'written','node-name':'base','map':'ddd'}}}}}");
    unsigned data = BLK_STATUS_DATA | BLK_STATUS_ALLOCATED, zero = BLK_STATUS_ZERO | BLK_STATUS_ALLOCATED;

    expect_above(top, NULL, 0, 1 << 20, 4096, data, 0);
    expect_above(top, NULL, 4096, 1 << 20, 4096, data, 1);
    expect_above(top, NULL, 8192, 1 << 20, 4096, data, 2);
    expect_above(top, NULL, 12288, 1 << 20, 4096, BLK_STATUS_ZERO, 1);     /* the base ends before */
    expect_above(top, NULL, 16384, 1 << 20, 4096, zero, 0);
    expect_above(top, NULL, 20480, 1 << 20, 4096, BLK_STATUS_ZERO | BLK_STATUS_EOF, 0);
    expect_above(top, NULL, 24576, 1, 0, BLK_STATUS_EOF, 0);
    /* Down to but not including the base. */
    expect_above(top, blk_node_find(ctx, "base"), 8192, 4096, 4096, 0, 1);
    expect_above(top, blk_node_find(ctx, "mid"), 4096, 4096, 4096, 0, 0);
    blk_co_unref(top);
    return 0;
}

CASE(one_node)
CASE(chain)

BLK_TEST_MAIN("block_status", test_one_node, test_chain)
