/* SPDX-License-Identifier: MIT */
/*
 * daemon.h - what the files of blkstack-daemon share. docs/daemon-design.md is the page to read before.
 *
 *     main.c --> args.c                    what is to be made, in the order of the command line
 *            --> daemon.c                  the life of the process: start, wait, end in order
 *                  --> chardev.c           where clients come from: sockets, standard input
 *                  --> monitor.c           a client: lines in, replies and events out
 *                        --> dispatch.c    one command: from its text to its reply
 *                              --> arguments.c, commands.c --> cmd_*.c
 */
#ifndef BLKSTACK_TOOLS_DAEMON_H
#define BLKSTACK_TOOLS_DAEMON_H

#include "common/process.h"

#include <blkstack/driver.h>
#include <blkstack/nbd.h>

/* ---- args.c ---- */

typedef enum DaemonOptionKind {
    DAEMON_OPTION_BLOCKDEV, DAEMON_OPTION_CHARDEV, DAEMON_OPTION_EXPORT, DAEMON_OPTION_MONITOR, DAEMON_OPTION_NBD_SERVER,
    DAEMON_OPTION_OBJECT,
} DaemonOptionKind;

/* One thing to be made. */
typedef struct DaemonOption {
    DaemonOptionKind kind;
    const char *name;               /* "blockdev" */
    const char *text;
} DaemonOption;

typedef struct DaemonArgs {
    GArray *options;                /* DaemonOption, in the order of the command line */
    const char *pid_file;           /* (nullable) */
    bool daemonize;
} DaemonArgs;

void daemon_args_init(DaemonArgs *args);
void daemon_args_clear(DaemonArgs *args);
/* Returns: 0: go on; 1: all is done; -1: wrong, which was reported. */
int daemon_parse_args(DaemonArgs *args, int argc, char **argv);

/* help.c: prints what "help" asks for; false: the option asks for none. */
bool daemon_print_help(const DaemonOption *option);

/* ---- the daemon ---- */

typedef struct DaemonAddress DaemonAddress;     /* see address.h */

typedef struct Daemon {
    const DaemonArgs *args;
    BlkContext *ctx;
    ToolProcess process;
    GPtrArray *nodes;           /* BlkNode *: a reference to each that blockdev-add has made */
    BlkNbdServer *nbd_server;   /* (nullable) */
    GPtrArray *chardevs;        /* Chardev * */
    GPtrArray *monitors;        /* Monitor * */
    GQueue clients;             /* MonitorClient */
    BlkCoMutex changing;        /* held by the command that changes something; see DaemonCommand.any_time */
    BlkCoQueue changed;         /* a coroutine that the end must wait for has ended */
    unsigned running;           /* ... and how many there are */
    GHashTable *tables;         /* (nullable): name -> GArray of BlkOption: see daemon_keep_table() */
    BlkPoll signals;            /* the main coroutine waits here for the end */
    bool over;                  /* the end has been asked for */
    bool failed;                /* ... by what could not be started */
} Daemon;

/* ---- commands: one table for each group, in a file of its own ---- */

/* Members of an object beside those of its table that depend on the value of one of them. */
typedef struct BlkVariants {
    const char *tag;                                            /* which one: "type" */
    const char *(*nth)(Daemon *d, unsigned index);              /* its values; NULL ends the list */
    const BlkOption *(*table)(Daemon *d, const char *value);    /* NULL: there is no such value */
    /* (nullable): says why not; false: as everywhere. */
    bool (*refuse)(Daemon *d, const char *value, GError **error);
    const char *wrapper;        /* (nullable): a member in which the others stand: {"type": ..., "data": {...}} */
} DaemonVariants;

typedef struct DaemonCommand {
    const char *name;
    const char *help;                   /* one line */
    const BlkOption *args;              /* (nullable): a table as everywhere; also the schema is made from it */
    /*
     * *result: (out) (transfer full): stays NULL for {}. Returns: 0; a negative errno with @error set, see daemon_error().
     * Context: coroutine; may yield, and holds up only the client that sent it, and those that want to change something.
     */
    int (*co_run)(Daemon *d, const BlkOptions *args, JsonNode **result, GError **error);
    /* Instead of co_run: for arguments that are handed on as they are. It checks them itself; @args and @variants only
     * say what they may be. */
    int (*co_run_tree)(Daemon *d, JsonObject *arguments, JsonNode **result, GError **error);
    const DaemonVariants *variants;     /* (nullable) */
    bool any_time;                      /* only asks, or asks for an end: does not wait for commands of other clients */
} DaemonCommand;                        /* a table ends with a NULL name */

extern const DaemonCommand daemon_backup_commands[];
extern const DaemonCommand daemon_bitmap_commands[];
extern const DaemonCommand daemon_chain_commands[];
extern const DaemonCommand daemon_create_commands[];
extern const DaemonCommand daemon_export_commands[];
extern const DaemonCommand daemon_graph_commands[];
extern const DaemonCommand daemon_internal_snapshot_commands[];
extern const DaemonCommand daemon_job_commands[];
extern const DaemonCommand daemon_mirror_commands[];
extern const DaemonCommand daemon_monitor_commands[];
extern const DaemonCommand daemon_node_commands[];
extern const DaemonCommand daemon_object_commands[];
extern const DaemonCommand daemon_protocol_commands[];
extern const DaemonCommand daemon_query_commands[];
extern const DaemonCommand daemon_snapshot_commands[];
extern const DaemonCommand daemon_transaction_commands[];

