/* SPDX-License-Identifier: MIT */
/*
 * driver.h - the API for writers of drivers and filters.
 *
 * A driver is one constant table, BlkDriver. What a filter leaves NULL passes through to its one child; what a format
 * leaves to its BlkFormatOps is done by the format engine; what a protocol leaves NULL is not supported.
 *
 * Every crossing of a layer goes through core/request.c, which checks range, alignment, flags and permission: an op may
 * trust its request. Data-path ops return 0 or a negative errno, without text and without allocation.
 */
#ifndef BLKSTACK_DRIVER_H
#define BLKSTACK_DRIVER_H

#include <blkstack/blkstack.h>

G_BEGIN_DECLS

/* ---- options: one declarative table each ---- */

typedef enum BlkOptionType {
    BLK_OPTION_STRING,
    BLK_OPTION_BOOL,        /* true, false; also the strings on, off, yes, no, true, false */
    BLK_OPTION_UINT,        /* a number, or a string of digits */
    BLK_OPTION_SIZE,        /* bytes: a number, or a string like "64k" (k, M, G, T, P, E are powers of 1024) */
    BLK_OPTION_ENUM,        /* one of values */
    BLK_OPTION_NODE,        /* a child: an object of options, the name of an open node, or null for none */
    BLK_OPTION_JSON,        /* anything, or what its type says; the driver looks into it */
} BlkOptionType;

typedef struct BlkType BlkType;

typedef struct BlkOption {
    const char *name;           /* dots allowed: "cache.direct" is also {"cache": {"direct": ...}} */
    BlkOptionType type;
    const char *help;           /* one line */
    const char *default_text;   /* (nullable): taken when the key is absent */
    const char *const *values;  /* ENUM: NULL-terminated */
    uint64_t min, max;          /* UINT, SIZE: bounds, if max is not 0 */
    bool required;
    const BlkType *json;        /* JSON: (nullable): what it is; NULL: anything */
} BlkOption;                    /* a table ends with a NULL name */

/* What values of type JSON look like. It says so to users and programs; whoever reads a value from elsewhere checks it. */
typedef enum BlkTypeKind {
    BLK_TYPE_ANY,
    BLK_TYPE_INTEGER,           /* also a negative one */
    BLK_TYPE_ARRAY,             /* its elements are what the first of @members is */
    BLK_TYPE_OBJECT,            /* of @members */
    BLK_TYPE_ALTERNATE,         /* one of @members, which differ in their types of JSON */
} BlkTypeKind;

struct BlkType {
    const char *name;                       /* unlike that of others; of arrays: NULL */
    BlkTypeKind kind;
    const BlkOption *members;               /* a table; names may not have dots */
    const struct BlkVariants *variants;     /* OBJECT: (nullable): members that depend on another one: of him who checks it */
};

/*
 * Options parsed against a table. Getters assert that the key is in the table with that type. Absent without default:
 * NULL, false, 0. Strings and JSON are (transfer none) and live as long as the options.
 */
bool blk_options_has(const BlkOptions *options, const char *name);      /* given by the user, not by default */
const char *blk_options_string(const BlkOptions *options, const char *name);    /* STRING and ENUM */
unsigned blk_options_enum(const BlkOptions *options, const char *name);         /* index in values */
bool blk_options_bool(const BlkOptions *options, const char *name);
uint64_t blk_options_uint(const BlkOptions *options, const char *name);         /* UINT and SIZE */
JsonNode *blk_options_json(const BlkOptions *options, const char *name);        /* NODE and JSON; (nullable) */

/**
 * blk_options_parse:
 * @tables: NULL-terminated array of tables
 * @object: what the user gave; not changed. "a.b" and {"a":{"b":}} are the same
 * @what: begins the message: "driver 'qcow2'"
 *
 * Refuses unknown keys (naming the nearest known one), ill-typed and out-of-range values and absent required keys.
 * Returns: (transfer full): free with blk_options_free(); NULL with @error set.
 */
