/* SPDX-License-Identifier: MIT */
/*
 * test_json.c - the JSON reader: what it takes, what it refuses and where it says the fault is; the printer.
 */
#include "test.h"

#include <core/options.h>

static JsonObject *parse(const char *text)
{
    GError *error = NULL;
    JsonObject *object = blk_json_parse_object(text, -1, "test", &error);

    ck_assert_msg(object != NULL, "%s: %s", text, error != NULL ? error->message : "no message");
    ck_assert_ptr_null(error);
    return object;
}

static void check_prints(const char *text, const char *printed)
{
    g_autoptr(JsonObject) object = parse(text);
    g_autofree char *out = blk_json_to_string(object);
    g_autoptr(JsonObject) again = parse(out);
    g_autofree char *out_again = blk_json_to_string(again);

    ck_assert_str_eq(out, printed);
    ck_assert_str_eq(out_again, printed);
}

static void check_refused_bytes(const char *text, gssize length, const char *message)
{
    g_autoptr(GError) error = NULL;
    JsonObject *object = blk_json_parse_object(text, length, "test", &error);

    ck_assert_msg(object == NULL, "accepted: %s", text);
    ck_assert_ptr_nonnull(error);
    ck_assert_int_eq(error->code, EINVAL);
    ck_assert_msg(strstr(error->message, message) != NULL, "%s\nsays: %s\nnot: %s", text, error->message, message);
}

static void check_refused(const char *text, const char *message)
{
    check_refused_bytes(text, -1, message);
}

START_TEST(test_accepts)
{
    check_prints("{}", "{}");
    check_prints(" \t\r\n{ } \n", "{}");
    check_prints("{\"a\":1,\"b\":[true,false,null],\"c\":{\"d\":\"e\"}}",
                 "{\"a\": 1, \"b\": [true, false, null], \"c\": {\"d\": \"e\"}}");
    check_prints("{'a':'it\\'s \"x\"','b':\"it's\"}", "{\"a\": \"it's \\\"x\\\"\", \"b\": \"it's\"}");
    check_prints("{'z':1,'a':2,'m':[]}", "{\"z\": 1, \"a\": 2, \"m\": []}");
    check_prints("{'a':'\\u0041\\u00e4\\ud83d\\ude00\\/\\b\\f\\n\\r\\t\\u0001\\\\'}",
                 "{\"a\": \"A\xc3\xa4\xf0\x9f\x98\x80/\\b\\f\\n\\r\\t\\u0001\\\\\"}");
    check_prints("{'':''}", "{\"\": \"\"}");
}
END_TEST

START_TEST(test_numbers)
{
    g_autoptr(JsonObject) object = parse("{'max':9223372036854775807,'min':-9223372036854775808,"
                                         "'above':9223372036854775808,'e':1e6,'f':-0.5,'zero':-0}");

    ck_assert(json_object_get_int_member(object, "max") == INT64_MAX);
    ck_assert(json_object_get_int_member(object, "min") == INT64_MIN);
    ck_assert_int_eq(json_object_get_int_member(object, "zero"), 0);
    ck_assert(json_node_get_value_type(json_object_get_member(object, "max")) == G_TYPE_INT64);
    ck_assert(json_node_get_value_type(json_object_get_member(object, "above")) == G_TYPE_DOUBLE);
    ck_assert_double_eq(json_object_get_double_member(object, "above"), 9223372036854775808.0);
    ck_assert_double_eq(json_object_get_double_member(object, "e"), 1e6);
    ck_assert_double_eq(json_object_get_double_member(object, "f"), -0.5);
    check_prints("{'e':1e6,'f':-0.5}", "{\"e\": 1000000, \"f\": -0.5}");
}
END_TEST

