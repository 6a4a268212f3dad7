/* SPDX-License-Identifier: MIT */
/*
 * test_nbd_server.c - the NBD server, and a client in the same loop that speaks the protocol byte by byte.
 */
#include "nbd_client.h"

#include <netinet/in.h>
#include <sys/un.h>

/* ---- a disk whose reads of the first sector wait until the test lets them go ---- */

enum { SECTOR = 512, MiB = 1 << 20 };

typedef struct Gate {
    bool open;
    unsigned waiting;
    BlkCoQueue queue;
} Gate;

static int gate_co_open(BlkNode *node, const BlkOptions *options, GError **error)
{
    node->length = 1 << 30;
    return 0;
}

static int gate_co_preadv(BlkNode *node, BlkRequest *req)
{
    Gate *gate = node->opaque;

    if (req->offset == 0 && !gate->open) {
        gate->waiting++;
        blk_co_queue_wait(&gate->queue);
        gate->waiting--;
    }
    for (unsigned i = 0; i < req->iov.count; i++) {
        memset(req->iov.vec[i].iov_base, 0x5a, req->iov.vec[i].iov_len);
    }
    return 0;
}

static int gate_co_pwritev(BlkNode *node, BlkRequest *req)
{
    return 0;
}

static const BlkDriver gate_driver = {
    .name          = "gate",
    .kind          = BLK_PROTOCOL,
    .instance_size = sizeof(Gate),
    .co_open       = gate_co_open,
    .co_preadv     = gate_co_preadv,
    .co_pwritev    = gate_co_pwritev,
};

static Gate *gate_of(BlkNode *node)
{
    return node->opaque;
}

static void open_gate(BlkNode *node)
{
    gate_of(node)->open = true;
    blk_co_queue_wake_all(&gate_of(node)->queue);
}

/* ---- servers ---- */

static const char huge[] = "{\"driver\": \"null-co\", \"size\": 1125899906842624, \"read-zeroes\": true}";

static BlkNbdServer *new_server(Test *t, const BlkNbdServerOptions *options)
{
    static const BlkNbdServerOptions none = { .max_connections = 0 };
    BlkNbdServer *server = blk_nbd_server_new(t->ctx, options ? options : &none, NULL);

    ck_assert_ptr_nonnull(server);
    return server;
}

static BlkNode *add_export(Test *t, BlkNbdServer *server, const char *json, const BlkNbdExportOptions *options)
{
    static const BlkNbdExportOptions writable = { .writable = true, .allocation_depth = true };
    g_autoptr(GError) error = NULL;
    BlkNode *node = try_open(t, json, &error);

    ck_assert_msg(node != NULL, "%s", error ? error->message : "");
    ck_assert_int_eq(blk_co_nbd_export_add(server, node, options ? options : &writable, &error), 0);
    return node;
}

static void finish(BlkNbdServer *server, BlkNode *node)
{
    ck_assert_int_eq(blk_co_nbd_server_free(server, NULL), 0);
    blk_co_unref(node);
}

static Client *enter(BlkNbdServer *server, NbdMode mode, const char *name)
{
    Client *c = client_new(server);

    client_greet(c);
    if (mode != NBD_MODE_SIMPLE) {
        ck_assert_uint_eq(client_set_mode(c, mode), NBD_REP_ACK);
    }
    ck_assert_uint_eq(client_go(c, NBD_OPT_GO, name), NBD_REP_ACK);
    return c;
}

/* ---- handshake ---- */

