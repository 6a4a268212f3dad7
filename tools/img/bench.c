/* SPDX-License-Identifier: MIT */
/*
 * bench.c - blkstack-img bench: sends many requests to an image and says how long they took.
 *
 * Each of the depth coroutines sends one request after the other. With a flush interval, a flush follows each so many
 * requests; the requests behind it wait for it, and it for those before it, unless it shall not drain.
 *
 * Limitation: -i and -n are checked only: the I/O engine is chosen for the whole program (BLKSTACK_AIO).
 */
#include "img/img.h"

#include <inttypes.h>
#include <stdio.h>

typedef struct BenchArgs {
    ImgArgs common;
    bool write, native, no_drain;
    uint64_t count, depth, flush_interval, pattern;
    uint64_t offset, bytes, step;       /* step 0: the same as bytes */
} BenchArgs;

typedef struct Bench {
    const BenchArgs *args;
    BlkNode *node;
    uint64_t offset;            /* of the next request */
    uint64_t sent, done;        /* requests */
    bool flushing;              /* nothing new may be sent */
    BlkCoQueue changed;         /* a request or flush has ended */
    int ret;
} Bench;

static bool parse_number(BenchArgs *args, const char *what, uint64_t max, uint64_t *number)
{
    bool hex = g_str_has_prefix(optarg, "0x");

    if (g_ascii_string_to_unsigned(optarg + (hex ? 2 : 0), hex ? 16 : 10, 0, max, number, NULL)) {
        return true;
    }
    tool_error("Invalid %s specified", what);
    args->common.status = 1;
    return false;
}

static bool parse_size(BenchArgs *args, const char *what, uint64_t max, uint64_t *bytes)
{
    args->common.status = 1;
    return img_parse_size(what, optarg, 0, max, bytes);
}

static bool set_aio(BenchArgs *args, const char *name)
{
    static const char *const engines[] = { "threads", "native", "io_uring", NULL };

    if (!g_strv_contains(engines, name)) {
        tool_error("Invalid aio option: %s", name);
        args->common.status = 1;
        return false;
    }
    args->native = strcmp(name, "native") == 0;
    return true;
}

enum { OPTION_FLUSH_INTERVAL = IMG_OPTION_OWN, OPTION_NO_DRAIN, OPTION_PATTERN };

static bool take_option(BenchArgs *args, int c)
{
    switch (c) {
    case 'c':
        return parse_number(args, "request count", INT32_MAX, &args->count);
    case 'd':
        return parse_number(args, "queue depth", INT32_MAX, &args->depth);
    case 'i':
        return set_aio(args, optarg);
    case 'n':
        args->native = true;
        return true;
    case 'o':
        return parse_size(args, "offset", INT64_MAX, &args->offset);
    case 's':
        return parse_size(args, "buffer size", INT32_MAX, &args->bytes);
    case 'S':
        return parse_size(args, "step_size", INT32_MAX, &args->step);
    case 't':
        args->common.cache_mode = optarg;
        return true;
    case 'w':
        args->write = true;
        return true;
    case OPTION_FLUSH_INTERVAL:
        return parse_number(args, "flush interval", INT32_MAX, &args->flush_interval);
    case OPTION_NO_DRAIN:
        args->no_drain = true;
        return true;
    default:
        return parse_number(args, "pattern byte", 255, &args->pattern);
    }
}

static bool fail(BenchArgs *args, const char *message)
{
    tool_error("%s", message);
    args->common.status = 1;
    return false;
}

static bool combination_valid(BenchArgs *args)
{
    if (args->common.cache_mode && !tool_parse_cache(args->common.cache_mode, &args->common.open.cache)) {
        return fail(args, "Invalid cache mode");
    }
    if (args->native && !args->common.open.cache.direct) {
        return fail(args, "aio=native was specified, but it requires cache.direct=on, which was not specified "
                    "(use -t none)");
    }
    if (args->depth == 0) {
        return fail(args, "Invalid queue depth specified");
    }
    if (!args->write && args->flush_interval > 0) {
        return fail(args, "--flush-interval is only available in write tests");
    }
    if (args->flush_interval > 0 && args->flush_interval < args->depth) {
        return fail(args, "Flush interval can't be smaller than depth");
    }
    return img_args_valid(&args->common, 1);
}

