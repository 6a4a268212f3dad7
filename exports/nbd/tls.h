/* SPDX-License-Identifier: MIT */
/*
 * tls.h - TLS of NBD connections: when it begins, and who is let in.
 */
#ifndef BLKSTACK_EXPORTS_NBD_TLS_H
#define BLKSTACK_EXPORTS_NBD_TLS_H

#include "exports/nbd/server.h"

/* Takes the objects that @options name; blk_nbd_tls_clear() gives them back, also after an error. */
int blk_nbd_tls_init(BlkNbdServer *server, BlkContext *ctx, const BlkNbdServerOptions *options, GError **error);
void blk_nbd_tls_clear(BlkNbdServer *server);

/* Takes the object @id (NULL: none) that says who may use an export of @server; to be given back with blk_object_unuse(). */
int blk_nbd_tls_use_authz(const BlkNbdServer *server, const char *id, BlkObject **authz, GError **error);

/* Has the server credentials? */
bool blk_nbd_tls_offered(const BlkNbdServer *server);

/* The acknowledgement was sent: from now on everything goes through TLS. -EACCES: the client is not one of those that the
 * server lets in. After an error the connection is useless. May yield. */
int blk_nbd_co_start_tls(NbdConnection *c);

/* May the client, by the name that it has proved, know of @export? */
bool blk_nbd_tls_allows(const BlkChannel *channel, const NbdExport *export);

#endif
