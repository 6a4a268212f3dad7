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
 *
 * With a todo, pieces are dirty ranges of its bitmap. Their extents are asked for when the range is held and its bits are
 * cleared, since the source may have changed before; what was asked when the piece was claimed only says how much to take.
 *
 * With a job, each worker works for it: a piece is claimed and begun at a pause point, and who waits for another worker
 * leaves the job meanwhile. A piece that fails may be tried again, by the job's policy; nobody waits for that, or for the
 * speed, while it holds a range or the claim lock.
 */
#include "jobs/copy.h"

#include "core/codec.h"
#include "core/timer.h"

#include <inttypes.h>
#include <string.h>

#define CHUNK_BYTES ((uint64_t)512 << 10)           /* what was read is in a core's cache still when it is written */
#define CHUNK_BYTES_COMPRESSED ((uint64_t)2 << 20)  /* a write is clusters enough for all workers */
#define MAX_UNIT_BYTES ((uint64_t)2 << 20)          /* larger clusters are copied in parts, unless they must be whole */
#define RETRY_NS UINT64_C(200000000)                /* what failed, and is to be ignored, is tried again after that */

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
    uint64_t step;              /* with a todo: pieces are multiples of it: the unit, or the granularity if that is larger */
    unsigned workers;
    bool in_order;

    BlkCoMutex claim_lock;
    uint64_t next;              /* what is before it is claimed */
    BlkExtentKind extent_kind;  /* of what lies at next ... */
    uint64_t extent_end;        /* ... up to here */

    uint64_t claimed, written;  /* pieces */
    BlkCoQueue turn;
    uint64_t done_bytes;
    BlkRate rate;               /* without a job */
    int ret;                    /* the first error, which is in *error */
    GError **error;
} Pipeline;

/* Who copies: one of the workers, or who needs a range now. */
typedef struct Worker {
    Pipeline *p;
    uint8_t *buf;               /* of chunk bytes */
    uint8_t *other;             /* for what the reference has; without one it is buf */
    bool reading;               /* what was begun last, which has failed if anything has */
    GError *error;
} Worker;

static int worker_init(Worker *w, Pipeline *p)
{
    *w = (Worker) { .p = p, .buf = blk_buffer_try_alloc(blk_child_node(p->copy->target), p->chunk) };
    w->other = p->copy->reference ? blk_buffer_try_alloc(p->copy->reference, p->chunk) : w->buf;
    return w->buf && w->other ? 0 : blk_error(&w->error, -ENOMEM, "no memory for a buffer of %" PRIu64 " bytes", p->chunk);
}

static void worker_clear(Worker *w)
{
    if (w->other != w->buf) {
        blk_buffer_free(w->other);
    }
    blk_buffer_free(w->buf);
    g_clear_error(&w->error);
}

/* Keeps the first error only. */
static void fail(Worker *w, int ret)
{
    Pipeline *p = w->p;

    if (p->ret == 0) {
        p->ret = ret;
        if (!w->error) {
            blk_error(&w->error, ret, "the copy was cancelled");
        }
        g_propagate_error(p->error, g_steal_pointer(&w->error));
    }
    blk_co_queue_wake_all(&p->turn);
}

/* ---- the job, if there is one ---- */

static int co_pause_point(Pipeline *p)
{
    return p->copy->job ? blk_co_job_pause_point(p->copy->job) : 0;
}

static void co_enter(Pipeline *p)
{
    if (p->copy->job) {
        blk_co_job_enter(p->copy->job);
    }
}

static void leave(Pipeline *p)
{
    if (p->copy->job) {
        blk_job_leave(p->copy->job);
    }
}

/* Waits until @bytes may be read. */
static int co_throttle(Pipeline *p, uint64_t bytes)
{
    uint64_t due_ns, now_ns;

    if (p->copy->job) {
        return blk_co_job_throttle(p->copy->job, bytes);
    }
    while ((due_ns = blk_rate_take(&p->rate, bytes, now_ns = blk_clock_ns())) > 0) {
        blk_co_sleep_ns(due_ns - now_ns);
    }
    return 0;
}

