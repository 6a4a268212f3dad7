/* SPDX-License-Identifier: MIT */
/*
 * crash.h - the parts of the crash test: see docs/crash-testing.md.
 *
 *   qcow2_crash.c   the program: seeds, workers, one round
 *   crash_stack.c   the nodes of a round: images, what is below them, recorders
 *   crash_chain.c   rebase and commit
 *   crash_guest.c   the workload: what a guest does with the image; what it may find afterwards
 *   crash_bitmap.c  dirty bitmaps in the image
 *   crash_snapshot.c   internal snapshots
 *   crash_log.c     from the log of the log-writes filter to what the disk may hold after a crash
 *   crash_judge.c   is such an image sound, and does it hold what it must?
 *
 * Times count the events of one round: begin and end of each request of the guest and of the disk.
 */
#ifndef BLKSTACK_TEST_CRASH_H
#define BLKSTACK_TEST_CRASH_H

#include "mem_disk.h"

#include <inttypes.h>

#define SECTOR UINT64_C(512)
#define NEVER UINT64_MAX

/* What the guest, or a control operation, wrote. */
typedef struct GuestWrite {
    uint64_t first, sectors;        /* of 512 bytes */
    uint64_t begin, end;            /* NEVER: it may or may not act, so it never replaces what was there */
    uint8_t *data;                  /* NULL: zeroes */
} GuestWrite;

typedef struct Span {
    uint64_t begin, end;
} Span;

/* A value that the image has from some time on. */
typedef struct LengthChange {
    uint64_t begin, end, sectors;
} LengthChange;

/* What an internal snapshot must hold from the end of created to the begin of deleted. */
typedef struct CrashSnapshot {
    char *name;
    uint64_t sectors;
    uint8_t *data;
    Span created, deleted;          /* NEVER: not at all */
} CrashSnapshot;

/* What an image consists of: the second disk holds its data file, or the image below it. */
typedef enum CrashKind { CRASH_ALONE, CRASH_DATA_FILE, CRASH_DATA_FILE_RAW, CRASH_REBASE, CRASH_COMMIT } CrashKind;

typedef struct CrashConfig {
    CrashKind kind;
    unsigned cluster_size, refcount_bits;
    uint64_t sectors, max_sectors;  /* of the guest: at first, and at most */
    bool v2, zstd, lazy, extended_l2, backing, bitmaps, snapshots;
    bool blocks;                    /* the file takes whole blocks of 4 KiB only */
    unsigned style;                 /* of writes: plain, compressed, both by turns */
    unsigned buffer;                /* of the compress filter, bytes; else nobody could write beside it */
} CrashConfig;

/* An entry of the log that changes the disk (a write, zeroes or a discard) or makes it stable. */
typedef struct CrashEntry {
    unsigned disk;
    bool flush, discard;
    uint64_t offset, bytes;
    const uint8_t *data;            /* in the log */
    uint64_t begin, end;            /* of the disk's request */
    uint64_t logged;                /* when the entry was complete */
} CrashEntry;

enum { CRASH_DISKS = 2, CRASH_BASES = 2 };

/* A disk whose changes are recorded. */
typedef struct CrashDisk {
    BlkNode *node, *log;            /* mem-disks */
    uint8_t *initial;               /* what it held when the log began */
    uint64_t initial_bytes;
    uint8_t *state;                 /* what a crash left, which is judged */
    uint64_t state_bytes;
} CrashDisk;

typedef struct CrashRound {
    BlkContext *ctx;
    uint32_t seed;
    GRand *rand;
    CrashConfig config;
    char *text;                     /* config, for people */
    const char *dir;                /* scratch */
    unsigned samples;               /* per prefix, beside "all" and "nothing" */

    uint64_t now;
    CrashDisk disks[CRASH_DISKS];
    unsigned n_disks;
    bool recording;
    BlkNode *bases[CRASH_BASES];    /* (nullable): raw backing nodes, "base0", "base1" */
    char *backing;                  /* which of them the image stands on; NULL: none */
    BlkChild *image, *top;          /* users of the qcow2 node and of the compress filter above it, if it can have one */
    BlkChild *below;                /* (nullable): of the image that is committed to */

    GPtrArray *writes;              /* of GuestWrite */
    GPtrArray **by_sector;          /* of GuestWrite that cover it, in order of begin */
    GArray *flushes;                /* of Span: what the guest had written before the begin is stable after the end */
    GArray *lengths;                /* of LengthChange, in order */
    GArray *snapshots;              /* of CrashSnapshot */
    GArray *snapshot_spans;         /* of Span: operations on snapshots */
    uint64_t sectors;               /* of the guest, now */
    unsigned running;               /* tasks of the guest ... */
    bool compressed;                /* ... who write through the filter */

    GArray *entries;                /* of CrashEntry, of all disks, in the order in which they were logged */
    uint64_t states;                /* that were judged */
    uint8_t *start;                 /* with bitmaps: what the guest found when the log began */
    uint64_t trusted;               /* looks at an image whose bitmap may be trusted */

    /* The state that is judged, for messages. */
    unsigned prefix;
    uint64_t time;
    const char *mode;
} CrashRound;

