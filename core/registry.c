/* SPDX-License-Identifier: MIT */
/*
 * registry.c - the drivers that a context knows: those that are built in and those that a program registers.
 */
#include "core/node.h"

#include <string.h>

static GPtrArray *registered(BlkContext *ctx)
{
    return blk_context_graph(ctx)->drivers;
}

const BlkDriver *blk_driver_nth(BlkContext *ctx, unsigned index)
{
    GPtrArray *drivers = registered(ctx);

    return index < drivers->len ? g_ptr_array_index(drivers, index) : NULL;
}

const BlkDriver *blk_driver_find(BlkContext *ctx, const char *name)
{
    const BlkDriver *driver;

    for (unsigned i = 0; (driver = blk_driver_nth(ctx, i)); i++) {
        if (strcmp(driver->name, name) == 0 || (driver->alias && strcmp(driver->alias, name) == 0)) {
            return driver;
        }
    }
    return NULL;
}

int blk_driver_register(BlkContext *ctx, const BlkDriver *driver, GError **error)
{
    if (blk_driver_find(ctx, driver->name) || (driver->alias && blk_driver_find(ctx, driver->alias))) {
        return blk_error(error, -EEXIST, "A driver with the name '%s' is registered already", driver->name);
    }
    g_ptr_array_add(registered(ctx), (gpointer)driver);
    return 0;
}

const BlkDriver *blk_driver_probe(BlkContext *ctx, const uint8_t *head, size_t bytes, const char *filename, int *score)
{
    const BlkDriver *driver, *best = NULL;

    *score = 0;
    for (unsigned i = 0; (driver = blk_driver_nth(ctx, i)); i++) {
        int found = driver->kind == BLK_FORMAT && driver->probe ? driver->probe(head, bytes, filename) : 0;

        if (found > *score) {
            *score = found;
            best = driver;
        }
    }
    return best;
}
