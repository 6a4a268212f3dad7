/* SPDX-License-Identifier: MIT */
/*
 * args.c - the command line of blkstack-nbd: that of the peer, and --compress and --tls-required.
 */
#include "config.h"
#include "nbd/nbd.h"

#include <stdio.h>

enum {
    OPTION_CACHE = 256, OPTION_AIO, OPTION_DISCARD, OPTION_DETECT_ZEROES, OPTION_IMAGE_OPTS, OPTION_OBJECT,
    OPTION_TLS_CREDS, OPTION_TLS_AUTHZ, OPTION_TLS_HOSTNAME, OPTION_TLS_REQUIRED, OPTION_FORK, OPTION_PID_FILE,
    OPTION_SELINUX_LABEL, OPTION_COMPRESS,
};

static const char short_options[] = ":hVb:p:k:e:tvx:D:o:P:AB:LT:c:df:rsl:n";
static const struct option long_options[] = {
    { "help", no_argument, NULL, 'h' },
    { "version", no_argument, NULL, 'V' },
    { "bind", required_argument, NULL, 'b' },
    { "port", required_argument, NULL, 'p' },
    { "socket", required_argument, NULL, 'k' },
    { "shared", required_argument, NULL, 'e' },
    { "persistent", no_argument, NULL, 't' },
    { "verbose", no_argument, NULL, 'v' },
    { "export-name", required_argument, NULL, 'x' },
    { "description", required_argument, NULL, 'D' },
    { "offset", required_argument, NULL, 'o' },
    { "partition", required_argument, NULL, 'P' },
    { "allocation-depth", no_argument, NULL, 'A' },
    { "bitmap", required_argument, NULL, 'B' },
    { "list", no_argument, NULL, 'L' },
    { "trace", required_argument, NULL, 'T' },
    { "connect", required_argument, NULL, 'c' },
    { "disconnect", no_argument, NULL, 'd' },
    { "format", required_argument, NULL, 'f' },
    { "read-only", no_argument, NULL, 'r' },
    { "snapshot", no_argument, NULL, 's' },
    { "load-snapshot", required_argument, NULL, 'l' },
    { "nocache", no_argument, NULL, 'n' },
    { "cache", required_argument, NULL, OPTION_CACHE },
    { "aio", required_argument, NULL, OPTION_AIO },
    { "discard", required_argument, NULL, OPTION_DISCARD },
    { "detect-zeroes", required_argument, NULL, OPTION_DETECT_ZEROES },
    { "image-opts", no_argument, NULL, OPTION_IMAGE_OPTS },
    { "object", required_argument, NULL, OPTION_OBJECT },
    { "tls-creds", required_argument, NULL, OPTION_TLS_CREDS },
    { "tls-authz", required_argument, NULL, OPTION_TLS_AUTHZ },
    { "tls-hostname", required_argument, NULL, OPTION_TLS_HOSTNAME },
    { "tls-required", no_argument, NULL, OPTION_TLS_REQUIRED },
    { "fork", no_argument, NULL, OPTION_FORK },
    { "pid-file", required_argument, NULL, OPTION_PID_FILE },
    { "selinux-label", required_argument, NULL, OPTION_SELINUX_LABEL },
    { "compress", optional_argument, NULL, OPTION_COMPRESS },
    { NULL, 0, NULL, 0 },
};

