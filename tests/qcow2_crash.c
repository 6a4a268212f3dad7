/* SPDX-License-Identifier: MIT */
/*
 * qcow2_crash.c - what crashes may leave of qcow2 images: docs/crash-testing.md.
 *
 *     qcow2_crash --seed S --rounds N             so many rounds, with the seeds S, S + 1, ... (or every --step)
 *     qcow2_crash --seed S --seconds T            rounds until the time is over: the long mode
 *     qcow2_crash --seed S --rounds 1 --jobs 1    one of them again
 *     qcow2_crash --seed S --rounds N --only-work many, whose states nobody judges
 *
 * A round makes an image of properties that the seed chooses, lets a guest work on it, with a log-writes filter below,
 * and judges what a crash at each prefix of the log may leave. Rounds run in several processes at once. The exit
 * status is 1 if something was found, or fewer states than --at-least were judged.
 *
 * Limitation: the order in which workers end to compress is not repeated with the seed. A failure keeps the image.
 */
#include "crash.h"

#include <execinfo.h>
#include <glib/gstdio.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- options ---- */

static gint64 arg_seed = -1, arg_at_least;
static int arg_step = 1, arg_rounds = 20, arg_seconds, arg_jobs, arg_samples = 3;
static gboolean arg_only_work;

/* ---- one round ---- */

void crash_fail(CrashRound *round, const char *format, ...)
{
    va_list args;

    printf("FAILED: seed %u: %s\n  prefix %u of %u, time %" PRIu64 ", %s:\n  ", round->seed, round->text, round->prefix,
           round->entries ? round->entries->len : 0, round->time, round->mode ? round->mode : "while the guest works");
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n  again: qcow2_crash --seed %u --rounds 1 --jobs 1\n", round->seed);
    for (unsigned i = 0; i < round->n_disks; i++) {
        g_autofree char *name = g_strdup_printf("crash-%u-%u.img", round->seed, i);
        const CrashDisk *disk = &round->disks[i];
        if (disk->state && g_file_set_contents(name, (const char *)disk->state, (gssize)disk->state_bytes, NULL)) {
            printf("  disk %u is in %s\n", i, name);
        }
    }
    fflush(stdout);
    _exit(EXIT_FAILURE);
}

BlkNode *crash_try_open(CrashRound *round, GError **error, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    g_strdelimit(text, "'", '"');
    g_autoptr(JsonObject) tree = blk_json_parse_object(text, -1, "test", error);
    return tree ? blk_co_open(round->ctx, tree, error) : NULL;
}

