/* SPDX-License-Identifier: MIT */
/*
 * negotiate.c - the handshake: fixed newstyle.
 *
 *     server  NBDMAGIC 8 | IHAVEOPT 8 | flags 2
 *     client  flags 4, then options: IHAVEOPT 8 | option 4 | length 4 | data
 *     server  replies: magic 8 | option 4 | reply 4 | length 4 | data
 *
 * One option is received at a time, and no byte more: nothing that was said in plain can be left over when TLS begins.
 * The replies to it are gathered and sent together, so nothing that they tell of can change in between.
 */
#include "core/loop.h"
#include "exports/nbd/server.h"
#include "exports/nbd/tls.h"

enum {
    MAX_OPTION_BYTES = 64 << 10,        /* of data */
    MAX_SKIPPED_BYTES = 32 << 20,       /* ... that are read and forgotten, for an error to be told */
    MAX_OPTIONS = 1024,
    OPTION_HEADER_BYTES = 16,
    PREFERRED_BLOCK = 4096,
};

typedef enum Outcome { GO_ON, TRANSMISSION, THE_END } Outcome;

typedef struct Negotiation {
    NbdConnection *c;
    uint32_t option;
    NbdCursor data;
    GByteArray *out;            /* replies to this option */
} Negotiation;

/* ---- replies ---- */

static void add(Negotiation *n, const void *bytes, size_t count)
{
    g_byte_array_append(n->out, bytes, (guint)count);
}

static void add_reply(Negotiation *n, uint32_t reply, const void *data, size_t bytes)
{
    uint8_t head[20];
    uint8_t *at = blk_put_be64(head, NBD_OPTION_REPLY_MAGIC);

    blk_put_be32(blk_put_be32(blk_put_be32(at, n->option), reply), (uint32_t)bytes);
    add(n, head, sizeof(head));
    add(n, data, bytes);
}

static Outcome acknowledge(Negotiation *n)
{
    add_reply(n, NBD_REP_ACK, NULL, 0);
    return GO_ON;
}

/* @message: for people. */
static Outcome refuse(Negotiation *n, uint32_t error, const char *message)
{
    add_reply(n, error, message, strlen(message));
    return GO_ON;
}

static Outcome refuse_malformed(Negotiation *n, uint32_t error)
{
    return refuse(n, error, error == NBD_REP_ERR_TOO_BIG ? "a string of the option is longer than 4096 bytes"
                                                         : "the option's data do not have the form that it must have");
}

static Outcome refuse_unknown(Negotiation *n)
{
    return refuse(n, NBD_REP_ERR_UNKNOWN, "the server has no export of that name");
}

static void add_info(Negotiation *n, uint16_t kind, const void *data, size_t bytes)
{
    g_autofree uint8_t *info = g_malloc(2 + bytes);

    memcpy(blk_put_be16(info, kind), data, bytes);
    add_reply(n, NBD_REP_INFO, info, 2 + bytes);
}

/* ---- exports ---- */

static uint16_t transmission_flags(const NbdConnection *c, const NbdExport *export, bool status_payload)
{
    unsigned flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_CACHE;

    if (export->base.writable) {
        flags |= NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;
    } else {
        flags |= NBD_FLAG_READ_ONLY;
    }
    if (c->mode != NBD_MODE_SIMPLE) {
        flags |= NBD_FLAG_SEND_DF;
    }
    if (c->mode == NBD_MODE_EXTENDED && status_payload) {
        flags |= NBD_FLAG_BLOCK_STATUS_PAYLOAD;
    }
    if (export->max_connections != 1) {
        flags |= NBD_FLAG_CAN_MULTI_CONN;
    }
    return (uint16_t)flags;
}

/* Any request works, but those of whole clusters cost least. */
static uint32_t preferred_block(const NbdExport *export)
{
    const BlkLimits *limits = blk_node_limits(blk_export_node(&export->base));

    return MIN(MAX(MAX(limits->cluster_size, limits->write_align), PREFERRED_BLOCK), NBD_MAX_PAYLOAD);
}

/* An export that this client may know of. */
static NbdExport *find_export(const NbdConnection *c, NbdString name)
{
    NbdExport *export = blk_nbd_find_export(c->server, name);

    return export && blk_nbd_tls_allows(c->channel, export) ? export : NULL;
}

