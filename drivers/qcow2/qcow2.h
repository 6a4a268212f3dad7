/* SPDX-License-Identifier: MIT */
/*
 * qcow2.h - an open qcow2 image: state and the functions that its files share.
 *
 *   qcow2.c     open, close, the driver's table
 *   entry.c     one L2 entry, with or without subclusters
 *   map.c       where guest data lies: L1, L2
 *   write.c     reserve, publish, cancel: changes of mappings
 *   alloc.c     host space: whole clusters; what was dropped and when it may be used again
 *   payload.c   host space for compressed payloads, inside clusters
 *   holes.c     free extents inside partly used host clusters
 *   survey.c    finds the holes that an image had when it was opened
 *   punch.c     gives free space back to the file system
 *   refcount.c  reference counts, refcount blocks and their table
 *   table.c     whole tables that replace others
 *   tree.c      all references of one L1 table
 *   snapshot.c  internal snapshots; snapshot_table.c: their table
 *   resize.c    change of length
 *   stream.c    a whole image from the first byte to the last, for pipes
 *   compact.c   compaction in place; see compact.h
 *   amend.c     other version, refcount width, backing file, ...
 *   refcount_width.c, downgrade.c   the parts of amend that rewrite tables
 *   bitmap*.c   dirty bitmaps: see bitmaps.h
 *   switch.c    changes of the header, and what if they fail
 *   marks.c     the marks of an image whose counts may be wrong, or that is corrupt
 *   overlap.c   which host clusters hold tables, so that nothing else is put there
 *
 * Locks, always taken in this order: l2_lock (tables are added or copied), alloc_lock (counts and free space), the
 * cache's commit lock. Nothing that reads guest data takes any of them.
 */
#ifndef BLKSTACK_QCOW2_H
#define BLKSTACK_QCOW2_H

#include "core/codec.h"
#include "core/metacache.h"
#include "drivers/qcow2/format.h"

typedef struct Qcow2Holes Qcow2Holes;
typedef struct Qcow2Survey Qcow2Survey;

/* Why host space was given up: an index in Qcow2.pass_discard. */
typedef enum Qcow2DropReason {
    QCOW2_DROP_OTHER, QCOW2_DROP_REQUEST, QCOW2_DROP_SNAPSHOT, QCOW2_DROP_REASONS,
} Qcow2DropReason;

/* Host space that lost references: each cluster that it touches. */
typedef struct Qcow2Drop {
    uint64_t offset, bytes;
    uint64_t refs;
    bool payload;                   /* else whole clusters */
    Qcow2DropReason reason;
} Qcow2Drop;

/* An L1 table and what it refers to: the active one, or a snapshot's. */
typedef struct Qcow2Tree {
    uint64_t l1_table_offset;
    uint32_t l1_size;               /* entries */
} Qcow2Tree;

/* What one commit made unreferenced, in order of drops. */
typedef struct Qcow2Batch {
    GArray *drops;                  /* of Qcow2Drop */
    unsigned next;                  /* the first that was not given back yet */
    uint64_t bytes;                 /* of the drops */
    uint64_t epoch;                 /* readers that began at or before it may still look at the space */
} Qcow2Batch;

