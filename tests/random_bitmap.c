/* SPDX-License-Identifier: MIT */
/*
 * random_bitmap.c - a persistent dirty bitmap in the random test.
 *
 * For each granule the model knows whether it must be dirty and whether it may be: a request that changes nothing (a
 * discard that is dropped, zeroes where there are some already) may leave it clean, and the compress filter writes
 * whole clusters.
 */
#include "random_image.h"

static BlkNode *bitmap_node(const Sequence *seq)
{
    return blk_node_skip_filters(sequence_node(seq));
}

static void set_granules(const Sequence *seq, uint8_t *granules, uint64_t offset, uint64_t end)
{
    uint64_t granularity = seq->config.granularity;

    end = MIN(end, seq->config.size);
    if (offset < end) {
        memset(granules + offset / granularity, 1, (end - 1) / granularity - offset / granularity + 1);
    }
}

static uint64_t all_granules(const Sequence *seq)
{
    return seq->config.most / seq->config.granularity + 1;
}

int bitmap_co_add(Sequence *seq)
{
    uint64_t granules = all_granules(seq);
    g_autoptr(GError) error = NULL;

    seq->must = g_malloc0(granules);
    seq->may = g_malloc0(granules);
    if (!blk_bitmap_add(bitmap_node(seq), "b", seq->config.granularity, true, &error)) {
        return sequence_fail(seq, "bitmap: %s", error->message);
    }
    return 0;
}

void bitmap_note(Sequence *seq, uint64_t offset, uint64_t bytes, bool certain)
{
    uint64_t cluster = seq->config.cluster_size, end = offset + bytes;

    if (!seq->must || bytes == 0) {
        return;
    }
    if (certain) {
        set_granules(seq, seq->must, offset, end);
    }
    set_granules(seq, seq->may, offset - offset % cluster, (end + cluster - 1) / cluster * cluster);
}

void bitmap_note_resize(Sequence *seq, uint64_t length)
{
    uint64_t granularity = seq->config.granularity, from;

    if (seq->must && length < seq->config.size) {
        from = (length + granularity - 1) / granularity;        /* one that is cut keeps its bit */
        memset(seq->must + from, 0, all_granules(seq) - from);
        memset(seq->may + from, 0, all_granules(seq) - from);
    }
}

static int compare(Sequence *seq, const BlkDirtyBitmap *bitmap)
{
    uint64_t granularity = seq->config.granularity;

    for (uint64_t offset = 0; offset < seq->config.size; offset += granularity) {
        bool dirty = blk_bitmap_get(bitmap, offset);

        if (dirty ? !seq->may[offset / granularity] : seq->must[offset / granularity]) {
            return sequence_fail(seq, "bitmap: the granule at %" PRIu64 " is %s", offset, dirty ? "dirty" : "clean");
        }
    }
    return 0;
}

int bitmap_co_check(Sequence *seq)
{
    g_autoptr(GError) error = NULL;
    BlkDirtyBitmap *bitmap;

    if (!seq->must) {
        return 0;
    }
    if (blk_co_flush(sequence_node(seq)) < 0) {     /* what the filter holds has not reached the bitmap */
        return sequence_fail(seq, "bitmap: flush");
    }
    bitmap = blk_bitmap_find_usable(bitmap_node(seq), "b", &error);
    if (!bitmap || blk_co_bitmap_load(bitmap, &error) < 0) {
        return sequence_fail(seq, "bitmap: %s", error->message);
    }
    return compare(seq, bitmap);
}

int bitmap_co_operation(Sequence *seq)
{
    uint64_t granules = all_granules(seq);
    BlkDirtyBitmap *bitmap = blk_bitmap_find(bitmap_node(seq), "b");
    g_autoptr(GError) error = NULL;
    int ret = bitmap_co_check(seq);

    if (ret < 0 || !bitmap) {
        return ret;
    }
    if (rng_percent(&seq->rng, 40)) {
        sequence_log(seq, " bitmap: clear");
        blk_bitmap_clear(bitmap, 0, seq->config.size);
        memset(seq->must, 0, granules);
        memset(seq->may, 0, granules);
    }
    if (rng_percent(&seq->rng, 50)) {
        sequence_log(seq, " bitmap: store");
        ret = blk_co_bitmaps_store(bitmap_node(seq), &error);
    }
    return ret < 0 ? sequence_fail(seq, "bitmap: %s", error->message) : 0;
}
