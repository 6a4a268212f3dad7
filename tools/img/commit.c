/* SPDX-License-Identifier: MIT */
/*
 * commit.c - blkstack-img commit: opens a chain so that its base can be written, and commits into it.
 *
 * The chain is opened twice: first as it is, to see which images it has; then from the base up, which is opened for writing
 * and which the images above name as their backing node.
 */
#include "img/img.h"

#include "jobs/commit.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct CommitArgs {
    ImgArgs common;             /* -t is in common.open.cache */
    const char *base;           /* -b */
    const char *cache;          /* -t */
    bool keep, compressed;
    uint64_t rate;
} CommitArgs;

/* An image below the top. */
typedef struct Level {
    char *name;
    char *format;               /* (nullable): as the image above says; else it is detected again, and trusted no more */
} Level;

static void level_clear(gpointer data)
{
    g_free(((Level *)data)->name);
    g_free(((Level *)data)->format);
}

static bool take_option(CommitArgs *args, int c)
{
    switch (c) {
    case 'b':
        args->base = optarg;
        args->keep = true;      /* what lies between would show through */
        return true;
    case 'c':
        args->compressed = true;
        return true;
    case 'd':
        args->keep = true;
        return true;
    case 't':
        args->cache = optarg;
        return true;
    default:
        return img_parse_size("rate limit", optarg, 0, INT64_MAX, &args->rate);
    }
}

static bool parse_args(CommitArgs *args, int argc, char **argv)
{
    static const struct option long_options[] = {
        IMG_LONG_COMMON, IMG_LONG_IMAGE_OPTS,
        { "compress", no_argument, NULL, 'c' },
        IMG_LONG_END,
    };
    int c;

    while ((c = img_next_option(&args->common, argc, argv, ":f:ht:b:cdpqr:", long_options)) != -1) {
        if (c == IMG_STOP) {
            return false;
        }
        if (!take_option(args, c)) {
            args->common.status = 1;
            return false;
        }
    }
    if (optind != argc - 1) {
        args->common.status = img_usage_error("Expecting one image file name");
        return false;
    }
    if (args->cache && !tool_parse_cache(args->cache, &args->common.open.cache)) {
        tool_error("Invalid cache option: %s", args->cache);
        args->common.status = 1;
        return false;
    }
    args->common.open.name = argv[optind];
    return img_args_valid(&args->common, 1);
}

/* ---- the chain ---- */

static bool is_same_file(const char *a, const char *b)
{
    char *path_a = realpath(a, NULL), *path_b = realpath(b, NULL);
    bool same = strcmp(a, b) == 0 || (path_a && path_b && strcmp(path_a, path_b) == 0);

    free(path_a);
    free(path_b);
    return same;
}

static int add_level(BlkNode *above, BlkNode *image, GArray *levels, GError **error)
{
    Level level = { .name = g_strdup(blk_node_filename(image)) };
    BlkInfo info = { .cluster_size = 0 };
    int ret = blk_co_info(above, &info, error);

    if (ret == 0 && !g_str_has_prefix(level.name, "json:")) {
        level.format = g_strdup(info.backing_format);
    }
    g_array_append_val(levels, level);
    blk_info_clear(&info);
    return ret;
}

/* All images below @top down to the base: the one of that name, or without a name the first. */
static int list_levels(BlkNode *top, const CommitArgs *args, GArray *levels, GError **error)
{
    BlkNode *above = top, *node = blk_node_backing(top);

    if (!node) {
        return blk_error(error, -EINVAL, "Image does not have a backing file");
    }
    for (; node; above = node, node = blk_node_backing(node)) {
        BlkNode *image = blk_node_skip_filters(node);
        int ret = add_level(above, image, levels, error);

        if (ret < 0 || !args->base || is_same_file(blk_node_filename(image), args->base)) {
            return ret;
        }
    }
    return blk_error(error, -ENOENT, "Did not find '%s' in the backing chain of '%s'", args->base, args->common.open.name);
}

static int look_at_chain(BlkContext *ctx, const CommitArgs *args, GArray *levels, GError **error)
{
    BlkChild *user = tool_co_open(ctx, &args->common.open, error);
    int ret = user ? list_levels(blk_child_node(user), args, levels, error) : -EINVAL;

    blk_co_detach(user);
    return ret;
}

/* Opens one image whose backing node is @below (nullable: its own). */
static BlkChild *open_above(BlkContext *ctx, const ToolOpen *how, BlkChild *below, GError **error)
{
    g_autoptr(JsonObject) options = json_object_new();
    ToolOpen open = *how;

    if (below) {
        json_object_set_string_member(options, "backing", blk_node_name(blk_child_node(below)));
        open.options = options;
    }
    return tool_co_open(ctx, &open, error);
}

/* Opens the levels, the base first, and the top: users holds them in this order. */
static int open_chain(BlkContext *ctx, const CommitArgs *args, GArray *levels, GPtrArray *users, GError **error)
{
    ToolOpen top = args->common.open;
    BlkChild *user = NULL;

    for (unsigned i = levels->len; i-- > 0;) {
        const Level *level = &g_array_index(levels, Level, i);
        bool is_base = i == levels->len - 1;
        ToolOpen open = {
            .name = level->name, .format = level->format, .cache = args->common.open.cache,
            .writable = is_base, .resizable = is_base, .unmap = is_base,
        };

        user = open_above(ctx, &open, user, error);
        if (!user) {
            return -EINVAL;
        }
        g_ptr_array_add(users, user);
    }
    top.writable = top.resizable = !args->keep;
    user = open_above(ctx, &top, user, error);
    if (user) {
        g_ptr_array_add(users, user);
    }
    return user ? 0 : -EINVAL;
}

static int commit(BlkContext *ctx, const CommitArgs *args, GPtrArray *users, ImgProgress *progress, GError **error)
{
    g_autoptr(GArray) levels = g_array_new(FALSE, FALSE, sizeof(Level));
    int ret;

    g_array_set_clear_func(levels, level_clear);
    ret = look_at_chain(ctx, args, levels, error);
    if (ret == 0) {
        ret = open_chain(ctx, args, levels, users, error);
    }
    if (ret < 0) {
        return ret;
    }
    BlkCommit job = {
        .top = blk_child_node(g_ptr_array_index(users, users->len - 1)),
        .base = blk_child_node(g_ptr_array_index(users, 0)),
        .empty_top = !args->keep,
        .compressed = args->compressed,
        .fua = args->common.open.cache.writethrough,
        .rate = args->rate,
        .progress = img_progress_report,
        .opaque = progress,
    };
    return blk_co_commit(&job, error);
}

int img_commit(BlkContext *ctx, int argc, char **argv)
{
    CommitArgs args = { .keep = false };
    g_autoptr(GPtrArray) users = g_ptr_array_new();
    ImgProgress progress;
    GError *error = NULL;
    int ret;

    if (!parse_args(&args, argc, argv)) {
        return args.common.status;
    }
    img_progress_begin(&progress, args.common.progress && !args.common.quiet);
    ret = commit(ctx, &args, users, &progress, &error);
    img_progress_end(&progress);
    while (users->len > 0) {        /* the top first */
        blk_co_detach(g_ptr_array_steal_index(users, users->len - 1));
    }
    if (ret < 0) {
        tool_report(error);
    } else if (!args.common.quiet) {
        printf("Image committed.\n");
    }
    return ret < 0 ? 1 : 0;
}
