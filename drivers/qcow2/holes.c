/* SPDX-License-Identifier: MIT */
/*
 * holes.c - free extents inside host clusters that are in use, at 512-byte grain.
 *
 * Each extent is in a tree by offset (for joining and removal) and in a list of its length in sectors (for the best fit);
 * a bitmap of the lengths that exist makes finding the best fit a short scan. Whole free clusters are not here: the
 * refcounts own those.
 */
#include "drivers/qcow2/qcow2.h"

typedef struct Hole {
    uint64_t offset, bytes;
    struct Hole *prev, *next;       /* among holes of the same length */
} Hole;

struct Qcow2Holes {
    GTree *by_offset;               /* &hole->offset -> hole */
    Hole **by_sectors;              /* [length in sectors] -> list */
    uint64_t *present;              /* bitmap over by_sectors */
    uint64_t max_sectors, bytes;
};

static int hole_compare(const void *a, const void *b, void *unused)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

Qcow2Holes *qcow2_holes_new(uint64_t max_bytes)
{
    Qcow2Holes *holes = g_new0(Qcow2Holes, 1);

    holes->max_sectors = max_bytes / 512;
    holes->by_offset = g_tree_new_full(hole_compare, NULL, NULL, g_free);
    holes->by_sectors = g_new0(Hole *, holes->max_sectors + 1);
    holes->present = g_new0(uint64_t, holes->max_sectors / 64 + 1);
    return holes;
}

void qcow2_holes_free(Qcow2Holes *holes)
{
    if (!holes) {
        return;
    }
    g_tree_unref(holes->by_offset);
    g_free(holes->by_sectors);
    g_free(holes->present);
    g_free(holes);
}

static void hole_insert(Qcow2Holes *holes, uint64_t offset, uint64_t bytes)
{
    Hole *hole = g_new0(Hole, 1);
    uint64_t sectors = bytes / 512;

    hole->offset = offset;
    hole->bytes = bytes;
    hole->next = holes->by_sectors[sectors];
    if (hole->next) {
        hole->next->prev = hole;
    }
    holes->by_sectors[sectors] = hole;
    holes->present[sectors / 64] |= UINT64_C(1) << (sectors % 64);
    holes->bytes += bytes;
    g_tree_insert(holes->by_offset, &hole->offset, hole);
}

static void hole_delete(Qcow2Holes *holes, Hole *hole)
{
    uint64_t sectors = hole->bytes / 512;

    if (hole->next) {
        hole->next->prev = hole->prev;
    }
    if (hole->prev) {
        hole->prev->next = hole->next;
    } else {
        holes->by_sectors[sectors] = hole->next;
        if (!hole->next) {
            holes->present[sectors / 64] &= ~(UINT64_C(1) << (sectors % 64));
        }
    }
    holes->bytes -= hole->bytes;
    g_tree_remove(holes->by_offset, &hole->offset);
}

/* The last hole that begins before @offset, or NULL. */
static Hole *hole_before(Qcow2Holes *holes, uint64_t offset)
{
    GTreeNode *node = g_tree_lower_bound(holes->by_offset, &offset);

    node = node ? g_tree_node_previous(node) : g_tree_node_last(holes->by_offset);
    return node ? g_tree_node_value(node) : NULL;
}

static Hole *hole_at_or_after(Qcow2Holes *holes, uint64_t offset)
{
    GTreeNode *node = g_tree_lower_bound(holes->by_offset, &offset);

    return node ? g_tree_node_value(node) : NULL;
}

void qcow2_holes_add(Qcow2Holes *holes, uint64_t offset, uint64_t bytes)
{
    uint64_t max = holes->max_sectors * 512;
    Hole *before = hole_before(holes, offset), *after = hole_at_or_after(holes, offset);

    g_assert(offset % 512 == 0 && bytes % 512 == 0 && bytes <= max);
    g_assert(!before || before->offset + before->bytes <= offset);
    g_assert(!after || offset + bytes <= after->offset);
    if (bytes == 0) {
        return;
    }
    if (before && before->offset + before->bytes == offset && before->bytes + bytes <= max) {
        offset = before->offset;
        bytes += before->bytes;
        hole_delete(holes, before);
    }
    if (after && offset + bytes == after->offset && after->bytes + bytes <= max) {
        bytes += after->bytes;
        hole_delete(holes, after);
    }
    hole_insert(holes, offset, bytes);
}

void qcow2_holes_remove(Qcow2Holes *holes, uint64_t offset, uint64_t bytes)
{
    uint64_t end = offset + bytes;
    Hole *hole = hole_before(holes, offset);

    if (!hole || hole->offset + hole->bytes <= offset) {
        hole = hole_at_or_after(holes, offset);
    }
    while (hole && hole->offset < end) {
        uint64_t hole_offset = hole->offset, hole_end = hole->offset + hole->bytes;
        hole_delete(holes, hole);
        if (hole_offset < offset) {
            hole_insert(holes, hole_offset, offset - hole_offset);
        }
        if (hole_end > end) {
            hole_insert(holes, end, hole_end - end);
        }
        hole = hole_at_or_after(holes, offset);
        if (hole && hole->offset >= end) {
            break;
        }
    }
}

bool qcow2_holes_cover(Qcow2Holes *holes, uint64_t offset, uint64_t bytes)
{
    uint64_t pos = offset;

    while (pos < offset + bytes) {
        GTreeNode *node = g_tree_upper_bound(holes->by_offset, &pos);
        node = node ? g_tree_node_previous(node) : g_tree_node_last(holes->by_offset);
        const Hole *hole = node ? g_tree_node_value(node) : NULL;       /* the last one that begins at or before */
        if (!hole || hole->offset + hole->bytes <= pos) {
            return false;
        }
        pos = hole->offset + hole->bytes;
    }
    return true;
}

bool qcow2_holes_take(Qcow2Holes *holes, uint64_t bytes, uint64_t *offset)
{
    uint64_t sectors = bytes / 512, word = sectors / 64, words = holes->max_sectors / 64 + 1;
    uint64_t bits;

    if (sectors > holes->max_sectors) {
        return false;
    }
    bits = holes->present[word] & (~UINT64_C(0) << (sectors % 64));
    while (!bits) {
        if (++word == words) {
            return false;
        }
        bits = holes->present[word];
    }
    Hole *hole = holes->by_sectors[word * 64 + (uint64_t)__builtin_ctzll(bits)];
    uint64_t hole_offset = hole->offset, hole_bytes = hole->bytes;
    hole_delete(holes, hole);
    if (hole_bytes > bytes) {
        hole_insert(holes, hole_offset + bytes, hole_bytes - bytes);
    }
    *offset = hole_offset;
    return true;
}

uint64_t qcow2_holes_bytes(const Qcow2Holes *holes)
{
    return holes->bytes;
}
