/* SPDX-License-Identifier: MIT */
/*
 * options.c - option tables: checks what a user gave against them and hands out typed values.
 *
 * Every option of a table has a Value after parsing, so that a getter only looks up and asserts. Strings convert to the
 * type of the option, since `key=value` texts know nothing else.
 *
 * Limitations: a JSON number is exact up to INT64_MAX, a string of digits up to UINT64_MAX.
 */
#include <math.h>
#include <string.h>

#include <core/options.h>

static const char *const discard_modes[] = { "ignore", "unmap", NULL };
static const char *const detect_zeroes_modes[] = { "off", "on", "unmap", NULL };

const BlkOption blk_node_options[] = {
    { "driver", BLK_OPTION_STRING, "driver of the node" },
    { "node-name", BLK_OPTION_STRING, "name of the node, for messages and references" },
    { "read-only", BLK_OPTION_BOOL, "never write", "off" },
    { "active", BLK_OPTION_BOOL, "off: nothing is opened before the node is activated", "on" },
    { "auto-read-only", BLK_OPTION_BOOL, "open read-only if it cannot be opened for writing", "off" },
    { "force-share", BLK_OPTION_BOOL, "read while others may write; needs read-only", "off" },
    { "metadata-only", BLK_OPTION_BOOL, "do not open backing or data files", "off" },
    { "check-only", BLK_OPTION_BOOL, "open an image only to check it, however damaged its tables are; it cannot be read", "off" },
    { "cache.direct", BLK_OPTION_BOOL, "bypass the host's page cache", "off" },
    { "cache.no-flush", BLK_OPTION_BOOL, "ignore flushes", "off" },
    { "discard", BLK_OPTION_ENUM, "what becomes of discards", "ignore", discard_modes },
    { "detect-zeroes", BLK_OPTION_ENUM, "write zeroes in place of buffers of zeroes", "off", detect_zeroes_modes },
    { NULL },
};

typedef struct Value {
    const BlkOption *option;
    bool given;
    bool boolean;
    unsigned index;         /* ENUM */
    uint64_t number;        /* UINT, SIZE */
    char *string;           /* STRING, ENUM; (nullable) */
    JsonNode *json;         /* NODE, JSON; (nullable) */
} Value;

struct BlkOptions {
    GHashTable *values;     /* name -> Value */
};

static void value_free(gpointer data)
{
    Value *value = data;

    g_free(value->string);
    if (value->json != NULL) {
        json_node_unref(value->json);
    }
    g_free(value);
}

void blk_options_free(BlkOptions *options)
{
    if (options != NULL) {
        g_hash_table_unref(options->values);
        g_free(options);
    }
}

/* ---- sizes ---- */

/* A power of 1024 for a suffix, 0 for no suffix. */
static uint64_t suffix_factor(char suffix)
{
    static const char suffixes[] = "bkmgtpe";
    const char *found = suffix != '\0' ? strchr(suffixes, g_ascii_tolower(suffix)) : NULL;

    return found != NULL ? UINT64_C(1) << (10 * (found - suffixes)) : 0;
}

/* Digits after the point, as bytes of a unit of @factor bytes; rounds down. */
static uint64_t fraction_bytes(const char *digits, const char *end, uint64_t factor)
{
    unsigned __int128 value = 0, scale = 1;

    for (; digits < end && scale < UINT64_C(1000000000000000000); digits++) {
        value = value * 10 + (*digits - '0');
        scale *= 10;
    }
    return value * factor / scale;
}

bool blk_parse_size(const char *text, uint64_t *bytes)
{
    const char *fraction = NULL, *fraction_end = NULL;
    uint64_t factor = 1, value;
    char *end;

    if (!g_ascii_isdigit(*text)) {
        return false;
    }
    if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) {
        return g_ascii_string_to_unsigned(text + 2, 16, 0, UINT64_MAX, bytes, NULL);
    }
    errno = 0;
    value = g_ascii_strtoull(text, &end, 10);
    if (errno != 0) {
        return false;
    }
    if (*end == '.') {
        fraction = end + 1;
        fraction_end = fraction + strspn(fraction, "0123456789");
        end = (char *)fraction_end;
    }
    if (*end != '\0') {
        factor = suffix_factor(*end++);
    }
    if (factor == 0 || *end != '\0' || (fraction != fraction_end && factor == 1) ||
        !g_uint64_checked_mul(&value, value, factor) ||
        !g_uint64_checked_add(&value, value, fraction != NULL ? fraction_bytes(fraction, fraction_end, factor) : 0)) {
        return false;
    }
    *bytes = value;
    return true;
}

