#!/bin/bash
# SPDX-License-Identifier: MIT
# Clusters that lie plainly in the image become compressed when they are written through the compress filter, whole or
# in part, whoever wrote them.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

over_plain() {
    local n

    new_image 16M
    both_peer "write -P 1 0 $CLUSTER" "write -P 2 $CLUSTER $((2 * CLUSTER))"
    both_plain "write -P 3 $((3 * CLUSTER)) $CLUSTER"
    is "$(check_number disk.qcow2 compressed-clusters)" 0 "four plain clusters to begin with"
    both "write -P 11 0 $CLUSTER"
    is "$(check_number disk.qcow2 compressed-clusters)" 1 "a whole plain cluster became compressed"
    for n in 1 3; do
        both "write -P 12 $((n * CLUSTER + 4096)) 4k"
    done
    is "$(check_number disk.qcow2 compressed-clusters)" 3 "4 KiB writes into plain clusters compress them"
    is "$(check_number disk.qcow2 allocated-clusters)" 4 "no cluster came or went"
    agrees "plain clusters rewritten"
}

matrix over_plain
done_testing
