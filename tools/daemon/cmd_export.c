/* SPDX-License-Identifier: MIT */
/*
 * cmd_export.c - the NBD server of the daemon, and its exports.
 *
 * An export lives in the server: it is added when the server runs, and goes with it.
 */
#include "daemon/address.h"
#include "daemon/cmd_bitmap.h"

#include "core/iothread.h"
#include "core/options.h"
#include "core/socket.h"

#include <string.h>

static int check_server(Daemon *d, GError **error)
{
    return d->nbd_server ? 0 : blk_error(error, -EINVAL, "NBD server not running");
}

/* ---- the server ---- */

#define SERVER_OPTIONS(address_type)                                                                                      \
    { "addr", BLK_OPTION_JSON, "where to listen: type=inet with host and port, type=unix with path, "                     \
      "type=vsock with cid and port", .required = true,                                                                   \
      .json = &(address_type) },                                                                                          \
    { "tls-creds", BLK_OPTION_STRING, "id of a tls-creds-... object: nobody gets in without TLS" },                       \
    { "tls-authz", BLK_OPTION_STRING, "id of an authz-... object: who is let in" },                                       \
    { "max-connections", BLK_OPTION_UINT, "clients at once; 0: as many as the server allows", "100", .max = UINT32_MAX }
const BlkOption daemon_nbd_server_options[] = { SERVER_OPTIONS(daemon_address_type), { NULL } };
static const BlkOption server_start_options[] = { SERVER_OPTIONS(daemon_legacy_address_type), { NULL } };

static void client_refused(BlkNbdServer *server, const char *text, void *unused)
{
    g_autofree char *printable = tool_printable(text);      /* it may have a name in it that the client chose */

    tool_error("%s", printable);
}

static int co_listen(Daemon *d, BlkNbdServer *server, const DaemonAddress *address, GError **error)
{
    g_autoptr(GArray) sockets = g_array_new(FALSE, FALSE, sizeof(int));
    int ret;

    if (address->path) {
        return blk_nbd_server_listen_unix(server, address->path, error);
    }
    if (address->fd >= 0) {
        return blk_nbd_server_listen_fd(server, address->fd, error);
    }
    if (address->cid) {
        ret = blk_socket_listen_vsock(address->cid, address->port, error);
        return ret < 0 ? ret : blk_nbd_server_listen_fd(server, ret, error);
    }
    ret = daemon_co_listen_tcp(d, address->family, address->host, address->port, address->to, sockets, error);
    for (guint i = 0; i < sockets->len; i++) {
        ret = blk_nbd_server_listen_fd(server, g_array_index(sockets, int, i), error);
    }
    return MIN(ret, 0);
}

int daemon_co_start_nbd_server(Daemon *d, const BlkOptions *args, const DaemonAddress *address, GError **error)
{
    const BlkNbdServerOptions options = {
        .max_connections = blk_options_uint(args, "max-connections"),
        .tls_creds = blk_options_string(args, "tls-creds"),
        .tls_required = blk_options_string(args, "tls-creds"),
        .tls_authz = blk_options_string(args, "tls-authz"),
        .refused = client_refused,
    };
    BlkNbdServer *server;
    int ret;

    if (d->nbd_server) {
        return blk_error(error, -EBUSY, "NBD server already running");
    }
    server = blk_nbd_server_new(d->ctx, &options, error);
    if (!server) {
        return -EINVAL;
    }
    ret = co_listen(d, server, address, error);
    if (ret < 0) {
        blk_co_nbd_server_free(server, NULL);
        return ret;
    }
    d->nbd_server = server;
    return 0;
}

static int co_nbd_server_start(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    g_auto(DaemonAddress) address = DAEMON_ADDRESS_INIT;
    int ret = daemon_parse_legacy_address(d, &address, blk_options_json(args, "addr"), error);

    return ret < 0 ? ret : daemon_co_start_nbd_server(d, args, &address, error);
}

static int co_nbd_server_stop(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    BlkNbdServer *server = d->nbd_server;
    int ret = check_server(d, error);

    if (ret == 0) {
        ret = blk_co_nbd_server_free(server, error);
        d->nbd_server = NULL;
    }
    return ret;
}

/* ---- exports ---- */

