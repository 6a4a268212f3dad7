/* SPDX-License-Identifier: MIT */
/*
 * windows.c - parts of the file that are in memory, or on their way.
 *
 *     file     |.....[####====]......[########]....[==]......|       [ ] a window: # is there, = is to come
 *                        ^ a reader copies what it needs as soon as that is there
 *
 * A read that finds no window makes one, from where it begins to its end and `readahead` bytes further, but not into
 * the next window: nothing is asked for twice while it is in memory. Windows are fetched by tasks of their own, several
 * at once, and several readers may wait for one. The one that was used longest ago makes room.
 *
 *     file     |..[####====][====][====]....|
 *                      ^ a read begins in what nobody had asked for when the window was made: reads follow each other
 *
 * Then the windows behind it are made before somebody needs them, larger ones the longer it goes on, so that the time
 * that a request takes to be answered costs nothing. Some requests are left for reads elsewhere.
 *
 * What can fail: a window whose fetch failed gives its error to those that wait for what it lacks, and is forgotten.
 * What nobody waits for fails silently: it is asked for again when it is needed.
 */
#include "drivers/http/http.h"

enum {
    MAX_GROWTH = 2,             /* windows ahead have up to 2 to the power of this times `readahead` bytes */
    MAX_STREAK = 8,             /* longer ones are like this */
};

/* ---- windows ---- */

static HttpWindow *window_try_new(HttpState *s, uint64_t offset, uint64_t bytes)
{
    uint8_t *data = g_try_malloc(bytes);
    HttpWindow *window;

    if (!data) {
        return NULL;
    }
    window = g_new0(HttpWindow, 1);
    window->fetch = (HttpFetch){ .state = s, .offset = offset, .bytes = bytes, .data = data };
    window->link.data = window;
    return window;
}

static void window_free(HttpWindow *window)
{
    g_free(window->fetch.data);
    g_free(window);
}

static void window_hold(HttpWindows *w, HttpWindow *window)
{
    window->holders++;
    g_queue_unlink(&w->list, &window->link);
    g_queue_push_tail_link(&w->list, &window->link);
}

static void window_put(HttpWindows *w, HttpWindow *window)
{
    if (--window->holders > 0) {
        return;
    }
    if (window->ret < 0) {
        g_queue_unlink(&w->list, &window->link);
        window_free(window);
    }
    blk_co_queue_wake_all(&w->changes);
}

static bool window_has(const HttpWindow *window, uint64_t offset)
{
    return window->ret == 0 && offset >= window->fetch.offset && offset - window->fetch.offset < window->fetch.bytes;
}

static HttpWindow *find_window(const HttpWindows *w, uint64_t offset)
{
    for (GList *l = w->list.tail; l; l = l->prev) {
        if (window_has(l->data, offset)) {
            return l->data;
        }
    }
    return NULL;
}

/* Where the next window behind @offset begins, at most @end. */
static uint64_t next_window(const HttpWindows *w, uint64_t offset, uint64_t end)
{
    for (GList *l = w->list.head; l; l = l->next) {
        const HttpWindow *window = l->data;

        if (window->ret == 0 && window->fetch.offset > offset) {
            end = MIN(end, window->fetch.offset);
        }
    }
    return end;
}

/* ---- fetching ---- */

/* The reason goes to the user, who would see the number of an error only; once, if it stays the same. */
static void tell(HttpState *s, const GError *error)
{
    if (g_strcmp0(s->told, error->message) != 0) {
        blk_node_message(s->node, "%s", error->message);
        g_free(s->told);
        s->told = g_strdup(error->message);
    }
}

static int window_co_fetch(void *opaque)
{
    HttpWindow *window = opaque;
    HttpState *s = window->fetch.state;
    g_autoptr(GError) error = NULL;
    bool is_awaited;

    window->ret = http_co_fetch(&window->fetch, &error);
    window->done = true;
    is_awaited = window->holders > 1 || s->stale;
    if (window->ret < 0 && window->ret != -ECANCELED && is_awaited) {
        tell(s, error);
    }
    s->windows.fetching--;
    blk_co_queue_wake_all(&window->fetch.progress);
    window_put(&s->windows, window);
    return 0;           /* the error is that of those who wait for the window */
}

/* Makes room for one more window, and for its request. Returns: whether there is any. */
static bool make_room(HttpWindows *w)
{
    GList *next;

    for (GList *l = w->list.head; l && w->list.length >= HTTP_WINDOWS; l = next) {
        HttpWindow *window = l->data;

        next = l->next;
        if (window->holders == 0) {
            g_queue_unlink(&w->list, l);
            window_free(window);
        }
    }
    return w->list.length < HTTP_WINDOWS && w->fetching < HTTP_REQUESTS;
}

