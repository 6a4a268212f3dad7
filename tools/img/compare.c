/* SPDX-License-Identifier: MIT */
/*
 * compare.c - blkstack-img compare.
 *
 * Exit status: 0 the same content, 1 not, above 1 it could not be found out.
 */
#include "img/img.h"

#include <inttypes.h>
#include <stdio.h>

#define BUFFER_BYTES    ((uint64_t)2 << 20)
#define REPORT_UNIT     ((uint64_t)512)         /* differences are reported by the start of their sector */

enum { STATUS_DIFFERENT = 1, STATUS_NOT_OPENED = 2, STATUS_NO_STATUS = 3, STATUS_NOT_READ = 4 };

typedef struct Side {
    BlkNode *node;
    uint8_t *buf;
    BlkStatus status;
    uint64_t offset, bytes;     /* of a read */
} Side;

typedef struct CompareArgs {
    ImgArgs common;
    const char *format2;
    bool strict;
} CompareArgs;

typedef struct Comparison {
    const CompareArgs *args;
    Side side[2];               /* the shorter one first */
    uint64_t length;            /* of the shorter */
    uint64_t total;             /* of the longer */
    ImgProgress progress;
} Comparison;

static bool parse_args(CompareArgs *args, int argc, char **argv)
{
    static const struct option long_options[] = {
        IMG_LONG_HELP, IMG_LONG_IMAGE_OPTS, IMG_LONG_FORCE_SHARE, IMG_LONG_END,
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

static void say(const Comparison *c, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void say(const Comparison *c, const char *format, ...)
{
    va_list args;

    if (!c->args->common.quiet) {
        va_start(args, format);
        vprintf(format, args);
        va_end(args);
        putchar('\n');
    }
}

static int differ(const Comparison *c, uint64_t offset)
{
    say(c, "Content mismatch at offset %" PRIu64 "!", offset / REPORT_UNIT * REPORT_UNIT);
    return STATUS_DIFFERENT;
}

/* ---- reading ---- */

static int read_side(void *opaque)
{
    Side *side = opaque;
    int ret = blk_co_pread(side->node, side->offset, side->bytes, side->buf, 0);

    if (ret < 0) {
        tool_error("Error while reading offset %" PRIu64 " of %s: %s", side->offset, blk_node_filename(side->node),
                   g_strerror(-ret));
    }
    return ret;
}

/* Reads the same range of those sides that must be looked at, all at once. */
static int read_sides(Comparison *c, const bool wanted[2], uint64_t offset, uint64_t bytes)
{
    BlkCoGroup group = BLK_CO_GROUP_INIT(2);

    for (unsigned i = 0; i < 2; i++) {
        if (wanted[i]) {
            c->side[i].offset = offset;
            c->side[i].bytes = bytes;
            if (blk_co_group_run(&group, read_side, &c->side[i]) < 0) {
                break;
            }
        }
    }
    return blk_co_group_wait(&group);
}

static uint64_t first_difference(const uint8_t *a, const uint8_t *b, uint64_t bytes)
{
    uint64_t i = 0;

    while (i < bytes && a[i] == b[i]) {
        i++;
    }
    return i;
}

static uint64_t first_nonzero(const uint8_t *a, uint64_t bytes)
{
    uint64_t i = 0;

    while (i < bytes && a[i] == 0) {
        i++;
    }
    return i;
}

/* Compares a range that is zero on those sides that need not be read. */
static int compare_range(Comparison *c, const bool read[2], uint64_t offset, uint64_t bytes)
{
    while (bytes > 0) {
        uint64_t now = MIN(bytes, BUFFER_BYTES), at;

        if (read_sides(c, read, offset, now) < 0) {
            return STATUS_NOT_READ;
        }
        if (read[0] && read[1]) {
            at = memcmp(c->side[0].buf, c->side[1].buf, now) == 0
                 ? now : first_difference(c->side[0].buf, c->side[1].buf, now);
        } else {
            const uint8_t *buf = c->side[read[0] ? 0 : 1].buf;

            at = blk_buffer_is_zero(buf, now) ? now : first_nonzero(buf, now);
        }
        if (at < now) {
            return differ(c, offset + at);
        }
        offset += now;
        bytes -= now;
        img_progress_report((double)offset / c->total, &c->progress);
    }
    return 0;
}

/* ---- extents ---- */

static int get_status(Side *side, uint64_t offset, uint64_t bytes)
{
    int ret = blk_co_block_status_above(side->node, NULL, offset, bytes, &side->status);

    if (ret < 0 || side->status.bytes == 0) {
        tool_error("Error while reading block status at offset %" PRIu64 " of %s: %s", offset,
                   blk_node_filename(side->node), g_strerror(ret < 0 ? -ret : EIO));
        return STATUS_NO_STATUS;
    }
    return 0;
}

static bool must_read(const Side *side)
{
    return !(side->status.flags & BLK_STATUS_ZERO);
}

/* Compares the extent at @offset; *bytes is how much was compared. */
static int compare_extent(Comparison *c, uint64_t offset, uint64_t *bytes)
{
    Side *a = &c->side[0], *b = &c->side[1];
    const unsigned content = BLK_STATUS_DATA | BLK_STATUS_ZERO | BLK_STATUS_ALLOCATED;

    if (get_status(a, offset, c->length - offset) != 0 || get_status(b, offset, c->length - offset) != 0) {
        return STATUS_NO_STATUS;
    }
    *bytes = MIN(a->status.bytes, b->status.bytes);
    if (c->args->strict && ((a->status.flags ^ b->status.flags) & content)) {
        say(c, "Strict mode: Offset %" PRIu64 " block status mismatch!", offset);
        return STATUS_DIFFERENT;
    }
    if (!must_read(a) && !must_read(b)) {
        img_progress_report((double)(offset + *bytes) / c->total, &c->progress);
        return 0;
    }
    return compare_range(c, (const bool[2]) { must_read(a), must_read(b) }, offset, *bytes);
}

/* What the longer image has more must be zeroes. */
static int compare_rest(Comparison *c)
{
    Side *longer = &c->side[1];
    int status = 0;

    for (uint64_t offset = c->length; offset < c->total && status == 0; offset += longer->status.bytes) {
        status = get_status(longer, offset, c->total - offset);
        if (status == 0 && must_read(longer)) {
            status = compare_range(c, (const bool[2]) { false, true }, offset, longer->status.bytes);
        }
    }
    return status;
}

static int compare_content(Comparison *c)
{
    uint64_t bytes;
    int status = 0;

    if (c->length != c->total && c->args->strict) {
        say(c, "Strict mode: Image size mismatch!");
        return STATUS_DIFFERENT;
    }
    for (uint64_t offset = 0; offset < c->length; offset += bytes) {
        status = compare_extent(c, offset, &bytes);
        if (status != 0) {
            return status;
        }
    }
    if (c->length != c->total) {
        say(c, "Warning: Image size mismatch!");
        status = compare_rest(c);
    }
    if (status == 0) {
        say(c, "Images are identical.");
    }
    return status;
}

static int compare_nodes(const CompareArgs *args, BlkNode *first, BlkNode *second)
{
    bool swap = blk_node_length(first) > blk_node_length(second);
    Comparison c = { .args = args };
    int status = STATUS_NOT_READ;

    c.side[0].node = swap ? second : first;
    c.side[1].node = swap ? first : second;
    for (unsigned i = 0; i < 2; i++) {
        c.side[i].buf = blk_buffer_try_alloc(c.side[i].node, BUFFER_BYTES);
    }
    c.length = blk_node_length(c.side[0].node);
    c.total = blk_node_length(c.side[1].node);
    if (c.side[0].buf && c.side[1].buf) {
        img_progress_begin(&c.progress, args->common.progress && !args->common.quiet);
        status = compare_content(&c);
        img_progress_end(&c.progress);
    } else {
        tool_error("no memory for two buffers of %" PRIu64 " bytes", BUFFER_BYTES);
    }
    blk_buffer_free(c.side[0].buf);
    blk_buffer_free(c.side[1].buf);
    return status;
}

int img_compare(BlkContext *ctx, int argc, char **argv)
{
    CompareArgs args = { .common.usage_status = 1 };
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
