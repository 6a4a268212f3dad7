/* SPDX-License-Identifier: MIT */
/*
 * commit.c - writes what the upper images of a chain hold into an image below them.
 *
 *     top ──> between ──> base         what lies above the base is copied into it
 *
 * While that goes on the top hides what changes below it, so it reads the same at any time.
 */
#include "jobs/commit.h"

#include "jobs/copy.h"
#include "jobs/source.h"

enum { WORKERS = 8 };

static int co_grow_base(const BlkCommit *commit, GError **error)
{
    uint64_t length = blk_node_length(commit->top);
    int ret = 0;

    if (blk_node_length(commit->base) < length) {
        ret = blk_co_truncate(commit->base, length, BLK_PREALLOC_OFF, error);
    }
    if (ret < 0) {
        g_prefix_error(error, "Could not resize the base image '%s': ", blk_node_filename(commit->base));
    }
    return ret;
}

static int co_copy_down(const BlkCommit *commit, GError **error)
{
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    BlkNodesSource source;
    BlkCopy copy = {
        .source = &source.source,
        .compressed = commit->compressed,
        .in_order = true,
        .fua = commit->fua,
        .sparse = 1,
        .workers = WORKERS,
        .rate = commit->rate,
        .progress = commit->progress,
        .opaque = commit->opaque,
    };
    int ret;

    g_ptr_array_add(nodes, commit->top);
    ret = blk_nodes_source_init(&source, nodes, error);
    if (ret < 0) {
        return ret;
    }
    source.base = commit->base;
    copy.target = blk_co_attach(commit->base, "commit", 0, BLK_PERM_ALL, error);
    ret = copy.target ? blk_co_copy(&copy, error) : -EINVAL;
    blk_co_detach(copy.target);
    return ret;
}

int blk_co_commit(const BlkCommit *commit, GError **error)
{
    int ret = blk_copy_check_target(commit->base, commit->compressed, error);

    if (ret == 0) {
        ret = co_grow_base(commit, error);
    }
    if (ret == 0) {
        ret = co_copy_down(commit, error);
    }
    if (ret == 0 && commit->empty_top) {
        ret = blk_co_make_empty(commit->top, error);
        if (ret == -ENOTSUP) {
            g_clear_error(error);           /* what cannot be emptied still reads as it did */
            return 0;
        }
        if (ret < 0) {
            g_prefix_error(error, "Could not empty '%s' after all was committed: ", blk_node_filename(commit->top));
        }
    }
    return ret;
}
