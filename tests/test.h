/* SPDX-License-Identifier: MIT */
/*
 * test.h - main() of a Check unit test: BLK_TEST_MAIN("name", case1, case2, ...) with cases made by START_TEST.
 */
#ifndef BLKSTACK_TEST_H
#define BLKSTACK_TEST_H

#include <blkstack/driver.h>
#include <check.h>
#include <stdlib.h>

/* The case test_NAME, which is the file's run_test(NAME). */
#define CASE(name)                                                                                                   \
    START_TEST(test_##name)                                                                                          \
    {                                                                                                                \
        run_test(name);                                                                                              \
    }                                                                                                                \
    END_TEST

#define BLK_TEST_MAIN(suite_name, ...)                                                                               \
    int main(void)                                                                                                   \
    {                                                                                                                \
        const TTest *cases[] = { __VA_ARGS__ };                                                                      \
        Suite *suite = suite_create(suite_name);                                                                     \
        TCase *tc = tcase_create(suite_name);                                                                        \
        tcase_set_timeout(tc, 600);                                                                                  \
        for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {                                                           \
            tcase_add_test(tc, cases[i]);                                                                            \
        }                                                                                                            \
        suite_add_tcase(suite, tc);                                                                                  \
        SRunner *runner = srunner_create(suite);                                                                     \
        srunner_set_tap(runner, "-");                                                                                \
        srunner_run_all(runner, CK_SILENT);                                                                          \
        int failed = srunner_ntests_failed(runner);                                                                  \
        srunner_free(runner);                                                                                        \
        return failed ? EXIT_FAILURE : EXIT_SUCCESS;                                                                 \
    }

#endif
