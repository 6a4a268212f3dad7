#!/bin/bash
# SPDX-License-Identifier: MIT
# A backing file that ends in the middle of a cluster: what lies behind its end reads as zeroes, also in the cluster
# that a partial write copies up.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

shorter_backing() {
    local length

    for length in $((3 * CLUSTER + 512)) $((3 * CLUSTER)) $((3 * CLUSTER + CLUSTER / 2)); do
        text_file base.raw "$length"
        new_image 16M -b base.raw -F raw
        model_from_image
        both "write -P 1 $((3 * CLUSTER + 512)) 512" "write -P 2 $((3 * CLUSTER - 4096)) 4k" \
            "write -P 3 $((4 * CLUSTER + 512)) 4k"
        agrees "a backing of $length bytes, written around its end"
        both "write -P 4 $((2 * CLUSTER + 512)) $((3 * CLUSTER))" "write -z $((3 * CLUSTER + 1024)) 512"
        agrees "a backing of $length bytes, written across its end"
    done
}

matrix shorter_backing
done_testing
