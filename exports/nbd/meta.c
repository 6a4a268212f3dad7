/* SPDX-License-Identifier: MIT */
/*
 * meta.c - names of metadata contexts.
 */
#include "exports/nbd/meta.h"

#include <blkstack/nbd.h>

G_STATIC_ASSERT(NBD_MAX_CONTEXTS <= 8 * sizeof(NbdContexts));

NbdContexts blk_nbd_contexts_of(const BlkExport *export, bool allocation_depth)
{
    NbdContexts bitmaps = (NbdContexts)((UINT64_C(1) << export->bitmaps->len) - 1) << NBD_CONTEXT_BITMAPS;

    return 1 << NBD_CONTEXT_ALLOCATION | (allocation_depth ? 1 << NBD_CONTEXT_DEPTH : 0) | bitmaps;
}

char *blk_nbd_context_name(const BlkExport *export, unsigned context)
{
    switch (context) {
    case NBD_CONTEXT_ALLOCATION:
        return g_strdup("base:allocation");
    case NBD_CONTEXT_DEPTH:
        return g_strdup("qemu:allocation-depth");
    default:
        return g_strconcat("qemu:dirty-bitmap:",
                           g_array_index(export->bitmaps, BlkExportBitmap, context - NBD_CONTEXT_BITMAPS).name, NULL);
    }
}

/* `base:` stands for all of its namespace, `qemu:dirty-bitmap:` for all bitmaps. */
static bool is_wildcard_for(NbdString query, const char *name)
{
    return (blk_nbd_string_is(query, "base:") || blk_nbd_string_is(query, "qemu:") ||
            blk_nbd_string_is(query, "qemu:dirty-bitmap:")) && strncmp(name, query.text, query.length) == 0;
}

NbdContexts blk_nbd_contexts_match(const BlkExport *export, NbdContexts available, NbdString query, bool wildcards)
{
    NbdContexts found = 0;

    for (unsigned i = 0; i < NBD_CONTEXT_BITMAPS + export->bitmaps->len; i++) {
        g_autofree char *name = blk_nbd_has_context(available, i) ? blk_nbd_context_name(export, i) : NULL;

        if (name && (blk_nbd_string_is(query, name) || (wildcards && is_wildcard_for(query, name)))) {
            found |= UINT32_C(1) << i;
        }
    }
    return found;
}
