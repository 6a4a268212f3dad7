/* SPDX-License-Identifier: MIT */
/*
 * tool.c - how the tools begin, and their messages.
 */
#include "common/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* An image that is opened must not become standard output. What takes the place fails as a closed one does. */
static void keep_standard_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF) {
            (void)!open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
        }
    }
}

void tool_begin(const char *argv0)
{
    g_autofree char *base = g_path_get_basename(argv0 ? argv0 : "blkstack");

    g_set_prgname(base);
    keep_standard_descriptors();
}

void tool_turn_signals_into_errors(void)
{
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
}

/* Closed by who started the program (keep_standard_descriptors()), or read by somebody who may have had enough. */
static bool is_output_needed(void)
{
    struct stat st;
    int flags = fcntl(STDOUT_FILENO, F_GETFL);

    return flags >= 0 && (flags & O_ACCMODE) != O_RDONLY &&
           fstat(STDOUT_FILENO, &st) == 0 && !S_ISFIFO(st.st_mode) && !S_ISSOCK(st.st_mode);
}

int tool_end(int status, int failure)
{
    bool failed = ferror(stdout);
    bool told = fflush(stdout) != 0;
    int error = errno;

    if (!(failed || told) || !is_output_needed()) {
        return status;
    }
    tool_error("What was printed is not complete: standard output could not be written%s%s", told ? ": " : "",
               told ? g_strerror(error) : "");
    return status != 0 ? status : failure;
}

const char *tool_program(void)
{
    return g_get_prgname();
}

static void G_GNUC_PRINTF(2, 0) print_message(const char *kind, const char *format, va_list args)
{
    g_autofree char *text = g_strdup_vprintf(format, args);

    fflush(stdout);
    fprintf(stderr, "%s: %s%s\n", tool_program(), kind, text);
}

void tool_error(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    print_message("", format, args);
    va_end(args);
}

void tool_warning(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    print_message("warning: ", format, args);
    va_end(args);
}

void tool_node_message(BlkNode *node, const char *text, void *unused)
{
    tool_error("%s", text);
}

void tool_report(GError *error)
{
    tool_error("%s", error->message);
    g_error_free(error);
}

bool tool_is_help(const char *word)
{
    return strcmp(word, "help") == 0 || strcmp(word, "?") == 0;
}

bool tool_take_trace(const char *text)
{
    if (tool_is_help(text)) {
        printf("There are no trace events.\n");
        return true;
    }
    if (*text != '\0') {
        tool_warning("there are no trace events: -T, --trace does nothing");
    }
    return false;
}

void tool_option_error(int c, char **argv)
{
    const char *word = argv[optind - 1];

    if (c == ':') {
        tool_error("missing argument for option '%s'", word);
    } else {
        tool_error("unrecognized option '%s'", word);
    }
}
