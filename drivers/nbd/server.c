/* SPDX-License-Identifier: MIT */
/*
 * server.c - where an NBD server is: options, names, and what they have in common.
 *
 *     nbd://HOST[:PORT]/EXPORT    nbd+tcp://...    nbd+unix:///EXPORT?socket=PATH
 *     nbds://..., nbds+tcp://..., nbds+unix://...      the same with ?tls-creds=ID
 *     nbd:HOST:PORT[:exportname=EXPORT]    nbd:unix:PATH[:exportname=EXPORT]      as they were before there were URIs
 */
#include "drivers/nbd/nbd.h"

#include "core/tls_creds.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define DEFAULT_PORT "10809"
#define EXPORT_NAME ":exportname="
#define BASE_ALLOCATION "base:allocation"
#define MAX_SOCKET_NAME (sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1)

static const char *const types[] = { "inet", "unix", "fd", NULL };

const BlkOption nbd_options[] = {
    { "filename", BLK_OPTION_STRING, "a name like nbd://HOST:PORT/EXPORT, instead of server, export and tls-creds" },
    { "server.type", BLK_OPTION_ENUM, "how the server is reached", .values = types },
    { "server.path", BLK_OPTION_STRING, "unix: its socket" },
    { "server.host", BLK_OPTION_STRING, "inet: name or address of its host" },
    { "server.port", BLK_OPTION_STRING, "inet: number or name of its port" },
    { "server.str", BLK_OPTION_STRING, "fd: number of a connected socket" },
    { "path", BLK_OPTION_STRING, "short for server.type=unix, server.path" },
    { "host", BLK_OPTION_STRING, "short for server.type=inet, server.host" },
    { "port", BLK_OPTION_STRING, "short for server.port (default " DEFAULT_PORT ")" },
    { "export", BLK_OPTION_STRING, "name of the export" },
    { "tls-creds", BLK_OPTION_STRING, "id of an object with TLS credentials: the server must have TLS" },
    { "tls-hostname", BLK_OPTION_STRING, "name in the server's certificate; it must be that of the host" },
    { "x-dirty-bitmap", BLK_OPTION_STRING, "a metadata context: map shows what is dirty in it with data: false" },
    { "reconnect-delay", BLK_OPTION_UINT, "seconds that requests wait for a server that is gone", .default_text = "0",
      .max = UINT32_MAX },
    { "open-timeout", BLK_OPTION_UINT, "seconds that opening tries to connect; 0: once", .default_text = "0",
      .max = UINT32_MAX },
    { "connections", BLK_OPTION_UINT, "how many, if the server allows more than one", .default_text = "1", .min = 1,
      .max = NBD_MAX_LINKS },
    { NULL },
};

const char *const nbd_prefixes[] = { "nbd", "nbd+tcp", "nbd+unix", "nbds", "nbds+tcp", "nbds+unix", NULL };

/* ---- names to options ---- */

static JsonObject *server_tree(const char *path, const char *host, const char *port, const char *export)
{
    JsonObject *tree = json_object_new(), *server = json_object_new();

    json_object_set_string_member(server, "type", path ? "unix" : "inet");
    if (path) {
        json_object_set_string_member(server, "path", path);
    } else {
        json_object_set_string_member(server, "host", host);
        json_object_set_string_member(server, "port", port);
    }
    json_object_set_object_member(tree, "server", server);
    if (*export) {
        json_object_set_string_member(tree, "export", export);
    }
    return tree;
}

