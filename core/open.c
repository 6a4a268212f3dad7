/* SPDX-License-Identifier: MIT */
/*
 * open.c - from a tree of options to open nodes.
 *
 * A tree without "driver" means: the protocol of its file name where a format asks for its file, else the format that
 * the first bytes look like. Such a detected format is not trusted: what it names (a backing file) is followed only to
 * a plain file beside the image.
 *
 * Each backing file is opened on a stack of its own, since chains may be long.
 */
#include "core/node.h"

#include "core/options.h"
#include "core/stack.h"

#include <string.h>
#include <sys/stat.h>

#define PROBE_BYTES 2048

/* What a node hands down to a child that it opens. */
typedef struct OpenParent {
    BlkNode *node;              /* (nullable): NULL while the format is being detected */
    const BlkOpenFlags *flags;
    BlkRole role;
    bool below_format;
    bool trusted;               /* the options come from the user or from a trusted image */
    unsigned chain;
} OpenParent;

static const BlkOption filter_options[] = {
    { "file", BLK_OPTION_NODE, "node that is filtered", .required = true },
    { NULL },
};

static BlkNode *open_tree(BlkContext *ctx, const BlkDriver *driver, JsonObject *given, const OpenParent *parent,
                          GError **error);

/* ---- options ---- */

static bool table_has(const BlkOption *table, const char *name, bool node_only)
{
    for (; table && table->name; table++) {
        if (strcmp(table->name, name) == 0 && (!node_only || table->type == BLK_OPTION_NODE)) {
            return true;
        }
    }
    return false;
}

static bool table_has_node(const BlkOption *table)
{
    for (; table && table->name; table++) {
        if (table->type == BLK_OPTION_NODE) {
            return true;
        }
    }
    return false;
}

/* Options of every node, taken from @tree. */
static BlkOptions *parse_common(JsonObject *tree, GError **error)
{
    const BlkOption *tables[] = { blk_node_options, NULL };
    g_autoptr(JsonObject) common = json_object_new();

    for (const BlkOption *option = blk_node_options; option->name; option++) {
        g_autofree char *head = g_strndup(option->name, strcspn(option->name, "."));

        if (json_object_has_member(tree, head)) {
            json_object_set_member(common, head, json_object_dup_member(tree, head));
        }
    }
    return blk_options_parse(tables, common, "node", error);
}

static bool given_or(const BlkOptions *options, const char *name, bool inherited)
{
    return blk_options_has(options, name) ? blk_options_bool(options, name) : inherited;
}

static int flags_from_options(const BlkOptions *options, const OpenParent *parent, BlkOpenFlags *flags, GError **error)
{
    static const BlkOpenFlags none;
    const BlkOpenFlags *above = parent ? parent->flags : &none;
    bool cow = parent && parent->role == BLK_ROLE_COW;

    *flags = (BlkOpenFlags) {
        .read_only = given_or(options, "read-only", above->read_only || cow),
        .auto_read_only = given_or(options, "auto-read-only", above->auto_read_only && !cow),
        .force_share = given_or(options, "force-share", above->force_share),
        .no_flush = given_or(options, "cache.no-flush", above->no_flush),
        .direct = given_or(options, "cache.direct", above->direct),
        .no_backing = given_or(options, "metadata-only", above->no_backing),
        .check_only = given_or(options, "check-only", above->check_only),
        /* Who opens a child has decided already whether to pass discards on. */
        .unmap = blk_options_has(options, "discard") ? blk_options_enum(options, "discard") == 1 : parent != NULL,
        .detect_zeroes = blk_options_enum(options, "detect-zeroes"),
    };
    if (flags->force_share && !flags->read_only) {
        return blk_error(error, -EINVAL, "force-share=on can only be used with read-only images");
    }
    if (flags->detect_zeroes == 2 && !flags->unmap) {
        return blk_error(error, -EINVAL, "detect-zeroes=unmap is not allowed without discard=unmap");
    }
    return 0;
}

