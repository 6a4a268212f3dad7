/* SPDX-License-Identifier: MIT */
/*
 * crash_snapshot.c - internal snapshots in the crash test. They are made, applied and deleted between the phases of the
 * guest. One that was made and not deleted is there and holds what the disk held, whole; to apply one is a write to all
 * of the disk, with a change of its length.
 */
#include "crash.h"

enum { MAX_SNAPSHOTS = 3 };         /* at a time */

static void clear_record(gpointer data)
{
    CrashSnapshot *s = data;

    g_free(s->name);
    g_free(s->data);
}

void crash_snapshot_init(CrashRound *round)
{
    round->snapshots = g_array_new(FALSE, TRUE, sizeof(CrashSnapshot));
    g_array_set_clear_func(round->snapshots, clear_record);
    round->snapshot_spans = g_array_new(FALSE, FALSE, sizeof(Span));
}

void crash_snapshot_clear(CrashRound *round)
{
    g_array_unref(round->snapshots);
    g_array_unref(round->snapshot_spans);
}

static CrashSnapshot *record_at(const CrashRound *round, guint i)
{
    return &g_array_index(round->snapshots, CrashSnapshot, i);
}

/* One that is there now, or NULL. */
static CrashSnapshot *random_record(CrashRound *round)
{
    guint first = round->snapshots->len > 0 ? g_rand_int(round->rand) % round->snapshots->len : 0;

    for (guint i = 0; i < round->snapshots->len; i++) {
        CrashSnapshot *s = record_at(round, (first + i) % round->snapshots->len);
        if (s->created.end != NEVER && s->deleted.begin == NEVER) {
            return s;
        }
    }
    return NULL;
}

static unsigned count_records(const CrashRound *round)
{
    unsigned count = 0;

    for (guint i = 0; i < round->snapshots->len; i++) {
        count += record_at(round, i)->created.end != NEVER && record_at(round, i)->deleted.begin == NEVER;
    }
    return count;
}

static uint8_t *co_read_all(CrashRound *round, BlkNode *node)
{
    uint8_t *data = g_malloc(blk_node_length(node));

    if (blk_co_pread(node, 0, blk_node_length(node), data, 0) < 0) {
        crash_fail(round, "the guest's data cannot be read");
    }
    return data;
}

/* Counts that are full are a good reason; the image is judged as if nothing had been asked for. */
static bool succeeded(CrashRound *round, int ret, const char *what, GError **error)
{
    if (ret < 0 && ret != -ERANGE) {
        crash_fail(round, "the workload could not %s a snapshot: %s", what, (*error)->message);
    }
    return ret == 0;
}

static void co_create(CrashRound *round)
{
    BlkNode *node = blk_child_node(round->image);
    g_autoptr(GError) error = NULL;
    CrashSnapshot s = {
        .name = g_strdup_printf("s%u", round->snapshots->len),
        .sectors = round->sectors,
        .data = co_read_all(round, blk_child_node(round->top)),    /* a filter's buffer belongs to it */
        .created = { .begin = ++round->now, .end = NEVER },
        .deleted = { NEVER, NEVER },
    };

    if (succeeded(round, blk_co_snapshot_create(node, s.name, &error), "make", &error)) {
        s.created.end = ++round->now;
        g_array_append_val(round->flushes, s.created);
    } else {
        s.created.begin = NEVER;
    }
    g_array_append_val(round->snapshots, s);
}

static void co_apply(CrashRound *round, const CrashSnapshot *s)
{
    g_autoptr(GError) error = NULL;
    uint64_t sectors = round->sectors;
    guint writes = round->writes->len;

    crash_guest_note_content(round, 0, s->sectors, s->data);
    if (sectors > s->sectors) {
        crash_guest_note_content(round, s->sectors, sectors - s->sectors, NULL);
    }
    Span flush = { .begin = ++round->now };
    if (succeeded(round, blk_co_snapshot_apply(blk_child_node(round->image), &(BlkSnapshotKey) { .id_or_name = s->name },
                                               &error), "apply", &error)) {
        crash_guest_note_length(round, flush.begin, s->sectors);
        flush.end = ++round->now;
        g_array_append_val(round->flushes, flush);
    } else {
        g_ptr_array_set_size(round->writes, (gint)writes);
    }
}

