/* SPDX-License-Identifier: MIT */
/*
 * log_writes.c - filter "log-writes", also named "blklogwrites": records every change of its child, so that others can
 * replay it up to any point: docs/crash-testing.md. The format is that of the Linux device-mapper target "log-writes"
 * (kernel documentation, admin-guide/device-mapper/log-writes); numbers are little-endian, units are log sectors:
 *
 *     log sector 0    magic | version | number of entries | bytes of a log sector
 *     then            entry | data ...     entry | data ...
 *     entry           sector | number of sectors | flags | bytes of data in this sector (marks only)
 *
 * Order. An entry is written when its request is through on the child, and before the request returns. No entry gets in
 * while the child is flushed, so a flush entry says: all entries before it are stable. Changes that overlap wait for
 * each other, so a replay gives the same bytes. The number of entries counts only what is in the log.
 *
 * What is cut off by making the child shorter is recorded as a discard. A request that fails is not recorded.
 *
 * Limitations: one request's entry is written at a time. When the log cannot be written, requests fail.
 */
#include <blkstack/driver.h>

#include "core/range_lock.h"

#include <inttypes.h>
#include <string.h>

#define LOG_MAGIC UINT64_C(0x6a736677736872)

enum {
    LOG_VERSION = 1,
    LOG_FLUSH = 1 << 0, LOG_FUA = 1 << 1, LOG_DISCARD = 1 << 2, LOG_MARK = 1 << 3,
    LOG_FLAGS_KNOWN = 15,
    LOG_SUPER_BYTES = 28, LOG_ENTRY_BYTES = 32,
    LOG_MIN_SECTOR = 512, LOG_MAX_SECTOR = 8 << 20,
};

typedef struct LogEntry {
    uint64_t sector, sectors, flags, data_bytes;
} LogEntry;

typedef struct LogWrites {
    BlkChild *log;
    uint64_t sector_size;               /* bytes */
    uint64_t super_interval;            /* entries between two updates of the first log sector */
    uint64_t entries, next;             /* in the log; the log sector behind them */
    uint64_t entries_told;              /* as the first log sector has it */
    uint8_t *sector;                    /* one log sector, for whoever holds log_lock */
    BlkCoMutex log_lock;
    BlkRangeLock changes;
} LogWrites;

static const BlkOption log_writes_options[] = {
    { "file", BLK_OPTION_NODE, "the node whose changes are recorded", .required = true },
    { "log", BLK_OPTION_NODE, "where they are recorded", .required = true },
    { "log-append", BLK_OPTION_BOOL, "go on with the log that is there", .default_text = "off" },
    { "log-sector-size", BLK_OPTION_SIZE, "unit of the log in bytes, a power of two", .default_text = "512" },
    { "log-super-update-interval", BLK_OPTION_UINT, "how many entries until the log's first sector tells of them",
      .default_text = "4096" },
    { NULL },
};

static void put64(void *p, uint64_t v)
{
    v = GUINT64_TO_LE(v);
    memcpy(p, &v, sizeof(v));
}

static uint64_t get64(const void *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return GUINT64_FROM_LE(v);
}

/* ---- the log: with log_lock held ---- */

static int log_co_write_super(LogWrites *s)
{
    uint32_t sector_size = GUINT32_TO_LE((uint32_t)s->sector_size);

    memset(s->sector, 0, s->sector_size);
    put64(s->sector, LOG_MAGIC);
    put64(s->sector + 8, LOG_VERSION);
    put64(s->sector + 16, s->entries);
    memcpy(s->sector + 24, &sector_size, sizeof(sector_size));
    int ret = blk_co_pwrite(s->log->node, 0, s->sector_size, s->sector, 0);
    if (ret == 0) {
        s->entries_told = s->entries;
    }
    return ret;
}

/* Writes the @bytes of data that follow an entry, padded to whole log sectors. @iov: NULL for zeroes. */
static int log_co_write_data(LogWrites *s, uint64_t offset, uint64_t bytes, uint64_t sectors, const BlkIov *iov)
{
    uint64_t padding = sectors * s->sector_size - bytes;
    int ret;

    if (!iov) {
        return blk_co_pwrite_zeroes(s->log->node, offset, sectors * s->sector_size, 0);
    }
    ret = blk_co_pwritev(s->log->node, offset, bytes, *iov, 0);
    if (ret == 0 && padding > 0) {
        ret = blk_co_pwrite_zeroes(s->log->node, offset + bytes, padding, 0);
    }
    return ret;
}

