/* SPDX-License-Identifier: MIT */
/*
 * tls_creds.h - objects that hold TLS credentials: certificates of a directory, or pre-shared keys.
 */
#ifndef BLKSTACK_CORE_TLS_CREDS_H
#define BLKSTACK_CORE_TLS_CREDS_H

#include "core/object.h"

extern const BlkObjectType blk_object_tls_creds_psk;
extern const BlkObjectType blk_object_tls_creds_x509;

typedef enum BlkTlsEndpoint { BLK_TLS_CLIENT, BLK_TLS_SERVER } BlkTlsEndpoint;

typedef struct BlkTlsKeys BlkTlsKeys;       /* loaded by the TLS library; see tls_keys.h */

typedef struct BlkTlsCreds {
    BlkTlsEndpoint endpoint;
    bool psk;               /* pre-shared keys in dir/keys.psk; false: certificates */
    bool verify_peer;       /* x509: the other side must have a certificate that the authority signed */
    bool check_dates;       /* x509: own certificates must be valid now */
    char *dir;
    char *username;         /* PSK, client */
    char *priority;         /* (nullable): GnuTLS priority string; NULL: the library's defaults */
    char *password;         /* (nullable): of the private key */
    BlkTlsKeys *keys;       /* loaded and checked */
} BlkTlsCreds;

/* An object of one of these types, for @endpoint; to be given back with blk_object_unuse(). NULL with @error set. */
BlkObject *blk_tls_creds_use(BlkContext *ctx, const char *id, BlkTlsEndpoint endpoint, GError **error);
static inline const BlkTlsCreds *blk_tls_creds(const BlkObject *object)
{
    return object->opaque;
}

/* The file @name of the credentials: (transfer full); it need not exist. */
char *blk_tls_creds_path(const BlkTlsCreds *creds, const char *name);

#endif
