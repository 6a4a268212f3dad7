/* SPDX-License-Identifier: MIT */
/*
 * serve.c - the server: it begins when the image is open and everything is known to be right, and ends in order.
 *
 * What ends it, a signal or the last client, wakes the one coroutine that waits; it stops listening, lets what is in flight
 * be answered, and flushes. Signals that come meanwhile wait: an impatient second one must not lose what was written.
 */
#include "nbd/nbd.h"

#include <blkstack/nbd.h>
#include <stdio.h>

typedef struct Program {
    BlkContext *ctx;
    const NbdArgs *args;
    ToolProcess *process;
    BlkPoll signals;
    bool over;                      /* the last client has gone */
} Program;

/* ---- what ends it ---- */

static void client_gone(BlkNbdServer *server, bool served, void *opaque)
{
    Program *program = opaque;

    if (served && !program->args->persistent && blk_nbd_server_connections(server) == 0) {
        program->over = true;
        blk_poll_cancel(&program->signals);
    }
}

static void client_refused(BlkNbdServer *server, const char *text, void *unused)
{
    g_autofree char *printable = tool_printable(text);      /* it may have a name in it that the client chose */

    tool_error("%s", printable);
}

/* ---- the server ---- */

static int listen_inherited(BlkNbdServer *server, unsigned count, GError **error)
{
    int ret = 0;

    for (unsigned i = 0; i < count && ret == 0; i++) {
        ret = blk_nbd_server_listen_fd(server, NBD_FIRST_INHERITED + (int)i, error);
    }
    return ret;
}

static int co_listen(BlkNbdServer *server, const NbdArgs *args, GError **error)
{
    int ret;

    if (args->inherited > 0) {
        return listen_inherited(server, args->inherited, error);
    }
    if (args->socket) {
        return blk_nbd_server_listen_unix(server, args->socket, error);
    }
    ret = blk_co_nbd_server_listen_tcp(server, args->bind, args->port, error);
    if (ret == 0 && args->port && strcmp(args->port, "0") == 0) {
        printf("port %u\n", blk_nbd_server_port(server));
        fflush(stdout);
    }
    return ret;
}

static int co_add_export(BlkNbdServer *server, BlkNode *node, const NbdArgs *args, GError **error)
{
    const BlkNbdExportOptions options = {
        .name = args->name,
        .description = args->description,
        .writable = !args->read_only,
        .writethrough = args->open.cache.writethrough,
        .max_connections = args->shared,
        .bitmaps = (const BlkBitmapRef *)(const void *)args->bitmaps->data,
        .allocation_depth = args->allocation_depth,
    };

    return blk_co_nbd_export_add(server, node, &options, error);
}

static BlkNbdServer *make_server(Program *program, GError **error)
{
    const BlkNbdServerOptions options = {
        .tls_creds = program->args->tls_creds,
        .tls_required = program->args->tls_creds,
        .tls_authz = program->args->tls_authz,
        .closed = client_gone,
        .refused = client_refused,
        .opaque = program,
    };

    return blk_nbd_server_new(program->ctx, &options, error);
}

static int co_serve(Program *program, BlkNode *node, GError **error)
{
    const NbdArgs *args = program->args;
    BlkNbdServer *server = make_server(program, error);
    int ret = server ? co_add_export(server, node, args, error) : -EINVAL;
    int freed;

    if (ret == 0) {
        ret = co_listen(server, args, error);
    }
    if (ret == 0 && args->pid_file) {
        ret = tool_process_write_pid(program->process, args->pid_file, error);
    }
    if (ret == 0) {
        tool_process_ready(program->process);
        ret = tool_co_wait_for_signal(&program->signals, &program->over, error);
    }
    freed = blk_co_nbd_server_free(server, ret == 0 ? error : NULL);
    return ret < 0 ? ret : freed;
}

static int co_main(void *opaque)
{
    Program *program = opaque;
    NbdStack stack = { .top = NULL };
    GError *error = NULL;
    int ret = nbd_co_stack_open(&stack, program->ctx, program->args, &error);

    if (ret == 0) {
        ret = co_serve(program, stack.top, &error);
    }
    nbd_co_stack_close(&stack);
    if (ret < 0) {
        tool_report(error);
    }
    return ret < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int nbd_serve(BlkContext *ctx, const NbdArgs *args, ToolProcess *process)
{
    Program program = { .ctx = ctx, .args = args, .process = process };

    return blk_run(ctx, co_main, &program);
}
