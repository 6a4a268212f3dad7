/* SPDX-License-Identifier: MIT */
/*
 * engine_gather.c - compressed payloads that lie next to each other in the file leave in one write.
 *
 *     pending   [ 4608 ][ 20480 ]    [ 9216 ]    sorted by place; each is a coroutine that waits for it to be written
 *               '--- one write ---'  '- one -'
 *
 * A payload waits for others only while so many clusters are being compressed that all processors are busy: then more come
 * soon, and nobody is kept from working. At most a few are kept waiting, so that those who compress get buffers again.
 *
 * Limitations: what fails, fails for all payloads of the write.
 */
#include "core/engine.h"

#include "core/context.h"
#include "core/node.h"

enum {
    GATHER_MOST = 16,               /* payloads that wait, and payloads in one write */
    GATHER_WRITES = 2,              /* writes at once; the next ones gather meanwhile */
};

struct BlkEnginePayload {
    BlkNode *child;
    uint64_t offset, bytes;
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

/* Takes the run around @payload out of the list. */
static unsigned take_run(BlkEngine *engine, const BlkEnginePayload *payload, BlkEnginePayload **run)
{
    BlkEnginePayload **start = run_start(engine, payload);
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

static void co_write_run(BlkEngine *engine, const BlkEnginePayload *payload)
{
    BlkEnginePayload *run[GATHER_MOST] = { NULL };
    struct iovec vec[GATHER_MOST];
    unsigned n = take_run(engine, payload, run);
    uint64_t bytes = 0;

    for (unsigned i = 0; i < n; i++) {
        vec[i] = (struct iovec){ .iov_base = run[i]->data, .iov_len = run[i]->bytes };
        bytes += run[i]->bytes;
    }
    engine->gather_writes++;
    int ret = blk_co_pwritev(run[0]->child, run[0]->offset, bytes, (BlkIov){ .vec = vec, .count = n }, 0);
    engine->gather_writes--;
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

    return engine->gather_writes < GATHER_WRITES &&
           (engine->compressing < 2 * blk_context_workers(node->ctx) || engine->n_pending >= GATHER_MOST);
}

void blk_engine_gather_kick(BlkNode *node)
{
    if (node->core->engine->pending && is_due(node)) {
        blk_co_queue_wake_all(&node->core->engine->gather_turn);
    }
}

int blk_engine_co_write_gathered(BlkNode *node, BlkNode *child, uint64_t offset, uint64_t bytes, void *data)
{
    BlkEngine *engine = node->core->engine;
    BlkEnginePayload payload = { .child = child, .offset = offset, .bytes = bytes, .data = data };

    add(engine, &payload);
    if (is_due(node)) {
        blk_co_queue_wake_all(&engine->gather_turn);
    }
    while (!payload.done) {
        if (!payload.taken && is_due(node)) {
            co_write_run(engine, &payload);
        } else {
            blk_co_queue_wait(&engine->gather_turn);
        }
    }
    return payload.ret;
}
