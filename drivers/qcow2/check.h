/* SPDX-License-Identifier: MIT */
/*
 * check.h - what the files of the qcow2 check share.
 *
 *   check.c            the order of things; messages and I/O
 *   check_counts.c     counters of references, for a window of host clusters
 *   check_structure.c  the tables that the header names: what is where, and what overlaps
 *   check_l1.c         where L1 tables lie and how long they are
 *   check_snapshots.c  the snapshot table, entry by entry; taking entries out of it
 *   check_bitmaps.c    the bitmap directory
 *   check_walk.c       L1 and L2 tables, with several reads in flight: who refers to what, and what cannot be
 *   check_compare.c    the counts in the file against the references
 *   check_rebuild.c    new refcount structures at the end of the file
 *   check_data.c       do the compressed clusters decode?
 *
 * Memory, for an image of any size: 128 MiB of counters, 16 MiB of L2 tables' places, 16 MiB for the refcount table, 8
 * clusters that are read ahead, 24 MiB for decoding (or three clusters a worker), and the snapshot table (at most 64 MiB
 * by the format). Where the counters do not suffice for the whole file it is looked at in several windows, each of which
 * reads all L2 tables again.
 */
#ifndef BLKSTACK_QCOW2_CHECK_H
#define BLKSTACK_QCOW2_CHECK_H

#include "drivers/qcow2/format.h"

#include "core/codec.h"

/* What a walk over the image does beside counting. */
typedef enum Qcow2CheckStep {
    QCOW2_CHECK_LOOK,               /* finds; changes nothing */
    QCOW2_CHECK_COUNT,              /* only counts */
    QCOW2_CHECK_UNSHARE,            /* copies L2 tables that more refer to than a count can say */
    QCOW2_CHECK_MOVE,               /* copies guest data elsewhere that lies on a table, or that cannot be counted */
    QCOW2_CHECK_CLEAN,              /* gives up entries that cannot be */
    QCOW2_CHECK_FLAGS,              /* sets COPIED where, and only where, there is one reference */
} Qcow2CheckStep;

/* An L1 table; of a snapshot if @snapshot is set. */
typedef struct Qcow2CheckL1 {
    uint64_t offset, entries;
    char *snapshot;                 /* id and name, for messages; NULL: the active table */
    uint64_t needed;                /* entries for its disk */
    bool bad;                       /* it cannot be where it is said to be: not looked at */
    bool mended;                    /* @entries is not what the file says, which cannot be */
    bool twin;                      /* it lies where an L1 table before it does */
    uint64_t entry_at, entry_bytes; /* of its entry in the snapshot table, from the table's start */
} Qcow2CheckL1;

/* Clusters of a table that the header or the snapshot table names. */
typedef struct Qcow2CheckRegion {
    uint64_t first, end;            /* clusters */
    const char *what;
    Qcow2CheckL1 *l1;               /* which L1 table it is; NULL: another table */
    bool of_snapshots;              /* the snapshot table, or an L1 table of a snapshot */
    const Qcow2BitmapEntry *bitmap; /* whose table or bits they are; NULL: another table */
} Qcow2CheckRegion;

/* An L2 table, once, however many L1 entries point to it. */
typedef struct Qcow2CheckTable {
    uint64_t offset;
    uint32_t refs;
    unsigned l1_index : 31;         /* of an entry that points to it, the active table's if there is one */
    unsigned active : 1;
} Qcow2CheckTable;

/* A counter: the number of references, and what is known of the cluster. */
#define QCOW2_REFS_MAX      0x3fffffffu
#define QCOW2_REFS_IS_TABLE 0x40000000u     /* an L2 table lies there */
#define QCOW2_REFS_IS_ONE   0x80000000u     /* the refcount on disk is exactly 1 */

/* In Qcow2Check.reftable: something else lies in the block too, so it cannot be used. */
#define QCOW2_CHECK_SHARED  UINT64_C(1)