/* ---- names ---- */

bool blk_id_is_valid(const char *id)
{
    static const char others[] = "0123456789-._";

    if (!g_ascii_isalpha(id[0])) {
        return false;
    }
    for (; *id; id++) {
        if (!g_ascii_isalpha(*id) && !strchr(others, *id)) {
            return false;
        }
    }
    return true;
}

/* ---- did you mean ---- */

#define WORD_MAX 48

static char fold(char c)
{
    return c == '_' ? '-' : g_ascii_tolower(c);
}

/* Insertions, deletions, replacements and swaps of neighbours that make @b of @a. Both are shorter than WORD_MAX. */
static unsigned edit_distance(const char *a, const char *b)
{
    size_t a_length = strlen(a), b_length = strlen(b);
    unsigned rows[3][WORD_MAX];

    for (size_t j = 0; j <= b_length; j++) {
        rows[0][j] = j;
    }
    for (size_t i = 1; i <= a_length; i++) {
        unsigned *row = rows[i % 3], *above = rows[(i + 2) % 3], *above2 = rows[(i + 1) % 3];

        row[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            bool same = fold(a[i - 1]) == fold(b[j - 1]);

            row[j] = MIN(MIN(above[j], row[j - 1]) + 1, above[j - 1] + !same);
            if (i > 1 && j > 1 && fold(a[i - 1]) == fold(b[j - 2]) && fold(a[i - 2]) == fold(b[j - 1])) {
                row[j] = MIN(row[j], above2[j - 2] + 1);
            }
        }
    }
    return rows[a_length % 3][b_length];
}

const char *blk_nearest_word(const char *word, const char *const *names)
{
    size_t length = strlen(word);
    unsigned best_distance = MAX(length / 3, 1);
    const char *best = NULL;

    if (length == 0 || length >= WORD_MAX) {
        return NULL;
    }
    for (; *names != NULL; names++) {
        if (strlen(*names) < WORD_MAX) {
            unsigned distance = edit_distance(word, *names);
            bool wins_tie = best == NULL || (strlen(best) != length && strlen(*names) == length);

            if (distance < best_distance + wins_tie && distance < MAX(length, strlen(*names))) {
                best = *names;
                best_distance = distance;
            }
        }
    }
    return best;
}

/* ---- one value ---- */

/* What a value that was refused should have been. */
static char *describe_expected(const BlkOption *option)
{
    g_autofree char *values = NULL;

    switch (option->type) {
    case BLK_OPTION_STRING:
        return g_strdup("a string");
    case BLK_OPTION_BOOL:
        return g_strdup("on or off");
    case BLK_OPTION_UINT:
        return g_strdup("a whole number from 0 to 18446744073709551615");
    case BLK_OPTION_SIZE:
        return g_strdup("a size in bytes: a number, with a suffix k, M, G, T, P or E if you like");
    case BLK_OPTION_ENUM:
        values = g_strjoinv(", ", (char **)option->values);
        return g_strdup_printf("one of %s", values);
    case BLK_OPTION_NODE:
        return g_strdup("an object of options, the name of a node, or null");
    case BLK_OPTION_JSON:
        break;
    }
    return g_strdup("JSON");
}

static bool parse_bool(const char *text, bool *value)
{
    static const char *const words[] = { "off", "on", "no", "yes", "false", "true", NULL };

    for (unsigned i = 0; words[i] != NULL; i++) {
        if (strcmp(text, words[i]) == 0) {
            *value = i % 2 == 1;
            return true;
        }
    }
    return false;
}

static bool parse_uint(const char *text, uint64_t *value)
{
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');

    return g_ascii_string_to_unsigned(hex ? text + 2 : text, hex ? 16 : 10, 0, UINT64_MAX, value, NULL);
}

static bool number_from_json(const BlkOption *option, JsonNode *node, uint64_t *number)
{
    GType type = json_node_get_value_type(node);

    if (type == G_TYPE_INT64 && json_node_get_int(node) >= 0) {
        *number = json_node_get_int(node);
        return true;
    }
    if (type == G_TYPE_DOUBLE) {
        double real = json_node_get_double(node);

        /* Above 2^53 a double does not say which whole number was meant. */
        if (real < 0 || real > 9007199254740992.0 || real != floor(real)) {
            return false;
        }
        *number = real;
        return true;
    }
    if (type == G_TYPE_STRING) {
        const char *text = json_node_get_string(node);

        return option->type == BLK_OPTION_SIZE ? blk_parse_size(text, number) : parse_uint(text, number);
    }
    return false;
}

