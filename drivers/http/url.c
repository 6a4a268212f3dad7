/* SPDX-License-Identifier: MIT */
/*
 * url.c - where a file on a web server is, and how it is asked for: names and options.
 */
#include "drivers/http/http.h"

#include "core/secret.h"

#include <string.h>
#include <unistd.h>

enum { SECTOR = 512 };

const BlkOption http_options[] = {
    { "url", BLK_OPTION_STRING, "the file: http://HOST/... or https://HOST/..., as the driver is called",
      .required = true },
    { "readahead", BLK_OPTION_SIZE, "bytes that are asked for beyond those that are read; a multiple of 512",
      .default_text = "256k", .max = UINT64_C(16) << 20 },
    { "sslverify", BLK_OPTION_BOOL, "check the server's certificate and name", .default_text = "on" },
    { "tls-creds", BLK_OPTION_STRING, "id of an object tls-creds-x509: whose certificates are trusted, and our own" },
    { "timeout", BLK_OPTION_UINT, "seconds that the server may be silent", .default_text = "5", .min = 1,
      .max = 10000 },
    { "retries", BLK_OPTION_UINT, "how often what fails for a time is tried again", .default_text = "4", .max = 100 },
    { "cookie", BLK_OPTION_STRING, "cookies that are sent with each request" },
    { "cookie-secret", BLK_OPTION_STRING, "id of a secret that holds the cookies" },
    { "username", BLK_OPTION_STRING, "who we are" },
    { "password-secret", BLK_OPTION_STRING, "id of a secret that holds the password" },
    { "proxy-username", BLK_OPTION_STRING, "who we are to the proxy" },
    { "proxy-password-secret", BLK_OPTION_STRING, "id of a secret that holds the proxy's password" },
    { "force-range", BLK_OPTION_BOOL, "ask for ranges although the server says that it has none",
      .default_text = "off" },
    { NULL },
};

const char *const http_prefixes[] = { "http", NULL };
const char *const https_prefixes[] = { "https", NULL };

JsonObject *http_parse_filename(const char *name, GError **error)
{
    JsonObject *tree;

    if (!strstr(name, "://")) {
        blk_error(error, -EINVAL, "'%s' is no name of a file on a web server: it should be like http://HOST/FILE",
                  name);
        return NULL;
    }
    tree = json_object_new();
    json_object_set_string_member(tree, "url", name);
    return tree;
}

/* (out) *text: (nullable): the secret that the option names. */
static int get_secret(BlkNode *node, const BlkOptions *options, const char *name, char **text, GError **error)
{
    const char *id = blk_options_string(options, name);

    if (id) {
        *text = blk_secret_text(node->ctx, id, error);
        return *text ? 0 : -EINVAL;
    }
    return 0;
}

static int get_secrets(HttpOptions *to, BlkNode *node, const BlkOptions *options, GError **error)
{
    int ret = get_secret(node, options, "cookie-secret", &to->cookie, error);

    if (ret == 0) {
        ret = get_secret(node, options, "password-secret", &to->password, error);
    }
    return ret == 0 ? get_secret(node, options, "proxy-password-secret", &to->proxy_password, error) : ret;
}

/* The path of a file of the credentials if it is there, else NULL. */
static char *creds_file(const BlkTlsCreds *creds, const char *name)
{
    g_autofree char *path = blk_tls_creds_path(creds, name);

    return access(path, F_OK) == 0 ? g_steal_pointer(&path) : NULL;
}

/* The object has checked its files when it was made. */
static int get_tls(HttpOptions *to, BlkNode *node, const BlkOptions *options, GError **error)
{
    const char *id = blk_options_string(options, "tls-creds");
    const BlkTlsCreds *creds;

    if (!id) {
        return 0;
    }
    to->tls.creds = blk_tls_creds_use(node->ctx, id, BLK_TLS_CLIENT, error);
    if (!to->tls.creds) {
        return -EINVAL;
    }
    creds = blk_tls_creds(to->tls.creds);
    if (creds->psk || creds->priority) {
        return blk_error(error, -ENOTSUP, "The TLS credentials '%s' cannot be used for a web server, which takes no %s",
                         id, creds->psk ? "pre-shared keys: use an object tls-creds-x509"
                                        : "priority string: leave it out");
    }
    to->sslverify = to->sslverify && creds->verify_peer;
    to->tls.ca = blk_tls_creds_path(creds, "ca-cert.pem");
    to->tls.crl = creds_file(creds, "ca-crl.pem");
    to->tls.cert = creds_file(creds, "client-cert.pem");
    to->tls.key = creds_file(creds, "client-key.pem");
    to->tls.password = creds->password;
    return 0;
}

static void tls_clear(HttpTls *tls)
{
    blk_object_unuse(tls->creds);
    g_free(tls->ca);
    g_free(tls->crl);
    g_free(tls->cert);
    g_free(tls->key);
}

int http_options_init(HttpOptions *to, BlkNode *node, const BlkOptions *options, GError **error)
{
    const char *url = blk_options_string(options, "url"), *driver = node->driver->name;
    g_autofree char *begin = g_strdup_printf("%s://", driver);

    if (g_ascii_strncasecmp(url, begin, strlen(begin)) != 0) {
        return blk_error(error, -EINVAL, "The driver '%s' cannot handle the URL '%s', which does not start with '%s'",
                         driver, url, begin);
    }
    if (blk_options_has(options, "cookie") && blk_options_has(options, "cookie-secret")) {
        return blk_error(error, -EINVAL, "cookie and cookie-secret cannot be given at the same time");
    }
    to->url = g_strdup(url);
    to->readahead = blk_options_uint(options, "readahead");
    to->sslverify = blk_options_bool(options, "sslverify");
    to->force_range = blk_options_bool(options, "force-range");
    to->timeout_s = (unsigned)blk_options_uint(options, "timeout");
    to->retries = (unsigned)blk_options_uint(options, "retries");
    to->cookie = g_strdup(blk_options_string(options, "cookie"));
    to->username = g_strdup(blk_options_string(options, "username"));
    to->proxy_username = g_strdup(blk_options_string(options, "proxy-username"));
    if (to->readahead % SECTOR != 0) {
        return blk_error(error, -EINVAL, "readahead must be a multiple of %d, which %" G_GUINT64_FORMAT " is not",
                         SECTOR, to->readahead);
    }
    int ret = get_secrets(to, node, options, error);

    return ret < 0 ? ret : get_tls(to, node, options, error);
}

void http_options_clear(HttpOptions *options)
{
    g_free(options->url);
    g_free(options->username);
    g_free(options->proxy_username);
    blk_secret_wipe(options->cookie);
    blk_secret_wipe(options->password);
    blk_secret_wipe(options->proxy_password);
    tls_clear(&options->tls);
    *options = (HttpOptions){ .url = NULL };
}
