/* SPDX-License-Identifier: MIT */
/*
 * random_requests.c - random requests, alone and concurrent, and what the guest may see afterwards.
 *
 * A discard is a hint: each sector may keep its bytes, or read as zeroes, or (version 2) show the backing file again;
 * the model takes over what is read back. Concurrent requests are of two kinds: disjoint in bytes but sharing clusters,
 * for which the model stays exact; and whole sectors that overlap, after which each sector must be what one of its
 * writers wrote, while a concurrent read sees old and new bytes.
 */
#include "random_image.h"

#define MAX_BATCH 16

uint64_t rng_next(Rng *rng)
{
    uint64_t z = rng->state += 0x9e3779b97f4a7c15;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

uint64_t rng_below(Rng *rng, uint64_t limit)
{
    return limit ? rng_next(rng) % limit : 0;
}

uint64_t rng_range(Rng *rng, uint64_t min, uint64_t max)
{
    return min + rng_below(rng, max - min + 1);
}

bool rng_percent(Rng *rng, unsigned percent)
{
    return rng_below(rng, 100) < percent;
}

static void fill_random(Rng *rng, uint8_t *buf, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t word = rng_next(rng);

        memcpy(buf + i, &word, MIN(bytes - i, 8));
    }
}

static void fill_text(Rng *rng, uint8_t *buf, size_t bytes)
{
    char word[64];
    int n = g_snprintf(word, sizeof(word), "line %016" PRIx64 " of a file. ", rng_next(rng));

    for (size_t i = 0; i < bytes; i++) {
        buf[i] = word[i % n];
    }
}

void rng_fill(Rng *rng, uint8_t *buf, size_t bytes)
{
    switch (rng_below(rng, 8)) {
    case 0:
        memset(buf, 0, bytes);
        break;
    case 1:
    case 2:
        fill_random(rng, buf, bytes);
        break;
    case 3:     /* half of it compresses */
        fill_text(rng, buf, bytes);
        fill_random(rng, buf, bytes / 2);
        break;
    case 4:
        memset(buf, rng_range(rng, 1, 255), bytes);
        break;
    default:
        fill_text(rng, buf, bytes);
        break;
    }
}

/* ---- ranges ---- */

static void pick_range(Sequence *seq, uint64_t *offset, uint64_t *bytes)
{
    const ImageConfig *config = &seq->config;
    Rng *rng = &seq->rng;
    uint64_t cluster = config->cluster_size, clusters = (config->size + cluster - 1) / cluster, border, reach;

    switch (rng_below(rng, 6)) {
    case 0:     /* small, any alignment */
        *offset = rng_below(rng, config->size);
        *bytes = rng_range(rng, 1, 5000);
        break;
    case 1:     /* sectors */
        *offset = rng_below(rng, config->size / SECTOR_SIZE) * SECTOR_SIZE;
        *bytes = rng_range(rng, 1, 16) * SECTOR_SIZE;
        break;
    case 2:     /* across a cluster border */
        border = rng_below(rng, clusters) * cluster;
        reach = MIN(cluster, 8192);
        *offset = border - rng_range(rng, 0, MIN(border, reach));
        *bytes = border - *offset + rng_range(rng, 1, reach);
        break;
    case 3:     /* the end */
        *offset = config->size - rng_range(rng, 1, MIN(config->size, MIN(2 * cluster, 200000)));
        *bytes = config->size - *offset;
        break;
    case 4:     /* many small clusters */
        *offset = rng_below(rng, config->size);
        *bytes = rng_range(rng, 1, 200000);
        break;
    default:    /* whole clusters */
        *offset = rng_below(rng, clusters) * cluster;
        *bytes = rng_range(rng, 1, cluster > 65536 ? 2 : 5) * cluster;
        break;
    }
    *bytes = MIN(*bytes, config->size - *offset);
}

/* ---- one request ---- */

typedef enum Kind { KIND_READ, KIND_WRITE, KIND_ZERO, KIND_DISCARD, KIND_FLUSH } Kind;
static const char *const kind_names[] = { "read", "write", "zero", "discard", "flush" };

typedef struct Request {
    Sequence *seq;
    Kind kind;
    uint64_t offset, bytes;
    unsigned flags;
    uint8_t *buf;               /* reads: what came; writes: what is to be there */
    int ret;
} Request;

static void request_clear(Request *req)
{
    blk_buffer_free(req->buf);
    req->buf = NULL;
}

