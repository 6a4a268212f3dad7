/* SPDX-License-Identifier: MIT */
/*
 * filename.c - file names to trees of options.
 *
 * A name is `json:{...}`, `prefix:...` of a protocol, or a path. A colon after a slash belongs to a path, so that
 * ./a:b is a file. A json: name is read here once: a file name inside of it is only ever a path or a protocol's name,
 * never again json:.
 */
#include <string.h>

#include <core/options.h>

#define JSON_PREFIX "json:"
#define DEFAULT_PROTOCOL "file"

/* Length of "prefix" in "prefix:...", 0 if there is none. */
static size_t prefix_length(const char *name)
{
    size_t length = strcspn(name, ":/");

    return name[length] == ':' ? length : 0;
}

bool blk_filename_has_prefix(const char *name)
{
    return prefix_length(name) > 0;
}

static const BlkDriver *find_protocol(BlkContext *ctx, const char *name, size_t length)
{
    const BlkDriver *driver;

    for (unsigned i = 0; (driver = blk_driver_nth(ctx, i)) != NULL; i++) {
        for (const char *const *prefix = driver->prefixes; prefix != NULL && *prefix != NULL; prefix++) {
            if (strlen(*prefix) == length && memcmp(*prefix, name, length) == 0) {
                return driver;
            }
        }
    }
    return NULL;
}

static JsonObject *protocol_tree(const char *driver, const char *filename)
{
    JsonObject *tree = json_object_new();

    json_object_set_string_member(tree, "driver", driver);
    json_object_set_string_member(tree, "filename", filename);
    return tree;
}

JsonObject *blk_filename_parse_protocol(BlkContext *ctx, const char *name, GError **error)
{
    size_t length = prefix_length(name);
    g_autoptr(JsonObject) tree = NULL;
    const BlkDriver *driver;

    if (*name == '\0') {
        blk_error(error, -EINVAL, "A file name is missing");
        return NULL;
    }
    if (length == 0) {
        return protocol_tree(DEFAULT_PROTOCOL, name);
    }
    driver = find_protocol(ctx, name, length);
    if (driver == NULL) {
        blk_error(error, -EINVAL, "Unknown protocol '%.*s'; a file of that name is opened as './%s'", (int)length, name,
                  name);
        return NULL;
    }
    if (driver->parse_filename == NULL) {
        return protocol_tree(driver->name, name);
    }
    tree = driver->parse_filename(name, error);
    if (tree == NULL) {
        return NULL;
    }
    if (*json_object_get_string_member_with_default(tree, "filename", "-") == '\0') {
        blk_error(error, -EINVAL, "A file name is missing");
        return NULL;
    }
    json_object_set_string_member(tree, "driver", driver->name);
    return g_steal_pointer(&tree);
}

static JsonObject *parse_json_name(const char *name, const char *format, GError **error)
{
    g_autoptr(JsonObject) tree = blk_json_parse_object(name + strlen(JSON_PREFIX), -1, "json: name", error);
    JsonNode *driver;

    if (tree == NULL || format == NULL) {
        return g_steal_pointer(&tree);
    }
    driver = json_object_get_member(tree, "driver");
    if (driver == NULL) {
        json_object_set_string_member(tree, "driver", format);
    } else if (g_strcmp0(json_node_get_value_type(driver) == G_TYPE_STRING ? json_node_get_string(driver) : NULL,
                         format) != 0) {
        blk_error(error, -EINVAL, "The format '%s' is given, but the json: name says another \"driver\"", format);
        return NULL;
    }
    return g_steal_pointer(&tree);
}

JsonObject *blk_options_parse_filename(BlkContext *ctx, const char *name, const char *format, GError **error)
{
    const BlkDriver *driver = format != NULL ? blk_driver_find(ctx, format) : NULL;
    g_autoptr(JsonObject) protocol = NULL;
    JsonObject *tree;

    if (format != NULL && driver == NULL) {
        blk_error(error, -EINVAL, "Unknown driver '%s'", format);
        return NULL;
    }
    if (g_str_has_prefix(name, JSON_PREFIX)) {
        return parse_json_name(name, format, error);
    }
    protocol = blk_filename_parse_protocol(ctx, name, error);
    if (protocol == NULL) {
        return NULL;
    }
    if (driver != NULL && driver->kind == BLK_PROTOCOL) {
        json_object_set_string_member(protocol, "driver", driver->name);
        return g_steal_pointer(&protocol);
    }
    tree = json_object_new();
    if (driver != NULL) {
        json_object_set_string_member(tree, "driver", driver->name);
    }
    if (driver != NULL && driver->kind == BLK_FILTER) {
        JsonObject *image = json_object_new();

        json_object_set_object_member(image, "file", g_steal_pointer(&protocol));
        json_object_set_object_member(tree, "file", image);
    } else {
        json_object_set_object_member(tree, "file", g_steal_pointer(&protocol));
    }
    return tree;
}

char *blk_filename_resolve(const char *base, const char *name, GError **error)
{
    const char *slash;

    if (*name == '\0') {
        blk_error(error, -EINVAL, "A file name is missing");
        return NULL;
    }
    if (*name == '/' || blk_filename_has_prefix(name)) {
        return g_strdup(name);
    }
    if (g_str_has_prefix(base, DEFAULT_PROTOCOL ":")) {
        base += strlen(DEFAULT_PROTOCOL ":");
    } else if (blk_filename_has_prefix(base)) {
        blk_error(error, -EINVAL, "'%s' is a relative name, and '%s' has no directory that it could start from: "
                  "give an absolute name", name, base);
        return NULL;
    }
    slash = strrchr(base, '/');
    return slash == NULL ? g_strdup(name) : g_strdup_printf("%.*s%s", (int)(slash + 1 - base), base, name);
}
