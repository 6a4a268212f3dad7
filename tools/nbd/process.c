/* SPDX-License-Identifier: MIT */
/*
 * process.c - what others see of the process: a parent that waits, a pid file, sockets from systemd.
 *
 *     parent ----- pipe ----- child
 *       | waits                 | opens the image, listens
 *       |<------ one byte ------| serves
 *     exit 0                    | ...
 *
 * If the child ends before it has sent the byte, the parent ends with its status. Both write to the same standard error until
 * then, so that the user sees why.
 */
#include "nbd/nbd.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_INHERITED   64

unsigned nbd_inherited_sockets(void)
{
    const char *pid_text = g_getenv("LISTEN_PID"), *fds_text = g_getenv("LISTEN_FDS");
    guint64 pid, fds = 0;

    if (!pid_text || !fds_text || !g_ascii_string_to_unsigned(pid_text, 10, 1, INT32_MAX, &pid, NULL) ||
        (pid_t)pid != getpid() || !g_ascii_string_to_unsigned(fds_text, 10, 1, MAX_INHERITED, &fds, NULL)) {
        return 0;
    }
    /* They are not meant for children. */
    g_unsetenv("LISTEN_PID");
    g_unsetenv("LISTEN_FDS");
    g_unsetenv("LISTEN_FDNAMES");
    return (unsigned)fds;
}

/* Before anything else could have got these numbers. */
int nbd_check_inherited(unsigned sockets, GError **error)
{
    for (unsigned i = 0; i < sockets; i++) {
        int fd = NBD_FIRST_INHERITED + (int)i, listens = 0;
        socklen_t size = sizeof(listens);

        if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) < 0 || !listens) {
            return blk_error(error, -EINVAL, "Socket activation failed: file descriptor %d is no socket that listens", fd);
        }
        fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
    return 0;
}

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

int nbd_process_fork(NbdProcess *process, GError **error)
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

void nbd_process_ready(NbdProcess *process)
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

int nbd_process_write_pid(NbdProcess *process, const char *path, GError **error)
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

void nbd_process_end(NbdProcess *process)
{
    if (process->pid_fd >= 0) {
        g_unlink(process->pid_file);
        close(process->pid_fd);
        process->pid_fd = -1;
    }
}
