/* SPDX-License-Identifier: MIT */
/*
 * test_filename.c - what file names, names with a prefix and json: names mean, and names relative to another one.
 */
#include "test.h"

#include <core/options.h>

static const char *const fake_prefixes[] = { "fake", "fake+tls", NULL };

static JsonObject *fake_parse_filename(const char *name, GError **error)
{
    JsonObject *tree = json_object_new();

    if (strstr(name, "wrong") != NULL) {
        json_object_unref(tree);
        blk_error(error, -EINVAL, "fake: this name is wrong");
        return NULL;
    }
    json_object_set_string_member(tree, "rest", strchr(name, ':') + 1);
    return tree;
}

static const char *const plain_prefixes[] = { "plain", NULL };

static const BlkDriver fake_drivers[] = {
    { .name = "fake", .kind = BLK_PROTOCOL, .prefixes = fake_prefixes, .parse_filename = fake_parse_filename },
    { .name = "plain-protocol", .kind = BLK_PROTOCOL, .prefixes = plain_prefixes },
    { .name = "box", .alias = "carton", .kind = BLK_FORMAT },
    { .name = "sieve", .kind = BLK_FILTER },
};

static BlkContext *new_context(void)
{
    GError *error = NULL;
    BlkContext *ctx = blk_context_new(NULL, &error);

    ck_assert_msg(ctx != NULL, "%s", error != NULL ? error->message : "");
    for (size_t i = 0; i < G_N_ELEMENTS(fake_drivers); i++) {
        ck_assert_int_eq(blk_driver_register(ctx, &fake_drivers[i], &error), 0);
    }
    return ctx;
}

static void check_tree(BlkContext *ctx, const char *name, const char *format, const char *tree)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonObject) object = blk_options_parse_filename(ctx, name, format, &error);
    g_autofree char *printed = NULL;

    ck_assert_msg(object != NULL, "%s: %s", name, error != NULL ? error->message : "");
    ck_assert_ptr_null(error);
    printed = blk_json_to_string(object);
    ck_assert_str_eq(printed, tree);
}

static void check_refused(BlkContext *ctx, const char *name, const char *format, const char *message)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonObject) object = blk_options_parse_filename(ctx, name, format, &error);

    ck_assert_msg(object == NULL, "accepted: %s", name);
    ck_assert_ptr_nonnull(error);
    ck_assert_str_eq(error->message, message);
}

START_TEST(test_names)
{
    g_autoptr(BlkContext) ctx = new_context();

    check_tree(ctx, "a.img", NULL, "{\"file\": {\"driver\": \"file\", \"filename\": \"a.img\"}}");
    check_tree(ctx, "a.img", "raw", "{\"driver\": \"raw\", \"file\": {\"driver\": \"file\", \"filename\": \"a.img\"}}");
    check_tree(ctx, "a.img", "carton",
               "{\"driver\": \"box\", \"file\": {\"driver\": \"file\", \"filename\": \"a.img\"}}");
    check_tree(ctx, "a.img", "file", "{\"driver\": \"file\", \"filename\": \"a.img\"}");
    check_tree(ctx, "a.img", "sieve",
               "{\"driver\": \"sieve\", \"file\": {\"file\": {\"driver\": \"file\", \"filename\": \"a.img\"}}}");
    check_tree(ctx, "./fake:x", NULL, "{\"file\": {\"driver\": \"file\", \"filename\": \"./fake:x\"}}");
    check_tree(ctx, "/a/nope:x", NULL, "{\"file\": {\"driver\": \"file\", \"filename\": \"/a/nope:x\"}}");
    check_tree(ctx, ":x", NULL, "{\"file\": {\"driver\": \"file\", \"filename\": \":x\"}}");
    check_tree(ctx, "file:x:y", NULL, "{\"file\": {\"filename\": \"x:y\", \"driver\": \"file\"}}");
    check_refused(ctx, "", NULL, "A file name is missing");
    check_refused(ctx, "file:", NULL, "A file name is missing");
    check_refused(ctx, "a.img", "nope", "Unknown driver 'nope'");
}
END_TEST

START_TEST(test_prefixes)
{
    g_autoptr(BlkContext) ctx = new_context();

    check_tree(ctx, "fake:x:y/z", NULL, "{\"file\": {\"rest\": \"x:y/z\", \"driver\": \"fake\"}}");
    check_tree(ctx, "fake+tls:", "raw", "{\"driver\": \"raw\", \"file\": {\"rest\": \"\", \"driver\": \"fake\"}}");
    check_tree(ctx, "plain:x", NULL, "{\"file\": {\"driver\": \"plain-protocol\", \"filename\": \"plain:x\"}}");
    check_tree(ctx, "fake:x", "fake", "{\"rest\": \"x\", \"driver\": \"fake\"}");
    check_refused(ctx, "fake:wrong", NULL, "fake: this name is wrong");
    check_refused(ctx, "fak:x", NULL, "Unknown protocol 'fak'; a file of that name is opened as './fak:x'");
    check_refused(ctx, "fakes:x", NULL, "Unknown protocol 'fakes'; a file of that name is opened as './fakes:x'");
    check_refused(ctx, "box:x", NULL, "Unknown protocol 'box'; a file of that name is opened as './box:x'");
}
END_TEST