/* All commands, by table. NULL ends the list. */
const DaemonCommand *daemon_command_nth(unsigned index);
const DaemonCommand *daemon_command_find(const char *name);     /* (nullable) */

/* ---- errors ---- */

/**
 * daemon_error:
 * @error_class: "GenericError", "CommandNotFound", "DeviceNotActive", "DeviceNotFound" or "KVMMissingCap"
 *
 * As blk_error(), for an error that clients tell by its class. That of all others is GenericError.
 */
int daemon_error(GError **error, int ret, const char *error_class, const char *format, ...) G_GNUC_PRINTF(4, 5);
const char *daemon_error_class(const GError *error);

/* ---- arguments ---- */

/**
 * daemon_parse_arguments:
 * @tables: NULL-terminated array of tables
 * @object: what the client sent; not changed
 * @path: (nullable): where @object stands, for messages: "actions" makes "actions.name"
 *
 * As blk_options_parse(), but nothing is converted: types must be those of the table, groups must be nested. The messages
 * are those of the peer. Returns: (transfer full): NULL with @error set.
 */
BlkOptions *daemon_parse_arguments(const BlkOption *const *tables, JsonObject *object, const char *path, GError **error);

/**
 * daemon_parse_variants:
 * @table: (nullable): arguments that there are with any value of the tag
 * @words: of a command line, where numbers and truth values may be text
 *
 * daemon_parse_arguments() for @table and what the value of the tag adds. Returns: (transfer full): NULL with @error set.
 */
BlkOptions *daemon_parse_variants(Daemon *d, const BlkOption *table, const DaemonVariants *variants, JsonObject *object,
                                  const char *path, bool words, GError **error);

/* Keeps a table that is made, for variants, as long as the daemon lives. daemon_find_table(): (nullable): is
 * there one? @table: (transfer full). */
const BlkOption *daemon_find_table(Daemon *d, const char *key);
const BlkOption *daemon_keep_table(Daemon *d, const char *key, GArray *table);

/* (transfer none) (nullable): the table of the value of the tag that @object has; NULL with @error set. */
const BlkOption *daemon_find_variant(Daemon *d, const DaemonVariants *variants, JsonObject *object, const char *path,
                                     GError **error);

/* The same for the text of a command line, JSON or key=value,...; the latter has only text, which is converted. @variants:
 * (nullable). Returns: (transfer full): NULL with @error set. */
BlkOptions *daemon_parse_text(Daemon *d, const BlkOption *table, const DaemonVariants *variants, const char *text,
                              const char *implied_key, GError **error);

/* Is it a tree of node options, with all drivers and node names that there are, types as above? @path: as above. */
int daemon_check_node(Daemon *d, JsonObject *tree, const char *path, GError **error);
/* The same for the text of a command line. Returns: (transfer full): the tree; NULL with @error set. */
JsonObject *daemon_parse_node_text(Daemon *d, const char *text, GError **error);
extern const DaemonVariants daemon_driver_variants;
extern const BlkType daemon_node_type;      /* such a tree */

/* (transfer none) (nullable): the elements of the argument @name, whose type is a list. */
JsonArray *daemon_options_array(const BlkOptions *args, const char *name);

/* ---- nodes ---- */

/* The node that is called @device or @node_name; either may be NULL. There are no devices here: both are names of nodes.
 * (transfer none): NULL with @error set. */
BlkNode *daemon_find_node(Daemon *d, const char *device, const char *node_name, GError **error);

/* The same for one that no other node uses. */
BlkNode *daemon_find_root(Daemon *d, const char *name, GError **error);

/* Opens a node that the daemon holds until it is deleted. Context: coroutine; may yield. */
int daemon_co_add_node(Daemon *d, JsonObject *tree, GError **error);
int daemon_co_delete_node(Daemon *d, const char *name, GError **error);
/* Does the daemon hold it? */
bool daemon_holds_node(const Daemon *d, BlkNode *node);
/* It does from now on; or not any more, so that it closes if nobody else does (may yield). */
void daemon_hold_node(Daemon *d, BlkNode *node);
void daemon_co_let_go(Daemon *d, BlkNode *node);

/* ---- exports ---- */

/* @args: of daemon_nbd_server_options; the other two: of the tables below. Context: coroutine; may yield. */
int daemon_co_start_nbd_server(Daemon *d, const BlkOptions *args, const DaemonAddress *address, GError **error);
int daemon_co_add_export(Daemon *d, const BlkOptions *args, GError **error);
extern const BlkOption daemon_export_options[];
extern const DaemonVariants daemon_export_variants;
extern const BlkOption daemon_nbd_server_options[];
extern const DaemonVariants daemon_object_variants;

/* ---- results: (transfer full), of what is theirs now ---- */

static inline JsonNode *daemon_result_object(JsonObject *object)
{
    JsonNode *node = json_node_new(JSON_NODE_OBJECT);

    json_node_take_object(node, object);
    return node;
}

static inline JsonNode *daemon_result_array(JsonArray *array)
{
    JsonNode *node = json_node_new(JSON_NODE_ARRAY);

    json_node_take_array(node, array);
    return node;
}

/* ---- daemon.c ---- */

/* Asks for the end. Does not yield. */
void daemon_quit(Daemon *d);

/* Runs until a signal comes or a client says so. Returns: the exit status. */
int daemon_main(const DaemonArgs *args);

/* Counts a coroutine that the end must wait for. */
static inline void daemon_begin(Daemon *d)
{
    d->running++;
}
static inline void daemon_end(Daemon *d)
{
    d->running--;
    blk_co_queue_wake_all(&d->changed);
}

#endif
