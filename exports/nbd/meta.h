/* SPDX-License-Identifier: MIT */
/*
 * meta.h - metadata contexts: what a client can ask about blocks, and which of it a connection has chosen.
 */
#ifndef BLKSTACK_EXPORTS_NBD_META_H
#define BLKSTACK_EXPORTS_NBD_META_H

#include "exports/export.h"
#include "exports/nbd/option.h"

#define NBD_MAX_CONTEXTS (BLK_NBD_MAX_BITMAPS + 2)

/* A set of contexts of one export: bit 0 base:allocation, 1 qemu:allocation-depth, 2 + n its dirty bitmap n. The
 * number of the bit is the context's number on the wire. */
typedef uint32_t NbdContexts;

enum { NBD_CONTEXT_ALLOCATION, NBD_CONTEXT_DEPTH, NBD_CONTEXT_BITMAPS };

static inline bool blk_nbd_has_context(NbdContexts set, unsigned context)
{
    return set >> context & 1;
}

/* All that an export has. */
NbdContexts blk_nbd_contexts_of(const BlkExport *export, bool allocation_depth);

/* Those of @available that a query finds. @wildcards: also by `base:`, `qemu:` and `qemu:dirty-bitmap:`, as in a
 * list. */
NbdContexts blk_nbd_contexts_match(const BlkExport *export, NbdContexts available, NbdString query, bool wildcards);

/* (transfer full) */
char *blk_nbd_context_name(const BlkExport *export, unsigned context);

#endif
