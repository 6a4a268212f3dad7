/* SPDX-License-Identifier: MIT */
/*
 * loop.c - transfers of libcurl in the event loop, without a thread of their own.
 *
 *     libcurl  --socket, events-->  an epoll set  <--readiness--  one coroutine, the pump  --what happened-->  libcurl
 *              --when to be called-->  the pump's deadline
 *
 * libcurl's multi interface with socket actions says which sockets it waits for, for what, and when it wants to be
 * called at the latest. All sockets stand in one epoll set, so that one wait of the pump is for all, and a socket that
 * libcurl closes is forgotten by the kernel. The pump runs as long as the loop lives; it wakes the coroutines whose
 * transfers have ended.
 *
 * Names of hosts are looked up on threads of libcurl (its threaded resolver, with which distributions build it).
 *
 * Limitations: TLS handshakes and deciphering happen in the loop's thread.
 */
#include "drivers/http/http.h"
#include "drivers/http/libcurl.h"

#include <sys/epoll.h>
#include <unistd.h>

enum { EVENTS = 16, MS_NS = 1000000 };

struct HttpLoop {
    BlkContext *ctx;
    const HttpCurl *curl;
    CURLM *multi;
    int epoll_fd;
    uint64_t deadline_ns;       /* libcurl wants to be called then; UINT64_MAX: never */
    BlkPoll poll;               /* of the pump */
    bool closing;
    BlkCoGroup tasks;           /* the pump */
};

/* ---- what libcurl tells us ---- */

static int socket_changed(CURL *easy, curl_socket_t fd, int what, void *opaque, void *socket_opaque)
{
    HttpLoop *loop = opaque;
    struct epoll_event event = {
        .events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0), .data.fd = fd,
    };

    if (what == CURL_POLL_REMOVE) {
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, fd, NULL);     /* one that is closed already is not there any more */
        return 0;
    }
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, fd, &event) < 0 &&
        (errno != ENOENT || epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)) {
        return -1;
    }
    return 0;
}

static int timer_changed(CURLM *multi, long timeout_ms, void *opaque)
{
    HttpLoop *loop = opaque;

    loop->deadline_ns = timeout_ms < 0 ? UINT64_MAX : blk_clock_ns() + (uint64_t)timeout_ms * MS_NS;
    blk_poll_cancel(&loop->poll);       /* it waits for another time */
    return 0;
}

/* ---- the pump ---- */

static void end_transfers(HttpLoop *loop)
{
    CURLMsg *message;
    int left;

    while ((message = loop->curl->multi_info_read(loop->multi, &left))) {
        HttpTransfer *transfer;
        CURL *easy = message->easy_handle;

        if (message->msg == CURLMSG_DONE) {
            loop->curl->easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&transfer);
            transfer->result = message->data.result;
            loop->curl->multi_remove_handle(loop->multi, easy);
            blk_co_wake(g_steal_pointer(&transfer->co));
        }
    }
}

static void tell_sockets(HttpLoop *loop)
{
    struct epoll_event events[EVENTS];
    int running, count = epoll_wait(loop->epoll_fd, events, EVENTS, 0);

    for (int i = 0; i < count; i++) {
        int bits = (events[i].events & EPOLLIN ? CURL_CSELECT_IN : 0) |
                   (events[i].events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
                   (events[i].events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);

        loop->curl->multi_socket_action(loop->multi, events[i].data.fd, bits, &running);
    }
}

static int pump_co_task(void *opaque)
{
    HttpLoop *loop = opaque;
    int running;

    while (!loop->closing) {
        int ret = blk_co_poll(&loop->poll, loop->epoll_fd, POLLIN, loop->deadline_ns);

        if (ret < 0 && ret != -ETIMEDOUT && ret != -ECANCELED) {
            blk_co_sleep_ns(MS_NS);     /* short of memory, for all we know */
        }
        if (!loop->closing && ret > 0) {
            tell_sockets(loop);
        }
        if (!loop->closing && blk_clock_ns() >= loop->deadline_ns) {
            loop->deadline_ns = UINT64_MAX;
            loop->curl->multi_socket_action(loop->multi, CURL_SOCKET_TIMEOUT, 0, &running);
        }
        end_transfers(loop);
    }
    return 0;
}

/* ---- making and freeing ---- */

HttpLoop *http_loop_new(BlkContext *ctx, const HttpCurl *curl, GError **error)
{
    HttpLoop *loop = g_new0(HttpLoop, 1);

    loop->ctx = ctx;
    loop->curl = curl;
    loop->deadline_ns = UINT64_MAX;
    loop->tasks.limit = 1;
    loop->multi = loop->curl->multi_init();
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!loop->multi || loop->epoll_fd < 0) {
        blk_error_errno(error, loop->multi ? -errno : -ENOMEM, "libcurl could not be started");
        http_loop_co_free(loop);
        return NULL;
    }
    loop->curl->multi_setopt(loop->multi, CURLMOPT_SOCKETFUNCTION, socket_changed);
    loop->curl->multi_setopt(loop->multi, CURLMOPT_SOCKETDATA, loop);
    loop->curl->multi_setopt(loop->multi, CURLMOPT_TIMERFUNCTION, timer_changed);
    loop->curl->multi_setopt(loop->multi, CURLMOPT_TIMERDATA, loop);
    loop->curl->multi_setopt(loop->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long)HTTP_REQUESTS);
    blk_co_group_run(&loop->tasks, pump_co_task, loop);
    return loop;
}

void http_loop_co_free(HttpLoop *loop)
{
    if (!loop) {
        return;
    }
    loop->closing = true;
    blk_poll_cancel(&loop->poll);
    blk_co_group_wait(&loop->tasks);
    loop->curl->multi_cleanup(loop->multi);
    if (loop->epoll_fd >= 0) {
        close(loop->epoll_fd);
    }
    g_free(loop);
}

/* ---- transfers ---- */

int http_loop_co_run(HttpLoop *loop, HttpTransfer *transfer)
{
    CURLMcode code;

    loop->curl->easy_setopt(transfer->easy, CURLOPT_PRIVATE, transfer);
    code = loop->curl->multi_add_handle(loop->multi, transfer->easy);
    if (code != CURLM_OK) {
        return code == CURLM_OUT_OF_MEMORY ? CURLE_OUT_OF_MEMORY : CURLE_FAILED_INIT;
    }
    transfer->co = blk_co_self();
    blk_co_yield();
    return transfer->result;
}

void http_loop_cancel(HttpLoop *loop, HttpTransfer *transfer)
{
    if (transfer->co) {
        transfer->result = CURLE_ABORTED_BY_CALLBACK;
        loop->curl->multi_remove_handle(loop->multi, transfer->easy);
        blk_co_wake(g_steal_pointer(&transfer->co));
    }
}
