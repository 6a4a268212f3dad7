/* SPDX-License-Identifier: MIT */
/*
 * json.c - text to json-glib trees and back.
 *
 * The reader is our own, since json-glib's accepts more than JSON, keeps the last of two equal keys, and recurses as
 * deep as the text asks. This one is strict, with one addition: strings may stand in single quotes, as users write them
 * in json: names. Nesting and size are bounded, text must be UTF-8, and messages say line and column.
 *
 * Limitations: whole numbers outside the range of int64_t become doubles; U+0000 cannot be in a string.
 */
#include <math.h>
#include <string.h>

#include <core/options.h>

typedef struct JsonText {
    const char *what, *start, *at, *end;
    unsigned depth;
    GError **error;
} JsonText;

static JsonNode *read_value(JsonText *reader);

static void G_GNUC_PRINTF(3, 4) fail_at(JsonText *reader, const char *at, const char *format, ...)
{
    g_autofree char *text = NULL;
    const char *line_start = reader->start;
    unsigned line = 1;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    for (const char *p = reader->start; p < at; p++) {
        if (*p == '\n') {
            line++;
            line_start = p + 1;
        }
    }
    blk_error(reader->error, -EINVAL, "%s: line %u, column %ld: %s", reader->what, line,
              g_utf8_strlen(line_start, at - line_start) + 1, text);
}

static char peek(const JsonText *reader)
{
    return reader->at < reader->end ? *reader->at : '\0';
}

static void skip_space(JsonText *reader)
{
    while (reader->at < reader->end && strchr(" \t\r\n", *reader->at) != NULL) {
        reader->at++;
    }
}

/* What stands here, for messages: a character or the end. */
static void fail_expected(JsonText *reader, const char *expected)
{
    if (reader->at == reader->end) {
        fail_at(reader, reader->at, "expected %s, but the text ends", expected);
    } else {
        int bytes = g_utf8_next_char(reader->at) - reader->at;

        fail_at(reader, reader->at, "expected %s, found '%.*s'", expected, bytes, reader->at);
    }
}

static bool read_hex4(JsonText *reader, unsigned *unit)
{
    *unit = 0;
    for (unsigned i = 0; i < 4; i++) {
        int digit = g_ascii_xdigit_value(peek(reader));

        if (digit < 0) {
            fail_expected(reader, "four hexadecimal digits after \\u");
            return false;
        }
        *unit = *unit << 4 | digit;
        reader->at++;
    }
    return true;
}

/* After "\u": one UTF-16 unit or a surrogate pair. */
static bool read_unicode_escape(JsonText *reader, GString *out)
{
    const char *where = reader->at - 2;
    unsigned unit, low = 0;

    if (!read_hex4(reader, &unit)) {
        return false;
    }
    if (unit >= 0xd800 && unit < 0xdc00 && reader->end - reader->at >= 2 && memcmp(reader->at, "\\u", 2) == 0) {
        reader->at += 2;
        if (!read_hex4(reader, &low)) {
            return false;
        }
        if (low >= 0xdc00 && low < 0xe000) {
            unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
        }
    }
    if (unit == 0 || (unit >= 0xd800 && unit < 0xe000)) {
        fail_at(reader, where, unit == 0 ? "U+0000 is not allowed" : "half of a surrogate pair");
        return false;
    }
    g_string_append_unichar(out, unit);
    return true;
}

static bool read_escape(JsonText *reader, GString *out)
{
    static const char names[] = "\"'\\/bfnrt", values[] = "\"'\\/\b\f\n\r\t";
    char c;
    const char *name;

    reader->at++;
    c = peek(reader);
    if (c == 'u') {
        reader->at++;
        return read_unicode_escape(reader, out);
    }
    name = c != '\0' ? strchr(names, c) : NULL;
    if (name == NULL) {
        fail_expected(reader, "an escape after \\: one of \" ' \\ / b f n r t u");
        return false;
    }
    g_string_append_c(out, values[name - names]);
    reader->at++;
    return true;
}