static bool find_in_values(const BlkOption *option, const char *text, unsigned *index)
{
    for (*index = 0; option->values[*index] != NULL; (*index)++) {
        if (strcmp(option->values[*index], text) == 0) {
            return true;
        }
    }
    return false;
}

/* Converts @node to the option's type. false: it cannot be. */
static bool value_set(Value *value, JsonNode *node)
{
    bool is_string = json_node_get_value_type(node) == G_TYPE_STRING;

    switch (value->option->type) {
    case BLK_OPTION_STRING:
        value->string = is_string ? json_node_dup_string(node) : NULL;
        return is_string;
    case BLK_OPTION_BOOL:
        if (json_node_get_value_type(node) == G_TYPE_BOOLEAN) {
            value->boolean = json_node_get_boolean(node);
            return true;
        }
        return is_string && parse_bool(json_node_get_string(node), &value->boolean);
    case BLK_OPTION_UINT:
    case BLK_OPTION_SIZE:
        return number_from_json(value->option, node, &value->number);
    case BLK_OPTION_ENUM:
        if (!is_string || !find_in_values(value->option, json_node_get_string(node), &value->index)) {
            return false;
        }
        value->string = json_node_dup_string(node);
        return true;
    case BLK_OPTION_NODE:
        value->json = json_node_ref(node);
        return JSON_NODE_HOLDS_OBJECT(node) || JSON_NODE_HOLDS_NULL(node) ||
               (is_string && *json_node_get_string(node) != '\0');
    case BLK_OPTION_JSON:
        value->json = json_node_ref(node);
        return true;
    }
    return false;
}

/* What was given, for messages; long texts are cut. */
static char *describe_given(JsonNode *node)
{
    g_autoptr(GString) text = g_string_new(NULL);

    blk_json_append(text, node);
    if (text->len > 60) {
        const char *cut = g_utf8_find_prev_char(text->str, text->str + 60);

        g_string_truncate(text, cut - text->str);
        g_string_append(text, "...");
    }
    return g_string_free(g_steal_pointer(&text), FALSE);
}

static bool value_parse(Value *value, JsonNode *node, const char *what, GError **error)
{
    const BlkOption *option = value->option;
    bool is_number = option->type == BLK_OPTION_UINT || option->type == BLK_OPTION_SIZE;

    value->given = true;
    if (!value_set(value, node)) {
        g_autofree char *expected = describe_expected(option), *given = describe_given(node);

        blk_error(error, -EINVAL, "%s: option '%s' must be %s, not %s", what, option->name, expected, given);
        return false;
    }
    if (is_number && option->max != 0 && (value->number < option->min || value->number > option->max)) {
        blk_error(error, -EINVAL,
                  "%s: option '%s' must be from %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT ", not %" G_GUINT64_FORMAT,
                  what, option->name, option->min, option->max, value->number);
        return false;
    }
    return true;
}

static void value_set_default(Value *value)
{
    g_autoptr(JsonNode) node = json_node_init_string(json_node_alloc(), value->option->default_text);
    bool ok = value_set(value, node);

    g_assert(ok);       /* the table is wrong */
}

/* ---- a table ---- */

static int refuse_unknown(const BlkOption *const *tables, const char *key, const char *what, GError **error)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    const char *nearest;

    for (; *tables != NULL; tables++) {
        for (const BlkOption *option = *tables; option->name != NULL; option++) {
            g_ptr_array_add(names, (gpointer)option->name);
        }
    }
    g_ptr_array_add(names, NULL);
    nearest = blk_nearest_word(key, (const char *const *)names->pdata);
    if (nearest == NULL && strchr(key, '.') != NULL) {      /* below a child whose name is mistyped */
        g_autofree char *child = g_strndup(key, strcspn(key, "."));

        nearest = blk_nearest_word(child, (const char *const *)names->pdata);
    }
    if (nearest != NULL) {
        return blk_error(error, -EINVAL, "%s: unknown option '%s'; did you mean '%s'?", what, key, nearest);
    }
    return blk_error(error, -EINVAL, "%s: unknown option '%s'", what, key);
}

static BlkOptions *options_new(const BlkOption *const *tables)
{
    BlkOptions *options = g_new0(BlkOptions, 1);

    options->values = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, value_free);
    for (; *tables != NULL; tables++) {
        for (const BlkOption *option = *tables; option->name != NULL; option++) {
            if (!g_hash_table_contains(options->values, option->name)) {
                Value *value = g_new0(Value, 1);

                value->option = option;
                g_hash_table_insert(options->values, (gpointer)option->name, value);
            }
        }
    }
    return options;
}

