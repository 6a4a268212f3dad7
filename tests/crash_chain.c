/* SPDX-License-Identifier: MIT */
/*
 * crash_chain.c - rebase and commit in the crash test. Neither changes what the guest finds, at any moment. What was
 * written before is stable after a rebase, and after a commit that empties the image.
 */
#include "crash.h"

#include "jobs/commit.h"
#include "jobs/rebase.h"

#include <string.h>

void crash_chain_co_begin(CrashRound *round)
{
    g_autoptr(GError) error = NULL;

    if (round->config.kind == CRASH_REBASE &&
        blk_co_change_backing(blk_child_node(round->image), round->backing, "raw", &error) < 0) {
        crash_fail(round, "no backing file: %s", error->message);
    }
}

/* Another base than the one that is below, or none. */
static const char *choose_base(CrashRound *round)
{
    const char *names[] = { "base0", "base1", NULL };
    unsigned number = (unsigned)g_rand_int_range(round->rand, 0, G_N_ELEMENTS(names));

    return g_strcmp0(names[number], round->backing) == 0 ? names[(number + 1) % G_N_ELEMENTS(names)] : names[number];
}

/* The new backing is in use from the next open on. */
static void co_rebase(CrashRound *round)
{
    const char *name = choose_base(round);
    BlkRebase rebase = {
        .overlay = blk_child_node(round->image),
        .backing = name ? blk_node_find(round->ctx, name) : NULL,
        .filename = name,
        .format = name ? "raw" : NULL,
        .compressed = g_rand_boolean(round->rand),
    };
    g_autoptr(GError) error = NULL;

    if (blk_co_rebase(&rebase, &error) < 0) {
        crash_fail(round, "the workload's rebase failed: %s", error->message);
    }
    crash_stack_co_close(round);
    g_free(round->backing);
    round->backing = g_strdup(name);
    crash_stack_co_open(round);
}

/* Does the node hold what the guest finds? */
static void co_check_committed(CrashRound *round)
{
    BlkNode *image = blk_child_node(round->image), *below = blk_child_node(round->below);
    uint64_t bytes = blk_node_length(image);
    g_autofree uint8_t *a = g_malloc(bytes), *b = g_malloc(bytes);

    if (blk_co_pread(image, 0, bytes, a, 0) < 0 || blk_co_pread(below, 0, bytes, b, 0) < 0) {
        crash_fail(round, "the guest's data cannot be read");
    }
    if (memcmp(a, b, bytes) != 0) {
        crash_fail(round, "what was committed to is not what the guest finds");
    }
}

/* Returns: whether the image is stable now. One that is kept as it is is not written to, and hides what is below it. */
static bool co_commit(CrashRound *round)
{
    BlkCommit commit = {
        .top = blk_child_node(round->image),
        .base = blk_child_node(round->below),
        .empty_top = g_rand_int_range(round->rand, 0, 4) > 0,
        .compressed = g_rand_boolean(round->rand),
    };
    g_autoptr(GError) error = NULL;

    if (blk_co_commit(&commit, &error) < 0) {
        crash_fail(round, "the workload's commit failed: %s", error->message);
    }
    co_check_committed(round);
    return commit.empty_top;
}

void crash_chain_co_control(CrashRound *round)
{
    Span flush = { .begin = ++round->now };
    bool stable = true;

    if (round->config.kind == CRASH_REBASE) {
        co_rebase(round);
    } else if (round->config.kind == CRASH_COMMIT) {
        stable = co_commit(round);
    } else {
        return;
    }
    flush.end = ++round->now;
    if (stable) {
        g_array_append_val(round->flushes, flush);
    }
}
