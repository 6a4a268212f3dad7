/* SPDX-License-Identifier: MIT */
/*
 * cmd_debug.c - commands that make races and crashes happen, or tell of them: break, resume, wait_break, remove_break,
 * mark, sleep, abort, sigraise.
 *
 * Breakpoints need a fault filter in the stack. Since commands run one after the other, only requests of aio_* commands
 * should run into one.
 */
#include "io/io.h"

#include <signal.h>

#define POLL_NS 1000000ULL
#define BREAK_TIMEOUT_S 60

static int run_break(IoSession *session, const IoCommand *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    int ret = blk_breakpoint_set(io_node(session), argv[1], argv[2], &error);

    if (ret < 0) {
        printf("Could not set breakpoint: %s\n", g_strerror(-ret));
        tool_error("%s", error->message);
        return ret;
    }
    g_hash_table_add(session->breakpoints, g_strdup(argv[2]));
    return 0;
}

const char *io_suspended_tag(const IoSession *session)
{
    GHashTableIter iter;
    gpointer tag;

    g_hash_table_iter_init(&iter, session->breakpoints);
    while (g_hash_table_iter_next(&iter, &tag, NULL)) {
        if (blk_breakpoint_is_suspended(io_node(session), tag)) {
            return tag;
        }
    }
    return NULL;
}

static int run_resume(IoSession *session, const IoCommand *self, int argc, char **argv)
{
    int ret = blk_breakpoint_resume(io_node(session), argv[1]);

    if (ret < 0) {
        printf("Could not resume request: %s\n", g_strerror(-ret));
        return ret;
    }
    printf("blkdebug: Resuming request '%s'\n", argv[1]);
    blk_co_reschedule();
    return 0;
}

static int run_remove_break(IoSession *session, const IoCommand *self, int argc, char **argv)
{
    bool resumes = blk_breakpoint_is_suspended(io_node(session), argv[1]);
    int ret = blk_breakpoint_remove(io_node(session), argv[1]);

    if (ret < 0) {
        printf("Could not remove breakpoint %s: %s\n", argv[1], g_strerror(-ret));
        return ret;
    }
    g_hash_table_remove(session->breakpoints, argv[1]);
    if (resumes) {
        printf("blkdebug: Resuming request '%s'\n", argv[1]);
    }
    return 0;
}

static int run_wait_break(IoSession *session, const IoCommand *self, int argc, char **argv)
{
    for (uint64_t waited = 0; !blk_breakpoint_is_suspended(io_node(session), argv[1]); waited += POLL_NS) {
        if (waited >= BREAK_TIMEOUT_S * 1000000000ULL) {
            tool_error("no request has reached breakpoint '%s' in %d seconds", argv[1], BREAK_TIMEOUT_S);
            return -ETIMEDOUT;
        }
        blk_co_sleep_ns(POLL_NS);
    }
    printf("blkdebug: Suspended request '%s'\n", argv[1]);
    return 0;
}

static int run_mark(IoSession *session, const IoCommand *self, int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    int ret = blk_co_mark(io_node(session), argv[1], &error);

    if (ret < 0) {
        tool_error("%s", error->message);
    }
    return ret;
}

static int run_sleep(IoSession *session, const IoCommand *self, int argc, char **argv)
{
    char *end;
    guint64 ms;

    errno = 0;
    ms = g_ascii_strtoull(argv[1], &end, 0);
    if (!g_ascii_isdigit(argv[1][0]) || *end != '\0' || errno != 0 || ms > G_MAXINT64 / 1000000) {
        printf("%s is not a valid number\n", argv[1]);
        return -EINVAL;
    }
    blk_co_sleep_ns(ms * 1000000);
    return 0;
}

static int run_abort(IoSession *session, const IoCommand *self, int argc, char **argv)
{
    fflush(stdout);
    abort();
}

static int run_sigraise(IoSession *session, const IoCommand *self, int argc, char **argv)
{
    uint64_t number;
    int ret = io_parse_number(argv[1], &number);

    if (ret < 0) {
        return ret;
    }
    if (number >= NSIG) {
        printf("signal argument '%s' is too large to be a valid signal\n", argv[1]);
        return -EINVAL;
    }
    fflush(stdout);
    raise(number);
    return 0;
}

const IoCommand io_debug_commands[] = {
    {
        .name = "break", .min_args = 2, .max_args = 2, .needs_file = true,
        .args = "event tag",
        .summary = "suspends the next request that comes to the event",
        .co_run = run_break,
    }, {
        .name = "remove_break", .min_args = 1, .max_args = 1, .needs_file = true,
        .args = "tag",
        .summary = "removes a breakpoint and lets its requests go on",
        .co_run = run_remove_break,
    }, {
        .name = "resume", .min_args = 1, .max_args = 1, .needs_file = true,
        .args = "tag",
        .summary = "lets a suspended request go on",
        .co_run = run_resume,
    }, {
        .name = "wait_break", .min_args = 1, .max_args = 1, .needs_file = true,
        .args = "tag",
        .summary = "waits until a request is suspended, for a minute at most",
        .co_run = run_wait_break,
    }, {
        .name = "mark", .min_args = 1, .max_args = 1, .needs_file = true,
        .args = "text",
        .summary = "puts a mark into the record of a log-writes filter",
        .co_run = run_mark,
    }, {
        .name = "sleep", .min_args = 1, .max_args = 1,
        .args = "milliseconds",
        .summary = "waits while other requests go on",
        .co_run = run_sleep,
    }, {
        .name = "abort",
        .summary = "ends the program by abort(), like a crash",
        .co_run = run_abort,
    }, {
        .name = "sigraise", .min_args = 1, .max_args = 1,
        .args = "signal",
        .summary = "sends the program a signal",
        .help = "Example: 'sigraise 9' ends the program without any clean-up.\n",
        .co_run = run_sigraise,
    },
    { 0 },
};
