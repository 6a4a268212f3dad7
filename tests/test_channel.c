/* SPDX-License-Identifier: MIT */
/*
 * test_channel.c - streams of bytes over sockets: waiting, ending, deadlines, cancelling.
 */
#include "core/channel.h"
#include "core/loop.h"
#include "node_test.h"

#include <sys/socket.h>

#define SHORT_NS    UINT64_C(20000000)

typedef struct Pair {
    BlkChannel *a, *b;
} Pair;

static Pair connected(void)
{
    int fds[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    return (Pair) { blk_channel_new(fds[0]), blk_channel_new(fds[1]) };
}

static void disconnect(Pair *pair)
{
    blk_channel_free(pair->a);
    blk_channel_free(pair->b);
}

static int co_send_text(BlkChannel *ch, const char *text)
{
    struct iovec vec = { (void *)text, strlen(text) };

    return blk_channel_co_sendv(ch, &vec, 1, UINT64_MAX);
}

CO_TEST(takes_what_is_there)
{
    Pair pair = connected();
    char buf[16];

    ck_assert_int_eq(co_send_text(pair.a, "hello"), 0);
    ck_assert_int_eq(blk_channel_co_recv(pair.b, buf, 2, UINT64_MAX), 2);
    ck_assert_int_eq(blk_channel_co_recv(pair.b, buf + 2, sizeof(buf) - 2, UINT64_MAX), 3);
    ck_assert_mem_eq(buf, "hello", 5);
    disconnect(&pair);
}

static int co_send_later(void *opaque)
{
    blk_co_sleep_ns(SHORT_NS);
    co_send_text(opaque, "ab");
    blk_co_sleep_ns(SHORT_NS);
    return co_send_text(opaque, "cd");
}

CO_TEST(waits_for_all)
{
    Pair pair = connected();
    char buf[4];

    blk_co_spawn(t->ctx, co_send_later, pair.a);
    ck_assert_int_eq(blk_channel_co_recv_all(pair.b, buf, sizeof(buf), UINT64_MAX), 0);
    ck_assert_mem_eq(buf, "abcd", 4);
    disconnect(&pair);
}

CO_TEST(takes_what_follows)
{
    Pair pair = connected();
    char buf[4], ahead[8] = "";

    ck_assert_int_eq(co_send_text(pair.a, "abcdef"), 0);
    ck_assert_int_eq(blk_channel_co_recv_ahead(pair.b, buf, 4, ahead, sizeof(ahead), UINT64_MAX), 2);
    ck_assert_mem_eq(buf, "abcd", 4);
    ck_assert_mem_eq(ahead, "ef", 2);
    ck_assert_int_eq(co_send_text(pair.a, "abcdefghij"), 0);
    ck_assert_int_eq(blk_channel_co_recv_ahead(pair.b, buf, 1, ahead, 3, UINT64_MAX), 3);
    ck_assert_mem_eq(ahead, "bcd", 3);
    ck_assert_int_eq(blk_channel_co_recv_ahead(pair.b, ahead, 6, buf, 4, UINT64_MAX), 0);   /* is not waited for */
    ck_assert_mem_eq(ahead, "efghij", 6);
    blk_co_spawn(t->ctx, co_send_later, pair.a);
    ck_assert_int_eq(blk_channel_co_recv_ahead(pair.b, buf, 3, ahead, sizeof(ahead), UINT64_MAX), 1);
    ck_assert_mem_eq(buf, "abc", 3);
    ck_assert_mem_eq(ahead, "d", 1);
    ck_assert_int_eq(co_send_text(pair.a, "xy"), 0);
    ck_assert_int_eq(blk_channel_co_shutdown(pair.a, UINT64_MAX), 0);
    ck_assert_int_eq(blk_channel_co_recv_ahead(pair.b, buf, 3, ahead, sizeof(ahead), UINT64_MAX), -EPIPE);
    disconnect(&pair);
}

CO_TEST(tells_the_end)
{
    Pair pair = connected();
    char buf[4];

    ck_assert_int_eq(co_send_text(pair.a, "ab"), 0);
    ck_assert_int_eq(blk_channel_co_shutdown(pair.a, UINT64_MAX), 0);
    ck_assert_int_eq(blk_channel_co_recv_all(pair.b, buf, sizeof(buf), UINT64_MAX), -EPIPE);
    ck_assert_int_eq(blk_channel_co_recv(pair.b, buf, sizeof(buf), UINT64_MAX), 0);
    disconnect(&pair);
}

/* More than the socket holds, in many vectors: the other side takes it bit by bit. */
enum { MUCH = 4 << 20, PIECE = 4096 };

static int co_send_much(void *opaque)
{
    Pair *pair = opaque;
    g_autofree uint8_t *data = g_malloc(MUCH);
    g_autofree struct iovec *vec = g_new(struct iovec, MUCH / PIECE);

    for (unsigned i = 0; i < MUCH; i++) {
        data[i] = (uint8_t)(i >> 3 ^ i >> 11);
    }
    for (unsigned i = 0; i < MUCH / PIECE; i++) {
        vec[i] = (struct iovec) { data + i * PIECE, PIECE };
    }
    ck_assert_int_eq(blk_channel_co_sendv(pair->a, vec, MUCH / PIECE, UINT64_MAX), 0);
    return blk_channel_co_shutdown(pair->a, UINT64_MAX);
}

CO_TEST(sends_all_of_many_vectors)
{
    Pair pair = connected();
    uint8_t buf[10000];
    unsigned at = 0;
    ssize_t ret;

    blk_co_spawn(t->ctx, co_send_much, &pair);
    while ((ret = blk_channel_co_recv(pair.b, buf, sizeof(buf), UINT64_MAX)) > 0) {
        for (ssize_t i = 0; i < ret; i++, at++) {
            ck_assert_uint_eq(buf[i], (uint8_t)(at >> 3 ^ at >> 11));
        }
    }
    ck_assert_int_eq(ret, 0);
    ck_assert_uint_eq(at, MUCH);
    disconnect(&pair);
}

CO_TEST(ends_at_the_deadline)
{
    Pair pair = connected();
    struct iovec vec = { g_malloc0(MUCH), MUCH };
    void *data = vec.iov_base;
    char buf[4];

    ck_assert_int_eq(blk_channel_co_recv(pair.b, buf, 4, blk_clock_ns() + SHORT_NS), -ETIMEDOUT);
    ck_assert_int_eq(blk_channel_co_sendv(pair.a, &vec, 1, blk_clock_ns() + SHORT_NS), -ETIMEDOUT);
    g_free(data);
    disconnect(&pair);
}

static int co_cancel_recv_later(void *opaque)
{
    blk_co_sleep_ns(SHORT_NS);
    blk_channel_cancel_recv(opaque);
    return 0;
}

static int co_cancel_later(void *opaque)
{
    blk_co_sleep_ns(SHORT_NS);
    blk_channel_cancel(opaque);
    return 0;
}

CO_TEST(can_be_cancelled)
{
    Pair pair = connected();
    struct iovec vec = { g_malloc0(MUCH), MUCH };
    void *data = vec.iov_base;
    char buf[4];

    blk_co_spawn(t->ctx, co_cancel_recv_later, pair.a);
    ck_assert_int_eq(blk_channel_co_recv(pair.a, buf, 4, UINT64_MAX), -ECANCELED);
    ck_assert_int_eq(co_send_text(pair.b, "late"), 0);
    ck_assert_int_eq(blk_channel_co_recv(pair.a, buf, 4, UINT64_MAX), -ECANCELED);
    ck_assert_int_eq(co_send_text(pair.a, "answer"), 0);

    blk_co_spawn(t->ctx, co_cancel_later, pair.a);
    ck_assert_int_eq(blk_channel_co_sendv(pair.a, &vec, 1, UINT64_MAX), -ECANCELED);
    ck_assert_int_eq(co_send_text(pair.a, "more"), -ECANCELED);
    g_free(data);
    disconnect(&pair);
}

CO_TEST(notices_a_peer_that_is_gone)
{
    Pair pair = connected();
    short events;
    struct iovec vec = { (void *)"x", 1 };

    blk_channel_free(pair.b);
    ck_assert_int_eq(blk_channel_try_sendv(pair.a, &vec, 1, &events), -EPIPE);
    blk_channel_free(pair.a);
}

BLK_TEST_MAIN("channel", takes_what_is_there, waits_for_all, takes_what_follows, tells_the_end,
              sends_all_of_many_vectors, ends_at_the_deadline, can_be_cancelled, notices_a_peer_that_is_gone)
