#!/bin/bash
# SPDX-License-Identifier: MIT
# A buffer of zeroes written through the filter is stored as a zero cluster and takes no payload, also when a partial
# write makes the last byte of a cluster zero, and it hides the backing file.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

zero_buffers() {
    new_image 16M
    both "write -P 0 0 $((2 * CLUSTER))"
    is "$(check_number disk.qcow2 compressed-clusters)" 0 "zeroes into free clusters are not compressed"
    agrees "into free clusters"
    both "write -P 1 0 $((4 * CLUSTER))"
    both "write -P 0 0 $CLUSTER"
    is "$(check_number disk.qcow2 compressed-clusters)" 3 "zeroes over a compressed cluster are not compressed"
    both "write -P 0 $CLUSTER $((CLUSTER / 2))" "write -P 0 $((CLUSTER + CLUSTER / 2)) $((CLUSTER / 2))"
    is "$(check_number disk.qcow2 compressed-clusters)" 2 \
        "a cluster that has become zero in two steps is not compressed"
    agrees "over compressed clusters"

    "$QEMU_IMG" create -q -f raw base.raw 16M
    peer_io base.raw raw "write -P 9 0 16M"
    new_image 16M -b base.raw -F raw
    model_from_image
    both "write -P 0 0 $CLUSTER" "write -P 0 $((2 * CLUSTER)) 512"
    is "$(check_number disk.qcow2 compressed-clusters)" 1 "only the cluster with data is compressed"
    like "$("$QEMU_IMG" map -f qcow2 --output=json disk.qcow2 | head -n 1)" \
        "\"start\": 0, \"length\": $CLUSTER, \"depth\": 0, .*\"zero\": true, \"data\": false" \
        "the zero cluster hides the backing"
    agrees "over a backing file"
}

matrix zero_buffers
done_testing
