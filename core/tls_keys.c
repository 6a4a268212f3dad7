/* SPDX-License-Identifier: MIT */
/*
 * tls_keys.c - loads the files of TLS credentials into GnuTLS and refuses what could never work.
 *
 * Whatever is wrong with files is said when the object is made, not when the first client comes.
 *
 * Limitations: parameters for Diffie-Hellman are those of RFC 7919, which GnuTLS has itself; dh-params.pem is not read.
 * The client's side is checked here, but its sessions are made by the library that speaks the protocol (libnbd).
 */
#include "core/tls_gnutls.h"

#include <string.h>
#include <unistd.h>

#define MAX_PSK_FILE (1024 * 1024)

static int failed(GError **error, int status, const char *what, const char *path)
{
    return blk_error(error, -EINVAL, "%s %s: %s", what, path, blk_gnutls.strerror(status));
}

static int check_readable(const char *path, GError **error)
{
    return access(path, R_OK) < 0 ? blk_error_errno(error, -errno, "Unable to access credentials %s", path) : 0;
}

/* ---- certificates ---- */

static int load_authority(BlkTlsKeys *keys, const BlkTlsCreds *creds, GError **error)
{
    g_autofree char *path = blk_tls_creds_path(creds, "ca-cert.pem");
    g_autofree char *crl = blk_tls_creds_path(creds, "ca-crl.pem");
    int n;

    /* A server that asks for no certificates has no use for it. */
    if (creds->endpoint == BLK_TLS_SERVER && !creds->verify_peer) {
        return 0;
    }
    if (check_readable(path, error) < 0) {
        return -EINVAL;
    }
    n = blk_gnutls.certificate_set_x509_trust_file(keys->certificate, path, GNUTLS_X509_FMT_PEM);
    if (n <= 0) {
        return failed(error, n < 0 ? n : GNUTLS_E_NO_CERTIFICATE_FOUND, "Cannot load the CA certificate", path);
    }
    if (access(crl, F_OK) == 0) {
        n = blk_gnutls.certificate_set_x509_crl_file(keys->certificate, crl, GNUTLS_X509_FMT_PEM);
    }
    return n < 0 ? failed(error, n, "Cannot load the revocation list", crl) : 0;
}

static int check_dates(gnutls_x509_crt_t certificate, const char *path, GError **error)
{
    time_t now = time(NULL);

    if (blk_gnutls.x509_crt_get_expiration_time(certificate) < now) {
        return blk_error(error, -EINVAL, "The certificate %s has expired", path);
    }
    if (blk_gnutls.x509_crt_get_activation_time(certificate) > now) {
        return blk_error(error, -EINVAL, "The certificate %s is not yet valid", path);
    }
    return 0;
}

static int check_own_dates(BlkTlsKeys *keys, const char *path, GError **error)
{
    gnutls_x509_crt_t *list;
    unsigned n = 0;
    int ret = blk_gnutls.certificate_get_x509_crt(keys->certificate, 0, &list, &n);

    if (ret < 0) {
        return failed(error, ret, "Cannot look into the certificate", path);
    }
    for (unsigned i = 0; i < n; i++) {
        if (ret == 0) {
            ret = check_dates(list[i], path, error);
        }
        blk_gnutls.x509_crt_deinit(list[i]);
    }
    (*blk_gnutls.free)(list);
    return ret;
}

/* The certificate and private key of @side, "server" or "client". */
static int load_own(BlkTlsKeys *keys, const BlkTlsCreds *creds, const char *side, bool required, GError **error)
{
    g_autofree char *cert_name = g_strconcat(side, "-cert.pem", NULL), *key_name = g_strconcat(side, "-key.pem", NULL);
    g_autofree char *cert = blk_tls_creds_path(creds, cert_name), *key = blk_tls_creds_path(creds, key_name);
    int status;

    if (!required && access(cert, F_OK) < 0 && access(key, F_OK) < 0) {
        return 0;
    }
    if (check_readable(cert, error) < 0 || check_readable(key, error) < 0) {
        return -EINVAL;
    }
    status = blk_gnutls.certificate_set_x509_key_file2(keys->certificate, cert, key, GNUTLS_X509_FMT_PEM, creds->password, 0);
    if (status == GNUTLS_E_DECRYPTION_FAILED && !creds->password) {
        return blk_error(error, -EINVAL, "The private key %s is encrypted: give the id of its password with 'passwordid'",
                         key);
    }
    if (status < 0) {
        return blk_error(error, -EINVAL, "Cannot load the certificate %s and the private key %s: %s", cert, key,
                         blk_gnutls.strerror(status));
    }
    return creds->check_dates ? check_own_dates(keys, cert, error) : 0;
}

static int load_x509(BlkTlsKeys *keys, const BlkTlsCreds *creds, GError **error)
{
    bool server = creds->endpoint == BLK_TLS_SERVER;
    int ret = blk_gnutls.certificate_allocate_credentials(&keys->certificate);

    if (ret < 0) {
        return blk_error(error, -ENOMEM, "Cannot make TLS credentials: %s", blk_gnutls.strerror(ret));
    }
    ret = load_authority(keys, creds, error);
    return ret < 0 ? ret : load_own(keys, creds, server ? "server" : "client", server, error);
}

