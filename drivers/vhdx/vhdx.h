/* SPDX-License-Identifier: MIT */
/*
 * vhdx.h - format driver "vhdx": virtual hard disks version 2 of Hyper-V, after [MS-VHDX] (Microsoft, "Virtual Hard Disk v2
 * (VHDX) File Format").
 *
 *     0          file identifier: "vhdxfile", who made it
 *     64 KiB     header 1, and at 128 KiB header 2: the valid one with the higher sequence number holds       header.c
 *     192 KiB    region table, and at 256 KiB its copy: where metadata and the block allocation table are     regions.c
 *     any MiB    log, metadata region, block allocation table (BAT), blocks; nothing overlaps
 *
 *     log        changes of tables, which are made stable here before they are made in place                  log.c, replay.c
 *     metadata   size of the disk and of its blocks, ...                                                      metadata.c
 *     BAT        8 bytes for each block: its state, and which MiB of the file it begins at; behind those of each chunk
 *                (8 Mi sectors of the disk) an entry for a bitmap that only differencing disks have           vhdx.c
 *
 * All numbers are little-endian.
 *
 *  What holds at any crash point:
 *  1. Headers change by writing the one that does not hold, with a higher number and a checksum.
 *  2. Entries of the BAT change in the log first. A header that names a log is written when there is a valid entry in it,
 *     and one that names none when what the log says is stable in its place.
 *  3. A block is stable, and made of zeroes but for the guest's data, before a log entry refers to it.
 *
 * Limitations: no differencing disks; cannot be resized; space of a block is not given up.
 */
#ifndef BLKSTACK_DRIVERS_VHDX_H
#define BLKSTACK_DRIVERS_VHDX_H

#include "drivers/block_table.h"
#include "drivers/uuid.h"

enum {
    VHDX_MIB = 1 << 20,             /* what all places and lengths in the file are multiples of */
    VHDX_HEADER_AT = 64 << 10,      /* and twice that */
    VHDX_HEADER_BYTES = 4096,
    VHDX_REGIONS_AT = 192 << 10,    /* and VHDX_TABLE_BYTES further */
    VHDX_TABLE_BYTES = 64 << 10,    /* of a table of regions, and of that of metadata items */
    VHDX_MAX_ENTRIES = 2047,        /* of either */
    VHDX_SECTOR = 512,
    VHDX_MIN_BLOCK = 1 << 20,
    VHDX_MAX_BLOCK = 256 << 20,
    VHDX_BAT_ENTRY = 8,
    VHDX_LOG_SECTOR = 4096,         /* the BAT is cached and logged in such */
    VHDX_LOG_BLOCKS = 126,          /* in one entry of ours: their descriptors fit into its first sector */
};

#define VHDX_MAX_DISK (UINT64_C(64) << 40)

/* Signatures and places of fields. */
#define VHDX_FILE_SIGNATURE "vhdxfile"
enum {
    VHDX_H_CHECKSUM = 4, VHDX_H_SEQUENCE = 8, VHDX_H_FILE_WRITE = 16, VHDX_H_DATA_WRITE = 32, VHDX_H_LOG = 48,
    VHDX_H_LOG_VERSION = 64, VHDX_H_VERSION = 66, VHDX_H_LOG_LENGTH = 68, VHDX_H_LOG_OFFSET = 72,
};
enum {
    VHDX_R_CHECKSUM = 4, VHDX_R_COUNT = 8, VHDX_R_ENTRIES = 16, VHDX_R_ENTRY = 32,
    VHDX_R_OFFSET = 16, VHDX_R_LENGTH = 24, VHDX_R_REQUIRED = 28,               /* in an entry, behind its GUID */
};
enum {
    VHDX_M_COUNT = 10, VHDX_M_ENTRIES = 32, VHDX_M_ENTRY = 32,
    VHDX_M_OFFSET = 16, VHDX_M_LENGTH = 20, VHDX_M_FLAGS = 24,                  /* in an entry, behind its GUID */
    VHDX_M_IS_USER = 1, VHDX_M_IS_VIRTUAL_DISK = 2, VHDX_M_IS_REQUIRED = 4,
};
enum { VHDX_LEAVE_BLOCKS = 1, VHDX_HAS_PARENT = 2 };    /* flags of the item "file parameters" */

/* States of blocks: the lowest three bits of an entry of the BAT. */
enum { VHDX_BLOCK_STATE = 7, VHDX_NOT_PRESENT = 0, VHDX_ZERO = 2, VHDX_UNMAPPED = 3, VHDX_FULLY_PRESENT = 6 };

typedef struct VhdxHeader {
    unsigned slot;                  /* 0 or 1: which of both it is */
    uint64_t sequence;
    uint8_t file_write[UUID_BYTES], data_write[UUID_BYTES];
    uint8_t log[UUID_BYTES];        /* null: the log is empty */
    uint64_t log_offset;            /* bytes */
    uint32_t log_length;
} VhdxHeader;

