/* SPDX-License-Identifier: MIT */
/* test_chain_job.c - what stream and commit copy from where, and what they leave when they are refused, fail or are cancelled. */
#include "chain_test.h"

#include "jobs/mirror.h"

#include <inttypes.h>

static const uint64_t equal[IMAGES] = { 8 * CLUSTER, 8 * CLUSTER, 8 * CLUSTER, 8 * CLUSTER };
static const BlkJobOptions plain_options = { .id = "job", .auto_finalize = true };

/* n0: 0 1 2 3, n1: 2 3 4, n2: 4 5, n3: 5 6. */
static GByteArray *make_chain(Test *t, const uint64_t lengths[IMAGES])
{
    create_chain(t, lengths);
    write_clusters(t, 0, "0123", 0xb0);
    write_clusters(t, 1, "234", 0xb1);
    write_clusters(t, 2, "45", 0xb2);
    write_clusters(t, 3, "56", 0xb3);
    BlkChild *user = open_chain(t, TOP, NULL);
    GByteArray *content = content_of(blk_child_node(user));
    blk_co_detach(user);
    return content;
}

static BlkNode *node(Test *t, unsigned image)
{
    g_autofree char *name = g_strdup_printf("n%u", image);

    return blk_node_find(t->ctx, name);
}

/* Which clusters the image has itself, as digits. (transfer full) */
static char *own_clusters(BlkNode *image)
{
    GString *own = g_string_new(NULL);

    for (uint64_t offset = 0; offset < blk_node_length(image); offset += CLUSTER) {
        BlkStatus status;

        ck_assert_int_eq(blk_co_block_status(image, offset, 1, &status), 0);
        if (status.flags & BLK_STATUS_ALLOCATED) {
            g_string_append_c(own, (char)('0' + offset / CLUSTER));
        }
    }
    return g_string_free(own, FALSE);
}

static void expect_own(BlkNode *image, const char *wanted)
{
    g_autofree char *own = own_clusters(image);

    ck_assert_str_eq(own, wanted);
}

/* ---- chain.c ---- */

CO_TEST(images_of_a_chain)
{
    g_autoptr(GByteArray) content = make_chain(t, equal);
    BlkChild *user = open_chain(t, TOP, NULL);
    g_autofree char *absolute = test_text(t, "@/n1.qcow2"), *indirect = test_text(t, "@/./n1.qcow2");
    g_autofree char *elsewhere = test_text(t, "@/x/n1.qcow2"), *own = test_text(t, "@/n3.qcow2");

    ck_assert_ptr_eq(blk_chain_below(node(t, 3)), node(t, 2));
    ck_assert_ptr_null(blk_chain_below(node(t, 0)));
    ck_assert(blk_chain_has(node(t, 3), node(t, 3)) && blk_chain_has(node(t, 3), node(t, 0)));
    ck_assert(!blk_chain_has(node(t, 1), node(t, 2)) && !blk_chain_has(node(t, 3), blk_node_find(t->ctx, "p1")));
    ck_assert_ptr_eq(blk_co_chain_find(node(t, 3), "n1.qcow2"), node(t, 1));        /* as the header of n2 says */
    ck_assert_ptr_eq(blk_co_chain_find(node(t, 3), absolute), node(t, 1));
    ck_assert_ptr_eq(blk_co_chain_find(node(t, 3), indirect), node(t, 1));
    ck_assert_ptr_eq(blk_co_chain_find(node(t, 3), own), node(t, 3));
    ck_assert_ptr_null(blk_co_chain_find(node(t, 3), elsewhere));
    ck_assert_ptr_null(blk_co_chain_find(node(t, 0), "n1.qcow2"));
    ck_assert_ptr_null(blk_co_chain_find(node(t, 3), ""));

    g_autoptr(GPtrArray) overlays = blk_chain_overlays(node(t, 1)), none = blk_chain_overlays(node(t, 3));
    ck_assert(overlays->len == 1 && overlays->pdata[0] == node(t, 2) && none->len == 0);
    blk_co_detach(user);
}