static bool is_inactive(const NbdExport *export)
{
    return !blk_node_active(blk_export_node(&export->base));
}

/* Waits for a place in @name. Returns: the export, in which it is counted; NULL: there is none, or no place in time.
 * */
static NbdExport *co_enter_export(NbdConnection *c, NbdString name)
{
    NbdExport *export;

    while ((export = find_export(c, name)) && export->max_connections > 0 &&
           export->connections >= export->max_connections) {
        if (blk_nbd_co_wait_for_place(c, export) < 0) {
            return NULL;
        }
    }
    if (export) {
        export->connections++;
        c->export = export;
    }
    return export;
}

/* Contexts that were chosen for another export, or for one that has gone, count for nothing. */
static void check_contexts(NbdConnection *c, NbdString name)
{
    if (!c->context_export || !blk_nbd_string_is(name, c->context_export)) {
        c->contexts = 0;
    }
    c->contexts &= blk_nbd_contexts_of(&c->export->base, c->export->allocation_depth);
}

/* ---- options ---- */

static Outcome co_export_name(Negotiation *n)
{
    NbdConnection *c = n->c;
    NbdString name = { (const char *)n->data.at, (uint32_t)n->data.left };
    uint8_t reply[10 + 124] = { 0 };
    NbdExport *export = c->mode != NBD_MODE_EXTENDED ? co_enter_export(c, name) : NULL;

    if (!export || is_inactive(export)) {
        return THE_END;
    }
    check_contexts(c, name);
    blk_put_be16(blk_put_be64(reply, blk_node_length(blk_export_node(&export->base))),
                 transmission_flags(c, export, false));
    add(n, reply, c->no_zeroes ? 10 : sizeof(reply));
    return TRANSMISSION;
}

static Outcome list(Negotiation *n)
{
    GPtrArray *exports = n->c->server->exports;

    for (guint i = 0; i < exports->len; i++) {
        const NbdExport *export = exports->pdata[i];
        const char *name = export->base.name, *description = export->base.description ? export->base.description : "";
        g_autoptr(GByteArray) data = g_byte_array_new();
        uint8_t length[4];

        if (!export->closing && blk_nbd_tls_allows(n->c->channel, export)) {
            blk_put_be32(length, (uint32_t)strlen(name));
            g_byte_array_append(data, length, sizeof(length));
            g_byte_array_append(data, (const guint8 *)name, (guint)strlen(name));
            g_byte_array_append(data, (const guint8 *)description, (guint)strlen(description));
            add_reply(n, NBD_REP_SERVER, data->data, data->len);
        }
    }
    return acknowledge(n);
}

static void add_infos(Negotiation *n, const NbdExport *export, uint32_t wanted)
{
    bool status_payload = n->option == NBD_OPT_INFO || n->c->contexts;
    const char *description = export->base.description;
    uint8_t data[12];

    if (wanted & 1 << NBD_INFO_NAME) {
        add_info(n, NBD_INFO_NAME, export->base.name, strlen(export->base.name));
    }
    if (wanted & 1 << NBD_INFO_DESCRIPTION && description) {
        add_info(n, NBD_INFO_DESCRIPTION, description, strlen(description));
    }
    blk_put_be32(blk_put_be32(blk_put_be32(data, 1), preferred_block(export)), NBD_MAX_PAYLOAD);
    add_info(n, NBD_INFO_BLOCK_SIZE, data, 12);
    blk_put_be16(blk_put_be64(data, blk_node_length(blk_export_node(&export->base))),
              transmission_flags(n->c, export, status_payload));
    add_info(n, NBD_INFO_EXPORT, data, 10);
}

static Outcome co_info_or_go(Negotiation *n)
{
    bool go = n->option == NBD_OPT_GO;
    NbdInfoRequest request;
    uint32_t refusal = blk_nbd_parse_info(n->data, &request);
    NbdExport *export;

    if (refusal) {
        return refuse_malformed(n, refusal);
    }
    export = find_export(n->c, request.name);
    if (!export) {
        return refuse_unknown(n);
    }
    if (is_inactive(export)) {          /* how long it is may be known only when it is opened again */
        return refuse(n, NBD_REP_ERR_POLICY, "the export is inactive: another process may have its image now");
    }
    if (go) {
        export = co_enter_export(n->c, request.name);
        if (!export) {
            return refuse(n, NBD_REP_ERR_POLICY, "the export has all the clients that it may have");
        }
        check_contexts(n->c, request.name);
    }
    add_infos(n, export, request.wanted);
    acknowledge(n);
    return go ? TRANSMISSION : GO_ON;
}

