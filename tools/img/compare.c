/* SPDX-License-Identifier: MIT */
/*
 * compare.c - blkstack-img compare.
 *
 * Exit status: 0 the same content, 1 not, above 1 it could not be found out.
 */
#include "img/img.h"

#include "jobs/compare.h"

#include <inttypes.h>
#include <stdio.h>

#define REPORT_UNIT     ((uint64_t)512)         /* differences are reported by the start of their sector */
#define WORKERS         4

enum { STATUS_DIFFERENT = 1, STATUS_NOT_OPENED = 2, STATUS_NO_STATUS = 3, STATUS_NOT_READ = 4 };

typedef struct CompareArgs {
    ImgArgs common;
    const char *format2;
    bool strict;
} CompareArgs;

static bool parse_args(CompareArgs *args, int argc, char **argv)
{
    static const struct option long_options[] = {
        IMG_LONG_COMMON, IMG_LONG_IMAGE_OPTS, IMG_LONG_FORCE_SHARE, IMG_LONG_END,
    };
    int c;

    while ((c = img_next_option(&args->common, argc, argv, ":hf:F:T:pqsU", long_options)) != -1) {
        if (c == IMG_STOP) {
            return false;
        }
        if (c == 'F') {
            args->format2 = optarg;
        } else {
            args->strict = true;
        }
    }
    if (optind != argc - 2) {
        args->common.status = img_usage_error("Expecting two image file names");
        return false;
    }
    return img_args_valid(&args->common, STATUS_NOT_OPENED);
}

static void say(const CompareArgs *args, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void say(const CompareArgs *args, const char *format, ...)
{
    va_list list;

    if (!args->common.quiet) {
        va_start(list, format);
        vprintf(format, list);
        va_end(list);
        putchar('\n');
    }
}

/* Returns: the exit status. */
static int report(const CompareArgs *args, const BlkFinding *f)
{
    switch (f->kind) {
    case BLK_FINDING_NONE:
        say(args, "Images are identical.");
        return 0;
    case BLK_FINDING_CONTENT:
        say(args, "Content mismatch at offset %" PRIu64 "!", f->offset / REPORT_UNIT * REPORT_UNIT);
        return STATUS_DIFFERENT;
    case BLK_FINDING_STATUS:
        say(args, "Strict mode: Offset %" PRIu64 " block status mismatch!", f->offset);
        return STATUS_DIFFERENT;
    case BLK_FINDING_NO_STATUS:
        tool_error("Error while reading block status at offset %" PRIu64 " of %s: %s", f->offset,
                   blk_node_filename(f->node), g_strerror(-f->ret));
        return STATUS_NO_STATUS;
    case BLK_FINDING_NOT_READ:
        tool_error("Error while reading offset %" PRIu64 " of %s: %s", f->offset, blk_node_filename(f->node),
                   g_strerror(-f->ret));
        return STATUS_NOT_READ;
    }
    g_assert_not_reached();
}

static int compare_nodes(const CompareArgs *args, BlkNode *first, BlkNode *second)
{
    uint64_t lengths[] = { blk_node_length(first), blk_node_length(second) };
    ImgProgress progress = { 0 };
    BlkCompare compare = {
        .node = { first, second },
        .strict = args->strict,
        .workers = WORKERS,
        .progress = img_progress_report,
        .opaque = &progress,
    };
    GError *error = NULL;
    int ret;

    if (args->strict && lengths[0] != lengths[1]) {
        say(args, "Strict mode: Image size mismatch!");
        return STATUS_DIFFERENT;
    }
    img_progress_begin(&progress, args->common.progress && !args->common.quiet);
    ret = blk_co_compare(&compare, &error);
    img_progress_end(&progress);
    if (ret < 0) {
        tool_report(error);
        return STATUS_NOT_READ;
    }
    if (lengths[0] != lengths[1]
        && (compare.finding.kind == BLK_FINDING_NONE || compare.finding.offset >= MIN(lengths[0], lengths[1]))) {
        say(args, "Warning: Image size mismatch!");
    }
    return report(args, &compare.finding);
}

int img_compare(BlkContext *ctx, int argc, char **argv)
{
    CompareArgs args = { .common.usage_status = 1, .common.object_status = STATUS_NOT_OPENED };
    BlkChild *users[2] = { NULL, NULL };
    GError *error = NULL;
    int status = STATUS_NOT_OPENED;

    if (!parse_args(&args, argc, argv)) {
        return args.common.status;
    }
    args.common.open.name = argv[optind];
    users[0] = tool_co_open(ctx, &args.common.open, &error);
    if (users[0]) {
        args.common.open.name = argv[optind + 1];
        args.common.open.format = args.common.open.image_opts ? NULL : args.format2;
        users[1] = tool_co_open(ctx, &args.common.open, &error);
    }
    if (users[1]) {
        status = compare_nodes(&args, blk_child_node(users[0]), blk_child_node(users[1]));
    } else {
        tool_report(error);
    }
    blk_co_detach(users[1]);
    blk_co_detach(users[0]);
    return status;
}
