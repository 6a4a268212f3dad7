/* SPDX-License-Identifier: MIT */
/*
 * test_qcow2_change.c - crashes while an image is resized or amended, on a "log" disk: in each state that may be left a check
 * finds no corruption (leaks are allowed, and wrong counts in an image that is marked dirty); the disk has the old length or the new one, and its content; and when such an
 * image is made longer, what is new reads as zeroes.
 *
 * BLK_TEST_SEED repeats one run; BLK_TEST_ROUNDS makes more of them.
 */
#include "log_disk.h"

#include "drivers/qcow2/qcow2.h"

#define MAX_LENGTH (UINT64_C(2) << 20)

enum { STATES = 8, WRITES = 30 };

typedef struct Run {
    Test *t;
    uint32_t seed;
    GRand *rand;
    BlkNode *disk_node;
    LogDisk *disk;
    uint64_t old_length, new_length;
    uint8_t *model;                 /* MAX_LENGTH bytes */
    GString *story;
} Run;

static uint32_t below(Run *run, uint32_t limit)
{
    return g_rand_int(run->rand) % limit;
}

static uint64_t random_length(Run *run)
{
    uint64_t sectors = 1 + below(run, MAX_LENGTH / LOG_SECTOR);

    return (below(run, 3) == 0 ? (sectors + 127) / 128 * 128 : sectors) * LOG_SECTOR;
}

/* ---- an image with something of everything ---- */

static void fill(Run *run)
{
    BlkNode *top = try_open(run->t, "{'driver': 'compress', 'write-buffer': 0, 'node-name': 'top', 'file': {'driver': "
                            "'qcow2', 'discard': 'unmap', 'node-name': 'image', 'file': 'disk'}}", NULL);
    ck_assert_ptr_nonnull(top);
    BlkChild *user = blk_co_attach(top, "test", BLK_PERM_READ | BLK_PERM_WRITE, BLK_PERM_ALL, NULL);
    BlkChild *plain = blk_co_attach(blk_node_find(run->t->ctx, "image"), "test", BLK_PERM_READ | BLK_PERM_WRITE,
                                    BLK_PERM_ALL, NULL);

    for (unsigned i = 0; i < WRITES; i++) {
        uint64_t offset = below(run, run->old_length / LOG_SECTOR) * LOG_SECTOR;
        uint64_t wanted = (1 + below(run, 300)) * LOG_SECTOR, bytes = MIN(run->old_length - offset, wanted);
        BlkNode *node = blk_child_node(below(run, 2) ? user : plain);

        if (below(run, 3) == 0) {
            memset(run->model + offset, 0, bytes);
            ck_assert_int_eq(blk_co_pwrite_zeroes(node, offset, bytes, below(run, 2) ? BLK_REQ_UNMAP : 0), 0);
        } else {
            memset(run->model + offset, 1 + (int)below(run, 255), bytes);
            ck_assert_int_eq(blk_co_pwrite(node, offset, bytes, run->model + offset, 0), 0);
        }
    }
    blk_co_detach(plain);
    blk_co_detach(user);
    blk_co_unref(top);
}

/* ---- the change ---- */

static void resize(Run *run, BlkNode *node)
{
    static const BlkPrealloc modes[] = { BLK_PREALLOC_OFF, BLK_PREALLOC_METADATA, BLK_PREALLOC_FALLOC, BLK_PREALLOC_FULL };
    BlkPrealloc mode;
    g_autoptr(GError) error = NULL;

    run->new_length = random_length(run);
    mode = run->new_length > run->old_length ? modes[below(run, G_N_ELEMENTS(modes))] : BLK_PREALLOC_OFF;
    g_string_append_printf(run->story, "resize from %u to %u, preallocation %u", (unsigned)run->old_length,
                           (unsigned)run->new_length, mode);
    int ret = blk_co_truncate(node, run->new_length, mode, &error);
    ck_assert_msg(ret == 0, "seed %u: %s: %s", run->seed, run->story->str, error ? error->message : "");
}

