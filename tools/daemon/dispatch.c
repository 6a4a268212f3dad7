/* SPDX-License-Identifier: MIT */
/*
 * dispatch.c - one command of a client: what it says, whether it may, and the reply.
 */
#include "daemon/monitor.h"

#include "config.h"
#include "core/options.h"

#include <string.h>

/* ---- messages ---- */

/* The version of the protocol: that of the peer whose commands are followed. */
JsonObject *monitor_version(void)
{
    JsonObject *version = json_object_new(), *triple = json_object_new();

    json_object_set_int_member(triple, "micro", 0);
    json_object_set_int_member(triple, "minor", 2);
    json_object_set_int_member(triple, "major", 7);
    json_object_set_object_member(version, "qemu", triple);
    json_object_set_string_member(version, "package", "blkstack " BLK_VERSION);
    return version;
}

JsonObject *monitor_greeting(void)
{
    JsonObject *message = json_object_new(), *greeting = json_object_new();

    json_object_set_object_member(greeting, "version", monitor_version());
    json_object_set_array_member(greeting, "capabilities", json_array_new());
    json_object_set_object_member(message, "QMP", greeting);
    return message;
}

JsonObject *monitor_error_message(const GError *error, JsonNode *id)
{
    JsonObject *message = json_object_new(), *object = json_object_new();
    g_autofree char *text = g_utf8_make_valid(error->message, -1);

    if (id) {
        json_object_set_member(message, "id", json_node_copy(id));
    }
    json_object_set_string_member(object, "class", daemon_error_class(error));
    json_object_set_string_member(object, "desc", text);
    json_object_set_object_member(message, "error", object);
    return message;
}

/* @result: (transfer full) (nullable) */
static JsonObject *return_message(JsonNode *result, JsonNode *id)
{
    JsonObject *message = json_object_new();

    json_object_set_member(message, "return", result ? result : daemon_result_object(json_object_new()));
    if (id) {
        json_object_set_member(message, "id", json_node_copy(id));
    }
    return message;
}

/* ---- what the client says ---- */

typedef struct Call {
    JsonObject *message;
    JsonNode *id;               /* (nullable) */
    const char *name;
    JsonObject *arguments;      /* (nullable) */
} Call;

static int take_member(Call *call, const char *key, JsonNode *value, GError **error)
{
    if (strcmp(key, "execute") == 0) {
        if (json_node_get_value_type(value) != G_TYPE_STRING) {
            return blk_error(error, -EINVAL, "QMP input member 'execute' must be a string");
        }
        call->name = json_node_get_string(value);
    } else if (strcmp(key, "arguments") == 0) {
        if (!JSON_NODE_HOLDS_OBJECT(value)) {
            return blk_error(error, -EINVAL, "QMP input member 'arguments' must be an object");
        }
        call->arguments = json_node_get_object(value);
    } else if (strcmp(key, "id") != 0) {
        return blk_error(error, -EINVAL, "QMP input member '%.*s' is unexpected", 64, key);
    }
    return 0;
}

static int take_members(Call *call, GError **error)
{
    JsonObjectIter iter;
    const char *key;
    JsonNode *value;

    json_object_iter_init_ordered(&iter, call->message);
    while (json_object_iter_next_ordered(&iter, &key, &value)) {
        int ret = take_member(call, key, value, error);

        if (ret < 0) {
            return ret;
        }
    }
    return call->name ? 0 : blk_error(error, -EINVAL, "QMP input lacks member 'execute'");
}

/* ---- what is done ---- */

static const char *const capabilities[] = { "oob", NULL };
static const BlkOption capability_element[] = {
    { "capability", BLK_OPTION_ENUM, "a capability of the protocol", .values = capabilities },
    { NULL },
};
static const BlkType capabilities_type = { .kind = BLK_TYPE_ARRAY, .members = capability_element };
static const BlkOption capabilities_options[] = {
    { "enable", BLK_OPTION_JSON, "list of capabilities to turn on, of which there are none", .json = &capabilities_type },
    { NULL },
};

