/* SPDX-License-Identifier: MIT */
/*
 * test_graph.c - opening trees, names, children, debugging points.
 */
#include "graph_drivers.h"

#include <glib/gstdio.h>
#include <unistd.h>

#define RDWR (BLK_PERM_READ | BLK_PERM_WRITE)

/* ---- a minimal filter: all that it does not say passes through ---- */

static int invert_co_preadv(BlkNode *node, BlkRequest *req)
{
    int ret = blk_co_pass_through_read(node, req);
    struct iovec vec[16];
    size_t done;
    unsigned n = ret == 0 ? blk_iov_fill(req->iov, req->bytes, vec, 16, &done) : 0;

    for (unsigned i = 0; i < n; i++) {
        for (size_t j = 0; j < vec[i].iov_len; j++) {
            ((uint8_t *)vec[i].iov_base)[j] ^= 0xff;
        }
    }
    return ret;
}

static const BlkDriver blk_driver_invert = {
    .name = "invert",
    .kind = BLK_FILTER,
    .co_preadv = invert_co_preadv,
};

static int minimal_filter(void *ctx)
{
    BlkChild *user;
    BlkNode *node;
    uint8_t byte = 0x0f;
    BlkStatus status;

    ck_assert_int_eq(blk_driver_register(ctx, &blk_driver_invert, NULL), 0);
    ck_assert_int_eq(blk_driver_register(ctx, &blk_driver_invert, NULL), -EEXIST);
    user = use_stack(ctx, "{'driver':'invert','discard':'unmap','file':{'driver':'mem','node-name':'m','size':5000}}",
                     BLK_PERM_ALL);
    node = blk_child_node(user);
    ck_assert_uint_eq(blk_node_length(node), 5000);
    ck_assert_int_eq(blk_co_pwrite(node, 7, 1, &byte, 0), 0);
    ck_assert_uint_eq(mem_of(ctx, "m")->data[7], 0x0f);
    ck_assert_int_eq(blk_co_pread(node, 7, 1, &byte, 0), 0);
    ck_assert_uint_eq(byte, 0xf0);
    ck_assert_int_eq(blk_co_pwrite_zeroes(node, 7, 1, 0), 0);
    ck_assert_uint_eq(mem_of(ctx, "m")->data[7], 0);
    ck_assert_int_eq(blk_co_discard(node, 7, 1), 0);
    ck_assert_uint_eq(mem_of(ctx, "m")->discards, 1);
    ck_assert_int_eq(blk_co_flush(node), 0);
    ck_assert_uint_eq(mem_of(ctx, "m")->flushes, 1);
    ck_assert_int_eq(blk_co_block_status(node, 0, 5000, &status), 0);
    ck_assert_uint_eq(status.bytes, 5000);
    ck_assert_int_eq(blk_co_truncate(node, 6000, BLK_PREALLOC_OFF, NULL), 0);
    ck_assert_uint_eq(blk_node_length(node), 6000);
    blk_co_detach(user);
    return 0;
}

/* ---- opening ---- */

static int option_errors(void *ctx)
{
    refuse_open(ctx, "{}", "needs a 'driver'");
    refuse_open(ctx, "{'driver':'mme'}", "did you mean 'mem'");
    refuse_open(ctx, "{'driver':7}", "'driver'");
    refuse_open(ctx, "{'driver':'mem','siez':1}", "did you mean 'size'");
    refuse_open(ctx, "{'driver':'mem','size':'much'}", "'size'");
    refuse_open(ctx, "{'driver':'mem','node-name':'1x'}", "Invalid node-name");
    refuse_open(ctx, "{'driver':'mem','node-name':''}", "Invalid node-name");
    refuse_open(ctx, "{'driver':'mem','fail-open':true}", "told to fail");
    refuse_open(ctx, "{'driver':'box'}", "'file'");
    refuse_open(ctx, "{'driver':'box','file':null}", "'file'");
    refuse_open(ctx, "{'driver':'box','file':'nobody'}", "nobody");
    refuse_open(ctx, "{'driver':'box','node-name':'b','file':'b'}", "Cannot find the node 'b'");
    refuse_open(ctx, "{'driver':'box','file':{'driver':'mem','fail-open':'on'}}", "told to fail");
    refuse_open(ctx, "{'driver':'box','node-name':'x','file':{'driver':'mem','node-name':'x'}}", "Duplicate");
    refuse_open(ctx, "{'driver':'box','file':{'driver':'mem'},'backing':{'driver':'mem','fail-open':true}}",
                "told to fail");
    refuse_open(ctx, "{'driver':'mem','force-share':true}", "force-share");
    refuse_open(ctx, "{'filename':'/nonexistent/x'}", "/nonexistent/x");
    refuse_open(ctx, "{'filename':7}", "filename");
    refuse_open(ctx, "{'driver':'compress'}", "'file'");
    refuse_open(ctx, "{'driver':'mem','size':'9223372036854775807'}", "too large");
    return 0;
}

