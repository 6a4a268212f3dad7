/* SPDX-License-Identifier: MIT */
/*
 * library.c - loading libraries when somebody needs them.
 */
#include "core/library.h"

#include <blkstack/driver.h>
#include <dlfcn.h>

static void *open_library(const BlkLibrary *library)
{
    void *handle = NULL;

    for (const char *const *file = library->files; *file && !handle; file++) {
        handle = dlopen(*file, RTLD_LAZY | RTLD_LOCAL);
    }
    return handle;
}

/* Returns: NULL; (transfer full): which function is missing. */
static char *fill_table(const BlkLibrary *library, void *handle)
{
    for (unsigned i = 0; library->names[i]; i++) {
        library->table[i] = dlsym(handle, library->names[i]);
        if (!library->table[i]) {
            return g_strdup_printf("the function %s is missing in it", library->names[i]);
        }
    }
    return NULL;
}

static gpointer load_once(gpointer opaque)
{
    BlkLibrary *library = opaque;
    void *handle = open_library(library);

    library->why = handle ? fill_table(library, handle) : g_strdup(dlerror());
    if (!library->why && library->start) {
        library->why = g_strdup(library->start());
    }
    return library;
}

static const char *last_of(const char *const *files)
{
    while (files[1]) {
        files++;
    }
    return *files;
}

int blk_library_load(BlkLibrary *library, GError **error)
{
    g_once(&library->once, load_once, library);
    return library->why ? blk_error(error, -ENOTSUP, "%s: %s; install the package that has '%s'", library->needed_by,
                                    library->why, last_of(library->files)) : 0;
}
