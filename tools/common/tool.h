/* SPDX-License-Identifier: MIT */
/*
 * tool.h - what the command line tools share: messages, sizes and opening what the user named.
 */
#ifndef BLKSTACK_TOOLS_COMMON_TOOL_H
#define BLKSTACK_TOOLS_COMMON_TOOL_H

#include <blkstack/driver.h>
#include <getopt.h>

/* ---- messages: "PROG: text" on standard error ---- */

/* PROG is the last part of @argv0. Standard input, output and error that are closed stay so for whoever uses them, and become
 * no other file. To be called first of all. */
void tool_begin(const char *argv0);
/* A reader that goes away, and a file that reaches the limit of the process (ulimit -f), are EPIPE and EFBIG to who writes. */
void tool_turn_signals_into_errors(void);
/* To be called last of all. Returns: @status; if that is 0 and what was printed could not be written, @failure. Pipes whose
 * reader has gone, and an output that was closed from the start, are no failures. */
int tool_end(int status, int failure);
const char *tool_program(void);
void tool_error(const char *format, ...) G_GNUC_PRINTF(1, 2);
void tool_warning(const char *format, ...) G_GNUC_PRINTF(1, 2);

/* For blk_context_set_message_handler(). */
void tool_node_message(BlkNode *node, const char *text, void *unused);

/* The message of @error, and then frees it. */
void tool_report(GError *error);

/* ---- getopt_long() with a list of short options that begins with ':' ---- */

/* Says what was wrong with the last option, when getopt_long() returned @c, which is ':' or '?'. */
void tool_option_error(int c, char **argv);

/* "help" or "?". */
bool tool_is_help(const char *word);

/* What -T, --trace says: taken for scripts that have it. Returns: whether it asked for help, which was printed. */
bool tool_take_trace(const char *text);

/* ---- sizes ---- */

/**
 * tool_parse_size:
 * @text: "4096", "64k", "1.5M", "0x200"
 * @bytes: (out): 0..INT64_MAX; unchanged after an error
 *
 * Returns: 0; -EINVAL if it is no size; -ERANGE if it is too large.
 */
int tool_parse_size(const char *text, uint64_t *bytes);

/* "64 KiB": three significant digits, a power of 1024. (transfer full) */
char *tool_size_text(uint64_t bytes);

/* A name that an image chose, for a terminal: control characters become question marks. (transfer full) */
char *tool_printable(const char *name);

/* Appends @node over several lines, 4 spaces a level; what is no ASCII as \u escapes. */
void tool_json_pretty(GString *out, JsonNode *node);

/* "name: value" lines on standard output, @depth steps of indentation deep. */
void tool_print_members(JsonObject *object, unsigned depth);

/* ---- objects ---- */

/**
 * tool_add_object:
 * @text: what --object says: TYPE,id=ID,key=value,... or JSON; "help" and "TYPE,help" print what there is
 *
 * Returns: 0: the object is made; 1: help was printed, nothing else is to be done; -1: refused, which was reported.
 */
int tool_add_object(BlkContext *ctx, const char *text);
/* Prints the help that @text asks for. Returns: whether it did. */
bool tool_print_object_help(const char *text);
/* The same for several (const char *), until one is not made. */
int tool_add_objects(BlkContext *ctx, const GPtrArray *texts);

/* ---- opening ---- */

typedef struct ToolCache {
    bool direct, no_flush;
    bool writethrough;      /* the tool writes with BLK_REQ_FUA */
} ToolCache;

/* "none", "off", "writeback", "writethrough", "directsync" or "unsafe". false: none of them; *cache is unchanged. */
bool tool_parse_cache(const char *mode, ToolCache *cache);

typedef struct ToolOpen {
    const char *name;       /* file name, URL, json:{...}; options if image_opts */
    const char *format;     /* (nullable): driver; NULL: detected. Not together with image_opts */
    bool image_opts;        /* name is `key=value,...` or a JSON object */
    bool writable;
    bool resizable;         /* writes may go past the end */
    bool force_share;       /* -U */
    bool metadata_only;     /* no backing and no data files: for information about one image */
    bool check_only;        /* only to be checked: damaged tables are no reason not to open it */
    bool unmap;             /* discard=unmap */
    ToolCache cache;
    JsonObject *options;    /* (nullable): further members for the tree; they replace those that are in it already */
} ToolOpen;

/**
 * tool_open_options:
 *
 * Returns: (transfer full): the tree for blk_co_open(); NULL with @error set.
 */
JsonObject *tool_open_options(BlkContext *ctx, const ToolOpen *open, GError **error);

/* For an image whose format nobody named, and that was found to be raw. */
void tool_warn_if_guessed_raw(JsonObject *tree, BlkNode *node);

/* Opens a node. A message begins with "Could not open 'NAME': ". Context: coroutine; may yield. Returns: (transfer full): to
 * be given back with blk_co_unref(); NULL with @error set. */
BlkNode *tool_co_open_node(BlkContext *ctx, const ToolOpen *open, GError **error);

/* The same, and makes the tool its user, who lets everybody else do everything; to be given back with tool_co_close(). */
BlkChild *tool_co_open(BlkContext *ctx, const ToolOpen *open, GError **error);

/* Ends the use (NULL is ignored), after a flush if anything was written, which reports what could not be stored. Returns: 0;
 * the error of the flush, which was printed. May yield. */
int tool_co_close(BlkChild *user);

/* ---- internal snapshots ---- */

/* Which one, as -l says. Zeroed: none. */
typedef struct ToolSnapshotParam {
    bool given;
    BlkSnapshotKey key;
    BlkOptions *options;        /* (nullable): what key points into */
} ToolSnapshotParam;

/* @text: ID_OR_NAME, or snapshot.id=ID,snapshot.name=NAME; lives as long as @param. Reports errors. */
bool tool_parse_snapshot_param(ToolSnapshotParam *param, const char *text);
void tool_snapshot_param_clear(ToolSnapshotParam *param);
/* Lets the node show the snapshot; does nothing if @param asks for none. */
int tool_co_load_snapshot(BlkNode *node, const ToolSnapshotParam *param, GError **error);

/* ---- temporary overlays ---- */

/* @info: of @node. (transfer full) */
JsonObject *tool_image_to_json(BlkNode *node, const BlkInfo *info);

/**
 * tool_co_make_overlay:
 * @base: the tree of an image, which becomes read-only in it
 * @path: (out): an empty qcow2 file below $TMPDIR, to be removed by the caller
 *
 * Returns: (transfer full): the tree of an image that stands on @base and takes the writes; NULL with @error set. May yield.
 */
JsonObject *tool_co_make_overlay(BlkContext *ctx, JsonObject *base, char **path, GError **error);

#endif
