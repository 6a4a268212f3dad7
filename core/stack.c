/* SPDX-License-Identifier: MIT */
/*
 * stack.c - room for what recurs along a backing chain.
 *
 * Layers are plain calls on one stack of fixed size, and a chain may be longer than fits. What recurs asks before it
 * goes down a step whether it should go on with a stack of its own.
 */
#include "core/stack.h"

#include "core/coroutine.h"

#include <unistd.h>

#define STEP_BYTES ((uintptr_t)48 * 1024)       /* what one step down may take, with the driver and the engine */

bool blk_stack_is_short(void)
{
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    uintptr_t bottom = (uintptr_t)blk_co_self()->mapping + sysconf(_SC_PAGESIZE);

    return here - bottom < STEP_BYTES;
}

int blk_co_call_fresh(BlkCoFn *fn, void *opaque)
{
    BlkCoGroup group = BLK_CO_GROUP_INIT(1);

    blk_co_group_run(&group, fn, opaque);
    return blk_co_group_wait(&group);
}
