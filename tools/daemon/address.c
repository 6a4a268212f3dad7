/* SPDX-License-Identifier: MIT */
/*
 * address.c - addresses of servers.
 */
#include "daemon/address.h"

#include "core/socket.h"

#include <string.h>
#include <sys/socket.h>

static const BlkOption inet_options[] = {
    { "host", BLK_OPTION_STRING, "name or address to listen on; empty: all", .required = true },
    { "port", BLK_OPTION_STRING, "number or name of a service; 0: a free one", .required = true },
    { "numeric", BLK_OPTION_BOOL, "host and port are numbers: no name is looked up", "off" },
    { "to", BLK_OPTION_UINT, "listen on the first free port from port to this one", .max = UINT16_MAX },
    { "ipv4", BLK_OPTION_BOOL, "off: no IPv4; on, without ipv6: nothing else" },
    { "ipv6", BLK_OPTION_BOOL, "off: no IPv6; on, without ipv4: nothing else" },
    { NULL },
};

static const BlkOption unix_options[] = {
    { "path", BLK_OPTION_STRING, "path of the socket", .required = true },
    { NULL },
};

static const BlkOption vsock_options[] = {
    { "cid", BLK_OPTION_STRING, "number of the machine whose address it is: 2 is the host, 4294967295 any", .required = true },
    { "port", BLK_OPTION_STRING, "number", .required = true },
    { NULL },
};

static const BlkOption fd_options[] = {
    { "str", BLK_OPTION_STRING, "number of a file descriptor that the daemon was started with: a socket that listens",
      .required = true },
    { NULL },
};

static const struct {
    const char *name;
    const BlkOption *options;
} types[] = {
    { "inet", inet_options },
    { "unix", unix_options },
    { "vsock", vsock_options },
    { "fd", fd_options },
};

static const char *nth_type(Daemon *d, unsigned index)
{
    return index < G_N_ELEMENTS(types) ? types[index].name : NULL;
}

static const BlkOption *type_options(Daemon *d, const char *name)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(types); i++) {
        if (strcmp(types[i].name, name) == 0) {
            return types[i].options;
        }
    }
    return NULL;
}

static const BlkOption flat_options[] = {
    { "type", BLK_OPTION_STRING, "inet, unix, vsock or fd", .required = true },
    { NULL },
};

static const BlkOption legacy_options[] = {
    { "type", BLK_OPTION_STRING, "inet, unix, vsock or fd", .required = true },
    { "data", BLK_OPTION_JSON, "what belongs to the type", .required = true },
    { NULL },
};

static const DaemonVariants variants = { "type", nth_type, type_options };
static const DaemonVariants legacy_variants = { "type", nth_type, type_options, .wrapper = "data" };

const BlkType daemon_address_type = { "SocketAddress", BLK_TYPE_OBJECT, flat_options, &variants };
const BlkType daemon_legacy_address_type = { "SocketAddressLegacy", BLK_TYPE_OBJECT, flat_options, &legacy_variants };

int daemon_address_family(const BlkOptions *options)
{
    bool given4 = blk_options_has(options, "ipv4"), given6 = blk_options_has(options, "ipv6");
    bool with4 = given4 ? blk_options_bool(options, "ipv4") : !given6 || !blk_options_bool(options, "ipv6");
    bool with6 = given6 ? blk_options_bool(options, "ipv6") : !given4 || !blk_options_bool(options, "ipv4");

    return with4 == with6 ? AF_UNSPEC : with4 ? AF_INET : AF_INET6;
}

int daemon_co_listen_tcp(Daemon *d, int family, const char *host, const char *port, const char *to, GArray *sockets,
                         GError **error)
{
    guint64 first = 0, last = 0;
    int ret = -EADDRINUSE;

    if (!to) {
        return blk_co_socket_listen_tcp(d->ctx, family, host, port, sockets, error);
    }
    if (!g_ascii_string_to_unsigned(port, 10, 1, UINT16_MAX, &first, NULL) ||
        !g_ascii_string_to_unsigned(to, 10, first, UINT16_MAX, &last, NULL)) {
        return blk_error(error, -EINVAL, "'port' (%.*s) and 'to' (%.*s) must be numbers from 1 to 65535 that make a range", 64, port,
                         64, to);
    }
    for (guint64 n = first; n <= last && ret == -EADDRINUSE; n++) {
        g_autofree char *text = g_strdup_printf("%u", (unsigned)n);
        g_autoptr(GError) local = NULL;

        ret = blk_co_socket_listen_tcp(d->ctx, family, host, text, sockets, &local);
        if (ret < 0 && (ret != -EADDRINUSE || n == last)) {
            g_propagate_error(error, g_steal_pointer(&local));
        }
    }
    return ret;
}

