/* SPDX-License-Identifier: MIT */
/*
 * timer.c - a binary heap of timers. Each knows its place, so that it can be taken out before its time.
 */
#include "core/timer.h"

#include <time.h>

uint64_t blk_clock_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

void blk_timer_heap_init(BlkTimerHeap *heap)
{
    heap->timers = g_ptr_array_new();
}

void blk_timer_heap_clear(BlkTimerHeap *heap)
{
    g_ptr_array_unref(heap->timers);
}

static bool before(const BlkTimer *a, const BlkTimer *b)
{
    return a->deadline_ns != b->deadline_ns ? a->deadline_ns < b->deadline_ns : a->sequence < b->sequence;
}

static void put(BlkTimerHeap *heap, unsigned at, BlkTimer *timer)
{
    heap->timers->pdata[at] = timer;
    timer->place = at + 1;
}

/* Puts @timer at the free place @at or above it. */
static void sift_up(BlkTimerHeap *heap, unsigned at, BlkTimer *timer)
{
    while (at > 0 && before(timer, heap->timers->pdata[(at - 1) / 2])) {
        put(heap, at, heap->timers->pdata[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    put(heap, at, timer);
}

/* Puts @timer at the free place @at or below it. */
static void sift_down(BlkTimerHeap *heap, unsigned at, BlkTimer *timer)
{
    void **timers = heap->timers->pdata;

    for (unsigned child = 2 * at + 1; child < heap->timers->len; child = 2 * at + 1) {
        if (child + 1 < heap->timers->len && before(timers[child + 1], timers[child])) {
            child++;
        }
        if (before(timer, timers[child])) {
            break;
        }
        put(heap, at, timers[child]);
        at = child;
    }
    put(heap, at, timer);
}

void blk_timer_start(BlkTimerHeap *heap, BlkTimer *timer, uint64_t deadline_ns, void (*expire)(BlkTimer *timer))
{
    g_assert(timer->place == 0);
    timer->deadline_ns = deadline_ns;
    timer->sequence = heap->sequence++;
    timer->expire = expire;
    g_ptr_array_add(heap->timers, timer);
    sift_up(heap, heap->timers->len - 1, timer);
}

void blk_timer_stop(BlkTimerHeap *heap, BlkTimer *timer)
{
    unsigned at = timer->place - 1;

    if (timer->place == 0) {
        return;
    }

    BlkTimer *last = heap->timers->pdata[heap->timers->len - 1];

    g_assert(heap->timers->pdata[at] == timer);
    timer->place = 0;
    g_ptr_array_set_size(heap->timers, (int)heap->timers->len - 1);
    if (last == timer) {
        return;
    }
    if (before(last, timer)) {
        sift_up(heap, at, last);
    } else {
        sift_down(heap, at, last);
    }
}

const BlkTimer *blk_timer_heap_first(const BlkTimerHeap *heap)
{
    return heap->timers->len > 0 ? heap->timers->pdata[0] : NULL;
}

void blk_timer_heap_expire(BlkTimerHeap *heap)
{
    uint64_t now = heap->timers->len > 0 ? blk_clock_ns() : 0;

    while (heap->timers->len > 0) {
        BlkTimer *first = heap->timers->pdata[0];

        if (first->deadline_ns > now) {
            break;
        }
        blk_timer_stop(heap, first);
        first->expire(first);
    }
}
