/* SPDX-License-Identifier: MIT */
/*
 * cmd_file.c - commands that open and close: open, close, reopen.
 */
#include "io/io.h"

/* ---- open ---- */

static int add_options(JsonObject **options, const char *text)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonObject) more = blk_options_parse_keyval(text, NULL, &error);

    if (!*options) {
        *options = json_object_new();
    }
    if (!more || io_tree_merge(*options, more, &error) < 0) {
        tool_error("%s", error->message);
        return -EINVAL;
    }
    return 0;
}

static int open_option(const IoCommand *self, int c, IoOpenFlags *flags, JsonObject **options)
{
    switch (c) {
    case 's':
        flags->snapshot = true;
        return 0;
    case 'n':
        return io_set_cache(flags, "none") ? 0 : -EINVAL;
    case 'r':
        flags->read_only = true;
        return 0;
    case 'C':
        flags->copy_on_read = true;
        return 0;
    case 'k':
        return 0;
    case 't':
        return io_set_cache(flags, optarg) ? 0 : -EINVAL;
    case 'd':
        return io_set_discard(flags, optarg) ? 0 : -EINVAL;
    case 'i':
        return io_check_aio(optarg) ? 0 : -EINVAL;
    case 'o':
        return add_options(options, optarg);
    case 'U':
        flags->force_share = true;
        return 0;
    default:
        return io_usage(self);
    }
}

static int run_open(IoSession *session, const IoCommand *self, int argc, char **argv)
{
    g_autoptr(JsonObject) options = NULL;
    IoOpenFlags flags = { 0 };
    int c, ret = 0;

    optind = 0;
    while (ret == 0 && (c = getopt(argc, argv, "snCro:ki:t:d:U")) != -1) {
        ret = open_option(self, c, &flags, &options);
    }
    if (ret < 0) {
        return ret;
    }
    if (optind < argc - 1) {
        return io_usage(self);
    }
    return io_co_open(session, argv[optind], NULL, options, &flags);
}

static int run_close(IoSession *session, const IoCommand *self, int argc, char **argv)
{
    io_co_close(session);
    return 0;
}

/* ---- reopen ---- */

static void set_cache_options(JsonObject *options, const ToolCache *cache)
{
    JsonObject *group = json_object_new();

    json_object_set_boolean_member(group, "direct", cache->direct);
    json_object_set_boolean_member(group, "no-flush", cache->no_flush);
    json_object_set_object_member(options, "cache", group);
}

static int set_read_only(JsonObject *options, bool read_only)
{
    if (json_object_has_member(options, "read-only")) {
        tool_error("Only one -r/-w option may be given");
        return -EINVAL;
    }
    json_object_set_boolean_member(options, "read-only", read_only);
    return 0;
}

static int run_reopen(IoSession *session, const IoCommand *self, int argc, char **argv)
{
    g_autoptr(JsonObject) options = json_object_new();
    JsonObject *extra = NULL;
    IoOpenFlags flags = { .cache.writethrough = session->writethrough };
    int c, ret = 0;

    optind = 0;
    while (ret == 0 && (c = getopt(argc, argv, "c:o:rw")) != -1) {
        switch (c) {
        case 'c':
            ret = io_set_cache(&flags, optarg) ? 0 : -EINVAL;
            if (ret == 0) {
                set_cache_options(options, &flags.cache);
            }
            break;
        case 'o':
            extra = options;
            ret = add_options(&extra, optarg);
            break;
        case 'r':
        case 'w':
            ret = set_read_only(options, c == 'r');
            break;
        default:
            ret = io_usage(self);
            break;
        }
    }
    if (ret < 0) {
        return ret;
    }
    return optind != argc ? io_usage(self) : io_co_reopen(session, options, flags.cache.writethrough);
}

const IoCommand io_file_commands[] = {
    {
        .name = "open", .alias = "o", .min_args = 1, .max_args = -1,
        .args = "[-rsCnkU] [-t cache] [-d discard] [-i aio] [-o options] [path]",
        .summary = "opens an image or a whole graph",
        .help = "Example: 'open -n -o driver=raw disk.img' opens a raw image and bypasses the host's cache.\n"
                "Example: 'open -o driver=compress,file.driver=qcow2,file.file.driver=file,file.file.filename=a.qcow2'\n"
                " -C  what is read from the backing file is stored in the image\n"
                " -d  ignore or unmap: whether discards reach the host\n"
                " -i  accepted; the program's own option -i chooses the I/O engine of all files (the same holds for -k)\n"
                " -n  the same as -t none\n"
                " -o  options of the node: key=value,... or a JSON object without blanks\n"
                " -r  read-only\n"
                " -s  write to a temporary overlay, which is lost when the file is closed\n"
                " -t  none, off, writeback, writethrough, directsync or unsafe\n"
                " -U  take no locks against other programs\n",
        .co_run = run_open,
    }, {
        .name = "close", .alias = "c", .needs_file = true,
        .summary = "closes the open file after all its requests",
        .co_run = run_close,
    }, {
        .name = "reopen", .max_args = -1, .needs_file = true,
        .args = "[(-r|-w)] [-c cache] [-o options]",
        .summary = "closes the file and opens it with changed options",
        .help = "Example: 'reopen -r' goes on read-only. After a failure the old options hold again.\n"
                "Breakpoints are gone afterwards.\n"
                " -c  the cache mode, as for 'open -t'\n"
                " -o  options that change\n"
                " -r  read-only\n"
                " -w  writable\n",
        .co_run = run_reopen,
    },
    { 0 },
};
