/* SPDX-License-Identifier: MIT */
/*
 * compact_shrink.c - compresses clusters that are stored plainly, or that others compressed less well.
 *
 * Payloads at odd places were packed to the byte: they are written anew, since they would need a sector more when they are
 * moved to a sector's start as they are. The other payloads are written anew only if a sample says that it is worth while.
 */
#include "drivers/qcow2/compact.h"

enum {
    SAMPLE = 64,                        /* payloads that are tried */
    WORTH_WHILE = 100,                  /* one part of so many must be won */
    LIST = 4096,                        /* clusters that are listed at once */
};

typedef struct Cluster {
    uint64_t guest, space;
    bool always;                        /* a payload at an odd place */
} Cluster;

typedef struct Shrink {
    Qcow2Compact *c;
    bool all;                           /* also payloads that lie well */
    GArray *clusters;                   /* of Cluster */
    guint next;
    uint64_t failed;                    /* guest offset */
} Shrink;

/* ---- which clusters ---- */

static bool payload_is_known(const Qcow2 *q, uint64_t offset, uint64_t bytes)
{
    return qcow2_payload_is_known(q, qcow2_cluster_of(q, offset)) &&
           qcow2_payload_is_known(q, qcow2_cluster_of(q, offset + bytes - 1));
}

/* Qcow2WalkFn: lists what may be stored in less space and belongs to nobody else. */
static void list_entry(Qcow2 *q, uint64_t guest, uint64_t word, bool shared, void *opaque)
{
    Shrink *s = opaque;
    Cluster cluster = { .guest = guest };
    uint64_t offset, bytes;

    if (shared || guest >= q->header.size || qcow2_entry_extent(q, word, &offset, &bytes) < 0 || bytes == 0) {
        return;
    }
    if (word & QCOW2_COMPRESSED) {
        if (!payload_is_known(q, offset, bytes) || (offset % 512 == 0 && !s->all)) {
            return;
        }
        cluster.space = ((offset & 511) + bytes + 511) & ~UINT64_C(511);
        cluster.always = offset % 512 != 0;
    } else if (word & QCOW2_COPIED) {
        cluster.space = q->cluster_size;
    } else {
        return;
    }
    g_array_append_val(s->clusters, cluster);
}

/* Is all of the cluster's data here, and some of it in host space? */
static int co_is_whole(BlkNode *node, uint64_t guest, bool *whole)
{
    uint64_t end = MIN(guest + node->limits.cluster_size, node->length);
    BlkMapping map;

    *whole = true;
    for (uint64_t pos = guest; *whole && pos < end; pos += map.bytes) {
        int ret = qcow2_co_map(node, pos, end - pos, &map);
        if (ret < 0) {
            return ret;
        }
        *whole = map.kind != BLK_MAP_UNALLOCATED || !node->backing;
    }
    return 0;
}

/* ---- doing it ---- */

static int co_shrink_one(Shrink *s, const Cluster *cluster)
{
    BlkNode *node = s->c->node;
    uint64_t after;
    bool whole;
    int ret = co_is_whole(node, cluster->guest, &whole);

    if (ret == 0 && whole) {
        ret = blk_engine_co_shrink_cluster(node, cluster->guest, cluster->space,
                                           cluster->always ? BLK_SHRINK_ALWAYS : 0, &after);
    }
    if (ret < 0) {
        s->failed = cluster->guest;
    }
    return ret;
}

static int co_shrink_task(void *opaque)
{
    Shrink *s = opaque;
    int ret = 0;

    while (ret == 0 && s->next < s->clusters->len) {
        const Cluster cluster = g_array_index(s->clusters, Cluster, s->next++);
        ret = co_shrink_one(s, &cluster);
    }
    return ret;
}

static int co_shrink_listed(Shrink *s)
{
    BlkCoGroup group = BLK_CO_GROUP_INIT(QCOW2_COMPACT_TASKS);

    s->next = 0;
    for (unsigned i = 0; i < MIN(QCOW2_COMPACT_TASKS, s->clusters->len); i++) {
        if (blk_co_group_run(&group, co_shrink_task, s) < 0) {
            break;
        }
    }
    int ret = blk_co_group_wait(&group);
    g_array_set_size(s->clusters, 0);
    return ret;
}

/* Would it be worth while to write the payloads anew that lie well? */
static int co_sample(Shrink *s, bool *worth_while)
{
    BlkNode *node = s->c->node;
    uint64_t before = 0, after = 0, tried = 0, pos, step = MAX(node->length / SAMPLE, node->limits.cluster_size);
    int ret = 0;

    s->all = true;
    for (uint64_t start = 0; ret == 0 && start < node->length && tried < SAMPLE; start += step) {
        pos = start & ~(uint64_t)(node->limits.cluster_size - 1);
        ret = qcow2_co_walk(node, &pos, list_entry, s);
        for (guint i = 0; ret == 0 && i < s->clusters->len; i++) {
            const Cluster *cluster = &g_array_index(s->clusters, Cluster, i);
            uint64_t space;
            if (cluster->space == node->limits.cluster_size || cluster->always) {
                continue;
            }
            ret = blk_engine_co_shrink_cluster(node, cluster->guest, cluster->space, BLK_SHRINK_DRY, &space);
            before += cluster->space;
            after += space;
            tried++;
            s->failed = cluster->guest;
            break;
        }
        g_array_set_size(s->clusters, 0);
    }
    s->all = false;
    *worth_while = before > 0 && before - after > before / WORTH_WHILE;
    return ret;
}

int qcow2_co_compact_shrink(Qcow2Compact *c, GError **error)
{
    g_autoptr(GArray) clusters = g_array_new(FALSE, FALSE, sizeof(Cluster));
    Shrink s = { .c = c, .clusters = clusters };
    int ret = co_sample(&s, &s.all);

    for (uint64_t pos = 0; ret == 0 && pos < c->node->length;) {
        ret = qcow2_co_walk(c->node, &pos, list_entry, &s);
        if (ret == 0 && (clusters->len >= LIST || pos >= c->node->length)) {
            ret = co_shrink_listed(&s);
        }
        qcow2_compact_progress(c, (double)pos / (double)c->node->length);
    }
    if (ret < 0) {
        return blk_error_errno(error, ret, "could not store the cluster at guest offset %" PRIu64 " in less space", s.failed);
    }
    return 0;
}
