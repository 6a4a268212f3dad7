/* SPDX-License-Identifier: MIT */
/*
 * cmd_aio.c - commands on scattered buffers (readv, writev) and those that do not wait (aio_read, aio_write, aio_flush).
 *
 * An aio_* command leaves a coroutine behind, which owns the buffer and prints when the request has ended: also while
 * another command runs. Its failure is printed and does not count for the exit code.
 */
#include "io/io.h"

typedef struct Vector {
    IoSession *session;
    bool aio, write;
    IoOptions options;
    uint64_t offset, bytes;
    IoBuffer buffer;
    struct iovec *vec;
    unsigned count;
    int64_t start;
} Vector;

static void vector_free(Vector *v)
{
    io_buffer_clear(&v->buffer);
    g_free(v->vec);
    g_free(v);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Vector, vector_free)

static const char *conflict_of(const Vector *v, int lengths)
{
    if (v->options.zeroes && lengths != 1) {
        return "-z supports only a single length parameter";
    }
    if ((v->options.flags & BLK_REQ_UNMAP) && !v->options.zeroes) {
        return "-u requires -z to be specified";
    }
    return NULL;
}

/* Reads the lengths, makes the buffer and cuts it into one vector per length. */
static int parse_lengths(Vector *v, int count, char **texts)
{
    int fill = v->options.pattern >= 0 && v->write ? v->options.pattern : v->write ? 0xcd : 0xab;
    size_t at = 0;
    int ret = 0;

    v->vec = g_new0(struct iovec, count);
    v->count = count;
    for (int i = 0; ret == 0 && i < count; i++) {
        uint64_t bytes = 0;

        ret = io_parse_length(texts[i], &bytes);
        v->vec[i].iov_len = bytes;
        v->bytes += bytes;
        if (ret == 0 && v->bytes > IO_MAX_BYTES) {
            printf("The total number of bytes exceed the maximum size %" PRIu64 "\n", IO_MAX_BYTES);
            ret = -EINVAL;
        }
    }
    if (ret < 0 || v->options.zeroes) {
        return ret;
    }
    ret = io_buffer_init(&v->buffer, v->session, v->bytes, fill);
    for (int i = 0; ret == 0 && i < count; i++) {
        v->vec[i].iov_base = v->buffer.data + at;
        at += v->vec[i].iov_len;
    }
    return ret;
}

static int parse_vector(const IoCommand *self, const char *letters, int argc, char **argv, Vector *v)
{
    const char *conflict;
    int ret;

    ret = io_parse_options(self, letters, argc, argv, &v->options);
    if (ret < 0) {
        return ret;
    }
    if (optind > argc - 2) {
        return io_usage(self);
    }
    conflict = conflict_of(v, argc - optind - 1);
    if (conflict) {
        printf("%s\n", conflict);
        return -EINVAL;
    }
    if (v->options.invalid) {
        printf("injecting invalid %s request\n", v->write ? "write" : "read");
        return 0;
    }
    ret = io_parse_number(argv[optind], &v->offset);
    return ret < 0 ? ret : parse_lengths(v, argc - optind - 1, argv + optind + 1);
}

static int co_transfer(Vector *v)
{
    BlkIov iov = { v->vec, v->count, 0 };

    v->start = io_clock_ns();
    if (v->options.zeroes) {
        return io_co_write_zeroes(v->session, v->offset, v->bytes, v->options.flags);
    }
    return v->write ? io_co_write(v->session, v->offset, v->bytes, iov, v->options.flags)
                    : io_co_read(v->session, v->offset, v->bytes, iov);
}

/* Sends the request and prints what came of it. */
static int co_run_vector(Vector *v)
{
    int ret = co_transfer(v);

    if (ret < 0) {
        const char *name = v->write ? v->aio ? "aio_write" : "writev" : "readv";

        printf("%s failed: %s\n", name, g_strerror(-ret));
        return ret;
    }
    if (!v->write && v->options.pattern >= 0) {
        ret = io_verify(v->buffer.data, v->options.pattern, 0, v->bytes, v->offset);
    }
    if (v->options.quiet) {
        return ret;
    }
    if (v->options.dump) {
        io_dump(v->buffer.data, v->bytes, v->offset);
    }
    io_report(v->write ? "wrote" : "read", v->start, v->offset, v->bytes, v->bytes, v->options.machine);
    return ret;
}

static Vector *vector_new(IoSession *session, bool write, bool aio)
{
    Vector *v = g_new0(Vector, 1);

    v->session = session;
    v->write = write;
    v->aio = aio;
    return v;
}

static int run_readv(IoSession *session, const IoCommand *self, int argc, char **argv)
{
    g_autoptr(Vector) v = vector_new(session, false, false);
    int ret = parse_vector(self, "CP:qv", argc, argv, v);

    return ret < 0 ? ret : co_run_vector(v);
}

