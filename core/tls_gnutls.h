/* SPDX-License-Identifier: MIT */
/*
 * tls_gnutls.h - what the files that use GnuTLS share. Not included where it may be missing.
 */
#ifndef BLKSTACK_CORE_TLS_GNUTLS_H
#define BLKSTACK_CORE_TLS_GNUTLS_H

#include "core/tls_keys.h"

#include <gnutls/gnutls.h>

/* One set for all sessions with these credentials. */
struct BlkTlsKeys {
    gnutls_priority_t priority;
    gnutls_certificate_credentials_t certificate;       /* NULL: PSK */
    gnutls_psk_server_credentials_t psk;                /* NULL: x509, or the client's side */
};

#endif
