/* SPDX-License-Identifier: MIT */
/*
 * test_graph_change.c - changes of a graph in use: filters that come and go, one node in the place of another, drained sections.
 */
#include "graph_drivers.h"

#define RDWR (BLK_PERM_READ | BLK_PERM_WRITE)

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

typedef struct Drain {
    BlkNode *node;
    bool done;
} Drain;

static int drain_run(void *opaque)
{
    Drain *drain = opaque;

    blk_co_drain_begin(drain->node);
    drain->done = true;
    return 0;
}

/* What a user of the drained node serves is drained first: requests there may wait for those that the user sends. */
static int drain_waits_for_the_served(void *ctx)
{
    BlkChild *user = use_stack(ctx, "{'driver':'mem','node-name':'a'}", RDWR);
    BlkChild *guest = use_stack(ctx, "{'driver':'mem','node-name':'b'}", RDWR);
    Write guests = { guest, 0, 1, false }, users = { user, 0, 1, false }, late = { guest, 1, 1, false };
    Drain drain = { blk_child_node(user), false };
    Mem *mem = mem_of(ctx, "b");

    blk_child_serve(user, blk_child_node(guest));
    mem->hold = true;
    blk_co_spawn(ctx, write_run, &guests);
    let_run();
    blk_co_spawn(ctx, drain_run, &drain);
    blk_co_spawn(ctx, write_run, &late);
    let_run();
    blk_co_spawn(ctx, write_run, &users);       /* the guest waits for this one, say */
    let_run();
    ck_assert(users.done && users.ret == 0 && !drain.done && !guests.done);
    mem_release(mem);
    let_run();
    ck_assert(drain.done && guests.done && !late.done);
    blk_drain_end(drain.node);
    let_run();
    ck_assert(late.done && late.ret == 0);
    blk_co_detach(user);
    blk_co_detach(guest);
    return 0;
}

/* ---- one node in the place of another ---- */

typedef struct Replace {
    BlkNode *from, *to;
    int ret;
    bool done;
} Replace;

static int replace_run(void *opaque)
{
    Replace *r = opaque;

    r->ret = blk_co_replace_node(r->from, r->to, NULL);
    r->done = true;
    return 0;
}

/* All but those that stay follow, with what waited meanwhile and with their permissions. */
static int replace_node(void *ctx)
{
    ck_assert_int_eq(blk_driver_register(ctx, &blk_driver_nothing, NULL), 0);
    BlkChild *user = use_stack(ctx, "{'driver':'mem','node-name':'a'}", RDWR);
    BlkNode *a = blk_child_node(user), *b = open_stack(ctx, "{'driver':'mem','node-name':'b'}");
    BlkNode *above = open_stack(ctx, "{'driver':'nothing','node-name':'above','file':'a'}");
    BlkChild *job = blk_co_attach(a, "job", BLK_PERM_READ, BLK_PERM_ALL, NULL);
    Write before = { user, 0, 1, false }, during = { user, 1, 1, false };
    Replace replace = { a, b, 1, false };
    Mem *mem = mem_of(ctx, "a"), *other = mem_of(ctx, "b");

    blk_child_stay(job);
    mem->hold = true;
    blk_co_spawn(ctx, write_run, &before);
    let_run();
    blk_co_spawn(ctx, replace_run, &replace);
    let_run();
    blk_co_spawn(ctx, write_run, &during);
    let_run();
    ck_assert(!replace.done && !before.done && !during.done && mem->holding == 1);
    mem_release(mem);
    let_run();
    ck_assert(replace.done && replace.ret == 0 && before.done && during.done && during.ret == 0);
    ck_assert(mem->data[0] == 1 && mem->data[1] == 0 && other->data[0] == 0 && other->data[1] == 1);
    ck_assert(blk_child_node(user) == b && blk_node_child(above, "file") == b && blk_child_node(job) == a);
    ck_assert(mem->perm == BLK_PERM_READ && (other->perm & BLK_PERM_WRITE));
    ck_assert_int_eq(blk_co_replace_node(b, b, NULL), 0);
    blk_co_unref(above);
    blk_co_unref(b);
    blk_co_detach(job);
    blk_co_detach(user);
    return 0;
}

