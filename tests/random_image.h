/* SPDX-License-Identifier: MIT */
/*
 * random_image.h - what the files of the random test share: one sequence of random requests on one image.
 *
 * The model is the guest's disk in memory. Everything random comes from one generator, so that a seed repeats a
 * sequence up to the order in which concurrent requests are served.
 */
#ifndef BLKSTACK_RANDOM_IMAGE_H
#define BLKSTACK_RANDOM_IMAGE_H

#include <blkstack/driver.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SECTOR_SIZE 512u
#define BACKING_NAME "backing.img"

typedef struct Rng {
    uint64_t state;
} Rng;

uint64_t rng_next(Rng *rng);
/* 0..limit - 1; 0 for limit 0 */
uint64_t rng_below(Rng *rng, uint64_t limit);
/* min..max */
uint64_t rng_range(Rng *rng, uint64_t min, uint64_t max);
bool rng_percent(Rng *rng, unsigned percent);

/* Compressible, incompressible, zero or mixed bytes. */
void rng_fill(Rng *rng, uint8_t *buf, size_t bytes);

typedef struct ImageConfig {
    const char *format;
    bool checks;                /* there is a check of this format */
    bool compressible;          /* compressed clusters, snapshots, the filter: not in other formats than qcow2 */
    JsonObject *options;        /* (nullable): for creating; qcow2: those that follow */
    uint64_t seed;
    uint64_t size;              /* now; a multiple of SECTOR_SIZE */
    uint64_t most;              /* what the size may become */
    uint32_t cluster_size;
    unsigned refcount_bits;
    bool v2, zstd, extended_l2, lazy, data_file, data_file_raw, preallocated, no_flush, unmap, direct;
    char *backing_format;       /* NULL: no backing file */
    uint64_t backing_size;
    unsigned extents;           /* vmdk: more than 1: files that a descriptor of the test's own names */
    bool once;                  /* clusters can be written once, as a whole */
    uint64_t granularity;       /* of a dirty bitmap; 0: none */
    uint64_t write_buffer;      /* of the filter, bytes */
} ImageConfig;

typedef struct Sequence {
    BlkContext *ctx;
    const char *dir;
    const char *image;          /* name of the image, in dir */
    unsigned operations;
    bool judge;                 /* let the peer's tools look at the result */
    Rng rng;
    ImageConfig config;
    uint8_t *model;             /* config.most bytes, zeroes from config.size on */
    uint8_t *backing;           /* (nullable): config.most bytes: what the backing file shows below the image */
    uint8_t *written;           /* (nullable): a byte for each cluster of an image whose clusters are written once */
    uint8_t *must, *may;        /* (nullable): granules of config.most bytes that must be, and that may be dirty */
    GPtrArray *snapshots;       /* (nullable): what random_snapshot.c keeps */
    unsigned snapshots_made;
    BlkChild *user;             /* NULL: closed */
    bool filtered;
    bool no_unref;              /* opened with discard-no-unref */
    GString *log;               /* one line per operation */
    char *failure;              /* (nullable): the first one */
} Sequence;

/* Notes the first failure. Returns: -EIO. */
int sequence_fail(Sequence *seq, const char *format, ...) G_GNUC_PRINTF(2, 3);
void sequence_log(Sequence *seq, const char *format, ...) G_GNUC_PRINTF(2, 3);
BlkNode *sequence_node(const Sequence *seq);

/* random_format.c: properties of an image that is not qcow2. */
bool format_is_known(const char *format);
void format_pick_config(Rng *rng, const char *format, ImageConfig *config);
/* Makes the files of an image of several extents, and its descriptor. */
int format_co_create_extents(Sequence *seq);
/* Of an image whose clusters are written once: a write, also of what has been written, which must fail; a read; a flush. */
int format_co_once(Sequence *seq);
/* random_requests.c: one random operation: a request or a batch of concurrent ones, checked against the model. */
int sequence_co_operation(Sequence *seq);
/* random_bitmap.c; without a bitmap all but bitmap_co_add() do nothing. */
int bitmap_co_add(Sequence *seq);
/* The range may have been written to; @certain: it has. */
void bitmap_note(Sequence *seq, uint64_t offset, uint64_t bytes, bool certain);
/* The image is about to have @length bytes: what is cut off is forgotten, what is new is clean. */
void bitmap_note_resize(Sequence *seq, uint64_t length);
int bitmap_co_check(Sequence *seq);
int bitmap_co_operation(Sequence *seq);     /* checks, clears, stores */
/* random_snapshot.c: makes, applies or deletes one; are all what they were? */
int snapshot_co_operation(Sequence *seq);
int snapshot_co_check(Sequence *seq, BlkNode *node);
bool snapshot_all_have_length(const Sequence *seq);     /* config.size */
/* random_change.c: one change of the length, or of the version and other properties. */
int change_co_resize(Sequence *seq);
int change_co_amend(Sequence *seq);
/* The model gets @length, up to config.most: zeroes behind. */
void change_set_length(Sequence *seq, uint64_t length);
/* Reads @bytes at @offset in pieces and compares them with the model. */
int sequence_co_compare(Sequence *seq, uint64_t offset, uint64_t bytes);

#endif
