/* SPDX-License-Identifier: MIT */
/*
 * convert_stream.h - convert to standard output.
 */
#ifndef BLKSTACK_TOOLS_IMG_CONVERT_STREAM_H
#define BLKSTACK_TOOLS_IMG_CONVERT_STREAM_H

#include "img/img.h"

/* Writes a whole new image of what @source holds to standard output. */
int convert_co_stream(BlkContext *ctx, const char *format, JsonObject *options, BlkSource *source, bool compressed, unsigned compression,
                      bool sparse, GError **error);

#endif