static void request_init(Request *req, Sequence *seq, Kind kind, uint64_t offset, uint64_t bytes)
{
    Rng *rng = &seq->rng;

    *req = (Request){ .seq = seq, .kind = kind, .offset = offset, .bytes = bytes };
    if (kind == KIND_READ || kind == KIND_WRITE) {
        req->buf = blk_buffer_try_alloc(sequence_node(seq), MAX(bytes, 1));
        g_assert(req->buf);
    }
    if (kind == KIND_WRITE) {
        rng_fill(rng, req->buf, bytes);
    }
    if ((kind == KIND_WRITE || kind == KIND_ZERO) && rng_percent(rng, 8)) {
        req->flags |= BLK_REQ_FUA;
    }
    if (kind == KIND_ZERO && rng_percent(rng, 50)) {
        req->flags |= BLK_REQ_UNMAP;
    }
    sequence_log(seq, "  %s %" PRIu64 " %" PRIu64 " flags %u", kind_names[kind], offset, bytes, req->flags);
}

static Kind pick_kind(Rng *rng)
{
    unsigned n = rng_below(rng, 100);

    return n < 20 ? KIND_READ : n < 70 ? KIND_WRITE : n < 84 ? KIND_ZERO : n < 95 ? KIND_DISCARD : KIND_FLUSH;
}

/* The bitmap lies below the filter, which passes on what changes something, in whole clusters. */
static void note_change(const Request *req)
{
    const Sequence *seq = req->seq;

    if (req->kind == KIND_WRITE || req->kind == KIND_ZERO || req->kind == KIND_DISCARD) {
        bitmap_note(req->seq, req->offset, req->bytes, req->kind == KIND_WRITE ||
                    (!seq->filtered && (req->kind == KIND_ZERO || seq->config.unmap)));
    }
}

static int request_co_send(void *opaque)
{
    Request *req = opaque;
    BlkNode *node = sequence_node(req->seq);

    switch (req->kind) {
    case KIND_READ:
        req->ret = blk_co_pread(node, req->offset, req->bytes, req->buf, 0);
        break;
    case KIND_WRITE:
        req->ret = blk_co_pwrite(node, req->offset, req->bytes, req->buf, req->flags);
        break;
    case KIND_ZERO:
        req->ret = blk_co_pwrite_zeroes(node, req->offset, req->bytes, req->flags);
        break;
    case KIND_DISCARD:
        req->ret = blk_co_discard(node, req->offset, req->bytes);
        break;
    case KIND_FLUSH:
        req->ret = blk_co_flush(node);
        break;
    }
    note_change(req);
    return 0;
}

/* ---- what must be there afterwards ---- */

static int fail_difference(Sequence *seq, const char *what, const uint8_t *got, uint64_t offset, uint64_t bytes)
{
    const uint8_t *want = seq->model + offset;
    uint64_t i = 0, last = bytes - 1;

    while (got[i] == want[i]) {
        i++;
    }
    while (got[last] == want[last]) {
        last--;
    }
    return sequence_fail(seq, "%s: bytes %" PRIu64 "..%" PRIu64 " differ: %02x instead of %02x first", what, offset + i,
                         offset + last, got[i], want[i]);
}

int sequence_co_compare(Sequence *seq, uint64_t offset, uint64_t bytes)
{
    uint64_t end = offset + bytes, piece;

    for (; offset < end; offset += piece) {
        g_autofree uint8_t *buf = NULL;
        int ret;

        piece = rng_range(&seq->rng, 1, 2 << 20);
        piece = MIN(piece, end - offset);
        buf = g_malloc(piece);
        ret = blk_co_pread(sequence_node(seq), offset, piece, buf, 0);
        if (ret < 0) {
            return sequence_fail(seq, "read of %" PRIu64 " bytes at %" PRIu64 ": %s", piece, offset, g_strerror(-ret));
        }
        if (memcmp(buf, seq->model + offset, piece) != 0) {
            return fail_difference(seq, "compared", buf, offset, piece);
        }
    }
    return 0;
}

static bool discarded_may_be(const Sequence *seq, const uint8_t *got, uint64_t offset, uint64_t bytes)
{
    return memcmp(got, seq->model + offset, bytes) == 0 || blk_buffer_is_zero(got, bytes) ||
           (seq->config.v2 && seq->backing && memcmp(got, seq->backing + offset, bytes) == 0);
}

