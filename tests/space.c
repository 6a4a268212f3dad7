/* SPDX-License-Identifier: MIT */
/*
 * space.c - does an image that is rewritten through the compress filter stay small?
 *
 * Fills a disk with data that compresses, rewrites all of it again and again, in order, in random order and in pieces of
 * 4 KiB, and after each pass compares the image's allocated size and length with those of a fresh `convert -c` of the same
 * content. At the end every byte is compared with a model, and the image is checked by us and by qemu-img.
 *
 *     space --size MIB --codec zstd|zlib [--reopen] [--image FILE] [--steady] [--passes N] --img BLKSTACK-IMG
 *
 * The model is a version for each 4 KiB block: the content follows from the block's number and version. --image takes an
 * image that another program has filled; what it holds is overwritten. --steady rewrites single random clusters instead.
 */
#include <blkstack/driver.h>
#include <glib/gstdio.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { BLOCK = 4096, CLUSTER = 65536, BLOCKS = CLUSTER / BLOCK, DEPTH = 8 };

typedef struct Limits {
    double allocated, length;       /* times that of the fresh conversion */
} Limits;

typedef struct Space {
    BlkContext *ctx;
    const char *dir, *img, *codec;
    char *image;
    bool reopen;
    uint64_t blocks;
    unsigned ratio;                 /* percent of a block's bytes that are random, on average */
    uint32_t *versions, version;
    uint32_t *order;                /* of clusters or blocks in this pass */
    uint64_t count, next;
    bool small;                     /* the pass writes blocks, not clusters */
    BlkChild *user;
    uint64_t random;
    bool failed;
} Space;

static uint64_t mix(uint64_t z)
{
    z += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

/* Random words, then text that repeats. How much is random differs from cluster to cluster, and a little inside. */
static void fill_block(const Space *s, uint8_t *buf, uint64_t block, uint32_t version)
{
    uint64_t seed = mix(block * 0x10001 + version), *words = (uint64_t *)buf;
    unsigned percent = s->ratio * 3 / 4 + mix(block / BLOCKS + version) % (s->ratio / 2 + 1);
    unsigned random_words = (unsigned)(BLOCK / 8 * percent / 100 + seed % 16);

    for (unsigned i = 0; i < BLOCK / 8; i++) {
        words[i] = i < random_words ? mix(seed + i) : UINT64_C(0x2065747962206120) + i % 24;
    }
}

static int co_open(Space *s)
{
    g_autofree char *text = g_strdup_printf("{\"driver\": \"compress\", \"file\": {\"driver\": \"qcow2\", \"file\": "
                                            "{\"driver\": \"file\", \"filename\": \"%s\"}}}", s->image);
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonObject) tree = blk_json_parse_object(text, -1, "graph", &error);
    BlkNode *node = tree ? blk_co_open(s->ctx, tree, &error) : NULL;

    s->user = node ? blk_co_attach(node, "space", BLK_PERM_READ | BLK_PERM_WRITE, BLK_PERM_ALL, &error) : NULL;
    blk_co_unref(node);
    if (!s->user) {
        printf("open: %s\n", error->message);
    }
    return s->user ? 0 : -EIO;
}

static int co_task(void *opaque)
{
    Space *s = opaque;
    uint8_t *buf = blk_buffer_try_alloc(NULL, CLUSTER);
    int ret = buf ? 0 : -ENOMEM;

    while (ret == 0 && s->next < s->count) {
        uint64_t item = s->order[s->next++], n = s->small ? 1 : BLOCKS, first = item * n;
        for (uint64_t i = 0; i < n; i++) {
            s->versions[first + i] = s->version;
            fill_block(s, buf + i * BLOCK, first + i, s->version);
        }
        ret = blk_co_pwrite(blk_child_node(s->user), first * BLOCK, n * BLOCK, buf, 0);
    }
    blk_buffer_free(buf);
    return ret;
}

static int co_verify(Space *s)
{
    g_autofree uint8_t *want = g_malloc(CLUSTER), *got = g_malloc(CLUSTER);

    for (uint64_t block = 0; block < s->blocks; block += BLOCKS) {
        int ret = blk_co_pread(blk_child_node(s->user), block * BLOCK, CLUSTER, got, 0);
        for (uint64_t i = 0; i < BLOCKS; i++) {
            fill_block(s, want + i * BLOCK, block + i, s->versions[block + i]);
        }
        if (ret < 0 || memcmp(want, got, CLUSTER) != 0) {
            printf("guest offset %" PRIu64 ": %s\n", block * BLOCK, ret < 0 ? g_strerror(-ret) : "wrong data");
            return -EIO;
        }
    }
    return 0;
}