/* Nothing in the middle of it stays when a later node cannot be changed. */
CO_TEST(writable_and_as_before)
{
    g_autoptr(GByteArray) content = make_chain(t, equal);
    g_autoptr(GArray) changed = blk_chain_changes_new();
    BlkChild *user = open_chain(t, TOP, NULL);

    ck_assert_int_eq(blk_co_chain_make(node(t, 0), true, changed, NULL), 0);
    ck_assert_int_eq(blk_co_chain_make(node(t, 0), true, changed, NULL), 0);
    ck_assert_int_eq(blk_co_chain_make(node(t, 3), true, changed, NULL), 0);
    ck_assert_uint_eq(changed->len, 1);
    ck_assert(!blk_node_read_only(node(t, 0)));
    blk_co_chain_make_as_before(changed, false);
    ck_assert_uint_eq(changed->len, 0);
    ck_assert(blk_node_read_only(node(t, 0)) && !blk_node_read_only(node(t, 3)));
    blk_co_detach(user);
}

/* How a header names its backing: as given, or found from where the overlay lies; the format of one without: "raw" if asked for. */
CO_TEST(names_in_headers)
{
    g_autoptr(GByteArray) content = make_chain(t, equal);
    g_autofree char *absolute = test_text(t, "@/n0.qcow2"), *raw = test_text(t, "@/n0.raw");
    const struct { BlkChainName as; const char *name; } cases[] = {
        { { NULL, false }, absolute }, { { "over/there", false }, "over/there" }, { { NULL, true }, absolute },
    };
    BlkChild *user = open_chain(t, TOP, NULL);
    BlkInfo info;

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        ck_assert_int_eq(blk_co_chain_set_backing(node(t, 1), node(t, 0), &cases[i].as, NULL), 0);
        ck_assert_int_eq(blk_co_info(node(t, 1), &info, NULL), 0);
        ck_assert_str_eq(info.backing_filename, cases[i].name);
        ck_assert_str_eq(info.backing_format, "qcow2");
        blk_info_clear(&info);
        ck_assert(blk_node_read_only(node(t, 1)));
    }
    make_file(t, "n0.raw", 8 * CLUSTER, 0, 0);
    for (unsigned mask = 0; mask < 2; mask++) {
        BlkNode *file = try_open(t, "{\"driver\": \"file\", \"node-name\": \"r\", \"filename\": \"@/n0.raw\", \"read-only\": true}",
                                 NULL);

        ck_assert_int_eq(blk_co_chain_set_backing(node(t, 1), file, &(BlkChainName) { NULL, mask }, NULL), 0);
        blk_co_unref(file);
        ck_assert_int_eq(blk_co_info(node(t, 1), &info, NULL), 0);
        ck_assert_str_eq(info.backing_filename, raw);
        ck_assert_str_eq(info.backing_format, mask ? "raw" : "file");
        blk_info_clear(&info);
        ck_assert_int_eq(blk_co_chain_set_backing(node(t, 1), NULL, &(BlkChainName) { NULL, false }, NULL), 0);
        ck_assert_ptr_null(node(t, 0));
        ck_assert_int_eq(blk_co_info(node(t, 1), &info, NULL), 0);
        ck_assert_ptr_null(info.backing_filename);
        blk_info_clear(&info);
    }
    blk_co_detach(user);
}

/* ---- what is copied ---- */

CO_TEST(stream_down_to_each_base)
{
    static const struct { int base; const char *own; } cases[] = {
        { 2, "56" }, { 1, "456" }, { 0, "23456" }, { -1, "0123456" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GByteArray) content = make_chain(t, equal);
        BlkChild *user = open_chain(t, TOP, NULL);
        BlkNode *base = cases[i].base < 0 ? NULL : node(t, (unsigned)cases[i].base);
        g_autofree char *name = g_strdup_printf("@/n%d.qcow2", cases[i].base), *file = test_text(t, name);
        const BlkStreamOptions stream = { .device = node(t, TOP), .base = base };
        BlkJob *job = blk_job_ref(blk_co_stream_new(&stream, &plain_options, NULL));

        blk_job_start(job);
        ck_assert_int_eq(blk_co_job_wait(job), 0);
        ck_assert_ptr_eq(blk_chain_below(node(t, TOP)), base);
        expect_own(node(t, TOP), cases[i].own);
        expect_content(node(t, TOP), content, "streamed");
        end_job(job);
        blk_co_detach(user);
        /* an image that is its backing already keeps the name that it has */
        expect_file(t, TOP, !base ? NULL : file, content, "streamed, from its file");
    }
}

