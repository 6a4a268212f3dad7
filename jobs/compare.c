/* SPDX-License-Identifier: MIT */
/*
 * compare.c - compares two nodes, with many requests in flight.
 *
 * Some workers, each a coroutine with two buffers, take the next piece that must be read one after the other:
 *
 *   cursor --status of both sides--> passed over | piece --read both at once--> buffers --compare--> next piece
 *
 * Pieces are claimed in the order of their offsets and may be finished in any. So when one has a finding, all before it
 * are claimed already: nothing more is claimed, those before it are finished, and the first finding is what they leave.
 * Parts of a piece are compared as soon as they are read, by the thread whose caches hold them.
 */
#include "jobs/compare.h"

#include <inttypes.h>
#include <string.h>

#define CHUNK_BYTES ((uint64_t)2 << 20)     /* of a piece; an error in it counts before a difference */
#define PART_BYTES  ((uint64_t)256 << 10)   /* read at once: what caches hold until it is compared */

typedef struct Side {
    BlkNode *node;
    uint64_t length;
    BlkStatus status;           /* of what lies at start ... */
    uint64_t start, end;        /* ... up to here; end <= the cursor: not known */
} Side;

typedef struct Comparison {
    BlkCompare *compare;
    Side side[2];
    uint64_t length;            /* of the longer side */
    uint64_t part;              /* bytes of a piece that are read at once: whole clusters */
    BlkCoMutex claim_lock;
    uint64_t next;              /* what is before it is claimed */
    uint64_t done;              /* bytes */
} Comparison;

/* A range that must be read on one side at least; it is zero on a side that need not be. */
typedef struct Piece {
    uint64_t offset, bytes;
    bool read[2];
} Piece;

static void found(Comparison *c, const BlkFinding *finding)
{
    BlkFinding *first = &c->compare->finding;

    if (first->kind == BLK_FINDING_NONE || finding->offset < first->offset) {
        *first = *finding;
    }
}

static void account(Comparison *c, uint64_t bytes)
{
    c->done += bytes;
    if (c->compare->progress) {
        c->compare->progress((double)c->done / c->length, c->compare->opaque);
    }
}

/* ---- claiming ---- */

/* Learns what @side has at the cursor, if it reaches there. Returns: false after an error. */
static bool co_learn_status(Comparison *c, Side *side)
{
    int ret;

    if (side->end > c->next || c->next >= side->length) {
        return true;
    }
    ret = blk_co_block_status_above(side->node, NULL, c->next, side->length - c->next, &side->status);
    if (ret < 0) {
        found(c, &(BlkFinding) { BLK_FINDING_NO_STATUS, c->next, side->node, ret });
        return false;
    }
    side->start = c->next;
    side->end = c->next + side->status.bytes;
    return true;
}

static bool must_read(const Comparison *c, const Side *side)
{
    return c->next < side->length && !(side->status.flags & BLK_STATUS_ZERO);
}

/* (nullable): the file that @side's data is read from, if no filter lies between, which might change it. */
static const BlkNode *file_of(const Side *side)
{
    BlkNode *node = side->node, *file = side->status.file;

    for (unsigned depth = 0; depth < side->status.depth; depth++) {
        if (!node->backing) {
            return NULL;
        }
        node = node->backing->node;
    }
    if (node->driver->kind == BLK_FORMAT && node->file) {
        node = node->file->node;
    }
    return node == file && file->driver->kind == BLK_PROTOCOL ? file : NULL;
}

static bool same_file(const BlkNode *a, const BlkNode *b)
{
    const char *name = blk_node_filename(a);

    return a == b || (a->driver == b->driver && !g_str_has_prefix(name, "json:")
                      && strcmp(name, blk_node_filename(b)) == 0);
}

/* Is the data that both sides have at the cursor the same place of the same file, as with two overlays of one image? */
static bool same_place(const Comparison *c)
{
    const Side *a = &c->side[0], *b = &c->side[1];
    const bool places = a->status.flags & b->status.flags & BLK_STATUS_OFFSET;
    const BlkNode *file_a = places ? file_of(a) : NULL, *file_b = places ? file_of(b) : NULL;

    return file_a && file_b && same_file(file_a, file_b)
           && a->status.host_offset - a->start == b->status.host_offset - b->start;
}

static bool status_differs(const Comparison *c)
{
    const unsigned relevant = BLK_STATUS_DATA | BLK_STATUS_ZERO | BLK_STATUS_ALLOCATED;

    return ((c->side[0].status.flags ^ c->side[1].status.flags) & relevant) != 0;
}

/* Returns: whether there is a piece to read. */
static bool co_claim_locked(Comparison *c, Piece *piece)
{
    while (c->next < c->length && c->compare->finding.kind == BLK_FINDING_NONE) {
        Side *a = &c->side[0], *b = &c->side[1];
        const bool both = c->next < MIN(a->length, b->length);
        uint64_t end;

        if (!co_learn_status(c, a) || !co_learn_status(c, b)) {
            break;
        }
        if (both && c->compare->strict && status_differs(c)) {
            found(c, &(BlkFinding) { BLK_FINDING_STATUS, c->next });
            break;
        }
        end = both ? MIN(a->end, b->end) : MAX(a->end, b->end);
        *piece = (Piece) { .offset = c->next, .read = { must_read(c, a), must_read(c, b) } };
        if (piece->read[0] != piece->read[1] || (piece->read[0] && !same_place(c))) {
            piece->bytes = MIN(end - c->next, CHUNK_BYTES);
            c->next += piece->bytes;
            return true;
        }
        account(c, end - c->next);
        c->next = end;
    }
    return false;
}

