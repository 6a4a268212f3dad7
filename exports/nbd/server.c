/* SPDX-License-Identifier: MIT */
/*
 * server.c - the server: its exports, its connections, its end.
 */
#include "exports/nbd/server.h"
#include "exports/nbd/tls.h"

static const char *or_empty(const char *text)
{
    return text ? text : "";
}

/* ---- making ---- */

BlkNbdServer *blk_nbd_server_new(BlkContext *ctx, const BlkNbdServerOptions *options, GError **error)
{
    BlkNbdServer *server = g_new0(BlkNbdServer, 1);

    if (blk_nbd_tls_init(server, ctx, options, error) < 0) {
        blk_nbd_tls_clear(server);
        g_free(server);
        return NULL;
    }
    server->ctx = ctx;
    server->max_connections = options->max_connections ? options->max_connections : BLK_NBD_MAX_CONNECTIONS;
    server->handshake_ns = (options->handshake_seconds ? options->handshake_seconds : 10) * NBD_SECOND_NS;
    server->closed = options->closed;
    server->refused = options->refused;
    server->opaque = options->opaque;
    server->exports = g_ptr_array_new();
    server->listeners = g_ptr_array_new();
    return server;
}

/* ---- exports ---- */

NbdExport *blk_nbd_find_export(const BlkNbdServer *server, NbdString name)
{
    for (guint i = 0; i < server->exports->len; i++) {
        NbdExport *export = server->exports->pdata[i];

        if (!export->closing && blk_nbd_string_is(name, export->base.name)) {
            return export;
        }
    }
    return NULL;
}

static NbdExport *find_by_id(const BlkNbdServer *server, const char *id)
{
    for (guint i = 0; i < server->exports->len; i++) {
        NbdExport *export = server->exports->pdata[i];

        if (strcmp(export->base.id, id) == 0) {
            return export;
        }
    }
    return NULL;
}

static int check_string(const char *text, const char *what, GError **error)
{
    if (strlen(text) > BLK_NBD_MAX_STRING || !g_utf8_validate(text, -1, NULL)) {
        return blk_error(error, -EINVAL, "the %s of an NBD export must be UTF-8 text of at most %d bytes", what,
                         BLK_NBD_MAX_STRING);
    }
    return 0;
}

static int check_export(const BlkNbdServer *server, const BlkNbdExportOptions *options, GError **error)
{
    const char *name = or_empty(options->name), *id = options->id ? options->id : name;
    NbdString wanted = { name, (uint32_t)strlen(name) };
    int ret = check_string(name, "name", error);
    unsigned bitmaps = 0;

    if (ret == 0) {
        ret = check_string(or_empty(options->description), "description", error);
    }
    if (ret < 0) {
        return ret;
    }
    if (find_by_id(server, id)) {
        return blk_error(error, -EEXIST, "Block export id '%s' is already in use", id);
    }
    if (blk_nbd_find_export(server, wanted)) {
        return blk_error(error, -EEXIST, "NBD server already has export named '%s'", name);
    }
    while (options->bitmaps && options->bitmaps[bitmaps].name) {
        bitmaps++;
    }
    if (bitmaps > BLK_NBD_MAX_BITMAPS) {
        return blk_error(error, -EINVAL, "an NBD export can offer at most %d dirty bitmaps", BLK_NBD_MAX_BITMAPS);
    }
    return 0;
}

int blk_co_nbd_export_add(BlkNbdServer *server, BlkNode *node, const BlkNbdExportOptions *options, GError **error)
{
    const char *name = or_empty(options->name);
    const BlkExportOptions base = {
        .id = options->id ? options->id : name, .name = name, .description = options->description,
        .writable = options->writable, .allow_inactive = options->allow_inactive, .bitmaps = options->bitmaps,
    };
    NbdExport *export;
    int ret = check_export(server, options, error);

    if (ret < 0) {
        return ret;
    }
    export = g_new0(NbdExport, 1);
    ret = blk_nbd_tls_use_authz(server, options->tls_authz, &export->tls_authz, error);
    if (ret == 0) {
        ret = blk_co_export_init(&export->base, node, &base, error);
    }
    if (ret == 0) {
        ret = check_export(server, options, error);     /* others may have come meanwhile */
    }
    if (ret < 0) {
        blk_co_export_clear(&export->base, NULL);
        blk_object_unuse(export->tls_authz);
        g_free(export);
        return ret;
    }
    export->max_connections = options->max_connections;
    export->writethrough = options->writethrough;
    export->allocation_depth = options->allocation_depth;
    g_ptr_array_add(server->exports, export);
    return 0;
}

/* Nobody gets in any more; those who are in are let out. */
static int co_remove_export(BlkNbdServer *server, NbdExport *export, GError **error)
{
    JsonObject *data = json_object_new();
    int ret;

    json_object_set_string_member(data, "id", export->base.id);
    export->closing = true;
    blk_nbd_wake_waiters(server, export);
    blk_nbd_co_end_connections(server, export);
    g_ptr_array_remove(server->exports, export);
    ret = blk_co_export_clear(&export->base, error);
    blk_object_unuse(export->tls_authz);
    g_free(export);
    blk_notify(server->ctx, "BLOCK_EXPORT_DELETED", data);
    return ret;
}

int blk_co_nbd_export_remove(BlkNbdServer *server, const char *id, BlkNbdRemove mode, GError **error)
{
    NbdExport *export = find_by_id(server, id);

    if (!export || export->closing) {
        return blk_error(error, -ENOENT, "Export '%s' is not found", id);
    }
    if (mode == BLK_NBD_REMOVE_SAFE && export->connections > 0) {
        return blk_error(error, -EBUSY, "the export '%s' has %u clients: end them, or remove it with mode 'hard'", id,
                         export->connections);
    }
    return co_remove_export(server, export, error);
}

bool blk_nbd_server_nth_export(const BlkNbdServer *server, unsigned index, BlkNbdExportInfo *info)
{
    const NbdExport *export = index < server->exports->len ? server->exports->pdata[index] : NULL;

    if (export) {
        *info = (BlkNbdExportInfo) {
            .id = export->base.id, .name = export->base.name, .description = export->base.description,
            .node = blk_export_node(&export->base), .writable = export->base.writable,
            .closing = export->closing, .connections = export->connections,
        };
    }
    return export != NULL;
}

/* ---- connections ---- */

unsigned blk_nbd_server_connections(const BlkNbdServer *server)
{
    return server->connections.length;
}

unsigned blk_nbd_server_port(const BlkNbdServer *server)
{
    return server->port;
}

void blk_nbd_server_add_client(BlkNbdServer *server, int fd)
{
    blk_nbd_connection_start(server, fd);
}

/* ---- the end ---- */

int blk_co_nbd_server_free(BlkNbdServer *server, GError **error)
{
    int ret = 0;

    if (!server) {
        return 0;
    }
    server->closing = true;
    blk_nbd_co_stop_listening(server);
    blk_nbd_co_end_connections(server, NULL);
    while (server->exports->len > 0) {
        int cleared = co_remove_export(server, server->exports->pdata[0], ret == 0 ? error : NULL);

        ret = ret < 0 ? ret : cleared;
    }
    g_ptr_array_unref(server->exports);
    g_ptr_array_unref(server->listeners);
    blk_nbd_tls_clear(server);
    g_free(server);
    return ret;
}
