/* SPDX-License-Identifier: MIT */
/*
 * output.c - JSON and progress on standard output.
 *
 * Who sends SIGUSR1 is told the progress on standard error, whether -p was given or not. The signal is blocked and asked
 * for whenever there is progress, so no handler and no global state is needed.
 */
#include "img/img.h"

#include <signal.h>
#include <stdio.h>
#include <time.h>

void img_print_json(JsonNode *node)
{
    g_autoptr(GString) text = g_string_new(NULL);

    tool_json_pretty(text, node);
    puts(text->str);
}

static void show(ImgProgress *progress, double percent)
{
    if (progress->enabled) {
        printf("    (%3.2f/100%%)\r", percent);
        fflush(stdout);
    }
    progress->shown = percent;
}

static sigset_t progress_signals(void)
{
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    return signals;
}

static bool progress_asked(void)
{
    const sigset_t signals = progress_signals();
    const struct timespec at_once = { 0 };

    return sigtimedwait(&signals, NULL, &at_once) == SIGUSR1;
}

void img_progress_begin(ImgProgress *progress, bool enabled)
{
    const sigset_t signals = progress_signals();

    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    progress->enabled = enabled;
    show(progress, 0);
}

void img_progress_report(double fraction, void *opaque)
{
    ImgProgress *progress = opaque;
    double percent = CLAMP(fraction, 0, 1) * 100;

    if (percent >= progress->shown + 1 || (percent >= 100 && progress->shown < 100)) {
        show(progress, percent);
    }
    if (progress_asked()) {
        fprintf(stderr, "    (%3.2f/100%%)\n", percent);
    }
}

void img_progress_end(ImgProgress *progress)
{
    if (progress->enabled) {
        putchar('\n');
        fflush(stdout);
    }
}