/* nbd:HOST:PORT or nbd:unix:PATH, perhaps with :exportname= */
static JsonObject *parse_old_name(const char *name, GError **error)
{
    const char *rest = name + strlen("nbd:"), *export = strstr(rest, EXPORT_NAME);
    g_autofree char *address = export ? g_strndup(rest, (size_t)(export - rest)) : g_strdup(rest);
    const char *colon;

    export = export ? export + strlen(EXPORT_NAME) : "";
    if (g_str_has_prefix(address, "unix:")) {
        return server_tree(address + strlen("unix:"), NULL, NULL, export);
    }
    colon = strrchr(address, ':');
    if (!colon || colon == address || colon[1] == '\0') {
        blk_error(error, -EINVAL, "'%s' is no name of an NBD server: it lacks a port, as in nbd:HOST:PORT", name);
        return NULL;
    }

    bool brackets = address[0] == '[' && colon[-1] == ']';
    g_autofree char *host = g_strndup(address + brackets, (size_t)(colon - address) - 2 * brackets);

    return server_tree(NULL, host, colon + 1, export);
}

static bool check_params(const char *name, GHashTable *params, bool unix_socket, bool tls, GError **error)
{
    GHashTableIter iter;
    gpointer key;

    g_hash_table_iter_init(&iter, params);
    while (g_hash_table_iter_next(&iter, &key, NULL)) {
        bool of_tls = g_str_equal(key, "tls-creds") || g_str_equal(key, "tls-hostname");
        bool known = g_str_equal(key, "socket") ? unix_socket : of_tls && tls;

        if (!known) {
            blk_error(error, -EINVAL, "'%s' is no name of an NBD server: the parameter '%s' has no meaning there", name,
                      (const char *)key);
            return false;
        }
    }
    return true;
}

static const char *param(GHashTable *params, const char *key)
{
    return g_hash_table_lookup(params, key);
}

static JsonObject *parse_uri(const char *name, GError **error)
{
    g_autoptr(GError) local = NULL;
    g_autoptr(GUri) uri = g_uri_parse(name, G_URI_FLAGS_NONE, &local);
    g_autoptr(GHashTable) params = NULL;
    const char *query = uri ? g_uri_get_query(uri) : NULL, *host, *export;
    g_autofree char *port = NULL;
    JsonObject *tree;

    if (uri) {
        params = query ? g_uri_parse_params(g_uri_get_query(uri), -1, "&;", G_URI_PARAMS_NONE, &local)
                       : g_hash_table_new(g_str_hash, g_str_equal);
    }
    if (!params) {
        blk_error(error, -EINVAL, "'%s' is no name of an NBD server: %s", name, local->message);
        return NULL;
    }

    bool unix_socket = g_str_has_suffix(g_uri_get_scheme(uri), "+unix");
    bool tls = g_str_has_prefix(g_uri_get_scheme(uri), "nbds");

    if (!check_params(name, params, unix_socket, tls, error)) {
        return NULL;
    }
    host = g_uri_get_host(uri) ? g_uri_get_host(uri) : "";
    if (g_uri_get_userinfo(uri) || g_uri_get_fragment(uri) ||
        (unix_socket ? *host || g_uri_get_port(uri) > 0 || !param(params, "socket") : !*host)) {
        blk_error(error, -EINVAL, "'%s' is no name of an NBD server: it should be like %s", name,
                  unix_socket ? "nbd+unix:///EXPORT?socket=PATH" : "nbd://HOST:PORT/EXPORT");
        return NULL;
    }
    if (tls && !param(params, "tls-creds")) {
        blk_error(error, -EINVAL, "'%s' says TLS but not with which credentials: add ?tls-creds=ID, the id of an "
                  "object", name);
        return NULL;
    }
    export = g_uri_get_path(uri) + strspn(g_uri_get_path(uri), "/");
    port = g_uri_get_port(uri) > 0 ? g_strdup_printf("%d", g_uri_get_port(uri)) : g_strdup(DEFAULT_PORT);
    tree = server_tree(param(params, "socket"), host, port, export);
    for (unsigned i = 0; i < 2; i++) {
        static const char *const keys[] = { "tls-creds", "tls-hostname" };

        if (param(params, keys[i])) {
            json_object_set_string_member(tree, keys[i], param(params, keys[i]));
        }
    }
    return tree;
}

