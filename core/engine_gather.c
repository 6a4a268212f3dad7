/* SPDX-License-Identifier: MIT */
/*
 * engine_gather.c - compressed payloads that lie next to each other in the file leave in one write.
 *
 *     pending   [ 4608 ][ 20480 ]    [ 9216 ]    sorted by place; each is a coroutine that waits for it to be written
 *               '--- one write ---'  '- one -'
 *
 * A payload waits for others only while so many clusters are being compressed that all processors are busy: then more come
 * soon, and nobody is kept from working. At most a few are kept waiting, so that those who compress get buffers again. Any
 * of those that wait writes for the one that has waited longest, and its neighbours.
 *
 *     file    |== block ==|== bl|ock ==|     where the file takes whole blocks only, larger than the payloads' grain
 *              '-- run 1 ------'
 *                         '-----'----- run 2: begins with a copy of what run 1 has put into the block that both share
 *
 * So nothing has to be read before it can be written: the last block of a run, if all before its end is known, is kept as
 * the open block. It holds what the file has there, or will have once what is under way is written: a run that does not
 * end with a block holds that block exclusively below (rmw.c), and the next one waits for it. Every other run that touches
 * the block closes it. Who rewrites a block writes the same bytes again to what is stable in it; a disk with such blocks
 * writes each whole or not at all.
 *
 * Limitations: what fails, fails for all payloads of the write.
 */
#include "core/engine.h"

#include "core/context.h"
#include "core/request.h"

#include <string.h>

enum {
    GATHER_MOST = 16,               /* payloads that wait, and payloads in one write */
    GATHER_WRITES = 2,              /* writes at once; the next ones gather meanwhile */
    MAX_BLOCK = 64 << 10,           /* blocks of files that are larger are not kept open; bytes */
};

struct BlkEnginePayload {
    BlkNode *child;
    uint64_t offset, bytes;
    uint64_t number;                /* in order of arrival */
    void *data;
    bool taken, done;
    int ret;
    BlkEnginePayload *next;         /* in the list of those that wait */
};

static void add(BlkEngine *engine, BlkEnginePayload *payload)
{
    BlkEnginePayload **link = &engine->pending;

    while (*link && (*link)->offset < payload->offset) {
        link = &(*link)->next;
    }
    payload->next = *link;
    *link = payload;
    engine->n_pending++;
    payload->number = engine->payloads++;
}

/* Who waits longest. */
static const BlkEnginePayload *oldest(const BlkEngine *engine)
{
    const BlkEnginePayload *found = engine->pending;

    for (const BlkEnginePayload *other = found; other; other = other->next) {
        found = other->number < found->number ? other : found;
    }
    return found;
}

/* The first of the pending payloads from which a run without gaps leads to @payload, no longer than can be written. */
static BlkEnginePayload **run_start(BlkEngine *engine, const BlkEnginePayload *payload)
{
    BlkEnginePayload **start = &engine->pending;
    unsigned n = 0;

    for (BlkEnginePayload **link = start; *link != payload; link = &(*link)->next) {
        const BlkEnginePayload *this = *link, *next = this->next;
        n++;
        if (this->child != next->child || this->offset + this->bytes != next->offset || n == GATHER_MOST - 1) {
            start = &(*link)->next;
            n = 0;
        }
    }
    return start;
}

/* Takes the run around the oldest payload out of the list. */
static unsigned take_run(BlkEngine *engine, BlkEnginePayload **run)
{
    BlkEnginePayload **start = run_start(engine, oldest(engine));
    unsigned n = 0;

    while (*start && n < GATHER_MOST) {
        BlkEnginePayload *this = *start;
        if (n > 0 && (this->child != run[n - 1]->child || run[n - 1]->offset + run[n - 1]->bytes != this->offset)) {
            break;
        }
        this->taken = true;
        run[n++] = this;
        *start = this->next;
    }
    engine->n_pending -= n;
    return n;
}

/* ---- the open block ---- */

void blk_engine_close_block(BlkEngine *engine)
{
    engine->open_block.filled = 0;
}

