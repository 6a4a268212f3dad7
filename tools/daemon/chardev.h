/* SPDX-License-Identifier: MIT */
/*
 * chardev.h - where the clients of a monitor come from: --chardev.
 */
#ifndef BLKSTACK_TOOLS_DAEMON_CHARDEV_H
#define BLKSTACK_TOOLS_DAEMON_CHARDEV_H

#include "core/channel.h"
#include "core/socket.h"
#include "daemon/daemon.h"

#include "core/object.h"

#define CHARDEV_MAX_CLIENTS 64      /* of one chardev at once; others wait to be accepted */

typedef struct Chardev Chardev;

typedef struct ChardevType {
    const char *name;
    const char *help;               /* one line */
    const BlkOption *options;       /* beside backend and id */
    /* Makes it ready for its user. Context: coroutine; may yield. */
    int (*co_open)(Chardev *chardev, const BlkOptions *options, GError **error);
} ChardevType;

typedef struct ChardevListener {
    Chardev *chardev;
    int fd;
    BlkPoll poll;
    BlkSleep pause;
} ChardevListener;

struct Chardev {
    Daemon *d;
    const ChardevType *type;
    char *id;
    char *filename;                 /* for people, as query-chardev tells it */
    GPtrArray *listeners;           /* ChardevListener *: sockets that listen */
    BlkSocketPath path;             /* of a listener; empty: none */
    bool telnet;                    /* clients speak the telnet protocol */
    BlkObject *tls_creds, *tls_authz;   /* (nullable): clients speak TLS; who is let in */
    GQueue handshakes;              /* ChardevHandshake *: clients that are not through it; they count as clients */
    int log;                        /* what is said to clients is written here, too; -1: nowhere */
    struct {                        /* a server to connect to, once, or whenever the user has no client */
        uint64_t pause_ns;          /* before the next attempt; 0: there is none */
        char *unix_path, *cid, *host, *port;
        int family;
        BlkSleep pause;
    } again;
    BlkChannel *channel;            /* (nullable): of one client that is there from the beginning */
    /* The user. @channel is its own. Does not yield. NULL: nobody uses the chardev. */
    void (*connected)(Chardev *chardev, BlkChannel *channel, void *user);
    void *user;
    unsigned clients;               /* that the user has; see chardev_client_gone() */
};

extern const BlkOption chardev_options[];               /* of every chardev */
const ChardevType *chardev_type_nth(unsigned index);    /* NULL ends the list */
const ChardevType *chardev_type_find(const char *name); /* (nullable) */

/* @text: what --chardev says. Context: coroutine; may yield. Returns: 0; a negative errno. */
int chardev_co_add(Daemon *d, const char *text, GError **error);
Chardev *chardev_find(Daemon *d, const char *id);       /* (nullable) */

/* From now on @connected is called for each client. -EBUSY: it has a user. Does not yield. */
int chardev_use(Chardev *chardev, void (*connected)(Chardev *chardev, BlkChannel *channel, void *user), void *user,
                GError **error);
/* What was said to a client: for the log. Does not yield. */
void chardev_log(const Chardev *chardev, const void *data, size_t bytes);
/* One that was handed to the user has ended. */
void chardev_client_gone(Chardev *chardev);

/* chardev_tls.c: who is accepted may have to speak TLS. @options: of a socket. 0 or -EINVAL. */
int chardev_tls_use(Chardev *chardev, const BlkOptions *options, GError **error);
/* Makes the connection of a new client, and hands it to the user. Does not yield. */
void chardev_tls_begin(Chardev *chardev, int fd);
void chardev_tls_stop(Chardev *chardev);        /* handshakes end soon */
void chardev_tls_clear(Chardev *chardev);

/* Nobody is accepted any more; those who wait in chardev_co_add() return. Does not yield. */
void chardev_stop_all(Daemon *d);
/* Context: the coroutines of daemon_begin() have ended. */
void chardev_free_all(Daemon *d);

#endif