typedef struct Qcow2 {
    Qcow2Header header;
    uint64_t cluster_size;
    unsigned cluster_bits;
    unsigned l2_bits;               /* entries of an L2 table: 1 << l2_bits */
    unsigned l2_entry_bytes;        /* 8 or 16 */
    unsigned subcluster_bits;       /* of its size; without extended L2 entries the cluster is the one subcluster */
    uint32_t all_subclusters;       /* a bit for each of a cluster */
    BlkChild *data;                 /* where guest data lies: the file, or the data file; NULL: open for metadata only */
    bool has_data_file;             /* host offsets of guest data are guest offsets, in the data file */
    bool may_have_holes;            /* much of the file was holes when it was opened: metadata was preallocated */
    bool data_file_raw;             /* which also is the disk's content, read without the image */
    unsigned refblock_bits;         /* counters of a refcount block: 1 << refblock_bits */
    uint64_t refcount_max;
    uint64_t host_limit;            /* host offsets must be below: bytes */
    BlkCodec *codec;
    BlkMetaCache *meta;
    BlkCoMutex l2_lock, alloc_lock;

    /* Allocation; only in images that are open for writing. */
    uint64_t free_hint;             /* no host cluster below this index is free */
    uint64_t used_clusters;         /* those in use below index used_counted */
    uint64_t used_counted;
    uint64_t append_from;           /* only host clusters from this index on are taken; 0: all */
    bool keep_freed;                /* freed space is used again at once: it is not punched out */
    uint64_t bump, bump_end;        /* the unused rest of the last cluster that was taken for payloads; bytes */
    Qcow2Holes *holes;              /* in known clusters */
    GHashTable *known;              /* bitmap of host clusters all of whose payloads are known: see payload.c */
    GHashTable *packed;             /* known clusters in which payloads share sectors: index -> uses of each sector */
    Qcow2Survey *survey;            /* while it runs, else NULL */
    bool surveyed;                  /* it was begun */
    bool begun_writing;             /* by a reopening that may still be taken back */
    struct Qcow2Before *before;     /* (nullable): what a reopening has changed, which may still be taken back */
    uint64_t cache_bytes;           /* of tables, as the options say */
    GHashTable *tables;             /* host cluster (index) -> kind of table: see overlap.c */
    GArray *drops;                  /* since the last freeze */
    GArray *frozen_drops;           /* of the commit that runs */
    uint64_t frozen_epoch;
    GQueue limbo;                   /* of Qcow2Batch: stable, waiting for readers */
    unsigned overlap_kinds;         /* bits, 1 << Qcow2TableKind, of those that are looked after */
    bool corrupt;                   /* no more changes of mappings */
    bool corrupt_read;              /* the user knows that reads meet bad entries */
    BlkCoMutex marks_lock;          /* the header's marks; taken last */
    unsigned dirty_users;           /* who needs the image marked dirty */
    bool lazy;                      /* counts are written late: see qcow2_co_commit() */
    bool counts_lag;                /* the image is marked since counts were left out of a commit */
    BlkCoMutex bitmaps_lock;        /* taken first */
    bool bitmaps_failed;            /* who asked for storing them knows that they could not be */
    GPtrArray *removed_bitmaps;     /* of Qcow2BitmapEntry: in the file until the next store */
    GHashTable *bitmap_data;        /* set of host clusters (index) from which bits were loaded */
    bool discard_no_unref;          /* what is discarded keeps its host space */
    bool pass_discard[QCOW2_DROP_REASONS];      /* free space goes back to the file system, by why it is free */
    int failed;                     /* negative errno: nobody knows what the header says: see qcow2_co_recover() */
    uint64_t dropped_bytes;         /* in drops: space that a commit would bring back */
    uint64_t frozen_bytes, limbo_bytes;     /* in frozen_drops and limbo: space that comes back soon */
    GArray *freed;                  /* extents that were given back since the last punch */
    GArray *freed_before;           /* before that, or by a request of the guest: the next ones to be punched */
    uint64_t freed_bytes;           /* in both, about */
    uint64_t spare_bytes;           /* of them, those that were not taken again, about */
    bool freed_ever;                /* something was given back since open */
} Qcow2;

static inline Qcow2Tree qcow2_active_tree(const Qcow2 *q)
{
    return (Qcow2Tree) { .l1_table_offset = q->header.l1_table_offset, .l1_size = q->header.l1_size };
}

static inline uint64_t qcow2_cluster_of(const Qcow2 *q, uint64_t offset)
{
    return offset >> q->cluster_bits;
}

/* ---- entry.c ---- */

/*
 * An L2 entry in the one form that map.c and write.c work with, whether the image has extended entries or not: the
 * standard entry's ZERO flag is the zero bit of its one subcluster.
 */
typedef struct Qcow2Entry {
    uint64_t word;                  /* COPIED, COMPRESSED, offset or compressed descriptor */
    uint32_t data, zero;            /* subclusters, by bit: have data; read as zeroes. Both 0 if compressed */
} Qcow2Entry;