const BlkOption daemon_export_options[] = {
    { "type", BLK_OPTION_STRING, "type of the export: nbd", .required = true },
    { "id", BLK_OPTION_STRING, "name of the export, for block-export-del", .required = true },
    { "node-name", BLK_OPTION_STRING, "the node", .required = true },
    { "writable", BLK_OPTION_BOOL, "clients may write", "off" },
    { "writethrough", BLK_OPTION_BOOL, "every write is stable before it is answered", "off" },
    { "iothread", BLK_OPTION_STRING, "id of an iothread object; here all exports run in one thread" },
    { "allow-inactive", BLK_OPTION_BOOL, "the node may be inactive, and become so; else it is made active", "off" },
    { "fixed-iothread", BLK_OPTION_BOOL, "taken, and means nothing here", "off" },
    { NULL },
};

static const BlkOption nbd_options[] = {
    { "name", BLK_OPTION_STRING, "what clients ask for (default: the node's name)" },
    { "description", BLK_OPTION_STRING, "for people" },
    { "bitmaps", BLK_OPTION_JSON, "list of dirty bitmaps to offer: names, or {\"node\": N, \"name\": B}",
      .json = &daemon_bitmaps_type },
    { "allocation-depth", BLK_OPTION_BOOL, "tell clients which image of the backing chain holds what", "off" },
    { NULL },
};

static const char *nth_export_type(Daemon *d, unsigned index)
{
    return index == 0 ? "nbd" : NULL;
}

static const BlkOption *export_type_options(Daemon *d, const char *name)
{
    return strcmp(name, "nbd") == 0 ? nbd_options : NULL;
}

const DaemonVariants daemon_export_variants = { "type", nth_export_type, export_type_options };

/* The thread that was asked for is none, but its name must be right. */
static int check_iothread(Daemon *d, const char *id, GError **error)
{
    BlkObject *object = id ? blk_object_use(d->ctx, id, NULL) : NULL;
    bool found = object && object->type == &blk_object_iothread;

    blk_object_unuse(object);
    return id && !found ? blk_error(error, -ENOENT, "iothread \"%.*s\" not found", 64, id) : 0;
}

/* (transfer full): BlkBitmapRef, with an empty one at the end; NULL with @error set. */
static GArray *find_bitmaps(Daemon *d, const BlkOptions *args, GError **error)
{
    g_autoptr(GArray) refs = g_array_new(TRUE, TRUE, sizeof(BlkBitmapRef));
    JsonArray *list = daemon_options_array(args, "bitmaps");
    guint count = list ? json_array_get_length(list) : 0;

    for (guint i = 0; i < count; i++) {
        BlkBitmapRef ref;

        if (daemon_find_bitmap_ref(d, list, i, &ref, error) < 0) {
            return NULL;
        }
        g_array_append_val(refs, ref);
    }
    return g_steal_pointer(&refs);
}

static int co_add_nbd(Daemon *d, const BlkOptions *args, BlkNode *node, GError **error)
{
    g_autoptr(GArray) bitmaps = find_bitmaps(d, args, error);
    const BlkNbdExportOptions options = {
        .id = blk_options_string(args, "id"),
        .name = blk_options_has(args, "name") ? blk_options_string(args, "name") : blk_node_name(node),
        .description = blk_options_string(args, "description"),
        .writable = blk_options_bool(args, "writable"),
        .writethrough = blk_options_bool(args, "writethrough"),
        .bitmaps = bitmaps ? (const BlkBitmapRef *)(const void *)bitmaps->data : NULL,
        .allow_inactive = blk_options_bool(args, "allow-inactive"),
        .allocation_depth = blk_options_bool(args, "allocation-depth"),
    };

    return bitmaps ? blk_co_nbd_export_add(d->nbd_server, node, &options, error) : -EINVAL;
}

int daemon_co_add_export(Daemon *d, const BlkOptions *args, GError **error)
{
    BlkNode *node = daemon_find_node(d, NULL, blk_options_string(args, "node-name"), error);
    int ret = !node ? -ENOENT : check_server(d, error);

    if (ret == 0 && !blk_id_is_valid(blk_options_string(args, "id"))) {
        ret = blk_error(error, -EINVAL, "Invalid block export id");
    }
    if (ret == 0) {
        ret = check_iothread(d, blk_options_string(args, "iothread"), error);
    }
    if (ret == 0 && !blk_options_bool(args, "allow-inactive")) {
        ret = blk_co_set_active(node, true, error);
    }
    return ret < 0 ? ret : co_add_nbd(d, args, node, error);
}