static Outcome set_mode(Negotiation *n, NbdMode mode)
{
    if (n->data.left > 0) {
        return refuse_malformed(n, NBD_REP_ERR_INVALID);
    }
    if (n->c->mode > mode) {
        return refuse(n, NBD_REP_ERR_EXT_HEADER_REQD, "extended headers were chosen already");
    }
    n->c->mode = mode;
    return acknowledge(n);
}

static void add_contexts(Negotiation *n, const NbdExport *export, NbdContexts contexts, bool numbered)
{
    for (unsigned i = 0; i < NBD_MAX_CONTEXTS; i++) {
        if (blk_nbd_has_context(contexts, i)) {
            g_autofree char *name = blk_nbd_context_name(&export->base, i);
            g_autofree uint8_t *data = g_malloc(4 + strlen(name));

            memcpy(blk_put_be32(data, numbered ? i : 0), name, strlen(name));
            add_reply(n, NBD_REP_META_CONTEXT, data, 4 + strlen(name));
        }
    }
}

static Outcome meta_context(Negotiation *n)
{
    bool set = n->option == NBD_OPT_SET_META_CONTEXT;
    NbdContexts available, found;
    NbdContextRequest request;
    const NbdExport *export;
    uint32_t refusal;

    if (set) {
        n->c->contexts = 0;
        g_clear_pointer(&n->c->context_export, g_free);
    }
    if (n->c->mode == NBD_MODE_SIMPLE) {
        return refuse(n, NBD_REP_ERR_INVALID, "metadata contexts need structured replies");
    }
    refusal = blk_nbd_parse_contexts(n->data, &request);
    if (refusal) {
        return refuse_malformed(n, refusal);
    }
    export = find_export(n->c, request.name);
    if (!export) {
        return refuse_unknown(n);
    }
    available = blk_nbd_contexts_of(&export->base, export->allocation_depth);
    found = request.count == 0 && !set ? available : 0;
    for (uint32_t i = 0; i < request.count; i++) {
        NbdString query;

        blk_nbd_take_string(&request.queries, &query);
        found |= blk_nbd_contexts_match(&export->base, available, query, !set);
    }
    if (set) {
        n->c->contexts = found;
        n->c->context_export = g_strndup(request.name.text, request.name.length);
    }
    add_contexts(n, export, found, set);
    return acknowledge(n);
}

/* All that was agreed on in plain is forgotten. */
static Outcome co_start_tls(Negotiation *n)
{
    NbdConnection *c = n->c;

    if (n->data.left > 0) {
        return refuse_malformed(n, NBD_REP_ERR_INVALID);
    }
    if (c->tls) {
        return refuse(n, NBD_REP_ERR_INVALID, "TLS has begun already");
    }
    if (!blk_nbd_tls_offered(c->server)) {
        return refuse(n, NBD_REP_ERR_POLICY, "the server has no credentials for TLS");
    }
    acknowledge(n);
    if (blk_nbd_co_send_bytes(c, n->out) < 0 || blk_nbd_co_start_tls(c) < 0) {
        return THE_END;
    }
    g_byte_array_set_size(n->out, 0);
    c->tls = true;
    c->mode = NBD_MODE_SIMPLE;
    c->contexts = 0;
    g_clear_pointer(&c->context_export, g_free);
    return GO_ON;
}

