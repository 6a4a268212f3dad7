/* SPDX-License-Identifier: MIT */
/*
 * watch.c - jobs until they have ended: shown as they go, or waited for; and events.
 *
 * On a terminal each job has a line with a bar, drawn anew; elsewhere a line is printed for each change of state and
 * each tenth. Ctrl-C ends the watching, never a job.
 */
#include "ctl/ctl.h"
#include "ctl/jobs.h"

#include "core/options.h"

#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { PAUSE_MS = 500, BAR_LEAST = 8, BAR_MOST = 40 };

typedef struct Screen {
    FILE *out;
    bool terminal;
    unsigned rows, columns;
    unsigned drawn;                 /* lines on the terminal */
} Screen;

/* ---- what the user sees ---- */

static Screen screen_of(FILE *out)
{
    const char *term = g_getenv("TERM");
    struct winsize size = { 0 };
    Screen screen = { .out = out, .terminal = isatty(fileno(out)) && term && strcmp(term, "dumb") != 0 };

    if (screen.terminal) {
        ioctl(fileno(out), TIOCGWINSZ, &size);
    }
    screen.rows = size.ws_row > 1 ? size.ws_row : 24;
    screen.columns = size.ws_col > 1 ? size.ws_col : 80;
    return screen;
}

/* 0..1 */
static double fraction_of(const CtlJob *job)
{
    if (job->over && !ctl_job_failed(job)) {
        return 1;
    }
    return job->total > 0 ? MIN((double)job->done / (double)job->total, 1) : 0;
}

/* ", 12 MiB/s, 1:05 left" of a job that runs. */
static void append_speed(GString *text, const CtlJob *job)
{
    uint64_t left = job->total > job->done ? job->total - job->done : 0;
    g_autofree char *speed = tool_size_text((uint64_t)job->speed);
    double seconds = job->speed >= 1 ? (double)left / job->speed : 0;

    if (!job->over && job->speed >= 1) {
        g_string_append_printf(text, ", %s/s", speed);
    }
    if (!job->over && left > 0 && seconds > 0 && seconds < 1e6) {
        unsigned s = (unsigned)(seconds + 0.999);

        g_string_append_printf(text, s < 3600 ? ", %u:%02u left" : ", %u:%02u:%02u left", s < 3600 ? s / 60 : s / 3600,
                               s < 3600 ? s % 60 : s / 60 % 60, s % 60);
    }
}

/* " (1 GiB of 4 GiB, ...)": (transfer full) */
static char *amount_of(const CtlJob *job)
{
    GString *text = g_string_new(NULL);

    if (ctl_job_moves_data(job) && job->total > 0) {
        g_autofree char *done = tool_size_text(job->done), *total = tool_size_text(job->total);

        g_string_append_printf(text, " (%s of %s", done, total);
        append_speed(text, job);
        g_string_append_c(text, ')');
    }
    return g_string_free(text, FALSE);
}

/* As wide as there is room for. */
static void draw_bar(Screen *screen, const CtlJob *job)
{
    g_autofree char *id = blk_printable_text(job->id, 24), *state = ctl_job_state(job), *amount = amount_of(job);
    double fraction = fraction_of(job);
    g_autofree char *text = g_strdup_printf("%3.0f%% %s%s", fraction * 100, state, amount);
    int room = (int)screen->columns - (int)(strlen(id) + strlen(text) + strlen(" [] ") + 1);
    int bar = CLAMP(room, BAR_LEAST, BAR_MOST);
    g_autofree char *filled = g_strnfill((gsize)(fraction * bar), '#');
    g_autofree char *line = g_strdup_printf("%s [%-*s] %s", id, bar, filled, text);

    fprintf(screen->out, "\r\033[K%.*s\n", (int)screen->columns - 1, line);
}

