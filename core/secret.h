/* SPDX-License-Identifier: MIT */
/*
 * secret.h - objects that hold passwords and keys.
 */
#ifndef BLKSTACK_CORE_SECRET_H
#define BLKSTACK_CORE_SECRET_H

#include "core/object.h"

extern const BlkObjectType blk_object_secret;

/* The secret as text, without NUL bytes and valid UTF-8: (transfer full), to be freed with blk_secret_wipe(). NULL with
 * @error set, also if the object is none or its bytes are no text. */
char *blk_secret_text(BlkContext *ctx, const char *id, GError **error);

/* Frees @text and leaves nothing of it in memory. NULL is ignored. */
void blk_secret_wipe(char *text);

#define BLK_SECRET_KEY_BYTES 32

/**
 * blk_secret_decrypt:
 * @data: (inout): encrypted by AES-256 in CBC mode, padded as PKCS #7 says; becomes the plain bytes
 * @key: BLK_SECRET_KEY_BYTES; @iv: 16 bytes
 *
 * Returns: 0; -EINVAL: wrong length or padding, so most likely a wrong key; -ENOTSUP: there is no
 * GnuTLS.
 */
int blk_secret_decrypt(GByteArray *data, const uint8_t *key, const uint8_t *iv, GError **error);

#endif
