/* SPDX-License-Identifier: MIT */
/*
 * test_qcow2_crash.c - what a crash may leave of a qcow2 image: random guest requests on an image in a "log" disk;
 * then, for moments around each flush and between, images of what the disk could hold. In each of them a check finds no
 * corruption (leaks are allowed) and each guest sector has the content that was flushed last, or a later one.
 *
 * BLK_TEST_SEED repeats one run; BLK_TEST_ROUNDS makes more of them.
 */
#include "log_disk.h"

#define GUEST_SECTORS 1024

enum { TASKS = 4, PHASES = 5, PHASE_OPS = 6, STATES = 60 };

typedef struct GuestWrite {
    uint32_t id;                    /* 0: zeroes */
    bool random;                    /* does not compress */
    uint64_t first, sectors, begin, end;
} GuestWrite;

typedef struct Run {
    Test *t;
    uint32_t seed;
    GRand *rand;
    BlkNode *disk_node;
    LogDisk *disk;
    BlkChild *user;                 /* of the phase */
    GPtrArray *writes;              /* of GuestWrite */
    GArray *flushes;                /* of LogFlush: the guest's */
    unsigned running;
    unsigned states, pending_states;
} Run;

/* ---- guest content: each sector tells who wrote it ---- */

static void fill_sector(uint8_t *sector, const GuestWrite *w, uint64_t number)
{
    uint64_t z = ((uint64_t)w->id << 32) + number;

    if (w->id == 0) {
        memset(sector, 0, LOG_SECTOR);
        return;
    }
    memset(sector, (int)(w->id & 0xff) | 1, LOG_SECTOR);
    for (size_t i = 0; i < LOG_SECTOR; i += w->random ? 8 : 128) {
        memcpy(sector + i, &z, sizeof(z));
        z = i == 0 || w->random ? (z + i + 1) * UINT64_C(0x9e3779b97f4a7c15) : z;
        z ^= z >> 29;
    }
}

/* Could the sector hold what @w wrote, when the guest's writes that ended before @stable are stable? */
static bool is_superseded(const Run *run, const GuestWrite *w, uint64_t sector, uint64_t stable)
{
    for (guint i = 0; i < run->writes->len; i++) {
        const GuestWrite *later = g_ptr_array_index(run->writes, i);
        if (later->begin > w->end && later->end < stable &&
            sector >= later->first && sector - later->first < later->sectors) {
            return true;
        }
    }
    return false;
}

static bool sector_is_allowed(const Run *run, const uint8_t *sector, uint64_t number, uint64_t now, uint64_t stable)
{
    uint8_t expected[LOG_SECTOR];

    for (guint i = 0; i < run->writes->len; i++) {
        const GuestWrite *w = g_ptr_array_index(run->writes, i);
        if (w->begin > now || number < w->first || number - w->first >= w->sectors) {
            continue;
        }
        fill_sector(expected, w, number);
        if (memcmp(sector, expected, LOG_SECTOR) == 0 && !is_superseded(run, w, number, stable)) {
            return true;
        }
    }
    return false;
}

/* ---- the workload ---- */

static GuestWrite *new_write(Run *run, uint64_t first, uint64_t sectors, bool zeroes)
{
    GuestWrite *w = g_new0(GuestWrite, 1);

    w->id = zeroes ? 0 : run->writes->len + 1;
    w->random = g_rand_int(run->rand) % 3 == 0;
    w->first = first;
    w->sectors = sectors;
    w->begin = ++run->disk->now;
    w->end = UINT64_MAX;
    g_ptr_array_add(run->writes, w);
    return w;
}

static void random_write(Run *run, uint64_t first, uint64_t sectors)
{
    GuestWrite *w = new_write(run, first, sectors, false);
    g_autofree uint8_t *buf = g_malloc(sectors * LOG_SECTOR);

    for (uint64_t i = 0; i < sectors; i++) {
        fill_sector(buf + i * LOG_SECTOR, w, first + i);
    }
    ck_assert_int_eq(blk_co_pwrite(blk_child_node(run->user), first * LOG_SECTOR, sectors * LOG_SECTOR, buf, 0), 0);
    w->end = ++run->disk->now;
}