static int parse_fd(DaemonAddress *address, const char *text, GError **error)
{
    gint64 fd;

    if (!g_ascii_string_to_signed(text, 10, 0, INT_MAX, &fd, NULL)) {
        return blk_error(error, -EINVAL, "'%.*s' is no number of a file descriptor", 64, text);
    }
    address->fd = (int)fd;
    return 0;
}

/* What numeric=on asks for. */
static int check_numeric(const DaemonAddress *address, GError **error)
{
    guint64 port;

    if ((*address->host && !g_hostname_is_ip_address(address->host)) ||
        !g_ascii_string_to_unsigned(address->port, 10, 0, UINT16_MAX, &port, NULL)) {
        return blk_error(error, -EINVAL, "numeric=on needs an IP address and the number of a port, not '%.*s' and '%.*s'", 64, address->host,
                         64, address->port);
    }
    return 0;
}

static int take_options(DaemonAddress *address, const char *type, const BlkOptions *options, GError **error)
{
    if (strcmp(type, "unix") == 0) {
        address->path = g_strdup(blk_options_string(options, "path"));
        return 0;
    }
    if (strcmp(type, "fd") == 0) {
        return parse_fd(address, blk_options_string(options, "str"), error);
    }
    if (strcmp(type, "vsock") == 0) {
        address->cid = g_strdup(blk_options_string(options, "cid"));
        address->port = g_strdup(blk_options_string(options, "port"));
        return 0;
    }
    address->host = g_strdup(blk_options_string(options, "host"));
    address->port = g_strdup(blk_options_string(options, "port"));
    if (blk_options_bool(options, "numeric") && check_numeric(address, error) < 0) {
        return -EINVAL;
    }
    if (blk_options_has(options, "to")) {
        address->to = g_strdup_printf("%u", (unsigned)blk_options_uint(options, "to"));
    }
    address->family = daemon_address_family(options);
    if (*address->host == '\0') {
        g_clear_pointer(&address->host, g_free);
    }
    return 0;
}

/* (transfer none) (nullable) */
static JsonObject *get_object(JsonNode *node, const char *path, GError **error)
{
    if (!JSON_NODE_HOLDS_OBJECT(node)) {
        blk_error(error, -EINVAL, "Invalid parameter type for '%s', expected: object", path);
        return NULL;
    }
    return json_node_get_object(node);
}

int daemon_parse_address(Daemon *d, DaemonAddress *address, JsonNode *node, bool words, GError **error)
{
    JsonObject *object = get_object(node, "addr", error);
    g_autoptr(BlkOptions) options = object ? daemon_parse_variants(d, flat_options, &variants, object, "addr", words, error)
                                           : NULL;

    return options ? take_options(address, blk_options_string(options, "type"), options, error) : -EINVAL;
}

int daemon_parse_legacy_address(Daemon *d, DaemonAddress *address, JsonNode *node, GError **error)
{
    const BlkOption *outer_tables[] = { legacy_options, NULL }, *tables[] = { NULL, NULL };
    JsonObject *object = get_object(node, "addr", error), *data;
    g_autoptr(BlkOptions) outer = NULL, options = NULL;

    tables[0] = object ? daemon_find_variant(d, &variants, object, "addr", error) : NULL;
    outer = tables[0] ? daemon_parse_arguments(outer_tables, object, "addr", error) : NULL;
    data = outer ? get_object(blk_options_json(outer, "data"), "addr.data", error) : NULL;
    options = data ? daemon_parse_arguments(tables, data, "addr.data", error) : NULL;
    if (options && strcmp(blk_options_string(outer, "type"), "fd") == 0) {
        return blk_error(error, -ENOENT, "File descriptor named '%.*s' has not been found", 64, blk_options_string(options, "str"));
    }
    return options ? take_options(address, blk_options_string(outer, "type"), options, error) : -EINVAL;
}

void daemon_address_clear(DaemonAddress *address)
{
    g_free(address->path);
    g_free(address->host);
    g_free(address->port);
    g_free(address->to);
    g_free(address->cid);
    *address = (DaemonAddress) DAEMON_ADDRESS_INIT;
}
