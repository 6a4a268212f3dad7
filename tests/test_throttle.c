/* SPDX-License-Identifier: MIT */
/*
 * test_throttle.c - limits in a time that the test makes, and how nodes of a throttle-group share them.
 */
#include "node_test.h"

#include "core/object.h"
#include "core/throttle.h"

#define SECOND UINT64_C(1000000000)
#define START  (5 * SECOND)

/* ---- limits, in a time of our own ---- */

static bool change(BlkThrottleLimits *limits, const char *json, GError **error)
{
    const BlkOption *const tables[] = { blk_throttle_options, NULL };
    g_autoptr(JsonObject) object = blk_json_parse_object(json, -1, "test", NULL);
    g_autoptr(BlkOptions) options = blk_options_parse(tables, object, "test", error);

    return options && blk_throttle_limits_change(limits, options, error) == 0;
}

static BlkThrottle throttle_of(const char *json)
{
    BlkThrottleLimits limits;
    BlkThrottle throttle;
    GError *error = NULL;

    blk_throttle_limits_init(&limits);
    ck_assert_msg(change(&limits, json, &error), "%s: %s", json, error ? error->message : "");
    blk_throttle_set(&throttle, &limits);
    return throttle;
}

static bool may_go(const BlkThrottle *throttle, bool write, uint64_t now_ns)
{
    return blk_throttle_when(throttle, write, now_ns) == 0;
}

/* How many requests go between the times, if somebody always wants to send the next one. */
static unsigned count(BlkThrottle *throttle, bool write, uint64_t bytes, uint64_t from_ns, uint64_t to_ns)
{
    uint64_t now_ns = from_ns, due_ns;
    unsigned n = 0;

    while (now_ns < to_ns) {
        due_ns = blk_throttle_when(throttle, write, now_ns);
        if (due_ns == 0) {
            blk_throttle_spend(throttle, write, bytes, now_ns);
            n++;
        } else {
            ck_assert_uint_gt(due_ns, now_ns);      /* no answer that would be asked for again and again */
            now_ns = due_ns;
        }
    }
    return n;
}

#define ck_assert_between(n, min, max)  \
    do {                                \
        ck_assert_uint_ge(n, min);      \
        ck_assert_uint_le(n, max);      \
    } while (0)

START_TEST(without_limits_all_goes)
{
    BlkThrottle t = throttle_of("{}");

    for (unsigned i = 0; i < 1000; i++) {
        ck_assert(may_go(&t, i % 2, START));
        blk_throttle_spend(&t, i % 2, UINT64_C(1) << 40, START);
    }
}
END_TEST

START_TEST(rates_hold)
{
    BlkThrottle bytes = throttle_of("{\"limits\": {\"bps-total\": 1000000}}");
    BlkThrottle requests = throttle_of("{\"x-iops-total\": 100}");

    /* A tenth of a second goes at once. */
    ck_assert_between(count(&bytes, false, 1000, START, START + 1), 100, 102);
    ck_assert_between(count(&bytes, true, 1000, START + 1, START + 10 * SECOND), 9990, 10010);
    ck_assert_between(count(&requests, true, 1 << 20, START, START + 10 * SECOND), 1009, 1012);
}
END_TEST

START_TEST(reads_and_writes_have_limits_of_their_own)
{
    BlkThrottle t = throttle_of("{\"limits\": {\"iops-write\": 10, \"bps-read\": 5000}}");

    ck_assert_between(count(&t, true, 1 << 20, START, START + 10 * SECOND), 100, 103);
    ck_assert_between(count(&t, false, 1000, START, START + 10 * SECOND), 50, 52);
}
END_TEST

START_TEST(a_request_larger_than_a_burst_passes)
{
    BlkThrottle t = throttle_of("{\"limits\": {\"bps-write\": 1000}}");

    ck_assert(may_go(&t, true, START));
    blk_throttle_spend(&t, true, 10000, START);
    ck_assert_uint_eq(blk_throttle_when(&t, true, START), START + 99 * SECOND / 10);
    ck_assert(!may_go(&t, true, START + 98 * SECOND / 10));
    ck_assert(may_go(&t, true, START + 99 * SECOND / 10));
}
END_TEST