/* Reads back what was discarded, and lets the model follow. */
static int co_adopt_discarded(Sequence *seq, const Request *req)
{
    g_autofree uint8_t *buf = g_malloc(MAX(req->bytes, 1));
    int ret = blk_co_pread(sequence_node(seq), req->offset, req->bytes, buf, 0);

    if (ret < 0) {
        return sequence_fail(seq, "read after discard: %s", g_strerror(-ret));
    }
    for (uint64_t done = 0, n; done < req->bytes; done += n) {
        uint64_t offset = req->offset + done;

        n = MIN(SECTOR_SIZE - offset % SECTOR_SIZE, req->bytes - done);
        if (!discarded_may_be(seq, buf + done, offset, n)) {
            return sequence_fail(seq, "after a discard, %" PRIu64 " bytes at %" PRIu64 " are neither old nor zero", n,
                                 offset);
        }
        memcpy(seq->model + offset, buf + done, n);
    }
    return 0;
}

static int co_settle(Sequence *seq, const Request *req)
{
    if (req->ret < 0) {
        return sequence_fail(seq, "%s of %" PRIu64 " bytes at %" PRIu64 " flags %u: %s", kind_names[req->kind],
                             req->bytes, req->offset, req->flags, g_strerror(-req->ret));
    }
    switch (req->kind) {
    case KIND_READ:
        return memcmp(req->buf, seq->model + req->offset, req->bytes) == 0
                   ? 0 : fail_difference(seq, "read", req->buf, req->offset, req->bytes);
    case KIND_WRITE:
        memcpy(seq->model + req->offset, req->buf, req->bytes);
        return 0;
    case KIND_ZERO:
        memset(seq->model + req->offset, 0, req->bytes);
        return 0;
    case KIND_DISCARD:
        return co_adopt_discarded(seq, req);
    case KIND_FLUSH:
        break;
    }
    return 0;
}

/* ---- operations ---- */

static int co_single(Sequence *seq)
{
    uint64_t offset, bytes;
    Request req;
    int ret;

    pick_range(seq, &offset, &bytes);
    request_init(&req, seq, pick_kind(&seq->rng), offset, bytes);
    request_co_send(&req);
    ret = co_settle(seq, &req);
    request_clear(&req);
    return ret;
}

static void co_send_all(Sequence *seq, Request *reqs, unsigned count)
{
    BlkCoGroup group = BLK_CO_GROUP_INIT(count);

    for (unsigned i = 0; i < count; i++) {
        blk_co_group_run(&group, request_co_send, &reqs[i]);
    }
    blk_co_group_wait(&group);
}