/* Once for each change of state and each tenth. */
static void print_change(Screen *screen, CtlJob *job)
{
    g_autofree char *id = blk_printable_text(job->id, 200), *state = ctl_job_state(job), *amount = amount_of(job);
    g_autofree char *now = g_strdup_printf("%s: %u%% %s", id, (unsigned)(fraction_of(job) * 10) * 10, state);

    if (g_strcmp0(now, job->told) != 0) {
        fprintf(screen->out, "%s%s\n", now, amount);
        g_free(job->told);
        job->told = g_steal_pointer(&now);
    }
}

static void show(Screen *screen, const CtlJobs *jobs)
{
    guint n = screen->terminal ? MIN(jobs->list->len, screen->rows - 1) : jobs->list->len;

    if (screen->terminal && screen->drawn > 0) {
        fprintf(screen->out, "\033[%uA", screen->drawn);
    }
    for (guint i = 0; i < n; i++) {
        CtlJob *job = jobs->list->pdata[i];

        if (screen->terminal) {
            draw_bar(screen, job);
        } else {
            print_change(screen, job);
        }
    }
    screen->drawn = n;
    fflush(screen->out);
}

/* ---- until they have ended ---- */

/* @decision: one that waits for a decision of the user has gone far enough. */
static bool all_done(const CtlJobs *jobs, bool decision)
{
    static const char *const waiting[] = { "pending", "ready", NULL };

    for (guint i = 0; i < jobs->list->len; i++) {
        const CtlJob *job = jobs->list->pdata[i];

        if (!job->over && !(decision && g_strv_contains(waiting, job->status))) {
            return false;
        }
    }
    return true;
}

/* @screen: (nullable): nothing is shown. @seconds: at most; 0: any time. */
static int until_done(CtlJobs *jobs, Screen *screen, bool decision, double seconds, GError **error)
{
    gint64 end = g_get_monotonic_time() + (gint64)(seconds * G_USEC_PER_SEC);
    int ret = ctl_jobs_update(jobs, 0, error);

    if (screen) {
        show(screen, jobs);
    }
    while (ret == 0 && !all_done(jobs, decision)) {
        gint64 left_ms = seconds > 0 ? (end - g_get_monotonic_time()) / 1000 : PAUSE_MS;

        if (left_ms <= 0) {
            return blk_error(error, -ETIMEDOUT, "stopped waiting after %g seconds; the jobs go on", seconds);
        }
        ret = ctl_jobs_update(jobs, (int)MIN(left_ms, PAUSE_MS), error);
        if (screen) {
            show(screen, jobs);
        }
    }
    if (ret == -EINTR) {
        g_clear_error(error);
        return blk_error(error, ret, "stopped watching; the jobs go on");
    }
    return ret;
}

/* Has each that was asked for been there, and ended well? */
static CtlStatus judge(const CtlJobs *jobs)
{
    CtlStatus status = CTL_DONE;

    for (char **id = jobs->ids; *id; id++) {
        if (!ctl_jobs_find(jobs, *id)) {
            tool_error("there is no job '%s'", *id);
            status = CTL_FAILED;
        }
    }
    for (guint i = 0; i < jobs->list->len; i++) {
        status = ctl_job_failed(jobs->list->pdata[i]) ? CTL_FAILED : status;
    }
    return status;
}

CtlStatus ctl_watch(Ctl *ctl, char **ids)
{
    Screen screen = screen_of(stdout);
    void (*show_events)(JsonObject *) = ctl->client.show;
    GError *error = NULL;
    CtlStatus status;
    CtlJobs jobs;
    int ret;

    ctl->client.show = NULL;
    ctl_jobs_init(&jobs, &ctl->client, ids);
    ret = until_done(&jobs, &screen, false, ctl->options.wait_seconds, &error);
    status = ret < 0 ? ctl_failure(error) : judge(&jobs);
    ctl_jobs_clear(&jobs);
    ctl->client.show = show_events;
    return status;
}

/* ---- waiting for what a command has started ---- */

static void add_id(GPtrArray *ids, JsonObject *arguments, const char *member)
{
    const char *id = ctl_text_of(arguments, member);

    if (id) {
        g_ptr_array_add(ids, g_strdup(id));
    }
}

