/* SPDX-License-Identifier: MIT */
/*
 * random_damage.c - what damaged images do to the drivers: nothing but errors.
 *
 *     random_damage --format FORMAT --image FILE [--seed N] [--count N | --seconds N]
 *
 * All files beside FILE belong to the image; each case damages one of them. The image is described, mapped, read and
 * checked without being changed; then it is written to, repaired and read again. Cases run in processes, a batch in
 * each, so that a signal, a report of a sanitizer, and a case that does not end within a minute are told by the seed.
 * --make writes the damaged files of one seed and does nothing with them.
 */
#include "damage.h"

#include <blkstack/driver.h>
#include <glib/gstdio.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    BATCH = 200, CASE_SECONDS = 60, MAX_STEPS = 3000, MAX_READ = 8 << 20, PIECE = 1 << 18, WRITES = 6,
    PAGE = 4096,
};

static char *arg_format, *arg_image, *arg_dir;
static gint64 arg_seed = -1;
static int arg_count = 1000, arg_seconds;
static gboolean arg_make;

typedef struct File {
    char *name;
    GByteArray *bytes;
} File;

typedef struct Progress {           /* shared by the processes */
    guint64 seed;
    guint64 opened, read, written;  /* cases that got as far */
} Progress;

typedef struct Damage {
    BlkContext *ctx;
    GPtrArray *files;               /* of File: as they were */
    char *path;                     /* of the damaged image */
    GRand *rand;
    Progress *progress;
    const char *failure;            /* (nullable) */
} Damage;

/* ---- files ---- */

static gint compare_names(gconstpointer a, gconstpointer b)
{
    return strcmp((*(File *const *)a)->name, (*(File *const *)b)->name);
}

/* In an order that does not depend on the file system. */
static GPtrArray *load_files(GError **error)
{
    g_autofree char *dir_name = g_path_get_dirname(arg_image);
    g_autoptr(GDir) dir = g_dir_open(dir_name, 0, error);
    g_autoptr(GPtrArray) files = g_ptr_array_new();
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(dir_name, name, NULL);
        File *file = g_new0(File, 1);
        char *data;
        gsize bytes;

        if (!g_file_get_contents(path, &data, &bytes, error)) {
            return NULL;
        }
        file->name = g_strdup(name);
        file->bytes = g_byte_array_new_take((guint8 *)data, bytes);
        g_ptr_array_add(files, file);
    }
    g_ptr_array_sort(files, compare_names);
    return dir ? g_steal_pointer(&files) : NULL;
}

static bool write_file(const char *path, const GByteArray *bytes)
{
    static const guint8 zeroes[PAGE];
    FILE *file = fopen(path, "w");
    bool good = file && ftruncate(fileno(file), bytes->len) == 0;

    for (guint at = 0; good && at < bytes->len; at += PAGE) {
        size_t n = MIN(PAGE, bytes->len - at);
        if (memcmp(bytes->data + at, zeroes, n) != 0) {
            good = pwrite(fileno(file), bytes->data + at, n, at) == (ssize_t)n;
        }
    }
    return file && fclose(file) == 0 && good;
}

/* The files of the case that the seed says. */
static bool make_case(Damage *d, guint64 seed)
{
    guint damaged;

    g_rand_set_seed_array(d->rand, (guint32[]){ (guint32)seed, (guint32)(seed >> 32) }, 2);
    damaged = g_rand_int(d->rand) % d->files->len;
    for (guint i = 0; i < d->files->len; i++) {
        const File *file = g_ptr_array_index(d->files, i);
        g_autofree char *path = g_build_filename(arg_dir, file->name, NULL);
        g_autoptr(GByteArray) bytes = g_byte_array_sized_new(file->bytes->len);

        g_byte_array_append(bytes, file->bytes->data, file->bytes->len);
        if (i == damaged) {
            damage_file(d->rand, bytes, arg_format);
        }
        if (!write_file(path, bytes)) {
            fprintf(stderr, "cannot write %s\n", path);
            return false;
        }
    }
    return true;
}

/* ---- what is done with an image ---- */

static BlkChild *co_open(Damage *d, const char *flag, bool writable)
{
    JsonObject *file = json_object_new();
    g_autoptr(JsonObject) tree = json_object_new();
    g_autoptr(GError) error = NULL;

    json_object_set_string_member(file, "driver", "file");
    json_object_set_string_member(file, "filename", d->path);
    json_object_set_string_member(tree, "driver", arg_format);
    json_object_set_object_member(tree, "file", file);
    json_object_set_boolean_member(tree, "read-only", !writable);
    json_object_set_boolean_member(tree, "cache.no-flush", true);
    json_object_set_string_member(tree, "discard", "unmap");
    if (flag) {
        json_object_set_boolean_member(tree, flag, true);
    }
    BlkNode *node = blk_co_open(d->ctx, tree, &error);
    unsigned perm = BLK_PERM_READ | (writable ? BLK_PERM_WRITE | BLK_PERM_RESIZE : 0);
    BlkChild *user = node ? blk_co_attach(node, "damage", perm, BLK_PERM_ALL, &error) : NULL;
    blk_co_unref(node);
    if (!user && !error) {
        d->failure = "an image is refused without a reason";
    }
    return user;
}

