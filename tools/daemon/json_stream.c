/* SPDX-License-Identifier: MIT */
/*
 * json_stream.c - where one JSON text ends and the next one begins.
 */
#include "daemon/json_stream.h"

#include "core/options.h"

#include <string.h>

#define KEPT_BYTES ((size_t)64 << 10)     /* of memory, between two texts */
#define SYNC_BYTE  '\xff'

typedef enum Step {
    STEP_TAKEN,         /* the byte is part of the text, or space between texts */
    STEP_ENDS,          /* ... and the last one of its text */
    STEP_ENDED,         /* the text had ended before this byte, which is still to be taken */
    STEP_REFUSED,       /* with an error */
} Step;

void json_stream_init(JsonStream *stream)
{
    *stream = (JsonStream) { .text = g_string_new(NULL) };
}

void json_stream_clear(JsonStream *stream)
{
    g_string_free(stream->text, TRUE);
    stream->text = NULL;
}

/* Forgets what has begun. */
static void reset(JsonStream *stream)
{
    if (stream->text->allocated_len > KEPT_BYTES) {
        g_string_free(stream->text, TRUE);
        stream->text = g_string_new(NULL);
    }
    g_string_truncate(stream->text, 0);
    stream->depth = 0;
    stream->quote = '\0';
    stream->escaped = false;
}

static Step G_GNUC_PRINTF(4, 5) refuse(JsonStream *stream, char c, GError **error, const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    blk_error(error, -EINVAL, "JSON parse error: %s", text);
    reset(stream);
    stream->skipping = c != '\n' && c != SYNC_BYTE;
    return STEP_REFUSED;
}

static Step keep(JsonStream *stream, char c, Step step, GError **error)
{
    if (stream->text->len == BLK_JSON_MAX_BYTES) {
        return refuse(stream, c, error, "the text is longer than %zu bytes", BLK_JSON_MAX_BYTES);
    }
    g_string_append_c(stream->text, c);
    return step;
}

static Step take_in_string(JsonStream *stream, char c, GError **error)
{
    if ((unsigned char)c < 0x20) {
        return refuse(stream, c, error, "a string has no end before the byte 0x%02x", c);
    }
    if (stream->escaped) {
        stream->escaped = false;
    } else if (c == '\\') {
        stream->escaped = true;
    } else if (c == stream->quote) {
        stream->quote = '\0';
        return keep(stream, c, stream->depth == 0 ? STEP_ENDS : STEP_TAKEN, error);
    }
    return keep(stream, c, STEP_TAKEN, error);
}

static Step take_closing(JsonStream *stream, char c, GError **error)
{
    stream->depth -= stream->depth > 0;
    return keep(stream, c, stream->depth == 0 ? STEP_ENDS : STEP_TAKEN, error);
}

/* Outside of strings. A number or a word at the top ends where something else begins. */
static Step take_plain(JsonStream *stream, char c, GError **error)
{
    bool in_word = stream->depth == 0 && stream->text->len > 0;

    switch (c) {
    case ' ': case '\t': case '\r': case '\n':
        if (stream->depth > 0) {
            return keep(stream, c, STEP_TAKEN, error);
        }
        return in_word ? STEP_ENDED : STEP_TAKEN;
    case '"': case '\'':
        if (in_word) {
            return STEP_ENDED;
        }
        stream->quote = c;
        return keep(stream, c, STEP_TAKEN, error);
    case '{': case '[':
        if (in_word) {
            return STEP_ENDED;
        }
        if (stream->depth == BLK_JSON_MAX_DEPTH) {
            return refuse(stream, c, error, "nested deeper than %d", BLK_JSON_MAX_DEPTH);
        }
        stream->depth++;
        return keep(stream, c, STEP_TAKEN, error);
    case '}': case ']':
        return in_word ? STEP_ENDED : take_closing(stream, c, error);
    default:
        return keep(stream, c, STEP_TAKEN, error);
    }
}

static Step take_byte(JsonStream *stream, char c, GError **error)
{
    if (c == SYNC_BYTE) {
        return refuse(stream, c, error, "the byte 0xff is in no text");
    }
    return stream->quote ? take_in_string(stream, c, error) : take_plain(stream, c, error);
}

static GString *finish(JsonStream *stream)
{
    GString *text = stream->text;

    stream->text = g_string_new(NULL);
    reset(stream);
    return text;
}

/* To the end of the line, or to a byte that begins anew. */
static const char *skip(JsonStream *stream, const char *at, const char *end)
{
    for (; at < end; at++) {
        if (*at == '\n' || *at == SYNC_BYTE) {
            stream->skipping = false;
            return at + 1;
        }
    }
    return at;
}

GString *json_stream_take(JsonStream *stream, const char **at, const char *end, GError **error)
{
    while (*at < end) {
        if (stream->skipping) {
            *at = skip(stream, *at, end);
            continue;
        }
        switch (take_byte(stream, **at, error)) {
        case STEP_TAKEN:
            (*at)++;
            break;
        case STEP_ENDS:
            (*at)++;
            return finish(stream);
        case STEP_ENDED:
            return finish(stream);
        case STEP_REFUSED:
            (*at)++;
            return NULL;
        }
    }
    return NULL;
}
