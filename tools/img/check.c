/* SPDX-License-Identifier: MIT */
/*
 * check.c - blkstack-img check.
 *
 * Exit status: 0 the image is sound (or is now), 1 the check could not be done, 2 corruptions, 3 leaks only, 63 the format
 * has no check.
 */
#include "img/img.h"

#include <inttypes.h>
#include <stdio.h>

enum { STATUS_FAILED = 1, STATUS_CORRUPT = 2, STATUS_LEAKS = 3, STATUS_NO_CHECK = 63 };

typedef struct CheckArgs {
    ImgArgs common;
    BlkCheckOptions options;
    ImgProgress progress;
} CheckArgs;

/* Findings go to standard error, so that JSON on standard output stays JSON. */
static void print_finding(const char *text, void *opaque)
{
    fprintf(stderr, "%s\n", text);
}

static void report_progress(double fraction, void *opaque)
{
    CheckArgs *args = opaque;

    img_progress_report(fraction, &args->progress);
}

static bool set_repair(CheckArgs *args, const char *what)
{
    if (strcmp(what, "leaks") == 0) {
        args->options.fix_leaks = true;
    } else if (strcmp(what, "all") == 0) {
        args->options.fix_leaks = args->options.fix_errors = true;
    } else {
        args->common.status = img_usage_error("Unknown option value for -r (expecting 'leaks' or 'all'): %s", what);
        return false;
    }
    return true;
}

static bool parse_args(CheckArgs *args, int argc, char **argv)
{
    enum { OPTION_DATA = IMG_OPTION_OWN };
    static const struct option long_options[] = {
        IMG_LONG_COMMON, IMG_LONG_FORMAT, IMG_LONG_OUTPUT, IMG_LONG_IMAGE_OPTS, IMG_LONG_FORCE_SHARE,
        { "repair", required_argument, NULL, 'r' },
        { "data", no_argument, NULL, OPTION_DATA },
        IMG_LONG_END,
    };
    int c;

    while ((c = img_next_option(&args->common, argc, argv, ":hf:pr:T:qU", long_options)) != -1) {
        if (c == IMG_STOP || (c == 'r' && !set_repair(args, optarg))) {
            return false;
        }
        if (c == OPTION_DATA) {
            args->options.data = true;
        }
    }
    if (optind != argc - 1) {
        args->common.status = img_usage_error("Expecting one image file name");
        return false;
    }
    args->common.open.name = argv[optind];
    args->common.open.writable = args->common.open.resizable = args->options.fix_leaks;
    args->common.open.metadata_only = args->common.open.check_only = true;
    return img_args_valid(&args->common, 1);
}

static void add_count(JsonObject *object, const char *name, uint64_t count)
{
    if (count) {
        json_object_set_int_member(object, name, count);
    }
}

static void print_json(BlkNode *node, const BlkCheckResult *result)
{
    g_autoptr(JsonObject) object = json_object_new();
    g_autoptr(JsonNode) root = json_node_alloc();

    add_count(object, "image-end-offset", result->image_end_offset);
    add_count(object, "compressed-clusters", result->compressed_clusters);
    add_count(object, "total-clusters", result->total_clusters);
    add_count(object, "corruptions", result->corruptions);
    add_count(object, "corruptions-fixed", result->corruptions_fixed);
    add_count(object, "data-errors", result->data_errors);
    json_object_set_int_member(object, "check-errors", result->check_errors);
    add_count(object, "leaks", result->leaks);
    add_count(object, "leaks-fixed", result->leaks_fixed);
    add_count(object, "allocated-clusters", result->allocated_clusters);
    json_object_set_string_member(object, "filename", blk_node_filename(node));
    json_object_set_string_member(object, "format", blk_node_driver_name(node));
    add_count(object, "fragmented-clusters", result->fragmented_clusters);
    img_print_json(json_node_init_object(root, object));
}

