/* SPDX-License-Identifier: MIT */
/* test_copy_job.c - the copy engine as the work of a job: pausing, speed, what happens after errors, cancelling. */
#include "node_test.h"

#include "jobs/copy.h"
#include "jobs/source.h"

#include <inttypes.h>

enum { PIECE = 512 << 10, PIECES = 16, SIZE = PIECE * PIECES };

static const char plain_source[] = "{\"driver\": \"raw\", \"file\": {\"driver\": \"file\", \"filename\": \"@/source.raw\"}}";
static const char plain_target[] = "{\"driver\": \"raw\", \"file\": {\"driver\": \"file\", \"filename\": \"@/target.raw\"}}";

/* The request for the sector in the middle of piece 5 fails once. */
#define FAILS_ONCE(name, io, error)                                                                               \
    "{\"driver\": \"raw\", \"file\": {\"driver\": \"fault\", \"image\": {\"driver\": \"file\", \"filename\": \"@/" name "\"},"   \
    "\"inject-error\": [{\"event\": \"none\", \"errno\": " error ", \"iotype\": \"" io "\", \"sector\": 5632, \"once\": true}]}}"

#define ENOSPC_TEXT "28"
#define EIO_TEXT "5"

typedef struct Scene {
    BlkChild *source, *target;
    GPtrArray *nodes;
    BlkNodesSource reader;
    BlkCopyTodo todo;
    BlkCopy copy;
    BlkJob *job;
    GString *heard;             /* actions of BLOCK_JOB_ERROR */
} Scene;

static int co_run(BlkJob *job, GError **error)
{
    Scene *scene = *(Scene **)job->opaque;

    blk_job_progress_set_total(job, scene->reader.source.length);
    scene->copy.job = job;
    return blk_co_copy(&scene->copy, error);
}

static const BlkJobType type = {
    .name = "test", .moves_data = true, .instance_size = sizeof(Scene *), .co_run = co_run,
};

static void hear(BlkContext *ctx, const char *name, JsonObject *data, void *opaque)
{
    Scene *scene = opaque;

    if (strcmp(name, "BLOCK_JOB_ERROR") == 0) {
        g_string_append_printf(scene->heard, "%s:%s ", json_object_get_string_member(data, "operation"),
                               json_object_get_string_member(data, "action"));
    }
}

static void scene_begin(Test *t, Scene *scene, const char *source, const char *target)
{
    make_file(t, "source.raw", SIZE, SIZE, 0x11);
    make_file(t, "target.raw", SIZE, 0, 0);
    *scene = (Scene) {
        .source = open_rw(t, source), .target = open_rw(t, target), .nodes = g_ptr_array_new(),
        .heard = g_string_new(NULL),
    };
    g_ptr_array_add(scene->nodes, blk_child_node(scene->source));
    ck_assert_int_eq(blk_nodes_source_init(&scene->reader, scene->nodes, NULL), 0);
    scene->copy = (BlkCopy) {
        .source = &scene->reader.source, .target = scene->target, .workers = 4, .in_order = true,
    };
    blk_context_set_notice_handler(t->ctx, hear, scene);
}

/* What is copied is what is dirty in a bitmap: all of it. */
static void scene_use_todo(Scene *scene)
{
    scene->todo.bitmap = blk_bitmap_add(blk_child_node(scene->source), NULL, 65536, false, NULL);
    blk_bitmap_set(scene->todo.bitmap, 0, SIZE);
    scene->copy.todo = &scene->todo;
}

static void scene_start(Test *t, Scene *scene, BlkOnError on_source_error, BlkOnError on_target_error, uint64_t speed)
{
    BlkJobOptions options = {
        .id = "job", .auto_finalize = true, .speed = speed,
        .on_source_error = on_source_error, .on_target_error = on_target_error,
    };

    scene->job = blk_job_ref(blk_job_new(t->ctx, &type, &options, NULL));
    *(Scene **)scene->job->opaque = scene;
    blk_job_start(scene->job);
}

static void scene_end(Test *t, Scene *scene)
{
    blk_co_jobs_end(t->ctx);
    blk_job_unref(scene->job);
    if (scene->todo.bitmap) {
        blk_bitmap_remove(scene->todo.bitmap);
    }
    blk_context_set_notice_handler(t->ctx, NULL, NULL);
    blk_co_detach(scene->source);
    blk_co_detach(scene->target);
    g_ptr_array_unref(scene->nodes);
    g_string_free(scene->heard, TRUE);
}

