/* SPDX-License-Identifier: MIT */
/*
 * test_qcow2_faults.c - requests to the image file fail, one at a time, at every place.
 *
 * An operation is tried again and again on the same image, each time with the next request to the disk failing, or with
 * the next event of the fault filter, until it gets through without. The error is ENOSPC or EIO, in turn for each request
 * and both for each event. A write that fails leaves nothing, its first sector, or all of itself. Each time
 *
 *     a failed write or flush is reported: by the operation, or by the flush behind it;
 *     "repeat"  the operation is repeated, since the fault has gone: it succeeds, and the data is right;
 *     "close"   the image is closed at once, while the fault has gone;
 *     "stay"    the fault stays until the image is closed;
 *
 * and then a check finds no errors, after a repetition no leaks either, and every sector is the old or the new one.
 */
#include "mem_disk.h"
#include "node_test.h"

#include "core/loop.h"
#include "filters/fault.h"

#include <inttypes.h>
#include <malloc.h>

#define SECTOR 512
#define SIZE (UINT64_C(512) << 10)
#define MAX_SIZE (UINT64_C(5) << 19)

typedef enum After { AFTER_REPEAT, AFTER_CLOSE, AFTER_STAY, AFTERS } After;

static const char *const after_names[] = { "repeat", "close", "stay" };

typedef struct Sweep {
    Test *t;
    const char *options;            /* of creation */
    const char *op_name;
    char *fault;                    /* for messages */
    After after;
    BlkNode *disk;
    BlkChild *image, *top;          /* qcow2; the compress filter above it */
    uint64_t events[BLK_EVENT_COUNT];   /* that came before the image was closed */
    uint8_t *initial;               /* the file, and what the guest finds in it */
    uint64_t initial_bytes;
    uint8_t *before, *wanted;       /* MAX_SIZE bytes of the guest: before the operation, and after it */
    uint64_t length_before, length;
    bool with_snapshot;             /* the image has one, "base" */
    bool with_bitmap;               /* the image has one, "map" */
    uint8_t *snapshot;              /* SIZE bytes: what it holds */
} Sweep;

typedef struct Operation {
    const char *name;
    int (*co_run)(Sweep *s);        /* changes s->wanted too, if it succeeds or not */
} Operation;

