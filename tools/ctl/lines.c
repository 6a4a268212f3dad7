/* SPDX-License-Identifier: MIT */
/*
 * lines.c - lines of commands: of a terminal, edited by libedit with a history and completion, or of a script. Events
 * are printed while the user thinks.
 *
 * Without libedit a terminal is read as a script is, with a prompt. The history is in memory, since commands may hold
 * secrets, unless the user names a file; lines that begin with a space are in neither.
 */
#include "config.h"
#include "ctl/ctl.h"

#include <locale.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>
#include <wchar.h>

#ifdef HAVE_LIBEDIT
#include <histedit.h>
#endif

#define PROMPT   "blkstack> "
#define INTERRUPT 3             /* Ctrl-C, as a terminal sends it */
#define HISTORY_LINES 1000

struct CtlLines {
    Ctl *ctl;
    bool typed;
    GString *input;             /* of a script: what was read and not taken */
#ifdef HAVE_LIBEDIT
    EditLine *edit;             /* (nullable): not a terminal */
    History *history;
#endif
};

typedef enum Wait { WAIT_INPUT, WAIT_INTERRUPT, WAIT_GONE } Wait;

/* ---- events at the prompt ---- */

static void show_event(CtlLines *lines, JsonObject *event)
{
    if (lines->typed) {
        putchar('\n');
    }
    if (lines->typed || lines->ctl->options.events) {
        ctl_print_line(event);
    }
#ifdef HAVE_LIBEDIT
    if (lines->edit) {
        el_set(lines->edit, EL_REFRESH);
    }
#endif
}

/* Those that have come. WAIT_INPUT: there are no more. */
static Wait show_events(CtlLines *lines)
{
    GError *error = NULL;
    JsonObject *event;

    while ((event = ctl_next_event(&lines->ctl->client, 0, &error))) {
        show_event(lines, event);
        json_object_unref(event);
    }
    if (!error) {
        return WAIT_INPUT;
    }
    if (error->code == EINTR) {
        g_error_free(error);
        return WAIT_INTERRUPT;
    }
    if (lines->typed) {
        putchar('\n');
        tool_error("%s", error->message);
    }
    g_error_free(error);
    return WAIT_GONE;
}

/* Until standard input has something. A script learns with its next command that the connection is gone. */
static Wait wait_for_input(CtlLines *lines)
{
    CtlClient *client = &lines->ctl->client;

    for (;;) {
        Wait wait = client->why ? WAIT_GONE : show_events(lines);
        struct pollfd fds[] = {
            { .fd = STDIN_FILENO, .events = POLLIN },
            { .fd = client->interrupt, .events = POLLIN },
            { .fd = wait == WAIT_GONE ? -1 : client->fd, .events = POLLIN },
        };

        if (wait == WAIT_INTERRUPT || (wait == WAIT_GONE && lines->typed)) {
            return wait;
        }
        poll(fds, G_N_ELEMENTS(fds), -1);
        if (fds[1].revents && ctl_take_interrupt(client)) {
            return WAIT_INTERRUPT;
        }
        if (fds[0].revents) {
            return WAIT_INPUT;
        }
    }
}

/* ---- a terminal ---- */

#ifdef HAVE_LIBEDIT

static char *prompt(EditLine *edit)
{
    return (char *)PROMPT;
}

/* A character, or the bytes of one. Returns: 1; 0: there are no more; -1: an error. */
static int read_char(EditLine *edit, wchar_t *c)
{
    CtlLines *lines = NULL;
    mbstate_t state = { 0 };

    el_get(edit, EL_CLIENTDATA, &lines);
    for (;;) {
        Wait wait = wait_for_input(lines);
        char byte;
        size_t used;

        if (wait != WAIT_INPUT) {
            *c = INTERRUPT;
            return wait == WAIT_INTERRUPT ? 1 : 0;
        }
        if (TEMP_FAILURE_RETRY(read(STDIN_FILENO, &byte, 1)) != 1) {
            return 0;
        }
        used = mbrtowc(c, &byte, 1, &state);
        if (used == (size_t)-1) {
            memset(&state, 0, sizeof(state));       /* no character: forgotten */
        } else if (used != (size_t)-2) {
            return 1;
        }
    }
}

/* What all words in @list begin with. */
static char *common_part(const GPtrArray *list)
{
    char *part = g_strdup(list->pdata[0]);

    for (guint i = 1; i < list->len; i++) {
        const char *other = list->pdata[i];
        size_t same = 0;

        while (part[same] && part[same] == other[same]) {
            same++;
        }
        part[same] = '\0';
    }
    return part;
}

static void print_choices(const GPtrArray *list)
{
    putchar('\n');
    for (guint i = 0; i < list->len; i++) {
        g_autofree char *text = blk_printable_text(list->pdata[i], 200);

        printf("%s%s", text, i + 1 < list->len ? " " : "");
    }
    fflush(stdout);
}