/* From and to the @q->l2_entry_bytes bytes at @place. */
Qcow2Entry qcow2_entry_get(const Qcow2 *q, const uint8_t *place);
void qcow2_entry_put(const Qcow2 *q, uint8_t *place, Qcow2Entry entry);

/* Does the plain entry have host space, for data or only kept for it? */
bool qcow2_entry_has_space(const Qcow2 *q, uint64_t word);
/* Has it host space of its own, to which data can be written without a change of place? */
bool qcow2_entry_has_own_space(const Qcow2 *q, uint64_t word);
/* Must the whole cluster move when data is written to a part of it? */
bool qcow2_entry_moves(const Qcow2 *q, Qcow2Entry entry);

/* The range of the image file (not of a data file) that the entry with @word refers to: *bytes is 0 if none. -EIO for one that cannot be. */
int qcow2_entry_extent(const Qcow2 *q, uint64_t word, uint64_t *offset, uint64_t *bytes);

/* ---- qcow2.c ---- */

/* Derives the fields that follow from the header. */
void qcow2_set_geometry(Qcow2 *q);
/* Writes all that is in memory: afterwards the file says everything, and is not marked dirty. */
int qcow2_co_settle(BlkNode *node);

/* ---- map.c ---- */

int qcow2_co_map(BlkNode *node, uint64_t offset, uint64_t bytes, BlkMapping *map);

/* The L1 entry of guest @offset. -EIO: it cannot be, and is in *entry; or *entry is 0, and it could not be read. */
int qcow2_co_l1_entry(BlkNode *node, uint64_t offset, uint64_t *entry);

/* Where the L2 entry of guest @offset lies in the file, in the table that @l1_entry refers to: bytes. */
static inline uint64_t qcow2_l2_entry_offset(const Qcow2 *q, uint64_t l1_entry, uint64_t offset)
{
    uint64_t index = (offset >> q->cluster_bits) & ((UINT64_C(1) << q->l2_bits) - 1);

    return (l1_entry & QCOW2_OFFSET_MASK) + index * q->l2_entry_bytes;
}

/* Sees the entry (its first word) of the cluster at @guest. @shared: its table has other users too. Does not yield. */
typedef void Qcow2WalkFn(Qcow2 *q, uint64_t guest, uint64_t word, bool shared, void *opaque);

/**
 * qcow2_co_walk:
 * @pos: (inout): guest offset of a cluster
 *
 * Calls @fn for the entries of one cached part of an L2 table, from *@pos on, and sets *@pos behind them. Takes l2_lock, so
 * that the table is not replaced meanwhile.
 */
int qcow2_co_walk(BlkNode *node, uint64_t *pos, Qcow2WalkFn *fn, void *opaque);

/* ---- write.c ---- */

/* Gives guest @offset a new table, the lowest free cluster, in place of that of @l1_entry (0: none), which is clean: it is
 * shared, or nothing was changed since the last commit. With l2_lock held. *l1_entry: (out): the new one. */
int qcow2_co_new_table(BlkNode *node, uint64_t offset, uint64_t *l1_entry);

int qcow2_co_reserve(BlkNode *node, BlkReservation *res);
void qcow2_publish(BlkNode *node, BlkReservation *res);
void qcow2_cancel(BlkNode *node, BlkReservation *res);
/* Makes all published mappings stable. With lazy refcounts the counts stay in memory, and the image is marked dirty. */
int qcow2_co_commit(BlkNode *node);
/* The same, counts included. */
int qcow2_co_commit_all(BlkNode *node);

/* ---- alloc.c: all but the hooks with alloc_lock held ---- */

/* Prepares an image for writing: finds its tables; refuses tables that overlap. */
int qcow2_co_alloc_open(BlkNode *node, GError **error);
void qcow2_alloc_close(Qcow2 *q);

/* Could @tree be the active one? Refuses L2 tables that overlap each other or another table. The node is drained; no lock
 * is held. */
int qcow2_co_check_tables(BlkNode *node, const Qcow2Tree *tree, GError **error);

