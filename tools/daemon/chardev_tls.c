/* SPDX-License-Identifier: MIT */
/*
 * chardev_tls.c - clients of a socket that speak TLS: their handshakes, before the chardev's user has them.
 */
#include "daemon/chardev.h"

#include "core/authz.h"
#include "core/tls_channel.h"
#include "core/tls_creds.h"

#define HANDSHAKE_NS UINT64_C(10000000000)

typedef struct ChardevHandshake {
    Chardev *chardev;
    BlkChannel *channel;
    GList link;
} ChardevHandshake;

int chardev_tls_use(Chardev *chardev, const BlkOptions *options, GError **error)
{
    const char *creds = blk_options_string(options, "tls-creds"), *authz = blk_options_string(options, "tls-authz");
    BlkContext *ctx = chardev->d->ctx;

    if (authz && !creds) {
        return blk_error(error, -EINVAL, "'tls-authz' option requires 'tls-creds' option");
    }
    if (!creds) {
        return 0;
    }
    if (!blk_options_bool(options, "server")) {
        return blk_error(error, -ENOTSUP, "'tls-creds' needs server=on: as a client the daemon speaks no TLS");
    }
    chardev->tls_creds = blk_tls_creds_use(ctx, creds, BLK_TLS_SERVER, error);
    if (!chardev->tls_creds) {
        return -EINVAL;
    }
    if (authz && !blk_tls_creds(chardev->tls_creds)->psk && !blk_tls_creds(chardev->tls_creds)->verify_peer) {
        return blk_error(error, -EINVAL, "'tls-authz' cannot decide with the TLS credentials '%s', since their verify-peer=off asks for no "
                         "certificate", creds);
    }
    chardev->tls_authz = authz ? blk_authz_use(ctx, authz, error) : NULL;
    return authz && !chardev->tls_authz ? -EINVAL : 0;
}

/* Returns: 0, and the channel is one of TLS; a negative errno. */
static int co_shake_hands(ChardevHandshake *handshake, GError **error)
{
    const Chardev *chardev = handshake->chardev;
    BlkChannel *tls = blk_tls_channel_new(handshake->channel, blk_tls_creds(chardev->tls_creds), error);

    if (!tls) {
        return -EIO;
    }
    handshake->channel = tls;
    return blk_tls_channel_co_handshake(tls, chardev->tls_authz, blk_clock_ns() + HANDSHAKE_NS, error);
}

static int co_begin(void *opaque)
{
    ChardevHandshake *handshake = opaque;
    Chardev *chardev = handshake->chardev;
    Daemon *d = chardev->d;
    g_autoptr(GError) error = NULL;
    int ret = co_shake_hands(handshake, &error);

    g_queue_unlink(&chardev->handshakes, &handshake->link);
    if (ret == 0 && !d->over) {
        chardev->connected(chardev, handshake->channel, chardev->user);
    } else {
        g_autofree char *why = error ? tool_printable(error->message) : NULL;

        if (why && !d->over) {
            tool_error("character device %s: %s", chardev->id, why);
        }
        blk_channel_free(handshake->channel);
        chardev_client_gone(chardev);
    }
    g_free(handshake);
    daemon_end(d);
    return 0;
}

void chardev_tls_begin(Chardev *chardev, int fd)
{
    ChardevHandshake *handshake = g_new0(ChardevHandshake, 1);

    handshake->chardev = chardev;
    handshake->channel = blk_channel_new(fd);
    handshake->link.data = handshake;
    g_queue_push_tail_link(&chardev->handshakes, &handshake->link);
    daemon_begin(chardev->d);
    blk_co_spawn(chardev->d->ctx, co_begin, handshake);
}

void chardev_tls_stop(Chardev *chardev)
{
    for (GList *l = chardev->handshakes.head; l; l = l->next) {
        blk_channel_cancel(((ChardevHandshake *)l->data)->channel);
    }
}

void chardev_tls_clear(Chardev *chardev)
{
    blk_object_unuse(chardev->tls_authz);
    blk_object_unuse(chardev->tls_creds);
}
