/* SPDX-License-Identifier: MIT */
/*
 * info.c - blkstack-img info.
 *
 * Opens the image's own metadata only; with --backing-chain the chain as well, by the rules that hold for every use of it.
 * JSON members come in a fixed order.
 */
#include "img/img.h"

#include <inttypes.h>
#include <stdio.h>

typedef struct InfoArgs {
    ImgArgs common;
    bool chain;
} InfoArgs;

static bool parse_args(InfoArgs *args, int argc, char **argv)
{
    enum { OPTION_BACKING_CHAIN = IMG_OPTION_OWN };
    static const struct option long_options[] = {
        IMG_LONG_COMMON, IMG_LONG_FORMAT, IMG_LONG_OUTPUT, IMG_LONG_IMAGE_OPTS, IMG_LONG_FORCE_SHARE,
        { "backing-chain", no_argument, NULL, OPTION_BACKING_CHAIN },
        IMG_LONG_END,
    };
    int c;

    while ((c = img_next_option(&args->common, argc, argv, ":hf:U", long_options)) != -1) {
        if (c == IMG_STOP) {
            return false;
        }
        args->chain = true;
    }
    if (optind != argc - 1) {
        args->common.status = img_usage_error("Expecting one image file name");
        return false;
    }
    args->common.open.name = argv[optind];
    args->common.open.metadata_only = !args->chain;
    return img_args_valid(&args->common, 1);
}

/* ---- for people ---- */

static void print_backing(const BlkInfo *info)
{
    g_autofree char *name = tool_printable(info->backing_filename);

    printf("backing file: %s", name);
    if (!info->full_backing_filename) {
        printf(" (cannot determine actual path)");
    } else if (strcmp(info->backing_filename, info->full_backing_filename) != 0) {
        g_autofree char *path = tool_printable(info->full_backing_filename);

        printf(" (actual path: %s)", path);
    }
    putchar('\n');
    if (info->backing_format) {
        g_autofree char *format = tool_printable(info->backing_format);

        printf("backing file format: %s\n", format);
    }
}

static void print_image(BlkNode *node, const BlkInfo *info)
{
    g_autofree char *length = tool_size_text(blk_node_length(node));
    g_autofree char *allocated = info->has_allocated ? tool_size_text(info->allocated_bytes) : g_strdup("unavailable");

    printf("image: %s\nfile format: %s\nvirtual size: %s (%" PRIu64 " bytes)\ndisk size: %s\n", blk_node_filename(node),
           blk_node_driver_name(node), length, blk_node_length(node), allocated);
    if (info->encrypted) {
        printf("encrypted: yes\n");
    }
    if (info->cluster_size) {
        printf("cluster_size: %u\n", info->cluster_size);
    }
    if (info->dirty) {
        printf("cleanly shut down: no\n");
    }
    if (info->backing_filename) {
        print_backing(info);
    }
    if (info->snapshots && json_array_get_length(info->snapshots) > 0) {
        img_print_snapshots(info->snapshots);
    }
    if (info->specific) {
        printf("Format specific information:\n");
        tool_print_members(info->specific, 1);
    }
}

/* ---- the chain ---- */

static int add_image(BlkNode *node, const InfoArgs *args, JsonArray *images)
{
    GError *error = NULL;
    BlkInfo info = { 0 };

    if (blk_co_info(node, &info, &error) < 0) {
        g_prefix_error(&error, "Could not get information about '%s': ", blk_node_filename(node));
        tool_report(error);
        blk_info_clear(&info);
        return 1;
    }
    if (args->common.json) {
        json_array_add_object_element(images, tool_image_to_json(node, &info));
    } else {
        print_image(node, &info);
    }
    blk_info_clear(&info);
    return 0;
}

static int show_images(BlkNode *node, void *opaque)
{
    const InfoArgs *args = opaque;
    g_autoptr(JsonArray) images = json_array_new();
    g_autoptr(JsonNode) root = NULL;
    int status = add_image(node, args, images);

    while (status == 0 && args->chain && (node = blk_node_backing(node)) != NULL) {
        if (!args->common.json) {
            putchar('\n');
        }
        status = add_image(node, args, images);
    }
    if (status == 0 && args->common.json) {
        root = args->chain ? json_node_init_array(json_node_alloc(), images)
                           : json_node_copy(json_array_get_element(images, 0));
        img_print_json(root);
    }
    return status;
}

int img_info(BlkContext *ctx, int argc, char **argv)
{
    InfoArgs args = { .chain = false };

    return parse_args(&args, argc, argv) ? img_co_on_image(ctx, &args.common, show_images, &args) : args.common.status;
}
