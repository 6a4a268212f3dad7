/* SPDX-License-Identifier: MIT */
/*
 * fault_rules.c - rules of the fault filter: where they come from and what they do.
 *
 * In a configuration file:
 *
 *     [inject-error]              # when the event happens, arm the rule: requests fail from then on
 *     event = "read_aio"
 *     state = "2"                 # act only in this state; the filter begins in state 1
 *     errno = "5"
 *     sector = "8"                # only requests that touch this sector of 512 bytes
 *     iotype = "read"             # only requests of this type
 *     once = "on"                 # disarm and forget the rule after the first failure
 *     immediately = "on"          # fail without letting other requests run first
 *
 *     [set-state]
 *     event = "l2_update"
 *     state = "1"
 *     new_state = "2"
 *
 * The options "inject-error" and "set-state" are arrays of objects with the same keys. An event that arms rules disarms
 * those which were armed before.
 */
#include "filters/fault.h"

#include <core/options.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CONFIG_MAX_BYTES = 1 << 20, MAX_RULES = 10000 };

const char *const fault_io_names[] = { "read", "write", "write-zeroes", "discard", "flush", "block-status", NULL };

static const BlkOption inject_options[] = {
    { "event", BLK_OPTION_STRING, "arms the rule", .required = true },
    { "state", BLK_OPTION_UINT, "in which it acts; 0: any", .default_text = "0" },
    { "errno", BLK_OPTION_UINT, "error of the requests", .default_text = "5", .min = 1, .max = 4095 },
    { "sector", BLK_OPTION_UINT, "of 512 bytes, whose requests fail", .max = BLK_MAX_LENGTH / 512 },
    { "iotype", BLK_OPTION_ENUM, "requests of this type fail", .values = fault_io_names },
    { "once", BLK_OPTION_BOOL, "let one request fail", .default_text = "off" },
    { "immediately", BLK_OPTION_BOOL, "fail before other requests run", .default_text = "off" },
    { NULL },
};

static const BlkOption set_state_options[] = {
    { "event", BLK_OPTION_STRING, "changes the state", .required = true },
    { "state", BLK_OPTION_UINT, "in which it acts; 0: any", .default_text = "0" },
    { "new_state", BLK_OPTION_UINT, "the state that follows", .required = true },
    { NULL },
};

static const BlkType inject_type = { "BlkdebugInjectErrorOptions", BLK_TYPE_OBJECT, inject_options };
static const BlkType set_state_type = { "BlkdebugSetStateOptions", BLK_TYPE_OBJECT, set_state_options };
static const BlkOption inject_element[] = { { "rule", BLK_OPTION_JSON, "a rule", .json = &inject_type }, { NULL } };
static const BlkOption set_state_element[] = { { "rule", BLK_OPTION_JSON, "a rule", .json = &set_state_type }, { NULL } };
const BlkType fault_inject_type = { .kind = BLK_TYPE_ARRAY, .members = inject_element };
const BlkType fault_set_state_type = { .kind = BLK_TYPE_ARRAY, .members = set_state_element };

static const struct {
    const char *name;
    const BlkOption *options;
    int action;
} groups[] = {
    { "inject-error", inject_options, FAULT_INJECT },
    { "set-state", set_state_options, FAULT_SET_STATE },
};

static int find_event(const char *name, const char *what, unsigned *event, GError **error)
{
    BlkEvent found;

    if (g_str_equal(name, "none")) {
        *event = FAULT_EVENT_NONE;
        return 0;
    }
    if (!blk_event_find(name, &found)) {
        return blk_error(error, -EINVAL, "%s: unknown event '%s'", what, name);
    }
    *event = found;
    return 0;
}

static int add_rule(FaultState *s, unsigned group, JsonObject *object, const char *what, GError **error)
{
    const BlkOption *const tables[] = { groups[group].options, NULL };

    g_autoptr(BlkOptions) options = blk_options_parse(tables, object, what, error);
    if (!options) {
        return -EINVAL;
    }
    unsigned event = FAULT_EVENT_NONE;
    int ret = find_event(blk_options_string(options, "event"), what, &event, error);
    if (ret < 0) {
        return ret;
    }
    if (s->rules->len >= MAX_RULES) {
        return blk_error(error, -E2BIG, "%s: there are more than %d rules", what, MAX_RULES);
    }
    FaultRule *rule = g_new0(FaultRule, 1);
    g_ptr_array_add(s->rules, rule);
    rule->action = groups[group].action;
    rule->event = event;
    rule->state = blk_options_uint(options, "state");
    if (rule->action == FAULT_SET_STATE) {
        rule->new_state = blk_options_uint(options, "new_state");
        return 0;
    }
    rule->ret = -(int)blk_options_uint(options, "errno");
    rule->any_offset = !blk_options_has(options, "sector");
    rule->offset = blk_options_uint(options, "sector") * 512;
    rule->once = blk_options_bool(options, "once");
    rule->immediately = blk_options_bool(options, "immediately");
    rule->io_mask = (1u << FAULT_IO_BLOCK_STATUS) - 1;      /* all but this, which nobody expects to fail */
    if (blk_options_has(options, "iotype")) {
        rule->io_mask = 1u << blk_options_enum(options, "iotype");
    }
    return 0;
}

