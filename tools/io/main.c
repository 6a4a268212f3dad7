/* SPDX-License-Identifier: MIT */
/*
 * main.c - blkstack-io: sends single requests to a stack of nodes.
 *
 * Commands come from -c or, one per line, from standard input. Exit code 1: something could not be opened or a command
 * failed.
 */
#include "config.h"
#include "io/io.h"

#include <stdlib.h>

typedef struct Arguments {
    const char *name, *format, *aio;
    IoOpenFlags flags;
    bool image_opts, misalign;
    GPtrArray *commands, *objects;
} Arguments;

static void print_help(void)
{
    printf("Usage: %s [OPTIONS]... [-c COMMAND]... [FILE]\n"
           "Sends single requests to an image or to a graph of block nodes.\n"
           "\n"
           "  --image-opts         FILE is options: key=value,... or a JSON object\n"
           "  -c, --cmd COMMAND    run this command instead of those on standard input\n"
           "  -f, --format FMT     the driver; without it the format is detected\n"
           "  -r, --read-only      open read-only\n"
           "  -s, --snapshot       write to a temporary overlay that is lost at the end\n"
           "  -n, --nocache        bypass the host's cache, the same as -t none\n"
           "  -C, --copy-on-read   store what is read from the backing file\n"
           "  -m, --misalign       use buffers that O_DIRECT cannot take\n"
           "  -k, --native-aio     the same as -i native\n"
           "  -i, --aio=MODE       I/O engine: threads, io_uring or native (io_uring if it works here)\n"
           "  -t, --cache=MODE     none, off, writeback, writethrough, directsync or unsafe\n"
           "  -d, --discard=MODE   ignore (off) or unmap (on): whether discards reach the host\n"
           "  -U, --force-share    take no locks against other programs\n"
           "      --object=OPTS    an object that options refer to: TYPE,id=ID,...; help lists the types\n"
           "  -T, --trace=OPTS     taken for scripts that have it; does nothing\n"
           "  -h, --help           print this\n"
           "  -V, --version        print the version\n"
           "\n"
           "'%s -c help' lists the commands.\n",
           tool_program(), tool_program());
}

static const char short_options[] = ":hVc:d:f:rsnCmki:t:UT:";
static const struct option long_options[] = {
    { "help", no_argument, NULL, 'h' },
    { "version", no_argument, NULL, 'V' },
    { "cmd", required_argument, NULL, 'c' },
    { "format", required_argument, NULL, 'f' },
    { "read-only", no_argument, NULL, 'r' },
    { "snapshot", no_argument, NULL, 's' },
    { "nocache", no_argument, NULL, 'n' },
    { "copy-on-read", no_argument, NULL, 'C' },
    { "misalign", no_argument, NULL, 'm' },
    { "native-aio", no_argument, NULL, 'k' },
    { "aio", required_argument, NULL, 'i' },
    { "discard", required_argument, NULL, 'd' },
    { "cache", required_argument, NULL, 't' },
    { "trace", required_argument, NULL, 'T' },
    { "force-share", no_argument, NULL, 'U' },
    { "image-opts", no_argument, NULL, 'O' },
    { "object", required_argument, NULL, 'B' },
    { NULL, 0, NULL, 0 },
};

/* Returns: 0: go on; 1: done, all is well; -1: failed. */
static int take_option(Arguments *args, int c, char **argv)
{
    switch (c) {
    case 'c':
        g_ptr_array_add(args->commands, optarg);
        return 0;
    case 'f':
        args->format = optarg;
        return 0;
    case 'r':
        args->flags.read_only = true;
        return 0;
    case 's':
        args->flags.snapshot = true;
        return 0;
    case 'n':
        return io_set_cache(&args->flags, "none") ? 0 : -1;
    case 'C':
        args->flags.copy_on_read = true;
        return 0;
    case 'm':
        args->misalign = true;
        return 0;
    case 'k':
        return 0;
    case 'i':
        args->aio = strcmp(optarg, "native") == 0 ? NULL : optarg;
        return io_check_aio(optarg) ? 0 : -1;
    case 't':
        return io_set_cache(&args->flags, optarg) ? 0 : -1;
    case 'd':
        return io_set_discard(&args->flags, optarg) ? 0 : -1;
    case 'U':
        args->flags.force_share = true;
        return 0;
    case 'T':
        return tool_take_trace(optarg) ? 1 : 0;
    case 'B':
        g_ptr_array_add(args->objects, optarg);
        return 0;
    case 'O':
        args->image_opts = true;
        return 0;
    case 'h':
        print_help();
        return 1;
    case 'V':
        printf("%s version %s\n", tool_program(), BLK_VERSION);
        return 1;
    default:
        tool_option_error(c, argv);
        fprintf(stderr, "Try '%s --help' for more information.\n", tool_program());
        return -1;
    }
}