static const char *string_member(JsonObject *tree, const char *name)
{
    JsonNode *value = json_object_get_member(tree, name);

    return value && json_node_get_value_type(value) == G_TYPE_STRING ? json_node_get_string(value) : NULL;
}

/* Takes "filename" out of @tree: what its protocol makes of it. */
static JsonObject *take_filename(BlkContext *ctx, JsonObject *tree, GError **error)
{
    const char *filename = string_member(tree, "filename");
    JsonObject *protocol;

    if (!filename) {
        blk_error(error, -EINVAL, "The option 'filename' must be a string");
        return NULL;
    }
    protocol = blk_filename_parse_protocol(ctx, filename, error);
    if (protocol) {
        json_object_remove_member(tree, "filename");
    }
    return protocol;
}

/* {"filename": x} becomes {"file": protocol of x}; for a filter the child is an image in that file. */
static int wrap_filename(BlkContext *ctx, JsonObject *tree, bool filter, GError **error)
{
    JsonObject *protocol = take_filename(ctx, tree, error);

    if (!protocol) {
        return -EINVAL;
    }
    if (filter) {
        JsonObject *image = json_object_new();

        json_object_set_object_member(image, "file", protocol);
        protocol = image;
    }
    json_object_set_object_member(tree, "file", protocol);
    return 0;
}

static void add_member(JsonObject *object, const char *name, JsonNode *value, gpointer tree)
{
    json_object_set_member(tree, name, json_node_copy(value));
}

/* {"filename": x} becomes the protocol of x. */
static int expand_protocol(BlkContext *ctx, JsonObject *tree, GError **error)
{
    g_autoptr(JsonObject) protocol = NULL;

    if (!json_object_has_member(tree, "filename")) {
        return blk_error(error, -EINVAL, "A node needs a 'driver' or a 'filename'");
    }
    protocol = take_filename(ctx, tree, error);
    if (!protocol) {
        return -EINVAL;
    }
    json_object_foreach_member(protocol, add_member, tree);
    return 0;
}

/* ---- which driver ---- */

static const BlkDriver *find_driver(BlkContext *ctx, const char *name, GError **error)
{
    const BlkDriver *driver = blk_driver_find(ctx, name);

    if (!driver) {
        g_autoptr(GPtrArray) names = g_ptr_array_new();
        const char *near;

        for (unsigned i = 0; (driver = blk_driver_nth(ctx, i)); i++) {
            g_ptr_array_add(names, (gpointer)driver->name);
        }
        g_ptr_array_add(names, NULL);
        near = blk_nearest_word(name, (const char *const *)names->pdata);
        blk_error(error, -EINVAL, "Unknown driver '%s'%s%s%s", name, near ? "; did you mean '" : "", near ? near : "",
                  near ? "'?" : "");
    }
    return driver;
}

/* Opens the "file" of @tree, puts its name there instead, and says what it looks like. */
static const BlkDriver *detect_format(BlkContext *ctx, JsonObject *tree, const OpenParent *self, BlkNode **file,
                                      GError **error)
{
    JsonNode *value = json_object_get_member(tree, "file");
    const BlkDriver *driver = NULL;
    g_autofree uint8_t *head = g_malloc0(PROBE_BYTES);
    uint64_t bytes;
    int ret, score;

    if (JSON_NODE_HOLDS_OBJECT(value)) {
        *file = open_tree(ctx, NULL, json_node_get_object(value), self, error);
    } else if (string_member(tree, "file")) {
        BlkNode *found = blk_node_find(ctx, string_member(tree, "file"));

        *file = found ? blk_node_ref(found) : NULL;
        if (!found) {
            blk_error(error, -ENOENT, "Cannot find the node '%s'", string_member(tree, "file"));
        }
    } else {
        blk_error(error, -EINVAL, "The option 'file' must be an object of options or the name of a node");
    }
    if (!*file) {
        return NULL;
    }
    bytes = MIN(PROBE_BYTES, (*file)->length);
    ret = blk_co_pread(*file, 0, bytes, head, 0);
    if (ret < 0) {
        blk_error_errno(error, ret, "Could not read image for determining its format");
    } else {
        driver = blk_driver_probe(ctx, head, bytes, blk_node_filename(*file), &score);
        if (!driver) {
            blk_error(error, -ENOENT, "Could not determine image format: No compatible driver found");
        }
    }
    if (!driver) {
        blk_co_unref(*file);
        *file = NULL;
        return NULL;
    }
    json_object_set_string_member(tree, "file", blk_node_name(*file));
    return driver;
}