START_TEST(test_refuses)
{
    check_refused("", "test: line 1, column 1: expected a JSON object, which begins with '{', but the text ends");
    check_refused("[1]", "expected a JSON object");
    check_refused("'a'", "expected a JSON object");
    check_refused("{\n 'a': 1,\n 'b' 2}", "test: line 3, column 6: expected ':', found '2'");
    check_refused("{'\xc3\xa4\xc3\xa4': x}", "line 1, column 8: expected a value, found 'x'");
    check_refused("{'a':1,}", "column 8: expected a key in quotes, found '}'");
    check_refused("{'a':[1,]}", "expected a value, found ']'");
    check_refused("{'a':1 'b':2}", "expected ',' or '}', found '''");
    check_refused("{'a':1", "expected ',' or '}', but the text ends");
    check_refused("{'a':[1", "expected ',' or ']', but the text ends");
    check_refused("{'a':1}x", "column 8: expected the end of the text after the object, found 'x'");
    check_refused("{'a':1}{}", "expected the end");
    check_refused("{'a':1/*c*/}", "found '/'");
    check_refused("// c\n{}", "found '/'");
    check_refused("var a = {}", "found 'v'");
    check_refused("{a:1}", "expected a key in quotes");
    check_refused("{1:1}", "expected a key in quotes");
    check_refused("{'a':1,'b':{'c':1,'c':2}}", "line 1, column 19: the key 'c' is there already");
    check_refused("{'a':1,\"\\u0061\":1}", "the key 'a' is there already");
    check_refused("{'a':'b", "column 6: the string that begins here has no end");
    check_refused("{'a':'b\"}", "has no end");
    check_refused("{'a':'b\nc'}", "control character 0x0a");
    check_refused("{'a':'\\x41'}", "expected an escape after \\");
    check_refused("{'a':'\\u12g4'}", "four hexadecimal digits");
    check_refused("{'a':'\\ud800'}", "half of a surrogate pair");
    check_refused("{'a':'\\udc00'}", "half of a surrogate pair");
    check_refused("{'a':'\\ud800\\u0041'}", "half of a surrogate pair");
    check_refused("{'a':'\\u0000'}", "U+0000 is not allowed");
    check_refused("{'a':True}", "expected a value");
    check_refused("{'a':truex}", "expected ',' or '}', found 'x'");
    check_refused("{'a':nul", "expected a value, found 'n'");
}
END_TEST

START_TEST(test_refuses_numbers)
{
    static const char *const wrong[] = {
        "01", "+1", ".5", "1.", "1.e5", "1e", "1e+", "-", "--1", "0x10", "1_000", "NaN", "Infinity", "-Infinity", "1k",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++) {
        g_autofree char *text = g_strdup_printf("{'a':%s}", wrong[i]);

        check_refused(text, "expected");
    }
    check_refused("{'a':1e400}", "the number is too large");
}
END_TEST

START_TEST(test_refuses_bytes)
{
    check_refused("{'a':'\xff'}", "byte 0xff is not valid UTF-8 text here");
    check_refused("{'a':'\xc0\x80'}", "not valid UTF-8");
    check_refused("{'a':'\xed\xa0\x80'}", "not valid UTF-8");
    check_refused_bytes("{'a':\0001}", 8, "byte 0x00 is not valid UTF-8");
    check_refused_bytes("{}", 1, "but the text ends");
}
END_TEST

static char *nested(unsigned depth, const char *open, const char *close)
{
    GString *text = g_string_new("{'a':");

    for (unsigned i = 1; i < depth; i++) {
        g_string_append(text, open);
    }
    g_string_append(text, "1");
    for (unsigned i = 1; i < depth; i++) {
        g_string_append(text, close);
    }
    g_string_append(text, "}");
    return g_string_free(text, FALSE);
}

START_TEST(test_depth)
{
    g_autofree char *ok = nested(64, "[", "]"), *ok_objects = nested(64, "{'a':", "}");
    g_autofree char *deep = nested(65, "[", "]"), *deep_objects = nested(65, "{'a':", "}");
    g_autofree char *very_deep = nested(200000, "[", "]");
    g_autofree char *brackets = g_strnfill(1000, '['), *in_string = g_strdup_printf("{'a':'%s'}", brackets);

    json_object_unref(parse(ok));
    json_object_unref(parse(ok_objects));
    check_refused(deep, "nested deeper than 64");
    check_refused(deep_objects, "nested deeper than 64");
    check_refused(very_deep, "nested deeper than 64");
    json_object_unref(parse(in_string));
}
END_TEST