/* Adds an entry with its data: @text in the entry's own sector, or @bytes in those that follow. */
static int log_co_add(LogWrites *s, const LogEntry *entry, const char *text, uint64_t bytes, const BlkIov *iov)
{
    uint64_t sectors = bytes > 0 ? entry->sectors : 0, end;
    int ret = 0;

    if (!g_uint64_checked_add(&end, s->next, sectors + 1) || end > BLK_MAX_LENGTH / s->sector_size) {
        return -EFBIG;
    }
    if (sectors > 0) {
        ret = log_co_write_data(s, (s->next + 1) * s->sector_size, bytes, sectors, iov);
    }
    if (ret < 0) {
        return ret;
    }
    memset(s->sector, 0, s->sector_size);
    put64(s->sector, entry->sector);
    put64(s->sector + 8, entry->sectors);
    put64(s->sector + 16, entry->flags);
    put64(s->sector + 24, entry->data_bytes);
    memcpy(s->sector + LOG_ENTRY_BYTES, text, entry->data_bytes);
    ret = blk_co_pwrite(s->log->node, s->next * s->sector_size, s->sector_size, s->sector, 0);
    if (ret < 0) {
        return ret;
    }
    s->next = end;
    s->entries++;
    return s->entries - s->entries_told >= s->super_interval ? log_co_write_super(s) : 0;
}

/* Records a change of the child. @iov: NULL if there is no data, or zeroes. */
static int log_co_change(LogWrites *s, uint64_t offset, uint64_t bytes, unsigned flags, const BlkIov *iov)
{
    uint64_t first = offset / s->sector_size, end = (offset + bytes + s->sector_size - 1) / s->sector_size;
    LogEntry entry = { .sector = first, .sectors = end - first, .flags = flags };

    blk_co_mutex_lock(&s->log_lock);
    int ret = log_co_add(s, &entry, "", flags & LOG_DISCARD ? 0 : bytes, iov);
    blk_co_mutex_unlock(&s->log_lock);
    return ret;
}

/* ---- opening ---- */

/* Finds the end of the log that is there. Each entry takes a sector at least, so the log's length bounds the walk. */
static int log_co_find_end(LogWrites *s, GError **error)
{
    uint64_t log_sectors = blk_node_length(s->log->node) / s->sector_size;

    for (uint64_t i = 0; i < s->entries; i++) {
        uint8_t buf[LOG_ENTRY_BYTES];
        int ret = s->next < log_sectors ? blk_co_pread(s->log->node, s->next * s->sector_size, sizeof(buf), buf, 0) : 0;
        if (ret < 0) {
            return blk_error_errno(error, ret, "Could not read entry %" PRIu64 " of the log", i);
        }
        uint64_t sectors = s->next < log_sectors ? get64(buf + 8) : 0, flags = get64(buf + 16);
        sectors = flags & (LOG_DISCARD | LOG_MARK) ? 0 : sectors;
        if (s->next >= log_sectors || (flags & ~(uint64_t)LOG_FLAGS_KNOWN) || sectors > log_sectors - s->next) {
            return blk_error(error, -EINVAL, "The log cannot be continued: its entry %" PRIu64 " at byte %" PRIu64
                             " is damaged; start a new one with log-append=off", i, s->next * s->sector_size);
        }
        s->next += 1 + sectors;
    }
    return 0;
}

static int log_co_continue(LogWrites *s, GError **error)
{
    uint8_t super[LOG_SUPER_BYTES] = { 0 };
    uint32_t sector_size;
    int ret = 0;

    if (blk_node_length(s->log->node) >= LOG_MIN_SECTOR) {
        ret = blk_co_pread(s->log->node, 0, sizeof(super), super, 0);
    }
    if (ret < 0) {
        return blk_error_errno(error, ret, "Could not read the log");
    }
    if (blk_buffer_is_zero(super, sizeof(super))) {
        return 0;                       /* an empty log */
    }
    memcpy(&sector_size, super + 24, sizeof(sector_size));
    sector_size = GUINT32_FROM_LE(sector_size);
    if (get64(super) != LOG_MAGIC || get64(super + 8) != LOG_VERSION) {
        return blk_error(error, -EINVAL, "What is in '%s' is no log of version 1: start a new one with log-append=off",
                         blk_node_filename(s->log->node));
    }
    if (sector_size < LOG_MIN_SECTOR || sector_size > LOG_MAX_SECTOR || (sector_size & (sector_size - 1))) {
        return blk_error(error, -EINVAL, "Invalid log sector size %u in the log", sector_size);
    }
    s->sector_size = sector_size;
    s->entries = get64(super + 16);
    return log_co_find_end(s, error);
}

