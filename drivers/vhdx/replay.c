/* SPDX-License-Identifier: MIT */
/*
 * replay.c - finds in the log of a VHDX what a crash may have left undone, and does it ([MS-VHDX] 2.3.2 and 2.3.3).
 *
 *     log, a ring:   | entry 7 | entry 8 | entry 5 (old) | ... | entry 6, whose tail is 6 |
 *
 * A sequence is a run of valid entries, each behind the one before and with the next number; the last one's tail must be in
 * it. The one with the highest number holds, and is done from its tail on. An entry that a crash left half written is
 * not valid, which its checksum tells. Without any valid one nothing was changed in place yet.
 *
 * No entry is trusted. All that is to be done is looked at before the first change. What the search may read is bounded:
 * heads may claim that their entries are long and overlap.
 */
#include "drivers/vhdx/vhdx.h"

#include "core/crc32c.h"

#include <inttypes.h>

/* Bytes; the whole log has 1 MiB, as a rule. */
enum { MAX_ENTRY = 64 << 20, MAX_SEARCH = 256 << 20 };

#define MAX_FILE (VHDX_MAX_DISK + (UINT64_C(1) << 40))      /* all blocks, and more than enough beside */

typedef struct Log {
    BlkNode *node;
    BlkNode *file;
    const VhdxHeader *header;
    uint64_t budget;                /* bytes of entries that may still be read */
} Log;

typedef struct Entry {
    uint8_t *data;                  /* NULL: there is no valid entry */
    uint32_t at, bytes, tail;       /* in the log */
    uint32_t count, head_sectors;   /* descriptors, and the sectors that they take */
    uint64_t sequence, flushed, last;
} Entry;

/* From an entry to another, which may be the same. */
typedef struct Sequence {
    uint32_t tail;                  /* where the entry is with which replay begins */
    uint64_t last;                  /* number of the last one; 0: there is none */
} Sequence;

static void entry_clear(Entry *entry)
{
    g_clear_pointer(&entry->data, g_free);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Entry, entry_clear)

static uint32_t ring(const Log *log, uint64_t at)
{
    return (uint32_t)(at % log->header->log_length);
}

static int co_read_ring(const Log *log, uint32_t at, uint32_t bytes, uint8_t *buf)
{
    uint32_t piece = MIN(bytes, log->header->log_length - at);
    int ret = blk_co_pread(log->file, log->header->log_offset + at, piece, buf, 0);

    if (ret == 0 && piece < bytes) {
        ret = blk_co_pread(log->file, log->header->log_offset, bytes - piece, buf + piece, 0);
    }
    return ret;
}

/* Could this be the head of an entry? */
static bool parse_head(const Log *log, const uint8_t *h, Entry *entry)
{
    entry->bytes = blk_get_le32(h + VHDX_L_BYTES);
    entry->tail = blk_get_le32(h + VHDX_L_TAIL);
    entry->sequence = blk_get_le64(h + VHDX_L_SEQUENCE);
    entry->count = blk_get_le32(h + VHDX_L_COUNT);
    entry->flushed = blk_get_le64(h + VHDX_L_FLUSHED);
    entry->last = blk_get_le64(h + VHDX_L_LAST);
    uint64_t head = VHDX_L_HEAD + (uint64_t)entry->count * VHDX_D_BYTES;
    entry->head_sectors = (uint32_t)((head + VHDX_LOG_SECTOR - 1) / VHDX_LOG_SECTOR);
    return memcmp(h, "loge", 4) == 0 && memcmp(h + VHDX_L_GUID, log->header->log, UUID_BYTES) == 0 &&
           entry->bytes % VHDX_LOG_SECTOR == 0 && entry->bytes <= log->header->log_length && head <= entry->bytes &&
           entry->tail % VHDX_LOG_SECTOR == 0 && entry->tail < log->header->log_length && entry->sequence > 0;
}

static const uint8_t *descriptor(const Entry *entry, uint32_t i)
{
    return entry->data + VHDX_L_HEAD + (size_t)i * VHDX_D_BYTES;
}

static bool is_zero_descriptor(const uint8_t *d)
{
    return memcmp(d, "zero", 4) == 0;
}

/* All descriptors and data sectors are its own. */
static bool has_valid_parts(const Entry *entry)
{
    uint64_t sectors = 0;

    for (uint32_t i = 0; i < entry->count; i++) {
        const uint8_t *d = descriptor(entry, i);
        bool zero = is_zero_descriptor(d);
        if ((!zero && memcmp(d, "desc", 4) != 0) || blk_get_le64(d + VHDX_D_SEQUENCE) != entry->sequence) {
            return false;
        }
        sectors += !zero;
    }
    if (sectors > entry->bytes / VHDX_LOG_SECTOR - entry->head_sectors) {
        return false;
    }
    for (uint64_t i = 0; i < sectors; i++) {
        const uint8_t *sector = entry->data + (entry->head_sectors + i) * VHDX_LOG_SECTOR;
        if (memcmp(sector, "data", 4) != 0 || blk_get_le32(sector + VHDX_S_HIGH) != entry->sequence >> 32 ||
            blk_get_le32(sector + VHDX_S_LOW) != (uint32_t)entry->sequence) {
            return false;
        }
    }
    return true;
}