CO_TEST(options_and_their_errors)
{
    BlkNbdServer *server = new_server(t, NULL);
    BlkNode *node = add_export(t, server, huge, NULL);
    Client *c = client_new(server);
    g_autofree uint8_t *long_data = g_malloc0(70000);
    unsigned n;

    client_greet(c);
    ck_assert_uint_eq(client_option(c, NBD_OPT_LIST, NULL, 0, &n), NBD_REP_ACK);
    ck_assert_uint_eq(n, 1);
    ck_assert_uint_eq(client_option(c, NBD_OPT_LIST, "x", 1, NULL), NBD_REP_ERR_INVALID);
    ck_assert_uint_eq(client_option(c, 4711, "abc", 3, NULL), NBD_REP_ERR_UNSUP);
    ck_assert_uint_eq(client_option(c, NBD_OPT_STARTTLS, NULL, 0, NULL), NBD_REP_ERR_POLICY);
    ck_assert_uint_eq(client_option(c, NBD_OPT_GO, "abc", 3, NULL), NBD_REP_ERR_INVALID);
    ck_assert_uint_eq(client_go(c, NBD_OPT_GO, "nowhere"), NBD_REP_ERR_UNKNOWN);
    ck_assert_uint_eq(client_go(c, NBD_OPT_INFO, ""), NBD_REP_ACK);
    ck_assert_uint_eq(client_option(c, NBD_OPT_LIST, long_data, 70000, NULL), NBD_REP_ERR_TOO_BIG);
    ck_assert_uint_eq(client_contexts(c, NBD_OPT_SET_META_CONTEXT, "", "base:allocation", NULL), NBD_REP_ERR_INVALID);
    ck_assert_uint_eq(client_set_mode(c, NBD_MODE_STRUCTURED), NBD_REP_ACK);
    ck_assert_uint_eq(client_contexts(c, NBD_OPT_LIST_META_CONTEXT, "", NULL, &n), NBD_REP_ACK);
    ck_assert_uint_eq(n, 2);
    ck_assert_uint_eq(client_contexts(c, NBD_OPT_SET_META_CONTEXT, "", NULL, &n), NBD_REP_ACK);
    ck_assert_uint_eq(n, 0);
    ck_assert_uint_eq(client_contexts(c, NBD_OPT_SET_META_CONTEXT, "nowhere", "base:", &n), NBD_REP_ERR_UNKNOWN);
    ck_assert_uint_eq(client_set_mode(c, NBD_MODE_EXTENDED), NBD_REP_ACK);
    ck_assert_uint_eq(client_set_mode(c, NBD_MODE_STRUCTURED), NBD_REP_ERR_EXT_HEADER_REQD);
    ck_assert_uint_eq(client_option(c, NBD_OPT_ABORT, "bye", 3, NULL), NBD_REP_ACK);
    client_expects_end(c);
    client_free(c);
    finish(server, node);
}

CO_TEST(an_absurd_option_ends_the_connection)
{
    BlkNbdServer *server = new_server(t, NULL);
    BlkNode *node = add_export(t, server, huge, NULL);
    Client *c = client_new(server);

    client_greet(c);
    client_send_option(c, NBD_OPT_LIST, UINT32_MAX, NULL, 0);
    client_expects_end(c);
    client_free(c);

    c = client_new(server);
    client_receive(c, c->reply, 18);
    client_send(c, "\xff\xff\xff\xff", 4);          /* flags that there are not */
    client_expects_end(c);
    client_free(c);
    finish(server, node);
}

CO_TEST(export_name_cannot_say_no)
{
    BlkNbdServer *server = new_server(t, NULL);
    BlkNode *node = add_export(t, server, huge, NULL);
    Client *c = client_new(server);

    client_greet(c);
    client_send_option(c, NBD_OPT_EXPORT_NAME, 0, NULL, 0);
    client_receive(c, c->reply, 10);
    ck_assert_uint_eq(blk_get_be64(c->reply), UINT64_C(1) << 50);
    ck_assert_uint_eq(client_command(c, 0, NBD_CMD_READ, 0, 100), 0);
    client_free(c);

    c = client_new(server);
    client_greet(c);
    client_send_option(c, NBD_OPT_EXPORT_NAME, 3, "xyz", 3);
    client_expects_end(c);
    client_free(c);
    finish(server, node);
}

CO_TEST(contexts_are_those_of_the_export)
{
    static const BlkNbdExportOptions other = { .name = "other", .writable = true };
    BlkNbdServer *server = new_server(t, NULL);
    BlkNode *node = add_export(t, server, huge, NULL), *second = add_export(t, server, huge, &other);
    Client *c = client_new(server);
    unsigned n;

    client_greet(c);
    client_set_mode(c, NBD_MODE_STRUCTURED);
    ck_assert_uint_eq(client_contexts(c, NBD_OPT_SET_META_CONTEXT, "", "base:allocation", &n), NBD_REP_ACK);
    ck_assert_uint_eq(n, 1);
    ck_assert_uint_eq(client_go(c, NBD_OPT_GO, "other"), NBD_REP_ACK);
    ck_assert_uint_eq(client_command(c, 0, NBD_CMD_BLOCK_STATUS, 0, 4096), NBD_EINVAL);
    client_free(c);
    blk_co_unref(second);
    finish(server, node);
}

