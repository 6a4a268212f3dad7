/* SPDX-License-Identifier: MIT */
/*
 * io.h - what the files of blkstack-io share.
 *
 * The whole tool is one coroutine that runs one command after the other; aio_* commands leave a coroutine of their own
 * behind. One file is open at a time.
 */
#ifndef BLKSTACK_TOOLS_IO_IO_H
#define BLKSTACK_TOOLS_IO_IO_H

#include "common/tool.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Longest read or write of one command, bytes: what fits a signed 32-bit number of 512-byte sectors. */
#define IO_MAX_BYTES ((uint64_t)INT32_MAX & ~(uint64_t)511)

typedef struct IoSession {
    BlkContext *ctx;
    bool image_opts;            /* `open` takes options instead of a file name */
    bool misalign;              /* spoil the alignment of buffers */

    JsonObject *tree;           /* what is open; NULL: nothing is */
    BlkChild *user;
    bool writethrough;
    char *snapshot_path;        /* (nullable): overlay to be removed */

    unsigned in_flight;         /* requests of aio_* commands */
    BlkCoQueue drained;         /* who waits for in_flight to become 0 */
    GHashTable *breakpoints;    /* tags that `break` has set and nobody has removed */

    bool quit;
    bool failed;                /* some command has */
} IoSession;

/* ---- session.c: opening and closing ---- */

typedef struct IoOpenFlags {
    bool read_only, snapshot, copy_on_read, force_share;
    ToolCache cache;
    bool keep_zeroed;           /* discard=ignore */
} IoOpenFlags;

/* -t MODE, -d MODE, -i MODE: false after a message. */
bool io_set_cache(IoOpenFlags *flags, const char *mode);
bool io_set_discard(IoOpenFlags *flags, const char *mode);
bool io_check_aio(const char *mode);

/**
 * io_co_open:
 * @name: (nullable): file name or, with session->image_opts, options
 * @format: (nullable)
 * @options: (nullable): further options, which win over those of @name
 *
 * Says itself what went wrong. Context: coroutine; may yield. Returns: 0 or a negative errno.
 */
int io_co_open(IoSession *session, const char *name, const char *format, JsonObject *options, const IoOpenFlags *flags);

/* Closes and opens again with changed @options; after a failure the old options are in force again. */
int io_co_reopen(IoSession *session, JsonObject *options, bool writethrough);

/* Lets suspended requests go on, waits for all and closes; without an open file it does nothing. */
void io_co_close(IoSession *session);

BlkNode *io_node(const IoSession *session);

/* Copies all members of @from into @into, "a.b" as {"a": {"b": }}; objects are merged, other values replaced. */
int io_tree_merge(JsonObject *into, JsonObject *from, GError **error);

/* ---- transfer.c: buffers and requests ---- */

typedef struct IoBuffer {
    void *allocated;
    uint8_t *data;
    size_t bytes;
} IoBuffer;

/* Says itself if memory is short. */
int io_buffer_init(IoBuffer *buffer, const IoSession *session, uint64_t bytes, int pattern);
/* Fills the buffer with the file's content, again and again. */
int io_buffer_fill_from_file(IoBuffer *buffer, const char *filename);
void io_buffer_clear(IoBuffer *buffer);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(IoBuffer, io_buffer_clear)

/* Any length up to IO_MAX_BYTES; -EIO if the range leaves the node. */
int io_co_read(const IoSession *session, uint64_t offset, uint64_t bytes, BlkIov iov);
int io_co_write(const IoSession *session, uint64_t offset, uint64_t bytes, BlkIov iov, unsigned flags);
int io_co_write_zeroes(const IoSession *session, uint64_t offset, uint64_t bytes, unsigned flags);
int io_co_discard(const IoSession *session, uint64_t offset, uint64_t bytes);

/* ---- report.c: words on standard output ---- */

/* "64 KiB", "1.178 MiB", "512 bytes". (transfer full) */
char *io_size_text(double bytes);
int64_t io_clock_ns(void);
void io_report(const char *verb, int64_t start_ns, uint64_t offset, uint64_t bytes, uint64_t done, bool machine);
void io_dump(const uint8_t *data, size_t bytes, uint64_t offset);

/* Each says itself what is wrong, and returns 0 or a negative errno. */
int io_parse_number(const char *text, uint64_t *number);
int io_parse_length(const char *text, uint64_t *bytes);
int io_parse_pattern(const char *text, int *pattern);
/* Compares @bytes at data + @skip with the pattern. */
int io_verify(const uint8_t *data, int pattern, uint64_t skip, uint64_t bytes, uint64_t offset);

/* ---- commands ---- */

typedef struct IoCommand {
    const char *name;
    const char *alias;          /* (nullable) */
    int min_args, max_args;     /* max_args -1: any number */
    bool needs_file, writes;
    const char *args;           /* (nullable) */
    const char *summary;
    const char *help;           /* (nullable) */
    /* 0 or a negative errno after a message. argv[0] is the name. */
    int (*co_run)(IoSession *session, const struct IoCommand *self, int argc, char **argv);
} IoCommand;

/* Usage on standard output. Returns: -EINVAL. */
int io_usage(const IoCommand *command);

/* What the options of a command that moves data say. */
typedef struct IoOptions {
    bool machine, quiet, dump, vm_state, zeroes, invalid;
    unsigned flags;             /* BlkReqFlags */
    int pattern;                /* -1: none */
    const char *source;         /* -s, (nullable): a file, or where in the buffer to begin */
    const char *length;         /* -l, (nullable) */
} IoOptions;

/* Reads options of a command that takes those in @letters, of getopt(); optind is behind them. Returns: 0 or -EINVAL. */
int io_parse_options(const IoCommand *command, const char *letters, int argc, char **argv, IoOptions *options);

int io_co_run_line(IoSession *session, const char *line);

/* Tables end with a NULL name. */
extern const IoCommand io_sync_commands[];      /* cmd_sync.c */
extern const IoCommand io_aio_commands[];       /* cmd_aio.c */
extern const IoCommand io_image_commands[];     /* cmd_image.c */
extern const IoCommand io_file_commands[];      /* cmd_file.c */
extern const IoCommand io_debug_commands[];     /* cmd_debug.c */
extern const IoCommand io_shell_commands[];     /* command.c */

/* Waits until no request of an aio_* command is in flight; with @give_up it stops and says so when one is suspended. */
int io_co_wait_for_aio(IoSession *session, bool give_up);
/* A tag of a breakpoint that holds a request; NULL: none. (transfer none) */
const char *io_suspended_tag(const IoSession *session);

#endif