BlkOptions *blk_options_parse(const BlkOption *const *tables, JsonObject *object, const char *what, GError **error);
void blk_options_free(BlkOptions *options);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BlkOptions, blk_options_free)

/* "64k" -> 65536. false if it is no size or above UINT64_MAX. */
bool blk_parse_size(const char *text, uint64_t *bytes);

/* ---- nodes and children as a driver sees them ---- */

typedef enum BlkRole {
    BLK_ROLE_IMAGE,         /* data and metadata of a format */
    BLK_ROLE_DATA,          /* data only */
    BLK_ROLE_FILTERED,      /* the child that a filter stands for */
    BLK_ROLE_COW,           /* what is not here is read there */
    BLK_ROLE_COPY,          /* no part of what the node holds: the driver looks at it, or copies to it, for other purposes */
} BlkRole;

typedef struct BlkRequest {
    uint64_t offset, bytes;
    BlkIov iov;             /* reads and writes only */
    unsigned flags;         /* BlkReqFlags */
} BlkRequest;

typedef struct BlkNodeCore BlkNodeCore;

struct BlkChild {
    const char *name;       /* "file", "backing", ...; of a user edge: the user's name */
    BlkRole role;
    BlkNode *parent;        /* NULL: a user edge */
    BlkNode *node;          /* changes only inside a drain: do not keep it over a yield without a request in flight */
    unsigned perm, shared;
    unsigned wanted;        /* with @rests: what @perm is while the node is active */
    bool rests;             /* see blk_child_rest() */
    bool stays;             /* see blk_child_stay() */
    BlkNode *served;        /* (nullable): see blk_child_serve() */
    GList link_parent, link_node;       /* core's own */
};

struct BlkNode {
    BlkContext *ctx;
    const BlkDriver *driver;
    void *opaque;           /* driver->instance_size bytes, zeroed before co_open, freed after co_close */
    BlkChild *file;         /* child of role IMAGE or FILTERED; NULL for protocols */
    BlkChild *backing;      /* child of role COW; NULL: none */
    uint64_t length;        /* bytes; a driver sets it in co_open and co_truncate (filters: core follows the child) */
    BlkLimits limits;       /* result of refresh_limits */
    unsigned caps;          /* BlkCaps; set in co_open; filters: the child's, if left alone */
    bool read_only;         /* may change only in co_open (auto-read-only) */
    BlkNodeCore *core;
};

typedef enum BlkCaps {
    BLK_CAP_COMPRESSED_WRITE   = 1 << 0,  /* takes BLK_REQ_COMPRESSED */
    BLK_CAP_COMPRESSED_REWRITE = 1 << 1,  /* ... any number of times, over anything */
    BLK_CAP_FUA                = 1 << 2,  /* does FUA itself; otherwise core flushes after the write */
    BLK_CAP_ZERO_INIT          = 1 << 3,  /* a newly created image reads as zeroes */
    BLK_CAP_COMPRESSED_ONLY    = 1 << 4,  /* whatever is written is compressed; clusters that do not shrink, too */
} BlkCaps;

/* How the user asked to open: common options of every node. */
typedef struct BlkOpenFlags {
    bool read_only, auto_read_only, force_share, no_flush, direct;
    bool unmap;             /* discard=unmap */
    bool trusted;           /* the user named the format; false: it was detected */
    bool no_backing;        /* metadata-only=on: do not open backing or data files */
    bool check_only;        /* check-only=on: open damaged tables too; nothing but co_check() is called */
    unsigned detect_zeroes; /* 0 off, 1 on, 2 unmap */
} BlkOpenFlags;
const BlkOpenFlags *blk_node_open_flags(const BlkNode *node);

/**
 * blk_node_only_read:
 * @why: a sentence for who wanted to write: why this cannot be, and what to do instead
 *
 * Of a node that can only be read: makes it read-only, if the user left that open (auto-read-only), or if it is a format that
 * is only checked: co_check() says what it cannot repair. Context: co_open.
 * Returns: 0; -EACCES.
 */