JsonObject *nbd_parse_filename(const char *name, GError **error)
{
    if (strstr(name, "://")) {
        return parse_uri(name, error);
    }
    if (g_str_has_prefix(name, "nbd:")) {
        return parse_old_name(name, error);
    }
    blk_error(error, -EINVAL, "'%s' is no name of an NBD server: use nbd://HOST:PORT/EXPORT or "
              "nbd+unix:///EXPORT?socket=PATH", name);
    return NULL;
}

/* ---- options to a server ---- */

/* The option @name, or its short form. NULL: neither. */
static const char *either(const BlkOptions *options, const char *name, const char *other)
{
    return blk_options_has(options, name) ? blk_options_string(options, name) : blk_options_string(options, other);
}

static int choose_transport(NbdServer *server, const BlkOptions *options, GError **error)
{
    bool path = either(options, "server.path", "path"), host = either(options, "server.host", "host");
    bool fd = blk_options_has(options, "server.str");

    if (path + host + fd > 1) {
        return blk_error(error, -EINVAL, "path, host and a socket cannot be given at the same time: each says where "
                         "the NBD server is");
    }
    server->transport = path ? NBD_UNIX : fd ? NBD_FD : NBD_INET;
    if (path + host + fd == 0) {
        return blk_error(error, -EINVAL, "It is not said where the NBD server is: give server.type and server.path, or "
                         "server.host and server.port");
    }
    if (blk_options_has(options, "server.type") && blk_options_enum(options, "server.type") != server->transport) {
        return blk_error(error, -EINVAL, "server.type=%s contradicts the other options, which are those of '%s'",
                         blk_options_string(options, "server.type"), types[server->transport]);
    }
    if (server->transport != NBD_INET && either(options, "server.port", "port")) {
        return blk_error(error, -EINVAL, "A port has no meaning with an NBD server that is not reached by a host");
    }
    return 0;
}

static int init_address(NbdServer *server, const BlkOptions *options, GError **error)
{
    const char *port = either(options, "server.port", "port");
    int ret = choose_transport(server, options, error);
    guint64 fd;

    if (ret < 0) {
        return ret;
    }
    server->path = g_strdup(either(options, "server.path", "path"));
    server->host = g_strdup(either(options, "server.host", "host"));
    server->port = g_strdup(port ? port : DEFAULT_PORT);
    if (server->transport == NBD_UNIX && (*server->path == '\0' || strlen(server->path) > MAX_SOCKET_NAME)) {
        return blk_error(error, -EINVAL, "The name of a socket has 1 to %zu bytes, unlike '%s'", MAX_SOCKET_NAME,
                         server->path);
    }
    if (server->transport == NBD_FD) {
        if (!g_ascii_string_to_unsigned(blk_options_string(options, "server.str"), 10, 0, INT_MAX, &fd, NULL)) {
            return blk_error(error, -EINVAL, "server.str must be the number of a connected socket, not '%s'",
                             blk_options_string(options, "server.str"));
        }
        server->fd = (int)fd;
    }
    return 0;
}

/* Certificates prove a name: there must be one, and no other than libnbd compares. */
static int check_tls(const NbdServer *server, const char *hostname, GError **error)
{
    const BlkTlsCreds *creds = blk_tls_creds(server->tls);

    if (creds->priority || creds->password) {
        return blk_error(error, -ENOTSUP, "The TLS credentials '%s' have a %s, which libnbd cannot be told",
                         server->tls->id, creds->priority ? "priority" : "password");
    }
    if (hostname && g_strcmp0(hostname, server->host) != 0) {
        return blk_error(error, -ENOTSUP, "tls-hostname '%s' is not the host that is connected to, which is the only "
                         "name that libnbd looks for in a certificate", hostname);
    }
    if (!creds->psk && creds->verify_peer && server->transport != NBD_INET) {
        return blk_error(error, -ENOTSUP, "libnbd cannot verify a certificate of a server that is not reached by the "
                         "name of a host: use pre-shared keys, or verify-peer=off if you trust the socket");
    }
    return 0;
}

