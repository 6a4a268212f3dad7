/* SPDX-License-Identifier: MIT */
/*
 * reopen.h - open nodes that become what they were not opened as, several at once, whole or not at all. See docs/graph.md.
 */
#ifndef BLKSTACK_CORE_REOPEN_H
#define BLKSTACK_CORE_REOPEN_H

#include "core/node.h"

typedef struct BlkReopenSet BlkReopenSet;

BlkReopenSet *blk_reopen_set_new(void);

/* @node becomes what is said here, if the set is carried out; once for each node, children before their parents.
 * @options: (transfer full) (nullable): of its driver, if these change; @tree: (transfer full) (nullable): what they come from. */
void blk_reopen_set_add(BlkReopenSet *set, BlkNode *node, const BlkOpenFlags *flags, bool read_only, BlkOptions *options,
                        JsonObject *tree);
bool blk_reopen_set_has(const BlkReopenSet *set, const BlkNode *node);

/* The child @name of @parent, which is in the set, becomes @child; NULL: none, which only "backing" may be. */
void blk_reopen_set_change_child(BlkReopenSet *set, BlkNode *parent, const char *name, BlkNode *child);

/* Carries it out. After an error all nodes are what they were. Context: coroutine with no request of its own in flight at the
 * nodes; may yield. */
int blk_co_reopen_set_run(BlkReopenSet *set, GError **error);

void blk_reopen_set_free(BlkReopenSet *set);

#endif