/* Each cluster size comes equally often; 512 bytes with counts that soon need a larger table. */
static void pick_config(CrashRound *round)
{
    static const CrashKind kinds[] = { CRASH_ALONE, CRASH_DATA_FILE, CRASH_ALONE, CRASH_REBASE, CRASH_ALONE, CRASH_COMMIT };
    static const char *const kind_texts[] = { "", ", data file", ", raw data file", ", rebase", ", commit" };
    static const unsigned clusters[] = { 512, 65536, 1024, 4096, 16384, 2048 }, widths[] = { 1, 2, 4, 8, 16, 32, 64 };
    CrashConfig *c = &round->config;

    c->cluster_size = clusters[round->seed % G_N_ELEMENTS(clusters)];
    c->kind = kinds[round->seed / G_N_ELEMENTS(clusters) % G_N_ELEMENTS(kinds)];
    c->v2 = g_rand_int_range(round->rand, 0, 5) == 0;
    c->refcount_bits = c->v2 ? 16 : widths[g_rand_int_range(round->rand, 0, G_N_ELEMENTS(widths))];
    c->zstd = !c->v2 && g_rand_boolean(round->rand);
    c->lazy = !c->v2 && g_rand_int_range(round->rand, 0, 4) == 0;
    c->extended_l2 = !c->v2 && c->cluster_size >= 16384 && g_rand_boolean(round->rand);
    c->backing = g_rand_int_range(round->rand, 0, 3) == 0;
    c->bitmaps = !c->v2 && g_rand_boolean(round->rand);
    c->snapshots = c->refcount_bits > 1 && g_rand_boolean(round->rand);
    c->style = g_rand_int_range(round->rand, 0, 3);
    if (c->kind == CRASH_DATA_FILE) {
        c->kind = g_rand_boolean(round->rand) ? CRASH_DATA_FILE : CRASH_DATA_FILE_RAW;
        c->backing = c->backing && c->kind == CRASH_DATA_FILE;
        c->refcount_bits = c->v2 ? 16 : c->refcount_bits;
        c->v2 = false;
        c->style = 0;
    } else if (c->kind != CRASH_ALONE) {
        c->backing = false;         /* but for the ones that the kind has */
    }
    if (c->style == 1 && c->kind == CRASH_ALONE) {
        unsigned n = g_rand_int_range(round->rand, 0, 4);
        c->buffer = n == 0 ? 0 : n == 1 ? 1 << 20 : n * c->cluster_size;
    }
    c->blocks = (round->seed + round->seed / G_N_ELEMENTS(clusters)) % 3 == 1;     /* with each size */
    c->snapshots = c->snapshots && c->kind == CRASH_ALONE;      /* theirs would change with what is below */
    c->sectors = c->cluster_size < 4096 ? 512 : 1024;
    if (c->cluster_size == 512 && !c->v2) {
        c->refcount_bits = g_rand_boolean(round->rand) ? 64 : c->refcount_bits;
        c->sectors = c->refcount_bits == 64 ? 4600 : 1024;
    }
    c->max_sectors = c->sectors + c->sectors / 4;
    round->text = g_strdup_printf("cluster_size %u, refcount_bits %u, compat %s, %s%s%s%s%s%s%s, %s writes, buffer %u%s",
                                  c->cluster_size,
                                  c->refcount_bits, c->v2 ? "0.10" : "1.1", c->zstd ? "zstd" : "zlib",
                                  kind_texts[c->kind], c->lazy ? ", lazy_refcounts" : "", c->extended_l2 ? ", extended_l2" : "",
                                  c->backing ? ", backing file" : "", c->bitmaps ? ", bitmaps" : "", c->snapshots ? ", snapshots" : "",
                                  c->style == 0 ? "plain" : c->style == 1 ? "compressed" : "plain and compressed",
                                  c->buffer, c->blocks ? ", blocks of 4 KiB" : "");
}

static int co_round(void *opaque)
{
    CrashRound *round = opaque;

    round->rand = g_rand_new_with_seed(round->seed);
    pick_config(round);
    crash_stack_co_make(round);
    crash_guest_init(round);
    crash_stack_co_open(round);
    crash_guest_co_prefill(round);
    crash_stack_co_close(round);
    crash_stack_record(round);
    crash_stack_co_open(round);
    crash_guest_co_workload(round);
    crash_stack_co_close(round);
    crash_guest_index(round);
    crash_log_read(round);
    if (!arg_only_work) {
        crash_log_co_states(round);
    }
    printf("seed %u: %s: %u entries, %" PRIu64 " states, in %" PRIu64 " a bitmap that may be trusted\n", round->seed,
           round->text, round->entries->len, round->states, round->trusted / 2);
    fflush(stdout);

    crash_guest_clear(round);
    crash_stack_clear(round);
    g_array_unref(round->entries);
    g_rand_free(round->rand);
    g_free(round->start);
    g_free(round->text);
    return 0;
}

/* ---- a round that does not end ---- */

enum { MAX_ROUND_SECONDS = 500 };

static const CrashRound *watched;       /* by the handler of a signal: the one that this process runs */

/* The process ends here, so that nothing else of it is used: what the C library's output locks is no matter. */
static void tell_hang(int number)
{
    void *frames[32];
    int n = backtrace(frames, G_N_ELEMENTS(frames));

    printf("FAILED: seed %u: %s\n  no end after %d s: prefix %u of %u, %s\n", watched->seed, watched->text, MAX_ROUND_SECONDS,
           watched->prefix, watched->entries ? watched->entries->len : 0, watched->mode ? watched->mode : "while the guest works");
    fflush(stdout);
    backtrace_symbols_fd(frames, n, STDOUT_FILENO);
    _exit(EXIT_FAILURE);
}

static void watch(const CrashRound *round)
{
    watched = round;
    signal(SIGALRM, tell_hang);
    alarm(MAX_ROUND_SECONDS);
}