static int run_writev(IoSession *session, const IoCommand *self, int argc, char **argv)
{
    g_autoptr(Vector) v = vector_new(session, true, false);
    int ret = parse_vector(self, "CfqP:", argc, argv, v);

    return ret < 0 ? ret : co_run_vector(v);
}

/* ---- without waiting ---- */

static int co_aio(void *opaque)
{
    g_autoptr(Vector) v = opaque;
    IoSession *session = v->session;
    int ret = co_run_vector(v);

    if (--session->in_flight == 0) {
        blk_co_queue_wake_all(&session->drained);
    }
    return ret;
}

static int start_aio(IoSession *session, const IoCommand *self, bool write, const char *letters, int argc, char **argv)
{
    g_autoptr(Vector) v = vector_new(session, write, true);
    int ret = parse_vector(self, letters, argc, argv, v);

    if (ret < 0 || v->options.invalid) {
        return ret;
    }
    session->in_flight++;
    blk_co_spawn(session->ctx, co_aio, g_steal_pointer(&v));
    blk_co_reschedule();        /* requests start in the order of the commands */
    return 0;
}

static int run_aio_read(IoSession *session, const IoCommand *self, int argc, char **argv)
{
    return start_aio(session, self, false, "CP:iqv", argc, argv);
}

static int run_aio_write(IoSession *session, const IoCommand *self, int argc, char **argv)
{
    return start_aio(session, self, true, "CfiP:quz", argc, argv);
}

int io_co_wait_for_aio(IoSession *session, bool give_up)
{
    while (session->in_flight > 0) {
        const char *tag = give_up ? io_suspended_tag(session) : NULL;

        if (tag) {
            tool_error("request '%s' is suspended at its breakpoint and would never end: resume it first", tag);
            return -EDEADLK;
        }
        if (g_hash_table_size(session->breakpoints) > 0 && give_up) {
            blk_co_sleep_ns(1000000);       /* a request may still run into its breakpoint */
        } else {
            blk_co_queue_wait(&session->drained);
        }
    }
    return 0;
}

static int run_aio_flush(IoSession *session, const IoCommand *self, int argc, char **argv)
{
    return io_co_wait_for_aio(session, true);
}

const IoCommand io_aio_commands[] = {
    {
        .name = "readv", .min_args = 2, .max_args = -1, .needs_file = true,
        .args = "[-Cqv] [-P pattern] off len [len..]",
        .summary = "reads into several buffers, one per length",
        .help = "Example: 'readv -v 512 1k 1k' prints 2 KiB that one request read into two buffers.\n"
                " -C  statistics for machines\n"
                " -P  verify every byte\n"
                " -q  no statistics\n"
                " -v  print the data\n",
        .co_run = run_readv,
    }, {
        .name = "writev", .min_args = 2, .max_args = -1, .needs_file = true, .writes = true,
        .args = "[-Cfq] [-P pattern] off len [len..]",
        .summary = "writes from several buffers, one per length",
        .help = "Example: 'writev 512 1k 1k' writes 2 KiB with one request.\n"
                " -C  statistics for machines\n"
                " -f  the data is stable when the command ends\n"
                " -P  pattern byte\n"
                " -q  no statistics\n",
        .co_run = run_writev,
    }, {
        .name = "aio_read", .min_args = 2, .max_args = -1, .needs_file = true,
        .args = "[-Ciqv] [-P pattern] off len [len..]",
        .summary = "starts to read and does not wait",
        .help = "The result is printed when it is there; 'aio_flush' waits for it. The command succeeds when the\n"
                "request was started, whatever becomes of it.\n"
                " -C  statistics for machines\n"
                " -i  count an invalid request, send none\n"
                " -P  verify every byte\n"
                " -q  no statistics\n"
                " -v  print the data\n",
        .co_run = run_aio_read,
    }, {
        .name = "aio_write", .min_args = 2, .max_args = -1, .needs_file = true, .writes = true,
        .args = "[-Cfiquz] [-P pattern] off len [len..]",
        .summary = "starts to write and does not wait",
        .help = "The result is printed when it is there; 'aio_flush' waits for it. The command succeeds when the\n"
                "request was started, whatever becomes of it.\n"
                " -C  statistics for machines\n"
                " -f  the data is stable when the request ends\n"
                " -i  count an invalid request, send none\n"
                " -P  pattern byte\n"
                " -q  no statistics\n"
                " -u  with -z: space may be given back\n"
                " -z  write zeroes\n",
        .co_run = run_aio_write,
    }, {
        .name = "aio_flush", .needs_file = true,
        .summary = "waits until no request of an aio_* command is in flight",
        .co_run = run_aio_flush,
    },
    { 0 },
};
