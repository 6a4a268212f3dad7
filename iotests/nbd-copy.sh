#!/bin/bash
# SPDX-License-Identifier: MIT
# nbdcopy and the peer's qemu-img copy to and from our exports, plain and compressed, over one and many connections.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/nbd-lib.inc"
requires nbdcopy qemu-img

text_file source.raw $((6 << 20))
truncate -s 9M source.raw
random_file part 1500000
dd if=part of=source.raw bs=64k seek=112 conv=notrunc status=none

copied() {      # DESCRIPTION COMMAND...: disk.qcow2 holds source.raw when the server has ended
    local description=$1

    shift
    succeeds "$description" timeout 60 "$@"
    stop_server
    same disk.qcow2 source.raw "$description: the bytes"
    judge disk.qcow2 "$description"
}

for options in "" --compress; do
    label=${options:-plain}
    serve_new() {
        img create -q -f qcow2 -o compression_type=zstd disk.qcow2 9M
        # shellcheck disable=SC2086     # none or one
        our_serve $options -f qcow2 disk.qcow2
    }
    serve_new
    copied "nbdcopy there" nbdcopy source.raw "$nbd_uri"
    serve_new
    copied "nbdcopy there, synchronous, odd sizes" nbdcopy --synchronous --request-size=4096 source.raw "$nbd_uri"
    serve_new
    copied "the peer's convert" "$QEMU_IMG" convert -n -f raw -O raw source.raw "$nbd_uri"
    serve_new
    copied "the peer's convert, out of order" "$QEMU_IMG" convert -n -W -m 8 -f raw -O raw source.raw "$nbd_uri"

    # shellcheck disable=SC2086
    our_serve $options -f qcow2 disk.qcow2
    succeeds "nbdcopy back" timeout 60 nbdcopy "$nbd_uri" back.raw
    succeeds "the same bytes" cmp back.raw source.raw
    succeeds "nbdcopy back over one connection" timeout 60 nbdcopy -C 1 "$nbd_uri" back.raw
    succeeds "the same bytes" cmp back.raw source.raw
    succeeds "the peer's compare" qimg compare -f raw -F raw "$nbd_uri" source.raw
    succeeds "the peer's bench" qimg bench -q -f raw -c 200 -d 16 "$nbd_uri"

    # From one of our servers to another one.
    first=$nbd_pid
    serve_on "$nbd_dir/p" "$BLKSTACK_NBD" --persistent --shared 0 -k "$nbd_dir/p" -f raw back.raw
    succeeds "zeroes" qio -f raw -c "write -z 0 9M" "nbd+unix://?socket=$nbd_dir/p"
    succeeds "nbdcopy from ours to ours" timeout 60 nbdcopy "$nbd_uri" "nbd+unix://?socket=$nbd_dir/p"
    stop_server
    nbd_pid=$first
    stop_server
    succeeds "the same bytes" cmp back.raw source.raw
    if [ -n "$options" ]; then
        num_ok "$(check_number disk.qcow2 compressed-clusters) > 90" "the image is compressed"
    fi
done
done_testing