/* ---- configuration file ---- */

typedef struct FaultConfig {
    FaultState *s;
    const char *filename;
    unsigned line, group_line;
    unsigned group;
    JsonObject *object;         /* of the group that is being read; NULL before the first */
} FaultConfig;

static int config_end_group(FaultConfig *config, GError **error)
{
    g_autoptr(JsonObject) object = g_steal_pointer(&config->object);
    g_autofree char *what = NULL;

    if (!object) {
        return 0;
    }
    what = g_strdup_printf("%s:%u: %s", config->filename, config->group_line, groups[config->group].name);
    return add_rule(config->s, config->group, object, what, error);
}

static int config_begin_group(FaultConfig *config, char *text, GError **error)
{
    int ret = config_end_group(config, error);

    if (ret < 0) {
        return ret;
    }
    char *name = text + 1;
    name[strcspn(name, " \t]\"")] = '\0';
    for (unsigned i = 0; i < G_N_ELEMENTS(groups); i++) {
        if (g_str_equal(name, groups[i].name)) {
            config->group = i;
            config->group_line = config->line;
            config->object = json_object_new();
            return 0;
        }
    }
    return blk_error(error, -EINVAL, "%s:%u: there is no group [%s], only [inject-error] and [set-state]",
                     config->filename, config->line, name);
}

static int config_line(FaultConfig *config, char *text, GError **error)
{
    text = g_strstrip(text);
    if (*text == '\0' || *text == '#') {
        return 0;
    }
    if (*text == '[') {
        return config_begin_group(config, text, error);
    }
    char *value = strchr(text, '=');
    if (!value || !config->object) {
        return blk_error(error, -EINVAL, "%s:%u: expected %s", config->filename, config->line,
                         config->object ? "key = \"value\"" : "[inject-error] or [set-state]");
    }
    *value++ = '\0';
    const char *key = g_strstrip(text);
    value = g_strstrip(value);
    size_t length = strlen(value);
    if (length >= 2 && value[0] == '"' && value[length - 1] == '"') {
        value[length - 1] = '\0';
        value++;
    }
    if (json_object_has_member(config->object, key)) {
        return blk_error(error, -EINVAL, "%s:%u: '%s' is given twice", config->filename, config->line, key);
    }
    json_object_set_string_member(config->object, key, value);
    return 0;
}

/* The whole file as text, which is bounded and never waited for. */
static char *config_read(const char *filename, GError **error)
{
    struct stat st;
    int fd = open(filename, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);

    if (fd < 0 || fstat(fd, &st) < 0) {
        blk_error_errno(error, -errno, "Could not read blkdebug config file '%s'", filename);
        if (fd >= 0) {
            close(fd);
        }
        return NULL;
    }
    g_autofree char *text = NULL;
    ssize_t bytes = -1;
    if (!S_ISREG(st.st_mode) || st.st_size > CONFIG_MAX_BYTES) {
        blk_error(error, -EINVAL, "Could not read blkdebug config file '%s': it is not a file of at most %d bytes",
                  filename, CONFIG_MAX_BYTES);
    } else {
        text = g_malloc0(st.st_size + 1);
        bytes = read(fd, text, st.st_size);
        if (bytes < 0) {
            blk_error_errno(error, -errno, "Could not read blkdebug config file '%s'", filename);
        } else if (!g_utf8_validate(text, bytes, NULL)) {
            blk_error(error, -EINVAL, "Could not read blkdebug config file '%s': it is not a text", filename);
            bytes = -1;
        }
    }
    close(fd);
    return bytes < 0 ? NULL : g_steal_pointer(&text);
}