/* Completes @tree so far that its driver is known. @file: (out): open already, if the format was detected. */
static const BlkDriver *choose_driver(BlkContext *ctx, JsonObject *tree, bool protocol, const OpenParent *self,
                                      BlkNode **file, GError **error)
{
    const BlkDriver *driver;
    const char *name;

    if (!json_object_has_member(tree, "driver")) {
        if (protocol) {
            if (expand_protocol(ctx, tree, error) < 0) {
                return NULL;
            }
        } else {
            if (!json_object_has_member(tree, "file") && json_object_has_member(tree, "filename") &&
                wrap_filename(ctx, tree, false, error) < 0) {
                return NULL;
            }
            if (!json_object_has_member(tree, "file")) {
                blk_error(error, -EINVAL, "A node needs a 'driver', a 'file' or a 'filename'");
                return NULL;
            }
            return detect_format(ctx, tree, self, file, error);
        }
    }
    name = string_member(tree, "driver");
    if (!name) {
        blk_error(error, -EINVAL, "The option 'driver' must be a string");
        return NULL;
    }
    driver = find_driver(ctx, name, error);
    if (driver && driver->kind != BLK_PROTOCOL && json_object_has_member(tree, "filename") &&
        !json_object_has_member(tree, "file") && !table_has(driver->options, "filename", false) &&
        wrap_filename(ctx, tree, driver->kind == BLK_FILTER && !protocol, error) < 0) {
        return NULL;
    }
    return driver;
}

/* ---- one node ---- */

static int call_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    if (node->driver->co_open) {
        return node->driver->co_open(node, options, error);
    }
    if (node->driver->kind != BLK_FILTER) {
        return 0;
    }
    return blk_co_open_child(node, options, "file", BLK_ROLE_FILTERED, error) ? 0 : -EINVAL;
}

static int finish_open(BlkNode *node, GError **error)
{
    BlkNode *below = blk_node_filtered(node);

    if (below) {
        node->length = below->length;
        node->core->caps_follow = node->caps == below->caps;
    }
    if (node->length > BLK_MAX_LENGTH) {
        return blk_error(error, -EFBIG, "The length of the image is too large: %" G_GUINT64_FORMAT " bytes",
                         node->length);
    }
    blk_limits_refresh(node);
    return blk_perm_refresh(&node, 1, error);
}

int blk_co_open_driver(BlkNode *node, const BlkOptions *options, GError **error)
{
    g_autoptr(GError) local = NULL;
    int ret = call_open(node, options, &local);

    if (ret == 0) {
        ret = finish_open(node, &local);
    }
    if (ret < 0) {
        if (!local) {
            blk_error_errno(&local, ret, "Could not open the node '%s' (%s)", blk_node_name(node), node->driver->name);
        }
        g_propagate_error(error, g_steal_pointer(&local));
    }
    return ret;
}

/* Opens @node, which is complete but for what its driver does. On failure it is gone. */
static BlkNode *run_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    if (!blk_options_bool(options, "active")) {
        blk_node_make_inactive(node);
    } else if (blk_co_open_driver(node, options, error) < 0) {
        blk_co_node_close(node);
        return NULL;
    }
    node->core->open = true;
    return node;
}