CO_TEST(a_silent_client_is_dropped)
{
    static const BlkNbdServerOptions options = { .handshake_seconds = 1 };
    BlkNbdServer *server = new_server(t, &options);
    BlkNode *node = add_export(t, server, huge, NULL);
    Client *c = client_new(server), *entered = enter(server, NBD_MODE_SIMPLE, "");

    client_greet(c);
    client_expects_end(c);
    ck_assert_uint_eq(blk_nbd_server_connections(server), 1);
    ck_assert_uint_eq(client_command(entered, 0, NBD_CMD_READ, 0, 100), 0);
    client_free(c);
    client_free(entered);
    finish(server, node);
}

static int co_leave_later(void *opaque)
{
    blk_co_sleep_ns(50000000);
    client_free(opaque);
    return 0;
}

CO_TEST(waits_for_a_place_in_an_export)
{
    static const BlkNbdServerOptions patience = { .handshake_seconds = 1 };
    static const BlkNbdExportOptions one = { .max_connections = 1 };
    BlkNbdServer *server = new_server(t, &patience);
    BlkNode *node = add_export(t, server, huge, &one);
    Client *first = enter(server, NBD_MODE_SIMPLE, ""), *second, *third = client_new(server);

    blk_co_spawn(t->ctx, co_leave_later, first);
    second = enter(server, NBD_MODE_SIMPLE, "");
    client_greet(third);
    ck_assert_uint_eq(client_go(third, NBD_OPT_GO, ""), NBD_REP_ERR_POLICY);
    client_free(second);
    client_free(third);
    finish(server, node);
}

/* ---- listening ---- */

static struct sockaddr_un socket_path(Test *t)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    g_snprintf(address.sun_path, sizeof(address.sun_path), "%s/s", t->dir);
    return address;
}

static Client *connect_unix(Test *t)
{
    struct sockaddr_un address = socket_path(t);

    return client_connect(AF_UNIX, &address, sizeof(address));
}

CO_TEST(silent_clients_keep_nobody_out)
{
    static const BlkNbdServerOptions options = { .max_connections = 2, .handshake_seconds = 100 };
    BlkNbdServer *server = new_server(t, &options);
    BlkNode *node = add_export(t, server, huge, NULL);
    struct sockaddr_un address = socket_path(t);
    Client *entered, *silent, *third;

    ck_assert_int_eq(blk_nbd_server_listen_unix(server, address.sun_path, NULL), 0);
    entered = connect_unix(t);
    client_greet(entered);
    ck_assert_uint_eq(client_go(entered, NBD_OPT_GO, ""), NBD_REP_ACK);
    silent = connect_unix(t);
    client_greet(silent);
    third = connect_unix(t);
    client_greet(third);
    ck_assert_uint_eq(client_go(third, NBD_OPT_GO, ""), NBD_REP_ACK);
    client_expects_end(silent);
    ck_assert_uint_eq(client_command(entered, 0, NBD_CMD_READ, 0, 100), 0);
    client_free(entered);
    client_free(silent);
    client_free(third);
    finish(server, node);
    ck_assert_int_eq(access(address.sun_path, F_OK), -1);
}

CO_TEST(paths_of_sockets)
{
    g_autofree char *longer = g_strnfill(200, 'x');
    struct sockaddr_un address = socket_path(t);
    BlkNbdServer *server = new_server(t, NULL), *second = new_server(t, NULL);
    g_autoptr(GError) error = NULL;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_eq(blk_nbd_server_listen_unix(server, longer, &error), -ENAMETOOLONG);
    make_file(t, "s", 1, 0, 0);
    ck_assert_int_eq(blk_nbd_server_listen_unix(server, address.sun_path, NULL), -EADDRINUSE);
    g_unlink(address.sun_path);
    /* The socket of a server that is gone is replaced; that of one that runs is not. */
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    ck_assert_int_eq(blk_nbd_server_listen_unix(server, address.sun_path, NULL), 0);
    ck_assert_int_eq(blk_nbd_server_listen_unix(second, address.sun_path, NULL), -EADDRINUSE);
    ck_assert_int_eq(blk_co_nbd_server_free(second, NULL), 0);
    client_free(connect_unix(t));
    /* What somebody else has put there meanwhile stays. */
    g_unlink(address.sun_path);
    make_file(t, "s", 1, 0, 0);
    ck_assert_int_eq(blk_co_nbd_server_free(server, NULL), 0);
    ck_assert_int_eq(access(address.sun_path, F_OK), 0);
}

