/* SPDX-License-Identifier: MIT */
/*
 * results.c - what commands return: the tables behind "ret-type" in the schema. The names of the types are the protocol's.
 *
 * What a format tells is in the table of its driver (info_members).
 *
 * Limitations: the entities of the schema itself are of type "any".
 */
#include "daemon/results.h"

#include "daemon/daemon.h"

#include <string.h>

const char *const daemon_job_statuses[] = {
    "created", "running", "paused", "ready", "standby", "waiting", "pending", "aborting", "concluded", "null", NULL,
};
const char *const daemon_job_types[] = { "backup", "commit", "create", "mirror", "stream", NULL };

#define REQUIRED(name, kind, help) { name, BLK_OPTION_##kind, help, .required = true }
#define OF(member, type_, help, ...) { member, BLK_OPTION_JSON, help, .json = &(type_), __VA_ARGS__ }
#define OBJECT(variable, name, members) static const BlkType variable = { name, BLK_TYPE_OBJECT, members }
#define LIST(variable, element)                                                                                 \
    static const BlkOption variable##_element[] = { OF("element", element, "one of them"), { NULL } };          \
    static const BlkType variable = { .kind = BLK_TYPE_ARRAY, .members = variable##_element }

static const BlkType any_type = { "any", BLK_TYPE_ANY };
static const BlkType integer_type = { "int", BLK_TYPE_INTEGER };
LIST(any_list, any_type);

/* ---- the daemon ---- */

static const BlkOption triple[] = {
    REQUIRED("major", UINT, "of the protocol"), REQUIRED("minor", UINT, "of the protocol"), REQUIRED("micro", UINT, "of the protocol"),
    { NULL },
};
OBJECT(triple_type, "VersionTriple", triple);
static const BlkOption version[] = {
    OF("qemu", triple_type, "the version of the protocol", .required = true), REQUIRED("package", STRING, "what answers"), { NULL },
};
OBJECT(version_type, "VersionInfo", version);

static const BlkOption command[] = { REQUIRED("name", STRING, "the command"), { NULL } };
OBJECT(command_type, "CommandInfo", command);
LIST(command_list, command_type);

static const BlkOption chardev[] = {
    REQUIRED("label", STRING, "its id"), REQUIRED("filename", STRING, "where clients come from"),
    REQUIRED("frontend-open", BOOL, "there is a client"), { NULL },
};
OBJECT(chardev_type, "ChardevInfo", chardev);
LIST(chardev_list, chardev_type);

/* ---- jobs ---- */

#define JOB_STATUS { "status", BLK_OPTION_ENUM, "the state that it is in", .values = daemon_job_statuses, .required = true }
#define JOB_TYPE { "type", BLK_OPTION_ENUM, "what it does", .values = daemon_job_types, .required = true }
#define JOB_ERROR { "error", BLK_OPTION_STRING, "why it failed" }

static const BlkOption job[] = {
    REQUIRED("id", STRING, "the job"), JOB_TYPE, JOB_STATUS, REQUIRED("current-progress", UINT, "what is done"),
    REQUIRED("total-progress", UINT, "what there is to do, in the same units"), JOB_ERROR, { NULL },
};
OBJECT(job_type, "JobInfo", job);
LIST(job_list, job_type);

static const char *const io_statuses[] = { "ok", "failed", "nospace", NULL };
static const BlkOption block_job[] = {
    REQUIRED("device", STRING, "the job"), REQUIRED("type", STRING, "what it does"), JOB_STATUS, REQUIRED("len", UINT, "bytes to do"),
    REQUIRED("offset", UINT, "bytes done"), REQUIRED("speed", UINT, "bytes a second; 0: no limit"),
    { "io-status", BLK_OPTION_ENUM, "of its requests", .values = io_statuses, .required = true },
    REQUIRED("busy", BOOL, "it works now"), REQUIRED("paused", BOOL, "it was paused"), REQUIRED("ready", BOOL, "it can be completed"),
    REQUIRED("auto-finalize", BOOL, "it takes effect by itself"), REQUIRED("auto-dismiss", BOOL, "it is forgotten by itself"),
    JOB_ERROR, { NULL },
};
OBJECT(block_job_type, "BlockJobInfo", block_job);
LIST(block_job_list, block_job_type);

/* ---- exports ---- */

static const char *const export_types[] = { "nbd", NULL };
static const BlkOption export[] = {
    REQUIRED("id", STRING, "the export"), REQUIRED("node-name", STRING, "its node"),
    { "type", BLK_OPTION_ENUM, "its type", .values = export_types, .required = true },
    REQUIRED("shutting-down", BOOL, "it takes no clients any more"), { NULL },
};
OBJECT(export_type, "BlockExportInfo", export);
LIST(export_list, export_type);

/* ---- nodes ---- */

static const BlkOption snapshot[] = {
    REQUIRED("id", STRING, "unique in the image"), REQUIRED("name", STRING, "by the user"), REQUIRED("vm-state-size", UINT, "bytes"),
    REQUIRED("date-sec", UINT, "when it was made"), REQUIRED("date-nsec", UINT, "the same: the rest"),
    REQUIRED("vm-clock-sec", UINT, "of the guest"), REQUIRED("vm-clock-nsec", UINT, "the same: the rest"),
    OF("icount", integer_type, "instructions of the guest"), { NULL },
};
OBJECT(snapshot_type, "SnapshotInfo", snapshot);
LIST(snapshot_list, snapshot_type);

/* The formats that tell more than all do, and what. */
static const char *nth_specific(Daemon *d, unsigned index)
{
    const BlkDriver *driver;

    for (unsigned i = 0; (driver = blk_driver_nth(d->ctx, i)); i++) {
        if (driver->info_members && index-- == 0) {
            return driver->name;
        }
    }
    return NULL;
}

static const BlkOption *specific_members(Daemon *d, const char *format)
{
    return blk_driver_find(d->ctx, format)->info_members;
}

static const DaemonVariants specific_variants = { "type", nth_specific, specific_members, .wrapper = "data" };
static const BlkOption specific[] = { REQUIRED("type", STRING, "the format"), { NULL } };
static const BlkType specific_type = { "ImageInfoSpecific", BLK_TYPE_OBJECT, specific, &specific_variants };

static const BlkType image_type;
static const BlkOption image[] = {
    REQUIRED("filename", STRING, "where it is"), REQUIRED("format", STRING, "its driver"),
    REQUIRED("virtual-size", UINT, "bytes of the disk"), { "actual-size", BLK_OPTION_UINT, "bytes of the file system" },
    { "cluster-size", BLK_OPTION_UINT, "bytes" }, { "dirty-flag", BLK_OPTION_BOOL, "it was not closed cleanly" },
    { "encrypted", BLK_OPTION_BOOL, "it is" }, { "compressed", BLK_OPTION_BOOL, "it is, whole" },
    { "backing-filename", BLK_OPTION_STRING, "as the image says" },
    { "full-backing-filename", BLK_OPTION_STRING, "from where we are" },
    { "backing-filename-format", BLK_OPTION_STRING, "as the image says" },
    OF("snapshots", snapshot_list, "inside the image"), OF("backing-image", image_type, "the image below"),
    OF("format-specific", specific_type, "what only this format has"), { NULL },
};
OBJECT(image_type, "ImageInfo", image);

static const BlkOption cache[] = {
    REQUIRED("writeback", BOOL, "true"), REQUIRED("direct", BOOL, "past the host's cache"),
    REQUIRED("no-flush", BOOL, "flushes are ignored"), { NULL },
};
OBJECT(cache_type, "BlockdevCacheInfo", cache);

static const BlkOption bitmap[] = {
    { "name", BLK_OPTION_STRING, "of the bitmap" }, REQUIRED("count", UINT, "dirty bytes"),
    REQUIRED("granularity", UINT, "bytes of one bit"), REQUIRED("recording", BOOL, "it records writes"),
    REQUIRED("busy", BOOL, "a job or an export uses it"), REQUIRED("persistent", BOOL, "the image keeps it"),
    { "inconsistent", BLK_OPTION_BOOL, "it cannot be trusted" }, { NULL },
};
OBJECT(bitmap_type, "BlockDirtyInfo", bitmap);
LIST(bitmap_list, bitmap_type);

static const char *const detect_zeroes[] = { "off", "on", "unmap", NULL };
static const BlkOption node[] = {
    REQUIRED("file", STRING, "its name for users"), { "node-name", BLK_OPTION_STRING, "its name in the graph" },
    REQUIRED("ro", BOOL, "it is read-only"), REQUIRED("drv", STRING, "its driver"),
    { "backing_file", BLK_OPTION_STRING, "as the image says" }, REQUIRED("backing_file_depth", UINT, "images below"),
    REQUIRED("active", BOOL, "it can be used"), REQUIRED("encrypted", BOOL, "the image is"),
    { "detect_zeroes", BLK_OPTION_ENUM, "of buffers of zeroes", .values = detect_zeroes, .required = true },
    REQUIRED("bps", UINT, "0"), REQUIRED("bps_rd", UINT, "0"), REQUIRED("bps_wr", UINT, "0"), REQUIRED("iops", UINT, "0"),
    REQUIRED("iops_rd", UINT, "0"), REQUIRED("iops_wr", UINT, "0"), OF("image", image_type, "the image", .required = true),
    OF("cache", cache_type, "how it is cached", .required = true), REQUIRED("write_threshold", UINT, "bytes; 0: none"),
    OF("dirty-bitmaps", bitmap_list, "all"), { NULL },
};
OBJECT(node_type, "BlockDeviceInfo", node);
LIST(node_list, node_type);

#define COUNTERS(kind)                                                                                          \
    REQUIRED(kind "_operations", UINT, "that succeeded"), REQUIRED("failed_" kind "_operations", UINT, "that failed"), \
    REQUIRED("invalid_" kind "_operations", UINT, "0"), REQUIRED(kind "_total_time_ns", UINT, "0")
#define SIZES(kind) REQUIRED(kind "_bytes", UINT, "that succeeded"), REQUIRED(kind "_merged", UINT, "0")
static const BlkOption counters[] = {
    COUNTERS("rd"), SIZES("rd"), COUNTERS("wr"), SIZES("wr"), COUNTERS("flush"), COUNTERS("unmap"), SIZES("unmap"),
    REQUIRED("wr_highest_offset", UINT, "where the farthest write ended"), REQUIRED("account_invalid", BOOL, "false"),
    REQUIRED("account_failed", BOOL, "true"), OF("timed_stats", any_list, "none", .required = true), { NULL },
};
OBJECT(counters_type, "BlockDeviceStats", counters);

static const BlkOption driver_stats[] = {
    REQUIRED("driver", STRING, "of the node"),
    { "compressed-bytes", BLK_OPTION_UINT, "of the disk, that were stored compressed" },
    { "payload-bytes", BLK_OPTION_UINT, "that they took" }, { "saved-bytes", BLK_OPTION_UINT, "the difference" },
    { "incompressible-bytes", BLK_OPTION_UINT, "stored as they are" },
    { "discard-nb-ok", BLK_OPTION_UINT, "discards that succeeded" }, { "discard-nb-failed", BLK_OPTION_UINT, "that failed" },
    { "discard-bytes-ok", BLK_OPTION_UINT, "their bytes" }, { NULL },
};
OBJECT(driver_stats_type, "BlockStatsSpecific", driver_stats);

static const BlkType stats_type;
static const BlkOption stats[] = {
    { "node-name", BLK_OPTION_STRING, "the node" }, OF("stats", counters_type, "counters", .required = true),
    OF("driver-specific", driver_stats_type, "what only some nodes have"),
    OF("parent", stats_type, "the node below"), OF("backing", stats_type, "the backing"), { NULL },
};
OBJECT(stats_type, "BlockStats", stats);
LIST(stats_list, stats_type);

static const BlkOption hash[] = { REQUIRED("sha256", STRING, "of the bits"), { NULL } };
OBJECT(hash_type, "BlockDirtyBitmapSha256", hash);

/* ---- which one ---- */

static const struct {
    const char *command;
    const BlkType *type;
} results[] = {
    { "blockdev-snapshot-delete-internal-sync", &snapshot_type },
    { "qom-get", &any_type },
    { "query-block", &any_list },
    { "query-block-exports", &export_list },
    { "query-block-jobs", &block_job_list },
    { "query-blockstats", &stats_list },
    { "query-chardev", &chardev_list },
    { "query-commands", &command_list },
    { "query-jobs", &job_list },
    { "query-named-block-nodes", &node_list },
    { "query-qmp-schema", &any_list },
    { "query-version", &version_type },
    { "x-debug-block-dirty-bitmap-sha256", &hash_type },
};

const BlkType *daemon_result_type(const char *name)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(results); i++) {
        if (strcmp(results[i].command, name) == 0) {
            return results[i].type;
        }
    }
    return NULL;
}
