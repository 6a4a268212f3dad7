/* SPDX-License-Identifier: MIT */
/*
 * status.c - block status of an export, for who asks from the beginning to the end.
 *
 *     answer of the server:   |data|zero|data|......|      the first extent answers the question,
 *                                  ^ next                   the rest is kept for who asks on from there
 *
 * Who goes on where the last answer ended is likely to go on further, so the server is asked about much at once.
 * What is kept is dropped when this node changes the export, and after KEEP_NS, since others may change it too.
 *
 * A hole that is not said to read as zeroes is data to the reader, although nothing may be stored there. With
 * x-dirty-bitmap the first bit of the context, "dirty", stands where "hole" stands otherwise, as with the peer.
 */
#include "drivers/nbd/nbd.h"

#include <libnbd.h>
#include <string.h>

#define STEP_BYTES  (UINT64_C(1) << 30)
#define MAX_BYTES   (UINT64_C(1) << 31)     /* some servers fail with more */
#define KEEP_NS     UINT64_C(1000000000)
#define MAX_EXTENTS 4096        /* of an answer; the rest is asked for again */

typedef struct Answer {
    NbdState *state;
    NbdExtent *extents;         /* room for MAX_EXTENTS */
    unsigned count;
} Answer;

/* Called within libnbd. Returns: 0; -errno: the server lies. */
static int take_extents(NbdCommand *cmd, const char *context, uint64_t offset, const uint32_t *entries, size_t count)
{
    Answer *answer = cmd->opaque;
    uint64_t left = answer->state->info.size - cmd->offset;

    if (strcmp(context, answer->state->server.context) != 0) {
        return 0;
    }
    if (offset != cmd->offset || count % 2 != 0 || answer->count > 0) {
        return -EPROTO;
    }
    for (size_t i = 0; i < count; i += 2) {
        if (entries[i] == 0 || entries[i] > left) {
            return -EPROTO;
        }
        left -= entries[i];
        if (answer->count < MAX_EXTENTS) {
            answer->extents[answer->count++] = (NbdExtent) { entries[i], entries[i + 1] };
        }
    }
    return 0;
}

static int co_ask(NbdState *s, uint64_t offset, uint64_t bytes, Answer *answer)
{
    NbdCommand cmd = { NBD_STATUS, .offset = offset, .bytes = bytes, .extents = take_extents, .opaque = answer };
    int ret = nbd_co_run(s, &cmd);

    return ret == 0 && answer->count == 0 ? -EPROTO : ret;
}

void nbd_status_forget(NbdState *s)
{
    s->cache.generation++;
    s->cache.count = s->cache.next = 0;
}

void nbd_status_clear(NbdState *s)
{
    g_clear_pointer(&s->cache.extents, g_free);
}

static bool is_kept(const NbdStatusCache *cache, uint64_t offset)
{
    return cache->next < cache->count && cache->offset == offset && blk_clock_ns() - cache->time_ns < KEEP_NS;
}

/* The server is asked for whole blocks. */
static uint64_t bytes_to_ask(const NbdState *s, uint64_t offset, uint64_t bytes)
{
    uint64_t unit = MAX(s->info.min_block, 1);
    uint64_t wanted = offset == s->cache.next_offset ? MAX(bytes, STEP_BYTES) : bytes;

    return MIN(MIN((wanted + unit - 1) / unit * unit, MAX_BYTES), s->info.size - offset);
}

static int co_refill(NbdState *s, uint64_t offset, uint64_t bytes)
{
    NbdStatusCache *cache = &s->cache;
    unsigned generation = cache->generation;
    Answer answer = { s, g_try_new(NbdExtent, MAX_EXTENTS), 0 };
    uint64_t time_ns = blk_clock_ns();
    int ret = answer.extents ? co_ask(s, offset, bytes_to_ask(s, offset, bytes), &answer) : -ENOMEM;

    if (ret < 0) {
        g_free(answer.extents);
        return ret;
    }
    g_free(cache->extents);
    cache->extents = answer.extents;
    cache->next = 0;
    cache->count = answer.count;
    if (generation != cache->generation) {
        /* It may be older than a change: told, but not kept. */
        cache->count = 1;
        cache->extents[0].bytes = (uint32_t)MIN(cache->extents[0].bytes, bytes);
    }
    cache->offset = offset;
    cache->time_ns = time_ns;
    return 0;
}

/* Takes extents of the same kind, at most @bytes. */
static uint64_t take_kept(NbdStatusCache *cache, uint64_t bytes, uint32_t *flags)
{
    uint64_t taken = 0;

    *flags = cache->extents[cache->next].flags;
    while (cache->next < cache->count && taken < bytes && cache->extents[cache->next].flags == *flags) {
        NbdExtent *extent = &cache->extents[cache->next];
        uint32_t part = (uint32_t)MIN(extent->bytes, bytes - taken);

        taken += part;
        extent->bytes -= part;
        cache->next += extent->bytes == 0;
    }
    cache->offset += taken;
    cache->next_offset = cache->offset;
    return taken;
}

/* All is decided here, also what is a hole: there is no backing that could say more. */
static unsigned status_flags(uint32_t flags)
{
    return BLK_STATUS_ALLOCATED | (flags & LIBNBD_STATE_ZERO ? BLK_STATUS_ZERO : 0) |
           (flags & LIBNBD_STATE_HOLE ? 0 : BLK_STATUS_DATA);
}

int nbd_status_co_get(NbdState *s, uint64_t offset, uint64_t bytes, BlkStatus *status)
{
    uint32_t flags;
    int ret = is_kept(&s->cache, offset) ? 0 : co_refill(s, offset, bytes);

    if (ret < 0) {
        return ret;
    }
    status->bytes = take_kept(&s->cache, bytes, &flags);
    status->flags = status_flags(flags);
    return 0;
}