CO_TEST(a_free_port)
{
    BlkNbdServer *server = new_server(t, NULL);
    BlkNode *node = add_export(t, server, huge, NULL);
    int null = open("/dev/null", O_RDONLY);
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    g_autoptr(GError) error = NULL;
    Client *c;

    ck_assert_int_eq(blk_co_nbd_server_listen_tcp(server, "127.0.0.1", "0", &error), 0);
    address.sin_port = htons((uint16_t)blk_nbd_server_port(server));
    c = client_connect(AF_INET, &address, sizeof(address));
    client_greet(c);
    ck_assert_uint_eq(client_go(c, NBD_OPT_GO, ""), NBD_REP_ACK);
    client_free(c);
    ck_assert_int_lt(blk_co_nbd_server_listen_tcp(server, "127.0.0.1", "no-such-service", &error), 0);
    ck_assert_ptr_nonnull(strstr(error->message, "127.0.0.1:no-such-service"));
    ck_assert_int_eq(blk_nbd_server_listen_fd(server, null, NULL), -EINVAL);
    ck_assert_int_eq(close(null), 0);       /* it is not the server's */
    finish(server, node);
}

/* ---- transmission ---- */

CO_TEST(simple_replies)
{
    BlkNbdServer *server = new_server(t, NULL);
    BlkNode *node = add_export(t, server, huge, NULL);
    Client *c = enter(server, NBD_MODE_SIMPLE, "");

    ck_assert_uint_eq(client_command(c, 0, NBD_CMD_READ, 12345, 5000), 0);
    ck_assert(blk_buffer_is_zero(c->reply, 5000));
    ck_assert_uint_eq(client_command(c, NBD_CMD_FLAG_DF, NBD_CMD_READ, 0, 512), NBD_EINVAL);
    ck_assert_uint_eq(client_command(c, 0, NBD_CMD_READ, UINT64_C(1) << 63, 512), NBD_EINVAL);
    ck_assert_uint_eq(client_command(c, 0, NBD_CMD_READ, 0, UINT32_MAX), NBD_EINVAL);
    ck_assert_uint_eq(client_command(c, 0, 1000, 0, 512), NBD_EINVAL);
    ck_assert_uint_eq(client_command(c, 0, NBD_CMD_BLOCK_STATUS, 0, 512), NBD_EINVAL);
    ck_assert_uint_eq(client_command(c, 0, NBD_CMD_FLUSH, 0, 0), 0);
    client_request(c, 0, NBD_CMD_DISC, 0, 0);
    client_expects_end(c);
    client_free(c);
    finish(server, node);
}

static void write_bytes(Client *c, unsigned flags, uint64_t offset, uint64_t length)
{
    g_autofree uint8_t *data = g_malloc0(length);

    client_request(c, flags, NBD_CMD_WRITE, offset, length);
    client_send(c, data, length);
}

CO_TEST(a_payload_that_is_too_long_is_skipped)
{
    BlkNbdServer *server = new_server(t, NULL);
    BlkNode *node = add_export(t, server, huge, NULL);
    Client *c = enter(server, NBD_MODE_SIMPLE, "");

    write_bytes(c, 0, 0, 33 * MiB);
    ck_assert_uint_eq(client_chunk(c, 0).error, NBD_EINVAL);
    write_bytes(c, 0, 0, 32 * MiB);
    ck_assert_uint_eq(client_chunk(c, 0).error, 0);
    write_bytes(c, 0, UINT64_MAX, 1000);
    ck_assert_uint_eq(client_chunk(c, 0).error, NBD_ENOSPC);
    ck_assert_uint_eq(client_command(c, 0, NBD_CMD_READ, 0, 100), 0);
    client_request(c, 0, NBD_CMD_WRITE, 0, 65 * MiB);
    client_expects_end(c);
    client_free(c);
    finish(server, node);
}

