/* SPDX-License-Identifier: MIT */
/*
 * bench_core.c - what the runtime costs: switches, coroutines, hand-offs, cached reads.
 *
 * Prints one line per measurement, in nanoseconds of wall time per operation: the best of ROUNDS. The engine is that of
 * BLKSTACK_AIO.
 */
#include <blkstack/driver.h>
#include <glib/gstdio.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 7, FILE_BYTES = 16 << 20, READ_BYTES = 4096 };

typedef struct Bench {
    int fd;
    unsigned depth, n, done;
    BlkCoMutex mutex;
} Bench;

static double now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static void check(int ret, const char *what)
{
    if (ret < 0) {
        fprintf(stderr, "bench_core: %s: %s\n", what, g_strerror(-ret));
        exit(EXIT_FAILURE);
    }
}

static void measure(BlkContext *ctx, const char *name, BlkCoFn *fn, Bench *bench)
{
    double best = 0;

    for (unsigned round = 0; round < ROUNDS; round++) {
        double begin = now_ns();

        check(blk_run(ctx, fn, bench), name);

        double ns = (now_ns() - begin) / bench->n;

        best = round == 0 || ns < best ? ns : best;
    }
    printf("%-28s %10.1f ns  (%s)\n", name, best, blk_context_aio_name(ctx));
}

/* ---- coroutines ---- */

static int switch_many(void *opaque)
{
    Bench *b = opaque;

    for (unsigned i = 0; i < b->n / b->depth; i++) {
        blk_co_reschedule();
    }
    return 0;
}

static int switch_main(void *opaque)
{
    Bench *b = opaque;
    BlkCoGroup group = BLK_CO_GROUP_INIT(b->depth);

    for (unsigned i = 0; i < b->depth; i++) {
        check(blk_co_group_run(&group, switch_many, b), "switch");
    }
    return blk_co_group_wait(&group);
}

static int nothing(void *opaque)
{
    return 0;
}

static int spawn_main(void *opaque)
{
    Bench *b = opaque;
    BlkCoGroup group = BLK_CO_GROUP_INIT(b->depth);

    for (unsigned i = 0; i < b->n; i++) {
        check(blk_co_group_run(&group, nothing, NULL), "spawn");
    }
    return blk_co_group_wait(&group);
}

static int offload_main(void *opaque)
{
    Bench *b = opaque;

    for (unsigned i = 0; i < b->n; i++) {
        blk_co_offload(nothing, NULL);
    }
    return 0;
}

/* ---- reads ---- */

static int read_task(void *opaque)
{
    Bench *b = opaque;
    void *buf = blk_buffer_try_alloc(NULL, READ_BYTES);
    struct iovec vec = { buf, READ_BYTES };
    BlkAioFile file = { .fd = b->fd, .cached = true };
    unsigned number = 12345;
    int ret = buf ? 0 : -ENOMEM;

    for (unsigned i = 0; ret == 0 && i < b->n / b->depth; i++) {
        number = number * 1103515245 + 12345;
        ret = blk_aio_co_preadv(blk_co_context(), &file, (uint64_t)(number >> 8) % (FILE_BYTES / READ_BYTES) * READ_BYTES,
                                READ_BYTES, (BlkIov){ .vec = &vec, .count = 1 });
    }
    blk_buffer_free(buf);
    return ret;
}

static int read_main(void *opaque)
{
    Bench *b = opaque;
    BlkCoGroup group = BLK_CO_GROUP_INIT(b->depth);

    for (unsigned i = 0; i < b->depth; i++) {
        check(blk_co_group_run(&group, read_task, b), "read");
    }
    return blk_co_group_wait(&group);
}

static int plain_reads(void *opaque)
{
    Bench *b = opaque;
    g_autofree void *buf = g_malloc(READ_BYTES);
    unsigned number = 12345;

    for (unsigned i = 0; i < b->n; i++) {
        number = number * 1103515245 + 12345;
        if (pread(b->fd, buf, READ_BYTES, (off_t)(number >> 8) % (FILE_BYTES / READ_BYTES) * READ_BYTES) != READ_BYTES) {
            return -EIO;
        }
    }
    return 0;
}

static int make_file(void)
{
    g_autofree char *name = NULL;
    g_autofree char *bytes = g_malloc(FILE_BYTES);
    int fd = g_file_open_tmp("blkstack-bench-XXXXXX", &name, NULL);

    check(fd, "temporary file");
    g_unlink(name);
    for (unsigned i = 0; i < FILE_BYTES; i++) {
        bytes[i] = (char)(i * 7);
    }
    check(write(fd, bytes, FILE_BYTES) == FILE_BYTES ? 0 : -EIO, "temporary file");
    return fd;
}

int main(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BlkContext) ctx = blk_context_new(NULL, &error);
    Bench b = { .fd = make_file() };

    if (ctx == NULL) {
        fprintf(stderr, "bench_core: %s\n", error->message);
        return EXIT_FAILURE;
    }
    b.n = 1000000;
    b.depth = 1;
    measure(ctx, "reschedule, 1 coroutine", switch_main, &b);
    b.depth = 16;
    measure(ctx, "reschedule, 16 coroutines", switch_main, &b);
    measure(ctx, "task of a group of 16", spawn_main, &b);
    b.n = 20000;
    measure(ctx, "offload of nothing", offload_main, &b);
    b.n = 100000;
    measure(ctx, "pread, 4 KiB cached", plain_reads, &b);
    b.depth = 1;
    measure(ctx, "read 4 KiB cached, depth 1", read_main, &b);
    b.depth = 16;
    measure(ctx, "read 4 KiB cached, depth 16", read_main, &b);
    close(b.fd);
    return EXIT_SUCCESS;
}
