/* SPDX-License-Identifier: MIT */
/*
 * throttle_group.c - the object throttle-group: limits that several nodes share fairly.
 *
 *     turns:  lane (node A, reads) -> lane (node B, writes) -> ...      those in which somebody waits
 *                waiting: request, request, ...
 *
 * Lanes take turns, one request each; a lane that has had its turn goes to the end of the queue. One that may not go yet
 * keeps its place, and does not hold up the others: reads may be free while writes must wait. A timer runs until the first
 * of them may go. So no node and no direction starves, however many requests another one sends.
 *
 * Limitation: turns are counted in requests, not in bytes: a node that sends larger ones gets more bytes.
 */
#include "core/throttle_group.h"

#include "core/loop.h"
#include "core/node.h"
#include "core/throttle.h"

#include <string.h>

typedef struct Group {
    BlkThrottle throttle;
    GQueue turns;               /* BlkThrottleLane, by its turn */
    BlkTimer timer;
    BlkContext *ctx;
} Group;

/* On the stack of who waits. */
typedef struct Waiter {
    BlkCo *co;
    uint64_t bytes;
    bool may_go;
    GList link;
} Waiter;

/* ---- letting go ---- */

/* The first request of @lane, in which one waits. */
static void let_go(Group *group, BlkThrottleLane *lane, uint64_t now_ns)
{
    GList *link = g_queue_pop_head_link(&lane->waiting);
    Waiter *waiter = link->data;

    g_queue_unlink(&group->turns, &lane->turn);
    if (lane->waiting.head) {
        g_queue_push_tail_link(&group->turns, &lane->turn);
    }
    blk_throttle_spend(&group->throttle, lane->write, waiter->bytes, now_ns);
    waiter->may_go = true;
    if (waiter->co != blk_co_self()) {
        blk_co_wake(waiter->co);
    }
}

/* The first lane whose turn it is and that may go. *due_ns: (out): if there is none: when one may; 0: nobody waits. */
static BlkThrottleLane *next_lane(const Group *group, uint64_t now_ns, uint64_t *due_ns)
{
    *due_ns = 0;
    for (GList *l = group->turns.head; l; l = l->next) {
        BlkThrottleLane *lane = l->data;
        uint64_t lane_due_ns = blk_throttle_when(&group->throttle, lane->write, now_ns);

        if (lane_due_ns == 0) {
            return lane;
        }
        *due_ns = *due_ns == 0 ? lane_due_ns : MIN(*due_ns, lane_due_ns);
    }
    return NULL;
}

static void timer_expired(BlkTimer *timer);

static void dispatch(Group *group)
{
    uint64_t now_ns = blk_clock_ns(), due_ns;
    BlkThrottleLane *lane;

    while ((lane = next_lane(group, now_ns, &due_ns))) {
        let_go(group, lane, now_ns);
    }
    blk_timer_stop(&group->ctx->timers, &group->timer);
    if (due_ns > 0) {
        blk_timer_start(&group->ctx->timers, &group->timer, due_ns, timer_expired);
    }
}

static void timer_expired(BlkTimer *timer)
{
    dispatch((Group *)((char *)timer - G_STRUCT_OFFSET(Group, timer)));
}

/* ---- members ---- */

int blk_throttle_join(BlkThrottleMember *member, BlkNode *node, const char *id, GError **error)
{
    BlkObject *object = blk_object_find(node->ctx, id);

    if (!object || object->type != &blk_object_throttle_group) {
        return blk_error(error, -EINVAL, "Throttle group '%.*s' does not exist", 64, id);
    }
    *member = (BlkThrottleMember) { .node = node, .group = blk_object_use(node->ctx, id, NULL) };
    for (unsigned i = 0; i < 2; i++) {
        member->lanes[i].write = i == 1;
        member->lanes[i].turn.data = &member->lanes[i];
    }
    return 0;
}

void blk_throttle_leave(BlkThrottleMember *member)
{
    g_assert(!member->lanes[0].waiting.head && !member->lanes[1].waiting.head);
    blk_object_unuse(member->group);
    member->group = NULL;
}

void blk_throttle_co_wait(BlkThrottleMember *member, bool write, uint64_t bytes)
{
    Group *group = member->group->opaque;
    BlkThrottleLane *lane = &member->lanes[write];
    Waiter waiter = { .co = blk_co_self(), .bytes = bytes, .link.data = &waiter };

    if (!lane->waiting.head) {
        g_queue_push_tail_link(&group->turns, &lane->turn);
    }
    g_queue_push_tail_link(&lane->waiting, &waiter.link);
    dispatch(group);
    if (!waiter.may_go && blk_node_is_hurried(member->node)) {
        blk_throttle_hurry(member);
    }
    while (!waiter.may_go) {
        blk_co_yield();
    }
}

void blk_throttle_hurry(BlkThrottleMember *member)
{
    Group *group = member->group->opaque;
    uint64_t now_ns = blk_clock_ns();

    for (unsigned i = 0; i < 2; i++) {
        while (member->lanes[i].waiting.head) {
            let_go(group, &member->lanes[i], now_ns);
        }
    }
    dispatch(group);            /* the others may have to wait longer, or nobody is left who does */
}

/* ---- the object ---- */

static int group_init(BlkObject *object, const BlkOptions *options, GError **error)
{
    Group *group = object->opaque;
    BlkThrottleLimits limits;
    int ret;

    group->ctx = object->ctx;
    blk_throttle_limits_init(&limits);
    ret = blk_throttle_limits_change(&limits, options, error);
    blk_throttle_set(&group->throttle, &limits);
    return ret;
}

static int group_set(BlkObject *object, const char *property, const BlkOptions *options, GError **error)
{
    Group *group = object->opaque;
    BlkThrottleLimits limits = group->throttle.limits;
    int ret;

    if (strcmp(property, "limits") != 0) {
        return blk_error(error, -EINVAL, "Property cannot be set after initialization");
    }
    ret = blk_throttle_limits_change(&limits, options, error);
    if (ret == 0) {
        blk_throttle_set(&group->throttle, &limits);
        dispatch(group);
    }
    return ret;
}

static JsonNode *group_get(const BlkObject *object, const char *property)
{
    const BlkThrottleLimits *limits = &((const Group *)object->opaque)->throttle.limits;
    g_autoptr(JsonObject) members = blk_throttle_describe(limits);

    if (strcmp(property, "limits") == 0) {
        return json_node_init_object(json_node_alloc(), members);
    }
    return g_str_has_prefix(property, "x-") ? json_object_dup_member(members, property + strlen("x-")) : NULL;
}

const BlkObjectType blk_object_throttle_group = {
    .name          = "throttle-group",
    .help          = "limits of bytes and requests a second, which throttle nodes share",
    .options       = blk_throttle_options,
    .instance_size = sizeof(Group),
    .init          = group_init,
    .set           = group_set,
    .get           = group_get,
};