static void co_describe(Damage *d)
{
    BlkChild *user = co_open(d, "metadata-only", false);
    g_autoptr(GError) error = NULL;
    BlkInfo info = { 0 };

    if (user) {
        blk_co_info(blk_child_node(user), &info, &error);
        blk_info_clear(&info);
    }
    blk_co_detach(user);
}

/* Maps the disk, and reads of it what may be data. */
static void co_read(Damage *d, BlkNode *node)
{
    uint64_t length = blk_node_length(node), at = 0, left = MAX_READ;
    uint8_t *buf = blk_buffer_try_alloc(NULL, PIECE);
    BlkStatus status;

    for (unsigned i = 0; i < MAX_STEPS && at < length; i++) {
        if (blk_co_block_status_with_holes(node, at, length - at, &status) < 0) {
            at += MIN(length - at, 65536);
            continue;
        }
        if (status.bytes == 0 || status.bytes > length - at) {
            d->failure = "a status of an impossible length";
            break;
        }
        if (!(status.flags & BLK_STATUS_ZERO) && left > 0) {
            uint64_t bytes = MIN(MIN(status.bytes, PIECE), left);
            d->progress->read += blk_co_pread(node, at, bytes, buf, 0) == 0;
            left -= bytes;
            at += status.bytes > PIECE && left > 0 ? bytes : status.bytes;
            continue;
        }
        at += status.bytes;
    }
    for (unsigned i = 0; i < 10 && length > 0; i++) {
        at = ((uint64_t)g_rand_int(d->rand) << 32 | g_rand_int(d->rand)) % length;
        uint64_t bytes = 1 + g_rand_int(d->rand) % PIECE;
        (void)blk_co_pread(node, at, MIN(length - at, bytes), buf, 0);
    }
    blk_buffer_free(buf);
}

static void drop_finding(const char *text, void *opaque)
{
    *(guint64 *)opaque += strlen(text);
}

static void co_check(Damage *d, bool repair)
{
    BlkChild *user = co_open(d, "check-only", repair);
    guint64 length = 0;
    BlkCheckOptions options = { repair, repair, true, drop_finding, NULL, &length };
    BlkCheckResult result;
    g_autoptr(GError) error = NULL;

    if (user && blk_co_check(blk_child_node(user), &options, &result, &error) < 0 && !error) {
        d->failure = "a check fails without a reason";
    }
    blk_co_detach(user);
}

static void co_write(Damage *d, BlkNode *node)
{
    uint64_t length = blk_node_length(node);
    uint8_t *buf = blk_buffer_try_alloc(NULL, PIECE);

    memset(buf, 0x5a, PIECE);
    for (unsigned i = 0; i < WRITES && length > 0; i++) {
        uint64_t at = ((uint64_t)g_rand_int(d->rand) << 32 | g_rand_int(d->rand)) % length;
        if (i % 2) {
            at %= 1 << 23;
        }
        at = MIN(at, length - 1) & ~UINT64_C(511);
        uint64_t bytes = 1 + g_rand_int(d->rand) % PIECE;
        bytes = MIN(length - at, bytes);
        int ret = i == 4 ? blk_co_pwrite_zeroes(node, at, bytes, BLK_REQ_UNMAP)
                  : i == 5 ? blk_co_discard(node, at, bytes) : blk_co_pwrite(node, at, bytes, buf, 0);
        d->progress->written += ret == 0;
    }
    (void)blk_co_flush(node);
    blk_buffer_free(buf);
}

static int co_case(void *opaque)
{
    Damage *d = opaque;
    BlkChild *user;

    co_describe(d);
    if ((user = co_open(d, NULL, false))) {
        d->progress->opened++;
        co_read(d, blk_child_node(user));
        blk_co_detach(user);
    }
    co_check(d, false);
    if ((user = co_open(d, NULL, true))) {
        co_write(d, blk_child_node(user));
        blk_co_detach(user);
    }
    co_check(d, true);
    if ((user = co_open(d, NULL, false))) {
        co_read(d, blk_child_node(user));
        blk_co_detach(user);
    }
    return 0;
}

/* ---- processes ---- */

