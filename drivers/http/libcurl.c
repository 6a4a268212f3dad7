/* SPDX-License-Identifier: MIT */
/*
 * libcurl.c - loading libcurl when it is needed.
 */
#include "drivers/http/libcurl.h"

#include <blkstack/driver.h>
#include <dlfcn.h>

/* The interface's version has been 4 since 2006. Debian's library that uses GnuTLS, as we do, has a name of its own. */
static const char *const file_names[] = { "libcurl-gnutls.so.4", "libcurl.so.4" };

typedef struct Loaded {
    HttpCurl functions;
    char *why;              /* it failed; NULL: it did not */
} Loaded;

static void *open_library(void)
{
    void *library = NULL;

    for (unsigned i = 0; i < G_N_ELEMENTS(file_names) && !library; i++) {
        library = dlopen(file_names[i], RTLD_LAZY | RTLD_LOCAL);
    }
    return library;
}

static const char *find_functions(void *library, HttpCurl *functions)
{
#define F(name)                                                     \
    functions->name = dlsym(library, "curl_" #name);                \
    if (!functions->name) {                                         \
        return "the function curl_" #name " is missing in it";      \
    }
    HTTP_CURL_FUNCTIONS(F)
#undef F
    return NULL;
}

static gpointer load_once(gpointer unused)
{
    Loaded *loaded = g_new0(Loaded, 1);
    void *library = open_library();
    const char *why = library ? find_functions(library, &loaded->functions) : dlerror();

    if (!why && loaded->functions.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        why = "it could not be started";
    }
    loaded->why = g_strdup(why);
    return loaded;
}

const HttpCurl *http_curl_load(GError **error)
{
    static GOnce once = G_ONCE_INIT;
    const Loaded *loaded = g_once(&once, load_once, NULL);

    if (loaded->why) {
        blk_error(error, -ENOTSUP, "Files on web servers need libcurl: %s; install the package that has '%s'",
                  loaded->why, file_names[G_N_ELEMENTS(file_names) - 1]);
        return NULL;
    }
    return &loaded->functions;
}
