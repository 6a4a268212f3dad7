/* SPDX-License-Identifier: MIT */
/*
 * random_image.c - random sequences of requests through the compress filter and without it, against a model in memory; also
 * on images of other formats than qcow2 (random_format.c), which have no filter above them.
 *
 * Each sequence makes an image of random properties, sends it random requests, some of them concurrent, and opens it
 * again now and then. At its end every byte is compared with the model, the image is checked, and some images (and all
 * that failed) are also judged by qemu-img. A failure prints the seed of its sequence, which --seed repeats:
 *     random_image --seed SEED --sequences 1
 */
#include "random_image.h"

#include "core/options.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <stdlib.h>

enum { EXIT_SKIP = 77 };

#define MODEL_NAME "model.raw"
#define DATA_NAME "data.raw"

/* ---- notes ---- */

int sequence_fail(Sequence *seq, const char *format, ...)
{
    va_list args;

    if (!seq->failure) {
        va_start(args, format);
        seq->failure = g_strdup_vprintf(format, args);
        va_end(args);
        sequence_log(seq, "FAILED: %s", seq->failure);
    }
    return -EIO;
}

void sequence_log(Sequence *seq, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_string_append_vprintf(seq->log, format, args);
    va_end(args);
    g_string_append_c(seq->log, '\n');
}

BlkNode *sequence_node(const Sequence *seq)
{
    return blk_child_node(seq->user);
}

/* ---- properties of an image ---- */

static void pick_config(Rng *rng, ImageConfig *config)
{
    static const unsigned refcount_widths[] = { 1, 2, 4, 8, 16, 16, 16, 32, 64 };
    unsigned n = rng_below(rng, 100);
    uint64_t most, sectors;

    config->cluster_size = n < 20 ? 512 : n < 40 ? 4096 : n < 55 ? 16384 : n < 95 ? 65536 : 2 << 20;
    most = config->cluster_size == 512 ? 512 << 10 : config->cluster_size == 2 << 20 ? 8 << 20 : 4 << 20;
    sectors = rng_range(rng, most / 4, most) / SECTOR_SIZE;
    config->size = sectors * SECTOR_SIZE;
    config->most = most;
    if (rng_percent(rng, 40)) {
        config->size = MAX(config->size / config->cluster_size, 1) * config->cluster_size;
    }
    config->v2 = rng_percent(rng, 15);
    config->zstd = !config->v2 && rng_percent(rng, 50);
    config->extended_l2 = !config->v2 && config->cluster_size >= 16384 && rng_percent(rng, 50);
    config->refcount_bits = config->v2 ? 16 : refcount_widths[rng_below(rng, G_N_ELEMENTS(refcount_widths))];
    config->lazy = !config->v2 && rng_percent(rng, 20);
    config->no_flush = rng_percent(rng, 85);
    config->unmap = rng_percent(rng, 70);
    if (rng_percent(rng, 40)) {
        config->backing_format = g_strdup(rng_percent(rng, 50) ? "raw" : "qcow2");
        sectors = config->size * rng_range(rng, 20, 150) / 100 / SECTOR_SIZE;
        config->backing_size = MAX(sectors, 1) * SECTOR_SIZE;
    } else {
        config->preallocated = rng_percent(rng, 20);
    }
    if (!config->v2 && rng_percent(rng, 50)) {
        config->granularity = UINT64_C(512) << rng_below(rng, 9);
    }
    n = rng_below(rng, 100);
    config->write_buffer = n < 35 ? 0 : n < 75 ? (1 + rng_below(rng, 5)) * config->cluster_size : 16 << 20;
    config->data_file = !config->v2 && rng_percent(rng, 25);
    config->data_file_raw = config->data_file && !config->backing_format && rng_percent(rng, 60);
    config->format = "qcow2";
    config->checks = true;
    config->compressible = !config->data_file;
}