/**
 * qcow2_co_alloc_clusters:
 * @max: wanted, at least 1
 * @first: (out): index of the first cluster
 *
 * Takes 1..@max free host clusters in one run and counts one reference to each. Returns: how many, or negative errno:
 * -EIO if a free cluster turns out to be a table, -EFBIG at the end of what the format can address.
 */
gint64 qcow2_co_alloc_clusters(BlkNode *node, uint64_t max, uint64_t *first);

/* Takes exactly @count clusters in one run. */
int qcow2_co_alloc_contiguous(BlkNode *node, uint64_t count, uint64_t *first);

/* Counts @refs references to each cluster of a run; all or none. -ERANGE: a counter is full. */
int qcow2_co_raise_run(BlkNode *node, uint64_t first, uint64_t count, uint64_t refs);

/* The lowest run of @count free clusters, so few that they can lie between two refcount blocks, each of which begins its
 * range. Nothing is counted yet. */
int qcow2_co_find_short_run(BlkNode *node, uint64_t count, uint64_t *first);

/* The lowest run of at most @max free clusters. Nothing is counted yet. */
gint64 qcow2_co_find_run(BlkNode *node, uint64_t max, uint64_t *first);

/* One reference to the host space is gone in memory. It is given back when no mapping on disk and no reader can refer to
 * it. Does not yield; needs no lock. */
void qcow2_drop_for(Qcow2 *q, uint64_t offset, uint64_t bytes, bool payload, Qcow2DropReason reason);

/* All @refs references that there were are gone in memory: a payload's space is not free before the last one is. */
void qcow2_drop_all(Qcow2 *q, uint64_t offset, uint64_t bytes, uint64_t refs, bool payload);

static inline void qcow2_drop(Qcow2 *q, uint64_t offset, uint64_t bytes, bool payload)
{
    qcow2_drop_for(q, offset, bytes, payload, QCOW2_DROP_OTHER);
}

/* Takes the references to each cluster of host space away at once: for what nothing in the file and no reader refers to any
 * more. -EIO: there were not so many. */
int qcow2_co_give_back(BlkNode *node, const Qcow2Drop *drop);

/* Gives back what can be given back. */
int qcow2_co_drain_limbo(BlkNode *node);

/* Hooks of the metadata cache. */
void qcow2_commit_freeze(void *opaque);
void qcow2_commit_done(bool ok, void *opaque);


/* ---- payload.c: with alloc_lock held ---- */

void qcow2_payload_open(Qcow2 *q);
void qcow2_payload_close(Qcow2 *q);

/**
 * qcow2_co_alloc_payload:
 * @bytes: a multiple of 512, at most a cluster
 * @below: the payload must end at or before it; UINT64_MAX: anywhere
 *
 * Takes host space for a payload; counts @refs references to each cluster that it touches. Returns: 0; -EXFULL if there is none
 * below; others as qcow2_co_alloc_clusters().
 */
int qcow2_co_alloc_payload(BlkNode *node, uint64_t bytes, uint64_t refs, uint64_t below, uint64_t *offset);

/* Makes a hole of what is left of the cluster that was taken last, so that the next payload looks for the best place. */
void qcow2_payload_retire_bump(Qcow2 *q);

bool qcow2_payload_is_known(const Qcow2 *q, uint64_t cluster);

/* A payload's part in one known cluster, which others still use, is free again. Without lock; does not yield. */
void qcow2_payload_freed(Qcow2 *q, uint64_t offset, uint64_t bytes);
/* The whole cluster is. */
void qcow2_payload_cluster_freed(Qcow2 *q, uint64_t cluster);

/* Makes known a cluster of which all references are payloads in the active tables. @uses: (transfer full): how many of
 * them use each sector; those that none uses become holes. */
void qcow2_payload_learn(Qcow2 *q, uint64_t cluster, uint8_t *uses);

/**
 * qcow2_payload_forget:
 *
 * To be called, with alloc_lock held, BEFORE anything but the active tables may come to refer to payloads that are known
 * (a snapshot is made): what the active tables drop is no hole then.
 */
void qcow2_payload_forget(Qcow2 *q);

/* ---- punch.c ---- */

