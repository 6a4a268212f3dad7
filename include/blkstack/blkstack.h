/* SPDX-License-Identifier: MIT */
/*
 * blkstack.h - the API for programs that use a stack of block nodes.
 *
 * A program makes a context, enters it with blk_run(), opens nodes from a tree of options and sends them requests.
 * Functions named blk_co_* run inside a coroutine of the context and may yield; all others never yield.
 * Data-path functions return 0 or a negative errno. Control-path functions also set a GError: its code is the positive
 * errno, its message one sentence for a user. An error is never set on success.
 * Programs should ignore SIGPIPE and SIGXFSZ: what a pipe or a file does not take is an error then, and not the end.
 *
 * Writers of drivers and filters include blkstack/driver.h as well.
 */
#ifndef BLKSTACK_BLKSTACK_H
#define BLKSTACK_BLKSTACK_H

#include <errno.h>
#include <glib.h>
#include <json-glib/json-glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

G_BEGIN_DECLS

typedef struct BlkContext BlkContext;
typedef struct BlkNode BlkNode;
typedef struct BlkChild BlkChild;
typedef struct BlkCo BlkCo;
typedef struct BlkDriver BlkDriver;
typedef struct BlkOptions BlkOptions;

/* ---- errors ---- */

#define BLK_ERROR (blk_error_quark())
GQuark blk_error_quark(void);

/**
 * blk_error:
 * @error: (out) (nullable): where to put the message
 * @ret: a negative errno
 *
 * Sets @error to the printf-like message. Returns: @ret, so that a function can end with `return blk_error(...)`.
 */
