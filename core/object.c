/* SPDX-License-Identifier: MIT */
/*
 * object.c - the objects of a context: made from options, found by id, freed last made first.
 *
 * An object may use one that was made before it (credentials a secret), never a later one, so that freeing in reverse
 * finds no users left.
 */
#include "core/object.h"

#include "core/authz.h"
#include "core/iothread.h"
#include "core/loop.h"
#include "core/options.h"
#include "core/secret.h"
#include "core/throttle_group.h"
#include "core/tls_creds.h"

#include <string.h>

static const BlkObjectType *const types[] = {
    &blk_object_authz_list,
    &blk_object_authz_simple,
    &blk_object_iothread,
    &blk_object_secret,
    &blk_object_throttle_group,
    &blk_object_tls_creds_psk,
    &blk_object_tls_creds_x509,
};

const BlkOption blk_object_options[] = {
    { "qom-type", BLK_OPTION_STRING, "type of the object", .required = true },
    { "id", BLK_OPTION_STRING, "name of the object, by which others refer to it", .required = true },
    { NULL },
};

struct BlkObjects {
    GPtrArray *list;            /* BlkObject *, in the order in which they were made */
};

const BlkObjectType *blk_object_type_nth(unsigned index)
{
    return index < G_N_ELEMENTS(types) ? types[index] : NULL;
}

const BlkObjectType *blk_object_type_find(const char *name)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(types); i++) {
        if (strcmp(types[i]->name, name) == 0) {
            return types[i];
        }
    }
    return NULL;
}

/* ---- one object ---- */

static void object_free(BlkObject *object)
{
    g_assert(object->users == 0);
    if (object->type->finish) {
        object->type->finish(object);
    }
    g_free(object->opaque);
    g_free(object->id);
    g_free(object);
}

BlkObject *blk_object_find(BlkContext *ctx, const char *id)
{
    GPtrArray *list = ctx->objects->list;

    for (unsigned i = 0; i < list->len; i++) {
        BlkObject *object = list->pdata[i];

        if (strcmp(object->id, id) == 0) {
            return object;
        }
    }
    return NULL;
}

static const BlkObjectType *choose_type(JsonObject *options, GError **error)
{
    JsonNode *value = json_object_get_member(options, "qom-type");
    const char *name = value && json_node_get_value_type(value) == G_TYPE_STRING ? json_node_get_string(value) : NULL;
    const BlkObjectType *type = name ? blk_object_type_find(name) : NULL;
    const char *names[G_N_ELEMENTS(types) + 1] = { NULL };
    g_autofree char *known = NULL;

    if (type) {
        return type;
    }
    if (!name) {
        blk_error(error, -EINVAL, "The type of an object is missing: write TYPE,id=ID,...");
        return NULL;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(types); i++) {
        names[i] = types[i]->name;
    }
    known = g_strjoinv(", ", (char **)names);
    blk_error(error, -EINVAL, "There is no type '%.*s' of objects; there are %s", 64, name, known);
    return NULL;
}

static int check_id(BlkContext *ctx, const char *id, GError **error)
{
    if (!blk_id_is_valid(id)) {
        return blk_error(error, -EINVAL, "The id of an object must be a letter, followed by letters, digits, '-', '.' and "
                         "'_', not '%.*s'", 64, id);
    }
    if (blk_object_find(ctx, id)) {
        return blk_error(error, -EEXIST, "There is an object with the id '%s' already", id);
    }
    return 0;
}

int blk_object_add(BlkContext *ctx, JsonObject *options, GError **error)
{
    const BlkObjectType *type = choose_type(options, error);
    const BlkOption *tables[] = { blk_object_options, type ? type->options : NULL, NULL };
    g_autoptr(BlkOptions) parsed = type ? blk_options_parse(tables, options, type->name, error) : NULL;
    BlkObject *object;
    int ret;

    if (!parsed) {
        return -EINVAL;
    }
    ret = check_id(ctx, blk_options_string(parsed, "id"), error);
    if (ret < 0) {
        return ret;
    }
    object = g_new0(BlkObject, 1);
    object->type = type;
    object->ctx = ctx;
    object->id = g_strdup(blk_options_string(parsed, "id"));
    object->opaque = g_malloc0(type->instance_size);
    ret = type->init(object, parsed, error);
    if (ret < 0) {
        g_prefix_error(error, "%s '%s': ", type->name, object->id);
        object_free(object);
        return ret;
    }
    g_ptr_array_add(ctx->objects->list, object);
    return 0;
}

int blk_object_remove(BlkContext *ctx, const char *id, GError **error)
{
    BlkObject *object = blk_object_find(ctx, id);

    if (!object) {
        return blk_error(error, -ENOENT, "There is no object with the id '%.*s'", 64, id);
    }
    if (object->users > 0) {
        return blk_error(error, -EBUSY, "The object '%s' is in use", id);
    }
    g_ptr_array_remove(ctx->objects->list, object);
    object_free(object);
    return 0;
}

BlkObject *blk_object_use(BlkContext *ctx, const char *id, GError **error)
{
    BlkObject *object = blk_object_find(ctx, id);

    if (!object) {
        blk_error(error, -ENOENT, "There is no object with the id '%.*s'", 64, id);
        return NULL;
    }
    object->users++;
    return object;
}

void blk_object_unuse(BlkObject *object)
{
    if (object) {
        g_assert(object->users > 0);
        object->users--;
    }
}

/* ---- all of a context ---- */

BlkObjects *blk_objects_new(void)
{
    BlkObjects *objects = g_new0(BlkObjects, 1);

    objects->list = g_ptr_array_new();
    return objects;
}

void blk_objects_free(BlkObjects *objects)
{
    if (!objects) {
        return;
    }
    while (objects->list->len > 0) {
        object_free(g_ptr_array_steal_index(objects->list, objects->list->len - 1));
    }
    g_ptr_array_unref(objects->list);
    g_free(objects);
}