static int init_tls(NbdServer *server, BlkContext *ctx, const BlkOptions *options, GError **error)
{
    const char *id = blk_options_string(options, "tls-creds"), *hostname = blk_options_string(options, "tls-hostname");

    if (!id) {
        return hostname ? blk_error(error, -EINVAL, "tls-hostname has no meaning without tls-creds") : 0;
    }
    server->tls = blk_tls_creds_use(ctx, id, BLK_TLS_CLIENT, error);
    return server->tls ? check_tls(server, hostname, error) : -EINVAL;
}

static char *make_name(const NbdServer *server)
{
    static const char allowed[] = "/:@!$'()*+,;=";
    g_autofree char *export = g_uri_escape_string(server->export, allowed, true);
    const char *slash = *export ? "/" : "", *s = server->tls ? "s" : "";
    g_autofree char *tls = server->tls ? g_strconcat("tls-creds=", server->tls->id, NULL) : g_strdup("");

    if (server->transport == NBD_FD) {
        return g_strdup_printf("fd:%d", server->fd);
    }
    if (server->transport == NBD_UNIX) {
        g_autofree char *path = g_uri_escape_string(server->path, allowed, true);

        return g_strdup_printf("nbd%s+unix://%s%s?socket=%s%s%s", s, slash, export, path, *tls ? "&" : "", tls);
    }

    bool brackets = strchr(server->host, ':') != NULL;

    return g_strdup_printf("nbd%s://%s%s%s:%s%s%s%s%s", s, brackets ? "[" : "", server->host, brackets ? "]" : "",
                           server->port, slash, export, *tls ? "?" : "", tls);
}

/* The options that "filename" stands for. */
static BlkOptions *options_of_filename(const BlkOptions *options, GError **error)
{
    static const char *const contradict[] = { "server.type", "server.path", "server.host", "server.port", "server.str",
                                              "path", "host", "port", "export", "tls-creds", "tls-hostname" };
    const BlkOption *const tables[] = { nbd_options, NULL };
    g_autoptr(JsonObject) tree = NULL;

    for (unsigned i = 0; i < G_N_ELEMENTS(contradict); i++) {
        if (blk_options_has(options, contradict[i])) {
            blk_error(error, -EINVAL, "'%s' cannot be given together with 'filename', which says it already",
                      contradict[i]);
            return NULL;
        }
    }
    tree = nbd_parse_filename(blk_options_string(options, "filename"), error);
    return tree ? blk_options_parse(tables, tree, "name of an NBD server", error) : NULL;
}

int nbd_server_init(NbdServer *server, BlkContext *ctx, const BlkOptions *options, GError **error)
{
    const char *bitmap = blk_options_string(options, "x-dirty-bitmap");
    g_autoptr(BlkOptions) named = NULL;
    int ret;

    server->fd = -1;
    if (blk_options_has(options, "filename")) {
        named = options_of_filename(options, error);
        if (!named) {
            return -EINVAL;
        }
        options = named;
    }
    server->export = g_strdup(blk_options_string(options, "export"));
    server->export = server->export ? server->export : g_strdup("");
    server->context = g_strdup(bitmap ? bitmap : BASE_ALLOCATION);
    server->asks_bitmap = bitmap != NULL;
    ret = init_address(server, options, error);
    if (ret == 0) {
        ret = init_tls(server, ctx, options, error);
    }
    if (ret == 0) {
        server->name = make_name(server);
    }
    return ret;
}

void nbd_server_clear(NbdServer *server)
{
    blk_object_unuse(server->tls);
    g_free(server->path);
    g_free(server->host);
    g_free(server->port);
    g_free(server->export);
    g_free(server->context);
    g_free(server->name);
    *server = (NbdServer) { .fd = -1 };
}