static unsigned char complete(EditLine *edit, int key)
{
    CtlLines *lines = NULL;
    const LineInfo *info = el_line(edit);
    g_autofree char *line = g_strndup(info->buffer, (gsize)(info->cursor - info->buffer));
    size_t typed = strlen(line) - (strrchr(line, ' ') ? (size_t)(strrchr(line, ' ') + 1 - line) : 0);
    g_autofree char *part = NULL, *safe = NULL;
    g_autoptr(GPtrArray) list = NULL;

    el_get(edit, EL_CLIENTDATA, &lines);
    list = ctl_complete(lines->ctl, line);
    if (list->len == 0) {
        return CC_REFRESH_BEEP;
    }
    part = common_part(list);
    if (strlen(part) > typed) {
        safe = blk_printable_text(part + typed, 200);
        return el_insertstr(edit, safe) == 0 ? CC_REFRESH : CC_ERROR;
    }
    print_choices(list);
    return CC_REDISPLAY;
}

static unsigned char abandon(EditLine *edit, int key)
{
    const LineInfo *info = el_line(edit);

    fputs("^C", stdout);
    fflush(stdout);
    el_cursor(edit, (int)(info->lastchar - info->cursor));
    el_deletestr(edit, (int)(info->lastchar - info->buffer));
    return CC_REDISPLAY;
}

static void begin_editing(CtlLines *lines)
{
    const char *file = lines->ctl->options.history;
    HistEvent event;

    setlocale(LC_CTYPE, "");
    lines->history = history_init();
    history(lines->history, &event, H_SETSIZE, HISTORY_LINES);
    history(lines->history, &event, H_SETUNIQUE, 1);
    if (file && access(file, F_OK) == 0 && history(lines->history, &event, H_LOAD, file) < 0) {
        tool_warning("cannot read the history in '%s'", file);
    }
    lines->edit = el_init(tool_program(), stdin, stdout, stderr);
    el_set(lines->edit, EL_CLIENTDATA, lines);
    el_set(lines->edit, EL_PROMPT, prompt);
    el_set(lines->edit, EL_EDITOR, "emacs");
    el_set(lines->edit, EL_SETTY, "-d", "-isig", NULL);     /* Ctrl-C is a key: as a signal it drops what was typed */
    el_set(lines->edit, EL_GETCFN, read_char);
    el_set(lines->edit, EL_HIST, history, lines->history);
    el_set(lines->edit, EL_ADDFN, "complete", "completes a word", complete);
    el_set(lines->edit, EL_ADDFN, "abandon", "forgets the line", abandon);
    el_set(lines->edit, EL_BIND, "^I", "complete", NULL);
    el_set(lines->edit, EL_BIND, "^C", "abandon", NULL);
}

static void end_editing(CtlLines *lines)
{
    const char *file = lines->ctl->options.history;
    HistEvent event;

    if (file && history(lines->history, &event, H_SAVE, file) < 0) {
        tool_warning("cannot store the history in '%s'", file);
    }
    el_end(lines->edit);
    history_end(lines->history);
}

static char *edited_line(CtlLines *lines)
{
    HistEvent event;
    int length = 0;
    const char *text;

    el_set(lines->edit, EL_PREP_TERM, 1);       /* before the prompt, so that what is typed at it is not the terminal's */
    text = el_gets(lines->edit, &length);
    if (!text || length <= 0) {
        putchar('\n');
        return NULL;
    }
    if (length > 1 && *text != ' ') {
        history(lines->history, &event, H_ENTER, text);
    }
    return g_strchomp(g_strndup(text, (gsize)length));
}

#endif

/* ---- a script ---- */

static char *plain_line(CtlLines *lines)
{
    for (;;) {
        char buf[4096], *end = memchr(lines->input->str, '\n', lines->input->len);
        ssize_t n;

        if (end) {
            char *line = g_strndup(lines->input->str, (gsize)(end - lines->input->str));

            g_string_erase(lines->input, 0, end + 1 - lines->input->str);
            return line;
        }
        if (wait_for_input(lines) != WAIT_INPUT) {
            return NULL;
        }
        n = TEMP_FAILURE_RETRY(read(STDIN_FILENO, buf, sizeof(buf)));
        if (n > 0) {
            g_string_append_len(lines->input, buf, n);
        } else if (lines->input->len > 0) {
            g_string_append_c(lines->input, '\n');      /* the last line has no end */
        } else {
            return NULL;
        }
    }
}

/* ---- both ---- */

CtlLines *ctl_lines_new(Ctl *ctl)
{
    CtlLines *lines = g_new0(CtlLines, 1);

    lines->ctl = ctl;
    lines->typed = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    lines->input = g_string_new(NULL);
#ifdef HAVE_LIBEDIT
    if (lines->typed) {
        begin_editing(lines);
    }
#endif
    return lines;
}

bool ctl_lines_are_typed(const CtlLines *lines)
{
    return lines->typed;
}

char *ctl_lines_next(CtlLines *lines)
{
#ifdef HAVE_LIBEDIT
    if (lines->edit) {
        return edited_line(lines);
    }
#endif
    if (lines->typed) {
        fputs(PROMPT, stdout);
        fflush(stdout);
    }
    return plain_line(lines);
}

void ctl_lines_free(CtlLines *lines)
{
#ifdef HAVE_LIBEDIT
    if (lines->edit) {
        end_editing(lines);
    }
#endif
    g_string_free(lines->input, TRUE);
    g_free(lines);
}
