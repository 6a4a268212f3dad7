/* SPDX-License-Identifier: MIT */
/*
 * vmdk.h - what the files of the vmdk driver share. See docs/vmdk.md.
 *
 *     descriptor.c  the text that says what the image is made of
 *     header.c      the headers of sparse extents: hosted (KDMV), COWD, seSparse
 *     extent.c      opening extents
 *     tables.c      where an extent's tables are
 *     map.c         where guest data lies
 *     write.c       new grains, their entries, commits
 *     parent.c      content IDs, the backing file
 *     empty.c       dropping all grains
 *     vmdk.c        open, close, the driver's table
 *     create.c, stream.c, info.c, check.c
 *
 * Offsets and lengths are bytes unless a name says sectors.
 */
#ifndef BLKSTACK_DRIVERS_VMDK_H
#define BLKSTACK_DRIVERS_VMDK_H

#include <blkstack/driver.h>

#include "core/little_endian.h"
#include "core/metacache.h"

enum {
    VMDK_SECTOR = 512,
    VMDK_GRAIN = 65536,                     /* of what we create; bytes */
    VMDK_FLAT_UNIT = 4096,                  /* the engine's, if there are no grains; bytes */
    VMDK_GT_ENTRIES = 512,                  /* of what we create, and at most, in a hosted sparse extent */
    VMDK_COWD_GT_ENTRIES = 4096,
    VMDK_DESCRIPTOR_SECTOR = 1,             /* where we put an embedded descriptor, */
    VMDK_DESCRIPTOR_SECTORS = 20,           /* and how much room it gets */
    VMDK_MAX_EXTENTS = 2048,
    VMDK_MAX_DESCRIPTOR = 1 << 20,          /* bytes */
    VMDK_MAX_COMPRESSED_GRAIN = 2 << 20,    /* bytes */
    VMDK_MAX_GRAIN = 64 << 20,              /* bytes */
    VMDK_MARKER_HEAD = 12,                  /* bytes before a compressed payload */
    VMDK_FOOTER_BYTES = 3 * VMDK_SECTOR,    /* with its marker and the end of the stream */
    VMDK_CID_DIGITS = 8,                    /* hexadecimal */
};

#define VMDK_NO_CID UINT32_C(0xffffffff)
#define VMDK_GD_AT_END UINT64_MAX
#define VMDK_MAX_TABLES (UINT64_C(1) << 22)         /* grain tables of one extent */
#define VMDK_MAX_EXTENT_FILE (UINT64_C(1) << 48)    /* offsets in extents are below it */
#define VMDK_MAX_SECTOR UINT32_MAX                  /* that an entry can name */

/* ---- descriptor ---- */

typedef enum VmdkAccess { VMDK_RW, VMDK_RDONLY, VMDK_NOACCESS } VmdkAccess;

typedef enum VmdkKind {
    VMDK_FLAT,              /* the bytes of a file */
    VMDK_ZERO,              /* no file: zeroes */
    VMDK_HOSTED,            /* hosted sparse, also streamOptimized */
    VMDK_COWD,              /* ESX server sparse, and the hosted sparse format of old; read-only */
    VMDK_SESPARSE,          /* read-only */
} VmdkKind;

/* One line of the descriptor. */
typedef struct VmdkExtentLine {
    VmdkAccess access;
    VmdkKind kind;
    char type[16];          /* as written: "FLAT", "VMFS", "SPARSE", ... */
    char *name;             /* NULL: ZERO */
    uint64_t sectors, offset_sectors;
} VmdkExtentLine;

typedef struct VmdkDescriptor {
    char *text;             /* without what pads it; NULL: there is no descriptor */
    uint64_t offset, room;  /* of the text in the file; room: 0: the file is the descriptor */
    uint32_t cid, parent_cid;
    size_t cid_at;          /* of its digits in text */
    unsigned cid_digits;    /* how many there are: 1 to 8; 0: there is no content ID */
    char *create_type;
    char *parent_name;      /* (nullable) */
    GArray *extents;        /* VmdkExtentLine */
} VmdkDescriptor;

/* Takes @text (transfer full) apart. The caller clears @descriptor, also after an error. */
int vmdk_descriptor_parse(VmdkDescriptor *descriptor, char *text, GError **error);
void vmdk_descriptor_clear(VmdkDescriptor *descriptor);
/* Does a file that begins so hold a descriptor? */
bool vmdk_descriptor_probe(const uint8_t *head, size_t bytes);
/* (transfer full): the text with another parent, or none. */
char *vmdk_descriptor_with_parent(const VmdkDescriptor *descriptor, const char *name, uint32_t cid);

/* ---- headers of sparse extents ---- */