/* Small and large ones in one stream, cut at any place, some of which are refused. */
static void payloads_reach_their_places(Test *t, NbdMode mode)
{
    static const uint32_t lengths[] = { 65536, 65536, 1, 16383, 16384, 512, 4096, 65536, 70000, 16385, 4096, 65536 };
    enum { LENGTHS = G_N_ELEMENTS(lengths), REQUESTS = 7 * LENGTHS, PLACE = 70000 };
    static const BlkNbdExportOptions options = { .writable = true };
    unsigned flags = mode == NBD_MODE_EXTENDED ? NBD_CMD_FLAG_PAYLOAD_LEN : 0, refused = 0;
    g_autofree uint8_t *data = g_malloc(PLACE + REQUESTS);
    BlkNbdServer *server = new_server(t, NULL);
    Client *c;

    make_file(t, "payloads", (uint64_t)REQUESTS * PLACE, 0, 0);
    BlkChild *user = open_rw(t, "{\"driver\": \"file\", \"filename\": \"@/payloads\"}");
    ck_assert_int_eq(blk_co_nbd_export_add(server, blk_child_node(user), &options, NULL), 0);
    c = enter(server, mode, "");
    for (unsigned i = 0; i < PLACE + REQUESTS; i++) {
        data[i] = (uint8_t)(i ^ i >> 8);
    }
    for (unsigned i = 0; i < REQUESTS; i++) {
        uint32_t length = lengths[i % LENGTHS], first = length * (i % 4) / 4;

        client_request(c, flags, NBD_CMD_WRITE, i % 10 == 3 ? UINT64_MAX : (uint64_t)i * PLACE, length);
        client_send(c, data + i, first);
        if (i % 3 == 0) {
            blk_co_reschedule();
        }
        client_send(c, data + i + first, length - first);
    }
    for (unsigned i = 0; i < REQUESTS; i++) {
        refused += client_chunk(c, 0).error == NBD_ENOSPC;
    }
    ck_assert_uint_eq(refused, (REQUESTS + 6) / 10);
    client_free(c);
    c = enter(server, NBD_MODE_SIMPLE, "");
    for (unsigned i = 0; i < REQUESTS; i++) {
        uint32_t length = lengths[i % LENGTHS];

        ck_assert_uint_eq(client_command(c, 0, NBD_CMD_READ, (uint64_t)i * PLACE, length), 0);
        if (i % 10 == 3) {
            ck_assert(blk_buffer_is_zero(c->reply, length));
        } else {
            ck_assert_mem_eq(c->reply, data + i, length);
        }
    }
    client_free(c);
    ck_assert_int_eq(blk_co_nbd_server_free(server, NULL), 0);
    blk_co_detach(user);
}

CO_TEST(payloads_of_all_sizes)
{
    payloads_reach_their_places(t, NBD_MODE_SIMPLE);
    payloads_reach_their_places(t, NBD_MODE_EXTENDED);
}

CO_TEST(a_read_only_export_refuses_changes)
{
    static const BlkNbdExportOptions options = { .writable = false };
    BlkNbdServer *server = new_server(t, NULL);
    BlkNode *node = add_export(t, server, huge, &options);
    Client *c = enter(server, NBD_MODE_STRUCTURED, "");

    write_bytes(c, 0, 0, 100);
    ck_assert_uint_eq(client_chunk(c, 0).error, NBD_EPERM);
    ck_assert_uint_eq(client_command(c, 0, NBD_CMD_TRIM, 0, 100), NBD_EPERM);
    ck_assert_uint_eq(client_command(c, 0, NBD_CMD_WRITE_ZEROES, 0, 100), NBD_EPERM);
    client_request(c, 0, NBD_CMD_READ, 0, 100);
    ck_assert_uint_eq(client_chunk(c, 0).type, NBD_REPLY_TYPE_OFFSET_HOLE);
    client_free(c);
    finish(server, node);
}

CO_TEST(extended_headers)
{
    BlkNbdServer *server = new_server(t, NULL);
    BlkNode *node = add_export(t, server, huge, NULL);
    Client *c = enter(server, NBD_MODE_EXTENDED, "");

    write_bytes(c, NBD_CMD_FLAG_PAYLOAD_LEN, 5, 1000);
    ck_assert_uint_eq(client_chunk(c, 0).error, 0);
    /* Without the flag there is no payload, and so no write. */
    ck_assert_uint_eq(client_command(c, 0, NBD_CMD_WRITE, 0, 1000), NBD_EINVAL);
    ck_assert_uint_eq(client_command(c, 0, NBD_CMD_WRITE_ZEROES, 0, UINT64_C(1) << 50), 0);
    ck_assert_uint_eq(client_command(c, 0, NBD_CMD_TRIM, 1, (UINT64_C(1) << 50) - 1), 0);
    ck_assert_uint_eq(client_command(c, 0, NBD_CMD_TRIM, 1, UINT64_C(1) << 50), NBD_EINVAL);
    ck_assert_uint_eq(client_command(c, 0, NBD_CMD_TRIM, UINT64_MAX, UINT64_MAX), NBD_EINVAL);
    ck_assert_uint_eq(client_command(c, 0, NBD_CMD_WRITE_ZEROES, (UINT64_C(1) << 50) - 1, 2), NBD_ENOSPC);
    ck_assert_uint_eq(client_command(c, 0, NBD_CMD_READ, 0, UINT64_C(1) << 40), NBD_EINVAL);
    /* A payload where there must be none is skipped. */
    client_request(c, NBD_CMD_FLAG_PAYLOAD_LEN, NBD_CMD_READ, 0, 100);
    client_send(c, c->reply, 100);
    ck_assert_uint_eq(client_chunk(c, 0).error, NBD_EINVAL);
    client_request(c, 0, NBD_CMD_READ, 7, 100);
    ck_assert_uint_eq(client_chunk(c, 0).type, NBD_REPLY_TYPE_OFFSET_HOLE);
    ck_assert_uint_eq(blk_get_be64(c->reply), 7);
    ck_assert_uint_eq(blk_get_be32(c->reply + 8), 100);
    client_free(c);
    finish(server, node);
}

