/* SPDX-License-Identifier: MIT */
/*
 * chardev.c - where clients come from: sockets that listen, one that is connected, standard input and output, files.
 *
 * Limitations: no websockets; TLS only for servers; a chardev has one user, a monitor.
 */
#include "daemon/address.h"
#include "daemon/chardev.h"

#include "core/options.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PAUSE_NS    UINT64_C(100000000)     /* when no descriptor is left */

const BlkOption chardev_options[] = {
    { "backend", BLK_OPTION_STRING, "type of the chardev", .required = true },
    { "id", BLK_OPTION_STRING, "name of the chardev, for --monitor", .required = true },
    { "logfile", BLK_OPTION_STRING, "a file that gets what is said to clients, too" },
    { "logappend", BLK_OPTION_BOOL, "write behind what is in logfile; else that is lost", "off" },
    { NULL },
};

/* ---- clients ---- */

static void hand_over(Chardev *chardev, BlkChannel *channel)
{
    chardev->clients++;
    chardev->connected(chardev, channel, chardev->user);
}

void chardev_client_gone(Chardev *chardev)
{
    chardev->clients--;
    blk_co_queue_wake_all(&chardev->d->changed);
}

static void co_accept_one(ChardevListener *listener)
{
    int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd >= 0 && listener->chardev->tls_creds) {
        listener->chardev->clients++;
        chardev_tls_begin(listener->chardev, fd);
    } else if (fd >= 0) {
        hand_over(listener->chardev, blk_channel_new(fd));
    } else if (errno == EAGAIN) {
        blk_co_poll(&listener->poll, listener->fd, POLLIN, UINT64_MAX);
    } else if (errno != ECONNABORTED && errno != EINTR) {
        blk_co_sleep_cancellable(&listener->pause, blk_clock_ns() + PAUSE_NS);
    }
}

static int co_accept(void *opaque)
{
    ChardevListener *listener = opaque;
    Daemon *d = listener->chardev->d;

    while (!d->over) {
        if (listener->chardev->clients < CHARDEV_MAX_CLIENTS) {
            co_accept_one(listener);
        } else {
            blk_co_queue_wait(&d->changed);
        }
    }
    daemon_end(d);
    return 0;
}

/* The server that a socket is connected to: a descriptor, or a negative errno. */
static int co_connect_to(Chardev *chardev, GError **error)
{
    BlkContext *ctx = chardev->d->ctx;

    if (chardev->again.unix_path) {
        return blk_co_socket_connect_unix(ctx, chardev->again.unix_path, error);
    }
    if (chardev->again.cid) {
        return blk_co_socket_connect_vsock(ctx, chardev->again.cid, chardev->again.port, error);
    }
    return blk_co_socket_connect_tcp(ctx, chardev->again.family, chardev->again.host, chardev->again.port, error);
}

/* One client at a time, again and again. Of attempts that fail one after another only the first is told of. */
static int co_reconnect(void *opaque)
{
    Chardev *chardev = opaque;
    Daemon *d = chardev->d;
    bool told = false;

    while (!d->over) {
        g_autoptr(GError) error = NULL;
        int fd = co_connect_to(chardev, &error);

        if (fd >= 0) {
            hand_over(chardev, blk_channel_new(fd));
        } else if (!told) {
            tool_error("Unable to connect character device %s: %s", chardev->id, error->message);
        }
        told = fd < 0;
        while (chardev->clients > 0 && !d->over) {
            blk_co_queue_wait(&d->changed);
        }
        if (!d->over) {
            blk_co_sleep_cancellable(&chardev->again.pause, blk_clock_ns() + chardev->again.pause_ns);
        }
    }
    daemon_end(d);
    return 0;
}

int chardev_use(Chardev *chardev, void (*connected)(Chardev *chardev, BlkChannel *channel, void *user), void *user,
                GError **error)
{
    BlkChannel *channel = g_steal_pointer(&chardev->channel);

    if (chardev->connected) {
        return blk_error(error, -EBUSY, "Device '%s' is in use", chardev->id);
    }
    chardev->connected = connected;
    chardev->user = user;
    if (channel) {
        hand_over(chardev, channel);
    }
    for (guint i = 0; i < chardev->listeners->len; i++) {
        daemon_begin(chardev->d);
        blk_co_spawn(chardev->d->ctx, co_accept, chardev->listeners->pdata[i]);
    }
    if (chardev->again.pause_ns > 0) {
        daemon_begin(chardev->d);
        blk_co_spawn(chardev->d->ctx, co_reconnect, chardev);
    }
    return 0;
}

/* ---- sockets ---- */

