/* SPDX-License-Identifier: MIT */
/*
 * test_options.c - tables of options, dotted and nested trees, key=value texts, sizes, suggestions and help.
 */
#include "test.h"

#include <core/options.h>

static const char *const colours[] = { "red", "green", "blue", NULL };

static const BlkOption table[] = {
    { "driver", BLK_OPTION_STRING, "driver" },
    { "file", BLK_OPTION_NODE, "the child" },
    { "cluster-size", BLK_OPTION_SIZE, "unit", .default_text = "64k", .min = 512, .max = 2 << 20 },
    { "count", BLK_OPTION_UINT, "how many" },
    { "cache.direct", BLK_OPTION_BOOL, "bypass", .default_text = "on" },
    { "cache.no-flush", BLK_OPTION_BOOL, "ignore" },
    { "colour", BLK_OPTION_ENUM, "the colour", .default_text = "green", .values = colours },
    { "rules", BLK_OPTION_JSON, "a list" },
    { NULL },
};
static const BlkOption required_table[] = {
    { "name", BLK_OPTION_STRING, "how it is called", .required = true },
    { NULL },
};
static const BlkOption *const tables[] = { table, NULL };
static const BlkOption *const two_tables[] = { table, required_table, NULL };

static JsonObject *json(const char *text)
{
    GError *error = NULL;
    JsonObject *object = blk_json_parse_object(text, -1, "test", &error);

    ck_assert_msg(object != NULL, "%s", error != NULL ? error->message : "");
    return object;
}

static BlkOptions *parse(const char *text)
{
    g_autoptr(JsonObject) object = json(text);
    g_autofree char *before = blk_json_to_string(object), *after = NULL;
    GError *error = NULL;
    BlkOptions *options = blk_options_parse(tables, object, "thing 'x'", &error);

    ck_assert_msg(options != NULL, "%s: %s", text, error != NULL ? error->message : "");
    after = blk_json_to_string(object);
    ck_assert_str_eq(before, after);
    return options;
}

static void check_refused_by(const BlkOption *const *by, const char *text, const char *message)
{
    g_autoptr(JsonObject) object = json(text);
    g_autoptr(GError) error = NULL;
    BlkOptions *options = blk_options_parse(by, object, "thing 'x'", &error);

    ck_assert_msg(options == NULL, "accepted: %s", text);
    ck_assert_ptr_nonnull(error);
    ck_assert_int_eq(error->code, EINVAL);
    ck_assert_str_eq(error->message, message);
}

static void check_refused(const char *text, const char *message)
{
    check_refused_by(tables, text, message);
}

START_TEST(test_defaults)
{
    g_autoptr(BlkOptions) options = parse("{}");

    ck_assert_ptr_null(blk_options_string(options, "driver"));
    ck_assert_ptr_null(blk_options_json(options, "file"));
    ck_assert_ptr_null(blk_options_json(options, "rules"));
    ck_assert_uint_eq(blk_options_uint(options, "cluster-size"), 65536);
    ck_assert_uint_eq(blk_options_uint(options, "count"), 0);
    ck_assert(blk_options_bool(options, "cache.direct"));
    ck_assert(!blk_options_bool(options, "cache.no-flush"));
    ck_assert_uint_eq(blk_options_enum(options, "colour"), 1);
    ck_assert_str_eq(blk_options_string(options, "colour"), "green");
    ck_assert(!blk_options_has(options, "cluster-size"));
    ck_assert(!blk_options_has(options, "count"));
}
END_TEST

