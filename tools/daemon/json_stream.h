/* SPDX-License-Identifier: MIT */
/*
 * json_stream.h - cuts a stream of bytes into texts of JSON values, in bounded memory.
 *
 *     {"execute": "a"} {"execute":     ->   {"execute": "a"}   and, when the rest has come,   {"execute":
 *     "b"}                                                                                    "b"}
 *
 * It follows only strings and brackets; what a text means, and whether it is JSON at all, blk_json_parse() says. What can
 * be no value whatever follows (too long, nested too deep, a line that ends within a string) is an error at once, and
 * the rest of its line is skipped. A byte 0xff, which no JSON has, forgets what is unfinished.
 *
 * Limitation: after a text that was refused in its first line, each further line of it is taken for a new text.
 */
#ifndef BLKSTACK_TOOLS_DAEMON_JSON_STREAM_H
#define BLKSTACK_TOOLS_DAEMON_JSON_STREAM_H

#include <blkstack/blkstack.h>

typedef struct JsonStream {
    GString *text;          /* of the value that has begun */
    unsigned depth;         /* of open brackets */
    char quote;             /* that ends the string that is open; 0: none is */
    bool escaped;           /* the last byte was a backslash in a string */
    bool skipping;          /* to the end of the line */
} JsonStream;

void json_stream_init(JsonStream *stream);
void json_stream_clear(JsonStream *stream);

/**
 * json_stream_take:
 * @at: (inout): the next byte that came; moved behind what was taken
 * @end: behind the last byte that came
 *
 * To be called until *@at is @end. Returns: (transfer full): the text of one value; NULL with @error set: something that
 * can be none, which is forgotten; NULL without: all bytes are taken, and more are needed.
 */
GString *json_stream_take(JsonStream *stream, const char **at, const char *end, GError **error);

#endif
