/* SPDX-License-Identifier: MIT */
/*
 * tls.c - TLS of NBD connections.
 */
#include "exports/nbd/tls.h"

#include "core/authz.h"
#include "core/tls_channel.h"

int blk_nbd_tls_use_authz(const BlkNbdServer *server, const char *id, BlkObject **authz, GError **error)
{
    const BlkTlsCreds *creds = server->tls_creds ? blk_tls_creds(server->tls_creds) : NULL;

    if (!id) {
        return 0;
    }
    if (!creds) {
        return blk_error(error, -EINVAL, "Who may connect ('%s') cannot be decided without TLS credentials", id);
    }
    if (!creds->psk && !creds->verify_peer) {
        return blk_error(error, -EINVAL, "Who may connect ('%s') cannot be decided with the TLS credentials '%s', since "
                         "their verify-peer=off asks for no certificate", id, server->tls_creds->id);
    }
    *authz = blk_authz_use(server->tls_creds->ctx, id, error);
    return *authz ? 0 : -EINVAL;
}

int blk_nbd_tls_init(BlkNbdServer *server, BlkContext *ctx, const BlkNbdServerOptions *options, GError **error)
{
    if (options->tls_required && !options->tls_creds) {
        return blk_error(error, -EINVAL, "TLS cannot be required without TLS credentials");
    }
    server->tls_required = options->tls_required;
    if (options->tls_creds) {
        server->tls_creds = blk_tls_creds_use(ctx, options->tls_creds, BLK_TLS_SERVER, error);
        if (!server->tls_creds) {
            return -EINVAL;
        }
    }
    return blk_nbd_tls_use_authz(server, options->tls_authz, &server->tls_authz, error);
}

void blk_nbd_tls_clear(BlkNbdServer *server)
{
    blk_object_unuse(server->tls_authz);
    blk_object_unuse(server->tls_creds);
}

bool blk_nbd_tls_offered(const BlkNbdServer *server)
{
    return server->tls_creds;
}

static int co_start_tls(NbdConnection *c, GError **error)
{
    const BlkNbdServer *server = c->server;
    BlkChannel *channel = blk_tls_channel_new(c->channel, blk_tls_creds(server->tls_creds), error);

    if (!channel) {
        return -EIO;
    }
    c->channel = channel;       /* so that others can end it meanwhile */
    return blk_tls_channel_co_handshake(channel, server->tls_authz, c->deadline_ns, error);
}

int blk_nbd_co_start_tls(NbdConnection *c)
{
    g_autoptr(GError) error = NULL;
    int ret = co_start_tls(c, &error);

    if (ret < 0 && c->server->refused && !c->stopping) {
        c->server->refused(c->server, error->message, c->server->opaque);
    }
    return ret;
}

bool blk_nbd_tls_allows(const BlkChannel *channel, const NbdExport *export)
{
    return !export->tls_authz || (channel->peer_name && blk_authz_allows(export->tls_authz, channel->peer_name));
}
