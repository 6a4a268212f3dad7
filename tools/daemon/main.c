/* SPDX-License-Identifier: MIT */
/*
 * main.c - blkstack-daemon: a graph of nodes that is steered by commands, with jobs and exports.
 */
#include "daemon/daemon.h"

#include <stdlib.h>

int main(int argc, char **argv)
{
    DaemonArgs args;
    int ret;

    tool_begin(argv[0]);
    tool_turn_signals_into_errors();
    daemon_args_init(&args);
    ret = daemon_parse_args(&args, argc, argv);
    if (ret == 0) {
        ret = daemon_main(&args);
    } else {
        ret = ret < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
    }
    daemon_args_clear(&args);
    return tool_end(ret, EXIT_FAILURE);
}