static void print_findings(const BlkCheckResult *result)
{
    if (!result->corruptions && !result->leaks && !result->check_errors) {
        printf("No errors were found on the image.\n");
        return;
    }
    if (result->corruptions) {
        printf("\n%" PRIu64 " errors were found on the image.\n"
               "Data may be corrupted, or further writes to the image may corrupt it.\n", result->corruptions);
    }
    if (result->leaks) {
        printf("\n%" PRIu64 " leaked clusters were found on the image.\n"
               "This means waste of disk space, but no harm to data.\n", result->leaks);
    }
    if (result->check_errors) {
        printf("\n%" PRIu64 " internal errors have occurred during the check.\n", result->check_errors);
    }
}

static void print_human(const BlkCheckResult *result)
{
    double allocated = result->allocated_clusters;

    print_findings(result);
    if (result->data_errors) {
        printf("%" PRIu64 " compressed clusters cannot be decoded.\n", result->data_errors);
    }
    if (result->total_clusters && result->allocated_clusters) {
        printf("%" PRIu64 "/%" PRIu64 " = %0.2f%% allocated, %0.2f%% fragmented, %0.2f%% compressed clusters\n",
               result->allocated_clusters, result->total_clusters, allocated * 100 / result->total_clusters,
               result->fragmented_clusters * 100 / allocated, result->compressed_clusters * 100 / allocated);
    }
    if (result->image_end_offset) {
        printf("Image end offset: %" PRIu64 "\n", result->image_end_offset);
    }
}

static int check_failed(GError *error, int ret)
{
    if (ret == -ENOTSUP) {
        g_error_free(error);
        tool_error("This image format does not support checks");
        return STATUS_NO_CHECK;
    }
    g_prefix_error(&error, "Check failed: ");
    tool_report(error);
    return STATUS_FAILED;
}

/* Repairs may uncover or hide other findings: what is reported in the end is a second look, without repairs. */
static int check_again(BlkNode *node, const CheckArgs *args, BlkCheckResult *result, GError **error)
{
    BlkCheckOptions options = args->options;
    BlkCheckResult again = { 0 };
    int ret;

    if (!args->common.quiet && !args->common.json) {
        printf("The following inconsistencies were found and repaired:\n\n"
               "    %" PRIu64 " leaked clusters\n    %" PRIu64 " corruptions\n\n"
               "Double checking the fixed image now...\n", result->leaks_fixed, result->corruptions_fixed);
        fflush(stdout);
    }
    options.fix_leaks = options.fix_errors = false;
    options.progress = NULL;
    ret = blk_co_check(node, &options, &again, error);
    again.leaks_fixed = result->leaks_fixed;
    again.corruptions_fixed = result->corruptions_fixed;
    *result = again;
    return ret;
}

static int check_node(BlkNode *node, CheckArgs *args)
{
    BlkCheckResult result = { 0 };
    GError *error = NULL;
    int ret;

    img_progress_begin(&args->progress, args->common.progress && !args->common.quiet && !args->common.json);
    ret = blk_co_check(node, &args->options, &result, &error);
    img_progress_end(&args->progress);

    if (ret == 0 && (result.leaks_fixed || result.corruptions_fixed)) {
        ret = check_again(node, args, &result, &error);
    }
    if (ret < 0) {
        return check_failed(error, ret);
    }
    if (args->common.json) {
        print_json(node, &result);
    } else if (!args->common.quiet) {
        print_human(&result);
    }
    if (result.corruptions) {
        return STATUS_CORRUPT;
    }
    if (result.check_errors) {
        return STATUS_FAILED;
    }
    return result.leaks ? STATUS_LEAKS : 0;
}

int img_check(BlkContext *ctx, int argc, char **argv)
{
    CheckArgs args = { .options = { .message = print_finding, .progress = report_progress, .opaque = &args } };
    GError *error = NULL;
    BlkChild *user;
    int status;

    if (!parse_args(&args, argc, argv)) {
        return args.common.status;
    }
    user = tool_co_open(ctx, &args.common.open, &error);
    if (!user) {
        tool_report(error);
        return STATUS_FAILED;
    }
    status = check_node(blk_child_node(user), &args);
    blk_co_detach(user);
    return status;
}
