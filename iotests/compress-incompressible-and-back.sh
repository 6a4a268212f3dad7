#!/bin/bash
# SPDX-License-Identifier: MIT
# Data that does not compress is stored plain; when the cluster compresses again, it is stored compressed again.
. "$(dirname "$0")/lib.sh"
requires qemu-img qemu-io

incompressible() {
    local round

    random_file random "$((2 * CLUSTER))"
    text_file text "$((2 * CLUSTER))"
    new_image 16M
    both "write -s text 0 $((2 * CLUSTER))"
    is "$(check_number disk.qcow2 compressed-clusters)" 2 "text is compressed"
    for round in 1 2; do
        both "write -s random 0 $((2 * CLUSTER))"
        is "$(check_number disk.qcow2 compressed-clusters)" 0 "round $round: random data over it is plain"
        is "$(check_number disk.qcow2 allocated-clusters)" 2 "round $round: and allocated"
        agrees "round $round: random over text"
        both "write -s text 0 $((2 * CLUSTER))"
        is "$(check_number disk.qcow2 compressed-clusters)" 2 "round $round: text over it is compressed again"
        agrees "round $round: text over random"
    done
    both "write -s random 0 $CLUSTER" "write -s random 0 $CLUSTER"
    agrees "random over random"
    is "$(check_number disk.qcow2 compressed-clusters)" 1 "the other cluster stayed compressed"
}

matrix incompressible
done_testing
