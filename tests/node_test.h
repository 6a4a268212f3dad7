/* SPDX-License-Identifier: MIT */
/*
 * node_test.h - tests that run in a coroutine, with a context and a scratch directory of their own: CO_TEST(name) { ... }
 * with `Test *t`; the name goes to BLK_TEST_MAIN.
 */
#ifndef BLKSTACK_NODE_TEST_H
#define BLKSTACK_NODE_TEST_H

#include "test.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct Test {
    BlkContext *ctx;
    char *dir;
} Test;

static inline void test_run(int (*co_test)(void *opaque))
{
    Test t = { .ctx = blk_context_new(NULL, NULL), .dir = g_dir_make_tmp("blkstack-XXXXXX", NULL) };

    ck_assert_ptr_nonnull(t.ctx);
    ck_assert_ptr_nonnull(t.dir);
    blk_run(t.ctx, co_test, &t);
    blk_context_free(t.ctx);

    GDir *dir = g_dir_open(t.dir, 0, NULL);
    const char *name;
    while ((name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(t.dir, name, NULL);
        g_unlink(path);
    }
    g_dir_close(dir);
    g_rmdir(t.dir);
    g_free(t.dir);
}

#define CO_TEST(name)                           \
    static void name##_body(Test *t);           \
    static int name##_co(void *opaque)          \
    {                                           \
        name##_body(opaque);                    \
        return 0;                               \
    }                                           \
    START_TEST(name)                            \
    {                                           \
        test_run(name##_co);                    \
    }                                           \
    END_TEST                                    \
    static void name##_body(Test *t)

/* Each '@' in the text stands for the scratch directory. (transfer full) */
static inline char *test_text(Test *t, const char *text)
{
    g_auto(GStrv) parts = g_strsplit(text, "@", -1);

    return g_strjoinv(t->dir, parts);
}

static inline BlkNode *try_open(Test *t, const char *json, GError **error)
{
    g_autofree char *text = test_text(t, json);
    g_autoptr(JsonObject) options = blk_json_parse_object(text, -1, "test", error);

    return options ? blk_co_open(t->ctx, options, error) : NULL;
}

/* A node and a user edge that may do @perm; both go with blk_co_detach(). */
static inline BlkChild *open_for(Test *t, unsigned perm, const char *json)
{
    g_autoptr(GError) error = NULL;
    BlkNode *node = try_open(t, json, &error);

    ck_assert_msg(node != NULL, "%s: %s", json, error ? error->message : "no message");
    BlkChild *user = blk_co_attach(node, "test", perm, BLK_PERM_ALL, &error);
    ck_assert_msg(user != NULL, "%s: %s", json, error ? error->message : "no message");
    blk_co_unref(node);
    return user;
}

static inline BlkChild *open_rw(Test *t, const char *json)
{
    return open_for(t, BLK_PERM_ALL, json);
}

/* Opening fails with a message that contains @text. */
static inline void refused(Test *t, const char *json, const char *message)
{
    g_autoptr(GError) error = NULL;

    ck_assert_ptr_null(try_open(t, json, &error));
    ck_assert_ptr_nonnull(error);
    ck_assert_msg(strstr(error->message, message) != NULL, "%s", error->message);
}

static inline void write_pattern(BlkChild *user, uint64_t offset, size_t bytes, uint8_t pattern)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    memset(buf, pattern, bytes);
    ck_assert_int_eq(blk_co_pwrite(blk_child_node(user), offset, bytes, buf, 0), 0);
}

static inline void expect_pattern(BlkChild *user, uint64_t offset, size_t bytes, uint8_t pattern)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    memset(buf, ~pattern, bytes);
    ck_assert_int_eq(blk_co_pread(blk_child_node(user), offset, bytes, buf, 0), 0);
    for (size_t i = 0; i < bytes; i++) {
        if (buf[i] != pattern) {        /* an assertion for each byte takes long */
            ck_abort_msg("byte %zu is %02x, not %02x", (size_t)offset + i, buf[i], pattern);
        }
    }
}

/* A file of @bytes bytes, of which the first @data have the value @pattern. */
static inline void make_file(Test *t, const char *name, uint64_t bytes, size_t data, uint8_t pattern)
{
    g_autofree char *path = g_build_filename(t->dir, name, NULL);
    g_autofree uint8_t *buf = g_malloc(data + 1);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    ck_assert_int_ge(fd, 0);
    if (data > 0) {
        memset(buf, pattern, data);
    }
    ck_assert_int_eq(write(fd, buf, data), data);
    ck_assert_int_eq(ftruncate(fd, bytes), 0);
    close(fd);
}

static inline struct stat stat_file(Test *t, const char *name)
{
    g_autofree char *path = g_build_filename(t->dir, name, NULL);
    struct stat st = { 0 };

    ck_assert_int_eq(stat(path, &st), 0);
    return st;
}

#endif
