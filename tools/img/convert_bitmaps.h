/* SPDX-License-Identifier: MIT */
/*
 * convert_bitmaps.h - the part of convert that copies dirty bitmaps.
 */
#ifndef BLKSTACK_TOOLS_IMG_CONVERT_BITMAPS_H
#define BLKSTACK_TOOLS_IMG_CONVERT_BITMAPS_H

#include "img/img.h"

/* Before a target is made: can the bitmaps of the source be copied? */
int convert_check_bitmaps(BlkNode *source, bool skip_broken, GError **error);

/* When the content has been copied. Context: coroutine; may yield. */
int convert_co_copy_bitmaps(BlkNode *source, BlkNode *target, GError **error);

#endif
