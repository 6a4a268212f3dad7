/* SPDX-License-Identifier: MIT */
/*
 * tls_creds.c - the object types `tls-creds-x509` and `tls-creds-psk`: options and places of files.
 *
 *     dir/ca-cert.pem                                 x509: the authority that signed the other side's certificate
 *     dir/ca-crl.pem                                  x509: certificates that it has revoked; need not be there
 *     dir/server-cert.pem, server-key.pem             x509, endpoint=server
 *     dir/client-cert.pem, client-key.pem             x509, endpoint=client; need not be there
 *     dir/keys.psk                                    PSK: lines USERNAME:HEX-KEY
 *
 * The names are those of the peer. Files are loaded, and so checked, when the object is made.
 */
#include "core/tls_creds.h"

#include "core/secret.h"
#include "core/tls_keys.h"

static const char *const endpoints[] = { "client", "server", NULL };

#define COMMON_OPTIONS                                                                                                    \
    { "dir", BLK_OPTION_STRING, "directory that holds the files", .required = true },                                     \
    { "endpoint", BLK_OPTION_ENUM, "which side of a connection this is", "client", endpoints },                           \
    { "priority", BLK_OPTION_STRING, "algorithms, as a priority string of GnuTLS" }

static const BlkOption x509_options[] = {
    COMMON_OPTIONS,
    { "verify-peer", BLK_OPTION_BOOL, "the other side must have a certificate of our authority", "on" },
    { "sanity-check", BLK_OPTION_BOOL, "refuse own certificates that are not valid now", "on" },
    { "passwordid", BLK_OPTION_STRING, "id of the secret that the private key is encrypted with" },
    { NULL },
};

static const BlkOption psk_options[] = {
    COMMON_OPTIONS,
    { "username", BLK_OPTION_STRING, "client: which key of the file", "qemu" },
    { NULL },
};

static void take_common(BlkTlsCreds *creds, const BlkOptions *options)
{
    creds->dir = g_strdup(blk_options_string(options, "dir"));
    creds->endpoint = blk_options_enum(options, "endpoint");
    creds->priority = g_strdup(blk_options_string(options, "priority"));
}

static int load(BlkTlsCreds *creds, GError **error)
{
    creds->keys = blk_tls_keys_load(creds, error);
    return creds->keys ? 0 : -EINVAL;
}

static int x509_init(BlkObject *object, const BlkOptions *options, GError **error)
{
    BlkTlsCreds *creds = object->opaque;
    const char *passwordid = blk_options_string(options, "passwordid");

    take_common(creds, options);
    creds->verify_peer = blk_options_bool(options, "verify-peer");
    creds->check_dates = blk_options_bool(options, "sanity-check");
    if (passwordid) {
        creds->password = blk_secret_text(object->ctx, passwordid, error);
        if (!creds->password) {
            return -EINVAL;
        }
    }
    return load(creds, error);
}

static int psk_init(BlkObject *object, const BlkOptions *options, GError **error)
{
    BlkTlsCreds *creds = object->opaque;

    take_common(creds, options);
    creds->psk = true;
    if (blk_options_has(options, "username") && creds->endpoint == BLK_TLS_SERVER) {
        return blk_error(error, -EINVAL, "'username' is of no use with endpoint=server: a client says who it is");
    }
    creds->username = g_strdup(blk_options_string(options, "username"));
    return load(creds, error);
}

static void creds_finish(BlkObject *object)
{
    BlkTlsCreds *creds = object->opaque;

    blk_tls_keys_free(creds->keys);
    blk_secret_wipe(creds->password);
    g_free(creds->dir);
    g_free(creds->username);
    g_free(creds->priority);
}

const BlkObjectType blk_object_tls_creds_x509 = {
    .name = "tls-creds-x509",
    .help = "TLS credentials: certificates",
    .options = x509_options,
    .instance_size = sizeof(BlkTlsCreds),
    .init = x509_init,
    .finish = creds_finish,
};

const BlkObjectType blk_object_tls_creds_psk = {
    .name = "tls-creds-psk",
    .help = "TLS credentials: pre-shared keys",
    .options = psk_options,
    .instance_size = sizeof(BlkTlsCreds),
    .init = psk_init,
    .finish = creds_finish,
};

BlkObject *blk_tls_creds_use(BlkContext *ctx, const char *id, BlkTlsEndpoint endpoint, GError **error)
{
    BlkObject *object = blk_object_use(ctx, id, error);

    if (!object) {
        return NULL;
    }
    if (object->type != &blk_object_tls_creds_x509 && object->type != &blk_object_tls_creds_psk) {
        blk_error(error, -EINVAL, "The object '%s' holds no TLS credentials, since it is of the type %s", id,
                  object->type->name);
    } else if (blk_tls_creds(object)->endpoint != endpoint) {
        blk_error(error, -EINVAL, "The TLS credentials '%s' are for a %s: give them endpoint=%s", id,
                  endpoints[blk_tls_creds(object)->endpoint], endpoints[endpoint]);
    } else {
        return object;
    }
    blk_object_unuse(object);
    return NULL;
}

char *blk_tls_creds_path(const BlkTlsCreds *creds, const char *name)
{
    return g_build_filename(creds->dir, name, NULL);
}
