/* SPDX-License-Identifier: MIT */
/*
 * tls_channel.c - a channel through TLS, the server's side, by GnuTLS on the same non-blocking socket.
 *
 * GnuTLS makes one record of what one call sends, so what is scattered is gathered to records of up to 16 KiB. A record that
 * the socket did not take whole stays in GnuTLS, and `pending` says how many bytes of the caller's vectors it holds: the
 * caller comes again with the same bytes, which are not encrypted twice.
 *
 * Certificates are verified within the handshake, so that the client is told. There are no session tickets, and
 * renegotiation ends the connection.
 *
 * Limitation: the keys of keys.psk are read from the file, without a thread, at each handshake.
 */
#include "core/tls_channel.h"

#include "core/authz.h"
#include "core/tls_gnutls.h"

#include <string.h>
#include <sys/socket.h>

#define RECORD_BYTES ((size_t)16 * 1024)

typedef struct TlsChannel {
    BlkChannel base;
    const BlkTlsCreds *creds;
    gnutls_session_t session;
    size_t pending;                     /* bytes in a record that is not sent yet */
    uint8_t gathered[RECORD_BYTES];
} TlsChannel;

static TlsChannel *tls(BlkChannel *ch)
{
    return (TlsChannel *)ch;
}

/* What @status, an error of GnuTLS, is for a caller. */
static int to_errno(gnutls_session_t session, int status, short *events)
{
    switch (status) {
    case GNUTLS_E_AGAIN:
    case GNUTLS_E_INTERRUPTED:
        *events = blk_gnutls.record_get_direction(session) ? POLLOUT : POLLIN;
        return -EAGAIN;
    case GNUTLS_E_MEMORY_ERROR:
        return -ENOMEM;
    case GNUTLS_E_PULL_ERROR:
    case GNUTLS_E_PUSH_ERROR:
    case GNUTLS_E_PREMATURE_TERMINATION:
        return -ECONNRESET;
    default:
        return -EPROTO;
    }
}

/* ---- the table ---- */

static ssize_t tls_recv(BlkChannel *ch, void *buf, size_t bytes, short *events)
{
    ssize_t ret = blk_gnutls.record_recv(tls(ch)->session, buf, bytes);

    /* Many clients just close the socket. Messages have lengths of their own, so that a cut is seen without TLS. */
    if (ret == GNUTLS_E_PREMATURE_TERMINATION) {
        return 0;
    }
    return ret < 0 ? to_errno(tls(ch)->session, (int)ret, events) : ret;
}

/* @bytes at the start of @iov in one piece: copied, if they lie in several. */
static const void *in_one_piece(TlsChannel *t, BlkIov iov, size_t bytes)
{
    const void *data = blk_iov_contiguous(iov, bytes);

    if (!data) {
        blk_iov_to_buf(iov, t->gathered, bytes);
        data = t->gathered;
    }
    return data;
}

/* Sends one record from the start of @iov, which has @bytes, or goes on with the one that is there. */
static ssize_t send_record(TlsChannel *t, BlkIov iov, size_t bytes, short *events)
{
    ssize_t ret;

    if (t->pending == 0) {
        bytes = MIN(bytes, RECORD_BYTES);
        ret = blk_gnutls.record_send(t->session, in_one_piece(t, iov, bytes), bytes);
        t->pending = bytes;
    } else {
        ret = blk_gnutls.record_send(t->session, NULL, 0);
    }
    if (ret < 0) {
        return to_errno(t->session, (int)ret, events);
    }
    bytes = t->pending;
    t->pending = 0;
    return (ssize_t)bytes;
}

static ssize_t tls_sendv(BlkChannel *ch, const struct iovec *vec, unsigned count, short *events)
{
    size_t bytes = 0, done = 0;

    for (unsigned i = 0; i < count; i++) {
        bytes += vec[i].iov_len;
    }
    while (done < bytes) {
        BlkIov iov = { vec, count, done };
        ssize_t ret = send_record(tls(ch), iov, bytes - done, events);

        if (ret < 0) {
            return done > 0 ? (ssize_t)done : ret;      /* a failure is told again by the next call */
        }
        done += (size_t)ret;
    }
    return (ssize_t)done;
}

static int tls_shutdown(BlkChannel *ch, short *events)
{
    int ret = blk_gnutls.bye(tls(ch)->session, GNUTLS_SHUT_WR);

    if (ret < 0) {
        ret = to_errno(tls(ch)->session, ret, events);
    }
    if (ret != -EAGAIN) {
        shutdown(ch->fd, SHUT_WR);
    }
    return ret;
}

static void tls_free(BlkChannel *ch)
{
    if (tls(ch)->session) {
        blk_gnutls.deinit(tls(ch)->session);
    }
    g_free(ch);
}

static const BlkChannelOps tls_ops = {
    .name     = "tls",
    .recv     = tls_recv,
    .sendv    = tls_sendv,
    .shutdown = tls_shutdown,
    .free     = tls_free,
};

/* ---- beginning ---- */

/* A client's certificate must be one for clients, if it says what it is for. */
static void ask_for_certificate(TlsChannel *t)
{
    static gnutls_typed_vdata_st purpose = { .type = GNUTLS_DT_KEY_PURPOSE_OID,
                                             .data = (unsigned char *)GNUTLS_KP_TLS_WWW_CLIENT };

    if (t->creds->verify_peer) {
        blk_gnutls.certificate_server_set_request(t->session, GNUTLS_CERT_REQUIRE);
        blk_gnutls.session_set_verify_cert2(t->session, &purpose, 1, 0);
    } else {
        blk_gnutls.certificate_server_set_request(t->session, GNUTLS_CERT_IGNORE);
    }
}

