/* SPDX-License-Identifier: MIT */
/*
 * create.c - makes an image file: an empty file by its protocol, then an empty image in it by its format.
 *
 * All options are checked before a file is made or emptied. Keys that the format's table does not know go to the
 * protocol. When writing the empty image fails, a file that was made goes away, and one that was there is left empty:
 * never half an image. An image can also be made in a node that is open: what it held before goes.
 */
#include <string.h>

#include <core/options.h>

static char *creatable_formats(BlkContext *ctx)
{
    g_autoptr(GString) names = g_string_new(NULL);
    const BlkDriver *driver;

    for (unsigned i = 0; (driver = blk_driver_nth(ctx, i)) != NULL; i++) {
        if (driver->kind == BLK_FORMAT && driver->co_create != NULL) {
            g_string_append_printf(names, "%s%s", names->len > 0 ? ", " : "", driver->name);
        }
    }
    return g_string_free(g_steal_pointer(&names), FALSE);
}

static const BlkDriver *find_format(BlkContext *ctx, const char *name, GError **error)
{
    const BlkDriver *driver = blk_driver_find(ctx, name);
    g_autofree char *known = NULL;

    if (driver != NULL && driver->kind == BLK_FORMAT && driver->co_create != NULL) {
        return driver;
    }
    known = creatable_formats(ctx);
    if (driver == NULL) {
        blk_error(error, -EINVAL, "Unknown file format '%s' (images can be created as: %s)", name, known);
    } else {
        blk_error(error, -ENOTSUP, "Format driver '%s' does not support image creation (these do: %s)", name, known);
    }
    return NULL;
}

/* What one creation needs; freed by creation_clear(). */
typedef struct Creation {
    const BlkDriver *format, *protocol;
    JsonObject *tree;                   /* opens the file */
    const char *filename;               /* as the protocol takes it */
    BlkOptions *format_options, *protocol_options;
} Creation;

static void creation_clear(Creation *creation)
{
    g_clear_pointer(&creation->tree, json_object_unref);
    blk_options_free(creation->format_options);
    blk_options_free(creation->protocol_options);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Creation, creation_clear)

static int find_protocol(Creation *creation, BlkContext *ctx, const char *filename, GError **error)
{
    if (g_str_has_prefix(filename, "json:")) {
        return blk_error(error, -EINVAL, "A json: name says how to open an image that exists: give the name of a file");
    }
    creation->tree = blk_filename_parse_protocol(ctx, filename, error);
    if (creation->tree == NULL) {
        return -EINVAL;
    }
    creation->protocol = blk_driver_find(ctx, json_object_get_string_member(creation->tree, "driver"));
    if (creation->protocol == NULL || creation->protocol->co_create_file == NULL) {
        return blk_error(error, -ENOTSUP, "Protocol driver '%s' does not support image creation",
                         json_object_get_string_member(creation->tree, "driver"));
    }
    creation->filename = json_object_get_string_member_with_default(creation->tree, "filename", filename);
    return 0;
}

/* Parses the keys of @all that belong to one of the two tables. */
static BlkOptions *parse_part(const BlkOption *format, const BlkOption *protocol, bool of_format, JsonObject *all,
                              const char *what, GError **error)
{
    const BlkOption *const tables[] = { of_format ? format : protocol, NULL };
    g_autoptr(JsonObject) part = json_object_new();
    JsonObjectIter iter;
    const char *key;
    JsonNode *value;

    json_object_iter_init_ordered(&iter, all);
    while (json_object_iter_next_ordered(&iter, &key, &value)) {
        if (blk_options_table_has(format, key) == of_format) {
            json_object_set_member(part, key, json_node_copy(value));
        }
    }
    return blk_options_parse(tables, part, what, error);
}

static int parse_options(Creation *creation, JsonObject *user, GError **error)
{
    static const BlkOption none[] = { { NULL } };
    const BlkOption *format = creation->format->create_options != NULL ? creation->format->create_options : none;
    const BlkOption *protocol = creation->protocol->create_options != NULL ? creation->protocol->create_options : none;
    const BlkOption *const both[] = { format, protocol, NULL };
    g_autofree char *what = g_strdup_printf("creating '%s'", creation->format->name);
    g_autoptr(JsonObject) empty = json_object_new();
    g_autoptr(JsonObject) all = blk_options_normalise(both, user != NULL ? user : empty, error);
    g_autoptr(BlkOptions) checked = NULL;

    if (all == NULL) {
        return -EINVAL;
    }
    /* Together first, so that an unknown key is compared with the keys of both. */
    checked = blk_options_parse(both, all, what, error);
    if (checked == NULL) {
        return -EINVAL;
    }
    creation->format_options = parse_part(format, protocol, true, all, what, error);
    if (creation->format_options == NULL) {
        return -EINVAL;
    }
    creation->protocol_options = parse_part(format, protocol, false, all, what, error);
    if (creation->protocol_options == NULL) {
        return -EINVAL;
    }
    return creation->format->check_create != NULL ? creation->format->check_create(creation->format_options, error) : 0;
}

