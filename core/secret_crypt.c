/* SPDX-License-Identifier: MIT */
/*
 * secret_crypt.c - decrypts secrets that are encrypted with another one.
 */
#include "core/secret.h"
#include "core/tls_gnutls.h"

#define BLOCK_BYTES 16u

/* PKCS #7: the last byte says how many bytes are padding, all of the same value. */
static bool take_off_padding(GByteArray *data)
{
    unsigned padding = data->data[data->len - 1];

    if (padding == 0 || padding > BLOCK_BYTES) {
        return false;
    }
    for (unsigned i = 0; i < padding; i++) {
        if (data->data[data->len - 1 - i] != padding) {
            return false;
        }
    }
    g_byte_array_set_size(data, data->len - padding);
    return true;
}

int blk_secret_decrypt(GByteArray *data, const uint8_t *key, const uint8_t *iv, GError **error)
{
    gnutls_datum_t key_datum = { (unsigned char *)key, BLK_SECRET_KEY_BYTES };
    gnutls_datum_t iv_datum = { (unsigned char *)iv, BLOCK_BYTES };
    gnutls_cipher_hd_t cipher;
    int ret;

    if (data->len == 0 || data->len % BLOCK_BYTES != 0) {
        return blk_error(error, -EINVAL, "What is encrypted must have a multiple of %u bytes, not %u", BLOCK_BYTES,
                         data->len);
    }
    ret = blk_gnutls_load(error);
    if (ret < 0) {
        return ret;
    }
    ret = blk_gnutls.cipher_init(&cipher, GNUTLS_CIPHER_AES_256_CBC, &key_datum, &iv_datum);
    if (ret == 0) {
        ret = blk_gnutls.cipher_decrypt(cipher, data->data, data->len);
        blk_gnutls.cipher_deinit(cipher);
    }
    if (ret < 0) {
        return blk_error(error, -EINVAL, "Cannot decrypt: %s", blk_gnutls.strerror(ret));
    }
    return take_off_padding(data) ? 0 : blk_error(error, -EINVAL, "It is not encrypted with the key that 'keyid' names");
}
