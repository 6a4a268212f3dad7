/* SPDX-License-Identifier: MIT */
/*
 * convert_copy.c - copies images into another one, with many requests in flight.
 *
 * Some workers, each a coroutine with one buffer, take the next piece of the sources one after the other; they read at the
 * same time and write either in the order of the pieces or as soon as they can:
 *
 *   cursor --claim--> piece (data | zeroes) --read--> buffer --wait for the turn--> write --> next piece
 *
 * Pieces end at the target's cluster borders, unless the sources end, so that no cluster is written in two parts and every
 * compressed write is whole clusters. What the target need not be told is passed over when a piece is claimed.
 */
#include "img/convert.h"

#include <inttypes.h>

#define CHUNK_BYTES ((uint64_t)2 << 20)

typedef enum PieceKind { PIECE_DATA, PIECE_ZERO, PIECE_BACKING } PieceKind;

typedef struct Piece {
    PieceKind kind;
    uint64_t offset, bytes;
    uint64_t number;            /* writes happen in this order */
} Piece;

typedef struct Pipeline {
    ConvertJob *job;
    uint64_t unit;              /* pieces are multiples of it, power of two */
    uint64_t block;             /* zeroes are looked for in blocks of this size, a multiple of the unit */
    uint64_t chunk;             /* largest piece of data, a multiple of the block */

    BlkCoMutex claim_lock;
    uint64_t next;              /* what is before it is claimed */
    PieceKind extent_kind;      /* of what lies at next ... */
    uint64_t extent_end;        /* ... up to here */

    uint64_t claimed, written;  /* pieces */
    BlkCoQueue turn;
    uint64_t done_bytes;
    uint64_t sent_bytes;        /* counts for the rate */
    gint64 start_us;
    bool failed;
} Pipeline;

/* ---- the sources as one disk ---- */

/* The source at @offset; @start is where it begins. */
static BlkNode *source_at(const ConvertJob *job, uint64_t offset, uint64_t *start)
{
    *start = 0;
    for (unsigned i = 0; i < job->sources->len; i++) {
        BlkNode *node = blk_child_node(g_ptr_array_index(job->sources, i));
        uint64_t length = blk_node_length(node);

        if (offset - *start < length) {
            return node;
        }
        *start += length;
    }
    return NULL;
}

static int read_sources(const ConvertJob *job, uint64_t offset, uint64_t bytes, uint8_t *buf)
{
    while (bytes > 0) {
        uint64_t start;
        BlkNode *node = source_at(job, offset, &start);
        uint64_t now = MIN(bytes, start + blk_node_length(node) - offset);
        int ret = blk_co_pread(node, offset - start, now, buf, 0);

        if (ret < 0) {
            tool_error("error while reading at byte %" PRIu64 ": %s", offset, g_strerror(-ret));
            return ret;
        }
        offset += now;
        buf += now;
        bytes -= now;
    }
    return 0;
}

/* What the top image of a source does not have is left to the target's backing, as far as that reaches. */
static int backing_extent(const ConvertJob *job, BlkNode *node, uint64_t start, uint64_t offset, BlkStatus *status,
                          bool *in_backing)
{
    BlkNode *base = blk_node_backing(node);
    uint64_t bytes = start + blk_node_length(node) - offset;
    int ret;

    *in_backing = false;
    if (!job->keep_backing || !base || offset >= job->backing_length) {
        return blk_co_block_status_above(node, NULL, offset - start, bytes, status);
    }
    bytes = MIN(bytes, job->backing_length - offset);
    ret = blk_co_block_status_above(node, base, offset - start, bytes, status);
    *in_backing = ret == 0 && !(status->flags & BLK_STATUS_ALLOCATED);
    return ret;
}

static int find_extent(Pipeline *p)
{
    const ConvertJob *job = p->job;
    BlkStatus status = { 0 };
    uint64_t start;
    BlkNode *node = source_at(job, p->next, &start);
    bool in_backing;
    int ret = backing_extent(job, node, start, p->next, &status, &in_backing);

    if (ret == 0 && status.bytes == 0) {
        ret = -EIO;
    }
    if (ret < 0) {
        tool_error("error while reading block status at offset %" PRIu64 ": %s", p->next, g_strerror(-ret));
        return ret;
    }
    p->extent_end = p->next + status.bytes;
    if (in_backing) {
        p->extent_kind = PIECE_BACKING;
    } else if ((status.flags & BLK_STATUS_ZERO) && job->sparse) {
        p->extent_kind = PIECE_ZERO;
    } else {
        p->extent_kind = PIECE_DATA;
    }
    return 0;
}

