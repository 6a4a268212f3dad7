/* SPDX-License-Identifier: MIT */
/*
 * rebase.c - blkstack-img rebase.
 */
#include "img/img.h"

#include "jobs/rebase.h"

typedef struct RebaseArgs {
    ImgArgs common;
    const char *backing, *backing_format;       /* -b, -F */
    const char *target_cache;                   /* -t; -T is in common */
    ToolCache backing_cache;
    bool unsafe, compressed;
    JsonObject *no_backing;                     /* -u: options that leave out the old backing file */
} RebaseArgs;

static void set_option(RebaseArgs *args, int c)
{
    switch (c) {
    case 'b':
        args->backing = optarg;
        break;
    case 'F':
        args->backing_format = optarg;
        break;
    case 't':
        args->target_cache = optarg;
        break;
    case 'u':
        args->unsafe = true;
        break;
    case 'c':
        args->compressed = true;
        break;
    }
}

/* -T is about the backing files, -t about the image itself. */
static bool caches_valid(RebaseArgs *args)
{
    if (!img_args_valid(&args->common, 1)) {
        return false;
    }
    args->backing_cache = args->common.open.cache;
    args->common.open.cache = (ToolCache) { .direct = false };
    if (args->target_cache && !tool_parse_cache(args->target_cache, &args->common.open.cache)) {
        tool_error("Invalid cache option: %s", args->target_cache);
        args->common.status = 1;
        return false;
    }
    return true;
}

static bool parse_args(RebaseArgs *args, int argc, char **argv)
{
    static const struct option long_options[] = {
        IMG_LONG_COMMON, IMG_LONG_IMAGE_OPTS, IMG_LONG_FORCE_SHARE,
        { "compress", no_argument, NULL, 'c' },
        IMG_LONG_END,
    };
    int c;

    while ((c = img_next_option(&args->common, argc, argv, ":hf:F:b:upt:T:qUc", long_options)) != -1) {
        if (c == IMG_STOP) {
            return false;
        }
        set_option(args, c);
    }
    if (optind != argc - 1) {
        args->common.status = img_usage_error("Expecting one image file name");
        return false;
    }
    if (!args->unsafe && !args->backing) {
        args->common.status = img_usage_error("Must specify backing file (-b) or use unsafe mode (-u)");
        return false;
    }
    if (args->unsafe && args->compressed) {
        args->common.status = img_usage_error("Cannot use compression in unsafe mode: nothing is copied");
        return false;
    }
    if (args->backing && *args->backing == '\0') {
        args->backing = args->backing_format = NULL;
    }
    args->common.open.name = argv[optind];
    args->common.open.writable = args->common.open.resizable = true;
    args->common.open.force_share = false;      /* who writes takes locks */
    args->common.open.options = args->unsafe ? args->no_backing : NULL;
    return caches_valid(args);
}

static BlkChild *open_new_backing(BlkNode *node, const RebaseArgs *args, GError **error)
{
    g_autofree char *name = blk_node_resolve_name(node, args->backing, error);
    ToolOpen open = { .name = name, .format = args->backing_format, .cache = args->backing_cache };
    GError *local = NULL;
    BlkChild *user;

    if (!name) {
        return NULL;
    }
    user = tool_co_open(blk_node_context(node), &open, &local);
    if (!user) {
        g_propagate_prefixed_error(error, local, "Could not open new backing file '%s': ", args->backing);
    }
    return user;
}

static int change_name(BlkNode *node, const RebaseArgs *args, ImgProgress *progress, GError **error)
{
    int ret = blk_co_change_backing(node, args->backing, args->backing_format, error);

    if (ret < 0) {
        g_prefix_error(error, "Could not change the backing file to '%s': ", args->backing ? args->backing : "");
    } else {
        img_progress_report(1, progress);
    }
    return ret;
}

static int change_safely(BlkNode *node, const RebaseArgs *args, ImgProgress *progress, GError **error)
{
    BlkChild *backing = args->backing ? open_new_backing(node, args, error) : NULL;
    BlkRebase rebase = {
        .overlay = node,
        .backing = backing ? blk_child_node(backing) : NULL,
        .filename = args->backing,
        .format = args->backing_format,
        .compressed = args->compressed,
        .progress = img_progress_report,
        .opaque = progress,
    };
    int ret = args->backing && !backing ? -EINVAL : blk_co_rebase(&rebase, error);

    blk_co_detach(backing);
    return ret;
}

static int check_format(BlkNode *node, const RebaseArgs *args, GError **error)
{
    if (args->backing_format && !blk_driver_find(blk_node_context(node), args->backing_format)) {
        return blk_error(error, -EINVAL, "Invalid format name: '%s'", args->backing_format);
    }
    if (args->backing && !args->backing_format) {
        return blk_error(error, -EINVAL, "Could not change the backing file to '%s': backing format must be specified "
                         "(-F)", args->backing);
    }
    return 0;
}

static int rebase(BlkNode *node, void *opaque)
{
    const RebaseArgs *args = opaque;
    ImgProgress progress;
    GError *error = NULL;
    int ret;

    img_progress_begin(&progress, args->common.progress && !args->common.quiet);
    ret = check_format(node, args, &error);
    if (ret == 0) {
        ret = args->unsafe ? change_name(node, args, &progress, &error)
                           : change_safely(node, args, &progress, &error);
    }
    img_progress_end(&progress);
    if (ret < 0) {
        tool_report(error);
    }
    return ret < 0 ? 1 : 0;
}

int img_rebase(BlkContext *ctx, int argc, char **argv)
{
    g_autoptr(JsonObject) no_backing = json_object_new();
    RebaseArgs args = { .no_backing = no_backing };

    json_object_set_null_member(no_backing, "backing");
    return parse_args(&args, argc, argv) ? img_co_on_image(ctx, &args.common, rebase, &args) : args.common.status;
}