void qcow2_punch_open(Qcow2 *q);
void qcow2_punch_close(Qcow2 *q);
/* Host space is free, of which @bytes_now were given back just now; @soon: by somebody who wants it out of the file. Does
 * not yield. */
void qcow2_note_freed(Qcow2 *q, uint64_t offset, uint64_t bytes, uint64_t bytes_now, bool soon);
/* So much host space was taken. */
void qcow2_note_taken(Qcow2 *q, uint64_t bytes);
/* Punches free space out of the file, if it has become much; @writes_wait: for space, and get it late then. Takes
 * alloc_lock; may yield. */
void qcow2_co_punch(BlkNode *node, bool writes_wait);
/* Punches out all that was freed, and cuts off what is free at the end of the file. For an image whose tables are stable.
 * Takes alloc_lock; may yield. */
void qcow2_co_give_up_free_space(BlkNode *node);

/* ---- survey.c ---- */

/* Starts it, if it never was. Does not yield. */
void qcow2_survey_start(BlkNode *node);
/* Ends it: to be called, without locks, before anything but reserve and publish changes the active tables or forgets
 * parts of them, and before anybody else comes to refer to their payloads. May yield. */
void qcow2_co_survey_stop(BlkNode *node);
/* Waits until it has ended. Nothing may be dropped meanwhile. May yield. */
void qcow2_co_survey_wait(BlkNode *node);
/* A payload is not mapped at @guest_offset any more. Does not yield. */
void qcow2_survey_dropped(Qcow2 *q, uint64_t guest_offset, uint64_t offset, uint64_t bytes);
/* What was dropped before was given back. Does not yield. */
void qcow2_survey_committed(Qcow2 *q);
/* Does not yield. */
void qcow2_survey_cluster_freed(Qcow2 *q, uint64_t cluster);

/* ---- refcount.c: with alloc_lock held ---- */

/* Holds the part of the refcount block that has the counter of @cluster; *index is the counter's in block->data, *count
 * how many counters that part has. *block is NULL if there is no refcount block: then the count is 0. */
int qcow2_co_refcount_find(BlkNode *node, uint64_t cluster, BlkMetaBlock **block, uint64_t *index, uint64_t *count);
int qcow2_co_refcount_get(BlkNode *node, uint64_t cluster, uint64_t *value);
/* Adds references; -ERANGE: the counter cannot count so many. */
int qcow2_co_refcount_raise(BlkNode *node, uint64_t cluster, uint64_t refs);
/* Takes references away; *value: what is left. -EIO: there were not so many. */
int qcow2_co_refcount_lower(BlkNode *node, uint64_t cluster, uint64_t refs, uint64_t *value);
/* Makes the refcount block that counts @cluster, and a larger table if needed. */
int qcow2_co_refcount_add_block(BlkNode *node, uint64_t cluster);

/**
 * qcow2_co_refcount_add_span:
 * @first: (out): the first cluster
 *
 * Makes refcount blocks, which lie elsewhere, for @count clusters behind all that have one: none of these is in use, in
 * one run. After an error some blocks may have been made for nothing.
 */
int qcow2_co_refcount_add_span(BlkNode *node, uint64_t count, uint64_t *first);

/* Gives back refcount blocks behind all that is in use, which keep the file from becoming shorter. */
int qcow2_co_refcount_trim(BlkNode *node);

/* Without locks, the node drained, all stable: moves refcount blocks to lower clusters, and makes the table as short as it can
 * be, or puts it lower. *moved: (inout): set if something was. */
int qcow2_co_refcount_pack(BlkNode *node, bool *moved);

/* ---- holes.c ---- */

/* @max_bytes: no extent is longer; both are multiples of 512. */
Qcow2Holes *qcow2_holes_new(uint64_t max_bytes);
void qcow2_holes_free(Qcow2Holes *holes);
/* Adds free bytes (512-aligned), joined with their neighbours as far as @max_bytes allows. */
void qcow2_holes_add(Qcow2Holes *holes, uint64_t offset, uint64_t bytes);
/* Takes all holes out of a range. */
void qcow2_holes_remove(Qcow2Holes *holes, uint64_t offset, uint64_t bytes);
/* Find @bytes at the start of a hole, and leave them there: of the smallest one that has as many and is so low that they end
 * at or before @below; of the lowest one. Both about: a hole that fits just so may be missed. false: there is none, and
 * *offset is UINT64_MAX. */
