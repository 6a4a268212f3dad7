/* SPDX-License-Identifier: MIT */
/*
 * fault_break.c - breakpoints of the fault filter: a request that reaches an event waits until it is told to go on.
 *
 * A breakpoint holds up one request, then it is used up. Of several that wait at one tag the newest goes on first. One
 * request may be held up by several breakpoints at once; it goes on after the last of them.
 */
#include "filters/fault.h"

void fault_co_break(FaultState *s, unsigned event)
{
    unsigned pending = 0;

    for (GList *l = s->breaks.head; l; l = l->next) {
        FaultBreak *b = l->data;

        if (b->event == event && !b->co) {
            b->co = blk_co_self();
            b->pending = &pending;
            pending++;
        }
    }
    while (pending > 0) {
        blk_co_yield();
    }
}

int fault_break_set(FaultState *s, const char *event, const char *tag, GError **error)
{
    BlkEvent found;

    if (!blk_event_find(event, &found)) {
        return blk_error(error, -ENOENT, "Unknown event '%s'", event);
    }
    FaultBreak *b = g_new0(FaultBreak, 1);
    b->event = found;
    b->tag = g_strdup(tag);
    g_queue_push_head(&s->breaks, b);
    return 0;
}

static void break_free(FaultState *s, GList *link)
{
    FaultBreak *b = link->data;

    if (b->co && --*b->pending == 0) {
        blk_co_wake(b->co);
    }
    g_free(b->tag);
    g_free(b);
    g_queue_delete_link(&s->breaks, link);
}

static bool tag_matches(const FaultBreak *b, const char *tag)
{
    return g_str_equal(tag, "*") || g_str_equal(b->tag, tag);
}

int fault_break_resume(FaultState *s, const char *tag, bool remove)
{
    int ret = -ENOENT;

    for (GList *l = s->breaks.head, *next; l; l = next) {
        FaultBreak *b = l->data;

        next = l->next;
        if (tag_matches(b, tag) && (remove || b->co)) {
            break_free(s, l);
            ret = 0;
            if (!remove) {
                break;
            }
        }
    }
    return ret;
}

bool fault_break_is_suspended(FaultState *s, const char *tag)
{
    for (GList *l = s->breaks.head; l; l = l->next) {
        FaultBreak *b = l->data;

        if (b->co && tag_matches(b, tag)) {
            return true;
        }
    }
    return false;
}