START_TEST(test_json_names)
{
    g_autoptr(BlkContext) ctx = new_context();

    check_tree(ctx, "json:{'driver':'raw','file.filename':'x'}", NULL,
               "{\"driver\": \"raw\", \"file.filename\": \"x\"}");
    check_tree(ctx, "json: {}", NULL, "{}");
    check_tree(ctx, "json:{'driver':'raw'}", "raw", "{\"driver\": \"raw\"}");
    check_tree(ctx, "json:{'file':'node'}", "raw", "{\"file\": \"node\", \"driver\": \"raw\"}");
    check_refused(ctx, "json:{'driver':'box'}", "raw",
                  "The format 'raw' is given, but the json: name says another \"driver\"");
    check_refused(ctx, "json:{'driver':1}", "raw",
                  "The format 'raw' is given, but the json: name says another \"driver\"");
    check_refused(ctx, "json:", NULL,
                  "json: name: line 1, column 1: expected a JSON object, which begins with '{', but the text ends");
    check_refused(ctx, "json:{'a':1,'a':2}", NULL, "json: name: line 1, column 8: the key 'a' is there already");
}
END_TEST

/* A json: name is no protocol, so that one cannot hide in another. */
START_TEST(test_protocol_refuses_json)
{
    g_autoptr(BlkContext) ctx = new_context();
    g_autoptr(GError) error = NULL;

    ck_assert_ptr_null(blk_filename_parse_protocol(ctx, "json:{'driver':'null-co'}", &error));
    ck_assert_ptr_nonnull(error);
    ck_assert_msg(g_str_has_prefix(error->message, "Unknown protocol 'json'"), "%s", error->message);
}
END_TEST

static void check_resolved(const char *base, const char *name, const char *expected)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *resolved = blk_filename_resolve(base, name, &error);

    ck_assert_msg(resolved != NULL, "%s: %s", name, error != NULL ? error->message : "");
    ck_assert_str_eq(resolved, expected);
}

START_TEST(test_resolve)
{
    check_resolved("a.img", "b.img", "b.img");
    check_resolved("dir/a.img", "b.img", "dir/b.img");
    check_resolved("/x/y/a.img", "../b.img", "/x/y/../b.img");
    check_resolved("./a:b", "c", "./c");
    check_resolved("file:dir/a.img", "b.img", "dir/b.img");
    check_resolved("file:a:b", "c", "c");
    check_resolved("dir/a.img", "/b.img", "/b.img");
    check_resolved("dir/a.img", "fake:b", "fake:b");
    check_resolved("dir/a.img", "json:{}", "json:{}");
    check_resolved("dir/a.img", "./b:c", "dir/./b:c");
    check_resolved("json:{}", "/b", "/b");
    check_resolved("fake:x", "json:{}", "json:{}");
}
END_TEST

START_TEST(test_resolve_refuses)
{
    static const char *const bases[] = { "json:{'file':{}}", "fake:x/y", "unknown:z" };

    for (size_t i = 0; i < G_N_ELEMENTS(bases); i++) {
        g_autoptr(GError) error = NULL;
        g_autofree char *expected = g_strdup_printf("'b.img' is a relative name, and '%s' has no directory that it "
                                                    "could start from: give an absolute name", bases[i]);

        ck_assert_ptr_null(blk_filename_resolve(bases[i], "b.img", &error));
        ck_assert_ptr_nonnull(error);
        ck_assert_str_eq(error->message, expected);
    }
    ck_assert_ptr_null(blk_filename_resolve("a", "", NULL));
}
END_TEST

START_TEST(test_random_names)
{
    static const char *const parts[] = {
        "json:", "file:", "fake:", "plain:", "{", "}", "'driver'", ":", "'raw'", ",", "/", ".", "x", "'file'", "\xff",
        "host_device:", "null-co:", "//",
    };
    g_autoptr(BlkContext) ctx = new_context();
    guint32 seed = 4711;
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    unsigned accepted = 0;

    g_print("# seed %u\n", seed);
    for (unsigned i = 0; i < 20000; i++) {
        g_autoptr(GString) name = g_string_new(NULL);
        g_autoptr(GError) error = NULL;
        g_autoptr(JsonObject) tree = NULL;

        for (int n = g_rand_int_range(rand, 0, 8); n > 0; n--) {
            g_string_append(name, parts[g_rand_int_range(rand, 0, G_N_ELEMENTS(parts))]);
        }
        tree = blk_options_parse_filename(ctx, name->str, i % 2 == 0 ? "raw" : NULL, &error);
        ck_assert((tree == NULL) == (error != NULL));
        accepted += tree != NULL;
    }
    ck_assert_uint_gt(accepted, 1000);
}
END_TEST

BLK_TEST_MAIN("filename", test_names, test_prefixes, test_json_names, test_protocol_refuses_json, test_resolve,
              test_resolve_refuses, test_random_names)