/* What one look found. */
typedef struct Qcow2Findings {
    uint64_t structure;             /* snapshots, bitmaps: tables that cannot be */
    uint64_t overlaps;              /* guest data on tables */
    uint64_t entries;               /* entries of L1 and L2 that cannot be */
    uint64_t refcounts;             /* refcount table and blocks that cannot be */
    uint64_t low, leaks, flags;     /* counts below and above the references; COPIED */
} Qcow2Findings;

typedef struct Qcow2CheckData Qcow2CheckData;

typedef struct Qcow2Check {
    BlkNode *file;
    const BlkCheckOptions *options;
    BlkCheckResult *result;
    Qcow2Header header;
    uint64_t cluster_size, file_bytes;
    unsigned cluster_bits;
    unsigned l2_bits, l2_entry_bytes;   /* an L2 table has 1 << l2_bits entries */
    bool has_data_file;                 /* guest data lies there, at guest offsets, and is not counted */
    uint64_t clusters;                  /* of the file; the last one may be cut off */
    uint64_t per_block;                 /* refcounts in a block */
    bool sparse;                        /* much of the file is holes */
    bool silent;                        /* a look whose findings are told when they are repaired */
    uint64_t messages;                  /* so far */
    char *lost;                         /* (nullable): why the active L1 table is lost, as a sentence */
    uint64_t copy_limit;                /* repairs may copy as much for those who share it: bytes */

    Qcow2CheckStep step;
    Qcow2Findings found;

    GPtrArray *l1s;                     /* of Qcow2CheckL1: the active one first */
    GTree *regions;                     /* first cluster -> Qcow2CheckRegion; disjoint */
    uint64_t regions_end;               /* cluster behind them, or later */
    uint64_t snapshot_bytes;            /* of the snapshot table, as far as it is sound */
    bool snapshots_bad, bitmaps_bad;
    GPtrArray *bitmaps;                 /* of Qcow2BitmapEntry */
    GHashTable *bad_bitmaps;            /* set of those that are damaged */
    uint64_t *reftable;                 /* offsets of blocks; 0 where there is none, or none that can be */
    uint64_t reftable_entries;
    bool rebuild;                       /* refcounts cannot be repaired in place */
    bool overflow;                      /* more references than a count can say */
    bool careful;                       /* L2 tables that something else refers to, too, are left alone */
    uint64_t avoid;                     /* cluster behind those that entries which were left alone point to */

    uint64_t first, end;                /* window: clusters whose references are counted */
    GTree *chunks;                      /* counters: see check_counts.c */
    uint64_t last_number;               /* of the chunk that was used last */
    uint32_t *last_chunk;
    bool short_of_memory;

    GArray *tables;                     /* of Qcow2CheckTable, sorted by offset */
    uint64_t table_first, table_end;    /* only L2 tables at these offsets are in @tables: bytes */

    double progress_from, progress_to;  /* of the running walk */
    BlkCodec *codec;                    /* NULL: do not decode */
    Qcow2CheckData *data;               /* NULL: nothing is being decoded */
} Qcow2Check;

/* ---- check.c ---- */

/* More are counted, and not told. */
enum { QCOW2_CHECK_MAX_MESSAGES = 10000 };

/* Tells @text, now; (nullable) when there were too many. */
void qcow2_check_tell(Qcow2Check *check, const char *text);