static void print_help(void)
{
    printf("Usage: %s [OPTIONS] FILE\n"
           "  or:  %s -L [OPTIONS]\n"
           "Serves an image, or a graph of block nodes, over NBD.\n"
           "\n"
           "  -h, --help                print this\n"
           "  -V, --version             print the version\n"
           "  -T, --trace=OPTIONS       taken for scripts that have it; does nothing\n"
           "\n"
           "Connections:\n"
           "  -p, --port=PORT           TCP port to listen on (default 10809; 0: a free one, which is printed)\n"
           "  -b, --bind=HOST           address or name to listen on (default: all, IPv4 and IPv6)\n"
           "  -k, --socket=PATH         listen on this unix socket instead\n"
           "  -e, --shared=NUM          clients that may use it at once (default 1; 0: any number)\n"
           "  -t, --persistent          do not end when the last client has gone\n"
           "  -x, --export-name=NAME    name of the export (default: the empty name)\n"
           "  -D, --description=TEXT    description of the export, for people\n"
           "  -v, --verbose             go on printing messages after --fork\n"
           "\n"
           "What is served:\n"
           "  -f, --format=FORMAT       format of the image; without it the format is detected\n"
           "      --image-opts          FILE is options: key=value,... or a JSON object\n"
           "  -r, --read-only           for reading only\n"
           "  -s, --snapshot            write to a temporary overlay that is lost at the end\n"
           "  -l, --load-snapshot=SNAPSHOT  an internal snapshot, read-only: its id, else its name, or\n"
           "                            snapshot.id=ID,snapshot.name=NAME\n"
           "  -o, --offset=OFFSET       begin at this byte of the image\n"
           "  -P, --partition=NUM       only this partition of the image: 1 to 128 of a GPT; of an MBR\n"
           "                            1 to 4, and logical ones from 5 on\n"
           "      --compress[=OPTIONS]  compress what is written: put the compress filter above the qcow2 image;\n"
           "                            key=value,... of the filter: level, threads, write-buffer\n"
           "  -A, --allocation-depth    tell clients which image of the backing chain holds what\n"
           "  -B, --bitmap=NAME         show clients this dirty bitmap; may be repeated\n"
           "  -n, --nocache             the same as --cache=none\n"
           "      --cache=MODE          none, writeback (default), writethrough, directsync or unsafe\n"
           "      --aio=MODE            threads, io_uring or native (io_uring if it works here)\n"
           "      --discard=MODE        ignore (default) or unmap: whether discards reach the image\n"
           "      --detect-zeroes=MODE  off (default), on or unmap: what becomes of buffers of zeroes\n"
           "\n"
           "Security and the process:\n"
           "      --object=OPTIONS      an object that options refer to: TYPE,id=ID,...; help lists the types\n"
           "      --tls-creds=ID        TLS with these credentials; nobody gets in without it\n"
           "      --tls-authz=ID        who may connect, by name\n"
           "      --tls-required        do not start without --tls-creds\n"
           "      --fork                go on in the background once clients can connect\n"
           "      --pid-file=PATH       write the process id there\n"
           "\n"
           "As a client:\n"
           "  -L, --list                list the exports of the server at -k, or -b (default localhost) and -p\n"
           "      --tls-creds=ID        TLS with these credentials\n"
           "      --tls-hostname=NAME   name in the server's certificate; it must be that of -b\n",
           tool_program(), tool_program());
}

void nbd_args_init(NbdArgs *args)
{
    *args = (NbdArgs) { .shared = 1, .objects = g_ptr_array_new(), .bitmaps = g_array_new(TRUE, TRUE, sizeof(BlkBitmapRef)) };
}

void nbd_args_clear(NbdArgs *args)
{
    g_ptr_array_unref(args->objects);
    g_array_unref(args->bitmaps);
    tool_snapshot_param_clear(&args->load);
}

static int usage_error(const char *text)
{
    tool_error("%s", text);
    fprintf(stderr, "Try '%s --help' for more information.\n", tool_program());
    return -1;
}

/* ---- single options ---- */

/* Options without a value. */
static bool *flag_of(NbdArgs *args, int c)
{
    switch (c) {
    case 't': return &args->persistent;
    case 'v': return &args->verbose;
    case 'A': return &args->allocation_depth;
    case 'L': return &args->list;
    case 'r': return &args->read_only;
    case 's': return &args->snapshot;
    case 'n': return &args->nocache;
    case OPTION_IMAGE_OPTS: return &args->open.image_opts;
    case OPTION_TLS_REQUIRED: return &args->tls_required;
    case OPTION_FORK: return &args->fork;
    default: return NULL;
    }
}

