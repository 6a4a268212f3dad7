/* SPDX-License-Identifier: MIT */
/*
 * tls_keys.h - credentials as the TLS library holds them.
 */
#ifndef BLKSTACK_CORE_TLS_KEYS_H
#define BLKSTACK_CORE_TLS_KEYS_H

#include "core/tls_creds.h"

/* Loads and checks the files that @creds name, which must outlive the keys. NULL with @error set; -ENOTSUP: built
 * without GnuTLS, or it is missing. */
BlkTlsKeys *blk_tls_keys_load(const BlkTlsCreds *creds, GError **error);
void blk_tls_keys_free(BlkTlsKeys *keys);       /* NULL is ignored */

#endif
