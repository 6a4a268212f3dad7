/* SPDX-License-Identifier: MIT */
/*
 * random_change.c - the random test's changes of the image itself: its length, its version and other properties.
 *
 * Which amendments must be refused follows from the image's properties and snapshots; only whether all counts fit a
 * narrower width is not known here.
 */
#include "random_image.h"

/* ---- length ---- */

static uint64_t pick_length(Sequence *seq)
{
    const ImageConfig *config = &seq->config;
    Rng *rng = &seq->rng;
    uint64_t reach = UINT64_C(3) * config->cluster_size, length;

    if (rng_percent(rng, 50)) {     /* a few clusters more or less */
        length = rng_range(rng, config->size - MIN(config->size, reach), MIN(config->size + reach, config->most));
    } else {
        length = rng_range(rng, config->most / 8, config->most);
    }
    length -= length % (rng_percent(rng, 30) ? config->cluster_size : SECTOR_SIZE);
    return MAX(length, SECTOR_SIZE);
}

void change_set_length(Sequence *seq, uint64_t length)
{
    memset(seq->model + length, 0, seq->config.most - length);
    seq->config.size = length;
}

int change_co_resize(Sequence *seq)
{
    uint64_t length = pick_length(seq);
    bool refused = seq->config.v2 && seq->snapshots && seq->snapshots->len > 0;
    bool preallocates = length > seq->config.size && rng_percent(&seq->rng, 30);
    g_autoptr(GError) error = NULL;
    int ret;

    sequence_log(seq, " resize to %" PRIu64 "%s", length, preallocates ? ", preallocated" : "");
    ret = blk_co_truncate(sequence_node(seq), length, preallocates ? BLK_PREALLOC_METADATA : BLK_PREALLOC_OFF, &error);
    if (refused) {
        return ret == -ENOTSUP ? 0 : sequence_fail(seq, "an image of version 2 with snapshots was resized: %d", ret);
    }
    if (ret < 0) {
        return sequence_fail(seq, "resize: %s", error->message);
    }
    bitmap_note_resize(seq, length);
    change_set_length(seq, length);
    if (blk_node_length(sequence_node(seq)) != length) {
        return sequence_fail(seq, "resized to %" PRIu64 " bytes", blk_node_length(sequence_node(seq)));
    }
    return 0;
}

/* ---- properties ---- */

typedef struct Amendment {
    bool v2, lazy;
    unsigned refcount_bits;
} Amendment;

/* From version 2 no width that the counts may not fit: that is found out when the image is of version 3 already. */
static Amendment pick_amendment(Sequence *seq)
{
    const ImageConfig *config = &seq->config;
    Rng *rng = &seq->rng;
    Amendment a = { .v2 = rng_percent(rng, 40), .refcount_bits = config->refcount_bits };

    a.lazy = rng_percent(rng, a.v2 ? 10 : 40);
    if (a.v2 && rng_percent(rng, 90)) {
        a.refcount_bits = 16;
    } else if (rng_percent(rng, 60)) {
        a.refcount_bits = config->v2 ? 16u << rng_below(rng, 3) : 1u << rng_below(rng, 7);
    }
    return a;
}

static bool must_be_refused(const Sequence *seq, const Amendment *a)
{
    const ImageConfig *config = &seq->config;

    if (!a->v2) {
        return false;
    }
    return a->refcount_bits != 16 || (a->lazy && !config->lazy) || config->data_file || config->zstd ||
           config->extended_l2 || seq->must || !snapshot_all_have_length(seq);
}

static int co_send_amendment(Sequence *seq, const Amendment *a, GError **error)
{
    g_autoptr(JsonObject) options = json_object_new();
    BlkAmendOptions amend = { .options = options };

    json_object_set_string_member(options, "compat", a->v2 ? "0.10" : "1.1");
    json_object_set_boolean_member(options, "lazy_refcounts", a->lazy);
    json_object_set_int_member(options, "refcount_bits", a->refcount_bits);
    return blk_co_amend(sequence_node(seq), &amend, error);
}

int change_co_amend(Sequence *seq)
{
    ImageConfig *config = &seq->config;
    Amendment a = pick_amendment(seq);
    bool may_not_fit = a.refcount_bits < config->refcount_bits, refused = must_be_refused(seq, &a);
    g_autoptr(GError) error = NULL;
    int ret = co_send_amendment(seq, &a, &error);

    sequence_log(seq, " amend compat %s refcount_bits %u%s: %s", a.v2 ? "0.10" : "1.1", a.refcount_bits,
                 a.lazy ? " lazy_refcounts" : "", error ? error->message : "done");
    if (refused || (may_not_fit && ret == -EINVAL)) {
        return ret == -ENOTSUP || ret == -EINVAL ? 0 : sequence_fail(seq, "an amendment was not refused: %d", ret);
    }
    if (ret < 0) {
        return sequence_fail(seq, "amend: %s", error->message);
    }
    config->v2 = a.v2;
    config->lazy = a.lazy && !a.v2;
    config->refcount_bits = a.refcount_bits;
    seq->no_unref = seq->no_unref && !a.v2;
    return 0;
}
