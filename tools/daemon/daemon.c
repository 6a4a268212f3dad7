/* SPDX-License-Identifier: MIT */
/*
 * daemon.c - the life of the daemon: what the command line says is made in its order, then clients are served until a signal
 * or a command ends it.
 *
 *     main coroutine: waits for the end ------------------------------> exports, jobs, nodes, clients end in this order
 *     start coroutine: blockdev, chardev, export, ... -> pid file
 *
 * Signals that come meanwhile wait: an impatient second one must not lose what was written.
 */
#include "daemon/address.h"
#include "daemon/monitor.h"

#include "core/node.h"
#include "core/object.h"

#include <blkstack/job.h>
#include <stdlib.h>

/* ---- the start ---- */

static int co_start_nbd_server(Daemon *d, const char *text, GError **error)
{
    g_autoptr(BlkOptions) args = daemon_parse_text(d, daemon_nbd_server_options, NULL, text, NULL, error);
    g_auto(DaemonAddress) address = DAEMON_ADDRESS_INIT;
    int ret = args ? daemon_parse_address(d, &address, blk_options_json(args, "addr"), *text != '{', error) : -EINVAL;

    return ret < 0 ? ret : daemon_co_start_nbd_server(d, args, &address, error);
}

static int co_add_export(Daemon *d, const char *text, GError **error)
{
    g_autoptr(BlkOptions) args = daemon_parse_text(d, daemon_export_options, &daemon_export_variants, text, "type", error);

    return args ? daemon_co_add_export(d, args, error) : -EINVAL;
}

static int co_add_node(Daemon *d, const char *text, GError **error)
{
    g_autoptr(JsonObject) tree = daemon_parse_node_text(d, text, error);

    return tree ? daemon_co_add_node(d, tree, error) : -EINVAL;
}

static int add_object(Daemon *d, const char *text, GError **error)
{
    g_autoptr(BlkOptions) args = daemon_parse_text(d, blk_object_options, &daemon_object_variants, text, "qom-type", error);
    g_autoptr(JsonObject) options = args ? blk_options_parse_keyval(text, "qom-type", error) : NULL;

    return options ? blk_object_add(d->ctx, options, error) : -EINVAL;
}

static int co_make(Daemon *d, const DaemonOption *option, GError **error)
{
    switch (option->kind) {
    case DAEMON_OPTION_BLOCKDEV:
        return co_add_node(d, option->text, error);
    case DAEMON_OPTION_CHARDEV:
        return chardev_co_add(d, option->text, error);
    case DAEMON_OPTION_EXPORT:
        return co_add_export(d, option->text, error);
    case DAEMON_OPTION_MONITOR:
        return monitor_add(d, option->text, error);
    case DAEMON_OPTION_NBD_SERVER:
        return co_start_nbd_server(d, option->text, error);
    case DAEMON_OPTION_OBJECT:
        return add_object(d, option->text, error);
    }
    return -EINVAL;
}

static int co_make_all(Daemon *d)
{
    int ret = 0;

    for (guint i = 0; i < d->args->options->len && ret == 0 && !d->over; i++) {
        const DaemonOption *option = &g_array_index(d->args->options, DaemonOption, i);
        g_autoptr(GError) error = NULL;

        blk_co_mutex_lock(&d->changing);
        ret = co_make(d, option, &error);
        blk_co_mutex_unlock(&d->changing);
        if (ret < 0) {
            tool_error("--%s %s: %s", option->name, option->text, error->message);
        }
    }
    return ret;
}

static int write_pid(Daemon *d)
{
    GError *error = NULL;
    int ret = d->args->pid_file ? tool_process_write_pid(&d->process, d->args->pid_file, &error) : 0;

    if (ret < 0) {
        g_prefix_error(&error, "cannot create PID file: ");
        tool_report(error);
    }
    return ret;
}

static int co_start(void *opaque)
{
    Daemon *d = opaque;

    if (co_make_all(d) < 0 || (!d->over && write_pid(d) < 0)) {
        d->failed = true;
        daemon_quit(d);
    } else if (!d->over) {
        tool_process_ready(&d->process);
    }
    daemon_end(d);
    return 0;
}

/* ---- the end ---- */

void daemon_quit(Daemon *d)
{
    d->over = true;
    blk_poll_cancel(&d->signals);
}

static void report(Daemon *d, GError *error)
{
    if (error) {
        d->failed = true;
        tool_report(error);
    }
}

/* In this order, so that what is in flight is answered, and clients hear of all. */
static void co_finish(Daemon *d)
{
    GError *error = NULL;

    chardev_stop_all(d);
    monitor_stop_all(d);
    blk_co_mutex_lock(&d->changing);        /* for good: commands that change something are over */
    for (guint i = 0; i < d->nodes->len; i++) {
        blk_node_hurry_begin(d->nodes->pdata[i]);
    }
    blk_co_nbd_server_free(g_steal_pointer(&d->nbd_server), &error);
    report(d, error);
    blk_co_jobs_end(d->ctx);
    while (d->nodes->len > 0) {
        BlkNode *node = g_ptr_array_steal_index(d->nodes, d->nodes->len - 1);

        blk_co_node_hurry_end(node);
        blk_co_unref(node);
    }
    monitor_co_end_all(d);
    while (d->running > 0) {
        blk_co_queue_wait(&d->changed);
    }
    chardev_free_all(d);
}

static int co_main(void *opaque)
{
    Daemon *d = opaque;
    GError *error = NULL;

    daemon_begin(d);
    blk_co_spawn(d->ctx, co_start, d);
    tool_co_wait_for_signal(&d->signals, &d->over, &error);
    report(d, error);
    d->over = true;
    co_finish(d);
    return 0;
}

/* ---- the process ---- */

static int run(Daemon *d)
{
    GError *error = NULL;

    if (d->args->daemonize && tool_process_fork(&d->process, &error) < 0) {
        tool_report(error);
        return EXIT_FAILURE;
    }
    d->ctx = blk_context_new(NULL, &error);
    if (!d->ctx) {
        tool_report(error);
        return EXIT_FAILURE;
    }
    blk_context_set_message_handler(d->ctx, tool_node_message, NULL);
    blk_context_set_notice_handler(d->ctx, monitor_notice, d);
    blk_run(d->ctx, co_main, d);
    blk_context_free(d->ctx);
    tool_process_end(&d->process);
    return d->failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

int daemon_main(const DaemonArgs *args)
{
    Daemon d = {
        .args = args,
        .process = TOOL_PROCESS_INIT,
        .nodes = g_ptr_array_new(),
        .chardevs = g_ptr_array_new(),
        .monitors = g_ptr_array_new_with_free_func(g_free),
    };
    int status;

    tool_block_signals();
    status = run(&d);
    g_clear_pointer(&d.tables, g_hash_table_unref);
    g_ptr_array_unref(d.nodes);
    g_ptr_array_unref(d.chardevs);
    g_ptr_array_unref(d.monitors);
    return status;
}
