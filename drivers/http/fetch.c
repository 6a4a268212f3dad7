/* SPDX-License-Identifier: MIT */
/*
 * fetch.c - one range of a file: requests until it is there, and the judgement of each answer.
 *
 *     request  --answer's head-->  judge  --right range of the right file-->  body to memory, exactly as long as asked
 *        ^                           `-- wrong: the transfer is broken off
 *        '--- pause ---- failed for a time: no connection, cut off, silent, 408, 429, 500, 502, 503, 504
 *
 * What came before a transfer broke stays: the next request asks for the rest. That never mixes two versions of a file:
 * each request says by If-Range which one it means, and each answer must have the length and the marks (ETag, or else
 * Last-Modified) of the first one. The first answer says what file it is; it is a range too, so a server that has none
 * is known at once.
 *
 * Limitations: a server that tells neither mark can only be caught when the file's length changes.
 */
#include "config.h"

#include "drivers/http/http.h"
#include "drivers/http/libcurl.h"

#include <string.h>

enum {
    MAX_REDIRECTS = 10,
    MAX_HEAD_BYTES = 64 << 10,          /* of all answers to a request */
    MAX_MARK_BYTES = 1 << 10,
    SLOWEST_BYTES_PER_S = 4 << 10,      /* what a server must deliver on average, beyond its time to be silent */
    PROGRESS_BYTES = 64 << 10,          /* a request that brought so much did not fail in vain */
    BUFFER_BYTES = 128 << 10,
};

#define SECOND_NS        UINT64_C(1000000000)
#define FIRST_PAUSE_NS   (SECOND_NS / 10)
#define LONGEST_PAUSE_NS (5 * SECOND_NS)

struct HttpAnswer {
    HttpFetch *fetch;
    CURL *easy;
    size_t head_bytes;
    uint64_t heard_bytes, heard_ns;     /* when the server was heard last, and what had come then */
    bool judged;
    int ret;                    /* of the judgement */
    bool transient;             /* it may be another one next time */
    GError **error;
    bool has_range, has_total;  /* Content-Range: bytes first-last/total */
    uint64_t first, last, total;
    bool no_ranges, encoded;
    char *etag, *last_modified; /* (nullable) */
    char curl_text[CURL_ERROR_SIZE];
};

/* ---- heads of answers ---- */

