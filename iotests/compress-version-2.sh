#!/bin/bash
# SPDX-License-Identifier: MIT
# Images of version 2, which know neither zero clusters nor zstd, take compressed rewrites, zeroes and discards.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

VERSION=v2
for CLUSTER in 65536 2097152; do
    label="v2 $((CLUSTER / 1024))k"
    new_image 16M
    both_peer "write -P 1 0 $((2 * CLUSTER))"
    both "write -P 2 0 $CLUSTER" "write -P 3 $((CLUSTER + 4096)) 4k" "write -P 4 $((2 * CLUSTER)) $CLUSTER"
    both "write -P 5 0 $CLUSTER" "write -P 6 $((3 * CLUSTER - 512)) 1k"
    is "$(check_number disk.qcow2 compressed-clusters)" 4 "four clusters are compressed"
    agrees "rewritten"
    both "write -z 0 $CLUSTER" "write -z $((CLUSTER + 512)) 512" "write -P 0 $((2 * CLUSTER)) $CLUSTER"
    agrees "zeroes"
    both "write -P 7 0 512" "write -P 8 $((2 * CLUSTER)) $CLUSTER"
    agrees "data over zeroes"

    "$QEMU_IMG" create -q -f raw base.raw 16M
    peer_io base.raw raw "write -P 9 0 16M"
    new_image 16M -b base.raw -F raw
    model_from_image
    both "write -P 1 4096 4k" "write -z 0 $CLUSTER" "write -z $((CLUSTER + 512)) 512" \
        "write -P 0 $((2 * CLUSTER)) $CLUSTER"
    agrees "zeroes over a backing file"
    like "$("$QEMU_IMG" info -f qcow2 disk.qcow2)" "compat: 0.10" "the image stayed version 2"
done
done_testing
