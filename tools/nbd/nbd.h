/* SPDX-License-Identifier: MIT */
/*
 * nbd.h - what the files of blkstack-nbd share.
 *
 *     main.c --> args.c                    what is to be done
 *            --> inherited.c               sockets that systemd handed over
 *            --> serve.c --> stack.c       the server, and the nodes that it serves
 *            --> list.c                    -L: another server
 */
#ifndef BLKSTACK_TOOLS_NBD_H
#define BLKSTACK_TOOLS_NBD_H

#include "common/process.h"
#include "exports/partition.h"

/* ---- args.c ---- */

typedef struct NbdArgs {
    ToolOpen open;                  /* the image; but for writable, which is !read_only */
    GPtrArray *objects;             /* const char *: --object */
    bool read_only, snapshot;
    ToolSnapshotParam load;         /* -l */
    const char *offset_text;        /* (nullable): -o */
    uint64_t offset;                /* bytes */
    const char *partition_text;     /* (nullable): -P */
    unsigned partition;             /* 1..BLK_MAX_PARTITIONS; 0: the whole image */
    const char *aio, *cache, *discard, *detect_zeroes;      /* (nullable): as given */
    bool nocache;
    bool compress;
    const char *compress_options;   /* (nullable): key=value,... of the filter */

    const char *name, *description; /* (nullable): -x, -D */
    GArray *bitmaps;                /* BlkBitmapRef: -B; one without a name behind the last */
    bool allocation_depth;

    const char *socket, *bind, *port;       /* (nullable) */
    const char *shared_text;        /* (nullable): -e */
    unsigned shared;                /* clients at once; 0: any number */
    bool persistent;
    const char *tls_creds, *tls_authz, *tls_hostname;       /* (nullable) */
    bool tls_required;

    bool list;                      /* -L: serve nothing */
    bool fork, verbose;
    const char *pid_file;           /* (nullable) */
    unsigned inherited;             /* sockets that systemd handed over, from descriptor 3 on */
} NbdArgs;

void nbd_args_init(NbdArgs *args);
void nbd_args_clear(NbdArgs *args);

/* Returns: 0: go on; 1: all is done; -1: wrong, which was reported. */
int nbd_parse_args(NbdArgs *args, int argc, char **argv);

/* ---- inherited.c ---- */

#define NBD_FIRST_INHERITED 3      /* file descriptor */

/* How many sockets the environment (LISTEN_FDS, LISTEN_PID) says are handed over to this process; it says so no more then. */
unsigned nbd_inherited_sockets(void);

/* Are they what they should be? Context: no other files were opened yet. */
int nbd_check_inherited(unsigned sockets, GError **error);

/* ---- list.c ---- */

/* Prints what the server, where the arguments would listen, offers. A coroutine's function. Returns: the exit status. */
int nbd_co_list(void *args);

/* ---- stack.c ---- */

typedef struct NbdStack {
    BlkNode *top;                   /* (nullable): what is served */
    char *overlay;                  /* (nullable): file that is removed at the end */
} NbdStack;

/* Opens the image and puts the layers that the arguments ask for above it. After an error nothing is open. May yield. */
int nbd_co_stack_open(NbdStack *stack, BlkContext *ctx, const NbdArgs *args, GError **error);
void nbd_co_stack_close(NbdStack *stack);

/* ---- serve.c ---- */

/* Serves until a signal comes or, without -t, until the last client has gone. Returns: the exit status. */
int nbd_serve(BlkContext *ctx, const NbdArgs *args, ToolProcess *process);

#endif
