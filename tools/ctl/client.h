/* SPDX-License-Identifier: MIT */
/*
 * client.h - a connection to the control socket of a daemon (QMP): greeting, commands and replies, events.
 *
 * Nothing that the server sends is trusted: a message is a line of JSON of bounded length and depth, a reply comes within
 * a time, whatever is sent instead of it, and events that nobody takes are bounded. After an error of the connection (see
 * CtlClient.why) nothing more is sent.
 */
#ifndef BLKSTACK_TOOLS_CTL_CLIENT_H
#define BLKSTACK_TOOLS_CTL_CLIENT_H

#include "common/tool.h"

#define CTL_MAX_MESSAGE ((size_t)16 << 20)      /* bytes */
#define CTL_MAX_EVENTS  ((size_t)4 << 20)       /* bytes of events that are kept; the oldest go first */
#define CTL_BATCH       ((size_t)256 << 10)     /* bytes of events that are received in a row */

typedef struct CtlClient {
    int fd;                     /* -1: none */
    int interrupt;              /* is readable when the user wants no more waiting; -1: none */
    double timeout;             /* seconds that a reply may take; 0: any time */
    char *why;                  /* (nullable): a sentence: the connection is of no use any more */
    GString *input;             /* what came */
    size_t taken, searched;     /* bytes at its beginning that were taken; that hold no end of line */
    GQueue events;              /* CtlEvent */
    size_t event_bytes;
    size_t batch;               /* bytes that were received since a reply, or since there was no event */
    unsigned next_id;
    void (*show)(JsonObject *event);    /* (nullable): takes events at once, instead of keeping them */
} CtlClient;

/* @address: a path, or HOST:PORT. Connects, reads the greeting and negotiates. @client: (out): to be cleared, also
 * after an error. */
int ctl_client_open(CtlClient *client, const char *address, double timeout, GError **error);
void ctl_client_clear(CtlClient *client);

/**
 * ctl_ask:
 * @arguments: (nullable)
 *
 * Sends a command and waits for its reply. Returns: (transfer full): the reply, without an id: it has "return" or
 * "error"; NULL with @error set: what is wrong with the connection, or -EINTR: the user wants no more waiting, and the
 * reply will be dropped.
 */
JsonObject *ctl_ask(CtlClient *client, const char *command, JsonObject *arguments, GError **error);

/* The same. Returns: (transfer full): what the command returned; NULL with @error set also by the server's refusal
 * (-EREMOTEIO). */
JsonNode *ctl_call(CtlClient *client, const char *command, JsonObject *arguments, GError **error);

/* Why the server has refused: sets @error to it, -EREMOTEIO. */
void ctl_reply_error(JsonObject *reply, GError **error);

/* (transfer full): the next event. NULL: none has come in @wait_ms (-1: any time), or, with @wait_ms 0, so many have
 * come one after the other that it is time to do something else; with @error set: as ctl_ask(). */
JsonObject *ctl_next_event(CtlClient *client, int wait_ms, GError **error);

/* From now on Ctrl-C does not end the process, but waiting, until it is released. false: that is so already. */
bool ctl_catch_interrupts(CtlClient *client);
void ctl_release_interrupts(CtlClient *client);
/* Has the user pressed it? Forgets it. */
bool ctl_take_interrupt(CtlClient *client);

/* ---- connect.c ---- */

/* Returns: a socket, or a negative errno. */
int ctl_connect(const char *address, GError **error);

/* ---- members of what came, which may be anything; @object: (nullable) ---- */

const char *ctl_text_of(JsonObject *object, const char *member);            /* (nullable): no string */
JsonArray *ctl_array_of(JsonObject *object, const char *member);            /* (transfer none) (nullable) */
JsonObject *ctl_object_of(JsonObject *object, const char *member);
/* NULL ends the list. */
JsonObject *ctl_nth_object(JsonArray *array, guint index);

#endif
