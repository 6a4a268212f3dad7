/* SPDX-License-Identifier: MIT */
/*
 * engine_payload.c - reads and decodes compressed payloads; those that lie one behind the other are read in one go.
 *
 *     guest   | A | B | C | D |          file   ..| A | C | B |......| D |..
 *                                                 '-- span ---'
 *
 * A span is read by the first who decodes one of its payloads; the others wait for that, and all decode for themselves. Its
 * holders are readers of the engine (epochs): as long as there is a span none of its space is used again.
 *
 * Limitations: what cannot be read fails for all payloads of the span.
 */
#include "core/codec.h"
#include "core/engine.h"
#include "core/request.h"

enum { MAX_EDGE = 4096 };           /* what is read is widened to blocks of the file up to this size */

/* A part of a file, and what of it is in memory. */
typedef struct FileBytes {
    uint64_t offset, end;
    uint8_t *data;
} FileBytes;

struct BlkPayloadSpan {
    BlkNode *file;
    FileBytes bytes;
    unsigned holders;
    bool begun, done;
    int ret;                        /* of reading it */
    BlkCoQueue waiters;
};

/* Widens the range to blocks, for which data has room, and reads it as far as the file goes. */
static int read_bytes(BlkNode *file, FileBytes *bytes)
{
    uint64_t length = blk_node_length(file);
    uint32_t align = file->limits.read_align <= MAX_EDGE ? file->limits.read_align : 1;

    if (bytes->offset >= length) {
        return -EIO;
    }
    bytes->offset = blk_align_down(bytes->offset, align);
    bytes->end = MIN(blk_align_up(bytes->end, align), length);
    blk_co_event(file, BLK_EVENT_read_compressed);
    return blk_co_pread(file, bytes->offset, bytes->end - bytes->offset, bytes->data, 0);
}

static int decode(BlkNode *node, const BlkMapping *map, const FileBytes *bytes, void *out)
{
    const BlkCodec *codec = node->driver->format->codec ? node->driver->format->codec(node) : NULL;

    if (!codec || map->host_offset >= bytes->end) {
        return -EIO;
    }
    const uint8_t *payload = bytes->data + (map->host_offset - bytes->offset);
    uint64_t size = node->limits.cluster_size, payload_bytes = MIN(map->host_bytes, bytes->end - map->host_offset);
    return map->may_be_short ? blk_co_codec_decompress_short(codec, out, size, payload, payload_bytes)
                             : blk_co_codec_decompress(codec, out, size, payload, payload_bytes);
}

/* ---- spans ---- */

BlkPayloadSpan *blk_payload_span_try_new(BlkNode *file, uint64_t offset, uint64_t end, unsigned holders)
{
    void *data = blk_buffer_try_alloc(NULL, end - offset + 2 * MAX_EDGE);

    if (!data) {
        return NULL;
    }
    BlkPayloadSpan *span = g_new(BlkPayloadSpan, 1);
    *span = (BlkPayloadSpan){
        .file = file, .bytes = { .offset = offset, .end = end, .data = data }, .holders = holders,
    };
    return span;
}

void blk_payload_span_put(BlkPayloadSpan *span)
{
    if (span && --span->holders == 0) {
        blk_buffer_free(span->bytes.data);
        g_free(span);
    }
}

static int span_co_read(BlkPayloadSpan *span)
{
    if (!span->begun) {
        span->begun = true;
        span->ret = read_bytes(span->file, &span->bytes);
        span->done = true;
        blk_co_queue_wake_all(&span->waiters);
    }
    while (!span->done) {
        blk_co_queue_wait(&span->waiters);
    }
    return span->ret;
}

int blk_engine_co_decode(BlkNode *node, const BlkMapping *map, BlkPayloadSpan *span, void *out)
{
    FileBytes bytes = { .offset = map->host_offset, .end = map->host_offset + map->host_bytes };
    int ret;

    if (span) {
        ret = span_co_read(span);
        return ret < 0 ? ret : decode(node, map, &span->bytes, out);
    }
    bytes.data = blk_engine_buffer_get(node);
    if (!bytes.data) {
        return -ENOMEM;
    }
    ret = read_bytes(map->child->node, &bytes);
    if (ret == 0) {
        ret = decode(node, map, &bytes, out);
    }
    blk_engine_buffer_put(node, bytes.data);
    return ret;
}
