/* SPDX-License-Identifier: MIT */
/*
 * test_mirror_job.c - the end of a mirror: each of its copies has something to do that no other one does.
 *
 *     the last passes        copy by the job's policies
 *     the copy while guests wait, of a job that is cancelled        one moment of the source, never half a write
 *     the copy when the job is finalized        what a guest's own copy has missed since
 */
#include "chain_test.h"

static const uint64_t lengths[IMAGES] = { 8 * CLUSTER, 8 * CLUSTER, 8 * CLUSTER, 8 * CLUSTER };

#define FAIL_ONCE "{\"event\": \"none\", \"iotype\": \"write\", \"errno\": 5, \"once\": true}"
#define FAIL_ALWAYS "{\"event\": \"none\", \"iotype\": \"write\", \"errno\": 5}"
#define NO_FAULT "{\"event\": \"none\", \"iotype\": \"discard\", \"errno\": 5}"

typedef struct Scene {
    JobKind kind;               /* MIRROR or ACTIVE_COMMIT */
    BlkChild *guest;
    BlkNode *target;            /* a reference */
    const char *target_file;    /* its node */
    BlkJob *job;
    GString *heard;
} Scene;

static void hear(BlkContext *ctx, const char *name, JsonObject *data, void *opaque)
{
    if (strcmp(name, "BLOCK_JOB_ERROR") == 0) {
        g_string_append_printf(opaque, "%s ", json_object_get_string_member(data, "action"));
    }
}

/* Until the job is ready. */
static void scene_begin(Test *t, Scene *scene, JobKind kind, BlkOnError on_error)
{
    static const char *const rules[IMAGES] = { [TOP] = NO_FAULT };      /* a filter for breakpoints */
    const BlkJobOptions options = { .id = "job", .on_source_error = on_error, .on_target_error = on_error };

    create_chain(t, lengths);
    write_clusters(t, 0, "0123", 0xb0);
    write_clusters(t, TOP, "3456", 0xb3);
    *scene = (Scene) { .kind = kind, .guest = open_chain(t, TOP, rules), .heard = g_string_new(NULL) };
    scene->target = kind == MIRROR ? open_target(t, lengths[TOP]) : blk_node_ref(blk_node_find(t->ctx, "n0"));
    scene->target_file = kind == MIRROR ? "pt" : "p0";
    blk_context_set_notice_handler(t->ctx, hear, scene->heard);
    scene->job = new_job(t, kind, &options);
    blk_job_start(scene->job);
    wait_for_status(scene->job, BLK_JOB_READY);
}

static void scene_end(Test *t, Scene *scene)
{
    end_job(scene->job);
    blk_context_set_notice_handler(t->ctx, NULL, NULL);
    blk_co_detach(scene->guest);
    blk_co_unref(scene->target);
    g_string_free(scene->heard, TRUE);
}

static void expect_same(const Scene *scene, const char *what)
{
    g_autoptr(GByteArray) source = content_of(blk_child_node(scene->guest));

    expect_content(scene->target, source, what);
}

/* The job is ready, and has something to copy. */
static void leave_something(Scene *scene)
{
    ck_assert_int_eq(blk_job_pause(scene->job, NULL), 0);
    wait_for_status(scene->job, BLK_JOB_STANDBY);
    write_pattern(scene->guest, 5 * CLUSTER, CLUSTER, 0x55);
}

static void last_pass(Test *t, JobKind kind, BlkOnError on_error)
{
    Scene scene;

    scene_begin(t, &scene, kind, on_error);
    leave_something(&scene);
    BlkNode *fault = insert_fault(t, scene.target_file, FAIL_ONCE);
    ck_assert_int_eq(blk_job_complete(scene.job, NULL), 0);
    ck_assert_int_eq(blk_job_resume(scene.job, NULL), 0);
    if (on_error == BLK_ON_ERROR_REPORT) {
        ck_assert_int_eq(blk_co_job_wait(scene.job), -EIO);
        ck_assert_str_eq(scene.heard->str, "report ");
        ck_assert_ptr_eq(blk_child_node(scene.guest), blk_node_find(t->ctx, "n3"));
        expect_pattern(scene.guest, 5 * CLUSTER, CLUSTER, 0x55);
    } else {
        if (on_error == BLK_ON_ERROR_STOP) {
            wait_for_status(scene.job, BLK_JOB_STANDBY);
            ck_assert_int_eq(blk_job_resume(scene.job, NULL), 0);
        }
        wait_for_status(scene.job, BLK_JOB_PENDING);
        ck_assert_str_eq(scene.heard->str, on_error == BLK_ON_ERROR_STOP ? "stop " : "ignore ");
        expect_same(&scene, "pending");
        ck_assert_int_eq(blk_co_job_finalize(scene.job, NULL), 0);
        ck_assert_int_eq(blk_co_job_wait(scene.job), 0);
        ck_assert_ptr_eq(blk_child_node(scene.guest), scene.target);
        expect_pattern(scene.guest, 5 * CLUSTER, CLUSTER, 0x55);
    }
    remove_fault(fault);
    scene_end(t, &scene);
}

CO_TEST(the_last_pass_keeps_to_the_policies)
{
    for (JobKind kind = ACTIVE_COMMIT; kind <= MIRROR; kind++) {
        last_pass(t, kind, BLK_ON_ERROR_REPORT);
        last_pass(t, kind, BLK_ON_ERROR_IGNORE);
        last_pass(t, kind, BLK_ON_ERROR_STOP);
    }
}