/* ---- pre-shared keys ---- */

static bool psk_line_is_valid(const char *line)
{
    const char *colon = strchr(line, ':');
    size_t digits = colon ? strspn(colon + 1, "0123456789abcdefABCDEF") : 0;

    return colon && colon > line && digits > 0 && digits % 2 == 0 && colon[1 + digits] == '\0';
}

/* Whether @text has a key: of @username; NULL: of anybody. */
static int check_psk_lines(char *text, const char *username, const char *path, GError **error)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    bool found = false;

    for (unsigned i = 0; lines[i]; i++) {
        const char *line = g_strchomp(lines[i]);
        size_t name = strcspn(line, ":");

        if (*line == '\0' || *line == '#') {
            continue;
        }
        if (!psk_line_is_valid(line)) {
            return blk_error(error, -EINVAL, "%s: line %u is not USERNAME:KEY with the key in hexadecimal digits", path,
                             i + 1);
        }
        found |= !username || (strlen(username) == name && memcmp(line, username, name) == 0);
    }
    if (!found && username) {
        return blk_error(error, -ENOENT, "%s has no key of the user '%s'", path, username);
    }
    return found ? 0 : blk_error(error, -ENOENT, "%s holds no key", path);
}

static int check_psk_file(const char *path, const char *username, GError **error)
{
    g_autoptr(GMappedFile) file = NULL;
    g_autofree char *text = NULL;
    int ret;

    if (check_readable(path, error) < 0) {
        return -EINVAL;
    }
    file = g_mapped_file_new(path, FALSE, error);
    if (!file) {
        return -EIO;
    }
    if (g_mapped_file_get_length(file) > MAX_PSK_FILE) {
        return blk_error(error, -EFBIG, "%s is larger than %d bytes", path, MAX_PSK_FILE);
    }
    text = g_strndup(g_mapped_file_get_contents(file), g_mapped_file_get_length(file));
    ret = check_psk_lines(text ? text : (char[]) { "" }, username, path, error);
    if (text) {
        explicit_bzero(text, strlen(text));
    }
    return ret;
}

static int load_psk(BlkTlsKeys *keys, const BlkTlsCreds *creds, GError **error)
{
    bool server = creds->endpoint == BLK_TLS_SERVER;
    g_autofree char *path = blk_tls_creds_path(creds, "keys.psk");
    int ret = check_psk_file(path, server ? NULL : creds->username, error);

    if (ret < 0 || !server) {
        return ret;
    }
    ret = blk_gnutls.psk_allocate_server_credentials(&keys->psk);
    if (ret == 0) {
        ret = blk_gnutls.psk_set_server_credentials_file(keys->psk, path);
    }
    return ret < 0 ? failed(error, ret, "Cannot load the keys", path) : 0;
}

/* ---- both ---- */

/* The key exchanges of one kind of credentials only: a session cannot fall back to another kind. */
static int load_priority(BlkTlsKeys *keys, const BlkTlsCreds *creds, GError **error)
{
    static const char psk[] = ":+ECDHE-PSK:+DHE-PSK:+PSK";
    g_autofree char *text = g_strconcat(creds->priority ? creds->priority : "", creds->psk ? psk : "", NULL);
    const char *defaults = *text ? text + 1 : NULL;     /* without the colon */
    const char *at = NULL;
    int ret;

    if (creds->priority) {
        ret = blk_gnutls.priority_init2(&keys->priority, text, &at, 0);
    } else {
        ret = blk_gnutls.priority_init2(&keys->priority, defaults, &at, defaults ? GNUTLS_PRIORITY_INIT_DEF_APPEND : 0);
    }
    return ret < 0 ? blk_error(error, -EINVAL, "The option 'priority' is wrong at '%s': %s", at ? at : "",
                               blk_gnutls.strerror(ret)) : 0;
}

BlkTlsKeys *blk_tls_keys_load(const BlkTlsCreds *creds, GError **error)
{
    BlkTlsKeys *keys;
    int ret;

    if (blk_gnutls_load(error) < 0) {
        return NULL;
    }
    keys = g_new0(BlkTlsKeys, 1);
    ret = load_priority(keys, creds, error);
    if (ret == 0) {
        ret = creds->psk ? load_psk(keys, creds, error) : load_x509(keys, creds, error);
    }
    if (ret < 0) {
        blk_tls_keys_free(keys);
        return NULL;
    }
    return keys;
}

void blk_tls_keys_free(BlkTlsKeys *keys)
{
    if (!keys) {
        return;
    }
    if (keys->priority) {
        blk_gnutls.priority_deinit(keys->priority);
    }
    if (keys->certificate) {
        blk_gnutls.certificate_free_credentials(keys->certificate);
    }
    if (keys->psk) {
        blk_gnutls.psk_free_server_credentials(keys->psk);
    }
    g_free(keys);
}