/* Options whose value is kept as it is. The last one counts. */
static const char **text_of(NbdArgs *args, int c)
{
    switch (c) {
    case 'b': return &args->bind;
    case 'p': return &args->port;
    case 'k': return &args->socket;
    case 'e': return &args->shared_text;
    case 'x': return &args->name;
    case 'D': return &args->description;
    case 'o': return &args->offset_text;
    case 'P': return &args->partition_text;
    case 'f': return &args->open.format;
    case OPTION_TLS_CREDS: return &args->tls_creds;
    case OPTION_TLS_AUTHZ: return &args->tls_authz;
    case OPTION_TLS_HOSTNAME: return &args->tls_hostname;
    case OPTION_PID_FILE: return &args->pid_file;
    default: return NULL;
    }
}

/* Options of which the peer, too, takes only one. */
static const char **single_text_of(NbdArgs *args, int c)
{
    switch (c) {
    case OPTION_CACHE: return &args->cache;
    case OPTION_AIO: return &args->aio;
    case OPTION_DISCARD: return &args->discard;
    case OPTION_DETECT_ZEROES: return &args->detect_zeroes;
    default: return NULL;
    }
}

static int refuse(int c)
{
    switch (c) {
    case 'c':
    case 'd':
        tool_error("kernel NBD devices are not supported: serve with -k PATH and run 'nbd-client -unix PATH /dev/nbdN'");
        return -1;
    default:
        tool_error("--selinux-label is not supported");
        return -1;
    }
}

static int take_other(NbdArgs *args, int c, char **argv)
{
    switch (c) {
    case 'h':
        print_help();
        return 1;
    case 'V':
        printf("%s version %s\n", tool_program(), BLK_VERSION);
        return 1;
    case 'l':
        return tool_parse_snapshot_param(&args->load, optarg) ? 0 : -1;
    case 'B':
        g_array_append_val(args->bitmaps, ((BlkBitmapRef) { .name = optarg }));
        return 0;
    case 'T':
        return tool_take_trace(optarg) ? 1 : 0;
    case OPTION_OBJECT:
        if (tool_print_object_help(optarg)) {
            return 1;
        }
        g_ptr_array_add(args->objects, optarg);
        return 0;
    case OPTION_COMPRESS:
        args->compress = true;
        args->compress_options = optarg;
        return 0;
    case 'c': case 'd': case OPTION_SELINUX_LABEL:
        return refuse(c);
    default:
        tool_option_error(c, argv);
        fprintf(stderr, "Try '%s --help' for more information.\n", tool_program());
        return -1;
    }
}

static int take_option(NbdArgs *args, int c, char **argv)
{
    bool *flag = flag_of(args, c);
    const char **text = text_of(args, c), **single = single_text_of(args, c);

    if (flag) {
        *flag = true;
    } else if (text) {
        *text = optarg;
    } else if (single && *single) {
        tool_error("%s can only be given once", argv[optind - 1]);
        return -1;
    } else if (single) {
        *single = optarg;
    } else {
        return take_other(args, c, argv);
    }
    return 0;
}

/* ---- what they mean ---- */

static int parse_numbers(NbdArgs *args)
{
    guint64 shared = 1, partition = 0;

    if (args->shared_text && !g_ascii_string_to_unsigned(args->shared_text, 10, 0, INT32_MAX, &shared, NULL)) {
        tool_error("Invalid shared device number '%s'", args->shared_text);
        return -1;
    }
    args->shared = (unsigned)shared;
    if (args->partition_text &&
        !g_ascii_string_to_unsigned(args->partition_text, 10, 1, BLK_MAX_PARTITIONS, &partition, NULL)) {
        tool_error("Invalid partition number '%s': it must be from 1 to %d", args->partition_text, BLK_MAX_PARTITIONS);
        return -1;
    }
    args->partition = (unsigned)partition;
    if (args->offset_text && tool_parse_size(args->offset_text, &args->offset) < 0) {
        tool_error("Invalid offset '%s'", args->offset_text);
        return -1;
    }
    return 0;
}

/* Whether @mode is one of @modes, as they are written in the peer's manual; NULL always is. */
static bool mode_is_valid(const char *what, const char *mode, const char *const *modes)
{
    if (!mode || g_strv_contains(modes, mode)) {
        return true;
    }
    tool_error("Invalid %s mode '%s'", what, mode);
    return false;
}