static const BlkOption socket_options[] = {
    { "path", BLK_OPTION_STRING, "path of a unix socket" },
    { "fd", BLK_OPTION_STRING, "number of a socket that the daemon was started with: one that listens, or is connected" },
    { "cid", BLK_OPTION_STRING, "number of the machine of a vsock: 2 is the host; a server: 4294967295 is any" },
    { "host", BLK_OPTION_STRING, "name or address of a TCP socket; a server without one listens on all addresses" },
    { "port", BLK_OPTION_STRING, "its port, a number or the name of a service; 0: a free one; of a vsock: a number" },
    { "to", BLK_OPTION_STRING, "a server listens on the first free port from port to this one" },
    { "ipv4", BLK_OPTION_BOOL, "off: no IPv4; on, without ipv6: nothing else" },
    { "ipv6", BLK_OPTION_BOOL, "off: no IPv6; on, without ipv4: nothing else" },
    { "server", BLK_OPTION_BOOL, "listen; else connect", "off" },
    { "wait", BLK_OPTION_BOOL, "a server goes on with the command line when the first client has come (default: on)" },
    { "reconnect", BLK_OPTION_UINT, "seconds after which a connection that failed or was lost is tried again; 0: never", "0",
      .max = G_MAXUINT32 },
    { "telnet", BLK_OPTION_BOOL, "clients of a server speak the telnet protocol", "off" },
    { "tls-creds", BLK_OPTION_STRING, "id of a tls-creds-... object: clients of a server speak TLS" },
    { "tls-authz", BLK_OPTION_STRING, "id of an authz-... object: who of them is let in" },
    { "websocket", BLK_OPTION_BOOL, "not supported", "off" },
    { "tn3270", BLK_OPTION_BOOL, "not supported", "off" },
    { "nodelay", BLK_OPTION_BOOL, "do not delay small packets, as is always done here", "off" },
    { NULL },
};

static ChardevListener *add_listener(Chardev *chardev, int fd)
{
    ChardevListener *listener = g_new0(ChardevListener, 1);

    listener->chardev = chardev;
    listener->fd = fd;
    g_ptr_array_add(chardev->listeners, listener);
    return listener;
}

static int adopt(Chardev *chardev, const char *text, bool server, GError **error)
{
    gint64 fd;
    int ret;

    if (!g_ascii_string_to_signed(text, 10, 0, INT_MAX, &fd, NULL)) {
        return blk_error(error, -EINVAL, "Unable to parse FD number %.*s", 64, text);
    }
    ret = blk_socket_adopt((int)fd, server, error);
    if (ret < 0) {
        return ret;
    }
    if (server) {
        add_listener(chardev, (int)fd);
    } else {
        chardev->channel = blk_channel_new((int)fd);
    }
    chardev->filename = g_strdup_printf("%sfd:%s%s", server ? "disconnected:" : "", text, server ? ",server=on" : "");
    return 0;
}

static int co_listen(Chardev *chardev, const BlkOptions *options, GError **error)
{
    const char *path = blk_options_string(options, "path"), *host = blk_options_string(options, "host");
    const char *cid = blk_options_string(options, "cid"), *port = blk_options_string(options, "port");
    g_autoptr(GArray) sockets = g_array_new(FALSE, FALSE, sizeof(int));
    int ret;

    if (path) {
        ret = blk_socket_listen_unix(path, &chardev->path, error);
        if (ret >= 0) {
            add_listener(chardev, ret);
            chardev->filename = g_strdup_printf("disconnected:%s:%s,server=on", chardev->telnet ? "telnet" : "unix", path);
        }
        return MIN(ret, 0);
    }
    if (cid) {
        ret = blk_socket_listen_vsock(cid, port, error);
        if (ret >= 0) {
            add_listener(chardev, ret);
            chardev->filename = g_strdup_printf("disconnected:vsock:%s:%s,server=on", cid, port);
        }
        return MIN(ret, 0);
    }
    ret = daemon_co_listen_tcp(chardev->d, daemon_address_family(options), host, port, blk_options_string(options, "to"), sockets,
                               error);
    for (guint i = 0; i < sockets->len; i++) {
        add_listener(chardev, g_array_index(sockets, int, i));
    }
    if (ret >= 0) {
        chardev->filename = g_strdup_printf("disconnected:%s:%s:%d,server=on", chardev->telnet ? "telnet" : "tcp", host ? host : "", ret);
    }
    return MIN(ret, 0);
}

