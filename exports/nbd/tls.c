/* SPDX-License-Identifier: MIT */
/*
 * tls.c - TLS of NBD connections.
 */
#include "exports/nbd/tls.h"

bool blk_nbd_tls_offered(const BlkNbdServer *server)
{
    return false;
}

int blk_nbd_co_start_tls(NbdConnection *c)
{
    return -ENOTSUP;
}

bool blk_nbd_tls_allows(const BlkChannel *channel, char *const *patterns)
{
    if (!patterns) {
        return true;
    }
    for (unsigned i = 0; channel->peer_name && patterns[i]; i++) {
        if (g_pattern_match_simple(patterns[i], channel->peer_name)) {
            return true;
        }
    }
    return false;
}
