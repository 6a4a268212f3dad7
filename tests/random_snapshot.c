/* SPDX-License-Identifier: MIT */
/*
 * random_snapshot.c - the random test's internal snapshots: what the model was when each was made.
 */
#include "random_image.h"

enum { MAX_SNAPSHOTS = 3 };

typedef struct Kept {
    char *name;
    uint64_t size;
    uint8_t *data;              /* size bytes */
} Kept;

static void kept_free(void *data)
{
    Kept *kept = data;

    g_free(kept->name);
    g_free(kept->data);
    g_free(kept);
}

/* Counts that are full are a good reason: nothing has changed then. */
static int outcome(Sequence *seq, int ret, const char *what, const char *name, const GError *error)
{
    sequence_log(seq, " %s snapshot %s: %s", what, name, error ? error->message : "done");
    return ret == 0 || ret == -ERANGE ? 0 : sequence_fail(seq, "%s snapshot %s: %s", what, name, error->message);
}

static int co_create(Sequence *seq)
{
    g_autofree char *name = g_strdup_printf("s%u", ++seq->snapshots_made);
    g_autoptr(GError) error = NULL;
    int ret = blk_co_snapshot_create(sequence_node(seq), name, &error);

    if (ret == 0) {
        Kept *kept = g_new0(Kept, 1);
        kept->name = g_strdup(name);
        kept->size = seq->config.size;
        kept->data = g_memdup2(seq->model, seq->config.size);
        g_ptr_array_add(seq->snapshots, kept);
    }
    return outcome(seq, ret, "make", name, error);
}

static int co_apply(Sequence *seq, const Kept *kept)
{
    BlkSnapshotKey key = { .name = kept->name };
    g_autoptr(GError) error = NULL;
    int ret = blk_co_snapshot_apply(sequence_node(seq), &key, &error);

    if (seq->must) {            /* a bitmap would not know what changes */
        return ret == -EBUSY ? 0 : sequence_fail(seq, "a snapshot was applied beside a bitmap");
    }
    if (ret == 0) {
        change_set_length(seq, kept->size);
        memcpy(seq->model, kept->data, kept->size);
    }
    return outcome(seq, ret, "apply", kept->name, error);
}

static int co_delete(Sequence *seq, Kept *kept)
{
    BlkSnapshotKey key = { .name = kept->name };
    g_autofree char *name = g_strdup(kept->name);
    g_autoptr(GError) error = NULL;
    int ret = blk_co_snapshot_delete(sequence_node(seq), &key, &error);

    if (ret < 0) {
        return sequence_fail(seq, "delete snapshot %s: %s", name, error->message);
    }
    g_ptr_array_remove(seq->snapshots, kept);
    return outcome(seq, ret, "delete", name, NULL);
}

int snapshot_co_operation(Sequence *seq)
{
    unsigned n = (unsigned)rng_below(&seq->rng, 10);
    Kept *kept = NULL;

    if (!seq->snapshots) {
        seq->snapshots = g_ptr_array_new_with_free_func(kept_free);
    }
    if (seq->snapshots->len > 0) {
        kept = g_ptr_array_index(seq->snapshots, rng_below(&seq->rng, seq->snapshots->len));
    }
    if (!kept || (n < 4 && seq->snapshots->len < MAX_SNAPSHOTS)) {
        return co_create(seq);
    }
    return n < 7 ? co_apply(seq, kept) : co_delete(seq, kept);
}

bool snapshot_all_have_length(const Sequence *seq)
{
    for (guint i = 0; seq->snapshots && i < seq->snapshots->len; i++) {
        if (((const Kept *)g_ptr_array_index(seq->snapshots, i))->size != seq->config.size) {
            return false;
        }
    }
    return true;
}

/* @node is open read-only, and shows the last snapshot afterwards. */
int snapshot_co_check(Sequence *seq, BlkNode *node)
{
    for (guint i = 0; seq->snapshots && i < seq->snapshots->len; i++) {
        const Kept *kept = g_ptr_array_index(seq->snapshots, i);
        BlkSnapshotKey key = { .name = kept->name };
        g_autofree uint8_t *data = g_malloc(kept->size);
        g_autoptr(GError) error = NULL;

        if (blk_co_snapshot_load(node, &key, &error) < 0) {
            return sequence_fail(seq, "read snapshot %s: %s", kept->name, error->message);
        }
        if (blk_node_length(node) != kept->size || blk_co_pread(node, 0, kept->size, data, 0) < 0 ||
            memcmp(data, kept->data, kept->size) != 0) {
            return sequence_fail(seq, "snapshot %s is not what it was", kept->name);
        }
    }
    return 0;
}
