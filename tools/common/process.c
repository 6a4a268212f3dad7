/* SPDX-License-Identifier: MIT */
/*
 * process.c - what others see of the process: a parent that waits, a pid file, signals.
 *
 *     parent ----- pipe ----- child
 *       | waits                 | opens the image, listens
 *       |<------ one byte ------| serves
 *     exit 0                    | ...
 *
 * If the child ends before it has sent the byte, the parent ends with its status. Both write to the same standard error until
 * then, so that the user sees why.
 */
#include "common/process.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- the parent ---- */

static int status_of(pid_t child)
{
    int status;

    if (TEMP_FAILURE_RETRY(waitpid(child, &status, 0)) < 0 || !WIFEXITED(status)) {
        return EXIT_FAILURE;
    }
    return WEXITSTATUS(status);
}

static void wait_for_child(pid_t child, int ready_fd)
{
    char byte;
    ssize_t n = TEMP_FAILURE_RETRY(read(ready_fd, &byte, 1));

    exit(n == 1 ? EXIT_SUCCESS : status_of(child));
}

int tool_process_fork(ToolProcess *process, GError **error)
{
    int fds[2];
    pid_t child;

    if (pipe2(fds, O_CLOEXEC) < 0) {
        return blk_error_errno(error, -errno, "Cannot make a pipe");
    }
    fflush(NULL);
    child = fork();
    if (child < 0) {
        return blk_error_errno(error, -errno, "Cannot fork");
    }
    if (child > 0) {
        close(fds[1]);
        wait_for_child(child, fds[0]);
    }
    close(fds[0]);
    process->ready_fd = fds[1];
    setsid();
    return 0;
}

static void forget_terminal(bool verbose)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    fflush(NULL);
    if (fd >= 0) {
        dup2(fd, STDIN_FILENO);
        dup2(fd, STDOUT_FILENO);
        if (!verbose) {
            dup2(fd, STDERR_FILENO);
        }
        close(fd);
    }
}

void tool_process_ready(ToolProcess *process)
{
    if (process->ready_fd < 0) {
        return;
    }
    forget_terminal(process->verbose);
    /* If the parent was killed nobody needs to know. */
    (void)!TEMP_FAILURE_RETRY(write(process->ready_fd, "", 1));
    close(process->ready_fd);
    process->ready_fd = -1;
}

/* ---- the pid file ---- */

static int write_pid(int fd)
{
    g_autofree char *text = g_strdup_printf("%ld\n", (long)getpid());
    size_t bytes = strlen(text);

    if (ftruncate(fd, 0) < 0) {
        return -errno;
    }
    return TEMP_FAILURE_RETRY(pwrite(fd, text, bytes, 0)) == (ssize_t)bytes ? 0 : -EIO;
}

int tool_process_write_pid(ToolProcess *process, const char *path, GError **error)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644), ret;

    if (fd < 0) {
        return blk_error_errno(error, -errno, "Could not create '%s'", path);
    }
    if (fcntl(fd, F_SETLK, &lock) < 0) {
        close(fd);
        return blk_error(error, -EBUSY, "Cannot lock pid file '%s': another process that runs has it", path);
    }
    ret = write_pid(fd);
    if (ret < 0) {
        close(fd);
        return blk_error_errno(error, ret, "Cannot write the pid file '%s'", path);
    }
    process->pid_fd = fd;
    process->pid_file = path;
    return 0;
}

void tool_process_end(ToolProcess *process)
{
    if (process->pid_fd >= 0) {
        g_unlink(process->pid_file);
        close(process->pid_fd);
        process->pid_fd = -1;
    }
}

/* ---- signals ---- */

static sigset_t stop_signals(void)
{
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    return signals;
}

void tool_block_signals(void)
{
    sigset_t signals = stop_signals();

    pthread_sigmask(SIG_BLOCK, &signals, NULL);
}

int tool_co_wait_for_signal(BlkPoll *poll, const bool *over, GError **error)
{
    sigset_t signals = stop_signals();
    int fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC), ret = 0;

    if (fd < 0) {
        return blk_error_errno(error, -errno, "Cannot wait for signals");
    }
    if (!*over) {
        ret = blk_co_poll(poll, fd, POLLIN, UINT64_MAX);
    }
    close(fd);
    return ret < 0 && ret != -ECANCELED ? blk_error_errno(error, ret, "Cannot wait for signals") : 0;
}