START_TEST(test_size)
{
    size_t limit = 1 << 20;
    g_autofree char *text = g_strnfill(limit + 1, ' ');

    text[0] = '{';
    text[limit - 1] = '}';
    text[limit] = '\0';
    json_object_unref(parse(text));
    text[limit] = ' ';
    text[limit + 1] = '\0';
    check_refused(text, "1048577 bytes of JSON are more than the limit of 1048576");
}
END_TEST

START_TEST(test_size_that_the_caller_chooses)
{
    size_t limit = (2 << 20) + 1;
    g_autofree char *text = g_strnfill(limit + 1, ' ');
    g_autoptr(JsonNode) node = NULL;
    g_autoptr(GError) error = NULL;

    text[limit - 1] = '7';
    node = blk_json_parse_long(text, limit, limit, "test", NULL);
    ck_assert_ptr_nonnull(node);
    ck_assert_int_eq(json_node_get_int(node), 7);
    ck_assert_ptr_null(blk_json_parse_long(text, limit + 1, limit, "test", &error));
    ck_assert_str_eq(error->message, "test: 2097154 bytes of JSON are more than the limit of 2097153");
}
END_TEST

START_TEST(test_copy_is_deep)
{
    g_autoptr(JsonObject) object = parse("{'a':{'b':[{'c':1}]}}");
    g_autoptr(JsonObject) copy = blk_json_copy(object);
    JsonObject *a = json_object_get_object_member(copy, "a");
    g_autofree char *before = NULL, *after = NULL;

    json_object_set_int_member(json_array_get_object_element(json_object_get_array_member(a, "b"), 0), "c", 2);
    json_object_set_null_member(a, "d");
    before = blk_json_to_string(object);
    after = blk_json_to_string(copy);
    ck_assert_str_eq(before, "{\"a\": {\"b\": [{\"c\": 1}]}}");
    ck_assert_str_eq(after, "{\"a\": {\"b\": [{\"c\": 2}], \"d\": null}}");
}
END_TEST

/* Whatever stands in the text, the reader says yes and prints it back, or no with a message. */
START_TEST(test_random_mutations)
{
    static const char *const seeds[] = {
        "{'driver':'qcow2','file':{'driver':'file','filename':'/a/b,c','cache':{'direct':true}},'backing':null}",
        "{\"a\":[1,-2.5e3,18446744073709551615,{\"b\":[[],{}]}],\"\\u00e4\\ud83d\\ude00\":\"\\\"\\\\\\n\"}",
    };
    static const char alphabet[] = "{}[]:,'\"\\ue019.-+tfn x\n\x80\xc3\xa4\xf0\x01";
    guint32 seed = 20240923;
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    unsigned accepted = 0;

    g_print("# seed %u\n", seed);
    for (unsigned i = 0; i < 20000; i++) {
        g_autoptr(GString) text = g_string_new(seeds[i % G_N_ELEMENTS(seeds)]);
        g_autoptr(GError) error = NULL;
        g_autoptr(JsonObject) object = NULL;

        for (int n = g_rand_int_range(rand, 0, 6); n > 0; n--) {
            gint32 at = g_rand_int_range(rand, 0, text->len);

            if (g_rand_boolean(rand)) {
                text->str[at] = alphabet[g_rand_int_range(rand, 0, sizeof(alphabet) - 1)];
            } else {
                g_string_erase(text, at, g_rand_int_range(rand, 1, text->len - at + 1) % 9);
                g_string_insert_len(text, g_rand_int_range(rand, 0, text->len + 1), seeds[0] + at % 60, 4);
            }
        }
        object = blk_json_parse_object(text->str, text->len, "test", &error);
        ck_assert((object == NULL) == (error != NULL));
        if (object != NULL) {
            g_autofree char *out = blk_json_to_string(object);

            json_object_unref(parse(out));
            accepted++;
        }
    }
    ck_assert_uint_gt(accepted, 1000);
}
END_TEST

BLK_TEST_MAIN("json", test_accepts, test_numbers, test_refuses, test_refuses_numbers, test_refuses_bytes, test_depth,
              test_size, test_size_that_the_caller_chooses, test_copy_is_deep, test_random_mutations)
