/* SPDX-License-Identifier: MIT */
/*
 * list.c - blkstack-nbd -L: prints what an NBD server offers, as the peer does.
 */
#include "nbd/nbd.h"

#include "drivers/nbd/list.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define DEFAULT_HOST "localhost"

static void print_flags(unsigned flags)
{
    printf("  flags: 0x%x (", flags);
    for (unsigned i = 0; i < BLK_NBD_FLAG_BITS; i++) {
        if ((flags & 1u << i) && blk_nbd_flag_names[i]) {
            printf(" %s", blk_nbd_flag_names[i]);
        }
    }
    printf(" )\n");
}

static void print_export(const BlkNbdListed *listed)
{
    g_autofree char *name = tool_printable(listed->name), *description = tool_printable(listed->description);

    printf(" export: '%s'\n", name);
    if (*description) {
        printf("  description: %s\n", description);
    }
    printf("  size:  %" PRIu64 "\n", listed->size);
    print_flags(listed->flags);
    if (listed->min_block) {
        printf("  min block: %u\n", listed->min_block);
        printf("  opt block: %u\n", listed->preferred_block);
        printf("  max block: %u\n", listed->max_block);
    }
    if (listed->contexts->len > 0) {
        printf("  available meta contexts: %u\n", listed->contexts->len);
    }
    for (guint i = 0; i < listed->contexts->len; i++) {
        g_autofree char *context = tool_printable(listed->contexts->pdata[i]);

        printf("   %s\n", context);
    }
}

static JsonObject *where(const NbdArgs *args)
{
    JsonObject *options = json_object_new();

    if (args->socket) {
        json_object_set_string_member(options, "path", args->socket);
    } else {
        json_object_set_string_member(options, "host", args->bind ? args->bind : DEFAULT_HOST);
    }
    if (args->port) {
        json_object_set_string_member(options, "port", args->port);
    }
    if (args->tls_creds) {
        json_object_set_string_member(options, "tls-creds", args->tls_creds);
    }
    if (args->tls_hostname) {
        json_object_set_string_member(options, "tls-hostname", args->tls_hostname);
    }
    return options;
}

int nbd_co_list(void *opaque)
{
    const NbdArgs *args = opaque;
    g_autoptr(JsonObject) options = where(args);
    GError *error = NULL;
    g_autoptr(GPtrArray) exports = blk_co_nbd_list(blk_co_context(), options, &error);

    if (!exports) {
        tool_report(error);
        return EXIT_FAILURE;
    }
    printf("exports available: %u\n", exports->len);
    for (guint i = 0; i < exports->len; i++) {
        print_export(exports->pdata[i]);
    }
    return EXIT_SUCCESS;
}
