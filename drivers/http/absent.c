/* SPDX-License-Identifier: MIT */
/*
 * absent.c - the drivers "http" and "https" of a build without libcurl: names and options are known, and opening says
 * why it fails.
 */
#include "drivers/drivers.h"
#include "drivers/http/http.h"

static int absent_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    return blk_error(error, -ENOTSUP, "The driver '%s' was not built in: libcurl was not there", node->driver->name);
}

const BlkDriver blk_driver_http = {
    .name = "http",
    .kind = BLK_PROTOCOL,
    .help = "a file on a web server (not built in)",
    .options = http_options,
    .prefixes = http_prefixes,
    .parse_filename = http_parse_filename,
    .co_open = absent_co_open,
};

const BlkDriver blk_driver_https = {
    .name = "https",
    .kind = BLK_PROTOCOL,
    .help = "a file on a web server that is reached by TLS (not built in)",
    .options = http_options,
    .prefixes = https_prefixes,
    .parse_filename = http_parse_filename,
    .co_open = absent_co_open,
};
