/* SPDX-License-Identifier: MIT */
/*
 * monitor.c - a client of a monitor: commands in, replies and events out.
 *
 *     reader:  receive -> json_stream -> dispatch -> queue a reply -> wait until the queue is short -> receive ...
 *     notices: ------------------------------------> queue an event, unless the queue is long
 *     writer:  queue -> send
 *
 * A client's commands run one after another. The memory of a client is bounded: by one text of JSON, one reply, and
 * MONITOR_QUEUE_BYTES.
 */
#include "daemon/monitor.h"

#include "core/options.h"

#include <string.h>

#define RECEIVE_BYTES   ((size_t)16 << 10)
#define GRACE_NS        UINT64_C(2000000000)    /* for a client that does not take what is left, at the end */

const BlkOption monitor_options[] = {
    { "chardev", BLK_OPTION_STRING, "id of the chardev where clients come from", .required = true },
    { "id", BLK_OPTION_STRING, "name of the monitor" },
    { "mode", BLK_OPTION_STRING, "control, the only one", "control" },
    { "pretty", BLK_OPTION_BOOL, "replies over several lines, for people", "off" },
    { NULL },
};

/* ---- output ---- */

static GBytes *message_text(const MonitorClient *client, JsonObject *message)
{
    GString *text = g_string_new(NULL);
    g_autoptr(JsonNode) node = json_node_init_object(json_node_alloc(), message);

    if (client->monitor->pretty) {
        tool_json_pretty(text, node);
    } else {
        blk_json_append(text, node);
    }
    g_string_append(text, "\r\n");
    return g_string_free_to_bytes(text);
}

static void queue_bytes(MonitorClient *client, GBytes *text)
{
    g_queue_push_tail(&client->output, text);
    client->output_bytes += g_bytes_get_size(text);
    blk_co_queue_wake_all(&client->output_changed);
}

static void queue_message(MonitorClient *client, JsonObject *message)
{
    queue_bytes(client, message_text(client, message));
}

void monitor_client_reply(MonitorClient *client, JsonObject *message)
{
    if (!client->failed) {
        queue_message(client, message);
    }
    json_object_unref(message);
}

static void send_event(MonitorClient *client, JsonObject *message)
{
    if (!client->negotiated || client->closing || client->failed) {
        return;
    }
    if (client->output_bytes > MONITOR_QUEUE_BYTES) {
        if (client->dropped_events++ == 0) {
            tool_warning("monitor '%s': a client does not read: events are dropped for it", client->monitor->chardev->id);
        }
        return;
    }
    queue_message(client, message);
}

void monitor_notice(BlkContext *ctx, const char *name, JsonObject *data, void *daemon)
{
    Daemon *d = daemon;
    gint64 now = g_get_real_time();
    g_autoptr(JsonObject) message = json_object_new();
    JsonObject *timestamp = json_object_new();

    json_object_set_int_member(timestamp, "seconds", now / G_USEC_PER_SEC);
    json_object_set_int_member(timestamp, "microseconds", now % G_USEC_PER_SEC);
    json_object_set_object_member(message, "timestamp", timestamp);
    json_object_set_string_member(message, "event", name);
    if (data) {
        json_object_set_object_member(message, "data", json_object_ref(data));
    }
    for (GList *l = d->clients.head; l; l = l->next) {
        send_event(l->data, message);
    }
}

static void drop_output(MonitorClient *client)
{
    g_queue_clear_full(&client->output, (GDestroyNotify)g_bytes_unref);
    client->output_bytes = 0;
}

/* The first message of the queue. Returns: 0; the connection's error. */
static int co_send_first(MonitorClient *client)
{
    GBytes *text = client->output.head->data;
    gsize bytes;
    gconstpointer data = g_bytes_get_data(text, &bytes);
    struct iovec vec = { (void *)data, bytes };
    int ret = blk_channel_co_sendv(client->channel, &vec, 1, UINT64_MAX);

    if (ret >= 0) {
        chardev_log(client->monitor->chardev, data, bytes);
    }

    g_queue_pop_head(&client->output);
    client->output_bytes -= bytes;
    g_bytes_unref(text);
    return ret;
}

static int co_write(void *opaque)
{
    MonitorClient *client = opaque;

    while (!client->failed && (client->output.head || !client->closing)) {
        if (!client->output.head) {
            blk_co_queue_wait(&client->output_changed);
        } else if (co_send_first(client) < 0) {
            client->failed = true;
        }
        blk_co_queue_wake_all(&client->output_changed);
    }
    client->writing = false;
    blk_sleep_cancel(&client->grace);
    blk_co_queue_wake_all(&client->output_changed);
    return 0;
}

/* ---- input ---- */