static void answer_clear(HttpAnswer *a)
{
    g_clear_pointer(&a->etag, g_free);
    g_clear_pointer(&a->last_modified, g_free);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(HttpAnswer, answer_clear)

/* A new one begins: what a redirection said does not count. */
static void answer_begin(HttpAnswer *a)
{
    answer_clear(a);
    a->has_range = a->has_total = a->no_ranges = a->encoded = false;
}

/* "bytes 0-99/1000", "bytes 0-99/" "*", "bytes *" "/1000". What is malformed counts as missing. */
static void parse_content_range(HttpAnswer *a, const char *value)
{
    const char *slash = strchr(value, '/');

    if (g_ascii_strncasecmp(value, "bytes ", 6) != 0 || !slash) {
        return;
    }
    g_autofree char *range = g_strndup(value + 6, (size_t)(slash - value - 6));
    g_auto(GStrv) ends = g_strsplit(g_strstrip(range), "-", 2);

    a->has_total = g_ascii_string_to_unsigned(slash + 1, 10, 0, BLK_MAX_LENGTH, &a->total, NULL);
    a->has_range = ends[0] && ends[1] && g_ascii_string_to_unsigned(ends[0], 10, 0, BLK_MAX_LENGTH, &a->first, NULL) &&
                   g_ascii_string_to_unsigned(ends[1], 10, 0, BLK_MAX_LENGTH, &a->last, NULL);
}

static void parse_field(HttpAnswer *a, const char *name, const char *value)
{
    if (g_ascii_strcasecmp(name, "Content-Range") == 0) {
        parse_content_range(a, value);
    } else if (g_ascii_strcasecmp(name, "Accept-Ranges") == 0) {
        a->no_ranges = g_ascii_strcasecmp(value, "none") == 0;
    } else if (g_ascii_strcasecmp(name, "Content-Encoding") == 0) {
        a->encoded = g_ascii_strcasecmp(value, "identity") != 0;
    } else if (g_ascii_strcasecmp(name, "ETag") == 0 && strlen(value) <= MAX_MARK_BYTES) {
        g_free(a->etag);
        a->etag = g_strdup(value);
    } else if (g_ascii_strcasecmp(name, "Last-Modified") == 0 && strlen(value) <= MAX_MARK_BYTES) {
        g_free(a->last_modified);
        a->last_modified = g_strdup(value);
    }
}

/* ---- judging ---- */

static int refuse(HttpAnswer *a, int ret, bool transient, const char *format, ...) G_GNUC_PRINTF(4, 5);
static int refuse(HttpAnswer *a, int ret, bool transient, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    g_clear_error(a->error);
    a->transient = transient;
    return a->ret = blk_error(a->error, ret, "%s", text);
}

static int changed(HttpAnswer *a, const char *what)
{
    a->fetch->state->stale = true;
    return refuse(a, -ESTALE, false, "the file on the server has changed while it was open (%s): nothing more is read "
                  "from it", what);
}

static int judge_status(HttpAnswer *a, long status)
{
    const HttpFile *file = &a->fetch->state->file;

    switch (status) {
    case 200:
        return file->known ? changed(a, "a range was asked for, and all of it comes")
                           : refuse(a, -ENOTSUP, false, "the server sends the whole file where a range of it is asked "
                                    "for, and ranges are needed to read an image");
    case 412:
        return changed(a, "HTTP status 412");
    case 416:
        return file->known ? changed(a, "HTTP status 416")
                           : refuse(a, -EIO, false, "the server has nothing of the file to send (HTTP status 416): is "
                                    "it empty?");
    case 401: case 403: case 407:
        return refuse(a, -EACCES, false, "the server refuses access (HTTP status %ld)", status);
    case 404: case 410:
        return refuse(a, -ENOENT, false, "there is no such file on the server (HTTP status %ld)", status);
    case 408: case 429: case 500: case 502: case 503: case 504:
        return refuse(a, -EIO, true, "the server is in trouble (HTTP status %ld)", status);
    default:
        return refuse(a, -EIO, false, "the server answers with HTTP status %ld", status);
    }
}

static int judge_range(HttpAnswer *a, uint64_t wanted)
{
    HttpFetch *fetch = a->fetch;
    const HttpFile *file = &fetch->state->file;
    uint64_t first = fetch->offset + fetch->filled;

    if (a->encoded) {
        return refuse(a, -EPROTO, false, "the server encodes the file although nobody asked for that");
    }
    if (!a->has_range) {
        return refuse(a, -EPROTO, false, "the server does not say which range of the file it sends");
    }
    if (!a->has_total) {
        return refuse(a, -ENOTSUP, false, "the server does not say how long the file is");
    }
    if (file->known && a->total != file->length) {
        return changed(a, "another length");
    }
    if (a->first != first || a->last != MIN(first + wanted, a->total) - 1 || a->last < a->first) {
        return refuse(a, -EPROTO, false, "the server sends bytes %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT " of the "
                      "file, but %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT " were asked for", a->first, a->last,
                      first, first + wanted - 1);
    }
    if (a->no_ranges && !fetch->state->options.force_range) {
        return refuse(a, -ENOTSUP, false, "the server says that it has no ranges of the file, which are needed to read "
                      "an image; if it has, use force-range=on");
    }
    return 0;
}

/* Are the marks those of the first answer? Where there is an ETag the other one may be missing. */
static int judge_marks(HttpAnswer *a)
{
    const HttpFile *file = &a->fetch->state->file;
    bool same = file->etag ? g_strcmp0(a->etag, file->etag) == 0
                           : !file->last_modified || g_strcmp0(a->last_modified, file->last_modified) == 0;

    return same ? 0 : changed(a, file->etag ? "another ETag" : "another time of change");
}

/* The first answer says what the file is. */
static void learn_file(HttpAnswer *a)
{
    HttpFile *file = &a->fetch->state->file;

    file->known = true;
    file->length = a->total;
    file->etag = g_steal_pointer(&a->etag);
    file->last_modified = g_steal_pointer(&a->last_modified);
    a->fetch->bytes = MIN(a->fetch->bytes, file->length);
}

static int judge(HttpAnswer *a)
{
    HttpFetch *fetch = a->fetch;
    bool known = fetch->state->file.known;
    long status = 0;
    int ret;

    if (a->judged) {
        return a->ret;
    }
    a->judged = true;
    a->fetch->state->curl->easy_getinfo(a->easy, CURLINFO_RESPONSE_CODE, &status);
    ret = status == 206 ? judge_range(a, fetch->bytes - fetch->filled) : judge_status(a, status);
    if (ret == 0 && known) {
        ret = judge_marks(a);
    } else if (ret == 0) {
        learn_file(a);
    }
    return ret;
}

/* ---- what libcurl calls ---- */

static size_t head_line(char *line, size_t size, size_t count, void *opaque)
{
    HttpAnswer *a = opaque;
    g_autofree char *text = g_strndup(line, size * count);
    char *colon = strchr(text, ':');

    a->head_bytes += size * count;
    if (a->head_bytes > MAX_HEAD_BYTES) {
        refuse(a, -EPROTO, false, "the heads of the server's answer have no end");
        return 0;
    }
    if (g_str_has_prefix(text, "HTTP/")) {
        answer_begin(a);
    } else if (colon && !a->judged) {
        *colon = '\0';
        parse_field(a, g_strchomp(text), g_strstrip(colon + 1));
    }
    return size * count;
}

static size_t body_part(char *data, size_t size, size_t count, void *opaque)
{
    HttpAnswer *a = opaque;
    HttpFetch *fetch = a->fetch;
    size_t bytes = size * count;

    if (judge(a) < 0) {
        return 0;
    }
    if (bytes > fetch->bytes - fetch->filled) {
        refuse(a, -EPROTO, false, "the server sends more than was asked for");
        return 0;
    }
    memcpy(fetch->data + fetch->filled, data, bytes);
    fetch->filled += bytes;
    blk_co_queue_wake_all(&fetch->progress);
    return bytes;
}

/* libcurl calls it with whatever happens, and about once in a second. */
static int still_alive(void *opaque, curl_off_t to_come, curl_off_t come, curl_off_t to_go, curl_off_t gone)
{
    HttpAnswer *a = opaque;
    uint64_t heard = a->head_bytes + (uint64_t)come, now_ns = blk_clock_ns();
    unsigned timeout_s = a->fetch->state->options.timeout_s;

    if (heard != a->heard_bytes) {
        a->heard_bytes = heard;
        a->heard_ns = now_ns;
    }
    return now_ns - a->heard_ns < timeout_s * SECOND_NS
           ? 0 : refuse(a, -ETIMEDOUT, true, "the server was silent for %u seconds", timeout_s);
}

/* ---- requests ---- */

/* With credentials of the user's own the system's authorities do not count. */
static void set_tls_options(const HttpCurl *curl, CURL *easy, const HttpOptions *options)
{
    const HttpTls *tls = &options->tls;

    curl->easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, options->sslverify ? 1L : 0L);
    curl->easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, options->sslverify ? 2L : 0L);
    if (tls->creds) {
        curl->easy_setopt(easy, CURLOPT_CAINFO, tls->ca);
        curl->easy_setopt(easy, CURLOPT_CAPATH, NULL);
        curl->easy_setopt(easy, CURLOPT_CRLFILE, tls->crl);
        curl->easy_setopt(easy, CURLOPT_SSLCERT, tls->cert);
        curl->easy_setopt(easy, CURLOPT_SSLKEY, tls->key);
        curl->easy_setopt(easy, CURLOPT_KEYPASSWD, tls->password);
    }
}

