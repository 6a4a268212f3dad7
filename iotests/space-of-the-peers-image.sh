#!/bin/bash
# SPDX-License-Identifier: MIT
# An image that the peer filled and left full of holes is rewritten through the filter: after each pass it is about as
# small as a fresh conversion, and not longer than a quarter more.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io
any_backend
# timeout: 300

text_file data.raw 33554432
qimg convert -f raw -O qcow2 -c -o compression_type=zstd data.raw peer.qcow2
# It packs to the byte; every other cluster goes away and is written again elsewhere.
commands=()
for ((i = 0; i < 512; i += 2)); do
    commands+=(-c "discard $((i * 64))k 64k")
done
qio -f qcow2 "${commands[@]}" peer.qcow2 >io.out
commands=()
for ((i = 0; i < 512; i += 4)); do
    commands+=(-c "write -c -q -s data.raw $((i * 64))k 64k")
done
qio -f qcow2 "${commands[@]}" peer.qcow2 >io.out
succeeds "the peer's image is sound" "$QEMU_IMG" check -f qcow2 peer.qcow2
status=0
"$BLKSTACK_BUILD/tests/space" --image "$PWD/peer.qcow2" --size 32 --passes 3 --reopen --img "$BLKSTACK_IMG" >space.out || status=$?
diag "$(cat space.out)"
is "$status" 0 "it stays small"
done_testing
