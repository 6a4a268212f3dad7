/* SPDX-License-Identifier: MIT */
/*
 * cmd_query.c - what nodes there are and what they have done: query-named-block-nodes, query-blockstats, query-block.
 *
 * The forms are those of the peer's BlockDeviceInfo and BlockStats. What only devices have there is 0 here. Counters are of all
 * requests that a node was sent, by exports, jobs and the nodes above.
 */
#include "daemon/daemon.h"

#include "common/tool.h"
#include "daemon/cmd_bitmap.h"

#include <string.h>

enum { MAX_DEPTH = 200 };       /* of images in images */

/* Calls @describe for all open nodes, which stay open meanwhile. Returns: (transfer full): what it made of them. */
static JsonNode *co_for_all(Daemon *d, JsonObject *(*co_describe)(BlkNode *node, bool detailed), bool detailed)
{
    g_autoptr(GPtrArray) nodes = blk_nodes(d->ctx);
    JsonArray *array = json_array_new();

    for (guint i = 0; i < nodes->len; i++) {
        JsonObject *object = co_describe(nodes->pdata[i], detailed);

        if (object) {
            json_array_add_object_element(array, object);
        }
    }
    for (guint i = 0; i < nodes->len; i++) {
        blk_co_unref(nodes->pdata[i]);
    }
    return daemon_result_array(array);
}

/* ---- query-named-block-nodes ---- */

/* Where what is not in @node comes from: the node that it filters, or its backing. (nullable) (transfer none) */
static BlkNode *next_image(const BlkNode *node)
{
    return node->driver->kind == BLK_FILTER ? blk_node_child(node, "file") : blk_node_child(node, "backing");
}

static JsonObject *co_describe_image(BlkNode *node, bool chain, unsigned depth)
{
    BlkInfo info = { 0 };
    BlkNode *next = next_image(node);
    JsonObject *object;

    /* What cannot be read is left out. */
    if (blk_co_info(node, &info, NULL) < 0) {
        blk_info_clear(&info);
    }
    if (node->driver->kind == BLK_FILTER) {     /* that is of the image below */
        g_clear_pointer(&info.specific, json_object_unref);
        g_clear_pointer(&info.backing_filename, g_free);
        g_clear_pointer(&info.backing_format, g_free);
    }
    object = tool_image_to_json(node, &info);
    json_object_set_boolean_member(object, "dirty-flag", info.dirty);
    blk_info_clear(&info);
    if (chain && next && depth < MAX_DEPTH) {
        blk_node_ref(next);
        json_object_set_object_member(object, "backing-image", co_describe_image(next, chain, depth + 1));
        blk_co_unref(next);
    }
    return object;
}

static JsonObject *describe_cache(const BlkNode *node)
{
    const BlkOpenFlags *flags = blk_node_open_flags(node);
    JsonObject *cache = json_object_new();

    json_object_set_boolean_member(cache, "writeback", true);
    json_object_set_boolean_member(cache, "direct", flags->direct);
    json_object_set_boolean_member(cache, "no-flush", flags->no_flush);
    return cache;
}

static JsonObject *co_describe_node(BlkNode *node, bool flat)
{
    static const char *const detect_zeroes[] = { "off", "on", "unmap" };
    static const char *const throttle[] = { "bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr" };
    JsonObject *object = json_object_new(), *image = co_describe_image(node, !flat, 0);
    JsonArray *bitmaps = daemon_co_describe_bitmaps(node);
    gint64 depth = 0;

    json_object_set_string_member(object, "file", blk_node_filename(node));
    json_object_set_string_member(object, "node-name", blk_node_name(node));
    json_object_set_boolean_member(object, "ro", blk_node_read_only(node));
    json_object_set_string_member(object, "drv", blk_node_driver_name(node));
    if (json_object_has_member(image, "backing-filename")) {
        json_object_set_string_member(object, "backing_file", json_object_get_string_member(image, "backing-filename"));
    }
    for (const BlkNode *next = node; !flat && (next = next_image(next)); ) {
        depth++;
    }
    json_object_set_int_member(object, "backing_file_depth", depth);
    json_object_set_boolean_member(object, "active", blk_node_active(node));
    json_object_set_boolean_member(object, "encrypted", json_object_has_member(image, "encrypted"));
    json_object_set_string_member(object, "detect_zeroes", detect_zeroes[blk_node_open_flags(node)->detect_zeroes]);
    for (unsigned i = 0; i < G_N_ELEMENTS(throttle); i++) {
        json_object_set_int_member(object, throttle[i], 0);
    }
    json_object_set_object_member(object, "image", image);
    json_object_set_object_member(object, "cache", describe_cache(node));
    json_object_set_int_member(object, "write_threshold", (gint64)blk_node_write_threshold(node));
    if (bitmaps) {
        json_object_set_array_member(object, "dirty-bitmaps", bitmaps);
    }
    return object;
}

static const BlkOption nodes_options[] = {
    { "flat", BLK_OPTION_BOOL, "without the images below each" },
    { NULL },
};

static int co_query_nodes(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    *result = co_for_all(d, co_describe_node, blk_options_bool(args, "flat"));
    return 0;
}

