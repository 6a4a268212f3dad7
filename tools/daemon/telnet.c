/* SPDX-License-Identifier: MIT */
/*
 * telnet.c - commands of the telnet protocol, taken out of a stream of bytes.
 */
#include "daemon/telnet.h"

#include <stdbool.h>

enum { SE = 240, SB = 250, WILL = 251, DONT = 254, IAC = 255 };

/* The state behind @byte, which follows IAC. */
static TelnetState after_command(unsigned char byte)
{
    if (byte == SB) {
        return TELNET_PARAMETERS;
    }
    return byte >= WILL && byte <= DONT ? TELNET_OPTION : TELNET_DATA;
}

static TelnetState next_state(TelnetState state, unsigned char byte)
{
    switch (state) {
    case TELNET_DATA:
        return byte == IAC ? TELNET_COMMAND : TELNET_DATA;
    case TELNET_COMMAND:
        return after_command(byte);
    case TELNET_OPTION:
        return TELNET_DATA;
    case TELNET_PARAMETERS:
        return byte == IAC ? TELNET_PARAMETERS_COMMAND : TELNET_PARAMETERS;
    case TELNET_PARAMETERS_COMMAND:
        return byte == SE ? TELNET_DATA : TELNET_PARAMETERS;
    }
    return TELNET_DATA;
}

size_t telnet_take(TelnetState *state, char *buf, size_t bytes)
{
    size_t left = 0;

    for (size_t i = 0; i < bytes; i++) {
        unsigned char byte = (unsigned char)buf[i];
        bool is_data = *state == TELNET_DATA ? byte != IAC : *state == TELNET_COMMAND && byte == IAC;

        *state = next_state(*state, byte);
        if (is_data) {
            buf[left++] = (char)byte;
        }
    }
    return left;
}
