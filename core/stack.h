/* SPDX-License-Identifier: MIT */
/*
 * stack.h - room for what recurs along a backing chain. Context: coroutine.
 */
#ifndef BLKSTACK_CORE_STACK_H
#define BLKSTACK_CORE_STACK_H

#include <blkstack/blkstack.h>

/* Whether the running coroutine should not go down one more step of a chain on its stack. */
bool blk_stack_is_short(void);
/* Runs @fn(@opaque) on another stack and waits for it. Returns: 0, or the negative errno that @fn returned. */
int blk_co_call_fresh(BlkCoFn *fn, void *opaque);

#endif
