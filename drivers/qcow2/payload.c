/* SPDX-License-Identifier: MIT */
/*
 * payload.c - host space for compressed payloads, inside host clusters.
 *
 *     host cluster   |payload|...hole...|payload|hole|pay      the next one: load|payload|.....bump.....|
 *
 * A payload goes into the smallest hole with room among those that lie where the file would be if it had no free space;
 * without one, into the lowest place: a hole, the rest of the cluster that was taken last ("bump"), or a free cluster,
 * beginning in the bump if that is its neighbour. The first wastes least; the second leaves what lies high unused, so that a
 * file that was long becomes short by being rewritten. Payloads that we write begin and end at sectors, so that no write
 * touches a sector of another payload.
 *
 * Holes exist only in KNOWN clusters: those all of whose references are payloads that the active L2 tables refer to, and
 * whose sectors we can tell used from free. A cluster that is taken for payloads is known from then on; others become
 * known by the survey (survey.c). In any other cluster a snapshot may use bytes that we know nothing of; it can be used
 * again only when its count is 0.
 *
 * In most known clusters a sector belongs to one payload. Other programs pack payloads to the byte, so that neighbours
 * share a sector: such a cluster is PACKED as well, and the uses of each of its sectors are counted.
 */
#include "drivers/qcow2/qcow2.h"

enum { PACKED_SLACK = 32 };         /* one part of so many is added to where a packed file would end */

void qcow2_payload_open(Qcow2 *q)
{
    q->holes = qcow2_holes_new(2 * q->cluster_size);
    q->known = g_hash_table_new(g_direct_hash, g_direct_equal);
    q->packed = g_hash_table_new_full(g_direct_hash, g_direct_equal, NULL, g_free);
    q->surveyed = false;
}

void qcow2_payload_close(Qcow2 *q)
{
    g_clear_pointer(&q->holes, qcow2_holes_free);
    g_clear_pointer(&q->known, g_hash_table_unref);
    g_clear_pointer(&q->packed, g_hash_table_unref);
    q->bump = q->bump_end = 0;
}

/* ---- known clusters ---- */

bool qcow2_payload_is_known(const Qcow2 *q, uint64_t cluster)
{
    gsize word = GPOINTER_TO_SIZE(g_hash_table_lookup(q->known, GSIZE_TO_POINTER(cluster / 64)));

    return word >> (cluster % 64) & 1;
}

static void known_set(Qcow2 *q, uint64_t cluster, bool known)
{
    gsize word = GPOINTER_TO_SIZE(g_hash_table_lookup(q->known, GSIZE_TO_POINTER(cluster / 64)));
    gsize bit = (gsize)1 << (cluster % 64);

    word = known ? word | bit : word & ~bit;
    if (word) {
        g_hash_table_insert(q->known, GSIZE_TO_POINTER(cluster / 64), GSIZE_TO_POINTER(word));
    } else {
        g_hash_table_remove(q->known, GSIZE_TO_POINTER(cluster / 64));
    }
}

static uint8_t *packed_uses(const Qcow2 *q, uint64_t cluster)
{
    return g_hash_table_lookup(q->packed, GSIZE_TO_POINTER(cluster));
}

/* Makes holes of the sectors first..end - 1 of the cluster that nobody uses. */
static void add_unused(Qcow2 *q, uint64_t cluster, const uint8_t *uses, uint64_t first, uint64_t end)
{
    for (uint64_t from = first, to; from < end; from = to) {
        for (to = from; to < end && uses[to] == 0; to++) {
        }
        qcow2_holes_add(q->holes, (cluster << q->cluster_bits) + from * 512, (to - from) * 512);
        while (to < end && uses[to] != 0) {
            to++;
        }
    }
}

void qcow2_payload_learn(Qcow2 *q, uint64_t cluster, uint8_t *uses)
{
    uint64_t sectors = q->cluster_size / 512;
    bool shared = false;

    g_assert(!qcow2_payload_is_known(q, cluster));
    known_set(q, cluster, true);
    add_unused(q, cluster, uses, 0, sectors);
    for (uint64_t i = 0; i < sectors && !shared; i++) {
        shared = uses[i] > 1;
    }
    if (shared) {
        g_hash_table_insert(q->packed, GSIZE_TO_POINTER(cluster), uses);
    } else {
        g_free(uses);
    }
}

void qcow2_payload_freed(Qcow2 *q, uint64_t offset, uint64_t bytes)
{
    uint64_t cluster = qcow2_cluster_of(q, offset), in_cluster = offset & (q->cluster_size - 1);
    uint64_t first = in_cluster / 512, end = (in_cluster + bytes + 511) / 512;
    uint8_t *uses = packed_uses(q, cluster);

    if (!uses) {
        qcow2_holes_add(q->holes, (cluster << q->cluster_bits) + first * 512, (end - first) * 512);
        return;
    }
    for (uint64_t i = first; i < end; i++) {
        g_assert(uses[i] > 0);
        uses[i]--;
    }
    add_unused(q, cluster, uses, first, end);
}

void qcow2_payload_cluster_freed(Qcow2 *q, uint64_t cluster)
{
    uint64_t offset = cluster << q->cluster_bits;

    qcow2_holes_remove(q->holes, offset, q->cluster_size);
    if (q->bump_end == offset + q->cluster_size) {
        q->bump = q->bump_end = 0;      /* the bump area is the rest of one cluster */
    }
    known_set(q, cluster, false);
    g_hash_table_remove(q->packed, GSIZE_TO_POINTER(cluster));
    qcow2_survey_cluster_freed(q, cluster);
}

