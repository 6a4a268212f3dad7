/* SPDX-License-Identifier: MIT */
/* test_aio.c - file I/O on the context's engine. */
#include "test.h"

#include "core/loop.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

static int temp_file(void)
{
    g_autofree char *name = NULL;
    int fd = g_file_open_tmp("blkstack-aio-XXXXXX", &name, NULL);

    ck_assert_int_ge(fd, 0);
    g_unlink(name);
    return fd;
}

static void run(BlkCoFn *fn, void *opaque)
{
    g_autoptr(GError) error = NULL;
    BlkContext *ctx = blk_context_new(NULL, &error);

    ck_assert_msg(ctx != NULL, "%s", error ? error->message : "no message");
    ck_assert_int_eq(blk_run(ctx, fn, opaque), 0);
    blk_context_free(ctx);
}

static int co_read(int fd, uint64_t offset, void *buf, size_t bytes)
{
    struct iovec vec = { buf, bytes };

    BlkAioFile file = { .fd = fd, .cached = true };

    return blk_aio_co_preadv(blk_co_context(), &file, offset, bytes, (BlkIov){ .vec = &vec, .count = 1 });
}

static int co_write(int fd, uint64_t offset, const void *buf, size_t bytes, bool dsync)
{
    struct iovec vec = { (void *)buf, bytes };

    BlkAioFile file = { .fd = fd };

    return blk_aio_co_pwritev(blk_co_context(), &file, offset, bytes, (BlkIov){ .vec = &vec, .count = 1 }, dsync);
}

/* ---- random I/O against a model ---- */

enum { MODEL_BYTES = 1 << 20, SLICES = 16, SLICE_BYTES = MODEL_BYTES / SLICES, ROUNDS = 100, MAX_PIECES = 150 };

typedef struct Slice {
    BlkAioFile file;
    unsigned number;
    uint8_t *model;
} Slice;

/* Cuts @buf into pieces of random lengths, some empty. */
static unsigned cut(GRand *rand, uint8_t *buf, size_t bytes, struct iovec *vec)
{
    unsigned n = 0;

    while (bytes > 0) {
        size_t piece = n + 1 == MAX_PIECES ? bytes : (size_t)g_rand_int_range(rand, 0, (int)MIN(bytes, 700) + 1);

        vec[n++] = (struct iovec){ buf, piece };
        buf += piece;
        bytes -= piece;
    }
    return n;
}

static int random_io(void *opaque)
{
    Slice *s = opaque;
    GRand *rand = g_rand_new_with_seed(s->number);
    uint64_t start = (uint64_t)s->number * SLICE_BYTES;
    g_autofree uint8_t *buf = g_malloc(SLICE_BYTES);
    g_autofree struct iovec *vec = g_new(struct iovec, MAX_PIECES);

    for (unsigned round = 0; round < ROUNDS; round++) {
        size_t offset = (size_t)g_rand_int_range(rand, 0, SLICE_BYTES);
        size_t bytes = (size_t)g_rand_int_range(rand, 0, SLICE_BYTES - (int)offset + 1);
        BlkIov iov = { .vec = vec, .count = cut(rand, buf, bytes, vec) };

        if (g_rand_boolean(rand)) {
            memset(buf, (int)(round * SLICES + s->number), bytes);
            memcpy(s->model + start + offset, buf, bytes);
            bool dsync = round % 16 == 0;
            ck_assert_int_eq(blk_aio_co_pwritev(blk_co_context(), &s->file, start + offset, bytes, iov, dsync), 0);
        } else {
            memset(buf, 0xee, bytes);
            ck_assert_int_eq(blk_aio_co_preadv(blk_co_context(), &s->file, start + offset, bytes, iov), 0);
            ck_assert_mem_eq(buf, s->model + start + offset, bytes);
        }
    }
    g_rand_free(rand);
    return 0;
}

