/* SPDX-License-Identifier: MIT */
/*
 * snapshot.c - the option -l of tools that read an internal snapshot in place of the disk.
 */
#include "common/tool.h"

static const BlkOption param_options[] = {
    { "snapshot.id", BLK_OPTION_STRING, "its id" },
    { "snapshot.name", BLK_OPTION_STRING, "its name" },
    { NULL }
};

void tool_snapshot_param_clear(ToolSnapshotParam *param)
{
    g_clear_pointer(&param->options, blk_options_free);
    param->given = false;
}

bool tool_parse_snapshot_param(ToolSnapshotParam *param, const char *text)
{
    g_autoptr(JsonObject) members = NULL;
    GError *error = NULL;

    tool_snapshot_param_clear(param);
    param->given = true;
    param->key = (BlkSnapshotKey) { .id_or_name = text };
    if (!g_str_has_prefix(text, "snapshot.")) {
        return true;
    }
    members = blk_options_parse_keyval(text, NULL, &error);
    if (members) {
        param->options = blk_options_parse((const BlkOption *const[]) { param_options, NULL }, members, "-l", &error);
    }
    if (!param->options) {
        g_prefix_error(&error, "Failed in parsing snapshot param '%s': ", text);
        tool_report(error);
        return false;
    }
    param->key = (BlkSnapshotKey) {
        .id = blk_options_string(param->options, "snapshot.id"),
        .name = blk_options_string(param->options, "snapshot.name"),
    };
    return true;
}

int tool_co_load_snapshot(BlkNode *node, const ToolSnapshotParam *param, GError **error)
{
    int ret = param->given ? blk_co_snapshot_load(node, &param->key, error) : 0;

    if (ret < 0) {
        g_prefix_error(error, "Failed to load snapshot: ");
    }
    return ret;
}
