#!/bin/bash
# SPDX-License-Identifier: MIT
# What `ninja install` puts in place is enough to build and run a program outside of this tree: a filter of its own
# above a null node, and the installed tools run.
. "$(dirname "$0")/lib.sh"
requires meson pkg-config cc
any_backend

succeeds "installs" env DESTDIR="$TEST_DIR/root" meson install -C "$BLKSTACK_BUILD" --no-rebuild
pc=$(find root -name blkstack.pc)
isnt "$pc" "" "there is a pkg-config file"
library=$(find root -name libblkstack.so)
isnt "$library" "" "there is a shared library"
for tool in blkstack-img blkstack-io; do
    installed=$(find root -name "$tool" -type f)
    isnt "$installed" "" "$tool is installed"
    succeeds "$tool --version" env LD_LIBRARY_PATH="$(dirname "$library")" "$installed" --version
done

cat >program.c <<'END'
#include <blkstack/blkstack.h>
#include <blkstack/driver.h>
#include <stdio.h>

static int invert_co_preadv(BlkNode *node, BlkRequest *req)
{
    int ret = blk_co_pass_through_read(node, req);

    for (uint64_t i = 0; ret == 0 && i < req->bytes; i++) {
        unsigned char byte;

        blk_iov_to_buf(blk_iov_advance(req->iov, i), &byte, 1);
        byte = ~byte;
        blk_iov_from_buf(blk_iov_advance(req->iov, i), &byte, 1);
    }
    return ret;
}

static const BlkDriver driver_invert = {
    .name = "invert",
    .kind = BLK_FILTER,
    .help = "reads the complement of its child",
    .co_preadv = invert_co_preadv,
};

static int use(void *opaque)
{
    BlkContext *ctx = opaque;
    GError *error = NULL;
    unsigned char buf[4];
    JsonObject *options = blk_json_parse_object("{\"driver\": \"invert\", \"file\": "
                                                "{\"driver\": \"null-co\", \"size\": \"1M\", \"read-zeroes\": true}}",
                                                -1, "the options", &error);
    BlkNode *node = options == NULL ? NULL : blk_co_open(ctx, options, &error);

    if (node == NULL) {
        fprintf(stderr, "%s\n", error->message);
        return 1;
    }
    int ret = blk_co_pread(node, 4096, sizeof(buf), buf, 0);
    printf("%d %02x%02x%02x%02x %llu\n", ret, buf[0], buf[1], buf[2], buf[3],
           (unsigned long long)blk_node_length(node));
    blk_co_unref(node);
    json_object_unref(options);
    return 0;
}

int main(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BlkContext) ctx = blk_context_new(NULL, &error);

    if (ctx == NULL || blk_driver_register(ctx, &driver_invert, &error) < 0) {
        fprintf(stderr, "%s\n", error->message);
        return 1;
    }
    return blk_run(ctx, use, ctx);
}
END
flags=(-std=gnu17 -Wall -Werror)
if [ "${BLKSTACK_SANITIZE:-0}" = 1 ]; then
    flags+=("-fsanitize=address,undefined")
fi
PKG_CONFIG_PATH=$(dirname "$PWD/$pc")
export PKG_CONFIG_PATH
read -ra own <<<"$(pkg-config --define-variable=prefix="$PWD/root/usr/local" --cflags-only-I --libs blkstack)"
read -ra others <<<"$(pkg-config --cflags blkstack)"
succeeds "a program builds against the installed library" cc "${flags[@]}" program.c -o program "${own[@]}" \
    "${others[@]}"
is "$(LD_LIBRARY_PATH=$(dirname "$library") ./program 2>&1)" "0 ffffffff 1048576" "and runs, with a filter of its own"
nm -D --defined-only "$library" | awk '{ print $3 }' >symbols
is "$(grep -v '^blk_' symbols || true)" "" "only blk_ names are exported"
done_testing
