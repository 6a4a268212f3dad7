/* SPDX-License-Identifier: MIT */
/*
 * timer.h - what is to happen at a time, in order: a heap of timers that live elsewhere.
 */
#ifndef BLKSTACK_CORE_TIMER_H
#define BLKSTACK_CORE_TIMER_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* Lives in the structure of who waits; zero-initialised. */
typedef struct BlkTimer BlkTimer;
struct BlkTimer {
    uint64_t deadline_ns;           /* CLOCK_MONOTONIC */
    uint64_t sequence;              /* equal deadlines end in the order of their beginning */
    unsigned place;                 /* in the heap, counted from 1; 0: it does not run */
    void (*expire)(BlkTimer *timer);
};

typedef struct BlkTimerHeap {
    GPtrArray *timers;              /* a binary heap, the first to end at 0 */
    uint64_t sequence;
} BlkTimerHeap;

void blk_timer_heap_init(BlkTimerHeap *heap);
void blk_timer_heap_clear(BlkTimerHeap *heap);

/* @timer, which does not run, calls @expire once at @deadline_ns, which may have passed, if nobody stops it before. */
void blk_timer_start(BlkTimerHeap *heap, BlkTimer *timer, uint64_t deadline_ns, void (*expire)(BlkTimer *timer));
void blk_timer_stop(BlkTimerHeap *heap, BlkTimer *timer);      /* nothing if it does not run */

/* The first to end; NULL: none runs. */
const BlkTimer *blk_timer_heap_first(const BlkTimerHeap *heap);

/* Ends all whose time has come. Context: the loop. */
void blk_timer_heap_expire(BlkTimerHeap *heap);

uint64_t blk_clock_ns(void);        /* CLOCK_MONOTONIC */

#endif
