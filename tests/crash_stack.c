/* SPDX-License-Identifier: MIT */
/*
 * crash_stack.c - the nodes of a round of the crash test.
 *
 *     compress -> qcow2 -> log-writes -> disk 0          alone; the backing, if there is one, is base 0
 *                 qcow2 -> log-writes -> disk 0          with a data file, which takes nothing compressed
 *                    data-file -> log-writes -> disk 1
 *     compress -> qcow2 -> log-writes -> disk 0          rebase: the backing is base 0, base 1 or none, by turns
 *     compress -> qcow2 -> log-writes -> disk 0          commit
 *                  backing -> qcow2 -> log-writes -> disk 1
 *
 * Both recorders and all disks count one time, so a crash cuts both disks at the same moment.
 */
#include "crash.h"

#include <glib/gstdio.h>

BlkNode *crash_co_must_open(CrashRound *round, const char *text)
{
    g_autoptr(GError) error = NULL;
    BlkNode *node = crash_try_open(round, &error, "%s", text);

    if (!node) {
        crash_fail(round, "%s: %s", text, error->message);
    }
    return node;
}

/* ---- disks ---- */

static BlkNode *co_new_disk(CrashRound *round, const char *name, unsigned number)
{
    g_autofree char *text = g_strdup_printf("{'driver': 'mem-disk', 'node-name': '%s%u', 'filename': '%s%u', 'discard': "
                                            "'unmap'}", name, number, name, number);
    BlkNode *node = crash_co_must_open(round, text);

    mem_disk_of(node)->now = &round->now;
    return node;
}

/* A disk with what is in the file, which goes. */
static void co_take_disk(CrashRound *round, const char *path)
{
    CrashDisk *disk = &round->disks[round->n_disks];
    g_autofree char *content = NULL;
    g_autoptr(GError) error = NULL;
    gsize bytes;

    if (!g_file_get_contents(path, &content, &bytes, &error)) {
        crash_fail(round, "%s", error->message);
    }
    g_unlink(path);
    disk->node = co_new_disk(round, "disk", round->n_disks);
    disk->log = co_new_disk(round, "log", round->n_disks);
    mem_disk_set(disk->node, content, bytes);
    round->n_disks++;
}

/* Backing files: half of what the second one holds is the same. */
static void co_make_base(CrashRound *round, unsigned number)
{
    uint64_t sectors = number == 0 ? round->config.sectors * 5 / 6 : round->config.max_sectors, bytes = sectors * SECTOR;
    g_autofree uint8_t *data = g_malloc(bytes);

    for (uint64_t i = 0; i < bytes; i++) {
        data[i] = (uint8_t)(i / SECTOR * 7 + i % 5 + (i / SECTOR / 16 % 2) * number);
    }
    round->bases[number] = co_new_disk(round, "base", number);
    mem_disk_set(round->bases[number], data, bytes);
}

/* ---- images ---- */

static JsonObject *image_options(const CrashConfig *c)
{
    JsonObject *options = json_object_new();

    json_object_set_int_member(options, "size", (gint64)(c->sectors * SECTOR));
    json_object_set_int_member(options, "cluster_size", c->cluster_size);
    json_object_set_int_member(options, "refcount_bits", c->refcount_bits);
    json_object_set_string_member(options, "compat", c->v2 ? "0.10" : "1.1");
    json_object_set_string_member(options, "compression_type", c->zstd ? "zstd" : "zlib");
    json_object_set_boolean_member(options, "lazy_refcounts", c->lazy);
    json_object_set_boolean_member(options, "extended_l2", c->extended_l2);
    return options;
}

static void co_create_image(CrashRound *round, JsonObject *options)
{
    g_autofree char *path = g_build_filename(round->dir, "new.qcow2", NULL);
    g_autofree char *data_path = g_build_filename(round->dir, "new.data", NULL);
    bool data_file = json_object_has_member(options, "data_file");
    g_autoptr(GError) error = NULL;

    if (blk_co_create(round->ctx, path, "qcow2", options, &error) < 0) {
        crash_fail(round, "%s", error->message);
    }
    co_take_disk(round, path);
    if (data_file) {
        co_take_disk(round, data_path);
    }
}

/* What is committed to: half as long, so that it must grow. */
static void co_create_below(CrashRound *round)
{
    g_autoptr(JsonObject) options = image_options(&round->config);

    json_object_set_int_member(options, "size", (gint64)(round->config.sectors / 2 * SECTOR));
    co_create_image(round, options);
}