START_TEST(test_values)
{
    g_autoptr(BlkOptions) options = parse("{'driver':'d','file':{'driver':'f','cache.direct':true},'cluster-size':4096,"
                                          "'count':'0x10','cache.direct':false,'colour':'blue','rules':[1]}");
    g_autofree char *file = blk_json_to_string(json_node_get_object(blk_options_json(options, "file")));

    ck_assert_str_eq(blk_options_string(options, "driver"), "d");
    ck_assert_str_eq(file, "{\"driver\": \"f\", \"cache.direct\": true}");
    ck_assert_uint_eq(blk_options_uint(options, "cluster-size"), 4096);
    ck_assert_uint_eq(blk_options_uint(options, "count"), 16);
    ck_assert(!blk_options_bool(options, "cache.direct"));
    ck_assert(blk_options_has(options, "cache.direct"));
    ck_assert_uint_eq(blk_options_enum(options, "colour"), 2);
    ck_assert_uint_eq(json_array_get_length(json_node_get_array(blk_options_json(options, "rules"))), 1);
}
END_TEST

START_TEST(test_conversions)
{
    static const struct { const char *text; bool value; } bools[] = {
        { "true", true }, { "false", false }, { "'on'", true }, { "'off'", false }, { "'yes'", true },
        { "'no'", false }, { "'true'", true }, { "'false'", false },
    };
    static const struct { const char *text; uint64_t value; } numbers[] = {
        { "0", 0 }, { "9223372036854775807", INT64_MAX }, { "'18446744073709551615'", UINT64_MAX }, { "'7'", 7 },
        { "1e6", 1000000 }, { "'0xff'", 255 }, { "4.0", 4 },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(bools); i++) {
        g_autofree char *text = g_strdup_printf("{'cache.no-flush':%s}", bools[i].text);
        g_autoptr(BlkOptions) options = parse(text);

        ck_assert(blk_options_bool(options, "cache.no-flush") == bools[i].value);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(numbers); i++) {
        g_autofree char *text = g_strdup_printf("{'count':%s}", numbers[i].text);
        g_autoptr(BlkOptions) options = parse(text);

        ck_assert(blk_options_uint(options, "count") == numbers[i].value);
    }
}
END_TEST

START_TEST(test_ill_typed)
{
#define UINT_TEXT "a whole number from 0 to 18446744073709551615"
#define SIZE_TEXT "a size in bytes: a number, with a suffix k, M, G, T, P or E if you like"
    check_refused("{'driver':1}", "thing 'x': option 'driver' must be a string, not 1");
    check_refused("{'driver':null}", "thing 'x': option 'driver' must be a string, not null");
    check_refused("{'cache.direct':1}", "thing 'x': option 'cache.direct' must be on or off, not 1");
    check_refused("{'cache.direct':'maybe'}", "thing 'x': option 'cache.direct' must be on or off, not \"maybe\"");
    check_refused("{'cache.direct':'On'}", "thing 'x': option 'cache.direct' must be on or off, not \"On\"");
    check_refused("{'count':-1}", "thing 'x': option 'count' must be " UINT_TEXT ", not -1");
    check_refused("{'count':1.5}", "thing 'x': option 'count' must be " UINT_TEXT ", not 1.5");
    check_refused("{'count':18446744073709551616}",
                  "thing 'x': option 'count' must be " UINT_TEXT ", not 1.8446744073709552e+19");
    check_refused("{'count':'18446744073709551616'}",
                  "thing 'x': option 'count' must be " UINT_TEXT ", not \"18446744073709551616\"");
    check_refused("{'count':'1k'}", "thing 'x': option 'count' must be " UINT_TEXT ", not \"1k\"");
    check_refused("{'count':' 1'}", "thing 'x': option 'count' must be " UINT_TEXT ", not \" 1\"");
    check_refused("{'count':'-1'}", "thing 'x': option 'count' must be " UINT_TEXT ", not \"-1\"");
    check_refused("{'count':'0x'}", "thing 'x': option 'count' must be " UINT_TEXT ", not \"0x\"");
    check_refused("{'count':''}", "thing 'x': option 'count' must be " UINT_TEXT ", not \"\"");
    check_refused("{'count':true}", "thing 'x': option 'count' must be " UINT_TEXT ", not true");
    check_refused("{'count':[1]}", "thing 'x': option 'count' must be " UINT_TEXT ", not [1]");
    check_refused("{'cluster-size':'64q'}", "thing 'x': option 'cluster-size' must be " SIZE_TEXT ", not \"64q\"");
    check_refused("{'colour':'pink'}", "thing 'x': option 'colour' must be one of red, green, blue, not \"pink\"");
    check_refused("{'colour':1}", "thing 'x': option 'colour' must be one of red, green, blue, not 1");
    check_refused("{'file':1}",
                  "thing 'x': option 'file' must be an object of options, the name of a node, or null, not 1");
    check_refused("{'file':''}",
                  "thing 'x': option 'file' must be an object of options, the name of a node, or null, not \"\"");
    check_refused("{'count':'\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4"
                  "\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3"
                  "\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4'}",
                  "thing 'x': option 'count' must be " UINT_TEXT
                  ", not \"\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3"
                  "\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4"
                  "\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4...");
}
END_TEST

