/* SPDX-License-Identifier: MIT */
/*
 * client.c - a connection to the control socket of a daemon. See client.h.
 */
#include "ctl/client.h"

#include "core/options.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define NOT_FROM_SOCKET 0       /* a deadline of next_message(): what was received before, only */

typedef struct CtlEvent {
    JsonObject *message;
    size_t bytes;
} CtlEvent;

/* ---- members ---- */

static JsonNode *member_of(JsonObject *object, const char *member)
{
    return object ? json_object_get_member(object, member) : NULL;
}

const char *ctl_text_of(JsonObject *object, const char *member)
{
    JsonNode *node = member_of(object, member);

    return node && json_node_get_value_type(node) == G_TYPE_STRING ? json_node_get_string(node) : NULL;
}

JsonArray *ctl_array_of(JsonObject *object, const char *member)
{
    JsonNode *node = member_of(object, member);

    return node && JSON_NODE_HOLDS_ARRAY(node) ? json_node_get_array(node) : NULL;
}

JsonObject *ctl_object_of(JsonObject *object, const char *member)
{
    JsonNode *node = member_of(object, member);

    return node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
}

JsonObject *ctl_nth_object(JsonArray *array, guint index)
{
    JsonNode *node = array && index < json_array_get_length(array) ? json_array_get_element(array, index) : NULL;

    return node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
}

/* ---- waiting ---- */

static int G_GNUC_PRINTF(4, 5) broken(CtlClient *client, GError **error, int ret, const char *format, ...)
{
    va_list args;

    g_free(client->why);
    va_start(args, format);
    client->why = g_strdup_vprintf(format, args);
    va_end(args);
    return blk_error(error, ret, "%s", client->why);
}

static gint64 deadline_in(int64_t ms)
{
    return ms < 0 ? -1 : g_get_monotonic_time() + ms * 1000;
}

static gint64 reply_deadline(const CtlClient *client)
{
    return deadline_in(client->timeout > 0 ? (int64_t)(client->timeout * 1000) : -1);
}

/* Waits until the socket is ready. 0; -EINTR with @error set: see ctl_ask(); -ETIMEDOUT without: @deadline is past. */
static int wait_for(CtlClient *client, short events, gint64 deadline, GError **error)
{
    for (;;) {
        struct pollfd fds[] = { { .fd = client->fd, .events = events }, { .fd = client->interrupt, .events = POLLIN } };
        gint64 left_us = deadline < 0 ? -1 : MAX(deadline - g_get_monotonic_time(), 0);
        int n = poll(fds, G_N_ELEMENTS(fds), left_us < 0 ? -1 : (int)MIN((left_us + 999) / 1000, G_MAXINT));

        if (n < 0 && errno != EINTR) {
            return broken(client, error, -errno, "cannot wait for the server: %s", g_strerror(errno));
        }
        if (n > 0 && fds[1].revents && ctl_take_interrupt(client)) {
            return blk_error(error, -EINTR, "stopped waiting; the server goes on");
        }
        if (n > 0 && fds[0].revents) {
            return 0;
        }
        if (n == 0) {
            return -ETIMEDOUT;
        }
    }
}

bool ctl_catch_interrupts(CtlClient *client)
{
    sigset_t set;

    if (client->interrupt >= 0) {
        return false;
    }
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    client->interrupt = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return true;
}

void ctl_release_interrupts(CtlClient *client)
{
    sigset_t set;

    if (client->interrupt >= 0) {
        ctl_take_interrupt(client);         /* one that came too late ends nothing */
        close(client->interrupt);
        client->interrupt = -1;
        sigemptyset(&set);
        sigaddset(&set, SIGINT);
        sigprocmask(SIG_UNBLOCK, &set, NULL);
    }
}

bool ctl_take_interrupt(CtlClient *client)
{
    struct signalfd_siginfo info;

    return client->interrupt >= 0 && read(client->interrupt, &info, sizeof(info)) == sizeof(info);
}

/* ---- bytes ---- */

static int silent(CtlClient *client, GError **error)
{
    return broken(client, error, -ETIMEDOUT, "the server has not answered for %g seconds", client->timeout);
}

static int closed(CtlClient *client, GError **error)
{
    return broken(client, error, -EPIPE, "the server has closed the connection");
}

