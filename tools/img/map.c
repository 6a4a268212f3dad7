/* SPDX-License-Identifier: MIT */
/*
 * map.c - blkstack-img map: which file holds which part of the content, through the backing chain.
 */
#include "img/img.h"

#include <inttypes.h>
#include <stdio.h>

typedef struct MapArgs {
    ImgArgs common;
    uint64_t start, length;
} MapArgs;

typedef struct MapEntry {
    uint64_t start;
    BlkStatus status;
} MapEntry;

static bool parse_args(MapArgs *args, int argc, char **argv)
{
    static const struct option long_options[] = {
        IMG_LONG_COMMON, IMG_LONG_FORMAT, IMG_LONG_OUTPUT, IMG_LONG_IMAGE_OPTS, IMG_LONG_FORCE_SHARE,
        { "start-offset", required_argument, NULL, 's' },
        { "max-length", required_argument, NULL, 'l' },
        IMG_LONG_END,
    };
    int c;

    args->common.status = 1;
    while ((c = img_next_option(&args->common, argc, argv, ":f:s:l:hU", long_options)) != -1) {
        if (c == IMG_STOP
            || (c == 's' && !img_parse_size("start offset", optarg, 0, INT64_MAX, &args->start))
            || (c == 'l' && !img_parse_size("max length", optarg, 0, INT64_MAX, &args->length))) {
            return false;
        }
    }
    if (optind != argc - 1) {
        args->common.status = img_usage_error("Expecting one image file name");
        return false;
    }
    args->common.open.name = argv[optind];
    return img_args_valid(&args->common, 1);
}

static bool has(const BlkStatus *status, unsigned flag)
{
    return (status->flags & flag) != 0;
}

static const char *truth(bool value)
{
    return value ? "true" : "false";
}

/* Whether @next goes on where @entry ends, with the same to say. */
static bool continues(const MapEntry *entry, const MapEntry *next)
{
    const unsigned relevant = BLK_STATUS_DATA | BLK_STATUS_ZERO | BLK_STATUS_ALLOCATED | BLK_STATUS_OFFSET;
    const BlkStatus *a = &entry->status, *b = &next->status;

    return ((a->flags ^ b->flags) & relevant) == 0 && a->depth == b->depth
           && (!has(a, BLK_STATUS_OFFSET) || (a->file == b->file && a->host_offset + a->bytes == b->host_offset));
}

static int print_human(const MapEntry *entry)
{
    const BlkStatus *status = &entry->status;

    if (!has(status, BLK_STATUS_DATA) || has(status, BLK_STATUS_ZERO)) {
        return 0;
    }
    if (!has(status, BLK_STATUS_OFFSET)) {
        tool_error("File contains external, encrypted or compressed clusters.");
        return 1;
    }
    printf("%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64 "%s\n", entry->start, status->bytes, status->host_offset,
           blk_node_filename(status->file));
    return 0;
}

static void print_json(const MapEntry *entry, bool first)
{
    const BlkStatus *status = &entry->status;

    printf("%s{ \"start\": %" PRIu64 ", \"length\": %" PRIu64 ", \"depth\": %u, \"present\": %s, \"zero\": %s, "
           "\"data\": %s", first ? "[" : ",\n", entry->start, status->bytes, status->depth,
           truth(has(status, BLK_STATUS_ALLOCATED)), truth(has(status, BLK_STATUS_ZERO)),
           truth(has(status, BLK_STATUS_DATA)));
    if (has(status, BLK_STATUS_OFFSET)) {
        printf(", \"offset\": %" PRIu64, status->host_offset);
    }
    putchar('}');
}

static int print_entry(const MapArgs *args, const MapEntry *entry, bool first)
{
    if (!args->common.json) {
        return print_human(entry);
    }
    print_json(entry, first);
    return 0;
}

static int next_entry(BlkNode *node, uint64_t offset, uint64_t end, MapEntry *entry)
{
    int ret = blk_co_block_status_above(node, NULL, offset, end - offset, &entry->status);

    entry->start = offset;
    if (ret < 0) {
        tool_error("Failed to read image metadata: %s", g_strerror(-ret));
        return 1;
    }
    return 0;
}

static int map_node(BlkNode *node, void *opaque)
{
    const MapArgs *args = opaque;
    uint64_t length = blk_node_length(node);
    uint64_t end = args->start < length ? args->start + MIN(args->length, length - args->start) : args->start;
    MapEntry entry = { .start = args->start }, next;
    bool first = true;

    if (!args->common.json) {
        printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
    }
    for (uint64_t offset = args->start; offset < end; offset += next.status.bytes) {
        if (next_entry(node, offset, end, &next) != 0) {
            return 1;
        }
        if (entry.status.bytes > 0 && continues(&entry, &next)) {
            entry.status.bytes += next.status.bytes;
            continue;
        }
        if (entry.status.bytes > 0) {
            if (print_entry(args, &entry, first) != 0) {
                return 1;
            }
            first = false;
        }
        entry = next;
    }
    if (print_entry(args, &entry, first) != 0) {
        return 1;
    }
    if (args->common.json) {
        puts("]");
    }
    return 0;
}

int img_map(BlkContext *ctx, int argc, char **argv)
{
    MapArgs args = { .length = INT64_MAX };

    return parse_args(&args, argc, argv) ? img_co_on_image(ctx, &args.common, map_node, &args) : args.common.status;
}