/* ---- claiming ---- */

static void account(Pipeline *p, uint64_t bytes)
{
    p->done_bytes += bytes;
    img_progress_update(&p->job->progress, (double)p->done_bytes / p->job->length);
}

/* Takes the next piece of whole units. A unit with several kinds in it is data: reading knows what it is. */
static void cut_piece(Pipeline *p, Piece *piece)
{
    uint64_t rest = p->job->length - p->next;
    uint64_t bytes = p->extent_end - p->next;

    piece->offset = p->next;
    piece->kind = p->extent_kind;
    if (bytes < rest) {
        bytes &= ~(p->unit - 1);
    }
    if (bytes == 0) {
        bytes = MIN(p->unit, rest);
        piece->kind = PIECE_DATA;
    }
    if (piece->kind == PIECE_DATA) {
        bytes = MIN(bytes, p->chunk);
    }
    piece->bytes = bytes;
    p->next += bytes;
}

static bool needs_no_write(const Pipeline *p, const Piece *piece)
{
    return piece->kind == PIECE_BACKING || (piece->kind == PIECE_ZERO && p->job->target_is_zero);
}

/* Returns: 1 a piece that must be written; 0 there is none left; <0 error. */
static int claim_locked(Pipeline *p, Piece *piece)
{
    while (!p->failed && p->next < p->job->length) {
        if (p->next >= p->extent_end) {
            int ret = find_extent(p);

            if (ret < 0) {
                return ret;
            }
        }
        cut_piece(p, piece);
        if (!needs_no_write(p, piece)) {
            piece->number = p->claimed++;
            return 1;
        }
        account(p, piece->bytes);
    }
    return 0;
}

static int claim(Pipeline *p, Piece *piece)
{
    int ret;

    blk_co_mutex_lock(&p->claim_lock);
    ret = claim_locked(p, piece);
    blk_co_mutex_unlock(&p->claim_lock);
    return ret;
}

/* ---- writing ---- */

static int write_zeroes(Pipeline *p, uint64_t offset, uint64_t bytes)
{
    unsigned flags = BLK_REQ_UNMAP | (p->job->fua ? BLK_REQ_FUA : 0);

    return p->job->target_is_zero ? 0 : blk_co_pwrite_zeroes(blk_child_node(p->job->target), offset, bytes, flags);
}

static int write_data(Pipeline *p, uint64_t offset, uint64_t bytes, const uint8_t *buf)
{
    const ConvertJob *job = p->job;
    BlkNode *target = blk_child_node(job->target);
    unsigned flags = job->fua ? BLK_REQ_FUA : 0;
    /* Part of a cluster, where a longer target goes on, is no compressed write. */
    uint64_t end = offset + bytes;
    uint64_t odd = end == blk_node_length(target) ? 0 : end % p->unit;
    int ret = 0;

    if (!job->compressed) {
        return blk_co_pwrite(target, offset, bytes, buf, flags);
    }
    if (bytes > odd) {
        ret = blk_co_pwrite(target, offset, bytes - odd, buf, flags | BLK_REQ_COMPRESSED);
    }
    if (ret == 0 && odd > 0) {
        ret = blk_co_pwrite(target, end - odd, odd, buf + bytes - odd, flags);
    }
    return ret;
}

/* Length of the run at @pos that is all zeroes, or has none, in whole blocks. */
static uint64_t measure_run(const Pipeline *p, const Piece *piece, const uint8_t *buf, uint64_t pos, bool *zero)
{
    uint64_t end = pos;

    while (end < piece->bytes) {
        uint64_t to_border = p->block - (piece->offset + end) % p->block;
        uint64_t bytes = MIN(to_border, piece->bytes - end);
        bool block_zero = p->job->sparse && blk_buffer_is_zero(buf + end, bytes);

        if (end == pos) {
            *zero = block_zero;
        } else if (block_zero != *zero) {
            break;
        }
        end += bytes;
    }
    return end - pos;
}