static int send_all(CtlClient *client, const char *text, size_t bytes, GError **error)
{
    gint64 deadline = reply_deadline(client);

    while (bytes > 0) {
        ssize_t n = send(client->fd, text, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
        int ret = 0;

        if (n >= 0) {
            text += n;
            bytes -= (size_t)n;
        } else if (errno == EAGAIN) {
            ret = wait_for(client, POLLOUT, deadline, error);
        } else if (errno != EINTR) {
            return closed(client, error);
        }
        if (ret == -EINTR) {                /* half a command is sent: nothing can follow it */
            g_free(client->why);
            client->why = g_strdup("a command was sent in part only");
        }
        if (ret < 0) {
            return ret == -ETIMEDOUT ? silent(client, error) : ret;
        }
    }
    return 0;
}

/* What has come, at least one byte. As wait_for(). */
static int receive(CtlClient *client, gint64 deadline, GError **error)
{
    char buf[65536];
    int ret = wait_for(client, POLLIN, deadline, error);
    ssize_t n;

    if (ret < 0) {
        return ret;
    }
    n = recv(client->fd, buf, sizeof(buf), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return 0;
    }
    if (n <= 0) {
        return closed(client, error);
    }
    g_string_erase(client->input, 0, (gssize)client->taken);
    client->searched -= client->taken;
    client->taken = 0;
    if (client->input->len + (size_t)n > CTL_MAX_MESSAGE) {
        return broken(client, error, -EMSGSIZE, "the server sends a message of more than %zu MiB",
                      CTL_MAX_MESSAGE >> 20);
    }
    g_string_append_len(client->input, buf, n);
    client->batch += (size_t)n;
    return 0;
}

/* ---- messages ---- */

static JsonObject *parse_message(CtlClient *client, const char *text, size_t bytes, GError **error)
{
    g_autoptr(GError) why = NULL;
    g_autoptr(JsonNode) node = blk_json_parse_long(text, bytes, CTL_MAX_MESSAGE, "message", &why);

    if (!node || !JSON_NODE_HOLDS_OBJECT(node)) {
        g_autofree char *reason = blk_printable_text(why ? why->message : "it is no object", 200);

        broken(client, error, -EPROTO, "the server sends what is no message of the control protocol: %s", reason);
        return NULL;
    }
    return json_node_dup_object(node);
}

/* (transfer full): the next message of what was received, and how many bytes it had. NULL without an error: none. */
static JsonObject *received_message(CtlClient *client, size_t *bytes, GError **error)
{
    const char *end;

    while ((end = memchr(client->input->str + client->searched, '\n', client->input->len - client->searched))) {
        const char *begin = client->input->str + client->taken;
        size_t length = (size_t)(end - begin);

        client->taken += length + 1;
        client->searched = client->taken;
        if (length > 0 && !(length == 1 && *begin == '\r')) {
            *bytes = length;
            return parse_message(client, begin, length, error);
        }
    }
    client->searched = client->input->len;
    return NULL;
}

typedef bool Wanted(CtlClient *client, JsonObject *message, size_t bytes);

static bool any(CtlClient *client, JsonObject *message, size_t bytes)
{
    return true;
}

/*
 * (transfer full): the next message that is @wanted; others are dropped. NULL without an error: none has come by
 * @deadline, whatever else has: once it is past, the socket is read at most once more.
 */
static JsonObject *next_message(CtlClient *client, gint64 deadline, Wanted *wanted, GError **error)
{
    for (bool last = deadline == NOT_FROM_SOCKET;;) {
        GError *failure = NULL;
        JsonObject *message;
        size_t bytes;

        while ((message = received_message(client, &bytes, &failure)) && !wanted(client, message, bytes)) {
            json_object_unref(message);
        }
        if (!message && !failure && client->why) {
            blk_error(&failure, -EPIPE, "%s", client->why);
        }
        if (failure) {
            g_propagate_error(error, failure);
            return NULL;
        }
        if (message || last) {
            return message;
        }
        last = deadline >= 0 && g_get_monotonic_time() >= deadline;
        if (receive(client, deadline, error) < 0) {
            return NULL;
        }
    }
}

static void event_free(gpointer opaque)
{
    CtlEvent *event = opaque;

    json_object_unref(event->message);
    g_free(event);
}

/* (transfer full) (nullable) */
static JsonObject *take_kept(CtlClient *client)
{
    CtlEvent *event = g_queue_pop_head(&client->events);
    JsonObject *message = event ? json_object_ref(event->message) : NULL;

    if (event) {
        client->event_bytes -= event->bytes;
        event_free(event);
    }
    return message;
}

static void keep_event(CtlClient *client, JsonObject *message, size_t bytes)
{
    CtlEvent *event;

    if (client->show) {
        client->show(message);
        return;
    }
    event = g_new(CtlEvent, 1);
    *event = (CtlEvent) { json_object_ref(message), bytes };
    g_queue_push_tail(&client->events, event);
    client->event_bytes += bytes;
    while (client->event_bytes > CTL_MAX_EVENTS && client->events.length > 1) {
        json_object_unref(take_kept(client));
    }
}

/* Others are replies that nobody waits for any more. */
static bool is_event(CtlClient *client, JsonObject *message, size_t bytes)
{
    return json_object_has_member(message, "event");
}

JsonObject *ctl_next_event(CtlClient *client, int wait_ms, GError **error)
{
    bool enough = wait_ms == 0 && client->batch >= CTL_BATCH;
    JsonObject *message = take_kept(client);

    if (!message) {
        message = next_message(client, enough ? NOT_FROM_SOCKET : deadline_in(wait_ms), is_event, error);
    }
    if (!message) {
        client->batch = 0;
    }
    return message;
}

/* ---- replies ---- */

void ctl_reply_error(JsonObject *reply, GError **error)
{
    const char *desc = ctl_text_of(ctl_object_of(reply, "error"), "desc");
    g_autofree char *text = blk_printable_text(desc ? desc : "the server refuses without a reason", 4096);

    blk_error(error, -EREMOTEIO, "%s", text);
}

/* One without an id answers what could not be read: ours. */
static bool is_reply_to(JsonObject *message, unsigned id)
{
    JsonNode *node = json_object_get_member(message, "id");
    bool is_reply = json_object_has_member(message, "return") || json_object_has_member(message, "error");

    return is_reply && (!node || (json_node_get_value_type(node) == G_TYPE_INT64 && json_node_get_int(node) == id));
}

static bool is_awaited(CtlClient *client, JsonObject *message, size_t bytes)
{
    if (json_object_has_member(message, "event")) {
        keep_event(client, message, bytes);
        return false;
    }
    return is_reply_to(message, client->next_id - 1);
}

static JsonObject *wait_for_reply(CtlClient *client, GError **error)
{
    GError *failure = NULL;
    JsonObject *reply = next_message(client, reply_deadline(client), is_awaited, &failure);

    client->batch = 0;
    if (failure) {
        g_propagate_error(error, failure);
    } else if (!reply) {
        silent(client, error);
    } else {
        json_object_remove_member(reply, "id");
    }
    return reply;
}

JsonObject *ctl_ask(CtlClient *client, const char *command, JsonObject *arguments, GError **error)
{
    g_autoptr(JsonObject) message = json_object_new();
    g_autofree char *text = NULL, *line = NULL;

    if (client->why) {
        blk_error(error, -EPIPE, "%s", client->why);
        return NULL;
    }
    json_object_set_string_member(message, "execute", command);
    if (arguments) {
        json_object_set_object_member(message, "arguments", json_object_ref(arguments));
    }
    json_object_set_int_member(message, "id", client->next_id++);
    text = blk_json_to_string(message);
    line = g_strconcat(text, "\n", NULL);
    if (send_all(client, line, strlen(line), error) < 0) {
        return NULL;
    }
    return wait_for_reply(client, error);
}

JsonNode *ctl_call(CtlClient *client, const char *command, JsonObject *arguments, GError **error)
{
    g_autoptr(JsonObject) reply = ctl_ask(client, command, arguments, error);

    if (!reply) {
        return NULL;
    }
    if (!json_object_has_member(reply, "return")) {
        ctl_reply_error(reply, error);
        return NULL;
    }
    return json_object_dup_member(reply, "return");
}

/* ---- the beginning and the end ---- */

static int greet(CtlClient *client, GError **error)
{
    GError *failure = NULL;
    g_autoptr(JsonObject) greeting = next_message(client, reply_deadline(client), any, &failure);
    g_autoptr(JsonNode) ready = NULL;

    if (failure) {
        g_propagate_error(error, failure);
        return -EPROTO;
    }
    if (!greeting) {
        return broken(client, error, -ETIMEDOUT,
                      "the server does not greet for %g seconds: it may serve another client", client->timeout);
    }
    if (!json_object_has_member(greeting, "QMP")) {
        return broken(client, error, -EPROTO, "the server does not greet as the control socket of a daemon does");
    }
    ready = ctl_call(client, "qmp_capabilities", NULL, error);
    return ready ? 0 : -EPROTO;
}

int ctl_client_open(CtlClient *client, const char *address, double timeout, GError **error)
{
    *client = (CtlClient) { .fd = -1, .interrupt = -1, .timeout = timeout, .input = g_string_new(NULL) };
    client->fd = ctl_connect(address, error);
    return client->fd < 0 ? client->fd : greet(client, error);
}

void ctl_client_clear(CtlClient *client)
{
    ctl_release_interrupts(client);
    if (client->fd >= 0) {
        close(client->fd);
    }
    g_string_free(client->input, TRUE);
    g_free(client->why);
    g_queue_clear_full(&client->events, event_free);
}