bool qcow2_holes_find_best(const Qcow2Holes *holes, uint64_t bytes, uint64_t below, uint64_t *offset);
bool qcow2_holes_find_lowest(const Qcow2Holes *holes, uint64_t bytes, uint64_t *offset);
/* Is all of the range free? */
bool qcow2_holes_cover(Qcow2Holes *holes, uint64_t offset, uint64_t bytes);
uint64_t qcow2_holes_bytes(const Qcow2Holes *holes);

/* ---- overlap.c ---- */

typedef enum Qcow2TableKind {
    QCOW2_TABLE_HEADER, QCOW2_TABLE_ACTIVE_L1, QCOW2_TABLE_ACTIVE_L2, QCOW2_TABLE_REFCOUNT_TABLE,
    QCOW2_TABLE_REFCOUNT_BLOCK, QCOW2_TABLE_SNAPSHOT_TABLE, QCOW2_TABLE_INACTIVE_L1, QCOW2_TABLE_INACTIVE_L2,
    QCOW2_TABLE_BITMAPS,
    QCOW2_TABLE_NEW,                /* any that was made since the image was opened */
    QCOW2_TABLE_KINDS,
} Qcow2TableKind;

extern const char *const qcow2_overlap_templates[];     /* values of the option overlap-check */

/* Takes from the options of the node which kinds are looked after. */
int qcow2_overlap_options(Qcow2 *q, const BlkOptions *options, GError **error);
/* Finds all tables of an image that is opened for writing; -EIO: two of them overlap, or one cannot be there. */
int qcow2_co_tables_open(BlkNode *node, GError **error);

static inline bool qcow2_is_table(const Qcow2 *q, uint64_t cluster)
{
    return g_hash_table_contains(q->tables, GSIZE_TO_POINTER(cluster));
}
/* What lies in the cluster, for messages. */
const char *qcow2_table_name(const Qcow2 *q, uint64_t cluster);

/* Adds a table, if its kind is looked after. -EIO if one is there already. */
int qcow2_tables_add(Qcow2 *q, Qcow2TableKind kind, uint64_t offset, uint64_t bytes, GError **error);
/* The same for a table that is to be written; the image is marked corrupt if one is there already. May yield. */
int qcow2_co_tables_claim(BlkNode *node, Qcow2TableKind kind, uint64_t offset, uint64_t bytes);
void qcow2_tables_remove(Qcow2 *q, uint64_t offset, uint64_t bytes);
/* The cluster is an L2 table that became active. */
void qcow2_tables_register_l2(Qcow2 *q, uint64_t offset);

/* ---- switch.c ---- */

/**
 * qcow2_co_recover:
 *
 * After a write of the header that failed (q->failed): writes what q->header says, which is the state before that write,
 * and waits until it is stable. To be called before anything is written that relies on what the header refers to. What
 * the failed write would have made the header refer to may be dropped at once: no count is lowered before a commit.
 * Returns: 0, also if nothing has failed; others from below.
 */
int qcow2_co_recover(BlkNode *node);

/**
 * qcow2_co_switch:
 * @offset: in the file; @field: lies within one sector
 *
 * Lets the header refer to other tables: writes the field and waits until it is stable. The caller changes q->header
 * before it yields. May yield.
 * Returns: 0; negative errno: nothing has changed; if nobody can know that, q->failed is set until qcow2_co_recover().
 */
int qcow2_co_switch(BlkNode *node, uint64_t offset, const void *field, size_t bytes);

/**
 * qcow2_co_switch_begin:
 * @header: (out): a copy of the image's own, to be changed at once: strings and arrays are q->header's
 *
 * Nobody else changes the header until qcow2_co_switch_end(), which must follow. May yield, but between the two the caller
 * must not.
 * Returns: 0; negative errno, and then nothing has begun.
 */
int qcow2_co_switch_begin(BlkNode *node, Qcow2Header *header, GError **error);

