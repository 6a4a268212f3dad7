/* SPDX-License-Identifier: MIT */
/*
 * no_engine.h - lets a test of the graph link without the format engine: stand-ins that yield to the real functions.
 */
#ifndef BLKSTACK_TEST_NO_ENGINE_H
#define BLKSTACK_TEST_NO_ENGINE_H

#include "core/engine.h"

#define STAND_IN __attribute__((weak))

STAND_IN BlkEngine *blk_engine_new(void)
{
    return NULL;
}

STAND_IN void blk_engine_free(BlkEngine *engine)
{
}

STAND_IN int blk_engine_co_preadv(BlkNode *node, BlkRequest *req)
{
    return -EIO;
}

STAND_IN int blk_engine_co_pwritev(BlkNode *node, BlkRequest *req)
{
    return -EIO;
}

STAND_IN int blk_engine_co_pwrite_zeroes(BlkNode *node, BlkRequest *req)
{
    return -EIO;
}

STAND_IN int blk_engine_co_discard(BlkNode *node, BlkRequest *req)
{
    return -EIO;
}

STAND_IN int blk_engine_co_flush(BlkNode *node)
{
    return -EIO;
}

STAND_IN int blk_engine_co_block_status(BlkNode *node, uint64_t offset, uint64_t bytes, BlkStatus *status)
{
    return -EIO;
}

#endif
