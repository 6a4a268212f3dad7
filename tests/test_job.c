/* SPDX-License-Identifier: MIT */
/* test_job.c - the life of jobs: states, verbs in each of them, transactions, and what is told of all that. */
#include "node_test.h"

#include "jobs/job.h"

/* What a job of these tests is told to do: the test owns it, and the job finds it by the first letter of its id. */
typedef struct Work {
    bool ready;                 /* becomes ready, then waits */
    bool pauses;                /* its job, before it waits */
    bool hold;                  /* waits until it is cancelled, completed or released */
    int fail, fail_prepare;     /* negative errno */
    int error;                  /* a request fails so, once */
    bool deaf;                  /* ends with success although it was cancelled */
    bool soft;                  /* cancelled softly it ends with success */
    bool done;
    GString *calls;
} Work;

typedef struct Life {
    GString *heard;             /* notices, in short */
    Work a, b;
} Life;

static Life *life;

static Work *work_of(const BlkJob *job)
{
    return blk_job_id(job)[0] == 'a' ? &life->a : &life->b;
}

static void hear(BlkContext *ctx, const char *name, JsonObject *data, void *opaque)
{
    Life *l = opaque;

    if (strcmp(name, "JOB_STATUS_CHANGE") == 0) {
        g_string_append_printf(l->heard, "%s:%s ", json_object_get_string_member(data, "id"),
                               json_object_get_string_member(data, "status"));
    } else {
        g_string_append_printf(l->heard, "%s ", name);
    }
}

static int co_hold(BlkJob *job, Work *work)
{
    int ret = 0;

    while (ret == 0 && work->hold && !work->done) {
        ret = blk_co_job_sleep(job, UINT64_MAX);
    }
    return ret;
}

static int co_run(BlkJob *job, GError **error)
{
    Work *work = work_of(job);

    blk_job_progress_set_total(job, 100);
    if (work->ready) {
        blk_job_ready(job);
    }
    while (work->error < 0) {
        BlkErrorAction action = blk_job_error_action(job, false, work->error);

        if (action == BLK_ERROR_REPORT) {
            return work->error;
        }
        work->error = 0;
    }
    int ret = blk_co_job_pause_point(job);
    if (work->pauses) {
        blk_job_pause(job, NULL);
    }
    if (ret == 0) {
        ret = co_hold(job, work);
    }
    blk_job_progress_add(job, 100);
    if (work->deaf) {
        return 0;
    }
    return ret < 0 ? ret : work->fail < 0 ? blk_error(error, work->fail, "told to fail") : 0;
}

static int co_prepare(BlkJob *job, GError **error)
{
    Work *work = work_of(job);

    g_string_append(work->calls, "prepare ");
    return work->fail_prepare < 0 ? blk_error(error, work->fail_prepare, "told not to") : 0;
}

static void co_commit(BlkJob *job)
{
    g_string_append(work_of(job)->calls, "commit ");
}

static void co_abort(BlkJob *job)
{
    g_string_append(work_of(job)->calls, "abort ");
}

static void co_clean(BlkJob *job)
{
    g_string_append(work_of(job)->calls, "clean ");
}

static int complete(BlkJob *job, GError **error)
{
    work_of(job)->done = true;
    return 0;
}

static bool cancel(BlkJob *job, bool force)
{
    work_of(job)->done = true;
    return force || !work_of(job)->soft;
}

static const BlkJobType type = {
    .name = "test",
    .moves_data = true,
    .co_run = co_run,
    .co_prepare = co_prepare,
    .co_commit = co_commit,
    .co_abort = co_abort,
    .co_clean = co_clean,
    .complete = complete,
    .cancel = cancel,
};

static void begin(Test *t)
{
    life = g_new0(Life, 1);
    life->heard = g_string_new(NULL);
    life->a.calls = g_string_new(NULL);
    life->b.calls = g_string_new(NULL);
    blk_context_set_notice_handler(t->ctx, hear, life);
}

static void end(Test *t)
{
    blk_co_jobs_end(t->ctx);
    blk_context_set_notice_handler(t->ctx, NULL, NULL);
    g_string_free(life->heard, TRUE);
    g_string_free(life->a.calls, TRUE);
    g_string_free(life->b.calls, TRUE);
    g_free(life);
}

static BlkJob *make(Test *t, const char *id, BlkJobTxn *txn, bool automatic)
{
    BlkJobOptions options = { .id = id, .auto_finalize = automatic, .auto_dismiss = automatic, .txn = txn };
    BlkJob *job = blk_job_new(t->ctx, &type, &options, NULL);

    ck_assert_ptr_nonnull(job);
    return job;
}