/**
 * qcow2_co_switch_end:
 * @header: as changed
 *
 * Writes it and makes it stable; then it is q->header. What it replaced in q->header is the caller's. May yield.
 * Returns: 0; -EINVAL and -ENOSPC, where it does not fit; others as qcow2_co_switch().
 */
int qcow2_co_switch_end(BlkNode *node, const Qcow2Header *header, GError **error);

/* ---- marks.c ---- */

/**
 * qcow2_co_corrupt:
 *
 * Something was found that a write would make worse: tells the user, once, marks the image corrupt (version 3), stable if
 * that can be, and lets no further change of mappings begin. What was published before is still committed.
 * Returns: -EIO
 */
#define qcow2_co_corrupt(node, ...) qcow2_co_corrupt_at(node, 0, 0, __VA_ARGS__)
/* The same; @offset, @bytes: of the file, what the request was about. 0 bytes: that is not known. */
int qcow2_co_corrupt_at(BlkNode *node, uint64_t offset, uint64_t bytes, const char *format, ...) G_GNUC_PRINTF(4, 5);
/* The same where nothing is marked: the image is read only, or no other cluster is affected. Returns: -EIO */
int qcow2_read_corrupt(BlkNode *node, const char *format, ...) G_GNUC_PRINTF(2, 3);

/**
 * qcow2_co_dirty_begin: qcow2_co_dirty_end:
 *
 * Between them reference counts and COPIED flags in the file may be wrong, for an operation that cannot order its writes
 * so that they are never too low: the image is marked dirty, stable, when begin returns 0. The caller makes all counts
 * stable before the end, which it calls after a failure too, unless the counts in the file are wrong then: the mark stays
 * and the next who opens the image repairs it. They nest. Version 2 has no mark: nothing is done.
 * Returns: 0; -EROFS if the image is not open for writing; others from below: a failed begin needs no end.
 */
int qcow2_co_dirty_begin(BlkNode *node);
int qcow2_co_dirty_end(BlkNode *node);

/* The same for lazy refcounts: before a commit that leaves counts out (once, however often it is called), and when all
 * counts are stable. */
int qcow2_co_lazy_begin(BlkNode *node);
int qcow2_co_lazy_end(BlkNode *node);

/* At open for writing, before any table is looked at: rebuilds the counts of an image that is marked dirty. */
int qcow2_co_dirty_repair(BlkNode *node, GError **error);

/* ---- table.c: without locks but l2_lock ---- */

/* Zeroed memory for a table of @bytes, up to whole clusters; NULL when memory is short. Free with blk_buffer_free(). */
uint8_t *qcow2_table_buffer(BlkNode *node, uint64_t bytes);

/**
 * qcow2_co_table_write:
 * @table: from qcow2_table_buffer(); @bytes: its length, at least 1
 * @event: told to fault filters before it is written; BLK_EVENT_COUNT: none
 * @offset: (out): where it lies; undefined after a failure
 *
 * Commits, and writes the table into new clusters, in one run. It is stable when this returns 0, and known to be a table;
 * the caller lets something refer to it, or gives it back with qcow2_co_table_drop(). May yield.
 * Returns: 0; -EFBIG and others of qcow2_co_alloc_contiguous() and the commit, -EIO, -ENOSPC, ... from below: then nothing has
 * changed.
 */
int qcow2_co_table_write(BlkNode *node, const uint8_t *table, uint64_t bytes, BlkEvent event, uint64_t *offset);

/* A table's first @bytes, as the cache has them, in a buffer for @new_bytes. *table is to be freed after a failure too. */
int qcow2_co_table_read(BlkNode *node, uint64_t offset, uint64_t bytes, uint64_t new_bytes, uint8_t **table);

/* One reference to a table's run is gone; nobody may hold parts of it in the cache. @bytes may be 0. May yield. */
void qcow2_co_table_drop(BlkNode *node, uint64_t offset, uint64_t bytes);
/* ---- bitmaps.c: see also bitmaps.h ---- */

