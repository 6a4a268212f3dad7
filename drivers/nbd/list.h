/* SPDX-License-Identifier: MIT */
/*
 * list.h - what an NBD server offers, without using any of it.
 */
#ifndef BLKSTACK_DRIVERS_NBD_LIST_H
#define BLKSTACK_DRIVERS_NBD_LIST_H

#include <blkstack/blkstack.h>

/* Strings are the server's: of any characters. */
typedef struct BlkNbdListed {
    char *name, *description;
    uint64_t size;                  /* bytes */
    unsigned flags;                 /* as on the wire; 0: not known */
    uint32_t min_block, preferred_block, max_block;     /* bytes; 0: it does not say */
    GPtrArray *contexts;            /* of char *: metadata contexts */
} BlkNbdListed;

/* The names of the flags, by bit; NULL: a bit without a name. */
#define BLK_NBD_FLAG_BITS 12
extern const char *const blk_nbd_flag_names[BLK_NBD_FLAG_BITS];

/**
 * blk_co_nbd_list:
 * @where: options of the driver nbd that say where the server is: path, host, port, tls-creds, tls-hostname
 *
 * Context: coroutine; yields. Returns: (transfer full): array of BlkNbdListed *, in the server's order; NULL with @error set.
 */
GPtrArray *blk_co_nbd_list(BlkContext *ctx, JsonObject *where, GError **error);

#endif
