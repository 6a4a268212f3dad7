/* SPDX-License-Identifier: MIT */
/*
 * main.c - blkstack-ctl: a client of the control socket of blkstack-daemon, or of another program that speaks QMP.
 */
#include "config.h"
#include "ctl/ctl.h"

#include <stdio.h>

enum { TIMEOUT = 60, MAX_SECONDS = 1000000 };

typedef struct Args {
    CtlOptions options;
    double timeout;         /* seconds */
    GPtrArray *lines;       /* char *: of -e */
    const char *address;
    char **words;           /* what follows it */
} Args;

static const char short_options[] = ":e:EH:jkt:w::hV";
static const struct option long_options[] = {
    { "execute", required_argument, NULL, 'e' },
    { "events", no_argument, NULL, 'E' },
    { "history", required_argument, NULL, 'H' },
    { "json", no_argument, NULL, 'j' },
    { "keep-going", no_argument, NULL, 'k' },
    { "timeout", required_argument, NULL, 't' },
    { "wait", optional_argument, NULL, 'w' },
    { "help", no_argument, NULL, 'h' },
    { "version", no_argument, NULL, 'V' },
    { NULL },
};

static void print_usage(void)
{
    printf("Usage: %s [OPTIONS] SOCKET [COMMAND [key=value... | JSON]]\n"
           "Sends commands to the daemon whose monitor is the unix socket SOCKET, or HOST:PORT: COMMAND, those of -e,\n"
           "or lines that are typed or stand on standard input.\n"
           "\n"
           "  -h, --help             print this\n"
           "  -V, --version          print the version\n"
           "  -e, --execute LINE     a command, as it would be typed; may be given several times\n"
           "  -E, --events           print events as they come\n"
           "  -H, --history FILE     keep there what is typed\n"
           "  -j, --json             print replies as they are, one a line\n"
           "  -k, --keep-going       go on after a command that failed\n"
           "  -t, --timeout SECONDS  how long the daemon may take for a reply (default: %d; 0: any time)\n"
           "  -w, --wait[=SECONDS]   wait until the jobs have ended that commands start, for that long at most\n"
           "\n"
           "Beside the commands of the daemon ('help' lists them) there are help, wait, watch, events and exit.\n"
           "Exit status: 0: all is done; 1: a command, a job or the connection has failed; 2: wrong options or\n"
           "arguments; 130: Ctrl-C.\n",
           tool_program(), TIMEOUT);
}

static bool parse_seconds(const char *text, double *seconds)
{
    char *end;
    double number = g_ascii_strtod(text, &end);

    if (!g_ascii_isdigit(*text) || *end || !(number <= MAX_SECONDS)) {
        tool_error("'%s' is no number of seconds", text);
        return false;
    }
    *seconds = number;
    return true;
}

/* Returns: 0: go on; 1: all is done; -1: wrong, which was reported. */
static int take_option(Args *args, int c, char **argv)
{
    switch (c) {
    case 'e':
        g_ptr_array_add(args->lines, optarg);
        return 0;
    case 'E':
        args->options.events = true;
        return 0;
    case 'H':
        args->options.history = optarg;
        return 0;
    case 'j':
        args->options.json = true;
        return 0;
    case 'k':
        args->options.keep_going = true;
        return 0;
    case 't':
        return parse_seconds(optarg, &args->timeout) ? 0 : -1;
    case 'w':
        args->options.wait = true;
        return !optarg || parse_seconds(optarg, &args->options.wait_seconds) ? 0 : -1;
    case 'h':
        print_usage();
        return 1;
    case 'V':
        printf("%s version %s\n", tool_program(), BLK_VERSION);
        return 1;
    default:
        tool_option_error(c, argv);
        return -1;
    }
}

static int parse(Args *args, int argc, char **argv)
{
    int c, ret = 0;

    while (ret == 0 && (c = getopt_long(argc, argv, short_options, long_options, NULL)) != -1) {
        ret = take_option(args, c, argv);
    }
    if (ret != 0) {
        return ret;
    }
    if (optind == argc) {
        tool_error("the socket is missing; --help tells more");
        return -1;
    }
    args->address = argv[optind];
    args->words = argv + optind + 1;
    if (args->lines->len > 0 && args->words[0]) {
        tool_error("a command is given by -e or behind the socket, not both");
        return -1;
    }
    return 0;
}

static CtlStatus run_all(Ctl *ctl, const Args *args)
{
    CtlStatus status = CTL_DONE;

    if (args->words[0]) {
        return ctl_run_words(ctl, args->words);
    }
    if (args->lines->len == 0) {
        return ctl_run_lines(ctl);
    }
    for (guint i = 0; i < args->lines->len && (status == CTL_DONE || args->options.keep_going); i++) {
        CtlStatus one = ctl_run_line(ctl, args->lines->pdata[i]);

        status = one != CTL_DONE ? one : status;
    }
    return status;
}

static CtlStatus run(const Args *args)
{
    Ctl ctl = { .options = args->options };
    GError *error = NULL;
    CtlStatus status;

    if (ctl_client_open(&ctl.client, args->address, args->timeout, &error) < 0 ||
        ctl_schema_init(&ctl.schema, &ctl.client, &error) < 0) {
        status = ctl_failure(error);
    } else {
        ctl.client.show = args->options.events ? ctl_print_line : NULL;
        status = run_all(&ctl, args);
    }
    ctl_schema_clear(&ctl.schema);
    ctl_client_clear(&ctl.client);
    return status;
}

int main(int argc, char **argv)
{
    Args args = { .timeout = TIMEOUT, .lines = g_ptr_array_new() };
    CtlStatus status;
    int ret;

    tool_begin(argv[0]);
    ret = parse(&args, argc, argv);
    status = ret == 0 ? run(&args) : ret > 0 ? CTL_DONE : CTL_USAGE;
    g_ptr_array_unref(args.lines);
    return tool_end((int)status, CTL_FAILED);
}
