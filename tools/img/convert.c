/* SPDX-License-Identifier: MIT */
/*
 * convert.c - blkstack-img convert: arguments, opening the sources and making the target. The copying is jobs/copy.c.
 */
#include "img/convert_bitmaps.h"
#include "img/convert_stream.h"

#include "jobs/copy.h"
#include "jobs/source.h"

#include <inttypes.h>
#include <stdio.h>

#define MAX_WORKERS     16
#define MAX_SPARSE      ((uint64_t)16 << 20)

typedef struct ConvertArgs {
    ImgArgs common;                     /* the sources; -t is in target.cache */
    ToolOpen target;
    const char *format;                 /* -O */
    const char *target_cache;           /* -t */
    const char *backing, *backing_format;
    bool compressed, skip_create, target_is_zero, out_of_order, offload, has_sparse, help, salvage;
    bool bitmaps, skip_broken_bitmaps;
    bool to_stdout;                     /* the target is "-" */
    uint64_t sparse, rate, workers;
    uint64_t level, threads;            /* of the compression; 0: the default */
    ToolSnapshotParam snapshot;          /* -l: of the only source */
    JsonObject *options;                /* -o */
    bool has_options;
    char **sources;                     /* NULL-terminated by the target's name */
    int source_count;
} ConvertArgs;

static bool fail(ConvertArgs *args, const char *message)
{
    tool_error("%s", message);
    args->common.status = 1;
    return false;
}

/* ---- arguments ---- */

static bool add_options(ConvertArgs *args, const char *text)
{
    args->has_options = true;
    return img_take_create_options(&args->common, args->options, text, &args->help);
}

static bool set_sparse(ConvertArgs *args, const char *text)
{
    args->common.status = 1;
    args->has_sparse = true;
    if (!img_parse_size("buffer size for sparse output", text, 0, INT64_MAX, &args->sparse)) {
        return false;
    }
    if (args->sparse % 512 != 0 || args->sparse > MAX_SPARSE) {
        tool_error("Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 up to %" PRIu64
                   ". Select 0 to disable sparse detection (fully allocates output).", MAX_SPARSE);
        return false;
    }
    return true;
}

static bool set_workers(ConvertArgs *args, const char *text)
{
    if (!g_ascii_string_to_unsigned(text, 10, 1, MAX_WORKERS, &args->workers, NULL)) {
        return fail(args, "Invalid number of coroutines. Allowed number of coroutines is between 1 and 16");
    }
    return true;
}

static bool set_number(ConvertArgs *args, const char *what, const char *text, uint64_t max, uint64_t *value)
{
    args->common.status = 1;
    if (!g_ascii_string_to_unsigned(text, 10, 1, max, value, NULL)) {
        tool_error("Invalid %s '%s': it must be a number from 1 to %" PRIu64, what, text, max);
        return false;
    }
    return true;
}

static bool set_rate(ConvertArgs *args, const char *text)
{
    args->common.status = 1;
    return img_parse_size("rate limit", text, 0, INT64_MAX, &args->rate);
}

/* The options without a letter of their own and those that stand alone. */
static void set_flag(ConvertArgs *args, int c)
{
    switch (c) {
    case 'C':
        args->offload = true;
        break;
    case 'c':
        args->compressed = true;
        break;
    case 'n':
        args->skip_create = true;
        break;
    case 'W':
        args->out_of_order = true;
        break;
    case 'O':
        args->format = optarg;
        break;
    case 'B':
        args->backing = optarg;
        break;
    case 'F':
        args->backing_format = optarg;
        break;
    case 't':
        args->target_cache = optarg;
        break;
    }
}