enum {
    VMDK_FLAG_NEWLINES   = 1 << 0,
    VMDK_FLAG_REDUNDANT  = 1 << 1,          /* there is a redundant grain directory */
    VMDK_FLAG_ZEROED     = 1 << 2,          /* the entry 1 means zeroes */
    VMDK_FLAG_COMPRESSED = 1 << 16,
    VMDK_FLAG_MARKERS    = 1 << 17,
};

/* What the header of an extent says; all kinds. */
typedef struct VmdkHeader {
    VmdkKind kind;
    uint32_t version, flags;
    uint64_t capacity_sectors, grain_sectors;
    uint64_t descriptor_sector, descriptor_sectors;     /* 0: it has none */
    uint32_t gt_entries;
    uint64_t rgd_sector, gd_sector;         /* 0: none; VMDK_GD_AT_END */
    uint64_t overhead_sectors;
    uint16_t compression;
    bool at_end;                            /* the directory was found by the footer */
    uint64_t gd_entries;                    /* tables that the capacity needs */
    uint64_t tables_sector, tables_sectors, grains_sector;      /* seSparse */
} VmdkHeader;

/* Is it a hosted sparse or COWD extent that begins so? */
bool vmdk_header_probe(const uint8_t *head, size_t bytes);
/* Reads and judges the header of @file, and its footer if the tables are found there. */
int vmdk_co_read_header(BlkNode *file, VmdkHeader *header, GError **error);
/* The same of a seSparse extent, which nothing but its descriptor tells from others. */
int vmdk_co_read_sesparse_header(BlkNode *file, VmdkHeader *header, GError **error);
/* Writes VMDK_SECTOR bytes: a hosted header. */
void vmdk_header_build(const VmdkHeader *header, uint8_t *sector);
/* How many grain tables a hosted extent of that capacity needs. */
uint64_t vmdk_count_tables(const VmdkHeader *header);

static inline bool vmdk_header_is_compressed(const VmdkHeader *header)
{
    return header->kind == VMDK_HOSTED && (header->flags & VMDK_FLAG_COMPRESSED);
}

typedef enum VmdkMarker { VMDK_MARKER_EOS, VMDK_MARKER_GT, VMDK_MARKER_GD, VMDK_MARKER_FOOTER } VmdkMarker;
/* Writes VMDK_SECTOR bytes: a marker before @sectors of metadata. */
void vmdk_marker_build(VmdkMarker type, uint64_t sectors, uint8_t *sector);
/* Writes VMDK_MARKER_HEAD bytes: what stands before the payload of a grain. */
void vmdk_grain_head_build(uint64_t guest_offset, uint64_t payload_bytes, uint8_t *head);
/* VMDK_FOOTER_BYTES: footer marker, copy of the header, end of the stream. */
void vmdk_footer_build(const VmdkHeader *header, uint8_t *tail);
bool vmdk_is_footer(const uint8_t *tail);

/* ---- the open image ---- */

/* A part of an extent's file that holds tables. */
typedef struct VmdkRange {
    uint64_t start, end;
} VmdkRange;

typedef struct VmdkExtent {
    unsigned index;
    VmdkAccess access;
    VmdkKind kind;
    const char *type;               /* as the descriptor has it; "": the image itself */
    char *filename;                 /* as a user would name it; NULL: ZERO */
    BlkChild *file;                 /* NULL: there is none, or it was not opened */
    uint64_t start, bytes;          /* of the disk */
    uint64_t offset;                /* FLAT: in the file */
    VmdkHeader header;              /* all but FLAT and ZERO */
    uint64_t grain_bytes;           /* 0: FLAT, ZERO, and what was not opened */
    uint64_t end;                   /* writable: new grains go there */
    GArray *spare;                  /* uint64_t: grains before end that nobody has taken */
    GArray *tables;                 /* VmdkRange, sorted: nothing of the guest lies there */
    bool footer;                    /* the file ends with one whenever it is closed */
    bool grown;                     /* since it was opened */
} VmdkExtent;

typedef struct Vmdk {
    VmdkDescriptor descriptor;
    VmdkExtent *extents;
    unsigned count;
    uint64_t grain_bytes;           /* the unit of the engine; all sparse extents that are written have it */
    bool compressed;                /* all grains are */
    BlkMetaCache *meta;             /* blocks are sectors; see vmdk_address() */
    BlkCodec *codec;
    BlkCoMutex cid_lock;
    bool cid_changed;
    bool writes;                    /* the tables are found */
    enum { VMDK_PARENT_UNKNOWN, VMDK_PARENT_RIGHT, VMDK_PARENT_WRONG } parent;
    const BlkNode *parent_node;     /* (nullable): of which this was found out; only compared */
    bool parent_told;               /* that it is the wrong one */
    BlkCoMutex table_lock;          /* of who gives an extent a new grain table */
    bool rewrite_told;
} Vmdk;