/* ---- query-blockstats ---- */

static void add_counters(JsonObject *object, const char *prefix, const BlkStats *stats, BlkStatsKind kind)
{
    const struct { const char *name; uint64_t value; } counters[] = {
        { "%s_operations", stats->of[kind].operations }, { "%s_bytes", stats->of[kind].bytes },
        { "failed_%s_operations", stats->of[kind].failed }, { "invalid_%s_operations", 0 }, { "%s_merged", 0 },
        { "%s_total_time_ns", 0 },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(counters); i++) {
        g_auto(GStrv) parts = g_strsplit(counters[i].name, "%s", 2);
        g_autofree char *name = g_strconcat(parts[0], prefix, parts[1], NULL);
        bool has_size = kind != BLK_STATS_FLUSH || !(strstr(name, "bytes") || strstr(name, "merged"));

        if (has_size) {
            json_object_set_int_member(object, name, (gint64)counters[i].value);
        }
    }
}

static JsonObject *describe_counters(const BlkStats *stats)
{
    static const char *const prefixes[BLK_STATS_KINDS] = { "rd", "wr", "flush", "unmap" };
    JsonObject *object = json_object_new();

    for (unsigned kind = 0; kind < BLK_STATS_KINDS; kind++) {
        add_counters(object, prefixes[kind], stats, kind);
    }
    json_object_set_int_member(object, "wr_highest_offset", (gint64)stats->write_end);
    json_object_set_boolean_member(object, "account_invalid", false);
    json_object_set_boolean_member(object, "account_failed", true);
    json_object_set_array_member(object, "timed_stats", json_array_new());
    return object;
}

/* What compressed writes have saved, at an image that had some and at the filters above it. (nullable) */
static JsonObject *describe_savings(BlkNode *node)
{
    const BlkStats *stats = blk_node_stats(blk_node_skip_filters(node));
    JsonObject *object;

    if (stats->compressed_bytes == 0 && stats->incompressible_bytes == 0) {
        return NULL;
    }
    object = json_object_new();
    json_object_set_string_member(object, "driver", blk_node_driver_name(node));
    json_object_set_int_member(object, "compressed-bytes", (gint64)stats->compressed_bytes);
    json_object_set_int_member(object, "payload-bytes", (gint64)stats->payload_bytes);
    json_object_set_int_member(object, "incompressible-bytes", (gint64)stats->incompressible_bytes);
    json_object_set_int_member(object, "saved-bytes", (gint64)(stats->compressed_bytes - stats->payload_bytes));
    return object;
}

static JsonObject *describe_discards(BlkNode *node)
{
    const BlkStats *stats = blk_node_stats(node);
    JsonObject *object = json_object_new();

    json_object_set_string_member(object, "driver", blk_node_driver_name(node));
    json_object_set_int_member(object, "discard-nb-ok", (gint64)stats->of[BLK_STATS_DISCARD].operations);
    json_object_set_int_member(object, "discard-nb-failed", (gint64)stats->of[BLK_STATS_DISCARD].failed);
    json_object_set_int_member(object, "discard-bytes-ok", (gint64)stats->of[BLK_STATS_DISCARD].bytes);
    return object;
}

/* @seen: nodes that stand in it already: there may be several ways to one. */
static JsonObject *describe_stats_of(BlkNode *node, GHashTable *seen)
{
    BlkNode *file = blk_node_child(node, "file"), *backing = blk_node_child(node, "backing");
    JsonObject *object = json_object_new(), *specific;

    g_hash_table_add(seen, node);
    specific = node->driver->kind == BLK_PROTOCOL ? describe_discards(node) : describe_savings(node);
    json_object_set_string_member(object, "node-name", blk_node_name(node));
    json_object_set_object_member(object, "stats", describe_counters(blk_node_stats(node)));
    if (specific) {
        json_object_set_object_member(object, "driver-specific", specific);
    }
    if (file && !g_hash_table_contains(seen, file)) {
        json_object_set_object_member(object, "parent", describe_stats_of(file, seen));
    }
    if (backing && !g_hash_table_contains(seen, backing)) {
        json_object_set_object_member(object, "backing", describe_stats_of(backing, seen));
    }
    return object;
}

static JsonObject *describe_stats(BlkNode *node, bool unused)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);

    return describe_stats_of(node, seen);
}

static const BlkOption stats_options[] = {
    { "query-nodes", BLK_OPTION_BOOL, "of all nodes; without it of devices, of which there are none" },
    { NULL },
};

static int co_query_stats(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    *result = blk_options_bool(args, "query-nodes") ? co_for_all(d, describe_stats, false)
                                                    : daemon_result_array(json_array_new());
    return 0;
}

/* ---- query-block ---- */

static int co_query_devices(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    *result = daemon_result_array(json_array_new());
    return 0;
}

const DaemonCommand daemon_query_commands[] = {
    { "query-block", "all devices, of which there are none", NULL, co_query_devices, .any_time = true },
    { "query-blockstats", "counters of all nodes", stats_options, co_query_stats, .any_time = true },
    { "query-named-block-nodes", "all open nodes", nodes_options, co_query_nodes, .any_time = true },
    { NULL },
};