static void co_take_text(MonitorClient *client, const char *at, const char *end)
{
    while (at < end && !client->d->over) {
        g_autoptr(GError) error = NULL;
        GString *text = json_stream_take(&client->input, &at, end, &error);

        if (text) {
            monitor_co_dispatch(client, text);
            g_string_free(text, TRUE);
        } else if (error) {
            monitor_client_reply(client, monitor_error_message(error, NULL));
        }
        while (client->output_bytes > MONITOR_QUEUE_BYTES && !client->failed && !client->d->over) {
            blk_co_queue_wait(&client->output_changed);
        }
    }
}

static void co_read(MonitorClient *client)
{
    g_autofree char *buffer = g_malloc(RECEIVE_BYTES);

    while (!client->d->over && !client->failed) {
        ssize_t bytes = blk_channel_co_recv(client->channel, buffer, RECEIVE_BYTES, UINT64_MAX);

        if (bytes <= 0) {
            break;
        }
        if (client->monitor->chardev->telnet) {
            bytes = (ssize_t)telnet_take(&client->telnet, buffer, (size_t)bytes);
        }
        co_take_text(client, buffer, buffer + bytes);
        blk_co_reschedule();        /* who sends without a pause holds up nobody */
    }
}

/* ---- the life of a client ---- */

/* What is queued is sent, unless the client does not take it. */
static void co_end_output(MonitorClient *client)
{
    client->closing = true;
    blk_co_queue_wake_all(&client->output_changed);
    if (client->writing && blk_co_sleep_cancellable(&client->grace, blk_clock_ns() + GRACE_NS) == 0) {
        client->failed = true;
        blk_channel_cancel(client->channel);
    }
    while (client->writing) {
        blk_co_queue_wait(&client->output_changed);
    }
}

static int co_serve(void *opaque)
{
    MonitorClient *client = opaque;
    Daemon *d = client->d;

    if (client->monitor->chardev->telnet) {
        queue_bytes(client, g_bytes_new_static(TELNET_OFFER, TELNET_OFFER_BYTES));
    }
    monitor_client_reply(client, monitor_greeting());
    co_read(client);
    while (d->over && !client->closing) {       /* it hears how the daemon ends */
        blk_co_queue_wait(&client->output_changed);
    }
    co_end_output(client);
    g_queue_unlink(&d->clients, &client->link);
    drop_output(client);
    json_stream_clear(&client->input);
    blk_channel_free(client->channel);
    chardev_client_gone(client->monitor->chardev);
    g_free(client);
    daemon_end(d);
    return 0;
}

static void client_connected(Chardev *chardev, BlkChannel *channel, void *user)
{
    MonitorClient *client = g_new0(MonitorClient, 1);

    client->d = chardev->d;
    client->monitor = user;
    client->channel = channel;
    client->link.data = client;
    json_stream_init(&client->input);
    g_queue_push_tail_link(&chardev->d->clients, &client->link);
    client->writing = true;
    daemon_begin(chardev->d);
    blk_co_spawn(chardev->d->ctx, co_write, client);
    blk_co_spawn(chardev->d->ctx, co_serve, client);
}

void monitor_stop_all(Daemon *d)
{
    for (GList *l = d->clients.head; l; l = l->next) {
        MonitorClient *client = l->data;

        blk_channel_cancel_recv(client->channel);
        blk_co_queue_wake_all(&client->output_changed);
    }
}

void monitor_co_end_all(Daemon *d)
{
    for (GList *l = d->clients.head; l; l = l->next) {
        MonitorClient *client = l->data;

        client->closing = true;
        blk_co_queue_wake_all(&client->output_changed);
    }
    while (d->clients.length > 0) {
        blk_co_queue_wait(&d->changed);
    }
}

/* ---- making ---- */

int monitor_add(Daemon *d, const char *text, GError **error)
{
    g_autoptr(BlkOptions) options = daemon_parse_text(d, monitor_options, NULL, text, "chardev", error);
    Chardev *chardev;
    Monitor *monitor;

    if (!options) {
        return -EINVAL;
    }
    if (strcmp(blk_options_string(options, "mode"), "control") != 0) {
        return blk_error(error, -EINVAL, "Only mode=control is supported, which speaks QMP");
    }
    chardev = chardev_find(d, blk_options_string(options, "chardev"));
    if (!chardev) {
        return blk_error(error, -ENOENT, "chardev \"%s\" not found", blk_options_string(options, "chardev"));
    }
    monitor = g_new0(Monitor, 1);
    monitor->chardev = chardev;
    monitor->pretty = blk_options_bool(options, "pretty");
    g_ptr_array_add(d->monitors, monitor);
    return chardev_use(chardev, client_connected, monitor, error);
}
