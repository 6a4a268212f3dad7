/* SPDX-License-Identifier: MIT */
/*
 * crash_bitmap.c - dirty bitmaps in the crash test. One bitmap records from before the log begins: whenever an image
 * has it in a state that may be trusted, each sector whose content is another than when it began must be dirty. Others
 * come and go.
 */
#include "crash.h"

static BlkDirtyBitmap *co_add(CrashRound *round, const char *name)
{
    g_autoptr(GError) error = NULL;
    uint64_t granularity = SECTOR << g_rand_int_range(round->rand, 0, 5);
    BlkDirtyBitmap *bitmap = blk_bitmap_add(blk_child_node(round->image), name, granularity, true, &error);

    if (!bitmap) {
        crash_fail(round, "no bitmap: %s", error->message);
    }
    return bitmap;
}

void crash_bitmap_co_begin(CrashRound *round)
{
    uint64_t bytes = round->sectors * SECTOR;

    if (!round->config.bitmaps) {
        return;
    }
    co_add(round, "track");
    round->start = g_malloc(bytes);
    if (blk_co_pread(blk_child_node(round->image), 0, bytes, round->start, 0) < 0) {
        crash_fail(round, "the guest's data cannot be read");
    }
}

void crash_bitmap_co_control(CrashRound *round)
{
    BlkNode *node = blk_child_node(round->image);
    BlkDirtyBitmap *extra = blk_bitmap_find(node, "extra");
    g_autoptr(GError) error = NULL;

    if (!round->config.bitmaps) {
        return;
    }
    switch (g_rand_int_range(round->rand, 0, 4)) {
    case 0:
        if (extra) {
            blk_bitmap_remove(extra);
        } else if (blk_co_bitmap_merge(co_add(round, "extra"), blk_bitmap_find(node, "track"), &error) < 0) {
            crash_fail(round, "the workload's merge failed: %s", error->message);
        }
        break;
    case 1:
        if (extra) {
            blk_bitmap_enable(extra, !blk_bitmap_enabled(extra));
        }
        break;
    case 2:
        return;
    }
    if (blk_co_bitmaps_store(node, &error) < 0) {
        crash_fail(round, "the workload's bitmaps could not be stored: %s", error->message);
    }
}

/* What was cut off once may have lost its bits. */
static uint64_t never_cut(const CrashRound *round)
{
    uint64_t sectors = UINT64_MAX;

    for (guint i = 0; i < round->lengths->len; i++) {
        sectors = MIN(sectors, g_array_index(round->lengths, LengthChange, i).sectors);
    }
    return sectors;
}

void crash_bitmap_co_judge(CrashRound *round, BlkNode *node, const uint8_t *guest)
{
    g_autoptr(GError) error = NULL;
    BlkDirtyBitmap *track = blk_bitmap_find(node, "track");

    if (!round->config.bitmaps) {
        return;
    }
    if (!track) {
        crash_fail(round, "the bitmap is lost");
    }
    if (blk_bitmap_inconsistent(track)) {
        return;
    }
    round->trusted++;
    if (blk_co_bitmap_load(track, &error) < 0) {
        crash_fail(round, "%s", error->message);
    }
    for (uint64_t i = 0; i < never_cut(round); i++) {
        if (memcmp(guest + i * SECTOR, round->start + i * SECTOR, SECTOR) != 0 && !blk_bitmap_get(track, i * SECTOR)) {
            g_autofree char *history = crash_guest_history(round, i);
            crash_fail(round, "guest sector %" PRIu64 " has changed, and the bitmap does not know it; %s", i, history);
        }
    }
}