static BlkJobInfo info_of(const Scene *scene)
{
    BlkJobInfo info;

    blk_job_info(scene->job, &info);
    return info;
}

static void wait_for(const Scene *scene, BlkJobStatus status)
{
    for (unsigned i = 0; i < 20000 && info_of(scene).status != status; i++) {
        blk_co_sleep_ns(1000000);
    }
    ck_assert_str_eq(blk_job_status_name(info_of(scene).status), blk_job_status_name(status));
}

static void wait_for_progress(const Scene *scene, uint64_t bytes)
{
    for (unsigned i = 0; i < 20000 && info_of(scene).current < bytes; i++) {
        blk_co_sleep_ns(1000000);
    }
    ck_assert_uint_eq(info_of(scene).current, bytes);
}

static void expect_success(Scene *scene)
{
    ck_assert_int_eq(blk_co_job_wait(scene->job), 0);
    ck_assert_uint_eq(info_of(scene).current, SIZE);
    expect_pattern(scene->target, 0, SIZE, 0x11);
}

/* So slow a job copies one piece in this life. */
CO_TEST(the_speed_holds_at_once)
{
    Scene scene;

    scene_begin(t, &scene, plain_source, plain_target);
    scene_start(t, &scene, BLK_ON_ERROR_REPORT, BLK_ON_ERROR_REPORT, 1);
    wait_for_progress(&scene, PIECE);
    ck_assert_int_eq(blk_job_set_speed(scene.job, 2, NULL), 0);     /* what was sent before is forgotten */
    wait_for_progress(&scene, 2 * PIECE);
    ck_assert_int_eq(blk_job_set_speed(scene.job, 0, NULL), 0);
    expect_success(&scene);
    scene_end(t, &scene);
}

static void pause_in_the_middle(Test *t, bool todo)
{
    Scene scene;

    scene_begin(t, &scene, plain_source, plain_target);
    if (todo) {
        scene_use_todo(&scene);
    }
    scene_start(t, &scene, BLK_ON_ERROR_REPORT, BLK_ON_ERROR_REPORT, 1);
    wait_for_progress(&scene, PIECE);
    ck_assert_int_eq(blk_job_pause(scene.job, NULL), 0);
    wait_for(&scene, BLK_JOB_PAUSED);
    ck_assert_int_eq(blk_job_set_speed(scene.job, 0, NULL), 0);
    for (unsigned i = 0; i < 50; i++) {
        blk_co_reschedule();
    }
    ck_assert_uint_eq(info_of(&scene).current, PIECE);
    expect_pattern(scene.target, PIECE, SIZE - PIECE, 0);
    ck_assert_int_eq(blk_job_resume(scene.job, NULL), 0);
    expect_success(&scene);
    scene_end(t, &scene);
}

CO_TEST(paused_in_the_middle)
{
    pause_in_the_middle(t, false);
    pause_in_the_middle(t, true);
}

/* While a job waits for its speed or is paused, nobody waits for the ranges that it is about to copy. */
CO_TEST(guests_do_not_wait_for_a_slow_job)
{
    Scene scene;

    scene_begin(t, &scene, plain_source, plain_target);
    scene_use_todo(&scene);
    scene_start(t, &scene, BLK_ON_ERROR_REPORT, BLK_ON_ERROR_REPORT, 1);
    wait_for_progress(&scene, PIECE);
    BlkCopy guest = scene.copy;
    guest.job = NULL;
    ck_assert_int_eq(blk_co_copy_range(&guest, 0, SIZE, NULL), 0);
    ck_assert_uint_eq(blk_bitmap_dirty_bytes(scene.todo.bitmap), 0);
    expect_pattern(scene.target, 0, SIZE, 0x11);
    ck_assert_int_eq(blk_job_set_speed(scene.job, 0, NULL), 0);
    ck_assert_int_eq(blk_co_job_wait(scene.job), 0);
    ck_assert_uint_eq(info_of(&scene).current, PIECE);
    scene_end(t, &scene);
}