/* Until somebody is there to be accepted. */
static void co_wait_for_client(Chardev *chardev)
{
    ChardevListener *listener = chardev->listeners->pdata[0];

    tool_error("info: waiting for a connection on: %s", chardev->filename);
    while (!chardev->d->over && blk_co_poll(&listener->poll, listener->fd, POLLIN, UINT64_MAX) < 0) {
        blk_co_sleep_cancellable(&listener->pause, blk_clock_ns() + PAUSE_NS);
    }
}

static int co_connect(Chardev *chardev, const BlkOptions *options, GError **error)
{
    const char *path = blk_options_string(options, "path"), *host = blk_options_string(options, "host");
    const char *port = blk_options_string(options, "port"), *cid = blk_options_string(options, "cid");
    int fd;

    chardev->filename = path ? g_strdup_printf("unix:%s", path)
                        : g_strdup_printf("%s:%s:%s", cid ? "vsock" : "tcp", cid ? cid : host, port);
    chardev->again.unix_path = g_strdup(path);
    chardev->again.cid = g_strdup(cid);
    chardev->again.host = g_strdup(host);
    chardev->again.port = g_strdup(port);
    chardev->again.family = daemon_address_family(options);
    if (blk_options_uint(options, "reconnect") > 0) {
        chardev->again.pause_ns = blk_options_uint(options, "reconnect") * UINT64_C(1000000000);
        return 0;
    }
    fd = co_connect_to(chardev, error);
    if (fd >= 0) {
        chardev->channel = blk_channel_new(fd);
    }
    return MIN(fd, 0);
}

static int check_socket(const BlkOptions *options, bool server, GError **error)
{
    bool path = blk_options_has(options, "path"), fd = blk_options_has(options, "fd");
    bool host = blk_options_has(options, "host"), port = blk_options_has(options, "port"), cid = blk_options_has(options, "cid");

    if (path + fd + host + cid > 1) {
        return blk_error(error, -EINVAL, "None or one of 'path', 'fd'%s or 'host' option required.", cid ? ", 'cid'" : "");
    }
    if (!path && !fd && !port) {
        return blk_error(error, -EINVAL, "chardev: socket: no port given");
    }
    if (!path && !fd && !host && !cid && !server) {
        return blk_error(error, -EINVAL, "chardev: socket: no host given");
    }
    if (blk_options_bool(options, "websocket") || blk_options_bool(options, "tn3270")) {
        return blk_error(error, -ENOTSUP, "'websocket' and 'tn3270' are not supported: monitors speak JSON over a plain socket, or "
                         "with 'telnet'");
    }
    if (blk_options_uint(options, "reconnect") > 0 && (server || fd)) {
        return blk_error(error, -EINVAL, "'reconnect' option is incompatible with %s",
                         server ? "socket in server listen mode" : "'fd'");
    }
    if (blk_options_has(options, "to") && (!server || path || fd || cid)) {
        return blk_error(error, -EINVAL, "'to' needs a TCP server: server=on and 'port'");
    }
    if (!server && blk_options_has(options, "wait")) {
        return blk_error(error, -EINVAL, "'wait' option is incompatible with socket in client connect mode");
    }
    return 0;
}

static int co_open_socket(Chardev *chardev, const BlkOptions *options, GError **error)
{
    const char *fd = blk_options_string(options, "fd");
    bool server = blk_options_bool(options, "server");
    int ret = check_socket(options, server, error);

    ret = ret < 0 ? ret : chardev_tls_use(chardev, options, error);
    chardev->telnet = server && blk_options_bool(options, "telnet");
    if (ret == 0 && fd) {
        ret = adopt(chardev, fd, server, error);
    } else if (ret == 0) {
        ret = server ? co_listen(chardev, options, error) : co_connect(chardev, options, error);
    }
    if (ret == 0 && server && (!blk_options_has(options, "wait") || blk_options_bool(options, "wait"))) {
        co_wait_for_client(chardev);
    }
    return ret;
}

/* ---- standard input and output ---- */

static const BlkOption stdio_options[] = {
    { "signal", BLK_OPTION_BOOL, "keys of a terminal may send signals; off is not supported", "on" },
    { NULL },
};

static int co_open_stdio(Chardev *chardev, const BlkOptions *options, GError **error)
{
    if (chardev->d->args->daemonize) {
        return blk_error(error, -EINVAL, "cannot use stdio with --daemonize");
    }
    if (!blk_options_bool(options, "signal")) {
        return blk_error(error, -ENOTSUP, "signal=off is not supported");
    }
    for (guint i = 0; i < chardev->d->chardevs->len; i++) {
        const Chardev *other = chardev->d->chardevs->pdata[i];

        if (other != chardev && other->type == chardev->type) {
            return blk_error(error, -EBUSY, "standard input and output belong to another chardev already");
        }
    }
    chardev->channel = blk_channel_new_pipe(STDIN_FILENO, STDOUT_FILENO);
    chardev->filename = g_strdup("stdio");
    return chardev->channel ? 0 : blk_error(error, -EBADF, "standard input and output are not open");
}