static bool take_option(ConvertArgs *args, int c)
{
    enum { OPTION_TARGET_IMAGE_OPTS = IMG_OPTION_OWN, OPTION_TARGET_IS_ZERO, OPTION_SALVAGE, OPTION_BITMAPS,
           OPTION_SKIP_BROKEN_BITMAPS, OPTION_LEVEL, OPTION_THREADS };

    switch (c) {
    case OPTION_TARGET_IMAGE_OPTS:
        args->target.image_opts = true;
        return true;
    case OPTION_TARGET_IS_ZERO:
        args->target_is_zero = true;
        return true;
    case OPTION_SALVAGE:
        args->salvage = true;
        return true;
    case OPTION_BITMAPS:
        args->bitmaps = true;
        return true;
    case OPTION_SKIP_BROKEN_BITMAPS:
        args->skip_broken_bitmaps = true;
        return true;
    case OPTION_LEVEL:
        return set_number(args, "compression level", optarg, BLK_MAX_COMPRESSION_LEVEL, &args->level);
    case OPTION_THREADS:
        return set_number(args, "number of threads", optarg, BLK_MAX_COMPRESSION_THREADS, &args->threads);
    case 'o':
        return add_options(args, optarg);
    case 'S':
        return set_sparse(args, optarg);
    case 'm':
        return set_workers(args, optarg);
    case 'r':
        return set_rate(args, optarg);
    case 'l':
        args->common.status = 1;
        return tool_parse_snapshot_param(&args->snapshot, optarg);
    default:
        set_flag(args, c);
        return true;
    }
}

/* The rules about options that go together. */
static bool combination_valid(ConvertArgs *args)
{
    if (args->offload && args->has_sparse) {
        return fail(args, "Cannot enable copy offloading when -S is used");
    }
    if (args->offload && args->salvage) {
        return fail(args, "Cannot use copy offloading in salvaging mode");
    }
    if (args->target.image_opts && !args->skip_create) {
        return fail(args, "--target-image-opts requires use of -n flag");
    }
    if (args->target.image_opts && args->format) {
        return fail(args, "--image-opts and --format are mutually exclusive");
    }
    if (args->to_stdout && (args->skip_create || args->bitmaps || args->common.progress)) {
        return fail(args, "-n, --bitmaps and -p cannot be used when the image is written to standard output");
    }
    if (args->target_is_zero && !args->skip_create) {
        return fail(args, "--target-is-zero requires use of -n flag");
    }
    if (args->target_is_zero && args->backing) {
        return fail(args, "Cannot use --target-is-zero when the destination image has a backing file");
    }
    if (args->has_options && args->skip_create) {
        return fail(args, "-o has no effect when skipping image creation");
    }
    if ((args->level > 0 || args->threads > 0) && !args->compressed) {
        return fail(args, "--level and --threads are about compression: they need -c");
    }
    if (args->skip_broken_bitmaps && !args->bitmaps) {
        return fail(args, "Use of --skip-broken-bitmaps requires --bitmaps");
    }
    if (args->bitmaps && args->source_count > 1) {
        return fail(args, "Copying bitmaps only possible with single source");
    }
    if (args->source_count > 1 && args->snapshot.given) {
        return fail(args, "No support for concatenating multiple snapshot");
    }
    if (args->backing && args->source_count > 1) {
        return fail(args, "Having a backing file for the target makes no sense when concatenating multiple input images");
    }
    return true;
}

static bool parse_args(ConvertArgs *args, int argc, char **argv)
{
    static const struct option long_options[] = {
        IMG_LONG_COMMON, IMG_LONG_IMAGE_OPTS, IMG_LONG_FORCE_SHARE,
        { "target-image-opts", no_argument, NULL, IMG_OPTION_OWN },
        { "target-is-zero", no_argument, NULL, IMG_OPTION_OWN + 1 },
        { "salvage", no_argument, NULL, IMG_OPTION_OWN + 2 },
        { "bitmaps", no_argument, NULL, IMG_OPTION_OWN + 3 },
        { "skip-broken-bitmaps", no_argument, NULL, IMG_OPTION_OWN + 4 },
        { "level", required_argument, NULL, IMG_OPTION_OWN + 5 },
        { "threads", required_argument, NULL, IMG_OPTION_OWN + 6 },
        IMG_LONG_END,
    };
    int c;

    while ((c = img_next_option(&args->common, argc, argv, ":hf:O:B:CcF:o:l:S:pt:T:qnm:WUr:", long_options)) != -1) {
        if (c == IMG_STOP || !take_option(args, c)) {
            return false;
        }
    }
    if (args->help) {
        return true;
    }
    args->source_count = argc - optind - 1;
    if (args->source_count < 1) {
        return fail(args, "Must specify image file name");
    }
    args->sources = argv + optind;
    args->target.name = argv[argc - 1];
    args->to_stdout = strcmp(args->target.name, "-") == 0;
    if (!tool_parse_cache(args->target_cache, &args->target.cache)) {
        tool_error("Invalid cache option: %s", args->target_cache);
        args->common.status = 1;
        return false;
    }
    return combination_valid(args) && img_args_valid(&args->common, 1);
}