static void log_config(Sequence *seq)
{
    const ImageConfig *c = &seq->config;

    sequence_log(seq, "seed %" PRIu64 ": %s, size %" PRIu64 " cluster_size %u%s%s", c->seed, c->format, c->size,
                 c->cluster_size, c->no_flush ? " no-flush" : "", c->unmap ? " unmap" : "");
    if (c->options) {
        g_autofree char *options = blk_json_to_string(c->options);

        sequence_log(seq, "options: %s", options);
    } else {
        sequence_log(seq, "write-buffer %" PRIu64 " refcount_bits %u compat %s %s%s%s%s%s%s", c->write_buffer,
                     c->refcount_bits, c->v2 ? "0.10" : "1.1", c->zstd ? "zstd" : "zlib",
                     c->extended_l2 ? " extended_l2" : "", c->lazy ? " lazy_refcounts" : "",
                     c->data_file ? " data_file" : "", c->data_file_raw ? " raw" : "",
                     c->preallocated ? " preallocated" : "");
    }
    if (c->direct) {
        sequence_log(seq, "direct I/O");
    }
    if (c->granularity > 0) {
        sequence_log(seq, "bitmap: granularity %" PRIu64, c->granularity);
    }
    if (c->backing_format) {
        sequence_log(seq, "backing: %s of %" PRIu64, c->backing_format, c->backing_size);
    }
}

/* ---- opening ---- */

static void put_object(JsonObject *object, const char *key, JsonObject *value)
{
    json_object_set_object_member(object, key, value);
}

static JsonObject *image_tree(const Sequence *seq, const char *format, const char *name, bool filtered)
{
    g_autofree char *path = g_build_filename(seq->dir, name, NULL);
    JsonObject *file = json_object_new(), *image = json_object_new(), *filter;

    json_object_set_string_member(file, "driver", "file");
    json_object_set_string_member(file, "filename", path);
    json_object_set_string_member(image, "driver", format);
    json_object_set_boolean_member(image, "cache.no-flush", seq->config.no_flush);
    json_object_set_boolean_member(image, "cache.direct", seq->config.direct);
    json_object_set_string_member(image, "discard", seq->config.unmap ? "unmap" : "ignore");
    if (seq->no_unref) {
        json_object_set_boolean_member(image, "discard-no-unref", true);
    }
    put_object(image, "file", file);
    if (!filtered) {
        return image;
    }
    filter = json_object_new();
    json_object_set_string_member(filter, "driver", "compress");
    json_object_set_int_member(filter, "write-buffer", (gint64)seq->config.write_buffer);
    json_object_set_string_member(filter, "discard", seq->config.unmap ? "unmap" : "ignore");
    put_object(filter, "file", image);
    return filter;
}

static BlkChild *co_open_and_attach(Sequence *seq, JsonObject *tree)
{
    g_autoptr(GError) error = NULL;
    BlkNode *node = blk_co_open(seq->ctx, tree, &error);
    BlkChild *user = NULL;

    if (node) {
        unsigned changes = blk_node_read_only(node) ? 0 : BLK_PERM_WRITE | BLK_PERM_RESIZE;
        user = blk_co_attach(node, "random test", BLK_PERM_READ | changes, BLK_PERM_ALL, &error);
    }
    blk_co_unref(node);
    if (!user) {
        sequence_fail(seq, "open: %s", error->message);
    }
    return user;
}

/* Where nothing can be compressed no filter goes above the image. */
static int co_reopen(Sequence *seq, bool wants_filter)
{
    bool filtered = wants_filter && seq->config.compressible;

    seq->no_unref = !seq->config.options && !seq->config.v2 && rng_percent(&seq->rng, 20);
    g_autoptr(JsonObject) tree = image_tree(seq, seq->config.format, seq->image, filtered);

    blk_co_detach(seq->user);
    seq->filtered = filtered;
    seq->user = co_open_and_attach(seq, tree);
    sequence_log(seq, " open %s%s", filtered ? "with the filter" : "plain", seq->no_unref ? ", discard-no-unref" : "");
    return seq->user ? 0 : -EIO;
}

/* ---- creating ---- */