CO_TEST(extended_block_status)
{
    BlkNbdServer *server = new_server(t, NULL);
    BlkNode *node = add_export(t, server, huge, NULL);
    Client *c = client_new(server);
    uint8_t payload[16];
    unsigned n;

    client_greet(c);
    client_set_mode(c, NBD_MODE_EXTENDED);
    ck_assert_uint_eq(client_contexts(c, NBD_OPT_SET_META_CONTEXT, "", "base:allocation", &n), NBD_REP_ACK);
    ck_assert_uint_eq(client_go(c, NBD_OPT_GO, ""), NBD_REP_ACK);
    client_request(c, 0, NBD_CMD_BLOCK_STATUS, 4096, (UINT64_C(1) << 50) - 4096);
    ck_assert_uint_eq(client_chunk(c, 0).type, NBD_REPLY_TYPE_BLOCK_STATUS_EXT);
    ck_assert_uint_eq(c->reply_bytes, 8 + 16);
    ck_assert_uint_eq(blk_get_be32(c->reply), 0);
    ck_assert_uint_eq(blk_get_be32(c->reply + 4), 1);
    ck_assert_uint_eq(blk_get_be64(c->reply + 8), (UINT64_C(1) << 50) - 4096);
    ck_assert_uint_eq(client_command(c, 0, NBD_CMD_BLOCK_STATUS, 0, 0), NBD_EINVAL);

    blk_put_be32(blk_put_be64(payload, 8192), 0);
    client_request(c, NBD_CMD_FLAG_PAYLOAD_LEN, NBD_CMD_BLOCK_STATUS, 0, 12);
    client_send(c, payload, 12);
    ck_assert_uint_eq(client_chunk(c, 0).error, 0);
    ck_assert_uint_eq(blk_get_be64(c->reply + 8), 8192);
    for (unsigned bytes = 1; bytes < 16; bytes++) {
        blk_put_be32(blk_put_be64(payload, 8192), bytes == 12 ? 1 : 0);      /* 12: a context that was not chosen */
        client_request(c, NBD_CMD_FLAG_PAYLOAD_LEN, NBD_CMD_BLOCK_STATUS, 0, bytes);
        client_send(c, payload, bytes);
        ck_assert_uint_eq(client_chunk(c, 0).error, NBD_EINVAL);
    }
    client_free(c);
    finish(server, node);
}

CO_TEST(a_request_that_waits_holds_up_no_other)
{
    ck_assert_int_eq(blk_driver_register(t->ctx, &gate_driver, NULL), 0);
    BlkNbdServer *server = new_server(t, NULL);
    BlkNode *node = add_export(t, server, "{\"driver\": \"gate\"}", NULL);
    Client *c = enter(server, NBD_MODE_SIMPLE, "");

    for (unsigned i = 0; i < 3; i++) {
        client_request(c, 0, NBD_CMD_READ, 0, SECTOR);
        while (gate_of(node)->waiting <= i) {
            blk_co_reschedule();
        }
        ck_assert_uint_eq(client_command(c, 0, NBD_CMD_READ, SECTOR, SECTOR), 0);
        ck_assert_uint_eq(c->reply[0], 0x5a);
    }
    open_gate(node);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_uint_eq(client_chunk(c, SECTOR).error, 0);
    }
    client_free(c);
    finish(server, node);
}

static uint64_t announced_size(BlkNbdServer *server)
{
    Client *c = client_new(server);
    uint64_t size;

    client_greet(c);
    ck_assert_uint_eq(client_go(c, NBD_OPT_INFO, ""), NBD_REP_ACK);
    size = blk_get_be64(c->reply + 2);         /* what came before the acknowledgement, which is empty: NBD_INFO_EXPORT */
    client_free(c);
    return size;
}