static int write_piece(Pipeline *p, const Piece *piece, const uint8_t *buf)
{
    uint64_t pos = 0, run;
    int ret = 0;

    if (piece->kind == PIECE_ZERO) {
        ret = write_zeroes(p, piece->offset, piece->bytes);
    }
    for (; piece->kind == PIECE_DATA && pos < piece->bytes && ret == 0; pos += run) {
        bool zero = false;

        run = measure_run(p, piece, buf, pos, &zero);
        ret = zero ? write_zeroes(p, piece->offset + pos, run) : write_data(p, piece->offset + pos, run, buf + pos);
        if (ret < 0) {
            break;
        }
    }
    if (ret < 0) {
        tool_error("error while writing at byte %" PRIu64 ": %s", piece->offset + pos, g_strerror(-ret));
    }
    return ret;
}

/* Sleeps until the bytes sent so far are due. */
static void keep_rate(Pipeline *p, uint64_t bytes)
{
    gint64 due_us, now_us;

    if (p->job->rate == 0) {
        return;
    }
    due_us = p->start_us + (gint64)((double)p->sent_bytes * G_USEC_PER_SEC / p->job->rate);
    now_us = g_get_monotonic_time();
    p->sent_bytes += bytes;
    if (due_us > now_us) {
        blk_co_sleep_ns((uint64_t)(due_us - now_us) * 1000);
    }
}

static int copy_piece(Pipeline *p, const Piece *piece, uint8_t *buf)
{
    int ret = 0;

    if (piece->kind == PIECE_DATA) {
        ret = read_sources(p->job, piece->offset, piece->bytes, buf);
        keep_rate(p, piece->bytes);
    }
    while (ret == 0 && p->job->in_order && p->written != piece->number && !p->failed) {
        blk_co_queue_wait(&p->turn);
    }
    if (ret == 0 && !p->failed) {
        ret = write_piece(p, piece, buf);
    }
    p->written++;
    return ret;
}

static int work(void *opaque)
{
    Pipeline *p = opaque;
    uint8_t *buf = blk_buffer_try_alloc(NULL, p->chunk);
    Piece piece;
    int ret = 0;

    if (!buf) {
        tool_error("no memory for a buffer of %" PRIu64 " bytes", p->chunk);
        ret = -ENOMEM;
    }
    while (ret == 0 && (ret = claim(p, &piece)) > 0) {
        ret = copy_piece(p, &piece, buf);
        if (ret == 0) {
            account(p, piece.bytes);
        }
        p->failed |= ret < 0;
        blk_co_queue_wake_all(&p->turn);
    }
    p->failed |= ret < 0;
    blk_co_queue_wake_all(&p->turn);
    blk_buffer_free(buf);
    return ret;
}

/* ---- all ---- */

static void set_sizes(Pipeline *p)
{
    const BlkLimits *limits = blk_node_limits(blk_child_node(p->job->target));

    p->unit = MAX(limits->cluster_size, MAX(limits->write_align, 512));
    p->block = MAX(p->unit, p->job->sparse - p->job->sparse % p->unit);
    p->chunk = MAX(CHUNK_BYTES - CHUNK_BYTES % p->block, p->block);
}

int convert_co_copy(ConvertJob *job)
{
    Pipeline pipeline = { .job = job, .start_us = g_get_monotonic_time() };
    BlkCoGroup group = BLK_CO_GROUP_INIT(job->workers);
    int ret;

    set_sizes(&pipeline);
    for (unsigned i = 0; i < job->workers; i++) {
        if (blk_co_group_run(&group, work, &pipeline) < 0) {
            break;
        }
    }
    if (blk_co_group_wait(&group) < 0) {
        return 1;
    }
    ret = blk_co_flush(blk_child_node(job->target));
    if (ret < 0) {
        tool_error("error while flushing the target: %s", g_strerror(-ret));
        return 1;
    }
    img_progress_update(&job->progress, 1);
    return 0;
}
