/* SPDX-License-Identifier: MIT */
/*
 * check_counts.c - counters of references to host clusters, for a window of them.
 *
 *     window [first, end) -> chunks of 512 counters, made when the first of them is used
 *
 * The window begins as wide as the file. When its chunks would take more than 128 MiB, the upper half of them is
 * dropped and the window ends there: what lies behind is counted in a later window. A window begins and ends where
 * refcount blocks do.
 *
 * Limitation: a count stops at 2^30 - 1.
 */
#include "drivers/qcow2/check.h"

enum { CHUNK = 512, MAX_CHUNKS = (128 << 20) / (CHUNK * sizeof(uint32_t)) };

static int chunk_compare(const void *a, const void *b, void *unused)
{
    const gsize x = GPOINTER_TO_SIZE(a), y = GPOINTER_TO_SIZE(b);

    return x < y ? -1 : x > y;
}

uint64_t qcow2_check_grain(const Qcow2Check *check)
{
    return MAX(check->per_block, CHUNK);
}

void qcow2_check_window_clear(Qcow2Check *check)
{
    g_clear_pointer(&check->chunks, g_tree_unref);
    check->last_chunk = NULL;
}

void qcow2_check_window_begin(Qcow2Check *check, uint64_t first)
{
    qcow2_check_window_clear(check);
    check->chunks = g_tree_new_full(chunk_compare, NULL, NULL, g_free);
    check->first = first;
    check->end = UINT64_MAX;
}

/* Lets the window end in the middle of what it has. */
static void shrink(Qcow2Check *check)
{
    const uint64_t grain = qcow2_check_grain(check);
    GTreeNode *node = g_tree_node_last(check->chunks);
    uint64_t middle;

    for (int i = g_tree_nnodes(check->chunks) / 2; i > 0; i--) {
        node = g_tree_node_previous(node);
    }
    middle = GPOINTER_TO_SIZE(g_tree_node_key(node)) * CHUNK / grain * grain;
    check->end = MAX(middle, check->first + grain);
    for (node = g_tree_node_last(check->chunks); node != NULL; node = g_tree_node_last(check->chunks)) {
        void *key = g_tree_node_key(node);

        if (GPOINTER_TO_SIZE(key) * CHUNK < check->end) {
            break;
        }
        g_tree_remove(check->chunks, key);
    }
    check->last_chunk = NULL;
}

static uint32_t *find_chunk(Qcow2Check *check, uint64_t number)
{
    if (check->last_chunk == NULL || check->last_number != number) {
        check->last_chunk = g_tree_lookup(check->chunks, GSIZE_TO_POINTER(number));
        check->last_number = number;
    }
    return check->last_chunk;
}

/* NULL: the cluster is not in the window, or not any more. */
static uint32_t *make_counter(Qcow2Check *check, uint64_t cluster)
{
    uint32_t *chunk = find_chunk(check, cluster / CHUNK);

    if (chunk == NULL) {
        if (g_tree_nnodes(check->chunks) >= MAX_CHUNKS) {
            shrink(check);
        }
        if (cluster >= check->end) {
            return NULL;
        }
        chunk = g_try_new0(uint32_t, CHUNK);
        if (chunk == NULL) {
            check->short_of_memory = true;
            return NULL;
        }
        g_tree_insert(check->chunks, GSIZE_TO_POINTER(cluster / CHUNK), chunk);
        check->last_number = cluster / CHUNK;
        check->last_chunk = chunk;
    }
    return &chunk[cluster % CHUNK];
}

void qcow2_check_count(Qcow2Check *check, uint64_t offset, uint64_t bytes, uint64_t times, uint32_t flags)
{
    if (bytes == 0) {
        return;
    }
    const uint64_t last = (offset + bytes - 1) >> check->cluster_bits;

    for (uint64_t i = MAX(offset >> check->cluster_bits, check->first); i <= last && i < check->end; i++) {
        uint32_t *counter = make_counter(check, i);

        if (counter != NULL) {
            *counter = (*counter & ~QCOW2_REFS_MAX) | flags |
                       (uint32_t)MIN((*counter & QCOW2_REFS_MAX) + times, QCOW2_REFS_MAX);
        }
    }
}

void qcow2_check_uncount(Qcow2Check *check, uint64_t offset, uint64_t bytes, uint64_t times)
{
    for (uint64_t i = offset >> check->cluster_bits; i <= (offset + bytes - 1) >> check->cluster_bits; i++) {
        uint32_t *chunk = find_chunk(check, i / CHUNK);

        if (chunk != NULL && i >= check->first && i < check->end) {
            chunk[i % CHUNK] -= (uint32_t)MIN(chunk[i % CHUNK] & QCOW2_REFS_MAX, times);
        }
    }
}

uint32_t qcow2_check_counter(Qcow2Check *check, uint64_t cluster)
{
    const uint32_t *chunk = find_chunk(check, cluster / CHUNK);

    return chunk == NULL ? 0 : chunk[cluster % CHUNK];
}

uint64_t qcow2_check_next_counted(Qcow2Check *check, uint64_t cluster)
{
    GTreeNode *node = g_tree_lower_bound(check->chunks, GSIZE_TO_POINTER(cluster / CHUNK));

    return node == NULL ? UINT64_MAX : MAX(cluster, GPOINTER_TO_SIZE(g_tree_node_key(node)) * CHUNK);
}