static int config_load(FaultState *s, const char *filename, GError **error)
{
    FaultConfig config = { .s = s, .filename = filename };
    int ret = 0;

    g_autofree char *text = config_read(filename, error);
    if (!text) {
        return -EINVAL;
    }
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (; ret == 0 && lines[config.line]; ) {
        char *line = lines[config.line++];
        ret = config_line(&config, line, error);
    }
    if (ret == 0) {
        ret = config_end_group(&config, error);
    }
    g_clear_pointer(&config.object, json_object_unref);
    return ret;
}

/* ---- options ---- */

/* The array that @node is, or that its keys 0.event, 0.errno, 1.event, ... describe. (transfer full) */
static JsonArray *rules_array(JsonNode *node, const char *name, GError **error)
{
    if (JSON_NODE_HOLDS_OBJECT(node)) {
        g_autoptr(JsonObject) group = json_object_new();
        JsonObjectIter iter;
        const char *key;
        JsonNode *value;

        json_object_iter_init_ordered(&iter, json_node_get_object(node));
        while (json_object_iter_next_ordered(&iter, &key, &value)) {
            g_autofree char *path = g_strdup_printf("%s.%s", name, key);
            json_object_set_member(group, path, json_node_copy(value));
        }
        g_autoptr(JsonObject) tree = blk_options_expand(group, error);
        if (!tree) {
            return NULL;
        }
        JsonNode *list = json_object_get_member(tree, name);
        if (list && JSON_NODE_HOLDS_ARRAY(list)) {
            return json_node_dup_array(list);
        }
    } else if (JSON_NODE_HOLDS_ARRAY(node)) {
        return json_node_dup_array(node);
    }
    blk_error(error, -EINVAL, "driver 'blkdebug': option '%s' must be an array of objects", name);
    return NULL;
}

static int load_group(FaultState *s, unsigned group, const BlkOptions *options, GError **error)
{
    JsonNode *node = blk_options_json(options, groups[group].name);

    if (!node) {
        return 0;
    }
    g_autoptr(JsonArray) array = rules_array(node, groups[group].name, error);
    if (!array) {
        return -EINVAL;
    }
    for (guint i = 0; i < json_array_get_length(array); i++) {
        JsonNode *element = json_array_get_element(array, i);
        g_autofree char *what = g_strdup_printf("driver 'blkdebug': %s.%u", groups[group].name, i);

        if (!JSON_NODE_HOLDS_OBJECT(element)) {
            return blk_error(error, -EINVAL, "%s must be an object", what);
        }
        int ret = add_rule(s, group, json_node_get_object(element), what, error);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

int fault_rules_load(FaultState *s, const BlkOptions *options, GError **error)
{
    const char *config = blk_options_string(options, "config");
    int ret = config && *config ? config_load(s, config, error) : 0;

    for (unsigned i = 0; ret == 0 && i < G_N_ELEMENTS(groups); i++) {
        ret = load_group(s, i, options, error);
    }
    return ret;
}

/* ---- acting ---- */

static void disarm_all(FaultState *s)
{
    for (guint i = 0; i < s->rules->len; i++) {
        ((FaultRule *)g_ptr_array_index(s->rules, i))->armed = false;
    }
}

void fault_rules_event(FaultState *s, unsigned event)
{
    uint64_t new_state = s->state;
    bool arms = false;

    for (guint i = 0; i < s->rules->len; i++) {
        FaultRule *rule = g_ptr_array_index(s->rules, i);

        if (rule->event != event || (rule->state != 0 && rule->state != s->state)) {
            continue;
        }
        if (rule->action == FAULT_SET_STATE) {
            new_state = rule->new_state;
            continue;
        }
        if (!arms) {
            disarm_all(s);
            arms = true;
        }
        rule->armed = true;
    }
    s->state = new_state;
}

static bool rule_matches(const FaultRule *rule, FaultIo io, uint64_t offset, uint64_t bytes)
{
    return rule->armed && (rule->io_mask & (1u << io)) &&
           (rule->any_offset || (rule->offset < offset + bytes && offset < rule->offset + 512));
}

int fault_co_inject(FaultState *s, FaultIo io, uint64_t offset, uint64_t bytes)
{
    s->requests[io]++;
    s->bytes[io] += bytes;
    for (guint i = 0; i < s->rules->len; i++) {
        const FaultRule *rule = g_ptr_array_index(s->rules, i);

        if (rule_matches(rule, io, offset, bytes)) {
            int ret = rule->ret;
            bool immediately = rule->immediately;

            if (rule->once) {
                g_ptr_array_remove_index(s->rules, i);
            }
            s->injected++;
            if (!immediately) {
                blk_co_reschedule();
            }
            return ret;
        }
    }
    return 0;
}