static int parse_arguments(Arguments *args, int argc, char **argv)
{
    int c, ret = 0;

    while (ret == 0 && (c = getopt_long(argc, argv, short_options, long_options, NULL)) != -1) {
        ret = take_option(args, c, argv);
    }
    if (ret != 0) {
        return ret;
    }
    if (argc - optind > 1) {
        tool_error("Unexpected argument: %s", argv[optind + 1]);
        fprintf(stderr, "Try '%s --help' for more information.\n", tool_program());
        return -1;
    }
    if (args->format && args->image_opts) {
        tool_error("--image-opts and -f are mutually exclusive");
        return -1;
    }
    args->name = argv[optind];
    return 0;
}

/* ---- commands ---- */

typedef struct InputLine {
    char *text;
    size_t size;
    bool end;
} InputLine;

static int read_line(void *opaque)
{
    InputLine *line = opaque;
    ssize_t n = getline(&line->text, &line->size, stdin);

    line->end = n < 0;
    if (n > 0 && line->text[n - 1] == '\n') {
        line->text[n - 1] = '\0';
    }
    return 0;
}

static void co_run_command(IoSession *session, const char *text)
{
    if (io_co_run_line(session, text) < 0) {
        session->failed = true;
    }
}

static void co_run_input(IoSession *session)
{
    InputLine line = { 0 };

    while (!session->quit) {
        printf("%s> ", tool_program());
        fflush(stdout);
        /* A blocking read on a thread: requests in flight go on. */
        if (blk_aio_co_call(session->ctx, read_line, &line) < 0 || line.end) {
            break;
        }
        co_run_command(session, line.text);
    }
    free(line.text);
}

typedef struct Program {
    const Arguments *args;
    IoSession *session;
} Program;

static int co_main(void *opaque)
{
    const Arguments *args = ((Program *)opaque)->args;
    IoSession *session = ((Program *)opaque)->session;

    if (args->name && io_co_open(session, args->name, args->format, NULL, &args->flags) < 0) {
        return 1;
    }
    if (args->commands->len == 0) {
        co_run_input(session);
    }
    for (guint i = 0; i < args->commands->len && !session->quit; i++) {
        co_run_command(session, g_ptr_array_index(args->commands, i));
    }
    io_co_close(session);
    return session->failed ? 1 : 0;
}

static int run_program(const Arguments *args)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BlkContext) ctx = blk_context_new(args->aio, &error);
    IoSession session = { .ctx = ctx, .image_opts = args->image_opts, .misalign = args->misalign };
    Program program = { args, &session };
    int code;

    if (!ctx) {
        tool_error("%s", error->message);
        return EXIT_FAILURE;
    }
    blk_context_set_message_handler(ctx, tool_node_message, NULL);
    session.breakpoints = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    code = tool_add_objects(ctx, args->objects);
    if (code == 0) {
        code = blk_run(ctx, co_main, &program);
    } else {
        code = code < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
    }
    g_hash_table_unref(session.breakpoints);
    return code;
}

int main(int argc, char **argv)
{
    g_autoptr(GPtrArray) commands = g_ptr_array_new(), objects = g_ptr_array_new();
    Arguments args = { .commands = commands, .objects = objects };
    int ret;

    tool_begin(argv[0]);
    tool_turn_signals_into_errors();
    setvbuf(stdout, NULL, _IOLBF, 0);
    ret = parse_arguments(&args, argc, argv);
    ret = ret == 0 ? run_program(&args) : ret < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
    return tool_end(ret, EXIT_FAILURE);
}
