/* SPDX-License-Identifier: MIT */
/*
 * main.c - blkstack-nbd: serves an image over NBD until a signal comes or, without -t, until the last client has gone.
 */
#include "common/tool.h"
#include "core/poll.h"

#include <blkstack/nbd.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <unistd.h>

typedef struct Arguments {
    ToolOpen open;
    const char *socket, *port, *name;
    unsigned shared;
    bool read_only, persistent, compress;
} Arguments;

typedef struct Program {
    BlkContext *ctx;
    const Arguments *args;
    BlkPoll signals;
} Program;

static void print_help(void)
{
    printf("Usage: %s [-f FMT] [-r] [-t] [-e NUM] [-k PATH | -p PORT] [-x NAME] [--image-opts] [--compress] FILE\n",
           tool_program());
}

static int parse_arguments(Arguments *args, int argc, char **argv)
{
    enum { OPTION_COMPRESS = 256, OPTION_IMAGE_OPTS };
    static const struct option options[] = {
        { "help", no_argument, NULL, 'h' },
        { "format", required_argument, NULL, 'f' },
        { "read-only", no_argument, NULL, 'r' },
        { "persistent", no_argument, NULL, 't' },
        { "shared", required_argument, NULL, 'e' },
        { "socket", required_argument, NULL, 'k' },
        { "port", required_argument, NULL, 'p' },
        { "export-name", required_argument, NULL, 'x' },
        { "compress", no_argument, NULL, OPTION_COMPRESS },
        { "image-opts", no_argument, NULL, OPTION_IMAGE_OPTS },
        { NULL, 0, NULL, 0 },
    };
    int c;

    while ((c = getopt_long(argc, argv, ":hf:rte:k:p:x:", options, NULL)) != -1) {
        switch (c) {
        case 'h':
            print_help();
            return 1;
        case 'f':
            args->open.format = optarg;
            break;
        case 'r':
            args->read_only = true;
            break;
        case 't':
            args->persistent = true;
            break;
        case 'e':
            args->shared = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'k':
            args->socket = optarg;
            break;
        case 'p':
            args->port = optarg;
            break;
        case 'x':
            args->name = optarg;
            break;
        case OPTION_COMPRESS:
            args->compress = true;
            break;
        case OPTION_IMAGE_OPTS:
            args->open.image_opts = true;
            break;
        default:
            tool_option_error(c, argv);
            return -1;
        }
    }
    if (optind + 1 != argc) {
        tool_error("one image is needed");
        return -1;
    }
    args->open.name = argv[optind];
    args->open.writable = !args->read_only;
    args->open.unmap = true;
    return 0;
}

/* Without -t the server ends with its last client. */
static void client_gone(BlkNbdServer *server, bool served, void *opaque)
{
    Program *program = opaque;

    if (served && !program->args->persistent && blk_nbd_server_connections(server) == 0) {
        blk_poll_cancel(&program->signals);
    }
}

static sigset_t stop_signals(void)
{
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    return signals;
}

/* Before there are threads: they take it over. */
static void block_signals(void)
{
    sigset_t signals = stop_signals();

    pthread_sigmask(SIG_BLOCK, &signals, NULL);
}

static int co_wait_for_signal(Program *program)
{
    sigset_t signals = stop_signals();
    int fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC), ret;

    if (fd < 0) {
        return -errno;
    }
    ret = blk_co_poll(&program->signals, fd, POLLIN, UINT64_MAX);
    close(fd);
    return ret == -ECANCELED ? 0 : MIN(ret, 0);
}

static JsonObject *node_options(Program *program, GError **error)
{
    JsonObject *image = tool_open_options(program->ctx, &program->args->open, error), *filter;

    if (!image || !program->args->compress) {
        return image;
    }
    filter = json_object_new();
    json_object_set_string_member(filter, "driver", "compress");
    json_object_set_object_member(filter, "file", image);
    return filter;
}

static int co_serve(Program *program, BlkNode *node, GError **error)
{
    const Arguments *args = program->args;
    const BlkNbdServerOptions options = { .closed = client_gone, .opaque = program };
    const BlkNbdExportOptions export = {
        .name = args->name, .writable = !args->read_only, .max_connections = args->shared, .allocation_depth = true,
    };
    BlkNbdServer *server = blk_nbd_server_new(program->ctx, &options, error);
    int ret = server ? blk_co_nbd_export_add(server, node, &export, error) : -EINVAL;

    if (ret == 0) {
        ret = args->socket ? blk_nbd_server_listen_unix(server, args->socket, error)
                           : blk_co_nbd_server_listen_tcp(server, NULL, args->port, error);
    }
    if (ret == 0) {
        if (!args->socket) {
            printf("port %u\n", blk_nbd_server_port(server));
            fflush(stdout);
        }
        ret = co_wait_for_signal(program);
    }
    return blk_co_nbd_server_free(server, ret == 0 ? error : NULL) < 0 ? -EIO : ret;
}

static int co_main(void *opaque)
{
    Program *program = opaque;
    GError *error = NULL;
    g_autoptr(JsonObject) tree = node_options(program, &error);
    BlkNode *node = tree ? blk_co_open(program->ctx, tree, &error) : NULL;
    int ret = node ? co_serve(program, node, &error) : -EINVAL;

    if (error) {
        tool_report(error);
    }
    blk_co_unref(node);
    return ret < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BlkContext) ctx = NULL;
    Arguments args = { .shared = 1 };
    Program program = { .args = &args };
    int ret;

    tool_set_program(argv[0]);
    block_signals();
    ret = parse_arguments(&args, argc, argv);
    if (ret != 0) {
        return ret < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
    }
    program.ctx = ctx = blk_context_new(NULL, &error);
    if (!ctx) {
        tool_error("%s", error->message);
        return EXIT_FAILURE;
    }
    blk_context_set_message_handler(ctx, tool_node_message, NULL);
    return blk_run(ctx, co_main, &program);
}
