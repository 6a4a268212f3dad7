/* SPDX-License-Identifier: MIT */
/*
 * snapshot.c - blkstack-img snapshot: lists, makes, applies and deletes the internal snapshots of an image.
 */
#include "img/img.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

typedef struct SnapshotArgs {
    ImgArgs common;
    int action;                 /* 'l', 'a', 'c', 'd'; 0: none */
    const char *name;
} SnapshotArgs;

/* ---- the list ---- */

static int64_t snapshot_number(JsonObject *snapshot, const char *name)
{
    return json_object_get_int_member_with_default(snapshot, name, 0);
}

static void print_snapshot(JsonObject *snapshot)
{
    g_autofree char *name = tool_printable(json_object_get_string_member_with_default(snapshot, "name", ""));
    g_autofree char *id = tool_printable(json_object_get_string_member_with_default(snapshot, "id", ""));
    g_autofree char *size = tool_size_text(snapshot_number(snapshot, "vm-state-size"));
    int64_t clock = snapshot_number(snapshot, "vm-clock-sec");
    time_t seconds = snapshot_number(snapshot, "date-sec");
    g_autofree char *clock_text = g_strdup_printf("%02d:%02d:%02d.%03d", (int)(clock / 3600), (int)(clock / 60 % 60),
        (int)(clock % 60), (int)(snapshot_number(snapshot, "vm-clock-nsec") / 1000000));
    char date[64] = "";
    struct tm tm;

    if (localtime_r(&seconds, &tm)) {
        strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
    }
    printf("%-9s %-16s %8s%20s%13s", id, name, size, date, clock_text);
    if (json_object_has_member(snapshot, "icount")) {
        printf(" %10" PRId64, snapshot_number(snapshot, "icount"));
    }
    putchar('\n');
}

void img_print_snapshots(JsonArray *snapshots)
{
    printf("Snapshot list:\n%-9s %-16s %8s%20s%13s %10s\n", "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
    for (unsigned i = 0; i < json_array_get_length(snapshots); i++) {
        print_snapshot(json_array_get_object_element(snapshots, i));
    }
}

/* ---- the subcommand ---- */

static bool parse_args(SnapshotArgs *args, int argc, char **argv)
{
    static const struct option long_options[] = {
        IMG_LONG_COMMON, IMG_LONG_IMAGE_OPTS, IMG_LONG_FORCE_SHARE, IMG_LONG_END,
    };
    int c;

    while ((c = img_next_option(&args->common, argc, argv, ":la:c:d:hqU", long_options)) != -1) {
        if (c == IMG_STOP) {
            return false;
        }
        if (args->action != 0) {
            args->common.status = img_usage_error("Cannot mix '-l', '-a', '-c', '-d'");
            return false;
        }
        args->action = c;
        args->name = optarg;
    }
    if (optind != argc - 1) {
        args->common.status = img_usage_error("Expecting one image file name");
        return false;
    }
    args->common.open.name = argv[optind];
    args->common.open.metadata_only = args->action == 'l' || args->action == 0;
    args->common.open.writable = !args->common.open.metadata_only;
    args->common.open.resizable = args->action == 'a';
    args->common.open.unmap = args->common.open.writable;
    return img_args_valid(&args->common, 1);
}

static int report(const char *what, const char *name, GError *error)
{
    tool_error("Could not %s snapshot '%s': %s", what, name, error->message);
    g_error_free(error);
    return 1;
}

static int list(BlkNode *node)
{
    BlkInfo info;
    GError *error = NULL;

    if (blk_co_info(node, &info, &error) < 0) {
        tool_report(error);
        return 1;
    }
    if (info.snapshots) {
        img_print_snapshots(info.snapshots);
    }
    blk_info_clear(&info);
    return 0;
}

static int act(BlkNode *node, void *opaque)
{
    const SnapshotArgs *args = opaque;
    GError *error = NULL;

    switch (args->action) {
    case 'l':
        return list(node);
    case 'a':
        return blk_co_snapshot_apply(node, &(BlkSnapshotKey) { .id_or_name = args->name }, &error) < 0
               ? report("apply", args->name, error) : 0;
    case 'c':
        return blk_co_snapshot_create(node, args->name, &error) < 0 ? report("create", args->name, error) : 0;
    case 'd':
        return blk_co_snapshot_delete(node, &(BlkSnapshotKey) { .name = args->name }, &error) < 0
               ? report("delete", args->name, error) : 0;
    default:
        return 0;
    }
}

int img_snapshot(BlkContext *ctx, int argc, char **argv)
{
    SnapshotArgs args = { .action = 0 };

    return parse_args(&args, argc, argv) ? img_co_on_image(ctx, &args.common, act, &args) : args.common.status;
}
