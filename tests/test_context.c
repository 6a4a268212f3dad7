/* SPDX-License-Identifier: MIT */
/* test_context.c - making contexts, choosing the engine. */
#include "config.h"
#include "test.h"

#include <string.h>

static int nothing(void *opaque)
{
    return 3;
}

START_TEST(environment_chooses_the_engine)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BlkContext) ctx = blk_context_new(NULL, &error);
    const char *wanted = g_getenv("BLKSTACK_AIO");

    ck_assert_msg(ctx != NULL, "%s", error ? error->message : "no message");
    if (wanted && *wanted) {
        ck_assert_str_eq(blk_context_aio_name(ctx), wanted);
    }
    ck_assert_int_eq(blk_run(ctx, nothing, NULL), 3);
}
END_TEST

START_TEST(argument_overrides_the_environment)
{
    g_autoptr(BlkContext) ctx = NULL;
    g_autofree char *before = g_strdup(g_getenv("BLKSTACK_AIO"));

    g_setenv("BLKSTACK_AIO", "no such engine", true);
    ctx = blk_context_new("threads", NULL);
    if (before) {
        g_setenv("BLKSTACK_AIO", before, true);
    } else {
        g_unsetenv("BLKSTACK_AIO");
    }
    ck_assert_ptr_nonnull(ctx);
    ck_assert_str_eq(blk_context_aio_name(ctx), "threads");
}
END_TEST

START_TEST(unknown_engine_is_refused)
{
    g_autoptr(GError) error = NULL;

    ck_assert_ptr_null(blk_context_new("libaio", &error));
    ck_assert_ptr_nonnull(error);
    ck_assert_int_eq(error->code, EINVAL);
    ck_assert_ptr_nonnull(strstr(error->message, "libaio"));
    ck_assert_ptr_nonnull(strstr(error->message, "io_uring"));
}
END_TEST

#ifndef HAVE_LIBURING
START_TEST(engine_that_is_not_built_in_says_so)
{
    g_autoptr(GError) error = NULL;

    ck_assert_ptr_null(blk_context_new("io_uring", &error));
    ck_assert_ptr_nonnull(error);
    ck_assert_ptr_nonnull(strstr(error->message, "not built in"));
}
END_TEST
#endif

START_TEST(two_contexts_in_one_thread)
{
    g_autoptr(BlkContext) a = blk_context_new(NULL, NULL);
    g_autoptr(BlkContext) b = blk_context_new(NULL, NULL);

    ck_assert_ptr_nonnull(a);
    ck_assert_ptr_nonnull(b);
    ck_assert_int_eq(blk_run(a, nothing, NULL), 3);
    ck_assert_int_eq(blk_run(b, nothing, NULL), 3);
    ck_assert_int_eq(blk_run(a, nothing, NULL), 3);
}
END_TEST

static void *context_thread(void *opaque)
{
    for (unsigned i = 0; i < 10; i++) {
        g_autoptr(BlkContext) ctx = blk_context_new(NULL, NULL);

        ck_assert_ptr_nonnull(ctx);
        ck_assert_int_eq(blk_run(ctx, nothing, NULL), 3);
    }
    return NULL;
}

START_TEST(contexts_in_two_threads)
{
    GThread *other = g_thread_new("other", context_thread, NULL);

    context_thread(NULL);
    g_thread_join(other);
}
END_TEST

BLK_TEST_MAIN("context", environment_chooses_the_engine, argument_overrides_the_environment, unknown_engine_is_refused,
#ifndef HAVE_LIBURING
              engine_that_is_not_built_in_says_so,
#endif
              two_contexts_in_one_thread, contexts_in_two_threads)
