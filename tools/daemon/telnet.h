/* SPDX-License-Identifier: MIT */
/*
 * telnet.h - the little of the telnet protocol (RFC 854, 855) that a monitor needs: it offers its options once, and leaves out what
 * clients negotiate.
 */
#ifndef BLKSTACK_TOOLS_DAEMON_TELNET_H
#define BLKSTACK_TOOLS_DAEMON_TELNET_H

#include <stddef.h>

typedef enum TelnetState {
    TELNET_DATA,
    TELNET_COMMAND,             /* behind IAC */
    TELNET_OPTION,              /* behind WILL, WONT, DO, DONT */
    TELNET_PARAMETERS,          /* behind SB */
    TELNET_PARAMETERS_COMMAND,  /* behind IAC in them */
} TelnetState;

/* What a server sends first: it echoes, in both directions all bytes are data and nobody waits for a turn. */
#define TELNET_OFFER "\xff\xfb\x01\xff\xfb\x03\xff\xfb\x00\xff\xfd\x00"
#define TELNET_OFFER_BYTES 12

/* Leaves in @buf only data. @state: TELNET_DATA at first, kept from call to call. Returns: how many bytes are left. */
size_t telnet_take(TelnetState *state, char *buf, size_t bytes);

#endif