/* What the image has itself is neither read nor written. */
CO_TEST(stream_leaves_alone_what_is_there)
{
    static const char *const rules[IMAGES] = { [TOP] = "{\"event\": \"read_aio\", \"errno\": 5}" };
    g_autoptr(GByteArray) content = make_chain(t, equal);
    BlkChild *user = open_chain(t, TOP, rules);
    BlkJob *job = new_job(t, STREAM, &plain_options);

    blk_job_start(job);
    ck_assert_int_eq(blk_co_job_wait(job), 0);
    end_job(job);
    blk_co_detach(user);
    user = open_by_header(t, TOP);
    expect_content(blk_child_node(user), content, "streamed");
    blk_co_detach(user);
}

CO_TEST(commit_from_each_top_into_each_base)
{
    static const struct { unsigned top, base; const char *own; } cases[] = {
        { 1, 0, "01234" }, { 2, 0, "012345" }, { 2, 1, "2345" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GByteArray) content = make_chain(t, equal);
        BlkChild *user = open_chain(t, TOP, NULL);
        g_autoptr(GByteArray) shown = content_of(node(t, cases[i].top));
        BlkNode *above = node(t, cases[i].top + 1);
        const BlkCommitJobOptions commit = { .top = node(t, cases[i].top), .base = node(t, cases[i].base) };
        BlkJob *job = blk_job_ref(blk_co_commit_job_new(&commit, &plain_options, NULL));

        blk_job_start(job);
        ck_assert_int_eq(blk_co_job_wait(job), 0);
        ck_assert_ptr_eq(blk_chain_below(above), node(t, cases[i].base));
        expect_own(node(t, cases[i].base), cases[i].own);
        expect_content(node(t, cases[i].base), shown, "the base shows what the top did");
        expect_content(node(t, TOP), content, "committed");
        ck_assert(blk_node_read_only(node(t, cases[i].base)));
        end_job(job);
        blk_co_detach(user);
        BlkChild *again = open_by_header(t, TOP);
        expect_content(blk_child_node(again), content, "committed, from the files");
        blk_co_detach(again);
    }
}

/* ---- random lengths and contents ---- */

static void random_writes(Test *t, unsigned image, GRand *rng)
{
    BlkChild *user = open_chain(t, image, NULL);
    BlkNode *n = blk_child_node(user);
    uint64_t sectors = blk_node_length(n) / 512;

    for (int i = sectors ? g_rand_int_range(rng, 0, 6) : 0; i > 0; i--) {
        uint64_t offset = g_rand_int_range(rng, 0, (gint32)sectors) * UINT64_C(512);
        uint64_t bytes = g_rand_int_range(rng, 1, 300) * UINT64_C(512);

        bytes = MIN(bytes, sectors * 512 - offset);
        if (g_rand_int_range(rng, 0, 4) == 0) {
            ck_assert_int_eq(blk_co_pwrite_zeroes(n, offset, bytes, BLK_REQ_UNMAP), 0);
        } else {
            write_pattern(user, offset, bytes, (uint8_t)g_rand_int_range(rng, 1, 256));
        }
    }
    blk_co_detach(user);
}

/* What the base of a commit has to show: what @top showed, and behind its end what it had, unless @overlay reads zeroes there. */
static void expect_base(BlkNode *base, const GByteArray *before, const GByteArray *top, uint64_t overlay)
{
    g_autoptr(GByteArray) wanted = g_byte_array_new();

    g_byte_array_append(wanted, top->data, top->len);
    if (before->len > top->len) {
        g_byte_array_append(wanted, before->data + top->len, before->len - top->len);
    }
    if (overlay > top->len && wanted->len > top->len) {
        memset(wanted->data + top->len, 0, MIN(overlay, wanted->len) - top->len);
    }
    expect_content(base, wanted, "the base");
}