/* ---- nothing, and files ---- */

static const BlkOption null_options[] = {
    { NULL },
};

static int co_open_null(Chardev *chardev, const BlkOptions *options, GError **error)
{
    chardev->filename = g_strdup("null");
    return 0;
}

static const BlkOption file_options[] = {
    { "path", BLK_OPTION_STRING, "the file that gets what the monitor says; it hears nothing" },
    { "append", BLK_OPTION_BOOL, "write behind what is in the file; else that is lost", "off" },
    { NULL },
};

static int co_open_file(Chardev *chardev, const BlkOptions *options, GError **error)
{
    const char *path = blk_options_string(options, "path");
    int mode = blk_options_bool(options, "append") ? O_APPEND : O_TRUNC, in, out;

    if (!path) {
        return blk_error(error, -EINVAL, "chardev: file: no filename given");
    }
    out = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | mode, 0666);
    if (out < 0) {
        return blk_error_errno(error, -errno, "Could not open '%s'", path);
    }
    in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    chardev->channel = blk_channel_new_pipe(in, out);
    close(out);
    if (in >= 0) {
        close(in);
    }
    chardev->filename = g_strdup("file");
    return chardev->channel ? 0 : blk_error(error, -EMFILE, "Could not open '%s': no descriptors are left", path);
}

/* ---- named pipes ---- */

static const BlkOption pipe_options[] = {
    { "path", BLK_OPTION_STRING, "commands come from the pipe PATH.in, replies go to PATH.out, both of which are there; or PATH for both" },
    { NULL },
};

/* Both directions, so that opening waits for nobody, and others may come and go. */
static int open_pipe(const char *path, const char *suffix)
{
    g_autofree char *name = g_strconcat(path, suffix, NULL);

    return open(name, O_RDWR | O_CLOEXEC);
}

static void close_if_open(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

static int co_open_pipe(Chardev *chardev, const BlkOptions *options, GError **error)
{
    const char *path = blk_options_string(options, "path");
    int in, out, both, ret;

    if (!path) {
        return blk_error(error, -EINVAL, "chardev: pipe: no device path given");
    }
    in = open_pipe(path, ".in");
    out = open_pipe(path, ".out");
    both = in < 0 || out < 0 ? open_pipe(path, "") : -1;
    if (both < 0 && (in < 0 || out < 0)) {
        ret = blk_error_errno(error, -errno, "Could not open '%s.in' and '%s.out', nor '%s'", path, path, path);
    } else {
        chardev->channel = both >= 0 ? blk_channel_new_pipe(both, both) : blk_channel_new_pipe(in, out);
        ret = chardev->channel ? 0 : blk_error(error, -EMFILE, "Could not open '%s': no descriptors are left", path);
    }
    close_if_open(in);
    close_if_open(out);
    close_if_open(both);
    chardev->filename = g_strdup("pipe");
    return ret;
}

/* ---- the log ---- */

static int open_log(Chardev *chardev, const BlkOptions *options, GError **error)
{
    const char *path = blk_options_string(options, "logfile");
    int mode = blk_options_bool(options, "logappend") ? O_APPEND : O_TRUNC;

    chardev->log = path ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC | mode, 0666) : -1;
    return path && chardev->log < 0 ? blk_error_errno(error, -errno, "Unable to open logfile %s", path) : 0;
}

void chardev_log(const Chardev *chardev, const void *data, size_t bytes)
{
    const char *at = data;

    while (chardev->log >= 0 && bytes > 0) {
        ssize_t written = write(chardev->log, at, bytes);

        if (written <= 0 && errno != EINTR) {
            return;                 /* a log that is full is no reason to say less to clients */
        }
        at += MAX(written, 0);
        bytes -= (size_t)MAX(written, 0);
    }
}

/* ---- making ---- */

static const ChardevType types[] = {
    { "socket", "a socket that listens or connects, unix, TCP or vsock", socket_options, co_open_socket },
    { "stdio", "standard input and output", stdio_options, co_open_stdio },
    { "file", "a file that what is said is written to", file_options, co_open_file },
    { "pipe", "named pipes", pipe_options, co_open_pipe },
    { "null", "nobody", null_options, co_open_null },
};

const ChardevType *chardev_type_nth(unsigned index)
{
    return index < G_N_ELEMENTS(types) ? &types[index] : NULL;
}

