/* SPDX-License-Identifier: MIT */
/*
 * test_compare.c - the first difference is found, in whatever order reads end, and what is known is not read.
 */
#include "stack.h"

#include "jobs/compare.h"

#define PIECE (2 << 20)
#define PIECES 8
#define LENGTH (PIECES * PIECE)

/* A disk in memory. Its status is written down: one letter for each piece, 'd'ata, 'z'ero, '-' nothing of its own. */
typedef struct Side {
    char *map;
    uint8_t *data;
    uint64_t slow_below;            /* reads before it take longer than all others */
    uint64_t fail_at, no_status_at; /* UINT64_MAX: nowhere */
    unsigned in_flight, max_in_flight;
    uint64_t bytes_read;
    uint64_t read_end;
} Side;

static const BlkOption side_options[] = {
    { "map", BLK_OPTION_STRING, "letters", .required = true },
    { "length", BLK_OPTION_SIZE, "bytes" },
    { NULL },
};

static int side_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    Side *side = node->opaque;

    side->map = g_strdup(blk_options_string(options, "map"));
    node->length = blk_options_has(options, "length") ? blk_options_uint(options, "length") : strlen(side->map) * PIECE;
    side->data = g_malloc0(strlen(side->map) * PIECE);
    side->fail_at = side->no_status_at = UINT64_MAX;
    return 0;
}

static void side_co_close(BlkNode *node)
{
    Side *side = node->opaque;

    g_free(side->map);
    g_free(side->data);
}

static int side_co_preadv(BlkNode *node, BlkRequest *req)
{
    Side *side = node->opaque;

    side->bytes_read += req->bytes;
    side->read_end = MAX(side->read_end, req->offset + req->bytes);
    side->max_in_flight = MAX(side->max_in_flight, ++side->in_flight);
    if (req->offset < side->slow_below) {
        blk_co_sleep_ns(30 * 1000 * 1000);
    } else {
        blk_co_reschedule();
    }
    side->in_flight--;
    if (mem_covers(req, side->fail_at)) {
        return -EIO;
    }
    blk_iov_from_buf(req->iov, side->data + req->offset, req->bytes);
    return 0;
}

static int side_co_block_status(BlkNode *node, uint64_t offset, uint64_t bytes, BlkStatus *status)
{
    Side *side = node->opaque;
    char letter = side->map[offset / PIECE];
    uint64_t end = offset / PIECE + 1;

    if (offset == side->no_status_at) {
        return -ENOMEM;
    }
    while (side->map[end] == letter && side->no_status_at != end * PIECE) {
        end++;
    }
    status->bytes = end * PIECE - offset;
    status->flags = letter == 'd' ? BLK_STATUS_DATA | BLK_STATUS_ALLOCATED
                    : letter == 'z' ? BLK_STATUS_ZERO | BLK_STATUS_ALLOCATED : BLK_STATUS_ZERO;
    return 0;
}

static const BlkDriver side_driver = {
    .name = "side",
    .kind = BLK_PROTOCOL,
    .options = side_options,
    .instance_size = sizeof(Side),
    .co_open = side_co_open,
    .co_close = side_co_close,
    .co_preadv = side_co_preadv,
    .co_block_status = side_co_block_status,
};

typedef struct Pair {
    BlkCompare compare;
    Side *side[2];
    double progress;
} Pair;

static void note_progress(double fraction, void *opaque)
{
    Pair *p = opaque;

    ck_assert(fraction >= p->progress && fraction <= 1);
    p->progress = fraction;
}

static void open_pair(BlkContext *ctx, Pair *p, const char *a, const char *b)
{
    const char *trees[] = { a, b };

    if (!blk_driver_find(ctx, "side")) {
        ck_assert_int_eq(blk_driver_register(ctx, &side_driver, NULL), 0);
    }
    *p = (Pair) { .compare = { .workers = 4, .progress = note_progress } };
    for (unsigned i = 0; i < 2; i++) {
        p->compare.node[i] = open_stack(ctx, trees[i]);
        p->side[i] = p->compare.node[i]->opaque;
    }
}

