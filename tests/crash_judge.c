/* SPDX-License-Identifier: MIT */
/*
 * crash_judge.c - is what a crash left a sound image, and does it hold what it must?
 *
 *     look      read-only: an image that is not marked dirty has no errors; the guest finds only what is allowed
 *     repair    opened for writing, which repairs a dirty image: no errors, leaks only; `check -r leaks`: clean
 *     look      the guest finds the same as before
 */
#include "crash.h"

typedef struct Findings {
    GString *text;
    uint64_t careful;           /* COPIED flags that are missing */
} Findings;

static void finding(const char *text, void *opaque)
{
    Findings *findings = opaque;

    findings->careful += g_str_has_prefix(text, "ERROR OFLAG_COPIED") && g_str_has_suffix(text, "refcount is 1");
    if (findings->text->len < 2000) {
        g_string_append_printf(findings->text, "\n  %s", text);
    }
}

/* What the image that a crash left stands on, as it says itself. (transfer full) */
static char *co_backing_text(CrashRound *round)
{
    g_autoptr(GError) error = NULL;
    BlkInfo info;

    if (round->config.kind == CRASH_COMMIT) {
        return g_strdup("{'driver': 'qcow2', 'read-only': true, 'file': 'crashed1', 'backing': null}");
    }
    if (round->config.kind != CRASH_REBASE) {
        return g_strdup(round->backing ? "'base0'" : "null");
    }
    BlkNode *node = crash_try_open(round, &error, "{'driver': 'qcow2', 'read-only': true, 'file': 'crashed0', 'backing': "
                                   "null}");
    if (!node || blk_co_info(node, &info, &error) < 0) {
        crash_fail(round, "the image does not tell its backing file: %s", error->message);
    }
    char *text = info.backing_filename ? g_strdup_printf("'%s'", info.backing_filename) : g_strdup("null");
    blk_info_clear(&info);
    blk_co_unref(node);
    return text;
}

/* The image in disk @number: the guest's, or the one that is committed to. */
static BlkNode *co_open_state(CrashRound *round, unsigned number, bool writable)
{
    bool data_file = round->config.kind == CRASH_DATA_FILE || round->config.kind == CRASH_DATA_FILE_RAW;
    g_autofree char *backing = number == 0 ? co_backing_text(round) : g_strdup("null");
    g_autoptr(GError) error = NULL;
    BlkNode *node = crash_try_open(round, &error, "{'driver': 'qcow2', 'read-only': %s, 'file': 'crashed%u', "
                                   "'discard': 'unmap', 'backing': %s%s}", writable ? "false" : "true", number, backing,
                                   data_file ? ", 'data-file': 'crashed1'" : "");

    if (!node) {
        crash_fail(round, "the image in disk %u cannot be opened%s: %s", number, writable ? " for writing" : "",
                   error->message);
    }
    return node;
}

static BlkChild *co_use(CrashRound *round, BlkNode *node, unsigned perm)
{
    g_autoptr(GError) error = NULL;
    BlkChild *user = blk_co_attach(node, "judge", perm, BLK_PERM_ALL, &error);

    if (!user) {
        crash_fail(round, "the image cannot be used: %s", error->message);
    }
    blk_co_unref(node);
    return user;
}

static bool co_is_dirty(CrashRound *round, BlkNode *node)
{
    BlkInfo info;
    int ret = blk_co_info(node, &info, NULL);

    if (ret < 0) {
        crash_fail(round, "the image does not tell about itself: %s", g_strerror(-ret));
    }
    bool dirty = info.dirty;
    blk_info_clear(&info);
    return dirty;
}

typedef enum Strictness { NO_ERRORS, CAREFUL_FLAGS, CLEAN } Strictness;

/* No errors; with CAREFUL_FLAGS but for COPIED flags that are missing, with CLEAN no leaks either. */
static void co_check(CrashRound *round, BlkNode *node, bool fix_leaks, bool fix_errors, Strictness strict, const char *when)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GString) text = g_string_new(NULL);
    Findings findings = { .text = text };
    BlkCheckOptions options = {
        .data = !fix_leaks && strict != CLEAN, .fix_leaks = fix_leaks, .fix_errors = fix_errors, .message = finding,
        .opaque = &findings,
    };
    BlkCheckResult result = { 0 };

    if (blk_co_check(node, &options, &result, &error) < 0) {
        crash_fail(round, "%s: the check does not end: %s", when, error->message);
    }
    uint64_t errors = result.corruptions + result.check_errors;
    uint64_t allowed = strict == CAREFUL_FLAGS && result.check_errors == 0 ? findings.careful : 0;
    if (errors != allowed || (strict == CLEAN && result.leaks > 0)) {
        crash_fail(round, "%s: the check finds %" PRIu64 " errors and %" PRIu64 " leaks:%s", when, errors, result.leaks,
                   text->str);
    }
}