static int compare_offsets(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* A window of a few clusters. */
static void pick_window(Sequence *seq, uint64_t *offset, uint64_t *bytes)
{
    uint64_t cluster = seq->config.cluster_size;

    *offset = rng_below(&seq->rng, (seq->config.size + cluster - 1) / cluster) * cluster;
    *bytes = rng_range(&seq->rng, 1, cluster > 65536 ? 2 : 4) * MAX(cluster, 2048);
    *bytes = MIN(*bytes, seq->config.size - *offset);
}

/* Concurrent requests that share clusters but no byte. */
static int co_disjoint_batch(Sequence *seq)
{
    Rng *rng = &seq->rng;
    unsigned count = rng_range(rng, 2, MAX_BATCH);
    uint64_t start, bytes, cuts[MAX_BATCH + 1];
    uint64_t unit = rng_percent(rng, 50) ? SECTOR_SIZE : 1;
    Request reqs[MAX_BATCH];
    int ret = 0;

    pick_window(seq, &start, &bytes);
    for (unsigned i = 0; i <= count; i++) {
        cuts[i] = start + rng_range(rng, 0, bytes / unit) * unit;
    }
    qsort(cuts, count + 1, sizeof(cuts[0]), compare_offsets);
    sequence_log(seq, " disjoint:");
    for (unsigned i = 0; i < count; i++) {
        request_init(&reqs[i], seq, pick_kind(rng), cuts[i], cuts[i + 1] - cuts[i]);
    }
    co_send_all(seq, reqs, count);
    for (unsigned i = 0; i < count; i++) {
        ret = ret < 0 ? ret : co_settle(seq, &reqs[i]);
        request_clear(&reqs[i]);
    }
    return ret;
}

/* Whether @bytes of a sector are those of some write of the batch, or the old ones if @old allows it. */
static bool piece_may_be(const Sequence *seq, const uint8_t *got, uint64_t offset, size_t bytes, const Request *reqs,
                         unsigned count, bool old)
{
    bool written = false;

    for (unsigned i = 0; i < count; i++) {
        const Request *req = &reqs[i];

        if ((req->kind != KIND_WRITE && req->kind != KIND_ZERO) || offset < req->offset ||
            offset >= req->offset + req->bytes) {
            continue;
        }
        written = true;
        if (req->kind == KIND_ZERO ? blk_buffer_is_zero(got, bytes)
                                   : memcmp(got, req->buf + (offset - req->offset), bytes) == 0) {
            return true;
        }
    }
    return (old || !written) && memcmp(got, seq->model + offset, bytes) == 0;
}

/* A buffered read beside a write (@old) may get a sector that the host's kernel has copied from its page cache in
 * parts, most often at multiples of 64 bytes: each byte counts. Past that cache, sectors are whole. */
static bool sector_may_be(const Sequence *seq, const uint8_t *got, uint64_t offset, const Request *reqs, unsigned count,
                          bool old)
{
    bool good = piece_may_be(seq, got, offset, SECTOR_SIZE, reqs, count, old);

    if (!good && old && !seq->config.direct) {
        good = true;
        for (unsigned i = 0; i < SECTOR_SIZE && good; i++) {
            good = piece_may_be(seq, got + i, offset + i, 1, reqs, count, old);
        }
    }
    return good;
}

static int check_sectors(Sequence *seq, const char *what, const uint8_t *got, uint64_t start, uint64_t bytes,
                         const Request *reqs, unsigned count, bool old)
{
    for (uint64_t done = 0; done < bytes; done += SECTOR_SIZE) {
        if (!sector_may_be(seq, got + done, start + done, reqs, count, old)) {
            return sequence_fail(seq, "%s: the sector at %" PRIu64 " is none that was written", what, start + done);
        }
    }
    return 0;
}

/* Concurrent reads and writes of whole sectors that overlap. */
static int co_overlapping_batch(Sequence *seq)
{
    static const Kind kinds[] = { KIND_READ, KIND_WRITE, KIND_WRITE, KIND_WRITE, KIND_ZERO, KIND_FLUSH };
    Rng *rng = &seq->rng;
    unsigned count = rng_range(rng, 2, 6);
    uint64_t start, bytes;
    Request reqs[6];
    g_autofree uint8_t *after = NULL;
    int ret = 0;

    pick_window(seq, &start, &bytes);
    sequence_log(seq, " overlapping:");
    for (unsigned i = 0; i < count; i++) {
        uint64_t first = rng_below(rng, bytes / SECTOR_SIZE);
        uint64_t sectors = rng_range(rng, 1, bytes / SECTOR_SIZE - first);

        request_init(&reqs[i], seq, kinds[rng_below(rng, G_N_ELEMENTS(kinds))], start + first * SECTOR_SIZE,
                     sectors * SECTOR_SIZE);
    }
    co_send_all(seq, reqs, count);
    after = g_malloc(bytes);
    for (unsigned i = 0; i < count && ret == 0; i++) {
        if (reqs[i].ret < 0) {
            ret = co_settle(seq, &reqs[i]);
        } else if (reqs[i].kind == KIND_READ) {
            ret = check_sectors(seq, "concurrent read", reqs[i].buf, reqs[i].offset, reqs[i].bytes, reqs, count, true);
        }
    }
    if (ret == 0 && blk_co_pread(sequence_node(seq), start, bytes, after, 0) < 0) {
        ret = sequence_fail(seq, "read after a batch failed");
    }
    if (ret == 0) {
        ret = check_sectors(seq, "after a batch", after, start, bytes, reqs, count, false);
        memcpy(seq->model + start, after, bytes);
    }
    for (unsigned i = 0; i < count; i++) {
        request_clear(&reqs[i]);
    }
    return ret;
}

/* A compressed write of whole clusters without the filter. */
static int co_compressed_write(Sequence *seq)
{
    uint64_t cluster = seq->config.cluster_size;
    uint64_t offset = rng_below(&seq->rng, (seq->config.size + cluster - 1) / cluster) * cluster;
    Request req;
    int ret;

    request_init(&req, seq, KIND_WRITE, offset, MIN(cluster, seq->config.size - offset));
    req.flags = BLK_REQ_COMPRESSED;
    request_co_send(&req);
    ret = co_settle(seq, &req);
    request_clear(&req);
    return ret;
}

int sequence_co_operation(Sequence *seq)
{
    unsigned n = rng_below(&seq->rng, 100);

    if (n < 15) {
        return co_disjoint_batch(seq);
    }
    if (n < 25) {
        return co_overlapping_batch(seq);
    }
    if (n >= 95 && seq->must) {
        return bitmap_co_operation(seq);
    }
    if (n >= 92 && n < 95 && seq->config.compressible) {
        return snapshot_co_operation(seq);
    }
    return n < 30 && !seq->filtered && seq->config.compressible ? co_compressed_write(seq) : co_single(seq);
}
