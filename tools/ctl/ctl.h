/* SPDX-License-Identifier: MIT */
/*
 * ctl.h - what the files of blkstack-ctl share. docs/blkstack-ctl.md is the page to read before.
 *
 *     main.c --> session.c                     commands, one after the other
 *                  --> lines.c --> complete.c  lines of a terminal or of a script
 *                  --> command.c, help.c       words to JSON; what there is
 *                  --> watch.c --> jobs.c      jobs until they end; events
 *                        --> schema.c, client.c --> connect.c
 */
#ifndef BLKSTACK_TOOLS_CTL_CTL_H
#define BLKSTACK_TOOLS_CTL_CTL_H

#include "ctl/schema.h"

/* The exit status. */
typedef enum CtlStatus {
    CTL_DONE = 0,
    CTL_FAILED = 1,             /* a command, a job, or the connection */
    CTL_USAGE = 2,
    CTL_INTERRUPTED = 130,      /* by Ctrl-C */
} CtlStatus;

typedef struct CtlOptions {
    bool json;                  /* replies as they are, one a line */
    bool events;                /* are printed as they come */
    bool keep_going;            /* after a command that failed */
    bool wait;                  /* for the end of jobs that commands start */
    double wait_seconds;        /* at most; 0: any time */
    const char *history;        /* (nullable): a file that keeps what was typed */
} CtlOptions;

typedef struct Ctl {
    CtlOptions options;
    CtlClient client;
    CtlSchema schema;
} Ctl;

/* What went wrong was reported; frees @error. */
CtlStatus ctl_failure(GError *error);
/* On standard output, as one line of JSON. */
void ctl_print_line(JsonObject *object);

/* ---- command.c ---- */

/* Both: (transfer full): NULL with @error set. @words: NULL-terminated: key=value... */
JsonObject *ctl_words_to_texts(const CtlSchema *schema, const char *command, char **words, GError **error);
/* ... or one JSON object; values have the types that the schema knows. */
JsonObject *ctl_parse_arguments(const CtlSchema *schema, const char *command, char **words, GError **error);

/* ---- help.c ---- */

/* Prints what there is, or the arguments of the command that @words begins with, as its key=value choose them. */
CtlStatus ctl_help(const CtlSchema *schema, char **words);

/* ---- session.c ---- */

/* Words that are no commands of the server. NULL-terminated. */
extern const char *const ctl_own_words[];

/* What a command has returned, on standard output. */
void ctl_print_value(Ctl *ctl, JsonNode *value);

CtlStatus ctl_run_words(Ctl *ctl, char **words);
/* One line, as a user types it. */
CtlStatus ctl_run_line(Ctl *ctl, const char *line);
/* Those of standard input. */
CtlStatus ctl_run_lines(Ctl *ctl);

/* ---- watch.c ---- */

/* @ids: NULL-terminated; none: all jobs. Until all have ended. */
CtlStatus ctl_watch(Ctl *ctl, char **ids);
/* Until the connection ends. @names: only those; none: all. */
CtlStatus ctl_events(Ctl *ctl, char **names);

/* What a command has to do with jobs. */
typedef struct CtlWait {
    char **ids;                 /* NULL-terminated */
    bool ends;                  /* it asks for the end; else jobs that wait for a decision have gone far enough */
    bool cancels;               /* it wants them to be cancelled */
    bool keep;                  /* they are to be looked at by somebody else, too */
} CtlWait;

/* @arguments: (nullable). false: the command is about no job that comes to an end. @wait: (out): to be cleared. */
bool ctl_wait_init(CtlWait *wait, const char *command, JsonObject *arguments);
void ctl_wait_clear(CtlWait *wait);
/* After the command was sent, with events kept from then on. Prints what became of the jobs. */
CtlStatus ctl_wait(Ctl *ctl, const CtlWait *wait);

/* ---- lines.c ---- */

typedef struct CtlLines CtlLines;
/* @ctl outlives it. */
CtlLines *ctl_lines_new(Ctl *ctl);
/* Does a user type them at a terminal? */
bool ctl_lines_are_typed(const CtlLines *lines);
/* (transfer full): without its end; NULL: there are no more, or the connection is gone (see CtlClient.why). */
char *ctl_lines_next(CtlLines *lines);
void ctl_lines_free(CtlLines *lines);

/* ---- complete.c ---- */

/* (transfer full): what the last, unfinished word of @line may become: whole words; (char *), with g_free as free
 * function. */
GPtrArray *ctl_complete(Ctl *ctl, const char *line);

#endif
