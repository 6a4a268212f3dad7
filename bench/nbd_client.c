/* SPDX-License-Identifier: MIT */
/*
 * nbd_client.c - a load for NBD servers: keeps a number of requests in flight and says how many were answered, and how
 * soon. The same program is the client of every server that is compared.
 *
 *     nbd_client [--write] [--seq] [--bs BYTES] [--depth N] [--connections N] [--count N | --seconds S] [--range BYTES]
 *                [--data random|text] [--seed N] URI
 *
 * Prints one line of JSON: requests per second, MB per second, microseconds of the median and the 99th percentile.
 */
#include <getopt.h>
#include <inttypes.h>
#include <libnbd.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_DEPTH = 1024, MAX_CONNECTIONS = 256, DATA_BYTES = 4 << 20 };

typedef struct Load Load;

typedef struct Slot {
    Load *load;
    uint8_t *buf;
    uint64_t sent_ns;
    bool busy;
} Slot;

typedef struct Connection {
    struct nbd_handle *nbd;
    Slot *slots;
} Connection;

struct Load {
    bool write, sequential, text;
    uint64_t bytes, depth, connections, count, range, seed;
    double seconds;
    const char *uri;

    uint64_t sent, done, end_ns;
    uint64_t next;                      /* block of a sequential load */
    uint32_t *latency_ns;               /* of each request that was answered */
    uint64_t room;
    uint8_t *data;
};

static void fail(const char *what)
{
    fprintf(stderr, "nbd_client: %s: %s\n", what, nbd_get_error());
    exit(EXIT_FAILURE);
}

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void make_data(Load *load)
{
    load->data = malloc(DATA_BYTES);
    for (size_t i = 0; i < DATA_BYTES; i += 8) {
        uint64_t word = next_random(&load->seed);

        if (load->text) {
            word = 0x2061626364656667 + (word & 0x0f000f000f000f00);
        }
        memcpy(load->data + i, &word, 8);
    }
}

static uint64_t next_offset(Load *load)
{
    uint64_t blocks = load->range / load->bytes;
    uint64_t block = load->sequential ? load->next++ % blocks : next_random(&load->seed) % blocks;

    return block * load->bytes;
}

static int answered(void *opaque, int *error)
{
    Slot *slot = opaque;
    Load *load = slot->load;

    if (*error) {
        fprintf(stderr, "nbd_client: a request failed: %s\n", strerror(*error));
        exit(EXIT_FAILURE);
    }
    if (load->done == load->room) {
        load->room = load->room ? 2 * load->room : 1 << 16;
        load->latency_ns = realloc(load->latency_ns, load->room * sizeof(*load->latency_ns));
    }
    load->latency_ns[load->done++] = (uint32_t)(now_ns() - slot->sent_ns);
    slot->busy = false;
    return 1;
}

static bool may_send(const Load *load)
{
    return load->count ? load->sent < load->count : now_ns() < load->end_ns;
}

static void send_request(Load *load, Connection *c, Slot *slot)
{
    nbd_completion_callback callback = { .callback = answered, .user_data = slot };
    uint64_t offset = next_offset(load);
    int64_t ret;

    slot->busy = true;
    slot->sent_ns = now_ns();
    load->sent++;
    if (load->write) {
        size_t begin = next_random(&load->seed) % (DATA_BYTES - load->bytes) & ~(size_t)7;

        ret = nbd_aio_pwrite(c->nbd, load->data + begin, load->bytes, offset, callback, 0);
    } else {
        ret = nbd_aio_pread(c->nbd, slot->buf, load->bytes, offset, callback, 0);
    }
    if (ret < 0) {
        fail("sending");
    }
}

static bool fill(Load *load, Connection *c)
{
    bool busy = false;

    for (uint64_t i = 0; i < load->depth; i++) {
        if (!c->slots[i].busy && may_send(load)) {
            send_request(load, c, &c->slots[i]);
        }
        busy |= c->slots[i].busy;
    }
    return busy;
}

static void serve_events(Connection *c, short revents)
{
    unsigned direction = nbd_aio_get_direction(c->nbd);
    int ret = 0;

    if (revents & (POLLIN | POLLHUP) && direction & LIBNBD_AIO_DIRECTION_READ) {
        ret = nbd_aio_notify_read(c->nbd);
    } else if (revents & POLLOUT && direction & LIBNBD_AIO_DIRECTION_WRITE) {
        ret = nbd_aio_notify_write(c->nbd);
    }
    if (ret < 0) {
        fail("the connection");
    }
}