static void guest_flush(Run *run)
{
    LogFlush flush = { .begin = ++run->disk->now };

    ck_assert_int_eq(blk_co_flush(blk_child_node(run->user)), 0);
    flush.end = ++run->disk->now;
    g_array_append_val(run->flushes, flush);
}

static void random_request(Run *run)
{
    uint64_t limit = g_rand_int(run->rand) % 4 == 0 ? 256 : 24;
    uint64_t first = g_rand_int(run->rand) % GUEST_SECTORS;
    uint64_t sectors = 1 + g_rand_int(run->rand) % MIN(limit, GUEST_SECTORS - first);
    unsigned kind = g_rand_int(run->rand) % 20;
    BlkNode *node = blk_child_node(run->user);

    if (kind < 12) {
        random_write(run, first, sectors);
    } else if (kind < 15) {
        unsigned flags = g_rand_boolean(run->rand) ? BLK_REQ_UNMAP : 0;
        GuestWrite *w = new_write(run, first, sectors, true);
        ck_assert_int_eq(blk_co_pwrite_zeroes(node, first * LOG_SECTOR, sectors * LOG_SECTOR, flags), 0);
        w->end = ++run->disk->now;
    } else if (kind < 17) {
        new_write(run, first, sectors, true);       /* a hint: it never supersedes what was there */
        ck_assert_int_eq(blk_co_discard(node, first * LOG_SECTOR, sectors * LOG_SECTOR), 0);
    } else {
        guest_flush(run);
    }
}

static int co_task(void *opaque)
{
    Run *run = opaque;

    for (unsigned i = 0; i < PHASE_OPS; i++) {
        random_request(run);
    }
    run->running--;
    return 0;
}

static BlkChild *attach(BlkNode *node)
{
    BlkChild *user = blk_co_attach(node, "test", BLK_PERM_READ | BLK_PERM_WRITE, BLK_PERM_ALL, NULL);

    ck_assert_ptr_nonnull(user);
    return user;
}

static void workload(Run *run)
{
    BlkNode *top = try_open(run->t, "{'driver': 'compress', 'node-name': 'top', 'file': {'driver': 'qcow2', 'discard': "
                            "'unmap', 'node-name': 'image', 'file': 'disk'}}", NULL);
    ck_assert_ptr_nonnull(top);
    BlkChild *users[2] = { attach(blk_node_find(run->t->ctx, "image")), attach(top) };
    unsigned style = g_rand_int(run->rand) % 3;     /* plain, compressed, both by turns */

    for (unsigned phase = 0; phase < PHASES; phase++) {
        run->user = users[style < 2 ? style : phase % 2];
        run->running = TASKS;
        for (unsigned i = 0; i < TASKS; i++) {
            blk_co_spawn(run->t->ctx, co_task, run);
        }
        while (run->running > 0) {
            blk_co_reschedule();
        }
    }
    blk_co_detach(users[0]);
    blk_co_detach(users[1]);
    blk_co_unref(top);
}

/* ---- crashes ---- */

static void finding(const char *text, void *opaque)
{
    g_string_append_printf(opaque, "\n  %s", text);
}

static void check_guest(const Run *run, BlkNode *node, uint64_t now, unsigned percent)
{
    g_autofree uint8_t *guest = g_malloc(GUEST_SECTORS * LOG_SECTOR);
    uint64_t stable = 0;

    for (guint i = 0; i < run->flushes->len; i++) {
        const LogFlush *flush = &g_array_index(run->flushes, LogFlush, i);
        stable = flush->end <= now ? MAX(stable, flush->begin) : stable;
    }
    ck_assert_int_eq(blk_co_pread(node, 0, GUEST_SECTORS * LOG_SECTOR, guest, 0), 0);
    for (uint64_t i = 0; i < GUEST_SECTORS; i++) {
        ck_assert_msg(sector_is_allowed(run, guest + i * LOG_SECTOR, i, now, stable),
                      "seed %u, time %u, %u%%: guest sector %u is neither what was flushed nor newer; begins %016lx",
                      run->seed, (unsigned)now, percent, (unsigned)i, *(unsigned long *)(guest + i * LOG_SECTOR));
    }
}