static int co_pass(void *opaque)
{
    Space *s = opaque;
    BlkCoGroup group = BLK_CO_GROUP_INIT(DEPTH);
    int ret = s->user ? 0 : co_open(s);

    s->next = 0;
    for (unsigned i = 0; ret == 0 && i < DEPTH; i++) {
        ret = blk_co_group_run(&group, co_task, s);
    }
    int tasks = blk_co_group_wait(&group);
    ret = ret < 0 ? ret : tasks;
    if (ret == 0) {
        ret = blk_co_flush(blk_child_node(s->user));
    }
    if (ret < 0) {
        printf("a pass failed: %s\n", g_strerror(-ret));
    }
    if (s->reopen || ret < 0) {
        blk_co_detach(s->user);
        s->user = NULL;
    }
    return ret;
}

static int co_end(void *opaque)
{
    Space *s = opaque;
    int ret = s->user ? 0 : co_open(s);

    ret = ret < 0 ? ret : co_verify(s);
    blk_co_detach(s->user);
    s->user = NULL;
    return ret;
}

/* ---- other programs ---- */

static bool run(const Space *s, const char *const *argv)
{
    g_autofree char *out = NULL, *err = NULL;
    g_autoptr(GError) error = NULL;
    int status;

    if (!g_spawn_sync(s->dir, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &out, &err, &status, &error) ||
        !g_spawn_check_wait_status(status, &error)) {
        printf("%s %s: %s\n%s%s", argv[0], argv[1], error->message, out ? out : "", err ? err : "");
        return false;
    }
    return true;
}

static bool sizes(const char *name, double *allocated, double *length)
{
    struct stat st;

    if (stat(name, &st) < 0) {
        printf("%s: %s\n", name, g_strerror(errno));
        return false;
    }
    *allocated = (double)st.st_blocks * 512 / 1048576;
    *length = (double)st.st_size / 1048576;
    return true;
}

/* Prints the figures after a pass, and judges them. */
static void judge(Space *s, const char *what, const Limits *limits)
{
    g_autofree char *fresh = g_build_filename(s->dir, "fresh.qcow2", NULL);
    g_autofree char *codec = g_strdup_printf("compression_type=%s", s->codec);
    const char *convert[] = { s->img, "convert", "-U", "-c", "-f", "qcow2", "-O", "qcow2", "-o", codec, s->image, fresh, NULL };
    double allocated, length, fresh_allocated, fresh_length;

    if (!run(s, convert) || !sizes(s->image, &allocated, &length) || !sizes(fresh, &fresh_allocated, &fresh_length)) {
        s->failed = true;
        return;
    }
    bool good = !limits || (allocated <= limits->allocated * fresh_allocated && length <= limits->length * fresh_length);
    printf("%-18s %8.2f %8.2f   %8.2f %8.2f   %6.3f %6.3f%s\n", what, allocated, length, fresh_allocated, fresh_length,
           allocated / fresh_allocated, length / fresh_length, good ? "" : "  TOO LARGE");
    fflush(stdout);
    s->failed = s->failed || !good;
    g_unlink(fresh);
}

/* ---- passes ---- */

static void shuffle(Space *s)
{
    for (uint64_t i = s->count; i > 1; i--) {
        uint64_t j = (s->random = mix(s->random)) % i;
        uint32_t swap = s->order[i - 1];
        s->order[i - 1] = s->order[j];
        s->order[j] = swap;
    }
}

typedef enum Order { IN_ORDER, SHUFFLED, ANY } Order;

static void pass(Space *s, const char *name, unsigned number, bool small, uint64_t count, Order order,
                 const Limits *limits)
{
    g_autofree char *what = g_strdup_printf("%s %u", name, number);

    if (s->failed) {
        return;
    }
    s->small = small;
    s->count = count;
    s->version++;
    for (uint64_t i = 0; i < count; i++) {
        s->order[i] = (uint32_t)(order == ANY ? (s->random = mix(s->random)) % (s->blocks / (small ? 1 : BLOCKS)) : i);
    }
    if (order == SHUFFLED) {
        shuffle(s);
    }
    if (blk_run(s->ctx, co_pass, s) < 0) {
        s->failed = true;
        return;
    }
    judge(s, what, limits);
}

static void rewrite_all(Space *s, unsigned passes)
{
    static const Limits limits = { 1.10, 1.25 };
    uint64_t clusters = s->blocks / BLOCKS;

    for (unsigned i = 1; i <= passes; i++) {
        pass(s, "in order", i, false, clusters, IN_ORDER, &limits);
    }
    for (unsigned i = 1; i <= passes; i++) {
        pass(s, "random order", i, false, clusters, SHUFFLED, &limits);
    }
    pass(s, "4 KiB random", 1, true, s->blocks, ANY, &limits);
}

