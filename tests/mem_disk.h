/* SPDX-License-Identifier: MIT */
/*
 * mem_disk.h - "mem-disk": a protocol in memory for tests of what crashes and faults leave.
 *
 * It grows as a file does. A request takes a random number of turns of the event loop, so that requests end out of
 * order. It notes when each change and flush began and ended, in a time that several disks can share, and lets one
 * chosen request (or all from there on) fail.
 */
#ifndef BLKSTACK_TEST_MEM_DISK_H
#define BLKSTACK_TEST_MEM_DISK_H

#include <blkstack/driver.h>
#include <string.h>

typedef enum MemDiskOp {
    MEM_DISK_READ = 1 << 0,
    MEM_DISK_WRITE = 1 << 1,        /* zero writes too */
    MEM_DISK_FLUSH = 1 << 2,
    MEM_DISK_TRUNCATE = 1 << 3,
    MEM_DISK_DISCARD = 1 << 4,
} MemDiskOp;

/* What a write that fails leaves. */
typedef enum MemDiskTear {
    MEM_DISK_TEAR_NOTHING, MEM_DISK_TEAR_SECTOR, MEM_DISK_TEAR_ALL, MEM_DISK_TEARS,
} MemDiskTear;

typedef struct MemDiskNote {
    MemDiskOp op;
    uint64_t offset, bytes;
    uint64_t begin, end;            /* times; end is UINT64_MAX while it runs */
    bool used;                      /* the reader's own */
} MemDiskNote;

typedef struct MemDisk {
    uint8_t *data;
    uint64_t room;                  /* bytes of data; what is behind the length is zeroes */
    uint64_t own_time, *now;        /* counts events */
    GRand *rand;
    unsigned max_turns;
    bool takes_notes;
    GArray *notes;                  /* of MemDiskNote, in order of begin */
    unsigned fail_ops;              /* MemDiskOp: what is counted, and may fail */
    uint64_t fail_after;            /* as many of them pass, then one fails */
    bool fail_on;                   /* and all that follow */
    int fail_errno;
    MemDiskTear fail_tear;
    uint64_t failed;                /* how many did */
} MemDisk;

static int mem_disk_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    MemDisk *disk = node->opaque;

    disk->now = &disk->own_time;
    disk->rand = g_rand_new_with_seed(1);
    disk->notes = g_array_new(FALSE, FALSE, sizeof(MemDiskNote));
    return 0;
}

static void mem_disk_co_close(BlkNode *node)
{
    MemDisk *disk = node->opaque;

    g_free(disk->data);
    g_rand_free(disk->rand);
    g_array_unref(disk->notes);
}

static void mem_disk_refresh_limits(BlkNode *node)
{
    node->limits.zeroes_align = 1;
    node->limits.discard_align = 1;
}

static bool mem_disk_fails(MemDisk *disk, MemDiskOp op)
{
    if (!(disk->fail_ops & op)) {
        return false;
    }
    if (disk->fail_after > 0) {
        disk->fail_after--;
        return false;
    }
    if (!disk->fail_on) {
        disk->fail_ops = 0;
    }
    disk->failed++;
    return true;
}

/* The request begins, and takes its time. *note: its number, for mem_disk_end(). 0 or the error to return. */
static int mem_disk_co_begin(MemDisk *disk, MemDiskOp op, uint64_t offset, uint64_t bytes, unsigned *note)
{
    MemDiskNote n = { .op = op, .offset = offset, .bytes = bytes, .begin = ++*disk->now, .end = UINT64_MAX };
    bool fails = mem_disk_fails(disk, op);

    *note = disk->notes->len;
    if (disk->takes_notes && op != MEM_DISK_READ) {
        g_array_append_val(disk->notes, n);
    }
    for (unsigned turns = disk->max_turns ? g_rand_int_range(disk->rand, 0, disk->max_turns) : 0; turns > 0; turns--) {
        blk_co_reschedule();
    }
    return fails ? -disk->fail_errno : 0;
}

static void mem_disk_end(MemDisk *disk, unsigned note)
{
    if (note < disk->notes->len) {
        g_array_index(disk->notes, MemDiskNote, note).end = ++*disk->now;
    }
}

static void mem_disk_make_room(MemDisk *disk, uint64_t length)
{
    if (length > disk->room) {
        uint64_t room = MAX(length, disk->room * 2);

        disk->data = g_realloc(disk->data, room);
        memset(disk->data + disk->room, 0, room - disk->room);
        disk->room = room;
    }
}

