/* SPDX-License-Identifier: MIT */
/*
 * sync.c - coroutines that wait for each other: queue, mutex, group of tasks.
 */
#include "core/loop.h"

struct BlkCoWaiter {
    BlkCo *co;
    BlkCoWaiter *next;
};

void blk_co_queue_wait(BlkCoQueue *queue)
{
    BlkCoWaiter waiter = { .co = blk_co_self() };

    if (queue->tail) {
        queue->tail->next = &waiter;
    } else {
        queue->head = &waiter;
    }
    queue->tail = &waiter;
    blk_co_yield();
}

bool blk_co_queue_wake_one(BlkCoQueue *queue)
{
    BlkCoWaiter *waiter = queue->head;

    if (waiter == NULL) {
        return false;
    }
    queue->head = waiter->next;
    if (queue->head == NULL) {
        queue->tail = NULL;
    }
    blk_co_wake(waiter->co);
    return true;
}

void blk_co_queue_wake_all(BlkCoQueue *queue)
{
    while (blk_co_queue_wake_one(queue)) {
    }
}

void blk_co_mutex_lock(BlkCoMutex *mutex)
{
    if (mutex->locked) {
        blk_co_queue_wait(&mutex->waiters);
    }
    mutex->locked = true;
}

void blk_co_mutex_unlock(BlkCoMutex *mutex)
{
    g_assert(mutex->locked);
    mutex->locked = blk_co_queue_wake_one(&mutex->waiters);
}

static void group_wait_for_task(BlkCoGroup *group)
{
    g_assert(group->waiter == NULL);
    group->waiter = blk_co_self();
    blk_co_yield();
}

int blk_co_group_run(BlkCoGroup *group, BlkCoFn *fn, void *opaque)
{
    g_assert(group->limit > 0);
    while (group->running >= group->limit) {
        group_wait_for_task(group);
    }
    if (group->ret == 0) {
        group->running++;
        blk_context_spawn(blk_co_context(), fn, opaque, group);
    }
    return group->ret;
}

int blk_co_group_wait(BlkCoGroup *group)
{
    while (group->running > 0) {
        group_wait_for_task(group);
    }
    return group->ret;
}

void blk_co_group_task_done(BlkCoGroup *group, int ret)
{
    if (ret < 0 && group->ret == 0) {
        group->ret = ret;
    }
    group->running--;
    /* blk_co_group_run() waits for one place, blk_co_group_wait() for the last task. */
    if (group->waiter && (group->running == 0 || group->running + 1 == group->limit)) {
        blk_co_wake(group->waiter);
        group->waiter = NULL;
    }
}
