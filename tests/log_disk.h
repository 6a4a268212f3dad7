/* SPDX-License-Identifier: MIT */
/*
 * log_disk.h - "log": a protocol in memory that remembers each write and flush and when it began and ended, so that a
 * test can build what a crash at any moment could have left.
 *
 * Time is a count of events. A write takes a random number of turns, so that writes end out of order.
 * After a crash, what had ended before the begin of a flush that ended is there; of other writes any 512-byte sectors.
 */
#ifndef BLKSTACK_LOG_DISK_H
#define BLKSTACK_LOG_DISK_H

#include "node_test.h"

#define LOG_SECTOR UINT64_C(512)
#define LOG_ROOM (UINT64_C(24) << 20)       /* bytes; the length that a test may reach */

typedef struct LogWrite {
    uint64_t offset, bytes, begin, end;     /* times; end is UINT64_MAX while it runs */
    uint8_t *data;
} LogWrite;

typedef struct LogFlush {
    uint64_t begin, end;
} LogFlush;

typedef struct LogDisk {
    uint8_t *data, *initial;
    uint64_t initial_length, now;
    GPtrArray *writes;                      /* of LogWrite, in order of begin */
    GArray *flushes;                        /* of LogFlush, in order of end */
    GRand *rand;
    uint64_t fail_write_from;               /* writes that begin there or behind fail */
    uint64_t fail_read_from;                /* and reads */
    bool hold_writes, hold_reads;           /* they stop ... */
    uint64_t hold_from;                     /* ... from this offset on ... */
    BlkCoQueue held;                        /* ... here */
    unsigned holding;
    unsigned reads, payload_reads;          /* these are events read_compressed */
} LogDisk;

static inline void log_write_free(void *data)
{
    LogWrite *w = data;

    g_free(w->data);
    g_free(w);
}

static int log_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    LogDisk *disk = node->opaque;

    disk->data = g_malloc0(LOG_ROOM);
    disk->writes = g_ptr_array_new_with_free_func(log_write_free);
    disk->flushes = g_array_new(FALSE, FALSE, sizeof(LogFlush));
    disk->rand = g_rand_new_with_seed(1);
    disk->fail_write_from = disk->fail_read_from = UINT64_MAX;
    return 0;
}

static void log_co_close(BlkNode *node)
{
    LogDisk *disk = node->opaque;

    g_free(disk->data);
    g_free(disk->initial);
    g_ptr_array_unref(disk->writes);
    g_array_unref(disk->flushes);
    g_rand_free(disk->rand);
}

static void log_turns(LogDisk *disk)
{
    for (unsigned n = g_rand_int(disk->rand) % 4; n > 0; n--) {
        blk_co_reschedule();
    }
}

static void log_hold(LogDisk *disk, const bool *hold, const BlkRequest *req)
{
    while (*hold && req->offset >= disk->hold_from) {
        disk->holding++;
        blk_co_queue_wait(&disk->held);
        disk->holding--;
    }
}

static int log_co_preadv(BlkNode *node, BlkRequest *req)
{
    LogDisk *disk = node->opaque;

    disk->reads++;
    log_turns(disk);
    log_hold(disk, &disk->hold_reads, req);
    if (req->offset >= disk->fail_read_from) {
        return -EIO;
    }
    blk_iov_from_buf(req->iov, disk->data + req->offset, req->bytes);
    return 0;
}

static int log_co_pwritev(BlkNode *node, BlkRequest *req)
{
    LogDisk *disk = node->opaque;
    LogWrite *w;

    if (req->offset + req->bytes > LOG_ROOM) {
        return -ENOSPC;
    }
    if (req->offset >= disk->fail_write_from) {
        return -EIO;
    }
    w = g_new0(LogWrite, 1);
    *w = (LogWrite){
        .offset = req->offset, .bytes = req->bytes, .begin = ++disk->now, .end = UINT64_MAX,
        .data = g_malloc(req->bytes),
    };
    blk_iov_to_buf(req->iov, w->data, req->bytes);
    g_ptr_array_add(disk->writes, w);
    log_turns(disk);
    log_hold(disk, &disk->hold_writes, req);
    memcpy(disk->data + req->offset, w->data, req->bytes);
    node->length = MAX(node->length, req->offset + req->bytes);
    w->end = ++disk->now;
    return 0;
}

