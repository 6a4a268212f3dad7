/* SPDX-License-Identifier: MIT */
/*
 * tls_channel.h - the server's side of TLS on a connected socket.
 */
#ifndef BLKSTACK_CORE_TLS_CHANNEL_H
#define BLKSTACK_CORE_TLS_CHANNEL_H

#include "core/channel.h"
#include "core/tls_creds.h"

/**
 * blk_tls_channel_new:
 * @plain: is gone when this succeeds; nothing that it received may be left unused
 * @creds: of a server; must outlive the channel
 *
 * Goes on with TLS where @plain has stopped. Nothing is sent or received before the handshake. Does not yield.
 * Returns: (transfer full): NULL with @error set.
 */
BlkChannel *blk_tls_channel_new(BlkChannel *plain, const BlkTlsCreds *creds, GError **error);

/**
 * blk_tls_channel_co_handshake:
 * @authz: (nullable): who is let in (see authz.h); NULL: everybody who has what @creds ask for
 *
 * Sets channel->peer_name, if the client has proved a name. Cancelling and the deadline are those of a channel.
 * Context: coroutine; may yield. Returns: 0; -EACCES: @authz does not let it in; -EPROTO: the handshake failed, -ETIMEDOUT,
 * -ECANCELED, others from the socket: nothing more can be sent or received.
 */
int blk_tls_channel_co_handshake(BlkChannel *ch, const BlkObject *authz, uint64_t deadline_ns, GError **error);

#endif
