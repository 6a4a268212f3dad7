/* SPDX-License-Identifier: MIT */
/*
 * cmd_bitmap.h - dirty bitmaps in commands about other things.
 */
#ifndef BLKSTACK_TOOLS_DAEMON_CMD_BITMAP_H
#define BLKSTACK_TOOLS_DAEMON_CMD_BITMAP_H

#include "daemon/daemon.h"

/* All bitmaps of @node, as the control protocol's BlockDirtyInfo: "name", "count" (dirty bytes), "granularity", "recording",
 * "busy", "persistent", "inconsistent". (transfer full): NULL: it has none. Context: coroutine; may yield. */
JsonArray *daemon_co_describe_bitmaps(BlkNode *node);

/* Of arguments that list bitmaps: names, or objects of "node" and "name". */
extern const BlkType daemon_bitmaps_type;

/* Element @index of such a list. *ref: (out): its name is that of the list.
 * Returns: 0; -ENOENT: there is no such node. */
int daemon_find_bitmap_ref(Daemon *d, JsonArray *list, guint index, BlkBitmapRef *ref, GError **error);

#endif