/* Tells it when all is told that comes before it. */
void qcow2_check_message(Qcow2Check *check, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* Tells of something found, and counts it in *@counter, a member of check->found. */
void qcow2_check_found(Qcow2Check *check, uint64_t *counter, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* Tells of a repair, and counts it. */
void qcow2_check_repaired(Qcow2Check *check, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* How far the walk is in the current window: 0..1. */
void qcow2_check_progress(Qcow2Check *check, double fraction);

/* Reads; behind the end of the file are zeroes. An error counts as a check error. */
int qcow2_check_co_read(Qcow2Check *check, uint64_t offset, uint64_t bytes, void *buf);
/* The same, and leaves it to the caller to report an error. */
int qcow2_check_co_try_read(Qcow2Check *check, uint64_t offset, uint64_t bytes, void *buf);
/* Counts a check error. Returns: (transfer full): the message. */
char *qcow2_check_read_failed(Qcow2Check *check, uint64_t offset, int ret);
/* Writes; the file grows where it must. */
int qcow2_check_co_write(Qcow2Check *check, uint64_t offset, uint64_t bytes, const void *buf);
/* Does the range read as zeroes because it is a hole of the file? Asks only if there are many holes. */
bool qcow2_check_co_is_hole(Qcow2Check *check, uint64_t offset, uint64_t bytes);

/* Called for item @index, whose cluster @buf holds (NULL: it could not be read). May yield. */
typedef int Qcow2CheckVisit(Qcow2Check *check, uint64_t index, uint8_t *buf);

/* Reads the clusters at @place(check, i), i < @count, several ahead, and visits them in order. UINT64_MAX as a place:
 * skip. */
int qcow2_check_co_visit(Qcow2Check *check, uint64_t count, uint64_t (*place)(Qcow2Check *, uint64_t),
                         Qcow2CheckVisit *visit);

/* Takes @bytes from what repairs may copy. -EFBIG: it is used up. */
int qcow2_check_may_copy(Qcow2Check *check, uint64_t bytes);

static inline uint64_t qcow2_check_clusters_for(const Qcow2Check *check, uint64_t bytes)
{
    return (bytes >> check->cluster_bits) + ((bytes & (check->cluster_size - 1)) != 0);
}

/* Does the range begin and end in clusters of the file? */
static inline bool qcow2_check_inside(const Qcow2Check *check, uint64_t offset, uint64_t bytes)
{
    const uint64_t end = check->clusters << check->cluster_bits;

    return offset <= end && bytes <= end - offset;
}

/* Where a repair puts what is new: the offset of a cluster behind the file. */
static inline uint64_t qcow2_check_new_place(const Qcow2Check *check)
{
    return MAX(check->clusters, check->avoid) << check->cluster_bits;
}

/* ---- check_counts.c ---- */

/* Begins a window at cluster @first, a multiple of what qcow2_check_grain() says, with nothing counted. It reaches as
 * far as memory does: check->end becomes smaller when it is used up. */
void qcow2_check_window_begin(Qcow2Check *check, uint64_t first);
uint64_t qcow2_check_grain(const Qcow2Check *check);
void qcow2_check_window_clear(Qcow2Check *check);

/* Counts @times references to each cluster that the range touches, and sets @flags on them; ignores what is outside
 * the window. */
void qcow2_check_count(Qcow2Check *check, uint64_t offset, uint64_t bytes, uint64_t times, uint32_t flags);
/* Takes references away again. */
void qcow2_check_uncount(Qcow2Check *check, uint64_t offset, uint64_t bytes, uint64_t times);
/* The counter with its flags. */
uint32_t qcow2_check_counter(Qcow2Check *check, uint64_t cluster);
static inline uint64_t qcow2_check_refs(Qcow2Check *check, uint64_t cluster)
{
    return qcow2_check_counter(check, cluster) & QCOW2_REFS_MAX;
}
/* The first cluster at or behind @cluster that may have been counted; UINT64_MAX: none. */
uint64_t qcow2_check_next_counted(Qcow2Check *check, uint64_t cluster);

/* ---- check_structure.c ---- */

/* Reads what the header names: may be called again after a repair. */
int qcow2_check_co_read_structure(Qcow2Check *check);
void qcow2_check_free_structure(Qcow2Check *check);
/* Counts all of it in the window, refcount structures too if @refcounts. */
void qcow2_check_count_structure(Qcow2Check *check, bool refcounts);
/* Makes a region of a table of at least one byte; NULL if another one is there. */
Qcow2CheckRegion *qcow2_check_add_region(Qcow2Check *check, uint64_t offset, uint64_t bytes, const char *what);
/* (nullable): what lies in @cluster. */
Qcow2CheckRegion *qcow2_check_find_region(const Qcow2Check *check, uint64_t cluster);
/* The table that lies in @cluster, or NULL. Refcount structures are none: they can be made anew. */
const char *qcow2_check_region_at(const Qcow2Check *check, uint64_t cluster);
/* Data of the guest is where a bitmap lies too: then the bitmap is not trusted. */
void qcow2_check_data_at(Qcow2Check *check, uint64_t cluster);
/* Repairs what is bad: lengths of L1 tables; gives snapshots L1 tables of their own; drops snapshots and bitmaps. */
int qcow2_check_co_repair_structure(Qcow2Check *check);

/* ---- check_l1.c ---- */

/* Makes a region of the active L1 table, whose length may be another one than the header says; or check->lost is set. */
int qcow2_check_co_place_active_l1(Qcow2Check *check);
/* The table cannot be there: sets check->lost. */
void qcow2_check_lose_active_l1(Qcow2Check *check, const char *why);
/* Writes the length to the header, if that said another one. */
int qcow2_check_co_mend_active_l1(Qcow2Check *check);
/* The same for a snapshot's, which may be a twin, or bad. */
int qcow2_check_co_place_snapshot_l1(Qcow2Check *check, Qcow2CheckL1 *l1);
void qcow2_check_bad_snapshot(Qcow2Check *check, Qcow2CheckL1 *l1, const char *why);
/* Gives a twin a table of its own, at the end of the file. */
int qcow2_check_co_copy_l1(Qcow2Check *check, Qcow2CheckL1 *l1);

/* ---- check_snapshots.c ---- */

/* Appends an L1 for each entry of the snapshot table to check->l1s. */
int qcow2_check_co_read_snapshots(Qcow2Check *check);
/* Leaves only entries whose L1 table is not bad, and says in them where it lies and how long it is. */
int qcow2_check_co_repair_snapshots(Qcow2Check *check);

/* ---- check_bitmaps.c ---- */

/* Makes regions of all that the bitmaps refer to. */
int qcow2_check_co_read_bitmaps(Qcow2Check *check);
/* The bitmap is damaged. Told once for each. */
void qcow2_check_bad_bitmap(Qcow2Check *check, const Qcow2BitmapEntry *entry, const char *why);
/* Leaves only those that are sound. */
int qcow2_check_co_drop_bitmaps(Qcow2Check *check);

/* ---- check_walk.c ---- */

/* Walks over all L1 and L2 tables, in the window and for the step that check says. With @count, references are
 * counted. */
int qcow2_check_co_walk(Qcow2Check *check, bool count);

/* After such a walk, with the references counted: the step UNSHARE, for tables in the window. */
int qcow2_check_co_unshare_tables(Qcow2Check *check);

/* Does every entry of the L2 table in @buf refer to where data can be? Random bytes and other tables do not. */
bool qcow2_check_reads_as_l2(const Qcow2Check *check, const uint8_t *buf);

/* ---- check_compare.c ---- */

/* Notes which clusters of the window have a refcount of exactly 1. */
int qcow2_check_co_note_ones(Qcow2Check *check);
/* Compares the counts of the window; repairs them in place if @fix. */
int qcow2_check_co_compare(Qcow2Check *check, bool fix);

/* ---- check_rebuild.c ---- */

typedef struct Qcow2Rebuild {
    uint64_t area;                  /* the first cluster of what is made */
    uint64_t next;                  /* the next one to be used */
    GArray *blocks;                 /* of { index, cluster }, in order */
} Qcow2Rebuild;

void qcow2_check_rebuild_begin(Qcow2Check *check, Qcow2Rebuild *rebuild);
/* Writes blocks for what was counted in the window. */
int qcow2_check_co_rebuild_window(Qcow2Check *check, Qcow2Rebuild *rebuild);
/* With the last window still counted: the rest of the blocks, the table, and the header. */
int qcow2_check_co_rebuild_end(Qcow2Check *check, Qcow2Rebuild *rebuild);

/* ---- check_data.c ---- */

/* Starts to decode one payload of at most two clusters. What is found is told later. -ENOMEM. */
int qcow2_check_co_decode(Qcow2Check *check, uint64_t guest_offset, uint64_t offset, uint64_t bytes);
/* Tells of all that is still being decoded. -ENOMEM. */
int qcow2_check_co_decode_end(Qcow2Check *check);
/* Keeps a message, (nullable) as above, that must wait for what is being decoded. Returns: false if it need not. */
bool qcow2_check_data_keep(Qcow2Check *check, const char *text);

#endif
