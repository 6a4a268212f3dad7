/* SPDX-License-Identifier: MIT */
/*
 * cmd_monitor.c - what clients ask about the daemon itself, and its end.
 */
#include "daemon/chardev.h"
#include "daemon/monitor.h"
#include "daemon/schema.h"

static int co_query_version(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    *result = daemon_result_object(monitor_version());
    return 0;
}

static int co_query_commands(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    JsonArray *list = json_array_new();
    const DaemonCommand *command;

    for (unsigned i = 0; (command = daemon_command_nth(i)); i++) {
        JsonObject *object = json_object_new();

        json_object_set_string_member(object, "name", command->name);
        json_array_add_object_element(list, object);
    }
    *result = daemon_result_array(list);
    return 0;
}

static int co_query_schema(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    *result = daemon_result_array(daemon_make_schema(d));
    return 0;
}

static int co_query_chardev(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    JsonArray *list = json_array_new();

    for (guint i = 0; i < d->chardevs->len; i++) {
        const Chardev *chardev = d->chardevs->pdata[i];
        JsonObject *object = json_object_new();

        json_object_set_boolean_member(object, "frontend-open", chardev->connected != NULL);
        json_object_set_string_member(object, "filename", chardev->filename);
        json_object_set_string_member(object, "label", chardev->id);
        json_array_add_object_element(list, object);
    }
    *result = daemon_result_array(list);
    return 0;
}

static int co_quit(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error)
{
    daemon_quit(d);
    return 0;
}

const DaemonCommand daemon_monitor_commands[] = {
    { "query-version", "the version of the daemon", NULL, co_query_version, .any_time = true },
    { "query-commands", "the names of all commands", NULL, co_query_commands, .any_time = true },
    { "query-qmp-schema", "commands, their arguments, and events", NULL, co_query_schema, .any_time = true },
    { "query-chardev", "where clients come from", NULL, co_query_chardev, .any_time = true },
    { "quit", "ends the daemon: exports answer what is in flight, jobs are cancelled, nodes are closed", NULL, co_quit,
      .any_time = true },
    { NULL },
};
