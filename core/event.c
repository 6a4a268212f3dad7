/* SPDX-License-Identifier: MIT */
/*
 * event.c - debugging points: their names, and the way down to the fault filters that act on them; marks, for filters that
 * record.
 */
#include "core/node.h"

#include <string.h>

const char *blk_event_name(BlkEvent event)
{
#define EVENT_NAME(name) [BLK_EVENT_##name] = #name,
    static const char *const names[] = { BLK_EVENTS(EVENT_NAME) };
#undef EVENT_NAME

    return names[event];
}

bool blk_event_find(const char *name, BlkEvent *event)
{
    for (unsigned i = 0; i < BLK_EVENT_COUNT; i++) {
        if (strcmp(name, blk_event_name(i)) == 0) {
            *event = i;
            return true;
        }
    }
    return false;
}

/* The way that data takes: the image file of a format, what a filter stands for. */
static BlkNode *next_below(const BlkNode *node)
{
    return node->file ? node->file->node : NULL;
}

void blk_co_event(BlkNode *node, BlkEvent event)
{
    for (BlkNode *next; node; node = next) {
        /* First, since the node may have been taken out of the graph when its op returns. */
        next = next_below(node);
        if (node->driver->co_event) {
            node->driver->co_event(node, event);
        }
    }
}

int blk_breakpoint_set(BlkNode *node, const char *event, const char *tag, GError **error)
{
    for (; node; node = next_below(node)) {
        if (node->driver->breakpoint_set) {
            return node->driver->breakpoint_set(node, event, tag, error);
        }
    }
    return blk_error(error, -ENOTSUP, "There is no fault filter in the stack");
}

static int breakpoint_resume(BlkNode *node, const char *tag, bool remove)
{
    for (; node; node = next_below(node)) {
        if (node->driver->breakpoint_resume) {
            return node->driver->breakpoint_resume(node, tag, remove);
        }
    }
    return -ENOTSUP;
}

int blk_breakpoint_resume(BlkNode *node, const char *tag)
{
    return breakpoint_resume(node, tag, false);
}

int blk_breakpoint_remove(BlkNode *node, const char *tag)
{
    return breakpoint_resume(node, tag, true);
}

bool blk_breakpoint_is_suspended(BlkNode *node, const char *tag)
{
    for (; node; node = next_below(node)) {
        if (node->driver->breakpoint_is_suspended) {
            return node->driver->breakpoint_is_suspended(node, tag);
        }
    }
    return false;
}

int blk_co_mark(BlkNode *node, const char *text, GError **error)
{
    for (; node; node = next_below(node)) {
        if (node->driver->co_mark) {
            return node->driver->co_mark(node, text, error);
        }
    }
    return blk_error(error, -ENOTSUP, "There is no log-writes filter in the stack");
}
