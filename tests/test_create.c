/* SPDX-License-Identifier: MIT */
/*
 * test_create.c - creation of images: what is refused before a file is touched, and what reaches format and protocol.
 */
#include "test.h"

#include <core/options.h>
#include <glib/gstdio.h>
#include <unistd.h>

static const BlkOption box_create_options[] = {
    { "size", BLK_OPTION_SIZE, "length", .required = true },
    { "label", BLK_OPTION_STRING, "first bytes", .default_text = "box" },
    { NULL },
};

static int box_check_create(const BlkOptions *options, GError **error)
{
    return blk_options_uint(options, "size") % 2 != 0 ? blk_error(error, -EINVAL, "box: the size must be even") : 0;
}

static int box_co_create(BlkContext *ctx, BlkNode *file, const BlkOptions *options, GError **error)
{
    const char *label = blk_options_string(options, "label");
    int ret;

    ck_assert_uint_eq(blk_node_length(file), 0);
    ret = blk_co_truncate(file, blk_options_uint(options, "size"), BLK_PREALLOC_OFF, error);
    if (strcmp(label, "fail") == 0) {
        return blk_error(error, -ENOSPC, "box: told to fail");
    }
    return ret < 0 ? ret : blk_co_pwrite(file, 0, strlen(label), label, 0);
}

static const BlkDriver box = {
    .name = "box", .kind = BLK_FORMAT, .create_options = box_create_options, .check_create = box_check_create,
    .co_create = box_co_create,
};

typedef struct Fixture {
    BlkContext *ctx;
    char *directory, *path;
    const char *name, *format, *options;    /* what is to be created */
    GError *error;
} Fixture;

static void fixture_init(Fixture *f)
{
    GError *error = NULL;

    *f = (Fixture){ .ctx = blk_context_new(NULL, &error), .directory = g_dir_make_tmp("blk-create-XXXXXX", NULL) };
    ck_assert_msg(f->ctx != NULL, "%s", error != NULL ? error->message : "");
    ck_assert_ptr_nonnull(f->directory);
    f->path = g_build_filename(f->directory, "image", NULL);
    ck_assert_int_eq(blk_driver_register(f->ctx, &box, &error), 0);
}

static void fixture_clear(Fixture *f)
{
    g_remove(f->path);
    g_rmdir(f->directory);
    g_free(f->path);
    g_free(f->directory);
    blk_context_free(f->ctx);
}

static int co_create(void *opaque)
{
    Fixture *f = opaque;
    g_autoptr(JsonObject) options = blk_json_parse_object(f->options, -1, "test", NULL);

    ck_assert_ptr_nonnull(options);
    return blk_co_create(f->ctx, f->name, f->format, options, &f->error);
}

static void create(Fixture *f, const char *name, const char *format, const char *options)
{
    f->name = name;
    f->format = format;
    f->options = options;
    ck_assert_int_eq(blk_run(f->ctx, co_create, f), 0);
    ck_assert_ptr_null(f->error);
}

static void check_refused(Fixture *f, const char *name, const char *format, const char *options, const char *message)
{
    f->name = name;
    f->format = format;
    f->options = options;
    ck_assert_int_lt(blk_run(f->ctx, co_create, f), 0);
    ck_assert_ptr_nonnull(f->error);
    ck_assert_msg(strstr(f->error->message, message) != NULL, "%s\nnot: %s", f->error->message, message);
    g_clear_error(&f->error);
}

static void check_content(const Fixture *f, const char *begin, gsize length)
{
    g_autofree char *content = NULL;
    gsize bytes;

    ck_assert(g_file_get_contents(f->path, &content, &bytes, NULL));
    ck_assert_uint_eq(bytes, length);
    ck_assert(memcmp(content, begin, MIN(strlen(begin), length)) == 0);
}

START_TEST(test_creates)
{
    Fixture f;

    fixture_init(&f);
    create(&f, f.path, "box", "{'size':'4k'}");
    check_content(&f, "box", 4096);
    create(&f, f.path, "box", "{'size':512,'label':'new','nocow':'off'}");
    check_content(&f, "new", 512);
    create(&f, f.path, "raw", "{'size':'8k'}");
    check_content(&f, "", 8192);
    fixture_clear(&f);
}
END_TEST

/* With wrong options nothing happens to a file that is there, nor is one made. */
START_TEST(test_wrong_options_touch_nothing)
{
    static const struct { const char *options, *message; } wrong[] = {
        { "{}", "creating 'box': option 'size' is required" },
        { "{'size':'x'}", "creating 'box': option 'size' must be a size" },
        { "{'size':511}", "box: the size must be even" },
        { "{'size':512,'lable':'x'}", "unknown option 'lable'; did you mean 'label'?" },
        { "{'size':512,'nocov':'on'}", "unknown option 'nocov'; did you mean 'nocow'?" },
        { "{'size':512,'nocow':'x'}", "option 'nocow' must be on or off" },
        { "{'size':512,'preallocation':'x'}", "option 'preallocation' must be one of" },
    };
    Fixture f;

    fixture_init(&f);
    for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++) {
        check_refused(&f, f.path, "box", wrong[i].options, wrong[i].message);
        ck_assert(!g_file_test(f.path, G_FILE_TEST_EXISTS));
    }
    ck_assert(g_file_set_contents(f.path, "precious", -1, NULL));
    for (size_t i = 0; i < G_N_ELEMENTS(wrong); i++) {
        check_refused(&f, f.path, "box", wrong[i].options, wrong[i].message);
        check_content(&f, "precious", 8);
    }
    fixture_clear(&f);
}
END_TEST

