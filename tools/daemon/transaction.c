/* SPDX-License-Identifier: MIT */
/*
 * transaction.c - the command "transaction": actions that happen together or not at all. See transaction.h.
 */
#include "daemon/transaction.h"

#include <string.h>

/* ---- running ---- */

typedef struct Transaction {
    GArray *steps;              /* of DaemonStep */
    GPtrArray *drained;         /* of BlkNode: references */
    BlkJobTxn *txn;             /* (nullable): the jobs complete together */
} Transaction;

static DaemonStep *step_at(const Transaction *t, guint i)
{
    return &g_array_index(t->steps, DaemonStep, i);
}

static int co_begin(Transaction *t, guint *begun, GError **error)
{
    int ret = 0;

    for (*begun = 0; ret == 0 && *begun < t->steps->len; ++*begun) {
        DaemonStep *step = step_at(t, *begun);

        ret = step->action->co_begin ? step->action->co_begin(step, error) : 0;
    }
    return ret;
}

static int co_drain_node(Transaction *t, BlkNode *node, GError **error)
{
    int ret;

    if (g_ptr_array_find(t->drained, node, NULL)) {
        return 0;
    }
    g_ptr_array_add(t->drained, blk_node_ref(node));
    ret = blk_co_drain_begin(node);
    return ret < 0 ? blk_error_errno(error, ret, "'%s' or a node above it holds data that could not be written",
                                     blk_node_name(node)) : 0;
}

/* From here on no request is in flight at any node that an action is about. */
static int co_drain(Transaction *t, GError **error)
{
    int ret = 0;

    for (guint i = 0; ret == 0 && i < t->steps->len; i++) {
        const DaemonStep *step = step_at(t, i);

        for (const char *const *key = step->action->nodes; ret == 0 && key && *key; key++) {
            const char *name = blk_options_string(step->args, *key);
            BlkNode *node = name ? blk_node_find(step->daemon->ctx, name) : NULL;

            ret = node ? co_drain_node(t, node, error) : 0;
        }
    }
    return ret;
}

static void co_undrain(Transaction *t)
{
    while (t->drained->len > 0) {
        BlkNode *node = g_ptr_array_steal_index(t->drained, t->drained->len - 1);

        blk_drain_end(node);
        blk_co_unref(node);
    }
}

static int co_prepare_all(Transaction *t, GError **error)
{
    guint prepared = 0;
    int ret = 0;

    for (; prepared < t->steps->len; prepared++) {
        DaemonStep *step = step_at(t, prepared);

        ret = step->action->co_prepare(step, error);
        if (ret < 0) {
            break;
        }
    }
    while (ret < 0 && prepared-- > 0) {
        DaemonStep *step = step_at(t, prepared);

        if (step->action->co_abort) {
            step->action->co_abort(step);
        }
    }
    return ret;
}

static void commit(Transaction *t)
{
    for (guint i = 0; i < t->steps->len; i++) {
        DaemonStep *step = step_at(t, i);

        if (step->action->commit) {
            step->action->commit(step);
        }
    }
}

/* Within one drained section: nobody sees a part of it. */
static int co_drained(Transaction *t, GError **error)
{
    int ret = co_drain(t, error);

    ret = ret < 0 ? ret : co_prepare_all(t, error);
    if (ret == 0) {
        commit(t);
    }
    co_undrain(t);
    return ret;
}

static int co_run(Transaction *t, GError **error)
{
    guint begun;
    int ret = co_begin(t, &begun, error);

    ret = ret < 0 ? ret : co_drained(t, error);
    for (guint i = 0; i < begun; i++) {
        DaemonStep *step = step_at(t, i);

        if (step->action->co_clean) {
            step->action->co_clean(step);
        }
    }
    return ret;
}

static void add_step(Transaction *t, Daemon *daemon, const DaemonAction *action, const BlkOptions *args)
{
    DaemonStep step = { action, daemon, args, g_malloc0(action->state_size), t->txn };

    g_array_append_val(t->steps, step);
}

static Transaction transaction_new(void)
{
    return (Transaction) { g_array_new(FALSE, FALSE, sizeof(DaemonStep)), g_ptr_array_new(), NULL };
}

static void transaction_clear(Transaction *t)
{
    for (guint i = 0; i < t->steps->len; i++) {
        g_free(step_at(t, i)->state);
    }
    g_array_unref(t->steps);
    g_ptr_array_unref(t->drained);
    blk_job_txn_unref(t->txn);
}

int daemon_co_run_action(Daemon *daemon, const DaemonAction *action, const BlkOptions *args, GError **error)
{
    Transaction t = transaction_new();
    int ret;

    add_step(&t, daemon, action, args);
    ret = co_run(&t, error);
    transaction_clear(&t);
    return ret;
}

