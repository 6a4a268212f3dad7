/* SPDX-License-Identifier: MIT */
/*
 * options_tree.c - the two shapes of options: dotted keys ("file.size": 1) and nested objects ({"file": {"size": 1}}),
 * and the text `file.size=1,...` that makes dotted keys.
 *
 * The keys of one driver are told apart from those of its children by its tables: only below a key of type NODE or JSON
 * do dots and nesting belong to somebody else.
 */
#include <string.h>

#include <core/options.h>

#define TREE_MAX_DEPTH 64
#define KEYVAL_MAX_BYTES ((size_t)1 << 20)

/* ---- dotted keys to nested objects ---- */

/* Puts the members of @from into @group, which stands at @key. */
static bool merge(JsonObject *group, JsonObject *from, const char *key, GError **error)
{
    JsonObjectIter iter;
    const char *name;
    JsonNode *value;

    json_object_iter_init_ordered(&iter, from);
    while (json_object_iter_next_ordered(&iter, &name, &value)) {
        if (json_object_has_member(group, name)) {
            blk_error(error, -EINVAL, "'%s.%s' is given twice, with dots and nested", key, name);
            return false;
        }
        json_object_set_member(group, name, json_node_copy(value));
    }
    return true;
}

/* Puts @value below @root at the path @key. The path's groups are made on the way. */
static bool place(JsonObject *root, const char *key, JsonNode *value, GError **error)
{
    g_auto(GStrv) path = g_strsplit(key, ".", TREE_MAX_DEPTH + 1);
    unsigned last = g_strv_length(path) - 1;
    JsonObject *group = root;

    if (last >= TREE_MAX_DEPTH) {
        blk_error(error, -EINVAL, "the key '%.40s...' has more than %d parts", key, TREE_MAX_DEPTH);
        return false;
    }
    for (unsigned i = 0; i <= last; i++) {
        JsonNode *present = json_object_get_member(group, path[i]);

        if (path[i][0] == '\0') {
            blk_error(error, -EINVAL, "the key '%s' has an empty part", key);
            return false;
        }
        if (present != NULL && i == last && JSON_NODE_HOLDS_OBJECT(present) && JSON_NODE_HOLDS_OBJECT(value)) {
            return merge(json_node_get_object(present), json_node_get_object(value), key, error);
        }
        if (present != NULL && (i == last || !JSON_NODE_HOLDS_OBJECT(present))) {
            blk_error(error, -EINVAL, "'%s' is given both as a value and as a group of keys, or twice", key);
            return false;
        }
        if (i == last) {
            json_object_set_member(group, path[i], json_node_copy(value));
        } else if (present == NULL) {
            JsonObject *inner = json_object_new();

            json_object_set_object_member(group, path[i], inner);
            group = inner;
        } else {
            group = json_node_get_object(present);
        }
    }
    return true;
}

static bool is_index(const char *key)
{
    return *key != '\0' && strspn(key, "0123456789") == strlen(key) && (key[0] != '0' || key[1] == '\0');
}

static JsonNode *groups_to_arrays(JsonObject *group, const char *name, GError **error);

/* (transfer full) (nullable) */
static JsonNode *child_to_arrays(JsonNode *child, const char *name, GError **error)
{
    return JSON_NODE_HOLDS_OBJECT(child) ? groups_to_arrays(json_node_get_object(child), name, error)
                                         : json_node_copy(child);
}

static JsonNode *group_to_array(JsonObject *group, const char *name, GError **error)
{
    g_autoptr(JsonArray) array = json_array_new();

    for (guint i = 0; i < json_object_get_size(group); i++) {
        g_autofree char *index = g_strdup_printf("%u", i);
        JsonNode *child = json_object_get_member(group, index);
        JsonNode *converted;

        if (child == NULL) {
            blk_error(error, -EINVAL, "the list '%s' has no element %u: number its elements from 0 without gaps", name,
                      i);
            return NULL;
        }
        converted = child_to_arrays(child, name, error);
        if (converted == NULL) {
            return NULL;
        }
        json_array_add_element(array, converted);
    }
    return json_node_init_array(json_node_alloc(), array);
}

/* @name: of the group; NULL for the root, which never is an array. (transfer full) (nullable) */
static JsonNode *groups_to_arrays(JsonObject *group, const char *name, GError **error)
{
    g_autoptr(JsonObject) out = json_object_new();
    unsigned indices = 0;
    JsonObjectIter iter;
    const char *key;
    JsonNode *value;

    json_object_iter_init_ordered(&iter, group);
    while (json_object_iter_next_ordered(&iter, &key, &value)) {
        indices += is_index(key);
    }
    if (name != NULL && indices > 0) {
        if (indices != json_object_get_size(group)) {
            blk_error(error, -EINVAL, "'%s' mixes numbered and named keys", name);
            return NULL;
        }
        return group_to_array(group, name, error);
    }
    json_object_iter_init_ordered(&iter, group);
    while (json_object_iter_next_ordered(&iter, &key, &value)) {
        JsonNode *converted = child_to_arrays(value, key, error);

        if (converted == NULL) {
            return NULL;
        }
        json_object_set_member(out, key, converted);
    }
    return json_node_init_object(json_node_alloc(), out);
}

