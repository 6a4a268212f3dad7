/* SPDX-License-Identifier: MIT */
/*
 * authz.c - the object types `authz-simple`, one name that is allowed, and `authz-list`, rules of which the first that
 * matches decides.
 *
 * A simple one is kept as a list of one rule.
 */
#include "core/authz.h"

#include <string.h>

#define MAX_RULES 4096

typedef struct AuthzRule {
    bool allow;
    char *exact;                /* (nullable): the name; else the pattern counts */
    GPatternSpec *pattern;
} AuthzRule;

typedef struct Authz {
    GArray *rules;              /* of AuthzRule */
    bool allow_others;
} Authz;

static const char *const policies[] = { "deny", "allow", NULL };
static const char *const formats[] = { "exact", "glob", NULL };

static const BlkOption simple_options[] = {
    { "identity", BLK_OPTION_STRING, "name of the only client that may connect", .required = true },
    { NULL },
};

static const BlkOption rule_options[] = {
    { "match", BLK_OPTION_STRING, "name, or pattern with * and ?", .required = true },
    { "policy", BLK_OPTION_ENUM, "what becomes of those that match", .values = policies, .required = true },
    { "format", BLK_OPTION_ENUM, "how 'match' is written", "exact", formats },
    { NULL },
};
static const BlkType rule_type = { "QAuthZListRule", BLK_TYPE_OBJECT, rule_options };
static const BlkOption rule_element[] = { { "rule", BLK_OPTION_JSON, "a rule", .json = &rule_type }, { NULL } };
static const BlkType rules_type = { .kind = BLK_TYPE_ARRAY, .members = rule_element };

static const BlkOption list_options[] = {
    { "policy", BLK_OPTION_ENUM, "for names that no rule matches", "deny", policies },
    { "rules", BLK_OPTION_JSON, "list of rules, also rules.N.match, rules.N.policy, rules.N.format", .json = &rules_type },
    { NULL },
};

static void rule_clear(gpointer data)
{
    AuthzRule *rule = data;

    g_free(rule->exact);
    g_clear_pointer(&rule->pattern, g_pattern_spec_free);
}

static void authz_start(Authz *authz, bool allow_others)
{
    authz->rules = g_array_new(FALSE, TRUE, sizeof(AuthzRule));
    g_array_set_clear_func(authz->rules, rule_clear);
    authz->allow_others = allow_others;
}

static void add_rule(Authz *authz, bool allow, const char *match, bool glob)
{
    AuthzRule rule = { .allow = allow };

    if (glob) {
        rule.pattern = g_pattern_spec_new(match);
    } else {
        rule.exact = g_strdup(match);
    }
    g_array_append_val(authz->rules, rule);
}

static int simple_init(BlkObject *object, const BlkOptions *options, GError **error)
{
    authz_start(object->opaque, false);
    add_rule(object->opaque, true, blk_options_string(options, "identity"), false);
    return 0;
}

static int parse_rule(Authz *authz, JsonNode *node, unsigned index, GError **error)
{
    const BlkOption *tables[] = { rule_options, NULL };
    g_autofree char *what = g_strdup_printf("rules.%u", index);
    g_autoptr(BlkOptions) rule = NULL;

    if (!JSON_NODE_HOLDS_OBJECT(node)) {
        return blk_error(error, -EINVAL, "%s must be an object with 'match' and 'policy'", what);
    }
    rule = blk_options_parse(tables, json_node_get_object(node), what, error);
    if (!rule) {
        return -EINVAL;
    }
    add_rule(authz, blk_options_enum(rule, "policy") == 1, blk_options_string(rule, "match"),
             blk_options_enum(rule, "format") == 1);
    return 0;
}

static int list_init(BlkObject *object, const BlkOptions *options, GError **error)
{
    JsonNode *rules = blk_options_json(options, "rules");
    JsonArray *array;
    int ret = 0;

    authz_start(object->opaque, blk_options_enum(options, "policy") == 1);
    if (!rules) {
        return 0;
    }
    if (!JSON_NODE_HOLDS_ARRAY(rules)) {
        return blk_error(error, -EINVAL, "The option 'rules' must be a list, written as rules.0.match=NAME and so on");
    }
    array = json_node_get_array(rules);
    if (json_array_get_length(array) > MAX_RULES) {
        return blk_error(error, -EINVAL, "There are more than %d rules", MAX_RULES);
    }
    for (unsigned i = 0; i < json_array_get_length(array) && ret == 0; i++) {
        ret = parse_rule(object->opaque, json_array_get_element(array, i), i, error);
    }
    return ret;
}

static void authz_finish(BlkObject *object)
{
    g_array_unref(((Authz *)object->opaque)->rules);
}

const BlkObjectType blk_object_authz_simple = {
    .name = "authz-simple",
    .help = "allows one client, by name",
    .options = simple_options,
    .instance_size = sizeof(Authz),
    .init = simple_init,
    .finish = authz_finish,
};

const BlkObjectType blk_object_authz_list = {
    .name = "authz-list",
    .help = "allows and denies clients, by rules",
    .options = list_options,
    .instance_size = sizeof(Authz),
    .init = list_init,
    .finish = authz_finish,
};

BlkObject *blk_authz_use(BlkContext *ctx, const char *id, GError **error)
{
    BlkObject *object = blk_object_use(ctx, id, error);

    if (object && object->type != &blk_object_authz_simple && object->type != &blk_object_authz_list) {
        blk_error(error, -EINVAL, "The object '%s' says nothing about who may connect, since it is of the type %s", id,
                  object->type->name);
        blk_object_unuse(object);
        return NULL;
    }
    return object;
}

bool blk_authz_allows(const BlkObject *object, const char *name)
{
    const Authz *authz = object->opaque;

    for (unsigned i = 0; i < authz->rules->len; i++) {
        const AuthzRule *rule = &g_array_index(authz->rules, AuthzRule, i);

        if (rule->exact ? strcmp(rule->exact, name) == 0 : g_pattern_spec_match_string(rule->pattern, name)) {
            return rule->allow;
        }
    }
    return authz->allow_others;
}