/* Lets all others do what they can. */
static void let_run(void)
{
    for (unsigned i = 0; i < 10; i++) {
        blk_co_reschedule();
    }
}

static void heard(const char *text)
{
    let_run();
    ck_assert_str_eq(life->heard->str, text);
    g_string_truncate(life->heard, 0);
}

/* @verb is refused, and says why. */
#define REFUSED(call, text)                                                     \
    do {                                                                        \
        g_autoptr(GError) error_ = NULL;                                        \
        GError **error = &error_;                                               \
        ck_assert_int_lt(call, 0);                                              \
        ck_assert_msg(strstr(error_->message, text) != NULL, "%s", error_->message); \
    } while (0)

CO_TEST(alone_it_ends_by_itself)
{
    begin(t);
    blk_job_start(make(t, "a", NULL, true));
    heard("a:created a:running a:waiting a:pending BLOCK_JOB_COMPLETED a:concluded a:null ");
    ck_assert_str_eq(life->a.calls->str, "prepare commit clean ");
    ck_assert_ptr_null(blk_job_nth(t->ctx, 0));
    end(t);
}

CO_TEST(finalized_and_dismissed_by_hand)
{
    begin(t);
    BlkJob *job = make(t, "a", NULL, false);
    BlkJobInfo info;

    blk_job_start(job);
    heard("a:created a:running a:waiting a:pending BLOCK_JOB_PENDING ");
    ck_assert_str_eq(life->a.calls->str, "");
    REFUSED(blk_job_pause(job, error), "Job 'a' in state 'pending' cannot accept command verb 'pause'");
    REFUSED(blk_job_resume(job, error), "Can't resume a job that was not paused");
    REFUSED(blk_job_set_speed(job, 1, error), "verb 'set-speed'");
    REFUSED(blk_job_complete(job, error), "verb 'complete'");
    REFUSED(blk_job_dismiss(job, error), "verb 'dismiss'");
    ck_assert_int_eq(blk_co_job_finalize(job, NULL), 0);
    heard("BLOCK_JOB_COMPLETED a:concluded ");
    REFUSED(blk_co_job_cancel(job, true, error), "in state 'concluded' cannot accept command verb 'cancel'");
    REFUSED(blk_co_job_finalize(job, error), "verb 'finalize'");
    blk_job_info(job, &info);
    ck_assert(info.current == 100 && info.total == 100 && !info.error);
    ck_assert_int_eq(blk_job_dismiss(job, NULL), 0);
    heard("a:null ");
    end(t);
}

CO_TEST(paused_and_resumed)
{
    begin(t);
    BlkJob *job = make(t, "a", NULL, true);

    life->a.hold = true;
    blk_job_start(job);
    heard("a:created a:running ");
    REFUSED(blk_job_resume(job, error), "Can't resume a job that was not paused");
    ck_assert_int_eq(blk_job_pause(job, NULL), 0);
    heard("a:paused ");
    REFUSED(blk_job_pause(job, error), "Job is already paused");
    REFUSED(blk_job_complete(job, error), "in state 'paused' cannot accept command verb 'complete'");
    ck_assert_int_eq(blk_job_resume(job, NULL), 0);
    heard("a:running ");
    ck_assert_int_eq(blk_job_pause(job, NULL), 0);
    heard("a:paused ");
    ck_assert_int_eq(blk_co_job_cancel(job, true, NULL), 0);
    heard("a:running a:aborting BLOCK_JOB_CANCELLED a:concluded a:null ");
    ck_assert_str_eq(life->a.calls->str, "abort clean ");
    end(t);
}

CO_TEST(ready_standby_and_completed)
{
    begin(t);
    BlkJob *job = make(t, "a", NULL, true);

    life->a.hold = life->a.ready = true;
    blk_job_start(job);
    heard("a:created a:running a:ready BLOCK_JOB_READY ");
    ck_assert_int_eq(blk_job_pause(job, NULL), 0);
    heard("a:standby ");
    ck_assert_int_eq(blk_job_complete(job, NULL), 0);       /* when it goes on */
    heard("");
    ck_assert_int_eq(blk_job_resume(job, NULL), 0);
    heard("a:ready a:waiting a:pending BLOCK_JOB_COMPLETED a:concluded a:null ");
    end(t);
}

