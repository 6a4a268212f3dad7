/* SPDX-License-Identifier: MIT */
/*
 * survey.c - finds the holes that an image had when it was opened, while it is read and written.
 *
 * A coroutine that the first compressed write starts walks through the active L2 tables and counts, for each host cluster
 * that is not known yet, the payloads that refer to it and the uses of each of its sectors:
 *
 *     guest   |.......counted.......|pos            not counted yet             |
 *     host    |..done (known)..|first   window   end|  ...the next windows      |
 *
 * A cluster whose reference count is just what was counted has no reference that we do not know: it becomes known, and
 * its unused sectors become holes (payload.c). A payload that is reserved but not published, or dropped but not given back,
 * or that a snapshot holds too, makes the count larger, so that the comparison is safe beside writes. What is published
 * before "pos" meanwhile is taken out again.
 *
 * Memory is bounded by the window; for large images the tables are walked through once for each window.
 *
 * Limitations: a cluster that a snapshot shares never becomes known. One that lost a payload just when it was compared gets
 * one more chance, after a commit.
 */
#include "drivers/qcow2/qcow2.h"

#define WINDOW_BYTES (UINT64_C(32) << 20)       /* memory for one window */

enum {
    ADOPT_CHUNK = 64,                           /* clusters that are compared before others get a turn */
    ENTRY_OVERHEAD = 64,                        /* bytes that a hash table takes for an entry, about */
};

typedef struct SurveyCluster {
    uint64_t refs;
    bool unusable;                              /* a sector has more uses than fit */
    uint8_t *uses;                              /* of each sector */
} SurveyCluster;

struct Qcow2Survey {
    uint64_t first, end;                        /* window: host clusters */
    uint64_t pos;                               /* guest offset */
    GHashTable *clusters;                       /* index -> SurveyCluster */
    uint8_t *plain;                             /* bitmap of the window: a plain entry refers to the cluster */
    bool stop;
    BlkCoQueue committed, ended;                /* wait for the next commit, and for the end of the survey */
};

static void cluster_free(void *data)
{
    SurveyCluster *c = data;

    g_free(c->uses);
    g_free(c);
}

/* ---- counting ---- */

static SurveyCluster *cluster_at(Qcow2 *q, uint64_t index)
{
    SurveyCluster *c = g_hash_table_lookup(q->survey->clusters, GSIZE_TO_POINTER(index));

    if (!c) {
        c = g_new0(SurveyCluster, 1);
        c->uses = g_new0(uint8_t, q->cluster_size / 512);
        g_hash_table_insert(q->survey->clusters, GSIZE_TO_POINTER(index), c);
    }
    return c;
}

/* A payload's part in one cluster: one reference more, or less. */
static void count_part(Qcow2 *q, uint64_t offset, uint64_t bytes, bool more)
{
    SurveyCluster *c = cluster_at(q, qcow2_cluster_of(q, offset));
    uint64_t in_cluster = offset & (q->cluster_size - 1);

    c->refs += more ? 1 : -1;
    for (uint64_t i = in_cluster / 512; i < (in_cluster + bytes + 511) / 512; i++) {
        if (more ? c->uses[i] == UINT8_MAX : c->uses[i] == 0) {
            c->unusable = true;
        } else {
            c->uses[i] += more ? 1 : -1;
        }
    }
}

static void count_payload(Qcow2 *q, uint64_t offset, uint64_t bytes, bool more)
{
    for (uint64_t pos = offset, end = offset + bytes; pos < end;) {
        uint64_t index = qcow2_cluster_of(q, pos);
        uint64_t n = MIN(end, (index + 1) << q->cluster_bits) - pos;
        if (index >= q->survey->first && index < q->survey->end && !qcow2_payload_is_known(q, index)) {
            count_part(q, pos, n, more);
        }
        pos += n;
    }
}

static void count_entry(Qcow2 *q, uint64_t guest, uint64_t entry, bool shared, void *unused)
{
    Qcow2Survey *s = q->survey;
    uint64_t offset, bytes;

    if (qcow2_entry_extent(q, entry, &offset, &bytes) < 0 || bytes == 0) {
        return;
    }
    if (entry & QCOW2_COMPRESSED) {
        count_payload(q, offset, bytes, true);
    } else if (qcow2_cluster_of(q, offset) >= s->first && qcow2_cluster_of(q, offset) < s->end) {
        uint64_t bit = qcow2_cluster_of(q, offset) - s->first;
        s->plain[bit / 8] |= 1u << (bit % 8);
    }
}

void qcow2_survey_dropped(Qcow2 *q, uint64_t guest_offset, uint64_t offset, uint64_t bytes)
{
    if (q->survey && guest_offset < q->survey->pos) {
        count_payload(q, offset, bytes, false);
    }
}

void qcow2_survey_cluster_freed(Qcow2 *q, uint64_t cluster)
{
    if (q->survey) {
        g_hash_table_remove(q->survey->clusters, GSIZE_TO_POINTER(cluster));
    }
}

static int co_count_all(BlkNode *node)
{
    Qcow2 *q = node->opaque;
    Qcow2Survey *s = q->survey;
    int ret = 0;

    while (ret == 0 && !s->stop && s->pos < node->length) {
        ret = qcow2_co_walk(node, &s->pos, count_entry, NULL);
        blk_co_reschedule();
    }
    return ret;
}

/* ---- comparing ---- */

