/* SPDX-License-Identifier: MIT */
/*
 * main.c - blkstack-nbd: serves an image over NBD.
 */
#include "nbd/nbd.h"

#include <stdlib.h>

/* With a context, which has no threads before, and the objects. */
static int run(NbdArgs *args, ToolProcess *process)
{
    bool chosen = args->aio && strcmp(args->aio, "native") != 0;
    g_autoptr(GError) error = NULL;
    g_autoptr(BlkContext) ctx = blk_context_new(chosen ? args->aio : NULL, &error);
    int ret;

    if (!ctx) {
        tool_error("%s", error->message);
        return EXIT_FAILURE;
    }
    blk_context_set_message_handler(ctx, tool_node_message, NULL);
    ret = tool_add_objects(ctx, args->objects);
    if (ret != 0) {
        return ret < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
    }
    return args->list ? blk_run(ctx, nbd_co_list, args) : nbd_serve(ctx, args, process);
}

static int start(NbdArgs *args)
{
    ToolProcess process = TOOL_PROCESS_INIT;
    GError *error = NULL;
    int status;

    process.verbose = args->verbose;
    if (args->list) {
        return run(args, &process);
    }
    tool_block_signals();
    if (nbd_check_inherited(args->inherited, &error) < 0 || (args->fork && tool_process_fork(&process, &error) < 0)) {
        tool_report(error);
        return EXIT_FAILURE;
    }
    status = run(args, &process);
    tool_process_end(&process);
    return status;
}

int main(int argc, char **argv)
{
    NbdArgs args;
    int ret;

    tool_begin(argv[0]);
    tool_turn_signals_into_errors();
    nbd_args_init(&args);
    ret = nbd_parse_args(&args, argc, argv);
    if (ret == 0) {
        ret = start(&args);
    } else {
        ret = ret < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
    }
    nbd_args_clear(&args);
    return tool_end(ret, EXIT_FAILURE);
}