void qcow2_payload_forget(Qcow2 *q)
{
    qcow2_payload_close(q);
    qcow2_payload_open(q);
}

/* ---- taking space ---- */

/* Counts @refs references to each cluster that a payload in known clusters touches. */
static int co_raise_payload(BlkNode *node, uint64_t offset, uint64_t bytes, uint64_t refs)
{
    Qcow2 *q = node->opaque;
    uint64_t first = qcow2_cluster_of(q, offset), last = qcow2_cluster_of(q, offset + bytes - 1);
    int ret = qcow2_co_raise_run(node, first, last - first + 1, refs);

    if (ret == 0) {
        qcow2_note_taken(q, bytes);
    }
    for (uint64_t pos = offset; ret == 0 && pos < offset + bytes; pos += 512) {
        uint8_t *uses = packed_uses(q, qcow2_cluster_of(q, pos));
        if (uses) {
            uses[(pos & (q->cluster_size - 1)) / 512] = 1;
        }
    }
    return ret;
}

void qcow2_payload_retire_bump(Qcow2 *q)
{
    uint64_t bump = q->bump, bytes = q->bump_end - q->bump;

    q->bump = q->bump_end = 0;
    if (bytes > 0) {
        qcow2_holes_add(q->holes, bump, bytes);
    }
}

/* Takes @bytes from the bump area, which has them. */
static int co_bump_take(BlkNode *node, uint64_t bytes, uint64_t refs, uint64_t *offset)
{
    Qcow2 *q = node->opaque;
    int ret = co_raise_payload(node, q->bump, bytes, refs);

    if (ret == 0) {
        *offset = q->bump;
        q->bump += bytes;
    }
    return ret;
}

/* Takes @bytes from @cluster, which is free, beginning in the rest of the last one if that is its neighbour. */
static int co_bump_next(BlkNode *node, uint64_t cluster, uint64_t bytes, uint64_t refs, uint64_t *offset)
{
    Qcow2 *q = node->opaque;
    uint64_t start = cluster << q->cluster_bits;
    if (q->bump_end != start || q->bump == q->bump_end) {
        qcow2_payload_retire_bump(q);
        q->bump = start;
    }
    q->bump_end = start + q->cluster_size;
    int ret = co_bump_take(node, bytes, refs, offset);
    if (ret == -ERANGE) {       /* the rest of the last cluster cannot be counted once more */
        q->bump = start;
        ret = co_bump_take(node, bytes, refs, offset);
    }
    if (ret < 0) {
        q->bump = q->bump_end = 0;
        return ret;
    }
    known_set(q, cluster, true);
    if (!q->append_from) {
        q->free_hint = cluster + 1;
    }
    return 0;
}

static int co_hole_take(BlkNode *node, uint64_t offset, uint64_t bytes, uint64_t refs)
{
    Qcow2 *q = node->opaque;
    int ret = co_raise_payload(node, offset, bytes, refs);

    if (ret == 0 || ret == -ERANGE) {       /* as many payloads as can be counted: of no use until the cluster is free */
        qcow2_holes_remove(q->holes, offset, bytes);
    }
    return ret;
}

/* Where the file would end, about, if it had no free space. */
static uint64_t packed_end(const Qcow2 *q)
{
    uint64_t used = q->used_clusters << q->cluster_bits, holes = qcow2_holes_bytes(q->holes);

    used -= MIN(used, holes);
    return used + used / PACKED_SLACK;
}

/* The lowest place with room. -ERANGE: a place that cannot be used is gone. */
static int co_take_lowest(BlkNode *node, uint64_t bytes, uint64_t refs, uint64_t below, uint64_t *offset)
{
    Qcow2 *q = node->opaque;
    bool bump = q->bump_end - q->bump >= bytes;
    uint64_t cluster = 0;
    gint64 run = bump ? 0 : qcow2_co_find_run(node, 1, &cluster);
    uint64_t start = cluster << q->cluster_bits;
    uint64_t other = bump ? q->bump : run <= 0 ? UINT64_MAX : q->bump_end == start ? q->bump : start;
    int ret;

    if (!q->append_from && qcow2_holes_find_lowest(q->holes, bytes, offset) && *offset < other) {
        return *offset > below - bytes ? -EXFULL : co_hole_take(node, *offset, bytes, refs);
    }
    if (run < 0) {
        return (int)run;
    }
    if (other > below - bytes) {
        return -EXFULL;
    }
    if (!bump) {
        return co_bump_next(node, cluster, bytes, refs, offset);
    }
    ret = co_bump_take(node, bytes, refs, offset);
    if (ret == -ERANGE) {
        q->bump = q->bump_end = 0;
    }
    return ret;
}

int qcow2_co_alloc_payload(BlkNode *node, uint64_t bytes, uint64_t refs, uint64_t below, uint64_t *offset)
{
    Qcow2 *q = node->opaque;
    int ret = qcow2_co_drain_limbo(node);

    if (ret < 0 || below < bytes) {
        return ret < 0 ? ret : -EXFULL;
    }
    do {
        /* What moves down in the file goes as low as it can: only below the first free cluster the best hole counts. */
        uint64_t end = below == UINT64_MAX ? packed_end(q) : MIN(below, q->free_hint << q->cluster_bits);
        if (!q->append_from && qcow2_holes_find_best(q->holes, bytes, end, offset)) {
            ret = co_hole_take(node, *offset, bytes, refs);
        } else {
            ret = co_take_lowest(node, bytes, refs, below, offset);
        }
    } while (ret == -ERANGE);
    return ret;
}