static int inheritance(void *ctx)
{
    BlkNode *top = open_stack(ctx, "{'driver':'box','read-only':true,'cache':{'direct':true,'no-flush':'on'},"
                              "'force-share':true,'file':{'driver':'mem','node-name':'m'},"
                              "'backing':{'driver':'box','node-name':'base','cache.no-flush':false,'force-share':false,"
                              "'file':{'driver':'mem','node-name':'mb'}}}");
    const BlkOpenFlags *flags = blk_node_open_flags(blk_node_find(ctx, "m"));

    ck_assert(flags->read_only && flags->no_flush && flags->direct && flags->force_share && flags->unmap);
    flags = blk_node_open_flags(blk_node_find(ctx, "mb"));
    ck_assert(flags->read_only && !flags->no_flush && flags->direct && !flags->force_share);
    ck_assert(blk_node_backing(top) == blk_node_find(ctx, "base"));
    ck_assert(blk_node_child(top, "file") == blk_node_find(ctx, "m"));
    ck_assert(blk_node_child(top, "none") == NULL);
    blk_co_unref(top);

    top = open_stack(ctx, "{'driver':'box','file':{'driver':'mem'},'backing':{'driver':'mem','node-name':'b'}}");
    ck_assert(blk_node_read_only(blk_node_find(ctx, "b")) && !blk_node_read_only(top));
    blk_co_unref(top);
    top = open_stack(ctx, "{'driver':'box','metadata-only':true,'file':{'driver':'mem'},'backing':{'driver':'mem'}}");
    ck_assert(blk_node_backing(top) == NULL);
    blk_co_unref(top);
    return 0;
}

static int nodes_by_name(void *ctx)
{
    BlkNode *mem = open_stack(ctx, "{'driver':'mem','node-name':'m'}");
    BlkNode *box = open_stack(ctx, "{'driver':'box','file':'m'}");

    ck_assert(blk_node_child(box, "file") == mem);
    blk_co_unref(mem);
    ck_assert(blk_node_find(ctx, "m") == mem);      /* its parent holds it */
    blk_co_unref(box);
    ck_assert(blk_node_find(ctx, "m") == NULL);
    return 0;
}

static int filenames(void *ctx)
{
    BlkNode *node = open_stack(ctx, "{'driver':'mem','size':'4k','node-name':'x'}");

    ck_assert_str_eq(blk_node_filename(node), "json:{\"driver\": \"mem\", \"size\": \"4k\"}");
    blk_co_unref(node);
    node = open_stack(ctx, "{'driver':'box','read-only':true,'file':{'driver':'mem','node-name':'y'}}");
    ck_assert_str_eq(blk_node_filename(node), "json:{\"driver\": \"box\", \"file\": {\"driver\": \"mem\"}}");
    blk_co_unref(node);
    return 0;
}

static char *temporary(const char *name, const char *content)
{
    char *path = g_strdup_printf("%s/blkstack-test-graph-%d-%s", g_get_tmp_dir(), (int)getpid(), name);

    ck_assert(g_file_set_contents(path, content, -1, NULL));
    return path;
}

/* A detected format, and what may not be made of an image that was detected as raw. */
static int detection(void *ctx)
{
    g_autofree char *plain = temporary("raw", "nothing known, but long enough to be something, it might be thought");
    g_autofree char *boxed = temporary("box", "BOX! and something");
    g_autofree char *tree = g_strdup_printf("{'filename':'%s'}", boxed);
    BlkNode *node = open_stack(ctx, tree);
    BlkChild *user;

    ck_assert_str_eq(blk_node_driver_name(node), "box");
    ck_assert_str_eq(blk_node_filename(node), boxed);
    ck_assert(!blk_node_open_flags(node)->trusted);
    blk_co_unref(node);

    g_free(tree);
    tree = g_strdup_printf("{'driver':'box','filename':'%s'}", boxed);
    node = open_stack(ctx, tree);
    ck_assert(blk_node_open_flags(node)->trusted);
    ck_assert_str_eq(blk_node_driver_name(blk_node_child(node, "file")), "file");
    blk_co_unref(node);

    g_free(tree);
    tree = g_strdup_printf("{'file':{'driver':'file','filename':'%s'}}", plain);
    user = use_stack(ctx, tree, RDWR);
    node = blk_child_node(user);
    ck_assert_str_eq(blk_node_driver_name(node), "raw");
    ck_assert_int_eq(blk_co_pwrite(node, 0, 4, "BOX!", 0), -EPERM);
    ck_assert_int_eq(blk_co_pwrite(node, 0, 2, "BO", 0), 0);
    ck_assert_int_eq(blk_co_pwrite(node, 2, 2, "X!", 0), -EPERM);
    ck_assert_int_eq(blk_co_pwrite(node, 4, 4, "BOX!", 0), 0);
    blk_co_detach(user);

    g_free(tree);
    tree = g_strdup_printf("{'driver':'raw','filename':'%s'}", plain);
    user = use_stack(ctx, tree, RDWR);
    ck_assert_int_eq(blk_co_pwrite(blk_child_node(user), 0, 4, "BOX!", 0), 0);
    blk_co_detach(user);
    g_unlink(plain);
    g_unlink(boxed);
    return 0;
}