static int random_main(void *opaque)
{
    BlkCoGroup group = BLK_CO_GROUP_INIT(SLICES);
    g_autofree uint8_t *model = g_malloc0(MODEL_BYTES);
    g_autofree uint8_t *file = g_malloc(MODEL_BYTES);
    Slice slices[SLICES];
    int fd = temp_file();

    for (unsigned i = 0; i < SLICES; i++) {
        slices[i] = (Slice){ .file = { fd, .cached = true, .copy_align = 512 }, .number = i, .model = model };
        ck_assert_int_eq(blk_co_group_run(&group, random_io, &slices[i]), 0);
    }
    ck_assert_int_eq(blk_co_group_wait(&group), 0);
    ck_assert_int_eq(blk_aio_co_fdatasync(blk_co_context(), fd), 0);
    ck_assert_int_eq(co_read(fd, 0, file, MODEL_BYTES), 0);
    ck_assert_mem_eq(file, model, MODEL_BYTES);
    close(fd);
    return 0;
}

START_TEST(random_reads_and_writes)
{
    run(random_main, NULL);
}
END_TEST

/* More requests at once than any ring or pool holds. */
enum { FLOOD = 2000 };

typedef struct Drop {
    int fd;
    uint32_t number;
} Drop;

static int flood_task(void *opaque)
{
    Drop *d = opaque;
    uint32_t got = 0;

    ck_assert_int_eq(co_write(d->fd, (uint64_t)d->number * 512, &d->number, sizeof(d->number), false), 0);
    ck_assert_int_eq(co_read(d->fd, (uint64_t)d->number * 512, &got, sizeof(got)), 0);
    ck_assert_uint_eq(got, d->number);
    return 0;
}

static int flood_main(void *opaque)
{
    BlkCoGroup group = BLK_CO_GROUP_INIT(FLOOD);
    g_autofree Drop *drops = g_new(Drop, FLOOD);
    int fd = temp_file();

    for (unsigned i = 0; i < FLOOD; i++) {
        drops[i] = (Drop){ .fd = fd, .number = i };
        ck_assert_int_eq(blk_co_group_run(&group, flood_task, &drops[i]), 0);
    }
    ck_assert_int_eq(blk_co_group_wait(&group), 0);
    close(fd);
    return 0;
}

START_TEST(two_thousand_requests_at_once)
{
    run(flood_main, NULL);
}
END_TEST

/* ---- the edges ---- */

static int edges_main(void *opaque)
{
    g_autofree char *buf = g_malloc(65536);
    BlkContext *ctx = blk_co_context();
    int fd = temp_file();
    int bad = dup(fd);

    close(bad);
    ck_assert_int_eq(co_read(bad, 0, buf, 512), -EBADF);
    ck_assert_int_eq(co_write(bad, 0, buf, 512, false), -EBADF);
    ck_assert_int_eq(blk_aio_co_fdatasync(ctx, bad), -EBADF);
    ck_assert_int_eq(blk_aio_co_fallocate(ctx, bad, 0, 0, 512), -EBADF);

    ck_assert_int_eq(co_write(fd, 0, "12345", 5, true), 0);
    memset(buf, 'x', 65536);
    ck_assert_int_eq(co_read(fd, 2, buf, 65535), 0);
    ck_assert_mem_eq(buf, "345", 3);
    ck_assert(blk_buffer_is_zero(buf + 3, 65532));
    ck_assert_int_eq(buf[65535], 'x');
    ck_assert_int_eq(co_read(fd, 1 << 30, buf, 65536), 0);
    ck_assert(blk_buffer_is_zero(buf, 65536));

    ck_assert_int_eq(co_read(fd, 0, buf, 0), 0);
    ck_assert_int_eq(co_write(fd, 0, buf, 0, false), 0);
    ck_assert_int_eq(co_read(fd, (uint64_t)INT64_MAX - 1, buf, 2), -EINVAL);
    ck_assert_int_eq(co_read(fd, UINT64_MAX, buf, 2), -EINVAL);
    ck_assert_int_eq(co_write(fd, UINT64_MAX - 1, buf, 4, false), -EINVAL);
    ck_assert_int_eq(blk_aio_co_fallocate(ctx, fd, 0, UINT64_MAX, 4), -EINVAL);
    close(fd);
    return 0;
}