CO_TEST(a_new_connection_sees_another_size)
{
    static const BlkNbdExportOptions options = { .name = "" };
    BlkNbdServer *server = new_server(t, NULL);
    Client *c;

    make_file(t, "a", MiB, 0, 0);
    BlkChild *user = open_rw(t, "{\"driver\": \"file\", \"filename\": \"@/a\"}");
    BlkNode *node = blk_child_node(user);
    ck_assert_int_eq(blk_co_nbd_export_add(server, node, &options, NULL), 0);
    c = enter(server, NBD_MODE_SIMPLE, "");
    ck_assert_uint_eq(announced_size(server), MiB);
    ck_assert_int_eq(blk_co_truncate(node, 2 * MiB, BLK_PREALLOC_OFF, NULL), 0);
    ck_assert_uint_eq(announced_size(server), 2 * MiB);
    ck_assert_uint_eq(client_command(c, 0, NBD_CMD_READ, MiB, 512), 0);
    ck_assert_int_eq(blk_co_truncate(node, MiB / 2, BLK_PREALLOC_OFF, NULL), 0);
    ck_assert_uint_eq(client_command(c, 0, NBD_CMD_READ, MiB / 2, 512), NBD_EINVAL);
    ck_assert_uint_eq(client_command(c, 0, NBD_CMD_READ, 0, 512), 0);
    client_free(c);
    ck_assert_int_eq(blk_co_nbd_server_free(server, NULL), 0);
    blk_co_detach(user);
}

/* Data and holes in turn: a reply has at most 32 chunks, the last of which has all the rest. */
CO_TEST(a_read_of_many_fragments)
{
    enum { BLOCK = 4096, BLOCKS = 46 };
    static const BlkNbdExportOptions options = { .name = "" };
    g_autofree uint8_t *got = g_malloc(BLOCKS * BLOCK);
    BlkNbdServer *server = new_server(t, NULL);
    unsigned chunks = 0;
    Chunk chunk;

    make_file(t, "a", BLOCKS * BLOCK, 0, 0);
    BlkChild *user = open_rw(t, "{\"driver\": \"file\", \"filename\": \"@/a\"}");
    for (unsigned i = 0; i < BLOCKS; i += 2) {
        write_pattern(user, i * BLOCK, BLOCK, (uint8_t)(i + 1));
    }
    ck_assert_int_eq(blk_co_nbd_export_add(server, blk_child_node(user), &options, NULL), 0);
    Client *c = enter(server, NBD_MODE_STRUCTURED, "");
    memset(got, 0xee, BLOCKS * BLOCK);
    client_request(c, 0, NBD_CMD_READ, 0, BLOCKS * BLOCK);
    do {
        chunk = client_chunk(c, 0);
        uint64_t offset = blk_get_be64(c->reply);
        if (chunk.type == NBD_REPLY_TYPE_OFFSET_HOLE) {
            memset(got + offset, 0, blk_get_be32(c->reply + 8));
        } else {
            ck_assert_int_eq(chunk.type, NBD_REPLY_TYPE_OFFSET_DATA);
            memcpy(got + offset, c->reply + 8, c->reply_bytes - 8);
        }
        chunks++;
    } while (!chunk.done);
    ck_assert_uint_le(chunks, 32);
    ck_assert_uint_gt(chunks, 16);
    for (unsigned i = 0; i < BLOCKS; i++) {
        ck_assert_uint_eq(got[i * BLOCK], i % 2 ? 0 : i + 1);
        ck_assert_mem_eq(got + i * BLOCK, got + i * BLOCK + 1, BLOCK - 1);
    }
    client_free(c);
    ck_assert_int_eq(blk_co_nbd_server_free(server, NULL), 0);
    blk_co_detach(user);
}

/* ---- the end ---- */

static int co_open_gate_later(void *opaque)
{
    blk_co_sleep_ns(50000000);
    open_gate(opaque);
    return 0;
}

