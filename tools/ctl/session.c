/* SPDX-License-Identifier: MIT */
/*
 * session.c - commands, one after the other: what each returns goes to standard output as JSON, what went wrong as one
 * sentence to standard error.
 */
#include "ctl/ctl.h"

#include "core/options.h"

#include <stdio.h>

const char *const ctl_own_words[] = { "events", "exit", "help", "wait", "watch", NULL };

CtlStatus ctl_failure(GError *error)
{
    CtlStatus status = error->code == EINTR ? CTL_INTERRUPTED : CTL_FAILED;

    tool_report(error);
    return status;
}

static CtlStatus usage(GError *error)
{
    tool_report(error);
    return CTL_USAGE;
}

/* What a terminal may obey is escaped, as JSON allows: it stands in strings only. */
void ctl_print_line(JsonObject *object)
{
    g_autofree char *text = blk_json_to_string(object);

    for (const char *p = text; *p; p = g_utf8_next_char(p)) {
        gunichar c = g_utf8_get_char(p);

        if (c >= 0x7f && c < 0xa0) {
            printf("\\u%04x", c);
        } else {
            fwrite(p, 1, (size_t)(g_utf8_next_char(p) - p), stdout);
        }
    }
    putchar('\n');
    fflush(stdout);
}

static void print_pretty(JsonNode *value)
{
    g_autoptr(GString) text = g_string_new(NULL);

    tool_json_pretty(text, value);
    puts(text->str);
    fflush(stdout);
}

void ctl_print_value(Ctl *ctl, JsonNode *value)
{
    g_autoptr(JsonObject) reply = json_object_new();

    if (ctl->options.json) {
        json_object_set_member(reply, "return", json_node_copy(value));
        ctl_print_line(reply);
    } else {
        print_pretty(value);
    }
}

/* Events that came and that nobody wants to see. */
static void forget_events(CtlClient *client)
{
    g_autoptr(GError) error = NULL;
    JsonObject *event;

    while ((event = ctl_next_event(client, 0, &error))) {
        json_object_unref(event);
    }
}

/* ---- commands of the server ---- */

/* @id: (nullable): what the user has given the command to know its reply by. */
static CtlStatus print_reply(Ctl *ctl, JsonObject *reply, JsonNode *id)
{
    bool good = json_object_has_member(reply, "return");
    GError *error = NULL;

    if (ctl->options.json) {
        if (id) {
            json_object_set_member(reply, "id", json_node_copy(id));
        }
        ctl_print_line(reply);
    } else if (good) {
        print_pretty(json_object_get_member(reply, "return"));
    } else {
        ctl_reply_error(reply, &error);
        tool_report(error);
    }
    return good ? CTL_DONE : CTL_FAILED;
}

/* @arguments, @id: (nullable) */
static CtlStatus run_command(Ctl *ctl, const char *command, JsonObject *arguments, JsonNode *id, bool wait)
{
    void (*show)(JsonObject *) = ctl->client.show;
    g_autoptr(JsonObject) reply = NULL;
    GError *error = NULL;
    CtlStatus status;
    CtlWait jobs;

    wait &= ctl_wait_init(&jobs, command, arguments);
    forget_events(&ctl->client);
    ctl->client.show = wait ? NULL : show;
    reply = ctl_ask(&ctl->client, command, arguments, &error);
    if (!reply) {
        status = ctl_failure(error);
    } else if (wait && json_object_has_member(reply, "return")) {
        status = ctl_wait(ctl, &jobs);
    } else {
        status = print_reply(ctl, reply, id);
    }
    ctl->client.show = show;
    ctl_wait_clear(&jobs);
    return status;
}

static CtlStatus parse_and_run(Ctl *ctl, char **words, bool wait)
{
    g_autoptr(JsonObject) arguments = NULL;
    GError *error = NULL;

    if (!words[0]) {
        tool_error("a command is missing");
        return CTL_USAGE;
    }
    arguments = ctl_parse_arguments(&ctl->schema, words[0], words + 1, &error);
    if (!arguments) {
        return usage(error);
    }
    return run_command(ctl, words[0], json_object_get_size(arguments) > 0 ? arguments : NULL, NULL, wait);
}

