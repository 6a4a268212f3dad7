/* SPDX-License-Identifier: MIT */
/* test_library.c - libraries that are loaded when they are needed: once, whole or not at all, with one sentence. */
#include "test.h"

#include "core/library.h"

#include <blkstack/driver.h>
#include <math.h>

typedef struct Functions {
    typeof(floor) *floor;
    typeof(ceil) *ceil;
} Functions;

static const char *const names[] = { "floor", "ceil", NULL };
static const char *const files[] = { "libblkstack-none.so.9", "libm.so.6", NULL };
static int starts;

static const char *count_start(void)
{
    g_atomic_int_inc(&starts);
    return NULL;
}

static const char *refuse_start(void)
{
    g_atomic_int_inc(&starts);
    return "it has no wish to";
}

/* It says so each time. */
static void check_failure(BlkLibrary *library, const char *text, const char *package)
{
    g_autofree char *end = g_strdup_printf("; install the package that has '%s'", package);

    for (int i = 0; i < 2; i++) {
        g_autoptr(GError) error = NULL;

        ck_assert_int_eq(blk_library_load(library, &error), -ENOTSUP);
        ck_assert(g_error_matches(error, BLK_ERROR, ENOTSUP));
        ck_assert_msg(g_str_has_prefix(error->message, text), "%s", error->message);
        ck_assert_msg(g_str_has_suffix(error->message, end), "%s", error->message);
    }
}

START_TEST(the_second_name_serves)
{
    static Functions f;
    static BlkLibrary library = { "Numbers need libm", files, names, (void **)&f, NULL, .once = G_ONCE_INIT };

    ck_assert_int_eq(blk_library_load(&library, NULL), 0);
    ck_assert(f.floor(1.5) == 1);
    ck_assert(f.ceil(1.5) == 2);
}
END_TEST

START_TEST(a_missing_file_is_named)
{
    static const char *const none[] = { "libblkstack-none.so.9", NULL };
    static Functions f;
    static BlkLibrary library = { "Numbers need libnone", none, names, (void **)&f, count_start, .once = G_ONCE_INIT };

    starts = 0;
    check_failure(&library, "Numbers need libnone: libblkstack-none.so.9: ", "libblkstack-none.so.9");
    ck_assert_int_eq(starts, 0);
}
END_TEST

START_TEST(a_missing_function_is_named)
{
    static const char *const more[] = { "floor", "blk_no_such_function", NULL };
    static Functions f;
    static BlkLibrary library = { "Numbers need libm", files, more, (void **)&f, count_start, .once = G_ONCE_INIT };

    starts = 0;
    check_failure(&library, "Numbers need libm: the function blk_no_such_function is missing in it; ", "libm.so.6");
    ck_assert_int_eq(starts, 0);
}
END_TEST

START_TEST(what_does_not_start_is_not_there)
{
    static Functions f;
    static BlkLibrary library = { "Numbers need libm", files, names, (void **)&f, refuse_start, .once = G_ONCE_INIT };

    starts = 0;
    check_failure(&library, "Numbers need libm: it has no wish to; ", "libm.so.6");
    ck_assert_int_eq(starts, 1);
}
END_TEST

static gpointer load_in_thread(gpointer library)
{
    return GINT_TO_POINTER(blk_library_load(library, NULL));
}

START_TEST(threads_load_it_once)
{
    static Functions f;
    static BlkLibrary library = { "Numbers need libm", files, names, (void **)&f, count_start, .once = G_ONCE_INIT };
    GThread *threads[8];

    starts = 0;
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++) {
        threads[i] = g_thread_new("load", load_in_thread, &library);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++) {
        ck_assert_int_eq(GPOINTER_TO_INT(g_thread_join(threads[i])), 0);
    }
    ck_assert_int_eq(starts, 1);
    ck_assert_ptr_nonnull(f.ceil);
}
END_TEST

BLK_TEST_MAIN("library", the_second_name_serves, a_missing_file_is_named, a_missing_function_is_named,
              what_does_not_start_is_not_there, threads_load_it_once)
