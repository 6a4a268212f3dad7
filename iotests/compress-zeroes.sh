#!/bin/bash
# SPDX-License-Identifier: MIT
# Write-zeroes through the filter: whole clusters become zero clusters, parts read as zeroes, and data can follow.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

zeroes() {
    local flags

    for flags in "" -u; do
        new_image 32M
        both_peer "write -P 1 0 $((3 * CLUSTER))"
        both "write -P 2 $((3 * CLUSTER)) $((4 * CLUSTER))"
        both "write -z $flags $CLUSTER $CLUSTER" "write -z $flags $((4 * CLUSTER)) $CLUSTER" \
            "write -z $flags $((10 * CLUSTER)) $CLUSTER"
        is "$(check_number disk.qcow2 compressed-clusters)" 3 "zeroes $flags: whole clusters are no longer compressed"
        agrees "whole clusters of zeroes $flags"
        both "write -z $flags 4096 4k" "write -z $flags $((3 * CLUSTER + 512)) 512" \
            "write -z $flags $((6 * CLUSTER - 1024)) 2k" "write -z $flags $((11 * CLUSTER + 4096)) 4k"
        agrees "parts of clusters $flags"
        both "write -z $flags $((2 * CLUSTER - 512)) $((2 * CLUSTER + 1024))"
        agrees "parts and whole clusters in one $flags"
        both "write -P 3 $CLUSTER $CLUSTER" "write -P 4 $((4 * CLUSTER + 4096)) 4k" "write -P 5 $((10 * CLUSTER)) 512"
        agrees "data over zeroes $flags"
        is "$(check_number disk.qcow2 compressed-clusters)" 6 "zeroes $flags: what was written since is compressed"
    done
}

matrix zeroes
done_testing