START_TEST(test_bounds)
{
    g_autoptr(BlkOptions) low = parse("{'cluster-size':512}"), high = parse("{'cluster-size':'2M'}");

    ck_assert_uint_eq(blk_options_uint(low, "cluster-size"), 512);
    ck_assert_uint_eq(blk_options_uint(high, "cluster-size"), 2 << 20);
    check_refused("{'cluster-size':511}", "thing 'x': option 'cluster-size' must be from 512 to 2097152, not 511");
    check_refused("{'cluster-size':'2049k'}",
                  "thing 'x': option 'cluster-size' must be from 512 to 2097152, not 2098176");
}
END_TEST

START_TEST(test_unknown_and_required)
{
    check_refused("{'colur':'red'}", "thing 'x': unknown option 'colur'; did you mean 'colour'?");
    check_refused("{'cluster_size':1}", "thing 'x': unknown option 'cluster_size'; did you mean 'cluster-size'?");
    check_refused("{'clustersize':1}", "thing 'x': unknown option 'clustersize'; did you mean 'cluster-size'?");
    check_refused("{'clustersize.deep.down':1}",
                  "thing 'x': unknown option 'clustersize.deep.down'; did you mean 'cluster-size'?");
    check_refused("{'cache':{'dircet':true}}",
                  "thing 'x': unknown option 'cache.dircet'; did you mean 'cache.direct'?");
    check_refused("{'zzzzzz':1}", "thing 'x': unknown option 'zzzzzz'");
    check_refused("{'':1}", "thing 'x': unknown option ''");
    check_refused("{'backing':{}}", "thing 'x': unknown option 'backing'");
    check_refused("{'backing':{'a':{'b':1}}}", "thing 'x': unknown option 'backing.a.b'");
    check_refused_by(two_tables, "{}", "thing 'x': option 'name' is required: how it is called");
    check_refused_by(two_tables, "{'nane':'a'}", "thing 'x': unknown option 'nane'; did you mean 'name'?");
}
END_TEST

static void check_normal(const char *text, const char *normal)
{
    g_autoptr(JsonObject) object = json(text), again = NULL;
    GError *error = NULL;
    g_autoptr(JsonObject) out = blk_options_normalise(tables, object, &error);
    g_autofree char *printed = NULL, *printed_again = NULL;

    ck_assert_msg(out != NULL, "%s: %s", text, error != NULL ? error->message : "");
    printed = blk_json_to_string(out);
    ck_assert_str_eq(printed, normal);
    again = blk_options_normalise(tables, out, NULL);
    ck_assert_ptr_nonnull(again);
    printed_again = blk_json_to_string(again);
    ck_assert_str_eq(printed_again, normal);
}

