/* SPDX-License-Identifier: MIT */
/*
 * libcurl.h - the functions of libcurl that the drivers "http" and "https" call.
 *
 * libcurl is loaded when the first such node is opened: it brings some thirty libraries, and loading them costs every
 * program that never looks at a web server as much as all else that it does before main(). Headers are those of the
 * build, so whatever is loaded has their major version.
 */
#ifndef BLKSTACK_DRIVERS_HTTP_LIBCURL_H
#define BLKSTACK_DRIVERS_HTTP_LIBCURL_H

#define CURL_DISABLE_TYPECHECK      /* it knows calls by name only */
#include <curl/curl.h>
#include <glib.h>

/* Each member is the function of its name behind "curl_". */
#define HTTP_CURL_FUNCTIONS(F) \
    F(easy_cleanup) F(easy_getinfo) F(easy_init) F(easy_reset) F(easy_setopt) F(easy_strerror) F(global_init) \
    F(multi_add_handle) F(multi_cleanup) F(multi_info_read) F(multi_init) F(multi_remove_handle) F(multi_setopt) \
    F(multi_socket_action) F(slist_append) F(slist_free_all)

typedef struct HttpCurl {
#define F(name) typeof(curl_##name) *name;
    HTTP_CURL_FUNCTIONS(F)
#undef F
} HttpCurl;

/* Loads and starts libcurl, once in the life of the program, which keeps it. Context: any thread; does not yield.
 * Returns: (transfer none): its functions; NULL: an error is set, and will be each time. */
const HttpCurl *http_curl_load(GError **error);

#endif
