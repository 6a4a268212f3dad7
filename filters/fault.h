/* SPDX-License-Identifier: MIT */
/*
 * fault.h - the parts of the fault filter: fault.c (the filter), fault_rules.c (what happens at which event),
 * fault_break.c (breakpoints).
 */
#ifndef BLKSTACK_FILTERS_FAULT_H
#define BLKSTACK_FILTERS_FAULT_H

#include <blkstack/driver.h>

typedef enum FaultIo {
    FAULT_IO_READ,
    FAULT_IO_WRITE,
    FAULT_IO_WRITE_ZEROES,
    FAULT_IO_DISCARD,
    FAULT_IO_FLUSH,
    FAULT_IO_BLOCK_STATUS,
    FAULT_IO_COUNT,
} FaultIo;

enum { FAULT_EVENT_NONE = BLK_EVENT_COUNT };    /* happens once, when the filter is opened */

typedef struct FaultRule {
    enum { FAULT_INJECT, FAULT_SET_STATE } action;
    unsigned event;             /* BlkEvent or FAULT_EVENT_NONE */
    uint64_t state;             /* the rule acts in this state only; 0: in any */
    uint64_t new_state;         /* SET_STATE */
    bool armed;                 /* INJECT: its event has happened: matching requests fail */
    int ret;                    /* INJECT: negative errno */
    bool any_offset, once, immediately;
    uint64_t offset;            /* INJECT: of the sector whose requests fail, unless any_offset */
    unsigned io_mask;           /* INJECT: bits 1 << FaultIo */
} FaultRule;

/* A breakpoint: set, then, once its event has happened, what a coroutine waits for. */
typedef struct FaultBreak {
    unsigned event;
    char *tag;
    BlkCo *co;                  /* the coroutine that waits here; NULL: not reached yet */
    unsigned *pending;          /* how many breakpoints @co waits for */
} FaultBreak;

typedef struct FaultState {
    GPtrArray *rules;           /* FaultRule */
    uint64_t state;             /* begins with 1 */
    GQueue breaks;              /* FaultBreak, the newest first */
    uint64_t align, max_transfer, zeroes_align, max_zeroes, discard_align, max_discard;
    unsigned take_perm, unshare_perm;
    uint64_t requests[FAULT_IO_COUNT], bytes[FAULT_IO_COUNT];   /* that came here, also those that were failed */
    uint64_t injected;
    uint64_t events[BLK_EVENT_COUNT];       /* how often each happened */
} FaultState;

/* Index: FaultIo. NULL-terminated. */
extern const char *const fault_io_names[];

/* Of the options "inject-error" and "set-state". */
extern const BlkType fault_inject_type, fault_set_state_type;

/**
 * fault_rules_load:
 *
 * Adds the rules of the options "config" (a file), "inject-error" and "set-state" to @s->rules.
 */
int fault_rules_load(FaultState *s, const BlkOptions *options, GError **error);

/* @event has happened: arms rules and changes the state. */
void fault_rules_event(FaultState *s, unsigned event);

/* Is this request to fail? May yield. Returns: 0 or the error to return. */
int fault_co_inject(FaultState *s, FaultIo io, uint64_t offset, uint64_t bytes);

/* Waits here if a breakpoint is set on @event. May yield, and close the filter meanwhile: @s must not be used then. */
void fault_co_break(FaultState *s, unsigned event);
int fault_break_set(FaultState *s, const char *event, const char *tag, GError **error);
/* Lets the newest waiting request at @tag go on; @remove: all of them, and forgets the breakpoint. @tag "*" is any. */
int fault_break_resume(FaultState *s, const char *tag, bool remove);
bool fault_break_is_suspended(FaultState *s, const char *tag);

#endif