START_TEST(test_normalise)
{
    check_normal("{}", "{}");
    check_normal("{'cache':{'direct':true,'no-flush':'on'}}", "{\"cache.direct\": true, \"cache.no-flush\": \"on\"}");
    check_normal("{'cache':{},'driver':'d'}", "{\"driver\": \"d\"}");
    check_normal("{'file.driver':'f','file.cache.direct':true}",
                 "{\"file\": {\"driver\": \"f\", \"cache.direct\": true}}");
    check_normal("{'file':{'driver':'f'},'file.size':1}", "{\"file\": {\"driver\": \"f\", \"size\": 1}}");
    check_normal("{'file':{'file':{'a.b':1}}}", "{\"file\": {\"file\": {\"a.b\": 1}}}");
    check_normal("{'rules.0.event':'e','rules.1.x.y':2}", "{\"rules\": [{\"event\": \"e\"}, {\"x\": {\"y\": 2}}]}");
    check_normal("{'rules':{'a.b':1}}", "{\"rules\": {\"a.b\": 1}}");
    check_normal("{'other':{'a':{'b':1}},'filex.a':1}", "{\"other.a.b\": 1, \"filex.a\": 1}");
    check_normal("{'file':null}", "{\"file\": null}");
}
END_TEST

START_TEST(test_both_forms)
{
    check_refused("{'cache.direct':true,'cache':{'direct':true}}",
                  "thing 'x': option 'cache.direct' is given twice, with dots and nested");
    check_refused("{'cache':{'direct':true},'cache.direct':true}",
                  "thing 'x': option 'cache.direct' is given twice, with dots and nested");
    check_refused("{'file':{'size':1},'file.size':1}",
                  "thing 'x': option 'file.size' is given twice, with dots and nested");
    check_refused("{'file':'node','file.size':1}",
                  "thing 'x': option 'file' names a node that exists: it takes no options such as 'file.size'");
    check_refused("{'file':null,'file.size':1}",
                  "thing 'x': option 'file' names a node that exists: it takes no options such as 'file.size'");
    check_refused("{'rules':[],'rules.0':1}", "thing 'x': option 'rules' is given twice, with dots and as one value");
    check_refused("{'rules.1':1}",
                  "thing 'x': the list 'rules' has no element 0: number its elements from 0 without gaps");
}
END_TEST

static void check_keyval(const char *text, const char *implied, const char *tree)
{
    GError *error = NULL;
    g_autoptr(JsonObject) object = blk_options_parse_keyval(text, implied, &error);
    g_autofree char *printed = NULL;

    ck_assert_msg(object != NULL, "%s: %s", text, error != NULL ? error->message : "");
    printed = blk_json_to_string(object);
    ck_assert_str_eq(printed, tree);
}

static void check_keyval_refused(const char *text, const char *message)
{
    g_autoptr(GError) error = NULL;

    ck_assert_ptr_null(blk_options_parse_keyval(text, NULL, &error));
    ck_assert_ptr_nonnull(error);
    ck_assert_str_eq(error->message, message);
}

START_TEST(test_keyval)
{
    check_keyval("", NULL, "{}");
    check_keyval("driver=qcow2,file.driver=file,file.filename=a,,b", NULL,
                 "{\"driver\": \"qcow2\", \"file\": {\"driver\": \"file\", \"filename\": \"a,b\"}}");
    check_keyval("a=1,a=2", NULL, "{\"a\": \"2\"}");
    check_keyval("a=b=c,d=", NULL, "{\"a\": \"b=c\", \"d\": \"\"}");
    check_keyval("a=1,", NULL, "{\"a\": \"1\"}");
    check_keyval("a=,,,b=2", NULL, "{\"a\": \",\", \"b\": \"2\"}");
    check_keyval("lazy", NULL, "{\"lazy\": \"on\"}");
    check_keyval("qcow2,size=1", "driver", "{\"driver\": \"qcow2\", \"size\": \"1\"}");
    check_keyval("size=1,lazy", "driver", "{\"size\": \"1\", \"lazy\": \"on\"}");
    check_keyval("c.1.x=b,c.0=a", NULL, "{\"c\": [\"a\", {\"x\": \"b\"}]}");
    check_keyval("0=a,1=b", NULL, "{\"0\": \"a\", \"1\": \"b\"}");
    check_keyval("{'a':{'b':1}}", "driver", "{\"a\": {\"b\": 1}}");
}
END_TEST