JsonObject *blk_options_expand(JsonObject *object, GError **error)
{
    g_autoptr(JsonObject) groups = json_object_new(), copy = blk_json_copy(object);
    g_autoptr(JsonNode) out = NULL;
    JsonObjectIter iter;
    const char *key;
    JsonNode *value;

    json_object_iter_init_ordered(&iter, copy);
    while (json_object_iter_next_ordered(&iter, &key, &value)) {
        if (!place(groups, key, value, error)) {
            return NULL;
        }
    }
    out = groups_to_arrays(groups, NULL, error);
    return out != NULL ? json_node_dup_object(out) : NULL;
}

/* ---- the shape that the tables ask for ---- */

typedef struct Normaliser {
    const BlkOption *const *tables;
    JsonObject *out;
    JsonObject *below;      /* key of type NODE or JSON -> object of the dotted keys below it */
    GError **error;
} Normaliser;

/* The declared option that is @key, or of which @key is a part below. */
static const BlkOption *find_subtree(const BlkOption *const *tables, const char *key)
{
    for (; *tables != NULL; tables++) {
        for (const BlkOption *option = *tables; option->name != NULL; option++) {
            size_t length = strlen(option->name);

            if ((option->type == BLK_OPTION_NODE || option->type == BLK_OPTION_JSON) &&
                strncmp(key, option->name, length) == 0 && (key[length] == '\0' || key[length] == '.')) {
                return option;
            }
        }
    }
    return NULL;
}

static bool is_group(const BlkOption *const *tables, const char *key)
{
    size_t length = strlen(key);

    for (; *tables != NULL; tables++) {
        for (const BlkOption *option = *tables; option->name != NULL; option++) {
            if (strncmp(option->name, key, length) == 0 && option->name[length] == '.') {
                return true;
            }
        }
    }
    return false;
}

/* @full: the key as the user wrote it, for the message. */
static bool set_once(JsonObject *object, const char *key, JsonNode *value, const char *full, GError **error)
{
    if (json_object_has_member(object, key)) {
        blk_error(error, -EINVAL, "option '%s' is given twice, with dots and nested", full);
        return false;
    }
    json_object_set_member(object, key, json_node_copy(value));
    return true;
}

static bool flatten(Normaliser *n, JsonObject *object, const char *prefix, unsigned depth);

static bool flatten_member(Normaliser *n, const char *key, JsonNode *value, unsigned depth)
{
    const BlkOption *subtree = find_subtree(n->tables, key);
    JsonObject *below;

    if (subtree != NULL && strlen(key) > strlen(subtree->name)) {
        if (!json_object_has_member(n->below, subtree->name)) {
            json_object_set_object_member(n->below, subtree->name, json_object_new());
        }
        below = json_object_get_object_member(n->below, subtree->name);
        return set_once(below, key + strlen(subtree->name) + 1, value, key, n->error);
    }
    if (subtree == NULL && JSON_NODE_HOLDS_OBJECT(value) &&
        (json_object_get_size(json_node_get_object(value)) > 0 || is_group(n->tables, key))) {
        g_autofree char *prefix = g_strconcat(key, ".", NULL);

        return flatten(n, json_node_get_object(value), prefix, depth + 1);
    }
    return set_once(n->out, key, value, key, n->error);
}

static bool flatten(Normaliser *n, JsonObject *object, const char *prefix, unsigned depth)
{
    JsonObjectIter iter;
    const char *key;
    JsonNode *value;

    if (depth > TREE_MAX_DEPTH) {
        blk_error(n->error, -EINVAL, "options are nested deeper than %d", TREE_MAX_DEPTH);
        return false;
    }
    json_object_iter_init_ordered(&iter, object);
    while (json_object_iter_next_ordered(&iter, &key, &value)) {
        g_autofree char *full = g_strconcat(prefix, key, NULL);

        if (!flatten_member(n, full, value, depth)) {
            return false;
        }
    }
    return true;
}