static int replace_refused(void *ctx)
{
    BlkChild *user = use_stack(ctx, "{'driver':'compress','write-buffer':0,'node-name':'c','file':{'driver':'box',"
                               "'node-name':'box','file':{'driver':'mem','node-name':'m'}}}", RDWR);
    BlkNode *box = blk_node_find(ctx, "box");
    BlkNode *reader = open_stack(ctx, "{'driver':'mem','node-name':'r','read-only':true}");
    BlkNode *taken = open_stack(ctx, "{'driver':'box','node-name':'t','file':{'driver':'mem'}}");
    BlkChild *other = blk_co_attach(taken, "other", BLK_PERM_READ, BLK_PERM_READ, NULL);
    g_autoptr(GError) error = NULL;

    ck_assert_int_eq(blk_co_replace_node(box, reader, &error), -ENOTSUP);
    ck_assert(strstr(error->message, "driver 'mem'") && strstr(error->message, "compress"));
    g_clear_error(&error);
    ck_assert_int_eq(blk_co_replace_node(blk_child_node(user), reader, &error), -EACCES);
    ck_assert(strstr(error->message, "read-only"));
    g_clear_error(&error);
    ck_assert_int_eq(blk_co_replace_node(box, taken, &error), -EPERM);
    ck_assert(strstr(error->message, "'other'"));
    ck_assert(blk_node_child(blk_child_node(user), "file") == box && blk_node_find(ctx, "c") == blk_child_node(user));
    ck_assert(taken->core->perm == BLK_PERM_READ && reader->core->perm == 0);
    write_byte(blk_child_node(user), 0, 1, 1);
    blk_co_detach(other);
    ck_assert_int_eq(blk_co_replace_node(box, taken, NULL), 0);
    write_byte(blk_child_node(user), 0, 1, 1);
    ck_assert_uint_eq(box_of(ctx, "t")->compressed, 1);
    blk_co_unref(taken);
    blk_co_unref(reader);
    blk_co_detach(user);
    return 0;
}

/* Buffered data that cannot be stored would be lost. */
static int replace_keeps_held_data(void *ctx)
{
    BlkChild *user = use_stack(ctx, "{'driver':'compress','node-name':'c','file':{'driver':'box','node-name':'box',"
                               "'file':{'driver':'mem','node-name':'m'}}}", RDWR);
    BlkNode *filter = blk_child_node(user), *other = open_stack(ctx, "{'driver':'mem'}");
    uint8_t byte = 0;

    write_byte(filter, 0, 1, 7);
    mem_of(ctx, "m")->fail_write_at = 0;
    ck_assert_int_eq(blk_co_replace_node(filter, other, NULL), -EIO);
    ck_assert_int_eq(blk_co_replace_child(filter, "file", other, NULL), -EIO);
    ck_assert_int_eq(blk_co_remove_filter(filter, NULL), -EIO);
    ck_assert(blk_child_node(user) == filter);
    ck_assert_int_eq(blk_co_pread(filter, 0, 1, &byte, 0), 0);
    ck_assert_uint_eq(byte, 7);
    mem_of(ctx, "m")->fail_write_at = UINT64_MAX;
    ck_assert_int_eq(blk_co_replace_node(filter, other, NULL), 0);
    ck_assert(blk_child_node(user) == other);
    blk_co_unref(other);
    blk_co_detach(user);
    return 0;
}

static void expect_refused(int ret, int expected, GError **error, const char *part)
{
    ck_assert_int_eq(ret, expected);
    ck_assert_msg(*error && strstr((*error)->message, part), "'%s' does not say '%s'", *error ? (*error)->message : "", part);
    g_clear_error(error);
}

static int set_backing(void *ctx)
{
    BlkNode *top = open_stack(ctx, "{'driver':'box','node-name':'top','backing':null,'file':{'driver':'mem'}}");
    BlkChild *user = blk_co_attach(top, "user", RDWR, BLK_PERM_READ, NULL);
    BlkNode *base = open_stack(ctx, "{'driver':'box','node-name':'base','file':{'driver':'mem','node-name':'m'}}");
    g_autoptr(GError) error = NULL;

    ck_assert_int_eq(blk_co_set_backing(top, NULL, NULL), 0);
    ck_assert_int_eq(blk_co_set_backing(top, base, NULL), 0);
    ck_assert(blk_node_backing(top) == base && top->backing->node == base && top->core->below == 1);
    ck_assert_uint_eq(base->core->perm, BLK_PERM_READ);
    expect_refused(blk_co_set_backing(base, top, &error), -ELOOP, &error, "above");
    expect_refused(blk_co_set_backing(base, base, &error), -ELOOP, &error, "base");
    expect_refused(blk_co_set_backing(blk_node_find(ctx, "m"), top, &error), -EINVAL, &error, "'mem'");
    ck_assert(base->backing == NULL);

    /* A writer below is not welcome; a refused child is not there. */
    ck_assert_int_eq(blk_co_set_backing(top, NULL, NULL), 0);
    ck_assert(top->backing == NULL && blk_node_child(top, "backing") == NULL && top->core->below == 0);
    ck_assert_uint_eq(base->core->perm, 0);
    BlkChild *writer = blk_co_attach(base, "writer", RDWR, BLK_PERM_ALL, NULL);
    expect_refused(blk_co_set_backing(top, base, &error), -EPERM, &error, "writer");
    ck_assert(top->backing == NULL && base->core->parents.length == 1 && top->core->children.length == 1);
    ck_assert(base->core->perm == RDWR && base->core->shared == BLK_PERM_ALL);
    blk_co_detach(writer);

    /* The old one goes, if nobody else holds it. */
    ck_assert_int_eq(blk_co_set_backing(top, base, NULL), 0);
    blk_co_unref(base);
    BlkNode *other = open_stack(ctx, "{'driver':'box','node-name':'other','file':{'driver':'mem'}}");
    ck_assert_int_eq(blk_co_set_backing(top, other, NULL), 0);
    ck_assert(blk_node_find(ctx, "base") == NULL && blk_node_backing(top) == other);
    blk_co_unref(other);
    blk_co_unref(top);
    blk_co_detach(user);
    return 0;
}