/* ---- sources and target ---- */

typedef struct Convert {
    BlkContext *ctx;
    ConvertArgs *args;
    GPtrArray *users;           /* BlkChild: the sources */
    GPtrArray *nodes;           /* BlkNode: the same */
    BlkNodesSource source;
    BlkChild *target;
    BlkCopy copy;
    ImgProgress progress;
} Convert;

static void report_unreadable(uint64_t offset, int ret, void *opaque)
{
    Convert *convert = opaque;

    if (!convert->args->common.quiet) {
        tool_warning("error while reading offset %" PRIu64 ": %s", offset, g_strerror(-ret));
    }
}

static int open_sources(Convert *convert, GError **error)
{
    ConvertArgs *args = convert->args;

    for (int i = 0; i < args->source_count; i++) {
        BlkChild *user;

        args->common.open.name = args->sources[i];
        user = tool_co_open(convert->ctx, &args->common.open, error);
        if (!user) {
            return -EINVAL;
        }
        g_ptr_array_add(convert->users, user);
        g_ptr_array_add(convert->nodes, blk_child_node(user));
    }
    if (tool_co_load_snapshot(g_ptr_array_index(convert->nodes, 0), &args->snapshot, error) < 0) {
        return -EINVAL;
    }
    if (blk_nodes_source_init(&convert->source, convert->nodes, error) < 0) {
        return -EFBIG;
    }
    convert->source.ignore_zeroes = args->sparse == 0;
    convert->source.unreadable = args->salvage ? report_unreadable : NULL;
    convert->source.opaque = convert;
    return 0;
}

/* Puts -B, -F and the size among the creation options; "backing" is also looked up there. */
static int merge_options(ConvertArgs *args, const BlkDriver *driver, uint64_t length, GError **error)
{
    if (args->backing && !img_has_create_option(driver, "backing_file")) {
        return blk_error(error, -ENOTSUP, "Backing file not supported for file format '%s'", driver->name);
    }
    if (args->backing) {
        json_object_set_string_member(args->options, "backing_file", args->backing);
    }
    if (args->backing_format) {
        if (!img_has_create_option(driver, "backing_fmt")) {
            return blk_error(error, -ENOTSUP, "Backing file format not supported for file format '%s'", driver->name);
        }
        json_object_set_string_member(args->options, "backing_fmt", args->backing_format);
    }
    json_object_set_int_member(args->options, "size", length);
    return 0;
}

/* What must not go together with compression, found out before a file is touched. */
static int check_compression(const BlkDriver *driver, const BlkOptions *options, GError **error)
{
    if (!driver->format || !driver->format->codec) {
        return blk_error(error, -ENOTSUP, "Compression not supported for this file format");
    }
    if (img_has_create_option(driver, "preallocation")
        && g_strcmp0(blk_options_string(options, "preallocation"), "off") != 0
        && blk_options_has(options, "preallocation")) {
        return blk_error(error, -ENOTSUP, "Compression and preallocation not supported at the same time");
    }
    return driver->check_compressed ? driver->check_compressed(options, error) : 0;
}

static int create_target(Convert *convert, GError **error)
{
    ConvertArgs *args = convert->args;
    const BlkDriver *driver = img_find_create_driver(convert->ctx, args->format, error);
    g_autoptr(BlkOptions) parsed = NULL;

    if (!driver || merge_options(args, driver, convert->source.source.length, error) < 0) {
        return -EINVAL;
    }
    parsed = img_parse_create_options(convert->ctx, driver, args->target.name, args->options, error);
    if (!parsed || (args->compressed && check_compression(driver, parsed, error) < 0)) {
        return -EINVAL;
    }
    if (img_has_create_option(driver, "backing_file") && blk_options_has(parsed, "backing_file")) {
        args->backing = blk_options_string(parsed, "backing_file");
        if (!blk_options_has(parsed, "backing_fmt")) {
            return blk_error(error, -EINVAL, "Use of backing file requires explicit backing format");
        }
    }
    if (args->backing && args->source_count > 1) {
        return blk_error(error, -EINVAL, "Having a backing file for the target makes no sense when concatenating "
                         "multiple input images");
    }
    if (args->to_stdout) {
        return convert_co_stream(convert->ctx, args->format, args->options, &convert->source.source, args->compressed,
                                 convert->copy.compression, args->sparse > 0, error);
    }
    if (blk_co_create(convert->ctx, args->target.name, args->format, args->options, error) < 0) {
        g_prefix_error(error, "%s: error while converting %s: ", args->target.name, args->format);
        return -EINVAL;
    }
    return 0;
}