static BlkOptions *parse_all(const BlkDriver *driver, JsonObject *tree, GError **error)
{
    const BlkOption *tables[4] = { blk_node_options };
    g_autofree char *what = g_strdup_printf("driver '%s'", driver->name);
    unsigned n = 1;

    if (driver->options) {
        tables[n++] = driver->options;
    }
    if (driver->kind == BLK_FILTER && !table_has_node(driver->options)) {
        tables[n++] = filter_options;
    }
    return blk_options_parse(tables, tree, what, error);
}

static BlkNode *open_with(BlkContext *ctx, const BlkDriver *driver, JsonObject *tree, const char *name, bool detected,
                          bool below_format, const OpenParent *self, GError **error)
{
    g_autoptr(BlkOptions) options = NULL;
    BlkNode *node;

    json_object_set_string_member(tree, "driver", driver->name);
    options = parse_all(driver, tree, error);
    node = options ? blk_node_new(ctx, driver, name, error) : NULL;
    if (!node) {
        return NULL;
    }
    node->core->flags = *self->flags;
    node->core->flags.trusted = !detected && self->trusted;
    node->core->guard_head = detected && !driver->format;
    node->core->below_format = below_format;
    node->core->chain = self->chain;
    node->core->opener = self->node;
    node->core->options = json_object_ref(tree);
    node->read_only = self->flags->read_only;
    return run_open(node, options, error);
}

/* @driver: (nullable): which one, whatever @given says. */
static BlkNode *open_tree(BlkContext *ctx, const BlkDriver *driver, JsonObject *given, const OpenParent *parent,
                          GError **error)
{
    g_autoptr(JsonObject) tree = blk_options_expand(given, error);
    g_autoptr(BlkOptions) common = tree ? parse_common(tree, error) : NULL;
    /* Where a format asks for its file, also through filters, nothing is detected. */
    bool below_format = parent && (parent->role == BLK_ROLE_IMAGE || parent->role == BLK_ROLE_DATA ||
                                   (parent->role == BLK_ROLE_FILTERED && parent->below_format));
    bool detected = tree && !driver && !below_format && !json_object_has_member(tree, "driver");
    BlkOpenFlags flags;
    OpenParent self = {
        .node = parent ? parent->node : NULL,
        .flags = &flags,
        .role = BLK_ROLE_IMAGE,
        .trusted = !parent || parent->trusted,
        .chain = parent ? parent->chain : 0,
    };
    BlkNode *file = NULL, *node;

    if (!common || flags_from_options(common, parent, &flags, error) < 0) {
        return NULL;
    }
    driver = driver ? driver : choose_driver(ctx, tree, below_format, &self, &file, error);
    bool own_file = file && !blk_node_is_shared(file);
    node = driver ? open_with(ctx, driver, tree, blk_options_string(common, "node-name"), detected, below_format, &self,
                              error) : NULL;
    if (node && own_file) {
        file->core->opener = node;      /* it was there first */
    }
    blk_co_unref(file);
    return node;
}

BlkNode *blk_co_open(BlkContext *ctx, JsonObject *options, GError **error)
{
    return open_tree(ctx, NULL, options, NULL, error);
}

BlkNode *blk_co_open_filter(BlkNode *node, const BlkDriver *driver, const char *node_name, GError **error)
{
    g_autoptr(JsonObject) options = json_object_new();

    json_object_set_string_member(options, "file", blk_node_name(node));
    json_object_set_string_member(options, "discard", "unmap");     /* it is for the nodes below to say */
    json_object_set_boolean_member(options, "read-only", node->read_only);
    if (node_name) {
        json_object_set_string_member(options, "node-name", node_name);
    }
    return open_tree(node->ctx, driver, options, NULL, error);
}

/* ---- for nodes that are open already ---- */

BlkOptions *blk_driver_parse_options(const BlkDriver *driver, JsonObject *tree, GError **error)
{
    return parse_all(driver, tree, error);
}