START_TEST(edges)
{
    run(edges_main, NULL);
}
END_TEST

static int full_main(void *opaque)
{
    static const char buf[8192];
    int fd = open("/dev/full", O_RDWR | O_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(co_write(fd, 0, buf, sizeof(buf), false), -ENOSPC);
    ck_assert_int_eq(co_write(fd, 4096, buf, 1, true), -ENOSPC);
    close(fd);
    return 0;
}

START_TEST(full_device)
{
    run(full_main, NULL);
}
END_TEST

static int fallocate_main(void *opaque)
{
    BlkContext *ctx = blk_co_context();
    char buf[8192];
    struct stat st;
    int fd = temp_file();
    int ret = blk_aio_co_fallocate(ctx, fd, 0, 0, 16384);

    if (ret != -EOPNOTSUPP) {
        ck_assert_int_eq(ret, 0);
        ck_assert_int_eq(fstat(fd, &st), 0);
        ck_assert_int_eq(st.st_size, 16384);
        memset(buf, 'x', sizeof(buf));
        ck_assert_int_eq(co_write(fd, 0, buf, sizeof(buf), false), 0);
        ck_assert_int_eq(blk_aio_co_fallocate(ctx, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), 0);
        ck_assert_int_eq(co_read(fd, 0, buf, sizeof(buf)), 0);
        ck_assert(blk_buffer_is_zero(buf, 4096));
        ck_assert_int_eq(buf[4096], 'x');
    }
    close(fd);
    return 0;
}

START_TEST(fallocate_and_holes)
{
    run(fallocate_main, NULL);
}
END_TEST

/* A file whose length is no multiple of a sector, by O_DIRECT. */
static int direct_main(void *opaque)
{
    g_autofree char *name = NULL;
    int fd = g_file_open_tmp("blkstack-aio-XXXXXX", &name, NULL);
    int direct = open(name, O_RDONLY | O_DIRECT | O_CLOEXEC);
    char *buf = blk_buffer_try_alloc(NULL, 16384);

    g_unlink(name);
    memset(buf, 'x', 16384);
    ck_assert_int_eq(co_write(fd, 0, buf, 5000, false), 0);
    ck_assert_int_eq(blk_aio_co_fdatasync(blk_co_context(), fd), 0);
    if (direct >= 0) {
        ck_assert_int_eq(co_read(direct, 0, buf, 16384), 0);
        ck_assert_int_eq(buf[4999], 'x');
        ck_assert(blk_buffer_is_zero(buf + 5000, 16384 - 5000));
        close(direct);
    }
    close(fd);
    blk_buffer_free(buf);
    return 0;
}

START_TEST(direct_read_at_an_odd_end)
{
    run(direct_main, NULL);
}
END_TEST

static void on_alarm(int signal_number)
{
}

/* Signals without SA_RESTART interrupt system calls all the time. */
static int interrupted_main(void *opaque)
{
    struct sigaction action = { .sa_handler = on_alarm }, old;
    struct itimerval often = { { 0, 500 }, { 0, 500 } }, never = { 0 };

    sigaction(SIGALRM, &action, &old);
    setitimer(ITIMER_REAL, &often, NULL);
    random_main(NULL);
    for (unsigned i = 0; i < 20; i++) {
        blk_co_sleep_ns(1000000);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    sigaction(SIGALRM, &old, NULL);
    return 0;
}

START_TEST(signals_do_not_hurt)
{
    run(interrupted_main, NULL);
}
END_TEST

/* ---- what is done on the spot ---- */

enum { UNIT = 4096, IN_A_ROW = 16 };

static int count_turn(void *opaque)
{
    ++*(unsigned *)opaque;
    return 0;
}

/* Whether a write let others run. */
static bool write_yields(BlkAioFile *file, uint64_t offset, size_t bytes, bool dsync)
{
    g_autofree char *buf = g_malloc0(bytes);
    struct iovec vec = { buf, bytes };
    unsigned turns = 0, before;
    BlkContext *ctx = blk_co_context();

    file->no_copy_before_ns = 0;        /* whatever the machine was busy with */
    blk_co_spawn(ctx, count_turn, &turns);
    ck_assert_int_eq(blk_aio_co_pwritev(ctx, file, offset, bytes, (BlkIov){ .vec = &vec, .count = 1 }, dsync), 0);
    before = turns;
    blk_co_reschedule();        /* so that none is left, and this one has just begun */
    ck_assert_uint_eq(turns, 1);
    return before > 0;
}

/* Drops the file from the page cache; false: this file system keeps it there. */
static bool forget(int fd)
{
    char byte;
    struct iovec vec = { &byte, 1 };

    ck_assert_int_eq(fsync(fd), 0);
    ck_assert_int_eq(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    return preadv2(fd, &vec, 1, 0, RWF_NOWAIT) < 0 && preadv2(fd, &vec, 1, UNIT, RWF_NOWAIT) < 0;
}

static int inline_main(void *opaque)
{
    BlkAioFile file = { .fd = temp_file(), .copy_align = UNIT }, unknown = { .fd = file.fd };
    char buf[UNIT];

    ck_assert(!write_yields(&file, 0, UNIT, false));
    ck_assert(!write_yields(&file, UNIT, 16 * UNIT, false));
    ck_assert_msg(write_yields(&file, 0, 17 * UNIT, false), "large");
    ck_assert_msg(write_yields(&file, 0, UNIT, true), "it waits for the disk");
    ck_assert_msg(!write_yields(&file, 512, UNIT, false), "the rest of the units is cached");
    ck_assert_msg(!write_yields(&file, UNIT, 512, false), "the rest of the unit is cached");
    if (forget(file.fd)) {
        ck_assert_msg(write_yields(&file, UNIT - 512, 512, false), "the rest of the unit must be read");
    }
    if (forget(file.fd)) {
        ck_assert_msg(write_yields(&file, UNIT, 512, false), "the rest of the unit must be read");
    }
    ck_assert_msg(write_yields(&unknown, 0, UNIT, false), "nobody knows what it does");

    unsigned turns = 0;
    blk_co_spawn(blk_co_context(), count_turn, &turns);
    for (unsigned i = 0; i < IN_A_ROW; i++) {
        struct iovec vec = { buf, UNIT };
        memset(buf, (int)i, UNIT);
        file.no_copy_before_ns = 0;
        ck_assert_int_eq(blk_aio_co_pwritev(blk_co_context(), &file, i * UNIT, UNIT, (BlkIov){ &vec, 1, 0 }, false), 0);
        ck_assert_uint_eq(turns, 0);
    }
    struct iovec vec = { buf, UNIT };
    file.no_copy_before_ns = 0;
    ck_assert_int_eq(blk_aio_co_pwritev(blk_co_context(), &file, 0, UNIT, (BlkIov){ &vec, 1, 0 }, false), 0);
    ck_assert_uint_eq(turns, 1);
    ck_assert_int_eq(co_read(file.fd, 15 * UNIT, buf, UNIT), 0);
    ck_assert_int_eq(buf[UNIT - 1], IN_A_ROW - 1);
    close(file.fd);
    return 0;
}

START_TEST(small_writes_are_done_on_the_spot)
{
    run(inline_main, NULL);
}
END_TEST

/* ---- alone with a device ---- */

static void count_sleep(void *opaque)
{
    ++*(unsigned *)opaque;
}

/* Whether the engine got a direct write and read, with what they do checked. */
static bool direct_sleeps(int fd, bool dsync)
{
    char out[UNIT], in[UNIT];
    struct iovec out_vec = { out, UNIT }, in_vec = { in, UNIT };
    BlkAioFile file = { .fd = fd };
    unsigned writes = 0, reads = 0;
    BlkContext *ctx = blk_co_context();

    memset(out, dsync ? 1 : 2, UNIT);
    blk_co_on_sleep(count_sleep, &writes);
    ck_assert_int_eq(blk_aio_co_pwritev(ctx, &file, UNIT, UNIT, (BlkIov){ &out_vec, 1, 0 }, dsync), 0);
    blk_co_on_sleep(count_sleep, &reads);
    ck_assert_int_eq(blk_aio_co_preadv(ctx, &file, UNIT, UNIT, (BlkIov){ &in_vec, 1, 0 }), 0);
    blk_co_on_sleep(NULL, NULL);
    ck_assert_mem_eq(in, out, UNIT);
    ck_assert_uint_eq(writes, reads);
    return writes > 0;
}

static int sleep_a_second(void *opaque)
{
    BlkSleep *sleep = opaque;

    return blk_co_sleep_cancellable(sleep, blk_clock_ns() + 1000000000) == -ECANCELED ? 0 : -1;
}

typedef struct Watcher {
    BlkPoll poll;
    int fd;
} Watcher;

static int wait_for_byte(void *opaque)
{
    Watcher *w = opaque;

    return blk_co_poll(&w->poll, w->fd, POLLIN, UINT64_MAX) == -ECANCELED ? 0 : -1;
}

static int offloaded(void *opaque)
{
    g_usleep(20000);
    return 0;
}

static int offload(void *opaque)
{
    return blk_co_offload(offloaded, NULL);
}

static int alone_main(void *opaque)
{
    int fd = temp_file(), pipes[2];
    BlkCoGroup group = BLK_CO_GROUP_INIT(3);
    BlkSleep sleep = { 0 };
    Watcher watcher = { 0 };

    ck_assert(!direct_sleeps(fd, false));
    ck_assert(!direct_sleeps(fd, true));

    ck_assert_int_eq(blk_co_group_run(&group, sleep_a_second, &sleep), 0);
    blk_co_reschedule();
    ck_assert_msg(direct_sleeps(fd, false), "somebody waits for a time");
    blk_sleep_cancel(&sleep);
    blk_co_reschedule();
    ck_assert(!direct_sleeps(fd, false));

    ck_assert_int_eq(pipe(pipes), 0);
    watcher.fd = pipes[0];
    ck_assert_int_eq(blk_co_group_run(&group, wait_for_byte, &watcher), 0);
    blk_co_reschedule();
    ck_assert_msg(direct_sleeps(fd, false), "somebody waits for a file descriptor");
    blk_poll_cancel(&watcher.poll);
    blk_co_sleep_ns(1000000);

    ck_assert_int_eq(blk_co_group_run(&group, offload, NULL), 0);
    blk_co_reschedule();
    ck_assert_msg(direct_sleeps(fd, false), "somebody works");
    ck_assert_int_eq(blk_co_group_wait(&group), 0);
    ck_assert(!direct_sleeps(fd, false));
    close(pipes[0]);
    close(pipes[1]);
    close(fd);
    return 0;
}

START_TEST(who_is_alone_waits_for_the_device_itself)
{
    run(alone_main, NULL);
}
END_TEST

BLK_TEST_MAIN("aio", random_reads_and_writes, two_thousand_requests_at_once, edges, full_device, fallocate_and_holes,
              direct_read_at_an_odd_end, signals_do_not_hurt, small_writes_are_done_on_the_spot,
              who_is_alone_waits_for_the_device_itself)