/* Paused before it slept, it does not sleep when it goes on: it might miss that it was completed. */
CO_TEST(completed_while_it_was_paused)
{
    begin(t);
    BlkJob *job = make(t, "a", NULL, true);

    life->a.hold = life->a.ready = life->a.pauses = true;
    blk_job_start(job);
    heard("a:created a:running a:ready BLOCK_JOB_READY a:standby ");
    ck_assert_int_eq(blk_job_complete(job, NULL), 0);
    ck_assert_int_eq(blk_job_resume(job, NULL), 0);
    heard("a:ready a:waiting a:pending BLOCK_JOB_COMPLETED a:concluded a:null ");
    end(t);
}

CO_TEST(a_ready_job_ends_whole_if_it_is_cancelled_softly)
{
    begin(t);
    BlkJob *job = make(t, "a", NULL, true);

    life->a.hold = life->a.ready = life->a.soft = true;
    blk_job_start(job);
    let_run();
    ck_assert_int_eq(blk_co_job_cancel(job, false, NULL), 0);
    heard("a:created a:running a:ready BLOCK_JOB_READY a:waiting a:pending BLOCK_JOB_COMPLETED a:concluded a:null ");
    end(t);
}

CO_TEST(cancelled_before_it_starts_and_when_it_waits)
{
    begin(t);
    ck_assert_int_eq(blk_co_job_cancel(make(t, "a", NULL, true), true, NULL), 0);
    heard("a:created a:aborting BLOCK_JOB_CANCELLED a:concluded a:null ");
    ck_assert_str_eq(life->a.calls->str, "abort clean ");

    BlkJob *job = make(t, "a", NULL, false);
    BlkJobInfo info;
    blk_job_start(job);
    heard("a:created a:running a:waiting a:pending BLOCK_JOB_PENDING ");
    ck_assert_int_eq(blk_co_job_cancel(job, true, NULL), 0);
    heard("a:aborting BLOCK_JOB_CANCELLED a:concluded ");
    blk_job_info(job, &info);
    ck_assert_str_eq(info.error, g_strerror(ECANCELED));
    end(t);
}

CO_TEST(work_that_ends_after_it_was_cancelled_has_no_effect)
{
    begin(t);
    BlkJob *job = make(t, "a", NULL, true);

    life->a.hold = life->a.deaf = true;
    blk_job_start(job);
    let_run();
    ck_assert_int_eq(blk_co_job_cancel(job, true, NULL), 0);
    heard("a:created a:running a:aborting BLOCK_JOB_CANCELLED a:concluded a:null ");
    ck_assert_str_eq(life->a.calls->str, "abort clean ");
    end(t);
}

CO_TEST(failures_have_a_text)
{
    begin(t);
    BlkJob *job = make(t, "a", NULL, false);
    BlkJobInfo info;

    life->a.fail = -EIO;
    blk_job_start(job);
    heard("a:created a:running a:aborting BLOCK_JOB_COMPLETED a:concluded ");
    blk_job_info(job, &info);
    ck_assert_str_eq(info.error, "told to fail");
    ck_assert_int_eq(blk_co_job_wait(job), -EIO);
    end(t);
}

CO_TEST(all_of_a_transaction_or_none)
{
    begin(t);
    BlkJobTxn *txn = blk_job_txn_new();

    life->b.hold = true;
    blk_job_start(make(t, "a", txn, true));
    blk_job_start(make(t, "b", txn, true));
    heard("a:created a:running b:created b:running a:waiting ");
    life->b.done = true;
    blk_job_wake(blk_job_find(t->ctx, "b"));
    heard("b:waiting a:pending b:pending BLOCK_JOB_COMPLETED a:concluded a:null BLOCK_JOB_COMPLETED b:concluded b:null ");
    blk_job_txn_unref(txn);

    txn = blk_job_txn_new();
    life->b.done = false;
    blk_job_start(make(t, "b", txn, true));
    life->a.fail = -EIO;
    blk_job_start(make(t, "a", txn, true));
    heard("b:created b:running a:created a:running b:aborting BLOCK_JOB_CANCELLED b:concluded b:null "
          "a:aborting BLOCK_JOB_COMPLETED a:concluded a:null ");
    blk_job_txn_unref(txn);
    end(t);
}

CO_TEST(what_cannot_be_prepared_undoes_the_transaction)
{
    begin(t);
    BlkJobTxn *txn = blk_job_txn_new();

    life->b.fail_prepare = -EPERM;
    blk_job_start(make(t, "a", txn, true));
    blk_job_start(make(t, "b", txn, true));
    heard("a:created a:running b:created b:running a:waiting b:waiting a:pending b:pending "
          "a:aborting BLOCK_JOB_CANCELLED a:concluded a:null b:aborting BLOCK_JOB_COMPLETED b:concluded b:null ");
    ck_assert_str_eq(life->a.calls->str, "prepare abort clean ");
    ck_assert_str_eq(life->b.calls->str, "prepare abort clean ");
    blk_job_txn_unref(txn);
    end(t);
}