static int co_create_backing(Sequence *seq)
{
    const ImageConfig *config = &seq->config;
    g_autoptr(JsonObject) options = json_object_new();
    g_autoptr(JsonObject) tree = image_tree(seq, config->backing_format, BACKING_NAME, false);
    g_autofree char *path = g_build_filename(seq->dir, BACKING_NAME, NULL);
    g_autofree uint8_t *data = g_malloc(config->backing_size);
    g_autoptr(GError) error = NULL;
    BlkChild *user;
    int ret;

    for (uint64_t done = 0, n; done < config->backing_size; done += n) {
        n = rng_range(&seq->rng, 1, 100000);
        n = MIN(n, config->backing_size - done);
        rng_fill(&seq->rng, data + done, n);
    }
    json_object_set_int_member(options, "size", config->backing_size);
    if (blk_co_create(seq->ctx, path, config->backing_format, options, &error) < 0) {
        return sequence_fail(seq, "create the backing file: %s", error->message);
    }
    user = co_open_and_attach(seq, tree);
    if (!user) {
        return -EIO;
    }
    ret = blk_co_pwrite(blk_child_node(user), 0, config->backing_size, data, 0);
    blk_co_detach(user);
    if (ret < 0) {
        return sequence_fail(seq, "write the backing file: %s", g_strerror(-ret));
    }
    seq->backing = g_malloc0(config->most);
    memcpy(seq->backing, data, MIN(config->most, config->backing_size));
    memcpy(seq->model, seq->backing, config->size);
    return 0;
}

static JsonObject *qcow2_options(const ImageConfig *config)
{
    JsonObject *options = json_object_new();

    json_object_set_int_member(options, "cluster_size", config->cluster_size);
    json_object_set_string_member(options, "compat", config->v2 ? "0.10" : "1.1");
    json_object_set_int_member(options, "refcount_bits", config->refcount_bits);
    if (config->zstd) {
        json_object_set_string_member(options, "compression_type", "zstd");
    }
    json_object_set_boolean_member(options, "extended_l2", config->extended_l2);
    json_object_set_boolean_member(options, "lazy_refcounts", config->lazy);
    if (config->data_file) {
        json_object_set_string_member(options, "data_file", DATA_NAME);
        json_object_set_boolean_member(options, "data_file_raw", config->data_file_raw);
    }
    if (config->preallocated) {
        json_object_set_string_member(options, "preallocation", "metadata");
    }
    return options;
}

static int co_create_image(Sequence *seq)
{
    const ImageConfig *config = &seq->config;
    g_autoptr(JsonObject) options = config->options ? json_object_ref(config->options) : qcow2_options(config);
    g_autofree char *path = g_build_filename(seq->dir, seq->image, NULL);
    g_autoptr(GError) error = NULL;

    if (config->extents > 1) {
        return format_co_create_extents(seq);
    }
    json_object_set_int_member(options, "size", config->size);
    if (config->backing_format) {
        json_object_set_string_member(options, "backing_file", BACKING_NAME);
        json_object_set_string_member(options, "backing_fmt", config->backing_format);
    }
    if (blk_co_create(seq->ctx, path, config->format, options, &error) < 0) {
        return sequence_fail(seq, "create: %s", error->message);
    }
    return 0;
}

/* Some formats round the size up. */
static int adopt_size(Sequence *seq)
{
    uint64_t size = blk_node_length(sequence_node(seq));

    if (size < seq->config.size || size > seq->config.most || (!seq->config.options && size != seq->config.size)) {
        return sequence_fail(seq, "the new image has %" PRIu64 " bytes", size);
    }
    seq->config.size = size;
    return 0;
}

/* ---- judging ---- */

static void note_finding(const char *text, void *opaque)
{
    sequence_log(opaque, "check: %s", text);
}

static int co_check(Sequence *seq)
{
    BlkCheckOptions options = { .data = true, .message = note_finding, .opaque = seq };
    BlkCheckResult result = { 0 };
    g_autoptr(GError) error = NULL;

    if (!seq->config.checks) {
        return 0;
    }
    if (blk_co_check(sequence_node(seq), &options, &result, &error) < 0) {
        return sequence_fail(seq, "check: %s", error->message);
    }
    if (result.corruptions || result.leaks || result.check_errors) {
        return sequence_fail(seq, "check: %" PRIu64 " corruptions, %" PRIu64 " leaks, %" PRIu64 " errors",
                             result.corruptions, result.leaks, result.check_errors);
    }
    return 0;
}

