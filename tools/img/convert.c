/* SPDX-License-Identifier: MIT */
/*
 * convert.c - blkstack-img convert: arguments, opening the sources and making the target.
 */
#include "img/convert.h"

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
    bool compressed, skip_create, target_is_zero, out_of_order, offload, has_sparse, help;
    uint64_t sparse, rate, workers;
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
    GError *error = NULL;

    args->has_options = true;
    args->help |= img_is_help(text);
    if (!args->help && !img_add_create_options(args->options, text, &error)) {
        tool_report(error);
        args->common.status = 1;
        return false;
    }
    return true;
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
    enum { OPTION_TARGET_IMAGE_OPTS = IMG_OPTION_OWN, OPTION_TARGET_IS_ZERO };

    switch (c) {
    case OPTION_TARGET_IMAGE_OPTS:
        args->target.image_opts = true;
        return true;
    case OPTION_TARGET_IS_ZERO:
        args->target_is_zero = true;
        return true;
    case 'o':
        return add_options(args, optarg);
    case 'S':
        return set_sparse(args, optarg);
    case 'm':
        return set_workers(args, optarg);
    case 'r':
        return set_rate(args, optarg);
    case 'l':
        return fail(args, "-l is not supported: the source is always the active state of the image");
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
    if (args->target.image_opts && !args->skip_create) {
        return fail(args, "--target-image-opts requires use of -n flag");
    }
    if (args->target.image_opts && args->format) {
        return fail(args, "--image-opts and --format are mutually exclusive");
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
    if (args->backing && args->source_count > 1) {
        return fail(args, "Having a backing file for the target makes no sense when concatenating multiple input images");
    }
    return true;
}

static bool parse_args(ConvertArgs *args, int argc, char **argv)
{
    static const struct option long_options[] = {
        IMG_LONG_HELP, IMG_LONG_IMAGE_OPTS, IMG_LONG_FORCE_SHARE,
        { "target-image-opts", no_argument, NULL, IMG_OPTION_OWN },
        { "target-is-zero", no_argument, NULL, IMG_OPTION_OWN + 1 },
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
    if (!tool_parse_cache(args->target_cache, &args->target.cache)) {
        tool_error("Invalid cache option: %s", args->target_cache);
        args->common.status = 1;
        return false;
    }
    return combination_valid(args) && img_args_valid(&args->common, 1);
}

/* ---- sources and target ---- */

static int open_sources(BlkContext *ctx, ConvertArgs *args, ConvertJob *job, GError **error)
{
    for (int i = 0; i < args->source_count; i++) {
        BlkChild *user;

        args->common.open.name = args->sources[i];
        user = tool_co_open(ctx, &args->common.open, error);
        if (!user) {
            return -EINVAL;
        }
        g_ptr_array_add(job->sources, user);
        if (!g_uint64_checked_add(&job->length, job->length, blk_node_length(blk_child_node(user)))
            || job->length > BLK_MAX_LENGTH) {
            return blk_error(error, -EFBIG, "The input images are too large together");
        }
    }
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
    return 0;
}

static int create_target(BlkContext *ctx, ConvertArgs *args, uint64_t length, GError **error)
{
    const BlkDriver *driver = img_find_create_driver(ctx, args->format, error);
    g_autoptr(BlkOptions) parsed = NULL;

    if (!driver || merge_options(args, driver, length, error) < 0) {
        return -EINVAL;
    }
    parsed = img_parse_create_options(driver, args->options, error);
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
    if (blk_co_create(ctx, args->target.name, args->format, args->options, error) < 0) {
        g_prefix_error(error, "%s: error while converting %s: ", args->target.name, args->format);
        return -EINVAL;
    }
    return 0;
}

static int open_target(BlkContext *ctx, ConvertArgs *args, ConvertJob *job, GError **error)
{
    BlkNode *node, *backing;

    args->target.format = args->target.image_opts ? NULL : args->format;
    args->target.writable = true;
    args->target.unmap = true;
    job->target = tool_co_open(ctx, &args->target, error);
    if (!job->target) {
        return -EINVAL;
    }
    node = blk_child_node(job->target);
    backing = blk_node_backing(node);
    job->backing_length = backing ? blk_node_length(backing) : 0;
    if (args->compressed && !(node->caps & BLK_CAP_COMPRESSED_WRITE)) {
        return blk_error(error, -ENOTSUP, "Compression not supported for this file format");
    }
    if (blk_node_length(node) < job->length) {
        return blk_error(error, -EFBIG, "output file is smaller than input file");
    }
    job->target_is_zero = args->target_is_zero
                          || (!args->skip_create && !backing && (node->caps & BLK_CAP_ZERO_INIT));
    return 0;
}

static int prepare(BlkContext *ctx, ConvertArgs *args, ConvertJob *job, GError **error)
{
    if (open_sources(ctx, args, job, error) < 0) {
        return -EINVAL;
    }
    if (!args->skip_create && create_target(ctx, args, job->length, error) < 0) {
        return -EINVAL;
    }
    job->keep_backing = args->backing != NULL;
    return open_target(ctx, args, job, error);
}

static int convert(BlkContext *ctx, ConvertArgs *args)
{
    g_autoptr(GPtrArray) sources = g_ptr_array_new_with_free_func((GDestroyNotify)blk_co_detach);
    ConvertJob job = {
        .sources = sources,
        .compressed = args->compressed,
        .in_order = !args->out_of_order,
        .fua = args->target.cache.writethrough,
        .sparse = args->sparse,
        .workers = args->workers,
        .rate = args->rate,
    };
    GError *error = NULL;
    int status = 1;

    img_progress_begin(&job.progress, args->common.progress && !args->common.quiet);
    if (prepare(ctx, args, &job, &error) < 0) {
        tool_report(error);
    } else {
        status = convert_co_copy(&job);
    }
    img_progress_end(&job.progress);
    blk_co_detach(job.target);
    return status;
}

int img_convert(BlkContext *ctx, int argc, char **argv)
{
    g_autoptr(JsonObject) options = json_object_new();
    ConvertArgs args = { .options = options, .target_cache = "unsafe", .sparse = 4096, .workers = 8 };

    if (!parse_args(&args, argc, argv)) {
        return args.common.status;
    }
    if (!args.target.image_opts && !args.format) {
        args.format = "raw";
    }
    if (args.help) {
        return img_print_create_help(ctx, args.format, optind < argc);
    }
    return convert(ctx, &args);
}