static void amend(Run *run, BlkNode *node)
{
    static const unsigned widths[] = { 8, 16, 32, 64 };
    g_autoptr(JsonObject) options = json_object_new();
    BlkAmendOptions amend_options = { .options = options };
    unsigned width = widths[below(run, G_N_ELEMENTS(widths))];
    bool v2 = below(run, 2);
    g_autoptr(GError) error = NULL;

    json_object_set_string_member(options, "compat", v2 ? "0.10" : "1.1");
    json_object_set_int_member(options, "refcount_bits", v2 ? 16 : width);
    json_object_set_boolean_member(options, "lazy_refcounts", !v2 && below(run, 2));
    if (below(run, 3) == 0) {
        run->new_length = random_length(run);
        json_object_set_int_member(options, "size", (gint64)run->new_length);
    }
    g_string_append_printf(run->story, "amend: version %u, %u bits, from %u to %u", v2 ? 2 : 3, width,
                           (unsigned)run->old_length, (unsigned)run->new_length);
    int ret = blk_co_amend(node, &amend_options, &error);
    ck_assert_msg(ret == 0, "seed %u: %s: %s", run->seed, run->story->str, error ? error->message : "");
}

/* Returns: when it began. */
static uint64_t change(Run *run)
{
    BlkChild *user = open_for(run->t, BLK_PERM_ALL, "{'driver': 'qcow2', 'file': 'disk'}");
    uint64_t begin = run->disk->now;

    run->new_length = run->old_length;
    if (below(run, 2)) {
        resize(run, blk_child_node(user));
    } else {
        amend(run, blk_child_node(user));
    }
    blk_co_detach(user);
    return begin;
}

/* ---- what a crash leaves ---- */

static void finding(const char *text, void *opaque)
{
    g_string_append_printf(opaque, "\n  %s", text);
}

static void check_sound(Run *run, BlkNode *node, const char *when)
{
    g_autoptr(GString) findings = g_string_new(NULL);
    BlkCheckOptions options = { .data = true, .message = finding, .opaque = findings };
    BlkCheckResult result = { 0 };

    ck_assert_int_eq(blk_co_check(node, &options, &result, NULL), 0);
    ck_assert_msg(result.corruptions == 0 && result.check_errors == 0, "seed %u: %s: %s: corruptions: %s", run->seed,
                  run->story->str, when, findings->str);
}

static void check_content(Run *run, BlkNode *node, const char *when)
{
    uint64_t length = blk_node_length(node);
    g_autofree uint8_t *content = g_malloc(length), *wanted = g_malloc0(length);

    memcpy(wanted, run->model, MIN(length, run->old_length));
    ck_assert_int_eq(blk_co_pread(node, 0, length, content, 0), 0);
    for (uint64_t i = 0; i < length; i++) {
        if (content[i] != wanted[i]) {
            ck_abort_msg("seed %u: %s: %s: byte %u is %02x, not %02x", run->seed, run->story->str, when, (unsigned)i,
                         content[i], wanted[i]);
        }
    }
}

/* Marked as one whose counts may be wrong: they are repaired when it is opened for writing. */
static bool is_dirty(BlkNode *node)
{
    BlkInfo info;

    ck_assert_int_eq(blk_co_info(node, &info, NULL), 0);
    bool dirty = info.dirty;
    blk_info_clear(&info);
    return dirty;
}

/* Makes the image longer: whatever the crash left behind its end does not show. */
static void check_growth(Run *run)
{
    BlkChild *user = open_for(run->t, BLK_PERM_ALL, "{'driver': 'qcow2', 'file': 'crashed'}");
    BlkNode *node = blk_child_node(user);
    uint64_t length = blk_node_length(node);

    ck_assert_int_eq(blk_co_truncate(node, MAX_LENGTH, BLK_PREALLOC_OFF, NULL), 0);
    memset(run->model + MIN(length, run->old_length), 0, MAX_LENGTH - MIN(length, run->old_length));
    check_content(run, node, "made longer after a crash");
    check_sound(run, node, "made longer after a crash");
    blk_co_detach(user);
}

static void check_crash(Run *run, uint64_t now, unsigned percent, const uint8_t *model)
{
    uint64_t length;
    g_autofree uint8_t *image = log_crash(run->disk, now, percent, run->rand, &length);
    BlkNode *disk = try_open(run->t, "{'driver': 'log', 'node-name': 'crashed'}", NULL);

    log_set_initial(disk, image, length);
    memcpy(run->model, model, MAX_LENGTH);
    BlkChild *user = open_for(run->t, BLK_PERM_READ, "{'driver': 'qcow2', 'read-only': true, 'file': 'crashed'}");
    BlkNode *node = blk_child_node(user);
    ck_assert(blk_node_length(node) == run->old_length || blk_node_length(node) == run->new_length);
    if (!is_dirty(node)) {
        check_sound(run, node, "after a crash");
    }
    check_content(run, node, "after a crash");
    blk_co_detach(user);
    check_growth(run);
    blk_co_unref(disk);
}

