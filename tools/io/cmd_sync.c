/* SPDX-License-Identifier: MIT */
/*
 * cmd_sync.c - commands that move data and wait for it: read, write, readv, writev, flush, discard.
 */
#include "io/io.h"

/* ---- read ---- */

typedef struct ReadArgs {
    IoOptions options;
    uint64_t skip, check;       /* bytes: part of the buffer to verify */
    uint64_t offset, bytes;
} ReadArgs;

static int parse_read(const IoCommand *self, int argc, char **argv, ReadArgs *args)
{
    const IoOptions *o = &args->options;
    int ret = io_parse_options(self, "bCl:pP:qs:v", argc, argv, &args->options);

    if (ret < 0) {
        return ret;
    }
    if (optind != argc - 2 || (o->pattern < 0 && (o->source || o->length))) {
        return io_usage(self);
    }
    if (o->source) {
        ret = io_parse_number(o->source, &args->skip);
    }
    if (ret == 0 && o->length) {
        ret = io_parse_number(o->length, &args->check);
    }
    if (ret == 0) {
        ret = io_parse_number(argv[optind], &args->offset);
    }
    if (ret == 0) {
        ret = io_parse_length(argv[optind + 1], &args->bytes);
    }
    if (ret < 0) {
        return ret;
    }
    if (args->skip <= args->bytes && !o->length) {
        args->check = args->bytes - args->skip;
    }
    if (args->skip > args->bytes || args->check > args->bytes - args->skip) {
        printf("pattern verification range exceeds end of read data\n");
        return -EINVAL;
    }
    return 0;
}

static int run_read(IoSession *session, const IoCommand *self, int argc, char **argv)
{
    ReadArgs args = { 0 };
    g_auto(IoBuffer) buffer = { 0 };
    int64_t start;
    int ret = parse_read(self, argc, argv, &args);

    if (ret == 0) {
        ret = io_buffer_init(&buffer, session, args.bytes, 0xab);
    }
    if (ret < 0) {
        return ret;
    }
    start = io_clock_ns();
    if (args.options.vm_state) {
        ret = -ENOTSUP;
    } else {
        struct iovec vec = { buffer.data, args.bytes };

        ret = io_co_read(session, args.offset, args.bytes, (BlkIov){ &vec, 1, 0 });
    }
    if (ret < 0) {
        printf("read failed: %s\n", g_strerror(-ret));
        return ret;
    }
    if (args.options.pattern >= 0) {
        ret = io_verify(buffer.data, args.options.pattern, args.skip, args.check, args.offset);
    }
    if (args.options.quiet) {
        return ret;
    }
    if (args.options.dump) {
        io_dump(buffer.data, args.bytes, args.offset);
    }
    io_report("read", start, args.offset, args.bytes, args.bytes, args.options.machine);
    return ret;
}

/* ---- write ---- */

typedef struct WriteArgs {
    IoOptions options;
    uint64_t offset, bytes;
} WriteArgs;

static const char *write_conflict(const IoOptions *args)
{
    if (args->vm_state && args->zeroes) {
        return "-b and -z cannot be specified at the same time";
    }
    if ((args->flags & BLK_REQ_FUA) && (args->vm_state || (args->flags & BLK_REQ_COMPRESSED))) {
        return "-f and -b or -c cannot be specified at the same time";
    }
    if ((args->flags & BLK_REQ_NO_FALLBACK) && !args->zeroes) {
        return "-n requires -z to be specified";
    }
    if ((args->flags & BLK_REQ_UNMAP) && !args->zeroes) {
        return "-u requires -z to be specified";
    }
    if (args->zeroes + (args->pattern >= 0) + (args->source != NULL) > 1) {
        return "Only one of -z, -P, and -s can be specified at the same time";
    }
    return NULL;
}

/* Zeroes that are never written out may be of any length. */
static int parse_write_length(WriteArgs *args, const char *text)
{
    int ret;

    if (!args->options.zeroes) {
        return io_parse_length(text, &args->bytes);
    }
    ret = io_parse_number(text, &args->bytes);
    if (ret == 0 && args->bytes > IO_MAX_BYTES && !(args->options.flags & BLK_REQ_NO_FALLBACK)) {
        printf("length cannot exceed %" PRIu64 " without -n, given %s\n", IO_MAX_BYTES, text);
        ret = -EINVAL;
    }
    return ret;
}

static int parse_write(const IoCommand *self, int argc, char **argv, WriteArgs *args)
{
    const char *conflict;
    int ret = io_parse_options(self, "bcCfnpP:qs:uz", argc, argv, &args->options);

    if (ret < 0) {
        return ret;
    }
    if (optind != argc - 2) {
        return io_usage(self);
    }
    conflict = write_conflict(&args->options);
    if (conflict) {
        printf("%s\n", conflict);
        return -EINVAL;
    }
    ret = io_parse_number(argv[optind], &args->offset);
    if (ret < 0) {
        return ret;
    }
    return parse_write_length(args, argv[optind + 1]);
}