static void check_crash(Run *run, uint64_t now, unsigned percent)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GString) findings = g_string_new(NULL);
    BlkCheckOptions options = { .data = true, .message = finding, .opaque = findings };
    BlkCheckResult result = { 0 };
    uint64_t length;
    g_autofree uint8_t *image = log_crash(run->disk, now, percent, run->rand, &length);
    BlkNode *disk = try_open(run->t, "{'driver': 'log', 'node-name': 'crashed'}", NULL);

    log_set_initial(disk, image, length);
    BlkNode *node = try_open(run->t, "{'driver': 'qcow2', 'read-only': true, 'file': 'crashed'}", &error);
    ck_assert_msg(node != NULL, "seed %u, time %u: %s", run->seed, (unsigned)now, error ? error->message : "");
    BlkChild *user = blk_co_attach(node, "test", BLK_PERM_READ, BLK_PERM_ALL, NULL);
    ck_assert_ptr_nonnull(user);
    ck_assert_int_eq(blk_co_check(node, &options, &result, NULL), 0);
    ck_assert_msg(result.corruptions == 0 && result.check_errors == 0, "seed %u, time %u, %u%%: corruptions: %s",
                  run->seed, (unsigned)now, percent, findings->str);
    check_guest(run, node, now, percent);
    blk_co_detach(user);
    blk_co_unref(node);
    blk_co_unref(disk);
    run->states++;
}

static void check_crashes(Run *run)
{
    static const unsigned percents[] = { 0, 50, 100, 20, 80 };
    guint count = run->disk->flushes->len;
    unsigned step = MAX(1, count * 3 / STATES);

    for (guint i = g_rand_int(run->rand) % step; i < count; i += step) {
        uint64_t end = g_array_index(run->disk->flushes, LogFlush, i).end;
        check_crash(run, end - 1, percents[g_rand_int(run->rand) % G_N_ELEMENTS(percents)]);
        check_crash(run, end, percents[g_rand_int(run->rand) % G_N_ELEMENTS(percents)]);
        check_crash(run, 2 + g_rand_int(run->rand) % run->disk->now, 50);
    }
}

static void run_once(Test *t, uint32_t seed)
{
    static const unsigned clusters[] = { 512, 1024, 4096, 16384, 65536 }, widths[] = { 1, 8, 16, 64 };
    Run run = { .t = t, .seed = seed, .rand = g_rand_new_with_seed(seed) };
    g_autofree char *options = g_strdup_printf("{'size': %u, 'cluster_size': %u, 'refcount_bits': %u}",
                                               (unsigned)(GUEST_SECTORS * LOG_SECTOR),
                                               clusters[g_rand_int(run.rand) % G_N_ELEMENTS(clusters)],
                                               widths[g_rand_int(run.rand) % G_N_ELEMENTS(widths)]);

    run.disk_node = log_new_image(t, "disk", options);
    run.disk = log_disk(run.disk_node);
    g_rand_set_seed(run.disk->rand, seed);
    run.writes = g_ptr_array_new_with_free_func(g_free);
    run.flushes = g_array_new(FALSE, FALSE, sizeof(LogFlush));
    new_write(&run, 0, GUEST_SECTORS, true)->end = ++run.disk->now;
    workload(&run);
    check_crashes(&run);
    blk_co_unref(run.disk_node);
    g_test_message("seed %u: %s: %u states", seed, options, run.states);
    ck_assert_uint_gt(run.states, 0);
    g_ptr_array_unref(run.writes);
    g_array_unref(run.flushes);
    g_rand_free(run.rand);
}

CO_TEST(test_crashes)
{
    const char *seed_text = g_getenv("BLK_TEST_SEED"), *rounds_text = g_getenv("BLK_TEST_ROUNDS");
    uint32_t seed = seed_text ? (uint32_t)g_ascii_strtoull(seed_text, NULL, 10) : 1;
    unsigned rounds = rounds_text ? (unsigned)g_ascii_strtoull(rounds_text, NULL, 10) : 6;

    ck_assert_int_eq(blk_driver_register(t->ctx, &log_driver, NULL), 0);
    for (unsigned i = 0; i < rounds; i++) {
        run_once(t, seed + i);
    }
}

BLK_TEST_MAIN("qcow2_crash", test_crashes)