/* Prints what is wrong and how to see it again, keeps the image, and ends the process. */
void crash_fail(CrashRound *round, const char *format, ...) G_GNUC_PRINTF(2, 3) G_GNUC_NORETURN;

/* Opens a tree that is written with ' for "; the format may be printf's. */
BlkNode *crash_try_open(CrashRound *round, GError **error, const char *format, ...) G_GNUC_PRINTF(3, 4);

BlkNode *crash_co_must_open(CrashRound *round, const char *text);

/* ---- crash_stack.c: all but clear may yield ---- */

/* Makes the disks, an empty image in them, and what is below it. */
void crash_stack_co_make(CrashRound *round);
void crash_stack_clear(CrashRound *round);
/* compress above qcow2, above the disks, or above their recorders. */
void crash_stack_co_open(CrashRound *round);
void crash_stack_co_close(CrashRound *round);
/* The recorders begin: for a stack that is opened afterwards. */
void crash_stack_record(CrashRound *round);

/* ---- crash_chain.c: all may yield ---- */

/* At the end of what the guest does before the log begins: the image names its backing. */
void crash_chain_co_begin(CrashRound *round);
/* A control operation: a rebase or a commit, if the round is one of these. */
void crash_chain_co_control(CrashRound *round);

/* ---- crash_guest.c ---- */

void crash_guest_init(CrashRound *round);
void crash_guest_clear(CrashRound *round);
/* Before the log begins: fills part of the image, and notes what it holds. */
void crash_guest_co_prefill(CrashRound *round);
void crash_guest_co_workload(CrashRound *round);
/* After the workload, once. */
void crash_guest_index(CrashRound *round);

/* For control operations: the sectors have this content (copied; NULL: zeroes) from now on, if the image is changed at all; the
 * image has a new length since @begin. */
void crash_guest_note_content(CrashRound *round, uint64_t first, uint64_t sectors, const uint8_t *data);
void crash_guest_note_length(CrashRound *round, uint64_t begin, uint64_t sectors);

/* What was complete before this time is stable at @time. */
uint64_t crash_guest_stable(const CrashRound *round, uint64_t time);
/* Who wrote the sector, and when, for messages. (transfer full) */
char *crash_guest_history(const CrashRound *round, uint64_t number);
bool crash_guest_length_allowed(const CrashRound *round, uint64_t time, uint64_t sectors);
/* May @sector be what @number holds after a crash at @time? */
bool crash_guest_sector_allowed(const CrashRound *round, uint64_t time, uint64_t stable, uint64_t number,
                                const uint8_t *sector);

/* ---- crash_bitmap.c: all may yield ---- */

/* At the end of what the guest does before the log begins. */
void crash_bitmap_co_begin(CrashRound *round);
/* A control operation. */
void crash_bitmap_co_control(CrashRound *round);
/* Is the bitmap of the state right, given what the guest finds? */
void crash_bitmap_co_judge(CrashRound *round, BlkNode *node, const uint8_t *guest);

/* ---- crash_snapshot.c: all that is named co may yield ---- */

void crash_snapshot_init(CrashRound *round);
void crash_snapshot_clear(CrashRound *round);
/* A control operation. */
void crash_snapshot_co_control(CrashRound *round);
/* Is the state from the middle of an operation that its version cannot mark? Then COPIED flags may be missing. */
bool crash_snapshot_unmarked(const CrashRound *round);
/* Are all snapshots there, and are they what they were? @node, which is read-only, shows a snapshot afterwards. */
void crash_snapshot_co_judge(CrashRound *round, BlkNode *node);

/* ---- crash_log.c ---- */

/* Reads the log; fails the round if the recorder left something out or put it in the wrong place. */
void crash_log_read(CrashRound *round);
/* Judges what a crash may leave, for each prefix of the log. */
void crash_log_co_states(CrashRound *round);

/* ---- crash_judge.c ---- */

/* Judges the states of the disks. May yield. */
void crash_judge_co_state(CrashRound *round);

#endif
