/* SPDX-License-Identifier: MIT */
/*
 * crash_log.c - from the log to what the disk may hold after a crash.
 *
 * The log is that of the log-writes filter; what it cannot say, when each request began and ended, comes from the
 * notes of the disks below it, with which it must agree. A crash at some time leaves
 *
 *     what had ended before the begin of a flush that has ended: certainly;
 *     of each other write that had begun: any of its 512-byte sectors.
 *
 * Which of them, and so in which order they reached the disk, is chosen in several modes. Writes that overlap have
 * waited for each other, so of two that both arrived the later one counts.
 */
#include "crash.h"

#include "core/loop.h"

enum { LOG_UNIT = 512, ENTRY_FLUSH = 1, ENTRY_DISCARD = 4, ENTRY_MARK = 8 };

static uint64_t le64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return GUINT64_FROM_LE(v);
}

/* ---- reading ---- */

/* When the last write to @offset of the log's disk ended. */
static uint64_t when_logged(const CrashDisk *disk, uint64_t offset)
{
    const GArray *notes = mem_disk_of(disk->log)->notes;

    for (guint i = notes->len; i > 0; i--) {
        const MemDiskNote *note = &g_array_index(notes, MemDiskNote, i - 1);
        if (note->op == MEM_DISK_WRITE && note->offset == offset) {
            return note->end;
        }
    }
    return NEVER;
}

/* The first note of such a change that no entry has taken yet: those of one range come in order. The log has whole
 * sectors, also where a write ends with a disk that has not. */
static MemDiskNote *take_note(const CrashDisk *disk, const CrashEntry *entry)
{
    GArray *notes = mem_disk_of(disk->node)->notes;

    for (guint i = 0; i < notes->len; i++) {
        MemDiskNote *note = &g_array_index(notes, MemDiskNote, i);
        unsigned ops = entry->discard ? MEM_DISK_DISCARD | MEM_DISK_TRUNCATE : MEM_DISK_WRITE;
        uint64_t logged_bytes = (note->bytes + LOG_UNIT - 1) / LOG_UNIT * LOG_UNIT;
        if (!note->used && (note->op & ops) && note->offset == entry->offset && logged_bytes == entry->bytes) {
            note->used = true;
            return note;
        }
    }
    return NULL;
}

/* The flush of the disk that the entry tells of: the last that had ended. */
static const MemDiskNote *find_flush(const CrashDisk *disk, uint64_t logged)
{
    const GArray *notes = mem_disk_of(disk->node)->notes;
    const MemDiskNote *found = NULL;

    for (guint i = 0; i < notes->len; i++) {
        const MemDiskNote *note = &g_array_index(notes, MemDiskNote, i);
        if (note->op == MEM_DISK_FLUSH && note->end < logged) {
            found = note;
        }
    }
    return found;
}

static void add_entry(CrashRound *round, unsigned disk, const uint8_t *head, uint64_t at)
{
    const CrashDisk *d = &round->disks[disk];
    uint64_t flags = le64(head + 16);
    CrashEntry entry = {
        .disk = disk, .flush = flags & ENTRY_FLUSH, .discard = flags & ENTRY_DISCARD,
        .offset = le64(head) * LOG_UNIT, .bytes = le64(head + 8) * LOG_UNIT, .data = head + LOG_UNIT,
        .logged = when_logged(d, at),
    };
    const MemDiskNote nothing = { 0 };      /* the first flush, before anything was written, need not reach the disk */
    const MemDiskNote *note = entry.flush ? find_flush(d, entry.logged) : take_note(d, &entry);

    if (!note && entry.flush) {
        note = &nothing;
    }
    if (!note || note->end >= entry.logged) {
        crash_fail(round, "the log has a %s of %" PRIu64 " bytes at %" PRIu64 " that the disk does not know of",
                   entry.discard ? "discard" : "write", entry.bytes, entry.offset);
    }
    entry.begin = note->begin;
    entry.end = note->end;
    for (guint i = 0; entry.flush && i < round->entries->len; i++) {
        const CrashEntry *before = &g_array_index(round->entries, CrashEntry, i);
        if (before->disk == disk && !before->flush && before->end > entry.begin) {
            crash_fail(round, "entry %u was not through when the flush that follows it in the log began", i);
        }
    }
    g_array_append_val(round->entries, entry);
}

