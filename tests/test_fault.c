/* SPDX-License-Identifier: MIT */
/* test_fault.c - the fault filter: rules, states, breakpoints, limits, counters, names. */
#include "node_test.h"

#define FAULT(more)                                                                                                  \
    "{\"driver\": \"fault\", \"discard\": \"unmap\"" more                                                       \
    ", \"image\": {\"driver\": \"null-co\", \"size\": \"1M\", \"read-zeroes\": true, \"discard\": \"unmap\"}}"
#define CONFIG FAULT(", \"config\": \"@/config\"")

static int read_at(BlkChild *user, uint64_t offset, uint64_t bytes)
{
    g_autofree void *buf = g_malloc(bytes);

    return blk_co_pread(blk_child_node(user), offset, bytes, buf, 0);
}

static int write_at(BlkChild *user, uint64_t offset, uint64_t bytes)
{
    g_autofree void *buf = g_malloc0(bytes);

    return blk_co_pwrite(blk_child_node(user), offset, bytes, buf, 0);
}

static void happens(BlkChild *user, BlkEvent event)
{
    blk_co_event(blk_child_node(user), event);
}

static void write_config(Test *t, const char *text)
{
    g_autofree char *path = g_build_filename(t->dir, "config", NULL);

    ck_assert(g_file_set_contents(path, text, -1, NULL));
}

CO_TEST(rule_acts_from_its_event_on)
{
    BlkChild *user = open_rw(t, FAULT(", \"inject-error\": [{\"event\": \"l2_load\", \"errno\": 28}]"));

    ck_assert_int_eq(read_at(user, 0, 512), 0);
    happens(user, BLK_EVENT_l2_update);
    ck_assert_int_eq(read_at(user, 0, 512), 0);
    happens(user, BLK_EVENT_l2_load);
    ck_assert_int_eq(read_at(user, 0, 512), -ENOSPC);
    ck_assert_int_eq(write_at(user, 0, 512), -ENOSPC);
    ck_assert_int_eq(blk_co_pwrite_zeroes(blk_child_node(user), 0, 4096, 0), -ENOSPC);
    ck_assert_int_eq(blk_co_discard(blk_child_node(user), 0, 4096), -ENOSPC);
    ck_assert_int_eq(blk_co_flush(blk_child_node(user)), -ENOSPC);
    blk_co_detach(user);
}

CO_TEST(rule_of_no_event_acts_at_once_and_once)
{
    BlkChild *user = open_rw(t, FAULT(", \"inject-error\": [{\"event\": \"none\", \"once\": \"on\", \"sector\": \"3\","
                                      " \"immediately\": true}]"));

    ck_assert_int_eq(read_at(user, 0, 1536), 0);
    ck_assert_int_eq(read_at(user, 2048, 512), 0);
    ck_assert_int_eq(write_at(user, 1024, 1024), -EIO);
    ck_assert_int_eq(write_at(user, 1024, 1024), 0);
    blk_co_detach(user);
}

CO_TEST(rule_of_one_type)
{
    BlkStatus status;
    BlkChild *user = open_rw(t, FAULT(", \"inject-error\": [{\"event\": \"none\", \"iotype\": \"flush\"},"
                                      "{\"event\": \"none\", \"iotype\": \"block-status\", \"errno\": 12}]"));

    ck_assert_int_eq(read_at(user, 0, 512), 0);
    ck_assert_int_eq(write_at(user, 0, 512), 0);
    ck_assert_int_eq(blk_co_flush(blk_child_node(user)), -EIO);
    ck_assert_int_eq(blk_co_block_status(blk_child_node(user), 0, 512, &status), -ENOMEM);
    blk_co_detach(user);
}

