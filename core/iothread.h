/* SPDX-License-Identifier: MIT */
/*
 * iothread.h - the object iothread.
 */
#ifndef BLKSTACK_CORE_IOTHREAD_H
#define BLKSTACK_CORE_IOTHREAD_H

#include "core/object.h"

extern const BlkObjectType blk_object_iothread;

#endif