static int parse_modes(NbdArgs *args)
{
    static const char *const aio[] = { "threads", "io_uring", "native", NULL };
    static const char *const discard[] = { "ignore", "off", "unmap", "on", NULL };
    static const char *const zeroes[] = { "off", "on", "unmap", NULL };

    if (args->nocache && args->cache) {
        tool_error("-n and --cache can only be specified once");
        return -1;
    }
    if (!tool_parse_cache(args->nocache ? "none" : args->cache ? args->cache : "writeback", &args->open.cache)) {
        tool_error("Invalid cache mode '%s'", args->cache);
        return -1;
    }
    if (!mode_is_valid("aio", args->aio, aio) || !mode_is_valid("discard", args->discard, discard) ||
        !mode_is_valid("detect-zeroes", args->detect_zeroes, zeroes)) {
        return -1;
    }
    args->open.unmap = args->discard && (strcmp(args->discard, "unmap") == 0 || strcmp(args->discard, "on") == 0);
    if (args->detect_zeroes && strcmp(args->detect_zeroes, "unmap") == 0 && !args->open.unmap) {
        tool_error("setting detect-zeroes to unmap is not allowed without setting discard operation to unmap");
        return -1;
    }
    return 0;
}

static const char *tls_contradiction(const NbdArgs *args)
{
    if (args->tls_required && !args->tls_creds) {
        return "--tls-required is not permitted without --tls-creds";
    }
    if (args->tls_authz && !args->tls_creds) {
        return "--tls-authz is not permitted without --tls-creds";
    }
    if (args->tls_hostname && !args->tls_creds) {
        return "--tls-hostname is not permitted without --tls-creds";
    }
    if (args->tls_hostname && !args->list) {
        return "--tls-hostname is only for clients, which check the server's name: with -L";
    }
    return NULL;
}

static const char *list_contradiction(const NbdArgs *args, bool has_file)
{
    if (!args->list) {
        return NULL;
    }
    if (args->inherited > 0) {
        return "List mode is incompatible with socket activation";
    }
    if (args->tls_authz) {
        return "TLS authorization is incompatible with export list";
    }
    if (has_file) {
        return "List mode is incompatible with a file name";
    }
    if (args->name || args->description || args->offset_text || args->partition_text || args->open.format ||
        args->load.given || args->bitmaps->len > 0 || args->allocation_depth || args->aio || args->discard ||
        args->cache || args->nocache || args->detect_zeroes || args->compress || args->snapshot || args->fork) {
        return "List mode is incompatible with per-device settings";
    }
    return NULL;
}

static const char *socket_contradiction(const NbdArgs *args)
{
    if (args->inherited == 0) {
        return args->socket && !g_path_is_absolute(args->socket) ? "socket path must be absolute" : NULL;
    }
    if (args->socket) {
        return "Unix socket can't be set when using socket activation";
    }
    if (args->bind) {
        return "The interface can't be set when using socket activation";
    }
    return args->port ? "TCP port number can't be set when using socket activation" : NULL;
}

static int check_contradictions(const NbdArgs *args, bool has_file)
{
    const char *text = list_contradiction(args, has_file);

    text = text ? text : tls_contradiction(args);
    text = text ? text : socket_contradiction(args);
    if (!text && args->open.image_opts && args->open.format) {
        text = "--image-opts and -f are mutually exclusive";
    }
    if (!text && args->partition_text && args->offset_text) {
        text = "-P and -o are mutually exclusive";
    }
    if (text) {
        tool_error("%s", text);
    }
    return text ? -1 : 0;
}

int nbd_parse_args(NbdArgs *args, int argc, char **argv)
{
    int c, ret = 0;

    while (ret == 0 && (c = getopt_long(argc, argv, short_options, long_options, NULL)) != -1) {
        ret = take_option(args, c, argv);
    }
    if (ret != 0) {
        return ret;
    }
    args->inherited = nbd_inherited_sockets();
    if (parse_numbers(args) < 0 || parse_modes(args) < 0 || check_contradictions(args, optind < argc) < 0) {
        return -1;
    }
    if (args->list) {
        return 0;
    }
    if (argc - optind != 1) {
        return usage_error("Invalid number of arguments");
    }
    args->open.name = argv[optind];
    args->read_only |= args->load.given;
    args->open.writable = !args->read_only;
    return 0;
}