START_TEST(test_keyval_refuses)
{
    g_autofree char *deep = g_strnfill(200, 'a'), *message = NULL, *long_text = g_strnfill((1 << 20) + 1, 'a');

    for (unsigned i = 1; i < 200; i += 2) {
        deep[i] = '.';
    }
    message = g_strdup_printf("the key '%.40s...' has more than 64 parts", deep);
    deep[199] = '\0';
    check_keyval_refused(deep, message);
    check_keyval_refused(long_text, "1048577 bytes of options are more than the limit of 1048576");
    check_keyval_refused("=1", "a key is missing before '=1': write key=value,key=value");
    check_keyval_refused("a=1,=2", "a key is missing before '=2': write key=value,key=value");
    check_keyval_refused("a=1,a.b=2", "'a.b' is given both as a value and as a group of keys, or twice");
    check_keyval_refused("a.b=2,a=1", "'a' is given both as a value and as a group of keys, or twice");
    check_keyval_refused("a..b=1", "the key 'a..b' has an empty part");
    check_keyval_refused(".a=1", "the key '.a' has an empty part");
    check_keyval_refused("a.=1", "the key 'a.' has an empty part");
    check_keyval_refused("a.0=1,a.b=2", "'a' mixes numbered and named keys");
    check_keyval_refused("a.0=1,a.2=2",
                         "the list 'a' has no element 1: number its elements from 0 without gaps");
    check_keyval_refused("a.99999999999999999999=1",
                         "the list 'a' has no element 0: number its elements from 0 without gaps");
    check_keyval_refused("a=\xff", "the options are not valid UTF-8 text");
    check_keyval_refused("{'a':1", "options: line 1, column 7: expected ',' or '}', but the text ends");
}
END_TEST

static void check_expands(const char *text, const char *expanded)
{
    g_autoptr(JsonObject) object = json(text), out = NULL;
    g_autofree char *before = blk_json_to_string(object), *after = NULL, *printed = NULL;
    g_autoptr(GError) error = NULL;

    out = blk_options_expand(object, &error);
    printed = out != NULL ? blk_json_to_string(out) : g_strdup(error->message);
    ck_assert_str_eq(printed, expanded);
    after = blk_json_to_string(object);
    ck_assert_str_eq(before, after);
}

START_TEST(test_expand)
{
    check_expands("{'a.b':1,'c.0.d':2}", "{\"a\": {\"b\": 1}, \"c\": [{\"d\": 2}]}");
    check_expands("{'file':{'driver':'f'},'file.size':1}", "{\"file\": {\"driver\": \"f\", \"size\": 1}}");
    check_expands("{'file.size':1,'file':{'driver':'f'}}", "{\"file\": {\"size\": 1, \"driver\": \"f\"}}");
    check_expands("{'file':{'a.b':1}}", "{\"file\": {\"a.b\": 1}}");
    check_expands("{'file.size':1,'file':{'size':1}}", "'file.size' is given twice, with dots and nested");
    check_expands("{'file':{'size':1},'file.size':1}",
                  "'file.size' is given both as a value and as a group of keys, or twice");
    check_expands("{'file':'x','file.size':1}",
                  "'file.size' is given both as a value and as a group of keys, or twice");
}
END_TEST