/* (transfer full) (nullable) */
static char *read_string(JsonText *reader)
{
    g_autoptr(GString) out = g_string_new(NULL);
    const char *opening = reader->at;

    for (reader->at++; reader->at < reader->end;) {
        char c = *reader->at;

        if (c == *opening) {
            reader->at++;
            return g_string_free(g_steal_pointer(&out), FALSE);
        }
        if (c == '\\') {
            if (!read_escape(reader, out)) {
                return NULL;
            }
        } else if ((unsigned char)c < 0x20) {
            fail_at(reader, reader->at, "control character 0x%02x in a string", c);
            return NULL;
        } else {
            g_string_append_c(out, c);
            reader->at++;
        }
    }
    fail_at(reader, opening, "the string that begins here has no end");
    return NULL;
}

static bool read_digits(JsonText *reader)
{
    if (!g_ascii_isdigit(peek(reader))) {
        fail_expected(reader, "a digit");
        return false;
    }
    while (g_ascii_isdigit(peek(reader))) {
        reader->at++;
    }
    return true;
}

static JsonNode *read_number(JsonText *reader)
{
    const char *begin = reader->at;
    g_autofree char *text = NULL;
    bool whole = true;
    gint64 integer;
    double real;

    reader->at += *reader->at == '-';
    if (peek(reader) == '0') {
        reader->at++;
    } else if (!read_digits(reader)) {
        return NULL;
    }
    if (peek(reader) == '.') {
        whole = false;
        reader->at++;
        if (!read_digits(reader)) {
            return NULL;
        }
    }
    if (peek(reader) == 'e' || peek(reader) == 'E') {
        whole = false;
        reader->at++;
        reader->at += peek(reader) == '+' || peek(reader) == '-';
        if (!read_digits(reader)) {
            return NULL;
        }
    }
    text = g_strndup(begin, reader->at - begin);
    if (whole && g_ascii_string_to_signed(text, 10, G_MININT64, G_MAXINT64, &integer, NULL)) {
        return json_node_init_int(json_node_alloc(), integer);
    }
    real = g_ascii_strtod(text, NULL);
    if (!isfinite(real)) {
        fail_at(reader, begin, "the number is too large");
        return NULL;
    }
    return json_node_init_double(json_node_alloc(), real);
}

static JsonNode *read_array(JsonText *reader)
{
    g_autoptr(JsonArray) array = json_array_new();

    reader->at++;
    skip_space(reader);
    if (peek(reader) != ']') {
        while (true) {
            JsonNode *value = read_value(reader);

            if (value == NULL) {
                return NULL;
            }
            json_array_add_element(array, value);
            skip_space(reader);
            if (peek(reader) != ',') {
                break;
            }
            reader->at++;
        }
    }
    if (peek(reader) != ']') {
        fail_expected(reader, "',' or ']'");
        return NULL;
    }
    reader->at++;
    return json_node_init_array(json_node_alloc(), array);
}

static bool read_member(JsonText *reader, JsonObject *object)
{
    g_autofree char *key = NULL;
    const char *where;
    JsonNode *value;

    skip_space(reader);
    where = reader->at;
    if (peek(reader) != '"' && peek(reader) != '\'') {
        fail_expected(reader, "a key in quotes");
        return false;
    }
    key = read_string(reader);
    if (key == NULL) {
        return false;
    }
    if (json_object_has_member(object, key)) {
        fail_at(reader, where, "the key '%s' is there already", key);
        return false;
    }
    skip_space(reader);
    if (peek(reader) != ':') {
        fail_expected(reader, "':'");
        return false;
    }
    reader->at++;
    value = read_value(reader);
    if (value == NULL) {
        return false;
    }
    json_object_set_member(object, key, value);
    return true;
}

static JsonNode *read_object(JsonText *reader)
{
    g_autoptr(JsonObject) object = json_object_new();

    reader->at++;
    skip_space(reader);
    if (peek(reader) != '}') {
        while (true) {
            if (!read_member(reader, object)) {
                return NULL;
            }
            skip_space(reader);
            if (peek(reader) != ',') {
                break;
            }
            reader->at++;
        }
    }
    if (peek(reader) != '}') {
        fail_expected(reader, "',' or '}'");
        return NULL;
    }
    reader->at++;
    return json_node_init_object(json_node_alloc(), object);
}

