/* SPDX-License-Identifier: MIT */
/*
 * address.h - where a server listens, in the two forms that users of the peer write.
 */
#ifndef BLKSTACK_TOOLS_DAEMON_ADDRESS_H
#define BLKSTACK_TOOLS_DAEMON_ADDRESS_H

#include "daemon/daemon.h"

/* One of @path, @fd, @cid and @host is given, or @port alone: TCP on all addresses. */
struct DaemonAddress {
    char *path;         /* of a unix socket */
    char *host, *port;  /* TCP; @port is also that of @cid */
    char *to;           /* (nullable): TCP: the last port of a range */
    char *cid;          /* vsock */
    int family;         /* AF_INET, AF_INET6, AF_UNSPEC */
    int fd;             /* a socket that listens already; -1: none */
};

#define DAEMON_ADDRESS_INIT { .fd = -1 }

/* {"type": "unix", "path": ...}; @words: all values may be text. @address: (out): to be cleared, also after an error.
 * 0 or -EINVAL. */
int daemon_parse_address(Daemon *d, DaemonAddress *address, JsonNode *node, bool words, GError **error);
/* {"type": "unix", "data": {"path": ...}}, as in commands, which cannot hand over descriptors. */
int daemon_parse_legacy_address(Daemon *d, DaemonAddress *address, JsonNode *node, GError **error);
/* What the two take. */
extern const BlkType daemon_address_type, daemon_legacy_address_type;
void daemon_address_clear(DaemonAddress *address);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(DaemonAddress, daemon_address_clear)

/* Listens on the first of the ports @port..@to that is free, as blk_co_socket_listen_tcp() does; @to: (nullable): on @port. */
int daemon_co_listen_tcp(Daemon *d, int family, const char *host, const char *port, const char *to, GArray *sockets,
                         GError **error);

/* What the options ipv4 and ipv6 say: AF_INET, AF_INET6 or, as without both, AF_UNSPEC. */
int daemon_address_family(const BlkOptions *options);

#endif