CO_TEST(cancelled_while_it_waits)
{
    for (unsigned paused = 0; paused < 2; paused++) {
        Scene scene;

        scene_begin(t, &scene, plain_source, plain_target);
        scene_start(t, &scene, BLK_ON_ERROR_REPORT, BLK_ON_ERROR_REPORT, 1);
        wait_for_progress(&scene, PIECE);
        if (paused) {
            ck_assert_int_eq(blk_job_pause(scene.job, NULL), 0);
            wait_for(&scene, BLK_JOB_PAUSED);
        }
        ck_assert_int_eq(blk_co_job_cancel(scene.job, true, NULL), 0);
        ck_assert_int_eq(blk_co_job_wait(scene.job), -ECANCELED);
        expect_pattern(scene.target, PIECE, SIZE - PIECE, 0);
        scene_end(t, &scene);
    }
}

typedef struct Case {
    const char *source, *target;
    BlkOnError on_source_error, on_target_error;
    const char *heard;
    int ret;                    /* of the job; 0: it succeeds, after a resume if it stops */
    BlkIoStatus io_status;      /* while it stands; OK: it does not stop */
} Case;

static void meet_error(Test *t, const Case *c, bool todo)
{
    Scene scene;

    scene_begin(t, &scene, c->source, c->target);
    if (todo) {
        scene_use_todo(&scene);
    }
    scene_start(t, &scene, c->on_source_error, c->on_target_error, 0);
    if (c->io_status != BLK_IO_STATUS_OK) {
        wait_for(&scene, BLK_JOB_PAUSED);
        ck_assert_int_eq(info_of(&scene).io_status, c->io_status);
        ck_assert_uint_lt(info_of(&scene).current, SIZE);
        ck_assert_int_eq(blk_job_resume(scene.job, NULL), 0);
    }
    if (c->ret == 0) {
        expect_success(&scene);
    } else {
        ck_assert_int_eq(blk_co_job_wait(scene.job), c->ret);
        ck_assert_ptr_nonnull(strstr(info_of(&scene).error, "at byte"));
        expect_pattern(scene.target, 5 * PIECE + PIECE / 2, 512, 0);
    }
    ck_assert_str_eq(scene.heard->str, c->heard);
    scene_end(t, &scene);
}

CO_TEST(errors_are_handled_by_policy)
{
    static const char bad_source[] = FAILS_ONCE("source.raw", "read", EIO_TEXT);
    static const char bad_target[] = FAILS_ONCE("target.raw", "write", EIO_TEXT);
    static const char full_target[] = FAILS_ONCE("target.raw", "write", ENOSPC_TEXT);
    static const BlkOnError REPORT = BLK_ON_ERROR_REPORT, IGNORE = BLK_ON_ERROR_IGNORE, STOP = BLK_ON_ERROR_STOP,
                            NO_SPACE = BLK_ON_ERROR_ENOSPC;
    const Case cases[] = {
        { bad_source, plain_target, REPORT, STOP, "read:report ", -EIO, BLK_IO_STATUS_OK },
        { bad_source, plain_target, IGNORE, REPORT, "read:ignore ", 0, BLK_IO_STATUS_OK },
        { bad_source, plain_target, STOP, REPORT, "read:stop ", 0, BLK_IO_STATUS_FAILED },
        { bad_source, plain_target, NO_SPACE, STOP, "read:report ", -EIO, BLK_IO_STATUS_OK },
        { plain_source, bad_target, STOP, REPORT, "write:report ", -EIO, BLK_IO_STATUS_OK },
        { plain_source, bad_target, REPORT, IGNORE, "write:ignore ", 0, BLK_IO_STATUS_OK },
        { plain_source, bad_target, REPORT, STOP, "write:stop ", 0, BLK_IO_STATUS_FAILED },
        { plain_source, full_target, REPORT, NO_SPACE, "write:stop ", 0, BLK_IO_STATUS_NOSPACE },
        { plain_source, bad_target, REPORT, NO_SPACE, "write:report ", -EIO, BLK_IO_STATUS_OK },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        meet_error(t, &cases[i], false);
        meet_error(t, &cases[i], true);
    }
}

/* Cancelling a job that stands after an error ends it, and it is not told of as failed. */
CO_TEST(cancelled_after_an_error)
{
    Scene scene;

    scene_begin(t, &scene, plain_source, FAILS_ONCE("target.raw", "write", ENOSPC_TEXT));
    scene_start(t, &scene, BLK_ON_ERROR_REPORT, BLK_ON_ERROR_STOP, 0);
    wait_for(&scene, BLK_JOB_PAUSED);
    ck_assert_int_eq(blk_co_job_cancel(scene.job, true, NULL), 0);
    ck_assert_int_eq(blk_co_job_wait(scene.job), -ECANCELED);
    scene_end(t, &scene);
}