/* A window from @offset on, at most to @end. There is room for it. @asked_end: see HttpWindow. */
static int start_window(HttpState *s, uint64_t offset, uint64_t asked_end, uint64_t end, unsigned streak)
{
    HttpWindows *w = &s->windows;
    HttpWindow *window = window_try_new(s, offset, next_window(w, offset, MIN(end, s->file.length)) - offset);

    if (!window) {
        return -ENOMEM;
    }
    window->asked_end = asked_end;
    window->streak = streak;
    g_queue_push_tail_link(&w->list, &window->link);
    window->holders = 1;
    w->fetching++;
    return blk_co_group_run(&w->tasks, window_co_fetch, window);
}

/* Reads follow each other, and go on in @window. What is behind it is asked for already: one window, then two, four,
 * ... */
static void read_ahead(HttpState *s, const HttpWindow *window)
{
    HttpWindows *w = &s->windows;
    uint64_t bytes = s->options.readahead << MIN(window->streak, MAX_GROWTH), pos = window->fetch.offset;
    uint64_t windows = MIN(UINT64_C(1) << MIN(window->streak, MAX_STREAK), HTTP_REQUESTS_AHEAD);
    uint64_t limit = MIN(pos + window->fetch.bytes + windows * bytes, s->file.length);

    while (bytes > 0 && pos < limit) {
        const HttpWindow *there = find_window(w, pos);

        if (there) {
            pos = there->fetch.offset + there->fetch.bytes;
        } else if (w->fetching >= HTTP_REQUESTS_AHEAD || !make_room(w) ||
                   start_window(s, pos, pos, pos + bytes, MIN(window->streak + 1, MAX_STREAK)) < 0) {
            return;             /* it is asked for when it is needed */
        }
    }
}

/* ---- reads ---- */

/* Copies what the window has of the range. Returns: bytes, at least 1; the error of the window. */
static gssize co_copy(HttpWindow *window, uint64_t offset, uint64_t bytes, BlkIov iov)
{
    HttpFetch *fetch = &window->fetch;
    uint64_t begin = offset - fetch->offset, there = MIN(bytes, fetch->bytes - begin);

    while (!window->done && fetch->filled < begin + there) {
        blk_co_queue_wait(&fetch->progress);
    }
    if (fetch->filled < begin + there) {
        return window->ret;
    }
    blk_iov_from_buf(iov, fetch->data + begin, there);
    return (gssize)there;
}

/* The part of the range that @window has. Returns: as co_copy(). */
static gssize co_read_window(HttpState *s, HttpWindow *window, uint64_t offset, uint64_t bytes, BlkIov iov, bool ahead)
{
    gssize ret;

    window_hold(&s->windows, window);
    if (ahead && offset + bytes <= window->fetch.offset + window->fetch.bytes) {
        read_ahead(s, window);
    }
    ret = co_copy(window, offset, bytes, iov);
    window_put(&s->windows, window);
    return ret;
}

int http_windows_co_read(HttpState *s, uint64_t offset, uint64_t bytes, BlkIov iov)
{
    HttpWindows *w = &s->windows;
    unsigned streak = 0;
    bool ahead = false;
    gssize ret = 0;

    while (ret >= 0 && bytes > 0) {
        HttpWindow *window = find_window(w, offset);

        if (s->stale) {
            return -ESTALE;
        }
        if (window) {
            ahead = ahead || offset >= window->asked_end;
            streak = ahead ? MIN(window->streak + 1, MAX_STREAK) : 0;
            ret = co_read_window(s, window, offset, bytes, iov, ahead);
        } else if (make_room(w)) {
            ret = start_window(s, offset, offset + bytes, offset + bytes + s->options.readahead, streak);
        } else {
            blk_co_queue_wait(&w->changes);
        }
        if (ret > 0) {
            offset += (uint64_t)ret;
            bytes -= (uint64_t)ret;
            iov = blk_iov_advance(iov, (size_t)ret);
            ret = 0;
        }
    }
    return (int)ret;
}

/* ---- the begin and the end ---- */

int http_windows_co_open(HttpState *s, GError **error)
{
    HttpWindow *window = window_try_new(s, 0, MAX(s->options.readahead, 4096));
    int ret = window ? http_co_fetch(&window->fetch, error) : blk_error(error, -ENOMEM, "no memory for a request");

    s->windows.tasks.limit = HTTP_REQUESTS;
    if (ret == 0) {
        window->done = true;
        window->asked_end = window->fetch.bytes;    /* what says what the file is tells nothing of how it is read */
        g_queue_push_tail_link(&s->windows.list, &window->link);
    } else if (window) {
        window_free(window);
    }
    return ret;
}

void http_windows_co_close(HttpState *s)
{
    HttpWindows *w = &s->windows;

    for (GList *l = w->list.head; l; l = l->next) {
        http_fetch_cancel(&((HttpWindow *)l->data)->fetch);
    }
    blk_co_group_wait(&w->tasks);
    while (w->list.head) {
        window_free(g_queue_pop_head_link(&w->list)->data);
    }
}
