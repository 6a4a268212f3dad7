/* SPDX-License-Identifier: MIT */
/*
 * absent.c - the driver "nbd" of a build without libnbd: names and options are known, and opening says why it fails.
 */
#include "drivers/drivers.h"
#include "drivers/nbd/list.h"
#include "drivers/nbd/nbd.h"

static int absent_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    return blk_error(error, -ENOTSUP, "The driver 'nbd' was not built in: libnbd was not there");
}

const BlkDriver blk_driver_nbd = {
    .name = "nbd",
    .kind = BLK_PROTOCOL,
    .help = "an export of an NBD server (not built in)",
    .options = nbd_options,
    .prefixes = nbd_prefixes,
    .parse_filename = nbd_parse_filename,
    .co_open = absent_co_open,
};

const char *const blk_nbd_flag_names[BLK_NBD_FLAG_BITS];

GPtrArray *blk_co_nbd_list(BlkContext *ctx, JsonObject *where, GError **error)
{
    blk_error(error, -ENOTSUP, "Listing exports was not built in: libnbd was not there");
    return NULL;
}