/* A part of the file that is no block. */
typedef struct VhdxExtent {
    uint64_t offset, bytes;
} VhdxExtent;

/* May a log or a region lie there? Its end does not overflow then, and is behind the headers. */
static inline bool vhdx_may_lie(uint64_t offset, uint64_t bytes)
{
    return offset % VHDX_MIB == 0 && bytes % VHDX_MIB == 0 && offset >= VHDX_MIB && offset <= BLK_MAX_LENGTH && bytes > 0;
}

typedef struct VhdxState {
    BlockTable table;               /* the BAT */
    VhdxHeader header;              /* as it is in the file */
    BlkCoMutex header_lock;         /* held while it changes */
    GArray *extents;                /* of VhdxExtent: headers, log and regions, by offset; they do not overlap */
    VhdxExtent metadata, bat;
    uint64_t chunk_blocks;          /* blocks in a chunk */
    uint64_t end;                   /* nothing lies here or behind */
    bool file_announced;            /* FileWriteGuid has changed since we opened the file, */
    bool data_announced;            /* ... DataWriteGuid too */
    uint64_t log_sequence;          /* of the last entry in the log that the header names */
    uint64_t frozen_length;         /* of the file, when the running commit began */
    bool replayed;                  /* by us, and nobody has been told */
} VhdxState;

/* ---- header.c ---- */

/* Finds the header that holds. May yield. Returns: 0; -EINVAL, -ENOTSUP, -EIO with @error set. */
int vhdx_co_read_header(BlkNode *file, VhdxHeader *header, GError **error);
/* Fills VHDX_HEADER_BYTES bytes. */
void vhdx_encode_header(const VhdxHeader *header, uint8_t *h);
/* Gives the header new identifiers where they are not NULL. All that was written to the file before is stable then. May
 * yield. Returns: 0; negative errno: the header that holds is the old one, or was made stable as wanted. */
int vhdx_co_change_header(BlkNode *node, const uint8_t *file_write, const uint8_t *data_write, const uint8_t *log);
/* Changes the identifier of the file, and (@data) that of what the guest sees, before the first change of it since the
 * image was opened. May yield. */
int vhdx_co_announce(BlkNode *node, bool data);

/* ---- regions.c, metadata.c: set parts of VhdxState. May yield; on failure @error is set ---- */

int vhdx_co_read_regions(BlkNode *node, GError **error);
int vhdx_co_read_metadata(BlkNode *node, GError **error);
/* Do these bytes of the file, whose end does not overflow, belong to a header, a log or a region? */
bool vhdx_is_taken(const VhdxState *s, uint64_t offset, uint64_t bytes);

extern const uint8_t vhdx_bat_region[UUID_BYTES], vhdx_metadata_region[UUID_BYTES];
extern const uint8_t vhdx_file_parameters[UUID_BYTES], vhdx_disk_size[UUID_BYTES], vhdx_disk_id[UUID_BYTES];
extern const uint8_t vhdx_logical_sector[UUID_BYTES], vhdx_physical_sector[UUID_BYTES], vhdx_parent_locator[UUID_BYTES];

/* ---- log.c, replay.c ---- */

/* How an entry begins, a descriptor, and a data sector; see log.c. */
enum {
    VHDX_L_CHECKSUM = 4, VHDX_L_BYTES = 8, VHDX_L_TAIL = 12, VHDX_L_SEQUENCE = 16, VHDX_L_COUNT = 24, VHDX_L_GUID = 32,
    VHDX_L_FLUSHED = 48, VHDX_L_LAST = 56, VHDX_L_HEAD = 64,
    VHDX_D_BYTES = 32, VHDX_D_TRAILING = 4, VHDX_D_LEADING = 8, VHDX_D_LENGTH = 8, VHDX_D_OFFSET = 16, VHDX_D_SEQUENCE = 24,
    VHDX_S_HIGH = 4, VHDX_S_DATA = 8, VHDX_S_LOW = 4092,
};

/* For BlkMetaHooks of the node @opaque. */
void vhdx_log_freeze(void *opaque);
int vhdx_co_log(BlkMetaBlock *const *blocks, const uint8_t *copies, unsigned count, void *opaque);
/* All that is in the log is stable in its place: the header names no log any more. May yield. */
int vhdx_co_log_clear(BlkNode *node);

/**
 * vhdx_co_replay:
 *
 * Does what the log that the header names says, and clears it. Nothing is changed if it lies. Context: co_open, before
 * regions are read; may yield. Returns: 0; -EACCES: the node is read-only; -EINVAL, -EIO and others with @error set.
 */
int vhdx_co_replay(BlkNode *node, GError **error);

/* ---- create.c ---- */

extern const BlkOption vhdx_create_options[];
int vhdx_check_create(const BlkOptions *options, GError **error);
int vhdx_co_create(BlkContext *ctx, BlkNode *file, const BlkOptions *options, GError **error);

#endif
