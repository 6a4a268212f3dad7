/* SPDX-License-Identifier: MIT */
/*
 * copy.c - copies a source into a node, with many requests in flight.
 *
 * Some workers, each a coroutine with one buffer, take the next piece of the source one after the other; they read at the
 * same time and write either in the order of the pieces or as soon as they can:
 *
 *   cursor --claim--> piece (data | zeroes) --read--> buffer --wait for the turn--> write --> next piece
 *
 * Pieces end at the target's cluster borders, unless the source ends, so that no cluster is written in two parts and every
 * compressed write is whole clusters. A compressed copy has small pieces, which do not wait for their turn, so that no
 * processor waits for the last cluster of a large one. What the target need not be told is passed over when a piece is claimed. With a
 * reference, a piece of data is read from both, and what is the same is not written.
 */
#include "jobs/copy.h"

#include "core/codec.h"

#include <inttypes.h>
#include <string.h>

#define CHUNK_BYTES ((uint64_t)512 << 10)           /* what was read is in a core's cache still when it is written */
#define CHUNK_BYTES_COMPRESSED ((uint64_t)2 << 20)  /* a write is clusters enough for all workers */

typedef struct Piece {
    BlkExtentKind kind;
    uint64_t offset, bytes;
    uint64_t number;            /* writes happen in this order */
} Piece;

typedef enum RunKind { RUN_DATA, RUN_ZERO, RUN_SAME } RunKind;

typedef struct Pipeline {
    BlkCopy *copy;
    uint64_t unit;              /* pieces are multiples of it, power of two */
    uint64_t block;             /* zeroes are looked for in blocks of this size, a multiple of the unit */
    uint64_t chunk;             /* largest piece of data, a multiple of the block */
    bool in_order;

    BlkCoMutex claim_lock;
    uint64_t next;              /* what is before it is claimed */
    BlkExtentKind extent_kind;  /* of what lies at next ... */
    uint64_t extent_end;        /* ... up to here */

    uint64_t claimed, written;  /* pieces */
    BlkCoQueue turn;
    uint64_t done_bytes;
    uint64_t sent_bytes;        /* counts for the rate */
    gint64 start_us;
    int ret;                    /* the first error, which is in *error */
    GError **error;
} Pipeline;

/* Keeps the first error only. */
static int fail(Pipeline *p, int ret, GError *error)
{
    if (p->ret == 0) {
        p->ret = ret;
        g_propagate_error(p->error, error);
    } else {
        g_clear_error(&error);
    }
    blk_co_queue_wake_all(&p->turn);
    return ret;
}

/* ---- claiming ---- */

static void account(Pipeline *p, uint64_t bytes)
{
    p->done_bytes += bytes;
    if (p->copy->progress) {
        p->copy->progress((double)p->done_bytes / p->copy->source->length, p->copy->opaque);
    }
}

/* Zeroes differ from a reference that has data; where it reads as zeroes too there is nothing to do. */
static int co_zeroes_against_reference(Pipeline *p, BlkExtent *extent, GError **error)
{
    BlkNode *reference = p->copy->reference;
    BlkStatus status;
    int ret;

    if (p->next >= blk_node_length(reference)) {
        extent->kind = BLK_EXTENT_BACKING;
        return 0;
    }
    ret = blk_co_block_status_above(reference, NULL, p->next, extent->bytes, &status);
    if (ret < 0) {
        return blk_error_errno(error, ret, "error while reading block status of '%s' at offset %" PRIu64,
                               blk_node_filename(reference), p->next);
    }
    extent->bytes = status.bytes;
    extent->kind = status.flags & BLK_STATUS_ZERO ? BLK_EXTENT_BACKING : BLK_EXTENT_DATA;
    return 0;
}

static int co_find_extent(Pipeline *p, GError **error)
{
    BlkSource *source = p->copy->source;
    BlkExtent extent;
    int ret = source->co_extent(source, p->next, source->length - p->next, &extent, error);

    if (ret == 0 && extent.kind == BLK_EXTENT_ZERO && p->copy->reference) {
        ret = co_zeroes_against_reference(p, &extent, error);
    }
    if (ret == 0) {
        p->extent_kind = extent.kind;
        p->extent_end = p->next + extent.bytes;
    }
    return ret;
}

