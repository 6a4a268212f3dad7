/* SPDX-License-Identifier: MIT */
/*
 * measure.c - blkstack-img measure: how long the file of a new image will be.
 */
#include "img/img.h"

#include <inttypes.h>
#include <stdio.h>

typedef struct MeasureArgs {
    ImgArgs common;
    const char *format;         /* -O */
    bool has_size;
    uint64_t size;
    ToolSnapshotParam snapshot;  /* -l */
    JsonObject *options;        /* -o */
} MeasureArgs;

static bool fail(MeasureArgs *args, const char *message)
{
    tool_error("%s", message);
    args->common.status = 1;
    return false;
}

static bool parse_options(MeasureArgs *args, int argc, char **argv)
{
    enum { OPTION_SIZE = IMG_OPTION_OWN };
    static const struct option long_options[] = {
        IMG_LONG_COMMON, IMG_LONG_OUTPUT, IMG_LONG_IMAGE_OPTS, IMG_LONG_FORCE_SHARE,
        { "size", required_argument, NULL, OPTION_SIZE },
        IMG_LONG_END,
    };
    int c;

    while ((c = img_next_option(&args->common, argc, argv, ":hf:l:O:o:U", long_options)) != -1) {
        switch (c) {
        case IMG_STOP:
            return false;
        case 'O':
            args->format = optarg;
            break;
        case 'o':
            if (!img_take_create_options(&args->common, args->options, optarg, NULL)) {
                return false;
            }
            break;
        case 'l':
            if (!tool_parse_snapshot_param(&args->snapshot, optarg)) {
                args->common.status = 1;
                return false;
            }
            break;
        case OPTION_SIZE:
            args->has_size = true;
            if (!img_parse_size("image size", optarg, 0, INT64_MAX, &args->size)) {
                args->common.status = 1;
                return false;
            }
            break;
        }
    }
    return true;
}

static bool parse_args(MeasureArgs *args, int argc, char **argv)
{
    if (!parse_options(args, argc, argv)) {
        return false;
    }
    if (argc - optind > 1) {
        return fail(args, "At most one filename argument is allowed.");
    }
    args->common.open.name = optind < argc ? argv[optind] : NULL;
    if (!args->common.open.name && (args->common.open.image_opts || args->common.open.format || args->snapshot.given)) {
        return fail(args, "--image-opts, -f, and -l require a filename argument.");
    }
    if (!args->common.open.name && !args->has_size) {
        return fail(args, "Either --size N or one filename must be specified.");
    }
    if (args->common.open.name && args->has_size) {
        return fail(args, "--size N cannot be used together with a filename.");
    }
    return img_args_valid(&args->common, 1);
}

static void print_json(const BlkMeasure *measure)
{
    g_autoptr(JsonNode) root = json_node_init_object(json_node_alloc(), json_object_new());
    JsonObject *object = json_node_get_object(root);

    if (measure->has_bitmaps) {
        json_object_set_int_member(object, "bitmaps", (gint64)measure->bitmaps);
    }
    json_object_set_int_member(object, "required", (gint64)measure->required);
    json_object_set_int_member(object, "fully-allocated", (gint64)measure->fully_allocated);
    img_print_json(root);
}

static void print_human(const BlkMeasure *measure)
{
    printf("required size: %" PRIu64 "\nfully allocated size: %" PRIu64 "\n", measure->required,
           measure->fully_allocated);
    if (measure->has_bitmaps) {
        printf("bitmaps size: %" PRIu64 "\n", measure->bitmaps);
    }
}

static int measure_and_print(BlkContext *ctx, const MeasureArgs *args, BlkNode *source)
{
    BlkMeasure measure;
    GError *error = NULL;

    if (blk_co_measure(ctx, args->format, args->options, source, &measure, &error) < 0) {
        tool_report(error);
        return 1;
    }
    if (args->common.json) {
        print_json(&measure);
    } else {
        print_human(&measure);
    }
    return 0;
}

static int measure_source(BlkNode *node, void *opaque)
{
    const MeasureArgs *args = opaque;
    GError *error = NULL;

    if (tool_co_load_snapshot(node, &args->snapshot, &error) < 0) {
        tool_report(error);
        return 1;
    }
    return measure_and_print(blk_node_context(node), args, node);
}

static int run_args(BlkContext *ctx, MeasureArgs *args, int argc, char **argv)
{
    if (!parse_args(args, argc, argv)) {
        return args->common.status;
    }
    if (args->common.open.name) {
        return img_co_on_image(ctx, &args->common, measure_source, args);
    }
    json_object_set_int_member(args->options, "size", (gint64)args->size);
    return measure_and_print(ctx, args, NULL);
}

int img_measure(BlkContext *ctx, int argc, char **argv)
{
    g_autoptr(JsonObject) options = json_object_new();
    MeasureArgs args = { .format = "raw", .options = options };
    int status = run_args(ctx, &args, argc, argv);

    tool_snapshot_param_clear(&args.snapshot);
    return status;
}
