#!/bin/bash
# SPDX-License-Identifier: MIT
# A compressed cluster can be rewritten without the filter, and again with it, any number of times, by us and by the
# peer.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

with_and_without() {
    local round

    new_image 16M
    both "write -P 1 0 $((3 * CLUSTER))"
    for round in 1 2 3; do
        both_plain "write -P $((10 * round)) 0 $CLUSTER" "write -P $((10 * round + 1)) $((CLUSTER + 8192)) 4k"
        is "$(check_number disk.qcow2 compressed-clusters)" 1 "round $round: plain writes make two clusters plain"
        agrees "round $round without the filter"
        both "write -P $((10 * round + 2)) 0 $CLUSTER" "write -P $((10 * round + 3)) $((CLUSTER + 512)) 512"
        is "$(check_number disk.qcow2 compressed-clusters)" 3 "round $round: all are compressed again"
        agrees "round $round with the filter"
    done
    both_peer "write -P 50 0 $CLUSTER" "write -P 51 $((CLUSTER + 8192)) 4k" "write -P 52 $((3 * CLUSTER)) 1k"
    both "write -P 53 0 4k" "write -P 54 $((2 * CLUSTER - 512)) 1k" "write -P 55 $((3 * CLUSTER)) 512"
    is "$(check_number disk.qcow2 compressed-clusters)" 4 "what the peer wrote plainly is compressed too"
    agrees "after the peer's writes"
}

matrix with_and_without
done_testing