static bool parse_args(BenchArgs *args, int argc, char **argv)
{
    static const struct option long_options[] = {
        IMG_LONG_COMMON, IMG_LONG_IMAGE_OPTS, IMG_LONG_FORCE_SHARE,
        { "flush-interval", required_argument, NULL, OPTION_FLUSH_INTERVAL },
        { "no-drain", no_argument, NULL, OPTION_NO_DRAIN },
        { "pattern", required_argument, NULL, OPTION_PATTERN },
        IMG_LONG_END,
    };
    int c;

    while ((c = img_next_option(&args->common, argc, argv, ":hc:d:f:ni:o:qs:S:t:wU", long_options)) != -1) {
        if (c == IMG_STOP || !take_option(args, c)) {
            return false;
        }
    }
    if (optind != argc - 1) {
        args->common.status = img_usage_error("Expecting one image file name");
        return false;
    }
    args->common.open.name = argv[optind];
    args->common.open.writable = args->write;
    args->step = args->step ? args->step : args->bytes;
    return combination_valid(args);
}

/* ---- requests ---- */

static int co_request(Bench *b, uint8_t *buf)
{
    uint64_t offset = b->offset;

    b->offset = (b->offset + b->args->step) % MAX(blk_node_length(b->node), 1);
    b->sent++;
    if (offset > blk_node_length(b->node) || b->args->bytes > blk_node_length(b->node) - offset) {
        return -EIO;
    }
    if (!b->args->write) {
        return blk_co_pread(b->node, offset, b->args->bytes, buf, 0);
    }
    return blk_co_pwrite(b->node, offset, b->args->bytes, buf,
                         b->args->common.open.cache.writethrough ? BLK_REQ_FUA : 0);
}

/* The flush behind so many requests: whoever has sent the last one waits for the others and flushes. */
static int co_flush_if_due(Bench *b, uint64_t number)
{
    uint64_t interval = b->args->flush_interval;
    int ret;

    if (interval == 0 || number % interval != 0) {
        return 0;
    }
    if (b->args->no_drain) {
        return blk_co_flush(b->node);
    }
    while (b->done < number && b->ret == 0) {
        blk_co_queue_wait(&b->changed);
    }
    ret = blk_co_flush(b->node);
    b->flushing = false;
    return ret;
}

/* Sends one request after the other, with a buffer of its own. */
static int co_work(void *opaque)
{
    Bench *b = opaque;
    uint64_t interval = b->args->no_drain ? 0 : b->args->flush_interval;
    uint8_t *buf = blk_buffer_try_alloc(b->node, MAX(b->args->bytes, 1));

    if (!buf) {
        return -ENOMEM;
    }
    memset(buf, b->args->write ? (int)b->args->pattern : 0, b->args->bytes);
    while (b->ret == 0 && b->sent < b->args->count) {
        if (b->flushing) {
            blk_co_queue_wait(&b->changed);
            continue;
        }
        uint64_t number = b->sent + 1;
        b->flushing = interval > 0 && number % interval == 0;
        int ret = co_request(b, buf);
        b->done++;
        blk_co_queue_wake_all(&b->changed);
        if (ret == 0) {
            ret = co_flush_if_due(b, number);
        }
        b->ret = b->ret < 0 ? b->ret : ret;
        blk_co_queue_wake_all(&b->changed);
    }
    blk_buffer_free(buf);
    return b->ret;
}

static int co_send_all(Bench *b)
{
    BlkCoGroup group = BLK_CO_GROUP_INIT((unsigned)b->args->depth);

    for (uint64_t i = 0; i < MIN(b->args->depth, b->args->count); i++) {
        if (blk_co_group_run(&group, co_work, b) < 0) {
            break;
        }
    }
    return blk_co_group_wait(&group);
}

static void print_plan(const BenchArgs *args)
{
    printf("Sending %" PRIu64 " %s requests, %" PRIu64 " bytes each, %" PRIu64 " in parallel (starting at offset %"
           PRIu64 ", step size %" PRIu64 ")\n", args->count, args->write ? "write" : "read", args->bytes, args->depth,
           args->offset, args->step);
    if (args->flush_interval > 0) {
        printf("Sending flush every %" PRIu64 " requests\n", args->flush_interval);
    }
    fflush(stdout);
}

static int bench(BlkNode *node, void *opaque)
{
    const BenchArgs *args = opaque;
    Bench b = { .args = args, .node = node, .offset = args->offset };
    gint64 start_us;

    print_plan(args);
    start_us = g_get_monotonic_time();
    b.ret = co_send_all(&b);
    if (b.ret < 0) {
        tool_error("Failed request: %s", g_strerror(-b.ret));
    } else {
        printf("Run completed in %3.3f seconds.\n", (double)(g_get_monotonic_time() - start_us) / G_USEC_PER_SEC);
    }
    return b.ret < 0 ? 1 : 0;
}

int img_bench(BlkContext *ctx, int argc, char **argv)
{
    BenchArgs args = { .count = 75000, .depth = 64, .bytes = 4096 };

    return parse_args(&args, argc, argv) ? img_co_on_image(ctx, &args.common, bench, &args) : args.common.status;
}