/* Check writes to a file for each of its own assertions that holds: too much for one on each sector. */
#define sweep_assert(s, condition, format, ...)                                                                      \
    do {                                                                                                             \
        if (!(condition)) {                                                                                          \
            ck_abort_msg("%s, %s, %s, %s: " format, (s)->op_name, (s)->options, (s)->fault, after_names[(s)->after], \
                         ##__VA_ARGS__);                                                                             \
        }                                                                                                            \
    } while (0)

/* ---- operations ---- */

static int co_write(Sweep *s, BlkChild *user, uint64_t offset, uint64_t bytes, uint8_t value, bool random)
{
    for (uint64_t i = 0; i < bytes; i++) {
        s->wanted[offset + i] = random ? (uint8_t)((offset + i) * 2654435761u >> 13) ^ value : value;
    }
    return blk_co_pwrite(blk_child_node(user), offset, bytes, s->wanted + offset, 0);
}

static int co_compressed(Sweep *s)
{
    return co_write(s, s->top, 128 << 10, 160 << 10, 0x11, false);
}

static int co_compressed_part(Sweep *s)
{
    return co_write(s, s->top, 9 << 10, 70 << 10, 0x12, false);
}

static int co_incompressible(Sweep *s)
{
    return co_write(s, s->top, 100 << 10, 80 << 10, 0x13, true);
}

static int co_plain(Sweep *s)
{
    return co_write(s, s->image, 300 << 10, 130 << 10, 0x14, false);
}

static int co_plain_part(Sweep *s)
{
    return co_write(s, s->image, (33 << 10) + SECTOR, 3 << 10, 0x15, false);
}

static int co_all_of_it(Sweep *s)
{
    return co_write(s, s->image, 0, SIZE, 0x16, true);
}

static int co_zeroes(Sweep *s)
{
    memset(s->wanted + (10 << 10), 0, 200 << 10);
    return blk_co_pwrite_zeroes(blk_child_node(s->image), 10 << 10, 200 << 10, BLK_REQ_UNMAP);
}

static int co_discard(Sweep *s)
{
    memset(s->wanted, 0, 256 << 10);
    return blk_co_discard(blk_child_node(s->top), 0, 256 << 10);
}

/* Writes, a flush, and the same again: what the first dropped is used by the second. */
static int co_rewrite_and_flush(Sweep *s)
{
    int ret = 0;

    for (unsigned i = 0; ret == 0 && i < 3; i++) {
        ret = co_write(s, s->top, 0, 128 << 10, (uint8_t)(0x20 + i), i == 1);
        ret = ret == 0 ? blk_co_flush(blk_child_node(s->top)) : ret;
    }
    memset(s->wanted, 0x22, 128 << 10);
    return ret;
}

static int co_resize(Sweep *s, uint64_t length, BlkPrealloc prealloc)
{
    uint64_t from = MIN(length, s->length);

    memset(s->wanted + from, 0, MAX_SIZE - from);
    s->length = length;
    return blk_co_truncate(blk_child_node(s->image), length, prealloc, NULL);
}

static int co_grow(Sweep *s)
{
    return co_resize(s, MAX_SIZE, BLK_PREALLOC_OFF);
}

static int co_grow_preallocated(Sweep *s)
{
    return co_resize(s, SIZE + (200 << 10), BLK_PREALLOC_METADATA);
}

static int co_shrink(Sweep *s)
{
    return co_resize(s, 100 << 10, BLK_PREALLOC_OFF);
}

static int co_compact(Sweep *s)
{
    BlkCompactOptions options = { 0 };

    return blk_co_compact(blk_child_node(s->top), &options, NULL);
}

static int co_empty(Sweep *s)
{
    memset(s->wanted, 0, SIZE);
    return blk_co_make_empty(blk_child_node(s->image), NULL);
}

static int co_grow_whole(Sweep *s)
{
    return co_resize(s, MAX_SIZE, BLK_PREALLOC_METADATA);
}

static int co_grow_and_shrink(Sweep *s)
{
    int ret = co_grow(s);

    return ret < 0 ? ret : co_shrink(s);
}

static int co_change_width(Sweep *s)
{
    g_autoptr(JsonObject) options = blk_json_parse_object("{'refcount_bits': 32}", -1, "test", NULL);
    BlkAmendOptions amend = { .options = options };

    return blk_co_amend(blk_child_node(s->image), &amend, NULL);
}

/* An error behind the switch of the header leaves the snapshot made, or forgotten: then there is nothing to repeat. */
static bool co_has_snapshot(Sweep *s, const char *name)
{
    g_autoptr(GArray) list = NULL;
    bool found = false;

    if (blk_co_snapshot_list(blk_child_node(s->image), &list, NULL) < 0) {
        return false;
    }
    for (guint i = 0; i < list->len; i++) {
        found = found || g_str_equal(g_array_index(list, BlkSnapshot, i).name, name);
    }
    return found;
}

static int co_snapshot_create(Sweep *s)
{
    return co_has_snapshot(s, "new") ? 0 : blk_co_snapshot_create(blk_child_node(s->image), "new", NULL);
}

static int co_snapshot_apply(Sweep *s)
{
    BlkSnapshotKey key = { .name = "base" };

    memcpy(s->wanted, s->snapshot, SIZE);
    return blk_co_snapshot_apply(blk_child_node(s->image), &key, NULL);
}

static int co_snapshot_delete(Sweep *s)
{
    BlkSnapshotKey key = { .name = "base" };
    int ret = blk_co_snapshot_delete(blk_child_node(s->image), &key, NULL);

    return ret == -ENOENT ? 0 : ret;
}

static int co_rewrite_beside_snapshot(Sweep *s)
{
    return co_write(s, s->top, 30 << 10, 200 << 10, 0x17, false);
}

static const Operation snapshot_operations[] = {
    { "a snapshot", co_snapshot_create },
    { "applying a snapshot", co_snapshot_apply },
    { "deleting a snapshot", co_snapshot_delete },
    { "a rewrite of what a snapshot shares", co_rewrite_beside_snapshot },
};

static int co_bitmap_add(Sweep *s)
{
    BlkNode *node = blk_child_node(s->image);

    if (!blk_bitmap_find(node, "new") && !blk_bitmap_add(node, "new", 65536, true, NULL)) {
        return -EIO;
    }
    return blk_co_bitmaps_store(node, NULL);
}

static int co_bitmap_remove(Sweep *s)
{
    BlkNode *node = blk_child_node(s->image);
    BlkDirtyBitmap *bitmap = blk_bitmap_find(node, "map");

    if (bitmap) {
        blk_bitmap_remove(bitmap);
    }
    return blk_co_bitmaps_store(node, NULL);
}

/* The first write marks the bitmap as in use; the store takes the mark away. */
static int co_recorded_write(Sweep *s)
{
    int ret = co_write(s, s->image, 300 << 10, 130 << 10, 0x18, false);

    return ret < 0 ? ret : blk_co_bitmaps_store(blk_child_node(s->image), NULL);
}

static const Operation bitmap_operations[] = {
    { "a bitmap", co_bitmap_add },
    { "removing a bitmap", co_bitmap_remove },
    { "a write that a bitmap records", co_recorded_write },
    { "growing beside a bitmap", co_grow_preallocated },
};

static const Operation operations[] = {
    { "a compressed write", co_compressed },
    { "a compressed write of parts", co_compressed_part },
    { "a write that does not compress", co_incompressible },
    { "a plain write", co_plain },
    { "a plain write of parts", co_plain_part },
    { "a write of everything", co_all_of_it },
    { "zeroes", co_zeroes },
    { "a discard", co_discard },
    { "rewrites and flushes", co_rewrite_and_flush },
    { "growing", co_grow },
    { "growing with metadata", co_grow_preallocated },
    { "shrinking", co_shrink },
    { "compaction", co_compact },
    { "emptying", co_empty },
};

/* What else makes events. */
static const Operation rare_operations[] = {
    { "growing with all metadata", co_grow_whole },
    { "growing and shrinking", co_grow_and_shrink },
    { "another width of counts", co_change_width },
};

/* ---- one image ---- */

/* @injection: (nullable): rule of a fault filter between image and disk. */
static void co_open(Sweep *s, const char *injection)
{
    g_autofree char *below = g_strdup("'disk'");
    if (injection) {
        g_free(below);
        below = g_strdup_printf("{'driver': 'fault', 'node-name': 'fault', 'discard': 'unmap', 'image': 'disk', "
                                "'inject-error': [%s]}", injection);
    }
    g_autofree char *text = g_strdup_printf("{'driver': 'compress', 'write-buffer': 0, 'discard': 'unmap', 'file': {'driver': "
                                            "'qcow2', 'node-name': 'image', 'discard': 'unmap', 'file': %s}}", below);
    g_strdelimit(text, "'", '"');
    s->top = open_for(s->t, BLK_PERM_READ | BLK_PERM_WRITE, text);
    s->image = blk_co_attach(blk_node_find(s->t->ctx, "image"), "test", BLK_PERM_ALL, BLK_PERM_ALL, NULL);
    ck_assert_ptr_nonnull(s->image);
}

/* The fault goes. */
static void end_fault(Sweep *s)
{
    BlkNode *filter = blk_node_find(s->t->ctx, "fault");

    mem_disk_of(s->disk)->fail_ops = 0;
    if (filter) {
        g_ptr_array_set_size(((FaultState *)filter->opaque)->rules, 0);
    }
}

static void co_close(Sweep *s)
{
    BlkNode *filter = blk_node_find(s->t->ctx, "fault");

    for (unsigned event = 0; filter && event < BLK_EVENT_COUNT; event++) {
        s->events[event] += ((FaultState *)filter->opaque)->events[event];
    }
    blk_co_detach(s->image);
    blk_co_detach(s->top);
    s->image = s->top = NULL;
}

static void co_make_image(Sweep *s)
{
    g_autofree char *path = g_build_filename(s->t->dir, "new.qcow2", NULL), *content = NULL;
    g_autofree char *text = g_strdelimit(g_strdup(s->options), "'", '"');
    g_autoptr(JsonObject) options = blk_json_parse_object(text, -1, "test", NULL);
    gsize bytes;

    json_object_set_int_member(options, "size", SIZE);
    ck_assert_int_eq(blk_co_create(s->t->ctx, path, "qcow2", options, NULL), 0);
    ck_assert(g_file_get_contents(path, &content, &bytes, NULL));
    mem_disk_set(s->disk, content, bytes);
    s->length = SIZE;
    co_open(s, NULL);
    ck_assert_int_eq(co_write(s, s->top, 0, 150 << 10, 0x01, false), 0);
    ck_assert_int_eq(co_write(s, s->image, 150 << 10, 90 << 10, 0x02, false), 0);
    if (s->with_snapshot) {
        s->snapshot = g_memdup2(s->wanted, SIZE);
        ck_assert_int_eq(blk_co_snapshot_create(blk_child_node(s->image), "base", NULL), 0);
    }
    if (s->with_bitmap) {
        ck_assert_ptr_nonnull(blk_bitmap_add(blk_child_node(s->image), "map", 65536, true, NULL));
    }
    ck_assert_int_eq(co_write(s, s->top, 20 << 10, 30 << 10, 0x03, true), 0);
    co_close(s);
    s->initial_bytes = blk_node_length(s->disk);
    s->initial = g_memdup2(mem_disk_of(s->disk)->data, s->initial_bytes);
}

/* ---- judging ---- */

static void finding(const char *text, void *opaque)
{
    g_string_append_printf(opaque, "\n  %s", text);
}

static void co_check(Sweep *s, BlkNode *node, bool leaks_allowed)
{
    g_autoptr(GString) findings = g_string_new(NULL);
    BlkCheckOptions options = { .data = true, .message = finding, .opaque = findings };
    BlkCheckResult result = { 0 };

    ck_assert_int_eq(blk_co_check(node, &options, &result, NULL), 0);
    sweep_assert(s, result.corruptions + result.check_errors == 0, "the check finds errors:%s", findings->str);
    sweep_assert(s, leaks_allowed || result.leaks == 0, "the check finds leaks:%s", findings->str);
}

/* Each sector is that of @before or that of @wanted; a discarded one may be either. */
static void co_compare(Sweep *s, BlkNode *node, bool old_allowed)
{
    uint64_t length = blk_node_length(node);
    g_autofree uint8_t *guest = g_malloc(length);

    sweep_assert(s, length == s->length || (old_allowed && length == s->length_before), "the length is %" PRIu64,
                 length);
    ck_assert_int_eq(blk_co_pread(node, 0, length, guest, 0), 0);
    for (uint64_t pos = 0; pos < length; pos += SECTOR) {
        bool same = memcmp(guest + pos, s->wanted + pos, SECTOR) == 0;
        bool old = old_allowed && memcmp(guest + pos, s->before + pos, SECTOR) == 0;
        bool between = old_allowed && g_str_equal(s->op_name, "rewrites and flushes") && pos < 128 << 10;
        sweep_assert(s, same || old || between, "sector %" PRIu64 " is %02x, not %02x", pos / SECTOR, guest[pos],
                     s->wanted[pos]);
    }
}

/* A bitmap that is trusted has the writes before the operation and all that differs from then. */
static void co_judge_bitmap(Sweep *s, BlkNode *node)
{
    BlkDirtyBitmap *bitmap = blk_bitmap_find(node, "map");
    bool removed = g_str_equal(s->op_name, "removing a bitmap");
    uint64_t length = MIN(blk_node_length(node), SIZE);
    g_autofree uint8_t *guest = g_malloc(length);

    sweep_assert(s, bitmap || removed, "the bitmap is lost");
    if (s->after == AFTER_REPEAT) {
        sweep_assert(s, removed ? !bitmap : !blk_bitmap_inconsistent(bitmap), "the bitmap is not stored, or not removed");
    }
    if (!bitmap || blk_bitmap_inconsistent(bitmap)) {
        return;
    }
    ck_assert_int_eq(blk_co_bitmap_load(bitmap, NULL), 0);
    ck_assert_int_eq(blk_co_pread(node, 0, length, guest, 0), 0);
    sweep_assert(s, blk_bitmap_get(bitmap, 20 << 10), "the bitmap has lost what it had");
    for (uint64_t pos = 0; pos < length; pos += SECTOR) {
        sweep_assert(s, memcmp(guest + pos, s->before + pos, SECTOR) == 0 || blk_bitmap_get(bitmap, pos),
                     "sector %" PRIu64 " has changed and is clean in the bitmap", pos / SECTOR);
    }
}

/* What is in the file when the image is closed. */
static void co_judge_file(Sweep *s, bool old_allowed)
{
    g_autoptr(GError) error = NULL;
    blk_pool_set_here(s->t->ctx->workers, true);
    BlkNode *node = try_open(s->t, "{\"driver\": \"qcow2\", \"file\": \"disk\"}", &error);

    sweep_assert(s, node != NULL, "the image cannot be opened again: %s", error ? error->message : "");
    BlkChild *user = blk_co_attach(node, "test", BLK_PERM_READ, BLK_PERM_ALL, NULL);
    blk_co_unref(node);
    co_check(s, node, s->after != AFTER_REPEAT);
    co_compare(s, node, old_allowed);
    if (s->with_bitmap) {
        co_judge_bitmap(s, node);
    }
    blk_co_detach(user);
    blk_pool_set_here(s->t->ctx->workers, false);
}

/* ---- the sweep ---- */

/* Runs the operation with a fault; false: the fault did not come. @counted: the disk counts, not the fault filter. */
static bool co_try(Sweep *s, const Operation *op, unsigned fail_ops, uint64_t fail_after, const char *injection,
                   int error)
{
    MemDisk *disk = mem_disk_of(s->disk);
    bool must_tell = (fail_ops & (MEM_DISK_WRITE | MEM_DISK_FLUSH)) != 0;

    mem_disk_set(s->disk, s->initial, s->initial_bytes);
    memcpy(s->wanted, s->before, MAX_SIZE);
    s->length = s->length_before = SIZE;
    co_open(s, injection);
    disk->failed = 0;
    disk->fail_ops = fail_ops;
    disk->fail_after = fail_after;
    disk->fail_on = s->after == AFTER_STAY;
    disk->fail_errno = error;
    int ret = op->co_run(s);
    int flushed = blk_co_flush(blk_child_node(s->top));
    bool failed = injection ? ret < 0 || flushed < 0 : disk->failed > 0;
    if (s->after != AFTER_STAY) {
        end_fault(s);
    }
    ret = ret < 0 ? ret : flushed;
    sweep_assert(s, !failed || !must_tell || ret == -error, "the result is %s", g_strerror(-ret));
    if (s->after == AFTER_REPEAT) {
        s->length_before = MAX_SIZE + 1;
        ret = op->co_run(s);
        sweep_assert(s, ret == 0, "the repetition fails: %s", g_strerror(-ret));
        ret = blk_co_flush(blk_child_node(s->top));
        sweep_assert(s, ret == 0, "the flush of the repetition fails: %s", g_strerror(-ret));
        co_compare(s, blk_child_node(s->image), false);
    }
    co_close(s);
    end_fault(s);
    co_judge_file(s, s->after != AFTER_REPEAT);
    return failed;
}

/* Each of the first requests, then ever fewer: small clusters make hundreds that are alike. */
static uint64_t next_request(uint64_t n)
{
    return n + 1 + (n < 40 ? 0 : n / 16);
}

/* @error: 0: one or the other. */
static void co_sweep_requests(Sweep *s, const Operation *op, unsigned fail_ops, int error)
{
    bool failed = true;

    for (s->after = 0; s->after < AFTERS; s->after++) {
        for (uint64_t n = 0, turn = 0; failed || n == 0; n = next_request(n), turn++) {
            int now = error ? error : (turn + s->after) % 2 ? EIO : ENOSPC;
            MemDiskTear tear = (turn / 2 + s->after) % MEM_DISK_TEARS;

            mem_disk_of(s->disk)->fail_tear = tear;
            s->fault = g_strdup_printf("ops %u, request %" PRIu64 ", errno %d, tear %u", fail_ops, n, now, tear);
            failed = co_try(s, op, fail_ops, n, NULL, now);
            g_free(s->fault);
        }
    }
}

/* Notes the events that come when nothing fails. */
static void co_note_events(Sweep *s, const Operation *op)
{
    s->after = AFTER_REPEAT;
    s->fault = g_strdup("none");
    mem_disk_set(s->disk, s->initial, s->initial_bytes);
    memcpy(s->wanted, s->before, MAX_SIZE);
    s->length = SIZE;
    co_open(s, "");
    int ret = op->co_run(s);
    ret = ret < 0 ? ret : blk_co_flush(blk_child_node(s->top));
    sweep_assert(s, ret == 0, "the operation fails: %s", g_strerror(-ret));
    co_close(s);
    g_free(s->fault);
    s->fault = NULL;
}

/* A rule of the fault filter acts on the first request behind the event. */
static void co_sweep_events(Sweep *s, const Operation *op, const uint64_t *events, int error)
{
    for (s->after = 0; s->after < AFTERS; s->after++) {
        for (unsigned event = 0; event < BLK_EVENT_COUNT; event++) {
            if (events[event] == 0) {
                continue;
            }
            s->fault = g_strdup_printf("{'event': '%s', 'errno': %d, 'once': %s, 'immediately': true}",
                                       blk_event_name(event), error, s->after == AFTER_STAY ? "false" : "true");
            co_try(s, op, 0, 0, s->fault, error);
            g_free(s->fault);
            s->fault = NULL;
        }
    }
}

static void co_begin(Sweep *s)
{
    s->op_name = "preparing";
    mallopt(M_MMAP_THRESHOLD, 32 << 20);        /* images come and go: their pages stay */
    mallopt(M_TRIM_THRESHOLD, 256 << 20);
    if (!blk_driver_find(s->t->ctx, "mem-disk")) {
        ck_assert_int_eq(blk_driver_register(s->t->ctx, &mem_disk_driver, NULL), 0);
    }
    s->before = g_malloc0(MAX_SIZE);
    s->wanted = g_malloc0(MAX_SIZE);
    s->disk = try_open(s->t, "{\"driver\": \"mem-disk\", \"node-name\": \"disk\", \"discard\": \"unmap\"}", NULL);
    ck_assert_ptr_nonnull(s->disk);
    co_make_image(s);
    memcpy(s->before, s->wanted, MAX_SIZE);
}

static void co_end(Sweep *s)
{
    blk_co_unref(s->disk);
    g_free(s->initial);
    g_free(s->snapshot);
    g_free(s->before);
    g_free(s->wanted);
}

static void co_sweep_all(Test *t, const char *options, const Operation *list, unsigned count)
{
    Sweep s = {
        .t = t, .options = options, .with_snapshot = list == snapshot_operations,
        .with_bitmap = list == bitmap_operations,
    };

    co_begin(&s);
    for (unsigned i = 0; i < count; i++) {
        s.op_name = list[i].name;
        co_sweep_requests(&s, &list[i], MEM_DISK_WRITE, 0);
        co_sweep_requests(&s, &list[i], MEM_DISK_FLUSH, EIO);
        co_sweep_requests(&s, &list[i], MEM_DISK_READ | MEM_DISK_DISCARD | MEM_DISK_TRUNCATE, EIO);
        memset(s.events, 0, sizeof(s.events));
        co_note_events(&s, &list[i]);
        uint64_t events[BLK_EVENT_COUNT];
        memcpy(events, s.events, sizeof(events));
        co_sweep_events(&s, &list[i], events, ENOSPC);
        co_sweep_events(&s, &list[i], events, EIO);
    }
    co_end(&s);
}

static void co_sweep(Test *t, const char *options)
{
    co_sweep_all(t, options, operations, G_N_ELEMENTS(operations));
}

CO_TEST(clusters_of_64k)
{
    co_sweep(t, "{'cluster_size': 65536}");
}

CO_TEST(clusters_of_4k_zstd)
{
    co_sweep(t, "{'cluster_size': 4096, 'compression_type': 'zstd', 'refcount_bits': 64}");
}

CO_TEST(clusters_of_1k_version_2)
{
    co_sweep(t, "{'cluster_size': 1024, 'compat': '0.10'}");
}

CO_TEST(lazy_refcounts)
{
    co_sweep(t, "{'cluster_size': 16384, 'lazy_refcounts': true}");
}

CO_TEST(extended_l2)
{
    co_sweep(t, "{'cluster_size': 32768, 'extended_l2': true}");
}

CO_TEST(snapshots)
{
    co_sweep_all(t, "{'cluster_size': 65536}", snapshot_operations, G_N_ELEMENTS(snapshot_operations));
}

CO_TEST(snapshots_and_small_clusters)
{
    co_sweep_all(t, "{'cluster_size': 4096, 'compression_type': 'zstd', 'refcount_bits': 8}", snapshot_operations,
                 G_N_ELEMENTS(snapshot_operations));
}

CO_TEST(bitmaps)
{
    co_sweep_all(t, "{'cluster_size': 4096}", bitmap_operations, G_N_ELEMENTS(bitmap_operations));
}

static void co_add_events(Test *t, const char *options, uint64_t events[BLK_EVENT_COUNT])
{
    Sweep s = { .t = t, .options = options, .with_snapshot = true };

    co_begin(&s);
    for (unsigned i = 0; i < G_N_ELEMENTS(operations); i++) {
        co_note_events(&s, &operations[i]);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(snapshot_operations); i++) {
        co_note_events(&s, &snapshot_operations[i]);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(rare_operations); i++) {
        co_note_events(&s, &rare_operations[i]);
    }
    for (unsigned event = 0; event < BLK_EVENT_COUNT; event++) {
        events[event] += s.events[event];
    }
    co_end(&s);
}

/* The table in docs/fault.md: each event comes from where it says, or never. */
CO_TEST(events_that_exist)
{
    static const BlkEvent never[] = {
        BLK_EVENT_l2_update_compressed, BLK_EVENT_vmstate_load, BLK_EVENT_vmstate_save, BLK_EVENT_refblock_update_part,
        BLK_EVENT_cluster_alloc_space,
    };
    static const BlkEvent others[] = {      /* where there is a backing file */
        BLK_EVENT_read_backing_aio, BLK_EVENT_cor_write,
    };
    uint64_t events[BLK_EVENT_COUNT] = { 0 };

    co_add_events(t, "{'cluster_size': 512, 'refcount_bits': 64}", events);
    co_add_events(t, "{'cluster_size': 4096}", events);
    for (unsigned event = 0; event < BLK_EVENT_COUNT; event++) {
        bool comes = true;

        for (unsigned i = 0; i < G_N_ELEMENTS(never); i++) {
            comes = comes && never[i] != event;
        }
        for (unsigned i = 0; i < G_N_ELEMENTS(others); i++) {
            comes = comes && others[i] != event;
        }
        ck_assert_msg((events[event] > 0) == comes, "%s: %" PRIu64 " times", blk_event_name(event), events[event]);
    }
}

BLK_TEST_MAIN("qcow2_faults", events_that_exist, clusters_of_64k, clusters_of_4k_zstd, clusters_of_1k_version_2, lazy_refcounts,
              extended_l2, snapshots, snapshots_and_small_clusters, bitmaps)
