/* SPDX-License-Identifier: MIT */
/*
 * error.c - what users are told: GError with the positive errno as its code, and messages that belong to no result.
 */
#include <blkstack/driver.h>

#include "core/loop.h"

#include <string.h>

GQuark blk_error_quark(void)
{
    return g_quark_from_static_string("blkstack");
}

static int G_GNUC_PRINTF(3, 0) set_error(GError **error, int ret, const char *format, va_list args, bool add_errno)
{
    g_assert(ret < 0);
    if (error) {
        g_autofree char *text = g_strdup_vprintf(format, args);

        g_set_error(error, BLK_ERROR, -ret, "%s%s%s", text, add_errno ? ": " : "", add_errno ? g_strerror(-ret) : "");
    }
    return ret;
}

int blk_error(GError **error, int ret, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    set_error(error, ret, format, args, false);
    va_end(args);
    return ret;
}

int blk_error_errno(GError **error, int ret, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    set_error(error, ret, format, args, true);
    va_end(args);
    return ret;
}

char *blk_printable_text(const char *text, size_t max_bytes)
{
    char *valid = g_utf8_make_valid(text, -1);

    if (strlen(valid) > max_bytes) {
        *g_utf8_find_prev_char(valid, valid + max_bytes + 1) = '\0';
    }
    for (char *at = valid, *next; *at; at = next) {
        next = g_utf8_next_char(at);
        if (g_unichar_iscntrl(g_utf8_get_char(at))) {
            memset(at, ' ', (size_t)(next - at));
        }
    }
    return valid;
}

void blk_context_set_message_handler(BlkContext *ctx, BlkMessageFn *fn, void *opaque)
{
    ctx->message = fn;
    ctx->message_opaque = opaque;
}

void blk_node_message(BlkNode *node, const char *format, ...)
{
    BlkContext *ctx = node->ctx;
    va_list args;

    if (!ctx->message) {
        return;
    }
    va_start(args, format);
    g_autofree char *what = g_strdup_vprintf(format, args);
    va_end(args);
    g_autofree char *text = g_strdup_printf("%s: %s", blk_node_filename(node), what);
    ctx->message(node, text, ctx->message_opaque);
}
