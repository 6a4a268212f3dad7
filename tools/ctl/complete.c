/* SPDX-License-Identifier: MIT */
/*
 * complete.c - what an unfinished word may become: a command, the name of an argument, or one of the values that it can
 * have: those of the schema, and names of what there is, for which the server is asked at that moment.
 */
#include "ctl/ctl.h"

/* Arguments whose value names something that a query lists. The first that fits is taken. */
static const struct Named {
    const char *command;        /* it begins with this */
    const char *key;            /* the last part of the key */
    const char *query, *member;
} named[] = {
    { "block-export-", "id", "query-block-exports", "id" },
    { "block-job-", "device", "query-jobs", "id" },
    { "block-job-", "id", "query-jobs", "id" },
    { "job-", "id", "query-jobs", "id" },
    { "blockdev-add", "node-name", NULL, NULL },            /* a new name */
    { "", "backing", "query-named-block-nodes", "node-name" },
    { "", "base-node", "query-named-block-nodes", "node-name" },
    { "", "bottom", "query-named-block-nodes", "node-name" },
    { "", "device", "query-named-block-nodes", "node-name" },
    { "", "file", "query-named-block-nodes", "node-name" },
    { "", "node", "query-named-block-nodes", "node-name" },
    { "", "node-name", "query-named-block-nodes", "node-name" },
    { "", "overlay", "query-named-block-nodes", "node-name" },
    { "", "replaces", "query-named-block-nodes", "node-name" },
    { "", "target", "query-named-block-nodes", "node-name" },
    { "", "top-node", "query-named-block-nodes", "node-name" },
};

/* One line that is being completed. */
typedef struct Completion {
    Ctl *ctl;
    const char *word;           /* the last one */
    GPtrArray *list;
} Completion;

static void add(Completion *c, const char *begin, const char *rest, const char *after)
{
    g_autofree char *whole = g_strconcat(begin, rest, after, NULL);

    if (g_str_has_prefix(whole, c->word)) {
        g_ptr_array_add(c->list, g_steal_pointer(&whole));
    }
}

/* ---- values ---- */

static void add_queried(Completion *c, const char *begin, const char *query, const char *member)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonNode) answer = ctl_call(&c->ctl->client, query, NULL, &error);
    JsonArray *array = answer && JSON_NODE_HOLDS_ARRAY(answer) ? json_node_get_array(answer) : NULL;
    JsonObject *object;

    for (guint i = 0; (object = ctl_nth_object(array, i)); i++) {
        const char *name = ctl_text_of(object, member);

        if (name && *name != '#') {         /* not those that nobody has named */
            add(c, begin, name, " ");
        }
    }
}

static void add_named(Completion *c, const char *command, const char *key, const char *begin)
{
    const char *dot = strrchr(key, '.');

    for (guint i = 0; i < G_N_ELEMENTS(named); i++) {
        if (g_str_has_prefix(command, named[i].command) && strcmp(dot ? dot + 1 : key, named[i].key) == 0) {
            if (named[i].query) {
                add_queried(c, begin, named[i].query, named[i].member);
            }
            return;
        }
    }
}

/* The values of the argument @key of type @type; @begin: of the word: "key=", or "". */
static void add_values(Completion *c, const char *command, const char *key, const char *type, const char *begin)
{
    const CtlSchema *schema = &c->ctl->schema;
    g_autoptr(GPtrArray) choices = ctl_schema_values(schema, type);

    for (guint i = 0; choices && choices->pdata[i]; i++) {
        add(c, begin, choices->pdata[i], " ");
    }
    if (strcmp(ctl_schema_json_type(schema, type), "boolean") == 0) {
        add(c, begin, "off", " ");
        add(c, begin, "on", " ");
    } else if (!choices && !ctl_schema_is(ctl_schema_find(schema, type), "object")) {
        add_named(c, command, key, begin);
    }
}

/* ---- keys ---- */