CtlStatus ctl_run_words(Ctl *ctl, char **words)
{
    bool caught = ctl_catch_interrupts(&ctl->client);
    CtlStatus status;

    if (strcmp(words[0], "help") == 0) {
        status = ctl_help(&ctl->schema, words + 1);
    } else if (strcmp(words[0], "watch") == 0) {
        status = ctl_watch(ctl, words + 1);
    } else if (strcmp(words[0], "events") == 0) {
        status = ctl_events(ctl, words + 1);
    } else if (strcmp(words[0], "wait") == 0) {
        status = parse_and_run(ctl, words + 1, true);
    } else {
        status = parse_and_run(ctl, words, ctl->options.wait);
    }
    if (caught) {
        ctl_release_interrupts(&ctl->client);
    }
    return status;
}

/* ---- lines ---- */

/* {"execute": ..., "arguments": ...} as other programs send it. */
static CtlStatus run_message(Ctl *ctl, const char *line)
{
    GError *error = NULL;
    g_autoptr(JsonObject) message = blk_json_parse_object(line, -1, "command", &error);
    const char *command = ctl_text_of(message, "execute");
    JsonObject *arguments = ctl_object_of(message, "arguments");
    CtlStatus status;
    bool caught;

    if (message && (!command || (!arguments && json_object_has_member(message, "arguments")))) {
        blk_error(&error, -EINVAL, "a command in JSON is {\"execute\": NAME, \"arguments\": {...}}");
    }
    if (error) {
        return usage(error);
    }
    caught = ctl_catch_interrupts(&ctl->client);
    status = run_command(ctl, command, arguments, json_object_get_member(message, "id"), ctl->options.wait);
    if (caught) {
        ctl_release_interrupts(&ctl->client);
    }
    return status;
}

/* The words of COMMAND {JSON}: the JSON is one, as it is; else they have the quotes of a shell. (transfer full) */
static char **split(const char *line, GError **error)
{
    const char *brace = strchr(line, '{');
    bool is_json = brace && brace > line && g_ascii_isspace(brace[-1]) && !memchr(line, '=', (size_t)(brace - line));
    g_autofree char *before = is_json ? g_strndup(line, (gsize)(brace - line)) : g_strdup(line);
    char **words = NULL;
    int n;

    if (!g_shell_parse_argv(before, &n, &words, error) || !is_json) {
        return words;
    }
    words = g_renew(char *, words, n + 2);
    words[n] = g_strdup(brace);
    words[n + 1] = NULL;
    return words;
}

CtlStatus ctl_run_line(Ctl *ctl, const char *line)
{
    g_autofree char *text = g_strstrip(g_strdup(line));
    g_auto(GStrv) words = NULL;
    GError *error = NULL;

    if (*text == '{') {
        return run_message(ctl, text);
    }
    words = split(text, &error);
    return words ? ctl_run_words(ctl, words) : usage(error);
}

CtlStatus ctl_run_lines(Ctl *ctl)
{
    CtlLines *lines = ctl_lines_new(ctl);
    bool typed = ctl_lines_are_typed(lines), over = false;
    CtlStatus status = CTL_DONE;
    char *line;

    if (typed) {
        ctl->client.show = ctl_print_line;
        ctl_catch_interrupts(&ctl->client);
    }
    while (!over && (line = ctl_lines_next(lines))) {
        const char *text = g_strstrip(line);

        if (*text && *text != '#' && strcmp(text, "exit") != 0) {
            CtlStatus one = ctl_run_line(ctl, text);
            bool stop = one != CTL_DONE && !typed && !ctl->options.keep_going;

            status = one != CTL_DONE ? one : status;
            over = stop || ctl->client.why || (one == CTL_DONE && strcmp(text, "quit") == 0);
        } else {
            over = strcmp(text, "exit") == 0;
        }
        g_free(line);
    }
    ctl_lines_free(lines);
    if (typed) {                    /* the user has seen what failed */
        return ctl->client.why ? CTL_FAILED : CTL_DONE;
    }
    return status;
}