/* Returns: 0: what failed with @ret is to be tried again, now; @ret: it has failed; -ECANCELED. */
static int co_error_policy(Worker *w, int ret)
{
    BlkJob *job = w->p->copy->job;
    int waited = 0;

    if (!job || ret == -ECANCELED) {
        return ret;
    }
    switch (blk_job_error_action(job, w->reading, ret)) {
    case BLK_ERROR_REPORT:
        return ret;
    case BLK_ERROR_IGNORE:
        waited = blk_co_job_sleep(job, RETRY_NS);
        break;
    case BLK_ERROR_STOP:
        waited = blk_co_job_pause_point(job);
        break;
    }
    if (w->p->ret < 0) {
        return ret;                 /* another one has failed meanwhile */
    }
    g_clear_error(&w->error);
    return waited;
}

/* ---- claiming ---- */

static void account(Pipeline *p, uint64_t bytes)
{
    p->done_bytes += bytes;
    if (p->copy->job) {
        blk_job_progress_add(p->copy->job, bytes);
    }
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

static int co_find_extent(Worker *w)
{
    Pipeline *p = w->p;
    BlkSource *source = p->copy->source;
    BlkExtent extent;

    w->reading = true;
    int ret = source->co_extent(source, p->next, source->length - p->next, &extent, &w->error);
    if (ret == 0 && extent.kind == BLK_EXTENT_ZERO && p->copy->reference) {
        ret = co_zeroes_against_reference(p, &extent, &w->error);
    }
    if (ret == 0) {
        p->extent_kind = extent.kind;
        p->extent_end = p->next + extent.bytes;
    }
    return ret;
}

/* A piece of whole units (@unit: a power of two) at @offset, where @extent lies, of @rest bytes that are to be copied. A
 * unit with several kinds in it is data: reading knows what it is. */
static Piece cut_piece(const Pipeline *p, uint64_t offset, BlkExtent extent, uint64_t rest, uint64_t unit)
{
    Piece piece = { .offset = offset, .kind = extent.kind, .bytes = MIN(extent.bytes, rest) };

    if (piece.bytes < rest) {
        piece.bytes &= ~(unit - 1);
    }
    if (piece.bytes == 0) {
        piece.bytes = MIN(unit, rest);
        piece.kind = BLK_EXTENT_DATA;
    }
    if (piece.kind == BLK_EXTENT_DATA) {
        piece.bytes = MIN(piece.bytes, MAX(p->chunk, unit));
    }
    return piece;
}

static bool needs_no_write(const Pipeline *p, const Piece *piece)
{
    return piece->kind == BLK_EXTENT_BACKING || (piece->kind == BLK_EXTENT_ZERO && p->copy->target_is_zero);
}

/* Takes the next dirty range, rounded to whole steps. The same results as co_claim_locked(). */
static int co_claim_todo(Worker *w, Piece *piece)
{
    Pipeline *p = w->p;
    BlkSource *source = p->copy->source;
    uint64_t start, bytes;
    BlkExtent extent;

    if (!blk_bitmap_next(p->copy->todo->bitmap, p->next, &start, &bytes) || start >= source->length) {
        p->next = source->length;
        return 0;
    }
    p->next = MAX(start - start % p->step, p->next);
    bytes = MIN((start + bytes - p->next + p->step - 1) / p->step * p->step, source->length - p->next);
    w->reading = true;
    int ret = source->co_extent(source, p->next, bytes, &extent, &w->error);
    if (ret < 0) {
        return ret;
    }
    *piece = cut_piece(p, p->next, extent, bytes, p->step);
    piece->number = p->claimed++;
    p->next += piece->bytes;
    return 1;
}

/* Returns: 1 a piece that must be written; 0 there is none left; <0 error: nothing was claimed. */
static int co_claim_locked(Worker *w, Piece *piece)
{
    Pipeline *p = w->p;
    uint64_t length = p->copy->source->length;

    while (p->ret == 0 && p->next < length) {
        if (p->copy->todo) {
            return co_claim_todo(w, piece);
        }
        int ret = p->next >= p->extent_end ? co_find_extent(w) : 0;
        if (ret < 0) {
            return ret;
        }
        *piece = cut_piece(p, p->next, (BlkExtent) { p->extent_kind, p->extent_end - p->next }, length - p->next, p->unit);
        p->next += piece->bytes;
        if (!needs_no_write(p, piece)) {
            piece->number = p->claimed++;
            return 1;
        }
        account(p, piece->bytes);
    }
    return 0;
}

static int co_claim(Worker *w, Piece *piece)
{
    int ret;

    do {
        ret = co_pause_point(w->p);
        if (ret == 0) {
            blk_co_mutex_lock(&w->p->claim_lock);
            ret = co_claim_locked(w, piece);
            blk_co_mutex_unlock(&w->p->claim_lock);
        }
    } while (ret < 0 && (ret = co_error_policy(w, ret)) == 0);
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

static int co_read_piece(Worker *w, const Piece *piece)
{
    Pipeline *p = w->p;
    BlkSource *source = p->copy->source;

    w->reading = true;
    int ret = source->co_read(source, piece->offset, piece->bytes, w->buf, &w->error);
    return ret == 0 && p->copy->reference ? co_read_reference(p, piece, w->other, &w->error) : ret;
}

/* ---- writing ---- */

static unsigned write_flags(const Pipeline *p)
{
    return (p->copy->fua ? BLK_REQ_FUA : 0) | (p->copy->unchanged ? BLK_REQ_UNCHANGED : 0);
}

static int co_write_zeroes(Pipeline *p, uint64_t offset, uint64_t bytes)
{
    unsigned flags = write_flags(p) | (p->copy->keep_space ? 0 : BLK_REQ_UNMAP) | (p->copy->reference ? BLK_REQ_HIDE : 0);

    return p->copy->target_is_zero ? 0 : blk_co_pwrite_zeroes(blk_child_node(p->copy->target), offset, bytes, flags);
}

/* The first @bytes of a cluster that goes on in the target: with what is there, it is compressed as a whole. */
static int co_write_head_compressed(Pipeline *p, uint64_t offset, uint64_t bytes, const uint8_t *buf, unsigned flags)
{
    BlkNode *target = blk_child_node(p->copy->target);
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
    BlkNode *target = blk_child_node(p->copy->target);
    unsigned flags = write_flags(p) | (p->copy->compressed ? BLK_REQ_COMPRESSED | p->copy->compression : 0);
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

static int co_write_piece(Worker *w, const Piece *piece)
{
    Pipeline *p = w->p;
    uint64_t pos = 0, run;
    int ret = 0;

    w->reading = false;
    if (piece->kind == BLK_EXTENT_ZERO) {
        ret = co_write_zeroes(p, piece->offset, piece->bytes);
    }
    for (; piece->kind == BLK_EXTENT_DATA && pos < piece->bytes && ret == 0; pos += run) {
        RunKind kind = RUN_DATA;

        run = measure_run(p, piece, w->buf, w->other, pos, &kind);
        ret = co_write_run(p, kind, piece->offset + pos, run, w->buf + pos);
        if (ret < 0) {
            break;
        }
    }
    return ret < 0 ? blk_error_errno(&w->error, ret, "error while writing at byte %" PRIu64, piece->offset + pos) : 0;
}

/* ---- what is still to be copied ---- */

/* What the source has in a range that nobody else copies now. */
static int co_copy_extents(Worker *w, uint64_t offset, uint64_t bytes)
{
    Pipeline *p = w->p;
    BlkSource *source = p->copy->source;
    int ret = 0;

    while (ret == 0 && bytes > 0) {
        BlkExtent extent;
        Piece part;

        w->reading = true;
        ret = source->co_extent(source, offset, bytes, &extent, &w->error);
        if (ret < 0) {
            return ret;
        }
        part = cut_piece(p, offset, extent, bytes, p->unit);
        if (part.kind == BLK_EXTENT_DATA) {
            ret = co_read_piece(w, &part);
        }
        if (ret == 0) {
            ret = co_write_piece(w, &part);
        }
        offset += part.bytes;
        bytes -= part.bytes;
    }
    return ret;
}

/* Copies what is dirty in a range of whole steps that the caller holds. */
static int co_copy_dirty(Worker *w, uint64_t offset, uint64_t bytes)
{
    Pipeline *p = w->p;
    BlkDirtyBitmap *bitmap = p->copy->todo->bitmap;
    uint64_t end = offset + bytes, start, dirty;
    int ret = 0;

    while (ret == 0 && blk_bitmap_next(bitmap, offset, &start, &dirty) && start < end) {
        start = MAX(start - start % p->step, offset);
        offset = MIN((start + dirty + p->step - 1) / p->step * p->step, end);
        blk_bitmap_clear(bitmap, start, offset - start);
        ret = co_copy_extents(w, start, offset - start);
        if (ret < 0) {
            blk_bitmap_set(bitmap, start, offset - start);
        } else {
            account(p, offset - start);
        }
    }
    return ret;
}

static int co_copy_todo(Worker *w, uint64_t offset, uint64_t bytes)
{
    BlkRangeLock *lock = &w->p->copy->todo->lock;
    BlkRangeHold hold;

    blk_co_range_lock(lock, &hold, offset, bytes, true);
    int ret = co_copy_dirty(w, offset, bytes);
    blk_range_unlock(lock, &hold);
    return ret;
}

/* ---- workers ---- */

/* Waits until all pieces before have been written. */
static int co_wait_for_turn(Pipeline *p, const Piece *piece)
{
    while (p->in_order && p->written != piece->number && p->ret == 0) {
        leave(p);
        blk_co_queue_wait(&p->turn);
        co_enter(p);
    }
    return p->ret;
}

static int co_try_piece(Worker *w, const Piece *piece)
{
    int ret;

    if (w->p->copy->todo) {
        return co_copy_todo(w, piece->offset, piece->bytes);
    }
    ret = piece->kind == BLK_EXTENT_DATA ? co_read_piece(w, piece) : 0;
    if (ret == 0) {
        ret = co_wait_for_turn(w->p, piece);
    }
    return ret < 0 ? ret : co_write_piece(w, piece);
}

static int co_copy_piece(Worker *w, const Piece *piece)
{
    Pipeline *p = w->p;
    int ret = piece->kind == BLK_EXTENT_DATA ? co_throttle(p, piece->bytes) : 0;

    while (ret == 0) {
        ret = co_try_piece(w, piece);
        if (ret == 0 || p->ret < 0) {
            break;
        }
        ret = co_error_policy(w, ret);
    }
    if (ret == 0 && !p->copy->todo) {
        account(p, piece->bytes);
    }
    p->written++;
    blk_co_queue_wake_all(&p->turn);
    return ret;
}

static int co_work(void *opaque)
{
    Pipeline *p = opaque;
    Worker worker;
    Piece piece;
    int ret = worker_init(&worker, p);

    co_enter(p);
    while (ret == 0 && (ret = co_claim(&worker, &piece)) > 0) {
        ret = co_copy_piece(&worker, &piece);
    }
    if (ret < 0) {
        fail(&worker, ret);
    }
    leave(p);
    worker_clear(&worker);
    return ret;
}

/* ---- all ---- */

/* Few workers with large pieces, not many with small ones. */
static void fit_memory(Pipeline *p)
{
    uint64_t memory = p->copy->memory / (p->copy->reference ? 2 : 1);
    uint64_t grain = memory < p->step ? p->block : MAX(p->block, p->step);

    if (p->copy->memory > 0) {
        p->chunk = MIN(p->chunk, MAX(memory - memory % grain, p->block));
        p->workers = (unsigned)CLAMP(memory / p->chunk, 1, p->workers);
    }
}

static void set_sizes(Pipeline *p)
{
    BlkNode *target = blk_child_node(p->copy->target);
    const BlkLimits *limits = blk_node_limits(target);
    uint64_t cluster = p->copy->compressed ? limits->cluster_size : MIN(limits->cluster_size, MAX_UNIT_BYTES);
    uint64_t chunk = p->copy->compressed ? CHUNK_BYTES_COMPRESSED
                                         : MAX(CHUNK_BYTES, MIN(p->copy->source->unit, MAX_UNIT_BYTES));

    p->unit = MAX(cluster, MAX(limits->write_align, 512));
    p->block = MAX(p->unit, p->copy->sparse - p->copy->sparse % p->unit);
    p->chunk = MAX(chunk - chunk % p->block, p->block);
    p->step = p->copy->todo ? MAX(p->unit, blk_bitmap_granularity(p->copy->todo->bitmap)) : p->unit;
    p->in_order = p->copy->in_order;
    p->workers = p->copy->workers;
    /* What can be written once only keeps the order of the disk, if that is asked for: there are readers that expect it. */
    if (p->copy->compressed && p->copy->workers > 1 && (!p->in_order || (target->caps & BLK_CAP_COMPRESSED_REWRITE))) {
        unsigned in_flight = blk_codec_tasks(target->ctx, p->block, blk_node_length(target));
        uint64_t blocks = (in_flight + p->copy->workers - 1) / p->copy->workers;

        p->chunk = MIN(p->chunk, blocks * p->block);
        p->in_order = false;
    }
    fit_memory(p);
}

int blk_copy_check_target(const BlkNode *target, bool compressed, GError **error)
{
    if (compressed && !(target->caps & BLK_CAP_COMPRESSED_WRITE)) {
        return blk_error(error, -ENOTSUP, "Compression not supported for this file format: '%s' of '%s' has no compressed "
                         "clusters", blk_node_driver_name(target), blk_node_filename(target));
    }
    return 0;
}

static int co_run_workers(Pipeline *p)
{
    BlkCoGroup group = BLK_CO_GROUP_INIT(p->workers);

    for (unsigned i = 0; i < p->workers; i++) {
        if (blk_co_group_run(&group, co_work, p) < 0) {
            break;
        }
    }
    leave(p);
    int ret = blk_co_group_wait(&group);
    co_enter(p);
    return ret < 0 && p->ret == 0 ? blk_error_errno(p->error, ret, "could not start the copy") : p->ret;
}

static int co_flush_target(Pipeline *p)
{
    Worker worker = { .p = p, .reading = false };
    int ret;

    while ((ret = blk_co_flush(blk_child_node(p->copy->target))) < 0) {
        int policy = co_error_policy(&worker, ret);

        if (policy < 0) {
            return blk_error_errno(p->error, policy, "error while flushing the target");
        }
    }
    return 0;
}

int blk_co_copy(BlkCopy *copy, GError **error)
{
    Pipeline pipeline = { .copy = copy, .rate.speed = copy->rate, .error = error };
    BlkNode *target = blk_child_node(copy->target);
    copy->compressed |= (target->caps & BLK_CAP_COMPRESSED_ONLY) != 0;
    int ret = blk_copy_check_target(target, copy->compressed, error);

    if (ret == 0) {
        ret = blk_check_compression_level(target, blk_req_level(copy->compression), error);
    }
    if (ret == 0) {
        set_sizes(&pipeline);
        ret = co_run_workers(&pipeline);
    }
    if (ret == 0) {
        ret = co_flush_target(&pipeline);
    }
    if (ret == 0 && copy->progress) {
        copy->progress(1, copy->opaque);
    }
    return ret;
}

int blk_co_copy_range(BlkCopy *copy, uint64_t offset, uint64_t bytes, GError **error)
{
    Pipeline p = { .copy = copy };
    Worker worker;
    uint64_t end;
    int ret;

    set_sizes(&p);
    end = MIN((offset + bytes + p.step - 1) / p.step * p.step, copy->source->length);
    offset -= offset % p.step;
    if (offset >= end) {
        return 0;
    }
    p.chunk = MIN(p.chunk, (end - offset + p.block - 1) / p.block * p.block);
    ret = worker_init(&worker, &p);
    if (ret == 0) {
        ret = co_copy_todo(&worker, offset, end - offset);
    }
    if (ret < 0) {
        g_propagate_error(error, g_steal_pointer(&worker.error));
    }
    worker_clear(&worker);
    return ret;
}