static int judge_by(Sequence *seq, const char *const *argv)
{
    g_autofree char *out = NULL, *err = NULL;
    g_autofree char *command = g_strjoinv(" ", (char **)argv);
    g_autoptr(GError) error = NULL;
    int status;

    if (!g_spawn_sync(seq->dir, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &out, &err, &status, &error)) {
        return sequence_fail(seq, "%s: %s", command, error->message);
    }
    if (!g_spawn_check_wait_status(status, NULL)) {
        sequence_log(seq, "%s%s", out, err);
        return sequence_fail(seq, "%s finds the image at fault", command);
    }
    return 0;
}

/* A raw data file is the disk. */
static int check_raw_data(Sequence *seq)
{
    g_autofree char *path = g_build_filename(seq->dir, DATA_NAME, NULL);
    g_autofree char *data = NULL;
    g_autoptr(GError) error = NULL;
    gsize bytes;

    if (!g_file_get_contents(path, &data, &bytes, &error)) {
        return sequence_fail(seq, "%s", error->message);
    }
    if (bytes != seq->config.size) {
        return sequence_fail(seq, "the data file has %zu bytes", bytes);
    }
    for (uint64_t pos = 0; pos < bytes; pos++) {
        if ((uint8_t)data[pos] != seq->model[pos]) {
            return sequence_fail(seq, "the data file differs from the disk at %" PRIu64, pos);
        }
    }
    return 0;
}

static int judge(Sequence *seq)
{
    g_autofree char *model = g_build_filename(seq->dir, MODEL_NAME, NULL);
    const char *format = seq->config.format;
    const char *check[] = { "qemu-img", "check", "-f", format, seq->image, NULL };
    const char *compare[] = { "qemu-img", "compare", "-f", format, "-F", "raw", seq->image, MODEL_NAME, NULL };
    g_autoptr(GError) error = NULL;
    int ret;

    if (!g_file_set_contents(model, (const char *)seq->model, seq->config.size, &error)) {
        return sequence_fail(seq, "%s", error->message);
    }
    ret = seq->config.checks ? judge_by(seq, check) : 0;
    return ret < 0 ? ret : judge_by(seq, compare);
}

/* ---- what the command line says ---- */

static gint64 arg_seed = -1;
static gboolean arg_direct;
static int arg_sequences = 20, arg_operations = 60, arg_judge_every = 20;
static char *arg_dir;
static char *arg_format;

/* ---- one sequence ---- */

static int co_compact(Sequence *seq)
{
    BlkCompactOptions options = { .no_compress = rng_percent(&seq->rng, 30) };
    g_autoptr(GError) error = NULL;
    int ret = blk_co_compact(sequence_node(seq), &options, &error);

    sequence_log(seq, " compact%s", options.no_compress ? ", not compressing" : "");
    return ret < 0 && ret != -ENOTSUP ? sequence_fail(seq, "compact: %s", error->message) : 0;
}

static int co_check_snapshots(Sequence *seq)
{
    g_autoptr(JsonObject) tree = image_tree(seq, seq->config.format, seq->image, false);

    json_object_set_boolean_member(tree, "read-only", true);
    BlkChild *user = co_open_and_attach(seq, tree);
    int ret = user ? snapshot_co_check(seq, blk_child_node(user)) : -EIO;
    blk_co_detach(user);
    return ret;
}

/* What only qcow2 images know: none of it happens to others. *done: whether it has. */
static int co_change(Sequence *seq, bool *done)
{
    *done = true;
    if (rng_percent(&seq->rng, 2)) {
        return co_compact(seq);
    }
    if (rng_percent(&seq->rng, 3)) {
        return change_co_resize(seq);
    }
    if (rng_percent(&seq->rng, 2)) {
        return change_co_amend(seq);
    }
    *done = false;
    return 0;
}