static JsonNode *read_nested(JsonText *reader)
{
    JsonNode *node;

    if (reader->depth == BLK_JSON_MAX_DEPTH) {
        fail_at(reader, reader->at, "nested deeper than %d", BLK_JSON_MAX_DEPTH);
        return NULL;
    }
    reader->depth++;
    node = *reader->at == '{' ? read_object(reader) : read_array(reader);
    reader->depth--;
    return node;
}

static bool read_word(JsonText *reader, const char *word)
{
    size_t bytes = strlen(word);

    if ((size_t)(reader->end - reader->at) < bytes || memcmp(reader->at, word, bytes) != 0) {
        return false;
    }
    reader->at += bytes;
    return true;
}

/* (transfer full) (nullable) */
static JsonNode *read_value(JsonText *reader)
{
    char c;

    skip_space(reader);
    c = peek(reader);
    if (c == '{' || c == '[') {
        return read_nested(reader);
    }
    if (c == '"' || c == '\'') {
        g_autofree char *text = read_string(reader);

        return text != NULL ? json_node_init_string(json_node_alloc(), text) : NULL;
    }
    if (c == '-' || g_ascii_isdigit(c)) {
        return read_number(reader);
    }
    if (read_word(reader, "true")) {
        return json_node_init_boolean(json_node_alloc(), true);
    }
    if (read_word(reader, "false")) {
        return json_node_init_boolean(json_node_alloc(), false);
    }
    if (read_word(reader, "null")) {
        return json_node_init_null(json_node_alloc());
    }
    fail_expected(reader, "a value");
    return NULL;
}

static bool begin_text(JsonText *reader, size_t max_bytes, GError **error)
{
    size_t bytes = (size_t)(reader->end - reader->start);
    const char *valid_end;

    if (bytes > max_bytes) {
        blk_error(error, -EINVAL, "%s: %zu bytes of JSON are more than the limit of %zu", reader->what, bytes,
                  max_bytes);
        return false;
    }
    if (!g_utf8_validate(reader->start, bytes, &valid_end)) {
        fail_at(reader, valid_end, "byte 0x%02x is not valid UTF-8 text here", (unsigned char)*valid_end);
        return false;
    }
    skip_space(reader);
    return true;
}

/* The value, and nothing after it, which is a @kind. (transfer full) (nullable) */
static JsonNode *read_text(JsonText *reader, const char *kind)
{
    g_autoptr(JsonNode) node = read_value(reader);
    g_autofree char *expected = NULL;

    if (node == NULL) {
        return NULL;
    }
    skip_space(reader);
    if (reader->at != reader->end) {
        expected = g_strdup_printf("the end of the text after the %s", kind);
        fail_expected(reader, expected);
        return NULL;
    }
    return g_steal_pointer(&node);
}

JsonNode *blk_json_parse_long(const char *text, size_t bytes, size_t max_bytes, const char *what, GError **error)
{
    JsonText reader = { .what = what, .start = text, .at = text, .end = text + bytes, .error = error };

    return begin_text(&reader, max_bytes, error) ? read_text(&reader, "value") : NULL;
}

JsonNode *blk_json_parse(const char *text, size_t bytes, const char *what, GError **error)
{
    return blk_json_parse_long(text, bytes, BLK_JSON_MAX_BYTES, what, error);
}

JsonObject *blk_json_parse_object(const char *text, gssize length, const char *what, GError **error)
{
    size_t bytes = length < 0 ? strlen(text) : (size_t)length;
    JsonText reader = { .what = what, .start = text, .at = text, .end = text + bytes, .error = error };
    g_autoptr(JsonNode) node = NULL;

    if (!begin_text(&reader, BLK_JSON_MAX_BYTES, error)) {
        return NULL;
    }
    if (peek(&reader) != '{') {
        fail_expected(&reader, "a JSON object, which begins with '{'");
        return NULL;
    }
    node = read_text(&reader, "object");
    return node != NULL ? json_node_dup_object(node) : NULL;
}