static int open_target(Convert *convert, GError **error)
{
    ConvertArgs *args = convert->args;
    BlkNode *node, *backing;

    args->target.format = args->target.image_opts ? NULL : args->format;
    args->target.writable = true;
    args->target.unmap = true;
    convert->target = tool_co_open(convert->ctx, &args->target, error);
    if (!convert->target) {
        return -EINVAL;
    }
    node = blk_child_node(convert->target);
    backing = blk_node_backing(node);
    if (args->backing && backing) {     /* it has what the source's top image does not, as far as it reaches */
        convert->source.base = blk_node_backing(g_ptr_array_index(convert->nodes, 0));
        convert->source.base_end = blk_node_length(backing);
    }
    if (blk_node_length(node) < convert->source.source.length) {
        return blk_error(error, -EFBIG, "output file is smaller than input file");
    }
    if (args->bitmaps && !blk_node_stores_bitmaps(blk_node_skip_filters(node))) {
        return blk_error(error, -ENOTSUP, "Format driver '%s' does not support bitmaps", blk_node_driver_name(node));
    }
    convert->copy.target = convert->target;
    convert->copy.target_is_zero = args->target_is_zero
                                   || (!args->skip_create && !backing && (node->caps & BLK_CAP_ZERO_INIT));
    return 0;
}

static int run(Convert *convert, GError **error)
{
    int ret = open_sources(convert, error);

    if (ret == 0 && convert->args->bitmaps) {
        ret = convert_check_bitmaps(g_ptr_array_index(convert->nodes, 0), convert->args->skip_broken_bitmaps, error);
    }
    if (ret == 0 && !convert->args->skip_create) {
        ret = create_target(convert, error);
    }
    if (ret < 0 || convert->args->to_stdout) {
        return ret;
    }
    ret = open_target(convert, error);
    if (ret == 0) {
        ret = blk_co_copy(&convert->copy, error);
    }
    if (ret == 0 && convert->args->bitmaps) {
        ret = convert_co_copy_bitmaps(g_ptr_array_index(convert->nodes, 0), blk_child_node(convert->target), error);
    }
    return ret;
}

static int convert(BlkContext *ctx, ConvertArgs *args)
{
    g_autoptr(GPtrArray) users = g_ptr_array_new_with_free_func((GDestroyNotify)blk_co_detach);
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    Convert convert = {
        .ctx = ctx,
        .args = args,
        .users = users,
        .nodes = nodes,
        .copy = {
            .source = &convert.source.source,
            .compressed = args->compressed,
            .compression = blk_req_compression((unsigned)args->level, (unsigned)args->threads),
            .in_order = !args->out_of_order,
            .fua = args->target.cache.writethrough,
            .sparse = args->sparse,
            .workers = args->workers,
            .rate = args->rate,
            .progress = img_progress_report,
            .opaque = &convert.progress,
        },
    };
    GError *error = NULL;
    int ret;

    blk_context_need_workers(ctx, (unsigned)args->threads);
    img_progress_begin(&convert.progress, args->common.progress && !args->common.quiet);
    ret = run(&convert, &error);
    if (ret < 0) {
        tool_report(error);
    }
    img_progress_end(&convert.progress);
    blk_co_detach(convert.target);
    return ret < 0 ? 1 : 0;
}

static int run_args(BlkContext *ctx, ConvertArgs *args, int argc, char **argv)
{
    if (!parse_args(args, argc, argv)) {
        return args->common.status;
    }
    if (!args->target.image_opts && !args->format) {
        args->format = "raw";
    }
    if (args->help) {
        return img_print_create_help(ctx, args->format, optind < argc ? argv[argc - 1] : NULL);
    }
    return convert(ctx, args);
}

int img_convert(BlkContext *ctx, int argc, char **argv)
{
    g_autoptr(JsonObject) options = json_object_new();
    ConvertArgs args = { .options = options, .target_cache = "unsafe", .sparse = 4096, .workers = 8 };
    int status = run_args(ctx, &args, argc, argv);

    tool_snapshot_param_clear(&args.snapshot);
    return status;
}
