/* SPDX-License-Identifier: MIT */
/*
 * punch.c - gives free host space back to the file system.
 *
 *     file   |used|free|used|.........free.........|used|   free to the end   |
 *                            |== whole blocks =====|     cut off at close
 *
 * Space that was given back is noted. When enough has come together, what is still free of the space that was noted the
 * time before is punched out of the file, in whole blocks, together with the free space around it. A hole costs the file
 * system as much as the write that fills it, or, where it hands discards to the disk, far more, and nobody gets space
 * meanwhile. So while writes wait for space that they have dropped themselves, what others take again does not count.
 *
 * Nothing on disk refers to free space (alloc.c), so it does not matter when a hole becomes stable. All that can fail here
 * costs space only: errors are ignored.
 */
#include "drivers/qcow2/qcow2.h"

#define PUNCH_MIN (UINT64_C(256) << 10)      /* bytes that are freed before it is worth while */

enum {
    FREED_PART = 64,                        /* parts of the file, */
    SPARE_PART = 16,                        /* or while writes wait */
    MAX_NOTED = 64 << 10,                   /* extents */
    PUNCH_BLOCK = 4096,                     /* what file systems can free, at least */
    PUNCH_CHUNK = 16,                       /* extents before allocations get a turn */
};

typedef struct Freed {
    uint64_t offset, end;
} Freed;

/* Free blocks that follow each other. */
typedef struct Run {
    BlkNode *file;
    uint64_t offset, end;
} Run;

void qcow2_note_freed(Qcow2 *q, uint64_t offset, uint64_t bytes, uint64_t bytes_now, bool soon)
{
    GArray *list = soon ? q->freed_before : q->freed;
    Freed *last = list->len > 0 ? &g_array_index(list, Freed, list->len - 1) : NULL;
    Freed freed = { offset, offset + bytes };

    q->freed_bytes += bytes_now;
    q->spare_bytes += bytes_now;
    q->freed_ever = true;
    if (last && last->end == offset) {
        last->end = freed.end;
    } else {
        g_array_append_val(list, freed);
    }
}

void qcow2_note_taken(Qcow2 *q, uint64_t bytes)
{
    q->spare_bytes -= MIN(q->spare_bytes, bytes);
}

void qcow2_punch_open(Qcow2 *q)
{
    q->freed = g_array_new(FALSE, FALSE, sizeof(Freed));
    q->freed_before = g_array_new(FALSE, FALSE, sizeof(Freed));
    q->freed_bytes = q->spare_bytes = 0;
}

void qcow2_punch_close(Qcow2 *q)
{
    g_clear_pointer(&q->freed, g_array_unref);
    g_clear_pointer(&q->freed_before, g_array_unref);
}