static int co_run_operations(Sequence *seq)
{
    int ret = co_reopen(seq, rng_percent(&seq->rng, 80));

    ret = ret < 0 ? ret : adopt_size(seq);
    if (ret == 0 && seq->config.granularity > 0) {
        ret = bitmap_co_add(seq);
    }
    for (unsigned i = 0; i < seq->operations && ret == 0; i++) {
        bool done = false;

        sequence_log(seq, "%u:", i);
        if (rng_percent(&seq->rng, 5)) {
            ret = co_reopen(seq, rng_percent(&seq->rng, 70));
            continue;
        }
        ret = seq->config.options ? 0 : co_change(seq, &done);
        if (ret == 0 && !done) {
            ret = seq->config.once ? format_co_once(seq) : sequence_co_operation(seq);
        }
    }
    return ret;
}

static int co_sequence(void *opaque)
{
    Sequence *seq = opaque;
    int ret = seq->config.backing_format ? co_create_backing(seq) : 0;

    ret = ret < 0 ? ret : co_create_image(seq);
    ret = ret < 0 ? ret : co_run_operations(seq);
    ret = ret < 0 ? ret : sequence_co_compare(seq, 0, seq->config.size);
    ret = ret < 0 ? ret : bitmap_co_check(seq);
    ret = ret < 0 ? ret : co_reopen(seq, false);
    ret = ret < 0 ? ret : bitmap_co_check(seq);
    ret = ret < 0 ? ret : sequence_co_compare(seq, 0, seq->config.size);
    ret = ret < 0 ? ret : co_check(seq);
    blk_co_detach(seq->user);
    seq->user = NULL;
    return ret < 0 ? ret : co_check_snapshots(seq);
}

/* An image may have several files: image.vmdk, image-s001.vmdk, ... */
static bool is_ours(const char *name)
{
    static const char *const names[] = { BACKING_NAME, DATA_NAME, MODEL_NAME, NULL };

    return g_str_has_prefix(name, "image.") || g_str_has_prefix(name, "image-") || g_strv_contains(names, name);
}

static void remove_files(const char *dir_name)
{
    g_autoptr(GDir) dir = g_dir_open(dir_name, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(dir_name, name, NULL);

        if (is_ours(name)) {
            g_unlink(path);
        }
    }
}

static void sequence_clear(Sequence *seq)
{
    g_free(seq->failure);
    g_clear_pointer(&seq->snapshots, g_ptr_array_unref);
    g_free(seq->model);
    g_free(seq->backing);
    g_free(seq->written);
    g_free(seq->must);
    g_free(seq->may);
    g_free(seq->config.backing_format);
    g_clear_pointer(&seq->config.options, json_object_unref);
    g_string_free(seq->log, TRUE);
}

static bool run_sequence(BlkContext *ctx, const char *dir, uint64_t seed, bool judged)
{
    g_autofree char *image = g_strconcat("image.", arg_format, NULL);
    Sequence seq = { .ctx = ctx, .dir = dir, .image = image, .operations = arg_operations, .rng = { seed } };
    bool good;

    seq.log = g_string_new(NULL);
    seq.config.seed = seed;
    seq.config.direct = arg_direct;
    if (g_str_equal(arg_format, "qcow2")) {
        pick_config(&seq.rng, &seq.config);
    } else {
        format_pick_config(&seq.rng, arg_format, &seq.config);
    }
    log_config(&seq);
    seq.model = g_malloc0(seq.config.most);
    seq.written = seq.config.once ? g_malloc0(seq.config.most / seq.config.cluster_size + 1) : NULL;
    remove_files(dir);
    good = blk_run(ctx, co_sequence, &seq) == 0 && (!seq.config.data_file_raw || check_raw_data(&seq) == 0);
    if (!good) {
        (void)judge(&seq);      /* its words go to the log */
    } else if (judged) {
        good = judge(&seq) == 0;
    }
    if (!good) {
        printf("%s", seq.log->str);
        printf("FAILED: seed %" PRIu64 ": %s\n", seed, seq.failure);
        printf("again: random_image --format %s --seed %" PRIu64 " --sequences 1 --ops %d; files kept in %s\n", arg_format,
               seed, arg_operations, dir);
    }
    sequence_clear(&seq);
    return good;
}

