/* SPDX-License-Identifier: MIT */
/*
 * inherited.c - sockets that systemd hands over.
 */
#include "nbd/nbd.h"

#include "core/socket.h"

#include <unistd.h>

#define MAX_INHERITED 64

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
        int ret = blk_socket_adopt(NBD_FIRST_INHERITED + (int)i, true, error);

        if (ret < 0) {
            g_prefix_error(error, "Socket activation failed: ");
            return ret;
        }
    }
    return 0;
}