static void close_pair(Pair *p)
{
    blk_co_unref(p->compare.node[0]);
    blk_co_unref(p->compare.node[1]);
}

static void expect(Pair *p, BlkFindingKind kind, uint64_t offset, const BlkNode *node, int ret)
{
    const BlkFinding *f = &p->compare.finding;

    p->progress = 0;
    p->compare.opaque = p;
    ck_assert_int_eq(blk_co_compare(&p->compare, NULL), 0);
    ck_assert_int_eq(f->kind, kind);
    ck_assert_uint_eq(f->offset, offset);
    ck_assert_ptr_eq(f->node, node);
    ck_assert_int_eq(f->ret, ret);
}

#define DATA "{'driver':'side','map':'dddddddd'}"

static int first_of_several(void *ctx)
{
    Pair p;

    open_pair(ctx, &p, DATA, DATA);
    expect(&p, BLK_FINDING_NONE, 0, NULL, 0);
    ck_assert(p.progress == 1);
    ck_assert_uint_eq(p.side[0]->bytes_read, LENGTH);
    ck_assert_uint_gt(p.side[0]->max_in_flight, 1);

    /* The first piece ends last; what is in the others is seen before. */
    p.side[0]->slow_below = PIECE;
    p.side[1]->data[1000] = 1;
    p.side[1]->data[PIECE] = 1;
    p.side[0]->data[2 * PIECE] = 1;
    expect(&p, BLK_FINDING_CONTENT, 1000, NULL, 0);
    p.side[1]->data[1000] = 0;
    expect(&p, BLK_FINDING_CONTENT, PIECE, NULL, 0);

    /* An error that comes later than a difference is none, and the other way round. */
    p.side[1]->fail_at = 2 * PIECE;
    p.side[0]->slow_below = 2 * PIECE;
    expect(&p, BLK_FINDING_CONTENT, PIECE, NULL, 0);
    p.side[1]->fail_at = 5000;
    p.side[0]->data[3] = 1;                 /* in the same piece, an error counts, wherever it is */
    expect(&p, BLK_FINDING_NOT_READ, 0, p.compare.node[1], -EIO);
    p.side[1]->fail_at = PIECE - 1;
    expect(&p, BLK_FINDING_NOT_READ, 0, p.compare.node[1], -EIO);
    p.side[0]->fail_at = 6000;
    expect(&p, BLK_FINDING_NOT_READ, 0, p.compare.node[0], -EIO);
    close_pair(&p);
    return 0;
}

/* Behind the first finding hardly anything is read. */
static int stops(void *ctx)
{
    Pair p;

    open_pair(ctx, &p, "{'driver':'side','map':'dddddddddddddddddddddddddddddddd'}",
              "{'driver':'side','map':'dddddddddddddddddddddddddddddddd'}");
    p.side[1]->data[0] = 1;
    expect(&p, BLK_FINDING_CONTENT, 0, NULL, 0);
    ck_assert_uint_le(p.side[0]->read_end, 16 * PIECE);
    close_pair(&p);
    return 0;
}

static int status_errors(void *ctx)
{
    Pair p;

    open_pair(ctx, &p, DATA, DATA);
    p.side[0]->no_status_at = 2 * PIECE;
    p.side[0]->slow_below = PIECE;
    expect(&p, BLK_FINDING_NO_STATUS, 2 * PIECE, p.compare.node[0], -ENOMEM);
    p.side[1]->data[PIECE / 2] = 7;
    expect(&p, BLK_FINDING_CONTENT, PIECE / 2, NULL, 0);
    close_pair(&p);
    return 0;
}

