/* SPDX-License-Identifier: MIT */
/*
 * libnbd.c - loading libnbd when it is needed.
 */
#include "drivers/nbd/libnbd.h"

#include "core/library.h"

static const char *const files[] = { "libnbd.so.0", NULL };

#define F(name) "nbd_" #name,
static const char *const names[] = { NBD_LIBNBD_FUNCTIONS(F) NULL };
#undef F

NbdLibnbd libnbd;

G_STATIC_ASSERT(sizeof(libnbd) / sizeof(void *) == G_N_ELEMENTS(names) - 1);

static BlkLibrary library = {
    .needed_by = "Disks on NBD servers need libnbd",
    .files = files,
    .names = names,
    .table = (void **)&libnbd,
    .once = G_ONCE_INIT,
};

int nbd_libnbd_load(GError **error)
{
    return blk_library_load(&library, error);
}
