#!/bin/bash
# SPDX-License-Identifier: MIT
# Images with refcounts of 1, 2, 4, ..., 64 bits take compressed rewrites. With 1 bit no two payloads can share a
# cluster.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

every_width() {
    local bits n

    for bits in 1 2 4 8 16 32 64; do
        new_image 16M -o "refcount_bits=$bits"
        for n in 1 2 3; do
            both "write -P $n 0 $((6 * CLUSTER))" "write -P $((n + 10)) 4096 4k" \
                "write -P $((n + 20)) $((3 * CLUSTER - 512)) 1k" "write -z $((4 * CLUSTER)) $CLUSTER"
        done
        is "$(check_number disk.qcow2 compressed-clusters)" 5 "$bits bits: five compressed clusters"
        agrees "$bits bits"
    done
}

matrix every_width
done_testing