static bool co_claim(Comparison *c, Piece *piece)
{
    bool claimed;

    blk_co_mutex_lock(&c->claim_lock);
    claimed = co_claim_locked(c, piece);
    blk_co_mutex_unlock(&c->claim_lock);
    return claimed;
}

/* ---- reading ---- */

typedef struct SideRead {
    BlkNode *node;
    uint64_t offset, bytes;
    uint8_t *buf;
    int ret;
} SideRead;

static int co_read_side(void *opaque)
{
    SideRead *read = opaque;

    read->ret = blk_co_pread(read->node, read->offset, read->bytes, read->buf, 0);
    return 0;
}

/* Reads a part of the piece. Returns: false after an error, which is the first side's if both have one. */
static bool co_read_part(Comparison *c, const Piece *piece, uint64_t pos, uint64_t bytes, uint8_t *const buf[2])
{
    BlkCoGroup group = BLK_CO_GROUP_INIT(2);
    SideRead read[2];

    for (unsigned i = 0; i < 2; i++) {
        read[i] = (SideRead) { c->side[i].node, piece->offset + pos, bytes, buf[i], 0 };
    }

    if (piece->read[0] && piece->read[1]) {
        blk_co_group_run(&group, co_read_side, &read[1]);
    }
    co_read_side(&read[piece->read[0] ? 0 : 1]);
    blk_co_group_wait(&group);
    for (unsigned i = 0; i < 2; i++) {
        if (read[i].ret < 0) {
            found(c, &(BlkFinding) { BLK_FINDING_NOT_READ, piece->offset, read[i].node, read[i].ret });
            return false;
        }
    }
    return true;
}

/* ---- comparing ---- */

/* Bytes before the first one that differs. @b: (nullable): zeroes. */
static uint64_t match_buffers(const uint8_t *a, const uint8_t *b, uint64_t bytes)
{
    uint64_t same = 0;

    if (b ? memcmp(a, b, bytes) == 0 : blk_buffer_is_zero(a, bytes)) {
        return bytes;
    }
    while (a[same] == (b ? b[same] : 0)) {
        same++;
    }
    return same;
}

static void co_compare_piece(Comparison *c, const Piece *piece, uint8_t *const buf[2])
{
    const uint8_t *first = buf[piece->read[0] ? 0 : 1], *second = piece->read[0] && piece->read[1] ? buf[1] : NULL;
    uint64_t same = 0;          /* bytes of the piece before the first difference */

    for (uint64_t pos = 0; pos < piece->bytes; pos += c->part) {
        const uint64_t bytes = MIN(piece->bytes - pos, c->part);

        if (!co_read_part(c, piece, pos, bytes, buf)) {
            return;
        }
        if (same == pos) {
            same += match_buffers(first, second, bytes);
        }
    }
    if (same < piece->bytes) {
        found(c, &(BlkFinding) { BLK_FINDING_CONTENT, piece->offset + same });
    }
    account(c, piece->bytes);
}

static int co_work(void *opaque)
{
    Comparison *c = opaque;
    uint8_t *buf[2];
    Piece piece;
    int ret = 0;

    for (unsigned i = 0; i < 2; i++) {
        buf[i] = blk_buffer_try_alloc(c->side[i].node, c->part);
        ret = buf[i] ? ret : -ENOMEM;
    }
    while (ret == 0 && co_claim(c, &piece)) {
        co_compare_piece(c, &piece, buf);
    }
    blk_buffer_free(buf[0]);
    blk_buffer_free(buf[1]);
    return ret;
}

int blk_co_compare(BlkCompare *compare, GError **error)
{
    Comparison c = { .compare = compare, .part = PART_BYTES };
    BlkCoGroup group = BLK_CO_GROUP_INIT(compare->workers);
    int ret;

    compare->finding = (BlkFinding) { BLK_FINDING_NONE };
    for (unsigned i = 0; i < 2; i++) {
        c.side[i] = (Side) { .node = compare->node[i], .length = blk_node_length(compare->node[i]) };
        c.length = MAX(c.length, c.side[i].length);
        c.part = MAX(c.part, MIN(blk_node_limits(compare->node[i])->cluster_size, CHUNK_BYTES));
    }
    for (unsigned i = 0; i < compare->workers; i++) {
        if (blk_co_group_run(&group, co_work, &c) < 0) {
            break;
        }
    }
    ret = blk_co_group_wait(&group);
    return ret < 0 ? blk_error(error, ret, "no memory for %u times two buffers of %" PRIu64 " bytes", compare->workers,
                               c.part) : 0;
}