static void co_delete(CrashRound *round, CrashSnapshot *s)
{
    g_autoptr(GError) error = NULL;

    s->deleted.begin = ++round->now;
    if (blk_co_snapshot_delete(blk_child_node(round->image), &(BlkSnapshotKey) { .name = s->name }, &error) < 0) {
        crash_fail(round, "the workload could not delete a snapshot: %s", error->message);
    }
    s->deleted.end = ++round->now;
    g_array_append_val(round->flushes, s->deleted);
}

void crash_snapshot_co_control(CrashRound *round)
{
    CrashSnapshot *s = random_record(round);
    Span span = { .begin = round->now };
    unsigned kind = g_rand_int(round->rand) % 4;

    if (!round->config.snapshots) {
        return;
    }
    if (!s || (kind < 2 && count_records(round) < MAX_SNAPSHOTS)) {
        co_create(round);
    } else if (kind == 2 && !round->config.bitmaps) {
        co_apply(round, s);
    } else {
        co_delete(round, s);
    }
    span.end = ++round->now;
    g_array_append_val(round->snapshot_spans, span);
}

bool crash_snapshot_unmarked(const CrashRound *round)
{
    for (guint i = 0; round->config.v2 && i < round->snapshot_spans->len; i++) {
        const Span *span = &g_array_index(round->snapshot_spans, Span, i);
        if (span->begin <= round->time && round->time <= span->end) {
            return true;
        }
    }
    return false;
}

static bool is_listed(const GArray *list, const char *name)
{
    for (guint i = 0; i < list->len; i++) {
        if (strcmp(g_array_index(list, BlkSnapshot, i).name, name) == 0) {
            return true;
        }
    }
    return false;
}

static void co_judge_content(CrashRound *round, BlkNode *node, const CrashSnapshot *s)
{
    g_autoptr(GError) error = NULL;

    if (blk_co_snapshot_load(node, &(BlkSnapshotKey) { .name = s->name }, &error) < 0) {
        crash_fail(round, "snapshot %s cannot be read: %s", s->name, error->message);
    }
    if (blk_node_length(node) != s->sectors * SECTOR) {
        crash_fail(round, "snapshot %s has %" PRIu64 " bytes", s->name, blk_node_length(node));
    }
    g_autofree uint8_t *data = co_read_all(round, node);
    for (uint64_t i = 0; i < s->sectors; i++) {
        if (memcmp(data + i * SECTOR, s->data + i * SECTOR, SECTOR) != 0) {
            crash_fail(round, "snapshot %s: sector %" PRIu64 " is not what it was", s->name, i);
        }
    }
}

void crash_snapshot_co_judge(CrashRound *round, BlkNode *node)
{
    g_autoptr(GArray) list = NULL;
    g_autoptr(GError) error = NULL;

    if (!round->config.snapshots) {
        return;
    }
    if (blk_co_snapshot_list(node, &list, &error) < 0) {
        crash_fail(round, "the snapshots cannot be listed: %s", error->message);
    }
    for (guint i = 0; i < round->snapshots->len; i++) {
        const CrashSnapshot *s = record_at(round, i);
        bool listed = is_listed(list, s->name);
        if (s->created.end <= round->time && s->deleted.begin > round->time && !listed) {
            crash_fail(round, "snapshot %s is lost", s->name);
        }
        if (listed && (s->created.begin > round->time || s->deleted.end <= round->time)) {
            crash_fail(round, "snapshot %s is there", s->name);
        }
        if (listed) {
            co_judge_content(round, node, s);
        }
    }
}