static void run_once(Test *t, uint32_t seed)
{
    static const unsigned clusters[] = { 512, 1024, 4096, 65536 }, widths[] = { 8, 16, 64 },
                          percents[] = { 0, 20, 50, 80, 100 };
    Run run = { .t = t, .seed = seed, .rand = g_rand_new_with_seed(seed), .story = g_string_new(NULL) };
    unsigned cluster_size = clusters[below(&run, G_N_ELEMENTS(clusters))];
    g_autofree uint8_t *model = NULL;

    run.model = g_malloc0(MAX_LENGTH);
    run.old_length = random_length(&run);
    g_autofree char *options = g_strdup_printf("{'size': %u, 'cluster_size': %u, 'refcount_bits': %u}",
                                               (unsigned)run.old_length, cluster_size,
                                               widths[below(&run, G_N_ELEMENTS(widths))]);
    g_string_append_printf(run.story, "%s: ", options);
    run.disk_node = log_new_image(t, "disk", options);
    run.disk = log_disk(run.disk_node);
    g_rand_set_seed(run.disk->rand, seed);
    fill(&run);
    model = g_memdup2(run.model, MAX_LENGTH);
    uint64_t begin = change(&run), events = run.disk->now - begin;
    for (unsigned i = 0; i < STATES && events > 0; i++) {
        uint64_t now = begin + 1 + g_rand_int(run.rand) % events;
        check_crash(&run, now, percents[below(&run, G_N_ELEMENTS(percents))], model);
    }
    check_crash(&run, run.disk->now, 0, model);
    blk_co_unref(run.disk_node);
    g_free(run.model);
    g_string_free(run.story, TRUE);
    g_rand_free(run.rand);
}

CO_TEST(test_crashes)
{
    const char *seed_text = g_getenv("BLK_TEST_SEED"), *rounds_text = g_getenv("BLK_TEST_ROUNDS");
    uint32_t seed = seed_text ? (uint32_t)g_ascii_strtoull(seed_text, NULL, 10) : 1;
    unsigned rounds = rounds_text ? (unsigned)g_ascii_strtoull(rounds_text, NULL, 10) : 8;

    ck_assert_int_eq(blk_driver_register(t->ctx, &log_driver, NULL), 0);
    for (unsigned i = 0; i < rounds; i++) {
        run_once(t, seed + i);
    }
}

/* Where the new counts come to lie the cache has blocks of what was there before. */
CO_TEST(test_new_counts_are_not_what_the_cache_had)
{
    ck_assert_int_eq(blk_driver_register(t->ctx, &log_driver, NULL), 0);
    BlkNode *disk = log_new_image(t, "disk", "{'size': 1048576, 'cluster_size': 4096}");
    BlkNode *node = try_open(t, "{'driver': 'qcow2', 'file': 'disk'}", NULL);
    ck_assert_ptr_nonnull(node);
    BlkChild *user = blk_co_attach(node, "test", BLK_PERM_ALL, BLK_PERM_ALL, NULL);
    g_autofree uint8_t *data = g_malloc0(4096);
    g_autoptr(JsonObject) options = json_object_new();
    BlkAmendOptions amend = { .options = options };
    Qcow2 *q = node->opaque;

    ck_assert_int_eq(blk_co_pwrite(node, 0, 4096, data, 0), 0);
    ck_assert_int_eq(blk_co_flush(node), 0);
    for (uint64_t pos = blk_node_length(disk), end = pos + 65536; pos < end; pos += 4096) {
        BlkMetaBlock *block;
        ck_assert_int_eq(blk_meta_co_get(q->meta, pos, &block), 0);
        blk_meta_put(q->meta, block);
    }
    json_object_set_int_member(options, "refcount_bits", 32);
    ck_assert_int_eq(blk_co_amend(node, &amend, NULL), 0);
    ck_assert_int_eq(blk_co_pwrite(node, 65536, 4096, data, 0), 0);
    ck_assert_int_eq(blk_co_flush(node), 0);
    ck_assert_int_eq(blk_co_pwrite_zeroes(node, 0, 4096, BLK_REQ_UNMAP), 0);
    ck_assert_int_eq(blk_co_flush(node), 0);
    BlkCheckOptions check = { .data = true };
    BlkCheckResult result = { 0 };
    ck_assert_int_eq(blk_co_check(node, &check, &result, NULL), 0);
    ck_assert_uint_eq(result.corruptions + result.check_errors + result.leaks, 0);
    blk_co_detach(user);
    blk_co_unref(node);
    blk_co_unref(disk);
}

BLK_TEST_MAIN("qcow2_change", test_crashes, test_new_counts_are_not_what_the_cache_had)