static int log_check_options(const BlkOptions *options, LogWrites *s, GError **error)
{
    s->sector_size = blk_options_uint(options, "log-sector-size");
    s->super_interval = blk_options_uint(options, "log-super-update-interval");
    if (blk_options_bool(options, "log-append") && blk_options_has(options, "log-sector-size")) {
        return blk_error(error, -EINVAL, "log-append and log-sector-size are mutually exclusive");
    }
    if (s->sector_size < LOG_MIN_SECTOR || s->sector_size > LOG_MAX_SECTOR || (s->sector_size & (s->sector_size - 1))) {
        return blk_error(error, -EINVAL, "Invalid log sector size %" PRIu64 ": it must be a power of two from %d to %d",
                         s->sector_size, LOG_MIN_SECTOR, LOG_MAX_SECTOR);
    }
    if (s->super_interval == 0) {
        return blk_error(error, -EINVAL, "Invalid log superblock update interval 0: it must be at least 1");
    }
    return 0;
}

/* The log begins: either where the old one ends, or anew. */
static int log_co_begin(LogWrites *s, bool append, GError **error)
{
    s->next = 1;
    int ret = append ? log_co_continue(s, error) : 0;
    if (ret < 0) {
        return ret;
    }
    s->sector = blk_buffer_try_alloc(s->log->node, s->sector_size);
    if (!s->sector) {
        return blk_error(error, -ENOMEM, "No memory for a log sector of %" PRIu64 " bytes", s->sector_size);
    }
    ret = log_co_write_super(s);
    return ret < 0 ? blk_error_errno(error, ret, "Could not write the log") : 0;
}

static int log_writes_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    LogWrites *s = node->opaque;

    int ret = log_check_options(options, s, error);
    if (ret < 0) {
        return ret;
    }
    if (!blk_co_open_child(node, options, "file", BLK_ROLE_FILTERED, error)) {
        return -EINVAL;
    }
    s->log = blk_co_open_child(node, options, "log", BLK_ROLE_DATA, error);
    if (!s->log) {
        return -EINVAL;
    }
    return node->read_only ? 0 : log_co_begin(s, blk_options_bool(options, "log-append"), error);
}

static void log_writes_co_close(BlkNode *node)
{
    LogWrites *s = node->opaque;

    if (s->sector && s->entries_told < s->entries) {
        log_co_write_super(s);          /* who wants to know flushes first */
    }
    g_clear_pointer(&s->sector, blk_buffer_free);
}

static void log_writes_refresh_limits(BlkNode *node)
{
    LogWrites *s = node->opaque;
    BlkLimits *limits = &node->limits;

    limits->write_align = MAX(limits->write_align, s->sector_size);
    limits->zeroes_align = MAX(limits->zeroes_align, s->sector_size);
    limits->discard_align = MAX(limits->discard_align, s->sector_size);
}

/* The log is written from the moment of opening, and by nobody else. */
static void log_writes_child_perm(BlkNode *node, BlkChild *child, unsigned perm, unsigned shared,
                                  unsigned *child_perm, unsigned *child_shared)
{
    bool is_log = child->role == BLK_ROLE_DATA;

    *child_perm = !is_log ? perm : node->read_only ? BLK_PERM_READ : BLK_PERM_READ | BLK_PERM_WRITE | BLK_PERM_RESIZE;
    *child_shared = is_log ? BLK_PERM_READ : shared;
}

/* ---- requests ---- */

static int log_writes_co_pwritev(BlkNode *node, BlkRequest *req)
{
    LogWrites *s = node->opaque;
    BlkRangeHold hold;

    blk_co_range_lock(&s->changes, &hold, req->offset, req->bytes, true);
    int ret = blk_co_pass_through_write(node, req);
    if (ret == 0) {
        ret = log_co_change(s, req->offset, req->bytes, req->flags & BLK_REQ_FUA ? LOG_FUA : 0, &req->iov);
    }
    blk_range_unlock(&s->changes, &hold);
    return ret;
}