static void set_options(const HttpCurl *curl, CURL *easy, const HttpOptions *options)
{
    curl->easy_setopt(easy, CURLOPT_URL, options->url);
    curl->easy_setopt(easy, CURLOPT_USERAGENT, "blkstack/" BLK_VERSION);
    curl->easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
#if LIBCURL_VERSION_NUM >= 0x075500
    curl->easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl->easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
#else
    curl->easy_setopt(easy, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
    curl->easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
#if LIBCURL_VERSION_NUM >= 0x075700
    curl->easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);     /* nobody waits for a look-up that was given up */
#endif
    curl->easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 1L);
    curl->easy_setopt(easy, CURLOPT_MAXREDIRS, (long)MAX_REDIRECTS);
    curl->easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl->easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)BUFFER_BYTES);
    set_tls_options(curl, easy, options);
    curl->easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, (long)options->timeout_s);
    curl->easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);        /* it looks each second, and calls still_alive() */
    curl->easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)options->timeout_s + 1);
    curl->easy_setopt(easy, CURLOPT_USERNAME, options->username);
    curl->easy_setopt(easy, CURLOPT_PASSWORD, options->password);
    curl->easy_setopt(easy, CURLOPT_PROXYUSERNAME, options->proxy_username);
    curl->easy_setopt(easy, CURLOPT_PROXYPASSWORD, options->proxy_password);
}