void crash_stack_co_make(CrashRound *round)
{
    CrashKind kind = round->config.kind;
    g_autoptr(JsonObject) options = image_options(&round->config);

    if (kind == CRASH_REBASE || round->config.backing) {
        co_make_base(round, 0);
        round->backing = g_strdup("base0");
    }
    if (kind == CRASH_REBASE) {
        co_make_base(round, 1);
    }
    if (kind == CRASH_DATA_FILE || kind == CRASH_DATA_FILE_RAW) {
        json_object_set_string_member(options, "data_file", "new.data");
        json_object_set_boolean_member(options, "data_file_raw", kind == CRASH_DATA_FILE_RAW);
    }
    co_create_image(round, options);
    if (kind == CRASH_COMMIT) {
        co_create_below(round);
    }
}

void crash_stack_clear(CrashRound *round)
{
    for (unsigned i = 0; i < round->n_disks; i++) {
        blk_co_unref(round->disks[i].node);
        blk_co_unref(round->disks[i].log);
        g_free(round->disks[i].initial);
        g_free(round->disks[i].state);
    }
    for (unsigned i = 0; i < CRASH_BASES; i++) {
        blk_co_unref(round->bases[i]);
    }
    g_free(round->backing);
}

/* ---- the stack ---- */

static BlkChild *co_attach(CrashRound *round, BlkNode *node, unsigned perm)
{
    g_autoptr(GError) error = NULL;
    BlkChild *user = blk_co_attach(node, "guest", perm, BLK_PERM_ALL, &error);

    if (!user) {
        crash_fail(round, "%s", error->message);
    }
    return user;
}

/* The disk, or its recorder. (transfer full) */
static char *plain_disk_text(const CrashRound *round, unsigned number)
{
    return round->recording ? g_strdup_printf("{'driver': 'log-writes', 'discard': 'unmap', 'file': 'disk%u', 'log': "
                                              "'log%u', 'log-append': true}", number, number)
                            : g_strdup_printf("'disk%u'", number);
}

/* The same, as it is to be used. (transfer full) */
static char *disk_text(const CrashRound *round, unsigned number)
{
    g_autofree char *disk = plain_disk_text(round, number);

    return round->config.blocks ? g_strdup_printf("{'driver': 'fault', 'align': 4096, 'discard': 'unmap', 'image': %s}", disk)
                                : g_steal_pointer(&disk);
}

static void co_open_below(CrashRound *round)
{
    g_autofree char *file = disk_text(round, 1);
    g_autofree char *text = g_strdup_printf("{'driver': 'qcow2', 'node-name': 'below', 'discard': 'unmap', 'file': %s, "
                                            "'backing': null}", file);
    BlkNode *below = crash_co_must_open(round, text);

    round->below = co_attach(round, below, BLK_PERM_READ | BLK_PERM_WRITE | BLK_PERM_RESIZE);
    blk_co_unref(below);
}

void crash_stack_co_open(CrashRound *round)
{
    const unsigned all = BLK_PERM_READ | BLK_PERM_WRITE | BLK_PERM_RESIZE;
    bool data_file = round->config.kind == CRASH_DATA_FILE || round->config.kind == CRASH_DATA_FILE_RAW;
    g_autofree char *file = disk_text(round, 0), *second = disk_text(round, 1);
    g_autofree char *data = data_file ? g_strdup_printf(", 'data-file': %s", second) : g_strdup("");

    if (round->config.kind == CRASH_COMMIT) {
        co_open_below(round);
    }
    const char *backing = round->below ? "below" : round->backing, *quote = backing ? "'" : "";
    g_autofree char *image = g_strdup_printf("{'driver': 'qcow2', 'node-name': 'image', 'discard': 'unmap', 'file': %s%s, "
                                             "'backing': %s%s%s}", file, data, quote, backing ? backing : "null", quote);
    g_autofree char *filter = g_strdup_printf("{'driver': 'compress', 'write-buffer': %u, 'discard': 'unmap', "
                                              "'file': %s}", round->config.buffer, image);
    BlkNode *top = crash_co_must_open(round, data_file ? image : filter);

    round->image = co_attach(round, blk_node_find(round->ctx, "image"), round->config.buffer > 0 ? BLK_PERM_READ : all);
    round->top = co_attach(round, top, all);
    blk_co_unref(top);
}

void crash_stack_co_close(CrashRound *round)
{
    blk_co_detach(round->image);
    blk_co_detach(round->top);
    blk_co_detach(round->below);
    round->image = round->top = round->below = NULL;
}

void crash_stack_record(CrashRound *round)
{
    for (unsigned i = 0; i < round->n_disks; i++) {
        CrashDisk *disk = &round->disks[i];
        MemDisk *mem = mem_disk_of(disk->node);

        disk->initial_bytes = blk_node_length(disk->node);
        disk->initial = g_memdup2(mem->data, disk->initial_bytes);
        g_rand_set_seed(mem->rand, round->seed + i);
        mem->max_turns = 5;
        mem->takes_notes = true;
        mem_disk_of(disk->log)->takes_notes = true;
    }
    round->recording = true;
}