/* Loads the entry at @at, if there is a valid one. */
static int co_load(Log *log, uint32_t at, Entry *entry)
{
    uint8_t head[VHDX_L_HEAD];
    int ret = co_read_ring(log, at, VHDX_L_HEAD, head);

    *entry = (Entry) { .at = at };
    if (ret < 0 || !parse_head(log, head, entry)) {
        return ret;
    }
    if (entry->bytes > MAX_ENTRY || entry->bytes > log->budget) {
        return -E2BIG;
    }
    log->budget -= entry->bytes;
    g_autofree uint8_t *data = g_try_malloc(entry->bytes);
    if (!data) {
        return -ENOMEM;
    }
    ret = co_read_ring(log, at, entry->bytes, data);
    if (ret < 0) {
        return ret;
    }
    uint32_t checksum = blk_get_le32(data + VHDX_L_CHECKSUM);
    blk_put_le32(data + VHDX_L_CHECKSUM, 0);
    if (parse_head(log, data, entry) && blk_crc32c(0, data, entry->bytes) == checksum) {
        entry->data = g_steal_pointer(&data);
        if (!has_valid_parts(entry)) {
            entry_clear(entry);
        }
    }
    return 0;
}

/* ---- the search ---- */

/* Follows entries from @at on. *end: how far they reach from there, bytes; 0: none is valid. */
static int co_follow(Log *log, uint32_t at, Sequence *found, uint64_t *end)
{
    uint64_t next = 0, tail_distance = 0, length = log->header->log_length;

    *found = (Sequence) { .last = 0 };
    for (*end = 0; *end < length;) {
        g_auto(Entry) entry = { .data = NULL };
        int ret = co_load(log, ring(log, at + *end), &entry);
        if (ret < 0) {
            return ret;
        }
        if (!entry.data || (*end > 0 && entry.sequence != next) || entry.bytes > length - *end) {
            break;
        }
        *end += entry.bytes;
        next = entry.sequence + 1;          /* 0 is the number of none */
        *found = (Sequence) { entry.tail, entry.sequence };
        tail_distance = ring(log, entry.tail + length - at);
    }
    if (tail_distance >= *end) {
        found->last = 0;            /* what it begins with is not there any more */
    }
    return 0;
}

/* How far the log from @at on is a hole of the file. */
static uint64_t co_hole(Log *log, uint64_t at)
{
    BlkStatus status;
    uint64_t bytes = log->header->log_length - at;

    if (blk_co_block_status(log->file, log->header->log_offset + at, bytes, &status) < 0 || !(status.flags & BLK_STATUS_ZERO)) {
        return 0;
    }
    return status.bytes & ~(uint64_t)(VHDX_LOG_SECTOR - 1);
}

static int co_search(Log *log, Sequence *best)
{
    *best = (Sequence) { .last = 0 };
    for (uint64_t at = 0; at < log->header->log_length;) {
        Sequence found;
        uint64_t end = at % VHDX_MIB == 0 ? co_hole(log, at) : 0;
        if (end > 0) {
            at += end;
            continue;
        }
        int ret = co_follow(log, (uint32_t)at, &found, &end);
        if (ret < 0) {
            return ret;
        }
        if (found.last > best->last) {
            *best = found;
        }
        at += found.last > 0 ? end : VHDX_LOG_SECTOR;
    }
    return 0;
}

/* ---- what it says ---- */

static int check_target(const Log *log, const Entry *entry, uint64_t offset, uint64_t bytes, GError **error)
{
    const VhdxHeader *h = log->header;

    if (offset % VHDX_LOG_SECTOR != 0 || bytes % VHDX_LOG_SECTOR != 0 || offset < VHDX_REGIONS_AT || offset > entry->last ||
        bytes > entry->last - offset || (offset < h->log_offset + h->log_length && h->log_offset < offset + bytes)) {
        return blk_error(error, -EINVAL, "Invalid VHDX: its log wants to change %" PRIu64 " bytes at offset %" PRIu64
                         " of the file, which no log may", bytes, offset);
    }
    return 0;
}