static void random_round(Test *t, GRand *rng, bool commits)
{
    uint64_t lengths[IMAGES];

    for (unsigned i = 0; i < IMAGES; i++) {
        lengths[i] = g_rand_int_range(rng, 0, 6) == 0 ? 0 : g_rand_int_range(rng, 1, 8 * CLUSTER / 512) * UINT64_C(512);
    }
    create_chain(t, lengths);
    for (unsigned i = 0; i < IMAGES; i++) {
        random_writes(t, i, rng);
    }
    BlkChild *user = open_chain(t, TOP, NULL);
    int base = g_rand_int_range(rng, commits ? 0 : -1, commits ? 2 : TOP), top = commits ? g_rand_int_range(rng, base + 1, TOP) : TOP;
    g_autoptr(GByteArray) content = content_of(node(t, TOP)), shown = content_of(node(t, (unsigned)top));
    g_autoptr(GByteArray) had = content_of(node(t, (unsigned)MAX(base, 0)));
    const BlkStreamOptions stream = { .device = node(t, TOP), .base = base < 0 ? NULL : node(t, (unsigned)base) };
    const BlkCommitJobOptions commit = { .top = node(t, (unsigned)top), .base = node(t, (unsigned)MAX(base, 0)) };
    BlkJob *job = commits ? blk_co_commit_job_new(&commit, &plain_options, NULL)
                          : blk_co_stream_new(&stream, &plain_options, NULL);

    printf("# %s, images of %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 ", base %d, top %d\n", commits ? "commit" : "stream",
           lengths[0], lengths[1], lengths[2], lengths[3], base, top);
    ck_assert_ptr_nonnull(job);
    blk_job_ref(job);
    blk_job_start(job);
    ck_assert_int_eq(blk_co_job_wait(job), 0);
    ck_assert_uint_eq(job_info(job).current, job_info(job).total);
    expect_content(node(t, TOP), content, "the topmost image");
    if (commits) {
        expect_base(node(t, (unsigned)base), had, shown, lengths[top + 1]);
    }
    end_job(job);
    blk_co_detach(user);
    BlkChild *again = open_by_header(t, TOP);
    expect_content(blk_child_node(again), content, "the topmost image, from the files");
    blk_co_detach(again);
}

static void random_rounds(Test *t, bool commits)
{
    const char *given = g_getenv("SEED");
    guint32 seed = given ? (guint32)g_ascii_strtoull(given, NULL, 0) : g_random_int();
    GRand *rng = g_rand_new_with_seed(seed);

    printf("# SEED=%u\n", seed);
    for (unsigned i = 0; i < 60; i++) {
        random_round(t, rng, commits);
    }
    g_rand_free(rng);
}

CO_TEST(random_streams)
{
    random_rounds(t, false);
}

CO_TEST(random_commits)
{
    random_rounds(t, true);
}

/* ---- refused ---- */

static void refuse_job(Test *t, JobKind kind, const char *message)
{
    g_autoptr(GError) error = NULL;

    ck_assert_ptr_null(try_job(t, kind, &plain_options, &error));
    ck_assert_ptr_nonnull(error);
    ck_assert_str_eq(error->message, message);
    ck_assert_ptr_null(blk_job_nth(t->ctx, 0));
    for (unsigned i = 0; i < TOP; i++) {
        ck_assert(blk_node_read_only(node(t, i)));
    }
    ck_assert_ptr_eq(blk_node_child(node(t, 3), "backing"), node(t, 2));
}

