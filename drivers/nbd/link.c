/* SPDX-License-Identifier: MIT */
/*
 * link.c - a link to an NBD server: a connection that is made anew when it is lost.
 *
 *     connected  --lost-->  commands in flight and new ones wait, at most reconnect-delay  --connected-->  sent anew
 *                                  `--- too long, or somebody waits for them (drain, close) --->  they fail with EIO
 *
 * One task per link serves the connection, and tries to make a new one when it is lost, at growing intervals, as long
 * as the link is open. Sending a command again is harmless: to write twice what nobody has read is to write it once.
 *
 * The server must come back with the same export: what was decided from its sizes and abilities stays decided.
 */
#include "drivers/nbd/nbd.h"

enum { SECOND_NS = 1000000000 };

#define HANDSHAKE_NS    (UINT64_C(30) * SECOND_NS)      /* a server that is silent so long is given up */
#define FIRST_PAUSE_NS  (UINT64_C(1) * SECOND_NS / 10)
#define LONGEST_PAUSE_NS (UINT64_C(5) * SECOND_NS)
#define LONG_LIFE_NS    (UINT64_C(10) * SECOND_NS)      /* a connection that lived so long was a good one */

/* A command that waits for a connection. */
typedef struct Waiter {
    BlkSleep sleep;
    GList link;
} Waiter;

static void wake_waiting(NbdLink *link)
{
    for (GList *l = link->waiting.head; l; l = l->next) {
        blk_sleep_cancel(&((Waiter *)l->data)->sleep);
    }
}

void nbd_link_hurry(NbdLink *link)
{
    if (!link->connection) {
        link->wait_until_ns = 0;
        wake_waiting(link);
    }
}

/* ---- what a user hears, once until a connection lived long ---- */

enum { TOLD_LOST = 1, TOLD_AGAIN = 2, TOLD_OTHER = 4 };

/* @format: takes the name of the server, and @text. */
static void tell(NbdLink *link, unsigned what, const char *format, const char *text)
{
    if (!(link->told & what)) {
        g_autofree char *message = g_strdup_printf(format, link->state->server.name, text);

        blk_node_message(link->state->node, "%s", message);
    }
    link->told |= what;
}

/* ---- losing a connection ---- */

static void drop(NbdLink *link, NbdConnection *connection)
{
    NbdState *s = link->state;

    if (link->connection != connection) {
        return;
    }
    link->connection = NULL;
    link->wait_until_ns = s->server.transport == NBD_FD ? 0 : blk_clock_ns() + s->reconnect_delay_ns;
    nbd_state_lost_connection(s);
    nbd_connection_break(connection);
    nbd_connection_unref(connection);
}

/* Until the connection is lost. */
static void co_serve(NbdLink *link)
{
    g_autoptr(NbdConnection) connection = nbd_connection_ref(link->connection);
    g_autoptr(GError) reason = NULL;
    uint64_t begin_ns = blk_clock_ns();

    nbd_connection_co_serve(connection, &reason);
    if (blk_clock_ns() - begin_ns >= LONG_LIFE_NS) {
        link->pause_ns = 0;
        link->told = 0;
    }
    if (!link->closing) {
        drop(link, connection);
        tell(link, TOLD_LOST, "the connection to '%s' was lost: %s", reason->message);
    }
}

/* ---- making a new one ---- */

static NbdConnection *co_connect(NbdLink *link, uint64_t deadline_ns, NbdExportInfo *info, GError **error)
{
    NbdServer *server = &link->state->server;
    g_autoptr(GError) local = NULL;
    BlkContext *ctx = link->state->node->ctx;
    NbdConnection *connection = nbd_connection_co_open(ctx, server, deadline_ns, &link->opening, info, &local);

    if (!connection) {
        g_propagate_prefixed_error(error, g_steal_pointer(&local), "Failed to connect to '%s': ", server->name);
    }
    return connection;
}

static int check_same(const NbdState *s, const NbdExportInfo *now, GError **error)
{
    const NbdExportInfo *then = &s->info;
    bool same = now->size >= then->size && now->min_block <= then->min_block && now->read_only == then->read_only &&
                now->max_block >= then->max_block && now->flush == then->flush &&
                now->fua >= then->fua && now->trim >= then->trim && now->zero >= then->zero &&
                now->fast_zero >= then->fast_zero && now->status == then->status;

    return same ? 0 : blk_error(error, -ESTALE, "the server has another export now than at the first connection");
}