typedef struct Write {
    BlkChild *guest;
    bool done;
} Write;

static int write_co(void *opaque)
{
    Write *w = opaque;

    write_pattern(w->guest, 6 * CLUSTER, CLUSTER, 0x66);
    w->done = true;
    return 0;
}

/* Cancelled while a guest's write is under way. @rules: (nullable): of the target meanwhile. */
static void cancel_beside_a_write(Test *t, JobKind kind, const char *rules)
{
    Scene scene;

    scene_begin(t, &scene, kind, BLK_ON_ERROR_IGNORE);
    Write write = { .guest = scene.guest };
    BlkNode *source = blk_node_find(t->ctx, "n3"), *fault = rules ? insert_fault(t, scene.target_file, rules) : NULL;
    if (!rules) {
        leave_something(&scene);
    }
    ck_assert_int_eq(blk_breakpoint_set(source, "write_aio", "A", NULL), 0);
    blk_co_spawn(t->ctx, write_co, &write);
    for (unsigned i = 0; i < 10000 && !blk_breakpoint_is_suspended(source, "A"); i++) {
        blk_co_sleep_ns(1000000);
    }
    ck_assert_int_eq(blk_co_job_cancel(scene.job, false, NULL), 0);     /* and it goes on */
    for (unsigned i = 0; i < 100 && job_info(scene.job).status != BLK_JOB_PENDING; i++) {
        blk_co_sleep_ns(1000000);
    }
    ck_assert_str_eq(blk_job_status_name(job_info(scene.job).status), "ready");
    ck_assert_int_eq(blk_breakpoint_resume(source, "A"), 0);
    wait_for_status(scene.job, BLK_JOB_PENDING);
    expect_same(&scene, "pending");
    ck_assert(write.done);
    g_autoptr(GByteArray) moment = content_of(scene.target);
    write_pattern(scene.guest, 0, CLUSTER, 0x77);
    ck_assert_int_eq(blk_co_job_finalize(scene.job, NULL), 0);
    ck_assert_int_eq(blk_co_job_wait(scene.job), 0);
    expect_content(scene.target, moment, "what is written later is not in it");
    ck_assert_ptr_eq(blk_child_node(scene.guest), source);
    expect_pattern(scene.guest, 0, CLUSTER, 0x77);
    if (fault) {
        remove_fault(fault);
    }
    scene_end(t, &scene);
}

CO_TEST(cancelled_it_is_one_moment)
{
    for (JobKind kind = ACTIVE_COMMIT; kind <= MIRROR; kind++) {
        cancel_beside_a_write(t, kind, NULL);
        cancel_beside_a_write(t, kind, FAIL_ONCE);                      /* the guest's copy */
        cancel_beside_a_write(t, kind, FAIL_ONCE ", " FAIL_ONCE);       /* and the one after it */
        cancel_beside_a_write(t, kind, FAIL_ONCE ", " FAIL_ONCE ", " FAIL_ONCE);
    }
}

/* A copy of a guest's write fails while the job is pending. */
static void missed_at_the_end(Test *t, JobKind kind, bool always)
{
    Scene scene;

    scene_begin(t, &scene, kind, BLK_ON_ERROR_REPORT);
    BlkNode *source = blk_node_find(t->ctx, "n3");
    ck_assert_int_eq(blk_job_complete(scene.job, NULL), 0);
    wait_for_status(scene.job, BLK_JOB_PENDING);
    write_pattern(scene.guest, 4 * CLUSTER, CLUSTER, 0x44);
    expect_same(&scene, "a guest's write goes to both");
    BlkNode *fault = insert_fault(t, scene.target_file, always ? FAIL_ALWAYS : FAIL_ONCE);
    write_pattern(scene.guest, 5 * CLUSTER, CLUSTER, 0x55);             /* it does not fail itself */
    expect_pattern(scene.guest, 5 * CLUSTER, CLUSTER, 0x55);
    ck_assert_int_eq(blk_co_job_finalize(scene.job, NULL), 0);
    ck_assert_int_eq(blk_co_job_wait(scene.job), always ? -EIO : 0);
    ck_assert_ptr_eq(blk_child_node(scene.guest), always ? source : scene.target);
    if (always) {
        ck_assert_str_eq(job_info(scene.job).error, "error while writing at byte 327680: Input/output error");
        ck_assert_ptr_eq(blk_node_child(source, "backing"), blk_node_find(t->ctx, "n2"));
        ck_assert(blk_node_read_only(blk_node_find(t->ctx, "n0")));
    }
    expect_pattern(scene.guest, 4 * CLUSTER, CLUSTER, 0x44);
    expect_pattern(scene.guest, 5 * CLUSTER, CLUSTER, 0x55);
    expect_pattern(scene.guest, 6 * CLUSTER, CLUSTER, 0xb3);
    ck_assert_str_eq(scene.heard->str, "");
    remove_fault(fault);
    scene_end(t, &scene);
}

CO_TEST(what_a_guest_has_missed_is_copied_at_the_end)
{
    for (JobKind kind = ACTIVE_COMMIT; kind <= MIRROR; kind++) {
        missed_at_the_end(t, kind, false);
        missed_at_the_end(t, kind, true);
    }
}

BLK_TEST_MAIN("mirror_job", the_last_pass_keeps_to_the_policies, cancelled_it_is_one_moment,
              what_a_guest_has_missed_is_copied_at_the_end)