const ChardevType *chardev_type_find(const char *name)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(types); i++) {
        if (strcmp(types[i].name, name) == 0) {
            return &types[i];
        }
    }
    return NULL;
}

Chardev *chardev_find(Daemon *d, const char *id)
{
    for (guint i = 0; i < d->chardevs->len; i++) {
        Chardev *chardev = d->chardevs->pdata[i];

        if (strcmp(chardev->id, id) == 0) {
            return chardev;
        }
    }
    return NULL;
}

/* The old way to write `wait=off` is `nowait`. */
static void expand_short_forms(JsonObject *options)
{
    for (const BlkOption *option = socket_options; option->name; option++) {
        g_autofree char *negated = g_strconcat("no", option->name, NULL);

        if (option->type == BLK_OPTION_BOOL && json_object_has_member(options, negated)) {
            json_object_remove_member(options, negated);
            json_object_set_string_member(options, option->name, "off");
        }
    }
}

static void chardev_free(Chardev *chardev)
{
    for (guint i = 0; i < chardev->listeners->len; i++) {
        ChardevListener *listener = chardev->listeners->pdata[i];

        close(listener->fd);
        g_free(listener);
    }
    g_ptr_array_unref(chardev->listeners);
    blk_socket_path_remove(&chardev->path);
    blk_channel_free(chardev->channel);
    chardev_tls_clear(chardev);
    if (chardev->log >= 0) {
        close(chardev->log);
    }
    g_free(chardev->again.unix_path);
    g_free(chardev->again.cid);
    g_free(chardev->again.host);
    g_free(chardev->again.port);
    g_free(chardev->filename);
    g_free(chardev->id);
    g_free(chardev);
}

static int co_make(Daemon *d, const ChardevType *type, JsonObject *given, GError **error)
{
    const BlkOption *tables[] = { chardev_options, type->options, NULL };
    g_autoptr(BlkOptions) options = blk_options_parse(tables, given, "chardev", error);
    Chardev *chardev;
    int ret;

    if (!options) {
        return -EINVAL;
    }
    if (chardev_find(d, blk_options_string(options, "id"))) {
        return blk_error(error, -EEXIST, "Chardev with id '%s' already exists", blk_options_string(options, "id"));
    }
    chardev = g_new0(Chardev, 1);
    chardev->d = d;
    chardev->type = type;
    chardev->id = g_strdup(blk_options_string(options, "id"));
    chardev->listeners = g_ptr_array_new();
    g_ptr_array_add(d->chardevs, chardev);
    ret = open_log(chardev, options, error);
    ret = ret < 0 ? ret : type->co_open(chardev, options, error);
    if (ret < 0) {
        g_ptr_array_remove(d->chardevs, chardev);
        chardev_free(chardev);
    }
    return ret;
}

int chardev_co_add(Daemon *d, const char *text, GError **error)
{
    g_autoptr(JsonObject) options = blk_options_parse_keyval(text, "backend", error);
    const char *name = options ? json_object_get_string_member_with_default(options, "backend", "") : NULL;
    const ChardevType *type = name ? chardev_type_find(name) : NULL;

    if (!options) {
        return -EINVAL;
    }
    if (!type) {
        return blk_error(error, -EINVAL, "'%s' is not a valid char driver name", name);
    }
    if (!json_object_has_member(options, "id")) {
        return blk_error(error, -EINVAL, "chardev: no id specified");
    }
    if (!blk_id_is_valid(json_object_get_string_member_with_default(options, "id", ""))) {
        return blk_error(error, -EINVAL, "Parameter 'id' expects an identifier\n"
                         "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.");
    }
    expand_short_forms(options);
    return co_make(d, type, options, error);
}

/* ---- the end ---- */

void chardev_stop_all(Daemon *d)
{
    for (guint i = 0; i < d->chardevs->len; i++) {
        Chardev *chardev = d->chardevs->pdata[i];

        blk_sleep_cancel(&chardev->again.pause);
        chardev_tls_stop(chardev);
        for (guint j = 0; j < chardev->listeners->len; j++) {
            ChardevListener *listener = chardev->listeners->pdata[j];

            blk_poll_cancel(&listener->poll);
            blk_sleep_cancel(&listener->pause);
        }
    }
    blk_co_queue_wake_all(&d->changed);
}

void chardev_free_all(Daemon *d)
{
    for (guint i = 0; i < d->chardevs->len; i++) {
        chardev_free(d->chardevs->pdata[i]);
    }
    g_ptr_array_set_size(d->chardevs, 0);
}