static int start_session(TlsChannel *t)
{
    BlkTlsKeys *keys = t->creds->keys;
    int ret = blk_gnutls.init(&t->session, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS);

    if (ret == 0) {
        ret = blk_gnutls.priority_set(t->session, keys->priority);
    }
    if (ret == 0 && t->creds->psk) {
        ret = blk_gnutls.credentials_set(t->session, GNUTLS_CRD_PSK, keys->psk);
    } else if (ret == 0) {
        ret = blk_gnutls.credentials_set(t->session, GNUTLS_CRD_CERTIFICATE, keys->certificate);
        ask_for_certificate(t);
    }
    return ret;
}

BlkChannel *blk_tls_channel_new(BlkChannel *plain, const BlkTlsCreds *creds, GError **error)
{
    TlsChannel *t = g_new0(TlsChannel, 1);
    int ret;

    t->creds = creds;
    ret = start_session(t);
    if (ret < 0) {
        blk_error(error, -EIO, "Cannot start TLS: %s", blk_gnutls.strerror(ret));
        tls_free(&t->base);
        return NULL;
    }
    t->base.recv_cancelled = plain->recv_cancelled;
    t->base.send_cancelled = plain->send_cancelled;
    blk_channel_init(&t->base, &tls_ops, blk_channel_steal_fd(plain));
    blk_gnutls.transport_set_int2(t->session, t->base.fd, t->base.fd);
    return &t->base;
}

/* ---- who is it? ---- */

/* (transfer full): the distinguished name of the client's certificate, its parts in the certificate's order as the peer
 * has them; NULL: there is none. */
static char *certificate_name(TlsChannel *t)
{
    unsigned count = 0;
    const gnutls_datum_t *list = blk_gnutls.certificate_get_peers(t->session, &count);
    gnutls_x509_crt_t certificate;
    gnutls_datum_t dn = { 0 };
    char *name = NULL;

    if (!list || count == 0 || blk_gnutls.x509_crt_init(&certificate) < 0) {
        return NULL;
    }
    if (blk_gnutls.x509_crt_import(certificate, &list[0], GNUTLS_X509_FMT_DER) == 0 &&
        blk_gnutls.x509_crt_get_dn3(certificate, &dn, GNUTLS_X509_DN_FLAG_COMPAT) == 0) {
        name = g_strndup((const char *)dn.data, dn.size);
        (*blk_gnutls.free)(dn.data);
    }
    blk_gnutls.x509_crt_deinit(certificate);
    return name;
}

/* A name that nobody has verified is none. */
static char *find_name(TlsChannel *t)
{
    if (t->creds->psk) {
        return g_strdup(blk_gnutls.psk_server_get_username(t->session));
    }
    return t->creds->verify_peer ? certificate_name(t) : NULL;
}

static int let_in(TlsChannel *t, const BlkObject *authz, GError **error)
{
    const char *name;

    t->base.peer_name = find_name(t);
    name = t->base.peer_name;
    if (!authz || (name && blk_authz_allows(authz, name))) {
        return 0;
    }
    blk_gnutls.alert_send(t->session, GNUTLS_AL_FATAL, GNUTLS_A_ACCESS_DENIED);
    return blk_error(error, -EACCES, "The TLS client '%s' is refused by '%s'", name ? name : "", authz->id);
}

/* ---- the handshake ---- */

/* Why it failed: what is wrong with the certificate, or what GnuTLS says. (transfer full) */
static char *describe_failure(TlsChannel *t, int status)
{
    gnutls_datum_t text = { 0 };
    char *reason;

    if (status == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR &&
        blk_gnutls.certificate_verification_status_print(blk_gnutls.session_get_verify_cert_status(t->session), GNUTLS_CRT_X509,
                                                     &text, 0) == 0) {
        reason = g_strchomp(g_strndup((const char *)text.data, text.size));
        (*blk_gnutls.free)(text.data);
        return reason;
    }
    if (status == GNUTLS_E_FATAL_ALERT_RECEIVED) {
        const char *alert = blk_gnutls.alert_get_name(blk_gnutls.alert_get(t->session));

        return g_strdup_printf("the client says: %s", alert ? alert : "unknown alert");
    }
    return g_strdup(blk_gnutls.strerror(status));
}

static int handshake_failed(TlsChannel *t, int status, int ret, GError **error)
{
    g_autofree char *reason = describe_failure(t, status);

    blk_gnutls.alert_send_appropriate(t->session, status);      /* if it can be sent at once */
    return blk_error(error, ret, "The TLS handshake failed: %s", reason);
}

int blk_tls_channel_co_handshake(BlkChannel *ch, const BlkObject *authz, uint64_t deadline_ns, GError **error)
{
    TlsChannel *t = tls(ch);
    short events;
    int status, ret;

    while ((status = blk_gnutls.handshake(t->session)) < 0) {
        ret = to_errno(t->session, status, &events);
        if (ret != -EAGAIN) {
            return handshake_failed(t, status, ret, error);
        }
        ret = blk_channel_co_wait_to_recv(ch, events, deadline_ns);
        if (ret < 0) {
            return blk_error_errno(error, ret, "The TLS handshake was not finished");
        }
    }
    return let_in(t, authz, error);
}
