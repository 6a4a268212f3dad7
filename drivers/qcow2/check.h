/* SPDX-License-Identifier: MIT */
/*
 * check.h - what the files of the qcow2 check share.
 *
 *   check.c         the order of things, comparing refcounts and COPIED flags
 *   check_refs.c    who refers to which cluster: counting in bounded memory
 *   check_bitmaps.c the dirty bitmaps
 *   check_data.c    do the compressed clusters decode?
 *   check_repair.c  new refcount structures at the end of the file
 */
#ifndef BLKSTACK_QCOW2_CHECK_H
#define BLKSTACK_QCOW2_CHECK_H

#include "drivers/qcow2/format.h"

#include "core/codec.h"

enum {
    QCOW2_REFS_CHUNK = 512,             /* counters allocated at once */
};

/* A counter of references: the lower bits; and what the image says about the cluster. */
#define QCOW2_REFS_MAX      0x7fffffffu
#define QCOW2_REFS_IS_ONE   0x80000000u     /* the refcount on disk is exactly 1 */

/* In Qcow2Check.reftable: something else lies in the block too, so it cannot be used. */
#define QCOW2_CHECK_SHARED  UINT64_C(1)

/* An L2 table, once, however many L1 entries point to it. */
typedef struct Qcow2CheckTable {
    uint64_t offset;
    uint64_t refs;
    uint64_t l1_index;                  /* of the first entry that points to it */
    bool active;                        /* the first one is in the active L1 table */
} Qcow2CheckTable;

typedef struct Qcow2Check {
    BlkNode *file;
    const BlkCheckOptions *options;
    unsigned messages;              /* given so far: no image makes us print without end */
    BlkCheckResult *result;
    Qcow2Header header;
    uint64_t cluster_size, file_bytes;
    unsigned l2_bits, l2_entry_bytes;   /* an L2 table has 1 << l2_bits entries */
    uint64_t clusters;                  /* of the file; the last one may be cut off */
    uint64_t per_block;                 /* refcounts in a block */
    uint32_t **chunks;                  /* counters: see QCOW2_REFS_CHUNK */
    uint64_t chunk_count;
    uint64_t budget;                    /* bytes that may still be allocated */
    bool over_budget;
    uint64_t *reftable;                 /* entries; 0 where there is none, or one that was not counted */
    uint64_t reftable_entries;
    GArray *tables;                     /* of Qcow2CheckTable */
    GHashTable *table_index;            /* cluster -> index in tables + 1 */
    bool rebuild;                       /* refcounts cannot be repaired in place */
    uint64_t structure_errors;          /* corruptions that a rebuild repairs */
    BlkCodec *codec;                    /* NULL: do not decode */
    BlkCoGroup group;
} Qcow2Check;

void qcow2_check_message(Qcow2Check *check, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* The same, and counts a corruption. */
void qcow2_check_corruption(Qcow2Check *check, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* Reads; behind the end of the file are zeroes. An error counts as a check error. */
int qcow2_check_co_read(Qcow2Check *check, uint64_t offset, uint64_t bytes, void *buf);
int qcow2_check_co_write(Qcow2Check *check, uint64_t offset, uint64_t bytes, const void *buf);

/* ---- check_refs.c ---- */

uint32_t *qcow2_check_counter(Qcow2Check *check, uint64_t cluster, bool make);
uint64_t qcow2_check_refs(Qcow2Check *check, uint64_t cluster);
/* Counts @times references to all clusters of the range; false and a corruption if it leaves the file. */
bool qcow2_check_count(Qcow2Check *check, uint64_t offset, uint64_t bytes, uint64_t times);
/* Counts everything that the image refers to. */
int qcow2_check_co_count_all(Qcow2Check *check, GError **error);

/* ---- check_bitmaps.c ---- */

/* Counts the bitmap directory and all that it refers to. */
int qcow2_check_co_count_bitmaps(Qcow2Check *check);

/* ---- check_data.c ---- */

/* Starts to decode one payload; the outcome goes to the result. Wait for check->group at the end. */
int qcow2_check_co_decode(Qcow2Check *check, uint64_t guest_offset, uint64_t offset, uint64_t bytes);

/* ---- check_repair.c ---- */

int qcow2_check_co_rebuild(Qcow2Check *check, GError **error);

#endif