static int mem_disk_co_preadv(BlkNode *node, BlkRequest *req)
{
    MemDisk *disk = node->opaque;
    unsigned note;
    int ret = mem_disk_co_begin(disk, MEM_DISK_READ, req->offset, req->bytes, &note);

    if (ret == 0) {
        mem_disk_make_room(disk, req->offset + req->bytes);
        blk_iov_from_buf(req->iov, disk->data + req->offset, req->bytes);
    }
    return ret;
}

static int mem_disk_co_pwritev(BlkNode *node, BlkRequest *req)
{
    MemDisk *disk = node->opaque;
    unsigned note;
    int ret = mem_disk_co_begin(disk, MEM_DISK_WRITE, req->offset, req->bytes, &note);
    uint64_t bytes = ret == 0 || disk->fail_tear == MEM_DISK_TEAR_ALL ? req->bytes
                     : disk->fail_tear == MEM_DISK_TEAR_SECTOR        ? MIN(req->bytes, 512 - req->offset % 512)
                                                                      : 0;

    if (bytes > 0) {
        mem_disk_make_room(disk, req->offset + req->bytes);
        blk_iov_to_buf(req->iov, disk->data + req->offset, bytes);
    }
    if (ret == 0) {
        mem_disk_end(disk, note);
    }
    return ret;
}

static int mem_disk_co_clear(BlkNode *node, BlkRequest *req, MemDiskOp op)
{
    MemDisk *disk = node->opaque;
    unsigned note;
    int ret = mem_disk_co_begin(disk, op, req->offset, req->bytes, &note);

    if (ret == 0) {
        mem_disk_make_room(disk, req->offset + req->bytes);
        memset(disk->data + req->offset, 0, req->bytes);
        mem_disk_end(disk, note);
    }
    return ret;
}

static int mem_disk_co_pwrite_zeroes(BlkNode *node, BlkRequest *req)
{
    return mem_disk_co_clear(node, req, MEM_DISK_WRITE);
}

static int mem_disk_co_discard(BlkNode *node, BlkRequest *req)
{
    return mem_disk_co_clear(node, req, MEM_DISK_DISCARD);
}

static int mem_disk_co_flush(BlkNode *node)
{
    MemDisk *disk = node->opaque;
    unsigned note;
    int ret = mem_disk_co_begin(disk, MEM_DISK_FLUSH, 0, 0, &note);

    if (ret == 0) {
        mem_disk_end(disk, note);
    }
    return ret;
}

static int mem_disk_co_truncate(BlkNode *node, uint64_t length, BlkPrealloc prealloc, GError **error)
{
    MemDisk *disk = node->opaque;
    uint64_t cut = node->length > length ? node->length - length : 0;
    unsigned note;
    int ret = mem_disk_co_begin(disk, MEM_DISK_TRUNCATE, length, cut, &note);

    if (ret < 0) {
        return blk_error_errno(error, ret, "mem-disk: told to fail");
    }
    if (disk->room > length) {
        memset(disk->data + length, 0, disk->room - length);
    }
    node->length = length;
    mem_disk_end(disk, note);
    return 0;
}

static const BlkOption mem_disk_options[] = {
    { "filename", BLK_OPTION_STRING, "its name, where two disks must not look like the same one" },
    { NULL },
};

static const BlkDriver mem_disk_driver = {
    .name = "mem-disk",
    .kind = BLK_PROTOCOL,
    .options = mem_disk_options,
    .instance_size = sizeof(MemDisk),
    .co_open = mem_disk_co_open,
    .co_close = mem_disk_co_close,
    .refresh_limits = mem_disk_refresh_limits,
    .co_preadv = mem_disk_co_preadv,
    .co_pwritev = mem_disk_co_pwritev,
    .co_pwrite_zeroes = mem_disk_co_pwrite_zeroes,
    .co_discard = mem_disk_co_discard,
    .co_flush = mem_disk_co_flush,
    .co_truncate = mem_disk_co_truncate,
};

static inline MemDisk *mem_disk_of(BlkNode *node)
{
    g_assert(g_str_equal(node->driver->name, "mem-disk"));
    return node->opaque;
}

/* What the disk holds from now on. */
static inline void mem_disk_set(BlkNode *node, const void *data, uint64_t bytes)
{
    MemDisk *disk = mem_disk_of(node);

    mem_disk_make_room(disk, bytes);
    memcpy(disk->data, data, bytes);
    memset(disk->data + bytes, 0, disk->room - bytes);
    node->length = bytes;
}

#endif