/* Defaults and required keys. */
static bool options_complete(BlkOptions *options, const BlkOption *const *tables, const char *what, GError **error)
{
    for (; *tables != NULL; tables++) {
        for (const BlkOption *option = *tables; option->name != NULL; option++) {
            Value *value = g_hash_table_lookup(options->values, option->name);

            if (value->given || value->option != option) {
                continue;
            }
            if (option->required) {
                blk_error(error, -EINVAL, "%s: option '%s' is required: %s", what, option->name, option->help);
                return false;
            }
            if (option->default_text != NULL) {
                value_set_default(value);
            }
        }
    }
    return true;
}

BlkOptions *blk_options_parse(const BlkOption *const *tables, JsonObject *object, const char *what, GError **error)
{
    g_autoptr(BlkOptions) options = options_new(tables);
    g_autoptr(JsonObject) normal = blk_options_normalise(tables, object, error);
    JsonObjectIter iter;
    const char *key;
    JsonNode *node;

    if (normal == NULL) {
        g_prefix_error(error, "%s: ", what);
        return NULL;
    }
    json_object_iter_init_ordered(&iter, normal);
    while (json_object_iter_next_ordered(&iter, &key, &node)) {
        Value *value = g_hash_table_lookup(options->values, key);

        if (value == NULL) {
            refuse_unknown(tables, key, what, error);
            return NULL;
        }
        if (!value_parse(value, node, what, error)) {
            return NULL;
        }
    }
    return options_complete(options, tables, what, error) ? g_steal_pointer(&options) : NULL;
}

/* ---- getters ---- */

static const Value *get(const BlkOptions *options, const char *name, unsigned types)
{
    const Value *value = g_hash_table_lookup(options->values, name);

    g_assert(value != NULL && (types & 1u << value->option->type) != 0);
    return value;
}

bool blk_options_has(const BlkOptions *options, const char *name)
{
    return get(options, name, ~0u)->given;
}

const char *blk_options_string(const BlkOptions *options, const char *name)
{
    return get(options, name, 1u << BLK_OPTION_STRING | 1u << BLK_OPTION_ENUM)->string;
}

unsigned blk_options_enum(const BlkOptions *options, const char *name)
{
    return get(options, name, 1u << BLK_OPTION_ENUM)->index;
}

bool blk_options_bool(const BlkOptions *options, const char *name)
{
    return get(options, name, 1u << BLK_OPTION_BOOL)->boolean;
}

uint64_t blk_options_uint(const BlkOptions *options, const char *name)
{
    return get(options, name, 1u << BLK_OPTION_UINT | 1u << BLK_OPTION_SIZE)->number;
}

JsonNode *blk_options_json(const BlkOptions *options, const char *name)
{
    return get(options, name, 1u << BLK_OPTION_NODE | 1u << BLK_OPTION_JSON)->json;
}

/* ---- help ---- */

static void append_remarks(GString *out, const BlkOption *option)
{
    const char *separator = " (";

    if (option->type == BLK_OPTION_ENUM) {
        g_autofree char *values = g_strjoinv(", ", (char **)option->values);

        g_string_append_printf(out, "%sallowed values: %s", separator, values);
        separator = "; ";
    }
    if (option->required) {
        g_string_append_printf(out, "%srequired", separator);
        separator = "; ";
    }
    if (option->default_text != NULL) {
        g_string_append_printf(out, "%sdefault: %s", separator, option->default_text);
        separator = "; ";
    }
    if (*separator == ';') {
        g_string_append_c(out, ')');
    }
}

bool blk_options_table_has(const BlkOption *table, const char *name)
{
    for (; table != NULL && table->name != NULL; table++) {
        if (strcmp(table->name, name) == 0) {
            return true;
        }
    }
    return false;
}

void blk_options_describe(const BlkOption *table, GString *out)
{
    static const char *const types[] = {
        [BLK_OPTION_STRING] = "str", [BLK_OPTION_BOOL] = "bool (on/off)", [BLK_OPTION_UINT] = "num",
        [BLK_OPTION_SIZE] = "size", [BLK_OPTION_ENUM] = "str", [BLK_OPTION_NODE] = "node", [BLK_OPTION_JSON] = "json",
    };

    for (; table->name != NULL; table++) {
        g_autofree char *left = g_strdup_printf("%s=<%s>", table->name, types[table->type]);

        g_string_append_printf(out, "  %-22s - %s", left, table->help);
        append_remarks(out, table);
        g_string_append_c(out, '\n');
    }
}
