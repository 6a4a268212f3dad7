/* SPDX-License-Identifier: MIT */
/*
 * holes.c - free extents inside host clusters that are in use, at 512-byte grain.
 *
 * Each extent is in a tree of all, by offset (for joining and removal), and in one of the bins, which hold extents of about
 * the same length, by offset too. So the smallest extent with room, and the lowest one, are found by a look at what the bins
 * begin with. Lengths below BIN_EXACT sectors have a bin each, longer ones BIN_PARTS bins for each power of two.
 *
 * Whole free clusters are not here: the refcounts own those.
 */
#include "drivers/qcow2/qcow2.h"

enum {
    BIN_EXACT_BITS = 6, BIN_EXACT = 1 << BIN_EXACT_BITS,
    BIN_PART_BITS = 4, BIN_PARTS = 1 << BIN_PART_BITS,
    BIN_LOOK = 16,                  /* extents of a bin that are looked at, at most */
};

typedef struct Hole {
    uint64_t offset, bytes;
} Hole;

struct Qcow2Holes {
    GTree *by_offset;               /* &hole->offset -> hole */
    GTree **bins;                   /* of the same; NULL: nothing was ever in it */
    unsigned bin_count;
    uint64_t max_bytes, bytes;
};

static unsigned bin_of(uint64_t bytes)
{
    uint64_t sectors = bytes / 512;
    unsigned log;

    if (sectors < BIN_EXACT) {
        return (unsigned)sectors;
    }
    log = 63 - (unsigned)__builtin_clzll(sectors);
    return BIN_EXACT + (log - BIN_EXACT_BITS) * BIN_PARTS + ((sectors >> (log - BIN_PART_BITS)) & (BIN_PARTS - 1));
}

static int hole_compare(const void *a, const void *b, void *unused)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

Qcow2Holes *qcow2_holes_new(uint64_t max_bytes)
{
    Qcow2Holes *holes = g_new0(Qcow2Holes, 1);

    holes->max_bytes = max_bytes;
    holes->by_offset = g_tree_new_full(hole_compare, NULL, NULL, g_free);
    holes->bin_count = bin_of(max_bytes) + 1;
    holes->bins = g_new0(GTree *, holes->bin_count);
    return holes;
}

void qcow2_holes_free(Qcow2Holes *holes)
{
    if (!holes) {
        return;
    }
    for (unsigned i = 0; i < holes->bin_count; i++) {
        g_clear_pointer(&holes->bins[i], g_tree_unref);
    }
    g_free(holes->bins);
    g_tree_unref(holes->by_offset);
    g_free(holes);
}

static void hole_insert(Qcow2Holes *holes, uint64_t offset, uint64_t bytes)
{
    Hole *hole = g_new(Hole, 1);
    GTree **bin = &holes->bins[bin_of(bytes)];

    hole->offset = offset;
    hole->bytes = bytes;
    if (!*bin) {
        *bin = g_tree_new_full(hole_compare, NULL, NULL, NULL);
    }
    g_tree_insert(*bin, &hole->offset, hole);
    g_tree_insert(holes->by_offset, &hole->offset, hole);
    holes->bytes += bytes;
}

static void hole_delete(Qcow2Holes *holes, Hole *hole)
{
    holes->bytes -= hole->bytes;
    g_tree_remove(holes->bins[bin_of(hole->bytes)], &hole->offset);
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
    Hole *before = hole_before(holes, offset), *after = hole_at_or_after(holes, offset);

    g_assert(offset % 512 == 0 && bytes % 512 == 0 && bytes <= holes->max_bytes);
    g_assert(!before || before->offset + before->bytes <= offset);
    g_assert(!after || offset + bytes <= after->offset);
    if (bytes == 0) {
        return;
    }
    if (before && before->offset + before->bytes == offset && before->bytes + bytes <= holes->max_bytes) {
        offset = before->offset;
        bytes += before->bytes;
        hole_delete(holes, before);
    }
    if (after && offset + bytes == after->offset && after->bytes + bytes <= holes->max_bytes) {
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

/* A hole of the bin with @bytes, the first or the smallest of those looked at, or NULL. */
static Hole *bin_find(GTree *bin, uint64_t bytes, uint64_t below, bool smallest)
{
    GTreeNode *node = bin ? g_tree_node_first(bin) : NULL;
    Hole *found = NULL;

    for (unsigned tries = 0; node && tries < BIN_LOOK; tries++, node = g_tree_node_next(node)) {
        Hole *hole = g_tree_node_value(node);
        if (hole->offset > below - bytes || (found && (!smallest || found->bytes == bytes))) {
            break;
        }
        if (hole->bytes >= bytes && (!found || hole->bytes < found->bytes)) {
            found = hole;
        }
    }
    return found;
}

bool qcow2_holes_find_best(const Qcow2Holes *holes, uint64_t bytes, uint64_t below, uint64_t *offset)
{
    Hole *found = NULL;

    for (unsigned i = bin_of(bytes); !found && below >= bytes && i < holes->bin_count; i++) {
        found = bin_find(holes->bins[i], bytes, below, true);
    }
    *offset = found ? found->offset : UINT64_MAX;
    return found != NULL;
}

bool qcow2_holes_find_lowest(const Qcow2Holes *holes, uint64_t bytes, uint64_t *offset)
{
    *offset = UINT64_MAX;
    for (unsigned i = bin_of(bytes); i < holes->bin_count; i++) {
        const Hole *hole = bin_find(holes->bins[i], bytes, UINT64_MAX, false);
        *offset = hole ? MIN(*offset, hole->offset) : *offset;
    }
    return *offset != UINT64_MAX;
}

uint64_t qcow2_holes_bytes(const Qcow2Holes *holes)
{
    return holes->bytes;
}
