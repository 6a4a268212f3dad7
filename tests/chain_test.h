/* SPDX-License-Identifier: MIT */
/*
 * chain_test.h - what tests of jobs on chains share: a chain n0 <- n1 <- n2 <- n3 of qcow2 images, and the jobs.
 *
 *     n3 ──> n2 ──> n1 ──> n0        each: qcow2 "n?" (──> fault "f?") ──> file "p?" ──> n?.qcow2
 */
#ifndef BLKSTACK_CHAIN_TEST_H
#define BLKSTACK_CHAIN_TEST_H

#include "node_test.h"

#include "jobs/commit_job.h"
#include "jobs/mirror.h"
#include "jobs/stream.h"

enum { CLUSTER = 65536, IMAGES = 4, TOP = IMAGES - 1 };

typedef enum JobKind { STREAM, COMMIT, ACTIVE_COMMIT, MIRROR, JOB_KINDS } JobKind;

static inline void create_image(Test *t, const char *name, uint64_t length, const char *backing)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonObject) options = json_object_new();
    g_autofree char *path = g_build_filename(t->dir, name, NULL);

    json_object_set_int_member(options, "size", (gint64)length);
    if (backing) {
        json_object_set_string_member(options, "backing_file", backing);
        json_object_set_string_member(options, "backing_fmt", "qcow2");
    }
    int ret = blk_co_create(t->ctx, path, "qcow2", options, &error);
    ck_assert_msg(ret == 0, "%s", error ? error->message : "no message");
}

/* n0 to n3, empty; the header of each names the one below. */
static inline void create_chain(Test *t, const uint64_t lengths[IMAGES])
{
    for (unsigned i = 0; i < IMAGES; i++) {
        g_autofree char *name = g_strdup_printf("n%u.qcow2", i), *below = g_strdup_printf("n%u.qcow2", i - 1);

        create_image(t, name, lengths[i], i > 0 ? below : NULL);
    }
}

/* The image @top with all below it. @rules: (nullable): for each image (nullable) the rules of a fault filter above its file. */
static inline BlkChild *open_chain(Test *t, unsigned top, const char *const rules[IMAGES])
{
    g_autofree char *below = g_strdup("null");

    for (unsigned i = 0; i <= top; i++) {
        g_autofree char *plain = g_strdup_printf("{\"driver\": \"file\", \"node-name\": \"p%u\", \"filename\": "
                                                 "\"@/n%u.qcow2\"}", i, i);
        g_autofree char *file = rules && rules[i]
            ? g_strdup_printf("{\"driver\": \"fault\", \"node-name\": \"f%u\", \"inject-error\": [%s], \"image\": %s}", i,
                              rules[i], plain) : g_strdup(plain);
        char *text = g_strdup_printf("{\"driver\": \"qcow2\", \"node-name\": \"n%u\", \"read-only\": %s, \"file\": %s, "
                                     "\"backing\": %s}", i, i == top ? "false" : "true", file, below);
        g_free(below);
        below = text;
    }
    return open_for(t, BLK_PERM_READ | BLK_PERM_WRITE, below);
}

/* As its header says. */
static inline BlkChild *open_by_header(Test *t, unsigned image)
{
    g_autofree char *text = g_strdup_printf("{\"driver\": \"qcow2\", \"read-only\": true, \"file\": {\"driver\": \"file\", "
                                            "\"filename\": \"@/n%u.qcow2\"}}", image);

    return open_for(t, BLK_PERM_READ, text);
}

/* Data in the clusters @clusters of @image, a string of digits; the bytes are @pattern. */
static inline void write_clusters(Test *t, unsigned image, const char *clusters, uint8_t pattern)
{
    BlkChild *user = open_chain(t, image, NULL);

    for (const char *c = clusters; *c; c++) {
        write_pattern(user, (uint64_t)(*c - '0') * CLUSTER, CLUSTER, pattern);
    }
    blk_co_detach(user);
}

/* All that is read. */
static inline GByteArray *content_of(BlkNode *node)
{
    GByteArray *content = g_byte_array_new();

    g_byte_array_set_size(content, (guint)blk_node_length(node));
    if (content->len > 0) {
        ck_assert_int_eq(blk_co_pread(node, 0, content->len, content->data, 0), 0);
    }
    return content;
}

static inline void expect_content(BlkNode *node, const GByteArray *wanted, const char *what)
{
    g_autoptr(GByteArray) content = content_of(node);

    ck_assert_msg(content->len == wanted->len, "%s: %u bytes, not %u", what, content->len, wanted->len);
    for (guint i = 0; i < content->len; i++) {
        if (content->data[i] != wanted->data[i]) {
            ck_abort_msg("%s: byte %u is %02x, not %02x", what, i, content->data[i], wanted->data[i]);
        }
    }
}