static Outcome co_handle(Negotiation *n)
{
    if (n->c->server->tls_required && !n->c->tls && n->option != NBD_OPT_STARTTLS && n->option != NBD_OPT_ABORT) {
        return n->option == NBD_OPT_EXPORT_NAME ? THE_END
                                                : refuse(n, NBD_REP_ERR_TLS_REQD, "this server requires TLS");
    }
    switch (n->option) {
    case NBD_OPT_EXPORT_NAME:
        return co_export_name(n);
    case NBD_OPT_ABORT:
        acknowledge(n);
        return THE_END;
    case NBD_OPT_LIST:
        return n->data.left > 0 ? refuse_malformed(n, NBD_REP_ERR_INVALID) : list(n);
    case NBD_OPT_STARTTLS:
        return co_start_tls(n);
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
        return co_info_or_go(n);
    case NBD_OPT_STRUCTURED_REPLY:
        return set_mode(n, NBD_MODE_STRUCTURED);
    case NBD_OPT_EXTENDED_HEADERS:
        return set_mode(n, NBD_MODE_EXTENDED);
    case NBD_OPT_LIST_META_CONTEXT:
    case NBD_OPT_SET_META_CONTEXT:
        return meta_context(n);
    default:
        return refuse(n, NBD_REP_ERR_UNSUP, "the server does not know this option");
    }
}

/* ---- receiving ---- */

static int co_receive(NbdConnection *c, void *buf, size_t bytes)
{
    return blk_channel_co_recv_all(c->channel, buf, bytes, c->deadline_ns);
}

/* @data: room for MAX_OPTION_BYTES. */
static int co_skip(NbdConnection *c, uint8_t *data, size_t bytes)
{
    int ret = 0;

    while (bytes > 0 && ret == 0) {
        size_t piece = MIN(bytes, MAX_OPTION_BYTES);

        ret = co_receive(c, data, piece);
        bytes -= piece;
    }
    return ret;
}

/* Receives one option and answers it. */
static Outcome co_option(Negotiation *n, bool fixed, uint8_t *data)
{
    uint8_t head[OPTION_HEADER_BYTES];
    uint32_t length;
    Outcome outcome;

    g_byte_array_set_size(n->out, 0);
    if (co_receive(n->c, head, sizeof(head)) < 0 || blk_get_be64(head) != NBD_OPTION_MAGIC) {
        return THE_END;
    }
    n->option = blk_get_be32(head + 8);
    length = blk_get_be32(head + 12);
    if (length > MAX_OPTION_BYTES || (!fixed && n->option != NBD_OPT_EXPORT_NAME)) {
        if (!fixed || n->option == NBD_OPT_EXPORT_NAME || length > MAX_SKIPPED_BYTES ||
            co_skip(n->c, data, length) < 0) {
            return THE_END;
        }
        outcome = refuse(n, NBD_REP_ERR_TOO_BIG, "the option carries more than 65536 bytes");
    } else {
        if (co_receive(n->c, data, length) < 0) {
            return THE_END;
        }
        n->data = (NbdCursor) { data, length };
        outcome = co_handle(n);
    }
    if (n->out->len > 0 && blk_nbd_co_send_bytes(n->c, n->out) < 0) {
        return THE_END;
    }
    return outcome;
}

static int co_greet(NbdConnection *c, bool *fixed)
{
    g_autoptr(GByteArray) greeting = g_byte_array_new();
    uint8_t bytes[18];
    uint32_t flags;
    int ret;

    blk_put_be16(blk_put_be64(blk_put_be64(bytes, NBD_MAGIC), NBD_OPTION_MAGIC),
                 NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    g_byte_array_append(greeting, bytes, sizeof(bytes));
    ret = blk_nbd_co_send_bytes(c, greeting);
    if (ret == 0) {
        ret = co_receive(c, bytes, sizeof(flags));
    }
    flags = blk_get_be32(bytes);
    if (ret == 0 && flags & ~(uint32_t)(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)) {
        return -EPROTO;
    }
    *fixed = flags & NBD_FLAG_FIXED_NEWSTYLE;
    c->no_zeroes = flags & NBD_FLAG_NO_ZEROES;
    return ret;
}

int blk_nbd_co_negotiate(NbdConnection *c)
{
    g_autoptr(GByteArray) out = g_byte_array_new();
    g_autofree uint8_t *data = g_malloc(MAX_OPTION_BYTES);
    Negotiation n = { .c = c, .out = out };
    Outcome outcome = GO_ON;
    bool fixed;
    int ret = co_greet(c, &fixed);

    if (ret < 0) {
        return ret;
    }
    for (unsigned i = 0; i < MAX_OPTIONS && outcome == GO_ON; i++) {
        outcome = co_option(&n, fixed, data);
        blk_co_reschedule();
    }
    return outcome == TRANSMISSION ? 0 : -ECONNRESET;
}
