/* SPDX-License-Identifier: MIT */
/*
 * library.h - libraries that are loaded when somebody needs them.
 *
 *     BlkLibrary --first blk_library_load()--> dlopen --> table of functions, read only from then on
 *
 * Some libraries bring dozens of others, which costs every program at its start, though few ever need them. Who uses one has a
 * table with a member for each function that it calls, and calls them through it: table.function(...).
 *
 * Limitations: a library that has been loaded stays until the program ends; one that failed is not tried again.
 */
#ifndef BLKSTACK_CORE_LIBRARY_H
#define BLKSTACK_CORE_LIBRARY_H

#include <glib.h>

/* A static variable, one for each library. */
typedef struct BlkLibrary {
    const char *needed_by;          /* begins the sentence of what went wrong: "TLS needs GnuTLS" */
    const char *const *files;       /* names of the library, tried in this order; ends with NULL */
    const char *const *names;       /* of the functions, in the order of the table; ends with NULL */
    void **table;                   /* of pointers to functions, which this fills */
    const char *(*start)(void);     /* (nullable): called when the table is filled; returns NULL, or why it failed */

    GOnce once;                     /* the library's own, as what follows */
    char *why;                      /* it failed; NULL: it did not */
} BlkLibrary;

/* Loads @library, once. Context: any thread; does not yield. Returns: 0: its table may be used, for ever; -ENOTSUP with an error
 * that says what is missing and what to install. */
int blk_library_load(BlkLibrary *library, GError **error);

#endif
