/* SPDX-License-Identifier: MIT */
/*
 * cmd_sync.c - commands that move data and wait for it: read, write, readv, writev, flush, discard.
 */
#include "io/io.h"

/* ---- read ---- */

typedef struct ReadArgs {
    bool machine, quiet, dump, vm_state;
    int pattern;                /* -1: none */
    bool has_skip, has_check;
    uint64_t skip, check;       /* bytes: part of the buffer to verify */
    uint64_t offset, bytes;
} ReadArgs;

static int parse_read_options(const IoCommand *self, int argc, char **argv, ReadArgs *args)
{
    int c, ret = 0;

    optind = 0;
    while (ret == 0 && (c = getopt(argc, argv, "bCl:pP:qs:v")) != -1) {
        switch (c) {
        case 'b':
            args->vm_state = true;
            break;
        case 'C':
            args->machine = true;
            break;
        case 'l':
            args->has_check = true;
            ret = io_parse_number(optarg, &args->check);
            break;
        case 'p':
            break;
        case 'P':
            ret = io_parse_pattern(optarg, &args->pattern);
            break;
        case 'q':
            args->quiet = true;
            break;
        case 's':
            args->has_skip = true;
            ret = io_parse_number(optarg, &args->skip);
            break;
        case 'v':
            args->dump = true;
            break;
        default:
            ret = io_usage(self);
            break;
        }
    }
    return ret;
}

static int parse_read(const IoCommand *self, int argc, char **argv, ReadArgs *args)
{
    int ret = parse_read_options(self, argc, argv, args);

    if (ret < 0) {
        return ret;
    }
    if (optind != argc - 2 || (args->pattern < 0 && (args->has_skip || args->has_check))) {
        return io_usage(self);
    }
    ret = io_parse_number(argv[optind], &args->offset);
    if (ret == 0) {
        ret = io_parse_length(argv[optind + 1], &args->bytes);
    }
    if (ret < 0) {
        return ret;
    }
    if (args->skip <= args->bytes && !args->has_check) {
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
    ReadArgs args = { .pattern = -1 };
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
    if (args.vm_state) {
        ret = -ENOTSUP;
    } else {
        struct iovec vec = { buffer.data, args.bytes };

        ret = io_co_read(session, args.offset, args.bytes, (BlkIov){ &vec, 1, 0 });
    }
    if (ret < 0) {
        printf("read failed: %s\n", g_strerror(-ret));
        return ret;
    }
    if (args.pattern >= 0) {
        ret = io_verify(buffer.data, args.pattern, args.skip, args.check, args.offset);
    }
    if (args.quiet) {
        return ret;
    }
    if (args.dump) {
        io_dump(buffer.data, args.bytes, args.offset);
    }
    io_report("read", start, args.offset, args.bytes, args.bytes, args.machine);
    return ret;
}

/* ---- write ---- */

typedef struct WriteArgs {
    bool machine, quiet, vm_state, zeroes;
    unsigned flags;             /* BlkReqFlags */
    int pattern;                /* -1: none */
    const char *source;
    uint64_t offset, bytes;
} WriteArgs;

static int parse_write_options(const IoCommand *self, int argc, char **argv, WriteArgs *args)
{
    int c, ret = 0;

    optind = 0;
    while (ret == 0 && (c = getopt(argc, argv, "bcCfnpP:qs:uz")) != -1) {
        switch (c) {
        case 'b':
            args->vm_state = true;
            break;
        case 'c':
            args->flags |= BLK_REQ_COMPRESSED;
            break;
        case 'C':
            args->machine = true;
            break;
        case 'f':
            args->flags |= BLK_REQ_FUA;
            break;
        case 'n':
            args->flags |= BLK_REQ_NO_FALLBACK;
            break;
        case 'p':
            break;
        case 'P':
            ret = io_parse_pattern(optarg, &args->pattern);
            break;
        case 'q':
            args->quiet = true;
            break;
        case 's':
            args->source = optarg;
            break;
        case 'u':
            args->flags |= BLK_REQ_UNMAP;
            break;
        case 'z':
            args->zeroes = true;
            break;
        default:
            ret = io_usage(self);
            break;
        }
    }
    return ret;
}

static const char *write_conflict(const WriteArgs *args)
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

    if (!args->zeroes) {
        return io_parse_length(text, &args->bytes);
    }
    ret = io_parse_number(text, &args->bytes);
    if (ret == 0 && args->bytes > IO_MAX_BYTES && !(args->flags & BLK_REQ_NO_FALLBACK)) {
        printf("length cannot exceed %" PRIu64 " without -n, given %s\n", IO_MAX_BYTES, text);
        ret = -EINVAL;
    }
    return ret;
}

static int parse_write(const IoCommand *self, int argc, char **argv, WriteArgs *args)
{
    const char *conflict;
    int ret = parse_write_options(self, argc, argv, args);

    if (ret < 0) {
        return ret;
    }
    if (optind != argc - 2) {
        return io_usage(self);
    }
    conflict = write_conflict(args);
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

    if (args->vm_state) {
        return -ENOTSUP;
    }
    if (args->zeroes) {
        return io_co_write_zeroes(session, args->offset, args->bytes, args->flags & ~BLK_REQ_COMPRESSED);
    }
    return io_co_write(session, args->offset, args->bytes, (BlkIov){ &vec, 1, 0 }, args->flags);
}

static int run_write(IoSession *session, const IoCommand *self, int argc, char **argv)
{
    WriteArgs args = { .pattern = -1 };
    g_auto(IoBuffer) buffer = { 0 };
    int64_t start;
    int ret = parse_write(self, argc, argv, &args);

    if (ret == 0 && !args.zeroes) {
        ret = io_buffer_init(&buffer, session, args.bytes, args.pattern >= 0 ? args.pattern : 0xcd);
    }
    if (ret == 0 && args.source) {
        ret = io_buffer_fill_from_file(&buffer, args.source);
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
    if (!args.quiet) {
        io_report("wrote", start, args.offset, args.bytes, args.bytes, args.machine);
    }
    return 0;
}

/* ---- discard, flush ---- */

static int run_discard(IoSession *session, const IoCommand *self, int argc, char **argv)
{
    bool machine = false, quiet = false;
    uint64_t offset, bytes;
    int64_t start;
    int c, ret;

    optind = 0;
    while ((c = getopt(argc, argv, "Cq")) != -1) {
        if (c == '?') {
            return io_usage(self);
        }
        machine |= c == 'C';
        quiet |= c == 'q';
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
    if (!quiet) {
        io_report("discard", start, offset, bytes, bytes, machine);
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
