/* SPDX-License-Identifier: MIT */
/*
 * cmd_image.c - commands about the image as a whole: truncate, length, map, alloc, info.
 */
#include "io/io.h"

#define SECTOR_SIZE 512

/* ---- truncate, length ---- */

static int parse_prealloc(const char *name, BlkPrealloc *prealloc)
{
    static const char *const names[] = { "off", "metadata", "falloc", "full" };

    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            *prealloc = (BlkPrealloc)i;
            return 0;
        }
    }
    tool_error("Invalid preallocation mode '%s'", name);
    return -EINVAL;
}

static int run_truncate(IoSession *session, const IoCommand *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    BlkPrealloc prealloc = BLK_PREALLOC_OFF;
    uint64_t length;
    int c, ret;

    optind = 0;
    while ((c = getopt(argc, argv, "m:")) != -1) {
        if (c != 'm') {
            return io_usage(self);
        }
        ret = parse_prealloc(optarg, &prealloc);
        if (ret < 0) {
            return ret;
        }
    }
    if (optind != argc - 1) {
        return io_usage(self);
    }
    ret = io_parse_number(argv[optind], &length);
    if (ret < 0) {
        return ret;
    }
    ret = blk_co_truncate(io_node(session), length, prealloc, &error);
    if (ret < 0) {
        tool_error("%s", error->message);
    }
    return ret;
}

static int run_length(IoSession *session, const IoCommand *self, int argc, char **argv)
{
    g_autofree char *text = io_size_text(blk_node_length(io_node(session)));

    printf("%s\n", text);
    return 0;
}

/* ---- map, alloc: what lies in this image and not in its backing ---- */

/* Whether the byte at @offset is allocated, and how many bytes from there are alike; at most @bytes. */
static int co_is_allocated(IoSession *session, uint64_t offset, uint64_t bytes, bool *allocated, uint64_t *alike)
{
    *alike = 0;
    while (*alike < bytes) {
        BlkStatus status;
        bool here;
        int ret = blk_co_block_status(io_node(session), offset + *alike, bytes - *alike, &status);

        if (ret < 0) {
            return ret;
        }
        here = status.flags & BLK_STATUS_ALLOCATED;
        if (*alike > 0 && here != *allocated) {
            break;
        }
        *allocated = here;
        *alike += status.bytes;
    }
    return 0;
}

static int run_map(IoSession *session, const IoCommand *self, int argc, char **argv)
{
    uint64_t length = blk_node_length(io_node(session));
    bool allocated = false;

    for (uint64_t offset = 0, n; offset < length; offset += n) {
        int ret = co_is_allocated(session, offset, length - offset, &allocated, &n);
        g_autofree char *size = NULL, *start = NULL;

        if (ret < 0) {
            tool_error("Failed to get allocation status at offset %" PRIu64 ": %s", offset, g_strerror(-ret));
            return ret;
        }
        size = io_size_text(n);
        start = io_size_text(offset);
        printf("%s (0x%" PRIx64 ") bytes %s allocated at offset %s (0x%" PRIx64 ")\n", size, n,
               allocated ? "   " : "not", start, offset);
    }
    return 0;
}

static int run_alloc(IoSession *session, const IoCommand *self, int argc, char **argv)
{
    uint64_t length = blk_node_length(io_node(session));
    uint64_t start, count = SECTOR_SIZE, sum = 0;
    g_autofree char *text = NULL;
    bool allocated = false;
    int ret = io_parse_number(argv[1], &start);

    if (ret == 0 && argc == 3) {
        ret = io_parse_number(argv[2], &count);
    }
    if (ret < 0) {
        return ret;
    }
    count = start < length ? MIN(count, length - start) : 0;
    for (uint64_t done = 0, n; done < count; done += n) {
        ret = co_is_allocated(session, start + done, count - done, &allocated, &n);
        if (ret < 0) {
            printf("is_allocated failed: %s\n", g_strerror(-ret));
            return ret;
        }
        sum += allocated ? n : 0;
    }
    text = io_size_text(start);
    printf("%" PRIu64 "/%" PRIu64 " bytes allocated at offset %s\n", sum, count, text);
    return 0;
}

/* ---- info ---- */

static int run_info(IoSession *session, const IoCommand *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *cluster = NULL, *state = NULL;
    BlkNode *node = io_node(session);
    BlkInfo info = { 0 };

    if (argc == 2) {
        node = blk_node_find(blk_node_context(node), argv[1]);
        if (!node) {
            tool_error("there is no node '%s'", argv[1]);
            return -ENOENT;
        }
    }
    int ret = blk_co_info(node, &info, &error);
    if (ret < 0) {
        tool_error("%s", error->message);
        return ret;
    }
    cluster = io_size_text(info.cluster_size);
    state = io_size_text(info.vm_state_offset);
    printf("format name: %s\n", blk_node_driver_name(node));
    printf("cluster size: %s\n", cluster);
    printf("vm state offset: %s\n", state);
    if (info.specific) {
        printf("Format specific information:\n");
        tool_print_members(info.specific, 1);
    }
    blk_info_clear(&info);
    return 0;
}

const IoCommand io_image_commands[] = {
    {
        .name = "truncate", .alias = "t", .min_args = 1, .max_args = 3, .needs_file = true, .writes = true,
        .args = "[-m prealloc_mode] off",
        .summary = "changes the length; new space reads as zeroes",
        .help = "Example: 'truncate -m falloc 1G' makes the image 1 GiB long and takes space for what is new.\n"
                " -m  off, metadata, falloc or full\n",
        .co_run = run_truncate,
    }, {
        .name = "length", .alias = "l", .needs_file = true,
        .summary = "prints the length",
        .co_run = run_length,
    }, {
        .name = "map", .needs_file = true,
        .summary = "prints which ranges the image holds itself",
        .co_run = run_map,
    }, {
        .name = "alloc", .alias = "a", .min_args = 1, .max_args = 2, .needs_file = true,
        .args = "offset [count]",
        .summary = "counts the bytes of a range that the image holds itself",
        .co_run = run_alloc,
    }, {
        .name = "info", .alias = "i", .max_args = 1, .needs_file = true,
        .args = "[node]",
        .summary = "prints format, cluster size and what the format tells about itself",
        .co_run = run_info,
    },
    { 0 },
};
