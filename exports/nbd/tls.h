/* SPDX-License-Identifier: MIT */
/*
 * tls.h - TLS of NBD connections: when it begins, and who is let in.
 */
#ifndef BLKSTACK_EXPORTS_NBD_TLS_H
#define BLKSTACK_EXPORTS_NBD_TLS_H

#include "exports/nbd/server.h"

/* Has the server credentials? */
bool blk_nbd_tls_offered(const BlkNbdServer *server);

/* The acknowledgement was sent: from now on everything goes through TLS. -EACCES: the client is not one of those that
 * the server lets in. After an error the connection is useless. May yield. */
int blk_nbd_co_start_tls(NbdConnection *c);

/* Does one of @patterns (NULL: everybody's do) match the name that the client has proved? */
bool blk_nbd_tls_allows(const BlkChannel *channel, char *const *patterns);

#endif
