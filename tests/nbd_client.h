/* SPDX-License-Identifier: MIT */
/*
 * nbd_client.h - a client that says to an NBD server exactly what a test wants it to say, and nothing that it does not.
 */
#ifndef BLKSTACK_TESTS_NBD_CLIENT_H
#define BLKSTACK_TESTS_NBD_CLIENT_H

#include "core/channel.h"
#include "core/loop.h"
#include "exports/nbd/wire.h"
#include "node_test.h"

#include <blkstack/nbd.h>
#include <sys/socket.h>

#define CLIENT_PATIENCE_NS (UINT64_C(20) * 1000000000)

typedef struct Client {
    BlkChannel *channel;
    NbdMode mode;
    uint64_t cookie;            /* of the last request */
    uint8_t reply[70000];       /* data of the last reply */
    uint32_t reply_bytes;
} Client;

static inline void client_send(Client *c, const void *bytes, size_t count)
{
    struct iovec vec = { (void *)bytes, count };

    ck_assert_int_eq(blk_channel_co_sendv(c->channel, &vec, 1, blk_clock_ns() + CLIENT_PATIENCE_NS), 0);
}

static inline int client_try_receive(Client *c, void *bytes, size_t count)
{
    return blk_channel_co_recv_all(c->channel, bytes, count, blk_clock_ns() + CLIENT_PATIENCE_NS);
}

static inline void client_receive(Client *c, void *bytes, size_t count)
{
    ck_assert_int_eq(client_try_receive(c, bytes, count), 0);
}

/* The server has ended the connection: nothing more comes. */
static inline void client_expects_end(Client *c)
{
    uint8_t byte;
    int ret = client_try_receive(c, &byte, 1);

    ck_assert(ret == -EPIPE || ret == -ECONNRESET);
}

