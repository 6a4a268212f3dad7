/* SPDX-License-Identifier: MIT */
/*
 * args.c - the command line of blkstack-daemon. What is made, is made later, in the order of the options.
 */
#include "daemon/daemon.h"

#include "config.h"

#include <stdio.h>

enum {
    OPTION_FIRST = 256,     /* those that make something: OPTION_FIRST + DaemonOptionKind */
    OPTION_DAEMONIZE = 512, OPTION_PIDFILE,
};

static const char short_options[] = ":hVT:";
static const struct option long_options[] = {
    { "blockdev", required_argument, NULL, OPTION_FIRST + DAEMON_OPTION_BLOCKDEV },
    { "chardev", required_argument, NULL, OPTION_FIRST + DAEMON_OPTION_CHARDEV },
    { "export", required_argument, NULL, OPTION_FIRST + DAEMON_OPTION_EXPORT },
    { "monitor", required_argument, NULL, OPTION_FIRST + DAEMON_OPTION_MONITOR },
    { "nbd-server", required_argument, NULL, OPTION_FIRST + DAEMON_OPTION_NBD_SERVER },
    { "object", required_argument, NULL, OPTION_FIRST + DAEMON_OPTION_OBJECT },
    { "daemonize", no_argument, NULL, OPTION_DAEMONIZE },
    { "pidfile", required_argument, NULL, OPTION_PIDFILE },
    { "help", no_argument, NULL, 'h' },
    { "trace", required_argument, NULL, 'T' },
    { "version", no_argument, NULL, 'V' },
    { NULL, 0, NULL, 0 },
};

static void print_usage(void)
{
    printf("Usage: %s [OPTIONS]\n"
           "Holds a graph of block nodes, which clients of a monitor steer, and exports nodes of it.\n"
           "\n"
           "  -h, --help              print this\n"
           "  -V, --version           print the version\n"
           "  -T, --trace OPTIONS     taken for scripts that have it; does nothing\n"
           "\n"
           "What is made, in the order of the options. Each takes key=value,... or a JSON object, and help:\n"
           "      --object TYPE,id=ID,...          an object that other options refer to\n"
           "      --blockdev DRIVER,node-name=NAME,...\n"
           "                                       a node\n"
           "      --nbd-server addr.type=inet,addr.host=HOST,addr.port=PORT\n"
           "      --nbd-server addr.type=unix,addr.path=PATH\n"
           "              [,tls-creds=ID][,tls-authz=ID][,max-connections=N]\n"
           "                                       the NBD server\n"
           "      --export nbd,id=ID,node-name=NODE[,name=NAME][,writable=on|off]...\n"
           "                                       an export of a node\n"
           "      --chardev socket,id=ID,path=PATH,server=on[,wait=on|off]\n"
           "      --chardev socket,id=ID,host=HOST,port=PORT,server=on[,wait=on|off]\n"
           "              [,telnet=on|off][,to=PORT]\n"
           "      --chardev socket,id=ID,host=HOST,port=PORT[,reconnect=SECONDS]\n"
           "      --chardev stdio,id=ID\n"
           "      --chardev file,id=ID,path=PATH[,append=on|off]\n"
           "      --chardev null,id=ID\n"
           "                                       where clients of a monitor come from\n"
           "      --monitor CHARDEV[,pretty=on|off]\n"
           "                                       a monitor, which takes commands as JSON (QMP)\n"
           "\n"
           "      --daemonize         go on in the background when all is made\n"
           "      --pidfile PATH      write the process id there when all is made\n",
           tool_program());
}

void daemon_args_init(DaemonArgs *args)
{
    *args = (DaemonArgs) { .options = g_array_new(FALSE, FALSE, sizeof(DaemonOption)) };
}

void daemon_args_clear(DaemonArgs *args)
{
    g_array_unref(args->options);
}

static int add_option(DaemonArgs *args, int c)
{
    DaemonOption option = { .kind = (DaemonOptionKind)(c - OPTION_FIRST), .text = optarg };

    for (unsigned i = 0; long_options[i].name; i++) {
        if (long_options[i].val == c) {
            option.name = long_options[i].name;
        }
    }
    if (daemon_print_help(&option)) {
        return 1;
    }
    g_array_append_val(args->options, option);
    return 0;
}

static int take_option(DaemonArgs *args, int c, char **argv)
{
    switch (c) {
    case 'h':
        print_usage();
        return 1;
    case 'V':
        printf("%s version %s\n", tool_program(), BLK_VERSION);
        return 1;
    case 'T':
        return tool_take_trace(optarg) ? 1 : 0;
    case OPTION_DAEMONIZE:
        args->daemonize = true;
        return 0;
    case OPTION_PIDFILE:
        args->pid_file = optarg;
        return 0;
    case ':':
    case '?':
        tool_option_error(c, argv);
        return -1;
    default:
        return add_option(args, c);
    }
}

int daemon_parse_args(DaemonArgs *args, int argc, char **argv)
{
    int c, ret = 0;

    while (ret == 0 && (c = getopt_long(argc, argv, short_options, long_options, NULL)) != -1) {
        ret = take_option(args, c, argv);
    }
    if (ret == 0 && optind < argc) {
        tool_error("%s: Unexpected argument", argv[optind]);
        return -1;
    }
    return ret;
}
