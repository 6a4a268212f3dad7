/* SPDX-License-Identifier: MIT */
/*
 * secret.c - the object type `secret`: a password or key, from the options or from a file, plain or in base64.
 *
 * With `keyid` what is given is encrypted by the secret of that id, a key of 32 bytes, so that a command line, which
 * others can see, holds nothing that is worth anything alone.
 *
 * Limitation: what JSON and the command line themselves hold of a secret is not wiped.
 */
#include "core/secret.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define MAX_BYTES   (1024 * 1024)
#define IV_BYTES    16

typedef struct Secret {
    GByteArray *bytes;
} Secret;

static const char *const formats[] = { "raw", "base64", NULL };

static const BlkOption secret_options[] = {
    { "data", BLK_OPTION_STRING, "the secret itself" },
    { "file", BLK_OPTION_STRING, "file that holds the secret and nothing else" },
    { "format", BLK_OPTION_ENUM, "how it is written down", "raw", formats },
    { "keyid", BLK_OPTION_STRING, "id of the secret, of 32 bytes, that this one is encrypted with (AES-256-CBC)" },
    { "iv", BLK_OPTION_STRING, "initialisation vector of the encryption, 16 bytes in base64" },
    { NULL },
};

static void wipe(GByteArray *bytes)
{
    if (bytes) {
        explicit_bzero(bytes->data, bytes->len);
        g_byte_array_unref(bytes);
    }
}

void blk_secret_wipe(char *text)
{
    if (text) {
        explicit_bzero(text, strlen(text));
        g_free(text);
    }
}

/* Appends what @fd holds to @bytes. */
static int read_all(int fd, GByteArray *bytes)
{
    uint8_t buf[4096];
    ssize_t n;
    int ret = 0;

    do {
        n = TEMP_FAILURE_RETRY(read(fd, buf, sizeof(buf)));
        if (n > 0) {
            g_byte_array_append(bytes, buf, n);
        }
    } while (n > 0 && bytes->len <= MAX_BYTES);
    if (n < 0) {
        ret = -errno;
    }
    explicit_bzero(buf, sizeof(buf));
    return bytes->len > MAX_BYTES ? -EFBIG : ret;
}

static int read_file(const char *name, GByteArray *bytes, GError **error)
{
    int fd = open(name, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    int ret = fd < 0 ? -errno : read_all(fd, bytes);

    if (fd >= 0) {
        close(fd);
    }
    return ret < 0 ? blk_error_errno(error, ret, "Unable to read %s", name) : 0;
}

/* Only the alphabet, the padding and white space, in whole groups. */
static bool base64_is_valid(const char *text, size_t length)
{
    size_t letters = 0, padding = 0;

    for (size_t i = 0; i < length; i++) {
        if (g_ascii_isspace(text[i])) {
            continue;
        }
        padding += text[i] == '=';
        letters++;
        if (text[i] == '=' ? padding > 2 : padding > 0 || !(g_ascii_isalnum(text[i]) || strchr("+/", text[i]))) {
            return false;
        }
    }
    return letters % 4 == 0;
}

static int decode_base64(GByteArray *bytes, GError **error)
{
    gsize length = 0;

    if (memchr(bytes->data, '\0', bytes->len) || !base64_is_valid((const char *)bytes->data, bytes->len)) {
        return blk_error(error, -EINVAL, "Base64 data contains invalid characters");
    }
    g_byte_array_append(bytes, (const guint8 *)"", 1);
    g_base64_decode_inplace((char *)bytes->data, &length);
    g_byte_array_set_size(bytes, length);
    return 0;
}

/* ---- finding one, encrypted by another one ---- */

/* To be given back with blk_object_unuse(). */
static BlkObject *use_secret(BlkContext *ctx, const char *id, GError **error)
{
    BlkObject *object = blk_object_use(ctx, id, error);

    if (object && object->type != &blk_object_secret) {
        blk_error(error, -EINVAL, "The object '%s' is no secret but of the type %s", id, object->type->name);
        blk_object_unuse(object);
        return NULL;
    }
    return object;
}

static int decrypt_with(const GByteArray *key, const char *iv_text, GByteArray *bytes, GError **error)
{
    g_autoptr(GByteArray) iv = g_byte_array_sized_new(IV_BYTES + 1);
    int ret;

    g_byte_array_append(iv, (const guint8 *)iv_text, strlen(iv_text));
    ret = decode_base64(iv, error);
    if (ret < 0) {
        return ret;
    }
    if (key->len != BLK_SECRET_KEY_BYTES || iv->len != IV_BYTES) {
        return blk_error(error, -EINVAL, "AES-256-CBC needs a key of %d bytes and an 'iv' of %d, not of %u and %u",
                         BLK_SECRET_KEY_BYTES, IV_BYTES, key->len, iv->len);
    }
    return blk_secret_decrypt(bytes, key->data, iv->data, error);
}

static int decrypt(BlkObject *object, GByteArray *bytes, const BlkOptions *options, GError **error)
{
    BlkObject *key = use_secret(object->ctx, blk_options_string(options, "keyid"), error);
    int ret;

    if (!key) {
        return -EINVAL;
    }
    ret = decrypt_with(((Secret *)key->opaque)->bytes, blk_options_string(options, "iv"), bytes, error);
    blk_object_unuse(key);
    return ret;
}

/* ---- the type ---- */

static int check_options(const BlkOptions *options, GError **error)
{
    bool file = blk_options_has(options, "file"), data = blk_options_has(options, "data");

    if (file == data) {
        return blk_error(error, -EINVAL, file ? "'file' and 'data' are mutually exclusive" :
                         "Either 'file' or 'data' must be provided");
    }
    if (blk_options_has(options, "keyid") != blk_options_has(options, "iv")) {
        return blk_error(error, -EINVAL, "'keyid' and 'iv' must be given together");
    }
    return 0;
}

static int secret_init(BlkObject *object, const BlkOptions *options, GError **error)
{
    Secret *secret = object->opaque;
    const char *data = blk_options_string(options, "data");
    int ret = check_options(options, error);

    secret->bytes = g_byte_array_sized_new(64);
    if (ret == 0 && data) {
        g_byte_array_append(secret->bytes, (const guint8 *)data, strlen(data));
    } else if (ret == 0) {
        ret = read_file(blk_options_string(options, "file"), secret->bytes, error);
    }
    if (ret == 0 && blk_options_enum(options, "format") == 1) {
        ret = decode_base64(secret->bytes, error);
    }
    if (ret == 0 && blk_options_has(options, "keyid")) {
        ret = decrypt(object, secret->bytes, options, error);
    }
    return ret;
}

static void secret_finish(BlkObject *object)
{
    wipe(((Secret *)object->opaque)->bytes);
}

const BlkObjectType blk_object_secret = {
    .name = "secret",
    .help = "a password or key",
    .options = secret_options,
    .instance_size = sizeof(Secret),
    .init = secret_init,
    .finish = secret_finish,
};

char *blk_secret_text(BlkContext *ctx, const char *id, GError **error)
{
    BlkObject *object = use_secret(ctx, id, error);
    const GByteArray *bytes = object ? ((Secret *)object->opaque)->bytes : NULL;
    char *text = NULL;

    if (bytes && !g_utf8_validate((const char *)bytes->data, bytes->len, NULL)) {
        blk_error(error, -EINVAL, "The secret '%s' is not valid UTF-8 text", id);
    } else if (bytes) {
        text = g_strndup((const char *)bytes->data, bytes->len);
    }
    blk_object_unuse(object);
    return text;
}