CO_TEST(refused_and_nothing_has_changed)
{
    g_autoptr(GByteArray) content = make_chain(t, equal);
    BlkChild *user = open_chain(t, TOP, NULL);
    BlkNode *top = node(t, TOP);
    g_autoptr(GError) error = NULL;

    ck_assert_ptr_null(blk_co_stream_new(&(BlkStreamOptions) { .device = top }, &(BlkJobOptions) { .id = "1" }, &error));
    ck_assert_str_eq(error->message, "Invalid job ID '1' (a letter, then letters, digits, '-', '.', '_')");
    g_clear_error(&error);

    /* a transaction: what they change at the end cannot be undone */
    BlkJobTxn *txn = blk_job_txn_new();
    const BlkJobOptions grouped = { .id = "grouped", .txn = txn };
    ck_assert_ptr_null(blk_co_stream_new(&(BlkStreamOptions) { .device = top }, &grouped, &error));
    ck_assert_ptr_nonnull(strstr(error->message, "A job of type 'stream' cannot be grouped"));
    g_clear_error(&error);
    ck_assert_ptr_null(blk_co_commit_job_new(&(BlkCommitJobOptions) { .top = node(t, 2), .base = node(t, 0) }, &grouped, &error));
    ck_assert_ptr_nonnull(strstr(error->message, "A job of type 'commit' cannot be grouped"));
    g_clear_error(&error);
    ck_assert_ptr_null(blk_co_mirror_job_new(&(BlkMirrorOptions) { .source = top, .target = node(t, 0), .commit = true, .job = grouped },
                                             &error));
    ck_assert_ptr_nonnull(strstr(error->message, "A job of type 'commit' cannot be grouped"));
    g_clear_error(&error);
    blk_job_txn_unref(txn);

    /* an image between that somebody lets nobody read */
    BlkChild *other = blk_co_attach(node(t, 1), "other", BLK_PERM_READ, BLK_PERM_READ, NULL);
    ck_assert_ptr_nonnull(other);
    ck_assert_ptr_null(blk_co_stream_new(&(BlkStreamOptions) { .device = top, .filter_node_name = "n1" }, &plain_options, &error));
    ck_assert_str_eq(error->message, "Duplicate nodes with node-name='n1'");
    g_clear_error(&error);
    blk_co_detach(other);

    /* a reader of the base that would see what is committed */
    other = blk_co_attach(node(t, 0), "reader", BLK_PERM_READ, BLK_PERM_READ | BLK_PERM_WRITE_UNCHANGED, NULL);
    ck_assert_ptr_nonnull(other);
    refuse_job(t, COMMIT, "Conflicts with use by 'reader' as 'reader', which does not allow 'write' on the node 'n0' that 'commit' "
               "needs");
    refuse_job(t, ACTIVE_COMMIT, "Conflicts with use by 'reader' as 'reader', which does not allow 'write' on the node 'n0' that "
               "'target' needs");
    blk_co_detach(other);

    /* a job is there */
    BlkJob *job = new_job(t, STREAM, &plain_options);
    for (JobKind kind = STREAM; kind < MIRROR; kind++) {
        const BlkJobOptions options = { .id = "second" };

        ck_assert_ptr_null(try_job(t, kind, &options, &error));
        ck_assert_str_eq(error->message, "Node 'n3' is busy: block device is in use by block job: stream");
        g_clear_error(&error);
    }
    ck_assert_int_eq(blk_co_job_cancel(job, true, NULL), 0);
    end_job(job);
    expect_content(top, content, "the chain");
    blk_co_detach(user);
}

/* ---- pausing and cancelling ---- */

/* Paused before it starts, or before its first request: it sends none, and can be cancelled or goes on. */
CO_TEST(paused_before_the_first_request)
{
    for (unsigned i = 0; i < 3 * 4; i++) {
        g_autoptr(GByteArray) content = make_chain(t, equal);
        BlkChild *user = open_chain(t, TOP, NULL);
        JobKind kind = i / 4;
        bool created = i & 1, cancel = i & 2;
        g_autofree char *base = own_clusters(node(t, 0)), *top = own_clusters(node(t, TOP));
        BlkJob *job = new_job(t, kind, &plain_options);

        if (created) {
            ck_assert_int_eq(blk_job_pause(job, NULL), 0);
        }
        blk_job_start(job);
        if (!created) {
            ck_assert_int_eq(blk_job_pause(job, NULL), 0);
        }
        wait_for_status(job, BLK_JOB_PAUSED);
        blk_co_sleep_ns(2000000);
        ck_assert_uint_eq(job_info(job).current, 0);
        expect_own(node(t, 0), base);
        expect_own(node(t, TOP), top);
        ck_assert_int_eq(cancel ? blk_co_job_cancel(job, true, NULL) : blk_job_resume(job, NULL), 0);
        ck_assert_int_eq(cancel ? blk_co_job_wait(job) : finish_job(kind, job), cancel ? -ECANCELED : 0);
        expect_content(blk_child_node(user), content, "what guests read");
        if (cancel) {
            expect_own(node(t, 0), base);
            expect_own(node(t, TOP), top);
            ck_assert_ptr_eq(blk_chain_below(node(t, TOP)), node(t, 2));
        }
        end_job(job);
        blk_co_detach(user);
    }
}

