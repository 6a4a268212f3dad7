/* SPDX-License-Identifier: MIT */
/*
 * object.h - objects: what a command line or a control program makes beside nodes, held by the context by id.
 *
 *     --object TYPE,id=ID,key=value,...      a secret, TLS credentials, a list of who may connect
 *
 * A type is a constant table, like a driver; its option table makes parsing, refusing of unknown keys and help.
 * See docs/objects.md.
 */
#ifndef BLKSTACK_CORE_OBJECT_H
#define BLKSTACK_CORE_OBJECT_H

#include <blkstack/driver.h>

typedef struct BlkObject BlkObject;

typedef struct BlkObjectType {
    const char *name;
    const char *help;           /* one line */
    const BlkOption *options;   /* beside blk_object_options */
    size_t instance_size;
    /* @object->opaque: instance_size bytes, zeroed. May read files, but never yields. */
    int (*init)(BlkObject *object, const BlkOptions *options, GError **error);
    void (*finish)(BlkObject *object);      /* also after a failed init; NULL: nothing to do */
    /* Changes what @options, parsed by the type's table, has of @property (an option, or a group of some). NULL: nothing can
     * be changed. Does not yield. */
    int (*set)(BlkObject *object, const char *property, const BlkOptions *options, GError **error);
    /* (transfer full): the value of a property; NULL: it has none that can be told. NULL: there are none. */
    JsonNode *(*get)(const BlkObject *object, const char *property);
} BlkObjectType;

struct BlkObject {
    const BlkObjectType *type;
    BlkContext *ctx;
    char *id;
    unsigned users;             /* those that blk_object_use() counted */
    void *opaque;
};

/* Options of every object: qom-type, id. */
extern const BlkOption blk_object_options[];

/* The types, sorted by name. NULL ends the list. */
const BlkObjectType *blk_object_type_nth(unsigned index);
const BlkObjectType *blk_object_type_find(const char *name);    /* (nullable) */

/**
 * blk_object_add:
 * @options: "qom-type", "id" and the options of the type. Not changed.
 *
 * Makes an object that lives until it is removed or the context is freed. Context: the context's thread, also outside
 * coroutines; blocks while files of the object are read. Returns: 0; -EINVAL; -EEXIST: the id is taken; errors of files.
 */
int blk_object_add(BlkContext *ctx, JsonObject *options, GError **error);

/* -ENOENT; -EBUSY: somebody uses it. */
int blk_object_remove(BlkContext *ctx, const char *id, GError **error);

BlkObject *blk_object_find(BlkContext *ctx, const char *id);    /* (transfer none) (nullable) */

/* Finds an object and counts a user, who must give it back: it cannot be removed meanwhile. NULL with @error set. */
BlkObject *blk_object_use(BlkContext *ctx, const char *id, GError **error);
void blk_object_unuse(BlkObject *object);       /* NULL is ignored */

/* The objects of a context; for core/context.c. All users of nodes and exports must be gone before it is freed. */
typedef struct BlkObjects BlkObjects;
BlkObjects *blk_objects_new(void);
void blk_objects_free(BlkObjects *objects);

#endif