START_TEST(bursts_of_a_second)
{
    BlkThrottle t = throttle_of("{\"limits\": {\"iops-total\": 10, \"iops-total-max\": 500}}");

    ck_assert_between(count(&t, false, 512, START, START + 1), 500, 502);
    ck_assert_between(count(&t, false, 512, START + 1, START + 10 * SECOND), 98, 101);
    /* What was not used comes back, but no more than a burst. */
    ck_assert_between(count(&t, false, 512, START + 20 * SECOND, START + 20 * SECOND + 1), 99, 102);
    ck_assert_between(count(&t, false, 512, START + 900 * SECOND, START + 900 * SECOND + 1), 500, 502);
}
END_TEST

/* Also if the machine has been up for less time than the burst would have taken to earn. */
START_TEST(long_bursts)
{
    BlkThrottle t = throttle_of("{\"limits\": {\"iops-total\": 100, \"iops-total-max\": 1000, "
                                "\"iops-total-max-length\": 10}}");

    ck_assert_between(count(&t, false, 512, START, START + SECOND), 1000, 1110);
    ck_assert_between(count(&t, false, 512, START + SECOND, START + 10 * SECOND), 8990, 9010);
    /* 10000 of the burst, and 100 a second; what went beyond that until now is missing. */
    ck_assert_between(count(&t, false, 512, START + 10 * SECOND, START + 20 * SECOND), 1890, 2010);
    ck_assert_between(count(&t, false, 512, START + 20 * SECOND, START + 30 * SECOND), 998, 1002);
}
END_TEST

START_TEST(large_requests_count_as_several)
{
    BlkThrottle t = throttle_of("{\"x-iops-total\": 100, \"x-iops-size\": 4096}");

    ck_assert_between(count(&t, false, 512, START, START + 10 * SECOND), 1009, 1012);
    t = throttle_of("{\"x-iops-total\": 100, \"x-iops-size\": 4096}");
    ck_assert_between(count(&t, false, 16384, START, START + 10 * SECOND), 252, 255);
}
END_TEST

START_TEST(extreme_numbers)
{
    BlkThrottle fast = throttle_of("{\"limits\": {\"bps-total\": 1000000000000000}}");
    BlkThrottle slow = throttle_of("{\"limits\": {\"bps-total\": 1, \"bps-total-max\": 232830, "
                                   "\"bps-total-max-length\": 4294967295}}");

    ck_assert_between(count(&fast, false, UINT64_C(1) << 40, START, START + SECOND), 900, 1100);
    for (unsigned i = 0; i < 100; i++) {        /* forced through: it only gets later and later */
        blk_throttle_spend(&slow, true, UINT64_MAX, START);
    }
    ck_assert(!may_go(&slow, true, START + 1000 * SECOND));
}
END_TEST

START_TEST(changes)
{
    BlkThrottleLimits limits;
    GError *error = NULL;

    blk_throttle_limits_init(&limits);
    ck_assert(change(&limits, "{\"x-iops-total\": 5, \"limits\": {\"iops-total\": 6, \"bps-read\": 7}}", NULL));
    ck_assert_uint_eq(limits.limit[BLK_THROTTLE_IOPS_TOTAL].rate, 6);
    ck_assert(change(&limits, "{\"limits\": {\"iops-total\": 8}}", NULL));
    ck_assert_uint_eq(limits.limit[BLK_THROTTLE_BPS_READ].rate, 7);
    /* What is refused changes nothing. */
    ck_assert(!change(&limits, "{\"limits\": {\"iops-total\": 9, \"iops-read\": 9}}", &error));
    ck_assert_str_eq(error->message, "bps/iops/max total values and read/write values cannot be used at the same time");
    g_clear_error(&error);
    ck_assert_uint_eq(limits.limit[BLK_THROTTLE_IOPS_TOTAL].rate, 8);
}
END_TEST

/* ---- groups ---- */

typedef struct Sender {
    BlkChild *user;
    char letter;
    bool write;
    unsigned n;             /* requests, all at once */
    GString *log;           /* the letter of each that has ended */
} Sender;