int blk_open_flags_parse(JsonObject *tree, const BlkOpenFlags *above, BlkRole role, BlkOpenFlags *flags, GError **error)
{
    const OpenParent parent = { .flags = above, .role = role };
    g_autoptr(BlkOptions) common = parse_common(tree, error);

    return common ? flags_from_options(common, above ? &parent : NULL, flags, error) : -EINVAL;
}

const BlkOption *blk_driver_child_options(const BlkDriver *driver)
{
    return driver->kind == BLK_FILTER && !table_has_node(driver->options) ? filter_options : driver->options;
}

/* ---- children ---- */

static BlkChild *attach_child(BlkNode *node, BlkNode *child, const char *name, BlkRole role, GError **error)
{
    unsigned below = child->core->below + (role == BLK_ROLE_COW);
    BlkChild *edge = blk_node_child_edge(node, name);      /* of a node that was inactive */
    bool made = !edge;

    if (blk_node_check_depth(below, error) < 0) {
        return NULL;
    }
    if (blk_node_check_child(node, child, error) < 0) {
        return NULL;
    }
    if (role != BLK_ROLE_COW && child->read_only && node->core->flags.auto_read_only) {
        node->read_only = true;
    }
    edge = edge ? edge : blk_edge_new(node, child, name, role);
    if (blk_perm_refresh(&node, 1, error) < 0) {
        if (made) {
            blk_co_edge_free(edge);
        }
        return NULL;
    }
    node->core->below = MAX(node->core->below, below);
    if (role == BLK_ROLE_FILTERED) {
        node->caps = child->caps;
    }
    return edge;
}

typedef struct OpenCall {
    BlkContext *ctx;
    JsonObject *tree;
    const OpenParent *parent;
    GError **error;
    BlkNode *result;
} OpenCall;

static int open_call(void *opaque)
{
    OpenCall *call = opaque;

    call->result = open_tree(call->ctx, NULL, call->tree, call->parent, call->error);
    return 0;
}

static BlkNode *open_on_new_stack(BlkContext *ctx, JsonObject *tree, const OpenParent *parent, GError **error)
{
    OpenCall call = { ctx, tree, parent, error, NULL };

    blk_co_call_fresh(open_call, &call);
    return call.result;
}

static BlkChild *open_and_attach(BlkNode *node, JsonObject *tree, const char *name, BlkRole role, bool trusted,
                                 GError **error)
{
    bool cow = role == BLK_ROLE_COW;
    OpenParent self = {
        .node = node,
        .flags = &node->core->flags,
        .role = role,
        .below_format = node->core->below_format,
        .trusted = trusted,
        .chain = node->core->chain + cow,
    };
    BlkChild *edge = blk_node_child_edge(node, name);
    BlkNode *child;

    if (edge) {                 /* the node was inactive, and the child is open still */
        return attach_child(node, edge->node, name, role, error);
    }
    child = cow ? open_on_new_stack(node->ctx, tree, &self, error) : open_tree(node->ctx, NULL, tree, &self, error);
    if (!child) {
        return NULL;
    }
    edge = attach_child(node, child, name, role, error);
    blk_co_unref(child);
    return edge;
}

BlkChild *blk_co_open_child(BlkNode *node, const BlkOptions *options, const char *name, BlkRole role, GError **error)
{
    JsonNode *value = blk_options_json(options, name);
    BlkNode *child;

    if (!value || JSON_NODE_HOLDS_NULL(value)) {
        blk_error(error, -EINVAL, "The driver '%s' needs the option '%s': a node", node->driver->name, name);
        return NULL;
    }
    if (JSON_NODE_HOLDS_OBJECT(value)) {
        return open_and_attach(node, json_node_get_object(value), name, role, true, error);
    }
    child = blk_node_child(node, name);     /* what is there in the meantime */
    child = child ? child : blk_node_find(node->ctx, json_node_get_string(value));
    if (!child) {
        blk_error(error, -ENOENT, "Cannot find the node '%s' that the option '%s' names", json_node_get_string(value),
                  name);
        return NULL;
    }
    return attach_child(node, child, name, role, error);
}