/* What the guest finds. (transfer full) */
static uint8_t *co_read_guest(CrashRound *round, BlkNode *node)
{
    uint8_t *guest = g_malloc(blk_node_length(node));
    int ret = blk_co_pread(node, 0, blk_node_length(node), guest, 0);

    if (ret < 0) {
        crash_fail(round, "the guest's data cannot be read: %s", g_strerror(-ret));
    }
    return guest;
}

static void check_guest(CrashRound *round, const uint8_t *guest, uint64_t sectors)
{
    uint64_t stable = crash_guest_stable(round, round->time);

    if (!crash_guest_length_allowed(round, round->time, sectors)) {
        crash_fail(round, "the image has %" PRIu64 " sectors", sectors);
    }
    for (uint64_t i = 0; i < sectors; i++) {
        if (!crash_guest_sector_allowed(round, round->time, stable, i, guest + i * SECTOR)) {
            g_autofree char *history = crash_guest_history(round, i);
            crash_fail(round, "guest sector %" PRIu64 " is neither what was flushed (time %" PRIu64 ") nor newer; it "
                       "begins %016" PRIx64 "; %s", i, stable, *(const uint64_t *)(const void *)(guest + i * SECTOR), history);
        }
    }
}

/* A raw data file alone is the disk, too. */
static void check_raw_data(CrashRound *round, uint64_t sectors)
{
    const CrashDisk *disk = &round->disks[1];
    uint64_t stable = crash_guest_stable(round, round->time);

    for (uint64_t i = 0; i < MIN(disk->state_bytes / SECTOR, sectors); i++) {
        if (!crash_guest_sector_allowed(round, round->time, stable, i, disk->state + i * SECTOR)) {
            g_autofree char *history = crash_guest_history(round, i);
            crash_fail(round, "sector %" PRIu64 " of the raw data file is neither what was flushed nor newer; %s", i, history);
        }
    }
}

static void co_make_disks(CrashRound *round, BlkNode **disks)
{
    for (unsigned i = 0; i < round->n_disks; i++) {
        g_autofree char *text = g_strdup_printf("{'driver': 'mem-disk', 'node-name': 'crashed%u', 'filename': 'crashed%u'}",
                                                i, i);
        disks[i] = crash_co_must_open(round, text);
        mem_disk_set(disks[i], round->disks[i].state, round->disks[i].state_bytes);
    }
}

static void co_check_if_clean(CrashRound *round, BlkNode *node, bool unmarked)
{
    if (!co_is_dirty(round, node)) {
        co_check(round, node, false, false, unmarked ? CAREFUL_FLAGS : NO_ERRORS, "before anything was repaired");
    }
}

static void co_repair(CrashRound *round, BlkNode *node, bool unmarked)
{
    co_check(round, node, true, unmarked, NO_ERRORS, "opened for writing");
    co_check(round, node, false, false, CLEAN, "after leaks were repaired");
}

/* The image that is committed to, by itself. */
static void co_judge_below(CrashRound *round)
{
    BlkChild *user = co_use(round, co_open_state(round, 1, false), BLK_PERM_READ);

    co_check_if_clean(round, blk_child_node(user), false);
    blk_co_detach(user);
    user = co_use(round, co_open_state(round, 1, true), BLK_PERM_READ | BLK_PERM_WRITE);
    co_repair(round, blk_child_node(user), false);
    blk_co_detach(user);
}

void crash_judge_co_state(CrashRound *round)
{
    BlkNode *disks[CRASH_DISKS];
    bool unmarked = crash_snapshot_unmarked(round);

    co_make_disks(round, disks);
    BlkChild *user = co_use(round, co_open_state(round, 0, false), BLK_PERM_READ);
    BlkNode *node = blk_child_node(user);
    uint64_t length = blk_node_length(node);
    co_check_if_clean(round, node, unmarked);
    g_autofree uint8_t *guest = co_read_guest(round, node);
    check_guest(round, guest, length / SECTOR);
    if (round->config.kind == CRASH_DATA_FILE_RAW) {
        check_raw_data(round, length / SECTOR);
    }
    crash_bitmap_co_judge(round, node, guest);
    crash_snapshot_co_judge(round, node);
    blk_co_detach(user);

    if (round->config.kind == CRASH_COMMIT) {
        co_judge_below(round);
    }
    user = co_use(round, co_open_state(round, 0, true), BLK_PERM_READ | BLK_PERM_WRITE);
    node = blk_child_node(user);
    co_repair(round, node, unmarked);
    g_autofree uint8_t *again = co_read_guest(round, node);
    if (blk_node_length(node) != length || memcmp(guest, again, length) != 0) {
        crash_fail(round, "the repair changed what the guest finds");
    }
    crash_bitmap_co_judge(round, node, again);
    blk_co_detach(user);
    if (round->config.snapshots) {
        user = co_use(round, co_open_state(round, 0, false), BLK_PERM_READ);
        crash_snapshot_co_judge(round, blk_child_node(user));
        blk_co_detach(user);
    }
    for (unsigned i = 0; i < round->n_disks; i++) {
        blk_co_unref(disks[i]);
    }
}