static int co_write(IoSession *session, const WriteArgs *args, const IoBuffer *buffer)
{
    struct iovec vec = { buffer->data, args->bytes };

    if (args->options.vm_state) {
        return -ENOTSUP;
    }
    if (args->options.zeroes) {
        return io_co_write_zeroes(session, args->offset, args->bytes, args->options.flags & ~BLK_REQ_COMPRESSED);
    }
    return io_co_write(session, args->offset, args->bytes, (BlkIov){ &vec, 1, 0 }, args->options.flags);
}

static int run_write(IoSession *session, const IoCommand *self, int argc, char **argv)
{
    WriteArgs args = { 0 };
    g_auto(IoBuffer) buffer = { 0 };
    int64_t start;
    int ret = parse_write(self, argc, argv, &args);

    if (ret == 0 && !args.options.zeroes) {
        ret = io_buffer_init(&buffer, session, args.bytes, args.options.pattern >= 0 ? args.options.pattern : 0xcd);
    }
    if (ret == 0 && args.options.source) {
        ret = io_buffer_fill_from_file(&buffer, args.options.source);
    }
    if (ret < 0) {
        return ret;
    }
    start = io_clock_ns();
    ret = co_write(session, &args, &buffer);
    if (ret < 0) {
        printf("write failed: %s\n", g_strerror(-ret));
        return ret;
    }
    if (!args.options.quiet) {
        io_report("wrote", start, args.offset, args.bytes, args.bytes, args.options.machine);
    }
    return 0;
}

/* ---- discard, flush ---- */

static int run_discard(IoSession *session, const IoCommand *self, int argc, char **argv)
{
    uint64_t offset, bytes;
    IoOptions options;
    int64_t start;
    int ret = io_parse_options(self, "Cq", argc, argv, &options);

    if (ret < 0) {
        return ret;
    }
    if (optind != argc - 2) {
        return io_usage(self);
    }
    ret = io_parse_number(argv[optind], &offset);
    if (ret == 0) {
        ret = io_parse_length(argv[optind + 1], &bytes);
    }
    if (ret < 0) {
        return ret;
    }
    start = io_clock_ns();
    ret = io_co_discard(session, offset, bytes);
    if (ret < 0) {
        printf("discard failed: %s\n", g_strerror(-ret));
        return ret;
    }
    if (!options.quiet) {
        io_report("discard", start, offset, bytes, bytes, options.machine);
    }
    return 0;
}

static int run_flush(IoSession *session, const IoCommand *self, int argc, char **argv)
{
    int ret = blk_co_flush(io_node(session));

    if (ret < 0) {
        tool_error("flush failed: %s", g_strerror(-ret));
    }
    return ret;
}

const IoCommand io_sync_commands[] = {
    {
        .name = "read", .alias = "r", .min_args = 2, .max_args = -1, .needs_file = true,
        .args = "[-bCqv] [-P pattern [-s off] [-l len]] off len",
        .summary = "reads and waits for the data",
        .help = "Example: 'read -P 0xaa 64k 4k' reads 4 KiB from offset 64 KiB and verifies that all bytes are 0xaa.\n"
                " -b  the state of a virtual machine instead of the disk (no format here has one)\n"
                " -C  statistics for machines: bytes,requests,h:mm:ss.cc,bytes per second,requests per second\n"
                " -P  verify every byte; -s and -l restrict that to a part of the data\n"
                " -q  no statistics\n"
                " -v  print the data\n",
        .co_run = run_read,
    }, {
        .name = "write", .alias = "w", .min_args = 2, .max_args = -1, .needs_file = true, .writes = true,
        .args = "[-bcCfnquz] [-P pattern | -s source_file] off len",
        .summary = "writes and waits until it is done",
        .help = "Example: 'write -P 0xaa 64k 4k' fills 4 KiB at offset 64 KiB. The pattern is 0xcd if none is given.\n"
                " -b  the state of a virtual machine instead of the disk (no format here has one)\n"
                " -c  store the data compressed\n"
                " -C  statistics for machines: bytes,requests,h:mm:ss.cc,bytes per second,requests per second\n"
                " -f  the data is stable when the command ends\n"
                " -n  with -z: fail rather than write zeroes out\n"
                " -P  pattern byte\n"
                " -q  no statistics\n"
                " -s  take the data from a file, which is repeated if it is shorter\n"
                " -u  with -z: space may be given back\n"
                " -z  write zeroes\n",
        .co_run = run_write,
    }, {
        .name = "discard", .alias = "d", .min_args = 2, .max_args = -1, .needs_file = true, .writes = true,
        .args = "[-Cq] off len",
        .summary = "tells that a range is not needed any more",
        .help = "Example: 'discard 64k 1M' gives back 1 MiB at offset 64 KiB.\n"
                " -C  statistics for machines\n"
                " -q  no statistics\n",
        .co_run = run_discard,
    }, {
        .name = "flush", .alias = "f", .needs_file = true,
        .summary = "makes all that was written stable",
        .co_run = run_flush,
    },
    { 0 },
};