/* ---- files that an image names ---- */

/* The protocol's node that @node lies in. */
static BlkNode *own_file(BlkNode *node)
{
    return node->file ? blk_node_skip_filters(node->file->node) : node;
}

/* The file name that relative names in @node start from. */
static const char *own_filename(BlkNode *node)
{
    return blk_node_filename(own_file(node));
}

char *blk_node_resolve_name(BlkNode *node, const char *name, GError **error)
{
    bool relative = *name != '\0' && *name != '/' && !blk_filename_has_prefix(name);
    char *url = NULL;

    if (relative && own_file(node)->driver->url_names) {
        url = g_uri_resolve_relative(own_filename(node), name, G_URI_FLAGS_ENCODED | G_URI_FLAGS_PARSE_RELAXED, NULL);
    }
    return url ? url : blk_filename_resolve(own_filename(node), name, error);
}

/* An image whose format was only detected may name nothing but a plain file beside itself. */
static int check_untrusted(BlkNode *node, const char *name, const char *what, GError **error)
{
    g_autofree char *own = g_path_get_dirname(own_filename(node)), *other = g_path_get_dirname(name);
    struct stat own_dir, other_dir, file;
    bool beside = !blk_filename_has_prefix(name) && stat(own, &own_dir) == 0 && stat(other, &other_dir) == 0 &&
                  own_dir.st_dev == other_dir.st_dev && own_dir.st_ino == other_dir.st_ino;

    if (beside && (lstat(name, &file) < 0 || S_ISREG(file.st_mode))) {
        return 0;
    }
    return blk_error(error, -EPERM, "the format of '%s' was detected, not given, and its %s '%s' is no plain "
                     "file in the same directory; give the format '%s' if you trust the image", own_filename(node),
                     what, name, node->driver->name);
}

bool blk_node_is_in_file(BlkNode *node, const char *name)
{
    struct stat st, own;

    return stat(name, &st) == 0 && stat(own_filename(node), &own) == 0 && own.st_dev == st.st_dev &&
           own.st_ino == st.st_ino;
}

/* Whether @name is the file of @node or of one that is being opened above it. */
static bool is_above(BlkNode *node, const char *name)
{
    for (; node; node = node->core->opener) {
        if (node->file && blk_node_is_in_file(node, name)) {
            return true;
        }
    }
    return false;
}

/* What the image's @stored name means, if it may be followed. */
static char *resolve_checked(BlkNode *node, const char *stored, const char *what, bool trusted, GError **error)
{
    g_autofree char *name = blk_node_resolve_name(node, stored, error);

    if (!name || (!trusted && check_untrusted(node, name, what, error) < 0)) {
        return NULL;
    }
    return g_steal_pointer(&name);
}

static int open_backing_name(BlkNode *node, const char *stored, const char *format, GError **error)
{
    g_autofree char *name = resolve_checked(node, stored, "backing file", node->core->flags.trusted, error);
    g_autoptr(JsonObject) tree = NULL;

    if (!name) {
        return -EPERM;
    }
    if (node->core->chain >= BLK_MAX_CHAIN) {
        return blk_error(error, -ELOOP, "the backing chain is longer than %u images", BLK_MAX_CHAIN);
    }
    if (is_above(node, name)) {
        return blk_error(error, -ELOOP, "the backing chain loops: '%s' is already part of it", name);
    }
    tree = blk_options_parse_filename(node->ctx, name, format, error);
    if (!tree) {
        return -EINVAL;
    }
    return open_and_attach(node, tree, "backing", BLK_ROLE_COW, node->core->flags.trusted, error) ? 0 : -EINVAL;
}