/* What identifies the version of the file in a request (RFC 9110, 13.1.5): a weak ETag does not. */
static const char *version_mark(const HttpFile *file)
{
    return file->etag && !g_str_has_prefix(file->etag, "W/") ? file->etag : file->last_modified;
}

static struct curl_slist *add_header(const HttpCurl *curl, struct curl_slist *headers, const char *name,
                                     const char *value)
{
    g_autofree char *line = g_strdup_printf("%s: %s", name, value);
    struct curl_slist *longer = curl->slist_append(headers, line);

    return longer ? longer : headers;
}

/* Cookies are a header of ours: those that are set by CURLOPT_COOKIE go to any host that we are sent to, this one, like
 * the password, does not. */
static struct curl_slist *make_headers(const HttpState *s)
{
    struct curl_slist *headers = add_header(s->curl, NULL, "Accept-Encoding", "identity");

    if (s->file.known && version_mark(&s->file)) {
        headers = add_header(s->curl, headers, "If-Range", version_mark(&s->file));
    }
    return s->options.cookie ? add_header(s->curl, headers, "Cookie", s->options.cookie) : headers;
}

static bool is_transient(CURLcode code)
{
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST: case CURLE_COULDNT_CONNECT: case CURLE_PARTIAL_FILE: case CURLE_OPERATION_TIMEDOUT:
    case CURLE_GOT_NOTHING: case CURLE_SEND_ERROR: case CURLE_RECV_ERROR: case CURLE_SSL_CONNECT_ERROR:
    case CURLE_HTTP2: case CURLE_HTTP2_STREAM:
        return true;
    default:
        return false;
    }
}

static int errno_of(CURLcode code)
{
    switch (code) {
    case CURLE_OPERATION_TIMEDOUT:
        return -ETIMEDOUT;
    case CURLE_OUT_OF_MEMORY:
        return -ENOMEM;
    case CURLE_COULDNT_CONNECT:
        return -ECONNREFUSED;
    default:
        return -EIO;
    }
}

/* What came of a transfer that has ended. */
static int conclude(HttpAnswer *a, CURLcode code)
{
    HttpFetch *fetch = a->fetch;

    if (fetch->cancelled) {
        return refuse(a, -ECANCELED, false, "it was given up");
    }
    if (a->ret < 0 || (code == CURLE_OK && judge(a) < 0)) {
        return a->ret;
    }
    if (code != CURLE_OK) {
        const char *said = *a->curl_text ? a->curl_text : fetch->state->curl->easy_strerror(code);
        g_autofree char *text = blk_printable_text(said, CURL_ERROR_SIZE);

        return refuse(a, errno_of(code), is_transient(code), "%s", text);
    }
    return fetch->filled < fetch->bytes ? refuse(a, -EIO, true, "the server's answer ends early") : 0;
}