static int log_co_flush(BlkNode *node)
{
    LogDisk *disk = node->opaque;
    LogFlush flush = { .begin = ++disk->now };

    log_turns(disk);
    flush.end = ++disk->now;
    g_array_append_val(disk->flushes, flush);
    return 0;
}

static void log_co_event(BlkNode *node, BlkEvent event)
{
    LogDisk *disk = node->opaque;

    disk->payload_reads += event == BLK_EVENT_read_compressed;
}

static const BlkDriver log_driver = {
    .name = "log",
    .kind = BLK_PROTOCOL,
    .instance_size = sizeof(LogDisk),
    .co_open = log_co_open,
    .co_close = log_co_close,
    .co_preadv = log_co_preadv,
    .co_pwritev = log_co_pwritev,
    .co_flush = log_co_flush,
    .co_event = log_co_event,
};

static inline LogDisk *log_disk(BlkNode *node)
{
    ck_assert(node->driver == &log_driver);
    return node->opaque;
}

/* What the disk holds when the log begins. */
static inline void log_set_initial(BlkNode *node, const void *data, uint64_t bytes)
{
    LogDisk *disk = log_disk(node);

    ck_assert_uint_le(bytes, LOG_ROOM);
    disk->initial = g_memdup2(data, bytes);
    disk->initial_length = bytes;
    memcpy(disk->data, data, bytes);
    node->length = bytes;
}

/* A new image in the disk: @options are those of creation, as JSON. (transfer full) */
static inline BlkNode *log_new_image(Test *t, const char *name, const char *options)
{
    g_autofree char *path = g_build_filename(t->dir, "new.qcow2", NULL), *content = NULL;
    g_autofree char *text = g_strdup_printf("{'driver': 'log', 'node-name': '%s'}", name);
    g_autoptr(JsonObject) tree = blk_json_parse_object(options, -1, "test", NULL);
    gsize bytes;

    ck_assert_ptr_nonnull(tree);
    ck_assert_int_eq(blk_co_create(t->ctx, path, "qcow2", tree, NULL), 0);
    ck_assert(g_file_get_contents(path, &content, &bytes, NULL));
    BlkNode *node = try_open(t, text, NULL);
    ck_assert_ptr_nonnull(node);
    log_set_initial(node, content, bytes);
    return node;
}

/* All that ended before this time is stable at time @now. */
static inline uint64_t log_stable_before(const LogDisk *disk, uint64_t now)
{
    uint64_t stable = 0;

    for (guint i = 0; i < disk->flushes->len; i++) {
        const LogFlush *flush = &g_array_index(disk->flushes, LogFlush, i);
        if (flush->end <= now) {
            stable = MAX(stable, flush->begin);
        }
    }
    return stable;
}

/* @percent: of the sectors that were written but are not stable, how many are there. (transfer full) */
static inline uint8_t *log_crash(const LogDisk *disk, uint64_t now, unsigned percent, GRand *rand, uint64_t *length)
{
    uint64_t stable = log_stable_before(disk, now);
    uint8_t *image = g_malloc0(LOG_ROOM);
    bool whole = g_rand_boolean(rand);      /* whole writes, or each sector for itself */

    memcpy(image, disk->initial, disk->initial_length);
    *length = disk->initial_length;
    for (guint i = 0; i < disk->writes->len; i++) {
        const LogWrite *w = g_ptr_array_index(disk->writes, i);
        bool there = w->end < stable || g_rand_int(rand) % 100 < percent;
        if (w->begin > now) {
            break;
        }
        for (uint64_t pos = 0, n; pos < w->bytes; pos += n) {
            n = MIN(w->bytes - pos, LOG_SECTOR - (w->offset + pos) % LOG_SECTOR);
            if (w->end >= stable && !whole) {
                there = g_rand_int(rand) % 100 < percent;
            }
            if (there) {
                memcpy(image + w->offset + pos, w->data + pos, n);
                *length = MAX(*length, w->offset + pos + n);
            }
        }
    }
    return image;
}

#endif