static void co_reconnect(NbdLink *link)
{
    NbdState *s = link->state;
    g_autoptr(GError) error = NULL;
    NbdExportInfo info;
    NbdConnection *connection = co_connect(link, blk_clock_ns() + HANDSHAKE_NS, &info, &error);

    if (connection && check_same(s, &info, &error) < 0) {
        g_clear_pointer(&connection, nbd_connection_unref);
        tell(link, TOLD_OTHER, "cannot use '%s' any more: %s", error->message);
    }
    if (connection) {
        link->connection = connection;
        tell(link, TOLD_AGAIN, "connected to '%s' again%s", "");
        wake_waiting(link);
    }
}

static int link_co_task(void *opaque)
{
    NbdLink *link = opaque;

    while (!link->closing) {
        if (link->connection) {
            co_serve(link);
        } else if (link->state->server.transport == NBD_FD) {
            break;      /* nobody knows where the socket led to */
        } else {
            if (link->pause_ns > 0) {
                blk_co_sleep_cancellable(&link->pause, blk_clock_ns() + link->pause_ns);
            }
            link->pause_ns = CLAMP(2 * link->pause_ns, FIRST_PAUSE_NS, LONGEST_PAUSE_NS);
            if (!link->closing) {
                co_reconnect(link);
            }
        }
    }
    return 0;
}

/* ---- opening and closing ---- */

static uint64_t attempt_deadline(uint64_t deadline_ns)
{
    uint64_t own_ns = blk_clock_ns() + HANDSHAKE_NS;

    return deadline_ns > 0 ? MIN(deadline_ns, own_ns) : own_ns;
}

int nbd_link_co_open(NbdLink *link, NbdState *state, uint64_t deadline_ns, NbdExportInfo *info, GError **error)
{
    uint64_t pause_ns = FIRST_PAUSE_NS;

    link->state = state;
    link->tasks.limit = 1;
    for (;;) {
        g_autoptr(GError) local = NULL;

        link->connection = co_connect(link, attempt_deadline(deadline_ns), info, &local);
        if (link->connection) {
            break;
        }
        if (blk_clock_ns() + pause_ns >= deadline_ns || state->server.transport == NBD_FD) {
            int code = local->code;

            g_propagate_error(error, g_steal_pointer(&local));
            return -code;
        }
        blk_co_sleep_ns(pause_ns);
        pause_ns = MIN(2 * pause_ns, LONGEST_PAUSE_NS);
    }
    return blk_co_group_run(&link->tasks, link_co_task, link);
}

void nbd_link_co_close(NbdLink *link)
{
    g_assert(link->in_flight == 0);
    link->closing = true;
    blk_sleep_cancel(&link->pause);
    if (link->opening) {
        nbd_connection_cancel(link->opening);
    }
    if (link->connection) {
        nbd_connection_goodbye(link->connection);
        nbd_connection_cancel(link->connection);
    }
    blk_co_group_wait(&link->tasks);
    g_clear_pointer(&link->connection, nbd_connection_unref);
}

/* ---- commands ---- */

/* Waits until there is a connection. Returns: (transfer full); NULL: it takes too long. */
static NbdConnection *co_get_connection(NbdLink *link)
{
    while (!link->connection && blk_clock_ns() < link->wait_until_ns) {
        Waiter waiter = { .link = { .data = &waiter } };

        g_queue_push_tail_link(&link->waiting, &waiter.link);
        blk_co_sleep_cancellable(&waiter.sleep, link->wait_until_ns);
        g_queue_unlink(&link->waiting, &waiter.link);
    }
    return link->connection ? nbd_connection_ref(link->connection) : NULL;
}

static int co_run_until_done(NbdLink *link, NbdCommand *cmd)
{
    uint64_t give_up_ns = 0;        /* a server that dies of a command is asked in vain */

    for (;;) {
        g_autoptr(NbdConnection) connection = co_get_connection(link);
        int ret = connection ? nbd_connection_co_run(connection, cmd) : -ENOTCONN;

        if (ret != NBD_LOST) {
            return ret;
        }
        drop(link, connection);
        if (give_up_ns == 0) {
            give_up_ns = blk_clock_ns() + link->state->reconnect_delay_ns;
        } else if (blk_clock_ns() >= give_up_ns) {
            return -ENOTCONN;
        }
    }
}

int nbd_link_co_run(NbdLink *link, NbdCommand *cmd)
{
    int ret;

    link->in_flight++;
    ret = co_run_until_done(link, cmd);
    link->in_flight--;
    return ret;
}
