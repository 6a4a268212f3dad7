/* SPDX-License-Identifier: MIT */
/*
 * test_graph.c - opening trees, names, children, live changes, drained sections.
 */
#include "stack.h"

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

static const BlkDriver blk_driver_nothing = { .name = "nothing", .kind = BLK_FILTER };

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

typedef struct Over {
    char room[2048];        /* as much as a driver may have on its stack, and more */
} Over;

static const BlkOption over_options[] = {
    { "backing", BLK_OPTION_NODE, "what is below" },
    { NULL },
};

static int over_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    node->length = 4096;
    return blk_co_open_backing(node, options, NULL, NULL, error);
}

static int over_co_preadv(BlkNode *node, BlkRequest *req)
{
    volatile Over over;
    int ret = 0;

    over.room[0] = 1;
    if (node->backing) {
        ret = blk_co_preadv(node->backing->node, req->offset, req->bytes, req->iov, 0);
    }
    return ret < 0 || over.room[0] != 1 ? -EIO : ret;
}

static const BlkDriver over_driver = {
    .name = "over",
    .kind = BLK_FORMAT,
    .options = over_options,
    .co_open = over_co_open,
    .co_preadv = over_co_preadv,
};

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

/* ---- live changes ---- */

typedef struct Write {
    BlkChild *user;
    uint64_t offset;
    int ret;
    bool done;
} Write;

static int write_run(void *opaque)
{
    Write *w = opaque;
    uint8_t byte = 1;

    w->ret = blk_co_pwrite(blk_child_node(w->user), w->offset, 1, &byte, 0);
    w->done = true;
    return 0;
}

typedef struct Change {
    BlkNode *node, *filter;
    bool remove;
    int ret;
    bool done;
} Change;

static int change_run(void *opaque)
{
    Change *c = opaque;

    c->ret = c->remove ? blk_co_remove_filter(c->filter, NULL) : blk_co_insert_above(c->node, c->filter, NULL);
    c->done = true;
    return 0;
}

static int insert_and_remove(void *ctx)
{
    BlkChild *user = use_stack(ctx, "{'driver':'box','node-name':'b','cluster-size':4096,"
                               "'file':{'driver':'mem','node-name':'m'}}", RDWR);
    BlkNode *box = blk_child_node(user);
    BlkNode *filter = open_stack(ctx, "{'driver':'compress','write-buffer':0,'node-name':'c','file':'b'}");
    Mem *mem = mem_of(ctx, "m");
    Write before = { user, 0, 1, false }, during = { user, 5000, 1, false }, after = { user, 9000, 1, false };
    Change insert = { box, filter, false, 1, false }, removal = { box, filter, true, 1, false };

    mem->hold = true;
    blk_co_spawn(ctx, write_run, &before);
    let_run();
    blk_co_spawn(ctx, change_run, &insert);
    let_run();
    blk_co_spawn(ctx, write_run, &during);
    let_run();
    ck_assert(!insert.done && !before.done && !during.done);
    ck_assert_uint_eq(mem->holding, 1);
    ck_assert(blk_child_node(user) == box);
    mem_release(mem);
    let_run();
    ck_assert(insert.done && insert.ret == 0 && before.done && before.ret == 0);
    ck_assert(during.done && during.ret == 0);
    ck_assert(blk_child_node(user) == filter && blk_node_child(filter, "file") == box);
    /* What waited while the filter was put in went through it. */
    ck_assert_uint_eq(box_of(ctx, "b")->writes, 2);
    ck_assert_uint_eq(box_of(ctx, "b")->compressed, 1);

    mem->hold = true;
    during.done = false;
    blk_co_spawn(ctx, write_run, &during);
    let_run();
    blk_co_spawn(ctx, change_run, &removal);
    let_run();
    blk_co_spawn(ctx, write_run, &after);
    let_run();
    ck_assert(!removal.done && !after.done && mem->holding == 1);
    mem_release(mem);
    let_run();
    ck_assert(removal.done && removal.ret == 0 && after.done && after.ret == 0);
    ck_assert(blk_child_node(user) == box);
    ck_assert_uint_eq(box_of(ctx, "b")->compressed, 2);
    ck_assert_uint_eq(box_of(ctx, "b")->writes, 4);
    blk_co_unref(filter);
    ck_assert(blk_node_find(ctx, "c") == NULL);
    blk_co_detach(user);
    return 0;
}