START_TEST(test_sizes)
{
    static const struct { const char *text; uint64_t value; } good[] = {
        { "0", 0 }, { "64k", 65536 }, { "64K", 65536 }, { "1b", 1 }, { "10B", 10 }, { "1.5G", 1610612736 },
        { "1m", 1048576 }, { "2T", UINT64_C(2) << 40 }, { "1p", UINT64_C(1) << 50 }, { "8E", UINT64_C(8) << 60 },
        { "15.5E", (UINT64_C(31) << 59) }, { "0x1000", 4096 }, { "0X1b", 27 }, { "010k", 10240 },
        { "1.k", 1024 }, { "1.", 1 }, { "2.b", 2 },
        { "1.0000001k", 1024 }, { "0.999999999999999999999999E", 1152921504606846974 },
        { "18446744073709551615", UINT64_MAX }, { "0xffffffffffffffff", UINT64_MAX },
    };
    static const char *const bad[] = {
        "", " 5", "5 ", "+5", "-1", "5kk", "1.5", "1.5b", ".5k", ".k", ".", "1e3", "16E", "18446744073709551616", "0x",
        "0x1k", "0x1.8k", "0x10000000000000000", "inf", "nan", "k", "5x", "1.5.5k", "15.99999999999999999999999999999X",
        "17179869184G", "1\xc3\xa4",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
        uint64_t value = 12345;

        ck_assert_msg(blk_parse_size(good[i].text, &value) && value == good[i].value, "%s: %" G_GUINT64_FORMAT,
                      good[i].text, value);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        uint64_t value;

        ck_assert_msg(!blk_parse_size(bad[i], &value), "accepted: '%s'", bad[i]);
    }
}
END_TEST

START_TEST(test_nearest_word)
{
    static const char *const words[] = { "size", "backing", "l2-cache-size", "l2-cache-full", "file", NULL };
    static const char *const formats[] = { "qcow", "qcow2", "qcow", NULL };

    ck_assert_str_eq(blk_nearest_word("qcow3", formats), "qcow2");
    ck_assert_str_eq(blk_nearest_word("qcov", formats), "qcow");
    ck_assert_str_eq(blk_nearest_word("sise", words), "size");
    ck_assert_str_eq(blk_nearest_word("isze", words), "size");
    ck_assert_str_eq(blk_nearest_word("SIZE", words), "size");
    ck_assert_str_eq(blk_nearest_word("l2_cache_size", words), "l2-cache-size");
    ck_assert_str_eq(blk_nearest_word("backng", words), "backing");
    ck_assert_str_eq(blk_nearest_word("l2-cache-sise", words), "l2-cache-size");
    ck_assert_ptr_null(blk_nearest_word("", words));
    ck_assert_ptr_null(blk_nearest_word("x", words));
    ck_assert_ptr_null(blk_nearest_word("wxyz", words));
    ck_assert_ptr_null(blk_nearest_word("a-word-that-is-far-longer-than-every-known-name-is-and-more", words));
}
END_TEST

START_TEST(test_describe)
{
    g_autoptr(GString) out = g_string_new(NULL);

    blk_options_describe(table + 2, out);
    blk_options_describe(required_table, out);
    ck_assert_str_eq(out->str,
                     "  cluster-size=<size>    - unit (default: 64k)\n"
                     "  count=<num>            - how many\n"
                     "  cache.direct=<bool (on/off)> - bypass (default: on)\n"
                     "  cache.no-flush=<bool (on/off)> - ignore\n"
                     "  colour=<str>           - the colour (allowed values: red, green, blue; default: green)\n"
                     "  rules=<json>           - a list\n"
                     "  name=<str>             - how it is called (required)\n");
}
END_TEST

START_TEST(test_node_options)
{
    const BlkOption *const node_tables[] = { blk_node_options, NULL };
    g_autoptr(JsonObject) object = json("{'driver':'d','cache':{'direct':'on'},'discard':'unmap','read-only':true}");
    g_autoptr(BlkOptions) options = blk_options_parse(node_tables, object, "node", NULL);

    ck_assert_ptr_nonnull(options);
    ck_assert(blk_options_bool(options, "cache.direct"));
    ck_assert(blk_options_bool(options, "read-only"));
    ck_assert_uint_eq(blk_options_enum(options, "discard"), 1);
    ck_assert_uint_eq(blk_options_enum(options, "detect-zeroes"), 0);
    ck_assert_ptr_null(blk_options_string(options, "node-name"));
}
END_TEST

