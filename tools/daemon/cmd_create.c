/* SPDX-License-Identifier: MIT */
/*
 * cmd_create.c - blockdev-create: a job makes a file by a protocol, or an image in an open node by a format.
 *
 * Its options are those of the driver's table of creation options, which `blkstack-img create -o` has too, with '-' where that
 * has '_'; but for a few, listed below, which the control protocol calls otherwise.
 */
#include "daemon/cmd_job.h"

#include "jobs/create_job.h"

#include <string.h>

/* ---- names ---- */

static const char *const versions[] = { "v2", "v3", NULL }, *const compat[] = { "0.10", "1.1" };
static const char *const preallocations[] = { "off", "metadata", NULL }, *const statics[] = { "off", "on" };

typedef struct OtherName {
    const char *driver, *native;                        /* in the driver's table */
    const char *name;                                   /* NULL: cannot be used here */
    const char *const *values, *const *native_values;   /* in the same order */
} OtherName;

static const OtherName other_names[] = {
    { "qcow2", "compat", "version", versions, compat },
    { "qcow2", "encryption" },
    { "qcow2", "encrypt.format" },
    { "qcow2", "data_file" },                           /* the name of a file, which nobody may take for that of a node */
    { "qcow2", "data_file_raw" },
    { "vdi", "static", "preallocation", preallocations, statics },
};

/* (nullable) */
static const OtherName *find_other_name(const BlkDriver *driver, const char *native)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(other_names); i++) {
        if (strcmp(other_names[i].driver, driver->name) == 0 && strcmp(other_names[i].native, native) == 0) {
            return &other_names[i];
        }
    }
    return NULL;
}

/* (transfer full): what an option of the driver's table is called here; NULL: there is none. */
static char *name_here(const OtherName *other, const char *native)
{
    return other ? g_strdup(other->name) : g_strdelimit(g_strdup(native), "_", '-');
}

/* ---- options ---- */

/* (transfer full): what may be said about creation by @driver, but for its name. */
static GArray *make_table(const BlkDriver *driver)
{
    static const BlkOption fixed[] = {
        { "filename", BLK_OPTION_STRING, "the file to make", .required = true },
        { "file", BLK_OPTION_NODE, "the node to make the image in", .required = true },
    };
    GArray *table = g_array_new(TRUE, TRUE, sizeof(BlkOption));

    g_array_append_val(table, fixed[driver->kind == BLK_PROTOCOL ? 0 : 1]);
    for (const BlkOption *native = driver->create_options; native->name; native++) {
        const OtherName *other = find_other_name(driver, native->name);
        g_autofree char *name = name_here(other, native->name);
        BlkOption option = *native;

        if (other) {
            option = (BlkOption) { .type = BLK_OPTION_ENUM, .help = native->help, .values = other->values };
        }
        option.required |= strcmp(native->name, "size") == 0;
        if (name) {
            option.name = g_intern_string(name);
            g_array_append_val(table, option);
        }
    }
    return table;
}

static JsonNode *native_value(const OtherName *other, JsonNode *value)
{
    unsigned i = 0;

    if (!other) {
        return json_node_copy(value);
    }
    while (strcmp(other->values[i], json_node_get_string(value)) != 0) {
        i++;
    }
    return json_node_init_string(json_node_alloc(), other->native_values[i]);
}

/* (transfer full): what the driver's own table calls it. @given has been checked. */
static JsonObject *to_native(const BlkDriver *driver, JsonObject *given)
{
    JsonObject *result = json_object_new();

    for (const BlkOption *native = driver->create_options; native->name; native++) {
        const OtherName *other = find_other_name(driver, native->name);
        g_autofree char *name = name_here(other, native->name);
        JsonNode *value = name ? json_object_get_member(given, name) : NULL;

        if (value) {
            json_object_set_member(result, native->name, native_value(other, value));
        }
    }
    return result;
}

/* ---- its type ---- */

static const char *nth_driver(Daemon *d, unsigned index)
{
    const BlkDriver *driver;

    for (unsigned i = 0; (driver = blk_driver_nth(d->ctx, i)); i++) {
        if (blk_driver_creates(driver) && index-- == 0) {
            return driver->name;
        }
    }
    return NULL;
}

static const BlkOption *driver_table(Daemon *d, const char *name)
{
    const BlkDriver *driver = blk_driver_find(d->ctx, name);
    g_autofree char *key = g_strconcat("create:", name, NULL);
    const BlkOption *table = daemon_find_table(d, key);

    return table || !driver || !blk_driver_creates(driver) ? table : daemon_keep_table(d, key, make_table(driver));
}

static bool refuse_driver(Daemon *d, const char *name, GError **error)
{
    const BlkDriver *driver = blk_driver_find(d->ctx, name);

    if (driver) {
        blk_error(error, -ENOTSUP, "Driver does not support blockdev-create: '%s' is no format or protocol that makes images",
                  driver->name);
    }
    return driver;
}

static const DaemonVariants create_variants = { "driver", nth_driver, driver_table, refuse_driver };
static const BlkOption create_members[] = {
    { "driver", BLK_OPTION_STRING, "protocol or format", .required = true },
    { NULL },
};
static const BlkType create_type = { "BlockdevCreateOptions", BLK_TYPE_OBJECT, create_members, &create_variants };

/* ---- command ---- */

static const BlkOption create_options[] = {
    { "job-id", BLK_OPTION_STRING, "what the job is to be called", .required = true },
    { "options", BLK_OPTION_JSON, "\"driver\", and what it creates: \"filename\" or \"file\", \"size\", ...", .required = true,
      .json = &create_type },
    { NULL },
};

static int co_blockdev_create(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    BlkJobOptions options = { .id = blk_options_string(args, "job-id"), .auto_finalize = true };
    JsonObject *given = json_node_get_object(blk_options_json(args, "options"));
    const BlkDriver *driver = blk_driver_find(d->ctx, json_object_get_string_member(given, "driver"));
    g_autoptr(JsonObject) native = to_native(driver, given);
    BlkCreateWork work = {
        .driver = driver,
        .filename = json_object_get_string_member_with_default(given, "filename", NULL),
        .file = json_object_get_member(given, "file"),
        .options = native,
    };
    BlkJob *job = blk_create_job_new(d->ctx, &options, &work, error);
    if (!job) {
        return -EINVAL;
    }
    blk_job_start(job);
    return 0;
}

const DaemonCommand daemon_create_commands[] = {
    { "blockdev-create", "makes a file, or an image in an open node, as a job", create_options, co_blockdev_create },
    { NULL },
};