/* Finds the bitmaps of an image. A damaged directory is a reason not to open it only @for_writing. */
int qcow2_co_bitmaps_open(BlkNode *node, bool for_writing, GError **error);
/* Stores what has changed; a failure that nobody knows of yet is told as a message. */
void qcow2_co_bitmaps_finish(BlkNode *node);
void qcow2_bitmaps_close(BlkNode *node);
/* Adds all that the bitmaps refer to to q->tables. */
int qcow2_co_bitmaps_add_tables(BlkNode *node, GError **error);

/* ---- tree.c: without locks, the node drained, no survey running. All commit when much has changed ---- */

/* -EIO: an entry that cannot be, or that refers to something with the count 0, or to a table as if it were data. */
int qcow2_co_tree_check(BlkNode *node, const Qcow2Tree *tree);

/* One reference more to everything. -ERANGE: a counter is full. *undone: (out): after a failure, all counts are what they
 * were; else some are too high. */
int qcow2_co_tree_raise(BlkNode *node, const Qcow2Tree *tree, bool *undone);

/* One reference less to everything, at once: nothing in the file refers to @tree any more. Goes on after errors; returns
 * the first. */
int qcow2_co_tree_lower(BlkNode *node, const Qcow2Tree *tree);

/* Makes the COPIED flags say which counts are 1. Goes on after errors; returns the first. */
int qcow2_co_tree_set_flags(BlkNode *node, const Qcow2Tree *tree);

/* Clears them all, stable. */
int qcow2_co_tree_clear_flags(BlkNode *node, const Qcow2Tree *tree);

/* Its L2 tables are tables of the image that must not be overwritten. */
int qcow2_co_tree_register(BlkNode *node, const Qcow2Tree *tree);

/* ---- snapshot.c ---- */

extern const BlkSnapshotOps qcow2_snapshot_ops;

/* Writes a new snapshot table, lets the header refer to it, and drops the old one, of @old_bytes. After an error nothing has
 * changed. */
int qcow2_co_switch_snapshots(BlkNode *node, const GArray *snapshots, uint64_t old_bytes, GError **error);

/* ---- resize.c ---- */

int qcow2_co_truncate(BlkNode *node, uint64_t length, BlkPrealloc prealloc, GError **error);
int qcow2_co_make_empty(BlkNode *node, GError **error);
/* Replaces the L1 table by a copy of its first @entries, in the lowest run that is free; those behind them say nothing. */
int qcow2_co_replace_l1(BlkNode *node, uint64_t entries);

/* ---- amend.c, refcount_width.c, downgrade.c: nothing else uses the node meanwhile ---- */

/* How far an operation of several phases is: each one counts from 0 to 1. */
typedef struct Qcow2Progress {
    void (*report)(double fraction, void *opaque);      /* (nullable) */
    void *opaque;
    unsigned phase, phases;
} Qcow2Progress;

static inline void qcow2_progress(const Qcow2Progress *progress, double fraction)
{
    if (progress->report) {
        progress->report((progress->phase + fraction) / MAX(progress->phases, 1), progress->opaque);
    }
}

extern const BlkOption qcow2_amend_options[];
int qcow2_co_amend(BlkNode *node, const BlkOptions *options, const BlkAmendOptions *amend, GError **error);

/* @file, @format: (nullable): as the image is to say. What is open stays open. */
int qcow2_co_change_backing(BlkNode *node, const char *file, const char *format, GError **error);

/* Would they fit in counters of 2^@order bits? Changes nothing. */
int qcow2_co_refcounts_fit(BlkNode *node, unsigned order, GError **error);
/* Gives all counters 2^@order bits. Refused, before anything changes, if a count does not fit. */
int qcow2_co_change_refcount_width(BlkNode *node, unsigned order, Qcow2Progress *progress, GError **error);

/* Could the image, with a disk of @size bytes and refcounts of 16 bits, be one of version 2? */
int qcow2_co_check_downgrade(BlkNode *node, uint64_t size, GError **error);
/* Makes it one. It must be possible. */
int qcow2_co_downgrade(BlkNode *node, Qcow2Progress *progress, GError **error);

/* ---- compact.c ---- */

int qcow2_co_compact(BlkNode *node, const BlkCompactOptions *options, GError **error);

#endif
