/* SPDX-License-Identifier: MIT */
/*
 * authz.h - objects that decide by name who may connect.
 *
 * The name of a client is the distinguished name of its x509 certificate, or its PSK user name.
 */
#ifndef BLKSTACK_CORE_AUTHZ_H
#define BLKSTACK_CORE_AUTHZ_H

#include "core/object.h"

extern const BlkObjectType blk_object_authz_list;
extern const BlkObjectType blk_object_authz_simple;

/* An object of one of these types, for blk_authz_allows(); to be given back with blk_object_unuse(). NULL with @error set. */
BlkObject *blk_authz_use(BlkContext *ctx, const char *id, GError **error);
bool blk_authz_allows(const BlkObject *object, const char *name);

#endif