/* Cancelled after each number of turns until it has ended before: the chain is what it was, and the next job works. */
CO_TEST(cancelled_at_each_point)
{
    for (JobKind kind = STREAM; kind < MIRROR; kind++) {
        g_autoptr(GByteArray) content = make_chain(t, equal);
        BlkChild *user = open_chain(t, TOP, NULL);
        unsigned cancelled = 0;
        int ret = -ECANCELED;

        for (unsigned turns = 0; turns < 4000 && ret == -ECANCELED; turns += 1 + turns / 16) {
            BlkJob *job = new_job(t, kind, &plain_options);

            blk_job_start(job);
            for (unsigned i = 0; i < turns; i++) {
                blk_co_reschedule();
            }
            blk_co_job_cancel(job, true, NULL);         /* refused if it ends already */
            ret = blk_co_job_wait(job);
            end_job(job);
            cancelled += ret == -ECANCELED;
            expect_content(blk_child_node(user), content, "after a cancelled job");
            if (ret == -ECANCELED) {
                ck_assert_ptr_eq(blk_child_node(user), node(t, TOP));
                ck_assert_ptr_eq(blk_chain_below(node(t, TOP)), node(t, 2));
                ck_assert(blk_node_read_only(node(t, 0)) && blk_node_read_only(node(t, 1)));
                ck_assert_ptr_eq(blk_node_child(node(t, 2), "backing"), node(t, 1));    /* no filter was left behind */
            }
        }
        ck_assert_uint_gt(cancelled, 2);
        if (ret == -ECANCELED) {
            BlkJob *job = new_job(t, kind, &plain_options);

            blk_job_start(job);
            ck_assert_int_eq(finish_job(kind, job), 0);
            end_job(job);
        }
        expect_content(blk_child_node(user), content, "after the last job");
        blk_co_detach(user);
    }
}

/* One byte a second: a piece goes, and the job waits for years; it is cancelled at once. */
CO_TEST(cancelled_while_it_waits_for_its_speed)
{
    const BlkJobOptions slow = { .id = "job", .auto_finalize = true, .speed = 1 };

    for (JobKind kind = STREAM; kind < MIRROR; kind++) {
        g_autoptr(GByteArray) content = make_chain(t, equal);
        BlkChild *user = open_chain(t, TOP, NULL);
        BlkJob *job = new_job(t, kind, &slow);

        blk_job_start(job);
        for (unsigned i = 0; i < 20000 && (job_info(job).current == 0 || job_info(job).busy); i++) {
            blk_co_sleep_ns(1000000);
        }
        ck_assert(job_info(job).current > 0 && job_info(job).current < job_info(job).total);
        ck_assert_int_eq(blk_co_job_cancel(job, true, NULL), 0);
        ck_assert_int_eq(blk_co_job_wait(job), -ECANCELED);
        end_job(job);
        expect_content(blk_child_node(user), content, "what guests read");
        blk_co_detach(user);
    }
}

/* ---- errors ---- */

static void hear(BlkContext *ctx, const char *name, JsonObject *data, void *opaque)
{
    if (strcmp(name, "BLOCK_JOB_ERROR") == 0) {
        g_string_append_printf(opaque, "%s:%s", json_object_get_string_member(data, "operation"),
                               json_object_get_string_member(data, "action"));
    }
}

#define ONCE(event, error) "{\"event\": \"" event "\", \"errno\": " error ", \"once\": true}"

typedef struct ErrorCase {
    const char *read_rule, *write_rule;     /* of n1, which all of them read, and of the target */
    BlkOnError on_error;
    const char *heard;
    int ret;                                /* of the job, after a resume if it stops */
    BlkIoStatus io_status;                  /* while it stands */
} ErrorCase;