/* One request for what is missing. @retry_after_s: (out): seconds that the server wants us to wait */
static int co_ask(HttpFetch *fetch, bool *transient, uint64_t *retry_after_s, GError **error)
{
    HttpState *s = fetch->state;
    const HttpCurl *curl = s->curl;
    CURL *easy = fetch->transfer.easy;
    g_auto(HttpAnswer) answer = { .fetch = fetch, .easy = easy, .error = error, .heard_ns = blk_clock_ns() };
    struct curl_slist *headers = make_headers(s);
    uint64_t first = fetch->offset + fetch->filled, wanted = fetch->bytes - fetch->filled;
    g_autofree char *range = g_strdup_printf("%" G_GUINT64_FORMAT "-%" G_GUINT64_FORMAT, first, first + wanted - 1);
    curl_off_t retry_after = 0;

    set_options(curl, easy, &s->options);
    curl->easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    curl->easy_setopt(easy, CURLOPT_RANGE, range);
    curl->easy_setopt(easy, CURLOPT_TIMEOUT, (long)(s->options.timeout_s * 2 + wanted / SLOWEST_BYTES_PER_S));
    curl->easy_setopt(easy, CURLOPT_HEADERFUNCTION, head_line);
    curl->easy_setopt(easy, CURLOPT_HEADERDATA, &answer);
    curl->easy_setopt(easy, CURLOPT_WRITEFUNCTION, body_part);
    curl->easy_setopt(easy, CURLOPT_WRITEDATA, &answer);
    curl->easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, still_alive);
    curl->easy_setopt(easy, CURLOPT_XFERINFODATA, &answer);
    curl->easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
    curl->easy_setopt(easy, CURLOPT_ERRORBUFFER, answer.curl_text);
    int ret = conclude(&answer, (CURLcode)http_loop_co_run(s->loop, &fetch->transfer));
    curl->easy_getinfo(easy, CURLINFO_RETRY_AFTER, &retry_after);
    *retry_after_s = (uint64_t)MAX(retry_after, 0);
    *transient = answer.transient;
    curl->easy_reset(easy);
    curl->slist_free_all(headers);
    return ret;
}

static int co_ask_until_done(HttpFetch *fetch, GError **error)
{
    uint64_t pause_ns = FIRST_PAUSE_NS, retry_after_s;
    unsigned failures = 0;
    bool transient;

    for (;;) {
        g_autoptr(GError) local = NULL;
        uint64_t before = fetch->filled;
        int ret = co_ask(fetch, &transient, &retry_after_s, &local);

        if (fetch->filled - before >= PROGRESS_BYTES) {
            failures = 0;
            pause_ns = FIRST_PAUSE_NS;
        }
        if (ret == 0) {
            return 0;
        }
        if (!transient || ++failures > fetch->state->options.retries) {
            g_propagate_error(error, g_steal_pointer(&local));
            return ret;
        }
        pause_ns = MIN(MAX(pause_ns, MIN(retry_after_s, 60) * SECOND_NS), LONGEST_PAUSE_NS);
        blk_co_sleep_cancellable(&fetch->pause, blk_clock_ns() + pause_ns);
        pause_ns *= 2;
    }
}

int http_co_fetch(HttpFetch *fetch, GError **error)
{
    int ret;

    if (fetch->state->stale) {
        return blk_error(error, -ESTALE, "the file on the server has changed while it was open");
    }
    fetch->transfer.easy = fetch->state->curl->easy_init();
    if (!fetch->transfer.easy) {
        return blk_error(error, -ENOMEM, "no memory for a request");
    }
    ret = co_ask_until_done(fetch, error);
    fetch->state->curl->easy_cleanup(g_steal_pointer(&fetch->transfer.easy));
    return ret;
}

void http_fetch_cancel(HttpFetch *fetch)
{
    fetch->cancelled = true;
    http_loop_cancel(fetch->state->loop, &fetch->transfer);
    blk_sleep_cancel(&fetch->pause);
}
