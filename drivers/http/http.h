/* SPDX-License-Identifier: MIT */
/*
 * http.h - the parts of the drivers "http" and "https", and what they know of each other.
 *
 *     http.c       the node: opening, reads
 *     windows.c    parts of the file in memory: what is read ahead, and what several readers wait for
 *     fetch.c      one range of the file: requests until it is there, and the judgement of each answer
 *     loop.c       transfers of libcurl, driven by the event loop
 *     libcurl.c    libcurl itself, which is loaded when it is needed
 *     url.c        names and options; knows nothing of libcurl
 *
 * See docs/http.md.
 */
#ifndef BLKSTACK_DRIVERS_HTTP_H
#define BLKSTACK_DRIVERS_HTTP_H

#include "core/poll.h"
#include "core/tls_creds.h"

#include <blkstack/driver.h>

/* ---- url.c ---- */

/* Credentials of the user's own, as files; all NULL: the system's authorities, and no certificate of ours. */
typedef struct HttpTls {
    BlkObject *creds;           /* in use as long as the node is open */
    char *ca, *crl;             /* whom we trust; (nullable): whom not any more */
    char *cert, *key;           /* (nullable): who we are */
    const char *password;       /* (nullable): of the key */
} HttpTls;

typedef struct HttpOptions {
    char *url;
    uint64_t readahead;         /* bytes */
    bool sslverify, force_range;
    unsigned timeout_s, retries;
    char *cookie;               /* (nullable), as what follows */
    char *username, *password, *proxy_username, *proxy_password;
    HttpTls tls;
} HttpOptions;

extern const BlkOption http_options[];
extern const char *const http_prefixes[], *const https_prefixes[];
JsonObject *http_parse_filename(const char *name, GError **error);
int http_options_init(HttpOptions *to, BlkNode *node, const BlkOptions *options, GError **error);
void http_options_clear(HttpOptions *options);      /* also one that is all zeroes */

/* ---- loop.c ---- */

typedef struct HttpCurl HttpCurl;       /* libcurl.h */
typedef struct HttpLoop HttpLoop;

/* Lives on the stack of the coroutine that waits for it. */
typedef struct HttpTransfer {
    void *easy;                 /* CURL * */
    BlkCo *co;                  /* sleeps until it has ended; NULL: it does not run */
    int result;                 /* CURLcode */
} HttpTransfer;

HttpLoop *http_loop_new(BlkContext *ctx, const HttpCurl *curl, GError **error);
void http_loop_co_free(HttpLoop *loop);                 /* nothing is under way; NULL is ignored */

/* Runs the transfer to its end. Callbacks of its easy handle must not yield. Context: coroutine; yields. Returns: a
 * CURLcode; CURLE_ABORTED_BY_CALLBACK after http_loop_cancel(). */
int http_loop_co_run(HttpLoop *loop, HttpTransfer *transfer);
void http_loop_cancel(HttpLoop *loop, HttpTransfer *transfer);      /* nothing if it does not run; does not yield */

/* ---- fetch.c ---- */

typedef struct HttpState HttpState;

/* What the first answer said about the file; all later ones must agree. */
typedef struct HttpFile {
    bool known;
    uint64_t length;            /* bytes */
    char *etag, *last_modified; /* (nullable) */
} HttpFile;

typedef struct HttpAnswer HttpAnswer;

/* One range of the file on its way to memory. */
typedef struct HttpFetch {
    HttpState *state;
    uint64_t offset, bytes;     /* the first of all: bytes becomes less where the file ends */
    uint8_t *data;
    uint64_t filled;            /* bytes of data that are there */
    BlkCoQueue progress;        /* wait for filled to grow, or for the end */
    HttpTransfer transfer;
    HttpAnswer *answer;         /* the one that is being received */
    BlkSleep pause;             /* between two requests */
    bool cancelled;
} HttpFetch;

/**
 * http_co_fetch:
 *
 * Asks for what is missing of @fetch until it is there; what fails for a time is tried again, at growing intervals, as
 * often as the options say. Context: coroutine; may yield.
 * Returns: 0; -ESTALE: it is not the file any more that it was, also from now on; -ENOTSUP: the server cannot do what
 * is needed; -EPROTO: it answers what was not asked; -ENOENT, -EACCES, -ETIMEDOUT, -EIO; -ECANCELED; -ENOMEM.
 */
int http_co_fetch(HttpFetch *fetch, GError **error);
void http_fetch_cancel(HttpFetch *fetch);       /* does not yield */

/* ---- windows.c ---- */

enum {
    HTTP_WINDOWS = 24,          /* in memory */
    HTTP_REQUESTS = 8,          /* under way at once, ... */
    HTTP_REQUESTS_AHEAD = 6,    /* ... of which so many are for what nobody has asked for yet */
};

/* A part of the file that is in memory, or on its way. */
typedef struct HttpWindow {
    HttpFetch fetch;
    int ret;
    bool done;
    unsigned holders;           /* readers; the fetch itself is one */
    uint64_t asked_end;         /* up to here in the file somebody has asked for it */
    unsigned streak;            /* how many windows before it were read one after the other */
    GList link;
} HttpWindow;

typedef struct HttpWindows {
    GQueue list;                /* those that were used last come last */
    unsigned fetching;
    BlkCoQueue changes;         /* wait until a window can be had */
    BlkCoGroup tasks;           /* one for each fetch */
} HttpWindows;

/* Reads the begin of the file, which says what it is. */
int http_windows_co_open(HttpState *s, GError **error);
void http_windows_co_close(HttpState *s);
/* @offset + @bytes is at most the length of the file. Returns: 0; as http_co_fetch(). */
int http_windows_co_read(HttpState *s, uint64_t offset, uint64_t bytes, BlkIov iov);

/* ---- http.c ---- */

struct HttpState {
    BlkNode *node;
    HttpOptions options;
    const HttpCurl *curl;
    HttpLoop *loop;
    HttpFile file;
    bool stale;                 /* the file has changed: nothing can be read any more */
    char *told;                 /* (nullable): what the user has heard last */
    HttpWindows windows;
};

#endif
