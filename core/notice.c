/* SPDX-License-Identifier: MIT */
/*
 * notice.c - what a program that controls the graph is told without having asked.
 */
#include "core/loop.h"

void blk_context_set_notice_handler(BlkContext *ctx, BlkNoticeFn *fn, void *opaque)
{
    ctx->notice = fn;
    ctx->notice_opaque = opaque;
}

bool blk_context_wants_notices(const BlkContext *ctx)
{
    return ctx->notice != NULL;
}

void blk_notify(BlkContext *ctx, const char *name, JsonObject *data)
{
    if (ctx->notice) {
        ctx->notice(ctx, name, data, ctx->notice_opaque);
    }
    g_clear_pointer(&data, json_object_unref);
}