static int log_writes_co_pwrite_zeroes(BlkNode *node, BlkRequest *req)
{
    LogWrites *s = node->opaque;
    BlkRangeHold hold;

    blk_co_range_lock(&s->changes, &hold, req->offset, req->bytes, true);
    int ret = blk_co_pwrite_zeroes(node->file->node, req->offset, req->bytes, req->flags);
    if (ret == 0) {
        ret = log_co_change(s, req->offset, req->bytes, req->flags & BLK_REQ_FUA ? LOG_FUA : 0, NULL);
    }
    blk_range_unlock(&s->changes, &hold);
    return ret;
}

static int log_writes_co_discard(BlkNode *node, BlkRequest *req)
{
    LogWrites *s = node->opaque;
    BlkRangeHold hold;

    blk_co_range_lock(&s->changes, &hold, req->offset, req->bytes, true);
    int ret = blk_co_discard(node->file->node, req->offset, req->bytes);
    if (ret == 0) {
        ret = log_co_change(s, req->offset, req->bytes, LOG_DISCARD, NULL);
    }
    blk_range_unlock(&s->changes, &hold);
    return ret;
}

static int log_writes_co_flush(BlkNode *node)
{
    LogWrites *s = node->opaque;
    const LogEntry entry = { .flags = LOG_FLUSH };

    blk_co_mutex_lock(&s->log_lock);
    int ret = blk_co_flush(node->file->node);
    if (ret == 0) {
        ret = log_co_add(s, &entry, "", 0, NULL);
    }
    if (ret == 0 && s->entries_told < s->entries) {
        ret = log_co_write_super(s);
    }
    blk_co_mutex_unlock(&s->log_lock);
    return ret;
}

static int log_writes_co_truncate(BlkNode *node, uint64_t length, BlkPrealloc prealloc, GError **error)
{
    LogWrites *s = node->opaque;
    uint64_t old_length = node->length;
    BlkRangeHold hold;

    blk_co_range_lock(&s->changes, &hold, 0, BLK_MAX_LENGTH, true);
    int ret = blk_co_truncate(node->file->node, length, prealloc, error);
    if (ret == 0 && length < old_length) {
        ret = log_co_change(s, length, old_length - length, LOG_DISCARD, NULL);
        if (ret < 0) {
            blk_error_errno(error, ret, "Could not write the log");
        }
    }
    blk_range_unlock(&s->changes, &hold);
    return ret;
}

static int log_writes_co_mark(BlkNode *node, const char *text, GError **error)
{
    LogWrites *s = node->opaque;
    LogEntry entry = { .flags = LOG_MARK, .data_bytes = strlen(text) };

    if (node->read_only) {
        return blk_error(error, -EROFS, "The log of a read-only node takes no marks");
    }
    if (entry.data_bytes == 0 || entry.data_bytes >= s->sector_size - LOG_ENTRY_BYTES) {
        return blk_error(error, -EINVAL, "A mark has 1 to %" PRIu64 " bytes", s->sector_size - LOG_ENTRY_BYTES - 1);
    }
    blk_co_mutex_lock(&s->log_lock);
    int ret = log_co_add(s, &entry, text, 0, NULL);
    blk_co_mutex_unlock(&s->log_lock);
    return ret < 0 ? blk_error_errno(error, ret, "Could not write the log") : 0;
}

const BlkDriver blk_driver_log_writes = {
    .name = "log-writes",
    .alias = "blklogwrites",
    .kind = BLK_FILTER,
    .help = "records all changes in a log that can be replayed",
    .options = log_writes_options,
    .instance_size = sizeof(LogWrites),
    .co_open = log_writes_co_open,
    .co_close = log_writes_co_close,
    .refresh_limits = log_writes_refresh_limits,
    .child_perm = log_writes_child_perm,
    .co_pwritev = log_writes_co_pwritev,
    .co_pwrite_zeroes = log_writes_co_pwrite_zeroes,
    .co_discard = log_writes_co_discard,
    .co_flush = log_writes_co_flush,
    .co_truncate = log_writes_co_truncate,
    .co_mark = log_writes_co_mark,
};
