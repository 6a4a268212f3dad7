/* SPDX-License-Identifier: MIT */
/*
 * schema.h - what query-qmp-schema says of commands: their names, their arguments, and what type each has.
 *
 * The answer may be anything: what is not as it should be is as if it were not there.
 */
#ifndef BLKSTACK_TOOLS_CTL_SCHEMA_H
#define BLKSTACK_TOOLS_CTL_SCHEMA_H

#include "ctl/client.h"

typedef struct CtlSchema {
    JsonNode *root;             /* (nullable): the answer */
    GHashTable *entities;       /* name -> JsonObject */
    GPtrArray *commands;        /* const char *, sorted */
} CtlSchema;

/* Asks the server. One that has no schema makes an empty one. 0; a negative errno with @error set: the connection is
 * gone. */
int ctl_schema_init(CtlSchema *schema, CtlClient *client, GError **error);
void ctl_schema_clear(CtlSchema *schema);

/* One member of a type; all point into the schema. */
typedef struct CtlMember {
    const char *name, *type;
    const char *help, *default_text;        /* (nullable): only our own daemon tells */
    bool optional;
} CtlMember;

/* The entity of that name, whose meta-type is "object", "enum", ... (transfer none) (nullable) */
JsonObject *ctl_schema_find(const CtlSchema *schema, const char *name);
bool ctl_schema_is(JsonObject *entity, const char *meta_type);
/* The type of a command's arguments. (transfer none) (nullable): it is no command */
const char *ctl_schema_arguments(const CtlSchema *schema, const char *command);

/**
 * ctl_schema_members:
 * @type: (nullable): an object, or an alternate of which one is an object
 * @given: (nullable): what the user has given of it: chooses among members that depend on the value of another one
 *
 * Returns: (transfer full): of CtlMember.
 */
GArray *ctl_schema_members(const CtlSchema *schema, const char *type, JsonObject *given);

/* The type of the member @name of an object, or of the elements of a list. (nullable): there is none. */
const char *ctl_schema_step(const CtlSchema *schema, const char *type, const char *name, JsonObject *given);

/* What a first word without '=' is the value of: what the other arguments depend on, else the first that is required.
 * (nullable) */
const char *ctl_schema_implied_key(const CtlSchema *schema, const char *command);

/* (transfer full): the values of an enumeration, NULL-terminated, into the schema; NULL: it is none. */
GPtrArray *ctl_schema_values(const CtlSchema *schema, const char *type);
/* "string", "int", "number", "boolean", "null", "value" of a builtin type, else "". */
const char *ctl_schema_json_type(const CtlSchema *schema, const char *type);
/* What kind of value the type has, for a user: as above, or "a|b|c", "object", "name or object", ... (transfer full) */
char *ctl_schema_describe(const CtlSchema *schema, const char *type);

#endif