CO_TEST(states)
{
    write_config(t, "# state 1 -> 2 at the first l2_load, back at the next one\n"
                    "[set-state]\nevent = \"l2_load\"\nstate = \"1\"\nnew_state = \"2\"\n"
                    "[set-state]\r\nevent=\"l2_load\"\r\nstate=2\r\nnew_state=\"1\"\r\n"
                    "[inject-error \"name\"]\n  event = \"read_aio\"\n  state = \"2\"\n errno = \"5\"\n once = \"on\"\n");
    BlkChild *user = open_rw(t, CONFIG);

    happens(user, BLK_EVENT_read_aio);
    ck_assert_int_eq(read_at(user, 0, 512), 0);
    happens(user, BLK_EVENT_l2_load);
    happens(user, BLK_EVENT_l2_load);
    happens(user, BLK_EVENT_read_aio);
    ck_assert_int_eq(read_at(user, 0, 512), 0);
    happens(user, BLK_EVENT_l2_load);
    ck_assert_int_eq(read_at(user, 0, 512), 0);
    happens(user, BLK_EVENT_read_aio);
    ck_assert_int_eq(read_at(user, 0, 512), -EIO);
    blk_co_detach(user);
}

CO_TEST(bad_rules_are_refused)
{
    static const struct {
        const char *text, *message;
    } configs[] = {
        { "[nonsense]\n", "config:1: there is no group [nonsense]" },
        { "\nevent = \"read_aio\"\n", "config:2: expected [inject-error]" },
        { "[inject-error]\nread_aio\n", "config:2: expected key" },
        { "[inject-error]\n", "'event' is required" },
        { "[inject-error]\nevent = \"read_iao\"\n", "config:1: inject-error: unknown event 'read_iao'" },
        { "[inject-error]\nevent = \"read_aio\"\nerrno = \"0\"\n", "errno" },
        { "[inject-error]\nevent = \"read_aio\"\nonec = \"on\"\n", "did you mean 'once'" },
        { "[inject-error]\nevent = \"read_aio\"\nevent = \"read_aio\"\n", "given twice" },
        { "[set-state]\nevent = \"read_aio\"\n", "'new_state' is required" },
        { "\377\376", "not a text" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(configs); i++) {
        write_config(t, configs[i].text);
        refused(t, CONFIG, configs[i].message);
    }
    refused(t, FAULT(", \"config\": \"@\""), "config file");
    refused(t, FAULT(", \"config\": \"@/nowhere\""), "config file");
    refused(t, FAULT(", \"inject-error\": 3"), "must be an array");
    refused(t, FAULT(", \"inject-error\": [3]"), "inject-error.0 must be an object");
    refused(t, FAULT(", \"inject-error\": [{\"event\": \"none\", \"iotype\": \"erase\"}]"), "iotype");
}

CO_TEST(rules_by_dotted_keys)
{
    BlkChild *user = open_rw(t, FAULT(", \"inject-error.0.event\": \"none\", \"inject-error.0.sector\": \"0\","
                                      "\"inject-error.1.event\": \"none\", \"inject-error.1.sector\": \"8\""));

    ck_assert_int_eq(read_at(user, 0, 512), -EIO);
    ck_assert_int_eq(read_at(user, 4096, 512), -EIO);
    ck_assert_int_eq(read_at(user, 512, 512), 0);
    blk_co_detach(user);
}

/* ---- breakpoints ---- */

typedef struct Worker {
    BlkChild *user;
    bool done;
} Worker;

static int worker_co(void *opaque)
{
    Worker *worker = opaque;

    happens(worker->user, BLK_EVENT_write_aio);
    worker->done = true;
    return 0;
}

static void let_run(void)
{
    for (unsigned i = 0; i < 10; i++) {
        blk_co_reschedule();
    }
}

CO_TEST(breakpoint_holds_one_request)
{
    BlkChild *user = open_rw(t, FAULT(""));
    BlkNode *node = blk_child_node(user);
    Worker first = { user }, second = { user };

    ck_assert_int_eq(blk_breakpoint_set(node, "write_aio", "A", NULL), 0);
    ck_assert(!blk_breakpoint_is_suspended(node, "A"));
    ck_assert_int_eq(blk_breakpoint_resume(node, "A"), -ENOENT);
    blk_co_spawn(t->ctx, worker_co, &first);
    blk_co_spawn(t->ctx, worker_co, &second);
    let_run();
    ck_assert(blk_breakpoint_is_suspended(node, "A"));
    ck_assert(!blk_breakpoint_is_suspended(node, "B"));
    ck_assert(!first.done && second.done);
    ck_assert_int_eq(blk_breakpoint_resume(node, "A"), 0);
    let_run();
    ck_assert(first.done);
    ck_assert_int_eq(blk_breakpoint_resume(node, "A"), -ENOENT);
    blk_co_detach(user);
}

CO_TEST(request_waits_for_all_its_breakpoints)
{
    BlkChild *user = open_rw(t, FAULT(""));
    BlkNode *node = blk_child_node(user);
    Worker worker = { user };

    ck_assert_int_eq(blk_breakpoint_set(node, "write_aio", "A", NULL), 0);
    ck_assert_int_eq(blk_breakpoint_set(node, "write_aio", "A", NULL), 0);
    ck_assert_int_eq(blk_breakpoint_set(node, "write_aio", "B", NULL), 0);
    blk_co_spawn(t->ctx, worker_co, &worker);
    let_run();
    ck_assert_int_eq(blk_breakpoint_resume(node, "A"), 0);
    ck_assert_int_eq(blk_breakpoint_resume(node, "B"), 0);
    let_run();
    ck_assert(!worker.done);
    ck_assert_int_eq(blk_breakpoint_resume(node, "A"), 0);
    let_run();
    ck_assert(worker.done);
    blk_co_detach(user);
}

CO_TEST(removing_a_breakpoint_resumes_all)
{
    BlkChild *user = open_rw(t, FAULT(""));
    BlkNode *node = blk_child_node(user);
    Worker workers[3] = { { user }, { user }, { user } };
    static const char *const tags[] = { "A", "A", "B" };

    for (unsigned i = 0; i < 3; i++) {
        ck_assert_int_eq(blk_breakpoint_set(node, "write_aio", tags[i], NULL), 0);
        blk_co_spawn(t->ctx, worker_co, &workers[i]);
        let_run();
    }
    ck_assert_int_eq(blk_breakpoint_set(node, "write_aio", "A", NULL), 0);
    ck_assert_int_eq(blk_breakpoint_remove(node, "A"), 0);
    let_run();
    ck_assert(workers[0].done && workers[1].done && !workers[2].done);
    workers[0].done = false;
    blk_co_spawn(t->ctx, worker_co, &workers[0]);
    let_run();
    ck_assert(workers[0].done);
    ck_assert_int_eq(blk_breakpoint_remove(node, "*"), 0);
    let_run();
    ck_assert(workers[2].done);
    ck_assert_int_eq(blk_breakpoint_remove(node, "*"), -ENOENT);
    blk_co_detach(user);
}

CO_TEST(newest_waiting_request_goes_on_first)
{
    BlkChild *user = open_rw(t, FAULT(""));
    BlkNode *node = blk_child_node(user);
    Worker workers[2] = { { user }, { user } };

    for (unsigned i = 0; i < 2; i++) {
        ck_assert_int_eq(blk_breakpoint_set(node, "write_aio", "A", NULL), 0);
        blk_co_spawn(t->ctx, worker_co, &workers[i]);
        let_run();
    }
    ck_assert_int_eq(blk_breakpoint_resume(node, "A"), 0);
    let_run();
    ck_assert(!workers[0].done && workers[1].done);
    ck_assert_int_eq(blk_breakpoint_resume(node, "A"), 0);
    let_run();
    ck_assert(workers[0].done);
    blk_co_detach(user);
}

CO_TEST(unknown_event)
{
    g_autoptr(GError) error = NULL;
    BlkChild *user = open_rw(t, FAULT(""));

    ck_assert_int_eq(blk_breakpoint_set(blk_child_node(user), "nonsense", "A", &error), -ENOENT);
    ck_assert_ptr_nonnull(strstr(error->message, "nonsense"));
    blk_co_detach(user);
}

/* ---- limits and counters ---- */

static int64_t counter(BlkChild *user, const char *io, const char *what)
{
    BlkInfo info = { 0 };

    ck_assert_int_eq(blk_co_info(blk_child_node(user), &info, NULL), 0);
    JsonObject *data = json_object_get_object_member(info.specific, "data");
    int64_t value = json_object_get_int_member(json_object_get_object_member(data, io), what);
    blk_info_clear(&info);
    return value;
}

CO_TEST(limits_shape_requests)
{
    BlkChild *user = open_rw(t, FAULT(", \"align\": 4096, \"max-transfer\": 8192, \"max-write-zero\": 65536,"
                                      "\"opt-write-zero\": 16384, \"opt-discard\": 4096, \"max-discard\": 8192"));
    const BlkLimits *limits = blk_node_limits(blk_child_node(user));

    ck_assert_uint_eq(limits->read_align, 4096);
    ck_assert_uint_eq(limits->write_align, 4096);
    ck_assert_uint_eq(limits->max_transfer, 8192);
    ck_assert_int_eq(read_at(user, 100, 512), 0);
    ck_assert_int_eq(counter(user, "read", "requests"), 1);
    ck_assert_int_eq(counter(user, "read", "bytes"), 4096);
    ck_assert_int_eq(write_at(user, 0, 65536), 0);
    ck_assert_int_eq(counter(user, "write", "requests"), 8);
    ck_assert_int_eq(counter(user, "write", "bytes"), 65536);
    ck_assert_int_eq(blk_co_pwrite_zeroes(blk_child_node(user), 0, 131072, 0), 0);
    ck_assert_int_eq(counter(user, "write-zeroes", "requests"), 2);
    ck_assert_int_eq(blk_co_discard(blk_child_node(user), 0, 65536), 0);
    ck_assert_int_eq(counter(user, "discard", "requests"), 8);
    blk_co_detach(user);
    refused(t, FAULT(", \"align\": 100"), "align 100");
    refused(t, FAULT(", \"align\": 4096, \"max-transfer\": 512"), "max-transfer 512");
    refused(t, FAULT(", \"take-child-perms\": [\"fly\"]"), "take-child-perms");
}

CO_TEST(counts_also_what_fails)
{
    BlkChild *user = open_rw(t, FAULT(", \"inject-error\": [{\"event\": \"none\"}]"));

    ck_assert_int_eq(read_at(user, 0, 512), -EIO);
    ck_assert_int_eq(blk_co_flush(blk_child_node(user)), -EIO);
    ck_assert_int_eq(counter(user, "read", "bytes"), 512);
    ck_assert_int_eq(counter(user, "flush", "requests"), 1);
    blk_co_detach(user);
}

CO_TEST(file_name)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *name = test_text(t, "blkdebug:@/config:@/disk");

    make_file(t, "disk", 4096, 4096, 0x42);
    write_config(t, "[inject-error]\nevent = \"none\"\niotype = \"flush\"\n");
    g_autoptr(JsonObject) options = blk_options_parse_filename(t->ctx, name, "raw", &error);
    ck_assert_msg(options != NULL, "%s", error ? error->message : "");
    BlkNode *node = blk_co_open(t->ctx, options, &error);
    ck_assert_msg(node != NULL, "%s", error ? error->message : "");
    BlkChild *user = blk_co_attach(node, "test", BLK_PERM_ALL, BLK_PERM_ALL, &error);
    ck_assert_msg(user != NULL, "%s", error ? error->message : "");
    blk_co_unref(node);
    expect_pattern(user, 0, 4096, 0x42);
    ck_assert_int_eq(blk_co_flush(blk_child_node(user)), -EIO);
    blk_co_detach(user);

    ck_assert_ptr_null(blk_options_parse_filename(t->ctx, "blkdebug:disk", "raw", &error));
    ck_assert_ptr_nonnull(strstr(error->message, "blkdebug:CONFIG:IMAGE"));
    g_clear_error(&error);
    ck_assert_ptr_null(blk_options_parse_filename(t->ctx, "blkdebug::json:{}", "raw", &error));
    ck_assert_ptr_nonnull(error);
}

BLK_TEST_MAIN("fault", rule_acts_from_its_event_on, rule_of_no_event_acts_at_once_and_once, rule_of_one_type, states,
              bad_rules_are_refused, rules_by_dotted_keys, breakpoint_holds_one_request,
              request_waits_for_all_its_breakpoints, removing_a_breakpoint_resumes_all,
              newest_waiting_request_goes_on_first, unknown_event, limits_shape_requests, counts_also_what_fails,
              file_name)