/* ---- long chains ---- */

static int long_chain(void *ctx)
{
    g_autofree char *tree = g_strdup("{'driver':'over','node-name':'n0'}");
    BlkNode *top, *next;
    uint8_t byte;
    g_autoptr(GError) error = NULL;

    ck_assert_int_eq(blk_driver_register(ctx, &over_driver, NULL), 0);
    top = open_stack(ctx, tree);
    for (int i = 1; i <= BLK_MAX_CHAIN; i++) {
        g_free(tree);
        tree = g_strdup_printf("{'driver':'over','node-name':'n%d','backing':'n%d'}", i, i - 1);
        next = open_stack(ctx, tree);
        blk_co_unref(top);
        top = next;
    }
    ck_assert(try_open(ctx, "{'driver':'over','backing':'n200'}", &error) == NULL);
    ck_assert(strstr(error->message, "longer than 200") != NULL);
    ck_assert_int_eq(blk_co_pread(top, 0, 1, &byte, 0), 0);
    blk_co_unref(top);
    ck_assert(blk_node_find(ctx, "n0") == NULL);
    return 0;
}

/* A ladder: each step has two ways down, so there are 2^60 ways from the top to the foot. */
static int many_ways_down(void *ctx)
{
    BlkNode *top = open_stack(ctx, "{'driver':'mem','node-name':'n0'}"), *other;

    for (int i = 1; i <= 60; i++) {
        g_autofree char *tree = g_strdup_printf("{'driver':'box','node-name':'n%d','read-only':true,'file':'n%d',"
                                                "'backing':'n%d'}", i, i - 1, i - 1);
        BlkNode *next = open_stack(ctx, tree);

        blk_co_unref(top);
        top = next;
    }
    other = open_stack(ctx, "{'driver':'mem','node-name':'other'}");
    ck_assert(!blk_node_reaches(top, other));
    ck_assert(blk_node_reaches(top, blk_node_find(ctx, "n0")));
    ck_assert_uint_lt(strlen(blk_node_filename(top)), 1 << 20);
    ck_assert_int_eq(blk_co_replace_node(other, top, NULL), 0);
    blk_co_unref(other);
    blk_co_unref(top);
    return 0;
}

/* A node belongs to the one in whose options it was named, until that is closed. */
static int openers(void *ctx)
{
    BlkNode *top = open_stack(ctx, "{'driver':'box','node-name':'b','file':{'driver':'mem','node-name':'m'}}");
    BlkNode *below = blk_node_ref(blk_node_find(ctx, "m"));
    BlkNode *second;

    ck_assert_int_eq(blk_driver_register(ctx, &blk_driver_nothing, NULL), 0);
    second = open_stack(ctx, "{'driver':'nothing','file':'b'}");
    ck_assert(blk_node_opener(below) == top);
    ck_assert(blk_node_opener(top) == NULL && blk_node_opener(second) == NULL);
    blk_co_unref(second);
    blk_co_unref(top);
    ck_assert(blk_node_opener(below) == NULL);
    blk_co_unref(below);
    return 0;
}

/* ---- debugging points ---- */

static int events(void *ctx)
{
    BlkNode *node = open_stack(ctx, "{'driver':'box','file':{'driver':'mem'}}");
    g_autoptr(GError) error = NULL;
    BlkEvent event;

    ck_assert(blk_event_find("pwritev_rmw_after_tail", &event) && event == BLK_EVENT_pwritev_rmw_after_tail);
    for (unsigned i = 0; i < BLK_EVENT_COUNT; i++) {
        ck_assert(blk_event_find(blk_event_name(i), &event) && event == i);
    }
    ck_assert(!blk_event_find("none", &event));
    ck_assert_int_eq(blk_breakpoint_set(node, "l2_load", "A", &error), -ENOTSUP);
    ck_assert(error != NULL);
    ck_assert_int_eq(blk_breakpoint_resume(node, "A"), -ENOTSUP);
    ck_assert(!blk_breakpoint_is_suspended(node, "A"));
    blk_co_unref(node);
    return 0;
}

CASE(minimal_filter)
CASE(option_errors)
CASE(inheritance)
CASE(nodes_by_name)
CASE(filenames)
CASE(detection)
CASE(long_chain)
CASE(many_ways_down)
CASE(openers)
CASE(events)

BLK_TEST_MAIN("graph", test_minimal_filter, test_option_errors, test_inheritance, test_nodes_by_name, test_filenames,
              test_detection, test_long_chain, test_many_ways_down, test_openers, test_events)