static int zeroes_are_not_read(void *ctx)
{
    Pair p;

    open_pair(ctx, &p, "{'driver':'side','map':'zz--ddzz'}", "{'driver':'side','map':'z-z-dzdz'}");
    expect(&p, BLK_FINDING_NONE, 0, NULL, 0);
    ck_assert_uint_eq(p.side[0]->bytes_read, 2 * PIECE);
    ck_assert_uint_eq(p.side[1]->bytes_read, 2 * PIECE);
    p.side[0]->data[0] = 1;             /* not looked at */
    p.side[1]->data[7 * PIECE - 1] = 1;
    expect(&p, BLK_FINDING_CONTENT, 7 * PIECE - 1, NULL, 0);
    p.side[0]->data[5 * PIECE] = 1;
    expect(&p, BLK_FINDING_CONTENT, 5 * PIECE, NULL, 0);
    close_pair(&p);
    return 0;
}

static int strict(void *ctx)
{
    Pair p;

    open_pair(ctx, &p, "{'driver':'side','map':'dddzzzdd'}", "{'driver':'side','map':'dddz-zdd'}");
    p.compare.strict = true;
    p.side[0]->slow_below = LENGTH;
    expect(&p, BLK_FINDING_STATUS, 4 * PIECE, NULL, 0);
    p.side[0]->data[3 * PIECE - 1] = 1;
    expect(&p, BLK_FINDING_CONTENT, 3 * PIECE - 1, NULL, 0);
    p.side[0]->data[3 * PIECE - 1] = 0;
    p.compare.strict = false;
    expect(&p, BLK_FINDING_NONE, 0, NULL, 0);
    close_pair(&p);
    return 0;
}

static void check_lengths(BlkContext *ctx, unsigned longer)
{
    static const char *const trees[] = { "{'driver':'side','map':'ddd','length':5000000}",
                                         "{'driver':'side','map':'dddzdzd'}" };
    Pair p;
    Side *l;

    open_pair(ctx, &p, trees[!longer], trees[longer]);
    l = p.side[longer];
    expect(&p, BLK_FINDING_NONE, 0, NULL, 0);
    ck_assert(p.progress == 1);
    p.compare.strict = true;                /* as far as both reach */
    expect(&p, BLK_FINDING_NONE, 0, NULL, 0);
    l->slow_below = PIECE;
    l->data[6 * PIECE + 5] = 1;
    expect(&p, BLK_FINDING_CONTENT, 6 * PIECE + 5, NULL, 0);
    l->data[5000000] = 1;
    expect(&p, BLK_FINDING_CONTENT, 5000000, NULL, 0);
    l->data[4999999] = 1;
    expect(&p, BLK_FINDING_CONTENT, 4999999, NULL, 0);
    l->data[4999999] = l->data[5000000] = 0;
    l->fail_at = 4 * PIECE + 1;
    expect(&p, BLK_FINDING_NOT_READ, 4 * PIECE, p.compare.node[longer], -EIO);
    close_pair(&p);
}

static int lengths(void *ctx)
{
    check_lengths(ctx, 0);
    check_lengths(ctx, 1);
    return 0;
}

/* A format whose data lies in "file" at the same place: 'd'; or one piece behind it: 'o'; or is 'z'ero. */
static const BlkOption place_options[] = {
    { "file", BLK_OPTION_NODE, "where the data lies" },
    { "map", BLK_OPTION_STRING, "letters", .required = true },
    { NULL },
};

static int place_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    *(char **)node->opaque = g_strdup(blk_options_string(options, "map"));
    if (!blk_co_open_child(node, options, "file", BLK_ROLE_IMAGE, error)) {
        return -EINVAL;
    }
    node->length = node->file->node->length;
    return 0;
}

static void place_co_close(BlkNode *node)
{
    g_free(*(char **)node->opaque);
}