/* Single random clusters, six times as many as there are. */
static void rewrite_some(Space *s)
{
    static const Limits limits = { 1.15, 1.15 };
    uint64_t clusters = s->blocks / BLOCKS;

    for (unsigned i = 1; i <= 6; i++) {
        pass(s, "random clusters", i, false, clusters, ANY, &limits);
    }
}

static bool create(Space *s, uint64_t size)
{
    g_autofree char *codec = g_strdup_printf("compression_type=%s", s->codec);
    g_autofree char *text = g_strdup_printf("%" PRIu64, size);
    const char *argv[] = { s->img, "create", "-f", "qcow2", "-o", codec, s->image, text, NULL };

    return run(s, argv);
}

static void work(Space *s, bool steady, bool given, unsigned passes)
{
    printf("%-18s %8s %8s   %8s %8s   %6s %6s\n", "after pass (MiB)", "alloc.", "length", "fresh", "length", "ratio", "length");
    if (given) {
        judge(s, "as given", NULL);
    } else {
        pass(s, "fill", 1, false, s->blocks / BLOCKS, IN_ORDER, NULL);
    }
    if (steady) {
        rewrite_some(s);
    } else {
        rewrite_all(s, passes);
    }
    if (blk_run(s->ctx, co_end, s) < 0) {
        s->failed = true;
    }
    const char *check[] = { "qemu-img", "check", "-f", "qcow2", s->image, NULL };
    const char *own[] = { s->img, "check", "--data", "-f", "qcow2", s->image, NULL };
    if (!run(s, check) || !run(s, own)) {
        s->failed = true;
    }
}

int main(int argc, char **argv)
{
    static int size = 256, passes = 5;
    static gint64 seed = 1;
    static gboolean reopen, steady;
    static char *codec, *image, *img;
    const GOptionEntry entries[] = {
        { "size", 0, 0, G_OPTION_ARG_INT, &size, "of the disk", "MIB" },
        { "passes", 0, 0, G_OPTION_ARG_INT, &passes, "in order, and in random order", "N" },
        { "seed", 0, 0, G_OPTION_ARG_INT64, &seed, "of orders", "N" },
        { "codec", 0, 0, G_OPTION_ARG_STRING, &codec, "zstd or zlib", "NAME" },
        { "reopen", 0, 0, G_OPTION_ARG_NONE, &reopen, "close and open the image between passes", NULL },
        { "steady", 0, 0, G_OPTION_ARG_NONE, &steady, "random clusters, data that compresses 5:1", NULL },
        { "image", 0, 0, G_OPTION_ARG_FILENAME, &image, "an image that is there already", "FILE" },
        { "img", 0, 0, G_OPTION_ARG_FILENAME, &img, "the program blkstack-img", "FILE" },
        { NULL },
    };
    g_autoptr(GOptionContext) options = g_option_context_new("- does a rewritten image stay small?");
    g_autoptr(GError) error = NULL;

    g_option_context_add_main_entries(options, entries, NULL);
    if (!g_option_context_parse(options, &argc, &argv, &error) || !img) {
        fprintf(stderr, "%s\n", error ? error->message : "--img is needed");
        return EXIT_FAILURE;
    }
    g_autofree char *program = g_canonicalize_filename(img, NULL);      /* it runs in another directory */
    g_autofree char *dir = g_dir_make_tmp("blkstack-space-XXXXXX", NULL);
    g_autofree char *made = g_build_filename(dir, "image.qcow2", NULL);
    g_autofree uint32_t *versions = g_new0(uint32_t, (uint64_t)size << 8), *order = g_new0(uint32_t, (uint64_t)size << 8);
    Space s = {
        .ctx = blk_context_new(NULL, &error), .dir = dir, .img = program, .codec = codec ? codec : "zstd",
        .image = image ? image : made, .reopen = reopen, .blocks = (uint64_t)size << 8, .ratio = steady ? 19 : 32,
        .versions = versions, .order = order, .random = (uint64_t)seed,
    };
    printf("%s, %d MiB, seed %" G_GINT64_FORMAT "%s%s%s\n", s.codec, size, seed, reopen ? ", reopened between passes" : "",
           steady ? ", steady state" : "", image ? ", an image made by another program" : "");
    s.failed = !s.ctx || (!image && !create(&s, (uint64_t)size << 20));
    if (!s.failed) {
        work(&s, steady, image != NULL, (unsigned)passes);
    }
    g_clear_pointer(&s.ctx, blk_context_free);
    g_unlink(made);
    g_rmdir(dir);
    printf("%s\n", s.failed ? "FAILED" : "the image stayed small, and every byte is right");
    return s.failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