/* Writes the empty image into the open file, which nobody else may use meanwhile. */
static int co_write_image(const BlkDriver *format, const BlkOptions *options, BlkNode *file, GError **error)
{
    BlkChild *user = blk_co_attach(file, "create", BLK_PERM_READ | BLK_PERM_WRITE | BLK_PERM_RESIZE, 0, error);
    int ret;

    if (user == NULL) {
        return -EPERM;
    }
    ret = blk_co_truncate(file, 0, BLK_PREALLOC_OFF, error);        /* a device keeps what it has */
    if (ret < 0) {
        blk_co_detach(user);
        return ret;
    }
    ret = format->co_create(blk_node_context(file), file, options, error);
    if (ret == 0) {
        ret = blk_co_flush(file);
        if (ret < 0) {
            blk_error_errno(error, ret, "Could not flush '%s'", blk_node_filename(file));
        }
    }
    if (ret < 0) {
        (void)blk_co_truncate(file, 0, BLK_PREALLOC_OFF, NULL);
    }
    blk_co_detach(user);
    return ret;
}

static int co_open_and_write_image(const Creation *creation, BlkContext *ctx, GError **error)
{
    BlkNode *file = blk_co_open(ctx, creation->tree, error);
    int ret = file ? co_write_image(creation->format, creation->format_options, file, error) : -EIO;

    blk_co_unref(file);
    return ret;
}

/* Makes the file, and the image in it. */
static int co_make_image(const Creation *creation, BlkContext *ctx, GError **error)
{
    bool made;
    int ret = creation->protocol->co_create_file(ctx, creation->filename, 0, creation->protocol_options, &made, error);

    if (ret < 0) {
        return ret;
    }
    ret = co_open_and_write_image(creation, ctx, error);
    if (ret < 0 && made && creation->protocol->co_delete_file != NULL) {
        (void)creation->protocol->co_delete_file(ctx, creation->filename);      /* the first error is what matters */
    }
    return ret;
}

int blk_co_create(BlkContext *ctx, const char *filename, const char *format, JsonObject *format_options, GError **error)
{
    g_auto(Creation) creation = { .format = find_format(ctx, format, error) };
    int ret;

    if (creation.format == NULL) {
        return -EINVAL;
    }
    ret = find_protocol(&creation, ctx, filename, error);
    if (ret == 0) {
        ret = parse_options(&creation, format_options, error);
    }
    return ret == 0 ? co_make_image(&creation, ctx, error) : ret;
}

int blk_co_create_in(BlkNode *file, const char *format, JsonObject *format_options, GError **error)
{
    const BlkDriver *driver = find_format(blk_node_context(file), format, error);
    g_autofree char *what = g_strdup_printf("creating '%s'", format);
    g_autoptr(BlkOptions) options = NULL;
    int ret;

    if (driver == NULL) {
        return -EINVAL;
    }
    const BlkOption *const tables[] = { driver->create_options, NULL };
    options = blk_options_parse(tables, format_options, what, error);
    if (options == NULL) {
        return -EINVAL;
    }
    ret = driver->check_create != NULL ? driver->check_create(options, error) : 0;
    return ret == 0 ? co_write_image(driver, options, file, error) : ret;
}

int blk_co_create_file(BlkContext *ctx, const BlkDriver *protocol, const char *filename, JsonObject *options, GError **error)
{
    const BlkOption *const tables[] = { protocol->create_options, NULL };
    g_autofree char *what = g_strdup_printf("creating '%s'", protocol->name);
    g_autoptr(BlkOptions) parsed = blk_options_parse(tables, options, what, error);
    bool made;

    return parsed != NULL ? protocol->co_create_file(ctx, filename, blk_options_uint(parsed, "size"), parsed, &made, error)
                          : -EINVAL;
}