/* ---- memory ---- */

typedef struct Meter {
    BlkSource source;
    BlkSource *below;
    uint64_t now, peak;         /* bytes that are being read */
} Meter;

static int meter_co_extent(BlkSource *source, uint64_t offset, uint64_t bytes, BlkExtent *extent, GError **error)
{
    Meter *m = (Meter *)source;

    return m->below->co_extent(m->below, offset, bytes, extent, error);
}

static int meter_co_read(BlkSource *source, uint64_t offset, uint64_t bytes, void *buf, GError **error)
{
    Meter *m = (Meter *)source;

    m->now += bytes;
    m->peak = MAX(m->peak, m->now);
    blk_co_sleep_ns(1000000);               /* all who may read do, meanwhile */
    int ret = m->below->co_read(m->below, offset, bytes, buf, error);
    m->now -= bytes;
    return ret;
}

/* Buffers are no larger than that together, but for what has to be copied at once. */
CO_TEST(memory_is_bounded)
{
    static const struct { uint64_t memory, peak; } cases[] = {
        { 0, 64 * PIECE }, { 64 * PIECE, 64 * PIECE }, { 3 * PIECE + 1000, 3 * PIECE }, { PIECE, PIECE },
        { PIECE + 65536, PIECE }, { PIECE - 65536, PIECE - 65536 }, { 65536, 65536 }, { 512, 512 }, { 1, 512 },
    };

    for (unsigned i = 0; i < 2 * G_N_ELEMENTS(cases); i++) {
        uint64_t memory = cases[i / 2].memory, peak = cases[i / 2].peak, rest = memory && memory < 65536 ? 32768 : SIZE;
        Scene scene;

        scene_begin(t, &scene, plain_source, plain_target);
        Meter meter = { .source = scene.reader.source, .below = &scene.reader.source };
        meter.source.co_extent = meter_co_extent;
        meter.source.co_read = meter_co_read;
        meter.source.length = rest;
        if (i & 1) {
            scene_use_todo(&scene);
        }
        scene.copy.source = &meter.source;
        scene.copy.workers = 64;
        scene.copy.in_order = false;
        scene.copy.memory = memory;
        ck_assert_int_eq(blk_co_copy(&scene.copy, NULL), 0);
        expect_pattern(scene.target, 0, rest, 0x11);
        ck_assert_msg(meter.peak == MIN(peak, rest), "memory of %" PRIu64 ": %" PRIu64 " bytes, not %" PRIu64, memory, meter.peak,
                      MIN(peak, rest));
        scene.job = NULL;
        scene_end(t, &scene);
    }
}

/* A filter that is put in above the target gets what is written from then on. */
CO_TEST(a_filter_comes_above_the_target)
{
    Scene scene;
    g_autoptr(GError) error = NULL;

    scene_begin(t, &scene, plain_source, "{\"driver\": \"raw\", \"node-name\": \"target\", \"file\": {\"driver\": \"file\", "
                "\"filename\": \"@/target.raw\"}}");
    scene_start(t, &scene, BLK_ON_ERROR_REPORT, BLK_ON_ERROR_REPORT, 1);
    wait_for_progress(&scene, PIECE);
    BlkNode *filter = try_open(t, "{\"driver\": \"fault\", \"image\": \"target\", \"inject-error\": [{\"event\": \"none\", "
                               "\"iotype\": \"write\", \"errno\": 28}]}", &error);
    ck_assert_msg(filter != NULL, "%s", error ? error->message : "");
    ck_assert_int_eq(blk_co_insert_above(blk_node_child(filter, "image"), filter, NULL), 0);
    ck_assert_int_eq(blk_job_set_speed(scene.job, 0, NULL), 0);
    ck_assert_int_eq(blk_co_job_wait(scene.job), -ENOSPC);
    ck_assert_int_eq(blk_co_remove_filter(filter, NULL), 0);
    blk_co_unref(filter);
    scene_end(t, &scene);
}

BLK_TEST_MAIN("copy_job", the_speed_holds_at_once, paused_in_the_middle, guests_do_not_wait_for_a_slow_job,
              cancelled_while_it_waits, errors_are_handled_by_policy, cancelled_after_an_error,
              memory_is_bounded, a_filter_comes_above_the_target)