START_TEST(test_wrong_names_and_formats)
{
    Fixture f;

    fixture_init(&f);
    check_refused(&f, f.path, "nope", "{'size':512}", "Unknown file format 'nope' (images can be created as: ");
    check_refused(&f, f.path, "nope", "{'size':512}", "box");
    check_refused(&f, f.path, "null-co", "{'size':512}", "Format driver 'null-co' does not support image creation");
    check_refused(&f, f.path, "compress", "{'size':512}", "Format driver 'compress' does not support image creation");
    check_refused(&f, "json:{'driver':'file','filename':'x'}", "box", "{'size':512}", "A json: name says how to open");
    check_refused(&f, "nope:x", "box", "{'size':512}", "Unknown protocol 'nope'");
    check_refused(&f, "null-co://", "box", "{'size':512}", "Protocol driver 'null-co' does not support image creation");
    check_refused(&f, "", "box", "{'size':512}", "A file name is missing");
    check_refused(&f, "/nonexistent/x", "box", "{'size':512}", "No such file or directory");
    ck_assert(!g_file_test(f.path, G_FILE_TEST_EXISTS));
    fixture_clear(&f);
}
END_TEST

/* What was made goes away; what was there stays, without half an image. */
START_TEST(test_format_fails)
{
    Fixture f;
    g_autofree char *link = NULL;

    fixture_init(&f);
    check_refused(&f, f.path, "box", "{'size':512,'label':'fail'}", "box: told to fail");
    ck_assert(!g_file_test(f.path, G_FILE_TEST_EXISTS));
    ck_assert(g_file_set_contents(f.path, "precious", -1, NULL));
    check_refused(&f, f.path, "box", "{'size':512,'label':'fail'}", "box: told to fail");
    check_content(&f, "", 0);
    link = g_build_filename(f.directory, "link", NULL);
    ck_assert_int_eq(symlink(f.path, link), 0);
    check_refused(&f, link, "box", "{'size':512,'label':'fail'}", "box: told to fail");
    check_content(&f, "", 0);
    ck_assert(g_file_test(link, G_FILE_TEST_IS_SYMLINK));
    g_remove(link);
    create(&f, f.path, "box", "{'size':512}");
    check_content(&f, "box", 512);
    fixture_clear(&f);
}
END_TEST

typedef struct InNode {
    Fixture *f;
    const char *options, *message;      /* NULL: it works */
    unsigned other_perm;                /* of somebody else who uses the node; 0: nobody does */
} InNode;

static int co_create_in(void *opaque)
{
    const InNode *in = opaque;
    g_autoptr(JsonObject) options = blk_json_parse_object(in->options, -1, "test", NULL);
    g_autoptr(JsonObject) tree = blk_options_parse_filename(in->f->ctx, in->f->path, "raw", NULL);
    g_autoptr(GError) error = NULL;
    BlkNode *node = blk_co_open(in->f->ctx, json_object_get_object_member(tree, "file"), NULL);
    BlkChild *other = in->other_perm ? blk_co_attach(node, "other", in->other_perm, BLK_PERM_ALL, NULL) : NULL;
    int ret = blk_co_create_in(node, "box", options, &error);

    ck_assert(in->message ? ret < 0 && strstr(error->message, in->message) != NULL : ret == 0);
    blk_co_detach(other);
    blk_co_unref(node);
    return 0;
}

static void create_in(Fixture *f, const char *options, unsigned other_perm, const char *message)
{
    InNode in = { f, options, message, other_perm };

    blk_run(f->ctx, co_create_in, &in);
}

START_TEST(test_creates_in_a_node)
{
    Fixture f;

    fixture_init(&f);
    ck_assert(g_file_set_contents(f.path, "precious", -1, NULL));
    create_in(&f, "{'size':512,'lable':'x'}", 0, "did you mean 'label'?");
    create_in(&f, "{'size':512,'nocow':'off'}", 0, "unknown option 'nocow'");
    create_in(&f, "{'size':511}", 0, "box: the size must be even");
    create_in(&f, "{'size':512}", BLK_PERM_WRITE, "Conflicts with use by");
    check_content(&f, "precious", 8);
    create_in(&f, "{'size':1024}", 0, NULL);
    check_content(&f, "box", 1024);
    create_in(&f, "{'size':512,'label':'fail'}", 0, "box: told to fail");
    check_content(&f, "", 0);
    fixture_clear(&f);
}
END_TEST

BLK_TEST_MAIN("create", test_creates_in_a_node, test_creates, test_wrong_options_touch_nothing, test_wrong_names_and_formats, test_format_fails)
