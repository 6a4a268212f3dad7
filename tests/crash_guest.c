/* SPDX-License-Identifier: MIT */
/*
 * crash_guest.c - the workload of the crash test, and what may be found after a crash.
 *
 * Phases of tasks that write, zero, discard and flush at once; between them the image changes its length. Each sector
 * of a write tells by whom and where it was written.
 */
#include "crash.h"

enum { TASKS = 4, PHASES = 4, PHASE_OPS = 6, SHORT_WRITE = 24, LONG_WRITE = 256 };

/* ---- what was written ---- */

static GuestWrite *add_write(CrashRound *round, uint64_t first, uint64_t sectors, uint8_t *data)
{
    GuestWrite *w = g_new0(GuestWrite, 1);

    *w = (GuestWrite){ .first = first, .sectors = sectors, .begin = ++round->now, .end = NEVER, .data = data };
    g_ptr_array_add(round->writes, w);
    return w;
}

static void free_write(void *data)
{
    GuestWrite *w = data;

    g_free(w->data);
    g_free(w);
}

static void fill_sector(uint8_t *sector, uint64_t id, uint64_t number, bool random)
{
    uint64_t z = (id << 32) + number;

    memset(sector, (int)(id & 0xff) | 1, SECTOR);
    for (size_t i = 0; i < SECTOR; i += random ? 8 : 128) {
        memcpy(sector + i, &z, sizeof(z));
        z = i == 0 || random ? (z + i + 1) * UINT64_C(0x9e3779b97f4a7c15) : z;
        z ^= z >> 29;
    }
}

/* New content for a write. (transfer full) */
static uint8_t *new_content(CrashRound *round, uint64_t first, uint64_t sectors)
{
    uint8_t *data = g_malloc(sectors * SECTOR);
    bool random = g_rand_int_range(round->rand, 0, 3) == 0;

    for (uint64_t i = 0; i < sectors; i++) {
        fill_sector(data + i * SECTOR, round->writes->len + 1, first + i, random);
    }
    return data;
}

static void check_result(CrashRound *round, int ret, const char *what)
{
    if (ret < 0) {
        crash_fail(round, "the workload's %s failed: %s", what, g_strerror(-ret));
    }
}

/* ---- requests ---- */

/* All requests of a phase go to one node: who writes beside the filter while it completes a cluster would be
 * overwritten. */
static BlkNode *user_node(CrashRound *round)
{
    return blk_child_node(round->compressed ? round->top : round->image);
}

static void co_write(CrashRound *round, uint64_t first, uint64_t sectors)
{
    GuestWrite *w = add_write(round, first, sectors, new_content(round, first, sectors));

    check_result(round, blk_co_pwrite(user_node(round), first * SECTOR, sectors * SECTOR, w->data, 0), "write");
    w->end = ++round->now;
}

static void co_zero(CrashRound *round, uint64_t first, uint64_t sectors)
{
    unsigned flags = g_rand_boolean(round->rand) ? BLK_REQ_UNMAP : 0;
    GuestWrite *w = add_write(round, first, sectors, NULL);

    check_result(round, blk_co_pwrite_zeroes(user_node(round), first * SECTOR, sectors * SECTOR, flags), "zero write");
    w->end = ++round->now;
}

static void co_discard(CrashRound *round, uint64_t first, uint64_t sectors)
{
    add_write(round, first, sectors, NULL);
    check_result(round, blk_co_discard(user_node(round), first * SECTOR, sectors * SECTOR), "discard");
}

static void co_flush(CrashRound *round)
{
    Span flush = { .begin = ++round->now };

    check_result(round, blk_co_flush(user_node(round)), "flush");
    flush.end = ++round->now;
    g_array_append_val(round->flushes, flush);
}

static void co_random_request(CrashRound *round)
{
    uint64_t limit = g_rand_int_range(round->rand, 0, 4) == 0 ? LONG_WRITE : SHORT_WRITE;
    uint64_t first = g_rand_int_range(round->rand, 0, (gint32)round->sectors);
    uint64_t sectors = 1 + g_rand_int_range(round->rand, 0, (gint32)MIN(limit, round->sectors - first));
    unsigned kind = g_rand_int_range(round->rand, 0, 20);

    if (kind < 12) {
        co_write(round, first, sectors);
    } else if (kind < 15) {
        co_zero(round, first, sectors);
    } else if (kind < 17) {
        co_discard(round, first, sectors);
    } else {
        co_flush(round);
    }
}

