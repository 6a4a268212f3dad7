/* SPDX-License-Identifier: MIT */
/*
 * tls_gnutls.h - what the files that use GnuTLS share. Not included where it may be missing.
 *
 * GnuTLS is loaded by who first makes credentials or decrypts a secret: it and what it needs take as long to load as all else that
 * a program does before it begins. Headers are those of the build, so whatever is loaded has their major version.
 */
#ifndef BLKSTACK_CORE_TLS_GNUTLS_H
#define BLKSTACK_CORE_TLS_GNUTLS_H

#include "core/tls_keys.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

/* Each member is the function of its name behind "gnutls_". */
#define BLK_GNUTLS_FUNCTIONS(F) \
    F(alert_get) F(alert_get_name) F(alert_send) F(alert_send_appropriate) F(bye) \
    F(certificate_allocate_credentials) F(certificate_free_credentials) F(certificate_get_peers) \
    F(certificate_get_x509_crt) F(certificate_server_set_request) F(certificate_set_x509_crl_file) \
    F(certificate_set_x509_key_file2) F(certificate_set_x509_trust_file) F(certificate_verification_status_print) \
    F(cipher_decrypt) F(cipher_deinit) F(cipher_init) F(credentials_set) F(deinit) F(handshake) F(init) \
    F(priority_deinit) F(priority_init2) F(priority_set) F(psk_allocate_server_credentials) \
    F(psk_free_server_credentials) F(psk_server_get_username) F(psk_set_server_credentials_file) \
    F(record_get_direction) F(record_recv) F(record_send) F(session_get_verify_cert_status) \
    F(session_set_verify_cert2) F(strerror) F(transport_set_int2) F(x509_crt_deinit) F(x509_crt_get_activation_time) \
    F(x509_crt_get_dn3) F(x509_crt_get_expiration_time) F(x509_crt_import) F(x509_crt_init)

typedef struct BlkGnutls {
#define F(name) typeof(gnutls_##name) *name;
    BLK_GNUTLS_FUNCTIONS(F)
#undef F
    gnutls_free_function *free;         /* the variable of that name */
} BlkGnutls;

/* To be called where blk_gnutls_load() has succeeded; read only. */
extern BlkGnutls blk_gnutls;

/* Context: any thread; does not yield. Returns: 0; -ENOTSUP with an error. */
int blk_gnutls_load(GError **error);

/* One set for all sessions with these credentials. */
struct BlkTlsKeys {
    gnutls_priority_t priority;
    gnutls_certificate_credentials_t certificate;       /* NULL: PSK */
    gnutls_psk_server_credentials_t psk;                /* NULL: x509, or the client's side */
};

#endif
