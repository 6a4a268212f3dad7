/* SPDX-License-Identifier: MIT */
/*
 * bitmap.c - blkstack-img bitmap: one or several actions on one dirty bitmap of an image, in the order in which they
 * stand.
 *
 * What was done before an action that fails stays done.
 */
#include "img/img.h"

typedef enum Action { ACTION_ADD, ACTION_REMOVE, ACTION_CLEAR, ACTION_ENABLE, ACTION_DISABLE, ACTION_MERGE } Action;

static const char *const action_names[] = { "add", "remove", "clear", "enable", "disable", "merge" };

typedef struct Step {
    Action action;
    const char *source;             /* merge: name of the bitmap */
} Step;

typedef struct BitmapArgs {
    ImgArgs common;
    GArray *steps;                  /* of Step */
    uint64_t granularity;
    bool has_granularity;
    const char *source_file, *source_format;
    const char *bitmap;
    BlkNode *source;                /* where merge finds bitmaps */
} BitmapArgs;

/* ---- arguments ---- */

static bool fail(BitmapArgs *args, const char *message)
{
    tool_error("%s", message);
    args->common.status = 1;
    return false;
}

static bool has_step(const BitmapArgs *args, Action action)
{
    for (guint i = 0; i < args->steps->len; i++) {
        if (g_array_index(args->steps, Step, i).action == action) {
            return true;
        }
    }
    return false;
}

static bool combination_valid(BitmapArgs *args, int names)
{
    if (args->steps->len == 0) {
        return fail(args, "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge");
    }
    if (names != 2) {
        return fail(args, "Expecting filename and bitmap name");
    }
    if (args->has_granularity && !has_step(args, ACTION_ADD)) {
        return fail(args, "granularity only supported with --add");
    }
    if (args->source_format && !args->source_file) {
        return fail(args, "-F only supported with -b");
    }
    if (args->source_file && !has_step(args, ACTION_MERGE)) {
        return fail(args, "Merge bitmap source file only supported with --merge");
    }
    return true;
}

static bool take_option(BitmapArgs *args, int c)
{
    enum { OPTION_FIRST_ACTION = IMG_OPTION_OWN };

    switch (c) {
    case 'b':
        args->source_file = optarg;
        return true;
    case 'F':
        args->source_format = optarg;
        return true;
    case 'g':
        args->has_granularity = true;
        args->common.status = 1;
        return img_parse_size("granularity", optarg, 0, INT64_MAX, &args->granularity);
    default: {
        Step step = { .action = (Action)(c - OPTION_FIRST_ACTION), .source = optarg };

        g_array_append_val(args->steps, step);
        return true;
    }
    }
}

static bool parse_args(BitmapArgs *args, int argc, char **argv)
{
    static const struct option long_options[] = {
        IMG_LONG_COMMON, IMG_LONG_FORMAT, IMG_LONG_IMAGE_OPTS,
        { "source-file", required_argument, NULL, 'b' },
        { "source-format", required_argument, NULL, 'F' },
        { "granularity", required_argument, NULL, 'g' },
        { "add", no_argument, NULL, IMG_OPTION_OWN + ACTION_ADD },
        { "remove", no_argument, NULL, IMG_OPTION_OWN + ACTION_REMOVE },
        { "clear", no_argument, NULL, IMG_OPTION_OWN + ACTION_CLEAR },
        { "enable", no_argument, NULL, IMG_OPTION_OWN + ACTION_ENABLE },
        { "disable", no_argument, NULL, IMG_OPTION_OWN + ACTION_DISABLE },
        { "merge", required_argument, NULL, IMG_OPTION_OWN + ACTION_MERGE },
        IMG_LONG_END,
    };
    int c;

    while ((c = img_next_option(&args->common, argc, argv, ":b:f:F:g:h", long_options)) != -1) {
        if (c == IMG_STOP || !take_option(args, c)) {
            return false;
        }
    }
    if (!combination_valid(args, argc - optind)) {
        return false;
    }
    args->common.open.name = argv[optind];
    args->common.open.writable = true;
    args->bitmap = argv[optind + 1];
    return img_args_valid(&args->common, 1);
}

/* ---- actions ---- */

static int run_step(BlkNode *node, const BitmapArgs *args, const Step *step, GError **error)
{
    BlkDirtyBitmap *bitmap, *source;
    int ret;

    if (step->action == ACTION_ADD) {
        return blk_bitmap_add(node, args->bitmap, args->granularity, true, error) ? 0 : -EINVAL;
    }
    if (step->action == ACTION_REMOVE) {
        bitmap = blk_bitmap_find(node, args->bitmap);
        if (!bitmap) {
            return blk_error(error, -ENOENT, "Dirty bitmap '%s' not found", args->bitmap);
        }
        blk_bitmap_remove(bitmap);
        return 0;
    }
    bitmap = blk_bitmap_find_usable(node, args->bitmap, error);
    if (!bitmap) {
        return -EINVAL;
    }
    switch (step->action) {
    case ACTION_CLEAR:
        ret = blk_co_bitmap_load(bitmap, error);
        if (ret == 0) {
            blk_bitmap_clear(bitmap, 0, blk_node_length(node));
        }
        return ret;
    case ACTION_MERGE:
        source = blk_bitmap_find_usable(args->source ? args->source : node, step->source, error);
        return source ? blk_co_bitmap_merge(bitmap, source, error) : -EINVAL;
    default:
        blk_bitmap_enable(bitmap, step->action == ACTION_ENABLE);
        return 0;
    }
}

static int change_bitmap(BlkNode *top, void *opaque)
{
    BitmapArgs *args = opaque;
    BlkNode *node = blk_node_skip_filters(top);
    GError *error = NULL;
    int status = 0;

    for (guint i = 0; i < args->steps->len && status == 0; i++) {
        const Step *step = &g_array_index(args->steps, Step, i);

        if (run_step(node, args, step, &error) < 0) {
            tool_error("Operation %s on bitmap %s failed: %s", action_names[step->action], args->bitmap,
                       error->message);
            g_clear_error(&error);
            status = 1;
        }
    }
    if (blk_co_bitmaps_store(node, &error) < 0) {
        g_prefix_error(&error, "Could not store the bitmaps of '%s': ", blk_node_filename(node));
        tool_report(error);
        status = 1;
    }
    return status;
}

/* Opens the image of -b, then the other. */
static int change_with_source(BlkContext *ctx, BitmapArgs *args)
{
    ToolOpen open = { .name = args->source_file, .format = args->source_format };
    BlkChild *user = NULL;
    GError *error = NULL;
    int status;

    if (args->source_file) {
        user = tool_co_open(ctx, &open, &error);
        if (!user) {
            tool_report(error);
            return 1;
        }
        args->source = blk_node_skip_filters(blk_child_node(user));
    }
    status = img_co_on_image(ctx, &args->common, change_bitmap, args);
    blk_co_detach(user);
    return status;
}

int img_bitmap(BlkContext *ctx, int argc, char **argv)
{
    g_autoptr(GArray) steps = g_array_new(FALSE, FALSE, sizeof(Step));
    BitmapArgs args = { .steps = steps };

    return parse_args(&args, argc, argv) ? change_with_source(ctx, &args) : args.common.status;
}
