/* SPDX-License-Identifier: MIT */
/*
 * check_compare.c - the counts in the refcount blocks against the references that were counted, in one window.
 *
 * A count above the references is a leak; one below is a corruption. Repairs in place write blocks that nothing else
 * lies in; where there is none for a cluster that is referred to, all refcount structures are made anew
 * (check_rebuild.c).
 */
#include "drivers/qcow2/check.h"

/* Cluster that block @index counts first. */
static uint64_t first_of(const Qcow2Check *check, uint64_t index)
{
    return index * check->per_block;
}

static bool usable(const Qcow2Check *check, uint64_t index)
{
    return check->reftable[index] != 0 && !(check->reftable[index] & QCOW2_CHECK_SHARED);
}

/* For qcow2_check_co_visit(): the blocks of the window, which begins with a block. */
static uint64_t block_place(Qcow2Check *check, uint64_t i)
{
    const uint64_t index = check->first / check->per_block + i;

    return first_of(check, index) < check->end && usable(check, index) ? check->reftable[index] : UINT64_MAX;
}

static uint64_t blocks_of_window(const Qcow2Check *check)
{
    const uint64_t from = check->first / check->per_block;
    const uint64_t to = check->end == UINT64_MAX ? UINT64_MAX : check->end / check->per_block;

    return from >= check->reftable_entries ? 0 : MIN(to, check->reftable_entries) - from;
}

/* ---- which counts are 1 ---- */

static int note_block(Qcow2Check *check, uint64_t i, uint8_t *buf)
{
    const uint64_t first = check->first + i * check->per_block;

    if (buf == NULL || blk_buffer_is_zero(buf, check->cluster_size)) {
        return 0;
    }
    for (uint64_t j = 0; j < check->per_block && first + j < MIN(check->clusters, check->end); j++) {
        if (qcow2_refcount_get(buf, check->header.refcount_order, j) == 1) {
            qcow2_check_count(check, (first + j) << check->cluster_bits, check->cluster_size, 0, QCOW2_REFS_IS_ONE);
        }
    }
    return 0;
}

int qcow2_check_co_note_ones(Qcow2Check *check)
{
    return qcow2_check_co_visit(check, blocks_of_window(check), block_place, note_block);
}

/* ---- comparing ---- */

/* The refcount of @cluster is @count, in a block that can be written if @block. Returns: whether it is to become the
 * number of references. */
static bool compare_cluster(Qcow2Check *check, uint64_t cluster, uint64_t count, bool block, bool fix)
{
    const uint64_t refs = qcow2_check_refs(check, cluster);
    const bool leak = count > refs;
    const bool can = block && refs <= qcow2_refcount_max(check->header.refcount_order);

    if (count > 0 || refs > 0) {
        check->result->image_end_offset = MAX(check->result->image_end_offset,
                                              MIN(cluster + 1, check->clusters) << check->cluster_bits);
    }
    check->overflow |= refs > qcow2_refcount_max(check->header.refcount_order);
    if (count == refs) {
        return false;
    }
    if (fix && can && (leak ? check->options->fix_leaks : check->options->fix_errors)) {
        qcow2_check_message(check, "Repairing cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64, cluster,
                            count, refs);
        *(leak ? &check->result->leaks_fixed : &check->result->corruptions_fixed) += 1;
        return true;
    }
    if (fix) {
        *(leak ? &check->result->leaks : &check->result->corruptions) += 1;
    }
    qcow2_check_found(check, leak ? &check->found.leaks : &check->found.low, "%s cluster %" PRIu64 " refcount=%" PRIu64
                      " reference=%" PRIu64, leak ? "Leaked" : "ERROR", cluster, count, refs);
    return false;
}

/* Clusters @from..@to-1 have no count: all have refcount 0. */
static void compare_without_block(Qcow2Check *check, uint64_t from, uint64_t to, bool fix)
{
    for (uint64_t i = qcow2_check_next_counted(check, from); i < to; i = qcow2_check_next_counted(check, i + 1)) {
        check->rebuild |= qcow2_check_refs(check, i) > 0;
        compare_cluster(check, i, 0, false, fix);
    }
}

/* Does something beside block @index lie in it? */
static bool block_is_shared(Qcow2Check *check, uint64_t index)
{
    const uint64_t cluster = check->reftable[index] >> check->cluster_bits;

    return (check->reftable[index] & QCOW2_CHECK_SHARED) || qcow2_check_refs(check, cluster) > 1;
}

/* The refcount structures that lie in the window: nothing else may. */
static void compare_structures(Qcow2Check *check)
{
    const uint64_t table = check->header.refcount_table_offset >> check->cluster_bits;

    for (uint64_t i = 0; i < check->reftable_entries; i++) {
        const uint64_t cluster = check->reftable[i] >> check->cluster_bits;

        if (check->reftable[i] == 0 || cluster < check->first || cluster >= check->end || !block_is_shared(check, i)) {
            continue;
        }
        check->reftable[i] |= QCOW2_CHECK_SHARED;
        check->rebuild = true;
        qcow2_check_found(check, &check->found.refcounts, "ERROR refcount block %" PRIu64 " refcount=%" PRIu64, i,
                          qcow2_check_refs(check, cluster));
    }
    for (uint64_t i = 0; i < qcow2_check_clusters_for(check, check->reftable_entries * 8); i++) {
        if (qcow2_check_refs(check, table + i) > 1) {
            check->rebuild = true;
            qcow2_check_found(check, &check->found.refcounts, "ERROR the refcount table at %#" PRIx64 " overlaps "
                              "something else", check->header.refcount_table_offset);
            break;
        }
    }
}

static int compare_block(Qcow2Check *check, uint64_t i, uint8_t *buf, bool fix)
{
    const uint64_t index = check->first / check->per_block + i, first = first_of(check, index);
    const unsigned order = check->header.refcount_order;
    bool changed = false;

    if (buf == NULL) {
        return 0;                       /* counted as a check error */
    }
    if (blk_buffer_is_zero(buf, check->cluster_size) &&
        qcow2_check_next_counted(check, first) >= first + check->per_block) {
        return 0;
    }
    for (uint64_t j = 0; j < check->per_block; j++) {
        if (compare_cluster(check, first + j, qcow2_refcount_get(buf, order, j), true, fix)) {
            qcow2_refcount_set(buf, order, j, qcow2_check_refs(check, first + j));
            changed = true;
        }
    }
    return changed ? qcow2_check_co_write(check, check->reftable[index], check->cluster_size, buf) : 0;
}

static int look_at_block(Qcow2Check *check, uint64_t i, uint8_t *buf)
{
    return compare_block(check, i, buf, false);
}

static int fix_block(Qcow2Check *check, uint64_t i, uint8_t *buf)
{
    return compare_block(check, i, buf, true);
}

int qcow2_check_co_compare(Qcow2Check *check, bool fix)
{
    const uint64_t from = check->first / check->per_block, blocks = blocks_of_window(check);
    const uint64_t end = MIN(check->end, check->clusters);
    uint64_t gap = check->first;        /* of clusters without a block */

    compare_structures(check);
    for (uint64_t i = from; i < from + blocks; i++) {
        if (usable(check, i)) {
            compare_without_block(check, gap, first_of(check, i), fix);
            gap = first_of(check, i + 1);
        }
    }
    compare_without_block(check, gap, end, fix);
    return qcow2_check_co_visit(check, blocks, block_place, fix ? fix_block : look_at_block);
}
