/* SPDX-License-Identifier: MIT */
/*
 * option.h - parsing what options of the handshake carry. Nothing here waits, allocates or knows a connection.
 */
#ifndef BLKSTACK_EXPORTS_NBD_OPTION_H
#define BLKSTACK_EXPORTS_NBD_OPTION_H

#include "exports/nbd/wire.h"

/* Bytes of a message; no terminating zero, may contain any. */
typedef struct NbdString {
    const char *text;
    uint32_t length;
} NbdString;

static inline bool blk_nbd_string_is(NbdString string, const char *text)
{
    return strlen(text) == string.length && memcmp(string.text, text, string.length) == 0;
}

/* What is left of an option's data. */
typedef struct NbdCursor {
    const uint8_t *at;
    size_t left;
} NbdCursor;

/* Each returns 0 or the reply that refuses the option: NBD_REP_ERR_INVALID, NBD_REP_ERR_TOO_BIG. */

/* A length of 32 bits and as many bytes, at most 4096. */
uint32_t blk_nbd_take_string(NbdCursor *cursor, NbdString *string);

/* NBD_OPT_INFO, NBD_OPT_GO: 32 name's length, name, 16 count, 16 each: kinds of information. */
typedef struct NbdInfoRequest {
    NbdString name;
    uint32_t wanted;            /* bit n: NBD_INFO_... n */
} NbdInfoRequest;
uint32_t blk_nbd_parse_info(NbdCursor data, NbdInfoRequest *request);

/* NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT: 32 name's length, name, 32 count, queries like the name. */
typedef struct NbdContextRequest {
    NbdString name;
    uint32_t count;
    NbdCursor queries;          /* for blk_nbd_take_string(), @count times: checked */
} NbdContextRequest;
uint32_t blk_nbd_parse_contexts(NbdCursor data, NbdContextRequest *request);

#endif