/* Takes the next piece of whole units. A unit with several kinds in it is data: reading knows what it is. */
static void cut_piece(Pipeline *p, Piece *piece)
{
    uint64_t rest = p->copy->source->length - p->next;
    uint64_t bytes = p->extent_end - p->next;

    piece->offset = p->next;
    piece->kind = p->extent_kind;
    if (bytes < rest) {
        bytes &= ~(p->unit - 1);
    }
    if (bytes == 0) {
        bytes = MIN(p->unit, rest);
        piece->kind = BLK_EXTENT_DATA;
    }
    if (piece->kind == BLK_EXTENT_DATA) {
        bytes = MIN(bytes, p->chunk);
    }
    piece->bytes = bytes;
    p->next += bytes;
}

static bool needs_no_write(const Pipeline *p, const Piece *piece)
{
    return piece->kind == BLK_EXTENT_BACKING || (piece->kind == BLK_EXTENT_ZERO && p->copy->target_is_zero);
}

/* Returns: 1 a piece that must be written; 0 there is none left; <0 error. */
static int co_claim_locked(Pipeline *p, Piece *piece, GError **error)
{
    while (p->ret == 0 && p->next < p->copy->source->length) {
        int ret = p->copy->cancel ? blk_error(error, -ECANCELED, "the copy was cancelled") : 0;

        if (ret == 0 && p->next >= p->extent_end) {
            ret = co_find_extent(p, error);
        }
        if (ret < 0) {
            return ret;
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

static int co_claim(Pipeline *p, Piece *piece, GError **error)
{
    int ret;

    blk_co_mutex_lock(&p->claim_lock);
    ret = co_claim_locked(p, piece, error);
    blk_co_mutex_unlock(&p->claim_lock);
    return ret;
}

/* ---- reading ---- */

/* What the reference has at the place of @piece. */
static int co_read_reference(Pipeline *p, const Piece *piece, uint8_t *buf, GError **error)
{
    BlkNode *reference = p->copy->reference;
    uint64_t length = blk_node_length(reference);
    uint64_t bytes = MIN(piece->bytes, length - MIN(length, piece->offset));
    int ret = bytes > 0 ? blk_co_pread(reference, piece->offset, bytes, buf, 0) : 0;

    memset(buf + bytes, 0, piece->bytes - bytes);
    return ret < 0 ? blk_error_errno(error, ret, "error while reading '%s' at byte %" PRIu64,
                                     blk_node_filename(reference), piece->offset) : 0;
}

/* Sleeps until the bytes sent so far are due. */
static void co_keep_rate(Pipeline *p, uint64_t bytes)
{
    gint64 due_us, now_us;

    if (p->copy->rate == 0) {
        return;
    }
    due_us = p->start_us + (gint64)((double)p->sent_bytes * G_USEC_PER_SEC / p->copy->rate);
    now_us = g_get_monotonic_time();
    p->sent_bytes += bytes;
    if (due_us > now_us) {
        blk_co_sleep_ns((uint64_t)(due_us - now_us) * 1000);
    }
}

/* @other: for what the reference has. */
static int co_read_piece(Pipeline *p, const Piece *piece, uint8_t *buf, uint8_t *other, GError **error)
{
    BlkSource *source = p->copy->source;
    int ret = source->co_read(source, piece->offset, piece->bytes, buf, error);

    if (ret == 0 && p->copy->reference) {
        ret = co_read_reference(p, piece, other, error);
    }
    if (ret == 0) {
        co_keep_rate(p, piece->bytes);
    }
    return ret;
}

/* ---- writing ---- */

static int co_write_zeroes(Pipeline *p, uint64_t offset, uint64_t bytes)
{
    unsigned flags = BLK_REQ_UNMAP | (p->copy->fua ? BLK_REQ_FUA : 0) | (p->copy->reference ? BLK_REQ_HIDE : 0);

    return p->copy->target_is_zero ? 0 : blk_co_pwrite_zeroes(p->copy->target, offset, bytes, flags);
}

/* The first @bytes of a cluster that goes on in the target: with what is there, it is compressed as a whole. */
static int co_write_head_compressed(Pipeline *p, uint64_t offset, uint64_t bytes, const uint8_t *buf, unsigned flags)
{
    BlkNode *target = p->copy->target;
    uint64_t whole = MIN(p->unit, blk_node_length(target) - offset);
    uint8_t *cluster = blk_buffer_try_alloc(target, whole);
    int ret = cluster ? blk_co_pread(target, offset, whole, cluster, 0) : -ENOMEM;

    if (ret == 0) {
        memcpy(cluster, buf, bytes);
        ret = blk_co_pwrite(target, offset, whole, cluster, flags);
    }
    blk_buffer_free(cluster);
    return ret;
}

static int co_write_data(Pipeline *p, uint64_t offset, uint64_t bytes, const uint8_t *buf)
{
    BlkNode *target = p->copy->target;
    unsigned flags = (p->copy->fua ? BLK_REQ_FUA : 0) | (p->copy->compressed ? BLK_REQ_COMPRESSED | p->copy->compression : 0);
    uint64_t end = offset + bytes;
    uint64_t odd = !p->copy->compressed || end == blk_node_length(target) ? 0 : end % p->unit;
    int ret = bytes > odd ? blk_co_pwrite(target, offset, bytes - odd, buf, flags) : 0;

    return ret < 0 || odd == 0 ? ret : co_write_head_compressed(p, end - odd, odd, buf + bytes - odd, flags);
}

static RunKind kind_of(const Pipeline *p, const uint8_t *buf, const uint8_t *other, uint64_t bytes)
{
    if (p->copy->reference && memcmp(buf, other, bytes) == 0) {
        return RUN_SAME;
    }
    return p->copy->sparse && blk_buffer_is_zero(buf, bytes) ? RUN_ZERO : RUN_DATA;
}

/* Length of the run of one kind at @pos, in whole blocks. */
static uint64_t measure_run(const Pipeline *p, const Piece *piece, const uint8_t *buf, const uint8_t *other,
                            uint64_t pos, RunKind *kind)
{
    uint64_t end = pos;

    while (end < piece->bytes) {
        uint64_t to_border = p->block - (piece->offset + end) % p->block;
        uint64_t bytes = MIN(to_border, piece->bytes - end);
        RunKind block_kind = kind_of(p, buf + end, other + end, bytes);

        if (end == pos) {
            *kind = block_kind;
        } else if (block_kind != *kind) {
            break;
        }
        end += bytes;
    }
    return end - pos;
}

static int co_write_run(Pipeline *p, RunKind kind, uint64_t offset, uint64_t bytes, const uint8_t *buf)
{
    switch (kind) {
    case RUN_DATA:
        return co_write_data(p, offset, bytes, buf);
    case RUN_ZERO:
        return co_write_zeroes(p, offset, bytes);
    default:
        return 0;
    }
}

static int co_write_piece(Pipeline *p, const Piece *piece, const uint8_t *buf, const uint8_t *other, GError **error)
{
    uint64_t pos = 0, run;
    int ret = 0;

    if (piece->kind == BLK_EXTENT_ZERO) {
        ret = co_write_zeroes(p, piece->offset, piece->bytes);
    }
    for (; piece->kind == BLK_EXTENT_DATA && pos < piece->bytes && ret == 0; pos += run) {
        RunKind kind = RUN_DATA;

        run = measure_run(p, piece, buf, other, pos, &kind);
        ret = co_write_run(p, kind, piece->offset + pos, run, buf + pos);
        if (ret < 0) {
            break;
        }
    }
    return ret < 0 ? blk_error_errno(error, ret, "error while writing at byte %" PRIu64, piece->offset + pos) : 0;
}

/* ---- workers ---- */

static int co_copy_piece(Pipeline *p, const Piece *piece, uint8_t *buf, uint8_t *other, GError **error)
{
    int ret = piece->kind == BLK_EXTENT_DATA ? co_read_piece(p, piece, buf, other, error) : 0;

    while (ret == 0 && p->in_order && p->written != piece->number && p->ret == 0) {
        blk_co_queue_wait(&p->turn);
    }
    if (ret == 0 && p->ret == 0) {
        ret = co_write_piece(p, piece, buf, other, error);
    }
    p->written++;
    return ret;
}

static int co_work(void *opaque)
{
    Pipeline *p = opaque;
    uint8_t *buf = blk_buffer_try_alloc(p->copy->target, p->chunk);
    uint8_t *other = p->copy->reference ? blk_buffer_try_alloc(p->copy->reference, p->chunk) : buf;
    GError *error = NULL;
    Piece piece;
    int ret = 0;

    if (!buf || !other) {
        ret = blk_error(&error, -ENOMEM, "no memory for a buffer of %" PRIu64 " bytes", p->chunk);
    }
    while (ret == 0 && (ret = co_claim(p, &piece, &error)) > 0) {
        ret = co_copy_piece(p, &piece, buf, other, &error);
        if (ret == 0) {
            account(p, piece.bytes);
        }
        blk_co_queue_wake_all(&p->turn);
    }
    if (ret < 0) {
        fail(p, ret, error);
    }
    if (other != buf) {
        blk_buffer_free(other);
    }
    blk_buffer_free(buf);
    return ret;
}

/* ---- all ---- */

static void set_sizes(Pipeline *p)
{
    const BlkLimits *limits = blk_node_limits(p->copy->target);

    p->unit = MAX(limits->cluster_size, MAX(limits->write_align, 512));
    p->block = MAX(p->unit, p->copy->sparse - p->copy->sparse % p->unit);
    uint64_t chunk = p->copy->compressed ? CHUNK_BYTES_COMPRESSED : MAX(CHUNK_BYTES, p->copy->source->unit);
    p->chunk = MAX(chunk - chunk % p->block, p->block);
    p->in_order = p->copy->in_order;
    if (p->copy->compressed && p->copy->workers > 1) {
        unsigned in_flight = blk_codec_tasks(p->copy->target->ctx, p->block, blk_node_length(p->copy->target));
        uint64_t blocks = (in_flight + p->copy->workers - 1) / p->copy->workers;
        p->chunk = MIN(p->chunk, blocks * p->block);
        p->in_order = false;
    }
}

int blk_copy_check_target(const BlkNode *target, bool compressed, GError **error)
{
    if (compressed && !(target->caps & BLK_CAP_COMPRESSED_WRITE)) {
        return blk_error(error, -ENOTSUP, "Compression not supported for this file format: '%s' of '%s' has no compressed "
                         "clusters", blk_node_driver_name(target), blk_node_filename(target));
    }
    return 0;
}

int blk_co_copy(BlkCopy *copy, GError **error)
{
    Pipeline pipeline = { .copy = copy, .start_us = g_get_monotonic_time(), .error = error };
    BlkCoGroup group = BLK_CO_GROUP_INIT(copy->workers);
    int ret = blk_copy_check_target(copy->target, copy->compressed, error);

    if (ret == 0) {
        ret = blk_check_compression_level(copy->target, blk_req_level(copy->compression), error);
    }
    if (ret < 0) {
        return ret;
    }
    set_sizes(&pipeline);
    for (unsigned i = 0; i < copy->workers; i++) {
        if (blk_co_group_run(&group, co_work, &pipeline) < 0) {
            break;
        }
    }
    ret = blk_co_group_wait(&group);
    if (ret < 0) {
        return pipeline.ret < 0 ? pipeline.ret : blk_error_errno(error, ret, "could not start the copy");
    }
    ret = blk_co_flush(copy->target);
    if (ret < 0) {
        return blk_error_errno(error, ret, "error while flushing the target");
    }
    if (copy->progress) {
        copy->progress(1, copy->opaque);
    }
    return 0;
}