/* ---- the command ---- */

static int co_fail(DaemonStep *step, GError **error)
{
    return blk_error(error, -ECANCELED, "Transaction aborted using Abort action");
}

static const BlkOption no_args[] = { { NULL } };

static const DaemonAction transaction_actions[] = {
    { .name = "abort", .args = no_args, .has_job = true, .co_prepare = co_fail },
    { NULL },
};

static const DaemonAction *const action_tables[] = {
    transaction_actions, daemon_backup_actions, daemon_bitmap_actions, daemon_internal_snapshot_actions,
    daemon_snapshot_actions, NULL,
};

static const DaemonAction *find_action(const char *name)
{
    for (const DaemonAction *const *table = action_tables; *table; table++) {
        for (const DaemonAction *action = *table; action->name; action++) {
            if (strcmp(action->name, name) == 0) {
                return action;
            }
        }
    }
    return NULL;
}

static const char *nth_action(Daemon *d, unsigned index)
{
    for (const DaemonAction *const *table = action_tables; *table; table++) {
        for (const DaemonAction *action = *table; action->name; action++) {
            if (index-- == 0) {
                return action->name;
            }
        }
    }
    return NULL;
}

static const BlkOption *action_args(Daemon *d, const char *name)
{
    const DaemonAction *action = find_action(name);

    return action ? action->args : NULL;
}

static const DaemonVariants action_variants = { "type", nth_action, action_args, .wrapper = "data" };
static const BlkOption action_members[] = {
    { "type", BLK_OPTION_STRING, "name of the action", .required = true },
    { NULL },
};
static const BlkType action_type = { "TransactionAction", BLK_TYPE_OBJECT, action_members, &action_variants };
static const BlkOption action_element[] = { { "action", BLK_OPTION_JSON, "an action", .json = &action_type }, { NULL } };
static const BlkType actions_type = { .kind = BLK_TYPE_ARRAY, .members = action_element };

static const char *const completion_modes[] = { "individual", "grouped", NULL };

static const BlkOption property_args[] = {
    { "completion-mode", BLK_OPTION_ENUM, "jobs end each for itself, or all with success or none", "individual",
      completion_modes },
    { NULL },
};
static const BlkType properties_type = { "TransactionProperties", BLK_TYPE_OBJECT, property_args };

static const BlkOption transaction_args[] = {
    { "actions", BLK_OPTION_JSON, "what is to happen: objects of \"type\" and \"data\"", .required = true, .json = &actions_type },
    { "properties", BLK_OPTION_JSON, "\"completion-mode\" of the jobs: individual or grouped", .json = &properties_type },
    { NULL },
};

/* One element of "actions". @parsed owns its arguments. */
static int add_element(Transaction *t, Daemon *daemon, JsonObject *element, GPtrArray *parsed, GError **error)
{
    g_autofree char *path = g_strdup_printf("actions[%u].data", t->steps->len);
    const DaemonAction *action = find_action(json_object_get_string_member(element, "type"));
    const BlkOption *const tables[] = { action->args, NULL };
    BlkOptions *args;

    if (t->txn && !action->has_job) {
        return blk_error(error, -EINVAL, "Action '%s' does not support Transaction property completion-mode = grouped",
                         action->name);
    }
    args = daemon_parse_arguments(tables, json_object_get_object_member(element, "data"), path, error);
    if (!args) {
        return -EINVAL;
    }
    g_ptr_array_add(parsed, args);
    add_step(t, daemon, action, args);
    return 0;
}

static bool is_grouped(JsonNode *properties)
{
    JsonObject *object = properties ? json_node_get_object(properties) : NULL;

    return object && g_str_equal(json_object_get_string_member_with_default(object, "completion-mode", ""), completion_modes[1]);
}

static int co_transaction(Daemon *daemon, const BlkOptions *args, JsonNode **result, GError **error)
{
    g_autoptr(GPtrArray) parsed = g_ptr_array_new_with_free_func((GDestroyNotify)blk_options_free);
    JsonArray *actions = daemon_options_array(args, "actions");
    Transaction t = transaction_new();
    int ret = 0;

    t.txn = is_grouped(blk_options_json(args, "properties")) ? blk_job_txn_new() : NULL;
    for (guint i = 0; ret == 0 && i < json_array_get_length(actions); i++) {
        ret = add_element(&t, daemon, json_array_get_object_element(actions, i), parsed, error);
    }
    ret = ret < 0 ? ret : co_run(&t, error);
    transaction_clear(&t);
    return ret;
}

const DaemonCommand daemon_transaction_commands[] = {
    { "transaction", "runs actions that happen together, or not at all", transaction_args, co_transaction },
    { NULL },
};