static void read_disk(CrashRound *round, unsigned disk)
{
    const MemDisk *log = mem_disk_of(round->disks[disk].log);
    const GArray *notes = mem_disk_of(round->disks[disk].node)->notes;
    uint64_t count = le64(log->data + 16), at = LOG_UNIT;

    for (uint64_t i = 0; i < count; i++) {
        const uint8_t *head = log->data + at;
        uint64_t flags = le64(head + 16);

        if (!(flags & ENTRY_MARK)) {
            add_entry(round, disk, head, at);
        }
        at += LOG_UNIT;
        at += flags & (ENTRY_MARK | ENTRY_DISCARD) ? 0 : le64(head + 8) * LOG_UNIT;
    }
    for (guint i = 0; i < notes->len; i++) {
        const MemDiskNote *note = &g_array_index(notes, MemDiskNote, i);
        if (!note->used && note->op != MEM_DISK_FLUSH && note->bytes > 0) {
            crash_fail(round, "a change of %" PRIu64 " bytes at %" PRIu64 " of disk %u is not in the log", note->bytes,
                       note->offset, disk);
        }
    }
}

static gint compare_entries(gconstpointer a, gconstpointer b)
{
    const CrashEntry *first = a, *second = b;

    return first->logged < second->logged ? -1 : first->logged > second->logged;
}

void crash_log_read(CrashRound *round)
{
    round->entries = g_array_new(FALSE, FALSE, sizeof(CrashEntry));
    for (unsigned i = 0; i < round->n_disks; i++) {
        read_disk(round, i);
    }
    g_array_sort(round->entries, compare_entries);
}

/* ---- states ---- */

typedef enum Mode { MODE_ALL, MODE_NOTHING, MODE_WRITES, MODE_SECTORS, MODE_FEW, MODE_BUT_ONE, MODE_ONE, MODES } Mode;

static const char *const mode_names[] = {
    "all", "nothing", "each write by chance", "each sector by chance", "few sectors", "all writes but one", "one write",
};

static void make_room(CrashDisk *disk, uint64_t bytes, uint64_t *room)
{
    if (bytes > *room) {
        disk->state = g_realloc(disk->state, bytes);
        memset(disk->state + *room, 0, bytes - *room);
        *room = bytes;
    }
}

static void apply_sector(CrashDisk *disk, const CrashEntry *entry, uint64_t pos, uint64_t n)
{
    if (entry->discard) {
        memset(disk->state + entry->offset + pos, 0, n);
    } else {
        memcpy(disk->state + entry->offset + pos, entry->data + pos, n);
    }
}

/* Is write number @i of those that may be there to be there, wholly? -1: sector by sector. */
static int choose(CrashRound *round, Mode mode, unsigned i, unsigned lucky)
{
    switch (mode) {
    case MODE_ALL:
        return 1;
    case MODE_NOTHING:
        return 0;
    case MODE_WRITES:
        return g_rand_boolean(round->rand);
    case MODE_BUT_ONE:
        return i != lucky;
    case MODE_ONE:
        return i == lucky;
    default:
        return -1;
    }
}

/* Applies all that @entry may have changed, or what the mode chooses of it. */
static void apply_entry(CrashRound *round, const CrashEntry *entry, Mode mode, int there)
{
    unsigned percent = there >= 0 ? 100 * (unsigned)there : mode == MODE_FEW ? 15 : 50;
    CrashDisk *disk = &round->disks[entry->disk];

    for (uint64_t pos = 0; pos < entry->bytes; pos += SECTOR) {
        if (percent == 100 || (percent > 0 && (unsigned)g_rand_int_range(round->rand, 0, 100) < percent)) {
            apply_sector(disk, entry, pos, MIN(SECTOR, entry->bytes - pos));
            if (!entry->discard) {
                disk->state_bytes = MAX(disk->state_bytes, entry->offset + MIN(pos + SECTOR, entry->bytes));
            }
        }
    }
}