static void meet_error(Test *t, JobKind kind, const ErrorCase *c)
{
    unsigned target = kind == STREAM ? TOP : 0;
    const char *rules[IMAGES] = { [1] = c->read_rule };
    const BlkJobOptions options = {
        .id = "job", .auto_finalize = true, .on_source_error = c->on_error, .on_target_error = c->on_error,
    };
    g_autoptr(GString) heard = g_string_new(NULL);
    g_autoptr(GByteArray) content = make_chain(t, equal);

    rules[target] = c->write_rule;
    BlkChild *user = open_chain(t, TOP, rules);
    blk_context_set_notice_handler(t->ctx, hear, heard);
    BlkJob *job = new_job(t, kind, &options);
    blk_job_start(job);
    if (c->io_status != BLK_IO_STATUS_OK) {
        wait_for_status(job, BLK_JOB_PAUSED);
        ck_assert_int_eq(job_info(job).io_status, c->io_status);
        ck_assert_int_eq(blk_job_resume(job, NULL), 0);
    }
    ck_assert_int_eq(finish_job(kind, job), c->ret);
    ck_assert_str_eq(heard->str, c->heard);
    if (c->ret < 0) {
        ck_assert_msg(strstr(job_info(job).error, c->read_rule ? "error while reading at byte" : "error while writing at byte")
                      != NULL, "%s", job_info(job).error);
        ck_assert_ptr_eq(blk_chain_below(node(t, TOP)), node(t, 2));
    }
    end_job(job);
    blk_context_set_notice_handler(t->ctx, NULL, NULL);
    expect_content(blk_child_node(user), content, "what guests read");
    blk_co_detach(user);
}

CO_TEST(errors_are_handled_by_policy)
{
    static const char bad_read[] = ONCE("read_aio", "5"), bad_write[] = ONCE("write_aio", "5"), full[] = ONCE("write_aio", "28");
    static const ErrorCase cases[] = {
        { bad_read, NULL, BLK_ON_ERROR_REPORT, "read:report", -EIO, BLK_IO_STATUS_OK },
        { bad_read, NULL, BLK_ON_ERROR_IGNORE, "read:ignore", 0, BLK_IO_STATUS_OK },
        { bad_read, NULL, BLK_ON_ERROR_STOP, "read:stop", 0, BLK_IO_STATUS_FAILED },
        { bad_read, NULL, BLK_ON_ERROR_ENOSPC, "read:report", -EIO, BLK_IO_STATUS_OK },
        { NULL, bad_write, BLK_ON_ERROR_REPORT, "write:report", -EIO, BLK_IO_STATUS_OK },
        { NULL, bad_write, BLK_ON_ERROR_IGNORE, "write:ignore", 0, BLK_IO_STATUS_OK },
        { NULL, bad_write, BLK_ON_ERROR_STOP, "write:stop", 0, BLK_IO_STATUS_FAILED },
        { NULL, bad_write, BLK_ON_ERROR_ENOSPC, "write:report", -EIO, BLK_IO_STATUS_OK },
        { NULL, full, BLK_ON_ERROR_ENOSPC, "write:stop", 0, BLK_IO_STATUS_NOSPACE },
        { NULL, full, BLK_ON_ERROR_REPORT, "write:report", -ENOSPC, BLK_IO_STATUS_OK },
    };

    for (JobKind kind = STREAM; kind < MIRROR; kind++) {
        for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
            meet_error(t, kind, &cases[i]);
        }
    }
}

/* ---- images without a byte ---- */

CO_TEST(empty_images)
{
    static const uint64_t nothing[IMAGES] = { 0 };

    for (JobKind kind = STREAM; kind < JOB_KINDS; kind++) {
        create_chain(t, nothing);
        BlkChild *user = open_chain(t, TOP, NULL);
        BlkNode *target = kind == MIRROR ? open_target(t, 0) : NULL;
        BlkJob *job = new_job(t, kind, &plain_options);

        blk_job_start(job);
        ck_assert_int_eq(finish_job(kind, job), 0);
        ck_assert_uint_eq(job_info(job).total, 0);
        ck_assert_uint_eq(blk_node_length(blk_child_node(user)), 0);
        end_job(job);
        blk_co_detach(user);
        blk_co_unref(target);
    }
}

BLK_TEST_MAIN("chain_job", images_of_a_chain, writable_and_as_before, names_in_headers, stream_down_to_each_base,
              stream_leaves_alone_what_is_there, commit_from_each_top_into_each_base, random_streams, random_commits,
              refused_and_nothing_has_changed, paused_before_the_first_request, cancelled_at_each_point,
              cancelled_while_it_waits_for_its_speed, errors_are_handled_by_policy, empty_images)
