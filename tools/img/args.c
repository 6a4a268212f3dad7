/* SPDX-License-Identifier: MIT */
/*
 * args.c - arguments that several subcommands have in common.
 */
#include "img/img.h"

#include "core/node.h"

#include <stdio.h>
#include <string.h>

int img_usage_error(const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    tool_error("%s", text);
    fprintf(stderr, "Try '%s --help' for more information\n", tool_program());
    return 1;
}

static bool set_output(ImgArgs *args, const char *text)
{
    if (strcmp(text, "json") != 0 && strcmp(text, "human") != 0) {
        tool_error("--output must be used with human or json as argument.");
        return false;
    }
    args->json = strcmp(text, "json") == 0;
    return true;
}

static int stop(ImgArgs *args, int status)
{
    args->status = status;
    return IMG_STOP;
}

/* Whether the option @c is one of those of every subcommand; it is dealt with then. */
static bool take_common_option(ImgArgs *args, int c)
{
    switch (c) {
    case 'f':
        args->open.format = optarg;
        return true;
    case 'T':
        args->cache_mode = optarg;
        return true;
    case 'U':
        args->open.force_share = true;
        return true;
    case 'q':
        args->quiet = true;
        return true;
    case 'p':
        args->progress = true;
        return true;
    case IMG_OPTION_IMAGE_OPTS:
        args->open.image_opts = true;
        return true;
    default:
        return false;
    }
}

int img_next_option(ImgArgs *args, int argc, char **argv, const char *short_options, const struct option *long_options)
{
    int c;

    while ((c = getopt_long(argc, argv, short_options, long_options, NULL)) != -1) {
        if (c == ':' || c == '?') {
            tool_option_error(c, argv);
            fprintf(stderr, "Try '%s --help' for more information\n", tool_program());
            return stop(args, MAX(args->usage_status, 1));
        }
        if (c == 'h') {
            return stop(args, img_print_help(blk_co_context()));
        }
        if (c == IMG_OPTION_OBJECT) {
            int ret = tool_add_object(blk_co_context(), optarg);

            if (ret != 0) {
                return stop(args, ret > 0 ? 0 : MAX(args->object_status, 1));
            }
        } else if (c == IMG_OPTION_OUTPUT) {
            if (!set_output(args, optarg)) {
                return stop(args, 1);
            }
        } else if (!take_common_option(args, c)) {
            return c;
        }
    }
    return -1;
}

bool img_args_valid(ImgArgs *args, int status)
{
    if (args->open.image_opts && args->open.format) {
        tool_error("--image-opts and --format are mutually exclusive");
        args->status = status;
        return false;
    }
    if (args->cache_mode && !tool_parse_cache(args->cache_mode, &args->open.cache)) {
        tool_error("Invalid source cache option: %s", args->cache_mode);
        args->status = status;
        return false;
    }
    return true;
}

bool img_parse_size(const char *what, const char *text, uint64_t min, uint64_t max, uint64_t *bytes)
{
    uint64_t value = 0;
    int ret = tool_parse_size(text, &value);

    if (ret == -EINVAL) {
        tool_error("Invalid %s specified. You may use k, M, G, T, P or E suffixes for", what);
        tool_error("kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
        return false;
    }
    if (ret < 0 || value < min || value > max) {
        if (max == INT64_MAX && min > 0) {
            tool_error("Invalid %s specified. Must be at least %" G_GUINT64_FORMAT ".", what, min);
        } else {
            tool_error("Invalid %s specified. Must be between %" G_GUINT64_FORMAT " and %" G_GUINT64_FORMAT ".", what,
                       min, max);
        }
        return false;
    }
    *bytes = value;
    return true;
}

static int compare_names(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void print_formats(BlkContext *ctx)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    const BlkDriver *driver;

    for (unsigned i = 0; (driver = blk_driver_nth(ctx, i)); i++) {
        g_ptr_array_add(names, (gpointer)driver->name);
    }
    g_ptr_array_sort(names, compare_names);
    printf("\nSupported formats:");
    for (unsigned i = 0; i < names->len; i++) {
        printf(" %s", (const char *)g_ptr_array_index(names, i));
    }
    printf("\n");
}

int img_print_help(BlkContext *ctx)
{
    printf("usage: %s [-h] [-V] [-T trace] command [arguments]\n\nCommands:\n", tool_program());
    for (const ImgCommand *command = img_commands; command->name; command++) {
        printf("  %s %s\n      %s\n", command->name, command->arguments, command->help);
    }
    printf("\nArguments:\n"
           "  -T           before the command: taken for scripts that have it, does nothing\n"
           "  filename     a file, protocol:..., or json:{...}; with --image-opts key=value,... or a JSON object\n"
           "  fmt          format of an image; found out if not given, for a new image raw\n"
           "  size         bytes; k, M, G, T, P and E stand for powers of 1024\n"
           "  cache        none, writeback, writethrough, directsync or unsafe; default: writeback, the target of convert\n"
           "               unsafe\n"
           "  options      name=value,... for the new image; -o help lists them\n"
           "  --object     TYPE,id=ID,...: a secret, TLS credentials; --object help lists the types; every command takes it\n"
           "  --output     human or json\n"
           "  -q, -p       print nothing but errors; show progress\n"
           "  -U           share the image with programs that write to it\n"
           "  -b, -B       backing file of the new image; -F its format; -u: do not look whether it is there\n"
           "  -c           write compressed clusters\n"
           "  -n           the target is there already: do not create it; --target-is-zero: and it reads as zeroes\n"
           "  -S           length of a run of zeroes that is left out (default 4k; 0: none, all space is taken)\n"
           "  -m           requests in flight, 1 to 16 (default 8); -W: write in any order; -r: bytes a second\n"
           "  -g           granularity of --add: bytes that one bit stands for, a power of 2 from 512 to 2G\n"
           "  -b, -F       bitmap --merge: the image that has the source bitmaps, and its format\n"
           "  --bitmaps    convert: copy the persistent dirty bitmaps too\n"
           "  -r           check: what to repair, leaks or all\n"
           "  -l           convert, measure: the internal snapshot to read, by id, else by name, or\n"
           "               snapshot.id=ID,snapshot.name=NAME\n"
           "  --data       check: decode every compressed cluster\n"
           "  -s           compare: sizes and allocation must be the same too\n");
    print_formats(ctx);
    return 0;
}

int img_co_on_image(BlkContext *ctx, ImgArgs *args, int (*fn)(BlkNode *node, void *opaque), void *opaque)
{
    GError *error = NULL;
    BlkChild *user = tool_co_open(ctx, &args->open, &error);
    int status;

    if (!user) {
        tool_report(error);
        return 1;
    }
    status = fn(blk_child_node(user), opaque);
    return tool_co_close(user) < 0 ? 1 : status;
}