/* Texts that are nearly right: never a crash, and NULL comes with a message. */
START_TEST(test_random_texts)
{
    static const char *const parts[] = {
        "driver", "file", "cache", "direct", "colour", "rules", "count", "cluster-size", ".", ".", ".", "0", "1",
        "=", "=", ",", ",", ",,", "on", "64k", "{", "}", "'", ":", "red", "node", "\xc3\xa4", "null", "-",
    };
    guint32 seed = 7051;
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    unsigned trees = 0, accepted = 0;

    g_print("# seed %u\n", seed);
    for (unsigned i = 0; i < 20000; i++) {
        g_autoptr(GString) text = g_string_new(i % 3 == 0 ? "file.driver=x,cache.direct=" : "");
        g_autoptr(GError) error = NULL;
        g_autoptr(JsonObject) tree = NULL;

        for (int n = g_rand_int_range(rand, 1, 14); n > 0; n--) {
            g_string_append(text, parts[g_rand_int_range(rand, 0, G_N_ELEMENTS(parts))]);
        }
        tree = blk_options_parse_keyval(text->str, i % 2 == 0 ? "colour" : NULL, &error);
        ck_assert((tree == NULL) == (error != NULL));
        if (tree != NULL) {
            g_autoptr(BlkOptions) options = blk_options_parse(tables, tree, "random", &error);

            ck_assert((options == NULL) == (error != NULL));
            trees++;
            accepted += options != NULL;
        }
    }
    ck_assert_uint_gt(trees, 1000);
    ck_assert_uint_gt(accepted, 10);
}
END_TEST

/* Random trees of the words that the table knows, as dotted keys and nested objects. */
static JsonNode *random_value(GRand *rand, unsigned depth)
{
    static const char *const keys[] = {
        "file", "cache", "cache.direct", "direct", "rules", "rules.0", "file.size", "0", "1", "colour", "a.b", ".", "",
    };
    g_autoptr(JsonObject) object = json_object_new();
    JsonNode *node = json_node_alloc();

    switch (g_rand_int_range(rand, 0, depth == 0 ? 1 : 7)) {
    case 0:
        for (int n = g_rand_int_range(rand, 0, 4); n > 0 && depth < 5; n--) {
            json_object_set_member(object, keys[g_rand_int_range(rand, 0, G_N_ELEMENTS(keys))],
                                   random_value(rand, depth + 1));
        }
        return json_node_init_object(node, object);
    case 1:
        return json_node_init_string(node, "on");
    case 2:
        return json_node_init_int(node, g_rand_int(rand));
    case 3:
        return json_node_init_null(node);
    case 4:
        return json_node_init_boolean(node, true);
    case 5: {
        g_autoptr(JsonArray) array = json_array_new();

        json_array_add_element(array, random_value(rand, depth + 1));
        return json_node_init_array(node, array);
    }
    default:
        return json_node_init_double(node, g_rand_double(rand) * 1e20);
    }
}

START_TEST(test_random_trees)
{
    guint32 seed = 7052;
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    unsigned normal = 0;

    g_print("# seed %u\n", seed);
    for (unsigned i = 0; i < 20000; i++) {
        g_autoptr(JsonNode) node = random_value(rand, 0);
        g_autoptr(GError) error = NULL, parse_error = NULL;
        g_autoptr(JsonObject) out = blk_options_normalise(tables, json_node_get_object(node), &error);
        g_autoptr(BlkOptions) options = blk_options_parse(tables, json_node_get_object(node), "random", &parse_error);

        ck_assert((out == NULL) == (error != NULL));
        ck_assert((options == NULL) == (parse_error != NULL));
        ck_assert(out != NULL || options == NULL);
        normal += out != NULL;
    }
    ck_assert_uint_gt(normal, 5000);
}
END_TEST

BLK_TEST_MAIN("options", test_defaults, test_values, test_conversions, test_ill_typed, test_bounds,
              test_unknown_and_required, test_normalise, test_both_forms, test_keyval, test_keyval_refuses, test_expand,
              test_sizes, test_nearest_word, test_describe, test_node_options, test_random_texts, test_random_trees)