/* The value of option @key, of type JSON, that the dotted keys in @below make up. */
static JsonNode *expand_below(const char *key, JsonObject *below, GError **error)
{
    g_autofree char *root = g_strdelimit(g_strdup(key), ".", '-');
    g_autoptr(JsonObject) rooted = json_object_new(), expanded = NULL;
    JsonObjectIter iter;
    const char *name;
    JsonNode *value;

    json_object_iter_init_ordered(&iter, below);
    while (json_object_iter_next_ordered(&iter, &name, &value)) {
        g_autofree char *full = g_strconcat(root, ".", name, NULL);

        json_object_set_member(rooted, full, json_node_copy(value));
    }
    expanded = blk_options_expand(rooted, error);
    return expanded != NULL ? json_object_dup_member(expanded, root) : NULL;
}

/* Joins what stood below @key with dots and what was given as its value. */
static bool join_subtree(Normaliser *n, const char *key, JsonObject *below)
{
    JsonNode *given = json_object_get_member(n->out, key);
    JsonObjectIter iter;
    const char *name;
    JsonNode *value;

    if (find_subtree(n->tables, key)->type == BLK_OPTION_JSON) {
        value = given == NULL ? expand_below(key, below, n->error) : NULL;
        if (given != NULL) {
            blk_error(n->error, -EINVAL, "option '%s' is given twice, with dots and as one value", key);
        }
        if (value != NULL) {
            json_object_set_member(n->out, key, value);
        }
        return value != NULL;
    }
    if (given == NULL) {
        json_object_set_object_member(n->out, key, json_object_ref(below));
        return true;
    }
    if (!JSON_NODE_HOLDS_OBJECT(given)) {
        blk_error(n->error, -EINVAL, "option '%s' names a node that exists: it takes no options such as '%s.%s'", key,
                  key, (const char *)g_list_first(json_object_get_members(below))->data);
        return false;
    }
    json_object_iter_init_ordered(&iter, below);
    while (json_object_iter_next_ordered(&iter, &name, &value)) {
        g_autofree char *full = g_strconcat(key, ".", name, NULL);

        if (!set_once(json_node_get_object(given), name, value, full, n->error)) {
            return false;
        }
    }
    return true;
}

JsonObject *blk_options_normalise(const BlkOption *const *tables, JsonObject *object, GError **error)
{
    g_autoptr(JsonObject) copy = blk_json_copy(object), out = json_object_new(), below = json_object_new();
    Normaliser n = { .tables = tables, .out = out, .below = below, .error = error };
    JsonObjectIter iter;
    const char *key;
    JsonNode *value;

    if (!flatten(&n, copy, "", 0)) {
        return NULL;
    }
    json_object_iter_init_ordered(&iter, below);
    while (json_object_iter_next_ordered(&iter, &key, &value)) {
        if (!join_subtree(&n, key, json_node_get_object(value))) {
            return NULL;
        }
    }
    return g_steal_pointer(&out);
}

/* ---- key=value,... ---- */

/* One word up to a single comma; two commas stand for one. Moves *@text behind it. (transfer full) */
static char *read_word(const char **text)
{
    GString *word = g_string_new(NULL);
    const char *p = *text;

    for (; *p != '\0'; p++) {
        if (*p == ',') {
            p++;
            if (*p != ',') {
                break;
            }
        }
        g_string_append_c(word, *p);
    }
    *text = p;
    return g_string_free(word, FALSE);
}

static bool read_pair(JsonObject *flat, const char **text, const char *implied_key, GError **error)
{
    g_autofree char *word = read_word(text);
    char *equals = strchr(word, '=');
    const char *key = word, *value = "on";

    if (equals != NULL) {
        *equals = '\0';
        value = equals + 1;
    } else if (implied_key != NULL) {
        key = implied_key;
        value = word;
    }
    if (*key == '\0') {
        blk_error(error, -EINVAL, "a key is missing before '=%s': write key=value,key=value", value);
        return false;
    }
    json_object_set_string_member(flat, key, value);
    return true;
}

JsonObject *blk_options_parse_keyval(const char *text, const char *implied_key, GError **error)
{
    g_autoptr(JsonObject) flat = json_object_new();
    size_t bytes = strlen(text);

    if (*text == '{') {
        return blk_json_parse_object(text, -1, "options", error);
    }
    if (bytes > KEYVAL_MAX_BYTES) {
        blk_error(error, -EINVAL, "%zu bytes of options are more than the limit of %zu", bytes, KEYVAL_MAX_BYTES);
        return NULL;
    }
    if (!g_utf8_validate(text, -1, NULL)) {
        blk_error(error, -EINVAL, "the options are not valid UTF-8 text");
        return NULL;
    }
    for (bool first = true; *text != '\0'; first = false) {
        if (!read_pair(flat, &text, first ? implied_key : NULL, error)) {
            return NULL;
        }
    }
    return blk_options_expand(flat, error);
}