/* ---- the program ---- */

static const GOptionEntry entries[] = {
    { "seed", 0, 0, G_OPTION_ARG_INT64, &arg_seed, "seed of the first sequence; the next ones count up", "N" },
    { "sequences", 0, 0, G_OPTION_ARG_INT, &arg_sequences, "how many sequences", "N" },
    { "ops", 0, 0, G_OPTION_ARG_INT, &arg_operations, "operations of each", "N" },
    { "format", 0, 0, G_OPTION_ARG_STRING, &arg_format, "of the images: qcow2 (default), vmdk, vdi, vpc, vhdx", "FORMAT" },
    { "direct", 0, 0, G_OPTION_ARG_NONE, &arg_direct,
      "past the host's page cache, where the directory's file system can", NULL },
    { "judge-every", 0, 0, G_OPTION_ARG_INT, &arg_judge_every, "let qemu-img judge one image of N; 0: none", "N" },
    { "dir", 0, 0, G_OPTION_ARG_FILENAME, &arg_dir, "directory for the images; without it a new one", "DIR" },
    { NULL },
};

static bool can_direct(const char *dir)
{
    g_autofree char *path = g_build_filename(dir, MODEL_NAME, NULL);
    int fd = open(path, O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);

    g_close(fd, NULL);
    g_unlink(path);
    return fd >= 0;
}

/* Runs all; the directory goes away if it was made here and nothing failed. */
static int run_all(BlkContext *ctx, const char *dir)
{
    unsigned scale = g_strcmp0(g_getenv("BLKSTACK_TEST_LEVEL"), "quick") == 0 ? 5 : 1;
    g_autofree char *peer = g_find_program_in_path("qemu-img");
    int count = MAX(arg_sequences / (int)scale, 1);

    if (!peer) {
        printf("qemu-img is not installed: no second judge\n");
        arg_judge_every = 0;
    }
    if (arg_direct && !can_direct(dir)) {
        printf("%s: no direct I/O here\n", dir);
        return EXIT_SKIP;
    }
    printf("seed %" G_GINT64_FORMAT ", %d sequences of %d operations on %s images, %s%s\n", arg_seed, count, arg_operations,
           arg_format, blk_context_aio_name(ctx), arg_direct ? ", direct I/O" : "");
    fflush(stdout);
    for (int i = 0; i < count; i++) {
        bool judged = arg_judge_every > 0 && i % arg_judge_every == 0;

        if (!run_sequence(ctx, dir, arg_seed + i, judged)) {
            return EXIT_FAILURE;
        }
    }
    remove_files(dir);
    printf("%d sequences: 0 differences, 0 errors, 0 leaks\n", count);
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    g_autoptr(GOptionContext) options = g_option_context_new("- random requests against a model");
    g_autoptr(GError) error = NULL;
    g_autoptr(BlkContext) ctx = NULL;
    g_autofree char *dir = NULL;
    int code;

    g_option_context_add_main_entries(options, entries, NULL);
    if (!g_option_context_parse(options, &argc, &argv, &error)) {
        fprintf(stderr, "%s\n", error->message);
        return EXIT_FAILURE;
    }
    if (!arg_format) {
        arg_format = g_strdup("qcow2");
    }
    if (!g_str_equal(arg_format, "qcow2") && !format_is_known(arg_format)) {
        fprintf(stderr, "there are no random images in the format '%s'\n", arg_format);
        return EXIT_FAILURE;
    }
    if (arg_seed < 0) {
        arg_seed = g_random_int();
    }
    dir = arg_dir ? g_steal_pointer(&arg_dir) : g_dir_make_tmp("blkstack-random-XXXXXX", &error);
    ctx = dir ? blk_context_new(NULL, &error) : NULL;
    if (!ctx) {
        fprintf(stderr, "%s\n", error->message);
        return EXIT_FAILURE;
    }
    code = run_all(ctx, dir);
    if (code != EXIT_FAILURE) {
        g_rmdir(dir);
    }
    return code;
}