/* With alloc_lock held. */
static int co_compare(BlkNode *node, uint64_t index)
{
    Qcow2 *q = node->opaque;
    Qcow2Survey *s = q->survey;
    uint64_t bit = index - s->first, refcount;
    int ret = qcow2_co_refcount_get(node, index, &refcount);
    SurveyCluster *c = g_hash_table_lookup(s->clusters, GSIZE_TO_POINTER(index));

    if (ret < 0 || !c || c->unusable || c->refs == 0 || c->refs != refcount || qcow2_is_table(q, index) ||
        (s->plain[bit / 8] >> (bit % 8) & 1)) {
        return ret;
    }
    qcow2_payload_learn(q, index, g_steal_pointer(&c->uses));
    g_hash_table_remove(s->clusters, GSIZE_TO_POINTER(index));
    return 0;
}

static int co_compare_all(BlkNode *node)
{
    Qcow2 *q = node->opaque;
    Qcow2Survey *s = q->survey;
    guint count;
    g_autofree void **indexes = g_hash_table_get_keys_as_array(s->clusters, &count);
    int ret = 0;

    for (guint i = 0; ret == 0 && !s->stop && i < count;) {
        blk_co_mutex_lock(&q->alloc_lock);
        for (guint end = i + MIN(ADOPT_CHUNK, count - i); ret == 0 && i < end; i++) {
            ret = co_compare(node, GPOINTER_TO_SIZE(indexes[i]));
        }
        blk_co_mutex_unlock(&q->alloc_lock);
        blk_co_reschedule();
    }
    return ret;
}

/* ---- how much is in use ---- */

/* Counts the clusters that are in use, all there can be: from then on changes of counts keep the number up to date. */
static int co_count_used(BlkNode *node)
{
    Qcow2 *q = node->opaque;
    uint64_t end = q->host_limit >> q->cluster_bits;
    uint64_t file_clusters = qcow2_cluster_of(q, blk_node_length(node->file->node) + q->cluster_size - 1);
    int ret = 0;

    q->used_clusters = q->used_counted = 0;
    while (ret == 0 && !q->survey->stop && q->used_counted < file_clusters) {
        uint64_t index, count;
        BlkMetaBlock *block;
        blk_co_mutex_lock(&q->alloc_lock);
        ret = qcow2_co_refcount_find(node, q->used_counted, &block, &index, &count);
        for (uint64_t i = index; ret == 0 && block && i < count; i++) {
            q->used_clusters += qcow2_refcount_get(block->data, q->header.refcount_order, i) != 0;
        }
        q->used_counted += block ? count - index : UINT64_C(1) << q->refblock_bits;
        blk_meta_put(q->meta, block);
        blk_co_mutex_unlock(&q->alloc_lock);
        blk_co_reschedule();
    }
    if (ret == 0 && q->used_counted >= file_clusters) {
        q->used_counted = end;
    }
    return ret;
}

/* ---- the survey ---- */

void qcow2_survey_committed(Qcow2 *q)
{
    if (q->survey) {
        blk_co_queue_wake_all(&q->survey->committed);
    }
}

static void survey_free(Qcow2Survey *s)
{
    g_hash_table_unref(s->clusters);
    g_free(s->plain);
    g_free(s);
}

static int co_window(BlkNode *node)
{
    Qcow2 *q = node->opaque;
    Qcow2Survey *s = q->survey;

    s->pos = 0;
    memset(s->plain, 0, (s->end - s->first) / 8 + 1);
    int ret = co_count_all(node);
    if (ret == 0) {
        ret = co_compare_all(node);
    }
    if (ret == 0 && !s->stop && g_hash_table_size(s->clusters) > 0 && (q->drops->len > 0 || q->frozen_drops)) {
        blk_co_queue_wait(&s->committed);       /* what was dropped is given back then */
        ret = co_compare_all(node);
    }
    g_hash_table_remove_all(s->clusters);
    return ret;
}

static int co_survey(void *opaque)
{
    BlkNode *node = opaque;
    Qcow2 *q = node->opaque;
    Qcow2Survey *s = q->survey;
    uint64_t clusters = qcow2_cluster_of(q, blk_node_length(node->file->node) + q->cluster_size - 1);
    uint64_t step = WINDOW_BYTES / (sizeof(SurveyCluster) + ENTRY_OVERHEAD + q->cluster_size / 512);
    int ret = co_count_used(node);

    step = MIN(step, clusters);
    s->plain = g_malloc(step / 8 + 1);
    for (s->first = 0; ret == 0 && !s->stop && s->first < clusters; s->first += step) {
        s->end = MIN(s->first + step, clusters);
        ret = co_window(node);
    }
    q->survey = NULL;
    blk_co_queue_wake_all(&s->ended);
    survey_free(s);
    return ret;
}

void qcow2_survey_start(BlkNode *node)
{
    Qcow2 *q = node->opaque;

    if (q->surveyed) {
        return;
    }
    q->surveyed = true;
    q->survey = g_new0(Qcow2Survey, 1);
    q->survey->clusters = g_hash_table_new_full(g_direct_hash, g_direct_equal, NULL, cluster_free);
    blk_co_spawn(node->ctx, co_survey, node);
}

void qcow2_co_survey_stop(BlkNode *node)
{
    Qcow2 *q = node->opaque;

    while (q->survey) {
        q->survey->stop = true;
        blk_co_queue_wake_all(&q->survey->committed);
        blk_co_queue_wait(&q->survey->ended);
    }
}

void qcow2_co_survey_wait(BlkNode *node)
{
    Qcow2 *q = node->opaque;

    while (q->survey) {
        blk_co_queue_wait(&q->survey->ended);
    }
}