static int co_task(void *opaque)
{
    CrashRound *round = opaque;

    for (unsigned i = 0; i < PHASE_OPS; i++) {
        co_random_request(round);
    }
    round->running--;
    return 0;
}

static void co_phase(CrashRound *round)
{
    round->compressed = round->config.style == 2 ? g_rand_boolean(round->rand) : round->config.style == 1;
    round->running = TASKS;
    for (unsigned i = 0; i < TASKS; i++) {
        blk_co_spawn(round->ctx, co_task, round);
    }
    while (round->running > 0) {
        blk_co_reschedule();
    }
}

/* ---- control operations, while no request runs ---- */

void crash_guest_note_length(CrashRound *round, uint64_t begin, uint64_t sectors)
{
    LengthChange change = { .begin = begin, .end = ++round->now, .sectors = sectors };

    g_array_append_val(round->lengths, change);
    round->sectors = sectors;
}

void crash_guest_note_content(CrashRound *round, uint64_t first, uint64_t sectors, const uint8_t *data)
{
    GuestWrite *w = add_write(round, first, sectors, data ? g_memdup2(data, sectors * SECTOR) : NULL);

    w->end = w->begin;
}

/* All that was written before is stable when the length has changed. What is new, or was cut off, is zeroes. */
static void co_resize(CrashRound *round)
{
    g_autoptr(GError) error = NULL;
    uint64_t unit = MAX(round->config.cluster_size / SECTOR / 2, 1), old = round->sectors;
    uint64_t sectors = g_rand_int_range(round->rand, (gint32)round->config.sectors / 2,
                                        (gint32)round->config.max_sectors) / unit * unit;

    if (sectors == old || sectors == 0 || (round->config.v2 && round->config.snapshots)) {
        return;
    }
    crash_guest_note_content(round, MIN(old, sectors), MAX(old, sectors) - MIN(old, sectors), NULL);
    Span flush = { .begin = ++round->now };
    if (blk_co_truncate(blk_child_node(round->top), sectors * SECTOR, BLK_PREALLOC_OFF, &error) < 0) {
        crash_fail(round, "the workload's change of the length failed: %s", error->message);
    }
    crash_guest_note_length(round, flush.begin, sectors);
    flush.end = ++round->now;
    g_array_append_val(round->flushes, flush);
}

/* Changes no content; what was written before is stable when it is through. */
static void co_compact(CrashRound *round)
{
    BlkCompactOptions options = { .no_compress = g_rand_boolean(round->rand) };
    g_autoptr(GError) error = NULL;
    Span flush = { .begin = ++round->now };

    if (blk_co_compact(blk_child_node(round->image), &options, &error) < 0) {
        crash_fail(round, "the workload's compaction failed: %s", error->message);
    }
    flush.end = ++round->now;
    g_array_append_val(round->flushes, flush);
    g_array_append_val(round->snapshot_spans, flush);       /* what snapshots share moves, as when one is made */
}

static void co_control(CrashRound *round)
{
    bool data_file = round->config.kind == CRASH_DATA_FILE || round->config.kind == CRASH_DATA_FILE_RAW;

    /* Not the images of thousands of clusters: all prefixes of a log of 20,000 entries would take an hour. */
    if (round->config.sectors <= 1024 && !data_file && g_rand_int(round->rand) % 3 == 0) {
        co_compact(round);
    }
    if (g_rand_boolean(round->rand)) {
        co_resize(round);
    }
    crash_chain_co_control(round);
    crash_bitmap_co_control(round);
    crash_snapshot_co_control(round);
}

void crash_guest_co_workload(CrashRound *round)
{
    for (unsigned i = 0; i < PHASES; i++) {
        co_phase(round);
        if (i == 0) {
            crash_chain_co_control(round);
        }
        if (g_rand_boolean(round->rand)) {
            co_control(round);
        }
    }
}

/* What is in the image before the log begins is stable. */
void crash_guest_co_prefill(CrashRound *round)
{
    bool full = round->config.cluster_size == 512;      /* tables are to grow */
    uint64_t end = round->sectors * (full ? 3 : 1) / 4;

    for (uint64_t first = 0; first < end; first += LONG_WRITE / 2) {
        if (full || g_rand_boolean(round->rand)) {
            co_write(round, first, MIN(LONG_WRITE / 2, end - first));
        }
    }
    co_flush(round);
    crash_bitmap_co_begin(round);
    crash_chain_co_begin(round);
    crash_snapshot_co_control(round);
}

/* ---- what may be found ---- */

