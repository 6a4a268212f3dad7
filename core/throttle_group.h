/* SPDX-License-Identifier: MIT */
/*
 * throttle_group.h - the object throttle-group: limits that several nodes share fairly.
 */
#ifndef BLKSTACK_CORE_THROTTLE_GROUP_H
#define BLKSTACK_CORE_THROTTLE_GROUP_H

#include "core/object.h"

extern const BlkObjectType blk_object_throttle_group;

/* The requests of one node, of one direction, that wait. */
typedef struct BlkThrottleLane {
    bool write;
    GQueue waiting;             /* in the order in which they came */
    GList turn;                 /* in the group's queue, if anybody waits */
} BlkThrottleLane;

/* Lives in a node's state; zero-initialised. */
typedef struct BlkThrottleMember {
    BlkNode *node;
    BlkObject *group;
    BlkThrottleLane lanes[2];   /* reads, writes */
} BlkThrottleMember;

/* @id: of a throttle-group. -EINVAL: there is none. */
int blk_throttle_join(BlkThrottleMember *member, BlkNode *node, const char *id, GError **error);
/* Nobody waits. Also of a member that has not joined. */
void blk_throttle_leave(BlkThrottleMember *member);

/* Waits until a request of @bytes may go: at once if the node, or one above, is being drained or closed. Context:
 * coroutine with a request in flight at the node; may yield. */
void blk_throttle_co_wait(BlkThrottleMember *member, bool write, uint64_t bytes);
/* All that wait go now. */
void blk_throttle_hurry(BlkThrottleMember *member);

#endif