/* Addresses of blocks of the metadata cache. */
static inline uint64_t vmdk_address(const VmdkExtent *extent, uint64_t offset)
{
    return (uint64_t)extent->index << 48 | offset;
}

/* extent.c */
int vmdk_co_open_extents(BlkNode *node, GError **error);
/* If the node is not read-only: -EACCES if there is what can only be read. */
int vmdk_check_writable(BlkNode *node, GError **error);
void vmdk_extents_clear(Vmdk *v);
VmdkExtent *vmdk_extent_at(const Vmdk *v, uint64_t offset);      /* within the disk, or its last cluster */
/* How far the extent reaches from @offset of the disk on; the last one to the end of the disk's last cluster. */
uint64_t vmdk_extent_reach(const Vmdk *v, const VmdkExtent *extent, uint64_t offset);

/* tables.c */
/* Finds the tables of all extents that are written: afterwards nothing of the guest can be written over them. */
int vmdk_co_find_tables(BlkNode *node, GError **error);
void vmdk_forget_tables(Vmdk *v);
bool vmdk_is_table(const VmdkExtent *extent, uint64_t offset, uint64_t bytes);
void vmdk_add_table(VmdkExtent *extent, uint64_t offset, uint64_t bytes);
/* The grain table number @index of the directory at @gd: *offset, 0: there is none; 1: all its grains are zeroes.
 * -EIO. */
int vmdk_co_table_offset(Vmdk *v, const VmdkExtent *extent, uint64_t gd, uint64_t index, uint64_t *offset);
uint64_t vmdk_table_bytes(const VmdkExtent *extent);

/* map.c */
int vmdk_co_map(BlkNode *node, uint64_t offset, uint64_t bytes, BlkMapping *map);
/* Where the payload of the compressed grain at @grain lies. *guest_sector: (out) (nullable): what its marker says. */
int vmdk_co_payload(const VmdkExtent *extent, uint64_t grain, uint64_t *offset, uint64_t *bytes,
                    uint64_t *guest_sector);

/* write.c */
int vmdk_co_reserve(BlkNode *node, BlkReservation *res);
void vmdk_publish(BlkNode *node, BlkReservation *res);
void vmdk_cancel(BlkNode *node, BlkReservation *res);
int vmdk_co_commit(BlkNode *node);
void vmdk_put_payload_head(BlkNode *node, const BlkReservation *res, uint8_t *head);
/* The image is closed, all is stable: writes the footers of extents that have one. */
int vmdk_co_write_footers(BlkNode *node);

/* parent.c */
/* Before the first change since the image was opened: a new content ID is stable when it returns 0. */
int vmdk_co_change_cid(BlkNode *node);
/* Is the backing, which may be none, what the image was made over? To be asked before anything can have changed it. */
void vmdk_look_at_parent(BlkNode *node);
/* May the backing be read? -EINVAL: it is not what the image was made over, or was changed since. */
int vmdk_check_parent(BlkNode *node);
/* The image is closed: what was committed to its parent gave that another content ID, which is taken over. */
int vmdk_co_keep_parent(BlkNode *node);
/* *cid: (out): of the vmdk image @node, through filters; false: it is none. */
bool vmdk_node_cid(BlkNode *node, uint32_t *cid);
/* *cid: (out): of the vmdk image that @name means to the file @node. */
int vmdk_co_read_cid(BlkNode *node, const char *name, uint32_t *cid, GError **error);
int vmdk_co_change_backing(BlkNode *node, const char *filename, const char *format, GError **error);

/* empty.c */
int vmdk_co_make_empty(BlkNode *node, GError **error);

/* create.c */
extern const BlkOption vmdk_create_options[];
int vmdk_check_create(const BlkOptions *options, GError **error);
int vmdk_co_create(BlkContext *ctx, BlkNode *file, const BlkOptions *options, GError **error);
/* (transfer full): the text of a descriptor; @lines: of its extents. */
char *vmdk_descriptor_text(const BlkOptions *options, const char *lines, uint32_t parent_cid);
bool vmdk_is_stream(const BlkOptions *options);
int vmdk_check_compressed(const BlkOptions *options, GError **error);
/* A hosted header of what the options ask for, with tables at the front. */
void vmdk_plan_header(const BlkOptions *options, uint64_t sectors, bool with_descriptor, VmdkHeader *header);

int vmdk_co_stream(BlkSource *source, const BlkOptions *options, const BlkStream *out, GError **error);
extern const BlkOption vmdk_info_members[];
int vmdk_co_info(BlkNode *node, BlkInfo *info, GError **error);
int vmdk_co_check(BlkNode *node, const BlkCheckOptions *options, BlkCheckResult *result, GError **error);

#endif
