/* SPDX-License-Identifier: MIT */
/*
 * test_json_stream.c - a stream is cut into the same texts, however it comes, and what can be no text costs no memory.
 */
#include "daemon/json_stream.h"

#include "core/options.h"
#include "test.h"

/* What comes out of @text when it comes in pieces of @step bytes: texts and "!" for an error, each followed by '|'. */
static char *cut(const char *text, size_t bytes, size_t step)
{
    GString *out = g_string_new(NULL);
    JsonStream stream;

    json_stream_init(&stream);
    for (size_t at = 0; at < bytes; at += step) {
        const char *p = text + at, *end = text + MIN(at + step, bytes);

        while (p < end) {
            g_autoptr(GError) error = NULL;
            GString *found = json_stream_take(&stream, &p, end, &error);

            if (found) {
                g_string_append_printf(out, "%s|", found->str);
                g_string_free(found, TRUE);
            } else if (error) {
                g_string_append(out, "!|");
            }
        }
    }
    json_stream_clear(&stream);
    return g_string_free(out, FALSE);
}

static void check_bytes(const char *text, size_t bytes, const char *wanted)
{
    for (size_t step = 1; step <= bytes; step++) {
        g_autofree char *got = cut(text, bytes, step);

        ck_assert_str_eq(got, wanted);
    }
}

static void check(const char *text, const char *wanted)
{
    check_bytes(text, strlen(text), wanted);
}

START_TEST(test_values)
{
    check("{}", "{}|");
    check("{\"a\": [1, {}]}{'b':\n2}\r\n [] ", "{\"a\": [1, {}]}|{'b':\n2}|[]|");
    check("1 \"x\" true{}nul\n", "1|\"x\"|true|{}|nul|");
    check("12", "");                    /* 123 may come */
    check("{\"a\":", "");
    check(" \t\r\n", "");
}
END_TEST

START_TEST(test_strings)
{
    check("{\"}\\\"{\": '\"'}", "{\"}\\\"{\": '\"'}|");
    check("\"\\\\\"{}", "\"\\\\\"|{}|");
    check("'a''b'", "'a'|'b'|");
}
END_TEST

/* One error for each, and the next line is as good as ever. */
START_TEST(test_refused)
{
    g_autoptr(GString) deep = g_string_new(NULL);

    check("{\"a\n{}", "!|{}|");
    check("{\"a\tb\": 1} {}\n{}", "!|{}|");
    check("}{}]", "}|{}|]|");
    check("{]\n{}", "{]|{}|");
    check("{\xff{}", "!|{}|");
    check("{\"\xff{}", "!|{}|");
    check("\xff\xff{}", "!|!|{}|");
    check_bytes("\0 {}", 4, "|{}|");     /* a word that is no JSON */
    for (unsigned i = 0; i < 10000; i++) {
        g_string_append_c(deep, i % 2 ? '[' : '{');
    }
    g_string_append(deep, "\n{}");
    for (size_t step = 1; step <= deep->len; step *= 3) {
        g_autofree char *got = cut(deep->str, deep->len, step);

        ck_assert_str_eq(got, "!|{}|");
    }
}
END_TEST

/* Feeds @piece until it is four times as long as any text may be. Returns: errors; *most: the memory that it took. */
static unsigned feed_again_and_again(JsonStream *stream, const char *piece, size_t *most)
{
    const char *end = piece + strlen(piece);
    unsigned errors = 0;

    for (size_t bytes = 0; bytes < 4 * BLK_JSON_MAX_BYTES; bytes += strlen(piece)) {
        for (const char *p = piece; p < end; ) {
            g_autoptr(GError) error = NULL;
            GString *text = json_stream_take(stream, &p, end, &error);

            errors += error != NULL || text;
            *most = MAX(*most, stream->text->allocated_len);
        }
    }
    return errors;
}

START_TEST(test_memory)
{
    static const char *const pieces[] = { "xxxx", "[1, ", "[\"\",", "    " };

    for (unsigned i = 0; i < G_N_ELEMENTS(pieces); i++) {
        JsonStream stream;
        size_t most = 0;

        json_stream_init(&stream);
        ck_assert_uint_eq(feed_again_and_again(&stream, pieces[i], &most), i < 3);
        ck_assert_uint_le(most, 2 * BLK_JSON_MAX_BYTES);
        ck_assert_uint_le(stream.text->allocated_len, 1024);
        json_stream_clear(&stream);
    }
}
END_TEST

BLK_TEST_MAIN("json_stream", test_values, test_strings, test_refused, test_memory)