/* The image as its header says, with @backing (a file's name; NULL: none). */
static inline void expect_file(Test *t, unsigned image, const char *backing, const GByteArray *wanted, const char *what)
{
    BlkChild *user = open_by_header(t, image);
    BlkInfo info;
    BlkCheckResult result = { 0 };
    const BlkCheckOptions options = { 0 };

    ck_assert_int_eq(blk_co_info(blk_child_node(user), &info, NULL), 0);
    ck_assert_msg(g_strcmp0(info.backing_filename, backing) == 0, "%s: the backing file is %s", what, info.backing_filename);
    blk_info_clear(&info);
    expect_content(blk_child_node(user), wanted, what);
    ck_assert_int_eq(blk_co_check(blk_child_node(user), &options, &result, NULL), 0);
    ck_assert_uint_eq(result.corruptions + result.leaks + result.check_errors, 0);
    blk_co_detach(user);
}

/* ---- jobs ---- */

/* stream: n1 and n2 into n3; commit: n1 and n2 into n0; active commit: all into n0; mirror: n3 into the node "target". */
static inline BlkJob *try_job(Test *t, JobKind kind, const BlkJobOptions *options, GError **error)
{
    BlkNode *top = blk_node_find(t->ctx, "n3"), *base = blk_node_find(t->ctx, "n0");
    const BlkStreamOptions stream = { .device = top, .base = base };
    const BlkCommitJobOptions commit = { .top = blk_node_find(t->ctx, "n2"), .base = base };
    const BlkMirrorOptions active = { .job = *options, .source = top, .target = base, .commit = true };
    const BlkMirrorOptions mirror = { .job = *options, .source = top, .target = blk_node_find(t->ctx, "target") };

    switch (kind) {
    case STREAM:
        return blk_co_stream_new(&stream, options, error);
    case COMMIT:
        return blk_co_commit_job_new(&commit, options, error);
    case ACTIVE_COMMIT:
        return blk_co_mirror_job_new(&active, error);
    default:
        return blk_co_mirror_job_new(&mirror, error);
    }
}

/* A reference, which ends with end_job(). */
static inline BlkJob *new_job(Test *t, JobKind kind, const BlkJobOptions *options)
{
    g_autoptr(GError) error = NULL;
    BlkJob *job = try_job(t, kind, options, &error);

    ck_assert_msg(job != NULL, "%s", error ? error->message : "no message");
    return blk_job_ref(job);
}

static inline BlkJobInfo job_info(const BlkJob *job)
{
    BlkJobInfo info;

    blk_job_info(job, &info);
    return info;
}

static inline void wait_for_status(const BlkJob *job, BlkJobStatus status)
{
    for (unsigned i = 0; i < 20000 && job_info(job).status != status && job_info(job).status != BLK_JOB_CONCLUDED; i++) {
        blk_co_sleep_ns(1000000);
    }
    ck_assert_msg(job_info(job).status == status, "%s, not %s: %s", blk_job_status_name(job_info(job).status),
                  blk_job_status_name(status), job_info(job).error ? job_info(job).error : "no error");
}

/* Its result. One that has to be completed is. */
static inline int finish_job(JobKind kind, BlkJob *job)
{
    if (kind == ACTIVE_COMMIT || kind == MIRROR) {
        for (unsigned i = 0; i < 20000 && job_info(job).status < BLK_JOB_READY; i++) {
            blk_co_sleep_ns(1000000);
        }
        blk_job_complete(job, NULL);
    }
    return blk_co_job_wait(job);
}

static inline void end_job(BlkJob *job)
{
    blk_co_job_wait(job);
    blk_job_dismiss(job, NULL);
    blk_job_unref(job);
}

/* The target of a mirror, without users; its file is the node "pt". It goes with blk_co_unref(). */
static inline BlkNode *open_target(Test *t, uint64_t length)
{
    g_autoptr(GError) error = NULL;

    create_image(t, "target.qcow2", length, NULL);
    BlkNode *node = try_open(t, "{\"driver\": \"qcow2\", \"node-name\": \"target\", \"file\": {\"driver\": \"file\", "
                             "\"node-name\": \"pt\", \"filename\": \"@/target.qcow2\"}}", &error);
    ck_assert_msg(node != NULL, "%s", error ? error->message : "no message");
    return node;
}

/* From now on requests of the node @name fail by @rules, until blk_co_remove_filter() and blk_co_unref(). */
static inline BlkNode *insert_fault(Test *t, const char *name, const char *rules)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *text = g_strdup_printf("{\"driver\": \"fault\", \"node-name\": \"bad\", \"image\": \"%s\", "
                                            "\"inject-error\": [%s]}", name, rules);
    BlkNode *filter = try_open(t, text, &error);

    ck_assert_msg(filter != NULL, "%s", error ? error->message : "no message");
    int ret = blk_co_insert_above(blk_node_find(t->ctx, name), filter, &error);
    ck_assert_msg(ret == 0, "%s", error ? error->message : "no message");
    return filter;
}

static inline void remove_fault(BlkNode *filter)
{
    ck_assert_int_eq(blk_co_remove_filter(filter, NULL), 0);
    blk_co_unref(filter);
}

#endif