static int place_co_block_status(BlkNode *node, uint64_t offset, uint64_t bytes, BlkStatus *status)
{
    char letter = (*(char **)node->opaque)[offset / PIECE];

    status->bytes = PIECE - offset % PIECE;
    status->file = node->file->node;
    status->host_offset = offset + (letter == 'o' ? PIECE : 0);
    status->flags = (letter == 'z' ? BLK_STATUS_ZERO : BLK_STATUS_DATA) | BLK_STATUS_ALLOCATED | BLK_STATUS_OFFSET;
    return 0;
}

static int place_co_preadv(BlkNode *node, BlkRequest *req)
{
    char letter = (*(char **)node->opaque)[req->offset / PIECE];

    if (letter == 'z') {
        blk_iov_zero(req->iov, req->bytes);
        return 0;
    }
    return blk_co_preadv(node->file->node, req->offset + (letter == 'o' ? PIECE : 0), req->bytes, req->iov, 0);
}

static const BlkDriver place_driver = {
    .name = "place",
    .kind = BLK_FORMAT,
    .options = place_options,
    .instance_size = sizeof(char *),
    .co_open = place_co_open,
    .co_close = place_co_close,
    .co_preadv = place_co_preadv,
    .co_block_status = place_co_block_status,
};

static const BlkDriver veil_driver = { .name = "veil", .kind = BLK_FILTER };

/* Two formats over one file: what lies at the same place of it is not read, unless a filter might change it. */
static int same_place(void *ctx)
{
    BlkCompare compare = { .workers = 4 };
    BlkNode *file;
    Side *side;

    ck_assert_int_eq(blk_driver_register(ctx, &side_driver, NULL), 0);
    ck_assert_int_eq(blk_driver_register(ctx, &place_driver, NULL), 0);
    ck_assert_int_eq(blk_driver_register(ctx, &veil_driver, NULL), 0);
    file = open_stack(ctx, "{'driver':'side','node-name':'f','map':'dddddddd'}");
    side = file->opaque;
    compare.node[0] = open_stack(ctx, "{'driver':'place','read-only':true,'file':'f','map':'ddddzddd'}");
    compare.node[1] = open_stack(ctx, "{'driver':'place','read-only':true,'file':'f','map':'ddddddod'}");
    ck_assert_int_eq(blk_co_compare(&compare, NULL), 0);
    ck_assert_int_eq(compare.finding.kind, BLK_FINDING_NONE);
    ck_assert_uint_eq(side->bytes_read, 3 * PIECE);     /* one side's zeroes; two places */
    side->data[4 * PIECE + 9] = 1;          /* one side hides it */
    ck_assert_int_eq(blk_co_compare(&compare, NULL), 0);
    ck_assert_uint_eq(compare.finding.offset, 4 * PIECE + 9);
    blk_co_unref(compare.node[1]);

    compare.node[1] = open_stack(ctx, "{'driver':'veil','read-only':true,'file':{'driver':'place','read-only':true,"
                                      "'file':'f','map':'dddddddd'}}");
    side->data[4 * PIECE + 9] = 0;
    side->bytes_read = 0;
    ck_assert_int_eq(blk_co_compare(&compare, NULL), 0);
    ck_assert_uint_eq(side->bytes_read, (2 * PIECES - 1) * PIECE);
    blk_co_unref(compare.node[1]);
    blk_co_unref(compare.node[0]);
    blk_co_unref(file);
    return 0;
}

START_TEST(finds_the_first) { run_test(first_of_several); } END_TEST
START_TEST(stops_soon) { run_test(stops); } END_TEST
START_TEST(reports_status_errors) { run_test(status_errors); } END_TEST
START_TEST(does_not_read_zeroes) { run_test(zeroes_are_not_read); } END_TEST
START_TEST(is_strict) { run_test(strict); } END_TEST
START_TEST(of_other_lengths) { run_test(lengths); } END_TEST
START_TEST(does_not_read_the_same_place) { run_test(same_place); } END_TEST

BLK_TEST_MAIN("compare", finds_the_first, stops_soon, reports_status_errors, does_not_read_zeroes, is_strict,
              of_other_lengths, does_not_read_the_same_place)