static int co_export_add(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    return daemon_co_add_export(d, args, error);
}

static const char *const remove_modes[] = { [BLK_NBD_REMOVE_SAFE] = "safe", [BLK_NBD_REMOVE_HARD] = "hard", NULL };

static const BlkOption delete_options[] = {
    { "id", BLK_OPTION_STRING, "the export", .required = true },
    { "mode", BLK_OPTION_ENUM, "what becomes of its clients: safe refuses, hard ends them", "safe", remove_modes },
    { NULL },
};

static int co_export_del(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    const char *id = blk_options_string(args, "id");

    if (!d->nbd_server) {
        return blk_error(error, -ENOENT, "Export '%.*s' is not found", 64, id);
    }
    return blk_co_nbd_export_remove(d->nbd_server, id, blk_options_enum(args, "mode"), error);
}

static int co_query_exports(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    JsonArray *list = json_array_new();
    BlkNbdExportInfo info;

    for (unsigned i = 0; d->nbd_server && blk_nbd_server_nth_export(d->nbd_server, i, &info); i++) {
        JsonObject *object = json_object_new();

        json_object_set_string_member(object, "node-name", blk_node_name(info.node));
        json_object_set_boolean_member(object, "shutting-down", info.closing);
        json_object_set_string_member(object, "type", "nbd");
        json_object_set_string_member(object, "id", info.id);
        json_array_add_object_element(list, object);
    }
    *result = daemon_result_array(list);
    return 0;
}

/* ---- the old commands ---- */

static const BlkOption server_add_options[] = {
    { "device", BLK_OPTION_STRING, "the node", .required = true },
    { "name", BLK_OPTION_STRING, "what clients ask for (default: the node's name)" },
    { "description", BLK_OPTION_STRING, "for people" },
    { "writable", BLK_OPTION_BOOL, "clients may write", "off" },
    { "bitmap", BLK_OPTION_STRING, "a dirty bitmap to offer" },
    { NULL },
};

static int co_server_add(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    const char *device = blk_options_string(args, "device"), *name = blk_options_string(args, "name");
    const BlkBitmapRef bitmaps[] = { { .name = blk_options_string(args, "bitmap") }, { NULL } };
    BlkNode *node = daemon_find_node(d, device, device, error);
    const BlkNbdExportOptions options = {
        .id = name ? name : device,
        .name = name ? name : device,
        .description = blk_options_string(args, "description"),
        .writable = blk_options_bool(args, "writable") && node && !blk_node_read_only(node),
        .bitmaps = bitmaps,
    };
    int ret = !node ? -ENOENT : check_server(d, error);

    return ret < 0 ? ret : blk_co_nbd_export_add(d->nbd_server, node, &options, error);
}

static const BlkOption server_remove_options[] = {
    { "name", BLK_OPTION_STRING, "the export", .required = true },
    { "mode", BLK_OPTION_ENUM, "what becomes of its clients: safe refuses, hard ends them", "safe", remove_modes },
    { NULL },
};

static int co_server_remove(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    int ret = check_server(d, error);

    return ret < 0 ? ret : blk_co_nbd_export_remove(d->nbd_server, blk_options_string(args, "name"),
                                                    blk_options_enum(args, "mode"), error);
}

const DaemonCommand daemon_export_commands[] = {
    { "block-export-add", "offers a node to others", daemon_export_options, co_export_add,
      .variants = &daemon_export_variants },
    { "block-export-del", "ends an export", delete_options, co_export_del },
    { "query-block-exports", "all exports", NULL, co_query_exports, .any_time = true },
    { "nbd-server-start", "starts the NBD server", server_start_options, co_nbd_server_start },
    { "nbd-server-stop", "ends the NBD server and its exports", NULL, co_nbd_server_stop },
    { "nbd-server-add", "offers a node to NBD clients: the older form of block-export-add", server_add_options, co_server_add },
    { "nbd-server-remove", "the older form of block-export-del", server_remove_options, co_server_remove },
    { NULL },
};