static inline Client *client_new(BlkNbdServer *server)
{
    Client *c = g_new0(Client, 1);
    int fds[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    blk_nbd_server_add_client(server, fds[0]);
    c->channel = blk_channel_new(fds[1]);
    return c;
}

static inline Client *client_connect(int family, const void *address, socklen_t bytes)
{
    Client *c = g_new0(Client, 1);
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_eq(connect(fd, address, bytes), 0);
    c->channel = blk_channel_new(fd);
    return c;
}

static inline void client_free(Client *c)
{
    blk_channel_free(c->channel);
    g_free(c);
}

/* ---- handshake ---- */

static inline void client_greet(Client *c)
{
    uint8_t bytes[18];

    client_receive(c, bytes, sizeof(bytes));
    ck_assert_uint_eq(blk_get_be64(bytes), NBD_MAGIC);
    ck_assert_uint_eq(blk_get_be64(bytes + 8), NBD_OPTION_MAGIC);
    blk_put_be32(bytes, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    client_send(c, bytes, 4);
}

static inline void client_send_option(Client *c, uint32_t option, uint32_t length, const void *data, size_t bytes)
{
    uint8_t head[16];

    blk_put_be32(blk_put_be32(blk_put_be64(head, NBD_OPTION_MAGIC), option), length);
    client_send(c, head, sizeof(head));
    client_send(c, data, bytes);
}

/* The next reply, whose data go to c->reply. */
static inline uint32_t client_receive_reply(Client *c, uint32_t option)
{
    uint8_t head[20];

    client_receive(c, head, sizeof(head));
    ck_assert_uint_eq(blk_get_be64(head), NBD_OPTION_REPLY_MAGIC);
    ck_assert_uint_eq(blk_get_be32(head + 8), option);
    c->reply_bytes = blk_get_be32(head + 16);
    ck_assert_uint_le(c->reply_bytes, sizeof(c->reply));
    client_receive(c, c->reply, c->reply_bytes);
    return blk_get_be32(head + 12);
}

/* Sends an option and returns the last reply to it: NBD_REP_ACK or an error. @replies: (out) (nullable): how many
 * before. */
static inline uint32_t client_option(Client *c, uint32_t option, const void *data, size_t bytes, unsigned *replies)
{
    uint32_t reply;
    unsigned n = 0;

    client_send_option(c, option, (uint32_t)bytes, data, bytes);
    while ((reply = client_receive_reply(c, option)) != NBD_REP_ACK && !(reply & UINT32_C(0x80000000))) {
        n++;
    }
    if (replies) {
        *replies = n;
    }
    return reply;
}

static inline uint32_t client_go(Client *c, uint32_t option, const char *name)
{
    g_autofree uint8_t *data = g_malloc(6 + strlen(name));
    uint8_t *at = blk_put_be32(data, (uint32_t)strlen(name));

    memcpy(at, name, strlen(name));
    blk_put_be16(at + strlen(name), 0);
    return client_option(c, option, data, 6 + strlen(name), NULL);
}

static inline uint32_t client_set_mode(Client *c, NbdMode mode)
{
    c->mode = mode;
    return client_option(c, mode == NBD_MODE_EXTENDED ? NBD_OPT_EXTENDED_HEADERS : NBD_OPT_STRUCTURED_REPLY, NULL, 0,
                         NULL);
}

/* One query, or none if it is NULL. */
static inline uint32_t client_contexts(Client *c, uint32_t option, const char *export, const char *query,
                                       unsigned *found)
{
    size_t name = strlen(export), text = query ? strlen(query) : 0;
    g_autofree uint8_t *data = g_malloc(12 + name + text);
    uint8_t *at = blk_put_be32(data, (uint32_t)name);

    memcpy(at, export, name);
    at = blk_put_be32(at + name, query ? 1 : 0);
    if (query) {
        at = blk_put_be32(at, (uint32_t)text);
        memcpy(at, query, text);
        at += text;
    }
    return client_option(c, option, data, (size_t)(at - data), found);
}

/* ---- transmission ---- */

static inline void client_request(Client *c, unsigned flags, NbdCommand type, uint64_t offset, uint64_t length)
{
    bool extended = c->mode == NBD_MODE_EXTENDED;
    uint8_t head[NBD_EXTENDED_REQUEST_BYTES];
    uint8_t *at = blk_put_be32(head, extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC);

    at = blk_put_be16(blk_put_be16(at, (uint16_t)flags), (uint16_t)type);
    at = blk_put_be64(blk_put_be64(at, ++c->cookie), offset);
    at = extended ? blk_put_be64(at, length) : blk_put_be32(at, (uint32_t)length);
    client_send(c, head, (size_t)(at - head));
}

typedef struct Chunk {
    bool done;
    uint16_t type;
    uint64_t cookie;
    uint32_t error;
} Chunk;

/* A chunk or simple reply, whose payload (of a simple one: @data bytes) goes to c->reply. */
static inline Chunk client_chunk(Client *c, uint32_t data)
{
    uint8_t head[NBD_EXTENDED_REPLY_BYTES];
    Chunk chunk = { .done = true };
    uint32_t magic;

    client_receive(c, head, NBD_SIMPLE_REPLY_BYTES);
    magic = blk_get_be32(head);
    chunk.cookie = blk_get_be64(head + 8);
    if (magic == NBD_SIMPLE_REPLY_MAGIC) {
        ck_assert_int_ne(c->mode, NBD_MODE_EXTENDED);
        chunk.error = blk_get_be32(head + 4);
        c->reply_bytes = chunk.error ? 0 : data;
    } else {
        size_t more = (c->mode == NBD_MODE_EXTENDED ? NBD_EXTENDED_REPLY_BYTES : NBD_STRUCTURED_REPLY_BYTES) - 16;

        ck_assert_uint_eq(magic, c->mode == NBD_MODE_EXTENDED ? NBD_EXTENDED_REPLY_MAGIC : NBD_STRUCTURED_REPLY_MAGIC);
        client_receive(c, head + 16, more);
        chunk.done = blk_get_be16(head + 4) & NBD_REPLY_FLAG_DONE;
        chunk.type = blk_get_be16(head + 6);
        c->reply_bytes = more == 4 ? blk_get_be32(head + 16) : (uint32_t)blk_get_be64(head + 24);
    }
    ck_assert_uint_le(c->reply_bytes, sizeof(c->reply));
    client_receive(c, c->reply, c->reply_bytes);
    if (chunk.type == NBD_REPLY_TYPE_ERROR) {
        chunk.error = blk_get_be32(c->reply);
    }
    return chunk;
}

/* Sends a request without data and returns the error of its one reply. */
static inline uint32_t client_command(Client *c, unsigned flags, NbdCommand type, uint64_t offset, uint64_t length)
{
    Chunk chunk;

    client_request(c, flags, type, offset, length);
    chunk = client_chunk(c, (uint32_t)length);
    ck_assert_uint_eq(chunk.cookie, c->cookie);
    ck_assert(chunk.done);
    return chunk.error;
}

#endif