static int co_no_capabilities(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    JsonArray *enable = daemon_options_array(args, "enable");

    if (enable && json_array_get_length(enable) > 0) {
        return blk_error(error, -EINVAL, "Capability %s not available: there are none to turn on",
                         json_array_get_string_element(enable, 0));
    }
    return 0;
}

/* Handled here, since it is about the client, not the daemon; in the list for the schema. */
const DaemonCommand daemon_protocol_commands[] = {
    { "qmp_capabilities", "ends the negotiation: commands are taken from now on", capabilities_options, co_no_capabilities,
      .any_time = true },
    { NULL },
};

static const DaemonCommand *find_command(const MonitorClient *client, const Call *call, GError **error)
{
    const DaemonCommand *negotiation = &daemon_protocol_commands[0];
    bool negotiates = strcmp(call->name, negotiation->name) == 0;
    const DaemonCommand *command;

    if (!client->negotiated && !negotiates) {
        daemon_error(error, -ENOENT, "CommandNotFound", "Expecting capabilities negotiation with 'qmp_capabilities'");
        return NULL;
    }
    if (client->negotiated && negotiates) {
        daemon_error(error, -ENOENT, "CommandNotFound",
                     "Capabilities negotiation is already complete, command ignored");
        return NULL;
    }
    command = daemon_command_find(call->name);
    if (!command) {
        daemon_error(error, -ENOENT, "CommandNotFound", "The command %.*s has not been found", 64, call->name);
    }
    return command;
}

static int co_run_checked(Daemon *d, const DaemonCommand *command, JsonObject *arguments, JsonNode **result, GError **error)
{
    g_autoptr(BlkOptions) args = NULL;

    if (command->co_run_tree) {
        return command->co_run_tree(d, arguments, result, error);
    }
    args = daemon_parse_variants(d, command->args, command->variants, arguments, NULL, false, error);
    return args ? command->co_run(d, args, result, error) : -EINVAL;
}

static int co_run(Daemon *d, const DaemonCommand *command, JsonObject *arguments, JsonNode **result, GError **error)
{
    g_autoptr(JsonObject) none = json_object_new();
    int ret;

    if (!command->any_time) {
        blk_co_mutex_lock(&d->changing);
    }
    if (d->over && !command->any_time) {
        ret = blk_error(error, -ESHUTDOWN, "The daemon is about to end");
    } else {
        ret = co_run_checked(d, command, arguments ? arguments : none, result, error);
    }
    if (!command->any_time) {
        blk_co_mutex_unlock(&d->changing);
    }
    return ret;
}

static int co_call(MonitorClient *client, Call *call, JsonNode **result, GError **error)
{
    int ret = take_members(call, error);
    const DaemonCommand *command = ret == 0 ? find_command(client, call, error) : NULL;

    if (!command) {
        return -EINVAL;
    }
    ret = co_run(client->d, command, call->arguments, result, error);
    client->negotiated |= ret == 0 && command == &daemon_protocol_commands[0];
    return ret;
}

void monitor_co_dispatch(MonitorClient *client, const GString *text)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonNode) value = blk_json_parse(text->str, text->len, "JSON parse error", &error);
    Call call = { .message = value && JSON_NODE_HOLDS_OBJECT(value) ? json_node_get_object(value) : NULL };
    JsonNode *result = NULL;

    if (call.message) {
        call.id = json_object_get_member(call.message, "id");
        if (co_call(client, &call, &result, &error) == 0) {
            monitor_client_reply(client, return_message(result, call.id));
            return;
        }
    } else if (value) {
        blk_error(&error, -EINVAL, "QMP input must be a JSON object");
    }
    g_clear_pointer(&result, json_node_unref);
    monitor_client_reply(client, monitor_error_message(error, call.id));
}