/* What the filter's parents cannot live with is not done. */
static int insert_refused(void *ctx)
{
    BlkChild *user;
    BlkNode *filter, *box;
    g_autoptr(GError) error = NULL;

    user = use_stack(ctx, "{'driver':'box','node-name':'b','file':{'driver':'mem','node-name':'m'}}", RDWR);
    box = blk_child_node(user);
    filter = open_stack(ctx, "{'driver':'compress','read-only':true,'file':'b'}");
    ck_assert_int_eq(blk_co_insert_above(box, filter, &error), -EACCES);
    ck_assert(strstr(error->message, "read-only") != NULL);
    ck_assert(blk_child_node(user) == box);
    write_byte(box, 0, 1, 1);
    ck_assert_int_eq(blk_co_insert_above(blk_node_find(ctx, "m"), filter, NULL), -EINVAL);
    ck_assert_int_eq(blk_co_remove_filter(box, NULL), -EINVAL);
    blk_co_unref(filter);
    blk_co_detach(user);
    return 0;
}

/* A node with several parents; the filter below another one, which must follow the length. */
static int insert_below_parents(void *ctx)
{
    BlkChild *user, *second;
    BlkNode *filter, *mem;

    ck_assert_int_eq(blk_driver_register(ctx, &blk_driver_nothing, NULL), 0);
    user = use_stack(ctx, "{'driver':'nothing','file':{'driver':'nothing','file':{'driver':'mem','node-name':'m'}}}",
                     BLK_PERM_ALL);
    mem = blk_node_find(ctx, "m");
    second = blk_co_attach(mem, "second", BLK_PERM_READ, BLK_PERM_ALL, NULL);
    filter = open_stack(ctx, "{'driver':'nothing','file':'m'}");
    ck_assert_int_eq(blk_co_insert_above(mem, filter, NULL), 0);
    ck_assert(blk_child_node(second) == filter);
    ck_assert(blk_node_skip_filters(blk_child_node(user)) == mem);
    ck_assert_uint_eq(mem->core->parents.length, 1);
    ck_assert_int_eq(blk_co_truncate(blk_child_node(user), 12345, BLK_PREALLOC_OFF, NULL), 0);
    ck_assert_uint_eq(blk_node_length(blk_child_node(user)), 12345);
    ck_assert_int_eq(blk_co_remove_filter(filter, NULL), 0);
    ck_assert(blk_child_node(second) == mem);
    ck_assert_uint_eq(mem->core->parents.length, 3);    /* the filter is still there */
    blk_co_unref(filter);
    blk_co_detach(second);
    blk_co_detach(user);
    return 0;
}

/* A request that is under way above needs the drained node to end. */
static int drain_waits_for_parents(void *ctx)
{
    BlkChild *user = use_stack(ctx, "{'driver':'compress','file':{'driver':'box','cluster-size':4096,"
                               "'file':{'driver':'mem','node-name':'m'}}}", RDWR);
    BlkNode *node = blk_node_find(ctx, "m");
    Mem *mem = mem_of(ctx, "m");
    Write first = { user, 0, 1, false }, second = { user, 4096, 1, false };
    uint8_t byte;

    blk_co_spawn(ctx, write_run, &first);
    blk_co_reschedule();                    /* inside the read half of its read-modify-write */
    ck_assert(mem->reads == 1 && mem->writes == 0);
    blk_co_drain_begin(node);
    blk_co_drain_begin(node);
    ck_assert(first.done && first.ret == 0);
    blk_co_spawn(ctx, write_run, &second);
    let_run();
    blk_drain_end(node);
    let_run();
    ck_assert(!second.done);
    blk_drain_end(node);
    let_run();
    ck_assert(second.done && second.ret == 0);
    ck_assert_int_eq(blk_co_pread(node, 0, 1, &byte, 0), 0);
    blk_co_detach(user);
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

#define CASE(name)                                                                                                   \
    START_TEST(test_##name)                                                                                          \
    {                                                                                                                \
        run_test(name);                                                                                              \
    }                                                                                                                \
    END_TEST

CASE(minimal_filter)
CASE(option_errors)
CASE(inheritance)
CASE(nodes_by_name)
CASE(filenames)
CASE(detection)
CASE(long_chain)
CASE(insert_and_remove)
CASE(insert_refused)
CASE(insert_below_parents)
CASE(drain_waits_for_parents)
CASE(events)

BLK_TEST_MAIN("graph", test_minimal_filter, test_option_errors, test_inheritance, test_nodes_by_name, test_filenames,
              test_detection, test_long_chain, test_insert_and_remove, test_insert_refused, test_insert_below_parents,
              test_drain_waits_for_parents, test_events)
