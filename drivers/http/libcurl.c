/* SPDX-License-Identifier: MIT */
/*
 * libcurl.c - loading libcurl when it is needed.
 */
#include "drivers/http/libcurl.h"

#include "core/library.h"

/* The interface's version has been 4 since 2006. Debian's library that uses GnuTLS, as we do, has a name of its own. */
static const char *const files[] = { "libcurl-gnutls.so.4", "libcurl.so.4", NULL };

#define F(name) "curl_" #name,
static const char *const names[] = { HTTP_CURL_FUNCTIONS(F) NULL };
#undef F

static HttpCurl curl;

G_STATIC_ASSERT(sizeof(curl) / sizeof(void *) == G_N_ELEMENTS(names) - 1);

static const char *start(void)
{
    return curl.global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? NULL : "it could not be started";
}

static BlkLibrary library = {
    .needed_by = "Files on web servers need libcurl",
    .files = files,
    .names = names,
    .table = (void **)&curl,
    .start = start,
    .once = G_ONCE_INIT,
};

const HttpCurl *http_curl_load(GError **error)
{
    return blk_library_load(&library, error) == 0 ? &curl : NULL;
}
