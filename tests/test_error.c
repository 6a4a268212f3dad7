/* SPDX-License-Identifier: MIT */
/* test_error.c - texts from outside, as messages may show them. */
#include <blkstack/driver.h>

#include "test.h"

#include <string.h>

static void check(const char *text, size_t max_bytes, const char *wanted)
{
    g_autofree char *got = blk_printable_text(text, max_bytes);

    ck_assert_str_eq(got, wanted);
    ck_assert(g_utf8_validate(got, -1, NULL));
    ck_assert_uint_le(strlen(got), max_bytes);
}

START_TEST(text_is_kept)
{
    check("", 10, "");
    check("no such export 'Straße'", 100, "no such export 'Straße'");
}
END_TEST

START_TEST(controls_become_spaces)
{
    check("a\nb\r\tc\033[2Jd\177", 100, "a b  c [2Jd ");
    check("a\302\2332Jb", 100, "a  2Jb");               /* U+009B does what ESC [ does */
}
END_TEST

START_TEST(what_is_no_utf8_is_replaced)
{
    check("a\377b", 100, "a\357\277\275b");
}
END_TEST

START_TEST(cut_between_characters)
{
    check("abcdef", 6, "abcdef");
    check("abcdef", 5, "abcde");
    check("abä", 3, "ab");
    check("abä", 4, "abä");
    check("ä", 1, "");
}
END_TEST

BLK_TEST_MAIN("error", text_is_kept, controls_become_spaces, what_is_no_utf8_is_replaced, cut_between_characters)