/* job-WHAT or block-job-WHAT */
static bool is_job_command(const char *command, const char *what)
{
    const char *rest = g_str_has_prefix(command, "block-") ? command + strlen("block-") : command;

    return g_str_has_prefix(rest, "job-") && strcmp(rest + strlen("job-"), what) == 0;
}

bool ctl_wait_init(CtlWait *wait, const char *command, JsonObject *arguments)
{
    JsonArray *actions = ctl_array_of(arguments, "actions");
    bool cancels = is_job_command(command, "cancel");
    GPtrArray *ids = g_ptr_array_new();
    JsonObject *action;

    *wait = (CtlWait) {
        .cancels = cancels,
        .ends = cancels || is_job_command(command, "complete") || is_job_command(command, "finalize"),
        .keep = arguments && json_object_has_member(arguments, "auto-dismiss"),
    };
    add_id(ids, arguments, "job-id");
    for (guint i = 0; (action = ctl_nth_object(actions, i)); i++) {
        add_id(ids, ctl_object_of(action, "data"), "job-id");
    }
    if (wait->ends) {
        add_id(ids, arguments, "id");
        add_id(ids, arguments, "device");
    }
    g_ptr_array_add(ids, NULL);
    wait->ids = (char **)g_ptr_array_free(ids, FALSE);
    return wait->ids[0] != NULL;
}

void ctl_wait_clear(CtlWait *wait)
{
    g_strfreev(wait->ids);
}

/* A job that has ended is looked at here, and nowhere else. */
static void dismiss(Ctl *ctl, const CtlJob *job)
{
    g_autoptr(JsonObject) arguments = json_object_new();
    g_autoptr(JsonNode) ignored = NULL;

    json_object_set_string_member(arguments, "id", job->id);
    ignored = ctl_call(&ctl->client, "job-dismiss", arguments, NULL);
}

static void report(const CtlJob *job)
{
    g_autofree char *id = blk_printable_text(job->id, 200), *state = ctl_job_state(job);

    tool_error(job->error ? "job '%s' has failed: %s" : "job '%s' was %s", id, state);
}

static CtlStatus finish(Ctl *ctl, const CtlWait *wait, const CtlJobs *jobs)
{
    JsonArray *results = json_array_new();
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_ARRAY);
    CtlStatus status = CTL_DONE;

    json_node_take_array(node, results);
    for (guint i = 0; i < jobs->list->len; i++) {
        CtlJob *job = jobs->list->pdata[i];

        if (job->over && job->absent == 0 && !wait->keep) {
            dismiss(ctl, job);
        }
        if (job->error || (job->aborted && !wait->cancels)) {
            report(job);
            status = CTL_FAILED;
        }
        json_array_add_object_element(results, ctl_job_to_json(job));
    }
    ctl_print_value(ctl, jobs->list->len == 1 ? json_array_get_element(results, 0) : node);
    return status;
}

CtlStatus ctl_wait(Ctl *ctl, const CtlWait *wait)
{
    Screen screen = screen_of(stderr);
    GError *error = NULL;
    CtlStatus status;
    CtlJobs jobs;

    ctl_jobs_init(&jobs, &ctl->client, wait->ids);
    if (until_done(&jobs, screen.terminal ? &screen : NULL, !wait->ends, ctl->options.wait_seconds, &error) < 0) {
        status = ctl_failure(error);
    } else {
        status = finish(ctl, wait, &jobs);
    }
    ctl_jobs_clear(&jobs);
    return status;
}

/* ---- events ---- */

CtlStatus ctl_events(Ctl *ctl, char **names)
{
    GError *error = NULL;
    JsonObject *event;

    while ((event = ctl_next_event(&ctl->client, -1, &error))) {
        if (!names[0] || g_strv_contains((const char *const *)names, ctl_text_of(event, "event") ?: "")) {
            ctl_print_line(event);
        }
        json_object_unref(event);
    }
    return ctl_failure(error);
}