int blk_node_only_read(BlkNode *node, const char *why, GError **error);

/**
 * blk_co_open_child:
 * @name: key of type BLK_OPTION_NODE in @options
 *
 * Opens what the option says, or finds the open node that it names, and attaches it; sets node->file or node->backing
 * according to @role. The child inherits read-only, cache.* and force-share (a COW child is opened read-only).
 * Returns: (transfer none): NULL with @error set, also when the option is absent or null.
 */
BlkChild *blk_co_open_child(BlkNode *node, const BlkOptions *options, const char *name, BlkRole role, GError **error);

/**
 * blk_co_open_backing:
 * @filename: (nullable): as stored in the image; @format: (nullable): as stored in the image
 *
 * Opens the backing node: the option "backing" if given (null: none), else @filename, taken relative to the directory of
 * the node's own file. Enforces the rules against loops, depth and untrusted names. Returns: 0, also if there is none.
 */
int blk_co_open_backing(BlkNode *node, const BlkOptions *options, const char *filename, const char *format,
                        GError **error);

/**
 * blk_co_open_data_file:
 * @filename: (nullable): as stored in the image
 *
 * Opens and attaches the node that has an image's data but none of its tables: the option "data-file" (of type
 * BLK_OPTION_NODE) if given, else @filename, under the same rules as backing files; without a driver it is a protocol. To
 * be left out when the image is opened for its metadata only. Returns: (transfer none): NULL with @error set.
 */
BlkChild *blk_co_open_data_file(BlkNode *node, const BlkOptions *options, const char *filename, GError **error);

/* Does @node, or the image that it is, lie in the host's file @name? */
bool blk_node_is_in_file(BlkNode *node, const char *name);

/**
 * blk_co_open_extent:
 * @name: of the child: "extents.0", ...
 * @filename: as stored in the image
 * @local_only: only a plain file in the image's own directory is opened, whoever named the format
 * @read_only: also if the image is written
 *
 * Opens and attaches one of several files that have an image's data, and tables of their own perhaps, under the same rules
 * as backing files. Its role is DATA. Returns: (transfer none): NULL with @error set.
 */
BlkChild *blk_co_open_extent(BlkNode *node, const char *name, const char *filename, bool local_only, bool read_only,
                             GError **error);

/* What @name, stored in the image @node, means: (transfer full): absolute or relative to the working directory. */
char *blk_node_resolve_name(BlkNode *node, const char *name, GError **error);

/* Text from outside, as a message may show it: valid UTF-8, spaces for control characters, at most @max_bytes (at least 1).
 * Returns: (transfer full). */
char *blk_printable_text(const char *text, size_t max_bytes);

/* Tells the context's message handler one sentence about @node, whose name is put before it. Not for every request: once
 * for what happens again and again. Does not yield. */