static int co_send(void *opaque)
{
    Sender *s = opaque;
    char buf[512] = { 0 };

    if (s->write) {
        ck_assert_int_eq(blk_co_pwrite(blk_child_node(s->user), 0, sizeof(buf), buf, 0), 0);
    } else {
        ck_assert_int_eq(blk_co_pread(blk_child_node(s->user), 0, sizeof(buf), buf, 0), 0);
    }
    g_string_append_c(s->log, s->letter);
    return 0;
}

static void send_all(BlkCoGroup *group, Sender *s)
{
    for (unsigned i = 0; i < s->n; i++) {
        blk_co_group_run(group, co_send, s);
    }
}

static void add_group(Test *t, const char *id, const char *limits)
{
    g_autofree char *text = g_strdup_printf("{\"qom-type\": \"throttle-group\", \"id\": \"%s\", \"limits\": {%s}}", id,
                                            limits);
    g_autoptr(JsonObject) options = blk_json_parse_object(text, -1, "test", NULL);

    ck_assert_int_eq(blk_object_add(t->ctx, options, NULL), 0);
}

#define NODE(name, group)                                                                               \
    "{\"driver\": \"throttle\", \"throttle-group\": \"" group "\", \"node-name\": \"" name "\", "       \
    "\"file\": {\"driver\": \"null-co\", \"size\": 1048576, \"node-name\": \"" name "-file\"}}"

CO_TEST(nodes_take_turns)
{
    g_autoptr(GString) log = g_string_new(NULL);
    BlkCoGroup group = BLK_CO_GROUP_INIT(100);

    add_group(t, "g", "\"iops-total\": 200");
    Sender a = { open_rw(t, NODE("a", "g")), 'a', false, 40, log };
    Sender b = { open_rw(t, NODE("b", "g")), 'b', false, 10, log };
    send_all(&group, &a);
    send_all(&group, &b);
    ck_assert_int_eq(blk_co_group_wait(&group), 0);
    /* Some of a's had gone before b came. From then on both take turns. */
    const char *first = strchr(log->str, 'b');
    ck_assert_msg(first && g_str_has_prefix(first, "babababababababababa"), "%s", log->str);
    ck_assert_uint_eq(log->len, 50);
    blk_co_detach(a.user);
    blk_co_detach(b.user);
}

CO_TEST(directions_take_turns)
{
    g_autoptr(GString) log = g_string_new(NULL);
    BlkCoGroup group = BLK_CO_GROUP_INIT(100);

    add_group(t, "g", "\"iops-total\": 200");
    Sender r = { open_rw(t, NODE("a", "g")), 'r', false, 30, log };
    Sender w = { r.user, 'w', true, 5, log };
    send_all(&group, &r);
    send_all(&group, &w);
    ck_assert_int_eq(blk_co_group_wait(&group), 0);
    const char *first = strchr(log->str, 'w');
    ck_assert_msg(first && g_str_has_prefix(first, "wrwrwrwrw"), "%s", log->str);
    blk_co_detach(r.user);
}

/* Writes that wait for an hour hold up no reads, of either node; a drain lets them go, and what comes then. */
CO_TEST(drain_lets_all_go)
{
    g_autoptr(GString) log = g_string_new(NULL);
    BlkCoGroup group = BLK_CO_GROUP_INIT(100);
    g_autoptr(GError) error = NULL;

    add_group(t, "g", "\"bps-write\": 1");
    Sender w = { open_rw(t, NODE("a", "g")), 'w', true, 5, log };
    Sender r = { w.user, 'r', false, 3, log };
    Sender other = { open_rw(t, NODE("b", "g")), 'o', true, 1, log };
    send_all(&group, &w);
    send_all(&group, &other);
    send_all(&group, &r);
    for (unsigned i = 0; i < 100; i++) {
        blk_co_reschedule();
    }
    ck_assert_str_eq(log->str, "wrrr");
    ck_assert_int_eq(blk_object_remove(t->ctx, "g", &error), -EBUSY);
    ck_assert_int_eq(blk_co_drain_begin(blk_child_node(w.user)), 0);
    ck_assert_str_eq(log->str, "wrrrwwww");
    blk_drain_end(blk_child_node(w.user));
    ck_assert_int_eq(blk_co_drain_begin(blk_node_find(t->ctx, "b-file")), 0);       /* below: it is drained, too */
    ck_assert_str_eq(log->str, "wrrrwwwwo");
    blk_drain_end(blk_node_find(t->ctx, "b-file"));
    ck_assert_int_eq(blk_co_group_wait(&group), 0);
    blk_co_detach(w.user);
    blk_co_detach(other.user);
    ck_assert_int_eq(blk_object_remove(t->ctx, "g", NULL), 0);
}