/* Goes down from the arguments of a command to what "a.b.c" names; *given: what the user has given there. */
static const char *walk(const CtlSchema *schema, const char *command, const char *path, JsonObject **given)
{
    g_auto(GStrv) names = g_strsplit(path, ".", -1);
    const char *type = ctl_schema_arguments(schema, command);

    for (char **name = names; type && *name; name++) {
        type = ctl_schema_step(schema, type, *name, *given);
        *given = ctl_object_of(*given, *name);
    }
    return type;
}

/* "file.dri": members of file. */
static void add_members(Completion *c, const char *command, JsonObject *given)
{
    const CtlSchema *schema = &c->ctl->schema;
    const char *dot = strrchr(c->word, '.');
    g_autofree char *path = g_strndup(c->word, dot ? (gsize)(dot - c->word) : 0);
    g_autofree char *prefix = g_strndup(c->word, dot ? (gsize)(dot + 1 - c->word) : 0);
    const char *type = dot ? walk(schema, command, path, &given) : ctl_schema_arguments(schema, command);
    g_autoptr(GArray) members = ctl_schema_members(schema, type, given);

    for (guint i = 0; i < members->len; i++) {
        const CtlMember *member = &g_array_index(members, CtlMember, i);
        JsonObject *entity = ctl_schema_find(schema, member->type);
        const char *after = ctl_schema_is(entity, "object") ? "." : ctl_schema_is(entity, "alternate") ? "" : "=";

        if (!given || !json_object_has_member(given, member->name)) {
            add(c, prefix, member->name, after);
        }
    }
}

static void complete_argument(Completion *c, const char *command, char **before, bool first)
{
    const CtlSchema *schema = &c->ctl->schema;
    g_autoptr(JsonObject) given = ctl_words_to_texts(schema, command, before, NULL);
    const char *equals = strchr(c->word, '='), *implied = ctl_schema_implied_key(schema, command);
    JsonObject *at = given;

    if (equals) {
        g_autofree char *key = g_strndup(c->word, (gsize)(equals - c->word));
        g_autofree char *begin = g_strndup(c->word, (gsize)(equals + 1 - c->word));

        add_values(c, command, key, walk(schema, command, key, &at), begin);
        return;
    }
    if (first && implied) {
        add_values(c, command, implied, walk(schema, command, implied, &at), "");
    }
    add_members(c, command, given);
}

/* ---- words ---- */

static void complete_command(Completion *c, bool own)
{
    const GPtrArray *commands = c->ctl->schema.commands;

    for (guint i = 0; i < commands->len; i++) {
        add(c, "", commands->pdata[i], " ");
    }
    for (const char *const *word = ctl_own_words; *word && own; word++) {
        add(c, "", *word, " ");
    }
}

GPtrArray *ctl_complete(Ctl *ctl, const char *line)
{
    g_auto(GStrv) parts = g_strsplit_set(line, " \t", -1);
    g_autoptr(GPtrArray) words = g_ptr_array_new();
    guint last = g_strv_length(parts), at = 0;
    Completion c = { ctl, last > 0 ? parts[last - 1] : "", g_ptr_array_new_with_free_func(g_free) };

    for (guint i = 0; i + 1 < last; i++) {
        if (*parts[i]) {
            g_ptr_array_add(words, parts[i]);
        }
    }
    g_ptr_array_add(words, NULL);
    if (words->pdata[0] && strcmp(words->pdata[0], "watch") == 0) {
        add_queried(&c, "", "query-jobs", "id");
        return c.list;
    }
    if (words->pdata[0] && (strcmp(words->pdata[0], "help") == 0 || strcmp(words->pdata[0], "wait") == 0)) {
        at = 1;
    }
    if (!words->pdata[at]) {
        complete_command(&c, at == 0);
    } else {
        complete_argument(&c, words->pdata[at], (char **)words->pdata + at + 1, !words->pdata[at + 1]);
    }
    return c.list;
}