void crash_guest_init(CrashRound *round)
{
    uint64_t sectors = round->config.sectors;

    round->writes = g_ptr_array_new_with_free_func(free_write);
    round->flushes = g_array_new(FALSE, FALSE, sizeof(Span));
    round->lengths = g_array_new(FALSE, FALSE, sizeof(LengthChange));
    crash_snapshot_init(round);
    crash_guest_note_length(round, 0, sectors);
    add_write(round, 0, round->config.max_sectors, NULL)->end = ++round->now;
    if (round->backing) {
        uint64_t bytes = MIN(blk_node_length(round->bases[0]), sectors * SECTOR);
        add_write(round, 0, bytes / SECTOR, g_memdup2(mem_disk_of(round->bases[0])->data, bytes))->end = ++round->now;
    }
}

void crash_guest_index(CrashRound *round)
{
    round->by_sector = g_new(GPtrArray *, round->config.max_sectors);
    for (uint64_t i = 0; i < round->config.max_sectors; i++) {
        round->by_sector[i] = g_ptr_array_new();
    }
    for (guint i = 0; i < round->writes->len; i++) {
        GuestWrite *w = g_ptr_array_index(round->writes, i);
        for (uint64_t n = 0; n < w->sectors; n++) {
            g_ptr_array_add(round->by_sector[w->first + n], w);
        }
    }
}

void crash_guest_clear(CrashRound *round)
{
    for (uint64_t i = 0; round->by_sector && i < round->config.max_sectors; i++) {
        g_ptr_array_unref(round->by_sector[i]);
    }
    g_free(round->by_sector);
    g_ptr_array_unref(round->writes);
    g_array_unref(round->flushes);
    g_array_unref(round->lengths);
    crash_snapshot_clear(round);
}

uint64_t crash_guest_stable(const CrashRound *round, uint64_t time)
{
    uint64_t stable = 0;

    for (guint i = 0; i < round->flushes->len; i++) {
        const Span *flush = &g_array_index(round->flushes, Span, i);
        stable = flush->end <= time ? MAX(stable, flush->begin) : stable;
    }
    return stable;
}

bool crash_guest_length_allowed(const CrashRound *round, uint64_t time, uint64_t sectors)
{
    bool allowed = false;

    for (guint i = 0; i < round->lengths->len; i++) {
        const LengthChange *change = &g_array_index(round->lengths, LengthChange, i);
        if (change->begin > time) {
            break;
        }
        /* It is stable when the change has returned. */
        allowed = change->sectors == sectors || (allowed && change->end > time);
    }
    return allowed;
}

/* Is there a later write of the sector that is stable? */
static bool is_replaced(const GPtrArray *writes, const GuestWrite *w, uint64_t stable)
{
    for (guint i = writes->len; i > 0; i--) {
        const GuestWrite *later = g_ptr_array_index(writes, i - 1);
        if (later->begin > w->end && later->end < stable) {
            return true;
        }
    }
    return false;
}

bool crash_guest_sector_allowed(const CrashRound *round, uint64_t time, uint64_t stable, uint64_t number,
                                const uint8_t *sector)
{
    static const uint8_t zeroes[SECTOR];
    const GPtrArray *writes = round->by_sector[number];

    for (guint i = writes->len; i > 0; i--) {
        const GuestWrite *w = g_ptr_array_index(writes, i - 1);
        const uint8_t *content = w->data ? w->data + (number - w->first) * SECTOR : zeroes;
        if (w->begin <= time && memcmp(sector, content, SECTOR) == 0 && !is_replaced(writes, w, stable)) {
            return true;
        }
    }
    return false;
}

char *crash_guest_history(const CrashRound *round, uint64_t number)
{
    GString *text = g_string_new("writes:");

    for (guint i = 0; i < round->by_sector[number]->len; i++) {
        const GuestWrite *w = g_ptr_array_index(round->by_sector[number], i);
        g_string_append_printf(text, " %" PRIu64 "..%" PRId64 " %s", w->begin, (int64_t)w->end,
                               w->data ? "data" : "zeroes");
        if (w->data) {
            g_string_append_printf(text, " %016" PRIx64,
                                   *(const uint64_t *)(const void *)(w->data + (number - w->first) * SECTOR));
        }
    }
    g_string_append(text, "; lengths:");
    for (guint i = 0; i < round->lengths->len; i++) {
        const LengthChange *change = &g_array_index(round->lengths, LengthChange, i);
        g_string_append_printf(text, " %" PRIu64 "..%" PRIu64 " %" PRIu64, change->begin, change->end, change->sectors);
    }
    return g_string_free(text, FALSE);
}