void blk_node_message(BlkNode *node, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* For co_check(): tells who asked for it one sentence about one finding. Does not yield. */
void blk_check_tell(const BlkCheckOptions *options, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* Hands the request to the one child of a filter, as read or as write. May yield. */
int blk_co_pass_through_read(BlkNode *node, BlkRequest *req);
int blk_co_pass_through_write(BlkNode *node, BlkRequest *req);

/* ---- what is read like a disk ---- */

typedef enum BlkExtentKind {
    BLK_EXTENT_DATA,        /* must be read to be known */
    BLK_EXTENT_ZERO,        /* reads as zeroes */
    BLK_EXTENT_BACKING,     /* no part of the source: left to the target's backing */
} BlkExtentKind;

typedef struct BlkExtent {
    BlkExtentKind kind;
    uint64_t bytes;         /* how far the answer holds, from the offset asked: at least 1 */
} BlkExtent;

/* A source of images: one node, several behind each other, or parts of one. Ranges lie within it; errors say where. */
typedef struct BlkSource {
    uint64_t length;        /* bytes */
    uint64_t unit;          /* bytes: reads of whole such units cost least; 0: any */
    int (*co_extent)(struct BlkSource *source, uint64_t offset, uint64_t bytes, BlkExtent *extent, GError **error);
    int (*co_read)(struct BlkSource *source, uint64_t offset, uint64_t bytes, void *buf, GError **error);
} BlkSource;

/* Where a whole image is written to, strictly in order. */
typedef struct BlkStream {
    int (*co_write)(const void *buf, uint64_t bytes, void *opaque, GError **error);
    void *opaque;
    bool compressed;
    unsigned compression;   /* how: blk_req_compression() */
    bool sparse;            /* clusters of zeroes are not stored */
    void (*progress)(double fraction, void *opaque);    /* (nullable) */
    void *progress_opaque;
} BlkStream;

/**
 * blk_co_stream:
 * @format_options: as for blk_co_create(); "size" is the length of @source
 *
 * Writes a new image that holds what @source does, which is read twice. If the source changes meanwhile: -EAGAIN, and what
 * was written is no image. Context: coroutine; may yield. Returns: 0; -ENOTSUP; others of the options, @source and @out.
 */
int blk_co_stream(BlkContext *ctx, const char *format, JsonObject *format_options, BlkSource *source, const BlkStream *out,
                  GError **error);

/* ---- formats: where things lie ---- */

typedef struct BlkCodec BlkCodec;     /* see core/codec.h */

typedef enum BlkMapKind {
    BLK_MAP_UNALLOCATED,    /* not here: ask the backing; zeroes without one */
    BLK_MAP_ZERO,
    BLK_MAP_DATA,
    BLK_MAP_COMPRESSED,     /* one cluster */
} BlkMapKind;

typedef struct BlkMapping {
    BlkMapKind kind;
    bool in_place;          /* DATA: nobody else refers to the host space: it may be overwritten */
    bool preallocated;      /* ZERO, UNALLOCATED: host space is there for it, at host_offset */
    bool whole_cluster;     /* data that is written here moves its whole cluster, since it is compressed or shared */
    uint64_t bytes;         /* how far the answer holds, from the offset asked; COMPRESSED: to the end of the cluster */
    BlkChild *child;
    uint64_t host_offset;   /* DATA: of the byte asked; COMPRESSED: of the payload */
    uint64_t host_bytes;    /* COMPRESSED: at most this long, from host_offset */
    int backing_ret;        /* UNALLOCATED: the error of reading the backing, if that must not be read; else 0 */
    bool may_have_holes;    /* DATA: block status also asks @child, whose file may be sparse, which of it are zeroes */
    bool may_be_short;      /* COMPRESSED: it may decode to less than a cluster; the rest is zeroes */
} BlkMapping;

/* Whether host space that is to be dropped, or to be read as zeroes, is zeroed itself. */
typedef enum BlkHostZero {
    BLK_HOST_KEEP,
    BLK_HOST_ZERO_IF_CHEAP, /* its space is given back, where that can be done */
    BLK_HOST_ZERO,          /* the host space is read without the mapping, too */
} BlkHostZero;

/*
 * A change of mapping, from reserve to publish or cancel. The engine fills the first part; guest ranges are whole
 * subclusters (the last one of the node counts as whole): whole clusters of those that are compressed or become so, and
 * of those that move when data is written to them. It holds the clusters' lock exclusively meanwhile.
 */
typedef struct BlkReservation {
    uint64_t offset, bytes;         /* in: guest range; out: bytes may be less, down to one such unit */
    BlkMapKind kind;                /* what the range is to become */
    uint64_t payload_bytes;         /* in: COMPRESSED: length of the payload, and of what the format puts before it */
    bool unmap;                     /* in: ZERO: do not keep host space */
    bool hide;                      /* in: ZERO: the mapping itself must say so, without a backing too */
    bool bare;                      /* in: UNALLOCATED: the backing may show through */
    BlkHostZero zero_host;          /* out: ZERO: what the engine does at host_offset, before it publishes */
    bool preallocate;               /* in: DATA: of zeroes: may stay what it is if it has host space and reads as zeroes */
    BlkChild *child;                /* out: where to write; of role DATA: nothing behind the end of the node */
    uint64_t host_offset;
    uint64_t host_bytes;            /* out: COMPRESSED: bytes to write, payload padded with zeroes; may exceed the payload */
    bool rest_is_there;             /* out: DATA: but for what the guest writes, the host space reads as the range does */
    void *slice;                    /* driver's own */
    uint64_t priv[4];
} BlkReservation;

typedef struct BlkBitmapOps BlkBitmapOps;     /* how an image keeps dirty bitmaps: see core/bitmap.h */

/* A format whose nodes can only be read has no more than co_map and codec. */
typedef struct BlkFormatOps {
    /* What lies at @offset; looks at no more than @bytes. -EIO for an entry that lies. */
    int (*co_map)(BlkNode *node, uint64_t offset, uint64_t bytes, BlkMapping *map);
    /* Everything that can fail: loads and copies tables, finds host space. Changes nothing that a reader sees. */
    int (*co_reserve)(BlkNode *node, BlkReservation *res);
    /* Makes the new mapping visible and drops the old one. Cannot fail; does not yield. */
    void (*publish)(BlkNode *node, BlkReservation *res);
    void (*cancel)(BlkNode *node, BlkReservation *res);
    /* All that was published when it was called is stable when it returns 0. */
    int (*co_commit)(BlkNode *node);
    /* How compressed payloads are coded; NULL: the image has none. */
    const BlkCodec *(*codec)(BlkNode *node);
    /* (nullable): what stands in the file before each payload: head_bytes, at most 64, which are written with it. */
    void (*put_payload_head)(BlkNode *node, const BlkReservation *res, uint8_t *head);
    size_t head_bytes;
} BlkFormatOps;

/*
 * Readers use host offsets from co_map without a lock. A driver that drops host space takes the epoch then, and reuses the
 * space only when no reader is left that began at or before it.
 */
uint64_t blk_engine_read_epoch(BlkNode *node);
bool blk_engine_has_readers(BlkNode *node, uint64_t epoch);

/* How much memory the node takes for decompressed clusters; 0 (the default): none. If not, one cluster at least. Payloads
 * may be changed otherwise than by BlkFormatOps only while the node is drained. Context: co_open; the node is drained. */
void blk_engine_set_decompressed_cache(BlkNode *node, uint64_t bytes);

/* ---- internal snapshots: control path; the node is drained ---- */

typedef struct BlkSnapshotOps {
    /* Appends BlkSnapshot elements. Also of a node that is not drained. */
    int (*co_list)(BlkNode *node, GArray *snapshots, GError **error);
    int (*co_create)(BlkNode *node, const char *name, GError **error);
    /* @index: in the list. Sets node->length. */
    int (*co_apply)(BlkNode *node, unsigned index, GError **error);
    int (*co_delete)(BlkNode *node, unsigned index, GError **error);
    int (*co_load)(BlkNode *node, unsigned index, GError **error);      /* node->read_only; sets node->length */
} BlkSnapshotOps;

/* ---- reopening ---- */

/* What an open node is to become. Its permissions are those of what it was and is to be together. */
typedef struct BlkReopen {
    const BlkOptions *options;      /* of the driver; NULL: they stay what they were */
    const BlkOpenFlags *flags;
    bool read_only;
} BlkReopen;

/* May it get another length, as far as its users are concerned? -EBUSY: one does not share that. */
int blk_node_check_resizable(const BlkNode *node, GError **error);

/* ---- the table ---- */

typedef enum BlkKind { BLK_PROTOCOL, BLK_FORMAT, BLK_FILTER } BlkKind;

/*
 * Points at which a fault filter below can act. Names as the peer's: X(l2_update) makes BLK_EVENT_l2_update, which users
 * write "l2_update".
 */
#define BLK_EVENTS(X)                                                                                              \
    X(l1_update) X(l1_grow_alloc_table) X(l1_grow_write_table) X(l1_grow_activate_table) X(l2_load) X(l2_update)   \
    X(l2_update_compressed) X(l2_alloc_cow_read) X(l2_alloc_write) X(read_aio) X(read_backing_aio)                 \
    X(read_compressed) X(write_aio) X(write_compressed) X(vmstate_load) X(vmstate_save) X(cow_read) X(cow_write)   \
    X(reftable_load) X(reftable_grow) X(reftable_update) X(refblock_load) X(refblock_update)                       \
    X(refblock_update_part) X(refblock_alloc) X(refblock_alloc_hookup) X(refblock_alloc_write)                     \
    X(refblock_alloc_write_blocks) X(refblock_alloc_write_table) X(refblock_alloc_switch_table) X(cluster_alloc)   \
    X(cluster_alloc_bytes) X(cluster_free) X(flush_to_os) X(flush_to_disk) X(pwritev_rmw_head)                     \
    X(pwritev_rmw_after_head) X(pwritev_rmw_tail) X(pwritev_rmw_after_tail) X(pwritev) X(pwritev_zero)             \
    X(pwritev_done) X(empty_image_prepare) X(l1_shrink_write_table) X(l1_shrink_free_l2_clusters) X(cor_write)     \
    X(cluster_alloc_space)

#define BLK_EVENT_MEMBER(name) BLK_EVENT_##name,
typedef enum BlkEvent { BLK_EVENTS(BLK_EVENT_MEMBER) BLK_EVENT_COUNT } BlkEvent;
#undef BLK_EVENT_MEMBER

const char *blk_event_name(BlkEvent event);
bool blk_event_find(const char *name, BlkEvent *event);
/* Tells the fault filters at and below @node (through file and filtered children) that the point is reached. May yield. */
void blk_co_event(BlkNode *node, BlkEvent event);

struct BlkDriver {
    const char *name;
    const char *alias;                      /* (nullable): second name */
    BlkKind kind;
    const char *help;                       /* one line */
    const BlkOption *options;               /* beside the common ones of every node */
    const BlkOption *create_options;        /* NULL: cannot be created */
    const BlkOption *amend_options;         /* what co_amend can change */
    const BlkOption *info_members;          /* (nullable): what BlkInfo.specific has: made by co_info */
    size_t instance_size;
    bool url_names;                         /* protocols: names are URLs, and have directories: relative ones start there */
    const char *const *prefixes;            /* protocols: "nbd" for nbd:..., NULL-terminated; (nullable) */
    /* Protocols: turns "prefix:rest" into options. NULL: {"filename": name}. */
    JsonObject *(*parse_filename)(const char *name, GError **error);
    /* Protocols: the opposite: (transfer full): how a user would name the open node. NULL: options are needed to say it. */
    char *(*filename)(const BlkNode *node);
    /* Formats: 0..100, how sure it is that an image which begins with @head is one of its own. */
    int (*probe)(const uint8_t *head, size_t bytes, const char *filename);
    const BlkFormatOps *format;
    const BlkBitmapOps *bitmaps;            /* (nullable): formats that keep dirty bitmaps */
    const BlkSnapshotOps *snapshots;        /* NULL: has none; a filter's are its child's */

    int (*co_open)(BlkNode *node, const BlkOptions *options, GError **error);
    void (*co_close)(BlkNode *node);                    /* children are still there; also after a failed co_open */
    /*
     * Does all that can fail, so that the node can be what @to says, and what it was. The node is drained. Writes out what it
     * keeps, if it is not to write any more. NULL: see reopens_as_it_is. Then comes one of the other two, which cannot fail;
     * either may be NULL.
     */
    int (*co_reopen_prepare)(BlkNode *node, const BlkReopen *to, GError **error);
    void (*co_reopen_commit)(BlkNode *node);
    void (*co_reopen_abort)(BlkNode *node);
    const char *const *reopen_options;      /* those that co_reopen_prepare can change; NULL-terminated; NULL: none */
    bool reopens_as_it_is;                  /* what a node keeps does not depend on how it was opened */
    /* Somebody waits until no request is in flight, here or above: those that wait for what may never come fail now, and
     * all others that would wait for it, until it has come; those that are held back go on. Does not yield. */
    void (*hurry)(BlkNode *node);
    void (*refresh_limits)(BlkNode *node);              /* limits hold the children's; change what differs */
    /* Formats whose disk ends where their file does: how long is it now? NULL: they have a length of their own. */
    uint64_t (*length_below)(const BlkNode *node);
    /* What this node needs from a child when its own parents need @perm and share @shared. NULL: by role. */
    void (*child_perm)(BlkNode *node, BlkChild *child, unsigned perm, unsigned shared,
                       unsigned *child_perm, unsigned *child_shared);
    /* May @child become a child of @node, or stay one after the graph below it has changed? NULL: any node may. */
    int (*check_child)(BlkNode *node, BlkNode *child, GError **error);
    /* Protocols: takes and gives locks; lowering never fails. */
    int (*set_perm)(BlkNode *node, unsigned perm, unsigned shared, GError **error);

    int (*co_preadv)(BlkNode *node, BlkRequest *req);
    int (*co_pwritev)(BlkNode *node, BlkRequest *req);
    int (*co_pwrite_zeroes)(BlkNode *node, BlkRequest *req);    /* -ENOTSUP: core writes zeroes */
    int (*co_discard)(BlkNode *node, BlkRequest *req);
    int (*co_flush)(BlkNode *node);         /* own data; core flushes the children afterwards */
    /* Hands down to the children what the node holds of writes that have returned; none is in flight. */
    int (*co_settle)(BlkNode *node);
    /* bytes, flags, file, host_offset; status->bytes is the maximum when called */
    int (*co_block_status)(BlkNode *node, uint64_t offset, uint64_t bytes, BlkStatus *status);
    int (*co_truncate)(BlkNode *node, uint64_t length, BlkPrealloc prealloc, GError **error);
    int (*co_info)(BlkNode *node, BlkInfo *info, GError **error);
    /* The node is drained if it is to be repaired. */
    int (*co_check)(BlkNode *node, const BlkCheckOptions *options, BlkCheckResult *result, GError **error);
    /* Context: the node is drained. */
    int (*co_compact)(BlkNode *node, const BlkCompactOptions *options, GError **error);
    /* Changes what @options has: keys of amend_options. The node is drained; core follows a change of length. */
    int (*co_amend)(BlkNode *node, const BlkOptions *options, const BlkAmendOptions *amend, GError **error);
    /* The image names another backing file, or none (NULL); the graph stays as it is. */
    int (*co_change_backing)(BlkNode *node, const char *filename, const char *format, GError **error);
    /* Drops all that the image holds itself. The node is drained. */
    int (*co_make_empty)(BlkNode *node, GError **error);
    /* (nullable): refuses creation options that contradict each other, before any file is touched. Does not yield. */
    int (*check_create)(const BlkOptions *options, GError **error);
    /* (nullable): refuses creation options of an image that would have no compressed clusters. Does not yield. */
    int (*check_compressed)(const BlkOptions *options, GError **error);
    /* Formats: @options are those of creation, size included. required, fully_allocated. */
    int (*co_measure)(const BlkOptions *options, BlkNode *source, BlkMeasure *measure, GError **error);
    /* Formats: writes a whole image, of what @source holds, from the first byte to the last. */
    int (*co_stream)(BlkSource *source, const BlkOptions *options, const BlkStream *out, GError **error);
    /* Formats: writes an empty image into @file. */
    int (*co_create)(BlkContext *ctx, BlkNode *file, const BlkOptions *options, GError **error);
    /* Protocols: makes a file of @length bytes, or empties the one that is there. *made: (out): which of both; after a
     * failure what was made is gone. */
    int (*co_create_file)(BlkContext *ctx, const char *filename, uint64_t length, const BlkOptions *options, bool *made,
                          GError **error);
    /* Protocols: takes back what co_create_file has made. */
    int (*co_delete_file)(BlkContext *ctx, const char *filename);
    /* Fault filters: an event reached this node or one above; rules act on the requests that follow. May yield. */
    void (*co_event)(BlkNode *node, BlkEvent event);
    int (*breakpoint_set)(BlkNode *node, const char *event, const char *tag, GError **error);
    int (*breakpoint_resume)(BlkNode *node, const char *tag, bool remove);
    bool (*breakpoint_is_suspended)(BlkNode *node, const char *tag);
    /* Filters that record what passes: puts @text into the record. */
    int (*co_mark)(BlkNode *node, const char *text, GError **error);
};

/* Makes an empty file by a protocol that can: co_create_file() of its length, "size" of @options, a key of its create_options.
 * Context: coroutine; may yield. Returns: 0; after a failure what was made is gone. */
int blk_co_create_file(BlkContext *ctx, const BlkDriver *protocol, const char *filename, JsonObject *options, GError **error);

/* Makes an out-of-tree driver known to @ctx. The table must outlive the context. -EEXIST: the name is taken. */
int blk_driver_register(BlkContext *ctx, const BlkDriver *driver, GError **error);

/* ---- file I/O on the context's engine: coroutine, may yield; 0 or negative errno ---- */

/* An open file and what is known about it; all but @fd may be left 0. */
typedef struct BlkAioFile {
    int fd;
    bool cached;                    /* read through the page cache */
    uint32_t copy_align;            /* writes of such units only copy to the page cache, as a rule; 0: not known to */
    unsigned read_rest, reads_skipped;      /* core's own, as what follows */
    uint64_t no_copy_before_ns;
} BlkAioFile;

/* Past the end of the file there are zeroes. */
int blk_aio_co_preadv(BlkContext *ctx, BlkAioFile *file, uint64_t offset, uint64_t bytes, BlkIov iov);
int blk_aio_co_pwritev(BlkContext *ctx, BlkAioFile *file, uint64_t offset, uint64_t bytes, BlkIov iov, bool dsync);
int blk_aio_co_fdatasync(BlkContext *ctx, int fd);
int blk_aio_co_fallocate(BlkContext *ctx, int fd, int mode, uint64_t offset, uint64_t bytes);
/* Any blocking system call, on a thread of the I/O pool; @fn returns 0 or a negative errno and touches no node. */
int blk_aio_co_call(BlkContext *ctx, int (*fn)(void *arg), void *arg);

/* ---- scattered buffers ---- */

static inline BlkIov blk_iov_advance(BlkIov iov, size_t bytes)
{
    iov.skip += bytes;
    return iov;
}
void blk_iov_to_buf(BlkIov iov, void *buf, size_t bytes);
void blk_iov_from_buf(BlkIov iov, const void *buf, size_t bytes);
void blk_iov_zero(BlkIov iov, size_t bytes);
bool blk_iov_is_zero(BlkIov iov, size_t bytes);
bool blk_buffer_is_zero(const void *buf, size_t bytes);
/* Pointer to @bytes at the start of the view if they lie in one piece, else NULL. */
void *blk_iov_contiguous(BlkIov iov, size_t bytes);
/* Writes up to @max vectors for the first @bytes of the view to @out. Returns: how many; *done says how many bytes. */
unsigned blk_iov_fill(BlkIov iov, size_t bytes, struct iovec *out, unsigned max, size_t *done);

G_END_DECLS

#endif
