/* SPDX-License-Identifier: MIT */
/*
 * hide.c - filter "hide": stands below an image for the time of a job that writes what the image hides.
 *
 * An image that reads from its backing does not let others write there. Here it does, as far as this one image is
 * concerned. All requests pass. Users cannot name the driver.
 */
#include "filters/hide.h"

#include "core/graph_change.h"

static void hide_child_perm(BlkNode *node, BlkChild *child, unsigned perm, unsigned shared, unsigned *child_perm,
                            unsigned *child_shared)
{
    *child_perm = perm;
    *child_shared = BLK_PERM_ALL;
}

static const BlkDriver blk_driver_hide = {
    .name = "hide",
    .kind = BLK_FILTER,
    .help = "lets a job write below an image what the image hides",
    .child_perm = hide_child_perm,
};

/* Not blk_co_set_backing(): what the image says of its backing stays true. */
static int co_put_below(BlkNode *image, BlkNode *filter, GError **error)
{
    BlkGraphChange *change = blk_graph_change_new();

    blk_co_drain_begin(image);      /* what nodes above could not hand down they keep */
    blk_graph_change_point(change, image->backing, filter);
    int ret = blk_graph_change_settle(change, error);
    blk_drain_end(image);
    blk_co_graph_change_free(change);
    return ret;
}

BlkNode *blk_co_hide_insert(BlkNode *image, const char *node_name, GError **error)
{
    BlkNode *filter = blk_co_open_filter(image->backing->node, &blk_driver_hide, node_name, error);

    if (filter && co_put_below(image, filter, error) < 0) {
        blk_co_unref(filter);
        return NULL;
    }
    return filter;
}

void blk_co_hide_remove(BlkNode *filter)
{
    if (filter) {
        blk_co_remove_filter(filter, NULL);
        blk_co_unref(filter);
    }
}