/* Sends each write three times, so that some reach the filter below only while this node is being drained. */
static const BlkOption thrice_options[] = {
    { "file", BLK_OPTION_NODE, "the node below", .required = true },
    { NULL },
};

static int thrice_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    return blk_co_open_child(node, options, "file", BLK_ROLE_FILTERED, error) ? 0 : -EINVAL;
}

static int thrice_co_pwritev(BlkNode *node, BlkRequest *req)
{
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_int_eq(blk_co_pass_through_write(node, req), 0);
    }
    return blk_co_pass_through_write(node, req);
}

static const BlkDriver thrice = {
    .name = "thrice", .kind = BLK_FILTER, .options = thrice_options, .co_open = thrice_co_open,
    .co_pwritev = thrice_co_pwritev,
};

CO_TEST(drain_above_lets_all_go)
{
    g_autoptr(GString) log = g_string_new(NULL);
    BlkCoGroup group = BLK_CO_GROUP_INIT(100);
    BlkChild *user;

    ck_assert_int_eq(blk_driver_register(t->ctx, &thrice, NULL), 0);
    add_group(t, "g", "\"bps-total\": 1");
    user = open_rw(t, "{\"driver\": \"thrice\", \"file\": " NODE("a", "g") "}");
    Sender w = { user, 'w', true, 4, log };
    send_all(&group, &w);
    blk_co_reschedule();
    ck_assert_int_eq(blk_co_drain_begin(blk_child_node(user)), 0);
    ck_assert_str_eq(log->str, "wwww");
    blk_drain_end(blk_child_node(user));
    blk_co_group_wait(&group);
    blk_co_detach(user);
}

CO_TEST(new_limits_hold_at_once)
{
    const BlkOption *const tables[] = { blk_throttle_options, NULL };
    g_autoptr(JsonObject) none = blk_json_parse_object("{\"limits\": {\"bps-write\": 0}}", -1, "test", NULL);
    g_autoptr(BlkOptions) options = blk_options_parse(tables, none, "test", NULL);
    g_autoptr(GString) log = g_string_new(NULL);
    BlkCoGroup group = BLK_CO_GROUP_INIT(100);
    BlkObject *object;

    add_group(t, "g", "\"bps-write\": 1");
    Sender w = { open_rw(t, NODE("a", "g")), 'w', true, 5, log };
    send_all(&group, &w);
    for (unsigned i = 0; i < 100; i++) {
        blk_co_reschedule();
    }
    ck_assert_str_eq(log->str, "w");
    object = blk_object_find(t->ctx, "g");
    ck_assert_int_eq(object->type->set(object, "x-bps-write", options, NULL), -EINVAL);
    ck_assert_int_eq(object->type->set(object, "limits", options, NULL), 0);
    ck_assert_int_eq(blk_co_group_wait(&group), 0);
    ck_assert_str_eq(log->str, "wwwww");
    blk_co_detach(w.user);
}

CO_TEST(other_objects_are_no_groups)
{
    g_autoptr(JsonObject) thread = blk_json_parse_object("{\"qom-type\": \"iothread\", \"id\": \"i\"}", -1, "test", NULL);

    ck_assert_int_eq(blk_object_add(t->ctx, thread, NULL), 0);
    refused(t, NODE("a", "i"), "Throttle group 'i' does not exist");
    refused(t, NODE("a", "nobody"), "Throttle group 'nobody' does not exist");
    ck_assert_int_eq(blk_object_remove(t->ctx, "i", NULL), 0);
}

BLK_TEST_MAIN("throttle", without_limits_all_goes, rates_hold, reads_and_writes_have_limits_of_their_own,
              a_request_larger_than_a_burst_passes, bursts_of_a_second, long_bursts, large_requests_count_as_several,
              extreme_numbers, changes, nodes_take_turns, directions_take_turns, drain_lets_all_go,
              drain_above_lets_all_go, new_limits_hold_at_once, other_objects_are_no_groups)