/* Returns: how many states were judged. */
static uint64_t run_round(const char *dir, uint32_t seed, unsigned samples)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BlkContext) ctx = blk_context_new(NULL, &error);
    CrashRound round = { .ctx = ctx, .seed = seed, .dir = dir, .samples = samples };

    if (!ctx || blk_driver_register(ctx, &mem_disk_driver, &error) < 0) {
        crash_fail(&round, "%s", error->message);
    }
    watch(&round);
    blk_run(ctx, co_round, &round);
    alarm(0);
    return round.states;
}

/* ---- the program ---- */

static const GOptionEntry entries[] = {
    { "seed", 0, 0, G_OPTION_ARG_INT64, &arg_seed, "of the first round; the next ones count up", "N" },
    { "step", 0, 0, G_OPTION_ARG_INT, &arg_step, "by which they count up (default: 1; 6: one cluster size)", "N" },
    { "rounds", 0, 0, G_OPTION_ARG_INT, &arg_rounds, "how many", "N" },
    { "seconds", 0, 0, G_OPTION_ARG_INT, &arg_seconds, "rounds until so much time has passed", "N" },
    { "jobs", 0, 0, G_OPTION_ARG_INT, &arg_jobs, "processes (default: as many as processors)", "N" },
    { "samples", 0, 0, G_OPTION_ARG_INT, &arg_samples, "states of each prefix beside all and nothing", "N" },
    { "only-work", 0, 0, G_OPTION_ARG_NONE, &arg_only_work, "judge no states: does the guest meet an error?", NULL },
    { "at-least", 0, 0, G_OPTION_ARG_INT64, &arg_at_least, "states: fewer are a failure", "N" },
    { NULL },
};

/* Runs each arg_jobs-th round, from number @first on. Writes the number of states to @fd. */
static void run_worker(int first, int fd)
{
    gint64 end = g_get_monotonic_time() + (gint64)arg_seconds * G_USEC_PER_SEC;
    g_autofree char *dir = g_dir_make_tmp("blkstack-crash-XXXXXX", NULL);
    uint64_t states = 0;

    for (int i = first; arg_seconds > 0 ? g_get_monotonic_time() < end : i < arg_rounds; i += arg_jobs) {
        states += run_round(dir, (uint32_t)(arg_seed + (gint64)i * arg_step), (unsigned)arg_samples);
    }
    g_rmdir(dir);
    _exit(write(fd, &states, sizeof(states)) == sizeof(states) ? EXIT_SUCCESS : EXIT_FAILURE);
}

static int run_jobs(void)
{
    uint64_t total = 0, states;
    bool good = true;
    int fds[2], status;

    if (pipe(fds) < 0) {
        perror("pipe");
        return EXIT_FAILURE;
    }
    for (int i = 0; i < arg_jobs; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            run_worker(i, fds[1]);
        }
        good &= pid > 0;
    }
    close(fds[1]);
    while (wait(&status) > 0) {
        good &= WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS;
    }
    while (read(fds[0], &states, sizeof(states)) == sizeof(states)) {
        total += states;
    }
    close(fds[0]);
    printf("%s: %" PRIu64 " crash states, seeds from %" G_GINT64_FORMAT "\n", good ? "good" : "FAILED", total,
           arg_seed);
    if (good && total < (uint64_t)arg_at_least) {
        printf("FAILED: these are fewer than %" G_GINT64_FORMAT "\n", arg_at_least);
        good = false;
    }
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    g_autoptr(GOptionContext) options = g_option_context_new("- what crashes may leave of qcow2 images");
    g_autoptr(GError) error = NULL;

    g_option_context_add_main_entries(options, entries, NULL);
    if (!g_option_context_parse(options, &argc, &argv, &error)) {
        fprintf(stderr, "%s\n", error->message);
        return EXIT_FAILURE;
    }
    if (arg_seed < 0) {
        arg_seed = g_random_int();
    }
    if (arg_step < 1) {
        fprintf(stderr, "--step must be at least 1\n");
        return EXIT_FAILURE;
    }
    mallopt(M_MMAP_THRESHOLD, 32 << 20);        /* images come and go: their pages stay */
    mallopt(M_TRIM_THRESHOLD, 256 << 20);
    arg_jobs = arg_jobs > 0 ? arg_jobs : (int)g_get_num_processors();
    return run_jobs();
}