static int run_batch(Damage *d, guint64 first, guint64 count)
{
    g_autoptr(GError) error = NULL;

    d->ctx = blk_context_new(NULL, &error);
    if (!d->ctx) {
        fprintf(stderr, "%s\n", error->message);
        return EXIT_FAILURE;
    }
    for (guint64 seed = first; seed < first + count && !d->failure; seed++) {
        d->progress->seed = seed;
        alarm(CASE_SECONDS);
        if (!make_case(d, seed)) {
            d->failure = "no files";
        }
        blk_run(d->ctx, co_case, d);
    }
    alarm(0);
    g_clear_pointer(&d->ctx, blk_context_free);
    if (d->failure) {
        fprintf(stderr, "seed %" PRIu64 ": %s\n", d->progress->seed, d->failure);
    }
    return d->failure ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* The number of cases that came to a bad end. */
static unsigned run_cases(Damage *d)
{
    gint64 end = g_get_monotonic_time() + arg_seconds * G_USEC_PER_SEC;
    guint64 seed = arg_seed, last = arg_seconds ? UINT64_MAX : seed + arg_count;
    unsigned bad = 0;

    while (seed < last && bad < 20 && (!arg_seconds || g_get_monotonic_time() < end)) {
        guint64 count = MIN(BATCH, last - seed);
        int status;
        pid_t pid = fork();

        if (pid == 0) {
            exit(run_batch(d, seed, count));
        }
        if (pid < 0 || waitpid(pid, &status, 0) < 0) {
            perror("fork");
            return bad + 1;
        }
        seed += count;
        if (status != 0) {
            bad++;
            printf("FAILED: status %#x: random_damage --format %s --image %s --seed %" PRIu64 " --count 1\n", status,
                   arg_format, arg_image, d->progress->seed);
            fflush(stdout);
            seed = d->progress->seed + 1;
        }
    }
    printf("%" PRIu64 " cases of %s: %" PRIu64 " opened, %" PRIu64 " reads, %" PRIu64 " writes, %u failures\n",
           seed - arg_seed, arg_format, d->progress->opened, d->progress->read, d->progress->written, bad);
    return bad;
}

static const GOptionEntry entries[] = {
    { "format", 0, 0, G_OPTION_ARG_STRING, &arg_format, "of the image", "FORMAT" },
    { "image", 0, 0, G_OPTION_ARG_FILENAME, &arg_image, "a sound image, alone with its files in a directory", "FILE" },
    { "seed", 0, 0, G_OPTION_ARG_INT64, &arg_seed, "of the first case; the next ones count up", "N" },
    { "count", 0, 0, G_OPTION_ARG_INT, &arg_count, "how many cases", "N" },
    { "seconds", 0, 0, G_OPTION_ARG_INT, &arg_seconds, "instead: for how long", "N" },
    { "make", 0, 0, G_OPTION_ARG_NONE, &arg_make, "only write the damaged files, to --dir", NULL },
    { "dir", 0, 0, G_OPTION_ARG_FILENAME, &arg_dir, "for the damaged files; without it a new one", "DIR" },
    { NULL },
};

int main(int argc, char **argv)
{
    g_autoptr(GOptionContext) options = g_option_context_new("- damaged images");
    g_autoptr(GError) error = NULL;
    Damage d = { .rand = g_rand_new() };
    int code = EXIT_FAILURE;

    g_option_context_add_main_entries(options, entries, NULL);
    if (!g_option_context_parse(options, &argc, &argv, &error) || !arg_format || !arg_image) {
        fprintf(stderr, "%s\n", error ? error->message : "--format and --image are needed");
        return EXIT_FAILURE;
    }
    bool own_dir = !arg_dir;
    if (own_dir) {
        arg_dir = g_dir_make_tmp("blkstack-damage-XXXXXX", &error);
    }
    if (arg_seed < 0) {
        arg_seed = g_random_int();
    }
    d.files = arg_dir ? load_files(&error) : NULL;
    d.progress = mmap(NULL, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (!d.files || d.files->len == 0 || d.progress == MAP_FAILED) {
        fprintf(stderr, "%s\n", error ? error->message : "no files");
        return EXIT_FAILURE;
    }
    g_autofree char *name = g_path_get_basename(arg_image);
    d.path = g_build_filename(arg_dir, name, NULL);
    printf("seed %" G_GINT64_FORMAT "\n", arg_seed);
    fflush(stdout);
    code = arg_make ? !make_case(&d, (guint64)arg_seed) : run_cases(&d) > 0;
    for (guint i = 0; i < d.files->len; i++) {
        File *file = g_ptr_array_index(d.files, i);
        g_autofree char *path = g_build_filename(arg_dir, file->name, NULL);

        if (own_dir && code == 0) {
            g_unlink(path);
        }
        g_byte_array_unref(file->bytes);
        g_free(file->name);
        g_free(file);
    }
    if (own_dir && code == 0) {
        g_rmdir(arg_dir);
    }
    g_ptr_array_unref(d.files);
    g_rand_free(d.rand);
    g_free(d.path);
    munmap(d.progress, sizeof(Progress));
    return code;
}