/* A chain may not become too long in its middle either. */
static int set_backing_depth(void *ctx)
{
    BlkNode *tops[2];
    g_autoptr(GError) error = NULL;

    ck_assert_int_eq(blk_driver_register(ctx, &over_driver, NULL), 0);
    for (int chain = 0; chain < 2; chain++) {
        tops[chain] = NULL;
        for (int i = 0; i <= BLK_MAX_CHAIN / 2; i++) {
            g_autofree char *tree = g_strdup_printf(i ? "{'driver':'over','node-name':'n%d.%d','backing':'n%d.%d'}"
                                                      : "{'driver':'over','node-name':'n%d.%d'}", chain, i, chain, i - 1);
            BlkNode *next = open_stack(ctx, tree);

            blk_co_unref(tops[chain]);
            tops[chain] = next;
        }
    }
    expect_refused(blk_co_set_backing(blk_node_find(ctx, "n0.0"), tops[1], &error), -ELOOP, &error, "longer than 200");
    ck_assert(blk_node_find(ctx, "n0.0")->backing == NULL);
    ck_assert_uint_eq(tops[0]->core->below, BLK_MAX_CHAIN / 2);
    ck_assert_int_eq(blk_co_set_backing(blk_node_find(ctx, "n0.1"), tops[1], NULL), 0);
    ck_assert_uint_eq(tops[0]->core->below, BLK_MAX_CHAIN);
    ck_assert(blk_node_find(ctx, "n0.0") == NULL);
    blk_co_unref(tops[0]);
    blk_co_unref(tops[1]);
    return 0;
}

static int replace_child(void *ctx)
{
    BlkChild *user = use_stack(ctx, "{'driver':'compress','write-buffer':0,'node-name':'c','file':{'driver':'box',"
                               "'node-name':'b','cluster-size':4096,'file':{'driver':'mem','node-name':'m'}}}", RDWR);
    BlkNode *filter = blk_child_node(user);
    BlkNode *other = open_stack(ctx, "{'driver':'box','node-name':'o','cluster-size':8192,'file':{'driver':'mem',"
                                "'size':'2M'}}");
    g_autoptr(GError) error = NULL;

    expect_refused(blk_co_replace_child(filter, "fiel", other, &error), -EINVAL, &error, "no child 'fiel'");
    expect_refused(blk_co_replace_child(filter, "backing", other, &error), -EINVAL, &error, "no child 'backing'");
    expect_refused(blk_co_replace_child(filter, "file", NULL, &error), -EINVAL, &error, "needs its child");
    expect_refused(blk_co_replace_child(filter, "file", filter, &error), -ELOOP, &error, "same");
    expect_refused(blk_co_replace_child(blk_node_find(ctx, "b"), "file", filter, &error), -ELOOP, &error, "above");
    expect_refused(blk_co_replace_child(filter, "file", blk_node_find(ctx, "m"), &error), -ENOTSUP, &error, "'mem'");
    ck_assert(blk_node_filtered(filter) == blk_node_find(ctx, "b") && filter->limits.write_align == 4096);
    ck_assert_int_eq(blk_co_replace_child(filter, "file", other, NULL), 0);
    ck_assert(blk_node_filtered(filter) == other && filter->limits.write_align == 8192);
    ck_assert_uint_eq(blk_node_length(filter), 2 << 20);
    ck_assert(blk_node_find(ctx, "b") == NULL);
    write_byte(filter, 1 << 20, 1, 1);
    ck_assert_uint_eq(box_of(ctx, "o")->compressed, 1);
    blk_co_unref(other);
    blk_co_detach(user);
    return 0;
}

/* A parent that a node got while it was being drained does not hold the section up: it waits at the gate. */
typedef struct Section {
    BlkNode *node;
    bool begun, end;
} Section;

static int section_run(void *opaque)
{
    Section *s = opaque;

    blk_co_drain_begin(s->node);
    s->begun = true;
    while (!s->end) {
        blk_co_reschedule();
    }
    blk_drain_end(s->node);
    return 0;
}

