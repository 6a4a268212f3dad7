/* SPDX-License-Identifier: MIT */
/*
 * cmd_object.c - objects that clients make, delete, look at and change: object-add, object-del, qom-get, qom-set.
 */
#include "daemon/daemon.h"

#include "core/object.h"

#include <string.h>

static const char *nth_type(Daemon *d, unsigned index)
{
    const BlkObjectType *type = blk_object_type_nth(index);

    return type ? type->name : NULL;
}

static const BlkOption *type_options(Daemon *d, const char *name)
{
    const BlkObjectType *type = blk_object_type_find(name);

    return type ? type->options : NULL;
}

const DaemonVariants daemon_object_variants = { "qom-type", nth_type, type_options };

static int co_object_add(Daemon *d, JsonObject *arguments, JsonNode **result, GError **error)
{
    g_autoptr(BlkOptions) args = daemon_parse_variants(d, blk_object_options, &daemon_object_variants, arguments, NULL,
                                                        false, error);

    return args ? blk_object_add(d->ctx, arguments, error) : -EINVAL;
}

static const BlkOption delete_options[] = {
    { "id", BLK_OPTION_STRING, "the object", .required = true },
    { NULL },
};

static int co_object_del(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    return blk_object_remove(d->ctx, blk_options_string(args, "id"), error);
}

/* ---- properties ---- */

static const BlkOption get_options[] = {
    { "path", BLK_OPTION_STRING, "the object: /objects/ID, or ID", .required = true },
    { "property", BLK_OPTION_STRING, "the property", .required = true },
    { NULL },
};

static const BlkOption set_options[] = {
    { "path", BLK_OPTION_STRING, "the object: /objects/ID, or ID", .required = true },
    { "property", BLK_OPTION_STRING, "the property", .required = true },
    { "value", BLK_OPTION_JSON, "its new value: of the type that the property has", .required = true },
    { NULL },
};

static BlkObject *find_object(Daemon *d, const BlkOptions *args, GError **error)
{
    static const char prefix[] = "/objects/";
    const char *path = blk_options_string(args, "path");
    BlkObject *object = blk_object_find(d->ctx, g_str_has_prefix(path, prefix) ? path + strlen(prefix) : path);

    if (!object) {
        daemon_error(error, -ENOENT, "DeviceNotFound", "Device '%.*s' not found", 64, path);
    }
    return object;
}

/* Is it an option, or a group of some? */
static bool has_property(const BlkObjectType *type, const char *property)
{
    size_t length = strlen(property);

    for (const BlkOption *option = type->options; option->name; option++) {
        if (strncmp(option->name, property, length) == 0 && (!option->name[length] || option->name[length] == '.')) {
            return true;
        }
    }
    return false;
}

static int no_property(const BlkObject *object, const char *property, const char *why, GError **error)
{
    return blk_error(error, -EINVAL, "Property '%s.%.*s' %s", object->type->name, 64, property, why);
}

static int co_qom_get(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    const char *property = blk_options_string(args, "property");
    BlkObject *object = find_object(d, args, error);

    if (!object) {
        return -ENOENT;
    }
    if (strcmp(property, "type") == 0) {
        *result = json_node_init_string(json_node_alloc(), object->type->name);
    } else if (object->type->get) {
        *result = object->type->get(object, property);
    }
    if (!*result) {
        return no_property(object, property, has_property(object->type, property) ? "cannot be read" : "not found", error);
    }
    return 0;
}

static int co_qom_set(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    const char *property = blk_options_string(args, "property");
    g_autoptr(JsonObject) change = json_object_new();
    g_autoptr(BlkOptions) options = NULL;
    BlkObject *object = find_object(d, args, error);
    const BlkOption *tables[] = { object ? object->type->options : NULL, NULL };

    if (!object) {
        return -ENOENT;
    }
    if (strcmp(property, "type") == 0) {
        return no_property(object, property, "is not writable", error);
    }
    if (!has_property(object->type, property)) {
        return no_property(object, property, "not found", error);
    }
    if (!object->type->set) {
        return blk_error(error, -EINVAL, "Property cannot be set after initialization");
    }
    json_object_set_member(change, property, json_node_copy(blk_options_json(args, "value")));
    options = daemon_parse_arguments(tables, change, NULL, error);
    return options ? object->type->set(object, property, options, error) : -EINVAL;
}

const DaemonCommand daemon_object_commands[] = {
    { "object-add", "makes an object, to which options of nodes and exports refer", blk_object_options,
      .co_run_tree = co_object_add, .variants = &daemon_object_variants },
    { "object-del", "deletes an object that nobody uses", delete_options, co_object_del },
    { "qom-get", "says the value of a property of an object", get_options, co_qom_get, .any_time = true },
    { "qom-set", "changes a property of an object: the limits of a throttle-group", set_options, co_qom_set },
    { NULL },
};