int blk_error(GError **error, int ret, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* The same, with ": " and the text of errno -@ret appended. */
int blk_error_errno(GError **error, int ret, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* ---- the context: one thread, one event loop ---- */

typedef int BlkCoFn(void *opaque);

/**
 * blk_context_new:
 * @aio: (nullable): "io_uring" or "threads"; NULL takes the environment variable BLKSTACK_AIO, and without it the best
 *       that works on this machine
 *
 * All driver tables that are built in are registered with the new context. The context belongs to the calling thread.
 */
BlkContext *blk_context_new(const char *aio, GError **error);

/* All nodes must have been closed. */
void blk_context_free(BlkContext *ctx);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BlkContext, blk_context_free)

/* Name of the I/O engine in use, for messages and tests. */
const char *blk_context_aio_name(const BlkContext *ctx);

/**
 * BlkMessageFn:
 * @text: one sentence, which begins with the name of the node; no end of line
 *
 * Hears what a user must know and no result can say: why a request was refused, that an image is damaged.
 * Context: the context's thread; must not yield.
 */
typedef void BlkMessageFn(BlkNode *node, const char *text, void *opaque);

/* @fn: (nullable): without one, which is the default, messages are dropped. */
void blk_context_set_message_handler(BlkContext *ctx, BlkMessageFn *fn, void *opaque);

/**
 * BlkNoticeFn:
 * @name: what happened, as the control protocol calls it: "JOB_STATUS_CHANGE"
 * @data: (nullable): the members that go with it; whoever keeps it takes a reference, and nobody changes it
 *
 * Hears what a program that controls the graph must learn: a job has ended, a write has failed, a threshold is crossed.
 * docs/daemon.md lists the names and their members. Context: the context's thread; must not yield.
 */
typedef void BlkNoticeFn(BlkContext *ctx, const char *name, JsonObject *data, void *opaque);

/* @fn: (nullable): without one, which is the default, notices are dropped. */
void blk_context_set_notice_handler(BlkContext *ctx, BlkNoticeFn *fn, void *opaque);

/* Would anybody hear a notice? For those whose @data costs something. */
bool blk_context_wants_notices(const BlkContext *ctx);

/* Tells the handler. @data: (transfer full) (nullable). Context: the context's thread; does not yield. */
void blk_notify(BlkContext *ctx, const char *name, JsonObject *data);

/**
 * blk_run:
 *
 * Runs @fn in a coroutine of @ctx and the event loop until it returns; called within a coroutine it just calls @fn.
 * Other coroutines of the context go on meanwhile. Returns: what @fn returned.
 */
int blk_run(BlkContext *ctx, BlkCoFn *fn, void *opaque);

/* ---- coroutines ---- */

/* Starts @fn(@opaque) as a new coroutine: it runs when the caller yields. Its result is ignored. */
void blk_co_spawn(BlkContext *ctx, BlkCoFn *fn, void *opaque);

BlkCo *blk_co_self(void);                    /* NULL outside coroutines */
BlkContext *blk_co_context(void);            /* the context of the running coroutine; NULL outside */
void blk_co_yield(void);                     /* sleeps until somebody calls blk_co_wake() */
void blk_co_wake(BlkCo *co);                 /* same thread only; @co must be asleep in blk_co_yield(); runs it later */
void blk_co_reschedule(void);                /* lets the others run, then goes on */
void blk_co_sleep_ns(uint64_t ns);           /* CLOCK_MONOTONIC */

/* A queue of sleeping coroutines, first in, first out. Zero-initialised is empty. */
typedef struct BlkCoWaiter BlkCoWaiter;
typedef struct BlkCoQueue {
    BlkCoWaiter *head, *tail;
} BlkCoQueue;
void blk_co_queue_wait(BlkCoQueue *queue);       /* may yield */
bool blk_co_queue_wake_one(BlkCoQueue *queue);   /* false: nobody waited */
void blk_co_queue_wake_all(BlkCoQueue *queue);

/* A fair mutex among coroutines of one context. Zero-initialised is unlocked. */
typedef struct BlkCoMutex {
    bool locked;
    BlkCoQueue waiters;
} BlkCoMutex;
void blk_co_mutex_lock(BlkCoMutex *mutex);       /* may yield */
void blk_co_mutex_unlock(BlkCoMutex *mutex);     /* hands over to the first waiter */

/*
 * A bounded group of coroutines that work for their creator. blk_co_group_run() starts @fn(@opaque) and waits while
 * @limit tasks run; after the first failure it starts nothing more. blk_co_group_wait() waits for all tasks.
 * Lives on its creator's stack.
 */
typedef struct BlkCoGroup {
    unsigned limit, running;
    int ret;                     /* the first error of a task */
    BlkCo *waiter;
} BlkCoGroup;
#define BLK_CO_GROUP_INIT(max) { .limit = (max) }
int blk_co_group_run(BlkCoGroup *group, BlkCoFn *fn, void *opaque);  /* may yield; the group's error so far; <0: not started */
int blk_co_group_wait(BlkCoGroup *group);                            /* may yield; the group's error */

/* Threads of the CPU worker pool: as many as processors (or BLKSTACK_WORKERS), more if somebody needs them. */
unsigned blk_context_workers(const BlkContext *ctx);
void blk_context_need_workers(BlkContext *ctx, unsigned workers);

/* Runs @fn(@arg), which must not touch nodes, on the CPU worker pool. May yield. Returns what @fn returned. */
int blk_co_offload(int (*fn)(void *arg), void *arg);

/* The same for work that takes no longer than two changes of threads: done here if nobody in the context waits for it, which
 * is when no other coroutine is ready and nothing is in flight. */
int blk_co_offload_short(int (*fn)(void *arg), void *arg);

/* ---- opening nodes ---- */

/**
 * blk_options_parse_filename:
 * @name: a file name, a URL of a protocol, or `json:{...}`
 * @format: (nullable): format driver; NULL leaves it to detection
 *
 * Returns: (transfer full): the tree of options that blk_co_open() takes.
 */
JsonObject *blk_options_parse_filename(BlkContext *ctx, const char *name, const char *format, GError **error);

/* Parses `a.b=c,d=e` (a comma is written twice inside a value) or, if it begins with '{', JSON. @implied_key: (nullable):
 * the key of a first word without '='. */
JsonObject *blk_options_parse_keyval(const char *text, const char *implied_key, GError **error);

/* Parses JSON text to an object: bounded depth and size, duplicate keys refused. @what names the text in messages. */
JsonObject *blk_json_parse_object(const char *text, gssize length, const char *what, GError **error);

/**
 * blk_co_open:
 * @options: tree of options: "driver", "node-name", "read-only", ..., those of the driver; children are objects or names
 *           of nodes that are open already. Without "driver" the format is detected. Not changed.
 *
 * Context: coroutine; may yield.
 * Returns: (transfer full): a node, to be given back with blk_co_unref(), or NULL.
 */
BlkNode *blk_co_open(BlkContext *ctx, JsonObject *options, GError **error);
BlkNode *blk_node_ref(BlkNode *node);
void blk_co_unref(BlkNode *node);             /* the last one flushes and closes the node; NULL is ignored */
BlkNode *blk_node_find(BlkContext *ctx, const char *node_name);   /* (transfer none) */

typedef enum BlkPerm {
    BLK_PERM_READ            = 1 << 0,   /* reads see consistent data */
    BLK_PERM_WRITE           = 1 << 1,
    BLK_PERM_WRITE_UNCHANGED = 1 << 2,   /* writes that do not change what a reader sees */
    BLK_PERM_RESIZE          = 1 << 3,
    BLK_PERM_ALL             = 15,
} BlkPerm;

/**
 * blk_co_attach:
 * @name: of the user, for messages
 * @perm: what the user will do; @shared: what it lets others do meanwhile
 *
 * Makes a user of @node: an edge of the graph without a parent node. It takes a reference. Sending writes needs
 * an edge with BLK_PERM_WRITE, which a read-only node refuses here. Use blk_child_node() for each request, since a filter
 * may have been put in or taken out above the node.
 */
BlkChild *blk_co_attach(BlkNode *node, const char *name, unsigned perm, unsigned shared, GError **error);
void blk_co_detach(BlkChild *user);           /* NULL is ignored */
BlkNode *blk_child_node(const BlkChild *child);

/* (nullable) (transfer none): the node in whose options, or image, this one was named, while that is open. */
BlkNode *blk_node_opener(const BlkNode *node);

/* Has anybody but the caller, who has one reference, an edge or a reference to it? */
bool blk_node_is_shared(const BlkNode *node);

const char *blk_node_name(const BlkNode *node);          /* given or generated, never NULL */
const char *blk_node_filename(const BlkNode *node);      /* as a user would name it; json:{...} where it must be; never NULL */
const char *blk_node_driver_name(const BlkNode *node);
uint64_t blk_node_length(const BlkNode *node);           /* bytes */
bool blk_node_read_only(const BlkNode *node);
BlkContext *blk_node_context(const BlkNode *node);
BlkNode *blk_node_child(const BlkNode *node, const char *name);    /* (nullable) (transfer none): "file", "backing", ... */
BlkNode *blk_node_backing(const BlkNode *node);    /* next in the backing chain below filters; (nullable) (transfer none) */
BlkNode *blk_node_skip_filters(BlkNode *node);     /* @node, or the first node below it that is no filter */

/* All open nodes, the one that was made last first: (transfer full): array of references, each with blk_co_unref(). */
GPtrArray *blk_nodes(BlkContext *ctx);

/* ---- what a node has done ---- */

typedef enum BlkStatsKind { BLK_STATS_READ, BLK_STATS_WRITE, BLK_STATS_FLUSH, BLK_STATS_DISCARD, BLK_STATS_KINDS } BlkStatsKind;

/* Since it was opened, of all requests that users and nodes above have sent; zero writes are writes. */
typedef struct BlkStats {
    struct {
        uint64_t operations, bytes;     /* that succeeded */
        uint64_t failed;
    } of[BLK_STATS_KINDS];
    uint64_t write_end;                 /* where the write that reached farthest ended; 0: there was none */
    uint64_t compressed_bytes;          /* formats: of the disk, in clusters that were stored compressed; ... */
    uint64_t payload_bytes;             /* ... what these took in the file */
    uint64_t incompressible_bytes;      /* formats: of the disk, in clusters that do not shrink and were stored as they are */
} BlkStats;
const BlkStats *blk_node_stats(const BlkNode *node);

/* The first write to the node that reaches beyond the threshold, in bytes from its start, is told as the notice
 * BLOCK_WRITE_THRESHOLD, and the threshold is 0 again, which means none. */
void blk_node_set_write_threshold(BlkNode *node, uint64_t threshold);
uint64_t blk_node_write_threshold(const BlkNode *node);

/* ---- changing a live graph (requests may be in flight; they are drained) ---- */

/**
 * blk_co_replace_node:
 * @to: need not be related to @from
 *
 * Lets all users and parents of @from use @to; but not @to itself and the nodes below it, so that no loop is made, nor those
 * that stay (blk_child_stay()). Requests that wait meanwhile go to @to. Nobody compares contents or lengths.
 * Context: coroutine, with no request of its own in flight at either; may yield. Also within a drained section.
 * Returns: 0, or an error with the graph unchanged: -EPERM, -EACCES: a user's permissions do not go together with @to;
 * -ELOOP: a backing chain would be too long; the errors of drivers, which may not want @to; those of data that a node
 * holds and could not store.
 */
int blk_co_replace_node(BlkNode *from, BlkNode *to, GError **error);
/* @user, an edge of somebody who works on the node itself (a job), does not follow when another takes the node's place. */
void blk_child_stay(BlkChild *user);
/* A user that was attached without permissions gets @perm, and stays one while its node is inactive: then it has none, and its
 * requests fail. Without @perm the node cannot become active. Returns: 0; as blk_co_attach(), and the user is what it was. */
int blk_child_rest(BlkChild *user, unsigned perm, GError **error);
/* Requests of @served (nullable: none; else it lives as long as @user says so) may wait for some that @user sends: a drain of @user's node drains
 * @served first, as it does the nodes above. Nothing of @user's node may wait for @served. */
void blk_child_serve(BlkChild *user, BlkNode *served);
/* Inserts @filter, whose filtered child is @node already, between @node and all its other parents. Errors as above. */
int blk_co_insert_above(BlkNode *node, BlkNode *filter, GError **error);
/* Lets all parents of @filter use its filtered child instead. Errors as above. */
int blk_co_remove_filter(BlkNode *filter, GError **error);

/**
 * blk_co_set_backing: blk_co_replace_child:
 * @backing: (nullable): NULL: none from now on
 * @child: name of a child that @parent has
 *
 * Lets one node use another child. For the backing this changes what is open, not what the image says of it (see
 * blk_co_change_backing()). The child that was there is closed if nobody else holds it.
 * Context, errors: as of blk_co_replace_node(); -EINVAL: @parent has no such child and cannot have it; -ELOOP also if the new
 * child is above @parent.
 */
int blk_co_set_backing(BlkNode *node, BlkNode *backing, GError **error);
int blk_co_replace_child(BlkNode *parent, const char *child, BlkNode *node, GError **error);

/**
 * blk_co_reopen:
 * @trees: objects: the options of open nodes, each with its "node-name", as blk_co_open() takes them
 *
 * Makes the nodes what the options say, all of them or none: read-only or writable, cache.*, discard, options that
 * their drivers can change, and children: by name another node, as a filter that is put in or taken out; as an object the one
 * that was opened so, which is reopened. What a tree leaves out is what it is by default, but a backing must be said.
 * Context: coroutine, with no request of its own in flight at the nodes; may yield.
 * Returns: 0, or an error with all as it was: -EINVAL, -ENOENT; those of blk_co_reopen_writable() and blk_co_replace_child().
 */
int blk_co_reopen(BlkContext *ctx, JsonArray *trees, GError **error);

/**
 * blk_co_reopen_writable:
 * @writable: may it be written to from now on, or no more?
 *
 * Makes an open image, and the nodes that were opened for it but its backing, writable or read-only; nothing else changes.
 * What it held back is written when it becomes read-only. Does nothing if it is so already.
 * Context: coroutine, with no request of its own in flight at the node; may yield.
 * Returns: 0, or an error with all as it was: -EACCES: a user writes, or the node below is read-only; -EACCES, -EROFS and
 * others from the file; -EAGAIN: another process uses it; -ENOTSUP: not this driver; those of data that could not be stored.
 */
int blk_co_reopen_writable(BlkNode *node, bool writable, GError **error);

/**
 * blk_co_set_active:
 * @active: may the node be used?
 *
 * An inactive node stays where it is in the graph, but has nothing open: no file, no lock, so that another process may use its
 * image. All that it held is stable then. Children that nobody else uses become inactive with it, and active before
 * it. A node in use by a parent that is active, or by a user that does not rest (blk_child_rest()), stays active. What the image holds is read anew when it
 * becomes active. Does nothing if it is so already.
 * Context: coroutine, with no request of its own in flight at the node; may yield.
 * Returns: 0; -EBUSY: it is in use, or has dirty bitmaps that are not stored; those of data that could not be stored, and
 * of blk_co_open(). After an error the node is what it was; children that nobody uses may be inactive.
 */
int blk_co_set_active(BlkNode *node, bool active, GError **error);
/* The same for all nodes. After an error some may have changed. */
int blk_co_set_all_active(BlkContext *ctx, bool active, GError **error);
bool blk_node_active(const BlkNode *node);

/* While drained, new requests from above wait, none is in flight, and nodes above hold no data that was not handed down.
 * Nests. Returns: 0; the error of data that could not be handed down, and is still held: the section has begun all the same. */
int blk_co_drain_begin(BlkNode *node);
void blk_drain_end(BlkNode *node);

/* ---- requests ---- */

/* A view of a scattered buffer: skips @skip bytes of @vec; its length is that of the request. */
typedef struct BlkIov {
    const struct iovec *vec;
    unsigned count;
    size_t skip;
} BlkIov;

typedef enum BlkReqFlags {
    BLK_REQ_FUA         = 1 << 0,   /* the data is stable when the request returns */
    BLK_REQ_COMPRESSED  = 1 << 1,   /* store the clusters compressed */
    BLK_REQ_UNMAP       = 1 << 2,   /* zeroes: space may be given back */
    BLK_REQ_NO_FALLBACK = 1 << 3,   /* zeroes: -ENOTSUP rather than writing zero buffers */
    BLK_REQ_SERIALISING = 1 << 4,   /* wait for, and hold up, all overlapping requests */
    BLK_REQ_UNCHANGED   = 1 << 5,   /* a write that does not change what a reader sees */
    BLK_REQ_HIDE        = 1 << 7,   /* zeroes: stored here, so that they stay when the node gets another backing */
    BLK_REQ_COPY_ON_READ = 1 << 6,  /* a read that also stores what came from the backing */
} BlkReqFlags;

/* With BLK_REQ_COMPRESSED the flags also say how: 0 is the format's choice of level, and as many threads as there are. */
#define BLK_MAX_COMPRESSION_LEVEL 22
#define BLK_MAX_COMPRESSION_THREADS 255
static inline unsigned blk_req_compression(unsigned level, unsigned threads)
{
    return level << 16 | threads << 24;
}
static inline unsigned blk_req_level(unsigned flags)
{
    return flags >> 16 & 255;
}
static inline unsigned blk_req_threads(unsigned flags)
{
    return flags >> 24;
}
/* Does the format of @node, through filters, compress at this level (0: always)? -EINVAL: it does not. */
int blk_check_compression_level(BlkNode *node, unsigned level, GError **error);

#define BLK_MAX_LENGTH  ((uint64_t)INT64_MAX & ~(uint64_t)511)  /* of a node, bytes */
#define BLK_MAX_REQUEST ((uint64_t)1 << 30)                     /* of a read or write, bytes */

/**
 * blk_co_pread: blk_co_pwrite: blk_co_preadv: blk_co_pwritev:
 * @offset: bytes from the start of the node; any alignment
 * @bytes: 0..BLK_MAX_REQUEST
 * @buf: at least @bytes; after a failed read unspecified
 *
 * All of @bytes or an error: there are no short reads or writes.
 * Context: coroutine in the node's context; may yield.
 * Returns: 0; -EINVAL if the range leaves the node; -EPERM for a write to a read-only node; others from below.
 */
int blk_co_pread(BlkNode *node, uint64_t offset, uint64_t bytes, void *buf, unsigned flags);
int blk_co_pwrite(BlkNode *node, uint64_t offset, uint64_t bytes, const void *buf, unsigned flags);
int blk_co_preadv(BlkNode *node, uint64_t offset, uint64_t bytes, BlkIov iov, unsigned flags);
int blk_co_pwritev(BlkNode *node, uint64_t offset, uint64_t bytes, BlkIov iov, unsigned flags);

/* Any length up to the node's. Same context and errors; without BLK_REQ_NO_FALLBACK it always works. */
int blk_co_pwrite_zeroes(BlkNode *node, uint64_t offset, uint64_t bytes, unsigned flags);
/* A hint: what is not aligned to the driver's unit may stay. */
int blk_co_discard(BlkNode *node, uint64_t offset, uint64_t bytes);
/* When it returns 0, every write that had returned before the call is stable. */
int blk_co_flush(BlkNode *node);
/* Was the node changed since the last flush that succeeded began? */
bool blk_node_needs_flush(const BlkNode *node);

typedef enum BlkPrealloc { BLK_PREALLOC_OFF, BLK_PREALLOC_METADATA, BLK_PREALLOC_FALLOC, BLK_PREALLOC_FULL } BlkPrealloc;
/* Changes the length. New space reads as zeroes. */
int blk_co_truncate(BlkNode *node, uint64_t length, BlkPrealloc prealloc, GError **error);

typedef enum BlkStatusFlags {
    BLK_STATUS_DATA       = 1 << 0,   /* must be read to be known */
    BLK_STATUS_ZERO       = 1 << 1,   /* reads as zeroes */
    BLK_STATUS_ALLOCATED  = 1 << 2,   /* this node decides the content, not its backing */
    BLK_STATUS_OFFSET     = 1 << 3,   /* @file and @host_offset say where the plain bytes lie */
    BLK_STATUS_COMPRESSED = 1 << 4,
    BLK_STATUS_EOF        = 1 << 5,   /* the range ends at the end of the node */
} BlkStatusFlags;

typedef struct BlkStatus {
    uint64_t bytes;         /* length of the range that the answer holds for, from the offset asked */
    unsigned flags;
    unsigned depth;         /* blk_co_block_status_above(): how many backing steps below the first node; 0 = there */
    BlkNode *file;          /* (transfer none) */
    uint64_t host_offset;
} BlkStatus;

/* What lies at @offset, as far as one answer holds and at most @bytes. Neither DATA nor ZERO nor ALLOCATED: ask the
 * backing. */
int blk_co_block_status(BlkNode *node, uint64_t offset, uint64_t bytes, BlkStatus *status);
/* The same through the backing chain, down to but not including @base (NULL: the whole chain). */
int blk_co_block_status_above(BlkNode *node, BlkNode *base, uint64_t offset, uint64_t bytes, BlkStatus *status);
/* The same through the whole chain; and data whose place, @file and @host_offset, is a hole of that file, or past its end, has
 * ZERO, too. Who only wants to know what has to be read saves a question. */
int blk_co_block_status_with_holes(BlkNode *node, uint64_t offset, uint64_t bytes, BlkStatus *status);

/* ---- limits ---- */

typedef struct BlkLimits {
    uint32_t read_align, write_align;   /* bytes, powers of two, at least 1 */
    uint32_t max_transfer;              /* bytes, 0 = none */
    uint32_t mem_align;                 /* of buffers, bytes */
    uint32_t zeroes_align;              /* zeroes of this unit are cheap; 0 = none are */
    uint32_t discard_align;             /* 0 = no discard */
    uint32_t cluster_size;              /* unit of allocation, 0 = none */
    uint32_t subcluster_size;           /* unit of mapping: a part of a cluster, or all of it; 0 = none */
} BlkLimits;
const BlkLimits *blk_node_limits(const BlkNode *node);

/* A buffer that suits O_DIRECT on @node (NULL: on any); free with blk_buffer_free(). NULL when memory is short. */
void *blk_buffer_try_alloc(const BlkNode *node, size_t bytes);
void blk_buffer_free(void *buffer);

/* ---- dirty bitmaps: which parts of a node were written to ---- */

typedef struct BlkDirtyBitmap BlkDirtyBitmap;

#define BLK_BITMAP_MIN_GRANULARITY UINT64_C(512)                /* bytes; granularities are powers of two */
#define BLK_BITMAP_MAX_GRANULARITY (UINT64_C(1) << 31)
#define BLK_BITMAP_MAX_NAME        1023                         /* bytes */
#define BLK_BITMAP_MAX_BITS        (UINT64_C(1) << 32)

/**
 * blk_bitmap_add:
 * @name: (nullable): 1..BLK_BITMAP_MAX_NAME bytes, unlike those of the node's other bitmaps; NULL: nobody can find it
 * @granularity: bytes that one bit stands for; 0: blk_bitmap_default_granularity()
 * @persistent: kept in the image, which must be able to, when the node is closed or by blk_co_bitmaps_store()
 *
 * Every write, zero write and discard that @node takes sets bits, before it returns and also if it fails, until the
 * bitmap is disabled. It follows the node's length: new space is clean. It lives until it is removed or the node closed.
 * Returns: (transfer none): NULL with @error set: -EINVAL, -EEXIST, -EFBIG (more than BLK_BITMAP_MAX_BITS), -ENOTSUP.
 */
BlkDirtyBitmap *blk_bitmap_add(BlkNode *node, const char *name, uint64_t granularity, bool persistent, GError **error);
/* Also a persistent one that cannot be used; the image loses it when the node is closed or by blk_co_bitmaps_store(). Call
 * blk_co_bitmap_touch() first if writes to the node may come before that. */
void blk_bitmap_remove(BlkDirtyBitmap *bitmap);
uint64_t blk_bitmap_default_granularity(const BlkNode *node);
BlkDirtyBitmap *blk_bitmap_nth(const BlkNode *node, unsigned index);        /* (transfer none): NULL ends the list */
BlkDirtyBitmap *blk_bitmap_find(const BlkNode *node, const char *name);     /* (transfer none) (nullable) */
/* The same with a message; one that cannot be read is refused: see blk_bitmap_check(). */
BlkDirtyBitmap *blk_bitmap_find_usable(const BlkNode *node, const char *name, GError **error);
/* Can images of the node's format keep bitmaps, and this one too? */
bool blk_node_stores_bitmaps(const BlkNode *node);
/* Has it any, whether they record or not? Then what changes the disk without a write must be refused. */
bool blk_node_has_bitmaps(const BlkNode *node);

/* One that something else is to use. */
typedef struct BlkBitmapRef {
    BlkNode *node;          /* (nullable): whose it is; NULL: of the node in question, or of its backing chain */
    const char *name;
} BlkBitmapRef;

const char *blk_bitmap_name(const BlkDirtyBitmap *bitmap);          /* (nullable) */
uint64_t blk_bitmap_granularity(const BlkDirtyBitmap *bitmap);      /* bytes */
bool blk_bitmap_persistent(const BlkDirtyBitmap *bitmap);
bool blk_bitmap_enabled(const BlkDirtyBitmap *bitmap);
/* A program did not store it when it closed the image, or the image is damaged: nothing can be done but to remove it. */
bool blk_bitmap_inconsistent(const BlkDirtyBitmap *bitmap);
void blk_bitmap_enable(BlkDirtyBitmap *bitmap, bool enable);        /* usable ones only */


typedef enum BlkBitmapUse {
    BLK_BITMAP_READ,        /* the bits; also to let it record, or not */
    BLK_BITMAP_CHANGE,      /* the bits */
    BLK_BITMAP_REMOVE,      /* also one that is inconsistent */
} BlkBitmapUse;
/* May it be used so? 0; -EBUSY: somebody has claimed it; -EROFS: the image that keeps it is read-only; -EINVAL:
 * inconsistent. */
int blk_bitmap_check(const BlkDirtyBitmap *bitmap, BlkBitmapUse use, GError **error);
/* For a user who needs it for some time, alone: a job, an export. It stays until it is released; only recording goes on.
 * Errors as above. */
int blk_bitmap_claim(BlkDirtyBitmap *bitmap, BlkBitmapUse use, GError **error);
void blk_bitmap_release(BlkDirtyBitmap *bitmap);
bool blk_bitmap_busy(const BlkDirtyBitmap *bitmap);

/**
 * blk_co_bitmap_load:
 *
 * Reads the bits of a persistent bitmap from the image, if nobody did before: the functions below need them.
 * Context: coroutine; may yield. Returns: 0; -EINVAL if it cannot be used; others from below.
 */
int blk_co_bitmap_load(BlkDirtyBitmap *bitmap, GError **error);
void blk_bitmap_set(BlkDirtyBitmap *bitmap, uint64_t offset, uint64_t bytes);      /* all granules of the range */
void blk_bitmap_clear(BlkDirtyBitmap *bitmap, uint64_t offset, uint64_t bytes);    /* all granules of the range */
bool blk_bitmap_get(const BlkDirtyBitmap *bitmap, uint64_t offset);
uint64_t blk_bitmap_dirty_bytes(const BlkDirtyBitmap *bitmap);
/* The first dirty range at or behind @offset; false: there is none. */
bool blk_bitmap_next(const BlkDirtyBitmap *bitmap, uint64_t offset, uint64_t *start, uint64_t *bytes);
/* Adds what is dirty in @source, of any node of the same length. May yield: loads both. */
int blk_co_bitmap_merge(BlkDirtyBitmap *bitmap, BlkDirtyBitmap *source, GError **error);

/**
 * blk_co_bitmap_touch:
 *
 * To be called before bits or properties of a persistent bitmap are changed otherwise than by writes to its node, and
 * before it is removed, in an image that goes on being used: so that after a crash nobody trusts what the image has of it.
 * Loads it, too, unless it is inconsistent. Context: coroutine; may yield. Returns: 0; others from below.
 */
int blk_co_bitmap_touch(BlkDirtyBitmap *bitmap, GError **error);

/* A copy of a loaded bitmap at the same node: without a name, not persistent, disabled. (transfer none) */
BlkDirtyBitmap *blk_bitmap_copy(const BlkDirtyBitmap *bitmap);
/* The bits become those of @copy, which is removed. */
void blk_bitmap_restore(BlkDirtyBitmap *bitmap, BlkDirtyBitmap *copy);

/**
 * blk_bitmap_split: blk_bitmap_join:
 * @bitmap: claimed and loaded
 *
 * For a job that does something about what is dirty, as a backup does. Split returns a copy of what is dirty now, whose bits the
 * job may clear; it is done while the node is drained. Join ends the job: dirty is what has been written since
 * then (if the bitmap records), and what is dirty still in @rest, the copy, which is removed. Until then all is dirty in
 * @bitmap that was or has become so, also if the program crashes.
 */
BlkDirtyBitmap *blk_bitmap_split(BlkDirtyBitmap *bitmap);
void blk_bitmap_join(BlkDirtyBitmap *bitmap, BlkDirtyBitmap *rest);

/* Makes the image agree with its persistent bitmaps: all is stable when it returns 0. May yield. */
int blk_co_bitmaps_store(BlkNode *node, GError **error);

/* ---- images ---- */

typedef struct BlkInfo {
    uint64_t allocated_bytes;       /* on the host; meaningful if has_allocated */
    bool has_allocated;
    uint32_t cluster_size;          /* 0 = none */
    uint64_t vm_state_offset;       /* where the state of a virtual machine would begin; 0: the format has none */
    bool encrypted, corrupt, dirty;
    char *backing_filename;         /* (nullable): as stored in the image */
    char *backing_format;           /* (nullable) */
    char *full_backing_filename;    /* (nullable): resolved */
    JsonArray *snapshots;           /* (nullable) */
    JsonObject *specific;           /* (nullable): data of the format, keys as the peer's */
} BlkInfo;
int blk_co_info(BlkNode *node, BlkInfo *info, GError **error);
void blk_info_clear(BlkInfo *info);

/* ---- internal snapshots ---- */

typedef struct BlkSnapshot {
    char *id, *name;                /* valid UTF-8 */
    uint64_t disk_size;             /* bytes */
    uint64_t vm_state_size;         /* bytes; 0: of the disk only */
    uint64_t vm_clock_nsec;
    uint32_t date_sec, date_nsec;   /* since 1970, UTC */
    uint64_t icount;                /* instructions that the machine had executed; meaningful if has_icount */
    bool has_icount;
} BlkSnapshot;
void blk_snapshot_clear(BlkSnapshot *snapshot);

/* Which snapshot: the first one that has all that is not NULL. An empty key finds none. */
typedef struct BlkSnapshotKey {
    const char *id, *name;
    const char *id_or_name;         /* its id; if no snapshot has this id: its name */
} BlkSnapshotKey;

/* (out) *snapshots: (transfer full): array of BlkSnapshot in the image's order, with g_array_unref(); empty also if the
 * format has no snapshots. */
int blk_co_snapshot_list(BlkNode *node, GArray **snapshots, GError **error);

/**
 * blk_co_snapshot_create: blk_co_snapshot_apply: blk_co_snapshot_delete:
 * @node: the image, or a filter above it
 * @name: of the new snapshot; need not be unique, may be empty, at most 255 bytes
 *
 * Keeps what the disk holds now; makes the disk what it was then, its length included; forgets a snapshot. Requests to the
 * image wait meanwhile. Buffered writes are part of the snapshot, and are stable when it is made.
 * The user needs BLK_PERM_WRITE, to apply also BLK_PERM_RESIZE.
 * Context: coroutine with no request of its own in flight at @node; may yield.
 * Returns: 0; -ENOENT: no such snapshot; -ENOTSUP: not this format, or not this image; -EROFS, -EPERM: it may not be
 * changed; -ERANGE: reference counts are too narrow; others from below. After an error the image is as it was, unless the
 * message says otherwise.
 */
int blk_co_snapshot_create(BlkNode *node, const char *name, GError **error);
int blk_co_snapshot_apply(BlkNode *node, const BlkSnapshotKey *key, GError **error);
int blk_co_snapshot_delete(BlkNode *node, const BlkSnapshotKey *key, GError **error);

/* From now on the read-only node shows the snapshot instead of the disk; its length may change. Errors as above, and
 * -EINVAL if the node is not read-only. */
int blk_co_snapshot_load(BlkNode *node, const BlkSnapshotKey *key, GError **error);

typedef struct BlkCheckOptions {
    bool fix_leaks, fix_errors, data;       /* @data: decode every compressed cluster */
    void (*message)(const char *text, void *opaque);      /* (nullable): one line about one finding */
    void (*progress)(double fraction, void *opaque);      /* (nullable) */
    void *opaque;
} BlkCheckOptions;
typedef struct BlkCheckResult {
    uint64_t corruptions, leaks, check_errors;
    uint64_t corruptions_fixed, leaks_fixed;
    uint64_t data_errors;                   /* compressed clusters that do not decode; also in corruptions */
    uint64_t total_clusters, allocated_clusters, fragmented_clusters, compressed_clusters;
    uint64_t image_end_offset;
} BlkCheckResult;
/* Returns: 0 when the check ran to its end, whatever it found; -ENOTSUP if the format has no check. */
int blk_co_check(BlkNode *node, const BlkCheckOptions *options, BlkCheckResult *result, GError **error);

typedef struct BlkCompactOptions {
    bool no_compress;           /* only move what there is */
    void (*progress)(double fraction, void *opaque);      /* (nullable) */
    void *opaque;
} BlkCompactOptions;
/**
 * blk_co_compact:
 *
 * Makes the image about as small as a compressed copy of its content would be, in place: compresses what is not, moves all
 * down in the file, cuts off the rest. What other nodes and users send meanwhile waits. A crash or a failure leaves an image
 * with the same content; the next call goes on from there. What was written before is stable when it has succeeded.
 * Context: coroutine; may yield. Returns: 0; -ENOTSUP if the format cannot; -EROFS; -EIO if the image is damaged.
 */
int blk_co_compact(BlkNode *node, const BlkCompactOptions *options, GError **error);

typedef struct BlkAmendOptions {
    JsonObject *options;                    /* keys of the format's table: "compat", "size", ... */
    void (*progress)(double fraction, void *opaque);      /* (nullable) */
    void *opaque;
} BlkAmendOptions;
/**
 * blk_co_amend:
 *
 * Changes properties of an image that a user with BLK_PERM_WRITE and BLK_PERM_RESIZE has; nothing is in flight meanwhile.
 * What is refused changes nothing. Other errors leave a whole image, of which some properties may have changed.
 * Context: coroutine, not within a request; may yield. Returns: 0; -EINVAL, -ENOTSUP for what cannot be; others from below.
 */
int blk_co_amend(BlkNode *node, const BlkAmendOptions *options, GError **error);

/**
 * blk_co_change_backing:
 * @filename: (nullable): as the image is to name its backing file; NULL: none
 * @format: (nullable): its format; only without @filename NULL
 *
 * Changes what the image says, not what is open: the new backing file is read from the next open on. Neither looks at the
 * file nor compares contents. Permission, context and errors as of blk_co_amend(); BLK_PERM_WRITE_UNCHANGED is enough, for a
 * user who knows that the disk reads the same.
 */
int blk_co_change_backing(BlkNode *node, const char *filename, const char *format, GError **error);

/**
 * blk_co_make_empty:
 *
 * Drops all that the image holds itself, so that it reads like its backing, or as zeroes without one. Internal snapshots
 * stay. An error, or a crash, leaves part of it. Permission, context and errors as of blk_co_amend().
 */
int blk_co_make_empty(BlkNode *node, GError **error);

/* Creates an image file. @format_options: keys of the format's creation table ("size", "cluster_size", ...). After a
 * failure a file that was made is gone; one that was there is as it was, or empty. */
int blk_co_create(BlkContext *ctx, const char *filename, const char *format, JsonObject *format_options, GError **error);

/**
 * blk_co_create_in:
 * @file: an open node that can be written and that nobody uses
 *
 * The same in a node: what it held before goes. What the format refuses, and a node in use (-EPERM), leave it as it was;
 * after another failure it is empty. Context: coroutine; may yield.
 */
int blk_co_create_in(BlkNode *file, const char *format, JsonObject *format_options, GError **error);

typedef struct BlkMeasure {
    uint64_t required;              /* bytes of the file when it holds what the source has, and no more */
    uint64_t fully_allocated;       /* ... and when all of the disk was written to */
    bool has_bitmaps;               /* the source can have persistent bitmaps, and the new image too */
    uint64_t bitmaps;               /* bytes that they add */
} BlkMeasure;
/**
 * blk_co_measure:
 * @format_options: as for blk_co_create(); "size" is that of @source, if there is one
 * @source: (nullable): what will be copied into the image; without one it will be empty
 *
 * Says how long the file of a new image will be. Compression makes it shorter. Context: coroutine; may yield.
 */
int blk_co_measure(BlkContext *ctx, const char *format, JsonObject *format_options, BlkNode *source, BlkMeasure *measure,
                   GError **error);

/* Drivers. NULL ends no list: index 0.. until NULL is returned. */
const BlkDriver *blk_driver_nth(BlkContext *ctx, unsigned index);
const BlkDriver *blk_driver_find(BlkContext *ctx, const char *name);      /* also by alias */

/* ---- debugging points (need a fault filter in the stack) ---- */

int blk_breakpoint_set(BlkNode *node, const char *event, const char *tag, GError **error);
int blk_breakpoint_resume(BlkNode *node, const char *tag);      /* -ENOENT: nobody is suspended there */
int blk_breakpoint_remove(BlkNode *node, const char *tag);      /* and resumes */
bool blk_breakpoint_is_suspended(BlkNode *node, const char *tag);

/* Puts @text into the record of the first log-writes filter at or below @node. Context: coroutine; may yield.
 * Returns: 0; -ENOTSUP: there is none; -EINVAL: too long; others from below. */
int blk_co_mark(BlkNode *node, const char *text, GError **error);

G_END_DECLS

#endif
