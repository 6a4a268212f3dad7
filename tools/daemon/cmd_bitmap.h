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

/* Element @index of the argument "bitmaps": a name, or an object of "node" and "name". *ref: (out): its name is that of the list.
 * Returns: 0; -EINVAL; -ENOENT: there is no such node. */
int daemon_find_bitmap_ref(Daemon *d, JsonArray *list, guint index, BlkBitmapRef *ref, GError **error);

#endif