static int parent_while_drained(void *ctx)
{
    ck_assert_int_eq(blk_driver_register(ctx, &blk_driver_nothing, NULL), 0);
    BlkChild *user = use_stack(ctx, "{'driver':'box','node-name':'b','file':{'driver':'mem','node-name':'m'}}", RDWR);
    BlkNode *box = blk_child_node(user);
    BlkChild *late = use_stack(ctx, "{'driver':'nothing','node-name':'l','file':{'driver':'mem','node-name':'n'}}", RDWR);
    Section first = { box, false, false }, second = { blk_node_find(ctx, "m"), false, false };
    Write write = { late, 0, 1, false };

    blk_co_spawn(ctx, section_run, &first);
    let_run();
    ck_assert(first.begun);
    second.node->core->in_flight++;                     /* the section of m begins, gates b, and then waits at m */
    blk_co_spawn(ctx, section_run, &second);
    let_run();
    ck_assert(!second.begun);
    ck_assert_int_eq(blk_co_replace_child(blk_child_node(late), "file", box, NULL), 0);
    blk_co_spawn(ctx, write_run, &write);
    let_run();
    ck_assert(!write.done);
    blk_request_end(second.node);
    let_run();
    ck_assert(second.begun);
    second.end = first.end = true;
    let_run();
    ck_assert(write.done && write.ret == 0);
    blk_co_detach(late);
    blk_co_detach(user);
    return 0;
}

/* What waits for the end of a section waits at the top, also behind filters that come within it: it holds up no section within. */
static int filters_within_a_section(void *ctx)
{
    BlkChild *user = use_stack(ctx, "{'driver':'box','node-name':'b','file':{'driver':'mem','node-name':'m'}}", RDWR);
    BlkNode *box = blk_child_node(user);
    Write write = { user, 0, 1, false };
    BlkNode *filters[2];

    ck_assert_int_eq(blk_driver_register(ctx, &blk_driver_nothing, NULL), 0);
    blk_co_drain_begin(box);
    blk_co_spawn(ctx, write_run, &write);
    let_run();
    for (int i = 0; i < 2; i++) {
        Change insert = { box, NULL, false, 1, false };

        insert.filter = filters[i] = open_stack(ctx, "{'driver':'nothing','file':'b'}");
        blk_co_spawn(ctx, change_run, &insert);
        let_run();
        ck_assert(insert.done && insert.ret == 0 && !write.done);
        ck_assert_uint_eq(filters[i]->core->in_flight, 0);
    }
    ck_assert(blk_child_node(user) == filters[0] && blk_node_child(filters[0], "file") == filters[1]);

    Change removal = { box, filters[1], true, 1, false };

    blk_co_spawn(ctx, change_run, &removal);
    let_run();
    ck_assert(removal.done && removal.ret == 0 && !write.done);
    blk_co_unref(filters[1]);
    blk_drain_end(box);
    let_run();
    ck_assert(write.done && write.ret == 0);
    blk_co_unref(filters[0]);
    blk_co_detach(user);
    return 0;
}

/* So does what is served from then on. */
static int served_within_a_section(void *ctx)
{
    BlkChild *user = use_stack(ctx, "{'driver':'mem','node-name':'a'}", RDWR);
    BlkChild *guest = use_stack(ctx, "{'driver':'mem','node-name':'b'}", RDWR);
    Write guests = { guest, 0, 1, false };
    Section within = { blk_child_node(user), false, true };

    blk_co_drain_begin(blk_child_node(user));
    blk_child_serve(user, blk_child_node(guest));
    blk_co_spawn(ctx, write_run, &guests);
    blk_co_spawn(ctx, section_run, &within);
    let_run();
    ck_assert(within.begun && !guests.done);
    blk_drain_end(blk_child_node(user));
    let_run();
    ck_assert(guests.done && guests.ret == 0);
    blk_co_detach(user);
    blk_co_detach(guest);
    return 0;
}

CASE(insert_and_remove)
CASE(insert_refused)
CASE(insert_below_parents)
CASE(drain_waits_for_parents)
CASE(drain_waits_for_the_served)
CASE(replace_node)
CASE(replace_refused)
CASE(replace_keeps_held_data)
CASE(set_backing)
CASE(set_backing_depth)
CASE(replace_child)
CASE(parent_while_drained)
CASE(filters_within_a_section)
CASE(served_within_a_section)

BLK_TEST_MAIN("graph_change", test_insert_and_remove, test_insert_refused, test_insert_below_parents,
              test_drain_waits_for_parents, test_drain_waits_for_the_served, test_replace_node, test_replace_refused,
              test_replace_keeps_held_data, test_set_backing, test_set_backing_depth, test_replace_child,
              test_parent_while_drained, test_filters_within_a_section, test_served_within_a_section)