static JsonNode *copy_node(JsonNode *node)
{
    g_autoptr(JsonArray) array = NULL;

    if (JSON_NODE_HOLDS_OBJECT(node)) {
        g_autoptr(JsonObject) object = blk_json_copy(json_node_get_object(node));

        return json_node_init_object(json_node_alloc(), object);
    }
    if (!JSON_NODE_HOLDS_ARRAY(node)) {
        return json_node_copy(node);
    }
    array = json_array_new();
    for (guint i = 0; i < json_array_get_length(json_node_get_array(node)); i++) {
        json_array_add_element(array, copy_node(json_array_get_element(json_node_get_array(node), i)));
    }
    return json_node_init_array(json_node_alloc(), array);
}

JsonObject *blk_json_copy(JsonObject *object)
{
    JsonObject *copy = json_object_new();
    JsonObjectIter iter;
    const char *key;
    JsonNode *value;

    json_object_iter_init_ordered(&iter, object);
    while (json_object_iter_next_ordered(&iter, &key, &value)) {
        json_object_set_member(copy, key, copy_node(value));
    }
    return copy;
}

static void append_string(GString *out, const char *text)
{
    static const char escaped[] = "\"\\\b\f\n\r\t", names[] = "\"\\bfnrt";

    g_string_append_c(out, '"');
    for (; *text != '\0'; text++) {
        const char *found = strchr(escaped, *text);

        if (found != NULL) {
            g_string_append_c(out, '\\');
            g_string_append_c(out, names[found - escaped]);
        } else if ((unsigned char)*text < 0x20) {
            g_string_append_printf(out, "\\u%04x", *text);
        } else {
            g_string_append_c(out, *text);
        }
    }
    g_string_append_c(out, '"');
}

static void append_object(GString *out, JsonObject *object)
{
    const char *separator = "";
    JsonObjectIter iter;
    const char *key;
    JsonNode *value;

    g_string_append_c(out, '{');
    json_object_iter_init_ordered(&iter, object);
    while (json_object_iter_next_ordered(&iter, &key, &value)) {
        g_string_append(out, separator);
        append_string(out, key);
        g_string_append(out, ": ");
        blk_json_append(out, value);
        separator = ", ";
    }
    g_string_append_c(out, '}');
}

static void append_array(GString *out, JsonArray *array)
{
    g_string_append_c(out, '[');
    for (guint i = 0; i < json_array_get_length(array); i++) {
        if (i > 0) {
            g_string_append(out, ", ");
        }
        blk_json_append(out, json_array_get_element(array, i));
    }
    g_string_append_c(out, ']');
}

void blk_json_append(GString *out, JsonNode *node)
{
    GType type = json_node_get_value_type(node);

    if (JSON_NODE_HOLDS_OBJECT(node)) {
        append_object(out, json_node_get_object(node));
    } else if (JSON_NODE_HOLDS_ARRAY(node)) {
        append_array(out, json_node_get_array(node));
    } else if (JSON_NODE_HOLDS_NULL(node)) {
        g_string_append(out, "null");
    } else if (type == G_TYPE_BOOLEAN) {
        g_string_append(out, json_node_get_boolean(node) ? "true" : "false");
    } else if (type == G_TYPE_INT64) {
        g_string_append_printf(out, "%" G_GINT64_FORMAT, json_node_get_int(node));
    } else if (type == G_TYPE_DOUBLE) {
        char text[G_ASCII_DTOSTR_BUF_SIZE];

        g_string_append(out, g_ascii_formatd(text, sizeof(text), "%.17g", json_node_get_double(node)));
    } else {
        append_string(out, json_node_get_string(node));
    }
}

char *blk_json_to_string(JsonObject *object)
{
    GString *out = g_string_new(NULL);

    append_object(out, object);
    return g_string_free(out, FALSE);
}
