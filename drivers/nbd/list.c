/* SPDX-License-Identifier: MIT */
/*
 * list.c - lists the exports of a server, by the blocking calls of libnbd on a thread of the I/O pool.
 *
 * Limitation: libnbd does not tell of the flag "resize".
 */
#include "drivers/nbd/list.h"

#include "drivers/nbd/libnbd.h"
#include "drivers/nbd/nbd.h"

#define MAX_EXPORTS     10000
#define MAX_CONTEXTS    1000

enum { FLAG_READ_ONLY = 1, FLAG_FLUSH, FLAG_FUA, FLAG_ROTATIONAL, FLAG_TRIM, FLAG_ZEROES, FLAG_DF, FLAG_MULTI,
       FLAG_CACHE = 10, FLAG_FAST_ZERO };

const char *const blk_nbd_flag_names[BLK_NBD_FLAG_BITS] = {
    [FLAG_READ_ONLY] = "readonly", [FLAG_FLUSH] = "flush", [FLAG_FUA] = "fua", [FLAG_ROTATIONAL] = "rotational",
    [FLAG_TRIM] = "trim", [FLAG_ZEROES] = "zeroes", [FLAG_DF] = "df", [FLAG_MULTI] = "multi", [FLAG_CACHE] = "cache",
    [FLAG_FAST_ZERO] = "fast-zero",
};

typedef struct Listing {
    struct nbd_handle *handle;
    const NbdServer *server;
    GPtrArray *exports;
    GError **error;
} Listing;

static int failed(GError **error)
{
    int number = libnbd.get_errno();

    return blk_error(error, number > 0 ? -number : -EIO, "%s", libnbd.get_error());
}

static void listed_free(gpointer data)
{
    BlkNbdListed *listed = data;

    g_free(listed->name);
    g_free(listed->description);
    g_ptr_array_unref(listed->contexts);
    g_free(listed);
}

/* ---- one export ---- */

static int add_context(void *opaque, const char *name)
{
    GPtrArray *contexts = opaque;

    if (contexts->len < MAX_CONTEXTS) {
        g_ptr_array_add(contexts, g_strdup(name));
    }
    return 0;
}

/* An answer that is not known counts as no. */
static unsigned bit(int answer, unsigned number)
{
    return answer > 0 ? 1u << number : 0;
}

static unsigned read_flags(struct nbd_handle *h)
{
    return 1 | bit(libnbd.is_read_only(h), FLAG_READ_ONLY) | bit(libnbd.can_flush(h), FLAG_FLUSH) |
           bit(libnbd.can_fua(h), FLAG_FUA) | bit(libnbd.is_rotational(h), FLAG_ROTATIONAL) |
           bit(libnbd.can_trim(h), FLAG_TRIM) | bit(libnbd.can_zero(h), FLAG_ZEROES) | bit(libnbd.can_df(h), FLAG_DF) |
           bit(libnbd.can_multi_conn(h), FLAG_MULTI) | bit(libnbd.can_cache(h), FLAG_CACHE) |
           bit(libnbd.can_fast_zero(h), FLAG_FAST_ZERO);
}

static uint32_t block_size(struct nbd_handle *h, int which)
{
    return (uint32_t)MAX(libnbd.get_block_size(h, which), 0);
}

static void take_info(struct nbd_handle *h, BlkNbdListed *listed)
{
    listed->size = (uint64_t)MAX(libnbd.get_size(h), 0);
    listed->flags = read_flags(h);
    listed->min_block = block_size(h, LIBNBD_SIZE_MINIMUM);
    listed->preferred_block = block_size(h, LIBNBD_SIZE_PREFERRED);
    listed->max_block = block_size(h, LIBNBD_SIZE_MAXIMUM);
}

static int ask_about(struct nbd_handle *h, BlkNbdListed *listed, GError **error)
{
    nbd_context_callback contexts = { .callback = add_context, .user_data = listed->contexts };

    if (libnbd.set_export_name(h, listed->name) < 0 || libnbd.opt_info(h) < 0) {
        return failed(error);
    }
    take_info(h, listed);
    /* Without structured replies there are none. */
    if (libnbd.get_structured_replies_negotiated(h) > 0 && libnbd.opt_list_meta_context(h, contexts) < 0) {
        return failed(error);
    }
    return 0;
}

/* ---- the server ---- */

static int add_export(void *opaque, const char *name, const char *description)
{
    GPtrArray *exports = opaque;
    BlkNbdListed *listed;

    if (exports->len < MAX_EXPORTS) {
        listed = g_new0(BlkNbdListed, 1);
        listed->name = g_strdup(name);
        listed->description = g_strdup(description);
        listed->contexts = g_ptr_array_new_with_free_func(g_free);
        g_ptr_array_add(exports, listed);
    }
    return 0;
}

static int connect_to(struct nbd_handle *h, const NbdServer *server, GError **error)
{
    int ret = server->tls ? nbd_handle_set_tls(h, server, error) : 0;

    if (ret < 0) {
        return ret;
    }
    if (libnbd.set_opt_mode(h, true) < 0 || libnbd.set_full_info(h, true) < 0) {
        return failed(error);
    }
    ret = server->transport == NBD_UNIX ? libnbd.connect_unix(h, server->path)
                                        : libnbd.connect_tcp(h, server->host, server->port);
    if (ret < 0) {
        ret = failed(error);
        if (server->transport == NBD_UNIX) {
            g_prefix_error(error, "Failed to connect to '%s': ", server->path);
        } else {
            g_prefix_error(error, "Failed to connect to '%s:%s': ", server->host, server->port);
        }
    }
    return ret;
}

static int list_all(Listing *l)
{
    nbd_list_callback names = { .callback = add_export, .user_data = l->exports };
    int ret = connect_to(l->handle, l->server, l->error);

    if (ret < 0) {
        return ret;
    }
    if (libnbd.aio_is_ready(l->handle) > 0) {
        /* The old protocol, without options: it has one export. */
        add_export(l->exports, "", "");
        take_info(l->handle, l->exports->pdata[0]);
        return 0;
    }
    if (libnbd.opt_list(l->handle, names) < 0) {
        return libnbd.get_errno() == ENOTSUP ? blk_error(l->error, -ENOTSUP, "Server does not support export lists")
                                          : failed(l->error);
    }
    for (guint i = 0; i < l->exports->len && ret == 0; i++) {
        ret = ask_about(l->handle, l->exports->pdata[i], l->error);
    }
    libnbd.opt_abort(l->handle);
    return ret;
}

/* On a thread. */
static int list_call(void *opaque)
{
    Listing *l = opaque;
    int ret = nbd_libnbd_load(l->error);

    if (ret < 0) {
        return ret;
    }
    l->handle = libnbd.create();
    if (!l->handle) {
        return failed(l->error);
    }
    ret = list_all(l);
    libnbd.close(l->handle);
    return ret;
}

GPtrArray *blk_co_nbd_list(BlkContext *ctx, JsonObject *where, GError **error)
{
    const BlkOption *const tables[] = { nbd_options, NULL };
    g_autoptr(BlkOptions) options = blk_options_parse(tables, where, "NBD server", error);
    g_autoptr(GPtrArray) exports = g_ptr_array_new_with_free_func(listed_free);
    NbdServer server = { .fd = -1 };
    Listing listing = { .server = &server, .exports = exports, .error = error };
    int ret = options ? nbd_server_init(&server, ctx, options, error) : -EINVAL;

    if (ret == 0) {
        ret = blk_aio_co_call(ctx, list_call, &listing);
    }
    nbd_server_clear(&server);
    return ret < 0 ? NULL : g_steal_pointer(&exports);
}
