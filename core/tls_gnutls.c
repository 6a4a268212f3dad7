/* SPDX-License-Identifier: MIT */
/*
 * tls_gnutls.c - loading GnuTLS when it is needed.
 */
#include "core/tls_gnutls.h"

#include "core/library.h"

static const char *const files[] = { "libgnutls.so.30", NULL };

#define F(name) "gnutls_" #name,
static const char *const names[] = { BLK_GNUTLS_FUNCTIONS(F) F(free) NULL };
#undef F

BlkGnutls blk_gnutls;

G_STATIC_ASSERT(sizeof(blk_gnutls) / sizeof(void *) == G_N_ELEMENTS(names) - 1);

static BlkLibrary library = {
    .needed_by = "TLS and encrypted secrets need GnuTLS",
    .files = files,
    .names = names,
    .table = (void **)&blk_gnutls,
    .once = G_ONCE_INIT,
};

int blk_gnutls_load(GError **error)
{
    return blk_library_load(&library, error);
}
