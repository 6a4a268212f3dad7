/* SPDX-License-Identifier: MIT */
/*
 * commands.c - the list of all commands, and the classes of their errors.
 */
#include "daemon/daemon.h"

#include <string.h>

static const DaemonCommand *const tables[] = {
    daemon_protocol_commands,
    daemon_backup_commands,
    daemon_bitmap_commands,
    daemon_chain_commands,
    daemon_create_commands,
    daemon_export_commands,
    daemon_graph_commands,
    daemon_internal_snapshot_commands,
    daemon_job_commands,
    daemon_mirror_commands,
    daemon_monitor_commands,
    daemon_node_commands,
    daemon_object_commands,
    daemon_query_commands,
    daemon_snapshot_commands,
    daemon_transaction_commands,
};

const DaemonCommand *daemon_command_nth(unsigned index)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(tables); i++) {
        for (const DaemonCommand *command = tables[i]; command->name; command++) {
            if (index-- == 0) {
                return command;
            }
        }
    }
    return NULL;
}

const DaemonCommand *daemon_command_find(const char *name)
{
    const DaemonCommand *command;

    for (unsigned i = 0; (command = daemon_command_nth(i)); i++) {
        if (strcmp(command->name, name) == 0) {
            return command;
        }
    }
    return NULL;
}

/* ---- errors: the class is the domain ---- */

static const char *const classes[] = {
    "GenericError", "CommandNotFound", "DeviceNotActive", "DeviceNotFound", "KVMMissingCap", NULL,
};

int daemon_error(GError **error, int ret, const char *error_class, const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list args;

    g_assert(ret < 0 && g_strv_contains(classes, error_class));
    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    g_set_error_literal(error, g_quark_from_static_string(error_class), -ret, text);
    return ret;
}

const char *daemon_error_class(const GError *error)
{
    const char *domain = g_quark_to_string(error->domain);

    return g_strv_contains(classes, domain) ? domain : classes[0];
}