/* Closes the block if a run touches it; if the run continues it, a copy is made for it. Returns: the length of the copy. */
static uint64_t continue_block(BlkNode *node, BlkNode *child, uint64_t offset, uint64_t end, void **copy)
{
    BlkOpenBlock *block = &node->core->engine->open_block;
    uint64_t filled = block->filled;

    *copy = NULL;
    if (filled == 0 || block->child != child || offset >= block->offset + block->size || end <= block->offset) {
        return 0;
    }
    blk_engine_close_block(node->core->engine);
    if (offset != block->offset + filled || !(*copy = blk_engine_buffer_get(node))) {
        return 0;
    }
    memcpy(*copy, block->data, filled);
    return filled;
}

/* The last block of what is about to be written from @offset on stays open, if it is not full. */
static void open_block(BlkNode *node, BlkNode *child, uint64_t offset, uint64_t end, BlkIov iov)
{
    BlkOpenBlock *block = &node->core->engine->open_block;
    uint64_t start = blk_align_down(end, child->limits.write_align);

    if (child->limits.write_align > MIN(node->limits.cluster_size, MAX_BLOCK) || node->core->drained > 0 ||
        start < offset || start == end) {
        return;
    }
    if (!block->data) {
        block->data = g_malloc(MAX_BLOCK);
    }
    block->child = child;
    block->offset = start;
    block->size = child->limits.write_align;
    block->filled = end - start;
    blk_iov_to_buf(blk_iov_advance(iov, start - offset), block->data, block->filled);
}

/* ---- writing ---- */

static void co_write_run(BlkNode *node)
{
    BlkEngine *engine = node->core->engine;
    BlkEnginePayload *run[GATHER_MOST] = { NULL };
    struct iovec vec[GATHER_MOST + 1];
    unsigned n = take_run(engine, run), parts = 0;
    BlkNode *child = run[0]->child;
    uint64_t offset = run[0]->offset, end = run[n - 1]->offset + run[n - 1]->bytes;
    void *copy;
    uint64_t copied = continue_block(node, child, offset, end, &copy);

    if (copied > 0) {
        vec[parts++] = (struct iovec){ .iov_base = copy, .iov_len = copied };
        offset -= copied;
    }
    for (unsigned i = 0; i < n; i++) {
        vec[parts++] = (struct iovec){ .iov_base = run[i]->data, .iov_len = run[i]->bytes };
    }
    const BlkIov iov = { .vec = vec, .count = parts };
    open_block(node, child, offset, end, iov);
    engine->gather_writes++;
    int ret = blk_co_pwritev(child, offset, end - offset, iov, 0);
    engine->gather_writes--;
    blk_engine_buffer_put(node, copy);
    if (ret < 0) {
        blk_engine_close_block(engine);
    }
    for (unsigned i = 0; i < n; i++) {
        run[i]->ret = ret;
        run[i]->done = true;
    }
    blk_co_queue_wake_all(&engine->gather_turn);
}

/* Should what is pending be written now? */
static bool is_due(BlkNode *node)
{
    const BlkEngine *engine = node->core->engine;

    if (engine->gather_writes >= GATHER_WRITES) {
        return false;
    }
    return engine->n_pending >= GATHER_MOST ||
           (!engine->gathering && engine->compressing < 2 * blk_context_workers(node->ctx));
}

void blk_engine_gather_kick(BlkNode *node)
{
    if (node->core->engine->pending && is_due(node)) {
        blk_co_queue_wake_all(&node->core->engine->gather_turn);
    }
}

/* Several may have been compressed when the loop wakes; they get their space one after the other, each in a turn. */
static void co_let_others_come(BlkEngine *engine)
{
    unsigned before;

    engine->gathering = true;
    do {
        before = engine->n_pending;
        blk_co_reschedule();
    } while (engine->n_pending > before && engine->n_pending < GATHER_MOST);
    engine->gathering = false;
}

int blk_engine_co_write_gathered(BlkNode *node, BlkNode *child, uint64_t offset, uint64_t bytes, void *data)
{
    BlkEngine *engine = node->core->engine;
    BlkEnginePayload payload = { .child = child, .offset = offset, .bytes = bytes, .data = data };

    add(engine, &payload);
    if (!engine->gathering) {
        co_let_others_come(engine);
    }
    if (is_due(node)) {
        blk_co_queue_wake_all(&engine->gather_turn);
    }
    while (!payload.done) {
        if (!payload.taken && is_due(node)) {
            co_write_run(node);
        } else {
            blk_co_queue_wait(&engine->gather_turn);
        }
    }
    return payload.ret;
}