static int compare_freed(const void *a, const void *b)
{
    const Freed *x = a, *y = b;

    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

static void co_run_end(Run *run)
{
    if (run->end > run->offset) {
        blk_co_discard(run->file, run->offset, run->end - run->offset);
    }
    run->offset = run->end = 0;
}

static void co_run_add(Run *run, uint64_t offset, uint64_t end)
{
    if (run->end != offset) {
        co_run_end(run);
        run->offset = offset;
    }
    run->end = end;
}

/* Adds what is free of a range inside one cluster or, if clusters are small, of one block. */
static int co_add_free(BlkNode *node, Run *run, uint64_t offset, uint64_t end)
{
    Qcow2 *q = node->opaque;
    bool free = true;

    for (uint64_t pos = offset; free && pos < end; pos = ((pos >> q->cluster_bits) + 1) << q->cluster_bits) {
        uint64_t refcount;
        int ret = qcow2_co_refcount_get(node, qcow2_cluster_of(q, pos), &refcount);
        if (ret < 0) {
            return ret;
        }
        free = refcount == 0 && !qcow2_is_table(q, qcow2_cluster_of(q, pos));
    }
    if (free) {
        co_run_add(run, offset, end);
        return 0;
    }
    for (uint64_t pos = offset; pos < end; pos += PUNCH_BLOCK) {
        if (qcow2_holes_cover(q->holes, pos, PUNCH_BLOCK)) {
            co_run_add(run, pos, pos + PUNCH_BLOCK);
        }
    }
    return 0;
}

static int co_punch_extent(BlkNode *node, Run *run, const Freed *freed)
{
    Qcow2 *q = node->opaque;
    uint64_t step = MAX(q->cluster_size, PUNCH_BLOCK), file_end = blk_node_length(node->file->node);
    uint64_t pos = MAX(freed->offset & ~(uint64_t)(PUNCH_BLOCK - 1), run->end);
    uint64_t end = MIN((freed->end + PUNCH_BLOCK - 1) & ~(uint64_t)(PUNCH_BLOCK - 1),
                       file_end & ~(uint64_t)(PUNCH_BLOCK - 1));
    int ret = 0;

    while (ret == 0 && pos < end) {
        uint64_t n = MIN(end, (pos & ~(step - 1)) + step) - pos;
        ret = co_add_free(node, run, pos, pos + n);
        pos += n;
    }
    return ret;
}

/* Punches out what was noted the time before; what was noted since waits for the next time. */
static void co_punch_before(BlkNode *node)
{
    Qcow2 *q = node->opaque;
    g_autoptr(GArray) freed = q->freed_before;
    int ret = 0;

    q->freed_before = q->freed;
    q->freed = g_array_new(FALSE, FALSE, sizeof(Freed));
    q->freed_bytes = q->spare_bytes = 0;
    g_array_sort(freed, compare_freed);
    for (guint i = 0; ret == 0 && i < freed->len;) {
        Run run = { .file = node->file->node };
        blk_co_mutex_lock(&q->alloc_lock);
        for (guint end = i + MIN(PUNCH_CHUNK, freed->len - i); ret == 0 && i < end; i++) {
            ret = co_punch_extent(node, &run, &g_array_index(freed, Freed, i));
        }
        co_run_end(&run);
        blk_co_mutex_unlock(&q->alloc_lock);
    }
}

void qcow2_co_punch(BlkNode *node, bool writes_wait)
{
    Qcow2 *q = node->opaque;
    uint64_t file_bytes = blk_node_length(node->file->node);

    if (q->keep_freed) {
        return;
    }
    if (writes_wait ? q->spare_bytes > MAX(PUNCH_MIN, file_bytes / SPARE_PART) || q->freed_before->len > MAX_NOTED
                    : q->freed_bytes > MAX(PUNCH_MIN, file_bytes / FREED_PART)) {
        co_punch_before(node);
    } else if (writes_wait) {
        g_array_append_vals(q->freed_before, q->freed->data, q->freed->len);
        g_array_set_size(q->freed, 0);
    }
}

/* The end of the last cluster that is in use, or of the payloads in it. */
static int co_used_end(BlkNode *node, uint64_t *end)
{
    Qcow2 *q = node->opaque;
    uint64_t cluster = qcow2_cluster_of(q, blk_node_length(node->file->node) + q->cluster_size - 1), refcount = 0;
    int ret = 0;

    while (ret == 0 && cluster > 1) {
        ret = qcow2_co_refcount_get(node, cluster - 1, &refcount);
        if (refcount > 0 || qcow2_is_table(q, cluster - 1)) {
            break;
        }
        cluster--;
    }
    *end = cluster << q->cluster_bits;
    if (q->bump_end == *end && q->bump < *end) {
        *end = q->bump;
    }
    while (*end > 512 && qcow2_holes_cover(q->holes, *end - 512, 512)) {
        *end -= 512;
    }
    return ret;
}

void qcow2_co_give_up_free_space(BlkNode *node)
{
    Qcow2 *q = node->opaque;
    uint64_t end;

    if (!q->freed_ever) {
        return;             /* what the file is like is none of our doing */
    }
    co_punch_before(node);
    co_punch_before(node);
    blk_co_mutex_lock(&q->alloc_lock);
    if (co_used_end(node, &end) == 0 && end < blk_node_length(node->file->node)) {
        blk_co_truncate(node->file->node, end, BLK_PREALLOC_OFF, NULL);
    }
    blk_co_mutex_unlock(&q->alloc_lock);
}