static void run(Load *load, Connection *connections)
{
    struct pollfd fds[MAX_CONNECTIONS];
    bool busy = true;

    while (busy) {
        busy = false;
        for (uint64_t i = 0; i < load->connections; i++) {
            busy |= fill(load, &connections[i]);
        }
        for (uint64_t i = 0; i < load->connections; i++) {
            unsigned direction = nbd_aio_get_direction(connections[i].nbd);

            fds[i] = (struct pollfd) {
                .fd = nbd_aio_get_fd(connections[i].nbd),
                .events = (direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
                          (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0),
            };
        }
        if (busy && poll(fds, load->connections, -1) < 0) {
            fail("poll");
        }
        for (uint64_t i = 0; busy && i < load->connections; i++) {
            serve_events(&connections[i], fds[i].revents);
        }
    }
}

static void connect_all(Load *load, Connection *connections)
{
    for (uint64_t i = 0; i < load->connections; i++) {
        Connection *c = &connections[i];

        c->nbd = nbd_create();
        if (!c->nbd || nbd_connect_uri(c->nbd, load->uri) < 0) {
            fail("connecting");
        }
        c->slots = calloc(load->depth, sizeof(*c->slots));
        for (uint64_t j = 0; j < load->depth; j++) {
            c->slots[j] = (Slot) { .load = load, .buf = calloc(1, load->bytes) };
        }
    }
    if (load->range == 0) {
        load->range = (uint64_t)nbd_get_size(connections[0].nbd);
    }
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static void report(const Load *load, uint64_t took_ns)
{
    double seconds = (double)took_ns / 1e9;

    qsort(load->latency_ns, load->done, sizeof(*load->latency_ns), compare);
    printf("{\"requests\": %" PRIu64 ", \"per_second\": %.0f, \"mb_per_second\": %.1f, \"p50_us\": %.1f, \"p99_us\": "
           "%.1f}\n", load->done, (double)load->done / seconds, (double)(load->done * load->bytes) / seconds / 1e6,
           load->latency_ns[load->done / 2] / 1e3, load->latency_ns[load->done * 99 / 100] / 1e3);
}

static uint64_t number(const char *text, uint64_t max)
{
    char *end;
    uint64_t n = strtoull(text, &end, 10);

    n <<= *end == 'k' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;
    if (n == 0 || n > max) {
        fprintf(stderr, "nbd_client: '%s' is not a number from 1 to %" PRIu64 "\n", text, max);
        exit(EXIT_FAILURE);
    }
    return n;
}

static void parse(Load *load, int argc, char **argv)
{
    static const struct option options[] = {
        { "write", no_argument, NULL, 'w' },            { "seq", no_argument, NULL, 'q' },
        { "bs", required_argument, NULL, 'b' },         { "depth", required_argument, NULL, 'd' },
        { "connections", required_argument, NULL, 'c' }, { "count", required_argument, NULL, 'n' },
        { "seconds", required_argument, NULL, 's' },    { "range", required_argument, NULL, 'r' },
        { "data", required_argument, NULL, 'D' },       { "seed", required_argument, NULL, 'S' },
        { NULL, 0, NULL, 0 },
    };
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 'w': load->write = true; break;
        case 'q': load->sequential = true; break;
        case 'b': load->bytes = number(optarg, 2 << 20); break;
        case 'd': load->depth = number(optarg, MAX_DEPTH); break;
        case 'c': load->connections = number(optarg, MAX_CONNECTIONS); break;
        case 'n': load->count = number(optarg, UINT64_MAX); break;
        case 's': load->seconds = strtod(optarg, NULL); break;
        case 'r': load->range = number(optarg, INT64_MAX); break;
        case 'D': load->text = strcmp(optarg, "text") == 0; break;
        case 'S': load->seed = number(optarg, UINT64_MAX); break;
        default: exit(EXIT_FAILURE);
        }
    }
    if (optind + 1 != argc) {
        fprintf(stderr, "usage: nbd_client [OPTIONS] URI\n");
        exit(EXIT_FAILURE);
    }
    load->uri = argv[optind];
}

int main(int argc, char **argv)
{
    Load load = { .bytes = 4096, .depth = 1, .connections = 1, .seconds = 1, .seed = 88172645463325252 };
    Connection connections[MAX_CONNECTIONS];
    uint64_t start_ns;

    parse(&load, argc, argv);
    make_data(&load);
    connect_all(&load, connections);
    start_ns = now_ns();
    load.end_ns = start_ns + (uint64_t)(load.seconds * 1e9);
    run(&load, connections);
    report(&load, now_ns() - start_ns);
    for (uint64_t i = 0; i < load.connections; i++) {
        nbd_shutdown(connections[i].nbd, 0);
        nbd_close(connections[i].nbd);
    }
    return EXIT_SUCCESS;
}
