/* SPDX-License-Identifier: MIT */
/*
 * tls_none.c - what takes the place of the files that use GnuTLS in a build without it: refusals.
 */
#include "core/secret.h"
#include "core/tls_channel.h"
#include "core/tls_keys.h"

#define WITHOUT "this program was built without GnuTLS"

BlkTlsKeys *blk_tls_keys_load(const BlkTlsCreds *creds, GError **error)
{
    blk_error(error, -ENOTSUP, "TLS is not available: " WITHOUT);
    return NULL;
}

void blk_tls_keys_free(BlkTlsKeys *keys)
{
}

int blk_secret_decrypt(GByteArray *data, const uint8_t *key, const uint8_t *iv, GError **error)
{
    return blk_error(error, -ENOTSUP, "Encrypted secrets are not available: " WITHOUT);
}

BlkChannel *blk_tls_channel_new(BlkChannel *plain, const BlkTlsCreds *creds, GError **error)
{
    blk_error(error, -ENOTSUP, "TLS is not available: " WITHOUT);
    return NULL;
}

int blk_tls_channel_co_handshake(BlkChannel *ch, const BlkObject *authz, uint64_t deadline_ns, GError **error)
{
    return blk_error(error, -ENOTSUP, "TLS is not available: " WITHOUT);
}