/* Until when is stable what had ended, on each disk? */
typedef struct Stable {
    uint64_t until[CRASH_DISKS];
} Stable;

static Stable stable_before(const CrashRound *round, uint64_t time)
{
    Stable stable = { .until = { 0 } };

    for (guint i = 0; i < round->entries->len; i++) {
        const CrashEntry *entry = &g_array_index(round->entries, CrashEntry, i);
        if (entry->flush && entry->end <= time) {
            stable.until[entry->disk] = MAX(stable.until[entry->disk], entry->begin);
        }
    }
    return stable;
}

/* What may be there at @time but is not certain. */
static bool is_open(const CrashEntry *entry, uint64_t time, const Stable *stable)
{
    return !entry->flush && entry->begin <= time && entry->end >= stable->until[entry->disk];
}

static unsigned count_open(const CrashRound *round, uint64_t time, const Stable *stable)
{
    unsigned count = 0;

    for (guint i = 0; i < round->entries->len; i++) {
        count += is_open(&g_array_index(round->entries, CrashEntry, i), time, stable);
    }
    return count;
}

/* Makes the states of the disks what they hold after a crash at round->time. */
static void build_states(CrashRound *round, Mode mode, const Stable *stable, unsigned open)
{
    unsigned lucky = open > 0 ? g_rand_int_range(round->rand, 0, open) : 0, number = 0;
    uint64_t room[CRASH_DISKS];

    for (unsigned i = 0; i < round->n_disks; i++) {
        CrashDisk *disk = &round->disks[i];
        g_free(disk->state);
        disk->state = g_memdup2(disk->initial, disk->initial_bytes);
        disk->state_bytes = room[i] = disk->initial_bytes;
    }
    for (guint i = 0; i < round->entries->len; i++) {
        const CrashEntry *entry = &g_array_index(round->entries, CrashEntry, i);
        if (entry->flush || entry->begin > round->time) {
            continue;
        }
        make_room(&round->disks[entry->disk], entry->offset + entry->bytes, &room[entry->disk]);
        bool open_entry = is_open(entry, round->time, stable);
        apply_entry(round, entry, mode, open_entry ? choose(round, mode, number, lucky) : 1);
        number += open_entry;
    }
}

static void judge_mode(CrashRound *round, Mode mode, const Stable *stable, unsigned open)
{
    round->mode = mode_names[mode];
    build_states(round, mode, stable, open);
    crash_judge_co_state(round);
    round->states++;
}

static void judge_time(CrashRound *round, uint64_t time)
{
    Stable stable = stable_before(round, time);
    unsigned open = count_open(round, time, &stable);

    round->time = time;
    judge_mode(round, MODE_ALL, &stable, open);
    if (open == 0) {
        return;
    }
    judge_mode(round, MODE_NOTHING, &stable, open);
    for (unsigned i = 0; i < round->samples; i++) {
        judge_mode(round, g_rand_int_range(round->rand, MODE_WRITES, open > 1 ? MODES : MODE_BUT_ONE), &stable, open);
    }
}

/* With all that was logged, the replay is the disk. */
static void check_replay(CrashRound *round, const CrashDisk *replayed)
{
    const MemDisk *disk = mem_disk_of(replayed->node);

    for (uint64_t i = 0; i < replayed->state_bytes; i++) {
        if (replayed->state[i] != (i < disk->room ? disk->data[i] : 0)) {
            crash_fail(round, "the replay of the log differs from the disk at byte %" PRIu64, i);
        }
    }
}

void crash_log_co_states(CrashRound *round)
{
    const Stable nothing = { .until = { 0 } };

    blk_pool_set_here(round->ctx->workers, true);
    round->time = round->now;
    build_states(round, MODE_ALL, &nothing, 0);
    for (unsigned i = 0; i < round->n_disks; i++) {
        check_replay(round, &round->disks[i]);
    }
    for (guint i = 0; i < round->entries->len; i++) {
        round->prefix = i + 1;
        judge_time(round, g_array_index(round->entries, CrashEntry, i).logged);
    }
    judge_time(round, round->now);
}