/* How a file that an image names is opened. */
typedef struct OpenNamed {
    const char *what;               /* it is, in messages */
    const char *child;              /* name of the edge */
    bool trusted, read_only;
} OpenNamed;

static BlkChild *open_data_name(BlkNode *node, const char *stored, const OpenNamed *how, GError **error)
{
    g_autofree char *name = resolve_checked(node, stored, how->what, how->trusted, error);
    g_autoptr(JsonObject) tree = NULL;

    if (!name) {
        return NULL;
    }
    if (is_above(node, name)) {
        blk_error(error, -ELOOP, "the %s '%s' is the image itself, or one above it", how->what, name);
        return NULL;
    }
    tree = g_str_has_prefix(name, "json:") ? blk_options_parse_filename(node->ctx, name, NULL, error)
                                           : blk_filename_parse_protocol(node->ctx, name, error);
    if (tree && how->read_only) {
        json_object_set_boolean_member(tree, "read-only", true);
    }
    return tree ? open_and_attach(node, tree, how->child, BLK_ROLE_DATA, node->core->flags.trusted, error) : NULL;
}

BlkChild *blk_co_open_data_file(BlkNode *node, const BlkOptions *options, const char *filename, GError **error)
{
    g_autoptr(GError) local = NULL;
    BlkChild *edge;

    if (blk_options_has(options, "data-file")) {
        return blk_co_open_child(node, options, "data-file", BLK_ROLE_DATA, error);
    }
    if (!filename) {
        blk_error(error, -EINVAL, "The image does not name its data file: give the option 'data-file'");
        return NULL;
    }
    const OpenNamed how = { .what = "data file", .child = "data-file", .trusted = node->core->flags.trusted };
    edge = open_data_name(node, filename, &how, &local);
    if (!edge) {
        g_propagate_prefixed_error(error, g_steal_pointer(&local), "Could not open data file '%s': ", filename);
    }
    return edge;
}

BlkChild *blk_co_open_extent(BlkNode *node, const char *name, const char *filename, bool local_only, bool read_only,
                             GError **error)
{
    const OpenNamed how = {
        .what = "extent", .child = name, .trusted = node->core->flags.trusted && !local_only, .read_only = read_only,
    };
    g_autoptr(GError) local = NULL;
    BlkChild *edge = open_data_name(node, filename, &how, &local);

    if (!edge) {
        g_propagate_prefixed_error(error, g_steal_pointer(&local), "Could not open extent '%s': ", filename);
    }
    return edge;
}

/* The code of @error as a negative errno. */
static int error_to_errno(const GError *error)
{
    return error->domain == BLK_ERROR && error->code > 0 ? -error->code : -EINVAL;
}

int blk_co_open_backing(BlkNode *node, const BlkOptions *options, const char *filename, const char *format,
                        GError **error)
{
    static const char prefix[] = "Could not open backing file";
    g_autoptr(GError) local = NULL;
    int ret;

    g_free(node->core->image_backing);
    node->core->image_backing = filename ? blk_node_resolve_name(node, filename, NULL) : NULL;
    if (node->core->flags.no_backing) {
        return 0;
    }
    if (blk_options_has(options, "backing")) {
        JsonNode *value = blk_options_json(options, "backing");

        if (!value || JSON_NODE_HOLDS_NULL(value) ||
            blk_co_open_child(node, options, "backing", BLK_ROLE_COW, &local)) {
            return 0;
        }
        ret = error_to_errno(local);
    } else {
        ret = filename ? open_backing_name(node, filename, format, &local) : 0;
        if (ret == 0) {
            return 0;
        }
        ret = error_to_errno(local);
    }
    if (g_str_has_prefix(local->message, prefix)) {
        g_propagate_error(error, g_steal_pointer(&local));      /* one that lies deeper: said once */
    } else {
        g_propagate_prefixed_error(error, g_steal_pointer(&local), "%s '%s': ", prefix, filename ? filename : "");
    }
    return ret;
}