static int check_entry(Log *log, const Entry *entry, GError **error)
{
    if (entry->flushed > blk_node_length(log->file)) {
        return blk_error(error, -EINVAL, "Invalid VHDX: its file was cut off: the log tells of %" PRIu64 " bytes",
                         entry->flushed);
    }
    if (entry->last > MAX_FILE) {
        return blk_error(error, -EINVAL, "Invalid VHDX: its log tells of a file of %" PRIu64 " bytes", entry->last);
    }
    for (uint32_t i = 0; i < entry->count; i++) {
        const uint8_t *d = descriptor(entry, i);
        uint64_t bytes = is_zero_descriptor(d) ? blk_get_le64(d + VHDX_D_LENGTH) : VHDX_LOG_SECTOR;
        int ret = check_target(log, entry, blk_get_le64(d + VHDX_D_OFFSET), bytes, error);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static int co_do_entry(Log *log, const Entry *entry)
{
    uint8_t *sector = entry->data + (size_t)entry->head_sectors * VHDX_LOG_SECTOR;
    int ret = 0;

    if (entry->last > blk_node_length(log->file)) {
        ret = blk_co_truncate(log->file, entry->last, BLK_PREALLOC_OFF, NULL);
    }
    for (uint32_t i = 0; i < entry->count && ret == 0; i++) {
        const uint8_t *d = descriptor(entry, i);
        uint64_t offset = blk_get_le64(d + VHDX_D_OFFSET);
        if (is_zero_descriptor(d)) {
            uint64_t bytes = blk_get_le64(d + VHDX_D_LENGTH);
            ret = bytes > 0 ? blk_co_pwrite_zeroes(log->file, offset, bytes, 0) : 0;
            continue;
        }
        memcpy(sector, d + VHDX_D_LEADING, VHDX_S_DATA);
        memcpy(sector + VHDX_S_LOW, d + VHDX_D_TRAILING, 4);
        ret = blk_co_pwrite(log->file, offset, VHDX_LOG_SECTOR, sector, 0);
        sector += VHDX_LOG_SECTOR;
    }
    return ret;
}

/* Looks at all entries of the sequence, or (@now) does what they say. */
static int co_go_through(Log *log, const Sequence *sequence, bool now, GError **error)
{
    uint64_t at = sequence->tail, number = 0;       /* 0: of none */

    while (number != sequence->last) {
        g_auto(Entry) entry = { .data = NULL };
        int ret = co_load(log, ring(log, at), &entry);
        if (ret == 0 && (!entry.data || (number != 0 && entry.sequence != number + 1))) {
            ret = -EIO;             /* it was there before */
        }
        if (ret == 0 && now) {
            ret = co_do_entry(log, &entry);
        }
        if (ret < 0) {
            return blk_error_errno(error, ret, "Could not replay the log of the VHDX");
        }
        if (!now) {
            ret = check_entry(log, &entry, error);
            if (ret < 0) {
                return ret;
            }
        }
        number = entry.sequence;
        at += entry.bytes;
    }
    return 0;
}

static int co_replay(Log *log, GError **error)
{
    VhdxState *s = log->node->opaque;
    Sequence sequence;
    int ret = co_search(log, &sequence);

    if (ret < 0) {
        return ret == -E2BIG ? blk_error(error, ret, "Invalid VHDX: the entries of its log are too long")
                             : blk_error_errno(error, ret, "Could not read the log of the VHDX");
    }
    log->budget = 2 * MAX_SEARCH;
    if (sequence.last > 0) {
        ret = co_go_through(log, &sequence, false, error);
    }
    if (ret < 0) {
        return ret;
    }
    ret = vhdx_co_announce(log->node, false);
    if (ret < 0) {
        return blk_error_errno(error, ret, "Could not write the VHDX header");
    }
    if (sequence.last > 0) {
        ret = co_go_through(log, &sequence, true, error);
    }
    if (ret < 0) {
        return ret;
    }
    ret = blk_co_flush(log->file);
    ret = ret < 0 ? ret : vhdx_co_log_clear(log->node);
    if (ret < 0) {
        return blk_error_errno(error, ret, "Could not end the log of the VHDX");
    }
    s->replayed = sequence.last > 0;
    return 0;
}

/* Is there an entry that is to be replayed? */
static int co_has_entries(Log *log, bool *has)
{
    Sequence sequence;
    int ret = co_search(log, &sequence);

    *has = ret < 0 || sequence.last > 0;
    return ret == -E2BIG ? 0 : ret;
}

int vhdx_co_replay(BlkNode *node, GError **error)
{
    VhdxState *s = node->opaque;
    Log log = { .node = node, .file = node->file->node, .header = &s->header, .budget = MAX_SEARCH };
    bool has = true;

    if (uuid_is_null(s->header.log)) {
        return 0;
    }
    if (log.header->log_offset + log.header->log_length > blk_node_length(log.file)) {
        return blk_error(error, -EINVAL, "Invalid VHDX: the file ends within its log");
    }
    if (!node->read_only) {
        return co_replay(&log, error);
    }
    int ret = co_has_entries(&log, &has);
    if (ret < 0) {
        return blk_error_errno(error, ret, "Could not read the log of the VHDX");
    }
    return !has ? 0 : blk_error(error, -EACCES, "The VHDX image is opened read-only, but contains a log that needs to be "
                                "replayed: repair it first (check -r all), or open it for writing");
}