static BlkJob *start_failing(Test *t, BlkOnError on_error, int ret)
{
    BlkJobOptions options = { .id = "a", .auto_finalize = true, .auto_dismiss = true, .on_target_error = on_error };
    BlkJob *job = blk_job_new(t->ctx, &type, &options, NULL);

    life->a.error = ret;
    blk_job_start(job);
    return job;
}

CO_TEST(error_policies)
{
    BlkJobInfo info;

    begin(t);
    start_failing(t, BLK_ON_ERROR_REPORT, -ENOSPC);
    heard("a:created a:running BLOCK_JOB_ERROR a:aborting BLOCK_JOB_COMPLETED a:concluded a:null ");
    start_failing(t, BLK_ON_ERROR_IGNORE, -EIO);
    heard("a:created a:running BLOCK_JOB_ERROR a:waiting a:pending BLOCK_JOB_COMPLETED a:concluded a:null ");
    start_failing(t, BLK_ON_ERROR_AUTO, -EIO);
    heard("a:created a:running BLOCK_JOB_ERROR a:aborting BLOCK_JOB_COMPLETED a:concluded a:null ");
    for (BlkOnError on_error = BLK_ON_ERROR_STOP; on_error <= BLK_ON_ERROR_AUTO; on_error++) {
        BlkJob *job = start_failing(t, on_error, -ENOSPC);
        heard("a:created a:running BLOCK_JOB_ERROR a:paused ");
        blk_job_info(job, &info);
        ck_assert_int_eq(info.io_status, BLK_IO_STATUS_NOSPACE);
        ck_assert_int_eq(blk_job_resume(job, NULL), 0);
        blk_job_info(job, &info);
        ck_assert_int_eq(info.io_status, BLK_IO_STATUS_OK);
        heard("a:running a:waiting a:pending BLOCK_JOB_COMPLETED a:concluded a:null ");
    }
    end(t);
}

CO_TEST(ids)
{
    static const BlkJobOptions none = { .id = NULL }, bad = { .id = "1a" }, odd = { .id = "a b" }, taken = { .id = "a" };
    GError *error = NULL;

    begin(t);
    make(t, "a", NULL, true);
    ck_assert_ptr_null(blk_job_new(t->ctx, &type, &none, NULL));
    ck_assert_ptr_null(blk_job_new(t->ctx, &type, &bad, NULL));
    ck_assert_ptr_null(blk_job_new(t->ctx, &type, &odd, NULL));
    ck_assert_ptr_null(blk_job_new(t->ctx, &type, &taken, &error));
    ck_assert_str_eq(error->message, "Job ID 'a' already in use");
    g_clear_error(&error);
    end(t);
    ck_assert_ptr_null(blk_job_nth(t->ctx, 0));
}

START_TEST(rate)
{
    BlkRate r = { .speed = 0 };
    uint64_t now = UINT64_C(5000000000);

    ck_assert_uint_eq(blk_rate_take(&r, UINT64_MAX, now), 0);
    blk_rate_set(&r, 1000);
    ck_assert_uint_eq(blk_rate_take(&r, 500, now), 0);
    ck_assert_uint_eq(blk_rate_take(&r, 500, now), now + 500000000);
    ck_assert_uint_eq(blk_rate_take(&r, 500, now + 500000000), 0);
    blk_rate_set(&r, 1);        /* what was sent before does not count */
    ck_assert_uint_eq(blk_rate_take(&r, UINT64_MAX, now), 0);
    ck_assert_uint_gt(blk_rate_take(&r, 1, now), now);
    blk_rate_set(&r, 0);
    ck_assert_uint_eq(blk_rate_take(&r, 1, now), 0);
}
END_TEST

BLK_TEST_MAIN("job", alone_it_ends_by_itself, finalized_and_dismissed_by_hand, paused_and_resumed,
              ready_standby_and_completed, completed_while_it_was_paused,
              a_ready_job_ends_whole_if_it_is_cancelled_softly, cancelled_before_it_starts_and_when_it_waits,
              work_that_ends_after_it_was_cancelled_has_no_effect, failures_have_a_text, all_of_a_transaction_or_none,
              what_cannot_be_prepared_undoes_the_transaction, error_policies, ids, rate)