CO_TEST(the_end_answers_what_is_in_flight)
{
    ck_assert_int_eq(blk_driver_register(t->ctx, &gate_driver, NULL), 0);
    BlkNbdServer *server = new_server(t, NULL);
    BlkNode *node = add_export(t, server, "{\"driver\": \"gate\"}", NULL);
    Client *c = enter(server, NBD_MODE_SIMPLE, ""), *silent = client_new(server);

    client_request(c, 0, NBD_CMD_READ, 0, SECTOR);
    client_request(c, 0, NBD_CMD_READ, 0, 2 * SECTOR);
    while (gate_of(node)->waiting < 2) {
        blk_co_reschedule();
    }
    blk_co_spawn(t->ctx, co_open_gate_later, node);
    finish(server, node);
    ck_assert_uint_eq(client_chunk(c, SECTOR).error, 0);
    ck_assert_uint_eq(client_chunk(c, 2 * SECTOR).error, 0);
    client_expects_end(c);
    client_receive(silent, silent->reply, 18);
    client_expects_end(silent);
    client_free(c);
    client_free(silent);
}

CO_TEST(a_client_that_leaves_with_requests_in_flight)
{
    ck_assert_int_eq(blk_driver_register(t->ctx, &gate_driver, NULL), 0);
    BlkNbdServer *server = new_server(t, NULL);
    BlkNode *node = add_export(t, server, "{\"driver\": \"gate\"}", NULL);
    Client *c = enter(server, NBD_MODE_STRUCTURED, "");

    for (unsigned i = 0; i < 5; i++) {
        client_request(c, 0, NBD_CMD_READ, 0, SECTOR);
    }
    while (gate_of(node)->waiting < 5) {
        blk_co_reschedule();
    }
    client_free(c);
    blk_co_sleep_ns(50000000);
    ck_assert_uint_eq(blk_nbd_server_connections(server), 1);
    open_gate(node);
    blk_co_sleep_ns(50000000);
    ck_assert_uint_eq(blk_nbd_server_connections(server), 0);
    finish(server, node);
}

CO_TEST(exports_come_and_go)
{
    static const BlkNbdExportOptions other = { .id = "second", .name = "other", .description = "a disk" };
    BlkNbdServer *server = new_server(t, NULL);
    BlkNode *node = add_export(t, server, huge, NULL), *second;
    Client *c = client_new(server), *inside;
    g_autoptr(GError) error = NULL;
    BlkNbdExportInfo info;
    unsigned n;

    client_greet(c);
    second = add_export(t, server, huge, &other);
    ck_assert_int_eq(blk_co_nbd_export_add(server, second, &other, &error), -EEXIST);
    ck_assert(blk_nbd_server_nth_export(server, 1, &info));
    ck_assert_str_eq(info.id, "second");
    ck_assert(!blk_nbd_server_nth_export(server, 2, &info));
    ck_assert_uint_eq(client_option(c, NBD_OPT_LIST, NULL, 0, &n), NBD_REP_ACK);
    ck_assert_uint_eq(n, 2);

    inside = enter(server, NBD_MODE_SIMPLE, "other");
    g_clear_error(&error);
    ck_assert_int_eq(blk_co_nbd_export_remove(server, "second", BLK_NBD_REMOVE_SAFE, &error), -EBUSY);
    ck_assert_uint_eq(client_command(inside, 0, NBD_CMD_READ, 0, 100), 0);
    ck_assert_int_eq(blk_co_nbd_export_remove(server, "second", BLK_NBD_REMOVE_HARD, NULL), 0);
    client_expects_end(inside);
    ck_assert_int_eq(blk_co_nbd_export_remove(server, "second", BLK_NBD_REMOVE_HARD, NULL), -ENOENT);
    ck_assert_uint_eq(client_go(c, NBD_OPT_GO, "other"), NBD_REP_ERR_UNKNOWN);
    ck_assert_uint_eq(client_go(c, NBD_OPT_GO, ""), NBD_REP_ACK);
    client_free(c);
    client_free(inside);
    blk_co_unref(second);
    finish(server, node);
}

BLK_TEST_MAIN("nbd_server", options_and_their_errors, an_absurd_option_ends_the_connection, export_name_cannot_say_no,
              contexts_are_those_of_the_export, a_silent_client_is_dropped, waits_for_a_place_in_an_export,
              silent_clients_keep_nobody_out, paths_of_sockets, a_free_port, simple_replies,
              a_payload_that_is_too_long_is_skipped, payloads_of_all_sizes, a_read_only_export_refuses_changes,
              extended_headers, extended_block_status, a_request_that_waits_holds_up_no_other,
              a_new_connection_sees_another_size, a_read_of_many_fragments, the_end_answers_what_is_in_flight,
              a_client_that_leaves_with_requests_in_flight, exports_come_and_go)
